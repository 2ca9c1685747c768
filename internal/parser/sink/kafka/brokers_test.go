package kafka_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hlparser/hyperliquid-parser-operator/hack/kafka/broker"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// brokerKills names the environment variable with the number of kills of brokers, for each delivery.
const brokerKills = "HLPARSER_BROKER_KILLS"

// brokersRecover bounds the time until a killed broker is back and in sync, on a busy machine.
const brokersRecover = 3 * time.Minute

// Three brokers hold each record three times, and two of them must have it. One after the other is killed by SIGKILL in
// the middle of a transaction. Some are killed before the last one is in sync again, so that no partition can be
// written to for a while. Some processes of the parser end, too.
func TestNothingIsLostOrDoubledThroughKill9OfBrokers(t *testing.T) {
	kills := 6
	if text := os.Getenv(brokerKills); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	all := newReal(t, broker.Options{Brokers: 3, Properties: map[string]string{
		// A broker that does not answer is replaced after 3 s instead of 9.
		"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500",
	}})
	for i, delivery := range deliveries {
		t.Run(string(delivery), func(t *testing.T) {
			c := emptyCluster(t)
			c.real, c.seeds = all.real, all.seeds
			c.freeze() // a transaction ends only with a commit
			c.killBrokers(delivery, kills, rand.New(rand.NewPCG(uint64(seed), uint64(i))))
		})
	}
}

func (c *cluster) killBrokers(delivery config.Delivery, kills int, r *rand.Rand) {
	c.t.Helper()
	c.createTopicFor(c.topic("fills"), 6, 1<<20)
	seen := c.follow(c.topic("fills"))
	p := c.parser(c.config(delivery))
	end, crashes := 0, 0
	more := func() int { end += 1 + r.IntN(2000); return end }
	for kill := range kills {
		p.deliver(more())
		if delivery == config.ExactlyOnce && p.next == p.committed {
			c.t.Fatal("no transaction is open")
		}
		victim := r.IntN(3)
		var killing sync.WaitGroup
		pause := time.Duration(r.IntN(20_000)) * time.Microsecond
		killing.Go(func() {
			time.Sleep(pause) // a random moment of the next calls
			c.real.Kill(victim)
		})
		p.deliver(more())
		p.commit()
		killing.Wait()
		for range 3 { // two brokers suffice
			p.deliver(more())
			if r.IntN(4) == 0 {
				crashes++
				p.sink.close()
				p.open()
			}
			p.commit()
		}
		if err := c.real.Start(c.t.Context(), victim); err != nil {
			c.t.Fatal(err)
		}
		if kill%3 != 2 {
			c.awaitInSync(c.topic("fills"))
		}
	}
	p.deliver(more())
	p.commit()
	c.awaitInSync(c.topic("fills"))
	exactly := delivery == config.ExactlyOnce
	p.mustHoldFrom(0, end, exactly)
	seen.mustHold(end, exactly)
	c.t.Logf("%d kills of brokers, %d ends of the parser, %d restarts of the stream, %d records", kills, crashes,
		p.reopened, end)
}

// awaitInSync waits until each partition of a topic has all its replicas in sync.
func (c *cluster) awaitInSync(topic string) {
	c.t.Helper()
	admin := kadm.NewClient(c.client())
	defer admin.Close()
	within(c.t, brokersRecover, func() error {
		topics, err := admin.ListTopics(c.t.Context(), topic)
		if err != nil {
			return err
		}
		for _, p := range topics[topic].Partitions.Sorted() {
			if p.Err != nil || len(p.ISR) < len(p.Replicas) {
				return fmt.Errorf("partition %d of %s has the replicas %v in sync: %w", p.Partition, topic, p.ISR, p.Err)
			}
		}
		return topics.Error()
	})
}

// follower is a consumer that is always there: what it has received once must stay what others receive later.
type follower struct {
	t      *testing.T
	mu     sync.Mutex
	counts map[int]int // by number of a record
}

// follow starts a consumer of committed records that ends with the test.
func (c *cluster) follow(topic string) *follower {
	c.t.Helper()
	f := &follower{t: c.t, counts: map[int]int{}}
	client := c.client(
		kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond),
	)
	ctx, cancel := context.WithCancel(c.t.Context())
	var polling sync.WaitGroup
	polling.Go(func() {
		for ctx.Err() == nil {
			client.PollFetches(ctx).EachRecord(f.add) // errors are of brokers that are away; the client asks again
		}
	})
	c.t.Cleanup(func() { cancel(); polling.Wait() })
	return f
}

func (f *follower) add(r *kgo.Record) {
	var v struct{ N int }
	if err := json.Unmarshal(r.Value, &v); err != nil {
		f.t.Errorf("the follower received %q: %v", r.Value, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[v.N]++
}

// mustHold waits until the consumer has received the records 0 to n-1, and checks that it received nothing else and, if
// exactly is set, none twice.
func (f *follower) mustHold(n int, exactly bool) {
	f.t.Helper()
	within(f.t, time.Minute, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		for i := range n {
			if f.counts[i] == 0 {
				return fmt.Errorf("the follower has not received record %d of %d", i, n)
			}
		}
		return nil
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.counts) != n {
		f.t.Errorf("the follower received %d records, want %d", len(f.counts), n)
	}
	for i, count := range f.counts {
		if exactly && count != 1 {
			f.t.Errorf("the follower received record %d %d times", i, count)
		}
	}
}
