package controller

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// An object adopts what an earlier object of its name left behind: pods, revisions, configs, the record of restarts,
// the operator's keys, the network policy. A thing is left behind if it has no owner (its owner was deleted without it,
// or a backup tool restored it without its owner), or if its owner is gone (the object was created again under its
// name, and the garbage collector has not run yet). leftBehind decides, in trust.go.
//
// What the cache shows is adopted when it is observed. What has lost the operator's label is found when its name is in
// the way.

// adoptAbandoned adopts a thing that the cache shows, if it was left behind, and reports whether the object owns it
// now.
func (r *Reconciler) adoptAbandoned(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, t *attempts, thing client.Object, kind string,
) bool {
	if !abandoned(obj, thing) || thing.GetDeletionTimestamp() != nil {
		return false
	}
	what := "adopting " + kind + " " + thing.GetName()
	return r.attempt(ctx, obj, t, what, v1alpha1.ReasonWriteRejected, func() error {
		if err := r.confirm(ctx, obj, t); err != nil {
			return err
		}
		if err := r.adopt(ctx, obj, thing); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		logf.FromContext(ctx).Info("adopted what an object left behind", "kind", kind, "name", thing.GetName())
		return nil
	})
}

// confirm fails if the API server does not have the object that the cache has: what it adopts would be deleted with it.
func (r *Reconciler) confirm(ctx context.Context, obj *v1alpha1.HyperliquidParser, t *attempts) error {
	if t.confirmed {
		return nil
	}
	exists, err := r.objectExists(ctx, obj)
	if err != nil {
		return err
	}
	if !exists {
		return fmt.Errorf("HyperliquidParser %s/%s is gone: %w", obj.Namespace, obj.Name, errStale)
	}
	t.confirmed = true
	return nil
}

func (r *Reconciler) adopt(ctx context.Context, obj *v1alpha1.HyperliquidParser, thing client.Object) error {
	switch thing := thing.(type) {
	case *corev1.Pod:
		return r.adoptPod(ctx, obj, thing)
	case *corev1.ConfigMap: // the record of restarts
		return r.adoptLedger(ctx, obj, thing)
	}
	if err := r.own(obj, thing); err != nil {
		return err
	}
	return r.Client.Update(ctx, thing)
}

// adoptPods adopts pods until the slice is over, and returns those that the object owns now. The rest is found when its
// names are in the way.
func (r *Reconciler) adoptPods(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, t *attempts, orphans []corev1.Pod,
) []corev1.Pod {
	over := r.slice(obj.Namespace)
	var out []corev1.Pod
	for i := range orphans {
		if over() {
			t.requeue(r.Clock.Now())
			break
		}
		if r.adoptAbandoned(ctx, obj, t, &orphans[i], "pod") {
			out = append(out, orphans[i])
		}
	}
	return out
}

// adoptConfig adopts a config that was left behind, for its revision, if it is what the revision holds. It reports
// whether the revision owns it now.
func (r *Reconciler) adoptConfig(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, revisions []*observed.Revision, t *attempts, m *corev1.ConfigMap,
) bool {
	i := slices.IndexFunc(revisions, func(r *observed.Revision) bool { return r.ConfigName() == m.Name })
	if i < 0 || m.DeletionTimestamp != nil || !revisions[i].Holds(m) {
		return false
	}
	of := revisions[i].Object
	owner := metav1.GetControllerOf(m)
	if owner != nil && (owner.Kind != revisionKind || owner.Name != of.Name) && !abandoned(obj, m) {
		return false
	}
	return r.attempt(ctx, obj, t, "adopting ConfigMap "+m.Name, v1alpha1.ReasonWriteRejected, func() error {
		if err := r.confirm(ctx, obj, t); err != nil {
			return err
		}
		wanted := revisions[i].ConfigMap(obj.Namespace, obj.Name)
		if err := controllerutil.SetControllerReference(
			of, wanted, r.Client.Scheme(), controllerutil.WithBlockOwnerDeletion(false),
		); err != nil {
			return fmt.Errorf("setting the owner of ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
		}
		m.OwnerReferences, m.Labels = wanted.OwnerReferences, merged(m.Labels, wanted.Labels)
		if err := r.Client.Update(ctx, m); err != nil {
			return fmt.Errorf("adopting ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
		}
		return nil
	})
}

// abandoned reports whether a thing with the operator's label has no owner, or is owned by an earlier object of this
// one's name: only one object has a name at a time.
func abandoned(obj *v1alpha1.HyperliquidParser, thing client.Object) bool {
	if thing.GetLabels()[v1alpha1.LabelParser] != obj.Name {
		return false
	}
	owner := metav1.GetControllerOf(thing)
	return owner == nil || isParser(owner) && owner.Name == obj.Name && owner.UID != obj.UID
}

// abandonedPod reports whether a pod on a node is abandoned. A pod that only has the labels of a parser, such as a copy
// for debugging, has another name.
func abandonedPod(obj *v1alpha1.HyperliquidParser, pod *corev1.Pod) bool {
	if !abandoned(obj, pod) || pod.Spec.NodeName == "" {
		return false
	}
	of := pod.Annotations[v1alpha1.AnnotationTarget]
	return of != "" && pod.Name == podspec.PodName(obj.Name, target.Target{Name: of, Node: pod.Spec.NodeName})
}

// own makes the object the only controller of a thing, and adds the operator's label.
func (r *Reconciler) own(obj *v1alpha1.HyperliquidParser, thing client.Object) error {
	// Not in place: a pod of the cache must not be changed.
	thing.SetOwnerReferences(
		slices.DeleteFunc(slices.Clone(thing.GetOwnerReferences()), func(o metav1.OwnerReference) bool {
			return ptr.Deref(o.Controller, false)
		}),
	)
	if err := controllerutil.SetControllerReference(obj, thing, r.Client.Scheme()); err != nil {
		return fmt.Errorf("setting the owner of %T %s/%s: %w", thing, thing.GetNamespace(), thing.GetName(), err)
	}
	thing.SetLabels(merged(thing.GetLabels(), map[string]string{v1alpha1.LabelParser: obj.Name}))
	return nil
}

// adoptPod makes the object a pod's controller. It changes nothing else of the pod, and fails with a conflict if the
// pod has changed.
func (r *Reconciler) adoptPod(ctx context.Context, obj *v1alpha1.HyperliquidParser, pod *corev1.Pod) error {
	before := pod.DeepCopy()
	if !metav1.IsControlledBy(pod, obj) {
		if err := r.own(obj, pod); err != nil {
			return err
		}
	}
	pod.Labels = merged(pod.Labels, map[string]string{v1alpha1.LabelParser: obj.Name})
	patched := pod.DeepCopy() // the response is the whole pod
	if err := r.Client.Patch(
		ctx, patched, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}),
	); err != nil {
		return fmt.Errorf("patching pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	pod.ResourceVersion = patched.ResourceVersion
	return nil
}

// ending returns the error of a thing that is in the way and is being deleted: a retry follows.
func ending(kind string, thing client.Object) error {
	return fmt.Errorf("%s %s/%s is being deleted: %w", kind, thing.GetNamespace(), thing.GetName(), errStale)
}
