package controller

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// State that a rollout depends on is stored with the revisions: which one the whole fleet had last, whether a promotion
// is meant for this rollout, and what one rollout leaves to the next. The status only shows it, and may be lost.

// marked is the value of annotations whose presence is their meaning.
const marked = "true"

func flag(is bool) string {
	if is {
		return marked
	}
	return ""
}

// lastComplete returns the revision that the whole fleet had last; nil before there was one. Two are marked if an
// operator stopped before it removed the mark of the older one.
func (v *revisions) lastComplete(obj *v1alpha1.HyperliquidParser, pods []corev1.Pod) *observed.Revision {
	for _, revision := range v.stored { // newest first
		if revision.Object.Annotations[v1alpha1.AnnotationCurrent] != "" {
			return revision
		}
	}
	// Earlier operators marked none.
	if revision := v.find(obj.Status.CurrentRevision); revision != nil || obj.Status.ObservedGeneration > 0 {
		return revision
	}
	return v.commonest(pods)
}

// writeCurrent marks a revision as that of the whole fleet.
func (r *Reconciler) writeCurrent(ctx context.Context, revision *observed.Revision) error {
	if revision == nil || revision.Object.Annotations[v1alpha1.AnnotationCurrent] != "" {
		return nil
	}
	next := revision.Object.DeepCopy()
	setAnnotation(next, v1alpha1.AnnotationCurrent, marked)
	if err := r.Client.Update(ctx, next); err != nil {
		return fmt.Errorf("marking ControllerRevision %s/%s as the fleet's: %w", next.Namespace, next.Name, err)
	}
	return nil
}

// promotes reports whether the object carries a promotion for the revision.
func promotes(obj *v1alpha1.HyperliquidParser, revision podspec.Revision) bool {
	promoted := obj.Annotations[v1alpha1.AnnotationPromote]
	return promoted != "" && (promoted == revision.Name(obj.Name) || promoted == revision.Hash)
}

// promoted reports whether the object promotes the revision in this rollout, whatever its canaries show.
func (v *revisions) promoted(obj *v1alpha1.HyperliquidParser) bool {
	return v.update != nil && promotes(obj, v.update.Revision) &&
		v.update.Object.Annotations[v1alpha1.AnnotationPromotionOver] == ""
}

// markPromotion records with a revision that its promotion belongs to an earlier rollout, because it exists while the
// spec asks for another revision.
func (v *revisions) markPromotion(
	obj *v1alpha1.HyperliquidParser, revision *observed.Revision, next *appsv1.ControllerRevision,
) {
	switch {
	case !promotes(obj, revision.Revision):
		delete(next.Annotations, v1alpha1.AnnotationPromotionOver)
	case revision != v.update:
		setAnnotation(next, v1alpha1.AnnotationPromotionOver, marked)
	}
}

// maxShape bounds the fields that are stored with a revision for people, in bytes. An object has 256 KiB of
// annotations, so a revision whose fields are longer is stored without them. Nothing is decided by them.
const maxShape = 64 << 10

// newAnnotations returns the annotations of a revision that is about to be stored. A promotion that exists already was
// meant for an earlier rollout, whose revision was pruned since: the new one is not visible yet.
func newAnnotations(obj *v1alpha1.HyperliquidParser, revision podspec.Revision, identity string) map[string]string {
	out := map[string]string{v1alpha1.AnnotationIdentity: identity}
	if shape, err := podspec.Shape(obj); err == nil && len(shape) <= maxShape {
		out[v1alpha1.AnnotationSpec] = string(shape)
	}
	if promotes(obj, revision) {
		out[v1alpha1.AnnotationPromotionOver] = marked
	}
	return out
}

// inheritedRollout returns the encoded state that the rollout before leaves to that of the spec's revision; "" for
// none.
func (v *revisions) inheritedRollout(log logr.Logger) (string, error) {
	for _, revision := range v.stored {
		if revision == v.update || revision.Object.Annotations[v1alpha1.AnnotationRollout] == "" {
			continue
		}
		text, err := readRollout(revision, log).CarriedOver().Encode()
		if err != nil {
			return "", fmt.Errorf("taking over from the rollout of %s: %w", revision.Object.Name, err)
		}
		return text, nil
	}
	return "", nil
}
