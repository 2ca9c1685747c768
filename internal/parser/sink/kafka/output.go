// Package kafka implements the sink that produces records to Kafka topics.
//
// With delivery ExactlyOnce, each stream has its own transactional producer. A transaction holds records and, in the
// positions topic, the position of each file after them. It ends every 10,000 records or 100 ms, and at the latest with
// a commit of the engine. Open aborts the transaction that an earlier process left open, which also fences that
// process. It then reads the position back, and the sink skips records that the engine sends again although Kafka has
// them. With AtLeastOnce there are no transactions: records that were not committed locally are produced again.
//
// The sink must never guess. If the outcome of a transaction is unknown, it is read back from the positions topic. A
// record counts as delivered only after a broker has acknowledged it. The sink keeps a record only while its outcome is
// unknown, and never more than one chunk of a batch.
package kafka

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

const (
	// transactionRecords and transactionAge bound a transaction: consumers of committed records wait for its end.
	transactionRecords = 10_000
	transactionAge     = 100 * time.Millisecond
	// transactionTimeout is how long a transaction may stay open before the broker aborts it. It is longer than an
	// outage during which the sink waits with an open batch, and short enough for consumers if the parser never comes
	// back.
	transactionTimeout = time.Minute
	// chunkBytes and transactionRecords bound what is copied and handed to the client in one call.
	chunkBytes = 4 << 20
	// defaultOutageAfter is how long a call waits for a connection before it reports an outage. With a connection it
	// waits answerFactor times as long for the broker's answer.
	defaultOutageAfter = 3 * time.Second
	answerFactor       = 10
	// isolateFor is how long each chunk has its own transaction after a failure that also aborted earlier chunks.
	isolateFor = 10 * time.Second
)

// Options configures an Output.
type Options struct {
	// Config holds the sink's settings, defaulted and validated.
	Config *config.KafkaSink
	// Writer is this parser's name, unique among the writers to the cluster (config.Config.Writer). Target is the
	// {target} of topics and keys.
	Writer, Target string
	// Log receives warnings that need an operator's attention. Nil disables it.
	Log *slog.Logger
	// OutageAfter is how long a call waits without a connection before it reports an outage. With a connection it waits
	// ten times as long. The operation continues meanwhile. 0 means 3 s.
	OutageAfter time.Duration
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Client holds additional options of each stream's client, such as a dialer.
	Client []kgo.Opt
}

// Output is one Kafka cluster. It is a sink.Output.
type Output struct {
	opts  Options
	owner string // distinguishes this process from others of the same writer

	mu            sync.Mutex
	claimed       map[string]bool      // streams whose position this process has written
	isolatedUntil map[string]time.Time // until when each chunk of a stream has its own transaction
	inDoubt       map[string]inDoubt   // by stream
}

// inDoubt is a transaction whose outcome is unknown.
type inDoubt struct {
	position string // as written in the transaction
	records  int64  // in the transaction
}

// New returns the output to a cluster. It does not connect. The first stream that needs a connection connects, and
// connects again whenever the connection is lost.
func New(opts Options) *Output {
	if opts.OutageAfter == 0 {
		opts.OutageAfter = defaultOutageAfter
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Output{
		opts: opts, owner: rand.Text(),
		claimed: map[string]bool{}, isolatedUntil: map[string]time.Time{}, inDoubt: map[string]inDoubt{},
	}
}

// Open implements sink.Output.
func (o *Output) Open(ctx context.Context, name string, saved json.RawMessage) (sink.Sink, error) {
	var st state
	if len(saved) > 0 {
		if err := json.Unmarshal(saved, &st); err != nil {
			return nil, fmt.Errorf("%w: reading the Kafka sink's part of the checkpoint of %s: %w", sink.ErrFailed, name, err)
		}
	}
	s, err := o.newStream(name)
	if err != nil {
		return nil, err
	}
	if s.id == "" {
		return s, nil
	}
	if err := s.resume(ctx, st, len(saved) > 0); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// Close implements sink.Output. Each stream's client was closed with its sink.
func (o *Output) Close() error { return nil }

// hasClaimed reports whether this process has written the position of a stream.
func (o *Output) hasClaimed(stream string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.claimed[stream]
}

func (o *Output) claim(stream string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.claimed[stream] = true
}

// isIsolated reports whether a stream commits after each chunk, so that a failure affects only that chunk.
func (o *Output) isIsolated(stream string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.opts.Now().Before(o.isolatedUntil[stream])
}

func (o *Output) isolate(stream string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.isolatedUntil[stream] = o.opts.Now().Add(isolateFor)
}

func (o *Output) markInDoubt(stream string, t inDoubt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.inDoubt[stream] = t
}

// resolve returns how many records the stream's in-doubt transaction has delivered, given the position that was read
// back.
func (o *Output) resolve(stream, position string) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	t, ok := o.inDoubt[stream]
	delete(o.inDoubt, stream)
	if !ok || t.position != position {
		return 0
	}
	return t.records
}
