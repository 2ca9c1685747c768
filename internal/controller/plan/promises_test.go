package plan_test

import (
	"slices"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// checkPlan checks that a plan does nothing that must never be done.
func (s *sim) checkPlan(in plan.Input, result plan.Result) {
	outage := s.checkOutage(in, result)
	touched := map[string]bool{}
	for _, a := range result.Actions {
		if touched[a.Pod] {
			s.Fatalf("two actions on %s: %v", a.Pod, describe(result.Actions))
		}
		touched[a.Pod] = true
		j := in.Judgements[a.Target]
		restart := a.Kind == plan.Restart || a.Why == plan.WhyUnfinished
		replaces := a.Why == plan.WhyOutdated || a.Why == plan.WhyRolledBack || a.Why == plan.WhyRestartRequested
		switch {
		case restart && (outage || in.Limits.AlertOnly):
			s.Fatalf("a restart in an outage, or when only alerts are wanted: %+v", a)
		case a.Kind == plan.Restart && (!j.Verdict.Restartable() || j.Fading):
			s.Fatalf("a restart without a cause: %+v of %+v", a, j)
		case (restart || replaces) && (in.Limits.Paused || in.Limits.Hold):
			s.Fatalf("%+v while paused or on hold", a)
		case a.Kind == plan.Create && in.Limits.Hold && a.Revision != in.Current && a.Revision != in.Update:
			s.Fatalf("%+v while on hold: the revision is not stored", a)
		case a.Kind == plan.Create:
			s.checkAlone(in, a)
		}
		if node := s.nodes[strings.TrimPrefix(a.Pod, "pod-")]; replaces && node != nil && (!node.ready || node.cordoned) {
			s.Fatalf("%+v, and no pod can follow", a)
		}
	}
	s.checkCanaries(in, result)
	s.checkNoTargets(in, result)
}

// checkOutage checks what is fleet-wide against the share of targets that can be observed, and reports whether it is.
// What a node has long taken with it is the node's fault.
func (s *sim) checkOutage(in plan.Input, result plan.Result) bool {
	bad, all := 0, 0
	for _, t := range in.Targets {
		j := in.Judgements[t.Name]
		switch gone := !t.NodeReady || !t.Schedulable && (s.pods[t.Pod] == nil || s.pods[t.Pod].Terminating); {
		case gone && s.now.Sub(j.Since) >= plan.Settle:
			continue
		case j.Verdict.Bad():
			bad++
		}
		all++
	}
	outage := bad >= 2 && bad*10 >= 3*all
	if outage && !result.FleetWide {
		s.Fatalf("%d of %d are bad, and it is not fleet-wide", bad, all)
	}
	return outage
}

// checkNoTargets checks that a plan without targets decides nothing.
func (s *sim) checkNoTargets(in plan.Input, result plan.Result) {
	promoted := result.Rollout != nil && result.Rollout.Promoted && !in.Promote && !in.Rollout.Promoted
	if len(in.Targets) == 0 && (result.Complete || promoted) {
		s.Fatalf("progress without targets: %+v", result)
	}
}

// checkAlone checks that the target of a new pod has no other.
func (s *sim) checkAlone(in plan.Input, a plan.Action) {
	for _, p := range in.Pods {
		if p.Target == a.Target && !p.NodeLost {
			s.Fatalf("a second pod for %s while %s lives", a.Target, p.Name)
		}
	}
}

// checkCanaries checks the number of canaries.
func (s *sim) checkCanaries(in plan.Input, result plan.Result) {
	if result.Phase != plan.PhaseCanary || result.Rollout == nil {
		return
	}
	before := len(in.Rollout.OutOfOrder)
	after := len(result.Rollout.OutOfOrder)
	if lost := s.lostCanaries(in); after > before && lost >= 2 && lost*10 >= 3*before && before > 0 &&
		!live(in, result.Rollout.OutOfOrder) {
		s.Fatalf("%d of %d canaries are lost, and another is selected: %v", lost, before, result.Rollout.OutOfOrder)
	}
	fit := 0
	for _, t := range in.Targets {
		if t.NodeReady && !s.targets[t.Name].incurable() && slices.Contains(result.Rollout.OutOfOrder, t.Name) {
			fit++
		}
	}
	unfit := len(in.Targets) // those that were unready or unjudged before and after are no canaries
	for _, b := range result.Rollout.Baselines {
		if b.Unready || b.Verdict == health.Unknown {
			unfit--
		}
	}
	unfit = len(in.Targets) - unfit
	count := min(plan.Budget(in.Limits.Canary.Count, len(in.Targets)), len(in.Targets))
	if after > before && fit > count+unfit+cordoned(in) && in.Rollout.UpTo == "" && before > 0 {
		s.Fatalf("%d canaries where %d are wanted: %v", fit, count, result.Rollout.OutOfOrder)
	}
	if result.Rollout.UpTo != in.Rollout.UpTo {
		s.Fatalf("the rollout went on in the canary phase: %+v", result.Rollout)
	}
}

func cordoned(in plan.Input) int {
	n := 0
	for _, t := range in.Targets {
		if t.NodeReady && !t.Schedulable {
			n++
		}
	}
	return n
}

// checkRevision checks a new pod against the one before it: within one rollout, a target gets Update once.
func (s *sim) checkRevision(a plan.Action) {
	last, ok := s.last[a.Target]
	switch {
	case a.Revision != s.current && a.Revision != s.update:
		s.Fatalf("a pod of revision %q, which is neither Current nor Update: %+v", a.Revision, a)
	case !ok || last.epoch != s.epoch || s.rollout.Failed != "":
	case last.revision == s.update && a.Revision != s.update:
		s.Fatalf("%s was at Update, and comes back at Current", a.Target)
	}
	inCanary := s.limits.Canary != nil && !s.rollout.Promoted && s.current != "" && s.current != s.update
	if (inCanary || s.limits.Paused) && ok && last.epoch == s.epoch && last.revision == s.current &&
		a.Revision != s.current && !slices.Contains(s.rollout.OutOfOrder, a.Target) &&
		a.Target > s.rollout.UpTo {
		s.Fatalf("%s was no canary, and comes back at Update", a.Target)
	}
}

// checkTimes checks restarts against the cooldown and the hourly cap.
func (s *sim) checkTimes(target string) {
	times := s.restarts[target]
	if n := len(times); n > 0 && s.now.Sub(times[n-1]) < s.limits.Cooldown-time.Second {
		s.Fatalf("%s restarted at %s and %s", target, times[n-1], s.now)
	}
	times = append(times, s.now)
	s.restarts[target] = times
	if n := s.limits.MaxPerHour; len(times) > n && s.now.Sub(times[len(times)-1-n]) < plan.LedgerRetention-time.Second {
		s.Fatalf("%s restarted %d times within an hour: %v", target, n+1, times)
	}
}

// checkTrial checks that the previous restart for the same cause had the time to help.
func (s *sim) checkTrial(in plan.Input, a plan.Action) {
	cause := string(in.Judgements[a.Target].Verdict)
	if t := s.openTrials[cause]; t != nil {
		s.Fatalf("%s is restarted while the restart of %s at %s for the same is not proven", a.Target, t.target, t.at)
	}
	if s.trials.Causes[cause].Helped.IsZero() {
		s.openTrials[cause] = &openTrial{target: a.Target, uid: a.UID, at: s.now}
	}
}

// closeTrials drops the trials whose outcome is known, or never will be.
func (s *sim) closeTrials() {
	for cause, trial := range s.openTrials {
		t := s.targets[trial.target]
		over := t == nil || s.now.Sub(trial.at) >= plan.Settle
		if !over {
			node, p, j := s.nodes[t.node], s.pods[t.pod()], s.judged[trial.target]
			replaced := p != nil && p.UID != trial.uid && s.judgedUID[trial.target] == p.UID
			over = !node.ready || node.cordoned || replaced &&
				(string(j.Verdict) == cause || j.Verdict == health.Healthy && s.now.Sub(j.Since) >= plan.ProvenAfter)
		}
		if over {
			delete(s.openTrials, cause)
		}
	}
}

// checkWell counts how long all canaries have been well.
func (s *sim) checkWell() {
	well := s.up && len(s.rollout.OutOfOrder) > 0
	for _, name := range s.rollout.OutOfOrder {
		t := s.targets[name]
		if t == nil {
			continue
		}
		node, p, before := s.nodes[t.node], s.pods[t.pod()], s.rollout.Baselines[name]
		gone := p == nil || p.Terminating
		j := s.judged[name]
		indeterminate := j.Verdict == health.Unknown && s.now.Sub(j.Since) >= plan.Settle
		overdue := t.fault == "overdue" && p != nil && p.Terminating
		if overdue || !node.ready || (node.cordoned || t.fault == "evicted") && gone || before.Unready &&
			(t.incurable() || !gone && !p.Ready) || indeterminate {
			continue // it shows nothing
		}
		if gone || s.judged[name].Verdict != health.Healthy && (before.Verdict == "" || before.Verdict == health.Unknown) {
			well = false
		}
	}
	if !s.wellSince.IsZero() {
		s.well += s.now.Sub(s.wellSince)
	}
	s.wellSince = time.Time{}
	if well {
		s.wellSince = s.now
	}
}

// lostCanaries counts the canaries that can no longer be observed.
func (s *sim) lostCanaries(in plan.Input) int {
	lost := 0
	for _, name := range in.Rollout.OutOfOrder {
		t := s.targets[name]
		if t == nil || !s.nodes[t.node].ready || (s.nodes[t.node].cordoned || t.fault == "evicted") &&
			s.pods[t.pod()] == nil {
			lost++
		}
	}
	return lost
}

// live reports whether each added canary already has a pod of Update: it is found again, not selected.
func live(in plan.Input, also []string) bool {
	for _, name := range also {
		if slices.Contains(in.Rollout.OutOfOrder, name) {
			continue
		}
		if !slices.ContainsFunc(in.Pods, func(p plan.Pod) bool { return p.Target == name && p.Revision == in.Update }) {
			return false
		}
	}
	return true
}

// checkSoak checks a soak that is over against what was observed.
func (s *sim) checkSoak(in plan.Input) {
	s.checkWell()
	if s.limits.Canary != nil && s.well < s.limits.Canary.Soak-2*simTick || len(in.Targets) == 0 {
		s.Fatalf("promoted after %s of a soak of %s:\n%s", s.well, s.limits.Canary.Soak, s)
	}
}

// checkComplete checks that something works at the end of a rollout, as far as the operator can observe.
func (s *sim) checkComplete(in plan.Input) {
	for _, t := range in.Targets {
		if t.Schedulable && slices.ContainsFunc(in.Pods, func(p plan.Pod) bool {
			return p.Name == t.Pod && p.Ready && !p.Terminating && p.Revision == in.Update
		}) {
			return
		}
	}
	s.Fatalf("complete, and nothing works:\n%s", s)
}

// checkFailed checks that a canary that failed for being unready was so for Settle: no clock makes it longer.
func (s *sim) checkFailed(r plan.Rollout) {
	name, _, _ := strings.Cut(r.Failed, " ")
	t := s.targets[name]
	if !strings.Contains(r.Failed, ": not ready for ") || t == nil || s.stale != nil {
		return
	}
	if since, ok := s.unreadySince[name]; !ok || s.now.Sub(since) < plan.Settle {
		s.Fatalf("%s, and it has not been ready since %s (now %s)", r.Failed, since, s.now)
	}
}
