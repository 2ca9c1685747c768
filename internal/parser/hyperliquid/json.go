package hyperliquid

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// The scanner below accepts exactly what encoding/json.Valid accepts (FuzzValid compares the two), at several times its
// speed and without a tree. Positions are indexes into one slice that never moves, since every caller needs boundaries,
// not values.
//
// It does not use fastjson, whose validation recurses without a limit: a line of 64 MiB of "[" would end the process.

// maxDepth is the deepest accepted nesting, which is that of encoding/json.
const maxDepth = 10000

// scanValue returns the index after the JSON value that begins at b[i], or -1 if there is none. depth is the number of
// enclosing containers.
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

// scanSeparator reads what follows a value in a container. After a comma it returns the index of the next value or key,
// and true. After the closing bracket it returns the next index, and false. Otherwise it returns -1 and false.
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

// scanKey reads the key whose quote is b[i]. It returns the index after the key, the index of its value, and whether
// the key has escapes. Both indexes are -1 if there is no key.
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

// trim returns the boundaries of b without surrounding white space.
func trim(b []byte) (from, to int) {
	from, to = skipSpace(b, 0), len(b)
	for to > from && isSpace(b[to-1]) {
		to--
	}
	return from, to
}

// indexSpecial returns the index of the first byte from b[i] on that must not appear unescaped in a string: a quote, a
// backslash or a control character. It returns len(b) if there is none. ascii means that all bytes before it are ASCII;
// it may be false for ASCII too.
func indexSpecial(b []byte, i int) (at int, ascii bool) {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	// Process eight bytes at a time. Flipping bit 1 puts the quote (0x22) right above the control characters, so that
	// one subtraction finds both. A borrow affects only bytes above the first hit, which is the one that counts.
	all := uint64(0)
	for ; len(b)-i >= 8; i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		all |= w
		low := (w ^ 0x02*ones) - 0x21*ones
		backslash := (w ^ '\\'*ones) - ones
		if hits := (low | backslash) &^ w & highs; hits != 0 {
			return i + bits.TrailingZeros64(hits)/8, all&highs == 0
		}
	}
	for ; i < len(b); i++ {
		c := b[i]
		if c == '"' || c == '\\' || c < ' ' {
			break
		}
		all |= uint64(c)
	}
	return i, all&highs == 0
}

// scanString returns the index after the closing quote of the string whose first byte is b[i], and whether the string
// has escapes. It returns -1 if the string does not end or contains an illegal byte. Like encoding/json it accepts
// invalid UTF-8.
func scanString(b []byte, i int) (end int, escaped bool) {
	for {
		i, _ = indexSpecial(b, i)
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

// longText is the length, in bytes, from which the text of a string makes no difference. It exceeds every key, every
// value of a filter (128 bytes) and every amount that is compared (maxDigits).
const longText = 2 << 10

// unescape decodes a valid string, given with its quotes. Of a longer string it decodes at least longText bytes. It is
// the slow path: nodes escape nothing in the fields that filters use.
func unescape(quoted []byte) []byte {
	// An escape of up to 6 bytes yields at least one byte of text. A cut in the middle of a surrogate pair damages only
	// text that makes no difference.
	if len(quoted) > 6*longText {
		i := 1
		for i < 6*longText {
			switch {
			case quoted[i] != '\\':
				i++
			case quoted[i+1] == 'u':
				i += 6
			default:
				i += 2
			}
		}
		if i < len(quoted) {
			quoted = append(slices.Clone(quoted[:i]), '"')
		}
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return nil // unreachable: scanString accepted the string
	}
	return []byte(s)
}

// maxBrackets is the deepest nesting that skipBrackets follows.
const maxBrackets = 8 << 20

// brackets are the open brackets, one bit each: set for a brace.
type brackets struct {
	bits  []uint64
	depth int
}

func (s *brackets) open(brace bool) {
	word, bit := s.depth/64, uint64(1)<<(s.depth%64)
	if word == len(s.bits) {
		s.bits = append(s.bits, 0)
	}
	s.bits[word] &^= bit
	if brace {
		s.bits[word] |= bit
	}
	s.depth++
}

// close removes the innermost bracket, and reports whether it is of that kind.
func (s *brackets) close(brace bool) bool {
	s.depth--
	return s.bits[s.depth/64]>>(s.depth%64)&1 == 1 == brace
}

// skipBrackets returns the index after the value at b[i], judged by its strings and brackets alone. It returns -1 if
// these do not match, or are nested deeper than maxBrackets; the bound keeps a line of brackets from taking its own
// length in memory again. It finds the end of a malformed event, so that the events next to it can be saved.
func skipBrackets(b []byte, i int) int {
	var open brackets
	from := i
	for ; i < len(b); i++ {
		c := b[i]
		if open.depth == 0 && i > from && (c == '"' || c == '{' || c == '[') {
			return -1 // a bare word is followed directly by another value
		}
		switch c {
		case '"':
			if i = skipString(b, i+1); i < 0 {
				return -1
			}
		case '{', '[':
			if open.depth == maxBrackets {
				return -1
			}
			open.open(c == '{')
			continue
		case '}', ']':
			if open.depth == 0 {
				return bareEnd(from, i)
			}
			if !open.close(c == '}') {
				return -1
			}
		case ',', ' ', '\t', '\r', '\n':
			if open.depth == 0 {
				return bareEnd(from, i)
			}
			continue
		default:
			continue
		}
		if open.depth == 0 {
			return i + 1 // after the quote or bracket that ends the value
		}
	}
	if open.depth > 0 {
		return -1
	}
	return bareEnd(from, len(b))
}

// bareEnd returns the end of a bare word, or -1 if the word is empty.
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

// isPlain reports whether b is ASCII without backslashes.
func isPlain(b []byte) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	for ; len(b) >= 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b)
		backslash := w ^ '\\'*ones
		if (w|(backslash-ones)&^backslash)&highs != 0 {
			return false
		}
	}
	for _, c := range b {
		if c >= utf8.RuneSelf || c == '\\' {
			return false
		}
	}
	return true
}

// isStrict reports whether strict readers accept valid JSON: it must be UTF-8, without unpaired surrogates in escapes.
// encoding/json replaces those with U+FFFD; its successor, and the readers of Rust, Arrow and DuckDB, reject the file.
func isStrict(b []byte) bool {
	if isPlain(b) {
		return true
	}
	if !utf8.Valid(b) {
		return false
	}
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return true
		}
		if b = b[i:]; b[1] != 'u' {
			b = b[2:]
			continue
		}
		first := escaped(b)
		b = b[6:]
		if utf16.IsSurrogate(first) {
			if len(b) < 6 || b[0] != '\\' || b[1] != 'u' || utf16.DecodeRune(first, escaped(b)) == utf8.RuneError {
				return false
			}
			b = b[6:]
		}
	}
}

// escaped returns the code of the valid \u escape at the beginning of b.
func escaped(b []byte) rune {
	n, _ := strconv.ParseUint(string(b[2:6]), 16, 16) // valid
	return rune(n)
}
