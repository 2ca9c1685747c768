package plan

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
)

// DefaultFleetWide is the share of a fleet that makes a fault that of the fleet when Limits.FleetWide is not set.
const DefaultFleetWide = "30%"

// outage is what is wrong with the fleet as a whole.
type outage struct {
	affected  int  // targets of this fleet
	fleetWide bool // what is wrong is not one parser's
	unsure    bool // it may be, when those that were not judged yet are counted
}

// census counts targets for outages.
type census struct {
	desired, affected, unknown int
	until                      time.Time // when the next of those that were restarted lately counts no more; zero: none does
}

func (s *step) census(counts func(*slot) bool) census {
	var c census
	for _, t := range s.slots {
		if !counts(t) {
			continue
		}
		c.desired++
		switch {
		case t.judgement.Verdict.Bad():
			c.affected++
		case s.tried(t):
			c.affected++
			if until := t.record.last().Add(Settle); c.until.IsZero() || until.Before(c.until) {
				c.until = until
			}
		case t.unknown():
			c.unknown++
		}
	}
	return c
}

// tried is true for a target that was restarted lately and has not been well for long enough since.
func (s *step) tried(t *slot) bool {
	return s.recent(t) && (!t.good() || t.pod.UID == t.record.UID || !s.reached(t.proven()))
}

// reaches reports whether affected targets of this fleet, alone or with those elsewhere, are as many as make a fault the fleet's.
func (s *step) reaches(affected, desired int, least func(n int) int) bool {
	return affected >= least(desired) || affected > 0 && s.Elsewhere.Desired > 0 &&
		affected+s.Elsewhere.Affected >= least(desired+s.Elsewhere.Desired)
}

// enter is the least number of n targets that make a fault the fleet's.
func (s *step) enter(n int) int { return max(s.share(n), 2) }

func (s *step) share(n int) int {
	threshold := s.Limits.FleetWide
	if threshold == (intstr.IntOrString{}) {
		threshold = intstr.FromString(DefaultFleetWide)
	}
	return Budget(threshold, n)
}

// leave is the number of n targets below which a fault is the fleet's no more.
func (s *step) leave(n int) int { return max((s.enter(n)+1)/2, 2) }

func (s *step) judgeOutage() {
	c := s.census(func(*slot) bool { return true })
	s.outage.affected = c.affected
	s.outage.fleetWide = s.reaches(c.affected, c.desired, s.enter) || s.FleetWide && s.reaches(c.affected+c.unknown, c.desired, s.leave)
	s.outage.unsure = s.reaches(c.affected+c.unknown, c.desired, s.enter)
	s.result.Affected, s.result.FleetWide = c.affected, s.outage.fleetWide
	if !c.until.IsZero() && (s.outage.fleetWide || s.outage.unsure) {
		s.at(c.until)
	}
	if !s.outage.fleetWide {
		return
	}
	s.result.Outage = fmt.Sprintf("%d of %d targets are bad or were restarted lately", c.affected, c.desired)
	if e := s.Elsewhere; e.Desired > 0 {
		s.result.Outage += fmt.Sprintf(", and %d of %d with the same sink elsewhere", e.Affected, e.Desired)
	}
}
