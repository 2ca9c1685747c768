// Package sim simulates a Hyperliquid node, its parser and its sink by arithmetic: what is written, read, parsed,
// acknowledged and committed between two reports, with noise in everything. A day of one stream takes milliseconds.
//
// The operator's judgement is tested on it. So the package must never know that judgement: it imports nothing of the
// operator but the report's type, and no figure was chosen by how reports are judged. Volumes, line sizes and habits of
// nodes are public figures and measurements of real output. Those of the parser are from docs/benchmarks.md. Both are
// drawn for each target, from wider ranges than were observed.
//
// # Model
//
// Between two reports a stream is a fluid. Bytes come in at a rate that drifts, bursts, and follows the time of day and
// the node's outages. They are lines, so a quiet stream gets whole ones. A byte takes p seconds of the processor and k
// seconds of the sink, a batch the latency of the sink, and a commit its sync. A batch contains what came in while the
// previous one was processed, which determines its length. What cannot be served waits in order of arrival, so the lag
// is an age. At the time of a report, the bytes in flight, the age of the outstanding request and the state of garbage
// collection are random.
package sim

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Start is when every simulation begins.
var Start = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)

const (
	mebibyte = 1 << 20
	// bufferLimit is that of the process. span is the largest request, in bytes.
	bufferLimit = 32 * mebibyte
	span        = 256 << 10
	// goShare is the share of the memory limit that the Go runtime is given.
	goShare = 0.9
)

// Target is one node with its parser. It is not safe for concurrent use.
type Target struct {
	random  *rand.Rand
	seconds float64 // since Start
	node    node
	clock   clock
	process process
	streams []stream
	fault   Fault
	report  report.Report
}

// New draws a target. Equal seeds give equal targets. The fault, if any, begins at its time.
func New(seed uint64, traffic Traffic, fault Fault) *Target {
	t := &Target{random: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), fault: fault}
	t.draw(traffic)
	return t
}

// Now returns the simulated time.
func (t *Target) Now() time.Time { return at(t.seconds) }

func at(seconds float64) time.Time { return Start.Add(time.Duration(seconds * float64(time.Second))) }

// wall returns what the clock of the parser's machine shows at a time.
func (t *Target) wall(seconds float64) time.Time {
	ahead := t.clock.ahead
	if seconds >= t.clock.setAt {
		ahead += t.clock.step
	}
	return at(seconds + ahead)
}

// Streams returns how many streams the parser reads.
func (t *Target) Streams() int { return len(t.streams) }

// Dead reports whether the process was killed for its memory.
func (t *Target) Dead() bool { return t.process.killed }

// Advance advances the time.
func (t *Target) Advance(d time.Duration) {
	dt := d.Seconds()
	from := t.seconds
	t.seconds += dt
	t.node.advance(t.random, from, t.seconds)
	if t.process.downUntil > 0 && t.seconds >= t.process.downUntil {
		t.start()
	}
	t.fault.advance(t, t.seconds)
	t.process.stall(t.random, t.seconds)

	need := 0.0
	for i := range t.streams {
		s := &t.streams[i]
		s.arrive(t, from, dt)
		s.plan(t, from, dt)
		need += s.served * s.cpuPerByte
	}
	if most := t.process.cores * dt * between(t.random, 0.97, 1); need > most {
		need = t.ration(need, most)
	}
	t.process.cpu += need + dt*(t.process.idleCPU+t.process.spins)*(0.5+t.random.Float64())
	t.process.held = 0
	for i := range t.streams {
		t.streams[i].serve(t, dt)
		t.process.held += t.streams[i].held()
	}
	t.process.updateMemory(t, dt)
}

// ration distributes scarce processor time as a scheduler does, and returns what is used: a stream that needs less than
// an even share gets all that it needs.
func (t *Target) ration(need, most float64) (used float64) {
	even := most / float64(len(t.streams))
	small := 0.0
	for i := range t.streams {
		if n := t.streams[i].served * t.streams[i].cpuPerByte; n <= even {
			small += n
		}
	}
	fit := (most - small) / (need - small)
	for i := range t.streams {
		s := &t.streams[i]
		if s.served*s.cpuPerByte > even {
			s.served *= fit
		}
	}
	return most
}

// Steady disables the node's outages. A line without an end for an hour is one, too.
func (t *Target) Steady() {
	t.node.outages = false
	for i := range t.streams {
		t.streams[i].tornTo = 0
	}
}

// Down stops the process for a time: its pod was deleted, or its machine reboots.
func (t *Target) Down(d time.Duration) { t.process.downUntil = t.seconds + d.Seconds() }

// Restart replaces the process after a time without one. The new one begins with what is on disk, without faults of its
// own.
func (t *Target) Restart(away time.Duration) {
	t.Down(away)
	if t.fault.active && t.fault.Kind.own() {
		t.fault, t.process.spins = Fault{}, 0
		for i := range t.streams {
			t.streams[i].slow = 1
		}
	}
}

// start starts a process.
func (t *Target) start() {
	t.process.downUntil, t.process.began = 0, t.seconds
	t.process.cpu, t.process.rss, t.process.leaked = 0.2, 0, 0
	for i := range t.streams {
		t.streams[i].start(t.seconds)
	}
}

// Report returns the parser's report; nil if it does not answer. It is valid until the next call.
func (t *Target) Report() *report.Report {
	if t.process.downUntil > 0 || t.process.killed || t.process.silent(t.random, t.seconds) {
		return nil
	}
	r := &t.report
	r.Parser, r.Version = "hlparser", "sim"
	r.Now, r.StartedAt = t.wall(t.seconds), t.wall(t.process.began)
	p := &r.Process
	t.process.resident = int64(t.process.rss)
	p.RSSBytes, p.HeapBytes = &t.process.resident, int64(t.process.live(t))
	p.Goroutines, p.MemoryLimitBytes = 10+4*len(t.streams), int64(t.process.memoryLimit)
	p.CPUSecondsTotal, p.CPULimit = t.process.cpu, t.process.cores
	if r.Streams == nil {
		r.Streams = make([]report.Stream, len(t.streams))
	}
	for i := range t.streams {
		t.streams[i].writeReport(t, &r.Streams[i])
	}
	if t.fault.active && t.fault.Kind == Liar && t.random.Float64() < t.fault.Severity {
		lie(t.random, r)
	}
	return r
}

// spread draws a factor with median 1. Two thirds lie within 1/by and by.
func spread(r *rand.Rand, by float64) float64 { return math.Exp(r.NormFloat64() * math.Log(by)) }

// between draws from a uniform distribution.
func between(r *rand.Rand, low, high float64) float64 { return low + (high-low)*r.Float64() }

// scale draws from a log-uniform distribution.
func scale(r *rand.Rand, low, high float64) float64 { return low * math.Pow(high/low, r.Float64()) }

// poisson draws from a Poisson distribution with that mean.
func poisson(r *rand.Rand, mean float64) float64 {
	if mean <= 0 {
		return 0
	}
	if mean > 16 {
		return max(math.Round(mean+math.Sqrt(mean)*r.NormFloat64()), 0)
	}
	n, p, least := 0.0, 1.0, math.Exp(-mean)
	for p *= r.Float64(); p > least; p *= r.Float64() {
		n++
	}
	return n
}
