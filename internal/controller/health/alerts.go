package health

import (
	"fmt"
	"math"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// retentionShare is the age of unread data, as a share of the retention, that raises NearRetention: half of the time is
// left to act. The alert ends below retentionClear, so that an age around the half does not flap.
const (
	retentionShare = 0.5
	retentionClear = 0.4
)

// AlertKind is the subject of an alert.
type AlertKind string

const (
	// DataLost means that lines were on disk and were never read.
	DataLost AlertKind = "DataLost"
	// DataGap means that the node left blocks out. The parser has lost nothing; its consumers lack data all the same.
	DataGap AlertKind = "DataGap"
	// NearRetention means that lines will soon be deleted by the pruner of the node's files before they are delivered.
	NearRetention AlertKind = "NearRetention"
	// FormatDrift means that a good part of a stream's lines has been malformed for minutes. The node may write a format
	// that the parser does not know.
	FormatDrift AlertKind = "FormatDrift"
)

// AlertKinds returns all kinds, worst first.
func AlertKinds() []AlertKind { return []AlertKind{DataLost, FormatDrift, NearRetention, DataGap} }

// Alert is a condition with the time it began and a message with the figures of that moment. The zero value is an alert
// that is not raised.
type Alert struct {
	Since   time.Time
	Message string
}

// Raised reports whether the alert is raised.
func (a Alert) Raised() bool { return !a.Since.IsZero() }

// Alerts are a target's alerts, which do not depend on its verdict. DataLost and DataGap stay for the life of the pod
// or until they are acknowledged: lost data does not come back. The others end, NearRetention by a report alone: it
// outlives the pod.
type Alerts struct {
	DataLost, DataGap, NearRetention, FormatDrift Alert

	// Lost and Gap are the totals behind DataLost and DataGap, as of when they were raised.
	Lost, Gap Loss

	driftStream string // the subject of FormatDrift
}

// Of returns the alert of a kind. It is not raised for an unknown kind.
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

// LossOf returns the totals behind the alert of a kind; the zero Loss for a kind that is no loss.
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
	Process time.Time // start of the process
	Bytes   int64     // of whole lines that were never read
	Files   int64     // deleted before they were read to their end
	Blocks  int64     // left out by the node
}

// Covers reports whether l is a loss of the same process as other, and at least as large in every figure. Starts are
// compared to the second, the precision they are stored with.
func (l Loss) Covers(other Loss) bool {
	return l.Process.Truncate(time.Second).Equal(other.Process.Truncate(time.Second)) &&
		l.Bytes >= other.Bytes && l.Files >= other.Files && l.Blocks >= other.Blocks
}

// lossesOf adds up the totals of a report's streams, each since the start of the process.
func lossesOf(r *report.Report) (lost, gap Loss) {
	lost.Process, gap.Process = r.StartedAt, r.StartedAt
	for i := range r.Streams {
		s := &r.Streams[i]
		lost.Bytes, lost.Files = sum(lost.Bytes, s.SkippedBytesTotal), sum(lost.Files, s.PrunedUnreadTotal)
		gap.Blocks = sum(gap.Blocks, s.BlockGapsTotal)
	}
	return lost, gap
}

// sum adds b to a without overflow. A negative b counts as zero.
func sum(a, b int64) int64 {
	if b = max(b, 0); a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// acknowledged are the losses of a process that a user has acknowledged.
type acknowledged struct{ lost, gap Loss }

// acknowledge ends the alerts that are about no more than was acknowledged.
func (a *Alerts) acknowledge(acked *acknowledged) {
	if a.DataLost.Raised() && acked.lost.Covers(a.Lost) {
		a.DataLost, a.Lost = Alert{}, Loss{}
	}
	if a.DataGap.Raised() && acked.gap.Covers(a.Gap) {
		a.DataGap, a.Gap = Alert{}, Loss{}
	}
}

// observe takes in a report. Totals count from the start of the process, so a total above zero has risen in this pod.
// An acknowledged loss raises nothing.
func (a *Alerts) observe(r *report.Report, at time.Time, settings *Settings, acked *acknowledged) {
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
			"%s: %s never read, %s deleted too early: keep the node's files longer",
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
			"%s: the node left out %s blocks up to block %d: check the node's peers",
			worst.Name, humanize.Comma(worst.BlockGapsTotal), worst.LastBlock)}
	}
	a.observeAge(r, at, settings)
}

// observeAge updates NearRetention from the age of the oldest line that was not delivered.
func (a *Alerts) observeAge(r *report.Report, at time.Time, settings *Settings) {
	var oldest *report.Stream
	unknown := false
	for i := range r.Streams {
		switch s := &r.Streams[i]; {
		case backlogUnknown(s):
			unknown = true
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
	case float64(age) < retentionClear*float64(kept):
		if !unknown { // a stream with an unknown backlog may be the one
			a.NearRetention = Alert{}
		}
	case float64(age) >= retentionShare*float64(kept) && !a.NearRetention.Raised():
		a.NearRetention = Alert{at, fmt.Sprintf(
			"%s: lines have waited for %s, and files are kept for %s: deliver the lines or keep the files longer",
			oldest.Name, round(age), round(kept))}
	}
}

func files(n int64) string {
	if n == 1 {
		return "1 file"
	}
	return humanize.Comma(n) + " files"
}
