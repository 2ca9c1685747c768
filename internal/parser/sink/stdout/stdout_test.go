package stdout_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/stdout"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader simulates the reader of standard output.
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

// nextProcess simulates the pipe of a new process. The reader has seen the previous process end, and drops its
// incomplete last record.
func (r *reader) nextProcess() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = r.data[:bytes.LastIndexByte(r.data, '\n')+1]
}

// Write accepts half of p during an outage, as a disk that becomes full does.
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
	b := sink.Batch{File: position.FileID{Directory: "node_fills", Date: "20260430", Generation: "1a2b3c4d"}}
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

// nonBlocking returns a pipe that another process made non-blocking after this one had opened it, as a parent that
// shares the pipe can. A write that does not fit returns EAGAIN.
func nonBlocking(t *testing.T) (r, w *os.File) {
	t.Helper()
	var fds [2]int
	if err := syscall.Pipe(fds[:]); err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "reader"), os.NewFile(uintptr(fds[1]), "writer")
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	if err := syscall.SetNonblock(fds[1], true); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write(make([]byte, 1<<20)); !errors.Is(err, syscall.EAGAIN) {
		t.Fatalf("a pipe that is full took %d bytes, %v; want EAGAIN", n, err)
	} else if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
		t.Fatal(err)
	}
	return r, w
}

// bare hides the descriptor of a writer.
type bare struct{ io.Writer }

func TestASlowReaderOfANonBlockingPipeIsNoOutage(t *testing.T) {
	for name, hide := range map[string]bool{"that can be waited for": false, "without a descriptor": true} {
		t.Run(name, func(t *testing.T) {
			r, w := nonBlocking(t)
			var out io.Writer = w
			if hide {
				out = bare{w}
			}
			s := open(t, stdout.New(out))
			lines := make([]string, 2000)
			for i := range lines {
				lines[i] = strings.Repeat(string(rune('a'+i%26)), 1000+i)
			}
			b := batch(lines...)

			// There is no reader: the context ends the call, and the next one continues at the same byte.
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				if err := s.Write(ctx, b); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("got %v, want the context's error", err)
				}
				cancel()
			}
			written := make(chan error, 1)
			go func() { written <- errors.Join(s.Write(t.Context(), b), w.Close()) }()
			var got bytes.Buffer
			for { // slow: a page at a time
				if _, err := io.CopyN(&got, r, 4096); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if err := <-written; err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), b.Data) {
				t.Errorf("the reader was given %d bytes, want the %d of the batch", got.Len(), len(b.Data))
			}
			if n := s.Delivered(); n != int64(len(lines)) {
				t.Errorf("%d records count as delivered, want %d", n, len(lines))
			}
		})
	}
}

func TestAReaderThatGoesWhileANonBlockingPipeIsFullEndsTheProcess(t *testing.T) {
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	r, w := nonBlocking(t)
	s := open(t, stdout.New(w))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	b := batch(strings.Repeat("x", 1<<20))
	if err := s.Write(ctx, b); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the context's error", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), b); !errors.Is(err, sink.ErrGone) {
		t.Fatalf("got %v, want ErrGone", err)
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

	// The second stream waits while the first may still complete the record.
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
