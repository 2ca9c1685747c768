package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
)

// parallelWrites bounds how many pods are created or deleted at once; the client's own rate limit bounds how many a second. A busy API
// server shares itself among the requests it has: with fewer at once than others have, a fleet takes longer than it need. It is as many as
// the DaemonSet controller creates at once (BurstReplicas in k8s.io/kubernetes/pkg/controller/daemon).
const parallelWrites = 250

// rampUpBy is how many more pods may be begun for each that was created: thousands within a few answers of the API server.
const rampUpBy = 4

// outcome is what carrying out a plan brought to light.
type outcome struct {
	// problem is what a person must cure; nil when nothing.
	problem *problem
	// again is when to look again though nothing happens; zero: never.
	again time.Time
}

// apply carries out the plan. It goes on after an action that fails, since targets do not depend on each other, and returns what
// went wrong together.
func (r *Reconciler) apply(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, next plan.Result) (outcome, error) {
	var create, remove []plan.Action
	for _, a := range next.Actions {
		if a.Kind == plan.Create {
			create = append(create, a)
		} else {
			remove = append(remove, a)
		}
	}
	// What must outlive us is written before the act. Without the record no pod is restarted.
	if taken, err := r.record(ctx, obj, s, next); taken != nil || err != nil {
		return outcome{problem: taken, again: r.Clock.Now().Add(retryRejected)}, err
	}
	if next.Rollout != nil && s.update != nil && s.problem == nil {
		if err := r.writeRollout(ctx, s, *next.Rollout); err != nil {
			return outcome{}, err
		}
	}
	removeErr := r.deleteAll(ctx, obj, s, remove)
	done, createErr := r.createAll(ctx, obj, s, create)
	return done, errors.Join(removeErr, createErr, r.pruneConfigs(ctx, s), r.pruneRevisions(ctx, obj, s))
}

// record writes the restarts and trials of this plan into the ledger, and drops records that have served their time. Nothing may be restarted
// unless it returns neither a problem nor an error.
func (r *Reconciler) record(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, next plan.Result) (*problem, error) {
	l := s.ledger
	l.records = maps.Clone(l.records)
	if l.records == nil {
		l.records = plan.Ledger{}
	}
	// A ledger that somebody deleted takes the counts with it, but not the total.
	l.total = max(l.total, obj.Status.Restarts)
	changed := len(next.Forget) > 0 || next.Trials != nil
	if next.Trials != nil {
		l.trials = *next.Trials
	}
	for _, name := range next.Forget {
		delete(l.records, name)
	}
	for _, a := range next.Actions {
		if a.Kind == plan.Restart {
			l.records[a.Target] = a.Record
			l.total++
			changed = true
		}
	}
	if !changed {
		return nil, nil
	}
	if err := r.writeLedger(ctx, obj, l); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return r.ledgerTaken(ctx, obj)
		}
		return nil, err
	}
	s.ledger = l
	for _, a := range next.Actions {
		if a.Kind == plan.Restart {
			view := s.views[a.Target]
			loggerFor(ctx, a).Info("restarting", "verdict", view.Judgement.Verdict, "reason", view.Judgement.Reason,
				"message", view.Judgement.Message, "samples", view.Evidence)
			r.Events.restarting(obj, a, view.Judgement)
			r.Metrics.restarted(obj, view.Judgement)
		}
	}
	return nil, nil
}

// ledgerTaken tells why the ledger could not be created: the cache has not yet seen the one that another leader made, or ours has
// lost its labels and is not cached, or the name belongs to somebody else.
func (r *Reconciler) ledgerTaken(ctx context.Context, obj *v1alpha1.HyperliquidParser) (*problem, error) {
	m := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: obj.Namespace, Name: ledgerName(obj)}
	if err := r.Live.Get(ctx, key, m); err != nil {
		return nil, fmt.Errorf("looking at ConfigMap %s: %w", key, err)
	}
	if !metav1.IsControlledBy(m, obj) {
		return &problem{v1alpha1.ReasonNameTaken, fmt.Sprintf(
			"ConfigMap %s has the name of the record of restarts and is not ours: delete or rename it", m.Name)}, nil
	}
	if err := r.relabel(ctx, m, v1alpha1.ComponentRestarts, obj); err != nil {
		return nil, err
	}
	return nil, errStale
}

// relabel gives a ConfigMap of ours back the labels without which the cache does not hold it.
func (r *Reconciler) relabel(ctx context.Context, m *corev1.ConfigMap, component string, obj *v1alpha1.HyperliquidParser) error {
	if m.Labels[v1alpha1.LabelParser] == obj.Name && m.Labels[v1alpha1.LabelComponent] == component {
		return nil // the cache is about to see it
	}
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	m.Labels[v1alpha1.LabelParser], m.Labels[v1alpha1.LabelComponent] = obj.Name, component
	if err := r.Client.Update(ctx, m); err != nil {
		return fmt.Errorf("restoring the labels of ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}

func (r *Reconciler) deleteAll(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, actions []plan.Action) error {
	if len(actions) == 0 {
		return nil
	}
	pods := byName(s.pods)
	return errors.Join(inParallel(actions, func(a plan.Action) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: a.Pod}}
		meant := client.Preconditions{UID: ptr.To(types.UID(a.UID))}
		if a.Unchanged {
			meant.ResourceVersion = &pods[a.Pod].ResourceVersion
		}
		options := []client.DeleteOption{meant}
		if a.Grace > 0 {
			options = append(options, client.GracePeriodSeconds(int64(a.Grace/time.Second)))
		}
		if a.Kind == plan.Restart {
			r.logStacks(ctx, obj, pods[a.Pod], a)
		}
		loggerFor(ctx, a).Info("deleting pod")
		err := r.Client.Delete(ctx, pod, options...)
		// Gone, or another pod has the name by now: either way that pod is no more. Or it has changed: that wakes us.
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("deleting pod %s/%s of target %s: %w", obj.Namespace, a.Pod, a.Target, err)
		}
		if a.Why == plan.WhyFailed {
			r.FailedBackoff.Next(backoffKey(obj, a.Target), r.Clock.Now())
			r.FailedBackoff.GC() // of targets that are gone
		}
		return nil
	})...)
}

// logStacks logs where a parser stands that is about to be restarted: afterwards nobody can tell any more.
func (r *Reconciler) logStacks(ctx context.Context, obj *v1alpha1.HyperliquidParser, pod *corev1.Pod, a plan.Action) {
	if pod == nil || pod.Status.PodIP == "" {
		return
	}
	text, err := r.Parsers.Stacks(ctx, obj.Namespace, poller.Endpoint{Target: a.Target, PodName: pod.Name, IP: pod.Status.PodIP})
	if err != nil {
		loggerFor(ctx, a).Info("its stacks cannot be had", "error", err.Error())
		return
	}
	loggerFor(ctx, a).Info("stacks before the restart", "stacks", text)
}

// createAll makes the configs and then the pods, few at first: where the API server refuses one, it would refuse thousands.
func (r *Reconciler) createAll(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, actions []plan.Action) (outcome, error) {
	// The pods that exist need their config too, when their containers restart.
	used := s.used()
	for _, revision := range s.revisions {
		if !used[revision.Hash] {
			continue
		}
		if done, err := r.ensureConfig(ctx, obj, s, revision); done.problem != nil || err != nil {
			return done, err
		}
	}
	errs := rampUp(actions, func(a plan.Action) error { return r.create(ctx, obj, s, a) })
	var done outcome
	var failed []error
	for _, err := range errs {
		var held *heldBack
		switch {
		case errors.As(err, &held):
			done.again = r.Clock.Now().Add(held.retry)
			if done.problem == nil {
				done.problem = held.problem
			}
		case err != nil:
			failed = append(failed, err)
		}
	}
	return done, errors.Join(failed...)
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
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the object goes with its namespace
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		return &heldBack{&problem{v1alpha1.ReasonPodRejected, fmt.Sprintf("the API server refuses the pod of %s: %v", a.Target, err)}, retryRejected}
	}
	return fmt.Errorf("creating pod %s/%s of target %s: %w", pod.Namespace, pod.Name, a.Target, err)
}

// podTaken looks at the pod that has the name of one to be created. If it is ours it is waited for, given back its labels when
// those are why the cache did not hold it. If it is nobody's and was made for this target, it is adopted. Otherwise it is reported.
func (r *Reconciler) podTaken(ctx context.Context, obj *v1alpha1.HyperliquidParser, wanted *corev1.Pod, a plan.Action) error {
	there := &corev1.Pod{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(wanted), there); err != nil {
		if apierrors.IsNotFound(err) {
			return &heldBack{nil, retryTaken}
		}
		return fmt.Errorf("looking at pod %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	owner := metav1.GetControllerOf(there)
	switch {
	case there.DeletionTimestamp != nil:
		return &heldBack{nil, retryTaken}
	case owner != nil && owner.UID != obj.UID, there.Annotations[v1alpha1.AnnotationTarget] != a.Target:
		return &heldBack{&problem{v1alpha1.ReasonNameTaken, fmt.Sprintf(
			"pod %s has the name of the parser of %s and is not ours: delete or rename it", there.Name, a.Target)}, retryRejected}
	}
	before := there.DeepCopy()
	if there.Labels == nil {
		there.Labels = map[string]string{}
	}
	there.Labels[v1alpha1.LabelParser] = obj.Name
	if owner == nil {
		if err := controllerutil.SetControllerReference(obj, there, r.Client.Scheme()); err != nil {
			return fmt.Errorf("setting the owner of pod %s/%s: %w", there.Namespace, there.Name, err)
		}
	}
	if err := r.Client.Patch(ctx, there, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("adopting pod %s/%s: %w", there.Namespace, there.Name, err)
	}
	loggerFor(ctx, a).Info("adopted pod")
	return nil
}

// ensureConfig makes a revision's ConfigMap where it is missing.
func (r *Reconciler) ensureConfig(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, revision *stored) (outcome, error) {
	m := revision.ConfigMap(obj.Namespace, obj.Name)
	if slices.ContainsFunc(s.configs, func(c corev1.ConfigMap) bool { return c.Name == m.Name }) {
		return outcome{}, nil
	}
	// It goes with its revision, and does not hold that up.
	if err := controllerutil.SetControllerReference(revision.object, m, r.Client.Scheme(), controllerutil.WithBlockOwnerDeletion(false)); err != nil {
		return outcome{}, fmt.Errorf("setting the owner of ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	err := r.Client.Create(ctx, m)
	if err == nil || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return outcome{}, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return outcome{}, fmt.Errorf("creating ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	there := &corev1.ConfigMap{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(m), there); err != nil {
		return outcome{}, fmt.Errorf("looking at ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	owner := metav1.GetControllerOf(there)
	switch {
	case !maps.Equal(there.Data, m.Data):
	case s.owns(obj, there):
		return outcome{}, r.relabel(ctx, there, v1alpha1.ComponentConfig, obj)
	case owner == nil, owner.Kind == revisionKind && owner.Name == revision.object.Name:
		// It was left behind, or its revision was deleted and stored again.
		there.Labels, there.OwnerReferences = m.Labels, m.OwnerReferences
		if err := r.Client.Update(ctx, there); err != nil {
			return outcome{}, fmt.Errorf("adopting ConfigMap %s/%s: %w", there.Namespace, there.Name, err)
		}
		return outcome{}, nil
	}
	return outcome{
		problem: &problem{v1alpha1.ReasonNameTaken, fmt.Sprintf(
			"ConfigMap %s has the name of the parsers' config and is not ours: delete or rename it", m.Name)},
		again: r.Clock.Now().Add(retryRejected),
	}, nil
}

// revisionKind is the kind of what owns a config.
const revisionKind = "ControllerRevision"

// pruneConfigs deletes configs that no pod refers to any more. Where one is needed again it is made from its revision.
func (r *Reconciler) pruneConfigs(ctx context.Context, s *seen) error {
	if s.problem != nil || !s.known {
		return nil
	}
	used := map[string]bool{}
	for _, revision := range s.revisions {
		if revision == s.update || revision == s.current {
			used[revision.ConfigName()] = true
		}
	}
	for i := range s.pods {
		used[podspec.ConfigOf(&s.pods[i])] = true
	}
	var errs []error
	for i := range s.configs {
		m := &s.configs[i]
		if used[m.Name] || m.DeletionTimestamp != nil {
			continue
		}
		logf.FromContext(ctx).Info("deleting a config that no pod refers to", "configMap", m.Name)
		if err := r.Client.Delete(ctx, m, client.Preconditions{UID: &m.UID}); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("deleting ConfigMap %s/%s: %w", m.Namespace, m.Name, err))
		}
	}
	return errors.Join(errs...)
}

// inParallel calls do for each action, some at a time, and returns what each came to.
func inParallel(actions []plan.Action, do func(plan.Action) error) []error {
	errs := make([]error, len(actions))
	var group errgroup.Group
	group.SetLimit(parallelWrites)
	for i, a := range actions {
		group.Go(func() error {
			errs[i] = do(a)
			return nil
		})
	}
	_ = group.Wait() // what went wrong is in errs
	return errs
}

// rampUp calls do for each action in their order: for one at first, and for rampUpBy more with each that went well, some at a time. After
// one that failed or was refused no other is begun. It returns what each came to, in their order; nil for those not begun.
//
// Unlike batches, of which each waits for the slowest of the one before, this keeps a slow API server busy.
func rampUp(actions []plan.Action, do func(plan.Action) error) []error {
	errs := make([]error, len(actions))
	done := make(chan int)
	begun, running, allowed := 0, 0, 1
	for {
		for begun < min(allowed, len(actions)) && running < parallelWrites {
			go func(i int) {
				errs[i] = do(actions[i])
				done <- i
			}(begun)
			begun++
			running++
		}
		if running == 0 {
			return errs
		}
		err := errs[<-done]
		running--
		var held *heldBack
		refused := errors.As(err, &held) && held.problem != nil && held.problem.reason == v1alpha1.ReasonPodRejected
		switch {
		case refused, err != nil && held == nil:
			allowed = 0
		case allowed > 0:
			allowed += rampUpBy
		}
	}
}
