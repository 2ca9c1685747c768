package kafka_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/hlparser/hyperliquid-parser-operator/hack/kafka/broker"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/kafka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testMain{m}) }

// cluster is a Kafka cluster with a proxy in front of each broker.
type cluster struct {
	t     *testing.T
	fake  *kfake.Cluster  // nil for a real cluster
	real  *broker.Cluster // nil for a fake one
	seeds []string
	proxy *proxy
	now   func() time.Time
	// transactionTimeout is the sinks', unless it is 0.
	transactionTimeout time.Duration
	// journal records the logs of the sinks' clients.
	journal *journal
	// direct dials brokers without the proxy if the brokers advertise the proxy's addresses. Otherwise it is nil.
	direct func(ctx context.Context, network, address string) (net.Conn, error)
	unit   string // part of every name in this test, so that a real cluster can be reused
}

// newCluster returns a cluster for a test. If real brokers are wanted, it is the one that tests share.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	if !realBrokers() {
		return newFake(t)
	}
	c := emptyCluster(t)
	c.real = shared.cluster(t)
	c.seeds = c.real.Addresses()
	t.Cleanup(c.deleteOwnTopics)
	return c
}

// newFake returns a cluster that the test controls. The test is skipped if real brokers are wanted.
func newFake(t *testing.T, opts ...kfake.Opt) *cluster {
	t.Helper()
	if realBrokers() {
		t.Skip("only a fake cluster can be in that situation, or fail in that way")
	}
	return emptyCluster(t).start(opts...)
}

func emptyCluster(t *testing.T) *cluster {
	t.Helper()
	return &cluster{t: t, proxy: newProxy(t), journal: newJournal(t), unit: strings.ToLower(rand.Text())}
}

func (c *cluster) start(opts ...kfake.Opt) *cluster {
	c.t.Helper()
	opts = append([]kfake.Opt{
		kfake.NumBrokers(2),
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": "100000000"}),
	}, opts...)
	fake, err := kfake.NewCluster(opts...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(fake.Close)
	c.fake, c.seeds = fake, fake.ListenAddrs()
	return c
}

// freeze stops the sinks' clock, so that no transaction ends because of its age.
func (c *cluster) freeze() {
	now := time.Now()
	c.now = func() time.Time { return now }
}

// topic returns the name of a stream's topic.
func (c *cluster) topic(stream string) string { return "hl." + c.unit + "." + stream }

func (c *cluster) positions() string { return "positions-" + c.unit }

func (c *cluster) config(delivery config.Delivery) *config.KafkaSink {
	return &config.KafkaSink{
		Brokers: c.seeds, Topic: "hl." + c.unit + ".{stream}", Key: config.DefaultKafkaKey, Delivery: delivery,
		PositionsTopic: c.positions(), Create: &config.KafkaCreate{Partitions: 3}, Compression: config.KafkaZstd,
		MaxMessageBytes: 64 << 20,
	}
}

// output returns the output of a new process.
func (c *cluster) output(settings *config.KafkaSink) *kafka.Output {
	opts := []kgo.Opt{kgo.Dialer(c.proxy.dial), kgo.WithLogger(c.journal)}
	if c.transactionTimeout > 0 && settings.Delivery == config.ExactlyOnce {
		opts = append(opts, kgo.TransactionTimeout(c.transactionTimeout))
	}
	return kafka.New(kafka.Options{
		Config: settings, Writer: "cluster/ns/" + c.unit, Target: "node-1", OutageAfter: time.Second, Now: c.now,
		Client: opts,
	})
}

// journal keeps the latest lines that a cluster's clients log, and prints them if the test fails: an unexpected answer
// of a broker is rare, and its cause is hard to reproduce. It is a kgo.Logger.
type journal struct {
	start time.Time
	// observe, unless nil, is called with each line, by the goroutine of the client that logs it.
	observe func(msg string, keyvals ...any)
	mu      sync.Mutex
	lines   []string // a ring buffer
	next    int
}

const journalLines = 300

func newJournal(t *testing.T) *journal {
	j := &journal{start: time.Now()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the latest lines that the clients logged:\n%s", j)
		}
	})
	return j
}

// Level implements kgo.Logger.
func (j *journal) Level() kgo.LogLevel { return kgo.LogLevelDebug }

// Log implements kgo.Logger.
func (j *journal) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if j.observe != nil {
		j.observe(msg, keyvals...)
	}
	line := fmt.Sprintf("%s %s %s %v", time.Since(j.start), level, msg, keyvals)
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.lines) < journalLines {
		j.lines = append(j.lines, line)
		return
	}
	j.lines[j.next] = line
	j.next = (j.next + 1) % journalLines
}

// String returns the lines, oldest first.
func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines[j.next:], "\n") + "\n" + strings.Join(j.lines[:j.next], "\n")
}

// client returns a client that bypasses the proxy.
func (c *cluster) client(opts ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	all := []kgo.Opt{kgo.SeedBrokers(c.seeds...), kgo.MetadataMinAge(50 * time.Millisecond), kgo.DisableClientMetrics()}
	if c.direct != nil {
		all = append(all, kgo.Dialer(c.direct))
	}
	client, err := kgo.NewClient(append(all, opts...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(client.Close)
	return client
}

// createTopic creates a topic that accepts large messages.
func (c *cluster) createTopic(name string, partitions int32) {
	c.t.Helper()
	c.createTopicFor(name, partitions, 100_000_000)
}

// createTopicFor creates a topic that accepts messages of at most the given number of bytes. A real cluster may still
// be deleting the topic of that name.
func (c *cluster) createTopicFor(name string, partitions int32, largest int) {
	c.t.Helper()
	admin := kadm.NewClient(c.client())
	eventually(c.t, func() error {
		_, err := admin.CreateTopic(c.t.Context(), partitions, -1,
			map[string]*string{"max.message.bytes": kadm.StringPtr(strconv.Itoa(largest))}, name)
		return err
	})
}

// deleteTopics deletes the existing ones of some topics, and waits until they are gone.
func (c *cluster) deleteTopics(names ...string) {
	c.t.Helper()
	admin := kadm.NewClient(c.client())
	if _, err := admin.DeleteTopics(c.t.Context(), names...); err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, func() error {
		left, err := admin.ListTopics(c.t.Context(), names...)
		if err != nil {
			return err
		}
		for _, topic := range left.Sorted() {
			if topic.Err == nil {
				return fmt.Errorf("topic %s is still there", topic.Topic)
			}
		}
		return nil
	})
}

// consume returns the committed records of a topic, in order by partition. A missing topic has none.
func (c *cluster) consume(topic string) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := c.client(
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(50*time.Millisecond),
		kgo.FetchMaxPartitionBytes(32<<20), kgo.BrokerMaxReadBytes(200<<20),
	)
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	left := map[int32]int64{}
	from := map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Err == nil && o.Offset > 0 {
			left[o.Partition] = o.Offset
			from[o.Partition] = kgo.NewOffset().AtStart()
		}
	})
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: maps.Clone(from)})
	var out []*kgo.Record
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
		})
	}
	return out, nil
}

// received returns the lines of a topic.
func (c *cluster) received(topic string) ([]byte, error) {
	records, err := c.consume(topic)
	var out bytes.Buffer
	for _, r := range records {
		out.Write(r.Value)
		out.WriteByte('\n')
	}
	return out.Bytes(), err
}

// proxy is a TCP proxy in front of every address that is dialled through it.
type proxy struct {
	mu      sync.Mutex
	changed sync.Cond
	fronts  map[string]*front // by the address of the server
	conns   map[net.Conn]bool
	down    bool // connections are refused, and open ones are cut
	blocked bool // nothing passes
	mute    bool // answers do not pass
	copying sync.WaitGroup
}

type front struct {
	address  string
	listener net.Listener
	accepts  sync.WaitGroup
}

func newProxy(t *testing.T) *proxy {
	p := &proxy{fronts: map[string]*front{}, conns: map[net.Conn]bool{}}
	p.changed.L = &p.mu
	t.Cleanup(p.close)
	return p
}

// front returns the proxy's address for a server.
func (p *proxy) front(behind string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.fronts[behind]; f != nil {
		return f.address, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	f := &front{address: l.Addr().String(), listener: l}
	p.fronts[behind] = f
	f.accepts.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if p.isDown() {
				reset(conn)
				continue
			}
			p.copying.Go(func() { p.serve(conn, behind) })
		}
	})
	return f.address, nil
}

func (p *proxy) serve(conn net.Conn, behind string) {
	to, err := net.Dial("tcp", behind)
	if err != nil {
		_ = conn.Close()
		return
	}
	p.mu.Lock()
	p.conns[conn], p.conns[to] = true, true
	if p.down {
		p.cutLocked()
	}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(to, conn, false) })
	both.Go(func() { p.copy(conn, to, true) })
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	delete(p.conns, to)
}

func (p *proxy) copy(to, from net.Conn, answers bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.conns[from] && !p.down && (p.blocked || p.mute && answers) {
			p.changed.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) dial(ctx context.Context, network, address string) (net.Conn, error) {
	front, err := p.front(address)
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{}).DialContext(ctx, network, front)
}

// cut breaks the open connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutLocked()
}

func (p *proxy) cutLocked() {
	for conn := range p.conns {
		reset(conn)
		delete(p.conns, conn)
	}
	p.changed.Broadcast()
}

// reset closes a connection as a host without that connection does. The port stays bound, because another process could
// take it.
func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

func (p *proxy) isDown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

func (p *proxy) isMute() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mute
}

func (p *proxy) setDown(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = on
	if on {
		p.cutLocked()
	}
}

func (p *proxy) close() {
	p.setDown(true)
	p.mu.Lock()
	fronts := slices.Collect(maps.Values(p.fronts))
	p.mu.Unlock()
	for _, f := range fronts {
		_ = f.listener.Close()
		f.accepts.Wait()
	}
	p.copying.Wait()
}

func (p *proxy) set(field *bool, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*field = on
	p.changed.Broadcast()
}

func (p *proxy) setBlocked(on bool) { p.set(&p.blocked, on) }

func (p *proxy) setMute(on bool) { p.set(&p.mute, on) }

// processes closes what a killed process had open. Its connections break without a message to the cluster.
type processes struct {
	t       *testing.T
	mu      sync.Mutex
	streams []sink.Sink
}

type process struct {
	sink.Output
	all *processes
}

func (p *processes) start(o sink.Output) sink.Output { return process{o, p} }

// Open implements sink.Output.
func (p process) Open(ctx context.Context, stream string, state json.RawMessage) (sink.Sink, error) {
	s, err := p.Output.Open(ctx, stream, state)
	if err == nil {
		p.all.mu.Lock()
		defer p.all.mu.Unlock()
		p.all.streams = append(p.all.streams, s)
	}
	return s, err
}

func (p *processes) crash() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		if err := s.Close(); err != nil {
			p.t.Errorf("closing a sink: %v", err)
		}
	}
	p.streams = nil
}
