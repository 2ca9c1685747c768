package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Sink says where records go: exactly one field is set.
type Sink struct {
	Stdout *StdoutSink `json:"stdout,omitempty"`
	File   *FileSink   `json:"file,omitempty"`
	NATS   *NATSSink   `json:"nats,omitempty"`
	Kafka  *KafkaSink  `json:"kafka,omitempty"`
}

// NamedSink is one of several sinks, among which streams choose by name.
type NamedSink struct {
	Name string `json:"name"` // lower-case letters, digits and dashes, at most 63
	Sink
}

// StdoutSink writes records to standard output, one a line.
type StdoutSink struct{}

// FileSink writes records into files below Path, a directory a stream.
type FileSink struct {
	Path    string   `json:"path"`
	MaxSize Bytes    `json:"maxSize,omitempty"` // a part is closed before it would pass this, as it is on disk; default 1Gi
	MaxAge  Duration `json:"maxAge,omitzero"`   // a part is closed when it gets this old, unless it rotates by hour; default 1h

	Rotate   Rotation    `json:"rotate,omitempty"`   // default Size
	Compress Compression `json:"compress,omitempty"` // default: not
}

// Delivery is how a sink that can fence the position delivers.
type Delivery string

const (
	// Best is ExactlyOnce where the server can, and AtLeastOnce where not; the report says which.
	Best Delivery = "Best"
	// ExactlyOnce writes records and position in one act. A server that cannot is an error.
	ExactlyOnce Delivery = "ExactlyOnce"
	// AtLeastOnce sends again what a crash left open; consumers recognise it by its position.
	AtLeastOnce Delivery = "AtLeastOnce"
)

// RecordIdentity is what makes two messages the same one to the server.
type RecordIdentity string

const (
	// ByPosition tells a record by where it was read: target, stream, file, offset, index.
	ByPosition RecordIdentity = "Position"
	// ByChain tells it by stream, block and index, so that the same event from redundant Hyperliquid nodes is kept once. Only by-block
	// lines hold a block's events together, so each stream's mode must be ByBlock.
	ByChain RecordIdentity = "Chain"
)

// NATSSink publishes records to a JetStream stream.
type NATSSink struct {
	// URL of one server or, separated by commas, several of one cluster: "nats://nats:4222", "tls://…".
	URL string `json:"url"`
	// Stream is the JetStream stream that the records go to.
	Stream string `json:"stream"`
	// Subject of a record, with {stream}, {coin} and {target}; default "hl.{stream}.{coin}". An event without a coin has "_" there.
	Subject string `json:"subject,omitempty"`
	// Create makes the stream if there is none; absent: a missing stream is an outage until somebody makes it.
	Create *NATSCreate `json:"create,omitempty"`
	// Delivery, default Best. ExactlyOnce needs a server of 2.12 or later and a stream with allow_atomic.
	Delivery Delivery       `json:"delivery,omitempty"`
	Identity RecordIdentity `json:"identity,omitempty"` // default Position
	// RecordsPerMessage packs so many records, one a line, into a message at most; default 1. Packed records share a subject.
	RecordsPerMessage int `json:"recordsPerMessage,omitempty"`
	// CredentialsFile is a NATS .creds file, read at each connect.
	CredentialsFile string `json:"credentialsFile,omitempty"`
	TLS             *TLS   `json:"tls,omitempty"`
}

// NATSCreate are the settings of a stream that this parser makes.
type NATSCreate struct {
	Replicas int      `json:"replicas,omitempty"` // 1 to 5; default 1
	MaxBytes Bytes    `json:"maxBytes,omitempty"` // 0: no limit
	MaxAge   Duration `json:"maxAge,omitzero"`    // 0: no limit
}

// KafkaSink produces records to Kafka topics.
type KafkaSink struct {
	// Brokers to find the cluster by, as host:port.
	Brokers []string `json:"brokers"`
	// Topic of a record, with {stream}, {coin} and {target}; default "hl.{stream}".
	Topic string `json:"topic,omitempty"`
	// Key of a record, with {stream}, {coin} and {target}; default "{coin}". Records of one key keep their order. An event without a
	// coin has its stream's name there.
	Key string `json:"key,omitempty"`
	// Delivery, default ExactlyOnce: records and position in one transaction.
	Delivery Delivery `json:"delivery,omitempty"`
	// PositionsTopic is the compacted topic that holds positions, made if there is none; default "hlparser-positions".
	PositionsTopic string `json:"positionsTopic,omitempty"`
	// Create makes topics of records that are missing; absent: a missing topic is an outage until somebody makes it.
	Create *KafkaCreate `json:"create,omitempty"`
	// Compression, default zstd.
	Compression KafkaCompression `json:"compression,omitempty"`
	// MaxMessageBytes is the largest record, as the broker's max.message.bytes; default 1 MiB. Larger ones go to the dead letter.
	MaxMessageBytes Bytes      `json:"maxMessageBytes,omitempty"`
	TLS             *TLS       `json:"tls,omitempty"`
	SASL            *KafkaSASL `json:"sasl,omitempty"`
}

// KafkaCreate are the settings of a topic that this parser makes.
type KafkaCreate struct {
	Partitions        int `json:"partitions,omitempty"`        // default 1
	ReplicationFactor int `json:"replicationFactor,omitempty"` // 0: the broker's default
}

// KafkaCompression is how batches of records are packed.
type KafkaCompression string

// The compressions that every Kafka client reads.
const (
	KafkaNone   KafkaCompression = "none"
	KafkaSnappy KafkaCompression = "snappy"
	KafkaLZ4    KafkaCompression = "lz4"
	KafkaZstd   KafkaCompression = "zstd"
)

// KafkaSASL logs in with SCRAM-SHA-512. The files are read at each connect; a trailing newline is not part of a value.
type KafkaSASL struct {
	UsernameFile string `json:"usernameFile"`
	PasswordFile string `json:"passwordFile"`
}

// TLS secures a connection. Files are read at each connect, so that they can be rotated.
type TLS struct {
	CAFile     string `json:"caFile,omitempty"`     // default: the system's authorities
	CertFile   string `json:"certFile,omitempty"`   // of this client; with KeyFile
	KeyFile    string `json:"keyFile,omitempty"`    // of this client; with CertFile
	ServerName string `json:"serverName,omitempty"` // default: the host that is dialled
}

// Bounds of the sinks' settings, and the defaults that stand for a field left out.
const (
	DefaultNATSSubject           = "hl.{stream}.{coin}"
	MaxRecordsPerMessage         = 10_000
	DefaultKafkaTopic            = "hl.{stream}"
	DefaultKafkaKey              = "{coin}"
	DefaultPositionsTopic        = "hlparser-positions"
	DefaultMaxMessageBytes Bytes = 1 << 20
	MinMaxMessageBytes     Bytes = 1 << 10
	MaxMaxMessageBytes     Bytes = 1 << 30
	MaxSinks                     = 7 // as many as streams
)

// SinkOf returns where the records of a stream go.
func (c Config) SinkOf(s StreamConfig) Sink {
	for _, n := range c.Sinks {
		if n.Name == s.Sink {
			return n.Sink
		}
	}
	return c.Sink
}

// Keyed says whether the sink needs to know each record's coin.
func (s Sink) Keyed() bool {
	return s.NATS != nil && strings.Contains(s.NATS.Subject, "{coin}") ||
		s.Kafka != nil && strings.Contains(s.Kafka.Topic+s.Kafka.Key, "{coin}")
}

func (s Sink) withDefaults() Sink {
	switch {
	case s.File != nil:
		f := *s.File
		setDefault(&f.MaxSize, DefaultMaxSize)
		setDefault(&f.MaxAge.Duration, DefaultMaxAge)
		setDefault(&f.Rotate, RotateBySize)
		s.File = &f
	case s.NATS != nil:
		n := *s.NATS
		setDefault(&n.Subject, DefaultNATSSubject)
		setDefault(&n.Delivery, Best)
		setDefault(&n.Identity, ByPosition)
		setDefault(&n.RecordsPerMessage, 1)
		if n.Create != nil {
			create := *n.Create
			setDefault(&create.Replicas, 1)
			n.Create = &create
		}
		s.NATS = &n
	case s.Kafka != nil:
		k := *s.Kafka
		setDefault(&k.Topic, DefaultKafkaTopic)
		setDefault(&k.Key, DefaultKafkaKey)
		setDefault(&k.Delivery, ExactlyOnce)
		setDefault(&k.PositionsTopic, DefaultPositionsTopic)
		setDefault(&k.Compression, KafkaZstd)
		setDefault(&k.MaxMessageBytes, DefaultMaxMessageBytes)
		if k.Create != nil {
			create := *k.Create
			setDefault(&create.Partitions, 1)
			k.Create = &create
		}
		s.Kafka = &k
	}
	return s
}

// Schemes of sinks' addresses.
const (
	schemeNATS  = "nats"
	schemeTLS   = "tls" // of NATS
	schemeKafka = "kafka"
)

var (
	natsSchemes = []string{schemeNATS, schemeTLS, "ws", "wss"}
	sinkSchemes = []string{schemeNATS, schemeTLS, schemeKafka} // of addresses in flags
)

var sinkNamePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// validateSinks checks sink, or sinks and the streams' choice among them.
func (c Config) validateSinks() error {
	if len(c.Sinks) == 0 {
		for i, s := range c.Streams {
			if s.Sink != "" {
				return &FieldError{fmt.Sprintf("streams[%d].sink", i), fmt.Sprintf("names %q, and there are no sinks: list it under sinks", s.Sink)}
			}
		}
		return c.validateSink("sink", c.Sink, c.Streams)
	}
	switch {
	case c.Sink != Sink{}:
		return &FieldError{"sink", "is set beside sinks: put it in the list too, with a name"}
	case len(c.Sinks) > MaxSinks:
		return &FieldError{"sinks", fmt.Sprintf("has %d: at most %d", len(c.Sinks), MaxSinks)}
	}
	for i, s := range c.Streams {
		if !slices.ContainsFunc(c.Sinks, func(n NamedSink) bool { return n.Name == s.Sink }) {
			return &FieldError{fmt.Sprintf("streams[%d].sink", i), fmt.Sprintf("%q is not one of sinks: write one of %s", s.Sink, sinkNames(c.Sinks))}
		}
	}
	files, stdouts := map[string]string{}, 0
	for i, n := range c.Sinks {
		field := fmt.Sprintf("sinks[%d]", i)
		var streams []StreamConfig
		for _, s := range c.Streams {
			if s.Sink == n.Name {
				streams = append(streams, s)
			}
		}
		switch {
		case !sinkNamePattern.MatchString(n.Name):
			return &FieldError{field + ".name", fmt.Sprintf("%q is not a name: write lower-case letters, digits and dashes, at most 63", n.Name)}
		case slices.ContainsFunc(c.Sinks[:i], func(o NamedSink) bool { return o.Name == n.Name }):
			return &FieldError{field + ".name", fmt.Sprintf("%q is there twice", n.Name)}
		case len(streams) == 0:
			return &FieldError{field, fmt.Sprintf("no stream goes to %q: name it in streams[].sink, or leave it out", n.Name)}
		}
		if err := c.validateSink(field, n.Sink, streams); err != nil {
			return err
		}
		if n.Stdout != nil {
			if stdouts++; stdouts > 1 {
				return &FieldError{field + ".stdout", "is the second: a process has one standard output"}
			}
		}
		if n.File != nil {
			path := filepath.Clean(n.File.Path)
			if other, ok := files[path]; ok {
				return &FieldError{field + ".file.path", fmt.Sprintf("is that of %q too: one directory has one writer", other)}
			}
			files[path] = n.Name
		}
	}
	return nil
}

func sinkNames(sinks []NamedSink) string {
	names := make([]string, len(sinks))
	for i, n := range sinks {
		names[i] = n.Name
	}
	return strings.Join(names, ", ")
}

func (c Config) validateSink(field string, s Sink, streams []StreamConfig) error {
	n := 0
	for _, set := range []bool{s.Stdout != nil, s.File != nil, s.NATS != nil, s.Kafka != nil} {
		if set {
			n++
		}
	}
	switch {
	case n == 0:
		return &FieldError{field, "is missing: set one of stdout, file, nats, kafka"}
	case n > 1:
		return &FieldError{field, fmt.Sprintf("has %d: set only one of stdout, file, nats, kafka", n)}
	case s.File != nil:
		return s.File.validate(field + ".file")
	case s.NATS != nil:
		return s.NATS.validate(field+".nats", streams)
	case s.Kafka != nil:
		return s.Kafka.validate(field + ".kafka")
	}
	return nil
}

func (f *FileSink) validate(field string) error {
	switch {
	case f.Path == "":
		return &FieldError{field + ".path", "is missing: name the directory to write into"}
	case f.MaxSize < MinMaxSize:
		return &FieldError{field + ".maxSize", fmt.Sprintf("%s is too small: at least %s", f.MaxSize, MinMaxSize)}
	case f.MaxAge.Duration < MinMaxAge:
		return &FieldError{field + ".maxAge", fmt.Sprintf("%s is too short: at least %s", f.MaxAge, MinMaxAge)}
	case f.Rotate != RotateBySize && f.Rotate != RotateByHour:
		return &FieldError{field + ".rotate", fmt.Sprintf("%q is unknown: write Size or Hour", f.Rotate)}
	case f.Compress != "" && f.Compress != Zstd:
		return &FieldError{field + ".compress", fmt.Sprintf("%q is unknown: write zstd, or leave it out", f.Compress)}
	}
	return nil
}

var (
	natsStreamPattern = regexp.MustCompile(`^[^\s.*>/\\]{1,255}$`)
	topicPattern      = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)
	placeholder       = regexp.MustCompile(`\{[^{}]*\}`)
)

// filled is a template with a letter for each placeholder; unknown is the first placeholder that there is no value for.
func filled(template string) (text, unknown string) {
	text = placeholder.ReplaceAllStringFunc(template, func(p string) string {
		if p != "{stream}" && p != "{coin}" && p != "{target}" && unknown == "" {
			unknown = p
		}
		return "x"
	})
	return text, unknown
}

func (n *NATSSink) validate(field string, streams []StreamConfig) error {
	if n.URL == "" {
		return &FieldError{field + ".url", `is missing: write it as "nats://nats:4222"`}
	}
	for server := range strings.SplitSeq(n.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(server))
		switch {
		case err != nil || u.Host == "" || !slices.Contains(natsSchemes, u.Scheme):
			// The text is not repeated: it may hold a password.
			return &FieldError{field + ".url", `is not a server's address: write it as "nats://nats:4222", several separated by commas`}
		case u.User != nil:
			return &FieldError{field + ".url", "holds a name or password: put it into the credentials file"}
		}
	}
	subject, unknown := filled(n.Subject)
	switch {
	case !natsStreamPattern.MatchString(n.Stream):
		return &FieldError{field + ".stream", fmt.Sprintf("%q is not a JetStream stream's name: no spaces, dots, stars, > or slashes", n.Stream)}
	case unknown != "":
		return &FieldError{field + ".subject", fmt.Sprintf("%s is unknown: write {stream}, {coin} or {target}", unknown)}
	case strings.ContainsAny(subject, " \t\r\n*>{}") || slices.Contains(strings.Split(subject, "."), "") || strings.HasPrefix(subject, "$"):
		return &FieldError{field + ".subject", fmt.Sprintf("%q is not a subject: words between single dots, no spaces, stars or >", n.Subject)}
	case !slices.Contains([]Delivery{Best, ExactlyOnce, AtLeastOnce}, n.Delivery):
		return &FieldError{field + ".delivery", fmt.Sprintf("%q is unknown: write Best, ExactlyOnce or AtLeastOnce", n.Delivery)}
	case n.Identity != ByPosition && n.Identity != ByChain:
		return &FieldError{field + ".identity", fmt.Sprintf("%q is unknown: write Position or Chain", n.Identity)}
	case n.RecordsPerMessage < 1 || n.RecordsPerMessage > MaxRecordsPerMessage:
		return &FieldError{field + ".recordsPerMessage", fmt.Sprintf("%d is out of range: 1 to %d", n.RecordsPerMessage, MaxRecordsPerMessage)}
	case n.Create != nil && (n.Create.Replicas < 1 || n.Create.Replicas > 5):
		return &FieldError{field + ".create.replicas", fmt.Sprintf("%d is out of range: 1 to 5", n.Create.Replicas)}
	case n.Create != nil && (n.Create.MaxBytes < 0 || n.Create.MaxAge.Duration < 0):
		return &FieldError{field + ".create", "has a negative limit: write 0 for none"}
	}
	if n.Identity == ByChain {
		for _, s := range streams {
			if s.Mode != ByBlock {
				return &FieldError{field + ".identity", fmt.Sprintf("Chain tells events by their place in the block, which only ByBlock lines show: set the mode of %s to ByBlock", s.Name)}
			}
		}
		if n.RecordsPerMessage > 1 {
			return &FieldError{field + ".recordsPerMessage", "packed messages have no identity on the chain: write 1, or identity Position"}
		}
	}
	return n.TLS.validate(field + ".tls")
}

func (k *KafkaSink) validate(field string) error {
	if len(k.Brokers) == 0 {
		return &FieldError{field + ".brokers", `is empty: name at least one as "kafka:9092"`}
	}
	for i, b := range k.Brokers {
		if u, err := url.Parse("//" + b); err != nil || u.Hostname() == "" || u.Host != b {
			return &FieldError{fmt.Sprintf("%s.brokers[%d]", field, i), fmt.Sprintf("%q is not an address: write it as \"kafka:9092\"", b)}
		}
	}
	topic, unknown := filled(k.Topic)
	_, unknownInKey := filled(k.Key)
	switch {
	case unknown != "":
		return &FieldError{field + ".topic", fmt.Sprintf("%s is unknown: write {stream}, {coin} or {target}", unknown)}
	case unknownInKey != "":
		return &FieldError{field + ".key", fmt.Sprintf("%s is unknown: write {stream}, {coin} or {target}", unknownInKey)}
	case !topicPattern.MatchString(topic):
		return &FieldError{field + ".topic", fmt.Sprintf("%q is not a topic: letters, digits, dots, dashes and underscores, at most 249", k.Topic)}
	case !topicPattern.MatchString(k.PositionsTopic) || k.PositionsTopic == k.Topic:
		return &FieldError{field + ".positionsTopic", fmt.Sprintf("%q is not a topic of its own: letters, digits, dots, dashes and underscores, at most 249", k.PositionsTopic)}
	case k.Delivery != ExactlyOnce && k.Delivery != AtLeastOnce:
		return &FieldError{field + ".delivery", fmt.Sprintf("%q is unknown: write ExactlyOnce or AtLeastOnce", k.Delivery)}
	case !slices.Contains([]KafkaCompression{KafkaNone, KafkaSnappy, KafkaLZ4, KafkaZstd}, k.Compression):
		return &FieldError{field + ".compression", fmt.Sprintf("%q is unknown: write none, snappy, lz4 or zstd", k.Compression)}
	case k.MaxMessageBytes < MinMaxMessageBytes || k.MaxMessageBytes > MaxMaxMessageBytes:
		return &FieldError{field + ".maxMessageBytes", fmt.Sprintf("%s is out of range: %s to %s", k.MaxMessageBytes, MinMaxMessageBytes, MaxMaxMessageBytes)}
	case k.Create != nil && (k.Create.Partitions < 1 || k.Create.Partitions > 10_000):
		return &FieldError{field + ".create.partitions", fmt.Sprintf("%d is out of range: 1 to 10000", k.Create.Partitions)}
	case k.Create != nil && (k.Create.ReplicationFactor < 0 || k.Create.ReplicationFactor > 100):
		return &FieldError{field + ".create.replicationFactor", fmt.Sprintf("%d is out of range: 0 (the broker's default) to 100", k.Create.ReplicationFactor)}
	case k.SASL != nil && (k.SASL.UsernameFile == "" || k.SASL.PasswordFile == ""):
		return &FieldError{field + ".sasl", "needs usernameFile and passwordFile"}
	}
	return k.TLS.validate(field + ".tls")
}

func (t *TLS) validate(field string) error {
	if t != nil && (t.CertFile == "") != (t.KeyFile == "") {
		return &FieldError{field, "has only one of certFile and keyFile: a client's certificate needs both"}
	}
	return nil
}

// parseSinkURL reads "nats://host:4222/STREAM?subject=…" and "kafka://host:9092,host:9092/topic?key=…".
func parseSinkURL(s string) (Sink, error) {
	scheme, rest, _ := strings.Cut(s, "://")
	rest, query, _ := strings.Cut(rest, "?")
	hosts, name, _ := strings.Cut(rest, "/")
	values, err := url.ParseQuery(query)
	if err != nil || hosts == "" {
		return Sink{}, fmt.Errorf("this is not a sink's address: write nats://host:4222/STREAM or kafka://host:9092/TOPIC")
	}
	take := func(key string) string {
		v := values.Get(key)
		values.Del(key)
		return v
	}
	var out Sink
	switch scheme {
	case schemeNATS, schemeTLS:
		var servers []string
		for host := range strings.SplitSeq(hosts, ",") {
			servers = append(servers, scheme+"://"+host)
		}
		out.NATS = &NATSSink{
			URL: strings.Join(servers, ","), Stream: name,
			Subject: take("subject"), Delivery: Delivery(take("delivery")), CredentialsFile: take("credentials"),
		}
		if take("create") == "true" {
			out.NATS.Create = &NATSCreate{}
		}
	case schemeKafka:
		out.Kafka = &KafkaSink{
			Brokers: strings.Split(hosts, ","), Topic: name,
			Key: take("key"), Delivery: Delivery(take("delivery")), Compression: KafkaCompression(take("compression")),
		}
		if take("create") == "true" {
			out.Kafka.Create = &KafkaCreate{}
		}
	}
	for key := range values {
		return Sink{}, fmt.Errorf("%q is unknown there: put it into a configuration file", key)
	}
	return out, nil
}
