package health

import (
	"time"
)

// Verdict is the operator's judgement of one target.
type Verdict string

const (
	// Unknown means that too little is known to judge. It is not bad and causes no restart.
	Unknown Verdict = "Unknown"
	// Healthy means that no other verdict applies.
	Healthy Verdict = "Healthy"
	// CatchingUp means that the parser is far behind and gaining. It is not bad: no action is needed.
	CatchingUp Verdict = "CatchingUp"
	// NotRunning means that the container does not run, or that a stream in it has failed for good. A restart cures
	// neither.
	NotRunning Verdict = "NotRunning"
	// Unreachable means that the container runs and its report cannot be fetched. It may well deliver, so it is not
	// restarted.
	Unreachable Verdict = "Unreachable"
	// Growing means that memory is no longer bounded, or that the backlog grows through the parser's own fault. A
	// restart cures it.
	Growing Verdict = "Growing"
	// SourceUnreadable means that a file or directory of the Hyperliquid node cannot be read. The parser retries by
	// itself; a restart cures nothing.
	SourceUnreadable Verdict = "SourceUnreadable"
	// SinkDown means that the sink does not acknowledge. A restart of the parser would make the outage worse.
	SinkDown Verdict = "SinkDown"
	// Stuck means that the parser has work and makes no progress. A restart cures it.
	Stuck Verdict = "Stuck"
	// Overloaded means that the backlog grows, and the sink, the CPU or the disk explains it. A restart cures none of
	// them.
	Overloaded Verdict = "Overloaded"
	// Leaking means that memory will run out soon. A timely restart costs less than an OOM kill.
	Leaking Verdict = "Leaking"
	// SourceStalled means that the Hyperliquid node has stopped writing. The parser cannot change that.
	SourceStalled Verdict = "SourceStalled"
)

// Verdicts returns all verdicts, worst first: the order in which targets are listed.
func Verdicts() []Verdict {
	return []Verdict{
		Growing, Stuck, NotRunning, SourceUnreadable, SinkDown, Overloaded, Leaking, Unreachable, SourceStalled,
		Unknown, CatchingUp, Healthy,
	}
}

// Bad reports whether the verdict needs attention.
func (v Verdict) Bad() bool {
	switch v {
	case Unknown, Healthy, CatchingUp, "":
		return false
	}
	return true
}

// Restartable reports whether a restart of the parser may cure the fault.
func (v Verdict) Restartable() bool { return v == Growing || v == Stuck || v == Leaking }

const (
	// ReasonUnbounded is the reason of Growing when buffers exceed their bound.
	ReasonUnbounded = "Unbounded"
	// ReasonParserSlow is the reason of Growing when the parser falls behind and nothing outside it explains that.
	ReasonParserSlow = "ParserSlow"
	// ReasonSink is the reason of Overloaded when the sink accepts less than the node writes.
	ReasonSink = "Sink"
	// ReasonCPU is the reason of Overloaded when the parser uses all the CPU time that it may use.
	ReasonCPU = "CPU"
	// ReasonDisk is the reason of Overloaded when lines are read more slowly than they are written.
	ReasonDisk = "Disk"
	// ReasonMemory is the reason of Leaking.
	ReasonMemory = "Memory"
	// ReasonStreamFailed is the reason of NotRunning when the container runs and one of its streams has failed for good.
	ReasonStreamFailed = "StreamFailed"
	// ReasonBacklogUnknown is the reason of Unknown when a parser does not know its backlog.
	ReasonBacklogUnknown = "BacklogUnknown"
	// ReasonNothingAcknowledged is the reason of Unknown when lines wait and none was acknowledged since the parser
	// started.
	ReasonNothingAcknowledged = "NothingAcknowledged"
	// ReasonSecretMissing is the reason of SinkDown when the parser lacks the credentials of its sink.
	ReasonSecretMissing = "SecretMissing"
)

// MissedPolls is how many polls in a row without a report make a parser Unreachable. One lost answer means nothing.
const MissedPolls = 3

// Figures of the chain that are not settings.
const (
	// MinReports is how many reports a judgement takes: half a minute at the default interval. A broken bound takes
	// fewer.
	MinReports = 6
	// rateReports is how many reports a rate takes: a minute at the default interval, over which bursts level out.
	rateReports = 13
	// cleanPolls is how many clean polls in a row clear a bad verdict: a minute at the default interval, so that an
	// intermittent fault is one fault.
	cleanPolls = 12
	// overBoundReports is how many reports in a row must exceed the bound: buffers are counted while they move.
	overBoundReports = 3
	// boundSlack covers what is held besides blocks and the longest line: encoded output of the current batch.
	boundSlack = 4 << 20
	// sinkSilence is how long a sink may acknowledge nothing. A broker's failover takes a few seconds, seldom more than
	// twenty.
	sinkSilence = 30 * time.Second
	// startGrace is how long a container may take to start: pulling an image and mounting volumes is no fault.
	startGrace = 30 * time.Second
	// minUnmovedReports is the least number of reports that show a hang: between two far apart anything may happen.
	minUnmovedReports = 3
	// slowPolls is how many polls in a row must show ParserSlow, since a restart follows: half a minute at the default
	// interval, on top of a minute's rates and the lag.
	slowPolls = 6
	// overloadPolls is how many of the last overloadWindow polls must show Overloaded. They need not be in a row: a sink
	// at its limit keeps level whenever traffic ebbs.
	overloadPolls  = 18
	overloadWindow = 24
	// catchUpRatio is the least ratio of acknowledged to written bytes that counts as gaining: a tenth more, so that an
	// end is in sight.
	catchUpRatio = 1.1
	// sinkShare and diskShare are the shares of time spent waiting that explain a lag: without half of its waiting, a
	// parser would do twice as much.
	sinkShare = 0.5
	diskShare = 0.5
	// cpuShare is the share of the CPU limit that counts as all of it: the rest is lost to scheduling.
	cpuShare = 0.9
	// bestShare is the share of the best minute that counts as full speed: minutes differ by some percent.
	bestShare = 0.9
	// leakFloor is the share of the memory limit below which a slope is no concern.
	leakFloor = 0.6
	// leakHorizon is how soon memory must run out: time for an operator to react, and for an orderly restart.
	leakHorizon = 30 * time.Minute
	// defaultStalledAfter is how long a stream that is always written may receive no line, unless set.
	defaultStalledAfter = time.Minute
	// defaultNoDataAfter is how long a stream may have nothing to read while the node writes others, unless set. A node
	// creates the directories of its streams within seconds of its start.
	defaultNoDataAfter = 2 * time.Minute
)

// Settings are the parts of the chain that an object configures.
type Settings struct {
	PollInterval time.Duration
	// Lag is from which lag on a stream counts as behind. Zero disables the judgement.
	Lag        time.Duration
	StuckAfter time.Duration
	// SourceStalledAfter is how long the node may write nothing, by stream. Zero disables the judgement. A stream that is
	// not in the map has the default of its kind.
	SourceStalledAfter map[string]time.Duration
	// Retention is how long the node's files are kept. Unread data half as old raises an alert; zero disables it.
	Retention time.Duration
	// BufferLimit is in bytes, for a parser whose report does not include it.
	BufferLimit int64
}

// Judgement is a verdict with its cause. Reason and Message are those of the moment the verdict was reached: they do
// not follow the figures.
type Judgement struct {
	Verdict Verdict
	Reason  string
	Message string
	// Since is when the verdict was reached.
	Since time.Time
	// Fading is true when the newest poll no longer showed this bad verdict, which is not cleared yet. No action follows
	// from a fading verdict.
	Fading bool
}

// SinkTrouble reports whether the sink is at fault: it does not acknowledge, or accepts less than the node writes. A
// parser that lacks its credentials proves nothing about the sink.
func (j Judgement) SinkTrouble() bool {
	return j.Verdict == SinkDown && j.Reason != ReasonSecretMissing || j.Verdict == Overloaded && j.Reason == ReasonSink
}

// same reports whether other is the same judgement at another moment. Which stream is stuck, or how a connection fails,
// may alternate from poll to poll. Why a container does not run, or what overloads a parser, is news.
func (j Judgement) same(other Judgement) bool {
	switch j.Verdict {
	case NotRunning, Growing, Overloaded:
		return j.Verdict == other.Verdict && j.Reason == other.Reason
	case Unknown: // that enough reports do not suffice is news; how few there are is not
		return j.Verdict == other.Verdict && (j.Reason == other.Reason || !j.informed() && !other.informed())
	}
	return j.Verdict == other.Verdict
}

// informed reports whether Unknown follows from reports, and not from a lack of them.
func (j Judgement) informed() bool {
	return j.Reason == ReasonBacklogUnknown || j.Reason == ReasonNothingAcknowledged
}
