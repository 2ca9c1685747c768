package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MaxStatusTargets bounds status.targets, so that a fleet's status does not grow with the fleet.
const MaxStatusTargets = 20

// HyperliquidParserStatus is what the operator sees of a fleet. Figures in messages are those of the moment when a verdict
// changed: a fleet at rest causes no writes, however its figures wobble.
type HyperliquidParserStatus struct {
	// observedGeneration is the generation of the spec that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// desired is the number of targets, whether or not their nodes can run a parser now.
	// +optional
	Desired int32 `json:"desired"`

	// current is the number of targets that have a pod.
	// +optional
	Current int32 `json:"current"`

	// ready is the number of targets that have a ready pod.
	// +optional
	Ready int32 `json:"ready"`

	// updated is the number of targets that have a pod of updateRevision, made since a restart was last asked for.
	// +optional
	Updated int32 `json:"updated"`

	// bad is the number of targets with a verdict other than Healthy, CatchingUp and Unknown.
	// +optional
	Bad int32 `json:"bad"`

	// restarts is the number of restarts by the operator since this object was created.
	// +optional
	Restarts int32 `json:"restarts"`

	// lag is the age of the worst target's oldest undelivered line when a verdict last changed.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Lag string `json:"lag,omitempty"`

	// currentRevision is the last revision that every target had whose node could run it.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	CurrentRevision string `json:"currentRevision,omitempty"`

	// updateRevision is the revision that the spec of observedGeneration asks for; empty while that cannot be carried out.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	UpdateRevision string `json:"updateRevision,omitempty"`

	// statePath is the directory that checkpoints are kept in. See spec.target.nodes.statePath and spec.target.pods.stateSubPath.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	StatePath string `json:"statePath,omitempty"`

	// targets are those with a bad verdict, worst first, at most 20.
	// +optional
	// +listType=map
	// +listMapKey=target
	// +kubebuilder:validation:MaxItems=20
	Targets []TargetStatus `json:"targets,omitempty"`

	// conditions are Ready, Reconciling, Stalled, BuffersStable and Delivering.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// TargetStatus is what the operator thinks of one target.
type TargetStatus struct {
	// target is the name of the node, or of the Hyperliquid node's pod.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Target string `json:"target"`

	// pod that reads for the target.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Pod string `json:"pod,omitempty"`

	// verdict on the target, such as Stuck.
	// +required
	// +kubebuilder:validation:MaxLength=64
	Verdict string `json:"verdict"`

	// reason says which kind of the verdict, or which of the parser's streams it is about.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`

	// message tells the figures at the change of verdict, and what is done.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`

	// since is when the verdict was reached.
	// +required
	Since metav1.Time `json:"since"`

	// restarts of this target by the operator that are still remembered: those of the last hour, and the last one.
	// +optional
	Restarts int32 `json:"restarts,omitempty"`
}
