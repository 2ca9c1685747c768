package sinktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// recoveryTimeout bounds the recovery of a destination after an outage, and calls that must not wait for the
// destination.
const recoveryTimeout = 30 * time.Second

// tester is a *testing.T or, for one of many random sequences, a *rapid.T.
type tester interface {
	rapid.TB
	Context() context.Context
	Cleanup(func())
}

// process represents the consecutive processes of a parser over one target, and their disk.
type process struct {
	t         tester
	target    Target
	output    sink.Output
	streams   map[string]*stream
	names     map[string]bool // of all streams that were ever on the target
	suffix    string          // appended to this process's stream names
	gone      []interface{ Close() error }
	recreated bool // the destination was recreated since the process started
}

func newProcess(t tester, target Target) *process {
	return &process{t: t, target: target, streams: map[string]*stream{}, names: map[string]bool{}}
}

func (p *process) start() {
	p.t.Helper()
	output, err := p.target.Open()
	if err != nil {
		p.t.Fatalf("opening the output: %v", err)
	}
	p.output, p.recreated = output, false
}

// recreate recreates the destination. Committed records are lost with the old one.
func (p *process) recreate() {
	p.t.Helper()
	if err := p.target.Recreate(); err != nil {
		p.t.Fatalf("recreating the destination: %v", err)
	}
	p.recreated = true
	for _, s := range p.streams {
		s.floor = s.saved
	}
}

// mayReopen reports whether a sink may return ErrReopen.
func (p *process) mayReopen() bool { return p.target.Reopens || p.recreated }

// stream opens a stream as the engine does: from its checkpoint, with a commit before the first record.
func (p *process) stream(name string) *stream {
	p.t.Helper()
	s := p.opened(name)
	s.mustCommit()
	return s
}

// opened is like stream, without the commit.
func (p *process) opened(name string) *stream {
	p.t.Helper()
	name += p.suffix
	s := p.streams[name]
	if s == nil {
		s = &stream{p: p, name: name, size: func(int) int { return 0 }}
		s.layout = ordinary(s)
		p.streams[name], p.names[name] = s, true
	}
	s.open()
	return s
}

// crash ends the process abruptly and starts another.
func (p *process) crash() {
	p.t.Helper()
	if p.target.Crash != nil {
		p.target.Crash()
	}
	p.abandon()
	p.start()
}

// abandon forgets the open sinks and the output. They are closed at the end of the case, when that has no effect any
// more.
func (p *process) abandon() {
	for _, s := range p.streams {
		if s.sink != nil {
			p.gone = append(p.gone, s.sink)
			s.sink = nil
		}
	}
	if p.output != nil {
		p.gone = append(p.gone, p.output)
		p.output = nil
	}
}

// end closes what is still open, in whatever state it is.
func (p *process) end() {
	p.target.Outage(false)
	if p.target.Block != nil {
		p.target.Block(false)
	}
	p.abandon()
	for _, c := range p.gone {
		_ = c.Close()
	}
	p.gone = nil
}

// restart stops the process in an orderly way and starts another.
func (p *process) restart() {
	p.t.Helper()
	for _, s := range p.streams {
		s.close()
	}
	if err := p.output.Close(); err != nil {
		p.t.Fatalf("closing the output: %v", err)
	}
	p.start()
}

// stream drives one sink as the engine does. Its records are numbered from 0.
type stream struct {
	p    *process
	name string
	sink sink.Sink

	next     int // the number of the next record to write
	retry    int // records from next on that were in the last failed Write
	goal     int // the end of the records that a Write may have started to deliver; all of them must be delivered
	saved    int // the value of next in the checkpoint
	floor    int // records before it were lost with an earlier destination
	state    json.RawMessage
	notified bool  // Committed has returned nil for state
	count    int64 // Delivered, summed over the sinks that this process has closed

	layout    layout
	size      func(n int) int // extra bytes of record n
	padding   []byte          // as long as the largest extra so far
	mayRefuse func(n int) bool
	refused   map[int]bool
}

func (s *stream) pad(size int) { s.size = func(int) int { return size } }

// open opens the sink from the checkpoint. It waits for the destination if necessary.
func (s *stream) open() {
	s.p.t.Helper()
	s.retryUntil("opening the sink", func(ctx context.Context) error { return s.tryOpen(ctx) })
}

func (s *stream) tryOpen(ctx context.Context) error {
	opened, err := s.p.output.Open(ctx, s.name, slices.Clone(s.state))
	if err != nil {
		return err
	}
	s.sink, s.next, s.retry, s.notified = opened, s.saved, 0, true
	return nil
}

// close closes the sink, which must not wait for the destination.
func (s *stream) close() {
	s.p.t.Helper()
	if s.sink == nil {
		return
	}
	s.count += s.sink.Delivered()
	closed := make(chan error, 1)
	go func() { closed <- s.sink.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			s.p.t.Fatalf("closing the sink of %s: %v", s.name, err)
		}
	case <-time.After(recoveryTimeout):
		s.p.t.Fatalf("closing the sink of %s waits for the destination", s.name)
	}
	s.sink = nil
}

// write gives n records to the sink and then overwrites their memory, as the engine does when it reuses it. After an
// error it retries the same batch first.
func (s *stream) write(ctx context.Context, n int) error {
	s.p.t.Helper()
	for n > 0 {
		count := s.retry
		if count == 0 {
			count = s.oneFile(n)
		}
		b := s.batch(s.next, count)
		s.retry = count
		if ctx.Err() == nil {
			s.goal = max(s.goal, s.next+count)
		}
		err := s.skipRefused(ctx, b, s.next)
		clear(b.Data)
		clear(b.Records)
		if err != nil {
			return err
		}
		s.retry, s.next, n = 0, s.next+count, n-count
	}
	return nil
}

// skipRefused writes a batch that starts with record number from, and skips refused records.
func (s *stream) skipRefused(ctx context.Context, b sink.Batch, from int) error {
	s.p.t.Helper()
	err := s.sink.Write(ctx, b)
	var refusal *sink.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	i := refusal.Index
	if i < 0 || i >= len(b.Records) || s.mayRefuse == nil || !s.mayRefuse(from+i) {
		s.p.t.Fatalf("record %d of a batch of %d was refused, but every sink must accept it: %v", i, len(b.Records), err)
	}
	if s.refused == nil {
		s.refused = map[int]bool{}
	}
	s.refused[from+i] = true
	if i > 0 {
		if err := s.skipRefused(ctx, b.Slice(0, i), from); err != nil {
			return err
		}
	}
	if i+1 < len(b.Records) {
		return s.skipRefused(ctx, b.Slice(i+1, len(b.Records)), from+i+1)
	}
	return nil
}

func (s *stream) mustWrite(n int) {
	s.p.t.Helper()
	if err := s.write(s.p.t.Context(), n); err != nil {
		s.p.t.Fatalf("writing %d records of %s: %v", n, s.name, err)
	}
}

// attempt is like write, for a destination that may be out: it reopens the sink if that is required. Its error is an
// outage.
func (s *stream) attempt(ctx context.Context, n int) error {
	s.p.t.Helper()
	if s.sink == nil {
		if err := s.tryOpen(ctx); err != nil {
			return err
		}
		if _, err := s.commit(false); err != nil {
			s.close()
			return err
		}
	}
	err := s.write(ctx, n)
	s.mayReopen(err)
	if err != nil {
		s.mustBeOutage(err)
	}
	return err
}

// mayReopen closes a sink that returned ErrReopen, if that is permitted, and reports whether it did.
func (s *stream) mayReopen(err error) (closed bool) {
	s.p.t.Helper()
	if !s.p.mayReopen() || !errors.Is(err, sink.ErrReopen) {
		return false
	}
	s.close()
	return true
}

// mustBeOutage checks that the engine would retry after err.
func (s *stream) mustBeOutage(err error) {
	s.p.t.Helper()
	var refusal *sink.Refusal
	switch {
	case err == nil:
		s.p.t.Fatalf("no error in an outage")
	case errors.Is(err, sink.ErrReopen) && s.p.mayReopen():
	case errors.Is(err, sink.ErrReopen), errors.Is(err, sink.ErrFailed), errors.Is(err, sink.ErrGone),
		errors.As(err, &refusal):
		s.p.t.Fatalf("an outage is reported as another kind of error: %v", err)
	}
}

// retryUntil retries a call until it succeeds, as the engine does. It reports whether the sink was closed instead,
// because it returned ErrReopen.
func (s *stream) retryUntil(op string, call func(context.Context) error) (closed bool) {
	s.p.t.Helper()
	ctx, cancel := context.WithTimeout(s.p.t.Context(), recoveryTimeout)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := call(ctx)
		switch {
		case err == nil:
			return false
		case s.mayReopen(err):
			return true
		case ctx.Err() != nil:
			s.p.t.Fatalf("%s of %s: still fails %v after the outage: %v", op, s.name, recoveryTimeout, err)
		}
		s.mustBeOutage(err)
		time.Sleep(pause)
	}
}

// deliver writes n records to a destination after an outage.
func (s *stream) deliver(n int) {
	s.p.t.Helper()
	goal := s.next + n
	for opened := 0; s.sink == nil || s.next < goal; {
		if s.sink == nil {
			if opened++; opened > 100 {
				s.p.t.Fatalf("the sink of %s returns ErrReopen endlessly", s.name)
			}
			s.open()
			s.commitAfterOutage(false)
			continue
		}
		s.retryUntil("writing", func(ctx context.Context) error { return s.write(ctx, goal-s.next) })
	}
}

// commitAfterOutage makes a commit after an outage.
func (s *stream) commitAfterOutage(final bool) (changed, closed bool) {
	s.p.t.Helper()
	var f sink.Flushed
	if !s.notified && s.retryUntil("completing the previous commit", s.committed) {
		return false, true
	}
	if s.retryUntil("flushing", func(ctx context.Context) (err error) { f, err = s.sink.Flush(ctx, final); return err }) {
		return false, true
	}
	if f.Sync != nil && s.retryUntil("syncing", f.Sync) {
		return false, true
	}
	if bytes.Equal(f.State, s.state) && s.next == s.saved {
		return false, false
	}
	s.save(f.State, s.next)
	return true, s.retryUntil("completing the commit", s.committed)
}

// Flush flushes the sink and waits until everything acknowledged is durable, as the engine does when it stops.
func Flush(ctx context.Context, s sink.Sink, final bool) (state json.RawMessage, err error) {
	f, err := s.Flush(ctx, final)
	if err == nil && f.Sync != nil {
		err = f.Sync(ctx)
	}
	return f.State, err
}

// flush and save are the first two steps of a commit; committed is the third.
func (s *stream) flush(final bool) (json.RawMessage, error) {
	state, err := Flush(s.p.t.Context(), s.sink, final)
	return slices.Clone(state), err
}

// save simulates the checkpoint. next is the first record that it does not cover.
func (s *stream) save(state json.RawMessage, next int) {
	s.p.t.Helper()
	if state != nil && !json.Valid(state) {
		s.p.t.Fatalf("the state is not JSON: %q", state)
	}
	s.state, s.saved, s.notified = slices.Clone(state), next, false
}

// committed is the third step of a commit.
func (s *stream) committed(ctx context.Context) error {
	err := s.sink.Committed(ctx)
	s.notified = err == nil
	return err
}

func (s *stream) commit(final bool) (changed bool, err error) {
	s.p.t.Helper()
	state, err := s.flush(final)
	if err != nil {
		return false, err
	}
	if bytes.Equal(state, s.state) && s.next == s.saved {
		return false, nil
	}
	s.save(state, s.next)
	return true, s.committed(s.p.t.Context())
}

func (s *stream) mustCommit() {
	s.p.t.Helper()
	if _, err := s.commit(false); err != nil {
		s.p.t.Fatalf("committing %s: %v", s.name, err)
	}
}

// finish delivers the remaining records, closes the stream, and compares what consumers received.
func (s *stream) finish() {
	s.p.t.Helper()
	s.end()
	s.close()
	s.compare()
}

// end delivers the remaining records and makes a last commit.
func (s *stream) end() {
	s.p.t.Helper()
	for range 20 {
		s.deliver(s.goal - s.next)
		if changed, closed := s.commitAfterOutage(true); !changed && !closed {
			return
		}
	}
	s.p.t.Fatalf("the state of %s never becomes stable", s.name)
}
