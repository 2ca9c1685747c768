package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// pods is an API server with pods of one namespace, which a test makes hang or refuse.
type pods struct {
	mu      sync.Mutex
	all     []corev1.Pod
	list    func(context.Context) error // what becomes of a request for a list; nil: it is answered
	watch   func(context.Context) error
	lists   int
	watches []*watch.FakeWatcher
}

func (p *pods) listWatch(string) *toolscache.ListWatch {
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
			p.mu.Lock()
			p.lists++
			do := p.list
			p.mu.Unlock()
			if do != nil {
				if err := do(ctx); err != nil {
					return nil, err
				}
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			return &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: slices.Clone(p.all)}, nil
		},
		WatchFuncWithContext: func(ctx context.Context, _ metav1.ListOptions) (watch.Interface, error) {
			p.mu.Lock()
			do := p.watch
			p.mu.Unlock()
			if do != nil {
				if err := do(ctx); err != nil {
					return nil, err
				}
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			w := watch.NewFakeWithChanSize(100, false)
			p.watches = append(p.watches, w)
			return w, nil
		},
	}
}

// set changes what becomes of requests.
func (p *pods) set(list, events func(context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list, p.watch = list, events
}

// count is how many lists were requested, and how many watches begun.
func (p *pods) count() (lists, watches int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lists, len(p.watches)
}

// deliver sends an event to the newest watch.
func (p *pods) deliver(kind watch.EventType, pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watches[len(p.watches)-1].Action(kind, pod)
}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func refuse(context.Context) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("the message of the API server"))
}

// hlPod is the n-th Hyperliquid node's pod, with labels "key=value".
func hlPod(n int, label ...string) corev1.Pod {
	pod := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprintf("hl-%d", n), ResourceVersion: "1",
			Labels: map[string]string{}},
		Spec:   corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", n), Containers: []corev1.Container{{Name: "hl"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	pod.UID = types.UID(pod.Name)
	for _, l := range label {
		key, value, _ := strings.Cut(l, "=")
		pod.Labels[key] = value
	}
	return pod
}

func parse(t *testing.T, selector string) labels.Selector {
	t.Helper()
	s, err := labels.Parse(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// names of pods, in order.
func names(pods []corev1.Pod) string {
	out := make([]string, 0, len(pods))
	for i := range pods {
		out = append(out, pods[i].Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// watching runs a test in a bubble with a TargetPods that watches an API server's pods.
func watching(t *testing.T, server *pods, test func(*testing.T, *TargetPods, *wakes)) {
	t.Helper()
	clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, false)
	handlers := utilruntime.ErrorHandlers
	utilruntime.ErrorHandlers = nil // they wait by the real time of the last error
	defer func() { utilruntime.ErrorHandlers = handlers }()
	synctest.Test(t, func(t *testing.T) {
		woken := &wakes{}
		p := newTargetPods(server.listWatch, func(name types.NamespacedName, _ time.Duration) { woken.wake(name) },
			clock.RealClock{})
		ctx, cancel := context.WithCancel(t.Context())
		if err := p.Start(ctx, nil); err != nil {
			t.Fatal(err)
		}
		test(t, p, woken)
		cancel()
		synctest.Wait()
	})
}

func object(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "ns", Name: name}
}

func TestAListOfPodsIsNotWaitedFor(t *testing.T) {
	server := &pods{all: []corev1.Pod{hlPod(0, "app=hl"), hlPod(1, "app=other")}, list: hang}
	watching(t, server, func(t *testing.T, p *TargetPods, woken *wakes) {
		began := time.Now()
		_, why := p.List(object("a"), parse(t, "app=hl"))
		if why == nil || why.Refused || why.Message != "the pods of namespace ns are not listed yet" ||
			time.Since(began) != 0 {
			t.Fatalf("got %+v after %s", why, time.Since(began))
		}
		synctest.Wait()
		server.set(nil, nil)
		time.Sleep(longestList + time.Minute) // the request is given up, and made again
		if got := woken.take(); !strings.HasPrefix(got, "ns/a×") {
			t.Errorf("woken: %q", got)
		}
		got, why := p.List(object("a"), parse(t, "app=hl"))
		if why != nil || names(got) != "hl-0" {
			t.Errorf("got %s, %+v", names(got), why)
		}
		if len(got) == 1 && got[0].Spec.Containers != nil {
			t.Error("more is kept than a target is made from")
		}
	})
}

func TestWhatTheAPIServerRefusesIsSaidInItsWordsAndTriedAgain(t *testing.T) {
	const want = "the pods of namespace ns cannot be watched: pods is forbidden: the message of the API server"
	for _, test := range []struct {
		what        string
		list, watch func(context.Context) error
	}{
		{"the list", refuse, nil},
		{"the watch", nil, refuse},
		{"both", refuse, refuse},
	} {
		t.Run(test.what, func(t *testing.T) {
			server := &pods{all: []corev1.Pod{hlPod(0)}, list: test.list, watch: test.watch}
			watching(t, server, func(t *testing.T, p *TargetPods, woken *wakes) {
				// The refusal may come before List returns, which then reports it.
				_, first := p.List(object("a"), labels.Everything())
				synctest.Wait()
				if _, why := p.List(object("a"), labels.Everything()); why == nil || !why.Refused || why.Message != want {
					t.Fatalf("got %+v", why)
				}
				if woken.take() == "" && (first == nil || !first.Refused) {
					t.Error("not woken to say so")
				}
				time.Sleep(10 * time.Minute)
				if got := woken.take(); test.list != nil && got != "" {
					t.Errorf("woken by what is no news: %s", got)
				}
				if n, _ := server.count(); n > 40 {
					t.Errorf("%d requests in ten minutes", n)
				}
				server.set(nil, nil)
				time.Sleep(2 * time.Minute)
				if got, why := p.List(object("a"), labels.Everything()); why != nil || names(got) != "hl-0" {
					t.Errorf("got %s, %+v once it is not refused", names(got), why)
				}
				if got := woken.take(); got == "" {
					t.Error("not woken once it is not refused")
				}
			})
		})
	}
}

func TestPodsThatWereSeenStayKnownWhileTheAPIServerIsAway(t *testing.T) {
	away := func(context.Context) error { return errors.New("connection refused") }
	server := &pods{all: []corev1.Pod{hlPod(0)}}
	watching(t, server, func(t *testing.T, p *TargetPods, woken *wakes) {
		p.List(object("a"), labels.Everything())
		synctest.Wait()
		woken.take()
		server.set(away, away)
		server.watches[0].Stop()
		time.Sleep(10 * time.Minute)
		if got, why := p.List(object("a"), labels.Everything()); why != nil || names(got) != "hl-0" {
			t.Errorf("got %s, %+v", names(got), why)
		}
		// That it refuses to show them is another matter.
		server.set(refuse, refuse)
		time.Sleep(2 * time.Minute)
		if _, why := p.List(object("a"), labels.Everything()); why == nil || !why.Refused {
			t.Errorf("got %+v", why)
		}
	})
}

// What changes in an outage of the API server is seen soon after it, whether the pods were known before it or not.
func TestPodsAreSeenSoonAfterAnOutage(t *testing.T) {
	away := func(context.Context) error { return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED} }
	for _, known := range []bool{true, false} {
		for _, outage := range []time.Duration{100 * time.Second, time.Hour} {
			server := &pods{all: []corev1.Pod{hlPod(0)}}
			if !known {
				server.set(away, away)
			}
			watching(t, server, func(t *testing.T, p *TargetPods, woken *wakes) {
				p.List(object("a"), labels.Everything())
				synctest.Wait()
				if _, why := p.List(object("a"), labels.Everything()); (why == nil) != known || why != nil && why.Refused {
					t.Fatalf("known %v: %+v", known, why)
				}
				server.set(away, away)
				if known {
					server.watches[0].Stop()
				}
				time.Sleep(outage)
				woken.take()
				server.set(nil, nil)
				time.Sleep(7 * time.Second)
				synctest.Wait()
				if got, why := p.List(object("a"), labels.Everything()); why != nil || names(got) != "hl-0" {
					t.Errorf("known %v: got %s, %+v", known, names(got), why)
				}
				if _, watches := server.count(); watches == 0 || known && watches < 2 {
					t.Errorf("known %v: not watched %s after its return", known, 7*time.Second)
				}
			})
		}
	}
}

func TestTheObjectsOfANamespaceShareOneWatch(t *testing.T) {
	server := &pods{}
	for i := range 10 {
		server.all = append(server.all, hlPod(i, fmt.Sprintf("n=%d", i), "app=hl"))
	}
	watching(t, server, func(t *testing.T, p *TargetPods, woken *wakes) {
		for i := range 100 {
			p.List(object(fmt.Sprintf("o-%d", i)), parse(t, fmt.Sprintf("n in (%d,%d)", i%10, (i+1)%10)))
		}
		synctest.Wait()
		if lists, watches := server.count(); lists != 1 || watches != 1 {
			t.Errorf("%d lists, %d watches", lists, watches)
		}
		if got, _ := p.List(object("o-19"), parse(t, "n in (9,0)")); names(got) != "hl-0 hl-9" {
			t.Errorf("got %s", names(got))
		}
		// Another selector is evaluated at once.
		if got, why := p.List(object("o-19"), parse(t, "n=3")); names(got) != "hl-3" || why != nil {
			t.Errorf("got %s, %+v", names(got), why)
		}
		for i := range 99 {
			p.Forget(object(fmt.Sprintf("o-%d", i)))
		}
		synctest.Wait()
		if server.watches[0].IsStopped() || len(p.watches) != 1 {
			t.Error("the watch ends before the last object")
		}
		p.Forget(object("o-99"))
		p.Forget(object("unheard of"))
		synctest.Wait()
		if !server.watches[0].IsStopped() || len(p.watches) != 0 {
			t.Error("the watch goes on without objects")
		}
		p.List(object("a"), labels.Everything())
		synctest.Wait()
		if _, watches := server.count(); watches != 2 {
			t.Error("no watch for an object that comes later")
		}
	})
}

func TestAnEventWakesTheObjectsForWhichItIsNews(t *testing.T) {
	server := &pods{all: []corev1.Pod{hlPod(0, "app=hl"), hlPod(1, "app=other")}}
	watching(t, server, func(t *testing.T, p *TargetPods, woken *wakes) {
		p.List(object("a"), parse(t, "app=hl"))
		p.List(object("b"), parse(t, "app=other"))
		synctest.Wait()
		woken.take()
		changed := func(n int, label string, change func(*corev1.Pod)) *corev1.Pod {
			pod := hlPod(n, label)
			pod.ResourceVersion = "2"
			if change != nil {
				change(&pod)
			}
			return &pod
		}
		for _, test := range []struct {
			what string
			kind watch.EventType
			pod  *corev1.Pod
			want string
		}{
			{"nothing of it matters", watch.Modified,
				changed(0, "app=hl", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "x" }), ""},
			{"it has another phase", watch.Modified,
				changed(0, "app=hl", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), "ns/a×1"},
			{"it is somebody else's now", watch.Modified, changed(0, "app=other", nil), "ns/a×1 ns/b×1"},
			{"of no object", watch.Modified, changed(0, "app=none", nil), "ns/b×1"},
			{"it comes", watch.Added, changed(2, "app=hl", nil), "ns/a×1"},
			{"it goes", watch.Deleted, changed(2, "app=hl", nil), "ns/a×1"},
			{"one of no object is deleted", watch.Deleted, changed(0, "app=none", nil), ""},
		} {
			server.deliver(test.kind, test.pod)
			synctest.Wait()
			if got := woken.take(); got != test.want {
				t.Errorf("%s: woken %q, want %q", test.what, got, test.want)
			}
		}
		if !p.On(object("b"), "node-1") || p.On(object("b"), "node-0") || p.On(object("a"), "node-1") ||
			p.On(types.NamespacedName{}, "node-1") {
			t.Error("which objects have a target on a node is wrong")
		}
	})
}

func TestAPodWithAMegabyteOfLabelsTakesNoMemoryAndIsNoTarget(t *testing.T) {
	fat := hlPod(0, "app=hl")
	for i := range 2000 {
		fat.Labels[fmt.Sprintf("k-%d", i)] = strings.Repeat("x", 60)
	}
	server := &pods{all: []corev1.Pod{fat, hlPod(1, "app=hl")}}
	watching(t, server, func(t *testing.T, p *TargetPods, _ *wakes) {
		noParser := "!" + v1alpha1.LabelParser // of each selection: see target.NewPods
		for _, selector := range []string{"app=hl," + noParser, "nothing!=else," + noParser, noParser} {
			p.List(object(selector), parse(t, selector))
			synctest.Wait()
			if got, why := p.List(object(selector), parse(t, selector)); names(got) != "hl-1" {
				t.Errorf("%q chooses %s, %+v", selector, names(got), why)
			}
		}
		if n := len(p.watches["ns"].pods["hl-0"].Labels); n > 1 {
			t.Errorf("%d labels are kept", n)
		}
	})
}

// BenchmarkObjectsBesidePods is what one event, and one reconcile, cost with 200 objects beside 2,000 pods.
func BenchmarkObjectsBesidePods(b *testing.B) {
	w := &podWatch{pods: map[string]*corev1.Pod{}, selections: map[string]*selected{}, wake: func(string) {}}
	list := make([]any, 2000)
	for i := range list {
		pod := hlPod(i, "app=hl", fmt.Sprintf("shard=%d", i%200))
		list[i] = &pod
	}
	if err := w.Replace(list, ""); err != nil {
		b.Fatal(err)
	}
	selectors := make([]labels.Selector, 200)
	for i := range selectors {
		selectors[i], _ = labels.Parse(fmt.Sprintf("app=hl,shard in (%d,%d),!fleet.hlparser.dev/parser", i, i+1))
		w.list(fmt.Sprint(i), selectors[i])
	}
	pod := hlPod(7, "app=hl", "shard=7")
	b.Run("event", func(b *testing.B) {
		for b.Loop() {
			if err := w.Update(&pod); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			w.list("7", selectors[7])
		}
	})
	b.Run("new selector", func(b *testing.B) {
		for b.Loop() {
			w.forget("7")
			w.list("7", selectors[7])
		}
	})
}
