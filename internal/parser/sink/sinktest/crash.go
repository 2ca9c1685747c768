package sinktest

import (
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// writer is a stream in the hands of a random schedule. It does what the engine
// does, in the engine's order, and may be ended between any two steps.
type writer struct {
	*stream
	t *rapid.T

	begun  bool // the first commit since the sink was opened was completed
	commit *pendingCommit
}

// pendingCommit is a commit on its way.
type pendingCommit struct {
	flushed sink.Flushed
	next    int // the first record behind its line
	synced  bool
	saved   bool
}

// crashAnywhere runs random schedules of everything that the engine does, and
// compares what consumers were given with a model: the numbers of the records
// that were acknowledged.
func crashAnywhere(p *process) {
	p.sequences(1200*time.Millisecond, func(t *rapid.T, p *process) {
		writers := make([]*writer, rapid.IntRange(1, 3).Draw(t, "streams"))
		files := rapid.Bool().Draw(t, "many files")
		for i := range writers {
			s := p.opened(fmt.Sprintf("stream%d", i))
			if files {
				s.interleave()
			}
			s.pad(rapid.SampledFrom([]int{0, 0, 200, 3000}).Draw(t, "padding"))
			writers[i] = &writer{stream: s, t: t}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w := writers[rapid.IntRange(0, len(writers)-1).Draw(t, "stream")]
			switch step := rapid.SampledFrom(steps).Draw(t, "step"); step {
			case stepCrash, "restart":
				if step == stepCrash {
					p.crash()
				} else {
					p.restart()
				}
				for _, w := range writers {
					w.reopen()
				}
			default:
				for _, other := range writers {
					if other != w {
						other.writeAgain()
					}
				}
				w.step(step)
			}
		}
		for _, w := range writers {
			w.writeAgain()
		}
		for _, w := range writers {
			w.completeCommit()
			w.finish()
		}
	})
}

const (
	stepWrite     = "write"
	stepFlush     = "flush"
	stepSync      = "sync"
	stepSave      = "save"
	stepCommitted = "committed"
	stepCommit    = "whole commit"
	stepCrash     = "crash"
)

// steps are what may come next; what comes more often stands there more often.
var steps = []string{
	stepWrite, stepWrite, stepWrite, "refused write", stepFlush, stepFlush, stepSync, stepSync, "write beside sync", stepSave, stepSave,
	stepCommitted, stepCommitted, stepCommit, stepCommit, "last commit", stepCrash, stepCrash, "restart",
}

// step does what may be done now, or nothing. What fails for an outage that has just ended may be done again later.
func (w *writer) step(name string) {
	w.t.Helper()
	c := w.commit
	switch name {
	case stepWrite:
		if w.begun {
			w.outcome(w.write(w.t.Context(), w.draw("records")))
		}
	case "refused write":
		if w.begun {
			w.p.target.Outage(true)
			w.brief(w.draw("records"))
			w.p.target.Outage(false)
			w.reopen()
		}
	case stepFlush:
		if c == nil || !c.saved {
			w.flushNow(false)
		}
	case stepSync:
		if c != nil && !c.synced {
			w.sync(0)
		}
	case "write beside sync":
		if w.begun && c != nil && !c.synced {
			w.sync(w.draw("records"))
		}
	case stepSave:
		if c != nil && c.synced && !c.saved {
			w.save(c.flushed.State, c.next)
			c.saved = true
		}
	case stepCommitted:
		if c != nil && c.saved {
			w.completed()
		}
	case stepCommit:
		w.completeCommit()
	case "last commit":
		w.completeCommit()
		w.flushNow(true)
		w.completeCommit()
	}
}

// writeAgain writes what was refused, as each stream's own goroutine of the engine does: a sink that left a record torn may let no other
// stream write before.
func (w *writer) writeAgain() {
	w.t.Helper()
	for deadline := time.Now().Add(patience); w.begun && w.again > 0; time.Sleep(time.Millisecond) {
		if !w.outcome(w.write(w.t.Context(), w.again)) && time.Now().After(deadline) {
			w.t.Fatalf("write of %s: what was refused is refused for %v more", w.name, patience)
		}
	}
}

func (w *writer) draw(what string) int { return rapid.IntRange(1, 40).Draw(w.t, what) }

// outcome takes a call's error. It tells whether there was none.
func (w *writer) outcome(err error) bool {
	w.t.Helper()
	if err != nil && !w.mayReopen(err) {
		w.mustBeOutage(err)
	}
	w.reopen()
	return err == nil
}

// reopen opens the sink again where it asked for that.
func (w *writer) reopen() {
	w.t.Helper()
	if w.sink == nil {
		w.begun, w.commit = false, nil
		w.open()
	}
}

func (w *writer) flushNow(final bool) {
	w.t.Helper()
	f, err := w.sink.Flush(w.t.Context(), final)
	if w.outcome(err) {
		w.commit = &pendingCommit{flushed: f, next: w.next}
	}
}

// sync carries out the commit's sync, beside a write of n records.
func (w *writer) sync(n int) {
	w.t.Helper()
	synced, c := make(chan error, 1), w.commit
	go func() {
		if c.flushed.Sync == nil {
			synced <- nil
			return
		}
		synced <- c.flushed.Sync(w.t.Context())
	}()
	var wrote error
	if n > 0 {
		wrote = w.write(w.t.Context(), n)
	}
	err := <-synced
	c.synced = err == nil
	if w.outcome(wrote) {
		w.outcome(err)
	}
}

func (w *writer) completed() {
	w.t.Helper()
	if w.outcome(w.committed(w.t.Context())) {
		w.commit, w.begun = nil, true
	}
}

// completeCommit does what is missing of the commit on its way, or makes one.
func (w *writer) completeCommit() {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		for _, step := range []string{stepFlush, stepSync, stepSave} {
			if w.commit == nil == (step == stepFlush) {
				w.step(step)
			}
		}
		if c := w.commit; c != nil && c.saved {
			if w.completed(); w.commit == nil {
				return
			}
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("commit %s: it does not succeed within %v", w.name, patience)
		}
	}
}
