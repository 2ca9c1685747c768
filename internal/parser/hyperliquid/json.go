package hyperliquid

import (
	"encoding/binary"
	"encoding/json"
	"math/bits"
)

// The scanner below accepts exactly what encoding/json.Valid accepts (FuzzValid holds the two equal), at several times its speed
// and without a tree. Positions are indexes into one slice that never moves, since every caller wants borders, not values.
//
// Not fastjson: its validation recurses without a limit, so one line of 64 MiB of "[" would end the process.

// maxDepth is the deepest nesting accepted, that of encoding/json.
const maxDepth = 10000

// scanValue returns the index after the JSON value that begins at b[i], or -1 if there is none. depth is the number of
// containers around it.
func scanValue(b []byte, i, depth int) int {
	if i >= len(b) {
		return -1
	}
	switch c := b[i]; c {
	case '"':
		end, _ := scanString(b, i+1)
		return end
	case '{':
		return scanObject(b, i, depth)
	case '[':
		return scanArray(b, i, depth)
	case 't':
		return scanLiteral(b, i, "true")
	case 'f':
		return scanLiteral(b, i, "false")
	case 'n':
		return scanLiteral(b, i, "null")
	default:
		return scanNumber(b, i)
	}
}

func scanLiteral(b []byte, i int, text string) int {
	if len(b)-i < len(text) || string(b[i:i+len(text)]) != text {
		return -1
	}
	return i + len(text)
}

// scanObject returns the index after the object whose brace is b[i], or -1.
func scanObject(b []byte, i, depth int) int {
	if depth >= maxDepth {
		return -1
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	for more := true; more; {
		if i = scanMember(b, i, depth+1); i < 0 {
			return -1
		}
		i, more = scanSeparator(b, i, '}')
	}
	return i
}

// scanSeparator reads what follows a value in a container. It returns the index of the next value, or key, and true after a
// comma, the index after the closing bracket and false, or -1 and false.
func scanSeparator(b []byte, i int, closing byte) (next int, more bool) {
	i = skipSpace(b, i)
	switch {
	case i >= len(b):
		return -1, false
	case b[i] == ',':
		return skipSpace(b, i+1), true
	case b[i] == closing:
		return i + 1, false
	}
	return -1, false
}

// scanMember returns the index after the key and the value that begin at b[i], or -1.
func scanMember(b []byte, i, depth int) int {
	_, i, _ = scanKey(b, i)
	if i < 0 {
		return -1
	}
	return scanValue(b, i, depth)
}

// scanKey reads the key whose quote is b[i]. It returns the index after the key, the index of its value, and whether the key has
// escapes; -1 for both if there is no key.
func scanKey(b []byte, i int) (end, val int, escaped bool) {
	if i >= len(b) || b[i] != '"' {
		return -1, -1, false
	}
	end, escaped = scanString(b, i+1)
	if end < 0 {
		return -1, -1, false
	}
	i = skipSpace(b, end)
	if i >= len(b) || b[i] != ':' {
		return -1, -1, false
	}
	return end, skipSpace(b, i+1), escaped
}

// scanArray returns the index after the array whose bracket is b[i], or -1.
func scanArray(b []byte, i, depth int) int {
	if depth >= maxDepth {
		return -1
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for more := true; more; {
		if i = scanValue(b, i, depth+1); i < 0 {
			return -1
		}
		i, more = scanSeparator(b, i, ']')
	}
	return i
}

// skipSpace returns the index of the first byte from b[i] on that is not JSON white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && isSpace(b[i]) {
		i++
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// trim returns the borders of b without the white space around it.
func trim(b []byte) (from, to int) {
	from, to = skipSpace(b, 0), len(b)
	for to > from && isSpace(b[to-1]) {
		to--
	}
	return from, to
}

// indexSpecial returns the index of the first byte from b[i] on that may not stand in a string as it is: a quote, a backslash or
// a control character; len(b) if there is none.
func indexSpecial(b []byte, i int) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	// Eight bytes at a time. Swapping bit 1 puts the quote (0x22) right above the control characters, so that one
	// subtraction finds both. A borrow can only spoil bytes above the first hit, which is the one that counts.
	for ; len(b)-i >= 8; i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		low := (w ^ 0x02*ones) - 0x21*ones
		backslash := (w ^ '\\'*ones) - ones
		if hits := (low | backslash) &^ w & highs; hits != 0 {
			return i + bits.TrailingZeros64(hits)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < ' ' {
			return i
		}
	}
	return i
}

// scanString returns the index after the closing quote of the string whose first byte is b[i], and whether it has escapes; -1 if it
// does not end or holds what a string may not hold. Like encoding/json it does not mind invalid UTF-8.
func scanString(b []byte, i int) (end int, escaped bool) {
	for {
		i = indexSpecial(b, i)
		if i >= len(b) {
			return -1, false
		}
		switch b[i] {
		case '"':
			return i + 1, escaped
		case '\\':
			escaped = true
			if i+1 >= len(b) {
				return -1, false
			}
			switch b[i+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i += 2
			case 'u':
				if len(b)-i < 6 || !isHex(b[i+2]) || !isHex(b[i+3]) || !isHex(b[i+4]) || !isHex(b[i+5]) {
					return -1, false
				}
				i += 6
			default:
				return -1, false
			}
		default:
			return -1, false
		}
	}
}

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// scanNumber returns the index after the number that begins at b[i], or -1.
func scanNumber(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = scanDigits(b, i); i < 0 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		if i = scanDigits(b, i+1); i < 0 {
			return -1
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return scanDigits(b, i)
	}
	return i
}

// scanDigits returns the index after the digits that begin at b[i], or -1 if there are none.
func scanDigits(b []byte, i int) int {
	from := i
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	if i == from {
		return -1
	}
	return i
}

// unescape decodes a valid string given with its quotes. It is the slow path: nodes escape nothing in what filters look at.
func unescape(quoted []byte) []byte {
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return nil // not reached: scanString has accepted it
	}
	return []byte(s)
}

// skipBrackets returns the index after the value at b[i], told by its strings and brackets alone, or -1 if these do not match
// up. It tells where a malformed event ends, so that its neighbours can be saved.
func skipBrackets(b []byte, i int) int {
	var open []byte
	from := i
	for ; i < len(b); i++ {
		c := b[i]
		if len(open) == 0 && i > from && (c == '"' || c == '{' || c == '[') {
			return -1 // a bare word runs into another value
		}
		switch c {
		case '"':
			if i = skipString(b, i+1); i < 0 {
				return -1
			}
		case '{', '[':
			open = append(open, c)
			continue
		case '}', ']':
			if len(open) == 0 {
				return bareEnd(from, i)
			}
			if open[len(open)-1] != c-2 { // '{'+2 is '}', '['+2 is ']'
				return -1
			}
			open = open[:len(open)-1]
		case ',', ' ', '\t', '\r', '\n':
			if len(open) == 0 {
				return bareEnd(from, i)
			}
			continue
		default:
			continue
		}
		if len(open) == 0 {
			return i + 1 // after the quote or bracket that ends the value
		}
	}
	if len(open) > 0 {
		return -1
	}
	return bareEnd(from, len(b))
}

// bareEnd is the end of a bare word, or -1 if it is empty.
func bareEnd(from, to int) int {
	if from == to {
		return -1
	}
	return to
}

// skipString returns the index of the quote that ends the string whose first byte is b[i], or -1.
func skipString(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i
		case '\\':
			i++
		}
	}
	return -1
}
