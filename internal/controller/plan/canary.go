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

// MaxCanaries is how many targets try out a revision at the most. What they were before is written down target by
// target, in up to 240 bytes each: 500 take half of what the annotations of an object may (256 KiB), 5,000 would not
// fit.
const MaxCanaries = 500

// never is the time that is not set.
var never time.Time

// soak judges the canaries: it fails them, counts the time that they are well, or ends the canary.
func (s *step) soak() {
	s.countBoots()
	canaries := s.canaries()
	seen := len(canaries) > 0 && !slices.ContainsFunc(canaries, (*slot).unseen)
	if s.held() {
		s.pause(seen, "paused")
		return
	}
	others := s.census(s.compares)
	outage := s.reaches(others.affected, others)
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
	taken, lost := s.lost()
	many := s.manyLost(taken, lost)
	untaken, lostToo := s.lostElsewhere()
	common := lostToo > 0 && lostToo >= s.share(untaken)
	switch {
	case many && !common && s.manyLost(taken, s.lostForLong(lost)):
		s.fail(s.lostSentence(lost))
	case many:
		s.pause(false, s.lostSentence(lost))
	case len(s.justGone()) > 0:
		s.pause(seen, few(s.justGone())+" is no target for the moment")
	case len(canaries) < s.wantedCanaries() && s.canTakeMore():
		s.pause(seen, "taking canaries")
	case len(canaries) == 0:
		s.pause(false, "no canary can be asked")
	case state == well:
		s.count(canaries)
	default:
		s.pause(seen, why)
	}
}

// lost returns how many targets were taken, and which of them cannot be asked any more, by name or sign: their nodes
// are lost, or they are no targets any more, or the pods that they had before do not end, or their parsers do not say
// how they are. What takes away its own witnesses is not innocent.
func (s *step) lost() (taken int, lost []string) {
	inCanary := s.phase == PhaseCanary
	for _, t := range s.slots {
		if !s.roll.has(t.Name) {
			continue
		}
		taken++
		if t.lost() || inCanary && (s.endless(t.pod) || s.mute(t) && s.roll.before(t.Name).Verdict != growth.Unknown) {
			lost = append(lost, t.Name)
		}
	}
	for _, key := range s.roll.Also {
		if inCanary && s.target(key) == nil {
			taken++
			lost = append(lost, key)
		}
	}
	return taken, lost
}

// justGone are the canaries that are no targets, and may be again.
func (s *step) justGone() []string {
	var out []string
	for _, key := range s.roll.Also {
		if since := s.GoneSince[key]; s.target(key) == nil && (since.IsZero() || !s.reached(since.Add(Settle))) {
			out = append(out, key)
		}
	}
	return out
}

// manyLost reports whether too many of the taken targets are lost to be one node's fault. The first is
// replaced by another canary; one after the other would be from node to node.
func (s *step) manyLost(taken int, lost []string) bool { return len(lost) >= max(s.share(taken), 2) }

// lostElsewhere returns how many targets were not taken, and how many of them are lost as well.
func (s *step) lostElsewhere() (others, lost int) {
	for _, t := range s.slots {
		if s.roll.has(t.Name) {
			continue
		}
		others++
		if t.lost() {
			lost++
		}
	}
	return others, lost
}

// lostForLong are those of them whose nodes were not heard of for as long as one may take to boot.
func (s *step) lostForLong(lost []string) []string {
	return slices.DeleteFunc(slices.Clone(lost), func(key string) bool {
		t := s.target(key)
		return t == nil || t.NodeReady || !s.lapsed(t)
	})
}

func (s *step) lostSentence(lost []string) string {
	return fmt.Sprintf("%s cannot be asked any more since they were given revision %s: their nodes are lost, "+
		"their pods do not end, or their parsers do not say how they are",
		few(lost), s.Update)
}

// countBoots takes down how often the nodes of canaries have booted since those were taken.
func (s *step) countBoots() {
	for _, t := range s.slots {
		if t.Boot == "" || !s.roll.has(t.Name) {
			continue
		}
		before := s.roll.before(t.Name)
		if t.Boot == before.Boot {
			continue
		}
		if before.Boot != "" {
			before.Boots++
		}
		before.Boot = t.Boot
		s.roll.remember(t.Name, before)
	}
}

// canaries are the targets that were taken and say something: not those that are lost, nor one that was not ready
// before, or could not be judged, and is so still.
func (s *step) canaries() []*slot {
	var out []*slot
	for _, t := range s.slots {
		if !s.roll.has(t.Name) || t.lost() || s.endless(t.pod) || s.mute(t) || s.roll.before(t.Name).Unready && s.lapsed(t) {
			continue
		}
		out = append(out, t)
	}
	return out
}

func (s *step) wantedCanaries() int {
	return min(Budget(s.Limits.Canary.Count, s.able), s.able, MaxCanaries)
}

// canTakeMore reports whether another target can be a canary, now or once it has its pod again.
func (s *step) canTakeMore() bool {
	return slices.ContainsFunc(s.slots, func(t *slot) bool {
		return t.Able && !s.roll.has(t.Name) && !s.mute(t) && (t.live() || !s.lapsed(t))
	})
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
	before, j := s.roll.before(t.Name), t.judgement
	name := t.Name
	switch {
	case !t.down() && (t.pod.Revision != s.Update || s.asked(t)), t.pod != nil && t.pod.Terminating:
		return waits, name + " is being replaced"
	case t.pod == nil && s.lapsed(t):
		return worse, s.sentence(t, fmt.Sprintf("no pod for %s", Settle))
	case !t.live():
		return waits, name + " is being replaced"
	case before.Boots > maxBoots:
		return worse, s.sentence(t, fmt.Sprintf("its node booted %s", times(before.Boots)))
	}
	allowed := before.allowedRestarts(t.pod.age(s.Now)) + before.Boots
	restarted := t.pod.Restarts - allowed
	if severity(before.Verdict) > 0 || outage {
		restarted = 0
	}
	switch {
	case restarted > 1, restarted == 1 && t.pod.Ready:
		return worse, s.sentence(t, fmt.Sprintf("its container restarted %s", times(t.pod.Restarts)))
	case t.pod.Blocked != "" && !t.pod.Ready && !before.Unready && s.reached(t.pod.blockedSince().Add(StartPatience)):
		return worse, s.sentence(t, "it cannot be started: "+t.pod.Blocked)
	case !t.pod.Ready && s.lapsed(t):
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
	same := 0
	for _, t := range s.slots {
		if s.compares(t) && t.judgement.Verdict == v {
			same++
		}
	}
	return same > 0 && same >= s.share(s.census(s.compares).desired)
}

// compares reports whether the target shows how the fleet is without the new revision: one that was not taken, unless
// its pod is of a revision that was given up, which may be why it is ill.
func (s *step) compares(t *slot) bool { return !s.roll.has(t.Name) && (!t.live() || !s.givenUp(t)) }

// allowedRestarts of a container in so long a time, going by what there were before: rounded up, and none when there were none.
func (b Before) allowedRestarts(age time.Duration) int {
	if b.Restarts <= 0 || b.Age.Duration <= 0 {
		return max(b.Restarts, 0)
	}
	return int(math.Ceil(float64(b.Restarts) * age.Seconds() / b.Age.Seconds()))
}

// sentence says how a canary is, and how it was.
func (s *step) sentence(t *slot, now string) string {
	b := s.roll.before(t.Name)
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
	s.roll = s.roll.TakenOver()
	s.roll.Failed, s.roll.FailedAt = why, s.second
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
	return t.judgement.Verdict != growth.Healthy && severity(t.judgement.Verdict) == 0 && severity(s.roll.before(t.Name).Verdict) == 0
}

// takeCanaries takes targets until there are enough: first those whose pods are of a revision that was given up, then those that
// are well, by name.
func (s *step) takeCanaries() {
	if taken, lost := s.lost(); s.manyLost(taken, lost) {
		return
	}
	room := s.wantedCanaries() - len(s.canaries()) - len(s.justGone())
	var next []*slot
	unknown := false
	for _, t := range s.slots {
		if !t.live() || !t.Able || s.roll.has(t.Name) || s.mute(t) {
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
		s.roll.remember(t.Name, before)
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
		b.Age.Duration = t.pod.age(s.Now).Truncate(time.Second)
	}
	return b
}
