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
	builderPart
	timestampPart
	triggerConditionPart
	isTriggerPart
	triggerPricePart
	childrenPart
	isPositionTpslPart
	startPositionPart
	liquidationPart
	twapIDPart
	builderFeePart
	deployerFeePart
	priorityGasPart
	directionOverridePart
	diffPart
	newSizePart // of a new order, in diffPart
	insertBeforePart
	originalSizePart // of an updated order, in diffPart
	updatedSizePart
	buyerPart
	buyerStartPositionPart
	buyerOrderIDPart
	buyerTwapIDPart
	buyerCloidPart
	sellerPart // the seller's parts have the same distance from the buyer's
	sellerStartPositionPart
	sellerOrderIDPart
	sellerTwapIDPart
	sellerCloidPart
	executedSizePart
	executedNotionalPart
	minutesPart
	randomizePart
	startTimePart
	errorPart // the text of an error, of a status that is an object

	innerPart // of a misc event
	listPart
	rawPart
	amountPart
	ratePart
	validatorPart
	usersPart
	deltaPart
	kindPart
	flagPart
	noncePart
	actionPart
	markInputsPart // of an oracle update: these six lists are in the order of their parts
	spotInputsPart
	externalInputsPart
	marksPart
	oraclesPart
	externalsPart

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
	numberOrNullForm             // a whole number of at least 0, or null
	boolOrNullForm               // true or false, or null
	objectOrNullForm             // an object, or null
	arrayOrNullForm              // an array, or null
	anyForm                      // any value, or null
	sideForm                     // "A" or "Ask", "B" or "Bid", written as Ask or Bid
	millisecondsForm             // a whole number, written in the format of other streams' times
	diffForm                     // the kind of a diff, and its sizes
	wordOrErrorForm              // a string; or "error", and the error's text
	blockTimeForm                // no part: the block's time, or null
	extraForm                    // no part: the members of the event that the layout does not have, or null
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
		{`,"hash":`, hashPart, textOrNullForm},
		{`,"builder":`, builderPart, anyForm},
		{`,"timestamp":`, timestampPart, numberOrNullForm},
		{`,"triggerCondition":`, triggerConditionPart, textOrNullForm},
		{`,"isTrigger":`, isTriggerPart, boolOrNullForm},
		{`,"triggerPrice":`, triggerPricePart, textOrNullForm},
		{`,"children":`, childrenPart, arrayOrNullForm},
		{`,"isPositionTpsl":`, isPositionTpslPart, boolOrNullForm},
		{`,"extra":`, 0, extraForm},
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
		{`,"startPosition":`, startPositionPart, textOrNullForm},
		{`,"twapId":`, twapIDPart, numberOrNullForm},
		{`,"builder":`, builderPart, anyForm},
		{`,"builderFee":`, builderFeePart, textOrNullForm},
		{`,"deployerFee":`, deployerFeePart, textOrNullForm},
		{`,"priorityGas":`, priorityGasPart, anyForm},
		{`,"extra":`, 0, extraForm},
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
		{`,"directionOverride":`, directionOverridePart, textOrNullForm},
		{`,"buyerStartPosition":`, buyerStartPositionPart, textOrNullForm},
		{`,"buyerTwapId":`, buyerTwapIDPart, numberOrNullForm},
		{`,"sellerStartPosition":`, sellerStartPositionPart, textOrNullForm},
		{`,"sellerTwapId":`, sellerTwapIDPart, numberOrNullForm},
		{`,"extra":`, 0, extraForm},
	}
	diffRecord = []member{
		{`{"id":`, idPart, numberForm},
		{`,"coin":`, coinPart, textForm},
		{`,"side":`, sidePart, sideForm},
		{`,"price":`, pricePart, textForm},
		{`,"owner":`, ownerPart, textForm},
		{`,"time":`, 0, blockTimeForm},
		{`,"kind":`, diffPart, diffForm},
		{`,"insertBefore":`, insertBeforePart, numberOrNullForm},
		{`,"extra":`, 0, extraForm},
	}
)

// diffKeys are the keys of a raw_book_diff that is an object.
var diffKeys = []key{
	{name: "new", keys: []key{{name: "sz", part: newSizePart}, {name: "insertBefore", part: insertBeforePart}}},
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
		w.item, w.tooManySides, w.unknown = 0, false, false
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
	w.between = appendOrNull(append(w.between[:0], `,"blockTime":`...), h.blockTime)
	w.between = appendOrNull(append(w.between, `,"localTime":`...), h.localTime)
	w.between = append(append(w.between, `,"pos":"`...), w.file...)
	w.between = append(w.between, ':')
	w.between = strconv.AppendInt(w.between, offset, 10)
	w.between = append(w.between, ':')
	w.after = appendOrNull(w.after[:0], h.blockTime)
}

// appendNormalized appends the record of the event b[from:to], which was just read. It is not ok if the event lacks
// something that the record needs.
func (w *Worker) appendNormalized(d, b []byte, from, to, index int) (record []byte, ok bool) {
	if w.tooManySides {
		return d, false
	}
	// The record holds the event's values and keys, which are not much longer than the node's.
	d = slices.Grow(d, to-from+len(w.before)+len(w.between)+len(w.after)+512)
	if d, ok = w.appendMembers(d, b, from, w.encoder.record); !ok {
		return d, false
	}
	d = append(d, w.before...)
	if w.encoder.enveloped {
		d = strconv.AppendInt(d, w.indexInBlock(index), 10)
	}
	d = append(d, w.between...)
	d = strconv.AppendInt(d, int64(w.number), 10)
	return append(d, "\"}\n"...), true
}

// appendMembers appends the members of a record from the parts of the event that begins at b[from]. It is not ok if a
// part is missing or has another type.
func (w *Worker) appendMembers(d, b []byte, from int, record []member) (_ []byte, ok bool) {
	for i := range record {
		m := &record[i]
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
		case textOrNullForm, boolOrNullForm, objectOrNullForm, arrayOrNullForm, numberOrNullForm, anyForm:
			switch {
			case len(v) == 0:
				d = append(d, "null"...)
			case v[0] == 'n', m.form.allows(v):
				d = append(d, v...)
			default:
				return d, false
			}
		case sideForm:
			switch keyword(v) {
			case "A", ask:
				d = append(d, `"Ask"`...)
			case "B", bid:
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
		case extraForm:
			switch {
			case w.encoder.splits != noRows:
				d = w.appendRowExtra(d, b, from)
			case w.unknown:
				d = append(w.appendUnknown(append(d, '{'), b, from), '}')
			default:
				d = append(d, "null"...)
			}
		case wordOrErrorForm:
			if d, ok = w.appendWordOrError(d, b, v); !ok {
				return d, false
			}
		}
	}
	return d, true
}

// allows reports whether a form with "or null" allows a value other than null.
func (f form) allows(v []byte) bool {
	switch c := v[0]; f {
	case textOrNullForm:
		return c == '"'
	case numberOrNullForm:
		return isWhole(v)
	case boolOrNullForm:
		return c == 't' || c == 'f'
	case objectOrNullForm:
		return c == '{'
	case arrayOrNullForm:
		return c == '['
	}
	return true
}

// appendUnknown appends the members of the event at b[i] that the layout does not have. The event is read once more, so
// that any number of them takes no memory; events as nodes write them have none.
func (w *Worker) appendUnknown(d, b []byte, i int) []byte {
	if w.encoder.pair {
		i = skipSpace(b, i+1)
		i, _ = scanString(b, i+1)
		i, _ = scanSeparator(b, i, ']')
	}
	return appendUnknownMembers(d, b, i, w.encoder.keys, "")
}

// appendUnknownMembers appends the members of the object at b[i], which is valid JSON, that keys do not have. The keys
// of nested objects are written with the path to them. The result may already end with members.
func appendUnknownMembers(d, b []byte, i int, keys []key, path string) []byte {
	i = skipSpace(b, i+1)
	if b[i] == '}' {
		return d
	}
	var seen uint32
	for more := true; more; {
		end, val, escaped := scanKey(b, i)
		to := scanValue(b, val, 0)
		switch k := find(keys, unquote(b[i:end], escaped)); {
		case k < 0:
			if d[len(d)-1] != '{' {
				d = append(d, ',')
			}
			d = append(append(append(d, '"'), path...), b[i+1:end]...)
			d = append(append(d, ':'), b[val:to]...)
		case seen&(1<<k) == 0:
			seen |= 1 << k
			d = appendUnknownIn(d, b, val, &keys[k], path)
		}
		i, more = scanSeparator(b, to, '}')
	}
	return d
}

// sidePaths are the paths to the items of a list.
var sidePaths = [2]string{"buyer.", "seller."}

// appendUnknownIn is appendUnknownMembers for the value at b[i] that k leads to.
func appendUnknownIn(d, b []byte, i int, k *key, path string) []byte {
	keys := k.keys
	if k.part == diffPart {
		keys = diffKeys
	}
	switch {
	case b[i] == '{' && keys != nil && !k.list:
		return appendUnknownMembers(d, b, i, keys, path+k.name+".")
	case b[i] == '[' && k.list:
		i = skipSpace(b, i+1)
		for item := 0; item < len(sidePaths) && b[i] != ']'; item++ {
			if b[i] == '{' {
				d = appendUnknownMembers(d, b, i, keys, sidePaths[item])
			}
			more := false
			if i, more = scanSeparator(b, scanValue(b, i, 0), ']'); !more {
				break
			}
		}
	}
	return d
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

// keyword returns the content of a string that is a side, or "remove". It returns "" for values without escapes that
// are none of these.
func keyword(v []byte) string {
	switch string(v) {
	case `"A"`:
		return "A"
	case `"B"`:
		return "B"
	case `"Ask"`:
		return ask
	case `"Bid"`:
		return bid
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

// readDiffSteps finds the values of a diff that is laid out as nodes write it.
func (w *Worker) readDiffSteps(b []byte, p place) bool {
	const (
		added    = `{"new":{"sz":`
		before   = `,"insertBefore":`
		original = `{"update":{"origSz":`
		updated  = `,"newSz":`
		closing  = "}}"
	)
	b = b[:p.to]
	if size, end, _ := stringAfter(b, p.from, added); end >= 0 {
		at := place{}
		rest := end
		if from := scanLiteral(b, end, before); from >= 0 {
			if rest = scanDigits(b, from); rest < 0 {
				return false
			}
			at = place{from, rest}
		}
		if string(b[rest:]) != closing {
			return false
		}
		w.places[newSizePart], w.places[insertBeforePart] = place{end - len(size), end}, at
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
