package growth

import (
	"fmt"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// When malformed lines are a change of the node's format, and not a torn or glued line that a crash left behind.
const (
	// driftSpan is what the share of malformed lines is taken over.
	driftSpan = 5 * time.Minute
	// driftPoints kept at least driftApart from each other cover it.
	driftPoints = 6
	driftApart  = time.Minute
	// driftShare of the lines raises the alert: a tenth, as in the rule that parsers' own metrics go by. Below
	// driftCalm it ends, so that a share about the tenth does not come and go.
	driftShare = 0.1
	driftCalm  = 0.05
	// driftMinutes of the span must each have a malformed line: what comes once is no drift, however few the lines are.
	driftMinutes = 3
)

// minutes are the times of the reports whose counts of lines are kept. Streams keep their counts in the same slots.
type minutes struct {
	at    [driftPoints]time.Time
	count int // that were ever taken
}

// take returns the slot for a report's counts; ok is false when the one before is too near.
func (m *minutes) take(at time.Time) (slot int, ok bool) {
	return takeSlot(m.at[:], &m.count, at, driftApart)
}

// base is which of the times taken is the newest that is driftSpan before at; ok is false when none is.
func (m *minutes) base(at time.Time) (taken int, ok bool) {
	return newestBefore(m.at[:], m.count, at, driftSpan)
}

// lineCount is a stream's totals at one of the minutes.
type lineCount struct{ lines, malformed int64 }

// Malformed is how a stream's lines were in the last driftSpan.
type Malformed struct {
	// Share of the lines that were malformed, and in how many Minutes of the span some were.
	Share   float64
	Minutes int
	// Known is false while the window is too short, and when there was no line; then all else is 0.
	Known bool
}

// malformed works out the share since the time that was taken as the given one.
func (s *Stream) malformed(from *report.Stream, m *minutes, taken int) Malformed {
	was, is := s.counts[taken%driftPoints], lineCount{from.LinesTotal, from.MalformedLinesTotal}
	if is.lines <= was.lines {
		return Malformed{}
	}
	lines, malformed := float64(is.lines)-float64(was.lines), float64(is.malformed)-float64(was.malformed)
	out := Malformed{Known: true, Share: share(malformed, lines)}
	for before, i := was, taken+1; i <= m.count; i++ {
		next := is
		if i < m.count {
			next = s.counts[i%driftPoints]
		}
		if next.malformed > before.malformed {
			out.Minutes++
		}
		before = next
	}
	return out
}

// drift raises the alert for the stream with the largest share, and ends it when that stream's lines are fine again.
func (a *Alerts) drift(w *Window) {
	var worst *Stream
	for i := range w.Streams {
		s := &w.Streams[i]
		m := &s.Malformed
		if m.Share >= driftShare && m.Minutes >= driftMinutes && (worst == nil || m.Share > worst.Malformed.Share) {
			worst = s
		}
		if a.FormatDrift.Raised() && s.Name == a.drifts && s.Malformed.Known && s.Malformed.Share < driftCalm {
			a.FormatDrift, a.drifts = Alert{}, ""
		}
	}
	if worst != nil && !a.FormatDrift.Raised() {
		a.drifts = worst.Name
		a.FormatDrift = Alert{w.At, fmt.Sprintf(
			"%s: %s of the lines of %s are malformed: the node may write a new format, which takes a newer parser; "+
				"they are in the dead letter",
			worst.Name, percent(worst.Malformed.Share), driftSpan)}
	}
}
