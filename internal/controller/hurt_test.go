package controller_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// turnstile is a transport that blocks or refuses some requests.
type turnstile struct {
	next    http.RoundTripper
	matches func(*http.Request) bool
	matched atomic.Int32

	mu      sync.Mutex
	open    chan struct{} // closed when requests that are held may go on
	refuses bool
}

func newTurnstile(matches func(*http.Request) bool) *turnstile {
	return &turnstile{matches: matches, open: make(chan struct{})}
}

func (g *turnstile) wrap(c *rest.Config) {
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { g.next = next; return g })
}

func (g *turnstile) RoundTrip(r *http.Request) (*http.Response, error) {
	if !g.matches(r) {
		return g.next.RoundTrip(r)
	}
	g.matched.Add(1)
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	g.mu.Lock()
	refuses := g.refuses
	g.mu.Unlock()
	if refuses {
		body := `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"the ` +
			`house is full"}`
		return &http.Response{
			StatusCode: http.StatusForbidden, ProtoMajor: 1, ProtoMinor: 1, Request: r,
			Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
		}, nil
	}
	return g.next.RoundTrip(r)
}

// refuse makes blocked requests fail, and letGo sends them.
func (g *turnstile) refuse() { g.set(true) }
func (g *turnstile) letGo()  { g.set(false) }

func (g *turnstile) set(refuses bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuses = refuses
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

// listsPodsOf reports whether a request is for pods of a namespace that are no parsers.
func listsPodsOf(namespace string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/namespaces/"+namespace+"/pods")
	}
}

var _ = Describe("no object hurts another", func() {
	It("when the pods that many select are not listed, or are refused", func(ctx SpecContext) {
		f, heavy := newFarm(ctx, 1), newFarm(ctx, 1)
		g := newTurnstile(listsPodsOf(heavy.namespace))
		run(runOptions{rest: g.wrap}) // with one worker
		pod := heavy.hlNode(ctx, "hl-0", "data")
		runOn(ctx, pod, heavy.node(0))
		objects := make([]*v1alpha1.HyperliquidParser, 12)
		for i := range objects {
			objects[i] = heavy.besidePods()
			objects[i].Name = fmt.Sprintf("heavy-%d", i)
			Expect(k8s.Create(ctx, objects[i])).To(Succeed())
		}
		Eventually(ctx, g.matched.Load).Should(BeNumerically(">", 0))

		By("giving a stranger its pod while all of them wait")
		good := f.object()
		Expect(k8s.Create(ctx, good)).To(Succeed())
		allReady(ctx, good)
		for _, obj := range objects {
			eventuallyCondition(ctx, obj, v1alpha1.ConditionReady, "Unknown/"+v1alpha1.ReasonTargetsUnknown, soon)
			Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionReady)).To(
				HavePrefix("the pods of namespace %s are not listed yet", heavy.namespace))
			Expect(condition(current(ctx, obj), v1alpha1.ConditionReconciling)).To(HavePrefix("True/"))
		}

		By("saying what the API server says")
		g.refuse()
		for _, obj := range objects {
			eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonTargetsUnknown, soon)
			Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(
				ContainSubstring("cannot be watched: the house is full"))
		}
		second := f.object()
		second.Name = "second"
		Expect(k8s.Create(ctx, second)).To(Succeed())
		allReady(ctx, second)
		Expect(heavy.beside(ctx, "hl-0")).To(BeEmpty())

		By("going on once it lets us")
		g.letGo()
		for _, obj := range objects {
			Eventually(ctx, func() int32 { return current(ctx, obj).Status.Desired }).WithTimeout(recovered).Should(
				Equal(int32(1)))
			Eventually(ctx, func() string { return condition(current(ctx, obj), v1alpha1.ConditionStalled) }).Should(
				HavePrefix("False/"))
		}
	}, SpecTimeout(5*time.Minute))

	It("when many select pods: they share one watch, and cost next to nothing", func(ctx SpecContext) {
		const objects, targets = 60, 60
		f := newFarm(ctx, 0)
		g := newTurnstile(listsPodsOf(f.namespace))
		g.letGo()
		run(runOptions{rest: g.wrap})
		for i := range targets {
			f.hlNode(ctx, fmt.Sprintf("hl-%d", i), "data")
		}
		first := f.besidePods()
		Expect(k8s.Create(ctx, first)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, first).Status.Desired }).Should(Equal(int32(targets)))
		requests, goroutines, heap := g.matched.Load(), runtime.NumGoroutine(), heapInUse()
		for i := range objects {
			obj := f.besidePods()
			obj.Name = fmt.Sprintf("more-%d", i)
			Expect(k8s.Create(ctx, obj)).To(Succeed())
		}
		Eventually(ctx, func() int {
			var list v1alpha1.HyperliquidParserList
			Expect(k8s.List(ctx, &list, client.InNamespace(f.namespace))).To(Succeed())
			n := 0
			for i := range list.Items {
				if list.Items[i].Status.Desired == targets {
					n++
				}
			}
			return n
		}).WithTimeout(time.Minute).Should(Equal(objects + 1))
		AddReportEntry("cost of an object", fmt.Sprintf("%d KiB, %.1f goroutines",
			(int64(heapInUse())-int64(heap))/1024/objects, float64(runtime.NumGoroutine()-goroutines)/objects),
			ReportEntryVisibilityAlways)
		Expect(g.matched.Load()-requests).To(BeNumerically("<=", 1),
			"requests for pods that more objects of the namespace cost")
		Expect(runtime.NumGoroutine()-goroutines).To(BeNumerically("<", objects/2), "goroutines that they cost")

		By("ending the watch with the last of them, and starting one for the next")
		Expect(k8s.DeleteAllOf(ctx, &v1alpha1.HyperliquidParser{}, client.InNamespace(f.namespace))).To(Succeed())
		Eventually(ctx, func() int32 {
			requests = g.matched.Load()
			next := f.besidePods()
			next.Name = "next"
			Expect(client.IgnoreAlreadyExists(k8s.Create(ctx, next))).To(Succeed())
			return current(ctx, next).Status.Desired
		}).Should(Equal(int32(targets)))
	}, SpecTimeout(3*time.Minute))

	It("when the API server takes its time with the pods of many", func(ctx SpecContext) {
		f, heavy := newFarm(ctx, 1), newFarm(ctx, 1)
		g := newTurnstile(func(r *http.Request) bool {
			return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/namespaces/"+heavy.namespace+"/pods")
		})
		run(runOptions{rest: g.wrap, workers: 2})
		for i := range 4 {
			obj := heavy.object()
			obj.Name = fmt.Sprintf("heavy-%d", i)
			Expect(k8s.Create(ctx, obj)).To(Succeed())
		}
		Eventually(ctx, g.matched.Load).Should(BeNumerically(">", 0))
		Consistently(ctx, g.matched.Load).Should(Equal(int32(1)), "workers that one namespace holds")
		good := f.object()
		Expect(k8s.Create(ctx, good)).To(Succeed())
		allReady(ctx, good)
		g.letGo()
		for i := range 4 {
			obj := heavy.object()
			obj.Name = fmt.Sprintf("heavy-%d", i)
			Eventually(ctx, func() int32 { return current(ctx, obj).Status.Current }).Should(Equal(int32(1)))
		}
	}, SpecTimeout(2*time.Minute))

	It("when what its namespace's parsers say of a sink is a lie, or their pods do not start", func(ctx SpecContext) {
		const url = "nats://nats:4222"
		f, evil := newFarm(ctx, 7), newFarm(ctx, 5)
		run(runOptions{})
		publishing := func(f *farm) *v1alpha1.HyperliquidParser {
			obj := f.object()
			obj.Spec.Sink = v1alpha1.Sink{NATS: &v1alpha1.NATSSink{URL: url, Stream: "HYPERLIQUID"}}
			Expect(k8s.Create(ctx, obj)).To(Succeed())
			return obj
		}
		for i := range 5 {
			evil.setIdle(i, i < 2)
		}
		theirs := publishing(evil)
		Eventually(ctx, func() int32 { return current(ctx, theirs).Status.Ready }).Should(Equal(int32(3)))
		for i := range 3 {
			evil.parser(2 + i).fault(sinkDown)
		}
		obj := publishing(f)
		judgedReady(ctx, obj)
		Eventually(ctx, func() int32 { return current(ctx, theirs).Status.Bad }).WithTimeout(time.Minute).Should(
			Equal(int32(5)))

		f.parser(0).fault(hangs)
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Restarts }).WithTimeout(judged).Should(Equal(int32(1)))
		Expect(eventNotes(ctx, obj, v1alpha1.ReasonFleetWide)).To(BeEmpty())
	}, SpecTimeout(4*time.Minute))
})

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
