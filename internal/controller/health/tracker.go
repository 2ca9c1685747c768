package health

import (
	"math/bits"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Poll is the outcome of one poll: a report, or why there is none. The tracker does not retain the report.
type Poll struct {
	Report  *report.Report
	Failure string
}

// Tracker keeps the state of one target: the window of reports, the current judgement, and the alerts. The zero value
// has observed nothing. It is not safe for concurrent use.
type Tracker struct {
	in      Input // of the policies; kept, so that a judgement allocates nothing
	window  Window
	alerts  Alerts
	acked   acknowledged
	current Judgement
	latest  Judgement // of the chain
	clean   int       // clean polls in a row
	recent  recentFaults
	// ended is true once the message of NotRunning says when that ended.
	ended bool
	// delivered is true once two reports of one process showed a record delivered between them.
	delivered bool
}

// Judgement returns the current judgement. It is Unknown while there is none.
func (t *Tracker) Judgement() Judgement {
	j := t.current
	if j.Verdict == "" {
		j.Verdict = Unknown
	}
	return j
}

// Latest returns what the newest report and the pod's state show, with current figures, confirmed or not. It is the
// zero Judgement before the first observation.
func (t *Tracker) Latest() Judgement { return t.latest }

// Process returns when the reporting process started; zero before its first report.
func (t *Tracker) Process() time.Time { return t.window.startedAt }

// KnowsFormat reports whether reports reach back far enough to compute the share of malformed lines.
func (t *Tracker) KnowsFormat() bool {
	_, known := t.window.counted.base(t.window.At)
	return known
}

// Acknowledge takes in the losses of the pod's parser that a user has acknowledged. An alert about no more than that
// ends; a larger loss raises another.
func (t *Tracker) Acknowledge(lost, gap Loss) {
	t.acked = acknowledged{lost, gap}
	t.alerts.acknowledge(&t.acked)
}

// Inherit takes over the alert NearRetention of an earlier pod of the target: the lines wait on the disk, whichever
// parser is to read them. It ends like one that this pod's reports raised.
func (t *Tracker) Inherit(nearRetention Alert) { t.alerts.NearRetention = nearRetention }

// Alerts returns the alerts.
func (t *Tracker) Alerts() Alerts { return t.alerts }

// Reports returns the number of reports of the running process.
func (t *Tracker) Reports() int { return t.window.Reports }

// Delivered reports whether the sink was observed to acknowledge a record of the pod's parser.
func (t *Tracker) Delivered() bool { return t.delivered }

// Missed returns the number of the latest polls in a row that brought no report.
func (t *Tracker) Missed() int { return t.window.Missed }

// Lag returns the lag of the worst stream in the newest report. known is false, and lag 0, when there is no report or
// none of its streams has a lag.
func (t *Tracker) Lag() (lag time.Duration, known bool) { return t.window.Lag() }

// Uncommitted returns the uncommitted bytes in the newest report of the running process; see Window.Uncommitted.
func (t *Tracker) Uncommitted() (bytes int64, known bool) { return t.window.Uncommitted() }

// MissingSecret returns the path, in the pod, of a secret without which the parser cannot reach a sink, from the newest
// report; "" when none is missing.
func (t *Tracker) MissingSecret() string {
	for i := range t.window.Streams {
		if s := &t.window.Streams[i]; s.MissingSecret != "" {
			return s.MissingSecret
		}
	}
	return ""
}

// Rates returns the rates of the streams in the newest report, in its order, and their names.
func (t *Tracker) Rates() (names []string, rates []Rates) {
	for i := range t.window.Streams {
		names, rates = append(names, t.window.Streams[i].Name), append(rates, t.window.Streams[i].Rates)
	}
	return names, rates
}

// Evidence returns the totals behind the rates of the verdict, oldest first.
func (t *Tracker) Evidence() []Sample { return t.window.samples() }

// ObservePod takes in the state of the pod and judges again. It reports whether the judgement changed: its verdict,
// whether it fades, or a message that had become wrong.
func (t *Tracker) ObservePod(pod PodState, now time.Time, settings Settings) bool {
	switch {
	case pod.UID != t.in.Pod.UID:
		waiting := t.alerts.NearRetention
		*t = Tracker{}
		t.Inherit(waiting)
	case pod.Container != t.in.Pod.Container:
		t.resetWindow()
		if t.in.Pod.Starting {
			t.current = Judgement{} // a slow start is over once it has started
		}
	}
	amended := t.amendMessage(pod)
	t.in.Pod = pod
	return t.judge(now, settings, false) || amended
}

// amendMessage adds until when a container did not run that runs again: the verdict lasts until polls are clean, and
// its message must be true. It reports whether the message changed.
func (t *Tracker) amendMessage(pod PodState) bool {
	if t.current.Verdict != NotRunning || t.in.Pod.Running || !pod.Running || pod.RunningSince.IsZero() {
		return false
	}
	t.ended = true
	t.current.Message = prose.Line(
		"not running until "+pod.RunningSince.UTC().Format("15:04:05")+" UTC: "+t.current.Message,
		maxDetail+len("not running until 15:04:05 UTC: "))
	return true
}

// ObservePoll takes in the outcome of one poll and judges again. It reports whether the judgement or an alert changed.
func (t *Tracker) ObservePoll(poll Poll, now time.Time, settings Settings) bool {
	before := t.alerts
	if r := poll.Report; r != nil {
		if t.window.Reports > 0 && !r.StartedAt.Equal(t.window.startedAt) {
			t.resetWindow()
		}
		t.delivered = t.delivered || t.window.showsDelivery(r)
		t.window.add(r, now, &settings)
		t.alerts.observe(r, now, &settings, &t.acked)
		t.alerts.observeDrift(&t.window)
	} else {
		t.window.miss(poll.Failure)
	}
	judged := t.judge(now, settings, poll.Report != nil)
	return judged || t.alerts != before
}

// resetWindow drops the reports of the previous process: its totals say nothing about the new one. A bad verdict stays
// until clean polls clear it: a parser that crashes in a loop, and runs for a moment each time, is one fault.
func (t *Tracker) resetWindow() {
	t.window, t.recent = Window{}, recentFaults{}
}

// judge updates the current judgement. It keeps a bad verdict until enough polls in a row are clean, and does not
// accept a slow fault before it is confirmed. reported is whether there is a new report.
func (t *Tracker) judge(now time.Time, settings Settings, reported bool) bool {
	if t.in.Pod.Terminating {
		return false
	}
	before := t.current
	t.in.Now, t.in.Window, t.in.Settings = now, &t.window, settings
	next := chain.Judge(&t.in)
	t.latest = next
	if reported {
		t.recent.observe(next)
	}
	switch {
	case next.same(t.current):
		t.clean, t.current.Fading = 0, false
		if t.ended && !t.in.Pod.Running {
			t.ended, t.current.Message = false, next.Message // it stopped running again
		}
	case !t.recent.confirm(next):
		// Neither the current verdict nor a clean poll. A parser overloaded by something else is still overloaded.
		t.clean = 0
		t.current.Fading = t.current.Verdict.Bad() && (next.Verdict != Overloaded || t.current.Verdict != Overloaded)
	case next.Verdict.Bad() || !t.current.Verdict.Bad():
		t.clean, t.current, t.ended = 0, next, false
	default:
		if reported && !t.window.unproven() { // what is unknown is not clean
			t.clean++
		}
		t.current.Fading = true
		if t.clean >= cleanPolls {
			t.clean, t.current, t.ended = 0, next, false
		}
	}
	return t.current != before
}

// slowFault is a fault that must show repeatedly before it is confirmed.
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

// recentFaults records which slow faults the latest polls showed, one bit per poll, the newest lowest.
type recentFaults [slowFaults]uint32

// observe takes in what a poll showed.
func (r *recentFaults) observe(j Judgement) {
	for i := range r {
		r[i] <<= 1
	}
	if f := j.slowFault(); f != notSlow {
		r[f] |= 1
	}
}

// confirm reports whether the fault that the newest poll showed has shown often enough. A parser that falls behind for
// alternating causes is Overloaded by the most frequent of them: a restart needs a clear case.
func (r *recentFaults) confirm(j Judgement) bool {
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
