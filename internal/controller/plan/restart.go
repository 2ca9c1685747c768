package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

// recent is true for a target that was restarted less than Settle ago.
func (s *step) recent(t *slot) bool {
	return len(t.record.Times) > 0 && s.Now.Before(t.record.Last().Add(Settle))
}

// unfinished is true for a target whose restart is recorded and whose pod was not deleted, and nothing speaks against
// the record: it is of a pod that was there then, and that is not known to be well, or ill by what no restart cures. A
// record is no proof that a restart was decided, for others may write it.
func (s *step) unfinished(t *slot) bool {
	return s.recent(t) && t.live() && t.pod.UID == t.record.UID && t.pod.wasThere(t.record.Last()) &&
		(t.unseen() || t.judgement.Verdict.Restartable() && !t.judgement.Fading)
}

// mayRestart says why no target may be restarted at all; "" when they may.
func (s *step) mayRestart() string {
	switch {
	case s.Limits.AlertOnly:
		return waitsForAlert
	case s.Limits.Paused:
		return waitsForPause
	case s.Limits.Hold, s.Limits.NoPods:
		return waitsForChanges
	case s.outage.fleetWide:
		return waitsForFleet
	}
	return ""
}

// completeRestarts deletes the pods of restarts that a leader recorded and did not live to carry out. They ask the
// budget as other restarts do, and come before them; they were counted when they were recorded.
func (s *step) completeRestarts() {
	if s.mayRestart() != "" {
		return
	}
	for _, t := range s.slots {
		if !s.unfinished(t) {
			continue
		}
		if s.takeRestart(t) {
			s.delete(t, WhyUnfinished, grace(t.judgement))
		}
	}
}

// takeRestart takes a restart of t out of the budgets, and reports whether there was one. If not, t waits.
func (s *step) takeRestart(t *slot) bool {
	if s.restarts <= 0 {
		s.result.Waiting[t.Name] = waitsForBudget
		return false
	}
	s.restarts--
	s.rollouts--
	return true
}

func (s *step) restart() {
	var due []*slot
	for _, t := range s.slots {
		j := t.judgement
		if !t.live() || t.pod.Failed || !t.Able || !j.Verdict.Restartable() || j.Fading {
			continue
		}
		if why := s.mayRestart(); why != "" {
			s.result.Waiting[t.Name] = why
			continue
		}
		// What is about to be replaced need not be restarted.
		if s.rollouts <= 0 || !s.outdated(t) && !s.mayTake(t) {
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

// urgency of a restart: memory without a bound endangers the node beside the parser; a hang only waits.
func urgency(v growth.Verdict) int {
	if v == growth.Growing {
		return 0
	}
	return 1
}

func (s *step) restartOne(t *slot) {
	if at, why := s.ineffective(t); why != "" {
		s.result.Ineffective = append(s.result.Ineffective, t.Name)
		s.wait(t, fmt.Sprintf("%s, next try not before %s", why, clock(at)), at)
		return
	}
	if why := s.waitsForTrial(t); why != "" {
		s.result.Waiting[t.Name] = why
		return
	}
	if s.outage.unsure {
		s.result.Waiting[t.Name] = waitsForVerdict
		return
	}
	record := t.record.since(s.Now.Add(-LedgerMemory))
	if n := len(record.Times); n > 0 {
		if at := record.Last().Add(cooldown(s.Limits.Cooldown, record.Doublings)); s.Now.Before(at) {
			s.wait(t, fmt.Sprintf("restarted %s, next not before %s", times(n), clock(at)), at)
			return
		}
		if i := n - s.Limits.MaxPerHour; i >= 0 {
			if at := record.Times[i].Add(LedgerMemory); s.Now.Before(at) {
				s.wait(t, fmt.Sprintf("restarted %s within the hour, no more before %s", times(n), clock(at)), at)
				return
			}
		}
	}
	if !s.takeRestart(t) {
		return
	}
	t.gone = true
	s.try(t)
	s.act(Action{
		Kind: Restart, Why: WhyVerdict, Target: t.Name, Pod: t.pod.Name, UID: t.pod.UID,
		Grace: grace(t.judgement), Record: record.restarted(t.pod.UID, s.Now),
	})
}

// grace for a pod that is judged so; 0 keeps its own.
func grace(j growth.Judgement) time.Duration {
	if j.Verdict == growth.Stuck && !j.Fading {
		return stuckGrace
	}
	return 0
}

// cooldown after the given number of doublings.
func cooldown(base time.Duration, doublings int) time.Duration {
	return doubled(base, doublings, maxCooldown)
}

// doubled is base, doubled so often, and at most the longest.
func doubled(base time.Duration, times int, longest time.Duration) time.Duration {
	for range times {
		if base *= 2; base >= longest {
			return longest
		}
	}
	return min(base, longest)
}
