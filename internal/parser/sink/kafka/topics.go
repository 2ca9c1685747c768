package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

const (
	// positionsSegment is small, so that old positions are compacted early: a broker never compacts the active segment.
	positionsSegment = "16777216"
	// brokersDefault selects the broker's own replication factor.
	brokersDefault = -1
	// maxKnownTopics bounds the topic cache.
	maxKnownTopics = maxRoutes
)

// ensure checks that topics exist before records are produced to them. It creates missing ones if the settings allow
// it.
func (s *stream) ensure(ctx context.Context, topics []string) error {
	create := s.out.opts.Config.Create
	missing, err := s.missing(ctx, topics)
	if err != nil || len(missing) == 0 {
		return err
	}
	if create == nil {
		return fmt.Errorf("topic %s does not exist: create it, or set create", missing[0])
	}
	if err := s.create(ctx, missing, int32(create.Partitions), nil); err != nil {
		return err
	}
	return s.await(ctx, missing)
}

// ensurePositions creates the topic of positions if it is missing.
func (s *stream) ensurePositions(ctx context.Context) error {
	topics := []string{s.out.opts.Config.PositionsTopic}
	missing, err := s.missing(ctx, topics)
	if err != nil || len(missing) == 0 {
		return err
	}
	if err := s.create(ctx, topics, 1, map[string]*string{
		"cleanup.policy": kadm.StringPtr("compact"),
		"segment.bytes":  kadm.StringPtr(positionsSegment),
	}); err != nil {
		return err
	}
	return s.await(ctx, topics)
}

// missing returns the topics that do not exist.
func (s *stream) missing(ctx context.Context, topics []string) (missing []string, err error) {
	ids := make(map[string]kadm.TopicID, len(topics))
	err = s.request(ctx, "checking topic "+topics[0], func(ctx context.Context) error {
		details, err := s.admin.ListTopics(ctx, topics...)
		if err != nil {
			return err
		}
		missing = missing[:0]
		for _, topic := range topics {
			switch err := details[topic].Err; {
			case errors.Is(err, kerr.UnknownTopicOrPartition), !details.Has(topic) && err == nil:
				missing = append(missing, topic)
			case err != nil:
				return fmt.Errorf("topic %s: %w", topic, err)
			default:
				ids[topic] = details[topic].ID
			}
		}
		return nil
	})
	if err == nil {
		for _, topic := range topics {
			if !slices.Contains(missing, topic) {
				s.cacheTopic(topic, ids[topic])
			}
		}
	}
	return missing, err
}

func (s *stream) cacheTopic(topic string, id kadm.TopicID) {
	if len(s.topics) >= maxKnownTopics {
		clear(s.topics)
	}
	s.topics[topic] = id
}

// heldTopic is a topic with records that no commit covers yet.
type heldTopic struct {
	id   kadm.TopicID // when the first of them was sent; zero if the brokers do not report it
	last int64        // the value of acked after the last of them
}

// trackHeld records which topics hold the records that were just acknowledged.
func (s *stream) trackHeld(records []kgo.Record) {
	topic := ""
	for i := range records {
		if records[i].Topic == topic {
			continue
		}
		topic = records[i].Topic
		h, ok := s.held[topic]
		if !ok {
			h.id = s.topics[topic]
		}
		h.last = s.acked
		s.held[topic] = h
	}
}

// verifyTopics checks, before a commit reports records as delivered, that the topics that hold them still exist. A
// topic that was deleted since then has lost them. If it was recreated, nothing else reports the loss: the client
// refreshes its metadata every few minutes, and brokers before 4.0 accept its next batches for the new topic.
func (s *stream) verifyTopics(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	for topic, h := range s.held {
		if h.id != (kadm.TopicID{}) {
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = &topic
			req.Topics = append(req.Topics, t)
		}
	}
	if len(req.Topics) == 0 {
		return nil
	}
	var gone string
	if err := s.request(ctx, "checking topic "+*req.Topics[0].Topic, func(ctx context.Context) error {
		resp, err := req.RequestWith(ctx, s.client) // not through the admin client, which may answer from its cache
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			if t.Topic == nil {
				continue
			}
			err := kerr.ErrorForCode(t.ErrorCode)
			switch {
			case errors.Is(err, kerr.UnknownTopicOrPartition), err == nil && t.TopicID != s.held[*t.Topic].id:
				gone = *t.Topic
			case err != nil:
				return fmt.Errorf("topic %s: %w", *t.Topic, err)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if gone != "" {
		return s.reopen("topic %s was deleted with records produced since the last commit", gone)
	}
	return nil
}

func (s *stream) create(ctx context.Context, topics []string, partitions int32, configs map[string]*string) error {
	replication := int16(brokersDefault)
	if c := s.out.opts.Config.Create; c != nil && c.ReplicationFactor > 0 {
		replication = int16(c.ReplicationFactor)
	}
	return s.request(ctx, "creating topic "+topics[0], func(ctx context.Context) error {
		made, err := s.admin.CreateTopics(ctx, partitions, replication, configs, topics...)
		if err != nil {
			return err
		}
		for _, r := range made.Sorted() {
			switch {
			case r.Err == nil:
				s.out.opts.Log.Info("created a topic", "topic", r.Topic, "partitions", partitions)
			case errors.Is(r.Err, kerr.TopicAlreadyExists): // another parser was faster
			case errors.Is(r.Err, kerr.TopicAuthorizationFailed), errors.Is(r.Err, kerr.ClusterAuthorizationFailed):
				return fmt.Errorf("topic %s: this user may not create it: allow Create on it, or create it manually (%s)",
					r.Topic, r.Err)
			default:
				return fmt.Errorf("topic %s: %w %s", r.Topic, r.Err, r.ErrMessage)
			}
		}
		return nil
	})
}

// await waits until the brokers know topics that were just created.
func (s *stream) await(ctx context.Context, topics []string) error {
	deadline := time.Now().Add(answerFactor * s.out.opts.OutageAfter)
	for pauses := sink.NewBackoff(); ; {
		missing, err := s.missing(ctx, topics)
		if err != nil || len(missing) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("topic %s was created, but not all brokers know it yet", missing[0])
		}
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-ctx.Done():
			return fmt.Errorf("waiting for topic %s: %w", missing[0], ctx.Err())
		}
	}
}
