package plan_test

import (
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

func TestAFaultOfManyTargetsIsFleetWideAndRestartsNothing(t *testing.T) {
	for _, test := range []struct {
		n, bad    int
		fleetWide bool
	}{
		{1, 1, false}, {2, 1, false}, {2, 2, true}, {3, 1, false}, {3, 2, true}, {4, 2, true}, {6, 2, true}, {7, 2, false},
		{12, 3, false}, {12, 4, true},
		{26, 7, false}, {26, 8, true},
	} {
		in := fleet(test.n)
		for i := range test.bad {
			in = judge(in, i, health.Stuck)
		}
		r := plan.Next(in)
		if r.FleetWide != test.fleetWide || (len(r.Actions) == 0) != test.fleetWide || r.Affected != test.bad {
			t.Errorf("%d of %d: fleet-wide %v with %d affected, and %v", test.bad, test.n, r.FleetWide, r.Affected,
				describe(r.Actions))
		}
	}
}

func TestAnyBadVerdictIsPartOfAFleetWideFault(t *testing.T) {
	s := begin(t, fleet(7)).is("a", health.Unreachable).is("b", health.SinkDown).is("c", health.Stuck).does()
	s.waits("c", "no restart: the fault is fleet-wide")
	if want := "3 of 7 targets are bad or were restarted recently"; s.last.Outage != want {
		t.Errorf("got %q, want %q", s.last.Outage, want)
	}
	s.is("a", health.CatchingUp).is("b", health.Unknown).after(10*time.Minute).is("b", health.Healthy).
		does("Restart c: Verdict")
}

func TestRecentlyRestartedTargetsAreAffectedUntilTheyAreProven(t *testing.T) {
	s := begin(t, fleet(2)).is("a", health.Stuck).does("Restart a: Verdict")
	s.does("Create a at new")
	s.after(time.Minute).is("b", health.Growing).does().waits("b", "no restart: the fault is fleet-wide").
		rechecksIn(time.Minute)
	s.after(time.Minute).does("Restart b: Verdict")
}

func TestAFleetWideFaultLastsUntilThoseThatRecoverAreProven(t *testing.T) {
	s := begin(t, fleet(7)).is("a", health.Stuck).is("b", health.Stuck).is("c", health.Stuck).does()
	s.after(time.Minute).is("a", health.Healthy).does().waits("b", "no restart: the fault is fleet-wide").
		rechecksIn(2 * time.Minute)
	s.after(time.Minute).is("a", health.Stuck).does() // it hovers
	s.is("a", health.Healthy).after(2 * time.Minute).does("Restart b: Verdict")
}

func TestARecoveringFleetIsPlannedAgainOnceEnoughAreProven(t *testing.T) {
	s := begin(t, fleet(7)).judges(health.SinkDown).does()
	for _, target := range s.in.Targets {
		s.after(10*time.Second).is(target.Name, health.Healthy).does()
	}
	// With two of seven unproven it is no longer fleet-wide.
	s.rechecksIn(100 * time.Second)
	s.after(99 * time.Second).does()
	if !s.last.FleetWide {
		t.Error("the fault is over before they are proven")
	}
	s.after(time.Second).does()
	if s.last.FleetWide {
		t.Error("the fault is not over")
	}
	s.neverRechecks()
}

func TestTargetsThatStayBadDoNotKeepAFaultFleetWide(t *testing.T) {
	s := begin(t, fleet(7)).is("a", health.NotRunning).is("b", health.NotRunning).is("c", health.Stuck).does()
	s.after(time.Minute).is("c", health.Healthy).does()
	s.after(2 * time.Minute).does()
	if s.last.FleetWide {
		t.Error("two of seven are still fleet-wide")
	}
	s.is("a", health.Stuck).does("Restart a: Verdict")
}

func TestANewLeaderRestartsNothingUntilItKnowsThatTheFaultIsNotFleetWide(t *testing.T) {
	s := begin(t, fleet(7)).leader().is("a", health.Stuck).does().waits("a", "waiting for verdicts on other parsers")
	s.is("b", health.Healthy).is("c", health.Healthy).is("d", health.Healthy).is("e", health.Healthy).does().
		waits("a", "waiting for verdicts on other parsers")
	s.is("f", health.Healthy).does("Restart a: Verdict")
}

func TestPeersCount(t *testing.T) {
	for _, test := range []struct {
		bad       int
		peers     plan.Peers
		fleetWide bool
	}{
		{1, plan.Peers{Desired: 2, Affected: 2}, true},    // 3 of 9
		{1, plan.Peers{Desired: 9, Affected: 3}, false},   // 4 of 16
		{3, plan.Peers{Desired: 90, Affected: 0}, true},   // a fleet needs no peers
		{0, plan.Peers{Desired: 10, Affected: 10}, false}, // nothing is wrong here
	} {
		in := fleet(7)
		in.Peers = test.peers
		for i := range test.bad {
			in = judge(in, i, health.Stuck)
		}
		if r := plan.Next(in); r.FleetWide != test.fleetWide {
			t.Errorf("%d of 7 and %+v: fleet-wide %v: %s", test.bad, test.peers, r.FleetWide, r.Outage)
		}
	}
}

func TestAFleetWideFaultDoesNotDelayARollout(t *testing.T) {
	begin(t, fleet(3)).judges(health.SinkDown).with(update("newer")).does("Delete a: Outdated")
}

// TestForeignPeersAloneDelayNothing lists what other namespaces may do to a fleet's restarts.
func TestForeignPeersAloneDelayNothing(t *testing.T) {
	down := func(n int) plan.Peers { return plan.Peers{Desired: n, Affected: n} }
	for _, test := range []struct {
		what      string
		n, stuck  int
		sink      int // targets whose trouble is the sink
		secret    int // targets without credentials
		foreign   []plan.Peers
		fleetWide bool
	}{
		{"all report that the sink is down, and none here does", 7, 1, 0, 0, []plan.Peers{down(1000), down(1000), down(1000)},
			false},
		{"one here has no credentials", 7, 1, 0, 1, []plan.Peers{down(1000)}, false},
		{"one here reports it, too, and one small foreign peer", 7, 1, 1, 0, []plan.Peers{down(1)}, true},
		{"one here of many, and as many as one namespace counts for", 100, 1, 1, 0, []plan.Peers{down(100000)}, true},
		{"foreign peers that are well count, too", 7, 1, 1, 0, []plan.Peers{{Desired: 20}, down(1)}, false},
		{"at most the size of this fleet counts", 100, 1, 1, 0, []plan.Peers{{Desired: 1000, Affected: 400}}, false},
		{"of each namespace", 100, 1, 1, 0, []plan.Peers{{Desired: 1000, Affected: 500}, {Desired: 1000, Affected: 500}},
			true},
		{"a fleet-wide fault needs no peers", 7, 3, 0, 0, nil, true},
		{"nothing is wrong here", 7, 0, 0, 0, []plan.Peers{down(1000)}, false},
	} {
		in := fleet(test.n)
		in.ForeignPeers = test.foreign
		for i := range test.n {
			switch {
			case i < test.stuck:
				in = judge(in, i, health.Stuck)
			case i < test.stuck+test.sink:
				in = judge(in, i, health.SinkDown)
			case i < test.stuck+test.sink+test.secret:
				in = judge(in, i, health.SinkDown)
				j := in.Judgements[in.Targets[i].Name]
				j.Reason = health.ReasonSecretMissing
				in.Judgements[in.Targets[i].Name] = j
			}
		}
		r := plan.Next(in)
		if r.FleetWide != test.fleetWide || test.stuck > 0 && (len(r.Actions) == 0) != test.fleetWide {
			t.Errorf("%s: fleet-wide %v, and %v: %s", test.what, r.FleetWide, describe(r.Actions), r.Outage)
		}
	}
}
