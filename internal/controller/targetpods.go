package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/fair"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

const (
	// quietSync is how long the first list of a namespace's pods may take before the objects that wait for it say so: a status that
	// changes twice at each start of the operator helps nobody.
	quietSync = 5 * time.Second
	// longestList bounds one request for a list, and how long one for a watch goes unanswered. After it the request is made again.
	longestList = time.Minute
)

// TargetPods watches the pods that target.pods of objects select. The operator's cache holds only pods that it made itself; these are
// others', in namespaces that may hold many more. The objects of a namespace share one watch, which begins with the first of them and
// ends with the last. Selectors are evaluated here, at each event and once for a selector that is new, so that a selector which the API
// server does not take, or a namespace that it does not list, holds up nobody else. It is safe for concurrent use.
type TargetPods struct {
	// pods lists and watches the pods of a namespace that are no parsers.
	pods  func(namespace string) *toolscache.ListWatch
	wake  func(object types.NamespacedName, after time.Duration)
	clock clock.PassiveClock

	mu      sync.Mutex
	started context.Context // ends with the controller; nil before it starts
	watches map[string]*podWatch
}

// unseen is why it is not known which targets an object has.
type unseen struct {
	why string
	// refused is set when the API server gave an answer, in whose words why is. It is asked again meanwhile.
	refused bool
	since   time.Time
}

// NewTargetPods returns a TargetPods that asks the manager's API server. What it sees of an object's pods wakes that object.
func NewTargetPods(
	mgr ctrl.Manager, wake func(types.NamespacedName, time.Duration), now clock.PassiveClock,
) (*TargetPods, error) {
	config := rest.CopyConfig(mgr.GetConfig())
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	clients, err := kubernetes.NewForConfigAndClient(config, mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("making a client to watch pods with: %w", err)
	}
	return newTargetPods(func(namespace string) *toolscache.ListWatch {
		pods := clients.CoreV1().Pods(namespace)
		return &toolscache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				return pods.List(ctx, noParsers(options))
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				return pods.Watch(ctx, noParsers(options))
			},
		}
	}, wake, now), nil
}

func newTargetPods(
	pods func(string) *toolscache.ListWatch, wake func(types.NamespacedName, time.Duration), now clock.PassiveClock,
) *TargetPods {
	return &TargetPods{pods: pods, wake: wake, clock: now, watches: map[string]*podWatch{}}
}

// noParsers leaves out the operator's own pods, which are no targets.
func noParsers(options metav1.ListOptions) metav1.ListOptions {
	options.LabelSelector = "!" + v1alpha1.LabelParser
	return options
}

// Start lets watches begin; they end with the context. It is a source of the controller, which starts it before any reconcile.
func (p *TargetPods) Start(ctx context.Context, _ queue) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = ctx
	return nil
}

// List returns the pods of the object's namespace that match, with nothing but what a target is made from, in no order. It does not wait:
// while they are not known it returns why, and the object is woken once they are, or the reason is another.
func (p *TargetPods) List(object types.NamespacedName, selector labels.Selector) ([]corev1.Pod, *unseen) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.watches[object.Namespace]
	if w == nil {
		w = p.begin(object.Namespace)
	}
	return w.list(object.Name, selector)
}

// On reports whether the object has a target among the pods of the node, as far as is known.
func (p *TargetPods) On(object types.NamespacedName, node string) bool {
	p.mu.Lock()
	w := p.watches[object.Namespace]
	p.mu.Unlock()
	return w != nil && w.on(object.Name, node) // else its first reconcile will see the node as it is
}

// Forget drops the selection of an object that is gone, or selects no pods any more.
func (p *TargetPods) Forget(object types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.watches[object.Namespace]; w != nil && w.forget(object.Name) {
		w.stop()
		delete(p.watches, object.Namespace)
	}
}

// begin starts the watch of a namespace. The caller holds the lock.
func (p *TargetPods) begin(namespace string) *podWatch {
	ctx, stop := context.WithCancel(fair.WithTenant(p.started, namespace))
	w := &podWatch{
		namespace: namespace, stop: stop, since: p.clock.Now(),
		pods: map[string]*corev1.Pod{}, selections: map[string]*selected{},
		wake: func(object string) { p.wake(types.NamespacedName{Namespace: namespace, Name: object}, 0) },
	}
	p.watches[namespace] = w
	reflector := toolscache.NewReflectorWithOptions(w.listWatch(p.pods(namespace)), &corev1.Pod{}, w, toolscache.ReflectorOptions{
		Name: "target pods of " + namespace,
	})
	go reflector.RunWithContext(ctx) // it tries again what is refused, with backoff and jitter
	return w
}

// podWatch is what is known of a namespace's pods. It is the store of a reflector.
type podWatch struct {
	namespace string
	stop      context.CancelFunc
	wake      func(object string)
	since     time.Time

	mu     sync.Mutex
	synced bool
	// noList and noWatch are why the last request for one failed; nil when it did not.
	noList, noWatch error
	pods            map[string]*corev1.Pod
	selections      map[string]*selected // by object
}

// selected is the pods of one object.
type selected struct {
	text     string // of the selector
	selector labels.Selector
	pods     map[string]*corev1.Pod
}

// see takes in a pod, nil when it is gone, and reports whether that is news to the object.
func (s *selected) see(name string, pod *corev1.Pod) bool {
	before, was := s.pods[name]
	is := pod != nil && s.selector.Matches(labels.Set(pod.Labels))
	if is {
		s.pods[name] = pod
		return !was || targetChanged(before, pod)
	}
	delete(s.pods, name)
	return was
}

func (w *podWatch) list(object string, selector labels.Selector) ([]corev1.Pod, *unseen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, text := w.selections[object], selector.String()
	if s == nil || s.text != text {
		s = &selected{text: text, selector: selector, pods: map[string]*corev1.Pod{}}
		for name, pod := range w.pods {
			s.see(name, pod)
		}
		w.selections[object] = s
	}
	if u := w.unseen(); u != nil {
		return nil, u
	}
	out := make([]corev1.Pod, 0, len(s.pods))
	for _, pod := range s.pods {
		out = append(out, *pod)
	}
	return out, nil
}

// unseen is why the pods are not known; nil when they are. Those that were seen are known for as long as the API server does not refuse to
// show them: that it is away for a moment changes nothing.
func (w *podWatch) unseen() *unseen {
	failed := w.noList
	if failed == nil {
		failed = w.noWatch
	}
	switch {
	case failed != nil && (!w.synced || refused(failed)):
		return &unseen{fmt.Sprintf("the pods of namespace %s cannot be watched: %v", w.namespace, failed), refused(failed), w.since}
	case !w.synced:
		return &unseen{fmt.Sprintf("the pods of namespace %s are not listed yet", w.namespace), false, w.since}
	}
	return nil
}

// refused reports whether an error is the API server's answer to what was asked, rather than a matter of time.
func refused(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	switch code := status.Status().Code; code {
	case 408, 409, 410, 429: // timeouts, conflicts, versions that are too old, too many requests
		return false
	default:
		return code >= 400 && code < 500
	}
}

func (w *podWatch) on(object, node string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.selections[object]; s != nil {
		for _, pod := range s.pods {
			if pod.Spec.NodeName == node {
				return true
			}
		}
	}
	return false
}

// forget drops an object's selection, and reports whether it was the last.
func (w *podWatch) forget(object string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.selections, object)
	return len(w.selections) == 0
}

// listWatch notes what becomes of the requests of a reflector, bounds them in time, and keeps of each pod what a target is made from.
func (w *podWatch) listWatch(from *toolscache.ListWatch) *toolscache.ListWatch {
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (list runtime.Object, err error) {
			err = informers.UntilReached(ctx, func(err error) { w.note(&w.noList, err) }, func() error {
				ctx, cancel := context.WithTimeout(ctx, longestList)
				defer cancel()
				list, err = from.ListWithContext(ctx, options)
				return err
			})
			if err != nil {
				w.note(&w.noList, err)
				return nil, err
			}
			if pods, ok := list.(*corev1.PodList); ok {
				for i := range pods.Items {
					pods.Items[i] = *target.Slim(&pods.Items[i])
				}
			}
			return list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (events watch.Interface, err error) {
			err = informers.UntilReached(ctx, func(err error) { w.note(&w.noWatch, err) }, func() error {
				ctx, cancel := context.WithCancel(ctx)
				late := time.AfterFunc(longestList, cancel)
				opened, err := from.WatchWithContext(ctx, options)
				late.Stop()
				if err != nil {
					cancel()
					return err
				}
				events = bounded{opened, cancel}
				return nil
			})
			w.note(&w.noWatch, err)
			return events, err
		},
	}
}

// bounded is a watch that lets go of its context when it is over.
type bounded struct {
	watch.Interface
	cancel context.CancelFunc
}

func (b bounded) Stop() {
	b.Interface.Stop()
	b.cancel()
}

// note takes in how a request ended, and wakes all objects for which that is news.
func (w *podWatch) note(last *error, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.unseen()
	*last = err
	if after := w.unseen(); before == nil != (after == nil) || before != nil && before.why != after.why {
		w.wakeAll()
	}
}

func (w *podWatch) wakeAll() {
	for object := range w.selections {
		w.wake(object)
	}
}

// see takes in a pod, nil when it is gone.
func (w *podWatch) see(name string, pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pod == nil {
		delete(w.pods, name)
	} else {
		w.pods[name] = pod
	}
	for object, s := range w.selections {
		if s.see(name, pod) {
			w.wake(object)
		}
	}
}

// Add takes in a pod that has come.
func (w *podWatch) Add(obj any) error { return w.Update(obj) }

// Update takes in a pod that has changed.
func (w *podWatch) Update(obj any) error {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("watching pods of namespace %s: got a %T", w.namespace, obj)
	}
	w.see(pod.Name, target.Slim(pod))
	return nil
}

// Delete takes in that a pod is gone.
func (w *podWatch) Delete(obj any) error {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("watching pods of namespace %s: got a %T", w.namespace, obj)
	}
	w.see(pod.Name, nil)
	return nil
}

// Replace takes in the list of all pods: from now on they are known.
func (w *podWatch) Replace(list []any, _ string) error {
	pods := make(map[string]*corev1.Pod, len(list))
	for _, obj := range list {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			return fmt.Errorf("listing pods of namespace %s: got a %T", w.namespace, obj)
		}
		pods[pod.Name] = target.Slim(pod)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pods, w.synced, w.noList = pods, true, nil
	for _, s := range w.selections {
		clear(s.pods)
		for name, pod := range pods {
			s.see(name, pod)
		}
	}
	w.wakeAll()
	return nil
}

// Resync has nothing to do: nothing is derived from the store later.
func (w *podWatch) Resync() error { return nil }

// Transformer keeps pods small while they are listed by a watch.
func (w *podWatch) Transformer() toolscache.TransformFunc {
	return func(obj any) (any, error) {
		if pod, ok := obj.(*corev1.Pod); ok {
			return target.Slim(pod), nil
		}
		return obj, nil
	}
}

// targetChanged reports whether a pod, of which only what matters is left, is another than it was.
func targetChanged(a, b *corev1.Pod) bool {
	return a.UID != b.UID || a.DeletionTimestamp.IsZero() != b.DeletionTimestamp.IsZero() ||
		!equality.Semantic.DeepEqual(a.Spec, b.Spec) || a.Status.Phase != b.Status.Phase
}
