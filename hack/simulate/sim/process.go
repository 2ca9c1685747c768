package sim

import (
	"math"
	"math/rand/v2"
)

// process is the parser's process, with the machine and the sink that its streams share.
type process struct {
	cores       float64 // that it may use
	workers     float64 // goroutines that process a batch
	coreSpeed   float64 // bytes a second of one of them
	idleCPU     float64 // cores at rest
	spins       float64 // cores that a fault wastes
	memoryLimit float64 // bytes
	base        float64 // live bytes at rest
	wander      float64 // slow relative drift of live bytes

	bandwidth float64 // bytes a second that the sink accepts
	latency   float64 // seconds of a batch
	sync      float64 // seconds of a commit
	stalls    float64 // seconds between two stalls of the sink, on average: a slow sync, a broker's failover
	stallFrom float64
	stallTo   float64

	lossy    float64 // share of polls without an answer
	lostFrom float64 // the pod is unreachable from then
	lostTo   float64

	began     float64
	downUntil float64 // it does not run until then; 0: it runs
	killed    bool
	cpu       float64 // seconds
	held      float64 // bytes in buffers and in flight
	rss       float64 // bytes
	resident  int64   // the same, for the report's pointer
	leaked    float64 // bytes
}

// stall draws the sink's next stall once the last is over.
func (p *process) stall(r *rand.Rand, now float64) {
	if now < p.stallTo {
		return
	}
	p.stallFrom = now + p.stalls*r.ExpFloat64()
	p.stallTo = p.stallFrom + min(scale(r, 0.5, 8)*r.ExpFloat64(), 25)
}

// silent reports whether a poll gets no answer.
func (p *process) silent(r *rand.Rand, now float64) bool {
	if now >= p.lostTo {
		p.lostFrom = now + 10*86400*r.ExpFloat64()
		p.lostTo = p.lostFrom + scale(r, 5, 300)
	}
	return now >= p.lostFrom || r.Float64() < p.lossy
}

// speed returns the bytes a second of a stream's processor.
func (p *process) speed() float64 { return p.coreSpeed * min(p.workers, p.cores) }

// live returns the bytes that a garbage collection leaves.
func (p *process) live(*Target) float64 { return p.base*(1+p.wander) + p.held/2 + p.leaked }

// updateMemory advances the resident memory. Between two collections it grows to twice the live bytes. The runtime
// returns memory slowly, and stays below the limit as long as the live bytes allow.
func (p *process) updateMemory(t *Target, dt float64) {
	if p.downUntil > 0 {
		return
	}
	const hours = 2 * 3600
	p.wander += -p.wander*dt/hours + 0.06*math.Sqrt(2*dt/hours)*t.random.NormFloat64()
	live := p.live(t)
	heap := max(live*(1+t.random.Float64()), p.rss*math.Exp(-dt/90))
	heap = min(heap, max(live*between(t.random, 1.01, 1.05), goShare*p.memoryLimit))
	p.rss = heap
	if p.rss > p.memoryLimit {
		p.killed = true
	}
}
