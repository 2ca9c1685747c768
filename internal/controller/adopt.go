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
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// What an object left behind is taken up by the one of its name that comes after it, whatever it is: pods, revisions,
// configs, the record of restarts, the operator's keys, the network policy. Left behind is what belongs to nobody
// (its owner was deleted without it, or a backup tool restored it without its owner), or to one that is no more (the
// object was made again under its name, and the garbage collector has not come yet). leftBehind decides, in trust.go.
//
// What the cache shows is taken up on sight; what has lost our label, too, is found when its name is in the way.

// takeUp makes a thing of the cache the object's, if it was left behind, and reports whether it is now.
func (r *Reconciler) takeUp(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, there client.Object, kind string,
) bool {
	if !abandoned(obj, there) || there.GetDeletionTimestamp() != nil {
		return false
	}
	what := "adopting " + kind + " " + there.GetName()
	return r.attempt(ctx, obj, s, what, v1alpha1.ReasonWriteRejected, func() error {
		if err := r.confirm(ctx, obj, s); err != nil {
			return err
		}
		if err := r.adopt(ctx, obj, there); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		logf.FromContext(ctx).Info("took up what an object left behind", "kind", kind, "name", there.GetName())
		return nil
	})
}

// confirm fails where the API server does not have the object that the cache has: what it takes up would go with it.
func (r *Reconciler) confirm(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) error {
	if s.confirmed {
		return nil
	}
	is, err := r.stillThere(ctx, obj)
	if err != nil {
		return err
	}
	if !is {
		return fmt.Errorf("HyperliquidParser %s/%s is no more: %w", obj.Namespace, obj.Name, errStale)
	}
	s.confirmed = true
	return nil
}

func (r *Reconciler) adopt(ctx context.Context, obj *v1alpha1.HyperliquidParser, there client.Object) error {
	switch there := there.(type) {
	case *corev1.Pod:
		return r.adoptPod(ctx, obj, there)
	case *corev1.ConfigMap: // of the record of restarts
		return r.adoptLedger(ctx, obj, there)
	}
	if err := r.own(obj, there); err != nil {
		return err
	}
	return r.Client.Update(ctx, there)
}

// takeUpPods takes up pods until the slice is over, and returns those that are the object's now. The rest is found
// when its names are in the way.
func (r *Reconciler) takeUpPods(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, left []corev1.Pod,
) []corev1.Pod {
	over := r.slice(obj.Namespace)
	var out []corev1.Pod
	for i := range left {
		if over() {
			s.again = r.Clock.Now()
			break
		}
		if r.takeUp(ctx, obj, s, &left[i], "pod") {
			out = append(out, left[i])
		}
	}
	return out
}

// takeUpConfig makes a config its revision's, if it was left behind and is what the revision holds, and reports
// whether it is now.
func (r *Reconciler) takeUpConfig(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, m *corev1.ConfigMap,
) bool {
	i := slices.IndexFunc(s.revisions, func(r *stored) bool { return r.ConfigName() == m.Name })
	if i < 0 || m.DeletionTimestamp != nil || !s.revisions[i].Holds(m) {
		return false
	}
	of := s.revisions[i].object
	owner := metav1.GetControllerOf(m)
	if owner != nil && (owner.Kind != revisionKind || owner.Name != of.Name) && !abandoned(obj, m) {
		return false
	}
	return r.attempt(ctx, obj, s, "adopting ConfigMap "+m.Name, v1alpha1.ReasonWriteRejected, func() error {
		if err := r.confirm(ctx, obj, s); err != nil {
			return err
		}
		wanted := s.revisions[i].ConfigMap(obj.Namespace, obj.Name)
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

// abandoned reports whether a thing with our label belongs to nobody, or to an object of this one's name that is no
// more: a name is one object's at a time, and this one has it.
func abandoned(obj *v1alpha1.HyperliquidParser, there client.Object) bool {
	if there.GetLabels()[v1alpha1.LabelParser] != obj.Name {
		return false
	}
	owner := metav1.GetControllerOf(there)
	return owner == nil || isParser(owner) && owner.Name == obj.Name && owner.UID != obj.UID
}

// abandonedPod is abandoned of a pod on a node. What only looks like one of ours, such as a copy for debugging with
// its labels kept, has another name.
func abandonedPod(obj *v1alpha1.HyperliquidParser, pod *corev1.Pod) bool {
	if !abandoned(obj, pod) || pod.Spec.NodeName == "" {
		return false
	}
	of := pod.Annotations[v1alpha1.AnnotationTarget]
	return of != "" && pod.Name == podspec.PodName(obj.Name, target.Target{Name: of, Node: pod.Spec.NodeName})
}

// own makes a thing the object's, and nobody else's, and gives it our label.
func (r *Reconciler) own(obj *v1alpha1.HyperliquidParser, there client.Object) error {
	// Not in place: a pod of the cache is not ours to change.
	there.SetOwnerReferences(
		slices.DeleteFunc(slices.Clone(there.GetOwnerReferences()), func(o metav1.OwnerReference) bool {
			return ptr.Deref(o.Controller, false)
		}),
	)
	if err := controllerutil.SetControllerReference(obj, there, r.Client.Scheme()); err != nil {
		return fmt.Errorf("setting the owner of %T %s/%s: %w", there, there.GetNamespace(), there.GetName(), err)
	}
	there.SetLabels(merged(there.GetLabels(), map[string]string{v1alpha1.LabelParser: obj.Name}))
	return nil
}

// adoptPod makes a pod the object's. It changes nothing else of it, and fails with a conflict where somebody else
// did.
func (r *Reconciler) adoptPod(ctx context.Context, obj *v1alpha1.HyperliquidParser, pod *corev1.Pod) error {
	before := pod.DeepCopy()
	if !metav1.IsControlledBy(pod, obj) {
		if err := r.own(obj, pod); err != nil {
			return err
		}
	}
	pod.Labels = merged(pod.Labels, map[string]string{v1alpha1.LabelParser: obj.Name})
	patched := pod.DeepCopy() // the answer is the whole pod
	if err := r.Client.Patch(
		ctx, patched, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}),
	); err != nil {
		return fmt.Errorf("patching pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	pod.ResourceVersion = patched.ResourceVersion
	return nil
}

// ending is the error of a thing in the way that is being deleted: it is waited for.
func ending(kind string, there client.Object) error {
	return fmt.Errorf("%s %s/%s is being deleted: %w", kind, there.GetNamespace(), there.GetName(), errStale)
}
