package sinktest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/engine"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const (
	engineStream = "trades"
	// engineBuffer is the smallest buffer that a parser can be configured with.
	engineBuffer = config.MinBufferLimit
	// engineBacklog is what the node writes during the outage: several times the permitted growth of the process.
	engineBacklog = 32 << 20
	engineGrowth  = 16 << 20
	engineFirst   = 100  // lines before the outage
	engineLine    = 2000 // bytes of each later line
)

// RunWithEngine runs the cases that need the engine in front of the sink, each with a new target. Cases run in
// parallel, except the one that measures the memory of the process.
func RunWithEngine(t *testing.T, target func(t *testing.T) Target) {
	const measured = "an outage is reported, bounds memory, and loses nothing"
	for _, c := range []struct {
		name string
		run  func(*parser)
	}{
		{measured, deadSink},
		{"a parser stops in time during an outage, and the next one delivers", stoppedWhileDead},
		{"a sink that does not answer shows as an outstanding request", hangingSink},
		{"a recreated destination is written to again", recreatedSink},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name != measured {
				t.Parallel()
			}
			p := newParser(t, target(t))
			t.Cleanup(p.process.end)
			c.run(p)
		})
	}
}

// parser is a node's data and the consecutive engines that deliver it.
type parser struct {
	t       *testing.T
	target  Target
	cfg     config.Config
	process *process
	lines   *stream // what the node has written; without a sink

	engine *engine.Engine
	cancel context.CancelFunc
	ended  chan error
}

func newParser(t *testing.T, target Target) *parser {
	dir := t.TempDir()
	p := &parser{t: t, target: target, process: newProcess(t, target)}
	p.cfg = config.Config{
		Target: "node-1", DataDir: filepath.Join(dir, "data"), StateDir: filepath.Join(dir, "state"), Format: config.Raw,
		Streams: []config.StreamConfig{{Name: config.Trades, Mode: config.Line}},
		// A NATS sink makes the engine decode coins, which any sink may need.
		Sink:            config.Sink{NATS: &config.NATSSink{URL: "nats://localhost", Stream: "unused"}},
		Engine:          config.Engine{StartAt: config.Beginning, Workers: 2, BufferLimit: engineBuffer},
		ShutdownTimeout: config.Duration{Duration: 2 * time.Second},
	}.WithDefaults(2)
	p.lines = &stream{p: p.process, name: engineStream}
	p.lines.layout.place = func(n int) (position.FileID, place) { return hour(8), place{offset: int64(n)} }
	p.lines.layout.coin = func(int) string { return "" }
	p.lines.layout.text = func(n int) []byte {
		return fmt.Appendf(nil,
			`{"coin":"BTC","side":"B","time":"2026-04-30T20:46:43.304461819","px":"76450.0","sz":"0.5","n":%d,"pad":"%s"}`,
			n, strings.Repeat("x", p.lines.size(n)))
	}
	p.lines.size = func(n int) int {
		if n < engineFirst {
			return 100
		}
		return engineLine
	}
	return p
}

// node appends n lines.
func (p *parser) node(n int) {
	p.t.Helper()
	path := filepath.Join(p.cfg.DataDir, "node_trades/hourly/20260430/8")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	for from := p.lines.next; n > 0; from = p.lines.next {
		chunk := min(n, 500)
		if _, err := f.Write(p.lines.batch(from, chunk).Data); err != nil {
			p.t.Fatal(err)
		}
		p.lines.next, n = from+chunk, n-chunk
	}
	if err := f.Close(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *parser) start() {
	p.t.Helper()
	output, err := p.target.Open()
	if err != nil {
		p.t.Fatalf("opening the output: %v", err)
	}
	output = sink.Routes(map[string]sink.Destination{engineStream: {Kind: "tested", Output: output}})
	p.engine, err = engine.New(engine.Options{
		Config: p.cfg, Output: output, FS: vfs.OS, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	p.cancel, p.ended = cancel, make(chan error, 1)
	p.t.Cleanup(cancel)
	go func() { p.ended <- p.engine.Run(ctx) }()
}

// wait waits until the engine has ended.
func (p *parser) wait(limit time.Duration) {
	p.t.Helper()
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Fatalf("the engine ended with %v", err)
		}
	case <-time.After(limit):
		p.t.Fatalf("the engine did not end within %v", limit)
	}
}

func (p *parser) stop() {
	p.t.Helper()
	p.cancel()
	p.wait(p.cfg.ShutdownTimeout.Duration + time.Second)
}

// until waits until the report satisfies a condition.
func (p *parser) until(what string, ok func(report.Stream) bool) report.Stream {
	p.t.Helper()
	for deadline := time.Now().Add(2 * recoveryTimeout); ; time.Sleep(5 * time.Millisecond) {
		s := p.engine.Streams()[0]
		if s.BufferBytes > int64(engineBuffer) {
			p.t.Fatalf("the buffer holds %d bytes, want at most %d", s.BufferBytes, engineBuffer)
		}
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s did not happen; the report: %+v", what, s)
		}
	}
}

func (p *parser) untilDelivered() {
	p.t.Helper()
	p.until("delivery of everything", func(s report.Stream) bool {
		return s.DeliveredTotal >= int64(p.lines.next) && s.Sink.State == report.SinkHealthy
	})
}

// finish runs a last parser to the end of the data and compares what consumers received.
func (p *parser) finish() {
	p.t.Helper()
	p.cfg.Once = true
	p.start()
	p.wait(2 * recoveryTimeout)
	p.lines.compare()
}

func deadSink(p *parser) {
	p.node(engineFirst)
	p.start()
	p.untilDelivered()
	began, before := time.Now(), heap()
	p.target.Outage(true)
	p.node(engineBacklog / engineLine)
	first := p.until("a report of the outage", func(s report.Stream) bool { return s.Sink.State == report.SinkRetrying })
	s := p.until("further attempts", func(s report.Stream) bool {
		return s.Sink.RetriesTotal >= 4 && s.BufferBytes >= int64(engineBuffer)/4
	})
	switch {
	case s.Sink.State != report.SinkRetrying || s.Sink.LastError == "":
		p.t.Fatalf("after %d attempts the reported state is %q, with the error %q", s.Sink.RetriesTotal, s.Sink.State,
			s.Sink.LastError)
	case s.Sink.Since == nil || s.Sink.Since.Before(began.Add(-time.Second)) || !s.Sink.Since.Equal(*first.Sink.Since):
		p.t.Fatalf("the outage began at %v; it is reported since %v, and later since %v", began, first.Sink.Since,
			s.Sink.Since)
	}
	if grown := heap() - before; grown > engineGrowth {
		p.t.Fatalf("with a backlog of %d bytes memory grew by %d, want at most %d", engineBacklog, grown, engineGrowth)
	}
	p.target.Outage(false)
	p.untilDelivered()
	p.stop()
	p.finish()
}

func stoppedWhileDead(p *parser) {
	p.node(engineFirst)
	p.start()
	p.untilDelivered()
	p.target.Outage(true)
	p.node(2000)
	p.until("a report of the outage", func(s report.Stream) bool { return s.Sink.State == report.SinkRetrying })
	p.stop()
	p.target.Outage(false)
	p.finish()
}

func hangingSink(p *parser) {
	if p.target.Block == nil {
		p.t.Skip(cannotBlock)
	}
	p.node(engineFirst)
	p.start()
	p.untilDelivered()
	p.target.Block(true)
	p.node(2000)
	p.until("an outstanding request", func(s report.Stream) bool { return s.Sink.OutstandingSeconds > 0.2 })
	p.target.Block(false)
	p.untilDelivered()
	p.stop()
	p.finish()
}

func recreatedSink(p *parser) {
	if p.target.Recreate == nil {
		p.t.Skip("this destination cannot be recreated under a sink")
	}
	p.node(engineFirst)
	p.start()
	p.untilDelivered()
	p.until("a commit", func(s report.Stream) bool { return s.UncommittedBytes != nil && *s.UncommittedBytes == 0 })
	p.lines.saved = p.lines.next
	p.process.streams[engineStream] = p.lines
	p.process.recreate()
	p.node(1000)
	p.untilDelivered()
	p.stop()
	p.finish()
}
