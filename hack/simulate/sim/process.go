package sim

import (
	"math"
	"math/rand/v2"
)

// process is the parser's, and the machine and sink that its streams share.
type process struct {
	cores       float64 // that it may use
	workers     float64 // that process a batch
	coreSpeed   float64 // bytes a second that one of them does
	idleCPU     float64 // cores at rest
	spins       float64 // cores that a fault burns besides
	memoryLimit float64 // bytes
	base        float64 // live bytes at rest
	wander      float64 // of live bytes, slowly

	bandwidth float64 // bytes a second that the sink takes
	latency   float64 // seconds of a batch
	sync      float64 // seconds of a commit
	stalls    float64 // seconds between two stalls of the sink, on average: a slow sync, a broker's failover
	stallFrom float64
	stallTo   float64

	lossy    float64 // share of polls without an answer
	lostFrom float64 // nobody reaches the pod from then
	lostTo   float64

	began     float64
	downUntil float64 // it does not run until then; 0: it runs
	killed    bool
	cpu       float64 // seconds
	held      float64 // bytes in buffers and in flight
	rss       float64 // bytes
	resident  int64   // the same, which the report points to
	leaked    float64 // bytes
}

// stall moves on to the sink's next stall once the last is over.
func (p *process) stall(r *rand.Rand, now float64) {
	if now < p.stallTo {
		return
	}
	p.stallFrom = now + p.stalls*r.ExpFloat64()
	p.stallTo = p.stallFrom + min(scale(r, 0.5, 8)*r.ExpFloat64(), 25)
}

// silent is whether a poll brings no answer.
func (p *process) silent(r *rand.Rand, now float64) bool {
	if now >= p.lostTo {
		p.lostFrom = now + 10*86400*r.ExpFloat64()
		p.lostTo = p.lostFrom + scale(r, 5, 300)
	}
	return now >= p.lostFrom || r.Float64() < p.lossy
}

// speed is bytes a second that a stream's processor does.
func (p *process) speed() float64 { return p.coreSpeed * min(p.workers, p.cores) }

// live is the bytes that a collection of garbage leaves.
func (p *process) live(*Target) float64 { return p.base*(1+p.wander) + p.held/2 + p.leaked }

// remember moves resident memory on: between two collections it grows to twice what is live, the runtime gives back slowly, and
// plans with less than the limit for as long as what is live lets it.
func (p *process) remember(t *Target, dt float64) {
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
