package controller

import (
	"context"
	"encoding/json"
	"path"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// Outages remembers how many targets of each object are affected by what is wrong, so that objects with the same sink are judged
// together: what is one parser's fault in each of ten small fleets may be the fault of what they share. It writes nothing down: a new
// leader has no verdicts either. It is safe for concurrent use.
type Outages struct {
	changes chan event.TypedGenericEvent[types.NamespacedName]

	mu     sync.Mutex
	fleets map[types.NamespacedName]fleet
}

// fleet is what the last plan said of one object.
type fleet struct {
	sinks             []string // that others may share
	desired, affected int
	fleetWide         bool
}

// NewOutages returns an Outages that knows of nothing.
func NewOutages() *Outages {
	return &Outages{changes: make(chan event.TypedGenericEvent[types.NamespacedName], wakes), fleets: map[types.NamespacedName]fleet{}}
}

// wakes is how many objects may wait to be woken before whoever wakes them waits too.
const wakes = 1024

// Changes delivers the names of objects of which the surroundings have changed.
func (o *Outages) Changes() <-chan event.TypedGenericEvent[types.NamespacedName] { return o.changes }

// around returns the counts of the other objects with the same sink, and whether the object's last plan found a fleet-wide fault.
func (o *Outages) around(obj *v1alpha1.HyperliquidParser) (elsewhere plan.Elsewhere, fleetWide bool) {
	name, sinks := client.ObjectKeyFromObject(obj), sharedSinks(obj)
	o.mu.Lock()
	defer o.mu.Unlock()
	for other, f := range o.fleets {
		if other != name && shared(f.sinks, sinks) {
			elsewhere.Desired += f.desired
			elsewhere.Affected += f.affected
		}
	}
	return elsewhere, o.fleets[name].fleetWide
}

// desired is how many targets the last plan of an object was for; 0 before there was one.
func (o *Outages) desired(name types.NamespacedName) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fleets[name].desired
}

// saw takes in what a plan says of an object with so many targets, and wakes the others for which that is news.
func (o *Outages) saw(ctx context.Context, obj *v1alpha1.HyperliquidParser, desired int, result plan.Result) {
	name := client.ObjectKeyFromObject(obj)
	now := fleet{sinks: sharedSinks(obj), desired: desired, affected: result.Affected, fleetWide: result.FleetWide}
	o.mu.Lock()
	before := o.fleets[name]
	o.fleets[name] = now
	o.mu.Unlock()
	if !slices.Equal(before.sinks, now.sinks) || before.desired != now.desired || before.affected != now.affected {
		o.wake(ctx, name, slices.Concat(before.sinks, now.sinks))
	}
}

// forget drops an object that is gone.
func (o *Outages) forget(ctx context.Context, name types.NamespacedName) {
	o.mu.Lock()
	before, ok := o.fleets[name]
	delete(o.fleets, name)
	o.mu.Unlock()
	if ok {
		o.wake(ctx, name, before.sinks)
	}
}

// wake wakes the objects with one of the sinks, but for the one by which they are woken.
func (o *Outages) wake(ctx context.Context, by types.NamespacedName, sinks []string) {
	o.mu.Lock()
	var others []types.NamespacedName
	for name, f := range o.fleets {
		if name != by && shared(f.sinks, sinks) {
			others = append(others, name)
		}
	}
	o.mu.Unlock()
	for _, name := range others {
		select {
		case o.changes <- event.TypedGenericEvent[types.NamespacedName]{Object: name}:
		case <-ctx.Done():
			return
		}
	}
}

// shared reports whether two lists have a sink in common.
func shared(a, b []string) bool {
	return slices.ContainsFunc(a, func(sink string) bool { return slices.Contains(b, sink) })
}

// sharedSinks names the sinks of an object that others may have too.
func sharedSinks(obj *v1alpha1.HyperliquidParser) []string {
	var out []string
	for _, sink := range obj.Spec.AllSinks() {
		if name := sharedSink(obj, sink); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// sharedSink tells sinks apart that objects may share: servers by their addresses; files are the same claim's, or the same disk's on
// the same nodes only; and standard output is each parser's own, which is "".
func sharedSink(obj *v1alpha1.HyperliquidParser, sink v1alpha1.Sink) string {
	file, nodes := sink.File, obj.Spec.Target.Nodes
	var what []any
	switch {
	case sink.NATS != nil:
		what = []any{"nats", sink.NATS.URL}
	case sink.Kafka != nil:
		brokers := slices.Clone(sink.Kafka.Brokers)
		slices.Sort(brokers)
		what = []any{"kafka", brokers}
	case file == nil:
		return ""
	case file.ClaimName != "":
		what = []any{"claim", obj.Namespace, file.ClaimName}
	case nodes != nil:
		what = []any{"file", path.Clean(string(file.Path)), nodes.Selector}
	default:
		return ""
	}
	name, err := json.Marshal(what)
	if err != nil {
		return ""
	}
	return string(name)
}
