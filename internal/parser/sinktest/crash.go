package sinktest

import (
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// writer is a stream that a random schedule drives. It does the engine's steps in the engine's order, and may end
// between any two steps.
type writer struct {
	*stream
	t *rapid.T

	started bool // the first commit after Open is complete
	commit  *pendingCommit
}

// pendingCommit is a commit in progress.
type pendingCommit struct {
	flushed sink.Flushed
	next    int // the first record after the commit's flush
	synced  bool
	saved   bool
}

// crashAnywhere runs random schedules of the engine's steps. It compares what consumers received with a model: the
// numbers of the acknowledged records.
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
						other.retryWrite()
					}
				}
				w.step(step)
			}
		}
		for _, w := range writers {
			w.retryWrite()
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

// steps holds the possible steps. A more frequent step is listed more often.
var steps = []string{
	stepWrite, stepWrite, stepWrite, "refused write", stepFlush, stepFlush, stepSync, stepSync, "write beside sync",
	stepSave, stepSave, stepCommitted, stepCommitted, stepCommit, stepCommit, "last commit", stepCrash, stepCrash,
	"restart",
}

// step does the step if it is possible now, and nothing otherwise. A step that fails because of an outage that has just
// ended may be repeated later.
func (w *writer) step(name string) {
	w.t.Helper()
	c := w.commit
	switch name {
	case stepWrite:
		if w.started {
			w.outcome(w.write(w.t.Context(), w.draw("records")))
		}
	case "refused write":
		if w.started {
			w.p.target.Outage(true)
			w.attemptBriefly(w.draw("records"))
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
		if w.started && c != nil && !c.synced {
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

// retryWrite writes the refused records, as each stream's own goroutine in the engine does: a sink that left a torn
// record may block the other streams until then.
func (w *writer) retryWrite() {
	w.t.Helper()
	for deadline := time.Now().Add(recoveryTimeout); w.started && w.retry > 0; time.Sleep(time.Millisecond) {
		if !w.outcome(w.write(w.t.Context(), w.retry)) && time.Now().After(deadline) {
			w.t.Fatalf("writing to %s: the records are still refused after %v", w.name, recoveryTimeout)
		}
	}
}

func (w *writer) draw(what string) int { return rapid.IntRange(1, 40).Draw(w.t, what) }

// outcome handles the error of a call and reports whether it is nil.
func (w *writer) outcome(err error) bool {
	w.t.Helper()
	if err != nil && !w.mayReopen(err) {
		w.mustBeOutage(err)
	}
	w.reopen()
	return err == nil
}

// reopen opens the sink again after an error that requires it.
func (w *writer) reopen() {
	w.t.Helper()
	if w.sink == nil {
		w.started, w.commit = false, nil
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

// sync runs the commit's sync, concurrently with a write of n records.
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
		w.commit, w.started = nil, true
	}
}

// completeCommit completes the commit in progress, or makes one.
func (w *writer) completeCommit() {
	w.t.Helper()
	for deadline := time.Now().Add(recoveryTimeout); ; time.Sleep(time.Millisecond) {
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
			w.t.Fatalf("committing %s: no success within %v", w.name, recoveryTimeout)
		}
	}
}
