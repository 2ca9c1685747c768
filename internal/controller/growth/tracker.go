package growth

import (
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Poll is the outcome of asking a parser for its report: a report, or why there is none.
type Poll struct {
	Report  *report.Report
	Failure string
}

// Tracker is the memory for one target: the window of reports, and the verdict that is held. The zero value knows nothing.
// It is not safe for concurrent use.
type Tracker struct {
	pod    PodState
	window Window
	held   Judgement
	clean  int // polls in a row that did not show the held verdict
}

// Judgement returns the verdict that is held; Unknown when there is none yet.
func (t *Tracker) Judgement() Judgement {
	j := t.held
	if j.Verdict == "" {
		j.Verdict = Unknown
	}
	return j
}

// Window returns the reports that the verdict rests on.
func (t *Tracker) Window() Window { return t.window }

// SeePod takes in the state of the pod and judges anew. It reports whether the judgement changed: its verdict, or whether it fades.
func (t *Tracker) SeePod(pod PodState, now time.Time, settings Settings) bool {
	switch {
	case pod.UID != t.pod.UID:
		*t = Tracker{}
	case pod.Container != t.pod.Container:
		// What the old process reported says nothing of the new one. A bad verdict stays until clean polls clear it: a parser that
		// crashes, runs for a moment and crashes again is one fault.
		t.window = Window{}
		if t.pod.Starting {
			t.held = Judgement{} // a slow start is over once it has started
		}
	}
	t.pod = pod
	return t.judge(now, settings, false)
}

// SeePoll takes in the outcome of one poll and judges anew. It reports whether the judgement changed.
func (t *Tracker) SeePoll(poll Poll, now time.Time, settings Settings) bool {
	if poll.Report != nil {
		t.window = t.window.add(*poll.Report, now, settings)
	} else {
		t.window = t.window.miss(poll.Failure)
	}
	return t.judge(now, settings, poll.Report != nil)
}

// judge holds on to a bad verdict until enough polls in a row were clean; reported says whether this was such a poll, if clean.
func (t *Tracker) judge(now time.Time, settings Settings, reported bool) bool {
	if t.pod.Terminating {
		return false
	}
	before := t.held
	next := NewChain().Judge(Input{Now: now, Pod: t.pod, Window: t.window, Settings: settings})
	switch {
	case next.key() == t.held.key():
		t.clean, t.held.Fading = 0, false
	case next.Verdict.Bad() || !t.held.Verdict.Bad():
		t.clean, t.held = 0, next
	default:
		if reported {
			t.clean++
		}
		t.held.Fading = true
		if t.clean >= cleanPolls {
			t.clean, t.held = 0, next
		}
	}
	return t.held != before
}
