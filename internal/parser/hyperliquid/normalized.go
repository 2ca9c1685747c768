package hyperliquid

import (
	"slices"
	"strconv"
	"time"
)

// Normalized records have one shape per stream, described for consumers in docs/schemas. Values are copied as the node
// wrote them, strings with their escapes, so that amounts are never rounded or reformatted. Only a side, the kind of a
// diff and the time of a fill are converted.

// part is a value of an event that is used in its Normalized record.
type part uint8

const (
	_ part = iota
	idPart
	orderIDPart
	coinPart
	sidePart
	pricePart
	sizePart
	remainingPart
	ownerPart
	timePart
	statusPart
	typePart
	tifPart
	cloidPart
	reduceOnlyPart
	directionPart
	closedPnlPart
	feePart
	feeTokenPart
	crossedPart
	hashPart
	liquidationPart
	diffPart
	newSizePart      // of a new order, in diffPart
	originalSizePart // of an updated order, in diffPart
	updatedSizePart
	buyerPart
	buyerOrderIDPart
	buyerCloidPart
	sellerPart // the seller's parts have the same distance from the buyer's
	sellerOrderIDPart
	sellerCloidPart

	parts // number of parts
)

// place is the position of a value in the input: b[from:to]. The zero place means no value.
type place struct{ from, to int }

// member is a key of a Normalized record, with all text before the value, and the value.
type member struct {
	text string
	part part
	form form
}

// form is the type that a part must have, and how it is written. Forms with "or null" also accept null, or a missing
// value, which is written as null.
type form uint8

const (
	textForm         form = iota // a string
	textOrNullForm               // a string, or null
	numberForm                   // a whole number of at least 0
	boolOrNullForm               // true or false, or null
	objectOrNullForm             // an object, or null
	sideForm                     // "A" or "B", written as Ask or Bid
	millisecondsForm             // a whole number, written in the format of other streams' times
	diffForm                     // the kind of a diff, and its sizes
	blockTimeForm                // no part: the block's time, or null
)

// The shapes of the records, each up to the block, the index and pos, which all records have. Changing a shape or a
// type breaks consumers: see docs/schemas.
//
//nolint:goconst // a shape is most readable as the text that is written
var (
	orderRecord = []member{
		{`{"id":`, idPart, numberForm},
		{`,"coin":`, coinPart, textForm},
		{`,"side":`, sidePart, sideForm},
		{`,"price":`, pricePart, textForm},
		{`,"size":`, sizePart, textForm},
		{`,"remaining":`, remainingPart, textForm},
		{`,"owner":`, ownerPart, textForm},
		{`,"time":`, timePart, textForm},
		{`,"status":`, statusPart, textForm},
		{`,"type":`, typePart, textOrNullForm},
		{`,"tif":`, tifPart, textOrNullForm},
		{`,"cloid":`, cloidPart, textOrNullForm},
		{`,"reduceOnly":`, reduceOnlyPart, boolOrNullForm},
	}
	fillRecord = []member{
		{`{"id":`, idPart, numberForm},
		{`,"orderId":`, orderIDPart, numberForm},
		{`,"coin":`, coinPart, textForm},
		{`,"side":`, sidePart, sideForm},
		{`,"price":`, pricePart, textForm},
		{`,"size":`, sizePart, textForm},
		{`,"owner":`, ownerPart, textForm},
		{`,"time":`, timePart, millisecondsForm},
		{`,"direction":`, directionPart, textOrNullForm},
		{`,"closedPnl":`, closedPnlPart, textOrNullForm},
		{`,"fee":`, feePart, textOrNullForm},
		{`,"feeToken":`, feeTokenPart, textOrNullForm},
		{`,"crossed":`, crossedPart, boolOrNullForm},
		{`,"hash":`, hashPart, textOrNullForm},
		{`,"cloid":`, cloidPart, textOrNullForm},
		{`,"liquidation":`, liquidationPart, objectOrNullForm},
	}
	// Of a trade's two sides the first is the buyer's. The node's README does not document that; its API's [buyer,
	// seller] and other readers of these files agree on it.
	tradeRecord = []member{
		{`{"coin":`, coinPart, textForm},
		{`,"side":`, sidePart, sideForm},
		{`,"price":`, pricePart, textForm},
		{`,"size":`, sizePart, textForm},
		{`,"time":`, timePart, textForm},
		{`,"hash":`, hashPart, textOrNullForm},
		{`,"buyer":`, buyerPart, textForm},
		{`,"buyerOrderId":`, buyerOrderIDPart, numberForm},
		{`,"buyerCloid":`, buyerCloidPart, textOrNullForm},
		{`,"seller":`, sellerPart, textForm},
		{`,"sellerOrderId":`, sellerOrderIDPart, numberForm},
		{`,"sellerCloid":`, sellerCloidPart, textOrNullForm},
	}
	diffRecord = []member{
		{`{"id":`, idPart, numberForm},
		{`,"coin":`, coinPart, textForm},
		{`,"side":`, sidePart, sideForm},
		{`,"price":`, pricePart, textForm},
		{`,"owner":`, ownerPart, textForm},
		{`,"time":`, 0, blockTimeForm},
		{`,"kind":`, diffPart, diffForm},
	}
)

// diffKeys are the keys of a raw_book_diff that is an object.
var diffKeys = []key{
	{name: "new", keys: []key{{name: "sz", part: newSizePart}}},
	{name: "update", keys: []key{{name: "origSz", part: originalSizePart}, {name: "newSz", part: updatedSizePart}}},
}

// locate computes the positions of the parts in the texts of shortcuts.
func locate(steps []step) {
	for i := range steps {
		s := &steps[i]
		at := 0
		// The value of the last skipped step is the shortcut's own.
		for k := range s.skips {
			passed := &steps[i+1+k]
			from := at + len(passed.text)
			if k == s.skips-1 {
				break
			}
			if passed.value == stringRest {
				from-- // the quote
			}
			at = scanValue([]byte(s.text), from, 0)
			if passed.part != 0 {
				s.skippedParts = append(s.skippedParts, fixedPart{passed.part, from, at})
			}
		}
	}
}

// resetParts clears the parts before another event is read.
func (w *Worker) resetParts() {
	if w.encoder.record != nil {
		w.places = [parts]place{}
		w.item, w.tooManySides = 0, false
	}
}

// setPart records the position of a part that the general path found. In a list the part belongs to the item: the first
// is the buyer's side of a trade, the second the seller's.
func (w *Worker) setPart(p part, at place) {
	if w.item < 2 {
		w.places[p+part(w.item)*(sellerPart-buyerPart)] = at
	}
}

// setSkippedParts records the positions of the parts in the text of a shortcut, which begins at index i.
func (w *Worker) setSkippedParts(s *step, i int) {
	for _, f := range s.skippedParts {
		w.places[f.part] = place{i + f.from, i + f.to}
	}
}

// beginNormalized prepares what the Normalized records of a line share.
func (w *Worker) beginNormalized(h *header, offset int64) {
	w.before = append(w.before[:0], `,"block":`...)
	if w.encoder.enveloped {
		w.before = strconv.AppendInt(w.before, h.block, 10)
		w.before = append(w.before, `,"index":`...)
	} else {
		w.before = append(w.before, `null,"index":null`...)
	}
	w.between = append(append(w.between[:0], `,"pos":"`...), w.file...)
	w.between = append(w.between, ':')
	w.between = strconv.AppendInt(w.between, offset, 10)
	w.between = append(w.between, ':')
	w.after = appendOrNull(w.after[:0], h.blockTime)
}

// appendNormalized appends the record of the event with the given length that was just read in b. It is not ok if the
// event lacks something that the record needs.
func (w *Worker) appendNormalized(d, b []byte, length, index int) (record []byte, ok bool) {
	if w.tooManySides {
		return d, false
	}
	// The record holds the event's values and keys, which are not much longer than the node's.
	d = slices.Grow(d, length+len(w.before)+len(w.between)+len(w.after)+512)
	for i := range w.encoder.record {
		m := &w.encoder.record[i]
		d = append(d, m.text...)
		p := w.places[m.part]
		v := b[p.from:p.to] // valid JSON, or empty: the first byte determines the type
		switch m.form {
		case textForm:
			if len(v) == 0 || v[0] != '"' {
				return d, false
			}
			d = append(d, v...)
		case numberForm:
			if !isWhole(v) {
				return d, false
			}
			d = append(d, v...)
		case textOrNullForm, boolOrNullForm, objectOrNullForm:
			switch {
			case len(v) == 0:
				d = append(d, "null"...)
			case v[0] == 'n', m.form.allows(v[0]):
				d = append(d, v...)
			default:
				return d, false
			}
		case sideForm:
			switch keyword(v) {
			case "A":
				d = append(d, `"Ask"`...)
			case "B":
				d = append(d, `"Bid"`...)
			default:
				return d, false
			}
		case millisecondsForm:
			if d, ok = appendTime(d, v); !ok {
				return d, false
			}
		case diffForm:
			if d, ok = w.appendDiff(d, b, p); !ok {
				return d, false
			}
		case blockTimeForm:
			d = append(d, w.after...)
		}
	}
	d = append(d, w.before...)
	if w.encoder.enveloped {
		d = strconv.AppendInt(d, int64(index), 10)
	}
	d = append(d, w.between...)
	d = strconv.AppendInt(d, int64(index), 10)
	return append(d, "\"}\n"...), true
}

// allows reports whether a value of a form with "or null" may begin with c.
func (f form) allows(c byte) bool {
	switch f {
	case textOrNullForm:
		return c == '"'
	case boolOrNullForm:
		return c == 't' || c == 'f'
	}
	return c == '{'
}

// isWhole reports whether a value is a number without sign, fraction and exponent.
func isWhole(v []byte) bool {
	for _, c := range v {
		if !isDigit(c) {
			return false
		}
	}
	return len(v) > 0
}

// keyword returns the content of a string of one letter, or "remove". It returns "" for values without escapes that are
// none of these.
func keyword(v []byte) string {
	switch string(v) {
	case `"A"`:
		return "A"
	case `"B"`:
		return "B"
	case `"remove"`:
		return "remove"
	}
	if len(v) == 0 || v[0] != '"' || slices.Index(v, '\\') < 0 {
		return ""
	}
	return string(unescape(v))
}

// appendTime converts milliseconds since 1970 to the format of other streams' times: in UTC, with nanoseconds, without
// a zone. It is ok up to the year 9999.
func appendTime(d, v []byte) (_ []byte, ok bool) {
	const lastMillisecond = 253402300799999
	ms, ok := parseNumber(v)
	if !ok || ms > lastMillisecond {
		return d, false
	}
	return time.UnixMilli(ms).UTC().AppendFormat(d, `"2006-01-02T15:04:05.000000000"`), true
}

// appendDiff writes the kind of the diff at p, and its sizes.
func (w *Worker) appendDiff(d, b []byte, p place) (_ []byte, ok bool) {
	v := b[p.from:p.to]
	if keyword(v) == "remove" {
		return append(d, `"remove","size":null,"previousSize":null`...), true
	}
	if len(v) == 0 || v[0] != '{' {
		return d, false
	}
	if !w.readDiffSteps(b, p) {
		w.readObject(b, p.from, 0, diffKeys)
	}
	text := func(p part) []byte {
		if v := b[w.places[p].from:w.places[p].to]; len(v) > 0 && v[0] == '"' {
			return v
		}
		return nil
	}
	if w.places[newSizePart] != (place{}) {
		size := text(newSizePart)
		d = append(append(d, `"new","size":`...), size...)
		return append(d, `,"previousSize":null`...), size != nil
	}
	size, previous := text(updatedSizePart), text(originalSizePart)
	d = append(append(d, `"update","size":`...), size...)
	return append(append(d, `,"previousSize":`...), previous...), size != nil && previous != nil
}

// readDiffSteps finds the sizes of a diff that is laid out as nodes write it. What follows the size of a new order does
// not matter, because of duplicate keys the first counts. After an update a "new" key could still follow.
func (w *Worker) readDiffSteps(b []byte, p place) bool {
	const (
		added    = `{"new":{"sz":`
		original = `{"update":{"origSz":`
		updated  = `,"newSz":`
		closing  = "}}"
	)
	b = b[:p.to]
	if size, end, _ := stringAfter(b, p.from, added); end >= 0 {
		w.places[newSizePart] = place{end - len(size), end}
		return true
	}
	was, i, _ := stringAfter(b, p.from, original)
	if i < 0 {
		return false
	}
	is, end, _ := stringAfter(b, i, updated)
	if end < 0 || string(b[end:]) != closing {
		return false
	}
	w.places[originalSizePart], w.places[updatedSizePart] = place{i - len(was), i}, place{end - len(is), end}
	return true
}
