package controller

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/fair"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports/server"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

const (
	// coalesceWindow is how long changes of verdicts and of pods are coalesced into one reconcile, and coalescePerTarget
	// is added for each target: when a broker dies, the verdicts of a whole fleet change within one poll interval, and
	// when a fleet starts, all its pods change within minutes. A reconcile processes all targets, and takes 5 µs of
	// processor time for each besides reading the cache (BenchmarkReconcile): this bounds reconciles to a small part of a
	// core.
	coalesceWindow    = 250 * time.Millisecond
	coalescePerTarget = 150 * time.Microsecond
	// firstFailedBackoff and longestFailedBackoff are those of a DaemonSet: a node that rejects pods is retried soon, then
	// seldom.
	firstFailedBackoff   = time.Second
	longestFailedBackoff = 15 * time.Minute
	// longestReconcile bounds one reconcile: four times the longest slice of writes.
	longestReconcile = time.Minute
	// cacheSyncTimeout is how long a start waits until all watched kinds are listed. It never ends: health reports what
	// cannot be listed, and a restarted process would list no more.
	cacheSyncTimeout = 100 * 365 * 24 * time.Hour
)

// Options configure the operator.
type Options struct {
	Bounds      Bounds
	ParserImage string
	// ReportPort is the port on which parsers serve their reports, podspec.ReportPort except in tests.
	ReportPort int
	// PollWorkers is how many parsers are polled at once. As many again poll those that do not answer.
	PollWorkers int
	// ForwardPorts polls parsers through the API server and the kubelet, for an operator that runs outside the cluster.
	ForwardPorts bool
	// Clock is the source of time.
	Clock clock.Clock
	// Cluster names this cluster to servers that parsers of several clusters write to.
	Cluster string
	// Registry registers the operator's metrics.
	Registry prometheus.Registerer
	// Namespaces are those that the operator watches. Empty means all.
	Namespaces []string
	// Health is the one that ManagerOptions was called with.
	Health *informers.Health
	// KeySecret is the name of the Secret with the operator's keys. The operator creates it if it is missing.
	KeySecret types.NamespacedName
	// Access is who may connect to parsers. Nil disables network policies.
	Access *podspec.Access
	// ServeReports serves what people ask about parsers, on the manager's metrics server, whose filter must be
	// server.Filter: reports, samples and diagnoses.
	ServeReports bool
	// Controller are the settings of controller-runtime.
	Controller controller.Options
}

// LimitRequests limits the requests that a manager with this config makes to the API server to qps per second, which
// must be positive, with bursts of burst. Namespaces take turns, so that thousands of pods of one do not hold up the
// first pod of another. Leader election needs a config of its own: the renewal of a lease must not wait.
func LimitRequests(config *rest.Config, qps float32, burst int) {
	config.RateLimiter = fair.NewLimiter(qps, burst)
}

// Add adds the operator to the manager.
func Add(mgr ctrl.Manager, options Options) error {
	metrics, err := NewMetrics(options.Registry)
	if err != nil {
		return err
	}
	parsers := poller.NewClient(options.ReportPort)
	if options.ForwardPorts {
		if parsers, err = poller.NewForwardingClient(mgr.GetConfig(), options.ReportPort); err != nil {
			return err
		}
	}
	polls := poller.New(poller.Options{
		Client:  parsers,
		Clock:   options.Clock,
		Workers: options.PollWorkers,
		Polled:  metrics.Polled,
	})
	metrics.readBacklogs(polls.Backlogs)
	if err := mgr.Add(polls); err != nil {
		return fmt.Errorf("adding the poller to the manager: %w", err)
	}
	if options.ServeReports {
		for path, served := range map[string]http.Handler{
			reports.Path:          server.Handler(polls, mgr.Elected(), options.Clock),
			reports.SamplesPath:   server.Samples(polls, mgr.Elected()),
			reports.DiagnosisPath: server.Diagnosis(polls, mgr.Elected()),
		} {
			if err := mgr.AddMetricsServerExtraHandler(path, served); err != nil {
				return fmt.Errorf("serving %s: %w", path, err)
			}
		}
	}
	keeper, err := addKeeper(mgr, options)
	if err != nil {
		return err
	}
	aside := NewSetAside()
	for _, c := range []prometheus.Collector{aside, options.Health} {
		if err := options.Registry.Register(c); err != nil {
			return fmt.Errorf("registering the operator's metrics: %w", err)
		}
	}
	clusters, err := newClusters(mgr, options.Namespaces, options.Health)
	if err != nil {
		return err
	}
	backoff := flowcontrol.NewBackOff(firstFailedBackoff, longestFailedBackoff)
	backoff.Clock = options.Clock
	waker := &Waker{}
	pods, err := NewTargetPods(mgr, waker.wake, options.Clock)
	if err != nil {
		return err
	}
	background := NewBackground(waker.wake)
	if err := mgr.Add(background); err != nil {
		return fmt.Errorf("adding the background worker to the manager: %w", err)
	}
	reconciler := &Reconciler{
		Client:        clientOf(mgr, clusters),
		APIReader:     mgr.GetAPIReader(),
		Pods:          pods,
		Claims:        NewClaims(),
		Keys:          keeper,
		Access:        options.Access,
		Poller:        polls,
		Parsers:       parsers,
		Clock:         options.Clock,
		Bounds:        options.Bounds,
		ParserImage:   options.ParserImage,
		Cluster:       options.Cluster,
		Events:        NewEvents(mgr.GetEventRecorder("hyperliquid-parser-operator"), options.Clock),
		Metrics:       metrics,
		Background:    background,
		LastWords:     NewLastWords(),
		SetAside:      aside,
		Behind:        NewBehind(options.Clock),
		Cursors:       NewCursors(),
		FailedBackoff: backoff,
	}
	reconciler.Outages = NewOutages(func(name types.NamespacedName) { waker.wake(name, reconciler.coalesce(name)) })
	return reconciler.SetupWithManager(mgr, clusters, waker, options.Registry, options.Controller)
}

// addKeeper adds the keeper of the operator's keys to the manager. Its client has no cache, since the operator may read
// only its own Secret and list none.
func addKeeper(mgr ctrl.Manager, options Options) (*keys.Keeper, error) {
	if err := keys.Check(options.KeySecret); err != nil {
		return nil, err
	}
	uncached, err := client.New(mgr.GetConfig(), client.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
	})
	if err != nil {
		return nil, fmt.Errorf("making a client for the operator's keys: %w", err)
	}
	keeper := keys.NewKeeper(uncached, options.KeySecret, options.Clock)
	if err := mgr.Add(keeper); err != nil {
		return nil, fmt.Errorf("adding the keeper of the operator's keys to the manager: %w", err)
	}
	return keeper, nil
}

// ManagerOptions returns the settings that the operator needs of a manager: the content of the cache, reads there that
// wait for the operator's own writes, informers in which an object that cannot be decoded does not hide the others, and
// health that knows of failing watches. The caller adds its own.
func ManagerOptions(scheme *runtime.Scheme, health *informers.Health) (ctrl.Options, error) {
	cached, err := cacheOptions()
	if err != nil {
		return ctrl.Options{}, err
	}
	return ctrl.Options{
		Scheme:   scheme,
		Cache:    cached,
		NewCache: informers.NewCache(health, ""),
		// A plan made without the writes of the last one would delete twice.
		Client: client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}},
	}, nil
}

// SetupWithManager adds the reconciler to the manager. It reconciles objects whose spec or annotations change, whose
// pods, revisions, ConfigMaps or network policies change, or whose verdicts change, those for which a changed node or
// pod may be a target, and those that the waker wakes. Namespaces take turns, and none occupies all workers. clusters
// are the watched namespaces, by name.
func (r *Reconciler) SetupWithManager(
	mgr ctrl.Manager, clusters map[string]cluster.Cluster, waker *Waker, registry prometheus.Registerer,
	options controller.Options,
) error {
	if options.ReconciliationTimeout == 0 {
		options.ReconciliationTimeout = longestReconcile
	}
	if options.CacheSyncTimeout == 0 {
		options.CacheSyncTimeout = cacheSyncTimeout
	}
	turns := fair.NewQueue(options.MaxConcurrentReconciles, func(r reconcile.Request) string { return r.Namespace })
	r.Wanted = turns.Wanted
	options.RateLimiter = fair.Retries[reconcile.Request]()
	options.NewQueue = func(name string, limiter workqueue.TypedRateLimiter[reconcile.Request]) queue {
		delaying := workqueue.NewTypedDelayingQueueWithConfig(
			workqueue.TypedDelayingQueueConfig[reconcile.Request]{Name: name, Queue: turns})
		return workqueue.NewTypedRateLimitingQueueWithConfig(
			limiter, workqueue.TypedRateLimitingQueueConfig[reconcile.Request]{DelayingQueue: delaying})
	}
	if err := registry.Register(queueDepth(turns.Len)); err != nil {
		return fmt.Errorf("registering the queue's metric: %w", err)
	}
	build := ctrl.NewControllerManagedBy(mgr).
		Named("hyperliquidparser").
		WithOptions(options).
		WatchesRawSource(kind(mgr, &corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.objectsOfNode), nodeChanged())).
		WatchesRawSource(source.Func(r.Pods.Start)).
		WatchesRawSource(source.Func(r.awaitKeys)).
		WatchesRawSource(source.Channel(r.Keys.Changes(), r.wakeAll())).
		WatchesRawSource(source.Channel(r.Poller.Changes(), r.wakeObject())).
		WatchesRawSource(source.Func(waker.Start))
	owner := func(of handler.OwnerOption) handler.EventHandler {
		return handler.EnqueueRequestForOwner(mgr.GetScheme(), mgr.GetRESTMapper(), &v1alpha1.HyperliquidParser{}, of)
	}
	for _, c := range clusters {
		build = build.
			WatchesRawSource(kind(c, &v1alpha1.HyperliquidParser{}, &handler.EnqueueRequestForObject{},
				predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
			WatchesRawSource(kind(c, &corev1.Pod{}, coalesced{owner(handler.OnlyControllerOwner()), r.coalesce})).
			WatchesRawSource(kind(c, &appsv1.ControllerRevision{}, owner(handler.OnlyControllerOwner()))).
			WatchesRawSource(kind(c, &networkingv1.NetworkPolicy{}, owner(handler.OnlyControllerOwner()))).
			// A config is owned by its revision.
			WatchesRawSource(kind(c, &corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(objectOfLabel)))
	}
	if err := build.Complete(r); err != nil {
		return fmt.Errorf("setting up the HyperliquidParser controller: %w", err)
	}
	return nil
}

// kind returns the source of the objects of a kind in a cluster's cache.
func kind(
	c cluster.Cluster, obj client.Object, handle handler.EventHandler, predicates ...predicate.Predicate,
) source.Source {
	return source.Kind(c.GetCache(), obj, handle, predicates...)
}

// objectOfLabel returns the object that the operator's label names.
func objectOfLabel(_ context.Context, obj client.Object) []reconcile.Request {
	key := types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetLabels()[v1alpha1.LabelParser]}
	return []reconcile.Request{{NamespacedName: key}}
}

func nodeChanged() predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*corev1.Node)
		after, ok2 := e.ObjectNew.(*corev1.Node)
		return ok && ok2 && target.Changed(before, after)
	}}
}

// objectsOfNode returns the objects for which the node is a target. It is called with both states of a node that was
// updated.
func (r *Reconciler) objectsOfNode(ctx context.Context, obj client.Object) []reconcile.Request {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return nil
	}
	var list v1alpha1.HyperliquidParserList
	err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)
	if err != nil {
		logf.FromContext(ctx).Error(err, "listing HyperliquidParsers for a node", "node", node.Name)
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		key := client.ObjectKeyFromObject(&list.Items[i])
		nodes, pods, err := selections(&list.Items[i])
		if err == nil && (nodes != nil && nodes.Selects(node) || pods != nil && r.Pods.On(key, node.Name)) {
			out = append(out, reconcile.Request{NamespacedName: key})
		}
	}
	return out
}

// coalesce returns how long changes of an object's targets are coalesced.
func (r *Reconciler) coalesce(name types.NamespacedName) time.Duration {
	return coalesceWindow + time.Duration(r.Outages.desired(name))*coalescePerTarget
}

// coalesced delays the events of pods.
type coalesced struct {
	handler.EventHandler
	delay func(types.NamespacedName) time.Duration
}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

func (c coalesced) Create(ctx context.Context, e event.CreateEvent, q queue) {
	c.EventHandler.Create(ctx, e, delayed{q, c.delay})
}
func (c coalesced) Update(ctx context.Context, e event.UpdateEvent, q queue) {
	c.EventHandler.Update(ctx, e, delayed{q, c.delay})
}
func (c coalesced) Delete(ctx context.Context, e event.DeleteEvent, q queue) {
	c.EventHandler.Delete(ctx, e, delayed{q, c.delay})
}
func (c coalesced) Generic(ctx context.Context, e event.GenericEvent, q queue) {
	c.EventHandler.Generic(ctx, e, delayed{q, c.delay})
}

// delayed is a queue that adds items after a delay, each once however often it is added until then.
type delayed struct {
	queue
	delay func(types.NamespacedName) time.Duration
}

func (q delayed) Add(request reconcile.Request) { q.AddAfter(request, q.delay(request.NamespacedName)) }

func (r *Reconciler) wakeObject() handler.TypedEventHandler[types.NamespacedName, reconcile.Request] {
	return handler.TypedFuncs[types.NamespacedName, reconcile.Request]{
		GenericFunc: func(_ context.Context, e event.TypedGenericEvent[types.NamespacedName], q queue) {
			q.AddAfter(reconcile.Request{NamespacedName: e.Object}, r.coalesce(e.Object))
		},
	}
}
