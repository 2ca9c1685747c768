package plan_test

import (
	"slices"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// checkPlan holds a plan against what must never be done.
func (s *sim) checkPlan(in plan.Input, result plan.Result) {
	bad := 0
	for _, t := range in.Targets {
		if in.Judgements[t.Name].Verdict.Bad() {
			bad++
		}
	}
	outage := bad >= 2 && bad*10 >= 3*len(in.Targets)
	if outage && !result.FleetWide {
		s.Fatalf("%d of %d are bad, and it is not fleet-wide", bad, len(in.Targets))
	}
	touched := map[string]bool{}
	for _, a := range result.Actions {
		if touched[a.Pod] {
			s.Fatalf("two actions on %s: %v", a.Pod, tell(result.Actions))
		}
		touched[a.Pod] = true
		j := in.Judgements[a.Target]
		restart := a.Kind == plan.Restart || a.Why == plan.WhyUnfinished
		replaces := a.Why == plan.WhyOutdated || a.Why == plan.WhySentBack || a.Why == plan.WhyAsked
		switch {
		case restart && (outage || in.Limits.AlertOnly):
			s.Fatalf("a restart in an outage, or when only alerts are wanted: %+v", a)
		case a.Kind == plan.Restart && (!j.Verdict.Restartable() || j.Fading):
			s.Fatalf("a restart that nobody wants: %+v of %+v", a, j)
		case (restart || replaces) && (in.Limits.Paused || in.Limits.Hold):
			s.Fatalf("%+v while paused or on hold", a)
		case a.Kind == plan.Create && in.Limits.Hold:
			s.Fatalf("%+v while on hold", a)
		case a.Kind == plan.Create:
			s.checkAlone(in, a)
		}
		if node := s.nodes[strings.TrimPrefix(a.Pod, "pod-")]; replaces && node != nil && node.ready && node.cordoned {
			s.Fatalf("%+v, and nothing can come after it", a)
		}
	}
	s.checkCanaries(in, result)
}

// checkAlone holds a new pod against those that its target has elsewhere.
func (s *sim) checkAlone(in plan.Input, a plan.Action) {
	for _, p := range in.Pods {
		if p.Target == a.Target && !p.NodeLost {
			s.Fatalf("a second pod for %s while %s lives", a.Target, p.Name)
		}
	}
}

// checkCanaries holds a plan against the number of canaries.
func (s *sim) checkCanaries(in plan.Input, result plan.Result) {
	if result.Phase != plan.PhaseCanary || result.Rollout == nil {
		return
	}
	before := len(in.Rollout.Also)
	after := len(result.Rollout.Also)
	fit := 0
	for _, t := range in.Targets {
		if t.NodeReady && slices.Contains(result.Rollout.Also, t.Name) {
			fit++
		}
	}
	unfit := len(in.Targets) // those that were not ready before and after are no canaries
	for _, b := range result.Rollout.Before {
		if b.Unready {
			unfit--
		}
	}
	unfit = len(in.Targets) - unfit
	count := min(plan.Budget(in.Limits.Canary.Count, len(in.Targets)), len(in.Targets))
	if after > before && fit > count+unfit+cordoned(in) && in.Rollout.To == "" && before > 0 {
		s.Fatalf("%d canaries where %d are wanted: %v", fit, count, result.Rollout.Also)
	}
	if result.Rollout.To != in.Rollout.To {
		s.Fatalf("the rollout went on in the canary phase: %+v", result.Rollout)
	}
}

func cordoned(in plan.Input) int {
	n := 0
	for _, t := range in.Targets {
		if t.NodeReady && !t.Able {
			n++
		}
	}
	return n
}

// checkRevision holds a new pod against the one before it: within one way from one revision to another, a target goes it once.
func (s *sim) checkRevision(a plan.Action) {
	last, ok := s.last[a.Target]
	switch {
	case a.Revision != s.current && a.Revision != s.update:
		s.Fatalf("a pod of revision %q, which is neither current nor wanted: %+v", a.Revision, a)
	case !ok || last.epoch != s.epoch || s.rollout.Failed != "":
	case last.revision == s.update && a.Revision != s.update:
		s.Fatalf("%s had the wanted revision, and comes back at the one before", a.Target)
	}
	inCanary := s.limits.Canary != nil && !s.rollout.Promoted && s.current != "" && s.current != s.update
	if (inCanary || s.limits.Paused) && ok && last.epoch == s.epoch && last.revision == s.current && a.Revision != s.current && !slices.Contains(s.rollout.Also, a.Target) &&
		a.Target > s.rollout.To {
		s.Fatalf("%s was no canary, and comes back at the wanted revision", a.Target)
	}
}

// checkTimes holds restarts against the cooldown and the hourly cap.
func (s *sim) checkTimes(target string) {
	times := s.taken[target]
	if n := len(times); n > 0 && s.now.Sub(times[n-1]) < s.limits.Cooldown-time.Second {
		s.Fatalf("%s restarted at %s and %s", target, times[n-1], s.now)
	}
	times = append(times, s.now)
	s.taken[target] = times
	if n := s.limits.MaxPerHour; len(times) > n && s.now.Sub(times[len(times)-1-n]) < plan.LedgerMemory-time.Second {
		s.Fatalf("%s restarted %d times within an hour: %v", target, n+1, times)
	}
}

// checkTry holds a restart against the one for the same cause before it, which must have had its chance.
func (s *sim) checkTry(in plan.Input, a plan.Action) {
	cause := string(in.Judgements[a.Target].Verdict)
	if t := s.tries[cause]; t != nil {
		s.Fatalf("%s is restarted while the restart of %s at %s for the same is not proven", a.Target, t.target, t.at)
	}
	if s.trials.Causes[cause].Helped.IsZero() {
		s.tries[cause] = &try{target: a.Target, uid: a.UID, at: s.now}
	}
}

// keepTries drops the tries of which the outcome is known, or will not be.
func (s *sim) keepTries() {
	for cause, try := range s.tries {
		t := s.targets[try.target]
		over := t == nil || s.now.Sub(try.at) >= plan.Settle
		if !over {
			node, p, j := s.nodes[t.node], s.pods[t.pod()], s.judged[try.target]
			replaced := p != nil && p.UID != try.uid && s.judgedUID[try.target] == p.UID
			over = !node.ready || node.cordoned || replaced && (string(j.Verdict) == cause || j.Verdict == growth.Healthy && s.now.Sub(j.Since) >= plan.Proof)
		}
		if over {
			delete(s.tries, cause)
		}
	}
}

// checkWell keeps count of how long all canaries have been well.
func (s *sim) checkWell() {
	well := s.up && len(s.rollout.Also) > 0
	for _, name := range s.rollout.Also {
		t := s.targets[name]
		if t == nil {
			continue
		}
		node, p, before := s.nodes[t.node], s.pods[t.pod()], s.rollout.Before[name]
		gone := p == nil || p.Terminating
		if !node.ready || node.cordoned && gone || before.Unready && !gone && !p.Ready {
			continue // tells nothing
		}
		if gone || s.judged[name].Verdict != growth.Healthy && (before.Verdict == "" || before.Verdict == growth.Unknown) {
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

func (s *sim) checkSoak() {
	s.checkWell()
	if s.limits.Canary != nil && s.well < s.limits.Canary.Soak-2*simTick {
		s.Fatalf("promoted after %s of a soak of %s:\n%s", s.well, s.limits.Canary.Soak, s)
	}
}
