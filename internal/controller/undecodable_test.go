package controller_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// loosenSchema makes the API server take anything for some fields of specs and statuses, as an older CRD may have,
// until the spec ends. It returns what ends that before.
func loosenSchema(ctx context.Context, fields ...string) (tighten func(context.Context)) {
	GinkgoHelper()
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1",
		Kind: "CustomResourceDefinition"})
	key := client.ObjectKey{Name: "hyperliquidparsers.fleet.hlparser.dev"}
	Expect(k8s.Get(ctx, key, crd)).To(Succeed())
	before := crd.DeepCopy().Object["spec"]
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	Expect(err).NotTo(HaveOccurred())
	for _, field := range fields {
		path := []string{"schema", "openAPIV3Schema"}
		for name := range strings.SplitSeq(field, ".") {
			path = append(path, "properties", name)
		}
		anything := map[string]any{"x-kubernetes-preserve-unknown-fields": true}
		Expect(unstructured.SetNestedMap(versions[0].(map[string]any), anything, path...)).To(Succeed())
	}
	Expect(unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions")).To(Succeed())
	Expect(k8s.Update(ctx, crd)).To(Succeed())
	tighten = func(ctx context.Context) {
		GinkgoHelper()
		Eventually(ctx, func() error {
			now := &unstructured.Unstructured{}
			now.SetGroupVersionKind(crd.GroupVersionKind())
			if err := k8s.Get(ctx, key, now); err != nil {
				return err
			}
			now.Object["spec"] = before
			return k8s.Update(ctx, now)
		}).Should(Succeed())
	}
	DeferCleanup(tighten)
	return tighten
}

// poison writes a value into an object's field that no Go type of ours holds.
func poison(ctx context.Context, obj client.Object, value any, path ...string) {
	GinkgoHelper()
	for _, name := range slices.Backward(path) {
		value = map[string]any{name: value}
	}
	data, err := json.Marshal(value)
	Expect(err).NotTo(HaveOccurred())
	Eventually(ctx, func() error { // the API server notices a new schema after a moment
		return k8s.Patch(ctx, bare(obj), client.RawPatch(types.MergePatchType, data))
	}).Should(Succeed())
}

// bare names an object, for who does not want to decode it.
func bare(obj client.Object) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("HyperliquidParser"))
	u.SetNamespace(obj.GetNamespace())
	u.SetName(obj.GetName())
	return u
}

// rawCondition is condition of an object that cannot be decoded.
func rawCondition(ctx context.Context, obj client.Object, kind string) string {
	GinkgoHelper()
	u := bare(obj)
	Expect(k8s.Get(ctx, client.ObjectKeyFromObject(obj), u)).To(Succeed())
	all, _, err := unstructured.NestedSlice(u.Object, "status", "conditions")
	Expect(err).NotTo(HaveOccurred())
	for _, c := range all {
		if m := c.(map[string]any); m["type"] == kind {
			return fmt.Sprintf("%s/%s", m["status"], m["reason"])
		}
	}
	return ""
}

// series are the samples of a metric, by their labels.
func series(from prometheus.Gatherer, name string) map[string]float64 {
	GinkgoHelper()
	families, err := from.Gather()
	Expect(err).NotTo(HaveOccurred())
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			out[strings.Join(labels, "/")] = m.GetGauge().GetValue()
		}
	}
	return out
}

var _ = Describe("an object that cannot be decoded", func() {
	const aside = "hlparser_fleet_undecodable_objects"

	It("is set aside and said, the others go on, over restarts of the manager, and so does it once it "+
		"is mended", func(ctx SpecContext) {
		f, g := newFarm(ctx, 2), newFarm(ctx, 1)
		manager := run(runOptions{})
		good, odd := f.object(), g.object()
		Expect(k8s.Create(ctx, good)).To(Succeed())
		Expect(k8s.Create(ctx, odd)).To(Succeed())
		allReady(ctx, good)
		allReady(ctx, odd)
		before := g.uids(ctx)
		loosenSchema(ctx, "spec.rollout")
		DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(k8s.Delete(ctx, bare(odd)))).To(Succeed()) })

		poison(ctx, odd, int64(3_000_000_000), "spec", "rollout", "maxUnavailable")
		Eventually(ctx, func() string { return rawCondition(ctx, odd, v1alpha1.ConditionStalled) }).Should(
			Equal("True/" + v1alpha1.ReasonUndecodable))
		Expect(rawCondition(ctx, odd, v1alpha1.ConditionReady)).To(Equal("False/" + v1alpha1.ReasonUndecodable))
		seen := bare(odd)
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(odd), seen)).To(Succeed())
		Expect(seen.Object["status"]).To(HaveKeyWithValue("observedGeneration", seen.GetGeneration()))
		Eventually(ctx, func() []string { return eventNotes(ctx, odd, v1alpha1.ReasonUndecodable) }).Should(
			ConsistOf(ContainSubstring("3000000000")))
		Expect(series(manager.metrics, aside)).To(Equal(map[string]float64{"mainnet/" + g.namespace: 1}))
		Expect(series(manager.metrics, "hlparser_fleet_targets")).NotTo(HaveKey(ContainSubstring(g.namespace)))

		goesOn := func(format v1alpha1.Format) {
			change(ctx, good, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = format })
			Eventually(ctx, func() int32 { return current(ctx, good).Status.Updated }).WithTimeout(judged).Should(
				Equal(int32(2)))
			allReady(ctx, good)
			Expect(g.uids(ctx)).To(Equal(before))
			Expect(manager.health.Check(nil)).To(Succeed())
			Expect(series(manager.metrics, "hlparser_fleet_watch_failing")).To(HaveKeyWithValue("HyperliquidParser/", 0.0))
		}
		goesOn("Raw")
		By("restarting")
		manager.stop()
		manager = run(runOptions{})
		goesOn("Enveloped")
		Eventually(func() map[string]float64 { return series(manager.metrics, aside) }).Should(HaveLen(1))
		By("making a new one, and losing one")
		Expect(k8s.Delete(ctx, f.pod(ctx, good.Name, 0))).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, good).Status.Ready }).Should(Equal(int32(2)))

		By("mending it")
		poison(ctx, odd, "100%", "spec", "rollout", "maxUnavailable")
		poison(ctx, odd, "Raw", "spec", "format")
		Eventually(ctx, func() string { return rawCondition(ctx, odd, v1alpha1.ConditionStalled) }).Should(
			Equal("False/" + v1alpha1.ReasonNotStalled))
		Eventually(ctx, func() map[string]string { return g.uids(ctx) }).WithTimeout(judged).ShouldNot(Equal(before))
		allReady(ctx, odd)
		Expect(series(manager.metrics, aside)).To(BeEmpty())
	})

	It("is set aside for its status, too, and gets no pods when it is new", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		loosenSchema(ctx, "status.desired", "spec.rollout")
		odd := bare(f.object())
		DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(k8s.Delete(ctx, odd))).To(Succeed()) })
		data, err := json.Marshal(f.object())
		Expect(err).NotTo(HaveOccurred())
		Expect(json.Unmarshal(data, &odd.Object)).To(Succeed())
		odd.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("HyperliquidParser"))
		odd.Object["spec"].(map[string]any)["rollout"] = map[string]any{
			"canary": map[string]any{"count": map[string]any{"a": "b"}}}
		Eventually(ctx, func() error { return k8s.Create(ctx, odd) }).Should(Succeed())
		manager := run(runOptions{})
		Eventually(ctx, func() []string { return eventNotes(ctx, f.object(), v1alpha1.ReasonUndecodable) }).Should(HaveLen(1))
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(BeEmpty())

		By("having a status that cannot be decoded")
		poison(ctx, odd, nil, "spec", "rollout")
		allReady(ctx, f.object())
		uids := f.uids(ctx)
		Eventually(ctx, func() error {
			now := bare(odd)
			if err := k8s.Get(ctx, client.ObjectKeyFromObject(odd), now); err != nil {
				return err
			}
			if err := unstructured.SetNestedField(now.Object, "many", "status", "desired"); err != nil {
				return err
			}
			return k8s.Status().Update(ctx, now)
		}).Should(Succeed())
		Eventually(func() map[string]float64 { return series(manager.metrics, aside) }).Should(HaveLen(1))
		Expect(k8s.Delete(ctx, f.pod(ctx, "mainnet", 0))).To(Succeed())
		Eventually(ctx, func() map[string]string { return f.uids(ctx) }).Should(BeEmpty())
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(BeEmpty(),
			"what is set aside is left alone: %v", uids)
	})
})

// stale is a client whose cache never learns that an object is gone.
type stale struct {
	client.Client
	remembers *v1alpha1.HyperliquidParser
}

func (s *stale) wrap(c client.Client) client.Client { s.Client = c; return s }

func (s *stale) Get(ctx context.Context, key client.ObjectKey, obj client.Object, options ...client.GetOption) error {
	if into, ok := obj.(*v1alpha1.HyperliquidParser); ok && s.remembers != nil &&
		key == client.ObjectKeyFromObject(s.remembers) {
		s.remembers.DeepCopyInto(into)
		return nil
	}
	return s.Client.Get(ctx, key, obj, options...)
}

var _ = Describe("an owner that is gone", func() {
	It("gets no pods, though the cache has it", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		cache := &stale{}
		obj := f.object()
		obj.Finalizers = []string{"example.com/wait"}
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		manager := run(runOptions{})
		allReady(ctx, obj)
		manager.stop()
		cache.remembers = current(ctx, obj)
		collected := func() {
			// What the garbage collector does to pods of an owner that is not there.
			Expect(k8s.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(f.namespace), client.GracePeriodSeconds(0))).To(
				Succeed())
		}
		By("deleting it")
		Expect(k8s.Delete(ctx, obj)).To(Succeed())
		collected()
		run(runOptions{wrap: cache.wrap})
		Eventually(logs.text).Should(ContainSubstring("creating no pods for an object that only the cache has"))
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(BeEmpty())
		By("being rid of it, and of another of the name")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Finalizers = nil })
		again := f.object()
		again.Spec.Paused = true
		Expect(k8s.Create(ctx, again)).To(Succeed())
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(BeEmpty())
	})
})

var _ = Describe("watches that fail", func() {
	It("are known to readiness and a metric after a while, without an end of the manager, and are forgotten when they "+
		"are back", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		clock := &movedClock{}
		broken := &breaker{}
		manager := run(runOptions{clock: clock, rest: broken.wrap})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		Expect(manager.health.Check(nil)).To(Succeed())
		broken.set(true)
		failing := func() map[string]float64 { return series(manager.metrics, "hlparser_fleet_watch_failing") }
		Eventually(failing).WithTimeout(soon).Should(HaveKeyWithValue("Node/", 1.0))
		Expect(failing()).To(HaveKeyWithValue("Pod/", 0.0))
		Expect(manager.health.Check(nil)).To(Succeed(), "not at once")
		clock.move(time.Minute)
		Eventually(func() error { return manager.health.Check(nil) }).Should(
			MatchError(And(ContainSubstring("Node for 1m"), ContainSubstring("broken"))))

		By("restarting, while nothing can be listed")
		manager.stop()
		manager = run(runOptions{clock: clock, rest: broken.wrap})
		Eventually(failing).WithTimeout(soon).Should(HaveKeyWithValue("Node/", 1.0))
		clock.move(time.Hour)
		Consistently(manager.ended).ShouldNot(BeClosed())
		Expect(manager.health.Check(nil)).NotTo(Succeed())
		broken.set(false)
		Eventually(func() float64 { clock.move(time.Second); return failing()["Node/"] }).WithTimeout(judged).Should(BeZero())
		Expect(manager.health.Check(nil)).To(Succeed())
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			metav1.SetMetaDataAnnotation(&o.ObjectMeta, v1alpha1.AnnotationRestartedAt, "now")
		})
		allReady(ctx, obj)
	})
})
