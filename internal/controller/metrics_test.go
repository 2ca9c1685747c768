package controller

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// seriesOf returns the gathered series of the metrics with a prefix, with their values.
func seriesOf(t *testing.T, from prometheus.Gatherer, prefix string) map[string]float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Error(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), prefix) {
			continue
		}
		for _, m := range family.GetMetric() {
			var name strings.Builder
			name.WriteString(family.GetName())
			for _, l := range m.GetLabel() {
				fmt.Fprintf(&name, " %s=%s", l.GetName(), l.GetValue())
			}
			out[name.String()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// A scrape in the middle of a reconcile has every series whose cause lasts. Otherwise the alert's pending time would
// start over.
func TestNoSeriesIsAwayWhileItsCauseLasts(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	const objects, targets = 4, 50
	type fleet struct {
		obj *v1alpha1.HyperliquidParser
		s   *observation
	}
	fleets := make([]fleet, objects)
	for i := range fleets {
		obj, s := scene(targets)
		obj.Name = fmt.Sprint("fleet-", i)
		for j := range targets {
			s.judge(j, health.SinkDown)
			s.raise(j, health.Alerts{DataLost: health.Alert{Since: noon}})
		}
		fleets[i] = fleet{obj, s}
		m.set(obj, s.Fleet, plan.Result{FleetWide: true}, v1alpha1.HyperliquidParserStatus{Desired: targets})
	}
	want := seriesOf(t, registry, "hlparser_fleet_")
	words := len(health.Verdicts()) + len(plan.Holds()) + len(poller.Failures())
	if n := objects * (targets*3 + 5 + 5 + 1 + 1 + 1 + words); len(want) != n {
		t.Fatalf("%d series, want %d", len(want), n)
	}

	var reconciles, scrapes sync.WaitGroup
	stop := make(chan struct{})
	for _, f := range fleets {
		reconciles.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					m.set(f.obj, f.s.Fleet, plan.Result{FleetWide: true}, v1alpha1.HyperliquidParserStatus{Desired: targets})
				}
			}
		})
	}
	for range 4 {
		scrapes.Go(func() {
			for range 50 {
				got := seriesOf(t, registry, "hlparser_fleet_")
				for name, value := range want {
					if is, ok := got[name]; !ok || is != value {
						t.Errorf("%s is %v (there: %v), want %v", name, is, ok, value)
						return
					}
				}
			}
		})
	}
	scrapes.Wait()
	close(stop)
	reconciles.Wait()
}

func TestRestartsAreCountedFromZeroAndFollowTheLedger(t *testing.T) {
	obj, s := scene(2)
	var registry *prometheus.Registry
	leader := func() *Metrics {
		t.Helper()
		registry = prometheus.NewPedanticRegistry()
		m, err := NewMetrics(registry)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	shows := func(when string, want float64) {
		t.Helper()
		got := seriesOf(t, registry, "hlparser_fleet_restarts_total")
		if is, ok := got["hlparser_fleet_restarts_total name=mainnet namespace=ns"]; len(got) != 1 || !ok || is != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	m := leader()
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	shows("before any restart", 0)
	s.Ledger.Total = 1
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	shows("after one", 1)
	// There is another leader. The ledger, or the status, may be lost.
	for _, left := range []struct{ ledger, status int32 }{{7, 7}, {0, 7}, {7, 0}} {
		m, s.Ledger.Total = leader(), left.ledger
		m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{Restarts: left.status})
		shows(fmt.Sprintf("under another leader, with %+v", left), 7)
	}
}

// Whatever reason a kubelet or a parser reports, a scrape succeeds and has the other series.
func TestAStrangeReasonSpoilsNoScrape(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	obj, s := scene(2)
	s.judge(0, health.NotRunning)
	view := s.Views[nodeName(0)]
	view.Judgement.Reason = "\xff\xfe\x1b[2J"
	s.Views[nodeName(0)] = view
	s.judge(1, health.Stuck)
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	if got := shown(t, registry, "hlparser_fleet_target_bad"); len(got) != 2 {
		t.Errorf("shown: %v", got)
	}
}

func TestWhatIsForgottenIsNotShown(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	obj, s := scene(2)
	s.judge(1, health.Stuck)
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	m.forget(types.NamespacedName{Namespace: "ns", Name: "another"})
	if got := seriesOf(t, registry, "hlparser_fleet_"); len(got) == 0 {
		t.Error("nothing is shown")
	}
	m.forget(client.ObjectKeyFromObject(obj))
	if got := seriesOf(t, registry, "hlparser_fleet_"); len(got) > 0 {
		t.Errorf("shown still: %v", got)
	}
}

// registered returns metrics with a registry of their own.
func registered(t *testing.T) (*Metrics, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	m, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	return m, registry
}

// shown returns the series of one metric of the object of scene, by their other labels.
func shown(t *testing.T, from prometheus.Gatherer, metric string) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for series, value := range seriesOf(t, from, metric) {
		if name, _, _ := strings.Cut(series, " "); name != metric {
			continue
		}
		series = strings.TrimPrefix(series, metric)
		out[strings.TrimSpace(strings.ReplaceAll(series, " name=mainnet namespace=ns", ""))] = value
	}
	return out
}

// A target whose node takes no pod is no lack of a parser. One with a ready pod there is none either.
func TestTargetsThatCanTakeNoPodWait(t *testing.T) {
	m, registry := registered(t)
	obj, s := scene(5)
	unready := func(i int) { s.Pods[i].Status.Conditions = nil }
	s.Targets[0].Waits = target.NotReady // its pod is ready, as far as anybody knows
	s.Targets[1].Waits = target.NotReady
	unready(1)
	s.Targets[2].Waits = target.Cordoned
	s.Pods[2].Name = "another"
	unready(3) // it takes pods
	s.pair(obj.Name)
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{Desired: 5})
	if got := shown(t, registry, "hlparser_fleet_targets")["state=waiting"]; got != 2 {
		t.Errorf("%v targets wait, want 2", got)
	}
}

func TestBadTargetsShowSinceWhen(t *testing.T) {
	m, registry := registered(t)
	obj, s := scene(3)
	s.judge(1, health.Stuck)
	s.judge(2, health.Stuck)
	view := s.Views[nodeName(2)]
	view.Judgement.Since = time.Time{}
	s.Views[nodeName(2)] = view
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	got := shown(t, registry, "hlparser_fleet_target_bad_since_timestamp_seconds")
	if len(got) != 1 || got["target="+nodeName(1)] != float64(noon.Unix()) {
		t.Errorf("%v, want node 1 alone, since %d: an unknown time is absent", got, noon.Unix())
	}
}

func TestRestartsThatAreHeldBackAreCountedByReason(t *testing.T) {
	m, registry := registered(t)
	obj, s := scene(3)
	m.set(obj, s.Fleet, plan.Result{Held: map[string]plan.Hold{
		nodeName(0): plan.HeldCooldown, nodeName(1): plan.HeldCooldown, nodeName(2): plan.HeldBudget,
	}}, v1alpha1.HyperliquidParserStatus{})
	got := shown(t, registry, "hlparser_fleet_restarts_held")
	if len(got) != len(plan.Holds()) || got["reason=Cooldown"] != 2 || got["reason=Budget"] != 1 ||
		got["reason=Paused"] != 0 {
		t.Errorf("%v", got)
	}
}

func TestTheRetentionIsThatOfTheSpec(t *testing.T) {
	m, registry := registered(t)
	obj, s := scene(1)
	m.unseen(obj, noon, v1alpha1.HyperliquidParserStatus{})
	if got := shown(t, registry, "hlparser_fleet_retention_seconds"); len(got) > 0 {
		t.Errorf("before a reconcile it is %v", got)
	}
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	if got := shown(t, registry, "hlparser_fleet_retention_seconds"); got[""] != 86400 {
		t.Errorf("by default it is %v", got)
	}
	obj.Spec.Growth.Retention = &metav1.Duration{Duration: time.Hour}
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	if got := shown(t, registry, "hlparser_fleet_retention_seconds"); got[""] != 3600 {
		t.Errorf("with a retention of an hour it is %v", got)
	}
}

func TestTheBacklogIsReadAtTheScrape(t *testing.T) {
	m, registry := registered(t)
	obj, s := scene(1)
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	backlogs := map[types.NamespacedName]poller.Backlog{}
	m.readBacklogs(func() map[types.NamespacedName]poller.Backlog { return backlogs })
	names := []string{"hlparser_fleet_worst_lag_seconds", "hlparser_fleet_uncommitted_bytes",
		"hlparser_fleet_worst_uncommitted_bytes"}
	for _, name := range names {
		if got := shown(t, registry, name); len(got) > 0 {
			t.Errorf("%s is %v while no parser reports one", name, got)
		}
	}
	backlogs[client.ObjectKeyFromObject(obj)] = poller.Backlog{Lag: 1500 * time.Millisecond, Uncommitted: 70, Worst: 50}
	backlogs[types.NamespacedName{Namespace: "ns", Name: "unknown"}] = poller.Backlog{}
	for i, want := range []float64{1.5, 70, 50} {
		if got := shown(t, registry, names[i]); len(got) != 1 || got[""] != want {
			t.Errorf("%s is %v, want %v", names[i], got, want)
		}
	}
}

func TestLimitsAreThoseOfTheParsers(t *testing.T) {
	m, registry := registered(t)
	obj, s := scene(1)
	check := func(memory, cpu float64, what string) {
		t.Helper()
		m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
		for name, want := range map[string]float64{
			"hlparser_fleet_memory_limit_bytes": memory, "hlparser_fleet_cpu_limit_cores": cpu,
		} {
			got, is := shown(t, registry, name)[""]
			if got != want || is != (want != 0) {
				t.Errorf("%s: %s is %v (there: %v), want %v", what, name, got, is, want)
			}
		}
	}
	check(512<<20, 0, "by default")
	obj.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")}
	check(0, 1.5, "with a CPU limit alone")
}

// While a target has no pod, nobody reads its lines, and the alert about them is shown. The next pod begins with it.
func TestNearRetentionIsShownWithoutAPod(t *testing.T) {
	m, registry := registered(t)
	obj, s := scene(3)
	object := client.ObjectKeyFromObject(obj)
	var memory waits
	views := maps.Clone(s.Views)
	show := func(when string, want int, with ...int) {
		t.Helper()
		s.Views = map[string]poller.View{}
		for _, i := range with {
			s.Views[nodeName(i)] = views[nodeName(i)]
		}
		memory.observe(object, s.Fleet)
		m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
		if got := shown(t, registry, "hlparser_fleet_target_alert"); len(got) != want {
			t.Errorf("%s: %v are shown, want %d", when, got, want)
		}
	}
	near := health.Alert{Since: noon, Message: "lines wait"}
	for i := range 2 {
		view := views[nodeName(i)]
		view.Alerts.NearRetention = near
		views[nodeName(i)] = view
	}
	show("with pods", 2, 0, 1, 2)
	show("without one of them", 2, 1, 2)
	show("without any", 2)
	if got := memory.of(object); len(got) != 2 || got[nodeName(0)] != near {
		t.Errorf("the next pods begin with %v", got)
	}
	views[nodeName(0)] = views[nodeName(2)] // its next pod has read the lines
	show("with younger lines on one", 1, 0, 2)
	s.Known, s.Targets = false, nil
	show("while the targets are unknown", 1)
	s.Known, s.Targets = true, []target.Target{{Name: nodeName(0)}, {Name: nodeName(2)}}
	s.Pairs = s.Pairs[:2]
	show("with a target that is no longer wanted", 0)
	memory.Forget(object)
	if got := memory.of(object); len(got) > 0 {
		t.Errorf("of an object that is gone: %v", got)
	}
}

func TestFailedPollsAreCountedByObjectAndReason(t *testing.T) {
	m, registry := registered(t)
	obj, s := scene(1)
	object := client.ObjectKeyFromObject(obj)
	m.Polled(object, time.Second, poller.Timeout) // nothing is known of the object yet
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	m.Polled(object, time.Second, poller.Timeout)
	m.Polled(object, time.Second, poller.Timeout)
	m.Polled(object, time.Second, poller.WrongPod)
	m.Polled(object, time.Second, "")
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	const name = "hlparser_fleet_poll_failures_total"
	got := shown(t, registry, name)
	if len(got) != len(poller.Failures()) || got["reason=Timeout"] != 2 || got["reason=WrongPod"] != 1 ||
		got["reason=Seal"] != 0 {
		t.Errorf("%v", got)
	}
	m.forget(object)
	m.Polled(object, time.Second, poller.Timeout) // the poll began before
	if got := shown(t, registry, name); len(got) > 0 {
		t.Errorf("of an object that is gone: %v", got)
	}
}
