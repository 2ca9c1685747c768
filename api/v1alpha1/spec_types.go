package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// HyperliquidParserSpec is the desired state of a fleet.
//
// +kubebuilder:validation:XValidation:rule="!has(self.engine) || !has(self.engine.deduplicateBlocks) || !self.engine.deduplicateBlocks || self.streams.all(s, !has(s.mode) || s.mode != 'Line')",fieldPath=".engine.deduplicateBlocks",message="lines of mode Line do not name their block: leave deduplicateBlocks out, or set the streams' mode to Auto, Streaming or ByBlock"
// +kubebuilder:validation:XValidation:rule="has(self.sink) != has(self.sinks)",fieldPath=".sink",message="set exactly one of sink and sinks: with sinks, each stream names its sink"
// +kubebuilder:validation:XValidation:rule="has(self.sinks) ? self.streams.all(s, has(s.sink) && self.sinks.exists(n, n.name == s.sink)) : self.streams.all(s, !has(s.sink))",fieldPath=".streams",message="with sinks, set each stream's sink to the name of one of them; without sinks, leave it out"
// +kubebuilder:validation:XValidation:rule="!has(self.sinks) || self.sinks.all(n, self.streams.exists(s, has(s.sink) && s.sink == n.name))",fieldPath=".sinks",message="a sink has no stream: name it in a stream's sink, or leave it out"
// +kubebuilder:validation:XValidation:rule="!has(self.sinks) || (self.sinks.filter(n, has(n.file)).size() <= 1 && self.sinks.filter(n, has(n.stdout)).size() <= 1)",fieldPath=".sinks",message="a parser has one output directory and one standard output: set file and stdout at most once each"
// +kubebuilder:validation:XValidation:rule="!has(self.sink) || !has(self.sink.nats) || !has(self.sink.nats.identity) || self.sink.nats.identity != 'Chain' || self.streams.all(s, has(s.mode) && s.mode == 'ByBlock')",fieldPath=".sink.nats.identity",message="identity Chain identifies events by their place in the block, which only by-block lines show: set the streams' mode to ByBlock"
// +kubebuilder:validation:XValidation:rule="!has(self.order) || self.streams.all(s, !has(s.mode) || s.mode != 'Line')",fieldPath=".order",message="lines of mode Line do not name their block: leave order out, or set the streams' mode to Auto, Streaming or ByBlock"
// +kubebuilder:validation:XValidation:rule="!has(self.order) || !has(self.format) || self.format != 'Raw'",fieldPath=".order",message="records of format Raw do not name their stream: leave order out, or write format: Enveloped or Normalized"
// +kubebuilder:validation:XValidation:rule="!has(self.order) || !has(self.sinks) || size(self.sinks) == 1",fieldPath=".order",message="ordered by block, all streams go to one sink: leave order out, or set sink instead of sinks"
// +kubebuilder:validation:XValidation:rule="!(has(self.filter) && has(self.filter.coins) && size(self.filter.coins) > 0 && self.streams.exists(s, !has(s.filter) && s.name == 'SystemActions')) || oldSelf.hasValue() && has(oldSelf.value().filter) && has(oldSelf.value().filter.coins) && size(oldSelf.value().filter.coins) > 0 && oldSelf.value().streams.exists(s, !has(s.filter) && s.name == 'SystemActions')",fieldPath=".filter.coins",optionalOldSelf=true,message="events of SystemActions have no coins, so all would pass: give the stream a filter of its own in streams[].filter, or leave it out"
// +kubebuilder:validation:XValidation:rule="!(has(self.filter) && has(self.filter.markets) && size(self.filter.markets) > 0 && self.streams.exists(s, !has(s.filter) && s.name == 'SystemActions'))",fieldPath=".filter.markets",message="events of SystemActions have no coins, so all would pass: give the stream a filter of its own in streams[].filter, or leave it out"
// +kubebuilder:validation:XValidation:rule="!(has(self.filter) && has(self.filter.excludeCoins) && size(self.filter.excludeCoins) > 0 && self.streams.exists(s, !has(s.filter)) && self.streams.all(s, has(s.filter) || s.name == 'SystemActions'))",fieldPath=".filter.excludeCoins",message="events of SystemActions have no coins: add a stream that has, or leave excludeCoins out"
// +kubebuilder:validation:XValidation:rule="!(has(self.filter) && has(self.filter.users) && size(self.filter.users) > 0 && self.streams.exists(s, !has(s.filter) && s.name == 'OracleUpdates')) || oldSelf.hasValue() && has(oldSelf.value().filter) && has(oldSelf.value().filter.users) && size(oldSelf.value().filter.users) > 0 && oldSelf.value().streams.exists(s, !has(s.filter) && s.name == 'OracleUpdates')",fieldPath=".filter.users",optionalOldSelf=true,message="events of OracleUpdates have no users, so all would pass: give the stream a filter of its own in streams[].filter, or leave it out"
// +kubebuilder:validation:XValidation:rule="!(has(self.filter) && has(self.filter.statuses) && size(self.filter.statuses) > 0 && self.streams.exists(s, !has(s.filter) && !(s.name in ['OrderStatuses', 'TwapStatuses']))) || oldSelf.hasValue() && has(oldSelf.value().filter) && has(oldSelf.value().filter.statuses) && size(oldSelf.value().filter.statuses) > 0 && oldSelf.value().streams.exists(s, !has(s.filter) && !(s.name in ['OrderStatuses', 'TwapStatuses']))",fieldPath=".filter.statuses",optionalOldSelf=true,message="events of Fills, Trades, RawBookDiffs, MiscEvents, OracleUpdates and SystemActions have no status, so all would pass: give the stream a filter of its own in streams[].filter, or leave it out"
// +kubebuilder:validation:XValidation:rule="!(has(self.filter) && has(self.filter.excludeStatuses) && size(self.filter.excludeStatuses) > 0 && self.streams.exists(s, !has(s.filter)) && self.streams.all(s, has(s.filter) || !(s.name in ['OrderStatuses', 'TwapStatuses']))) || oldSelf.hasValue() && has(oldSelf.value().filter) && has(oldSelf.value().filter.excludeStatuses) && size(oldSelf.value().filter.excludeStatuses) > 0 && oldSelf.value().streams.exists(s, !has(s.filter)) && oldSelf.value().streams.all(s, has(s.filter) || !(s.name in ['OrderStatuses', 'TwapStatuses']))",fieldPath=".filter.excludeStatuses",optionalOldSelf=true,message="events of Fills, Trades, RawBookDiffs, MiscEvents, OracleUpdates and SystemActions have no status: add OrderStatuses or TwapStatuses, or leave excludeStatuses out"
// +kubebuilder:validation:XValidation:rule="!(has(self.filter) && has(self.filter.sides) && size(self.filter.sides) > 0 && self.streams.exists(s, !has(s.filter) && s.name in ['MiscEvents', 'OracleUpdates', 'SystemActions'])) || oldSelf.hasValue() && has(oldSelf.value().filter) && has(oldSelf.value().filter.sides) && size(oldSelf.value().filter.sides) > 0 && oldSelf.value().streams.exists(s, !has(s.filter) && s.name in ['MiscEvents', 'OracleUpdates', 'SystemActions'])",fieldPath=".filter.sides",optionalOldSelf=true,message="events of MiscEvents, OracleUpdates and SystemActions have no side, so all would pass: give the stream a filter of its own in streams[].filter, or leave it out"
// +kubebuilder:validation:XValidation:rule="!(has(self.filter) && has(self.filter.types) && size(self.filter.types) > 0 && self.streams.exists(s, !has(s.filter) && !(s.name in ['MiscEvents', 'OracleUpdates', 'SystemActions'])))",fieldPath=".filter.types",message="events of OrderStatuses, Fills, Trades, RawBookDiffs and TwapStatuses have no type, so all would pass: give the stream a filter of its own in streams[].filter, or leave it out"
// +kubebuilder:validation:XValidation:rule="!(has(self.filter) && has(self.filter.minNotional) && size(self.filter.minNotional) > 0 && self.streams.exists(s, !has(s.filter) && !(s.name in ['OrderStatuses', 'Fills', 'Trades']))) || oldSelf.hasValue() && has(oldSelf.value().filter) && has(oldSelf.value().filter.minNotional) && size(oldSelf.value().filter.minNotional) > 0 && oldSelf.value().streams.exists(s, !has(s.filter) && !(s.name in ['OrderStatuses', 'Fills', 'Trades']))",fieldPath=".filter.minNotional",optionalOldSelf=true,message="events of RawBookDiffs, MiscEvents, OracleUpdates, SystemActions and TwapStatuses have no price and size, so all would pass: give the stream a filter of its own in streams[].filter, or leave it out"
// +kubebuilder:validation:XValidation:rule="!has(self.engine) || !has(self.engine.startAt) || self.engine.startAt != 'Block' || self.streams.all(s, !has(s.mode) || s.mode != 'Line')",fieldPath=".engine.startAt",message="lines of mode Line do not name their block: write End or Beginning, or set the streams' mode to Auto, Streaming or ByBlock"
type HyperliquidParserSpec struct {
	// target selects what the parsers read: one parser runs for each target.
	// +required
	Target Target `json:"target"`

	// streams are the kinds of output to follow: 1 to 8, each at most once. The Hyperliquid node must run with the flag
	// that writes each of them.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Streams []Stream `json:"streams"`

	// filter selects the events to deliver. It applies to the streams that have no filter of their own. A setting that one
	// of these streams has no field for is refused; excludeCoins and excludeStatuses are refused if none of them has the
	// field. An empty list passes all events. If unset, all events pass.
	// +optional
	Filter Filter `json:"filter,omitzero"`

	// format is the shape of a record. Raw is the event's own bytes. Enveloped wraps the event in an object with its
	// origin. EnvelopedRows does too, and splits the events of MiscEvents and OracleUpdates into a record for each of
	// their entries. Normalized gives each stream one shape with a JSON Schema, and splits these events likewise. Defaults
	// to Enveloped.
	// +optional
	// +kubebuilder:default=Enveloped
	Format Format `json:"format,omitempty"`

	// sink is where records are delivered. Exactly one of sink and sinks must be set.
	// +optional
	Sink Sink `json:"sink,omitzero"`

	// sinks are several destinations, 1 to 8. The parser reads the data once, and each stream names the sink of its
	// records. Exactly one of sink and sinks must be set.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Sinks []NamedSink `json:"sinks,omitempty"`

	// order delivers the streams as one, ordered by block, for consumers that need all streams of a block together. It
	// requires lines that name their block, so mode Line is not allowed; in mode Auto, a stream fails while the node
	// writes it in line mode. It requires one sink, and a format that names a record's stream. If unset, each stream is
	// delivered by itself.
	// +optional
	Order *Order `json:"order,omitempty"`

	// engine sizes the parser's pipeline. If unset, the defaults of its fields apply.
	// +optional
	// +kubebuilder:default={}
	Engine Engine `json:"engine,omitzero"`

	// metrics are the parts that every scrape of a parser gets beyond the default metrics, at most 3, in any order. Each
	// costs the scraper series. A change replaces the pods; the parameter metrics of a scrape asks for the same without
	// that. If unset, a scrape gets the default metrics: at most 60 series for two streams.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=3
	Metrics []MetricsDetail `json:"metrics,omitempty"`

	// growth configures how the operator judges reports, and how it responds to a bad verdict. A change replaces no pod.
	// If unset, the defaults of its fields apply.
	// +optional
	// +kubebuilder:default={}
	Growth Growth `json:"growth,omitzero"`

	// rollout configures how a new revision reaches the parsers, and how many of them may be unavailable at once. A change
	// replaces no pod. If unset, the defaults of its fields apply.
	// +optional
	// +kubebuilder:default={}
	Rollout Rollout `json:"rollout,omitzero"`

	// paused stops rollouts and restarts. Missing pods are still recreated. Defaults to false.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// image is the parser's image. Its repository must be one of the manager's --allowed-images, or below an entry that
	// ends in '/'. A name without a registry means docker.io. Defaults to the manager's --parser-image.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^(([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*|[[][a-fA-F0-9:]+[]])(:[0-9]+)?/)?[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*(:[a-zA-Z0-9_][-a-zA-Z0-9_.]{0,127})?(@(sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}))?$') && !self.matches('^[a-f0-9]{64}$')",message="write the reference of an image, such as registry.example/hlparser:v1"
	Image string `json:"image,omitempty"`

	// imagePullPolicy is the pull policy of the parser's container: Always, IfNotPresent or Never. Defaults to Always if
	// the image has the tag latest or no tag, and to IfNotPresent otherwise.
	// +optional
	// +kubebuilder:validation:Enum=Always;IfNotPresent;Never
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`

	// imagePullSecrets name Secrets in this namespace, at most 16. The kubelet reads them; the operator does not.
	// Optional.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`

	// resources are the compute resources of the parser's container. Only cpu, memory and ephemeral-storage are allowed:
	// other resources, and claims, are devices of the node. Defaults to requests of 250m CPU and 256Mi memory and a limit
	// of 512Mi memory, so that the parser does not starve the Hyperliquid node beside it.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`

	// tolerations are added to those that every parser has, which are a DaemonSet's. At most 32. Optional.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// affinity is the affinity of the pods. A required node affinity narrows the targets. Optional.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// priorityClassName is the priority class of the pods. It must match one of the manager's --allowed-priority-classes,
	// which allows none by default. Optional.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`

	// podLabels are added to the pods, at most 32. Each must match one of the manager's --allowed-pod-labels, which allows
	// none by default: injectors, NetworkPolicies and Services act on labels. Optional.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('fleet.hlparser.dev/'))",message="labels with the prefix fleet.hlparser.dev/ are the operator's: write another prefix"
	PodLabels map[string]LabelValue `json:"podLabels,omitempty"`

	// podAnnotations are added to the pods, at most 32. Each must match one of the manager's --allowed-pod-annotations,
	// which allows none by default: injectors, networks and runtimes act on annotations. Optional.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('fleet.hlparser.dev/'))",message="annotations with the prefix fleet.hlparser.dev/ are the operator's: write another prefix"
	PodAnnotations map[string]AnnotationValue `json:"podAnnotations,omitempty"`

	// terminationGracePeriodSeconds is the time in which a parser must finish its batch and commit, in seconds, from 1 to
	// 3600. Defaults to 30.
	// +optional
	// +kubebuilder:default=30
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	TerminationGracePeriodSeconds *int64 `json:"terminationGracePeriodSeconds,omitempty"`

	// runAsUser is the user ID of the parser, from 1 to 2147483647; root is not allowed. An ID below 1000, where the
	// node's own users are, must be one of the manager's --allowed-users. Defaults to 10000, the user of the official
	// Hyperliquid node image.
	// +optional
	// +kubebuilder:default=10000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483647
	RunAsUser *int64 `json:"runAsUser,omitempty"`

	// runAsGroup is the primary group ID of the parser, from 1 to 2147483647. An ID below 1000 must be one of the
	// manager's --allowed-groups. Defaults to 10000, the group of the official Hyperliquid node image.
	// +optional
	// +kubebuilder:default=10000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483647
	RunAsGroup *int64 `json:"runAsGroup,omitempty"`

	// supplementalGroups are further group IDs of the parser, such as one that may read the data: at most 16, each from 1
	// to 2147483647. An ID below 1000, where groups such as disk and docker are, must be one of the manager's
	// --allowed-groups. Optional.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=2147483647
	SupplementalGroups []int64 `json:"supplementalGroups,omitempty"`

	// seLinuxOptions are the SELinux options of the pods, for nodes whose data has a label that containers may not read.
	// level is free. type must match one of the manager's --allowed-selinux-types, which allows none by default. user and
	// role are not allowed. Optional.
	// +optional
	SELinuxOptions *corev1.SELinuxOptions `json:"seLinuxOptions,omitempty"`
}

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$`
type LabelValue string

// AnnotationValue is the value of an annotation, of at most 4096 characters.
//
// +kubebuilder:validation:MaxLength=4096
type AnnotationValue string

// Target selects what the parsers read. Exactly one field must be set, and which one is immutable.
//
// +kubebuilder:validation:ExactlyOneOf=nodes;pods
// +kubebuilder:validation:XValidation:rule="has(self.nodes) == has(oldSelf.nodes)",message="parsers of one kind of target find no checkpoint of the other's: delete and recreate the object"
type Target struct {
	// nodes runs one parser on each Kubernetes node that holds a Hyperliquid node's data.
	// +optional
	Nodes *NodeTarget `json:"nodes,omitempty"`

	// pods runs one parser beside each pod that runs a Hyperliquid node on a claim. The parser runs on the same Kubernetes
	// node, and moves with the pod.
	// +optional
	Pods *PodTarget `json:"pods,omitempty"`
}

// NodeTarget selects nodes, and locates the data and the parser's state on them.
//
// +kubebuilder:validation:XValidation:rule="self.dataPath != self.statePath",fieldPath=".statePath",message="the data is mounted read-only: write a directory other than dataPath"
type NodeTarget struct {
	// selector selects nodes by their labels. It must not be empty: an empty selector would run a parser on every node. At
	// most 32 matchLabels and 32 matchExpressions.
	// +required
	// +kubebuilder:validation:XValidation:rule="has(self.matchLabels) && size(self.matchLabels) > 0 || has(self.matchExpressions) && size(self.matchExpressions) > 0",message="an empty selector means every node: write the label of the nodes that hold data, such as matchLabels: {hyperliquid.xyz/role: node}"
	// +kubebuilder:validation:XValidation:rule="(!has(self.matchLabels) || size(self.matchLabels) <= 32) && (!has(self.matchExpressions) || size(self.matchExpressions) <= 32)",message="write at most 32 matchLabels and 32 matchExpressions"
	Selector metav1.LabelSelector `json:"selector"`

	// dataPath is the Hyperliquid node's data directory on the host. It must exist, and is mounted read-only. It must be
	// at or below one of the manager's --allowed-data-paths, and must not overlap its --state-root and --output-root.
	// +required
	DataPath HostPath `json:"dataPath"`

	// statePath is the directory on the host for checkpoints and dead letters. The parser uses <namespace>/<name> below
	// it, which is created for runAsUser. It must be exactly one of the manager's --state-root: a directory below a root
	// belongs to one object. Parsers find no checkpoint below another path, so a change is held back (Stalled,
	// StatePathChanged) until the annotation fleet.hlparser.dev/accept-state-path is set to the new path. Defaults to
	// /var/lib/hlparser.
	// +optional
	// +kubebuilder:default="/var/lib/hlparser"
	StatePath HostPath `json:"statePath,omitempty"`
}

// PodTarget selects the pods of Hyperliquid nodes, and locates the data and the parsers' state on their claims. A
// parser is created once its pod runs, and deleted when the pod ends, so that it never holds the claim back.
//
// +kubebuilder:validation:XValidation:rule="has(self.stateClaimName) || !has(self.subPath) || !has(self.stateSubPath) || self.stateSubPath != self.subPath && !self.stateSubPath.startsWith(self.subPath + '/')",fieldPath=".stateSubPath",message="the data directory belongs to the Hyperliquid node: write a directory outside of subPath"
// +kubebuilder:validation:XValidation:rule="has(self.stateClaimName) || has(self.subPath) || !has(self.stateSubPath) || self.stateSubPath.matches('^[.]?hlparser[^/]*(/|$)') || oldSelf.hasValue() && !has(oldSelf.value().subPath) && has(oldSelf.value().stateSubPath) && oldSelf.value().stateSubPath == self.stateSubPath",fieldPath=".stateSubPath",optionalOldSelf=true,message="without subPath the whole claim belongs to the Hyperliquid node: write a directory of the parsers' own, whose name begins with hlparser, or set stateClaimName"
type PodTarget struct {
	// selector selects pods in the object's namespace by their labels. It must not be empty: an empty selector would run a
	// parser beside every pod. Parsers are never selected. At most 32 matchLabels and 32 matchExpressions.
	// +required
	// +kubebuilder:validation:XValidation:rule="has(self.matchLabels) && size(self.matchLabels) > 0 || has(self.matchExpressions) && size(self.matchExpressions) > 0",message="an empty selector means every pod: write the label of the Hyperliquid nodes' pods, such as matchLabels: {app: hl-node}"
	// +kubebuilder:validation:XValidation:rule="(!has(self.matchLabels) || size(self.matchLabels) <= 32) && (!has(self.matchExpressions) || size(self.matchExpressions) <= 32)",message="write at most 32 matchLabels and 32 matchExpressions"
	Selector metav1.LabelSelector `json:"selector"`

	// volume is the name of the pods' volume that holds the data. It must be a persistentVolumeClaim that several pods on
	// a node can mount: any access mode but ReadWriteOncePod.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="write the name of a volume, such as data"
	Volume string `json:"volume"`

	// subPath is the Hyperliquid node's data directory inside the claim, mounted read-only. The kubelet creates it if it
	// does not exist. Defaults to the claim's root.
	// +optional
	SubPath ClaimPath `json:"subPath,omitempty"`

	// stateSubPath is the directory for checkpoints and dead letters inside the claim that holds the data, so that they
	// move with the data. The parser uses <name> below it, which is created for runAsUser. Without subPath the whole claim
	// belongs to the Hyperliquid node, so the first directory of stateSubPath must have a name that begins with hlparser.
	// The job that prunes the node's files must exclude it: see the README. Parsers find no checkpoint below another path,
	// so a change of stateSubPath or stateClaimName is held back (Stalled, StatePathChanged) until the annotation
	// fleet.hlparser.dev/accept-state-path is set to the new path. Defaults to hlparser.
	// +optional
	// +kubebuilder:default=hlparser
	StateSubPath ClaimPath `json:"stateSubPath,omitempty"`

	// stateClaimName is a PersistentVolumeClaim in the object's namespace that holds checkpoints and dead letters instead,
	// apart from the data. All parsers mount it, so it must be ReadWriteMany if they run on several nodes. Each parser has
	// its own directory, <namespace>/<name>/<pod> below stateSubPath. If unset, the claim that holds the data is used.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="write the name of a PersistentVolumeClaim in this namespace"
	StateClaimName string `json:"stateClaimName,omitempty"`
}

// ClaimPath is a path inside a claim, relative to its root, without "." and "..", of at most 512 characters.
//
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:XValidation:rule="self.matches('^[^/]+(/[^/]+)*$') && !self.matches('(^|/)[.][.]?(/|$)')",message="write a path from the claim's root, without '/' at its ends, '.', '..' or '//', such as hl/data"
type ClaimPath string

// HostPath is an absolute path on a node, without "." and ".." and other than /, of at most 512 characters.
//
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:XValidation:rule="self.matches('^(/[^/]+)+/?$') && !self.matches('/[.][.]?(/|$)')",message="write an absolute path below /, without '.', '..' or '//', such as /home/hluser/hl/data"
type HostPath string

// Stream is one kind of output to follow.
//
// +kubebuilder:validation:XValidation:rule="!has(self.filter) || !has(self.filter.coins) || size(self.filter.coins) == 0 || self.name != 'SystemActions'",fieldPath=".filter.coins",message="events of SystemActions have no coins, so all would pass: leave coins out of this stream's filter"
// +kubebuilder:validation:XValidation:rule="!has(self.filter) || !has(self.filter.markets) || size(self.filter.markets) == 0 || self.name != 'SystemActions'",fieldPath=".filter.markets",message="events of SystemActions have no coins, so all would pass: leave markets out of this stream's filter"
// +kubebuilder:validation:XValidation:rule="!has(self.filter) || !has(self.filter.excludeCoins) || size(self.filter.excludeCoins) == 0 || self.name != 'SystemActions'",fieldPath=".filter.excludeCoins",message="events of SystemActions have no coins, so all would pass: leave excludeCoins out of this stream's filter"
// +kubebuilder:validation:XValidation:rule="!has(self.filter) || !has(self.filter.users) || size(self.filter.users) == 0 || self.name != 'OracleUpdates'",fieldPath=".filter.users",message="events of OracleUpdates have no users, so all would pass: leave users out of this stream's filter"
// +kubebuilder:validation:XValidation:rule="!has(self.filter) || !has(self.filter.statuses) || size(self.filter.statuses) == 0 || self.name in ['OrderStatuses', 'TwapStatuses']",fieldPath=".filter.statuses",message="events of Fills, Trades, RawBookDiffs, MiscEvents, OracleUpdates and SystemActions have no status, so all would pass: leave statuses out of this stream's filter"
// +kubebuilder:validation:XValidation:rule="!has(self.filter) || !has(self.filter.excludeStatuses) || size(self.filter.excludeStatuses) == 0 || self.name in ['OrderStatuses', 'TwapStatuses']",fieldPath=".filter.excludeStatuses",message="events of Fills, Trades, RawBookDiffs, MiscEvents, OracleUpdates and SystemActions have no status, so all would pass: leave excludeStatuses out of this stream's filter"
// +kubebuilder:validation:XValidation:rule="!has(self.filter) || !has(self.filter.sides) || size(self.filter.sides) == 0 || !(self.name in ['MiscEvents', 'OracleUpdates', 'SystemActions'])",fieldPath=".filter.sides",message="events of MiscEvents, OracleUpdates and SystemActions have no side, so all would pass: leave sides out of this stream's filter"
// +kubebuilder:validation:XValidation:rule="!has(self.filter) || !has(self.filter.types) || size(self.filter.types) == 0 || self.name in ['MiscEvents', 'OracleUpdates', 'SystemActions']",fieldPath=".filter.types",message="events of OrderStatuses, Fills, Trades, RawBookDiffs and TwapStatuses have no type, so all would pass: leave types out of this stream's filter"
// +kubebuilder:validation:XValidation:rule="!has(self.filter) || !has(self.filter.minNotional) || size(self.filter.minNotional) == 0 || self.name in ['OrderStatuses', 'Fills', 'Trades']",fieldPath=".filter.minNotional",message="events of RawBookDiffs, MiscEvents, OracleUpdates, SystemActions and TwapStatuses have no price and size, so all would pass: leave minNotional out of this stream's filter"
type Stream struct {
	// name identifies the stream.
	// +required
	Name StreamName `json:"name"`

	// mode is how the stream's events are framed into lines. Auto follows the directory that the node writes. Defaults to
	// Auto.
	// +optional
	Mode StreamMode `json:"mode,omitempty"`

	// sink is the name of the sink that receives the stream's records. It must be set if spec.sinks is set, and must be
	// unset otherwise.
	// +optional
	Sink SinkName `json:"sink,omitempty"`

	// filter replaces spec.filter for this stream. An empty filter passes all events. If unset, spec.filter applies.
	// +optional
	Filter *Filter `json:"filter,omitempty"`
}

// StreamName names one kind of output of a Hyperliquid node.
//
// +kubebuilder:validation:Enum=OrderStatuses;Fills;Trades;RawBookDiffs;MiscEvents;OracleUpdates;SystemActions;TwapStatuses
type StreamName string

const (
	// StreamOrderStatuses are changes of orders. The node writes them with --write-order-statuses.
	StreamOrderStatuses StreamName = "OrderStatuses"
	// StreamFills are fills, one for each side of a trade. The node writes them with --write-fills.
	StreamFills StreamName = "Fills"
	// StreamTrades are trades, with both sides. The node writes them with --write-trades, and not together with fills.
	StreamTrades StreamName = "Trades"
	// StreamRawBookDiffs are changes of orders in the book. The node writes them with --write-raw-book-diffs.
	StreamRawBookDiffs StreamName = "RawBookDiffs"
	// StreamMiscEvents are ledger updates, funding, deposits, withdrawals, delegations and more. The node writes them with
	// --write-misc-events.
	StreamMiscEvents StreamName = "MiscEvents"
	// StreamOracleUpdates are oracle prices of builder-deployed perpetuals (HIP-3). The node writes them with
	// --write-hip3-oracle-updates.
	StreamOracleUpdates StreamName = "OracleUpdates"
	// StreamSystemActions are actions of the system and of HyperEVM's CoreWriter. The node writes them with
	// --write-system-and-core-writer-actions.
	StreamSystemActions StreamName = "SystemActions"
	// StreamTwapStatuses are changes of TWAP orders. The node writes them with --write-fills.
	StreamTwapStatuses StreamName = "TwapStatuses"
)

// StreamMode is how a stream's events are framed into lines.
//
// +kubebuilder:validation:Enum=Auto;Line;Streaming;ByBlock
type StreamMode string

const (
	// StreamModeAuto follows the directory that the node writes.
	StreamModeAuto StreamMode = "Auto"
	// StreamModeLine is one event per line, without its block. It is what the node writes by default.
	StreamModeLine StreamMode = "Line"
	// StreamModeStreaming is a line with a block's header and, as a rule, one event. The node writes it with
	// --stream-with-block-info.
	StreamModeStreaming StreamMode = "Streaming"
	// StreamModeByBlock is a line with a block's header and all of its events. The node writes it with --batch-by-block.
	StreamModeByBlock StreamMode = "ByBlock"
)

// Format is the shape of a record.
//
// +kubebuilder:validation:Enum=Raw;Enveloped;EnvelopedRows;Normalized
type Format string

const (
	// FormatRaw is the event's own bytes.
	FormatRaw Format = "Raw"
	// FormatEnveloped wraps the event in an object with its origin.
	FormatEnveloped Format = "Enveloped"
	// FormatEnvelopedRows is FormatEnveloped, with a record for each entry of an event that has many.
	FormatEnvelopedRows Format = "EnvelopedRows"
	// FormatNormalized gives each stream one shape with a JSON Schema, and a record for each entry of an event that has
	// many.
	FormatNormalized Format = "Normalized"
)

// MetricsDetail is a part of the metrics that a parser does not serve by default.
//
// +kubebuilder:validation:Enum=All;ClassicBuckets;CreatedSamples
type MetricsDetail string

const (
	// MetricsAll are all metrics of the parser, of the Go runtime and of the process.
	MetricsAll MetricsDetail = "All"
	// MetricsClassicBuckets are the classic buckets of the histograms, for scrapers without native histograms.
	MetricsClassicBuckets MetricsDetail = "ClassicBuckets"
	// MetricsCreatedSamples are samples with the start of each counter and histogram, in OpenMetrics.
	MetricsCreatedSamples MetricsDetail = "CreatedSamples"
)

// Filter selects the events to deliver. An event passes if every setting lets it pass. An event with several coins,
// users or types passes a setting if one of them does; of an hourly funding event the coin and the user of one account
// must pass together. In formats EnvelopedRows and Normalized the entries of an event pass each by itself.
type Filter struct {
	// coins are the coins to keep, at most 512: exact names, all coins of a builder as "xyz:*", all spot pairs by index as
	// "@*", or all outcomes as "#*". If empty, all coins pass.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	Coins []Coin `json:"coins,omitempty"`

	// markets are the markets of the coins to keep, which the coins' names show: Perp (BTC), Spot (@107, PURR/USDC), Hip3
	// (xyz:SP500), Outcome (#1890). If empty, all markets pass.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=4
	Markets []Market `json:"markets,omitempty"`

	// excludeCoins are the coins to drop, at most 512, written as for coins. An event without a coin passes. If empty, no
	// coin is dropped.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	ExcludeCoins []Coin `json:"excludeCoins,omitempty"`

	// users are the addresses of the users to keep, at most 512. Case is ignored. If empty, all users pass.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	Users []Address `json:"users,omitempty"`

	// statuses are the statuses of orders and TWAP orders to keep, at most 128. The status of a TWAP order that an error
	// ended is error. The set is open: an unknown status is not an error. If empty, all statuses pass.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	Statuses []OrderStatus `json:"statuses,omitempty"`

	// excludeStatuses are the statuses of orders and TWAP orders to drop, at most 128. badAloPxRejected alone is most of a
	// node's output. If empty, no status is dropped.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	ExcludeStatuses []OrderStatus `json:"excludeStatuses,omitempty"`

	// sides are the sides to keep: A or Ask, B or Bid. Either spelling matches both spellings in events. If empty, both
	// sides pass.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=4
	Sides []Side `json:"sides,omitempty"`

	// types are the kinds of events to keep, at most 128: of MiscEvents the name of the variant such as Funding, and of a
	// LedgerUpdate also its delta's type such as spotTransfer; of SystemActions the action's type; of OracleUpdates the
	// update's class. The set is open: an unknown type is not an error. If empty, all types pass.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	Types []EventType `json:"types,omitempty"`

	// minNotional is the least price × original size of an event to keep, in quote units: a decimal such as "10000" or
	// "0.5". It applies to OrderStatuses, Fills and Trades. If unset, there is no minimum.
	// +optional
	// +kubebuilder:validation:MaxLength=61
	// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9]{1,30}([.][0-9]{1,30})?$')",message="write a decimal such as \"10000\" or \"0.5\""
	MinNotional string `json:"minNotional,omitempty"`
}

// Coin is a coin's name, a builder's prefix such as "xyz:*", "@*" or "#*".
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:XValidation:rule="self.matches('^([^*]+|[^*]+:[*]|[@#][*])$')",message="write a coin's exact name such as BTC, a builder's prefix such as xyz:*, @* for spot pairs or #* for outcomes"
type Coin string

// Market is a kind of coin, which its name shows.
//
// +kubebuilder:validation:Enum=Perp;Spot;Hip3;Outcome
type Market string

const (
	// MarketPerp are the perpetuals of the chain itself, such as BTC and kPEPE.
	MarketPerp Market = "Perp"
	// MarketSpot are spot pairs, such as @107 and PURR/USDC.
	MarketSpot Market = "Spot"
	// MarketHip3 are builder-deployed perpetuals (HIP-3), such as xyz:SP500.
	MarketHip3 Market = "Hip3"
	// MarketOutcome are outcome markets, such as #1890.
	MarketOutcome Market = "Outcome"
)

// Address is an account's address: 0x and 40 hexadecimal digits.
//
// +kubebuilder:validation:MaxLength=42
// +kubebuilder:validation:XValidation:rule="self.matches('^0[xX][0-9a-fA-F]{40}$')",message="write an address: 0x and 40 hexadecimal digits"
type Address string

// OrderStatus is a status of an order, as the Hyperliquid node writes it.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=64
type OrderStatus string

// EventType is a kind of event, as the Hyperliquid node writes it.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=64
type EventType string

// Side is a side of an order. Hyperliquid nodes write it as A or Ask, and B or Bid.
//
// +kubebuilder:validation:Enum=A;B;Ask;Bid
type Side string

const (
	// SideA is the ask side, as SideAsk.
	SideA Side = "A"
	// SideB is the bid side, as SideBid.
	SideB Side = "B"
	// SideAsk is the ask side.
	SideAsk Side = "Ask"
	// SideBid is the bid side.
	SideBid Side = "Bid"
)

// FileSink writes records to files on the node or on a claim, in one directory per stream.
//
// +kubebuilder:validation:XValidation:rule="has(self.path) || has(self.claimName)",message="write path, a directory of the node, or claimName"
// +kubebuilder:validation:XValidation:rule="!has(self.maxTotalSize) || !string(self.maxTotalSize).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') || has(self.maxSize) && !string(self.maxSize).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') || quantity(string(self.maxTotalSize)).asApproximateFloat() >= 2.0 * (has(self.maxSize) ? quantity(string(self.maxSize)).asApproximateFloat() : 1073741824.0)",fieldPath=".maxTotalSize",message="write at least twice maxSize, so that closed files can be removed when the limit is reached"
type FileSink struct {
	// path is the directory on the host. It must be exactly one of the manager's --output-root. The parser uses
	// <namespace>/<name> below it, which is created for runAsUser. With claimName, path is a directory of the claim, such
	// as /archive, and defaults to the claim's root. Parsers that share a directory each have their own below it, named
	// after the target. Required without claimName.
	// +optional
	Path HostPath `json:"path,omitempty"`

	// claimName is the PersistentVolumeClaim in the object's namespace to write to. All parsers mount it, so it must be
	// ReadWriteMany if they run on several nodes. If unset, records are written to the host.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="write the name of a PersistentVolumeClaim in this namespace"
	ClaimName string `json:"claimName,omitempty"`

	// maxSize bounds a file, in bytes on disk, from 64Ki to 1Ei. A file is closed before it would exceed it. Defaults to
	// 1Gi.
	// +optional
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('64Ki')) >= 0 && quantity(string(self)).compareTo(quantity('1Ei')) <= 0",message="write a size of at least 64Ki, such as 1Gi, and at most 1Ei"
	MaxSize *resource.Quantity `json:"maxSize,omitempty"`

	// maxAge is the age at which a file is closed, from 1s to 24h. It has no effect with rotate Hour. Defaults to 1h.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 1000 && duration(self).getMilliseconds() <= 86400000",message="write a duration from 1s to 24h, such as 1h"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`

	// maxTotalSize bounds one stream's files together, in bytes on disk, including closed files that are still there: from
	// 128Ki to 1Ei, and at least twice maxSize. At the limit the stream waits until files are removed; nothing is deleted.
	// If unset, there is no limit.
	// +optional
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('128Ki')) >= 0 && quantity(string(self)).compareTo(quantity('1Ei')) <= 0",message="write a size of at least 128Ki and twice maxSize, such as 100Gi, and at most 1Ei"
	MaxTotalSize *resource.Quantity `json:"maxTotalSize,omitempty"`

	// minFreePercent is the share of the file system that must be free, in percent, from 0 to 90. Below it the streams
	// wait. 0 disables the check. Defaults to 10.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=90
	MinFreePercent *int32 `json:"minFreePercent,omitempty"`

	// rotate is what closes a file. Size closes it by maxSize and maxAge. Hour closes it by maxSize, and at the first
	// record of another of the Hyperliquid node's hour files, so that each file belongs to exactly one hour file and the
	// same input yields the same names. Defaults to Size.
	// +optional
	Rotate Rotation `json:"rotate,omitempty"`

	// compress is the compression of the files. With zstd they are named .jsonl.zst. If unset, files are not compressed.
	// +optional
	Compress FileCompression `json:"compress,omitempty"`
}

// Rotation is what closes a file of the file sink.
//
// +kubebuilder:validation:Enum=Size;Hour
type Rotation string

const (
	// RotationSize closes a file by maxSize and maxAge.
	RotationSize Rotation = "Size"
	// RotationHour closes a file by maxSize, and at the first record of another of the Hyperliquid node's hour files.
	RotationHour Rotation = "Hour"
)

// FileCompression is the compression of the file sink's files.
//
// +kubebuilder:validation:Enum=zstd
type FileCompression string

const (
	// FileCompressionZstd compresses files with Zstandard.
	FileCompressionZstd FileCompression = "zstd"
)

// Order is how the records of several streams are ordered.
type Order struct {
	// by is Block: the records of a block are delivered together, OrderStatuses before RawBookDiffs before Fills before
	// other streams, and after them a record of the stream "_marker" that describes the block, also if the filter lets
	// nothing of it pass.
	// +required
	By OrderBy `json:"by"`

	// patience is how long the other streams wait for one that brings nothing, from 100ms to 1h. They then continue
	// without it, and a record of the stream "_marker" says so. Defaults to 5s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 100 && duration(self).getMilliseconds() <= 3600000",message="write a duration from 100ms to 1h, such as 5s"
	Patience *metav1.Duration `json:"patience,omitempty"`
}

// OrderBy is what records are ordered by.
//
// +kubebuilder:validation:Enum=Block
type OrderBy string

// OrderByBlock orders records by the number of their block.
const OrderByBlock OrderBy = "Block"

// Engine sizes the parser's pipeline.
//
// +kubebuilder:validation:XValidation:rule="(has(self.startAt) && self.startAt == 'Block') == has(self.startAtBlock)",fieldPath=".startAtBlock",message="startAtBlock belongs to startAt: Block: write both, or leave startAtBlock out"
type Engine struct {
	// bufferLimit bounds the buffers of one parser together, in bytes, from 4Mi to 4Gi. At the limit the reader waits, and
	// nothing is dropped. Defaults to 32Mi.
	// +optional
	// +kubebuilder:default="32Mi"
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('4Mi')) >= 0 && quantity(string(self)).compareTo(quantity('4Gi')) <= 0",message="write a size from 4Mi to 4Gi, such as 32Mi"
	BufferLimit *resource.Quantity `json:"bufferLimit,omitempty"`

	// parallelThreshold is the number of lines from which all workers process a batch, from 1 to 1000000000. One worker
	// processes smaller batches. Defaults to 1000.
	// +optional
	// +kubebuilder:default=1000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	ParallelThreshold *int32 `json:"parallelThreshold,omitempty"`

	// workers is the number of CPUs that one batch may use, from 1 to 256. Defaults to 2.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=256
	Workers *int32 `json:"workers,omitempty"`

	// startAt is where a target without a checkpoint begins: End, after the last whole line on disk, Beginning, with the
	// oldest file on disk, or Block, with the first line of block startAtBlock. Defaults to End.
	// +optional
	// +kubebuilder:default=End
	StartAt StartAt `json:"startAt,omitempty"`

	// startAtBlock is the block that a target without a checkpoint begins with, from 1. Lines of earlier blocks are not
	// delivered. If the Hyperliquid node has not written the block yet, nothing is delivered until it has. It requires
	// startAt: Block, and lines that name their block, so mode Line is not allowed. In mode Auto, a stream that the node
	// writes in line mode fails. If unset, startAt alone determines the start.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=999999999999999999
	StartAtBlock *int64 `json:"startAtBlock,omitempty"`

	// maxLineBytes is the longest line that is read, in bytes, from 1Ki to 1Gi. Longer lines are skipped and counted.
	// Defaults to 64Mi.
	// +optional
	// +kubebuilder:default="64Mi"
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('1Ki')) >= 0 && quantity(string(self)).compareTo(quantity('1Gi')) <= 0",message="write a size from 1Ki to 1Gi, such as 64Mi"
	MaxLineBytes *resource.Quantity `json:"maxLineBytes,omitempty"`

	// readRate bounds what one parser reads from disk, in bytes per second for all streams together, from 4Mi to 1Ti, so
	// that catching up leaves disk bandwidth to the Hyperliquid node beside it. It must exceed the node's write rate, or
	// the parser falls behind. 0 means no limit. Defaults to 0.
	// +optional
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && (quantity(string(self)).compareTo(quantity('0')) == 0 || quantity(string(self)).compareTo(quantity('4Mi')) >= 0 && quantity(string(self)).compareTo(quantity('1Ti')) <= 0)",message="write bytes per second from 4Mi to 1Ti, such as 100Mi, or 0 for no limit"
	ReadRate *resource.Quantity `json:"readRate,omitempty"`

	// deduplicateBlocks skips blocks that a Hyperliquid node writes again after a restart. It requires lines that name
	// their block, so mode Line is not allowed. In mode Auto it has no effect while the node writes in line mode. Defaults
	// to false.
	// +optional
	DeduplicateBlocks bool `json:"deduplicateBlocks,omitempty"`

	// markers adds records of the stream "_marker" that report gaps, replays, late blocks and skipped data, for consumers
	// such as order-book builders, who read no metrics. Gaps are detected only in mode ByBlock. Defaults to false.
	// +optional
	Markers bool `json:"markers,omitempty"`
}

// StartAt is where a target without a checkpoint begins.
//
// +kubebuilder:validation:Enum=End;Beginning;Block
type StartAt string

const (
	// StartAtEnd begins after the last whole line on disk.
	StartAtEnd StartAt = "End"
	// StartAtBeginning begins with the oldest file on disk.
	StartAtBeginning StartAt = "Beginning"
	// StartAtBlock begins with the first line of a block, or of the next later one.
	StartAtBlock StartAt = "Block"
)

// Growth configures how the operator judges reports, and how it responds to a bad verdict.
//
// +kubebuilder:validation:XValidation:rule="!has(self.pollInterval) || !has(self.stuckAfter) || !self.pollInterval.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') || !self.stuckAfter.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') || duration(self.stuckAfter).getMilliseconds() >= 3 * duration(self.pollInterval).getMilliseconds()",fieldPath=".stuckAfter",message="fewer than three reports cannot show a hang: write at least 3 × pollInterval"
// +kubebuilder:validation:XValidation:rule="!has(self.pollInterval) || !has(self.lag) || !self.pollInterval.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') || !self.lag.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') || duration(self.lag).getMilliseconds() >= 3 * duration(self.pollInterval).getMilliseconds()",fieldPath=".lag",message="fewer than three reports cannot show a lag: write at least 3 × pollInterval"
type Growth struct {
	// pollInterval is the time between two reports of one parser, from 1s to 10m. The operator requests at most 1,000
	// reports per second of an object's parsers: a larger fleet has a longer interval, and stuckAfter and lag are at least
	// three of them. Defaults to 5s.
	// +optional
	// +kubebuilder:default="5s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 1000 && duration(self).getMilliseconds() <= 600000",message="write a duration from 1s to 10m, such as 5s"
	PollInterval *metav1.Duration `json:"pollInterval,omitempty"`

	// lag is the age of a stream's oldest undelivered line from which the operator looks for the cause: from three poll
	// intervals to 24h. Defaults to 30s, or to three poll intervals if that is longer.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 1000 && duration(self).getMilliseconds() <= 86400000",message="write a duration from 1s to 24h, such as 30s"
	Lag *metav1.Duration `json:"lag,omitempty"`

	// stuckAfter is how long whole lines may wait while no stage moves before the parser is Stuck: from three poll
	// intervals to 1h. Defaults to 30s.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 1000 && duration(self).getMilliseconds() <= 3600000",message="write a duration from 1s to 1h, such as 30s"
	StuckAfter *metav1.Duration `json:"stuckAfter,omitempty"`

	// sourceStalledAfter is how long the Hyperliquid node may write nothing before a stream is SourceStalled, by stream:
	// from 10s to 24h, or 0s for no limit. Defaults to 60s for OrderStatuses, RawBookDiffs and every stream in mode
	// ByBlock, which are written with every block, and to no limit for other streams. In addition, a stream that has
	// nothing to read at all while the node writes others is SourceStalled after 120s by default.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, k in ['OrderStatuses', 'Fills', 'Trades', 'RawBookDiffs', 'MiscEvents', 'OracleUpdates', 'SystemActions', 'TwapStatuses'])",message="write the names of streams, such as OrderStatuses"
	SourceStalledAfter map[StreamName]StallTime `json:"sourceStalledAfter,omitempty"`

	// retention is how long the Hyperliquid node's files are kept before they are pruned, from 10m to 8760h. Lines that
	// wait for half of it raise the alert NearRetention. Defaults to 24h.
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 600000 && duration(self).getMilliseconds() <= 31536000000",message="write a duration from 10m to 8760h, such as 24h"
	Retention *metav1.Duration `json:"retention,omitempty"`

	// action is the response to a verdict that a restart may cure: Restart, or Alert, which only reports it. Defaults to
	// Restart.
	// +optional
	// +kubebuilder:default=Restart
	Action GrowthAction `json:"action,omitempty"`

	// restart bounds restarts. If unset, the defaults of its fields apply.
	// +optional
	// +kubebuilder:default={}
	Restart Restart `json:"restart,omitzero"`

	// fleetWideThreshold is the number or percentage of targets that may be bad at once before the operator attributes the
	// fault to a cause outside the parsers and restarts none of them: a number from 2, or a percentage from 1% to 100%,
	// rounded up and at least 2 targets. Defaults to 30%.
	// +optional
	// +kubebuilder:default="30%"
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 2 && int(self) <= 2147483647 : string(self).matches('^(100|[1-9][0-9]?)%$')",message="write a number of targets from 2, or a percentage from 1% to 100% such as \"30%\""
	FleetWideThreshold *intstr.IntOrString `json:"fleetWideThreshold,omitempty"`
}

// StallTime is a time without new lines: from 10s to 24h, or 0s for no limit.
//
// +kubebuilder:validation:Type=string
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule="self == '0s' || self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 10000 && duration(self).getMilliseconds() <= 86400000",message="write a duration from 10s to 24h, such as 60s, or 0s for no limit"
type StallTime struct {
	metav1.Duration `json:",inline"`
}

// GrowthAction is the response to a verdict that a restart may cure.
//
// +kubebuilder:validation:Enum=Restart;Alert
type GrowthAction string

const (
	// GrowthActionRestart restarts the parser, within the bounds of Restart.
	GrowthActionRestart GrowthAction = "Restart"
	// GrowthActionAlert only reports the verdict: in conditions, events and metrics.
	GrowthActionAlert GrowthAction = "Alert"
)

// Restart bounds the restarts that verdicts lead to.
type Restart struct {
	// cooldown is the minimum time between two restarts of one target, from 10s to 1h. It doubles with each further
	// restart, up to 1h, until the target has been Healthy for 1h. Defaults to 5m.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 10000 && duration(self).getMilliseconds() <= 3600000",message="write a duration from 10s to 1h, such as 5m"
	Cooldown *metav1.Duration `json:"cooldown,omitempty"`

	// maxPerHour is the maximum number of restarts of one target within an hour, from 1 to 20. Beyond it the verdict is
	// only reported. Defaults to 3.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=20
	MaxPerHour *int32 `json:"maxPerHour,omitempty"`

	// maxConcurrent is the maximum number or percentage of targets in a restart at once: a number from 1, or a percentage
	// from 1% to 100%, rounded up. It is a limit inside rollout.maxUnavailable. Defaults to 10%.
	// +optional
	// +kubebuilder:default="10%"
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 1 && int(self) <= 2147483647 : string(self).matches('^(100|[1-9][0-9]?)%$')",message="write a number of targets from 1, or a percentage from 1% to 100% such as \"10%\""
	MaxConcurrent *intstr.IntOrString `json:"maxConcurrent,omitempty"`
}

// Rollout configures how a new revision reaches the parsers, and how many of them may be unavailable at once.
type Rollout struct {
	// maxUnavailable is the maximum number or percentage of targets without a ready parser because of a rollout or a
	// restart: a number from 1, or a percentage from 1% to 100%, rounded up. Nodes that are not ready do not count.
	// Defaults to 10%.
	// +optional
	// +kubebuilder:default="10%"
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 1 && int(self) <= 2147483647 : string(self).matches('^(100|[1-9][0-9]?)%$')",message="write a number of targets from 1, or a percentage from 1% to 100% such as \"10%\""
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`

	// canary tries a new revision on a few targets before the others get it. The first revision of an object has no
	// canary. If unset, a revision rolls out within maxUnavailable right away.
	// +optional
	Canary *Canary `json:"canary,omitempty"`

	// revisionHistoryLimit is the number of unused revisions to keep for a rollback, from 0 to 100. Defaults to 5.
	// +optional
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	RevisionHistoryLimit *int32 `json:"revisionHistoryLimit,omitempty"`
}

// Canary configures the trial of a new revision. Its targets are judged like all others, and compared with their state
// before the rollout. If one of them is worse, the canaries return to the last good revision (Stalled, CanaryFailed);
// the spec is not changed.
type Canary struct {
	// count is the number or percentage of targets that try a new revision: a number from 1, or a percentage from 1% to
	// 100%, rounded up. It is capped at the size of the fleet and at 500. Defaults to 1.
	// +optional
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 1 && int(self) <= 2147483647 : string(self).matches('^(100|[1-9][0-9]?)%$')",message="write a number of targets from 1, or a percentage from 1% to 100% such as \"10%\""
	Count *intstr.IntOrString `json:"count,omitempty"`

	// soak is how long the canaries must be observed to be good, from 1s to 168h. Faults that the revision does not cause,
	// such as a sink that is down, neither fail the canaries nor count as soak time. Defaults to 1h.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 1000 && duration(self).getMilliseconds() <= 604800000",message="write a duration from 1s to 168h, such as 1h"
	Soak *metav1.Duration `json:"soak,omitempty"`
}
