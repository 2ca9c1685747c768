package hyperliquid

import (
	"bytes"

	"github.com/cespare/xxhash/v2"
)

// Part describes what an Output holds of one line: consecutive events of a block, or nothing if the whole line is
// malformed. Its records, malformed events and hashes begin at the given indices of the output, and end where those of
// the next part begin.
type Part struct {
	Offset int64 // of the line in its file
	Block  int64 // 0 if Unreadable
	Before int64 // events of the block in earlier lines, in streaming mode
	Index  int   // of the first event in the line
	Events int   // number of events, including malformed ones

	Next int // the index in the line of the next record; set once the part is complete

	End        bool // the line ends with this part, and its envelope is valid
	Unreadable bool // the whole line is malformed: its block and events are unknown
	Failed     bool // the part's events could not be encoded, and their number is unknown

	// BlockTime and LocalTime are the envelope's, as JSON strings, or nil. They are a part of the span's Data, and valid
	// as long as that is.
	BlockTime, LocalTime []byte

	Records, Bad, Hashes int
}

// beginPart begins a part of a line.
func (w *Worker) beginPart(out *Output, offset, block int64, index int) {
	if w.Parts {
		out.Parts = append(out.Parts, out.withPosition(Part{
			Offset: offset, Block: block, Before: w.count.Events, Index: index,
			BlockTime: w.header.blockTime, LocalTime: w.header.localTime,
		}))
	}
}

// countEvent adds an event to the newest part.
func (w *Worker) countEvent(out *Output, event []byte) {
	out.Parts[len(out.Parts)-1].Events++
	if w.Hashes {
		out.Hashes = append(out.Hashes, hash(event))
	}
}

// completePart completes the newest part.
func (w *Worker) completePart(out *Output) {
	if w.Parts {
		out.Parts[len(out.Parts)-1].Next = w.number
	}
}

// endPart marks the newest part as the last of its line.
func (w *Worker) endPart(out *Output) {
	if w.Parts {
		out.Parts[len(out.Parts)-1].End = true
	}
}

// addUnreadable records that a whole line is malformed.
func (w *Worker) addUnreadable(out *Output, line []byte, offset int64, reason string) {
	if w.Parts {
		out.Parts = append(out.Parts, out.withPosition(Part{Offset: offset, Unreadable: true}))
	}
	out.addBad(reason, line, offset, 0, 0)
}

// withPosition returns the part with its position in the output.
func (o *Output) withPosition(p Part) Part {
	p.Records, p.Bad, p.Hashes = len(o.Records), len(o.Bad), len(o.Hashes)
	return p
}

// Fail records that a span, of at most one line, cannot be encoded. All of it is malformed.
func (o *Output) Fail(s Span, reason string) {
	o.Parts = append(o.Parts, o.withPosition(Part{
		Offset: s.Offset, Block: s.header.block, Index: s.Index, Unreadable: !s.inLine || s.bare,
		Failed: s.inLine && !s.bare,
	}))
	if s.Index == 0 {
		o.Lines++
	}
	o.Count = s.Count
	o.addBad(reason, bytes.TrimSuffix(s.Data, []byte("\n")), s.Offset, s.number, s.Index)
}

// hash identifies an event of a block by its content.
func hash(event []byte) uint32 { return uint32(xxhash.Sum64(event)) }

// Rest calls f with the hash of each event of an enveloped line, from the event at index on. The hashes are those in
// Outputs. It stops when f returns false, or when the end of an event is uncertain.
func (e *Encoder) Rest(line []byte, index int, f func(hash uint32) bool) {
	w := Worker{encoder: e}
	line = bytes.TrimSuffix(line, []byte("\n"))
	i, _, reason := w.readHeader(line)
	if reason != "" {
		return
	}
	i = skipSpace(line, i)
	if i < len(line) && line[i] == ']' {
		return
	}
	for more := true; more && i >= 0; index-- {
		end, _ := w.element(line, i)
		if end < 0 || index <= 0 && !f(hash(line[i:end])) {
			return
		}
		i, more = scanSeparator(line, end, ']')
	}
}
