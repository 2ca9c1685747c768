package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

// Phase is how far the way from Current to Update is.
type Phase string

const (
	// PhaseSteady: there is one revision only, or no current one yet. Whatever differs is replaced.
	PhaseSteady Phase = ""
	// PhaseCanary: a few targets are taken, and soak.
	PhaseCanary Phase = "Canary"
	// PhaseRolling: targets are taken as far as budgets allow.
	PhaseRolling Phase = "Rolling"
	// PhaseStopped: targets that were taken are worse than before. No other is taken while that is so.
	PhaseStopped Phase = "Stopped"
	// PhaseFailed: the canaries were worse than before, and go back. Nothing is taken until there is another Update, or promotion.
	PhaseFailed Phase = "CanaryFailed"
)

// judgeRollout finds the phase, and which targets count as taken.
func (s *step) judgeRollout() {
	if s.Current == "" || s.Current == s.Update {
		s.phase, s.roll = PhaseSteady, s.roll.TakenOver()
		s.keepSets()
		s.result.Complete = s.Current == "" && s.allUpdated()
		return
	}
	r := &s.roll
	if s.Promote {
		s.promote()
	}
	if r.Failed != "" {
		s.phase, s.result.Message = PhaseFailed, r.Failed
		s.keepSets()
		return
	}
	canary := s.Limits.Canary != nil && !r.Promoted
	if len(s.slots) == 0 { // for a moment, maybe: nothing is found out, and nothing forgotten
		s.phase = PhaseSteady
		if canary {
			s.pause(false, "there are no targets")
		}
		return
	}
	s.keepSets()
	for _, t := range s.slots {
		if t.live() && t.pod.Revision == s.Update && r.room() {
			r.add(t.Name) // what was taken may have been forgotten, but not undone
		}
	}
	s.phase = PhaseRolling
	if canary {
		s.phase = PhaseCanary
		s.soak()
	}
	if s.phase == PhaseRolling {
		r.Also = r.Also.without(func(key string) bool { return s.target(key) == nil })
		s.compact()
		if s.result.Complete = s.allUpdated(); !s.result.Complete {
			s.guard()
		}
	}
}

// promote lets the rest follow the canaries.
func (s *step) promote() {
	r := &s.roll
	r.Promoted, r.Failed, r.Before = true, "", nil
	r.Soaked.Duration, r.Since, r.FailedAt = 0, never, never
}

// compact moves To over the targets that were taken, so that Also holds only those that were taken out of turn.
func (s *step) compact() {
	r := &s.roll
	before := r.To
	for _, t := range s.slots {
		if !r.has(t.Name) {
			break
		}
		r.To = max(r.To, t.Name)
	}
	if r.To == before {
		return
	}
	r.Also = r.Also.without(func(key string) bool {
		t := s.target(key)
		return t != nil && t.Name <= r.To
	})
}

// allUpdated reports whether nothing that can be done now is left to be done, and at least one target shows that it
// works. It is not so of a fleet that has no targets, or whose nodes are all lost: that has not got anywhere.
func (s *step) allUpdated() bool {
	works := false
	for _, t := range s.slots {
		if !t.Able {
			continue
		}
		switch {
		case t.ready() && t.pod.Revision == s.Update:
			works = true
		case t.live() && (t.pod.Revision != s.Update || !s.reached(t.pod.Since().Add(Settle))),
			!t.live() && (s.wanted(t) != s.Update || !s.lapsed(t)):
			return false
		}
	}
	return works
}

// wanted is the revision that a target's pod has, or comes back at.
func (s *step) wanted(t *slot) string {
	if s.phase == PhaseSteady || s.phase != PhaseFailed && s.roll.has(t.Name) {
		return s.Update
	}
	return s.Current
}

// outdated is true for a pod that must be replaced. One that was not taken may be of any revision: its turn comes.
func (s *step) outdated(t *slot) bool { return t.live() && (s.misplaced(t) || s.asked(t)) }

func (s *step) misplaced(t *slot) bool {
	mayWait := s.phase != PhaseSteady && s.phase != PhaseFailed && !s.roll.has(t.Name)
	return !mayWait && t.pod.Revision != s.wanted(t)
}

// asked is true for a pod from before somebody asked for a restart.
func (s *step) asked(t *slot) bool { return s.RestartedAt != "" && t.pod.RestartedAt != s.RestartedAt }

// mayTake is true for a target whose turn has come, as far as budgets go.
func (s *step) mayTake(t *slot) bool { return s.phase == PhaseRolling && !s.roll.has(t.Name) }

// take gives a target to the rollout. From now on its pod comes back at Update.
func (s *step) take(t *slot) {
	r := &s.roll
	if r.Started.IsZero() {
		r.Started, r.Ill = s.second, 0
		for _, t := range s.slots {
			if ill(t) || t.unknown() {
				r.Ill++
			}
		}
	}
	r.add(t.Name)
}

// takeMissing takes targets that have no pod, so that they need not be replaced later, but no more than may be unproven at a time.
func (s *step) takeMissing() {
	if s.phase != PhaseRolling || s.held() {
		return
	}
	room := s.unavailable()
	for _, t := range s.slots {
		if s.roll.has(t.Name) && (s.holds(t) || s.awaitsJudgement(t)) {
			room--
		}
	}
	for _, t := range s.slots {
		if room > 0 && t.Able && (t.pod == nil || s.endless(t.pod)) && s.mayTake(t) && s.roll.room() {
			room--
			s.note(t, s.Update)
			s.take(t)
		}
	}
}

// held is true when nothing is replaced.
func (s *step) held() bool { return s.Limits.Paused || s.Limits.Hold || s.Limits.NoPods }

func (s *step) rollOut() {
	if s.held() {
		return
	}
	var outdated []*slot
	for _, t := range s.slots {
		if s.outdated(t) && !s.mayTake(t) {
			outdated = append(outdated, t)
		}
	}
	s.replace(outdated)
	switch s.phase {
	case PhaseCanary:
		s.takeCanaries()
	case PhaseRolling:
		var next []*slot
		for _, t := range s.slots {
			if t.live() && s.mayTake(t) {
				next = append(next, t)
			}
		}
		s.replace(next)
	case PhaseSteady, PhaseStopped, PhaseFailed:
	}
	if s.phase == PhaseRolling {
		s.compact() // over what was taken just now
	}
}

// replace deletes pods: those that cost nothing first, then bad ones, then by name, as far as the budget goes.
func (s *step) replace(pods []*slot) {
	slices.SortStableFunc(pods, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(cost(a), cost(b)), -cmp.Compare(badness(a.judgement), badness(b.judgement)))
	})
	for _, t := range pods {
		s.replaceOne(t)
	}
}

// replaceOne deletes a pod if it may, and reports whether it did.
func (s *step) replaceOne(t *slot) bool {
	taking := !s.misplaced(t) && !s.asked(t) || s.mayTake(t)
	switch {
	case !t.Able:
		return false // nothing would come after it; and where its node is only cut off, it works
	case !s.roll.room():
		return false
	case cost(t) == 0:
		s.rollouts-- // it may work with its new pod: the others wait for that
	case s.rollouts <= 0, taking && s.rollouts <= s.unjudged:
		s.kept = true
		return false
	default:
		s.rollouts--
	}
	why, revision := WhyOutdated, s.wanted(t)
	if taking {
		revision = s.Update
	}
	s.note(t, revision)
	switch {
	case taking:
		s.take(t)
	case !s.misplaced(t):
		why = WhyAsked
	case s.phase == PhaseFailed:
		why = WhySentBack
	}
	s.delete(t, why, grace(t.judgement))
	s.result.Actions[len(s.result.Actions)-1].Unchanged = !t.pod.Ready
	return true
}

// cost of replacing a pod: none for one that does not work.
func cost(t *slot) int {
	if t.pod.Ready {
		return 1
	}
	return 0
}

func badness(j growth.Judgement) int {
	if j.Verdict.Bad() {
		return 1
	}
	return 0
}

// guard stops a rollout when more targets are ill than were before it, and those of Update more often than the others.
func (s *step) guard() {
	if s.Promote || s.roll.Started.IsZero() {
		return
	}
	var updated, others struct{ ill, all int }
	var worst *slot
	for _, t := range s.slots {
		if !t.Able || !t.live() {
			continue
		}
		group := &others
		if t.pod.Revision == s.Update {
			group = &updated
		}
		group.all++
		if !ill(t) {
			continue
		}
		group.ill++
		if group == &updated && (worst == nil || severity(t.judgement.Verdict) > severity(worst.judgement.Verdict)) {
			worst = t
		}
	}
	taken, lost := s.lost()
	if untaken, lostToo := s.lostElsewhere(); s.manyLost(taken, lost) && len(lost)*max(untaken, 1) > lostToo*taken {
		s.phase = PhaseStopped
		s.result.Message = s.lostSentence(lost)
		return
	}
	if updated.ill+others.ill > s.roll.Ill && updated.ill*max(others.all, 1) > others.ill*updated.all {
		s.phase = PhaseStopped
		j := worst.judgement
		s.result.Message = fmt.Sprintf("%s is %s on revision %s: %s", worst.Name, j.Verdict, s.Update, j.Message)
	}
}

// ill is true for a target that is bad by a fault of its own, of which the revision may be the cause.
func ill(t *slot) bool {
	v := t.judgement.Verdict
	if !t.Able || !t.live() || !v.Bad() || external(v) {
		return false
	}
	starting := v == growth.NotRunning && t.judgement.Reason != growth.ReasonStreamFailed && t.pod.Restarts == 0 && !t.pod.Ready
	return !starting
}

// external is true for what no revision of the parser brings about.
func external(v growth.Verdict) bool { return v == growth.SinkDown || v == growth.SourceStalled }

// severity orders verdicts by how ill the parser is.
func severity(v growth.Verdict) int {
	switch {
	case !v.Bad(), v == growth.SourceStalled:
		return 0
	case v == growth.Overloaded:
		return 1
	case v == growth.NotRunning:
		return 3
	}
	return 2
}
