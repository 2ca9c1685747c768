package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/secret"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/tail"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// destination is an output whose Open the test controls.
type destination struct {
	*memory
	mu     sync.Mutex
	open   func(ctx context.Context) error // nil: it succeeds
	states []string                        // the states passed to Open
}

func (d *destination) Open(ctx context.Context, _ string, state json.RawMessage) (sink.Sink, error) {
	d.mu.Lock()
	d.states = append(d.states, string(state))
	open := d.open
	d.mu.Unlock()
	if open != nil {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	return d.memory, nil
}

func (d *destination) set(open func(context.Context) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = open
}

func (d *destination) openStates() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.states)
}

func failsWith(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// hangs blocks until the context ends or release is closed.
func hangs(release <-chan struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// clock is a running clock that can be set ahead.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// growingSource is a tailer whose version changes when a file has grown.
type growingSource struct{ source }

func (g growingSource) Version() uint64 {
	t := g.Stats()
	return g.source.Version() + uint64(t.Unread+t.ReadBytes)
}

// checkpointed returns the newest checkpoint of trades, or nil if there is none.
func (b *bench) checkpointed() *checkpoint.State {
	b.t.Helper()
	loaded, err := checkpoint.Show(vfs.OS, b.cfg.StateDir, "trades")
	if err != nil {
		b.t.Fatal(err)
	}
	if !loaded.Found {
		return nil
	}
	return &loaded.State
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitTimeout); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func lag(s *report.Stream) time.Duration {
	if s.LagSeconds == nil {
		return -1
	}
	return time.Duration(*s.LagSeconds * float64(time.Second))
}

const hour8, hour9 = "node_trades/20260430/8", "node_trades/20260430/9"

func TestTheBacklogIsKnownWhileTheSinkIsNotOpen(t *testing.T) {
	release := make(chan struct{})
	away := fmt.Errorf("the output directory /out: %w", vfs.ErrLocked)
	for name, c := range map[string]struct {
		open        func(context.Context) error
		state       report.SinkState
		outstanding bool
		message     string
		secret      string
	}{
		"it refuses": {open: failsWith(errors.New("connection refused")), state: report.SinkRetrying,
			message: "waiting for the sink to open: connection refused"},
		"it hangs": {open: hangs(release), state: report.SinkHealthy, outstanding: true,
			message: "waiting for the sink to open"},
		"a secret is missing": {
			open:  failsWith(&secret.Error{Path: "/secrets/creds", Err: errors.New("no such file")}),
			state: report.SinkRetrying, message: "waiting for the sink to open: secret file /secrets/creds: no such file",
			secret: "/secrets/creds",
		},
		"another parser holds it": {open: failsWith(away), state: report.SinkHealthy,
			message: "waiting for another parser to exit: the output directory /out: locked by another"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, at := newBench(t), &clock{}
			b.now = at.now
			b.node(hour8, trades(0, 100))
			out := &destination{memory: &memory{}, open: c.open}
			r := b.start(out)
			r.until("the backlog is known", func(s report.Stream) bool {
				return waiting(&s) == int64(len(trades(0, 100))) && s.Sink.State == c.state && s.Message == c.message &&
					(!c.outstanding || s.Sink.OutstandingSeconds > 0)
			})
			at.advance(time.Minute)
			b.node(hour8, trades(100, 120))
			s := r.until("the backlog grows", func(s report.Stream) bool { return waiting(&s) == int64(len(trades(0, 120))) })
			if s.State != report.Running || lag(&s) < time.Minute || s.ReadBytesTotal != 0 || s.Sink.MissingSecret != c.secret {
				t.Errorf("the report says %+v", s)
			}
			if got := s.Sink.OutstandingSeconds >= 60; got != c.outstanding {
				t.Errorf("a request is outstanding for %v s", s.Sink.OutstandingSeconds)
			}
			if r.Ready() {
				t.Error("the parser is ready before its sink is open")
			}
			// What is lost meanwhile is counted.
			b.node(hour9, trades(120, 130))
			if err := os.Remove(filepath.Join(b.cfg.DataDir, "node_trades/hourly/20260430/8")); err != nil {
				t.Fatal(err)
			}
			r.until("the loss", func(s report.Stream) bool {
				return s.PrunedUnreadTotal == 1 && s.SkippedBytesTotal == int64(len(trades(0, 120))) &&
					waiting(&s) == int64(len(trades(120, 130)))
			})
			out.set(nil)
			if c.outstanding {
				close(release)
			}
			s = r.until("delivery", func(s report.Stream) bool { return s.DeliveredTotal == 10 && waiting(&s) == 0 })
			if s.Message != "" || s.Sink.State != report.SinkHealthy || !r.Ready() || lag(&s) != 0 || s.PrunedUnreadTotal != 1 {
				t.Errorf("the report says %+v", s)
			}
			if _, err := r.stop(); err != nil {
				t.Fatal(err)
			}
			b.assertRecords(out.text(), trades(120, 130))
			if n := b.opened.Load(); n != 1 {
				t.Errorf("the tailer was opened %d times", n)
			}
			if logged := strings.Count(b.logs.String(), "another parser uses the sink's destination"); logged != 0 &&
				logged != 1 {
				t.Errorf("waiting for another parser is logged %d times", logged)
			}
		})
	}
}

// crash copies the state directory as it is now, and makes the bench continue with the copy.
func (b *bench) crash() {
	b.t.Helper()
	to := b.t.TempDir()
	if err := os.CopyFS(filepath.Join(to, "state"), os.DirFS(b.cfg.StateDir)); err != nil {
		b.t.Fatal(err)
	}
	b.cfg.StateDir = filepath.Join(to, "state")
}

func TestThePositionAndBacklogOfAnOutageSurviveACrash(t *testing.T) {
	b := newBench(t)
	b.cfg.Engine.StartAt = config.End
	b.source = func(inner source) source { return growingSource{inner} }
	b.node(hour8, trades(0, 10))
	for round := range 3 {
		r := b.start(&destination{memory: &memory{}, open: failsWith(errors.New("connection refused"))})
		from, to := 10+10*round, 20+10*round
		eventually(t, "the decision on disk", func() bool { return b.checkpointed() != nil })
		b.node(hour8, trades(from, to))
		eventually(t, "what was seen on disk",
			func() bool { return b.checkpointed().Files[0].Size == int64(len(trades(0, to))) })
		b.crash() // nothing that is done after this counts
		if _, err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if f := b.checkpointed().Files[0]; f.Offset != int64(len(trades(0, 10))) {
		t.Errorf("the end was decided a second time: at %d", f.Offset)
	}
	out := &memory{}
	if err := b.once(out); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(out.text(), trades(10, 40))
}

func TestTheSinksStateIsKeptVerbatimDuringAnOutage(t *testing.T) {
	b := newBench(t)
	b.source = func(inner source) source { return growingSource{inner} }
	b.node(hour8, trades(0, 10))
	known := &memory{state: json.RawMessage(`{"part":"7"}`)}
	if err := b.once(known); err != nil {
		t.Fatal(err)
	}
	out := &destination{memory: known, open: failsWith(errors.New("connection refused"))}
	r := b.start(out)
	b.node(hour8, trades(10, 20))
	eventually(t, "what was seen on disk",
		func() bool { return b.checkpointed().Files[0].Size == int64(len(trades(0, 20))) })
	if got := b.checkpointed(); string(got.Sink) != `{"part":"7"}` || got.Files[0].Offset != int64(len(trades(0, 10))) {
		t.Errorf("the checkpoint is %+v with %s", got, got.Sink)
	}
	out.set(nil)
	r.until("delivery", func(s report.Stream) bool { return waiting(&s) == 0 })
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for i, state := range out.openStates() {
		if state != `{"part":"7"}` {
			t.Errorf("attempt %d to open was given %q", i, state)
		}
	}
}

func TestProgressIsSavedOncePerCommitEveryAndNotWhenIdle(t *testing.T) {
	b, at := newBench(t), &clock{}
	b.now = func() time.Time { return time.Unix(1777582003, at.ahead.Load()) }
	b.source = func(inner source) source { return growingSource{inner} }
	b.node(hour8, trades(0, 10))
	e := b.engine(&memory{})
	var err error
	if e.state, err = e.acquire(t.Context(), func() {}, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	p := e.pipelines[0]
	a, err := p.openPosition()
	if err != nil {
		t.Fatal(err)
	}
	watching, stop := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() { watched <- a.tail.Watch(watching) }()
	lines := 10
	for i, step := range []struct {
		grows  bool
		passed time.Duration
		saves  bool
	}{
		{false, 0, true}, {false, time.Minute, false}, {true, time.Minute, true}, {true, commitEvery - 1, false},
		{false, 1, true},
		{false, commitEvery, false}, {true, -time.Hour, true}, {true, commitEvery, true}, {false, time.Hour, false},
	} {
		if step.grows {
			b.node(hour8, trades(lines, lines+1))
			lines++
			eventually(t, "the growth", func() bool { s := p.report(); return waiting(&s) == int64(len(trades(0, lines))) })
		}
		var before uint64
		if c := b.checkpointed(); c != nil {
			before = c.Sequence
		}
		at.advance(step.passed)
		a.saveProgressIfDue()
		if c := b.checkpointed(); (c.Sequence != before) != step.saves {
			t.Errorf("step %d: checkpoint %d after %d", i, c.Sequence, before)
		}
	}
	stop()
	if err := <-watched; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := errors.Join(a.close(), e.state.close(false)); err != nil {
		t.Fatal(err)
	}
}

// TestProgressIsSavedDuringAStall puts an outage or a hang at every place where a stream may wait for its sink.
func TestProgressIsSavedDuringAStall(t *testing.T) {
	away := errors.New("connection refused")
	for _, hang := range []bool{false, true} {
		for name, place := range map[string]func(stall func(context.Context) error) *destination{
			"opening": func(stall func(context.Context) error) *destination {
				return &destination{memory: &memory{}, open: stall}
			},
			"writing": func(stall func(context.Context) error) *destination {
				return &destination{memory: &memory{write: stall}}
			},
			"flushing": func(stall func(context.Context) error) *destination {
				return &destination{memory: &memory{flush: func(int) error { return stall(t.Context()) }}}
			},
			"syncing": func(stall func(context.Context) error) *destination {
				return &destination{memory: &memory{sync: stall}}
			},
		} {
			t.Run(fmt.Sprintf("%s, hangs: %v", name, hang), func(t *testing.T) {
				t.Parallel()
				var down atomic.Bool
				defer down.Store(false)
				stall := func(ctx context.Context) error {
					switch {
					case !down.Load():
						return nil
					case !hang:
						return away
					}
					for down.Load() && ctx.Err() == nil {
						time.Sleep(time.Millisecond)
					}
					return ctx.Err()
				}
				b := newBench(t)
				b.source = func(inner source) source { return growingSource{inner} }
				out := place(stall)
				b.node(hour8, trades(0, 10))
				down.Store(name == "opening")
				r := b.start(out)
				delivered := trades(0, 10)
				if name == "opening" {
					delivered = ""
					r.until("the backlog", func(s report.Stream) bool { return waiting(&s) == int64(len(trades(0, 10))) })
				} else {
					r.until("delivery", func(s report.Stream) bool { return s.DeliveredTotal == 10 && waiting(&s) == 0 })
					down.Store(true)
				}
				b.node(hour8, trades(10, 20))
				r.until("the stall", func(s report.Stream) bool {
					return s.Sink.State == report.SinkRetrying || s.Sink.OutstandingSeconds > 0 || name == "syncing" &&
						s.DeliveredTotal == 20
				})
				before, began := b.checkpointed(), time.Now()
				for i := 20; i < 40; i++ { // more often than it may be saved
					b.node(hour8, trades(i, i+1))
					time.Sleep(50 * time.Millisecond) // the node's pace
				}
				all := trades(0, 40)
				eventually(t, "what was seen on disk", func() bool {
					now := b.checkpointed()
					return now != nil && len(now.Files) == 1 && now.Files[0].Size == int64(len(all))
				})
				now := b.checkpointed()
				if got := now.Files[0].Offset; got != int64(len(delivered)) {
					t.Errorf("the checkpoint continues at %d; %d bytes were committed", got, len(delivered))
				}
				if before != nil {
					most := uint64(time.Since(began)/commitEvery) + 2
					if n := now.Sequence - before.Sequence; n > most {
						t.Errorf("%d checkpoints in %s", n, time.Since(began))
					}
				}
				down.Store(false)
				r.until("everything", func(s report.Stream) bool { return s.DeliveredTotal == 40 && waiting(&s) == 0 })
				if _, err := r.stop(); err != nil {
					t.Fatal(err)
				}
				b.assertRecords(out.text(), all)
				if got := b.checkpointed().Files[0].Offset; got != int64(len(all)) {
					t.Errorf("the last checkpoint continues at %d of %d", got, len(all))
				}
			})
		}
	}
}

// The state of blocks belongs to the positions and the sink's state that are saved with it.
func TestTheDedupStateIsKeptDuringAnOutage(t *testing.T) {
	for _, directory := range []string{"node_trades_by_block", "node_trades_streaming"} {
		t.Run(directory, func(t *testing.T) {
			t.Parallel()
			b, file := newBench(t), directory+"/20260430/8"
			b.cfg.Engine.DeduplicateBlocks = true
			b.source = func(inner source) source { return growingSource{inner} }
			var down atomic.Bool
			out := &destination{memory: &memory{write: func(context.Context) error {
				if down.Load() {
					return errors.New("connection refused")
				}
				return nil
			}}}
			known := func() string {
				state := b.checkpointed()
				text, err := json.Marshal(struct {
					LastBlock int64
					Blocks    *checkpoint.Blocks
				}{state.LastBlock, state.Blocks})
				if err != nil {
					t.Fatal(err)
				}
				return string(text)
			}
			b.node(file, envelope(5, 0, 2))
			r := b.start(out)
			r.until("delivery", func(s report.Stream) bool { return s.DeliveredTotal == 2 && waiting(&s) == 0 })
			committed := known()
			if !strings.Contains(committed, `"orders":[`) {
				t.Fatalf("a commit records %s", committed)
			}
			down.Store(true)
			b.node(file, envelope(6, 0, 2))
			r.until("the outage", func(s report.Stream) bool { return s.Sink.State == report.SinkRetrying })
			b.node(file, envelope(7, 0, 2))
			all := int64(len(envelope(5, 0, 2) + envelope(6, 0, 2) + envelope(7, 0, 2)))
			eventually(t, "what waits on disk", func() bool { return b.checkpointed().Files[0].Size == all })
			if got := known(); got != committed {
				t.Errorf("in the outage the checkpoint records\n%s\nbefore it\n%s", got, committed)
			}
			if _, err := r.stop(); err != nil {
				t.Fatal(err)
			}
			down.Store(false)
			b.node(file, envelope(5, 0, 2)+envelope(6, 0, 2)+envelope(7, 0, 2)+envelope(8, 0, 1))
			if err := b.once(out); err != nil {
				t.Fatal(err)
			}
			b.assertRecords(out.text(), events(5, 0, 2)+events(6, 0, 2)+events(7, 0, 2)+events(8, 0, 1))
		})
	}
}

func TestProgressIsSavedWhenAStalledStreamStops(t *testing.T) {
	for name, out := range map[string]*destination{
		"before its sink is open":         {memory: &memory{}, open: failsWith(errors.New("connection refused"))},
		"while opening hangs":             {memory: &memory{}, open: hangs(nil)},
		"while the sink takes no records": {memory: &memory{write: hangs(nil)}},
	} {
		t.Run(name, func(t *testing.T) {
			b, at := newBench(t), &clock{}
			b.now = func() time.Time { return time.Unix(1777582003, at.ahead.Load()) } // no commit is due while it runs
			b.source = func(inner source) source { return growingSource{inner} }
			b.node(hour8, trades(0, 10))
			r := b.start(out)
			r.until("the backlog", func(s report.Stream) bool { return waiting(&s) == int64(len(trades(0, 10))) })
			eventually(t, "a first checkpoint", func() bool { return b.checkpointed() != nil })
			b.node(hour8, trades(10, 20))
			r.until("the growth", func(s report.Stream) bool { return waiting(&s) == int64(len(trades(0, 20))) })
			if _, err := r.stop(); err != nil {
				t.Fatal(err)
			}
			if f := b.checkpointed().Files[0]; f.Offset != 0 || f.Size != int64(len(trades(0, 20))) {
				t.Errorf("the checkpoint has %+v", f)
			}
		})
	}
}

func TestUncommittedPositionsAreNotKept(t *testing.T) {
	file := func(hour int, inode uint64, generation string, offset, size int64) checkpoint.File {
		return checkpoint.File{
			FileID: position.FileID{Directory: "node_trades", Date: "20260430", Hour: hour, Generation: generation},
			Inode:  inode, Offset: offset, Size: size, Marker: checkpoint.Hash{At: offset},
		}
	}
	for name, c := range map[string]struct {
		saved, seen, want []checkpoint.File
		all               bool
	}{
		"nothing happened": {[]checkpoint.File{file(8, 1, "a", 5, 5)}, []checkpoint.File{file(8, 1, "a", 5, 5)},
			[]checkpoint.File{file(8, 1, "a", 5, 5)}, true},
		"a file grew": {[]checkpoint.File{file(8, 1, "a", 5, 5)}, []checkpoint.File{file(8, 1, "a", 5, 9)},
			[]checkpoint.File{file(8, 1, "a", 5, 9)}, true},
		"a file was read and grew": {[]checkpoint.File{file(8, 1, "a", 5, 5)}, []checkpoint.File{file(8, 1, "a", 7, 9)},
			[]checkpoint.File{file(8, 1, "a", 5, 9)}, false},
		"an empty file was read": {[]checkpoint.File{file(8, 1, "", 0, 0)}, []checkpoint.File{file(8, 1, "a", 7, 9)},
			[]checkpoint.File{file(8, 1, "", 0, 9)}, false},
		"a new file waits": {nil, []checkpoint.File{file(9, 2, "b", 0, 9)},
			[]checkpoint.File{file(9, 2, "b", 0, 9)}, true},
		"a new file was read": {nil, []checkpoint.File{file(9, 2, "b", 7, 9)}, nil, false},
		"a file is gone": {[]checkpoint.File{file(8, 1, "a", 5, 5), file(9, 2, "b", 0, 3)},
			[]checkpoint.File{file(9, 2, "b", 0, 3)}, []checkpoint.File{file(9, 2, "b", 0, 3)}, true},
		"a file shrank": {[]checkpoint.File{file(8, 1, "a", 5, 5)}, []checkpoint.File{file(8, 1, "c", 2, 2)},
			[]checkpoint.File{file(8, 1, "a", 5, 5)}, false},
		"a file was moved": {[]checkpoint.File{file(8, 1, "a", 5, 5)}, []checkpoint.File{file(9, 1, "a", 5, 7)},
			[]checkpoint.File{file(9, 1, "a", 5, 7)}, true},
		"a file was moved and read": {[]checkpoint.File{file(8, 1, "a", 5, 5)}, []checkpoint.File{file(9, 1, "a", 7, 7)},
			[]checkpoint.File{file(8, 1, "a", 5, 7)}, false},
		"a file has another inode": {[]checkpoint.File{file(8, 1, "a", 5, 5)}, []checkpoint.File{file(8, 2, "a", 7, 7)},
			[]checkpoint.File{file(8, 1, "a", 5, 7)}, false},
		"an inode is reused": {[]checkpoint.File{file(8, 1, "a", 5, 5)},
			[]checkpoint.File{file(8, 1, "a", 5, 5), file(9, 1, "b", 7, 7)}, []checkpoint.File{file(8, 1, "a", 5, 5)}, false},
		"a file was recreated": {[]checkpoint.File{file(8, 1, "a", 5, 5)}, []checkpoint.File{file(8, 3, "d", 0, 2)},
			[]checkpoint.File{file(8, 3, "d", 0, 2)}, true},
		"and read, at the same inode": {[]checkpoint.File{file(8, 1, "a", 5, 5)}, []checkpoint.File{file(8, 1, "d", 7, 9)},
			[]checkpoint.File{file(8, 1, "a", 5, 9)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, all := uncommitted(c.saved, c.seen)
			if !slices.EqualFunc(got, c.want, func(a, b checkpoint.File) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) ||
				all != c.all {
				t.Errorf("got  %+v, %v\nwant %+v, %v", got, all, c.want, c.all)
			}
		})
	}
}

func TestAFailedStreamContinuesToReportItsBacklog(t *testing.T) {
	broken := fmt.Errorf("%w: put the part back", sink.ErrFailed)
	for name, c := range map[string]struct {
		failing func(fail *atomic.Bool) *destination
	}{
		"when its sink is opened": {func(*atomic.Bool) *destination {
			return &destination{memory: &memory{},
				open: failsWith(broken)}
		}},
		"in the midst of its work": {func(fail *atomic.Bool) *destination {
			return &destination{memory: &memory{fail: func(int, sink.Batch) error {
				if fail.Load() {
					return broken
				}
				return nil
			}}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, at := newBench(t, config.StreamConfig{Name: config.Trades}, config.StreamConfig{Name: config.Fills}), &clock{}
			b.now = at.now
			b.source = func(inner source) source { return growingSource{inner} }
			var fail atomic.Bool
			out := c.failing(&fail)
			r := b.start(sink.Routes(map[string]sink.Destination{
				"trades": {Kind: "a", Output: out}, "fills": {Kind: "b", Output: &memory{}},
			}))
			b.node(hour8, trades(0, 10))
			if out.open == nil {
				r.until("delivery", func(s report.Stream) bool { return s.DeliveredTotal == 10 && waiting(&s) == 0 })
			}
			fail.Store(true)
			b.node(hour8, trades(10, 20))
			r.until("failing", func(s report.Stream) bool { return s.State == report.Failed })
			done := int64(10) * int64(len(trade(0))+1)
			if out.open != nil {
				done = 0
			}
			eventually(t, "another scan", func() bool { return b.opened.Load() == 3 })
			r.until("the backlog", func(s report.Stream) bool { return waiting(&s) == int64(len(trades(0, 20)))-done })
			at.advance(time.Hour)
			b.node(hour8, trades(20, 30))
			s := r.until("more of it", func(s report.Stream) bool { return waiting(&s) == int64(len(trades(0, 30)))-done })
			if s.State != report.Failed || s.Sink.State != report.SinkFailed || lag(&s) < time.Hour ||
				!strings.Contains(s.Message, "put the part back") {
				t.Errorf("the report says %+v", s)
			}
			if r.Ready() {
				t.Error("the parser is ready with a stream that has failed")
			}
			eventually(t, "what was seen on disk",
				func() bool { return b.checkpointed().Files[0].Size == int64(len(trades(0, 30))) })
			b.node(hour9, trades(30, 31))
			if err := os.Remove(filepath.Join(b.cfg.DataDir, "node_trades/hourly/20260430/8")); err != nil {
				t.Fatal(err)
			}
			r.until("the loss", func(s report.Stream) bool { return s.SkippedBytesTotal == int64(len(trades(0, 30)))-done })
			if _, err := r.stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestAParserWhoseStreamsHaveAllFailedEnds(t *testing.T) {
	for _, once := range []bool{false, true} {
		for streams := 1; streams <= 2; streams++ {
			b := newBench(t, []config.StreamConfig{{Name: config.Trades}, {Name: config.Fills}}[:streams]...)
			b.cfg.Once = once
			e := b.engine(&destination{memory: &memory{}, open: failsWith(sink.ErrFailed)})
			ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
			if err := e.Run(ctx); !errors.Is(err, ErrStreamsFailed) || ctx.Err() != nil {
				t.Errorf("once %v, %d streams: Run returned %v", once, streams, err)
			}
			cancel()
		}
	}
}

func TestOnceEndsWithAnErrorWhenOneStreamHasFailedAndTheOthersAreDone(t *testing.T) {
	b := newBench(t, config.StreamConfig{Name: config.Trades}, config.StreamConfig{Name: config.Fills})
	b.node(hour8, trades(0, 10))
	good := &memory{}
	err := b.once(sink.Routes(map[string]sink.Destination{
		"trades": {Kind: "a", Output: good}, "fills": {Kind: "b", Output: &destination{memory: &memory{},
			open: failsWith(sink.ErrFailed)}},
	}))
	if !errors.Is(err, ErrStreamsFailed) {
		t.Errorf("Run returned %v", err)
	}
	b.assertRecords(good.text(), trades(0, 10))
}

// undecided is a tailer whose start position is undecided until let is closed.
type undecided struct {
	source
	let  chan struct{}
	done chan struct{}
}

func (u *undecided) Decided() <-chan struct{} { return u.done }

func (u *undecided) Stats() tail.Stats {
	s := u.source.Stats()
	select {
	case <-u.done:
	default:
		s.Scanned = false
		s.Blocked = &tail.Blocked{Path: ".", Err: &os.PathError{Op: "open", Path: "/data", Err: syscall.EACCES},
			Since: time.Unix(1777582003, 0), Count: 1}
	}
	return s
}

func (u *undecided) Watch(ctx context.Context) error {
	go func() {
		select {
		case <-u.let:
			close(u.done)
		case <-ctx.Done():
		}
	}()
	return u.source.Watch(ctx)
}

func (u *undecided) Run(ctx context.Context) error {
	select {
	case <-u.done:
	default:
		return fmt.Errorf("%w\n.: permission denied", tail.ErrUnread)
	}
	return u.source.Run(ctx)
}

func TestNothingIsReadOrCommittedBeforeThePositionIsDecided(t *testing.T) {
	b := newBench(t)
	let := make(chan struct{})
	b.source = func(inner source) source { return &undecided{source: inner, let: let, done: make(chan struct{})} }
	b.node(hour8, trades(0, 10))
	out := &destination{memory: &memory{}}
	r := b.start(out)
	eventually(t, "opening the sink", func() bool { return len(out.openStates()) == 1 })
	r.until("waiting", func(s report.Stream) bool { return strings.Contains(s.Message, "where reading begins") })
	time.Sleep(2 * commitEvery) // what must not happen would happen within this time
	s := r.Streams()[0]
	if s.State != report.Blocked || s.Blocked.Errno != "EACCES" || s.UncommittedBytes != nil || s.LagSeconds != nil ||
		s.ReadBytesTotal != 0 {
		t.Errorf("the report says %+v", s)
	}
	if b.checkpointed() != nil || r.Ready() || out.text() != "" {
		t.Error("something was committed, written or reported ready before the start position was decided")
	}
	close(let)
	s = r.until("delivery", func(s report.Stream) bool { return s.DeliveredTotal == 10 && waiting(&s) == 0 })
	if s.State != report.Running || s.Blocked != nil || s.Message != "" || !r.Ready() {
		t.Errorf("the report says %+v", s)
	}
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestOnceEndsWhenTheStartPositionCannotBeDecided(t *testing.T) {
	b := newBench(t)
	b.source = func(inner source) source { return &undecided{source: inner, done: make(chan struct{})} }
	if err := b.once(&memory{}); !errors.Is(err, ErrStreamsFailed) {
		t.Errorf("Run returned %v", err)
	}
	if logs := b.logs.String(); strings.Count(logs, "level=ERROR") != 1 || !strings.Contains(logs, "permission denied") {
		t.Errorf("the log says %s", logs)
	}
	if b.checkpointed() != nil {
		t.Error("something was committed before the start position was decided")
	}
}

// partialSource is a tailer that reads what it can and reports what it could not read.
type partialSource struct {
	source
	unread []string
}

func (p partialSource) Run(ctx context.Context) error {
	if err := p.source.Run(ctx); err != nil {
		return err
	}
	return fmt.Errorf("%w\n%s", tail.ErrUnread, strings.Join(p.unread, "\n"))
}

func TestOnceDeliversWhatItCanReadAndLogsEachItemThatItCannot(t *testing.T) {
	b := newBench(t)
	b.node(hour8, trades(0, 10))
	b.source = func(inner source) source {
		return partialSource{inner, []string{"node_trades/hourly/20260430/9: permission denied",
			"node_trades/hourly/20260429: input/output error"}}
	}
	if err := b.once(nil); !errors.Is(err, ErrStreamsFailed) {
		t.Errorf("Run returned %v", err)
	}
	b.assertRecords(b.delivered("trades"), trades(0, 10))
	entries, err := os.ReadDir(filepath.Join(b.dir, "out/trades"))
	if err != nil || len(entries) != 1 || !strings.HasSuffix(entries[0].Name(), ".jsonl") {
		t.Errorf("what was delivered is left open: %v, %v", entries, err)
	}
	logs := b.logs.String()
	if strings.Count(logs, "level=ERROR") != 2 || !strings.Contains(logs, "20260430/9: permission denied") ||
		!strings.Contains(logs, "20260429: input/output error") {
		t.Errorf("the log says %s", logs)
	}
}

// vanishing is a tailer whose data directory disappears when gone is closed.
type vanishing struct {
	source
	gone <-chan struct{}
}

func (l vanishing) Watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- l.source.Watch(ctx) }()
	select {
	case <-l.gone:
		cancel()
		return errors.Join(tail.ErrDirectoryGone, <-ended)
	case err := <-ended:
		return err
	}
}

func TestADirectoryThatIsRemovedWhileTheSinkIsDownEndsTheProcess(t *testing.T) {
	for name, open := range map[string]func(context.Context) error{"hangs": hangs(nil),
		"refuses": failsWith(errors.New("connection refused"))} {
		t.Run(name, func(t *testing.T) {
			b, gone := newBench(t), make(chan struct{})
			b.source = func(inner source) source { return vanishing{inner, gone} }
			out := &destination{memory: &memory{}, open: open}
			r := b.start(out)
			eventually(t, "opening", func() bool { return len(out.openStates()) > 0 })
			close(gone)
			select {
			case err := <-r.done:
				if !errors.Is(err, tail.ErrDirectoryGone) {
					t.Errorf("Run returned %v", err)
				}
			case <-time.After(waitTimeout):
				t.Fatal("Run does not return")
			}
			r.cancel()
		})
	}
}

// blockedSource is a tailer that cannot read something.
type blockedSource struct {
	source
	blocked *tail.Blocked
}

func (b blockedSource) Stats() tail.Stats {
	s := b.source.Stats()
	s.Blocked, s.LagEstimated, s.PassedOver = b.blocked, true, 77
	return s
}

func TestWhatCannotBeReadIsReportedWhateverTheStreamDoes(t *testing.T) {
	since := time.Date(2026, 4, 30, 20, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		err  error
		want report.BlockedPath
	}{
		"an errno": {&os.PathError{Op: "open", Path: "/d/9", Err: syscall.EACCES},
			report.BlockedPath{Error: "open /d/9: permission denied", Errno: "EACCES"}},
		"one wrapped deep": {fmt.Errorf("reading: %w", &os.PathError{Op: "read", Path: "/d/9", Err: syscall.EIO}),
			report.BlockedPath{Error: "reading: read /d/9: input/output error", Errno: "EIO"}},
		"no errno": {errors.New("a link that leaves the data directory"),
			report.BlockedPath{Error: "a link that leaves the data directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.node(hour8, trades(0, 10))
			b.source = func(inner source) source {
				return blockedSource{inner, &tail.Blocked{Path: "node_trades/hourly/20260430/9", Err: c.err, Since: since,
					Count: 3}}
			}
			out := &destination{memory: &memory{write: hangs(nil)}}
			r := b.start(out)
			want := c.want
			want.Path, want.Since, want.Count = "node_trades/hourly/20260430/9", since, 3
			s := r.until("a request", func(s report.Stream) bool {
				return s.Sink.OutstandingSeconds > 0 &&
					s.InFlightLines == 10
			})
			if s.State != report.Blocked || s.Blocked == nil || *s.Blocked != want || !s.LagEstimated ||
				s.PassedOverBytesTotal != 77 {
				t.Errorf("the report says %+v, %+v", s, s.Blocked)
			}
			if message := "cannot read node_trades/hourly/20260430/9: " + want.Error + " (and 2 more)"; s.Message != message {
				t.Errorf("the message is %q; want %q", s.Message, message)
			}
			r.cancel()
			s = r.until("draining", func(s report.Stream) bool { return s.State != report.Blocked })
			if s.State != report.Draining || s.Blocked == nil {
				t.Errorf("while it drains the report says %+v", s)
			}
			if _, err := r.stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestSharesAreOfTheLastMinute(t *testing.T) {
	b := newBench(t)
	at := &clock{}
	start := time.Date(2026, 4, 30, 20, 0, 0, 0, time.UTC)
	b.now = func() time.Time { return start.Add(time.Duration(at.ahead.Load())) }
	b.cfg.Filter.Coins = []string{"BTC"}
	r := b.start(&memory{})
	near := func(p *float64, want float64) bool { return p != nil && *p > want-1e-9 && *p < want+1e-9 }
	if s := r.Streams()[0]; s.MalformedShare != nil || s.FilteredShare != nil {
		t.Errorf("there are shares without any lines: %v, %v", s.MalformedShare, s.FilteredShare)
	}
	b.node(hour8, trades(0, 6)+"no json\n{]\n"+strings.ReplaceAll(trades(6, 8), "BTC", "ETH"))
	r.until("both shares", func(s report.Stream) bool {
		return s.LinesTotal == 10 && near(s.MalformedShare, 0.2) && near(s.FilteredShare, 0.25) &&
			s.MalformedLinesTotal == 2 && s.FilteredTotal == 2
	})
	at.advance(50 * time.Second)
	b.node(hour8, trades(8, 18))
	r.until("a second bucket", func(s report.Stream) bool { return s.LinesTotal == 20 && near(s.MalformedShare, 0.1) })
	at.advance(15 * time.Second)
	s := r.Streams()[0]
	if !near(s.MalformedShare, 0) || !near(s.FilteredShare, 0) || s.MalformedLinesTotal != 2 {
		t.Errorf("the first bucket counts for more than a minute: %v, %v", *s.MalformedShare, *s.FilteredShare)
	}
	at.advance(time.Hour)
	if s := r.Streams()[0]; s.MalformedShare != nil || s.FilteredShare != nil {
		t.Error("there are shares after an hour without lines")
	}
	at.advance(-2 * time.Hour) // a clock that is set back
	b.node(hour8, "no json\n")
	r.until("a share by the clock that was set back", func(s report.Stream) bool { return near(s.MalformedShare, 1) })
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestALineWithSeveralMalformedEventsCountsOnce(t *testing.T) {
	const bad = `5`
	line := func(block int, events ...string) string {
		return fmt.Sprintf(`{"local_time":"l","block_time":"t","block_number":%d,"events":[%s]}`+"\n", block,
			strings.Join(events, ","))
	}
	long := make([]string, 0, 60_000) // enough that the line is cut into spans
	for i := range 60_000 {
		event := trade(i)
		if i%1000 == 0 {
			event = bad
		}
		long = append(long, event)
	}
	b := newBench(t, config.StreamConfig{Name: config.Trades, Mode: config.ByBlock})
	b.node("node_trades_by_block/20260430/8", line(1, trade(0))+line(2, bad, bad, trade(1))+line(3, bad)+
		line(4, long...)+line(5, trade(2)))
	b.cfg.Once = true
	e := b.engine(&memory{})
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := e.Streams()[0]; s.MalformedTotal != 63 || s.MalformedLinesTotal != 3 || s.LinesTotal != 5 {
		t.Errorf("%d malformed, in %d of %d lines", s.MalformedTotal, s.MalformedLinesTotal, s.LinesTotal)
	}
}

func TestTheLogReportsWhereAStreamBeginsAndEachMinuteThatItIsBehind(t *testing.T) {
	b, at := newBench(t), &clock{}
	b.now = at.now
	b.node(hour8, trades(0, 10))
	out := &destination{memory: &memory{}, open: failsWith(errors.New("connection refused"))}
	r := b.start(out)
	logged := func(what string) []string {
		var lines []string
		for line := range strings.Lines(b.logs.String()) {
			if strings.Contains(line, what) {
				lines = append(lines, line)
			}
		}
		return lines
	}
	eventually(t, "the first line", func() bool { return len(logged("the stream begins")) > 0 })
	first := logged("the stream begins")[0]
	for _, want := range []string{
		"stream=trades", "version=v1", "mode=Auto", "node_trades", "sink=file:" + b.dir + "/out", "node_trades/20260430/8@",
		fmt.Sprintf("behindBytes=%d", len(trades(0, 10))), "behindSeconds=0",
	} {
		if !strings.Contains(first, want) {
			t.Errorf("%q is missing in %s", want, first)
		}
	}
	r.until("retrying", func(s report.Stream) bool { return s.Sink.State == report.SinkRetrying })
	at.advance(29 * time.Second)
	r.until("another attempt", func(s report.Stream) bool { return s.Sink.RetriesTotal >= 5 })
	if n := len(logged("the stream is behind")); n != 0 {
		t.Errorf("29 s behind, it was logged %d times", n)
	}
	for minute := 1; minute <= 3; minute++ {
		at.advance(time.Minute)
		eventually(t, "a line", func() bool { return len(logged("the stream is behind")) == minute })
	}
	line := logged("the stream is behind")[2]
	if !strings.Contains(line, fmt.Sprintf("behindBytes=%d ", len(trades(0, 10)))) ||
		!strings.Contains(line, "waitsFor=\"waiting for the sink to open: connection refused\"") ||
		!strings.Contains(line, "behindSeconds=2") {
		t.Errorf("the line is %s", line)
	}
	out.set(nil)
	r.until("delivery", func(s report.Stream) bool { return waiting(&s) == 0 })
	at.advance(time.Hour)
	eventually(t, "some commits", func() bool { return out.calls() > 3 })
	if n, m := len(logged("the stream is behind")), len(logged("the stream begins")); n != 3 || m != 1 {
		t.Errorf("the log reports %d times that the stream is behind, and %d times that it begins", n, m)
	}
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestASinkIsDescribedWithoutItsCredentials(t *testing.T) {
	for want, s := range map[string]config.Sink{
		"stdout":                   {Stdout: &config.StdoutSink{}},
		"file:/o":                  {File: &config.FileSink{Path: "/o"}},
		"nats://a:4222,tls://b/HL": {NATS: &config.NATSSink{URL: "nats://user:hunter2@a:4222, tls://token@b", Stream: "HL"}},
		"kafka://a:1,b:2/hl.{stream}": {Kafka: &config.KafkaSink{
			Brokers: []string{"a:1", "b:2"}, Topic: "hl.{stream}", SASL: &config.KafkaSASL{PasswordFile: "/hunter2"},
		}},
	} {
		if got := describe(s); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
