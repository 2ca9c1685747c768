// Package engine runs one pipeline per stream: tail → buffer → parse → sink → checkpoint. It starts, stops and drains
// the pipelines.
//
// Data flows one way. The reader appends blocks to the live buffer. The processor takes the whole buffer in one swap,
// encodes it in waves of at most one span per worker, and delivers the records in order. Only then does the position
// advance. Acknowledged data is committed every half second, concurrently with delivery: first the sink makes it
// durable, then the checkpoint records it.
//
// The engine must never drop a line to save memory or time, never commit what the sink did not acknowledge, never
// choose a position when its checkpoint is lost, and never let one stream's failure stop another. It knows nothing of
// Kubernetes.
package engine

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/tail"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// Options configure an Engine.
type Options struct {
	// Config has its defaults applied and is validated.
	Config config.Config
	// Output is where records are delivered. Run closes it.
	Output sink.Output
	// FS holds the checkpoints and dead letters.
	FS  vfs.FS
	Log *slog.Logger
	// Version is the version of the build. It appears in the log.
	Version string
	// Now is the clock for reports and commit intervals. Nil means time.Now.
	Now func() time.Time
	// Sampler is shown what is delivered. Nil means that nobody samples.
	Sampler *sampling.Sampler
	// TouchEvery is how often all state files are touched, so that programs that prune old files keep them. 0 means 5
	// minutes. Only tests set it.
	TouchEvery time.Duration
}

const (
	// readAhead and workerAhead bound how far a reader runs ahead of its processor, in bytes: enough for several waves
	// of work. Compared with 16 MiB, half of the default budget, 4 MiB cut a third of the system time and half of the
	// memory of working off a backlog.
	readAhead   = 4 << 20
	workerAhead = 1 << 20
)

// Engine runs the streams of one parser.
type Engine struct {
	cfg       config.Config
	version   string
	output    sink.Output
	fs        vfs.FS
	log       *slog.Logger
	now       func() time.Time
	budget    *buffer.Budget
	readRate  *rate.Limiter // shared by all streams; nil: no limit
	maxDead   int64         // bounds each stream's dead letter, in bytes
	newSource func(tail.Options, *buffer.Buffer) source
	pipelines []*pipeline
	fault     fault
	sampler   *sampling.Sampler

	distributions *report.Distributions

	touchEvery time.Duration
	state      *state  // set once Run has acquired the state directory
	merged     *merged // likewise, if the streams are delivered as one
}

// ErrStreamsFailed is returned by Run when no stream is left that can continue. Each stream's own error is logged and
// is in the report.
var ErrStreamsFailed = errors.New("every stream has failed")

// New returns an engine that is idle until Run is called.
func New(opt Options) (*Engine, error) {
	e := &Engine{
		cfg: opt.Config, version: opt.Version, output: opt.Output, fs: opt.FS, log: opt.Log, now: opt.Now,
		newSource: func(o tail.Options, buf *buffer.Buffer) source { return tail.New(o, buf) },
		budget:    buffer.NewBudget(int64(opt.Config.Engine.BufferLimit), len(opt.Config.Streams)),
		readRate:  tail.NewReadRate(int64(opt.Config.Engine.ReadRate)),
		maxDead:   deadletter.DefaultMaxBytes,
		sampler:   opt.Sampler,

		distributions: report.NewDistributions(),
	}
	if e.now == nil {
		e.now = time.Now
	}
	e.touchEvery = cmp.Or(opt.TouchEvery, touchEvery)
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

// Run runs all streams until the context is done. It then stops reading, finishes or abandons the current batch,
// commits what was acknowledged, and returns nil within the configured shutdown timeout, whatever the sink does. A
// stream that the sink still blocks keeps the state directory locked until it ends. With Once, Run returns when
// everything that was on disk at the start is delivered and committed.
//
// A stream that fails does not end the others, and its backlog continues to be reported. When all streams have failed,
// the error is ErrStreamsFailed. With Once, one failed stream is enough, once the others are done. sink.ErrGone,
// tail.ErrDirectoryGone and vfs.ErrLockLost end the whole run.
func (e *Engine) Run(ctx context.Context) error {
	stop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	state, err := e.acquire(stop, func() {
		e.log.Info("another parser uses the state directory; waiting for it to exit", "stateDir", e.cfg.StateDir)
		for _, p := range e.pipelines {
			p.stats.set(func(s *stats) { s.message = "another parser uses the state directory; waiting for it to exit" })
		}
	}, cancel)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	e.state = state
	if e.cfg.Order.By != "" {
		e.merged = e.newMerged(stop.Done())
	}

	var wg sync.WaitGroup
	var failed atomic.Int64
	for _, p := range e.pipelines {
		wg.Go(func() {
			err := p.run(stop)
			if errors.Is(err, errFailed) {
				err = nil
				if all := int(failed.Add(1)) == len(e.pipelines); all {
					err = ErrStreamsFailed
				} else if !e.cfg.Once {
					err = p.watchBacklog(stop)
				}
			}
			if err != nil {
				cancel(err) // the error concerns the whole process
			}
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
			// A request that does not return blocks a pipeline. The pipeline may still commit when the request returns.
			e.log.Warn("a stream did not stop in time and is abandoned; what it did not acknowledge is read again")
			go func() {
				<-ended
				if err := state.close(false); err != nil {
					e.log.Warn("closing the state after an abandoned stream ended", "error", err)
				}
			}()
			return causeOf(stop, ctx)
		}
	}
	err = causeOf(stop, ctx)
	if err == nil && failed.Load() > 0 && e.cfg.Once {
		err = ErrStreamsFailed
	}
	return errors.Join(err, state.close(err == nil))
}

// causeOf returns why stop ended before its parent ctx, or nil if ctx ended first.
func causeOf(stop, ctx context.Context) error {
	cause := context.Cause(stop)
	if ctx.Err() != nil && errors.Is(cause, context.Cause(ctx)) {
		return nil
	}
	return cause
}

// Streams returns the report of each stream, in configuration order.
func (e *Engine) Streams() []report.Stream {
	out := make([]report.Stream, len(e.pipelines))
	for i, p := range e.pipelines {
		out[i] = p.report()
	}
	return out
}

// Distributions returns the histograms of all streams.
func (e *Engine) Distributions() *report.Distributions { return e.distributions }

// Ready reports whether every stream has started and none has failed. A started stream has its position on disk and has
// reached its sink. A parser all of whose streams have failed exits, so a parser with some failed streams is not ready
// either. An outage after the start changes nothing.
func (e *Engine) Ready() bool {
	for _, p := range e.pipelines {
		if !p.stats.ready() {
			return false
		}
	}
	return true
}
