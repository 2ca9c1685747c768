package growth

import (
	"fmt"
	"time"
)

// cause is why a stream is far behind.
type cause int

const (
	causeNone cause = iota // it is not
	causeCatchingUp
	causeSink
	causeCPU
	causeWork
	causeDisk
	causeParser // nothing else explains it
)

// cause says why a stream is far behind. What is outside of the parser comes first, and of that whatever has least left to give:
// with more of the others nothing would be gained.
func (s *Stream) cause(in *Input) cause {
	r := &s.Rates
	if in.Settings.Lag <= 0 || s.Lag < in.Settings.Lag || in.Window.Reports < rateReports || !r.Known {
		return causeNone
	}
	if r.Acked > 0 && r.Acked >= catchingUp*r.Written && r.Falls {
		return causeCatchingUp
	}
	why, most := causeParser, 0.0
	for _, outside := range [...]struct {
		cause       cause
		share, from float64
	}{
		{causeSink, r.SinkBusy, sinkShare},
		{causeCPU, in.Window.Process.CPU, cpuShare},
		{causeDisk, r.ReadWait, diskShare},
	} {
		if outside.share >= outside.from && outside.share > most {
			why, most = outside.cause, outside.share
		}
	}
	if why == causeParser && s.works(&in.Window.Process) {
		return causeWork
	}
	return why
}

// works is whether the parser burns a processor, or as much of one as it may, in all the time that it waits for nobody in, and
// delivers as fast as it ever has. It has not become slow then: there is more to do than its workers can, though most of the
// machine's processors may be idle.
func (s *Stream) works(p *Process) bool {
	r := &s.Rates
	return p.CPU*p.Cores >= cpuShare*min(p.Cores, 1)*(1-r.SinkBusy-r.ReadWait) && r.Acked >= asEver*s.Best
}

// furthest is the stream that is furthest behind for a cause from least to most; nil when none is.
func furthest(in *Input, least, most cause) (worst *Stream, why cause) {
	for i := range in.Window.Streams {
		s := &in.Window.Streams[i]
		if c := s.cause(in); c >= least && c <= most && (worst == nil || s.Lag > worst.Lag) {
			worst, why = s, c
		}
	}
	return worst, why
}

// OverloadedStream matches a stream that falls behind for what a restart does not change.
func OverloadedStream(in *Input) (Verdict, string, string, bool) {
	s, why := furthest(in, causeSink, causeDisk)
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
		return Overloaded, ReasonCPU, fmt.Sprintf("%s at %.1f of %.4g cores, as fast as it ever was: raise CPU limit or workers, or filter more",
			s.behind(), p.CPU*p.Cores, p.Cores), true
	}
	return Overloaded, ReasonDisk, fmt.Sprintf("%s, waiting for reads %s of the time: the disk is too slow",
		s.behind(), percent(s.Rates.ReadWait)), true
}

// SlowStream matches a stream that falls behind though its sink, the processor and the disk have room.
func SlowStream(in *Input) (Verdict, string, string, bool) {
	s, _ := furthest(in, causeParser, causeParser)
	if s == nil {
		return "", "", "", false
	}
	sink := "idle"
	if s.Rates.SinkBusy >= 0.01 {
		sink = percent(s.Rates.SinkBusy) + " busy"
	}
	return Growing, ReasonParserSlow, fmt.Sprintf("%s, sink %s, CPU %s: parser slow", s.behind(), sink, percent(in.Window.Process.CPU)), true
}

// CatchingUpStream matches a stream that is far behind and whose end is in sight.
func CatchingUpStream(in *Input) (Verdict, string, string, bool) {
	s, _ := furthest(in, causeCatchingUp, causeCatchingUp)
	if s == nil {
		return "", "", "", false
	}
	gains := s.Rates.Acked - s.Rates.Written
	level := time.Duration(min(float64(s.Uncommitted)/gains, 1e6) * float64(time.Second))
	return CatchingUp, s.Name, fmt.Sprintf("%s: %s behind, %s wait, gaining %s/s: level in about %s",
		s.Name, round(s.Lag), bytes(s.Uncommitted), bytes(int64(gains)), round(level)), true
}

// behind begins the sentence about a stream that falls behind.
func (s *Stream) behind() string {
	if rate := s.Rates.fallsBack(); rate >= 1 {
		return fmt.Sprintf("%s: %s behind and falling back at %s/s", s.Name, round(s.Lag), bytes(int64(rate)))
	}
	return fmt.Sprintf("%s: %s behind and not catching up", s.Name, round(s.Lag))
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
