package status

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// The verdicts that make a condition false.
var (
	unstable   = []health.Verdict{health.Growing, health.Stuck, health.Leaking}
	undelivers = []health.Verdict{
		health.Stuck, health.NotRunning, health.SinkDown, health.Overloaded, health.Unreachable, health.SourceStalled,
		health.SourceUnreadable,
	}
)

func setConditions(
	status *v1alpha1.HyperliquidParserStatus, obj *v1alpha1.HyperliquidParser, in *Input, c census,
	bad []v1alpha1.TargetStatus,
) {
	set := setter(status, in.Fleet.Now)
	failing := in.Outcome.Failing
	stalled, reconciling := stalling(in), progress(status, obj, in, c)
	if stalled != nil {
		set(v1alpha1.ConditionStalled, metav1.ConditionTrue, stalled.Reason, stalled.Message)
		reconciling = ""
	} else {
		set(v1alpha1.ConditionStalled, metav1.ConditionFalse, v1alpha1.ReasonNotStalled, notStalled)
	}
	text := having(status, c, restarted(status, obj, reconciling))
	ready, reason, text := readiness(stalled, c, reconciling, text)
	if in.Plan.Message != "" && stalled == nil {
		text += "; " + in.Plan.Message
	}
	if failing != nil && stalled == nil {
		text = failing.Message + "; " + text
	}
	set(v1alpha1.ConditionReady, ready, reason, text)
	switch {
	case reconciling != "":
		set(v1alpha1.ConditionReconciling, metav1.ConditionTrue, reconciling, text)
	case stalled != nil:
		set(v1alpha1.ConditionReconciling, metav1.ConditionFalse, stalled.Reason, heldBack)
	case c.outdated > 0:
		set(v1alpha1.ConditionReconciling, metav1.ConditionFalse, v1alpha1.ReasonPaused, pausedStory(c))
	default:
		set(v1alpha1.ConditionReconciling, metav1.ConditionFalse, v1alpha1.ReasonUpToDate, notReconciling)
	}

	stable, reason, text := judged(status, in, bad, unstable, v1alpha1.ConditionBuffersStable,
		v1alpha1.ReasonAllStable, "no buffer grows and no parser hangs")
	set(v1alpha1.ConditionBuffersStable, stable, reason, text)
	delivering, reason, text := judged(status, in, bad, undelivers, v1alpha1.ConditionDelivering,
		v1alpha1.ReasonAllDelivering, "every parser that runs delivers")
	if loss, message, _ := worstLoss(status); delivering != metav1.ConditionFalse && loss == v1alpha1.ReasonDataLost {
		delivering, reason, text = metav1.ConditionFalse, loss, message
	}
	set(v1alpha1.ConditionDelivering, delivering, reason, text)
	intact, reason, text := dataIntact(status, in.Fleet)
	set(v1alpha1.ConditionDataIntact, intact, reason, text)
	SortConditions(status.Conditions)
}

// Messages of conditions that are false because nothing is wrong.
const (
	notStalled     = "the operator can proceed"
	notReconciling = "no change is in progress"
	heldBack       = "no change is in progress while the object is stalled"
)

// setter returns a function that sets conditions of a status at a time.
func setter(status *v1alpha1.HyperliquidParserStatus, now time.Time) func(
	kind string, value metav1.ConditionStatus, reason, text string,
) {
	return func(kind string, value metav1.ConditionStatus, reason, text string) {
		reason = prose.Reason(reason)
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: kind, Status: value, Reason: reason, Message: cmp.Or(prose.Line(text, prose.MaxCondition), reason),
			ObservedGeneration: status.ObservedGeneration,
			LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
		})
	}
}

// SortConditions puts conditions into the order in which they are listed. Conditions of others come last.
func SortConditions(conditions []metav1.Condition) {
	order := v1alpha1.Conditions()
	place := func(c metav1.Condition) int {
		if i := slices.Index(order, c.Type); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(conditions, func(a, b metav1.Condition) int { return cmp.Compare(place(a), place(b)) })
}

// stalling returns why the operator cannot go on by itself; nil when it can.
func stalling(in *Input) *observed.Problem {
	switch {
	case in.Outcome.Problem != nil:
		return in.Outcome.Problem
	case in.Plan.Phase == plan.PhaseFailed:
		return &observed.Problem{Reason: v1alpha1.ReasonCanaryFailed, Message: in.Plan.Message}
	}
	return missingSecret(in.Fleet)
}

// missingSecret returns the problem of parsers that cannot reach their sink because a Secret is missing; nil for none.
// Only parsers can report it: the operator may not read Secrets.
func missingSecret(f *observed.Fleet) *observed.Problem {
	var without []string
	for _, t := range f.Targets {
		if f.Views[t.Name].MissingSecret != "" {
			without = append(without, t.Name)
		}
	}
	if len(without) == 0 {
		return nil
	}
	file := f.Views[without[0]].MissingSecret
	what := "the file " + file
	if name, key, ok := podspec.SecretOf(file); ok {
		what = fmt.Sprintf("key %s of Secret %s", key, name)
	}
	return &observed.Problem{Reason: v1alpha1.ReasonSecretMissing, Message: fmt.Sprintf(
		"%s is missing or cannot be used, and the sink of %s needs it: create or correct it in this namespace, "+
			"and the parsers resume by themselves within a minute or two",
		what, FirstNames(without))}
}

// progress returns the reason for which the fleet is being changed; "" when it is not. A pod that is being replaced is
// missing for a moment, and then starts: neither is a reason of its own, and the reason of a rollout or a restart stays
// until the last pod is ready.
func progress(
	status *v1alpha1.HyperliquidParserStatus, obj *v1alpha1.HyperliquidParser, in *Input, c census,
) string {
	incomplete := c.missing+c.starting > 0
	switch paused := obj.Spec.Paused; {
	case in.Outcome.Failing != nil:
		return in.Outcome.Failing.Reason
	case in.Plan.Phase == plan.PhaseCanary && !paused:
		return v1alpha1.ReasonCanarySoaking
	case in.Plan.Phase == plan.PhaseStopped && !paused:
		return v1alpha1.ReasonRolloutStopped
	case c.outdated > 0 && !paused, incomplete && (moving(status) || replacing(status)) && !paused:
		return v1alpha1.ReasonReplacingPods
	case c.missing > 0:
		return v1alpha1.ReasonCreatingPods
	case c.starting > 0:
		return v1alpha1.ReasonWaitingForPods
	}
	return ""
}

// moving reports whether the fleet is on its way from one revision to another.
func moving(status *v1alpha1.HyperliquidParserStatus) bool {
	return status.CurrentRevision != "" && status.UpdateRevision != "" && status.CurrentRevision != status.UpdateRevision
}

// replacing reports whether the status before has pods being replaced.
func replacing(before *v1alpha1.HyperliquidParserStatus) bool {
	c := meta.FindStatusCondition(before.Conditions, v1alpha1.ConditionReconciling)
	return c != nil && c.Status == metav1.ConditionTrue && c.Reason == v1alpha1.ReasonReplacingPods
}

// restarted reports whether pods are being replaced because a restart was requested, and not by another revision.
func restarted(
	status *v1alpha1.HyperliquidParserStatus, obj *v1alpha1.HyperliquidParser, reconciling string,
) bool {
	return reconciling == v1alpha1.ReasonReplacingPods && obj.Annotations[v1alpha1.AnnotationRestartedAt] != "" &&
		status.CurrentRevision != "" && status.CurrentRevision == status.UpdateRevision
}

// having counts the targets that have what they should have. It changes once for each of them.
func having(status *v1alpha1.HyperliquidParserStatus, c census, restart bool) string {
	switch {
	case status.UpdateRevision == "":
		return share(c.ready, c.desired) + " a ready parser"
	case restart:
		return share(c.complete, c.desired) + " a ready parser that is newer than the requested restart"
	}
	return share(c.complete, c.desired) + " a ready parser of revision " + status.UpdateRevision
}

// share returns "n of all targets have", in the right number.
func share(n, all int) string {
	have := "have"
	if n == 1 || all == 1 {
		have = "has"
	}
	return fmt.Sprintf("%d of %s %s", n, Plural(all, "target"), have)
}

// readiness returns the condition Ready. parsers is what the targets have.
func readiness(
	stalled *observed.Problem, c census, reconciling, parsers string,
) (value metav1.ConditionStatus, reason, text string) {
	text = parsers
	if n := len(c.waiting); n > 0 {
		text += fmt.Sprintf("; %s cannot take a new one now: %s (%s)",
			Plural(n, "target"), FirstNames(c.waiting), c.waitingFor)
	}
	switch {
	case stalled != nil:
		return metav1.ConditionFalse, stalled.Reason, stalled.Message
	case c.desired == 0 && c.excluded > 0:
		return metav1.ConditionTrue, v1alpha1.ReasonNoTargets, fmt.Sprintf(
			"the required node affinity of spec.affinity excludes all %d nodes or pods that the selector of spec.target "+
				"matches: correct one of the two", c.excluded)
	case c.desired == 0:
		return metav1.ConditionTrue, v1alpha1.ReasonNoTargets,
			"nothing matches the selector of spec.target: label the nodes, or the pods, that hold data"
	case reconciling != "":
		return metav1.ConditionFalse, reconciling, text
	case c.outdated > 0:
		return metav1.ConditionFalse, v1alpha1.ReasonPaused, text + "; spec.paused keeps the others from being updated"
	case c.notReady > 0:
		return metav1.ConditionFalse, v1alpha1.ReasonPodsNotReady, text
	case c.unusable.Name != "":
		return metav1.ConditionFalse, c.unusable.Waits, unusableMessage(c.unusable) + "; " + text
	}
	return metav1.ConditionTrue, v1alpha1.ReasonAllReady, text
}

// unusableMessage says how to correct a target that no parser can be made for.
func unusableMessage(t target.Target) string {
	if t.Waits == target.NotShareable {
		return fmt.Sprintf("the claim %s of pod %s is ReadWriteOncePod, which no second pod can mount: use ReadWriteOnce",
			t.Claim, t.Name)
	}
	return fmt.Sprintf(
		"pod %s has no persistentVolumeClaim volume of the name in spec.target.pods.volume: correct one of the two", t.Name)
}

// judged returns a condition that is false while a target has one of the given verdicts, and otherwise true for the
// given reason.
func judged(
	status *v1alpha1.HyperliquidParserStatus, in *Input, bad []v1alpha1.TargetStatus, verdicts []health.Verdict,
	kind, good, goodText string,
) (value metav1.ConditionStatus, reason, text string) {
	worst := slices.DeleteFunc(slices.Clone(bad), func(t v1alpha1.TargetStatus) bool {
		return !slices.Contains(verdicts, health.Verdict(t.Verdict))
	})
	for _, t := range worst {
		if why, more := noRestart(in, t.Target); why != "" {
			return metav1.ConditionFalse, why, worstMessage(worst) + more
		}
	}
	if len(worst) > 0 {
		return metav1.ConditionFalse, worst[0].Verdict, worstMessage(worst)
	}
	before := meta.FindStatusCondition(status.Conditions, kind)
	reported := false // a parser that never ran shows nothing about buffers
	known := everyView(in.Fleet, func(v *poller.View) bool {
		reported = reported || v.Reports > 0
		return cmp.Or(v.Judgement.Verdict, health.Unknown) != health.Unknown
	}) && reported
	return unlessKnown(in.Fleet, before, known, good, goodText)
}

// noRestart returns the reason for which a target is not restarted though a restart is due, if that is that it would
// not help, or that the target was restarted as often as an hour allows; "" for others.
func noRestart(in *Input, name string) (reason, text string) {
	_, waits := in.Plan.Waiting[name]
	held := in.Limits.AlertOnly || in.Limits.Paused || in.Limits.Hold || in.Outcome.Problem != nil
	switch {
	case slices.Contains(in.Plan.Ineffective, name):
		return v1alpha1.ReasonRestartIneffective, ""
	case waits && in.Plan.FleetWide && !held:
		return v1alpha1.ReasonFleetWide, "; " + in.Plan.Outage
	case slices.Contains(in.Plan.Capped, name):
		return v1alpha1.ReasonRestartLimit, ""
	}
	return "", ""
}

func worstMessage(worst []v1alpha1.TargetStatus) string {
	text := worst[0].Target + ": " + worst[0].Message
	if n := len(worst) - 1; n > 0 {
		text += fmt.Sprintf(" (and %s more)", Plural(n, "target"))
	}
	return text
}

// unlessKnown returns a condition that nothing known makes false. It is true if all targets are known, and there is at
// least one. A condition that was true stays true until it is known: a new leader has no reports yet.
func unlessKnown(f *observed.Fleet, before *metav1.Condition, known bool, good, goodText string) (
	value metav1.ConditionStatus, reason, text string,
) {
	switch {
	case f.Known && len(f.Targets) == 0:
		return metav1.ConditionUnknown, v1alpha1.ReasonNoTargets, "there is no target"
	case known:
		return metav1.ConditionTrue, good, goodText
	case before != nil && before.Status == metav1.ConditionTrue:
		return before.Status, before.Reason, before.Message
	}
	return metav1.ConditionUnknown, v1alpha1.ReasonNotYetJudged, waitingForReports
}

// waitingForReports is the message about parsers without a report so far.
const waitingForReports = "waiting for reports"

// everyView reports whether something holds for the view of every target that has a pod, and whether there is one.
func everyView(f *observed.Fleet, holds func(*poller.View) bool) bool {
	for _, v := range f.Views {
		if !holds(&v) {
			return false
		}
	}
	return len(f.Views) > 0
}
