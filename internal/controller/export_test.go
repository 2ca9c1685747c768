package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// Problem returns the reason and the message of the problem of an object that exceeds the bounds, for tests that try
// the same objects on an API server.
func (b Bounds) Problem(obj *v1alpha1.HyperliquidParser) (reason, message string) {
	if found := b.check(obj); found != nil {
		return found.Reason, found.Message
	}
	return "", ""
}

// CollidesWithItself reports whether an object is refused because its state and its files overlap, if its targets have
// the given claims of data.
func CollidesWithItself(obj *v1alpha1.HyperliquidParser, data []string) bool {
	mine := claimDirectories(obj)
	if len(mine) == 0 {
		return false
	}
	_, _, ok, _ := collision(mine[:1], mine[1:], func(bool) ([]string, error) { return data, nil })
	return ok
}

// Collide reports whether b, the younger object, is refused because of a directory of a claim that a writes into, if
// the targets of each have the given claims of data.
func Collide(a, b *v1alpha1.HyperliquidParser, dataOfA, dataOfB []string) bool {
	_, _, ok, _ := collision(claimDirectories(b), claimDirectories(a), func(mine bool) ([]string, error) {
		if mine {
			return dataOfB, nil
		}
		return dataOfA, nil
	})
	return ok
}

// SendLongestEvents sends an event of every kind about obj, with names as long as they may be and texts longer than an
// event's, and returns the reasons.
func SendLongestEvents(recorder events.EventRecorder, obj *v1alpha1.HyperliquidParser) []string {
	clock := testingclock.NewFakePassiveClock(noon)
	e := NewEvents(recorder, clock)
	long := strings.Repeat("an error that goes on\nand on – ", 2000)
	_, s := scene(0)
	for i := range 3 * (severalTargets + 1) {
		name := fmt.Sprintf("%s-%03d", strings.Repeat("n", 249), i)
		s.Targets = append(s.Targets, target.Target{Name: name, Node: name})
	}
	s.pair(obj.Name)
	var sent []string
	// send lets a minute pass first, so that no event is suppressed.
	send := func(reason string, do func()) {
		sent = append(sent, reason)
		clock.SetTime(clock.Now().Add(time.Minute))
		do()
	}
	condition := func(kind string, status metav1.ConditionStatus, reason string) func() {
		return func() {
			after := v1alpha1.HyperliquidParserStatus{
				CurrentRevision: "mainnet-0123456789",
				Conditions:      []metav1.Condition{{Type: kind, Status: status, Reason: reason, Message: long}},
			}
			e.conditions(obj, v1alpha1.HyperliquidParserStatus{CurrentRevision: "mainnet-0123456789"}, after)
		}
	}
	for _, reason := range []string{
		v1alpha1.ReasonSpecInvalid, v1alpha1.ReasonPodRejected, v1alpha1.ReasonCanaryFailed,
		v1alpha1.ReasonSecretMissing, v1alpha1.ReasonTampered,
	} {
		send(reason, condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, reason))
	}
	send(v1alpha1.ReasonRestartIneffective, condition(v1alpha1.ConditionBuffersStable, metav1.ConditionFalse,
		v1alpha1.ReasonRestartIneffective))
	send(v1alpha1.ReasonNoClaim, condition(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonNoClaim))
	send(reasonRolledOut, func() {
		after := v1alpha1.HyperliquidParserStatus{CurrentRevision: "mainnet-" + strings.Repeat("r", 2000)}
		e.conditions(obj, v1alpha1.HyperliquidParserStatus{}, after)
	})
	judge := func(v health.Verdict, alerts health.Alerts, targets int) {
		for i := range targets {
			s.judge(i, v)
			view := s.Views[s.Targets[i].Name]
			view.Judgement.Message, view.Alerts = long, alerts
			s.Views[s.Targets[i].Name] = view
		}
		e.judgements(obj, s.Fleet)
	}
	// One of a few targets, and of many.
	for _, v := range health.Verdicts() {
		if v.Bad() {
			send(string(v), func() { judge(v, health.Alerts{}, 1) })
			send(string(v), func() { judge(v, health.Alerts{}, severalTargets+2) })
		}
	}
	send(reasonRecovered, func() { judge(health.Healthy, health.Alerts{}, severalTargets+2) })
	raised := health.Alert{Since: noon, Message: long}
	send(string(health.DataLost), func() { judge(health.Healthy, health.Alerts{DataLost: raised}, 1) })
	send(string(health.DataGap), func() {
		judge(health.Healthy, health.Alerts{DataLost: raised, DataGap: raised},
			severalTargets+2)
	})
	send(string(health.NearRetention), func() {
		judge(health.Healthy, health.Alerts{DataLost: raised, DataGap: raised, NearRetention: raised}, 1)
	})
	send(string(health.FormatDrift), func() {
		judge(health.Healthy, health.Alerts{DataLost: raised, DataGap: raised, NearRetention: raised, FormatDrift: raised}, 1)
	})
	send(reasonRestarting, func() {
		name := s.Targets[0].Name
		e.restarting(obj, plan.Action{Target: name, Pod: name, Record: plan.Record{Times: []time.Time{noon}}},
			health.Judgement{Verdict: health.Stuck, Message: long})
		e.judgements(obj, s.Fleet)
	})
	after := v1alpha1.HyperliquidParserStatus{CurrentRevision: long, UpdateRevision: long}
	send(v1alpha1.ReasonCanarySoaking, func() { e.rollout(obj, plan.Result{Phase: plan.PhaseCanary}, after) })
	send(v1alpha1.ReasonRolloutStopped, func() {
		e.rollout(obj, plan.Result{Phase: plan.PhaseStopped, Message: long},
			after)
	})
	send(v1alpha1.ReasonFleetWide, func() { e.outage(obj, plan.Result{FleetWide: true, Outage: long}) })
	send(reasonOutageOver, func() { e.outage(obj, plan.Result{}) })
	send(reasonSuppressed, func() {
		for i := range 100 {
			e.emit(obj, "", "", "Warning", fmt.Sprintf("%s%03d", strings.Repeat("R", 100), i), "Judge", long)
		}
		clock.SetTime(clock.Now().Add(time.Minute))
		e.judgements(obj, s.Fleet)
	})
	slices.Sort(sent)
	return slices.Compact(sent)
}
