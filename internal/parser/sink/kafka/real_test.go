package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hlparser/hyperliquid-parser-operator/hack/kafka/broker"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// brokersVariable names the environment variable that makes tests use Apache Kafka instead of kfake. Tests that need
// kfake are skipped then. `make brokers` sets it.
const brokersVariable = "HLPARSER_BROKERS"

func realBrokers() bool { return os.Getenv(brokersVariable) != "" }

// quick makes java compile less, which suits a process that lives for a minute or two.
var quick = []string{"-XX:TieredStopAtLevel=1"}

// withQuickAborts returns settings of brokers that look for transactions that do not end more often than every 10 s.
func withQuickAborts(more map[string]string) map[string]string {
	p := map[string]string{"transaction.abort.timed.out.transaction.cleanup.interval.ms": "200"}
	maps.Copy(p, more)
	return p
}

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
			Dir: s.dir, HeapMiB: 1024, JVM: quick,
			// The suite's largest records have 20 MB.
			Properties: withQuickAborts(map[string]string{"message.max.bytes": "100000000"}),
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

// forgetful makes brokers forget transactional ids and producers after seconds instead of a week and a day.
var forgetful = map[string]string{
	"transactional.id.expiration.ms":                             "2000",
	"transaction.remove.expired.transaction.cleanup.interval.ms": "500",
	"producer.id.expiration.ms":                                  "2000",
	"producer.id.expiration.check.interval.ms":                   "500",
}

// A parser that was suspended for long finds that the brokers have forgotten its producer.
func TestRecordsAreWrittenAgainAfterTheBrokersHaveForgottenTheProducer(t *testing.T) {
	all := newReal(t, broker.Options{Properties: withQuickAborts(forgetful)})
	for _, delivery := range deliveries {
		for _, uncommitted := range []int{0, 10} {
			t.Run(fmt.Sprintf("%s, %d uncommitted", delivery, uncommitted), func(t *testing.T) {
				t.Parallel()
				c := emptyCluster(t)
				c.real, c.seeds = all.real, all.seeds
				p := c.suspended(delivery, uncommitted, (*cluster).mustHaveForgotten)
				if delivery == config.ExactlyOnce && p.reopened == 0 {
					t.Error("the brokers accepted records from a producer that they do not know")
				}
			})
		}
	}
}

// A parser that was suspended for more than a minute finds its transaction aborted.
func TestRecordsAreWrittenAgainAfterTheBrokersHaveAbortedTheTransaction(t *testing.T) {
	c := newCluster(t)
	if p := c.suspended(config.ExactlyOnce, 10, (*cluster).mustHaveAborted); p.reopened != 1 {
		t.Errorf("the stream restarted %d times, want once", p.reopened)
	}
}

// suspended delivers records, waits until the brokers have reacted to the silence, and delivers more.
func (c *cluster) suspended(delivery config.Delivery, uncommitted int, reacted func(*cluster, *kadm.Client) error) *parser {
	c.t.Helper()
	c.transactionTimeout = time.Second // instead of a minute
	c.freeze()
	c.createTopic(c.topic("fills"), 1)
	p := c.parser(c.config(delivery))
	p.deliver(10)
	p.commit()
	p.deliver(10 + uncommitted)
	admin := kadm.NewClient(c.client())
	eventually(c.t, func() error { return reacted(c, admin) })
	p.deliver(40)
	p.commit()
	p.deliver(50)
	p.commit()
	p.mustHoldFrom(0, 50, delivery == config.ExactlyOnce)
	return p
}

// transactions returns the states of the test's transactional ids.
func (c *cluster) transactions(admin *kadm.Client) (states []string, err error) {
	ids, err := admin.ListTransactions(c.t.Context(), nil, nil)
	if err != nil {
		return nil, err
	}
	for _, id := range ids.Sorted() {
		if strings.Contains(id.TxnID, c.unit) {
			states = append(states, id.State)
		}
	}
	return states, nil
}

func (c *cluster) mustHaveAborted(admin *kadm.Client) error {
	states, err := c.transactions(admin)
	if err != nil {
		return err
	}
	// kfake reports Empty.
	if len(states) != 1 || states[0] != "CompleteAbort" && states[0] != "Empty" {
		return fmt.Errorf("the transaction is %v", states)
	}
	return nil
}

// mustHaveForgotten checks that the brokers know neither the transactional id nor a producer of the test's topic.
func (c *cluster) mustHaveForgotten(admin *kadm.Client) error {
	states, err := c.transactions(admin)
	if err != nil {
		return err
	}
	topic := c.topic("fills")
	var partitions kadm.TopicsSet
	partitions.Add(topic, 0)
	producers, err := admin.DescribeProducers(c.t.Context(), partitions)
	if err != nil {
		return err
	}
	if active := producers[topic].Partitions[0].ActiveProducers; len(states)+len(active) > 0 {
		return fmt.Errorf("the transaction is %v, and the producers are %v", states, active.Sorted())
	}
	return nil
}
