package config

import (
	"errors"
	"strings"
	"testing"
)

// withSinks returns a configuration whose streams and sinks the test sets.
func withSinks(edit func(*Config)) Config {
	c := Config{DataDir: "/data", StateDir: "/state", Streams: []StreamConfig{{Name: Fills, Mode: ByBlock}}}
	edit(&c)
	return c.WithDefaults(1)
}

func TestValidSinks(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"NATS": func(c *Config) { c.Sink.NATS = &NATSSink{URL: "nats://a:4222,tls://b:4222", Stream: "HL"} },
		"the chain's identity": func(c *Config) {
			c.Sink.NATS = &NATSSink{URL: "nats://a:4222", Stream: "HL", Identity: ByChain}
		},
		"Kafka": func(c *Config) {
			c.Sink.Kafka = &KafkaSink{Brokers: []string{"a:9092", "[::1]:9092"}, Create: &KafkaCreate{}}
		},
		"named ones": func(c *Config) {
			c.Streams = []StreamConfig{{Name: Fills, Sink: "a"}, {Name: Trades, Sink: "b"}}
			c.Sinks = []NamedSink{{Name: "a", Sink: Sink{Stdout: &StdoutSink{}}},
				{Name: "b", Sink: Sink{File: &FileSink{Path: "/out"}}}}
		},
	} {
		if err := withSinks(edit).Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInvalidSinksAreRefusedByField(t *testing.T) {
	nats := func(edit func(*NATSSink)) func(*Config) {
		return func(c *Config) {
			c.Sink.NATS = &NATSSink{URL: "nats://a:4222", Stream: "HL"}
			edit(c.Sink.NATS)
		}
	}
	kafka := func(edit func(*KafkaSink)) func(*Config) {
		return func(c *Config) {
			c.Sink.Kafka = &KafkaSink{Brokers: []string{"a:9092"}}
			edit(c.Sink.Kafka)
		}
	}
	named := func(streams []StreamConfig, sinks ...NamedSink) func(*Config) {
		return func(c *Config) { c.Streams, c.Sinks = streams, sinks }
	}
	out := func(name string) NamedSink { return NamedSink{Name: name, Sink: Sink{Stdout: &StdoutSink{}}} }
	file := func(name, path string) NamedSink {
		return NamedSink{Name: name, Sink: Sink{File: &FileSink{Path: path}}}
	}
	fills := []StreamConfig{{Name: Fills, Sink: "a"}}
	two := []StreamConfig{{Name: Fills, Sink: "a"}, {Name: Trades, Sink: "b"}}
	for _, c := range []struct {
		field string
		edit  func(*Config)
	}{
		{"sink", func(*Config) {}},
		{"sink", func(c *Config) { c.Sink = Sink{Stdout: &StdoutSink{}, NATS: &NATSSink{}} }},
		{"streams[0].sink", named(fills)},
		{"streams[0].sink", named(fills, out("b"))},
		{"sinks[1]", named(fills, out("a"), file("b", "/out"))},
		{"sinks[0].name", named([]StreamConfig{{Name: Fills, Sink: "A"}}, out("A"))},
		{"sinks[1].name", named(fills, out("a"), out("a"))},
		{"sinks[1].stdout", named(two, out("a"), out("b"))},
		{"sinks[1].file.path", named(two, file("a", "/out"), file("b", "/out/"))},
		{"sink", func(c *Config) { named(fills, out("a"))(c); c.Sink.Stdout = &StdoutSink{} }},
		{"sink.nats.url", nats(func(n *NATSSink) { n.URL = "" })},
		{"sink.nats.url", nats(func(n *NATSSink) { n.URL = "http://a" })},
		{"sink.nats.url", nats(func(n *NATSSink) { n.URL = "nats://me:hunter2@a:4222" })},
		{"sink.nats.stream", nats(func(n *NATSSink) { n.Stream = "a.b" })},
		{"sink.nats.subject", nats(func(n *NATSSink) { n.Subject = "hl.{symbol}" })},
		{"sink.nats.subject", nats(func(n *NATSSink) { n.Subject = "hl.>" })},
		{"sink.nats.subject", nats(func(n *NATSSink) { n.Subject = "hl..{coin}" })},
		{"sink.nats.delivery", nats(func(n *NATSSink) { n.Delivery = "Twice" })},
		{"sink.nats.identity", nats(func(n *NATSSink) { n.Identity = "Hash" })},
		{"sink.nats.recordsPerMessage", nats(func(n *NATSSink) { n.Identity, n.RecordsPerMessage = ByChain, 2 })},
		{"sink.nats.identity", func(c *Config) {
			nats(func(n *NATSSink) { n.Identity = ByChain })(c)
			c.Streams = []StreamConfig{{Name: Fills, Mode: Streaming}}
		}},
		{"sink.nats.create.replicas", nats(func(n *NATSSink) { n.Create = &NATSCreate{Replicas: 6} })},
		{"sink.nats.tls", nats(func(n *NATSSink) { n.TLS = &TLS{CertFile: "c"} })},
		{"sink.kafka.brokers", kafka(func(k *KafkaSink) { k.Brokers = nil })},
		{"sink.kafka.brokers[0]", kafka(func(k *KafkaSink) { k.Brokers = []string{"a:9092/x"} })},
		{"sink.kafka.topic", kafka(func(k *KafkaSink) { k.Topic = "a b" })},
		{"sink.kafka.key", kafka(func(k *KafkaSink) { k.Key = "{user}" })},
		{"sink.kafka.positionsTopic", kafka(func(k *KafkaSink) { k.Topic, k.PositionsTopic = "x", "x" })},
		{"sink.kafka.delivery", kafka(func(k *KafkaSink) { k.Delivery = Best })},
		{"sink.kafka.compression", kafka(func(k *KafkaSink) { k.Compression = "gzip" })},
		{"sink.kafka.maxMessageBytes", kafka(func(k *KafkaSink) { k.MaxMessageBytes = 10 })},
		{"sink.kafka.sasl", kafka(func(k *KafkaSink) { k.SASL = &KafkaSASL{UsernameFile: "u"} })},
	} {
		err := withSinks(c.edit).Validate()
		var field *FieldError
		if !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("want %s refused, got %v", c.field, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error contains a password: %v", err)
		}
	}
}

func TestASinkInAFlag(t *testing.T) {
	s, err := ParseSinkFlag("nats://a:4222,b:4222/HL?subject=x.{coin}&delivery=ExactlyOnce&credentials=/c&create=true")
	if n := s.NATS; err != nil || n == nil || n.URL != "nats://a:4222,nats://b:4222" || n.Stream != "HL" ||
		n.Subject != "x.{coin}" ||
		n.Delivery != ExactlyOnce || n.CredentialsFile != "/c" || n.Create == nil {
		t.Errorf("%+v, %v", n, err)
	}
	s, err = ParseSinkFlag("kafka://a:9092,b:9092/hl.{stream}?key={coin}&compression=lz4")
	if k := s.Kafka; err != nil || k == nil || len(k.Brokers) != 2 || k.Topic != "hl.{stream}" || k.Key != "{coin}" ||
		k.Compression != KafkaLZ4 || k.Create != nil {
		t.Errorf("%+v, %v", k, err)
	}
	for _, bad := range []string{"nats://", "kafka://a:9092/t?colour=red", "s3://x"} {
		if s, err := ParseSinkFlag(bad); err == nil {
			t.Errorf("%s is accepted as %+v", bad, s)
		}
	}
}
