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

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

// Canary is how a new revision is tried out.
type Canary struct {
	// Count is a number or share of targets, at most all of them and at most MaxCanaries.
	Count intstr.IntOrString
	// Soak is how long they must be well.
	Soak time.Duration
}

// MaxCanaries is the highest number of canaries. The baseline of each takes up to 240 bytes: 500 take half of what the
// annotations of an object may (256 KiB), and 5,000 would not fit.
const MaxCanaries = 500

var zeroTime time.Time

// judgeCanary fails the canary, pauses or counts the soak, or ends it. A canary does not fail while a fault is
// fleet-wide in the control group. It also fails when many canaries have been lost with their nodes for Settle, unless
// as many unselected targets are lost as make a fault fleet-wide.
//
// There is one only while a Current revision exists: setting Update back to Current is a plain rollout. A revision that
// cures a fleet soaks like any other, however bad the other targets are.
func (s *step) judgeCanary() {
	s.countReboots()
	canaries := s.canaries()
	judged := len(canaries) > 0 && !slices.ContainsFunc(canaries, (*slot).unjudged)
	if s.suspended() {
		s.pauseSoak(judged, "paused")
		return
	}
	control := s.census(s.inControlGroup)
	outage := s.reachesThreshold(control.affected, control)
	state := canaryWell
	why := ""
	for _, t := range canaries {
		got, text := s.compare(t, outage)
		if got == canaryWorse && outage {
			got, text = canaryPending, t.Name+" is worse than before, and the fault is fleet-wide"
		}
		if got == canaryWorse {
			s.failCanary(text)
			return
		}
		if got > state {
			state, why = got, text
		}
	}
	selected, lost := s.lostSelected()
	many := s.manyLost(selected, lost)
	unselected, lostToo := s.lostUnselected()
	common := lostToo > 0 && lostToo >= s.threshold(unselected)
	switch {
	case many && !common && s.manyLost(selected, s.lostForLong(lost)):
		s.failCanary(s.lostMessage(lost))
	case many:
		s.pauseSoak(false, s.lostMessage(lost))
	case len(s.recentlyAbsent()) > 0:
		s.pauseSoak(judged, "not a target at the moment: "+firstFew(s.recentlyAbsent()))
	case len(canaries) < s.wantedCanaries() && s.canSelectMore():
		s.pauseSoak(judged, "selecting canaries")
	case len(canaries) == 0:
		s.pauseSoak(false, "no canary can be observed")
	case state == canaryWell:
		s.countSoak(canaries)
	default:
		s.pauseSoak(judged, why)
	}
}

// lostSelected returns how many targets are selected, and the names or hashes of those that cannot be observed. In a
// canary that includes targets that are absent, whose old pod is overdue, or that have become indeterminate: a
// revision that removes the evidence against it is not innocent.
func (s *step) lostSelected() (selected int, lost []string) {
	inCanary := s.phase == PhaseCanary
	for _, t := range s.slots {
		if !s.rollout.selected(t.Name) {
			continue
		}
		selected++
		if t.lost() || inCanary &&
			(s.overdue(t.pod) || s.indeterminate(t) && s.rollout.baseline(t.Name).Verdict != health.Unknown) {
			lost = append(lost, t.Name)
		}
	}
	for _, key := range s.rollout.OutOfOrder {
		if inCanary && s.target(key) == nil {
			selected++
			lost = append(lost, key)
		}
	}
	return selected, lost
}

// recentlyAbsent returns the canaries that have been absent for less than Settle: nodes lose labels for a moment.
func (s *step) recentlyAbsent() []string {
	var out []string
	for _, key := range s.rollout.OutOfOrder {
		if since := s.AbsentSince[key]; s.target(key) == nil && (since.IsZero() || !s.reached(since.Add(Settle))) {
			out = append(out, key)
		}
	}
	return out
}

// manyLost reports whether too many of the selected targets are lost for it to be the fault of one node. The first lost
// canary is replaced by another. With many lost, none is, or the revision would go from node to node: the soak waits
// until they are back or a person decides.
func (s *step) manyLost(selected int, lost []string) bool {
	return len(lost) >= max(s.threshold(selected), 2)
}

// lostUnselected returns how many targets are not selected, and how many of them are lost.
func (s *step) lostUnselected() (unselected, lost int) {
	for _, t := range s.slots {
		if s.rollout.selected(t.Name) {
			continue
		}
		unselected++
		if t.lost() {
			lost++
		}
	}
	return unselected, lost
}

// lostForLong returns those of the lost targets whose nodes have not been Ready for Settle, long enough to boot.
func (s *step) lostForLong(lost []string) []string {
	return slices.DeleteFunc(slices.Clone(lost), func(key string) bool {
		t := s.target(key)
		return t == nil || t.NodeReady || !s.longUnready(t)
	})
}

func (s *step) lostMessage(lost []string) string {
	return fmt.Sprintf("%s cannot be observed since they were given revision %s: their nodes are lost, "+
		"their pods do not terminate, or the state of their parsers is unknown",
		firstFew(lost), s.nameOf(s.Update))
}

// countReboots counts how often the nodes of canaries have rebooted since they were selected.
func (s *step) countReboots() {
	for _, t := range s.slots {
		if t.BootID == "" || !s.rollout.selected(t.Name) {
			continue
		}
		baseline := s.rollout.baseline(t.Name)
		if t.BootID == baseline.BootID {
			continue
		}
		if baseline.BootID != "" {
			baseline.Reboots++
		}
		baseline.BootID = t.BootID
		s.rollout.setBaseline(t.Name, baseline)
	}
}

// canaries returns the selected targets that can be observed: not those that are lost, overdue or indeterminate, nor
// one that was unready before it was selected and still is.
func (s *step) canaries() []*slot {
	var out []*slot
	for _, t := range s.slots {
		if !s.rollout.selected(t.Name) || t.lost() || s.overdue(t.pod) || s.indeterminate(t) ||
			s.rollout.baseline(t.Name).Unready && s.longUnready(t) {
			continue
		}
		out = append(out, t)
	}
	return out
}

func (s *step) wantedCanaries() int {
	return min(Budget(s.Limits.Canary.Count, s.schedulable), s.schedulable, MaxCanaries)
}

// canSelectMore reports whether another target can be a canary, now or once it has its pod again.
func (s *step) canSelectMore() bool {
	return slices.ContainsFunc(s.slots, func(t *slot) bool {
		return t.Schedulable && !s.rollout.selected(t.Name) && !s.indeterminate(t) && (t.live() || !s.longUnready(t))
	})
}

// canaryState is the outcome of comparing a canary with its baseline.
type canaryState int

const (
	canaryWell    canaryState = iota // the time counts for the soak
	canaryPending                    // it does not
	canaryWorse                      // than its baseline
)

// compare compares a canary with its baseline. It is worse when
//
//   - a container restarts more often than its node reboots and than before; the first excess restart counts once the
//     container is ready again. In an outage a container may restart for reasons that are not its own;
//   - its node reboots more than maxReboots times;
//   - a container cannot start for StartTimeout, or the target is not ready for Settle;
//   - its verdict is more severe, and neither fading, nor external, nor common in the control group. Unreachable and
//     NotRunning count only after Settle.
func (s *step) compare(t *slot, outage bool) (canaryState, string) {
	baseline, j := s.rollout.baseline(t.Name), t.judgement
	name := t.Name
	switch {
	case !t.down() && (t.pod.Revision != s.Update || s.predatesRequest(t)), t.pod != nil && t.pod.Terminating:
		return canaryPending, name + " is being replaced"
	case t.pod == nil && s.longUnready(t):
		return canaryWorse, s.comparison(t, fmt.Sprintf("no pod for %s", Settle))
	case !t.live():
		return canaryPending, name + " is being replaced"
	case baseline.Reboots > maxReboots:
		return canaryWorse, s.comparison(t, fmt.Sprintf("its node rebooted %s", times(baseline.Reboots)))
	}
	allowed := baseline.allowedRestarts(t.pod.age(s.Now)) + baseline.Reboots
	excess := t.pod.Restarts - allowed
	if severity(baseline.Verdict) > 0 || outage {
		excess = 0
	}
	switch {
	case excess > 1, excess == 1 && t.pod.Ready:
		return canaryWorse, s.comparison(t, fmt.Sprintf("its container restarted %s", times(t.pod.Restarts)))
	case t.pod.Blocked != "" && !t.pod.Ready && !baseline.Unready && s.reached(t.pod.blockedSince().Add(StartTimeout)):
		return canaryWorse, s.comparison(t, "a container cannot start: "+t.pod.Blocked)
	case !t.pod.Ready && s.longUnready(t):
		return canaryWorse, s.comparison(t, fmt.Sprintf("not ready for %s", Settle))
	case excess == 1:
		// By the time the container is ready again, a node that has rebooted has reported so.
		return canaryPending, name + " is restarting"
	case !t.pod.Ready:
		return canaryPending, name + " is not ready"
	}
	v := j.Verdict
	switch {
	case t.unjudged():
		return canaryPending, name + " has no verdict yet"
	case external(v):
		return canaryPending, fmt.Sprintf("%s is %s", name, v)
	case severity(v) <= severity(baseline.Verdict):
		return canaryWell, ""
	case j.Fading:
		return canaryPending, fmt.Sprintf("%s was %s until recently", name, v)
	case s.commonInControl(v):
		return canaryPending, fmt.Sprintf("%s is %s, and so are targets that are not canaries", name, v)
	case transient(v) && !s.reached(j.Since.Add(Settle)):
		return canaryPending, fmt.Sprintf("%s is %s", name, v)
	}
	return canaryWorse, s.comparison(t, fmt.Sprintf("%s, %s", v, j.Message))
}

// transient reports whether the verdict may pass by itself: a report that was not received, a container that restarts.
func transient(v health.Verdict) bool { return v == health.NotRunning || v == health.Unreachable }

// commonInControl reports whether the verdict is so frequent in the control group that it is fleet-wide there. Then the
// revision is not its cause.
func (s *step) commonInControl(v health.Verdict) bool {
	same := 0
	for _, t := range s.slots {
		if s.inControlGroup(t) && t.judgement.Verdict == v {
			same++
		}
	}
	return same > 0 && same >= s.threshold(s.census(s.inControlGroup).counted)
}

// inControlGroup reports whether the target shows how the fleet is without the new revision. An abandoned revision may
// be why a target is bad.
func (s *step) inControlGroup(t *slot) bool {
	return !s.rollout.selected(t.Name) && (!t.live() || !s.onAbandonedRevision(t))
}

// allowedRestarts returns how many restarts are as frequent as those of the baseline, for a pod of that age: rounded
// up, and none when there were none.
func (b Baseline) allowedRestarts(age time.Duration) int {
	if b.Restarts <= 0 || b.Age.Duration <= 0 {
		return max(b.Restarts, 0)
	}
	return int(math.Ceil(float64(b.Restarts) * age.Seconds() / b.Age.Seconds()))
}

// comparison describes how a canary is now, and its baseline.
func (s *step) comparison(t *slot, now string) string {
	b := s.rollout.baseline(t.Name)
	was := []string{string(cmp.Or(b.Verdict, health.Healthy)), "lag " + b.Lag.Round(time.Second).String()}
	if b.Restarts > 0 {
		was = append(was, fmt.Sprintf("restarted %s in %s", times(b.Restarts), b.Age.Round(time.Minute)))
	}
	if b.Unready {
		was = append(was, "not ready")
	}
	return fmt.Sprintf("%s on revision %s: %s; before, on %s: %s",
		t.Name, s.nameOf(s.Update), now, s.nameOf(s.Current), strings.Join(was, ", "))
}

// failCanary sends the canaries back to Current. No target is selected until there is another Update, or promotion.
func (s *step) failCanary(why string) {
	s.phase, s.result.Message = PhaseFailed, why
	s.rollout = s.rollout.CarriedOver()
	s.rollout.Failed, s.rollout.FailedAt = why, s.timestamp
}

// passCanary ends the canary: the other targets follow.
func (s *step) passCanary() {
	s.promote()
	s.phase = PhaseRolling
}

// pauseSoak stops the soak. Without credit, the time that is not persisted yet is lost: nothing observed it.
func (s *step) pauseSoak(credit bool, why string) {
	r := &s.rollout
	if credit && !r.SoakingSince.IsZero() {
		r.Soaked.Duration += max(s.timestamp.Sub(r.SoakingSince), 0)
	}
	r.SoakingSince = zeroTime
	s.result.Message = "the soak is paused: " + why
}

// countSoak lets the soak continue: all canaries are ready, judged, and not worse than before. It persists each tenth
// of the soak, and passes the canary once the soak is over and no canary is CatchingUp that was not before.
func (s *step) countSoak(canaries []*slot) {
	r, soak := &s.rollout, s.Limits.Canary.Soak
	if r.SoakingSince.IsZero() {
		r.SoakingSince = s.timestamp
	}
	left := soak - r.Soaked.Duration
	if !s.Now.Before(r.SoakingSince.Add(left)) {
		if i := slices.IndexFunc(canaries, s.catchingUp); i >= 0 {
			s.result.Message = fmt.Sprintf("the soak is paused: %s is still catching up", canaries[i].Name)
			return
		}
		s.passCanary()
		return
	}
	s.result.Message = fmt.Sprintf("soaking until %s", clock(r.SoakingSince.Add(left)))
	if tick := max(soak/soakParts, time.Minute); s.reached(r.SoakingSince.Add(tick)) {
		r.Soaked.Duration += s.timestamp.Sub(r.SoakingSince)
		r.SoakingSince = s.timestamp
		s.recheckAt(r.SoakingSince.Add(tick))
	}
	s.recheckAt(r.SoakingSince.Add(soak - r.Soaked.Duration))
}

// catchingUp reports whether a canary is behind and was well before.
func (s *step) catchingUp(t *slot) bool {
	return t.judgement.Verdict != health.Healthy && severity(t.judgement.Verdict) == 0 &&
		severity(s.rollout.baseline(t.Name).Verdict) == 0
}

// selectCanaries selects targets until there are enough: first those on an abandoned revision, then good ones, then the
// others, each by name.
func (s *step) selectCanaries() {
	if selected, lost := s.lostSelected(); s.manyLost(selected, lost) {
		return
	}
	room := s.wantedCanaries() - len(s.canaries()) - len(s.recentlyAbsent())
	var next []*slot
	unjudged := false
	for _, t := range s.slots {
		if !t.live() || !t.Schedulable || s.rollout.selected(t.Name) || s.indeterminate(t) {
			continue
		}
		unjudged = unjudged || t.unjudged()
		next = append(next, t)
	}
	slices.SortStableFunc(next, func(a, b *slot) int { return cmp.Compare(s.canaryRank(a), s.canaryRank(b)) })
	for _, t := range next {
		if room <= 0 || unjudged && s.canaryRank(t) == worstRank {
			break // an unjudged target may turn out to be good
		}
		baseline := s.baselineOf(t)
		if !s.replaceOne(t) {
			continue
		}
		room--
		s.rollout.Soaked.Duration, s.rollout.SoakingSince = 0, zeroTime
		s.rollout.setBaseline(t.Name, baseline)
	}
	// Unready pods of an abandoned revision that do not try out the next one go back.
	for _, t := range next {
		if t.live() && s.onAbandonedRevision(t) && t.NodeReady && disruption(t) == 0 {
			s.delete(t, WhyRolledBack, 0)
		}
	}
}

const worstRank = 2

func (s *step) canaryRank(t *slot) int {
	switch {
	case s.onAbandonedRevision(t):
		return 0
	case t.good() && t.ready():
		return 1
	}
	return worstRank
}

// onAbandonedRevision reports whether the pod is of a revision that was being rolled out and no longer is.
func (s *step) onAbandonedRevision(t *slot) bool {
	return t.pod.Revision != s.Current && t.pod.Revision != s.Update
}

// baselineOf returns the baseline of a target; the zero value if it is well. A pod of an abandoned revision is no
// measure: but for what is external, its target counts as well.
func (s *step) baselineOf(t *slot) Baseline {
	if v := t.judgement.Verdict; s.onAbandonedRevision(t) {
		if external(v) {
			return Baseline{Verdict: v, BootID: t.BootID}
		}
		return Baseline{BootID: t.BootID}
	}
	b := Baseline{
		BootID: t.BootID, Lag: metav1.Duration{Duration: s.Lag[t.Name].Truncate(time.Second)},
		Restarts: t.pod.Restarts, Unready: !t.pod.Ready,
	}
	if v := t.judgement.Verdict; v != health.Healthy {
		b.Verdict = v
	}
	if b.Restarts > 0 {
		b.Age.Duration = t.pod.age(s.Now).Truncate(time.Second)
	}
	return b
}
