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

// untilRefused writes batches of n records until the sink detects the outage. It must do so once its buffer allowance
// is used up.
func (s *stream) untilRefused(n int) {
	s.p.t.Helper()
	ctx, cancel := context.WithTimeout(s.p.t.Context(), recoveryTimeout)
	defer cancel()
	for kept := 0; ; kept += len(s.batch(s.next-n, n).Data) {
		if kept > s.p.target.BufferBytes {
			s.p.t.Fatalf("a dead destination acknowledged %d bytes", kept)
		}
		if err := s.attempt(ctx, n); err != nil {
			if ctx.Err() != nil {
				s.p.t.Fatalf("a write to a dead destination did not fail within %v: %v", recoveryTimeout, err)
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
		ctx, cancel := context.WithTimeout(p.t.Context(), recoveryTimeout)
		state, err := Flush(ctx, s.sink, false)
		if err == nil {
			s.save(state, s.next)
			err = s.committed(ctx)
		}
		cancel()
		// A failed sync may have lost data, so reopening is right, too.
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

func abandonedBatch(p *process) {
	s := p.stream("fills")
	s.mustWrite(10)
	p.target.Outage(true)
	s.untilRefused(7)
	p.target.Outage(false)
	if s.sink != nil {
		s.commitAfterOutage(false)
	}
	p.restart()
	s = p.stream("fills")
	s.deliver(20)
	s.finish()
}

// closedInMidBatch closes the stream immediately after a failed batch, so the sink has no time to clean up.
func closedInMidBatch(p *process) {
	for range 3 {
		s := p.stream("fills")
		s.pad(2000)
		s.deliver(10)
		p.target.Outage(true)
		s.untilRefused(50)
		s.close()
		p.target.Outage(false)
		p.restart() // not every destination can remove a torn record
	}
	p.stream("fills").finish()
}

// deadForLong measures the memory of the process, which may include the destination. The batches add up to much more
// than the permitted growth.
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
	if limit := int64(most + p.target.BufferBytes); grown > limit {
		p.t.Fatalf("%d failed writes of one batch of %d bytes took %d bytes of memory, want at most %d",
			2*attempts, records*size, grown, limit)
	}
	p.target.Outage(false)
	if p.target.Block != nil {
		p.target.Block(false)
	}
	s.deliver(records)
	s.deliver(records)
	s.finish()
}

// recreatedDestination recreates the destination under the sink, with and without uncommitted records, and across a
// crash.
func recreatedDestination(p *process) {
	if p.target.Recreate == nil {
		p.t.Skip("this destination cannot be recreated under a sink")
	}
	s := p.stream("fills")
	for round, uncommitted := range []int{0, 7, 7} {
		s.deliver(10)
		s.commitAfterOutage(false)
		if uncommitted > 0 {
			s.mustWrite(uncommitted)
		}
		p.recreate()
		if round == 2 {
			p.crash()
			s = p.stream("fills")
		}
		s.deliver(s.goal - s.next + 10)
		s.end()
		s.compare()
	}
	s.finish()
}

// heap returns the heap in use, in bytes.
func heap() int64 {
	var m runtime.MemStats
	for range 3 { // a sync.Pool frees its content at the second collection
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// flapping switches the outage on and off between writes and, from another goroutine, during them.
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
				s.attemptBriefly(rapid.IntRange(1, 60).Draw(t, "records"))
			case "storm":
				storm(t, p, s)
			case "commit":
				p.target.Outage(false)
				if s.sink != nil {
					s.commitAfterOutage(false)
				}
			}
		}
		p.target.Outage(false)
		s.finish()
	})
}

// attemptBriefly makes one attempt with a short deadline and ignores its result.
func (s *stream) attemptBriefly(n int) {
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
		s.attemptBriefly(records)
	}
}

// sequences runs random sequences one after another until the budget is used up. Each has its own process and streams.
// rapid bounds their number.
func (p *process) sequences(budget time.Duration, run func(*rapid.T, *process)) {
	p.t.Helper()
	p.end()
	began, n, failing := time.Now(), 0, false
	rapid.Check(&quietOnPass{tester: p.t}, func(t *rapid.T) {
		if !failing && time.Since(began) > budget {
			return // a failing sequence is shrunk without a time limit
		}
		n++
		one := &process{
			t: t, target: p.target, streams: map[string]*stream{}, names: p.names, suffix: fmt.Sprintf("-%d", n),
		}
		defer one.end()
		passed := false
		defer func() { failing = failing || !passed }()
		one.start()
		run(t, one)
		passed = true
	})
}

// quietOnPass suppresses the log of sequences that passed.
type quietOnPass struct {
	tester
	failed bool
}

func (s *quietOnPass) Logf(format string, args ...any) {
	if s.failed {
		s.Helper()
		s.tester.Logf(format, args...)
	}
}

func (s *quietOnPass) Log(args ...any) {
	if s.failed {
		s.Helper()
		s.tester.Log(args...)
	}
}

func (s *quietOnPass) Errorf(format string, args ...any) {
	s.failed = true
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
	s.finish() // nothing was written
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

// blockedWrite writes until the destination accepts no more and the context ends.
func (s *stream) blockedWrite() {
	s.p.t.Helper()
	ctx, cancel := context.WithTimeout(s.p.t.Context(), 50*time.Millisecond)
	defer cancel()
	for kept := 0; ; kept += len(s.batch(s.next-100, 100).Data) {
		if kept > s.p.target.BufferBytes {
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
	s.pad(10_000) // a batch exceeds the system's buffers
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

// slow checks that Write takes as long as the destination does.
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
	waited := writes - (s.p.target.BufferBytes+bytes-1)/bytes
	want := time.Duration(waited) * delay
	if s.p.target.BufferBytes > 0 {
		want /= 4 // buffered records are compressed and leave in fewer pieces
	}
	if took < want {
		s.p.t.Fatalf("%d writes took %v, but the destination takes %v for each: they are queued", writes, took, delay)
	}
}

func (s *stream) held() {
	const records = 100
	for range 10 {
		s.p.target.Block(true)
		b := s.batch(s.next, records)
		started, written := make(chan struct{}), make(chan error, 1)
		go func() {
			close(started)
			written <- s.sink.Write(s.p.t.Context(), b)
		}()
		<-started
		select {
		case err := <-written:
			s.p.target.Block(false)
			s.p.t.Fatalf("a write returned %v before the destination had accepted the batch", err)
		case <-time.After(10 * time.Millisecond):
		}
		s.p.target.Block(false)
		select {
		case err := <-written:
			if err != nil {
				s.p.t.Fatalf("writing to a slow destination: %v", err)
			}
			s.next += records
			s.goal = s.next
		case <-time.After(recoveryTimeout):
			s.p.t.Fatalf("a write did not return after the destination had accepted the batch")
		}
	}
}
