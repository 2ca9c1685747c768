package hyperliquid

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestScannerAcceptsWhatEncodingJSONAccepts(t *testing.T) {
	texts := []string{
		``, ` `, `null`, `nul`, `nulll`, `true`, `tru`, `false`, `False`, `{}`, `[]`, `{ }`, `[ ]`, `{]`, `[}`, `[,]`, `[1,]`,
		`[1 2]`, `[1`, `{,}`, `{1:2}`,
		`{"a"}`, `{"a":}`, `{"a":1,}`, `{"a" : 1 , "b":[ 2 , 3 ] }`, `{"a":1 "b":2}`, `{"a":1`, `{"a`, `{"a":1}}`, "[1]\v",
		"\ufeff1", "[\n\r\t 1]",
		`0`, `-0`, `-`, `+1`, `01`, `-01`, `00`, `1.`, `.5`, `1.5`, `1.5.5`, `1e`, `1e5`, `1E+05`, `1e-`, `1e--5`, `0e0`,
		`0.0e1`, `1_0`, `0x1`, `Infinity`, `--1`, `1a`,
		`"`, `"a`, `"a"b`, `""`, `"\"`, `"\\"`, `"\/\b\f\n\r\t\""`, `"\a"`, `"\'"`, `"\u0000"`, `"\ud800"`, `"\u12345"`,
		`"\uABCD\uabcd"`, "\"\x7f\xff\x80\"",
		`"\u`, `"\u"`, `"\u1"`, `"\u12"`, `"\u123"`, `"\uG234"`, `"\u1G34"`, `"\u12G4"`, `"\u123G"`, `"\U1234"`,
	}
	for c := range 256 { // at every position of a word, and of the remainder after words
		for length := range 20 {
			texts = append(texts, `"`+strings.Repeat("a", length)+string([]byte{byte(c)})+`"`,
				`"`+strings.Repeat("a", length)+string([]byte{byte(c)})+`bcdefghij"`)
		}
	}
	for depth := maxDepth - 1; depth <= maxDepth+1; depth++ {
		texts = append(texts, strings.Repeat("[", depth)+strings.Repeat("]", depth),
			strings.Repeat(`{"a":`, depth)+"1"+strings.Repeat("}", depth),
			strings.Repeat(`[{"a":`, depth/2)+"1"+strings.Repeat("}]", depth/2))
	}
	for _, text := range texts {
		if got, want := scanValue([]byte(text), 0, 0) == len(text), json.Valid([]byte(text)) &&
			text == strings.Trim(text, " \t\r\n"); got != want {
			t.Errorf("%.80q: valid %v, want %v", text, got, want)
		}
	}
}

func TestBracketsShowWhereAMalformedValueEnds(t *testing.T) {
	for text, want := range map[string]int{
		`{"a":tru},`: 9, `{"}":"]"},`: 9, `{"a":"\"}"},`: 11, `[{]}]`: -1, `[[}`: -1, `{"a":[`: -1, `{"a`: -1, `{"a\`: -1,
		`tru,1`: 3, `tru]`: 3, `tru }`: 3, `tru`: 3, `tru{}`: -1, `tru[]`: -1, `tru"x"`: -1, `,`: -1, `]`: -1, ``: -1,
		`"a"b`: 3, `"a\`: -1,
	} {
		if got := skipBrackets([]byte(text), 0); got != want {
			t.Errorf("%s: ends at %d, want %d", text, got, want)
		}
	}
}
