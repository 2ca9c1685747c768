package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// txnFatal lists the answers after which a transaction can only be abandoned: it was aborted, or another producer has
// taken over its id. The broker does not distinguish the two; the position does, at the next Open.
var txnFatal = []error{
	kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping,
	kerr.UnknownProducerID, kerr.OutOfOrderSequenceNumber, kerr.TransactionAbortable,
	kerr.TransactionCoordinatorFenced, kerr.OperationNotAttempted,
}

func isTxnFatal(err error) bool {
	return slices.ContainsFunc(txnFatal, func(e error) bool { return errors.Is(err, e) })
}

// withAdvice adds to an error from Kafka how to resolve it.
func (s *stream) withAdvice(err error) error {
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
		advice = "the broker rejects this user and password: check the files of sasl"
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		advice = "enable SCRAM-SHA-512 on the broker's listener"
	case errors.Is(err, kerr.InvalidReplicationFactor):
		advice = "set create.replicationFactor to at most the number of brokers"
	case errors.Is(err, kerr.InvalidTransactionTimeout):
		advice = fmt.Sprintf("set the brokers' transaction.max.timeout.ms to %d or more", transactionTimeout.Milliseconds())
	case errors.Is(err, kerr.UnknownTopicID):
		advice = "the topic was deleted, and perhaps recreated"
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		advice = "create the topic, or set create"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, advice)
}

// outage returns the error for an operation that Kafka has not completed in time.
func (s *stream) outage(op string) error {
	if err := s.link.lastError(); err != nil {
		return fmt.Errorf("%s: no answer yet, and no connection: %w", op, s.withAdvice(err))
	}
	return fmt.Errorf("%s: no answer yet", op)
}

// request performs a request and abandons it after a while, so that an outage is reported as one.
func (s *stream) request(ctx context.Context, op string, do func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, answerFactor*s.out.opts.OutageAfter) // the client retries for OutageAfter
	defer cancel()
	err := do(limited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", op, ctx.Err())
	case limited.Err() != nil:
		return s.outage(op)
	}
	return fmt.Errorf("%s: %w", op, s.withAdvice(err))
}

// reopen records and returns a permanent ErrReopen: the stream restarts from its checkpoint.
func (s *stream) reopen(format string, args ...any) error {
	s.fatal = fmt.Errorf("%w: "+format, append([]any{sink.ErrReopen}, args...)...)
	return s.fatal
}

// fenced is reopen for an answer in txnFatal.
func (s *stream) fenced(op string, err error) error {
	return s.reopen("%s: the brokers have ended the transaction of %s, or another parser has taken over: %w", op, s.id,
		err)
}
