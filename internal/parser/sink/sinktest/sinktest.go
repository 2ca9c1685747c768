// Package sinktest is the suite of tests that every sink passes. A sink's folder
// holds one test that calls Run with a Target; no sink is exempt from a case,
// unless its destination cannot be brought into the situation.
package sinktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// Target is a destination made for one case, and the suite's hands on it.
type Target struct {
	// Open opens the output, as a new process does. The one before was closed,
	// or ended by Crash.
	Open func() (sink.Output, error)

	// Crash ends the process as kill -9 does: nothing it opened works any more.
	// nil if the suite need only let go of it.
	Crash func()

	// Received returns the bytes that a stream's consumers were given, in order.
	// Records of other streams among them are left out by the suite.
	Received func(stream string) ([]byte, error)

	// Outage makes the destination refuse everything, or ends that.
	Outage func(on bool)

	// Block makes the destination accept nothing and answer nothing, or ends
	// that. nil if it cannot be.
	Block func(on bool)

	// ExactlyOnce says that consumers get no record twice even over a crash.
	ExactlyOnce bool
}

// Run runs the suite, each case against a new target.
func Run(t *testing.T, target func(t *testing.T) Target) {
	cases := []struct {
		name string
		run  func(*testing.T, *process)
	}{
		{"records come out whole, in order and once", inOrder},
		{"a stream without records is nothing to a consumer", nothingWritten},
		{"a flush with nothing new returns the same state", flushAgain},
		{"records are written beside a sync", besideSync},
		{"a flush makes up for a sync that never came", syncLeftOut},
		{"committed may be told twice", committedTwice},
		{"a batch that met an outage is written again", outage},
		{"an outage in a flush or commit is tried again", outageInCommit},
		{"a batch given up in an outage is sent after a restart", givenUp},
		{"a write whose context has ended writes nothing", cancelled},
		{"a context ends a write that the destination blocks", blocked},
		{"a stream closed while it is blocked does not spoil another", closedWhileBlocked},
		{"a restart goes on where the last one stopped", restart},
		{"what a crash left uncommitted is sent again", crashBeforeSave},
		{"a crash between a checkpoint and its commit", crashBeforeCommitted},
		{"a record of 20 MB", hugeRecord},
		{"streams share the output and are not mixed", manyStreams},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := &process{t: t, target: target(t), streams: map[string]*stream{}}
			p.start()
			c.run(t, p)
		})
	}
}

// process is one parser after another, over one target, and what is on its disk.
type process struct {
	t       *testing.T
	target  Target
	output  sink.Output
	streams map[string]*stream
}

// stream drives one sink as the engine does. Its records are numbered.
type stream struct {
	p    *process
	name string
	sink sink.Sink

	next  int // the record that is written next
	saved int // the next record according to the checkpoint
	state json.RawMessage
	pad   int // bytes added to each record
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
	s := p.streams[name]
	if s == nil {
		s = &stream{p: p, name: name}
		p.streams[name] = s
	}
	opened, err := p.output.Open(p.t.Context(), name, s.state)
	if err != nil {
		p.t.Fatalf("open the sink of %s: %v", name, err)
	}
	s.sink, s.next = opened, s.saved
	s.mustCommit()
	return s
}

func (p *process) crash() {
	if p.target.Crash != nil {
		p.target.Crash()
	}
	p.start()
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

func (s *stream) close() {
	s.p.t.Helper()
	if err := s.sink.Close(); err != nil {
		s.p.t.Fatalf("close the sink of %s: %v", s.name, err)
	}
}

// text is record n; with its newline it is what a consumer reads.
func (s *stream) text(n int) []byte {
	head := fmt.Appendf(nil, `{"stream":%q,"n":%d,"pad":"`, s.name, n)
	return append(append(head, bytes.Repeat([]byte("x"), s.pad)...), '"', '}', '\n')
}

var recordHead = regexp.MustCompile(`^\{"stream":"([^"]+)","n":(\d+),"pad":"`)

// batch returns the next n records, without moving on.
func (s *stream) batch(n int) sink.Batch {
	b := sink.Batch{File: checkpoint.FileID{Directory: "node_fills", Date: "20260430", Hour: 8, Generation: "1a2b3c4d"}}
	for i := s.next; i < s.next+n; i++ {
		b.Data = append(b.Data, s.text(i)...)
		b.Records = append(b.Records, sink.Record{End: len(b.Data), Offset: int64(i) * 100})
	}
	return b
}

// write gives n records to the sink and then spoils the memory that they were
// in, as the engine does when it uses it again.
func (s *stream) write(ctx context.Context, n int) error {
	b := s.batch(n)
	err := s.sink.Write(ctx, b)
	clear(b.Data)
	clear(b.Records)
	if err == nil {
		s.next += n
	}
	return err
}

func (s *stream) mustWrite(n int) {
	s.p.t.Helper()
	if err := s.write(s.p.t.Context(), n); err != nil {
		s.p.t.Fatalf("write %d records of %s: %v", n, s.name, err)
	}
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
	if err == nil && state != nil && !json.Valid(state) {
		s.p.t.Fatalf("the state is not JSON: %q", state)
	}
	return slices.Clone(state), err
}

func (s *stream) save(state json.RawMessage) { s.state, s.saved = state, s.next }

func (s *stream) commit(final bool) (changed bool, err error) {
	state, err := s.flush(final)
	if err != nil {
		return false, err
	}
	changed = !bytes.Equal(state, s.state) || s.next != s.saved
	if !changed {
		return false, nil
	}
	s.save(state)
	return true, s.sink.Committed(s.p.t.Context())
}

func (s *stream) mustCommit() {
	s.p.t.Helper()
	if _, err := s.commit(false); err != nil {
		s.p.t.Fatalf("commit %s: %v", s.name, err)
	}
}

// finish ends the stream for good, and compares what consumers were given.
func (s *stream) finish() {
	s.p.t.Helper()
	for range 10 {
		changed, err := s.commit(true)
		if err != nil {
			s.p.t.Fatalf("commit %s: %v", s.name, err)
		}
		if !changed {
			s.close()
			s.compare()
			return
		}
	}
	s.p.t.Fatalf("the state of %s never stays the same", s.name)
}

// compare checks that consumers were given the records 0 to next-1 in order;
// each once, or, if the sink is not exactly once, with repeats.
func (s *stream) compare() {
	s.p.t.Helper()
	data, err := s.p.target.Received(s.name)
	if err != nil {
		s.p.t.Fatalf("read what %s delivered: %v", s.name, err)
	}
	want := 0
	for line := range bytes.Lines(data) {
		head := recordHead.FindSubmatch(line)
		if head == nil {
			s.p.t.Fatalf("a consumer of %s was given %.80q, which is no record", s.name, line)
		}
		if string(head[1]) != s.name {
			continue
		}
		n, err := strconv.Atoi(string(head[2]))
		if err != nil || !bytes.Equal(line, s.text(n)) {
			s.p.t.Fatalf("a consumer of %s was given %.80q…, which is no whole record", s.name, line)
		}
		switch {
		case n < want && !s.p.target.ExactlyOnce:
		case n != want:
			s.p.t.Fatalf("a consumer of %s was given record %d, want %d", s.name, n, want)
		default:
			want++
		}
	}
	if want != s.next {
		s.p.t.Fatalf("a consumer of %s was given %d records, want %d", s.name, want, s.next)
	}
}

func inOrder(_ *testing.T, p *process) {
	s := p.stream("fills")
	for _, n := range []int{1, 2, 500, 1, 30} {
		s.mustWrite(n)
		s.mustWrite(n)
		s.mustCommit()
	}
	s.mustWrite(3)
	s.finish()
}

func nothingWritten(_ *testing.T, p *process) {
	s := p.stream("fills")
	s.mustCommit()
	s.finish()
}

func flushAgain(t *testing.T, p *process) {
	s := p.stream("fills")
	s.mustWrite(5)
	s.mustCommit()
	for range 10 {
		if changed, err := s.commit(false); err != nil {
			t.Fatal(err)
		} else if !changed {
			s.finish()
			return
		}
	}
	t.Fatal("the state never stays the same")
}

// besideSync writes while a commit is carried out, then loses what came after its line.
func besideSync(t *testing.T, p *process) {
	s := p.stream("fills")
	for range 20 {
		s.mustWrite(7)
		f, err := s.sink.Flush(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		line := s.next
		synced := make(chan error, 1)
		go func() {
			if f.Sync == nil {
				synced <- nil
				return
			}
			synced <- f.Sync(t.Context())
		}()
		s.mustWrite(3)
		s.mustWrite(20)
		if err := <-synced; err != nil {
			t.Fatal(err)
		}
		s.state, s.saved = slices.Clone(f.State), line
		s.mustWrite(2)
		if err := s.sink.Committed(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.mustWrite(1)
	}
	p.crash()
	s = p.stream("fills")
	s.mustWrite(30)
	s.finish()
}

// syncLeftOut gives up what a flush asked for, as an engine does that must stop.
func syncLeftOut(t *testing.T, p *process) {
	s := p.stream("fills")
	for range 3 {
		s.mustWrite(5)
		if _, err := s.sink.Flush(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	s.mustCommit()
	p.crash()
	s = p.stream("fills")
	s.finish()
}

func committedTwice(t *testing.T, p *process) {
	s := p.stream("fills")
	for range 3 {
		s.mustWrite(5)
		s.mustCommit()
		if err := s.sink.Committed(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.finish()
}

// mustBeOutage checks that the engine would try again.
func mustBeOutage(t *testing.T, err error) {
	t.Helper()
	var refusal *sink.Refusal
	switch {
	case err == nil:
		t.Fatal("no error in an outage")
	case errors.Is(err, sink.ErrReopen), errors.Is(err, sink.ErrFailed), errors.Is(err, sink.ErrGone), errors.As(err, &refusal):
		t.Fatalf("an outage is taken for something else: %v", err)
	}
}

func outage(t *testing.T, p *process) {
	s := p.stream("fills")
	s.mustWrite(10)
	p.target.Outage(true)
	for range 5 {
		mustBeOutage(t, s.write(t.Context(), 7))
	}
	p.target.Outage(false)
	s.mustWrite(7)
	s.mustWrite(7)
	s.finish()
}

func outageInCommit(t *testing.T, p *process) {
	s := p.stream("fills")
	s.mustWrite(10)
	p.target.Outage(true)
	for range 3 {
		_, err := s.commit(false)
		// A sync that fails may have lost data: starting again is right, too.
		if errors.Is(err, sink.ErrReopen) {
			p.target.Outage(false)
			p.restart()
			s = p.stream("fills")
			s.mustWrite(10)
			break
		}
		if err != nil {
			mustBeOutage(t, err)
		}
	}
	p.target.Outage(false)
	s.mustWrite(7)
	s.finish()
}

func givenUp(t *testing.T, p *process) {
	s := p.stream("fills")
	s.mustWrite(10)
	p.target.Outage(true)
	mustBeOutage(t, s.write(t.Context(), 7))
	p.target.Outage(false)
	s.mustCommit()
	p.restart()
	s = p.stream("fills")
	s.mustWrite(20)
	s.finish()
}

func cancelled(t *testing.T, p *process) {
	s := p.stream("fills")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.write(ctx, 3); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the context's error", err)
	}
	s.mustWrite(3)
	s.mustWrite(5)
	s.finish()
}

// blockedWrite writes until the destination takes no more and the context ends.
func blockedWrite(t *testing.T, s *stream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for {
		err := s.write(ctx, 100)
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatalf("got %v, want the context's error", err)
		}
	}
}

func blocked(t *testing.T, p *process) {
	if p.target.Block == nil {
		t.Skip("this destination cannot block")
	}
	s := p.stream("fills")
	s.pad = 10_000 // so that a batch does not fit into what the system buffers
	p.target.Block(true)
	blockedWrite(t, s)
	blockedWrite(t, s)
	p.target.Block(false)
	s.mustWrite(100)
	s.mustWrite(100)
	s.finish()
}

func closedWhileBlocked(t *testing.T, p *process) {
	if p.target.Block == nil {
		t.Skip("this destination cannot block")
	}
	s, other := p.stream("fills"), p.stream("trades")
	s.pad = 10_000
	other.mustWrite(10)
	p.target.Block(true)
	blockedWrite(t, s)
	s.close()
	p.target.Block(false)
	other.mustWrite(10)
	other.finish()
	s = p.stream("fills")
	s.mustWrite(200)
	s.finish()
}

func restart(_ *testing.T, p *process) {
	for range 5 {
		s := p.stream("fills")
		s.mustWrite(10)
		s.mustCommit()
		p.restart()
	}
	p.stream("fills").finish()
}

func crashBeforeSave(t *testing.T, p *process) {
	for flushed := range 2 {
		s := p.stream("fills")
		s.mustWrite(10)
		s.mustCommit()
		s.mustWrite(10)
		if flushed == 1 {
			if _, err := s.flush(false); err != nil {
				t.Fatal(err)
			}
		}
		p.crash()
	}
	s := p.stream("fills")
	s.mustWrite(40)
	s.finish()
}

func crashBeforeCommitted(t *testing.T, p *process) {
	for i := range 5 {
		s := p.stream("fills")
		s.mustWrite(10)
		state, err := s.flush(i == 4)
		if err != nil {
			t.Fatal(err)
		}
		s.save(state)
		p.crash()
	}
	p.stream("fills").finish()
}

func hugeRecord(_ *testing.T, p *process) {
	s := p.stream("fills")
	s.pad = 20_000_000
	s.mustWrite(1)
	s.mustWrite(1)
	s.finish()
}

func manyStreams(t *testing.T, p *process) {
	var wg sync.WaitGroup
	streams := make([]*stream, 4)
	for i := range streams {
		streams[i] = p.stream(fmt.Sprintf("stream-%d", i))
		streams[i].pad = i * 300
	}
	for _, s := range streams {
		wg.Go(func() {
			for i := range 20 {
				if err := s.write(t.Context(), 1+i*10); err != nil {
					t.Errorf("write to %s: %v", s.name, err)
				}
				if _, err := s.commit(false); err != nil {
					t.Errorf("commit %s: %v", s.name, err)
				}
			}
		})
	}
	wg.Wait()
	for _, s := range streams {
		s.finish()
	}
}
