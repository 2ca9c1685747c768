package hyperliquid

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// Encoder turns the lines of one stream, written in one mode, into records. It never changes, so goroutines may share it;
// each encodes with a Worker of its own.
type Encoder struct {
	enveloped bool // the lines are
	keyed     bool // records tell their coin
	format    config.Format
	filter    filter
	pair      bool
	steps     []step
	keys      []key
	longLine  int // the constant, but for tests
	// prefix of an Enveloped record, up to the file in its position.
	prefix []byte
	record []member // of a Normalized record
}

// NewEncoder prepares the encoding of a stream in a mode, which is not config.Auto. target stands in Enveloped records. Of
// the filter only the lists that the stream has fields for apply. keyed is for sinks that ask for a record's coin.
func NewEncoder(stream config.Stream, mode config.Mode, f config.Filter, format config.Format, target string, keyed bool) (*Encoder, error) {
	if Directory(stream, mode) == "" {
		return nil, fmt.Errorf("no node writes stream %q in mode %q", stream, mode)
	}
	l := layoutOf(stream)
	switch format {
	case config.Raw, config.Enveloped:
		l.record = nil
	case config.Normalized:
		if l.record == nil {
			return nil, fmt.Errorf("stream %q has no Normalized records", stream)
		}
	default:
		return nil, fmt.Errorf("unknown format %q", format)
	}
	ready, err := newFilter(f, l.fields())
	if err != nil {
		return nil, err
	}
	if keyed {
		ready.used |= coinField & l.fields()
	}
	quoted, err := json.Marshal(target)
	if err != nil {
		return nil, fmt.Errorf("quoting the target: %w", err)
	}
	e := &Encoder{
		enveloped: mode != config.Line,
		keyed:     keyed,
		format:    format,
		filter:    ready,
		longLine:  longLine,
		pair:      l.pair,
		steps:     l.steps,
		keys:      used(l.keys, ready.used, l.record != nil),
		record:    l.record,
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
	return e, nil
}

// used returns the keys that lead to a field the filter looks at or, if parts count, to a part of the record.
func used(keys []key, fields field, parts bool) []key {
	var out []key
	for _, k := range keys {
		k.field &= fields
		if !parts {
			k.part = 0
		}
		k.keys = used(k.keys, fields, parts)
		if k.field != 0 || k.part != 0 || k.keys != nil {
			out = append(out, k)
		}
	}
	return out
}

// Reasons for which a line or an event is malformed; few and fixed, so that they can label a metric.
const (
	ReasonEmpty    = "empty"    // a blank line
	ReasonNUL      = "nul"      // holds NUL bytes: a region that the node's host lost in a crash
	ReasonShape    = "shape"    // not the kind of value that the stream's events are
	ReasonJSON     = "json"     // not JSON
	ReasonEnvelope = "envelope" // the block's envelope is broken: it cannot be told where its events lie
	ReasonField    = "field"    // lacks what its Normalized record must have, or has something of another type there
)

// Reasons lists every reason.
func Reasons() []string {
	return []string{ReasonEmpty, ReasonNUL, ReasonShape, ReasonJSON, ReasonEnvelope, ReasonField}
}

// Bad is a malformed line, or a malformed event of a line whose other events are not affected.
type Bad struct {
	Offset int64  // of the line in its file
	Index  int    // of the event in its line; 0 for a whole line
	Reason string // one of Reasons
	Bytes  []byte // the event, or the line without its newline; a part of the span's Data, and good for as long as that is
}

// Output gathers what spans of one file give. Reset makes it ready for the next batch; its memory is used again.
type Output struct {
	Data    []byte        // the records, each ended by a newline
	Records []sink.Record // where each record ends, and where it comes from
	Bad     []Bad         // in order
	// Blocks are the numbers of the blocks whose lines were seen, in order. A number that repeats the one before it is left
	// out: streaming mode writes many lines a block.
	Blocks []int64

	Lines     int64 // lines, malformed ones included; one that is cut into spans counts where it begins
	Events    int64 // events, delivered or filtered out; malformed ones excluded
	Delivered int64 // records
}

// Reset empties the output.
func (o *Output) Reset() {
	clear(o.Bad) // lets go of the spans
	*o = Output{Data: o.Data[:0], Records: o.Records[:0], Bad: o.Bad[:0], Blocks: o.Blocks[:0]}
}

// rewind takes back what came after an earlier state of the output.
func (o *Output) rewind(to Output) {
	clear(o.Bad[len(to.Bad):])
	o.Data, o.Records, o.Bad, o.Blocks = o.Data[:len(to.Data)], o.Records[:len(to.Records)], o.Bad[:len(to.Bad)], o.Blocks[:len(to.Blocks)]
	o.Lines, o.Events, o.Delivered = to.Lines, to.Events, to.Delivered
}

// Worker encodes spans, one after another. It holds scratch, so each goroutine needs its own.
type Worker struct {
	encoder *Encoder
	event   event
	coins   map[string]string // each coin once, so that records share it
	block   int64             // of the line that is being encoded; 0 in line mode

	file string // as it stands in a JSON string
	// What the Enveloped records of a line share: before the index, between its two places, and after it up to the event; or
	// its Normalized records: before the index, between its two places, and the block's time.
	before, between, after []byte

	// Of the event that is being read, if records are Normalized: where its parts lie in what is read, the index in the list
	// that is being read, and whether that list had more than a trade's two sides.
	places  [parts]place
	item    int
	surplus bool
}

// NewWorker returns a worker of this encoder.
func (e *Encoder) NewWorker() *Worker { return &Worker{encoder: e, coins: map[string]string{}} }

// Encode appends the records of a span to out. file is the label that their positions begin with, such as
// "node_fills_by_block/20260430/20@1a2b3c4d". All spans that go to one out belong to that file.
//
// Whatever is delivered is valid JSON of the stream's shape. In line mode a line that the filter rejects by its first fields
// is not read to its end, so what is wrong further on, but for its last byte, is not noticed.
func (w *Worker) Encode(out *Output, s Span, file string) {
	w.file = file
	if !isPlain(file) {
		quoted, _ := json.Marshal(file) // a string cannot fail
		w.file = string(quoted[1 : len(quoted)-1])
	}
	if s.inside {
		w.begin(s.header, s.Offset)
		if s.Index == 0 {
			out.Lines++
			out.block(s.header.block)
		}
		w.events(out, s.Data, 0, s.Offset, s.Index)
		return
	}
	for data, offset := s.Data, s.Offset; len(data) > 0; {
		line, next := data, len(data)
		if n := bytes.IndexByte(data, '\n'); n >= 0 {
			line, next = data[:n], n+1
		}
		out.Lines++
		if w.encoder.enveloped {
			w.envelope(out, line, offset)
		} else {
			w.line(out, line, offset)
		}
		data = data[next:]
		offset += int64(next)
	}
}

// isPlain says whether s stands in a JSON string as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c == '"' || c == '\\' || c < ' ' {
			return false
		}
	}
	return utf8.ValidString(s)
}

// line encodes a line that is one event.
func (w *Worker) line(out *Output, line []byte, offset int64) {
	from, to := trim(line)
	body := line[from:to]
	if !w.looksRight(body) {
		out.malformed(w.reason(body), line, offset, 0)
		return
	}
	end, verdict := w.read(body, 0, true)
	switch {
	case verdict == early:
		out.Events++
	case verdict == malformed || end != len(body):
		out.malformed(w.reason(body), line, offset, 0)
	case verdict == filtered:
		out.Events++
	default:
		w.begin(header{}, offset)
		if !w.append(out, body, 0, end, offset, 0) {
			out.malformed(ReasonField, line, offset, 0)
		}
	}
}

// looksRight says whether the first and the last byte are those of an event.
func (w *Worker) looksRight(event []byte) bool {
	if len(event) < 2 {
		return false
	}
	first, last := event[0], event[len(event)-1]
	if w.encoder.pair {
		return first == '[' && last == ']'
	}
	return first == '{' && last == '}'
}

// reason tells what is wrong with an event, or with a line that should be one.
func (w *Worker) reason(event []byte) string {
	switch {
	case len(event) == 0:
		return ReasonEmpty
	case bytes.IndexByte(event, 0) >= 0:
		return ReasonNUL
	case !w.looksRight(event):
		return ReasonShape
	case scanValue(event, 0, 0) == len(event):
		return ReasonShape
	}
	return ReasonJSON
}

func (o *Output) malformed(reason string, data []byte, offset int64, index int) {
	o.Bad = append(o.Bad, Bad{Offset: offset, Index: index, Reason: reason, Bytes: data})
}

func (o *Output) block(number int64) {
	if n := len(o.Blocks); n == 0 || o.Blocks[n-1] != number {
		o.Blocks = append(o.Blocks, number)
	}
}

// envelope encodes the line of a block.
func (w *Worker) envelope(out *Output, line []byte, offset int64) {
	was := *out
	h, i, ok := commonHeader(line)
	complete := false
	if !ok {
		// Keys in another order, spaces, escapes: the header may lie behind the events.
		h, i, ok = w.anyHeader(line)
		complete = ok
	}
	if ok {
		w.begin(h, offset)
		out.block(h.block)
		i = w.events(out, line, i, offset, 0)
		if complete || i >= 0 && closes(line, i) {
			return
		}
	}
	out.rewind(was)
	from, to := trim(line)
	reason := ReasonEnvelope
	if body := line[from:to]; len(body) == 0 || bytes.IndexByte(body, 0) >= 0 {
		reason = w.reason(body)
	}
	out.malformed(reason, line, offset, 0)
}

// events encodes the events that begin at b[i], of which the first has the given index, up to the bracket that ends their
// array or to the end of b. It returns the index after that, or -1 if it cannot be told where an event ends; then out holds
// some of the events.
func (w *Worker) events(out *Output, b []byte, i int, offset int64, index int) int {
	i = skipSpace(b, i)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for ; ; index++ {
		end, verdict := w.element(b, i)
		switch {
		case end < 0:
			return -1
		case verdict == malformed:
			out.malformed(w.reason(b[i:end]), b[i:end], offset, index)
		case verdict == passed:
			if !w.append(out, b, i, end, offset, index) {
				out.malformed(ReasonField, b[i:end], offset, index)
			}
		default:
			out.Events++
		}
		if end == len(b) {
			return end
		}
		next, more := scanSeparator(b, end, ']')
		if !more {
			return next
		}
		i = next
	}
}

// element reads the event at b[i] of an array. It returns the index after it, -1 if that is uncertain.
func (w *Worker) element(b []byte, i int) (end int, v verdict) {
	if end, v = w.read(b, i, false); v == malformed {
		end = skipBrackets(b, i)
	}
	return end, v
}

// begin prepares the parts of Enveloped and Normalized records that the events of a line share.
func (w *Worker) begin(h header, offset int64) {
	w.block = h.block
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

// append adds the record of the event b[from:to], which has just been read; begin has been called for its line. It adds nothing
// and says so if the event lacks what a Normalized record must have.
func (w *Worker) append(out *Output, b []byte, from, to int, offset int64, index int) bool {
	d := out.Data
	switch event := b[from:to]; w.encoder.format {
	case config.Raw:
		d = append(append(d, event...), '\n')
	case config.Normalized:
		var ok bool
		if d, ok = w.appendNormalized(d, b, to-from, index); !ok {
			out.Data = d[:len(out.Data)] // d may have grown
			return false
		}
	default:
		d = slices.Grow(d, len(w.before)+len(w.between)+len(w.after)+len(event)+48)
		d = append(d, w.before...)
		d = strconv.AppendInt(d, int64(index), 10)
		d = append(d, w.between...)
		if w.encoder.enveloped {
			d = strconv.AppendInt(d, int64(index), 10)
			d = append(d, w.after...)
		}
		d = append(d, event...)
		d = append(d, "}\n"...)
	}
	out.Data = d
	out.Records = append(out.Records, sink.Record{
		End: len(d), Offset: offset, Index: int32(index), Block: w.block, Coin: w.coin(),
	})
	out.Events++
	out.Delivered++
	return true
}

// keptCoins bounds the coins that a worker remembers; a node lists a few hundred.
const keptCoins = 1 << 14

// coin is the coin of the event that was just read, if it has one and records tell it.
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
