package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/hlparser/hyperliquid-parser-operator/hack/simulate/sim"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// scene is a fault in a fleet, and how many restarts are right.
type scene struct {
	name   string
	struck func(n int) int // how many targets, of n
	fault  func(r *rand.Rand) sim.Fault
	right  func(restarts int) bool
	wanted string
	others bool // only restarts of targets that were not struck count
}

// scenes returns the scenes that fleets are tried with.
func scenes() []scene {
	slowBroker := func(r *rand.Rand) sim.Fault {
		return sim.Fault{Kind: sim.SlowSink, Severity: 0.3 + 0.6*r.Float64()}
	}
	ownFault := func(r *rand.Rand) sim.Fault {
		return []sim.Fault{
			{Kind: sim.Hang},
			{Kind: sim.SlowParser, Severity: 0.3 + 0.5*r.Float64()},
			{Kind: sim.BrokenBound, Severity: 0.05 + 0.4*r.Float64()},
		}[r.IntN(3)]
	}
	always := func(f sim.Fault) func(*rand.Rand) sim.Fault { return func(*rand.Rand) sim.Fault { return f } }
	all, third, one := func(n int) int { return n }, func(n int) int { return (n + 2) / 3 }, func(int) int { return 1 }
	exactly := func(n int) func(int) bool { return func(restarts int) bool { return restarts == n } }
	return []scene{
		{name: "a slow broker", struck: all, fault: slowBroker, right: exactly(0), wanted: "0"},
		{name: "a third affected by it", struck: third, fault: slowBroker, right: exactly(0), wanted: "0"},
		{name: "unreadable sources", struck: all, fault: always(sim.Fault{Kind: sim.Unreadable}), right: exactly(0),
			wanted: "0"},
		{name: "a third hang at once", struck: third, fault: always(sim.Fault{Kind: sim.Hang}),
			right: func(int) bool { return true }, wanted: "any: a trial, and more once it helped"},
		{name: "one sick pod", struck: one, fault: ownFault, right: exactly(1), wanted: "1"},
		{name: "one parser lies", struck: one, fault: always(sim.Fault{Kind: sim.Liar, Severity: 0.2}), right: exactly(0),
			wanted: "0 of the others", others: true},
	}
}

// member is one target of a fleet, with its pod as the plan observes it.
type member struct {
	*watched
	name    string
	struck  bool
	uid     int
	created time.Time
	readyAt time.Time
}

func (m *member) planPod() plan.Pod {
	ready := !m.Now().Before(m.readyAt)
	p := plan.Pod{Name: "pod-" + m.name, UID: m.podUID(), Target: m.name, Revision: "r", Created: m.created, Ready: ready}
	if ready {
		p.ReadyChangedAt = m.readyAt
	}
	return p
}

func (m *member) podUID() string { return fmt.Sprint(m.name, "-", m.uid) }

// observePod passes the state of the pod to the tracker.
func (m *member) observePod() {
	m.pod = health.PodState{UID: m.podUID(), Container: m.podUID(), Since: m.created}
	if m.pod.Running = !m.Now().Before(m.readyAt); !m.pod.Running {
		m.pod.Starting, m.pod.Reason = true, "ContainerCreating"
	}
	m.ObservePod(m.pod, m.Now(), settings())
}

// fleet is an object with its targets.
type fleet struct {
	members  []*member
	random   *rand.Rand
	in       plan.Input
	next     time.Time // when the plan must be made again
	others   bool      // as in scene
	restarts int
}

func newFleet(seed uint64, n int, s *scene) *fleet {
	r := rand.New(rand.NewPCG(seed, 3))
	f := &fleet{random: r, others: s.others, in: plan.Input{
		Current: "r", Update: "r", Spec: "1", Judgements: map[string]health.Judgement{}, Ledger: plan.Ledger{},
		Limits: plan.Limits{
			MaxUnavailable: intstr.FromString("10%"), MaxConcurrent: intstr.FromString("10%"), Cooldown: 5 * time.Minute,
			MaxPerHour: 3,
		},
	}}
	fault, struck := s.fault(r), s.struck(n)
	fault.At = 900 + 600*r.Float64()
	for i := range n {
		own := sim.Fault{}
		if i < struck {
			own = fault
		}
		m := &member{
			watched: watch(r.Uint64(), sim.Busy, own), name: fmt.Sprintf("node-%03d", i), struck: i < struck,
			created: sim.Start, readyAt: sim.Start,
		}
		m.Steady()
		m.Advance(time.Duration(r.Int64N(int64(pollInterval)))) // the polls of a fleet are spread over the interval
		m.observePod()
		f.members = append(f.members, m)
		f.in.Targets = append(f.in.Targets,
			plan.Target{Name: m.name, Pod: "pod-" + m.name, Schedulable: true, NodeReady: true})
	}
	return f
}

// run advances the time and returns the number of restarts.
func (f *fleet) run(d time.Duration) int {
	for range d / pollInterval {
		for _, m := range f.members {
			before := m.Judgement()
			m.step()
			if m.Judgement() != before || !f.next.IsZero() && !m.Now().Before(f.next) {
				f.plan(m.Now())
			}
		}
	}
	return f.restarts
}

// step polls a running pod, and observes a starting one.
func (m *member) step() {
	if m.pod.Running {
		m.poll()
		return
	}
	m.Advance(pollInterval)
	m.observePod()
}

// plan makes the plan and carries it out.
func (f *fleet) plan(now time.Time) {
	f.in.Now, f.in.Pods = now, f.in.Pods[:0]
	for _, m := range f.members {
		f.in.Pods = append(f.in.Pods, m.planPod())
		f.in.Judgements[m.name] = m.Judgement()
	}
	result := plan.Next(f.in)
	f.next, f.in.FleetWide = result.RecheckAt, result.FleetWide
	if result.Trials != nil {
		f.in.Trials = *result.Trials
	}
	for _, name := range result.Forget {
		delete(f.in.Ledger, name)
	}
	for _, a := range result.Actions {
		if a.Kind != plan.Restart {
			continue
		}
		f.in.Ledger[a.Target] = a.Record
		for _, m := range f.members {
			if m.name == a.Target {
				if !f.others || !m.struck {
					f.restarts++
				}
				away := time.Duration(5+20*f.random.Float64()) * time.Second
				m.uid++
				m.created, m.readyAt = m.Now(), m.Now().Add(away)
				m.Restart(away)
				m.observePod()
			}
		}
	}
}
