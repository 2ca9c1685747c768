package sinktest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// untilRefused writes batches of n records until the outage is noticed, which it
// must be as soon as the sink keeps no more to itself than it may.
func (s *stream) untilRefused(n int) {
	s.p.t.Helper()
	ctx, cancel := context.WithTimeout(s.p.t.Context(), patience)
	defer cancel()
	for kept := 0; ; kept += len(s.batch(s.next-n, n).Data) {
		if kept > s.p.target.Gathers {
			s.p.t.Fatalf("a dead destination acknowledged %d bytes", kept)
		}
		if err := s.attempt(ctx, n); err != nil {
			if ctx.Err() != nil {
				s.p.t.Fatalf("a write to a dead destination does not end by itself within %v: %v", patience, err)
			}
			return
		}
	}
}

func outage(p *process) {
	s := p.stream("fills")
	s.mustWrite(10)
	p.target.Outage(true)
	for range 5 {
		s.untilRefused(7)
	}
	p.target.Outage(false)
	s.deliver(7)
	s.deliver(7)
	s.finish()
}

func outageInCommit(p *process) {
	s := p.stream("fills")
	s.mustWrite(10)
	p.target.Outage(true)
	for range 3 {
		ctx, cancel := context.WithTimeout(p.t.Context(), patience)
		state, err := Flush(ctx, s.sink, false)
		if err == nil {
			s.save(state, s.next)
			err = s.committed(ctx)
		}
		cancel()
		// A sync that fails may have lost data: starting again is right, too.
		if errors.Is(err, sink.ErrReopen) {
			p.target.Outage(false)
			p.restart()
			s = p.stream("fills")
			break
		}
		if err != nil {
			s.mustBeOutage(err)
		}
	}
	p.target.Outage(false)
	s.deliver(17 - s.next)
	s.finish()
}

func givenUp(p *process) {
	s := p.stream("fills")
	s.mustWrite(10)
	p.target.Outage(true)
	s.untilRefused(7)
	p.target.Outage(false)
	if s.sink != nil {
		s.settle(false)
	}
	p.restart()
	s = p.stream("fills")
	s.deliver(20)
	s.finish()
}

// closedInMidBatch closes the stream at once after a batch failed, without
// giving the sink the time to do anything about it.
func closedInMidBatch(p *process) {
	for range 3 {
		s := p.stream("fills")
		s.pad(2000)
		s.deliver(10)
		p.target.Outage(true)
		s.untilRefused(50)
		s.close()
		p.target.Outage(false)
		p.restart() // what stands there of a record cannot be undone by every destination
	}
	p.stream("fills").finish()
}

// deadForLong looks at the memory of the process, in which the destination may be too: it is given much more than it may
// take up.
func deadForLong(p *process) {
	const attempts, records, size, most = 500, 20, 3500, 8 << 20
	s := p.stream("fills")
	s.pad(size)
	s.mustWrite(records)
	s.mustCommit()
	before := heap()
	hold := func(state func(on bool)) {
		state(true)
		for range attempts {
			ctx, cancel := context.WithTimeout(p.t.Context(), time.Millisecond)
			_ = s.attempt(ctx, records)
			cancel()
		}
	}
	p.target.Outage(true)
	s.untilRefused(records)
	hold(p.target.Outage)
	if p.target.Block == nil {
		hold(p.target.Outage)
	} else {
		p.target.Outage(false)
		hold(p.target.Block)
	}
	grown := heap() - before
	if limit := int64(most + p.target.Gathers); grown > limit {
		p.t.Fatalf("%d failed writes of one batch of %d bytes took up %d bytes of memory, want at most %d", 2*attempts, records*size, grown, limit)
	}
	p.target.Outage(false)
	if p.target.Block != nil {
		p.target.Block(false)
	}
	s.deliver(records)
	s.deliver(records)
	s.finish()
}

// heap is how many bytes are in use.
func heap() int64 {
	var m runtime.MemStats
	for range 3 { // a pool lets go of what it holds at the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// flapping turns the destination off and on between writes and, from another goroutine, within them.
func flapping(p *process) {
	p.sequences(700*time.Millisecond, func(t *rapid.T, p *process) {
		s := p.stream("fills")
		s.pad(rapid.SampledFrom([]int{0, 100, 5000}).Draw(t, "padding"))
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"on", "off", stepWrite, stepWrite, stepWrite, "storm", "commit"}).Draw(t, "step") {
			case "on":
				p.target.Outage(true)
			case "off":
				p.target.Outage(false)
			case stepWrite:
				s.brief(rapid.IntRange(1, 60).Draw(t, "records"))
			case "storm":
				storm(t, p, s)
			case "commit":
				p.target.Outage(false)
				if s.sink != nil {
					s.settle(false)
				}
			}
		}
		p.target.Outage(false)
		s.finish()
	})
}

// brief makes one attempt, of which the outcome is not asked for.
func (s *stream) brief(n int) {
	s.p.t.Helper()
	ctx, cancel := context.WithTimeout(s.p.t.Context(), 5*time.Millisecond)
	defer cancel()
	_ = s.attempt(ctx, n)
}

func storm(t *rapid.T, p *process, s *stream) {
	pauses := rapid.SliceOfN(rapid.IntRange(0, 400), 1, 8).Draw(t, "µs between changes")
	records := rapid.IntRange(1, 60).Draw(t, "records")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i, us := range pauses {
			time.Sleep(time.Duration(us) * time.Microsecond)
			p.target.Outage(i%2 == 0)
		}
	}()
	defer func() { <-ended }()
	for range len(pauses) {
		s.brief(records)
	}
}

// sequences runs one random sequence after another for a while, each in a process
// and with streams of its own. How many there are at most is up to rapid.
func (p *process) sequences(budget time.Duration, run func(*rapid.T, *process)) {
	p.t.Helper()
	p.end()
	began, n, failing := time.Now(), 0, false
	rapid.Check(&silent{tester: p.t}, func(t *rapid.T) {
		if !failing && time.Since(began) > budget {
			return // but a failure is looked into for as long as it takes
		}
		n++
		one := &process{t: t, target: p.target, streams: map[string]*stream{}, names: p.names, suffix: fmt.Sprintf("-%d", n)}
		defer one.end()
		passed := false
		defer func() { failing = failing || !passed }()
		one.start()
		run(t, one)
		passed = true
	})
}

// silent says nothing of sequences that passed.
type silent struct {
	tester
	loud bool
}

func (s *silent) Logf(format string, args ...any) {
	if s.loud {
		s.Helper()
		s.tester.Logf(format, args...)
	}
}

func (s *silent) Log(args ...any) {
	if s.loud {
		s.Helper()
		s.tester.Log(args...)
	}
}

func (s *silent) Errorf(format string, args ...any) {
	s.loud = true
	s.Helper()
	s.tester.Errorf(format, args...)
}

func cancelled(p *process) {
	s := p.stream("fills")
	ctx, cancel := context.WithCancel(p.t.Context())
	cancel()
	for range 3 {
		if err := s.write(ctx, 3); !errors.Is(err, context.Canceled) {
			p.t.Fatalf("got %v, want the context's error", err)
		}
	}
	s.finish() // of nothing
	p.restart()
	s = p.stream("fills")
	s.mustWrite(3)
	if err := s.write(ctx, 3); !errors.Is(err, context.Canceled) {
		p.t.Fatalf("got %v, want the context's error", err)
	}
	s.mustWrite(3)
	s.mustWrite(5)
	s.finish()
}

// blockedWrite writes until the destination takes no more and the context ends.
func (s *stream) blockedWrite() {
	s.p.t.Helper()
	ctx, cancel := context.WithTimeout(s.p.t.Context(), 50*time.Millisecond)
	defer cancel()
	for kept := 0; ; kept += len(s.batch(s.next-100, 100).Data) {
		if kept > s.p.target.Gathers {
			s.p.t.Fatalf("a destination that accepts nothing acknowledged %d bytes", kept)
		}
		err := s.write(ctx, 100)
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if err != nil {
			s.p.t.Fatalf("got %v, want the context's error", err)
		}
	}
}

const cannotBlock = "this destination cannot block"

func blocked(p *process) {
	if p.target.Block == nil {
		p.t.Skip(cannotBlock)
	}
	s := p.stream("fills")
	s.pad(10_000) // so that a batch does not fit into what the system buffers
	p.target.Block(true)
	s.blockedWrite()
	s.blockedWrite()
	p.target.Block(false)
	s.deliver(100)
	s.deliver(100)
	s.finish()
}

func closedWhileBlocked(p *process) {
	if p.target.Block == nil {
		p.t.Skip(cannotBlock)
	}
	s, other := p.stream("fills"), p.stream("trades")
	s.pad(10_000)
	other.mustWrite(10)
	p.target.Block(true)
	s.blockedWrite()
	s.close()
	p.target.Block(false)
	other.deliver(10)
	other.finish()
	s = p.stream("fills")
	s.deliver(200)
	s.finish()
}

// slow sees that Write takes as long as the destination does.
func slow(p *process) {
	s := p.stream("fills")
	s.pad(10_000)
	switch {
	case p.target.Slow != nil:
		s.delayed()
	case p.target.Block != nil:
		s.held()
	default:
		p.t.Skip("this destination cannot be slow")
	}
	s.finish()
}

func (s *stream) delayed() {
	const delay, writes, records = 5 * time.Millisecond, 20, 20
	s.p.target.Slow(delay)
	defer s.p.target.Slow(0)
	began, first := time.Now(), s.next
	for range writes {
		s.mustWrite(records)
	}
	took := time.Since(began)
	bytes := len(s.batch(first, records).Data)
	waited := writes - (s.p.target.Gathers+bytes-1)/bytes
	want := time.Duration(waited) * delay
	if s.p.target.Gathers > 0 {
		want /= 4 // what is gathered is packed, and leaves in fewer pieces than it came in
	}
	if took < want {
		s.p.t.Fatalf("%d writes took %v, with a destination that takes %v for each: they are queued", writes, took, delay)
	}
}

func (s *stream) held() {
	const records = 100
	for range 10 {
		s.p.target.Block(true)
		b := s.batch(s.next, records)
		begun, written := make(chan struct{}), make(chan error, 1)
		go func() {
			close(begun)
			written <- s.sink.Write(s.p.t.Context(), b)
		}()
		<-begun
		select {
		case err := <-written:
			s.p.target.Block(false)
			s.p.t.Fatalf("a write returned %v before the destination had taken the batch", err)
		case <-time.After(10 * time.Millisecond):
		}
		s.p.target.Block(false)
		select {
		case err := <-written:
			if err != nil {
				s.p.t.Fatalf("write to a slow destination: %v", err)
			}
			s.next += records
			s.goal = s.next
		case <-time.After(patience):
			s.p.t.Fatalf("a write goes on after the destination has taken the batch")
		}
	}
}
