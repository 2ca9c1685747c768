package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/resume"
)

const (
	// maxUnanswered bounds the outstanding answers when messages are published one by one. Their bytes are the batch's.
	maxUnanswered = 4096
	// batchMessages is the server's limit for an atomic batch, including the position. batchBytes limits what the
	// server stages.
	batchMessages = 1000
	batchBytes    = 8 << 20
	// checkEvery is the number of messages between two checks for an error answer.
	checkEvery = 64
	// storedBytes is the largest message that a stream's file storage accepts.
	storedBytes = 32<<20 - 8<<10
	// fenceTries is how often Open tries to take over the position before it reports an outage. Each try fails only if
	// another writer was faster.
	fenceTries = 5

	// Error codes of the server that the client library does not name.
	wrongLastSequence     jetstream.ErrorCode = 10071
	lastSequenceInProcess jetstream.ErrorCode = 10164
)

// storedPosition is the message that holds the position of the stored records and the identity of their writer.
type storedPosition struct {
	Writer string `json:"writer"`
	Stream string `json:"stream"`
	Epoch  string `json:"epoch"` // identifies one Open
	resume.Position
}

// stream is the sink.Sink of one stream.
type stream struct {
	output  *Output
	name    string
	log     *slog.Logger
	subject string // the subject of the position
	atomic  bool
	packer  *packer
	tracker *resume.Tracker

	conn    *conn
	inbox   *inbox
	limit   int       // maximum size of a message with its headers, in bytes
	stale   bool      // after an error: read the JetStream stream's configuration again
	created time.Time // creation time of the JetStream stream that holds the acknowledged records
	verbose bool      // request an answer to each message of the next batch

	epoch string
	last  uint64 // sequence number of the last position that this sink wrote
	// inFlight is the file of the last batch. If uncertain, it is unknown whether that batch was stored.
	inFlight        position.FileID
	inFlightRecords int64
	uncertain       bool

	acked     int64        // acknowledged records, including those that were already stored
	flushed   int64        // the value of acked at the last Flush
	saved     int64        // the value of flushed at the last checkpoint
	delivered int64        // see Delivered
	confirmed atomic.Int64 // the value of acked up to which the stream was confirmed to exist afterwards

	generation int64 // the generation of encoded
	encoded    json.RawMessage

	remembers bool // see Remembers
}

// Remembers implements sink.Rememberer.
func (s *stream) Remembers() bool { return s.remembers }

// attach switches to a connection and to the present configuration of the JetStream stream.
func (s *stream) attach(c *conn, info *jetstream.StreamInfo) error {
	if err := s.checkSameStream(info); err != nil {
		return err
	}
	s.created = info.Created
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

// checkSameStream checks that the JetStream stream is the one that this sink has written to. Records in a checkpoint
// that are gone were deleted by the stream's owner. The other records and the position are written again.
func (s *stream) checkSameStream(info *jetstream.StreamInfo) error {
	if info.Created.Equal(s.created) || s.created.IsZero() || !s.atomic && s.acked == s.saved {
		return nil
	}
	return s.recreated()
}

func (s *stream) recreated() error {
	return fmt.Errorf("%w: the JetStream stream %s was recreated: records written since the last checkpoint are "+
		"written again",
		sink.ErrReopen, s.output.opts.Config.Stream)
}

// Write implements sink.Sink.
func (s *stream) Write(ctx context.Context, b sink.Batch) error {
	err := s.write(ctx, b)
	if errors.Is(err, nats.ErrConnectionClosed) && ctx.Err() == nil {
		err = s.write(ctx, b) // the connection ended unnoticed: try a new one
	}
	if err == nil {
		s.acked += int64(len(b.Records))
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
			return fmt.Errorf("%w: the JetStream stream %s no longer accepts atomic batches", sink.ErrReopen,
				s.output.opts.Config.Stream)
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

// refuse returns a *sink.Refusal for the first record that fits in no message.
func (s *stream) refuse(b sink.Batch, overhead int) error {
	for i := range b.Records {
		n := len(b.Record(i)) - 1
		if n+overhead <= s.limit {
			continue
		}
		header := s.packer.pack(b, i, i+1).Header
		delete(header, headerBatchID)
		delete(header, headerBatchSequence)
		if n += headerBytes(header) + s.batchHeaders(); n > s.limit {
			return &sink.Refusal{Index: i, Reason: fmt.Sprintf("a message of %d bytes with its headers; the server accepts %d "+
				"(its max_payload, the stream's max_msg_size, or 32 MiB)", n, s.limit)}
		}
	}
	return nil
}

// batchHeaders bounds the size of the headers that a batch adds to a message, in bytes.
func (s *stream) batchHeaders() int {
	if !s.atomic {
		return 0
	}
	return len(headerBatchID+headerBatchSequence) + 2*len(": \r\n") + 22 + len(strconv.Itoa(batchMessages))
}

// writeMessages publishes messages with ids. It returns when all are stored.
func (s *stream) writeMessages(ctx context.Context, b sink.Batch) error {
	overhead := s.packer.overhead(b.File)
	if err := s.refuse(b, overhead); err != nil {
		return err
	}
	s.inbox.begin()
	defer func() { s.delivered += s.inbox.stored() }()
	for i, sent := 0, 1; i < len(b.Records); sent++ {
		j := s.packer.end(b, i, s.limit-overhead)
		m := s.packer.pack(b, i, j)
		var open int
		m.Reply, open = s.inbox.expect(j - i)
		if err := s.conn.publish(m); err != nil {
			return err
		}
		i = j
		if open >= maxUnanswered || sent%checkEvery == 0 {
			// After an error answer nothing more may be stored: messages sent again would come after it.
			if err := s.inbox.wait(ctx, maxUnanswered-checkEvery); err != nil {
				return s.withAdvice(err)
			}
		}
	}
	if err := s.inbox.wait(ctx, 0); err != nil {
		return s.withAdvice(err)
	}
	return nil
}

// writeBatches stores the records that are not stored yet, in as many atomic batches as necessary.
func (s *stream) writeBatches(ctx context.Context, b sink.Batch) error {
	overhead := s.packer.overhead(b.File)
	for retried := false; ; {
		if s.uncertain {
			if err := s.resolveInFlight(ctx); err != nil {
				return err
			}
		}
		from := s.tracker.Skip(b)
		// Also among the records that are stored: the dead letter may have lost those between them that were refused.
		if err := s.refuse(b, overhead); err != nil {
			return err
		}
		if from == len(b.Records) {
			s.tracker.Acked(b)
			return nil
		}
		if s.tracker.Full(b.File) {
			return fmt.Errorf("records of %d files wait for the parser's checkpoint", resume.MaxFiles)
		}
		err := s.writeBatch(ctx, b, from, overhead)
		var refused *jetstream.APIError
		switch {
		case err == nil:
			s.verbose, retried = false, false
		case errors.As(err, &refused) && refused.ErrorCode == wrongLastSequence && !retried:
			retried = true // retry once: an earlier batch was stored meanwhile, or another parser has taken over
		default:
			s.verbose = true
			return s.withAdvice(err)
		}
	}
}

// writeBatch stores as many records, starting at from, as fit in one atomic batch. Their position is the last message.
func (s *stream) writeBatch(ctx context.Context, b sink.Batch, from, overhead int) error {
	id, number := nuid.Next(), 0
	idValue, numberValue := []string{id}, []string{""}
	publish := func(m *nats.Msg, answer bool) error {
		number++
		numberValue[0] = strconv.Itoa(number)
		m.Header[headerBatchID], m.Header[headerBatchSequence] = idValue, numberValue
		m.Reply = ""
		if answer {
			m.Reply, _ = s.inbox.expect(0)
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
	s.inFlightRecords = int64(i - from)
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
	s.delivered += s.inFlightRecords
	s.tracker.Stored(b.File, end)
	return nil
}

// position returns the message that holds a position.
func (s *stream) position(p resume.Position) (*nats.Msg, error) {
	o := &s.output.opts
	data, err := json.Marshal(storedPosition{Writer: o.Writer, Stream: s.name, Epoch: s.epoch, Position: p})
	if err != nil {
		return nil, fmt.Errorf("encoding the position: %w", err)
	}
	header := nats.Header{headerTarget: {o.Target}, headerStream: {s.name}}
	return &nats.Msg{Subject: s.subject, Data: data, Header: header}, nil
}

// lastPosition returns the position on the server and its sequence number, or nil and 0 if there is none. A replica may
// answer with an old one.
func (s *stream) lastPosition(ctx context.Context) (*storedPosition, uint64, error) {
	name := s.output.opts.Config.Stream
	js, err := s.conn.js.Stream(ctx, name)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the JetStream stream %s: %w", name, err)
	}
	m, err := js.GetLastMsgForSubject(ctx, s.subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("reading the position on %s: %w", s.subject, err)
	}
	p := new(storedPosition)
	if err := json.Unmarshal(m.Data, p); err != nil {
		return nil, 0, fmt.Errorf("%w: message %d of %s on %s is not a position: %w", sink.ErrFailed, m.Sequence, name,
			s.subject, err)
	}
	return p, m.Sequence, nil
}

// fence takes over the position: its previous writer can no longer write.
func (s *stream) fence(ctx context.Context, known *resume.State) error {
	s.epoch = nuid.Next()
	var err error
	pauses := sink.NewBackoff()
	for range fenceTries {
		var found *storedPosition
		if found, s.last, err = s.lastPosition(ctx); err != nil {
			return err
		}
		var at *resume.Position
		if found != nil {
			at = &found.Position
		}
		if found == nil && known != nil && known.Generation > 0 {
			s.log.Warn("the position is gone from the server: after a crash, records newer than the checkpoint are "+
				"delivered again",
				"subject", s.subject)
		}
		s.remembers = known == nil && !at.Covers(nil)
		if !at.Covers(known) {
			if err := s.checkUncovered(known); err != nil {
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
		timer := time.NewTimer(pauses.NextBackOff())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
	return fmt.Errorf("taking over the position on %s: %w", s.subject, s.withAdvice(err))
}

// checkUncovered handles a checkpoint that is older than the position on the server covers: an error with exactly once,
// a warning otherwise.
func (s *stream) checkUncovered(known *resume.State) error {
	cfg := s.output.opts.Config
	what := "the checkpoint has no record of what " + s.output.opts.Writer + " has stored"
	if known != nil {
		what = "the checkpoint is older than the position that is stored with the records"
	}
	if cfg.Delivery == config.ExactlyOnce {
		return fmt.Errorf("%w: %s: restore the state directory, or accept duplicate records and remove the position "+
			"(nats stream purge %s --subject %s)", sink.ErrFailed, what, cfg.Stream, s.subject)
	}
	s.log.Warn("records may be delivered twice", "why", what)
	return nil
}

// resolveInFlight determines whether the batch in flight was stored, and whether this sink may still write.
func (s *stream) resolveInFlight(ctx context.Context) error {
	found, sequence, err := s.lastPosition(ctx)
	switch {
	case err != nil:
		return err
	case found == nil:
		return fmt.Errorf("%w: the position on %s is gone from the server", sink.ErrReopen, s.subject)
	case sequence < s.last:
		return fmt.Errorf("reading the position on %s: a server answered with an old one", s.subject)
	case found.Epoch != s.epoch:
		return fmt.Errorf("%w: another parser writes as %s: run only one, or give each its own name (--id), and restart "+
			"this one",
			sink.ErrFailed, s.output.opts.Writer)
	}
	if sequence > s.last {
		if p, ok := found.Files[s.inFlight]; ok {
			s.tracker.Stored(s.inFlight, p)
		}
		s.delivered += s.inFlightRecords // no other process writes a position of this epoch
		s.last = sequence
	}
	s.uncertain = false
	return nil
}

// withAdvice adds to an error how to resolve it.
func (s *stream) withAdvice(err error) error {
	cfg := s.output.opts.Config
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) {
		return fmt.Errorf("no JetStream stream accepts the messages: if this persists, add the subjects %q to the stream "+
			"%s: %w",
			streamSubjects(cfg.Subject, cfg.Stream), cfg.Stream, err)
	}
	return fmt.Errorf("publishing to the JetStream stream %s: %w", cfg.Stream, err)
}

// Flush implements sink.Sink. Every acknowledged record is already stored.
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
	s.flushed = s.acked
	upTo, created := s.acked, s.created
	if s.confirmed.Load() >= upTo {
		return sink.Flushed{State: s.encoded}, nil
	}
	confirm := func(ctx context.Context) error { return s.confirm(ctx, upTo, created) }
	return sink.Flushed{State: s.encoded, Sync: confirm}, nil
}

// confirm checks that the JetStream stream that stored the first records up to upTo still exists.
func (s *stream) confirm(ctx context.Context, upTo int64, created time.Time) error {
	c, err := s.output.connection(ctx)
	if err != nil {
		return err
	}
	info, err := s.output.stream(ctx, c)
	if err != nil {
		return err
	}
	if !info.Created.Equal(created) {
		return s.recreated()
	}
	s.confirmed.Store(upTo)
	return nil
}

// Committed implements sink.Sink.
func (s *stream) Committed(ctx context.Context) error {
	s.saved = s.flushed
	s.tracker.Committed()
	return ctx.Err()
}

// Delivered implements sink.Sink.
func (s *stream) Delivered() int64 { return s.delivered }

// Close implements sink.Sink.
func (s *stream) Close() error {
	s.inbox.close()
	return nil
}
