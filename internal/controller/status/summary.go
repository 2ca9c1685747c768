package status

import (
	"fmt"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

// MaxStory bounds the story of a status, in bytes, since it is a column of kubectl get.
const MaxStory = 60

// summary returns the state of the fleet in one word, and why in one line. What loses data comes first, then what the
// operator cannot do, then what it does. Neither has figures that change while the fleet is at rest.
func summary(
	status *v1alpha1.HyperliquidParserStatus, obj *v1alpha1.HyperliquidParser, in *Input, c census,
	bad []v1alpha1.TargetStatus,
) (state, story string) {
	is := func(kind string) metav1.Condition {
		if found := meta.FindStatusCondition(status.Conditions, kind); found != nil {
			return *found
		}
		return metav1.Condition{}
	}
	ready, stalled := is(v1alpha1.ConditionReady), is(v1alpha1.ConditionStalled)
	switch loss := is(v1alpha1.ConditionDataIntact); {
	case len(bad) > 0:
		return bad[0].Verdict, badStory(bad)
	case stalled.Status == metav1.ConditionTrue:
		return v1alpha1.StateStalled, stalled.Reason + ": " + stalled.Message
	case ready.Reason == v1alpha1.ReasonNoTargets:
		return v1alpha1.ReasonNoTargets, noTargetsStory(c)
	case loss.Status == metav1.ConditionFalse:
		return loss.Reason, lossStory(status, in.Fleet, loss.Reason)
	case obj.Spec.Paused:
		return v1alpha1.StatePaused, pausedStory(c)
	case is(v1alpha1.ConditionReconciling).Status == metav1.ConditionTrue:
		return progressing(status, in.Plan, c, restarted(status, obj, is(v1alpha1.ConditionReconciling).Reason))
	case ready.Status == metav1.ConditionFalse:
		return v1alpha1.StateNotReady, ready.Reason + ": " + share(c.ready, c.desired) + " a ready parser"
	case is(v1alpha1.ConditionDelivering).Status == metav1.ConditionTrue:
		return v1alpha1.StateDelivering, deliveringStory(c)
	}
	if n := len(c.waiting); n > 0 && c.current == 0 {
		return v1alpha1.StateUnknown, on("no parser: "+c.waitingFor+" of", c.waiting[0], n-1)
	}
	return v1alpha1.StateUnknown, waitingForReports
}

// on appends the first of the targets that something holds for, and counts the rest. The count is never cut, however
// long the name is.
func on(what, first string, more int) string {
	rest := ""
	if more > 0 {
		rest = " and " + strconv.Itoa(more) + " more"
	}
	return prose.Line(what+" "+first, MaxStory-len(rest)) + rest
}

// badStory describes the worst verdict, and counts the targets that have it.
func badStory(bad []v1alpha1.TargetStatus) string {
	worst, same := &bad[0], 0
	for i := range bad[1:] {
		if bad[i+1].Verdict == worst.Verdict {
			same++
		}
	}
	return on(phrase(health.Verdict(worst.Verdict), worst.Reason)+" on", worst.Target, same)
}

// phrases describe the verdicts whose reason adds nothing.
var phrases = map[health.Verdict]string{
	health.Stuck:            "the parser hangs",
	health.SourceUnreadable: "files cannot be read",
	health.SinkDown:         "the sink does not answer",
	health.Leaking:          "memory runs out",
	health.Unreachable:      "no report",
	health.SourceStalled:    "the node does not write",
}

// phrase describes a verdict in a few words.
func phrase(verdict health.Verdict, reason string) string {
	switch {
	case verdict == health.SinkDown && reason == health.ReasonSecretMissing:
		return "a Secret is missing"
	case verdict == health.NotRunning && reason == health.ReasonStreamFailed:
		return "a stream has failed"
	case verdict == health.NotRunning:
		return prose.Line(reason, MaxStory/2)
	case verdict == health.Growing && reason == health.ReasonUnbounded:
		return "buffers pass their bound"
	case verdict == health.Growing:
		return "the parser is too slow"
	case verdict == health.Overloaded && reason == health.ReasonSink:
		return "the sink is too slow"
	case verdict == health.Overloaded && reason == health.ReasonCPU:
		return "too little CPU"
	case verdict == health.Overloaded:
		return "the disk is too slow"
	}
	if text, ok := phrases[verdict]; ok {
		return text
	}
	return string(verdict)
}

func lossStory(status *v1alpha1.HyperliquidParserStatus, f *observed.Fleet, reason string) string {
	what, targets, more := "unread lines are lost on", []string(nil), 0
	for i := range status.Losses {
		if l := &status.Losses[i]; !l.Acknowledged && l.Reason == reason && !slices.Contains(targets, l.Target) {
			targets = append(targets, l.Target)
		}
	}
	switch reason {
	case v1alpha1.ReasonFormatDrift:
		what, targets = "malformed lines on", drifting(f)
	case v1alpha1.ReasonDataGap:
		what = "blocks are missing on"
	}
	if reason != v1alpha1.ReasonFormatDrift {
		more = int(status.MoreLosses)
	}
	if len(targets) == 0 { // a new leader does not know yet which they are
		return what + " some target"
	}
	return on(what, targets[0], len(targets)-1+more)
}

func pausedStory(c census) string {
	if c.outdated > 0 {
		return fmt.Sprintf("%s of an older revision: no rollout, no restart", Plural(c.outdated, "target"))
	}
	return "no rollout and no restart"
}

// progressing returns how the fleet is being changed. restart reports whether a requested restart is why.
func progressing(
	status *v1alpha1.HyperliquidParserStatus, next plan.Result, c census, restart bool,
) (state, story string) {
	switch {
	case next.Phase == plan.PhaseStopped:
		return v1alpha1.ReasonRolloutStopped, share(c.updated, c.desired) + " the new revision"
	case next.Phase == plan.PhaseCanary:
		return v1alpha1.StateRollingOut, fmt.Sprintf("canaries soak: %d of %s", c.updated, Plural(c.desired, "target"))
	case restart:
		return v1alpha1.StateRollingOut, share(c.updated, c.desired) + " restarted as requested"
	case c.outdated > 0, moving(status):
		return v1alpha1.StateRollingOut, share(c.updated, c.desired) + " the new revision"
	}
	return v1alpha1.StateStarting, share(c.ready, c.desired) + " a ready parser"
}

// noTargetsStory returns why there is no target.
func noTargetsStory(c census) string {
	if c.excluded > 0 {
		return fmt.Sprintf("spec.affinity excludes all %s of the selector", matches(c.excluded))
	}
	return "nothing matches the selector of spec.target"
}

func matches(n int) string {
	if n == 1 {
		return "1 match"
	}
	return fmt.Sprintf("%d matches", n)
}

func deliveringStory(c census) string {
	if n := len(c.waiting); n > 0 {
		return on(fmt.Sprintf("%d of %d targets; none for", c.desired-n, c.desired), c.waiting[0], n-1)
	}
	if c.desired == 1 {
		return "the target delivers"
	}
	return fmt.Sprintf("all %d targets deliver", c.desired)
}
