package plan_test

import (
	"slices"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

func TestARolloutReplacesOneAfterAnotherAndIsComplete(t *testing.T) {
	s := begin(t, fleet(3)).with(update("newer"))
	s.does("Delete a: Outdated").does("Create a at newer").does("Delete b: Outdated").does("Create b at newer").
		does("Delete c: Outdated").does("Create c at newer")
	s.does().phase(plan.PhaseRolling, "")
	s.does().phase(plan.PhaseSteady, "")
	if s.in.Current != "newer" || s.last.Rollout != nil {
		t.Errorf("current is %s, and the state to persist %+v", s.in.Current, s.last.Rollout)
	}
}

func TestEachPodThatIsGoneDuringARolloutComesBackAtItsRevision(t *testing.T) {
	s := begin(t, fleet(4)).with(update("newer"))
	s.does("Delete a: Outdated").does("Create a at newer").does("Delete b: Outdated")
	s.leader() // which knows only what was persisted
	s.dies("d").does("Create b at newer", "Create d at new")
	s.pod("b", young).dies("a").does("Create a at newer")
	s.dies("d").does("Create d at new")
}

func TestATargetWithoutAPodIsSelectedWhenNoOtherIsHolding(t *testing.T) {
	s := begin(t, fleet(3)).with(update("newer")).dies("b")
	s.does("Create b at newer").pod("b", young).dies("c").does("Create c at new")
}

func TestWhilePausedPodsComeBackAtTheirRevision(t *testing.T) {
	s := begin(t, fleet(3)).with(update("newer")).does("Delete a: Outdated").does("Create a at newer")
	s.with(func(in *plan.Input) { in.Limits.Paused = true }).dies("a").dies("b").
		does("Create a at newer", "Create b at new").does()
}

func TestARolloutWaitsForVerdictsOnSelectedTargets(t *testing.T) {
	s := begin(t, fleet(3)).with(update("newer")).does("Delete a: Outdated").does("Create a at newer")
	s.is("a", health.Unknown).does().is("a", health.CatchingUp).does("Delete b: Outdated")
}

func TestARolloutStopsWhileSelectedTargetsAreWorseThanBefore(t *testing.T) {
	s := begin(t, fleet(20)).is("c", health.Stuck).with(func(in *plan.Input) { in.Limits.AlertOnly = true }).
		with(update("newer"))
	s.does("Delete c: Outdated", "Delete a: Outdated").does("Create a at newer", "Create c at newer")
	// One was bad before and still is: that is not worse.
	s.is("c", health.Stuck).does("Delete b: Outdated", "Delete d: Outdated").does("Create b at newer", "Create d at newer")
	s.is("b", health.Growing).does().phase(plan.PhaseStopped, "b is Growing on revision newer: as it is")
	s.with(func(in *plan.Input) { in.Object = "mainnet" }).does().
		phase(plan.PhaseStopped, "b is Growing on revision mainnet-newer: as it is")
	s.with(func(in *plan.Input) { in.Object = "" }).dies("e").does("Create e at new")
	s.is("b", health.SinkDown).does("Delete e: Outdated", "Delete f: Outdated") // external
	s.does("Create e at newer", "Create f at newer").is("b", health.Growing).does().
		phase(plan.PhaseStopped, "b is Growing on revision newer: as it is")
	// Promotion overrides it. So does a change of the spec, since the comparison starts over.
	s.with(func(in *plan.Input) { in.Promote = true }).does("Delete g: Outdated", "Delete h: Outdated")
	s.does("Create g at newer", "Create h at newer").with(update("newest")).
		does("Delete b: Outdated", "Delete c: Outdated")
}

func TestAStreamThatFailsOnANewRevisionStopsTheRolloutThoughItsPodIsNotReady(t *testing.T) {
	failing := func(reason string) *story {
		s := begin(t, unavailable(fleet(6), 3)).with(update("newer")).
			does("Delete a: Outdated", "Delete b: Outdated", "Delete c: Outdated")
		s.does("Create a at newer", "Create b at newer", "Create c at newer")
		s.is("a", health.NotRunning).pod("a", unready)
		s.in.Judgements["a"] = health.Judgement{Verdict: health.NotRunning, Reason: reason, Message: "as it is",
			Since: s.in.Now}
		return s
	}
	failing(health.ReasonStreamFailed).does().phase(plan.PhaseStopped, "a is NotRunning on revision newer: as it is")
	failing("ContainerCreating").does("Delete d: Outdated", "Delete e: Outdated") // it is only starting
}

func TestARolloutContinuesWhereTheOldRevisionIsAsBad(t *testing.T) {
	s := begin(t, fleet(4)).with(update("newer")).does("Delete a: Outdated").does("Create a at newer").
		does("Delete b: Outdated").does("Create b at newer")
	s.is("a", health.Overloaded).does().phase(plan.PhaseStopped, "a is Overloaded on revision newer: as it is")
	s.is("c", health.Overloaded).does("Delete c: Outdated") // the sink is slow for all
}

func TestLostAndCordonedNodesNeitherDelayNorStopARollout(t *testing.T) {
	s := begin(t, fleet(4)).with(node(0, false, false)).is("a", health.Unreachable).with(node(1, false, true)).
		with(update("newer"))
	s.does("Delete c: Outdated").does("Create c at newer").does("Delete d: Outdated").does("Create d at newer").does()
	if s.in.Current != "newer" {
		t.Errorf("current is %s", s.in.Current)
	}
	s.with(node(0, true, true)).with(node(1, true, true)).does("Delete a: Outdated").does("Create a at newer").
		does("Delete b: Outdated")
}

func TestARolloutIsNotCompleteWhileAllNodesAreLost(t *testing.T) {
	s := begin(t, fleet(2)).with(node(0, false, false)).with(node(1, false, false)).with(update("newer"))
	s.does().does()
	if s.in.Current != "new" {
		t.Errorf("current is %s", s.in.Current)
	}
}

func TestWithoutAnUpdateEverythingStaysAtCurrent(t *testing.T) {
	s := begin(t, fleet(3)).with(update("")).dies("a").does("Create a at new").
		with(func(in *plan.Input) { in.Targets, in.Pods = nil, nil }).does()
	if s.in.Current != "new" {
		t.Errorf("current is %q", s.in.Current)
	}
}

func TestAFirstInstallHasNoCanaryAndIsComplete(t *testing.T) {
	in := canary(without(fleet(3), 0, 1, 2), 1, time.Hour)
	in.Current = ""
	s := begin(t, in).does("Create a at new", "Create b at new", "Create c at new").does()
	if s.in.Current != "new" {
		t.Errorf("current is %q", s.in.Current)
	}
}

func TestSettingUpdateBackRollsBack(t *testing.T) {
	s := begin(t, canary(fleet(3), 1, time.Hour)).with(update("newer")).does("Delete a: Outdated").
		does("Create a at newer")
	s.with(update("new")).does("Delete a: Outdated").does("Create a at new").does().phase(plan.PhaseSteady, "")
}

func TestTheStateOfARolloutIsShort(t *testing.T) {
	s := begin(t, fleet(20)).with(update("newer"))
	s.does("Delete a: Outdated", "Delete b: Outdated").does("Create a at newer", "Create b at newer").
		is("e", health.SinkDown).does("Delete e: Outdated", "Delete c: Outdated")
	text, err := s.in.Rollout.Encode()
	if want := `{"started":"2026-05-01T12:00:00Z","to":"c","also":["e"]}`; err != nil || text != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
	if text, err := (plan.Rollout{}).Encode(); err != nil || text != "" {
		t.Errorf("the zero value is encoded as %q, %v", text, err)
	}
	if _, err := plan.DecodeRollout("{"); err == nil {
		t.Error("invalid text is no error")
	}
}

func TestRequestedNewPodsComeWithinTheBudgetAndWithoutACanary(t *testing.T) {
	s := begin(t, canary(fleet(3), 1, time.Hour)).with(func(in *plan.Input) { in.RestartedAt = "today" })
	s.with(func(in *plan.Input) { in.Limits.Paused = true }).does().with(func(in *plan.Input) { in.Limits.Paused = false })
	s.does("Delete a: RestartRequested").does("Create a at new").does("Delete b: RestartRequested").
		does("Create b at new").does("Delete c: RestartRequested").does("Create c at new").does()
	s.with(func(in *plan.Input) { in.RestartedAt = "" }).does() // the request is gone
}

func TestRequestedNewPodsDuringACanaryComeAtTheirRevision(t *testing.T) {
	s := begin(t, canary(fleet(2), 1, time.Hour)).with(update("newer")).does("Delete a: Outdated").
		does("Create a at newer")
	s.with(func(in *plan.Input) { in.RestartedAt = "today" })
	s.does("Delete a: RestartRequested").does("Create a at newer").does("Delete b: RestartRequested").
		does("Create b at new").does()
}

func TestATargetThatMovesGetsItsPodWhenTheOldOneIsGone(t *testing.T) {
	moves := func(in *plan.Input) { in.Targets[1].Pod = "pod-b-2" }
	s := begin(t, fleet(3)).with(moves)
	if got := describe(plan.Next(s.in).Actions); !slices.Equal(got, []string{"Delete b: NoTarget"}) {
		t.Fatalf("does %v", got)
	}
	s.pod("b", terminating)
	if got := describe(plan.Next(s.in).Actions); len(got) > 0 {
		t.Fatalf("does %v while the old pod terminates", got)
	}
	s.dies("b").does("Create b at new")
}

func TestATargetThatMovesFromALostNodeDoesNotWaitForItsOldPod(t *testing.T) {
	s := begin(t, fleet(3)).with(func(in *plan.Input) { in.Targets[1].Pod = "pod-b-2" })
	s.pod("b", func(p *plan.Pod) { p.Terminating, p.NodeLost = true, true }).does("Create b at new").does()
	// It may return to the node, where the pod with its name is still terminating.
	s.with(func(in *plan.Input) { in.Targets[1].Pod = "pod-b" }).does("Delete b: NoTarget")
}
