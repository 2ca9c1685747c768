package sim

import (
	"math"
	"math/rand/v2"
)

// node is the Hyperliquid node: when it writes, and how much relative to the usual rate.
type node struct {
	outages  bool    // it has outages
	every    float64 // seconds between two, on average
	next     float64
	downTo   float64 // it writes nothing until then; 0: it writes
	behind   float64 // seconds of chain that it must catch up with
	catchUp  float64 // the factor of its rate while it does
	day      float64 // how far traffic swings over a day, 0 to 1
	phase    float64
	factor   float64 // of all streams now
	switched bool    // an hour began since the last report
}

func (n *node) advance(r *rand.Rand, from, to float64) {
	n.switched = math.Floor(from/3600) != math.Floor(to/3600)
	day := 1 + n.day*math.Sin(2*math.Pi*to/86400+n.phase)
	switch {
	case n.outages && n.downTo == 0 && to >= n.next:
		n.downTo = to + scale(r, 30, 3600)
		n.factor = 0
	case n.downTo > 0 && to < n.downTo:
		n.behind += to - from
		n.factor = 0
	case n.downTo > 0:
		n.downTo, n.next = 0, to+n.every*r.ExpFloat64()
		n.catchUp = scale(r, 2, 10)
		n.factor = day
	case n.behind > 0:
		// It replays from its saved state, at many times the usual rate, until it has caught up.
		n.behind -= (n.catchUp - 1) * (to - from)
		n.factor = day * n.catchUp * between(r, 0.7, 1.3)
	default:
		n.factor = day
	}
}

// clock is how the machine's clock differs from the operator's.
type clock struct {
	ahead float64 // seconds
	setAt float64 // when it is set
	step  float64 // seconds, by which it is set forward
}

// kind is a kind of stream that a node writes.
type kind struct {
	name       string
	low, high  float64 // bytes a second of a busy node
	line       float64 // bytes
	hourly     float64 // bytes of one line at the start of each hour; 0: none
	everyBlock bool    // nearly every block has events
}

// kinds returns the kinds of stream, by known volumes: 10.8 to 52 GB of order statuses an hour, 3 to 15 GB of book
// diffs.
func kinds() []kind {
	return []kind{
		{"OrderStatuses", 3e6, 14.5e6, 500, 0, true},
		{"RawBookDiffs", 0.8e6, 4.2e6, 285, 0, true},
		{"Fills", 2e4, 4e5, 520, 0, false},
		{"Trades", 2e4, 3e5, 600, 0, false},
		{"MiscEvents", 500, 5e4, 400, 20e6, false},
		{"OracleUpdates", 500, 3e4, 700, 0, false},
		{"SystemActions", 50, 5e3, 350, 0, false},
		{"TwapStatuses", 50, 5e3, 380, 0, false},
	}
}

// Traffic is how much a node writes.
type Traffic int

const (
	// Busy is a node that writes every stream at full volume.
	Busy Traffic = iota
	// Sparse is a few lines a second.
	Sparse
	// Quiet is one line in several minutes.
	Quiet
)

// Traffics returns all kinds of traffic.
func Traffics() []Traffic { return []Traffic{Busy, Sparse, Quiet} }

func (t Traffic) String() string { return [...]string{"busy", "sparse", "quiet"}[t] }
