package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

// recentlyRestarted reports whether the target was restarted less than Settle ago.
func (s *step) recentlyRestarted(t *slot) bool {
	return len(t.record.Times) > 0 && s.Now.Before(t.record.Last().Add(Settle))
}

// unfinishedRestart reports whether the target's last restart is recorded and its pod was not deleted, and nothing
// contradicts the record: the pod existed then, and is neither known to be well nor bad by what no restart cures.
// Others may write records, so a record is no proof that a restart was decided.
func (s *step) unfinishedRestart(t *slot) bool {
	return s.recentlyRestarted(t) && t.live() && t.pod.UID == t.record.UID && t.pod.existedAt(t.record.Last()) &&
		(t.unjudged() || t.judgement.Verdict.Restartable() && !t.judgement.Fading)
}

// restartsBlockedBy returns why no target may be restarted at all, as a word and in words; "" if they may.
func (s *step) restartsBlockedBy() (as Hold, why string) {
	switch {
	case s.Limits.AlertOnly:
		return HeldAlert, blockedByAction
	case s.Limits.Paused:
		return HeldPaused, blockedByPause
	case s.Limits.Hold, s.Limits.NoPods:
		return HeldStalled, blockedByStall
	case s.outage.fleetWide:
		return HeldFleetWide, blockedByOutage
	}
	return "", ""
}

// completeRestarts deletes the pods of restarts that a leader recorded and did not carry out. They count against the
// budget as other restarts do, and come before them. Cooldown and hourly cap counted them when they were recorded.
func (s *step) completeRestarts() {
	if as, _ := s.restartsBlockedBy(); as != "" {
		return
	}
	for _, t := range s.slots {
		if !s.unfinishedRestart(t) {
			continue
		}
		if s.reserveRestart(t) {
			s.delete(t, WhyUnfinished, grace(t.judgement))
		}
	}
}

// reserveRestart takes a restart of t out of the budgets, and reports whether there was one. Otherwise t waits.
func (s *step) reserveRestart(t *slot) bool {
	if s.restartBudget <= 0 {
		s.hold(t, HeldBudget, blockedByBudget)
		return false
	}
	s.restartBudget--
	s.rolloutBudget--
	return true
}

func (s *step) restart() {
	var due []*slot
	for _, t := range s.slots {
		j := t.judgement
		if !t.live() || t.pod.Failed || !t.Schedulable || !j.Verdict.Restartable() || j.Fading {
			continue
		}
		if as, why := s.restartsBlockedBy(); as != "" {
			s.hold(t, as, why)
			continue
		}
		// The rollout is about to replace the others.
		if s.rolloutBudget <= 0 || !s.outdated(t) && !s.selectable(t) {
			due = append(due, t)
		}
	}
	slices.SortStableFunc(due, func(a, b *slot) int {
		return cmp.Or(
			cmp.Compare(urgency(a.judgement.Verdict), urgency(b.judgement.Verdict)),
			cmp.Compare(s.failures(a), s.failures(b)),
			a.judgement.Since.Compare(b.judgement.Since),
		)
	})
	for _, t := range due {
		s.restartOne(t)
	}
}

// urgency orders restarts, most urgent first: unbounded memory endangers the node beside the parser; a hang only waits.
func urgency(v health.Verdict) int {
	if v == health.Growing {
		return 0
	}
	return 1
}

// restartOne restarts a target unless restarts are ineffective for it, the trial of another is open, the fault may be
// fleet-wide, or its cooldown or hourly cap is not over. The first restart needs no cooldown. Each further one doubles
// it, up to maxCooldown.
func (s *step) restartOne(t *slot) {
	if at, why := s.ineffective(t); why != "" {
		s.result.Ineffective = append(s.result.Ineffective, t.Name)
		s.holdUntil(t, HeldIneffective, fmt.Sprintf("%s, next try not before %s", why, clock(at)), at)
		return
	}
	if why := s.blockedByTrial(t); why != "" {
		s.hold(t, HeldTrial, why)
		return
	}
	if s.outage.uncertain {
		s.hold(t, HeldUnjudged, blockedByVerdicts)
		return
	}
	record := t.record.after(s.Now.Add(-LedgerRetention))
	if n := len(record.Times); n > 0 {
		if at := record.Last().Add(cooldown(s.Limits.Cooldown, record.Doublings)); s.Now.Before(at) {
			s.holdUntil(t, HeldCooldown, fmt.Sprintf("restarted %s, next not before %s", times(n), clock(at)), at)
			return
		}
		if i := n - s.Limits.MaxPerHour; i >= 0 {
			if at := record.Times[i].Add(LedgerRetention); s.Now.Before(at) {
				s.result.Capped = append(s.result.Capped, t.Name)
				s.holdUntil(t, HeldMaxPerHour,
					fmt.Sprintf("restarted %s within the hour, no more before %s", times(n), clock(at)), at)
				return
			}
		}
	}
	if !s.reserveRestart(t) {
		return
	}
	t.deleting = true
	s.beginTrial(t)
	s.act(Action{
		Kind: Restart, Why: WhyVerdict, Target: t.Name, Pod: t.pod.Name, UID: t.pod.UID,
		Grace: grace(t.judgement), Record: record.withRestart(t.pod.UID, s.Now),
	})
}

// grace returns the grace period of a pod with that judgement; 0 keeps its own.
func grace(j health.Judgement) time.Duration {
	if j.Verdict == health.Stuck && !j.Fading {
		return stuckGrace
	}
	return 0
}

// cooldown returns the cooldown after that many doublings.
func cooldown(base time.Duration, doublings int) time.Duration {
	return doubled(base, doublings, maxCooldown)
}

// doubled returns base doubled that many times, and at most longest.
func doubled(base time.Duration, times int, longest time.Duration) time.Duration {
	for range times {
		if base *= 2; base >= longest {
			return longest
		}
	}
	return min(base, longest)
}
