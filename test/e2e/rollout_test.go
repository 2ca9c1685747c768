package e2e_test

import (
	"context"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

var _ = Describe("a rollout", Label("rollout"), func() {
	It("goes through a canary that is well", func(ctx SpecContext) {
		f := newFleet(ctx, "canary", rate)
		obj := f.object()
		withCanary(obj, 20*time.Second)
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

	It("stops at a canary whose image is nowhere, and leaves the others alone", func(ctx SpecContext) {
		f := newFleet(ctx, "canary-image", rate)
		obj := f.object()
		withCanary(obj, 20*time.Second)
		f.create(ctx, obj)
		begin := time.Now()
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) {
			obj.Spec.Image = "hyperliquid-parser-operator:nowhere"
		})
		f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			stalled := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionStalled)
			g.Expect(stalled).NotTo(BeNil())
			g.Expect(stalled.Status).To(Equal(metav1.ConditionTrue), "%+v", obj.Status.Conditions)
			g.Expect(stalled.Reason).To(Equal(v1alpha1.ReasonCanaryFailed))
			g.Expect(stalled.Message).To(ContainSubstring("hyperliquid-parser-operator:nowhere"))
		})
		reportNoticed(begin, "CanaryFailed")
		keep(ctx, f, "canary-image")
		f.waitWellBut(ctx)
		By("going on once the spec is set back")
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Image = "" })
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
		begin := time.Now()
		Expect(k8s.Create(ctx, f.object())).To(Succeed())
		stalled := f.waitStalled(ctx, v1alpha1.ReasonPodRejected)
		Expect(stalled.Message).To(ContainSubstring("exceeded quota"))
		reportNoticed(begin, "%s", stalled.Message)
		recordError("quota-exceeded", f.dryRunPod(ctx))
		keep(ctx, f, "pod-refused")
		Expect(k8s.Delete(ctx, quota)).To(Succeed())
		begin = time.Now()
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("stops at a canary that cannot start", func(ctx SpecContext) {
		f := newFleet(ctx, "canary-start", rate)
		obj := f.object()
		withCanary(obj, 20*time.Second)
		f.create(ctx, obj)
		uid := f.pod(ctx, 2).UID
		begin := time.Now()
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) {
			little := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("6Mi")}
			obj.Spec.Resources.Limits, obj.Spec.Resources.Requests = little, little
		})
		stalled := f.waitStalled(ctx, v1alpha1.ReasonCanaryFailed)
		reportNoticed(begin, "%s", stalled.Message)
		keep(ctx, f, "canary-start")
		f.waitWellBut(ctx)
		begin = time.Now()
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Resources = corev1.ResourceRequirements{} })
		f.waitWell(ctx, whole)
		reportWhole(begin)
		Expect(f.pod(ctx, 2).UID).To(Equal(uid), "it never had the revision")
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("stops at a canary that crashes while it runs, and is set back", func(ctx SpecContext) {
		f := newFleet(ctx, "canary-crash", rate)
		obj := f.object()
		withCanary(obj, 2*time.Minute)
		f.create(ctx, obj)
		before := map[int]types.UID{1: f.pod(ctx, 1).UID, 2: f.pod(ctx, 2).UID}
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Engine.Workers = ptr.To[int32](1) })
		f.waitUpdated(ctx, 1)
		canary := 1
		if f.pod(ctx, 1).UID == before[1] {
			canary = 2
		}
		uid := f.pod(ctx, canary).UID
		begin := time.Now()
		Eventually(func(g Gomega) {
			pod := f.pod(ctx, canary)
			if pod.UID == uid && pod.Status.ContainerStatuses[0].State.Running != nil {
				// As a panic of Go: with the stacks on standard error.
				cluster.signalIfRunning(ctx, canary, pod, syscall.SIGABRT)
			}
			stalled := meta.FindStatusCondition(f.get(ctx).Status.Conditions, v1alpha1.ConditionStalled)
			g.Expect(stalled).NotTo(BeNil())
			g.Expect(stalled.Reason).To(Equal(v1alpha1.ReasonCanaryFailed))
		}).WithContext(ctx).WithTimeout(whole).WithPolling(500 * time.Millisecond).Should(Succeed())
		stalled := f.waitStalled(ctx, v1alpha1.ReasonCanaryFailed)
		reportNoticed(begin, "%s", stalled.Message)
		keep(ctx, f, "canary-crash")
		begin = time.Now()
		f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			g.Expect(obj.Status.Ready).To(BeEquivalentTo(nodes))
			g.Expect(obj.Status.Updated).To(BeZero())
		})
		reportWhole(begin)
		By("going on once the spec is set back")
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Engine.Workers = nil })
		f.waitWell(ctx, whole)
		Expect(f.pod(ctx, nodes+1-canary).UID).To(Equal(before[nodes+1-canary]), "it never had the revision")
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("is promoted before its canary has soaked", func(ctx SpecContext) {
		f := newFleet(ctx, "promote", rate)
		obj := f.object()
		withCanary(obj, time.Hour)
		f.create(ctx, obj)
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Engine.Workers = ptr.To[int32](1) })
		f.waitUpdated(ctx, 1)
		begin := time.Now()
		kubectl(ctx, "annotate", "hlp", f.name, "-n", f.namespace,
			v1alpha1.AnnotationPromote+"="+f.get(ctx).Status.UpdateRevision)
		f.waitUpdated(ctx, nodes)
		f.waitWell(ctx, whole)
		reportWhole(begin)
		Expect(f.get(ctx).Status.CurrentRevision).To(Equal(f.get(ctx).Status.UpdateRevision))
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("says that a policy refuses to delete its pods, and goes on without it", func(ctx SpecContext) {
		f := newFleet(ctx, "no-deletes", rate)
		f.create(ctx, f.object())
		allow := f.refuseDeletes(ctx)
		begin := time.Now()
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Engine.Workers = ptr.To[int32](1) })
		var refused *metav1.Condition
		f.waitStatus(ctx, noticed, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			refused = meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionStalled)
			g.Expect(refused).NotTo(BeNil())
			g.Expect(refused.Status).To(Equal(metav1.ConditionTrue))
			g.Expect(refused.Message).To(ContainSubstring("pods stay"))
		})
		reportNoticed(begin, "%s: %s", refused.Reason, refused.Message)
		keep(ctx, f, "delete-refused")
		Expect(f.get(ctx).Status.Ready).To(BeEquivalentTo(nodes))
		begin = time.Now()
		allow(ctx)
		f.waitUpdated(ctx, nodes)
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("says why a pod cannot be scheduled", func(ctx SpecContext) {
		f := newFleet(ctx, "unschedulable", rate)
		obj := f.object()
		memory := func(obj *v1alpha1.HyperliquidParser, size string) {
			obj.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(size)}
			obj.Spec.Resources.Limits = nil
		}
		memory(obj, "1Ti")
		begin := time.Now()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		target := f.waitVerdict(ctx, "NotRunning", "Insufficient memory")
		reportNoticed(begin, "%s", target.Message)
		keep(ctx, f, "unschedulable")
		recordPods(ctx, f, "unschedulable")
		begin = time.Now()
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { memory(obj, "32Mi") })
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))
})

// withCanary makes changes of an object go to one target first, and stay there for a while.
func withCanary(obj *v1alpha1.HyperliquidParser, soak time.Duration) {
	obj.Spec.Rollout = v1alpha1.Rollout{
		MaxUnavailable: ptr.To(intstr.FromInt32(1)),
		Canary:         &v1alpha1.Canary{Count: ptr.To(intstr.FromInt32(1)), Soak: &metav1.Duration{Duration: soak}},
	}
}

// waitUpdated waits until that many targets have a ready pod of the spec's revision, and the others of the one before.
func (f *fleet) waitUpdated(ctx context.Context, targets int) {
	GinkgoHelper()
	f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
		g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
		g.Expect(obj.Status.Updated).To(BeEquivalentTo(targets))
		g.Expect(obj.Status.Ready).To(BeEquivalentTo(nodes))
	})
}

// waitStalled waits until the object is stalled for a reason, and returns the condition.
func (f *fleet) waitStalled(ctx context.Context, reason string) metav1.Condition {
	GinkgoHelper()
	var found metav1.Condition
	f.waitStatus(ctx, noticed, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
		stalled := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionStalled)
		g.Expect(stalled).NotTo(BeNil())
		g.Expect(stalled.Status).To(Equal(metav1.ConditionTrue), "%+v", obj.Status.Conditions)
		g.Expect(stalled.Reason).To(Equal(reason))
		found = *stalled
	})
	return found
}

// refuseDeletes makes a policy by which no pod of the fleet's namespace may be deleted, waits until it holds, and
// returns what removes it.
func (f *fleet) refuseDeletes(ctx context.Context) (allow func(context.Context)) {
	GinkgoHelper()
	name := "e2e-" + f.namespace
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{
					MatchLabels: map[string]string{corev1.LabelMetadataName: f.namespace},
				},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Delete},
					Rule: admissionv1.Rule{
						APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"},
					},
				}}},
			},
			Validations: []admissionv1.Validation{{Expression: "false", Message: "pods stay where they are"}},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	allow = func(ctx context.Context) {
		GinkgoHelper()
		Expect(client.IgnoreNotFound(k8s.Delete(ctx, binding))).To(Succeed())
		Expect(client.IgnoreNotFound(k8s.Delete(ctx, policy))).To(Succeed())
	}
	Expect(k8s.Create(ctx, policy)).To(Succeed())
	Expect(k8s.Create(ctx, binding)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { allow(ctx) })
	pod := f.pod(ctx, 1)
	Eventually(func() error { return k8s.Delete(ctx, pod, client.DryRunAll) }).
		WithContext(ctx).WithTimeout(time.Minute).Should(MatchError(ContainSubstring("pods stay")))
	recordError("policy-refuses-delete", k8s.Delete(ctx, pod, client.DryRunAll))
	return allow
}
