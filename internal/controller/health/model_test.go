package health_test

import (
	"math/rand/v2"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

const (
	tick      = 100 * time.Millisecond
	lineBytes = 500
	limit     = 32 << 20
)

// sinkMood is how a sink handles a request.
type sinkMood int

const (
	answers sinkMood = iota
	refuses
	swallows // takes it and never answers
)

// parser is a small model of a parser. Each test sets its inputs, and all figures follow from them. A batch takes over
// the whole buffer and is parsed and delivered piece by piece, while the buffer fills again.
type parser struct {
	now time.Time

	// Inputs.
	feed      func(since time.Duration) float64 // lines a second
	speed     float64                           // bytes parsed a second, with one core
	sink      sinkMood
	sinkSpeed float64       // bytes acknowledged a second; 0: at once
	latency   time.Duration // of each batch
	hung      bool
	boundless bool    // the buffer has no limit
	cores     float64 // of the process; it uses them all while it parses
	readSpeed float64 // bytes read a second; 0: at once
	memory    func(since time.Duration) int64

	written, read, parsed, acked, committed float64
	// in-flight bytes are from acked to batchEnd; parsed are those up to batchParsed
	batchEnd, batchParsed       float64
	arrivals                    []arrival
	asked                       time.Time     // since when a request is outstanding; zero: none is
	answerIn                    time.Duration // how long it still takes
	state                       report.SinkState
	stateSince                  time.Time
	lastAck, lastLine, commitAt time.Time
	lastBatch                   float64
	busy, wait, cpu             float64
	randomness                  *rand.Rand
}

type arrival struct {
	end float64
	at  time.Time
}

func newParser(feed func(time.Duration) float64) *parser {
	return &parser{
		now: start, feed: feed, speed: 400e6, cores: 2, state: report.SinkHealthy, stateSince: start,
		memory: func(time.Duration) int64 { return 60 << 20 }, randomness: rand.New(rand.NewPCG(1, 2)),
	}
}

// steady writes the same number of lines each second.
func steady(lines float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return lines }
}

// run lets time pass.
func (p *parser) run(d time.Duration) {
	for range d / tick {
		p.step()
	}
}

func (p *parser) step() {
	p.now = p.now.Add(tick)
	if lines := p.feed(p.now.Sub(start)) * tick.Seconds(); lines > 0 {
		p.written += lines * lineBytes
		p.arrivals = append(p.arrivals, arrival{p.written, p.now})
		p.lastLine = p.now
	}
	room := limit - (p.read - p.batchEnd)
	if p.boundless {
		room = p.written
	}
	reads := max(min(p.written-p.read, room), 0)
	if p.readSpeed > 0 {
		reads = min(reads, p.readSpeed*tick.Seconds())
	}
	p.read += reads
	if !p.hung {
		p.work()
	}
	for len(p.arrivals) > 0 && p.arrivals[0].end <= p.acked {
		p.arrivals = p.arrivals[1:]
	}
}

// work is one tick of the processor.
func (p *parser) work() {
	for left := tick; left > 0; {
		switch {
		case !p.asked.IsZero():
			if p.sink == swallows {
				p.busy += left.Seconds()
				return
			}
			took := min(left, p.answerIn)
			p.busy += took.Seconds()
			p.answerIn -= took
			left -= took
			if p.answerIn > 0 {
				return
			}
			p.asked = time.Time{}
			p.acked, p.lastAck = p.batchParsed, p.now
			if p.now.Sub(p.commitAt) >= time.Second {
				p.committed, p.commitAt = p.acked, p.now
			}
		case p.sink == refuses && p.batchParsed > p.acked:
			if p.state != report.SinkRetrying {
				p.state, p.stateSince = report.SinkRetrying, p.now
			}
			return
		case p.batchParsed > p.acked: // parsed and not delivered
			if p.state != report.SinkHealthy {
				p.state, p.stateSince = report.SinkHealthy, p.now
			}
			p.asked = p.now
			if p.sinkSpeed > 0 {
				p.answerIn = time.Duration((p.batchParsed - p.acked) / p.sinkSpeed * float64(time.Second))
			}
			if p.batchParsed == p.batchEnd {
				p.answerIn += p.latency
			}
		case p.batchEnd > p.acked:
			piece := min(p.batchEnd-p.batchParsed, 1<<20)
			took := max(time.Duration(piece/(p.speed*p.cores)*float64(time.Second)), 1)
			p.cpu += min(took, left).Seconds() * p.cores
			if took > left {
				piece *= left.Seconds() / took.Seconds()
			}
			p.parsed += piece
			p.batchParsed = min(p.batchParsed+piece, p.batchEnd)
			left -= took
		case p.read > p.batchEnd:
			p.lastBatch = p.read - p.batchEnd
			p.batchParsed, p.batchEnd = p.batchEnd, p.read
		default:
			p.committed = p.acked
			if p.written > p.read {
				p.wait += left.Seconds()
			}
			return
		}
	}
}

func (p *parser) report() report.Report {
	since, lastAck, lastLine := p.stateSince, p.lastAck, p.lastLine
	s := report.Stream{
		Name: "OrderStatuses", Mode: "Line", State: report.Running,
		BufferLines: int64((p.read - p.batchEnd) / lineBytes), BufferBytes: int64(p.read - p.batchEnd),
		BufferLimitBytes: limit,
		InFlightLines:    int64((p.batchEnd - p.acked) / lineBytes), InFlightBytes: int64(p.batchEnd - p.acked),
		LastBatchLines:   int64(p.lastBatch / lineBytes),
		UncommittedBytes: new(int64(p.written) - int64(p.committed)), LagSeconds: new(float64),
		LargestLineBytes: lineBytes + 20,
		ReadBytesTotal:   int64(p.read), ParsedBytesTotal: int64(p.parsed), AckedBytesTotal: int64(p.acked),
		CommittedBytesTotal:  int64(p.committed),
		ReadWaitSecondsTotal: p.wait,
		Sink:                 report.Sink{State: p.state, Since: &since, BusySecondsTotal: p.busy},
	}
	if len(p.arrivals) > 0 {
		*s.LagSeconds = p.now.Sub(p.arrivals[0].at).Seconds()
	}
	if !p.asked.IsZero() {
		s.Sink.OutstandingSeconds = max(p.now.Sub(p.asked), time.Millisecond).Seconds()
	}
	if !lastAck.IsZero() {
		s.Sink.LastAckAt = &lastAck
	}
	if !lastLine.IsZero() {
		s.LastLineAt = &lastLine
	}
	return report.Report{
		Parser: "hlparser", StartedAt: start, Now: p.now, Streams: []report.Stream{s},
		Process: report.Process{
			RSSBytes: new(p.memory(p.now.Sub(start))), MemoryLimitBytes: 512 << 20, CPUSecondsTotal: p.cpu, CPULimit: p.cores,
		},
	}
}
