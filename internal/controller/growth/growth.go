// Package growth says what is wrong with one target, from the reports of its parser and the state of its pod.
//
// A chain of small policies, first match wins, turns a window of reports into a verdict with a reason and a one-line message.
// A Tracker adds memory: how often a slow fault must show before it is believed, and how many clean polls it takes to leave a bad
// verdict, so that nothing flaps. Beside the verdict it keeps Alerts, which say what a verdict does not: that data was lost.
//
// It must never touch the network, the API server or the clock: whoever calls it says what was seen and when. It must never
// decide what is done about a verdict; that is the plan's.
//
// One operator watches thousands of parsers, some reports a second each for the largest fleets: taking in a report allocates
// nothing once a parser's streams are known, and a target of seven streams costs about 12 KB (see BenchmarkFleet).
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
	// CatchingUp: far behind, and getting nearer. It is not bad: nothing needs to be done.
	CatchingUp Verdict = "CatchingUp"
	// NotRunning: the container does not run, or a stream inside it has failed for good. A restart cures neither.
	NotRunning Verdict = "NotRunning"
	// Unreachable: the container runs and its report cannot be had. It may well deliver: it is not restarted.
	Unreachable Verdict = "Unreachable"
	// Growing: memory is not bounded any more, or the backlog grows by the parser's own fault. A restart cures it.
	Growing Verdict = "Growing"
	// SourceUnreadable: a file or folder of the Hyperliquid node cannot be read. The parser tries again by itself; a restart cures nothing.
	SourceUnreadable Verdict = "SourceUnreadable"
	// SinkDown: the sink does not acknowledge. Restarting the parser would make the outage worse.
	SinkDown Verdict = "SinkDown"
	// Stuck: the parser has work and does nothing. A restart cures it.
	Stuck Verdict = "Stuck"
	// Overloaded: the backlog grows, and the sink, the processor or the disk explains it. A restart cures none of them.
	Overloaded Verdict = "Overloaded"
	// Leaking: memory will run out soon. A restart in time costs less than being killed.
	Leaking Verdict = "Leaking"
	// SourceStalled: the Hyperliquid node has stopped to write. The parser can do nothing about it.
	SourceStalled Verdict = "SourceStalled"
)

// Verdicts lists every verdict, worst first: the order in which targets are shown.
func Verdicts() []Verdict {
	return []Verdict{
		Growing, Stuck, NotRunning, SourceUnreadable, SinkDown, Overloaded, Leaking, Unreachable, SourceStalled,
		Unknown, CatchingUp, Healthy,
	}
}

// Bad reports whether a person should know.
func (v Verdict) Bad() bool {
	switch v {
	case Unknown, Healthy, CatchingUp, "":
		return false
	}
	return true
}

// Restartable reports whether a restart of the parser may cure it.
func (v Verdict) Restartable() bool { return v == Growing || v == Stuck || v == Leaking }

const (
	// ReasonUnbounded is the reason of Growing: buffers hold more than they may ever hold.
	ReasonUnbounded = "Unbounded"
	// ReasonParserSlow is the reason of Growing: the parser falls behind and nothing outside of it explains that.
	ReasonParserSlow = "ParserSlow"
	// ReasonSink is the reason of Overloaded: the sink takes less than what is written.
	ReasonSink = "Sink"
	// ReasonCPU is the reason of Overloaded: the parser uses all the processor time that it may use.
	ReasonCPU = "CPU"
	// ReasonDisk is the reason of Overloaded: lines are read more slowly than they are written.
	ReasonDisk = "Disk"
	// ReasonMemory is the reason of Leaking.
	ReasonMemory = "Memory"
	// ReasonStreamFailed is the reason of NotRunning when the container runs and one of its streams has stopped for good.
	ReasonStreamFailed = "StreamFailed"
	// ReasonBacklogUnknown is the reason of Unknown when a parser cannot tell what waits.
	ReasonBacklogUnknown = "BacklogUnknown"
	// ReasonNothingAcknowledged is the reason of Unknown when lines wait and a parser has delivered none since it
	// started.
	ReasonNothingAcknowledged = "NothingAcknowledged"
	// ReasonSecretMissing is the reason of SinkDown when the parser has nothing to log in with.
	ReasonSecretMissing = "SecretMissing"
)

// The chain's figures that are not settings.
const (
	// MinReports is how many reports it takes to judge by: half a minute at the default interval. A broken bound needs fewer.
	MinReports = 6
	// rateReports is how many reports it takes to judge speed by: a minute at the default interval, over which bursts level out.
	rateReports = 13
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
	// slowPolls in a row must show ParserSlow before it is believed, since a restart follows: half a minute at the default
	// interval, after a minute's rates and the lag have said so already.
	slowPolls = 6
	// overloadPolls of the last overloadWindow must show Overloaded before it is believed. A sink at its limit keeps level for a
	// while whenever traffic ebbs, so they need not be in a row.
	overloadPolls  = 18
	overloadWindow = 24
	// catchingUp is how much more than what is written must be acknowledged: a tenth, so that an end is in sight.
	catchingUp = 1.1
	// sinkShare and diskShare of the time spent waiting explain why a parser falls behind: with the half of its time it would do
	// twice as much.
	sinkShare = 0.5
	diskShare = 0.5
	// cpuShare of what the process may use is all of it: the rest is lost to scheduling.
	cpuShare = 0.9
	// asEver is the share of the best minute that counts as being as fast as ever: minutes differ by some percent.
	asEver = 0.9
	// leakFloor is the share of the memory limit below which a slope is no concern.
	leakFloor = 0.6
	// leakHorizon is how soon memory must run out: time for a person to look, and for a restart to be in order.
	leakHorizon = 30 * time.Minute
	// stalledAfter is how long a stream that never rests may rest, when it is not set.
	stalledAfter = time.Minute
	// waitingAfter is how long any stream may have nothing to read while the node writes others, when it is not set: a
	// node that starts makes the directories of its streams within seconds.
	waitingAfter = 2 * time.Minute
)

// Settings are what an object may set of the chain.
type Settings struct {
	PollInterval time.Duration
	// Lag is how far behind a stream may be before it is asked why; 0: however far.
	Lag        time.Duration
	StuckAfter time.Duration
	// SourceStalledAfter is, by stream, how long the node may write nothing; 0: however long. A stream that is not in it has the
	// default of its kind.
	SourceStalledAfter map[string]time.Duration
	// Retention is how long the node's files are kept: unread data half as old raises an alert; 0: never.
	Retention time.Duration
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

// SinkTrouble reports whether the sink is what is wrong: it does not acknowledge, or takes less than what is written. A parser that has
// nothing to log in with says nothing about the sink.
func (j Judgement) SinkTrouble() bool {
	return j.Verdict == SinkDown && j.Reason != ReasonSecretMissing || j.Verdict == Overloaded && j.Reason == ReasonSink
}

// same reports whether other is the same judgement at another moment. Which stream is stuck, or how a connection fails, may alternate
// from poll to poll; why a container does not run, or what a parser is overloaded by, is news.
func (j Judgement) same(other Judgement) bool {
	switch j.Verdict {
	case NotRunning, Growing, Overloaded:
		return j.Verdict == other.Verdict && j.Reason == other.Reason
	case Unknown: // why a parser with enough reports is not judged is news beside that too little was seen
		return j.Verdict == other.Verdict && (j.Reason == other.Reason || !j.informed() && !other.informed())
	}
	return j.Verdict == other.Verdict
}

// informed reports whether Unknown follows from what was reported, and not from a lack of reports.
func (j Judgement) informed() bool {
	return j.Reason == ReasonBacklogUnknown || j.Reason == ReasonNothingAcknowledged
}
