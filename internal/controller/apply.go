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
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// parallelWrites bounds how many pods are created or deleted at once; the client's own rate limit bounds how many a second. A busy API
// server shares itself among the requests it has: with fewer at once than others have, a fleet takes longer than it need. It is as many as
// the DaemonSet controller creates at once (BurstReplicas in k8s.io/kubernetes/pkg/controller/daemon).
const parallelWrites = 250

// rampUpBy is how many more pods may be begun for each that was created: thousands within a few answers of the API server.
const rampUpBy = 4

// outcome is what carrying out a plan, or a part of it, brought to light.
type outcome struct {
	// problem is what a person must cure; nil when nothing.
	problem *problem
	// again is when to look again though nothing happens; zero: never.
	again time.Time
}

// Names of what is attempted, among all of an object's.
const (
	theLedger  = "the record of restarts"
	theRollout = "the state of the rollout"
	theKeys    = "the operator's keys"
	thePolicy  = "the network policy"
	thePods    = "pods"
	theObject  = "the object"
	theStatus  = "the status"
	theCurrent = "the mark of the current revision"
	thePruning = "what is needed no more"
)

// apply carries out the plan. It goes on after an action that fails, since targets do not depend on each other: what
// cannot be written holds back what needs it, and nothing else.
func (r *Reconciler) apply(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, next plan.Result) outcome {
	var create, remove []plan.Action
	for _, a := range next.Actions {
		if a.Kind == plan.Create {
			create = append(create, a)
		} else {
			remove = append(remove, a)
		}
	}
	lacks := func(revision string) bool { return s.lacking[revision] || s.untrusted[revision] }
	create = slices.DeleteFunc(create, func(a plan.Action) bool { return lacks(a.Revision) })
	// A pod that works stays while its successor would have no config, or another's.
	remove = slices.DeleteFunc(remove, func(a plan.Action) bool {
		return a.Why != plan.WhyUnselected && a.Why != plan.WhyFailed && slices.ContainsFunc(s.successors(a), lacks)
	})
	// What must outlive us is written before the act. Without the record no pod is restarted, and without the state
	// of the rollout that goes no further.
	taken, recorded := r.record(ctx, obj, s, next)
	if !recorded {
		remove = slices.DeleteFunc(remove, func(a plan.Action) bool { return a.Kind == plan.Restart })
	}
	if next.Rollout != nil && s.update != nil && s.problem == nil && !r.attempt(ctx, obj, s, theRollout,
		v1alpha1.ReasonWriteRejected, func() error { return r.writeRollout(ctx, s, *next.Rollout) }) {
		create = slices.DeleteFunc(create, s.takes)
		remove = slices.DeleteFunc(remove, func(a plan.Action) bool {
			return a.Why == plan.WhyOutdated || a.Why == plan.WhySentBack
		})
	}
	if next.Complete {
		r.attempt(ctx, obj, s, theCurrent, v1alpha1.ReasonWriteRejected, func() error { return r.writeCurrent(ctx, s) })
	}
	over := r.slice(obj.Namespace)
	again := r.deleteAll(ctx, obj, s, remove, over)
	access := r.ensureAccess(ctx, obj, s) // before the pods: they find the keys when they start
	created := r.createAll(ctx, obj, s, create, over)
	r.attempt(ctx, obj, s, thePruning, v1alpha1.ReasonWriteRejected, func() error {
		return errors.Join(r.pruneConfigs(ctx, s, over), r.pruneRevisions(ctx, obj, s))
	})
	return taken.and(outcome{again: again}).and(created).and(access)
}

// successors are the revisions that the pod may have which comes after a deleted one.
func (s *seen) successors(a plan.Action) []string {
	switch {
	case a.Why == plan.WhySentBack:
		return []string{s.current.name()}
	case a.Kind != plan.Restart && a.Why != plan.WhyUnfinished:
		return []string{s.update.name(), s.current.name()}
	}
	i, ok := s.index(a.Target)
	if !ok || s.pairs[i].pod == nil {
		return nil
	}
	return []string{s.pairs[i].pod.Labels[v1alpha1.LabelRevision]}
}

// takes reports whether an action makes a pod of the new revision for a target that is not written down as one that
// has it.
func (s *seen) takes(a plan.Action) bool {
	return s.current != nil && a.Revision == s.update.name() && a.Revision != s.current.name() && !s.rollout.Took(a.Target)
}

// deleteAll deletes pods until the slice is over. again is when to go on; zero when it is done.
func (r *Reconciler) deleteAll(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, actions []plan.Action, over func() bool,
) (again time.Time) {
	r.LastWords.keep(client.ObjectKeyFromObject(obj), s.pods)
	if len(actions) == 0 {
		return time.Time{}
	}
	pods := byName(s.pods)
	now := make([]plan.Action, 0, len(actions))
	for _, a := range actions {
		if r.waits(obj, s, deletion(a)) {
			continue
		}
		if a.Kind == plan.Restart || a.Why == plan.WhyUnfinished {
			if until := r.lastWords(ctx, obj, s, pods[a.Pod], a); !until.IsZero() {
				again = earlier(again, until)
				continue
			}
		}
		now = append(now, a)
	}
	errs, begun := inParallel(now, over, func(a plan.Action) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: a.Pod}}
		meant := client.Preconditions{UID: ptr.To(types.UID(a.UID))}
		if a.Unchanged {
			meant.ResourceVersion = &pods[a.Pod].ResourceVersion
		}
		options := []client.DeleteOption{meant}
		if a.Grace > 0 {
			options = append(options, client.GracePeriodSeconds(int64(a.Grace/time.Second)))
		}
		loggerFor(ctx, a).Info("deleting pod")
		err := r.Client.Delete(ctx, pod, options...)
		if apierrors.IsNotFound(err) {
			return nil
		}
		// A conflict: another pod has the name by now, or it has changed. The next plan knows whether it is still to go.
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
		r.came(ctx, obj, s, deletion(now[i]), v1alpha1.ReasonWriteRejected, err)
	}
	if begun < len(now) {
		again = r.Clock.Now()
	}
	return again
}

// deletion and creation name what an action attempts.
func deletion(a plan.Action) string { return "deleting pod " + a.Pod }
func creation(a plan.Action) string { return "creating pod " + a.Pod }

// createAll makes pods, until the slice is over, few at first: where the API server refuses one, it would refuse
// thousands. It may refuse that one alone: so others are tried, and only when some were refused in a row, they wait,
// too.
func (r *Reconciler) createAll(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, actions []plan.Action, over func() bool,
) (done outcome) {
	key := client.ObjectKeyFromObject(obj)
	if len(actions) == 0 {
		r.Cursors.Forget(key)
		return outcome{}
	}
	turn, retry := r.Cursors.order(key, actions)
	mine := make(map[string]bool, len(turn))
	for _, a := range turn {
		mine[a.Target] = true
	}
	var now []plan.Action
	for _, a := range actions {
		// Those whose turn is not now are said, too.
		if !r.waits(obj, s, creation(a)) && mine[a.Target] {
			now = append(now, a)
		}
	}
	if len(now) == 0 || r.waits(obj, s, thePods) {
		if len(now) == 0 && len(turn) < len(actions) {
			r.Cursors.Forget(key)
			done.again = r.Clock.Now()
		}
		return done
	}
	there := false
	if !r.attempt(ctx, obj, s, theObject, v1alpha1.ReasonWriteRejected, func() (err error) {
		there, err = r.stillThere(ctx, obj)
		return err
	}) {
		return outcome{}
	}
	if !there {
		logf.FromContext(ctx).Info("making no pods for an object that the API server does not have, though the cache does",
			"pods", len(actions))
		return outcome{again: r.retryAfter(retryRejected)}
	}
	var begun, failures int
	var first error
	well := false
	for began := 1; began > 0 && begun < len(now) && failures < mostFailures; begun += began {
		var errs []error
		errs, began = rampUp(now[begun:], over, func(a plan.Action) error { return r.create(ctx, obj, s, a) })
		if slices.Contains(errs[:began], nil) {
			failures, well = 0, true
		}
		for i, err := range errs[:began] {
			if held, ok := errors.AsType[*heldBack](err); ok {
				if retry == 0 || held.retry < retry {
					retry = held.retry
				}
				done = done.and(outcome{problem: held.problem})
				err = nil
			}
			if !r.came(ctx, obj, s, creation(now[begun+i]), v1alpha1.ReasonPodRejected, err) {
				if failures++; first == nil {
					first = err
				}
			}
		}
	}
	switch {
	case failures >= mostFailures:
		r.came(ctx, obj, s, thePods, v1alpha1.ReasonPodRejected, first)
	case well:
		r.refusals.done(key, thePods)
	}
	cut := begun < len(now)
	switch {
	case cut && failures < mostFailures: // the slice is over
		done.again = r.Clock.Now()
	case retry > 0:
		done.again = r.retryAfter(retry)
	case len(turn) < len(actions):
		done.again = r.Clock.Now()
	}
	if cut && begun > 0 {
		r.Cursors.stop(key, now[begun-1].Target, retry)
	} else {
		r.Cursors.Forget(key)
	}
	return done
}

// stillThere reports whether the API server has the object, and does not delete it. The cache may not know while its watch is broken, and
// pods of an owner that is gone are collected as garbage as fast as they are made. It is asked once for each plan that makes pods.
func (r *Reconciler) stillThere(ctx context.Context, obj *v1alpha1.HyperliquidParser) (bool, error) {
	owner := &metav1.PartialObjectMetadata{}
	owner.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("HyperliquidParser"))
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(obj), owner); err != nil {
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return false, fmt.Errorf("reading HyperliquidParser %s/%s before pods are made for it: %w", obj.Namespace, obj.Name, err)
	}
	return owner.UID == obj.UID && owner.DeletionTimestamp == nil, nil
}

// heldBack is why a pod is not created now, when that is no failure to be retried at once.
type heldBack struct {
	problem *problem // what a person must cure; nil when waiting is enough
	retry   time.Duration
}

func (e *heldBack) Error() string { return "not created now" }

func (r *Reconciler) create(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, a plan.Action) error {
	i, ok := s.index(a.Target)
	if !ok {
		return fmt.Errorf("creating pod %s/%s: %s is no target", obj.Namespace, a.Pod, a.Target)
	}
	revision := s.revision(a.Revision)
	if revision == nil {
		return fmt.Errorf("creating pod %s/%s: its revision %s is not stored: %w", obj.Namespace, a.Pod, a.Revision, errStale)
	}
	pod := revision.Pod(client.ObjectKeyFromObject(obj), s.targets[i], obj.Annotations[v1alpha1.AnnotationRestartedAt])
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
		return nil // the object goes with its namespace
	case stalls(err):
		return fmt.Errorf("the API server refuses the pod of %s: %w", a.Target, err)
	}
	return fmt.Errorf("creating pod %s/%s of target %s: %w", pod.Namespace, pod.Name, a.Target, err)
}

// podTaken deals with the pod that has the name of one to be created. If it is ours it is waited for, given back its
// labels when those are why the cache did not hold it. If it was left behind and was made for this target, it is
// adopted. Otherwise it is reported.
func (r *Reconciler) podTaken(ctx context.Context, obj *v1alpha1.HyperliquidParser, wanted *corev1.Pod, a plan.Action) error {
	there := &corev1.Pod{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(wanted), there); err != nil {
		if apierrors.IsNotFound(err) {
			return &heldBack{nil, retryTaken}
		}
		return fmt.Errorf("reading pod %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	if there.DeletionTimestamp != nil {
		return &heldBack{nil, retryTaken}
	}
	ours := metav1.IsControlledBy(there, obj)
	if !ours && there.Annotations[v1alpha1.AnnotationTarget] == a.Target {
		// One that has lost its label with its owner was still made for this target.
		ours = metav1.GetControllerOf(there) == nil
		if !ours {
			var err error
			if ours, err = r.leftBehind(ctx, obj, there); err != nil {
				return err
			}
		}
	}
	if !ours || there.Annotations[v1alpha1.AnnotationTarget] != a.Target {
		text := fmt.Sprintf("pod %s has the name of the parser of %s and is not ours: delete or rename it", there.Name, a.Target)
		return &heldBack{&problem{v1alpha1.ReasonNameTaken, text}, retryRejected}
	}
	if err := r.adoptPod(ctx, obj, there); err != nil {
		return err
	}
	loggerFor(ctx, a).Info("adopted pod")
	return nil
}

// inParallel calls do for each action in their order, some at a time, and begins no other once over says so. It returns what each came to,
// nil for those not begun, and how many were begun.
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
	_ = group.Wait() // what went wrong is in errs
	return errs, begun
}

// rampUp calls do for each action in their order: for one at first, and for rampUpBy more with each that went well,
// some at a time. After one that failed, other than by being held back, and once over says so, no other is begun. It
// returns what each came to, in their order, nil for those not begun, and how many were begun.
//
// Unlike batches, of which each waits for the slowest of the one before, this keeps a slow API server busy.
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
