package controller_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// ledgerOf reads the records of restarts; nil when there are none.
func ledgerOf(ctx context.Context, f *farm, object string) map[string]plan.Record {
	GinkgoHelper()
	var m corev1.ConfigMap
	err := k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: object + "-restarts"}, &m)
	if apierrors.IsNotFound(err) {
		return nil
	}
	Expect(err).NotTo(HaveOccurred())
	out := map[string]plan.Record{}
	for name, text := range m.Data {
		if strings.HasPrefix(name, "_") {
			continue
		}
		var r plan.Record
		Expect(json.Unmarshal([]byte(text), &r)).To(Succeed())
		out[name] = r
	}
	return out
}

// verdicts of the bad targets, by node.
func verdicts(ctx context.Context, obj *v1alpha1.HyperliquidParser) map[string]string {
	GinkgoHelper()
	out := map[string]string{}
	for _, t := range current(ctx, obj).Status.Targets {
		out[t.Target] = t.Verdict
	}
	return out
}

var _ = Describe("restarts", func() {
	It("restart those that are Stuck, one at a time within the budget, with the record first and a "+
		"short grace", func(ctx SpecContext) {
		f := newFarm(ctx, 7) // two of them are not yet the whole fleet's fault
		c := &movedClock{}
		run(runOptions{clock: c})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		before := f.uids(ctx)
		f.watchDown()
		f.setIdle(0, true) // its pod will be Terminating until we say so
		f.setIdle(1, true)
		f.parser(0).fault(hangs)
		f.parser(1).fault(hangs)

		By("restarting one of the two")
		terminating := func() []int {
			var out []int
			for i := range 2 {
				if p := f.pod(ctx, obj.Name, i); p != nil && p.DeletionTimestamp != nil {
					out = append(out, i)
				}
			}
			return out
		}
		Eventually(ctx, terminating).WithTimeout(judged).Should(HaveLen(1))
		one := terminating()[0]
		other := 1 - one
		records := ledgerOf(ctx, f, obj.Name)
		Expect(records).To(HaveLen(1))
		Expect(records[f.node(one)]).To(And(HaveField("UID", before[f.node(one)]), HaveField("Times", HaveLen(1))))

		By("holding the other back while the first is down")
		Eventually(ctx, func() map[string]string { return verdicts(ctx, obj) }).WithTimeout(judged).Should(
			HaveKeyWithValue(f.node(other), "Stuck"))
		Consistently(ctx, terminating).Should(Equal([]int{one}))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionBuffersStable)).To(Equal("False/Stuck"))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionDelivering)).To(Equal("False/Stuck"))
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionDelivering)).To(
			ContainSubstring("4.8 MiB of whole lines wait"))

		By("holding it back when the first is ready again, until that has been Healthy for two minutes")
		f.setIdle(one, false)
		f.setIdle(other, false)
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, "Recovered") }).WithTimeout(judged).Should(HaveLen(1))
		Consistently(ctx, func() int32 { return current(ctx, obj).Status.Restarts }).Should(Equal(int32(1)))
		c.move(plan.ProvenAfter)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { metav1.SetMetaDataAnnotation(&o.ObjectMeta, "look", "1") })
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Restarts }).WithTimeout(judged).Should(Equal(int32(2)))
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDelivering, "True/AllDelivering", judged)
		allReady(ctx, obj)
		Expect(f.mostDown()).To(Equal(1))
		deaths := f.seenDeaths()
		Expect(deaths).To(HaveLen(2))
		for _, d := range deaths {
			Expect(d.Grace).To(Equal(int64(5)))
			Expect(before).To(HaveKeyWithValue(d.Node, d.UID))
		}
		Expect(f.uids(ctx)).To(And(
			HaveKeyWithValue(f.node(2), before[f.node(2)]), HaveKeyWithValue(f.node(3), before[f.node(3)])))

		By("logging where they stood")
		for _, i := range []int{one, other} {
			Expect(logs.text()).To(ContainSubstring("engine.hang of " + podspec.PodName(obj.Name, f.target(i))))
		}

		By("reporting each once")
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, "Restarting") }).Should(HaveLen(2))
		Expect(eventNotes(ctx, obj, "Stuck")).To(HaveLen(2))
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, "Recovered") }).WithTimeout(judged).Should(HaveLen(2))
	})

	It("restart one whose buffers pass their bound, with its own grace, and again only after the "+
		"cooldown", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		c := &movedClock{}
		run(runOptions{clock: c})
		obj := f.object()
		obj.Spec.Growth.Restart.MaxPerHour = ptr.To[int32](2)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		restarts := func() int32 { return current(ctx, obj).Status.Restarts }
		note := func() string {
			for _, t := range current(ctx, obj).Status.Targets {
				return t.Message
			}
			return ""
		}

		f.parser(0).fault(grows)
		Eventually(ctx, restarts).WithTimeout(judged).Should(Equal(int32(1)))
		Eventually(ctx, f.seenDeaths).Should(ConsistOf(HaveField("Grace", int64(30))))
		back := func() bool { p := f.pod(ctx, obj.Name, 0); return p != nil && ready(p) }
		Eventually(ctx, back).Should(BeTrue())
		allReady(ctx, obj)

		By("breaking again at once")
		f.parser(0).fault(grows)
		Eventually(ctx, note).WithTimeout(judged).Should(MatchRegexp(`restarted once, next not before \d\d:\d\d:\d\d UTC`))
		Consistently(ctx, restarts).Should(Equal(int32(1)))

		By("letting the cooldown pass")
		c.move(5 * time.Minute)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { metav1.SetMetaDataAnnotation(&o.ObjectMeta, "look", "1") })
		Eventually(ctx, restarts).WithTimeout(judged).Should(Equal(int32(2)))
		Eventually(ctx, f.seenDeaths).Should(HaveLen(2))
		Eventually(ctx, back).Should(BeTrue())

		By("letting the doubled cooldown pass: the hourly cap holds")
		allReady(ctx, obj)
		f.parser(0).fault(grows)
		Eventually(ctx, note).WithTimeout(judged).Should(ContainSubstring("restarted 2 times, next not before"))
		c.move(11 * time.Minute)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { metav1.SetMetaDataAnnotation(&o.ObjectMeta, "look", "2") })
		Eventually(ctx, note).WithTimeout(judged).Should(
			ContainSubstring("restarted 2 times within the hour, no more before"))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionBuffersStable)).To(
			Equal("False/" + v1alpha1.ReasonRestartLimit))
		Consistently(ctx, restarts).Should(Equal(int32(2)))
		Expect(ledgerOf(ctx, f, obj.Name)[f.node(0)]).To(And(HaveField("Times", HaveLen(2)), HaveField("Doublings", 1)))
	})

	It("do not happen when only alerts are asked for", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Growth.Action = v1alpha1.GrowthActionAlert
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		before := f.uids(ctx)
		f.parser(0).fault(hangs)
		f.parser(1).fault(grows)
		Eventually(ctx, func() map[string]string { return verdicts(ctx, obj) }).WithTimeout(judged).
			Should(Equal(map[string]string{f.node(0): "Stuck", f.node(1): "Growing"}))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionBuffersStable)).To(Equal("False/Growing"))
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(Equal(before))
		Expect(ledgerOf(ctx, f, obj.Name)).To(BeNil())
		Expect(current(ctx, obj).Status.Targets[0].Message).To(ContainSubstring("growth.action is Alert"))
	})

	It("do not happen to those that are Unreachable, NotRunning or have a dead sink", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Rollout.MaxUnavailable = ptr.To(intstr.FromString("100%"))
		obj.Spec.Growth.Restart.MaxConcurrent = ptr.To(intstr.FromString("100%"))
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		before := f.uids(ctx)
		f.parser(0).setDeaf()
		f.parser(1).fault(sinkDown)
		pod := f.pod(ctx, obj.Name, 2)
		pod.Status.ContainerStatuses[0].State = corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
		pod.Status.ContainerStatuses[0].LastTerminationState = corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137}}
		Expect(k8s.Status().Update(ctx, pod)).To(Succeed())

		Eventually(ctx, func() map[string]string { return verdicts(ctx, obj) }).WithTimeout(judged).
			Should(Equal(map[string]string{f.node(0): "Unreachable", f.node(1): "SinkDown", f.node(2): "NotRunning"}))
		now := current(ctx, obj)
		Expect(now.Status.Bad).To(Equal(int32(3)))
		Expect(now.Status.Targets[0]).To(And(HaveField("Verdict", "NotRunning"), HaveField("Reason", "OOMKilled")))
		Expect(condition(now, v1alpha1.ConditionDelivering)).To(Equal("False/NotRunning"))
		Expect(condition(now, v1alpha1.ConditionBuffersStable)).To(Equal("True/AllStable"))
		Expect(conditionMessage(now, v1alpha1.ConditionDelivering)).To(ContainSubstring("and 2 targets more"))
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).WithTimeout(2 * while).Should(Equal(before))
		Expect(ledgerOf(ctx, f, obj.Name)).To(BeNil())
	})
})

var _ = Describe("a Secret that is missing", func() {
	It("stalls the object by its name, and is picked up without an edit", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Sink = v1alpha1.Sink{Kafka: &v1alpha1.KafkaSink{
			Brokers: []v1alpha1.Broker{"kafka:9092"},
			SASL:    &v1alpha1.KafkaSASL{SecretRef: v1alpha1.SecretRef{Name: "kafka-login"}},
		}}
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		before := f.uids(ctx)
		for i := range 2 {
			f.parser(i).fault(noSecret)
		}
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonSecretMissing, judged)
		now := current(ctx, obj)
		Expect(conditionMessage(now, v1alpha1.ConditionStalled)).To(
			ContainSubstring("key password of Secret kafka-login is missing"))
		Expect(condition(now, v1alpha1.ConditionReady)).To(Equal("False/" + v1alpha1.ReasonSecretMissing))
		Expect(condition(now, v1alpha1.ConditionDelivering)).To(Equal("False/SinkDown"))
		Expect(now.Status.Targets[0].Reason).To(Equal("SecretMissing"))

		for i := range 2 {
			f.parser(i).heal()
		}
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "False/NotStalled", judged)
		allReady(ctx, obj)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDelivering, "True/"+v1alpha1.ReasonAllDelivering, judged)
		Expect(f.uids(ctx)).To(Equal(before))
	})
})

// holder is a client whose deletions of pods are blocked until they are released, or fail.
type holder struct {
	client.Client
	mu   sync.Mutex
	held chan string   // names of pods whose deletion is held
	pass chan struct{} // closed: go on
}

func newHolder() *holder { return &holder{held: make(chan string, 10), pass: make(chan struct{})} }

func (h *holder) wrap(c client.Client) client.Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Client = c
	return h
}

func (h *holder) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	if _, ok := obj.(*corev1.Pod); ok {
		h.held <- obj.GetName()
		select {
		case <-h.pass:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return h.Client.Delete(ctx, obj, opts...)
}

var _ = Describe("an operator that ends between the record and the delete", func() {
	It("leaves a restart that the next one completes, without counting it again", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		h := newHolder()
		first := run(runOptions{wrap: h.wrap})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		before := f.uids(ctx)
		f.parser(0).fault(hangs)
		Eventually(ctx, h.held).WithTimeout(judged).Should(Receive(Equal(podspec.PodName(obj.Name, f.target(0)))))
		Expect(ledgerOf(ctx, f, obj.Name)[f.node(0)].UID).To(Equal(before[f.node(0)]))
		first.stop()
		Expect(f.uids(ctx)).To(Equal(before))

		By("starting again: it completes the restart long before it could judge")
		start := time.Now()
		run(runOptions{})
		Eventually(ctx, func() string { return f.uids(ctx)[f.node(0)] }).ShouldNot(Or(BeEmpty(), Equal(before[f.node(0)])))
		Expect(time.Since(start)).To(BeNumerically("<", 4*time.Second))
		allReady(ctx, obj)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDelivering, "True/AllDelivering", judged)
		Expect(ledgerOf(ctx, f, obj.Name)[f.node(0)].Times).To(HaveLen(1))
		Expect(current(ctx, obj).Status.Restarts).To(Equal(int32(1)))
		Consistently(ctx, func() int { return len(f.seenDeaths()) }).Should(Equal(1))
	})

	It("does no harm when it comes back to life after another has led", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		h := newHolder()
		// Neither takes part in the election, as if a leader were suspended past the end of its lease.
		run(runOptions{wrap: h.wrap})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		before := f.uids(ctx)
		f.parser(0).fault(hangs)
		Eventually(ctx, h.held).WithTimeout(judged).Should(Receive())

		By("letting another complete the restart")
		run(runOptions{})
		Eventually(ctx, func() string { return f.uids(ctx)[f.node(0)] }).ShouldNot(Or(BeEmpty(), Equal(before[f.node(0)])))
		Eventually(ctx, func() bool { p := f.pod(ctx, obj.Name, 0); return p != nil && ready(p) }).Should(BeTrue())
		after := f.uids(ctx)

		By("waking the first, whose delete is of a pod that is no more")
		close(h.pass)
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).WithTimeout(2 * while).Should(Equal(after))
		Expect(ledgerOf(ctx, f, obj.Name)[f.node(0)].Times).To(HaveLen(1))
		Expect(f.seenDeaths()).To(HaveLen(1))
	})

	It("hands over by its lease", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		first := run(runOptions{lead: true})
		Eventually(ctx, first.elected).Should(BeClosed())
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		second := run(runOptions{lead: true})
		Consistently(ctx, second.elected).WithTimeout(tick * 10).ShouldNot(BeClosed())
		first.stop()
		Eventually(ctx, second.elected).Should(BeClosed())
		uid := f.uids(ctx)[f.node(0)]
		Expect(k8s.Delete(ctx, f.pod(ctx, obj.Name, 0))).To(Succeed())
		Eventually(ctx, func() string { return f.uids(ctx)[f.node(0)] }).ShouldNot(Or(BeEmpty(), Equal(uid)))
	})
})

// reconciles returns the number of reconciles in this process.
func reconciles() float64 {
	GinkgoHelper()
	families, err := metrics.Registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	total := 0.0
	for _, family := range families {
		if family.GetName() == "controller_runtime_reconcile_total" {
			for _, m := range family.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}

// writes counts requests that are not reads, except those for the leader's Lease.
type writes struct {
	next http.RoundTripper
	mu   sync.Mutex
	seen []string
}

func (w *writes) wrap(c *rest.Config) {
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { w.next = next; return w })
}

func (w *writes) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet && !strings.Contains(r.URL.Path, "/leases") {
		w.mu.Lock()
		w.seen = append(w.seen, r.Method+" "+r.URL.Path)
		w.mu.Unlock()
	}
	return w.next.RoundTrip(r)
}

func (w *writes) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := slices.Clone(w.seen)
	w.seen = nil
	return out
}

var _ = Describe("a fleet at rest", func() {
	It("causes no write, however its figures wobble, its nodes' hearts beat, and its "+
		"leader changes", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		first := run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionBuffersStable, "True/AllStable", judged)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDataIntact, "True/NothingLost", soon)
		Expect(current(ctx, obj).Status).To(And(HaveField("State", "Delivering"),
			HaveField("Story", "all 3 targets deliver")))
		first.stop()

		w := &writes{}
		run(runOptions{rest: w.wrap})
		asked := f.parser(0).timesAsked()
		version := current(ctx, obj).ResourceVersion
		Consistently(ctx, func() []string {
			f.updateNode(ctx, f.node(0), func(n *corev1.Node) {
				n.Status.Conditions[0].LastHeartbeatTime = metav1.Now()
				n.Status.Images = []corev1.ContainerImage{{Names: []string{time.Now().String()}}}
			})
			return w.take()
		}).WithTimeout(12 * time.Second).Should(BeEmpty())
		Expect(f.parser(0).timesAsked() - asked).To(BeNumerically(">=", 8))
		Expect(current(ctx, obj).ResourceVersion).To(Equal(version))

		By("beating hearts and creating unrelated pods: no object is even enqueued")
		before := reconciles()
		stranger := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "stranger"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}
		Expect(k8s.Create(ctx, stranger)).To(Succeed())
		Consistently(ctx, func() float64 {
			f.updateNode(ctx, f.node(1), func(n *corev1.Node) { n.Status.Conditions[0].LastHeartbeatTime = metav1.Now() })
			return reconciles()
		}).Should(Equal(before))
	})
})

var _ = Describe("a parser that has lost data", func() {
	It("is reported once, in a condition and an event, and is not restarted", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		w := &writes{}
		run(runOptions{rest: w.wrap})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDelivering, "True/AllDelivering", judged)
		before := f.uids(ctx)

		f.parser(1).lose(2)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDelivering, "False/DataLost", soon)
		story := f.node(1) + ": Fills: 0 B never read, 2 files deleted too early: keep the node's files longer"
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionDelivering)).To(Equal(story))
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, "DataLost") }).Should(Equal([]string{story}))
		Expect(current(ctx, obj).Status.Bad).To(BeZero())

		By("losing more: the figures are the metrics' matter")
		w.take()
		f.parser(1).lose(3)
		asked := f.parser(1).timesAsked()
		Eventually(ctx, func() int { return f.parser(1).timesAsked() - asked }).Should(BeNumerically(">=", 3))
		Expect(w.take()).To(BeEmpty())
		Expect(f.uids(ctx)).To(Equal(before))
	})
})

// gate delays the watch events of pods.
type gate struct {
	next http.RoundTripper
	mu   sync.RWMutex // locked: shut
}

func (g *gate) wrap(c *rest.Config) {
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { g.next = next; return g })
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := g.next.RoundTrip(r)
	if err == nil && strings.HasSuffix(r.URL.Path, "/pods") && r.URL.Query().Get("watch") == "true" {
		response.Body = &gatedBody{ReadCloser: response.Body, gate: g}
	}
	return response, err
}

type gatedBody struct {
	io.ReadCloser
	gate *gate
}

func (b *gatedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.gate.mu.RLock()
	defer b.gate.mu.RUnlock()
	return n, err
}

var _ = Describe("an operator whose cache is behind", func() {
	It("does not take a second pod before it has seen that the first is gone", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		g := &gate{}
		run(runOptions{rest: g.wrap})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDelivering, "True/AllDelivering", judged)
		for i := range 3 {
			f.setIdle(i, true)
		}
		going := func() []string {
			var out []string
			for i := range 3 {
				if p := f.pod(ctx, obj.Name, i); p.DeletionTimestamp != nil {
					out = append(out, nodeOf(p))
				}
			}
			return out
		}

		g.mu.Lock()
		shut := true
		defer func() {
			if shut {
				g.mu.Unlock()
			}
		}()
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		Eventually(ctx, going).Should(Equal([]string{f.node(0)}))
		f.parser(2).fault(sinkDown) // the bad one would be next
		Consistently(ctx, going).WithTimeout(2 * while).Should(Equal([]string{f.node(0)}))
		g.mu.Unlock()
		shut = false
		Consistently(ctx, going).Should(Equal([]string{f.node(0)}))
		for i := range 3 {
			f.setIdle(i, false)
		}
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).WithTimeout(judged).Should(Equal(int32(3)))
	})
})
