package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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
	// Helped is when a restart was last seen to help, to the second.
	Helped time.Time `json:"helped,omitzero"`
}

// Encode returns the trials as text.
func (t Trials) Encode() (string, error) {
	data, err := json.Marshal(t)
	return string(data), err
}

// DecodeTrials reads what Encode wrote.
func DecodeTrials(text string) (Trials, error) {
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
		return a.Target == b.Target && a.At.Equal(b.At) && slices.Equal(a.Failed, b.Failed) && a.Helped.Equal(b.Helped)
	})
}

// cause of what a restart may cure. The reason of a verdict other than Growing names a stream: which one it is may alternate.
func cause(j growth.Judgement) string {
	if j.Verdict == growth.Growing && j.Reason != "" {
		return string(j.Verdict) + "/" + j.Reason
	}
	return string(j.Verdict)
}

// judgeTrials closes the trials of which the outcome is known.
func (s *step) judgeTrials() {
	changed := s.trials.Spec != s.Spec
	for _, name := range slices.Sorted(maps.Keys(s.trials.Causes)) {
		trial := s.trials.Causes[name]
		if changed { // what is being watched still is
			trial.Failed, trial.Helped = nil, time.Time{}
		}
		if trial.Target != "" {
			switch s.outcome(name, trial) {
			case helped:
				trial.Helped = s.second
				trial.Failed = slices.DeleteFunc(slices.Clone(trial.Failed), func(t string) bool { return t == trial.Target })
				trial.Target, trial.At = "", time.Time{}
			case failed:
				trial.Failed = append(slices.Clone(trial.Failed), trial.Target)
				trial.Target, trial.At = "", time.Time{}
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

// setTrial keeps the trial of a cause, unless it says nothing.
func (s *step) setTrial(cause string, trial Trial) {
	if trial.Target == "" && len(trial.Failed) == 0 && trial.Helped.IsZero() {
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

// failures is how often a restart of the target for what it has did not help.
func (s *step) failures(t *slot) int {
	n := 0
	for _, name := range s.trials.Causes[cause(t.judgement)].Failed {
		if name == t.Name {
			n++
		}
	}
	return n
}

// ineffective is true when restarts for what the target has are known not to help: it was tried twice here, or here and there.
func (s *step) ineffective(t *slot) bool {
	trial := s.trials.Causes[cause(t.judgement)]
	if s.failures(t) >= 2 {
		return true
	}
	return trial.Helped.IsZero() && len(trial.Failed) >= 2 &&
		slices.ContainsFunc(trial.Failed, func(name string) bool { return name != trial.Failed[0] })
}

// waitsForTrial says for which trial a restart waits; "" when for none.
func (s *step) waitsForTrial(t *slot) string {
	if trial := s.trials.Causes[cause(t.judgement)]; trial.Target != "" {
		return fmt.Sprintf("waiting to see whether the restart of %s helps", trial.Target)
	}
	return ""
}

// try makes the restart of t a trial, unless it is known that restarts help.
func (s *step) try(t *slot) {
	name := cause(t.judgement)
	trial := s.trials.Causes[name]
	if trial.Helped.IsZero() {
		trial.Target, trial.At = t.Name, s.second
		s.setTrial(name, trial)
	}
}
