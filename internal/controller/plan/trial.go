package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

// Trials holds what restarts have achieved in a fleet. It must outlive a leader. The zero value is a fleet without
// restarts.
type Trials struct {
	// Spec is Input.Spec of these trials. They do not count under another spec.
	Spec string `json:"spec,omitempty"`
	// Causes holds the trial of each cause: a verdict, with its reason where that distinguishes causes.
	Causes map[string]Trial `json:"causes,omitempty"`
}

// Trial is what is known about restarts for one cause.
type Trial struct {
	// Target whose restart is the open trial; "" if there is none.
	Target string `json:"target,omitempty"`
	// At is when it was restarted, to the second.
	At time.Time `json:"at,omitzero"`
	// Failed lists the targets that a restart did not help, in order, once for each such restart.
	Failed []string `json:"failed,omitempty"`
	// Tried is when the last trial of a target ended, to the second: of those in Failed, and of those that were helped
	// recently.
	Tried map[string]time.Time `json:"tried,omitempty"`
	// Helped is when a restart was last observed to help, to the second.
	Helped time.Time `json:"helped,omitzero"`
}

// Encode returns the trials as text.
func (t Trials) Encode() (string, error) {
	data, err := json.Marshal(t)
	return string(data), err
}

const (
	// MaxTrials bounds the encoded trials in bytes.
	MaxTrials = 256 << 10
	// maxTried bounds the number of targets kept for a cause. Trials come one at a time, so it covers several hours.
	maxTried = 200
	// maxFailures bounds the entries of one target in Failed. Its backoff is the longest then.
	maxFailures = 6
)

// DecodeTrials decodes what Encode returned, in this version or an earlier one.
func DecodeTrials(text string) (Trials, error) {
	if len(text) > MaxTrials {
		return Trials{}, fmt.Errorf("decoding the trials of restarts: they have %d bytes", len(text))
	}
	var t Trials
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return Trials{}, fmt.Errorf("decoding the trials of restarts: %w", err)
	}
	return t, nil
}

func (t Trials) clone() Trials {
	t.Causes = maps.Clone(t.Causes)
	return t
}

func (t Trials) equal(other Trials) bool {
	return t.Spec == other.Spec && maps.EqualFunc(t.Causes, other.Causes, func(a, b Trial) bool {
		return a.Target == b.Target && a.At.Equal(b.At) && slices.Equal(a.Failed, b.Failed) && a.Helped.Equal(b.Helped) &&
			maps.EqualFunc(a.Tried, b.Tried, time.Time.Equal)
	})
}

// causeOf returns the cause for which a target with that judgement is restarted. The reason of a verdict other than
// Growing names a stream, and may alternate between streams.
func causeOf(j health.Judgement) string {
	if j.Verdict == health.Growing && j.Reason != "" {
		return string(j.Verdict) + "/" + j.Reason
	}
	return string(j.Verdict)
}

// validCause reports whether a restart can have that cause.
func validCause(name string) bool {
	verdict, _, _ := strings.Cut(name, "/")
	return len(name) <= maxCauseBytes && health.Verdict(verdict).Restartable()
}

// maxCauseBytes bounds the name of a cause, in bytes.
const maxCauseBytes = 64

// sanitized returns the trial without what cannot be true or no longer counts: targets that do not exist, future
// times, and outcomes of targets that have been Healthy for long, or of long ago.
func (s *step) sanitized(trial Trial) Trial {
	latest := s.Now.Add(clockSkew)
	if trial.At.After(latest) {
		trial.Target, trial.At = "", time.Time{}
	}
	if trial.Helped.After(latest) {
		trial.Helped = time.Time{}
	}
	everFailed := make(map[string]bool, len(trial.Failed))
	for _, name := range trial.Failed {
		everFailed[name] = true
	}
	tried := make(map[string]time.Time, len(trial.Tried))
	for name, at := range trial.Tried {
		if at.After(latest) {
			at = s.timestamp
		}
		counts := everFailed[name] || s.Now.Before(at.Add(TrialRetention))
		if t := s.target(name); t != nil && counts && s.outcomeCounts(t, at) {
			tried[name] = at
		}
	}
	oldest := func(a, b string) int { return cmp.Or(tried[a].Compare(tried[b]), cmp.Compare(a, b)) }
	for _, name := range slices.SortedFunc(maps.Keys(tried), oldest)[:max(len(tried)-maxTried, 0)] {
		delete(tried, name)
	}
	count := map[string]int{}
	failed := make([]string, 0, len(trial.Failed))
	for _, name := range trial.Failed {
		t := s.target(name)
		if _, ok := trial.Tried[name]; !ok && t != nil && len(tried) < maxTried && s.outcomeCounts(t, s.timestamp) {
			tried[name] = s.timestamp // a record of an earlier version, which had no times
		}
		if _, ok := tried[name]; ok && count[name] < maxFailures {
			count[name]++
			failed = append(failed, name)
		}
	}
	trial.Failed, trial.Tried = failed, tried
	return trial
}

// outcomeCounts reports whether the outcome of a trial that ended at that time still applies to the target.
func (s *step) outcomeCounts(t *slot, at time.Time) bool {
	j := t.judgement
	recovered := j.Verdict == health.Healthy && !s.Now.Before(j.Since.Add(LedgerRetention))
	return !recovered && s.Now.Before(at.Add(FailureRetention))
}

// judgeTrials closes the trials whose outcome is known. A change of the spec drops the outcomes so far.
func (s *step) judgeTrials() {
	changed := s.trials.Spec != s.Spec
	for _, name := range slices.Sorted(maps.Keys(s.trials.Causes)) {
		if !validCause(name) {
			s.setTrial(name, Trial{})
			continue
		}
		trial := s.sanitized(s.trials.Causes[name])
		if changed { // an open trial stays open
			trial.Failed, trial.Tried, trial.Helped = nil, nil, time.Time{}
		}
		if trial.Target != "" {
			switch s.outcomeOf(name, trial) {
			case trialHelped:
				trial.Helped = s.timestamp
				trial.Failed = slices.DeleteFunc(trial.Failed, func(t string) bool { return t == trial.Target })
				trial = trial.closed(s.timestamp)
			case trialFailed:
				if trial.failures(trial.Target) < maxFailures {
					trial.Failed = append(trial.Failed, trial.Target)
				}
				trial = trial.closed(s.timestamp)
			case trialVoid:
				trial.Target, trial.At = "", time.Time{}
			case trialOpen:
			}
		}
		if !trial.Helped.IsZero() && s.reached(trial.Helped.Add(LedgerRetention)) {
			trial.Helped = time.Time{}
		}
		s.setTrial(name, trial)
	}
}

// closed returns the trial with its open trial closed.
func (t Trial) closed(at time.Time) Trial {
	if t.Tried == nil {
		t.Tried = map[string]time.Time{}
	}
	t.Tried[t.Target] = at
	t.Target, t.At = "", time.Time{}
	return t
}

// setTrial stores the trial of a cause, or drops an empty one.
func (s *step) setTrial(cause string, trial Trial) {
	if trial.Target == "" && len(trial.Failed) == 0 && len(trial.Tried) == 0 && trial.Helped.IsZero() {
		delete(s.trials.Causes, cause)
		if len(s.trials.Causes) == 0 {
			s.trials = Trials{}
		}
		return
	}
	if s.trials.Causes == nil {
		s.trials.Causes = map[string]Trial{}
	}
	s.trials.Spec = s.Spec
	s.trials.Causes[cause] = trial
}

type trialOutcome int

const (
	trialOpen   trialOutcome = iota
	trialHelped              // the target is proven
	trialFailed              // it has the same again, or another fault of its own after Settle
	trialVoid                // it cannot be known: the node is lost, no pod came, the sink died, the parser is silent
)

func (s *step) outcomeOf(name string, trial Trial) trialOutcome {
	t := s.target(trial.Target)
	if t == nil || !t.Schedulable {
		return trialVoid
	}
	old := t.pod != nil && t.pod.UID == t.record.UID
	late := s.reached(trial.At.Add(Settle))
	switch {
	case late && (old || !t.live()):
		return trialVoid // it was never carried out, or no pod followed
	case old, !t.live():
		return trialOpen
	case t.good():
		if s.reached(t.provenAt()) {
			return trialHelped
		}
		return trialOpen
	case s.indeterminate(t):
		return trialVoid
	case s.outage.fleetWide, t.awaitsVerdict(), t.judgement.Fading:
		return trialOpen
	case causeOf(t.judgement) == name:
		return trialFailed
	case !late:
		return trialOpen
	case t.judgement.Verdict.Restartable(), t.judgement.Verdict == health.NotRunning, !t.pod.Ready:
		return trialFailed
	}
	return trialVoid
}

// failures returns how many restarts did not help the target.
func (t Trial) failures(target string) int {
	n := 0
	for _, name := range t.Failed {
		if name == target {
			n++
		}
	}
	return n
}

// failures returns how many restarts for its current cause did not help the target. Those with fewer are tried first.
func (s *step) failures(t *slot) int { return s.trials.Causes[causeOf(t.judgement)].failures(t.Name) }

// ineffective returns why a restart of the target for its current cause is known not to help, and until when that
// counts; "" if that is not known. It is known for a target that two restarts did not help, and for all targets when as
// many as the threshold, at least two, and half of those tried lately were not helped, and none was within the hour.
func (s *step) ineffective(t *slot) (until time.Time, why string) {
	trial := s.trials.Causes[causeOf(t.judgement)]
	if n := trial.failures(t.Name); n >= 2 {
		until = trial.Tried[t.Name].Add(doubled(FailureBackoff, n-2, maxFailureBackoff))
		why = fmt.Sprintf("restarts do not help: tried %s", times(n))
	}
	if last, failed, tried := s.recentTrials(trial); failed >= max(s.threshold(s.outage.counted), 2) &&
		2*failed >= tried && trial.Helped.IsZero() {
		if next := last.Add(FailureBackoff); next.After(until) {
			until = next
			why = fmt.Sprintf("restarts do not help: %d of the %d targets tried did not recover", failed, tried)
		}
	}
	if !s.Now.Before(until) {
		return time.Time{}, ""
	}
	return until, why
}

// recentTrials counts the targets that were tried for a cause within TrialRetention, and those that were not helped.
// last is when the last trial ended.
func (s *step) recentTrials(trial Trial) (last time.Time, failed, tried int) {
	for name, at := range trial.Tried {
		if !s.Now.Before(at.Add(TrialRetention)) {
			continue
		}
		tried++
		if slices.Contains(trial.Failed, name) {
			failed++
		}
		if at.After(last) {
			last = at
		}
	}
	return last, failed, tried
}

// blockedByTrial returns for which open trial a restart waits; "" if for none. While restarts are known to help, only
// targets with failed trials of their own wait.
func (s *step) blockedByTrial(t *slot) string {
	trial := s.trials.Causes[causeOf(t.judgement)]
	if trial.Target == "" || !trial.Helped.IsZero() && s.failures(t) == 0 {
		return ""
	}
	return fmt.Sprintf("waiting to see whether the restart of %s helps", trial.Target)
}

// beginTrial makes the restart of t a trial if none is open. While restarts are known to help, it does so only for a
// target that was not helped before, or was restarted recently.
func (s *step) beginTrial(t *slot) {
	name := causeOf(t.judgement)
	trial := s.trials.Causes[name]
	repeated := s.failures(t) > 0 || len(t.record.Times) > 0
	if trial.Target == "" && (trial.Helped.IsZero() || repeated) {
		trial.Target, trial.At = t.Name, s.timestamp
		s.setTrial(name, trial)
	}
}

// retried returns the targets that two restarts did not help and that are tried once more. They count as ineffective
// until they are helped.
func (s *step) retried() []string {
	var out []string
	for _, trial := range s.trials.Causes {
		if trial.Target != "" && trial.failures(trial.Target) >= 2 {
			out = append(out, trial.Target)
		}
	}
	return out
}
