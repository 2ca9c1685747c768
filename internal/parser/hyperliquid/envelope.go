package hyperliquid

import (
	"bytes"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// maxHeaderValue bounds a value of an envelope, in bytes, for strings without their quotes: each of the line's records
// repeats it. Nodes write 29 bytes.
const maxHeaderValue = 64

// header holds the values of an envelope.
type header struct {
	block                int64
	blockTime, localTime []byte // the strings with their quotes, or nil
	ascii                bool   // both times are known to be ASCII
	longNumber           bool   // the block number is a value of more than maxHeaderValue bytes
}

// readHeader reads the envelope of a line up to its events. i is the index of the first event, or of the bracket that
// ends them. complete reports whether the envelope was read to its end and is valid; otherwise what follows the events
// is unread. If the envelope is unusable, reason says why.
func (w *Worker) readHeader(line []byte) (i int, complete bool, reason string) {
	if i = w.header.readUsualHeader(line); i >= 0 && w.headerReason(&w.header) == "" {
		return i, false, ""
	}
	var ok bool
	// Keys in another order, spaces or escapes: the header values may come after the events.
	if w.header, i, ok = w.readAnyHeader(line); !ok {
		return 0, false, ReasonEnvelope
	}
	return i, true, w.headerReason(&w.header)
}

// headerReason returns why a valid envelope is unusable, or "".
func (w *Worker) headerReason(h *header) string {
	switch {
	case h.longNumber || max(len(h.blockTime), len(h.localTime)) > maxHeaderValue+len(`""`):
		return ReasonHeader
	case w.encoder.format != config.Raw && !h.ascii && (!isStrict(h.blockTime) || !isStrict(h.localTime)):
		return ReasonUTF8
	}
	return ""
}

// readUsualHeader reads an envelope as nodes write it, up to its events. It returns the index of the first event, or of
// the bracket that ends them, or -1 if the envelope has another layout. What follows the events is unread.
func (h *header) readUsualHeader(line []byte) int {
	const (
		local  = `{"local_time":`
		block  = `,"block_time":`
		number = `,"block_number":`
		events = `,"events":[`
	)
	*h = header{}
	var i int
	var one, other, ok bool
	if h.localTime, i, one = stringAfter(line, 0, local); i < 0 {
		return -1
	}
	if h.blockTime, i, other = stringAfter(line, i, block); i < 0 {
		return -1
	}
	h.ascii = one && other
	if i = scanLiteral(line, i, number); i < 0 {
		return -1
	}
	to := scanDigits(line, i)
	if to < 0 {
		return -1
	}
	if h.block, ok = parseNumber(line[i:to]); !ok {
		return -1
	}
	return scanLiteral(line, to, events)
}

// stringAfter reads text and then a string without escapes, which it returns with its quotes. end is -1 if they are
// missing. ascii means that the string is ASCII; it may be false for ASCII too.
func stringAfter(b []byte, i int, text string) (quoted []byte, end int, ascii bool) {
	from := scanLiteral(b, i, text)
	if from < 0 || from >= len(b) || b[from] != '"' {
		return nil, -1, false
	}
	to, ascii := indexSpecial(b, from+1)
	if to >= len(b) || b[to] != '"' {
		return nil, -1, false
	}
	return b[from : to+1], to + 1, ascii
}

// BlockNumber reads the block number from the beginning of an enveloped line, whose key order is fixed. It does not
// validate the line.
func BlockNumber(line []byte) (number int64, ok bool) {
	const key = `"block_number":`
	i := bytes.Index(line[:min(len(line), 256)], []byte(key))
	if i < 0 {
		return 0, false
	}
	value := line[i+len(key):]
	end := bytes.IndexByte(value[:min(len(value), maxNumberDigits+1)], ',')
	if end < 0 {
		return 0, false
	}
	return parseNumber(value[:end])
}

// maxNumberDigits bounds the digits of a whole number, which then fits an int64.
const maxNumberDigits = 18

// parseNumber parses a whole number without a sign, of at most maxNumberDigits digits.
func parseNumber(text []byte) (n int64, ok bool) {
	if len(text) == 0 || len(text) > maxNumberDigits || text[0] == '0' && len(text) > 1 {
		return 0, false
	}
	for _, c := range text {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// readAnyHeader reads a whole envelope of any layout. events is the index of its first event, or of the bracket that
// ends them. It is ok if the line is one object with a block number and an array of events with certain boundaries, and
// valid JSON except for single events. Times that are missing or not strings are omitted. Of duplicate keys the first
// counts.
func (w *Worker) readAnyHeader(line []byte) (h header, events int, ok bool) {
	i := skipSpace(line, 0)
	if i >= len(line) || line[i] != '{' {
		return header{}, 0, false
	}
	const hasNumber, hasEvents, hasBlockTime, hasLocalTime = 1, 2, 4, 8
	seen := 0
	for {
		i = skipSpace(line, i+1)
		end, val, escaped := scanKey(line, i)
		if end < 0 || val >= len(line) {
			return header{}, 0, false // also for the empty object, which has no events
		}
		key := 0
		switch string(unquote(line[i:end], escaped)) {
		case "block_number":
			key = hasNumber
		case "events":
			key = hasEvents
		case "block_time":
			key = hasBlockTime
		case "local_time":
			key = hasLocalTime
		}
		if seen&key != 0 {
			key = 0
		}
		seen |= key
		if key == hasEvents {
			if line[val] != '[' {
				return header{}, 0, false
			}
			events = val + 1
			i = w.skipEvents(line, events)
		} else {
			i = scanValue(line, val, 1)
		}
		if i < 0 {
			return header{}, 0, false
		}
		quoted := line[val:i]
		switch key {
		case hasNumber:
			h.longNumber = len(quoted) > maxHeaderValue
			if h.block, ok = parseNumber(quoted); !ok && !h.longNumber {
				return header{}, 0, false
			}
		case hasBlockTime:
			if quoted[0] == '"' {
				h.blockTime = quoted
			}
		case hasLocalTime:
			if quoted[0] == '"' {
				h.localTime = quoted
			}
		}
		i = skipSpace(line, i)
		switch {
		case i < len(line) && line[i] == ',':
		case i < len(line) && line[i] == '}':
			ok = seen&(hasNumber|hasEvents) == hasNumber|hasEvents && skipSpace(line, i+1) == len(line)
			return h, events, ok
		default:
			return header{}, 0, false
		}
	}
}

// skipEvents returns the index after the array whose first event, or closing bracket, is at b[i], or -1 if that is
// uncertain.
func (w *Worker) skipEvents(b []byte, i int) int {
	i = skipSpace(b, i)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	return w.skipMore(b, i)
}

// skipMore is skipEvents if an event must follow.
func (w *Worker) skipMore(b []byte, i int) int {
	for more := true; more; {
		end, _ := w.element(b, i)
		if end < 0 {
			return -1
		}
		i, more = scanSeparator(b, end, ']')
	}
	return i
}

// validTail reports whether an envelope with a usual header is valid after its events. Further keys do not count,
// because the first of duplicate keys wins, and the header had all that count.
func validTail(line []byte, i int) bool {
	for {
		i = skipSpace(line, i)
		if i >= len(line) {
			return false
		}
		switch line[i] {
		case '}':
			return skipSpace(line, i+1) == len(line)
		case ',':
			if i = scanMember(line, skipSpace(line, i+1), 1); i < 0 {
				return false
			}
		default:
			return false
		}
	}
}
