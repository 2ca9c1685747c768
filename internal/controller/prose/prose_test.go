package prose_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

func TestLine(t *testing.T) {
	for name, test := range map[string]struct {
		text  string
		limit int
		want  string
	}{
		"fits":                     {"no space left on device", 100, "no space left on device"},
		"empty":                    {"", 10, ""},
		"other scripts":            {"диск полон 磁盘已满 – 5 µs", 100, "диск полон 磁盘已满 – 5 µs"},
		"exactly as long":          {"abcdef", 6, "abcdef"},
		"cut":                      {"abcdefghi", 8, "abcde…"},
		"cut within a rune":        {"abcdé–––", 9, "abcdé…"},
		"nothing but the ellipsis": {"abcdefghi", 3, "…"},
		"not even that":            {"abcdefghi", 2, "ab"},
		"nothing":                  {"abc", 0, ""},
		"newlines":                 {"first\nsecond\r\nthird", 100, "first second  third"},
		"tabs and other spaces":    {"a\tb\u00a0c\u3000d\u0085e", 100, "a b c d e"},
		"separators":               {"a\u2028b\u2029c", 100, "a b c"},
		"escape sequences":         {"\x1b[2J\x1b]0;owned\a", 100, "\ufffd[2J\ufffd]0;owned\ufffd"},
		"NUL and DEL":              {"a\x00b\x7fc", 100, "a\ufffdb\ufffdc"},
		"C1 controls":              {"a\u009bb", 100, "a\ufffdb"},
		"overrides of direction":   {"a\u202eb\u2066c\u200fd\u061ce", 100, "a\ufffdb\ufffdc\ufffdd\ufffde"},
		"without width":            {"a\u200bb\ufeffc\u00add", 100, "a\ufffdb\ufffdc\ufffdd"},
		"invalid UTF-8":            {"a\xff\xfeb", 100, "a\ufffd\ufffdb"},
		"a cut rune":               {"a\xe2\x80", 100, "a\ufffd\ufffd"},
		"a surrogate":              {"a\xed\xa0\x80b", 100, "a\ufffd\ufffd\ufffdb"},
		"a private character":      {"a\ue000b\U0010ffffc", 100, "a\ufffdb\ufffdc"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := prose.Line(test.text, test.limit); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestEnds(t *testing.T) {
	const sandbox = `Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox ` +
		`"5e0f8b7c6c0e4f4a8a3f0f3b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c7d": plugin type="calico" failed (add): ` +
		`error getting ClusterInformation: connection is unauthorized: Unauthorized`
	for name, test := range map[string]struct {
		text  string
		limit int
		want  string
	}{
		"fits":             {"exit 1: no such file", 100, "exit 1: no such file"},
		"exactly as long":  {"abcdef", 6, "abcdef"},
		"cut":              {"abcdefghijkl", 8, "abc…kl"},
		"cut within runes": {"aéé–––éé", 8, "aé…é"},
		"too little room":  {"abcdefghi", 4, "a…"},
		"nothing":          {"abc", 0, ""},
		"newlines":         {"first\nsecond", 100, "first second"},
		"a kubelet's reason": {sandbox, 100,
			"Failed to create pod sandbox: rpc error: code = U…mation: connection is unauthorized: Unauthorized"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := prose.Ends(test.text, test.limit); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestBothEndsOfALongTextAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, limit := texts().Draw(t, "text"), rapid.IntRange(0, 2000).Draw(t, "limit")
		line := prose.Ends(text, limit)
		if len(line) > limit || !utf8.ValidString(line) {
			t.Fatalf("%q has %d bytes, %d allowed", line, len(line), limit)
		}
		if line != prose.Line(line, limit) {
			t.Fatalf("%q is not one printable line", line)
		}
		whole := prose.Line(text, 4*len(text))
		if len(whole) <= limit && line != whole {
			t.Fatalf("got %q of %q, which fits", line, whole)
		}
		if head, tail, cut := strings.Cut(line, "…"); cut && limit > 20 && !strings.Contains(text, "…") &&
			(!strings.HasPrefix(whole, head) || !strings.HasSuffix(whole, tail)) {
			t.Fatalf("%q are not the ends of %q", line, whole)
		}
	})
}

// texts generates arbitrary texts.
func texts() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.StringOf(rapid.Rune()),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		rapid.Map(rapid.IntRange(0, 3000), func(n int) string { return strings.Repeat("–", n) }),
	)
}

func TestEveryLineIsBoundedAndPrintable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, limit := texts().Draw(t, "text"), rapid.IntRange(0, 2000).Draw(t, "limit")
		line := prose.Line(text, limit)
		if len(line) > limit || !utf8.ValidString(line) {
			t.Fatalf("%q has %d bytes, %d allowed", line, len(line), limit)
		}
		for _, r := range line {
			if r != ' ' && !unicode.IsPrint(r) {
				t.Fatalf("%q holds %U", line, r)
			}
		}
		if again := prose.Line(line, limit); again != line {
			t.Fatalf("%q becomes %q", line, again)
		}
	})
}

func TestEveryReasonIsOneThatTheAPITakes(t *testing.T) {
	// metav1.Condition's pattern.
	pattern := regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`)
	rapid.Check(t, func(t *rapid.T) {
		text := texts().Draw(t, "text")
		if got := prose.Reason(text); len(got) > prose.MaxReason || !pattern.MatchString(got) {
			t.Fatalf("%q becomes %q", text, got)
		}
	})
	for text, want := range map[string]string{
		"Stuck": "Stuck", "ErrImagePull": "ErrImagePull", "Two_Words": "Two_Words", "E2BIG": "E2BIG", "": "Unknown",
		"…":                     "Unknown",
		"image can't be pulled": "imagecantbepulled", "7up": "up", strings.Repeat("x", 500): strings.Repeat("x", 128),
		"Stuck\nReady": "StuckReady", "a_": "a", "DeadlineExceeded,": "DeadlineExceeded",
	} {
		if got := prose.Reason(text); got != want {
			t.Errorf("%.50q becomes %.50q, want %.50q", text, got, want)
		}
	}
}

func TestWhatFitsIsNotCopied(t *testing.T) {
	for _, text := range []string{"the sink of Fills has acknowledged nothing for 45s", "磁盘已满 – полон"} {
		if n := testing.AllocsPerRun(100, func() { _ = prose.Line(text, 200) }); n > 0 {
			t.Errorf("%q takes %v allocations", text, n)
		}
	}
}

func BenchmarkLine(b *testing.B) {
	text := strings.Repeat("node_order_statuses_streaming/hourly/20260430/20", 2)
	for b.Loop() {
		_ = prose.Line(text, 1024)
	}
}
