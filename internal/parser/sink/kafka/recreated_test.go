package kafka_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sinktest"
)

// parser delivers numbered records of fills as the engine does: it retries after an outage, and restarts from its
// checkpoint after ErrReopen.
type parser struct {
	*cluster
	out       sink.Output
	sink      *opened
	state     json.RawMessage // of the checkpoint
	committed int             // records before the checkpoint
	next      int             // acknowledged records
	reopened  int
}

func (c *cluster) parser(settings *config.KafkaSink) *parser {
	c.t.Helper()
	p := &parser{cluster: c, out: c.output(settings)}
	p.open()
	c.t.Cleanup(func() { p.sink.close() })
	return p
}

func (p *parser) open() {
	p.t.Helper()
	eventually(p.t, func() (err error) {
		p.sink, err = try(p.t, p.out, p.state)
		if errors.Is(err, sink.ErrFailed) {
			p.t.Fatal(err)
		}
		return err
	})
	p.next, p.state = p.committed, p.sink.state
}

// step makes a call that may meet an outage or return ErrReopen. It reports whether the call succeeded.
func (p *parser) step(call func() error) (done bool) {
	p.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := call()
		var refusal *sink.Refusal
		switch {
		case err == nil:
			return true
		case errors.Is(err, sink.ErrReopen):
			p.reopened++
			p.sink.close()
			p.open()
			return false
		case errors.Is(err, sink.ErrFailed), errors.As(err, &refusal), time.Now().After(deadline):
			p.t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// deliver delivers all records before to.
func (p *parser) deliver(to int) {
	p.t.Helper()
	for p.next < to {
		if p.step(func() error { return p.sink.write(p.next, to) }) {
			p.next = to
		}
	}
}

func (p *parser) commit() {
	p.t.Helper()
	for to := p.next; p.committed < to; {
		p.deliver(to)
		if p.step(p.sink.commit) {
			p.state, p.committed = p.sink.state, to
		}
	}
}

// mustHoldFrom checks that consumers of fills receive the records from first to next-1 and, if exactly is set, none
// twice.
func (p *parser) mustHoldFrom(first, next int, exactly bool) {
	p.t.Helper()
	records, err := p.consume(p.topic("fills"))
	if err != nil {
		p.t.Fatal(err)
	}
	var got []int
	for _, r := range records {
		var v struct{ N int }
		if err := json.Unmarshal(r.Value, &v); err != nil {
			p.t.Fatal(err)
		}
		got = append(got, v.N)
	}
	slices.Sort(got)
	if !exactly {
		got = slices.Compact(got)
	}
	want := make([]int, 0, next-first)
	for n := first; n < next; n++ {
		want = append(want, n)
	}
	if !slices.Equal(got, want) {
		p.t.Fatalf("consumers received the records %v, want those from %d to %d", got, first, next-1)
	}
}

// kafkas are versions that reveal more and more about a recreated topic: nothing, its id, and that each batch is for an
// id.
var kafkas = map[string][]kfake.Opt{
	"2.7":    {kfake.MaxVersions(kversion.V2_7_0())},
	"3.9":    {kfake.MaxVersions(kversion.V3_9_0())},
	"newest": nil,
}

// newVersion returns a cluster of a version. A real one is the newest.
func newVersion(t *testing.T, version string, opts ...kfake.Opt) *cluster {
	t.Helper()
	if realBrokers() && version == "newest" {
		return newCluster(t)
	}
	return newFake(t, opts...)
}

// With one broker the client's next batch goes to the broker of the old topic, whether the client knows the new topic
// or not.
func TestARecreatedTopicOfRecordsIsWrittenToAgain(t *testing.T) {
	for version, opts := range kafkas {
		for _, brokers := range []int{1, 2} {
			if realBrokers() && brokers > 1 {
				continue // the shared cluster has one
			}
			for _, delivery := range deliveries {
				for _, uncommitted := range []int{0, 10} {
					if version == "2.7" && uncommitted > 0 {
						continue // nothing reveals that the topic is another one
					}
					for _, partitions := range []int32{0, 1, 5} { // 0: the sink creates the topic, with the default number
						name := fmt.Sprintf("Kafka %s, %d brokers, %s, %d uncommitted, %d partitions",
							version, brokers, delivery, uncommitted, partitions)
						t.Run(name, func(t *testing.T) {
							t.Parallel()
							c := newVersion(t, version, append(slices.Clone(opts), kfake.NumBrokers(brokers))...)
							c.freeze()
							p := c.parser(c.config(delivery))
							p.deliver(10)
							p.commit()
							p.deliver(10 + uncommitted)
							c.deleteTopics(c.topic("fills"))
							if partitions > 0 {
								c.createTopic(c.topic("fills"), partitions)
							}
							p.deliver(30)
							p.commit()
							p.deliver(40)
							p.commit()
							p.mustHoldFrom(10, 40, delivery == config.ExactlyOnce)
							// A batch that was sent for the old topic and acknowledged by the new one is in doubt.
							doubtful := version == "3.9" && partitions > 0
							if uncommitted == 0 && p.reopened > 0 && !doubtful {
								t.Errorf("the stream restarted %d times, but nothing was in doubt", p.reopened)
							}
						})
					}
				}
			}
		}
	}
}

// Nothing is written between the topic's deletion and the commit that would count its records as delivered.
func TestATopicDeletedBeforeACommitIsWrittenToAgain(t *testing.T) {
	for version, opts := range kafkas {
		if version == "2.7" {
			continue // as above
		}
		for _, delivery := range deliveries {
			for _, partitions := range []int32{0, 1, 3, 5} {
				t.Run(fmt.Sprintf("Kafka %s, %s, %d partitions", version, delivery, partitions), func(t *testing.T) {
					t.Parallel()
					c := newVersion(t, version, opts...)
					c.freeze()
					p := c.parser(c.config(delivery))
					p.deliver(10)
					p.commit()
					p.deliver(20)
					c.deleteTopics(c.topic("fills"))
					if partitions > 0 {
						c.createTopic(c.topic("fills"), partitions)
					}
					p.commit()
					p.mustHoldFrom(10, 20, delivery == config.ExactlyOnce)
					if p.reopened != 1 {
						t.Errorf("the stream restarted %d times, want once", p.reopened)
					}
				})
			}
		}
	}
}

func TestADeletedTopicIsAnOutageUntilItIsRecreated(t *testing.T) {
	for _, delivery := range deliveries {
		t.Run(string(delivery), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.createTopic(c.topic("fills"), 3)
			settings := c.config(delivery)
			settings.Create = nil
			p := c.parser(settings)
			p.deliver(10)
			p.commit()
			c.deleteTopics(c.topic("fills"))
			eventually(t, func() error {
				err := p.sink.write(10, 20)
				if errors.Is(err, sink.ErrReopen) || errors.Is(err, sink.ErrFailed) {
					t.Fatal(err)
				}
				if err == nil || !strings.Contains(err.Error(), "create it, or set create") {
					return fmt.Errorf("got %w, want an outage with instructions", err)
				}
				return nil
			})
			c.createTopic(c.topic("fills"), 2)
			p.deliver(20)
			p.commit()
			p.mustHoldFrom(10, 20, delivery == config.ExactlyOnce)
		})
	}
}

// If only the positions are lost, all records are still there. None may be delivered twice, because the sink remembers
// what it has committed. Records of an open transaction are written again.
func TestARecreatedTopicOfPositionsLosesNothing(t *testing.T) {
	for _, uncommitted := range []int{0, 10} {
		t.Run(fmt.Sprintf("%d uncommitted", uncommitted), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.freeze()
			p := c.parser(c.config(config.ExactlyOnce))
			p.deliver(10)
			p.commit()
			p.deliver(10 + uncommitted)
			c.deleteTopics(c.positions())
			p.deliver(30)
			p.commit()
			p.deliver(40)
			p.commit()
			p.mustHoldFrom(0, 40, true)
		})
	}
}

func TestEmptiedBrokersReceiveEverythingUncommitted(t *testing.T) {
	for _, delivery := range deliveries {
		for _, synced := range []bool{false, true} { // whether its transaction has ended, without a checkpoint
			t.Run(fmt.Sprintf("%s, synced %t", delivery, synced), func(t *testing.T) {
				c := newFake(t)
				c.freeze()
				p := c.parser(c.config(delivery))
				p.deliver(10)
				p.commit()
				p.deliver(20)
				if synced {
					if _, err := sinktest.Flush(t.Context(), p.sink.Sink, false); err != nil {
						t.Fatal(err)
					}
				}
				ports := make([]int, 0, len(c.seeds))
				for _, address := range c.seeds {
					to, err := net.ResolveTCPAddr("tcp", address)
					if err != nil {
						t.Fatal(err)
					}
					ports = append(ports, to.Port)
				}
				c.fake.Close()
				c.start(kfake.Ports(ports...))
				p.deliver(30)
				p.commit()
				p.mustHoldFrom(10, 30, delivery == config.ExactlyOnce)
			})
		}
	}
}

func TestATopicMayGetMorePartitions(t *testing.T) {
	for _, delivery := range deliveries {
		t.Run(string(delivery), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			p := c.parser(c.config(delivery))
			p.deliver(10)
			p.commit()
			topics := []string{c.topic("fills")}
			if delivery == config.ExactlyOnce {
				topics = append(topics, c.positions())
			}
			if _, err := kadm.NewClient(c.client()).UpdatePartitions(t.Context(), 7, topics...); err != nil {
				t.Fatal(err)
			}
			for n := 20; n <= 60; n += 10 {
				p.deliver(n)
				p.commit()
			}
			p.sink.close()
			p.open() // the reopened sink finds the position
			p.deliver(70)
			p.commit()
			p.mustHoldFrom(0, 70, delivery == config.ExactlyOnce)
		})
	}
}

// A producer id or a transaction that the brokers have forgotten is replaced.
func TestAForgottenProducerContinues(t *testing.T) {
	for _, answer := range []*kerr.Error{
		kerr.InvalidProducerIDMapping, kerr.UnknownProducerID, kerr.OutOfOrderSequenceNumber, kerr.InvalidTxnState,
	} {
		for _, delivery := range deliveries {
			if delivery == config.AtLeastOnce && (answer == kerr.InvalidTxnState || answer == kerr.InvalidProducerIDMapping) {
				continue // that delivery has no transactions
			}
			for _, uncommitted := range []int{0, 10} {
				t.Run(fmt.Sprintf("%s, %s, %d uncommitted", answer.Message, delivery, uncommitted), func(t *testing.T) {
					t.Parallel()
					c := newFake(t)
					c.freeze()
					p := c.parser(c.config(delivery))
					p.deliver(10)
					p.commit()
					p.deliver(10 + uncommitted)
					c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: c.topic("fills"), Err: answer})
					p.deliver(40)
					p.commit()
					p.mustHoldFrom(0, 40, delivery == config.ExactlyOnce)
					if delivery == config.AtLeastOnce && p.reopened != uncommitted/10 {
						t.Errorf("the stream restarted %d times, want a restart only for uncommitted records, which may be lost",
							p.reopened)
					}
				})
			}
		}
	}
}

// A sink that replaces its client must not take the stream back from the parser that has taken it over meanwhile.
func TestAReplacedParserThatMeetsANewTopicIsStillReplaced(t *testing.T) {
	c := newCluster(t)
	old := c.parser(c.config(config.ExactlyOnce))
	old.deliver(10)
	old.commit()
	young := &parser{cluster: c, out: c.output(c.config(config.ExactlyOnce)), state: old.state, committed: 10}
	young.open()
	t.Cleanup(func() { young.sink.close() })
	c.deleteTopics(c.topic("fills"))
	eventually(t, func() error {
		err := old.sink.write(10, 20)
		switch {
		case err == nil:
			t.Fatal("the old parser writes again")
		case errors.Is(err, sink.ErrReopen):
			old.sink.close()
			_, err = try(t, old.out, old.state)
		}
		if !errors.Is(err, sink.ErrFailed) {
			return fmt.Errorf("the old parser got %w, want a failure", err)
		}
		return nil
	})
	young.deliver(30)
	young.commit()
	young.mustHoldFrom(10, 30, true)
}
