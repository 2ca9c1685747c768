package main

import (
	"math/rand/v2"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/simulate/sim"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

// trial is a fault, and the verdict that is wanted.
type trial struct {
	name     string
	kind     sim.Kind
	severity func(r *rand.Rand) float64
	verdict  growth.Verdict
	reason   string // empty: any
	within   time.Duration
	traffic  []sim.Traffic
}

// trials returns all faults that verdicts must distinguish.
func trials() []trial {
	exactly := func(f float64) func(*rand.Rand) float64 { return func(*rand.Rand) float64 { return f } }
	upTo := func(f float64) func(*rand.Rand) float64 {
		return func(r *rand.Rand) float64 { return 0.01 + f*r.Float64() }
	}
	busy, any := []sim.Traffic{sim.Busy}, sim.Traffics()
	const hour = time.Hour
	return []trial{
		{"dead sink", sim.DeadSink, exactly(1), growth.SinkDown, "", 6 * hour, any},
		{"black hole", sim.BlackHole, exactly(1), growth.SinkDown, "", 6 * hour, any},
		{"sink at 0.5", sim.SlowSink, exactly(0.5), growth.Overloaded, growth.ReasonSink, 6 * hour, busy},
		{"sink at 0.8", sim.SlowSink, exactly(0.8), growth.Overloaded, growth.ReasonSink, 6 * hour, busy},
		{"sink at 0.97", sim.SlowSink, exactly(0.97), growth.Overloaded, growth.ReasonSink, 12 * hour, busy},
		{"hang", sim.Hang, exactly(1), growth.Stuck, "", 6 * hour, any},
		{"parser at 0.5", sim.SlowParser, exactly(0.5), growth.Growing, growth.ReasonParserSlow, 6 * hour, busy},
		{"parser at 0.8", sim.SlowParser, exactly(0.8), growth.Growing, growth.ReasonParserSlow, 6 * hour, busy},
		{"CPU at 0.7", sim.ShortCPU, exactly(0.7), growth.Overloaded, growth.ReasonCPU, 6 * hour, busy},
		{"leak of 1 MiB/min", sim.Leak, exactly(1), growth.Leaking, "", 80 * hour, any},
		{"leak of 5 MiB/min", sim.Leak, exactly(5), growth.Leaking, "", 20 * hour, any},
		{"leak of 20 MiB/min", sim.Leak, exactly(20), growth.Leaking, "", 6 * hour, any},
		{"broken bound", sim.BrokenBound, upTo(0.5), growth.Growing, growth.ReasonUnbounded, 6 * hour, busy},
		{"unreadable source", sim.Unreadable, exactly(1), growth.SourceUnreadable, "", 6 * hour, any},
	}
}

// run runs a trial once.
func (c *trial) run(seed uint64) naming {
	r := rand.New(rand.NewPCG(seed, 2))
	fault := sim.Fault{Kind: c.kind, Severity: c.severity(r), At: 600 + r.Float64()*4*3600}
	return faulty(seed, c.traffic[r.IntN(len(c.traffic))], fault, c.within)
}

func (c *trial) right(n naming) bool {
	return n.first.Verdict == c.verdict && (c.reason == "" || n.first.Reason == c.reason)
}
