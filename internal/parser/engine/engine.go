// Package engine runs one pipeline a stream: tail → buffer → parse → sink → checkpoint, and starts, stops and drains them.
//
// Data flows one way. The reader appends blocks to the live buffer; the processor takes the whole buffer in one swap,
// encodes it in waves of at most one span a worker, delivers the records in order, and only then lets the position move. What
// was acknowledged is committed every half second, beside delivery: first the sink makes it durable, then the checkpoint says so.
//
// The engine must never drop a line to save memory or time, never commit what the sink did not acknowledge, never choose a
// position when its checkpoint is lost, and never let one stream's trouble stop another. It knows nothing of Kubernetes.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/tail"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// Options are what an Engine is made of.
type Options struct {
	// Config has its defaults and was validated.
	Config config.Config
	// Output is where records go. Run closes it.
	Output sink.Output
	// FS is where checkpoints and dead letters are written.
	FS  vfs.FS
	Log *slog.Logger
	// Now is the clock of what is reported and of when a commit is due; nil: time.Now.
	Now func() time.Time
}

const (
	// readAhead and workerAhead are how far a reader goes ahead of its processor: enough for several waves of work. Beside 16 MiB,
	// which is half of the default budget, 4 MiB took a third of the system time and half of the memory off a backlog.
	readAhead   = 4 << 20
	workerAhead = 1 << 20
)

// Engine runs the streams of one parser.
type Engine struct {
	cfg       config.Config
	output    sink.Output
	fs        vfs.FS
	log       *slog.Logger
	now       func() time.Time
	budget    *buffer.Budget
	readRate  *rate.Limiter // of all streams together; nil: no limit
	pipelines []*pipeline
	fault     fault
}

// ErrStreamsFailed is Run's error when no stream is left that could go on. Each stream's own reason was logged and is in the
// report.
var ErrStreamsFailed = errors.New("every stream has failed")

// New returns an engine that does nothing until Run.
func New(opt Options) (*Engine, error) {
	e := &Engine{
		cfg: opt.Config, output: opt.Output, fs: opt.FS, log: opt.Log, now: opt.Now,
		budget:   buffer.NewBudget(int64(opt.Config.Engine.BufferLimit), len(opt.Config.Streams)),
		readRate: tail.NewReadRate(int64(opt.Config.Engine.ReadRate)),
	}
	if e.now == nil {
		e.now = time.Now
	}
	e.budget.LimitReadAhead(max(readAhead, int64(opt.Config.Engine.Workers)*workerAhead))
	for _, s := range opt.Config.Streams {
		p, err := newPipeline(e, s)
		if err != nil {
			return nil, err
		}
		e.pipelines = append(e.pipelines, p)
	}
	return e, nil
}

// Run runs all streams until the context is done, then stops reading, finishes or abandons what is in hand, commits what was
// acknowledged, and returns nil within the configured shutdown timeout, whatever the sink does; a stream that is still held by the
// sink then keeps the state directory locked until it ends. With Once it returns when everything that was on disk at the start is
// delivered and committed.
//
// A stream that fails does not end the others; when all have, the error is ErrStreamsFailed. With Once one failure is enough.
// sink.ErrGone and tail.ErrDirectoryGone end the whole run.
func (e *Engine) Run(ctx context.Context) error {
	stop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	lock, err := checkpoint.Lock(stop, e.fs, e.cfg.StateDir, func() {
		e.log.Info("another parser uses the state directory; waiting for it to go", "stateDir", e.cfg.StateDir)
		for _, p := range e.pipelines {
			p.stats.set(func(s *stats) { s.message = "another parser uses the state directory; waiting for it to go" })
		}
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}

	var wg sync.WaitGroup
	failures := make(chan error, len(e.pipelines))
	for _, p := range e.pipelines {
		wg.Go(func() {
			err := p.run(stop)
			if err != nil && !errors.Is(err, errFailed) {
				cancel(err) // it concerns the whole process
			}
			failures <- err
		})
	}
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-stop.Done():
		deadline := time.NewTimer(e.cfg.ShutdownTimeout.Duration)
		defer deadline.Stop()
		select {
		case <-ended:
		case <-deadline.C:
			// A request that does not return holds a pipeline. It may still commit when the request does return.
			e.log.Warn("a stream did not stop in time and is abandoned; what it had not acknowledged is read again")
			go func() {
				<-ended
				if err := errors.Join(e.output.Close(), lock.Close()); err != nil {
					e.log.Warn("closing after an abandoned stream ended", "error", err)
				}
			}()
			return ignoreCancel(context.Cause(stop))
		}
	}
	err = errors.Join(e.outcome(failures), e.output.Close(), lock.Close())
	if cause := ignoreCancel(context.Cause(stop)); cause != nil {
		return cause
	}
	return err
}

func (e *Engine) outcome(failures chan error) error {
	failed := 0
	for range e.pipelines {
		if err := <-failures; errors.Is(err, errFailed) {
			failed++
		}
	}
	if failed == len(e.pipelines) || failed > 0 && e.cfg.Once {
		return ErrStreamsFailed
	}
	return nil
}

func ignoreCancel(cause error) error {
	if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
		return nil
	}
	return cause
}

// Streams returns the report of each stream, in the order of the configuration.
func (e *Engine) Streams() []report.Stream {
	out := make([]report.Stream, len(e.pipelines))
	for i, p := range e.pipelines {
		out[i] = p.report()
	}
	return out
}

// Ready tells whether every stream has begun: its position is decided and on disk, or it has failed and says so.
func (e *Engine) Ready() bool {
	for _, p := range e.pipelines {
		if !p.stats.begun.Load() {
			return false
		}
	}
	return true
}
