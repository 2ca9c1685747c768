package v1alpha1

// Labels and annotations. Users may not set labels or annotations with this group's prefix through podLabels and podAnnotations.
const (
	// LabelParser, on pods and ConfigMaps, is the name of the HyperliquidParser that owns them. The operator caches nothing without it.
	LabelParser = Group + "/parser"
	// LabelRevision, on pods, is the revision that they were made from; on ControllerRevisions, the one that they hold.
	LabelRevision = Group + "/revision"
	// LabelComponent, on ConfigMaps, tells what they hold: ComponentConfig or ComponentRestarts.
	LabelComponent = Group + "/component"

	// AnnotationTarget, on pods, is the target that the pod reads for: the node's or the other pod's name, which may be too long for
	// a label.
	AnnotationTarget = Group + "/target"
	// AnnotationIdentity, on ControllerRevisions, tells for which spec the revision was last the one to have.
	AnnotationIdentity = Group + "/identity"
	// AnnotationRollout, on ControllerRevisions, tells how far the fleet is on the way to that revision.
	AnnotationRollout = Group + "/rollout"
	// AnnotationPromote, on a HyperliquidParser, is set to status.updateRevision to end the soak of that revision's canaries, or to roll it
	// out although they failed.
	AnnotationPromote = Group + "/promote"
	// AnnotationRestartedAt, on a HyperliquidParser, asks for new pods: those that were made while it had another value are replaced, within
	// rollout.maxUnavailable and without a canary. It is what kubectl rollout restart sets elsewhere; any value will do.
	AnnotationRestartedAt = "kubectl.kubernetes.io/restartedAt"
	// AnnotationAcceptStatePath, on a HyperliquidParser, is set to the new value of spec.target.nodes.statePath or
	// spec.target.pods.stateSubPath to acknowledge that parsers will find no checkpoint there and start anew at spec.engine.startAt.
	AnnotationAcceptStatePath = Group + "/accept-state-path"

	// ComponentConfig marks the immutable ConfigMap with what parsers of one revision are told.
	ComponentConfig = "config"
	// ComponentRestarts marks the ConfigMap that remembers restarts across leaders.
	ComponentRestarts = "restarts"
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
	// ConditionDelivering: false while at least one target does not deliver (SinkDown, Stuck, Overloaded, NotRunning, Unreachable or
	// SourceStalled), and while one has lost data.
	ConditionDelivering = "Delivering"
)

// Reasons of Ready, Reconciling and Stalled.
const (
	// ReasonAllReady: nothing is left to do.
	ReasonAllReady = "AllReady"
	// ReasonNoTargets: the selector matches no node, or no pod.
	ReasonNoTargets = "NoTargets"
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
	// ReasonPathNotAllowed: a path is outside the manager's --allowed-data-paths, --state-root or --output-root.
	ReasonPathNotAllowed = "PathNotAllowed"
	// ReasonImageNotAllowed: the image is outside the manager's --allowed-images.
	ReasonImageNotAllowed = "ImageNotAllowed"
	// ReasonSpecInvalid: admission cannot see that the spec does not work, such as an operator of a selector that does not exist.
	ReasonSpecInvalid = "SpecInvalid"
	// ReasonStatePathChanged: statePath differs from the one in use, and the annotation that acknowledges it is absent.
	ReasonStatePathChanged = "StatePathChanged"
	// ReasonPodRejected: the API server refuses the pods or their revision, for example for a quota or an admission policy.
	ReasonPodRejected = "PodRejected"
	// ReasonCanaryFailed: the new revision's canaries were worse than before, and were sent back.
	ReasonCanaryFailed = "CanaryFailed"
	// ReasonSecretMissing: parsers lack a Secret, or a key of it, that their sink needs.
	ReasonSecretMissing = "SecretMissing"
	// ReasonNameTaken: an object that is not ours has the name of a pod, ConfigMap or revision that is needed.
	ReasonNameTaken = "NameTaken"
)

// ReasonDataPathMissing is the reason of the verdict NotRunning for a pod that waits because its node has no directory
// spec.target.nodes.dataPath.
const ReasonDataPathMissing = "DataPathMissing"

// Reasons of BuffersStable and Delivering when they are not the verdict of the worst target.
const (
	// ReasonAllStable: no target's buffer grows.
	ReasonAllStable = "AllStable"
	// ReasonAllDelivering: no target is known not to deliver.
	ReasonAllDelivering = "AllDelivering"
	// ReasonDataLost: every target delivers, and one has lost data since its pod was made: lines were on disk and were never read.
	ReasonDataLost = "DataLost"
	// ReasonFleetWide: so many targets are bad that restarts, which some of them are due, would not help.
	ReasonFleetWide = "FleetWide"
	// ReasonRestartIneffective: restarts did not help; there are none for that cause until the spec changes.
	ReasonRestartIneffective = "RestartIneffective"
	// ReasonNotYetJudged: too few reports have arrived to say.
	ReasonNotYetJudged = "NotYetJudged"
)
