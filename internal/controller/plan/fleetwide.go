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
	counted   int  // whose state is known, or soon will be
	fleetWide bool // what is wrong is not one parser's
	unsure    bool // it may be, when those that were not judged yet are counted
}

// census counts targets for outages.
type census struct {
	desired  int         // whose state is known, or soon will be
	affected int         // bad, or restarted lately
	troubled int         // of the affected: the sink is the trouble
	unknown  int         // not judged yet
	unproven []time.Time // well, but not for long: when they will be proven
	until    time.Time   // when the first of those that count for a time only will not any more; zero: there are none
}

// before notes that a target counts until that time only.
func (c *census) before(until time.Time) {
	if c.until.IsZero() || until.Before(c.until) {
		c.until = until
	}
}

// census counts the targets of a group. Of those that nobody can ask none counts for ever, neither as ill nor as well:
// what has been unknown for Settle, and what a lost node has taken with it as long ago.
func (s *step) census(group func(*slot) bool) census {
	var c census
	for _, t := range s.slots {
		if !group(t) {
			continue
		}
		since := t.judgement.Since
		switch bad := t.judgement.Verdict.Bad(); {
		case bad && t.lost() && s.over(since):
			continue
		case bad:
			c.affected++
			if t.judgement.SinkTrouble() {
				c.troubled++
			}
			if t.lost() {
				c.before(since.Add(Settle))
			}
		case s.tried(t):
			c.affected++
			c.before(t.record.Last().Add(Settle))
		case t.unknown():
			if s.mute(t) {
				continue
			}
			c.unknown++
			if !since.IsZero() {
				c.before(since.Add(Settle))
			}
		case t.unseen():
			if !t.Able || s.lapsed(t) {
				continue
			}
		case t.good() && s.Now.Before(t.proven()):
			c.unproven = append(c.unproven, t.proven())
		}
		c.desired++
	}
	return c
}

// over reports whether what began then, by our clock, has gone on for Settle.
func (s *step) over(since time.Time) bool { return !since.IsZero() && !s.Now.Before(since.Add(Settle)) }

// tried is true for a target that was restarted lately and has not been well for long enough since. One that is well
// with the pod that was to be deleted never was.
func (s *step) tried(t *slot) bool {
	return s.recent(t) && (!t.good() || t.pod.UID != t.record.UID && s.Now.Before(t.proven()))
}

// reaches reports whether that many affected targets of those counted, alone or with those elsewhere, are as many as make a fault the
// fleet's.
func (s *step) reaches(affected int, c census) bool {
	all := s.around(c)
	all.Desired += c.desired
	all.Affected += affected
	return affected >= max(s.share(c.desired), 2) || affected > 0 && all.Affected >= max(s.share(all.Desired), 2)
}

// around is what counts of the other objects with the same sink. Strangers are heard only while the sink is the trouble of a target here,
// and no namespace of them for more than there are targets here: whatever they say, alone they hold nothing back.
func (s *step) around(c census) Elsewhere {
	all := s.Elsewhere
	if c.troubled == 0 {
		return all
	}
	for _, e := range s.Strangers {
		if e.Desired > c.desired {
			e.Affected, e.Desired = e.Affected*c.desired/e.Desired, c.desired
		}
		all.Desired += e.Desired
		all.Affected += e.Affected
	}
	return all
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
	if !s.reaches(ill+len(c.unproven), c) {
		return false
	}
	slices.SortFunc(c.unproven, time.Time.Compare)
	for i, at := range c.unproven {
		if left := len(c.unproven) - i - 1; !s.reaches(ill+left, c) {
			s.at(at)
			break
		}
	}
	return true
}

func (s *step) judgeOutage() {
	c := s.census(func(*slot) bool { return true })
	s.outage.affected, s.outage.counted = c.affected, c.desired
	s.outage.unsure = s.reaches(c.affected+c.unknown, c)
	s.outage.fleetWide = s.reaches(c.affected, c)
	if !s.outage.fleetWide && s.FleetWide {
		s.outage.fleetWide = s.lasts(c)
	}
	s.result.Affected, s.result.Counted, s.result.FleetWide = c.affected, c.desired, s.outage.fleetWide
	if (s.outage.fleetWide || s.outage.unsure) && !c.until.IsZero() {
		s.at(c.until)
	}
	if !s.outage.fleetWide {
		return
	}
	s.result.Outage = fmt.Sprintf("%d of %d targets are bad or were restarted lately", c.affected, c.desired)
	if e := s.around(c); e.Desired > 0 {
		s.result.Outage += fmt.Sprintf(", and %d of %d with the same sink elsewhere", e.Affected, e.Desired)
	}
}
