package controller

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/status"
)

// The operator stores state in objects that other clients may also write. This file decides which of that state to
// trust.

// parserKind is the kind of a HyperliquidParser.
const parserKind = "HyperliquidParser"

// leftBehind reports whether an object with one of our names was made for this HyperliquidParser, or for an earlier one
// of its name, and has no owner now: its owner was deleted without it, or a backup tool restored it without its owner
// or with an owner that no longer exists.
func (r *Reconciler) leftBehind(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, there client.Object,
) (bool, error) {
	owner := metav1.GetControllerOf(there)
	if owner == nil {
		return there.GetLabels()[v1alpha1.LabelParser] == obj.Name, nil
	}
	switch {
	case !isParser(owner), owner.UID == obj.UID:
		return false, nil
	case owner.Name == obj.Name:
		return true, nil // only one object has the name at a time, and this one has it
	case there.GetLabels()[v1alpha1.LabelParser] != obj.Name:
		return false, nil
	}
	other := &v1alpha1.HyperliquidParser{}
	err := r.APIReader.Get(ctx, client.ObjectKey{Namespace: obj.Namespace, Name: owner.Name}, other)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the owner of %s/%s: %w", there.GetNamespace(), there.GetName(), err)
	}
	return other.UID != owner.UID, nil
}

// isParser reports whether an owner is a HyperliquidParser. An owner with an invalid API version is not.
func isParser(owner *metav1.OwnerReference) bool {
	group, err := schema.ParseGroupVersion(owner.APIVersion)
	return err == nil && group.Group == v1alpha1.GroupVersion.Group && owner.Kind == parserKind
}

// verify blocks the creation of pods of a revision that is not what was stored, or whose config is not, because such a
// pod could do anything. It checks the revisions that pods have or may get. Existing pods keep running: a replaced
// revision is no reason to end them. A refused spec does not block this check, because lost pods are replaced
// meanwhile.
func (r *Reconciler) verify(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, v *revisions, t *attempts,
) {
	used := v.used(f.Pods)
	for _, revision := range v.stored {
		if !used[revision.Hash] {
			continue
		}
		var found *problem
		known := r.attempt(ctx, obj, t, "verifying "+revision.Object.Name, v1alpha1.ReasonWriteRejected, func() (err error) {
			found, err = replaced(obj, f, revision)
			return err
		})
		if known && found == nil {
			continue
		}
		v.untrusted[revision.Hash] = true
		if v.held = v.held || !known; v.problem == nil {
			v.problem = found
		}
	}
}

// replaced returns the problem of a revision that is not what was stored, or whose config is not, or else nil.
func replaced(
	obj *v1alpha1.HyperliquidParser, f *observed.Fleet, revision *observed.Revision,
) (*problem, error) {
	genuine, err := revision.Genuine(obj.Name, unwrapped(revision.Object.Data.Raw))
	if err != nil {
		return nil, err
	}
	if !genuine {
		return &problem{Reason: v1alpha1.ReasonTampered, Message: fmt.Sprintf("ControllerRevision %s was replaced: "+
			"its content does not match its name. No pod is created from it, and %s. Find out who replaced it, then delete "+
			"it: the operator stores it again from the spec", revision.Object.Name, affectedPods(f, revision))}, nil
	}
	i := slices.IndexFunc(f.Configs, func(m corev1.ConfigMap) bool { return m.Name == revision.ConfigName() })
	if i >= 0 && !revision.Holds(&f.Configs[i]) {
		return tampered(f, revision), nil
	}
	return nil, nil
}

// tampered returns the problem of a revision whose config was replaced.
func tampered(f *observed.Fleet, revision *observed.Revision) *problem {
	return &problem{Reason: v1alpha1.ReasonTampered, Message: fmt.Sprintf(
		"ConfigMap %s was replaced: it does not hold the config of revision %s. No pod that reads it is created, and %s. "+
			"Find out who replaced it, then delete it: the operator creates it again",
		revision.ConfigName(), revision.Object.Name, affectedPods(f, revision))}
}

// affectedPods describes what the pods of a replaced revision do.
func affectedPods(f *observed.Fleet, revision *observed.Revision) string {
	n := 0
	for i := range f.Pods {
		if f.Pods[i].Labels[v1alpha1.LabelRevision] == revision.Hash {
			n++
		}
	}
	if n == 0 {
		return "no pod has it"
	}
	return status.Plural(n, "pod") + " of it keep running with the config that they read at their start"
}
