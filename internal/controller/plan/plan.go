// Package plan decides what the operator does next about one fleet: which pods it creates, deletes and restarts.
//
// It is one pure function, Next, over plain values. It must never touch the API server, the network or the clock, and never
// remember anything: whoever calls it gathers the inputs and carries out the actions, in their order.
//
// # The algorithm
//
// Let a target be able when its node is Ready and may take a new pod now. Only able targets count against budgets: what a lost,
// cordoned or tainted node does is not our doing, and nobody waits for it.
//
// Budgets, with D the number of targets, percentages rounded up and at least 1:
//
//	maxUnavailable  of D, bounds all unavailability that we cause
//	maxConcurrent   of D, bounds restarts inside it
//
//	down     = able targets whose pod is missing, terminating, or recorded to be deleted
//	unready  = able targets whose pod is there and not ready
//	ours     = those of them that were restarted, or whose pod was created less than Settle ago
//	inFlight = able targets with a restart in the ledger and no ready pod since
//
//	rollouts may take   maxUnavailable − down − unready                              ready pods
//	restarts may take   min(maxUnavailable − down − ours, maxConcurrent − inFlight)  pods
//
// A rollout stops for as long as pods are not ready, but for replacing those themselves. A restart does not stop for a pod that has been failing for
// long elsewhere: that is not our doing. What a restart takes, the rollout of the same step cannot take.
//
// Steps, in this order:
//
//  1. A pod that no target asks for is deleted.
//  2. A pod that has failed for good (evicted, rejected by its node) is deleted once its target's backoff is over.
//  3. An able target without a pod gets one.
//  4. A restart that is in the ledger and whose pod still lives is completed; it was counted when it was recorded.
//  5. Bad targets are restarted: Growing before Stuck, the longest first; each recorded before its pod is deleted. Not while
//     paused, on hold, or when only alerts are wanted; not in the target's cooldown (the first is free, each further restart
//     doubles it, up to an hour); not more than maxPerHour times an hour. A pod of an older revision is left to step 6.
//  6. Pods of an older revision are deleted, unless paused or on hold: all those that are not ready, which costs nothing, and those
//     on nodes that are not Ready; then ready ones as far as the budget goes, bad ones first, then by name. A pod whose node takes
//     no new one is left alone: nothing would come after it.
//
// A step that must wait for a time says so in Result.NextTime; one that waits for pods or nodes is woken by their events.
package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

const (
	// Settle is how long after its creation a pod that is not ready is put down to us though we did not restart it, and how long a recorded restart may take to
	// be completed. After that an unfinished restart is forgotten: the pod that it was about may be a healthy one by now.
	Settle = 10 * time.Minute
	// LedgerMemory is how long a restart counts: for the hourly cap, and, while Healthy, for the doubling of the cooldown.
	LedgerMemory = time.Hour
	// maxCooldown bounds the doubling.
	maxCooldown = time.Hour
	// stuckGrace replaces the pod's own grace period when it is Stuck: it would do nothing with more.
	stuckGrace = 5 * time.Second
)

// Target is what must have one parser.
type Target struct {
	Name string
	// Pod is the name that the target's pod has, or will have.
	Pod string
	// Able is true when the node is Ready and may take a new pod now.
	Able bool
	// NodeReady is false for a node that is lost: replacing its pod costs nothing.
	NodeReady bool
}

// Pod is a pod of the fleet.
type Pod struct {
	Name string
	UID  string
	// Target is what it was made for; only for pods that no target asks for any more.
	Target      string
	Revision    string
	Created     time.Time
	Ready       bool
	Terminating bool
	// Failed pods will not run again.
	Failed bool
}

// Limits are an object's bounds on what may be done.
type Limits struct {
	MaxUnavailable intstr.IntOrString
	MaxConcurrent  intstr.IntOrString
	Cooldown       time.Duration
	MaxPerHour     int
	// AlertOnly turns restarts into alerts.
	AlertOnly bool
	// Paused stops restarts and rollouts.
	Paused bool
	// Hold stops everything that would need a new pod: the spec cannot be carried out.
	Hold bool
}

// Input is all that the plan is made from.
type Input struct {
	Now      time.Time
	Revision string // that pods should have
	Targets  []Target
	Pods     []Pod
	// Judgements by target, of those that have a pod.
	Judgements map[string]growth.Judgement
	Ledger     Ledger
	// RetryAt is when a failed pod of a target may be replaced; absent: now.
	RetryAt map[string]time.Time
	Limits  Limits
}

// Kind is what is done.
type Kind string

const (
	// Create makes the target's pod.
	Create Kind = "Create"
	// Delete removes a pod.
	Delete Kind = "Delete"
	// Restart records a restart in the ledger, then deletes the pod.
	Restart Kind = "Restart"
)

// Why an action is done.
const (
	WhyMissing      = "Missing"    // the target has no pod
	WhyUnselected   = "Unselected" // no target asks for the pod
	WhyFailed       = "Failed"     // the pod will not run again
	WhyOutdated     = "Outdated"   // the pod is of an older revision
	WhyVerdict      = "Verdict"    // a restart may cure what is wrong
	WhyUnfinished   = "Unfinished" // the restart was recorded, and its pod still lives
	waitsForBudget  = "waiting for other parsers to become ready"
	waitsForAlert   = "growth.action is Alert: restart it by hand"
	waitsForPause   = "paused: no restart"
	waitsForChanges = "no restart while Stalled"
)

// Action is one thing to do.
type Action struct {
	Kind   Kind
	Why    string
	Target string
	Pod    string
	// UID of the pod to delete: another pod of that name is not meant.
	UID string
	// Grace replaces the pod's own grace period; 0 keeps it.
	Grace time.Duration
	// Record is what the ledger says of the target from now on; set for Restart.
	Record Record
}

// Result is what to do now, and when to look again.
type Result struct {
	Actions []Action
	// NextTime is when the plan must be made anew though nothing happens; zero: never.
	NextTime time.Time
	// Forget lists targets whose record has served its time.
	Forget []string
	// Waiting says, by target, why a restart that is due is not done.
	Waiting map[string]string
}

// Budget resolves a number or percentage of n: rounded up, and at least 1. A value that admission would refuse counts as 1.
func Budget(value intstr.IntOrString, n int) int {
	scaled, err := intstr.GetScaledValueFromIntOrPercent(&value, n, true)
	if err != nil {
		return 1
	}
	return max(scaled, 1)
}

// Next makes the plan. Equal inputs give equal results, whatever their order.
func Next(in Input) Result {
	s := newStep(in)
	s.deleteUnselected()
	s.deleteFailed()
	s.create()
	s.completeRestarts()
	s.restart()
	s.rollOut()
	s.forget()
	return s.result
}

// slot is a target with its pod.
type slot struct {
	Target
	pod       *Pod // nil when missing
	judgement growth.Judgement
	record    Record
	gone      bool // this step deletes the pod
}

func (t *slot) ready() bool { return t.pod != nil && t.pod.Ready && !t.pod.Terminating && !t.gone }

// down is true for a target whose pod is missing or on its way out.
func (t *slot) down() bool { return t.pod == nil || t.pod.Terminating }

// step is one making of the plan.
type step struct {
	Input
	slots      []*slot
	unselected []Pod
	restarts   int // that the budgets still allow
	rollouts   int // ready pods that a rollout may still take
	result     Result
}

func newStep(in Input) *step {
	s := &step{Input: in, result: Result{Waiting: map[string]string{}}}
	byPod := make(map[string]*slot, len(in.Targets))
	for _, t := range in.Targets {
		sl := &slot{Target: t, judgement: in.Judgements[t.Name], record: in.Ledger[t.Name]}
		s.slots = append(s.slots, sl)
		byPod[t.Pod] = sl
	}
	slices.SortFunc(s.slots, func(a, b *slot) int { return cmp.Compare(a.Name, b.Name) })
	for _, p := range in.Pods {
		if sl := byPod[p.Name]; sl != nil {
			sl.pod = &p
		} else {
			s.unselected = append(s.unselected, p)
		}
	}
	slices.SortFunc(s.unselected, func(a, b Pod) int { return cmp.Compare(a.Name, b.Name) })
	s.budget()
	return s
}

func (s *step) budget() {
	var down, unready, ours, inFlight int
	for _, t := range s.slots {
		if !t.Able {
			continue
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
			young := s.Now.Before(t.pod.Created.Add(Settle))
			if young {
				s.at(t.pod.Created.Add(Settle))
			}
			if young || restarted {
				ours++
			}
		}
	}
	limit := Budget(s.Limits.MaxUnavailable, len(s.slots))
	s.rollouts = limit - down - unready
	s.restarts = min(limit-down-ours, Budget(s.Limits.MaxConcurrent, len(s.slots))-inFlight)
}

// recent is true for a target that was restarted less than Settle ago.
func (s *step) recent(t *slot) bool {
	return len(t.record.Times) > 0 && s.Now.Before(t.record.last().Add(Settle))
}

// unfinished is true for a target whose restart is recorded and whose pod was not deleted.
func (s *step) unfinished(t *slot) bool {
	return s.recent(t) && t.pod != nil && !t.pod.Terminating && t.pod.UID == t.record.UID
}

func (s *step) deleteUnselected() {
	for _, p := range s.unselected {
		if !p.Terminating {
			s.act(Action{Kind: Delete, Why: WhyUnselected, Target: p.Target, Pod: p.Name, UID: p.UID})
		}
	}
}

func (s *step) deleteFailed() {
	for _, t := range s.slots {
		if t.pod == nil || !t.pod.Failed || t.pod.Terminating {
			continue
		}
		if at := s.RetryAt[t.Name]; s.Now.Before(at) {
			s.at(at)
			continue
		}
		s.delete(t, WhyFailed, 0)
	}
}

func (s *step) create() {
	if s.Limits.Hold {
		return
	}
	for _, t := range s.slots {
		if t.pod == nil && t.Able {
			s.act(Action{Kind: Create, Why: WhyMissing, Target: t.Name, Pod: t.Pod})
		}
	}
}

// mayRestart says why no target may be restarted at all; "" when they may.
func (s *step) mayRestart() string {
	switch {
	case s.Limits.AlertOnly:
		return waitsForAlert
	case s.Limits.Paused:
		return waitsForPause
	case s.Limits.Hold:
		return waitsForChanges
	}
	return ""
}

func (s *step) completeRestarts() {
	if s.mayRestart() != "" {
		return
	}
	for _, t := range s.slots {
		if s.unfinished(t) && !t.gone {
			s.delete(t, WhyUnfinished, grace(t.judgement))
		}
	}
}

func (s *step) restart() {
	var due []*slot
	for _, t := range s.slots {
		j := t.judgement
		if t.pod == nil || t.pod.Terminating || t.pod.Failed || t.gone || !t.Able || !j.Verdict.Restartable() || j.Fading {
			continue
		}
		if why := s.mayRestart(); why != "" {
			s.result.Waiting[t.Name] = why
			continue
		}
		if t.pod.Revision == s.Revision {
			due = append(due, t)
		}
	}
	slices.SortStableFunc(due, func(a, b *slot) int {
		return cmp.Or(
			cmp.Compare(urgency(a.judgement.Verdict), urgency(b.judgement.Verdict)),
			a.judgement.Since.Compare(b.judgement.Since),
		)
	})
	for _, t := range due {
		s.restartOne(t)
	}
}

// urgency of a restart: memory without a bound endangers the node beside the parser; a hang only waits.
func urgency(v growth.Verdict) int {
	if v == growth.Growing {
		return 0
	}
	return 1
}

func (s *step) restartOne(t *slot) {
	record := t.record.since(s.Now.Add(-LedgerMemory))
	if n := len(record.Times); n > 0 {
		if at := record.last().Add(cooldown(s.Limits.Cooldown, record.Doublings)); s.Now.Before(at) {
			s.wait(t, fmt.Sprintf("restarted %s, next not before %s", times(n), clock(at)), at)
			return
		}
		if i := n - s.Limits.MaxPerHour; i >= 0 {
			if at := record.Times[i].Add(LedgerMemory); s.Now.Before(at) {
				s.wait(t, fmt.Sprintf("restarted %s within the hour, no more before %s", times(n), clock(at)), at)
				return
			}
		}
	}
	if s.restarts <= 0 {
		s.result.Waiting[t.Name] = waitsForBudget
		return
	}
	s.restarts--
	s.rollouts--
	t.gone = true
	s.act(Action{
		Kind: Restart, Why: WhyVerdict, Target: t.Name, Pod: t.pod.Name, UID: t.pod.UID,
		Grace: grace(t.judgement), Record: record.restarted(t.pod.UID, s.Now),
	})
}

// grace for a pod that is judged so; 0 keeps its own.
func grace(j growth.Judgement) time.Duration {
	if j.Verdict == growth.Stuck && !j.Fading {
		return stuckGrace
	}
	return 0
}

func (s *step) rollOut() {
	if s.Limits.Paused || s.Limits.Hold {
		return
	}
	var costly []*slot
	for _, t := range s.slots {
		if t.pod == nil || t.pod.Terminating || t.gone || t.pod.Revision == s.Revision {
			continue
		}
		switch {
		case !t.NodeReady, t.Able && !t.pod.Ready:
			s.delete(t, WhyOutdated, grace(t.judgement))
		case t.Able:
			costly = append(costly, t)
		}
	}
	slices.SortStableFunc(costly, func(a, b *slot) int {
		return -cmp.Compare(badness(a.judgement), badness(b.judgement))
	})
	for _, t := range costly {
		if s.rollouts <= 0 {
			return
		}
		s.rollouts--
		s.delete(t, WhyOutdated, grace(t.judgement))
	}
}

func badness(j growth.Judgement) int {
	if j.Verdict.Bad() {
		return 1
	}
	return 0
}

// forget drops records that have no say any more: an hour old, and their target gone or Healthy for an hour.
func (s *step) forget() {
	bySlot := make(map[string]*slot, len(s.slots))
	for _, t := range s.slots {
		bySlot[t.Name] = t
	}
	for name, record := range s.Ledger {
		at := record.last().Add(LedgerMemory)
		if t := bySlot[name]; t != nil {
			if t.judgement.Verdict != growth.Healthy {
				continue
			}
			if healthy := t.judgement.Since.Add(LedgerMemory); healthy.After(at) {
				at = healthy
			}
		}
		if s.Now.Before(at) {
			s.at(at)
		} else {
			s.result.Forget = append(s.result.Forget, name)
		}
	}
	slices.Sort(s.result.Forget)
}

func (s *step) delete(t *slot, why string, grace time.Duration) {
	t.gone = true
	s.act(Action{Kind: Delete, Why: why, Target: t.Name, Pod: t.pod.Name, UID: t.pod.UID, Grace: grace})
}

func (s *step) act(a Action) { s.result.Actions = append(s.result.Actions, a) }

func (s *step) wait(t *slot, why string, until time.Time) {
	s.result.Waiting[t.Name] = why
	s.at(until)
}

// at asks for a new plan at t, if that is earlier than what was asked for so far.
func (s *step) at(t time.Time) {
	if s.result.NextTime.IsZero() || t.Before(s.result.NextTime) {
		s.result.NextTime = t
	}
}

// cooldown after the given number of doublings.
func cooldown(base time.Duration, doublings int) time.Duration {
	for range doublings {
		base *= 2
		if base >= maxCooldown {
			return maxCooldown
		}
	}
	return base
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") + " UTC" }
