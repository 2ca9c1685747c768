package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/resume"
)

const (
	fetchWaitMillis = 250
	fetchBytes      = 4 << 20
)

// state is what the checkpoint holds of a stream that is delivered exactly once.
type state struct {
	resume.State
	// Topic is the id of the positions topic, and Offset one at or after which the newest position is: a start looks from there.
	Topic  string `json:"topic"`
	Offset int64  `json:"offset"`
}

// position is the value of a record in the positions topic. Its key is the transactional id.
type position struct {
	resume.Position
	Owner string `json:"owner"` // the process that wrote it
}

// resume takes the stream over from whoever wrote it before, and finds out what of it is in Kafka.
func (s *stream) resume(ctx context.Context, saved state, found bool) error {
	topic := s.out.opts.Config.PositionsTopic
	if err := s.ensurePositions(ctx); err != nil {
		return err
	}
	// From here on an earlier process cannot write any more, and its transaction is over. Only now is its last position the last.
	if err := s.ask(ctx, "taking over transactional id "+s.id, func(ctx context.Context) error {
		_, _, err := s.client.ProducerID(ctx)
		return err
	}); err != nil {
		return err
	}
	last, err := s.lastPosition(ctx, saved)
	if err != nil {
		return fmt.Errorf("reading the position of %s from topic %s: %w", s.id, topic, err)
	}
	var in *resume.State
	if found {
		in = &saved.State
	}
	var at *resume.Position
	switch {
	case last == nil && found:
		s.out.opts.Log.Warn("Kafka holds no position of this stream, although the checkpoint knows one: what was delivered after the "+
			"checkpoint, if anything, is delivered twice", "topic", topic, "key", s.id)
	case last != nil:
		if last.Owner != s.out.owner && s.out.claims(s.name) {
			return fmt.Errorf("%w: another parser writes as %s: stop one of the two", sink.ErrFailed, s.id)
		}
		at = &last.Position
		if !at.Covers(in) {
			s.out.opts.Log.Warn("the checkpoint is older than what the position in Kafka accounts for: some records may be delivered twice",
				"topic", topic, "key", s.id)
		}
	}
	s.progress = resume.Open(in, at)
	if err := s.end(ctx); err != nil {
		return fmt.Errorf("writing the position of %s to topic %s: %w", s.id, topic, err)
	}
	s.out.claim(s.name)
	return nil
}

// lastPosition returns the newest committed position; nil if there is none.
func (s *stream) lastPosition(ctx context.Context, saved state) (last *position, err error) {
	topic := s.out.opts.Config.PositionsTopic
	var from, end int64
	if err := s.ask(ctx, "looking at the topic", func(ctx context.Context) error {
		details, err := s.admin.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		start, err := s.admin.ListStartOffsets(ctx, topic)
		if err != nil {
			return err
		}
		stop, err := s.admin.ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		first, _ := start.Lookup(topic, 0)
		after, ok := stop.Lookup(topic, 0)
		switch {
		case details[topic].Err != nil:
			return details[topic].Err
		case !ok:
			return errors.New("it has no partition 0")
		case first.Err != nil || after.Err != nil:
			return errors.Join(first.Err, after.Err)
		}
		s.positions = details[topic]
		from, end = first.Offset, after.Offset
		return nil
	}); err != nil {
		return nil, err
	}
	if saved.Topic == s.positions.ID.String() && saved.Offset <= end {
		from = max(from, saved.Offset)
	}
	// Up to the end, not to the last stable offset: that may lie before our position, held back by the open transaction of another
	// parser, whose end is waited for.
	for from < end {
		records, next, err := s.fetch(ctx, from)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if string(r.Key) != s.id {
				continue
			}
			last = nil
			if len(r.Value) > 0 { // a person may have deleted it
				last = new(position)
				if err := json.Unmarshal(r.Value, last); err != nil {
					return nil, fmt.Errorf("%w: the record at offset %d: %w", sink.ErrFailed, r.Offset, err)
				}
			}
			s.offset = r.Offset
		}
		from = next
	}
	return last, nil
}

// fetch returns committed records of the positions topic, and from where to go on.
func (s *stream) fetch(ctx context.Context, from int64) (records []*kgo.Record, next int64, err error) {
	err = s.ask(ctx, fmt.Sprintf("fetching from offset %d", from), func(ctx context.Context) error {
		req := kmsg.NewPtrFetchRequest()
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes = fetchWaitMillis, 1, fetchBytes
		req.IsolationLevel = 1 // committed records only
		req.SessionEpoch = -1  // no session
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID = s.positions.Topic, s.positions.ID
		p := kmsg.NewFetchRequestTopicPartition()
		p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = from, fetchBytes, -1
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		answer, err := s.client.Broker(int(s.positions.Partitions[0].Leader)).RetriableRequest(ctx, req)
		if err != nil {
			return err
		}
		resp := answer.(*kmsg.FetchResponse)
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return err
		}
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return errors.New("the broker answered about another partition")
		}
		fetched, after := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
			Offset: from, IsolationLevel: kgo.ReadCommitted(), Topic: s.positions.Topic,
		}, &resp.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
		if fetched.Err != nil {
			return fetched.Err
		}
		records, next = fetched.Records, after
		if next == from && fetched.LastStableOffset > from {
			next = fetched.LastStableOffset // what was there was compacted away
		}
		return nil
	})
	return records, next, err
}

// positionRecord is the record that says what the transaction in hand and those before it hold.
func (s *stream) positionRecord(p resume.Position) ([]kgo.Record, error) {
	value, err := json.Marshal(position{Position: p, Owner: s.out.owner})
	if err != nil {
		return nil, fmt.Errorf("encoding the position of %s: %w", s.id, err)
	}
	return []kgo.Record{{Topic: s.out.opts.Config.PositionsTopic, Key: []byte(s.id), Value: value}}, nil
}
