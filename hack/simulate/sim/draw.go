package sim

import "math/rand/v2"

// The framings of lines.
const (
	line      = "Line"
	streaming = "Streaming"
	byBlock   = "ByBlock"
)

// draw draws everything in which targets differ.
func (t *Target) draw(traffic Traffic) {
	t.drawNode()
	t.drawClock()
	t.drawProcess()
	r := t.random
	all := kinds()
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	all = all[:1+r.IntN(len(all))]
	if traffic == Busy && t.fault.Kind != None {
		all[0] = kinds()[0] // a fault that slows a stream down needs a busy one
		all = unique(all)
	}
	mode := []string{line, streaming, byBlock}[r.IntN(3)]
	blocks := between(r, 8, 16) // a second
	for _, k := range all {
		s := t.drawStream(k, traffic)
		s.frame(t, mode, blocks)
		t.streams = append(t.streams, s)
	}
	t.provide()
	for i := range t.streams {
		t.streams[i].start(0)
	}
	t.process.cpu = 0.2
}

func (t *Target) drawNode() {
	r, n := t.random, &t.node
	n.day, n.phase = between(r, 0, 0.6), between(r, 0, 6.28)
	n.factor = 1
	if n.outages = t.fault.Kind == None; n.outages {
		n.every = scale(r, 0.5*86400, 5*86400)
		n.next = n.every * r.ExpFloat64()
	} else {
		n.day = 0 // a fault that is a share of what is written applies to the whole day
	}
}

// drawClock sets one clock in three wrong, by up to a quarter of an hour. Half of those are set during the first day.
func (t *Target) drawClock() {
	r, c := t.random, &t.clock
	if r.IntN(3) > 0 {
		return
	}
	c.ahead = either(r) * scale(r, 1, 900)
	if r.IntN(2) == 0 {
		c.setAt, c.step = 86400*r.Float64(), either(r)*scale(r, 1, 900)
	}
}

func (t *Target) drawProcess() {
	r, p := t.random, &t.process
	p.cores = []float64{0.5, 1, 2, 2, 4, 8, 16, 32}[r.IntN(8)]
	p.workers = float64(1 + r.IntN(4))
	p.coreSpeed = scale(r, 80e6, 450e6)
	p.idleCPU = scale(r, 0.002, 0.02)
	p.memoryLimit = []float64{512, 512, 768, 1024, 2048, 4096}[r.IntN(6)] * mebibyte
	p.base = scale(r, 15, 90) * mebibyte
	p.stalls = scale(r, 1800, 12*3600)
	p.lossy = scale(r, 1e-6, 1e-3)
	if r.IntN(2) == 0 { // files
		p.bandwidth, p.latency, p.sync = scale(r, 200e6, 2000e6), scale(r, 1e-5, 1e-3), scale(r, 1e-3, 0.1)
	} else { // a broker
		p.bandwidth, p.latency, p.sync = scale(r, 50e6, 300e6), scale(r, 1e-3, 0.5), 0
	}
}

func (t *Target) drawStream(k kind, traffic Traffic) stream {
	r := t.random
	s := stream{
		kind: k, rate: scale(r, k.low, k.high), line: k.line * spread(r, 1.2),
		driftTime: scale(r, 10, 1800), driftSize: between(r, 0.05, 0.5), bursts: scale(r, 1800, 6*3600),
		pass: 1, expand: between(r, 0.9, 1.6), slow: 1, readWait: scale(r, 1e-4, 0.02),
	}
	switch traffic {
	case Busy:
	case Sparse:
		s.rate = s.line * scale(r, 0.1, 50)
	case Quiet:
		s.rate = s.line * scale(r, 1.0/1200, 0.1)
	}
	if k.everyBlock {
		s.rate = max(s.rate, 10*s.line) // the chain never stops
	}
	switch {
	case t.fault.Kind != None: // a sink that receives nothing shows no fault
		s.pass = scale(r, 0.2, 1)
	case r.IntN(4) == 0:
		s.pass = 0
	default:
		s.pass = scale(r, 1e-3, 1)
	}
	s.drift = s.driftSize * r.NormFloat64()
	s.nextBurst = s.bursts * r.ExpFloat64()
	if t.fault.Kind == None && !k.everyBlock && r.IntN(20) == 0 {
		s.tornTo = 3600
	}
	return s
}

// frame sets how the stream is split into lines.
func (s *stream) frame(t *Target, mode string, blocks float64) {
	s.mode = mode
	switch mode {
	case byBlock: // empty blocks are lines too
		s.rate = max(s.rate, 110*blocks)
		s.line = s.rate / blocks
	case streaming:
		s.line *= 1.2
	case line:
		if t.random.IntN(3) == 0 {
			s.chunk = scale(t.random, 4<<10, 64<<10)
		}
	}
	s.largest = s.line
}

// either is 1 or -1.
func either(r *rand.Rand) float64 { return float64(2*r.IntN(2) - 1) }

// unique keeps the first of each kind.
func unique(all []kind) []kind {
	out := all[:0:0]
	for _, k := range all {
		seen := false
		for _, o := range out {
			seen = seen || o.name == k.name
		}
		if !seen {
			out = append(out, k)
		}
	}
	return out
}

// provide makes the machine and the sink large enough for the usual load, as an operator of a node does. What bursts or
// a node that catches up need beyond that is part of the simulation.
func (t *Target) provide() {
	const room, sinkRoom = 2.5, 4 // times the average
	p := &t.process
	cpu, sink, fastest, total := p.idleCPU, 0.0, 0.0, 0.0
	for i := range t.streams {
		s := &t.streams[i]
		cpu += s.rate / p.coreSpeed
		sink += s.rate * s.pass * s.expand
		fastest, total = max(fastest, s.rate), total+s.rate
	}
	for i := range t.streams { // busy streams take most of the buffer
		s := &t.streams[i]
		s.buffer = max(bufferLimit*s.rate/total, 2*mebibyte)
		p.latency = min(p.latency, s.buffer/2/(sinkRoom*s.rate))
	}
	p.cores = max(p.cores, room*cpu)
	p.bandwidth = max(p.bandwidth, sinkRoom*sink)
	p.coreSpeed = max(p.coreSpeed, room*fastest)
	for i := range t.streams {
		t.streams[i].cpuPerByte = 1 / p.coreSpeed
	}
}
