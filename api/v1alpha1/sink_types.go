package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Sink says where records go: exactly one field is set.
//
// +kubebuilder:validation:ExactlyOneOf=stdout;file;nats;kafka
type Sink struct {
	// stdout writes records to the container's standard output, one a line.
	// +optional
	Stdout *StdoutSink `json:"stdout,omitempty"`

	// file writes records into files.
	// +optional
	File *FileSink `json:"file,omitempty"`

	// nats publishes records to a JetStream stream.
	// +optional
	NATS *NATSSink `json:"nats,omitempty"`

	// kafka produces records to Kafka topics.
	// +optional
	Kafka *KafkaSink `json:"kafka,omitempty"`
}

// NamedSink is one of several sinks, of which each stream chooses one by name. Exactly one field beside the name is set.
//
// +kubebuilder:validation:ExactlyOneOf=stdout;file;nats;kafka
type NamedSink struct {
	// name by which streams choose the sink.
	// +required
	Name SinkName `json:"name"`

	// stdout writes records to the container's standard output, one a line.
	// +optional
	Stdout *StdoutSink `json:"stdout,omitempty"`

	// file writes records into files.
	// +optional
	File *FileSink `json:"file,omitempty"`

	// nats publishes records to a JetStream stream.
	// +optional
	NATS *NATSSink `json:"nats,omitempty"`

	// kafka produces records to Kafka topics.
	// +optional
	Kafka *KafkaSink `json:"kafka,omitempty"`
}

// Sink returns where the records go.
func (n *NamedSink) Sink() Sink {
	return Sink{Stdout: n.Stdout, File: n.File, NATS: n.NATS, Kafka: n.Kafka}
}

// AllSinks returns the sink, or the named ones in their order.
func (s *HyperliquidParserSpec) AllSinks() []Sink {
	if len(s.Sinks) == 0 {
		return []Sink{s.Sink}
	}
	out := make([]Sink, len(s.Sinks))
	for i := range s.Sinks {
		out[i] = s.Sinks[i].Sink()
	}
	return out
}

// FileSink returns the settings of the file sink; nil when no records go to files.
func (s *HyperliquidParserSpec) FileSink() *FileSink {
	for _, sink := range s.AllSinks() {
		if sink.File != nil {
			return sink.File
		}
	}
	return nil
}

// SinkName names a sink.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
type SinkName string

// StdoutSink has no settings.
type StdoutSink struct{}

// Delivery is how a sink that can fence the position delivers.
//
// +kubebuilder:validation:Enum=Best;ExactlyOnce;AtLeastOnce
type Delivery string

// NATSSink publishes records to a JetStream stream. Records come out exactly once where the server has atomic batches (2.12 or later) and
// the stream allows them.
//
// +kubebuilder:validation:XValidation:rule="!has(self.identity) || self.identity != 'Chain' || !has(self.recordsPerMessage) || self.recordsPerMessage == 1",fieldPath=".recordsPerMessage",message="packed messages have no identity on the chain: leave recordsPerMessage out, or write identity Position"
type NATSSink struct {
	// url of one server or, separated by commas, several of one cluster. It holds no password: that is what credentialsSecretRef is for.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^(nats|tls|ws|wss)://[^@/?#,[:space:]]+(,(nats|tls|ws|wss)://[^@/?#,[:space:]]+)*$')",message="write a server's address such as nats://nats:4222, several separated by commas, and no name or password in it"
	URL string `json:"url"`

	// stream is the JetStream stream that the records go to.
	// +required
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^[:space:].*>/\\\\\\\\]+$')",message="write the name of a JetStream stream: no spaces, dots, stars, > or slashes"
	Stream string `json:"stream"`

	// subject of a record, with {stream}, {coin} and {target}. Records without a coin have "_" in its place.
	// +optional
	// +kubebuilder:default="hl.{stream}.{coin}"
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^([-A-Za-z0-9_]|[{](stream|coin|target)[}])+([.]([-A-Za-z0-9_]|[{](stream|coin|target)[}])+)*$')",message="write words between single dots, with {stream}, {coin} or {target}, such as hl.{stream}.{coin}"
	Subject string `json:"subject,omitempty"`

	// create makes the stream if there is none, with these settings. Left out, records wait until somebody makes it.
	// +optional
	Create *NATSCreate `json:"create,omitempty"`

	// delivery is ExactlyOnce, AtLeastOnce, or Best, which is the first where the server can and the second where not.
	// +optional
	// +kubebuilder:default=Best
	Delivery Delivery `json:"delivery,omitempty"`

	// identity is what makes two messages the same one to the server: Position, where it was read; or Chain, the stream, block and index, so
	// that the same event from redundant Hyperliquid nodes is kept once. Chain needs streams of mode ByBlock.
	// +optional
	// +kubebuilder:default=Position
	// +kubebuilder:validation:Enum=Position;Chain
	Identity string `json:"identity,omitempty"`

	// recordsPerMessage packs so many records of one subject, one a line, into a message at most.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	RecordsPerMessage *int32 `json:"recordsPerMessage,omitempty"`

	// credentialsSecretRef names the Secret in this namespace that holds a NATS credentials file. The parser reads it at each connect.
	// +optional
	CredentialsSecretRef *CredentialsSecretRef `json:"credentialsSecretRef,omitempty"`

	// tls secures the connection.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
}

// NATSCreate are the settings of a stream that the parser makes.
type NATSCreate struct {
	// replicas of the stream.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=5
	Replicas *int32 `json:"replicas,omitempty"`

	// maxBytes that the stream keeps; left out, there is no limit.
	// +optional
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self)).compareTo(quantity('1Ei')) <= 0",message="write a size of at least 1Mi, such as 100Gi, and at most 1Ei"
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`

	// maxAge of messages that the stream keeps; left out, there is no limit.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 60000",message="write a duration of at least 1m, such as 72h"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}

// KafkaSink produces records to Kafka topics.
type KafkaSink struct {
	// brokers to find the cluster by.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Brokers []Broker `json:"brokers"`

	// topic of a record, with {stream}, {coin} and {target}.
	// +optional
	// +kubebuilder:default="hl.{stream}"
	// +kubebuilder:validation:MaxLength=249
	// +kubebuilder:validation:XValidation:rule="self.matches('^([-A-Za-z0-9._]|[{](stream|coin|target)[}])+$')",message="write letters, digits, dots, dashes and underscores, with {stream}, {coin} or {target}, such as hl.{stream}"
	Topic string `json:"topic,omitempty"`

	// key of a record, with {stream}, {coin} and {target}. Records of one key keep their order. Records without a coin have their stream's
	// name in its place.
	// +optional
	// +kubebuilder:default="{coin}"
	// +kubebuilder:validation:MaxLength=249
	// +kubebuilder:validation:XValidation:rule="self.matches('^([^{}]|[{](stream|coin|target)[}])+$')",message="write text with {stream}, {coin} or {target}, such as {coin}"
	Key string `json:"key,omitempty"`

	// delivery is ExactlyOnce, by transactions, or AtLeastOnce.
	// +optional
	// +kubebuilder:default=ExactlyOnce
	// +kubebuilder:validation:XValidation:rule="self != 'Best'",message="every broker has transactions: write ExactlyOnce or AtLeastOnce"
	Delivery Delivery `json:"delivery,omitempty"`

	// positionsTopic is the compacted topic that holds positions; it is made if there is none.
	// +optional
	// +kubebuilder:default="hlparser-positions"
	// +kubebuilder:validation:MaxLength=249
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-A-Za-z0-9._]+$')",message="write letters, digits, dots, dashes and underscores, such as hlparser-positions"
	PositionsTopic string `json:"positionsTopic,omitempty"`

	// create makes topics that are missing, with these settings. Left out, records wait until somebody makes them.
	// +optional
	Create *KafkaCreate `json:"create,omitempty"`

	// compression of what is sent.
	// +optional
	// +kubebuilder:default=zstd
	// +kubebuilder:validation:Enum=none;snappy;lz4;zstd
	Compression string `json:"compression,omitempty"`

	// maxMessageBytes is the largest record, in bytes, as the brokers' max.message.bytes. Larger ones go to the dead letter.
	// +optional
	// +kubebuilder:default=1048576
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=1073741824
	MaxMessageBytes *int32 `json:"maxMessageBytes,omitempty"`

	// tls secures the connections.
	// +optional
	TLS *TLS `json:"tls,omitempty"`

	// sasl logs in with SCRAM-SHA-512.
	// +optional
	SASL *KafkaSASL `json:"sasl,omitempty"`
}

// Broker is a host and a port.
//
// +kubebuilder:validation:MaxLength=261
// +kubebuilder:validation:XValidation:rule="self.matches('^([-A-Za-z0-9._]+|[[][0-9a-fA-F:.]+[]]):[0-9]{1,5}$')",message="write an address with its port, such as kafka:9092"
type Broker string

// KafkaCreate are the settings of topics that the parser makes.
type KafkaCreate struct {
	// partitions of each topic.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Partitions *int32 `json:"partitions,omitempty"`

	// replicationFactor of each topic; left out, the brokers' default.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	ReplicationFactor *int32 `json:"replicationFactor,omitempty"`
}

// KafkaSASL logs in with SCRAM-SHA-512.
type KafkaSASL struct {
	// secretRef names the Secret in this namespace that holds username and password. The parser reads it at each login.
	// +required
	SecretRef SecretRef `json:"secretRef"`
}

// TLS secures a connection. Secrets are read at each connect, so that they can be rotated.
type TLS struct {
	// caSecretRef names the Secret in this namespace that holds, as ca.crt, the authorities that the server's certificate may be of. Left
	// out, they are the system's.
	// +optional
	CASecretRef *SecretRef `json:"caSecretRef,omitempty"`

	// certSecretRef names the Secret in this namespace that holds the parser's own certificate, as tls.crt and tls.key.
	// +optional
	CertSecretRef *SecretRef `json:"certSecretRef,omitempty"`

	// serverName that the server's certificate must have; left out, the host that is dialled.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ServerName string `json:"serverName,omitempty"`
}

// SecretRef names a Secret in the object's namespace. The kubelet mounts it; the operator never reads it. Who may write the reference can
// use the Secret without reading it, by a server of their own that the sink's address names; where the admission policy is installed, only
// a user who may get the Secret can name it.
type SecretRef struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="write the name of a Secret"
	Name string `json:"name"`
}

// CredentialsSecretRef names a Secret in the object's namespace and one of its keys.
type CredentialsSecretRef struct {
	SecretRef `json:",inline"`

	// key of the Secret that holds the credentials file.
	// +optional
	// +kubebuilder:default="nats.creds"
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && self != '..'",message="write a key of the Secret, such as nats.creds"
	Key string `json:"key,omitempty"`
}
