package growth

import (
	"fmt"
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
)

// AlertKinds lists every kind, worst first.
func AlertKinds() []AlertKind { return []AlertKind{DataLost, NearRetention, DataGap} }

// Alert says since when something is so, and what, with the figures of that moment. The zero value is an alert that is not raised.
type Alert struct {
	Since   time.Time
	Message string
}

// Raised reports whether it is so.
func (a Alert) Raised() bool { return !a.Since.IsZero() }

// Alerts are what a person should know of a target whatever the verdict on it. DataLost and DataGap stay for the life of the pod:
// what is lost does not come back. NearRetention ends.
type Alerts struct {
	DataLost, DataGap, NearRetention Alert
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
	}
	return Alert{}
}

// see takes in a report. Totals count from the start of the process, so one that is not zero has risen in this pod.
func (a *Alerts) see(r *report.Report, at time.Time, settings *Settings) {
	var oldest *report.Stream
	for i := range r.Streams {
		s := &r.Streams[i]
		if !a.DataLost.Raised() && (s.PrunedUnreadTotal > 0 || s.SkippedBytesTotal > 0) {
			a.DataLost = Alert{at, fmt.Sprintf("%s: %s never read, %s vanished too early: keep the node's files for longer",
				s.Name, bytes(s.SkippedBytesTotal), files(s.PrunedUnreadTotal))}
		}
		if !a.DataGap.Raised() && s.BlockGapsTotal > 0 {
			a.DataGap = Alert{at, fmt.Sprintf("%s: the node left out %s blocks up to block %d: look at the node's peers",
				s.Name, humanize.Comma(s.BlockGapsTotal), s.LastBlock)}
		}
		if oldest == nil || s.LagSeconds > oldest.LagSeconds {
			oldest = s
		}
	}
	if oldest == nil {
		return
	}
	age, kept := seconds(oldest.LagSeconds), settings.Retention
	switch {
	case kept <= 0 || float64(age) < retentionCalm*float64(kept):
		a.NearRetention = Alert{}
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
