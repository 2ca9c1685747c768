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

// Cut appends to dst at most n spans that cover data, which is whole lines of which the first begins at offset in its file.
// Encoding the spans in order, into one output or into one each, gives the same as encoding data at once.
//
// Spans end at line borders. Only an enveloped line that is longer than a fair share is cut too, between two of its events;
// such a line is read once to find them, so it pays where encoding costs more than reading. If its envelope is malformed it
// is a span of its own.
func (e *Encoder) Cut(dst []Span, data []byte, offset int64, n int) []Span {
	for n > 1 && len(data) > 0 {
		share := (len(data) + n - 1) / n
		from := bytes.LastIndexByte(data[:share], '\n') + 1
		to := len(data)
		if i := bytes.IndexByte(data[share-1:], '\n'); i >= 0 {
			to = share + i
		}
		// The border of the first share falls into the line data[from:to].
		switch long := to-from > share+share/2; {
		case from == 0 && long && e.enveloped:
			spans := n
			if to < len(data) {
				spans = min(n-1, (to+share/2)/share)
			}
			was := len(dst)
			dst = e.cutLine(dst, data[:to], offset, spans)
			n -= len(dst) - was
		case from > 0 && (long && e.enveloped || share-from < to-share):
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

// cutLine appends at most n spans that cover one enveloped line, its newline included.
func (e *Encoder) cutLine(dst []Span, line []byte, offset int64, n int) []Span {
	if spans, ok := e.cutEvents(dst, bytes.TrimSuffix(line, []byte("\n")), offset, n); ok {
		return spans
	}
	return append(dst, Span{Data: line, Offset: offset})
}

// cutEvents is cutLine between events. It is not ok if the line has none, or if its envelope is malformed.
func (e *Encoder) cutEvents(dst []Span, line []byte, offset int64, n int) (spans []Span, ok bool) {
	w := Worker{Encoder: e}
	h, i, ok := commonHeader(line)
	complete := false
	if !ok {
		if h, i, ok = w.anyHeader(line); !ok {
			return nil, false
		}
		complete = true
	}
	i = space(line, i)
	if i < len(line) && line[i] == ']' {
		return nil, false
	}
	share := (len(line) - i) / n
	last := len(dst) + n - 1
	s := Span{Offset: offset, inside: true, header: h}
	for index, from := 0, i; ; index++ {
		end, _ := w.element(line, i)
		if end < 0 {
			return nil, false
		}
		s.Data = line[from:end]
		next, more := separator(line, end)
		if !more {
			return append(dst, s), complete || next >= 0 && closes(line, next)
		}
		if end-from >= share && len(dst) < last {
			dst = append(dst, s)
			s.Index, from = index+1, next
		}
		i = next
	}
}
