package podspec

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// Access lists the clients that may connect to parsers. The kubelet of a pod's own node, which probes it, always may.
type Access struct {
	// OperatorNamespace is the namespace of the operator's pods. It is empty for an operator outside the cluster, which
	// connects through the kubelets.
	OperatorNamespace string
	// OperatorPods selects the operator's pods in that namespace.
	OperatorPods metav1.LabelSelector
	// ScrapeNamespaces selects the namespaces of pods that may read metrics. Nil allows none.
	ScrapeNamespaces *metav1.LabelSelector
	// ScrapePods selects pods in those namespaces. Nil selects all of them.
	ScrapePods *metav1.LabelSelector
}

// NetworkPolicyName returns the name of the NetworkPolicy of an object's parsers.
func NetworkPolicyName(object string) string { return object + "-parsers" }

// NetworkPolicy returns the policy, without an owner, by which only those clients may connect to the object's parsers,
// and only to the port of their reports. It selects pods by labels that the operator sets and that podLabels cannot
// set, so it isolates no other pod. It does not restrict egress.
func NetworkPolicy(obj *v1alpha1.HyperliquidParser, access Access) *networkingv1.NetworkPolicy {
	var from []networkingv1.NetworkPolicyPeer
	if access.OperatorNamespace != "" {
		from = append(from, networkingv1.NetworkPolicyPeer{
			NamespaceSelector: &metav1.LabelSelector{
				MatchLabels: map[string]string{corev1.LabelMetadataName: access.OperatorNamespace},
			},
			PodSelector: access.OperatorPods.DeepCopy(),
		})
	}
	if access.ScrapeNamespaces != nil {
		from = append(from, networkingv1.NetworkPolicyPeer{
			NamespaceSelector: access.ScrapeNamespaces.DeepCopy(), PodSelector: access.ScrapePods.DeepCopy(),
		})
	}
	labels := map[string]string{labelManagedBy: managedBy, v1alpha1.LabelParser: obj.Name}
	policy := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Name: NetworkPolicyName(obj.Name), Namespace: obj.Namespace, Labels: labels,
		},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: maps.Clone(labels)},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		},
	}
	if len(from) > 0 { // a rule without peers would allow every client
		policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{
			From: from,
			Ports: []networkingv1.NetworkPolicyPort{{
				Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To(intstr.FromInt32(ReportPort)),
			}},
		}}
	}
	return policy
}
