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
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/secret"
)

const (
	dialTimeout = 5 * time.Second
	// lingerUntilFlush is longer than a chunk takes to be handed over: Flush ends it.
	lingerUntilFlush = time.Second
	firstRetry       = 50 * time.Millisecond
	lastRetry        = time.Second
	metadataMinAge   = 250 * time.Millisecond
	// unknownTopicRetries outlast the time that the news of a topic just made takes to reach each broker.
	unknownTopicRetries = 10
	// maxBuffered never holds up a chunk, and a chunk bounds what is buffered.
	maxBuffered    = 2 * transactionRecords
	requestBytes   = 100 << 20 // of a produce request, unless one record is larger
	requestSlack   = 1 << 20   // what a request holds besides one batch
	maxClientBytes = 1 << 30   // kgo's limit of both
)

// clientOptions are those of one stream's client. id is its transactional id; empty: none.
func (o *Output) clientOptions(id string, l *link) []kgo.Opt {
	c := o.opts.Config
	batch := min(int64(c.MaxMessageBytes), maxClientBytes-requestSlack)
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("hlparser"),
		kgo.Dialer(dialer(c.TLS)),
		kgo.WithHooks(l),
		kgo.DisableClientMetrics(),
		kgo.RetryTimeout(o.opts.Patience),
		kgo.RetryBackoffFn(backoff),
		kgo.MetadataMinAge(metadataMinAge),
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
		opts = append(opts, kgo.SASL(scram.Sha512(login(c.SASL))))
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

// backoff doubles, so that a broker that comes back is found soon.
func backoff(tries int) time.Duration {
	return min(firstRetry<<min(tries-1, 10), lastRetry)
}

// dialer returns how a broker is dialled: in the clear, or with what the files of a TLS setting hold at that moment.
func dialer(t *config.TLS) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		if t == nil {
			return d.DialContext(ctx, network, address)
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("the broker's address %q: %w", address, err)
		}
		settings, err := secret.TLS(t, host)
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{NetDialer: &d, Config: settings}).DialContext(ctx, network, address)
	}
}

// login returns what reads the user and the password at each login.
func login(s *config.KafkaSASL) func(context.Context) (scram.Auth, error) {
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

// partitioner puts records of one key into one partition, by the hash that other Kafka clients use, and positions into the first.
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

// firstPartition keeps positions where they are found also after somebody has added partitions.
type firstPartition struct{}

// RequiresConsistency implements kgo.TopicPartitioner.
func (firstPartition) RequiresConsistency(*kgo.Record) bool { return true }

// Partition implements kgo.TopicPartitioner.
func (firstPartition) Partition(*kgo.Record, int) int { return 0 }

// link remembers what the newest attempts to connect met: the client retries by itself and does not tell. It is a kgo.Hook.
type link struct {
	mu  sync.Mutex
	err error // nil: the newest attempt went well
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (l *link) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *link) trouble() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
