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

// state is the sink's part of the checkpoint of a stream that is delivered exactly once.
type state struct {
	resume.State
	// Topic is the id of the positions topic. The newest position is at Offset or later: Open reads from there.
	Topic  string `json:"topic"`
	Offset int64  `json:"offset"`
}

// position is the value of a record in the positions topic. Its key is the transactional id.
type position struct {
	resume.Position
	Owner string `json:"owner"` // the process that wrote it
	text  string // the whole value
}

// resume takes over the stream from its previous writer and determines which records are in Kafka.
func (s *stream) resume(ctx context.Context, saved state, found bool) error {
	last, err := s.takeOver(ctx, saved.Topic, saved.Offset)
	if err != nil {
		return err
	}
	topic := s.out.opts.Config.PositionsTopic
	var in *resume.State
	if found {
		in = &saved.State
	}
	var at *resume.Position
	switch {
	case last == nil && found:
		s.out.opts.Log.Warn("Kafka holds no position of this stream, although the checkpoint has one: records delivered "+
			"after "+
			"the checkpoint, if any, are delivered again", "topic", topic, "key", s.id)
	case last != nil:
		s.delivered.Store(s.out.resolve(s.name, last.text))
		at = &last.Position
		s.remembers = in == nil && !at.Covers(nil)
		if !at.Covers(in) {
			s.out.opts.Log.Warn("the checkpoint is older than the position in Kafka covers: some records may be delivered twice",
				"topic", topic, "key", s.id)
		}
	}
	s.progress = resume.Open(in, at)
	if err := s.commit(ctx); err != nil {
		return fmt.Errorf("writing the position of %s to topic %s: %w", s.id, topic, err)
	}
	s.out.claim(s.name)
	return nil
}

// takeOver fences the stream's previous writer and returns the last position, or nil if there is none. topicID and
// offset are where to start reading.
func (s *stream) takeOver(ctx context.Context, topicID string, offset int64) (*position, error) {
	if err := s.ensurePositions(ctx); err != nil {
		return nil, err
	}
	// From here on an earlier client can no longer write, and its transaction has ended. Only now is its last position
	// final.
	if err := s.request(ctx, "taking over transactional id "+s.id, func(ctx context.Context) error {
		_, _, err := s.client.ProducerID(ctx)
		return err
	}); err != nil {
		return nil, err
	}
	last, err := s.lastPosition(ctx, topicID, offset)
	if err != nil {
		return nil, fmt.Errorf("reading the position of %s from topic %s: %w", s.id, s.out.opts.Config.PositionsTopic, err)
	}
	if last != nil && last.Owner != s.out.owner && s.out.hasClaimed(s.name) {
		return nil, fmt.Errorf("%w: another parser writes as %s: stop one of the two", sink.ErrFailed, s.id)
	}
	return last, nil
}

// lastPosition returns the newest committed position, or nil if there is none.
func (s *stream) lastPosition(ctx context.Context, topicID string, offset int64) (last *position, err error) {
	topic := s.out.opts.Config.PositionsTopic
	var from, end int64
	if err := s.request(ctx, "describing the topic", func(ctx context.Context) error {
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
	if topicID == s.positions.ID.String() && offset <= end {
		from = max(from, offset)
	}
	// Read up to the end, not to the last stable offset. Another parser's open transaction may hold that back before
	// this stream's position. Then the read waits for that transaction to end.
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
			if len(r.Value) > 0 { // an operator may have deleted it with a tombstone
				last = &position{text: string(r.Value)}
				if err := json.Unmarshal(r.Value, last); err != nil {
					return nil, fmt.Errorf("%w: decoding the record at offset %d: %w", sink.ErrFailed, r.Offset, err)
				}
			}
			s.offset = r.Offset
		}
		from = next
	}
	return last, nil
}

// fetch returns committed records of the positions topic, and the offset to continue at.
func (s *stream) fetch(ctx context.Context, from int64) (records []*kgo.Record, next int64, err error) {
	err = s.request(ctx, fmt.Sprintf("fetching from offset %d", from), func(ctx context.Context) error {
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
			next = fetched.LastStableOffset // the records there were compacted away
		}
		return nil
	})
	return records, next, err
}

// positionRecord returns the record that holds the position after the current transaction.
func (s *stream) positionRecord(p resume.Position) ([]kgo.Record, error) {
	value, err := json.Marshal(position{Position: p, Owner: s.out.owner})
	if err != nil {
		return nil, fmt.Errorf("encoding the position of %s: %w", s.id, err)
	}
	return []kgo.Record{{Topic: s.out.opts.Config.PositionsTopic, Key: []byte(s.id), Value: value}}, nil
}
