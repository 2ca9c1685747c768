package hyperliquid

import (
	"bytes"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/newline"
)

// Span is the work of one worker: whole lines, or consecutive events of one enveloped line.
type Span struct {
	Data   []byte // the lines with their newlines, or the events with the commas between them
	Offset int64  // in the file: of the first line, or of the events' line
	Index  int    // of the first event in its line; 0 for whole lines

	// Count is the count before the line that Data begins with, or is within. It has an effect in streaming mode only.
	Count BlockCount

	number int   // index in its line of the first record
	rows   *rows // if not nil, Data begins with the next row of the event before Index

	inLine bool // Data is within a line, whose envelope is valid
	bare   bool // with inLine: the line has no envelope
	last   bool // with inLine: these are the line's last events
	header header
	// after holds the whole lines after the line that Data is within; afterOffset is the offset of the first.
	after       []byte
	afterOffset int64
}

// Len returns the length of the data that the span covers, in bytes.
func (s *Span) Len() int { return len(s.Data) + len(s.after) }

// First splits a span into its first line, or the part of it that the span holds, and the rest.
func (s *Span) First() (line, rest Span) {
	if s.inLine {
		line = *s
		line.after = nil
		return line, s.wholeLines()
	}
	n := bytes.IndexByte(s.Data, '\n') + 1
	if n == 0 {
		n = len(s.Data)
	}
	return Span{Data: s.Data[:n], Offset: s.Offset}, Span{Data: s.Data[n:], Offset: s.Offset + int64(n)}
}

// Then returns a span of the remainder of a line, followed by whole lines.
func (s *Span) Then(lines Span) Span {
	if s.Len() == 0 {
		return lines
	}
	both := *s
	both.after, both.afterOffset = lines.Data, lines.Offset
	return both
}

// wholeLines returns the whole lines of a span.
func (s *Span) wholeLines() Span {
	if s.inLine {
		return Span{Data: s.after, Offset: s.afterOffset}
	}
	return *s
}

// longLine is the length, in bytes, from which Cut cuts within a line. Finding the ends of a line's events costs nearly
// as much as encoding them, and the workers that wait for it have other lines to process. It pays off only if the
// records of one line would take too much memory together. On a busy mainnet node a block of order statuses has about 1
// MiB.
const longLine = 4 << 20

// Cut appends to dst at most n spans that cover data. data is whole lines; the first begins at offset in its file.
// Encoding the spans in order, into one output or into one each, gives the same result as encoding data in one span.
//
// Spans end at the line boundaries nearest to equal shares. A line is cut only if it is enveloped, has 4 MiB or more,
// and is much longer than a share. It is cut between two events, after it was scanned to its end once. If its envelope
// is malformed the line is one span.
func (e *Encoder) Cut(dst []Span, data []byte, offset int64, n int) []Span {
	for n > 1 && len(data) > 0 {
		share := (len(data) + n - 1) / n
		from := newline.Last(data[:share]) + 1
		to := len(data)
		if i := bytes.IndexByte(data[share-1:], '\n'); i >= 0 {
			to = share + i
		}
		// The boundary of the first share falls into the line data[from:to].
		switch long := e.enveloped && to-from >= e.longLine && to-from > share+share/2; {
		case from == 0 && long:
			spans := n
			if to < len(data) {
				spans = min(n-1, (to+share/2)/share)
			}
			was := len(dst)
			dst = e.cutLine(dst, data[:to], offset, spans)
			n -= len(dst) - was
		case from > 0 && (long || share-from < to-share):
			to = from
			fallthrough
		default:
			dst = append(dst, Span{Data: data[:to], Offset: offset})
			n--
		}
		data = data[to:]
		offset += int64(to)
	}
	if len(data) > 0 {
		dst = append(dst, Span{Data: data, Offset: offset})
	}
	return dst
}

// cutLine appends at most n spans that cover one enveloped line, including its newline.
func (e *Encoder) cutLine(dst []Span, line []byte, offset int64, n int) []Span {
	if spans, ok := e.cutEvents(dst, bytes.TrimSuffix(line, []byte("\n")), offset, n); ok {
		return spans
	}
	return append(dst, Span{Data: line, Offset: offset})
}

// cutEvents cuts a line between events. It is not ok if the line has no events, or a malformed envelope, or is skipped.
func (e *Encoder) cutEvents(dst []Span, line []byte, offset int64, n int) (spans []Span, ok bool) {
	w := Worker{encoder: e}
	i, complete, reason := w.readHeader(line)
	if reason != "" || w.header.block < e.From {
		return nil, false
	}
	i = skipSpace(line, i)
	if i < len(line) && line[i] == ']' {
		return nil, false
	}
	share := (len(line) - i + n - 1) / n // n spans of at least this length reach the end
	s := Span{Offset: offset, inLine: true, header: w.header}
	number := 0
	for index, from := 0, i; ; index++ {
		end, verdict := w.element(line, i)
		if end < 0 {
			return nil, false
		}
		number += w.countRowsOf(line[i:end], verdict)
		s.Data = line[from:end]
		next, more := scanSeparator(line, end, ']')
		if !more {
			s.last = true
			return append(dst, s), complete || next >= 0 && validTail(line, next)
		}
		if end-from >= share {
			dst = append(dst, s)
			s.Index, s.number, from = index+1, number, next
		}
		i = next
	}
}
