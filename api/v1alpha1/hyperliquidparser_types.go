package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// HyperliquidParser is a fleet of parsers: exactly one pod for each target that holds a Hyperliquid node's data.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hlp,categories=all
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=".status.state",description="State of the fleet, in one word."
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=".status.desired",description="Number of targets."
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=".status.ready",description="Targets with a ready parser."
// +kubebuilder:printcolumn:name="Updated",type=integer,JSONPath=".status.updated",description="Targets with a parser of the update revision."
// +kubebuilder:printcolumn:name="Bad",type=integer,JSONPath=".status.bad",description="Targets with a bad verdict."
// +kubebuilder:printcolumn:name="Restarts",type=integer,JSONPath=".status.restarts",description="Restarts by the operator since creation."
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
// +kubebuilder:printcolumn:name="Revision",type=string,priority=1,JSONPath=".status.updateRevision",description="Revision that the spec asks for."
// +kubebuilder:printcolumn:name="Story",type=string,priority=1,JSONPath=".status.story",description="Reason for the status, in one line."
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name: pods are named after it: write at most 40 of a-z, 0-9 and '-', with a letter or digit at both ends"
type HyperliquidParser struct {
	metav1.TypeMeta `json:",inline"`

	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is the desired state of the fleet.
	// +required
	Spec HyperliquidParserSpec `json:"spec"`

	// status is the observed state of the fleet. Its size does not depend on the size of the fleet. Defaults to an
	// observedGeneration of -1, so that tools that wait for an object see that nobody has reconciled it yet.
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status HyperliquidParserStatus `json:"status,omitzero"`
}

// HyperliquidParserList is a list of HyperliquidParser.
//
// +kubebuilder:object:root=true
type HyperliquidParserList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []HyperliquidParser `json:"items"`
}
