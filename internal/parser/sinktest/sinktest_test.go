package sinktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.shrinktime": "0s"} {
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	goleak.VerifyTestMain(m)
}

// toy is a correct destination with its sinks, except for one flaw.
type toy struct {
	flaw string

	mu      sync.Mutex
	changed sync.Cond
	outage  bool
	blocked bool
	delay   time.Duration
	epoch   int
	// By stream: what consumers see, and records after the last state that they do not see yet.
	received  map[string][][]byte
	visible   map[string]int // prefix of received that consumers see
	durable   map[string]int // prefix of received that survives a crash
	recreated int            // how often the destination was recreated
	gone      map[string]int // records lost with an earlier destination
	adopted   map[string]int // the value of recreated that gone refers to

	finished bool // state of flaws
	queue    [][]byte
	kept     []byte
	batches  []sink.Batch
}

func newToy(flaw string) *toy {
	d := &toy{
		flaw: flaw, received: map[string][][]byte{}, visible: map[string]int{}, durable: map[string]int{},
		gone: map[string]int{}, adopted: map[string]int{},
	}
	d.changed.L = &d.mu
	return d
}

func (d *toy) target() Target {
	set := func(field *bool) func(bool) {
		return func(on bool) {
			d.mu.Lock()
			defer d.mu.Unlock()
			*field = on
			d.changed.Broadcast()
		}
	}
	return Target{
		ExactlyOnce: true, Fenced: true,
		Open: func() (sink.Output, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.epoch++
			return &toyOutput{toy: d, epoch: d.epoch, opened: map[string]bool{}}, nil
		},
		Crash: func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			for stream, records := range d.received {
				d.received[stream] = records[:min(d.durable[stream], len(records))]
			}
		},
		Outage: set(&d.outage),
		Block:  set(&d.blocked),
		Recreate: func() error {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.recreated++
			clear(d.received)
			clear(d.visible)
			clear(d.durable)
			return nil
		},
		Received: func(stream string) ([]byte, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			return bytes.Join(d.received[stream][:d.visible[stream]], nil), nil
		},
	}
}

func (d *toy) slowly() Target {
	target := d.target()
	target.Block = nil
	target.Slow = func(delay time.Duration) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.delay = delay
	}
	return target
}

// admit precedes every operation of the destination.
func (d *toy) admit(ctx context.Context, epoch int) error {
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.changed.Broadcast()
	})
	defer stop()
	for d.blocked && ctx.Err() == nil {
		d.changed.Wait()
	}
	switch {
	case ctx.Err() != nil && d.flaw != "ignores the context":
		return ctx.Err()
	case d.outage && d.flaw == "reports an outage as a failure":
		return fmt.Errorf("%w: the destination is gone", sink.ErrFailed)
	case d.outage:
		return errors.New("the destination is out")
	case epoch != d.epoch && d.flaw != "does not fence the previous process":
		return fmt.Errorf("%w: replaced", sink.ErrFailed)
	}
	return nil
}

type toyOutput struct {
	*toy
	epoch  int
	opened map[string]bool
}

func (o *toyOutput) Close() error { return nil }

func (o *toyOutput) Open(_ context.Context, stream string, state json.RawMessage) (sink.Sink, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &toySink{toy: o.toy, epoch: o.epoch, stream: stream}
	if o.finished {
		return nil, fmt.Errorf("%w: the stream is finished", sink.ErrFailed)
	}
	if state != nil {
		if err := json.Unmarshal(state, &s.committed); err != nil {
			return nil, err
		}
	}
	s.adopt()
	if o.flaw != "does not roll back after a crash" {
		kept := min(s.committed-o.gone[stream], len(o.received[stream]))
		if o.opened[stream] && o.flaw != "counts rolled-back records" {
			s.added = kept - len(o.received[stream])
		}
		o.received[stream] = o.received[stream][:kept]
	}
	o.opened[stream] = true
	if o.flaw == "rolls back too much" && len(o.received[stream]) > 0 {
		o.received[stream] = o.received[stream][:len(o.received[stream])-1]
	}
	o.visible[stream] = len(o.received[stream]) // the checkpoint covers it
	return s, nil
}

type toySink struct {
	*toy
	epoch     int
	stream    string
	committed int // records of the last flush
	flushes   int
	last      json.RawMessage
	failed    bool
	dedupe    map[string]bool
	fold      int64
	recreated int // the value of toy.recreated that the sink has observed
	added     int // records added, minus those rolled back
}

// adopt continues with a destination that was recreated after everything was committed.
func (s *toySink) adopt() {
	if s.adopted[s.stream] != s.toy.recreated {
		s.gone[s.stream], s.adopted[s.stream] = s.committed, s.toy.recreated
	}
	s.recreated = s.toy.recreated
}

// checkRecreated returns ErrReopen if the destination was recreated.
func (s *toySink) checkRecreated() error {
	if s.recreated == s.toy.recreated || s.flaw == "does not detect a recreated destination" {
		return nil
	}
	return fmt.Errorf("%w: recreated", sink.ErrReopen)
}

func (s *toySink) Delivered() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.added)
}

func (s *toySink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.flaw == "waits in Close" && s.blocked {
		s.changed.Wait()
	}
	return nil
}

func (s *toySink) Write(ctx context.Context, b sink.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flaw == "acknowledges the call after a failed one without writing" && s.failed {
		s.failed = false
		return nil
	}
	if s.flaw == "queues for a blocked destination" && (s.blocked || s.delay > 0) {
		s.queue = append(s.queue, bytes.Clone(b.Data))
		return nil
	}
	if s.flaw == "acknowledges in an outage" && s.outage {
		return nil
	}
	if s.flaw == "waits out an outage" {
		for s.outage && ctx.Err() == nil {
			s.mu.Unlock()
			time.Sleep(time.Millisecond)
			s.mu.Lock()
		}
	}
	if s.flaw == "retains each undelivered batch" && (s.outage || s.blocked) {
		s.batches = append(s.batches, b)
	}
	if s.flaw == "copies each undelivered batch" && (s.outage || s.blocked) {
		s.kept = append(s.kept, b.Data...)
	}
	if s.delay > 0 {
		time.Sleep(s.delay)
	}
	n := len(b.Records)
	if s.outage && s.flaw == "delivers half of a failed batch" {
		s.add(b, 0, n/2)
	}
	if err := s.admit(ctx, s.epoch); err != nil {
		s.failed = true
		return err
	}
	if err := s.checkRecreated(); err != nil {
		return err
	}
	if s.flaw == "refuses the preceding record" || s.flaw == "drops a batch with a huge record" {
		for i := range n {
			if len(b.Record(i)) > 1<<20 {
				if s.flaw == "refuses the preceding record" {
					return &sink.Refusal{Index: max(i-1, 0), Reason: "too long"}
				}
				return nil
			}
		}
	}
	if s.flaw == "mixes two records" && n > 1 && b.Records[0].End > 10 {
		data := slices.Clone(b.Data)
		data[b.Records[0].End-1] = ' '
		s.received[s.stream] = append(s.received[s.stream], data)
		return nil
	}
	s.add(b, 0, n)
	s.added += n
	return nil
}

// add makes records available to consumers.
func (s *toySink) add(b sink.Batch, from, to int) {
	records := make([][]byte, 0, to-from)
	for i := from; i < to; i++ {
		r := bytes.Clone(b.Record(i))
		if s.flaw == "retains the caller's memory" {
			r = b.Record(i)
		}
		at := b.Records[i]
		key := ""
		switch s.flaw {
		case "drops a record":
			if len(s.received[s.stream])+i == 11 {
				continue
			}
		case "trims white space":
			r = append(bytes.TrimSpace(r), '\n')
		case "treats a coin as a path":
			if strings.HasPrefix(at.Coin, "..") {
				continue
			}
		case "deduplicates by offset and block":
			key = fmt.Sprint(b.File, at.Offset, at.Block)
		case "deduplicates by line and index":
			key = fmt.Sprint(at.Offset, at.Index)
		case "drops records older than the newest":
			if at.Offset < s.fold {
				continue
			}
			s.fold = at.Offset
		}
		if key != "" {
			if s.dedupe == nil {
				s.dedupe = map[string]bool{}
			}
			if s.dedupe[key] {
				continue
			}
			s.dedupe[key] = true
		}
		records = append(records, r)
	}
	if s.flaw == "reverses records" {
		slices.Reverse(records)
	}
	stream := s.stream
	if s.flaw == "mixes streams" && len(s.received) > 1 && len(records) > 1 && len(s.received[stream]) > 0 {
		last := len(s.received[stream]) - 1
		s.received[stream][last] = append(bytes.TrimSuffix(s.received[stream][last], []byte("\n")), records[0]...)
		records = records[1:]
	}
	s.received[stream] = append(s.received[stream], records...)
}

func (s *toySink) Flush(ctx context.Context, final bool) (sink.Flushed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkRecreated(); err != nil {
		return sink.Flushed{}, err
	}
	count := s.gone[s.stream] + len(s.received[s.stream])
	state := fmt.Appendf(nil, "%d", count)
	switch {
	case s.flaw == "returns a different state each time":
		s.flushes++
		state = append(state, bytes.Repeat([]byte(" "), s.flushes)...)
	case s.flaw == "returns a state that is not JSON":
		state = append(state, '?')
	case s.flaw == "contacts the destination at each flush":
		if err := s.admit(ctx, s.epoch); err != nil {
			return sink.Flushed{}, err
		}
	case s.flaw == "reports an outage in a commit as a failure" && s.outage:
		return sink.Flushed{}, fmt.Errorf("%w: no commit", sink.ErrFailed)
	case s.flaw == "rejects Open after the last flush" && final:
		s.finished = true
	case bytes.Equal(state, s.last) && s.flaw != "returns a sync each time":
		if s.flaw != "ignores a sync that was never called" && s.committed != count {
			return sink.Flushed{State: state, Sync: func(context.Context) error { return s.sync(count) }}, nil
		}
		return sink.Flushed{State: state}, nil
	}
	s.last = state
	return sink.Flushed{State: state, Sync: func(context.Context) error { return s.sync(count) }}, nil
}

// sync makes the first count records durable, so that consumers may see them.
func (s *toySink) sync(count int) error {
	if s.flaw == "discards records written during a sync" {
		time.Sleep(time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flaw == "discards records written during a sync" {
		s.received[s.stream] = s.received[s.stream][:count-s.gone[s.stream]]
	}
	s.committed, s.durable[s.stream] = count, count-s.gone[s.stream]
	return nil
}

func (s *toySink) Committed(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visible[s.stream] = max(s.visible[s.stream], min(s.committed-s.gone[s.stream], len(s.received[s.stream])))
	if s.flaw == "rejects a repeated Committed" {
		s.flushes++
		if s.flushes > s.committed/2 && s.flushes > 2 {
			return fmt.Errorf("%w: Committed was called twice", sink.ErrFailed)
		}
	}
	return nil
}

// recorder is a test whose failure another test expects.
type recorder struct {
	tester
	mu       sync.Mutex
	failed   bool
	skipped  bool
	messages []string
	cleanups []func()
}

func (r *recorder) record(text string, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	r.messages = append(r.messages, text)
}

func (r *recorder) Helper()                      {}
func (r *recorder) Logf(f string, args ...any)   { r.record(fmt.Sprintf(f, args...), false) }
func (r *recorder) Log(args ...any)              { r.record(fmt.Sprint(args...), false) }
func (r *recorder) Errorf(f string, args ...any) { r.record(fmt.Sprintf(f, args...), true) }
func (r *recorder) Error(args ...any)            { r.record(fmt.Sprint(args...), true) }
func (r *recorder) Fail()                        { r.record("Fail", true) }
func (r *recorder) FailNow()                     { r.record("FailNow", true); runtime.Goexit() }
func (r *recorder) Fatalf(f string, args ...any) { r.Errorf(f, args...); runtime.Goexit() }
func (r *recorder) Fatal(args ...any)            { r.Error(args...); runtime.Goexit() }
func (r *recorder) SkipNow()                     { r.skipped = true; runtime.Goexit() }
func (r *recorder) Skip(args ...any)             { r.Log(args...); r.SkipNow() }
func (r *recorder) Skipf(f string, args ...any)  { r.Logf(f, args...); r.SkipNow() }
func (r *recorder) Cleanup(f func())             { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// run runs a case and its cleanups, and records its messages.
func (r *recorder) run(c testCase, target Target) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		c.against(r, target)
	}()
	<-over
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

func TestACorrectSinkPassesSilently(t *testing.T) {
	for _, c := range cases {
		targets := []Target{newToy("").target()}
		if c.name == "a slow destination applies backpressure to writes" {
			targets = append(targets, newToy("").slowly())
		}
		for _, target := range targets {
			r := &recorder{tester: t}
			if r.run(c, target); r.failed || r.skipped || len(r.messages) > 0 {
				t.Errorf("%s: skipped: %t; %q", c.name, r.skipped, r.messages)
			}
		}
	}
}

func TestQueueingForASlowDestinationIsDetected(t *testing.T) {
	i := slices.IndexFunc(cases, func(c testCase) bool {
		return c.name == "a slow destination applies backpressure to writes"
	})
	r := &recorder{tester: t}
	if r.run(cases[i], newToy("queues for a blocked destination").slowly()); !r.failed {
		t.Error("the sink passes")
	}
}
