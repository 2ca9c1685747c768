// Package broker runs a real Apache Kafka cluster out of processes on this machine, for tests, benchmarks and trials.
// Its brokers are controllers, too (KRaft). They run from the jars that pom.xml names, and need Java. The first start
// needs Maven as well.
package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed" // the brokers' logging
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
)

const (
	// Admin is the user of a Secure cluster who may do everything, and AdminPassword is that user's password.
	Admin         = "admin"
	AdminPassword = "admin-secret"

	defaultHost    = "127.0.0.1"
	loopback       = "127.0.0.1" // brokers reach each other there
	defaultHeapMiB = 256
	// startLimit bounds the start of a broker, and electionLimit the time until it serves its cluster.
	startLimit    = 2 * time.Minute
	electionLimit = time.Minute
	serverPEM     = "broker.pem"
)

//go:embed log4j2.properties
var logging []byte

// Options configures a Cluster.
type Options struct {
	// Brokers is how many brokers there are: 1 or 3. Defaults to 1. With 3, topics have three replicas, two of them in
	// sync, unless they say otherwise.
	Brokers int
	// Host is the name or address that clients connect to: brokers listen on it and advertise it. Defaults to 127.0.0.1.
	Host string
	// Port is the first broker's port; further brokers have the next ones. 0 means free ones.
	Port int
	// Advertise returns the address to advertise for a broker, such as that of a proxy. Nil means its own.
	Advertise func(address string) (string, error)
	// Dir is an existing directory. It holds data, logs, and certificates. A cluster that is started again in the same
	// directory has its data.
	Dir string
	// Secure makes clients use TLS, with the authority of CAFile, and log in by SCRAM-SHA-512, as Admin or one of Users.
	// A client's certificate is verified if there is one. Users may do only what ACLs allow them.
	Secure bool
	// Users holds passwords by user. They are created with the cluster's data.
	Users map[string]string
	// HeapMiB is the size of each broker's heap in MiB. Defaults to 256.
	HeapMiB int
	// JVM holds further options of java.
	JVM []string
	// Properties holds settings of the brokers besides those of this package. They take precedence.
	Properties map[string]string
	// Say receives what takes long. Nil discards it.
	Say func(format string, args ...any)
}

// Cluster is a running cluster. Its methods are not safe for concurrent use, except Close.
type Cluster struct {
	opts    Options
	runtime runtime
	group   child.Group
	brokers []*node
}

// node is one broker.
type node struct {
	id                            int
	address, internal, controller string
	advertised                    string
	child                         *child.Child // nil until the first start
}

// Start downloads Kafka if need be, and returns a cluster that serves transactions. The cluster ends with Close, and
// on Linux with this process.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	if opts.Brokers == 0 {
		opts.Brokers = 1
	}
	if opts.Brokers != 1 && opts.Brokers != 3 {
		return nil, fmt.Errorf("starting Kafka with %d brokers: 1 or 3 are supported", opts.Brokers)
	}
	if opts.Host == "" {
		opts.Host = defaultHost
	}
	if opts.HeapMiB == 0 {
		opts.HeapMiB = defaultHeapMiB
	}
	if opts.Say == nil {
		opts.Say = func(string, ...any) {}
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("finding the directory of Kafka: %w", err)
	}
	opts.Dir = dir
	c := &Cluster{opts: opts}
	if c.runtime, err = prepare(ctx, opts.Say); err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.plan(); err != nil {
		return err
	}
	if c.opts.Secure {
		if err := c.writeCertificates(); err != nil {
			return err
		}
	}
	if err := os.WriteFile(c.path("log4j2.properties"), logging, 0o644); err != nil {
		return fmt.Errorf("writing the settings of the log: %w", err)
	}
	id, err := c.clusterID()
	if err != nil {
		return err
	}
	formats, limited := errgroup.WithContext(ctx)
	for _, n := range c.brokers {
		formats.Go(func() error { return c.format(limited, n, id) })
	}
	if err := formats.Wait(); err != nil {
		return err
	}
	for _, n := range c.brokers {
		if err := c.launch(n); err != nil {
			return err
		}
	}
	for _, n := range c.brokers {
		if err := c.await(ctx, n, len(c.brokers)); err != nil {
			return err
		}
	}
	return c.warmUp(ctx)
}

func (c *Cluster) path(parts ...string) string {
	return filepath.Join(append([]string{c.opts.Dir}, parts...)...)
}

// plan gives each broker its ports.
func (c *Cluster) plan() error {
	for i := range c.opts.Brokers {
		n := &node{id: i + 1}
		port := c.opts.Port
		if port != 0 {
			port += i
		} else {
			var err error
			if port, err = child.FreePort(c.opts.Host); err != nil {
				return err
			}
		}
		n.address = net.JoinHostPort(c.opts.Host, strconv.Itoa(port))
		n.advertised = n.address
		if c.opts.Advertise != nil {
			var err error
			if n.advertised, err = c.opts.Advertise(n.address); err != nil {
				return fmt.Errorf("advertising %s: %w", n.address, err)
			}
		}
		for _, address := range []*string{&n.internal, &n.controller} {
			port, err := child.FreePort(loopback)
			if err != nil {
				return err
			}
			*address = net.JoinHostPort(loopback, strconv.Itoa(port))
		}
		c.brokers = append(c.brokers, n)
	}
	return nil
}

// clusterID returns the id of the cluster whose data is in the directory, or a new one.
func (c *Cluster) clusterID() (string, error) {
	path := c.path("cluster.id")
	id, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		id = make([]byte, 16)
		_, _ = rand.Read(id) // never fails
		id[0] &= 0x7f        // the text does not begin with a dash, which would be taken for a flag
		id = []byte(base64.RawURLEncoding.EncodeToString(id))
		err = os.WriteFile(path, id, 0o644)
	}
	if err != nil {
		return "", fmt.Errorf("storing the id of the cluster: %w", err)
	}
	return string(id), nil
}

// properties returns the settings of a broker.
func (c *Cluster) properties(n *node) map[string]string {
	voters := make([]string, 0, len(c.brokers))
	for _, other := range c.brokers {
		voters = append(voters, fmt.Sprintf("%d@%s", other.id, other.controller))
	}
	replicas, inSync := "1", "1"
	if len(c.brokers) == 3 {
		replicas, inSync = "3", "2"
	}
	protocol := "PLAINTEXT"
	if c.opts.Secure {
		protocol = "SASL_SSL"
	}
	listeners := fmt.Sprintf("CLIENT://%s,INTERNAL://%s,CONTROLLER://%s", n.address, n.internal, n.controller)
	p := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        strconv.Itoa(n.id),
		"controller.quorum.voters":       strings.Join(voters, ","),
		"controller.listener.names":      "CONTROLLER",
		"inter.broker.listener.name":     "INTERNAL",
		"listeners":                      listeners,
		"advertised.listeners":           fmt.Sprintf("CLIENT://%s,INTERNAL://%s", n.advertised, n.internal),
		"listener.security.protocol.map": "CLIENT:" + protocol + ",INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs":                       c.path(n.name(), "data"),
		"default.replication.factor":     replicas,
		"min.insync.replicas":            inSync,
		// Kafka's own topics are created before the first use of each, which takes as long as they have partitions.
		"offsets.topic.num.partitions":                     "1",
		"offsets.topic.replication.factor":                 replicas,
		"transaction.state.log.num.partitions":             "3",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    inSync,
		"share.coordinator.state.topic.num.partitions":     "1",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            inSync,
	}
	if c.opts.Secure {
		maps.Copy(p, map[string]string{
			"sasl.enabled.mechanisms": "SCRAM-SHA-512",
			"listener.name.client.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram." +
				"ScramLoginModule required;",
			"ssl.keystore.type":       "PEM",
			"ssl.keystore.location":   c.path(serverPEM),
			"ssl.truststore.type":     "PEM",
			"ssl.truststore.location": c.CAFile(),
			"ssl.client.auth":         "requested",
			"authorizer.class.name":   "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			// Brokers reach each other without a login.
			"super.users": "User:" + Admin + ";User:ANONYMOUS",
		})
	}
	maps.Copy(p, c.opts.Properties)
	return p
}

func (n *node) name() string { return fmt.Sprintf("broker-%d", n.id) }

// java returns a command that runs a class of Kafka.
func (c *Cluster) java(ctx context.Context, n *node, class string, args ...string) *exec.Cmd {
	options := append([]string{
		fmt.Sprintf("-Xmx%dm", c.opts.HeapMiB), "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError",
		"-Dlog4j2.configurationFile=" + c.path("log4j2.properties"),
		"-cp", c.runtime.jars + "/*", // java itself expands it
	}, c.opts.JVM...)
	cmd := exec.CommandContext(ctx, c.runtime.java, append(append(options, class), args...)...)
	cmd.Dir = c.path(n.name())
	return cmd
}

// format writes a broker's settings, and its first records unless it has some.
func (c *Cluster) format(ctx context.Context, n *node, id string) error {
	if err := os.MkdirAll(c.path(n.name()), 0o755); err != nil {
		return fmt.Errorf("creating the directory of %s: %w", n.name(), err)
	}
	var text bytes.Buffer
	p := c.properties(n)
	for _, key := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&text, "%s=%s\n", key, p[key])
	}
	settings := c.settings(n)
	if err := os.WriteFile(settings, text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("writing the settings of %s: %w", n.name(), err)
	}
	args := []string{"format", "--ignore-formatted", "--cluster-id", id, "--config", settings}
	if c.opts.Secure {
		users := map[string]string{Admin: AdminPassword}
		maps.Copy(users, c.opts.Users)
		for _, user := range slices.Sorted(maps.Keys(users)) {
			args = append(args, "--add-scram", fmt.Sprintf("SCRAM-SHA-512=[name=%s,password=%s]", user, users[user]))
		}
	}
	if out, err := c.java(ctx, n, "kafka.tools.StorageTool", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("formatting the storage of %s: %w: %s", n.name(), err, out)
	}
	return nil
}

func (c *Cluster) settings(n *node) string { return c.path(n.name(), "server.properties") }

// launch starts a broker, and does not wait for it.
func (c *Cluster) launch(n *node) (err error) {
	// The group ends it, not a context.
	cmd := c.java(context.Background(), n, "kafka.Kafka", c.settings(n))
	n.child, err = c.group.Start("Kafka's "+n.name(), cmd, c.LogFile(n.id-1))
	return err
}

// await waits until a broker answers, and lists at least the given number of brokers and a controller.
func (c *Cluster) await(ctx context.Context, n *node, brokers int) error {
	return n.child.WaitUntil(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		client, err := kgo.NewClient(kgo.SeedBrokers(n.internal), kgo.DisableClientMetrics())
		if err != nil {
			return err
		}
		defer client.Close()
		known, err := kadm.NewClient(client).BrokerMetadata(ctx)
		if err != nil {
			return err
		}
		if len(known.Brokers) < brokers || known.Controller < 0 || !slices.Contains(known.Brokers.NodeIDs(), int32(n.id)) {
			return fmt.Errorf("it knows the brokers %v", known.Brokers.NodeIDs())
		}
		return nil
	}, startLimit)
}

// warmUp waits until the cluster serves transactions: a coordinator needs a topic, which the first request creates.
func (c *Cluster) warmUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, electionLimit)
	defer cancel()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(c.internal()...), kgo.TransactionalID("hack/kafka"), kgo.DisableClientMetrics(),
	)
	if err != nil {
		return fmt.Errorf("connecting to Kafka: %w", err)
	}
	defer client.Close()
	if _, _, err := client.ProducerID(ctx); err != nil {
		return fmt.Errorf("waiting for Kafka's coordinator of transactions: %w", err)
	}
	return nil
}

func (c *Cluster) internal() []string {
	out := make([]string, 0, len(c.brokers))
	for _, n := range c.brokers {
		out = append(out, n.internal)
	}
	return out
}

// Addresses returns the addresses that clients use, by broker.
func (c *Cluster) Addresses() []string {
	out := make([]string, 0, len(c.brokers))
	for _, n := range c.brokers {
		out = append(out, n.advertised)
	}
	return out
}

// CAFile returns the path of the certificate of the authority that signed a Secure cluster's certificates.
func (c *Cluster) CAFile() string { return c.path("ca.crt") }

// ClientCertificate returns the paths of a certificate that the brokers of a Secure cluster accept, and of its key.
func (c *Cluster) ClientCertificate() (cert, key string) {
	return c.path("client.crt"), c.path("client.key")
}

// LogFile returns the path of a broker's log. Brokers are counted from 0.
func (c *Cluster) LogFile(broker int) string { return c.path(c.brokers[broker].name(), "log") }

// ID returns a broker's id in Kafka's own terms.
func (c *Cluster) ID(broker int) int32 { return int32(c.brokers[broker].id) }

// Kill ends a broker with SIGKILL, and waits until it has ended.
func (c *Cluster) Kill(broker int) { c.Stop(broker, 0) }

// Stop asks a broker to hand over its partitions and to end, and kills it after the grace period. It waits until the
// broker has ended.
func (c *Cluster) Stop(broker int, grace time.Duration) {
	n := c.brokers[broker]
	n.child.Stop(grace)
	<-n.child.Done()
}

// Start starts a broker that was stopped or killed, with its data, and waits until it is one of the cluster.
func (c *Cluster) Start(ctx context.Context, broker int) error {
	n := c.brokers[broker]
	if err := c.launch(n); err != nil {
		return err
	}
	return c.await(ctx, n, 1)
}

// Done returns a channel that is closed when a broker has ended.
func (c *Cluster) Done(broker int) <-chan struct{} { return c.brokers[broker].child.Done() }

// Close kills the brokers, and waits until they have ended. Their data stays, as after a crash.
func (c *Cluster) Close() { c.group.Close(0) }
