package v1alpha1

// ContainerName is the name of the parser's container in its pod.
const ContainerName = "hlparser"

// Labels and annotations. podLabels and podAnnotations must not contain names with this group's prefix.
const (
	// LabelParser is the name of the HyperliquidParser that owns an object. Of pods, ConfigMaps, NetworkPolicies and
	// ControllerRevisions, the operator caches only those with this label.
	LabelParser = Group + "/parser"
	// LabelRevision is the hash of the revision that a pod was made from, or that a ControllerRevision holds.
	LabelRevision = Group + "/revision"
	// LabelComponent names the content of a ConfigMap: ComponentConfig, ComponentRestarts or ComponentKeys.
	LabelComponent = Group + "/component"

	// AnnotationTarget, on a pod, is the target that the pod reads: the name of a node or of another pod, which may be
	// too long for a label.
	AnnotationTarget = Group + "/target"
	// AnnotationIdentity, on a ControllerRevision, identifies the spec that last asked for the revision.
	AnnotationIdentity = Group + "/identity"
	// AnnotationSpec, on a ControllerRevision, has the fields of the spec that shape its pods, as JSON: what
	// kubectl hlp rollout history compares and undo restores. The operator does not read it.
	AnnotationSpec = Group + "/spec"
	// AnnotationRollout, on a ControllerRevision, is the progress of the rollout to that revision.
	AnnotationRollout = Group + "/rollout"
	// AnnotationCurrent, on a ControllerRevision, marks the last revision that the whole fleet had. It is kept there
	// and not only in the status, so that a partly wiped status has no consequence.
	AnnotationCurrent = Group + "/current"
	// AnnotationPromotionOver, on a ControllerRevision, marks a promotion on the HyperliquidParser as one of an earlier
	// rollout to that revision. It is removed together with the promotion.
	AnnotationPromotionOver = Group + "/promotion-over"
	// AnnotationPromote, on a HyperliquidParser, is set to status.updateRevision to end the soak of that revision's
	// canaries, or to roll it out although they failed. It is valid for the current rollout: for a later one to the
	// same revision, remove it first.
	AnnotationPromote = Group + "/promote"
	// AnnotationAcknowledgeLoss, on a HyperliquidParser, is set to the time of a loss, as given by the condition
	// DataIntact, to acknowledge that loss and all found before. A time in the future acknowledges nothing.
	AnnotationAcknowledgeLoss = Group + "/acknowledge-loss"
	// AnnotationRestartedAt, on a HyperliquidParser, requests new pods: pods made under another value are replaced
	// within rollout.maxUnavailable, without a canary. kubectl rollout restart sets it on other kinds. Any value is
	// valid.
	AnnotationRestartedAt = "kubectl.kubernetes.io/restartedAt"
	// AnnotationAcceptStatePath, on a HyperliquidParser, is set to the new value of spec.target.nodes.statePath or
	// spec.target.pods.stateSubPath, or to /<stateClaimName>/<stateSubPath>, to acknowledge that parsers find no
	// checkpoint there and begin again at spec.engine.startAt.
	AnnotationAcceptStatePath = Group + "/accept-state-path"

	// ComponentConfig is the component of the immutable ConfigMap with the parsers' configuration of one revision.
	ComponentConfig = "config"
	// ComponentRestarts is the component of the ConfigMap that records restarts across leaders.
	ComponentRestarts = "restarts"
	// ComponentKeys is the component of the ConfigMap with the operator's public keys.
	ComponentKeys = "operator-keys"
)

// Types of condition.
const (
	// ConditionReady is true if every target whose node can run it has a ready parser of the update revision, and
	// nothing is being reconciled.
	ConditionReady = "Ready"
	// ConditionReconciling is true while pods are being created or replaced, or canaries soak. It is never true
	// together with ConditionStalled.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is true while the operator cannot continue until a user changes something. The message says
	// what.
	ConditionStalled = "Stalled"
	// ConditionBuffersStable is false while at least one target is Growing, Stuck or Leaking.
	ConditionBuffersStable = "BuffersStable"
	// ConditionDelivering is false while at least one target does not deliver (SinkDown, Stuck, Overloaded, NotRunning,
	// Unreachable, SourceUnreadable or SourceStalled), and while a loss of lines is not acknowledged.
	ConditionDelivering = "Delivering"
	// ConditionDataIntact is false while consumers lack data: lines that were never read, or blocks that the node left
	// out, until a user acknowledges the loss. It is also false while the lines of a stream are malformed.
	ConditionDataIntact = "DataIntact"
)

// Conditions returns the types of condition in the order of status.conditions.
func Conditions() []string {
	return []string{
		ConditionReady, ConditionDelivering, ConditionBuffersStable, ConditionDataIntact, ConditionReconciling,
		ConditionStalled,
	}
}

// Reasons of Ready, Reconciling and Stalled.
const (
	// ReasonAllReady means that every target has what it needs.
	ReasonAllReady = "AllReady"
	// ReasonNoTargets means that the selector matches no node, or no pod.
	ReasonNoTargets = "NoTargets"
	// ReasonTargetsUnknown means that the API server has not returned the pods that the selector may match. The
	// message quotes it.
	ReasonTargetsUnknown = "TargetsUnknown"
	// ReasonPodsNotReady means that pods of the update revision exist and are not ready.
	ReasonPodsNotReady = "PodsNotReady"
	// ReasonNoClaim means that a selected pod has no volume named spec.target.pods.volume, or that the volume is not
	// on a claim.
	ReasonNoClaim = "NoClaim"
	// ReasonClaimNotShareable means that the claim of a selected pod is ReadWriteOncePod, so that no parser can mount
	// it too.
	ReasonClaimNotShareable = "ClaimNotShareable"
	// ReasonPaused means that pods of an older revision, or from before a requested restart, stay because spec.paused is
	// set.
	ReasonPaused = "Paused"
	// ReasonCreatingPods means that targets without a pod are getting one.
	ReasonCreatingPods = "CreatingPods"
	// ReasonReplacingPods means that pods of an older revision, or from before a requested restart, are being
	// replaced.
	ReasonReplacingPods = "ReplacingPods"
	// ReasonCanarySoaking means that a few targets have the new revision, and the others wait for the result.
	ReasonCanarySoaking = "CanarySoaking"
	// ReasonRolloutStopped means that targets with the new revision are worse than before. No other target gets it
	// until they are better.
	ReasonRolloutStopped = "RolloutStopped"
	// ReasonWaitingForPods means that new pods are starting.
	ReasonWaitingForPods = "WaitingForPods"
	// ReasonUpToDate means that there is nothing to reconcile.
	ReasonUpToDate = "UpToDate"
	// ReasonNotStalled means that nothing blocks the operator.
	ReasonNotStalled = "NotStalled"
	// ReasonPathNotAllowed means that a path is outside the manager's --allowed-data-paths, or is none of its
	// --state-root or --output-root.
	ReasonPathNotAllowed = "PathNotAllowed"
	// ReasonImageNotAllowed means that the image is outside the manager's --allowed-images.
	ReasonImageNotAllowed = "ImageNotAllowed"
	// ReasonPodFieldNotAllowed means that a field of the pods, such as podLabels, priorityClassName or runAsGroup, has
	// a value that the manager's flags do not allow.
	ReasonPodFieldNotAllowed = "PodFieldNotAllowed"
	// ReasonSpecInvalid means that the spec is invalid in a way that admission cannot detect, such as an unknown
	// operator of a selector.
	ReasonSpecInvalid = "SpecInvalid"
	// ReasonUndecodable means that the stored object does not fit the operator's types. The operator leaves it alone.
	ReasonUndecodable = "Undecodable"
	// ReasonStatePathChanged means that statePath differs from the one in use, and that the annotation that
	// acknowledges the change is absent.
	ReasonStatePathChanged = "StatePathChanged"
	// ReasonPodRejected means that the API server rejects the pods, their revision or its config, for example because
	// of a quota or an admission policy. The message quotes it.
	ReasonPodRejected = "PodRejected"
	// ReasonWriteRejected means that the API server rejects another write that the operator needs, such as the record
	// of restarts. Parsers are created and run nevertheless.
	ReasonWriteRejected = "WriteRejected"
	// ReasonWriteFailing means that a write that the operator needs, or the read before it, fails, for example because
	// a webhook does not respond, and is retried. The message quotes the API server.
	ReasonWriteFailing = "WriteFailing"
	// ReasonCanaryFailed means that the new revision's canaries were worse than before, and were rolled back.
	ReasonCanaryFailed = "CanaryFailed"
	// ReasonSecretMissing means that a Secret, or a key of it, that the parsers' sink needs is missing.
	ReasonSecretMissing = "SecretMissing"
	// ReasonNameTaken means that an object of another owner has the name of a required pod, ConfigMap or revision.
	ReasonNameTaken = "NameTaken"
	// ReasonTampered means that the stored revision of pods, or their config, is not what the operator stored. No pod
	// is created from it.
	ReasonTampered = "Tampered"
)

// ReasonDataPathMissing is the reason of the verdict NotRunning for a pod that waits because its node has no directory
// spec.target.nodes.dataPath.
const ReasonDataPathMissing = "DataPathMissing"

// Reasons of BuffersStable, Delivering and DataIntact other than the verdict on the worst target.
const (
	// ReasonAllStable means that no target's buffer grows.
	ReasonAllStable = "AllStable"
	// ReasonAllDelivering means that no target is known not to deliver.
	ReasonAllDelivering = "AllDelivering"
	// ReasonNothingLost means that no line is known to be lost, and no stream is malformed.
	ReasonNothingLost = "NothingLost"
	// ReasonDataLost means that lines were on disk and were never read, and that the loss is not acknowledged.
	ReasonDataLost = "DataLost"
	// ReasonDataGap means that the Hyperliquid node left blocks out, and that the gap is not acknowledged.
	ReasonDataGap = "DataGap"
	// ReasonFormatDrift means that a large share of a stream's lines has been malformed for minutes.
	ReasonFormatDrift = "FormatDrift"
	// ReasonFleetWide means that more targets are bad than a fault of single parsers explains, so that the restarts
	// that are due would not help.
	ReasonFleetWide = "FleetWide"
	// ReasonRestartIneffective means that restarts did not help. The operator tries another one after an hour, and
	// then at growing intervals.
	ReasonRestartIneffective = "RestartIneffective"
	// ReasonRestartLimit means that a target was restarted as often as growth.restart.maxPerHour allows, and needs a
	// restart again. The operator restarts it when the hour is over.
	ReasonRestartLimit = "RestartLimit"
	// ReasonNotYetJudged means that too few reports have arrived for a judgement.
	ReasonNotYetJudged = "NotYetJudged"
)

// Values of status.state that are neither a verdict nor a reason.
const (
	// StateDelivering means that every running parser delivers, and nothing is being changed.
	StateDelivering = "Delivering"
	// StateStalled means that the operator cannot continue until a user changes something.
	StateStalled = "Stalled"
	// StatePaused means that spec.paused is set.
	StatePaused = "Paused"
	// StateStarting means that pods are being created, and none is being replaced.
	StateStarting = "Starting"
	// StateRollingOut means that pods are being replaced, or canaries soak.
	StateRollingOut = "RollingOut"
	// StateNotReady means that pods are not ready, and that no verdict explains it.
	StateNotReady = "NotReady"
	// StateUnknown means that there is too little information for another state.
	StateUnknown = "Unknown"
)
