package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Sink is where records are delivered. Exactly one field must be set.
type Sink struct {
	Stdout *StdoutSink `json:"stdout,omitempty"`
	File   *FileSink   `json:"file,omitempty"`
	NATS   *NATSSink   `json:"nats,omitempty"`
	Kafka  *KafkaSink  `json:"kafka,omitempty"`
}

// NamedSink is one of several sinks, from which streams choose by name.
type NamedSink struct {
	Name string `json:"name"` // lower-case letters, digits and dashes, at most 63
	Sink
}

// StdoutSink writes records to standard output, one per line.
type StdoutSink struct{}

// FileSink writes records into files below Path, in one directory per stream.
type FileSink struct {
	Path string `json:"path"`
	// MaxSize bounds a file, in bytes on disk. A file is closed before it would exceed it. Defaults to 1Gi.
	MaxSize Bytes `json:"maxSize,omitempty"`
	// MaxAge closes a file when it reaches this age, unless it rotates by hour. Defaults to 1h.
	MaxAge Duration `json:"maxAge,omitzero"`

	// MaxTotalSize bounds one stream's files together, in bytes, including closed files that are still there. At the
	// limit the stream waits until files are removed. 0 means no limit.
	MaxTotalSize Bytes `json:"maxTotalSize,omitempty"`
	// MinFreePercent is the share of the file system that must be free, or streams wait. Defaults to 10. 0 disables it.
	MinFreePercent *int `json:"minFreePercent,omitempty"`

	Rotate   Rotation    `json:"rotate,omitempty"`   // defaults to Size
	Compress Compression `json:"compress,omitempty"` // defaults to none
}

// Delivery is the delivery guarantee of a sink that can fence the position.
type Delivery string

const (
	// Best is ExactlyOnce if the server supports it, and AtLeastOnce otherwise. The report shows which.
	Best Delivery = "Best"
	// ExactlyOnce writes records and position atomically. A server that cannot do so is an error.
	ExactlyOnce Delivery = "ExactlyOnce"
	// AtLeastOnce sends again what a crash left unacknowledged. Consumers recognize repeats by position.
	AtLeastOnce Delivery = "AtLeastOnce"
)

// RecordIdentity determines which messages the server treats as the same.
type RecordIdentity string

const (
	// ByPosition identifies a record by where it was read: target, stream, file, offset, index.
	ByPosition RecordIdentity = "Position"
	// ByChain identifies a record by stream, block and index, so that the same event from redundant Hyperliquid nodes
	// is kept once. Only by-block lines hold all events of a block, so each stream's mode must be ByBlock.
	ByChain RecordIdentity = "Chain"
)

// NATSSink publishes records to a JetStream stream.
type NATSSink struct {
	// URL lists the servers of one cluster, separated by commas: "nats://nats:4222", "tls://…".
	URL string `json:"url"`
	// Stream is the JetStream stream that receives the records.
	Stream string `json:"stream"`
	// Subject is the subject of a record, with {stream}, {coin} and {target}. Defaults to "hl.{stream}.{coin}". For an
	// event without a coin, {coin} is "_".
	Subject string `json:"subject,omitempty"`
	// Create creates the stream if it is missing. If absent, a missing stream is an outage until it is created.
	Create *NATSCreate `json:"create,omitempty"`
	// Delivery defaults to Best. ExactlyOnce needs a server of version 2.12 or later and a stream with allow_atomic.
	Delivery Delivery       `json:"delivery,omitempty"`
	Identity RecordIdentity `json:"identity,omitempty"` // defaults to Position
	// RecordsPerMessage is the maximum number of records per message, one record per line. Defaults to 1. The records
	// of a message share a subject.
	RecordsPerMessage int `json:"recordsPerMessage,omitempty"`
	// CredentialsFile is a NATS .creds file. It is read at each connect.
	CredentialsFile string `json:"credentialsFile,omitempty"`
	TLS             *TLS   `json:"tls,omitempty"`
}

// NATSCreate configures a stream that the parser creates.
type NATSCreate struct {
	Replicas int      `json:"replicas,omitempty"` // 1 to 5; defaults to 1
	MaxBytes Bytes    `json:"maxBytes,omitempty"` // 0: no limit
	MaxAge   Duration `json:"maxAge,omitzero"`    // 0: no limit
}

// KafkaSink produces records to Kafka topics.
type KafkaSink struct {
	// Brokers are the bootstrap brokers, as host:port.
	Brokers []string `json:"brokers"`
	// Topic is the topic of a record, with {stream}, {coin} and {target}. Defaults to "hl.{stream}".
	Topic string `json:"topic,omitempty"`
	// Key is the key of a record, with {stream}, {coin} and {target}. Defaults to "{coin}". Records with the same key
	// stay in order. For an event without a coin, {coin} is the stream's name.
	Key string `json:"key,omitempty"`
	// Delivery defaults to ExactlyOnce: records and position in one transaction.
	Delivery Delivery `json:"delivery,omitempty"`
	// PositionsTopic is the compacted topic that holds positions. It is created if missing. Defaults to
	// "hlparser-positions".
	PositionsTopic string `json:"positionsTopic,omitempty"`
	// Create creates missing topics for records. If absent, a missing topic is an outage until it is created.
	Create *KafkaCreate `json:"create,omitempty"`
	// Compression is the compression of record batches. Defaults to zstd.
	Compression KafkaCompression `json:"compression,omitempty"`
	// MaxMessageBytes bounds a record, in bytes, like the broker's max.message.bytes. Larger records go to the dead
	// letter. Defaults to 1Mi.
	MaxMessageBytes Bytes      `json:"maxMessageBytes,omitempty"`
	TLS             *TLS       `json:"tls,omitempty"`
	SASL            *KafkaSASL `json:"sasl,omitempty"`
}

// KafkaCreate configures topics that the parser creates.
type KafkaCreate struct {
	Partitions        int `json:"partitions,omitempty"`        // defaults to 1
	ReplicationFactor int `json:"replicationFactor,omitempty"` // 0: the broker's default
}

// KafkaCompression is the compression of record batches.
type KafkaCompression string

// Compressions that every Kafka client can read.
const (
	KafkaNone   KafkaCompression = "none"
	KafkaSnappy KafkaCompression = "snappy"
	KafkaLZ4    KafkaCompression = "lz4"
	KafkaZstd   KafkaCompression = "zstd"
)

// KafkaSASL configures authentication with SCRAM-SHA-512. The files are read at each connect. A trailing newline is not
// part of a value.
type KafkaSASL struct {
	UsernameFile string `json:"usernameFile"`
	PasswordFile string `json:"passwordFile"`
}

// TLS configures a TLS connection. Files are read at each connect, so that they can be rotated.
type TLS struct {
	CAFile     string `json:"caFile,omitempty"`     // defaults to the system's certificate authorities
	CertFile   string `json:"certFile,omitempty"`   // of this client; requires KeyFile
	KeyFile    string `json:"keyFile,omitempty"`    // of this client; requires CertFile
	ServerName string `json:"serverName,omitempty"` // defaults to the host of the address
}

// Bounds of the sinks' settings, and the defaults of omitted fields.
const (
	DefaultNATSSubject           = "hl.{stream}.{coin}"
	MaxRecordsPerMessage         = 10_000
	DefaultKafkaTopic            = "hl.{stream}"
	DefaultKafkaKey              = "{coin}"
	DefaultPositionsTopic        = "hlparser-positions"
	DefaultMaxMessageBytes Bytes = 1 << 20
	MinMaxMessageBytes     Bytes = 1 << 10
	MaxMaxMessageBytes     Bytes = 1 << 30
	MaxSinks                     = 8 // the number of streams
	DefaultMinFreePercent        = 10
	MaxMinFreePercent            = 90
)

// SinkOf returns the sink of a stream.
func (c Config) SinkOf(s StreamConfig) Sink {
	for _, n := range c.Sinks {
		if n.Name == s.Sink {
			return n.Sink
		}
	}
	return c.Sink
}

// Keyed reports whether the sink needs each record's coin.
func (s Sink) Keyed() bool {
	return s.NATS != nil && strings.Contains(s.NATS.Subject, "{coin}") ||
		s.Kafka != nil && strings.Contains(s.Kafka.Topic+s.Kafka.Key, "{coin}")
}

// Kinds of sinks.
const (
	KindStdout = "stdout"
	KindFile   = "file"
	KindNATS   = "nats"
	KindKafka  = "kafka"
)

// Kind returns the kind of the sink; "" for none.
func (s Sink) Kind() string {
	switch {
	case s.Stdout != nil:
		return KindStdout
	case s.File != nil:
		return KindFile
	case s.NATS != nil:
		return KindNATS
	case s.Kafka != nil:
		return KindKafka
	}
	return ""
}

func (s Sink) withDefaults() Sink {
	switch {
	case s.File != nil:
		f := *s.File
		setDefault(&f.MaxSize, DefaultMaxSize)
		setDefault(&f.MaxAge.Duration, DefaultMaxAge)
		setDefault(&f.Rotate, RotateBySize)
		if f.MinFreePercent == nil {
			f.MinFreePercent = new(DefaultMinFreePercent)
		}
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

// Schemes of sink addresses.
const (
	schemeNATS  = "nats"
	schemeTLS   = "tls" // NATS with TLS
	schemeKafka = "kafka"
)

var (
	natsSchemes = []string{schemeNATS, schemeTLS, "ws", "wss"}
	sinkSchemes = []string{schemeNATS, schemeTLS, schemeKafka} // of addresses in flags
)

var sinkNamePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// validateSinks checks Sink, or Sinks and the streams' choice from them.
func (c Config) validateSinks() error {
	if len(c.Sinks) == 0 {
		for i, s := range c.Streams {
			if s.Sink != "" {
				return &FieldError{fmt.Sprintf("streams[%d].sink", i), fmt.Sprintf(
					"names %q, but there are no sinks: add it to sinks", s.Sink)}
			}
		}
		return c.validateSink("sink", c.Sink, c.Streams)
	}
	switch {
	case c.Sink != Sink{}:
		return &FieldError{"sink", "is set together with sinks: move it into the list, with a name"}
	case len(c.Sinks) > MaxSinks:
		return &FieldError{"sinks", fmt.Sprintf("has %d: at most %d", len(c.Sinks), MaxSinks)}
	}
	for i, s := range c.Streams {
		if !slices.ContainsFunc(c.Sinks, func(n NamedSink) bool { return n.Name == s.Sink }) {
			return &FieldError{fmt.Sprintf("streams[%d].sink", i), fmt.Sprintf("%q is not one of sinks: write one of %s", s.Sink,
				sinkNames(c.Sinks))}
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
			return &FieldError{field + ".name",
				fmt.Sprintf("%q is not a name: write lower-case letters, digits and dashes, at most 63", n.Name)}
		case slices.ContainsFunc(c.Sinks[:i], func(o NamedSink) bool { return o.Name == n.Name }):
			return &FieldError{field + ".name", fmt.Sprintf("%q is listed twice", n.Name)}
		case len(streams) == 0:
			return &FieldError{field, fmt.Sprintf("no stream uses %q: name it in streams[].sink, or remove it", n.Name)}
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
				return &FieldError{field + ".file.path", fmt.Sprintf("is also the path of %q: a directory has one writer", other)}
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
	case f.MaxTotalSize != 0 && f.MaxTotalSize/2 < f.MaxSize:
		// Otherwise the open file could use up the limit, and an open file must not be removed.
		return &FieldError{field + ".maxTotalSize", fmt.Sprintf("%s is too small: at least %s, twice maxSize", f.MaxTotalSize,
			2*f.MaxSize)}
	case f.MinFreePercent != nil && (*f.MinFreePercent < 0 || *f.MinFreePercent > MaxMinFreePercent):
		return &FieldError{field + ".minFreePercent", fmt.Sprintf("%d is out of range: 0 (disabled) to %d", *f.MinFreePercent,
			MaxMinFreePercent)}
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

// fillTemplate returns a template with a letter in place of each placeholder, and the first unknown placeholder.
func fillTemplate(template string) (text, unknown string) {
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
			// The text is not repeated, because it may hold a password.
			return &FieldError{field + ".url",
				`is not a server's address: write it as "nats://nats:4222", several separated by commas`}
		case u.User != nil:
			return &FieldError{field + ".url", "contains a user name or password: put it into the credentials file"}
		}
	}
	subject, unknown := fillTemplate(n.Subject)
	switch {
	case !natsStreamPattern.MatchString(n.Stream):
		return &FieldError{field + ".stream",
			fmt.Sprintf("%q is not a JetStream stream's name: no spaces, dots, stars, > or slashes", n.Stream)}
	case unknown != "":
		return &FieldError{field + ".subject", fmt.Sprintf("%s is unknown: write {stream}, {coin} or {target}", unknown)}
	case strings.ContainsAny(subject, " \t\r\n*>{}") || slices.Contains(strings.Split(subject, "."), "") ||
		strings.HasPrefix(subject, "$"):
		return &FieldError{field + ".subject",
			fmt.Sprintf("%q is not a subject: words between single dots, no spaces, stars or >", n.Subject)}
	case !slices.Contains([]Delivery{Best, ExactlyOnce, AtLeastOnce}, n.Delivery):
		return &FieldError{field + ".delivery", fmt.Sprintf("%q is unknown: write Best, ExactlyOnce or AtLeastOnce",
			n.Delivery)}
	case n.Identity != ByPosition && n.Identity != ByChain:
		return &FieldError{field + ".identity", fmt.Sprintf("%q is unknown: write Position or Chain", n.Identity)}
	case n.RecordsPerMessage < 1 || n.RecordsPerMessage > MaxRecordsPerMessage:
		return &FieldError{field + ".recordsPerMessage", fmt.Sprintf("%d is out of range: 1 to %d", n.RecordsPerMessage,
			MaxRecordsPerMessage)}
	case n.Create != nil && (n.Create.Replicas < 1 || n.Create.Replicas > 5):
		return &FieldError{field + ".create.replicas", fmt.Sprintf("%d is out of range: 1 to 5", n.Create.Replicas)}
	case n.Create != nil && (n.Create.MaxBytes < 0 || n.Create.MaxAge.Duration < 0):
		return &FieldError{field + ".create", "has a negative limit: write 0 for none"}
	}
	if n.Identity == ByChain {
		for _, s := range streams {
			if s.Mode != ByBlock {
				return &FieldError{field + ".identity", fmt.Sprintf("Chain identifies events by their index in the block, "+
					"which only ByBlock lines show: set the mode of %s to ByBlock", s.Name)}
			}
		}
		if n.RecordsPerMessage > 1 {
			return &FieldError{field + ".recordsPerMessage",
				"messages with several records have no identity on the chain: write 1, or identity Position"}
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
			return &FieldError{fmt.Sprintf("%s.brokers[%d]", field, i),
				fmt.Sprintf("%q is not an address: write it as \"kafka:9092\"", b)}
		}
	}
	topic, unknown := fillTemplate(k.Topic)
	_, unknownInKey := fillTemplate(k.Key)
	switch {
	case unknown != "":
		return &FieldError{field + ".topic", fmt.Sprintf("%s is unknown: write {stream}, {coin} or {target}", unknown)}
	case unknownInKey != "":
		return &FieldError{field + ".key", fmt.Sprintf("%s is unknown: write {stream}, {coin} or {target}", unknownInKey)}
	case !topicPattern.MatchString(topic):
		return &FieldError{field + ".topic",
			fmt.Sprintf("%q is not a topic: letters, digits, dots, dashes and underscores, at most 249", k.Topic)}
	case !topicPattern.MatchString(k.PositionsTopic) || k.PositionsTopic == k.Topic:
		return &FieldError{field + ".positionsTopic", fmt.Sprintf("%q is not a separate topic: write letters, digits, "+
			"dots, dashes and underscores, at most 249", k.PositionsTopic)}
	case k.Delivery != ExactlyOnce && k.Delivery != AtLeastOnce:
		return &FieldError{field + ".delivery", fmt.Sprintf("%q is unknown: write ExactlyOnce or AtLeastOnce", k.Delivery)}
	case !slices.Contains([]KafkaCompression{KafkaNone, KafkaSnappy, KafkaLZ4, KafkaZstd}, k.Compression):
		return &FieldError{field + ".compression", fmt.Sprintf("%q is unknown: write none, snappy, lz4 or zstd",
			k.Compression)}
	case k.MaxMessageBytes < MinMaxMessageBytes || k.MaxMessageBytes > MaxMaxMessageBytes:
		return &FieldError{field + ".maxMessageBytes", fmt.Sprintf("%s is out of range: %s to %s", k.MaxMessageBytes,
			MinMaxMessageBytes, MaxMaxMessageBytes)}
	case k.Create != nil && (k.Create.Partitions < 1 || k.Create.Partitions > 10_000):
		return &FieldError{field + ".create.partitions", fmt.Sprintf("%d is out of range: 1 to 10000", k.Create.Partitions)}
	case k.Create != nil && (k.Create.ReplicationFactor < 0 || k.Create.ReplicationFactor > 100):
		return &FieldError{field + ".create.replicationFactor",
			fmt.Sprintf("%d is out of range: 0 (the broker's default) to 100", k.Create.ReplicationFactor)}
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

// parseSinkURL parses "nats://host:4222/STREAM?subject=…" and "kafka://host:9092,host:9092/topic?key=…".
func parseSinkURL(s string) (Sink, error) {
	scheme, rest, _ := strings.Cut(s, "://")
	rest, query, _ := strings.Cut(rest, "?")
	hosts, name, _ := strings.Cut(rest, "/")
	values, err := url.ParseQuery(query)
	if err != nil || hosts == "" {
		return Sink{}, fmt.Errorf("the sink's address is malformed: write nats://host:4222/STREAM or kafka://host:9092/TOPIC")
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
		return Sink{}, fmt.Errorf("%q is unknown in a sink's address: put it into a configuration file", key)
	}
	return out, nil
}
