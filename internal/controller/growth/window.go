package growth

import (
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// windowSize is how many reports a window keeps: a minute at the default interval.
const windowSize = 13

// Window is what a parser has reported since its container started. The zero value is an empty window.
type Window struct {
	// Samples are the last reports, oldest first, at most windowSize.
	Samples []Sample
	// Reports counts all since the container started.
	Reports int
	// Missed counts polls in a row without a report, and Failure says why the last one failed.
	Missed  int
	Failure string
}

// Sample is what is kept of one report.
type Sample struct {
	At      time.Time
	Held    int64 // bytes in live buffers and in flight, over all streams
	Bound   int64 // what Held may not pass, ever
	Streams []StreamSample
}

// StreamSample is what is kept of one stream in one report.
type StreamSample struct {
	Name    string
	State   report.StreamState
	Message string

	HeldLines   int64 // in the live buffer and in flight
	Uncommitted int64 // bytes of whole lines that wait
	Lag         time.Duration
	Read        int64 // progress of each stage, in bytes
	Parsed      int64
	Acked       int64

	SinkState   report.SinkState
	SinkError   string
	SinkSilent  time.Duration // since the last acknowledgement, or since the sink got into its state when there was none yet
	SinkSince   time.Duration // in SinkState
	Outstanding time.Duration // age of the request being waited for

	// StillSince is the first of the reports in a row, StillReports of them, in which whole lines waited and no stage that had
	// some had moved since the one before; zero when one moved.
	StillSince   time.Time
	StillReports int
}

// Last returns the newest sample; ok is false for an empty window.
func (w Window) Last() (s Sample, ok bool) {
	if len(w.Samples) == 0 {
		return Sample{}, false
	}
	return w.Samples[len(w.Samples)-1], true
}

// Lag is the worst stream's in the newest report; 0 when there is none.
func (w Window) Lag() time.Duration {
	var lag time.Duration
	last, _ := w.Last()
	for _, s := range last.Streams {
		lag = max(lag, s.Lag)
	}
	return lag
}

// add returns the window with one more report, received at the given time.
func (w Window) add(r report.Report, at time.Time, settings Settings) Window {
	previous, _ := w.Last()
	next := sample(r, at, settings)
	for i := range next.Streams {
		next.Streams[i].still(previous, next.At)
	}
	keep := w.Samples
	if len(keep) == windowSize {
		keep = keep[1:]
	}
	// A new slice, so that a window that was handed out does not change.
	samples := make([]Sample, 0, len(keep)+1)
	samples = append(append(samples, keep...), next)
	return Window{Samples: samples, Reports: w.Reports + 1}
}

// miss returns the window after a poll that brought no report.
func (w Window) miss(failure string) Window {
	w.Missed++
	w.Failure = failure
	return w
}

func sample(r report.Report, at time.Time, settings Settings) Sample {
	s := Sample{At: at, Streams: make([]StreamSample, 0, len(r.Streams))}
	limit, largest := settings.BufferLimit, int64(0)
	for _, stream := range r.Streams {
		s.Held += stream.BufferBytes + stream.InFlightBytes
		largest = max(largest, stream.LargestLineBytes)
		if stream.BufferLimitBytes > 0 {
			limit = stream.BufferLimitBytes
		}
		s.Streams = append(s.Streams, streamSample(stream, r.Now))
	}
	s.Bound = 2*(limit+largest) + boundSlack
	return s
}

func streamSample(s report.Stream, now time.Time) StreamSample {
	out := StreamSample{
		Name:        s.Name,
		State:       s.State,
		Message:     s.Message,
		HeldLines:   s.BufferLines + s.InFlightLines,
		Uncommitted: s.UncommittedBytes,
		Lag:         seconds(s.LagSeconds),
		Read:        s.ReadBytesTotal,
		Parsed:      s.ParsedBytesTotal,
		Acked:       s.AckedBytesTotal,
		SinkState:   s.Sink.State,
		SinkError:   s.Sink.LastError,
		Outstanding: seconds(s.Sink.OutstandingSeconds),
	}
	if s.Sink.Since != nil {
		out.SinkSince = now.Sub(*s.Sink.Since)
	}
	out.SinkSilent = max(out.SinkSince, out.Outstanding)
	if s.Sink.LastAckAt != nil {
		out.SinkSilent = now.Sub(*s.Sink.LastAckAt)
	}
	return out
}

// still sets how long this stream has stood still, given the sample before.
func (s *StreamSample) still(previous Sample, at time.Time) {
	// A sink that is being waited for, or retried, is the sink's matter; a stream that failed or drains has stopped by intent.
	idle := s.Outstanding == 0 && (s.SinkState == report.SinkHealthy || s.SinkState == "")
	if s.Uncommitted <= 0 || !idle || s.State == report.Failed || s.State == report.Draining {
		return
	}
	s.StillSince, s.StillReports = at, 1
	for _, p := range previous.Streams {
		// Reading is no excuse for a stage behind it that had lines and did nothing: beside a slow stream's hung processor the
		// reader goes on for minutes until the buffer is full.
		reading := p.Read != s.Read && p.HeldLines == 0
		if p.Name == s.Name && p.StillReports > 0 && !reading && p.Parsed == s.Parsed && p.Acked == s.Acked {
			s.StillSince, s.StillReports = p.StillSince, p.StillReports+1
		}
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
