// Package nats implements the sink that publishes records to a NATS JetStream stream.
//
// With atomic batches (nats-server 2.12 and later, allow_atomic), records and their position are stored atomically,
// exactly once. The last message of each batch is the position, on a subject that belongs to this writer's stream. The
// server rejects the whole batch if the position there is not the one that this sink wrote last. Open first writes a
// new position, so any earlier process of this writer can no longer write. Without atomic batches, messages are
// published one by one with an id, at least once.
//
// Only the server's answer, or the position read back from it, proves that a record is stored. The client library must
// never resend or buffer on its own.
package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/resume"
)

// duplicateWindow is how long a stream created by this parser remembers message ids. It covers a restart of the parser.
const duplicateWindow = 10 * time.Minute

// Options configures an Output. Log is optional.
type Options struct {
	Config *config.NATSSink // validated, with defaults
	Writer string           // this parser's name, unique among the writers to the stream
	Target string           // the value of {target} in subjects
	Log    *slog.Logger
}

// Output is one connection to a NATS server. It connects on demand, and again after a connection has ended.
type Output struct {
	opts Options
	sem  chan struct{} // a semaphore; its holder may use conn
	conn *conn         // nil before the first connection
}

// New returns an output. It does no I/O.
func New(o Options) *Output {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	out := &Output{opts: o, sem: make(chan struct{}, 1)}
	out.sem <- struct{}{}
	return out
}

// connection returns a live connection.
func (o *Output) connection(ctx context.Context) (*conn, error) {
	select {
	case <-o.sem:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { o.sem <- struct{}{} }()
	if o.conn != nil {
		if o.conn.alive() {
			return o.conn, nil
		}
		o.conn.nc.Close()
		o.conn = nil
	}
	c, err := connect(ctx, &o.opts)
	if err != nil {
		return nil, err
	}
	o.conn = c
	return c, nil
}

// Open implements sink.Output. Its errors are sink.ErrFailed or outages.
func (o *Output) Open(ctx context.Context, name string, state json.RawMessage) (sink.Sink, error) {
	var known *resume.State
	if len(state) > 0 {
		known = new(resume.State)
		if err := json.Unmarshal(state, known); err != nil {
			return nil, fmt.Errorf("%w: reading the sink's part of the checkpoint: %w", sink.ErrFailed, err)
		}
	}
	c, err := o.connection(ctx)
	if err != nil {
		return nil, err
	}
	info, err := o.stream(ctx, c)
	if err != nil {
		return nil, err
	}
	s := &stream{
		output: o, name: name, log: o.opts.Log.With("stream", name),
		subject: positionSubject(o.opts.Config.Stream, o.opts.Writer, name),
	}
	if s.atomic, err = o.atomic(info, s.log); err != nil {
		return nil, err
	}
	s.packer = newPacker(&o.opts, name, !s.atomic)
	if err := s.attach(c, info); err != nil {
		return nil, err
	}
	if !s.atomic {
		s.tracker = resume.Open(known, nil)
		return s, nil
	}
	if err := s.fence(ctx, known); err != nil {
		s.inbox.close()
		return nil, err
	}
	return s, nil
}

// Close implements sink.Output.
func (o *Output) Close() error {
	<-o.sem
	defer func() { o.sem <- struct{}{} }()
	if o.conn != nil {
		o.conn.nc.Close()
		o.conn = nil
	}
	return nil
}

// stream returns the server's description of the JetStream stream. It creates the stream if it is missing and the
// settings allow it.
func (o *Output) stream(ctx context.Context, c *conn) (*jetstream.StreamInfo, error) {
	cfg := o.opts.Config
	s, err := c.js.Stream(ctx, cfg.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		subjects := streamSubjects(cfg.Subject, cfg.Stream)
		if cfg.Create == nil {
			return nil, fmt.Errorf("there is no JetStream stream %s: create it with the subjects %q, or set create",
				cfg.Stream, subjects)
		}
		s, err = c.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: cfg.Stream, Description: "created by hlparser", Subjects: subjects, Storage: jetstream.FileStorage,
			Replicas: cfg.Create.Replicas, MaxBytes: orUnlimited(int64(cfg.Create.MaxBytes)), MaxAge: cfg.Create.MaxAge.Duration,
			Duplicates: duplicatesFor(cfg.Create.MaxAge.Duration), AllowAtomicPublish: true,
		})
		switch {
		case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse): // another parser was faster
			s, err = c.js.Stream(ctx, cfg.Stream)
		case err == nil:
			o.opts.Log.Info("created the JetStream stream", "name", cfg.Stream, "subjects", subjects)
		}
		if err != nil {
			return nil, fmt.Errorf("creating the JetStream stream %s with the subjects %q: %w", cfg.Stream, subjects, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the JetStream stream %s: %w", cfg.Stream, err)
	}
	return s.CachedInfo(), nil
}

func orUnlimited(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

// duplicatesFor returns the duplicate window of a stream that keeps messages for maxAge, where 0 means forever. The
// window must not exceed maxAge.
func duplicatesFor(maxAge time.Duration) time.Duration {
	if maxAge > 0 {
		return min(maxAge, duplicateWindow)
	}
	return duplicateWindow
}

// atomic reports whether records and position are stored atomically, as the settings and the stream allow.
func (o *Output) atomic(info *jetstream.StreamInfo, log *slog.Logger) (bool, error) {
	cfg := o.opts.Config
	why := ""
	switch {
	case cfg.Delivery == config.AtLeastOnce:
		return false, nil
	case cfg.Identity == config.ByChain:
		// The server rejects a whole batch because of one message that a redundant parser published first.
		why = "with identity Chain messages are published one by one: set delivery to Best or AtLeastOnce"
	case !info.Config.AllowAtomicPublish:
		why = fmt.Sprintf("the JetStream stream %s does not accept atomic batches: it needs nats-server 2.12 or later, "+
			"and allow_atomic "+
			"(nats stream edit %[1]s --allow-batch)", cfg.Stream)
	case info.Config.Retention != jetstream.LimitsPolicy:
		why = fmt.Sprintf("the JetStream stream %s drops what its consumers have acknowledged, and the position with it: "+
			"it needs limits retention", cfg.Stream)
	default:
		return true, nil
	}
	if cfg.Delivery == config.ExactlyOnce {
		return false, fmt.Errorf("%w: exactly once is not possible: %s", sink.ErrFailed, why)
	}
	log.Warn("delivering at least once, not exactly once", "why", why)
	return false, nil
}
