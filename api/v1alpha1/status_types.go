package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MaxStatusTargets bounds status.targets, and MaxLosses status.losses, so that a fleet's status does not grow with the
// fleet.
const (
	MaxStatusTargets = 20
	MaxLosses        = 20
)

// HyperliquidParserStatus is what the operator sees of a fleet. Figures in messages are those of the moment when a verdict
// changed: a fleet at rest causes no writes, however its figures wobble.
type HyperliquidParserStatus struct {
	// observedGeneration is the generation of the spec that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// state is how the fleet is, in one word: the verdict on the worst target, such as SinkDown, while one is bad;
	// otherwise Stalled, NoTargets, DataLost, FormatDrift, DataGap, Paused, Starting, RollingOut, RolloutStopped,
	// NotReady, Delivering or Unknown, the first that applies.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	State string `json:"state,omitempty"`

	// story says why state is what it is, in at most 60 characters, without figures that move.
	// +optional
	// +kubebuilder:validation:MaxLength=60
	Story string `json:"story,omitempty"`

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

	// currentRevision is the last revision that every target had whose node could run it.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	CurrentRevision string `json:"currentRevision,omitempty"`

	// updateRevision is the revision that the spec of observedGeneration asks for; empty while that cannot be carried out.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	UpdateRevision string `json:"updateRevision,omitempty"`

	// statePath is the directory that checkpoints are kept in. See spec.target.nodes.statePath and spec.target.pods.stateSubPath; with
	// spec.target.pods.stateClaimName it is /<claim>/<stateSubPath>.
	// +optional
	// +kubebuilder:validation:MaxLength=768
	StatePath string `json:"statePath,omitempty"`

	// targets are those with a bad verdict, worst first, at most 20.
	// +optional
	// +listType=map
	// +listMapKey=target
	// +kubebuilder:validation:MaxItems=20
	Targets []TargetStatus `json:"targets,omitempty"`

	// losses are what consumers lack, each until it is acknowledged and the process that counted it is gone: oldest
	// first, those that are acknowledged last, at most 20.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Losses []LossStatus `json:"losses,omitempty"`

	// moreLosses is the number of targets with a loss that is not acknowledged and for which losses has no room.
	// +optional
	MoreLosses int32 `json:"moreLosses,omitempty"`

	// conditions are Ready, Delivering, BuffersStable, DataIntact, Reconciling and Stalled, in this order.
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

// LossStatus is what one process of a parser says was lost. Figures are its totals when the loss was found, which may
// have been going on: the parser's metrics have those of now.
type LossStatus struct {
	// target is the name of the node, or of the Hyperliquid node's pod.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Target string `json:"target"`

	// reason is DataLost or DataGap.
	// +required
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason"`

	// message has the figures of the worst stream; empty once the loss is acknowledged.
	// +optional
	// +kubebuilder:validation:MaxLength=160
	Message string `json:"message,omitempty"`

	// since is when the loss was found. The annotation fleet.hlparser.dev/acknowledge-loss names a loss, and all found
	// before it, by this time.
	// +required
	Since metav1.Time `json:"since"`

	// process is when the parser's process started that counted the loss; absent when it does not say.
	// +optional
	Process metav1.Time `json:"process,omitzero"`

	// skippedBytes of whole lines were on disk and were never read.
	// +optional
	SkippedBytes int64 `json:"skippedBytes,omitempty"`

	// prunedFiles vanished before they were read to their end.
	// +optional
	PrunedFiles int64 `json:"prunedFiles,omitempty"`

	// missingBlocks were left out by the Hyperliquid node.
	// +optional
	MissingBlocks int64 `json:"missingBlocks,omitempty"`

	// acknowledged is true once a person has acknowledged the loss.
	// +optional
	Acknowledged bool `json:"acknowledged,omitempty"`
}
