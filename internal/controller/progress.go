package controller

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// What decides how a rollout goes on lives with the revisions: which one the whole fleet had last, whether a promotion
// is for this rollout, and what one rollout knows that the next has to. The status shows it to people, and may be
// wiped.

// marked is the value of an annotation that says something by being there.
const marked = "true"

func flag(is bool) string {
	if is {
		return marked
	}
	return ""
}

// lastComplete is the revision that the whole fleet had last; nil before there was one. Where two are marked an
// operator ended before it took the mark from the older.
func (s *seen) lastComplete(obj *v1alpha1.HyperliquidParser) *stored {
	for _, revision := range s.revisions { // newest first
		if revision.object.Annotations[v1alpha1.AnnotationCurrent] != "" {
			return revision
		}
	}
	// An operator before this one marked none.
	if revision := s.revision(obj.Status.CurrentRevision); revision != nil || obj.Status.ObservedGeneration != 0 {
		return revision
	}
	return s.commonest()
}

// writeCurrent marks the revision of the spec as that which the whole fleet has.
func (r *Reconciler) writeCurrent(ctx context.Context, s *seen) error {
	if s.update == nil || s.update.object.Annotations[v1alpha1.AnnotationCurrent] != "" {
		return nil
	}
	next := s.update.object.DeepCopy()
	setAnnotation(next, v1alpha1.AnnotationCurrent, marked)
	if err := r.Client.Update(ctx, next); err != nil {
		return fmt.Errorf("marking ControllerRevision %s/%s as the fleet's: %w", next.Namespace, next.Name, err)
	}
	s.update.object = next
	return nil
}

// promotes reports whether the object carries a promotion for the revision.
func promotes(obj *v1alpha1.HyperliquidParser, revision podspec.Revision) bool {
	asked := obj.Annotations[v1alpha1.AnnotationPromote]
	return asked != "" && (asked == revision.Name(obj.Name) || asked == revision.Hash)
}

// promoted reports whether somebody wants the revision to be rolled out whatever its canaries say, in this rollout.
func (s *seen) promoted(obj *v1alpha1.HyperliquidParser) bool {
	return s.update != nil && promotes(obj, s.update.Revision) &&
		s.update.object.Annotations[v1alpha1.AnnotationPromotionOver] == ""
}

// markPromotion notes of a revision that the promotion for it is of an earlier rollout: it is there while the spec asks
// for another.
func (s *seen) markPromotion(obj *v1alpha1.HyperliquidParser, revision *stored, next *appsv1.ControllerRevision) {
	switch {
	case !promotes(obj, revision.Revision):
		delete(next.Annotations, v1alpha1.AnnotationPromotionOver)
	case revision != s.update:
		setAnnotation(next, v1alpha1.AnnotationPromotionOver, marked)
	}
}

// newAnnotations are those of a revision that is about to be stored. A promotion that is there already is of a rollout
// to it that was pruned since: nobody can have meant one that nobody has seen.
func newAnnotations(obj *v1alpha1.HyperliquidParser, revision podspec.Revision, identity string) map[string]string {
	out := map[string]string{v1alpha1.AnnotationIdentity: identity}
	if promotes(obj, revision) {
		out[v1alpha1.AnnotationPromotionOver] = marked
	}
	return out
}

// takenOver is what the rollout before has left for that of the spec's revision, as text; "" for nothing.
func (s *seen) takenOver(log logr.Logger) (string, error) {
	for _, revision := range s.revisions {
		if revision == s.update || revision.object.Annotations[v1alpha1.AnnotationRollout] == "" {
			continue
		}
		text, err := revision.readRollout(log).TakenOver().Encode()
		if err != nil {
			return "", fmt.Errorf("taking over from the rollout of %s: %w", revision.object.Name, err)
		}
		return text, nil
	}
	return "", nil
}
