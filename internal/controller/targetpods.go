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
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

const (
	// quietSync is how long the first list of a namespace's pods may take before the objects that wait for it report it.
	// Otherwise their status would change twice at each start of the operator.
	quietSync = 5 * time.Second
	// longestList bounds a list request, and the time to the response of a watch request. After it the request is retried.
	longestList = time.Minute
)

// TargetPods watches the pods that target.pods of objects select. The operator's cache holds only its own pods; these
// belong to others, in namespaces that may hold many more. The objects of a namespace share one watch, which starts
// with the first of them and stops with the last. Selectors are evaluated here, at each event and once per new
// selector, so that a selector that the API server refuses, or a namespace that it does not list, holds up no other
// object. It is safe for concurrent use.
type TargetPods struct {
	// pods lists and watches the pods of a namespace that are not parsers.
	pods  func(namespace string) *toolscache.ListWatch
	wake  func(object types.NamespacedName, after time.Duration)
	clock clock.PassiveClock

	mu      sync.Mutex
	started context.Context // ends with the controller; nil before it starts
	watches map[string]*podWatch
}

// NewTargetPods returns a TargetPods that watches the manager's API server. It calls wake for an object whose pods
// change.
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

// noParsers excludes the operator's own pods, which are never targets.
func noParsers(options metav1.ListOptions) metav1.ListOptions {
	options.LabelSelector = "!" + v1alpha1.LabelParser
	return options
}

// Start allows watches, which end with the context. It is a source of the controller, which starts it before any
// reconcile.
func (p *TargetPods) Start(ctx context.Context, _ queue) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = ctx
	return nil
}

// List returns the pods of the object's namespace that match, in no order and with only the fields that targets are
// made from. It does not block: while the pods are unknown it returns why, and wakes the object once they are known or
// the reason changes.
func (p *TargetPods) List(object types.NamespacedName, selector labels.Selector) ([]corev1.Pod, *observed.Unsynced) {
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
	return w != nil && w.on(object.Name, node) // otherwise its first reconcile observes the node as it is
}

// Forget drops the selection of an object that is gone, or no longer selects pods.
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
	reflector := toolscache.NewReflectorWithOptions(
		w.listWatch(p.pods(namespace)), &corev1.Pod{}, w, toolscache.ReflectorOptions{Name: "target pods of " + namespace},
	)
	go reflector.RunWithContext(ctx) // it retries with backoff and jitter
	return w
}

// podWatch holds the pods of a namespace. It is the store of a reflector.
type podWatch struct {
	namespace string
	stop      context.CancelFunc
	wake      func(object string)
	since     time.Time

	mu     sync.Mutex
	synced bool
	// listErr and watchErr are the errors of the last list and watch requests; nil if they succeeded.
	listErr, watchErr error
	pods              map[string]*corev1.Pod
	selections        map[string]*selected // by object
}

// selected is the pods of one object.
type selected struct {
	text     string // the selector's
	selector labels.Selector
	pods     map[string]*corev1.Pod
}

// observe updates a pod, nil for a deleted one, and reports whether that may change a target.
func (s *selected) observe(name string, pod *corev1.Pod) bool {
	before, selected := s.pods[name]
	if pod != nil && s.selector.Matches(labels.Set(pod.Labels)) {
		s.pods[name] = pod
		return !selected || targetChanged(before, pod)
	}
	delete(s.pods, name)
	return selected
}

func (w *podWatch) list(object string, selector labels.Selector) ([]corev1.Pod, *observed.Unsynced) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, text := w.selections[object], selector.String()
	if s == nil || s.text != text {
		s = &selected{text: text, selector: selector, pods: map[string]*corev1.Pod{}}
		for name, pod := range w.pods {
			s.observe(name, pod)
		}
		w.selections[object] = s
	}
	if u := w.unsynced(); u != nil {
		return nil, u
	}
	out := make([]corev1.Pod, 0, len(s.pods))
	for _, pod := range s.pods {
		out = append(out, *pod)
	}
	return out, nil
}

// unsynced returns why the pods are not known; nil when they are. Pods that were listed stay known unless the API
// server refuses to list them: a failure to reach it changes nothing.
func (w *podWatch) unsynced() *observed.Unsynced {
	failed := w.listErr
	if failed == nil {
		failed = w.watchErr
	}
	switch {
	case failed != nil && (!w.synced || refused(failed)):
		return &observed.Unsynced{
			Message: fmt.Sprintf("the pods of namespace %s cannot be watched: %v", w.namespace, failed),
			Refused: refused(failed), Since: w.since,
		}
	case !w.synced:
		return &observed.Unsynced{
			Message: fmt.Sprintf("the pods of namespace %s are not listed yet", w.namespace), Since: w.since,
		}
	}
	return nil
}

// refused reports whether an error is the API server's refusal of a request, which a retry alone does not change.
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

// listWatch records the errors of a reflector's requests, bounds their time, and reduces each pod to the fields that
// targets are made from.
func (w *podWatch) listWatch(from *toolscache.ListWatch) *toolscache.ListWatch {
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (list runtime.Object, err error) {
			err = informers.RetryWhileUnreachable(ctx, func(err error) { w.note(&w.listErr, err) }, func() error {
				ctx, cancel := context.WithTimeout(ctx, longestList)
				defer cancel()
				list, err = from.ListWithContext(ctx, options)
				return err
			})
			if err != nil {
				w.note(&w.listErr, err)
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
			err = informers.RetryWhileUnreachable(ctx, func(err error) { w.note(&w.watchErr, err) }, func() error {
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
			w.note(&w.watchErr, err)
			return events, err
		},
	}
}

// bounded is a watch that cancels its context when it is stopped.
type bounded struct {
	watch.Interface
	cancel context.CancelFunc
}

func (b bounded) Stop() {
	b.Interface.Stop()
	b.cancel()
}

// note records the error of a request, and wakes all objects if that changes what is known.
func (w *podWatch) note(last *error, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.unsynced()
	*last = err
	if after := w.unsynced(); before == nil != (after == nil) || before != nil && before.Message != after.Message {
		w.wakeAll()
	}
}

func (w *podWatch) wakeAll() {
	for object := range w.selections {
		w.wake(object)
	}
}

// observe updates a pod, nil for a deleted one.
func (w *podWatch) observe(name string, pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pod == nil {
		delete(w.pods, name)
	} else {
		w.pods[name] = pod
	}
	for object, s := range w.selections {
		if s.observe(name, pod) {
			w.wake(object)
		}
	}
}

// Add adds a pod.
func (w *podWatch) Add(obj any) error { return w.Update(obj) }

// Update updates a pod.
func (w *podWatch) Update(obj any) error {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("watching pods of namespace %s: got a %T", w.namespace, obj)
	}
	w.observe(pod.Name, target.Slim(pod))
	return nil
}

// Delete removes a pod.
func (w *podWatch) Delete(obj any) error {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("watching pods of namespace %s: got a %T", w.namespace, obj)
	}
	w.observe(pod.Name, nil)
	return nil
}

// Replace sets all pods. From now on they are known.
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
	w.pods, w.synced, w.listErr = pods, true, nil
	for _, s := range w.selections {
		clear(s.pods)
		for name, pod := range pods {
			s.observe(name, pod)
		}
	}
	w.wakeAll()
	return nil
}

// Resync does nothing: nothing is derived from the store later.
func (w *podWatch) Resync() error { return nil }

// Transformer reduces pods while a watch lists them.
func (w *podWatch) Transformer() toolscache.TransformFunc {
	return func(obj any) (any, error) {
		if pod, ok := obj.(*corev1.Pod); ok {
			return target.Slim(pod), nil
		}
		return obj, nil
	}
}

// targetChanged reports whether two states of a pod, reduced by target.Slim, may make different targets.
func targetChanged(a, b *corev1.Pod) bool {
	return a.UID != b.UID || a.DeletionTimestamp.IsZero() != b.DeletionTimestamp.IsZero() ||
		!equality.Semantic.DeepEqual(a.Spec, b.Spec) || a.Status.Phase != b.Status.Phase
}
