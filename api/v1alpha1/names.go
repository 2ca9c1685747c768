package v1alpha1

// ContainerName is the name of the parser's container in its pod.
const ContainerName = "hlparser"

// Labels and annotations. Users may not set labels or annotations with this group's prefix through podLabels and podAnnotations.
const (
	// LabelParser, on pods and ConfigMaps, is the name of the HyperliquidParser that owns them. The operator caches nothing without it.
	LabelParser = Group + "/parser"
	// LabelRevision, on pods, is the revision that they were made from; on ControllerRevisions, the one that they hold.
	LabelRevision = Group + "/revision"
	// LabelComponent, on ConfigMaps, names what they hold: ComponentConfig, ComponentRestarts or ComponentKeys.
	LabelComponent = Group + "/component"

	// AnnotationTarget, on pods, is the target that the pod reads for: the node's or the other pod's name, which may be too long for
	// a label.
	AnnotationTarget = Group + "/target"
	// AnnotationIdentity, on ControllerRevisions, tells for which spec the revision was last the one to have.
	AnnotationIdentity = Group + "/identity"
	// AnnotationRollout, on ControllerRevisions, tells how far the fleet is on the way to that revision.
	AnnotationRollout = Group + "/rollout"
	// AnnotationCurrent, on a ControllerRevision, says that it is the last that the whole fleet had. It is there, and
	// not in the status alone, so that nothing follows from a status that was wiped in part.
	AnnotationCurrent = Group + "/current"
	// AnnotationPromotionOver, on a ControllerRevision, says that the promotion which a HyperliquidParser carries for
	// it was of an earlier rollout. It goes when the promotion does.
	AnnotationPromotionOver = Group + "/promotion-over"
	// AnnotationPromote, on a HyperliquidParser, is set to status.updateRevision to end the soak of that revision's
	// canaries, or to roll it out although they failed. It is valid for the rollout that is on its way: for a later one
	// to the same revision, remove it first.
	AnnotationPromote = Group + "/promote"
	// AnnotationAcknowledgeLoss, on a HyperliquidParser, is set to the time of a loss, as the condition DataIntact
	// gives it, to acknowledge that loss and all found before. A time that is still to come acknowledges nothing.
	AnnotationAcknowledgeLoss = Group + "/acknowledge-loss"
	// AnnotationRestartedAt, on a HyperliquidParser, asks for new pods: those that were made while it had another value are replaced, within
	// rollout.maxUnavailable and without a canary. It is what kubectl rollout restart sets elsewhere; any value will do.
	AnnotationRestartedAt = "kubectl.kubernetes.io/restartedAt"
	// AnnotationAcceptStatePath, on a HyperliquidParser, is set to the new value of spec.target.nodes.statePath or
	// spec.target.pods.stateSubPath, or to /<stateClaimName>/<stateSubPath>, to acknowledge that parsers will find no checkpoint there and start again at spec.engine.startAt.
	AnnotationAcceptStatePath = Group + "/accept-state-path"

	// ComponentConfig marks the immutable ConfigMap with what parsers of one revision are told.
	ComponentConfig = "config"
	// ComponentRestarts marks the ConfigMap that remembers restarts across leaders.
	ComponentRestarts = "restarts"
	// ComponentKeys marks the ConfigMap with the operator's public keys.
	ComponentKeys = "operator-keys"
)

// Types of condition.
const (
	// ConditionReady: every target whose node can run it has a ready parser of the wanted revision.
	ConditionReady = "Ready"
	// ConditionReconciling: pods are being created or replaced, or canaries soak. Never true together with ConditionStalled.
	ConditionReconciling = "Reconciling"
	// ConditionStalled: the operator cannot go on until a person changes something; the message says what.
	ConditionStalled = "Stalled"
	// ConditionBuffersStable: false while at least one target is Growing, Stuck or Leaking.
	ConditionBuffersStable = "BuffersStable"
	// ConditionDelivering: false while at least one target does not deliver (SinkDown, Stuck, Overloaded, NotRunning, Unreachable,
	// SourceUnreadable or SourceStalled), and while the loss of lines is not acknowledged.
	ConditionDelivering = "Delivering"
	// ConditionDataIntact: false while consumers lack something: lines that were never read, or blocks that the node
	// left out, until a person acknowledges the loss; and while the lines of a stream are not understood.
	ConditionDataIntact = "DataIntact"
)

// Conditions lists the types of condition in the order in which they are shown.
func Conditions() []string {
	return []string{
		ConditionReady, ConditionDelivering, ConditionBuffersStable, ConditionDataIntact, ConditionReconciling, ConditionStalled,
	}
}

// Reasons of Ready, Reconciling and Stalled.
const (
	// ReasonAllReady: nothing is left to do.
	ReasonAllReady = "AllReady"
	// ReasonNoTargets: the selector matches no node, or no pod.
	ReasonNoTargets = "NoTargets"
	// ReasonTargetsUnknown: the API server has not shown the pods that the selector may match; the message has its words.
	ReasonTargetsUnknown = "TargetsUnknown"
	// ReasonPodsNotReady: pods of the wanted revision exist and are not ready.
	ReasonPodsNotReady = "PodsNotReady"
	// ReasonNoClaim: a selected pod has no volume of the name that spec.target.pods.volume gives, or it is not on a claim.
	ReasonNoClaim = "NoClaim"
	// ReasonClaimNotShareable: the claim of a selected pod is ReadWriteOncePod, so that no parser can mount it too.
	ReasonClaimNotShareable = "ClaimNotShareable"
	// ReasonPaused: pods of an older revision stay because spec.paused is set.
	ReasonPaused = "Paused"
	// ReasonCreatingPods: targets without a pod are getting one.
	ReasonCreatingPods = "CreatingPods"
	// ReasonReplacingPods: pods of an older revision, or from before a restart was asked for, are being replaced.
	ReasonReplacingPods = "ReplacingPods"
	// ReasonCanarySoaking: a few targets have the new revision, and the others wait for how they fare.
	ReasonCanarySoaking = "CanarySoaking"
	// ReasonRolloutStopped: targets with the new revision are worse than before, and no others get it while that is so.
	ReasonRolloutStopped = "RolloutStopped"
	// ReasonWaitingForPods: new pods are starting.
	ReasonWaitingForPods = "WaitingForPods"
	// ReasonUpToDate: there is nothing to reconcile.
	ReasonUpToDate = "UpToDate"
	// ReasonNotStalled: nothing is in the way.
	ReasonNotStalled = "NotStalled"
	// ReasonPathNotAllowed: a path is outside the manager's --allowed-data-paths, or is none of its --state-root or --output-root.
	ReasonPathNotAllowed = "PathNotAllowed"
	// ReasonImageNotAllowed: the image is outside the manager's --allowed-images.
	ReasonImageNotAllowed = "ImageNotAllowed"
	// ReasonPodFieldNotAllowed: a field of the pods, such as podLabels, priorityClassName or runAsGroup, has a value that the manager's
	// flags do not allow.
	ReasonPodFieldNotAllowed = "PodFieldNotAllowed"
	// ReasonSpecInvalid: admission cannot see that the spec does not work, such as an operator of a selector that does not exist.
	ReasonSpecInvalid = "SpecInvalid"
	// ReasonUndecodable: the API server has the object, and the operator's types do not hold it; nothing is done for it.
	ReasonUndecodable = "Undecodable"
	// ReasonStatePathChanged: statePath differs from the one in use, and the annotation that acknowledges it is absent.
	ReasonStatePathChanged = "StatePathChanged"
	// ReasonPodRejected: the API server refuses the pods, their revision or its config, for example for a quota or an
	// admission policy; the message has its words.
	ReasonPodRejected = "PodRejected"
	// ReasonWriteRejected: the API server refuses something else that the operator must write, such as the record of
	// restarts. Parsers are made and run all the same.
	ReasonWriteRejected = "WriteRejected"
	// ReasonWriteFailing: something that the operator must write, or read first, fails, such as for a webhook that
	// does not answer, and is tried again; the message has the API server's words.
	ReasonWriteFailing = "WriteFailing"
	// ReasonCanaryFailed: the new revision's canaries were worse than before, and were sent back.
	ReasonCanaryFailed = "CanaryFailed"
	// ReasonSecretMissing: parsers lack a Secret, or a key of it, that their sink needs.
	ReasonSecretMissing = "SecretMissing"
	// ReasonNameTaken: an object that is not ours has the name of a pod, ConfigMap or revision that is needed.
	ReasonNameTaken = "NameTaken"
	// ReasonTampered: the stored revision of pods, or their config, is not what the operator stored. No pod is made from
	// it.
	ReasonTampered = "Tampered"
)

// ReasonDataPathMissing is the reason of the verdict NotRunning for a pod that waits because its node has no directory
// spec.target.nodes.dataPath.
const ReasonDataPathMissing = "DataPathMissing"

// Reasons of BuffersStable, Delivering and DataIntact when they are not the verdict of the worst target.
const (
	// ReasonAllStable: no target's buffer grows.
	ReasonAllStable = "AllStable"
	// ReasonAllDelivering: no target is known not to deliver.
	ReasonAllDelivering = "AllDelivering"
	// ReasonNothingLost: no line is known to be lost, and none misunderstood.
	ReasonNothingLost = "NothingLost"
	// ReasonDataLost: lines were on disk and were never read, and nobody has acknowledged that.
	ReasonDataLost = "DataLost"
	// ReasonDataGap: the Hyperliquid node left blocks out, and nobody has acknowledged that.
	ReasonDataGap = "DataGap"
	// ReasonFormatDrift: a good part of a stream's lines has been malformed for minutes.
	ReasonFormatDrift = "FormatDrift"
	// ReasonFleetWide: so many targets are bad that restarts, which some of them are due, would not help.
	ReasonFleetWide = "FleetWide"
	// ReasonRestartIneffective: restarts did not help; one is tried again after an hour, and then less and less often.
	ReasonRestartIneffective = "RestartIneffective"
	// ReasonNotYetJudged: too few reports have arrived to say.
	ReasonNotYetJudged = "NotYetJudged"
)

// Values of status.state that are neither a verdict nor a reason.
const (
	// StateDelivering: every parser that runs delivers, and nothing is being changed.
	StateDelivering = "Delivering"
	// StateStalled: the operator cannot go on until a person changes something.
	StateStalled = "Stalled"
	// StatePaused: spec.paused is set.
	StatePaused = "Paused"
	// StateStarting: pods are being created, and none is replaced.
	StateStarting = "Starting"
	// StateRollingOut: pods are being replaced, or canaries soak.
	StateRollingOut = "RollingOut"
	// StateNotReady: pods are not ready, for which there is no verdict.
	StateNotReady = "NotReady"
	// StateUnknown: too little is known to say.
	StateUnknown = "Unknown"
)
