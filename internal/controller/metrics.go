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
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/version"
)

// Labels of the object and of one of its targets.
const (
	labelNamespace = "namespace"
	labelName      = "name"
	labelTarget    = "target"
)

// Metrics are the operator's metrics of its fleets. The parsers themselves export the per-target figures that change
// with every report.
//
// A scrape reads a consistent snapshot of the last reconcile of each object, so a series exists exactly as long as its
// cause and has no gap while it is replaced. It is safe for concurrent use.
type Metrics struct {
	targets  *family
	bad      *family
	alerts   *family
	verdicts *family
	states   *family
	restarts *family
	polls    *prometheus.HistogramVec

	mu sync.RWMutex
	// fleets are the snapshots by object. A snapshot in the map is never changed, only replaced.
	fleets map[types.NamespacedName]*snapshot
}

// snapshot holds the values of one object's series.
type snapshot struct {
	targets, verdicts, states map[string]float64 // by the family's label
	bad                       []badTarget
	alerts                    []raisedAlert
	restarts                  float64
}

type badTarget struct{ target, verdict, reason string }

type raisedAlert struct{ target, alert string }

// emitFunc emits one series of a family. The labels follow those of the object.
type emitFunc func(value float64, labels ...string)

// family is one metric with its series of all objects. It is a prometheus.Collector.
type family struct {
	metrics *Metrics
	desc    *prometheus.Desc
	kind    prometheus.ValueType
	samples func(fleet *snapshot, emit emitFunc)
}

// Describe implements prometheus.Collector.
func (f *family) Describe(descs chan<- *prometheus.Desc) { descs <- f.desc }

// Collect implements prometheus.Collector.
func (f *family) Collect(metrics chan<- prometheus.Metric) {
	f.metrics.mu.RLock()
	fleets := maps.Clone(f.metrics.fleets)
	f.metrics.mu.RUnlock()
	for name, fleet := range fleets {
		f.samples(fleet, func(value float64, labels ...string) {
			metrics <- prometheus.MustNewConstMetric(f.desc, f.kind, value, append([]string{name.Namespace, name.Name},
				labels...)...)
		})
	}
}

// NewMetrics registers the metrics. It fails if they are already registered.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{fleets: map[types.NamespacedName]*snapshot{}}
	gauge := func(name, help string, samples func(*snapshot, emitFunc), labels ...string) *family {
		desc := prometheus.NewDesc(name, help, append([]string{labelNamespace, labelName}, labels...), nil)
		return &family{m, desc, prometheus.GaugeValue, samples}
	}
	byLabel := func(values func(*snapshot) map[string]float64) func(*snapshot, emitFunc) {
		return func(fleet *snapshot, emit emitFunc) {
			for label, value := range values(fleet) {
				emit(value, label)
			}
		}
	}
	m.targets = gauge("hlparser_fleet_targets",
		"Number of targets by state: desired (all), current (with a pod), ready (with a ready pod), "+
			"updated (with a pod of the revision of the spec).",
		byLabel(func(fleet *snapshot) map[string]float64 { return fleet.targets }), "state")
	m.verdicts = gauge("hlparser_fleet_verdicts", "Number of targets by verdict.",
		byLabel(func(fleet *snapshot) map[string]float64 { return fleet.verdicts }), "verdict")
	m.states = gauge("hlparser_fleet_state",
		"1 while the fleet is in the state, else 0: FleetWide (a fault is not specific to one parser), RestartIneffective "+
			"(restarts do not help a target), CanarySoaking, CanaryFailed, Stalled (the operator waits until somebody changes "+
			"something).",
		byLabel(func(fleet *snapshot) map[string]float64 { return fleet.states }), "state")
	m.bad = gauge("hlparser_fleet_target_bad", "1 for each target with a bad verdict.",
		func(fleet *snapshot, emit emitFunc) {
			for _, t := range fleet.bad {
				emit(1, t.target, t.verdict, t.reason)
			}
		}, labelTarget, "verdict", "reason")
	m.alerts = gauge("hlparser_fleet_target_alert",
		"1 for each raised alert of a target, independent of the verdict: DataLost, DataGap, NearRetention, FormatDrift. "+
			"A loss stays raised until it is acknowledged.",
		func(fleet *snapshot, emit emitFunc) {
			for _, t := range fleet.alerts {
				emit(1, t.target, t.alert)
			}
		}, labelTarget, "alert")
	m.restarts = gauge("hlparser_fleet_restarts_total",
		"Restarts of an object's parsers since it was created, by all leaders of the operator.",
		func(fleet *snapshot, emit emitFunc) { emit(fleet.restarts) })
	m.restarts.kind = prometheus.CounterValue
	m.polls = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "hlparser_fleet_poll_duration_seconds",
		Help:    "Duration of polls of parsers, by result: report or failure.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2},
	}, []string{"result"})
	for _, c := range []prometheus.Collector{
		m.targets, m.verdicts, m.bad, m.alerts, m.states, m.restarts, m.polls,
		version.Get().NewCollector("hlparser_operator_build_info", "the operator"),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics: %w", err)
		}
	}
	return m, nil
}

// Polled records the duration of a poll and whether it returned a report.
func (m *Metrics) Polled(took time.Duration, ok bool) {
	result := "report"
	if !ok {
		result = "failure"
	}
	m.polls.WithLabelValues(result).Observe(took.Seconds())
}

// unseen records that the targets of an object cannot be observed. The values of the last snapshot stay.
func (m *Metrics) unseen(obj *v1alpha1.HyperliquidParser, status v1alpha1.HyperliquidParserStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := client.ObjectKeyFromObject(obj)
	next := snapshot{restarts: float64(status.Restarts)}
	if last := m.fleets[key]; last != nil {
		next = *last
	}
	states := map[string]float64{}
	maps.Copy(states, next.states)
	states[v1alpha1.ConditionStalled] = one(meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionStalled))
	next.states = states
	m.fleets[key] = &next
}

// set replaces the snapshot of an object by the result of a reconcile. From the first time on every series exists, with
// 0 as its initial value, so that an increase is visible. Series of single targets are the exception.
func (m *Metrics) set(
	obj *v1alpha1.HyperliquidParser, f *observed.Fleet, next plan.Result, status v1alpha1.HyperliquidParserStatus,
) {
	now := &snapshot{
		// The ledger has a restart before the status. Either may be lost.
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
	for _, v := range health.Verdicts() {
		now.verdicts[string(v)] = 0
	}
	for name, view := range f.Views {
		j := view.Judgement
		now.verdicts[string(cmp.Or(j.Verdict, health.Unknown))]++
		if j.Verdict.Bad() {
			// An invalid UTF-8 label would fail the whole scrape.
			now.bad = append(now.bad, badTarget{name, string(j.Verdict), strings.ToValidUTF8(j.Reason, "?")})
		}
		for _, kind := range health.AlertKinds() {
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

// forget drops the series of an object that is gone.
func (m *Metrics) forget(object types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.fleets, object)
}
