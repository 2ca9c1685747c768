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
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
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
// cause and has no gap while it is replaced. Lag and backlog are read from the newest reports at the scrape instead,
// because they cause no reconcile. It is safe for concurrent use. It is a prometheus.Collector.
type Metrics struct {
	families []family
	polls    *prometheus.HistogramVec

	mu sync.RWMutex
	// fleets are the snapshots by object. A snapshot in the map is never changed, only replaced.
	fleets map[types.NamespacedName]*snapshot
	// failures are the polls without a report, of the objects in fleets.
	failures map[types.NamespacedName]*failures
	backlogs func() map[types.NamespacedName]poller.Backlog
}

// snapshot holds the values of one object's series.
type snapshot struct {
	targets, verdicts, states map[string]float64 // by the family's label
	held                      map[string]float64 // likewise
	bad                       []badTarget
	alerts                    []raisedAlert
	restarts                  float64
	created                   time.Time // of the object
	memoryLimit, cpuLimit     float64   // of one parser; 0: none
	retention                 time.Duration
}

type badTarget struct {
	target, verdict, reason string
	since                   time.Time
}

type raisedAlert struct{ target, alert string }

// failures counts the polls of an object's parsers that brought no report.
type failures struct {
	since  time.Time
	counts map[poller.Failure]float64
}

// scraped is what one scrape reads of an object.
type scraped struct {
	*snapshot
	failures failures
	backlog  *poller.Backlog // nil while no parser reports one
}

// emitFunc emits one series of a family. The labels follow those of the object.
type emitFunc func(value float64, labels ...string)

// family is one metric with its series of all objects.
type family struct {
	desc    *prometheus.Desc
	kind    prometheus.ValueType
	began   func(*scraped) time.Time // of a counter
	samples func(fleet *scraped, emit emitFunc)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(descs chan<- *prometheus.Desc) {
	for i := range m.families {
		descs <- m.families[i].desc
	}
	m.polls.Describe(descs)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	for name, fleet := range m.scrape() {
		object := []string{name.Namespace, name.Name}
		for i := range m.families {
			f := &m.families[i]
			f.samples(&fleet, func(value float64, labels ...string) {
				labels = slices.Concat(object, labels)
				if f.began == nil || f.began(&fleet).IsZero() {
					metrics <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
					return
				}
				metrics <- prometheus.MustNewConstMetricWithCreatedTimestamp(f.desc, f.kind, value, f.began(&fleet), labels...)
			})
		}
	}
	m.polls.Collect(metrics)
}

// scrape returns what a scrape reads now.
func (m *Metrics) scrape() map[types.NamespacedName]scraped {
	m.mu.RLock()
	out := make(map[types.NamespacedName]scraped, len(m.fleets))
	for object, fleet := range m.fleets {
		f := m.failures[object]
		out[object] = scraped{snapshot: fleet, failures: failures{f.since, maps.Clone(f.counts)}}
	}
	read := m.backlogs
	m.mu.RUnlock()
	if read == nil {
		return out
	}
	for object, backlog := range read() {
		if s, known := out[object]; known {
			s.backlog = &backlog
			out[object] = s
		}
	}
	return out
}

// readBacklogs sets what is read at each scrape.
func (m *Metrics) readBacklogs(read func() map[types.NamespacedName]poller.Backlog) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.backlogs = read
}

// NewMetrics registers the metrics. It fails if they are already registered.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	m := newMetrics()
	for _, c := range []prometheus.Collector{m, operatorBuild()} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics: %w", err)
		}
	}
	return m, nil
}

func newMetrics() *Metrics {
	m := &Metrics{fleets: map[types.NamespacedName]*snapshot{}, failures: map[types.NamespacedName]*failures{}}
	m.define()
	m.polls = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "hlparser_fleet_poll_duration_seconds",
		Help:    "Duration of polls of parsers, by result: report or failure. Absent before the first with that result.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2},
	}, []string{"result"})
	return m
}

// define sets the families.
func (m *Metrics) define() {
	add := func(kind prometheus.ValueType, name, help string, samples func(*scraped, emitFunc), labels ...string) *family {
		desc := prometheus.NewDesc(name, help, append([]string{labelNamespace, labelName}, labels...), nil)
		m.families = append(m.families, family{desc: desc, kind: kind, samples: samples})
		return &m.families[len(m.families)-1]
	}
	gauge := func(name, help string, samples func(*scraped, emitFunc), labels ...string) {
		add(prometheus.GaugeValue, name, help, samples, labels...)
	}
	byLabel := func(values func(*scraped) map[string]float64) func(*scraped, emitFunc) {
		return func(fleet *scraped, emit emitFunc) {
			for label, value := range values(fleet) {
				emit(value, label)
			}
		}
	}
	unlessZero := func(value func(*scraped) float64) func(*scraped, emitFunc) {
		return func(fleet *scraped, emit emitFunc) {
			if v := value(fleet); v != 0 {
				emit(v)
			}
		}
	}
	ofBacklog := func(value func(*poller.Backlog) float64) func(*scraped, emitFunc) {
		return func(fleet *scraped, emit emitFunc) {
			if fleet.backlog != nil {
				emit(value(fleet.backlog))
			}
		}
	}

	gauge("hlparser_fleet_targets",
		"Number of targets by state: desired (all), current (with a pod), ready (with a ready pod), "+
			"updated (with a pod of the revision of the spec), waiting (without a ready pod, and able to take none now: "+
			"the node is not ready, is cordoned or has a taint, or the target pod does not run).",
		byLabel(func(fleet *scraped) map[string]float64 { return fleet.targets }), "state")
	gauge("hlparser_fleet_verdicts", "Number of targets by verdict.",
		byLabel(func(fleet *scraped) map[string]float64 { return fleet.verdicts }), "verdict")
	gauge("hlparser_fleet_state",
		"1 while the fleet is in the state, else 0: FleetWide (a fault is not specific to one parser), RestartIneffective "+
			"(restarts do not help a target), CanarySoaking, CanaryFailed, Stalled (the operator waits until somebody changes "+
			"something).",
		byLabel(func(fleet *scraped) map[string]float64 { return fleet.states }), "state")
	gauge("hlparser_fleet_target_bad", "1 for each target with a bad verdict. Absent for all others.",
		func(fleet *scraped, emit emitFunc) {
			for _, t := range fleet.bad {
				emit(1, t.target, t.verdict, t.reason)
			}
		}, labelTarget, "verdict", "reason")
	gauge("hlparser_fleet_target_bad_since_timestamp_seconds",
		"When the verdict on the target became bad. Absent for a target whose verdict is not.",
		func(fleet *scraped, emit emitFunc) {
			for _, t := range fleet.bad {
				if !t.since.IsZero() {
					emit(float64(t.since.UnixNano())/1e9, t.target)
				}
			}
		}, labelTarget)
	gauge("hlparser_fleet_target_alert",
		"1 for each raised alert of a target, independent of the verdict: DataLost, DataGap, NearRetention, FormatDrift. "+
			"A loss stays raised until it is acknowledged, and NearRetention until a parser reports a younger backlog. Absent "+
			"for an alert that is not raised.",
		func(fleet *scraped, emit emitFunc) {
			for _, t := range fleet.alerts {
				emit(1, t.target, t.alert)
			}
		}, labelTarget, "alert")
	add(prometheus.CounterValue, "hlparser_fleet_restarts_total",
		"Restarts of an object's parsers since it was created, by all leaders of the operator.",
		func(fleet *scraped, emit emitFunc) { emit(fleet.restarts) },
	).began = func(fleet *scraped) time.Time { return fleet.created }
	gauge("hlparser_fleet_restarts_held",
		"Number of targets that need a restart and do not get one now, by reason: Budget (maxConcurrent is used up), Alert "+
			"(growth.action is Alert), Paused, Stalled, FleetWide, Unjudged (other parsers have no verdict yet), Trial (the "+
			"restart of another is being tried), Ineffective (restarts did not help), Cooldown, MaxPerHour.",
		byLabel(func(fleet *scraped) map[string]float64 { return fleet.held }), "reason")
	gauge("hlparser_fleet_worst_lag_seconds",
		"Age of the oldest unacknowledged line of all parsers that answer, by their newest reports. Absent while none "+
			"reports one.", ofBacklog(func(b *poller.Backlog) float64 { return b.Lag.Seconds() }))
	gauge("hlparser_fleet_uncommitted_bytes",
		"Bytes of whole lines that are not committed, at all parsers that answer, by their newest reports. Absent while "+
			"none reports them.", ofBacklog(func(b *poller.Backlog) float64 { return float64(b.Uncommitted) }))
	gauge("hlparser_fleet_worst_uncommitted_bytes",
		"Bytes of whole lines that are not committed, at the parser that has most of them. Absent while none reports them.",
		ofBacklog(func(b *poller.Backlog) float64 { return float64(b.Worst) }))
	gauge("hlparser_fleet_memory_limit_bytes", "Memory limit of each parser, by the spec. Absent if it has none.",
		unlessZero(func(fleet *scraped) float64 { return fleet.memoryLimit }))
	gauge("hlparser_fleet_cpu_limit_cores", "CPU limit of each parser, by the spec. Absent if it has none.",
		unlessZero(func(fleet *scraped) float64 { return fleet.cpuLimit }))
	gauge("hlparser_fleet_retention_seconds",
		"How long the node's files are kept, by growth.retention. A line that hlparser_lag_seconds shows to be as old is "+
			"about to be lost. Absent before the first reconcile of the object.",
		unlessZero(func(fleet *scraped) float64 { return fleet.retention.Seconds() }))
	add(prometheus.CounterValue, "hlparser_fleet_poll_failures_total",
		"Polls of an object's parsers that brought no report, by reason: Timeout, Connection, NoKey (a key is unknown), "+
			"Unauthorized (the parser does not know the operator's key), Status (another HTTP status), Seal (not sealed by the "+
			"pod's parser), WrongPod, Invalid. Counted since this operator observes the object.",
		func(fleet *scraped, emit emitFunc) {
			for why, count := range fleet.failures.counts {
				emit(count, string(why))
			}
		}, "reason",
	).began = func(fleet *scraped) time.Time { return fleet.failures.since }
}

// Polled records the duration of a poll, and why it failed; "" if it returned a report.
func (m *Metrics) Polled(object types.NamespacedName, took time.Duration, why poller.Failure) {
	if why == "" {
		m.polls.WithLabelValues("report").Observe(took.Seconds())
		return
	}
	m.polls.WithLabelValues("failure").Observe(took.Seconds())
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.failures[object]; f != nil { // a poll may end after its object is gone
		f.counts[why]++
	}
}

// store replaces the snapshot of an object. The caller holds mu.
func (m *Metrics) store(object types.NamespacedName, at time.Time, next *snapshot) {
	m.fleets[object] = next
	if m.failures[object] != nil {
		return
	}
	f := &failures{since: at, counts: map[poller.Failure]float64{}}
	for _, why := range poller.Failures() {
		f.counts[why] = 0
	}
	m.failures[object] = f
}

// unseen records that the targets of an object cannot be observed. The values of the last snapshot stay.
func (m *Metrics) unseen(obj *v1alpha1.HyperliquidParser, at time.Time, status v1alpha1.HyperliquidParserStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := client.ObjectKeyFromObject(obj)
	next := snapshot{restarts: float64(status.Restarts), created: obj.CreationTimestamp.Time}
	if last := m.fleets[key]; last != nil {
		next = *last
	}
	states := map[string]float64{}
	maps.Copy(states, next.states)
	states[v1alpha1.ConditionStalled] = one(meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionStalled))
	next.states = states
	m.store(key, at, &next)
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
			"ready": float64(status.Ready), "updated": float64(status.Updated), "waiting": float64(waiting(f)),
		},
		held: map[string]float64{}, created: obj.CreationTimestamp.Time,
		states: map[string]float64{
			v1alpha1.ReasonFleetWide:          one(next.FleetWide),
			v1alpha1.ReasonRestartIneffective: one(len(next.Ineffective) > 0),
			v1alpha1.ReasonCanarySoaking:      one(next.Phase == plan.PhaseCanary),
			v1alpha1.ReasonCanaryFailed:       one(next.Phase == plan.PhaseFailed),
			v1alpha1.ConditionStalled:         one(meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionStalled)),
		},
		verdicts: map[string]float64{},
	}
	limits := podspec.Resources(obj.Spec.Resources).Limits
	now.retention = growthSettings(obj, len(f.Targets)).Retention
	now.memoryLimit, now.cpuLimit = limits.Memory().AsApproximateFloat64(), limits.Cpu().AsApproximateFloat64()
	for _, hold := range plan.Holds() {
		now.held[string(hold)] = 0
	}
	for _, hold := range next.Held {
		now.held[string(hold)]++
	}
	for _, v := range health.Verdicts() {
		now.verdicts[string(v)] = 0
	}
	for name, view := range f.Views {
		j := view.Judgement
		now.verdicts[string(cmp.Or(j.Verdict, health.Unknown))]++
		if j.Verdict.Bad() {
			// An invalid UTF-8 label would fail the whole scrape.
			now.bad = append(now.bad, badTarget{name, string(j.Verdict), strings.ToValidUTF8(j.Reason, "?"), j.Since})
		}
		for _, kind := range health.AlertKinds() {
			if view.Alerts.Of(kind).Raised() {
				now.alerts = append(now.alerts, raisedAlert{name, string(kind)})
			}
		}
	}
	for name := range f.Waiting {
		if _, viewed := f.Views[name]; !viewed {
			now.alerts = append(now.alerts, raisedAlert{name, string(health.NearRetention)})
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
	m.store(client.ObjectKeyFromObject(obj), f.Now, now)
}

// waiting counts the targets that have no ready pod and can take none now.
func waiting(f *observed.Fleet) (n int) {
	for i := range f.Targets {
		pod := f.Pairs[i].Pod
		if f.Targets[i].Waits != "" && (pod == nil || !observed.PlanPod(pod).Ready) {
			n++
		}
	}
	return n
}

func queueDepth(length func() int) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hlparser_fleet_queue_depth", Help: "Objects that wait for a reconcile.",
	}, func() float64 { return float64(length()) })
}

// Collectors returns the collectors of all metrics of the operator, without values, for docs/metrics.md.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{
		newMetrics(), operatorBuild(), NewSetAside(), informers.NewHealth(clock.RealClock{}),
		queueDepth(func() int { return 0 }),
	}
}

func operatorBuild() prometheus.Collector {
	return version.Get().NewCollector("hlparser_operator_build_info", "the operator")
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
	delete(m.failures, object)
}
