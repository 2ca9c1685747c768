// Package nats is the sink that publishes records to a NATS JetStream stream.
//
// With atomic batches (nats-server 2.12 and later, allow_atomic) records and their position are stored in one act, exactly once: the
// last message of each batch is the position, on a subject that belongs to this writer's stream, and the server refuses the batch
// as a whole if the position there is not the one that this sink wrote last. Open writes a new one before anything else, so that
// whoever wrote as this writer before can write no more. Without, messages are published one by one with an id, at least once.
//
// The package must never take a record for stored because of anything but the server's answer, or the position read back from it, and
// must never let the client library send again or buffer on its own.
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

// duplicateWindow is how long a stream that this parser makes knows a message's id again. It covers a restart of the parser.
const duplicateWindow = 10 * time.Minute

// Options are the settings of an Output. Log may be nil.
type Options struct {
	Config *config.NATSSink // validated, with defaults
	Writer string           // names this parser among all that write to the stream
	Target string           // the {target} of subjects
	Log    *slog.Logger
}

// Output is one connection to a NATS server, which is made when it is needed and made again after it has ended.
type Output struct {
	opts Options
	turn chan struct{} // held by the one who uses conn
	conn *conn         // nil: none yet
}

// New returns an output. It does no I/O.
func New(o Options) *Output {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	out := &Output{opts: o, turn: make(chan struct{}, 1)}
	out.turn <- struct{}{}
	return out
}

// connection returns a connection that is alive.
func (o *Output) connection(ctx context.Context) (*conn, error) {
	select {
	case <-o.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { o.turn <- struct{}{} }()
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

// Open implements sink.Output. Its errors are sink.ErrFailed or an outage.
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
	<-o.turn
	defer func() { o.turn <- struct{}{} }()
	if o.conn != nil {
		o.conn.nc.Close()
		o.conn = nil
	}
	return nil
}

// stream returns what the server knows of the JetStream stream, which it makes if it is to.
func (o *Output) stream(ctx context.Context, c *conn) (*jetstream.StreamInfo, error) {
	cfg := o.opts.Config
	s, err := c.js.Stream(ctx, cfg.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		subjects := streamSubjects(cfg.Subject, cfg.Stream)
		if cfg.Create == nil {
			return nil, fmt.Errorf("there is no JetStream stream %s: make it with the subjects %q, or set create", cfg.Stream, subjects)
		}
		s, err = c.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: cfg.Stream, Description: "made by hlparser", Subjects: subjects, Storage: jetstream.FileStorage,
			Replicas: cfg.Create.Replicas, MaxBytes: unlessZero(int64(cfg.Create.MaxBytes)), MaxAge: cfg.Create.MaxAge.Duration,
			Duplicates: window(cfg.Create.MaxAge.Duration), AllowAtomicPublish: true,
		})
		switch {
		case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse): // another parser was faster
			s, err = c.js.Stream(ctx, cfg.Stream)
		case err == nil:
			o.opts.Log.Info("made the JetStream stream", "name", cfg.Stream, "subjects", subjects)
		}
		if err != nil {
			return nil, fmt.Errorf("making the JetStream stream %s with the subjects %q: %w", cfg.Stream, subjects, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the JetStream stream %s: %w", cfg.Stream, err)
	}
	return s.CachedInfo(), nil
}

func unlessZero(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

// window is the duplicate window of a stream that keeps messages for so long, 0 being for ever: it may not be longer.
func window(maxAge time.Duration) time.Duration {
	if maxAge > 0 {
		return min(maxAge, duplicateWindow)
	}
	return duplicateWindow
}

// atomic tells whether records and position are stored in one act, as the settings and the stream allow.
func (o *Output) atomic(info *jetstream.StreamInfo, log *slog.Logger) (bool, error) {
	cfg := o.opts.Config
	why := ""
	switch {
	case cfg.Delivery == config.AtLeastOnce:
		return false, nil
	case cfg.Identity == config.ByChain:
		// A batch is refused as a whole for one message that a redundant parser was first to publish.
		why = "with identity Chain messages are published one by one: set delivery to Best or AtLeastOnce"
	case !info.Config.AllowAtomicPublish:
		why = fmt.Sprintf("the JetStream stream %s takes no atomic batches: it needs nats-server 2.12 or later, and allow_atomic "+
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
