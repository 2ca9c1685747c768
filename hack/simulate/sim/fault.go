package sim

// Kind is the kind of a fault.
type Kind int

const (
	// None is no fault.
	None Kind = iota
	// DeadSink refuses every request.
	DeadSink
	// BlackHole accepts requests and does not answer.
	BlackHole
	// SlowSink accepts Severity, a fraction, of what is written.
	SlowSink
	// Hang stops the processor of one stream, or of all.
	Hang
	// SlowParser processes Severity, a fraction, of what is written, because it waits for itself.
	SlowParser
	// ShortCPU limits the parser to the processor time for Severity, a fraction, of what is written.
	ShortCPU
	// Leak makes live memory grow by Severity MiB a minute.
	Leak
	// BrokenBound keeps Severity, a fraction, of what was delivered.
	BrokenBound
	// Unreadable denies the parser access to the directory of one stream, or of all.
	Unreadable
	// Liar puts untrue figures into Severity, a fraction, of the reports. The parser itself works.
	Liar
)

func (k Kind) String() string {
	return [...]string{"none", "dead sink", "black hole", "slow sink", "hang", "slow parser", "short CPU", "leak",
		"broken bound",
		"unreadable source", "liar"}[k]
}

// Waits reports whether the fault makes lines wait.
func (f Fault) Waits() bool {
	switch f.Kind {
	case Leak, BrokenBound, Unreadable, Liar: // lines that cannot be read are not known to wait
		return false
	}
	return true
}

// own reports whether the fault is in the process, and ends with it.
func (k Kind) own() bool {
	switch k {
	case Hang, SlowParser, Leak, BrokenBound:
		return true
	}
	return false
}

// Fault is a fault of a target.
type Fault struct {
	Kind     Kind
	Severity float64
	// At is when it begins, in seconds since the start; less than a day.
	At float64

	active   bool
	only     *stream // the stream that is affected; nil: all are
	readers  bool    // the readers continue during a hang
	timeout  float64 // seconds after which a request to a black hole is abandoned and repeated; 0: never
	failTime float64 // seconds that a request to a dead sink may take to fail
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
		f.failTime = scale(r, 0.001, 10)
	case BlackHole:
		if r.IntN(2) == 0 {
			f.timeout = scale(r, 5, 120)
		}
	case Hang:
		f.readers = r.IntN(4) > 0
		if r.IntN(2) == 0 {
			f.only = busiest
		}
	case Unreadable:
		if r.IntN(2) == 0 {
			f.only = &t.streams[r.IntN(len(t.streams))]
		}
	case SlowSink:
		// That is the rate of the sink as a whole: syncs and latency are part of it, and grow with its load.
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
				p.spins = p.cores * between(r, 0.05, 0.5) // it wastes some
			}
			left := 1/(f.Severity*s.rate) - s.perByteOfSink(p) - (0.002+p.latency)/(s.buffer/2)
			s.slow = max(left*p.speed(), 1)
		}
	case ShortCPU:
		need := 0.0
		for i := range t.streams {
			need += t.streams[i].rate * t.streams[i].cpuPerByte
		}
		// The machine stays; the work grows.
		more := (p.cores/f.Severity - p.idleCPU) / need
		for i := range t.streams {
			t.streams[i].cpuPerByte *= more
		}
	}
}

// perByteOfSink returns the seconds that the sink needs for a byte of this stream.
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

// blocks returns since when the fault blocks a stream; 0: it does not.
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
		if f.only == nil || f.only == s {
			return f.At
		}
	}
	return 0
}

// hold updates what a blocked stream shows.
func (f *Fault) hold(t *Target, s *stream, dt float64) {
	now, first := t.seconds, f.At
	switch {
	case s.queue.count > 0:
		first = max(s.queue.oldest(s.acked), f.At)
	case s.acked-s.committed < 0.5:
		return // there is nothing to deliver or to make durable
	}
	switch f.Kind {
	case DeadSink:
		if s.retryingSince == 0 {
			s.retryingSince, s.healthySince = min(first+f.failTime, now), 0
		}
		// A backoff of up to ten seconds lies between two requests.
		s.retries += dt / between(t.random, 5, 10)
		if t.random.Float64() < f.failTime/(f.failTime+8) {
			s.outstandingSince = now - f.failTime*t.random.Float64()
		}
	case BlackHole:
		s.outstandingSince = first
		if f.timeout > 0 && now-first > f.timeout {
			if s.retryingSince == 0 {
				s.retryingSince, s.healthySince = first+f.timeout, 0
			}
			s.retries += dt / f.timeout
			s.outstandingSince = now - f.timeout*t.random.Float64()
		}
		s.busy += min(now-s.outstandingSince, dt)
	}
}

// hides reports whether the parser cannot see what the node writes for a stream.
func (f *Fault) hides(s *stream) bool {
	return f.active && f.Kind == Unreadable && (f.only == nil || f.only == s)
}

// readersRun reports whether the readers read.
func (f *Fault) readersRun() bool { return !f.active || f.Kind != Hang || f.readers }
