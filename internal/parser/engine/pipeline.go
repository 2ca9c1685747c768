package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/tail"
)

const (
	// firstBackoff doubles up to lastBackoff while a sink or the disk refuses.
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 10 * time.Second
	// loggedMalformed is how many malformed lines and events are logged one by one; the dead letter has them all.
	loggedMalformed = 20
	// excerptBytes is how much of one is logged.
	excerptBytes = 200
)

// errFailed says that one stream cannot go on; its reason was logged and is in the report.
var errFailed = errors.New("the stream has failed")

// pipeline is one stream. One goroutine runs it; another, the reader, is started and ended by it.
type pipeline struct {
	engine *Engine
	stream config.StreamConfig
	kebab  string
	log    *slog.Logger
	codecs map[string]codec // by directory
	slots  [2][]slot        // of two waves: one is delivered while the next is encoded
	stats  stats
	batch  batchLog

	mu      sync.Mutex // guards what an attempt replaces while reports are made
	buf     *buffer.Buffer
	now     *attempt
	earlier tail.Counts // of the attempts before now
	swaps   int64       // likewise
}

// codec turns spans into records, for one directory's mode.
type codec struct {
	whole   bool // each line holds a whole block: by-block mode
	encoder *hyperliquid.Encoder
	cut     func(dst []hyperliquid.Span, data []byte, offset int64, n int) []hyperliquid.Span
	workers []encodeFunc // by slot; two waves share them, and only one is encoded at a time
}

type encodeFunc func(out *hyperliquid.Output, s hyperliquid.Span, file string)

// attempt is what a pipeline holds from its start, or from ErrReopen, to its end.
type attempt struct {
	*pipeline
	store *checkpoint.Store
	dead  *deadletter.Store
	sink  sink.Sink
	tail  *tail.Tailer

	commitAt   time.Time // when the next commit is due
	pending    *commit   // the one that is being carried out; nil: none
	ackedBytes int64     // since the last commit was begun
	turns      int       // how often the file changed since then
	lastFile   *buffer.Origin
	midBlock   bool    // a part of a block was delivered: this is no moment to commit
	logged     int     // malformed lines and events that were logged
	ahead      lookout // blocks of lines, up to what was cut into spans; only with deduplicateBlocks or markers
	known      lookout // the same up to what was acknowledged
	saved      checkpoint.State
	version    uint64 // of the tailer's files in saved; 0: none of this attempt
}

func newPipeline(e *Engine, s config.StreamConfig) (*pipeline, error) {
	p := &pipeline{
		engine: e, stream: s, kebab: s.Name.Kebab(), log: e.log.With("stream", s.Name.Kebab()),
		codecs: map[string]codec{}, buf: e.budget.NewBuffer(),
	}
	for i := range p.slots {
		p.slots[i] = make([]slot, e.cfg.Engine.Workers)
	}
	p.stats.state, p.stats.sinkState = report.WaitingForData, report.SinkHealthy
	p.batch = batchLog{log: p.log, enabled: e.cfg.LogBatches}
	for _, d := range p.directories() {
		encoder, err := hyperliquid.NewEncoder(s.Name, d.Mode, e.cfg.Filter, e.cfg.Format, e.cfg.Target, e.cfg.SinkOf(s).Keyed())
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", s.Name, err)
		}
		c := codec{whole: d.Mode == config.ByBlock, encoder: encoder, cut: encoder.Cut}
		for range e.cfg.Engine.Workers {
			c.workers = append(c.workers, encoder.NewWorker().Encode)
		}
		p.codecs[d.Name] = c
	}
	return p, nil
}

// directories are where the stream's files may be.
func (p *pipeline) directories() []tail.Directory {
	modes := []config.Mode{p.stream.Mode}
	if p.stream.Mode == config.Auto {
		modes = []config.Mode{config.Line, config.Streaming, config.ByBlock}
	}
	out := make([]tail.Directory, 0, len(modes))
	for _, m := range modes {
		out = append(out, tail.Directory{Name: hyperliquid.Directory(p.stream.Name, m), Mode: m})
	}
	return out
}

// where names the directories for a person.
func (p *pipeline) where() string {
	directories := p.directories()
	names := make([]string, 0, len(directories))
	for _, d := range directories {
		names = append(names, p.engine.cfg.DataDir+"/"+d.Name)
	}
	return strings.Join(names, ", ")
}

// reading returns the figures of the buffer and the reader.
func (p *pipeline) reading() (b buffer.Stats, t tail.Stats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != nil {
		t = p.now.tail.Stats()
	}
	t.Counts = t.Add(p.earlier)
	b = p.buf.Stats()
	b.Swaps += p.swaps
	return b, t
}

// run makes attempts until one ends for good. It returns nil when the stream was stopped or, with Once, is done; errFailed
// when it cannot go on; any other error concerns the whole process.
func (p *pipeline) run(ctx context.Context) error {
	for backoff := firstBackoff; ; backoff = min(2*backoff, lastBackoff) {
		began := p.engine.now()
		err := p.attempt(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case errors.Is(err, sink.ErrGone), errors.Is(err, tail.ErrDirectoryGone):
			return err
		case errors.Is(err, sink.ErrFailed), errors.Is(err, checkpoint.ErrLost):
			p.log.Error("the stream has failed", "error", err)
			p.stats.set(func(s *stats) {
				s.state, s.message = report.Failed, clip(err.Error(), maxMessage)
				if errors.Is(err, sink.ErrFailed) {
					s.sink(report.SinkFailed, err, p.engine.now())
				}
			})
			p.stats.begun.Store(true)
			return errFailed
		}
		if p.engine.now().Sub(began) > lastBackoff {
			backoff = firstBackoff
		}
		p.log.Warn("the stream starts again from its last checkpoint", "error", err, "after", backoff)
		p.stats.set(func(s *stats) {
			s.retries++
			s.sink(report.SinkRetrying, err, p.engine.now())
		})
		if !sleep(ctx, backoff) {
			return nil
		}
	}
}

// attempt opens everything from the last checkpoint, runs the stream, and closes everything.
func (p *pipeline) attempt(ctx context.Context) (err error) {
	a, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()

	// The first commit comes before the first read and the first record: a crash finds a position and a known output.
	if err := a.commit(ctx, false); err != nil {
		return err
	}
	p.stats.set(func(s *stats) {
		s.state, s.message = report.Running, ""
		s.sink(report.SinkHealthy, nil, p.engine.now())
	})
	p.stats.begun.Store(true)

	readCtx, stopReading := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.tail.Run(readCtx) }()
	err, readErr := a.loop(ctx, ended)
	stopReading()
	if readErr == nil {
		readErr = <-ended
	}
	if err == nil && !errors.Is(readErr, errReadToEnd) && ctx.Err() == nil {
		err = readErr
	}
	return err
}

func (p *pipeline) open(ctx context.Context) (*attempt, error) {
	cfg := &p.engine.cfg
	store, err := checkpoint.Open(p.engine.fs, cfg.StateDir, p.kebab)
	if err != nil {
		return nil, err
	}
	loaded, err := store.Load()
	if err != nil {
		return nil, err
	}
	for _, line := range loaded.SetAside {
		p.log.Error("a damaged checkpoint was set aside; going on from the one before", "file", line)
	}
	state := loaded.State
	a := &attempt{pipeline: p, store: store, saved: state}
	a.known = lookout{processed: resumeProcessed(state.Blocks), sequence: sequence{last: state.CurrentBlock, highest: state.LastBlock}}
	a.ahead = a.known
	if a.dead, err = deadletter.Open(p.engine.fs, cfg.StateDir, p.kebab, state.DeadLetterBytes, deadletter.DefaultMaxBytes); err != nil {
		return nil, err
	}
	p.stats.set(func(s *stats) { s.message = "opening the output; another parser that still uses it is waited for" })
	if a.sink, err = p.engine.output.Open(ctx, p.kebab, state.Sink); err != nil {
		return nil, errors.Join(err, a.dead.Close())
	}
	buf := p.engine.budget.NewBuffer()
	a.tail = tail.New(tail.Options{
		DataDir: cfg.DataDir, Directories: p.directories(), StartAt: cfg.Engine.StartAt, Once: cfg.Once,
		MaxLineBytes: int64(cfg.Engine.MaxLineBytes), ReadRate: p.engine.readRate, Log: p.log, Now: p.engine.now,
	}, buf)
	p.mu.Lock()
	old := p.buf
	p.swaps += old.Stats().Swaps
	if p.now != nil {
		p.earlier = p.earlier.Add(p.now.tail.Stats().Counts)
	}
	p.buf, p.now = buf, a
	p.mu.Unlock()
	p.engine.budget.Close(old)
	p.stats.set(func(s *stats) { s.lastBlock = state.LastBlock })
	var resume *checkpoint.State
	if loaded.Found {
		resume = &state
	}
	if err := a.tail.Open(resume); err != nil {
		return nil, errors.Join(err, a.close())
	}
	a.commitAt = p.engine.now().Add(commitEvery)
	return a, nil
}

func (a *attempt) close() error {
	a.abandon()
	return errors.Join(a.sink.Close(), a.dead.Close())
}

// errReadToEnd stands for the reader's nil: with Once it has handed over everything.
var errReadToEnd = errors.New("read to the end")

// loop takes batches until the context is done or the reader has ended and nothing is left. readErr is the reader's result if
// it has ended.
func (a *attempt) loop(ctx context.Context, ended <-chan error) (err, readErr error) {
	work, cancel := a.workContext(ctx)
	defer cancel()
	timer := time.NewTimer(commitEvery)
	defer timer.Stop()
	for ctx.Err() == nil {
		batch := a.buf.Swap()
		empty := len(batch.Blocks()) == 0
		if !empty {
			a.batch.taken(batch)
			err = a.process(ctx, work, batch)
		}
		a.recycle(batch)
		if err != nil {
			break
		}
		if empty && readErr != nil {
			break
		}
		if err = a.commitIfDue(work); err != nil || !empty || readErr != nil {
			if err != nil {
				break
			}
			continue
		}
		waited := a.engine.now()
		behind := a.tail.Stats().Unread > 0
		timer.Reset(a.untilCommit())
		select {
		case <-ctx.Done():
		case <-a.buf.NotEmpty():
		case <-timer.C:
		case <-a.pending.ended():
		case readErr = <-ended:
			if readErr == nil {
				readErr = errReadToEnd
			}
		}
		if behind {
			a.stats.set(func(s *stats) { s.readWait += a.engine.now().Sub(waited) })
		}
	}
	if err != nil && work.Err() == nil {
		return err, readErr
	}
	a.stats.set(func(s *stats) {
		if s.state == report.Running {
			s.state = report.Draining
		}
	})
	if a.midBlock {
		return nil, readErr // the sink goes back to the last commit
	}
	final := a.engine.cfg.Once && ctx.Err() == nil && errors.Is(readErr, errReadToEnd)
	return a.finish(work, final), readErr
}

// workContext is the context of exchanges with the sink: it outlives ctx by a part of the shutdown timeout, so that a batch in
// hand can be finished and committed.
func (a *attempt) workContext(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(a.engine.cfg.ShutdownTimeout.Duration/2, cancel)
	})
	return work, func() { stop(); cancel() }
}

// finish makes the last commit. With final it repeats it until the sink has nothing more to end.
func (a *attempt) finish(work context.Context, final bool) error {
	if work.Err() != nil {
		// The sink did not answer in time; what it acknowledged before can still be committed, if that is quick.
		var cancel context.CancelFunc
		work, cancel = context.WithTimeout(context.WithoutCancel(work), a.engine.cfg.ShutdownTimeout.Duration/4)
		defer cancel()
	}
	for {
		before := string(a.saved.Sink)
		if err := a.commit(work, final); err != nil {
			return err
		}
		if !final || string(a.saved.Sink) == before {
			return nil
		}
	}
}

// recycle gives a batch back, with the blocks that were not processed.
func (a *attempt) recycle(batch *buffer.Snapshot) {
	for _, block := range batch.Blocks() {
		if block != nil {
			a.buf.Release(block)
		}
	}
	a.buf.Recycle(batch)
}

// retry repeats a call while it meets an outage, with backoff.
func (a *attempt) retry(ctx context.Context, doing string, call func() error) error {
	for backoff := firstBackoff; ; backoff = min(2*backoff, lastBackoff) {
		err := call()
		if err == nil {
			a.recovered(backoff)
			return nil
		}
		if !isOutage(err) || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		a.retrying(doing, err, backoff)
		if !sleep(ctx, backoff) {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
}

// asking marks a request to the sink as outstanding until done is called: a sync that hangs is the sink's doing too.
func (a *attempt) asking() (done func()) {
	began := a.engine.now()
	a.stats.set(func(s *stats) { s.requestSince = began })
	return func() {
		a.stats.set(func(s *stats) {
			s.requestSince = time.Time{}
			s.busy += a.engine.now().Sub(began)
		})
	}
}

// recovered takes note that a call went well after others like it had not: backoff is what the next pause would have been.
func (a *attempt) recovered(backoff time.Duration) {
	if backoff > firstBackoff {
		a.stats.set(func(s *stats) { s.sink(report.SinkHealthy, nil, a.engine.now()) })
	}
}

func (a *attempt) retrying(doing string, err error, backoff time.Duration) {
	a.log.Warn(doing+"; trying again", "error", err, "after", backoff)
	a.stats.set(func(s *stats) {
		s.retries++
		s.sink(report.SinkRetrying, err, a.engine.now())
	})
}

// isOutage tells whether making the same call again may help.
func isOutage(err error) bool {
	var refusal *sink.Refusal
	return !errors.Is(err, sink.ErrReopen) && !errors.Is(err, sink.ErrFailed) && !errors.Is(err, sink.ErrGone) && !errors.As(err, &refusal)
}

// sleep waits, and tells whether the context still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
