package plan_test

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// A user who may write ConfigMaps but not delete pods cannot make the operator delete a pod that is well, nor others
// beyond its budgets.
func TestAForgedLedgerDeletesNoPodThatIsWellAndNoMoreThanTheBudget(t *testing.T) {
	for name, test := range map[string]struct {
		forged  int
		verdict health.Verdict
		want    int // deletions in one step
	}{
		"5 of 20 that are well":                   {5, health.Healthy, 0},
		"20 of 20 that are well":                  {20, health.Healthy, 0},
		"5 of 20 that catch up":                   {5, health.CatchingUp, 0},
		"5 of 20, with no verdict yet":            {5, health.Unknown, 2},
		"20 of 20, with no verdict yet":           {20, health.Unknown, 0}, // all at once may be fleet-wide
		"5 of 20 whose sink is down":              {5, health.SinkDown, 0},
		"5 of 20 that hang":                       {5, health.Stuck, 2},
		"1 of 20, with no verdict yet":            {1, health.Unknown, 1},
		"3 of 20, one more than the budget, hang": {3, health.Stuck, 2},
		"2 of 20, as many as the budget, leak":    {2, health.Leaking, 2},
		"5 of 20 that do not answer":              {5, health.Unreachable, 0},
	} {
		t.Run(name, func(t *testing.T) {
			in := plan.Input{
				Now: now, Current: "new", Update: "new", Limits: limits(), Judgements: map[string]health.Judgement{},
				Ledger: plan.Ledger{},
			}
			for i := range 20 {
				name := fmt.Sprintf("n%02d", i)
				in.Targets = append(in.Targets, plan.Target{Name: name, Pod: "p" + name, Schedulable: true, NodeReady: true})
				in.Pods = append(in.Pods, plan.Pod{Name: "p" + name, UID: "u" + name, Target: name, Revision: "new",
					Created: ago(time.Hour), Ready: true})
				in.Judgements[name] = health.Judgement{Verdict: health.Healthy, Since: ago(time.Hour)}
				if i < test.forged {
					in.Judgements[name] = health.Judgement{Verdict: test.verdict, Since: ago(time.Minute)}
					in.Ledger[name] = plan.Record{UID: "u" + name, Times: []time.Time{now}}
				}
			}
			r := plan.Next(in)
			if len(r.Actions) != test.want {
				t.Errorf("%d deletions, want %d: %v", len(r.Actions), test.want, describe(r.Actions))
			}
		})
	}
}

// forgedFleet draws a fleet in any state, with a ledger and trials that need not be written by an operator.
func forgedFleet(t *rapid.T) plan.Input {
	verdicts := append([]health.Verdict{""}, health.Verdicts()...)
	at := rapid.OneOf(
		rapid.Map(rapid.IntRange(-8000, 8000), func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }),
		rapid.SampledFrom([]time.Time{{}, now, now.AddDate(7000, 0, 0), now.AddDate(-2000, 0, 0), time.Date(9999, 12, 31, 23,
			59, 59, 0, time.UTC)}),
	)
	in := plan.Input{
		Now: now, Current: "new", Update: rapid.SampledFrom([]string{"new", "newer"}).Draw(t, "update"), Spec: "1",
		Judgements: map[string]health.Judgement{}, Ledger: plan.Ledger{}, FleetWide: rapid.Bool().Draw(t, "fleet-wide"),
		Limits: plan.Limits{
			MaxUnavailable: intstr.FromInt32(int32(rapid.IntRange(1, 5).Draw(t, "unavailable"))),
			MaxConcurrent:  intstr.FromInt32(int32(rapid.IntRange(1, 5).Draw(t, "concurrent"))),
			Cooldown: time.Duration(rapid.IntRange(10, 3600).Draw(t,
				"cooldown")) * time.Second, MaxPerHour: rapid.IntRange(1, 20).Draw(t, "an hour"),
			FleetWide: intstr.FromString(rapid.SampledFrom([]string{"30%", "100%"}).Draw(t, "threshold")),
		},
	}
	n := rapid.IntRange(1, 30).Draw(t, "targets")
	for i := range n {
		name := fmt.Sprintf("n%02d", i)
		in.Targets = append(in.Targets, plan.Target{Name: name, Pod: "p" + name, Schedulable: rapid.IntRange(0, 9).Draw(t,
			"able") > 0, NodeReady: true})
		if rapid.IntRange(0, 9).Draw(t, "has a pod") > 0 {
			in.Pods = append(in.Pods, plan.Pod{
				Name: "p" + name, UID: "u" + name, Target: name, Revision: "new", Created: now.Add(-time.Duration(rapid.IntRange(0,
					7200).Draw(t, "age")) * time.Second),
				Ready: rapid.IntRange(0, 9).Draw(t, "ready") > 0, Terminating: rapid.IntRange(0, 9).Draw(t, "terminating") == 0,
			})
			in.Judgements[name] = health.Judgement{Verdict: rapid.SampledFrom(verdicts).Draw(t, "verdict"),
				Since: now.Add(-time.Minute)}
		}
	}
	names := rapid.Map(rapid.IntRange(0, n+3), func(i int) string { return fmt.Sprintf("n%02d", i) })
	for range rapid.IntRange(0, 40).Draw(t, "records") {
		name := names.Draw(t, "of")
		in.Ledger[name] = plan.Record{
			UID:       rapid.SampledFrom([]string{"u" + name, "", "another"}).Draw(t, "uid"),
			Times:     rapid.SliceOfN(at, 0, 100).Draw(t, "times"),
			Doublings: rapid.SampledFrom([]int{0, 1, 5, 1 << 62, -1}).Draw(t, "doublings"),
		}
		if rapid.Bool().Draw(t, "looks genuine") {
			in.Ledger[name] = plan.Record{UID: "u" + name, Times: []time.Time{now.Add(-time.Duration(rapid.IntRange(0,
				300).Draw(t, "s")) * time.Second)}}
		}
	}
	in.Trials.Spec, in.Trials.Causes = "1", map[string]plan.Trial{}
	for range rapid.IntRange(0, 5).Draw(t, "trials") {
		trial := plan.Trial{
			Target: rapid.OneOf(names, rapid.Just("")).Draw(t, "watched"), At: at.Draw(t, "at"), Helped: at.Draw(t, "helped"),
			Failed: rapid.SliceOfN(names, 0, 60).Draw(t, "failed"), Tried: rapid.MapOfN(names, at, 0, 30).Draw(t, "tried"),
		}
		in.Trials.Causes[rapid.SampledFrom([]string{"Stuck", "Leaking", "Growing/Unbounded", "SinkDown", "x", ""}).Draw(t,
			"cause")] = trial
	}
	return in
}

func TestNoLedgerTakesMoreThanTheBudgets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := forgedFleet(t)
		schedulable, ready, down := map[string]bool{}, map[string]bool{}, 0
		for _, target := range in.Targets {
			schedulable[target.Name] = target.Schedulable
		}
		for _, p := range in.Pods {
			ready[p.Target] = p.Ready && !p.Terminating
		}
		for _, target := range in.Targets {
			if target.Schedulable && !ready[target.Name] {
				down++
			}
		}
		r := plan.Next(in)
		restarts, disrupted := 0, 0
		for _, a := range r.Actions {
			restart := a.Kind == plan.Restart || a.Why == plan.WhyUnfinished
			if restart {
				restarts++
				j := in.Judgements[a.Target]
				if j.Verdict != "" && j.Verdict != health.Unknown && !j.Verdict.Restartable() {
					t.Fatalf("%s is restarted, and its verdict is %s", a.Target, j.Verdict)
				}
			}
			if a.Kind != plan.Create && schedulable[a.Target] && ready[a.Target] {
				disrupted++
			}
		}
		limit, concurrent := int(in.Limits.MaxUnavailable.IntVal), int(in.Limits.MaxConcurrent.IntVal)
		if restarts > min(limit, concurrent) || disrupted > limit {
			t.Fatalf("%d restarts and %d ready pods deleted, with budgets of %d and %d: %v", restarts, disrupted, concurrent,
				limit,
				describe(r.Actions))
		}
		if !r.RecheckAt.IsZero() && (!r.RecheckAt.After(now) || r.RecheckAt.After(now.Add(plan.FailureRetention))) {
			t.Fatalf("rechecks at %s", r.RecheckAt)
		}
		if r.Trials != nil {
			if _, err := r.Trials.Encode(); err != nil {
				t.Fatal(err)
			}
		}
		checkRecords(t, in, r)
	})
}

// checkRecords checks the records that would be written: they can be decoded, and have no future time.
func checkRecords(t *rapid.T, in plan.Input, r plan.Result) {
	for _, a := range r.Actions {
		if a.Kind != plan.Restart {
			continue
		}
		text, err := a.Record.Encode()
		if err != nil {
			t.Fatal(err)
		}
		record, err := plan.DecodeRecord(text)
		if err != nil {
			t.Fatalf("%s cannot be decoded: %v", text, err)
		}
		if len(record.Times) > in.Limits.MaxPerHour || record.Times[len(record.Times)-1].After(now) {
			t.Fatalf("%d restarts recorded of %s, the last at %s", len(record.Times), a.Target,
				record.Times[len(record.Times)-1])
		}
	}
}

// A forged ledger delays a restart no longer than a genuine one may.
func TestNoLedgerHoldsARestartBackForLong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := forgedFleet(t)
		in.Update = "new"
		in.Limits.FleetWide = intstr.FromString("100%")
		in.FleetWide = false
		pods := make([]plan.Pod, 0, len(in.Targets))
		for i, target := range in.Targets {
			in.Targets[i].Schedulable = true
			pods = append(pods, plan.Pod{Name: target.Pod, UID: "u" + target.Name, Target: target.Name, Revision: "new",
				Created: ago(2 * time.Hour), Ready: true})
			in.Judgements[target.Name] = health.Judgement{Verdict: health.Healthy, Since: ago(time.Minute)}
		}
		in.Pods = pods
		sick := in.Targets[0].Name
		in.Judgements[sick] = health.Judgement{Verdict: health.Stuck, Since: ago(time.Minute)}
		// A cooldown, an open trial, the hourly cap, the longest backoff. A new forgery may delay it again.
		const longest = 12 * time.Hour
		for at := now; at.Before(now.Add(longest)); at = at.Add(5 * time.Minute) {
			in.Now = at
			r := plan.Next(in)
			if r.Trials != nil {
				in.Trials = *r.Trials
			}
			for _, name := range r.Forget {
				delete(in.Ledger, name)
			}
			for _, a := range r.Actions {
				if a.Target == sick {
					return
				}
				t.Fatalf("%v", describe(r.Actions))
			}
		}
		t.Fatalf("%s waits for longer than %s: %v", sick, longest, plan.Next(in).Waiting[sick])
	})
}
