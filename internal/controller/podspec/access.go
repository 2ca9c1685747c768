package podspec

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// Access says who may connect to parsers. A kubelet, whose probes come from the pod's own node, always may.
type Access struct {
	// OperatorNamespace is where the operator's pods are; empty for an operator outside the cluster, who comes by way of the kubelets.
	OperatorNamespace string
	// OperatorPods selects them there.
	OperatorPods metav1.LabelSelector
	// ScrapeNamespaces are where those are who may read metrics; nil: nobody may.
	ScrapeNamespaces *metav1.LabelSelector
	// ScrapePods selects among the pods of those namespaces; nil: all of them.
	ScrapePods *metav1.LabelSelector
}

// NetworkPolicyName is the name of the NetworkPolicy of an object's parsers.
func NetworkPolicyName(object string) string { return object + "-parsers" }

// NetworkPolicy returns what lets nobody but those connect to the object's parsers, to nothing but the port of their reports, without an
// owner. It selects pods by labels that the operator sets and that podLabels cannot, so that it isolates nobody else. What parsers
// connect to is not its business.
func NetworkPolicy(obj *v1alpha1.HyperliquidParser, access Access) *networkingv1.NetworkPolicy {
	var from []networkingv1.NetworkPolicyPeer
	if access.OperatorNamespace != "" {
		from = append(from, networkingv1.NetworkPolicyPeer{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: access.OperatorNamespace}},
			PodSelector:       access.OperatorPods.DeepCopy(),
		})
	}
	if access.ScrapeNamespaces != nil {
		from = append(from, networkingv1.NetworkPolicyPeer{
			NamespaceSelector: access.ScrapeNamespaces.DeepCopy(), PodSelector: access.ScrapePods.DeepCopy(),
		})
	}
	policy := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Name: NetworkPolicyName(obj.Name), Namespace: obj.Namespace,
			Labels: map[string]string{labelManagedBy: managedBy, v1alpha1.LabelParser: obj.Name},
		},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{labelManagedBy: managedBy, v1alpha1.LabelParser: obj.Name}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		},
	}
	if len(from) > 0 { // a rule without peers would let everybody in
		policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{
			From: from,
			Ports: []networkingv1.NetworkPolicyPort{{
				Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To(intstr.FromInt32(ReportPort)),
			}},
		}}
	}
	return policy
}
