// Package stdout is the sink that writes records to the process's standard
// output, for pipes and for a person who looks on.
//
// A record is acknowledged when its write has returned; whether its reader has
// seen it cannot be known, so delivery is at least once. The streams of a
// process share the output: records are never mixed, each comes out whole. It
// must never write anything but records: logs go to standard error.
package stdout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// chunkBytes is how much is handed to one write. A pipe holds 64 KiB; more
// spares system calls where the output is a file.
const chunkBytes = 256 << 10

// Output is a sink.Output over one writer. Its turn, of which there is one, goes
// from stream to stream between records.
type Output struct {
	w     io.Writer
	turn  chan struct{}
	chunk []byte // the holder's: the bytes being written, so that a batch need not outlive Write
	cut   error  // the holder's: a record was left incomplete
}

// New returns the output that writes to w, which is used by nothing else.
//
// When w is os.Stdout the program must ignore SIGPIPE (signal.Ignore), or the Go
// runtime ends it at the first write to a closed pipe, before ErrGone can be
// returned.
func New(w io.Writer) *Output {
	o := &Output{w: w, turn: make(chan struct{}, 1)}
	o.turn <- struct{}{}
	return o
}

// Open implements sink.Output. Standard output needs no state.
func (o *Output) Open(context.Context, string, json.RawMessage) (sink.Sink, error) {
	return &stream{out: o}, nil
}

// Close implements sink.Output. The writer stays open; it is not ours.
func (o *Output) Close() error { return nil }

// stream is one stream's share of an Output. It is a sink.Sink.
type stream struct {
	out *Output

	// While a batch is under way. A write cannot be called back: when the
	// context ends first, the stream keeps the turn, and the next call goes on
	// where this one stopped.
	holds  bool
	sent   int          // bytes of the batch that are out
	whole  bool         // they end with a record
	result chan written // of the write that is under way; nil when there is none
	size   int          // its bytes
	ends   bool         // they end with a record
}

type written struct {
	n   int
	err error
}

// Write implements sink.Sink.
func (s *stream) Write(ctx context.Context, b sink.Batch) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	for s.sent < len(b.Data) {
		if s.result == nil {
			s.start(b)
		}
		select {
		case r := <-s.result:
			if err := s.done(r); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("write to standard output: %w", ctx.Err())
		}
	}
	s.give()
	return nil
}

// start begins to write what comes next of the batch.
func (s *stream) start(b sink.Batch) {
	end, whole := s.next(b)
	s.out.chunk = append(s.out.chunk[:0], b.Data[s.sent:end]...)
	result := make(chan written, 1)
	go func() {
		n, err := s.out.w.Write(s.out.chunk)
		result <- written{n: n, err: err}
	}()
	s.result, s.size, s.ends = result, end-s.sent, whole
}

// next returns where the next write ends, and whether a record ends there: as
// many records as fit in a chunk, or a piece of one that does not.
func (s *stream) next(b sink.Batch) (end int, whole bool) {
	limit := s.sent + chunkBytes
	if len(b.Data) <= limit {
		return len(b.Data), true
	}
	i, _ := slices.BinarySearchFunc(b.Records, limit+1, func(r sink.Record, end int) int { return r.End - end })
	if i > 0 && b.Records[i-1].End > s.sent {
		return b.Records[i-1].End, true
	}
	return limit, false
}

// done takes note of how far a write came.
func (s *stream) done(r written) error {
	s.result = nil
	s.sent += r.n
	if r.n > 0 {
		s.whole = s.ends && r.n == s.size
	}
	switch {
	case errors.Is(r.err, syscall.EPIPE), errors.Is(r.err, io.ErrClosedPipe):
		return fmt.Errorf("%w: write to standard output: %w", sink.ErrGone, r.err)
	case r.err != nil:
		return fmt.Errorf("write to standard output: %w", r.err)
	}
	return nil
}

// take waits for the turn, unless an earlier call has kept it.
func (s *stream) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.holds {
		return nil
	}
	select {
	case <-s.out.turn:
		s.holds, s.sent, s.whole = true, 0, true
	case <-ctx.Done():
		return ctx.Err()
	}
	cut := s.out.cut
	if cut != nil {
		s.give()
	}
	return cut
}

func (s *stream) give() {
	s.holds = false
	s.out.turn <- struct{}{}
}

// Flush implements sink.Sink. What is written is out already.
func (s *stream) Flush(ctx context.Context, _ bool) (sink.Flushed, error) {
	return sink.Flushed{}, ctx.Err()
}

// Committed implements sink.Sink.
func (s *stream) Committed(context.Context) error { return nil }

// Close implements sink.Sink. A stream that is closed in the middle of a batch
// passes the turn on when its last write has returned. If that leaves a record
// incomplete, the output is spoilt for all streams.
func (s *stream) Close() error {
	switch {
	case !s.holds:
	case s.result == nil:
		s.leave()
	default:
		go func() {
			_ = s.done(<-s.result) // nobody is left to tell
			s.leave()
		}()
	}
	return nil
}

func (s *stream) leave() {
	if !s.whole {
		s.out.cut = fmt.Errorf("%w: standard output ends in the middle of a record of a stream that was closed", sink.ErrFailed)
	}
	s.give()
}
