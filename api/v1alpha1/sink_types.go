package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Sink is where records are delivered. Exactly one field must be set.
//
// +kubebuilder:validation:ExactlyOneOf=stdout;file;nats;kafka
type Sink struct {
	// stdout writes records to the container's standard output, one per line.
	// +optional
	Stdout *StdoutSink `json:"stdout,omitempty"`

	// file writes records to files.
	// +optional
	File *FileSink `json:"file,omitempty"`

	// nats publishes records to a JetStream stream.
	// +optional
	NATS *NATSSink `json:"nats,omitempty"`

	// kafka produces records to Kafka topics.
	// +optional
	Kafka *KafkaSink `json:"kafka,omitempty"`
}

// NamedSink is one of several sinks. Streams choose a sink by name. Exactly one field besides the name must be set.
//
// +kubebuilder:validation:ExactlyOneOf=stdout;file;nats;kafka
type NamedSink struct {
	// name identifies the sink. Streams refer to it.
	// +required
	Name SinkName `json:"name"`

	// stdout writes records to the container's standard output, one per line.
	// +optional
	Stdout *StdoutSink `json:"stdout,omitempty"`

	// file writes records to files.
	// +optional
	File *FileSink `json:"file,omitempty"`

	// nats publishes records to a JetStream stream.
	// +optional
	NATS *NATSSink `json:"nats,omitempty"`

	// kafka produces records to Kafka topics.
	// +optional
	Kafka *KafkaSink `json:"kafka,omitempty"`
}

// Sink returns the destination without its name.
func (n *NamedSink) Sink() Sink {
	return Sink{Stdout: n.Stdout, File: n.File, NATS: n.NATS, Kafka: n.Kafka}
}

// AllSinks returns spec.sink, or spec.sinks in order if they are set.
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

// FileSink returns the file sink, or nil if no stream writes to files.
func (s *HyperliquidParserSpec) FileSink() *FileSink {
	for _, sink := range s.AllSinks() {
		if sink.File != nil {
			return sink.File
		}
	}
	return nil
}

// SinkName is the name of a sink.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
type SinkName string

// StdoutSink writes records to the container's standard output. It has no settings.
type StdoutSink struct{}

// Delivery is the delivery guarantee of a sink that can fence the position.
//
// +kubebuilder:validation:Enum=Best;ExactlyOnce;AtLeastOnce
type Delivery string

const (
	// DeliveryBest is ExactlyOnce if the server supports it, and AtLeastOnce otherwise.
	DeliveryBest Delivery = "Best"
	// DeliveryExactlyOnce writes records and position atomically. A server that cannot do so is an error.
	DeliveryExactlyOnce Delivery = "ExactlyOnce"
	// DeliveryAtLeastOnce sends again what a crash left unacknowledged.
	DeliveryAtLeastOnce Delivery = "AtLeastOnce"
)

// NATSSink publishes records to a JetStream stream. Delivery is exactly once if the server supports atomic batches
// (2.12 or later) and the stream allows them.
//
// +kubebuilder:validation:XValidation:rule="!has(self.identity) || self.identity != 'Chain' || !has(self.recordsPerMessage) || self.recordsPerMessage == 1",fieldPath=".recordsPerMessage",message="messages with several records have no identity on the chain: leave recordsPerMessage out, or write identity Position"
type NATSSink struct {
	// url is the address of a server, or of several servers of one cluster, separated by commas. It must not contain a
	// password: use credentialsSecretRef.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^(nats|tls|ws|wss)://[^@/?#,[:space:]]+(,(nats|tls|ws|wss)://[^@/?#,[:space:]]+)*$')",message="write a server's address such as nats://nats:4222, or several separated by commas, with no name or password in it"
	URL string `json:"url"`

	// stream is the JetStream stream that receives the records.
	// +required
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^[:space:].*>/\\\\\\\\]+$')",message="write the name of a JetStream stream: no spaces, dots, stars, > or slashes"
	Stream string `json:"stream"`

	// subject is the subject of a record, with {stream}, {coin} and {target}. For a record without a coin, {coin} is "_".
	// Defaults to hl.{stream}.{coin}.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^([-A-Za-z0-9_]|[{](stream|coin|target)[}])+([.]([-A-Za-z0-9_]|[{](stream|coin|target)[}])+)*$')",message="write words between single dots, with {stream}, {coin} or {target}, such as hl.{stream}.{coin}"
	Subject string `json:"subject,omitempty"`

	// create creates the stream if it does not exist, with these settings. If unset, records wait until the stream exists.
	// +optional
	Create *NATSCreate `json:"create,omitempty"`

	// delivery is the delivery guarantee: ExactlyOnce, AtLeastOnce, or Best, which is ExactlyOnce if the server supports
	// it and AtLeastOnce otherwise. Defaults to Best.
	// +optional
	Delivery Delivery `json:"delivery,omitempty"`

	// identity determines which messages the server treats as duplicates. Position identifies a record by where it was
	// read. Chain identifies it by stream, block and index, so that the same event from redundant Hyperliquid nodes is
	// kept once; it requires streams of mode ByBlock. Defaults to Position.
	// +optional
	Identity RecordIdentity `json:"identity,omitempty"`

	// recordsPerMessage is the maximum number of records per message, from 1 to 10000. The records of a message share a
	// subject, and are written one per line. Defaults to 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	RecordsPerMessage *int32 `json:"recordsPerMessage,omitempty"`

	// credentialsSecretRef names the Secret in this namespace that holds a NATS credentials file. The parser reads it at
	// each connect. If unset, the parser connects without credentials.
	// +optional
	CredentialsSecretRef *CredentialsSecretRef `json:"credentialsSecretRef,omitempty"`

	// tls configures TLS for the connection. Optional.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
}

// RecordIdentity determines which messages the server treats as duplicates.
//
// +kubebuilder:validation:Enum=Position;Chain
type RecordIdentity string

const (
	// RecordIdentityPosition identifies a record by where it was read.
	RecordIdentityPosition RecordIdentity = "Position"
	// RecordIdentityChain identifies a record by stream, block and index.
	RecordIdentityChain RecordIdentity = "Chain"
)

// NATSCreate configures a stream that the parser creates.
type NATSCreate struct {
	// replicas is the number of replicas of the stream, from 1 to 5. Defaults to 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=5
	Replicas *int32 `json:"replicas,omitempty"`

	// maxBytes bounds what the stream keeps, in bytes, from 1Mi to 1Ei. If unset, there is no limit.
	// +optional
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9.]{1,28}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$') && isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self)).compareTo(quantity('1Ei')) <= 0",message="write a size of at least 1Mi, such as 100Gi, and at most 1Ei"
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`

	// maxAge is how long the stream keeps messages, at least 1m. If unset, there is no limit.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,3}$') && duration(self).getMilliseconds() >= 60000",message="write a duration of at least 1m, such as 72h"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}

// KafkaSink produces records to Kafka topics.
type KafkaSink struct {
	// brokers are the bootstrap brokers of the cluster, as host:port, 1 to 16.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Brokers []Broker `json:"brokers"`

	// topic is the topic of a record, with {stream}, {coin} and {target}. Defaults to hl.{stream}.
	// +optional
	// +kubebuilder:validation:MaxLength=249
	// +kubebuilder:validation:XValidation:rule="self.matches('^([-A-Za-z0-9._]|[{](stream|coin|target)[}])+$')",message="write letters, digits, dots, dashes and underscores, with {stream}, {coin} or {target}, such as hl.{stream}"
	Topic string `json:"topic,omitempty"`

	// key is the key of a record, with {stream}, {coin} and {target}. Records with the same key stay in order. For a
	// record without a coin, {coin} is the stream's name. Defaults to {coin}.
	// +optional
	// +kubebuilder:validation:MaxLength=249
	// +kubebuilder:validation:XValidation:rule="self.matches('^([^{}]|[{](stream|coin|target)[}])+$')",message="write text with {stream}, {coin} or {target}, such as {coin}"
	Key string `json:"key,omitempty"`

	// delivery is the delivery guarantee: ExactlyOnce, by transactions, or AtLeastOnce. Defaults to ExactlyOnce.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self != 'Best'",message="every broker supports transactions: write ExactlyOnce or AtLeastOnce"
	Delivery Delivery `json:"delivery,omitempty"`

	// positionsTopic is the compacted topic that holds positions. It is created if it does not exist. Defaults to
	// hlparser-positions.
	// +optional
	// +kubebuilder:validation:MaxLength=249
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-A-Za-z0-9._]+$')",message="write letters, digits, dots, dashes and underscores, such as hlparser-positions"
	PositionsTopic string `json:"positionsTopic,omitempty"`

	// create creates missing topics with these settings. If unset, records wait until the topics exist.
	// +optional
	Create *KafkaCreate `json:"create,omitempty"`

	// compression is the compression of record batches: none, snappy, lz4 or zstd. Defaults to zstd.
	// +optional
	Compression KafkaCompression `json:"compression,omitempty"`

	// maxMessageBytes is the size of the largest record, in bytes, from 1024 to 1073741824. It corresponds to the brokers'
	// max.message.bytes. Larger records go to the dead letter. Defaults to 1048576.
	// +optional
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=1073741824
	MaxMessageBytes *int32 `json:"maxMessageBytes,omitempty"`

	// tls configures TLS for the connections. Optional.
	// +optional
	TLS *TLS `json:"tls,omitempty"`

	// sasl configures authentication with SCRAM-SHA-512. If unset, the parser does not authenticate by SASL.
	// +optional
	SASL *KafkaSASL `json:"sasl,omitempty"`
}

// KafkaCompression is the compression of record batches.
//
// +kubebuilder:validation:Enum=none;snappy;lz4;zstd
type KafkaCompression string

const (
	// KafkaCompressionNone does not compress batches.
	KafkaCompressionNone KafkaCompression = "none"
	// KafkaCompressionSnappy compresses batches with Snappy.
	KafkaCompressionSnappy KafkaCompression = "snappy"
	// KafkaCompressionLZ4 compresses batches with LZ4.
	KafkaCompressionLZ4 KafkaCompression = "lz4"
	// KafkaCompressionZstd compresses batches with Zstandard.
	KafkaCompressionZstd KafkaCompression = "zstd"
)

// Broker is the address of a broker, as host:port.
//
// +kubebuilder:validation:MaxLength=261
// +kubebuilder:validation:XValidation:rule="self.matches('^([-A-Za-z0-9._]+|[[][0-9a-fA-F:.]+[]]):[0-9]{1,5}$')",message="write an address with its port, such as kafka:9092"
type Broker string

// KafkaCreate configures topics that the parser creates.
type KafkaCreate struct {
	// partitions is the number of partitions of each topic, from 1 to 10000. Defaults to 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Partitions *int32 `json:"partitions,omitempty"`

	// replicationFactor is the replication factor of each topic, from 1 to 100. Defaults to the brokers' own default.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	ReplicationFactor *int32 `json:"replicationFactor,omitempty"`
}

// KafkaSASL configures authentication with SCRAM-SHA-512.
type KafkaSASL struct {
	// secretRef names the Secret in this namespace that holds the keys username and password. The parser reads it at each
	// login.
	// +required
	SecretRef SecretRef `json:"secretRef"`
}

// TLS configures a TLS connection. The parser reads the Secrets at each connect, so they can be rotated.
type TLS struct {
	// caSecretRef names the Secret in this namespace that holds the certificate authorities of the server, under the key
	// ca.crt. Defaults to the system's certificate authorities.
	// +optional
	CASecretRef *SecretRef `json:"caSecretRef,omitempty"`

	// certSecretRef names the Secret in this namespace that holds the parser's own certificate, under the keys tls.crt and
	// tls.key. If unset, the parser presents no certificate.
	// +optional
	CertSecretRef *SecretRef `json:"certSecretRef,omitempty"`

	// serverName is the name that the server's certificate must have. Defaults to the host of the address.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ServerName string `json:"serverName,omitempty"`
}

// SecretRef names a Secret in the object's namespace. The kubelet mounts it; the operator never reads it. A user who
// may write the reference can use the Secret without reading it, through a server of their own as the sink's address.
// With the admission policy, only a user who may get the Secret can name it.
type SecretRef struct {
	// name is the name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="write the name of a Secret"
	Name string `json:"name"`
}

// CredentialsSecretRef names a Secret in the object's namespace and one of its keys.
type CredentialsSecretRef struct {
	SecretRef `json:",inline"`

	// key is the key of the Secret that holds the credentials file. Defaults to nats.creds.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && self != '..'",message="write a key of the Secret, such as nats.creds"
	Key string `json:"key,omitempty"`
}
