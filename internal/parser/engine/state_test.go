package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// pruner deletes every file below a directory that was not written for age, as the pruners of Hyperliquid nodes do,
// until it is stopped.
func pruner(t *testing.T, dir string, age time.Duration) (deleted func() []string) {
	ctx, stop := context.WithCancel(t.Context())
	var pruned []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(age / 6)
		defer tick.Stop()
		for {
			pruned = append(pruned, prune(t, dir, age)...)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	deleted = func() []string { stop(); <-ended; return pruned }
	t.Cleanup(func() { deleted() })
	return deleted
}

// prune deletes the files that are at least as old as age; all of them if age is 0.
func prune(t *testing.T, dir string, age time.Duration) (pruned []string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && time.Since(info.ModTime()) >= age {
			pruned = append(pruned, path)
			err = os.Remove(path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	return pruned
}

// startTouching is bench.start with state files that are touched at this interval.
func (b *bench) startTouching(output sink.Output, touch time.Duration) *running {
	b.t.Helper()
	e, err := New(Options{
		Config: b.cfg.WithDefaults(2), Output: output, FS: vfs.PrivateOS, Log: slog.New(slog.NewTextHandler(b.logs, nil)),
		TouchEvery: touch,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	r := &running{Engine: e, t: b.t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- r.Run(ctx) }()
	return r
}

func delivered(n int64) func(report.Stream) bool {
	return func(s report.Stream) bool { return s.DeliveredTotal >= n && waiting(&s) == 0 }
}

// A pruner deletes what was not written for a second. It takes nothing of a running parser's state, whatever the sink:
// not of streams that are busy, idle, failed, or no longer configured. Restarts of the parser lose nothing and deliver
// nothing twice.
func TestAPrunerTakesNothingOfTheState(t *testing.T) {
	const age, touch = 1500 * time.Millisecond, 150 * time.Millisecond
	b := newBench(t, config.StreamConfig{Name: config.Trades}, config.StreamConfig{Name: config.Fills})
	b.cfg.Engine.StartAt = config.End
	b.node("node_trades/20260430/8", "")
	trade, others := &memory{}, &memory{}
	out := sink.Routes(map[string]sink.Destination{"trades": {Output: trade}, "fills": {Output: others}})
	r := b.startTouching(out, touch)
	r.until("a position", func(s report.Stream) bool { return r.Ready() })
	deleted := pruner(t, b.dir, age)
	n := 0
	write := func(lines int) {
		b.node("node_trades/20260430/8", trades(n, n+lines))
		n += lines
	}
	for round := range 3 {
		for range 5 { // busy
			write(10)
			time.Sleep(20 * time.Millisecond)
		}
		r.until("delivery", delivered(50))
		for idle := time.Now(); time.Since(idle) < 2*age; time.Sleep(touch) {
			for _, s := range r.Streams() {
				if s.State == report.Failed {
					t.Fatalf("round %d: %+v", round, s)
				}
			}
		}
		// The node's file was pruned; the node continues with another.
		if _, err := r.stop(); err != nil {
			t.Fatal(err)
		}
		write(5) // while no parser runs
		r = b.startTouching(out, touch)
		r.until("what was written meanwhile", delivered(5))
	}
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	pruned := deleted()
	if len(pruned) == 0 {
		t.Error("nothing was pruned, so the test proves nothing")
	}
	for _, name := range pruned {
		if strings.HasPrefix(name, b.cfg.StateDir) {
			t.Errorf("%s was pruned", name)
		}
	}
	b.assertRecords(trade.text(), trades(0, n))
}

// All state files are deleted while the parser is idle. They are restored within seconds.
func TestStateDeletedUnderAParserIsRestored(t *testing.T) {
	b := newBench(t)
	b.node("node_trades/20260430/8", trades(0, 10))
	out := &memory{}
	r := b.startTouching(out, 0)
	r.until("delivery", delivered(10))
	files := func() []string {
		var all []string
		err := filepath.WalkDir(b.cfg.StateDir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && !strings.HasSuffix(path, ".tmp") {
				all = append(all, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return all
	}
	before := files()
	for _, how := range []func() error{
		func() error { prune(t, b.cfg.StateDir, 0); return nil },
		func() (err error) {
			eventually(t, "a state directory that is deleted before the parser restores a file in it", func() bool {
				err = os.RemoveAll(b.cfg.StateDir)
				return !errors.Is(err, syscall.ENOTEMPTY)
			})
			return err
		},
	} {
		if err := how(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(waitTimeout); len(files()) < len(before); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the files were %q, and are %q\n%s", before, files(), b.logs)
			}
		}
	}
	if !strings.Contains(b.logs.String(), "parts of the state were deleted") {
		t.Errorf("nothing was logged:\n%s", b.logs)
	}
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	b.node("node_trades/20260430/8", trades(10, 20))
	if err := b.once(out); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(out.text(), trades(0, 20))
}

// A parser that lost its lock to another process ends, and writes nothing after that: no record, no checkpoint, no dead
// letter.
func TestALostLockEndsTheParserBeforeAnotherRecord(t *testing.T) {
	for name, text := range map[string]string{"idle": "", "busy": trades(10, 20), "malformed": "no JSON\n"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.node("node_trades/20260430/8", trades(0, 10))
			out := &memory{}
			r := b.startTouching(out, 0)
			r.until("delivery", delivered(10))
			lock := filepath.Join(b.cfg.StateDir, "lock")
			var other vfs.FileLock
			eventually(t, "a lock that is taken before the parser checks its own", func() bool { // it checks once a second
				if err := os.Remove(lock); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				var err error
				other, err = vfs.OS.TryLock(lock) // as an older parser does
				return err == nil
			})
			defer func() { _ = other.Close() }()
			before := snapshot(t, b.cfg.StateDir)
			b.node("node_trades/20260430/8", text)
			var err error
			select {
			case err = <-r.done:
			case <-time.After(waitTimeout):
				t.Fatal("the parser does not end")
			}
			if !errors.Is(err, vfs.ErrLockLost) || !strings.Contains(err.Error(), "another process has locked it since") {
				t.Errorf("Run returned %v", err)
			}
			b.assertRecords(out.text(), trades(0, 10))
			if after := snapshot(t, b.cfg.StateDir); after != before {
				t.Errorf("the state was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// snapshot returns the names and contents of all files.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %s\n", path, data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// The state is pruned while no parser runs. Its streams fail and say what to do, also after a restart, rather than
// begin at the end. A stream that is added starts, and a stream that an operator forgets starts as a new one.
func TestPrunedStateIsNeverTakenForANewStream(t *testing.T) {
	b := newBench(t)
	b.cfg.Engine.StartAt = config.End
	b.node("node_trades/20260430/8", trades(0, 10))
	b.node("node_fills/20260430/8", "")
	out := &memory{}
	if err := b.once(out); err != nil {
		t.Fatal(err)
	}
	b.node("node_trades/20260430/8", trades(10, 110))
	if pruned := prune(t, b.cfg.StateDir, 0); len(pruned) < 3 {
		t.Fatalf("only %q were pruned", pruned)
	}
	b.cfg.Streams = append(b.cfg.Streams, config.StreamConfig{Name: config.Fills})
	out = &memory{}
	both := sink.Routes(map[string]sink.Destination{"trades": {Output: out}, "fills": {Output: &memory{}}})
	for range 2 {
		r := b.startTouching(both, 0)
		s := r.until("the stream failing", func(s report.Stream) bool { return s.State == report.Failed })
		if !strings.Contains(s.Message, "checkpoint is lost") || !strings.Contains(s.Message, "hlparser checkpoint forget") {
			t.Errorf("the message is %s", s.Message)
		}
		deadline := time.Now().Add(waitTimeout)
		for ; r.Streams()[1].State != report.Running; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the stream that was added: %+v", r.Streams()[1])
			}
		}
		if _, err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if out.text() != "" {
		t.Errorf("%q was delivered", out.text())
	}
}

// Other users cannot read the state, and files of older parsers become private too.
func TestTheStateIsPrivate(t *testing.T) {
	b := newBench(t)
	files := func(do func(path string, mode fs.FileMode) error) (n int) {
		if err := filepath.WalkDir(b.cfg.StateDir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				n++
				err = do(path, info.Mode().Perm())
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for n := range 2 {
		b.node("node_trades/20260430/8", trades(0, 10)+"no JSON\n")
		r := b.startTouching(&memory{}, 0)
		r.until("delivery", delivered(10))
		if _, err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if count := files(func(path string, mode fs.FileMode) error {
			if mode != 0o600 {
				t.Errorf("run %d: %s has mode %v", n, path, mode)
			}
			return os.Chmod(path, 0o644) // as older parsers created it
		}); count < 5 {
			t.Errorf("there are only %d files", count)
		}
	}
}

// remembering is a destination that keeps a position.
type remembering struct{ memory }

func (m *remembering) Open(context.Context, string, json.RawMessage) (sink.Sink, error) {
	return m, nil
}

func (m *remembering) Remembers() bool { return len(m.text()) > 0 }

// The state directory is gone, and only the destination remembers the stream.
func TestADestinationThatKnowsTheStreamPreventsAFreshStart(t *testing.T) {
	b := newBench(t)
	b.cfg.Engine.StartAt = config.End
	b.node("node_trades/20260430/8", "")
	out := &remembering{}
	routed := sink.Routes(map[string]sink.Destination{"trades": {Output: out}})
	r := b.startTouching(routed, 0)
	r.until("a position", func(report.Stream) bool { return r.Ready() })
	b.node("node_trades/20260430/8", trades(0, 10))
	r.until("delivery", delivered(10))
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	b.node("node_trades/20260430/8", trades(10, 20))
	if err := os.RemoveAll(b.cfg.StateDir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r = b.startTouching(routed, 0)
		if err := <-r.done; !errors.Is(err, ErrStreamsFailed) {
			t.Fatalf("Run returned %v", err)
		}
		if s := r.Streams()[0]; s.State != report.Failed || !strings.Contains(s.Message,
			"the destination holds records of the stream") {
			t.Errorf("the report says %+v", s)
		}
	}
	b.assertRecords(out.text(), trades(0, 10))
	if err := checkpoint.Forget(vfs.PrivateOS, b.cfg.StateDir, "trades"); err != nil { // as the message says
		t.Fatal(err)
	}
	r = b.startTouching(routed, 0)
	r.until("a position", func(report.Stream) bool { return r.Ready() })
	b.node("node_trades/20260430/8", trades(20, 30))
	eventually(t, "delivery", func() bool { return len(out.text()) >= len(trades(0, 10)+trades(20, 30)) })
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(out.text(), trades(0, 10)+trades(20, 30))
}
