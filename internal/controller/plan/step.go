package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

// slot is a target with its pod.
type slot struct {
	Target
	pod       *Pod // nil when missing
	judgement growth.Judgement
	record    Record
	elsewhere bool // a pod that was made for it on another node lives
	gone      bool // this step deletes the pod
}

// live is true for a target with a pod that is not on its way out.
func (t *slot) live() bool { return t.pod != nil && !t.pod.Terminating && !t.gone }

func (t *slot) ready() bool { return t.live() && t.pod.Ready }

// down is true for a target whose pod is missing or on its way out.
func (t *slot) down() bool { return t.pod == nil || t.pod.Terminating }

// lost is true for a target without a pod that can be asked: its node is lost, or takes none and has none.
func (t *slot) lost() bool { return !t.NodeReady || !t.Able && !t.live() }

// unknown is true for a target whose parser runs and was not judged yet.
func (t *slot) unknown() bool { return t.Able && t.ready() && t.unseen() }

// unseen is true for a target of which it is not known how it is, nor how it was until now: its parser, or the leader, is new.
func (t *slot) unseen() bool {
	return !t.live() || t.judgement.Verdict == growth.Unknown || t.judgement.Verdict == ""
}

// good is true for a target that is judged to be well.
func (t *slot) good() bool { return !t.unseen() && !t.judgement.Verdict.Bad() }

// proven is when a target that is good will have been so for long enough to say that its pod is well.
func (t *slot) proven() time.Time {
	since := t.judgement.Since
	return later(since, t.pod.Since()).Add(Proof)
}

// step is one making of the plan.
type step struct {
	Input
	second     time.Time // now, as it is written down
	slots      []*slot   // by name
	signs      map[string]*slot
	able       int // targets that percentages are of
	unselected []Pod
	phase      Phase
	roll       Rollout // becomes Result.Rollout
	trials     Trials  // becomes Result.Trials
	outage     outage
	restarts   int // that the budgets still allow
	rollouts   int // ready pods that a rollout may still take
	unjudged   int // targets of which it is not known yet whether they are well: they hold back what would be taken next
	// holders are the targets, by name, that have been without a ready pod for long and hold a rollout; kept is set
	// when there was something to hold. endlessPods are the pods that do not end, with their targets, and muted the
	// targets whose state cannot be known since they were given another revision; manyEndless and manyMuted are
	// set when they are many.
	holders     []string
	kept        bool
	endlessPods []string
	muted       []string
	manyEndless bool
	manyMuted   bool
	result      Result
}

func newStep(in Input) *step {
	s := &step{
		Input: in, second: in.Now.UTC().Truncate(time.Second),
		roll: in.Rollout.clone(), trials: in.Trials.clone(),
		result: Result{Waiting: map[string]string{}},
	}
	s.Update = cmp.Or(in.Update, in.Current)
	byPod := make(map[string]*slot, len(in.Targets))
	byName := make(map[string]*slot, len(in.Targets))
	for _, t := range in.Targets {
		sl := &slot{Target: t, judgement: in.Judgements[t.Name], record: in.Ledger[t.Name].credible(in.Now)}
		s.slots = append(s.slots, sl)
		if t.Able {
			s.able++
		}
		byPod[t.Pod], byName[t.Name] = sl, sl
	}
	slices.SortFunc(s.slots, func(a, b *slot) int { return cmp.Compare(a.Name, b.Name) })
	s.roll.spell(s.target)
	for _, p := range in.Pods {
		if sl := byPod[p.Name]; sl != nil {
			sl.pod = &p
			continue
		}
		s.unselected = append(s.unselected, p)
		if sl := byName[p.Target]; sl != nil && !p.NodeLost {
			sl.elsewhere = true
		}
	}
	slices.SortFunc(s.unselected, func(a, b Pod) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// target returns the slot of that name, or with that sign; nil when there is none.
func (s *step) target(name string) *slot {
	if strings.HasPrefix(name, signMark) {
		if s.signs == nil {
			s.signs = make(map[string]*slot, len(s.slots))
			for _, t := range s.slots {
				s.signs[sign(t.Name)] = t
			}
		}
		return s.signs[name]
	}
	i, ok := slices.BinarySearchFunc(s.slots, name, func(t *slot, name string) int { return cmp.Compare(t.Name, name) })
	if !ok {
		return nil
	}
	return s.slots[i]
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
		if !t.live() || !t.pod.Failed {
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
	if s.Limits.NoPods {
		return
	}
	for _, t := range s.slots {
		// Of a spec that was refused from the start nothing is stored.
		if revision := s.wanted(t); t.pod == nil && t.Able && !t.elsewhere && revision != "" {
			s.act(Action{Kind: Create, Why: WhyMissing, Target: t.Name, Pod: t.Pod, Revision: revision})
		}
	}
}

// forget drops records that have no say any more: an hour old, and their target gone or Healthy for an hour; and those
// of which nothing is credible.
func (s *step) forget() {
	for name, record := range s.Ledger {
		record = record.credible(s.Now)
		if len(record.Times) == 0 {
			s.result.Forget = append(s.result.Forget, name)
			continue
		}
		at := record.Last().Add(LedgerMemory)
		if t := s.target(name); t != nil {
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

func (s *step) finish() Result {
	s.result.Ineffective = append(s.result.Ineffective, s.retried()...)
	slices.Sort(s.result.Ineffective)
	s.result.Ineffective = slices.Compact(s.result.Ineffective)
	s.result.Phase = s.phase
	s.explain()
	if !s.trials.equal(s.Trials) {
		s.result.Trials = &s.trials
	}
	if !s.roll.equal(s.Rollout) && !s.roll.says(s.Rollout) {
		s.result.Rollout = &s.roll
	}
	return s.result
}

// explain says what nothing else does: for whom a rollout waits, and which pods do not end.
func (s *step) explain() {
	add := func(text string) {
		if s.result.Message != "" {
			text = s.result.Message + "; " + text
		}
		s.result.Message = text
	}
	if s.kept && len(s.holders) > 0 {
		add("the rollout waits for a ready parser of " + few(s.holders))
	}
	if s.kept && s.manyMuted {
		add("the rollout waits until it is known how the parsers of " + few(s.muted) + " are")
	}
	if len(s.endlessPods) > 0 {
		add("pods that do not end, for a finalizer or their kubelet: " + few(s.endlessPods))
	}
}

// few names the first three.
func few(names []string) string {
	const show = 3
	if len(names) <= show {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:show], ", "), len(names)-show)
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

// reached reports whether t has come, and asks for a new plan then if it has not.
func (s *step) reached(t time.Time) bool {
	if s.Now.Before(t) {
		s.at(t)
		return false
	}
	return true
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") + " UTC" }
