// Package kafka is the sink that produces records to Kafka topics.
//
// With delivery ExactlyOnce each stream has a transactional producer of its own. A transaction holds records and, in the positions
// topic, how far each file was delivered with them; it ends every 10,000 records or 100 ms, and at the latest with a commit of the
// engine. A start ends what an earlier process left open, which also keeps that process from writing any more, reads the position
// back, and leaves out what the engine sends again although it is in Kafka. With AtLeastOnce there are no transactions: what was
// not committed locally is produced again.
//
// It must never guess: a transaction of which it is not known whether it was committed is read back from the positions topic, and
// a record counts as delivered only when a broker has said so. It keeps no record for longer than its outcome is unknown, and
// never more than one chunk of a batch.
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
	// transactionRecords and transactionAge end a transaction: consumers of committed records wait for its end.
	transactionRecords = 10_000
	transactionAge     = 100 * time.Millisecond
	// transactionTimeout is how long a transaction may stay open before the broker aborts it. Longer than an outage that one waits
	// out with a batch in hand; not so long that consumers wait for a parser that never comes back.
	transactionTimeout = time.Minute
	// chunkBytes and transactionRecords bound what is copied and handed to the client at once.
	chunkBytes = 4 << 20
	// defaultPatience is how long a call waits for a connection before it says that there is an outage, and silence how many times
	// as long it waits for the answer of a broker that it is connected to.
	defaultPatience = 3 * time.Second
	silence         = 10
	// carefulFor is how long each chunk has a transaction of its own after a failure took others' records with it.
	carefulFor = 10 * time.Second
)

// Options are what an Output needs to know.
type Options struct {
	// Config is the sink's settings, defaulted and validated.
	Config *config.KafkaSink
	// Writer names this parser among all that write to the cluster (config.Config.Writer), and Target what it reads for.
	Writer, Target string
	// Log is told of what a person should look at. nil: nobody is.
	Log *slog.Logger
	// Patience is how long a call waits without a connection before it reports an outage, and a tenth of how long it waits with one;
	// 0 means 3 s. What was asked of Kafka goes on meanwhile.
	Patience time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Client are further options of each stream's client, such as a dialer.
	Client []kgo.Opt
}

// Output is one Kafka cluster. It is a sink.Output.
type Output struct {
	opts  Options
	owner string // tells this process from others of the same writer

	mu      sync.Mutex
	claimed map[string]bool      // streams whose position this process has written
	careful map[string]time.Time // until when a stream takes no risk with what it has acknowledged
}

// New returns the output to a cluster. It does not connect: that is done when the first stream needs it, and again whenever
// a connection is lost.
func New(opts Options) *Output {
	if opts.Patience == 0 {
		opts.Patience = defaultPatience
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Output{opts: opts, owner: rand.Text(), claimed: map[string]bool{}, careful: map[string]time.Time{}}
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

// claims tells whether this process has written the position of a stream.
func (o *Output) claims(stream string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.claimed[stream]
}

func (o *Output) claim(stream string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.claimed[stream] = true
}

// isCareful tells whether a stream ends its transaction with each chunk, so that a failure can take only that chunk with it.
func (o *Output) isCareful(stream string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.opts.Now().Before(o.careful[stream])
}

func (o *Output) beCareful(stream string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.careful[stream] = o.opts.Now().Add(carefulFor)
}
