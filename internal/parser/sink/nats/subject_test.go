package nats

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"pgregory.net/rapid"
)

func TestAnyTextIsOneReversibleTokenOfASubject(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.String(),
			rapid.SampledFrom([]string{"", "_", "%5F", "a.b", "$JS", "*", ">", "xyz:TSLA", "@107", "\xff"}),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		).Draw(t, "text")
		word := escape(text)
		if subject := "hl." + word; !server.IsValidPublishSubject(subject) || strings.Count(subject, ".") != 1 ||
			strings.HasPrefix(word, "$") {
			t.Fatalf("%q becomes %q", text, word)
		}
		back, err := url.PathUnescape(word)
		if word == "_" {
			back = ""
		}
		if err != nil || back != text {
			t.Fatalf("%q becomes %q, which decodes to %q, %v", text, word, back, err)
		}
	})
}

func TestKnownCoinsAreNotEscaped(t *testing.T) {
	for _, coin := range []string{"BTC", "@107", "PURR/USDC", "xyz:TSLA", "kPEPE", "币"} {
		if got := escape(coin); got != coin {
			t.Errorf("%q becomes %q", coin, got)
		}
	}
}

func TestTheCacheOfSubjectsIsBounded(t *testing.T) {
	s := newSubjects("hl.{stream}.{coin}.{target}", "fills", "node.1")
	for i := range 3 * cachedSubjects {
		coin := fmt.Sprint("coin.", i)
		for range 2 {
			if got := s.subjectFor(coin); got != fmt.Sprintf("hl.fills.coin%%2E%d.node%%2E1", i) {
				t.Fatalf("the subject is %q", got)
			}
		}
	}
	if len(s.byCoin) > cachedSubjects {
		t.Errorf("%d subjects are cached", len(s.byCoin))
	}
}

func TestStreamSubjectsCoverRecordsAndPositions(t *testing.T) {
	for template, want := range map[string]string{
		"hl.{stream}.{coin}":       "[hl.*.* hlparser.HL.*]",
		"hl":                       "[hl hlparser.HL.*]",
		"a.{target}-{stream}":      "[a.* hlparser.HL.*]",
		"hlparser.{stream}.{coin}": "[hlparser.*.*]",
		"hlparser.{stream}.x":      "[hlparser.*.*]",
		"a.HL.{coin}":              "[a.HL.* hlparser.HL.*]",
	} {
		if got := fmt.Sprint(streamSubjects(template, "HL")); got != want {
			t.Errorf("%s: %s, want %s", template, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		writer := rapid.String().Draw(t, "writer") + strings.Repeat("long", rapid.IntRange(0, 200).Draw(t, "longer"))
		got := positionSubject("HL", writer, "fills")
		if !server.IsValidPublishSubject(got) || strings.Count(got, ".") != 2 || len(got) > 300 {
			t.Fatalf("the position of %q is on %q", writer, got)
		}
	})
}
