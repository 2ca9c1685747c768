package controller_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// withCanary returns an object whose new revisions soak on one target.
func (f *farm) withCanary(soak time.Duration) *v1alpha1.HyperliquidParser {
	obj := f.object()
	obj.Spec.Rollout = v1alpha1.Rollout{
		MaxUnavailable: ptr.To(intstr.FromString("100%")),
		Canary:         &v1alpha1.Canary{Count: ptr.To(intstr.FromInt32(1)), Soak: &metav1.Duration{Duration: soak}},
	}
	return obj
}

// judgedReady waits until the fleet is complete and the first target is Healthy. The others soon are.
func judgedReady(ctx context.Context, obj *v1alpha1.HyperliquidParser) {
	GinkgoHelper()
	allReady(ctx, obj)
	eventuallyCondition(ctx, obj, v1alpha1.ConditionBuffersStable, "True/AllStable", judged)
}

// canary returns the number of the one node with a ready pod of the wanted revision, once there is one.
func (f *farm) canary(ctx context.Context, obj *v1alpha1.HyperliquidParser, nodes int) int {
	GinkgoHelper()
	found := -1
	Eventually(ctx, func() int {
		found = -1
		now := current(ctx, obj)
		if now.Status.ObservedGeneration != now.Generation {
			return found
		}
		update := now.Status.UpdateRevision
		for i := range nodes {
			if p := f.pod(ctx, obj.Name, i); p != nil && ready(p) && obj.Name+"-"+p.Labels[v1alpha1.LabelRevision] == update {
				found = i
			}
		}
		return found
	}).WithTimeout(judged).Should(BeNumerically(">=", 0))
	return found
}

var _ = Describe("a canary", func() {
	It("gets a new revision first, soaks, and is followed by the others", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.withCanary(4 * time.Second)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		first := current(ctx, obj).Status.CurrentRevision
		Expect(eventNotes(ctx, obj, v1alpha1.ReasonCanarySoaking)).To(BeEmpty(), "the first revision has none")

		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		f.canary(ctx, obj, 3)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReconciling, "True/CanarySoaking", soon)
		Eventually(ctx, func() v1alpha1.HyperliquidParserStatus { return current(ctx, obj).Status }).Should(
			And(HaveField("Updated", int32(1)), HaveField("CurrentRevision", first)))
		now := current(ctx, obj).Status
		Expect(condition(current(ctx, obj), v1alpha1.ConditionReady)).To(Equal("False/CanarySoaking"))
		Eventually(ctx, func() string {
			return conditionMessage(current(ctx, obj),
				v1alpha1.ConditionReconciling)
		}).WithTimeout(judged).
			Should(MatchRegexp(`soaking until \d\d:\d\d:\d\d UTC`))

		By("letting it soak")
		Eventually(ctx, func() string { return current(ctx, obj).Status.CurrentRevision }).WithTimeout(judged).Should(
			Equal(now.UpdateRevision))
		allReady(ctx, obj)
		Expect(f.seenDeaths()).To(HaveLen(3))
		Eventually(ctx, func() map[string]string { return storedRevision(ctx, obj, now.UpdateRevision).Annotations }).
			ShouldNot(HaveKey(v1alpha1.AnnotationRollout))
		Expect(eventNotes(ctx, obj, v1alpha1.ReasonCanarySoaking)).To(HaveLen(1))
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, "RolledOut") }).Should(HaveLen(1))
	})

	It("that is worse than before is sent back, and what dies meanwhile comes back as it was", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.withCanary(time.Hour)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		before := f.uids(ctx)
		old := map[int]string{}
		for i := range 3 {
			old[i] = made(f.pod(ctx, obj.Name, i))
		}
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		canary := f.canary(ctx, obj, 3)
		stable := (canary + 1) % 3

		By("killing a stable pod: its replacement is the old template's to the byte")
		Expect(made(f.kill(ctx, obj.Name, stable))).To(Equal(old[stable]))

		By("adding a node: it gets the old revision")
		f.addNode(ctx, f.node(3), true)
		Eventually(ctx, func() bool { p := f.pod(ctx, obj.Name, 3); return p != nil && ready(p) }).Should(BeTrue())
		Expect(f.pod(ctx, obj.Name, 3).Labels[v1alpha1.LabelRevision]).To(
			Equal(f.pod(ctx, obj.Name, stable).Labels[v1alpha1.LabelRevision]))

		By("killing the canary: it comes back as a canary")
		Expect(f.kill(ctx, obj.Name, canary).Labels[v1alpha1.LabelRevision]).NotTo(
			Equal(f.pod(ctx, obj.Name, stable).Labels[v1alpha1.LabelRevision]))

		By("failing the canary")
		f.parser(canary).fault(hangs)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonCanaryFailed, judged)
		now := current(ctx, obj)
		Expect(conditionMessage(now, v1alpha1.ConditionStalled)).To(And(
			ContainSubstring(f.node(canary)+" on revision "+now.Status.UpdateRevision),
			ContainSubstring("4.8 MiB of whole lines wait"),
			ContainSubstring("before, on "+now.Status.CurrentRevision)))
		Expect(condition(now, v1alpha1.ConditionReconciling)).To(Equal("False/" + v1alpha1.ReasonCanaryFailed))
		Expect(condition(now, v1alpha1.ConditionReady)).To(Equal("False/" + v1alpha1.ReasonCanaryFailed))
		Expect(now.Spec.Format).To(BeEquivalentTo("Raw"), "the spec is left alone")
		Eventually(ctx, func() bool {
			p := f.pod(ctx, obj.Name, canary)
			return p != nil && ready(p) &&
				made(p) == old[canary]
		}).Should(BeTrue())
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, v1alpha1.ReasonCanaryFailed) }).Should(HaveLen(1))
		after := f.uids(ctx)
		other := 3 - canary - stable
		Expect(after).To(HaveKeyWithValue(f.node(other), before[f.node(other)]))
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(Equal(after))
		Expect(current(ctx, obj).Status.Restarts).To(BeZero())

		By("setting the spec back: nothing is replaced")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Enveloped" })
		allReady(ctx, obj)
		Expect(condition(current(ctx, obj), v1alpha1.ConditionStalled)).To(Equal("False/NotStalled"))
		Expect(f.uids(ctx)).To(Equal(after))

		By("asking for it again: it is tried again")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		f.canary(ctx, obj, 4)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReconciling, "True/CanarySoaking", soon)
	})

	It("is not blamed for the boots of its node", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		for i := range 2 {
			f.updateNode(ctx, f.node(i), func(node *corev1.Node) { node.Status.NodeInfo.BootID = "11111111-before" })
		}
		run(runOptions{})
		obj := f.withCanary(time.Hour)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		canary := f.canary(ctx, obj, 2)
		update := current(ctx, obj).Status.UpdateRevision

		f.boot(ctx, obj.Name, canary, "22222222-after")
		state := func() string { return storedRevision(ctx, obj, update).Annotations[v1alpha1.AnnotationRollout] }
		Eventually(ctx, state).WithTimeout(soon).Should(ContainSubstring(`"boot":"22222222","boots":1`))
		Consistently(ctx, func() string { return condition(current(ctx, obj), v1alpha1.ConditionStalled) }).WithTimeout(
			time.Second).
			Should(Equal("False/" + v1alpha1.ReasonNotStalled))

		By("restarting its container without a boot")
		f.boot(ctx, obj.Name, canary, "22222222-after")
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonCanaryFailed, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(
			ContainSubstring("its container restarted 2 times"))
	})

	It("need not soak any longer when somebody promotes the revision, and that one alone", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.withCanary(time.Hour)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		first := current(ctx, obj).Status.UpdateRevision
		promote := func(revision string) {
			GinkgoHelper()
			change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
				metav1.SetMetaDataAnnotation(&o.ObjectMeta, v1alpha1.AnnotationPromote, revision)
			})
		}
		promote(first)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		f.canary(ctx, obj, 3)
		// The status follows the canary's pod by as much as changes are gathered.
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).WithTimeout(judged).Should(Equal(int32(1)))
		Consistently(ctx, func() int32 { return current(ctx, obj).Status.Updated }).Should(Equal(int32(1)))
		promote(current(ctx, obj).Status.UpdateRevision)
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).WithTimeout(judged).Should(Equal(int32(3)))
		allReady(ctx, obj)
	})

	It("waits while the object is paused", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.withCanary(time.Second)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		before := f.uids(ctx)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format, o.Spec.Paused = "Raw", true })
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReady, "False/Paused", soon)
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(Equal(before))
		kept := made(f.pod(ctx, obj.Name, 0))
		Expect(made(f.kill(ctx, obj.Name, 0))).To(Equal(kept), "a missing pod is recreated at its revision")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Paused = false })
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).WithTimeout(2 * judged).Should(
			Equal(int32(2)))
	})
})

var _ = Describe("a rollout", func() {
	It("is neither held up by nodes that are lost or cordoned, nor counts them", func(ctx SpecContext) {
		f := newFarm(ctx, 5)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Rollout.MaxUnavailable = ptr.To(intstr.FromInt32(1))
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		before := f.uids(ctx)
		By("losing one node and cordoning another")
		f.setIdle(0, true)
		f.setNodeReady(ctx, f.node(0), corev1.ConditionUnknown)
		f.updateNode(ctx, f.node(1), func(n *corev1.Node) { n.Spec.Unschedulable = true })
		Eventually(ctx, func() error {
			pod := f.pod(ctx, obj.Name, 0)
			pod.Status.Conditions[0].Status = corev1.ConditionFalse // as the node controller does
			return k8s.Status().Update(ctx, pod)
		}).Should(Succeed())

		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		Eventually(ctx, func() bool {
			now := current(ctx, obj)
			return now.Status.CurrentRevision == now.Status.UpdateRevision && now.Status.Updated == 3
		}).WithTimeout(2 * judged).Should(BeTrue())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReady, "True/AllReady", soon)
		Expect(f.uids(ctx)).To(HaveKeyWithValue(f.node(1), before[f.node(1)]))

		By("having both back: they follow")
		f.updateNode(ctx, f.node(1), func(n *corev1.Node) { n.Spec.Unschedulable = false })
		f.setIdle(0, false)
		f.setNodeReady(ctx, f.node(0), corev1.ConditionTrue)
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).WithTimeout(judged).Should(Equal(int32(5)))
		allReady(ctx, obj)
	})

	It("of a restart that was asked for keeps the revision, within the budget and without "+
		"a canary", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.withCanary(time.Hour)
		obj.Spec.Rollout.MaxUnavailable = ptr.To(intstr.FromInt32(1))
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		before, revision := f.uids(ctx), current(ctx, obj).Status.UpdateRevision
		f.watchDown()
		ask := func(at string) {
			GinkgoHelper()
			change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
				metav1.SetMetaDataAnnotation(&o.ObjectMeta, v1alpha1.AnnotationRestartedAt, at)
			})
		}
		ask("2026-05-01T12:00:00Z")
		Eventually(ctx, func() int { return len(f.seenDeaths()) }).WithTimeout(judged).Should(Equal(3))
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(3)))
		allReady(ctx, obj)
		Expect(f.mostDown()).To(Equal(1))
		for i := range 3 {
			pod := f.pod(ctx, obj.Name, i)
			Expect(string(pod.UID)).NotTo(Equal(before[f.node(i)]))
			Expect(pod.Annotations).To(HaveKeyWithValue(v1alpha1.AnnotationRestartedAt, "2026-05-01T12:00:00Z"))
			Expect(obj.Name + "-" + pod.Labels[v1alpha1.LabelRevision]).To(Equal(revision))
		}
		Expect(storedRevisions(ctx, obj)).To(Equal([]string{revision}))

		By("taking the annotation away: that asks for nothing")
		after := f.uids(ctx)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { delete(o.Annotations, v1alpha1.AnnotationRestartedAt) })
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(Equal(after))

		By("asking with an earlier time: it is another one, and that is what counts")
		ask("2026-04-01T12:00:00Z")
		Eventually(ctx, func() int { return len(f.seenDeaths()) }).WithTimeout(judged).Should(Equal(6))
	})
})
