package sim

// Kind is what goes wrong.
type Kind int

const (
	// None: nothing.
	None Kind = iota
	// DeadSink refuses every request.
	DeadSink
	// BlackHole takes requests and does not answer.
	BlackHole
	// SlowSink takes Severity of what is written.
	SlowSink
	// Hang: a stream's processor, or all of them, do nothing any more.
	Hang
	// SlowParser does Severity of what is written, by its own fault: it waits for itself.
	SlowParser
	// ShortCPU: the processor time that the parser may use is enough for Severity of what is written.
	ShortCPU
	// Leak: live memory grows by Severity MiB a minute.
	Leak
	// BrokenBound: a part, Severity, of what was delivered is not released.
	BrokenBound
	// Unreadable: the parser may not read a stream's directory, or any.
	Unreadable
	// Liar: some reports hold figures that are not true; the parser itself works.
	Liar
)

func (k Kind) String() string {
	return [...]string{"none", "dead sink", "black hole", "slow sink", "hang", "slow parser", "short CPU", "leak", "broken bound",
		"unreadable source", "liar"}[k]
}

// Waits is whether the fault makes lines wait.
func (f Fault) Waits() bool {
	switch f.Kind {
	case Leak, BrokenBound, Unreadable, Liar: // lines that cannot be read are not known to wait
		return false
	}
	return true
}

// own is whether the fault is the process's own, and goes with it.
func (k Kind) own() bool {
	switch k {
	case Hang, SlowParser, Leak, BrokenBound:
		return true
	}
	return false
}

// Fault is something that goes wrong with a target.
type Fault struct {
	Kind     Kind
	Severity float64
	// At is when it begins, in seconds since the start; less than a day.
	At float64

	active   bool
	one      *stream // that is struck; nil: all are
	readers  bool    // a hang lets the readers go on
	patience float64 // seconds after which a request to a black hole is given up and repeated; 0: never
	tries    float64 // seconds that a request to a dead sink may take to fail
}

// begin is called when the fault's time has come.
func (f *Fault) begin(t *Target) {
	f.active = true
	r, p := t.random, &t.process
	busiest := &t.streams[0]
	total := 0.0
	for i := range t.streams {
		if s := &t.streams[i]; s.rate > busiest.rate {
			busiest = s
		}
		total += t.streams[i].rate
	}
	switch f.Kind {
	case DeadSink:
		f.tries = scale(r, 0.001, 10)
	case BlackHole:
		if r.IntN(2) == 0 {
			f.patience = scale(r, 5, 120)
		}
	case Hang:
		f.readers = r.IntN(4) > 0
		if r.IntN(2) == 0 {
			f.one = busiest
		}
	case Unreadable:
		if r.IntN(2) == 0 {
			f.one = &t.streams[r.IntN(len(t.streams))]
		}
	case SlowSink:
		// The sink as a whole takes so much: syncs and latency are part of it, and grow with its load.
		per := busiest.pass * busiest.expand
		left := 1/(f.Severity*busiest.rate) - p.latency/(busiest.buffer/2) - busiest.slow/p.speed()
		p.bandwidth = per / max(left, 1e-9)
		p.sync = min(p.sync, 0.2)
	case SlowParser:
		for i := range t.streams {
			s := &t.streams[i]
			if s != busiest && r.IntN(2) == 0 {
				continue
			}
			if s == busiest && r.IntN(2) == 0 {
				p.spins = p.cores * between(r, 0.05, 0.5) // it burns some in doing nothing
			}
			left := 1/(f.Severity*s.rate) - s.perByteOfSink(p) - (0.002+p.latency)/(s.buffer/2)
			s.slow = max(left*p.speed(), 1)
		}
	case ShortCPU:
		need := 0.0
		for i := range t.streams {
			need += t.streams[i].rate * t.streams[i].cpuPerByte
		}
		// The machine stays; there is more to do on it.
		more := (p.cores/f.Severity - p.idleCPU) / need
		for i := range t.streams {
			t.streams[i].cpuPerByte *= more
		}
	}
}

// perByteOfSink is what the sink needs for a byte of this stream.
func (s *stream) perByteOfSink(p *process) float64 { return s.pass * s.expand / p.bandwidth }

func (f *Fault) advance(t *Target, now float64) {
	if f.Kind == None {
		return
	}
	if !f.active && now >= f.At {
		f.begin(t)
	}
	if f.active && f.Kind == Leak && t.process.downUntil == 0 {
		t.process.leaked = (now - f.At) / 60 * f.Severity * mebibyte
	}
}

// blocks is since when a stream does nothing because of the fault; 0: it works.
func (f *Fault) blocks(s *stream) float64 {
	if !f.active {
		return 0
	}
	switch f.Kind {
	case DeadSink, BlackHole:
		if s.pass > 0 {
			return f.At
		}
	case Hang:
		if f.one == nil || f.one == s {
			return f.At
		}
	}
	return 0
}

// hold is what a blocked stream shows.
func (f *Fault) hold(t *Target, s *stream, dt float64) {
	now, first := t.seconds, f.At
	switch {
	case s.queue.count > 0:
		first = max(s.queue.oldest(s.acked), f.At)
	case s.acked-s.committed < 0.5:
		return // nothing is to be delivered, nor to be made durable
	}
	switch f.Kind {
	case DeadSink:
		if s.retryingSince == 0 {
			s.retryingSince, s.healthySince = min(first+f.tries, now), 0
		}
		// A backoff of up to ten seconds lies between two requests.
		s.retries += dt / between(t.random, 5, 10)
		if t.random.Float64() < f.tries/(f.tries+8) {
			s.asked = now - f.tries*t.random.Float64()
		}
	case BlackHole:
		s.asked = first
		if f.patience > 0 && now-first > f.patience {
			if s.retryingSince == 0 {
				s.retryingSince, s.healthySince = first+f.patience, 0
			}
			s.retries += dt / f.patience
			s.asked = now - f.patience*t.random.Float64()
		}
		s.busy += min(now-s.asked, dt)
	}
}

// hides is whether the parser cannot see what the node writes for a stream.
func (f *Fault) hides(s *stream) bool {
	return f.active && f.Kind == Unreadable && (f.one == nil || f.one == s)
}

// readsOn is whether the readers read.
func (f *Fault) readsOn() bool { return !f.active || f.Kind != Hang || f.readers }
