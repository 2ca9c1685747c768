package growth

import (
	"slices"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Window is what a parser has reported since its process started: the newest report, and the rates that lead to it. The zero value
// is an empty window. It is not safe for concurrent use.
type Window struct {
	// Reports counts all since the process started.
	Reports int
	// Missed counts polls in a row without a report, and Failure says why the last one failed.
	Missed  int
	Failure string

	// At is when the newest report arrived, and First the oldest.
	At, First time.Time
	// Held is bytes in live buffers and in flight, over all streams; Bound is what it may not pass, ever; Over counts the reports in
	// a row, the newest included, in which it did.
	Held, Bound int64
	Over        int

	Process Process
	Streams []Stream
	Memory  Memory
	// Empty is true when the newest report names no stream: then it says of nothing that it is well.
	Empty bool

	startedAt time.Time // of the process
	times     moments
	minutes   minutes
	wroteAt   time.Time // when the node was last seen to write a line of any stream; zero: never
}

// Process is what is kept of a parser's process.
type Process struct {
	// CPU is the share of the processor time that the process may use which it used, over rateSpan; Cores is how much it may use.
	CPU, Cores float64

	cpuTotal [moment]float64 // seconds
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
	// Blind is true when the parser does not know what waits: Uncommitted and Lag are 0 then and say nothing.
	Blind bool
	// Unreadable says which file or folder the parser cannot read, and why; "" when there is none.
	Unreadable string
	Read       int64 // progress of each stage, in bytes
	Parsed     int64
	Acked      int64
	Delivered  int64 // records
	// Unacknowledged is true while lines wait and the process has had none acknowledged: whether it delivers is not
	// known.
	Unacknowledged bool

	SinkState report.SinkState
	SinkError string
	// MissingSecret is the path of the file without which the sink cannot be reached.
	MissingSecret string
	SinkSilent    time.Duration // since the last acknowledgement, or since the sink got into its state when there was none yet
	SinkSince     time.Duration // in SinkState
	Outstanding   time.Duration // age of the request being waited for

	// Rest is how long no whole line has been seen on disk.
	Rest time.Duration
	// Waited is how long nothing to read has appeared, if the node wrote other streams meanwhile; otherwise 0.
	Waited time.Duration

	Malformed Malformed

	// StillSince is the first of the reports in a row, StillReports of them, in which whole lines waited and no stage that had
	// some had moved since the one before; zero when one moved.
	StillSince   time.Time
	StillReports int

	Rates Rates
	// Best is the most that was acknowledged in a minute since the process started, in bytes a second.
	Best float64

	movedAt  time.Time // when the figures last told of new lines
	hiddenAt time.Time // when what is on disk was last not known or not to be read; zero: it always was
	retrying float64   // seconds in which the sink was found to be retried
	points   [moment]point
	counts   [driftPoints]lineCount
	waiting  time.Time // since when nothing to read has appeared; zero: something has, or nobody can see
	written  int64     // bytes that ever waited, as far as wrote was asked
	lineAt   time.Time // when the newest line was seen, likewise
}

// Lag is the worst stream's in the newest report. known is false when no stream's is; then it is 0.
func (w *Window) Lag() (lag time.Duration, known bool) {
	for i := range w.Streams {
		lag = max(lag, w.Streams[i].Lag)
		known = known || !w.Streams[i].Blind
	}
	return lag, known
}

// delivers reports whether a report, which is not in the window yet, shows a record delivered since the one before.
func (w *Window) delivers(r *report.Report) bool {
	for i := range r.Streams {
		if i < len(w.Streams) && w.Streams[i].Name == r.Streams[i].Name && r.Streams[i].DeliveredTotal > w.Streams[i].Delivered {
			return true
		}
	}
	return false
}

// unsure reports whether a stream's newest figures do not tell how it is.
func (w *Window) unsure() bool {
	return w.Empty || slices.ContainsFunc(w.Streams, func(s Stream) bool { return s.Blind || s.Unacknowledged })
}

// add takes in one more report, received at the given time.
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

	base := w.times.base(at)
	w.Process.rate(&r.Process, w.times.span(base, at), base)
	w.Held = 0
	limit, largest := settings.BufferLimit, int64(0)
	for i := range r.Streams {
		from, s := &r.Streams[i], &w.Streams[i]
		w.Held += from.BufferBytes + from.InFlightBytes
		largest = max(largest, from.LargestLineBytes)
		if from.BufferLimitBytes > 0 {
			limit = from.BufferLimitBytes
		}
		s.still(from, at)
		s.rest(from, r.Now, at)
		if s.wrote(from) && !first {
			w.wroteAt = at
		}
		s.read(from, r.Now)
		if from.Sink.State == report.SinkRetrying {
			s.retrying += passed.Seconds()
		}
		s.rate(from, w.times.span(base, at), base)
	}
	w.Bound = 2*(limit+largest) + boundSlack
	if w.Held > w.Bound {
		w.Over++
	} else {
		w.Over = 0
	}
	w.waits()
	w.countLines(r)
	if slot, ok := w.times.take(at); ok {
		w.Process.cpuTotal[slot] = r.Process.CPUSecondsTotal
		for i := range r.Streams {
			w.Streams[i].points[slot] = w.Streams[i].point(&r.Streams[i])
		}
	}
	if r.Process.RSSBytes != nil {
		w.Memory.add(*r.Process.RSSBytes, r.Process.MemoryLimitBytes, at.Sub(w.First))
	}
}

// waits sets how long streams have had nothing to read though the node writes others.
func (w *Window) waits() {
	for i := range w.Streams {
		s := &w.Streams[i]
		switch {
		case s.State != report.WaitingForData || s.Blind || s.Unreadable != "":
			s.waiting = time.Time{}
		case s.waiting.IsZero():
			s.waiting = w.At
		}
		s.Waited = 0
		if !s.waiting.IsZero() && w.wroteAt.After(s.waiting) {
			s.Waited = w.At.Sub(s.waiting)
		}
	}
}

// countLines sets which part of the lines was malformed.
func (w *Window) countLines(r *report.Report) {
	taken, known := w.minutes.base(w.At)
	for i := range r.Streams {
		w.Streams[i].Malformed = Malformed{}
		if known {
			w.Streams[i].Malformed = w.Streams[i].malformed(&r.Streams[i], &w.minutes, taken)
		}
	}
	if slot, ok := w.minutes.take(w.At); ok {
		for i := range r.Streams {
			w.Streams[i].counts[slot] = lineCount{r.Streams[i].LinesTotal, r.Streams[i].MalformedLinesTotal}
		}
	}
}

// align makes w.Streams those of a report, in its order, and reports whether they were others. A parser names the same
// ones in the same order for as long as it lives.
func (w *Window) align(streams []report.Stream) (others bool) {
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
	w.times, w.minutes, w.wroteAt = moments{}, minutes{}, time.Time{}
	return true
}

// miss takes in a poll that brought no report.
func (w *Window) miss(failure string) {
	w.Missed++
	w.Failure = failure
}

// read takes over the figures of a report.
func (s *Stream) read(from *report.Stream, now time.Time) {
	s.Mode, s.State, s.Message = from.Mode, from.State, from.Message
	s.HeldLines = from.BufferLines + from.InFlightLines
	s.Uncommitted, s.Lag, s.Blind = 0, 0, blind(from)
	if !s.Blind {
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

// blind reports whether a parser does not know what waits for a stream.
func blind(from *report.Stream) bool { return from.UncommittedBytes == nil || from.LagSeconds == nil }

// rest sets how long no line has come, given the figures before, which it still has. While no line has been seen at all it goes by
// the figures of the stream, and begins with the first report. While the disk is not seen a line may come any time: it begins then.
func (s *Stream) rest(from *report.Stream, now, at time.Time) {
	if blind(from) || unreadable(from) != "" {
		s.hiddenAt, s.movedAt, s.Rest = at, at, 0
		return
	}
	if s.movedAt.IsZero() || s.Read != from.ReadBytesTotal || s.Uncommitted != *from.UncommittedBytes {
		s.movedAt = at
	}
	s.Rest = at.Sub(s.movedAt)
	if from.LastLineAt != nil {
		s.Rest = now.Sub(*from.LastLineAt)
	}
	if !s.hiddenAt.IsZero() {
		s.Rest = min(s.Rest, at.Sub(s.hiddenAt))
	}
}

// wrote reports whether the node has written lines of the stream since it was asked before. What is read from a backlog
// was written long ago: only what adds to it counts, or what is read while nothing waits.
func (s *Stream) wrote(from *report.Stream) bool {
	later := false
	if at := from.LastLineAt; at != nil {
		later = at.After(s.lineAt)
		s.lineAt = *at
	}
	if blind(from) {
		return later
	}
	level := s.Uncommitted == 0 && *from.UncommittedBytes == 0 && from.ReadBytesTotal > s.Read
	written := sum(sum(from.CommittedBytesTotal, *from.UncommittedBytes), from.SkippedBytesTotal)
	more := written > s.written
	s.written = written
	return later || level || more
}

// still sets how long this stream has stood still, given the figures before, which it still has.
func (s *Stream) still(from *report.Stream, at time.Time) {
	// A sink that is being waited for, or retried, is the sink's matter, and what cannot be read the node's; a stream that failed or
	// drains has stopped by intent.
	idle := seconds(from.Sink.OutstandingSeconds) == 0 && (from.Sink.State == report.SinkHealthy || from.Sink.State == "")
	waits := !blind(from) && *from.UncommittedBytes > 0
	if !waits || !idle || unreadable(from) != "" || from.State == report.Failed || from.State == report.Draining {
		s.StillSince, s.StillReports = time.Time{}, 0
		return
	}
	// Reading is no excuse for a stage behind it that had lines and did nothing: beside a slow stream's hung processor the
	// reader goes on for minutes until the buffer is full.
	reading := s.Read != from.ReadBytesTotal && s.HeldLines == 0
	if s.StillReports > 0 && !reading && s.Parsed == from.ParsedBytesTotal && s.Acked == from.AckedBytesTotal {
		s.StillReports++
	} else {
		s.StillSince, s.StillReports = at, 1
	}
}

// seconds turns a figure of a report into a duration; a figure that a parser cannot mean becomes 0 or the longest duration.
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
