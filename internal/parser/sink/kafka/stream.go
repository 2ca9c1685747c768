package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/resume"
)

// stream is the sink.Sink of one stream.
//
// The holder of the token, a Write or a Sync, may start one operation at a time: produce a chunk, or commit or abort
// the transaction. An operation continues after the call that started it has timed out or its context has ended. The
// next call waits for the result before it does anything else. So a batch that met an outage is not produced twice when
// it is written again.
type stream struct {
	out    *Output
	name   string
	id     string // transactional id; empty if delivery is at least once
	client *kgo.Client
	admin  *kadm.Client
	link   *link
	ctx    context.Context // of the operations; ends with Close
	cancel context.CancelFunc

	token chan struct{}

	// Owned by the token's holder, or by a caller that knows that no one holds it.
	task        *task // the current operation; nil if there is none
	fatal       error // the permanent error that every call returns
	packer      packer
	topics      map[string]kadm.TopicID // known to exist
	loaded      map[string]bool         // topics whose partitions the client has stored; see awaitLoad
	held        map[string]heldTopic    // topics with acknowledged records that are not committed
	staleClient bool                    // the client caches deleted topics: the next Write replaces it
	oneByOne    bool                    // send the records of the next batch one by one, to find the one that is too large
	inTxn       bool                    // whether the client is in a transaction
	pending     int                     // acknowledged records in it
	sentValue   string                  // the position in it that is still the stream's position; empty for none
	sentOffset  int64                   // where sentValue is
	acked       int64                   // records acknowledged so far
	durable     int64                   // of them, in committed transactions, or confirmed to be still there
	flushed     int64                   // the value of acked at the last Flush
	saved       int64                   // the value of flushed at the last checkpoint
	committedAt time.Time               // end of the last transaction
	progress    *resume.Tracker
	// positions is the topic of the stream's position, and offset the offset of the newest one.
	positions       kadm.TopicDetail
	offset          int64
	state           json.RawMessage // as returned by the last Flush; nil before the first
	stateGeneration int64           // the generation of state
	remembers       bool            // see Remembers

	delivered atomic.Int64 // see Delivered
	dataLost  atomic.Bool  // the brokers lost records that they had acknowledged
}

// Remembers implements sink.Rememberer.
func (s *stream) Remembers() bool { return s.remembers }

// task is a pending Kafka operation.
type task struct {
	op    string
	done  chan struct{} // closed when the operation has ended
	err   error         // valid after done
	after func(error) error
}

func (o *Output) newStream(name string) (*stream, error) {
	s := &stream{
		out: o, name: name, link: &link{}, token: make(chan struct{}, 1), topics: map[string]kadm.TopicID{},
		held:     map[string]heldTopic{},
		progress: resume.Open(nil, nil),
	}
	s.packer = packer{
		routes: routes{topic: o.opts.Config.Topic, key: o.opts.Config.Key, stream: name, target: o.opts.Target,
			known: map[string]*route{}},
		limit: int64(o.opts.Config.MaxMessageBytes),
	}
	if o.opts.Config.Delivery == config.ExactlyOnce {
		s.id = "hlparser/" + o.opts.Writer + "/" + name
	}
	if err := s.connect(); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.token <- struct{}{}
	return s, nil
}

// connect creates a client. The client dials on demand.
func (s *stream) connect() error {
	client, err := kgo.NewClient(s.out.clientOptions(s.id, s.link, func() { s.dataLost.Store(true) })...)
	if err != nil {
		return fmt.Errorf("%w: creating the Kafka client of %s: %w", sink.ErrFailed, s.name, err)
	}
	s.client, s.admin, s.loaded = client, kadm.NewClient(client), map[string]bool{}
	return nil
}

// replaceClient continues with a new client. The old one caches the topics that it has seen, and fails records for
// topics that were recreated. A new producer also prevents the brokers of the new topics from mistaking the batches,
// whose sequence numbers continue, for duplicates.
func (s *stream) replaceClient(ctx context.Context) error {
	s.client.Close()
	if err := s.connect(); err != nil {
		return err
	}
	clear(s.topics)
	if s.id != "" {
		last, err := s.takeOver(ctx, s.positions.ID.String(), s.offset)
		if err != nil {
			return err
		}
		if last == nil && s.acked > s.saved {
			return s.reopen("Kafka has lost the position of %s and the records delivered since the last checkpoint", s.id)
		}
	}
	s.staleClient = false
	return nil
}

// acquire waits for the token, and for the result of the current operation.
func (s *stream) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-s.token:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := s.fatal
	if err == nil {
		err = s.awaitTask(ctx)
	}
	if err != nil {
		s.release()
	}
	return err
}

func (s *stream) release() { s.token <- struct{}{} }

// begin starts an operation. There must be no current one.
func (s *stream) begin(op string, do func() error, after func(error) error) {
	t := &task{op: op, done: make(chan struct{}), after: after}
	s.task = t
	go func() {
		defer close(t.done)
		t.err = do()
	}()
}

// awaitTask waits for the result of the current operation.
func (s *stream) awaitTask(ctx context.Context) error {
	t := s.task
	if t == nil {
		return nil
	}
	ticker := time.NewTicker(s.out.opts.OutageAfter)
	defer ticker.Stop()
	for waited := 1; ; waited++ {
		select {
		case <-t.done:
			s.task = nil
			return t.after(t.err)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", t.op, ctx.Err())
		case <-ticker.C:
			if s.link.lastError() != nil || waited == answerFactor {
				return s.outage(t.op)
			}
		}
	}
}

// Write implements sink.Sink.
func (s *stream) Write(ctx context.Context, b sink.Batch) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	if s.staleClient {
		if err := s.replaceClient(ctx); err != nil {
			return err
		}
	}
	from := s.progress.Skip(b)
	if err := s.prepare(ctx, b); err != nil {
		return err
	}
	err := s.deliver(ctx, b, from)
	if errors.Is(err, errTooLarge) && !s.oneByOne && s.fatal == nil {
		s.oneByOne = true
		if err = s.awaitTask(ctx); err == nil { // the transaction was aborted
			err = s.deliver(ctx, b, s.progress.Skip(b))
		}
	}
	if err != nil {
		return err
	}
	s.oneByOne = false
	s.progress.Acked(b)
	return nil
}

// prepare finds the routes of the records, and checks that they can be sent, before any is sent. It checks those that
// are stored too: the dead letter may have lost those between them that were refused.
func (s *stream) prepare(ctx context.Context, b sink.Batch) error {
	unknown, refusal := s.packer.prepare(b, s.topics)
	if refusal != nil {
		return refusal
	}
	if len(unknown) == 0 {
		return nil
	}
	return s.ensure(ctx, unknown)
}

// deliver sends the records, starting at i, in chunks. It commits the transaction when that is due.
func (s *stream) deliver(ctx context.Context, b sink.Batch, i int) error {
	for i < len(b.Records) {
		if s.id != "" && !s.inTxn {
			if err := s.client.BeginTransaction(); err != nil {
				return s.reopen("beginning a transaction: %w", err)
			}
			s.inTxn = true
		}
		n := transactionRecords - s.pending
		if s.oneByOne {
			n = 1
		}
		j := chunk(b, i, n)
		due := s.id != "" && s.commitDue(j-i)
		if err := s.produce(ctx, b, i, j, due); err != nil {
			return err
		}
		i = j
		if due {
			if err := s.commit(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// commitDue reports whether the current transaction must be committed after the next n records. Records that are sent
// one by one have their own transactions, so that one record's failure affects no other.
func (s *stream) commitDue(n int) bool {
	return s.oneByOne || s.pending+n >= transactionRecords || s.out.opts.Now().Sub(s.committedAt) >= transactionAge ||
		s.out.isIsolated(s.name)
}

// chunk returns the end of a chunk that begins with record i. It holds at most n records, and chunkBytes unless one
// record is longer.
func chunk(b sink.Batch, i, n int) int {
	start := 0
	if i > 0 {
		start = b.Records[i-1].End
	}
	j := i + 1
	for j < len(b.Records) && j-i < n && b.Records[j].End-start <= chunkBytes {
		j++
	}
	return j
}

// produce sends the records i to j-1 and waits until all are acknowledged. With last, it sends the position after them
// too, which saves the commit that follows a round trip.
func (s *stream) produce(ctx context.Context, b sink.Batch, i, j int, last bool) error {
	file, end, n := b.File, resume.PointOf(b, j-1), j-i
	records := s.packer.records(b, i, j)
	var position []kgo.Record
	if last {
		var err error
		if position, err = s.positionRecord(s.progress.Position(file, end)); err != nil {
			return err
		}
	}
	s.sentValue = ""
	var taken int
	s.begin("producing", func() (err error) { taken, err = s.send(records, position); return err }, func(err error) error {
		if s.id == "" {
			s.delivered.Add(int64(taken))
		}
		if err != nil {
			return s.notProduced(err)
		}
		if s.dataLost.Swap(false) && s.acked > s.saved {
			return s.reopen("the brokers have lost records that they acknowledged")
		}
		s.progress.Stored(file, end)
		s.acked += int64(n)
		s.trackHeld(records)
		if s.id != "" {
			s.pending += n
		}
		if last {
			s.sentValue, s.sentOffset = string(position[0].Value), position[0].Offset
		}
		return nil
	})
	err := s.awaitTask(ctx)
	if errors.Is(err, errTooLarge) && s.oneByOne && s.fatal == nil {
		return &sink.Refusal{
			Index: i, Reason: "the broker rejects a message that large: the topic's max.message.bytes is below maxMessageBytes",
		}
	}
	return err
}

// send hands records to the client and waits until each is acknowledged or has failed. It returns the number of
// acknowledged records and the most severe error of the others.
func (s *stream) send(parts ...[]kgo.Record) (int, error) {
	var acked int
	var worst error
	promise := func(_ *kgo.Record, err error) { // the client calls it for one record at a time
		switch {
		case err == nil:
			acked++
		case worst == nil || isTxnFatal(err):
			worst = err
		}
	}
	for _, records := range parts {
		for i := range records {
			s.client.Produce(s.ctx, &records[i], promise)
		}
	}
	if err := s.client.Flush(s.ctx); err != nil {
		return 0, err // promises may still come
	}
	s.awaitLoad(parts)
	return acked, worst
}

// noTopic is a name that no topic can have.
const noTopic = "/"

// awaitLoad waits until the client has stored the partitions of the records' topics. When it meets a topic for the
// first time, kgo 1.22 sends the waiting records before it stores the topic's partitions. EndTransaction and the reset
// of sequence numbers visit stored partitions only. If both happen in between, EndTransaction aborts the transaction
// that it is asked to commit and reports success, or the next transaction fails with OUT_OF_ORDER_SEQUENCE_NUMBER. The
// client stores partitions in its metadata loop, and a purge, here of nothing, runs in that loop between two updates.
func (s *stream) awaitLoad(parts [][]kgo.Record) {
	known := len(s.loaded)
	topic := ""
	for _, records := range parts {
		for i := range records {
			if records[i].Topic != topic {
				topic = records[i].Topic
				s.loaded[topic] = true
			}
		}
	}
	if len(s.loaded) == known {
		return
	}
	s.client.PurgeTopicsFromProducing(noTopic)
	if len(s.loaded) > maxKnownTopics {
		clear(s.loaded)
	}
}

// errTooLarge reports that a broker rejected a batch as too large. A single record of it may be the cause.
var errTooLarge = errors.New("the broker rejected a batch of records as too large")

// notProduced handles a chunk with unacknowledged records.
func (s *stream) notProduced(err error) error {
	gone := errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
	var answer *kerr.Error
	s.staleClient = gone || !errors.As(err, &answer) // an error from no broker is the client's own view
	explained := fmt.Errorf("producing: %w", s.withAdvice(err))
	if errors.Is(err, kerr.MessageTooLarge) {
		explained = errTooLarge
	}
	switch {
	case s.id == "" && gone && s.acked > s.saved:
		return s.reopen("a topic is gone with records produced since the last checkpoint: %w", explained)
	case s.id == "":
		return explained
	case isTxnFatal(err):
		return s.fenced("producing", err)
	case s.pending > 0:
		s.out.isolate(s.name)
		return s.reopen("the records produced earlier in the same transaction are abandoned: %w", explained)
	}
	if s.staleClient {
		s.inTxn = false // a new client first ends the old client's transaction
		return explained
	}
	s.abort()
	return explained
}

// abort starts the abort of a transaction without acknowledged records.
func (s *stream) abort() {
	s.inTxn = false
	s.begin("aborting a transaction", func() error {
		if err := s.client.AbortBufferedRecords(s.ctx); err != nil {
			return err
		}
		return s.client.EndTransaction(s.ctx, kgo.TryAbort)
	}, func(err error) error {
		if err != nil {
			return s.reopen("aborting a transaction: %w", s.withAdvice(err))
		}
		return nil
	})
}

// commit commits the current transaction, or a new one, with the position.
func (s *stream) commit(ctx context.Context) error {
	if err := s.verifyTopics(ctx); err != nil {
		return err
	}
	record, err := s.positionRecord(s.progress.Now())
	if err != nil {
		return err
	}
	if !s.inTxn {
		if err := s.client.BeginTransaction(); err != nil {
			return s.reopen("beginning a transaction: %w", err)
		}
		s.inTxn = true
	}
	acked, value := s.acked, string(record[0].Value)
	sent := s.sentValue == value
	s.sentValue = ""
	s.begin("committing a transaction", func() error {
		if !sent {
			if _, err := s.send(record); err != nil {
				return fmt.Errorf("producing the position: %w", err)
			}
		}
		return s.client.EndTransaction(s.ctx, kgo.TryCommit)
	}, func(err error) error {
		if err != nil {
			// The transaction may be committed nevertheless. The position shows it at the next Open.
			s.out.markInDoubt(s.name, inDoubt{position: value, records: acked - s.durable})
			if isTxnFatal(err) {
				return s.fenced("committing a transaction", err)
			}
			return s.reopen("committing a transaction: %w", s.withAdvice(err))
		}
		s.delivered.Add(acked - s.durable)
		s.inTxn, s.pending, s.durable, s.committedAt, s.offset = false, 0, acked, s.out.opts.Now(), record[0].Offset
		if sent {
			s.offset = s.sentOffset
		}
		clear(s.held)
		return nil
	})
	return s.awaitTask(ctx)
}

// Flush implements sink.Sink.
func (s *stream) Flush(ctx context.Context, _ bool) (sink.Flushed, error) {
	if s.fatal != nil {
		return sink.Flushed{}, s.fatal
	}
	if err := ctx.Err(); err != nil {
		return sink.Flushed{}, err
	}
	s.flushed = s.acked
	if s.id == "" {
		upTo := s.acked
		if upTo == s.durable {
			return sink.Flushed{}, nil
		}
		return sink.Flushed{Sync: func(ctx context.Context) error { return s.verify(ctx, upTo) }}, nil
	}
	now := s.progress.Flush()
	if s.state == nil || now.Generation != s.stateGeneration {
		doc, err := json.Marshal(state{State: now, Topic: s.positions.ID.String(), Offset: s.offset})
		if err != nil {
			return sink.Flushed{}, fmt.Errorf("encoding the state of %s: %w", s.id, err)
		}
		s.state, s.stateGeneration = doc, now.Generation
	}
	upTo := s.acked
	if upTo == s.durable {
		return sink.Flushed{State: s.state}, nil
	}
	return sink.Flushed{State: s.state, Sync: func(ctx context.Context) error { return s.sync(ctx, upTo) }}, nil
}

// verify is the counterpart of sync for a stream without transactions: it checks that the acknowledged records are
// still there.
func (s *stream) verify(ctx context.Context, upTo int64) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	if err := s.verifyTopics(ctx); err != nil {
		return err
	}
	s.durable = max(s.durable, upTo)
	return nil
}

// sync commits the first records up to upTo.
func (s *stream) sync(ctx context.Context, upTo int64) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	if s.durable >= upTo {
		return nil
	}
	return s.commit(ctx)
}

// Committed implements sink.Sink.
func (s *stream) Committed(context.Context) error {
	if s.fatal != nil {
		return s.fatal
	}
	s.saved = s.flushed
	maps.DeleteFunc(s.held, func(_ string, h heldTopic) bool { return h.last <= s.saved })
	s.progress.Committed()
	return nil
}

// Delivered implements sink.Sink. Records in a transaction count once it is committed.
func (s *stream) Delivered() int64 { return s.delivered.Load() }

// Close implements sink.Sink. The next Open aborts an open transaction, or the broker does after its timeout.
func (s *stream) Close() error {
	s.cancel()
	s.client.Close()
	if s.task != nil {
		<-s.task.done
		s.task = nil
	}
	s.fatal = fmt.Errorf("the sink of %s is closed", s.name)
	return nil
}
