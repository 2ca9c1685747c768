package growth

import (
	"fmt"
	"math"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// retentionShare is the age, as a share of the retention, at which unread data is near its end: half of the time is left to act.
// The alert ends below retentionCalm, so that an age about the half does not come and go.
const (
	retentionShare = 0.5
	retentionCalm  = 0.4
)

// AlertKind is what an alert is about.
type AlertKind string

const (
	// DataLost: lines were on disk and were never read.
	DataLost AlertKind = "DataLost"
	// DataGap: the node left blocks out. The parser has lost nothing; its consumers lack something all the same.
	DataGap AlertKind = "DataGap"
	// NearRetention: lines that were not delivered will soon be deleted by whoever prunes the node's files.
	NearRetention AlertKind = "NearRetention"
	// FormatDrift: for minutes, a good part of a stream's lines has been malformed. The node may write a format that
	// the parser does not know.
	FormatDrift AlertKind = "FormatDrift"
)

// AlertKinds lists every kind, worst first.
func AlertKinds() []AlertKind { return []AlertKind{DataLost, FormatDrift, NearRetention, DataGap} }

// Alert says since when something is so, and what, with the figures of that moment. The zero value is an alert that is not raised.
type Alert struct {
	Since   time.Time
	Message string
}

// Raised reports whether it is so.
func (a Alert) Raised() bool { return !a.Since.IsZero() }

// Alerts are what a person should know of a target whatever the verdict on it. DataLost and DataGap stay for the life
// of the pod, or until they are acknowledged: what is lost does not come back. The others end.
type Alerts struct {
	DataLost, DataGap, NearRetention, FormatDrift Alert

	// Lost and Gap are what DataLost and DataGap are about, as of when they were raised.
	Lost, Gap Loss

	drifts string // the stream that FormatDrift is about
}

// Of returns the alert of a kind; one that is not raised for a kind that there is not.
func (a Alerts) Of(kind AlertKind) Alert {
	switch kind {
	case DataLost:
		return a.DataLost
	case DataGap:
		return a.DataGap
	case NearRetention:
		return a.NearRetention
	case FormatDrift:
		return a.FormatDrift
	}
	return Alert{}
}

// LossOf returns what the alert of a kind is about; the zero Loss for a kind that is no loss.
func (a Alerts) LossOf(kind AlertKind) Loss {
	switch kind {
	case DataLost:
		return a.Lost
	case DataGap:
		return a.Gap
	case NearRetention, FormatDrift:
	}
	return Loss{}
}

// Loss is what one process of a parser has counted since it started, over all streams.
type Loss struct {
	Process time.Time // when it started
	Bytes   int64     // of whole lines that were never read
	Files   int64     // that vanished before they were read to their end
	Blocks  int64     // that the node left out
}

// Covers reports whether a loss is of the same process as other, and no less of anything. Starts are compared by the
// second, which is as exact as they are kept.
func (l Loss) Covers(other Loss) bool {
	return l.Process.Truncate(time.Second).Equal(other.Process.Truncate(time.Second)) &&
		l.Bytes >= other.Bytes && l.Files >= other.Files && l.Blocks >= other.Blocks
}

// lossesOf adds up what the streams of a report say. A stream's totals are those of its process.
func lossesOf(r *report.Report) (lost, gap Loss) {
	lost.Process, gap.Process = r.StartedAt, r.StartedAt
	for i := range r.Streams {
		s := &r.Streams[i]
		lost.Bytes, lost.Files = sum(lost.Bytes, s.SkippedBytesTotal), sum(lost.Files, s.PrunedUnreadTotal)
		gap.Blocks = sum(gap.Blocks, s.BlockGapsTotal)
	}
	return lost, gap
}

// sum adds what may be any figure.
func sum(a, b int64) int64 {
	if b = max(b, 0); a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// acknowledged is what a person has acknowledged of a process's losses.
type acknowledged struct{ lost, gap Loss }

// acknowledge ends what is about no more than was acknowledged.
func (a *Alerts) acknowledge(acked *acknowledged) {
	if a.DataLost.Raised() && acked.lost.Covers(a.Lost) {
		a.DataLost, a.Lost = Alert{}, Loss{}
	}
	if a.DataGap.Raised() && acked.gap.Covers(a.Gap) {
		a.DataGap, a.Gap = Alert{}, Loss{}
	}
}

// see takes in a report. Totals count from the start of the process, so one that is not zero has risen in this pod.
// What was acknowledged raises nothing.
func (a *Alerts) see(r *report.Report, at time.Time, settings *Settings, acked *acknowledged) {
	lost, gap := lossesOf(r)
	if !a.DataLost.Raised() && (lost.Bytes > 0 || lost.Files > 0) && !acked.lost.Covers(lost) {
		worst := &r.Streams[0]
		for i := range r.Streams {
			if s := &r.Streams[i]; s.SkippedBytesTotal > worst.SkippedBytesTotal ||
				s.SkippedBytesTotal == worst.SkippedBytesTotal && s.PrunedUnreadTotal > worst.PrunedUnreadTotal {
				worst = s
			}
		}
		a.Lost, a.DataLost = lost, Alert{at, fmt.Sprintf(
			"%s: %s never read, %s vanished too early: keep the node's files for longer",
			worst.Name, bytes(worst.SkippedBytesTotal), files(worst.PrunedUnreadTotal))}
	}
	if !a.DataGap.Raised() && gap.Blocks > 0 && !acked.gap.Covers(gap) {
		worst := &r.Streams[0]
		for i := range r.Streams {
			if s := &r.Streams[i]; s.BlockGapsTotal > worst.BlockGapsTotal {
				worst = s
			}
		}
		a.Gap, a.DataGap = gap, Alert{at, fmt.Sprintf(
			"%s: the node left out %s blocks up to block %d: look at the node's peers",
			worst.Name, humanize.Comma(worst.BlockGapsTotal), worst.LastBlock)}
	}
	a.retention(r, at, settings)
}

// retention sees how old the oldest line is that was not delivered.
func (a *Alerts) retention(r *report.Report, at time.Time, settings *Settings) {
	var oldest *report.Stream
	unsure := false
	for i := range r.Streams {
		switch s := &r.Streams[i]; {
		case blind(s):
			unsure = true
		case oldest == nil || *s.LagSeconds > *oldest.LagSeconds:
			oldest = s
		}
	}
	if settings.Retention <= 0 {
		a.NearRetention = Alert{}
		return
	}
	if oldest == nil {
		return
	}
	age, kept := seconds(*oldest.LagSeconds), settings.Retention
	switch {
	case float64(age) < retentionCalm*float64(kept):
		if !unsure { // a stream of which that is not known may be the one
			a.NearRetention = Alert{}
		}
	case float64(age) >= retentionShare*float64(kept) && !a.NearRetention.Raised():
		a.NearRetention = Alert{at, fmt.Sprintf("%s: lines wait for %s, and files are kept for %s: deliver or keep them before they are deleted",
			oldest.Name, round(age), round(kept))}
	}
}

func files(n int64) string {
	if n == 1 {
		return "1 file"
	}
	return humanize.Comma(n) + " files"
}
