package controller_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// clientApply does what kubectl apply does with a custom resource, and returns the patch that it sends: "" when it
// creates the object, "{}" when it reports that the object is unchanged.
func clientApply(ctx context.Context, manifest map[string]any) string {
	GinkgoHelper()
	wanted := &unstructured.Unstructured{Object: manifest}
	wanted = wanted.DeepCopy()
	original, err := json.Marshal(wanted.Object)
	Expect(err).NotTo(HaveOccurred())
	wanted.SetAnnotations(map[string]string{corev1.LastAppliedConfigAnnotation: string(original)})

	stored := &unstructured.Unstructured{}
	stored.SetGroupVersionKind(wanted.GroupVersionKind())
	err = k8s.Get(ctx, client.ObjectKeyFromObject(wanted), stored)
	if apierrors.IsNotFound(err) {
		Expect(k8s.Create(ctx, wanted)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(k8s.Delete(ctx, wanted))).To(Succeed()) })
		return ""
	}
	Expect(err).NotTo(HaveOccurred())
	modified, err := json.Marshal(wanted.Object)
	Expect(err).NotTo(HaveOccurred())
	now, err := json.Marshal(stored.Object)
	Expect(err).NotTo(HaveOccurred())
	last := stored.GetAnnotations()[corev1.LastAppliedConfigAnnotation]
	patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch([]byte(last), modified, now)
	Expect(err).NotTo(HaveOccurred())
	if string(patch) != "{}" {
		Expect(k8s.Patch(ctx, stored, client.RawPatch(types.MergePatchType, patch))).To(Succeed())
	}
	return string(patch)
}

var _ = Describe("client-side apply", func() {
	applyTwice := func(ctx SpecContext, manifest []byte) {
		object := map[string]any{}
		Expect(yaml.Unmarshal(manifest, &object)).To(Succeed())
		u := &unstructured.Unstructured{Object: object}
		u.SetNamespace("default")
		Expect(clientApply(ctx, object)).To(BeEmpty())
		Expect(clientApply(ctx, object)).To(Equal("{}"))
		Expect(clientApply(ctx, object)).To(Equal("{}"))
		stored := &v1alpha1.HyperliquidParser{}
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(u), stored)).To(Succeed())
		Expect(stored.Generation).To(Equal(int64(1)))
	}

	It("reports the samples as unchanged the second time", func(ctx SpecContext) {
		files, err := filepath.Glob("../../config/samples/fleet_*.yaml")
		Expect(err).NotTo(HaveOccurred())
		Expect(files).NotTo(BeEmpty())
		for _, file := range files {
			By(file)
			manifest, err := os.ReadFile(file)
			Expect(err).NotTo(HaveOccurred())
			applyTwice(ctx, manifest)
		}
	})

	DescribeTable("reports an object as unchanged the second time",
		func(ctx SpecContext, spec string) {
			applyTwice(ctx, []byte("apiVersion: fleet.hlparser.dev/v1alpha1\nkind: HyperliquidParser\n"+
				"metadata: {name: twice}\nspec:\n"+
				"  target: {nodes: {selector: {matchLabels: {role: none}}, dataPath: /data}}\n"+spec))
		},
		Entry("with all kinds of sink by name", `
  streams:
  - {name: Fills, sink: a}
  - {name: Trades, sink: b}
  - {name: OrderStatuses, sink: c}
  - {name: MiscEvents, sink: d}
  sinks:
  - {name: a, file: {path: /var/lib/hlparser-out}}
  - {name: b, nats: {url: "nats://nats:4222", stream: HL, create: {}, credentialsSecretRef: {name: creds}}}
  - {name: c, kafka: {brokers: ["kafka:9092"], create: {}, tls: {caSecretRef: {name: ca}}}}
  - {name: d, stdout: {}}`),
		Entry("with lists of every kind", `
  streams: [{name: OrderStatuses}]
  sink: {stdout: {}}
  filter: {coins: [BTC], users: ["0x0000000000000000000000000000000000000001"], statuses: [open], sides: [A]}
  imagePullSecrets: [{name: pull}]
  tolerations: [{operator: Exists}]
  supplementalGroups: [2000]
  metrics: [ClassicBuckets, All]
  growth: {sourceStalledAfter: {OrderStatuses: 10m}}
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [a]}]}]
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 1, podAffinityTerm: {topologyKey: host, labelSelector: {matchLabels: {a: b}}}}`),
	)

	It("replaces no pod where an earlier schema stored defaults in lists", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		run(runOptions{})
		typed := f.object()
		typed.Spec.Streams[0].Mode = v1alpha1.DefaultStreamMode // as the API server did
		object := map[string]any{}
		text, err := json.Marshal(typed)
		Expect(err).NotTo(HaveOccurred())
		Expect(json.Unmarshal(text, &object)).To(Succeed())
		u := &unstructured.Unstructured{Object: object}
		u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("HyperliquidParser"))
		unstructured.RemoveNestedField(object, "status")
		unstructured.RemoveNestedField(object, "metadata", "creationTimestamp")
		Expect(clientApply(ctx, object)).To(BeEmpty())
		allReady(ctx, typed)
		before, uids := current(ctx, typed), f.uids(ctx)

		streams, _, err := unstructured.NestedSlice(object, "spec", "streams")
		Expect(err).NotTo(HaveOccurred())
		delete(streams[0].(map[string]any), "mode")
		Expect(unstructured.SetNestedSlice(object, streams, "spec", "streams")).To(Succeed())
		Expect(clientApply(ctx, object)).NotTo(Equal("{}"))
		Expect(current(ctx, typed).Generation).To(Equal(before.Generation + 1))
		allReady(ctx, typed)
		Expect(f.uids(ctx)).To(Equal(uids))
		Expect(current(ctx, typed).Status.UpdateRevision).To(Equal(before.Status.UpdateRevision))
	})
})

var _ = Describe("an object that no operator has seen", func() {
	It("does not pass for one that is reconciled", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Expect(current(ctx, obj).Status).To(Equal(v1alpha1.HyperliquidParserStatus{ObservedGeneration: -1}))
		By("losing its status")
		run(runOptions{})
		allReady(ctx, obj)
		before := current(ctx, obj)
		uids := f.uids(ctx)
		wiped := before.DeepCopy()
		wiped.Status = v1alpha1.HyperliquidParserStatus{}
		Eventually(ctx, func() error {
			wiped.ResourceVersion = current(ctx, obj).ResourceVersion
			return k8s.Status().Update(ctx, wiped.DeepCopy())
		}).Should(Succeed())
		allReady(ctx, obj)
		Expect(f.uids(ctx)).To(Equal(uids))
		Expect(current(ctx, obj).Status.CurrentRevision).To(Equal(before.Status.CurrentRevision))
	})
})
