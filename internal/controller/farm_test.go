package controller_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// farm is a spec's own namespace and nodes, with what envtest lacks: it binds each pod to the one node that its
// affinity names, runs a parser for it (a report server on an address of its own), sets its status, and ends it when it
// is deleted.
type farm struct {
	namespace string
	label     string // value of the role label of this farm's nodes

	mu      sync.Mutex
	parsers map[string]*parser // by node
	idle    map[string]bool    // nodes whose kubelet does nothing
	pods    map[string]string  // UID by name of the pods that run
	deaths  []death
	watched int // how many pods there should be; 0: not watched
	most    int // the most that were down at once
	unready bool
	offline bool // the API server is gone

	// volumes is where the kubelets keep the operator's keys for the pods of each object.
	volumes string
}

// death is what the kubelet observed of a pod's end.
type death struct {
	Node  string
	UID   string
	Grace int64
}

var (
	farms     atomic.Int32
	addresses atomic.Int32
)

const roleLabel = "hyperliquid.xyz/role"

// newFarm makes a namespace with n nodes that are Ready and labelled, and their kubelets.
func newFarm(ctx context.Context, n int) *farm {
	GinkgoHelper()
	id := farms.Add(1)
	f := &farm{
		namespace: fmt.Sprintf("farm-%d", id), label: fmt.Sprintf("farm-%d", id),
		parsers: map[string]*parser{}, idle: map[string]bool{}, pods: map[string]string{}, volumes: GinkgoT().TempDir(),
	}
	Expect(k8s.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.namespace}})).To(Succeed())
	DeferCleanup(f.clear)
	for i := range n {
		f.addNode(ctx, f.node(i), true)
	}
	kubelet, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer GinkgoRecover()
		defer close(done)
		f.kubelets(kubelet)
	}()
	DeferCleanup(func() {
		cancel()
		<-done
		for _, p := range f.parsers {
			p.close()
		}
	})
	return f
}

// node is the name of the i-th node.
func (f *farm) node(i int) string { return fmt.Sprintf("%s-node-%d", f.namespace, i) }

// target is the i-th node as a target.
func (f *farm) target(i int) target.Target { return target.Target{Name: f.node(i), Node: f.node(i)} }

func (f *farm) addNode(ctx context.Context, name string, labelled bool) {
	GinkgoHelper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	if labelled {
		node.Labels[roleLabel] = f.label
	}
	Expect(k8s.Create(ctx, node)).To(Succeed())
	f.updateNode(ctx, name, func(node *corev1.Node) {
		node.Spec.Taints = nil // admission says not-ready of every new node; the node controller takes that away
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	})
	p := newParser(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parsers[name] = p
}

func (f *farm) setNodeReady(ctx context.Context, name string, ready corev1.ConditionStatus) {
	GinkgoHelper()
	f.updateNode(ctx, name, func(node *corev1.Node) {
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready,
			LastHeartbeatTime: metav1.Now()}}
	})
}

// updateNode changes the spec or status of a node.
func (f *farm) updateNode(ctx context.Context, name string, change func(*corev1.Node)) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		node := &corev1.Node{}
		g.Expect(k8s.Get(ctx, client.ObjectKey{Name: name}, node)).To(Succeed())
		change(node)
		status := node.Status
		g.Expect(k8s.Update(ctx, node)).To(Succeed())
		node.Status = status
		g.Expect(k8s.Status().Update(ctx, node)).To(Succeed())
	}).Should(Succeed())
}

// parser returns the parser of a node.
func (f *farm) parser(i int) *parser {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.parsers[f.node(i)]
}

// setIdle makes a node's kubelet do nothing, or work again.
func (f *farm) setIdle(i int, idle bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle[f.node(i)] = idle
}

// seenDeaths are the pods that have ended so far.
func (f *farm) seenDeaths() []death {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.deaths)
}

// kubelets does the work of all nodes until the context ends.
func (f *farm) kubelets(ctx context.Context) {
	for ctx.Err() == nil {
		var pods corev1.PodList
		if err := k8s.List(ctx, &pods, client.InNamespace(f.namespace)); err == nil {
			f.refresh(ctx)
			f.work(ctx, pods.Items)
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// refresh updates the operator's keys in the pods to the published ones.
func (f *farm) refresh(ctx context.Context) {
	var maps corev1.ConfigMapList
	ours := client.MatchingLabels{v1alpha1.LabelComponent: v1alpha1.ComponentKeys}
	if err := k8s.List(ctx, &maps, client.InNamespace(f.namespace), ours); err != nil {
		return // the API server is away: pods go on with what they have seen
	}
	for i := range maps.Items {
		file, text := f.keysFile(maps.Items[i].Labels[v1alpha1.LabelParser]),
			[]byte(maps.Items[i].Data[podspec.OperatorsFile])
		if there, err := os.ReadFile(file); err == nil && bytes.Equal(there, text) {
			continue
		}
		Expect(os.WriteFile(file+".new", text, 0o600)).To(Succeed())
		Expect(os.Rename(file+".new", file)).To(Succeed())
	}
}

// keysFile returns the file in which the pods of an object find the operator's keys.
func (f *farm) keysFile(object string) string { return filepath.Join(f.volumes, object) }

// work does what is to be done for pods, and counts those that are down.
func (f *farm) work(ctx context.Context, pods []corev1.Pod) {
	down := 0
	for i := range pods {
		err := f.kubelet(ctx, &pods[i])
		f.mu.Lock()
		offline := f.offline
		f.mu.Unlock()
		if err != nil && ctx.Err() == nil && !offline && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			Fail(fmt.Sprintf("kubelet: %v", err))
		}
		if !ready(&pods[i]) {
			down++
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watched > 0 {
		f.most = max(f.most, down+f.watched-len(pods))
	}
}

// withoutAPIServer calls do while there is no API server.
func (f *farm) withoutAPIServer(do func()) {
	GinkgoHelper()
	f.setOffline(true)
	Expect(apiServer.Stop()).To(Succeed())
	do()
	Expect(apiServer.Start()).To(Succeed())
	f.setOffline(false)
}

func (f *farm) setOffline(offline bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offline = offline
}

// watchDown starts to count how many of the present pods are missing or not ready at once.
func (f *farm) watchDown() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched, f.most = len(f.pods), 0
}

// mostDown returns the largest number of pods that were down at once since watchDown.
func (f *farm) mostDown() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.most
}

// setUnready makes pods that start from now on stay unready.
func (f *farm) setUnready(unready bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unready = unready
}

func (f *farm) kubelet(ctx context.Context, pod *corev1.Pod) error {
	node := nodeOf(pod)
	f.mu.Lock()
	p, idle := f.parsers[node], f.idle[node]
	f.mu.Unlock()
	switch {
	case p == nil || idle:
		return nil
	case pod.Spec.NodeName == "":
		return k8s.SubResource("binding").Create(ctx, pod,
			&corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}})
	case pod.DeletionTimestamp != nil:
		return f.end(ctx, pod, p)
	case pod.Status.Phase == corev1.PodPending:
		return f.start(ctx, pod, p)
	}
	return nil
}

func (f *farm) start(ctx context.Context, pod *corev1.Pod, p *parser) error {
	f.refresh(ctx)
	var guard *seal.Guard
	if podspec.Sealed(pod) {
		key, err := seal.NewKey()
		Expect(err).NotTo(HaveOccurred())
		guard = seal.NewGuard(key, f.keysFile(pod.Labels[v1alpha1.LabelParser]), slog.New(slog.DiscardHandler))
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{
			Name: "prepare", Ready: true, Image: pod.Spec.InitContainers[0].Image, ContainerID: "test://prepare-" +
				string(pod.UID),
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason: "Completed", Message: seal.Message(key.Public()), ContainerID: "test://prepare-" + string(pod.UID),
			}},
		}}
	}
	p.serve(pod.Name, guard)
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIP, pod.Status.PodIPs = p.ip, []corev1.PodIP{{IP: p.ip}}
	now := metav1.Now()
	is := corev1.ConditionTrue
	f.mu.Lock()
	if f.unready {
		is = corev1.ConditionFalse
	}
	f.mu.Unlock()
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: is, LastTransitionTime: now}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "hlparser", Ready: true, ContainerID: "test://" + string(pod.UID), Image: pod.Spec.Containers[0].Image,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
	}}
	if err := k8s.Status().Update(ctx, pod); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pods[pod.Name] = string(pod.UID)
	return nil
}

// boot reboots a node: its containers start again.
func (f *farm) boot(ctx context.Context, object string, i int, id string) {
	GinkgoHelper()
	f.updateNode(ctx, f.node(i), func(node *corev1.Node) { node.Status.NodeInfo.BootID = id })
	pod := f.pod(ctx, object, i)
	container := &pod.Status.ContainerStatuses[0]
	container.RestartCount++
	container.ContainerID = fmt.Sprintf("test://%s-%d", pod.UID, container.RestartCount)
	container.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 255, Reason: "Unknown",
		ContainerID: "test://before"}
	Expect(k8s.Status().Update(ctx, pod)).To(Succeed())
}

// end completes a deletion. A bound pod stays Terminating until its kubelet is done, which is asserted first.
func (f *farm) end(ctx context.Context, pod *corev1.Pod, p *parser) error {
	Expect(pod.DeletionGracePeriodSeconds).NotTo(BeNil())
	grace := *pod.DeletionGracePeriodSeconds
	p.close()
	err := k8s.Delete(ctx, pod, client.GracePeriodSeconds(0), client.Preconditions{UID: &pod.UID})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaths = append(f.deaths, death{Node: pod.Spec.NodeName, UID: string(pod.UID), Grace: grace})
	delete(f.pods, pod.Name)
	return nil
}

// nodeOf is the node that a pod's required affinity names.
func nodeOf(pod *corev1.Pod) string {
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, field := range term.MatchFields {
				if field.Key == metav1.ObjectNameField && len(field.Values) == 1 {
					return field.Values[0]
				}
			}
		}
	}
	return ""
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

// clear does the work of the garbage collector, so that nothing of a spec is left for the next spec's operator.
func (f *farm) clear(ctx context.Context) {
	in := client.InNamespace(f.namespace)
	var objects v1alpha1.HyperliquidParserList
	Expect(k8s.List(ctx, &objects, in)).To(Succeed())
	for i := range objects.Items {
		objects.Items[i].Finalizers = nil
		Expect(client.IgnoreNotFound(k8s.Update(ctx, &objects.Items[i]))).To(Succeed())
	}
	Expect(k8s.DeleteAllOf(ctx, &v1alpha1.HyperliquidParser{}, in)).To(Succeed())
	Expect(k8s.DeleteAllOf(ctx, &corev1.Pod{}, in, client.GracePeriodSeconds(0))).To(Succeed())
	Expect(k8s.DeleteAllOf(ctx, &corev1.ConfigMap{}, in)).To(Succeed())
	Expect(k8s.DeleteAllOf(ctx, &appsv1.ControllerRevision{}, in)).To(Succeed())
	Expect(k8s.DeleteAllOf(ctx, &networkingv1.NetworkPolicy{}, in)).To(Succeed())
	Expect(k8s.DeleteAllOf(ctx, &corev1.Node{}, client.MatchingLabels{roleLabel: f.label})).To(Succeed())
}

// object returns a valid object that selects the farm's nodes, with the shortest intervals that admission allows.
func (f *farm) object() *v1alpha1.HyperliquidParser {
	second := func(n int) *metav1.Duration { return &metav1.Duration{Duration: time.Duration(n) * time.Second} }
	return &v1alpha1.HyperliquidParser{
		ObjectMeta: metav1.ObjectMeta{Name: "mainnet", Namespace: f.namespace},
		Spec: v1alpha1.HyperliquidParserSpec{
			Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{
				Selector: metav1.LabelSelector{MatchLabels: map[string]string{roleLabel: f.label}},
				DataPath: "/home/hluser/hl/data",
			}},
			Streams: []v1alpha1.Stream{{Name: "OrderStatuses"}, {Name: "Fills"}},
			Sink:    v1alpha1.Sink{Stdout: &v1alpha1.StdoutSink{}},
			Growth:  v1alpha1.Growth{PollInterval: second(1), StuckAfter: second(3)},
		},
	}
}

// pod reads the pod of the i-th node, or returns nil if there is none.
func (f *farm) pod(ctx context.Context, object string, i int) *corev1.Pod {
	GinkgoHelper()
	pod := &corev1.Pod{}
	err := k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: podspec.PodName(object, f.target(i))}, pod)
	if apierrors.IsNotFound(err) {
		return nil
	}
	Expect(err).NotTo(HaveOccurred())
	return pod
}

// uids returns the UIDs of all live pods, by node.
func (f *farm) uids(ctx context.Context) map[string]string {
	GinkgoHelper()
	var pods corev1.PodList
	Expect(k8s.List(ctx, &pods, client.InNamespace(f.namespace))).To(Succeed())
	out := map[string]string{}
	for i := range pods.Items {
		if pods.Items[i].DeletionTimestamp == nil {
			out[nodeOf(&pods.Items[i])] = string(pods.Items[i].UID)
		}
	}
	return out
}

// parser is a report server at an address of its own in 127.0.0.0/8.
type parser struct {
	node string
	ip   string

	mu       sync.Mutex
	server   *http.Server
	listener net.Listener
	pod      string
	asked    int
	figures  report.Report
	// moves is true while the parser works: each report shows progress.
	moves bool
	// breaks, when set, is what is wrong with the parser, until its pod is replaced.
	breaks func(*report.Report)
	// deaf parsers hold the connection and never answer.
	deaf bool
	// nodeAddress, when set, makes it listen on localhost too, as in a pod with a network of its own. One parser at a
	// time can.
	nodeAddress string
}

func newParser(node string) *parser {
	n := addresses.Add(1)
	// Suites that run in parallel may have the same port.
	return &parser{node: node, ip: fmt.Sprintf("127.%d.%d.%d", 63+GinkgoParallelProcess(), n/250+1, n%250+1)}
}

// serve starts a new, healthy process for a pod, which lets in whom the guard does; nil: everybody.
func (p *parser) serve(pod string, guard *seal.Guard) {
	GinkgoHelper()
	p.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.pod, p.moves, p.breaks, p.deaf = pod, true, nil, false
	p.figures = report.Report{Version: "test", Parser: "hlparser", Target: p.node, Pod: pod, StartedAt: now}
	for _, name := range []string{"OrderStatuses", "Fills"} {
		p.figures.Streams = append(p.figures.Streams, report.Stream{
			Name: name, Mode: "Line", State: report.Running, BufferLimitBytes: 32 << 20, LargestLineBytes: 600,
			UncommittedBytes: new(int64), LagSeconds: new(float64),
			Sink: report.Sink{State: report.SinkHealthy, Since: &now, LastAckAt: &now},
		})
	}
	listener, err := report.Listen(net.JoinHostPort(p.ip, strconv.Itoa(reportPort)), p.nodeAddress,
		slog.New(slog.DiscardHandler))
	Expect(err).NotTo(HaveOccurred())
	var handler http.Handler = p
	if guard != nil {
		handler = guard.Handler(1<<16, p)
	}
	p.server, p.listener = &http.Server{Handler: handler, ReadHeaderTimeout: time.Second}, listener
	go func(server *http.Server) { _ = server.Serve(listener) }(p.server)
}

func (p *parser) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		_ = p.server.Close()
		_ = p.listener.Close() // the server may not have begun to serve it
		p.server = nil
	}
}

// fault breaks the parser until its pod is replaced.
func (p *parser) fault(breaks func(*report.Report)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moves, p.breaks = false, breaks
}

// heal ends a fault of the sink.
func (p *parser) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.moves, p.breaks = true, nil
	p.figures.Streams[0].Sink = report.Sink{State: report.SinkHealthy, Since: &now, LastAckAt: &now}
}

// lose counts files of its second stream that vanished unread. The parser goes on.
func (p *parser) lose(files int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.figures.Streams[1].PrunedUnreadTotal += files
}

// onNode gives it the address of its node from its next start on.
func (p *parser) onNode(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodeAddress = address
}

func (p *parser) setDeaf() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = true
}

func (p *parser) timesAsked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *parser) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	if r.URL.Path == report.StackPath {
		defer p.mu.Unlock()
		_, _ = fmt.Fprintf(w, "goroutine 7 [chan send, 5 minutes]:\nengine.hang of %s", p.pod)
		return
	}
	p.asked++
	if p.deaf {
		p.mu.Unlock()
		<-r.Context().Done()
		return
	}
	defer p.mu.Unlock()
	now := time.Now()
	p.figures.Now = now
	for i := range p.figures.Streams {
		s := &p.figures.Streams[i]
		if p.moves {
			// ±20 % of noise on everything that may wobble.
			step := 800_000 + (now.UnixNano()/1000)%400_000
			s.ReadBytesTotal += step
			s.ParsedBytesTotal, s.AckedBytesTotal, s.CommittedBytesTotal = s.ReadBytesTotal, s.ReadBytesTotal, s.ReadBytesTotal
			s.BufferBytes, s.BufferLines = step, step/500
			s.UncommittedBytes, s.LagSeconds = &step, new(float64(step)/1e7)
			s.Sink.LastAckAt = &now
		}
	}
	if p.breaks != nil {
		p.breaks(&p.figures)
	}
	_ = json.NewEncoder(w).Encode(p.figures)
}

// Faults.
var (
	hangs = func(r *report.Report) {
		r.Streams[0].UncommittedBytes, r.Streams[0].LagSeconds = new(int64(5_000_000)), new(12.0)
	}
	grows = func(r *report.Report) {
		r.Streams[0].InFlightBytes += 500 << 20
		r.Streams[0].InFlightLines += 1_000_000
		r.Streams[0].AckedBytesTotal++
	}
	sinkDown = func(r *report.Report) {
		long := r.Now.Add(-45 * time.Second)
		r.Streams[0].UncommittedBytes = new(int64(5_000_000))
		r.Streams[0].Sink = report.Sink{State: report.SinkRetrying, Since: &long, LastAckAt: &long,
			LastError: "no space left on device"}
	}
	noSecret = func(r *report.Report) {
		r.Streams[0].Sink = report.Sink{State: report.SinkRetrying, MissingSecret: "/secrets/kafka-login/password",
			LastError: "no such file"}
	}
)

// condition returns "Status/Reason" of a condition; "" when it is not set.
func condition(obj *v1alpha1.HyperliquidParser, kind string) string {
	for _, c := range obj.Status.Conditions {
		if c.Type == kind {
			return string(c.Status) + "/" + c.Reason
		}
	}
	return ""
}

func conditionMessage(obj *v1alpha1.HyperliquidParser, kind string) string {
	for _, c := range obj.Status.Conditions {
		if c.Type == kind {
			return c.Message
		}
	}
	return ""
}

// current reads an object again.
func current(ctx context.Context, obj *v1alpha1.HyperliquidParser) *v1alpha1.HyperliquidParser {
	GinkgoHelper()
	out := &v1alpha1.HyperliquidParser{}
	Expect(k8s.Get(ctx, client.ObjectKeyFromObject(obj), out)).To(Succeed())
	return out
}

// change edits an object as a person would, again when somebody else wrote at the same time.
func change(ctx context.Context, obj *v1alpha1.HyperliquidParser, edit func(*v1alpha1.HyperliquidParser)) {
	GinkgoHelper()
	Eventually(ctx, func() error {
		now := current(ctx, obj)
		edit(now)
		return k8s.Update(ctx, now)
	}).Should(Succeed())
}

// eventuallyCondition waits until a condition is "Status/Reason".
func eventuallyCondition(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, kind, want string, within time.Duration,
) {
	GinkgoHelper()
	Eventually(ctx, func() string { return condition(current(ctx, obj), kind) }).WithTimeout(within).Should(Equal(want))
}

// allReady waits until the fleet is complete and every target was judged.
func allReady(ctx context.Context, obj *v1alpha1.HyperliquidParser) {
	GinkgoHelper()
	Eventually(ctx, func() string {
		now := current(ctx, obj)
		if now.Status.ObservedGeneration != now.Generation {
			return "not observed yet"
		}
		return condition(now, v1alpha1.ConditionReady)
	}).WithTimeout(soon).Should(Equal("True/AllReady"))
}

// eventNotes are the texts of the events about an object with a reason.
func eventNotes(ctx context.Context, obj *v1alpha1.HyperliquidParser, reason string) []string {
	GinkgoHelper()
	var list corev1.EventList
	Expect(k8s.List(ctx, &list, client.InNamespace(obj.Namespace))).To(Succeed())
	var out []string
	for _, e := range list.Items {
		if e.Reason == reason && e.InvolvedObject.Name == obj.Name {
			out = append(out, strings.TrimSpace(e.Message))
		}
	}
	return out
}
