package controller

import (
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// bootLength is how much of a boot ID, which is a random UUID, suffices to distinguish the boots of one node.
const bootLength = 8

// pollsPerSecond bounds the polls of one object's parsers per second. A poll takes some 0.35 ms of processor time when
// polls are spread out: without this bound, 5,000 parsers that are polled every second would take two cores from all
// other objects.
const pollsPerSecond = 1000

// growthSettings returns what the parsers of an object with that many targets are judged by. A fleet too large for its
// poll interval has a longer one, in whole seconds so that it seldom changes, and the times that must be at least three
// intervals follow.
func growthSettings(obj *v1alpha1.HyperliquidParser, targets int) health.Settings {
	g := obj.Spec.Growth
	s := health.Settings{
		PollInterval: ptr.Deref(g.PollInterval, metav1.Duration{Duration: v1alpha1.DefaultPollInterval}).Duration,
		StuckAfter:   ptr.Deref(g.StuckAfter, metav1.Duration{Duration: v1alpha1.DefaultStuckAfter}).Duration,
		Retention:    ptr.Deref(g.Retention, metav1.Duration{Duration: v1alpha1.DefaultRetention}).Duration,
		BufferLimit:  v1alpha1.DefaultBufferLimit,
	}
	s.PollInterval = max(s.PollInterval, time.Duration((targets+pollsPerSecond-1)/pollsPerSecond)*time.Second)
	// Fewer than three reports show neither a hang nor a lag.
	s.StuckAfter = max(s.StuckAfter, 3*s.PollInterval)
	s.Lag = max(ptr.Deref(g.Lag, metav1.Duration{Duration: v1alpha1.DefaultLag}).Duration, 3*s.PollInterval)
	if len(g.SourceStalledAfter) > 0 {
		s.SourceStalledAfter = make(map[string]time.Duration, len(g.SourceStalledAfter))
		for stream, after := range g.SourceStalledAfter {
			s.SourceStalledAfter[string(stream)] = after.Duration.Duration
		}
	}
	if limit := obj.Spec.Engine.BufferLimit; limit != nil {
		s.BufferLimit = limit.Value()
	}
	return s
}

// decide makes the plan from what was observed and resolved.
func (r *Reconciler) decide(obj *v1alpha1.HyperliquidParser, f *observed.Fleet, v *revisions) plan.Result {
	if !f.Known {
		return plan.Result{}
	}
	in := plan.Input{
		Now:         f.Now,
		Object:      obj.Name,
		Current:     v.current.PlanName(),
		Update:      v.update.PlanName(),
		RestartedAt: obj.Annotations[v1alpha1.AnnotationRestartedAt],
		Judgements:  make(map[string]health.Judgement, len(f.Views)),
		Lag:         make(map[string]time.Duration, len(f.Views)),
		Ledger:      f.Ledger.Records,
		Trials:      f.Ledger.Trials,
		Rollout:     v.rollout,
		Promote:     v.promoted(obj),
		Spec:        strconv.FormatInt(obj.Generation, 10),
		RetryAt:     map[string]time.Time{},
		Limits:      limits(obj, f, v),
	}
	if v.update == nil {
		in.Update = in.Current // there is nothing to roll out
	}
	if len(v.rollout.OutOfOrder) > 0 {
		names := make([]string, 0, len(f.Targets))
		for _, t := range f.Targets {
			names = append(names, t.Name)
		}
		in.AbsentSince = r.history.MissingSince(client.ObjectKeyFromObject(obj), v.rollout.Absent(names), f.Now)
	}
	in.Peers, in.ForeignPeers, in.FleetWide = r.Outages.others(obj)
	in.Targets, in.Pods = make([]plan.Target, 0, len(f.Targets)), make([]plan.Pod, 0, len(f.Pods))
	for i, t := range f.Targets {
		in.Targets = append(in.Targets, plan.Target{
			Name: t.Name, Pod: f.Pairs[i].Name, Schedulable: t.Waits == "", NodeReady: t.Waits != target.NotReady,
			BootID: t.Boot[:min(len(t.Boot), bootLength)], UnreadySince: f.Ages.UnreadySince[t.Name],
		})
	}
	for i := range f.Pods {
		p := f.PlanPod(&f.Pods[i])
		p.NodeLost = f.NodeLost(f.Pods[i].Spec.NodeName)
		in.Pods = append(in.Pods, p)
	}
	for name, view := range f.Views {
		in.Judgements[name] = view.Judgement
		if view.LagKnown {
			in.Lag[name] = view.Lag
		}
	}
	for _, p := range in.Pods {
		key := backoffKey(obj, p.Target)
		if p.Failed && r.FailedBackoff.IsInBackOffSinceUpdate(key, f.Now) {
			in.RetryAt[p.Target] = f.Now.Add(r.FailedBackoff.Get(key))
		}
	}
	return plan.Next(in)
}

func backoffKey(obj *v1alpha1.HyperliquidParser, name string) string {
	return string(obj.UID) + "/" + name
}

// limits returns the limits of a plan.
func limits(obj *v1alpha1.HyperliquidParser, f *observed.Fleet, v *revisions) plan.Limits {
	restart := obj.Spec.Growth.Restart
	var canary *plan.Canary
	if spec := obj.Spec.Rollout.Canary; spec != nil {
		canary = &plan.Canary{
			Count: ptr.Deref(spec.Count, intstr.FromInt32(v1alpha1.DefaultCanaryCount)),
			Soak:  ptr.Deref(spec.Soak, metav1.Duration{Duration: v1alpha1.DefaultSoak}).Duration,
		}
	}
	return plan.Limits{
		Canary:         canary,
		MaxUnavailable: ptr.Deref(obj.Spec.Rollout.MaxUnavailable, intstr.FromString(v1alpha1.DefaultMaxUnavailable)),
		MaxConcurrent:  ptr.Deref(restart.MaxConcurrent, intstr.FromString(v1alpha1.DefaultMaxConcurrent)),
		Cooldown:       ptr.Deref(restart.Cooldown, metav1.Duration{Duration: v1alpha1.DefaultCooldown}).Duration,
		MaxPerHour:     int(ptr.Deref(restart.MaxPerHour, v1alpha1.DefaultMaxPerHour)),
		FleetWide:      ptr.Deref(obj.Spec.Growth.FleetWideThreshold, intstr.FromString(v1alpha1.DefaultFleetWideThreshold)),
		AlertOnly:      obj.Spec.Growth.Action == v1alpha1.GrowthActionAlert,
		Paused:         obj.Spec.Paused,
		Hold:           v.problem != nil || v.held,
		NoPods:         noPods(f, v),
	}
}

// noPods reports whether not even missing pods may be recreated, because what they would do is unknown, or because they
// would write into another object's directory. A spec that is refused for anything else leaves the revisions usable
// that were stored before.
func noPods(f *observed.Fleet, v *revisions) bool {
	return v.problem != nil && (v.problem.Reason == v1alpha1.ReasonTampered || f.SharesDirectory && v.update != nil)
}
