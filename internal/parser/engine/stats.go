package engine

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/secret"
)

// maxMessage bounds what a report says in words.
const maxMessage = 512

// stats are one stream's figures. They outlive the attempts of its pipeline.
type stats struct {
	begun atomic.Bool

	mu      sync.Mutex
	state   report.StreamState
	message string

	lines, events, delivered, malformed int64
	gaps, repeats, late, lastBlock      int64
	parsed, acked, committed            int64
	readWait                            time.Duration
	lastCommit                          time.Time

	sinkState    report.SinkState
	sinkSince    time.Time
	sinkError    string
	sinkSecret   string // path of the secret that is missing, while it is
	retries      int64
	lastAck      time.Time
	requestSince time.Time // zero: none outstanding
	busy         time.Duration
}

func (s *stats) set(f func(*stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// sink takes note of how the last exchange went. The caller holds mu.
func (s *stats) sink(state report.SinkState, err error, now time.Time) {
	if s.sinkState != state {
		s.sinkState, s.sinkSince = state, now
	}
	s.sinkSecret = ""
	if missing, ok := errors.AsType[*secret.Error](err); ok {
		s.sinkSecret = missing.Path
	}
	if err != nil {
		s.sinkError = clip(err.Error(), maxMessage)
	}
}

// clip shortens a text to at most n bytes of valid UTF-8.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// report gathers a stream's figures.
func (p *pipeline) report() report.Stream {
	now := p.engine.now()
	b, t := p.reading()
	s := &p.stats
	s.mu.Lock()
	defer s.mu.Unlock()
	r := report.Stream{
		Name: string(p.stream.Name), Mode: string(t.Mode), State: s.state, Message: s.message,
		BufferLines: b.Lines, BufferBytes: b.Bytes, BufferLimitBytes: p.engine.budget.Limit(),
		InFlightLines: b.InFlightLines, InFlightBytes: b.InFlightBytes, LastBatchLines: b.LastBatchLines,
		BatchesTotal: b.Swaps, LinesTotal: s.lines, EventsTotal: s.events, DeliveredTotal: s.delivered,
		MalformedTotal: s.malformed, OversizeTotal: t.Oversize, LateTotal: t.Late,
		PrunedUnreadTotal: t.PrunedUnread, SkippedBytesTotal: t.SkippedBytes, RepeatedBytesTotal: t.RepeatedBytes,
		BlockGapsTotal: s.gaps, BlockRepeatsTotal: s.repeats, BlockLateTotal: s.late, LastBlock: s.lastBlock,
		UncommittedBytes: t.UncommittedBytes, LargestLineBytes: t.LargestLine,
		ReadBytesTotal: t.ReadBytes, ParsedBytesTotal: s.parsed, AckedBytesTotal: s.acked, CommittedBytesTotal: s.committed,
		ReadWaitSecondsTotal: s.readWait.Seconds(),
		File:                 t.File, Position: t.Position, CommittedPosition: t.Committed,
		LastLineAt: timeOrNil(t.LastLine), LastCommitAt: timeOrNil(s.lastCommit),
		Sink: report.Sink{
			State: s.sinkState, Since: timeOrNil(s.sinkSince), LastError: s.sinkError, RetriesTotal: s.retries, MissingSecret: s.sinkSecret,
			LastAckAt: timeOrNil(s.lastAck), BusySecondsTotal: s.busy.Seconds(),
		},
	}
	if r.Mode == "" {
		r.Mode = string(p.stream.Mode)
	}
	if r.State == report.Running && !t.Found {
		r.State, r.Message = report.WaitingForData, "no file of the stream is on disk yet: "+p.where()
	}
	if !t.OldestUnacked.IsZero() {
		r.LagSeconds = max(now.Sub(t.OldestUnacked).Seconds(), 0)
	}
	if !s.requestSince.IsZero() {
		outstanding := max(now.Sub(s.requestSince), 0)
		r.Sink.OutstandingSeconds = outstanding.Seconds()
		r.Sink.BusySecondsTotal += outstanding.Seconds()
	}
	return r
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
