package sim

import (
	"math"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// start starts the stream in a new process: it continues after the last commit, and observes everything that waits
// again.
func (s *stream) start(now float64) {
	s.acked, s.parsed, s.read = s.committed, s.committed, s.committed
	s.readTotal, s.parsedTotal, s.ackedTotal, s.commitTotal = 0, 0, 0, 0
	s.delivered, s.lines, s.batches, s.busy, s.wait, s.retries, s.extra = 0, 0, 0, 0, 0, 0, 0
	s.lastLine, s.lastAck, s.outstandingSince, s.retryingSince = 0, 0, 0, 0
	s.healthySince = now
	s.inFlight, s.buffered, s.lag = 0, 0, 0
	s.queue = queue{}
	if s.seen > s.committed {
		s.queue.push(waiting{s.committed, s.seen, now, now + 1e-3})
		s.lastLine = now
	}
}

// arrive draws what the node wrote in the interval.
func (s *stream) arrive(t *Target, from, dt float64) {
	r := t.random
	s.drift += -s.drift*dt/s.driftTime + s.driftSize*math.Sqrt(2*dt/s.driftTime)*r.NormFloat64()
	factor := t.node.factor * math.Exp(s.drift-s.driftSize*s.driftSize/2)
	if from >= s.nextBurst {
		s.burst, s.burstTo = scale(r, 2, 20), from+scale(r, 1, 60)
		s.nextBurst = s.burstTo + s.bursts*r.ExpFloat64()
	}
	if from < s.burstTo {
		factor *= 1 + (s.burst-1)*min((s.burstTo-from)/dt, 1)
	}
	s.arrived = poisson(r, s.rate*factor*dt/s.line)
	s.bytes = s.arrived * s.line
	if s.arrived > 0 {
		s.bytes *= max(1+0.15*r.NormFloat64()/math.Sqrt(s.arrived), 0.3)
	}
	if t.node.switched && s.kind.hourly > 0 && s.arrived > 0 {
		long := scale(r, 1e5, s.kind.hourly)
		s.bytes, s.largest = s.bytes+long, max(s.largest, long)
	}
	if s.chunk > 0 && s.arrived > 0 {
		s.pending += s.bytes
		s.bytes = math.Floor(s.pending/s.chunk) * s.chunk
		s.pending -= s.bytes
		s.arrived = min(s.arrived, s.bytes/s.line)
	}
	if t.seconds < s.tornTo || t.fault.hides(s) { // nothing follows an endless line, nor comes from what cannot be read
		s.pending, s.bytes, s.arrived = s.pending+s.bytes, 0, 0
	} else if s.chunk == 0 && s.pending > 0 {
		s.bytes, s.pending = s.bytes+s.pending, 0
	}
	if s.bytes == 0 {
		return
	}
	s.largest = max(s.largest, s.line*between(r, 1, 1.2))
	s.queue.push(waiting{s.seen, s.seen + s.bytes, from, t.seconds})
	s.seen += s.bytes
	s.lastLine = t.seconds - dt*min(r.Float64()/max(s.arrived, 1), 1)
}

// plan computes how much of what waits can be served in the interval if there is enough processor time.
func (s *stream) plan(t *Target, from, dt float64) {
	p := &t.process
	s.served, s.open, s.openEnd = 0, 0, 0
	if p.downUntil > 0 || p.killed {
		return
	}
	closedFrom, closedTo := p.stallFrom, p.stallTo
	if s.pass == 0 {
		closedFrom, closedTo = math.Inf(1), math.Inf(1) // it sends nothing to the sink
	}
	if since := t.fault.blocks(s); since > 0 {
		closedFrom, closedTo = since, math.Inf(1)
	}
	// What comes while the sink is closed at the end of the interval waits. Closed time before that only takes time away.
	s.openEnd = max(t.seconds-max(closedFrom, from), 0)
	if closedTo < t.seconds {
		s.openEnd = 0
	}
	s.open = dt - max(min(closedTo, t.seconds)-max(closedFrom, from), 0)
	if t.node.switched {
		s.open = max(s.open-between(t.random, 1.5, 2.5), 0) // the old file is drained before the new one is read
	}
	if s.open < 1e-6 { // a rounding error is no time
		s.open = 0
		return
	}
	perByte := s.slow / p.speed()
	s.perByte = 0
	overhead := 0.002 // the reader gathers
	if s.pass > 0 {
		s.perByte = s.pass * s.expand / p.bandwidth
		overhead += p.latency
	}
	most := s.buffer / 2 // of a batch
	rate, old := s.bytes/dt, s.seen-s.bytes-s.acked
	if load := rate * (perByte + s.perByte); load < 1 {
		s.cycle = min(overhead/(1-load), overhead+most*(perByte+s.perByte))
	} else {
		s.cycle = overhead + most*(perByte+s.perByte)
	}
	if old > 0 { // the next batch includes the backlog
		s.cycle = max(s.cycle, overhead+min(most, old)*(perByte+s.perByte))
	}
	s.overhead = overhead
	open := s.open / (1 + p.sync) // a commit a second
	can := open / (perByte + s.perByte + overhead/most)
	reachable := s.seen - s.acked
	if s.openEnd > 0 {
		reachable -= s.bytes * min(s.openEnd/dt, 1)
	}
	s.served = max(min(reachable, can), 0)
}

// serve carries out the plan.
func (s *stream) serve(t *Target, dt float64) {
	if t.process.downUntil > 0 || t.process.killed {
		return
	}
	left := s.seen - s.acked - s.served
	if left < s.line/2 && s.served > 0 { // lines are whole
		s.served, left = s.seen-s.acked, 0
	}
	s.acked += s.served
	s.ackedTotal += s.served
	s.lines += s.served / s.line
	s.delivered += s.served / s.line * s.pass
	s.queue.drop(s.acked)
	s.wait += dt * s.readWait * t.random.Float64()
	if t.fault.Kind == BrokenBound && t.fault.active {
		s.extra += s.served * t.fault.Severity
	}
	s.exchange(t, dt, left)
	s.hold(t, dt, left)
	s.advance(t)
}

// exchange simulates the requests to the sink: how long they took, when the sink last answered, and which is
// outstanding. left waits.
func (s *stream) exchange(t *Target, dt, left float64) {
	r, p := t.random, &t.process
	if s.served > 0 {
		batches := max(min(s.open/max(s.cycle, 1e-3), s.served/s.line), 1)
		s.batches += batches
		busy := p.sync * min(s.open, batches)
		if s.pass > 0 {
			busy += s.served*s.perByte + p.latency*batches
			s.lastAck = t.seconds - min(s.openEnd+s.cycle*r.Float64(), dt)
		}
		s.busy += min(busy, s.open)
		s.retryingSince = 0
	}
	s.outstandingSince = 0
	switch {
	case t.fault.blocks(s) > 0:
		t.fault.hold(t, s, dt)
	case left > 0 && s.openEnd > 0 && s.pass > 0: // the sink stalls
		s.outstandingSince = max(t.seconds-s.openEnd, p.stallFrom)
		s.busy += s.openEnd
	case s.pass > 0 && r.Float64() < s.busyShare(dt):
		s.outstandingSince = t.seconds - r.Float64()*max(min(p.latency+s.perByte*min(left+s.bytes*s.cycle/dt, span), dt),
			1e-4)
	}
}

// hold updates what the stream buffers, and how old that is.
func (s *stream) hold(t *Target, dt, left float64) {
	r := t.random
	if left > 0 {
		s.lag = t.seconds - s.queue.oldest(s.acked)
		s.inFlight = min(left, s.buffer/2)
		s.buffered = min(left-s.inFlight, s.buffer-s.inFlight)
		return
	}
	// It keeps up: what came within the last batch is in flight.
	s.inFlight = min(s.bytes/dt*s.cycle*r.Float64(), s.bytes, s.buffer/2)
	s.buffered = min(s.bytes/dt*s.cycle*r.Float64(), s.bytes-s.inFlight)
	s.lag = 0
	if s.inFlight+s.buffered > 0 {
		s.lag = s.cycle * between(r, 0.5, 2)
	}
}

// advance moves the positions of the stages.
func (s *stream) advance(t *Target) {
	r := t.random
	parsed := s.acked + s.inFlight*r.Float64()
	if s.parsed < parsed && t.fault.blocks(s) == 0 { // a blocked stream does not parse more
		s.parsedTotal += parsed - s.parsed
		s.parsed = parsed
	}
	if read := min(s.acked+s.inFlight+s.buffered, s.seen); read > s.read && t.fault.readersRun() {
		s.readTotal += read - s.read
		s.read = read
	}
	if s.committed < s.acked && s.openEnd <= 0 {
		// What was acknowledged since the last commit, up to a second ago, is not committed yet.
		committed := s.acked - s.served*min(r.Float64()/max(s.open, 1), 1)
		s.commitTotal += max(committed-s.committed, 0)
		s.committed = max(committed, s.committed)
	}
}

// busyShare returns the share of the time in which a request to the sink is outstanding.
func (s *stream) busyShare(dt float64) float64 {
	if s.cycle <= 0 || s.bytes == 0 {
		return 0
	}
	batches := min(dt/s.cycle, max(s.arrived, 1))
	return (s.served*s.perByte + (s.overhead-0.002)*batches) / dt
}

func (s *stream) held() float64 { return s.inFlight + s.buffered + s.extra }

// writeReport writes the stream's part of the report.
func (s *stream) writeReport(t *Target, out *report.Stream) {
	out.Name, out.Mode, out.State, out.Blocked = s.kind.name, s.mode, report.Running, nil
	if t.fault.hides(s) {
		out.State = report.Blocked
		out.Blocked = &report.BlockedPath{
			Path: s.kind.name + "/hourly", Error: "permission denied", Errno: "EACCES", Since: t.wall(t.fault.At), Count: 1,
		}
	}
	out.BufferBytes, out.BufferLines = int64(s.buffered), int64(s.buffered/s.line)
	out.InFlightBytes, out.InFlightLines = int64(s.inFlight+s.extra), int64((s.inFlight+s.extra)/s.line)
	out.BufferLimitBytes, out.LargestLineBytes = bufferLimit, int64(s.largest)
	out.LastBatchLines = int64(s.bytes / s.line)
	out.BatchesTotal, out.DeliveredTotal = int64(s.batches), int64(s.delivered)
	out.LinesTotal, out.EventsTotal = int64(s.lines), int64(s.lines)
	s.waiting = int64(s.seen) - int64(s.committed)
	out.UncommittedBytes, out.LagSeconds = &s.waiting, &s.lag
	out.ReadBytesTotal, out.ParsedBytesTotal = int64(s.readTotal), int64(s.parsedTotal)
	out.AckedBytesTotal, out.CommittedBytesTotal = int64(s.ackedTotal), int64(s.commitTotal)
	out.ReadWaitSecondsTotal = s.wait
	out.LastLineAt = nil
	if s.lastLine > 0 {
		s.lineAt = t.wall(s.lastLine)
		out.LastLineAt = &s.lineAt
	}
	out.Sink = report.Sink{State: report.SinkHealthy, BusySecondsTotal: s.busy, RetriesTotal: int64(s.retries)}
	s.since = t.wall(s.healthySince)
	if s.retryingSince > 0 {
		out.Sink.State, out.Sink.LastError = report.SinkRetrying, "connection refused"
		s.since = t.wall(s.retryingSince)
	}
	out.Sink.Since = &s.since
	if s.lastAck > 0 {
		s.ackAt = t.wall(s.lastAck)
		out.Sink.LastAckAt = &s.ackAt
	}
	if s.outstandingSince > 0 {
		out.Sink.OutstandingSeconds = max(t.seconds-s.outstandingSince, 1e-6)
	}
}
