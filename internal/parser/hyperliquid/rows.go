package hyperliquid

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// Rows. A node writes the funding payments of an hour as one misc event of more than 20 MB, which no broker takes as
// one message. Therefore the formats Normalized and EnvelopedRows split the events of MiscEvents and OracleUpdates into
// rows, one record each. An event of SystemActions is one row.
//
// A position remains (file, offset of the line, index). The index numbers the records of a line: an event takes as many
// numbers as it has rows, and at least one, even if a filter drops them. A malformed event takes one. So the numbers
// follow from the line and the format alone, and every sink stores and compares positions as before, also after a crash
// in the middle of an event. The index of the event is sink.Record.Event and Bad.Event. A row is identified by (block,
// index of the event, row), which are members of its record.
//
// Encode stops between two rows when the output is full. The rest of its span then begins with the next row, and has
// the state that is needed to go on. Such an event belongs to the output, and the Part, that has its first row.
//
// An event is valid JSON to its end before its first row is written. Then the rows are found by scanning it again, so
// that no tree is built. An oracle update joins its lists by coin, which takes an index of at most maxEntries entries.
// Nothing is refused: an event, or a row, of unknown shape becomes one record that holds it in "raw".
//
// A filter first judges the whole event, as in every format. Of an event that passes, the rows of its lists are judged
// again, each by its own coin and user; one that does not pass has no record, and its number is not used.

// splitting is how the events of a stream are split into rows.
type splitting uint8

const (
	noRows splitting = iota
	miscRows
	oracleRows
	actionRows
)

const (
	// maxRowHead bounds what each row of an event repeats of the event, in bytes. Nodes write 120.
	maxRowHead = 1 << 10
	// maxEntries bounds the entries of an oracle update's lists. Nodes write a few hundred.
	maxEntries = 1 << 16
)

// variant is a kind of misc event.
type variant struct {
	name   string
	list   []key // leads to the list whose items are the rows; nil: the value is the only row
	record []member
	keys   []key // of a row that is an object; nil: a row is a pair of a validator and an amount
}

//nolint:goconst // a shape is most readable as the text that is written
var (
	miscKeys = []key{{name: "time", part: timePart}, {name: "hash", part: hashPart}, {name: "inner", part: innerPart}}
	variants = []variant{
		{name: "Funding", list: []key{{name: "deltas", part: listPart}}, record: miscRecord(
			member{`,"user":`, ownerPart, textOrNullForm},
			member{`,"coin":`, coinPart, textOrNullForm},
			member{`,"amount":`, amountPart, textOrNullForm},
			member{`,"size":`, sizePart, textOrNullForm},
			member{`,"rate":`, ratePart, textOrNullForm},
		), keys: []key{
			{name: "user", part: ownerPart}, {name: "coin", part: coinPart}, {name: "funding_amount", part: amountPart},
			{name: "szi", part: sizePart}, {name: "funding_rate", part: ratePart},
		}},
		{name: "LedgerUpdate", record: miscRecord(
			member{`,"kind":`, kindPart, textOrNullForm},
			member{`,"users":`, usersPart, arrayOrNullForm},
			member{`,"delta":`, deltaPart, objectOrNullForm},
		), keys: []key{{name: "users", part: usersPart}, {name: "delta", part: deltaPart}}},
		{name: "Delegation", record: miscRecord(
			member{`,"user":`, ownerPart, textOrNullForm},
			member{`,"validator":`, validatorPart, textOrNullForm},
			member{`,"amount":`, amountPart, textOrNullForm},
			member{`,"undelegate":`, flagPart, boolOrNullForm},
		), keys: []key{
			{name: "user", part: ownerPart}, {name: "validator", part: validatorPart}, {name: "amount", part: amountPart},
			{name: "is_undelegate", part: flagPart},
		}},
		{name: "CDeposit", record: miscRecord(
			member{`,"user":`, ownerPart, textOrNullForm},
			member{`,"amount":`, amountPart, textOrNullForm},
		), keys: []key{{name: "user", part: ownerPart}, {name: "amount", part: amountPart}}},
		{name: "CWithdrawal", record: miscRecord(
			member{`,"user":`, ownerPart, textOrNullForm},
			member{`,"amount":`, amountPart, textOrNullForm},
			member{`,"finalized":`, flagPart, boolOrNullForm},
		), keys: []key{
			{name: "user", part: ownerPart}, {name: "amount", part: amountPart}, {name: "is_finalized", part: flagPart},
		}},
		{name: "ValidatorRewards", list: []key{{name: "validator_to_reward", part: listPart}}, record: miscRecord(
			member{`,"validator":`, validatorPart, textOrNullForm},
			member{`,"amount":`, amountPart, textOrNullForm},
		)},
	}
	rawMisc    = miscRecord(member{`,"raw":`, rawPart, anyForm})
	miscCommon = []member{
		{`{"time":`, timePart, textOrNullForm},
		{`,"hash":`, hashPart, textOrNullForm},
		{`,"type":`, typePart, textOrNullForm},
		{`,"extra":`, 0, extraForm},
	}

	oracleKeys = []key{
		{name: "update_class", part: typePart},
		{name: "mark_px_inputs", part: markInputsPart},
		{name: "spot_px_inputs", part: spotInputsPart},
		{name: "external_perp_px_inputs", part: externalInputsPart},
		{name: "oracle_pxs", keys: []key{
			{name: "coin_to_mark_px", part: marksPart},
			{name: "coin_to_oracle_px", part: oraclesPart},
			{name: "coin_to_external_perp_px", part: externalsPart},
		}},
	}
	oracleRecord = []member{
		{`{"type":`, typePart, textOrNullForm},
		{`,"time":`, 0, blockTimeForm},
		{`,"coin":`, coinPart, textForm},
		{`,"markInput":`, markInputsPart, textOrNullForm},
		{`,"spotInput":`, spotInputsPart, textOrNullForm},
		{`,"externalInput":`, externalInputsPart, textOrNullForm},
		{`,"mark":`, marksPart, objectOrNullForm},
		{`,"oracle":`, oraclesPart, objectOrNullForm},
		{`,"external":`, externalsPart, objectOrNullForm},
		{`,"extra":`, 0, extraForm},
	}
	oracleItem = []member{
		{`{"coin":`, coinPart, anyForm},
		{`,"mark_px_inputs":`, markInputsPart, anyForm},
		{`,"spot_px_inputs":`, spotInputsPart, anyForm},
		{`,"external_perp_px_inputs":`, externalInputsPart, anyForm},
		{`,"coin_to_mark_px":`, marksPart, anyForm},
		{`,"coin_to_oracle_px":`, oraclesPart, anyForm},
		{`,"coin_to_external_perp_px":`, externalsPart, anyForm},
	}
	rawWithoutTime = []member{
		{`{"type":`, typePart, textOrNullForm},
		{`,"time":`, 0, blockTimeForm},
		{`,"raw":`, rawPart, anyForm},
		{`,"extra":`, 0, extraForm},
	}
	oracleCommon = []member{{`{"update_class":`, typePart, textOrNullForm}, {`,"extra":`, 0, extraForm}}

	actionKeys = []key{
		{name: "user", part: ownerPart}, {name: "nonce", part: noncePart}, {name: "evm_tx_hash", part: hashPart},
		{name: "action", part: actionPart},
	}
	actionRecord = []member{
		{`{"type":`, typePart, textOrNullForm},
		{`,"time":`, 0, blockTimeForm},
		{`,"user":`, ownerPart, textOrNullForm},
		{`,"nonce":`, noncePart, numberOrNullForm},
		{`,"hash":`, hashPart, textOrNullForm},
		{`,"action":`, actionPart, objectOrNullForm},
		{`,"extra":`, 0, extraForm},
	}
)

// typeKeys lead to the type of an action, or of a change of the ledger.
//
//nolint:goconst // a key is most readable as the text that the node writes
var typeKeys = []key{{name: "type", part: kindPart}}

// miscRecord returns the members of a misc event's row.
func miscRecord(members ...member) []member {
	return slices.Concat([]member{
		{`{"type":`, typePart, textOrNullForm},
		{`,"time":`, timePart, textOrNullForm},
		{`,"hash":`, hashPart, textOrNullForm},
	}, members, []member{{`,"extra":`, 0, extraForm}})
}

// rows is an event that is being split.
type rows struct {
	event []byte
	// kind, time and hash are parts that all rows share. extra are the members that no shape knows, outside of the rows,
	// after a brace.
	kind, time, hash place
	extra            []byte
	record           []member
	keys             []key
	// several reports whether the event may have several rows. They are the items of a list, from the one at next on,
	// or, if entries is not empty, joined from the entries. Otherwise the value at next is the only row.
	several bool
	next    int
	entries []entry
	used    int // entries of earlier rows
	number  int // of the next row
}

// entry is one item of a list of an oracle update.
type entry struct {
	coin, value place
	list        part
	order, row  int // of the coin, and of the row, among all
	escaped     bool
}

// clone returns a copy that is independent of the worker.
func (r *rows) clone() *rows {
	c := *r
	c.extra, c.entries = slices.Clone(r.extra), slices.Clone(r.entries)
	return &c
}

// countRows returns the number of rows of a valid event.
func (w *Worker) countRows(event []byte) int {
	if w.encoder.splits == noRows || w.encoder.splits == actionRows {
		return 1
	}
	r := w.split(event)
	n := 1
	switch {
	case len(r.entries) > 0:
		n = r.entries[len(r.entries)-1].row + 1
	case r.several:
		for i, more := scanSeparator(event, scanValue(event, r.next, 0), ']'); more; n++ {
			i, more = scanSeparator(event, scanValue(event, i, 0), ']')
		}
	}
	return n
}

// countRowsOf returns by how much an event with the given verdict advances the numbers of its line's records.
func (w *Worker) countRowsOf(event []byte, v verdict) int {
	if v == malformed || v == incomparable || w.encoder.splits == noRows || !w.event.plain && !isStrict(event) {
		return 1
	}
	return w.countRows(event)
}

// split begins to split a valid event. The result is valid until the next call.
func (w *Worker) split(event []byte) *rows {
	r := &w.rows
	*r = rows{event: event, extra: append(r.extra[:0], '{'), entries: r.entries[:0]}
	ok := false
	switch w.encoder.splits {
	case miscRows:
		ok = w.splitMisc(r)
	case oracleRows:
		ok = w.splitOracle(r)
	default:
		r.record, r.keys, ok = actionRecord, actionKeys, true
	}
	if !ok { // the event is one row of unknown shape
		*r = rows{event: event, extra: append(r.extra[:0], '{'), entries: r.entries[:0], record: w.encoder.raw}
	}
	return r
}

// readParts reads the parts of the object at b[i], and reports whether it has members that keys do not have.
func (w *Worker) readParts(b []byte, i int, keys []key) (unknown bool) {
	w.places, w.unknown = [parts]place{}, false
	w.readObject(b, i, 0, keys)
	return w.unknown
}

// isTextOrNull reports whether the value at p is a string, null, or missing.
func isTextOrNull(b []byte, p place) bool {
	return p == place{} || b[p.from] == '"' || b[p.from] == 'n'
}

// splitMisc reads a misc event: {"time":…,"hash":…,"inner":{"<variant>":…}}. It is not ok if the event has another
// shape.
func (w *Worker) splitMisc(r *rows) (ok bool) {
	e := r.event
	unknown := w.readParts(e, 0, miscKeys)
	inner := w.places[innerPart]
	r.time, r.hash = w.places[timePart], w.places[hashPart]
	if inner == (place{}) || e[inner.from] != '{' || !isTextOrNull(e, r.time) || !isTextOrNull(e, r.hash) {
		return false
	}
	i := skipSpace(e, inner.from+1)
	if e[i] == '}' {
		return false
	}
	end, val, escaped := scanKey(e, i)
	r.kind = place{i, end}
	if _, more := scanSeparator(e, scanValue(e, val, 0), '}'); more {
		return false
	}
	if unknown {
		r.extra = appendUnknownMembers(r.extra, e, 0, miscKeys, "event.")
	}
	name := unquote(e[i:end], escaped)
	r.record, r.next = rawMisc, val
	at := slices.IndexFunc(variants, func(v variant) bool { return string(name) == v.name })
	if at < 0 || e[val] != '{' {
		return true
	}
	v := &variants[at]
	if v.list == nil {
		r.record, r.keys = v.record, v.keys
		return true
	}
	unknown = w.readParts(e, val, v.list)
	list := w.places[listPart]
	if list == (place{}) || e[list.from] != '[' {
		return true
	}
	first := skipSpace(e, list.from+1)
	if e[first] == ']' {
		return true
	}
	if unknown {
		r.extra = appendUnknownMembers(r.extra, e, val, v.list, v.name+".")
	}
	if end-i+r.time.to-r.time.from+r.hash.to-r.hash.from+len(r.extra) > maxRowHead {
		return false
	}
	r.record, r.keys, r.next, r.several = v.record, v.keys, first, true
	return true
}

// splitOracle reads an oracle update, and joins its lists by coin. A coin that a list has several times has as many
// rows. It is not ok if the event has another shape, or no entry.
func (w *Worker) splitOracle(r *rows) (ok bool) {
	e := r.event
	if w.readParts(e, 0, oracleKeys) {
		r.extra = appendUnknownMembers(r.extra, e, 0, oracleKeys, "event.")
	}
	r.kind = w.places[typePart]
	if !isTextOrNull(e, r.kind) || r.kind.to-r.kind.from+len(r.extra) > maxRowHead {
		return false
	}
	for list := markInputsPart; list <= externalsPart; list++ {
		at := w.places[list]
		if at == (place{}) {
			continue
		}
		if e[at.from] != '[' || !r.addEntries(at.from, list) {
			return false
		}
	}
	if len(r.entries) == 0 {
		return false
	}
	r.sortEntries()
	r.record, r.several = oracleRecord, true
	return true
}

// addEntries adds the pairs of a coin and a value in the list at index i of the event. It is not ok if the list has
// anything else, or too much.
func (r *rows) addEntries(i int, list part) (ok bool) {
	e := r.event
	i = skipSpace(e, i+1)
	for more := e[i] != ']'; more; {
		coin, value, ok := pair(e, i)
		if !ok || e[coin.from] != '"' || coin.to-coin.from > longText || len(r.entries) == maxEntries {
			return false
		}
		r.entries = append(r.entries, entry{coin: coin, value: value, list: list,
			escaped: bytes.IndexByte(e[coin.from:coin.to], '\\') >= 0})
		i, more = scanSeparator(e, scanValue(e, i, 0), ']')
	}
	return true
}

// pair returns the two items of the array at b[i]. It is not ok for any other value.
func pair(b []byte, i int) (first, second place, ok bool) {
	if b[i] != '[' {
		return first, second, false
	}
	i = skipSpace(b, i+1)
	if b[i] == ']' {
		return first, second, false
	}
	first = place{i, scanValue(b, i, 0)}
	i, more := scanSeparator(b, first.to, ']')
	if !more {
		return first, second, false
	}
	second = place{i, scanValue(b, i, 0)}
	_, more = scanSeparator(b, second.to, ']')
	return first, second, !more
}

// sortEntries brings the entries of each row together: in the order of coins, and for one coin in the order of the
// lists' items.
func (r *rows) sortEntries() {
	coin := func(e *entry) []byte { return unquote(r.event[e.coin.from:e.coin.to], e.escaped) }
	slices.SortStableFunc(r.entries, func(a, b entry) int {
		return cmp.Or(bytes.Compare(coin(&a), coin(&b)), cmp.Compare(a.list, b.list))
	})
	for i := range r.entries {
		e := &r.entries[i]
		if i == 0 {
			continue
		}
		switch before := &r.entries[i-1]; {
		case !bytes.Equal(coin(before), coin(e)):
			e.order = before.order + 1
		case before.list == e.list:
			e.order, e.row = before.order, before.row+1
		default:
			e.order = before.order
		}
	}
	slices.SortStableFunc(r.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.row, b.row), cmp.Compare(a.list, b.list))
	})
	row, last := 0, r.entries[0]
	for i := range r.entries {
		e := &r.entries[i]
		if e.order != last.order || e.row != last.row {
			row++
		}
		last = *e
		e.row = row
	}
}

// read reads the parts of the next row, and goes to the one after it. at is the row in the event, if it is one value.
func (r *rows) read(w *Worker) (at place, known, more bool) {
	e := r.event
	w.places, w.unknown = [parts]place{}, false
	defer func() {
		w.places[rawPart] = at
		w.places[typePart] = r.kind
		if w.encoder.splits == actionRows {
			w.places[typePart] = w.places[kindPart]
		}
		if w.encoder.splits == miscRows {
			w.places[timePart], w.places[hashPart] = r.time, r.hash
		}
		r.number++
	}()
	if len(r.entries) > 0 {
		first := &r.entries[r.used]
		w.places[coinPart] = first.coin
		for ; r.used < len(r.entries) && r.entries[r.used].row == first.row; r.used++ {
			w.places[r.entries[r.used].list] = r.entries[r.used].value
		}
		return place{}, true, r.used < len(r.entries)
	}
	at, known = place{r.next, -1}, true
	switch {
	case r.keys != nil && e[r.next] == '{':
		at.to = w.readObject(e, r.next, 0, r.keys)
		unknown := w.unknown
		for _, container := range [...]part{deltaPart, actionPart} {
			if p := w.places[container]; p != (place{}) && e[p.from] == '{' {
				w.readObject(e, p.from, 0, typeKeys)
			}
		}
		w.unknown = unknown
	case r.keys == nil && r.several:
		w.places[validatorPart], w.places[amountPart], known = pair(e, r.next)
		at.to = scanValue(e, r.next, 0)
	default:
		known = r.keys == nil
		at.to = scanValue(e, r.next, 0)
	}
	if r.several {
		r.next, more = scanSeparator(e, at.to, ']')
	}
	return at, known, more
}

// appendRows adds the records of the rows of an event, the one with the given index in its line. It reports whether it
// added all of them; if not, out is full.
func (w *Worker) appendRows(out *Output, r *rows, offset int64, index int) (all bool) {
	for {
		number := r.number
		at, known, more := r.read(w)
		if w.rowPasses(r) {
			out.Data = w.appendRow(out.Data, r, at, known, index, number)
			out.Records = append(out.Records, sink.Record{
				End: len(out.Data), Offset: offset, Index: int32(w.number), Event: int32(index), Block: w.header.block,
				Coin: w.rowCoin(r.event),
			})
			out.Delivered++
		}
		w.number++
		if !more {
			return true
		}
		if out.Full() {
			return false
		}
	}
}

// rowPasses reports whether the filter lets the row that was just read pass. A row that is a whole event passes as the
// event did.
func (w *Worker) rowPasses(r *rows) bool {
	f := &w.encoder.filter
	if !r.several || f.used&(coinField|userField) == 0 {
		return true
	}
	user := w.places[ownerPart]
	if user == (place{}) {
		user = w.places[validatorPart]
	}
	return f.row(textAt(r.event, w.places[coinPart]), textAt(r.event, user))
}

// textAt returns the content of the string at p, or nil if another value or none is there.
func textAt(b []byte, p place) []byte {
	v := b[p.from:p.to]
	if len(v) == 0 || v[0] != '"' {
		return nil
	}
	return unquote(v, bytes.IndexByte(v, '\\') >= 0)
}

// rowCoin returns the interned coin of the row that was just read, if records carry it.
func (w *Worker) rowCoin(event []byte) string {
	if !w.encoder.keyed {
		return ""
	}
	if w.event.coin = textAt(event, w.places[coinPart]); len(w.event.coin) > maxCoin {
		return ""
	}
	return w.coin()
}

// appendRow appends the record of the row that was just read.
func (w *Worker) appendRow(d []byte, r *rows, at place, known bool, index, number int) []byte {
	e := r.event
	if w.encoder.format == config.EnvelopedRows {
		return w.appendEnvelopedRow(d, r, at, index, number)
	}
	start, ok := len(d), known
	d = slices.Grow(d, at.to-at.from+len(r.extra)+len(w.before)+len(w.between)+len(w.after)+512)
	if ok {
		d, ok = w.appendMembers(d, e, at.from, r.record)
	}
	if !ok {
		w.unknown = false // all of the row is in raw
		if !isTextOrNull(e, w.places[typePart]) {
			w.places[typePart] = place{}
		}
		if at == (place{}) {
			d = w.appendRawEntries(d[:start], r)
		} else {
			d, _ = w.appendMembers(d[:start], e, at.from, w.encoder.raw)
		}
	}
	d = append(d, w.before...)
	if w.encoder.enveloped {
		d = strconv.AppendInt(d, w.indexInBlock(index), 10)
	}
	d = strconv.AppendInt(append(d, `,"row":`...), int64(number), 10)
	d = append(d, w.between...)
	d = strconv.AppendInt(d, int64(w.number), 10)
	return append(d, "\"}\n"...)
}

// appendRawEntries appends the members of a joined row of unknown shape.
func (w *Worker) appendRawEntries(d []byte, r *rows) []byte {
	d, _ = w.appendMembers(d, r.event, 0, rawWithoutTime[:2])
	d, _ = w.appendMembers(append(d, rawWithoutTime[2].text...), r.event, 0, oracleItem)
	d, _ = w.appendMembers(append(d, '}'), r.event, 0, rawWithoutTime[3:])
	return d
}

// appendEnvelopedRow appends an EnvelopedRows record.
func (w *Worker) appendEnvelopedRow(d []byte, r *rows, at place, index, number int) []byte {
	e := r.event
	if !r.several {
		return w.appendEnveloped(d, e, index)
	}
	w.unknown = false // the members of the row are in item
	common := miscCommon
	if w.encoder.splits == oracleRows {
		common = oracleCommon
	}
	d = slices.Grow(d, at.to-at.from+len(r.extra)+len(w.before)+len(w.between)+len(w.after)+512)
	d = w.appendEnvelope(d, index)
	d, _ = w.appendMembers(d, e, at.from, common)
	d = strconv.AppendInt(append(d, `},"row":`...), int64(number), 10)
	d = append(d, `,"item":`...)
	if at == (place{}) {
		d, _ = w.appendMembers(d, e, 0, oracleItem)
		return append(d, "}}\n"...)
	}
	return append(append(d, e[at.from:at.to]...), "}\n"...)
}

// appendRowExtra appends the members that no shape knows: those of the row at b[i], and those of its event.
func (w *Worker) appendRowExtra(d, b []byte, i int) []byte {
	r := &w.rows
	if !w.unknown && len(r.extra) == 1 {
		return append(d, "null"...)
	}
	d = append(d, '{')
	if w.unknown {
		d = appendUnknownMembers(d, b, i, r.keys, "")
	}
	if len(r.extra) > 1 {
		if d[len(d)-1] != '{' {
			d = append(d, ',')
		}
		d = append(d, r.extra[1:]...)
	}
	return append(d, '}')
}
