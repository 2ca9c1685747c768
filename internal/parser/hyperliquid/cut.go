package hyperliquid

import "bytes"

// Span is a piece of work for one worker: whole lines, or consecutive events of one enveloped line.
type Span struct {
	Data   []byte // the lines with their newlines, or the events with the commas between them
	Offset int64  // of the first line, or of the events' line, in the file
	Index  int    // of the first event in its line; 0 for whole lines

	inside bool // of a line, whose envelope is sound
	header header
}

// longLine is the length in bytes from which Cut looks into a line. Finding where its events end costs nearly what encoding
// them does, and the workers that wait for it have other lines to do: it is worth it only where the records of one line would
// take too much memory at once. On a busy mainnet node a block of order statuses has about 1 MiB.
const longLine = 4 << 20

// Cut appends to dst at most n spans that cover data, which is whole lines of which the first begins at offset in its file.
// Encoding the spans in order, into one output or into one each, gives the same as encoding data at once.
//
// Spans end at the line borders nearest to equal shares. Only an enveloped line of 4 MiB or more that is much longer than a
// share is cut too, between two of its events, after it was read to its end once; if its envelope is malformed it is a span
// of its own.
func (e *Encoder) Cut(dst []Span, data []byte, offset int64, n int) []Span {
	for n > 1 && len(data) > 0 {
		share := (len(data) + n - 1) / n
		from := lastNewline(data[:share]) + 1
		to := len(data)
		if i := bytes.IndexByte(data[share-1:], '\n'); i >= 0 {
			to = share + i
		}
		// The border of the first share falls into the line data[from:to].
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

// lastNewline is bytes.LastIndexByte, which looks at one byte at a time, for lines of hundreds of KiB: it searches window by window
// from the end with IndexByte, which does not.
func lastNewline(b []byte) int {
	const window = 1 << 10
	for end := len(b); end > 0; {
		begin := max(end-window, 0)
		if bytes.IndexByte(b[begin:end], '\n') >= 0 {
			return begin + bytes.LastIndexByte(b[begin:end], '\n')
		}
		end = begin
	}
	return -1
}

// cutLine appends at most n spans that cover one enveloped line, its newline included.
func (e *Encoder) cutLine(dst []Span, line []byte, offset int64, n int) []Span {
	if spans, ok := e.cutEvents(dst, bytes.TrimSuffix(line, []byte("\n")), offset, n); ok {
		return spans
	}
	return append(dst, Span{Data: line, Offset: offset})
}

// cutEvents is cutLine between events. It is not ok if the line has none, or if its envelope is malformed.
func (e *Encoder) cutEvents(dst []Span, line []byte, offset int64, n int) (spans []Span, ok bool) {
	w := Worker{encoder: e}
	h, i, ok := commonHeader(line)
	complete := false
	if !ok {
		if h, i, ok = w.anyHeader(line); !ok {
			return nil, false
		}
		complete = true
	}
	i = skipSpace(line, i)
	if i < len(line) && line[i] == ']' {
		return nil, false
	}
	share := (len(line) - i + n - 1) / n // n spans of at least this reach the end
	s := Span{Offset: offset, inside: true, header: h}
	for index, from := 0, i; ; index++ {
		end, _ := w.element(line, i)
		if end < 0 {
			return nil, false
		}
		s.Data = line[from:end]
		next, more := scanSeparator(line, end, ']')
		if !more {
			return append(dst, s), complete || next >= 0 && closes(line, next)
		}
		if end-from >= share {
			dst = append(dst, s)
			s.Index, from = index+1, next
		}
		i = next
	}
}
