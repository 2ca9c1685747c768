package controller_test

import (
	"context"
	"encoding/json"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// storedRevision reads the ControllerRevision of that name.
func storedRevision(ctx context.Context, obj *v1alpha1.HyperliquidParser, name string) *appsv1.ControllerRevision {
	GinkgoHelper()
	out := &appsv1.ControllerRevision{}
	Expect(k8s.Get(ctx, client.ObjectKey{Namespace: obj.Namespace, Name: name}, out)).To(Succeed())
	return out
}

// storedRevisions returns the names of an object's revisions, oldest first.
func storedRevisions(ctx context.Context, obj *v1alpha1.HyperliquidParser) []string {
	GinkgoHelper()
	var list appsv1.ControllerRevisionList
	Expect(k8s.List(ctx, &list, client.InNamespace(obj.Namespace),
		client.MatchingLabels{v1alpha1.LabelParser: obj.Name})).To(Succeed())
	slices.SortFunc(list.Items, func(a, b appsv1.ControllerRevision) int { return int(a.Revision - b.Revision) })
	out := make([]string, 0, len(list.Items))
	for _, item := range list.Items {
		out = append(out, item.Name)
	}
	return out
}

// made returns a pod as the operator created it, without the fields that binding and running it added.
func made(pod *corev1.Pod) string {
	GinkgoHelper()
	Expect(pod).NotTo(BeNil())
	spec := pod.Spec.DeepCopy()
	spec.NodeName = ""
	text, err := json.Marshal(map[string]any{"labels": pod.Labels, "annotations": pod.Annotations,
		"owners": pod.OwnerReferences, "spec": spec})
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// kill deletes the pod of the i-th node and returns its successor once that is ready.
func (f *farm) kill(ctx context.Context, object string, i int) *corev1.Pod {
	GinkgoHelper()
	before := f.pod(ctx, object, i)
	Expect(k8s.Delete(ctx, before)).To(Succeed())
	var after *corev1.Pod
	Eventually(ctx, func() bool {
		after = f.pod(ctx, object, i)
		return after != nil && after.UID != before.UID && ready(after)
	}).Should(BeTrue())
	return after
}

var _ = Describe("revisions", func() {
	It("are stored, kept to a limit, and gone back to as they were", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Rollout = v1alpha1.Rollout{MaxUnavailable: ptr.To(intstr.FromString("100%")),
			RevisionHistoryLimit: ptr.To[int32](2)}
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		first := current(ctx, obj).Status.UpdateRevision
		pod := made(f.pod(ctx, obj.Name, 0))
		rolled := func(edit func(*v1alpha1.HyperliquidParser)) string {
			GinkgoHelper()
			change(ctx, obj, edit)
			generation := current(ctx, obj).Generation
			Eventually(ctx, func() int64 { return current(ctx, obj).Status.ObservedGeneration }).Should(Equal(generation))
			Eventually(ctx, func() bool {
				s := current(ctx, obj).Status
				return s.CurrentRevision == s.UpdateRevision && s.Updated == 2 && s.Ready == 2
			}).WithTimeout(judged).Should(BeTrue())
			return current(ctx, obj).Status.UpdateRevision
		}

		By("changing the spec, and setting it back")
		second := rolled(func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		Expect(second).NotTo(Equal(first))
		Expect(storedRevisions(ctx, obj)).To(Equal([]string{first, second}))
		Expect(rolled(func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Enveloped" })).To(Equal(first))
		Expect(storedRevisions(ctx, obj)).To(Equal([]string{second, first}))
		Expect(made(f.pod(ctx, obj.Name, 0))).To(Equal(pod))

		By("saying the same in other words: nothing is replaced")
		before := f.uids(ctx)
		Expect(rolled(func(o *v1alpha1.HyperliquidParser) { o.Spec.Image = parserImage })).To(Equal(first))
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).WithTimeout(tick * 10).Should(Equal(before))

		By("passing the limit: the two last that are not in use are kept")
		third := rolled(func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Normalized" })
		fourth := rolled(func(o *v1alpha1.HyperliquidParser) { o.Spec.Filter.Coins = []v1alpha1.Coin{"BTC"} })
		Eventually(ctx, func() []string { return storedRevisions(ctx, obj) }).Should(Equal([]string{first, third, fourth}))

		By("deleting the one in use: it is stored again, and nothing is replaced")
		before = f.uids(ctx)
		Expect(k8s.Delete(ctx, storedRevision(ctx, obj, fourth))).To(Succeed())
		Eventually(ctx, func() []string { return storedRevisions(ctx, obj) }).Should(Equal([]string{first, third, fourth}))
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).WithTimeout(tick * 10).Should(Equal(before))
	})

	It("are not touched by another operator, whatever it would render and whichever image is "+
		"its default", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())

		By("having stored what this operator would not render")
		data, err := podspec.NewRevision(obj, parserImage, "cluster")
		Expect(err).NotTo(HaveOccurred())
		container := &data.Template.Spec.Containers[0]
		container.Env = append(container.Env, corev1.EnvVar{Name: "OF_OLD", Value: "1"})
		data.Template.Spec.DNSPolicy = corev1.DNSDefault
		data, err = data.NamedByContent(obj.Name)
		Expect(err).NotTo(HaveOccurred())
		identity, err := podspec.Identity(obj)
		Expect(err).NotTo(HaveOccurred())
		older := &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: f.namespace, Name: data.Name(obj.Name),
				Labels:      map[string]string{v1alpha1.LabelParser: obj.Name, v1alpha1.LabelRevision: data.Hash},
				Annotations: map[string]string{v1alpha1.AnnotationIdentity: identity},
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(obj,
					v1alpha1.GroupVersion.WithKind("HyperliquidParser"))},
			},
			Revision: 1,
		}
		older.Data.Raw, err = data.Encode()
		Expect(err).NotTo(HaveOccurred())
		Expect(k8s.Create(ctx, older)).To(Succeed())
		first := run(runOptions{})
		allReady(ctx, obj)
		first.stop()
		Expect(current(ctx, obj).Status.UpdateRevision).To(Equal(older.Name))

		By("giving it an identity that this operator would not find")
		kept := storedRevision(ctx, obj, older.Name)
		kept.Annotations[v1alpha1.AnnotationIdentity] = "of another schema"
		Expect(k8s.Update(ctx, kept)).To(Succeed())
		var configs corev1.ConfigMapList
		Expect(k8s.List(ctx, &configs, client.InNamespace(f.namespace))).To(Succeed())
		before := f.uids(ctx)

		By("starting the other operator")
		w := &writes{}
		run(runOptions{rest: w.wrap, image: "registry.example/hlparser:v2"})
		Eventually(ctx, func() string {
			return storedRevision(ctx, obj, older.Name).Annotations[v1alpha1.AnnotationIdentity]
		}).
			Should(Equal(identity), "so that a change of growth alone replaces nothing later")
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(Equal(before))
		Expect(current(ctx, obj).Status.UpdateRevision).To(Equal(older.Name))
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Growth.Restart.MaxPerHour = ptr.To[int32](5) })
		Eventually(ctx, func() int64 { return current(ctx, obj).Status.ObservedGeneration }).Should(Equal(int64(2)))
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).WithTimeout(tick * 10).Should(Equal(before))

		By("killing two pods: they come back as the older operator would have made them, and alike")
		one, other := f.kill(ctx, obj.Name, 0), f.kill(ctx, obj.Name, 0)
		Expect(one.Spec.Containers[0].Image).To(Equal(parserImage))
		Expect(one.Spec.Containers[0].Env).To(ContainElement(corev1.EnvVar{Name: "OF_OLD", Value: "1"}))
		Expect(one.Spec.DNSPolicy).To(Equal(corev1.DNSDefault))
		Expect(made(other)).To(Equal(made(one)))

		By("changing the spec: now it is this operator's")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		Eventually(ctx, func() string { return current(ctx, obj).Status.CurrentRevision }).WithTimeout(judged).ShouldNot(
			Equal(older.Name))
		Expect(f.pod(ctx, obj.Name, 0).Spec.Containers[0].Image).To(Equal("registry.example/hlparser:v2"))
	})

	It("take another name where theirs is taken", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		obj := f.object()
		f.defaulted(ctx, obj)
		first, err := podspec.NewRevision(obj, parserImage, "cluster")
		Expect(err).NotTo(HaveOccurred())
		strangers := &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: first.Name(obj.Name)}, Revision: 7,
		}
		strangers.Data.Raw = []byte(`{"spec":{}}`)
		Expect(k8s.Create(ctx, strangers)).To(Succeed())
		run(runOptions{})
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		second := first.Renamed(obj.Name, 1).Name(obj.Name)
		Expect(current(ctx, obj).Status.UpdateRevision).To(Equal(second))
		Expect(storedRevisions(ctx, obj)).To(Equal([]string{second}))
		Expect(podspec.ConfigOf(f.pod(ctx, obj.Name, 0))).To(Equal(second))
		Expect(storedRevision(ctx, obj, strangers.Name).UID).To(Equal(strangers.UID))
	})

	It("that an object left behind are taken up by the one that comes after it", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		first := run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		name, uid := current(ctx, obj).Status.UpdateRevision, f.uids(ctx)[f.node(0)]
		first.stop()

		By("deleting the object and leaving what it owns, as kubectl delete --cascade=orphan does")
		Expect(k8s.Delete(ctx, obj)).To(Succeed())
		for _, o := range []client.Object{storedRevision(ctx, obj, name), f.pod(ctx, obj.Name, 0)} {
			o.SetOwnerReferences(nil)
			Expect(k8s.Update(ctx, o)).To(Succeed())
		}
		again := f.object()
		Expect(k8s.Create(ctx, again)).To(Succeed())
		run(runOptions{})
		allReady(ctx, again)
		Expect(metav1.IsControlledBy(storedRevision(ctx, again, name), again)).To(BeTrue())
		Expect(f.uids(ctx)[f.node(0)]).To(Equal(uid))
		Expect(current(ctx, again).Status).To(HaveField("UpdateRevision", name))
	})
})

// defaulted fills in what the schema defaults.
func (f *farm) defaulted(ctx context.Context, obj *v1alpha1.HyperliquidParser) {
	GinkgoHelper()
	filled := obj.DeepCopy()
	Expect(k8s.Create(ctx, filled, client.DryRunAll)).To(Succeed())
	obj.Spec = filled.Spec
}
