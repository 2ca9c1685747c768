package plan

import (
	"fmt"
	"slices"
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
	desired  int
	affected int         // bad, or restarted lately
	unknown  int         // not judged yet
	unproven []time.Time // well, but not for long: when they will be proven
	until    time.Time   // when the first of those that were restarted will not have been so lately; zero: there are none
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
		case t.good() && s.Now.Before(t.proven()):
			c.unproven = append(c.unproven, t.proven())
		}
	}
	return c
}

// tried is true for a target that was restarted lately and has not been well for long enough since.
func (s *step) tried(t *slot) bool {
	return s.recent(t) && (!t.good() || t.pod.UID == t.record.UID || s.Now.Before(t.proven()))
}

// reaches reports whether affected targets of this fleet, alone or with those elsewhere, are as many as make a fault the fleet's.
func (s *step) reaches(affected, desired int) bool {
	all := Elsewhere{desired + s.Elsewhere.Desired, affected + s.Elsewhere.Affected}
	return affected >= max(s.share(desired), 2) || affected > 0 && all.Affected >= max(s.share(all.Desired), 2)
}

// share of n targets from which on a fault is not one parser's.
func (s *step) share(n int) int {
	threshold := s.Limits.FleetWide
	if threshold == (intstr.IntOrString{}) {
		threshold = intstr.FromString(DefaultFleetWide)
	}
	return Budget(threshold, n)
}

// lasts is true for a fault that was fleet-wide and is so until enough of those that recovered are proven. Then it asks for a new plan,
// and not for each of them before: fleets have thousands.
func (s *step) lasts(c census) bool {
	ill := c.affected + c.unknown
	if !s.reaches(ill+len(c.unproven), c.desired) {
		return false
	}
	slices.SortFunc(c.unproven, time.Time.Compare)
	for i, at := range c.unproven {
		if left := len(c.unproven) - i - 1; !s.reaches(ill+left, c.desired) {
			s.at(at)
			break
		}
	}
	return true
}

func (s *step) judgeOutage() {
	c := s.census(func(*slot) bool { return true })
	s.outage.affected = c.affected
	s.outage.unsure = s.reaches(c.affected+c.unknown, c.desired)
	s.outage.fleetWide = s.reaches(c.affected, c.desired)
	if !s.outage.fleetWide && s.FleetWide {
		s.outage.fleetWide = s.lasts(c)
	}
	s.result.Affected, s.result.FleetWide = c.affected, s.outage.fleetWide
	if (s.outage.fleetWide || s.outage.unsure) && !c.until.IsZero() {
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
