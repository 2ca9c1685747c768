package controller

import (
	"slices"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

func TestASinksNameMeansTheSameInEveryNamespace(t *testing.T) {
	nats := func(url string) v1alpha1.Sink { return v1alpha1.Sink{NATS: &v1alpha1.NATSSink{URL: url}} }
	kafka := func(brokers ...v1alpha1.Broker) v1alpha1.Sink {
		return v1alpha1.Sink{Kafka: &v1alpha1.KafkaSink{Brokers: brokers}}
	}
	for _, test := range []struct {
		what string
		sink v1alpha1.Sink
		want string // joined by commas
	}{
		{"a Service's short name is the namespace's own", nats("nats://nats:4222"), "nats nats.ns.svc:4222"},
		{"two labels are looked for there first", nats("nats://nats.infra:4222"), "nats nats.infra.ns.svc:4222"},
		{"as a pod of a headless Service is", nats("nats://nats-0.nats:4222"), "nats nats-0.nats.ns.svc:4222"},
		{"even when they look like a domain", kafka("example.com:9092"), "kafka example.com.ns.svc:9092"},
		{"unless they end in a dot", kafka("example.com.:9092"), "kafka example.com:9092"},
		{"a Service with its namespace and svc", nats("nats://nats.infra.svc:4222"), "nats nats.infra.svc:4222"},
		{"its full name is the same", nats("nats://nats.infra.svc.cluster.local:4222"), "nats nats.infra.svc:4222"},
		{"and with a dot", nats("nats://nats.infra.svc.cluster.local.:4222"), "nats nats.infra.svc:4222"},
		{"case is nothing", nats("NATS://Broker.Example.COM:4222"), "nats broker.example.com:4222"},
		{"nor is a default port", nats("nats://broker.example.com"), "nats broker.example.com:4222"},
		{"of Kafka's", kafka("broker.example.com"), "kafka broker.example.com:9092"},
		{"of a websocket", nats("ws://broker.example.com,wss://broker.example.com"),
			"nats broker.example.com:443,nats broker.example.com:80"},
		{"nor the scheme", nats("tls://broker.example.com:4222"), "nats broker.example.com:4222"},
		{"nor no scheme", nats("broker.example.com:4222"), "nats broker.example.com:4222"},
		{"nor a user", nats("nats://me:secret@broker.example.com:4222"), "nats broker.example.com:4222"},
		{"nor zeros before a port", kafka("broker.example.com:09092"), "kafka broker.example.com:9092"},
		{"several servers are each one", nats("nats://b.example.com:4222,nats://a.example.com,nats://b.example.com."),
			"nats a.example.com:4222,nats b.example.com:4222"},
		{"and brokers", kafka("y.example.com:1", "x.example.com:1"), "kafka x.example.com:1,kafka y.example.com:1"},
		{"an IP address", nats("nats://10.1.2.3:4222"), "nats 10.1.2.3:4222"},
		{"one of version 6", nats("nats://[2001:DB8:0::1]:4222"), "nats [2001:db8::1]:4222"},
		{"one in the other's clothes", nats("nats://[::ffff:10.1.2.3]"), "nats 10.1.2.3:4222"},
		{"each pod has its own loopback",
			nats("nats://127.0.0.1:4222,nats://localhost:4222,nats://[::1]:4222,nats://0.0.0.0:4222"), ""},
		{"by any name", kafka("LOCALHOST.:9092", "a.localhost:9092"), ""},
		{"and each node its own link", nats("nats://169.254.1.1:4222,nats://[fe80::1]:4222"), ""},
		{"no port is not a server", kafka("broker.example.com:0", "broker.example.com:65536", "broker.example.com:x"), ""},
		{"nor is no name", kafka("", ":9092", "..:9092", "a..b.c:9092"), ""},
		{"standard output is each parser's own", v1alpha1.Sink{Stdout: &v1alpha1.StdoutSink{}}, ""},
	} {
		obj := sharing("a", "", "node")
		obj.Spec.Sink = test.sink
		if got := strings.Join(sharedSinks(obj), ","); got != test.want {
			t.Errorf("%s: got %q, want %q", test.what, got, test.want)
		}
	}
}

func TestFilesAreSharedWithinANamespace(t *testing.T) {
	claim := func(namespace string) *v1alpha1.HyperliquidParser {
		obj := sharing("a", "", "node")
		obj.Namespace, obj.Spec.Sink.File = namespace, &v1alpha1.FileSink{ClaimName: "out"}
		return obj
	}
	path := func(namespace, path, role string) *v1alpha1.HyperliquidParser {
		obj := sharing("a", path, role)
		obj.Namespace = namespace
		return obj
	}
	beside := path("ns", "/out", "node")
	beside.Spec.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{}}
	for _, test := range []struct {
		what string
		a, b *v1alpha1.HyperliquidParser
		want bool
	}{
		{"a claim", claim("ns"), claim("ns"), true},
		{"a claim of that name elsewhere", claim("ns"), claim("other"), false},
		{"a directory, however it is written", path("ns", "/out", "node"), path("ns", "/out/", "node"), true},
		{"on other nodes", path("ns", "/out", "node"), path("ns", "/out", "archive"), false},
		{"in another namespace", path("ns", "/out", "node"), path("other", "/out", "node"), false},
		{"on nodes that are unknown", beside, beside, false},
	} {
		if got := shared(sharedSinks(test.a), sharedSinks(test.b)); got != test.want {
			t.Errorf("%s: shared %v, want %v", test.what, got, test.want)
		}
	}
	if !slices.IsSorted(sharedSinks(claim("ns"))) {
		t.Error("not sorted")
	}
}
