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

// toy is a destination and its sinks. It does everything right, except for its flaw.
type toy struct {
	flaw string

	mu       sync.Mutex
	changed  sync.Cond
	outage   bool
	blocked  bool
	delay    time.Duration
	epoch    int
	received map[string][][]byte // by stream: what consumers see and, behind what the last state covers, do not yet
	visible  map[string]int      // of received
	durable  map[string]int      // of received, over a crash

	finished bool // flaws' leftovers
	queue    [][]byte
	kept     []byte
	batches  []sink.Batch
}

func newToy(flaw string) *toy {
	d := &toy{flaw: flaw, received: map[string][][]byte{}, visible: map[string]int{}, durable: map[string]int{}}
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
			return &toyOutput{d, d.epoch}, nil
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

// ask is what goes before all that the destination does.
func (d *toy) ask(ctx context.Context, epoch int) error {
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
	case d.outage && d.flaw == "takes an outage for the end":
		return fmt.Errorf("%w: it is gone", sink.ErrFailed)
	case d.outage:
		return errors.New("the destination is out")
	case epoch != d.epoch && d.flaw != "does not shut out the process before":
		return fmt.Errorf("%w: replaced", sink.ErrFailed)
	}
	return nil
}

type toyOutput struct {
	*toy
	epoch int
}

func (o *toyOutput) Close() error { return nil }

func (o *toyOutput) Open(_ context.Context, stream string, state json.RawMessage) (sink.Sink, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &toySink{toy: o.toy, epoch: o.epoch, stream: stream}
	if o.finished {
		return nil, fmt.Errorf("%w: it is finished", sink.ErrFailed)
	}
	if state != nil {
		if err := json.Unmarshal(state, &s.committed); err != nil {
			return nil, err
		}
	}
	if o.flaw != "does not undo what a crash left" {
		o.received[stream] = o.received[stream][:min(s.committed, len(o.received[stream]))]
	}
	if o.flaw == "undoes too much" && len(o.received[stream]) > 0 {
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
}

func (s *toySink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.flaw == "waits when it is closed" && s.blocked {
		s.changed.Wait()
	}
	return nil
}

func (s *toySink) Write(ctx context.Context, b sink.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flaw == "loses what it gives up at its end" && s.failed {
		s.failed = false
		return nil
	}
	if s.flaw == "queues for a destination that holds it up" && (s.blocked || s.delay > 0) {
		s.queue = append(s.queue, bytes.Clone(b.Data))
		return nil
	}
	if s.flaw == "acknowledges in an outage" && s.outage {
		return nil
	}
	if s.flaw == "waits an outage out" {
		for s.outage && ctx.Err() == nil {
			s.mu.Unlock()
			time.Sleep(time.Millisecond)
			s.mu.Lock()
		}
	}
	if s.flaw == "keeps each batch that it could not deliver" && (s.outage || s.blocked) {
		s.batches = append(s.batches, b)
	}
	if s.flaw == "copies each batch that it could not deliver" && (s.outage || s.blocked) {
		s.kept = append(s.kept, b.Data...)
	}
	if s.delay > 0 {
		time.Sleep(s.delay)
	}
	n := len(b.Records)
	if s.outage && s.flaw == "leaves half of a failed batch" {
		s.add(b, 0, n/2)
	}
	if err := s.ask(ctx, s.epoch); err != nil {
		s.failed = true
		return err
	}
	if s.flaw == "refuses the record before" || s.flaw == "refuses a huge record and drops what is behind it" {
		for i := range n {
			if len(b.Record(i)) > 1<<20 {
				if s.flaw == "refuses the record before" {
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
	return nil
}

// add lets consumers have records.
func (s *toySink) add(b sink.Batch, from, to int) {
	records := make([][]byte, 0, to-from)
	for i := from; i < to; i++ {
		r := bytes.Clone(b.Record(i))
		if s.flaw == "keeps what is the caller's" {
			r = b.Record(i)
		}
		at := b.Records[i]
		key := ""
		switch s.flaw {
		case "drops a record":
			if len(s.received[s.stream])+i == 11 {
				continue
			}
		case "cuts white space off":
			r = append(bytes.TrimSpace(r), '\n')
		case "takes a coin for a path":
			if strings.HasPrefix(at.Coin, "..") {
				continue
			}
		case "knows records by offset and block":
			key = fmt.Sprint(b.File, at.Offset, at.Block)
		case "knows records by line and index":
			key = fmt.Sprint(at.Offset, at.Index)
		case "drops what is older than the newest":
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
	if s.flaw == "turns records around" {
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
	count := len(s.received[s.stream])
	state := fmt.Appendf(nil, "%d", count)
	switch {
	case s.flaw == "has another state each time":
		s.flushes++
		state = append(state, bytes.Repeat([]byte(" "), s.flushes)...)
	case s.flaw == "has a state that is no JSON":
		state = append(state, '?')
	case s.flaw == "asks at each flush":
		if err := s.ask(ctx, s.epoch); err != nil {
			return sink.Flushed{}, err
		}
	case s.flaw == "fails a commit in an outage for good" && s.outage:
		return sink.Flushed{}, fmt.Errorf("%w: no commit", sink.ErrFailed)
	case s.flaw == "takes the last flush for the end of time" && final:
		s.finished = true
	case bytes.Equal(state, s.last) && s.flaw != "asks for a sync each time":
		if s.flaw != "does not make up for a sync that never came" && s.committed != count {
			return sink.Flushed{State: state, Sync: func(context.Context) error { return s.sync(count) }}, nil
		}
		return sink.Flushed{State: state}, nil
	}
	s.last = state
	return sink.Flushed{State: state, Sync: func(context.Context) error { return s.sync(count) }}, nil
}

// sync makes the records up to count those that consumers may see.
func (s *toySink) sync(count int) error {
	if s.flaw == "empties its buffer after a sync" {
		time.Sleep(time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flaw == "empties its buffer after a sync" {
		s.received[s.stream] = s.received[s.stream][:count]
	}
	s.committed, s.durable[s.stream] = count, count
	return nil
}

func (s *toySink) Committed(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visible[s.stream] = max(s.visible[s.stream], min(s.committed, len(s.received[s.stream])))
	if s.flaw == "counts how often it is told of a commit" {
		s.flushes++
		if s.flushes > s.committed/2 && s.flushes > 2 {
			return fmt.Errorf("%w: told twice", sink.ErrFailed)
		}
	}
	return nil
}

// recorder is a test whose failure is what another test wants.
type recorder struct {
	tester
	mu       sync.Mutex
	failed   bool
	skipped  bool
	said     []string
	cleanups []func()
}

func (r *recorder) say(text string, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	r.said = append(r.said, text)
}

func (r *recorder) Helper()                      {}
func (r *recorder) Logf(f string, args ...any)   { r.say(fmt.Sprintf(f, args...), false) }
func (r *recorder) Log(args ...any)              { r.say(fmt.Sprint(args...), false) }
func (r *recorder) Errorf(f string, args ...any) { r.say(fmt.Sprintf(f, args...), true) }
func (r *recorder) Error(args ...any)            { r.say(fmt.Sprint(args...), true) }
func (r *recorder) Fail()                        { r.say("Fail", true) }
func (r *recorder) FailNow()                     { r.say("FailNow", true); runtime.Goexit() }
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

// run runs a case, and returns what it says when it is over.
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

func TestASinkThatDoesEverythingRightPassesAndNothingIsPrinted(t *testing.T) {
	for _, c := range cases {
		targets := []Target{newToy("").target()}
		if c.name == "a slow destination holds up the writes" {
			targets = append(targets, newToy("").slowly())
		}
		for _, target := range targets {
			r := &recorder{tester: t}
			if r.run(c, target); r.failed || r.skipped || len(r.said) > 0 {
				t.Errorf("%s: skipped: %t; %q", c.name, r.skipped, r.said)
			}
		}
	}
}

func TestADestinationThatIsSlowMayNotBeQueuedFor(t *testing.T) {
	i := slices.IndexFunc(cases, func(c testCase) bool { return c.name == "a slow destination holds up the writes" })
	r := &recorder{tester: t}
	if r.run(cases[i], newToy("queues for a destination that holds it up").slowly()); !r.failed {
		t.Error("it passes")
	}
}
