package controller_test

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

var _ = Describe("a loss", func() {
	It("stays in the object over verdicts, pods and operators, until it is acknowledged", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		first := run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDataIntact, "True/NothingLost", judged)

		f.parser(1).lose(2)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDataIntact, "False/DataLost", soon)
		Expect(current(ctx, obj).Status).To(And(
			HaveField("State", "DataLost"), HaveField("Story", HavePrefix("unread lines are lost on ")),
			HaveField("Losses", ConsistOf(And(
				HaveField("Target", f.node(1)), HaveField("PrunedFiles", int64(2)), HaveField("Acknowledged", false),
			))),
		))

		By("another operator's leading")
		first.stop()
		w := &writes{}
		run(runOptions{rest: w.wrap})
		asked := f.parser(1).timesAsked()
		Eventually(ctx, func() int { return f.parser(1).timesAsked() - asked }).WithTimeout(judged).Should(
			BeNumerically(">=", 8))
		Expect(w.take()).To(BeEmpty(), "nothing has changed")
		Expect(condition(current(ctx, obj), v1alpha1.ConditionDataIntact)).To(Equal("False/DataLost"))

		By("another pod's having lost nothing")
		before := f.uids(ctx)[f.node(1)]
		Expect(k8s.Delete(ctx, f.pod(ctx, obj.Name, 1))).To(Succeed())
		Eventually(ctx, func() string { return f.uids(ctx)[f.node(1)] }).Should(And(Not(BeEmpty()), Not(Equal(before))))
		judgedReady(ctx, obj)
		Expect(condition(current(ctx, obj), v1alpha1.ConditionDataIntact)).To(Equal("False/DataLost"))

		By("acknowledging it as the condition says")
		text := conditionMessage(current(ctx, obj), v1alpha1.ConditionDataIntact)
		_, name, ok := strings.Cut(text, v1alpha1.AnnotationAcknowledgeLoss+"=")
		Expect(ok).To(BeTrue(), text)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			metav1.SetMetaDataAnnotation(&o.ObjectMeta, v1alpha1.AnnotationAcknowledgeLoss, name)
		})
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDataIntact, "True/NothingLost", soon)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDelivering, "True/AllDelivering", judged)
		Expect(current(ctx, obj).Status).To(And(HaveField("State", "Delivering"), HaveField("Losses", BeEmpty())))

		By("losing more")
		f.parser(0).lose(1)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDataIntact, "False/DataLost", soon)
		Eventually(ctx, logs.text).Should(And(
			ContainSubstring("alert raised"), ContainSubstring(`"alert": "DataLost"`), ContainSubstring("verdict changed")))
	})
})

var _ = Describe("a parser that may not read its data", func() {
	It("is SourceUnreadable, says what to do, and is not restarted", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		before := f.uids(ctx)
		f.parser(1).fault(func(r *report.Report) {
			hangs(r)
			r.Streams[0].State = report.Blocked
			r.Streams[0].Blocked = &report.BlockedPath{
				Path: ".", Error: "open: permission denied", Errno: "EACCES", Count: 1,
				Denies: ".", Owner: new(int64(1000)), Bits: "0700", RunsAs: new(int64(10000)),
			}
		})
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDelivering, "False/SourceUnreadable", judged)
		cure := "permission denied: the data directory (owner 1000, mode 0700); the parser runs as user 10000: set runAsUser"
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionDelivering)).To(HaveSuffix(cure))
		Expect(current(ctx, obj).Status.State).To(Equal("SourceUnreadable"))
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, "SourceUnreadable") }).Should(
			ConsistOf(HaveSuffix(cure)))
		asked := f.parser(1).timesAsked()
		Eventually(ctx, func() int { return f.parser(1).timesAsked() - asked }).WithTimeout(judged).Should(
			BeNumerically(">=", 20))
		Expect(f.uids(ctx)).To(Equal(before))
		Expect(current(ctx, obj).Status.Restarts).To(BeZero())
	})
})
