package health

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Input is everything that a policy may depend on.
type Input struct {
	Now      time.Time
	Pod      PodState
	Window   *Window
	Settings Settings
}

// Policy matches one fault or state. It returns the verdict, a reason in CamelCase and a one-line message. matched is
// false when the policy does not apply.
type Policy func(*Input) (verdict Verdict, reason, message string, matched bool)

// Chain is an ordered list of policies. The first that matches decides.
type Chain []Policy

// NewChain returns the policies in their order. Those that explain a fault from outside the parser come before those
// that blame it: a restart follows only from what is left. An explanation of one stream holds for all streams.
func NewChain() Chain {
	return Chain{
		NotRunningPod,    // the container does not run
		UnreachablePod,   // it runs, and its report cannot be fetched
		FailedStream,     // it reports that a stream has stopped for good
		UnreadableSource, // it reports that it cannot read the node's files
		MissingSecret,    // it reports that it cannot log in: more reports would add nothing
		UnboundedBuffers, // the bound itself is broken: too dangerous to wait for more reports
		TooFewReports,    // the policies below need more
		SilentSink,       // the sink explains it
		StuckStream,      // nothing outside explains it, and nothing moves
		OverloadedStream, // far behind, and something outside explains it
		SlowStream,       // far behind, and nothing outside explains it
		LeakingMemory,    // it works, and will not for long
		StalledSource,    // it works, and has nothing to do
		UnknownBacklog,   // no known fault; too little is known for the verdicts below
		UnprovenDelivery, // likewise, while nothing that waits was ever delivered
		CatchingUpStream, // far behind, and gaining: no other fault
		Otherwise,
	}
}

// chain is shared: policies are pure.
var chain = NewChain()

// Judge returns the judgement of the first matching policy, as of in.Now.
func (c Chain) Judge(in *Input) Judgement {
	for _, policy := range c {
		if verdict, reason, message, ok := policy(in); ok {
			return Judgement{Verdict: verdict, Reason: reason, Message: message, Since: in.Now}
		}
	}
	return Judgement{Verdict: Unknown, Reason: "NoPolicy", Since: in.Now}
}

// NotRunningPod matches a container that does not run. A start is no fault until it takes too long.
func NotRunningPod(in *Input) (Verdict, string, string, bool) {
	waited := in.Now.Sub(in.Pod.Since)
	switch {
	case in.Pod.Running:
		return "", "", "", false
	case in.Pod.Starting && waited < startGrace:
		return Unknown, "Starting", "the container is starting", true
	case in.Pod.Starting:
		return NotRunning, in.Pod.Reason,
			sentence(fmt.Sprintf("not running %s after the pod was created", round(waited)), in.Pod.Detail), true
	}
	if in.Pod.Detail != "" {
		return NotRunning, in.Pod.Reason, prose.Line(in.Pod.Detail, maxDetail), true // the cause first
	}
	return NotRunning, in.Pod.Reason, "the container is not running", true
}

// UnreachablePod matches a running container whose last polls brought no report.
func UnreachablePod(in *Input) (Verdict, string, string, bool) {
	if in.Window.Missed < MissedPolls {
		return "", "", "", false
	}
	return Unreachable, "NoReport",
		sentence(fmt.Sprintf("no report in the last %d polls", in.Window.Missed), in.Window.Failure), true
}

// FailedStream matches a parser that reports that a stream has stopped for good, for example for a corrupt checkpoint.
func FailedStream(in *Input) (Verdict, string, string, bool) {
	for i := range in.Window.Streams {
		if s := &in.Window.Streams[i]; s.State == report.Failed {
			return NotRunning, ReasonStreamFailed, sentence(s.Name+" has failed", s.Message), true
		}
	}
	return "", "", "", false
}

// UnreadableSource matches a parser that reports that it cannot read its source. It waits for that, so it is not Stuck.
func UnreadableSource(in *Input) (Verdict, string, string, bool) {
	for i := range in.Window.Streams {
		if s := &in.Window.Streams[i]; s.Unreadable != "" {
			return SourceUnreadable, s.Name, sentence("cannot read the files of "+s.Name, s.Unreadable), true
		}
	}
	return "", "", "", false
}

// MissingSecret matches a parser without the credentials of its sink. The detail is the path of the file alone.
func MissingSecret(in *Input) (Verdict, string, string, bool) {
	for i := range in.Window.Streams {
		if s := &in.Window.Streams[i]; s.MissingSecret != "" {
			return SinkDown, ReasonSecretMissing,
				sentence("a secret that the sink of "+s.Name+" needs is missing", s.MissingSecret), true
		}
	}
	return "", "", "", false
}

// UnboundedBuffers matches a parser that exceeds its bound in several reports in a row, or twice over in one.
func UnboundedBuffers(in *Input) (Verdict, string, string, bool) {
	w := in.Window
	if w.OverBound == 0 || w.OverBound < overBoundReports && w.Held <= 2*w.Bound {
		return "", "", "", false
	}
	var lines int64
	for i := range w.Streams {
		lines += w.Streams[i].HeldLines
	}
	return Growing, ReasonUnbounded, fmt.Sprintf("buffers hold %s in %s lines, over their bound of %s",
		bytes(w.Held), humanize.Comma(lines), bytes(w.Bound)), true
}

// TooFewReports matches until there are enough reports to judge.
func TooFewReports(in *Input) (Verdict, string, string, bool) {
	if in.Window.Reports >= MinReports {
		return "", "", "", false
	}
	return Unknown, "TooFewReports", fmt.Sprintf("waiting for %d reports", MinReports), true
}

// SilentSink matches a stream with requests to its sink that has acknowledged nothing for sinkSilence.
func SilentSink(in *Input) (Verdict, string, string, bool) {
	var worst *Stream
	for i := range in.Window.Streams {
		s := &in.Window.Streams[i]
		failing := s.SinkState == report.SinkRetrying || s.SinkState == report.SinkFailed
		requested := s.Outstanding >= sinkSilence || failing && s.SinkSince >= sinkSilence
		if requested && s.SinkSilent >= sinkSilence && (worst == nil || s.SinkSilent > worst.SinkSilent) {
			worst = s
		}
	}
	if worst == nil {
		return "", "", "", false
	}
	backlog := bytes(worst.Uncommitted) + " waiting"
	if worst.BacklogUnknown {
		backlog = "backlog unknown"
	}
	return SinkDown, worst.Name, sentence(fmt.Sprintf("the sink of %s has acknowledged nothing for %s, %s",
		worst.Name, round(worst.SinkSilent), backlog), worst.SinkError), true
}

// StuckStream matches a stream with whole lines waiting and an idle sink in which no stage that has lines has moved for
// StuckAfter.
func StuckStream(in *Input) (Verdict, string, string, bool) {
	var worst *Stream
	for i := range in.Window.Streams {
		s := &in.Window.Streams[i]
		if s.UnmovedReports < minUnmovedReports || in.Window.At.Sub(s.UnmovedSince) < in.Settings.StuckAfter {
			continue
		}
		if worst == nil || s.UnmovedSince.Before(worst.UnmovedSince) {
			worst = s
		}
	}
	if worst == nil {
		return "", "", "", false
	}
	return Stuck, worst.Name, fmt.Sprintf(
		"%s: %s of whole lines waiting, %s behind, nothing parsed or acknowledged for %s; the sink is idle",
		worst.Name, bytes(worst.Uncommitted), round(worst.Lag), round(in.Window.At.Sub(worst.UnmovedSince))), true
}

// LeakingMemory matches a process whose memory has long been rising and will soon reach its limit.
func LeakingMemory(in *Input) (Verdict, string, string, bool) {
	m := &in.Window.Memory
	left, ok := m.timeToLimit()
	if !ok || left > leakHorizon {
		return "", "", "", false
	}
	return Leaking, ReasonMemory, fmt.Sprintf("memory is at %s of %s and has grown by %s/min for %d min: full in about %s",
		bytes(m.Newest), bytes(m.Limit), bytes(int64(m.Slope)), m.Minutes,
		max(left.Round(time.Minute), time.Minute)), true
}

// StalledSource matches a stream that the node no longer writes, though it always should. A stream that is catching up
// has work. It also matches a stream that has nothing to read while the node writes others.
func StalledSource(in *Input) (Verdict, string, string, bool) {
	var stalled, empty *Stream
	for i := range in.Window.Streams {
		s := &in.Window.Streams[i]
		after := in.Settings.stalledAfter(s)
		if after > 0 && s.SourceIdle >= after && s.cause(in) != causeCatchingUp &&
			(stalled == nil || s.SourceIdle > stalled.SourceIdle) {
			stalled = s
		}
		after = in.Settings.noDataAfter(s)
		if after > 0 && s.NoData >= after && (empty == nil || s.NoData > empty.NoData) {
			empty = s
		}
	}
	switch {
	case empty != nil:
		return SourceStalled, empty.Name, sentence(
			fmt.Sprintf("%s: nothing to read for %s while the node writes other streams", empty.Name, round(empty.NoData)),
			empty.Message), true
	case stalled == nil:
		return "", "", "", false
	case stalled.State == report.WaitingForData:
		return SourceStalled, stalled.Name,
			sentence(stalled.Name+": nothing to read for "+round(stalled.SourceIdle).String(), stalled.Message), true
	}
	return SourceStalled, stalled.Name, fmt.Sprintf("%s: no new line for %s: check the Hyperliquid node",
		stalled.Name, round(stalled.SourceIdle)), true
}

// UnknownBacklog matches a stream with an unknown backlog, and a report without streams: an absent figure is no proof
// of health.
func UnknownBacklog(in *Input) (Verdict, string, string, bool) {
	if in.Window.Empty {
		return Unknown, ReasonBacklogUnknown, "the report contains no streams", true
	}
	for i := range in.Window.Streams {
		if s := &in.Window.Streams[i]; s.BacklogUnknown {
			return Unknown, ReasonBacklogUnknown, sentence(s.Name+": the backlog is unknown", s.Message), true
		}
	}
	return "", "", "", false
}

// UnprovenDelivery matches a process that has lines and has delivered none yet. A sink that is dead from the start
// shows in nothing else until it has been silent for long.
func UnprovenDelivery(in *Input) (Verdict, string, string, bool) {
	for i := range in.Window.Streams {
		if s := &in.Window.Streams[i]; s.Unacknowledged {
			return Unknown, ReasonNothingAcknowledged, sentence(fmt.Sprintf(
				"%s: %s waiting, nothing acknowledged since the parser started", s.Name, bytes(s.Uncommitted)),
				s.SinkError), true
		}
	}
	return "", "", "", false
}

// noDataAfter returns how long a stream may have nothing to read while the node writes others; 0 for ever.
func (s *Settings) noDataAfter(of *Stream) time.Duration {
	if set, ok := s.SourceStalledAfter[of.Name]; ok {
		return set
	}
	return defaultNoDataAfter
}

// stalledAfter returns how long a stream may receive no line; 0 for ever. The default watches only streams that are
// written with every block: order statuses, book diffs, and all streams written block by block, since empty blocks are
// lines too.
func (s *Settings) stalledAfter(of *Stream) time.Duration {
	if set, ok := s.SourceStalledAfter[of.Name]; ok {
		return set
	}
	if of.Name == string(config.OrderStatuses) || of.Name == string(config.RawBookDiffs) ||
		of.Mode == string(config.ByBlock) {
		return defaultStalledAfter
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
	return what + ": " + prose.Ends(detail, maxDetail)
}

func bytes(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func round(d time.Duration) time.Duration { return d.Round(time.Second) }
