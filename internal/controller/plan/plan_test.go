package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// limits returns the defaults of the schema, with a budget for one.
func limits() plan.Limits {
	return plan.Limits{
		MaxUnavailable: intstr.FromString("10%"), MaxConcurrent: intstr.FromString("10%"),
		Cooldown: 5 * time.Minute, MaxPerHour: 3,
	}
}

// fleet returns n schedulable targets a, b, c, …, each with a ready pod of revision new, a day old.
func fleet(n int) plan.Input {
	in := plan.Input{
		Now: now, Current: "new", Update: "new", Limits: limits(),
		Judgements: map[string]health.Judgement{}, Ledger: plan.Ledger{}, RetryAt: map[string]time.Time{},
	}
	for i := range n {
		name := name(i)
		in.Targets = append(in.Targets, plan.Target{Name: name, Pod: "pod-" + name, Schedulable: true, NodeReady: true})
		in.Pods = append(in.Pods, plan.Pod{
			Name: "pod-" + name, UID: "uid-" + name, Target: name, Revision: "new", Created: ago(24 * time.Hour), Ready: true,
		})
		in.Judgements[name] = health.Judgement{Verdict: health.Healthy, Since: ago(23 * time.Hour)}
	}
	return in
}

func name(i int) string { return string(rune('a' + i)) }

// edit changes the i-th pod.
func edit(in plan.Input, i int, change func(*plan.Pod)) plan.Input {
	change(&in.Pods[i])
	return in
}

func without(in plan.Input, pods ...int) plan.Input {
	in.Pods = slices.DeleteFunc(in.Pods, func(p plan.Pod) bool {
		return slices.ContainsFunc(pods, func(i int) bool { return p.Target == name(i) })
	})
	return in
}

func judge(in plan.Input, i int, v health.Verdict) plan.Input {
	in.Judgements[name(i)] = health.Judgement{Verdict: v, Since: ago(time.Minute)}
	return in
}

func outdated(in plan.Input) plan.Input {
	in.Update = "newer"
	return in
}

// describe formats actions, such as "Restart b: Verdict (5s)".
func describe(actions []plan.Action) []string {
	out := make([]string, 0, len(actions))
	for _, a := range actions {
		text := fmt.Sprintf("%s %s: %s", a.Kind, a.Target, a.Why)
		if a.Grace > 0 {
			text += fmt.Sprintf(" (%s)", a.Grace)
		}
		out = append(out, text)
	}
	return out
}

func TestNext(t *testing.T) {
	tests := map[string]struct {
		in      plan.Input
		actions []string
		next    time.Duration // from now; 0: never
		waiting map[string]string
		forget  []string
	}{
		"a fleet without deviations is left alone": {in: fleet(3)},
		"without targets and pods nothing is done": {in: fleet(0)},
		"every target without a pod gets one": {
			in:      without(fleet(3), 0, 2),
			actions: []string{"Create a: Missing", "Create c: Missing"},
		},
		"budgets do not delay a first install": {
			in:      without(fleet(4), 0, 1, 2, 3),
			actions: []string{"Create a: Missing", "Create b: Missing", "Create c: Missing", "Create d: Missing"},
		},
		"a target whose node accepts no pod waits for it": {
			in:      unschedulable(without(fleet(3), 0, 2), 0),
			actions: []string{"Create c: Missing"},
		},
		"a pod on a node that accepts no new one is kept": {in: unschedulable(fleet(3), 0)},
		"a pod on a lost node is kept":                    {in: lost(edit(fleet(3), 0, unready), 0)},
		"a pod without a target is deleted": {
			in:      untargeted(fleet(3)),
			actions: []string{"Delete c: NoTarget"},
		},
		"one that is terminating is left alone": {in: edit(untargeted(fleet(3)), 2, terminating)},
		"while the spec is refused a missing pod comes back": {
			in: hold(without(untargeted(fleet(3)), 0)), actions: []string{"Delete c: NoTarget", "Create a: Missing"},
		},
		"no pod is created of an untrusted template": {
			in:      noPods(without(untargeted(fleet(3)), 0)),
			actions: []string{"Delete c: NoTarget"},
		},
		"no pod is created of a spec that was never valid": {in: hold(neverRolledOut(without(fleet(3), 0, 1, 2)))},
		"paused, a missing pod still comes back": {
			in:      paused(without(fleet(3), 0)),
			actions: []string{"Create a: Missing"},
		},

		"a failed pod is replaced at once": {
			in:      edit(fleet(3), 1, failed),
			actions: []string{"Delete b: Failed"},
		},
		"a failed pod is left alone in backoff": {
			in:   retry(edit(fleet(3), 1, failed), 1, 40*time.Second),
			next: 40 * time.Second,
		},
		"a failed pod on a lost node goes too": {
			in:      lost(edit(fleet(3), 1, failed), 1),
			actions: []string{"Delete b: Failed"},
		},
		"a failed pod that is terminating is left alone": {in: edit(edit(fleet(3), 1, failed), 1, terminating)},
		"a pod that waits to run is not deleted":         {in: edit(judge(fleet(3), 1, health.NotRunning), 1, unready)},

		"the first Stuck parser is restarted, with a short grace": {
			in:      judge(fleet(3), 1, health.Stuck),
			actions: []string{"Restart b: Verdict (5s)"},
		},
		"a Growing parser keeps its grace period: it still works": {
			in:      judge(fleet(3), 1, health.Growing),
			actions: []string{"Restart b: Verdict"},
		},
		"an Unreachable parser is not restarted":                   {in: judge(fleet(3), 1, health.Unreachable)},
		"a parser that does not run is not restarted":              {in: judge(fleet(3), 1, health.NotRunning)},
		"a parser with a dead sink is not restarted":               {in: judge(fleet(3), 1, health.SinkDown)},
		"an Unknown parser is not restarted":                       {in: judge(fleet(3), 1, health.Unknown)},
		"a fading verdict restarts nothing":                        {in: fading(judge(fleet(3), 1, health.Stuck), 1)},
		"a Stuck parser on a node that accepts no new pod is kept": {in: unschedulable(judge(fleet(3), 1, health.Stuck), 1)},
		"Growing goes before Stuck, which waits until it is ready": {
			in:      judge(judge(fleet(7), 0, health.Stuck), 2, health.Growing),
			actions: []string{"Restart c: Verdict"},
			waiting: map[string]string{"a": "waiting for other parsers to become ready"},
		},
		"of two with the same verdict the older goes first": {
			in:      since(judge(judge(fleet(7), 0, health.Stuck), 2, health.Stuck), 2, time.Hour),
			actions: []string{"Restart c: Verdict (5s)"},
			waiting: map[string]string{"a": "waiting to see whether the restart of c helps"},
		},
		"of 20 targets two are restarted at once": {
			in:      known(judge(judge(judge(fleet(20), 0, health.Stuck), 1, health.Stuck), 2, health.Stuck)),
			actions: []string{"Restart a: Verdict (5s)", "Restart b: Verdict (5s)"},
			waiting: map[string]string{"c": "waiting for other parsers to become ready"}, next: 50 * time.Minute,
		},
		"maxConcurrent bounds restarts inside maxUnavailable": {
			in:      concurrent(unavailable(judge(judge(fleet(7), 0, health.Growing), 1, health.Stuck), 3), 1),
			actions: []string{"Restart a: Verdict"},
			waiting: map[string]string{"b": "waiting for other parsers to become ready"},
		},
		"one that was restarted hours ago and is not ready since counts against maxConcurrent": {
			in: concurrent(unavailable(edit(restarted(judge(judge(fleet(7), 0, health.NotRunning), 1, health.Stuck), 0, 0,
				2*time.Hour), 0, unready), 3), 1),
			waiting: map[string]string{"b": "waiting for other parsers to become ready"},
		},
		"a terminating pod uses the budget": {
			in:      edit(judge(fleet(3), 1, health.Stuck), 0, terminating),
			waiting: map[string]string{"b": "waiting for other parsers to become ready"},
		},
		"a missing pod uses the budget": {
			in:      without(judge(fleet(3), 1, health.Stuck), 0),
			actions: []string{"Create a: Missing"}, waiting: map[string]string{"b": "waiting for other parsers to become ready"},
		},
		"a starting pod uses the budget": {
			in:      edit(judge(fleet(3), 1, health.Stuck), 0, young),
			waiting: map[string]string{"b": "waiting for other parsers to become ready"}, next: 9 * time.Minute,
		},
		"a pod that has long not been ready uses none": {
			in:      edit(judge(fleet(3), 1, health.Stuck), 0, unready),
			actions: []string{"Restart b: Verdict (5s)"},
		},
		"a terminating pod on a lost node uses none": {
			in:      lost(edit(judge(fleet(3), 1, health.Stuck), 0, terminating), 0),
			actions: []string{"Restart b: Verdict (5s)"},
		},
		"a missing pod on a cordoned node uses none": {
			in:      unschedulable(without(judge(fleet(3), 1, health.Stuck), 0), 0),
			actions: []string{"Restart b: Verdict (5s)"},
		},
		"with action Alert nothing is restarted": {
			in:      alertOnly(judge(fleet(3), 1, health.Stuck)),
			waiting: map[string]string{"b": "growth.action is Alert: restart it by hand"},
		},
		"paused, nothing is restarted": {
			in:      paused(judge(fleet(3), 1, health.Stuck)),
			waiting: map[string]string{"b": "paused: no restart"},
		},
		"while the spec cannot be carried out none is restarted": {
			in:      hold(judge(fleet(3), 1, health.Stuck)),
			waiting: map[string]string{"b": "no restart while Stalled"},
		},

		"a second restart waits for the cooldown": {
			in:      restarted(judge(fleet(3), 1, health.Stuck), 1, 0, 4*time.Minute),
			waiting: map[string]string{"b": "restarted once, next not before 12:01:00 UTC"}, next: time.Minute,
		},
		"a second restart comes after the cooldown": {
			in:      restarted(judge(fleet(3), 1, health.Stuck), 1, 0, 5*time.Minute),
			actions: []string{"Restart b: Verdict (5s)"},
		},
		"the cooldown doubles": {
			in:      restarted(judge(fleet(3), 1, health.Stuck), 1, 1, 15*time.Minute, 5*time.Minute),
			waiting: map[string]string{"b": "restarted 2 times, next not before 12:05:00 UTC"}, next: 5 * time.Minute,
		},
		"the cooldown stops doubling at an hour": {
			in:      restarted(judge(fleet(3), 1, health.Stuck), 1, 9, 59*time.Minute),
			waiting: map[string]string{"b": "restarted once, next not before 12:01:00 UTC"}, next: time.Minute,
		},
		"the hourly cap holds": {
			in:      restarted(judge(fleet(3), 1, health.Stuck), 1, 1, 50*time.Minute, 40*time.Minute, 20*time.Minute),
			waiting: map[string]string{"b": "restarted 3 times within the hour, no more before 12:10:00 UTC"},
			next:    10 * time.Minute,
		},
		"one more than an hour ago does not count": {
			in:      restarted(judge(fleet(3), 1, health.Stuck), 1, 1, 61*time.Minute, 40*time.Minute, 20*time.Minute),
			actions: []string{"Restart b: Verdict (5s)"},
		},
		"each target has its own cooldown": {
			in:      restarted(judge(fleet(3), 1, health.Stuck), 0, 0, time.Minute),
			actions: []string{"Restart b: Verdict (5s)"}, next: 59 * time.Minute,
		},

		"a recorded restart whose pod lives is completed, not counted": {
			in: unfinished(judge(fleet(3), 1, health.Unknown), time.Minute), actions: []string{"Delete b: Unfinished"},
		},
		"a recorded restart of a Stuck pod is completed with the short grace": {
			in: unfinished(judge(fleet(3), 1, health.Stuck), time.Minute), actions: []string{"Delete b: Unfinished (5s)"},
		},
		"a recorded restart uses the budget until its new pod is ready": {
			in:      judge(judge(unfinished(fleet(7), time.Minute), 0, health.Stuck), 1, health.Unknown),
			actions: []string{"Delete b: Unfinished"},
			waiting: map[string]string{"a": "waiting for other parsers to become ready"},
		},
		"a recorded restart of a pod that is well is not completed": {in: unfinished(fleet(3), time.Minute),
			next: 59 * time.Minute},
		"a recorded restart of a pod whose sink is down is not completed": {in: unfinished(judge(fleet(3), 1,
			health.SinkDown), time.Minute)},
		"a recorded restart of a pod that is about to be well waits for that": {in: unfinished(fading(judge(fleet(3), 1,
			health.Stuck), 1), time.Minute)},
		"a recorded restart of a pod that did not exist yet is not completed": {
			in: unfinished(edit(judge(fleet(3), 1, health.Unknown), 1, func(p *plan.Pod) { p.Created = ago(time.Minute) }),
				5*time.Minute),
		},
		"a restart recorded for the future does not count": {in: unfinished(judge(fleet(3), 1, health.Unknown),
			-2*time.Minute),
			forget: []string{"b"}},
		"recorded restarts are completed within the budget": {
			in: unfinished(unfinishedOf(judge(judge(fleet(7), 1, health.Unknown), 2, health.Unknown), 2, time.Minute),
				time.Minute),
			actions: []string{"Delete b: Unfinished"},
			waiting: map[string]string{"c": "waiting for other parsers to become ready"},
		},
		"a restart that was recorded long ago is not completed": {
			in:   unfinished(fleet(3), 11*time.Minute),
			next: 49 * time.Minute,
		},
		"a recorded restart is not completed while paused": {
			in:   paused(unfinished(fleet(3), time.Minute)),
			next: 59 * time.Minute,
		},

		"a record is forgotten after an hour of health": {in: restarted(fleet(3), 1, 0, 2*time.Hour), forget: []string{"b"}},
		"a record is kept until the target has been Healthy for an hour": {
			in: since(restarted(fleet(3), 1, 0, 2*time.Hour), 1, 50*time.Minute), next: 10 * time.Minute,
		},
		"a record of a target that is bad is kept": {
			in: restarted(judge(fleet(3), 1, health.SinkDown), 1, 0, 2*time.Hour),
		},
		"a record of a target that is gone is forgotten": {
			in:     gone(restarted(fleet(3), 2, 0, 2*time.Hour)),
			forget: []string{"c"},
		},
		"a record of a target that is gone is kept for its hour": {
			in:   gone(restarted(fleet(3), 2, 0, 20*time.Minute)),
			next: 40 * time.Minute,
		},

		"a new revision replaces one of three": {
			in:      outdated(fleet(3)),
			actions: []string{"Delete a: Outdated"},
		},
		"a new revision replaces two of twenty": {
			in:      outdated(fleet(20)),
			actions: []string{"Delete a: Outdated", "Delete b: Outdated"},
		},
		"a new revision begins with bad targets": {
			in:      judge(outdated(fleet(3)), 2, health.SinkDown),
			actions: []string{"Delete c: Outdated"},
		},
		"a new revision replaces a Stuck one without a record": {
			in:      judge(outdated(fleet(3)), 2, health.Stuck),
			actions: []string{"Delete c: Outdated (5s)"},
		},
		"unready ones are replaced at once": {
			in:      edit(edit(outdated(fleet(4)), 2, unready), 3, unready),
			actions: []string{"Delete c: Outdated", "Delete d: Outdated"},
		},
		"the next waits for the one before": {
			in: edit(outdated(fleet(3)), 0, func(p *plan.Pod) { p.Revision, p.Ready = "newer", false }),
		},
		"the next waits for the one before to be created": {
			in:      without(outdated(fleet(3)), 0),
			actions: []string{"Create a: Missing"},
		},
		"a lost node does not block": {
			in:      lost(without(outdated(fleet(3)), 0), 0),
			actions: []string{"Delete b: Outdated"},
		},
		"a lost node's pod is left alone": {
			in:      lost(edit(outdated(fleet(3)), 0, unready), 0),
			actions: []string{"Delete b: Outdated"},
		},
		"a cordoned node's pod is not replaced": {
			in:      unschedulable(outdated(fleet(3)), 0),
			actions: []string{"Delete b: Outdated"},
		},
		"paused, nothing is replaced":                           {in: paused(outdated(fleet(3)))},
		"while the spec cannot be carried out none is replaced": {in: hold(outdated(fleet(3)))},
		"a restart uses the budget of the rollout": {
			in:      edit(judge(outdated(fleet(3)), 1, health.Stuck), 1, func(p *plan.Pod) { p.Revision = "newer" }),
			actions: []string{"Restart b: Verdict (5s)"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := plan.Next(test.in)
			if !slices.Equal(describe(got.Actions), test.actions) {
				t.Errorf("actions\n got %s\nwant %s", strings.Join(describe(got.Actions), ", "), strings.Join(test.actions, ", "))
			}
			var next time.Duration
			if !got.RecheckAt.IsZero() {
				next = got.RecheckAt.Sub(now)
			}
			if next != test.next {
				t.Errorf("next in %s, want %s", next, test.next)
			}
			if fmt.Sprint(got.Waiting) != fmt.Sprint(test.waiting) {
				t.Errorf("waiting\n got %v\nwant %v", got.Waiting, test.waiting)
			}
			var capped []string
			for name, why := range got.Waiting {
				if strings.Contains(why, "within the hour") {
					capped = append(capped, name)
				}
			}
			checkHeld(t, got)
			if !slices.Equal(got.Capped, capped) {
				t.Errorf("capped %v, want %v", got.Capped, capped)
			}
			if !slices.Equal(got.Forget, test.forget) {
				t.Errorf("forget %v, want %v", got.Forget, test.forget)
			}
		})
	}
}

// checkHeld checks that each target that waits has the word for what it waits for.
func checkHeld(t *testing.T, got plan.Result) {
	t.Helper()
	words := map[string]plan.Hold{
		"waiting for other parsers": plan.HeldBudget, "growth.action is Alert": plan.HeldAlert, "paused": plan.HeldPaused,
		"no restart while Stalled": plan.HeldStalled, "the fault is fleet-wide": plan.HeldFleetWide,
		"waiting for verdicts": plan.HeldUnjudged, "waiting to see": plan.HeldTrial,
		"restarts do not help": plan.HeldIneffective, ", next not before": plan.HeldCooldown,
		"within the hour": plan.HeldMaxPerHour,
	}
	if len(got.Held) != len(got.Waiting) {
		t.Errorf("held %v, waiting %v", got.Held, got.Waiting)
	}
	for name, why := range got.Waiting {
		for text, want := range words {
			if strings.Contains(why, text) && got.Held[name] != want {
				t.Errorf("%s is held by %q, and waits: %s", name, got.Held[name], why)
			}
		}
	}
}

func TestARestartIsRecordedWithItsPodAndItsDoubling(t *testing.T) {
	in := restarted(judge(fleet(3), 1, health.Stuck), 1, 0, 2*time.Hour, 20*time.Minute)
	in.Now = in.Now.Add(300 * time.Millisecond)
	got := plan.Next(in).Actions[0].Record
	want := plan.Record{UID: "uid-b", Times: []time.Time{ago(20 * time.Minute), now}, Doublings: 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	text, err := got.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if text != `{"uid":"uid-b","times":["2026-05-01T11:40:00Z","2026-05-01T12:00:00Z"],"doublings":1}` {
		t.Errorf("encoded as %s", text)
	}
	back, err := plan.DecodeRecord(text)
	if err != nil || fmt.Sprint(back) != fmt.Sprint(want) {
		t.Errorf("decoded as %v, %v", back, err)
	}
}

func TestAnInvalidRecordIsAnError(t *testing.T) {
	const at = `"2026-05-01T11:40:00Z"`
	for _, text := range []string{
		"", "{", `{"uid":"x"}`, `{"uid":"x","times":["yesterday"]}`, `[]`, `{"uid":"x","times":["99999-01-01T00:00:00Z"]}`,
		`{"uid":"` + strings.Repeat("x", 100) + `","times":[` + at + `]}`,
		`{"uid":"x","times":[` + at + strings.Repeat(","+at, 100) + `]}`,
		`{"uid":"x","times":[` + at + strings.Repeat(","+at, 10_000) + `]}`,
		`{"uid":"x","times":[` + at + `],"doublings":-1}`,
		`{"uid":"x","times":[` + at + `],"doublings":9000000000000000000}`,
		`{"uid":"x","times":[` + at + `],"more":"` + strings.Repeat("x", 5000) + `"}`,
	} {
		if r, err := plan.DecodeRecord(text); err == nil {
			t.Errorf("%q: got %v", text, r)
		}
	}
}

func TestBudget(t *testing.T) {
	for _, test := range []struct {
		value intstr.IntOrString
		n     int
		want  int
	}{
		{intstr.FromString("10%"), 0, 1},
		{intstr.FromString("10%"), 1, 1},
		{intstr.FromString("10%"), 10, 1},
		{intstr.FromString("10%"), 11, 2},
		{intstr.FromString("100%"), 7, 7},
		{intstr.FromString("1%"), 5000, 50},
		{intstr.FromInt32(3), 2, 3},
		{intstr.FromInt32(0), 5, 1},
		{intstr.FromString("ten"), 5, 1},
	} {
		if got := plan.Budget(test.value, test.n); got != test.want {
			t.Errorf("%s of %d: got %d, want %d", test.value.String(), test.n, got, test.want)
		}
	}
}

func unready(p *plan.Pod)     { p.Ready = false }
func terminating(p *plan.Pod) { p.Terminating = true }
func failed(p *plan.Pod)      { p.Ready, p.Failed = false, true }
func young(p *plan.Pod)       { p.Ready, p.Created = false, ago(time.Minute) }

func unschedulable(in plan.Input, i int) plan.Input { in.Targets[i].Schedulable = false; return in }
func lost(in plan.Input, i int) plan.Input {
	in.Targets[i].Schedulable, in.Targets[i].NodeReady = false, false
	return in
}
func untargeted(in plan.Input) plan.Input { in.Targets = in.Targets[:len(in.Targets)-1]; return in }
func gone(in plan.Input) plan.Input {
	in = untargeted(in)
	in.Pods = in.Pods[:len(in.Pods)-1]
	return in
}
func hold(in plan.Input) plan.Input           { in.Limits.Hold = true; return in }
func noPods(in plan.Input) plan.Input         { in.Limits.Hold, in.Limits.NoPods = true, true; return in }
func neverRolledOut(in plan.Input) plan.Input { in.Current, in.Update = "", ""; return in }
func paused(in plan.Input) plan.Input         { in.Limits.Paused = true; return in }
func alertOnly(in plan.Input) plan.Input      { in.Limits.AlertOnly = true; return in }
func retry(in plan.Input, i int, in2 time.Duration) plan.Input {
	in.RetryAt[name(i)] = now.Add(in2)
	return in
}
func unavailable(in plan.Input, n int32) plan.Input {
	in.Limits.MaxUnavailable = intstr.FromInt32(n)
	return in
}
func concurrent(in plan.Input, n int32) plan.Input {
	in.Limits.MaxConcurrent = intstr.FromInt32(n)
	return in
}

// known makes it known that restarts help targets that are Stuck.
func known(in plan.Input) plan.Input {
	in.Trials = plan.Trials{Causes: map[string]plan.Trial{"Stuck": {Helped: ago(10 * time.Minute)}}}
	return in
}
func fading(in plan.Input, i int) plan.Input {
	j := in.Judgements[name(i)]
	j.Fading = true
	in.Judgements[name(i)] = j
	return in
}
func since(in plan.Input, i int, d time.Duration) plan.Input {
	j := in.Judgements[name(i)]
	j.Since = ago(d)
	in.Judgements[name(i)] = j
	return in
}

// restarted records restarts of earlier pods of the i-th target.
func restarted(in plan.Input, i, doublings int, before ...time.Duration) plan.Input {
	r := plan.Record{UID: "uid-old", Doublings: doublings}
	for _, d := range before {
		r.Times = append(r.Times, ago(d))
	}
	in.Ledger[name(i)] = r
	return in
}

// unfinished records a restart of the pod of b, which lives.
func unfinished(in plan.Input, before time.Duration) plan.Input { return unfinishedOf(in, 1, before) }

func unfinishedOf(in plan.Input, i int, before time.Duration) plan.Input {
	in.Ledger[name(i)] = plan.Record{UID: "uid-" + name(i), Times: []time.Time{ago(before)}}
	return in
}
