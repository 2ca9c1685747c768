package hyperliquid

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// Encoder encodes the lines of one stream, written in one mode, as records. Encoding does not change it, so goroutines
// may share it; each encodes with its own Worker.
type Encoder struct {
	// From is the first block whose lines are encoded. Lines of earlier blocks are skipped. Defaults to all. It must not
	// change while a worker encodes.
	From int64

	enveloped bool // the lines have envelopes
	streaming bool // a block has several lines
	keyed     bool // records carry their coin
	format    config.Format
	filter    filter
	pair      bool
	steps     []step
	keys      []key
	longLine  int // the constant, except in tests
	// prefix is the beginning of an Enveloped record, up to the file in its position.
	prefix []byte
	record []member // of a Normalized record
	splits splitting
	raw    []member // of a row of unknown shape
}

// NewEncoder returns an encoder for a stream in a mode, which must not be config.Auto. target appears in Enveloped
// records. Only the settings of the filter that the stream has fields for apply. keyed is for sinks that need a
// record's coin.
func NewEncoder(
	stream config.Stream, mode config.Mode, f config.Filter, format config.Format, target string, keyed bool,
) (*Encoder, error) {
	if Directory(stream, mode) == "" {
		return nil, fmt.Errorf("no node writes stream %q in mode %q", stream, mode)
	}
	l := layoutOf(stream)
	switch format {
	case config.Raw, config.Enveloped:
		l.record, l.splits = nil, noRows
	case config.EnvelopedRows:
		l.record = nil
	case config.Normalized:
	default:
		return nil, fmt.Errorf("unknown format %q", format)
	}
	ready, err := newFilter(f, l.fields())
	if err != nil {
		return nil, err
	}
	if l.several {
		keyed = keyed && l.splits != noRows
	} else if keyed {
		ready.used |= coinField & l.fields()
	}
	quoted, err := json.Marshal(target)
	if err != nil {
		return nil, fmt.Errorf("quoting the target: %w", err)
	}
	e := &Encoder{
		enveloped: mode != config.Line,
		streaming: mode == config.Streaming,
		keyed:     keyed,
		format:    format,
		filter:    ready,
		longLine:  longLine,
		pair:      l.pair,
		steps:     l.steps,
		keys:      usedKeys(l.keys, ready.used, l.record != nil),
		record:    l.record,
		splits:    l.splits,
		raw:       rawWithoutTime,
		prefix:    fmt.Appendf(nil, `{"target":%s,"stream":"%s","pos":"`, quoted, stream),
	}
	for i := range e.steps {
		e.steps[i].field &= ready.used
		if l.record == nil {
			e.steps[i].part = 0
		}
	}
	if l.record != nil {
		locate(e.steps)
	}
	if l.splits == miscRows {
		e.raw = rawMisc
	}
	return e, nil
}

// usedKeys returns the keys that lead to a field used by the filter or, with parts, to a part of the record.
func usedKeys(keys []key, fields field, parts bool) []key {
	var out []key
	for _, k := range keys {
		k.field &= fields
		if !parts {
			k.part = 0
		}
		k.keys = usedKeys(k.keys, fields, parts)
		if k.field != 0 || k.part != 0 || k.keys != nil {
			out = append(out, k)
		}
	}
	return out
}

// Reasons for which a line or an event is malformed. They are few and fixed, so that they can label a metric.
const (
	ReasonEmpty    = "empty"    // a blank line
	ReasonNUL      = "nul"      // contains NUL bytes: a region that the node's host lost in a crash
	ReasonShape    = "shape"    // not the kind of value that the stream's events are
	ReasonJSON     = "json"     // not JSON
	ReasonEnvelope = "envelope" // the block's envelope is broken, so that the positions of its events are unknown
	ReasonField    = "field"    // a field that the record needs is missing or has another type
	ReasonHeader   = "header"   // the block's number or times exceed 64 bytes, which each record would repeat
	ReasonAmount   = "amount"   // an amount that minNotional is compared with has more than 1,000 digits
	// ReasonUTF8: not UTF-8, or with half a surrogate pair, in a record that strict readers must accept.
	ReasonUTF8 = "utf8"
)

// Reasons lists every reason.
func Reasons() []string {
	return []string{
		ReasonEmpty, ReasonNUL, ReasonShape, ReasonJSON, ReasonEnvelope, ReasonField, ReasonHeader, ReasonAmount, ReasonUTF8,
	}
}

// Bad is a malformed line, or a malformed event of a line whose other events are unaffected.
type Bad struct {
	Offset int64  // of the line in its file
	Index  int    // in the position, among the records of its line; 0 for a whole line
	Event  int    // of the event in its line; 0 for a whole line
	Reason string // one of Reasons
	// Bytes is the event, or the line without its newline. It is a part of the span's Data, and valid as long as that
	// is.
	Bytes []byte
}

// Output collects the results of spans of one file. Reset prepares it for the next batch and reuses its memory.
type Output struct {
	Data    []byte        // the records, each terminated by a newline
	Records []sink.Record // where each record ends, and its origin
	Bad     []Bad         // in order
	// Blocks are the block numbers of the lines, in order. Consecutive repeats are omitted: streaming mode writes many
	// lines per block.
	Blocks []int64
	// Parts describe, in order, the blocks and events of the lines, if the worker's Parts is set.
	Parts []Part
	// Hashes are those of the events of Parts, including malformed ones, if the worker's Hashes is set.
	Hashes []uint32

	// Count is the count after the lines, once all are encoded. It is zero except in streaming mode.
	Count BlockCount

	Lines     int64 // including malformed lines; a line that is cut into spans counts where it begins
	Events    int64 // delivered or filtered; excludes malformed events
	Filtered  int64 // of these, the filtered ones
	Delivered int64 // number of records

	// Limit is the size, in bytes, at which Encode stops; 0: no limit. The bookkeeping for records, malformed events,
	// blocks and parts counts like the records themselves, because the smallest events have one byte.
	Limit int
}

// Sizes, in bytes, of the items that an output holds besides its Data.
const (
	recordSize = int(unsafe.Sizeof(sink.Record{}))
	badSize    = int(unsafe.Sizeof(Bad{}))
	blockSize  = int(unsafe.Sizeof(int64(0)))
	partSize   = int(unsafe.Sizeof(Part{}))
	hashSize   = int(unsafe.Sizeof(uint32(0)))
)

// Full reports whether the limit is reached.
func (o *Output) Full() bool {
	return o.Limit > 0 && len(o.Data)+len(o.Records)*recordSize+len(o.Bad)*badSize+len(o.Blocks)*blockSize+
		len(o.Parts)*partSize+len(o.Hashes)*hashSize >= o.Limit
}

// Reset empties the output, and releases its memory if that exceeds twice the limit.
func (o *Output) Reset() {
	if o.Limit > 0 && o.memory() > 2*o.Limit {
		*o = Output{Limit: o.Limit}
		return
	}
	clear(o.Bad) // release the spans
	clear(o.Parts)
	*o = Output{
		Data: o.Data[:0], Records: o.Records[:0], Bad: o.Bad[:0], Blocks: o.Blocks[:0], Parts: o.Parts[:0],
		Hashes: o.Hashes[:0],
		Limit:  o.Limit,
	}
}

// memory returns the allocated size of the output, in bytes.
func (o *Output) memory() int {
	return cap(o.Data) + cap(o.Records)*recordSize + cap(o.Bad)*badSize + cap(o.Blocks)*blockSize + cap(o.Parts)*partSize +
		cap(o.Hashes)*hashSize
}

// rewind restores an earlier state of the output.
func (o *Output) rewind(to Output) {
	clear(o.Bad[len(to.Bad):])
	o.Data, o.Records, o.Bad, o.Blocks = o.Data[:len(to.Data)], o.Records[:len(to.Records)], o.Bad[:len(to.Bad)],
		o.Blocks[:len(to.Blocks)]
	o.Parts, o.Hashes = o.Parts[:len(to.Parts)], o.Hashes[:len(to.Hashes)]
	o.Lines, o.Events, o.Filtered, o.Delivered = to.Lines, to.Events, to.Filtered, to.Delivered
}

// Worker encodes spans, one after another. It holds scratch, so each goroutine needs its own.
type Worker struct {
	Parts, Hashes bool // whether they are added to Outputs; set before the first Encode

	encoder *Encoder
	header  header // of the current line; empty in line mode
	event   event
	coins   map[string]string // interned coins, so that records share the strings

	file string // escaped for a JSON string
	// These are what the Enveloped records of a line share: the text before the index, between its two occurrences, and
	// after it up to the event. For Normalized records: before the index, between its two occurrences, and the block's
	// time.
	before, between, after []byte

	// For Normalized records: the positions of the current event's parts in the input, the index in the current list,
	// and whether that list had more than a trade's two sides.
	places       [parts]place
	item         int
	tooManySides bool
	unknown      bool // the event, or the row, has members that the layout does not have

	count      BlockCount // before the current line; zero except in streaming mode
	lineEvents int64      // events of the current line so far

	number  int  // index of the next record in its line
	stopped bool // encoding stopped within the event in rows
	rows    rows // the event that is being split; see split

	row   row // of the current row, if inRow
	inRow bool
}

// NewWorker returns a worker of this encoder.
func (e *Encoder) NewWorker() *Worker { return &Worker{encoder: e, coins: map[string]string{}} }

// Encode appends the records of a span to out. file is the label at the beginning of their positions, such as
// "node_fills_by_block/20260430/20@1a2b3c4d". All spans encoded into one out must belong to that file.
//
// Encode stops after the event, or the line without events, with which out reaches its limit, and returns the rest. The
// rest is empty when all is encoded. Encoding the rests, each into its own output, gives the same result as encoding
// the span without a limit.
//
// All records are valid JSON of the stream's shape. In line mode a line that the filter rejects by its first fields is
// not read to its end, except for its last byte, so that errors after those fields go unnoticed.
func (w *Worker) Encode(out *Output, s Span, file string) (rest Span) {
	defer func() { // release the span, and the memory that only a very long event needs
		w.event, w.header, w.row, w.rows.event = event{}, header{}, row{}, nil
		if cap(w.rows.entries) > keptCoins {
			w.rows.entries = nil
		}
	}()
	w.file = file
	if !needsNoEscape(file) {
		quoted, _ := json.Marshal(file) // marshaling a string cannot fail
		w.file = string(quoted[1 : len(quoted)-1])
	}
	data, offset := s.Data, s.Offset
	w.count = s.Count
	defer func() { out.Count, rest.Count = w.count, w.count }()
	if s.inLine {
		w.beginCount(s.header.block)
		w.lineEvents = int64(s.Index)
		w.header, w.number = s.header, s.number
		w.beginLine(&w.header, s.Offset)
		if s.Index == 0 {
			out.Lines++
			out.addBlock(s.header.block)
		}
		if !s.bare {
			w.beginPart(out, s.Offset, s.header.block, s.Index)
		}
		next, index := w.remainingEvents(out, &s)
		if !s.bare {
			w.completePart(out)
		}
		if index >= 0 {
			return w.stopInLine(s, s.Data[next:], index)
		}
		if s.last {
			w.endCount()
			if !s.bare {
				w.endPart(out)
			}
		}
		data, offset = s.after, s.afterOffset
	}
	for len(data) > 0 && (!s.inLine || !out.Full()) {
		line, end := data, len(data)
		if n := bytes.IndexByte(data, '\n'); n >= 0 {
			line, end = data[:n], n+1
		}
		out.Lines++
		w.number, w.stopped = 0, false
		encode := w.line
		if w.encoder.enveloped {
			encode = w.envelope
		}
		next, index := encode(out, line, offset)
		data = data[end:]
		if index >= 0 {
			return w.stopInLine(Span{
				Offset: offset, inLine: true, last: true, bare: !w.encoder.enveloped, header: w.header,
				after: data, afterOffset: offset + int64(end),
			}, line[next:], index)
		}
		offset += int64(end)
		if out.Full() {
			break
		}
	}
	if len(data) == 0 {
		return Span{}
	}
	return Span{Data: data, Offset: offset}
}

// stopInLine returns the span of the rest of a line, at which Encode stops because the output is full. index is that of
// the first event that did not begin.
func (w *Worker) stopInLine(s Span, rest []byte, index int) Span {
	s.Data, s.Index, s.number, s.rows = rest, index, w.number, nil
	if w.stopped {
		s.rows = w.rows.clone()
		w.stopped = false
	}
	return s
}

// needsNoEscape reports whether s is the same in a JSON string.
func needsNoEscape(s string) bool {
	for i := range len(s) {
		if c := s[i]; c == '"' || c == '\\' || c < ' ' {
			return false
		}
	}
	return utf8.ValidString(s)
}

// line encodes a line that is one event. If it stops within the event because out is full, next is where the next row
// begins, and more is 1. Otherwise more is -1.
func (w *Worker) line(out *Output, line []byte, offset int64) (next, more int) {
	from, to := trim(line)
	body := line[from:to]
	if !w.hasEventBrackets(body) {
		w.addUnreadable(out, line, offset, w.reason(body))
		return 0, -1
	}
	end, verdict := w.read(body, 0, true)
	switch {
	case verdict == filteredEarly:
		out.addFiltered()
	case verdict == malformed || end != len(body):
		w.addUnreadable(out, line, offset, w.reason(body))
	case verdict == filtered:
		out.addFiltered()
	case verdict == incomparable:
		w.addUnreadable(out, line, offset, ReasonAmount)
	default:
		w.beginLine(&w.header, offset)
		reason, all := w.append(out, body, 0, end, offset, 0)
		switch {
		case reason != "":
			w.addUnreadable(out, line, offset, reason)
		case !all:
			w.stopped = true
			return from + w.rows.next, 1
		}
	}
	return 0, -1
}

// hasEventBrackets reports whether the first and the last byte are those of an event.
func (w *Worker) hasEventBrackets(event []byte) bool {
	if len(event) < 2 {
		return false
	}
	first, last := event[0], event[len(event)-1]
	if w.encoder.pair {
		return first == '[' && last == ']'
	}
	return first == '{' && last == '}'
}

// reason returns what is wrong with an event, or with a line that should be one.
func (w *Worker) reason(event []byte) string {
	switch {
	case len(event) == 0:
		return ReasonEmpty
	case bytes.IndexByte(event, 0) >= 0:
		return ReasonNUL
	case !w.hasEventBrackets(event):
		return ReasonShape
	case scanValue(event, 0, 0) == len(event):
		return ReasonShape
	}
	return ReasonJSON
}

func (o *Output) addBad(reason string, data []byte, offset int64, index, event int) {
	o.Bad = append(o.Bad, Bad{Offset: offset, Index: index, Event: event, Reason: reason, Bytes: data})
}

func (o *Output) addFiltered() {
	o.Events++
	o.Filtered++
}

func (o *Output) addBlock(number int64) {
	if n := len(o.Blocks); n == 0 || o.Blocks[n-1] != number {
		o.Blocks = append(o.Blocks, number)
	}
}

// envelope encodes the line of a block. If it stops within the line because out is full, the envelope is valid, next is
// where the next event begins, and more is that event's index. Otherwise more is -1.
func (w *Worker) envelope(out *Output, line []byte, offset int64) (next, more int) {
	was, count := *out, w.count
	i, complete, reason := w.readHeader(line)
	if reason == "" && w.header.block < w.encoder.From {
		w.beginCount(w.header.block)
		w.lineEvents = 1 // what Predict assumes; nothing else uses it
		w.endCount()
		return 0, -1
	}
	if reason == "" {
		w.beginLine(&w.header, offset)
		w.beginCount(w.header.block)
		out.addBlock(w.header.block)
		w.beginPart(out, offset, w.header.block, 0)
		next, more = w.events(out, line, i, offset, 0)
		end := next
		if more >= 0 && !complete { // no event of a line with a malformed envelope may be delivered
			end = w.skipRest(line, next)
		}
		if complete || end >= 0 && validTail(line, end) {
			w.completePart(out)
			if more < 0 {
				w.endPart(out)
				w.endCount()
			}
			return next, more
		}
		reason = ReasonEnvelope
	}
	out.rewind(was)
	w.count = count
	from, to := trim(line)
	if body := line[from:to]; len(body) == 0 || bytes.IndexByte(body, 0) >= 0 {
		reason = w.reason(body)
	}
	w.addUnreadable(out, line, offset, reason)
	w.stopped = false
	return 0, -1
}

// skipRest returns the index after the array of events at whose element, or row of an element, encoding stopped. It
// returns -1 if that is uncertain.
func (w *Worker) skipRest(line []byte, next int) int {
	if !w.stopped {
		return w.skipMore(line, next)
	}
	i, more := scanSeparator(line, next+len(w.rows.event)-w.rows.next, ']')
	if !more {
		return i
	}
	return w.skipMore(line, i)
}

// remainingEvents encodes the events of a span within a line. The first may have begun. The result is that of
// events.
func (w *Worker) remainingEvents(out *Output, s *Span) (next, more int) {
	i := 0
	if w.stopped = false; s.rows != nil {
		w.rows = *s.rows.clone() // s may be encoded again
		if !w.appendRows(out, &w.rows, s.Offset, s.Index-1) {
			w.stopped = true
			return w.rows.next - s.rows.next, s.Index
		}
		if i = len(w.rows.event) - s.rows.next; i == len(s.Data) {
			return i, -1
		}
		another := false
		if i, another = scanSeparator(s.Data, i, ']'); !another {
			return i, -1
		}
		if out.Full() {
			return i, s.Index
		}
	}
	return w.events(out, s.Data, i, s.Offset, s.Index)
}

// events encodes the events that begin at b[i], up to the bracket that ends their array or to the end of b. index is
// that of the first event. It returns the position after them, or -1 if the end of an event is uncertain; out then
// holds some of the events. If it stops because out is full, next is where the next event, or the next row of an event,
// begins, and more is the index of the next event. Otherwise more is -1.
func (w *Worker) events(out *Output, b []byte, i int, offset int64, index int) (next, more int) {
	i = skipSpace(b, i)
	if i < len(b) && b[i] == ']' {
		return i + 1, -1
	}
	for ; ; index++ {
		end, verdict := w.element(b, i)
		if end < 0 {
			return -1, -1
		}
		w.lineEvents++
		if w.Parts {
			w.countEvent(out, b[i:end])
		}
		reason, all := "", true
		switch verdict {
		case malformed:
			reason = w.reason(b[i:end])
		case incomparable:
			reason = ReasonAmount
		case passed:
			reason, all = w.append(out, b, i, end, offset, index)
		default:
			out.addFiltered()
			w.number += w.countRowsOf(b[i:end], verdict)
		}
		if reason != "" {
			out.addBad(reason, b[i:end], offset, w.number, index)
			w.number++
		}
		if !all {
			w.stopped = true
			return i + w.rows.next, index + 1
		}
		if end == len(b) {
			return end, -1
		}
		next, another := scanSeparator(b, end, ']')
		if !another {
			return next, -1
		}
		if out.Full() {
			return next, index + 1
		}
		i = next
	}
}

// element reads the event at b[i] of an array. It returns the position after the event, or -1 if that is uncertain.
func (w *Worker) element(b []byte, i int) (end int, v verdict) {
	if end, v = w.read(b, i, false); v == malformed {
		end = skipBrackets(b, i)
	}
	return end, v
}

// beginLine prepares what the Enveloped or Normalized records of a line share.
func (w *Worker) beginLine(h *header, offset int64) {
	switch w.encoder.format {
	case config.Raw:
		return
	case config.Normalized:
		w.beginNormalized(h, offset)
		return
	}
	w.before = append(w.before[:0], w.encoder.prefix...)
	w.before = append(w.before, w.file...)
	w.before = append(w.before, ':')
	w.before = strconv.AppendInt(w.before, offset, 10)
	w.before = append(w.before, ':')
	if !w.encoder.enveloped {
		w.between = append(w.between[:0], `","block":null,"index":null,"blockTime":null,"localTime":null,"event":`...)
		return
	}
	w.between = append(w.between[:0], `","block":`...)
	w.between = strconv.AppendInt(w.between, h.block, 10)
	w.between = append(w.between, `,"index":`...)
	w.after = append(w.after[:0], `,"blockTime":`...)
	w.after = appendOrNull(w.after, h.blockTime)
	w.after = append(w.after, `,"localTime":`...)
	w.after = appendOrNull(w.after, h.localTime)
	w.after = append(w.after, `,"event":`...)
}

func appendOrNull(dst, quoted []byte) []byte {
	if quoted == nil {
		return append(dst, "null"...)
	}
	return append(dst, quoted...)
}

// append adds the records of the event b[from:to], which was just read. beginLine must have been called for its line.
// If the event cannot have a record, append adds nothing and returns the reason. all reports whether all rows of the
// event were added; if not, out is full.
func (w *Worker) append(out *Output, b []byte, from, to int, offset int64, index int) (reason string, all bool) {
	d, event := out.Data, b[from:to]
	if w.encoder.keyed && w.encoder.splits == noRows && len(w.event.coin) > maxCoin {
		return ReasonField, true
	}
	if w.encoder.format != config.Raw && !w.event.plain && !isStrict(event) {
		return ReasonUTF8, true
	}
	if w.encoder.splits != noRows {
		out.Events++
		return "", w.appendRows(out, w.split(event), offset, index)
	}
	switch w.encoder.format {
	case config.Raw:
		d = append(slices.Grow(d, len(event)+1), event...)
		d = append(d, '\n')
	case config.Normalized:
		var ok bool
		if d, ok = w.appendNormalized(d, b, from, to, index); !ok {
			out.Data = d[:len(out.Data)] // d may have been reallocated
			return ReasonField, true
		}
	default:
		d = w.appendEnveloped(d, event, index)
	}
	out.Data = d
	out.Records = append(out.Records, sink.Record{
		End: len(d), Offset: offset, Index: int32(w.number), Event: int32(index), Block: w.header.block, Coin: w.coin(),
	})
	out.Events++
	out.Delivered++
	w.number++
	return "", true
}

// appendEnveloped appends the Enveloped record of an event, or its EnvelopedRows record if the event is not split.
func (w *Worker) appendEnveloped(d, event []byte, index int) []byte {
	d = slices.Grow(d, len(w.before)+len(w.between)+len(w.after)+len(event)+64)
	d = append(w.appendEnvelope(d, index), event...)
	if w.encoder.format == config.EnvelopedRows {
		d = append(d, `,"row":0,"item":null`...)
	}
	return append(d, "}\n"...)
}

// appendEnvelope appends an Enveloped record up to the event.
func (w *Worker) appendEnvelope(d []byte, index int) []byte {
	d = strconv.AppendInt(append(d, w.before...), int64(w.number), 10)
	d = append(d, w.between...)
	if w.encoder.enveloped {
		d = strconv.AppendInt(d, w.indexInBlock(index), 10)
		d = append(d, w.after...)
	}
	return d
}

const (
	// keptCoins bounds the coins that a worker interns. A node lists a few hundred.
	keptCoins = 1 << 12
	// maxCoin is the length of the longest coin that a record can be addressed by, in bytes. It equals a filter
	// value's.
	maxCoin = config.MaxFilterValueLength
)

// coin returns the interned coin of the event that was just read, if it has one and records carry it.
func (w *Worker) coin() string {
	if len(w.event.coin) == 0 || !w.encoder.keyed {
		return ""
	}
	if s, ok := w.coins[string(w.event.coin)]; ok {
		return s
	}
	if len(w.coins) == keptCoins {
		clear(w.coins)
	}
	s := string(w.event.coin)
	w.coins[s] = s
	return s
}
