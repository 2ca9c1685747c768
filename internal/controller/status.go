package controller

import (
	"cmp"
	"fmt"
	"path"
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
		out.StatePath = path.Clean(podspec.StatePath(obj))
	}
	// That of this generation, and of no other: it is by this that the revision is found again.
	out.UpdateRevision = ""
	if s.update != nil {
		out.UpdateRevision = s.update.Name(obj.Name)
	}
	switch {
	case next.Complete:
		out.CurrentRevision = out.UpdateRevision
	case s.current != nil:
		out.CurrentRevision = s.current.Name(obj.Name)
	}
	out.Restarts = max(out.Restarts, s.ledger.total)
	bad := badTargets(obj, s, next)
	lag := lagOf(s.views)
	if lag != "" && (out.Lag == "" || verdictsDiffer(obj.Status, bad)) {
		out.Lag = lag
	}
	out.Bad = int32(len(bad))
	out.Targets = bad[:min(len(bad), v1alpha1.MaxStatusTargets)]
	conditions(&out, s, next, c, bad, noRestart(next, limits(obj, s)))
	return out
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
	unusable   target.Target // the first that waits for a person; zero when none does
}

func count(obj *v1alpha1.HyperliquidParser, s *seen) census {
	c := census{desired: len(s.targets)}
	asked := obj.Annotations[v1alpha1.AnnotationRestartedAt]
	for i, t := range s.targets {
		able := t.Waits == ""
		if !able {
			c.waiting = append(c.waiting, t.Name)
			c.waitingFor = cmp.Or(c.waitingFor, t.Waits)
		}
		if t.Unusable() && c.unusable.Name == "" {
			c.unusable = t
		}
		pod := s.pairs[i].pod
		if pod == nil || pod.DeletionTimestamp != nil {
			if able {
				c.missing++
			}
			continue
		}
		p := planPod(pod)
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
		case !p.Ready && s.now.Before(p.Created.Add(plan.Settle)):
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
				Reason:   judgement.Reason,
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

// maxMessage bounds a target's message, so that twenty of them and all else stay under 8 KB.
const maxMessage = 160

// message joins the figures with what is done, or why nothing is, of which the second is never cut.
func message(figures, what string) string {
	if what != "" {
		what = "; " + what
	}
	if room := maxMessage - len(what); len(figures) > room {
		figures = strings.ToValidUTF8(figures[:max(room-len("…"), 0)], "") + "…"
	}
	return figures + what
}

// lagOf is the worst target's lag, to the second; "" while no report has come.
func lagOf(views map[string]poller.View) string {
	var lag time.Duration
	reported := false
	for _, v := range views {
		reported = reported || v.Reports > 0
		lag = max(lag, v.Lag)
	}
	if !reported {
		return ""
	}
	return lag.Round(time.Second).String()
}

// verdictsDiffer reports whether another set of targets is bad than the status has, or another verdict is on one.
func verdictsDiffer(before v1alpha1.HyperliquidParserStatus, bad []v1alpha1.TargetStatus) bool {
	if int(before.Bad) != len(bad) {
		return true
	}
	return !slices.EqualFunc(before.Targets, bad[:min(len(bad), v1alpha1.MaxStatusTargets)], func(a, b v1alpha1.TargetStatus) bool {
		return a.Target == b.Target && a.Verdict == b.Verdict
	})
}

func conditions(
	status *v1alpha1.HyperliquidParserStatus, s *seen, next plan.Result, c census, bad []v1alpha1.TargetStatus,
	noRestart func(string) (reason, text string),
) {
	set := func(kind string, value metav1.ConditionStatus, reason, text string) {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: kind, Status: value, Reason: reason, Message: text,
			ObservedGeneration: status.ObservedGeneration,
			LastTransitionTime: metav1.NewTime(s.now.Truncate(time.Second)),
		})
	}
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
		set(v1alpha1.ConditionStalled, metav1.ConditionFalse, v1alpha1.ReasonNotStalled, "")
	}
	ready, reason, text := readiness(stalled, c, reconciling, status.UpdateRevision)
	if next.Message != "" && stalled == nil {
		text += "; " + next.Message
	}
	set(v1alpha1.ConditionReady, ready, reason, text)
	if reconciling != "" {
		set(v1alpha1.ConditionReconciling, metav1.ConditionTrue, reconciling, text)
	} else {
		set(v1alpha1.ConditionReconciling, metav1.ConditionFalse, v1alpha1.ReasonUpToDate, "")
	}

	stable, reason, text := s.verdicts(status, bad, noRestart, v1alpha1.ConditionBuffersStable, v1alpha1.ReasonAllStable, "no buffer grows and no parser hangs",
		growth.Growing, growth.Stuck, growth.Leaking)
	set(v1alpha1.ConditionBuffersStable, stable, reason, text)
	delivering, reason, text := s.verdicts(status, bad, noRestart, v1alpha1.ConditionDelivering, v1alpha1.ReasonAllDelivering, "every parser that runs delivers",
		growth.Stuck, growth.NotRunning, growth.SinkDown, growth.Overloaded, growth.Unreachable, growth.SourceStalled)
	if delivering != metav1.ConditionFalse {
		before := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionDelivering)
		if lost := s.lostData(); lost != "" {
			delivering, reason, text = metav1.ConditionFalse, v1alpha1.ReasonDataLost, lost
		} else if before != nil && before.Reason == v1alpha1.ReasonDataLost && s.anyUnknown() {
			delivering, reason, text = before.Status, before.Reason, before.Message // who lost data may not have been asked yet
		}
	}
	set(v1alpha1.ConditionDelivering, delivering, reason, text)
}

// verdicts is what a condition says that is false while a target has one of the verdicts that count.
func (s *seen) verdicts(
	status *v1alpha1.HyperliquidParserStatus, bad []v1alpha1.TargetStatus, noRestart func(string) (reason, text string),
	kind, good, goodText string, counts ...growth.Verdict,
) (value metav1.ConditionStatus, reason, text string) {
	worst := slices.DeleteFunc(slices.Clone(bad), func(t v1alpha1.TargetStatus) bool {
		return !slices.Contains(counts, growth.Verdict(t.Verdict))
	})
	before := meta.FindStatusCondition(status.Conditions, kind)
	switch {
	case len(worst) > 0:
		for _, t := range worst {
			if why, more := noRestart(t.Target); why != "" {
				return metav1.ConditionFalse, why, worstMessage(worst) + more
			}
		}
		return metav1.ConditionFalse, worst[0].Verdict, worstMessage(worst)
	case s.known && len(s.targets) == 0, s.anyJudged():
		return metav1.ConditionTrue, good, goodText
	case before != nil && before.Status == metav1.ConditionTrue:
		return before.Status, before.Reason, before.Message // a new leader has no other opinion yet
	}
	return metav1.ConditionUnknown, v1alpha1.ReasonNotYetJudged, "waiting for reports"
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

// lostData says which targets have lost data, with the story of the first; "" when none has.
func (s *seen) lostData() string {
	var lost []string
	for _, t := range s.targets {
		if s.views[t.Name].Alerts.DataLost.Raised() {
			lost = append(lost, t.Name)
		}
	}
	if len(lost) == 0 {
		return ""
	}
	slices.Sort(lost)
	text := lost[0] + ": " + s.views[lost[0]].Alerts.DataLost.Message
	if n := len(lost) - 1; n > 0 {
		text += fmt.Sprintf(" (and %s more)", plural(n, "target"))
	}
	return text
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

func (s *seen) anyUnknown() bool {
	for _, v := range s.views {
		if v.Judgement.Verdict == growth.Unknown {
			return true
		}
	}
	return false
}

func (s *seen) anyJudged() bool {
	for _, v := range s.views {
		if v.Judgement.Verdict != growth.Unknown {
			return true
		}
	}
	return false
}

// progress is the reason for which the fleet is being changed; "" when it is not.
func progress(s *seen, next plan.Result, c census) string {
	switch {
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
