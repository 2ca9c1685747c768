package growth

import (
	"math/bits"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Poll is the outcome of asking a parser for its report: a report, or why there is none. The report is not kept.
type Poll struct {
	Report  *report.Report
	Failure string
}

// Tracker is the memory for one target: the window of reports, the verdict that is held, and the alerts. The zero value knows
// nothing. It is not safe for concurrent use.
type Tracker struct {
	in     Input // what the policies look at; kept, so that a judgement allocates nothing
	window Window
	alerts Alerts
	acked  acknowledged
	held   Judgement
	last   Judgement // what the chain said last
	clean  int       // polls in a row that showed nothing bad
	recent recent
	// past is set once the message of NotRunning says until when that was.
	past bool
	// delivered is set once two reports of one process showed a record that was delivered between them.
	delivered bool
}

// Judgement returns the verdict that is held; Unknown when there is none yet.
func (t *Tracker) Judgement() Judgement {
	j := t.held
	if j.Verdict == "" {
		j.Verdict = Unknown
	}
	return j
}

// Latest returns what the newest report and the pod's state show, with the figures of now; whether it is believed is
// another matter. The zero Judgement when nothing was seen.
func (t *Tracker) Latest() Judgement { return t.last }

// Process is when the process that reports started; zero: it has not reported.
func (t *Tracker) Process() time.Time { return t.window.startedAt }

// KnowsFormat reports whether reports reach back far enough to say whether lines are malformed.
func (t *Tracker) KnowsFormat() bool {
	_, known := t.window.minutes.base(t.window.At)
	return known
}

// Acknowledge takes in what a person has acknowledged of the losses of the pod's parser. An alert about no more than
// that ends; what is lost beyond it raises another.
func (t *Tracker) Acknowledge(lost, gap Loss) {
	t.acked = acknowledged{lost, gap}
	t.alerts.acknowledge(&t.acked)
}

// Alerts returns what a person should know beside the verdict.
func (t *Tracker) Alerts() Alerts { return t.alerts }

// Reports is how many reports the process that runs has given.
func (t *Tracker) Reports() int { return t.window.Reports }

// Delivered reports whether the sink was seen to acknowledge a record of the pod's parser.
func (t *Tracker) Delivered() bool { return t.delivered }

// Missed is how many polls in a row brought no report.
func (t *Tracker) Missed() int { return t.window.Missed }

// Lag is the worst stream's in the newest report. known is false when there is none, or none that says it; then it is 0.
func (t *Tracker) Lag() (lag time.Duration, known bool) { return t.window.Lag() }

// MissingSecret is the path, in the pod, of a secret without which the parser cannot reach a sink, as the newest report says; "" if none
// is missing.
func (t *Tracker) MissingSecret() string {
	for i := range t.window.Streams {
		if s := &t.window.Streams[i]; s.MissingSecret != "" {
			return s.MissingSecret
		}
	}
	return ""
}

// Evidence returns the totals that the rates of the verdict rest on, oldest first.
func (t *Tracker) Evidence() []Sample { return t.window.samples() }

// SeePod takes in the state of the pod and judges anew. It reports whether the judgement changed: its verdict, or whether it fades.
func (t *Tracker) SeePod(pod PodState, now time.Time, settings Settings) bool {
	switch {
	case pod.UID != t.in.Pod.UID:
		*t = Tracker{}
	case pod.Container != t.in.Pod.Container:
		t.forget()
		if t.in.Pod.Starting {
			t.held = Judgement{} // a slow start is over once it has started
		}
	}
	said := t.saySince(pod)
	t.in.Pod = pod
	return t.judge(now, settings, false) || said
}

// saySince says until when a container did not run that runs again: the verdict lasts until polls are clean, and what
// it says must be so. It reports whether the message changed.
func (t *Tracker) saySince(pod PodState) bool {
	if t.held.Verdict != NotRunning || t.in.Pod.Running || !pod.Running || pod.RunningSince.IsZero() {
		return false
	}
	t.past = true
	t.held.Message = prose.Line("did not run until "+pod.RunningSince.UTC().Format("15:04:05")+" UTC: "+t.held.Message,
		maxDetail+len("did not run until 15:04:05 UTC: "))
	return true
}

// SeePoll takes in the outcome of one poll and judges anew. It reports whether the judgement or an alert changed.
func (t *Tracker) SeePoll(poll Poll, now time.Time, settings Settings) bool {
	alerts := t.alerts
	if r := poll.Report; r != nil {
		if t.window.Reports > 0 && !r.StartedAt.Equal(t.window.startedAt) {
			t.forget()
		}
		t.delivered = t.delivered || t.window.delivers(r)
		t.window.add(r, now, &settings)
		t.alerts.see(r, now, &settings, &t.acked)
		t.alerts.drift(&t.window)
	} else {
		t.window.miss(poll.Failure)
	}
	judged := t.judge(now, settings, poll.Report != nil)
	return judged || t.alerts != alerts
}

// forget drops what the process before has reported: its totals say nothing of the new one. A bad verdict stays until clean polls
// clear it: a parser that crashes, runs for a moment and crashes again is one fault.
func (t *Tracker) forget() {
	t.window, t.recent = Window{}, recent{}
}

// judge holds on to a bad verdict until enough polls in a row were clean, and does not believe a slow fault before it has shown
// often enough; reported says whether there was a new report.
func (t *Tracker) judge(now time.Time, settings Settings, reported bool) bool {
	if t.in.Pod.Terminating {
		return false
	}
	before := t.held
	t.in.Now, t.in.Window, t.in.Settings = now, &t.window, settings
	next := chain.Judge(&t.in)
	t.last = next
	if reported {
		t.recent.see(next)
	}
	switch {
	case next.same(t.held):
		t.clean, t.held.Fading = 0, false
		if t.past && !t.in.Pod.Running {
			t.past, t.held.Message = false, next.Message // it does not run again
		}
	case !t.recent.believes(next):
		// Neither the verdict that is held nor a clean poll. What is overloaded by something else is overloaded still.
		t.clean, t.held.Fading = 0, t.held.Verdict.Bad() && (next.Verdict != Overloaded || t.held.Verdict != Overloaded)
	case next.Verdict.Bad() || !t.held.Verdict.Bad():
		t.clean, t.held, t.past = 0, next, false
	default:
		if reported && !t.window.unsure() { // what is not known is not clean
			t.clean++
		}
		t.held.Fading = true
		if t.clean >= cleanPolls {
			t.clean, t.held, t.past = 0, next, false
		}
	}
	return t.held != before
}

// slowFault is what is believed only once it has shown often enough.
type slowFault int

const (
	slowParser slowFault = iota // Growing/ParserSlow
	slowSink                    // Overloaded, by reason
	slowCPU
	slowDisk
	slowFaults
	notSlow slowFault = -1
)

func (j *Judgement) slowFault() slowFault {
	switch {
	case j.Verdict == Growing && j.Reason == ReasonParserSlow:
		return slowParser
	case j.Verdict != Overloaded:
		return notSlow
	case j.Reason == ReasonSink:
		return slowSink
	case j.Reason == ReasonCPU:
		return slowCPU
	}
	return slowDisk
}

// recent is which slow faults the last polls showed, one bit each, the newest lowest.
type recent [slowFaults]uint32

// see takes in what a poll showed.
func (r *recent) see(j Judgement) {
	for i := range r {
		r[i] <<= 1
	}
	if f := j.slowFault(); f != notSlow {
		r[f] |= 1
	}
}

// believes reports whether what the newest poll showed has shown often enough. What falls behind by turns for one reason and another
// is Overloaded by that which shows most often: a restart needs a clear case.
func (r *recent) believes(j Judgement) bool {
	const (
		inARow = 1<<slowPolls - 1
		window = 1<<overloadWindow - 1
	)
	fault := j.slowFault()
	switch fault {
	case notSlow:
		return true
	case slowParser:
		return r[slowParser]&inARow == inARow
	}
	var any uint32
	most := 0
	for f, polls := range r {
		any |= polls
		if slowFault(f) != slowParser {
			most = max(most, bits.OnesCount32(polls&window))
		}
	}
	return bits.OnesCount32(any&window) >= overloadPolls && bits.OnesCount32(r[fault]&window) == most
}
