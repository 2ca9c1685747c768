package hyperliquid

// header is what an envelope says of its events.
type header struct {
	block                int64
	blockTime, localTime []byte // the strings with their quotes, or nil
}

// commonHeader reads an envelope as nodes write it, up to its events. i is the index of the first event, or of the bracket
// that ends them. What follows the events has not been read.
func commonHeader(line []byte) (h header, i int, ok bool) {
	const (
		local  = `{"local_time":`
		block  = `,"block_time":`
		number = `,"block_number":`
		events = `,"events":[`
	)
	if h.localTime, i, ok = stringAfter(line, 0, local); !ok {
		return header{}, 0, false
	}
	if h.blockTime, i, ok = stringAfter(line, i, block); !ok {
		return header{}, 0, false
	}
	if i = scanLiteral(line, i, number); i < 0 {
		return header{}, 0, false
	}
	to := scanDigits(line, i)
	if to < 0 {
		return header{}, 0, false
	}
	if h.block, ok = blockNumber(line[i:to]); !ok {
		return header{}, 0, false
	}
	if i = scanLiteral(line, to, events); i < 0 {
		return header{}, 0, false
	}
	return h, i, true
}

// stringAfter reads text and then a string without escapes, which it returns with its quotes.
func stringAfter(b []byte, i int, text string) (quoted []byte, end int, ok bool) {
	from := scanLiteral(b, i, text)
	if from < 0 || from >= len(b) || b[from] != '"' {
		return nil, 0, false
	}
	to := indexSpecial(b, from+1)
	if to >= len(b) || b[to] != '"' {
		return nil, 0, false
	}
	return b[from : to+1], to + 1, true
}

// blockNumber reads a whole number without a sign, of at most 18 digits.
func blockNumber(text []byte) (n int64, ok bool) {
	if len(text) == 0 || len(text) > 18 || text[0] == '0' && len(text) > 1 {
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

// anyHeader reads a whole envelope of any layout; i is the index of its first event, or of the bracket that ends them. It is
// ok if the line is one object with a block number and an array of events whose borders are certain, and valid JSON but for
// single events. Times that are missing or no strings are left out. Of keys that occur twice the first counts.
func (w *Worker) anyHeader(line []byte) (h header, events int, ok bool) {
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
			return header{}, 0, false // the empty object too: it has no events
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
			if h.block, ok = blockNumber(quoted); !ok {
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

// skipEvents returns the index after the array whose first event, or bracket, is at b[i], or -1 if that is uncertain.
func (w *Worker) skipEvents(b []byte, i int) int {
	i = skipSpace(b, i)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for more := true; more; {
		end, _ := w.element(b, i)
		if end < 0 {
			return -1
		}
		i, more = scanSeparator(b, end, ']')
	}
	return i
}

// closes says whether an envelope with a common header ends well after its events: at once, or with more keys, none of which
// counts, since those that do stood in the header and the first wins.
func closes(line []byte, i int) bool {
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
