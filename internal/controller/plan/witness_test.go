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

// evicted removes targets with everything that they had: their Hyperliquid node's pod was evicted, with its parser.
func evicted(in plan.Input, from, to int) plan.Input {
	for i := from; i < to; i++ {
		in = without(unschedulable(in, i), i)
		delete(in.Judgements, name(i))
	}
	return in
}

// cutOff puts targets on lost nodes: their pods exist, and their state cannot be observed.
func cutOff(in plan.Input, from, to int, v health.Verdict, since time.Duration) plan.Input {
	for i := from; i < to; i++ {
		in = lost(in, i)
		in.Judgements[name(i)] = health.Judgement{Verdict: v, Since: ago(since)}
	}
	return in
}

func percent(in plan.Input, text string) plan.Input {
	in.Limits.MaxUnavailable, in.Limits.MaxConcurrent = intstr.FromString(text), intstr.FromString(text)
	return in
}

// unreadyFor makes the i-th target observed without a ready pod for that long.
func unreadyFor(in plan.Input, i int, d time.Duration) plan.Input {
	in.Targets[i].UnreadySince = ago(d)
	return in
}

func endingFor(d time.Duration) func(*plan.Pod) {
	return func(p *plan.Pod) { p.Terminating, p.TerminatingSince = true, ago(d) }
}

func TestPercentagesAreOfSchedulableTargets(t *testing.T) {
	for name, test := range map[string]struct {
		in   plan.Input
		want int // ready pods that are deleted
	}{
		"all ten":                      {fleet(10), 3},
		"eight were evicted":           {evicted(fleet(10), 2, 10), 1},
		"eight are lost":               {cutOff(fleet(10), 2, 10, health.Unreachable, time.Hour), 1},
		"eight are lost without a pod": {cutOff(evicted(fleet(10), 2, 10), 2, 10, "", 0), 1},
		"five are cordoned":            {cordon(fleet(10), 5, 10), 2},
		"all are lost":                 {cutOff(fleet(10), 0, 10, health.Unreachable, time.Hour), 0},
		"none are there":               {fleet(0), 0},
	} {
		t.Run(name, func(t *testing.T) {
			in := outdated(percent(test.in, "25%"))
			if got := plan.Next(in).Actions; len(got) != test.want {
				t.Errorf("does %v, want %d", describe(got), test.want)
			}
			in.Update = "new"
			in.Limits.FleetWide = intstr.FromString("100%")
			for i := range in.Targets {
				if in.Targets[i].Schedulable {
					in.Judgements[in.Targets[i].Name] = health.Judgement{Verdict: health.Stuck, Since: ago(time.Minute)}
				}
			}
			in.Judgements["a"] = health.Judgement{Verdict: health.Healthy, Since: ago(time.Hour)} // so that not all are bad
			if got := plan.Next(known(in)).Actions; len(got) > test.want {
				t.Errorf("restarts %v, want %d at most", describe(got), test.want)
			}
		})
	}
}

func cordon(in plan.Input, from, to int) plan.Input {
	for i := from; i < to; i++ {
		in = unschedulable(in, i)
	}
	return in
}

func TestFleetWideFaultsAreOfObservableTargets(t *testing.T) {
	for name, test := range map[string]struct {
		in        plan.Input
		bad       int // of the first
		fleetWide bool
		restarts  bool
	}{
		"two of ten":                             {in: fleet(10), bad: 2, restarts: true},
		"two of the two left, eight evicted":     {in: evicted(fleet(10), 2, 10), bad: 2, fleetWide: true},
		"one of the two left, eight evicted":     {in: evicted(fleet(10), 2, 10), bad: 1, restarts: true},
		"two of two, and eight refused for long": {in: refusedFor(fleet(10), 2, 10, time.Hour), bad: 2, fleetWide: true},
		"two of two, and eight refused just now": {in: refusedFor(fleet(10), 2, 10, time.Minute), bad: 2, restarts: true},
		"two of two, and eight that have long been Unknown": {
			in: indeterminateFor(fleet(10), 2, 10, time.Hour), bad: 2, fleetWide: true,
		},
		"one of two, and eight that have long been Unknown": {
			in:  indeterminateFor(fleet(10), 2, 10, time.Hour),
			bad: 1, restarts: true,
		},
		"one of two, and eight that are Unknown yet": {in: indeterminateFor(fleet(10), 2, 10, time.Minute), bad: 1},
		"one of two, and eight lost just now": {
			in:  cutOff(fleet(10), 2, 10, health.Unreachable, time.Minute),
			bad: 1, fleetWide: true,
		},
		"one of two, and eight lost for long": {
			in:  cutOff(fleet(10), 2, 10, health.Unreachable, time.Hour),
			bad: 1, restarts: true,
		},
		"two of two, and eight lost for long": {
			in:  cutOff(fleet(10), 2, 10, health.Unreachable, time.Hour),
			bad: 2, fleetWide: true,
		},
		"two of two, and eight lost under a new leader": {
			in:  cutOff(fleet(10), 2, 10, health.Unknown, time.Second),
			bad: 2, fleetWide: true,
		},
		"two of ten, and eight cordoned that are well": {in: cordon(fleet(10), 2, 10), bad: 2, restarts: true},
		"no target": {in: fleet(0)},
	} {
		t.Run(name, func(t *testing.T) {
			in := percent(test.in, "100%")
			for i := range test.bad {
				in = judge(in, i, health.Stuck)
			}
			r := plan.Next(in)
			if r.FleetWide != test.fleetWide {
				t.Errorf("fleet-wide %v: %d of %d", r.FleetWide, r.Affected, r.Counted)
			}
			restarts := slices.ContainsFunc(r.Actions, func(a plan.Action) bool { return a.Kind == plan.Restart })
			if restarts != test.restarts {
				t.Errorf("does %v, waits for %v", describe(r.Actions), r.Waiting)
			}
		})
	}
}

// refusedFor removes the pods of targets: the API server refuses them.
func refusedFor(in plan.Input, from, to int, d time.Duration) plan.Input {
	for i := from; i < to; i++ {
		in = unreadyFor(without(in, i), i, d)
		delete(in.Judgements, name(i))
	}
	return in
}

// indeterminateFor makes targets Unknown whose parser runs.
func indeterminateFor(in plan.Input, from, to int, d time.Duration) plan.Input {
	for i := from; i < to; i++ {
		in.Judgements[name(i)] = health.Judgement{Verdict: health.Unknown, Reason: health.ReasonBacklogUnknown, Since: ago(d)}
	}
	return in
}

// What delays what, and for how long.
func TestWhatIsBeyondControlHoldsNoBudgetForever(t *testing.T) {
	takenDown := func(in plan.Input) plan.Input { in.Rollout.TakenDown = append(in.Rollout.TakenDown, "a"); return in }
	for name, test := range map[string]struct {
		in       func() plan.Input
		restart  bool // of c, which is Stuck
		rollout  bool // of c, when it is not
		request  bool // for a new pod of c, though a rollout would begin with a
		mentions string
	}{
		"nothing":                            {in: func() plan.Input { return fleet(7) }, restart: true, rollout: true},
		"a pod that is missing for a moment": {in: func() plan.Input { return refusedFor(fleet(7), 0, 1, time.Minute) }},
		"a pod that was refused for long": {
			in:      func() plan.Input { return refusedFor(fleet(7), 0, 1, time.Hour) },
			restart: true, rollout: true,
		},
		"a pod that terminates for a moment": {
			in: func() plan.Input { return edit(unreadyFor(fleet(7), 0, time.Minute), 0, endingFor(time.Minute)) },
		},
		"an overdue pod": {
			in:      func() plan.Input { return edit(unreadyFor(fleet(7), 0, time.Hour), 0, endingFor(time.Hour)) },
			restart: true, rollout: true,
			mentions: "pods that do not terminate, because of a finalizer or their kubelet: pod-a of a",
		},
		"an overdue pod that was restarted": {
			in: func() plan.Input {
				return restarted(edit(unreadyFor(fleet(7), 0, time.Hour), 0, endingFor(time.Hour)), 0, 0, time.Hour)
			},
			restart: true, rollout: true, mentions: "pod-a of a",
		},
		"two overdue pods": {
			in: func() plan.Input {
				in := edit(unreadyFor(fleet(7), 0, time.Hour), 0, endingFor(time.Hour))
				in.Limits.FleetWide = intstr.FromInt32(2)
				return edit(unreadyFor(in, 1, time.Hour), 1, endingFor(time.Hour))
			},
			restart: true, mentions: "pod-a of a, pod-b of b",
		},
		"a pod that is not ready for a moment": {in: func() plan.Input { return edit(fleet(7), 0, young) }},
		"a pod that has long not been ready": {
			in:      func() plan.Input { return edit(fleet(7), 0, unready) },
			restart: true, request: true,
		},
		"a node that rejects one pod after the other": {
			in:      func() plan.Input { return edit(unreadyFor(fleet(7), 0, time.Hour), 0, young) },
			restart: true, request: true,
		},
		"a pod that the plan took away, forever": {
			in:      func() plan.Input { return takenDown(refusedFor(fleet(7), 0, 1, 100*time.Hour)) },
			restart: true, mentions: "the rollout is waiting for a ready parser of a",
		},
		"a restart after which no pod came, for a day": {
			in: func() plan.Input { return restarted(refusedFor(fleet(7), 0, 1, 23*time.Hour), 0, 0, 23*time.Hour) },
		},
		"a restart after which no pod came, after a day": {
			in:      func() plan.Input { return restarted(refusedFor(fleet(7), 0, 1, 25*time.Hour), 0, 0, 25*time.Hour) },
			restart: true, rollout: true,
		},
		"one that is Unknown yet": {
			in:      func() plan.Input { return indeterminateFor(fleet(7), 0, 1, time.Minute) },
			restart: true, request: true,
		},
		"one that has long been Unknown": {
			in:      func() plan.Input { return indeterminateFor(fleet(7), 0, 1, time.Hour) },
			restart: true, rollout: true,
		},
		"a lost node without a pod": {
			in:      func() plan.Input { return lost(without(fleet(7), 0), 0) },
			restart: true, rollout: true,
		},
		"a lost node, terminating pod": {
			in:      func() plan.Input { return lost(edit(fleet(7), 0, terminating), 0) },
			restart: true, rollout: true,
		},
		"a cordoned node without a pod": {
			in:      func() plan.Input { return unschedulable(without(fleet(7), 0), 0) },
			restart: true, rollout: true,
		},
		"an evicted target": {
			in:      func() plan.Input { return evicted(fleet(7), 0, 1) },
			restart: true, rollout: true,
		},
		"an open trial": {
			in:      func() plan.Input { return trying(fleet(7), health.Unknown, time.Minute) },
			request: true,
		},
		"an open trial that is void": {
			in:      func() plan.Input { return trying(fleet(7), health.Unknown, time.Hour) },
			restart: true, rollout: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := test.in()
			// A restart that only the budget delays.
			got := plan.Next(judge(in, 2, health.Stuck))
			if restarts := slices.Contains(describe(got.Actions), "Restart c: Verdict (5s)"); restarts != test.restart {
				t.Errorf("restart: does %v, waits for %v", describe(got.Actions), got.Waiting)
			}
			// New pods for ready ones by request: c is first, since it is bad.
			in = judge(test.in(), 2, health.SinkDown)
			in.RestartedAt = "today"
			for i := range in.Pods {
				if !in.Pods[i].Ready || in.Pods[i].Terminating {
					in.Pods[i].RestartedAt = "today"
				}
			}
			got = plan.Next(in)
			replaced := slices.ContainsFunc(got.Actions,
				func(a plan.Action) bool { return a.Why == plan.WhyRestartRequested && a.Target == "c" })
			want := test.rollout || test.request
			if replaced != want {
				t.Errorf("request: does %v, %q", describe(got.Actions), got.Message)
			}
			mentions(t, got.Message, test.mentions)
			// A rollout of another revision to ready pods.
			in = judge(test.in(), 2, health.SinkDown)
			in.Update = "newer"
			got = plan.Next(in)
			replaced = slices.ContainsFunc(got.Actions,
				func(a plan.Action) bool { return a.Why == plan.WhyOutdated && a.Target == "c" })
			if replaced != test.rollout {
				t.Errorf("rollout: does %v, %q", describe(got.Actions), got.Message)
			}
		})
	}
}

// trying opens a trial of a.
func trying(in plan.Input, v health.Verdict, since time.Duration) plan.Input {
	in.Judgements["a"] = health.Judgement{Verdict: v, Since: ago(since)}
	in.Trials = plan.Trials{Causes: map[string]plan.Trial{"Stuck": {Target: "a", At: ago(since)}}}
	in.Ledger["a"] = plan.Record{UID: "uid-before", Times: []time.Time{ago(max(since, time.Hour))}}
	return in
}

func TestARolloutIsCompleteOnlyIfSomethingWorks(t *testing.T) {
	newer := func(in plan.Input, pods ...int) plan.Input {
		in.Update = "newer"
		for _, i := range pods {
			in.Pods[i].Revision = "newer"
		}
		return in
	}
	for name, test := range map[string]struct {
		in       plan.Input
		complete bool
	}{
		"all are updated":                {newer(fleet(3), 0, 1, 2), true},
		"no targets":                     {newer(fleet(0)), false},
		"no targets, on a first install": {firstInstall(fleet(0)), false},
		"all are lost, and updated": {cutOff(newer(fleet(3), 0, 1, 2), 0, 3, health.Unreachable, time.Hour),
			false},
		"all are cordoned, and one is updated": {cordon(newer(fleet(3), 0), 0, 3), false},
		"all are evicted":                      {evicted(newer(fleet(3)), 0, 3), false},
		"one is updated, the others are lost":  {cutOff(newer(fleet(3), 0), 1, 3, health.Unreachable, time.Hour), true},
		"none has become ready":                {edit(edit(newer(fleet(2), 0, 1), 0, unready), 1, unready), false},
		"one has, the other has long not":      {edit(newer(fleet(2), 0, 1), 1, unready), true},
		"one has, the other is starting":       {edit(newer(fleet(2), 0, 1), 1, young), false},
		"one has, the other was refused for long": {
			selected(refusedFor(newer(fleet(2), 0, 1), 1, 2, time.Hour), "a", "b"), true,
		},
		"one has, the other is refused": {selected(refusedFor(newer(fleet(2), 0, 1), 1, 2, time.Minute), "a", "b"), false},
		"one has, the other's old pod is overdue": {
			selected(edit(unreadyFor(newer(fleet(2), 0), 1, time.Hour), 1, endingFor(time.Hour)), "a", "b"), true,
		},
		"one has, and the other is not selected": {edit(unreadyFor(newer(fleet(2), 0), 1, time.Hour), 1,
			endingFor(time.Hour)), false},
	} {
		t.Run(name, func(t *testing.T) {
			if r := plan.Next(test.in); r.Complete != test.complete {
				t.Errorf("complete %v: %s %q, %v", r.Complete, r.Phase, r.Message, describe(r.Actions))
			}
		})
	}
}

func firstInstall(in plan.Input) plan.Input { in.Current = ""; return in }

func selected(in plan.Input, names ...string) plan.Input {
	in.Rollout = plan.Rollout{Started: ago(time.Hour), OutOfOrder: names}
	return in
}

func TestAMomentWithoutTargetsEndsNoCanaryAndNoRollout(t *testing.T) {
	blink := func(s *story) *story {
		var targets []plan.Target
		s.with(func(in *plan.Input) { targets, in.Targets, in.Pods = in.Targets, nil, nil })
		s.does().after(time.Minute).does()
		return s.with(func(in *plan.Input) { in.Targets = targets })
	}
	s := blink(soaking(t, 3).does().after(10*time.Minute)).does("Create a at newer", "Create b at new", "Create c at new")
	s.does().phase(plan.PhaseCanary, "soaking until 13:11:00 UTC") // unobserved time does not count
	s.after(time.Hour).does("Delete b: Outdated")

	// What failed stays failed.
	s = soaking(t, 3).is("a", health.Stuck).does("Delete a: RolledBack").does("Create a at new")
	blink(s).does("Create a at new", "Create b at new", "Create c at new")
	if s.last.Phase != plan.PhaseFailed {
		t.Errorf("%s %q", s.last.Phase, s.last.Message)
	}

	// Selected targets come back at their revision.
	s = begin(t, fleet(3)).with(update("newer")).does("Delete a: Outdated").does("Create a at newer").
		does("Delete b: Outdated").does("Create b at newer")
	blink(s).does("Create a at newer", "Create b at newer", "Create c at new")
	if s.in.Current != "new" {
		t.Errorf("current is %s", s.in.Current)
	}

	// What was taken down is not forgotten.
	s = begin(t, fleet(3)).with(func(in *plan.Input) { in.RestartedAt = "today" }).does("Delete a: RestartRequested").
		does("Create a at new").pod("a", unready).does()
	blink(s).does("Create a at new", "Create b at new", "Create c at new").pod("a", unready).after(100 * time.Hour)
	s.with(func(in *plan.Input) { in.RestartedAt = "tomorrow" }).does("Delete a: RestartRequested").
		does("Create a at new").pod("a", unready)
	s.after(100*time.Hour).does().phase(plan.PhaseSteady, "the rollout is waiting for a ready parser of a")

	// Canaries that are absent for a moment, while others are not, are canaries again when they are back.
	s = soaking(t, 3).does()
	a := s.in.Targets[0]
	s.with(func(in *plan.Input) { in.Targets = in.Targets[1:] }).dies("a").does()
	s.phase(plan.PhaseCanary, "the soak is paused: not a target at the moment: a")
	s.with(func(in *plan.Input) { in.AbsentSince = map[string]time.Time{"a": in.Now} }).after(9 * time.Minute).does().
		rechecksIn(time.Minute)
	s.after(time.Minute).does("Delete b: Outdated") // it may be gone for good
	s.with(func(in *plan.Input) { in.Targets = append([]plan.Target{a}, in.Targets...) }).
		does("Create a at newer", "Create b at newer")
}

// loses loses the node of a target with its parser. The last verdict is Unreachable.
func (s *story) loses(i int) *story {
	return s.with(node(i, false, false)).is(name(i), health.Unreachable).
		pod(name(i), func(p *plan.Pod) { p.Ready, p.ReadyChangedAt = false, s.in.Now })
}

func TestARevisionThatKillsNodesDoesNotGoFromNodeToNode(t *testing.T) {
	for name, test := range map[string]struct {
		lose  func(*story, int)
		phase plan.Phase // after Settle
	}{
		"lost": {func(s *story, i int) { s.loses(i) }, plan.PhaseFailed},
		"deleted": {func(s *story, i int) {
			gone := name(i)
			s.dies(gone).with(func(in *plan.Input) {
				in.AbsentSince = map[string]time.Time{gone: in.Now.Add(-plan.Settle)}
				in.Targets = slices.DeleteFunc(slices.Clone(in.Targets), func(t plan.Target) bool { return t.Name == gone })
			})
		}, plan.PhaseCanary},
		"evicted": {func(s *story, i int) { s.dies(name(i)).with(node(i, false, true)) }, plan.PhaseCanary},
		"Unknown": {func(s *story, i int) { s.is(name(i), health.Unknown).after(plan.Settle) }, plan.PhaseCanary},
		"overdue": {func(s *story, i int) {
			s.pod(name(i), func(p *plan.Pod) { p.Terminating, p.TerminatingSince = true, s.in.Now.Add(-plan.Settle) })
		}, plan.PhaseCanary},
	} {
		t.Run(name, func(t *testing.T) {
			s := soaking(t, 5).does()
			test.lose(s.after(time.Minute), 0)
			s.does("Delete b: Outdated").does("Create b at newer").does()
			test.lose(s.after(time.Minute), 1)
			for range 5 {
				r := plan.Next(s.in)
				if len(r.Actions) > 0 {
					t.Fatalf("does %v", describe(r.Actions))
				}
				s.keep(r)
				s.last = r
				s.after(plan.Settle)
			}
			if s.last.Phase != test.phase {
				t.Errorf("%s %q", s.last.Phase, s.last.Message)
			}
			mentions(t, s.last.Message, "a, b cannot be observed since they were given revision newer")
			s.with(func(in *plan.Input) { in.Promote = true })
			if name == "overdue" {
				s.does() // pods may be overdue elsewhere, too
				return
			}
			s.does("Delete c: Outdated") // a person overrides it
		})
	}

	// Where unselected targets are lost, too, that does not count against the revision, though no other is tried. Those
	// that are back are canaries.
	s := soaking(t, 5).does().loses(0).loses(2).does("Delete b: Outdated").does("Create b at newer").loses(1).loses(3)
	s.does().after(time.Hour).does()
	if s.last.Phase != plan.PhaseCanary {
		t.Errorf("%s %q", s.last.Phase, s.last.Message)
	}
	s.with(node(0, true, true)).pod("a", func(p *plan.Pod) { p.Ready = true }).is("a", health.Healthy).does()
	mentions(t, s.last.Message, "soaking until")
}

func TestARolloutStopsWhenNodesOfSelectedTargetsAreLost(t *testing.T) {
	s := begin(t, unavailable(fleet(9), 1)).with(update("newer"))
	s.does("Delete a: Outdated").does("Create a at newer").loses(0) // one shows nothing
	s.does("Delete b: Outdated").does("Create b at newer").loses(1)
	s.does()
	if s.last.Phase != plan.PhaseStopped {
		t.Errorf("%s %q", s.last.Phase, s.last.Message)
	}
	mentions(t, s.last.Message, "a, b cannot be observed since they were given revision newer")
	s.with(node(1, true, true)).is("b", health.Healthy).pod("b", func(p *plan.Pod) { p.Ready = true }).
		does("Delete c: Outdated")
}

func TestANodeThatRebootsRepeatedlyUnderACanaryFailsIt(t *testing.T) {
	s := begin(t, canary(fleet(2), 1, 3*time.Hour)).with(boots("0")).with(update("newer")).does("Delete a: Outdated").
		does("Create a at newer").does()
	for i := range 2 {
		s.after(time.Minute).with(boots(fmt.Sprint(i+1))).pod("a", restarts(i+1)).does()
	}
	s.with(boots("3")).pod("a", restarts(3)).does("Delete a: RolledBack")
	mentions(t, s.last.Message, "its node rebooted 3 times")
}

func TestPodsOnNodesThatAreCutOffAreLeftAlone(t *testing.T) {
	s := begin(t, unavailable(fleet(4), 1)).with(node(0, false, false)).with(node(1, false, false)).
		with(node(2, false, false))
	s.with(update("newer")).does("Delete d: Outdated").does("Create d at newer").does()
	// They are back, and are replaced one after another.
	s.with(node(0, true, true)).with(node(1, true, true)).with(node(2, true, true))
	s.does("Delete a: Outdated").does("Create a at newer").does("Delete b: Outdated").does("Create b at newer").
		does("Delete c: Outdated")

	// So is a canary.
	soaking(t, 3).is("a", health.Stuck).with(node(0, false, false)).does("Delete b: Outdated")
}

func TestARolloutContinuesBesideTargetsThatWereUnreadyBefore(t *testing.T) {
	s := begin(t, fleet(4)).pod("a", unready).is("a", health.NotRunning).with(update("newer"))
	s.does("Delete a: Outdated").does("Create a at newer").pod("a", unready).is("a", health.NotRunning)
	s.after(9 * time.Minute).does() // it may still become ready
	s.after(time.Minute).does("Delete b: Outdated").does("Create b at newer").leader().judges(health.Healthy).
		is("a", health.NotRunning)
	s.does("Delete c: Outdated").does("Create c at newer").does("Delete d: Outdated").does("Create d at newer").does().
		does()
	if s.in.Current != "newer" {
		t.Errorf("current is %s", s.in.Current)
	}
}

func TestARolloutWaitsForWhatItHasTakenDownAndReportsIt(t *testing.T) {
	s := begin(t, fleet(4)).with(update("newer")).does("Delete a: Outdated").does("Create a at newer").pod("a", unready)
	s.after(100*time.Hour).does().phase(plan.PhaseRolling, "the rollout is waiting for a ready parser of a")
	// Another bad revision takes no other target down, nor does the first when it becomes Update again.
	for _, revision := range []string{"newest", "new", "newer", "new"} {
		s.with(func(in *plan.Input) { in.Update, in.Rollout = revision, in.Rollout.CarriedOver() })
		s.does("Delete a: Outdated").does("Create a at "+revision).pod("a", unready).after(100 * time.Hour).does()
	}
	// Once it is ready, they follow.
	s.with(func(in *plan.Input) { in.Update, in.Rollout = "newest", in.Rollout.CarriedOver() })
	s.does("Delete a: Outdated").does("Create a at newest").does("Delete b: Outdated")
}

func TestTwoSpecsInARowDoNotWaitForWhatWasUnreadyBeforeBoth(t *testing.T) {
	s := begin(t, fleet(4)).pod("a", unready).with(update("newer")).does("Delete a: Outdated").does("Create a at newer").
		pod("a", unready)
	s.after(time.Minute).with(func(in *plan.Input) { in.Update, in.Rollout = "newest", in.Rollout.CarriedOver() })
	s.does("Delete a: Outdated").does("Create a at newest").pod("a", unready)
	s.after(plan.Settle).does("Delete b: Outdated")
}

func TestRequestedNewPodsWaitForThoseThatDoNotBecomeReady(t *testing.T) {
	s := begin(t, fleet(4)).pod("d", unready).with(func(in *plan.Input) { in.RestartedAt = "today" })
	s.does("Delete d: RestartRequested").does("Create d at new").pod("d", unready).after(plan.Settle)
	s.does("Delete a: RestartRequested").does("Create a at new").pod("a", unready) // it was ready before
	s.after(100*time.Hour).does().phase(plan.PhaseSteady, "the rollout is waiting for a ready parser of a")
	s.pod("a", func(p *plan.Pod) { p.Ready = true }).does("Delete b: RestartRequested")
}

func TestARefusedSpecLeavesNoPodMissing(t *testing.T) {
	hold := func(hold bool) func(*plan.Input) { return func(in *plan.Input) { in.Limits.Hold = hold } }
	s := begin(t, fleet(4)).with(update("newer")).does("Delete a: Outdated").does("Create a at newer")
	s.with(hold(true)).dies("a").dies("b").does("Create a at newer", "Create b at new").does()
	// Update is not known.
	s.with(update("")).dies("c").does("Create c at new").does()
	s.is("c", health.Stuck).does().waits("c", "no restart while Stalled")
	s.with(func(in *plan.Input) { in.Limits.NoPods = true }).dies("d").does()
}

func TestACanaryThatCannotBeStartedFailsWithinTwoMinutes(t *testing.T) {
	const why = "ImagePullBackOff: Back-off pulling image \"hlparser:none\""
	blocked := func(p *plan.Pod) { p.Ready, p.Blocked, p.BlockedSince = false, why, now }
	s := soaking(t, 3).pod("a", blocked).does().phase(plan.PhaseCanary, "the soak is paused: a is not ready").
		after(59 * time.Second).does()
	s.after(time.Second).does("Delete a: RolledBack")
	s.phase(plan.PhaseFailed, "a on revision newer: a container cannot start: "+why+"; before, on new: Healthy, lag 0s")

	// Restarts of each container count.
	soaking(t, 3).does().pod("a", func(p *plan.Pod) { p.Ready, p.Restarts = false, 2 }).does("Delete a: RolledBack")
	// One that could not start before either shows nothing about the revision.
	s = begin(t, canary(fleet(1), 1, time.Hour)).pod("a", blocked).with(update("newer")).does("Delete a: Outdated").
		does("Create a at newer")
	s.pod("a", blocked).after(plan.Settle).does()
	if s.last.Phase != plan.PhaseCanary {
		t.Errorf("%s %q", s.last.Phase, s.last.Message)
	}
	// A registry that fails for all does not count against the revision.
	s = soaking(t, 3).pod("a", blocked).does().is("b", health.NotRunning).is("c", health.NotRunning).after(time.Minute).
		does()
	mentions(t, s.last.Message, "the fault is fleet-wide")
}

func TestTheEffectOfAnAbandonedRevisionIsNoOutage(t *testing.T) {
	// Two of five still have a bad revision, from before the spec changed.
	s := begin(t, canary(unavailable(fleet(5), 3), 1, time.Hour)).with(update("newer")).
		with(func(in *plan.Input) { in.Promote = true })
	s.does("Delete a: Outdated", "Delete b: Outdated", "Delete c: Outdated")
	s.does("Create a at newer", "Create b at newer", "Create c at newer")
	s.is("a", health.Stuck).is("b", health.Stuck).is("c", health.Stuck).with(update("newest")).does("Delete a: Outdated").
		does("Create a at newest")
	s.is("a", health.Growing).does("Delete a: RolledBack", "Delete b: RolledBack", "Delete c: RolledBack")
}

func TestACanaryThatGetsNoPodFails(t *testing.T) {
	since := func(d time.Duration) func(*plan.Input) {
		return func(in *plan.Input) {
			in.Targets = slices.Clone(in.Targets)
			in.Targets[0].UnreadySince = in.Now.Add(-d)
		}
	}
	s := soaking(t, 3).dies("a").with(since(9 * time.Minute))
	if r := plan.Next(s.in); r.Phase != plan.PhaseCanary {
		t.Fatalf("%s %q", r.Phase, r.Message)
	}
	// Refused every time, or rejected by its node one after another.
	for name, change := range map[string]func(){
		"no pod": func() { s.dies("a") },
		"rejected": func() {
			s.in.Pods = append(s.in.Pods,
				plan.Pod{Name: "pod-a", UID: "x", Target: "a", Revision: "newer", Created: s.in.Now, Failed: true})
		},
	} {
		change()
		s.with(since(plan.Settle))
		if r := plan.Next(s.in); r.Phase != plan.PhaseFailed {
			t.Errorf("%s: %s %q", name, r.Phase, r.Message)
		}
	}
}

func TestTheStateOfALargeRolloutFitsIntoAnAnnotation(t *testing.T) {
	const n, most = 5000, 256 << 10
	for name, long := range map[string]func(int) string{
		"60 letters": func(i int) string {
			return fmt.Sprintf("ip-10-100-%03d-%03d.prod.ap-northeast-1.compute.example.internal", i/250, i%250)
		},
		"253 letters": func(i int) string { return fmt.Sprintf("%s%05d", strings.Repeat("abcdefghi.", 24)+"abcdefgh", i) },
	} {
		for kind, change := range map[string]func(*plan.Input){
			"the first is cordoned": func(in *plan.Input) { in.Targets[0].Schedulable = false },
			"every other is not ready": func(in *plan.Input) {
				in.Targets[0].Schedulable = false
				for i := range in.Pods {
					in.Pods[i].Ready = i%2 == 0
				}
			},
			"the largest canary": func(in *plan.Input) {
				in.Limits.Canary = &plan.Canary{Count: intstr.FromString("100%"), Soak: time.Hour}
				for i := range in.Pods {
					in.Pods[i].Restarts = 10
				}
			},
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				in := percent(fleet(0), "10%")
				in.Update = "newer"
				for i := range n {
					name := long(i)
					in.Targets = append(in.Targets,
						plan.Target{Name: name, Pod: "pod-" + name, Schedulable: true, NodeReady: true, BootID: "12345678"})
					in.Pods = append(in.Pods, plan.Pod{
						Name: "pod-" + name, UID: "uid-" + name, Target: name, Revision: "new", Created: ago(24 * time.Hour), Ready: true,
					})
					in.Judgements[name] = health.Judgement{Verdict: health.Healthy, Since: ago(23 * time.Hour)}
				}
				change(&in)
				rollTo(t, in, most)
			})
		}
	}
}

// rollTo carries out a rollout, and checks the size of its encoded state.
func rollTo(t *testing.T, in plan.Input, most int) {
	t.Helper()
	s := begin(t, in)
	longest := 0
	for range 200 {
		r := plan.Next(s.in)
		if r.Rollout != nil {
			text, err := r.Rollout.Encode()
			if err != nil {
				t.Fatal(err)
			}
			longest = max(longest, len(text))
		}
		s.keep(r)
		if r.Complete {
			break
		}
		gone := map[string]bool{}
		for _, a := range r.Actions {
			gone[a.UID] = a.Kind == plan.Delete
		}
		s.in.Pods = slices.DeleteFunc(slices.Clone(s.in.Pods), func(p plan.Pod) bool { return gone[p.UID] })
		for _, a := range r.Actions {
			if a.Kind == plan.Create {
				s.in.Pods = append(s.in.Pods, plan.Pod{
					Name: a.Pod, UID: a.Pod + s.in.Now.String(), Target: a.Target, Revision: a.Revision, Created: s.in.Now,
					Ready: true,
				})
				s.in.Judgements[a.Target] = health.Judgement{Verdict: health.Healthy, Since: s.in.Now}
			}
		}
		s.after(time.Minute)
	}
	if s.in.Current != "newer" {
		t.Fatalf("not complete: %s %q", s.last.Phase, s.last.Message)
	}
	if longest > most {
		t.Errorf("the encoded state has %d bytes, and may have %d", longest, most)
	}
	t.Logf("at most %d bytes", longest)
}

func TestHashesStandForNames(t *testing.T) {
	var r plan.Rollout
	r.Baselines = map[string]plan.Baseline{}
	for i := range 400 {
		name := fmt.Sprintf("%s-%04d", strings.Repeat("n", 60), i)
		r.OutOfOrder = append(r.OutOfOrder, name)
		r.Baselines[name] = plan.Baseline{Restarts: i}
	}
	text, err := r.Encode()
	if err != nil || strings.Contains(text, "nnn") {
		t.Fatalf("%.200s, %v", text, err)
	}
	back, err := plan.DecodeRollout(text)
	if err != nil || len(back.OutOfOrder) != 400 || len(back.Baselines) != 400 {
		t.Fatalf("%d, %d, %v", len(back.OutOfOrder), len(back.Baselines), err)
	}
	again, err := back.Encode()
	if err != nil || again != text {
		t.Errorf("encoded again it differs: %v", err)
	}
	if _, err := plan.DecodeRollout(`{"also":["` + strings.Repeat("x", plan.MaxRollout) + `"]}`); err == nil {
		t.Error("unbounded text is no error")
	}
}

func TestNoClockMakesAPodOlderThanObserved(t *testing.T) {
	observed := func(in plan.Input, i int, d, skew time.Duration) plan.Input {
		return edit(in, i, func(p *plan.Pod) {
			p.Ready, p.Created, p.ReadyChangedAt = false, ago(d+skew), ago(d+skew)
			p.FirstObserved = ago(d)
			in.Targets[i].UnreadySince = ago(d)
		})
	}
	for _, skew := range []time.Duration{-24 * time.Hour, -11 * time.Minute, -time.Minute, 0, time.Minute,
		11 * time.Minute, 24 * time.Hour} {
		// A new pod uses the budget until it has been observed for Settle, and not longer.
		for _, test := range []struct {
			observed time.Duration
			restarts bool
		}{{time.Minute, false}, {plan.Settle - time.Second, false}, {plan.Settle, true}} {
			got := plan.Next(observed(judge(fleet(3), 1, health.Stuck), 0, test.observed, skew))
			if restarts := len(got.Actions) > 0; restarts != test.restarts {
				t.Errorf("clocks %s apart, observed for %s: does %v", skew, test.observed, describe(got.Actions))
			}
		}
		// A canary fails when it has been observed for Settle, and not sooner.
		for _, age := range []time.Duration{time.Minute, plan.Settle - time.Second, plan.Settle} {
			s := soaking(t, 3)
			s.in = observed(s.in, slices.IndexFunc(s.in.Pods, func(p plan.Pod) bool { return p.Target == "a" }), age, skew)
			s.in.Targets[0].UnreadySince, s.in.Targets[2].UnreadySince = ago(age), time.Time{}
			if r := plan.Next(s.in); (r.Phase == plan.PhaseFailed) != (age >= plan.Settle) {
				t.Errorf("clocks %s apart, observed for %s: %s %q", skew, age, r.Phase, r.Message)
			}
		}
		// One that restarts as often as before is no worse, however old it is by either clock.
		s := begin(t, canary(fleet(2), 1, 9*time.Hour)).pod("a", func(p *plan.Pod) {
			p.Restarts, p.Created, p.FirstObserved = 24, ago(24*time.Hour+skew), ago(24*time.Hour)
		}).with(update("newer")).does("Delete a: Outdated").does("Create a at newer").after(2 * time.Hour)
		s.pod("a", func(p *plan.Pod) { p.Restarts, p.Created, p.FirstObserved = 2, now.Add(-skew), now })
		if r := plan.Next(s.in); r.Phase != plan.PhaseCanary {
			t.Errorf("clocks %s apart: %s %q", skew, r.Phase, r.Message)
		}
		// A restart that this process recorded is completed, regardless of the pod's age by the API server's clock.
		in := unfinished(judge(fleet(3), 1, health.Stuck), time.Minute)
		in.Pods[1].Created, in.Pods[1].FirstObserved = ago(5*time.Minute+skew), ago(5*time.Minute)
		if got := describe(plan.Next(in).Actions); !slices.Equal(got, []string{"Delete b: Unfinished (5s)"}) {
			t.Errorf("clocks %s apart: does %v", skew, got)
		}
	}
}

func TestAbsentReturnsSelectedTargetsThatAreGone(t *testing.T) {
	r := plan.Rollout{UpTo: "c", OutOfOrder: []string{"d", "e"}}
	if got := r.Absent([]string{"a", "d"}); !slices.Equal(got, []string{"e"}) {
		t.Errorf("by name: %v", got)
	}
	long := plan.Rollout{}
	targets := make([]string, 0, 400)
	for i := range 400 {
		name := fmt.Sprintf("%s-%04d", strings.Repeat("n", 60), i)
		long.OutOfOrder = append(long.OutOfOrder, name)
		targets = append(targets, name)
	}
	text, err := long.Encode()
	if err != nil {
		t.Fatal(err)
	}
	hashed, err := plan.DecodeRollout(text)
	if err != nil || len(hashed.Absent(targets)) != 0 || len(hashed.Absent(targets[1:])) != 1 {
		t.Errorf("by hash: %v, %v", hashed.Absent(targets[1:]), err)
	}
}
