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
	var down, unready, ours, inFlight int
	for _, t := range s.slots {
		if !t.Able {
			continue
		}
		if t.unknown() {
			s.unjudged++
		}
		unfinished := s.unfinished(t) // what was begun will be down
		restarted := unfinished || len(t.record.Times) > 0 && !t.ready()
		if restarted {
			inFlight++
		}
		switch {
		case t.down(), unfinished:
			down++
		case !t.pod.Ready:
			unready++
			young := !s.reached(t.pod.Created.Add(Settle))
			if young || restarted {
				ours++
			}
		}
	}
	limit := s.unavailable()
	s.rollouts = limit - down - unready
	s.restarts = min(limit-down-ours, Budget(s.Limits.MaxConcurrent, len(s.slots))-inFlight)
}

// unavailable is how many targets may be without a ready pod by our doing.
func (s *step) unavailable() int { return Budget(s.Limits.MaxUnavailable, len(s.slots)) }
