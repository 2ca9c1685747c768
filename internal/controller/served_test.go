package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// served is an operator with one object and a fake clock, whose API server is in memory and refuses what a test wants.
type served struct {
	*Reconciler
	t     *testing.T
	api   client.Client // the API server as others see it
	clock *testingclock.FakePassiveClock
	sent  func() []string

	mu sync.Mutex
	// hangs reports whether a request of the operator gets no answer. Nil answers all.
	hangs func(request) bool
	// refuses returns the error of a request of the operator. Nil refuses none.
	refuses func(request) error
	refused []time.Time // when requests were refused
	writes  map[string]int
	uids    int
	started int // uids when the kubelets last listed the pods
}

// request is one of the operator's.
type request struct {
	verb string // get, create, update, patch, delete, update status
	kind string // ConfigMap, Pod, …
	name string
}

// kinds is the operator's scheme. It is shared because its creation takes longer than most of its uses here.
var kinds = sync.OnceValues(func() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
})

// inMemory returns a client of an API server in memory. It does not track who manages which field, which takes half of
// the time of each request, and nothing here asks for it.
func inMemory(scheme *runtime.Scheme) client.WithWatch {
	tracker := clienttesting.NewObjectTracker(scheme, serializer.NewCodecFactory(scheme).UniversalDecoder())
	return fake.NewClientBuilder().WithScheme(scheme).WithObjectTracker(tracker).
		WithStatusSubresource(&v1alpha1.HyperliquidParser{}).Build()
}

// serve returns an operator for an object with n nodes.
func serve(t *testing.T, n int) *served {
	t.Helper()
	scheme, err := kinds()
	if err != nil {
		t.Fatal(err)
	}
	events, passive, sent := recordedEvents()
	s := &served{t: t, clock: passive, sent: sent, writes: map[string]int{}}
	funcs := s.funcs()
	memory := inMemory(scheme)
	s.api = interceptor.NewClient(memory, interceptor.Funcs{Create: s.create})
	operator := interceptor.NewClient(memory, funcs)
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	backoff := flowcontrol.NewBackOff(time.Second, time.Minute)
	backoff.Clock = testingclock.NewFakeClock(noon)
	s.Reconciler = &Reconciler{
		Client:    operator,
		APIReader: operator,
		Pods:      &TargetPods{},
		Claims:    NewClaims(),
		Keys:      someKeys(t, scheme),
		Access: &podspec.Access{
			OperatorNamespace: "system",
		},
		Poller:      poller.New(poller.Options{Clock: testingclock.NewFakeClock(noon)}),
		Clock:       s.clock,
		Bounds:      Bounds{DataPaths: []string{"/home/hluser"}, StateRoots: []string{"/var/lib/hlparser"}},
		ParserImage: "image:v1",
		Cluster:     "cluster",
		Events:      events,
		Metrics:     metrics,
		Outages:     NewOutages(func(types.NamespacedName) {}),
		Background: NewBackground(
			func(types.NamespacedName, time.Duration) {},
		),
		LastWords:     NewLastWords(),
		Behind:        NewBehind(s.clock),
		Cursors:       NewCursors(),
		Wanted:        func(string) bool { return false },
		SetAside:      NewSetAside(),
		FailedBackoff: backoff,
	}
	for i := range n {
		s.mustCreate(s.node(i))
	}
	s.mustCreate(s.fresh())
	return s
}

// someKeys are the operator's keys, created at its start.
func someKeys(t *testing.T, scheme *runtime.Scheme) *keys.Keeper {
	t.Helper()
	keeper := keys.NewKeeper(
		inMemory(scheme),
		types.NamespacedName{Namespace: "system", Name: keys.SecretName},
		clock.RealClock{},
	)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = keeper.Start(ctx) // it ends with the context
	}()
	<-keeper.Tried()
	cancel()
	<-ended
	if len(keeper.Ring()) == 0 {
		t.Fatal("there are no keys")
	}
	return keeper
}

// fresh returns the object as a user creates it.
func (s *served) fresh() *v1alpha1.HyperliquidParser {
	return &v1alpha1.HyperliquidParser{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "mainnet", Generation: 1},
		Spec: v1alpha1.HyperliquidParserSpec{
			Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{
				Selector: metav1.LabelSelector{MatchLabels: map[string]string{"role": "node"}},
				DataPath: "/home/hluser/hl/data", StatePath: "/var/lib/hlparser",
			}},
			Streams: []v1alpha1.Stream{{Name: "Fills"}},
			Sink:    v1alpha1.Sink{Stdout: &v1alpha1.StdoutSink{}},
		},
	}
}

func (s *served) node(i int) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName(i), Labels: map[string]string{"role": "node"}},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
}

func (s *served) mustCreate(o client.Object) {
	s.t.Helper()
	if err := s.api.Create(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
}

// create adds the fields that an API server sets at creation.
func (s *served) create(
	ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption,
) error {
	s.mu.Lock()
	s.uids++
	o.SetUID(types.UID(fmt.Sprintf("uid-%d", s.uids)))
	s.mu.Unlock()
	o.SetCreationTimestamp(metav1.NewTime(s.clock.Now().Truncate(time.Second)))
	return c.Create(ctx, o, options...)
}

// asks records a request of the operator, and refuses it if the test wants that.
func (s *served) asks(ctx context.Context, verb string, o client.Object) error {
	kind := strings.TrimPrefix(fmt.Sprintf("%T", o), "*")
	kind = kind[strings.LastIndex(kind, ".")+1:]
	if s.hangs != nil && s.hangs(request{verb, kind, o.GetName()}) {
		<-ctx.Done()
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("asking the API server: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if verb != "get" {
		s.writes[verb+" "+kind]++
	}
	if s.refuses == nil {
		return nil
	}
	err := s.refuses(request{verb, kind, o.GetName()})
	if err != nil {
		s.refused = append(s.refused, s.clock.Now())
	}
	return err
}

func (s *served) funcs() interceptor.Funcs {
	return interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object,
			options ...client.GetOption) error {
			named, _ := o.DeepCopyObject().(client.Object)
			named.SetName(key.Name)
			if err := s.asks(ctx, "get", named); err != nil {
				return err
			}
			return c.Get(ctx, key, o, options...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			if err := s.asks(ctx, "create", o); err != nil {
				return err
			}
			return s.create(ctx, c, o, options...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
			if err := s.asks(ctx, "update", o); err != nil {
				return err
			}
			return c.Update(ctx, o, options...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch,
			options ...client.PatchOption) error {
			if err := s.asks(ctx, "patch", o); err != nil {
				return err
			}
			return c.Patch(ctx, o, p, options...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.DeleteOption) error {
			if err := s.asks(ctx, "delete", o); err != nil {
				return err
			}
			return c.Delete(ctx, o, options...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, name string, o client.Object,
			options ...client.SubResourceUpdateOption) error {
			if err := s.asks(ctx, "update "+name, o); err != nil {
				return err
			}
			return c.SubResource(name).Update(ctx, o, options...)
		},
	}
}

// passes lets time pass, in which the operator reconciles when it is due, and kubelets start new pods.
func (s *served) passes(d time.Duration) {
	s.t.Helper()
	ctx := logf.IntoContext(s.t.Context(), logr.Discard())
	for end := s.clock.Now().Add(d); ; {
		before := s.written()
		result, err := s.Reconcile(
			ctx, ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "ns", Name: "mainnet"}},
		)
		if err != nil {
			s.t.Fatalf("at %s: %v", s.clock.Now().Sub(noon), err)
		}
		changed := s.written() > before // what is written is an event, as a pod that starts
		changed = s.start() || changed
		now := s.clock.Now()
		next := end
		if result.RequeueAfter > 0 && now.Add(result.RequeueAfter).Before(end) {
			next = now.Add(result.RequeueAfter)
		}
		if changed && now.Add(time.Second).Before(next) {
			next = now.Add(time.Second) // that wakes the object
		}
		if !next.Before(end) {
			s.clock.SetTime(end)
			return
		}
		s.clock.SetTime(next)
	}
}

// written returns the number of writes, except those of the status, which enqueue no object.
func (s *served) written() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for what, times := range s.writes {
		if !strings.HasPrefix(what, "update status") {
			n += times
		}
	}
	return n
}

// start starts new pods as kubelets do. It reports whether there were any.
func (s *served) start() (some bool) {
	s.t.Helper()
	s.mu.Lock()
	created := s.uids
	s.mu.Unlock()
	if created == s.started {
		return false
	}
	s.started = created
	for _, pod := range s.pods() {
		if pod.Status.Phase == corev1.PodRunning {
			continue
		}
		some = true
		now := metav1.NewTime(s.clock.Now().Truncate(time.Second))
		pod.Spec.NodeName = nodeOfPod(&pod)
		if err := s.api.Update(s.t.Context(), &pod); err != nil {
			s.t.Fatal(err)
		}
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now},
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{
			{Name: "hlparser", ContainerID: string(pod.UID), Ready: true,
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}},
		}
		if err := s.api.Status().Update(s.t.Context(), &pod); err != nil {
			s.t.Fatal(err)
		}
	}
	return some
}

func nodeOfPod(pod *corev1.Pod) string {
	required := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	return required.NodeSelectorTerms[0].MatchFields[0].Values[0]
}

func (s *served) list(list client.ObjectList) {
	s.t.Helper()
	if err := s.api.List(s.t.Context(), list); err != nil {
		s.t.Fatal(err)
	}
}

func (s *served) pods() []corev1.Pod {
	s.t.Helper()
	var list corev1.PodList
	s.list(&list)
	return list.Items
}

func nameOfPod(i int) string {
	return podspec.PodName("mainnet", target.Target{Name: nodeName(i), Node: nodeName(i)})
}

// podOn returns the pod of the i-th node, or nil if there is none.
func (s *served) podOn(i int) *corev1.Pod {
	s.t.Helper()
	name := nameOfPod(i)
	pods := s.pods()
	if at := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Name == name }); at >= 0 {
		return &pods[at]
	}
	return nil
}

func (s *served) object() *v1alpha1.HyperliquidParser {
	s.t.Helper()
	obj := &v1alpha1.HyperliquidParser{}
	if err := s.api.Get(s.t.Context(), client.ObjectKey{Namespace: "ns", Name: "mainnet"}, obj); err != nil {
		s.t.Fatal(err)
	}
	return obj
}

// says returns a condition as status, reason and message.
func (s *served) says(kind string) string {
	s.t.Helper()
	c := meta.FindStatusCondition(s.object().Status.Conditions, kind)
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%s/%s: %s", c.Status, c.Reason, c.Message)
}

// refusing sets what is refused from now on, and resets the counts.
func (s *served) refusing(refuses func(request) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses, s.refused = refuses, nil
	clear(s.writes)
}

// changes change an object of the API server, behind the operator's back.
func changes[T client.Object](s *served, o T, change func(T)) {
	s.t.Helper()
	if err := s.api.Get(s.t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		s.t.Fatal(err)
	}
	change(o)
	if err := s.api.Update(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
}

// children returns all objects in the object's namespace except itself.
func (s *served) children() []client.Object {
	s.t.Helper()
	pods := s.pods()
	out := make([]client.Object, 0, len(pods))
	for i := range pods {
		out = append(out, &pods[i])
	}
	var revisions appsv1.ControllerRevisionList
	var configs corev1.ConfigMapList
	var policies networkingv1.NetworkPolicyList
	s.list(&revisions)
	s.list(&configs)
	s.list(&policies)
	for i := range revisions.Items {
		out = append(out, &revisions.Items[i])
	}
	for i := range configs.Items {
		out = append(out, &configs.Items[i])
	}
	for i := range policies.Items {
		out = append(out, &policies.Items[i])
	}
	return out
}
