package controller

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
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
	if n := objects * (targets*2 + 4 + 5 + len(health.Verdicts()) + 1); len(want) != n {
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
	if got := seriesOf(t, registry, "hlparser_fleet_target_bad"); len(got) != 2 {
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
