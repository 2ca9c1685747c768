package controller_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// relabelNodes gives the first n nodes of a farm another value of the label that selects them.
func (f *farm) relabelNodes(ctx context.Context, n int, value string) {
	GinkgoHelper()
	for i := range n {
		f.updateNode(ctx, f.node(i), func(node *corev1.Node) { node.Labels[roleLabel] = value })
	}
}

// wake makes the operator reconcile an object.
func wake(ctx context.Context, obj *v1alpha1.HyperliquidParser) {
	GinkgoHelper()
	change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
		metav1.SetMetaDataAnnotation(&o.ObjectMeta, "look", time.Now().Format(time.RFC3339Nano))
	})
}

// updated returns how many targets have the revision of the spec by the status of this generation, or -1 while there is
// none.
func updated(ctx context.Context, obj *v1alpha1.HyperliquidParser) func() int32 {
	return func() int32 {
		now := current(ctx, obj)
		if now.Status.ObservedGeneration != now.Generation {
			return -1
		}
		return now.Status.Updated
	}
}

// ending counts the parsers that were deleted and have not ended.
func (f *farm) ending(ctx context.Context) int {
	GinkgoHelper()
	var pods corev1.PodList
	Expect(k8s.List(ctx, &pods, client.InNamespace(f.namespace), client.HasLabels{v1alpha1.LabelParser})).To(Succeed())
	n := 0
	for i := range pods.Items {
		if pods.Items[i].DeletionTimestamp != nil {
			n++
		}
	}
	return n
}

func asRaw(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" }

var _ = Describe("a rollout and its witnesses", func() {
	It("does not end a canary when all nodes lose their label for a moment", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.withCanary(time.Hour)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		first := current(ctx, obj).Status.CurrentRevision
		change(ctx, obj, asRaw)
		canary := f.canary(ctx, obj, 3)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReconciling, "True/CanarySoaking", soon)
		f.relabelNodes(ctx, 3, "other")
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Desired }).Should(BeZero())
		f.relabelNodes(ctx, 3, f.label)
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(3)))
		Consistently(ctx, func() string { return current(ctx, obj).Status.CurrentRevision }).Should(Equal(first))
		Expect(updated(ctx, obj)()).To(Equal(int32(1)))
		Expect(f.canary(ctx, obj, 3)).To(Equal(canary))
	})

	It("does not go from node to node when nodes die with the new revision", func(ctx SpecContext) {
		f := newFarm(ctx, 5)
		run(runOptions{})
		obj := f.withCanary(time.Hour)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		change(ctx, obj, asRaw)
		down := map[int]bool{}
		dies := func() bool {
			now := current(ctx, obj)
			for i := range 5 {
				p := f.pod(ctx, obj.Name, i)
				if p == nil || !ready(p) || down[i] || now.Status.ObservedGeneration != now.Generation ||
					obj.Name+"-"+p.Labels[v1alpha1.LabelRevision] != now.Status.UpdateRevision {
					continue
				}
				By(fmt.Sprintf("node %d runs the new revision, and goes down with it", i))
				down[i] = true
				f.setIdle(i, true)
				f.parser(i).close()
				f.setNodeReady(ctx, f.node(i), corev1.ConditionUnknown)
				return true
			}
			return false
		}
		Eventually(ctx, dies).WithTimeout(judged).Should(BeTrue())
		Eventually(ctx, dies).WithTimeout(judged).Should(BeTrue(), "one lost canary is replaced")
		Consistently(ctx, dies).WithTimeout(10 * time.Second).Should(BeFalse())
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionReady)).To(ContainSubstring("cannot be observed"))
	})

	It("leaves the pods of nodes alone that are only cut off", func(ctx SpecContext) {
		f := newFarm(ctx, 4)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Rollout.MaxUnavailable = ptr.To(intstr.FromInt32(1))
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		for i := range 3 {
			f.setIdle(i, true)
			f.setNodeReady(ctx, f.node(i), corev1.ConditionUnknown)
		}
		eventuallyWaits(ctx, obj, 3)
		change(ctx, obj, asRaw)
		Eventually(ctx, updated(ctx, obj)).WithTimeout(judged).Should(Equal(int32(1)))
		Consistently(ctx, func() int { return f.ending(ctx) }).Should(BeZero())

		By("having them back: they follow one after the other")
		f.watchDown()
		for i := range 3 {
			f.setIdle(i, false)
			f.setNodeReady(ctx, f.node(i), corev1.ConditionTrue)
		}
		Eventually(ctx, updated(ctx, obj)).WithTimeout(2 * judged).Should(Equal(int32(4)))
		Expect(f.mostDown()).To(Equal(1))
	})

	It("is not begun by a promotion of an earlier time, nor after the revision was pruned", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.withCanary(3 * time.Second)
		obj.Spec.Rollout.RevisionHistoryLimit = ptr.To[int32](0)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		rolledOut := func() bool {
			now := current(ctx, obj).Status
			return now.CurrentRevision == now.UpdateRevision && updated(ctx, obj)() == 3 && now.Ready == 3
		}
		By("promoting a revision by hand")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			asRaw(o)
			o.Spec.Rollout.Canary.Soak = &metav1.Duration{Duration: time.Hour}
		})
		f.canary(ctx, obj, 3)
		promoted := current(ctx, obj).Status.UpdateRevision
		promote := func(revision string) {
			GinkgoHelper()
			change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
				if delete(o.Annotations, v1alpha1.AnnotationPromote); revision != "" {
					metav1.SetMetaDataAnnotation(&o.ObjectMeta, v1alpha1.AnnotationPromote, revision)
				}
			})
		}
		promote(promoted)
		Eventually(ctx, rolledOut).WithTimeout(judged).Should(BeTrue())
		By("going on to another, which soaks shortly; the first is pruned")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Format = "Normalized"
			o.Spec.Rollout.Canary.Soak = &metav1.Duration{Duration: time.Second}
		})
		Eventually(ctx, rolledOut).WithTimeout(2 * judged).Should(BeTrue())
		judgedReady(ctx, obj)
		By("going back to the first, whose promotion is there still")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			asRaw(o)
			o.Spec.Rollout.Canary.Soak = &metav1.Duration{Duration: time.Hour}
		})
		Eventually(ctx, updated(ctx, obj)).WithTimeout(judged).Should(Equal(int32(1)))
		Expect(current(ctx, obj).Status.UpdateRevision).To(Equal(promoted))
		Consistently(ctx, updated(ctx, obj)).WithTimeout(5 * time.Second).Should(Equal(int32(1)))
		By("promoting it again")
		promote("")
		Eventually(ctx, func() map[string]string { return storedRevision(ctx, obj, promoted).Annotations }).
			ShouldNot(HaveKey(v1alpha1.AnnotationPromotionOver))
		promote(promoted)
		Eventually(ctx, rolledOut).WithTimeout(judged).Should(BeTrue())
	})

	It("skips no canary for a status that was wiped, whole or in part", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.withCanary(time.Hour)
		obj.Spec.Rollout.Canary.Count = ptr.To(intstr.FromInt32(2)) // more pods have the new revision than the old
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		first := current(ctx, obj).Status.CurrentRevision
		change(ctx, obj, asRaw)
		Eventually(ctx, updated(ctx, obj)).WithTimeout(judged).Should(Equal(int32(2)))
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReconciling, "True/CanarySoaking", soon)
		for what, wipe := range map[string]func(*v1alpha1.HyperliquidParserStatus){
			"all":             func(s *v1alpha1.HyperliquidParserStatus) { *s = v1alpha1.HyperliquidParserStatus{} },
			"currentRevision": func(s *v1alpha1.HyperliquidParserStatus) { s.CurrentRevision = "" },
			"updateRevision":  func(s *v1alpha1.HyperliquidParserStatus) { s.UpdateRevision = "" },
			"both":            func(s *v1alpha1.HyperliquidParserStatus) { s.UpdateRevision, s.CurrentRevision = "", "" },
			"a wrong one":     func(s *v1alpha1.HyperliquidParserStatus) { s.CurrentRevision = s.UpdateRevision },
		} {
			By("wiping " + what)
			Eventually(ctx, func() error {
				now := current(ctx, obj)
				wipe(&now.Status)
				return k8s.Status().Update(ctx, now)
			}).Should(Succeed())
			wake(ctx, obj)
			Eventually(ctx, func() string { return current(ctx, obj).Status.CurrentRevision }).Should(Equal(first))
			Consistently(ctx, updated(ctx, obj)).Should(Equal(int32(2)))
		}
	})

	It("goes on beside targets that were not ready before it began", func(ctx SpecContext) {
		f := newFarm(ctx, 4)
		c := &movedClock{}
		run(runOptions{clock: c})
		f.setIdle(0, true) // its pod never starts
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(3)))
		c.move(plan.Settle + time.Minute)
		wake(ctx, obj)
		Eventually(ctx, func() string { return current(ctx, obj).Status.CurrentRevision }).WithTimeout(judged).ShouldNot(
			BeEmpty())
		change(ctx, obj, asRaw)
		By("giving the new pod of that target its time")
		Eventually(ctx, updated(ctx, obj)).WithTimeout(judged).Should(Equal(int32(1)))
		Consistently(ctx, updated(ctx, obj)).Should(Equal(int32(1)))
		c.move(plan.Settle + time.Minute)
		wake(ctx, obj)
		Eventually(ctx, updated(ctx, obj)).WithTimeout(2 * judged).Should(Equal(int32(4)))
		Eventually(ctx, func() bool {
			now := current(ctx, obj).Status
			return now.CurrentRevision == now.UpdateRevision
		}).WithTimeout(judged).Should(BeTrue())
	})

	It("waits for what it has taken down, however long, and says so", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		c := &movedClock{}
		run(runOptions{clock: c})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		f.watchDown()
		f.setUnready(true)
		for _, coin := range []v1alpha1.Coin{"A", "B"} { // two bad revisions, and a lunch after each
			change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Filter.Coins = []v1alpha1.Coin{coin} })
			Eventually(ctx, updated(ctx, obj)).WithTimeout(judged).Should(Equal(int32(1)))
			c.move(plan.Settle + time.Minute)
			wake(ctx, obj)
			Eventually(ctx, func() string { return conditionMessage(current(ctx, obj), v1alpha1.ConditionReady) }).WithTimeout(
				judged).
				Should(ContainSubstring("the rollout is waiting for a ready parser of " + f.namespace))
			Consistently(ctx, updated(ctx, obj)).Should(Equal(int32(1)))
		}
		Expect(f.mostDown()).To(Equal(1))
	})

	It("counts its percentage of targets that can be counted down", func(ctx SpecContext) {
		f := newFarm(ctx, 10)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Rollout.MaxUnavailable = ptr.To(intstr.FromString("25%"))
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(10)))
		for i := 2; i < 10; i++ {
			f.setIdle(i, true)
			f.setNodeReady(ctx, f.node(i), corev1.ConditionUnknown)
		}
		eventuallyWaits(ctx, obj, 8)
		f.setIdle(0, true) // what is deleted stays
		f.setIdle(1, true)
		change(ctx, obj, asRaw)
		Eventually(ctx, func() int { return f.ending(ctx) }).WithTimeout(judged).Should(Equal(1))
		Consistently(ctx, func() int { return f.ending(ctx) }).Should(Equal(1))
	})

	It("counts no Hyperliquid node's pod that was evicted", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.besidePods()
		obj.Spec.Rollout.MaxUnavailable = ptr.To(intstr.FromString("25%"))
		for i, name := range []string{"hl-a", "hl-b"} {
			f.claim(ctx, name, corev1.ReadWriteOnce)
			runOn(ctx, f.hlNode(ctx, name, "data"), f.node(i))
		}
		for i := range 8 { // what a ReplicaSet leaves behind
			p := f.hlNode(ctx, fmt.Sprintf("hl-dead-%d", i), "data")
			runOn(ctx, p, f.node(i%2))
			p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted"
			Expect(k8s.Status().Update(ctx, p)).To(Succeed())
		}
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(2)))
		By("taking the sink from both: two of two are the fleet's fault")
		f.parser(0).fault(sinkDown)
		f.parser(1).fault(sinkDown)
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, v1alpha1.ReasonFleetWide) }).WithTimeout(judged).
			Should(ContainElement(ContainSubstring("2 of 2 targets")))
		f.setIdle(0, true)
		f.setIdle(1, true)
		change(ctx, obj, asRaw)
		Eventually(ctx, func() int { return f.ending(ctx) }).WithTimeout(judged).Should(Equal(1))
		Consistently(ctx, func() int { return f.ending(ctx) }).Should(Equal(1))
	})
})

// eventuallyWaits waits until the operator has observed that n targets take no pod now.
func eventuallyWaits(ctx context.Context, obj *v1alpha1.HyperliquidParser, n int) {
	GinkgoHelper()
	Eventually(ctx, func() string { return conditionMessage(current(ctx, obj), v1alpha1.ConditionReady) }).
		Should(ContainSubstring(fmt.Sprintf("%d targets cannot take a new one now", n)))
}

var _ = Describe("what no client can do", func() {
	It("names a pod that does not end, and lets the others be cured", func(ctx SpecContext) {
		f := newFarm(ctx, 4)
		c := &movedClock{}
		run(runOptions{clock: c})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		By("deleting a pod that somebody else's finalizer holds")
		pod := f.pod(ctx, obj.Name, 1)
		pod.Finalizers = []string{"kueue.x-k8s.io/managed"}
		Expect(k8s.Update(ctx, pod)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) {
			p := f.pod(ctx, obj.Name, 1)
			p.Finalizers = nil
			Expect(k8s.Update(ctx, p)).To(Succeed())
		})
		f.setIdle(1, true)
		Expect(k8s.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		f.parser(2).fault(hangs)
		Eventually(ctx, func() map[string]string { return verdicts(ctx, obj) }).WithTimeout(judged).Should(
			HaveKeyWithValue(f.node(2), "Stuck"))
		Consistently(ctx, func() int32 { return current(ctx, obj).Status.Restarts }).Should(BeZero(), "it may end yet")
		c.move(plan.Settle + time.Minute)
		wake(ctx, obj)
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Restarts }).WithTimeout(judged).Should(Equal(int32(1)))
		Eventually(ctx, func() string { return conditionMessage(current(ctx, obj), v1alpha1.ConditionReady) }).
			Should(And(ContainSubstring("pods that do not terminate"), ContainSubstring(f.node(1))))
	})

	It("brings a pod back as it was while a new spec is refused", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		made0 := made(f.pod(ctx, obj.Name, 0))
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Image = "registry.exampel/hlparser:v2" })
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonImageNotAllowed, soon)
		Expect(made(f.kill(ctx, obj.Name, 0))).To(Equal(made0))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionStalled)).To(Equal("True/" + v1alpha1.ReasonImageNotAllowed))
		Consistently(ctx, func() int { return f.ending(ctx) }).Should(BeZero())
	})

	It("makes no pod for a spec that was refused from the start", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Image = "registry.exampel/hlparser:v2"
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonImageNotAllowed, soon)
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(BeEmpty())
	})

	DescribeTable("fails a canary that cannot be started within two minutes, in the kubelet's words",
		func(ctx SpecContext, waiting corev1.ContainerStateWaiting, inInit bool) {
			f := newFarm(ctx, 3)
			c := &movedClock{}
			run(runOptions{clock: c})
			obj := f.withCanary(time.Hour)
			Expect(k8s.Create(ctx, obj)).To(Succeed())
			judgedReady(ctx, obj)
			for i := range 3 {
				Eventually(ctx, func() bool { return ready(f.pod(ctx, obj.Name, i)) }).Should(BeTrue())
			}
			first := current(ctx, obj).Status.CurrentRevision
			f.setUnready(true)
			change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Image = "registry.example/hlparser:none" })
			By("holding the kubelet of the canary where it cannot start a container")
			canary := f.holdCanary(ctx, obj, 3, waiting, inInit)
			f.setUnready(false)
			Consistently(ctx, func() string { return condition(current(ctx, obj), v1alpha1.ConditionStalled) }).
				Should(Equal("False/NotStalled"), "a registry may fail once")
			c.move(plan.StartTimeout)
			wake(ctx, obj)
			eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonCanaryFailed, soon)
			Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(And(
				ContainSubstring(f.node(canary)), ContainSubstring(waiting.Reason), ContainSubstring(waiting.Message[:40])))
			Eventually(ctx, func() string {
				p := f.pod(ctx, obj.Name, canary)
				if p == nil || !ready(p) {
					return ""
				}
				return obj.Name + "-" + p.Labels[v1alpha1.LabelRevision]
			}).WithTimeout(judged).Should(Equal(first))
		},
		Entry("the image is not there", corev1.ContainerStateWaiting{Reason: "ImagePullBackOff",
			Message: `Back-off pulling image "registry.example/hlparser:none": ErrImagePull: failed to pull and unpack ` +
				`image: not found`}, true),
		Entry("the runtime does not make it", corev1.ContainerStateWaiting{Reason: "CreateContainerError",
			Message: `failed to generate container "1" spec: failed to generate spec: no command specified`}, false),
	)
})

// holdCanary waits for the pod of the new revision, and makes its kubelet report why one of its containers does not
// start. It returns the node.
func (f *farm) holdCanary(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, nodes int, waiting corev1.ContainerStateWaiting, inInit bool,
) int {
	GinkgoHelper()
	held := -1
	Eventually(ctx, func() error {
		now := current(ctx, obj)
		for i := range nodes {
			p := f.pod(ctx, obj.Name, i)
			if p == nil || p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil ||
				now.Status.ObservedGeneration != now.Generation ||
				obj.Name+"-"+p.Labels[v1alpha1.LabelRevision] != now.Status.UpdateRevision {
				continue
			}
			held = i
			stands := func(name string, w corev1.ContainerStateWaiting) []corev1.ContainerStatus {
				return []corev1.ContainerStatus{{Name: name, State: corev1.ContainerState{Waiting: &w}}}
			}
			if inInit {
				p.Status.InitContainerStatuses = stands("prepare", waiting)
				p.Status.ContainerStatuses = stands("hlparser", corev1.ContainerStateWaiting{Reason: "PodInitializing"})
			} else {
				p.Status.ContainerStatuses = stands("hlparser", waiting)
			}
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse,
				LastTransitionTime: metav1.Now()}}
			return k8s.Status().Update(ctx, p)
		}
		return fmt.Errorf("there is no pod of the new revision")
	}).WithTimeout(judged).Should(Succeed())
	return held
}

var _ = Describe("clocks that differ", func() {
	for _, ahead := range []time.Duration{-11 * time.Minute, -time.Minute, time.Minute, 11 * time.Minute} {
		It(fmt.Sprintf("make no start a fault, and fail no canary: the operator's is "+
			"%s ahead", ahead), func(ctx SpecContext) {
			f := newFarm(ctx, 3)
			c := &movedClock{}
			c.move(ahead)
			run(runOptions{clock: c})
			obj := f.withCanary(time.Hour)
			Expect(k8s.Create(ctx, obj)).To(Succeed())
			judgedReady(ctx, obj)
			Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(3)))
			Expect(eventNotes(ctx, obj, "NotRunning")).To(BeEmpty())
			Expect(eventNotes(ctx, obj, v1alpha1.ReasonFleetWide)).To(BeEmpty())
			f.setUnready(true) // for a moment, as any pod that starts
			change(ctx, obj, asRaw)
			Eventually(ctx, updated(ctx, obj)).WithTimeout(judged).Should(Equal(int32(1)))
			Consistently(ctx, func() string { return condition(current(ctx, obj), v1alpha1.ConditionStalled) }).Should(
				Equal("False/NotStalled"))
			f.setUnready(false)
			By("failing it once it was not ready for long enough")
			c.move(plan.Settle)
			wake(ctx, obj)
			eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonCanaryFailed, soon)
			Expect(strings.Contains(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled), "not ready for 10m0s")).To(
				BeTrue())
		})
	}
})
