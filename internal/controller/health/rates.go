package health

import (
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

const (
	// rateSpan is the time over which rates are computed: long enough for bursts and commits to level out, short enough to
	// show a change.
	rateSpan = time.Minute
	// keptSamples totals, at least sampleSpacing apart, cover rateSpan however often a parser is polled.
	keptSamples   = 16
	sampleSpacing = 4 * time.Second
	// minRateSpan is the least time over which a rate is computed while the window is young.
	minRateSpan = 55 * time.Second
)

// sampleTimes are the times of the reports whose totals are kept. Streams keep their totals in the same slots.
type sampleTimes struct {
	at    [keptSamples]time.Time
	count int // times ever taken
}

// take returns the slot for a report's totals. ok is false when the last one is less than sampleSpacing ago.
func (t *sampleTimes) take(at time.Time) (slot int, ok bool) {
	return takeSlot(t.at[:], &t.count, at, sampleSpacing)
}

// takeSlot puts a time into a ring that count times were ever put into, and returns its slot. ok is false when the last
// time is less than spacing ago.
func takeSlot(ring []time.Time, count *int, at time.Time, spacing time.Duration) (slot int, ok bool) {
	if n := *count; n > 0 && at.Sub(ring[(n-1)%len(ring)]) < spacing {
		return 0, false
	}
	slot = *count % len(ring)
	ring[slot] = at
	*count++
	return slot, true
}

// newestBefore returns the index of the newest time in the ring at least span before at. ok is false when there is
// none.
func newestBefore(ring []time.Time, count int, at time.Time, span time.Duration) (index int, ok bool) {
	for i := count - 1; i >= max(count-len(ring), 0); i-- {
		if at.Sub(ring[i%len(ring)]) >= span {
			return i, true
		}
	}
	return 0, false
}

// base returns the slot of the newest time at least rateSpan before at, or else of the oldest; -1 when there is none.
func (t *sampleTimes) base(at time.Time) int {
	index, ok := newestBefore(t.at[:], t.count, at, rateSpan)
	switch {
	case ok:
		return index % keptSamples
	case t.count == 0:
		return -1
	case t.count <= keptSamples:
		return 0
	}
	return t.count % keptSamples
}

// span returns the seconds from a slot to at; 0 when that is too short for a rate.
func (t *sampleTimes) span(slot int, at time.Time) float64 {
	if slot < 0 || at.Sub(t.at[slot]) < minRateSpan {
		return 0
	}
	return at.Sub(t.at[slot]).Seconds()
}

// totals are a stream's totals at one of the times.
type totals struct {
	written     int64 // bytes committed, waiting, or skipped
	uncommitted int64
	acked       int64
	busy        float64 // seconds spent waiting for the sink, or in which it was found to be retried
	wait        float64 // seconds spent waiting for reads
	unknown     bool    // written and uncommitted are not known
}

// Sample is a part of one report that is kept as evidence for a verdict.
type Sample struct {
	At         time.Time
	CPUSeconds float64 // of the process, since it started
	Streams    []StreamSample
}

// StreamSample holds a stream's totals since its process started. Uncommitted is a current value, not a total.
type StreamSample struct {
	Name                        string
	Written, Uncommitted, Acked int64   // bytes
	SinkBusy, ReadWait          float64 // seconds
}

// samples returns a copy of what is kept, oldest first. A sample leaves out the streams whose backlog was unknown.
func (w *Window) samples() []Sample {
	kept := min(w.sampled.count, keptSamples)
	out := make([]Sample, 0, kept)
	for i := w.sampled.count - kept; i < w.sampled.count; i++ {
		slot := i % keptSamples
		s := Sample{
			At: w.sampled.at[slot], CPUSeconds: w.Process.cpuTotals[slot], Streams: make([]StreamSample, 0, len(w.Streams)),
		}
		for j := range w.Streams {
			p := &w.Streams[j].kept[slot]
			if p.unknown {
				continue
			}
			s.Streams = append(s.Streams,
				StreamSample{w.Streams[j].Name, p.written, p.uncommitted, p.acked, p.busy, p.wait})
		}
		out = append(out, s)
	}
	return out
}

// Rates are a stream's rates over the last rateSpan.
type Rates struct {
	// Written by the node and Acked by the sink, in bytes of the node's lines per second.
	Written, Acked float64
	// SinkBusy is the share of time in which the sink was waited for or retried. ReadWait is the share in which the parser
	// waited for the reader though lines were on disk.
	SinkBusy, ReadWait float64
	// Shrinking is true when fewer bytes are uncommitted than before. A sink that acknowledges records and loses them
	// receives the same ones again: what it acknowledges is no progress by itself.
	Shrinking bool
	// Known is false while the window is too short, and when the backlog is unknown at either end of it. The other fields
	// are 0 then.
	Known bool
}

// backlogGrowth returns by how much writing outpaces acknowledgement, in bytes per second.
func (r Rates) backlogGrowth() float64 { return max(r.Written-r.Acked, 0) }

func (s *Stream) totals(from *report.Stream) totals {
	t := totals{
		acked:   from.AckedBytesTotal,
		busy:    from.Sink.BusySecondsTotal + s.retrying,
		wait:    from.ReadWaitSecondsTotal,
		unknown: backlogUnknown(from),
	}
	if !t.unknown {
		t.uncommitted = *from.UncommittedBytes
		t.written = from.CommittedBytesTotal + t.uncommitted + from.SkippedBytesTotal
	}
	return t
}

// updateRates sets the rates from the totals in a slot, span seconds ago. A span of 0 leaves them unknown.
func (s *Stream) updateRates(from *report.Stream, span float64, slot int) {
	s.Rates = Rates{}
	if span <= 0 {
		return
	}
	was, is := &s.kept[slot], s.totals(from)
	if was.unknown || is.unknown {
		return
	}
	s.Rates = Rates{
		Known:     true,
		Written:   float64(max(is.written-was.written, 0)) / span,
		Acked:     float64(max(is.acked-was.acked, 0)) / span,
		Shrinking: is.uncommitted < was.uncommitted,
		SinkBusy:  share(is.busy-was.busy, span),
		ReadWait:  share(is.wait-was.wait, span),
	}
	s.BestAcked = max(s.BestAcked, s.Rates.Acked)
}

// updateCPU sets the CPU usage likewise.
func (p *Process) updateCPU(from *report.Process, span float64, slot int) {
	p.CPU, p.Cores = 0, from.CPULimit
	if span > 0 && from.CPULimit > 0 {
		p.CPU = share((from.CPUSecondsTotal-p.cpuTotals[slot])/from.CPULimit, span)
	}
}

func share(seconds, span float64) float64 { return min(max(seconds/span, 0), 1) }
