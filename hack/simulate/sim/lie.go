package sim

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// lie replaces one figure of a report by an untrue one: negative, absurdly large, absent, or of another time. The next
// report sets all of them again.
func lie(r *rand.Rand, out *report.Report) {
	count := []int64{math.MinInt64, -1, 0, 1 << 55, math.MaxInt64}[r.IntN(5)]
	amount := []float64{-math.MaxFloat64, -1, 0, 1e12, math.MaxFloat64}[r.IntN(5)]
	when := []time.Time{{}, time.Unix(0, 0).UTC(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}[r.IntN(3)]
	s := &out.Streams[r.IntN(len(out.Streams))]
	lies := []func(){
		func() { out.Now = when },
		func() { out.StartedAt = when },
		func() { out.Process.RSSBytes = &count },
		func() { out.Process.RSSBytes = nil },
		func() { out.Process.CPUSecondsTotal = amount },
		func() { out.Process.CPULimit = amount },
		func() { s.BufferBytes = count },
		func() { s.InFlightBytes = count },
		func() { s.BufferLimitBytes = count },
		func() { s.LargestLineBytes = count },
		func() { s.UncommittedBytes = &count },
		func() { s.UncommittedBytes = nil },
		func() { s.LagSeconds = &amount },
		func() { s.LagSeconds = nil },
		func() { s.ReadBytesTotal = count },
		func() { s.ParsedBytesTotal = count },
		func() { s.AckedBytesTotal = count },
		func() { s.CommittedBytesTotal = count },
		func() { s.ReadWaitSecondsTotal = amount },
		func() { s.LastLineAt = &when },
		func() { s.Sink.LastAckAt = &when },
		func() { s.Sink.Since = &when },
		func() { s.Sink.OutstandingSeconds = amount },
		func() { s.Sink.BusySecondsTotal = amount },
	}
	lies[r.IntN(len(lies))]()
}
