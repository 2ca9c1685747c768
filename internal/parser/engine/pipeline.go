package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/merge"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/tail"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// errFailed reports that one stream cannot continue. The reason is logged and is in the report.
var errFailed = errors.New("the stream has failed")

// pipeline is one stream. One goroutine runs it; it starts and ends the others, such as the reader.
type pipeline struct {
	engine *Engine
	stream config.StreamConfig
	kebab  string
	log    *slog.Logger
	codecs map[string]codec // by directory
	slots  [2][]slot        // two waves: one is delivered while the next is encoded
	stats  stats
	batch  batchLog

	distributions report.StreamDistributions
	kind          string // of the sink

	mu             sync.Mutex // guards what an attempt replaces while reports are built
	buf            *buffer.Buffer
	current        *attempt    // nil while the position is unknown
	previousCounts tail.Counts // of the attempts before current
	previousSwaps  int64       // likewise
}

// codec turns spans into records, in one directory's mode.
type codec struct {
	whole   bool // each line holds a whole block: by-block mode
	line    bool // lines do not name their block: line mode
	counts  bool // the events of a block are in several lines: streaming mode
	encoder *hyperliquid.Encoder
	cut     func(dst []hyperliquid.Span, data []byte, offset int64, n int) []hyperliquid.Span
	// workers are the encoders by slot, shared by the two waves because only one wave is encoded at a time. One more
	// encodes the remainders of spans during delivery.
	workers []encodeFunc
}

type encodeFunc func(out *hyperliquid.Output, s hyperliquid.Span, file string) (rest hyperliquid.Span)

// source finds and reads a stream's files. It is a *tail.Tailer outside of tests.
type source interface {
	Open(resume *checkpoint.State) error
	Watch(ctx context.Context) error
	Run(ctx context.Context) error
	Decided() <-chan struct{}
	Ack(block *buffer.Block)
	SeenAt(block *buffer.Block) (at time.Time, observed bool)
	Version() uint64
	Files() []checkpoint.File
	Saved()
	Committed()
	Stats() tail.Stats
	Close()
}

// attempt is one run of a pipeline, from its start or from ErrReopen to its end.
type attempt struct {
	*pipeline
	store *checkpoint.Store
	tail  source
	// startBlock is the block that the stream started at; 0: it did not start at a block.
	startBlock int64
	dead       *deadletter.Store // nil until open, as is sink
	sink       sink.Sink

	deliveredCounted int64     // the sink's Delivered that is in the stats
	commitAt         time.Time // when the next commit is due
	pending          *commit   // the commit in progress; nil: none
	batchSeen        time.Time // when the first line of the current batch was observed on disk; zero: nobody observed it
	ackedBytes       int64     // since the last commit began
	ackedSeen        time.Time // batchSeen of the first batch acknowledged since then
	fileSwitches     int       // how often the file changed since then
	lastFile         *buffer.Origin
	committedOnce    bool // the first commit is done
	midBlock         bool // part of a block is delivered: a commit is not allowed now
	malformedLogged  int  // malformed lines and events that were logged
	panics           atomic.Int64
	lastDeadLettered deadLetteredLine
	blankLogged      bool       // that blank lines are not kept was logged
	droppedCounted   int64      // of dead's dropped entries, those that are in the stats
	live             dedupState // of what was handed to the sink; only with deduplicateBlocks or markers
	committable      dedupState // as live, up to the end of the last block: what a commit may record
	lastBad          badLine
	counts           counts       // after what was delivered
	committedCounts  counts       // as counts, up to the end of the last block: what a commit may record
	splitEvent       splitEvent   // with deduplicateBlocks or markers
	mergedParts      []merge.Part // of the slot that is being delivered
	// readerStarted reports whether the reader has started: the positions that it acknowledges enter the checkpoint with a
	// commit only.
	readerStarted bool

	// onRefused is called after the sink refused a record and the dead letter took it. Nil disables it.
	onRefused func(context.Context, sink.Batch, *sink.Refusal) error

	// The fields below belong to the pending commit's goroutine while there is one.
	saved            checkpoint.State
	committedVersion uint64    // of the tailer's files in saved; 0: none of this attempt
	savedVersion     uint64    // of the tailer's files whose growth is in saved
	savedAt          time.Time // when savedVersion was saved
}

func newPipeline(e *Engine, s config.StreamConfig) (*pipeline, error) {
	p := &pipeline{
		engine: e, stream: s, kebab: s.Name.Kebab(), log: e.log.With("stream", s.Name.Kebab()),
		codecs: map[string]codec{}, buf: e.budget.NewBuffer(),
		distributions: e.distributions.Of(string(s.Name)), kind: e.cfg.SinkOf(s).Kind(),
	}
	for i := range p.slots {
		p.slots[i] = make([]slot, e.cfg.Engine.Workers)
		for j := range p.slots[i] {
			p.slots[i][j].out.Limit = outputLimit(&e.cfg.Engine, len(e.cfg.Streams))
		}
	}
	p.stats.state, p.stats.sinkState = report.WaitingForData, report.SinkHealthy
	p.batch = batchLog{log: p.log, enabled: e.cfg.LogBatches}
	for _, d := range p.directories() {
		encoder, err := hyperliquid.NewEncoder(s.Name, d.Mode, e.cfg.FilterOf(s), e.cfg.Format, e.cfg.Target,
			e.cfg.SinkOf(s).Keyed())
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", s.Name, err)
		}
		c := codec{whole: d.Mode == config.ByBlock, line: d.Mode == config.Line, counts: d.Mode == config.Streaming,
			encoder: encoder, cut: encoder.Cut}
		for range e.cfg.Engine.Workers + 1 {
			w := encoder.NewWorker()
			w.Parts = e.cfg.Engine.DeduplicateBlocks || e.cfg.Engine.Markers || e.cfg.Order.By != ""
			w.Hashes = e.cfg.Engine.DeduplicateBlocks && d.Mode != config.Line
			c.workers = append(c.workers, w.Encode)
		}
		p.codecs[d.Name] = c
	}
	return p, nil
}

// directories returns where the stream's files may be.
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

// directoryNames lists the directories in words, for messages.
func (p *pipeline) directoryNames() string {
	directories := p.directories()
	names := make([]string, 0, len(directories))
	for _, d := range directories {
		names = append(names, p.engine.cfg.DataDir+"/"+d.Name)
	}
	return strings.Join(names, ", ")
}

// readStats returns the figures of the buffer and the reader. known reports whether the backlog is known; it is not
// before the first scan, or while the start position is undecided.
func (p *pipeline) readStats() (b buffer.Stats, t tail.Stats, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil {
		t = p.current.tail.Stats()
		known = t.Scanned && p.current.decided()
	}
	t.Counts = t.Add(p.previousCounts)
	b = p.buf.Stats()
	b.Swaps += p.previousSwaps
	return b, t, known
}

// run makes attempts until one ends permanently. It returns nil when the stream was stopped or, with Once, is done;
// errFailed when it cannot continue; any other error concerns the whole process.
func (p *pipeline) run(ctx context.Context) error {
	retries, pause := newRetries(), time.Duration(0)
	for {
		began := p.engine.now()
		a, err := p.openPosition()
		if err == nil {
			err = a.run(ctx, pause)
		}
		switch {
		case errors.Is(err, vfs.ErrLockLost):
			return err
		case err == nil:
			return nil
		case ctx.Err() != nil:
			if !errors.Is(err, context.Canceled) {
				p.log.Warn("stopping the stream; what it did not commit is read again", "error", err)
			}
			return nil
		case errors.Is(err, sink.ErrGone), errors.Is(err, tail.ErrDirectoryGone):
			return err
		case errors.Is(err, tail.ErrUnread):
			p.reportUnread(err)
			return errFailed
		case errors.Is(err, sink.ErrFailed), errors.Is(err, checkpoint.ErrLost), errors.Is(err, tail.ErrNoBlocks):
			p.markFailed(err)
			return errFailed
		}
		if p.engine.now().Sub(began) > pause+sink.LongestPause {
			retries.reset()
		}
		pause = retries.pause()
		p.log.Warn("restarting the stream from its last checkpoint", "error", err, "after", pause)
		p.stats.set(func(s *stats) {
			s.retries++
			s.setSink(report.SinkRetrying, err, p.engine.now())
		})
		// The next attempt scans the disk first and pauses after that. Without a position there is nothing to scan.
		if a == nil {
			if !sleep(ctx, pause) {
				return nil
			}
			pause = 0
		}
	}
}

// markFailed records that the stream cannot continue without an operator.
func (p *pipeline) markFailed(err error) {
	p.log.Error("the stream has failed", "error", err)
	p.stats.set(func(s *stats) {
		s.state, s.message = report.Failed, clip(err.Error())
		if errors.Is(err, sink.ErrFailed) {
			s.setSink(report.SinkFailed, err, p.engine.now())
		}
	})
}

// reportUnread records what a run with Once could not read. It logs one line per item.
func (p *pipeline) reportUnread(err error) {
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != tail.ErrUnread.Error() {
			p.log.Error("not everything was read", "error", line)
		}
	}
	p.stats.set(func(s *stats) { s.state, s.message = report.Failed, clip(err.Error()) })
}

// watchBacklog keeps the backlog of a failed stream up to date until the context is done. Its error concerns the whole
// process.
func (p *pipeline) watchBacklog(ctx context.Context) error {
	for retries := newRetries(); ; {
		a, err := p.openPosition()
		if err == nil {
			stop := a.saveAndLogMeanwhile()
			err = a.tail.Watch(ctx)
			stop()
			err = errors.Join(err, a.close())
		}
		// There is no position, and the engine does not guess one.
		if errors.Is(err, checkpoint.ErrLost) || errors.Is(err, tail.ErrNoBlocks) {
			<-ctx.Done()
			return nil
		}
		switch {
		case errors.Is(err, tail.ErrDirectoryGone):
			return err
		case ctx.Err() != nil && errors.Is(err, context.Canceled):
			return nil
		}
		pause := retries.pause()
		p.log.Warn("watching the backlog of a failed stream; retrying", "error", err, "after", pause)
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// openPosition loads the checkpoint and scans the disk: a position, and the backlog after it. It needs no sink, and
// reads no lines.
func (p *pipeline) openPosition() (*attempt, error) {
	cfg := &p.engine.cfg
	store, err := p.engine.state.Store(p.kebab)
	if err != nil {
		p.setCurrent(nil, p.engine.budget.NewBuffer())
		return nil, err
	}
	loaded, err := store.Load()
	if err != nil {
		p.setCurrent(nil, p.engine.budget.NewBuffer())
		return nil, err
	}
	for _, line := range loaded.SetAside {
		p.log.Error("a damaged checkpoint was set aside; continuing from the previous one", "file", line)
	}
	state := loaded.State
	resumes := loaded.Found && !decidesAgain(&state, &cfg.Engine)
	if loaded.Found && !resumes {
		p.log.Info("startAt has changed before the stream reached its first block; deciding again where it begins",
			"block", state.StartBlock)
		state.Files, state.Counts, state.Blocks = nil, nil, nil
	}
	if !resumes {
		state.StartBlock = cfg.Engine.StartAtBlock
	}
	for _, c := range p.codecs {
		c.encoder.From = state.StartBlock
	}
	a := &attempt{pipeline: p, store: store, saved: state, startBlock: state.StartBlock}
	a.live = newDedupState(&state, &cfg.Engine)
	a.committable = a.live.clone()
	a.counts, a.committedCounts = newCounts(state.Counts), newCounts(state.Counts)
	buf := p.engine.budget.NewBuffer()
	a.tail = p.engine.newSource(tail.Options{
		DataDir: cfg.DataDir, Links: cfg.LinkDirs, Directories: p.directories(), StartAt: cfg.Engine.StartAt, Once: cfg.Once,
		StartBlock: state.StartBlock, BlockNumber: hyperliquid.BlockNumber, MaxLineBytes: int64(cfg.Engine.MaxLineBytes),
		ReadRate: p.engine.readRate, Log: p.log, Now: p.engine.now,
	}, buf)
	p.setCurrent(a, buf)
	p.stats.set(func(s *stats) { s.lastBlock = state.LastBlock })
	var resume *checkpoint.State
	if resumes {
		resume = &state
	}
	if err := a.tail.Open(resume); err != nil {
		a.tail.Close()
		p.setCurrent(nil, p.engine.budget.NewBuffer())
		return nil, err
	}
	return a, nil
}

// decidesAgain reports whether a checkpoint is no position to resume: its stream still waits for the block that it
// starts at, and the configuration names another start. Nothing of such a stream was delivered, and waiting on would
// leave out what the new start asks for.
func decidesAgain(state *checkpoint.State, e *config.Engine) bool {
	return state.StartBlock > 0 && state.LastBlock < state.StartBlock && e.StartAtBlock != state.StartBlock
}

// setCurrent makes a (nil: none) and its buffer the ones that reports describe.
func (p *pipeline) setCurrent(a *attempt, buf *buffer.Buffer) {
	p.mu.Lock()
	old := p.buf
	p.previousSwaps += old.Stats().Swaps
	if p.current != nil {
		p.previousCounts = p.previousCounts.Add(p.current.tail.Stats().Counts)
	}
	p.buf, p.current = buf, a
	p.mu.Unlock()
	p.engine.budget.Close(old)
}

// decided reports whether the start position of every file is known.
func (a *attempt) decided() bool {
	select {
	case <-a.tail.Decided():
		return true
	default:
		return false
	}
}

// run opens the stream after a pause, runs it, and closes everything.
func (a *attempt) run(ctx context.Context, pause time.Duration) (err error) {
	defer func() { err = errors.Join(err, a.close()) }()
	a.stats.set(func(s *stats) { s.state, s.message = report.Running, "" })
	a.logProgress()
	if err := a.start(ctx, pause); err != nil {
		return err
	}
	readCtx, stopReading := context.WithCancel(ctx)
	ended := make(chan error, 1)
	a.readerStarted = true
	go func() { ended <- a.tail.Run(readCtx) }()
	err, readErr := a.ensureFirstCommit(ctx, ended)
	if err == nil && readErr == nil {
		err, readErr = a.loop(ctx, ended)
	}
	stopReading()
	if readErr == nil {
		readErr = <-ended
	}
	if err == nil && !errors.Is(readErr, errReadToEnd) && ctx.Err() == nil {
		err = readErr
	}
	return err
}

// start opens the dead letter and the sink, however long that takes. It waits until the start position is decided, and
// makes the first commit. Meanwhile the backlog on disk is watched and saved in the checkpoint.
func (a *attempt) start(ctx context.Context, pause time.Duration) error {
	watching, stop := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		stop(a.tail.Watch(watching))
	}()
	err := a.connect(watching, pause)
	if err != nil && ctx.Err() == nil && watching.Err() != nil {
		err = context.Cause(watching) // the watch has ended it
	}
	stop(nil)
	<-watched
	return err
}

func (a *attempt) connect(ctx context.Context, pause time.Duration) error {
	if pause > 0 && !a.pause(ctx, pause) {
		return ctx.Err()
	}
	a.stats.set(func(s *stats) { s.message = "waiting for the sink to open" })
	if err := a.retry(ctx, "opening the sink", func() error { return a.open(ctx) }); err != nil {
		return err
	}
	if !a.decided() {
		if a.engine.cfg.Once {
			return nil // only the reader can report why the position is undecided
		}
		a.stats.set(func(s *stats) { s.message = "it is not decided yet where reading begins" })
		stop := a.saveAndLogMeanwhile()
		select {
		case <-a.tail.Decided():
		case <-ctx.Done():
		}
		stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return a.firstCommit(ctx)
}

// firstCommit makes the first commit. It precedes the first read and the first record, so that a crash finds a position
// and a known output.
func (a *attempt) firstCommit(ctx context.Context) error {
	if err := a.commit(ctx, false); err != nil {
		return err
	}
	a.committedOnce = true
	a.stats.set(func(s *stats) {
		s.message = ""
		s.setSink(report.SinkHealthy, nil, a.engine.now())
	})
	a.stats.begun.Store(true)
	a.logProgress()
	return nil
}

// ensureFirstCommit makes the first commit if the reader had to start before it, which happens only with Once. readErr
// is the reader's result if it ended without a decision.
func (a *attempt) ensureFirstCommit(ctx context.Context, ended <-chan error) (err, readErr error) {
	if a.committedOnce {
		return nil, nil
	}
	select {
	case <-a.tail.Decided():
		return a.firstCommit(ctx), nil
	case readErr := <-ended:
		return nil, cmp.Or(readErr, errReadToEnd)
	}
}

// lockPause is how often a destination that another process has locked is retried. It needs no jitter: the lock is in
// this machine's kernel, and few processes wait for it.
const lockPause = time.Second

// open opens the dead letter and the sink. It waits for another parser that still uses the destination; that is not an
// outage of the sink.
func (a *attempt) open(ctx context.Context) (err error) {
	if a.dead == nil {
		a.dead, err = deadletter.Open(a.engine.state.FS(), a.engine.cfg.StateDir, a.kebab, a.saved.DeadLetterBytes,
			a.engine.maxDead)
		if err != nil {
			return err
		}
	}
	state := a.saved.Sink
	for logged := false; ; logged = true {
		done := a.trackSinkCall()
		opened, err := a.engine.outputOf(a).Open(ctx, a.kebab, state)
		done()
		if err == nil {
			a.sink = opened
			a.stats.set(func(s *stats) { s.message = "" })
			return nil
		}
		if !errors.Is(err, vfs.ErrLocked) {
			a.stats.set(func(s *stats) { s.message = "waiting for the sink to open: " + err.Error() })
			return err
		}
		if !logged {
			a.log.Info("another parser uses the sink's destination; waiting for it to exit", "error", err)
		}
		a.stats.set(func(s *stats) {
			s.message = "waiting for another parser to exit: " + err.Error()
			s.setSink(report.SinkHealthy, nil, a.engine.now())
		})
		if !a.pause(ctx, lockPause) {
			return ctx.Err()
		}
	}
}

// close abandons the pending commit, saves the progress observed since the last one, and closes what is open.
func (a *attempt) close() error {
	a.abandonPending()
	err := a.saveProgress()
	if a.sink != nil {
		a.countDelivered()
		err = errors.Join(err, a.sink.Close())
	}
	if a.dead != nil {
		err = errors.Join(err, a.dead.Close())
	}
	a.tail.Close()
	return err
}

// errReadToEnd replaces the reader's nil error: with Once it has handed over everything.
var errReadToEnd = errors.New("read to the end")

// loop takes batches until the context is done, or the reader has ended and nothing is left. readErr is the reader's
// result if it has ended.
func (a *attempt) loop(ctx context.Context, ended <-chan error) (err, readErr error) {
	work, cancel := a.workContext(ctx)
	defer cancel()
	timer := time.NewTimer(commitEvery)
	defer timer.Stop()
	for ctx.Err() == nil {
		batch := a.buf.Swap()
		empty := len(batch.Blocks()) == 0
		if !empty {
			a.beginBatch(batch)
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
		return nil, readErr // the sink returns to the last commit
	}
	readAll := errors.Is(readErr, errReadToEnd) || errors.Is(readErr, tail.ErrUnread)
	final := a.engine.cfg.Once && ctx.Err() == nil && readAll
	return a.finish(work, final), readErr
}

// beginBatch logs and measures a batch that holds a block.
func (a *attempt) beginBatch(batch *buffer.Snapshot) {
	a.batch.record(batch)
	a.distributions.Batch(batch.Lines)
	a.batchSeen = time.Time{}
	if at, observed := a.tail.SeenAt(batch.Blocks()[0]); observed {
		a.batchSeen = at
	}
}

// workContext returns the context for calls to the sink. It outlives ctx by half of the shutdown timeout, so that the
// current batch can be finished and committed.
func (a *attempt) workContext(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(a.engine.cfg.ShutdownTimeout.Duration/2, cancel)
	})
	return work, func() { stop(); cancel() }
}

// finish makes the last commit. With final it repeats the commit until the sink's state no longer changes.
func (a *attempt) finish(work context.Context, final bool) error {
	if work.Err() != nil {
		// The sink did not answer in time. What it acknowledged before that can still be committed, if that is quick.
		var cancel context.CancelFunc
		work, cancel = context.WithTimeout(context.WithoutCancel(work), a.engine.cfg.ShutdownTimeout.Duration/4)
		defer cancel()
	}
	for {
		if err := a.awaitPending(work); err != nil { // until then the commit's goroutine owns saved
			return err
		}
		before := string(a.saved.Sink)
		if err := a.commit(work, final); err != nil {
			return err
		}
		if !final || string(a.saved.Sink) == before {
			return nil
		}
	}
}

// recycle returns a batch, with the blocks that were not processed, to the buffer.
func (a *attempt) recycle(batch *buffer.Snapshot) {
	for _, block := range batch.Blocks() {
		if block != nil {
			a.buf.Release(block)
		}
	}
	a.buf.Recycle(batch)
}
