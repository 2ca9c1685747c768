package controller

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// longestSync bounds how long a reconcile waits for the pods that a selector matches to be listed for the first time.
const longestSync = 30 * time.Second

// TargetPods watches the pods that target.pods of objects select. The operator's cache holds only pods that it made itself; these are
// others', in namespaces that may hold many more. So each object has a watch of its own, of its namespace and with its selector, for as
// long as it asks. It is safe for concurrent use.
type TargetPods struct {
	config *rest.Config
	http   *http.Client
	scheme *runtime.Scheme
	mapper meta.RESTMapper

	mu      sync.Mutex
	started context.Context // ends with the controller; nil before it starts
	queue   workqueue.TypedRateLimitingInterface[reconcile.Request]
	watches map[types.NamespacedName]*podWatch
}

// podWatch is the watch of one object.
type podWatch struct {
	selector string
	cache    cache.Cache
	stop     context.CancelFunc
}

// NewTargetPods returns a TargetPods that asks the manager's API server.
func NewTargetPods(mgr ctrl.Manager) *TargetPods {
	return &TargetPods{
		config: mgr.GetConfig(), http: mgr.GetHTTPClient(), scheme: mgr.GetScheme(), mapper: mgr.GetRESTMapper(),
		watches: map[types.NamespacedName]*podWatch{},
	}
}

// Start makes changes of pods wake the objects that select them. It is a source of the controller, which starts it before any reconcile.
func (p *TargetPods) Start(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started, p.queue = ctx, queue
	return nil
}

// List returns the pods of the object's namespace that match, with nothing but what a target is made from. They are the cache's: not to
// be changed. The first call for a selector waits until they are known.
func (p *TargetPods) List(ctx context.Context, object types.NamespacedName, selector labels.Selector) ([]corev1.Pod, error) {
	w, err := p.watch(ctx, object, selector)
	if err != nil {
		return nil, fmt.Errorf("watching the pods of %s that match %s: %w", object, selector, err)
	}
	syncing, cancel := context.WithTimeout(ctx, longestSync)
	defer cancel()
	if !w.cache.WaitForCacheSync(syncing) {
		return nil, fmt.Errorf("waiting for the pods of %s that match %s: not listed within %s", object, selector, longestSync)
	}
	return w.pods(ctx)
}

func (w *podWatch) pods(ctx context.Context) ([]corev1.Pod, error) {
	var pods corev1.PodList
	if err := w.cache.List(ctx, &pods, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	return pods.Items, nil
}

// On reports whether the object has a target among the pods of the node, as far as is known.
func (p *TargetPods) On(ctx context.Context, object types.NamespacedName, node string) bool {
	p.mu.Lock()
	w := p.watches[object]
	p.mu.Unlock()
	if w == nil {
		return false // its first reconcile will see the node as it is
	}
	pods, err := w.pods(ctx)
	if err != nil {
		return true // a look too many does no harm
	}
	for i := range pods {
		if pods[i].Spec.NodeName == node {
			return true
		}
	}
	return false
}

// Forget ends the watch of an object that is gone, or selects no pods any more.
func (p *TargetPods) Forget(object types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.watches[object]; w != nil {
		w.stop()
		delete(p.watches, object)
	}
}

// watch returns the object's watch, a new one when the selector is another.
func (p *TargetPods) watch(ctx context.Context, object types.NamespacedName, selector labels.Selector) (*podWatch, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.watches[object]; w != nil {
		if w.selector == selector.String() {
			return w, nil
		}
		w.stop()
		delete(p.watches, object)
	}
	c, err := cache.New(p.config, cache.Options{
		HTTPClient:        p.http,
		Scheme:            p.scheme,
		Mapper:            p.mapper,
		DefaultNamespaces: map[string]cache.Config{object.Namespace: {}},
		ByObject:          map[client.Object]cache.ByObject{&corev1.Pod{}: {Label: selector, Transform: slimTarget}},
	})
	if err != nil {
		return nil, err
	}
	informer, err := c.GetInformer(ctx, &corev1.Pod{})
	if err != nil {
		return nil, err
	}
	wake := func() { p.queue.Add(reconcile.Request{NamespacedName: object}) }
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(_ any, inInitialList bool) {
			if !inInitialList { // whoever waits for that sees it
				wake()
			}
		},
		UpdateFunc: func(before, after any) {
			if targetChanged(before, after) {
				wake()
			}
		},
		DeleteFunc: func(any) { wake() },
	}); err != nil {
		return nil, err
	}
	watching, stop := context.WithCancel(p.started)
	go func() {
		// It ends with nil when it is stopped, and with nothing else: what the API server refuses is tried again and logged.
		_ = c.Start(watching)
	}()
	w := &podWatch{selector: selector.String(), cache: c, stop: stop}
	p.watches[object] = w
	return w, nil
}

func slimTarget(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	return target.Slim(pod), nil
}

// targetChanged reports whether a pod, of which only what matters is left, is another than it was.
func targetChanged(before, after any) bool {
	a, ok := before.(*corev1.Pod)
	b, ok2 := after.(*corev1.Pod)
	if !ok || !ok2 {
		return true
	}
	return a.UID != b.UID || a.DeletionTimestamp.IsZero() != b.DeletionTimestamp.IsZero() ||
		!equality.Semantic.DeepEqual(a.Spec, b.Spec) || a.Status.Phase != b.Status.Phase
}
