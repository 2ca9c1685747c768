package plan

import (
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Budget resolves a number or percentage of n: rounded up, and at least 1. A value that admission would refuse counts as 1.
func Budget(value intstr.IntOrString, n int) int {
	scaled, err := intstr.GetScaledValueFromIntOrPercent(&value, n, true)
	if err != nil {
		return 1
	}
	return max(scaled, 1)
}

func (s *step) budget() {
	var down, ours, inFlight, held int
	s.findUnasked()
	for _, t := range s.slots {
		if !t.Able {
			continue
		}
		if s.awaitsJudgement(t) {
			s.unjudged++
		}
		if s.restarted(t) {
			inFlight++
		}
		switch {
		case t.down():
			if !s.endless(t.pod) && !s.lapsed(t) {
				down++
			}
		case !t.pod.Ready && (s.restarted(t) || s.young(t)):
			ours++
		}
		if s.holds(t) {
			held++
			if s.lapsed(t) {
				s.holders = append(s.holders, t.Name)
			}
		}
	}
	limit := s.unavailable()
	s.rollouts = limit - held
	s.restarts = min(limit-down-ours, Budget(s.Limits.MaxConcurrent, s.able)-inFlight)
}

// unavailable is how many targets may be without a ready pod by our doing.
func (s *step) unavailable() int { return Budget(s.Limits.MaxUnavailable, s.able) }

// lapsed reports whether the target was seen without a ready pod for as long as one may take to come, or to end: with
// whatever pods of a revision, for those that are rejected or evicted make way for new ones.
func (s *step) lapsed(t *slot) bool {
	since := t.UnreadySince
	if since.IsZero() && t.live() && !t.pod.Ready {
		since = t.pod.unreadySince()
	}
	return !t.ready() && !since.IsZero() && s.reached(since.Add(Settle))
}

// young reports whether the target's pod is so new that it need not be ready yet. A new pod makes no target young that
// was without a ready one for long before: its node may reject all of them.
func (s *step) young(t *slot) bool {
	return !s.reached(t.pod.Since().Add(Settle)) && (t.UnreadySince.IsZero() || !s.lapsed(t))
}

// restarted reports whether the target has no ready pod since a restart of the last day, and may get one.
func (s *step) restarted(t *slot) bool {
	return len(t.record.Times) > 0 && !t.ready() && !s.endless(t.pod) && s.Now.Before(t.record.Last().Add(FailureMemory))
}

// holds reports whether a target is without a ready pod in such a way that a rollout must wait for it.
func (s *step) holds(t *slot) bool {
	switch {
	case !t.Able, t.ready():
		return false
	case s.endless(t.pod):
		return s.manyEndless // what keeps them may keep the next one too
	case !s.lapsed(t), s.restarted(t):
		return true
	case s.roll.Down.has(t.Name):
		return true
	}
	return s.novel(t) && !s.roll.Excused.has(t.Name)
}

// novel reports whether the target's pod is, or will be, of another revision than the whole fleet had: it may be why
// there is none.
func (s *step) novel(t *slot) bool {
	revision := s.wanted(t)
	if t.live() {
		revision = t.pod.Revision
	}
	return s.Current != "" && revision != s.Current
}

// awaitsJudgement reports whether a rollout must wait until it is known how the target is.
func (s *step) awaitsJudgement(t *slot) bool {
	switch {
	case !t.unknown():
		return false
	case s.mutedBy(t):
		return s.manyMuted // one may be a node's fault
	}
	return !s.mute(t)
}

// mutedBy reports whether the revision may be why nobody can find out how the target is.
func (s *step) mutedBy(t *slot) bool { return s.mute(t) && s.novel(t) && !s.roll.Mute.has(t.Name) }

// mute reports whether the target's parser has run for long and it is still not known how it is: it cannot be asked.
func (s *step) mute(t *slot) bool {
	return t.ready() && t.unseen() && s.over(t.judgement.Since)
}

// endless reports whether the pod was seen to end for as long as one may take to.
func (s *step) endless(p *Pod) bool {
	return p != nil && p.Terminating && !p.NodeLost && !p.EndingSince.IsZero() && s.reached(p.EndingSince.Add(Settle))
}

// findUnasked names the pods that do not end, and the parsers that do not say how they are since they were given
// another revision, and determines whether either are too many to be one target's fault.
func (s *step) findUnasked() {
	for _, t := range s.slots {
		if s.mutedBy(t) {
			s.muted = append(s.muted, t.Name)
		}
		if t.NodeReady && s.endless(t.pod) {
			s.endlessPods = append(s.endlessPods, t.pod.Name+" of "+t.Name)
		}
	}
	many := max(s.share(s.able), 2)
	s.manyEndless, s.manyMuted = len(s.endlessPods) >= many, len(s.muted) >= many && !s.Promote
	for i := range s.unselected {
		if p := &s.unselected[i]; s.endless(p) {
			s.endlessPods = append(s.endlessPods, p.Name+" of "+p.Target)
		}
	}
}

// keepSets drops from what is remembered of targets what says nothing of them any more.
func (s *step) keepSets() {
	if len(s.slots) == 0 {
		return // for a moment, maybe
	}
	r := &s.roll
	gone := func(over func(*slot) bool) func(string) bool {
		return func(key string) bool {
			t := s.target(key)
			return t == nil || over(t)
		}
	}
	r.Down = r.Down.without(gone((*slot).ready))
	r.Excused = r.Excused.without(gone((*slot).ready))
	r.Mute = r.Mute.without(gone(func(t *slot) bool { return t.live() && !t.unseen() }))
}

// note remembers of a target whose pod is about to be replaced by one of that revision what the new pod will not show:
// whether it was we who took it down, and whether it was as it is before.
func (s *step) note(t *slot, revision string) {
	r := &s.roll
	tried := s.Current != "" && revision != s.Current
	ours := r.Down.has(t.Name) || s.restarted(t) || s.novel(t) && !r.Excused.has(t.Name)
	switch {
	case !tried && (t.ready() || ours):
		r.Down = r.Down.with(t.Name)
	case tried && !ours && !t.ready():
		r.Excused = r.Excused.with(t.Name)
	case tried && s.mute(t):
		r.Mute = r.Mute.with(t.Name)
	}
}
