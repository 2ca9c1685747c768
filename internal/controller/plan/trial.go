package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

// Trials is what must outlive a leader of what restarts were good for. The zero value is that of a fleet that never had one.
type Trials struct {
	// Spec is what Input.Spec was: what was learnt under another says nothing.
	Spec string `json:"spec,omitempty"`
	// Causes, by cause: a verdict, with its reason where that tells causes apart.
	Causes map[string]Trial `json:"causes,omitempty"`
}

// Trial is what is known of restarts for one cause.
type Trial struct {
	// Target whose restart is being watched; "" when none is.
	Target string `json:"target,omitempty"`
	// At is when it was restarted, to the second.
	At time.Time `json:"at,omitzero"`
	// Failed are the targets whose restart did not help, in order. One that failed twice stands there twice.
	Failed []string `json:"failed,omitempty"`
	// Tried is when the last trial of a target ended, to the second: of those in Failed, and of those that were helped
	// lately.
	Tried map[string]time.Time `json:"tried,omitempty"`
	// Helped is when a restart was last seen to help, to the second.
	Helped time.Time `json:"helped,omitzero"`
}

// Encode returns the trials as text.
func (t Trials) Encode() (string, error) {
	data, err := json.Marshal(t)
	return string(data), err
}

const (
	// MaxTrials bounds the trials in bytes, as they are read and written.
	MaxTrials = 256 << 10
	// maxTried bounds how many targets are remembered for a cause. Trials come one at a time: it is those of some hours.
	maxTried = 200
	// maxFailures is how often a target may stand in Failed: the pause is the longest then.
	maxFailures = 6
)

// DecodeTrials reads what Encode wrote, now or in an earlier version.
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

// cause of what a restart may cure. The reason of a verdict other than Growing names a stream: which one it is may alternate.
func cause(j growth.Judgement) string {
	if j.Verdict == growth.Growing && j.Reason != "" {
		return string(j.Verdict) + "/" + j.Reason
	}
	return string(j.Verdict)
}

// mayBeCause reports whether a restart can have that cause.
func mayBeCause(name string) bool {
	verdict, _, _ := strings.Cut(name, "/")
	return len(name) <= maxCause && growth.Verdict(verdict).Restartable()
}

// maxCause bounds the name of a cause, in bytes.
const maxCause = 64

// credible returns the trial without what cannot be so, or says nothing any more: targets that there are not, times to
// come, and what was learnt of a target that has been Healthy for long, or long ago.
func (s *step) credible(trial Trial) Trial {
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
			at = s.second
		}
		counts := everFailed[name] || s.Now.Before(at.Add(TriedMemory))
		if t := s.target(name); t != nil && counts && s.remembers(t, at) {
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
		if _, ok := trial.Tried[name]; !ok && t != nil && len(tried) < maxTried && s.remembers(t, s.second) {
			tried[name] = s.second // a record of an earlier version, which had no times
		}
		if _, ok := tried[name]; ok && count[name] < maxFailures {
			count[name]++
			failed = append(failed, name)
		}
	}
	trial.Failed, trial.Tried = failed, tried
	return trial
}

// remembers reports whether the outcome of a trial that ended then still says something of the target.
func (s *step) remembers(t *slot, at time.Time) bool {
	j := t.judgement
	recovered := j.Verdict == growth.Healthy && !s.Now.Before(j.Since.Add(LedgerMemory))
	return !recovered && s.Now.Before(at.Add(FailureMemory))
}

// judgeTrials closes the trials of which the outcome is known.
func (s *step) judgeTrials() {
	changed := s.trials.Spec != s.Spec
	for _, name := range slices.Sorted(maps.Keys(s.trials.Causes)) {
		if !mayBeCause(name) {
			s.setTrial(name, Trial{})
			continue
		}
		trial := s.credible(s.trials.Causes[name])
		if changed { // what is being watched still is
			trial.Failed, trial.Tried, trial.Helped = nil, nil, time.Time{}
		}
		if trial.Target != "" {
			switch s.outcome(name, trial) {
			case helped:
				trial.Helped = s.second
				trial.Failed = slices.DeleteFunc(trial.Failed, func(t string) bool { return t == trial.Target })
				trial = trial.ended(s.second)
			case failed:
				if trial.failures(trial.Target) < maxFailures {
					trial.Failed = append(trial.Failed, trial.Target)
				}
				trial = trial.ended(s.second)
			case void:
				trial.Target, trial.At = "", time.Time{}
			case open:
			}
		}
		if !trial.Helped.IsZero() && s.reached(trial.Helped.Add(LedgerMemory)) {
			trial.Helped = time.Time{}
		}
		s.setTrial(name, trial)
	}
}

// ended notes that the trial that was open has ended.
func (t Trial) ended(at time.Time) Trial {
	if t.Tried == nil {
		t.Tried = map[string]time.Time{}
	}
	t.Tried[t.Target] = at
	t.Target, t.At = "", time.Time{}
	return t
}

// setTrial keeps the trial of a cause, unless it says nothing.
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

type outcomeOfTrial int

const (
	open   outcomeOfTrial = iota
	helped                // the target has been well for long enough
	failed                // it has the same again, or is not well for other reasons that are its own
	void                  // it cannot be told, and will not be
)

func (s *step) outcome(name string, trial Trial) outcomeOfTrial {
	t := s.target(trial.Target)
	if t == nil || !t.Able {
		return void
	}
	old := t.pod != nil && t.pod.UID == t.record.UID
	late := s.reached(trial.At.Add(Settle))
	switch {
	case late && (old || !t.live()):
		return void // it was never carried out, or nothing came after it
	case old, !t.live():
		return open
	case t.good():
		if s.reached(t.proven()) {
			return helped
		}
		return open
	case s.mute(t):
		return void // it cannot be asked
	case s.outage.fleetWide, t.unknown(), t.judgement.Fading:
		return open
	case cause(t.judgement) == name:
		return failed
	case !late:
		return open
	case t.judgement.Verdict.Restartable(), t.judgement.Verdict == growth.NotRunning, !t.pod.Ready:
		return failed
	}
	return void
}

// failures is how often a target stands in Failed.
func (t Trial) failures(target string) int {
	n := 0
	for _, name := range t.Failed {
		if name == target {
			n++
		}
	}
	return n
}

// failures is how often a restart of the target for what it has did not help.
func (s *step) failures(t *slot) int { return s.trials.Causes[cause(t.judgement)].failures(t.Name) }

// ineffective says why a restart of the target for what it has is known not to help, and until when that counts; ""
// when it is not known.
func (s *step) ineffective(t *slot) (until time.Time, why string) {
	trial := s.trials.Causes[cause(t.judgement)]
	if n := trial.failures(t.Name); n >= 2 {
		until = trial.Tried[t.Name].Add(doubled(FailurePause, n-2, longestPause))
		why = fmt.Sprintf("restarts do not help: tried %s", times(n))
	}
	if last, failed, tried := s.triedOf(trial); failed >= max(s.share(s.outage.counted), 2) && 2*failed >= tried &&
		trial.Helped.IsZero() {
		if next := last.Add(FailurePause); next.After(until) {
			until = next
			why = fmt.Sprintf("restarts do not help: not %d of the %d targets that were tried", failed, tried)
		}
	}
	if !s.Now.Before(until) {
		return time.Time{}, ""
	}
	return until, why
}

// triedOf counts the targets that were tried for a cause within TriedMemory, and those of them that were not helped.
// last is when the last trial ended.
func (s *step) triedOf(trial Trial) (last time.Time, failed, tried int) {
	for name, at := range trial.Tried {
		if !s.Now.Before(at.Add(TriedMemory)) {
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

// waitsForTrial says for which trial a restart waits; "" when for none. While restarts are known to help, only those
// wait that are tried themselves.
func (s *step) waitsForTrial(t *slot) string {
	trial := s.trials.Causes[cause(t.judgement)]
	if trial.Target == "" || !trial.Helped.IsZero() && s.failures(t) == 0 {
		return ""
	}
	return fmt.Sprintf("waiting to see whether the restart of %s helps", trial.Target)
}

// try makes the restart of t a trial, unless it is known that restarts help: then that of a target which was not helped
// before, or was restarted lately, if no other is watched.
func (s *step) try(t *slot) {
	name := cause(t.judgement)
	trial := s.trials.Causes[name]
	again := s.failures(t) > 0 || len(t.record.Times) > 0
	if trial.Target == "" && (trial.Helped.IsZero() || again) {
		trial.Target, trial.At = t.Name, s.second
		s.setTrial(name, trial)
	}
}

// retried are the targets that were not helped twice and are tried once more. They are ineffective until they are
// helped.
func (s *step) retried() []string {
	var out []string
	for _, trial := range s.trials.Causes {
		if trial.Target != "" && trial.failures(trial.Target) >= 2 {
			out = append(out, trial.Target)
		}
	}
	return out
}
