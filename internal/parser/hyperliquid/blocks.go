package hyperliquid

import "bytes"

// BlockOf returns the number of the block that an enveloped line is about; ok is false in line mode and for a line whose
// envelope is malformed.
func (e *Encoder) BlockOf(line []byte) (number int64, ok bool) {
	if !e.enveloped {
		return 0, false
	}
	if h, _, ok := commonHeader(line); ok {
		return h.block, true
	}
	w := Worker{encoder: e}
	h, _, ok := w.anyHeader(bytes.TrimSuffix(line, []byte("\n")))
	return h.block, ok
}

// EventsOf returns how many events an enveloped line holds, malformed ones included; 0 if its envelope is malformed.
func (e *Encoder) EventsOf(line []byte) int {
	n := 0
	e.eachEvent(line, func(int, int, header) bool {
		n++
		return true
	})
	return n
}

// After returns a span of an enveloped line's events without the first skip of them; ok is false if none is left or the envelope
// is malformed. It does not count the line.
func (e *Encoder) After(line []byte, offset int64, skip int) (s Span, ok bool) {
	n, from, to := 0, 0, 0
	var h header
	e.eachEvent(line, func(begin, end int, of header) bool {
		if n == skip {
			from = begin
		}
		n++
		to, h = end, of
		return true
	})
	if n <= skip {
		return Span{}, false
	}
	return Span{Data: line[from:to], Offset: offset, Index: skip, inside: true, header: h}, true
}

// eachEvent calls f with the borders of each event of an enveloped line, until f returns false.
func (e *Encoder) eachEvent(line []byte, f func(begin, end int, h header) bool) {
	w := Worker{encoder: e}
	line = bytes.TrimSuffix(line, []byte("\n"))
	h, i, ok := commonHeader(line)
	if !ok {
		if h, i, ok = w.anyHeader(line); !ok {
			return
		}
	}
	i = skipSpace(line, i)
	if i < len(line) && line[i] == ']' {
		return
	}
	for more := true; more; {
		end, _ := w.element(line, i)
		if end < 0 || !f(i, end, h) {
			return
		}
		i, more = scanSeparator(line, end, ']')
		if i < 0 {
			return
		}
	}
}
