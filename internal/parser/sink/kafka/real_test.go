package kafka_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hlparser/hyperliquid-parser-operator/hack/kafka/broker"
)

// brokersVariable names the environment variable that makes tests use Apache Kafka instead of kfake. Tests that need
// kfake are skipped then. `make brokers` sets it.
const brokersVariable = "HLPARSER_BROKERS"

func realBrokers() bool { return os.Getenv(brokersVariable) != "" }

// quick makes java compile less, which suits a process that lives for a minute or two.
var quick = []string{"-XX:TieredStopAtLevel=1"}

// large lets brokers accept the suite's largest records.
var large = map[string]string{"message.max.bytes": "100000000"}

// sharedCluster is the real cluster that tests share. The first test that needs it starts it.
type sharedCluster struct {
	once sync.Once
	real *broker.Cluster
	dir  string
	err  error
}

var shared sharedCluster

func (s *sharedCluster) cluster(t *testing.T) *broker.Cluster {
	t.Helper()
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("", "kafka-"); s.err != nil {
			return
		}
		// The test that starts it may end before others that use it.
		s.real, s.err = broker.Start(context.Background(), broker.Options{
			Dir: s.dir, HeapMiB: 1024, JVM: quick, Properties: large,
		})
	})
	if s.err != nil {
		t.Fatalf("starting the shared Kafka: %v", s.err)
	}
	return s.real
}

func (s *sharedCluster) close() error {
	if s.real != nil {
		s.real.Close()
	}
	return os.RemoveAll(s.dir)
}

// testMain ends the shared cluster before goroutines that leak are looked for.
type testMain struct{ *testing.M }

// Run implements goleak.TestingM.
func (m testMain) Run() int {
	code := m.M.Run()
	if err := shared.close(); err != nil {
		println(err.Error())
		return 1
	}
	return code
}

// newReal returns a real cluster of the test's own. The test is skipped if real brokers are not wanted.
func newReal(t *testing.T, opts broker.Options) *cluster {
	t.Helper()
	if !realBrokers() {
		t.Skipf("needs Apache Kafka: set %s=1, or run make brokers", brokersVariable)
	}
	c := emptyCluster(t)
	opts.Dir, opts.JVM = t.TempDir(), quick
	var err error
	if c.real, err = broker.Start(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.real.Close)
	c.seeds = c.real.Addresses()
	return c
}

// deleteOwnTopics deletes a test's topics, so that hundreds of tests do not fill the shared cluster.
func (c *cluster) deleteOwnTopics() {
	client := c.client()
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		c.t.Errorf("listing topics: %v", err)
		return
	}
	var own []string
	for _, name := range topics.Names() {
		if strings.Contains(name, c.unit) {
			own = append(own, name)
		}
	}
	if len(own) == 0 {
		return
	}
	deleted, err := admin.DeleteTopics(ctx, own...)
	if err = errors.Join(err, deleted.Error()); err != nil {
		c.t.Errorf("deleting the test's topics: %v", err)
	}
}
