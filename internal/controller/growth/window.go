package growth

import (
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

	startedAt time.Time // of the process
	times     moments
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
	Read        int64 // progress of each stage, in bytes
	Parsed      int64
	Acked       int64

	SinkState report.SinkState
	SinkError string
	// MissingSecret is the path of the file without which the sink cannot be reached.
	MissingSecret string
	SinkSilent    time.Duration // since the last acknowledgement, or since the sink got into its state when there was none yet
	SinkSince     time.Duration // in SinkState
	Outstanding   time.Duration // age of the request being waited for

	// Rest is how long no whole line has been seen on disk.
	Rest time.Duration

	// StillSince is the first of the reports in a row, StillReports of them, in which whole lines waited and no stage that had
	// some had moved since the one before; zero when one moved.
	StillSince   time.Time
	StillReports int

	Rates Rates
	// Best is the most that was acknowledged in a minute since the process started, in bytes a second.
	Best float64

	movedAt  time.Time // when the figures last told of new lines
	retrying float64   // seconds in which the sink was found to be retried
	points   [moment]point
}

// Lag is the worst stream's in the newest report; 0 when there is none.
func (w *Window) Lag() time.Duration {
	var lag time.Duration
	for i := range w.Streams {
		lag = max(lag, w.Streams[i].Lag)
	}
	return lag
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
	w.At, w.startedAt = at, r.StartedAt
	w.align(r.Streams)

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
	if slot, ok := w.times.take(at); ok {
		w.Process.cpuTotal[slot] = r.Process.CPUSecondsTotal
		for i := range r.Streams {
			w.Streams[i].points[slot] = w.Streams[i].point(&r.Streams[i])
		}
	}
	w.Memory.add(r.Process.RSSBytes, r.Process.MemoryLimitBytes, at.Sub(w.First))
}

// align makes w.Streams those of a report, in its order. A parser names the same ones in the same order for as long as it lives.
func (w *Window) align(streams []report.Stream) {
	same := len(streams) == len(w.Streams)
	for i := 0; same && i < len(streams); i++ {
		same = streams[i].Name == w.Streams[i].Name
	}
	if same {
		return
	}
	w.Streams = make([]Stream, len(streams))
	for i := range streams {
		w.Streams[i].Name = streams[i].Name
	}
	w.times = moments{}
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
	s.Uncommitted = from.UncommittedBytes
	s.Lag = seconds(from.LagSeconds)
	s.Read, s.Parsed, s.Acked = from.ReadBytesTotal, from.ParsedBytesTotal, from.AckedBytesTotal
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

// rest sets how long no line has come, given the figures before, which it still has. While no line has been seen at all it goes by
// the figures of the stream, and begins with the first report.
func (s *Stream) rest(from *report.Stream, now, at time.Time) {
	if s.movedAt.IsZero() || s.Read != from.ReadBytesTotal || s.Uncommitted != from.UncommittedBytes {
		s.movedAt = at
	}
	s.Rest = at.Sub(s.movedAt)
	if from.LastLineAt != nil {
		s.Rest = now.Sub(*from.LastLineAt)
	}
}

// still sets how long this stream has stood still, given the figures before, which it still has.
func (s *Stream) still(from *report.Stream, at time.Time) {
	// A sink that is being waited for, or retried, is the sink's matter; a stream that failed or drains has stopped by intent.
	idle := seconds(from.Sink.OutstandingSeconds) == 0 && (from.Sink.State == report.SinkHealthy || from.Sink.State == "")
	if from.UncommittedBytes <= 0 || !idle || from.State == report.Failed || from.State == report.Draining {
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
