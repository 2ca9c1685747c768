package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// HyperliquidParserSpec is what is wanted of a fleet.
//
// +kubebuilder:validation:XValidation:rule="!has(self.engine) || !has(self.engine.deduplicateBlocks) || !self.engine.deduplicateBlocks || self.streams.all(s, !has(s.mode) || s.mode != 'Line')",fieldPath=".engine.deduplicateBlocks",message="lines of mode Line do not name their block: leave deduplicateBlocks out, or set the streams' mode to Auto, Streaming or ByBlock"
// +kubebuilder:validation:XValidation:rule="!has(self.format) || self.format != 'Normalized' || self.streams.all(s, s.name in ['OrderStatuses', 'Fills', 'Trades', 'RawBookDiffs'])",fieldPath=".format",message="Normalized has no shape for MiscEvents, OracleUpdates and SystemActions: write Enveloped, or leave these streams out"
// +kubebuilder:validation:XValidation:rule="has(self.sink) != has(self.sinks)",fieldPath=".sink",message="write either sink, or sinks of which each stream names one"
// +kubebuilder:validation:XValidation:rule="has(self.sinks) ? self.streams.all(s, has(s.sink) && self.sinks.exists(n, n.name == s.sink)) : self.streams.all(s, !has(s.sink))",fieldPath=".streams",message="with sinks each stream's sink is the name of one of them; without, it is left out"
// +kubebuilder:validation:XValidation:rule="!has(self.sinks) || self.sinks.all(n, self.streams.exists(s, has(s.sink) && s.sink == n.name))",fieldPath=".sinks",message="no stream goes to one of the sinks: name it in a stream's sink, or leave it out"
// +kubebuilder:validation:XValidation:rule="!has(self.sinks) || (self.sinks.filter(n, has(n.file)).size() <= 1 && self.sinks.filter(n, has(n.stdout)).size() <= 1)",fieldPath=".sinks",message="a parser has one output directory and one standard output: write file and stdout once each"
// +kubebuilder:validation:XValidation:rule="!has(self.sink) || !has(self.sink.nats) || !has(self.sink.nats.identity) || self.sink.nats.identity != 'Chain' || self.streams.all(s, has(s.mode) && s.mode == 'ByBlock')",fieldPath=".sink.nats.identity",message="identity Chain tells events by their place in the block, which only by-block lines show: set the streams' mode to ByBlock"
type HyperliquidParserSpec struct {
	// target says what gets one parser each.
	// +required
	Target Target `json:"target"`

	// streams are the kinds of output to follow; each needs the flag of the Hyperliquid node that writes it.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=7
	Streams []Stream `json:"streams"`

	// filter says which events are delivered. An empty list passes all; each stream applies the lists that it has fields for.
	// +optional
	Filter Filter `json:"filter,omitzero"`

	// format is the shape of a record: Raw is the event's own bytes; Enveloped puts them into an object that says
	// where they came from; Normalized gives each stream one shape with a JSON Schema. OrderStatuses, Fills, Trades and
	// RawBookDiffs have one.
	// +optional
	// +kubebuilder:default=Enveloped
	Format Format `json:"format,omitempty"`

	// sink says where records go. Left out, there are sinks.
	// +optional
	Sink Sink `json:"sink,omitzero"`

	// sinks has several of them: the parser reads once, and each stream goes to the one that it names.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=7
	Sinks []NamedSink `json:"sinks,omitempty"`

	// engine sizes the parser's pipeline.
	// +optional
	// +kubebuilder:default={}
	Engine Engine `json:"engine,omitzero"`

	// growth says how reports are judged and what is done about a bad verdict. Changing it replaces no pod.
	// +optional
	// +kubebuilder:default={}
	Growth Growth `json:"growth,omitzero"`

	// rollout says how a new revision gets to the parsers, and how many may be unavailable at once. Changing it replaces no pod.
	// +optional
	// +kubebuilder:default={}
	Rollout Rollout `json:"rollout,omitzero"`

	// paused stops rollouts and restarts; missing pods are still recreated.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// image of the parser. Default: the manager's --parser-image. Its repository must be one of the manager's --allowed-images, or below
	// one that ends in '/'. A short name is one of docker.io, as everywhere.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^(([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*|[[][a-fA-F0-9:]+[]])(:[0-9]+)?/)?[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*(:[a-zA-Z0-9_][-a-zA-Z0-9_.]{0,127})?(@(sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}))?$') && !self.matches('^[a-f0-9]{64}$')",message="write the reference of an image, such as registry.example/hlparser:v1"
	Image string `json:"image,omitempty"`

	// imagePullPolicy of the parser's container.
	// +optional
	// +kubebuilder:validation:Enum=Always;IfNotPresent;Never
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`

	// imagePullSecrets name Secrets in this namespace. The kubelet reads them; the operator does not.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`

	// resources of the parser's container. Default: requests of 250m CPU and 256Mi memory and a limit of 512Mi memory,
	// so that the parser does not starve the Hyperliquid node beside it. Only cpu, memory and ephemeral-storage may be asked for:
	// other resources, and claims, are devices of the node.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`

	// tolerations in addition to those that every parser has, which are a DaemonSet's.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// affinity of the pods. A required node affinity narrows the targets.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// priorityClassName of the pods. It must match one of the manager's --allowed-priority-classes (default: none).
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`

	// podLabels are added to the pods. Each must match one of the manager's --allowed-pod-labels (default: none):
	// injectors, NetworkPolicies and Services act on labels.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('fleet.hlparser.dev/'))",message="labels with the prefix fleet.hlparser.dev/ are the operator's: write another prefix"
	PodLabels map[string]LabelValue `json:"podLabels,omitempty"`

	// podAnnotations are added to the pods. Each must match one of the manager's --allowed-pod-annotations (default: none): injectors,
	// networks and runtimes act on annotations.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('fleet.hlparser.dev/'))",message="annotations with the prefix fleet.hlparser.dev/ are the operator's: write another prefix"
	PodAnnotations map[string]AnnotationValue `json:"podAnnotations,omitempty"`

	// terminationGracePeriodSeconds is the time that a parser has to finish its batch and commit.
	// +optional
	// +kubebuilder:default=30
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	TerminationGracePeriodSeconds *int64 `json:"terminationGracePeriodSeconds,omitempty"`

	// runAsUser is the user id of the parser. The default is that of the official Hyperliquid node image. Never root. Below 1000, where
	// the node's own users are, it must be one of the manager's --allowed-users.
	// +optional
	// +kubebuilder:default=10000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483647
	RunAsUser *int64 `json:"runAsUser,omitempty"`

	// runAsGroup is the primary group id of the parser. The default is that of the official Hyperliquid node image. Below 1000 it must be
	// one of the manager's --allowed-groups.
	// +optional
	// +kubebuilder:default=10000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483647
	RunAsGroup *int64 `json:"runAsGroup,omitempty"`

	// supplementalGroups are further group ids, for example one that may read the data. Below 1000, where groups such as disk and docker
	// are, each must be one of the manager's --allowed-groups.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=2147483647
	SupplementalGroups []int64 `json:"supplementalGroups,omitempty"`

	// seLinuxOptions of the pods, for nodes whose data carries a label that containers may not read. level is free; type must match one
	// of the manager's --allowed-selinux-types (default: none); user and role are never allowed.
	// +optional
	SELinuxOptions *corev1.SELinuxOptions `json:"seLinuxOptions,omitempty"`
}

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$`
type LabelValue string

// AnnotationValue is the value of an annotation.
//
// +kubebuilder:validation:MaxLength=4096
type AnnotationValue string

// Target says what gets one parser each: exactly one field is set. Which one it is cannot be changed.
//
// +kubebuilder:validation:ExactlyOneOf=nodes;pods
// +kubebuilder:validation:XValidation:rule="has(self.nodes) == has(oldSelf.nodes)",message="parsers of one kind of target find no checkpoint of the other's: delete the object and create it anew"
type Target struct {
	// nodes puts one parser on each Kubernetes node that holds a Hyperliquid node's data.
	// +optional
	Nodes *NodeTarget `json:"nodes,omitempty"`

	// pods puts one parser beside each pod that runs a Hyperliquid node on a claim, on the same Kubernetes node, and follows it.
	// +optional
	Pods *PodTarget `json:"pods,omitempty"`
}

// NodeTarget selects nodes, and says where on them the data is and the parser's state goes.
//
// +kubebuilder:validation:XValidation:rule="self.dataPath != self.statePath",fieldPath=".statePath",message="the data is mounted read-only: write a directory other than dataPath"
type NodeTarget struct {
	// selector of nodes, by their labels. An empty selector is refused: it would put a parser on every node.
	// +required
	// +kubebuilder:validation:XValidation:rule="has(self.matchLabels) && size(self.matchLabels) > 0 || has(self.matchExpressions) && size(self.matchExpressions) > 0",message="an empty selector means every node: write the label of the nodes that hold data, such as matchLabels: {hyperliquid.xyz/role: node}"
	// +kubebuilder:validation:XValidation:rule="(!has(self.matchLabels) || size(self.matchLabels) <= 32) && (!has(self.matchExpressions) || size(self.matchExpressions) <= 32)",message="write at most 32 matchLabels and 32 matchExpressions"
	Selector metav1.LabelSelector `json:"selector"`

	// dataPath is the Hyperliquid node's data directory on the host. It must exist; it is mounted read-only. It must be at or below
	// one of the manager's --allowed-data-paths, and apart from its --state-root and --output-root.
	// +required
	DataPath HostPath `json:"dataPath"`

	// statePath is the directory on the host for checkpoints and dead letters; <namespace>/<name> below it is created, for
	// runAsUser, and used. It must be one of the manager's --state-root, not a directory below one: what lies below is each object's
	// own. Parsers find no checkpoint below another path, so a change is held back (Stalled, StatePathChanged) until the annotation
	// fleet.hlparser.dev/accept-state-path names the new path.
	// +optional
	// +kubebuilder:default="/var/lib/hlparser"
	StatePath HostPath `json:"statePath,omitempty"`
}

// PodTarget selects the pods of Hyperliquid nodes, and says where on their claims the data is and the parsers' state goes. A parser
// comes when its pod runs, and goes when it ends, so that it never holds the claim back.
//
// +kubebuilder:validation:XValidation:rule="has(self.stateClaimName) || !has(self.subPath) || !has(self.stateSubPath) || self.stateSubPath != self.subPath && !self.stateSubPath.startsWith(self.subPath + '/')",fieldPath=".stateSubPath",message="the data is the Hyperliquid node's: write a directory outside of subPath"
// +kubebuilder:validation:XValidation:rule="has(self.stateClaimName) || has(self.subPath) || !has(self.stateSubPath) || self.stateSubPath.matches('^[.]?hlparser[^/]*(/|$)') || oldSelf.hasValue() && !has(oldSelf.value().subPath) && has(oldSelf.value().stateSubPath) && oldSelf.value().stateSubPath == self.stateSubPath",fieldPath=".stateSubPath",optionalOldSelf=true,message="without subPath all of the claim is the Hyperliquid node's: write a directory of the parsers' own, whose name begins with hlparser, or set stateClaimName"
type PodTarget struct {
	// selector of pods in the object's namespace, by their labels. An empty selector is refused: it would put a parser beside every
	// pod. Parsers are never selected.
	// +required
	// +kubebuilder:validation:XValidation:rule="has(self.matchLabels) && size(self.matchLabels) > 0 || has(self.matchExpressions) && size(self.matchExpressions) > 0",message="an empty selector means every pod: write the label of the Hyperliquid nodes' pods, such as matchLabels: {app: hl-node}"
	// +kubebuilder:validation:XValidation:rule="(!has(self.matchLabels) || size(self.matchLabels) <= 32) && (!has(self.matchExpressions) || size(self.matchExpressions) <= 32)",message="write at most 32 matchLabels and 32 matchExpressions"
	Selector metav1.LabelSelector `json:"selector"`

	// volume is the name of the pods' volume that holds the data. It must be a persistentVolumeClaim that several pods of a node may
	// mount: any access mode but ReadWriteOncePod.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="write the name of a volume, such as data"
	Volume string `json:"volume"`

	// subPath is the Hyperliquid node's data directory inside the claim, mounted read-only; left out, it is the claim's root. The
	// kubelet creates it where the Hyperliquid node has not.
	// +optional
	SubPath ClaimPath `json:"subPath,omitempty"`

	// stateSubPath is the directory for checkpoints and dead letters inside the claim that holds the data, with which they so travel;
	// <name> below it is created, for runAsUser, and used. Without subPath, where all of the claim is the Hyperliquid node's, it must
	// begin with a directory whose name begins with hlparser. Whatever prunes the node's files must leave it alone: see the README.
	// Parsers find no checkpoint below another one, so a change of it or of stateClaimName is held back (Stalled, StatePathChanged)
	// until the annotation fleet.hlparser.dev/accept-state-path names the new one.
	// +optional
	// +kubebuilder:default=hlparser
	StateSubPath ClaimPath `json:"stateSubPath,omitempty"`

	// stateClaimName is a PersistentVolumeClaim in the object's namespace to keep checkpoints and dead letters in instead, away from
	// the data. All parsers mount it, so it must be ReadWriteMany where they run on several nodes; each has a directory of its own,
	// <namespace>/<name>/<pod> below stateSubPath.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="write the name of a PersistentVolumeClaim in this namespace"
	StateClaimName string `json:"stateClaimName,omitempty"`
}

// ClaimPath is a path inside a claim, relative to its root, without "." and "..".
//
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:XValidation:rule="self.matches('^[^/]+(/[^/]+)*$') && !self.matches('(^|/)[.][.]?(/|$)')",message="write a path from the claim's root, without '/' at its ends, '.', '..' or '//', such as hl/data"
type ClaimPath string

// HostPath is an absolute path on a node, without "." and ".." and not the root.
//
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:XValidation:rule="self.matches('^(/[^/]+)+/?$') && !self.matches('/[.][.]?(/|$)')",message="write an absolute path below /, without '.', '..' or '//', such as /home/hluser/hl/data"
type HostPath string

// Stream is one kind of output to follow.
type Stream struct {
	// name of the stream.
	// +required
	Name StreamName `json:"name"`

	// mode is how the stream's events are framed into lines. Auto follows the directory that is being written.
	// +optional
	// +kubebuilder:default=Auto
	Mode StreamMode `json:"mode,omitempty"`

	// sink is the name of the one of sinks that the stream's records go to.
	// +optional
	Sink SinkName `json:"sink,omitempty"`
}

// StreamName names one kind of output of a Hyperliquid node.
//
// +kubebuilder:validation:Enum=OrderStatuses;Fills;Trades;RawBookDiffs;MiscEvents;OracleUpdates;SystemActions
type StreamName string

// StreamMode is how a stream's events are framed into lines.
//
// +kubebuilder:validation:Enum=Auto;Line;Streaming;ByBlock
type StreamMode string

// Format is the shape of a record.
//
// +kubebuilder:validation:Enum=Raw;Enveloped;Normalized
type Format string

// Filter says which events are delivered.
type Filter struct {
	// coins to keep: exact names, or all of a builder as "xyz:*".
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	Coins []Coin `json:"coins,omitempty"`

	// users to keep, by address; case is ignored.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	Users []Address `json:"users,omitempty"`

	// statuses of orders to keep. The set is open: a status that is not known is no error.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	Statuses []OrderStatus `json:"statuses,omitempty"`

	// excludeStatuses are statuses of orders to drop; badAloPxRejected alone is most of what a node writes.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	ExcludeStatuses []OrderStatus `json:"excludeStatuses,omitempty"`

	// sides to keep: A (ask), B (bid).
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	Sides []Side `json:"sides,omitempty"`

	// minNotional keeps events of at least this price × original size, in quote units, as a decimal such as "10000" or "0.5".
	// It does not apply to book diffs, whose removals have no size.
	// +optional
	// +kubebuilder:validation:MaxLength=61
	// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9]{1,30}([.][0-9]{1,30})?$')",message="write a decimal such as \"10000\" or \"0.5\""
	MinNotional string `json:"minNotional,omitempty"`
}

// Coin is a coin's name.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:XValidation:rule="self.matches('^([^*]+|[^*]+:[*])$')",message="write a coin's exact name such as BTC, or all of a builder's as xyz:*"
type Coin string

// Address is an account's address.
//
// +kubebuilder:validation:MaxLength=42
// +kubebuilder:validation:XValidation:rule="self.matches('^0[xX][0-9a-fA-F]{40}$')",message="write an address: 0x and 40 hexadecimal digits"
type Address string

// OrderStatus is a status of an order, as the Hyperliquid node writes it.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=64
type OrderStatus string

// Side of an order, as the Hyperliquid node writes it: A (ask) or B (bid).
//
// +kubebuilder:validation:Enum=A;B
type Side string

// FileSink writes records into files on the node or on a claim, a directory a stream.
//
// +kubebuilder:validation:XValidation:rule="has(self.path) || has(self.claimName)",message="write path, a directory of the node, or claimName"
// +kubebuilder:validation:XValidation:rule="!has(self.maxTotalSize) || !has(self.maxSize) || !string(self.maxTotalSize).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') || !string(self.maxSize).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') || quantity(string(self.maxTotalSize)).asApproximateFloat() >= 2.0 * quantity(string(self.maxSize)).asApproximateFloat()",fieldPath=".maxTotalSize",message="write at least twice maxSize, so that there are closed files to take away when it is reached"
type FileSink struct {
	// path is the directory on the host, one of the manager's --output-root; <namespace>/<name> below it is created, for
	// runAsUser, and used. With claimName it is a directory of the claim, such as /archive, and may be left out. Where several parsers
	// share a directory, each has one of its own below it, named after its target.
	// +optional
	Path HostPath `json:"path,omitempty"`

	// claimName is the PersistentVolumeClaim in the object's namespace to write to. All parsers mount it, so it must be
	// ReadWriteMany where they run on several nodes.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="write the name of a PersistentVolumeClaim in this namespace"
	ClaimName string `json:"claimName,omitempty"`

	// maxSize closes a file before it would grow beyond this, as it is on disk, from 64Ki.
	// +optional
	// +kubebuilder:default="1Gi"
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('64Ki')) >= 0 && quantity(string(self)).compareTo(quantity('1Ei')) <= 0",message="write a size of at least 64Ki, such as 1Gi, and at most 1Ei"
	MaxSize *resource.Quantity `json:"maxSize,omitempty"`

	// maxAge closes a file that gets this old, from 1s to 24h. With rotate Hour it is not used.
	// +optional
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 1000 && duration(self).getMilliseconds() <= 86400000",message="write a duration from 1s to 24h, such as 1h"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`

	// maxTotalSize is what one stream's files may hold together, those that are closed and still there included. There the stream waits
	// until somebody takes some away; nothing is deleted. Left out, there is no limit.
	// +optional
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('128Ki')) >= 0 && quantity(string(self)).compareTo(quantity('1Ei')) <= 0",message="write a size of at least 128Ki and twice maxSize, such as 100Gi, and at most 1Ei"
	MaxTotalSize *resource.Quantity `json:"maxTotalSize,omitempty"`

	// minFreePercent of the file system must be free, or the streams wait; left out it is 10, and 0 means that it is not looked at.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=90
	MinFreePercent *int32 `json:"minFreePercent,omitempty"`

	// rotate Size, which is the default, closes a file by maxSize and maxAge. Hour closes it by maxSize and where the records of another
	// of the Hyperliquid node's hour files begin, so that each file belongs to exactly one of those and the same input gives the same names.
	// +optional
	Rotate Rotation `json:"rotate,omitempty"`

	// compress packs the files, which are then named .jsonl.zst; left out, they are not packed.
	// +optional
	Compress Compression `json:"compress,omitempty"`
}

// Rotation is what closes a file of the file sink.
//
// +kubebuilder:validation:Enum=Size;Hour
type Rotation string

// Compression is how the file sink's files are packed.
//
// +kubebuilder:validation:Enum=zstd
type Compression string

// Engine sizes the parser's pipeline.
type Engine struct {
	// bufferLimit is what all buffers of one parser may hold together, from 4Mi to 4Gi; there the reader waits and nothing is
	// dropped.
	// +optional
	// +kubebuilder:default="32Mi"
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('4Mi')) >= 0 && quantity(string(self)).compareTo(quantity('4Gi')) <= 0",message="write a size from 4Mi to 4Gi, such as 32Mi"
	BufferLimit *resource.Quantity `json:"bufferLimit,omitempty"`

	// parallelThreshold is the number of lines from which a batch is processed by all workers; smaller ones by one.
	// +optional
	// +kubebuilder:default=1000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	ParallelThreshold *int32 `json:"parallelThreshold,omitempty"`

	// workers is the number of CPUs that one batch may use.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=256
	Workers *int32 `json:"workers,omitempty"`

	// startAt is where a target that was never seen before begins: End, after the last whole line on disk, or Beginning, with
	// the oldest file on disk. A checkpoint always wins.
	// +optional
	// +kubebuilder:default=End
	StartAt StartAt `json:"startAt,omitempty"`

	// maxLineBytes is the longest line that is read, from 1Ki to 1Gi; longer ones are skipped and counted.
	// +optional
	// +kubebuilder:default="64Mi"
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('1Ki')) >= 0 && quantity(string(self)).compareTo(quantity('1Gi')) <= 0",message="write a size from 1Ki to 1Gi, such as 64Mi"
	MaxLineBytes *resource.Quantity `json:"maxLineBytes,omitempty"`

	// readRate bounds the bytes that one parser reads from disk in a second, all streams together, from 4Mi to 1Ti: so that
	// catching up leaves the disk to the Hyperliquid node beside it. It must be above what the node writes, or the parser falls
	// behind. 0, the default, is no limit.
	// +optional
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && (quantity(string(self)).compareTo(quantity('0')) == 0 || quantity(string(self)).compareTo(quantity('4Mi')) >= 0 && quantity(string(self)).compareTo(quantity('1Ti')) <= 0)",message="write bytes a second from 4Mi to 1Ti, such as 100Mi, or 0 for no limit"
	ReadRate *resource.Quantity `json:"readRate,omitempty"`

	// deduplicateBlocks leaves out blocks that a Hyperliquid node writes again after it restarted. It needs lines that name their
	// block, so mode Line is refused; in mode Auto it has no effect while the node writes in line mode.
	// +optional
	DeduplicateBlocks bool `json:"deduplicateBlocks,omitempty"`

	// markers has gaps, replays, late blocks and skipped data told among the records, by records whose stream is "_marker": for
	// consumers such as order-book builders, who read no metrics. Gaps can be told only in mode ByBlock.
	// +optional
	Markers bool `json:"markers,omitempty"`
}

// StartAt is where a target that was never seen before begins.
//
// +kubebuilder:validation:Enum=End;Beginning
type StartAt string

// Growth says how reports are judged and what is done about a bad verdict.
//
// +kubebuilder:validation:XValidation:rule="!has(self.pollInterval) || !has(self.stuckAfter) || !self.pollInterval.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') || !self.stuckAfter.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') || duration(self.stuckAfter).getMilliseconds() >= 3 * duration(self.pollInterval).getMilliseconds()",fieldPath=".stuckAfter",message="fewer than three reports cannot tell a hang: write at least 3 × pollInterval"
// +kubebuilder:validation:XValidation:rule="!has(self.pollInterval) || !has(self.lag) || !self.pollInterval.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') || !self.lag.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') || duration(self.lag).getMilliseconds() >= 3 * duration(self.pollInterval).getMilliseconds()",fieldPath=".lag",message="fewer than three reports cannot tell a lag: write at least 3 × pollInterval"
type Growth struct {
	// pollInterval is the time between two reports of one parser, from 1s to 10m. At most 1,000 parsers of an object are asked in a
	// second: with more than that many times its seconds it is longer, and stuckAfter and lag are at least three of it.
	// +optional
	// +kubebuilder:default="5s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 1000 && duration(self).getMilliseconds() <= 600000",message="write a duration from 1s to 10m, such as 5s"
	PollInterval *metav1.Duration `json:"pollInterval,omitempty"`

	// lag is how far behind a stream may be before it is asked why: the age of its oldest line that is not delivered, from three poll
	// intervals to 24h. Default: 30s, or three poll intervals if that is longer.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 1000 && duration(self).getMilliseconds() <= 86400000",message="write a duration from 1s to 24h, such as 30s"
	Lag *metav1.Duration `json:"lag,omitempty"`

	// stuckAfter is how long whole lines wait, while no stage moves, before a parser is Stuck: from three poll intervals to 1h.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 1000 && duration(self).getMilliseconds() <= 3600000",message="write a duration from 1s to 1h, such as 30s"
	StuckAfter *metav1.Duration `json:"stuckAfter,omitempty"`

	// sourceStalledAfter is, by stream, how long the Hyperliquid node may write nothing before the stream is SourceStalled: from 10s to
	// 24h, or 0s for however long. Streams that are not named: 60s for OrderStatuses, RawBookDiffs and all in by-block mode, which
	// write with every block; however long for all others, but that any may have nothing to read at all for 120s while
	// the node writes others.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, k in ['OrderStatuses', 'Fills', 'Trades', 'RawBookDiffs', 'MiscEvents', 'OracleUpdates', 'SystemActions'])",message="write the names of streams, such as OrderStatuses"
	SourceStalledAfter map[StreamName]StallTime `json:"sourceStalledAfter,omitempty"`

	// retention is how long the Hyperliquid node's files are kept by whoever prunes them, from 10m to 8760h: lines that wait for half of
	// it raise the alert NearRetention.
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 600000 && duration(self).getMilliseconds() <= 31536000000",message="write a duration from 10m to 8760h, such as 24h"
	Retention *metav1.Duration `json:"retention,omitempty"`

	// action is what a verdict that a restart may cure leads to: Restart, or Alert, which only tells.
	// +optional
	// +kubebuilder:default=Restart
	Action GrowthAction `json:"action,omitempty"`

	// restart bounds restarts.
	// +optional
	// +kubebuilder:default={}
	Restart Restart `json:"restart,omitzero"`

	// fleetWideThreshold is how many targets, or which share of them, may be bad at once before the cause is taken for one outside of
	// the parsers, and none is restarted. Two at least; a percentage rounds up.
	// +optional
	// +kubebuilder:default="30%"
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 2 && int(self) <= 2147483647 : string(self).matches('^(100|[1-9][0-9]?)%$')",message="write a number of targets from 2, or a percentage from 1% to 100% such as \"30%\""
	FleetWideThreshold *intstr.IntOrString `json:"fleetWideThreshold,omitempty"`
}

// StallTime is a time without new lines: from 10s to 24h, or 0s for however long.
//
// +kubebuilder:validation:Type=string
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule="self == '0s' || self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 10000 && duration(self).getMilliseconds() <= 86400000",message="write a duration from 10s to 24h, such as 60s, or 0s for however long"
type StallTime struct {
	metav1.Duration `json:",inline"`
}

// GrowthAction is what a verdict that a restart may cure leads to.
//
// +kubebuilder:validation:Enum=Restart;Alert
type GrowthAction string

const (
	// GrowthActionRestart restarts the parser, within the bounds of Restart.
	GrowthActionRestart GrowthAction = "Restart"
	// GrowthActionAlert only tells: conditions, events and metrics.
	GrowthActionAlert GrowthAction = "Alert"
)

// Restart bounds the restarts that verdicts lead to.
type Restart struct {
	// cooldown is the least time between two restarts of one target, from 10s to 1h. It doubles with each further restart, up
	// to 1h, until the target has been Healthy for 1h.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 10000 && duration(self).getMilliseconds() <= 3600000",message="write a duration from 10s to 1h, such as 5m"
	Cooldown *metav1.Duration `json:"cooldown,omitempty"`

	// maxPerHour is how often one target is restarted within an hour; then the verdict only alerts.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=20
	MaxPerHour *int32 `json:"maxPerHour,omitempty"`

	// maxConcurrent is how many targets, or which share of them, may be in a restart at once: a limit inside
	// rollout.maxUnavailable. A percentage rounds up.
	// +optional
	// +kubebuilder:default="10%"
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 1 && int(self) <= 2147483647 : string(self).matches('^(100|[1-9][0-9]?)%$')",message="write a number of targets from 1, or a percentage from 1% to 100% such as \"10%\""
	MaxConcurrent *intstr.IntOrString `json:"maxConcurrent,omitempty"`
}

// Rollout says how a new revision gets to the parsers, and how many may be unavailable at once.
type Rollout struct {
	// maxUnavailable is how many targets, or which share of them, may be without a ready parser by the operator's own doing:
	// for a new revision or for a restart. A percentage rounds up. Nodes that are not ready do not count.
	// +optional
	// +kubebuilder:default="10%"
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 1 && int(self) <= 2147483647 : string(self).matches('^(100|[1-9][0-9]?)%$')",message="write a number of targets from 1, or a percentage from 1% to 100% such as \"10%\""
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`

	// canary makes a new revision prove itself on a few targets before the others get it. Left out, all get it as far as maxUnavailable
	// goes. The first revision of an object has no canary.
	// +optional
	Canary *Canary `json:"canary,omitempty"`

	// revisionHistoryLimit is how many revisions are kept that are not in use, to go back to as they were.
	// +optional
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	RevisionHistoryLimit *int32 `json:"revisionHistoryLimit,omitempty"`
}

// Canary says how a new revision proves itself. Its targets are judged like all others, and compared with how they were before: when one
// is worse they get the last good revision back (Stalled, CanaryFailed), and the spec is left alone.
type Canary struct {
	// count is how many targets, or which share of them, try out a new revision; more than there are means all of them, and more than
	// 500 means 500. A percentage rounds up.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 1 && int(self) <= 2147483647 : string(self).matches('^(100|[1-9][0-9]?)%$')",message="write a number of targets from 1, or a percentage from 1% to 100% such as \"10%\""
	Count *intstr.IntOrString `json:"count,omitempty"`

	// soak is how long they must be seen to be well, from 1s to 168h. What is not the revision's doing, such as a sink that is down, does
	// not fail them and does not count.
	// +optional
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 1000 && duration(self).getMilliseconds() <= 604800000",message="write a duration from 1s to 168h, such as 1h"
	Soak *metav1.Duration `json:"soak,omitempty"`
}
