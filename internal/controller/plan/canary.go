package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

// Canary says how a new revision is tried out.
type Canary struct {
	// Count of targets, or share of them; more than there are is all of them, and more than MaxCanaries is as many.
	Count intstr.IntOrString
	// Soak is how long they must be well.
	Soak time.Duration
}

// MaxCanaries is how many targets try out a revision at the most. What they were before is written down target by target: 500 of 60
// letters take a third of what the annotations of an object may (256 KiB), 5,000 would not fit.
const MaxCanaries = 500

// never is the time that is not set.
var never time.Time

// soak judges the canaries: it fails them, counts the time that they are well, or ends the canary.
func (s *step) soak() {
	if len(s.slots) == 0 {
		s.pass()
		return
	}
	s.countBoots()
	canaries := s.canaries()
	seen := !slices.ContainsFunc(canaries, (*slot).unseen)
	if s.held() {
		s.pause(seen, "paused")
		return
	}
	others := s.census(func(t *slot) bool { return !s.roll.has(t.Name) })
	outage := s.reaches(others.affected, others.desired)
	state := well
	why := ""
	for _, t := range canaries {
		got, text := s.look(t, outage)
		if got == worse && outage {
			got, text = waits, t.Name+" is not well, and the fault is fleet-wide"
		}
		if got == worse {
			s.fail(text)
			return
		}
		if got > state {
			state, why = got, text
		}
	}
	switch {
	case len(canaries) < s.wantedCanaries() && s.canTakeMore():
		s.pause(seen, "taking canaries")
	case len(canaries) == 0:
		s.pause(false, "no node of a canary is Ready")
	case state == well:
		s.count(canaries)
	default:
		s.pause(seen, why)
	}
}

// countBoots takes down how often the nodes of canaries have booted since those were taken.
func (s *step) countBoots() {
	for _, t := range s.slots {
		before, boot := s.roll.Before[t.Name], t.Boot
		if boot == "" || boot == before.Boot || !s.roll.has(t.Name) {
			continue
		}
		if before.Boot != "" {
			before.Boots++
		}
		before.Boot = boot
		s.remember(t, before)
	}
}

// remember writes down how a target was before it was taken.
func (s *step) remember(t *slot, before Before) {
	if before == (Before{}) {
		return
	}
	if s.roll.Before == nil {
		s.roll.Before = map[string]Before{}
	}
	s.roll.Before[t.Name] = before
}

// canaries are the targets that were taken and tell something: not those whose nodes are lost, nor one that was not ready before
// and is not still.
func (s *step) canaries() []*slot {
	var out []*slot
	for _, t := range s.slots {
		lost := !t.NodeReady || !t.Able && !t.live()
		asBefore := s.roll.Before[t.Name].Unready && s.settledUnready(t)
		if s.roll.has(t.Name) && !lost && !asBefore {
			out = append(out, t)
		}
	}
	return out
}

// settledUnready is true for a target whose pod has not been ready for as long as one may take to become so.
func (s *step) settledUnready(t *slot) bool {
	return t.live() && !t.pod.Ready && s.reached(t.pod.unreadySince().Add(Settle))
}

func (s *step) wantedCanaries() int {
	return min(Budget(s.Limits.Canary.Count, len(s.slots)), len(s.slots), MaxCanaries)
}

func (s *step) canTakeMore() bool {
	return slices.ContainsFunc(s.slots, func(t *slot) bool { return t.Able && !s.roll.has(t.Name) })
}

// look is what is seen of a canary.
type look int

const (
	well  look = iota // its time counts
	waits             // it does not
	worse             // than before
)

// look compares a canary with what it was before. In an outage a container may have restarted for reasons that are not its own.
func (s *step) look(t *slot, outage bool) (look, string) {
	before, j := s.roll.Before[t.Name], t.judgement
	name := t.Name
	if !t.live() || t.pod.Revision != s.Update || s.asked(t) {
		return waits, name + " is being replaced"
	}
	allowed := before.allowedRestarts(s.Now.Sub(t.pod.Created)) + before.Boots
	restarted := t.pod.Restarts - allowed
	if severity(before.Verdict) > 0 || outage {
		restarted = 0
	}
	switch {
	case restarted > 1, restarted == 1 && t.pod.Ready:
		return worse, s.sentence(t, fmt.Sprintf("its container restarted %s", times(t.pod.Restarts)))
	case !t.pod.Ready && s.settledUnready(t):
		return worse, s.sentence(t, fmt.Sprintf("not ready for %s", Settle))
	case restarted == 1:
		// By the time it is ready again, a node that has booted has said so.
		return waits, name + " restarts"
	case !t.pod.Ready:
		return waits, name + " is not ready"
	}
	v := j.Verdict
	switch {
	case t.unseen():
		return waits, name + " is not judged yet"
	case external(v):
		return waits, fmt.Sprintf("%s is %s", name, v)
	case severity(v) <= severity(before.Verdict):
		return well, ""
	case j.Fading:
		return waits, fmt.Sprintf("%s was %s until lately", name, v)
	case s.common(v):
		return waits, fmt.Sprintf("%s is %s, as others are that were not taken", name, v)
	case slow(v) && !s.reached(j.Since.Add(Settle)):
		return waits, fmt.Sprintf("%s is %s", name, v)
	}
	return worse, s.sentence(t, fmt.Sprintf("%s, %s", v, j.Message))
}

// slow is true for what may come to an end by itself: a report that is not had, a container that is restarted.
func slow(v growth.Verdict) bool { return v == growth.NotRunning || v == growth.Unreachable }

// common is true for a verdict that is as frequent among targets that were not taken as makes a fault the fleet's: then it is not
// the revision's.
func (s *step) common(v growth.Verdict) bool {
	var others, same int
	for _, t := range s.slots {
		if s.roll.has(t.Name) {
			continue
		}
		others++
		if t.judgement.Verdict == v {
			same++
		}
	}
	return same > 0 && same >= s.share(others)
}

// allowedRestarts of a container in so long a time, going by what there were before: rounded up, and none when there were none.
func (b Before) allowedRestarts(age time.Duration) int {
	if b.Restarts == 0 || b.Age.Duration <= 0 {
		return b.Restarts
	}
	return int(math.Ceil(float64(b.Restarts) * age.Seconds() / b.Age.Seconds()))
}

// sentence says how a canary is, and how it was.
func (s *step) sentence(t *slot, now string) string {
	b := s.roll.Before[t.Name]
	was := []string{string(cmp.Or(b.Verdict, growth.Healthy)), "lag " + b.Lag.Round(time.Second).String()}
	if b.Restarts > 0 {
		was = append(was, fmt.Sprintf("%s restarted in %s", times(b.Restarts), b.Age.Round(time.Minute)))
	}
	if b.Unready {
		was = append(was, "not ready")
	}
	return fmt.Sprintf("%s on revision %s: %s; before, on %s: %s", t.Name, s.Update, now, s.Current, strings.Join(was, ", "))
}

// fail sends the canaries back.
func (s *step) fail(why string) {
	s.phase, s.result.Message = PhaseFailed, why
	s.roll = Rollout{Failed: why, FailedAt: s.second}
}

// pass ends the canary: the rest follows.
func (s *step) pass() {
	s.promote()
	s.phase = PhaseRolling
}

// pause ends the time that counts. Without credit, what was not written down yet is lost.
func (s *step) pause(credit bool, why string) {
	r := &s.roll
	if credit && !r.Since.IsZero() {
		r.Soaked.Duration += max(s.second.Sub(r.Since), 0)
	}
	r.Since = never
	s.result.Message = "the soak waits: " + why
}

// count lets time count, writes it down now and then, and ends the canary when it is enough.
func (s *step) count(canaries []*slot) {
	r, soak := &s.roll, s.Limits.Canary.Soak
	if r.Since.IsZero() {
		r.Since = s.second
	}
	left := soak - r.Soaked.Duration
	if !s.Now.Before(r.Since.Add(left)) {
		if i := slices.IndexFunc(canaries, s.catchingUp); i >= 0 {
			s.result.Message = fmt.Sprintf("the soak waits: %s catches up still", canaries[i].Name)
			return
		}
		s.pass()
		return
	}
	s.result.Message = fmt.Sprintf("soaks until %s", clock(r.Since.Add(left)))
	if tick := max(soak/soakTicks, time.Minute); s.reached(r.Since.Add(tick)) {
		r.Soaked.Duration += s.second.Sub(r.Since)
		r.Since = s.second
		s.at(r.Since.Add(tick))
	}
	s.at(r.Since.Add(soak - r.Soaked.Duration))
}

// catchingUp is true for a canary that is behind and was not.
func (s *step) catchingUp(t *slot) bool {
	return t.judgement.Verdict != growth.Healthy && severity(t.judgement.Verdict) == 0 && severity(s.roll.Before[t.Name].Verdict) == 0
}

// takeCanaries takes targets until there are enough: first those whose pods are of a revision that was given up, then those that
// are well, by name.
func (s *step) takeCanaries() {
	room := s.wantedCanaries() - len(s.canaries())
	var next []*slot
	unknown := false
	for _, t := range s.slots {
		if !t.live() || !t.Able || s.roll.has(t.Name) {
			continue
		}
		unknown = unknown || t.unseen()
		next = append(next, t)
	}
	slices.SortStableFunc(next, func(a, b *slot) int { return cmp.Compare(s.rank(a), s.rank(b)) })
	for _, t := range next {
		if room <= 0 || unknown && s.rank(t) == lastRank {
			break // one of those that are not judged yet may be well
		}
		before := s.before(t)
		if !s.replaceOne(t) {
			continue
		}
		room--
		s.roll.Soaked.Duration, s.roll.Since = 0, never
		s.remember(t, before)
	}
	// What of a revision that was given up does not work, and is not tried with the next one, goes back.
	for _, t := range next {
		if t.live() && s.givenUp(t) && t.NodeReady && cost(t) == 0 {
			s.delete(t, WhySentBack, 0)
		}
	}
}

const lastRank = 2

func (s *step) rank(t *slot) int {
	switch {
	case s.givenUp(t):
		return 0
	case t.good() && t.ready():
		return 1
	}
	return lastRank
}

// givenUp is true for a pod of a revision that was on its way and is not any more.
func (s *step) givenUp(t *slot) bool {
	return t.pod.Revision != s.Current && t.pod.Revision != s.Update
}

// before is what a canary is compared with; the zero value for one that is well. How a pod of a revision that was given up works is
// no measure: but for what is external its target is taken to have been well.
func (s *step) before(t *slot) Before {
	if v := t.judgement.Verdict; s.givenUp(t) {
		if external(v) {
			return Before{Verdict: v, Boot: t.Boot}
		}
		return Before{Boot: t.Boot}
	}
	b := Before{Boot: t.Boot, Lag: metav1.Duration{Duration: s.Lag[t.Name].Truncate(time.Second)}, Restarts: t.pod.Restarts, Unready: !t.pod.Ready}
	if v := t.judgement.Verdict; v != growth.Healthy {
		b.Verdict = v
	}
	if b.Restarts > 0 {
		b.Age.Duration = s.Now.Sub(t.pod.Created).Truncate(time.Second)
	}
	return b
}
