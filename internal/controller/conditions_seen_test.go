package controller_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

var _ = Describe("the conditions of a fleet", func() {
	DescribeTable("name a fault that no restart cures, or that none may cure",
		func(ctx SpecContext, edit func(*v1alpha1.HyperliquidParser), breaks func(*report.Report), kind, want string) {
			f := newFarm(ctx, 2)
			run(runOptions{})
			obj := f.object()
			Expect(k8s.Create(ctx, obj)).To(Succeed())
			judgedReady(ctx, obj)
			change(ctx, obj, edit)
			before := f.uids(ctx)
			f.parser(1).fault(breaks)
			eventuallyCondition(ctx, obj, kind, "False/"+want, judged)
			now := current(ctx, obj)
			Expect(conditionMessage(now, kind)).To(ContainSubstring(f.node(1)))
			Expect(condition(now, v1alpha1.ConditionReady)).To(Equal("True/AllReady"))
			Expect(f.uids(ctx)).To(Equal(before))
		},
		Entry("files that cannot be read", func(*v1alpha1.HyperliquidParser) {}, func(r *report.Report) {
			r.Streams[0].Blocked = &report.BlockedPath{
				Path: "node_fills", Error: "permission denied", Errno: "EACCES", Since: r.Now.Add(-time.Minute), Count: 1}
		}, v1alpha1.ConditionDelivering, "SourceUnreadable"),
		Entry("blocks that the node left out", func(*v1alpha1.HyperliquidParser) {}, func(r *report.Report) {
			r.Streams[0].BlockGapsTotal, r.Streams[0].LastBlock = 7, 100
		}, v1alpha1.ConditionDataIntact, v1alpha1.ReasonDataGap),
		Entry("a hang while the object is paused", func(o *v1alpha1.HyperliquidParser) { o.Spec.Paused = true }, hangs,
			v1alpha1.ConditionDelivering, "Stuck"),
	)

	It("name a rollout that stopped because the new pods crash", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		crashing := f.canary(ctx, obj, 3) // the first pod of the new revision
		Eventually(ctx, func() error {
			pod := f.pod(ctx, obj.Name, crashing)
			c := &pod.Status.ContainerStatuses[0]
			c.RestartCount = 3
			c.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
			c.LastTerminationState = corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137}}
			return k8s.Status().Update(ctx, pod)
		}).Should(Succeed())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReconciling, "True/"+v1alpha1.ReasonRolloutStopped, judged)
		now := current(ctx, obj)
		Expect(condition(now, v1alpha1.ConditionDelivering)).To(Equal("False/NotRunning"))
		Expect(conditionMessage(now, v1alpha1.ConditionReady)).To(
			ContainSubstring(" on revision " + now.Status.UpdateRevision + ": "))
	})
})
