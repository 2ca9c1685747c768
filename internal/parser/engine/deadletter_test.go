package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"log/slog"

	"context"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

func (b *bench) deadLetters() string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.cfg.StateDir, "deadletter", "trades.jsonl"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	return string(data)
}

// alwaysDue is a clock by which a commit is due whenever it is read.
func alwaysDue() func() time.Time {
	var mu sync.Mutex
	now := time.Date(2026, 4, 30, 20, 0, 0, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(commitEvery)
		return now
	}
}

func TestBlankLinesAreCountedAndNotKept(t *testing.T) {
	block := func(n int) string {
		return fmt.Sprintf(`{"local_time":"2026-04-30T20:46:46.2","block_time":"2026-04-30T20:46:43.3",`+
			`"block_number":%d,"events":[%s]}`,
			n, trade(n))
	}
	for mode, line := range map[config.Mode]func(int) string{config.Line: trade, config.Streaming: block,
		config.ByBlock: block} {
		for title, test := range map[string]struct {
			line string
			kept bool
		}{
			"empty":                {"", false},
			"spaces":               {"   ", false},
			"tabs and returns":     {"\t \r", false},
			"a NUL":                {" \x00 ", true},
			"a form feed":          {"\f", true},
			"a space not in ASCII": {"\u00a0", true},
			"a word":               {"x", true},
		} {
			t.Run(string(mode)+" "+title, func(t *testing.T) {
				const blanks = 4000
				b := newBench(t, config.StreamConfig{Name: config.Trades, Mode: mode})
				directory := map[config.Mode]string{
					config.Line: "node_trades", config.Streaming: "node_trades_streaming", config.ByBlock: "node_trades_by_block",
				}[mode]
				b.node(directory+"/20260430/8", line(1)+"\n"+strings.Repeat(test.line+"\n", blanks)+line(2)+"\n")
				out := &memory{}
				e := b.engineOnce(out)
				if err := e.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				b.assertRecords(out.text(), trades(1, 3))
				if s := e.Streams()[0]; s.MalformedTotal != blanks || s.LinesTotal != blanks+2 {
					t.Errorf("the report says %d malformed of %d lines", s.MalformedTotal, s.LinesTotal)
				}
				letters, logged := b.deadLetters(), strings.Count(b.logs.String(), "a blank line")
				if test.kept && (!strings.Contains(letters, `"count":`) || len(letters) > 4096 || logged != 0) || !test.kept &&
					(letters != "" || logged != 1) {
					t.Errorf("%d bytes are kept, and blank lines were logged %d times: %.500s", len(letters), logged, letters)
				}
			})
		}
	}
}

func (b *bench) engineOnce(out *memory) *Engine {
	b.cfg.Once = true
	return b.engine(out)
}

func TestAFullDeadLetterDropsItsOldestAndTheStreamContinues(t *testing.T) {
	b := newBench(t)
	b.now = alwaysDue()
	const files, lines, bound = 100, 30, 1 << 20
	for f := range files {
		var text strings.Builder
		for i := range lines {
			n := f*lines + i
			fmt.Fprintf(&text, "%s\nnot json %d %s\n", trade(n), n, strings.Repeat(".", 500))
		}
		b.node(fmt.Sprintf("node_trades/202604%02d/%d", 1+f/24, f%24), text.String())
	}
	out := &memory{}
	e := b.engineOnce(out)
	e.maxDead = bound
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(out.text(), trades(0, files*lines))
	s := e.Streams()[0]
	old, err := os.ReadFile(filepath.Join(b.cfg.StateDir, "deadletter", "trades.old.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	letters := b.deadLetters()
	if s.MalformedTotal != files*lines || s.DeadLetterDroppedTotal == 0 || s.DeadLetterDroppedTotal >= files*lines {
		t.Errorf("the report says %d malformed and %d dropped", s.MalformedTotal, s.DeadLetterDroppedTotal)
	}
	if n := strings.Count(letters+string(old), "not json"); int64(n)+s.DeadLetterDroppedTotal != files*lines {
		t.Errorf("%d are kept and %d dropped, of %d", n, s.DeadLetterDroppedTotal, files*lines)
	}
	if n := len(letters) + len(old); n > bound || !strings.Contains(letters, fmt.Sprintf("not json %d ", files*lines-1)) {
		t.Errorf("%d bytes are kept, ending with %s", n, letters[len(letters)-200:])
	}
	if !strings.Contains(letters[:300], `"dropped":`) || strings.Count(b.logs.String(), "the dead letter is full") != 1 {
		t.Errorf("the file or the log does not record it: %s\n%s", letters[:300], b.logs.String())
	}
}

// An outage of the dead letter's disk blocks the stream where it is, also when it appears with the commit. Nothing is
// delivered twice.
func TestAnOutageOfTheDeadLetterIsWaitedOut(t *testing.T) {
	for title, text := range map[string]string{
		"a run, which is written with the commit": trades(0, 10) + "not json\n",
		"entries, which are written immediately":  trades(0, 5) + "not json\n" + trades(5, 8) + "\x00\n" + trades(8, 10),
		"the last line, with nothing after it":    trades(0, 10) + "{\n",
	} {
		t.Run(title, func(t *testing.T) {
			b := newBench(t)
			b.node("node_trades/20260430/8", text)
			state := crashfs.New()
			var full atomic.Bool
			full.Store(true)
			state.Inject(func(op crashfs.Op) error {
				if full.Load() && strings.Contains(op.Name, "deadletter/") &&
					(op.Kind == crashfs.Write || op.Kind == crashfs.Create) {
					return syscall.ENOSPC
				}
				return nil
			})
			b.cfg.StateDir = "state"
			out := &memory{}
			r := b.startOn(out, state)
			s := r.until("waiting for the disk", func(s report.Stream) bool { return s.Sink.RetriesTotal >= 2 })
			if s.Sink.State != report.SinkRetrying || !strings.Contains(s.Sink.LastError, "no space left on device") ||
				waiting(&s) == 0 {
				t.Errorf("the report says %+v", s)
			}
			full.Store(false)
			r.until("delivery", func(s report.Stream) bool { return waiting(&s) == 0 && s.Sink.State == report.SinkHealthy })
			if _, err := r.stop(); err != nil {
				t.Fatal(err)
			}
			b.assertRecords(out.text(), trades(0, 10))
			if logs := b.logs.String(); strings.Contains(logs, "restarting") {
				t.Errorf("the stream returned to its checkpoint: %s", logs)
			}
		})
	}
}

func (b *bench) startOn(out *memory, state vfs.FS) *running {
	b.t.Helper()
	e, err := New(Options{Config: b.cfg.WithDefaults(2), Output: out, FS: state,
		Log: slog.New(slog.NewTextHandler(b.logs, nil))})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	r := &running{Engine: e, t: b.t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- r.Run(ctx) }()
	return r
}

func TestAnExcerptIsShortAndPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		`{"coin":"BTC"}`:                `{"coin":"BTC"}`,
		"a\nb\rc\td":                    `a\nb\rc\td`,
		"\x1b[31mred\x1b]0;t\x07":       `\x1b[31mred\x1b]0;t\a`,
		"\x00\x7f\u0085\u009b":          `\x00\x7f\u0085\u009b`,
		"ü\xff\xc3(":                    `ü\xff\xc3(`,
		"\u202eabc\u2066\u200b":         `\u202eabc\u2066\u200b`,
		"\ufffd":                        "\ufffd",
		strings.Repeat("x", 1000):       strings.Repeat("x", 200),
		strings.Repeat("ü", 1000):       strings.Repeat("ü", 200),
		strings.Repeat("\x00", 60):      strings.Repeat(`\x00`, 50),
		strings.Repeat("é", 199) + "\n": strings.Repeat("é", 199), // no half of an escape
	} {
		got := excerpt([]byte(in))
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzExcerpt(f *testing.F) {
	f.Add([]byte("\x1b[2J ü \xff"))
	f.Fuzz(func(t *testing.T, line []byte) {
		got := excerpt(line)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > 200 ||
			strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) && r != ' ' }) {
			t.Errorf("%q gives %q", line, got)
		}
	})
}

// The content of a line reaches the log only through an excerpt.
func TestALineIsLoggedAsAnExcerpt(t *testing.T) {
	b := newBench(t)
	secret := strings.Repeat("s", 180) + "\x1b[31m" + strings.Repeat("e", 300)
	b.node("node_trades/20260430/8", secret+"\n"+trade(0)+"\n")
	if err := b.once(nil); err != nil {
		t.Fatal(err)
	}
	logs := b.logs.String()
	if !strings.Contains(logs, "excerpt=") || strings.Contains(logs, "\x1b") ||
		strings.Contains(logs, strings.Repeat("e", 20)) {
		t.Errorf("got %s", logs)
	}
}
