package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

// slot is a target with its pod.
type slot struct {
	Target
	pod          *Pod // nil when missing
	judgement    health.Judgement
	record       Record
	podElsewhere bool // a pod that was created for it on another node lives
	deleting     bool // this step deletes the pod
}

// live reports whether the target has a pod that is not terminating.
func (t *slot) live() bool { return t.pod != nil && !t.pod.Terminating && !t.deleting }

func (t *slot) ready() bool { return t.live() && t.pod.Ready }

// down reports whether the target's pod is missing or terminating.
func (t *slot) down() bool { return t.pod == nil || t.pod.Terminating }

// lost reports whether the target has no pod that can be observed: its node is lost, or accepts no pod and has none.
func (t *slot) lost() bool { return !t.NodeReady || !t.Schedulable && !t.live() }

// awaitsVerdict reports whether the target's parser runs and has no verdict yet.
func (t *slot) awaitsVerdict() bool { return t.Schedulable && t.ready() && t.unjudged() }

// unjudged reports whether the state of the target is not known: its parser or the leader is new, or it has none.
func (t *slot) unjudged() bool {
	return !t.live() || t.judgement.Verdict == health.Unknown || t.judgement.Verdict == ""
}

// good reports whether the target is judged and not bad.
func (t *slot) good() bool { return !t.unjudged() && !t.judgement.Verdict.Bad() }

// provenAt returns when a good target will have been good for long enough to prove its pod.
func (t *slot) provenAt() time.Time {
	since := t.judgement.Since
	return later(since, t.pod.AgeStart()).Add(ProvenAfter)
}

// step makes one plan.
type step struct {
	Input
	timestamp       time.Time // now, as it is persisted
	slots           []*slot   // by name
	byHash          map[string]*slot
	schedulable     int   // targets that percentages are of
	untargeted      []Pod // pods that belong to no target
	phase           Phase
	rollout         Rollout // becomes Result.Rollout
	trials          Trials  // becomes Result.Trials
	outage          outage
	restartBudget   int // restarts that are still allowed
	rolloutBudget   int // ready pods that a rollout may still replace
	pendingVerdicts int // targets that await a verdict: they delay the selection of others
	// holders are the targets, by name, that have long been without a ready pod and hold a rollout. rolloutBlocked
	// reports whether there was something to hold. overduePods are the overdue pods, with their targets, and
	// indeterminates the targets that another revision may have made indeterminate. manyOverdue and manyIndeterminate
	// report whether they are many.
	holders           []string
	rolloutBlocked    bool
	overduePods       []string
	indeterminates    []string
	manyOverdue       bool
	manyIndeterminate bool
	result            Result
}

func newStep(in Input) *step {
	s := &step{
		Input: in, timestamp: in.Now.UTC().Truncate(time.Second),
		rollout: in.Rollout.clone(), trials: in.Trials.clone(),
		result: Result{Waiting: map[string]string{}, Held: map[string]Hold{}},
	}
	s.Update = cmp.Or(in.Update, in.Current)
	byPod := make(map[string]*slot, len(in.Targets))
	byName := make(map[string]*slot, len(in.Targets))
	for _, t := range in.Targets {
		sl := &slot{Target: t, judgement: in.Judgements[t.Name], record: in.Ledger[t.Name].sanitized(in.Now)}
		s.slots = append(s.slots, sl)
		if t.Schedulable {
			s.schedulable++
		}
		byPod[t.Pod], byName[t.Name] = sl, sl
	}
	slices.SortFunc(s.slots, func(a, b *slot) int { return cmp.Compare(a.Name, b.Name) })
	s.rollout.resolveHashes(s.target)
	for _, p := range in.Pods {
		if sl := byPod[p.Name]; sl != nil {
			sl.pod = &p
			continue
		}
		s.untargeted = append(s.untargeted, p)
		if sl := byName[p.Target]; sl != nil && !p.NodeLost {
			sl.podElsewhere = true
		}
	}
	slices.SortFunc(s.untargeted, func(a, b Pod) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// target returns the slot with that name or hash; nil if there is none.
func (s *step) target(name string) *slot {
	if strings.HasPrefix(name, hashPrefix) {
		if s.byHash == nil {
			s.byHash = make(map[string]*slot, len(s.slots))
			for _, t := range s.slots {
				s.byHash[hashOf(t.Name)] = t
			}
		}
		return s.byHash[name]
	}
	i, ok := slices.BinarySearchFunc(s.slots, name, func(t *slot, name string) int { return cmp.Compare(t.Name, name) })
	if !ok {
		return nil
	}
	return s.slots[i]
}

// deleteUntargeted deletes pods that belong to no target. Where a target moved, that is its pod on the old node.
func (s *step) deleteUntargeted() {
	for _, p := range s.untargeted {
		if !p.Terminating {
			s.act(Action{Kind: Delete, Why: WhyNoTarget, Target: p.Target, Pod: p.Name, UID: p.UID})
		}
	}
}

func (s *step) deleteFailed() {
	for _, t := range s.slots {
		if !t.live() || !t.pod.Failed {
			continue
		}
		if at := s.RetryAt[t.Name]; s.Now.Before(at) {
			s.recheckAt(at)
			continue
		}
		s.delete(t, WhyFailed, 0)
	}
}

// createMissing creates the pods that schedulable targets lack, also while the spec cannot be carried out. A target
// that moved gets one only when its old pod is gone, or lost with its node.
func (s *step) createMissing() {
	if s.Limits.NoPods {
		return
	}
	for _, t := range s.slots {
		// There is no revision when the first spec was refused.
		if revision := s.revisionFor(t); t.pod == nil && t.Schedulable && !t.podElsewhere && revision != "" {
			s.act(Action{Kind: Create, Why: WhyMissing, Target: t.Name, Pod: t.Pod, Revision: revision})
		}
	}
}

// forget drops records that are LedgerRetention old and whose target is gone or has been Healthy for as long, and
// records that cannot be true in any part.
func (s *step) forget() {
	for name, record := range s.Ledger {
		record = record.sanitized(s.Now)
		if len(record.Times) == 0 {
			s.result.Forget = append(s.result.Forget, name)
			continue
		}
		at := record.Last().Add(LedgerRetention)
		if t := s.target(name); t != nil {
			if t.judgement.Verdict != health.Healthy {
				continue
			}
			if healthy := t.judgement.Since.Add(LedgerRetention); healthy.After(at) {
				at = healthy
			}
		}
		if s.Now.Before(at) {
			s.recheckAt(at)
		} else {
			s.result.Forget = append(s.result.Forget, name)
		}
	}
	slices.Sort(s.result.Forget)
}

func (s *step) finish() Result {
	s.result.Ineffective = append(s.result.Ineffective, s.retried()...)
	slices.Sort(s.result.Ineffective)
	s.result.Ineffective = slices.Compact(s.result.Ineffective)
	slices.Sort(s.result.Capped)
	s.result.Phase = s.phase
	s.explain()
	if !s.trials.equal(s.Trials) {
		s.result.Trials = &s.trials
	}
	if !s.rollout.equal(s.Rollout) && !s.rollout.encodesAs(s.Rollout) {
		s.result.Rollout = &s.rollout
	}
	return s.result
}

// explain adds to the message what no other part reports: which targets hold a rollout, and which pods are overdue.
func (s *step) explain() {
	add := func(text string) {
		if s.result.Message != "" {
			text = s.result.Message + "; " + text
		}
		s.result.Message = text
	}
	if s.rolloutBlocked && len(s.holders) > 0 {
		add("the rollout is waiting for a ready parser of " + firstFew(s.holders))
	}
	if s.rolloutBlocked && s.manyIndeterminate {
		add("the rollout is waiting for verdicts on the parsers of " + firstFew(s.indeterminates))
	}
	if len(s.overduePods) > 0 {
		add("pods that do not terminate, because of a finalizer or their kubelet: " + firstFew(s.overduePods))
	}
}

// firstFew lists the first three names.
func firstFew(names []string) string {
	const show = 3
	if len(names) <= show {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:show], ", "), len(names)-show)
}

func (s *step) delete(t *slot, why string, grace time.Duration) {
	t.deleting = true
	s.act(Action{Kind: Delete, Why: why, Target: t.Name, Pod: t.pod.Name, UID: t.pod.UID, Grace: grace})
}

func (s *step) act(a Action) { s.result.Actions = append(s.result.Actions, a) }

// hold records why a restart of t waits.
func (s *step) hold(t *slot, as Hold, why string) {
	s.result.Waiting[t.Name], s.result.Held[t.Name] = why, as
}

// holdUntil is hold with the time at which the plan must be made again.
func (s *step) holdUntil(t *slot, as Hold, why string, until time.Time) {
	s.hold(t, as, why)
	s.recheckAt(until)
}

// recheckAt requests a new plan at t, unless an earlier one is requested already.
func (s *step) recheckAt(t time.Time) {
	if s.result.RecheckAt.IsZero() || t.Before(s.result.RecheckAt) {
		s.result.RecheckAt = t
	}
}

// reached reports whether t has come, and otherwise requests a new plan for then.
func (s *step) reached(t time.Time) bool {
	if s.Now.Before(t) {
		s.recheckAt(t)
		return false
	}
	return true
}

// nameOf returns the name of a revision as the status and kubectl show it.
func (s *step) nameOf(revision string) string {
	if s.Object == "" {
		return revision
	}
	return s.Object + "-" + revision
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") + " UTC" }
