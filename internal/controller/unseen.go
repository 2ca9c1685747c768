package controller

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

// reportUnseen says that it is not known which targets an object has. Nothing is decided or done meanwhile: pods stay, figures and verdicts
// in the status stay, and the watch wakes the object when there is news. again is when to say so, should the API server just take its time.
func (r *Reconciler) reportUnseen(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) (again time.Duration, err error) {
	at := s.unseen.since.Add(quietSync)
	if !s.unseen.refused && s.now.Before(at) {
		return r.until(at), nil
	}
	status := unseenStatus(obj, s)
	r.Metrics.unseen(obj, status)
	r.Events.conditions(obj, obj.Status, status)
	if !equality.Semantic.DeepEqual(obj.Status, status) {
		if err := r.writeStatus(ctx, obj, status); err != nil {
			return 0, fmt.Errorf("writing the status of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
		}
	}
	return r.until(r.Events.due(client.ObjectKeyFromObject(obj))), nil
}

// unseenStatus is the status of an object whose targets are unknown.
func unseenStatus(obj *v1alpha1.HyperliquidParser, s *seen) v1alpha1.HyperliquidParserStatus {
	out := *obj.Status.DeepCopy()
	out.ObservedGeneration = obj.Generation
	set := setter(&out, s.now)
	text := s.unseen.why + "; no pod is touched until they are known"
	set(v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonTargetsUnknown, text)
	if s.unseen.refused {
		set(v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonTargetsUnknown, text)
		set(v1alpha1.ConditionReconciling, metav1.ConditionFalse, v1alpha1.ReasonTargetsUnknown, text)
		out.State = v1alpha1.StateStalled
		out.Story = prose.Line(v1alpha1.ReasonTargetsUnknown+": "+s.unseen.why, maxStory)
	} else {
		set(v1alpha1.ConditionStalled, metav1.ConditionFalse, v1alpha1.ReasonNotStalled, notStalled)
		set(v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonTargetsUnknown, text)
	}
	judged := []string{v1alpha1.ConditionDelivering, v1alpha1.ConditionBuffersStable, v1alpha1.ConditionDataIntact}
	for _, kind := range judged {
		if meta.FindStatusCondition(out.Conditions, kind) == nil {
			set(kind, metav1.ConditionUnknown, v1alpha1.ReasonNotYetJudged, "waiting for reports")
		}
	}
	if out.State == "" {
		out.State, out.Story = v1alpha1.StateUnknown, "waiting to see what the selector matches"
	}
	inOrder(out.Conditions)
	return out
}
