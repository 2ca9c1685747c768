package v1alpha1

// Labels and annotations. Users may not set labels or annotations with this group's prefix through podLabels and podAnnotations.
const (
	// LabelParser, on pods and ConfigMaps, is the name of the HyperliquidParser that owns them. The operator caches nothing without it.
	LabelParser = Group + "/parser"
	// LabelRevision, on pods, is the identity of the pod's template and config.
	LabelRevision = Group + "/revision"
	// LabelComponent, on ConfigMaps, tells what they hold: ComponentConfig or ComponentRestarts.
	LabelComponent = Group + "/component"

	// AnnotationTarget, on pods, is the target that the pod reads for: the node's name, which may be too long for a label.
	AnnotationTarget = Group + "/target"
	// AnnotationAcceptStatePath, on a HyperliquidParser, is set to the new value of spec.target.nodes.statePath to acknowledge
	// that parsers will find no checkpoint there and start anew at spec.engine.startAt.
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
	// ConditionReconciling: pods are being created or replaced. Never true together with ConditionStalled.
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
	// ReasonNoTargets: the selector matches no node.
	ReasonNoTargets = "NoTargets"
	// ReasonPodsNotReady: pods of the wanted revision exist and are not ready.
	ReasonPodsNotReady = "PodsNotReady"
	// ReasonPaused: pods of an older revision stay because spec.paused is set.
	ReasonPaused = "Paused"
	// ReasonCreatingPods: targets without a pod are getting one.
	ReasonCreatingPods = "CreatingPods"
	// ReasonReplacingPods: pods of an older revision are being replaced.
	ReasonReplacingPods = "ReplacingPods"
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
	// ReasonPodRejected: the API server refuses the pods, for example for a quota or an admission policy.
	ReasonPodRejected = "PodRejected"
	// ReasonNameTaken: an object that is not ours has the name of a pod or ConfigMap that is needed.
	ReasonNameTaken = "NameTaken"
)

// Reasons of BuffersStable and Delivering when they are not the verdict of the worst target.
const (
	// ReasonAllStable: no target's buffer grows.
	ReasonAllStable = "AllStable"
	// ReasonAllDelivering: no target is known not to deliver.
	ReasonAllDelivering = "AllDelivering"
	// ReasonDataLost: every target delivers, and one has lost data since its pod was made: lines were on disk and were never read.
	ReasonDataLost = "DataLost"
	// ReasonNotYetJudged: too few reports have arrived to say.
	ReasonNotYetJudged = "NotYetJudged"
)
