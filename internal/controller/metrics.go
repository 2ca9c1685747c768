package controller

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// Labels that name the object, and one of its targets.
const (
	labelNamespace = "namespace"
	labelName      = "name"
	labelTarget    = "target"
)

// Metrics are the operator's figures of its fleets. Per-target figures that move with every report are the parsers' own metrics.
//
// A scrape reads what the last reconcile of each object left, whole: a series is there for as long as its cause is, and
// not away for the moment in which it is replaced. It is safe for concurrent use.
type Metrics struct {
	targets  *family
	bad      *family
	alerts   *family
	verdicts *family
	states   *family
	restarts *family
	polls    *prometheus.HistogramVec

	mu sync.RWMutex
	// fleets are what is shown of each object. What is in the map is never changed, only replaced.
	fleets map[types.NamespacedName]*shown
}

// shown is what is shown of one object.
type shown struct {
	targets, verdicts, states map[string]float64 // by the family's label
	bad                       []badTarget
	alerts                    []raisedAlert
	restarts                  float64
}

type badTarget struct{ target, verdict, reason string }

type raisedAlert struct{ target, alert string }

// sample hands on one series of a family, by the values of the labels that follow the object's.
type sample func(value float64, labels ...string)

// family is one metric: its series over all objects.
type family struct {
	of      *Metrics
	desc    *prometheus.Desc
	kind    prometheus.ValueType
	samples func(of *shown, sample sample)
}

// Describe sends the metric's name.
func (f *family) Describe(descs chan<- *prometheus.Desc) { descs <- f.desc }

// Collect sends the series of all objects.
func (f *family) Collect(metrics chan<- prometheus.Metric) {
	f.of.mu.RLock()
	fleets := maps.Clone(f.of.fleets)
	f.of.mu.RUnlock()
	for name, fleet := range fleets {
		f.samples(fleet, func(value float64, labels ...string) {
			metrics <- prometheus.MustNewConstMetric(f.desc, f.kind, value, append([]string{name.Namespace, name.Name},
				labels...)...)
		})
	}
}

// NewMetrics registers the metrics. It fails when they are registered already.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{fleets: map[types.NamespacedName]*shown{}}
	gauge := func(name, help string, samples func(*shown, sample), labels ...string) *family {
		desc := prometheus.NewDesc(name, help, append([]string{labelNamespace, labelName}, labels...), nil)
		return &family{m, desc, prometheus.GaugeValue, samples}
	}
	by := func(figures func(*shown) map[string]float64) func(*shown, sample) {
		return func(of *shown, sample sample) {
			for label, value := range figures(of) {
				sample(value, label)
			}
		}
	}
	m.targets = gauge("hlparser_fleet_targets",
		"Targets by what they have: desired (all), current (a pod), ready (a ready pod), updated (a pod of the wanted revision).",
		by(func(of *shown) map[string]float64 { return of.targets }), "state")
	m.verdicts = gauge("hlparser_fleet_verdicts", "Targets by verdict.",
		by(func(of *shown) map[string]float64 { return of.verdicts }), "verdict")
	m.states = gauge("hlparser_fleet_state",
		"1 while it is so, else 0: FleetWide (what is wrong is not one parser's), RestartIneffective (restarts do not help some target), "+
			"CanarySoaking, CanaryFailed, Stalled (nothing goes on until a person changes something).",
		by(func(of *shown) map[string]float64 { return of.states }), "state")
	m.bad = gauge("hlparser_fleet_target_bad", "1 for each target with a bad verdict.", func(of *shown, sample sample) {
		for _, t := range of.bad {
			sample(1, t.target, t.verdict, t.reason)
		}
	}, labelTarget, "verdict", "reason")
	m.alerts = gauge("hlparser_fleet_target_alert",
		"1 for each target and alert that is raised, whatever the verdict: DataLost, DataGap, NearRetention, "+
			"FormatDrift. A loss counts until it is acknowledged.",
		func(of *shown, sample sample) {
			for _, t := range of.alerts {
				sample(1, t.target, t.alert)
			}
		}, labelTarget, "alert")
	m.restarts = gauge("hlparser_fleet_restarts_total",
		"Restarts of an object's parsers since it was created, by whichever operator led.",
		func(of *shown, sample sample) { sample(of.restarts) })
	m.restarts.kind = prometheus.CounterValue
	m.polls = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "hlparser_fleet_poll_duration_seconds",
		Help:    "Time that polls of parsers took, by whether they brought a report.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2},
	}, []string{"result"})
	for _, c := range []prometheus.Collector{m.targets, m.verdicts, m.bad, m.alerts, m.states, m.restarts, m.polls} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering the fleet's metrics: %w", err)
		}
	}
	return m, nil
}

// Polled takes in how long a poll took and whether it brought a report.
func (m *Metrics) Polled(took time.Duration, ok bool) {
	result := "report"
	if !ok {
		result = "failure"
	}
	m.polls.WithLabelValues(result).Observe(took.Seconds())
}

// unseen takes in that it is not known which targets an object has. What was known of them is left as it was.
func (m *Metrics) unseen(obj *v1alpha1.HyperliquidParser, status v1alpha1.HyperliquidParserStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := client.ObjectKeyFromObject(obj)
	now := shown{restarts: float64(status.Restarts)}
	if before := m.fleets[key]; before != nil {
		now = *before
	}
	states := map[string]float64{}
	maps.Copy(states, now.states)
	states[v1alpha1.ConditionStalled] = one(meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionStalled))
	now.states = states
	m.fleets[key] = &now
}

// set replaces what is shown of an object by what a reconcile saw and decided. Every series of it but those of single
// targets is there from the first time on, with 0 where there is nothing, so that an increase is seen.
func (m *Metrics) set(obj *v1alpha1.HyperliquidParser, f *observed.Fleet, next plan.Result, status v1alpha1.HyperliquidParserStatus) {
	now := &shown{
		// The status has it, or has it in a moment, and the ledger has it before: each may be lost.
		restarts: float64(max(status.Restarts, f.Ledger.Total)),
		targets: map[string]float64{
			"desired": float64(status.Desired), "current": float64(status.Current),
			"ready": float64(status.Ready), "updated": float64(status.Updated),
		},
		states: map[string]float64{
			v1alpha1.ReasonFleetWide:          one(next.FleetWide),
			v1alpha1.ReasonRestartIneffective: one(len(next.Ineffective) > 0),
			v1alpha1.ReasonCanarySoaking:      one(next.Phase == plan.PhaseCanary),
			v1alpha1.ReasonCanaryFailed:       one(next.Phase == plan.PhaseFailed),
			v1alpha1.ConditionStalled:         one(meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionStalled)),
		},
		verdicts: map[string]float64{},
	}
	for _, v := range growth.Verdicts() {
		now.verdicts[string(v)] = 0
	}
	for name, view := range f.Views {
		j := view.Judgement
		now.verdicts[string(cmp.Or(j.Verdict, growth.Unknown))]++
		if j.Verdict.Bad() {
			// A label that is no UTF-8 would fail the whole scrape.
			now.bad = append(now.bad, badTarget{name, string(j.Verdict), strings.ToValidUTF8(j.Reason, "?")})
		}
		for _, kind := range growth.AlertKinds() {
			if view.Alerts.Of(kind).Raised() {
				now.alerts = append(now.alerts, raisedAlert{name, string(kind)})
			}
		}
	}
	for i := range status.Losses {
		l := &status.Losses[i]
		if a := (raisedAlert{l.Target, l.Reason}); !l.Acknowledged && !slices.Contains(now.alerts, a) {
			now.alerts = append(now.alerts, a)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fleets[client.ObjectKeyFromObject(obj)] = now
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// forget takes an object's series away.
func (m *Metrics) forget(object types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.fleets, object)
}
