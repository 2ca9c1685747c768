package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/resume"
)

// fundingLine is a line of a block whose events have the given numbers of rows. Row k of event i pays to i/k.
func fundingLine(block int, rows ...int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"local_time":"l","block_time":"t","block_number":%d,"events":[`, block)
	for i, n := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"time":"t","hash":"h","inner":{"Funding":{"deltas":[`)
		for k := range n {
			if k > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"user":"%d/%d/%d","coin":"BTC"}`, block, i, k)
		}
		b.WriteString(`]}}}`)
	}
	return b.String() + "]}\n"
}

// fundingUsers are the users of the rows of a line, in order.
func fundingUsers(block int, rows ...int) (users []string) {
	for i, n := range rows {
		for k := range n {
			users = append(users, fmt.Sprintf("%d/%d/%d", block, i, k))
		}
	}
	return users
}

var rowUser = regexp.MustCompile(`"user":"([0-9/]+)"`)

// usersOf returns the user of each record that has one.
func usersOf(records string) (users []string) {
	for _, found := range rowUser.FindAllStringSubmatch(records, -1) {
		users = append(users, found[1])
	}
	return users
}

// fenced is an output that stores the position with the records, like Kafka and NATS with exactly once. Each Write
// stores half of its records, and fails at some of them.
type fenced struct {
	memory
	stored *resume.Position
	fails  func(write int) bool
}

type fencedSink struct {
	*fenced
	tracker *resume.Tracker
}

func (f *fenced) Open(_ context.Context, _ string, state json.RawMessage) (sink.Sink, error) {
	var saved *resume.State
	if state != nil {
		saved = &resume.State{}
		if err := json.Unmarshal(state, saved); err != nil {
			return nil, err
		}
	}
	return &fencedSink{f, resume.Open(saved, f.stored)}, nil
}

func (f *fencedSink) Write(_ context.Context, b sink.Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	fail := f.fails(f.writes)
	n := f.tracker.Skip(b)
	to := len(b.Records)
	if fail {
		to = n + (to-n)/2
	}
	for i := n; i < to; i++ {
		f.data = append(f.data, b.Record(i)...)
		at := f.tracker.Position(b.File, resume.PointOf(b, i))
		f.stored = &at
		f.tracker.Stored(b.File, resume.PointOf(b, i))
	}
	if fail {
		return sink.ErrReopen
	}
	f.tracker.Acked(b)
	return nil
}

func (f *fencedSink) Flush(context.Context, bool) (sink.Flushed, error) {
	state, err := json.Marshal(f.tracker.Flush())
	return sink.Flushed{State: state}, err
}

func (f *fencedSink) Committed(context.Context) error {
	f.tracker.Committed()
	return nil
}

// TestTheRowsOfAnEventAreStoredOnceThoughTheStreamRestartsWithinIt restarts the stream in the middle of events whose
// rows fill many outputs.
func TestTheRowsOfAnEventAreStoredOnceThoughTheStreamRestartsWithinIt(t *testing.T) {
	t.Parallel()
	for _, format := range []config.Format{config.Normalized, config.EnvelopedRows} {
		for _, deduplicate := range []bool{false, true} {
			b := newBench(t, config.StreamConfig{Name: config.MiscEvents})
			b.cfg.Format, b.cfg.Once = format, true
			b.cfg.Engine.DeduplicateBlocks, b.cfg.Engine.Markers = deduplicate, false
			b.node("misc_events_by_block/20260611/1", fundingLine(5, 3, 100, 1, 2)+fundingLine(6, 40)+fundingLine(7, 1, 1))
			out := &fenced{fails: func(write int) bool { return write == 2 || write == 7 }}
			e := b.engine(out)
			limitOutputs(e, 2000)
			if err := e.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if out.writes < 10 {
				t.Errorf("%d writes", out.writes)
			}
			want := append(fundingUsers(5, 3, 100, 1, 2), append(fundingUsers(6, 40), fundingUsers(7, 1, 1)...)...)
			got := usersOf(out.text())
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: got %v\nwant %v", format, got, want)
			}
		}
	}
}

// TestAReplayOfEventsWithManyRowsIsDeliveredOnce writes blocks again whose events are delivered in many outputs.
func TestAReplayOfEventsWithManyRowsIsDeliveredOnce(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"misc_events_by_block/20260611/1", "misc_events_streaming/20260611/1"} {
		for _, limit := range []int{1000, 5000, 1 << 20} {
			b := newBench(t, config.StreamConfig{Name: config.MiscEvents})
			b.cfg.Format, b.cfg.Once = config.Normalized, true
			b.cfg.Engine.DeduplicateBlocks, b.cfg.Engine.Markers = true, true
			b.node(file, fundingLine(5, 3, 30, 1)+fundingLine(6, 40)+fundingLine(5, 3, 30, 1)+fundingLine(6, 40, 2)+
				fundingLine(7, 20, 20))
			out := &memory{}
			e := b.engine(out)
			limitOutputs(e, limit)
			if err := e.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := append(fundingUsers(5, 3, 30, 1), fundingUsers(6, 40)...)
			if strings.Contains(file, "streaming") { // a line shows only which events it has
				want = append(want, fundingUsers(6, 40, 2)[40:]...)
			}
			want = append(want, fundingUsers(7, 20, 20)...)
			if got := usersOf(out.text()); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s, outputs of %d bytes: got %v\nwant %v", file, limit, got, want)
			}
		}
	}
}

// TestARefusedRowHasAMarkerInItsPlace refuses a row in the middle of an event.
func TestARefusedRowHasAMarkerInItsPlace(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1000, 1 << 20} {
		b := newBench(t, config.StreamConfig{Name: config.MiscEvents})
		b.cfg.Format, b.cfg.Once = config.Normalized, true
		b.cfg.Engine.DeduplicateBlocks, b.cfg.Engine.Markers = true, true
		b.node("misc_events_by_block/20260611/1", fundingLine(5, 2, 30))
		out := &memory{fail: func(_ int, batch sink.Batch) error {
			for i := range batch.Records {
				if strings.Contains(string(batch.Record(i)), `"5/1/20"`) {
					return &sink.Refusal{Index: i, Reason: "too large"}
				}
			}
			return nil
		}}
		e := b.engine(out)
		limitOutputs(e, limit)
		if err := e.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(out.text(), "\n")
		if len(lines) != 33 || !strings.Contains(lines[22], `"_marker"`) || !strings.Contains(lines[22], `:0:22"`) ||
			!strings.Contains(lines[22], `"index":1`) {
			t.Errorf("outputs of %d bytes: %d lines; in the place of the row: %s", limit, len(lines)-1, lines[22])
		}
	}
}
