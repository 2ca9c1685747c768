package growth

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Input is all that a policy may look at.
type Input struct {
	Now      time.Time
	Pod      PodState
	Window   *Window
	Settings Settings
}

// Func is one policy. It returns the verdict, a reason in CamelCase and one line for a person; matched is false when the policy
// has nothing to say.
type Func func(*Input) (verdict Verdict, reason, message string, matched bool)

// Chain is a list of policies, of which the first that matches speaks.
type Chain []Func

// NewChain returns the policies in their order. Those that explain a fault from outside the parser stand before those that blame
// the parser: a restart follows only from what is left. Among several streams that explanation of one is taken for all.
func NewChain() Chain {
	return Chain{
		NotRunningPod,    // the container does not run
		UnreachableOver,  // it runs, and its report cannot be had
		FailedStream,     // it reports that a stream has stopped for good
		UnreadableSource, // it reports that it cannot read the node's files
		MissingSecret,    // it reports that it cannot log in: no more reports would tell more
		UnboundedBuffers, // the bound itself is broken: too dangerous to wait for more reports
		TooFewReports,    // nothing below can be told yet
		SilentSink,       // the sink explains it
		StuckStream,      // nothing outside explains it, and nothing moves
		OverloadedStream, // far behind, and something outside explains it
		SlowStream,       // far behind, and nothing outside explains it
		LeakingMemory,    // it works, and will not for long
		StalledSource,    // it works, and has nothing to do
		UnknownBacklog,   // nothing is wrong as far as is known, which is not far enough for what follows
		UnprovenDelivery, // nor is it while nothing was delivered of what waits
		CatchingUpStream, // far behind, and getting nearer: nothing else is wrong
		Otherwise,
	}
}

// chain is shared: policies are pure.
var chain = NewChain()

// Judge returns what the first matching policy says, as of in.Now.
func (c Chain) Judge(in *Input) Judgement {
	for _, policy := range c {
		if verdict, reason, message, ok := policy(in); ok {
			return Judgement{Verdict: verdict, Reason: reason, Message: message, Since: in.Now}
		}
	}
	return Judgement{Verdict: Unknown, Reason: "NoPolicy", Since: in.Now}
}

// NotRunningPod matches a container that does not run, unless it is on its way and has not taken too long.
func NotRunningPod(in *Input) (Verdict, string, string, bool) {
	waited := in.Now.Sub(in.Pod.Since)
	switch {
	case in.Pod.Running:
		return "", "", "", false
	case in.Pod.Starting && waited < startPatience:
		return Unknown, "Starting", "the container is starting", true
	case in.Pod.Starting:
		return NotRunning, in.Pod.Reason, sentence(fmt.Sprintf("not running %s after the pod was created", round(waited)), in.Pod.Detail), true
	}
	if in.Pod.Detail != "" {
		return NotRunning, in.Pod.Reason, prose.Line(in.Pod.Detail, maxDetail), true // the cause first
	}
	return NotRunning, in.Pod.Reason, "the container does not run", true
}

// UnreachableOver matches a running container whose last polls brought no report.
func UnreachableOver(in *Input) (Verdict, string, string, bool) {
	if in.Window.Missed < missedPolls {
		return "", "", "", false
	}
	return Unreachable, "NoReport", sentence(fmt.Sprintf("%d polls in a row without a report", in.Window.Missed), in.Window.Failure), true
}

// FailedStream matches a parser that says itself that a stream will not go on, such as for a corrupt checkpoint.
func FailedStream(in *Input) (Verdict, string, string, bool) {
	for i := range in.Window.Streams {
		if s := &in.Window.Streams[i]; s.State == report.Failed {
			return NotRunning, ReasonStreamFailed, sentence(s.Name+" has failed", s.Message), true
		}
	}
	return "", "", "", false
}

// UnreadableSource matches a parser that says that it cannot read what it should. It waits for that, so it is not Stuck.
func UnreadableSource(in *Input) (Verdict, string, string, bool) {
	for i := range in.Window.Streams {
		if s := &in.Window.Streams[i]; s.Unreadable != "" {
			return SourceUnreadable, s.Name, sentence("the files of "+s.Name+" cannot be read", s.Unreadable), true
		}
	}
	return "", "", "", false
}

// MissingSecret matches a parser that has no password or key to reach its sink with. The detail is the file's path alone.
func MissingSecret(in *Input) (Verdict, string, string, bool) {
	for i := range in.Window.Streams {
		if s := &in.Window.Streams[i]; s.MissingSecret != "" {
			return SinkDown, ReasonSecretMissing, sentence("the sink of "+s.Name+" cannot be reached without a secret", s.MissingSecret), true
		}
	}
	return "", "", "", false
}

// UnboundedBuffers matches a parser that holds more than its bound in several reports running, or twice as much once.
func UnboundedBuffers(in *Input) (Verdict, string, string, bool) {
	w := in.Window
	if w.Over == 0 || w.Over < runningOver && w.Held <= 2*w.Bound {
		return "", "", "", false
	}
	var lines int64
	for i := range w.Streams {
		lines += w.Streams[i].HeldLines
	}
	return Growing, ReasonUnbounded, fmt.Sprintf("buffers hold %s in %s lines, more than the %s that they may ever hold",
		bytes(w.Held), humanize.Comma(lines), bytes(w.Bound)), true
}

// TooFewReports matches until there is enough to judge by.
func TooFewReports(in *Input) (Verdict, string, string, bool) {
	if in.Window.Reports >= MinReports {
		return "", "", "", false
	}
	return Unknown, "TooFewReports", fmt.Sprintf("waiting for %d reports", MinReports), true
}

// SilentSink matches a stream whose sink has acknowledged nothing for a while, though it was asked to.
func SilentSink(in *Input) (Verdict, string, string, bool) {
	var worst *Stream
	for i := range in.Window.Streams {
		s := &in.Window.Streams[i]
		failing := s.SinkState == report.SinkRetrying || s.SinkState == report.SinkFailed
		asked := s.Outstanding >= sinkPatience || failing && s.SinkSince >= sinkPatience
		if asked && s.SinkSilent >= sinkPatience && (worst == nil || s.SinkSilent > worst.SinkSilent) {
			worst = s
		}
	}
	if worst == nil {
		return "", "", "", false
	}
	waits := bytes(worst.Uncommitted) + " waits"
	if worst.Blind {
		waits = "what waits is not known"
	}
	return SinkDown, worst.Name, sentence(fmt.Sprintf("the sink of %s has acknowledged nothing for %s, %s",
		worst.Name, round(worst.SinkSilent), waits), worst.SinkError), true
}

// StuckStream matches a stream with whole lines waiting in which no stage that has some has moved for long, with nothing to wait for.
func StuckStream(in *Input) (Verdict, string, string, bool) {
	var worst *Stream
	for i := range in.Window.Streams {
		s := &in.Window.Streams[i]
		if s.StillReports < stillReports || in.Window.At.Sub(s.StillSince) < in.Settings.StuckAfter {
			continue
		}
		if worst == nil || s.StillSince.Before(worst.StillSince) {
			worst = s
		}
	}
	if worst == nil {
		return "", "", "", false
	}
	return Stuck, worst.Name, fmt.Sprintf("%s: %s of whole lines wait, %s behind, and nothing was parsed or acknowledged for %s; the sink is idle",
		worst.Name, bytes(worst.Uncommitted), round(worst.Lag), round(in.Window.At.Sub(worst.StillSince))), true
}

// LeakingMemory matches a process whose memory has long been rising and will soon be at its limit.
func LeakingMemory(in *Input) (Verdict, string, string, bool) {
	m := &in.Window.Memory
	left, ok := m.left()
	if !ok || left > leakHorizon {
		return "", "", "", false
	}
	return Leaking, ReasonMemory, fmt.Sprintf("memory is at %s of %s and has grown by %s/min for %d min: full in about %s",
		bytes(m.Newest), bytes(m.Limit), bytes(int64(m.Slope)), m.Minutes, max(left.Round(time.Minute), time.Minute)), true
}

// StalledSource matches a stream in which the node writes nothing, though it never rests. One that is still catching up has work.
func StalledSource(in *Input) (Verdict, string, string, bool) {
	var worst, waiting *Stream
	for i := range in.Window.Streams {
		s := &in.Window.Streams[i]
		after := in.Settings.stalledAfter(s)
		if after > 0 && s.Rest >= after && s.cause(in) != causeCatchingUp && (worst == nil || s.Rest > worst.Rest) {
			worst = s
		}
		after = in.Settings.waitingAfter(s)
		if after > 0 && s.Waited >= after && (waiting == nil || s.Waited > waiting.Waited) {
			waiting = s
		}
	}
	switch {
	case waiting != nil:
		return SourceStalled, waiting.Name, sentence(fmt.Sprintf("%s: nothing to read for %s, while the node writes other streams",
			waiting.Name, round(waiting.Waited)), waiting.Message), true
	case worst == nil:
		return "", "", "", false
	case worst.State == report.WaitingForData:
		return SourceStalled, worst.Name, sentence(worst.Name+": nothing to read for "+round(worst.Rest).String(), worst.Message), true
	}
	return SourceStalled, worst.Name, fmt.Sprintf("%s: no new line for %s: look at the Hyperliquid node", worst.Name, round(worst.Rest)), true
}

// UnknownBacklog matches a stream of which the parser does not know what waits, and a report without streams: a figure
// that is absent is no proof of health.
func UnknownBacklog(in *Input) (Verdict, string, string, bool) {
	if in.Window.Empty {
		return Unknown, ReasonBacklogUnknown, "the report names no stream", true
	}
	for i := range in.Window.Streams {
		if s := &in.Window.Streams[i]; s.Blind {
			return Unknown, ReasonBacklogUnknown, sentence(s.Name+": it is not known what waits", s.Message), true
		}
	}
	return "", "", "", false
}

// UnprovenDelivery matches a process that has lines and has delivered none of them yet. A sink that is dead from the
// start shows in nothing else until it has been silent for long.
func UnprovenDelivery(in *Input) (Verdict, string, string, bool) {
	for i := range in.Window.Streams {
		if s := &in.Window.Streams[i]; s.Unacknowledged {
			return Unknown, ReasonNothingAcknowledged, sentence(fmt.Sprintf(
				"%s: %s wait, and nothing was acknowledged since the parser started",
				s.Name, bytes(s.Uncommitted)), s.SinkError), true
		}
	}
	return "", "", "", false
}

// waitingAfter is how long a stream may have nothing to read while the node writes others; 0: for ever.
func (s *Settings) waitingAfter(of *Stream) time.Duration {
	if set, ok := s.SourceStalledAfter[of.Name]; ok {
		return set
	}
	return waitingAfter
}

// stalledAfter is how long a stream may rest; 0: for ever. By default only those are watched that write with every block: order
// statuses, book diffs, and whatever is written block by block, since empty blocks are lines too.
func (s *Settings) stalledAfter(of *Stream) time.Duration {
	if set, ok := s.SourceStalledAfter[of.Name]; ok {
		return set
	}
	if of.Name == "OrderStatuses" || of.Name == "RawBookDiffs" || of.Mode == "ByBlock" {
		return stalledAfter
	}
	return 0
}

// Otherwise matches always.
func Otherwise(*Input) (Verdict, string, string, bool) {
	return Healthy, "Healthy", "buffers are bounded and lines move", true
}

// maxDetail bounds, in bytes, what a message quotes from a kubelet, a parser or a sink.
const maxDetail = 200

func sentence(what, detail string) string {
	if detail == "" {
		return what
	}
	return what + ": " + prose.Line(detail, maxDetail)
}

func bytes(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func round(d time.Duration) time.Duration { return d.Round(time.Second) }
