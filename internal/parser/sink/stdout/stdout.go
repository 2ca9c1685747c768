// Package stdout implements the sink that writes records to the standard output of the process, for pipes and for
// manual inspection.
//
// A record is acknowledged when its write has returned. Whether its reader has processed it is unknown, so delivery is
// at least once. The streams of a process share the output, and records are never interleaved. Only records are written
// to it: logs go to standard error.
package stdout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// chunkBytes is the maximum number of bytes of one write. A pipe holds 64 KiB; larger writes save system calls when the
// output is a file.
const chunkBytes = 256 << 10

const (
	// pollTimeout bounds one poll of a non-blocking output for writability.
	pollTimeout = time.Second
	// retryPause is the pause before another write to a non-blocking output that has no descriptor to poll.
	retryPause = 5 * time.Millisecond
)

// Output is a sink.Output over one writer. A single token passes between the streams, so records are never interleaved.
type Output struct {
	w     io.Writer
	token chan struct{}

	// Owned by the token's holder.
	chunk  []byte // a copy of the bytes in the current write, which may outlive the call of Write
	broken error  // non-nil once a record was left incomplete
}

// New returns an output that writes to w. Nothing else may write to w.
//
// If w is os.Stdout, the program must ignore SIGPIPE (signal.Ignore). Otherwise the Go runtime ends the process at the
// first write to a closed pipe, before ErrGone can be returned.
func New(w io.Writer) *Output {
	o := &Output{w: w, token: make(chan struct{}, 1)}
	o.token <- struct{}{}
	return o
}

// Open implements sink.Output. Standard output keeps no state.
func (o *Output) Open(context.Context, string, json.RawMessage) (sink.Sink, error) {
	return &stream{out: o}, nil
}

// Close implements sink.Output. The writer stays open, because the caller owns it.
func (o *Output) Close() error { return nil }

// stream is the sink.Sink of one stream.
type stream struct {
	out       *Output
	delivered atomic.Int64 // records written completely

	// State of the current batch. A write in progress cannot be cancelled: if the context ends first, the stream keeps
	// the token, and the next call continues where this one stopped.
	hasToken    bool
	sent        int          // bytes of the batch that are written
	atRecordEnd bool         // whether those bytes end with a record
	result      chan written // of the write in progress; nil if there is none
	size        int          // bytes of the write in progress
	endsRecord  bool         // whether that write ends with a record
}

type written struct {
	n   int
	err error
}

// Write implements sink.Sink.
func (s *stream) Write(ctx context.Context, b sink.Batch) error {
	if err := s.acquire(ctx); err != nil {
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
			return fmt.Errorf("writing to standard output: %w", ctx.Err())
		}
	}
	s.release()
	return nil
}

// start begins the next write of the batch.
func (s *stream) start(b sink.Batch) {
	end, whole := s.next(b)
	s.out.chunk = append(s.out.chunk[:0], b.Data[s.sent:end]...)
	result := make(chan written, 1)
	go func() {
		n, err := s.out.write()
		result <- written{n: n, err: err}
	}()
	s.result, s.size, s.endsRecord = result, end-s.sent, whole
}

// write writes the chunk. If another process has made the output non-blocking and it accepts no more bytes, write waits
// as it would for a blocking output: the reader is slow, and this is not an outage.
func (o *Output) write() (n int, err error) {
	for {
		m, err := o.w.Write(o.chunk[n:])
		n += m
		if !errors.Is(err, syscall.EAGAIN) {
			return n, err
		}
		if err := o.await(); err != nil {
			return n, fmt.Errorf("waiting for its reader: %w", err)
		}
	}
}

// await returns when the output may accept more bytes.
func (o *Output) await() error {
	file, ok := o.w.(syscall.Conn)
	if !ok {
		time.Sleep(retryPause)
		return nil
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var polled error
	if err := raw.Control(func(fd uintptr) {
		_, polled = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(pollTimeout.Milliseconds()))
	}); err != nil {
		return err
	}
	if errors.Is(polled, syscall.EINTR) {
		return nil
	}
	return polled
}

// next returns the end of the next write and reports whether a record ends there. A write holds as many records as fit
// in a chunk, or a piece of a record that does not fit.
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

// done records the result of a write.
func (s *stream) done(r written) error {
	s.result = nil
	s.sent += r.n
	s.delivered.Add(int64(bytes.Count(s.out.chunk[:r.n], []byte("\n"))))
	if r.n > 0 {
		s.atRecordEnd = s.endsRecord && r.n == s.size
	}
	switch {
	case errors.Is(r.err, syscall.EPIPE), errors.Is(r.err, io.ErrClosedPipe):
		return fmt.Errorf("%w: writing to standard output: %w", sink.ErrGone, r.err)
	case r.err != nil:
		return fmt.Errorf("writing to standard output: %w", r.err)
	}
	return nil
}

// acquire waits for the token, unless an earlier call has kept it.
func (s *stream) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.hasToken {
		return nil
	}
	select {
	case <-s.out.token:
		s.hasToken, s.sent, s.atRecordEnd = true, 0, true
	case <-ctx.Done():
		return ctx.Err()
	}
	broken := s.out.broken
	if broken != nil {
		s.release()
	}
	return broken
}

func (s *stream) release() {
	s.hasToken = false
	s.out.token <- struct{}{}
}

// Flush implements sink.Sink. Acknowledged records are already written.
func (s *stream) Flush(ctx context.Context, _ bool) (sink.Flushed, error) {
	return sink.Flushed{}, ctx.Err()
}

// Committed implements sink.Sink.
func (s *stream) Committed(context.Context) error { return nil }

// Delivered implements sink.Sink.
func (s *stream) Delivered() int64 { return s.delivered.Load() }

// Close implements sink.Sink. A stream that is closed in the middle of a batch passes the token on when its last write
// has returned. If a record is left incomplete, the output fails for all streams.
func (s *stream) Close() error {
	switch {
	case !s.hasToken:
	case s.result == nil:
		s.abandon()
	default:
		go func() {
			_ = s.done(<-s.result) // the sink is closed, so no caller can receive the error
			s.abandon()
		}()
	}
	return nil
}

func (s *stream) abandon() {
	if !s.atRecordEnd {
		s.out.broken = fmt.Errorf("%w: standard output ends in the middle of a record of a stream that was closed",
			sink.ErrFailed)
	}
	s.release()
}
