package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/resume"
)

// stream is the sink of one stream. It is a sink.Sink.
//
// Whoever has the turn, a Write or a Sync, may ask Kafka for one thing at a time: to take a chunk, to end the transaction, to abort
// it. What was asked for goes on when the call that asked has run out of patience or time; the next one waits for its outcome
// before it does anything else. So a batch that met an outage is not produced a second time when it is written again.
type stream struct {
	out    *Output
	name   string
	id     string // transactional id; empty: delivery is at least once
	client *kgo.Client
	admin  *kadm.Client
	link   *link
	ctx    context.Context // of what was asked for; it ends with Close
	cancel context.CancelFunc

	turn chan struct{}

	// The holder's of the turn, or of one who knows that nobody has it.
	task     *task // nil: nothing was asked for
	dead     error // what every call returns from here on
	pack     packer
	topics   map[string]struct{} // known to exist
	single   bool                // the records of the next batch are sent one by one, to find the one that is too large
	began    bool                // the client is in a transaction
	pending  int                 // records in it that are acknowledged
	acked    int64               // records acknowledged in transactions so far
	durable  int64               // as many of them are committed
	ended    time.Time           // when the last transaction was
	progress *resume.Tracker
	// positions is where the position of the stream is, and offset where its newest one is.
	positions kadm.TopicDetail
	offset    int64
	state     json.RawMessage // as the last Flush returned it; nil before the first
	drawn     int64           // generation of state
}

// task is something that Kafka was asked for.
type task struct {
	doing string
	done  chan struct{} // closed when it is over
	err   error         // then
	after func(error) error
}

func (o *Output) newStream(name string) (*stream, error) {
	s := &stream{
		out: o, name: name, link: &link{}, turn: make(chan struct{}, 1), topics: map[string]struct{}{},
		progress: resume.Open(nil, nil),
	}
	s.pack = packer{
		routes: routes{topic: o.opts.Config.Topic, key: o.opts.Config.Key, stream: name, target: o.opts.Target, known: map[string]*route{}},
		limit:  int64(o.opts.Config.MaxMessageBytes),
	}
	if o.opts.Config.Delivery == config.ExactlyOnce {
		s.id = "hlparser/" + o.opts.Writer + "/" + name
	}
	var err error
	if s.client, err = kgo.NewClient(o.clientOptions(s.id, s.link)...); err != nil {
		return nil, fmt.Errorf("%w: the Kafka client of %s: %w", sink.ErrFailed, name, err)
	}
	s.admin = kadm.NewClient(s.client)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.turn <- struct{}{}
	return s, nil
}

// take waits for the turn, and for the outcome of what was asked for before.
func (s *stream) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-s.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := s.dead
	if err == nil {
		err = s.settle(ctx)
	}
	if err != nil {
		s.give()
	}
	return err
}

func (s *stream) give() { s.turn <- struct{}{} }

// begin asks for something. There must be nothing that was asked for already.
func (s *stream) begin(doing string, do func() error, after func(error) error) {
	t := &task{doing: doing, done: make(chan struct{}), after: after}
	s.task = t
	go func() {
		defer close(t.done)
		t.err = do()
	}()
}

// settle waits for what was asked for.
func (s *stream) settle(ctx context.Context) error {
	t := s.task
	if t == nil {
		return nil
	}
	patience := time.NewTicker(s.out.opts.Patience)
	defer patience.Stop()
	for waited := 1; ; waited++ {
		select {
		case <-t.done:
			s.task = nil
			return t.after(t.err)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", t.doing, ctx.Err())
		case <-patience.C:
			if s.link.trouble() != nil || waited == silence {
				return s.outage(t.doing)
			}
		}
	}
}

// Write implements sink.Sink.
func (s *stream) Write(ctx context.Context, b sink.Batch) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	from := s.progress.Skip(b)
	if err := s.prepare(ctx, b, from); err != nil {
		return err
	}
	err := s.deliver(ctx, b, from)
	if errors.Is(err, errTooLarge) && !s.single && s.dead == nil {
		s.single = true
		if err = s.settle(ctx); err == nil { // the transaction was aborted
			err = s.deliver(ctx, b, s.progress.Skip(b))
		}
	}
	if err != nil {
		return err
	}
	s.single = false
	s.progress.Acked(b)
	return nil
}

// prepare finds out where the records from number i on go, and whether they can: before any is sent.
func (s *stream) prepare(ctx context.Context, b sink.Batch, i int) error {
	unknown, refusal := s.pack.prepare(b, i, s.topics)
	if refusal != nil {
		return refusal
	}
	if len(unknown) == 0 {
		return nil
	}
	return s.ensure(ctx, unknown)
}

// deliver sends the records from number i on, chunk by chunk, and ends the transaction when it is time.
func (s *stream) deliver(ctx context.Context, b sink.Batch, i int) error {
	for i < len(b.Records) {
		if s.id != "" && !s.began {
			if err := s.client.BeginTransaction(); err != nil {
				return s.reopen("beginning a transaction: %w", err)
			}
			s.began = true
		}
		n := transactionRecords - s.pending
		if s.single {
			n = 1
		}
		j := chunk(b, i, n)
		if err := s.produce(ctx, b, i, j); err != nil {
			return err
		}
		i = j
		if s.id != "" && s.due() {
			if err := s.end(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// due tells whether the transaction in hand must end. What is sent one by one has transactions of its own, so that one record's
// failure takes no other with it.
func (s *stream) due() bool {
	return s.single || s.pending >= transactionRecords || s.out.opts.Now().Sub(s.ended) >= transactionAge || s.out.isCareful(s.name)
}

// chunk returns the end of a chunk that begins with record i: at most n records, and chunkBytes unless one has more.
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

// produce sends the records i to j-1 and waits until all are acknowledged.
func (s *stream) produce(ctx context.Context, b sink.Batch, i, j int) error {
	records := s.pack.records(b, i, j)
	file, last, n := b.File, resume.PointOf(b, j-1), j-i
	s.begin("producing", func() error { return s.send(records) }, func(err error) error {
		if err != nil {
			return s.notProduced(err)
		}
		s.progress.Landed(file, last)
		if s.id != "" {
			s.pending += n
			s.acked += int64(n)
		}
		return nil
	})
	err := s.settle(ctx)
	if errors.Is(err, errTooLarge) && s.single && s.dead == nil {
		return &sink.Refusal{Index: i, Reason: "the broker takes no message that large: the topic's max.message.bytes is below maxMessageBytes"}
	}
	return err
}

// send hands records to the client and waits until each was acknowledged or given up. It returns the worst that befell one.
func (s *stream) send(records []kgo.Record) error {
	var worst error
	promise := func(_ *kgo.Record, err error) { // is called for one record at a time
		if err != nil && (worst == nil || isLost(err)) {
			worst = err
		}
	}
	for i := range records {
		s.client.Produce(s.ctx, &records[i], promise)
	}
	if err := s.client.Flush(s.ctx); err != nil {
		return err
	}
	return worst
}

// errTooLarge says that a broker refused a batch of records as too large, of which one may be.
var errTooLarge = errors.New("the broker found a batch of records too large")

// notProduced deals with a chunk of which not all records were acknowledged.
func (s *stream) notProduced(err error) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		clear(s.topics)
	}
	explained := fmt.Errorf("producing: %w", s.explain(err))
	if errors.Is(err, kerr.MessageTooLarge) {
		explained = errTooLarge
	}
	switch {
	case s.id == "":
		return explained
	case isLost(err):
		return s.taken("producing", err)
	case s.pending > 0:
		s.out.beCareful(s.name)
		return s.reopen("what was produced before in the same transaction is given up: %w", explained)
	}
	s.abort()
	return explained
}

// abort asks for the end of a transaction that holds nothing that was acknowledged.
func (s *stream) abort() {
	s.began = false
	s.begin("aborting a transaction", func() error {
		if err := s.client.AbortBufferedRecords(s.ctx); err != nil {
			return err
		}
		return s.client.EndTransaction(s.ctx, kgo.TryAbort)
	}, func(err error) error {
		if err != nil {
			return s.reopen("aborting a transaction: %w", s.explain(err))
		}
		return nil
	})
}

// end commits the transaction in hand, or one of its own, with the position.
func (s *stream) end(ctx context.Context) error {
	record, err := s.positionRecord(s.progress.Now())
	if err != nil {
		return err
	}
	if !s.began {
		if err := s.client.BeginTransaction(); err != nil {
			return s.reopen("beginning a transaction: %w", err)
		}
		s.began = true
	}
	acked := s.acked
	s.begin("ending a transaction", func() error {
		if err := s.send(record); err != nil {
			return fmt.Errorf("producing the position: %w", err)
		}
		return s.client.EndTransaction(s.ctx, kgo.TryCommit)
	}, func(err error) error {
		if err != nil {
			// It may have been committed all the same, and the position tells.
			if isLost(err) {
				return s.taken("ending a transaction", err)
			}
			return s.reopen("ending a transaction: %w", s.explain(err))
		}
		s.began, s.pending, s.durable, s.ended, s.offset = false, 0, acked, s.out.opts.Now(), record[0].Offset
		return nil
	})
	return s.settle(ctx)
}

// Flush implements sink.Sink.
func (s *stream) Flush(ctx context.Context, _ bool) (sink.Flushed, error) {
	if s.dead != nil {
		return sink.Flushed{}, s.dead
	}
	if err := ctx.Err(); err != nil || s.id == "" {
		return sink.Flushed{}, err
	}
	now := s.progress.Flush()
	if s.state == nil || now.Generation != s.drawn {
		doc, err := json.Marshal(state{State: now, Topic: s.positions.ID.String(), Offset: s.offset})
		if err != nil {
			return sink.Flushed{}, fmt.Errorf("encoding the state of %s: %w", s.id, err)
		}
		s.state, s.drawn = doc, now.Generation
	}
	line := s.acked
	if line == s.durable {
		return sink.Flushed{State: s.state}, nil
	}
	return sink.Flushed{State: s.state, Sync: func(ctx context.Context) error { return s.sync(ctx, line) }}, nil
}

// sync commits the first records up to a line.
func (s *stream) sync(ctx context.Context, line int64) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	if s.durable >= line {
		return nil
	}
	return s.end(ctx)
}

// Committed implements sink.Sink.
func (s *stream) Committed(context.Context) error {
	if s.dead != nil {
		return s.dead
	}
	s.progress.Committed()
	return nil
}

// Close implements sink.Sink. What is in an open transaction is aborted by the next Open, or by the broker in time.
func (s *stream) Close() error {
	s.cancel()
	s.client.Close()
	if s.task != nil {
		<-s.task.done
		s.task = nil
	}
	s.dead = fmt.Errorf("the sink of %s is closed", s.name)
	return nil
}
