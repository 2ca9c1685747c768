package stdout_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/sinktest"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/stdout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader is the other end of standard output.
type reader struct {
	mu      sync.Mutex
	changed sync.Cond
	data    []byte
	outage  bool
	blocked bool
}

func newReader() *reader {
	r := &reader{}
	r.changed.L = &r.mu
	return r
}

func (r *reader) set(field *bool) func(bool) {
	return func(on bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		*field = on
		r.changed.Broadcast()
	}
}

// nextProcess is for the pipe of a new process: a reader of the one before has
// seen it end, and drops an incomplete record there.
func (r *reader) nextProcess() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = r.data[:bytes.LastIndexByte(r.data, '\n')+1]
}

// Write takes half of p in an outage, as a disk does that runs full.
func (r *reader) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.blocked {
		r.changed.Wait()
	}
	if r.outage {
		r.data = append(r.data, p[:len(p)/2]...)
		return len(p) / 2, syscall.ENOSPC
	}
	r.data = append(r.data, p...)
	return len(p), nil
}

func target(*testing.T) sinktest.Target {
	r := newReader()
	return sinktest.Target{
		Open: func() (sink.Output, error) {
			r.nextProcess()
			return stdout.New(r), nil
		},
		Outage: r.set(&r.outage),
		Block:  r.set(&r.blocked),
		Received: func(string) ([]byte, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return slices.Clone(r.data), nil
		},
	}
}

func TestConformance(t *testing.T) { sinktest.Run(t, target) }

func TestConformanceWithEngine(t *testing.T) { sinktest.RunWithEngine(t, target) }

func BenchmarkConformance(b *testing.B) {
	sinktest.Benchmark(b, sinktest.Target{Open: func() (sink.Output, error) { return stdout.New(io.Discard), nil }})
}

func batch(lines ...string) sink.Batch {
	b := sink.Batch{File: checkpoint.FileID{Directory: "node_fills", Date: "20260430", Generation: "1a2b3c4d"}}
	for i, line := range lines {
		b.Data = append(append(b.Data, line...), '\n')
		b.Records = append(b.Records, sink.Record{End: len(b.Data), Offset: int64(i)})
	}
	return b
}

func open(t *testing.T, o *stdout.Output) sink.Sink {
	t.Helper()
	s, err := o.Open(t.Context(), "fills", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAClosedPipeEndsTheProcess(t *testing.T) {
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	s := open(t, stdout.New(w))
	if err := s.Write(t.Context(), batch("one")); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), batch("two")); !errors.Is(err, sink.ErrGone) || !errors.Is(err, syscall.EPIPE) {
		t.Fatalf("got %v, want ErrGone for EPIPE", err)
	}
}

func TestARecordThatStaysIncompleteSpoilsTheOutputForAll(t *testing.T) {
	r := newReader()
	o := stdout.New(r)
	first, second := open(t, o), open(t, o)
	r.set(&r.outage)(true)
	if err := first.Write(t.Context(), batch("a record that will be cut")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want ENOSPC", err)
	}
	r.set(&r.outage)(false)

	// As long as the first may still finish it, the second waits.
	ctx, cancel := context.WithCancel(t.Context())
	wait := make(chan error)
	go func() { wait <- second.Write(ctx, batch("another")) }()
	cancel()
	if err := <-wait; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the context's error", err)
	}

	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.Write(t.Context(), batch("another")); !errors.Is(err, sink.ErrFailed) {
		t.Fatalf("got %v, want ErrFailed", err)
	}
	if bytes.Contains(r.data, []byte("another")) {
		t.Fatalf("a record was mixed with another: %q", r.data)
	}
}
