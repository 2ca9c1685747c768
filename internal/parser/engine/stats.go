package engine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/secret"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/tail"
)

// maxMessage bounds a message in a report, in bytes.
const maxMessage = 512

// stats are one stream's figures. They outlive the attempts of its pipeline.
type stats struct {
	begun atomic.Bool

	mu      sync.Mutex
	state   report.StreamState
	message string

	lines, events, filtered, delivered int64
	malformed, malformedLines          int64
	deadDropped                        int64
	minute                             minute
	gaps, repeats, late, lastBlock     int64
	parsed, acked, committed           int64
	rolledBack                         int64 // in delivered, but rolled back by the sink and delivered again
	readWait                           time.Duration
	lastCommit                         time.Time

	sinkState    report.SinkState
	sinkSince    time.Time
	sinkError    string
	sinkSecret   string // path of the missing secret, while it is missing
	retries      int64
	lastAck      time.Time
	requestSince time.Time // zero: none outstanding
	busy         time.Duration

	startLogged                  bool // the log line at the start was written
	lagCheckedAt, behindLoggedAt time.Time
}

// ready reports whether the stream has started and has not failed.
func (s *stats) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun.Load() && s.state != report.Failed
}

// count adds a slot's output and its delivery counts. malformedLines are the lines with malformed items that are not
// counted yet. The caller holds mu.
func (s *stats) count(now time.Time, out *hyperliquid.Output, counts deliveryCounts, malformedLines int64) {
	events := out.Events - counts.skipped
	filtered := out.Filtered - (counts.skipped - counts.skippedPassed)
	s.lines += out.Lines
	s.repeats += counts.repeats
	s.late += counts.late
	s.events += events
	s.filtered += filtered
	s.malformed += counts.malformed
	s.malformedLines += malformedLines
	s.minute.add(now, tally{out.Lines, malformedLines, events, filtered})
}

// countBlock counts gaps and, without deduplication, repeats. Only in by-block mode does every block have a line, so
// that a jump is a gap. The caller holds mu.
func (s *stats) countBlock(number int64, everyBlock, countRepeats bool) {
	switch {
	case s.lastBlock == 0:
	case number > s.lastBlock && everyBlock:
		s.gaps += number - s.lastBlock - 1
	case countRepeats && (number < s.lastBlock || number == s.lastBlock && everyBlock):
		s.repeats++
	}
	s.lastBlock = max(s.lastBlock, number)
}

const (
	// minuteBuckets buckets of bucketWidth make the last minute.
	minuteBuckets = 12
	bucketWidth   = 5 * time.Second
)

// tally counts the contents of some lines.
type tally struct{ lines, malformedLines, events, filtered int64 }

// minute counts the contents of the last minute's lines, to bucketWidth. If the clock is set back it starts over.
type minute [minuteBuckets]struct {
	number int64 // buckets since 1970
	tally
}

func bucketOf(now time.Time) int64 { return now.UnixNano() / int64(bucketWidth) }

func (m *minute) add(now time.Time, t tally) {
	n := bucketOf(now)
	s := &m[uint64(n)%minuteBuckets]
	if s.number != n {
		s.number, s.tally = n, tally{}
	}
	s.lines += t.lines
	s.malformedLines += t.malformedLines
	s.events += t.events
	s.filtered += t.filtered
}

func (m *minute) sum(now time.Time) (t tally) {
	n := bucketOf(now)
	for i := range m {
		if s := &m[i]; s.number > n-minuteBuckets && s.number <= n {
			t.lines += s.lines
			t.malformedLines += s.malformedLines
			t.events += s.events
			t.filtered += s.filtered
		}
	}
	return t
}

// ratio returns part/whole, or nil if whole is 0.
func ratio(part, whole int64) *float64 {
	if whole == 0 {
		return nil
	}
	return new(float64(part) / float64(whole))
}

func (s *stats) set(f func(*stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// setSink records the result of the last call to the sink. The caller holds mu.
func (s *stats) setSink(state report.SinkState, err error, now time.Time) {
	if s.sinkState != state {
		s.sinkState, s.sinkSince = state, now
	}
	s.sinkSecret = ""
	if missing, ok := errors.AsType[*secret.Error](err); ok {
		s.sinkSecret = missing.Path
	}
	if err != nil {
		s.sinkError = clip(err.Error())
	}
}

// clip shortens a text to at most maxMessage bytes of valid UTF-8.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "")
}

// report builds a stream's report.
func (p *pipeline) report() report.Stream {
	now := p.engine.now()
	b, t, known := p.readStats()
	s := &p.stats
	s.mu.Lock()
	defer s.mu.Unlock()
	minute := s.minute.sum(now)
	r := report.Stream{
		Name: string(p.stream.Name), Mode: string(t.Mode), State: s.state, Blocked: blocked(t.Blocked),
		BufferLines: b.Lines, BufferBytes: b.Bytes, BufferLimitBytes: p.engine.budget.Limit(),
		InFlightLines: b.InFlightLines, InFlightBytes: b.InFlightBytes, LastBatchLines: b.LastBatchLines,
		BatchesTotal: b.Swaps, LinesTotal: s.lines, EventsTotal: s.events, FilteredTotal: s.filtered,
		DeliveredTotal: s.delivered,
		MalformedTotal: s.malformed, MalformedLinesTotal: s.malformedLines, DeadLetterDroppedTotal: s.deadDropped,
		OversizeTotal: t.Oversize, LateTotal: t.Late,
		PrunedUnreadTotal: t.PrunedUnread, SkippedBytesTotal: t.SkippedBytes, PassedOverBytesTotal: t.PassedOver,
		RepeatedBytesTotal: t.RepeatedBytes,
		BlockGapsTotal:     s.gaps, BlockRepeatsTotal: s.repeats, BlockLateTotal: s.late, LastBlock: s.lastBlock,
		LargestLineBytes: t.LargestLine,
		MalformedShare:   ratio(minute.malformedLines, minute.lines), FilteredShare: ratio(minute.filtered, minute.events),
		ReadBytesTotal: t.ReadBytes, ParsedBytesTotal: s.parsed, AckedBytesTotal: s.acked, CommittedBytesTotal: s.committed,
		ReadWaitSecondsTotal: s.readWait.Seconds(),
		File:                 t.File, Position: t.Position, CommittedPosition: t.Committed,
		LastLineAt: timeOrNil(t.LastLine), LastCommitAt: timeOrNil(s.lastCommit),
		Sink: report.Sink{
			Kind: p.kind, Destination: p.stream.Sink,
			State: s.sinkState, Since: timeOrNil(s.sinkSince), LastError: s.sinkError, RetriesTotal: s.retries,
			MissingSecret: s.sinkSecret, LastAckAt: timeOrNil(s.lastAck), BusySecondsTotal: s.busy.Seconds(),
		},
	}
	if r.Mode == "" {
		r.Mode = string(p.stream.Mode)
	}
	message := s.message
	if r.State == report.Running {
		switch {
		case r.Blocked != nil:
			r.State, message = report.Blocked, join(cannotRead(r.Blocked), message)
		case !t.Found:
			r.State, message = report.WaitingForData, join("no file of the stream is on disk yet: "+p.directoryNames(), message)
		}
	}
	r.Message = clip(message)
	if known {
		r.UncommittedBytes, r.LagSeconds, r.LagEstimated = new(t.UncommittedBytes), new(0.0), t.LagEstimated
		if !t.OldestUnacked.IsZero() {
			*r.LagSeconds = max(now.Sub(t.OldestUnacked).Seconds(), 0)
		}
	}
	if !s.requestSince.IsZero() {
		outstanding := max(now.Sub(s.requestSince), 0)
		r.Sink.OutstandingSeconds = outstanding.Seconds()
		r.Sink.BusySecondsTotal += outstanding.Seconds()
	}
	return r
}

// join joins the messages that are not empty.
func join(what ...string) string {
	return strings.Join(slices.DeleteFunc(what, func(s string) bool { return s == "" }), "; ")
}

// blocked converts the blocked path to its form in the report.
func blocked(b *tail.Blocked) *report.BlockedPath {
	if b == nil {
		return nil
	}
	out := &report.BlockedPath{Path: clip(b.Path), Since: b.Since.UTC(), Count: b.Count}
	if b.Err != nil {
		out.Error = clip(b.Err.Error())
	}
	if errno, ok := errors.AsType[syscall.Errno](b.Err); ok {
		out.Errno = unix.ErrnoName(errno)
	}
	if d := b.Denied; d != nil {
		out.Denies, out.Bits = clip(d.Path), fmt.Sprintf("%04o", d.Mode.Perm())
		out.Owner, out.RunsAs = new(d.Owner), new(int64(os.Geteuid()))
	}
	return out
}

// cannotRead describes the blocked path in words.
func cannotRead(b *report.BlockedPath) string {
	text := fmt.Sprintf("cannot read %s: %s", b.Path, b.Error)
	if b.Count > 1 {
		text += fmt.Sprintf(" (and %d more)", b.Count-1)
	}
	return text
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
