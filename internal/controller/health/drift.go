package health

import (
	"fmt"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Thresholds that distinguish a change of the node's format from a torn or glued line that a crash left behind.
const (
	// driftSpan is the time over which the share of malformed lines is computed.
	driftSpan = 5 * time.Minute
	// driftPoints line counts, at least driftSpacing apart, cover driftSpan.
	driftPoints  = 6
	driftSpacing = time.Minute
	// driftShare is the share of malformed lines that raises the alert: a tenth, as in the alerting rule on the parsers'
	// own metrics. The alert ends below driftClear, so that a share around the tenth does not flap.
	driftShare = 0.1
	driftClear = 0.05
	// driftMinutes is how many minutes of the span must each have a malformed line: a single burst is no drift, however
	// few the lines are.
	driftMinutes = 3
)

// lineCountTimes are the times of the reports whose line counts are kept. Streams keep their counts in the same slots.
type lineCountTimes struct {
	at    [driftPoints]time.Time
	count int // times ever taken
}

// take returns the slot for a report's line counts. ok is false when the last one is less than driftSpacing ago.
func (c *lineCountTimes) take(at time.Time) (slot int, ok bool) {
	return takeSlot(c.at[:], &c.count, at, driftSpacing)
}

// base returns the index of the newest time at least driftSpan before at. ok is false when there is none.
func (c *lineCountTimes) base(at time.Time) (index int, ok bool) {
	return newestBefore(c.at[:], c.count, at, driftSpan)
}

// lineCount holds a stream's totals at one of the times.
type lineCount struct{ lines, malformed int64 }

// Malformed describes a stream's malformed lines over the last driftSpan.
type Malformed struct {
	// Share of the lines that were malformed, and the number of Minutes in which some were.
	Share   float64
	Minutes int
	// Known is false while the window is too short and while there were no lines. The other fields are 0 then.
	Known bool
}

// malformed returns the figures since the line count of the given index.
func (s *Stream) malformed(from *report.Stream, times *lineCountTimes, index int) Malformed {
	was, is := s.lineCounts[index%driftPoints], lineCount{from.LinesTotal, from.MalformedLinesTotal}
	if is.lines <= was.lines {
		return Malformed{}
	}
	lines, malformed := float64(is.lines)-float64(was.lines), float64(is.malformed)-float64(was.malformed)
	out := Malformed{Known: true, Share: share(malformed, lines)}
	for before, i := was, index+1; i <= times.count; i++ {
		next := is
		if i < times.count {
			next = s.lineCounts[i%driftPoints]
		}
		if next.malformed > before.malformed {
			out.Minutes++
		}
		before = next
	}
	return out
}

// observeDrift raises FormatDrift for the stream with the largest share, and ends it when that stream has recovered.
func (a *Alerts) observeDrift(w *Window) {
	var worst *Stream
	for i := range w.Streams {
		s := &w.Streams[i]
		m := &s.Malformed
		if m.Share >= driftShare && m.Minutes >= driftMinutes && (worst == nil || m.Share > worst.Malformed.Share) {
			worst = s
		}
		if a.FormatDrift.Raised() && s.Name == a.driftStream && s.Malformed.Known && s.Malformed.Share < driftClear {
			a.FormatDrift, a.driftStream = Alert{}, ""
		}
	}
	if worst != nil && !a.FormatDrift.Raised() {
		a.driftStream = worst.Name
		a.FormatDrift = Alert{w.At, fmt.Sprintf(
			"%s: %s of the lines in the last %s are malformed and in the dead letter: "+
				"the node may write a new format, which needs a newer parser",
			worst.Name, percent(worst.Malformed.Share), driftSpan)}
	}
}
