package plan_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// anyPod draws a pod.
func (s *sim) anyPod(t *rapid.T) *simPod {
	if len(s.pods) == 0 {
		t.Skip("no pods")
	}
	return s.pods[rapid.SampledFrom(slices.Sorted(maps.Keys(s.pods))).Draw(t, "pod")]
}

func (s *sim) anyTarget(t *rapid.T) (string, *simTarget) {
	if len(s.targets) == 0 {
		t.Skip("no targets")
	}
	name := rapid.SampledFrom(slices.Sorted(maps.Keys(s.targets))).Draw(t, "target")
	return name, s.targets[name]
}

// after does what follows an event: the operator reconciles.
func (s *sim) after() {
	s.poll()
	s.checkWell()
	s.reconcile(1 << 20)
	s.checkWell()
}

func TestWhateverHappensAFleetIsKeptAndComesToRest(t *testing.T) {
	var steps, checks int
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(t)
		do := func(what func(t *rapid.T)) func(*rapid.T) {
			return func(t *rapid.T) { s.T = t; what(t) }
		}
		t.Repeat(map[string]func(*rapid.T){
			"time passes": do(func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "ticks") {
					s.pass(simTick)
					s.after()
				}
			}),
			"time passes without an operator": do(func(t *rapid.T) {
				s.up = false
				s.pass(time.Duration(rapid.IntRange(1, 3600).Draw(t, "s")) * time.Second)
				s.checkWell()
				s.startOperator()
				s.after()
			}),
			"the operator ends in the middle": do(func(t *rapid.T) {
				s.reconcile(rapid.IntRange(0, 4).Draw(t, "actions"))
				if rapid.Bool().Draw(t, "kubelets work") {
					s.pass(simTick)
				}
				s.checkWell()
				s.startOperator()
				s.after()
			}),
			"the cache falls behind": do(func(t *rapid.T) {
				s.stale, s.written = map[string]plan.Pod{}, map[string]bool{}
				for name, p := range s.pods {
					pod := p.Pod
					pod.NodeLost = !s.nodes[p.node].ready
					s.stale[name] = pod
				}
				s.pass(simTick)
				s.after()
				if rapid.Bool().Draw(t, "twice") {
					s.pass(simTick)
					s.after()
				}
				s.stale = nil
				s.after()
			}),
			"a pod becomes unready": do(func(t *rapid.T) { s.setReady(s.anyPod(t), false); s.after() }),
			"a pod fails":           do(func(t *rapid.T) { p := s.anyPod(t); p.Failed = true; s.setReady(p, false); s.after() }),
			"a pod is deleted":      do(func(t *rapid.T) { s.anyPod(t).Terminating = true; s.after() }),
			"a pod is gone":         do(func(t *rapid.T) { s.die(s.anyPod(t).Name); s.after() }),
			"a container restarts":  do(func(t *rapid.T) { s.anyPod(t).Restarts++; s.after() }),
			"a parser hangs":        do(func(t *rapid.T) { s.anyPod(t).fault = health.Stuck; s.after() }),
			"a parser grows":        do(func(t *rapid.T) { s.anyPod(t).fault = health.Growing; s.after() }),
			"a parser recovers":     do(func(t *rapid.T) { s.anyPod(t).fault = ""; s.after() }),
			"a target is sick":      do(func(t *rapid.T) { _, target := s.anyTarget(t); target.fault = "sick"; s.after() }),
			"a target is incurable": do(func(t *rapid.T) {
				name, _ := s.anyTarget(t)
				s.makeIncurable(name, rapid.SampledFrom(incurable).Draw(t, "fault"))
				s.after()
			}),
			"a target is well": do(func(t *rapid.T) { _, target := s.anyTarget(t); target.fault = ""; s.after() }),
			"the targets are gone": do(func(t *rapid.T) {
				s.removeTargets()
				s.after()
				if rapid.Bool().Draw(t, "for long") {
					s.pass(simTick)
					s.after()
				}
				s.restoreTargets()
				s.after()
			}),
			"the sink fails": do(func(t *rapid.T) {
				s.sink = rapid.SampledFrom([]health.Verdict{health.SinkDown, health.Stuck}).Draw(t, "verdict")
				s.after()
			}),
			"the sink works": do(func(*rapid.T) { s.sink = ""; s.after() }),
			"a node is lost": do(func(t *rapid.T) {
				_,
					target := s.anyTarget(t)
				s.nodes[target.node].ready = false
				s.after()
			}),
			"a node returns": do(func(t *rapid.T) { _, target := s.anyTarget(t); s.nodes[target.node].ready = true; s.after() }),
			"a node boots": do(func(t *rapid.T) {
				_, target := s.anyTarget(t)
				s.nodes[target.node].boot++
				for _, p := range s.pods {
					if p.node == target.node {
						p.Restarts++
						s.setReady(p, false)
					}
				}
				s.after()
			}),
			"a node is cordoned": do(func(t *rapid.T) {
				_,
					target := s.anyTarget(t)
				s.nodes[target.node].cordoned = true
				s.after()
			}),
			"a node is uncordoned": do(func(t *rapid.T) {
				_,
					target := s.anyTarget(t)
				s.nodes[target.node].cordoned = false
				s.after()
			}),
			"a target moves":  do(func(t *rapid.T) { name, _ := s.anyTarget(t); s.place(name); s.after() }),
			"a target is new": do(func(*rapid.T) { s.addTarget(); s.after() }),
			"a target goes": do(func(t *rapid.T) {
				name, _ := s.anyTarget(t)
				delete(s.targets, name)
				delete(s.takenDown, name)
				delete(s.last, name)
				s.after()
			}),
			"the spec changes": do(func(t *rapid.T) {
				s.change(rapid.SampledFrom(simRevisions).Draw(t, "revision"))
				s.after()
			}),
			"new pods are asked for": do(func(*rapid.T) { s.restartedAt = s.now.String(); s.spec++; s.after() }),
			"it is promoted":         do(func(*rapid.T) { s.promote = true; s.after() }),
			"it is paused":           do(func(t *rapid.T) { s.limits.Paused = rapid.Bool().Draw(t, "paused"); s.after() }),
			"it is on hold":          do(func(t *rapid.T) { s.limits.Hold = rapid.Bool().Draw(t, "hold"); s.after() }),
			"only alerts":            do(func(t *rapid.T) { s.limits.AlertOnly = rapid.Bool().Draw(t, "alerts"); s.after() }),
		})
		s.T = t
		s.settle()
		steps += s.steps
		checks++
	})
	t.Logf("%d plans in %d sequences", steps, checks)
}
