package main

import (
	"math/rand/v2"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/simulate/sim"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

// trial is a fault, and the verdict that is wanted.
type trial struct {
	name     string
	kind     sim.Kind
	severity func(r *rand.Rand) float64
	verdict  health.Verdict
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
		{"dead sink", sim.DeadSink, exactly(1), health.SinkDown, "", 6 * hour, any},
		{"black hole", sim.BlackHole, exactly(1), health.SinkDown, "", 6 * hour, any},
		{"sink at 0.5", sim.SlowSink, exactly(0.5), health.Overloaded, health.ReasonSink, 6 * hour, busy},
		{"sink at 0.8", sim.SlowSink, exactly(0.8), health.Overloaded, health.ReasonSink, 6 * hour, busy},
		{"sink at 0.97", sim.SlowSink, exactly(0.97), health.Overloaded, health.ReasonSink, 12 * hour, busy},
		{"hang", sim.Hang, exactly(1), health.Stuck, "", 6 * hour, any},
		{"parser at 0.5", sim.SlowParser, exactly(0.5), health.Growing, health.ReasonParserSlow, 6 * hour, busy},
		{"parser at 0.8", sim.SlowParser, exactly(0.8), health.Growing, health.ReasonParserSlow, 6 * hour, busy},
		{"CPU at 0.7", sim.ShortCPU, exactly(0.7), health.Overloaded, health.ReasonCPU, 6 * hour, busy},
		{"leak of 1 MiB/min", sim.Leak, exactly(1), health.Leaking, "", 80 * hour, any},
		{"leak of 5 MiB/min", sim.Leak, exactly(5), health.Leaking, "", 20 * hour, any},
		{"leak of 20 MiB/min", sim.Leak, exactly(20), health.Leaking, "", 6 * hour, any},
		{"broken bound", sim.BrokenBound, upTo(0.5), health.Growing, health.ReasonUnbounded, 6 * hour, busy},
		{"unreadable source", sim.Unreadable, exactly(1), health.SourceUnreadable, "", 6 * hour, any},
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
