package plan

import (
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Budget resolves a number or percentage of n, rounded up and at least 1. A value that admission would refuse counts
// as 1.
func Budget(value intstr.IntOrString, n int) int {
	scaled, err := intstr.GetScaledValueFromIntOrPercent(&value, n, true)
	if err != nil {
		return 1
	}
	return max(scaled, 1)
}

// computeBudgets counts, over schedulable targets:
//
//	down             its pod is missing or terminating, for less than Settle
//	disrupted        its pod is not ready, and it was restarted or its pod is starting
//	inFlight         a restart of the last day is in the ledger, and no pod has been ready since
//	pendingVerdicts  its pod is ready, and its state is not known yet
//	holding          a rollout must wait for it; see holdsRollout
//
// What a lost, cordoned or tainted node or an eviction takes away is not the operator's doing: nothing waits for it,
// and it cannot be counted down. A rollout replaces unready pods first. Neither a rollout nor a restart waits longer
// than Settle for a target that was unready before it.
func (s *step) computeBudgets() {
	var down, disrupted, inFlight, holding int
	s.findUnresponsive()
	for _, t := range s.slots {
		if !t.Schedulable {
			continue
		}
		if s.blocksOnVerdict(t) {
			s.pendingVerdicts++
		}
		if s.restartInFlight(t) {
			inFlight++
		}
		switch {
		case t.down():
			if !s.overdue(t.pod) && !s.longUnready(t) {
				down++
			}
		case !t.pod.Ready && (s.restartInFlight(t) || s.starting(t)):
			disrupted++
		}
		if s.holdsRollout(t) {
			holding++
			if s.longUnready(t) {
				s.holders = append(s.holders, t.Name)
			}
		}
	}
	limit := s.maxUnavailable()
	s.rolloutBudget = limit - holding
	s.restartBudget = min(limit-down-disrupted, Budget(s.Limits.MaxConcurrent, s.schedulable)-inFlight)
}

// maxUnavailable returns how many targets the operator may leave without a ready pod. It bounds restarts and rollouts
// together; MaxConcurrent bounds restarts inside it.
func (s *step) maxUnavailable() int { return Budget(s.Limits.MaxUnavailable, s.schedulable) }

// longUnready reports whether the target has been observed without a ready pod for Settle. Pods of any revision count
// together, since rejected and evicted ones make way for new ones.
func (s *step) longUnready(t *slot) bool {
	since := t.UnreadySince
	if since.IsZero() && t.live() && !t.pod.Ready {
		since = t.pod.unreadySince()
	}
	return !t.ready() && !since.IsZero() && s.reached(since.Add(Settle))
}

// starting reports whether the target's pod is so new that it need not be ready yet. A new pod does not make a target
// that has long been unready start again: its node may reject every pod.
func (s *step) starting(t *slot) bool {
	return !s.reached(t.pod.AgeStart().Add(Settle)) && (t.UnreadySince.IsZero() || !s.longUnready(t))
}

// restartInFlight reports whether the target was restarted within the last day, has had no ready pod since, and may
// still get one.
func (s *step) restartInFlight(t *slot) bool {
	return len(t.record.Times) > 0 && !t.ready() && !s.overdue(t.pod) &&
		s.Now.Before(t.record.Last().Add(FailureRetention))
}

// holdsRollout reports whether a rollout must wait for a ready pod of the target: for Settle, and longer after a
// restart, after the operator took a ready pod away, or when a new revision may be why there is none.
func (s *step) holdsRollout(t *slot) bool {
	switch {
	case !t.Schedulable, t.ready():
		return false
	case s.overdue(t.pod):
		return s.manyOverdue // what keeps them may keep the next one too
	case !s.longUnready(t), s.restartInFlight(t):
		return true
	case s.rollout.TakenDown.has(t.Name):
		return true
	}
	return s.offCurrent(t) && !s.rollout.UnreadyBefore.has(t.Name)
}

// offCurrent reports whether the target's pod is, or will be, of another revision than Current. Then that revision may
// be why the target has no ready pod.
func (s *step) offCurrent(t *slot) bool {
	revision := s.revisionFor(t)
	if t.live() {
		revision = t.pod.Revision
	}
	return s.Current != "" && revision != s.Current
}

// blocksOnVerdict reports whether a rollout must wait for a verdict on the target.
func (s *step) blocksOnVerdict(t *slot) bool {
	switch {
	case !t.awaitsVerdict():
		return false
	case s.indeterminateByRevision(t):
		return s.manyIndeterminate // one may be the fault of a node
	}
	return !s.indeterminate(t)
}

// indeterminateByRevision reports whether the target's revision may be why it is indeterminate.
func (s *step) indeterminateByRevision(t *slot) bool {
	return s.indeterminate(t) && s.offCurrent(t) && !s.rollout.IndeterminateBefore.has(t.Name)
}

// indeterminate reports whether the target's parser has run for Settle without a verdict.
func (s *step) indeterminate(t *slot) bool {
	return t.ready() && t.unjudged() && s.settled(t.judgement.Since)
}

// overdue reports whether the pod has been observed terminating for Settle. Nothing waits for such a pod.
func (s *step) overdue(p *Pod) bool {
	return p != nil && p.Terminating && !p.NodeLost && !p.TerminatingSince.IsZero() &&
		s.reached(p.TerminatingSince.Add(Settle))
}

// findUnresponsive lists the overdue pods, and the targets that a new revision may have made indeterminate, and
// determines whether either are too many to be the fault of one target: then no rollout adds to them.
func (s *step) findUnresponsive() {
	for _, t := range s.slots {
		if s.indeterminateByRevision(t) {
			s.indeterminates = append(s.indeterminates, t.Name)
		}
		if t.NodeReady && s.overdue(t.pod) {
			s.overduePods = append(s.overduePods, t.pod.Name+" of "+t.Name)
		}
	}
	many := max(s.threshold(s.schedulable), 2)
	s.manyOverdue, s.manyIndeterminate = len(s.overduePods) >= many, len(s.indeterminates) >= many && !s.Promote
	for i := range s.untargeted {
		if p := &s.untargeted[i]; s.overdue(p) {
			s.overduePods = append(s.overduePods, p.Name+" of "+p.Target)
		}
	}
}

// pruneSets drops the targets from the rollout's sets to which they no longer apply.
func (s *step) pruneSets() {
	if len(s.slots) == 0 {
		return // perhaps only for a moment
	}
	r := &s.rollout
	obsolete := func(over func(*slot) bool) func(string) bool {
		return func(key string) bool {
			t := s.target(key)
			return t == nil || over(t)
		}
	}
	r.TakenDown = r.TakenDown.without(obsolete((*slot).ready))
	r.UnreadyBefore = r.UnreadyBefore.without(obsolete((*slot).ready))
	judged := func(t *slot) bool { return t.live() && !t.unjudged() }
	r.IndeterminateBefore = r.IndeterminateBefore.without(obsolete(judged))
}

// noteReplacement remembers what the new pod of a target will not show: whether the operator took the target down, and
// whether it was unready or indeterminate before. The new pod is of the given revision.
func (s *step) noteReplacement(t *slot, revision string) {
	r := &s.rollout
	updates := s.Current != "" && revision != s.Current
	disrupted := r.TakenDown.has(t.Name) || s.restartInFlight(t) || s.offCurrent(t) && !r.UnreadyBefore.has(t.Name)
	switch {
	case !updates && (t.ready() || disrupted):
		r.TakenDown = r.TakenDown.with(t.Name)
	case updates && !disrupted && !t.ready():
		r.UnreadyBefore = r.UnreadyBefore.with(t.Name)
	case updates && s.indeterminate(t):
		r.IndeterminateBefore = r.IndeterminateBefore.with(t.Name)
	}
}
