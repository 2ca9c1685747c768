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

// What the operator has written down it reads back from objects that others may write too. This file says what of it is
// believed.

// parserKind is the kind of our objects.
const parserKind = "HyperliquidParser"

// leftBehind reports whether something that has one of our names was made for this object, or for one before it of that
// name, and belongs to nobody now: its owner was deleted without it, or a backup tool restored it without its owner, or
// with one that is no more.
func (r *Reconciler) leftBehind(ctx context.Context, obj *v1alpha1.HyperliquidParser, there client.Object) (bool,
	error) {
	owner := metav1.GetControllerOf(there)
	if owner == nil {
		return there.GetLabels()[v1alpha1.LabelParser] == obj.Name, nil
	}
	switch {
	case !isParser(owner), owner.UID == obj.UID:
		return false, nil
	case owner.Name == obj.Name:
		return true, nil // a name is one object's at a time, and this one has it
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

// isParser reports whether an owner is an object of ours. One whose API version cannot be read is somebody else.
func isParser(owner *metav1.OwnerReference) bool {
	group, err := schema.ParseGroupVersion(owner.APIVersion)
	return err == nil && group.Group == v1alpha1.GroupVersion.Group && owner.Kind == parserKind
}

// verify holds back all that needs a new pod while a revision that pods have, or may get, or its config, is not what
// was stored: nobody knows what such a pod would do. The pods that there are go on, for that they would is no reason to
// end them. A spec that is refused does not come before that: pods that are gone come back meanwhile.
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

// replaced is the problem of a stored revision, or of its config, that is not what was stored; nil of others.
func replaced(
	obj *v1alpha1.HyperliquidParser, f *observed.Fleet, revision *observed.Revision,
) (*problem, error) {
	genuine, err := revision.Genuine(obj.Name, unwrapped(revision.Object.Data.Raw))
	if err != nil {
		return nil, err
	}
	if !genuine {
		return &problem{Reason: v1alpha1.ReasonTampered, Message: fmt.Sprintf("ControllerRevision %s does not hold what its name stands for: "+
			"somebody has replaced it. No pod is made from it, and %s; find out who did, and delete it: the operator stores it "+
			"again from the spec", revision.Object.Name, goOn(f, revision))}, nil
	}
	i := slices.IndexFunc(f.Configs, func(m corev1.ConfigMap) bool { return m.Name == revision.ConfigName() })
	if i >= 0 && !revision.Holds(&f.Configs[i]) {
		return tampered(f, revision), nil
	}
	return nil, nil
}

// tampered is the problem of a revision's config that somebody has replaced.
func tampered(f *observed.Fleet, revision *observed.Revision) *problem {
	return &problem{Reason: v1alpha1.ReasonTampered, Message: fmt.Sprintf(
		"ConfigMap %s does not hold the config of revision %s: somebody has replaced it. No pod is made that would read it, and %s; "+
			"find out who did, and delete it: the operator makes it again", revision.ConfigName(), revision.Object.Name, goOn(f, revision))}
}

// goOn says what the pods of a revision do.
func goOn(f *observed.Fleet, revision *observed.Revision) string {
	n := 0
	for i := range f.Pods {
		if f.Pods[i].Labels[v1alpha1.LabelRevision] == revision.Hash {
			n++
		}
	}
	if n == 0 {
		return "no pod has it"
	}
	return status.Plural(n, "pod") + " that have it go on with what they read when they started"
}
