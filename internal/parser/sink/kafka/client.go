package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/secret"
)

const (
	dialTimeout = 5 * time.Second
	// lingerUntilFlush is longer than the handover of a chunk takes. Flush ends the linger.
	lingerUntilFlush = time.Second
	metadataMinAge   = 250 * time.Millisecond
	// unknownTopicRetries outlast the time until every broker knows a newly created topic.
	unknownTopicRetries = 10
	// maxBuffered exceeds the largest chunk, so that it never blocks one.
	maxBuffered    = 2 * transactionRecords
	requestBytes   = 100 << 20 // maximum size of a produce request, unless one record is larger
	requestSlack   = 1 << 20   // what a request holds besides one batch
	maxClientBytes = 1 << 30   // kgo's upper limit of both
)

// clientOptions returns the options of one stream's client. id is its transactional id, or empty for none. dataLoss is
// called when the brokers turn out not to have records that they acknowledged.
func (o *Output) clientOptions(id string, l *link, dataLoss func()) []kgo.Opt {
	c := o.opts.Config
	batch := min(int64(c.MaxMessageBytes), maxClientBytes-requestSlack)
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("hlparser"),
		kgo.Dialer(dialer(c.TLS)),
		kgo.WithHooks(l),
		kgo.DisableClientMetrics(),
		kgo.RetryTimeout(o.opts.OutageAfter),
		kgo.RetryBackoffFn(sink.Pause),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.ProducerOnDataLossDetected(func(string, int32) { dataLoss() }),
		kgo.UnknownTopicRetries(unknownTopicRetries),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(partitioner{data: kgo.StickyKeyPartitioner(nil), positions: c.PositionsTopic}),
		kgo.ProducerLinger(lingerUntilFlush),
		kgo.ProducerBatchMaxBytes(int32(batch)),
		kgo.BrokerMaxWriteBytes(int32(min(max(requestBytes, batch+requestSlack), maxClientBytes))),
		kgo.MaxBufferedRecords(maxBuffered),
		kgo.ProducerBatchCompression(codecs[c.Compression]),
	}
	if c.SASL != nil {
		opts = append(opts, kgo.SASL(scram.Sha512(credentials(c.SASL))))
	}
	if id != "" {
		opts = append(opts, kgo.TransactionalID(id), kgo.TransactionTimeout(transactionTimeout))
	}
	return append(opts, o.opts.Client...)
}

var codecs = map[config.KafkaCompression]kgo.CompressionCodec{
	config.KafkaNone:   kgo.NoCompression(),
	config.KafkaSnappy: kgo.SnappyCompression(),
	config.KafkaLZ4:    kgo.Lz4Compression(),
	config.KafkaZstd:   kgo.ZstdCompression(),
}

// dialer returns the dial function for brokers. With TLS settings it reads their files at every dial.
func dialer(t *config.TLS) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		if t == nil {
			return d.DialContext(ctx, network, address)
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("parsing the broker's address %q: %w", address, err)
		}
		settings, err := secret.TLS(t, host)
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{NetDialer: &d, Config: settings}).DialContext(ctx, network, address)
	}
}

// credentials returns a function that reads the user name and password at every login.
func credentials(s *config.KafkaSASL) func(context.Context) (scram.Auth, error) {
	return func(context.Context) (scram.Auth, error) {
		user, err := secret.Read(s.UsernameFile)
		if err != nil {
			return scram.Auth{}, err
		}
		password, err := secret.Read(s.PasswordFile)
		if err != nil {
			return scram.Auth{}, err
		}
		return scram.Auth{User: string(user), Pass: string(password)}, nil
	}
}

// partitioner assigns records by key, with the hash that other Kafka clients use, and positions to the first partition.
type partitioner struct {
	data      kgo.Partitioner
	positions string
}

// ForTopic implements kgo.Partitioner.
func (p partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	if topic == p.positions {
		return firstPartition{}
	}
	return p.data.ForTopic(topic)
}

// firstPartition always selects partition 0, so that positions are found after partitions are added.
type firstPartition struct{}

// RequiresConsistency implements kgo.TopicPartitioner.
func (firstPartition) RequiresConsistency(*kgo.Record) bool { return true }

// Partition implements kgo.TopicPartitioner.
func (firstPartition) Partition(*kgo.Record, int) int { return 0 }

// link records the result of the latest connection attempt. The client retries on its own and does not report it. It is
// a kgo.Hook.
type link struct {
	mu  sync.Mutex
	err error // nil if the latest attempt succeeded
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (l *link) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *link) lastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
