package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
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
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// reportPort is where the operator's pods serve their report.
const reportPort = 9464

// look is what can be seen of the fleet at one moment.
type look struct {
	object v1alpha1.HyperliquidParser
	nodes  []nodeLook
	events []eventsv1.Event // new since the look before
}

// nodeLook is one node's parser.
type nodeLook struct {
	name     string
	pod      *corev1.Pod // nil: there is none
	report   *report.Report
	verdict  string
	replaced int // pods that it has had before this one

	delivered int64   // records a second
	backlogs  []int64 // uncommitted bytes, one a look
}

// watcher looks again and again and remembers what a single look cannot show.
type watcher struct {
	client client.Client
	http   *http.Client
	nodes  []string

	seenEvents map[types.UID]bool
	pods       map[string][]types.UID // by node, oldest first
	backlogs   map[string][]int64
	reports    map[string]*report.Report
}

// history is how many looks a backlog's curve shows.
const history = 24

func newWatcher(c client.Client, nodes []string) *watcher {
	return &watcher{
		client: c, nodes: nodes,
		// A parser that does not answer must not hold up the table.
		http:       &http.Client{Timeout: 700 * time.Millisecond},
		seenEvents: map[types.UID]bool{},
		pods:       map[string][]types.UID{},
		backlogs:   map[string][]int64{},
		reports:    map[string]*report.Report{},
	}
}

func (w *watcher) look(ctx context.Context) (look, error) {
	var l look
	if err := w.client.Get(ctx, client.ObjectKey{Namespace: fleetNamespace, Name: fleetName}, &l.object); err != nil {
		return l, fmt.Errorf("look at the object: %w", err)
	}
	var pods corev1.PodList
	if err := w.client.List(ctx, &pods, client.InNamespace(fleetNamespace)); err != nil {
		return l, fmt.Errorf("look at the pods: %w", err)
	}
	var events eventsv1.EventList
	if err := w.client.List(ctx, &events, client.InNamespace(fleetNamespace)); err != nil {
		return l, fmt.Errorf("look at the events: %w", err)
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
		l.nodes = append(l.nodes, w.lookAt(node, &l.object, pods.Items, reports))
	}
	return l, nil
}

func (w *watcher) lookAt(
	node string, object *v1alpha1.HyperliquidParser, pods []corev1.Pod, reports map[types.UID]*report.Report,
) nodeLook {
	n := nodeLook{name: node}
	if i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Spec.NodeName == node }); i >= 0 {
		n.pod = &pods[i]
		n.report = reports[n.pod.UID]
		if known := w.pods[node]; !slices.Contains(known, n.pod.UID) {
			w.pods[node] = append(known, n.pod.UID)
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
		curve := append(w.backlogs[node], total(n.report).UncommittedBytes)
		w.backlogs[node] = curve[max(len(curve)-history, 0):]
	}
	n.backlogs = w.backlogs[node]
	return n
}

// What the operator thinks of parsers that its status does not name.
const (
	healthy = "Healthy"
	unknown = "Unknown"
)

// verdict is the operator's opinion. The status names those that are bad; that
// a new pod cannot have been judged yet goes without saying.
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

// judgedAfter is how long it takes until a parser has been asked six times.
const judgedAfter = 7 * time.Second

func (w *watcher) fetchReports(ctx context.Context, pods []corev1.Pod) map[types.UID]*report.Report {
	found := map[types.UID]*report.Report{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, pod := range pods {
		if pod.Status.PodIP == "" {
			continue
		}
		all.Go(func() {
			// A parser that starts or ends has no report: the table shows that.
			if r, err := w.fetch(ctx, pod.Status.PodIP); err == nil && r.Pod == pod.Name {
				mu.Lock()
				found[pod.UID] = r
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return found
}

func (w *watcher) fetch(ctx context.Context, ip string) (*report.Report, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, reportURL(ip, "/status"), http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := w.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", response.StatusCode)
	}
	var r report.Report
	return &r, json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&r)
}

func reportURL(ip, path string) string {
	return "http://" + net.JoinHostPort(ip, strconv.Itoa(reportPort)) + path
}

// total adds up a report's streams, as far as the table shows them.
func total(r *report.Report) report.Stream {
	var sum report.Stream
	for _, s := range r.Streams {
		sum.BufferLines += s.BufferLines + s.InFlightLines
		sum.BufferBytes += s.BufferBytes + s.InFlightBytes
		sum.BufferLimitBytes = max(sum.BufferLimitBytes, s.BufferLimitBytes)
		sum.LastBatchLines = max(sum.LastBatchLines, s.LastBatchLines)
		sum.BatchesTotal += s.BatchesTotal
		sum.DeliveredTotal += s.DeliveredTotal
		sum.UncommittedBytes += s.UncommittedBytes
		sum.LagSeconds = max(sum.LagSeconds, s.LagSeconds)
		sum.File = cmp.Or(sum.File, s.File)
	}
	return sum
}

// allReady is true when the operator says so of its present spec.
func (l *look) allReady() bool {
	return l.object.Status.ObservedGeneration == l.object.Generation &&
		int(l.object.Status.Ready) == len(l.nodes) &&
		meta.IsStatusConditionTrue(l.object.Status.Conditions, v1alpha1.ConditionReady)
}

// atRest is true when every parser has delivered and committed all it saw.
func (l *look) atRest() bool {
	for _, n := range l.nodes {
		if n.report == nil || total(n.report).UncommittedBytes != 0 {
			return false
		}
	}
	return true
}

// podOf finds a node's pod.
func (l *look) podOf(node string) *corev1.Pod {
	for _, n := range l.nodes {
		if n.name == node {
			return n.pod
		}
	}
	return nil
}
