package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

// Phase is the phase of the rollout from Current to Update.
type Phase string

const (
	// PhaseSteady: there is only one revision, or no current one yet. Pods of another revision are replaced.
	PhaseSteady Phase = ""
	// PhaseCanary: a few targets are selected, and soak.
	PhaseCanary Phase = "Canary"
	// PhaseRolling: targets are selected as far as budgets allow.
	PhaseRolling Phase = "Rolling"
	// PhaseStopped: selected targets are worse than before. No other is selected while that holds.
	PhaseStopped Phase = "Stopped"
	// PhaseFailed: the canaries were worse than before, and go back. Nothing is selected until there is another Update,
	// or promotion.
	PhaseFailed Phase = "CanaryFailed"
)

// judgeRollout determines the phase, and which targets are selected.
func (s *step) judgeRollout() {
	if s.Current == "" || s.Current == s.Update {
		s.phase, s.rollout = PhaseSteady, s.rollout.CarriedOver()
		s.pruneSets()
		s.result.Complete = s.Current == "" && s.allUpdated()
		return
	}
	r := &s.rollout
	if s.Promote {
		s.promote()
	}
	if r.Failed != "" {
		s.phase, s.result.Message = PhaseFailed, r.Failed
		s.pruneSets()
		return
	}
	canary := s.Limits.Canary != nil && !r.Promoted
	if len(s.slots) == 0 { // perhaps only for a moment: nothing is decided, and nothing forgotten
		s.phase = PhaseSteady
		if canary {
			s.pauseSoak(false, "there are no targets")
		}
		return
	}
	s.pruneSets()
	for _, t := range s.slots {
		if t.live() && t.pod.Revision == s.Update && r.hasRoom() {
			r.markSelected(t.Name) // the selection may have been lost, but not its effect
		}
	}
	s.phase = PhaseRolling
	if canary {
		s.phase = PhaseCanary
		s.judgeCanary()
	}
	if s.phase == PhaseRolling {
		r.OutOfOrder = r.OutOfOrder.without(func(key string) bool { return s.target(key) == nil })
		s.compact()
		if s.result.Complete = s.allUpdated(); !s.result.Complete {
			s.stopIfWorse()
		}
	}
}

// promote lets the other targets follow the canaries. It applies to one rollout: the caller passes no promotion of an
// earlier one.
func (s *step) promote() {
	r := &s.rollout
	r.Promoted, r.Failed, r.Baselines = true, "", nil
	r.Soaked.Duration, r.SoakingSince, r.FailedAt = 0, zeroTime, zeroTime
}

// compact moves UpTo over the selected targets, so that OutOfOrder has only those that were selected out of order.
func (s *step) compact() {
	r := &s.rollout
	before := r.UpTo
	for _, t := range s.slots {
		if !r.selected(t.Name) {
			break
		}
		r.UpTo = max(r.UpTo, t.Name)
	}
	if r.UpTo == before {
		return
	}
	r.OutOfOrder = r.OutOfOrder.without(func(key string) bool {
		t := s.target(key)
		return t != nil && t.Name <= r.UpTo
	})
}

// allUpdated reports whether every schedulable target has a pod of Update that is ready or older than Settle, or has
// been without a pod of its own for as long, and at least one such pod is ready. It is false for a fleet that has no
// targets, or whose nodes are all lost.
func (s *step) allUpdated() bool {
	works := false
	for _, t := range s.slots {
		if !t.Schedulable {
			continue
		}
		switch {
		case t.ready() && t.pod.Revision == s.Update:
			works = true
		case t.live() && (t.pod.Revision != s.Update || !s.reached(t.pod.AgeStart().Add(Settle))),
			!t.live() && (s.revisionFor(t) != s.Update || !s.longUnready(t)):
			return false
		}
	}
	return works
}

// revisionFor returns the revision at which a target's pod comes back.
func (s *step) revisionFor(t *slot) string {
	if s.phase == PhaseSteady || s.phase != PhaseFailed && s.rollout.selected(t.Name) {
		return s.Update
	}
	return s.Current
}

// outdated reports whether the pod must be replaced. The pod of a target that is not selected may be of any revision.
func (s *step) outdated(t *slot) bool {
	return t.live() && (s.wrongRevision(t) || s.predatesRequest(t))
}

func (s *step) wrongRevision(t *slot) bool {
	mayWait := s.phase != PhaseSteady && s.phase != PhaseFailed && !s.rollout.selected(t.Name)
	return !mayWait && t.pod.Revision != s.revisionFor(t)
}

// predatesRequest reports whether the pod was created before the last request for new pods, which has no canary.
func (s *step) predatesRequest(t *slot) bool {
	return s.RestartedAt != "" && t.pod.RestartedAt != s.RestartedAt
}

// selectable reports whether the rollout may select the target now, as far as budgets allow.
func (s *step) selectable(t *slot) bool {
	return s.phase == PhaseRolling && !s.rollout.selected(t.Name)
}

// selectTarget selects a target for the rollout. From now on its pod comes back at Update.
func (s *step) selectTarget(t *slot) {
	r := &s.rollout
	if r.Started.IsZero() {
		r.Started, r.DegradedAtStart = s.timestamp, 0
		for _, t := range s.slots {
			if degraded(t) || t.awaitsVerdict() {
				r.DegradedAtStart++
			}
		}
	}
	r.markSelected(t.Name)
}

// selectMissing selects targets that have no pod, so that they need not be replaced later, while fewer than
// maxUnavailable of the selected ones hold the rollout or await a verdict.
func (s *step) selectMissing() {
	if s.phase != PhaseRolling || s.suspended() {
		return
	}
	room := s.maxUnavailable()
	for _, t := range s.slots {
		if s.rollout.selected(t.Name) && (s.holdsRollout(t) || s.blocksOnVerdict(t)) {
			room--
		}
	}
	for _, t := range s.slots {
		if room > 0 && t.Schedulable && (t.pod == nil || s.overdue(t.pod)) && s.selectable(t) && s.rollout.hasRoom() {
			room--
			s.noteReplacement(t, s.Update)
			s.selectTarget(t)
		}
	}
}

// suspended reports whether nothing is replaced.
func (s *step) suspended() bool { return s.Limits.Paused || s.Limits.Hold || s.Limits.NoPods }

// advanceRollout replaces pods that are outdated, and then selects the next targets.
func (s *step) advanceRollout() {
	if s.suspended() {
		return
	}
	var outdated []*slot
	for _, t := range s.slots {
		if s.outdated(t) && !s.selectable(t) {
			outdated = append(outdated, t)
		}
	}
	s.replace(outdated)
	switch s.phase {
	case PhaseCanary:
		s.selectCanaries()
	case PhaseRolling:
		var next []*slot
		for _, t := range s.slots {
			if t.live() && s.selectable(t) {
				next = append(next, t)
			}
		}
		s.replace(next)
	case PhaseSteady, PhaseStopped, PhaseFailed:
	}
	if s.phase == PhaseRolling {
		s.compact() // over the targets that were just selected
	}
}

// replace deletes pods: unready ones first, which costs nothing, then bad ones, then by name, as far as the budget
// allows.
func (s *step) replace(pods []*slot) {
	slices.SortStableFunc(pods, func(a, b *slot) int {
		return cmp.Or(
			cmp.Compare(disruption(a), disruption(b)), -cmp.Compare(badness(a.judgement), badness(b.judgement)),
		)
	})
	for _, t := range pods {
		s.replaceOne(t)
	}
}

// replaceOne deletes a pod if it may, and reports whether it did. It selects another target only if the budget exceeds
// the pending verdicts.
func (s *step) replaceOne(t *slot) bool {
	selecting := !s.wrongRevision(t) && !s.predatesRequest(t) || s.selectable(t)
	switch {
	case !t.Schedulable:
		return false // no pod would follow; and on a node that is only cut off, this one works
	case !s.rollout.hasRoom():
		return false
	case disruption(t) == 0:
		s.rolloutBudget-- // it may work with its new pod: the others wait for that
	case s.rolloutBudget <= 0, selecting && s.rolloutBudget <= s.pendingVerdicts:
		s.rolloutBlocked = true
		return false
	default:
		s.rolloutBudget--
	}
	why, revision := WhyOutdated, s.revisionFor(t)
	if selecting {
		revision = s.Update
	}
	s.noteReplacement(t, revision)
	switch {
	case selecting:
		s.selectTarget(t)
	case !s.wrongRevision(t):
		why = WhyRestartRequested
	case s.phase == PhaseFailed:
		why = WhyRolledBack
	}
	s.delete(t, why, grace(t.judgement))
	s.result.Actions[len(s.result.Actions)-1].Unchanged = !t.pod.Ready
	return true
}

// disruption returns what replacing the pod costs: nothing if it does not work.
func disruption(t *slot) int {
	if t.pod.Ready {
		return 1
	}
	return 0
}

func badness(j health.Judgement) int {
	if j.Verdict.Bad() {
		return 1
	}
	return 0
}

// stopIfWorse stops a rollout while more targets are degraded than when it began, and a larger share of those with a
// pod of Update than of the others: where both are alike, the new revision is no worse and may be the cure. It also
// stops it while many of the selected targets are lost, and a larger share than of the others.
func (s *step) stopIfWorse() {
	if s.Promote || s.rollout.Started.IsZero() {
		return
	}
	var updated, others struct{ degraded, all int }
	var worst *slot
	for _, t := range s.slots {
		if !t.Schedulable || !t.live() {
			continue
		}
		group := &others
		if t.pod.Revision == s.Update {
			group = &updated
		}
		group.all++
		if !degraded(t) {
			continue
		}
		group.degraded++
		if group == &updated && (worst == nil || severity(t.judgement.Verdict) > severity(worst.judgement.Verdict)) {
			worst = t
		}
	}
	selected, lost := s.lostSelected()
	if unselected, lostToo := s.lostUnselected(); s.manyLost(selected, lost) &&
		len(lost)*max(unselected, 1) > lostToo*selected {
		s.phase = PhaseStopped
		s.result.Message = s.lostMessage(lost)
		return
	}
	if updated.degraded+others.degraded > s.rollout.DegradedAtStart &&
		updated.degraded*max(others.all, 1) > others.degraded*updated.all {
		s.phase = PhaseStopped
		j := worst.judgement
		s.result.Message = fmt.Sprintf("%s is %s on revision %s: %s", worst.Name, j.Verdict, s.nameOf(s.Update), j.Message)
	}
}

// degraded reports whether the target is bad by a fault that the revision may cause: not an external one, and not a pod
// that is starting. A pod with a stream that failed is not ready either, and is degraded.
func degraded(t *slot) bool {
	v := t.judgement.Verdict
	if !t.Schedulable || !t.live() || !v.Bad() || external(v) {
		return false
	}
	starting := v == health.NotRunning && t.judgement.Reason != health.ReasonStreamFailed &&
		t.pod.Restarts == 0 && !t.pod.Ready
	return !starting
}

// external reports whether no revision of the parser can cause the verdict.
func external(v health.Verdict) bool { return v == health.SinkDown || v == health.SourceStalled }

// severity orders verdicts by how bad the parser is.
func severity(v health.Verdict) int {
	switch {
	case !v.Bad(), v == health.SourceStalled:
		return 0
	case v == health.Overloaded:
		return 1
	case v == health.NotRunning:
		return 3
	}
	return 2
}
