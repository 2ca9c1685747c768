// Package v1alpha1 contains the HyperliquidParser API: the desired state of a fleet of parsers, and its observed state.
//
// It contains types, their admission rules and defaults, and the names of conditions, reasons, labels and annotations.
// It imports nothing else of this project and makes no decisions, so a client can vendor it alone.
//
// +kubebuilder:object:generate=true
// +groupName=fleet.hlparser.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group is the API group, and the prefix of the labels and annotations that the operator sets.
const Group = "fleet.hlparser.dev"

var (
	// GroupVersion is the group and version of these types.
	GroupVersion = schema.GroupVersion{Group: Group, Version: "v1alpha1"}

	// SchemeBuilder collects the functions that add these types to a scheme.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme adds these types to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &HyperliquidParser{}, &HyperliquidParserList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
