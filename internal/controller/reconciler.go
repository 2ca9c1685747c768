// Package controller is the operator: it keeps one parser pod on each target of a HyperliquidParser and restarts the parsers that a
// restart may cure.
//
// A reconcile is get, observe, resolve the revision, decide, apply, one status write. What is decided is decided by pure packages (target, podspec,
// growth, plan); this package gathers what they look at and carries out what they say. It must never decide by itself, never write a spec,
// and never write anything for a fleet at rest.
//
// A reconcile never waits for what one object, or a parser, may hold up. The poller and Background ask, TargetPods watches, and each
// wakes the object when there is news; what is not known yet is unknown. What it does itself, its own requests, goes by turns of
// namespaces (package fair) and in slices.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/fair"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// Reconciler carries out HyperliquidParser objects. Its fields are set once, before SetupWithManager.
type Reconciler struct {
	// Client reads from the cache, and sees its own writes there: a plan made without them would delete twice.
	Client client.Client
	// Live reads from the API server what the cache does not hold.
	Live client.Reader
	// Pods watches the pods that objects select.
	Pods *TargetPods
	// Claims remembers which claims no parser can share.
	Claims *Claims
	// Keys are the operator's own, which parsers know it by.
	Keys *keys.Keeper
	// Access says who may connect to parsers; nil: there are no network policies.
	Access *podspec.Access
	// Poller keeps the verdicts.
	Poller *poller.Poller
	// Parsers answers what a parser that is about to be restarted stands at.
	Parsers *poller.Client
	// Clock tells the time for everything that is decided by time.
	Clock clock.PassiveClock
	// Bounds of what objects may ask for.
	Bounds Bounds
	// ParserImage stands for spec.image where that is empty.
	ParserImage string
	// Cluster names this cluster to servers that parsers of several clusters write to.
	Cluster string
	// Events tells people.
	Events *Events
	// Metrics of the fleets.
	Metrics *Metrics
	// Outages knows what is wrong with fleets that share a sink.
	Outages *Outages
	// Background asks what a reconcile must not wait for, and LastWords remembers which parsers were asked.
	Background *Background
	LastWords  *LastWords
	// Behind remembers for which objects the cache is behind, and Cursors how far slices got.
	Behind  *Behind
	Cursors *Cursors
	// Wanted reports whether a worker that is busy for a namespace holds others up.
	Wanted func(namespace string) bool
	// SetAside are the objects that cannot be decoded.
	SetAside *SetAside
	// FailedBackoff is how long, by target, a pod that failed for good is left alone before it is replaced.
	FailedBackoff *flowcontrol.Backoff

	// warnings are what events say of pods that do not start, and refusals what the API server refused or failed to do.
	warnings warnings
	refusals refusals

	// sightings are since when pods and targets have been seen as they are.
	sightings sightings
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

// Reconcile brings one object's fleet nearer to its spec and says how it stands. It returns an error only for what trying again may
// cure; what a person must cure is in the Stalled condition.
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
		// Owner references take the pods away; making new ones would race with that.
		r.forget(request.NamespacedName)
		return ctrl.Result{}, nil
	}

	if reason, ok := informers.Undecodable(obj); ok {
		return ctrl.Result{}, r.setAside(ctx, obj, reason)
	}
	r.SetAside.forget(request.NamespacedName)

	again, err := r.reconcile(ctx, obj)
	if errors.Is(err, errBehind) || apierrors.IsConflict(err) {
		// Somebody wrote at the same time; that is news for the next look, not a failure.
		return ctrl.Result{RequeueAfter: fair.Jittered(retryConflict)}, nil
	}
	if informers.Away(err) {
		// Less and less often would be for minutes after it is back.
		logf.FromContext(ctx).Info("the API server is away", "error", err.Error())
		return ctrl.Result{RequeueAfter: fair.Jittered(retryAway)}, nil
	}
	return ctrl.Result{RequeueAfter: again}, err
}

// reconcile brings the fleet of an object that is there nearer to its spec. again is how soon to look again though nothing happens;
// 0: not at all.
func (r *Reconciler) reconcile(ctx context.Context, obj *v1alpha1.HyperliquidParser) (again time.Duration, err error) {
	bounded, cancel := leaveTime(ctx)
	defer cancel()
	seen, err := r.observe(bounded, obj)
	if err != nil {
		return 0, err
	}
	if seen.unseen != nil {
		return r.reportUnseen(ctx, obj, seen)
	}
	if err := r.resolve(bounded, obj, seen); err != nil {
		return 0, err
	}
	r.verify(bounded, obj, seen)
	done := r.ensureConfigs(bounded, obj, seen)
	next := r.decide(obj, seen)
	if seen.known {
		r.sightings.renew(client.ObjectKeyFromObject(obj), next.Actions, seen.now)
		targets := countTargets(seen)
		targets.desired = next.Counted // of which it is known how they are, as of those that are affected
		r.Outages.saw(obj, targets, next)
	}
	done = done.and(r.apply(bounded, obj, seen, next))
	if done.problem != nil {
		seen.problem = done.problem
	}
	r.sayRefused(obj, seen)
	status := r.status(obj, seen, next)
	wake := r.report(ctx, obj, seen, next, status)
	r.refusals.keep(client.ObjectKeyFromObject(obj), seen.touched)
	return r.until(next.NextTime, wake, done.again, seen.again, seen.look), nil
}

// errStale means that the cache has not yet seen what another leader, or somebody else, wrote.
var errStale = errors.New("the cache is behind")

const (
	// retryConflict is how soon a write that met another one is tried again.
	retryConflict = 100 * time.Millisecond
	// retryAway is how soon a write is tried again that did not reach the API server.
	retryAway = 3 * time.Second
	// retryRejected is how soon what is in the way is looked for again, with jitter within half a minute: it may go without
	// our hearing.
	retryRejected = 20 * time.Second
	// retryTaken is how soon a name that is in use is looked at again.
	retryTaken = 2 * time.Second
)

// until is how long it is to the earliest of the times that are set; 0 when none is.
func (r *Reconciler) until(times ...time.Time) time.Duration {
	var earliest time.Time
	for _, t := range times {
		if !t.IsZero() && (earliest.IsZero() || t.Before(earliest)) {
			earliest = t
		}
	}
	if earliest.IsZero() {
		return 0
	}
	// A moment later than asked, so that rounding does not wake us just before.
	return max(earliest.Sub(r.Clock.Now()), 0) + 10*time.Millisecond
}

// retryAfter is when to try again what is tried every so often.
func (r *Reconciler) retryAfter(wait time.Duration) time.Time {
	return r.Clock.Now().Add(fair.Jittered(wait))
}

// forget drops what is remembered of an object that is gone.
func (r *Reconciler) forget(name types.NamespacedName) {
	r.forgetFleet(name)
	r.Events.Forget(name)
	r.SetAside.forget(name)
}

// forgetFleet drops what is remembered of an object's fleet.
func (r *Reconciler) forgetFleet(name types.NamespacedName) {
	r.Pods.Forget(name)
	r.Claims.Forget(name)
	r.warnings.forget(name)
	r.refusals.forget(name)
	r.Poller.Forget(name)
	r.Metrics.forget(name)
	r.Outages.forget(name)
	r.LastWords.Forget(name)
	r.Behind.Forget(name)
	r.Cursors.Forget(name)
	r.sightings.forget(name)
}

// seen is what a reconcile looks at.
type seen struct {
	now       time.Time
	revisions []*stored // newest first
	// update is the revision that the spec asks for; nil when that cannot be told. current is the last one that the whole fleet had; nil
	// before there was one.
	update  *stored
	current *stored
	// rollout is how far the fleet is on the way from current to update.
	rollout plan.Rollout
	// problem is why the spec cannot be carried out; nil when it can. again is when to look whether it can, should that come unheard.
	problem *problem
	again   time.Time
	// shares is set when the problem is that parsers of this spec would write where others do.
	shares bool
	// targets, by name, are unknown (known is false) when the selector cannot be read; then no pod is touched. While the API server
	// has not shown what the selector matches, unseen is why.
	targets []target.Target
	known   bool
	leftOut int // nodes or pods that the selector matches and spec.affinity does not, where there are no targets
	unseen  *unseen
	paused  bool
	ready   map[string]bool // nodes that are Ready, by name
	pods    []corev1.Pod    // that the object controls
	pairs   []pair          // of each target
	configs []corev1.ConfigMap
	// keys is the ConfigMap with the operator's public keys, published since when; operator is the one that parsers are asked with, until
	// keyDue. policy has the name of the parsers' NetworkPolicy. What is not there is nil.
	keys      *corev1.ConfigMap
	published keys.Published
	operator  *seal.Key
	keyDue    time.Time
	policy    *networkingv1.NetworkPolicy
	// warned is what events say of pods that do not start; look is when to ask for more of them, zero: never.
	warned map[types.UID]warning
	look   time.Time
	ledger ledger
	views  map[string]poller.View // by target
	// touched names all that was tried, or waits to be, and unread is what could not be read in the background.
	touched map[string]bool
	unread  []undone
	// failing is what of that fails for now, and is said; nil when nothing is.
	failing *problem
	// confirmed is set once the API server was seen to have the object.
	confirmed bool
	// held is set while it is not known what a new pod would be made from, or that has no config yet; untrusted are the
	// revisions, by hash, that none may be made from, and lacking those whose config is not there, or is not theirs.
	held      bool
	untrusted map[string]bool
	sighted   sighted
	lacking   map[string]bool
}

// pair is what a target has.
type pair struct {
	name string      // that its pod has, or will have
	pod  *corev1.Pod // nil when there is none
}

// pair finds the pods of targets, once for all that look at them: a name takes a hash, and a fleet has thousands.
func (s *seen) pair(object string) {
	pods := byName(s.pods)
	s.pairs = make([]pair, len(s.targets))
	for i, t := range s.targets {
		name := podspec.PodName(object, t)
		s.pairs[i] = pair{name, pods[name]}
	}
}

// index returns which of targets, and of pairs, has that name, and whether there is one. They are in order of names.
func (s *seen) index(name string) (int, bool) {
	return slices.BinarySearchFunc(s.targets, name, func(t target.Target, name string) int { return cmp.Compare(t.Name, name) })
}

// lost reports whether a pod on the node may be Terminating for ever: the node is gone or not Ready. A pod that is on none is not.
func (s *seen) lost(node string) bool { return node != "" && !s.ready[node] }

func (r *Reconciler) observe(ctx context.Context, obj *v1alpha1.HyperliquidParser) (*seen, error) {
	s := &seen{now: r.Clock.Now(), paused: obj.Spec.Paused}
	if err := r.observeSpec(ctx, obj, s); err != nil || s.unseen != nil {
		return s, err
	}
	if err := r.observeOwned(ctx, obj, s); err != nil {
		return nil, err
	}
	if s.known { // otherwise what is known stays so
		r.sightings.see(client.ObjectKeyFromObject(obj), s)
	}
	if err := r.observeAccess(ctx, obj, s); err != nil {
		return nil, err
	}
	s.shareClaims(obj.Name)
	r.checkClaims(obj, s)
	refused := s.problem
	if err := r.checkSharing(ctx, obj, s); err != nil {
		return nil, err
	}
	s.shares = s.problem != refused
	r.askForWarnings(obj, s)
	s.views = r.Poller.Track(client.ObjectKeyFromObject(obj), growthSettings(obj, len(s.targets)), r.endpoints(obj, s))
	return s, nil
}

// observeSpec reads what the spec asks for, and which targets that means.
func (r *Reconciler) observeSpec(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) error {
	if err := r.observeTargets(ctx, obj, s); err != nil || s.problem != nil || s.unseen != nil {
		return err
	}
	s.problem = r.Bounds.check(obj)
	if s.problem == nil {
		s.problem = statePathProblem(obj)
	}
	return nil
}

// observeTargets reads what the spec selects; the problem is why that cannot be known.
func (r *Reconciler) observeTargets(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) error {
	selectNodes, selectPods, err := selections(obj)
	if err != nil {
		s.problem = &problem{v1alpha1.ReasonSpecInvalid, err.Error()}
		return nil
	}
	var nodes corev1.NodeList
	// Not copied: nodes are many, and only read here. They are never written.
	if err := r.Client.List(ctx, &nodes, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	s.ready = make(map[string]bool, len(nodes.Items))
	for i := range nodes.Items {
		if target.Ready(&nodes.Items[i]) {
			s.ready[nodes.Items[i].Name] = true
		}
	}
	if selectNodes != nil {
		r.Pods.Forget(client.ObjectKeyFromObject(obj)) // of an earlier object of that name
		s.targets, s.known = selectNodes.Targets(nodes.Items), true
		if len(s.targets) == 0 {
			s.leftOut = selectNodes.LeftOut(nodes.Items)
		}
		return nil
	}
	pods, unseen := r.Pods.List(client.ObjectKeyFromObject(obj), selectPods.Selector())
	if unseen != nil {
		s.unseen = unseen
		return nil
	}
	s.targets, s.known = selectPods.Targets(pods, nodes.Items), true
	if len(s.targets) == 0 {
		s.leftOut = selectPods.LeftOut(pods, nodes.Items)
	}
	return nil
}

// selections returns the one of the two that the object asks for.
func selections(obj *v1alpha1.HyperliquidParser) (*target.Nodes, *target.Pods, error) {
	affinity, tolerations := obj.Spec.Affinity, target.Tolerations(obj.Spec.Tolerations)
	switch of := obj.Spec.Target; {
	case of.Nodes != nil:
		nodes, err := target.NewNodes(of.Nodes.Selector, affinity, tolerations)
		return &nodes, nil, err
	case of.Pods != nil:
		pods, err := target.NewPods(of.Pods.Selector, of.Pods.Volume, affinity, tolerations)
		return nil, &pods, err
	}
	return nil, nil, errors.New("spec.target is empty: set nodes or pods")
}

// statePathProblem holds back a change of statePath that nobody has acknowledged. Admission cannot: CEL rules of a CRD see no
// annotations.
func statePathProblem(obj *v1alpha1.HyperliquidParser) *problem {
	asked, used := podspec.StateLocation(obj), obj.Status.StatePath
	if used == "" || used == asked || path.Clean(obj.Annotations[v1alpha1.AnnotationAcceptStatePath]) == asked {
		return nil
	}
	field := "nodes.statePath"
	if obj.Spec.Target.Pods != nil {
		field = "pods.stateSubPath"
		if path.IsAbs(asked) || path.IsAbs(used) {
			field = "pods.stateClaimName with stateSubPath"
		}
	}
	return &problem{v1alpha1.ReasonStatePathChanged, fmt.Sprintf(
		"spec.target.%s was %s: below %s parsers find no checkpoint and start anew; set it back, or annotate the object with %s=%s",
		field, used, asked, v1alpha1.AnnotationAcceptStatePath, asked)}
}

// observeOwned reads the objects that this one controls.
func (r *Reconciler) observeOwned(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) error {
	ours := client.MatchingLabels{v1alpha1.LabelParser: obj.Name}
	var pods corev1.PodList
	// Not copied: pods are many, and only read here.
	if err := r.list(ctx, client.ObjectKeyFromObject(obj), &pods, client.InNamespace(obj.Namespace), ours, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing pods of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
	}
	s.pods = pods.Items[:0] // a pod is a kilobyte
	var left []corev1.Pod
	for i := range pods.Items {
		switch pod := &pods.Items[i]; {
		case metav1.IsControlledBy(pod, obj):
			s.pods = append(s.pods, *pod)
		case abandonedPod(obj, pod):
			left = append(left, *pod)
		}
	}
	s.pods = append(s.pods, r.takeUpPods(ctx, obj, s, left)...)
	s.pair(obj.Name)
	if err := r.observeRevisions(ctx, obj, s); err != nil {
		return err
	}
	var maps corev1.ConfigMapList
	if err := r.list(ctx, client.ObjectKeyFromObject(obj), &maps, client.InNamespace(obj.Namespace), ours); err != nil {
		return fmt.Errorf("listing ConfigMaps of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
	}
	for i := range maps.Items {
		m := &maps.Items[i]
		switch {
		case m.Name == ledgerName(obj) && (metav1.IsControlledBy(m, obj) || r.takeUp(ctx, obj, s, m, "ConfigMap")):
			s.ledger = readLedger(m, logf.FromContext(ctx))
			s.ledger.boundTotal(obj, s)
		case m.Name == podspec.OperatorKeysName(obj.Name) && metav1.IsControlledBy(m, obj):
			s.keys = m
		case m.Labels[v1alpha1.LabelComponent] == v1alpha1.ComponentConfig &&
			(s.owns(m) || r.takeUpConfig(ctx, obj, s, m)):
			s.configs = append(s.configs, *m)
		}
	}
	return nil
}

// owns reports whether a config belongs to one of the object's revisions.
func (s *seen) owns(config *corev1.ConfigMap) bool {
	return slices.ContainsFunc(s.revisions, func(r *stored) bool { return metav1.IsControlledBy(config, r.object) })
}

// endpoints are where the pods of targets answer.
func (r *Reconciler) endpoints(obj *v1alpha1.HyperliquidParser, s *seen) []poller.Endpoint {
	out := make([]poller.Endpoint, 0, len(s.targets))
	for i, t := range s.targets {
		pod := s.pairs[i].pod
		if pod == nil {
			continue
		}
		e := r.endpoint(obj, s, t.Name, pod)
		if first := s.sighted.pods[pod.UID].first; !first.IsZero() {
			e.Pod.Since = first // by our clock, as all that it is compared with
		}
		out = append(out, e)
	}
	return out
}

func byName(pods []corev1.Pod) map[string]*corev1.Pod {
	out := make(map[string]*corev1.Pod, len(pods))
	for i := range pods {
		out[pods[i].Name] = &pods[i]
	}
	return out
}

// bootLength is how much of a boot ID, which is a random UUID, is enough to tell the boots of one node apart.
const bootLength = 8

// Defaults of the schema, for objects that were made without it.
const (
	defaultPollInterval = 5 * time.Second
	defaultLag          = 30 * time.Second
	defaultStuckAfter   = 30 * time.Second
	defaultRetention    = 24 * time.Hour
	defaultBufferLimit  = 32 << 20
	defaultCooldown     = 5 * time.Minute
	defaultMaxPerHour   = 3
	defaultShare        = "10%"
	defaultCanaries     = 1
	defaultSoak         = time.Hour
)

// pollsPerSecond is the most polls of one object's parsers in a second. A poll takes some 0.35 ms of processor time where they are spread:
// without this bound, 5,000 parsers that are asked every second would take two cores from all other objects.
const pollsPerSecond = 1000

// growthSettings are what the parsers of an object with that many targets are judged by. A fleet too large for its poll interval has a longer one, in whole
// seconds so that it seldom changes, and the times that must be three of them follow.
func growthSettings(obj *v1alpha1.HyperliquidParser, targets int) growth.Settings {
	g := obj.Spec.Growth
	s := growth.Settings{
		PollInterval: ptr.Deref(g.PollInterval, metav1.Duration{Duration: defaultPollInterval}).Duration,
		StuckAfter:   ptr.Deref(g.StuckAfter, metav1.Duration{Duration: defaultStuckAfter}).Duration,
		Retention:    ptr.Deref(g.Retention, metav1.Duration{Duration: defaultRetention}).Duration,
		BufferLimit:  defaultBufferLimit,
	}
	s.PollInterval = max(s.PollInterval, time.Duration((targets+pollsPerSecond-1)/pollsPerSecond)*time.Second)
	// Fewer than three reports show neither a hang nor a lag.
	s.StuckAfter = max(s.StuckAfter, 3*s.PollInterval)
	s.Lag = max(ptr.Deref(g.Lag, metav1.Duration{Duration: defaultLag}).Duration, 3*s.PollInterval)
	if len(g.SourceStalledAfter) > 0 {
		s.SourceStalledAfter = make(map[string]time.Duration, len(g.SourceStalledAfter))
		for stream, after := range g.SourceStalledAfter {
			s.SourceStalledAfter[string(stream)] = after.Duration.Duration
		}
	}
	if limit := obj.Spec.Engine.BufferLimit; limit != nil {
		s.BufferLimit = limit.Value()
	}
	return s
}

// decide makes the plan. It has no input but what was seen.
func (r *Reconciler) decide(obj *v1alpha1.HyperliquidParser, s *seen) plan.Result {
	if !s.known {
		return plan.Result{}
	}
	in := plan.Input{
		Now:         s.now,
		Current:     s.current.name(),
		Update:      s.update.name(),
		RestartedAt: obj.Annotations[v1alpha1.AnnotationRestartedAt],
		Judgements:  make(map[string]growth.Judgement, len(s.views)),
		Lag:         make(map[string]time.Duration, len(s.views)),
		Ledger:      s.ledger.records,
		Trials:      s.ledger.trials,
		Rollout:     s.rollout,
		Promote:     s.promoted(obj),
		Spec:        strconv.FormatInt(obj.Generation, 10),
		RetryAt:     map[string]time.Time{},
		Limits:      limits(obj, s),
	}
	if s.update == nil {
		in.Update = in.Current // nothing is on its way
	}
	if len(s.rollout.Also) > 0 {
		names := make([]string, 0, len(s.targets))
		for _, t := range s.targets {
			names = append(names, t.Name)
		}
		in.GoneSince = r.sightings.missing(client.ObjectKeyFromObject(obj), s.rollout.Gone(names), s.now)
	}
	in.Elsewhere, in.Strangers, in.FleetWide = r.Outages.around(obj)
	in.Targets, in.Pods = make([]plan.Target, 0, len(s.targets)), make([]plan.Pod, 0, len(s.pods))
	for i, t := range s.targets {
		in.Targets = append(in.Targets, plan.Target{
			Name: t.Name, Pod: s.pairs[i].name, Able: t.Waits == "", NodeReady: t.Waits != target.NotReady,
			Boot: t.Boot[:min(len(t.Boot), bootLength)], UnreadySince: s.sighted.unready[t.Name],
		})
	}
	for i := range s.pods {
		p := s.planPod(&s.pods[i])
		p.NodeLost = s.lost(s.pods[i].Spec.NodeName)
		in.Pods = append(in.Pods, p)
	}
	for name, view := range s.views {
		in.Judgements[name] = view.Judgement
		if view.LagKnown {
			in.Lag[name] = view.Lag
		}
	}
	for _, p := range in.Pods {
		key := backoffKey(obj, p.Target)
		if p.Failed && r.FailedBackoff.IsInBackOffSinceUpdate(key, s.now) {
			in.RetryAt[p.Target] = s.now.Add(r.FailedBackoff.Get(key))
		}
	}
	return plan.Next(in)
}

func backoffKey(obj *v1alpha1.HyperliquidParser, name string) string {
	return string(obj.UID) + "/" + name
}

func limits(obj *v1alpha1.HyperliquidParser, s *seen) plan.Limits {
	restart := obj.Spec.Growth.Restart
	share := intstr.FromString(defaultShare)
	var canary *plan.Canary
	if asked := obj.Spec.Rollout.Canary; asked != nil {
		canary = &plan.Canary{
			Count: ptr.Deref(asked.Count, intstr.FromInt32(defaultCanaries)),
			Soak:  ptr.Deref(asked.Soak, metav1.Duration{Duration: defaultSoak}).Duration,
		}
	}
	return plan.Limits{
		Canary:         canary,
		MaxUnavailable: ptr.Deref(obj.Spec.Rollout.MaxUnavailable, share),
		MaxConcurrent:  ptr.Deref(restart.MaxConcurrent, share),
		Cooldown:       ptr.Deref(restart.Cooldown, metav1.Duration{Duration: defaultCooldown}).Duration,
		MaxPerHour:     int(ptr.Deref(restart.MaxPerHour, defaultMaxPerHour)),
		FleetWide:      ptr.Deref(obj.Spec.Growth.FleetWideThreshold, intstr.FromString(plan.DefaultFleetWide)),
		AlertOnly:      obj.Spec.Growth.Action == v1alpha1.GrowthActionAlert,
		Paused:         obj.Spec.Paused,
		Hold:           s.problem != nil || s.held,
		NoPods:         s.noPods(),
	}
}

// noPods reports whether not even a pod that is gone may come back: nobody knows what it would do, or it would write
// where others do. A spec that is refused for anything else leaves the revisions good that were stored before.
func (s *seen) noPods() bool {
	return s.problem != nil && (s.problem.reason == v1alpha1.ReasonTampered || s.shares && s.update != nil)
}

func planPod(pod *corev1.Pod) plan.Pod {
	out := plan.Pod{
		Name:        pod.Name,
		UID:         string(pod.UID),
		Target:      pod.Annotations[v1alpha1.AnnotationTarget],
		Revision:    pod.Labels[v1alpha1.LabelRevision],
		RestartedAt: pod.Annotations[v1alpha1.AnnotationRestartedAt],
		Created:     pod.CreationTimestamp.Time,
		Terminating: pod.DeletionTimestamp != nil,
		Failed:      pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded,
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			out.Ready, out.ReadyChanged = c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
		}
	}
	// The containers that prepare the pod come first, as they run.
	for _, containers := range [...][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range containers {
			out.Restarts = max(out.Restarts, int(containers[i].RestartCount))
			if out.Blocked == "" {
				out.Blocked = blocked(&containers[i])
			}
		}
	}
	return out
}

// cannotStart are the reasons for which a kubelet does not start a container, in its words: of the image
// (pkg/kubelet/images), of the container (pkg/kubelet/kuberuntime), and where it has started too often. The last two
// are also those that a runtime reports by CRI.
var cannotStart = []string{
	"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
	"CreateContainerConfigError", "CreateContainerError", "PreCreateHookError", "PreStartHookError", "PostStartHookError", "RunContainerError",
	"CrashLoopBackOff", "RegistryUnavailable", "SignatureValidationFailed",
}

// maxBlocked bounds, in bytes, what is quoted of a kubelet.
const maxBlocked = 200

// blocked says why a container cannot be started; "" when nothing is in the way.
func blocked(c *corev1.ContainerStatus) string {
	w := c.State.Waiting
	if w == nil || !slices.Contains(cannotStart, w.Reason) {
		return ""
	}
	text := w.Reason
	if w.Message != "" {
		text += ": " + w.Message
	}
	return prose.Line(text, maxBlocked)
}

// running reports whether the parser's container runs.
func running(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.Name == v1alpha1.ContainerName && c.State.Running != nil
	})
}

// report updates the metrics and events, and then writes the status if it differs: what pages people does not
// wait for a write that may be refused. wake is when an event that was held back is due.
func (r *Reconciler) report(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, next plan.Result, status v1alpha1.HyperliquidParserStatus,
) (wake time.Time) {
	before := obj.Status
	for _, c := range r.Events.changes(obj, s) {
		logf.FromContext(ctx).WithValues("target", c.target).Info(c.text, c.values...)
	}
	r.Metrics.set(obj, s, next, status)
	r.Events.conditions(obj, before, withFiguresOfNow(status, s, next))
	r.Events.rollout(obj, next, status)
	r.Events.judgements(obj, s)
	r.Events.outage(obj, next)
	wake = r.Events.due(client.ObjectKeyFromObject(obj))
	if !equality.Semantic.DeepEqual(before, status) {
		r.attempt(ctx, obj, s, theStatus, v1alpha1.ReasonWriteRejected, func() error {
			return r.writeStatus(ctx, obj, status)
		})
		r.sayStatusRefused(obj)
	}
	return wake
}

// writeStatus writes the status. Where the API server refuses it, it is written once more without what others have
// said: counts, reasons and the revision are what everything else goes by.
func (r *Reconciler) writeStatus(ctx context.Context, obj *v1alpha1.HyperliquidParser,
	status v1alpha1.HyperliquidParserStatus) error {
	write := func(status v1alpha1.HyperliquidParserStatus) error {
		changed := obj.DeepCopy()
		changed.Status = status
		return client.IgnoreNotFound(r.Client.Status().Update(ctx, changed)) // it was deleted meanwhile
	}
	err := write(status)
	if !statusRefused(err) {
		return err
	}
	bare := withoutTexts(status)
	if equality.Semantic.DeepEqual(obj.Status, bare) {
		return nil // it stands so already
	}
	logf.FromContext(ctx).Error(err, "the API server refuses the status, which is written without its texts")
	if bareErr := write(bare); bareErr != nil {
		return errors.Join(err, fmt.Errorf("without its texts: %w", bareErr))
	}
	return nil
}

// statusRefused reports whether the API server will not have a status for what is in it.
func statusRefused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsBadRequest(err) ||
		err != nil && strings.Contains(err.Error(), "etcdserver: request is too large")
}

// withoutTexts is a status that the API server takes whatever parsers, kubelets and spec say.
func withoutTexts(status v1alpha1.HyperliquidParserStatus) v1alpha1.HyperliquidParserStatus {
	out := *status.DeepCopy()
	for i := range out.Conditions {
		out.Conditions[i].Message = ""
	}
	for i := range out.Losses {
		out.Losses[i].Message = ""
	}
	out.Targets, out.Story = nil, ""
	return out
}

func loggerFor(ctx context.Context, a plan.Action) logr.Logger {
	return logf.FromContext(ctx).WithValues("target", a.Target, "pod", a.Pod, "why", a.Why)
}
