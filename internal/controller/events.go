package controller

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/status"
)

const (
	// eventsPerMinute bounds the events of one object. What is over is told together when the minute ends.
	eventsPerMinute = 6
	// severalTargets that get the same verdict at the same time are one event.
	severalTargets = 3

	reasonRestarting = "Restarting"
	reasonRecovered  = "Recovered"
	reasonSuppressed = "MoreEvents"
	reasonRolledOut  = "RolledOut"
	reasonOutageOver = "FleetWideOver"
)

// Events tells people what changed, without flooding them: each change of verdict once, at most some a minute and object, the rest
// together. It remembers what it told; a new leader tells of faults that last once more. It is safe for concurrent use.
type Events struct {
	recorder events.EventRecorder
	clock    clock.PassiveClock

	mu      sync.Mutex
	objects map[types.NamespacedName]*told
}

// told is what was told of one object.
type told struct {
	verdicts map[string]growth.Verdict // bad ones, by target
	alerts   map[raised]bool
	logged   map[string]logged // what the log was last given, by target
	minute   time.Time         // when the current minute began
	count    int               // events in it
	held     map[string]int    // events over the bound, by reason
	last     runtime.Object    // that the last of those was related to
	restarts []restartNote     // to be told after the verdicts that led to them
	outage   bool              // that a fault is fleet-wide
	phase    plan.Phase        // of the way to
	revision string            // this one
	// conditions are those that events were sent for last, by type, and current the revision. They go before the status that was
	// read: while that cannot be written, each reconcile would send the same again.
	conditions map[string]metav1.Condition
	current    string
	object     *v1alpha1.HyperliquidParser
}

// logged is what the log has of a target.
type logged struct {
	verdict growth.Verdict
	reason  string
	alerts  uint8 // that are raised, a bit each, in the order of growth.AlertKinds
}

// raised is an alert of a target.
type raised struct {
	target string
	kind   growth.AlertKind
}

// restartNote is a restart that was recorded.
type restartNote struct{ pod, uid, text string }

// NewEvents returns an Events that tells through recorder.
func NewEvents(recorder events.EventRecorder, now clock.PassiveClock) *Events {
	return &Events{recorder: recorder, clock: now, objects: map[types.NamespacedName]*told{}}
}

// Forget drops what is remembered of an object that is gone.
func (e *Events) Forget(object types.NamespacedName) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.objects, object)
}

// due is when events that were held back must be told; zero when there are none.
func (e *Events) due(object types.NamespacedName) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := e.objects[object]; t != nil && len(t.held) > 0 {
		return t.minute.Add(time.Minute)
	}
	return time.Time{}
}

// restarting takes note of a restart that was recorded and is about to be done; judgements tells of it.
func (e *Events) restarting(obj *v1alpha1.HyperliquidParser, a plan.Action, j growth.Judgement) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.of(obj)
	t.restarts = append(t.restarts, restartNote{a.Pod, a.UID, fmt.Sprintf("%s: restarting parser %s (%d within the hour), which is %s: %s",
		a.Target, a.Pod, len(a.Record.Times), j.Verdict, j.Message)})
}

// conditions tells of a fleet that cannot go on, has nothing to do, or has got another revision.
func (e *Events) conditions(obj *v1alpha1.HyperliquidParser, before, after v1alpha1.HyperliquidParserStatus) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.of(obj)
	changed := func(kind string) *metav1.Condition {
		was, is := meta.FindStatusCondition(before.Conditions, kind), meta.FindStatusCondition(after.Conditions, kind)
		if told, ok := t.conditions[kind]; ok {
			was = &told
		}
		if is == nil {
			return nil
		}
		t.conditions[kind] = metav1.Condition{Status: is.Status, Reason: is.Reason}
		if was != nil && was.Status == is.Status && was.Reason == is.Reason {
			return nil
		}
		return is
	}
	if c := changed(v1alpha1.ConditionStalled); c != nil && c.Status == metav1.ConditionTrue {
		e.emit(obj, "", "", corev1.EventTypeWarning, c.Reason, "Reconcile", c.Message)
	}
	was := cmp.Or(t.current, before.CurrentRevision)
	t.current = after.CurrentRevision
	if was != "" && was != after.CurrentRevision {
		e.emit(obj, "", "", corev1.EventTypeNormal, reasonRolledOut, "Reconcile", "every parser is of revision "+after.CurrentRevision)
	}
	if c := changed(v1alpha1.ConditionBuffersStable); c != nil && c.Reason == v1alpha1.ReasonRestartIneffective {
		e.emit(obj, "", "", corev1.EventTypeWarning, c.Reason, "Judge", c.Message)
	}
	untold := []string{v1alpha1.ReasonNoTargets, v1alpha1.ReasonNoClaim, v1alpha1.ReasonClaimNotShareable}
	if c := changed(v1alpha1.ConditionReady); c != nil && slices.Contains(untold, c.Reason) {
		e.emit(obj, "", "", corev1.EventTypeWarning, c.Reason, "Reconcile", c.Message)
	}
}

// judgements tells which verdicts became bad, which changed, and which targets have recovered; then which alerts were raised and
// which parsers restarted.
func (e *Events) judgements(obj *v1alpha1.HyperliquidParser, f *observed.Fleet) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.of(obj)
	changes := map[growth.Verdict][]string{} // targets by their new verdict
	for i := range f.Targets {
		target := f.Targets[i].Name
		verdict := f.Views[target].Judgement.Verdict // "" without a pod
		was := t.verdicts[target]
		switch {
		case verdict.Bad() && verdict != was:
			t.verdicts[target] = verdict
			changes[verdict] = append(changes[verdict], target)
		case verdict == growth.Healthy && was != "":
			delete(t.verdicts, target)
			changes[verdict] = append(changes[verdict], target)
		}
	}
	maps.DeleteFunc(t.verdicts, func(name string, _ growth.Verdict) bool {
		_, wanted := f.Index(name)
		return f.Known && !wanted
	})
	for _, verdict := range growth.Verdicts() {
		kind, reason := corev1.EventTypeWarning, string(verdict)
		if verdict == growth.Healthy {
			kind, reason = corev1.EventTypeNormal, reasonRecovered
		}
		e.targets(obj, f, kind, reason, " is "+string(verdict), changes[verdict], func(target string) string {
			return ofNow(f.Views[target])
		})
	}
	e.alerts(obj, f, t)
	for _, note := range t.restarts {
		e.emit(obj, note.pod, note.uid, corev1.EventTypeWarning, reasonRestarting, "Restart", note.text)
	}
	t.restarts = nil
	e.flush(t)
}

// ofNow is what led to a verdict, with the figures of now; those of when it was reached, which is said then, where the
// newest report does not show it.
func ofNow(v poller.View) string {
	switch v.Latest.Verdict {
	case v.Judgement.Verdict:
		return v.Latest.Message
	case "":
		return v.Judgement.Message
	}
	return v.Judgement.Message + v.Judgement.Since.UTC().Format(", at 15:04:05 UTC")
}

// withCurrentFigures returns a status with the figures that events quote: those of targets that restarts do not help have changed since
// their verdict was reached.
func withCurrentFigures(
	written v1alpha1.HyperliquidParserStatus, f *observed.Fleet, next plan.Result,
) v1alpha1.HyperliquidParserStatus {
	stable := meta.FindStatusCondition(written.Conditions, v1alpha1.ConditionBuffersStable)
	if stable == nil || stable.Reason != v1alpha1.ReasonRestartIneffective {
		return written
	}
	for i := range written.Targets {
		name := written.Targets[i].Target
		if view, ok := f.Views[name]; ok && slices.Contains(next.Ineffective, name) {
			written = *written.DeepCopy()
			stable = meta.FindStatusCondition(written.Conditions, v1alpha1.ConditionBuffersStable)
			stable.Message = name + ": " + status.TargetMessage(ofNow(view), next.Waiting[name])
			break
		}
	}
	return written
}

// change is news of a target for the log.
type change struct {
	target string
	text   string
	values []any
}

// changes are the verdicts and the alerts that differ from those of the last look: each is in the log once. The first
// verdict on a target is news unless it is Unknown, and so is that a bad one is left because the pod is gone.
func (e *Events) changes(obj *v1alpha1.HyperliquidParser, f *observed.Fleet) []change {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.of(obj)
	kinds := growth.AlertKinds()
	var out []change
	for i := range f.Targets {
		target := f.Targets[i].Name
		view, ok := f.Views[target]
		was := t.logged[target]
		is := logged{verdict: cmp.Or(view.Judgement.Verdict, growth.Unknown), reason: view.Judgement.Reason}
		if !ok {
			is.reason = "NoPod"
		}
		was.verdict = cmp.Or(was.verdict, growth.Unknown)
		if is.verdict != was.verdict || is.verdict.Bad() && is.reason != was.reason {
			out = append(out, change{target, "verdict changed", []any{
				"verdict", is.verdict, "reason", is.reason, "before", was.verdict, "message", ofNow(view),
			}})
		}
		for k, kind := range kinds {
			alert, bit := view.Alerts.Of(kind), uint8(1)<<k
			if alert.Raised() {
				is.alerts |= bit
			}
			switch {
			case is.alerts&bit > was.alerts&bit:
				out = append(out, change{target, "alert raised", []any{"alert", kind, "message", alert.Message}})
			case is.alerts&bit < was.alerts&bit:
				out = append(out, change{target, "alert over", []any{"alert", kind}})
			}
		}
		t.logged[target] = is
	}
	maps.DeleteFunc(t.logged, func(name string, _ logged) bool {
		_, wanted := f.Index(name)
		return f.Known && !wanted
	})
	return out
}

// alerts tells which were raised. That one is over is no news: the pod was replaced, or the verdict tells the same.
func (e *Events) alerts(obj *v1alpha1.HyperliquidParser, f *observed.Fleet, t *told) {
	for _, kind := range growth.AlertKinds() {
		var news []string
		for i := range f.Targets {
			target := f.Targets[i].Name
			key := raised{target, kind}
			view, ok := f.Views[target]
			switch {
			case !ok:
			case !view.Alerts.Of(kind).Raised():
				delete(t.alerts, key)
			case !t.alerts[key]:
				t.alerts[key] = true
				// Of what the status keeps, another leader has sent the event.
				if !status.HasLoss(&obj.Status, target, kind, view.Alerts.LossOf(kind)) {
					news = append(news, target)
				}
			}
		}
		e.targets(obj, f, corev1.EventTypeWarning, string(kind), "", news, func(target string) string {
			return f.Views[target].Alerts.Of(kind).Message
		})
	}
	maps.DeleteFunc(t.alerts, func(key raised, _ bool) bool {
		_, wanted := f.Index(key.target)
		return f.Known && !wanted
	})
}

// targets tells the same of each of some targets: what they are, as in " is Stuck", and how that came about.
func (e *Events) targets(obj *v1alpha1.HyperliquidParser, f *observed.Fleet, kind, reason, are string, targets []string, message func(target string) string) {
	if len(targets) > severalTargets {
		worst := targets[0]
		name, uid := podOf(f, worst)
		e.emit(obj, name, uid, kind, reason, "Judge", fmt.Sprintf("%d targets%s: %s; %s: %s",
			len(targets), strings.Replace(are, " is ", " are ", 1), status.FirstNames(targets), worst, message(worst)))
		return
	}
	for _, target := range targets {
		name, uid := podOf(f, target)
		e.emit(obj, name, uid, kind, reason, "Judge", target+are+": "+message(target))
	}
}

// podOf is what an event about a target is related to; the UID is "" while the pod is not there.
func podOf(f *observed.Fleet, target string) (name, uid string) {
	i, ok := f.Index(target)
	if !ok {
		return "", ""
	}
	if pod := f.Pairs[i].Pod; pod != nil {
		uid = string(pod.UID)
	}
	return f.Pairs[i].Name, uid
}

// rollout tells that a new revision goes to its canaries, and that its rollout stopped: each once.
func (e *Events) rollout(obj *v1alpha1.HyperliquidParser, next plan.Result, after v1alpha1.HyperliquidParserStatus) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.of(obj)
	if t.phase == next.Phase && t.revision == after.UpdateRevision {
		return
	}
	t.phase, t.revision = next.Phase, after.UpdateRevision
	switch t.phase {
	case plan.PhaseCanary:
		e.emit(obj, "", "", corev1.EventTypeNormal, v1alpha1.ReasonCanarySoaking, "Reconcile",
			fmt.Sprintf("revision %s goes to its canaries; the others stay at %s until they have soaked", after.UpdateRevision, after.CurrentRevision))
	case plan.PhaseStopped:
		e.emit(obj, "", "", corev1.EventTypeWarning, v1alpha1.ReasonRolloutStopped, "Reconcile", next.Message)
	case plan.PhaseSteady, plan.PhaseRolling, plan.PhaseFailed:
	}
}

// outage tells that a fault is fleet-wide, once, and that it no longer is.
func (e *Events) outage(obj *v1alpha1.HyperliquidParser, next plan.Result) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.of(obj)
	if t.outage == next.FleetWide {
		return
	}
	t.outage = next.FleetWide
	if t.outage {
		e.emit(obj, "", "", corev1.EventTypeWarning, v1alpha1.ReasonFleetWide, "Judge", next.Outage+": no parser is restarted until they are fewer")
		return
	}
	e.emit(obj, "", "", corev1.EventTypeNormal, reasonOutageOver, "Judge", "few targets are bad: parsers are restarted again where that may help")
}

func (e *Events) of(obj *v1alpha1.HyperliquidParser) *told {
	key := client.ObjectKeyFromObject(obj)
	t := e.objects[key]
	if t == nil {
		t = &told{verdicts: map[string]growth.Verdict{}, alerts: map[raised]bool{}, logged: map[string]logged{},
			held: map[string]int{}, conditions: map[string]metav1.Condition{}}
		e.objects[key] = t
	}
	t.object = obj
	return t
}

// emit sends an event, or holds it back when the minute is full. The pod goes along as the related object: the recorder takes events
// that agree in everything but their text for one, tells the text of the first, and writes to it once more after six minutes.
func (e *Events) emit(obj *v1alpha1.HyperliquidParser, pod, uid, kind, reason, action, text string) {
	t := e.of(obj)
	e.flush(t)
	var related runtime.Object
	if pod != "" {
		related = &corev1.Pod{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
			ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: pod, UID: types.UID(uid)},
		}
	}
	if t.count == eventsPerMinute {
		t.held[reason]++
		t.last = related
		return
	}
	t.count++
	e.send(obj, related, kind, reason, action, text)
}

// send hands an event to the recorder. The API server refuses one whose note or reason does not fit, and nobody would
// hear of it.
func (e *Events) send(obj *v1alpha1.HyperliquidParser, related runtime.Object, kind, reason, action, text string) {
	e.recorder.Eventf(obj, related, kind, prose.Reason(reason), action, "%s", prose.Line(text, prose.MaxNote))
}

// flush tells what was held back once its minute is over.
func (e *Events) flush(t *told) {
	now := e.clock.Now()
	if now.Before(t.minute.Add(time.Minute)) {
		return
	}
	held := t.held
	t.minute, t.count, t.held = now, 0, map[string]int{}
	if len(held) == 0 {
		return
	}
	parts := make([]string, 0, len(held))
	for _, reason := range slices.Sorted(maps.Keys(held)) {
		parts = append(parts, fmt.Sprintf("%d × %s", held[reason], reason))
	}
	t.count++
	e.send(t.object, t.last, corev1.EventTypeNormal, reasonSuppressed, "Judge",
		"events not told one by one in the last minute: "+strings.Join(parts, ", "))
}
