package kafka_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/kafka"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sinktest"
)

var coins = []string{"BTC", "ETH", "xyz:GOLD", "@107", ""}

// batch returns the records first to next-1, with alternating coins.
func batch(first, next int) sink.Batch {
	b := sink.Batch{File: position.FileID{Directory: "node_fills_by_block", Date: "20260430", Hour: 8,
		Generation: "1a2b3c4d"}}
	for i := first; i < next; i++ {
		coin := coins[i%len(coins)]
		b.Data = fmt.Appendf(b.Data, `{"coin":%q,"n":%d}`+"\n", coin, i)
		b.Records = append(b.Records, sink.Record{
			End: len(b.Data), Offset: int64(i / 10 * 100), Index: int32(i%10) - 1, Block: int64(1 + i/10), Coin: coin,
		})
	}
	return b
}

// numbers returns the numbers of records. It checks that each record has the right key, and that the numbers of each
// key ascend.
func numbers(t *testing.T, records []*kgo.Record) []int {
	t.Helper()
	last := map[string]int{}
	out := make([]int, 0, len(records))
	for _, r := range records {
		var v struct {
			Coin string
			N    int
		}
		if err := json.Unmarshal(r.Value, &v); err != nil {
			t.Fatalf("a consumer received %q: %v", r.Value, err)
		}
		key := v.Coin
		if key == "" {
			key = "fills"
		}
		if string(r.Key) != key {
			t.Fatalf("record %d has the key %q, want %q", v.N, r.Key, key)
		}
		if before, ok := last[key]; ok && v.N <= before {
			t.Fatalf("a consumer received record %d of %q after record %d", v.N, key, before)
		}
		last[key] = v.N
		out = append(out, v.N)
	}
	slices.Sort(out)
	return out
}

// mustHold checks that consumers of fills receive the records 0 to n-1, each once.
func (c *cluster) mustHold(n int) {
	c.t.Helper()
	records, err := c.consume(c.topic("fills"))
	if err != nil {
		c.t.Fatal(err)
	}
	got := numbers(c.t, records)
	if len(got) != n || n > 0 && (got[0] != 0 || got[n-1] != n-1) {
		c.t.Fatalf("consumers received %d records, want those from 0 to %d: %v", len(got), n-1, got[:min(len(got), 50)])
	}
}

// mustHoldByFile is like mustHold for two alternating files, where only the order within a file is defined.
func (c *cluster) mustHoldByFile(n int) {
	c.t.Helper()
	records, err := c.consume(c.topic("fills"))
	if err != nil {
		c.t.Fatal(err)
	}
	byFile := map[string][]*kgo.Record{}
	for _, r := range records {
		file, _, _ := strings.Cut(string(r.Headers[len(r.Headers)-1].Value), "@")
		byFile[file] = append(byFile[file], r)
	}
	got := make([]int, 0, len(records))
	for _, records := range byFile {
		got = append(got, numbers(c.t, records)...)
	}
	slices.Sort(got)
	for i, v := range got {
		if i != v {
			c.t.Fatalf("consumers received %d records: record %d is missing or record %d is duplicated", len(got), i, v)
		}
	}
	if len(got) != n {
		c.t.Fatalf("consumers received %d records, want %d", len(got), n)
	}
}

// opened is a sink after its first commit, with the state of that commit.
type opened struct {
	sink.Sink
	t     *testing.T
	state json.RawMessage
}

// try opens the sink of fills as the engine does.
func try(t *testing.T, o sink.Output, state json.RawMessage) (*opened, error) {
	t.Helper()
	s, err := o.Open(t.Context(), "fills", state)
	if err != nil {
		return nil, err
	}
	out := &opened{s, t, state}
	if err := out.commit(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return out, nil
}

func open(t *testing.T, o sink.Output, state json.RawMessage) *opened {
	t.Helper()
	s, err := try(t, o, state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func (o *opened) commit() error {
	state, err := sinktest.Flush(o.t.Context(), o.Sink, false)
	if err != nil {
		return err
	}
	o.state = slices.Clone(state)
	return o.Committed(o.t.Context())
}

func (o *opened) write(first, next int) error { return o.Write(o.t.Context(), batch(first, next)) }

func (o *opened) mustWrite(first, next int) {
	o.t.Helper()
	if err := o.write(first, next); err != nil {
		o.t.Fatal(err)
	}
}

func (o *opened) mustCommit() {
	o.t.Helper()
	if err := o.commit(); err != nil {
		o.t.Fatal(err)
	}
}

func (o *opened) close() {
	if err := o.Close(); err != nil {
		o.t.Error(err)
	}
}

// eventually calls until the call succeeds, for a minute at most.
func eventually(t *testing.T, call func() error) {
	t.Helper()
	within(t, time.Minute, call)
}

// within calls until the call succeeds, within a limit.
func within(t *testing.T, limit time.Duration, call func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for err := call(); err != nil; err = call() {
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// mustBe checks the kind of an error and that its text contains text. A nil kind means an outage.
func mustBe(t *testing.T, err, kind error, text string) {
	t.Helper()
	var refusal *sink.Refusal
	isOutage := err != nil && !errors.Is(err, sink.ErrReopen) && !errors.Is(err, sink.ErrFailed) &&
		!errors.Is(err, sink.ErrGone) && !errors.As(err, &refusal)
	if kind == nil && !isOutage || kind != nil && !errors.Is(err, kind) || !strings.Contains(fmt.Sprint(err), text) {
		t.Fatalf("got %v, want %v with %q", err, kind, text)
	}
}

func TestANewParserOfTheSameNameFencesThePreviousOne(t *testing.T) {
	c := newCluster(t)
	older, newer := c.output(c.config(config.ExactlyOnce)), c.output(c.config(config.ExactlyOnce))
	old := open(t, older, nil)
	old.mustWrite(0, 10)
	old.mustCommit()
	old.mustWrite(10, 20) // acknowledged, not necessarily committed
	state := old.state

	young := open(t, newer, state)
	err := old.write(20, 30)
	if err == nil {
		err = old.commit()
	}
	mustBe(t, err, sink.ErrReopen, "another parser")
	for range 2 {
		_, err = try(t, older, state)
		mustBe(t, err, sink.ErrFailed, "another parser writes as hlparser/cluster/ns/"+c.unit+"/fills")
	}
	// The new parser restarts if the old one interfered, and keeps the stream.
	err = young.write(10, 40)
	if err == nil {
		err = young.commit()
	}
	if err != nil {
		mustBe(t, err, sink.ErrReopen, "another parser")
		young = open(t, newer, state)
		young.mustWrite(10, 40)
		young.mustCommit()
	}
	c.mustHold(40)
}

// The engine knows whether a stream is new. Kafka knows whether it was ever written.
func TestAPositionWithoutACheckpointIsRemembered(t *testing.T) {
	c := newCluster(t)
	first := open(t, c.output(c.config(config.ExactlyOnce)), nil)
	first.mustWrite(0, 10)
	first.mustCommit()
	for name, o := range map[string]struct {
		sink *opened
		want bool
	}{
		"a new stream":         {first, false},
		"with its checkpoint":  {open(t, c.output(c.config(config.ExactlyOnce)), first.state), false},
		"without a checkpoint": {open(t, c.output(c.config(config.ExactlyOnce)), nil), true},
	} {
		if got := sink.Remembers(o.sink.Sink); got != o.want {
			t.Errorf("%s: Remembers is %v, want %v", name, got, o.want)
		}
	}
}

func TestANewParserTakesOverAndSendsWhatIsMissing(t *testing.T) {
	for _, versions := range []*kversion.Versions{kversion.V2_8_0(), kversion.V3_9_0(), kversion.V4_0_0()} {
		t.Run("Kafka "+versions.VersionGuess(), func(t *testing.T) {
			c := newFake(t, kfake.MaxVersions(versions))
			first := open(t, c.output(c.config(config.ExactlyOnce)), nil)
			first.mustWrite(0, 10)
			first.mustCommit()
			first.mustWrite(10, 20)
			second := open(t, c.output(c.config(config.ExactlyOnce)), first.state)
			second.mustWrite(10, 40)
			if err := first.write(20, 30); err == nil {
				t.Error("the replaced parser can still write")
			}
			second.mustCommit()
			c.mustHold(40)
		})
	}
}

func TestACommitWithALostAnswerIsReadBack(t *testing.T) {
	for _, arrives := range []bool{true, false} {
		t.Run(fmt.Sprintf("committed %t", arrives), func(t *testing.T) {
			c := newFake(t)
			c.freeze()
			out := c.output(c.config(config.ExactlyOnce))
			s := open(t, out, nil)
			s.mustWrite(0, 10)
			s.mustCommit()
			s.mustWrite(10, 20)
			c.fake.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
				c.fake.DropControl()
				c.proxy.setMute(true) // before the answer is written
				if arrives {
					return nil, nil, false
				}
				return nil, errors.New("the connection breaks"), true
			})
			state := s.state
			failed := make(chan error, 1)
			go func() {
				for {
					err := s.commit()
					if err == nil || errors.Is(err, sink.ErrReopen) {
						failed <- err
						return
					}
				}
			}()
			for !c.proxy.isMute() {
				time.Sleep(time.Millisecond)
			}
			c.proxy.setDown(true)
			c.proxy.setMute(false)
			mustBe(t, <-failed, sink.ErrReopen, "committing a transaction")
			c.proxy.setDown(false)

			again := open(t, out, state)
			again.mustWrite(10, 30)
			again.mustCommit()
			c.mustHold(30)
		})
	}
}

func TestAFailureOfOnePartitionFailsTheBatchWithoutDuplicates(t *testing.T) {
	for _, before := range []int{0, 10} { // records in the same transaction
		t.Run(fmt.Sprintf("after %d records", before), func(t *testing.T) {
			c := newFake(t)
			c.freeze()
			c.createTopic(c.topic("fills"), 3)
			out := c.output(c.config(config.ExactlyOnce))
			s := open(t, out, nil)
			if before > 0 {
				s.mustWrite(0, before)
			}
			c.fake.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Topic: c.topic("fills"), Partitions: []int32{1},
				Err: kerr.TopicAuthorizationFailed,
			})
			failures := 0
			for {
				err := s.write(before, before+100)
				if err == nil {
					break
				}
				failures++
				if errors.Is(err, sink.ErrReopen) {
					s.close()
					s = open(t, out, s.state)
					if before > 0 {
						s.mustWrite(0, before)
					}
					continue
				}
				mustBe(t, err, nil, "allow this user to Write and Describe")
			}
			if failures != 1 {
				t.Errorf("the batch failed %d times, want once", failures)
			}
			s.mustCommit()
			c.mustHold(before + 100)
		})
	}
}

func TestAnAtLeastOnceBatchIsRetriedAfterAFailureOfOnePartition(t *testing.T) {
	c := newFake(t)
	c.createTopic(c.topic("fills"), 3)
	s := open(t, c.output(c.config(config.AtLeastOnce)), nil)
	c.fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: c.topic("fills"), Partitions: []int32{1}, Err: kerr.InvalidRecord,
	})
	mustBe(t, s.write(0, 100), nil, "INVALID_RECORD")
	s.mustWrite(0, 100)
	seen := map[string]bool{}
	records, err := c.consume(c.topic("fills"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		seen[string(r.Value)] = true
	}
	if len(seen) != 100 {
		t.Errorf("consumers received %d distinct records, want 100", len(seen))
	}
}

func TestAnAbortedTransactionRestartsTheStream(t *testing.T) {
	for _, answer := range []*kerr.Error{
		kerr.TransactionAbortable, kerr.ProducerFenced, kerr.InvalidTxnState, kerr.InvalidProducerEpoch,
	} {
		t.Run(answer.Message, func(t *testing.T) {
			c := newFake(t)
			c.freeze()
			out := c.output(c.config(config.ExactlyOnce))
			s := open(t, out, nil)
			s.mustWrite(0, 10)
			s.mustCommit()
			s.mustWrite(10, 20)
			s.mustWrite(20, 30)
			state := s.state
			c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: answer})
			mustBe(t, s.commit(), sink.ErrReopen, "the brokers have ended the transaction")
			again := open(t, out, state)
			again.mustWrite(10, 50)
			again.mustCommit()
			c.mustHold(50)
		})
	}
}

func TestACoordinatorOrALeaderMayMove(t *testing.T) {
	c := newFake(t)
	s := open(t, c.output(c.config(config.ExactlyOnce)), nil)
	for i := range 20 {
		s.mustWrite(i*10, i*10+10)
		c.fake.RehashCoordinators()
		c.fake.ShufflePartitionLeaders()
		s.mustCommit()
	}
	c.mustHold(200)
}

func TestBrokersThatGoAndComeBackLoseNothing(t *testing.T) {
	c := newCluster(t)
	out := c.output(c.config(config.ExactlyOnce))
	s := open(t, out, nil)
	for i := range 10 {
		first, next := i*10, i*10+10
		done := make(chan struct{})
		go func() {
			defer close(done)
			time.Sleep(time.Duration(i) * time.Millisecond)
			c.proxy.setDown(true)
			time.Sleep(20 * time.Millisecond)
			c.proxy.setDown(false)
		}()
		for {
			err := s.write(first, next)
			if err == nil {
				err = s.commit()
			}
			if err == nil {
				break
			}
			if errors.Is(err, sink.ErrReopen) {
				s.close()
				for {
					if again, err := try(t, out, s.state); err == nil {
						s = again
						break
					}
				}
				t.Cleanup(s.close)
			}
		}
		<-done
	}
	c.mustHold(100)
}

func TestAMissingTopicIsAnOutageUntilItIsCreated(t *testing.T) {
	for _, delivery := range []config.Delivery{config.AtLeastOnce, config.ExactlyOnce} {
		c := newCluster(t)
		settings := c.config(delivery)
		settings.Create = nil
		s := open(t, c.output(settings), nil)
		mustBe(t, s.write(0, 10), nil, "topic "+c.topic("fills")+" does not exist: create it, or set create")
		c.createTopic(c.topic("fills"), 2)
		eventually(t, func() error { return s.write(0, 10) })
		s.mustCommit()
		c.mustHold(10)
	}
}

func TestATopicIsCreatedWithItsSettings(t *testing.T) {
	c := newFake(t)
	settings := c.config(config.ExactlyOnce)
	settings.Topic = "hl." + c.unit + ".{stream}.{coin}"
	settings.Create = &config.KafkaCreate{Partitions: 4, ReplicationFactor: 2}
	s := open(t, c.output(settings), nil)
	s.mustWrite(0, 10)
	for _, topic := range []string{"BTC", "ETH", "xyz_3aGOLD", "_40107", "fills"} {
		info := c.fake.TopicInfo(c.topic("fills." + topic))
		if info == nil || info.NumReplicas != 2 || c.fake.LeaderFor(info.Topic, 3) < 0 {
			t.Errorf("topic %s: %+v", topic, info)
		}
	}
	info := c.fake.TopicInfo(c.positions())
	if info == nil || *info.Configs["cleanup.policy"] != "compact" || *info.Configs["segment.bytes"] != "16777216" {
		t.Errorf("the topic of positions: %+v", info)
	}
}

func TestARecordThatIsTooLargeIsRefusedBeforeAnythingIsSent(t *testing.T) {
	c := newFake(t)
	produced := c.fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: c.topic("fills"), Count: -1, Observe: true,
	})
	settings := c.config(config.AtLeastOnce)
	settings.MaxMessageBytes = 1 << 10
	s := open(t, c.output(settings), nil)
	b := batch(0, 3)
	large := sink.Batch{File: b.File, Data: []byte(strings.Repeat("x", 900) + "\n"),
		Records: []sink.Record{{End: 901, Offset: 1}}}
	b.Records = append(b.Records, sink.Record{End: len(b.Data) + 901, Offset: 300})
	b.Data = append(b.Data, large.Data...)
	var refusal *sink.Refusal
	err := s.Write(t.Context(), b)
	if !errors.As(err, &refusal) || refusal.Index != 3 || !strings.Contains(refusal.Reason, "maxMessageBytes is 1024") {
		t.Fatalf("got %v, want a refusal of record 3", err)
	}
	if n := produced.Hits(); n > 0 {
		t.Errorf("%d produce requests were sent before the refusal", n)
	}
	if err := s.Write(t.Context(), b.Slice(0, 3)); err != nil {
		t.Fatal(err)
	}
	c.mustHold(3)
}

// A broker may accept less than this sink is configured for. The sink then finds the record that is too large, and no
// other record is lost or duplicated.
func TestARecordThatIsTooLargeForTheBrokerIsRefused(t *testing.T) {
	for _, delivery := range []config.Delivery{config.AtLeastOnce, config.ExactlyOnce} {
		t.Run(string(delivery), func(t *testing.T) {
			c := newCluster(t)
			c.createTopicFor(c.topic("fills"), 3, 2000)
			settings := c.config(delivery)
			settings.Compression = config.KafkaNone
			out := c.output(settings)
			s := open(t, out, nil)
			b := sink.Batch{File: batch(0, 1).File}
			for i, whole := 0, batch(0, 31); i < 31; i++ {
				data, r := whole.Record(i), whole.Records[i]
				if i == 11 {
					data = []byte(strings.Repeat("x", 3000) + "\n")
				}
				b.Data = append(b.Data, data...)
				r.End = len(b.Data)
				b.Records = append(b.Records, r)
			}
			var refusal *sink.Refusal
			if err := s.Write(t.Context(), b); !errors.As(err, &refusal) || refusal.Index != 11 {
				t.Fatalf("got %v, want a refusal of record 11", err)
			}
			for _, part := range []sink.Batch{b.Slice(0, 11), b.Slice(12, len(b.Records))} {
				if err := s.Write(t.Context(), part); err != nil {
					t.Fatal(err)
				}
			}
			s.mustCommit()
			records, err := c.consume(c.topic("fills"))
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			for _, r := range records {
				seen[string(r.Value)]++
			}
			if len(seen) != 30 || delivery == config.ExactlyOnce && len(records) != 30 {
				t.Errorf("consumers received %d records, %d distinct ones, want 30", len(records), len(seen))
			}
		})
	}
}

func TestEachRecordHasItsHeaders(t *testing.T) {
	c := newCluster(t)
	s := open(t, c.output(c.config(config.ExactlyOnce)), nil)
	b := batch(0, 12)
	b.Records[11].Block = 0
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	s.mustCommit()
	records, err := c.consume(c.topic("fills"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		var v struct{ N int }
		if err := json.Unmarshal(r.Value, &v); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, h := range r.Headers {
			got[h.Key] = string(h.Value)
		}
		want := map[string]string{
			kafka.HeaderTarget: "node-1", kafka.HeaderStream: "fills",
			kafka.HeaderIndex: strconv.Itoa(int(b.Records[v.N].Index)), kafka.HeaderPosition: b.Position(v.N).String(),
		}
		if block := b.Records[v.N].Block; block != 0 {
			want[kafka.HeaderBlock] = fmt.Sprint(block)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("record %d has the headers %v, want %v", v.N, got, want)
		}
	}
}

// foreignPosition returns the position of another parser.
func (c *cluster) foreignPosition() *kgo.Record {
	return &kgo.Record{Topic: c.positions(), Key: []byte("other"), Value: []byte("{}")}
}

// Parsers share the topic of positions. An open transaction of one must not hide what another has committed after it.
func TestAPositionIsFoundBehindAnotherParsersOpenTransaction(t *testing.T) {
	c := newCluster(t)
	out := c.output(c.config(config.ExactlyOnce))
	s := open(t, out, nil)
	other := c.client(kgo.TransactionalID("other-"+c.unit), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := other.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := other.ProduceSync(t.Context(), c.foreignPosition()).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.mustWrite(0, 10)
	if _, err := sinktest.Flush(t.Context(), s.Sink, false); err != nil { // without a checkpoint
		t.Fatal(err)
	}
	s.close()

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := out.Open(ctx, "fills", s.state); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v: the position was read while an earlier one might still be committed", err)
	}
	if err := other.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	again := open(t, out, s.state)
	again.mustWrite(0, 20)
	again.mustCommit()
	c.mustHold(20)
}

func TestPositionsSurviveCompactionAndTheLossOfTheirStart(t *testing.T) {
	c := newFake(t)
	var state json.RawMessage
	saved := 0
	for round := range 6 {
		s := open(t, c.output(c.config(config.ExactlyOnce)), state)
		s.mustWrite(saved, (round+1)*10)
		if round%2 == 0 {
			s.mustCommit()
			state, saved = s.state, (round+1)*10
		} else if _, err := sinktest.Flush(t.Context(), s.Sink, false); err != nil { // without a checkpoint
			t.Fatal(err)
		}
		s.close()
		c.fake.Compact()
		if round == 3 {
			end := c.fake.PartitionInfo(c.positions(), 0).HighWatermark
			if err := c.fake.DeleteRecords(c.positions(), 0, end-2); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.mustHold(60)
}

func TestAnUnreadableStateFails(t *testing.T) {
	c := newFake(t)
	_, err := c.output(c.config(config.ExactlyOnce)).Open(t.Context(), "fills", json.RawMessage(`{"generation":"x"}`))
	mustBe(t, err, sink.ErrFailed, "checkpoint of fills")
}

// A refusal aborts the records that were acknowledged earlier in the same transaction, once. On the retry each chunk
// has its own transaction, so the refused record is found.
func TestARefusedRecordDoesNotBlockTheStream(t *testing.T) {
	c := newCluster(t)
	c.createTopicFor(c.topic("fills"), 3, 2000)
	c.freeze()
	settings := c.config(config.ExactlyOnce)
	settings.Compression = config.KafkaNone
	out := c.output(settings)
	s := open(t, out, nil)
	state := s.state
	b := batch(10, 11)
	b.Data = []byte(strings.Repeat("x", 3000) + "\n")
	b.Records[0].End = len(b.Data)
	s.mustWrite(0, 10)
	mustBe(t, s.Write(t.Context(), b), sink.ErrReopen, "too large")
	s.close()
	again := open(t, out, state)
	again.mustWrite(0, 10)
	var refusal *sink.Refusal
	if err := again.Write(t.Context(), b); !errors.As(err, &refusal) || refusal.Index != 0 {
		t.Fatalf("got %v, want a refusal", err)
	}
	again.mustCommit()
	c.mustHold(10)
}

func TestABatchInProgressIsNotSentTwice(t *testing.T) {
	c := newCluster(t)
	s := open(t, c.output(c.config(config.AtLeastOnce)), nil)
	s.mustWrite(0, 10)
	for i := range 5 {
		c.proxy.setMute(true) // the brokers accept the batch, and the answer is lost
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := s.Write(ctx, batch(10+i*10, 20+i*10)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the context's error", err)
		}
		cancel()
		c.proxy.setMute(false)
		s.mustWrite(10+i*10, 20+i*10)
	}
	c.mustHold(60)
}

func TestALargeBatchIsSeveralTransactions(t *testing.T) {
	c := newFake(t)
	c.freeze()
	ended := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Count: -1, Observe: true})
	s := open(t, c.output(c.config(config.ExactlyOnce)), nil)
	before := ended.Hits()
	s.mustWrite(0, 25_000)
	if n := ended.Hits() - before; n != 2 {
		t.Errorf("25,000 records ended %d transactions, want 2 and one left for the commit", n)
	}
	s.mustCommit()
	if n := ended.Hits() - before; n != 3 {
		t.Errorf("after the commit %d transactions have ended, want 3", n)
	}
	c.mustHold(25_000)
}

// The client sends records for a new topic while its metadata loop still stores the topic's partitions. A transaction
// that ends in that moment would be aborted although it is to be committed. The test holds the metadata loop after it
// has handed over the records, when it comes to another topic in the same update. The order of topics is random.
func TestATransactionEndsAfterItsTopicsAreLoaded(t *testing.T) {
	const hold = 200 * time.Millisecond
	c := newFake(t)
	var handedOver, held, released atomic.Bool
	c.journal.observe = func(msg string, keyvals ...any) {
		switch msg {
		case "metadata refresh new produce partition":
			handedOver.Store(slices.Contains(keyvals, any(c.topic("fills"))))
		case "metadata refresh has identical topic partition data":
			if handedOver.Load() && slices.Contains(keyvals, any(c.positions())) && held.CompareAndSwap(false, true) {
				time.Sleep(hold)
				released.Store(true)
			}
		}
	}
	for first := 0; !held.Load(); first += 10 {
		if first == 1000 {
			t.Fatal("in none of 100 updates the client came to the new topic before the one that it knows")
		}
		s := open(t, c.output(c.config(config.ExactlyOnce)), nil)
		handedOver.Store(false)
		s.mustWrite(first, first+10)
		if held.Load() && !released.Load() {
			t.Error("records of a new topic are reported as produced before the client has stored its partitions")
		}
	}
}

func TestAPositionIsFoundInARecreatedTopic(t *testing.T) {
	c := newFake(t)
	s := open(t, c.output(c.config(config.ExactlyOnce)), nil)
	for i := range 5 {
		s.mustWrite(i, i+1)
		s.mustCommit()
	}
	s.close()
	if err := c.fake.DeleteTopic(c.positions()); err != nil {
		t.Fatal(err)
	}
	var between *opened
	eventually(t, func() (err error) { // until every broker knows that the topic is gone
		between, err = try(t, c.output(c.config(config.ExactlyOnce)), s.state)
		return err
	})
	if err := between.write(5, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := sinktest.Flush(t.Context(), between.Sink, false); err != nil { // without a checkpoint
		t.Fatal(err)
	}
	between.close()
	filler := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for range 50 { // the checkpoint's offset is before the end, but refers to another record
		if err := filler.ProduceSync(t.Context(), c.foreignPosition()).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	last := open(t, c.output(c.config(config.ExactlyOnce)), s.state)
	last.mustWrite(5, 20)
	last.mustCommit()
	c.mustHold(20)
}
