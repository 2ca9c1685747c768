// Package prose sanitizes text from other programs: it returns one printable line of bounded length, without control or
// invisible characters.
//
// Every text in a condition, an event, a status or a verdict that is not the operator's own passes through it: text of
// parsers, which may lie, of kubelets, and of the API server. An object with a text of an invalid form is refused by
// the API server as a whole. The package is pure.
package prose

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds, in bytes.
const (
	// MaxCondition bounds the message of a condition. The API allows 32 KiB, but people read a paragraph, and each write
	// of a status contains all of it.
	MaxCondition = 1 << 10
	// MaxNote bounds the note of an event. It is the API's limit.
	MaxNote = 1 << 10
	// MaxReason bounds a reason. It is the API's limit for an event; a condition may have more.
	MaxReason = 128
)

// ellipsis marks a cut.
const ellipsis = "…"

// Line returns text as one line of valid UTF-8 of at most limit bytes. Each white space character becomes a plain
// space. Characters that are not printable become U+FFFD: control characters, direction overrides, zero-width
// characters, and invalid UTF-8. A text that is too long is cut and ends with "…", if the limit allows that. A valid
// text is returned unchanged and without an allocation.
func Line(text string, limit int) string {
	text = clean(text, limit)
	if len(text) <= limit {
		return text
	}
	end := limit
	if limit >= len(ellipsis) {
		end -= len(ellipsis)
	}
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	if limit < len(ellipsis) {
		return text[:end]
	}
	return text[:end] + ellipsis
}

// Ends is like Line, but cuts the middle of a text that is too long: messages of kubelets and API servers begin with
// the operation and end with the cause of its failure.
func Ends(text string, limit int) string {
	// Do not process the middle: an error may be a megabyte.
	if most := 4*limit + 2*utf8.UTFMax; len(text) > 2*most {
		text = text[:most] + ellipsis + text[len(text)-most:]
	}
	text = clean(text, utf8.UTFMax*len(text))
	room := limit - len(ellipsis)
	if len(text) <= limit || room < 2 {
		return Line(text, limit)
	}
	head, tail := room-room/2, len(text)-room/2
	for head > 0 && !utf8.RuneStart(text[head]) {
		head--
	}
	for tail < len(text) && !utf8.RuneStart(text[tail]) {
		tail++
	}
	return text[:head] + ellipsis + text[tail:]
}

// clean replaces characters that are not allowed in a line. It may drop text beyond the limit and one rune.
func clean(text string, limit int) string {
	i := validPrefix(text)
	if i == len(text) {
		return text
	}
	var out strings.Builder
	out.WriteString(text[:i])
	for _, r := range text[i:] {
		if out.Len() > limit {
			break
		}
		out.WriteRune(replacement(r))
	}
	return out.String()
}

// validPrefix returns the length of the prefix that needs no change. It is fast for ASCII, the usual case.
func validPrefix(text string) int {
	for i := 0; i < len(text); {
		if c := text[i]; c >= ' ' && c <= '~' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 || replacement(r) != r {
			return i
		}
		i += size
	}
	return len(text)
}

// replacement returns the rune that replaces r. Invalid UTF-8 has already become U+FFFD.
func replacement(r rune) rune {
	switch {
	case unicode.IsSpace(r):
		return ' '
	case unicode.IsPrint(r):
		return r
	}
	return unicode.ReplacementChar
}

// Plain reports whether text is at most limit bytes of printable ASCII, as the names in a parser's report must be.
func Plain(text string, limit int) bool {
	if len(text) > limit {
		return false
	}
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// Reason returns a reason that the API accepts for a condition or an event: letters, digits and underscores, beginning
// with a letter. A valid reason is returned unchanged. Otherwise all characters but letters and digits are removed, and
// an empty result becomes "Unknown".
func Reason(text string) string {
	if validReason(text) {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text) && out.Len() < MaxReason; i++ {
		if c := text[i]; letter(c) || out.Len() > 0 && digit(c) {
			out.WriteByte(c)
		}
	}
	if out.Len() == 0 {
		return "Unknown"
	}
	return out.String()
}

func validReason(text string) bool {
	if text == "" || len(text) > MaxReason || !letter(text[0]) || text[len(text)-1] == '_' {
		return false
	}
	for i := range len(text) {
		if c := text[i]; !letter(c) && !digit(c) && c != '_' {
			return false
		}
	}
	return true
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func digit(c byte) bool { return c >= '0' && c <= '9' }
