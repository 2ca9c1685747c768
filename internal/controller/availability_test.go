package controller_test

import (
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// requests counts the requests of one manager.
type requests struct {
	next http.RoundTripper
	n    atomic.Int32
}

func (r *requests) wrap(c *rest.Config) {
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { r.next = next; return r })
}

func (r *requests) RoundTrip(request *http.Request) (*http.Response, error) {
	r.n.Add(1)
	return r.next.RoundTrip(request)
}

// recovered bounds the recovery of every watch: 15 s, and as long again for an API server that starts on a busy machine
// and refuses all clients until it has loaded its roles.
const recovered = 30 * time.Second

var _ = Describe("without an API server", Label(beginningAPIServer), func() {
	It("an operator that needs no lease goes on judging, deletes nothing, and acts on what it saw when "+
		"it is back", func(ctx SpecContext) {
		f := newFarm(ctx, 4)
		count := &requests{}
		run(runOptions{rest: count.wrap})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		before := f.uids(ctx)
		start := count.n.Load()
		f.withoutAPIServer(func() {
			asked := f.parser(1).timesAsked()
			f.parser(0).fault(hangs)
			Eventually(func() int { return f.parser(1).timesAsked() }).WithTimeout(judged).Should(BeNumerically(">=", asked+10),
				"polling goes on")
		})
		By("having it back: one restart, and nothing else")
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Restarts }).WithTimeout(recovered).Should(
			Equal(int32(1)))
		Eventually(ctx, f.seenDeaths).WithTimeout(recovered).Should(HaveLen(1))
		Expect(f.seenDeaths()[0].UID).To(Equal(before[f.node(0)]))
		eventuallyCondition(ctx, obj, v1alpha1.ConditionDelivering, "True/AllDelivering", recovered)
		Consistently(ctx, f.seenDeaths).Should(HaveLen(1))
		// Six watches that are retried with backoff, and some tens of requests for the restart.
		Expect(count.n.Load()-start).To(BeNumerically("<", 300), "requests")
	})

	It("a leader ends, and the next one begins with nothing and deletes nothing", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		first := run(runOptions{lead: true})
		Eventually(ctx, first.elected).Should(BeClosed())
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		before, version := f.uids(ctx), current(ctx, obj).Status
		f.withoutAPIServer(func() {
			Eventually(first.ended).WithTimeout(judged).Should(BeClosed())
		})
		second := run(runOptions{lead: true})
		Eventually(ctx, second.elected).WithTimeout(judged).Should(BeClosed())
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).WithTimeout(2 * while).Should(Equal(before))
		Expect(current(ctx, obj).Status).To(Equal(version))
		Expect(f.seenDeaths()).To(BeEmpty())
	})
})

var _ = Describe("a rollout whose leader changes", func() {
	It("goes on with the canary that was recorded, and takes each target once", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		h := newHolder()
		first := run(runOptions{wrap: h.wrap})
		obj := f.withCanary(3 * time.Second)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		before := f.uids(ctx)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		var held string
		Eventually(ctx, h.held).WithTimeout(judged).Should(Receive(&held))
		canary := slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return podspec.PodName(obj.Name, f.target(i)) == held })
		Expect(f.uids(ctx)).To(Equal(before))

		By("ending the first leader before its delete, and making another target look like the better canary")
		first.stop()
		f.parser(canary).fault(hangs)
		run(runOptions{})
		Eventually(ctx, func() string { return f.uids(ctx)[f.node(canary)] }).WithTimeout(judged).
			ShouldNot(Or(BeEmpty(), Equal(before[f.node(canary)])))
		Expect(f.seenDeaths()).To(HaveLen(1))
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).WithTimeout(2 * judged).Should(
			Equal(int32(3)))
		allReady(ctx, obj)
		Expect(f.seenDeaths()).To(HaveLen(3))
		for _, d := range f.seenDeaths() {
			Expect(before).To(HaveKeyWithValue(d.Node, d.UID))
		}
	})

	It("takes no more when the old leader wakes up", func(ctx SpecContext) {
		f := newFarm(ctx, 4)
		h := newHolder()
		run(runOptions{wrap: h.wrap})
		obj := f.object()
		obj.Spec.Rollout.MaxUnavailable = ptr.To(intstr.FromInt32(1))
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		before := f.uids(ctx)
		f.watchDown()
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		Eventually(ctx, h.held).WithTimeout(judged).Should(Receive())

		By("letting another operator begin")
		run(runOptions{})
		Eventually(ctx, func() int { return len(f.seenDeaths()) }).WithTimeout(judged).Should(BeNumerically(">=", 1))
		close(h.pass)
		// The status is that of before the change until the new operator writes it.
		Eventually(ctx, func() int { return len(f.seenDeaths()) }).WithTimeout(3 * judged).Should(BeNumerically(">=", 4))
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).WithTimeout(judged).Should(
			Equal(int32(4)))
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(4)))
		Consistently(ctx, func() int { return len(f.seenDeaths()) }).Should(Equal(4))
		for _, d := range f.seenDeaths() {
			Expect(before).To(HaveKeyWithValue(d.Node, d.UID))
		}
		Expect(f.mostDown()).To(BeNumerically("<=", 2), "one of each leader at the most, for the moment that both lead")
	})
})

var _ = Describe("restarts that would not help", func() {
	It("are withheld while the fault is fleet-wide, which is reported once", func(ctx SpecContext) {
		f := newFarm(ctx, 5)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		before := f.uids(ctx)
		f.parser(0).fault(sinkDown)
		f.parser(1).fault(sinkDown)
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, v1alpha1.ReasonFleetWide) }).WithTimeout(judged).Should(
			ConsistOf(
				"2 of 5 targets are bad or were restarted recently: no parser is restarted until fewer targets are bad"))
		f.parser(2).fault(hangs)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionBuffersStable, "False/"+v1alpha1.ReasonFleetWide, judged)
		now := current(ctx, obj)
		Expect(conditionMessage(now, v1alpha1.ConditionBuffersStable)).To(And(
			ContainSubstring(f.node(2)), ContainSubstring("3 of 5 targets are bad")))
		Expect(now.Status.Targets[0].Message).To(HaveSuffix("; no restart: the fault is fleet-wide"))
		Expect(condition(now, v1alpha1.ConditionDelivering)).To(Equal("False/" + v1alpha1.ReasonFleetWide))
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).Should(Equal(before))
		Expect(eventNotes(ctx, obj, v1alpha1.ReasonFleetWide)).To(HaveLen(1))
		Expect(ledgerOf(ctx, f, obj.Name)).To(BeNil())
	})

	It("end for a target that two did not help, for an hour or until the spec changes", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		c := &movedClock{}
		run(runOptions{clock: c})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		restarts := func() int32 { return current(ctx, obj).Status.Restarts }
		note := func() string {
			for _, t := range current(ctx, obj).Status.Targets {
				return t.Message
			}
			return ""
		}
		look := func(at string) {
			GinkgoHelper()
			change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { metav1.SetMetaDataAnnotation(&o.ObjectMeta, "look", at) })
		}
		look("first") // which writes the spec's durations as Go does: another generation
		for n := range int32(2) {
			uid := f.uids(ctx)[f.node(0)]
			f.parser(0).fault(grows)
			if n > 0 {
				Eventually(ctx, note).WithTimeout(judged).Should(ContainSubstring("restarted once, next not before"))
				c.move(6 * time.Minute)
				look("again")
			}
			Eventually(ctx, restarts).WithTimeout(judged).Should(Equal(n + 1))
			Eventually(ctx, func() bool {
				p := f.pod(ctx, obj.Name, 0)
				return p != nil && string(p.UID) != uid && ready(p)
			}).Should(BeTrue())
		}
		f.parser(0).fault(grows)
		eventuallyCondition(ctx, obj, v1alpha1.ConditionBuffersStable, "False/"+v1alpha1.ReasonRestartIneffective, judged)
		Eventually(ctx, note).Should(
			MatchRegexp(`; restarts do not help: tried 2 times, next try not before \d\d:\d\d:\d\d UTC$`))
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, v1alpha1.ReasonRestartIneffective) }).Should(HaveLen(1))

		By("letting every cooldown pass")
		c.move(50 * time.Minute)
		look("after")
		Consistently(ctx, restarts).Should(Equal(int32(2)))

		By("letting the hour pass")
		uid := f.uids(ctx)[f.node(0)]
		c.move(15 * time.Minute)
		look("after an hour")
		Eventually(ctx, restarts).WithTimeout(judged).Should(Equal(int32(3)))
		Eventually(ctx, func() bool {
			p := f.pod(ctx, obj.Name, 0)
			return p != nil && string(p.UID) != uid && ready(p)
		}).Should(BeTrue())
		f.parser(0).fault(grows)
		Eventually(ctx, note).WithTimeout(judged).Should(
			ContainSubstring("restarts do not help: tried 3 times, next try not before"))

		By("changing the spec, after every cooldown")
		c.move(61 * time.Minute)
		look("after another")
		Consistently(ctx, restarts).Should(Equal(int32(3)))
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Growth.Restart.MaxPerHour = ptr.To[int32](4) })
		Eventually(ctx, restarts).WithTimeout(judged).Should(Equal(int32(4)))
	})
})
