package controller

import (
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// Outages remembers how many targets of each object are affected by a fault, so that objects with the same sink are
// judged together: what looks like one parser's fault in each of ten small fleets may be a fault of the sink they
// share. Nothing is persisted: a new leader has no verdicts either. It is safe for concurrent use.
//
// Objects of one namespace trust each other: every fault of one counts for the others. A stranger, an object of another
// namespace, may belong to any tenant, and parsers report what their image makes them report. So strangers count only
// if
//
//   - both name the same server in a way that means the same in every namespace (sharedSinks), and have no other sink,
//     because verdicts do not show which of several is at fault;
//   - the stranger's targets were each observed delivering, by two reports, the second with more delivered records: an
//     object that only names a server proves nothing about it;
//   - their fault is the sink (health.Judgement.SinkTrouble): pods that do not start, or hang, do not concern others.
//
// The plan counts them only while the object has a target with sink trouble itself, and none for more than its own size
// (plan.Input).
type Outages struct {
	wake func(object types.NamespacedName)

	mu     sync.Mutex
	fleets map[types.NamespacedName]fleet
}

// fleet is the result of one object's last plan.
type fleet struct {
	sinks     []string // that others may share
	single    bool     // the object has no other sink
	counts    counts
	affected  int
	fleetWide bool
}

// counts are those of an object's targets.
type counts struct {
	desired int
	// delivering counts the targets that were observed delivering, and troubled those of them whose verdict is that the
	// sink is at fault.
	delivering, troubled int
	// hears is set while any target has sink trouble: only then do strangers matter.
	hears bool
}

// countTargets counts the observed targets.
func countTargets(f *observed.Fleet) counts {
	c := counts{desired: len(f.Targets)}
	for _, t := range f.Targets {
		view := f.Views[t.Name]
		trouble := view.Judgement.SinkTrouble()
		c.hears = c.hears || trouble
		if view.Delivered {
			c.delivering++
			if trouble {
				c.troubled++
			}
		}
	}
	return c
}

// NewOutages returns an empty Outages. It calls wake for objects that the news of another concerns; wake must not
// block.
func NewOutages(wake func(types.NamespacedName)) *Outages {
	return &Outages{wake: wake, fleets: map[types.NamespacedName]fleet{}}
}

// others returns the counts of the other objects with the same sink, those of its namespace together and those of each
// other namespace, and whether the object's last plan found a fleet-wide fault.
func (o *Outages) others(
	obj *v1alpha1.HyperliquidParser,
) (elsewhere plan.Peers, strangers []plan.Peers, fleetWide bool) {
	name, sinks := client.ObjectKeyFromObject(obj), sharedSinks(obj)
	single := len(obj.Spec.AllSinks()) == 1
	foreign := map[string]plan.Peers{}
	o.mu.Lock()
	defer o.mu.Unlock()
	for other, f := range o.fleets {
		if other == name || !shared(f.sinks, sinks) {
			continue
		}
		switch {
		case other.Namespace == name.Namespace:
			elsewhere.Desired += f.counts.desired
			elsewhere.Affected += f.affected
		case single && f.single && f.counts.delivering > 0:
			sum := foreign[other.Namespace]
			sum.Desired += f.counts.delivering
			sum.Affected += f.counts.troubled
			foreign[other.Namespace] = sum
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(foreign)) {
		strangers = append(strangers, foreign[namespace])
	}
	return elsewhere, strangers, o.fleets[name].fleetWide
}

// desired returns the number of targets of an object's last plan; 0 before there was one.
func (o *Outages) desired(name types.NamespacedName) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fleets[name].counts.desired
}

// observe records the result of an object's plan, and wakes the others that it concerns.
func (o *Outages) observe(obj *v1alpha1.HyperliquidParser, targets counts, result plan.Result) {
	name := client.ObjectKeyFromObject(obj)
	now := fleet{
		sinks: sharedSinks(obj), single: len(obj.Spec.AllSinks()) == 1, counts: targets,
		affected: result.Affected, fleetWide: result.FleetWide,
	}
	o.mu.Lock()
	before := o.fleets[name]
	o.fleets[name] = now
	woken := o.concerned(name, before, now)
	o.mu.Unlock()
	o.wakeAll(woken)
}

// forget drops an object that is gone.
func (o *Outages) forget(name types.NamespacedName) {
	o.mu.Lock()
	before := o.fleets[name]
	delete(o.fleets, name)
	woken := o.concerned(name, before, fleet{})
	o.mu.Unlock()
	o.wakeAll(woken)
}

func (o *Outages) wakeAll(objects []types.NamespacedName) {
	for _, name := range objects {
		o.wake(name)
	}
}

// concerned returns the objects that a change of one concerns: those of its namespace if its faults have changed, and
// strangers that hear it if what it shows of the sink has. The caller holds the lock.
func (o *Outages) concerned(by types.NamespacedName, before, after fleet) []types.NamespacedName {
	moved := !slices.Equal(before.sinks, after.sinks)
	near := moved || before.counts.desired != after.counts.desired || before.affected != after.affected
	far := moved || before.single != after.single ||
		before.counts.delivering != after.counts.delivering || before.counts.troubled != after.counts.troubled
	if !near && !far {
		return nil
	}
	var out []types.NamespacedName
	for name, f := range o.fleets {
		news := far && f.counts.hears
		if name.Namespace == by.Namespace {
			news = near
		}
		if news && name != by && (shared(f.sinks, before.sinks) || shared(f.sinks, after.sinks)) {
			out = append(out, name)
		}
	}
	return out
}

// shared reports whether two lists have a sink in common.
func shared(a, b []string) bool {
	return slices.ContainsFunc(a, func(sink string) bool { return slices.Contains(b, sink) })
}
