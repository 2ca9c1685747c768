package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// parallelWrites bounds how many pods are created or deleted at once. The client's own rate limit bounds how many per
// second. A busy API server divides its capacity between in-flight requests, so fewer in-flight creates than other
// clients have would slow a fleet down. It is as many as the DaemonSet controller creates at once (BurstReplicas in
// k8s.io/kubernetes/pkg/controller/daemon).
const parallelWrites = 250

// rampUpBy is how many more creates may start for each one that succeeded: thousands within a few responses of the API
// server.
const rampUpBy = 4

// Names of attempts, among all those of an object.
const (
	theLedger  = "the record of restarts"
	theRollout = "the state of the rollout"
	theKeys    = "the operator's keys"
	thePolicy  = "the network policy"
	thePods    = "pods"
	theObject  = "the object"
	theStatus  = "the status"
	theCurrent = "the mark of the current revision"
	thePruning = "pruning"
)

// apply carries out the plan, and returns the ledger as it is afterwards. It continues after an action that fails,
// since targets do not depend on each other: a failed write holds back only what needs it.
func (r *Reconciler) apply(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, v *revisions, next plan.Result, t *attempts,
) (outcome, observed.Ledger) {
	var create, remove []plan.Action
	for _, a := range next.Actions {
		if a.Kind == plan.Create {
			create = append(create, a)
		} else {
			remove = append(remove, a)
		}
	}
	unusable := func(revision string) bool { return v.lacking[revision] || v.untrusted[revision] }
	create = slices.DeleteFunc(create, func(a plan.Action) bool { return unusable(a.Revision) })
	// A working pod stays while its successor would have no config, or another one.
	remove = slices.DeleteFunc(remove, func(a plan.Action) bool {
		return a.Why != plan.WhyNoTarget && a.Why != plan.WhyFailed && slices.ContainsFunc(successors(a, f, v), unusable)
	})
	// State that must survive is written before the actions. Without the record no pod is restarted, and without the state
	// of the rollout the rollout does not continue.
	done := v.configs
	ledger, recorded, taken := r.record(ctx, obj, f, next, t)
	done = done.and(taken)
	if !recorded {
		remove = slices.DeleteFunc(remove, func(a plan.Action) bool { return a.Kind == plan.Restart })
	}
	update := v.update
	if next.Rollout != nil && update != nil && v.problem == nil && !r.attempt(ctx, obj, t, theRollout,
		v1alpha1.ReasonWriteRejected, func() (err error) {
			update, err = r.writeRollout(ctx, update, *next.Rollout)
			return err
		}) {
		create = slices.DeleteFunc(create, v.updatesUnrecorded)
		remove = slices.DeleteFunc(remove, func(a plan.Action) bool {
			return a.Why == plan.WhyOutdated || a.Why == plan.WhyRolledBack
		})
	}
	if next.Complete {
		r.attempt(ctx, obj, t, theCurrent, v1alpha1.ReasonWriteRejected, func() error { return r.writeCurrent(ctx, update) })
	}
	over := r.slice(obj.Namespace)
	done = done.and(outcome{requeueAt: r.deleteAll(ctx, obj, f, t, remove, over)})
	access := r.ensureAccess(ctx, obj, f, t) // before the pods, which read the keys when they start
	done = done.and(r.createAll(ctx, obj, f, v, t, create, over)).and(access)
	r.attempt(ctx, obj, t, thePruning, v1alpha1.ReasonWriteRejected, func() error {
		return errors.Join(r.pruneConfigs(ctx, f, v, over), r.pruneRevisions(ctx, obj, f, v))
	})
	return done, ledger
}

// successors returns the revisions that the pod may have that replaces a deleted one.
func successors(a plan.Action, f *observed.Fleet, v *revisions) []string {
	switch {
	case a.Why == plan.WhyRolledBack:
		return []string{v.current.PlanName()}
	case a.Kind != plan.Restart && a.Why != plan.WhyUnfinished:
		return []string{v.update.PlanName(), v.current.PlanName()}
	}
	i, ok := f.Index(a.Target)
	if !ok || f.Pairs[i].Pod == nil {
		return nil
	}
	return []string{f.Pairs[i].Pod.Labels[v1alpha1.LabelRevision]}
}

// updatesUnrecorded reports whether an action creates a pod of the new revision for a target that the rollout's state
// does not list as updated.
func (v *revisions) updatesUnrecorded(a plan.Action) bool {
	return v.current != nil && a.Revision == v.update.PlanName() && a.Revision != v.current.PlanName() &&
		!v.rollout.Selected(a.Target)
}

// deleteAll deletes pods until the slice is over. It returns when to continue; zero when it is done.
func (r *Reconciler) deleteAll(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, t *attempts,
	actions []plan.Action, over func() bool,
) (requeueAt time.Time) {
	r.LastWords.keep(client.ObjectKeyFromObject(obj), f.Pods)
	if len(actions) == 0 {
		return time.Time{}
	}
	pods := observed.PodsByName(f.Pods)
	now := make([]plan.Action, 0, len(actions))
	for _, a := range actions {
		if r.backsOff(obj, t, deletion(a)) {
			continue
		}
		if a.Kind == plan.Restart || a.Why == plan.WhyUnfinished {
			if until := r.lastWords(ctx, obj, f, pods[a.Pod], a); !until.IsZero() {
				requeueAt = earlier(requeueAt, until)
				continue
			}
		}
		now = append(now, a)
	}
	errs, begun := inParallel(now, over, func(a plan.Action) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: a.Pod}}
		preconditions := client.Preconditions{UID: ptr.To(types.UID(a.UID))}
		if a.Unchanged {
			preconditions.ResourceVersion = &pods[a.Pod].ResourceVersion
		}
		options := []client.DeleteOption{preconditions}
		if a.Grace > 0 {
			options = append(options, client.GracePeriodSeconds(int64(a.Grace/time.Second)))
		}
		loggerFor(ctx, a).Info("deleting pod")
		err := r.Client.Delete(ctx, pod, options...)
		if apierrors.IsNotFound(err) {
			return nil
		}
		// On a conflict another pod has the name, or the pod has changed. The next plan decides whether it still has to go.
		if err != nil {
			return fmt.Errorf("deleting pod %s/%s of target %s: %w", obj.Namespace, a.Pod, a.Target, err)
		}
		if a.Why == plan.WhyFailed {
			r.FailedBackoff.Next(backoffKey(obj, a.Target), r.Clock.Now())
			r.FailedBackoff.GC() // of targets that are gone
		}
		return nil
	})
	for i, err := range errs[:begun] {
		r.finish(ctx, obj, t, deletion(now[i]), v1alpha1.ReasonWriteRejected, err)
	}
	if begun < len(now) {
		requeueAt = r.Clock.Now()
	}
	return requeueAt
}

// deletion and creation name what an action attempts.
func deletion(a plan.Action) string { return "deleting pod " + a.Pod }
func creation(a plan.Action) string { return "creating pod " + a.Pod }

// createAll creates pods until the slice is over, few at first: if the API server refuses one, it may refuse thousands,
// or that one alone. So it tries others, and stops only after some refusals in a row.
func (r *Reconciler) createAll(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, v *revisions, t *attempts,
	actions []plan.Action, over func() bool,
) (done outcome) {
	key := client.ObjectKeyFromObject(obj)
	if len(actions) == 0 {
		r.Cursors.Forget(key)
		return outcome{}
	}
	turn, retry := r.Cursors.order(key, actions)
	inTurn := make(map[string]bool, len(turn))
	for _, a := range turn {
		inTurn[a.Target] = true
	}
	var now []plan.Action
	for _, a := range actions {
		// What waits is reported also if it is not its turn.
		if !r.backsOff(obj, t, creation(a)) && inTurn[a.Target] {
			now = append(now, a)
		}
	}
	if len(now) == 0 || r.backsOff(obj, t, thePods) {
		if len(now) == 0 && len(turn) < len(actions) {
			r.Cursors.Forget(key)
			done.requeueAt = r.Clock.Now()
		}
		return done
	}
	exists := false
	if !r.attempt(ctx, obj, t, theObject, v1alpha1.ReasonWriteRejected, func() (err error) {
		exists, err = r.objectExists(ctx, obj)
		return err
	}) {
		return outcome{}
	}
	if !exists {
		logf.FromContext(ctx).Info("creating no pods for an object that only the cache has", "pods", len(actions))
		return outcome{requeueAt: r.retryAt(retryRejected)}
	}
	var begun, failures int
	var first error
	succeeded := false
	for began := 1; began > 0 && begun < len(now) && failures < maxCreateFailures; begun += began {
		var errs []error
		errs, began = rampUp(now[begun:], over, func(a plan.Action) error { return r.create(ctx, obj, f, v, a) })
		if slices.Contains(errs[:began], nil) {
			failures, succeeded = 0, true
		}
		for i, err := range errs[:began] {
			if held, ok := errors.AsType[*heldBack](err); ok {
				if retry == 0 || held.retry < retry {
					retry = held.retry
				}
				done = done.and(outcome{problem: held.problem})
				err = nil
			}
			if !r.finish(ctx, obj, t, creation(now[begun+i]), v1alpha1.ReasonPodRejected, err) {
				if failures++; first == nil {
					first = err
				}
			}
		}
	}
	switch {
	case failures >= maxCreateFailures:
		r.finish(ctx, obj, t, thePods, v1alpha1.ReasonPodRejected, first)
	case succeeded:
		r.refusals.succeeded(key, thePods)
	}
	cut := begun < len(now)
	switch {
	case cut && failures < maxCreateFailures: // the slice is over
		done.requeueAt = r.Clock.Now()
	case retry > 0:
		done.requeueAt = r.retryAt(retry)
	case len(turn) < len(actions):
		done.requeueAt = r.Clock.Now()
	}
	if cut && begun > 0 {
		r.Cursors.stop(key, now[begun-1].Target, retry)
	} else {
		r.Cursors.Forget(key)
	}
	return done
}

// objectExists reports whether the API server has the object and is not deleting it. The cache may be wrong about it
// while its watch is broken, and the garbage collector deletes pods without an owner as fast as they are created. It
// costs one request per plan that creates pods.
func (r *Reconciler) objectExists(ctx context.Context, obj *v1alpha1.HyperliquidParser) (bool, error) {
	owner := &metav1.PartialObjectMetadata{}
	owner.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("HyperliquidParser"))
	if err := r.APIReader.Get(ctx, client.ObjectKeyFromObject(obj), owner); err != nil {
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return false, fmt.Errorf("reading HyperliquidParser %s/%s before creating its pods: %w", obj.Namespace, obj.Name, err)
	}
	return owner.UID == obj.UID && owner.DeletionTimestamp == nil, nil
}

// heldBack is why a pod is not created now, if that is not a failure.
type heldBack struct {
	problem *problem // what somebody must change; nil if it is enough to wait
	retry   time.Duration
}

func (e *heldBack) Error() string { return "not created now" }

func (r *Reconciler) create(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, v *revisions, a plan.Action,
) error {
	i, ok := f.Index(a.Target)
	if !ok {
		return fmt.Errorf("creating pod %s/%s: %s is no target", obj.Namespace, a.Pod, a.Target)
	}
	revision := v.find(a.Revision)
	if revision == nil {
		return fmt.Errorf("creating pod %s/%s: its revision %s is not stored: %w", obj.Namespace, a.Pod, a.Revision, errStale)
	}
	pod := revision.Pod(client.ObjectKeyFromObject(obj), f.Targets[i], obj.Annotations[v1alpha1.AnnotationRestartedAt])
	if err := controllerutil.SetControllerReference(obj, pod, r.Client.Scheme()); err != nil {
		return fmt.Errorf("setting the owner of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	err := r.Client.Create(ctx, pod)
	switch {
	case err == nil:
		loggerFor(ctx, a).Info("created pod", "revision", revision.Hash)
		return nil
	case apierrors.IsAlreadyExists(err):
		return r.podTaken(ctx, obj, pod, a)
	case terminating(err):
		return nil // the object is deleted with its namespace
	case stalls(err):
		return fmt.Errorf("the API server refuses the pod of %s: %w", a.Target, err)
	}
	return fmt.Errorf("creating pod %s/%s of target %s: %w", pod.Namespace, pod.Name, a.Target, err)
}

// podTaken handles the pod that has the name of one to be created. If the object controls it, or it was left behind and
// was made for this target, podTaken adopts it, restoring the labels by which the cache shows it. If it is being
// deleted, the creation waits. Any other pod is reported.
func (r *Reconciler) podTaken(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, wanted *corev1.Pod, a plan.Action,
) error {
	existing := &corev1.Pod{}
	if err := r.APIReader.Get(ctx, client.ObjectKeyFromObject(wanted), existing); err != nil {
		if apierrors.IsNotFound(err) {
			return &heldBack{nil, retryTaken}
		}
		return fmt.Errorf("reading pod %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	if existing.DeletionTimestamp != nil {
		return &heldBack{nil, retryTaken}
	}
	owned := metav1.IsControlledBy(existing, obj)
	if !owned && existing.Annotations[v1alpha1.AnnotationTarget] == a.Target {
		// A pod that has lost its label together with its owner was still made for this target.
		owned = metav1.GetControllerOf(existing) == nil
		if !owned {
			var err error
			if owned, err = r.leftBehind(ctx, obj, existing); err != nil {
				return err
			}
		}
	}
	if !owned || existing.Annotations[v1alpha1.AnnotationTarget] != a.Target {
		return &heldBack{nameTaken("pod", existing.Name, "parser of "+a.Target), retryRejected}
	}
	if err := r.adoptPod(ctx, obj, existing); err != nil {
		return err
	}
	loggerFor(ctx, a).Info("adopted pod")
	return nil
}

// inParallel calls do for each action in order, some at a time, and starts no more once over reports true. It returns
// the error of each action, nil for those not started, and how many were started.
func inParallel(actions []plan.Action, over func() bool, do func(plan.Action) error) (errs []error, begun int) {
	errs = make([]error, len(actions))
	var group errgroup.Group
	group.SetLimit(parallelWrites)
	for i, a := range actions {
		if over() {
			break
		}
		begun++
		group.Go(func() error {
			errs[i] = do(a)
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs
	return errs, begun
}

// rampUp calls do for each action in order, some at a time: for one at first, and for rampUpBy more with each that
// succeeds. It starts no more after a failure other than heldBack, and once over reports true. It returns the error of
// each action, nil for those not started, and how many were started.
//
// Batches would each wait for the slowest action of the one before. rampUp keeps a slow API server busy.
func rampUp(actions []plan.Action, over func() bool, do func(plan.Action) error) (errs []error, begun int) {
	errs = make([]error, len(actions))
	done := make(chan int)
	running, allowed := 0, 1
	for {
		for begun < min(allowed, len(actions)) && running < parallelWrites {
			if over() {
				allowed = 0
				break
			}
			go func(i int) {
				errs[i] = do(actions[i])
				done <- i
			}(begun)
			begun++
			running++
		}
		if running == 0 {
			return errs, begun
		}
		err := errs[<-done]
		running--
		var held *heldBack
		isHeld := errors.As(err, &held)
		switch {
		case err != nil && !isHeld:
			allowed = 0
		case allowed > 0:
			allowed += rampUpBy
		}
	}
}
