// Package prose makes what others say fit to be shown: one line of bounded length that moves no cursor and hides
// nothing.
//
// Every text of a condition, an event, a status or a verdict that is not the operator's own goes through it: those of
// parsers, which may lie, of kubelets, and of the API server. What the API server refuses for its form is lost, and so
// is whatever is written with it. The package is pure.
package prose

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds, in bytes.
const (
	// MaxCondition bounds the message of a condition. The API takes 32 KiB; a person reads a paragraph, and the status is
	// written whole.
	MaxCondition = 1 << 10
	// MaxNote bounds the note of an event. The API refuses more.
	MaxNote = 1 << 10
	// MaxReason bounds a reason. It is the API's bound for an event's; a condition's may have more.
	MaxReason = 128
)

// ellipsis ends what was cut.
const ellipsis = "…"

// Line returns text as one line of valid UTF-8 of at most limit bytes. Spaces of all kinds become one plain space each.
// What is not printable becomes U+FFFD: control characters, overrides of the direction, characters without width,
// invalid UTF-8. What is cut ends with "…", unless the limit is less than that takes. A text that is fit already is
// returned as it is, without an allocation.
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

// Ends returns text as Line does, but leaves out its middle where it is too long: what kubelets and API servers say
// begins with what they did, and ends with why it failed.
func Ends(text string, limit int) string {
	// What is left out is never read: an error may be a megabyte.
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

// clean replaces what does not belong into a line. It may leave out what is beyond the limit and a rune.
func clean(text string, limit int) string {
	i := fit(text)
	if i == len(text) {
		return text
	}
	var out strings.Builder
	out.WriteString(text[:i])
	for _, r := range text[i:] {
		if out.Len() > limit {
			break
		}
		out.WriteRune(shown(r))
	}
	return out.String()
}

// fit is the length of the part of text that needs no change. It is fast for ASCII, which nearly everything is.
func fit(text string) int {
	for i := 0; i < len(text); {
		if c := text[i]; c >= ' ' && c <= '~' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 || shown(r) != r {
			return i
		}
		i += size
	}
	return len(text)
}

// shown is the rune that stands for r. Invalid UTF-8 has become U+FFFD already.
func shown(r rune) rune {
	switch {
	case unicode.IsSpace(r):
		return ' '
	case unicode.IsPrint(r):
		return r
	}
	return unicode.ReplacementChar
}

// Plain reports whether text is at most limit bytes of printable ASCII: what the names that a parser reports are made
// of.
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

// Reason returns a reason that the API takes for a condition or an event: letters, digits and underscores, beginning
// with a letter. A reason that is fit already is returned as it is; what is not a letter or a digit is left out of
// others, and "Unknown" stands for what nothing is left of.
func Reason(text string) string {
	if reasonFits(text) {
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

func reasonFits(text string) bool {
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
