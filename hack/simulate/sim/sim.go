// Package sim is a Hyperliquid node, the parser beside it and the sink behind it, as arithmetic: what is written, read, parsed,
// acknowledged and committed from one report to the next, with noise in everything. A day of one stream costs milliseconds.
//
// It is what the operator's judgement is tried on, and must never know of it: it imports nothing of the operator but the report's
// type, and no figure in it was chosen with a look at how a report is judged. Volumes, line sizes and habits of nodes are public
// figures and measurements of real output; the parser's are those of docs/benchmarks.md; both are drawn anew for each target, from
// ranges that are wider than what was seen.
//
// # How it counts
//
// Between two reports a stream is a fluid. Bytes come in at a rate that drifts, bursts, follows the time of the day and the node's
// own outages; they are lines, so that a quiet stream gets whole ones. A byte costs the processor p seconds and the sink k seconds,
// a batch costs the sink its latency, a commit its sync. A batch takes over what came in while the one before was processed, which
// gives its length; what cannot be served waits in the order of its coming, so that the lag is an age and not a guess. At the
// moment of a report what is in flight, how old the request in hand is and where garbage collection stands are drawn at random.
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
	// bufferLimit of the process, and span, the most that is delivered with one request.
	bufferLimit = 32 * mebibyte
	span        = 256 << 10
	// goShare of the memory limit is what the Go runtime plans with.
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

// New draws a target of a kind. Equal seeds give equal targets. The fault, if any, begins at its time.
func New(seed uint64, traffic Traffic, fault Fault) *Target {
	t := &Target{random: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), fault: fault}
	t.draw(traffic)
	return t
}

// Now is the time that the target has come to.
func (t *Target) Now() time.Time { return at(t.seconds) }

func at(seconds float64) time.Time { return Start.Add(time.Duration(seconds * float64(time.Second))) }

// wall is what the clock of the parser's machine shows at a time.
func (t *Target) wall(seconds float64) time.Time {
	ahead := t.clock.ahead
	if seconds >= t.clock.setAt {
		ahead += t.clock.step
	}
	return at(seconds + ahead)
}

// Streams is how many streams the parser reads.
func (t *Target) Streams() int { return len(t.streams) }

// Dead is true once the process was killed for its memory.
func (t *Target) Dead() bool { return t.process.killed }

// Advance lets time pass.
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
	t.process.remember(t, dt)
}

// ration shares out processor time of which there is too little, and returns what is used: whoever needs less than an even part gets
// all of it, as a scheduler sees to it.
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

// Steady sees to it that the node has no outages; a line without an end for an hour is one too.
func (t *Target) Steady() {
	t.node.outages = false
	for i := range t.streams {
		t.streams[i].tornTo = 0
	}
}

// Down takes the process away for a time: its pod was deleted, or its machine starts anew.
func (t *Target) Down(d time.Duration) { t.process.downUntil = t.seconds + d.Seconds() }

// Restart replaces the process: it is away for a time, begins with what is on disk, and is rid of what was wrong with itself.
func (t *Target) Restart(away time.Duration) {
	t.Down(away)
	if t.fault.active && t.fault.Kind.own() {
		t.fault, t.process.spins = Fault{}, 0
		for i := range t.streams {
			t.streams[i].slow = 1
		}
	}
}

// start begins a process.
func (t *Target) start() {
	t.process.downUntil, t.process.began = 0, t.seconds
	t.process.cpu, t.process.rss, t.process.leaked = 0.2, 0, 0
	for i := range t.streams {
		t.streams[i].start(t.seconds)
	}
}

// Report is what the parser says now; nil when nobody answers. It is good until the next call.
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
		t.streams[i].tell(t, &r.Streams[i])
	}
	if t.fault.active && t.fault.Kind == Liar && t.random.Float64() < t.fault.Severity {
		lie(t.random, r)
	}
	return r
}

// spread is a factor with median 1: two thirds of all lie within 1/by and by.
func spread(r *rand.Rand, by float64) float64 { return math.Exp(r.NormFloat64() * math.Log(by)) }

// between is uniform.
func between(r *rand.Rand, low, high float64) float64 { return low + (high-low)*r.Float64() }

// scale is uniform in the logarithm.
func scale(r *rand.Rand, low, high float64) float64 { return low * math.Pow(high/low, r.Float64()) }

// poisson draws how often something happens that happens mean times on average.
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
