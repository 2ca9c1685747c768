package controller

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// Labels that name the object, and one of its targets.
const (
	labelNamespace = "namespace"
	labelName      = "name"
	labelTarget    = "target"
)

// Metrics are the operator's figures of its fleets. Per-target figures that move with every report are the parsers' own metrics.
type Metrics struct {
	targets  *prometheus.GaugeVec
	bad      *prometheus.GaugeVec
	alerts   *prometheus.GaugeVec
	verdicts *prometheus.GaugeVec
	states   *prometheus.GaugeVec
	restarts *prometheus.CounterVec
	polls    *prometheus.HistogramVec

	mu sync.Mutex
	// shown are the series of single targets, by object, to take away those that are over.
	shown map[types.NamespacedName][]series
}

// series is one of a vector.
type series struct {
	of     *prometheus.GaugeVec
	labels prometheus.Labels
}

// NewMetrics registers the metrics. It fails when they are registered already.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	object := []string{labelNamespace, labelName}
	m := &Metrics{
		targets: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hlparser_fleet_targets",
			Help: "Targets by what they have: desired (all), current (a pod), ready (a ready pod), updated (a pod of the wanted revision).",
		}, append(object, "state")),
		verdicts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hlparser_fleet_verdicts",
			Help: "Targets by verdict.",
		}, append(object, "verdict")),
		bad: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hlparser_fleet_target_bad",
			Help: "1 for each target with a bad verdict.",
		}, append(object, labelTarget, "verdict", "reason")),
		alerts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hlparser_fleet_target_alert",
			Help: "1 for each target and alert that is raised, whatever the verdict: DataLost, DataGap, NearRetention.",
		}, append(object, labelTarget, "alert")),
		states: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hlparser_fleet_state",
			Help: "1 while it is so, else 0: FleetWide (what is wrong is not one parser's), RestartIneffective (restarts do not help some target), " +
				"CanarySoaking, CanaryFailed, Stalled (nothing goes on until a person changes something).",
		}, append(object, "state")),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hlparser_fleet_restarts_total",
			Help: "Restarts of parsers by this process, by the verdict that led to them.",
		}, append(object, "verdict")),
		polls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "hlparser_fleet_poll_duration_seconds",
			Help:    "Time that polls of parsers took, by whether they brought a report.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2},
		}, []string{"result"}),
		shown: map[types.NamespacedName][]series{},
	}
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

func (m *Metrics) restarted(obj *v1alpha1.HyperliquidParser, j growth.Judgement) {
	m.restarts.WithLabelValues(obj.Namespace, obj.Name, string(j.Verdict)).Inc()
}

func (m *Metrics) set(obj *v1alpha1.HyperliquidParser, s *seen, next plan.Result, status v1alpha1.HyperliquidParserStatus) {
	for state, is := range map[string]bool{
		v1alpha1.ReasonFleetWide:          next.FleetWide,
		v1alpha1.ReasonRestartIneffective: len(next.Ineffective) > 0,
		v1alpha1.ReasonCanarySoaking:      next.Phase == plan.PhaseCanary,
		v1alpha1.ReasonCanaryFailed:       next.Phase == plan.PhaseFailed,
		v1alpha1.ConditionStalled:         meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionStalled),
	} {
		value := 0.0
		if is {
			value = 1
		}
		m.states.WithLabelValues(obj.Namespace, obj.Name, state).Set(value)
	}
	for state, n := range map[string]int32{
		"desired": status.Desired, "current": status.Current, "ready": status.Ready, "updated": status.Updated,
	} {
		m.targets.WithLabelValues(obj.Namespace, obj.Name, state).Set(float64(n))
	}
	counts := map[growth.Verdict]int{}
	var shown []series
	for name, view := range s.views {
		j := view.Judgement
		counts[j.Verdict]++
		if j.Verdict.Bad() {
			shown = append(shown, series{m.bad, prometheus.Labels{
				labelNamespace: obj.Namespace, labelName: obj.Name, labelTarget: name, "verdict": string(j.Verdict), "reason": j.Reason,
			}})
		}
		for _, kind := range growth.AlertKinds() {
			if view.Alerts.Of(kind).Raised() {
				shown = append(shown, series{m.alerts, prometheus.Labels{
					labelNamespace: obj.Namespace, labelName: obj.Name, labelTarget: name, "alert": string(kind),
				}})
			}
		}
	}
	for _, v := range growth.Verdicts() {
		m.verdicts.WithLabelValues(obj.Namespace, obj.Name, string(v)).Set(float64(counts[v]))
	}
	m.show(client.ObjectKeyFromObject(obj), shown)
}

// show replaces the series of an object's targets.
func (m *Metrics) show(object types.NamespacedName, shown []series) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, old := range m.shown[object] {
		old.of.Delete(old.labels)
	}
	for _, now := range shown {
		now.of.With(now.labels).Set(1)
	}
	m.shown[object] = shown
}

func (m *Metrics) forget(object types.NamespacedName) {
	labels := prometheus.Labels{labelNamespace: object.Namespace, labelName: object.Name}
	m.targets.DeletePartialMatch(labels)
	m.verdicts.DeletePartialMatch(labels)
	m.states.DeletePartialMatch(labels)
	m.restarts.DeletePartialMatch(labels)
	m.bad.DeletePartialMatch(labels)
	m.alerts.DeletePartialMatch(labels)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.shown, object)
}
