package health_test

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// longestMessage bounds the messages of verdicts and alerts, in bytes, with the longest names that a report may have.
const longestMessage = 512

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// forger draws reports with arbitrary values.
type forger struct {
	count  *rapid.Generator[int64]
	amount *rapid.Generator[float64]
	at     *rapid.Generator[time.Time]
	text   *rapid.Generator[string]
}

func newForger() forger {
	return forger{
		count: rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, -1, 1, math.MaxInt64, math.MinInt64, 1 << 55,
			1 << 40})),
		amount: rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{
			0, -1, math.MaxFloat64, -math.MaxFloat64, 1e-300, 1e10, 5, math.NaN(), math.Inf(1), math.Inf(-1),
		})),
		at: rapid.OneOf(
			rapid.Map(rapid.Int64Range(-1<<36, 1<<36), func(s int64) time.Time { return time.Unix(s, 0) }),
			rapid.SampledFrom([]time.Time{{}, time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC), noon,
				noon.AddDate(300, 0, 0)}),
		),
		text: rapid.SampledFrom([]string{"", "Fills", "OrderStatuses", "no space left\non device", "\x1b[2J",
			strings.Repeat("–", 1000), "\xff\xfe"}),
	}
}

func maybe[V any](t *rapid.T, of *rapid.Generator[V], label string) *V {
	if rapid.Bool().Draw(t, label+" is absent") {
		return nil
	}
	return new(of.Draw(t, label))
}

func (f forger) stream(t *rapid.T, name string) report.Stream {
	n := func(label string) int64 { return f.count.Draw(t, label) }
	amount := func(label string) float64 { return f.amount.Draw(t, label) }
	s := report.Stream{
		Name: name, Mode: rapid.SampledFrom([]string{"ByBlock", "Line", ""}).Draw(t, "mode"), Message: f.text.Draw(t,
			"message"),
		State: report.StreamState(rapid.SampledFrom([]string{"Running", "Failed", "WaitingForData", "Blocked",
			"Draining", "x"}).Draw(t, "state")),
		BufferLines: n("lines"), BufferBytes: n("bytes"), BufferLimitBytes: n("limit"),
		InFlightLines: n("flying"), InFlightBytes: n("flying bytes"),
		PrunedUnreadTotal: n("pruned"), SkippedBytesTotal: n("skipped"), BlockGapsTotal: n("gaps"), LastBlock: n("block"),
		UncommittedBytes: maybe(t, f.count, "uncommitted"), LagSeconds: maybe(t, f.amount,
			"lag"), LargestLineBytes: n("largest"),
		ReadBytesTotal: n("read"), ParsedBytesTotal: n("parsed"), AckedBytesTotal: n("acked"),
		CommittedBytesTotal: n("committed"),
		LinesTotal:          n("lines read"), MalformedLinesTotal: n("malformed"),
		ReadWaitSecondsTotal: amount("wait"), LastLineAt: maybe(t, f.at, "last line"),
		Sink: report.Sink{
			State: report.SinkState(rapid.SampledFrom([]string{"Healthy", "Retrying", "Failed", "x"}).Draw(t, "sink")),
			Since: maybe(t, f.at, "since"), LastAckAt: maybe(t, f.at, "last ack"), LastError: f.text.Draw(t, "error"),
			OutstandingSeconds: amount("outstanding"), BusySecondsTotal: amount("busy"), MissingSecret: f.text.Draw(t, "secret"),
		},
	}
	if rapid.Bool().Draw(t, "blocked") {
		s.Blocked = &report.BlockedPath{Path: f.text.Draw(t, "path"), Error: f.text.Draw(t, "why"), Errno: "EACCES",
			Since: f.at.Draw(t, "blocked since"), Denies: f.text.Draw(t, "denies"), Bits: f.text.Draw(t, "bits"),
			Owner: maybe(t, f.count, "owner"), RunsAs: maybe(t, f.count, "runs as"), Count: int(n("paths"))}
	}
	return s
}

// No report makes the judgement panic, and all texts are bounded and printable.
func TestAForgedReportSpoilsNoJudgement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		forged, clock := newForger(), noon
		var tracker health.Tracker
		settings := health.Settings{PollInterval: 5 * time.Second, Lag: 30 * time.Second, StuckAfter: 30 * time.Second,
			Retention: 24 * time.Hour, BufferLimit: 32 << 20}
		tracker.ObservePod(health.PodState{UID: "u", Container: "c", Running: true}, clock, settings)
		started := forged.at.Draw(t, "started")
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"Fills", "OrderStatuses", strings.Repeat("x", 64)}), 1, 3).Draw(t,
			"names")
		for range rapid.IntRange(1, 40).Draw(t, "polls") {
			clock = clock.Add(time.Duration(rapid.Int64Range(0, 20).Draw(t, "passes")) * time.Second)
			r := report.Report{StartedAt: started, Now: forged.at.Draw(t, "now"), Process: report.Process{
				RSSBytes: maybe(t, forged.count, "resident"), MemoryLimitBytes: forged.count.Draw(t,
					"memory"), CPUSecondsTotal: forged.amount.Draw(t, "cpu"), CPULimit: forged.amount.Draw(t, "cores"),
			}}
			for _, name := range names {
				r.Streams = append(r.Streams, forged.stream(t, name))
			}
			tracker.ObservePoll(health.Poll{Report: &r}, clock, settings)

			j, alerts := tracker.Judgement(), tracker.Alerts()
			for _, text := range []string{j.Message, j.Reason, alerts.DataLost.Message, alerts.DataGap.Message,
				alerts.NearRetention.Message, alerts.FormatDrift.Message, tracker.Latest().Message} {
				if len(text) > longestMessage {
					t.Fatalf("a text of %d bytes: %q", len(text), text)
				}
				if strings.ContainsFunc(text, func(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }) {
					t.Fatalf("%q is not printable", text)
				}
			}
			if lag, _ := tracker.Lag(); lag < 0 || j.Since.After(clock) {
				t.Fatalf("a lag of %s, a verdict from %s at %s", lag, j.Since, clock)
			}
		}
	})
}
