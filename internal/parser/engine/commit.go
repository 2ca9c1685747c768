package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

const (
	// commitEvery and commitBytes group commits: a crash repeats at most this much to a sink with at-least-once
	// delivery. With half a second, a line is durable within one second: it waits for the next commit to begin, and
	// then for the disk.
	commitEvery = time.Second / 2
	commitBytes = 64 << 20
	// commitFiles bounds how often the file changes between two commits, as it does in a backlog of many small files. A
	// sink that keeps its position file by file with its records relies on it (resume.MaxFiles).
	commitFiles = 128
	// commitTimeout is how long delivery continues while the disk does not finish a commit. A disk that hangs must
	// block the stream in the end, or it goes unnoticed.
	commitTimeout = 5 * time.Second
)

// commit makes what was acknowledged up to one moment durable, in this order: the sink's records and the dead letter,
// then the checkpoint that refers to them, then what the sink may do only after that.
type commit struct {
	began         time.Time
	flushed       sink.Flushed
	state         checkpoint.State
	version       uint64    // of the tailer's files in state
	bytes         int64     // acknowledged since the previous commit
	seen          time.Time // when the first of those bytes were observed on disk; zero: nobody observed it
	changed       bool      // state differs from the saved state
	progressSaved bool      // progress was saved while the commit was in progress
	cancel        context.CancelFunc
	done          chan struct{} // closed when the disk is done or has failed
	err           error         // valid once done is closed
}

// ended is closed when a commit is done. It is nil, and never ready, for a nil commit.
func (c *commit) ended() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.done
}

// untilCommit returns the time until the next commit, at most commitEvery even if the clock was set back.
func (a *attempt) untilCommit() time.Duration {
	return min(max(a.commitAt.Sub(a.engine.now()), 0), commitEvery)
}

// due reports whether the interval has passed since a moment, or the clock was set back.
func due(since, now time.Time, every time.Duration) bool {
	passed := now.Sub(since)
	return passed >= every || passed < 0
}

// commitIfDue completes the previous commit and begins one when enough time or data has passed. Delivery continues
// concurrently for up to commitTimeout: the disk must not delay fresh data, and must not fall behind without bound.
func (a *attempt) commitIfDue(ctx context.Context) error {
	a.logProgress()
	if c := a.pending; c != nil {
		select {
		case <-c.done:
			if err := a.completePending(ctx); err != nil {
				return err
			}
		default:
			if waited := a.engine.now().Sub(c.began); !a.commitDue() && waited >= 0 && waited < commitTimeout {
				return nil
			}
			if err := a.awaitPending(ctx); err != nil {
				return err
			}
		}
	}
	left := a.commitAt.Sub(a.engine.now())
	if !a.commitDue() && left > 0 && left <= commitEvery {
		return nil
	}
	return a.beginCommit(ctx, false)
}

// commitDue reports whether the data acknowledged since the last commit requires an immediate one.
func (a *attempt) commitDue() bool {
	return a.ackedBytes >= commitBytes || a.fileSwitches >= commitFiles
}

// commit commits what was acknowledged, and waits until it is durable. It is called only at the end of a line. It waits
// for an outage to end where repeating the call is harmless; where it is not, the error requests a new attempt.
func (a *attempt) commit(ctx context.Context, final bool) error {
	if err := a.awaitPending(ctx); err != nil {
		return err
	}
	if err := a.beginCommit(ctx, final); err != nil {
		return err
	}
	return a.awaitPending(ctx)
}

// beginCommit takes the state to commit and persists it concurrently with delivery. No commit may be pending.
func (a *attempt) beginCommit(ctx context.Context, final bool) error {
	now := a.engine.now()
	a.commitAt = now.Add(commitEvery)
	c := &commit{began: now, version: a.tail.Version(), bytes: a.ackedBytes, seen: a.ackedSeen, done: make(chan struct{})}
	c.state.CommittedAt = now.UTC()
	if err := a.retry(ctx, "flushing the sink", func() (err error) {
		done := a.trackSinkCall()
		defer done()
		c.flushed, err = a.sink.Flush(ctx, final)
		return err
	}); err != nil {
		return err
	}
	c.state.Sink = c.flushed.State
	if err := a.retry(ctx, "writing to the dead letter", func() (err error) {
		c.state.DeadLetterBytes, err = a.dead.Sync()
		return err
	}); err != nil {
		return err
	}
	a.countDropped()
	c.changed = c.version != a.committedVersion || string(c.state.Sink) != string(a.saved.Sink) ||
		c.state.DeadLetterBytes != a.saved.DeadLetterBytes
	if !c.changed && c.flushed.Sync == nil {
		return nil
	}
	if c.changed {
		c.state.Files, c.state.StartBlock = a.tail.Files(), a.startBlock
		t := a.tail.Stats()
		c.state.Directory, c.state.Mode = t.Directory, string(t.Mode)
		c.state.Blocks = a.committable.checkpoint()
		c.state.Counts = a.committedCounts.checkpoint()
		a.stats.set(func(s *stats) { c.state.LastBlock = s.lastBlock })
	}
	a.ackedBytes, a.ackedSeen, a.fileSwitches, a.pending = 0, time.Time{}, 0, c
	work, cancel := context.WithCancel(ctx)
	c.cancel = cancel
	go func() {
		defer close(c.done)
		c.err = a.persist(work, c)
	}()
	return nil
}

// persist is the part of a commit that waits for the disk.
func (a *attempt) persist(ctx context.Context, c *commit) error {
	if c.flushed.Sync != nil {
		stop := tickUntilStopped(func() { a.saveProgressDuring(c) })
		err := a.retry(ctx, "syncing the sink", func() error { return a.sync(ctx, c) })
		stop()
		if err != nil {
			return err
		}
	}
	if !c.changed {
		return nil
	}
	return a.retry(ctx, "saving the checkpoint", func() error { return a.saveState(c.state) })
}

// sync makes the sink's records durable, and measures that.
func (a *attempt) sync(ctx context.Context, c *commit) error {
	began := a.engine.now()
	err := c.flushed.Sync(ctx)
	took := a.engine.now().Sub(began)
	if a.kind == config.KindFile {
		a.distributions.Fsync(took)
	} else {
		a.distributions.Request(took)
	}
	return err
}

// saveState saves a checkpoint, and measures that.
func (a *attempt) saveState(state checkpoint.State) error {
	began := a.engine.now()
	err := a.store.Save(state)
	a.distributions.Fsync(a.engine.now().Sub(began))
	return err
}

// awaitPending waits for the pending commit, if there is one, and completes it. Meanwhile the stream is blocked by the
// disk, which counts as a request to the sink.
func (a *attempt) awaitPending(ctx context.Context) error {
	if a.pending == nil {
		return nil
	}
	done := a.trackSinkCall()
	<-a.pending.done
	done()
	return a.completePending(ctx)
}

// completePending completes the pending commit, whose goroutine has ended.
func (a *attempt) completePending(ctx context.Context) error {
	c := a.pending
	a.pending = nil
	c.cancel()
	a.countDelivered()
	if c.err != nil {
		return c.err
	}
	if !c.changed {
		return nil
	}
	a.recordCommitted(c)
	a.stats.set(func(s *stats) {
		s.committed += c.bytes
		s.lastCommit = a.engine.now()
	})
	if !c.seen.IsZero() {
		a.distributions.Committed(a.engine.now().Sub(c.seen))
	}
	return a.retry(ctx, "completing the sink's commit", func() error { return a.sink.Committed(ctx) })
}

// abandonPending cancels the pending commit. The checkpoint shows at the next start whether it succeeded.
func (a *attempt) abandonPending() {
	if c := a.pending; c != nil {
		c.cancel()
		<-c.done
		a.pending = nil
		if c.err == nil && c.changed {
			a.recordCommitted(c)
		}
	}
}

// recordCommitted records that a commit's state is on disk.
func (a *attempt) recordCommitted(c *commit) {
	a.saved, a.committedVersion = c.state, c.version
	if c.progressSaved {
		a.committedVersion = 0 // the tailer's files were read since; the next commit reports to it what is committed
		return
	}
	a.tail.Committed()
}

// saveProgress saves what was observed of the files since the last commit, above all sizes and times, with the
// positions and the sink's state of that commit. Data once reported as backlog is then counted as lost if it is gone
// when the next process starts. It does nothing while a commit is pending, which owns the checkpoint, or before the
// start position is decided.
func (a *attempt) saveProgress() error {
	if a.pending != nil {
		return nil
	}
	_, err := a.save()
	return err
}

// saveProgressIfDue is saveProgress at most once per commitEvery. It retries after an error.
func (a *attempt) saveProgressIfDue() {
	if a.pending == nil {
		a.trySave()
	}
}

// saveProgressDuring is saveProgressIfDue for the goroutine that persists a commit, while it waits for the sink.
func (a *attempt) saveProgressDuring(c *commit) {
	if a.trySave() {
		c.progressSaved = true
	}
}

func (a *attempt) trySave() (saved bool) {
	now := a.engine.now()
	if !due(a.savedAt, now, commitEvery) {
		return false
	}
	a.savedAt = now
	saved, err := a.save()
	if err != nil {
		a.log.Warn("saving the backlog's progress; retrying", "error", err, "after", commitEvery)
	}
	return saved
}

func (a *attempt) save() (saved bool, err error) {
	if !a.decided() {
		return false, nil
	}
	version := a.tail.Version()
	if version == a.committedVersion || version == a.savedVersion {
		return false, nil
	}
	state, all := a.saved, true
	state.CommittedAt = a.engine.now().UTC()
	state.Unopened = state.Unopened || a.sink == nil && a.engine.state.New(a.kebab)
	state.Files = a.tail.Files()
	if a.readerStarted {
		state.Files, all = uncommitted(a.saved.Files, state.Files)
	}
	if err := a.saveState(state); err != nil {
		return false, fmt.Errorf("saving the checkpoint: %w", err)
	}
	a.saved, a.savedVersion = state, version
	a.tail.Saved()
	if all {
		a.committedVersion = version
		a.tail.Committed()
	}
	return true, nil
}

// uncommitted returns the files as last observed, except for the positions of files with acknowledged but uncommitted
// data. Those positions stay as saved, because the sink's state does. all reports whether there are none.
func uncommitted(saved, observed []checkpoint.File) (files []checkpoint.File, all bool) {
	type inode struct {
		directory string
		inode     uint64
	}
	named := make(map[position.FileID]*checkpoint.File, len(saved))
	inodes := make(map[inode]*checkpoint.File, len(saved)) // of files that were renamed or replaced since
	for i := range saved {
		f := &saved[i]
		named[f.FileID], inodes[inode{f.Directory, f.Inode}] = f, f
	}
	for i := range observed {
		if was := named[observed[i].FileID]; was != nil && inodes[inode{was.Directory, was.Inode}] == was {
			delete(inodes, inode{was.Directory, was.Inode})
		}
	}
	all = true
	for _, f := range observed {
		was := named[f.FileID]
		if was == nil {
			was = inodes[inode{f.Directory, f.Inode}]
		}
		switch {
		case was == nil && f.Offset > 0:
			all = false
			continue // the file appeared since the commit; a reader without a position begins at its start
		case was != nil && (was.Offset < f.Offset || f.Offset > 0 && was.Generation != f.Generation):
			all = false
			held := *was
			held.Size, held.AbsentSeconds = max(f.Size, was.Offset), f.AbsentSeconds
			f = held
		}
		files = append(files, f)
	}
	return files, all
}

// saveAndLogMeanwhile saves and logs progress in the background until stop is called. The caller waits for something
// that may take long, and touches neither the checkpoint nor the pending commit.
func (a *attempt) saveAndLogMeanwhile() (stop func()) {
	return tickUntilStopped(func() {
		a.saveProgressIfDue()
		a.logProgress()
	})
}

// tickUntilStopped calls tick every commitEvery on another goroutine until stop is called. stop waits for a call in
// progress.
func tickUntilStopped(tick func()) (stop func()) {
	stopped, ended := make(chan struct{}), make(chan struct{})
	timer := time.AfterFunc(commitEvery, func() {
		defer close(ended)
		ticker := time.NewTicker(commitEvery)
		defer ticker.Stop()
		for {
			tick()
			select {
			case <-stopped:
				return
			case <-ticker.C:
			}
		}
	})
	return func() {
		if !timer.Stop() {
			close(stopped)
			<-ended
		}
	}
}
