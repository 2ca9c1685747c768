package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/resume"
)

const (
	// maxUnanswered is how many messages may wait for their answers when they are published one by one. Their bytes are the batch's.
	maxUnanswered = 4096
	// batchMessages is the server's limit of an atomic batch, the position included; batchBytes keeps what the server stages small.
	batchMessages = 1000
	batchBytes    = 8 << 20
	// checkEvery is after how many messages a bad answer to one of them is looked for.
	checkEvery = 64
	// storedBytes is the most that a stream's file storage takes in one message.
	storedBytes = 32<<20 - 8<<10
	// fenceTries is how often Open takes the position before it calls it an outage: each time another writer was faster.
	fenceTries = 5
	fencePause = 50 * time.Millisecond

	// What the server says; the client library has no names for these.
	wrongLastSequence     jetstream.ErrorCode = 10071
	lastSequenceInProcess jetstream.ErrorCode = 10164
)

// position is the message that says up to where records are stored, and who stored them.
type position struct {
	Writer string `json:"writer"`
	Stream string `json:"stream"`
	Epoch  string `json:"epoch"` // one Open
	resume.Position
}

// stream is the sink of one stream.
type stream struct {
	output  *Output
	name    string
	log     *slog.Logger
	subject string // of the position
	atomic  bool
	packer  *packer
	tracker *resume.Tracker

	conn    *conn
	inbox   *inbox
	limit   int  // bytes of a message, headers included
	stale   bool // an error says to ask anew what the stream is like
	verbose bool // the server is asked about each message of the next batch

	epoch string
	last  uint64 // sequence of the position that this sink wrote last
	// inFlight is the file of a batch of which it is not known whether it was stored.
	inFlight  checkpoint.FileID
	uncertain bool

	generation int64 // of encoded
	encoded    json.RawMessage
}

// attach goes on with a connection and with a stream as it is now.
func (s *stream) attach(c *conn, info *jetstream.StreamInfo) error {
	if c != s.conn {
		in, err := c.newInbox(s.output.opts.Config.Stream)
		if err != nil {
			return err
		}
		if s.inbox != nil {
			s.inbox.close()
		}
		s.conn, s.inbox = c, in
	}
	s.limit = int(min(c.nc.MaxPayload(), storedBytes))
	if most := info.Config.MaxMsgSize; most > 0 {
		s.limit = min(s.limit, int(most))
	}
	s.stale = false
	return nil
}

// Write implements sink.Sink.
func (s *stream) Write(ctx context.Context, b sink.Batch) error {
	err := s.write(ctx, b)
	if errors.Is(err, nats.ErrConnectionClosed) && ctx.Err() == nil {
		err = s.write(ctx, b) // it ended before, unnoticed: a new one may do
	}
	if err == nil {
		return nil
	}
	var refusal *sink.Refusal
	s.stale = s.stale || !errors.As(err, &refusal)
	if end := ctx.Err(); end != nil && !errors.Is(err, end) {
		return fmt.Errorf("%w: %w", end, err)
	}
	return err
}

func (s *stream) write(ctx context.Context, b sink.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := s.output.connection(ctx)
	if err != nil {
		return err
	}
	if c != s.conn || s.stale {
		info, err := s.output.stream(ctx, c)
		if err != nil {
			return err
		}
		if s.atomic && !info.Config.AllowAtomicPublish {
			return fmt.Errorf("%w: the JetStream stream %s does not take atomic batches any more", sink.ErrReopen, s.output.opts.Config.Stream)
		}
		if err := s.attach(c, info); err != nil {
			return err
		}
	}
	defer c.guard(ctx)()
	if s.atomic {
		return s.writeBatches(ctx, b)
	}
	return s.writeMessages(ctx, b)
}

// refuse returns a *sink.Refusal for the first record, from the one at from on, that fits into no message.
func (s *stream) refuse(b sink.Batch, from, overhead int) error {
	for i := from; i < len(b.Records); i++ {
		n := len(b.Record(i)) - 1
		if n+overhead <= s.limit {
			continue
		}
		header := s.packer.pack(b, i, i+1).Header
		delete(header, headerBatchID)
		delete(header, headerBatchSequence)
		if n += headerBytes(header) + s.batchHeaders(); n > s.limit {
			return &sink.Refusal{Index: i, Reason: fmt.Sprintf("a message of %d bytes with its headers; the server takes %d "+
				"(its max_payload, the stream's max_msg_size, or 32 MiB)", n, s.limit)}
		}
	}
	return nil
}

// batchHeaders bounds the bytes that a batch adds to a message's headers.
func (s *stream) batchHeaders() int {
	if !s.atomic {
		return 0
	}
	return len(headerBatchID+headerBatchSequence) + 2*len(": \r\n") + 22 + len(strconv.Itoa(batchMessages))
}

// writeMessages publishes messages with ids, and returns when all are stored.
func (s *stream) writeMessages(ctx context.Context, b sink.Batch) error {
	overhead := s.packer.overhead(b.File)
	if err := s.refuse(b, 0, overhead); err != nil {
		return err
	}
	s.inbox.begin()
	for i, sent := 0, 1; i < len(b.Records); sent++ {
		j := s.packer.end(b, i, s.limit-overhead)
		m := s.packer.pack(b, i, j)
		var open int
		m.Reply, open = s.inbox.expect()
		if err := s.conn.publish(m); err != nil {
			return err
		}
		i = j
		if open >= maxUnanswered || sent%checkEvery == 0 {
			// After a bad answer nothing more may be stored: what is sent again would come after it.
			if err := s.inbox.wait(ctx, maxUnanswered-checkEvery); err != nil {
				return s.explain(err)
			}
		}
	}
	if err := s.inbox.wait(ctx, 0); err != nil {
		return s.explain(err)
	}
	return nil
}

// writeBatches stores the records that are not stored yet, in as many atomic batches as it takes.
func (s *stream) writeBatches(ctx context.Context, b sink.Batch) error {
	overhead := s.packer.overhead(b.File)
	for settled := false; ; {
		if s.uncertain {
			if err := s.settle(ctx); err != nil {
				return err
			}
		}
		from := s.tracker.Skip(b)
		if from == len(b.Records) {
			s.tracker.Acked(b)
			return nil
		}
		if s.tracker.Full(b.File) {
			return fmt.Errorf("records of %d files wait for the parser's checkpoint", resume.MaxFiles)
		}
		if err := s.refuse(b, from, overhead); err != nil {
			return err
		}
		err := s.writeBatch(ctx, b, from, overhead)
		var refused *jetstream.APIError
		switch {
		case err == nil:
			s.verbose, settled = false, false
		case errors.As(err, &refused) && refused.ErrorCode == wrongLastSequence && !settled:
			settled = true // once more: an earlier batch was stored meanwhile, or another parser has taken over
		default:
			s.verbose = true
			return s.explain(err)
		}
	}
}

// writeBatch stores as many records, from the one at from on, as one atomic batch takes, with their position as the last message.
func (s *stream) writeBatch(ctx context.Context, b sink.Batch, from, overhead int) error {
	id, number := nuid.Next(), 0
	idValue, numberValue := []string{id}, []string{""}
	publish := func(m *nats.Msg, answer bool) error {
		number++
		numberValue[0] = strconv.Itoa(number)
		m.Header[headerBatchID], m.Header[headerBatchSequence] = idValue, numberValue
		m.Reply = ""
		if answer {
			m.Reply, _ = s.inbox.expect()
		}
		return s.conn.publish(m)
	}
	s.inbox.begin()
	s.inFlight, s.uncertain = b.File, true
	i, bytes := from, 0
	for i < len(b.Records) && number < batchMessages-1 && bytes < batchBytes {
		if number%checkEvery == checkEvery-1 {
			if _, err := s.inbox.state(); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		j := s.packer.end(b, i, s.limit-overhead)
		m := s.packer.pack(b, i, j)
		if err := publish(m, s.verbose); err != nil {
			return err
		}
		i, bytes = j, bytes+len(m.Data)
	}
	end := resume.PointOf(b, i-1)
	m, err := s.position(s.tracker.Position(b.File, end))
	if err != nil {
		return err
	}
	m.Header[headerExpectedLast] = []string{strconv.FormatUint(s.last, 10)}
	m.Header[headerBatchCommit] = []string{"1"}
	if err := publish(m, true); err != nil {
		return err
	}
	if err := s.inbox.wait(ctx, 0); err != nil {
		return err
	}
	a, err := s.inbox.committed()
	switch {
	case err != nil:
		return err
	case a.Batch != id || a.Count != number || a.Seq == 0:
		return fmt.Errorf("the server answers a batch of %d messages as one of %d", number, a.Count)
	}
	s.last, s.uncertain = a.Seq, false
	s.tracker.Landed(b.File, end)
	return nil
}

// position returns the message of a position.
func (s *stream) position(p resume.Position) (*nats.Msg, error) {
	o := &s.output.opts
	data, err := json.Marshal(position{Writer: o.Writer, Stream: s.name, Epoch: s.epoch, Position: p})
	if err != nil {
		return nil, fmt.Errorf("encoding the position: %w", err)
	}
	return &nats.Msg{Subject: s.subject, Data: data, Header: nats.Header{headerTarget: {o.Target}, headerStream: {s.name}}}, nil
}

// lastPosition returns the position on the server and its sequence; nil and 0 if there is none. A replica may answer with an old one.
func (s *stream) lastPosition(ctx context.Context) (*position, uint64, error) {
	name := s.output.opts.Config.Stream
	js, err := s.conn.js.Stream(ctx, name)
	if err != nil {
		return nil, 0, fmt.Errorf("asking for the JetStream stream %s: %w", name, err)
	}
	m, err := js.GetLastMsgForSubject(ctx, s.subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("reading the position on %s: %w", s.subject, err)
	}
	p := new(position)
	if err := json.Unmarshal(m.Data, p); err != nil {
		return nil, 0, fmt.Errorf("%w: message %d of %s on %s is no position: %w", sink.ErrFailed, m.Sequence, name, s.subject, err)
	}
	return p, m.Sequence, nil
}

// fence takes the position over: whoever wrote it before cannot write any more.
func (s *stream) fence(ctx context.Context, known *resume.State) error {
	s.epoch = nuid.Next()
	var err error
	for range fenceTries {
		var found *position
		if found, s.last, err = s.lastPosition(ctx); err != nil {
			return err
		}
		var at *resume.Position
		if found != nil {
			at = &found.Position
		}
		if found == nil && known != nil && known.Generation > 0 {
			s.log.Warn("the position is gone from the server: after a crash, what is newer than the checkpoint comes again", "subject", s.subject)
		}
		if !at.Covers(known) {
			if err := s.uncovered(known); err != nil {
				return err
			}
		}
		s.tracker = resume.Open(known, at)
		var m *nats.Msg
		if m, err = s.position(s.tracker.Now()); err != nil {
			return err
		}
		var ack *jetstream.PubAck
		ack, err = s.conn.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(s.last),
			jetstream.WithExpectStream(s.output.opts.Config.Stream), jetstream.WithRetryAttempts(0))
		if err == nil {
			s.last = ack.Sequence
			return nil
		}
		var refused *jetstream.APIError
		if !errors.As(err, &refused) || refused.ErrorCode != wrongLastSequence && refused.ErrorCode != lastSequenceInProcess {
			break
		}
		timer := time.NewTimer(fencePause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
	return fmt.Errorf("taking over the position on %s: %w", s.subject, s.explain(err))
}

// uncovered says what to do about a checkpoint that knows less than the position on the server provides for.
func (s *stream) uncovered(known *resume.State) error {
	cfg := s.output.opts.Config
	what := "the checkpoint knows nothing of the records that " + s.output.opts.Writer + " has stored"
	if known != nil {
		what = "the checkpoint is older than the position that is stored with the records"
	}
	if cfg.Delivery == config.ExactlyOnce {
		return fmt.Errorf("%w: %s: bring back the state directory, or accept that records come twice and remove the position "+
			"(nats stream purge %s --subject %s)", sink.ErrFailed, what, cfg.Stream, s.subject)
	}
	s.log.Warn("records may come twice", "why", what)
	return nil
}

// settle finds out whether the batch in flight was stored, and whether this sink may still write.
func (s *stream) settle(ctx context.Context) error {
	found, sequence, err := s.lastPosition(ctx)
	switch {
	case err != nil:
		return err
	case found == nil:
		return fmt.Errorf("%w: the position on %s is gone from the server", sink.ErrReopen, s.subject)
	case sequence < s.last:
		return fmt.Errorf("reading the position on %s: a server answers with an old one", s.subject)
	case found.Epoch != s.epoch:
		return fmt.Errorf("%w: another parser writes as %s: let only one run, or give each a name of its own (--id), and start this one again",
			sink.ErrFailed, s.output.opts.Writer)
	}
	if sequence > s.last {
		if p, ok := found.Files[s.inFlight]; ok {
			s.tracker.Landed(s.inFlight, p)
		}
		s.last = sequence
	}
	s.uncertain = false
	return nil
}

// explain adds to an error what a person can do about it.
func (s *stream) explain(err error) error {
	cfg := s.output.opts.Config
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) {
		return fmt.Errorf("no JetStream stream takes the messages: if this lasts, add the subjects %q to the stream %s: %w",
			streamSubjects(cfg.Subject, cfg.Stream), cfg.Stream, err)
	}
	return fmt.Errorf("publishing to the JetStream stream %s: %w", cfg.Stream, err)
}

// Flush implements sink.Sink. All that was acknowledged is stored.
func (s *stream) Flush(ctx context.Context, _ bool) (sink.Flushed, error) {
	if err := ctx.Err(); err != nil {
		return sink.Flushed{}, err
	}
	state := s.tracker.Flush()
	if s.encoded == nil || state.Generation != s.generation {
		data, err := json.Marshal(state)
		if err != nil {
			return sink.Flushed{}, fmt.Errorf("encoding the state: %w", err)
		}
		s.generation, s.encoded = state.Generation, data
	}
	return sink.Flushed{State: s.encoded}, nil
}

// Committed implements sink.Sink.
func (s *stream) Committed(ctx context.Context) error {
	s.tracker.Committed()
	return ctx.Err()
}

// Close implements sink.Sink.
func (s *stream) Close() error {
	s.inbox.close()
	return nil
}
