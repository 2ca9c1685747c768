// Package controller is the operator: it keeps one parser pod on each target of a HyperliquidParser and restarts the parsers that a
// restart may cure.
//
// A reconcile is get, observe, resolve the revision, decide, apply, one status write. What is decided is decided by pure packages (target, podspec,
// growth, plan); this package gathers what they look at and carries out what they say. It must never decide by itself, never wait
// for a parser (the poller asks, in the background) but for the last words of one that it restarts, never write a spec, and never write anything for a fleet at rest.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
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
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
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
	// Mounts remembers which pods wait for a data directory.
	Mounts *Mounts
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
	// FailedBackoff is how long, by target, a pod that failed for good is left alone before it is replaced.
	FailedBackoff *flowcontrol.Backoff
}

// +kubebuilder:rbac:groups=fleet.hlparser.dev,resources=hyperliquidparsers,verbs=get;list;watch
// +kubebuilder:rbac:groups=fleet.hlparser.dev,resources=hyperliquidparsers/status,verbs=update
// OpenShift refuses an owner reference that blocks deletion from one who may not set finalizers on the owner.
// +kubebuilder:rbac:groups=fleet.hlparser.dev,resources=hyperliquidparsers/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=namespaces,resourceNames=kube-system,verbs=get
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;delete;patch
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups=apps,resources=controllerrevisions,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups="",resources=events,verbs=list
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile brings one object's fleet nearer to its spec and says how it stands. It returns an error only for what trying again may
// cure; what a person must cure is in the Stalled condition.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	obj := &v1alpha1.HyperliquidParser{}
	if err := r.get(ctx, request.NamespacedName, obj); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(ctx, request.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("getting HyperliquidParser %s: %w", request, err)
	}
	if obj.DeletionTimestamp != nil {
		// Owner references take the pods away; making new ones would race with that.
		r.forget(ctx, request.NamespacedName)
		return ctrl.Result{}, nil
	}

	again, err := r.reconcile(ctx, obj)
	if apierrors.IsConflict(err) || errors.Is(err, errStale) {
		// Somebody wrote at the same time; that is news for the next look, not a failure.
		return ctrl.Result{RequeueAfter: retryConflict}, nil
	}
	return ctrl.Result{RequeueAfter: again}, err
}

// reconcile brings the fleet of an object that is there nearer to its spec. again is how soon to look again though nothing happens;
// 0: not at all.
func (r *Reconciler) reconcile(ctx context.Context, obj *v1alpha1.HyperliquidParser) (again time.Duration, err error) {
	seen, err := r.observe(ctx, obj)
	if err != nil {
		return 0, err
	}
	if err := r.resolve(ctx, obj, seen); err != nil {
		return 0, err
	}
	next := r.decide(obj, seen)
	if seen.known {
		r.Outages.saw(ctx, obj, len(seen.targets), next)
	}
	done, applyErr := r.apply(ctx, obj, seen, next)
	if done.problem != nil {
		seen.problem = done.problem
	}
	status := r.status(obj, seen, next)
	wake, statusErr := r.report(ctx, obj, seen, next, status)
	if err := errors.Join(applyErr, statusErr); err != nil {
		return 0, err
	}
	return r.until(next.NextTime, wake, done.again, seen.again, seen.look), nil
}

// errStale means that the cache has not yet seen what another leader, or somebody else, wrote.
var errStale = errors.New("the cache is behind")

const (
	// retryConflict is how soon a write that met another one is tried again.
	retryConflict = 100 * time.Millisecond
	// retryRejected is how soon pods that the API server refused are tried again: a quota or a policy changes without our hearing.
	retryRejected = 30 * time.Second
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

// forget drops what is remembered of an object that is gone.
func (r *Reconciler) forget(ctx context.Context, name types.NamespacedName) {
	r.Pods.Forget(name)
	r.Claims.Forget(name)
	r.Mounts.Forget(name)
	r.Poller.Forget(name)
	r.Events.Forget(name)
	r.Metrics.forget(name)
	r.Outages.forget(ctx, name)
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
	// targets, by name, are unknown (known is false) when the selector cannot be read; then no pod is touched.
	targets []target.Target
	known   bool
	paused  bool
	ready   map[string]bool // nodes that are Ready, by name
	pods    []corev1.Pod    // that the object controls
	pairs   []pair          // of each target
	configs []corev1.ConfigMap
	// missing are the pods whose data directory is not there; look is when to look for more of them, zero: never.
	missing map[types.UID]bool
	look    time.Time
	ledger  ledger
	views   map[string]poller.View // by target
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
	if err := r.observeSpec(ctx, obj, s); err != nil {
		return nil, err
	}
	if err := r.observeOwned(ctx, obj, s); err != nil {
		return nil, err
	}
	if err := r.checkClaims(ctx, obj, s); err != nil {
		return nil, err
	}
	r.explainMounts(ctx, obj, s)
	s.views = r.Poller.Track(client.ObjectKeyFromObject(obj), growthSettings(obj), endpoints(obj, s))
	return s, nil
}

// observeSpec reads what the spec asks for, and which targets that means.
func (r *Reconciler) observeSpec(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) error {
	if err := r.observeTargets(ctx, obj, s); err != nil || s.problem != nil {
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
	// Not copied: nodes are many, and only read here.
	if err := r.Client.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
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
		return nil
	}
	pods, err := r.Pods.List(ctx, client.ObjectKeyFromObject(obj), selectPods.Selector())
	if err != nil {
		return err
	}
	s.targets, s.known = selectPods.Targets(pods, nodes.Items), true
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
	asked, used := path.Clean(podspec.StatePath(obj)), obj.Status.StatePath
	if used == "" || used == asked || path.Clean(obj.Annotations[v1alpha1.AnnotationAcceptStatePath]) == asked {
		return nil
	}
	field := "nodes.statePath"
	if obj.Spec.Target.Pods != nil {
		field = "pods.stateSubPath"
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
	if err := r.list(ctx, &pods, client.InNamespace(obj.Namespace), ours, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing pods of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
	}
	s.pods = pods.Items[:0] // a pod is a kilobyte
	for i := range pods.Items {
		if metav1.IsControlledBy(&pods.Items[i], obj) {
			s.pods = append(s.pods, pods.Items[i])
		}
	}
	s.pair(obj.Name)
	if err := r.observeRevisions(ctx, obj, s); err != nil {
		return err
	}
	var maps corev1.ConfigMapList
	if err := r.list(ctx, &maps, client.InNamespace(obj.Namespace), ours); err != nil {
		return fmt.Errorf("listing ConfigMaps of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
	}
	for i := range maps.Items {
		m := &maps.Items[i]
		switch {
		case m.Name == ledgerName(obj) && metav1.IsControlledBy(m, obj):
			s.ledger = readLedger(m, logf.FromContext(ctx))
		case m.Labels[v1alpha1.LabelComponent] == v1alpha1.ComponentConfig && s.owns(obj, m):
			s.configs = append(s.configs, *m)
		}
	}
	return nil
}

// owns reports whether a config is of one of the object's revisions. Those that were made before revisions were stored are the object's.
func (s *seen) owns(obj *v1alpha1.HyperliquidParser, config *corev1.ConfigMap) bool {
	return metav1.IsControlledBy(config, obj) ||
		slices.ContainsFunc(s.revisions, func(r *stored) bool { return metav1.IsControlledBy(config, r.object) })
}

// endpoints are where the pods of targets answer.
func endpoints(obj *v1alpha1.HyperliquidParser, s *seen) []poller.Endpoint {
	out := make([]poller.Endpoint, 0, len(s.targets))
	for i, t := range s.targets {
		if pod := s.pairs[i].pod; pod != nil {
			out = append(out, poller.Endpoint{Target: t.Name, PodName: pod.Name, IP: pod.Status.PodIP, Pod: s.podState(obj, pod)})
		}
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

func growthSettings(obj *v1alpha1.HyperliquidParser) growth.Settings {
	g := obj.Spec.Growth
	s := growth.Settings{
		PollInterval: ptr.Deref(g.PollInterval, metav1.Duration{Duration: defaultPollInterval}).Duration,
		StuckAfter:   ptr.Deref(g.StuckAfter, metav1.Duration{Duration: defaultStuckAfter}).Duration,
		Retention:    ptr.Deref(g.Retention, metav1.Duration{Duration: defaultRetention}).Duration,
		BufferLimit:  defaultBufferLimit,
	}
	// Fewer than three reports cannot tell a lag.
	s.Lag = ptr.Deref(g.Lag, metav1.Duration{Duration: max(defaultLag, 3*s.PollInterval)}).Duration
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
	in.Elsewhere, in.FleetWide = r.Outages.around(obj)
	in.Targets, in.Pods = make([]plan.Target, 0, len(s.targets)), make([]plan.Pod, 0, len(s.pods))
	for i, t := range s.targets {
		in.Targets = append(in.Targets, plan.Target{
			Name: t.Name, Pod: s.pairs[i].name, Able: t.Waits == "", NodeReady: t.Waits != target.NotReady,
			Boot: t.Boot[:min(len(t.Boot), bootLength)],
		})
	}
	for i := range s.pods {
		p := planPod(&s.pods[i])
		p.NodeLost = s.lost(s.pods[i].Spec.NodeName)
		in.Pods = append(in.Pods, p)
	}
	for name, view := range s.views {
		in.Judgements[name], in.Lag[name] = view.Judgement, view.Lag
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
		Hold:           s.problem != nil,
	}
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
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == growth.ContainerName {
			out.Restarts = int(c.RestartCount)
		}
	}
	return out
}

// report writes the status, if it differs, and then tells the events and metrics. wake is when an event that was held back is due.
func (r *Reconciler) report(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, next plan.Result, status v1alpha1.HyperliquidParserStatus,
) (wake time.Time, err error) {
	before := obj.Status
	if !equality.Semantic.DeepEqual(before, status) {
		changed := obj.DeepCopy()
		changed.Status = status
		if err := r.Client.Status().Update(ctx, changed); err != nil {
			if apierrors.IsNotFound(err) {
				return time.Time{}, nil // deleted meanwhile
			}
			return time.Time{}, fmt.Errorf("writing the status of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
		}
	}
	r.Metrics.set(obj, s, next, status)
	r.Events.conditions(obj, before, status)
	r.Events.rollout(obj, next, status)
	r.Events.judgements(obj, s)
	r.Events.outage(obj, next)
	return r.Events.due(client.ObjectKeyFromObject(obj)), nil
}

func loggerFor(ctx context.Context, a plan.Action) logr.Logger {
	return logf.FromContext(ctx).WithValues("target", a.Target, "pod", a.Pod, "why", a.Why)
}
