package plan_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

func TestTheFirstRestartForACauseIsATrial(t *testing.T) {
	s := begin(t, fleet(9)).is("b", health.Stuck).is("c", health.Stuck)
	s.does("Restart b: Verdict").waits("c", "waiting to see whether the restart of b helps")
	s.does("Create b at new").waits("c", "waiting to see whether the restart of b helps")
	s.after(119*time.Second).does().waits("c", "waiting to see whether the restart of b helps").rechecksIn(time.Second)
	// It was Healthy for two minutes: the others follow, and one that turns bad later need not wait.
	s.after(time.Second).does("Restart c: Verdict")
	s.does("Create c at new")
	s.after(time.Minute).is("d", health.Stuck).does("Restart d: Verdict")
	s.does("Create d at new")
	// An hour later that no longer counts.
	s.after(time.Hour).judges(health.Healthy).is("e", health.Stuck).is("f", health.Stuck)
	s.does("Restart e: Verdict").waits("f", "waiting to see whether the restart of e helps")
}

func TestATrialHelpsWhenItsTargetCatchesUp(t *testing.T) {
	s := begin(t, fleet(9)).is("b", health.Stuck).is("c", health.Stuck)
	s.does("Restart b: Verdict").does("Create b at new")
	s.after(40*time.Second).is("b", health.CatchingUp).does()
	s.after(2 * time.Minute).does("Restart c: Verdict")
}

// at sets the time, from noon.
func (s *story) at(d time.Duration) *story { s.in.Now = now.Add(d); return s }

// fails makes the target Stuck again a minute after its restart.
func (s *story) fails(target string) *story {
	s.t.Helper()
	return s.does("Restart "+target+": Verdict").does("Create "+target+" at new").after(time.Minute).is(target,
		health.Stuck)
}

func TestATargetThatTwoRestartsDidNotHelpBacksOff(t *testing.T) {
	in := fleet(12)
	in.Limits.Cooldown = time.Minute
	s := begin(t, in).with(spec("1")).is("b", health.Stuck).fails("b").fails("b")
	for _, pause := range []time.Duration{time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 8 * time.Hour,
		8 * time.Hour} {
		s.does()
		if !slices.Equal(s.last.Ineffective, []string{"b"}) {
			t.Errorf("ineffective for %v", s.last.Ineffective)
		}
		s.leader().after(pause-time.Second).judges(health.Healthy).is("b", health.Stuck).does()
		s.after(time.Second).does("Restart b: Verdict")
		s.does("Create b at new")
		if !slices.Equal(s.last.Ineffective, []string{"b"}) {
			t.Errorf("ineffective for %v while b is tried once more", s.last.Ineffective)
		}
		s.after(time.Minute).is("b", health.Stuck)
	}
	// A change of the spec drops what is known.
	s.does().with(spec("2")).after(time.Hour).does("Restart b: Verdict")
}

func TestFailedTrialsOfATargetDoNotCountOnceItIsWell(t *testing.T) {
	in := fleet(12)
	in.Limits.Cooldown = time.Minute
	s := begin(t, in).is("b", health.Stuck).fails("b").fails("b").does()
	s.after(30*time.Minute).is("b", health.Healthy).does().after(time.Hour).does().is("b",
		health.Stuck).does("Restart b: Verdict")

	// A trial that helps ends it too.
	s = begin(t, in).is("b", health.Stuck).fails("b").fails("b").does()
	s.after(time.Hour).does("Restart b: Verdict").does("Create b at new")
	s.after(2 * time.Minute).does()
	if len(s.last.Ineffective) > 0 || len(s.in.Trials.Causes["Stuck"].Failed) > 0 {
		t.Errorf("ineffective for %v, failed for %v", s.last.Ineffective, s.in.Trials.Causes["Stuck"].Failed)
	}
}

// Two of twelve stay bad. A third that turns bad is restarted at once, and so are others once that helped.
func TestTargetsThatStayBadDelayNoOther(t *testing.T) {
	s := begin(t, fleet(12)).is("b", health.Stuck).is("c", health.Stuck)
	s.fails("b").fails("c").does() // the other is tried next: it shows more than the same again
	s.after(5 * time.Minute).fails("b").fails("c").does()
	s.is("d", health.Stuck).does("Restart d: Verdict").does("Create d at new")
	s.after(2*time.Minute).does().is("e", health.Stuck).does("Restart e: Verdict").does("Create e at new")
	if want := []string{"b", "c"}; !slices.Equal(s.last.Ineffective, want) {
		t.Errorf("ineffective for %v, not %v", s.last.Ineffective, want)
	}
	// Nor when b is tried once more.
	s.at(68*time.Minute).does("Restart b: Verdict").does("Create b at new").is("f",
		health.Stuck).does("Restart f: Verdict")
}

// When half of the targets tried were not helped, and they reach the threshold, one is tried each hour.
func TestAfterTooManyFailedTrialsACauseIsTriedOnceAnHour(t *testing.T) {
	s := begin(t, fleet(12)) // four reach the threshold
	for _, name := range []string{"b", "c", "d", "e"} {
		s.is(name, health.Stuck).fails(name).does().is(name, health.SinkDown).after(10 * time.Minute).does()
		s.is(name, health.CatchingUp) // well, and its failed trial still counts
	}
	s.is("f", health.Stuck).is("g", health.Stuck).does()
	s.waits("f", "restarts do not help: 4 of the 4 targets tried did not recover, next try not before 13:34:00 UTC")
	if want := []string{"f", "g"}; !slices.Equal(s.last.Ineffective, want) {
		t.Errorf("ineffective for %v, not %v", s.last.Ineffective, want)
	}
	// Not for another cause.
	s.is("h", health.Growing).does("Restart h: Verdict").does("Create h at new").is("g", health.Healthy)
	s.at(93*time.Minute + 59*time.Second).does()
	s.after(time.Second).does("Restart f: Verdict").does("Create f at new")
	s.after(2 * time.Minute).does() // it helped: restarts are known to help
	s.is("g", health.Stuck).does("Restart g: Verdict")
}

func TestTheShareOfFailedTrialsThatStopsRestarts(t *testing.T) {
	for _, test := range []struct {
		name                    string
		targets, failed, helped int
		ago                     time.Duration
		want                    bool
	}{
		{"one is no share", 2, 1, 0, time.Minute, false},
		{"two of a few", 5, 2, 0, time.Minute, true},
		{"two of a hundred", 100, 2, 0, time.Minute, false},
		{"29 of a hundred", 100, 29, 0, time.Minute, false},
		{"30 of a hundred", 100, 30, 0, time.Minute, true},
		{"30 of a hundred, and more that were helped", 100, 30, 31, time.Minute, false},
		{"30 of a hundred, and as many that were helped", 100, 30, 30, time.Minute, true},
		{"an hour ago", 100, 30, 0, time.Hour, false},
		{"nearly an hour ago", 100, 30, 0, time.Hour - time.Second, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := plan.Input{Now: now, Current: "new", Update: "new", Limits: limits(),
				Judgements: map[string]health.Judgement{}}
			trial := plan.Trial{Tried: map[string]time.Time{}}
			for i := range test.targets {
				name := fmt.Sprintf("t%03d", i)
				in.Targets = append(in.Targets, plan.Target{Name: name, Pod: name, Schedulable: true, NodeReady: true})
				in.Pods = append(in.Pods, plan.Pod{Name: name, UID: name, Target: name, Revision: "new",
					Created: ago(24 * time.Hour), Ready: true})
				in.Judgements[name] = health.Judgement{Verdict: health.Healthy, Since: ago(time.Minute)}
				if i < test.failed+test.helped {
					trial.Tried[name] = ago(test.ago)
				}
				if i < test.failed {
					trial.Failed = append(trial.Failed, name)
				}
			}
			last := in.Targets[test.targets-1].Name
			in.Judgements[last] = health.Judgement{Verdict: health.Stuck, Since: now}
			in.Trials = plan.Trials{Causes: map[string]plan.Trial{"Stuck": trial}}
			if got := len(plan.Next(in).Ineffective) > 0; got != test.want {
				t.Errorf("ineffective: %v", got)
			}
		})
	}
}

// Two of a hundred stay Stuck, and a third turns Stuck after hours, which a restart cures.
func TestTwoIncurableTargetsOfAHundred(t *testing.T) {
	in := plan.Input{
		Current: "r", Update: "r", Spec: "1", Ledger: plan.Ledger{}, Limits: limits(),
	}
	generation, restarts := map[string]int{}, map[string]int{}
	stuck := map[string]time.Time{"n001": now, "n002": now}
	for minute := range 24 * 60 {
		at := now.Add(time.Duration(minute) * time.Minute)
		if minute == 180 {
			stuck["n050"] = at
		}
		in.Now, in.Targets, in.Pods, in.Judgements = at, nil, nil, map[string]health.Judgement{}
		for i := range 100 {
			name := fmt.Sprintf("n%03d", i)
			in.Targets = append(in.Targets, plan.Target{Name: name, Pod: "p" + name, Schedulable: true, NodeReady: true})
			in.Pods = append(in.Pods, plan.Pod{Name: "p" + name, UID: fmt.Sprintf("u%s-%d", name, generation[name]),
				Target: name, Revision: "r", Created: ago(time.Hour), Ready: true})
			in.Judgements[name] = health.Judgement{Verdict: health.Healthy, Since: ago(time.Hour)}
			if since, ok := stuck[name]; ok {
				in.Judgements[name] = health.Judgement{Verdict: health.Stuck, Since: since}
			}
		}
		r := plan.Next(in)
		for _, a := range r.Actions {
			in.Ledger[a.Target] = a.Record
			generation[a.Target]++
			restarts[a.Target]++
			if a.Target == "n050" {
				delete(stuck, "n050")
			} else {
				stuck[a.Target] = at.Add(time.Minute)
			}
		}
		for _, n := range r.Forget {
			delete(in.Ledger, n)
		}
		if r.Trials != nil {
			in.Trials = *r.Trials
		}
		if minute == 180 && restarts["n050"] != 1 {
			t.Errorf("n050 is not restarted: %q", r.Waiting["n050"])
		}
		if minute > 60 && !slices.Equal(r.Ineffective, []string{"n001", "n002"}) {
			t.Fatalf("minute %d: ineffective for %v", minute, r.Ineffective)
		}
	}
	// Twice, and after 1, 2, 4 and 8 hours.
	for _, name := range []string{"n001", "n002"} {
		if n := restarts[name]; n < 5 || n > 7 {
			t.Errorf("%s was restarted %d times in a day", name, n)
		}
	}
	if restarts["n050"] != 1 {
		t.Errorf("n050 was restarted %d times", restarts["n050"])
	}
}

func TestATrialIsVoidWhenItsOutcomeCannotBeKnown(t *testing.T) {
	s := begin(t, fleet(9)).is("b", health.Stuck).is("c", health.Stuck)
	s.does("Restart b: Verdict").does("Create b at new")
	s.with(node(1, false, false)).does("Restart c: Verdict")

	// A sink that dies meanwhile shows nothing about the restart.
	s = begin(t, fleet(9)).is("b", health.Stuck).is("c", health.Stuck)
	s.does("Restart b: Verdict").does("Create b at new")
	s.after(time.Minute).is("b", health.SinkDown).does().waits("c", "waiting to see whether the restart of b helps")
	s.after(9 * time.Minute).does("Restart c: Verdict")
	if failed := s.in.Trials.Causes["Stuck"].Failed; len(failed) > 0 {
		t.Errorf("failed for %v", failed)
	}
}

func TestATrialIsNotJudgedInAnOutage(t *testing.T) {
	failed := func(s *story) int { return len(s.in.Trials.Causes["Stuck"].Failed) }
	s := begin(t, fleet(9)).is("b", health.Stuck).does("Restart b: Verdict").does("Create b at new")
	s.after(time.Minute).is("b", health.Stuck).is("c", health.Stuck).is("d", health.Stuck).does()
	if failed(s) != 0 {
		t.Error("a fleet-wide fault counts against the restart")
	}
	s.is("c", health.Healthy).is("d", health.Healthy).after(2 * time.Minute).does()
	if failed(s) != 1 {
		t.Error("the same fault after the outage does not count against the restart")
	}
}

func TestANewLeaderWaitsForTheTrialOfThePreviousOne(t *testing.T) {
	s := begin(t, fleet(9)).is("b", health.Stuck).is("c", health.Stuck)
	s.does("Restart b: Verdict").does("Create b at new")
	s.leader().after(time.Minute).judges(health.Healthy).is("c", health.Stuck).does().
		waits("c", "waiting to see whether the restart of b helps")
	s.after(2 * time.Minute).does("Restart c: Verdict")
}

func TestReasonsOfGrowingAreSeparateCauses(t *testing.T) {
	in := concurrent(unavailable(fleet(9), 2), 2)
	in.Judgements["b"] = health.Judgement{Verdict: health.Growing, Reason: "Unbounded", Since: now}
	in.Judgements["c"] = health.Judgement{Verdict: health.Growing, Reason: "ParserSlow", Since: now}
	begin(t, in).does("Restart b: Verdict", "Restart c: Verdict")
	in = concurrent(unavailable(fleet(9), 2), 2)
	in.Judgements["b"] = health.Judgement{Verdict: health.Stuck, Reason: "Fills", Since: now}
	in.Judgements["c"] = health.Judgement{Verdict: health.Stuck, Reason: "OrderStatuses", Since: now}
	begin(t, in).does("Restart b: Verdict").waits("c", "waiting to see whether the restart of b helps")
}

func TestEncodedTrialsAreShort(t *testing.T) {
	text, err := plan.Trials{Spec: "3",
		Causes: map[string]plan.Trial{"Stuck": {Target: "b", At: now, Failed: []string{"a"}}}}.Encode()
	if want := `{"spec":"3","causes":{"Stuck":{"target":"b","at":"2026-05-01T12:00:00Z","failed":["a"]}}}`; err != nil ||
		text != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
	if _, err := plan.DecodeTrials("{"); err == nil {
		t.Error("invalid text is no error")
	}
}

func TestALedgerOfAnEarlierVersionIsRead(t *testing.T) {
	r, err := plan.DecodeRecord(`{"uid":"x","times":["2026-05-01T11:40:00Z"],"doublings":1}`)
	if err != nil || r.UID != "x" || len(r.Times) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if trials, err := plan.DecodeTrials("{}"); err != nil || trials.Causes != nil {
		t.Errorf("%+v, %v", trials, err)
	}
	// Its trials had no times. The failed trials of b count from now on.
	s := begin(t, fleet(12)).with(spec("3")).is("b", health.Stuck)
	if s.in.Trials, err = plan.DecodeTrials(`{"spec":"3","causes":{"Stuck":{"failed":["b","b"]}}}`); err != nil {
		t.Fatal(err)
	}
	s.does().waits("b", "restarts do not help: tried 2 times, next try not before 13:00:00 UTC")
	s.after(59 * time.Minute).does().after(time.Minute).does("Restart b: Verdict")
}
