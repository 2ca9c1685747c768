package plan_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// story carries out one plan after another where everything succeeds at once: a deleted pod is gone, and a created one
// is ready and Healthy.
type story struct {
	t    *testing.T
	in   plan.Input
	last plan.Result
}

func begin(t *testing.T, in plan.Input) *story { return &story{t: t, in: in} }

// does makes a plan, compares its actions with those that are wanted, and carries them out. State is encoded and
// decoded.
func (s *story) does(want ...string) *story {
	s.t.Helper()
	r := plan.Next(s.in)
	s.last = r
	got := make([]string, 0, len(r.Actions))
	for _, a := range r.Actions {
		text := fmt.Sprintf("%s %s: %s", a.Kind, a.Target, a.Why)
		if a.Kind == plan.Create {
			text = fmt.Sprintf("Create %s at %s", a.Target, a.Revision)
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		s.t.Fatalf("%s: does %v, not %v (%s %q, waiting %v)", s.in.Now.Format("15:04:05"), got, want, r.Phase, r.Message,
			r.Waiting)
	}
	s.keep(r)
	for _, a := range r.Actions {
		s.in.Pods = slices.DeleteFunc(slices.Clone(s.in.Pods), func(p plan.Pod) bool { return p.UID == a.UID })
		switch a.Kind {
		case plan.Restart:
			s.in.Ledger[a.Target] = a.Record
			delete(s.in.Judgements, a.Target)
		case plan.Delete:
			delete(s.in.Judgements, a.Target)
		case plan.Create:
			s.in.Pods = append(s.in.Pods, plan.Pod{
				Name: a.Pod, UID: a.Pod + s.in.Now.String(), Target: a.Target, Revision: a.Revision, RestartedAt: s.in.RestartedAt,
				Created: s.in.Now, Ready: true,
			})
			s.is(a.Target, health.Healthy)
		}
	}
	return s
}

func (s *story) keep(r plan.Result) {
	s.t.Helper()
	var err error
	if r.Rollout != nil {
		text, encodeErr := r.Rollout.Encode()
		if s.in.Rollout, err = plan.DecodeRollout(text); err != nil || encodeErr != nil {
			s.t.Fatal(err, encodeErr)
		}
	}
	if r.Trials != nil {
		text, encodeErr := r.Trials.Encode()
		if s.in.Trials, err = plan.DecodeTrials(text); err != nil || encodeErr != nil {
			s.t.Fatal(err, encodeErr)
		}
	}
	if r.Complete {
		s.in.Current, s.in.Rollout = s.in.Update, plan.Rollout{}
	}
	for _, name := range r.Forget {
		delete(s.in.Ledger, name)
	}
	s.in.FleetWide = r.FleetWide
}

// is gives a target a new verdict.
func (s *story) is(target string, v health.Verdict) *story {
	s.in.Judgements = maps.Clone(s.in.Judgements)
	s.in.Judgements[target] = health.Judgement{Verdict: v, Message: "as it is", Since: s.in.Now}
	return s
}

func (s *story) after(d time.Duration) *story { s.in.Now = s.in.Now.Add(d); return s }

// with changes the input.
func (s *story) with(change func(*plan.Input)) *story { change(&s.in); return s }

// pod changes a target's pod.
func (s *story) pod(target string, change func(*plan.Pod)) *story {
	s.in.Pods = slices.Clone(s.in.Pods)
	for i := range s.in.Pods {
		if s.in.Pods[i].Target == target {
			change(&s.in.Pods[i])
			return s
		}
	}
	s.t.Fatalf("%s has no pod", target)
	return s
}

// dies removes a target's pod.
func (s *story) dies(target string) *story {
	s.in.Pods = slices.DeleteFunc(slices.Clone(s.in.Pods), func(p plan.Pod) bool { return p.Target == target })
	delete(s.in.Judgements, target)
	return s
}

// leader starts another operator, which knows only what was persisted.
func (s *story) leader() *story {
	for _, t := range s.in.Targets {
		s.is(t.Name, health.Unknown)
	}
	return s
}

// judges gives all targets a verdict.
func (s *story) judges(v health.Verdict) *story {
	for _, t := range s.in.Targets {
		s.is(t.Name, v)
	}
	return s
}

func (s *story) waits(target, why string) *story {
	s.t.Helper()
	if got := s.last.Waiting[target]; got != why {
		s.t.Fatalf("%s waits for %q, not %q", target, got, why)
	}
	return s
}

func (s *story) phase(phase plan.Phase, message string) *story {
	s.t.Helper()
	if s.last.Phase != phase || s.last.Message != message {
		s.t.Fatalf("%s %q, not %s %q", s.last.Phase, s.last.Message, phase, message)
	}
	return s
}

func (s *story) rechecksIn(d time.Duration) {
	s.t.Helper()
	if got := s.last.RecheckAt.Sub(s.in.Now); got != d {
		s.t.Fatalf("rechecks in %s, not %s", got, d)
	}
}

func (s *story) neverRechecks() {
	s.t.Helper()
	if !s.last.RecheckAt.IsZero() {
		s.t.Fatalf("rechecks at %s", s.last.RecheckAt)
	}
}

func update(revision string) func(*plan.Input) {
	return func(in *plan.Input) { in.Update, in.Rollout, in.Promote = revision, plan.Rollout{}, false }
}

func spec(spec string) func(*plan.Input) { return func(in *plan.Input) { in.Spec = spec } }

func canary(in plan.Input, count int32, soak time.Duration) plan.Input {
	in.Limits.Canary = &plan.Canary{Count: intstr.FromInt32(count), Soak: soak}
	return in
}

func node(i int, schedulable, ready bool) func(*plan.Input) {
	return func(in *plan.Input) {
		in.Targets = slices.Clone(in.Targets)
		in.Targets[i].Schedulable, in.Targets[i].NodeReady = schedulable, ready
	}
}

func mentions(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not mention %q", text, part)
		}
	}
}
