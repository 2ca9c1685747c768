// Package controller is the operator: it keeps one parser pod on each target of a HyperliquidParser, and restarts the
// parsers that a restart may cure.
//
// A reconcile is get, observe, resolve, decide, apply, and one status write. Pure packages decide (target, podspec,
// growth, plan, status). This package gathers their inputs and carries out their decisions. It never decides by itself,
// never writes a spec, and never writes anything for a fleet at rest.
//
// A reconcile never waits for anything that another object or a parser may hold up. The poller and Background ask,
// TargetPods watches, and each requeues the object when there is news. Until then what they ask for is unknown. The
// reconcile's own requests take turns by namespace (package fair) and come in slices.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/fair"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/status"
)

// Reconciler reconciles HyperliquidParser objects. Its fields are set once, before SetupWithManager.
type Reconciler struct {
	// Client reads from the cache, and waits there for its own writes: a plan made without them would delete twice.
	Client client.Client
	// APIReader reads from the API server what the cache does not hold.
	APIReader client.Reader
	// Pods watches the pods that objects select.
	Pods *TargetPods
	// Claims remembers which claims parsers cannot share.
	Claims *Claims
	// Keys are the operator's own, by which parsers authenticate it.
	Keys *keys.Keeper
	// Access is who may connect to parsers. Nil disables network policies.
	Access *podspec.Access
	// Poller keeps the verdicts.
	Poller *poller.Poller
	// Parsers asks a parser that is about to be restarted for its stacks.
	Parsers *poller.Client
	// Clock is the source of time for all decisions.
	Clock clock.PassiveClock
	// Bounds limits what objects may ask for.
	Bounds Bounds
	// ParserImage is the default of spec.image.
	ParserImage string
	// Cluster names this cluster to servers that parsers of several clusters write to.
	Cluster string
	// Events sends Kubernetes events.
	Events *Events
	// Metrics are those of the fleets.
	Metrics *Metrics
	// Outages compares fleets that share a sink.
	Outages *Outages
	// Background makes the requests that a reconcile must not wait for, and LastWords remembers which parsers were asked.
	Background *Background
	LastWords  *LastWords
	// Behind remembers for which objects the cache is behind, and Cursors how far slices got.
	Behind  *Behind
	Cursors *Cursors
	// Wanted reports whether other namespaces wait for a worker that is busy with this one.
	Wanted func(namespace string) bool
	// SetAside are the objects that cannot be decoded.
	SetAside *SetAside
	// FailedBackoff is how long, by target, a pod that failed for good is left alone before it is replaced.
	FailedBackoff *flowcontrol.Backoff

	// warnings are the events about pods that do not start, and refusals what the API server refused or failed to do.
	warnings warnings
	refusals refusals

	// history is since when pods and targets have been observed as they are.
	history observed.History
	// waits are the targets whose lines are near their retention.
	waits waits
}

// +kubebuilder:rbac:groups=fleet.hlparser.dev,resources=hyperliquidparsers,verbs=get;list;watch
// +kubebuilder:rbac:groups=fleet.hlparser.dev,resources=hyperliquidparsers/status,verbs=update
// OpenShift refuses an owner reference that blocks deletion from one who may not set finalizers on the owner.
// +kubebuilder:rbac:groups=fleet.hlparser.dev,resources=hyperliquidparsers/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=namespaces,resourceNames=kube-system,verbs=get
// +kubebuilder:rbac:groups="",resources=nodes,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;delete;patch
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups=apps,resources=controllerrevisions,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups="",resources=events,verbs=list
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile brings one object's fleet nearer to its spec and reports its state. It returns an error only if a retry may
// succeed. Problems that somebody must solve are in the condition Stalled.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	ctx = fair.WithTenant(ctx, request.Namespace)
	obj := &v1alpha1.HyperliquidParser{}
	if err := r.get(ctx, request.NamespacedName, obj); err != nil {
		if errors.Is(err, errBehind) {
			return ctrl.Result{RequeueAfter: fair.Jittered(retryConflict)}, nil
		}
		if apierrors.IsNotFound(err) {
			r.forget(request.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("getting HyperliquidParser %s: %w", request, err)
	}
	if obj.DeletionTimestamp != nil {
		// The garbage collector deletes the pods; creating new ones would race with it.
		r.forget(request.NamespacedName)
		return ctrl.Result{}, nil
	}

	if reason, ok := informers.Undecodable(obj); ok {
		return ctrl.Result{}, r.setAside(ctx, obj, reason)
	}
	r.SetAside.Forget(request.NamespacedName)

	requeueAfter, err := r.reconcile(ctx, obj)
	if errors.Is(err, errBehind) || apierrors.IsConflict(err) {
		// Another write happened at the same time. The next reconcile observes it, so this is no failure.
		return ctrl.Result{RequeueAfter: fair.Jittered(retryConflict)}, nil
	}
	if informers.IsUnreachable(err) {
		// Backoff would delay the object for minutes after the API server is back.
		logf.FromContext(ctx).Info("the API server is away", "error", err.Error())
		return ctrl.Result{RequeueAfter: fair.Jittered(retryAway)}, nil
	}
	return ctrl.Result{RequeueAfter: requeueAfter}, err
}

// reconcile brings the fleet of an existing object nearer to its spec. requeueAfter is when to reconcile again though
// no event arrives; 0 for never.
func (r *Reconciler) reconcile(
	ctx context.Context, obj *v1alpha1.HyperliquidParser,
) (requeueAfter time.Duration, err error) {
	bounded, cancel := reserveStatusTime(ctx)
	defer cancel()
	tried := &attempts{}

	fleet, err := r.observe(bounded, obj, tried)
	if err != nil {
		return 0, err
	}
	if fleet.Unsynced != nil {
		return r.reportUnsynced(ctx, obj, fleet)
	}
	resolved, err := r.resolve(bounded, obj, fleet, tried)
	if err != nil {
		return 0, err
	}
	next := r.decide(obj, fleet, resolved)
	if fleet.Known {
		r.remember(obj, fleet, next)
	}
	applied, ledger := r.apply(bounded, obj, fleet, resolved, next, tried)
	refused, failing := r.reportFailures(obj, tried)
	stalling := cmp.Or(applied.problem, resolved.problem, refused)
	after := status.Of(obj, status.Input{
		Fleet:   fleet,
		Update:  resolved.update,
		Current: resolved.current,
		Plan:    next,
		Limits:  limits(obj, fleet, resolved),
		Outcome: status.Outcome{Problem: stalling, Failing: failing, Ledger: ledger},
	})
	eventsDue := r.report(ctx, obj, fleet, next, tried, after)
	r.refusals.keep(client.ObjectKeyFromObject(obj), tried.touched)
	return r.until(next.RecheckAt, eventsDue, applied.requeueAt, tried.requeueAt, fleet.RecheckAt), nil
}

// remember keeps what the next reconciles, of this object and of those that share its sink, need of a plan.
func (r *Reconciler) remember(obj *v1alpha1.HyperliquidParser, fleet *observed.Fleet, next plan.Result) {
	r.history.Renew(client.ObjectKeyFromObject(obj), next.Actions, fleet.Now)
	targets := countTargets(fleet)
	targets.desired = next.Counted // those whose state is known, like the affected ones
	r.Outages.observe(obj, targets, next)
}

// errStale means that the cache does not show yet what another leader or another client wrote.
var errStale = errors.New("the cache is behind")

const (
	// retryConflict is the delay before a conflicting write is retried.
	retryConflict = 100 * time.Millisecond
	// retryAway is the delay before a write is retried that did not reach the API server.
	retryAway = 3 * time.Second
	// retryRejected is the delay before an obstacle is checked again, with jitter at most half a minute: no event reports
	// that it is gone.
	retryRejected = 20 * time.Second
	// retryTaken is the delay before a name that is in use is checked again.
	retryTaken = 2 * time.Second
)

// until returns the time to the earliest of the times that are set; 0 when none is.
func (r *Reconciler) until(times ...time.Time) time.Duration {
	var earliest time.Time
	for _, t := range times {
		earliest = earlier(earliest, t)
	}
	if earliest.IsZero() {
		return 0
	}
	// A moment later, so that rounding does not requeue the object just before the time.
	return max(earliest.Sub(r.Clock.Now()), 0) + 10*time.Millisecond
}

// retryAt returns the time of a retry after a delay with jitter.
func (r *Reconciler) retryAt(delay time.Duration) time.Time {
	return r.Clock.Now().Add(fair.Jittered(delay))
}

// forget drops everything that is remembered of an object that is gone.
func (r *Reconciler) forget(name types.NamespacedName) {
	r.forgetFleet(name)
	r.Events.Forget(name)
	r.SetAside.Forget(name)
}

// forgetFleet drops what is remembered of an object's fleet.
func (r *Reconciler) forgetFleet(name types.NamespacedName) {
	r.Pods.Forget(name)
	r.Claims.Forget(name)
	r.warnings.Forget(name)
	r.refusals.Forget(name)
	r.Poller.Forget(name)
	r.Metrics.forget(name)
	r.Outages.forget(name)
	r.LastWords.Forget(name)
	r.Behind.Forget(name)
	r.Cursors.Forget(name)
	r.history.Forget(name)
	r.waits.Forget(name)
}
