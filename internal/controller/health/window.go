package health

import (
	"slices"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Window is what a parser has reported since its process started: the newest report, and rates over the ones before.
// The zero value is an empty window. It is not safe for concurrent use.
type Window struct {
	// Reports counts all reports since the process started.
	Reports int
	// Missed counts the latest polls in a row without a report. Failure is why the last one failed.
	Missed  int
	Failure string

	// At is when the newest report arrived, and First when the oldest did.
	At, First time.Time
	// Held is the bytes in live buffers and in flight, over all streams. Bound is what it must never exceed. OverBound
	// counts the latest reports in a row that exceed it.
	Held, Bound int64
	OverBound   int

	Process Process
	Streams []Stream
	Memory  Memory
	// Empty is true when the newest report contains no streams. It proves nothing healthy then.
	Empty bool

	startedAt   time.Time // of the process
	sampled     sampleTimes
	counted     lineCountTimes
	lastWritten time.Time // when the node was last observed to write a line of any stream; zero: never
}

// Process is what is kept of a parser's process.
type Process struct {
	// CPU is the share of its CPU limit that the process used over rateSpan. Cores is that limit.
	CPU, Cores float64

	cpuTotals [keptSamples]float64 // seconds
}

// Stream is what is kept of one stream.
type Stream struct {
	Name    string
	Mode    string
	State   report.StreamState
	Message string

	HeldLines   int64 // in the live buffer and in flight
	Uncommitted int64 // bytes of whole lines that wait
	Lag         time.Duration
	// BacklogUnknown is true when the parser does not know its backlog. Uncommitted and Lag are meaningless zeros then.
	BacklogUnknown bool
	// Unreadable is which file or directory the parser cannot read, and why; "" when there is none.
	Unreadable string
	Read       int64 // progress of each stage, in bytes
	Parsed     int64
	Acked      int64
	Delivered  int64 // records
	// Unacknowledged is true while lines wait and the process has had none acknowledged: it is not known to deliver.
	Unacknowledged bool

	SinkState report.SinkState
	SinkError string
	// MissingSecret is the path of a file without which the sink cannot be reached.
	MissingSecret string
	// SinkSilent is the time since the last acknowledgement. Before the first one it is since the sink entered its state.
	SinkSilent  time.Duration
	SinkSince   time.Duration // time in SinkState
	Outstanding time.Duration // age of the current request to the sink

	// SourceIdle is how long no new whole line has appeared on disk.
	SourceIdle time.Duration
	// NoData is how long there has been nothing to read while the node wrote other streams; otherwise 0.
	NoData time.Duration

	Malformed Malformed

	// UnmovedReports counts the latest reports in a row in which whole lines waited and no stage that had some moved.
	// UnmovedSince is when the first of them arrived.
	UnmovedSince   time.Time
	UnmovedReports int

	Rates Rates
	// BestAcked is the highest Rates.Acked since the process started.
	BestAcked float64

	newLinesAt  time.Time // when figures last showed new lines
	hiddenAt    time.Time // when the backlog was last unknown or unreadable; zero: never
	noDataSince time.Time // since when there is nothing to read; zero: there is, or it is unknown
	retrying    float64   // seconds in which the sink was found to be retried
	kept        [keptSamples]totals
	lineCounts  [driftPoints]lineCount
	written     int64     // bytes ever written, at the last call of wrote
	lineAt      time.Time // when the newest line appeared, likewise
}

// Lag returns the lag of the worst stream in the newest report. known is false, and lag 0, when no stream reports one.
func (w *Window) Lag() (lag time.Duration, known bool) {
	for i := range w.Streams {
		lag = max(lag, w.Streams[i].Lag)
		known = known || !w.Streams[i].BacklogUnknown
	}
	return lag, known
}

// Uncommitted returns the uncommitted bytes of all streams in the newest report. known is false, and the sum 0, when no
// stream reports them.
func (w *Window) Uncommitted() (bytes int64, known bool) {
	for i := range w.Streams {
		bytes += w.Streams[i].Uncommitted
		known = known || !w.Streams[i].BacklogUnknown
	}
	return bytes, known
}

// showsDelivery reports whether a report, which is not in the window yet, shows a record delivered since the one
// before.
func (w *Window) showsDelivery(r *report.Report) bool {
	for i := range r.Streams {
		if i < len(w.Streams) && w.Streams[i].Name == r.Streams[i].Name &&
			r.Streams[i].DeliveredTotal > w.Streams[i].Delivered {
			return true
		}
	}
	return false
}

// unproven reports whether the newest figures of a stream do not suffice to call it healthy.
func (w *Window) unproven() bool {
	return w.Empty ||
		slices.ContainsFunc(w.Streams, func(s Stream) bool { return s.BacklogUnknown || s.Unacknowledged })
}

// add takes in a report that arrived at the given time.
func (w *Window) add(r *report.Report, at time.Time, settings *Settings) {
	if w.Reports == 0 {
		w.First = at
	}
	passed := time.Duration(0) // since the report before
	if w.Reports > 0 {
		passed = at.Sub(w.At)
	}
	w.Reports++
	w.Missed, w.Failure = 0, ""
	w.At, w.startedAt, w.Empty = at, r.StartedAt, len(r.Streams) == 0
	first := w.align(r.Streams) || w.Reports == 1

	base := w.sampled.base(at)
	w.Process.updateCPU(&r.Process, w.sampled.span(base, at), base)
	w.Held = 0
	limit, largest := settings.BufferLimit, int64(0)
	for i := range r.Streams {
		from, s := &r.Streams[i], &w.Streams[i]
		w.Held += from.BufferBytes + from.InFlightBytes
		largest = max(largest, from.LargestLineBytes)
		if from.BufferLimitBytes > 0 {
			limit = from.BufferLimitBytes
		}
		// These three compare with the figures of the report before, which copyFrom replaces.
		s.updateUnmoved(from, at)
		s.updateSourceIdle(from, r.Now, at)
		if s.wrote(from) && !first {
			w.lastWritten = at
		}
		s.copyFrom(from, r.Now)
		if from.Sink.State == report.SinkRetrying {
			s.retrying += passed.Seconds()
		}
		s.updateRates(from, w.sampled.span(base, at), base)
	}
	w.Bound = 2*(limit+largest) + boundSlack
	if w.Held > w.Bound {
		w.OverBound++
	} else {
		w.OverBound = 0
	}
	w.updateNoData()
	w.countLines(r)
	if slot, ok := w.sampled.take(at); ok {
		w.Process.cpuTotals[slot] = r.Process.CPUSecondsTotal
		for i := range r.Streams {
			w.Streams[i].kept[slot] = w.Streams[i].totals(&r.Streams[i])
		}
	}
	if r.Process.RSSBytes != nil {
		w.Memory.add(*r.Process.RSSBytes, r.Process.MemoryLimitBytes, at.Sub(w.First))
	}
}

// updateNoData sets how long streams have had nothing to read while the node writes others.
func (w *Window) updateNoData() {
	for i := range w.Streams {
		s := &w.Streams[i]
		switch {
		case s.State != report.WaitingForData || s.BacklogUnknown || s.Unreadable != "":
			s.noDataSince = time.Time{}
		case s.noDataSince.IsZero():
			s.noDataSince = w.At
		}
		s.NoData = 0
		if !s.noDataSince.IsZero() && w.lastWritten.After(s.noDataSince) {
			s.NoData = w.At.Sub(s.noDataSince)
		}
	}
}

// countLines sets the streams' malformed lines.
func (w *Window) countLines(r *report.Report) {
	index, known := w.counted.base(w.At)
	for i := range r.Streams {
		w.Streams[i].Malformed = Malformed{}
		if known {
			w.Streams[i].Malformed = w.Streams[i].malformed(&r.Streams[i], &w.counted, index)
		}
	}
	if slot, ok := w.counted.take(w.At); ok {
		for i := range r.Streams {
			w.Streams[i].lineCounts[slot] = lineCount{r.Streams[i].LinesTotal, r.Streams[i].MalformedLinesTotal}
		}
	}
}

// align gives w.Streams the names and order of a report's streams, and reports whether they changed. A process reports
// the same streams in the same order for as long as it lives.
func (w *Window) align(streams []report.Stream) (changed bool) {
	same := len(streams) == len(w.Streams)
	for i := 0; same && i < len(streams); i++ {
		same = streams[i].Name == w.Streams[i].Name
	}
	if same {
		return false
	}
	w.Streams = make([]Stream, len(streams))
	for i := range streams {
		w.Streams[i].Name = streams[i].Name
	}
	w.sampled, w.counted, w.lastWritten = sampleTimes{}, lineCountTimes{}, time.Time{}
	return true
}

// miss takes in a poll that brought no report.
func (w *Window) miss(failure string) {
	w.Missed++
	w.Failure = failure
}

// copyFrom takes over the figures of a report.
func (s *Stream) copyFrom(from *report.Stream, now time.Time) {
	s.Mode, s.State, s.Message = from.Mode, from.State, from.Message
	s.HeldLines = from.BufferLines + from.InFlightLines
	s.Uncommitted, s.Lag, s.BacklogUnknown = 0, 0, backlogUnknown(from)
	if !s.BacklogUnknown {
		s.Uncommitted, s.Lag = *from.UncommittedBytes, seconds(*from.LagSeconds)
	}
	s.Unreadable = unreadable(from)
	s.Read, s.Parsed, s.Acked = from.ReadBytesTotal, from.ParsedBytesTotal, from.AckedBytesTotal
	s.Delivered = from.DeliveredTotal
	s.Unacknowledged = s.Uncommitted > 0 && s.Acked <= 0
	s.SinkState, s.SinkError, s.MissingSecret = from.Sink.State, from.Sink.LastError, from.Sink.MissingSecret
	s.Outstanding, s.SinkSince = seconds(from.Sink.OutstandingSeconds), 0
	if from.Sink.Since != nil {
		s.SinkSince = now.Sub(*from.Sink.Since)
	}
	s.SinkSilent = max(s.SinkSince, s.Outstanding)
	if from.Sink.LastAckAt != nil {
		s.SinkSilent = now.Sub(*from.Sink.LastAckAt)
	}
}

// backlogUnknown reports whether a parser does not know the backlog of a stream.
func backlogUnknown(from *report.Stream) bool {
	return from.UncommittedBytes == nil || from.LagSeconds == nil
}

// updateSourceIdle sets how long no line has appeared. Until a report has the time of a line, figures that change show
// new lines, and the count begins with the first report. While the disk cannot be observed a line may appear at any
// time: the count begins afterwards.
func (s *Stream) updateSourceIdle(from *report.Stream, now, at time.Time) {
	if backlogUnknown(from) || unreadable(from) != "" {
		s.hiddenAt, s.newLinesAt, s.SourceIdle = at, at, 0
		return
	}
	if s.newLinesAt.IsZero() || s.Read != from.ReadBytesTotal || s.Uncommitted != *from.UncommittedBytes {
		s.newLinesAt = at
	}
	s.SourceIdle = at.Sub(s.newLinesAt)
	if from.LastLineAt != nil {
		s.SourceIdle = now.Sub(*from.LastLineAt)
	}
	if !s.hiddenAt.IsZero() {
		s.SourceIdle = min(s.SourceIdle, at.Sub(s.hiddenAt))
	}
}

// wrote reports whether the node has written lines of the stream since the last call. What is read from a backlog was
// written long ago: only additions to the backlog count, and reads while there is none.
func (s *Stream) wrote(from *report.Stream) bool {
	later := false
	if at := from.LastLineAt; at != nil {
		later = at.After(s.lineAt)
		s.lineAt = *at
	}
	if backlogUnknown(from) {
		return later
	}
	readAtOnce := s.Uncommitted == 0 && *from.UncommittedBytes == 0 && from.ReadBytesTotal > s.Read
	written := sum(sum(from.CommittedBytesTotal, *from.UncommittedBytes), from.SkippedBytesTotal)
	more := written > s.written
	s.written = written
	return later || readAtOnce || more
}

// updateUnmoved sets since when no stage has moved.
func (s *Stream) updateUnmoved(from *report.Stream, at time.Time) {
	// A sink that is waited for or retried is at fault itself, and so is the node for what cannot be read. A stream that
	// failed or drains has stopped on purpose.
	idle := seconds(from.Sink.OutstandingSeconds) == 0 &&
		(from.Sink.State == report.SinkHealthy || from.Sink.State == "")
	waits := !backlogUnknown(from) && *from.UncommittedBytes > 0
	if !waits || !idle || unreadable(from) != "" || from.State == report.Failed || from.State == report.Draining {
		s.UnmovedSince, s.UnmovedReports = time.Time{}, 0
		return
	}
	// Reading does not excuse a later stage that has lines and does nothing: when the processing of a slow stream hangs,
	// its reader continues for minutes until the buffer is full.
	reading := s.Read != from.ReadBytesTotal && s.HeldLines == 0
	if s.UnmovedReports > 0 && !reading && s.Parsed == from.ParsedBytesTotal && s.Acked == from.AckedBytesTotal {
		s.UnmovedReports++
	} else {
		s.UnmovedSince, s.UnmovedReports = at, 1
	}
}

// seconds turns a figure of a report into a duration. A figure that no parser means becomes 0 or the longest duration.
func seconds(f float64) time.Duration {
	const longest = 1 << 62
	switch {
	case !(f > 0): // also not a number
		return 0
	case f*float64(time.Second) >= longest:
		return longest
	}
	return time.Duration(f * float64(time.Second))
}
