package growth

import (
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

const (
	// rateSpan is what rates are taken over: long enough for bursts and commits to level out, short enough to see a change.
	rateSpan = time.Minute
	// moment is how many moments are kept, and spacing the least time between two of them, so that together they cover rateSpan
	// however often a parser is polled.
	moment  = 16
	spacing = 4 * time.Second
	// rateLeast is the least span that a rate is told over, while the window is young.
	rateLeast = 55 * time.Second
)

// moments are the times of the reports whose totals are kept: the newest ones that lie apart. Streams keep their totals in the
// same slots.
type moments struct {
	at    [moment]time.Time
	count int // that were ever taken
}

// take returns the slot for a report's totals; ok is false when the one before is too near.
func (m *moments) take(at time.Time) (slot int, ok bool) {
	return takeSlot(m.at[:], &m.count, at, spacing)
}

// takeSlot puts a time into a ring of which count were ever taken, and returns its slot; ok is false when the time before
// is nearer than apart.
func takeSlot(ring []time.Time, count *int, at time.Time, apart time.Duration) (slot int, ok bool) {
	if n := *count; n > 0 && at.Sub(ring[(n-1)%len(ring)]) < apart {
		return 0, false
	}
	slot = *count % len(ring)
	ring[slot] = at
	*count++
	return slot, true
}

// newestBefore returns which of the times taken is the newest that is at least span before at; ok is false when none
// in the ring is.
func newestBefore(ring []time.Time, count int, at time.Time, span time.Duration) (taken int, ok bool) {
	for i := count - 1; i >= max(count-len(ring), 0); i-- {
		if at.Sub(ring[i%len(ring)]) >= span {
			return i, true
		}
	}
	return 0, false
}

// base returns the slot of the newest moment at least rateSpan before at, or else of the oldest; -1 when there is none.
func (m *moments) base(at time.Time) int {
	taken, ok := newestBefore(m.at[:], m.count, at, rateSpan)
	switch {
	case ok:
		return taken % moment
	case m.count == 0:
		return -1
	case m.count <= moment:
		return 0
	}
	return m.count % moment
}

// span is the time in seconds from a slot to at; 0 when that is too short for a rate.
func (m *moments) span(slot int, at time.Time) float64 {
	if slot < 0 || at.Sub(m.at[slot]) < rateLeast {
		return 0
	}
	return at.Sub(m.at[slot]).Seconds()
}

// point is a stream's totals at one moment.
type point struct {
	written     int64 // bytes that ever waited: committed, waiting, or vanished meanwhile
	uncommitted int64
	acked       int64
	busy        float64 // seconds that the sink was waited for, or found to be retried
	wait        float64 // seconds that reads were waited for
	blind       bool    // written and uncommitted are not known
}

// Sample is what was kept of one report, for a person who wants to know why a verdict was reached.
type Sample struct {
	At         time.Time
	CPUSeconds float64 // of the process, since it started
	Streams    []StreamSample
}

// StreamSample are a stream's totals since its process started, but for Uncommitted, which is a figure of the moment.
type StreamSample struct {
	Name                        string
	Written, Uncommitted, Acked int64   // bytes
	SinkBusy, ReadWait          float64 // seconds
}

// samples copies what is kept, oldest first. A stream of which it was not known what waits is left out of a sample.
func (w *Window) samples() []Sample {
	kept := min(w.times.count, moment)
	out := make([]Sample, 0, kept)
	for i := w.times.count - kept; i < w.times.count; i++ {
		slot := i % moment
		s := Sample{At: w.times.at[slot], CPUSeconds: w.Process.cpuTotal[slot], Streams: make([]StreamSample, 0, len(w.Streams))}
		for j := range w.Streams {
			p := &w.Streams[j].points[slot]
			if p.blind {
				continue
			}
			s.Streams = append(s.Streams, StreamSample{w.Streams[j].Name, p.written, p.uncommitted, p.acked, p.busy, p.wait})
		}
		out = append(out, s)
	}
	return out
}

// Rates are how a stream has moved over the last rateSpan.
type Rates struct {
	// Written by the node and Acked by the sink, in bytes of the node's lines a second.
	Written, Acked float64
	// SinkBusy is the share of the time in which the sink was waited for or retried, and ReadWait that in which the processor
	// waited for the reader though lines were on disk.
	SinkBusy, ReadWait float64
	// Falls is true when fewer bytes are uncommitted than before. A sink that takes records and loses them is asked again and again
	// for the same ones: what it acknowledges is not progress alone.
	Falls bool
	// Known is false while the window is too short, and when it was not known at its start, or is not now, what waits; then all else is 0.
	Known bool
}

// fallsBack is how much faster the backlog grows than it is worked off, in bytes a second.
func (r Rates) fallsBack() float64 { return max(r.Written-r.Acked, 0) }

func (s *Stream) point(from *report.Stream) point {
	p := point{
		acked: from.AckedBytesTotal,
		busy:  from.Sink.BusySecondsTotal + s.retrying,
		wait:  from.ReadWaitSecondsTotal,
		blind: blind(from),
	}
	if !p.blind {
		p.uncommitted = *from.UncommittedBytes
		p.written = from.CommittedBytesTotal + p.uncommitted + from.SkippedBytesTotal
	}
	return p
}

// rate sets the rates from the totals in a slot, span seconds ago; 0: not known.
func (s *Stream) rate(from *report.Stream, span float64, slot int) {
	s.Rates = Rates{}
	if span <= 0 {
		return
	}
	was, is := &s.points[slot], s.point(from)
	if was.blind || is.blind {
		return
	}
	s.Rates = Rates{
		Known:    true,
		Written:  float64(max(is.written-was.written, 0)) / span,
		Acked:    float64(max(is.acked-was.acked, 0)) / span,
		Falls:    is.uncommitted < was.uncommitted,
		SinkBusy: share(is.busy-was.busy, span),
		ReadWait: share(is.wait-was.wait, span),
	}
	s.Best = max(s.Best, s.Rates.Acked)
}

// rate sets the use of the processor likewise.
func (p *Process) rate(from *report.Process, span float64, slot int) {
	p.CPU, p.Cores = 0, from.CPULimit
	if span > 0 && from.CPULimit > 0 {
		p.CPU = share((from.CPUSecondsTotal-p.cpuTotal[slot])/from.CPULimit, span)
	}
}

func share(seconds, span float64) float64 { return min(max(seconds/span, 0), 1) }
