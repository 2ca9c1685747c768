// Package growth says what is wrong with one target, from the reports of its parser and the state of its pod.
//
// A chain of small policies, first match wins, turns a window of reports into a verdict with a reason and a one-line message.
// A Tracker adds memory: a bad verdict is entered at once and left only after a number of clean polls, so that nothing flaps.
//
// It must never touch the network, the API server or the clock: whoever calls it says what was seen and when. It must never
// decide what is done about a verdict; that is the plan's.
package growth

import (
	"time"
)

// Verdict is what the operator thinks of one target.
type Verdict string

const (
	// Unknown: too little was seen to say. It restarts nothing and is not bad.
	Unknown Verdict = "Unknown"
	// Healthy: none of the others.
	Healthy Verdict = "Healthy"
	// NotRunning: the container does not run, or a stream inside it has failed for good. A restart cures neither.
	NotRunning Verdict = "NotRunning"
	// Unreachable: the container runs and its report cannot be had. It may well deliver: it is not restarted.
	Unreachable Verdict = "Unreachable"
	// Growing: memory is not bounded any more. A restart cures it.
	Growing Verdict = "Growing"
	// SinkDown: the sink does not acknowledge. Restarting the parser would make the outage worse.
	SinkDown Verdict = "SinkDown"
	// Stuck: the parser has work and does nothing. A restart cures it.
	Stuck Verdict = "Stuck"
)

// Verdicts lists every verdict, worst first: the order in which targets are shown.
func Verdicts() []Verdict {
	return []Verdict{Growing, Stuck, NotRunning, SinkDown, Unreachable, Unknown, Healthy}
}

// Bad reports whether a person should know.
func (v Verdict) Bad() bool { return v != Unknown && v != Healthy && v != "" }

// Restartable reports whether a restart of the parser may cure it.
func (v Verdict) Restartable() bool { return v == Growing || v == Stuck }

const (
	// ReasonUnbounded is the reason of Growing: buffers hold more than they may ever hold.
	ReasonUnbounded = "Unbounded"
	// ReasonStreamFailed is the reason of NotRunning when the container runs and one of its streams has stopped for good.
	ReasonStreamFailed = "StreamFailed"
)

// The chain's figures that are not settings.
const (
	// MinReports is how many reports it takes to judge by: half a minute at the default interval. A broken bound needs fewer.
	MinReports = 6
	// cleanPolls is how many polls in a row must not show a bad verdict before it is left: a minute at the default interval, so
	// that a fault that comes and goes is one fault.
	cleanPolls = 12
	// missedPolls in a row without a report make a parser Unreachable: one lost answer is no news, three are.
	missedPolls = 3
	// runningOver is how many reports in a row must be over the bound: buffers are counted while they move.
	runningOver = 3
	// boundSlack covers what is held besides blocks and the longest line: encoded output of the batch in hand.
	boundSlack = 4 << 20
	// sinkPatience is how long a sink may be silent. A broker's failover takes a few seconds, seldom more than twenty.
	sinkPatience = 30 * time.Second
	// startPatience is how long a pod may take to start its container: pulling an image and mounting volumes is no fault.
	startPatience = 30 * time.Second
	// stillReports is the least number of reports that tell a hang: two far apart may have anything between them.
	stillReports = 3
)

// Settings are what an object may set of the chain.
type Settings struct {
	PollInterval time.Duration
	StuckAfter   time.Duration
	// BufferLimit in bytes, for a parser whose report does not tell it.
	BufferLimit int64
}

// Judgement is a verdict with what led to it. Reason and Message are those of the moment when the verdict was reached: they do
// not follow the figures.
type Judgement struct {
	Verdict Verdict
	Reason  string
	Message string
	// Since is when the verdict was reached.
	Since time.Time
	// Fading is true when the last poll did not show this bad verdict any more, though it is not yet left. Nothing is done
	// about a fading verdict.
	Fading bool
}

// key is what must change for a judgement to be a new one. Which stream is stuck, or how a connection fails, may alternate from
// poll to poll; why a container does not run is news.
func (j Judgement) key() string {
	if j.Verdict == NotRunning {
		return string(j.Verdict) + "/" + j.Reason
	}
	return string(j.Verdict)
}
