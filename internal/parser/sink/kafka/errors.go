package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// lost are answers after which a transaction can only be given up: it was aborted, or another producer has its id. Which of the
// two it was, a broker does not tell; the position does, at the next Open.
var lost = []error{
	kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping, kerr.UnknownProducerID,
	kerr.OutOfOrderSequenceNumber, kerr.TransactionAbortable, kerr.TransactionCoordinatorFenced, kerr.OperationNotAttempted,
}

func isLost(err error) bool {
	return slices.ContainsFunc(lost, func(e error) bool { return errors.Is(err, e) })
}

// explain adds to what Kafka answered what a person can do about it.
func (s *stream) explain(err error) error {
	advice := ""
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		advice = fmt.Sprintf("allow this user to Write and Describe the topics of records, %s", s.out.opts.Config.Topic)
		if s.id != "" {
			advice += fmt.Sprintf(", and to Read, Write and Describe %s", s.out.opts.Config.PositionsTopic)
		}
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		advice = fmt.Sprintf("allow this user to Write and Describe the transactional id %q", s.id)
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		advice = "allow this user IdempotentWrite on the cluster"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		advice = "the broker does not know this user with this password: look at the files of sasl"
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		advice = "let the broker's listener take SCRAM-SHA-512"
	case errors.Is(err, kerr.InvalidReplicationFactor):
		advice = "set create.replicationFactor to at most the number of brokers"
	case errors.Is(err, kerr.InvalidTransactionTimeout):
		advice = fmt.Sprintf("let the brokers' transaction.max.timeout.ms be %d or more", transactionTimeout.Milliseconds())
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		advice = "make the topic, or set create"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, advice)
}

// outage is what a call returns that Kafka has not answered in time.
func (s *stream) outage(doing string) error {
	if trouble := s.link.trouble(); trouble != nil {
		return fmt.Errorf("%s: no answer yet, and no connection: %w", doing, s.explain(trouble))
	}
	return fmt.Errorf("%s: no answer yet", doing)
}

// ask makes a request and gives it up after a while, so that an outage shows as one.
func (s *stream) ask(ctx context.Context, doing string, request func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, silence*s.out.opts.Patience) // the client tries again for Patience
	defer cancel()
	err := request(limited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case limited.Err() != nil:
		return s.outage(doing)
	}
	return fmt.Errorf("%s: %w", doing, s.explain(err))
}

// reopen ends the sink: the stream starts again from its checkpoint.
func (s *stream) reopen(format string, args ...any) error {
	s.dead = fmt.Errorf("%w: "+format, append([]any{sink.ErrReopen}, args...)...)
	return s.dead
}

// taken is reopen for an answer that is among the lost ones.
func (s *stream) taken(doing string, err error) error {
	return s.reopen("%s: the brokers have ended the transaction of %s, or another parser has taken its place: %w", doing, s.id, err)
}
