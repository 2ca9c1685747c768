package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
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

// publishing returns an object of namespace/name that publishes to NATS servers.
func publishing(key, url string) *v1alpha1.HyperliquidParser {
	obj := sharing("", "", "node")
	obj.Namespace, obj.Name, _ = strings.Cut(key, "/")
	obj.Spec.Sink.NATS = &v1alpha1.NATSSink{URL: url}
	return obj
}

// wakes counts how often objects were enqueued. It is safe for concurrent use.
type wakes struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]int
}

func (w *wakes) wake(name types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.objects == nil {
		w.objects = map[types.NamespacedName]int{}
	}
	w.objects[name]++
}

// take returns the objects that were enqueued since the last call, sorted.
func (w *wakes) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]string, 0, len(w.objects))
	for name, n := range w.objects {
		out = append(out, fmt.Sprintf("%s×%d", name, n))
	}
	clear(w.objects)
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestObjectsWithTheSameSinkCountTogetherAndWakeEachOther(t *testing.T) {
	woken := &wakes{}
	o := NewOutages(woken.wake)
	a, b := sharing("a", "/out", "node"), sharing("b", "/out/", "node")
	strangers := []*v1alpha1.HyperliquidParser{
		sharing("c", "/elsewhere", "node"), sharing("d", "/out", "other"), sharing("e", "", "node"), sharing("f", "", "node"),
	}
	ten := counts{desired: 10}
	for _, obj := range append([]*v1alpha1.HyperliquidParser{a, b}, strangers...) {
		o.observe(obj, ten, plan.Result{})
	}
	woken.take()

	o.observe(a, ten, plan.Result{Affected: 4, FleetWide: true})
	if got := woken.take(); got != "ns/b×1" {
		t.Errorf("woken: %s, want b alone", got)
	}
	if got, _, fleetWide := o.others(b); got != (plan.Peers{Desired: 10, Affected: 4}) || fleetWide {
		t.Errorf("around b: %+v, its own outage %v", got, fleetWide)
	}
	if got, _, fleetWide := o.others(a); got != (plan.Peers{Desired: 10}) || !fleetWide {
		t.Errorf("around a: %+v, its own outage %v", got, fleetWide)
	}
	for _, obj := range strangers {
		if got, _, _ := o.others(obj); got != (plan.Peers{}) {
			t.Errorf("around %s: %+v", obj.Name, got)
		}
	}

	o.observe(a, ten, plan.Result{Affected: 4, FleetWide: false})
	if got := woken.take(); got != "" {
		t.Errorf("woken by what is no news: %s", got)
	}

	a.Spec.Sink.File.Path = "/elsewhere"
	o.observe(a, ten, plan.Result{Affected: 4})
	if got := woken.take(); got != "ns/b×1 ns/c×1" {
		t.Errorf("woken by a change of sinks: %s, want b and c", got)
	}
	o.forget(types.NamespacedName{Namespace: "ns", Name: "c"})
	if got := woken.take(); got != "ns/a×1" {
		t.Errorf("woken by the end of c: %s, want a", got)
	}
	if got, _, _ := o.others(b); got != (plan.Peers{}) {
		t.Errorf("around b in the end: %+v", got)
	}
}

func TestServersAreSharedByAllThatNameOneOfThem(t *testing.T) {
	kafka := func(name string, brokers ...v1alpha1.Broker) *v1alpha1.HyperliquidParser {
		obj := sharing(name, "", name)
		obj.Spec.Sink.Kafka = &v1alpha1.KafkaSink{Brokers: brokers}
		return obj
	}
	both := sharing("both", "", "both")
	both.Spec.Sinks = []v1alpha1.NamedSink{
		{Name: "a", NATS: &v1alpha1.NATSSink{URL: "nats://n:4222"}},
		{Name: "b", Kafka: &v1alpha1.KafkaSink{Brokers: []v1alpha1.Broker{"x:1", "y:1"}}},
	}
	nats := sharing("nats", "", "nats")
	nats.Spec.Sink.NATS = &v1alpha1.NATSSink{URL: "tls://N", Stream: "OTHER"}
	o := NewOutages(new(wakes).wake)
	all := []*v1alpha1.HyperliquidParser{both, nats, kafka("same", "y:1", "x:1"), kafka("other", "z:1"),
		kafka("some", "w:1", "x:1")}
	for _, obj := range all {
		o.observe(obj, counts{desired: 10}, plan.Result{Affected: 1})
	}
	for i, want := range []int{3, 1, 2, 0, 2} {
		if got, _, _ := o.others(all[i]); got.Affected != want {
			t.Errorf("around %s: %+v, want %d affected", all[i].Name, got, want)
		}
	}
}

// TestWhatStrangersMaySay is the table of attackers: who can suppress the restarts of an object in another namespace,
// and how.
func TestWhatStrangersMaySay(t *testing.T) {
	const server = "nats://nats.infra.svc.cluster.local:4222"
	delivering := counts{desired: 20, delivering: 20}
	down := counts{desired: 20, delivering: 20, troubled: 20, hears: true}
	two := publishing("evil/x", server)
	two.Spec.Sink, two.Spec.Sinks = v1alpha1.Sink{}, []v1alpha1.NamedSink{
		{Name: "own", NATS: &v1alpha1.NATSSink{URL: "nats://own:4222"}},
		{Name: "theirs", NATS: &v1alpha1.NATSSink{URL: server}},
	}
	for _, test := range []struct {
		who      string
		stranger *v1alpha1.HyperliquidParser
		counts   counts
		affected int // by its own plan
		victim   string
		want     []plan.Peers
	}{
		{"one that names a server by the same short name", publishing("evil/x", "nats://nats:4222"), down, 20,
			"nats://nats:4222", nil},
		{"or by two labels", publishing("evil/x", "nats://nats.infra:4222"), down, 20, "nats://nats.infra:4222", nil},
		{"or its own loopback", publishing("evil/x", "nats://127.0.0.1:4222"), down, 20, "nats://127.0.0.1:4222", nil},
		{"one whose pods do not start", publishing("evil/x", server), counts{desired: 20}, 20, server, nil},
		{"one that never delivered, and says that the server is down", publishing("evil/x", server),
			counts{desired: 20, hears: true}, 20, server, nil},
		{"one that delivers, and whose pods hang", publishing("evil/x", server), delivering, 20, server,
			[]plan.Peers{{Desired: 20}}},
		{"one that delivers to a sink of its own", two, down, 20, server, nil},
		{"one that delivered, and says that the server is down", publishing("evil/x", server), down, 20, server,
			[]plan.Peers{{Desired: 20, Affected: 20}}},
		{"only those that delivered count", publishing("evil/x", server), counts{desired: 20, delivering: 1, troubled: 1,
			hears: true}, 20, server, []plan.Peers{{Desired: 1, Affected: 1}}},
		{"in other letters", publishing("evil/x", "tls://NATS.Infra.svc.:4222"), down, 20, server,
			[]plan.Peers{{Desired: 20, Affected: 20}}},
		{"with one server of several", publishing("evil/x", "nats://a.b.c:1,"+server), down, 20, server + ",nats://d.e.f:1",
			[]plan.Peers{{Desired: 20, Affected: 20}}},
		{"the one that owns the Service, by its short name", publishing("infra/x", "nats://nats:4222"), down, 20, server,
			[]plan.Peers{{Desired: 20, Affected: 20}}},
	} {
		t.Run(test.who, func(t *testing.T) {
			o := NewOutages(new(wakes).wake)
			o.observe(test.stranger, test.counts, plan.Result{Affected: test.affected})
			elsewhere, strangers, _ := o.others(publishing("ns/victim", test.victim))
			if elsewhere != (plan.Peers{}) {
				t.Errorf("trusted: %+v", elsewhere)
			}
			if !slices.Equal(strangers, test.want) {
				t.Errorf("heard: %+v, want %+v", strangers, test.want)
			}
		})
	}
}

func TestStrangersAreHeardByNamespace(t *testing.T) {
	const server = "nats://broker.example.com:4222"
	o := NewOutages(new(wakes).wake)
	for _, key := range []string{"b/1", "b/2", "c/1", "ns/other"} {
		o.observe(publishing(key, server), counts{desired: 5, delivering: 4, troubled: 3, hears: true},
			plan.Result{Affected: 5})
	}
	elsewhere, strangers, _ := o.others(publishing("ns/a", server))
	if elsewhere != (plan.Peers{Desired: 5, Affected: 5}) ||
		!slices.Equal(strangers, []plan.Peers{{Desired: 8, Affected: 6}, {Desired: 4, Affected: 3}}) {
		t.Errorf("got %+v and %+v", elsewhere, strangers)
	}
	// An object with several sinks does not know which of them fails.
	several := publishing("ns/a", "")
	several.Spec.Sinks = []v1alpha1.NamedSink{{Name: "a", NATS: &v1alpha1.NATSSink{URL: server}},
		{Name: "b", Stdout: &v1alpha1.StdoutSink{}}}
	if _, strangers, _ := o.others(several); strangers != nil {
		t.Errorf("one with several sinks hears %+v", strangers)
	}
}

func TestAStrangerWakesThoseThatHearItAlone(t *testing.T) {
	const server = "nats://broker.example.com:4222"
	woken := &wakes{}
	o := NewOutages(woken.wake)
	o.observe(publishing("ns/well", server), counts{desired: 5, delivering: 5}, plan.Result{})
	o.observe(publishing("ns/troubled", server), counts{desired: 5, delivering: 5, troubled: 1, hears: true},
		plan.Result{Affected: 1})
	o.observe(publishing("evil/x", server), counts{desired: 5, delivering: 5}, plan.Result{})
	woken.take()
	o.observe(publishing("evil/x", server), counts{desired: 5, delivering: 5, troubled: 5, hears: true},
		plan.Result{Affected: 5})
	if got := woken.take(); got != "ns/troubled×1" {
		t.Errorf("woken: %s", got)
	}
	// Pods that do not start do not count for other objects.
	o.observe(publishing("evil/x", server), counts{desired: 50, delivering: 5, troubled: 5, hears: true},
		plan.Result{Affected: 50})
	if got := woken.take(); got != "" {
		t.Errorf("woken by what does not count: %s", got)
	}
	o.forget(types.NamespacedName{Namespace: "evil", Name: "x"})
	if got := woken.take(); got != "ns/troubled×1" {
		t.Errorf("woken by its end: %s", got)
	}
}

func TestOnlyTargetsThatWereSeenDeliveringAreCountedForStrangers(t *testing.T) {
	views := map[string]poller.View{
		"delivers":  {Delivered: true, Judgement: health.Judgement{Verdict: health.Healthy}},
		"delivered": {Delivered: true, Judgement: health.Judgement{Verdict: health.SinkDown, Reason: "OrderStatuses"}},
		"slow":      {Delivered: true, Judgement: health.Judgement{Verdict: health.Overloaded, Reason: health.ReasonSink}},
		"busy":      {Delivered: true, Judgement: health.Judgement{Verdict: health.Overloaded, Reason: health.ReasonCPU}},
		"hangs":     {Delivered: true, Judgement: health.Judgement{Verdict: health.Stuck}},
		"locked out": {Delivered: true, Judgement: health.Judgement{Verdict: health.SinkDown,
			Reason: health.ReasonSecretMissing}},
		"never did": {Judgement: health.Judgement{Verdict: health.SinkDown, Reason: "OrderStatuses"}},
	}
	s := &observed.Fleet{Views: views}
	for _, name := range append(slices.Sorted(maps.Keys(views)), "without a pod") {
		s.Targets = append(s.Targets, target.Target{Name: name})
	}
	if got, want := countTargets(s), (counts{desired: 8, delivering: 6, troubled: 2, hears: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	delete(views, "delivered")
	delete(views, "slow")
	delete(views, "never did")
	if countTargets(s).hears {
		t.Error("it hears strangers though no sink is its trouble")
	}
}

func TestTheLargerAFleetTheLongerItsChangesAreGathered(t *testing.T) {
	r := &Reconciler{Outages: NewOutages(new(wakes).wake)}
	obj, name := &v1alpha1.HyperliquidParser{}, types.NamespacedName{Namespace: "ns", Name: "mainnet"}
	obj.Namespace, obj.Name = name.Namespace, name.Name
	if got := r.coalesce(name); got != 250*time.Millisecond {
		t.Errorf("before the first plan: %s", got)
	}
	r.Outages.observe(obj, counts{desired: 5000}, plan.Result{})
	if got := r.coalesce(name); got != time.Second {
		t.Errorf("of 5,000: %s", got)
	}
}
