package e2e_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

var _ = Describe("a rollout", Label("rollout"), func() {
	canary := func(obj *v1alpha1.HyperliquidParser, soak time.Duration) {
		obj.Spec.Rollout = v1alpha1.Rollout{
			MaxUnavailable: ptr.To(intstr.FromInt32(1)),
			Canary:         &v1alpha1.Canary{Count: ptr.To(intstr.FromInt32(1)), Soak: &metav1.Duration{Duration: soak}},
		}
	}

	It("goes through a canary that is well", func(ctx SpecContext) {
		f := newFleet(ctx, "canary", rate)
		obj := f.object()
		canary(obj, 20*time.Second)
		f.create(ctx, obj)
		begin := time.Now()
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) {
			obj.Spec.Filter.Coins = nil
			obj.Spec.Engine.Workers = ptr.To[int32](1)
		})
		f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
			g.Expect(obj.Status.Updated).To(BeEquivalentTo(nodes))
			g.Expect(obj.Status.CurrentRevision).To(Equal(obj.Status.UpdateRevision))
		})
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("stops at a canary that cannot start, and leaves the others alone", func(ctx SpecContext) {
		f := newFleet(ctx, "canary-image", rate)
		obj := f.object()
		canary(obj, 20*time.Second)
		f.create(ctx, obj)
		begin := time.Now()
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) {
			obj.Spec.Image = "hyperliquid-parser-operator:nowhere"
			obj.Spec.ImagePullPolicy = corev1.PullNever
		})
		f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			stalled := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionStalled)
			g.Expect(stalled).NotTo(BeNil())
			g.Expect(stalled.Status).To(Equal(metav1.ConditionTrue), "%+v", obj.Status.Conditions)
			g.Expect(stalled.Reason).To(Equal(v1alpha1.ReasonCanaryFailed))
			g.Expect(stalled.Message).To(ContainSubstring("ErrImageNeverPull"))
		})
		reportNoticed(begin, "CanaryFailed")
		keep(ctx, f, "canary-cannot-start")
		f.waitWellBut(ctx)
		By("going on once the spec is set back")
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Image, obj.Spec.ImagePullPolicy = "", "" })
		f.waitWell(ctx, whole)
		f.exact(ctx)
	}, SpecTimeout(12*time.Minute))

	It("says why a pod is refused, and makes it when nothing is in the way any more", func(ctx SpecContext) {
		f := newFleet(ctx, "refused", rate)
		quota := &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "one"},
			Spec: corev1.ResourceQuotaSpec{
				Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")},
			},
		}
		Expect(k8s.Create(ctx, quota)).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(quota), quota)).To(Succeed())
			g.Expect(quota.Status.Hard).NotTo(BeEmpty())
		}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
		Expect(k8s.Create(ctx, f.object())).To(Succeed())
		f.waitStatus(ctx, noticed, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			stalled := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionStalled)
			g.Expect(stalled).NotTo(BeNil())
			g.Expect(stalled.Reason).To(Equal(v1alpha1.ReasonPodRejected))
			g.Expect(stalled.Message).To(ContainSubstring("exceeded quota"))
		})
		keep(ctx, f, "pod-refused")
		Expect(k8s.Delete(ctx, quota)).To(Succeed())
		begin := time.Now()
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))
})
