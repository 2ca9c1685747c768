package controller

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/status"
)

const (
	// eventsPerMinute bounds the events of one object. One event summarizes the rest when the minute ends.
	eventsPerMinute = 6
	// severalTargets is the largest number of targets that get an event each for the same change. More share one event.
	severalTargets = 3

	reasonRestarting = "Restarting"
	reasonRecovered  = "Recovered"
	reasonSuppressed = "MoreEvents"
	reasonRolledOut  = "RolledOut"
	reasonOutageOver = "FleetWideOver"
)

// Events sends an event for each change of a fleet, once, at a bounded rate per object. It remembers what it sent. A
// new leader sends faults that last once more. It is safe for concurrent use.
type Events struct {
	recorder events.EventRecorder
	clock    clock.PassiveClock
	perObject[*eventState]
}

// eventState is what events and log lines were sent for, for one object.
type eventState struct {
	verdicts    map[string]health.Verdict // bad ones, by target
	alerts      map[alertKey]bool
	logged      map[string]logState // by target
	minute      time.Time           // when the current minute began
	count       int                 // events sent in it
	suppressed  map[string]int      // events over the limit, by reason
	lastRelated runtime.Object      // related object of the last suppressed event
	restarts    []restartNote       // sent after the verdicts that led to them
	fleetWide   bool
	phase       plan.Phase // of the rollout to revision
	revision    string
	// conditions, by type, and currentRevision are those of the last events. They take precedence over the status that was
	// read: while the status cannot be written, each reconcile would send the same events again.
	conditions      map[string]metav1.Condition
	currentRevision string
	object          *v1alpha1.HyperliquidParser
}

// logState is the state of a target that was logged last.
type logState struct {
	verdict health.Verdict
	reason  string
	alerts  uint8 // one bit for each raised alert, in the order of health.AlertKinds
}

type alertKey struct {
	target string
	kind   health.AlertKind
}

// restartNote is the event of a restart that was recorded.
type restartNote struct{ pod, uid, text string }

// NewEvents returns an Events that sends to recorder.
func NewEvents(recorder events.EventRecorder, now clock.PassiveClock) *Events {
	return &Events{recorder: recorder, clock: now}
}

// due returns when the summary of suppressed events must be sent, or zero if none were suppressed.
func (e *Events) due(object types.NamespacedName) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if state := e.objects[object]; state != nil && len(state.suppressed) > 0 {
		return state.minute.Add(time.Minute)
	}
	return time.Time{}
}

// restarting notes a restart that was recorded and is about to happen. judgements sends its event.
func (e *Events) restarting(obj *v1alpha1.HyperliquidParser, a plan.Action, j health.Judgement) {
	e.mu.Lock()
	defer e.mu.Unlock()
	state := e.stateOf(obj)
	text := fmt.Sprintf("%s: restarting parser %s (%d within the hour), which is %s: %s",
		a.Target, a.Pod, len(a.Record.Times), j.Verdict, j.Message)
	state.restarts = append(state.restarts, restartNote{a.Pod, a.UID, text})
}

// conditions sends events about a fleet that is stalled, has nothing to do, or has completed a rollout.
func (e *Events) conditions(obj *v1alpha1.HyperliquidParser, before, after v1alpha1.HyperliquidParserStatus) {
	e.mu.Lock()
	defer e.mu.Unlock()
	state := e.stateOf(obj)
	changed := func(kind string) *metav1.Condition {
		was, is := meta.FindStatusCondition(before.Conditions, kind), meta.FindStatusCondition(after.Conditions, kind)
		if sent, ok := state.conditions[kind]; ok {
			was = &sent
		}
		if is == nil {
			return nil
		}
		state.conditions[kind] = metav1.Condition{Status: is.Status, Reason: is.Reason}
		if was != nil && was.Status == is.Status && was.Reason == is.Reason {
			return nil
		}
		return is
	}
	if c := changed(v1alpha1.ConditionStalled); c != nil && c.Status == metav1.ConditionTrue {
		e.emit(obj, "", "", corev1.EventTypeWarning, c.Reason, "Reconcile", c.Message)
	}
	was := cmp.Or(state.currentRevision, before.CurrentRevision)
	state.currentRevision = after.CurrentRevision
	if was != "" && was != after.CurrentRevision {
		e.emit(obj, "", "", corev1.EventTypeNormal, reasonRolledOut, "Reconcile",
			"every parser runs revision "+after.CurrentRevision)
	}
	if c := changed(v1alpha1.ConditionBuffersStable); c != nil && c.Reason == v1alpha1.ReasonRestartIneffective {
		e.emit(obj, "", "", corev1.EventTypeWarning, c.Reason, "Judge", c.Message)
	}
	reasons := []string{v1alpha1.ReasonNoTargets, v1alpha1.ReasonNoClaim, v1alpha1.ReasonClaimNotShareable}
	if c := changed(v1alpha1.ConditionReady); c != nil && slices.Contains(reasons, c.Reason) {
		e.emit(obj, "", "", corev1.EventTypeWarning, c.Reason, "Reconcile", c.Message)
	}
}

// judgements sends events about targets whose verdict became bad, changed between bad ones, or recovered, then about
// raised alerts and restarts.
func (e *Events) judgements(obj *v1alpha1.HyperliquidParser, f *observed.Fleet) {
	e.mu.Lock()
	defer e.mu.Unlock()
	state := e.stateOf(obj)
	changes := map[health.Verdict][]string{} // targets by their new verdict
	for i := range f.Targets {
		target := f.Targets[i].Name
		verdict := f.Views[target].Judgement.Verdict // "" without a pod
		was := state.verdicts[target]
		switch {
		case verdict.Bad() && verdict != was:
			state.verdicts[target] = verdict
			changes[verdict] = append(changes[verdict], target)
		case verdict == health.Healthy && was != "":
			delete(state.verdicts, target)
			changes[verdict] = append(changes[verdict], target)
		}
	}
	maps.DeleteFunc(state.verdicts, func(name string, _ health.Verdict) bool {
		_, wanted := f.Index(name)
		return f.Known && !wanted
	})
	for _, verdict := range health.Verdicts() {
		kind, reason := corev1.EventTypeWarning, string(verdict)
		if verdict == health.Healthy {
			kind, reason = corev1.EventTypeNormal, reasonRecovered
		}
		e.targets(obj, f, kind, reason, " is "+string(verdict), changes[verdict], func(target string) string {
			return currentMessage(f.Views[target])
		})
	}
	e.alerts(obj, f, state)
	for _, note := range state.restarts {
		e.emit(obj, note.pod, note.uid, corev1.EventTypeWarning, reasonRestarting, "Restart", note.text)
	}
	state.restarts = nil
	e.flush(state)
}

// currentMessage returns the reason for a verdict with the figures of the newest report. If that report does not show
// the verdict, it returns the figures of the time when the verdict was reached, and that time.
func currentMessage(v poller.View) string {
	switch v.Latest.Verdict {
	case v.Judgement.Verdict:
		return v.Latest.Message
	case "":
		return v.Judgement.Message
	}
	return v.Judgement.Message + v.Judgement.Since.UTC().Format(", at 15:04:05 UTC")
}

// withCurrentFigures returns the status as events quote it: a target that restarts do not help has newer figures than
// those of the time when its verdict was reached.
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
			stable.Message = name + ": " + status.TargetMessage(currentMessage(view), next.Waiting[name])
			break
		}
	}
	return written
}

// change is a log line about a target.
type change struct {
	target string
	text   string
	values []any
}

// changes returns the verdicts and alerts that differ from those of the last call, so each is logged once. The first
// verdict of a target is a change unless it is Unknown. So is the end of a bad verdict because the pod is gone.
func (e *Events) changes(obj *v1alpha1.HyperliquidParser, f *observed.Fleet) []change {
	e.mu.Lock()
	defer e.mu.Unlock()
	state := e.stateOf(obj)
	kinds := health.AlertKinds()
	var out []change
	for i := range f.Targets {
		target := f.Targets[i].Name
		view, ok := f.Views[target]
		was := state.logged[target]
		is := logState{verdict: cmp.Or(view.Judgement.Verdict, health.Unknown), reason: view.Judgement.Reason}
		if !ok {
			is.reason = "NoPod"
		}
		was.verdict = cmp.Or(was.verdict, health.Unknown)
		if is.verdict != was.verdict || is.verdict.Bad() && is.reason != was.reason {
			out = append(out, change{target, "verdict changed", []any{
				"verdict", is.verdict, "reason", is.reason, "before", was.verdict, "message", currentMessage(view),
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
		state.logged[target] = is
	}
	maps.DeleteFunc(state.logged, func(name string, _ logState) bool {
		_, wanted := f.Index(name)
		return f.Known && !wanted
	})
	return out
}

// alerts sends events about raised alerts. The end of an alert has none: the pod was replaced, or the verdict has the
// same event.
func (e *Events) alerts(obj *v1alpha1.HyperliquidParser, f *observed.Fleet, state *eventState) {
	for _, kind := range health.AlertKinds() {
		var raised []string
		for i := range f.Targets {
			target := f.Targets[i].Name
			key := alertKey{target, kind}
			view, ok := f.Views[target]
			switch {
			case !ok:
			case !view.Alerts.Of(kind).Raised():
				delete(state.alerts, key)
			case !state.alerts[key]:
				state.alerts[key] = true
				// Another leader has sent the event of a loss that the status records.
				if !status.HasLoss(&obj.Status, target, kind, view.Alerts.LossOf(kind)) {
					raised = append(raised, target)
				}
			}
		}
		e.targets(obj, f, corev1.EventTypeWarning, string(kind), "", raised, func(target string) string {
			return f.Views[target].Alerts.Of(kind).Message
		})
	}
	maps.DeleteFunc(state.alerts, func(key alertKey, _ bool) bool {
		_, wanted := f.Index(key.target)
		return f.Known && !wanted
	})
}

// targets sends the same event about each of some targets, or one about all of them if they are more than
// severalTargets. are is the predicate, such as " is Stuck".
func (e *Events) targets(
	obj *v1alpha1.HyperliquidParser, f *observed.Fleet, kind, reason, are string, targets []string,
	message func(target string) string,
) {
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

// podOf returns the pod that an event about a target is related to. The UID is "" if the pod does not exist.
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

// rollout sends one event when a new revision reaches its canaries and one when its rollout stops.
func (e *Events) rollout(obj *v1alpha1.HyperliquidParser, next plan.Result, after v1alpha1.HyperliquidParserStatus) {
	e.mu.Lock()
	defer e.mu.Unlock()
	state := e.stateOf(obj)
	if state.phase == next.Phase && state.revision == after.UpdateRevision {
		return
	}
	state.phase, state.revision = next.Phase, after.UpdateRevision
	switch state.phase {
	case plan.PhaseCanary:
		e.emit(obj, "", "", corev1.EventTypeNormal, v1alpha1.ReasonCanarySoaking, "Reconcile",
			fmt.Sprintf("revision %s runs on its canaries; the other parsers stay at %s until the canaries have soaked",
				after.UpdateRevision, after.CurrentRevision))
	case plan.PhaseStopped:
		e.emit(obj, "", "", corev1.EventTypeWarning, v1alpha1.ReasonRolloutStopped, "Reconcile", next.Message)
	case plan.PhaseSteady, plan.PhaseRolling, plan.PhaseFailed:
	}
}

// outage sends one event when a fault becomes fleet-wide and one when it no longer is.
func (e *Events) outage(obj *v1alpha1.HyperliquidParser, next plan.Result) {
	e.mu.Lock()
	defer e.mu.Unlock()
	state := e.stateOf(obj)
	if state.fleetWide == next.FleetWide {
		return
	}
	state.fleetWide = next.FleetWide
	if state.fleetWide {
		e.emit(obj, "", "", corev1.EventTypeWarning, v1alpha1.ReasonFleetWide, "Judge",
			next.Outage+": no parser is restarted until fewer targets are bad")
		return
	}
	e.emit(obj, "", "", corev1.EventTypeNormal, reasonOutageOver, "Judge",
		"few targets are bad: parsers are restarted again if that may help")
}

func (e *Events) stateOf(obj *v1alpha1.HyperliquidParser) *eventState {
	key := client.ObjectKeyFromObject(obj)
	state := e.objects[key]
	if state == nil {
		state = &eventState{
			verdicts: map[string]health.Verdict{}, alerts: map[alertKey]bool{}, logged: map[string]logState{},
			suppressed: map[string]int{}, conditions: map[string]metav1.Condition{},
		}
		e.set(key, state)
	}
	state.object = obj
	return state
}

// emit sends an event, or suppresses it if the limit of the minute is reached. The pod is the related object: the
// recorder merges events that differ only in their text, keeps the text of the first, and updates it once more after
// six minutes.
func (e *Events) emit(obj *v1alpha1.HyperliquidParser, pod, uid, kind, reason, action, text string) {
	state := e.stateOf(obj)
	e.flush(state)
	var related runtime.Object
	if pod != "" {
		related = &corev1.Pod{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
			ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: pod, UID: types.UID(uid)},
		}
	}
	if state.count == eventsPerMinute {
		state.suppressed[reason]++
		state.lastRelated = related
		return
	}
	state.count++
	e.send(obj, related, kind, reason, action, text)
}

// send passes an event to the recorder. It bounds the note and the reason, because the API server rejects an event that
// is too long and the recorder does not report that.
func (e *Events) send(obj *v1alpha1.HyperliquidParser, related runtime.Object, kind, reason, action, text string) {
	e.recorder.Eventf(obj, related, kind, prose.Reason(reason), action, "%s", prose.Line(text, prose.MaxNote))
}

// flush sends the summary of suppressed events once their minute is over.
func (e *Events) flush(state *eventState) {
	now := e.clock.Now()
	if now.Before(state.minute.Add(time.Minute)) {
		return
	}
	suppressed := state.suppressed
	state.minute, state.count, state.suppressed = now, 0, map[string]int{}
	if len(suppressed) == 0 {
		return
	}
	parts := make([]string, 0, len(suppressed))
	for _, reason := range slices.Sorted(maps.Keys(suppressed)) {
		parts = append(parts, fmt.Sprintf("%d × %s", suppressed[reason], reason))
	}
	state.count++
	e.send(state.object, state.lastRelated, corev1.EventTypeNormal, reasonSuppressed, "Judge",
		"events suppressed in the last minute: "+strings.Join(parts, ", "))
}
