package controller_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

var _ = Describe("a fleet", func() {
	It("gets one parser on each selected node, pinned to it, configured by an immutable ConfigMap, "+
		"and owned", func(ctx SpecContext) {
		f := newFarm(ctx, 4)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Filter.Coins = []v1alpha1.Coin{"BTC", "xyz:*"}
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)

		now := current(ctx, obj)
		Expect(now.Status).To(And(
			HaveField("Desired", int32(4)), HaveField("Current", int32(4)), HaveField("Ready", int32(4)),
			HaveField("Updated", int32(4)), HaveField("Bad", int32(0)), HaveField("ObservedGeneration", now.Generation),
		))
		Expect(now.Status.CurrentRevision).To(And(Equal(now.Status.UpdateRevision), MatchRegexp(`^mainnet-[0-9a-v]{10}$`)))
		eventuallyCondition(ctx, obj, v1alpha1.ConditionBuffersStable, "True/AllStable", judged)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDelivering, "True/AllDelivering", soon)

		for i := range 4 {
			pod := f.pod(ctx, obj.Name, i)
			Expect(pod).NotTo(BeNil())
			Expect(nodeOf(pod)).To(Equal(f.node(i)))
			Expect(metav1.IsControlledBy(pod, now)).To(BeTrue())
			Expect(pod.Annotations).To(HaveKeyWithValue(v1alpha1.AnnotationTarget, f.node(i)))
			Expect(now.Name + "-" + pod.Labels[v1alpha1.LabelRevision]).To(Equal(now.Status.UpdateRevision))
		}
		pod := f.pod(ctx, obj.Name, 0)
		var configMap corev1.ConfigMap
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: podspec.ConfigOf(pod)}, &configMap)).To(Succeed())
		Expect(configMap.Immutable).To(HaveValue(BeTrue()))
		kept := storedRevision(ctx, now, now.Status.UpdateRevision)
		Expect(metav1.IsControlledBy(kept, now)).To(BeTrue())
		Expect(metav1.IsControlledBy(&configMap, kept)).To(BeTrue())
		var c config.Config
		Expect(yaml.UnmarshalStrict([]byte(configMap.Data["config.yaml"]), &c)).To(Succeed())
		Expect(c.Filter.Coins).To(Equal([]string{"BTC", "xyz:*"}))
		Expect(c.Engine.Workers).To(Equal(2))
		Expect(c.WithDefaults(1).Validate()).To(Succeed())

		By("reading well in kubectl get")
		Expect(columns(ctx, obj)).To(Equal([]string{
			"Name", "Status", "Desired", "Ready", "Updated", "Bad", "Restarts", "Age", "Revision", "Story",
		}))
	})

	It("follows its nodes: labelled, relabelled, cordoned, lost and gone", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)

		By("labelling a fourth node")
		f.addNode(ctx, f.node(3), false)
		Consistently(ctx, func() int { return len(f.uids(ctx)) }).WithTimeout(tick * 5).Should(Equal(3))
		f.updateNode(ctx, f.node(3), func(n *corev1.Node) { n.Labels = map[string]string{roleLabel: f.label} })
		Eventually(ctx, func() *corev1.Pod { return f.pod(ctx, obj.Name, 3) }).ShouldNot(BeNil())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(4)))

		By("taking the label away")
		f.updateNode(ctx, f.node(3), func(n *corev1.Node) { n.Labels[roleLabel] = "other" })
		Eventually(ctx, func() *corev1.Pod { return f.pod(ctx, obj.Name, 3) }).Should(BeNil())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Desired }).Should(Equal(int32(3)))
		f.updateNode(ctx, f.node(3), func(n *corev1.Node) { n.Labels = map[string]string{roleLabel: f.label} })
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(4)))

		By("cordoning a node: its pod stays, and a missing one waits")
		kept := f.uids(ctx)[f.node(1)]
		f.updateNode(ctx, f.node(1), func(n *corev1.Node) { n.Spec.Unschedulable = true })
		Consistently(ctx, func() string { return f.uids(ctx)[f.node(1)] }).WithTimeout(tick * 5).Should(Equal(kept))
		Expect(k8s.Delete(ctx, f.pod(ctx, obj.Name, 1))).To(Succeed())
		Eventually(ctx, func() *corev1.Pod { return f.pod(ctx, obj.Name, 1) }).Should(BeNil())
		Consistently(ctx, func() *corev1.Pod { return f.pod(ctx, obj.Name, 1) }).Should(BeNil())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReady, "True/AllReady", soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionReady)).To(
			ContainSubstring(f.node(1) + " (NodeCordoned)"))
		f.updateNode(ctx, f.node(1), func(n *corev1.Node) { n.Spec.Unschedulable = false })
		Eventually(ctx, func() *corev1.Pod { return f.pod(ctx, obj.Name, 1) }).ShouldNot(BeNil())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(4)))

		By("losing a node: its pod stays, and Ready stays true")
		kept = f.uids(ctx)[f.node(2)]
		f.setIdle(2, true)
		f.setNodeReady(ctx, f.node(2), corev1.ConditionUnknown)
		Eventually(ctx, func() string { return conditionMessage(current(ctx, obj), v1alpha1.ConditionReady) }).
			Should(ContainSubstring(f.node(2) + " (NodeNotReady)"))
		pod := f.pod(ctx, obj.Name, 2)
		pod.Status.Conditions[0].Status = corev1.ConditionFalse // as the node controller does
		Expect(k8s.Status().Update(ctx, pod)).To(Succeed())
		Consistently(ctx, func() string { return f.uids(ctx)[f.node(2)] }).WithTimeout(tick * 10).Should(Equal(kept))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionReady)).To(Equal("True/AllReady"))

		By("deleting the lost node: its pod is deleted")
		Expect(k8s.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: f.node(2)}})).To(Succeed())
		Eventually(ctx, func() bool { return f.pod(ctx, obj.Name, 2).DeletionTimestamp != nil }).Should(BeTrue())
		f.setIdle(2, false)
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Desired }).Should(Equal(int32(3)))
		Expect(current(ctx, obj).Status.Ready).To(Equal(int32(3)))
	})

	It("repairs drift: pods killed, failed, stripped of labels, and a config deleted", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)

		By("killing a pod")
		before := f.uids(ctx)
		Expect(k8s.Delete(ctx, f.pod(ctx, obj.Name, 0))).To(Succeed())
		Eventually(ctx, func() string { return f.uids(ctx)[f.node(0)] }).ShouldNot(Or(BeEmpty(), Equal(before[f.node(0)])))
		Expect(f.uids(ctx)[f.node(1)]).To(Equal(before[f.node(1)]))
		allReady(ctx, obj)

		By("evicting a pod three times: the second replacement waits for a second, the third for two more")
		begin := time.Now()
		for range 3 {
			uid := f.uids(ctx)[f.node(0)]
			Eventually(ctx, func() error {
				pod := f.pod(ctx, obj.Name, 0)
				pod.Status.Phase, pod.Status.Reason = corev1.PodFailed, "Evicted"
				return k8s.Status().Update(ctx, pod)
			}).Should(Succeed())
			Eventually(ctx, func() string { return f.uids(ctx)[f.node(0)] }).ShouldNot(Or(BeEmpty(), Equal(uid)))
			Eventually(ctx, func() bool { return ready(f.pod(ctx, obj.Name, 0)) }).Should(BeTrue())
		}
		Expect(time.Since(begin)).To(BeNumerically(">=", 3*time.Second))

		By("stripping a pod of its labels: it is ours still, and gets them back")
		uid := f.uids(ctx)[f.node(0)]
		pod := f.pod(ctx, obj.Name, 0)
		delete(pod.Labels, v1alpha1.LabelParser)
		Expect(k8s.Update(ctx, pod)).To(Succeed())
		Eventually(ctx, func() map[string]string { return f.pod(ctx, obj.Name, 0).Labels }).Should(
			HaveKeyWithValue(v1alpha1.LabelParser, obj.Name))
		Expect(f.uids(ctx)[f.node(0)]).To(Equal(uid))

		By("deleting the config")
		key := client.ObjectKey{Namespace: f.namespace, Name: podspec.ConfigOf(f.pod(ctx, obj.Name, 0))}
		var first, second corev1.ConfigMap
		Expect(k8s.Get(ctx, key, &first)).To(Succeed())
		Expect(k8s.Delete(ctx, &first)).To(Succeed())
		Eventually(ctx, func() error { return k8s.Get(ctx, key, &second) }).Should(Succeed())
		Expect(second.UID).NotTo(Equal(first.UID))
		Expect(second.Data).To(Equal(first.Data))
	})

	It("replaces pods for a new revision within the budget, and for nothing else", func(ctx SpecContext) {
		f := newFarm(ctx, 5)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Rollout.MaxUnavailable = ptr.To(intstr.FromString("40%"))
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		before, old := f.uids(ctx), current(ctx, obj).Status
		oldConfig := podspec.ConfigOf(f.pod(ctx, obj.Name, 0))

		By("changing what shapes no pod")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Growth.Restart.MaxPerHour = ptr.To[int32](5)
			o.Spec.Rollout.MaxUnavailable = ptr.To(intstr.FromInt32(2))
		})
		Eventually(ctx, func() int64 { return current(ctx, obj).Status.ObservedGeneration }).Should(Equal(int64(2)))
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).WithTimeout(tick * 10).Should(Equal(before))
		Expect(current(ctx, obj).Status.UpdateRevision).To(Equal(old.UpdateRevision))

		By("pausing, and changing the filter: nothing is replaced, and a missing pod still comes back")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Paused = true
			o.Spec.Filter.ExcludeStatuses = []v1alpha1.OrderStatus{"badAloPxRejected"}
		})
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReady, "False/Paused", soon)
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).WithTimeout(tick * 10).Should(Equal(before))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionReconciling)).To(Equal("False/Paused"))
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: oldConfig}, &corev1.ConfigMap{})).To(Succeed(),
			"pods refer to it")
		Expect(k8s.Delete(ctx, f.pod(ctx, obj.Name, 4))).To(Succeed())
		Eventually(ctx, func() string { return f.uids(ctx)[f.node(4)] }).ShouldNot(Or(BeEmpty(), Equal(before[f.node(4)])))
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(5)))

		By("going on: two at a time at most")
		f.watchDown()
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Paused = false })
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).WithTimeout(judged).Should(Equal(int32(5)))
		allReady(ctx, obj)
		Expect(f.mostDown()).To(And(BeNumerically(">=", 1), BeNumerically("<=", 2)))
		after := f.uids(ctx)
		for _, node := range slices.Sorted(maps.Keys(before)) {
			Expect(after[node]).NotTo(Equal(before[node]))
		}
		now := current(ctx, obj).Status
		Expect(now.UpdateRevision).NotTo(Equal(old.UpdateRevision))
		Expect(now.CurrentRevision).To(Equal(now.UpdateRevision))
		Expect(now.Restarts).To(BeZero())

		By("pruning the config that no pod refers to")
		Eventually(ctx, func() error {
			return k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: oldConfig}, &corev1.ConfigMap{})
		}).Should(MatchError(ContainSubstring("not found")))
	})

	It("stops a rollout whose new pods do not become ready", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		before := f.uids(ctx)
		f.setUnready(true)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).Should(Equal(int32(1)))
		Consistently(ctx, func() int32 { return current(ctx, obj).Status.Updated }).Should(Equal(int32(1)))
		same := 0
		for node, uid := range f.uids(ctx) {
			if before[node] == uid {
				same++
			}
		}
		Expect(same).To(Equal(2))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionReconciling)).To(Equal("True/ReplacingPods"))
	})

	It("says that a node has no data, and asks for events only then", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		clock := &movedClock{}
		var lists atomic.Int32
		run(runOptions{clock: clock, rest: countingEvents(&lists)})
		f.setIdle(1, true)
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(1)))

		By("holding a pod as the kubelet does when its hostPath is no directory")
		pod := f.pod(ctx, obj.Name, 1)
		Expect(k8s.SubResource("binding").Create(ctx, pod,
			&corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: f.node(1)}})).To(Succeed())
		Expect(k8s.Create(ctx, &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: pod.Name + ".1"},
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: f.namespace, Name: pod.Name,
				UID: pod.UID},
			Type: corev1.EventTypeWarning, Reason: "FailedMount",
			Message: `MountVolume.SetUp failed for volume "data" : hostPath type check failed: /home/hluser/hl/data is not a ` +
				`directory`,
		})).To(Succeed())
		Consistently(ctx, lists.Load).Should(BeZero())
		clock.move(time.Minute)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDelivering, "False/NotRunning", judged)
		Eventually(ctx, func() []v1alpha1.TargetStatus { return current(ctx, obj).Status.Targets }).Should(ConsistOf(And(
			HaveField("Target", f.node(1)), HaveField("Verdict", "NotRunning"),
			HaveField("Reason", v1alpha1.ReasonDataPathMissing),
			HaveField("Message", ContainSubstring(
				"/home/hluser/hl/data does not exist on the node: create it, or exclude the node in spec.target.nodes.selector")),
		)))
		Consistently(ctx, lists.Load).Should(Equal(int32(1)))

		By("making the directory")
		f.setIdle(1, false)
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(2)))
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Bad }).WithTimeout(judged).Should(BeZero())
	})

	It("goes with its object: everything is owned, and nothing is made while it goes", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.object()
		obj.Finalizers = []string{"example.com/wait"}
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		Expect(k8s.Delete(ctx, obj)).To(Succeed())

		var pods corev1.PodList
		var configs corev1.ConfigMapList
		ours := client.MatchingLabels{v1alpha1.LabelParser: obj.Name}
		Expect(k8s.List(ctx, &pods, client.InNamespace(f.namespace), ours)).To(Succeed())
		Expect(k8s.List(ctx, &configs, client.InNamespace(f.namespace), ours,
			client.MatchingLabels{v1alpha1.LabelComponent: v1alpha1.ComponentConfig})).To(Succeed())
		Expect(pods.Items).To(HaveLen(2))
		Expect(configs.Items).To(HaveLen(1))
		kept := storedRevision(ctx, obj, current(ctx, obj).Status.UpdateRevision)
		Expect(metav1.IsControlledBy(&configs.Items[0], kept)).To(BeTrue())
		keys, policy := &corev1.ConfigMap{}, &networkingv1.NetworkPolicy{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: podspec.OperatorKeysName(obj.Name)}, keys)).To(
			Succeed())
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: podspec.NetworkPolicyName(obj.Name)}, policy)).To(
			Succeed())
		for _, o := range []client.Object{&pods.Items[0], &pods.Items[1], kept, keys, policy} {
			owner := metav1.GetControllerOf(o)
			Expect(owner).To(HaveValue(And(
				HaveField("Kind", "HyperliquidParser"), HaveField("UID", obj.UID),
				HaveField("BlockOwnerDeletion", HaveValue(BeTrue())),
			)))
		}
		Expect(k8s.Delete(ctx, &pods.Items[0])).To(Succeed())
		Eventually(ctx, func() int { return len(f.uids(ctx)) }).Should(Equal(1))
		Consistently(ctx, func() int { return len(f.uids(ctx)) }).Should(Equal(1))
	})

	It("says when it selects no node", func(ctx SpecContext) {
		f := newFarm(ctx, 0)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReady, "True/NoTargets", soon)
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, v1alpha1.ReasonNoTargets) }).Should(HaveLen(1))
	})
})

// countingEvents counts how often events are listed.
func countingEvents(lists *atomic.Int32) func(*rest.Config) {
	return func(config *rest.Config) {
		config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/events") {
					lists.Add(1)
				}
				return next.RoundTrip(r)
			})
		})
	}
}

// columns are the names of the columns that kubectl get -o wide shows.
func columns(ctx SpecContext, obj *v1alpha1.HyperliquidParser) []string {
	GinkgoHelper()
	httpClient, err := rest.HTTPClientFor(adminREST)
	Expect(err).NotTo(HaveOccurred())
	api, err := apiutil.RESTClientForGVK(v1alpha1.GroupVersion.WithKind("HyperliquidParser"), false, false, adminREST,
		clientCodecs, httpClient)
	Expect(err).NotTo(HaveOccurred())
	raw, err := api.Get().Namespace(obj.Namespace).Resource("hyperliquidparsers").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(ctx).Raw()
	Expect(err).NotTo(HaveOccurred())
	var table metav1.Table
	Expect(json.Unmarshal(raw, &table)).To(Succeed())
	out := make([]string, 0, len(table.ColumnDefinitions))
	for _, c := range table.ColumnDefinitions {
		out = append(out, c.Name)
	}
	return out
}

// roundTripper is a function as an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
