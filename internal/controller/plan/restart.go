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
	return len(t.record.Times) > 0 && s.Now.Before(t.record.last().Add(Settle))
}

// unfinished is true for a target whose restart is recorded and whose pod was not deleted.
func (s *step) unfinished(t *slot) bool {
	return s.recent(t) && t.pod != nil && !t.pod.Terminating && t.pod.UID == t.record.UID
}

// mayRestart says why no target may be restarted at all; "" when they may.
func (s *step) mayRestart() string {
	switch {
	case s.Limits.AlertOnly:
		return waitsForAlert
	case s.Limits.Paused:
		return waitsForPause
	case s.Limits.Hold:
		return waitsForChanges
	case s.outage.fleetWide:
		return waitsForFleet
	}
	return ""
}

func (s *step) completeRestarts() {
	if s.mayRestart() != "" {
		return
	}
	for _, t := range s.slots {
		if s.unfinished(t) && !t.gone {
			s.delete(t, WhyUnfinished, grace(t.judgement))
		}
	}
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
	if s.ineffective(t) {
		s.result.Ineffective = append(s.result.Ineffective, t.Name)
		s.result.Waiting[t.Name] = waitsForSpec
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
		if at := record.last().Add(cooldown(s.Limits.Cooldown, record.Doublings)); s.Now.Before(at) {
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
	if s.restarts <= 0 {
		s.result.Waiting[t.Name] = waitsForBudget
		return
	}
	s.restarts--
	s.rollouts--
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
	for range doublings {
		base *= 2
		if base >= maxCooldown {
			return maxCooldown
		}
	}
	return base
}
