package engine

import (
	"context"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

const (
	// commitEvery and commitBytes group commits: a crash repeats at most this much to a sink that delivers at least once. Half a
	// second, so that a line is durable within one: it waits for the next commit to begin, and then for the disk.
	commitEvery = time.Second / 2
	commitBytes = 64 << 20
	// commitFiles bounds how often the file changes between two commits, as it does in a backlog of many small ones: a sink that keeps its
	// position with its records, file by file, counts on it (resume.MaxFiles).
	commitFiles = 128
	// commitPatience is how long delivery goes on beside a commit that the disk does not finish. What hangs must hold up the
	// stream in the end, or nobody notices.
	commitPatience = 5 * time.Second
)

// commit makes what was acknowledged up to one moment durable, in this order: the sink's records and the dead letter, then the
// checkpoint that speaks of them, then what the sink may do only after that.
type commit struct {
	began   time.Time
	flushed sink.Flushed
	state   checkpoint.State
	version uint64 // of the tailer's files in state
	bytes   int64  // acknowledged since the commit before
	news    bool   // state says something new
	cancel  context.CancelFunc
	done    chan struct{} // closed when the disk has done its part, or has refused
	err     error         // of that
}

// ended is closed when a commit was carried out; nil for nil, which never is.
func (c *commit) ended() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.done
}

// untilCommit is how long it is to the next commit. A clock that was set back makes it no longer than usual.
func (a *attempt) untilCommit() time.Duration {
	return min(max(a.commitAt.Sub(a.engine.now()), 0), commitEvery)
}

// commitIfDue begins a commit when enough time or data has passed, and completes the one before. Delivery goes on beside it, for
// a while: the disk must not hold up what is fresh, and must not fall behind without end.
func (a *attempt) commitIfDue(ctx context.Context) error {
	if c := a.pending; c != nil {
		select {
		case <-c.done:
			if err := a.complete(ctx); err != nil {
				return err
			}
		default:
			if !a.much() && a.engine.now().Sub(c.began) < commitPatience {
				return nil
			}
			if err := a.await(ctx); err != nil {
				return err
			}
		}
	}
	left := a.commitAt.Sub(a.engine.now())
	if !a.much() && left > 0 && left <= commitEvery {
		return nil
	}
	return a.begin(ctx, false)
}

// much tells that so much was acknowledged since the last commit that the next must not wait.
func (a *attempt) much() bool { return a.ackedBytes >= commitBytes || a.turns >= commitFiles }

// commit commits what was acknowledged, and waits until it is durable. It is called at the end of a line only. An outage is
// waited out where a repetition is harmless; where it is not the error asks for a new attempt.
func (a *attempt) commit(ctx context.Context, final bool) error {
	if err := a.await(ctx); err != nil {
		return err
	}
	if err := a.begin(ctx, final); err != nil {
		return err
	}
	return a.await(ctx)
}

// begin draws the line for a commit, and has the rest done beside delivery. There is none pending.
func (a *attempt) begin(ctx context.Context, final bool) error {
	now := a.engine.now()
	a.commitAt = now.Add(commitEvery)
	c := &commit{began: now, version: a.tail.Version(), bytes: a.ackedBytes, done: make(chan struct{})}
	c.state.CommittedAt = now.UTC()
	if err := a.retry(ctx, "flushing the sink", func() (err error) {
		done := a.asking()
		defer done()
		c.flushed, err = a.sink.Flush(ctx, final)
		return err
	}); err != nil {
		return err
	}
	c.state.Sink = c.flushed.State
	var err error
	if c.state.DeadLetterBytes, err = a.dead.Sync(); err != nil {
		return err
	}
	c.news = c.version != a.version || string(c.state.Sink) != string(a.saved.Sink) || c.state.DeadLetterBytes != a.saved.DeadLetterBytes
	if !c.news && c.flushed.Sync == nil {
		return nil
	}
	if c.news {
		c.state.Files = a.tail.Files()
		t := a.tail.Stats()
		c.state.Directory, c.state.Mode = t.Directory, string(t.Mode)
		c.state.Blocks, c.state.CurrentBlock = a.known.processed.checkpoint(), a.known.sequence.last
		a.stats.set(func(s *stats) { c.state.LastBlock = s.lastBlock })
	}
	a.ackedBytes, a.turns, a.pending = 0, 0, c
	work, cancel := context.WithCancel(ctx)
	c.cancel = cancel
	go func() {
		defer close(c.done)
		c.err = a.carryOut(work, c)
	}()
	return nil
}

// carryOut is the part of a commit that waits for the disk.
func (a *attempt) carryOut(ctx context.Context, c *commit) error {
	if c.flushed.Sync != nil {
		if err := a.retry(ctx, "syncing the sink", func() error { return c.flushed.Sync(ctx) }); err != nil {
			return err
		}
	}
	if !c.news {
		return nil
	}
	return a.retry(ctx, "saving the checkpoint", func() error { return a.store.Save(c.state) })
}

// await completes the pending commit, if there is one, when it was carried out. Meanwhile the stream stands still for the disk's
// sake, which counts as a request to the sink.
func (a *attempt) await(ctx context.Context) error {
	if a.pending == nil {
		return nil
	}
	done := a.asking()
	<-a.pending.done
	done()
	return a.complete(ctx)
}

// complete ends the pending commit, which was carried out.
func (a *attempt) complete(ctx context.Context) error {
	c := a.pending
	a.pending = nil
	c.cancel()
	if c.err != nil {
		return c.err
	}
	if !c.news {
		return nil
	}
	a.saved, a.version = c.state, c.version
	a.tail.Committed()
	a.stats.set(func(s *stats) {
		s.committed += c.bytes
		s.lastCommit = a.engine.now()
	})
	return a.retry(ctx, "completing the sink's commit", func() error { return a.sink.Committed(ctx) })
}

// abandon gives up the pending commit: whether it came to pass shows the checkpoint that is found at the next start.
func (a *attempt) abandon() {
	if c := a.pending; c != nil {
		c.cancel()
		<-c.done
		a.pending = nil
	}
}
