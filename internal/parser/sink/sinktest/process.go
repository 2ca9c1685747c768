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

// patience is how long a destination may need to be there again after an outage,
// and how long a call may take that should not wait for anything.
const patience = 30 * time.Second

// tester is a *testing.T or, for one of many sequences, a *rapid.T.
type tester interface {
	rapid.TB
	Context() context.Context
	Cleanup(func())
}

// process is one parser after another, over one target, and what is on its disk.
type process struct {
	t       tester
	target  Target
	output  sink.Output
	streams map[string]*stream
	names   map[string]bool // of all streams that ever were on the target
	suffix  string          // of this process's names
	gone    []interface{ Close() error }
}

func newProcess(t tester, target Target) *process {
	return &process{t: t, target: target, streams: map[string]*stream{}, names: map[string]bool{}}
}

func (p *process) start() {
	p.t.Helper()
	output, err := p.target.Open()
	if err != nil {
		p.t.Fatalf("open the output: %v", err)
	}
	p.output = output
}

// stream opens a stream as the engine does: from its checkpoint, and with a
// commit before the first record.
func (p *process) stream(name string) *stream {
	p.t.Helper()
	s := p.opened(name)
	s.mustCommit()
	return s
}

// opened is stream without the commit.
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

// crash ends the process, which has no time to say anything, and starts another.
func (p *process) crash() {
	p.t.Helper()
	if p.target.Crash != nil {
		p.target.Crash()
	}
	p.letGo()
	p.start()
}

// letGo forgets what is open. It is closed at the end of the case, when that can
// do no harm any more.
func (p *process) letGo() {
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

// end closes what is still open, whatever state it is in.
func (p *process) end() {
	p.target.Outage(false)
	if p.target.Block != nil {
		p.target.Block(false)
	}
	p.letGo()
	for _, c := range p.gone {
		_ = c.Close()
	}
	p.gone = nil
}

// restart stops and starts in good order.
func (p *process) restart() {
	p.t.Helper()
	for _, s := range p.streams {
		s.close()
	}
	if err := p.output.Close(); err != nil {
		p.t.Fatalf("close the output: %v", err)
	}
	p.start()
}

// stream drives one sink as the engine does. Its records are numbered.
type stream struct {
	p    *process
	name string
	sink sink.Sink

	next  int // the record that is written next
	again int // so many records from next on were given to a Write that failed
	goal  int // what must have been delivered in the end: all that a Write may have begun to deliver
	saved int // the next record according to the checkpoint
	state json.RawMessage
	told  bool // the sink knows that state is on disk

	layout    layout
	size      func(n int) int // bytes added to record n
	padding   []byte          // as long as was needed
	mayRefuse func(n int) bool
	refused   map[int]bool
}

func (s *stream) pad(size int) { s.size = func(int) int { return size } }

// open opens the sink from the checkpoint, and waits for the destination if need be.
func (s *stream) open() {
	s.p.t.Helper()
	s.persist("open the sink", func(ctx context.Context) error { return s.tryOpen(ctx) })
}

func (s *stream) tryOpen(ctx context.Context) error {
	opened, err := s.p.output.Open(ctx, s.name, slices.Clone(s.state))
	if err != nil {
		return err
	}
	s.sink, s.next, s.again, s.told = opened, s.saved, 0, true
	return nil
}

// close closes the sink, which must not wait for the destination.
func (s *stream) close() {
	s.p.t.Helper()
	if s.sink == nil {
		return
	}
	closed := make(chan error, 1)
	go func() { closed <- s.sink.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			s.p.t.Fatalf("close the sink of %s: %v", s.name, err)
		}
	case <-time.After(patience):
		s.p.t.Fatalf("closing the sink of %s waits for the destination", s.name)
	}
	s.sink = nil
}

// write gives n records to the sink and then spoils the memory that they were
// in, as the engine does when it uses it again. After an error the same batch
// comes first.
func (s *stream) write(ctx context.Context, n int) error {
	s.p.t.Helper()
	for n > 0 {
		count := s.again
		if count == 0 {
			count = s.oneFile(n)
		}
		b := s.batch(s.next, count)
		s.again = count
		if ctx.Err() == nil {
			s.goal = max(s.goal, s.next+count)
		}
		err := s.give(ctx, b, s.next)
		clear(b.Data)
		clear(b.Records)
		if err != nil {
			return err
		}
		s.again, s.next, n = 0, s.next+count, n-count
	}
	return nil
}

// give writes a batch, of which the first record has the number from, and goes
// around a record that is refused.
func (s *stream) give(ctx context.Context, b sink.Batch, from int) error {
	s.p.t.Helper()
	err := s.sink.Write(ctx, b)
	var refusal *sink.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	i := refusal.Index
	if i < 0 || i >= len(b.Records) || s.mayRefuse == nil || !s.mayRefuse(from+i) {
		s.p.t.Fatalf("record %d of a batch of %d was refused, which any sink must take: %v", i, len(b.Records), err)
	}
	if s.refused == nil {
		s.refused = map[int]bool{}
	}
	s.refused[from+i] = true
	if i > 0 {
		if err := s.give(ctx, b.Slice(0, i), from); err != nil {
			return err
		}
	}
	if i+1 < len(b.Records) {
		return s.give(ctx, b.Slice(i+1, len(b.Records)), from+i+1)
	}
	return nil
}

func (s *stream) mustWrite(n int) {
	s.p.t.Helper()
	if err := s.write(s.p.t.Context(), n); err != nil {
		s.p.t.Fatalf("write %d records of %s: %v", n, s.name, err)
	}
}

// attempt is write for a destination that may be out: it opens the sink again
// where that was asked for. Its error is an outage.
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

// mayReopen closes a sink that asks for it, if it may.
func (s *stream) mayReopen(err error) (closed bool) {
	s.p.t.Helper()
	if !s.p.target.Reopens || !errors.Is(err, sink.ErrReopen) {
		return false
	}
	s.close()
	return true
}

// mustBeOutage checks that the engine would try again.
func (s *stream) mustBeOutage(err error) {
	s.p.t.Helper()
	var refusal *sink.Refusal
	switch {
	case err == nil:
		s.p.t.Fatalf("no error in an outage")
	case errors.Is(err, sink.ErrReopen) && s.p.target.Reopens:
	case errors.Is(err, sink.ErrReopen), errors.Is(err, sink.ErrFailed), errors.Is(err, sink.ErrGone), errors.As(err, &refusal):
		s.p.t.Fatalf("an outage is taken for something else: %v", err)
	}
}

// persist makes a call until it succeeds, as the engine does. It tells whether
// the sink was closed instead, since it asks to be opened again.
func (s *stream) persist(doing string, call func(context.Context) error) (closed bool) {
	s.p.t.Helper()
	ctx, cancel := context.WithTimeout(s.p.t.Context(), patience)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := call(ctx)
		switch {
		case err == nil:
			return false
		case s.mayReopen(err):
			return true
		case ctx.Err() != nil:
			s.p.t.Fatalf("%s of %s: for %v the destination has been there again, and this still fails: %v", doing, s.name, patience, err)
		}
		s.mustBeOutage(err)
		time.Sleep(pause)
	}
}

// deliver writes n records to a destination that is there again after an outage.
func (s *stream) deliver(n int) {
	s.p.t.Helper()
	goal := s.next + n
	for opened := 0; s.sink == nil || s.next < goal; {
		if s.sink == nil {
			if opened++; opened > 100 {
				s.p.t.Fatalf("the sink of %s asks to be opened again without end", s.name)
			}
			s.open()
			s.settle(false)
			continue
		}
		s.persist("write", func(ctx context.Context) error { return s.write(ctx, goal-s.next) })
	}
}

// settle is a commit where the destination is there again after an outage.
func (s *stream) settle(final bool) (changed, closed bool) {
	s.p.t.Helper()
	var f sink.Flushed
	if !s.told && s.persist("complete the commit before", s.committed) {
		return false, true
	}
	if s.persist("flush", func(ctx context.Context) (err error) { f, err = s.sink.Flush(ctx, final); return err }) {
		return false, true
	}
	if f.Sync != nil && s.persist("sync", f.Sync) {
		return false, true
	}
	if bytes.Equal(f.State, s.state) && s.next == s.saved {
		return false, false
	}
	s.save(f.State, s.next)
	return true, s.persist("complete the commit", s.committed)
}

// Flush draws the line for a commit and waits until what is before it is durable, as the engine does when it stops.
func Flush(ctx context.Context, s sink.Sink, final bool) (state json.RawMessage, err error) {
	f, err := s.Flush(ctx, final)
	if err == nil && f.Sync != nil {
		err = f.Sync(ctx)
	}
	return f.State, err
}

// flush and save are the first two steps of a commit; Committed is the third.
func (s *stream) flush(final bool) (json.RawMessage, error) {
	state, err := Flush(s.p.t.Context(), s.sink, final)
	return slices.Clone(state), err
}

// save is what the checkpoint does: next is the first record that it does not cover.
func (s *stream) save(state json.RawMessage, next int) {
	s.p.t.Helper()
	if state != nil && !json.Valid(state) {
		s.p.t.Fatalf("the state is not JSON: %q", state)
	}
	s.state, s.saved, s.told = slices.Clone(state), next, false
}

// committed is the third step of a commit.
func (s *stream) committed(ctx context.Context) error {
	err := s.sink.Committed(ctx)
	s.told = err == nil
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
		s.p.t.Fatalf("commit %s: %v", s.name, err)
	}
}

// finish delivers what is left, ends the stream for good, and compares what
// consumers were given.
func (s *stream) finish() {
	s.p.t.Helper()
	for range 20 {
		s.deliver(s.goal - s.next)
		changed, closed := s.settle(true)
		if !changed && !closed {
			s.close()
			s.compare()
			return
		}
	}
	s.p.t.Fatalf("the state of %s never stays the same", s.name)
}
