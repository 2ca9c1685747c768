package health_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// fine are the verdicts of a healthy parser.
var fine = []health.Verdict{health.Unknown, health.Healthy}

// observed is a simulated parser with a tracker, polled every five seconds.
type observed struct {
	*parser
	health.Tracker
}

func observe(p *parser) *observed {
	o := &observed{parser: p}
	o.ObservePod(running(), p.now, settings())
	return o
}

// poll lets an interval pass and observes the report, which edit may change.
func (o *observed) poll(edit func(*report.Report)) health.Judgement {
	o.run(5 * time.Second)
	r := o.report()
	if edit != nil {
		edit(&r)
	}
	o.ObservePoll(health.Poll{Report: &r}, o.now, settings())
	return o.Judgement()
}

// only polls for a time and fails at any verdict other than those wanted.
func (o *observed) only(t *testing.T, d time.Duration, want ...health.Verdict) {
	t.Helper()
	for range d / (5 * time.Second) {
		if got := o.poll(nil); !slices.Contains(want, got.Verdict) {
			t.Fatalf("after %s: %+v, want one of %v", o.now.Sub(start), got, want)
		}
	}
}

// reaches polls until the verdict and reason are reached. It fails at another bad verdict, and after the given time.
func (o *observed) reaches(t *testing.T, within time.Duration, verdict health.Verdict, reason string) health.Judgement {
	t.Helper()
	began := o.now
	for o.now.Sub(began) < within {
		got := o.poll(nil)
		switch {
		case got.Verdict == verdict && got.Reason == reason:
			return got
		case got.Verdict.Bad():
			t.Fatalf("after %s: %+v, want %s/%s", o.now.Sub(began), got, verdict, reason)
		}
	}
	t.Fatalf("not %s/%s within %s, but %+v", verdict, reason, within, o.Judgement())
	return health.Judgement{}
}

// busy is 23,500 lines per second, the highest rate known.
const busy = 23_500

func TestRightAnswersAboutBuffers(t *testing.T) {
	tests := map[string]func(*testing.T){
		"batches of 1174 1175 1176 1177 … lines are Healthy": func(t *testing.T) {
			o := observe(newParser(steady(100)))
			for i := range int64(200) {
				got := o.poll(func(r *report.Report) { inFlight(r, 1174+i) })
				if !slices.Contains(fine, got.Verdict) {
					t.Fatalf("%d lines: %+v", 1174+i, got)
				}
			}
		},
		"1000 10000 100000 1000000, a parser without a bound, is Growing by the fourth": func(t *testing.T) {
			p := newParser(steady(0))
			p.hung, p.boundless = true, true
			o := observe(p)
			lines := []float64{1000, 10_000, 100_000, 1_000_000}
			p.feed = func(since time.Duration) float64 {
				i := int((since - tick) / (5 * time.Second))
				before := 0.0
				if i > 0 {
					before = lines[i-1]
				}
				return (lines[i] - before) / 5
			}
			for range 3 {
				if got := o.poll(nil); got.Verdict.Bad() {
					t.Fatalf("%+v", got)
				}
			}
			got := o.poll(nil)
			if got.Verdict != health.Growing || got.Reason != health.ReasonUnbounded ||
				!strings.HasPrefix(got.Message, "buffers hold 477 MiB in ") ||
				!strings.HasSuffix(got.Message, " lines, over their bound of 68 MiB") {
				t.Errorf("got %+v", got)
			}
		},
		"43878206 lines, then 44095415, are Growing on the first report": func(t *testing.T) {
			o := observe(newParser(steady(100)))
			for _, n := range []int64{43_878_206, 44_095_415} {
				got := o.poll(func(r *report.Report) { inFlight(r, n) })
				if got.Verdict != health.Growing || got.Reason != health.ReasonUnbounded {
					t.Fatalf("%d lines: %+v", n, got)
				}
			}
		},
	}
	for name, test := range tests {
		t.Run(name, test)
	}
}

func TestRightAnswersAboutNormalTraffic(t *testing.T) {
	tests := map[string]func(*testing.T){
		"a steady 23,500 lines a second with a sink that takes 500 ms is Healthy": func(t *testing.T) {
			p := newParser(steady(busy))
			p.latency = 500 * time.Millisecond
			observe(p).only(t, 30*time.Minute, fine...)
		},
		"bursts at random are Healthy": func(t *testing.T) {
			p := newParser(nil)
			p.feed = func(time.Duration) float64 { return busy * p.randomness.ExpFloat64() * p.randomness.ExpFloat64() }
			p.sinkSpeed = 40e6
			observe(p).only(t, 2*time.Hour, fine...)
		},
		"a saw-tooth of 0 to 9,000 lines is Healthy": func(t *testing.T) {
			p := newParser(steady(2000))
			p.latency = 4500 * time.Millisecond // 9,000 lines arrive meanwhile
			observe(p).only(t, 30*time.Minute, fine...)
			if p.lastBatch < 5000*lineBytes {
				t.Errorf("the batches have only %.0f lines: the test says nothing", p.lastBatch/lineBytes)
			}
		},
		"a buffer at its limit, with a batch as large in flight, is Healthy": func(t *testing.T) {
			o := observe(newParser(steady(busy)))
			for range 100 {
				got := o.poll(func(r *report.Report) {
					inFlight(r, limit/lineBytes)
					r.Streams[0].BufferLines, r.Streams[0].BufferBytes = limit/lineBytes, limit
				})
				if !slices.Contains(fine, got.Verdict) {
					t.Fatalf("%+v", got)
				}
			}
		},
		"a burst to 200,000 lines that drains in a minute is Healthy": func(t *testing.T) {
			p := newParser(func(since time.Duration) float64 {
				if since > 10*time.Minute && since <= 10*time.Minute+time.Second {
					return 200_000
				}
				return 500
			})
			p.sinkSpeed = 200_000 * lineBytes / 60
			o := observe(p)
			o.only(t, 10*time.Minute, fine...)
			o.only(t, 10*time.Minute, health.Healthy, health.CatchingUp)
			if got := o.Judgement(); got.Verdict != health.Healthy {
				t.Errorf("in the end %+v", got)
			}
		},
		"a filter that lets nothing pass is Healthy, though the sink is never used": func(t *testing.T) {
			o := observe(newParser(steady(busy)))
			for range 200 {
				if got := o.poll(
					func(r *report.Report) { r.Streams[0].Sink = report.Sink{State: report.SinkHealthy} },
				); !slices.Contains(fine, got.Verdict) {
					t.Fatalf("%+v", got)
				}
			}
		},
		"a quiet stream is Healthy": func(t *testing.T) {
			p := newParser(func(since time.Duration) float64 {
				if since%(20*time.Minute) == 0 {
					return 10
				}
				return 0
			})
			o := observe(p)
			for range 720 {
				got := o.poll(func(r *report.Report) { r.Streams[0].Name = "MiscEvents" })
				if !slices.Contains(fine, got.Verdict) {
					t.Fatalf("%+v", got)
				}
			}
		},
		"an hour switch is Healthy": func(t *testing.T) {
			// The old file is drained for two seconds. The new one is not read meanwhile.
			p := newParser(steady(busy))
			o := observe(p)
			for range 10 {
				o.only(t, 5*time.Minute, fine...)
				p.readSpeed = 1
				p.run(2 * time.Second)
				p.readSpeed = 0
			}
		},
		"a torn tail for an hour is Healthy: it is no waiting line": func(t *testing.T) {
			p := newParser(func(since time.Duration) float64 {
				if since < 10*time.Minute {
					return 100
				}
				return 0
			})
			o := observe(p)
			for range 720 {
				got := o.poll(func(r *report.Report) {
					r.Streams[0].Name = "Fills"
					*r.Streams[0].UncommittedBytes = 0 // a torn line does not count
				})
				if !slices.Contains(fine, got.Verdict) {
					t.Fatalf("%+v", got)
				}
			}
		},
	}
	for name, test := range tests {
		t.Run(name, test)
	}
}

func TestRightAnswersAboutBacklogs(t *testing.T) {
	tests := map[string]func(*testing.T){
		"a 40 M-line backlog is CatchingUp until it is worked off": func(t *testing.T) {
			p := newParser(steady(busy))
			p.written = 40e6 * lineBytes
			p.arrivals = []arrival{{p.written, start}}
			p.sinkSpeed = 60e6
			o := observe(p)
			got := o.reaches(t, 65*time.Second, health.CatchingUp, "OrderStatuses")
			if !strings.HasPrefix(
				got.Message, "OrderStatuses: 1m5s behind, 16 GiB waiting, gaining 42 MiB/s: caught up in about 6m30s",
			) {
				t.Errorf("it says %q", got.Message)
			}
			o.only(t, 10*time.Minute, health.CatchingUp, health.Healthy)
			if got := o.Judgement(); got.Verdict != health.Healthy {
				t.Errorf("in the end %+v", got)
			}
		},
		"a sink that is back after 10 minutes is CatchingUp once the outage is over": func(t *testing.T) {
			p := newParser(steady(busy))
			p.sinkSpeed = 60e6
			o := observe(p)
			o.only(t, 10*time.Minute, fine...)
			p.sink = refuses
			o.reaches(t, 40*time.Second, health.SinkDown, "OrderStatuses")
			o.only(t, 10*time.Minute, health.SinkDown)
			p.sink = answers
			o.only(t, 75*time.Second, health.SinkDown, health.CatchingUp)
			if got := o.Judgement(); got.Verdict != health.CatchingUp {
				t.Errorf("after 75 s %+v", got)
			}
			o.only(t, 10*time.Minute, health.CatchingUp, health.Healthy)
			if got := o.Judgement(); got.Verdict != health.Healthy {
				t.Errorf("in the end %+v", got)
			}
		},
		"a slow sink within one batch is not down: records are acknowledged": func(t *testing.T) {
			p := newParser(func(since time.Duration) float64 {
				if since <= time.Minute {
					return busy
				}
				return 100
			})
			p.sinkSpeed = 0.3e6 // a batch of 32 MiB takes two minutes
			observe(p).only(t, 10*time.Minute, health.Unknown, health.Healthy, health.Overloaded, health.CatchingUp)
		},
	}
	for name, test := range tests {
		t.Run(name, test)
	}
}

func TestRightAnswersAboutFaults(t *testing.T) {
	tests := map[string]func(*testing.T){
		"a dead sink is SinkDown within 40 s": func(t *testing.T) {
			p := newParser(steady(busy))
			o := observe(p)
			o.only(t, 10*time.Minute, fine...)
			p.sink = refuses
			o.reaches(t, 40*time.Second, health.SinkDown, "OrderStatuses")
			o.only(t, time.Hour, health.SinkDown)
		},
		"a black hole is SinkDown within 40 s": func(t *testing.T) {
			p := newParser(steady(busy))
			o := observe(p)
			o.only(t, 10*time.Minute, fine...)
			p.sink = swallows
			o.reaches(t, 40*time.Second, health.SinkDown, "OrderStatuses")
			o.only(t, time.Hour, health.SinkDown)
		},
		"a hang is Stuck within 40 s, though its reader goes on filling the buffer": func(t *testing.T) {
			p := newParser(steady(130))
			o := observe(p)
			o.only(t, 10*time.Minute, fine...)
			p.hung = true
			got := o.reaches(t, 40*time.Second, health.Stuck, "OrderStatuses")
			if !strings.HasSuffix(got.Message, "behind, nothing parsed or acknowledged for 30s; the sink is idle") {
				t.Errorf("it says %q", got.Message)
			}
			o.only(t, time.Hour, health.Stuck)
		},
		"a sink at half speed is Overloaded by it": func(t *testing.T) {
			p := newParser(steady(busy))
			o := observe(p)
			o.only(t, 10*time.Minute, fine...)
			p.sinkSpeed = busy * lineBytes / 2
			got := o.reaches(t, 200*time.Second, health.Overloaded, health.ReasonSink)
			want := "OrderStatuses: 1m13s behind and losing 5.7 MiB/s, sink 99 % busy: the sink is too slow for 11 MiB/s of " +
				"lines"
			if got.Message != want {
				t.Errorf("it says %q", got.Message)
			}
			o.only(t, time.Hour, health.Overloaded)
		},
		"a parser at half speed is ParserSlow": func(t *testing.T) {
			p := newParser(steady(busy))
			o := observe(p)
			o.only(t, 10*time.Minute, fine...)
			p.speed, p.cores = busy*lineBytes/2/0.8, 0.8 // it waits for itself, and uses 0.8 of its 2 cores
			slow := func(r *report.Report) { r.Process.CPULimit = 2 }
			for o.Judgement().Verdict != health.Growing {
				if got := o.poll(slow); o.now.Sub(start) > 10*time.Minute+120*time.Second ||
					got.Verdict.Bad() && got.Verdict != health.Growing {
					t.Fatalf("after %s: %+v", o.now.Sub(start), got)
				}
			}
			want := "OrderStatuses: 43s behind and losing 5.6 MiB/s, sink idle, CPU 40 %: the parser is slow"
			if got := o.Judgement(); got.Reason != health.ReasonParserSlow || got.Message != want {
				t.Errorf("got %+v", got)
			}
		},
		"a parser with too little processor time is Overloaded by that": func(t *testing.T) {
			p := newParser(steady(busy))
			o := observe(p)
			o.only(t, 10*time.Minute, fine...)
			p.speed = busy * lineBytes * 0.7 / p.cores
			got := o.reaches(t, 300*time.Second, health.Overloaded, health.ReasonCPU)
			if !strings.HasSuffix(got.Message, ", CPU 100 % of 2 cores: raise the CPU limit or filter more") {
				t.Errorf("it says %q", got.Message)
			}
			o.only(t, time.Hour, health.Overloaded)
		},
		"a disk that reads slower than the node writes is Overloaded by that": func(t *testing.T) {
			p := newParser(steady(busy))
			o := observe(p)
			o.only(t, 10*time.Minute, fine...)
			p.readSpeed = busy * lineBytes * 0.5
			got := o.reaches(t, 300*time.Second, health.Overloaded, health.ReasonDisk)
			if !strings.Contains(got.Message, ", waiting for reads 9") ||
				!strings.HasSuffix(got.Message, " % of the time: the disk is too slow") {
				t.Errorf("it says %q", got.Message)
			}
		},
	}
	for name, test := range tests {
		t.Run(name, test)
	}
}

func TestRightAnswersAboutMemoryAndTheSource(t *testing.T) {
	tests := map[string]func(*testing.T){
		"a leak of 5 MiB a minute is Leaking before memory runs out": func(t *testing.T) {
			p := newParser(steady(100))
			p.memory = func(since time.Duration) int64 { return sawTooth(p, 80<<20) + int64(since.Minutes()*5*(1<<20)) }
			o := observe(p)
			got := o.reaches(t, 80*time.Minute, health.Leaking, health.ReasonMemory)
			if r := o.report(); *r.Process.RSSBytes < 307<<20 || *r.Process.RSSBytes > 400<<20 {
				t.Errorf("at %d MiB of 512", *r.Process.RSSBytes>>20)
			}
			if !strings.HasPrefix(got.Message, "memory is at 36") ||
				!strings.Contains(got.Message, " MiB of 512 MiB and has grown by 5.0 MiB/min for 48 min: full in about ") {
				t.Errorf("it says %q", got.Message)
			}
		},
		"memory that saw-tooths near its limit does not leak": func(t *testing.T) {
			p := newParser(steady(100))
			p.memory = func(time.Duration) int64 { return sawTooth(p, 440<<20) }
			observe(p).only(t, 6*time.Hour, fine...)
		},
		"order statuses that are not written for a minute are SourceStalled": func(t *testing.T) {
			p := newParser(steady(100))
			o := observe(p)
			o.only(t, 10*time.Minute, fine...)
			p.feed = steady(0)
			got := o.reaches(t, 65*time.Second, health.SourceStalled, "OrderStatuses")
			if got.Message != "OrderStatuses: no new line for 1m0s: check the Hyperliquid node" {
				t.Errorf("it says %q", got.Message)
			}
			o.only(t, time.Hour, health.SourceStalled)
			p.feed = steady(100)
			o.only(t, 65*time.Second, health.SourceStalled, health.Healthy)
			if got := o.Judgement(); got.Verdict != health.Healthy {
				t.Errorf("a minute after the node is back %+v", got)
			}
		},
	}
	for name, test := range tests {
		t.Run(name, test)
	}
}

// inFlight puts lines into the current batch.
func inFlight(r *report.Report, lines int64) {
	s := &r.Streams[0]
	s.InFlightLines, s.InFlightBytes, s.LastBatchLines = lines, lines*lineBytes, lines
}

// sawTooth returns memory that garbage collection reduces every few seconds.
func sawTooth(p *parser, around int64) int64 {
	return around + p.randomness.Int64N(50<<20) - 30<<20
}
