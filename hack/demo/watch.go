package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// reportPort is the port of the parsers' reports.
const reportPort = 9464

// snapshot is the observed state of the fleet at one moment.
type snapshot struct {
	object v1alpha1.HyperliquidParser
	nodes  []nodeSnapshot
	events []eventsv1.Event // new since the previous snapshot
}

// nodeSnapshot is the observed state of one node's parser.
type nodeSnapshot struct {
	name     string
	pod      *corev1.Pod // nil if there is none
	report   *report.Report
	verdict  string
	replaced int // number of earlier pods

	delivered int64   // records per second
	backlogs  []int64 // uncommitted bytes, one per snapshot
}

// watcher polls the fleet, and keeps the history that a single snapshot lacks.
type watcher struct {
	client   client.Client
	parsers  *poller.Client
	operator *seal.Key // known to the parsers; nil until it is read
	nodes    []string

	seenEvents map[types.UID]bool
	pods       map[string][]types.UID // by node, oldest first
	backlogs   map[string][]int64
	reports    map[string]*report.Report
	images     map[string]map[string]bool // by node: all that its pods have had
}

// history is the number of snapshots in a backlog's curve.
const history = 24

func newWatcher(c client.Client, nodes []string) *watcher {
	return &watcher{
		client: c, nodes: nodes, parsers: poller.NewClient(reportPort),
		seenEvents: map[types.UID]bool{},
		pods:       map[string][]types.UID{},
		backlogs:   map[string][]int64{},
		reports:    map[string]*report.Report{},
		images:     map[string]map[string]bool{},
	}
}

func (w *watcher) poll(ctx context.Context) (snapshot, error) {
	var l snapshot
	if err := w.client.Get(ctx, client.ObjectKey{Namespace: fleetNamespace, Name: fleetName}, &l.object); err != nil {
		return l, fmt.Errorf("reading the object: %w", err)
	}
	var pods corev1.PodList
	if err := w.client.List(ctx, &pods, client.InNamespace(fleetNamespace)); err != nil {
		return l, fmt.Errorf("listing the pods: %w", err)
	}
	var events eventsv1.EventList
	if err := w.client.List(ctx, &events, client.InNamespace(fleetNamespace)); err != nil {
		return l, fmt.Errorf("listing the events: %w", err)
	}
	for _, e := range events.Items {
		if !w.seenEvents[e.UID] {
			w.seenEvents[e.UID] = true
			l.events = append(l.events, e)
		}
	}
	slices.SortFunc(l.events, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })

	reports := w.fetchReports(ctx, pods.Items)
	for _, node := range w.nodes {
		l.nodes = append(l.nodes, w.observeNode(node, &l.object, pods.Items, reports))
	}
	return l, nil
}

func (w *watcher) observeNode(
	node string, object *v1alpha1.HyperliquidParser, pods []corev1.Pod, reports map[types.UID]*report.Report,
) nodeSnapshot {
	n := nodeSnapshot{name: node}
	if i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Spec.NodeName == node }); i >= 0 {
		n.pod = &pods[i]
		n.report = reports[n.pod.UID]
		if known := w.pods[node]; !slices.Contains(known, n.pod.UID) {
			w.pods[node] = append(known, n.pod.UID)
			if w.images[node] == nil {
				w.images[node] = map[string]bool{}
			}
			w.images[node][imageOf(n.pod)] = true
		}
	}
	n.verdict = verdict(object, node, n.pod)
	n.replaced = max(len(w.pods[node])-1, 0)
	if n.report != nil {
		if last := w.reports[node]; last != nil && last.StartedAt.Equal(n.report.StartedAt) {
			if passed := n.report.Now.Sub(last.Now); passed > 0 {
				n.delivered = int64(float64(total(n.report).DeliveredTotal-total(last).DeliveredTotal) / passed.Seconds())
			}
		}
		w.reports[node] = n.report
		if waits := total(n.report).UncommittedBytes; waits != nil {
			curve := append(w.backlogs[node], *waits)
			w.backlogs[node] = curve[max(len(curve)-history, 0):]
		}
	}
	n.backlogs = w.backlogs[node]
	return n
}

// Verdicts of parsers that the operator's status does not list.
const (
	healthy = "Healthy"
	unknown = "Unknown"
)

// verdict returns the operator's verdict. The status lists the bad ones. A new pod cannot have been judged yet.
func verdict(object *v1alpha1.HyperliquidParser, node string, pod *corev1.Pod) string {
	for _, t := range object.Status.Targets {
		if t.Target == node {
			return t.Verdict
		}
	}
	stable := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionBuffersStable)
	if pod == nil || time.Since(pod.CreationTimestamp.Time) < judgedAfter ||
		stable == nil || stable.Reason == v1alpha1.ReasonNotYetJudged {
		return unknown
	}
	return healthy
}

// judgedAfter is how long it takes until a parser has been polled six times.
const judgedAfter = 7 * time.Second

// reportTimeout bounds how long an unresponsive parser may delay the table.
const reportTimeout = 700 * time.Millisecond

// fetchReports polls the parsers as the operator does, with its key. The demo is the cluster's administrator, who may
// read the key.
func (w *watcher) fetchReports(ctx context.Context, pods []corev1.Pod) map[types.UID]*report.Report {
	found := map[types.UID]*report.Report{}
	if w.readKey(ctx) != nil {
		return found // the operator has not created the key yet
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range pods {
		pod := &pods[i]
		if pod.Status.PodIP == "" {
			continue
		}
		all.Go(func() {
			var r report.Report
			err := w.parsers.Fetch(ctx, pod.Namespace, poller.Endpoint{
				Target: pod.Annotations[v1alpha1.AnnotationTarget], PodName: pod.Name, IP: pod.Status.PodIP,
				Plain: !podspec.Sealed(pod), Key: podspec.PublicKey(pod), Operator: w.operator,
			}, reportTimeout, &r)
			// A parser that starts or ends has no report. The table shows that.
			if err == nil {
				mu.Lock()
				found[pod.UID] = &r
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return found
}

// readKey reads the operator's key once.
func (w *watcher) readKey(ctx context.Context) error {
	if w.operator != nil {
		return nil
	}
	var secret corev1.Secret
	if err := w.client.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: keys.SecretName}, &secret); err != nil {
		return fmt.Errorf("reading the operator's keys: %w", err)
	}
	ring, err := keys.OfSecret(&secret)
	if err != nil {
		return fmt.Errorf("reading the operator's keys: %w", err)
	}
	w.operator = ring[0].Key
	return nil
}

func reportURL(ip, path string) string {
	return "http://" + net.JoinHostPort(ip, strconv.Itoa(reportPort)) + path
}

// total sums the figures of a report's streams that the table shows. UncommittedBytes is nil if it is unknown for one
// stream.
func total(r *report.Report) report.Stream {
	sum := report.Stream{UncommittedBytes: new(int64)}
	for _, s := range r.Streams {
		sum.BufferLines += s.BufferLines + s.InFlightLines
		sum.BufferBytes += s.BufferBytes + s.InFlightBytes
		sum.BufferLimitBytes = max(sum.BufferLimitBytes, s.BufferLimitBytes)
		sum.LastBatchLines = max(sum.LastBatchLines, s.LastBatchLines)
		sum.BatchesTotal += s.BatchesTotal
		sum.DeliveredTotal += s.DeliveredTotal
		switch {
		case s.UncommittedBytes == nil:
			sum.UncommittedBytes = nil
		case sum.UncommittedBytes != nil:
			*sum.UncommittedBytes += *s.UncommittedBytes
		}
		sum.File = cmp.Or(sum.File, s.File)
	}
	return sum
}

// allReady reports whether the operator's status, for the present spec, says that all parsers are ready.
func (l *snapshot) allReady() bool {
	return l.object.Status.ObservedGeneration == l.object.Generation &&
		int(l.object.Status.Ready) == len(l.nodes) &&
		meta.IsStatusConditionTrue(l.object.Status.Conditions, v1alpha1.ConditionReady)
}

// atRest reports whether every parser has delivered and committed everything it has read.
func (l *snapshot) atRest() bool {
	for _, n := range l.nodes {
		if n.report == nil {
			return false
		}
		if waits := total(n.report).UncommittedBytes; waits == nil || *waits != 0 {
			return false
		}
	}
	return true
}

// podOf returns a node's pod, or nil.
func (l *snapshot) podOf(node string) *corev1.Pod {
	for _, n := range l.nodes {
		if n.name == node {
			return n.pod
		}
	}
	return nil
}
