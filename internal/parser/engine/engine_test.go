package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/tail"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const waitTimeout = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a node's data directory and a parser's state directory, with helpers that run engines on them.
type bench struct {
	t    *testing.T
	dir  string
	cfg  config.Config
	logs *lockedBuffer
	now  func() time.Time // nil: time.Now
	// source wraps the tailer. Nil uses the tailer itself.
	source func(source) source
	opened atomic.Int64 // number of tailers created
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newBench(t *testing.T, streams ...config.StreamConfig) *bench {
	dir := t.TempDir()
	if len(streams) == 0 {
		streams = []config.StreamConfig{{Name: config.Trades}}
	}
	return &bench{t: t, dir: dir, logs: &lockedBuffer{}, cfg: config.Config{
		Target: "node-1", DataDir: filepath.Join(dir, "data"), StateDir: filepath.Join(dir, "state"),
		Streams: streams, Format: config.Raw, Sink: config.Sink{File: &config.FileSink{Path: filepath.Join(dir, "out")}},
		Engine:          config.Engine{StartAt: config.Beginning, Workers: 2},
		ShutdownTimeout: config.Duration{Duration: 2 * time.Second},
	}}
}

// node appends to an hour file, such as "node_trades/20260430/8".
func (b *bench) node(name, text string) {
	b.t.Helper()
	directory, rest, _ := strings.Cut(name, "/")
	path := filepath.Join(b.cfg.DataDir, directory, "hourly", rest)
	f, err := open(path)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		b.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.t.Fatal(err)
	}
}

func open(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

func trade(i int) string {
	return fmt.Sprintf(`{"coin":"BTC","side":"B","time":"2026-04-30T20:46:43.304461819","px":"76450.0","sz":"0.5","n":%d}`,
		i)
}

func trades(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(trade(i) + "\n")
	}
	return b.String()
}

func (b *bench) engine(output sink.Output) *Engine {
	b.t.Helper()
	cfg := b.cfg.WithDefaults(2)
	if err := cfg.Validate(); err != nil {
		b.t.Fatal(err)
	}
	if output == nil {
		f := cfg.Sink.File
		var err error
		output, err = file.New(b.t.Context(), vfs.OS, f.Path, file.Options{MaxBytes: int64(f.MaxSize),
			MaxAge: f.MaxAge.Duration}, func() {})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	e, err := New(Options{Config: cfg, Output: output, FS: vfs.OS, Log: slog.New(slog.NewTextHandler(b.logs, nil)),
		Now: b.now, Version: "v1", Sampler: &sampling.Sampler{}})
	if err != nil {
		b.t.Fatal(err)
	}
	tailer := e.newSource
	e.newSource = func(o tail.Options, buf *buffer.Buffer) source {
		b.opened.Add(1)
		if b.source == nil {
			return tailer(o, buf)
		}
		return b.source(tailer(o, buf))
	}
	return e
}

// running is a running engine.
type running struct {
	*Engine
	t      *testing.T
	cancel context.CancelFunc
	done   chan error
}

func (b *bench) start(output sink.Output) *running {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	r := &running{Engine: b.engine(output), t: b.t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- r.Run(ctx) }()
	return r
}

// stop stops the engine and returns what Run returned, and how long it took.
func (r *running) stop() (took time.Duration, err error) {
	r.t.Helper()
	began := time.Now()
	r.cancel()
	select {
	case err = <-r.done:
	case <-time.After(waitTimeout):
		r.t.Fatal("Run did not return")
	}
	return time.Since(began), err
}

// until waits for a stream's report to satisfy a condition.
func (r *running) until(what string, ok func(report.Stream) bool) report.Stream {
	r.t.Helper()
	for deadline := time.Now().Add(waitTimeout); ; {
		s := r.Streams()[0]
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s did not happen; the report: %+v", what, s)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// waiting returns the uncommitted bytes, or -1 if they are unknown.
func waiting(s *report.Stream) int64 {
	if s.UncommittedBytes == nil {
		return -1
	}
	return *s.UncommittedBytes
}

// once runs an engine to the end of what is on disk.
func (b *bench) once(output sink.Output) error {
	b.t.Helper()
	b.cfg.Once = true
	defer func() { b.cfg.Once = false }()
	ctx, cancel := context.WithTimeout(b.t.Context(), waitTimeout)
	defer cancel()
	return b.engine(output).Run(ctx)
}

// delivered returns the content of the file sink, in the order of file names.
func (b *bench) delivered(stream string) string {
	b.t.Helper()
	var all []byte
	root := filepath.Join(b.dir, "out", stream)
	entries, err := os.ReadDir(root)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(root, e.Name()))
		if err != nil {
			b.t.Fatal(err)
		}
		all = append(all, data...)
	}
	return string(all)
}

func (b *bench) assertRecords(got, want string) {
	b.t.Helper()
	if got != want {
		g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				b.t.Fatalf("record %d is %q; want %q", i, g[i], w[i])
			}
		}
		b.t.Fatalf("%d records; want %d", len(g)-1, len(w)-1)
	}
}

func TestOnceDeliversEveryLineInOrderCommitsAndEnds(t *testing.T) {
	b := newBench(t)
	b.node("node_trades/20260430/8", trades(0, 5000))
	b.node("node_trades/20260430/9", trades(5000, 9000)+`{"coin":"torn`)
	if err := b.once(nil); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(b.delivered("trades"), trades(0, 9000))
	loaded, err := checkpoint.Show(vfs.OS, b.cfg.StateDir, "trades")
	if err != nil || !loaded.Found {
		t.Fatalf("no checkpoint: %v", err)
	}
	for i, want := range []int{len(trades(0, 5000)), len(trades(5000, 9000))} {
		if got := loaded.State.Files[i].Offset; got != int64(want) {
			t.Errorf("file %d is committed to %d; want %d", i, got, want)
		}
	}
	// Another run has nothing to do and repeats nothing.
	if err := b.once(nil); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(b.delivered("trades"), trades(0, 9000))
}

// blocks writes n by-block lines with the given number of events each.
func blocks(b *bench, n, events int) {
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, `{"local_time":"l","block_time":"t","block_number":%d,"events":[`, 100+i)
		for j := range events {
			if j > 0 {
				lines.WriteByte(',')
			}
			lines.WriteString(trade(i*events + j))
		}
		lines.WriteString("]}\n")
	}
	b.node("node_trades_by_block/20260430/8", lines.String())
}

func TestParallelAndSequentialProcessingGiveTheSameBytes(t *testing.T) {
	t.Parallel()
	for _, mode := range []config.Mode{config.Line, config.ByBlock} {
		outputs := make([]string, 0, 4)
		for _, c := range []struct{ workers, threshold int }{{1, 1 << 30}, {2, 1}, {5, 1}, {16, 1}} {
			b := newBench(t, config.StreamConfig{Name: config.Trades, Mode: mode})
			b.cfg.Format = config.Enveloped
			b.cfg.Engine.Workers, b.cfg.Engine.ParallelThreshold = c.workers, c.threshold
			want := 0
			if mode == config.Line {
				b.node("node_trades/20260430/8", trades(0, 20_000))
				want = 20_000
			} else {
				blocks(b, 5, 1)
				blocks(b, 3, 9000) // lines of about 1 MB, cut at events
				want = 5 + 27_000
			}
			if err := b.once(nil); err != nil {
				t.Fatal(err)
			}
			out := b.delivered("trades")
			if got := strings.Count(out, "\n"); got != want {
				t.Fatalf("%s, %d workers: %d records; want %d", mode, c.workers, got, want)
			}
			outputs = append(outputs, out)
			if out != outputs[0] {
				b.assertRecords(out, outputs[0])
			}
		}
	}
}

func TestLinesThatArriveWhileABatchIsProcessedGoToTheNextOne(t *testing.T) {
	b := newBench(t)
	b.node("node_trades/20260430/8", trades(0, 10))
	slow := &memory{gate: make(chan struct{})}
	r := b.start(slow)
	r.until("the first batch in flight", func(s report.Stream) bool { return s.InFlightLines == 10 })
	b.node("node_trades/20260430/8", trades(10, 15))
	s := r.until("the next lines in the live buffer", func(s report.Stream) bool { return s.BufferLines == 5 })
	if s.InFlightLines != 10 || s.LastBatchLines != 10 {
		t.Errorf("while the batch is processed the report says %+v", s)
	}
	close(slow.gate)
	r.until("everything delivered", func(s report.Stream) bool { return s.DeliveredTotal == 15 })
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(slow.text(), trades(0, 15))
}

// memory is a sink that keeps its records in memory, and can be made to misbehave.
type memory struct {
	gate   chan struct{} // Write waits for it; nil: it does not wait
	deaf   bool          // while it waits it ignores its context
	fail   func(write int, b sink.Batch) error
	write  func(ctx context.Context) error // called first
	state  json.RawMessage                 // returned by every flush
	flush  func(call int) error
	sync   func(context.Context) error
	mu     sync.Mutex
	data   []byte
	before int // length of data when the sink was opened
	writes int

	flushes int
}

func (m *memory) Open(context.Context, string, json.RawMessage) (sink.Sink, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = len(m.data)
	return m, nil
}

func (m *memory) Committed(context.Context) error { return nil }
func (m *memory) Close() error                    { return nil }

func (m *memory) Delivered() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(bytes.Count(m.data[m.before:], []byte("\n")))
}

func (m *memory) Flush(context.Context, bool) (sink.Flushed, error) {
	m.mu.Lock()
	m.flushes++
	call := m.flushes
	m.mu.Unlock()
	if m.flush != nil {
		return sink.Flushed{}, m.flush(call)
	}
	return sink.Flushed{State: m.state, Sync: m.sync}, nil
}

// calls returns how often Flush was called.
func (m *memory) calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flushes
}

func (m *memory) Write(ctx context.Context, b sink.Batch) error {
	if m.write != nil {
		if err := m.write(ctx); err != nil {
			return err
		}
	}
	if m.gate != nil {
		if m.deaf {
			<-m.gate
		}
		select {
		case <-m.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if m.fail != nil {
		if err := m.fail(m.writes, b); err != nil {
			return err
		}
	}
	m.data = append(m.data, b.Data...)
	return nil
}

func (m *memory) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.data)
}

// limitOutputs makes slots deliver their output at a lower limit than the configuration allows.
func limitOutputs(e *Engine, limit int) {
	for _, p := range e.pipelines {
		for i := range p.slots {
			for j := range p.slots[i] {
				p.slots[i][j].out.Limit = limit
			}
		}
	}
}

func TestAPanicLosesOnlyTheLineThatCausesIt(t *testing.T) {
	for name, limit := range map[string]int{"in one piece": 0, "in pieces": 10_000, "line by line": 1} {
		t.Run(name, func(t *testing.T) { testPanic(t, limit) })
	}
}

// A kind of line on which the encoder always panics does not flood the log.
func TestPanicsAreLoggedOneByOneOnlyAtFirst(t *testing.T) {
	b := newBench(t)
	b.node("node_trades/20260430/8", trades(0, 200))
	out := &memory{}
	b.cfg.Once = true
	e := b.engine(out)
	workers := e.pipelines[0].codecs[hyperliquid.Directory(config.Trades, config.Line)].workers
	for i := range workers {
		workers[i] = func(*hyperliquid.Output, hyperliquid.Span, string) hyperliquid.Span { panic("an encoder's bug") }
	}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := e.Streams()[0]; s.MalformedTotal != 200 || s.LinesTotal != 200 {
		t.Errorf("the report says %d malformed of %d lines", s.MalformedTotal, s.LinesTotal)
	}
	if n := strings.Count(b.logs.String(), "the encoder panicked"); n != loggedMalformed {
		t.Errorf("%d panics are logged; want %d", n, loggedMalformed)
	}
}

func testPanic(t *testing.T, limit int) {
	b := newBench(t)
	b.node("node_trades/20260430/8", trades(0, 2000))
	out := &memory{}
	b.cfg.Once = true
	e := b.engine(out)
	for _, p := range e.pipelines {
		for i := range p.codecs[hyperliquid.Directory(config.Trades, config.Line)].workers {
			workers := p.codecs[hyperliquid.Directory(config.Trades, config.Line)].workers
			encode := workers[i]
			workers[i] = func(o *hyperliquid.Output, s hyperliquid.Span, name string) hyperliquid.Span {
				rest := encode(o, s, name)
				if bytes.Contains(s.Data, []byte(`"n":1234}`)) {
					panic("an encoder's bug")
				}
				return rest
			}
		}
	}
	limitOutputs(e, limit)
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(out.text(), trades(0, 1234)+trades(1235, 2000))
	letter, err := os.ReadFile(filepath.Join(b.cfg.StateDir, "deadletter", "trades.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(letter), `"panic"`) || strings.Count(string(letter), "\n") != 1 ||
		!strings.Contains(string(letter), `\"n\":1234`) {
		t.Errorf("the dead letter holds %s", letter)
	}
	if s := e.Streams()[0]; s.MalformedTotal != 1 || s.DeliveredTotal != 1999 || s.LinesTotal != 2000 {
		t.Errorf("the report says %d malformed, %d delivered, %d lines", s.MalformedTotal, s.DeliveredTotal, s.LinesTotal)
	}
}

// TestABlockThatFillsItsOutputManyTimesIsCommittedAsOne delivers lines in pieces, with an outage in the middle of one.
func TestABlockThatFillsItsOutputManyTimesIsCommittedAsOne(t *testing.T) {
	const events, blocksWritten = 500, 3
	for _, markers := range []bool{false, true} {
		b := newBench(t)
		blocks(b, blocksWritten, events)
		b.cfg.Engine.Markers, b.cfg.Engine.DeduplicateBlocks = markers, markers
		b.cfg.Once = true
		var out *memory
		perBlock, flushed := 0, 0
		out = &memory{
			fail: func(write int, batch sink.Batch) error {
				if write == 3 {
					return errors.New("an outage")
				}
				if len(batch.Data) > 2000 {
					t.Errorf("%d bytes are delivered in one batch", len(batch.Data))
				}
				perBlock = (strings.Count(string(out.data), "\n") + len(batch.Records)) % events
				return nil
			},
			flush: func(int) error {
				flushed++
				if perBlock != 0 {
					t.Errorf("a commit is made after event %d of a block", perBlock)
				}
				return nil
			},
		}
		e := b.engine(out)
		limitOutputs(e, 1000)
		if err := e.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.assertRecords(out.text(), trades(0, events*blocksWritten))
		if s := e.Streams()[0]; s.EventsTotal != events*blocksWritten || s.LinesTotal != blocksWritten || waiting(&s) != 0 ||
			flushed == 0 {
			t.Errorf("the report says %d events, %d lines, %d bytes uncommitted; %d commits", s.EventsTotal, s.LinesTotal,
				waiting(&s), flushed)
		}
		if s := e.Streams()[0]; s.ParsedBytesTotal != s.ReadBytesTotal || s.AckedBytesTotal != s.ReadBytesTotal {
			t.Errorf("the report says %d bytes read, %d parsed, %d acknowledged", s.ReadBytesTotal, s.ParsedBytesTotal,
				s.AckedBytesTotal)
		}
	}
}

func TestMalformedLinesAreCountedLoggedAndDeadLetteredAndNeverFatal(t *testing.T) {
	b := newBench(t)
	b.node("node_trades/20260430/8", trade(0)+"\n{\"coin\":\n\x00\x00\x00\n"+trade(1)+"\nnot json\n"+trade(2)+"\n")
	if err := b.once(nil); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(b.delivered("trades"), trades(0, 3))
	letter, err := os.ReadFile(filepath.Join(b.cfg.StateDir, "deadletter", "trades.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(letter), "\n"); n != 3 {
		t.Errorf("the dead letter has %d entries; want 3", n)
	}
	logs := b.logs.String()
	if !strings.Contains(logs, "malformed") || !strings.Contains(logs, fmt.Sprintf("offset=%d", len(trade(0))+1)) {
		t.Errorf("the log does not name the position: %s", logs)
	}
}

func TestADeadSinkBoundsMemoryAndDoesNotDelayTheShutdown(t *testing.T) {
	for name, deaf := range map[string]bool{"that honors its context": false, "that ignores its context": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Engine.BufferLimit = 4 << 20
			b.node("node_trades/20260430/8", trades(0, 100_000)) // 10 MB
			dead := &memory{gate: make(chan struct{}), deaf: deaf}
			r := b.start(dead)
			s := r.until("the reader waiting at the limit", func(s report.Stream) bool {
				return s.Sink.OutstandingSeconds > 0.5 && s.BufferBytes+s.InFlightBytes > 2<<20
			})
			if held := s.BufferBytes + s.InFlightBytes; held > 4<<20 {
				t.Errorf("%d bytes are held; the limit is 4 MiB", held)
			}
			if s.LagSeconds == nil || *s.LagSeconds == 0 || waiting(&s) != int64(len(trades(0, 100_000))) {
				t.Errorf("the report hides the backlog: %+v", s)
			}
			took, err := r.stop()
			if err != nil || took > 3*time.Second {
				t.Errorf("it stopped after %v with %v; want within the shutdown timeout of 2 s and no error", took, err)
			}
			if out := dead.text(); out != "" {
				t.Errorf("a sink that acknowledged nothing got %d bytes", len(out))
			}
			at, cancel := context.WithCancel(t.Context())
			cancel() // do not wait
			lock, err := checkpoint.Lock(at, vfs.OS, b.cfg.StateDir, func() {})
			if deaf != (err != nil) {
				t.Errorf("locking the state directory after the end: %v", err)
			}
			if err == nil {
				_ = lock.Close()
			}
			close(dead.gate)
			// What was not committed is delivered again, once the abandoned stream has released the state directory.
			// What was acknowledged this late may or may not be committed.
			alive := &memory{}
			if err := b.once(alive); err != nil {
				t.Fatal(err)
			}
			all, late, again := trades(0, 100_000), dead.text(), alive.text()
			if !strings.HasPrefix(all, late) || !strings.HasSuffix(all, again) || len(late)+len(again) < len(all) {
				t.Errorf("%d bytes acknowledged after the end and %d by the next run do not add up to the node's %d", len(late),
					len(again), len(all))
			}
			if !deaf && (late != "" || again != all) {
				t.Errorf("a sink that acknowledged nothing got %d bytes, and of %d only %d were delivered again", len(late),
					len(all), len(again))
			}
		})
	}
}

func TestAnOutageIsWaitedOutAndReported(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	down := true
	flaky := &memory{fail: func(int, sink.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return errors.New("connection refused")
		}
		return nil
	}}
	b.node("node_trades/20260430/8", trades(0, 100))
	r := b.start(flaky)
	s := r.until("retrying", func(s report.Stream) bool {
		return s.Sink.State == report.SinkRetrying &&
			s.Sink.RetriesTotal >= 2
	})
	if s.Sink.LastError != "connection refused" || s.DeliveredTotal != 0 || s.Sink.LastAckAt != nil {
		t.Errorf("the report says %+v", s.Sink)
	}
	mu.Lock()
	down = false
	mu.Unlock()
	r.until("delivery", func(s report.Stream) bool {
		return s.DeliveredTotal == 100 &&
			s.Sink.State == report.SinkHealthy
	})
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(flaky.text(), trades(0, 100))
}

func TestASinkThatCannotMakeItsRecordsDurableIsRetriedAndThenHealthyAgain(t *testing.T) {
	b := newBench(t)
	b.node("node_trades/20260430/8", trades(0, 10))
	full := &memory{}
	full.flush = func(call int) error {
		if call > 1 && call < 4 {
			return errors.New("no space left on device")
		}
		return nil
	}
	r := b.start(full)
	s := r.until("retrying", func(s report.Stream) bool { return s.Sink.State == report.SinkRetrying })
	if s.Sink.LastError != "no space left on device" {
		t.Errorf("the report says %+v", s.Sink)
	}
	r.until("committing", func(s report.Stream) bool { return s.Sink.State == report.SinkHealthy && waiting(&s) == 0 })
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(full.text(), trades(0, 10))
}

func TestARefusedRecordGoesToTheDeadLetterAndTheOthersAreDelivered(t *testing.T) {
	b := newBench(t)
	b.node("node_trades/20260430/8", trades(0, 50))
	picky := &memory{fail: func(_ int, batch sink.Batch) error {
		for i := range batch.Records {
			if r := string(batch.Record(i)); r == trade(7)+"\n" || r == trade(49)+"\n" || r == trade(0)+"\n" {
				return &sink.Refusal{Index: i, Reason: "too large"}
			}
		}
		return nil
	}}
	if err := b.once(picky); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(picky.text(), trades(1, 7)+trades(8, 49))
	letter, _ := os.ReadFile(filepath.Join(b.cfg.StateDir, "deadletter", "trades.jsonl"))
	if n := strings.Count(string(letter), "too large"); n != 3 {
		t.Errorf("the dead letter holds %s", letter)
	}
}

func TestASinkThatMayHaveLostRecordsIsReopenedFromTheCheckpoint(t *testing.T) {
	b := newBench(t)
	b.node("node_trades/20260430/8", trades(0, 100))
	unsure := &memory{fail: func(write int, _ sink.Batch) error {
		if write == 1 {
			return fmt.Errorf("%w: the disk forgot", sink.ErrReopen)
		}
		return nil
	}}
	if err := b.once(unsure); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(unsure.text(), trades(0, 100))
}

func TestThePositionIsCommittedOnlyWithWhatWasAcknowledged(t *testing.T) {
	b := newBench(t)
	b.node("node_trades/20260430/8", trades(0, 10_000))
	half := &memory{gate: make(chan struct{}, 2)}
	half.gate <- struct{}{}
	half.gate <- struct{}{}
	b.cfg.Engine.Workers = 1
	r := b.start(half)
	r.until("two writes acknowledged", func(s report.Stream) bool {
		return s.AckedBytesTotal > 0 &&
			s.Sink.OutstandingSeconds > 0.2
	})
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	loaded, err := checkpoint.Show(vfs.OS, b.cfg.StateDir, "trades")
	if err != nil {
		t.Fatal(err)
	}
	if got := loaded.State.Files[0].Offset; got != int64(len(half.text())) || got == 0 {
		t.Fatalf("committed to %d; %d bytes were acknowledged", got, len(half.text()))
	}
	rest := &memory{}
	if err := b.once(rest); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(half.text()+rest.text(), trades(0, 10_000))
}

func TestThePositionIsDecidedAndOnDiskBeforeTheFirstRecord(t *testing.T) {
	b := newBench(t)
	b.cfg.Engine.StartAt = config.End
	b.node("node_trades/20260430/8", trades(0, 10))
	dead := &memory{gate: make(chan struct{})}
	r := b.start(dead)
	r.until("a beginning", func(report.Stream) bool { return r.Ready() })
	b.node("node_trades/20260430/8", trades(10, 20))
	r.until("a batch in flight", func(s report.Stream) bool { return s.InFlightLines == 10 })
	// A crash now finds where End was, so that it is not decided a second time.
	loaded, err := checkpoint.Show(vfs.OS, b.cfg.StateDir, "trades")
	if err != nil || !loaded.Found || len(loaded.State.Files) != 1 ||
		loaded.State.Files[0].Offset != int64(len(trades(0, 10))) {
		t.Fatalf("the checkpoint is %+v, %v", loaded, err)
	}
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestALostCheckpointFailsItsStreamAloneAndSaysWhatToDo(t *testing.T) {
	b := newBench(t, config.StreamConfig{Name: config.Trades}, config.StreamConfig{Name: config.Fills})
	b.node("node_trades/20260430/8", trades(0, 10))
	fill := `["0xabc",{"coin":"BTC","px":"1","sz":"1"}]` + "\n"
	b.node("node_fills/20260430/8", fill)
	if err := b.once(nil); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(b.cfg.StateDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, "trades.") && strings.HasSuffix(path, ".json") {
			return os.WriteFile(path, []byte("{garbage"), 0o644)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b.node("node_trades/20260430/8", trades(10, 20))
	b.node("node_fills/20260430/8", fill)
	r := b.start(nil)
	s := r.until("the stream failing", func(s report.Stream) bool { return s.State == report.Failed })
	for deadline := time.Now().Add(waitTimeout); r.Streams()[1].DeliveredTotal == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("one stream's failure stops the other")
		}
	}
	if r.Ready() {
		t.Error("a parser is ready with a stream that has failed")
	}
	if s.UncommittedBytes != nil || s.LagSeconds != nil {
		t.Errorf("the backlog after a lost position is reported as known: %+v", s)
	}
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(b.delivered("trades"), trades(0, 10)) // the position was not guessed
	b.assertRecords(b.delivered("fills"), fill+fill)
	if !strings.Contains(s.Message, "back, or run") {
		t.Errorf("the message does not say what to do: %s", s.Message)
	}
}

func TestABatchIsLoggedWithItsSize(t *testing.T) {
	b := newBench(t)
	b.cfg.LogBatches = true
	b.node("node_trades/20260430/8", trades(0, 1174))
	if err := b.once(nil); err != nil {
		t.Fatal(err)
	}
	if want := "Processing batch snapshot: 1174 lines (buffer cleared)"; !strings.Contains(b.logs.String(), want) {
		t.Fatalf("%q is not in the log: %s", want, b.logs)
	}
}

func TestAMissingDataDirectoryIsWaitedForAndReported(t *testing.T) {
	b := newBench(t)
	out := &memory{}
	r := b.start(out)
	s := r.until("waiting", func(s report.Stream) bool { return r.Ready() && s.State == report.WaitingForData })
	if !strings.Contains(s.Message, "node_trades") {
		t.Errorf("the message is %q", s.Message)
	}
	// A crash now must not make the stream a new one. With startAt End a new stream would skip what appears meanwhile.
	if loaded, err := checkpoint.Show(vfs.OS, b.cfg.StateDir, "trades"); err != nil || !loaded.Found {
		t.Errorf("no checkpoint before the first file: %v", err)
	}
	b.node("node_trades/20260430/8", trades(0, 3))
	r.until("delivery", func(s report.Stream) bool { return s.DeliveredTotal == 3 && s.State == report.Running })
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestGapsAndRepeatsOfBlocksAreCounted(t *testing.T) {
	line := func(n int) string {
		return fmt.Sprintf(`{"local_time":"l","block_time":"t","block_number":%d,"events":[]}`+"\n", n)
	}
	b := newBench(t, config.StreamConfig{Name: config.Trades, Mode: config.ByBlock})
	b.node("node_trades_by_block/20260430/8", line(5)+line(6)+line(9)+line(9)+line(8)+line(10))
	b.cfg.Once = true
	e := b.engine(nil)
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := e.Streams()[0]; s.BlockGapsTotal != 2 || s.LastBlock != 10 || s.LinesTotal != 6 || s.DeliveredTotal != 0 {
		t.Errorf("gaps %d, last block %d, lines %d", s.BlockGapsTotal, s.LastBlock, s.LinesTotal)
	} else if s.CommittedBytesTotal != s.ReadBytesTotal || waiting(&s) != 0 {
		t.Errorf("a block without records must still advance the position: %+v", s)
	}
}

func TestRecordsOfRealNodeOutputAreTheEventsThatEncodingJSONFinds(t *testing.T) {
	root := os.Getenv("HLPARSER_SAMPLE_DATA")
	if root == "" {
		t.Skip("HLPARSER_SAMPLE_DATA is not set to the data directory of a real node")
	}
	seen := 0
	for _, stream := range config.Streams() {
		for _, mode := range []config.Mode{config.Line, config.Streaming, config.ByBlock} {
			var want strings.Builder
			files, err := filepath.Glob(filepath.Join(root, hyperliquid.Directory(stream, mode), "hourly", "*", "*"))
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(files)
			for _, name := range files {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				for line := range bytes.Lines(data) {
					if mode == config.Line {
						want.Write(line)
						continue
					}
					var block struct{ Events []json.RawMessage }
					if err := json.Unmarshal(line, &block); err != nil {
						t.Fatal(err)
					}
					for _, event := range block.Events {
						want.Write(append(event, '\n'))
					}
				}
			}
			if len(files) == 0 {
				continue
			}
			seen++
			b := newBench(t, config.StreamConfig{Name: stream, Mode: mode})
			b.cfg.DataDir = root
			if err := b.once(nil); err != nil {
				t.Fatal(err)
			}
			b.assertRecords(b.delivered(stream.Kebab()), want.String())
		}
	}
	if seen == 0 {
		t.Fatalf("%s holds no stream", root)
	}
}
