package plan_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// soaking returns a fleet of n with a canary, a, that was just created.
func soaking(t *testing.T, n int) *story {
	t.Helper()
	return begin(t, canary(fleet(n), 1, time.Hour)).with(update("newer")).does("Delete a: Outdated").
		does("Create a at newer")
}

func TestTheOthersFollowACanaryThatWasWellForTheSoak(t *testing.T) {
	s := soaking(t, 3)
	s.does().phase(plan.PhaseCanary, "soaking until 13:00:00 UTC").rechecksIn(6 * time.Minute)
	s.after(59*time.Minute).does().phase(plan.PhaseCanary, "soaking until 13:00:00 UTC").rechecksIn(time.Minute)
	s.after(time.Minute).does("Delete b: Outdated").phase(plan.PhaseRolling, "")
	s.does("Create b at newer").does("Delete c: Outdated").does("Create c at newer").does().does().
		phase(plan.PhaseSteady, "")
}

func TestDuringACanaryNewTargetsAndPodsThatDieGetTheCurrentRevision(t *testing.T) {
	s := soaking(t, 3)
	s.with(func(in *plan.Input) {
		in.Targets = append(in.Targets, plan.Target{Name: "A", Pod: "pod-A", Schedulable: true, NodeReady: true})
	})
	s.does("Create A at new").dies("b").dies("a").does("Create a at newer", "Create b at new").leader().dies("a").
		does("Create a at newer")
}

func TestTheSoakCountsOnlyTimeInWhichCanariesWereWell(t *testing.T) {
	s := soaking(t, 3).does().after(10 * time.Minute)
	for _, v := range []health.Verdict{health.SinkDown, health.SourceStalled} {
		s.is("a", v).does().phase(plan.PhaseCanary, "the soak is paused: a is "+string(v))
		s.after(time.Hour).does()
	}
	s.is("a", health.CatchingUp).does().phase(plan.PhaseCanary, "soaking until 15:00:00 UTC").after(10 * time.Minute)
	s.with(func(in *plan.Input) { in.Limits.Paused = true }).does().phase(plan.PhaseCanary, "the soak is paused: paused").
		after(time.Hour)
	s.with(func(in *plan.Input) { in.Limits.Paused = false }).does().phase(plan.PhaseCanary, "soaking until 16:00:00 UTC").
		after(10 * time.Minute)
	s.pod("a", func(p *plan.Pod) { p.Ready, p.ReadyChangedAt = false, s.in.Now }).does().
		phase(plan.PhaseCanary, "the soak is paused: a is not ready")
	s.after(9*time.Minute).pod("a", func(p *plan.Pod) { p.Ready = true }).does().
		phase(plan.PhaseCanary, "soaking until 16:09:00 UTC")
}

func TestASoakIsNotOverWhileACanaryIsBehind(t *testing.T) {
	s := soaking(t, 3).does().is("a", health.CatchingUp).after(time.Hour).does().
		phase(plan.PhaseCanary, "the soak is paused: a is still catching up")
	s.is("a", health.Healthy).does("Delete b: Outdated")

	// It was behind before: that is not worse.
	s = begin(t, canary(fleet(1), 1, time.Hour)).is("a", health.Overloaded).with(update("newer")).
		does("Delete a: Outdated").does("Create a at newer")
	s.is("a", health.CatchingUp).does().after(time.Hour).does().phase(plan.PhaseRolling, "")
}

func TestUnobservedTimeDoesNotCountForTheSoak(t *testing.T) {
	s := soaking(t, 3).does().after(13 * time.Minute).does() // two ticks are persisted, and the rest
	s.after(2*time.Minute).leader().does().phase(plan.PhaseCanary, "the soak is paused: a has no verdict yet")
	s.after(time.Hour).does().judges(health.Healthy).does().phase(plan.PhaseCanary, "soaking until 14:02:00 UTC")

	// Nor does a long time without a leader in which it was paused.
	s.after(3 * time.Hour).leader().with(func(in *plan.Input) { in.Limits.Paused = true }).does()
	s.with(func(in *plan.Input) { in.Limits.Paused = false }).judges(health.Healthy).does().
		phase(plan.PhaseCanary, "soaking until 17:02:00 UTC")
}

func TestMessagesCallARevisionByItsFullName(t *testing.T) {
	s := begin(t, canary(fleet(3), 1, time.Hour)).with(update("newer")).
		with(func(in *plan.Input) { in.Object = "mainnet" })
	s.does("Delete a: Outdated").does("Create a at newer").is("a", health.Overloaded).does("Delete a: RolledBack").
		phase(plan.PhaseFailed,
			"a on revision mainnet-newer: Overloaded, as it is; before, on mainnet-new: Healthy, lag 0s")
}

func TestACanaryThatIsWorseThanBeforeGoesBackAndNothingElseMoves(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(*story)
		message string
	}{
		"a verdict": {func(s *story) { s.is("a", health.Overloaded) },
			"a on revision newer: Overloaded, as it is; before, on new: Healthy, lag 0s"},
		"a restart of the container": {func(s *story) { s.pod("a", func(p *plan.Pod) { p.Restarts = 1 }) },
			"a on revision newer: its container restarted once; before, on new: Healthy, lag 0s"},
		"a pod that does not become ready": {func(s *story) { s.pod("a", unready).does().after(10 * time.Minute) },
			"a on revision newer: not ready for 10m0s; before, on new: Healthy, lag 0s"},
		"a long time without a report": {func(s *story) { s.is("a", health.Unreachable).does().after(10 * time.Minute) },
			"a on revision newer: Unreachable, as it is; before, on new: Healthy, lag 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			s := soaking(t, 3).does().after(time.Minute)
			test.change(s)
			s.does("Delete a: RolledBack").phase(plan.PhaseFailed, test.message)
			s.does("Create a at new").phase(plan.PhaseFailed, test.message)
			s.after(9*time.Hour).leader().does().phase(plan.PhaseFailed, test.message)
			s.judges(health.Healthy).dies("b").does("Create b at new")
			// Until the spec changes.
			s.with(update("newest")).does("Delete a: Outdated").does("Create a at newest").does()
			s.after(time.Hour).does("Delete b: Outdated")
		})
	}
}

func TestACanaryThatFailedIsPromotedByHand(t *testing.T) {
	s := soaking(t, 3).is("a", health.Stuck).does("Delete a: RolledBack").does("Create a at new")
	s.with(func(in *plan.Input) { in.Promote = true }).does("Delete a: Outdated").phase(plan.PhaseRolling, "")
	s.does("Create a at newer").does("Delete b: Outdated")
	// It stays promoted when the annotation is removed.
	s.with(func(in *plan.Input) { in.Promote = false }).does("Create b at newer").does("Delete c: Outdated")
}

func TestPromotionEndsTheSoak(t *testing.T) {
	s := soaking(t, 3).does().with(func(in *plan.Input) { in.Promote = true }).does("Delete b: Outdated")
	s.with(func(in *plan.Input) { in.Promote = false }).does("Create b at newer").does("Delete c: Outdated")
}

func TestACanaryIsComparedWithTheSameTargetBefore(t *testing.T) {
	for name, test := range map[string]struct {
		before func(*story)
		after  func(*story)
		fails  bool
	}{
		"as bad as before": {func(s *story) { s.is("a", health.Overloaded) },
			func(s *story) { s.is("a", health.Overloaded) }, false},
		"better than before": {func(s *story) { s.is("a", health.NotRunning) },
			func(s *story) { s.is("a", health.Stuck) }, false},
		"worse than before": {func(s *story) { s.is("a", health.Overloaded) },
			func(s *story) { s.is("a", health.Stuck) }, true},
		"a sink that works again": {func(s *story) { s.is("a", health.SinkDown) },
			func(s *story) { s.is("a", health.Overloaded) }, false},
		"a source that comes back": {func(s *story) { s.is("a", health.SourceStalled) },
			func(s *story) { s.is("a", health.Stuck) }, true},
		"as many restarts": {func(s *story) { s.pod("a", restarts(24)) },
			func(s *story) { s.after(2*time.Hour).pod("a", restarts(2)) }, false},
		"more restarts than before": {func(s *story) { s.pod("a", restarts(24)) },
			func(s *story) { s.after(2*time.Hour).pod("a", restarts(3)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			// The other is worse, so that a is the canary.
			s := begin(t, canary(unavailable(fleet(2), 2), 1, 9*time.Hour))
			s.is("b", health.SinkDown)
			test.before(s)
			s.with(update("newer")).does("Delete a: Outdated").does("Create a at newer")
			s.is("b", health.Healthy)
			test.after(s)
			r := plan.Next(s.in)
			if (r.Phase == plan.PhaseFailed) != test.fails {
				t.Errorf("%s: %s", r.Phase, r.Message)
			}
			if test.fails {
				mentions(t, r.Message, "a on revision newer", "before, on new")
			}
		})
	}
}

func restarts(n int) func(*plan.Pod) { return func(p *plan.Pod) { p.Restarts = n } }

func TestACanaryIsNotBlamedForACommonFault(t *testing.T) {
	s := soaking(t, 2).does().is("a", health.Stuck).is("b", health.Stuck)
	s.does().phase(plan.PhaseCanary, "the soak is paused: a is Stuck, and so are targets that are not canaries")

	// A fleet-wide fault, of any kind.
	s = soaking(t, 8).does().is("a", health.Stuck).is("b", health.SinkDown).is("c", health.Unreachable).
		is("d", health.SinkDown)
	s.does().phase(plan.PhaseCanary, "the soak is paused: a is worse than before, and the fault is fleet-wide")
	s.is("b", health.Healthy).is("c", health.Healthy).is("d", health.Healthy).does("Delete a: RolledBack")
}

func TestCanariesAreNotTheirOwnControlGroup(t *testing.T) {
	// Half of the fleet fails together: that is the revision.
	s := begin(t, canary(unavailable(fleet(6), 3), 3, time.Hour)).with(update("newer"))
	s.does("Delete a: Outdated", "Delete b: Outdated", "Delete c: Outdated").
		does("Create a at newer", "Create b at newer", "Create c at newer")
	s.is("a", health.Stuck).is("b", health.Stuck).is("c", health.Stuck)
	s.does("Delete a: RolledBack", "Delete b: RolledBack", "Delete c: RolledBack")
}

func TestARevisionThatCuresABadFleetPassesTheSoak(t *testing.T) {
	s := begin(t, canary(fleet(3), 1, time.Hour)).judges(health.SinkDown).with(update("newer"))
	s.does("Delete a: Outdated").does("Create a at newer").does().phase(plan.PhaseCanary, "soaking until 13:00:00 UTC")
	s.after(time.Hour).does("Delete b: Outdated")
}

func TestACanaryOnALostNodeIsReplacedByAnother(t *testing.T) {
	s := soaking(t, 3).does().after(10*time.Minute).with(node(0, false, false)).is("a", health.Unreachable)
	s.does("Delete b: Outdated").does("Create b at newer").does().phase(plan.PhaseCanary, "soaking until 13:10:00 UTC")
	s.with(node(0, true, true)).is("a", health.Healthy).after(time.Hour).does("Delete c: Outdated")
}

func TestACordonedCanaryRemainsACanaryWhileItRuns(t *testing.T) {
	soaking(t, 2).does().with(node(0, false, true)).after(time.Hour).does("Delete b: Outdated")
	s := soaking(t, 2).does().with(node(0, false, true)).dies("a").does("Delete b: Outdated").does("Create b at newer").
		does()
	s.after(time.Hour).does().does().phase(plan.PhaseSteady, "")
}

func TestGoodTargetsBecomeCanaries(t *testing.T) {
	in := canary(fleet(6), 2, time.Hour)
	in.Limits.MaxUnavailable = intstr.FromInt32(2)
	s := begin(t, in).is("a", health.Overloaded).is("b", health.Unknown).with(node(2, false, true)).with(update("newer"))
	s.does("Delete d: Outdated").does("Create d at newer") // one is unjudged, and delays the next
	s.does("Delete e: Outdated").does("Create e at newer").does()

	// Where none is good, bad ones show whether the revision helps.
	in = canary(fleet(2), 1, time.Hour)
	s = begin(t, in).judges(health.NotRunning).pod("a", unready).pod("b", unready).with(update("newer")).
		does("Delete a: Outdated")
	s.does("Create a at newer").does().after(time.Hour).does("Delete b: Outdated")

	// A new leader does not know yet which are good.
	begin(t, in).leader().pod("b", unready).is("b", health.NotRunning).with(update("newer")).does().judges(health.Healthy).
		pod("b", func(p *plan.Pod) { p.Ready = true }).
		does("Delete a: Outdated")
}

func TestMoreCanariesThanThereAreTargetsAreAll(t *testing.T) {
	in := canary(fleet(2), 9, time.Hour)
	s := begin(t, in).with(update("newer")).does("Delete a: Outdated").does("Create a at newer").
		does("Delete b: Outdated").does("Create b at newer").does()
	s.after(59*time.Minute).does().phase(plan.PhaseCanary, "soaking until 13:00:00 UTC")
	s.after(time.Minute).does().does().phase(plan.PhaseSteady, "")

	in.Targets, in.Pods = nil, nil
	s = begin(t, in).with(update("newer")).does().does().
		phase(plan.PhaseSteady, "the soak is paused: there are no targets")
	if s.in.Current != "new" {
		t.Errorf("current is %s, which was not tried out", s.in.Current)
	}
}

func TestAShareOfTheFleetIsTheCanary(t *testing.T) {
	in := unavailable(fleet(10), 10)
	in.Limits.Canary = &plan.Canary{Count: intstr.FromString("25%"), Soak: time.Hour}
	begin(t, in).with(update("newer")).does("Delete a: Outdated", "Delete b: Outdated", "Delete c: Outdated")
}

func TestANewRevisionDuringACanaryBeginsWithTheCanaries(t *testing.T) {
	s := begin(t, canary(fleet(3), 1, time.Hour)).with(node(0, false, true)).with(update("newer")).
		does("Delete b: Outdated").does("Create b at newer").does()
	s.with(node(0, true, true)).after(50 * time.Minute).with(update("newest")).does("Delete b: Outdated").
		does("Create b at newest").does()
	s.phase(plan.PhaseCanary, "soaking until 13:50:00 UTC")

	// If there are fewer canaries now, the others go back if they do not work.
	s = begin(t, canary(unavailable(fleet(4), 2), 2, time.Hour)).with(update("newer")).
		does("Delete a: Outdated", "Delete b: Outdated").does("Create a at newer", "Create b at newer")
	s.pod("a", unready).pod("b", unready).with(func(in *plan.Input) { in.Limits.Canary.Count = intstr.FromInt32(1) })
	s.with(update("newest")).does("Delete a: Outdated", "Delete b: RolledBack").
		does("Create a at newest", "Create b at new")
}

func TestAnAbandonedRevisionIsNoBaselineForTheNext(t *testing.T) {
	// The first crashes, the second hangs: that is better than the first, and worse than before both.
	s := soaking(t, 3).pod("a", unready).is("a", health.NotRunning).does()
	s.with(update("newest")).does("Delete a: Outdated").does("Create a at newest")
	s.is("a", health.Stuck).does("Delete a: RolledBack").
		phase(plan.PhaseFailed, "a on revision newest: Stuck, as it is; before, on new: Healthy, lag 0s")
}

func TestAStartingPodIsNoCanaryYet(t *testing.T) {
	s := begin(t, canary(fleet(2), 1, time.Hour)).pod("a", young).is("a", health.Unknown).with(update("newer")).does()
	s.pod("a", func(p *plan.Pod) { p.Ready = true }).is("a", health.Healthy).does("Delete a: Outdated")
}

func TestARestartOfTheContainerInAnOutageDoesNotStopTheCure(t *testing.T) {
	s := begin(t, canary(fleet(4), 1, time.Hour)).judges(health.SinkDown).is("a", health.Healthy).with(update("newer")).
		does("Delete a: Outdated").does("Create a at newer")
	s.pod("a", restarts(1)).does().phase(plan.PhaseCanary, "soaking until 13:00:00 UTC").after(time.Hour).
		does("Delete b: Outdated")
}

func TestRemovingTheCanaryFromTheSpecEndsIt(t *testing.T) {
	s := soaking(t, 3).does().with(func(in *plan.Input) { in.Limits.Canary = nil }).does("Delete b: Outdated")
	s.does("Create b at newer").with(func(in *plan.Input) { in.Limits.Canary = &plan.Canary{Count: intstr.FromInt32(1)} }).
		does("Delete c: Outdated")
}

func TestACanaryWhoseStateWasLostIsFoundAgain(t *testing.T) {
	s := soaking(t, 3).does().with(func(in *plan.Input) { in.Rollout = plan.Rollout{} }).does().
		phase(plan.PhaseCanary, "soaking until 13:00:00 UTC")
	s.dies("a").does("Create a at newer")
}

func TestACanaryThatIsGrowingIsRolledBackBeforeItIsRestarted(t *testing.T) {
	// It was well before: the revision is at fault, and no restart is counted.
	s := soaking(t, 3).does().is("a", health.Growing).does("Delete a: RolledBack")
	if len(s.in.Ledger) > 0 {
		t.Errorf("the ledger has %v", s.in.Ledger)
	}
	// It was bad before: a restart may cure it.
	s = begin(t, canary(fleet(1), 1, time.Hour)).with(func(in *plan.Input) { in.Limits.AlertOnly = true }).
		is("a", health.Stuck).with(update("newer")).does("Delete a: Outdated")
	s.does("Create a at newer").with(func(in *plan.Input) { in.Limits.AlertOnly = false }).is("a", health.Stuck).
		does("Restart a: Verdict").does("Create a at newer")
}

// boots makes all nodes reboot.
func boots(id string) func(*plan.Input) {
	return func(in *plan.Input) {
		in.Targets = slices.Clone(in.Targets)
		for i := range in.Targets {
			in.Targets[i].BootID = id
		}
	}
}

func TestACanaryWhoseNodeRebootsIsNotBlamed(t *testing.T) {
	begins := func() *story {
		s := begin(t, canary(fleet(2), 1, 3*time.Hour)).with(boots("1")).with(update("newer"))
		return s.does("Delete a: Outdated").does("Create a at newer").does().after(time.Hour).does()
	}
	waiting := func(p *plan.Pod) {
		p.Restarts, p.Ready, p.ReadyChangedAt = p.Restarts+1, false, p.Created.Add(time.Hour)
	}
	again := func(p *plan.Pod) { p.Ready = true }

	s := begins().with(boots("2")).pod("a", waiting).does().phase(plan.PhaseCanary, "the soak is paused: a is not ready")
	s.pod("a", again).does().phase(plan.PhaseCanary, "soaking until 15:00:00 UTC").after(time.Hour).leader()
	s.with(boots("3")).judges(health.Healthy).pod("a", restarts(2)).does().
		phase(plan.PhaseCanary, "soaking until 15:00:00 UTC")
	s.pod("a", restarts(3)).does("Delete a: RolledBack")
	mentions(t, s.last.Message, "a on revision newer: its container restarted 3 times")

	// The restart may be observed before the reboot.
	s = begins().pod("a", waiting).does().phase(plan.PhaseCanary, "the soak is paused: a is restarting")
	s.with(boots("2")).pod("a", again).does().phase(plan.PhaseCanary, "soaking until 15:00:00 UTC")
	// One that restarts without a reboot fails once it is ready again, restarts once more, or does neither for Settle.
	begins().pod("a", waiting).does().pod("a", again).does("Delete a: RolledBack")
	begins().pod("a", waiting).does().pod("a", waiting).does("Delete a: RolledBack")
	begins().pod("a", waiting).does().after(10 * time.Minute).does("Delete a: RolledBack")
	// A node whose boot ID is unknown, or known for the first time, has not rebooted.
	begins().with(boots("")).pod("a", restarts(1)).does("Delete a: RolledBack")
	soaking(t, 2).does().with(boots("1")).pod("a", restarts(1)).does("Delete a: RolledBack")
}

func TestTheStateOfTheLargestCanaryFitsIntoAnAnnotation(t *testing.T) {
	const targets = 5000
	const long, boot = "ip-10-%04d.a-region-with-a-long-name.compute.internal.example",
		"f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
	in := canary(unavailable(fleet(0), targets), targets, time.Hour)
	in.Lag = map[string]time.Duration{}
	for i := range targets {
		name := fmt.Sprintf(long, i)
		in.Targets = append(in.Targets,
			plan.Target{Name: name, Pod: "pod-" + name, Schedulable: true, NodeReady: true, BootID: boot})
		in.Pods = append(in.Pods, plan.Pod{
			Name: "pod-" + name, UID: name, Target: name, Revision: "new", Created: ago(24*time.Hour + time.Second), Ready: true,
			Restarts: 10,
		})
		in.Judgements[name] = health.Judgement{Verdict: health.SourceStalled, Since: ago(23 * time.Hour)}
		in.Lag[name] = 23*time.Hour + 59*time.Minute + 59*time.Second
	}
	s := begin(t, in).with(update("newer"))
	s.keep(plan.Next(s.in))
	text, err := s.in.Rollout.Encode()
	if got := len(s.in.Rollout.OutOfOrder); err != nil || got != plan.MaxCanaries || len(s.in.Rollout.Baselines) != got ||
		len(text) > 200_000 {
		t.Errorf("%d canaries, %d of them with a baseline, take %d bytes, %v", got, len(s.in.Rollout.Baselines), len(text),
			err)
	}
}

func TestTheStateOfACanaryIsShort(t *testing.T) {
	in := canary(fleet(3), 1, time.Hour)
	in.Lag = map[string]time.Duration{"a": 1700 * time.Millisecond}
	s := begin(t, in).is("a", health.CatchingUp).pod("a", restarts(2)).is("b", health.SinkDown).is("c", health.SinkDown).
		with(update("newer")).does("Delete a: Outdated")
	s.does("Create a at newer").does().after(7 * time.Minute).does()
	text, err := s.in.Rollout.Encode()
	want := `{"started":"2026-05-01T12:00:00Z","also":["a"],` +
		`"before":{"a":{"verdict":"CatchingUp","lag":"1s","restarts":2,"age":"24h0m0s"}},` +
		`"soaked":"7m0s","since":"2026-05-01T12:07:00Z"}`
	if err != nil || text != want {
		t.Errorf("got %s, %v\nwant %s", text, err, want)
	}
	s.judges(health.Healthy).pod("a", restarts(2)).does("Delete a: RolledBack")
	mentions(t, s.last.Message,
		"a on revision newer: its container restarted 2 times; "+
			"before, on new: CatchingUp, lag 1s, restarted 2 times in 24h0m0s")
	if text, err = s.in.Rollout.Encode(); err != nil {
		t.Error(err)
	}
	mentions(t, text, `{"failed":"a on revision newer`, `"failedAt":"2026-05-01T12:07:00Z"`)
}
