package plan_test

import (
	"slices"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

func TestTheFirstRestartForACauseIsATrial(t *testing.T) {
	s := begin(t, fleet(9)).is("b", growth.Stuck).is("c", growth.Stuck)
	s.does("Restart b: Verdict").waits("c", "waiting to see whether the restart of b helps")
	s.does("Create b at new").waits("c", "waiting to see whether the restart of b helps")
	s.after(119*time.Second).does().waits("c", "waiting to see whether the restart of b helps").wakesIn(time.Second)
	// It was Healthy for two minutes: the others follow, and one that falls ill later need not wait.
	s.after(time.Second).does("Restart c: Verdict")
	s.does("Create c at new")
	s.after(time.Minute).is("d", growth.Stuck).does("Restart d: Verdict")
	s.does("Create d at new")
	// An hour later nobody knows any more.
	s.after(time.Hour).judges(growth.Healthy).is("e", growth.Stuck).is("f", growth.Stuck)
	s.does("Restart e: Verdict").waits("f", "waiting to see whether the restart of e helps")
}

func TestATrialHelpsWhenItsTargetCatchesUp(t *testing.T) {
	s := begin(t, fleet(9)).is("b", growth.Stuck).is("c", growth.Stuck)
	s.does("Restart b: Verdict").does("Create b at new")
	s.after(40*time.Second).is("b", growth.CatchingUp).does()
	s.after(2 * time.Minute).does("Restart c: Verdict")
}

func TestTwoTrialsThatDidNotHelpEndRestartsUntilTheSpecChanges(t *testing.T) {
	s := begin(t, fleet(12)).with(spec("1")).is("b", growth.Stuck).is("c", growth.Stuck)
	s.does("Restart b: Verdict").does("Create b at new")
	// The other is tried next: it says more than the same again.
	s.after(time.Minute).is("b", growth.Stuck).does("Restart c: Verdict")
	s.does("Create c at new")
	s.after(time.Minute).is("c", growth.Stuck).does().waits("c", "restarts do not help: none until the spec changes")
	s.waits("b", "restarts do not help: none until the spec changes")
	if want := []string{"b", "c"}; !slices.Equal(s.last.Ineffective, want) {
		t.Errorf("ineffective for %v, not %v", s.last.Ineffective, want)
	}
	// Not for another leader, nor with time; for another cause they may help; and not when the spec has changed.
	s.leader().does()
	s.after(3*time.Hour).judges(growth.Healthy).is("b", growth.Stuck).does().waits("b", "restarts do not help: none until the spec changes")
	s.is("d", growth.Growing).does("Restart d: Verdict")
	s.does("Create d at new")
	s.with(spec("2")).does("Restart b: Verdict")
}

func TestARestartThatDoesNotHelpOneTargetTwiceIsGivenUpForThatTarget(t *testing.T) {
	s := begin(t, fleet(9)).is("b", growth.Stuck)
	s.does("Restart b: Verdict").does("Create b at new")
	s.after(time.Minute).is("b", growth.Stuck).does().waits("b", "restarted once, next not before 12:05:00 UTC")
	s.after(4 * time.Minute).does("Restart b: Verdict")
	s.does("Create b at new")
	s.after(time.Minute).is("b", growth.Stuck).does().waits("b", "restarts do not help: none until the spec changes")
	// That says nothing yet of another.
	s.is("c", growth.Stuck).does("Restart c: Verdict")
	s.does("Create c at new")
	s.after(2*time.Minute).does().waits("b", "restarts do not help: none until the spec changes")
	s.is("d", growth.Stuck).does("Restart d: Verdict")
}

func TestATrialIsVoidWhenItCannotBeTold(t *testing.T) {
	s := begin(t, fleet(9)).is("b", growth.Stuck).is("c", growth.Stuck)
	s.does("Restart b: Verdict").does("Create b at new")
	s.with(node(1, false, false)).does("Restart c: Verdict")

	// A sink that dies under it says nothing of the restart.
	s = begin(t, fleet(9)).is("b", growth.Stuck).is("c", growth.Stuck)
	s.does("Restart b: Verdict").does("Create b at new")
	s.after(time.Minute).is("b", growth.SinkDown).does().waits("c", "waiting to see whether the restart of b helps")
	s.after(9 * time.Minute).does("Restart c: Verdict")
	if failed := s.in.Trials.Causes["Stuck"].Failed; len(failed) > 0 {
		t.Errorf("failed for %v", failed)
	}
}

func TestATrialIsNotJudgedInAnOutage(t *testing.T) {
	failed := func(s *story) int { return len(s.in.Trials.Causes["Stuck"].Failed) }
	s := begin(t, fleet(9)).is("b", growth.Stuck).does("Restart b: Verdict").does("Create b at new")
	s.after(time.Minute).is("b", growth.Stuck).is("c", growth.Stuck).is("d", growth.Stuck).does()
	if failed(s) != 0 {
		t.Error("what all have is held against the restart of one")
	}
	s.is("c", growth.Healthy).is("d", growth.Healthy).after(2 * time.Minute).does()
	if failed(s) != 1 {
		t.Error("that it has the same again when the outage is over is not held against it")
	}
}

func TestANewLeaderWaitsForTheTrialOfTheOneBefore(t *testing.T) {
	s := begin(t, fleet(9)).is("b", growth.Stuck).is("c", growth.Stuck)
	s.does("Restart b: Verdict").does("Create b at new")
	s.leader().after(time.Minute).judges(growth.Healthy).is("c", growth.Stuck).does().waits("c", "waiting to see whether the restart of b helps")
	s.after(2 * time.Minute).does("Restart c: Verdict")
}

func TestReasonsOfGrowingAreCausesOfTheirOwn(t *testing.T) {
	in := concurrent(unavailable(fleet(9), 2), 2)
	in.Judgements["b"] = growth.Judgement{Verdict: growth.Growing, Reason: "Unbounded", Since: now}
	in.Judgements["c"] = growth.Judgement{Verdict: growth.Growing, Reason: "ParserSlow", Since: now}
	begin(t, in).does("Restart b: Verdict", "Restart c: Verdict")
	in = concurrent(unavailable(fleet(9), 2), 2)
	in.Judgements["b"] = growth.Judgement{Verdict: growth.Stuck, Reason: "Fills", Since: now}
	in.Judgements["c"] = growth.Judgement{Verdict: growth.Stuck, Reason: "OrderStatuses", Since: now}
	begin(t, in).does("Restart b: Verdict").waits("c", "waiting to see whether the restart of b helps")
}

func TestTrialsAreWrittenShortly(t *testing.T) {
	text, err := plan.Trials{Spec: "3", Causes: map[string]plan.Trial{"Stuck": {Target: "b", At: now, Failed: []string{"a"}}}}.Encode()
	if want := `{"spec":"3","causes":{"Stuck":{"target":"b","at":"2026-05-01T12:00:00Z","failed":["a"]}}}`; err != nil || text != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
	if _, err := plan.DecodeTrials("{"); err == nil {
		t.Error("a text that was spoilt is no error")
	}
}

func TestALedgerOfAnEarlierOperatorIsRead(t *testing.T) {
	r, err := plan.DecodeRecord(`{"uid":"x","times":["2026-05-01T11:40:00Z"],"doublings":1}`)
	if err != nil || r.UID != "x" || len(r.Times) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if trials, err := plan.DecodeTrials("{}"); err != nil || trials.Causes != nil {
		t.Errorf("%+v, %v", trials, err)
	}
}
