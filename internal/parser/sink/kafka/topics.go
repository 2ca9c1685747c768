package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

const (
	// positionsSegment is small, so that old positions are compacted away soon: a broker never compacts the segment it writes to.
	positionsSegment = "16777216"
	// brokersDefault asks for the broker's own replication factor.
	brokersDefault = -1
	// newTopicPoll is how often a topic that was just made is looked for.
	newTopicPoll = 100 * time.Millisecond
	// maxKnownTopics bounds what is remembered of topics.
	maxKnownTopics = maxRoutes
)

// ensure makes sure that topics exist before anything is produced to them, and makes those that are missing if it may.
func (s *stream) ensure(ctx context.Context, topics []string) error {
	create := s.out.opts.Config.Create
	missing, err := s.missing(ctx, topics)
	if err != nil || len(missing) == 0 {
		return err
	}
	if create == nil {
		return fmt.Errorf("topic %s does not exist: make it, or set create", missing[0])
	}
	if err := s.create(ctx, missing, int32(create.Partitions), nil); err != nil {
		return err
	}
	return s.await(ctx, missing)
}

// ensurePositions makes the topic of positions if it is missing.
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

// missing returns those of some topics that do not exist.
func (s *stream) missing(ctx context.Context, topics []string) (missing []string, err error) {
	err = s.ask(ctx, "looking for topic "+topics[0], func(ctx context.Context) error {
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
			}
		}
		return nil
	})
	if err == nil {
		for _, topic := range topics {
			if !slices.Contains(missing, topic) {
				s.knows(topic)
			}
		}
	}
	return missing, err
}

func (s *stream) knows(topic string) {
	if len(s.topics) >= maxKnownTopics {
		clear(s.topics)
	}
	s.topics[topic] = struct{}{}
}

func (s *stream) create(ctx context.Context, topics []string, partitions int32, configs map[string]*string) error {
	replication := int16(brokersDefault)
	if c := s.out.opts.Config.Create; c != nil && c.ReplicationFactor > 0 {
		replication = int16(c.ReplicationFactor)
	}
	return s.ask(ctx, "making topic "+topics[0], func(ctx context.Context) error {
		made, err := s.admin.CreateTopics(ctx, partitions, replication, configs, topics...)
		if err != nil {
			return err
		}
		for _, r := range made.Sorted() {
			switch {
			case r.Err == nil:
				s.out.opts.Log.Info("made a topic", "topic", r.Topic, "partitions", partitions)
			case errors.Is(r.Err, kerr.TopicAlreadyExists): // another parser was faster
			case errors.Is(r.Err, kerr.TopicAuthorizationFailed), errors.Is(r.Err, kerr.ClusterAuthorizationFailed):
				return fmt.Errorf("topic %s: this user may not make it: allow Create on it, or make it by hand (%s)", r.Topic, r.Err)
			default:
				return fmt.Errorf("topic %s: %w %s", r.Topic, r.Err, r.ErrMessage)
			}
		}
		return nil
	})
}

// await waits until the brokers know topics that were just made.
func (s *stream) await(ctx context.Context, topics []string) error {
	deadline := time.Now().Add(silence * s.out.opts.Patience)
	for {
		missing, err := s.missing(ctx, topics)
		if err != nil || len(missing) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("topic %s was made, and is not known to all brokers yet", missing[0])
		}
		select {
		case <-time.After(newTopicPoll):
		case <-ctx.Done():
			return fmt.Errorf("waiting for topic %s: %w", missing[0], ctx.Err())
		}
	}
}
