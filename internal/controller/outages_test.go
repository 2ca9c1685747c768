package controller

import (
	"context"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// sharing returns an object that writes files below a path on the nodes of a role.
func sharing(name, path, role string) *v1alpha1.HyperliquidParser {
	obj := &v1alpha1.HyperliquidParser{}
	obj.Namespace, obj.Name = "ns", name
	nodes := &v1alpha1.NodeTarget{}
	nodes.Selector.MatchLabels = map[string]string{"role": role}
	obj.Spec.Target.Nodes = nodes
	if path != "" {
		obj.Spec.Sink.File = &v1alpha1.FileSink{Path: v1alpha1.HostPath(path)}
	}
	return obj
}

func woken(o *Outages) map[types.NamespacedName]int {
	out := map[types.NamespacedName]int{}
	for len(o.Changes()) > 0 {
		out[(<-o.Changes()).Object]++
	}
	return out
}

func TestObjectsWithTheSameSinkCountTogetherAndWakeEachOther(t *testing.T) {
	o := NewOutages()
	a, b := sharing("a", "/out", "node"), sharing("b", "/out/", "node")
	strangers := []*v1alpha1.HyperliquidParser{
		sharing("c", "/elsewhere", "node"), sharing("d", "/out", "other"), sharing("e", "", "node"), sharing("f", "", "node"),
	}
	for _, obj := range append([]*v1alpha1.HyperliquidParser{a, b}, strangers...) {
		o.saw(t.Context(), obj, 10, plan.Result{})
	}
	woken(o)

	o.saw(t.Context(), a, 10, plan.Result{Affected: 4, FleetWide: true})
	if got := woken(o); len(got) != 1 || got[types.NamespacedName{Namespace: "ns", Name: "b"}] != 1 {
		t.Errorf("woken: %v, want b alone", got)
	}
	if got, fleetWide := o.around(b); got != (plan.Elsewhere{Desired: 10, Affected: 4}) || fleetWide {
		t.Errorf("around b: %+v, its own outage %v", got, fleetWide)
	}
	if got, fleetWide := o.around(a); got != (plan.Elsewhere{Desired: 10}) || !fleetWide {
		t.Errorf("around a: %+v, its own outage %v", got, fleetWide)
	}
	for _, obj := range strangers {
		if got, _ := o.around(obj); got != (plan.Elsewhere{}) {
			t.Errorf("around %s: %+v", obj.Name, got)
		}
	}

	o.saw(t.Context(), a, 10, plan.Result{Affected: 4, FleetWide: false})
	if got := woken(o); len(got) != 0 {
		t.Errorf("woken by what is no news: %v", got)
	}

	a.Spec.Sink.File.Path = "/elsewhere"
	o.saw(t.Context(), a, 10, plan.Result{Affected: 4})
	if got := woken(o); len(got) != 2 || got[types.NamespacedName{Namespace: "ns", Name: "b"}] != 1 || got[types.NamespacedName{Namespace: "ns", Name: "c"}] != 1 {
		t.Errorf("woken by a change of sinks: %v, want b and c", got)
	}
	o.forget(t.Context(), types.NamespacedName{Namespace: "ns", Name: "c"})
	if got := woken(o); len(got) != 1 || got[types.NamespacedName{Namespace: "ns", Name: "a"}] != 1 {
		t.Errorf("woken by the end of c: %v, want a", got)
	}
	if got, _ := o.around(b); got != (plan.Elsewhere{}) {
		t.Errorf("around b in the end: %+v", got)
	}
}

func TestWakingOthersEndsWithTheReconcileThatDoesIt(t *testing.T) {
	o := NewOutages()
	for _, name := range []string{"a", "b"} {
		o.saw(t.Context(), sharing(name, "/out", "node"), 1, plan.Result{})
	}
	woken(o)
	for range wakes {
		o.changes <- event.TypedGenericEvent[types.NamespacedName]{}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	o.saw(ended, sharing("a", "/out", "node"), 1, plan.Result{Affected: 1})
	if len(o.Changes()) != wakes {
		t.Errorf("%d objects are to be woken", len(o.Changes()))
	}
}

func TestServersAreSharedByWhoeverNamesThem(t *testing.T) {
	kafka := func(name string, brokers ...v1alpha1.Broker) *v1alpha1.HyperliquidParser {
		obj := sharing(name, "", name)
		obj.Spec.Sink.Kafka = &v1alpha1.KafkaSink{Brokers: brokers}
		return obj
	}
	both := sharing("both", "", "both")
	both.Spec.Sinks = []v1alpha1.NamedSink{
		{Name: "a", NATS: &v1alpha1.NATSSink{URL: "nats://n:4222"}}, {Name: "b", Kafka: &v1alpha1.KafkaSink{Brokers: []v1alpha1.Broker{"x:1", "y:1"}}},
	}
	nats := sharing("nats", "", "nats")
	nats.Spec.Sink.NATS = &v1alpha1.NATSSink{URL: "nats://n:4222", Stream: "OTHER"}
	o := NewOutages()
	all := []*v1alpha1.HyperliquidParser{both, nats, kafka("same", "y:1", "x:1"), kafka("other", "z:1")}
	for _, obj := range all {
		o.saw(t.Context(), obj, 10, plan.Result{Affected: 1})
	}
	for i, want := range []int{2, 1, 1, 0} {
		if got, _ := o.around(all[i]); got.Affected != want {
			t.Errorf("around %s: %+v, want %d affected", all[i].Name, got, want)
		}
	}
}

func TestTheLargerAFleetTheLongerItsChangesAreGathered(t *testing.T) {
	r := &Reconciler{Outages: NewOutages()}
	obj, name := &v1alpha1.HyperliquidParser{}, types.NamespacedName{Namespace: "ns", Name: "mainnet"}
	obj.Namespace, obj.Name = name.Namespace, name.Name
	if got := r.gather(name); got != 250*time.Millisecond {
		t.Errorf("before the first plan: %s", got)
	}
	r.Outages.saw(t.Context(), obj, 5000, plan.Result{})
	if got := r.gather(name); got != time.Second {
		t.Errorf("of 5,000: %s", got)
	}
}
