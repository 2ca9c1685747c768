package growth

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Input is all that a policy may look at.
type Input struct {
	Now      time.Time
	Pod      PodState
	Window   Window
	Settings Settings
}

// Func is one policy. It returns the verdict, a reason in CamelCase and one line for a person; matched is false when the policy
// has nothing to say.
type Func func(Input) (verdict Verdict, reason, message string, matched bool)

// Chain is a list of policies, of which the first that matches speaks.
type Chain []Func

// NewChain returns the policies in their order. Those that explain a fault from outside the parser stand before those that blame
// the parser: a restart follows only from what is left.
func NewChain() Chain {
	return Chain{
		NotRunningPod,    // the container does not run
		UnreachableOver,  // it runs, and its report cannot be had
		FailedStream,     // it reports that a stream has stopped for good
		UnboundedBuffers, // the bound itself is broken: too dangerous to wait for more reports
		TooFewReports,    // nothing below can be told yet
		SilentSink,       // the sink explains it
		StuckStream,      // nothing outside explains it, and nothing moves
		Otherwise,
	}
}

// Judge returns what the first matching policy says, as of in.Now.
func (c Chain) Judge(in Input) Judgement {
	for _, policy := range c {
		if verdict, reason, message, ok := policy(in); ok {
			return Judgement{Verdict: verdict, Reason: reason, Message: message, Since: in.Now}
		}
	}
	return Judgement{Verdict: Unknown, Reason: "NoPolicy", Since: in.Now}
}

// NotRunningPod matches a container that does not run, unless it is on its way and has not taken too long.
func NotRunningPod(in Input) (Verdict, string, string, bool) {
	waited := in.Now.Sub(in.Pod.Since)
	switch {
	case in.Pod.Running:
		return "", "", "", false
	case in.Pod.Starting && waited < startPatience:
		return Unknown, "Starting", "the container is starting", true
	case in.Pod.Starting:
		return NotRunning, in.Pod.Reason, sentence(fmt.Sprintf("not running %s after the pod was created", round(waited)), in.Pod.Detail), true
	}
	return NotRunning, in.Pod.Reason, sentence("the container does not run", in.Pod.Detail), true
}

// UnreachableOver matches a running container whose last polls brought no report.
func UnreachableOver(in Input) (Verdict, string, string, bool) {
	if in.Window.Missed < missedPolls {
		return "", "", "", false
	}
	return Unreachable, "NoReport", sentence(fmt.Sprintf("%d polls in a row without a report", in.Window.Missed), in.Window.Failure), true
}

// FailedStream matches a parser that says itself that a stream will not go on, such as for a corrupt checkpoint.
func FailedStream(in Input) (Verdict, string, string, bool) {
	last, _ := in.Window.Last()
	for _, s := range last.Streams {
		if s.State == report.Failed {
			return NotRunning, ReasonStreamFailed, sentence(s.Name+" has failed", s.Message), true
		}
	}
	return "", "", "", false
}

// UnboundedBuffers matches a parser that holds more than its bound in several reports running, or twice as much once.
func UnboundedBuffers(in Input) (Verdict, string, string, bool) {
	last, ok := in.Window.Last()
	if !ok || last.Held <= last.Bound {
		return "", "", "", false
	}
	over := 0
	for i := len(in.Window.Samples) - 1; i >= 0 && in.Window.Samples[i].Held > in.Window.Samples[i].Bound; i-- {
		over++
	}
	if over < runningOver && last.Held <= 2*last.Bound {
		return "", "", "", false
	}
	var lines int64
	for _, s := range last.Streams {
		lines += s.HeldLines
	}
	return Growing, ReasonUnbounded, fmt.Sprintf("buffers hold %s in %s lines, more than the %s that they may ever hold",
		bytes(last.Held), humanize.Comma(lines), bytes(last.Bound)), true
}

// TooFewReports matches until there is enough to judge by.
func TooFewReports(in Input) (Verdict, string, string, bool) {
	if in.Window.Reports >= MinReports {
		return "", "", "", false
	}
	return Unknown, "TooFewReports", fmt.Sprintf("waiting for %d reports", MinReports), true
}

// SilentSink matches a stream whose sink has acknowledged nothing for a while, though it was asked to.
func SilentSink(in Input) (Verdict, string, string, bool) {
	last, _ := in.Window.Last()
	var worst *StreamSample
	for i, s := range last.Streams {
		failing := s.SinkState == report.SinkRetrying || s.SinkState == report.SinkFailed
		asked := s.Outstanding >= sinkPatience || failing && s.SinkSince >= sinkPatience
		if asked && s.SinkSilent >= sinkPatience && (worst == nil || s.SinkSilent > worst.SinkSilent) {
			worst = &last.Streams[i]
		}
	}
	if worst == nil {
		return "", "", "", false
	}
	return SinkDown, worst.Name, sentence(fmt.Sprintf("the sink of %s has acknowledged nothing for %s, %s waits",
		worst.Name, round(worst.SinkSilent), bytes(worst.Uncommitted)), worst.SinkError), true
}

// StuckStream matches a stream with whole lines waiting in which no stage that has some has moved for long, with nothing to wait for.
func StuckStream(in Input) (Verdict, string, string, bool) {
	last, _ := in.Window.Last()
	var worst *StreamSample
	for i, s := range last.Streams {
		if s.StillReports < stillReports || last.At.Sub(s.StillSince) < in.Settings.StuckAfter {
			continue
		}
		if worst == nil || s.StillSince.Before(worst.StillSince) {
			worst = &last.Streams[i]
		}
	}
	if worst == nil {
		return "", "", "", false
	}
	return Stuck, worst.Name, fmt.Sprintf("%s: %s of whole lines wait, %s behind, and nothing was parsed or acknowledged for %s; the sink is idle",
		worst.Name, bytes(worst.Uncommitted), round(worst.Lag), round(last.At.Sub(worst.StillSince))), true
}

// Otherwise matches always.
func Otherwise(Input) (Verdict, string, string, bool) {
	return Healthy, "Healthy", "buffers are bounded and lines move", true
}

// maxDetail bounds what a message quotes from a kubelet, a parser or a sink.
const maxDetail = 200

func sentence(what, detail string) string {
	if detail == "" {
		return what
	}
	if len(detail) > maxDetail {
		detail = detail[:maxDetail] + "…"
	}
	return what + ": " + detail
}

func bytes(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func round(d time.Duration) time.Duration { return d.Round(time.Second) }
