package health

import (
	"fmt"
	"time"
)

// cause is why a stream is behind.
type cause int

const (
	causeNone cause = iota // it is not behind
	causeCatchingUp
	causeSink
	causeCPU
	causeWork // it works at full speed on as many cores as it has workers
	causeDisk
	causeParser // nothing else explains it
)

// cause returns why a stream is behind. Causes outside the parser come first, and of those the one with the least
// capacity left: more of the others would gain nothing.
func (s *Stream) cause(in *Input) cause {
	r := &s.Rates
	if in.Settings.Lag <= 0 || s.Lag < in.Settings.Lag || in.Window.Reports < rateReports || !r.Known {
		return causeNone
	}
	if r.Acked > 0 && r.Acked >= catchUpRatio*r.Written && r.Shrinking {
		return causeCatchingUp
	}
	found, largest := causeParser, 0.0
	for _, outside := range [...]struct {
		cause            cause
		share, threshold float64
	}{
		{causeSink, r.SinkBusy, sinkShare},
		{causeCPU, in.Window.Process.CPU, cpuShare},
		{causeDisk, r.ReadWait, diskShare},
	} {
		if outside.share >= outside.threshold && outside.share > largest {
			found, largest = outside.cause, outside.share
		}
	}
	if found == causeParser && s.atFullSpeed(&in.Window.Process) {
		return causeWork
	}
	return found
}

// atFullSpeed reports whether the parser uses a core, or as much of one as it may, in all the time in which it waits
// for neither sink nor disk, and delivers as fast as it ever has. It has not become slow then: its workers have too
// much to do, though most of the machine's cores may be idle.
func (s *Stream) atFullSpeed(p *Process) bool {
	r := &s.Rates
	return p.CPU*p.Cores >= cpuShare*min(p.Cores, 1)*(1-r.SinkBusy-r.ReadWait) && r.Acked >= bestShare*s.BestAcked
}

// furthestBehind returns the stream that is furthest behind for a cause from first to last, and the cause. It returns
// nil when there is none.
func furthestBehind(in *Input, first, last cause) (worst *Stream, why cause) {
	for i := range in.Window.Streams {
		s := &in.Window.Streams[i]
		if c := s.cause(in); c >= first && c <= last && (worst == nil || s.Lag > worst.Lag) {
			worst, why = s, c
		}
	}
	return worst, why
}

// OverloadedStream matches a stream that falls behind for a cause that a restart does not change.
func OverloadedStream(in *Input) (Verdict, string, string, bool) {
	s, why := furthestBehind(in, causeSink, causeDisk)
	if s == nil {
		return "", "", "", false
	}
	p := &in.Window.Process
	switch why {
	case causeSink:
		return Overloaded, ReasonSink, fmt.Sprintf("%s, sink %s busy: the sink is too slow for %s/s of lines",
			s.behind(), percent(s.Rates.SinkBusy), bytes(int64(s.Rates.Written))), true
	case causeCPU:
		return Overloaded, ReasonCPU, fmt.Sprintf("%s, CPU %s of %.4g cores: raise the CPU limit or filter more",
			s.behind(), percent(p.CPU), p.Cores), true
	case causeWork:
		return Overloaded, ReasonCPU, fmt.Sprintf(
			"%s, %.1f of %.4g cores used, at its highest rate so far: raise the CPU limit or workers, or filter more",
			s.behind(), p.CPU*p.Cores, p.Cores), true
	}
	return Overloaded, ReasonDisk, fmt.Sprintf("%s, waiting for reads %s of the time: the disk is too slow",
		s.behind(), percent(s.Rates.ReadWait)), true
}

// SlowStream matches a stream that falls behind though its sink, the CPU and the disk have capacity left.
func SlowStream(in *Input) (Verdict, string, string, bool) {
	s, _ := furthestBehind(in, causeParser, causeParser)
	if s == nil {
		return "", "", "", false
	}
	sink := "idle"
	if s.Rates.SinkBusy >= 0.01 {
		sink = percent(s.Rates.SinkBusy) + " busy"
	}
	return Growing, ReasonParserSlow, fmt.Sprintf("%s, sink %s, CPU %s: the parser is slow",
		s.behind(), sink, percent(in.Window.Process.CPU)), true
}

// CatchingUpStream matches a stream that is far behind and gaining.
func CatchingUpStream(in *Input) (Verdict, string, string, bool) {
	s, _ := furthestBehind(in, causeCatchingUp, causeCatchingUp)
	if s == nil {
		return "", "", "", false
	}
	gain := s.Rates.Acked - s.Rates.Written
	remaining := time.Duration(min(float64(s.Uncommitted)/gain, 1e6) * float64(time.Second))
	return CatchingUp, s.Name, fmt.Sprintf("%s: %s behind, %s waiting, gaining %s/s: caught up in about %s",
		s.Name, round(s.Lag), bytes(s.Uncommitted), bytes(int64(gain)), round(remaining)), true
}

// behind is the first part of the message about a stream that falls behind.
func (s *Stream) behind() string {
	if rate := s.Rates.backlogGrowth(); rate >= 1 {
		return fmt.Sprintf("%s: %s behind and losing %s/s", s.Name, round(s.Lag), bytes(int64(rate)))
	}
	return fmt.Sprintf("%s: %s behind and not catching up", s.Name, round(s.Lag))
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
