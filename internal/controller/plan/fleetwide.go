package plan

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
)

// DefaultFleetWide is the share of a fleet from which a fault is fleet-wide when Limits.FleetWide is not set.
const DefaultFleetWide = "30%"

// outage is the judgement on the fleet as a whole.
type outage struct {
	affected  int  // targets of this fleet
	counted   int  // targets whose state is known, or soon will be
	fleetWide bool // the fault is not that of single parsers
	uncertain bool // it may be fleet-wide, depending on verdicts that are pending
}

// census counts targets for outages.
type census struct {
	counted     int         // whose state is known, or soon will be
	affected    int         // bad, or restarted recently
	sinkTrouble int         // affected by their sink
	pending     int         // not judged yet
	unproven    []time.Time // good, but not for long: when they are proven
	expires     time.Time   // when the first target that counts for a limited time ends to; zero: there is none
}

// expireAt notes that a target counts only until that time.
func (c *census) expireAt(until time.Time) {
	if c.expires.IsZero() || until.Before(c.expires) {
		c.expires = until
	}
}

// census counts the targets of a group. A target that has been unknown, or without a pod, for Settle, or bad for as
// long on a lost node, is not counted: it is neither affected nor well.
func (s *step) census(group func(*slot) bool) census {
	var c census
	for _, t := range s.slots {
		if !group(t) {
			continue
		}
		since := t.judgement.Since
		switch bad := t.judgement.Verdict.Bad(); {
		case bad && t.lost() && s.settled(since):
			continue
		case bad:
			c.affected++
			if t.judgement.SinkTrouble() {
				c.sinkTrouble++
			}
			if t.lost() {
				c.expireAt(since.Add(Settle))
			}
		case s.restartUnproven(t):
			c.affected++
			c.expireAt(t.record.Last().Add(Settle))
		case t.awaitsVerdict():
			if s.indeterminate(t) {
				continue
			}
			c.pending++
			if !since.IsZero() {
				c.expireAt(since.Add(Settle))
			}
		case t.unjudged():
			if !t.Schedulable || s.longUnready(t) {
				continue
			}
		case t.good() && s.Now.Before(t.provenAt()):
			c.unproven = append(c.unproven, t.provenAt())
		}
		c.counted++
	}
	return c
}

// settled reports whether what began at that time, by the operator's clock, has lasted for Settle.
func (s *step) settled(since time.Time) bool {
	return !since.IsZero() && !s.Now.Before(since.Add(Settle))
}

// restartUnproven reports whether the target was restarted less than Settle ago and has not been proven since. One that
// is good with the pod that was to be deleted was never restarted.
func (s *step) restartUnproven(t *slot) bool {
	return s.recentlyRestarted(t) && (!t.good() || t.pod.UID != t.record.UID && s.Now.Before(t.provenAt()))
}

// reachesThreshold reports whether that many affected targets of a census, alone or together with their peers, make a
// fault fleet-wide. Peers alone never do.
func (s *step) reachesThreshold(affected int, c census) bool {
	all := s.peers(c)
	all.Desired += c.counted
	all.Affected += affected
	return affected >= max(s.threshold(c.counted), 2) ||
		affected > 0 && all.Affected >= max(s.threshold(all.Desired), 2)
}

// peers returns the peers that count. Foreign peers do only while the sink is the trouble of a target here (SinkDown,
// or Overloaded by the sink), and no namespace of them counts for more targets than there are here: whatever others
// report, alone they hold nothing back.
func (s *step) peers(c census) Peers {
	all := s.Peers
	if c.sinkTrouble == 0 {
		return all
	}
	for _, p := range s.ForeignPeers {
		if p.Desired > c.counted {
			p.Affected, p.Desired = p.Affected*c.counted/p.Desired, c.counted
		}
		all.Desired += p.Desired
		all.Affected += p.Affected
	}
	return all
}

// threshold returns how many of n targets make a fault more than that of single parsers.
func (s *step) threshold(n int) int {
	threshold := s.Limits.FleetWide
	if threshold == (intstr.IntOrString{}) {
		threshold = intstr.FromString(DefaultFleetWide)
	}
	return Budget(threshold, n)
}

// persists reports whether a fault that was fleet-wide still is: until enough of the targets that recovered are proven.
// So a fleet that hovers about the threshold stays fleet-wide, and targets that are bad for good do not keep it so. It
// asks for a new plan once enough are proven, and not for each target before: fleets have thousands.
func (s *step) persists(c census) bool {
	unwell := c.affected + c.pending
	if !s.reachesThreshold(unwell+len(c.unproven), c) {
		return false
	}
	slices.SortFunc(c.unproven, time.Time.Compare)
	for i, at := range c.unproven {
		if left := len(c.unproven) - i - 1; !s.reachesThreshold(unwell+left, c) {
			s.recheckAt(at)
			break
		}
	}
	return true
}

// judgeOutage needs no memory but the FleetWide of the previous plan. While it is uncertain, a new leader, which knows
// nothing yet, does not take the first verdict of an outage for the fault of one parser.
func (s *step) judgeOutage() {
	c := s.census(func(*slot) bool { return true })
	s.outage.affected, s.outage.counted = c.affected, c.counted
	s.outage.uncertain = s.reachesThreshold(c.affected+c.pending, c)
	s.outage.fleetWide = s.reachesThreshold(c.affected, c)
	if !s.outage.fleetWide && s.FleetWide {
		s.outage.fleetWide = s.persists(c)
	}
	s.result.Affected, s.result.Counted, s.result.FleetWide = c.affected, c.counted, s.outage.fleetWide
	if (s.outage.fleetWide || s.outage.uncertain) && !c.expires.IsZero() {
		s.recheckAt(c.expires)
	}
	if !s.outage.fleetWide {
		return
	}
	s.result.Outage = fmt.Sprintf("%d of %d targets are bad or were restarted recently", c.affected, c.counted)
	if p := s.peers(c); p.Desired > 0 {
		s.result.Outage += fmt.Sprintf(", and %d of %d others with the same sink", p.Affected, p.Desired)
	}
}
