package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// MaxStatusTargets bounds status.targets, so that a status does not grow with its fleet.
	MaxStatusTargets = 20
	// MaxLosses bounds status.losses, for the same reason.
	MaxLosses = 20
)

// HyperliquidParserStatus is the observed state of a fleet. Figures in messages are those of the moment when a verdict
// changed, so a fleet at rest causes no writes while its figures fluctuate.
type HyperliquidParserStatus struct {
	// observedGeneration is the generation of the spec that this status describes. It is -1, or another number below 1,
	// until the operator has seen the object. Defaults to -1.
	// +optional
	// +kubebuilder:default=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// state is the state of the fleet, in one word. While a target is bad it is the verdict on the worst target, such as
	// SinkDown. Otherwise it is the first that applies of Stalled, NoTargets, DataLost, FormatDrift, DataGap, Paused,
	// Starting, RollingOut, RolloutStopped, NotReady, Delivering and Unknown.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	State string `json:"state,omitempty"`

	// story is the reason for state, in at most 60 characters, without figures that fluctuate.
	// +optional
	// +kubebuilder:validation:MaxLength=60
	Story string `json:"story,omitempty"`

	// desired is the number of targets, including those whose nodes cannot run a parser now.
	// +optional
	Desired int32 `json:"desired"`

	// current is the number of targets that have a pod.
	// +optional
	Current int32 `json:"current"`

	// ready is the number of targets that have a ready pod.
	// +optional
	Ready int32 `json:"ready"`

	// updated is the number of targets that have a pod of updateRevision, created since the last requested restart.
	// +optional
	Updated int32 `json:"updated"`

	// bad is the number of targets with a verdict other than Healthy, CatchingUp and Unknown.
	// +optional
	Bad int32 `json:"bad"`

	// restarts is the number of restarts by the operator since the creation of this object.
	// +optional
	Restarts int32 `json:"restarts"`

	// currentRevision is the last revision that all targets had whose nodes could run it.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	CurrentRevision string `json:"currentRevision,omitempty"`

	// updateRevision is the revision that the spec of observedGeneration asks for. It is empty while that spec cannot be
	// carried out.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	UpdateRevision string `json:"updateRevision,omitempty"`

	// statePath is the directory that holds checkpoints. See spec.target.nodes.statePath and
	// spec.target.pods.stateSubPath. With spec.target.pods.stateClaimName it is /<claim>/<stateSubPath>.
	// +optional
	// +kubebuilder:validation:MaxLength=768
	StatePath string `json:"statePath,omitempty"`

	// targets are the targets with a bad verdict, worst first, at most 20.
	// +optional
	// +listType=map
	// +listMapKey=target
	// +kubebuilder:validation:MaxItems=20
	Targets []TargetStatus `json:"targets,omitempty"`

	// losses describe the data that consumers lack, at most 20. A loss stays until it is acknowledged and the process that
	// counted it has ended. Unacknowledged losses come first, oldest first.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Losses []LossStatus `json:"losses,omitempty"`

	// moreLosses is the number of targets with an unacknowledged loss that does not fit into losses.
	// +optional
	MoreLosses int32 `json:"moreLosses,omitempty"`

	// conditions are Ready, Delivering, BuffersStable, DataIntact, Reconciling and Stalled, in this order.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// TargetStatus is the verdict on one target.
type TargetStatus struct {
	// target is the name of the node, or of the Hyperliquid node's pod.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Target string `json:"target"`

	// pod is the name of the target's parser pod.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Pod string `json:"pod,omitempty"`

	// verdict is the verdict on the target, such as Stuck.
	// +required
	// +kubebuilder:validation:MaxLength=64
	Verdict string `json:"verdict"`

	// reason qualifies the verdict, or names the affected stream.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`

	// message describes the figures at the change of verdict, and the operator's response.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`

	// since is when the verdict was reached.
	// +required
	Since metav1.Time `json:"since"`

	// restarts is the number of recorded restarts of this target by the operator: those of the last hour, and the last
	// one.
	// +optional
	Restarts int32 `json:"restarts,omitempty"`
}

// LossStatus is a loss that one process of a parser reports. Figures are its totals when the loss was found. The loss
// may have continued: the parser's metrics have the current totals.
type LossStatus struct {
	// target is the name of the node, or of the Hyperliquid node's pod.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Target string `json:"target"`

	// reason is DataLost or DataGap.
	// +required
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason"`

	// message has the figures of the worst stream. It is empty once the loss is acknowledged.
	// +optional
	// +kubebuilder:validation:MaxLength=160
	Message string `json:"message,omitempty"`

	// since is when the loss was found. The annotation fleet.hlparser.dev/acknowledge-loss identifies a loss, and all
	// found before it, by this time.
	// +required
	Since metav1.Time `json:"since"`

	// process is the start time of the parser's process that counted the loss. It is unset if the process does not report
	// it.
	// +optional
	Process metav1.Time `json:"process,omitzero"`

	// skippedBytes is the size of the whole lines that were on disk and were never read, in bytes.
	// +optional
	SkippedBytes int64 `json:"skippedBytes,omitempty"`

	// prunedFiles is the number of files that vanished before they were read to the end.
	// +optional
	PrunedFiles int64 `json:"prunedFiles,omitempty"`

	// missingBlocks is the number of blocks that the Hyperliquid node left out.
	// +optional
	MissingBlocks int64 `json:"missingBlocks,omitempty"`

	// acknowledged reports whether a user has acknowledged the loss.
	// +optional
	Acknowledged bool `json:"acknowledged,omitempty"`
}
