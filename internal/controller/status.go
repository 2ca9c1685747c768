package controller

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// status is what the object's status should be. It follows from what was seen and decided, and from the status before: figures stay
// until a verdict changes, so that equal inputs in spirit give a status that is equal to the letter.
func (r *Reconciler) status(obj *v1alpha1.HyperliquidParser, s *seen, next plan.Result) v1alpha1.HyperliquidParserStatus {
	out := *obj.Status.DeepCopy()
	out.ObservedGeneration = obj.Generation
	c := census{}
	if s.known {
		c = count(obj, s)
		out.Desired, out.Current, out.Ready, out.Updated = int32(c.desired), int32(c.current), int32(c.ready), int32(c.updated)
	}
	if s.problem == nil && s.known {
		out.StatePath = podspec.StateLocation(obj)
	}
	// That of this generation, and of no other: it is by this that the revision is found again.
	out.UpdateRevision = ""
	if s.update != nil {
		out.UpdateRevision = s.update.Name(obj.Name)
	}
	switch {
	case next.Complete && s.update != nil:
		out.CurrentRevision = out.UpdateRevision
	case s.current != nil:
		out.CurrentRevision = s.current.Name(obj.Name)
	}
	out.Restarts = max(out.Restarts, s.ledger.total)
	bad := badTargets(obj, s, next)
	out.Bad = int32(len(bad))
	out.Targets = bad[:min(len(bad), v1alpha1.MaxStatusTargets)]
	out.Losses, out.MoreLosses = losses(obj, s)
	conditions(&out, s, next, c, bad, noRestart(next, limits(obj, s)))
	state, story := summary(&out, s, next, c, bad)
	out.State, out.Story = state, prose.Line(story, maxStory)
	fit(&out)
	return out
}

// maxStatus bounds a status in bytes, however long its texts and its targets' names are: it is written whole, and read
// by everybody who watches the object.
const maxStatus = 8000

// fit leaves out the last of the targets that are shown until the status is small enough, and then, but for the worst
// target, losses. Conditions are bounded by themselves.
func fit(status *v1alpha1.HyperliquidParserStatus) {
	excess := size(status) - maxStatus
	for excess > 0 && len(status.Targets) > 1 {
		last := len(status.Targets) - 1
		excess -= size(status.Targets[last]) + len(",")
		status.Targets = status.Targets[:last]
	}
	shown := losers(status.Losses)
	for excess > 0 && len(status.Losses) > 1 {
		last := len(status.Losses) - 1
		excess -= size(status.Losses[last]) + len(",")
		status.Losses = status.Losses[:last]
	}
	status.MoreLosses += int32(shown - losers(status.Losses))
}

// size is how many bytes v takes as JSON. It is of a type that has no other form.
func size(v any) int {
	text, _ := json.Marshal(v)
	return len(text)
}

// census counts targets.
type census struct {
	desired, current, ready, updated int
	// Of those whose node can run a parser now:
	missing    int // without a pod, or with one on its way out
	outdated   int // with a pod of an older revision, or from before a restart was asked for
	starting   int // with a new pod that is not ready yet
	notReady   int // with a pod of the wanted revision that has not been ready for long
	waiting    []string
	waitingFor string        // why the first of them waits
	leftOut    int           // by spec.affinity, where there are no targets
	unusable   target.Target // the first that waits for a person; zero when none does
}

func count(obj *v1alpha1.HyperliquidParser, s *seen) census {
	c := census{desired: len(s.targets), leftOut: s.leftOut}
	asked := obj.Annotations[v1alpha1.AnnotationRestartedAt]
	for i, t := range s.targets {
		able := t.Waits == ""
		if !able {
			c.waiting = append(c.waiting, t.Name)
			c.waitingFor = cmp.Or(c.waitingFor, t.Why())
		}
		if t.Waits == target.ClaimInUse {
			c.desired-- // its data has a parser already
		}
		if t.Unusable() && c.unusable.Name == "" {
			c.unusable = t
		}
		pod := s.pairs[i].pod
		if pod == nil || pod.DeletionTimestamp != nil {
			if able || t.Waits == target.ClaimUnseen {
				c.missing++
			}
			continue
		}
		p := s.planPod(pod)
		c.current++
		if p.Ready {
			c.ready++
		}
		updated := p.Revision == s.update.name() && (asked == "" || p.RestartedAt == asked)
		if updated {
			c.updated++
		}
		switch {
		case !able:
		case !updated:
			c.outdated++
		case !p.Ready && s.now.Before(p.Since().Add(plan.Settle)):
			c.starting++
		case !p.Ready:
			c.notReady++
		}
	}
	return c
}

// badTargets are all targets with a bad verdict, worst first. A target that is Unknown because this leader is new, or because its
// container has just restarted, keeps the verdict that the status has of the same pod until there is a new one.
func badTargets(obj *v1alpha1.HyperliquidParser, s *seen, next plan.Result) []v1alpha1.TargetStatus {
	before := make(map[string]v1alpha1.TargetStatus, len(obj.Status.Targets))
	for _, t := range obj.Status.Targets {
		before[t.Target] = t
	}
	var out []v1alpha1.TargetStatus
	for i, t := range s.targets {
		view, ok := s.views[t.Name]
		if !ok {
			continue
		}
		name, pod := s.pairs[i].name, s.pairs[i].pod
		judgement := view.Judgement
		restarts := int32(len(s.ledger.records[t.Name].Times))
		switch {
		case judgement.Verdict.Bad():
			out = append(out, v1alpha1.TargetStatus{
				Target:   t.Name,
				Pod:      name,
				Verdict:  string(judgement.Verdict),
				Reason:   prose.Line(judgement.Reason, prose.MaxReason),
				Message:  message(judgement.Message, cmp.Or(next.Waiting[t.Name], restarting(obj, s, pod, t.Name))),
				Since:    metav1.NewTime(judgement.Since.Truncate(time.Second)),
				Restarts: restarts,
			})
		case judgement.Verdict == growth.Unknown:
			if old, ok := before[t.Name]; ok && !pod.CreationTimestamp.After(old.Since.Time) {
				old.Restarts = restarts
				out = append(out, old)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b v1alpha1.TargetStatus) int {
		return cmp.Or(cmp.Compare(rank(a.Verdict), rank(b.Verdict)), a.Since.Compare(b.Since.Time), cmp.Compare(a.Target, b.Target))
	})
	return out
}

// restarting says so of a target whose restart is recorded while its pod is there still; "" of others.
func restarting(obj *v1alpha1.HyperliquidParser, s *seen, pod *corev1.Pod, name string) string {
	record, ok := s.ledger.records[name]
	if !ok || pod == nil || string(pod.UID) != record.UID {
		return ""
	}
	return fmt.Sprintf("restarting (%d of %d this hour)", len(record.Times), limits(obj, s).MaxPerHour)
}

func rank(verdict string) int {
	if i := slices.Index(growth.Verdicts(), growth.Verdict(verdict)); i >= 0 {
		return i
	}
	return len(growth.Verdicts())
}

// maxMessage bounds a target's message, in bytes: twenty of them take 5 KiB of a status. It is enough for what growth
// quotes of a kubelet or an API server (200 bytes) and the words before it.
const maxMessage = 256

// message joins the figures with what is done, or why nothing is, of which the second is never cut.
func message(figures, what string) string {
	if what != "" {
		what = "; " + what
	}
	return prose.Ends(figures, max(maxMessage-len(what), 0)) + what
}

func conditions(
	status *v1alpha1.HyperliquidParserStatus, s *seen, next plan.Result, c census, bad []v1alpha1.TargetStatus,
	noRestart func(string) (reason, text string),
) {
	set := setter(status, s.now)
	stalled, reconciling := s.problem, progress(s, next, c)
	if stalled == nil && next.Phase == plan.PhaseFailed {
		stalled = &problem{v1alpha1.ReasonCanaryFailed, next.Message}
	}
	if stalled == nil {
		stalled = s.missingSecret()
	}
	if stalled != nil {
		set(v1alpha1.ConditionStalled, metav1.ConditionTrue, stalled.reason, stalled.message)
		reconciling = ""
	} else {
		set(v1alpha1.ConditionStalled, metav1.ConditionFalse, v1alpha1.ReasonNotStalled, notStalled)
	}
	ready, reason, text := readiness(stalled, c, reconciling, status.UpdateRevision)
	if next.Message != "" && stalled == nil {
		text += "; " + next.Message
	}
	if s.failing != nil && stalled == nil {
		text = s.failing.message + "; " + text
	}
	set(v1alpha1.ConditionReady, ready, reason, text)
	if reconciling != "" {
		set(v1alpha1.ConditionReconciling, metav1.ConditionTrue, reconciling, text)
	} else {
		set(v1alpha1.ConditionReconciling, metav1.ConditionFalse, v1alpha1.ReasonUpToDate, notReconciling)
	}

	stable, reason, text := s.verdicts(status, bad, noRestart, v1alpha1.ConditionBuffersStable, v1alpha1.ReasonAllStable, "no buffer grows and no parser hangs",
		growth.Growing, growth.Stuck, growth.Leaking)
	set(v1alpha1.ConditionBuffersStable, stable, reason, text)
	delivering, reason, text := s.verdicts(status, bad, noRestart, v1alpha1.ConditionDelivering, v1alpha1.ReasonAllDelivering, "every parser that runs delivers",
		growth.Stuck, growth.NotRunning, growth.SinkDown, growth.Overloaded, growth.Unreachable, growth.SourceStalled, growth.SourceUnreadable)
	if loss, story, _ := worstLoss(status); delivering != metav1.ConditionFalse && loss == v1alpha1.ReasonDataLost {
		delivering, reason, text = metav1.ConditionFalse, loss, story
	}
	set(v1alpha1.ConditionDelivering, delivering, reason, text)
	whole, reason, text := intact(status, s)
	set(v1alpha1.ConditionDataIntact, whole, reason, text)
	inOrder(status.Conditions)
}

// What is said of conditions that are false because nothing is wrong.
const (
	notStalled     = "nothing is in the way"
	notReconciling = "nothing is being changed"
)

// setter returns what sets conditions of a status at a time.
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

// inOrder puts conditions into the order in which they are shown; those that are not ours come last.
func inOrder(conditions []metav1.Condition) {
	order := v1alpha1.Conditions()
	place := func(c metav1.Condition) int {
		if i := slices.Index(order, c.Type); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(conditions, func(a, b metav1.Condition) int { return cmp.Compare(place(a), place(b)) })
}

// verdicts is what a condition says that is false while a target has one of the verdicts that count.
func (s *seen) verdicts(
	status *v1alpha1.HyperliquidParserStatus, bad []v1alpha1.TargetStatus, noRestart func(string) (reason, text string),
	kind, good, goodText string, counts ...growth.Verdict,
) (value metav1.ConditionStatus, reason, text string) {
	worst := slices.DeleteFunc(slices.Clone(bad), func(t v1alpha1.TargetStatus) bool {
		return !slices.Contains(counts, growth.Verdict(t.Verdict))
	})
	for _, t := range worst {
		if why, more := noRestart(t.Target); why != "" {
			return metav1.ConditionFalse, why, worstMessage(worst) + more
		}
	}
	if len(worst) > 0 {
		return metav1.ConditionFalse, worst[0].Verdict, worstMessage(worst)
	}
	before := meta.FindStatusCondition(status.Conditions, kind)
	judged := s.all(func(v *poller.View) bool { return cmp.Or(v.Judgement.Verdict, growth.Unknown) != growth.Unknown })
	return s.fine(before, judged, good, goodText)
}

// fine is what a condition says while nothing is known that makes it false. It is true of targets that were all asked,
// and of no empty set. One that was true stays so until there is another opinion: a new leader has none yet.
func (s *seen) fine(before *metav1.Condition, asked bool, good, goodText string) (
	value metav1.ConditionStatus, reason, text string,
) {
	switch {
	case s.known && len(s.targets) == 0:
		return metav1.ConditionUnknown, v1alpha1.ReasonNoTargets, "there is no target"
	case asked:
		return metav1.ConditionTrue, good, goodText
	case before != nil && before.Status == metav1.ConditionTrue:
		return before.Status, before.Reason, before.Message
	}
	return metav1.ConditionUnknown, v1alpha1.ReasonNotYetJudged, "waiting for reports"
}

// all reports whether something holds of what is known of every target that has a pod, and whether there is one.
func (s *seen) all(holds func(*poller.View) bool) bool {
	for _, v := range s.views {
		if !holds(&v) {
			return false
		}
	}
	return len(s.views) > 0
}

// noRestart returns a function that says of a target why it is not restarted though that is due, where the reason is that it would not
// help; "" of others.
func noRestart(next plan.Result, l plan.Limits) func(string) (reason, text string) {
	return func(name string) (reason, text string) {
		_, waits := next.Waiting[name]
		switch {
		case slices.Contains(next.Ineffective, name):
			return v1alpha1.ReasonRestartIneffective, ""
		case waits && next.FleetWide && !l.AlertOnly && !l.Paused && !l.Hold:
			return v1alpha1.ReasonFleetWide, "; " + next.Outage
		}
		return "", ""
	}
}

// missingSecret is the problem of parsers that cannot reach their sink for want of a Secret; nil when there is none. Only they can tell:
// the operator may not read Secrets.
func (s *seen) missingSecret() *problem {
	var without []string
	for _, t := range s.targets {
		if s.views[t.Name].MissingSecret != "" {
			without = append(without, t.Name)
		}
	}
	if len(without) == 0 {
		return nil
	}
	file := s.views[without[0]].MissingSecret
	what := "the file " + file
	if name, key, ok := podspec.SecretOf(file); ok {
		what = fmt.Sprintf("key %s of Secret %s", key, name)
	}
	return &problem{v1alpha1.ReasonSecretMissing, fmt.Sprintf(
		"%s is missing or cannot be used, and the sink of %s needs it: make or correct it in this namespace, and parsers go on by themselves within a minute or two",
		what, first(without))}
}

// progress is the reason for which the fleet is being changed; "" when it is not.
func progress(s *seen, next plan.Result, c census) string {
	switch {
	case s.failing != nil:
		return s.failing.reason
	case c.missing > 0:
		return v1alpha1.ReasonCreatingPods
	case next.Phase == plan.PhaseCanary && !s.paused:
		return v1alpha1.ReasonCanarySoaking
	case next.Phase == plan.PhaseStopped && !s.paused:
		return v1alpha1.ReasonRolloutStopped
	case c.outdated > 0 && !s.paused:
		return v1alpha1.ReasonReplacingPods
	case c.starting > 0:
		return v1alpha1.ReasonWaitingForPods
	}
	return ""
}

func readiness(stalled *problem, c census, reconciling, revision string) (metav1.ConditionStatus, string, string) {
	text := fmt.Sprintf("%d of %d targets have a ready parser, %d are of revision %s", c.ready, c.desired, c.updated, revision)
	if n := len(c.waiting); n > 0 {
		text += fmt.Sprintf("; %s cannot take a new one now: %s (%s)", plural(n, "target"), first(c.waiting), c.waitingFor)
	}
	switch {
	case stalled != nil:
		return metav1.ConditionFalse, stalled.reason, stalled.message
	case c.desired == 0 && c.leftOut > 0:
		return metav1.ConditionTrue, v1alpha1.ReasonNoTargets, fmt.Sprintf(
			"the selector of spec.target matches, and the required node affinity of spec.affinity leaves out all that it matches, "+
				"%d in number: correct one of the two", c.leftOut)
	case c.desired == 0:
		return metav1.ConditionTrue, v1alpha1.ReasonNoTargets, "nothing matches the selector of spec.target: label the nodes, or the pods, that hold data"
	case reconciling != "":
		return metav1.ConditionFalse, reconciling, text
	case c.outdated > 0:
		return metav1.ConditionFalse, v1alpha1.ReasonPaused, text + "; spec.paused holds the others back"
	case c.notReady > 0:
		return metav1.ConditionFalse, v1alpha1.ReasonPodsNotReady, text
	case c.unusable.Name != "":
		return metav1.ConditionFalse, c.unusable.Waits, unusableMessage(c.unusable) + "; " + text
	}
	return metav1.ConditionTrue, v1alpha1.ReasonAllReady, text
}

// unusableMessage says what to do about a target that no parser can be made for.
func unusableMessage(t target.Target) string {
	if t.Waits == target.NotShareable {
		return fmt.Sprintf("the claim %s of pod %s is ReadWriteOncePod, which no second pod can mount: use ReadWriteOnce", t.Claim, t.Name)
	}
	return fmt.Sprintf("pod %s has no persistentVolumeClaim in a volume of the name that spec.target.pods.volume gives: correct one of the two", t.Name)
}

func worstMessage(worst []v1alpha1.TargetStatus) string {
	text := worst[0].Target + ": " + worst[0].Message
	if n := len(worst) - 1; n > 0 {
		text += fmt.Sprintf(" (and %s more)", plural(n, "target"))
	}
	return text
}

// first names the first three.
func first(names []string) string {
	const show = 3
	if len(names) <= show {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:show], ", "), len(names)-show)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
