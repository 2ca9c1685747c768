package status

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

// OfUnsynced returns the status of an object while it is unknown which pods it selects. Figures and verdicts stay as
// they are.
func OfUnsynced(obj *v1alpha1.HyperliquidParser, f *observed.Fleet) v1alpha1.HyperliquidParserStatus {
	out := *obj.Status.DeepCopy()
	out.ObservedGeneration = obj.Generation
	set := setter(&out, f.Now)
	text := f.Unsynced.Message + "; no pod is touched until they are known"
	set(v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonTargetsUnknown, text)
	if f.Unsynced.Refused {
		set(v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonTargetsUnknown, text)
		set(v1alpha1.ConditionReconciling, metav1.ConditionFalse, v1alpha1.ReasonTargetsUnknown, text)
		out.State = v1alpha1.StateStalled
		out.Story = prose.Line(v1alpha1.ReasonTargetsUnknown+": "+f.Unsynced.Message, MaxStory)
	} else {
		set(v1alpha1.ConditionStalled, metav1.ConditionFalse, v1alpha1.ReasonNotStalled, notStalled)
		set(v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonTargetsUnknown, text)
	}
	for _, kind := range []string{
		v1alpha1.ConditionDelivering, v1alpha1.ConditionBuffersStable, v1alpha1.ConditionDataIntact,
	} {
		if meta.FindStatusCondition(out.Conditions, kind) == nil {
			set(kind, metav1.ConditionUnknown, v1alpha1.ReasonNotYetJudged, waitingForReports)
		}
	}
	if out.State == "" {
		out.State, out.Story = v1alpha1.StateUnknown, "waiting for the list of target pods"
	}
	SortConditions(out.Conditions)
	return out
}
