package engine

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
)

// envelope is a line of a block with its events from..to-1.
func envelope(block, from, to int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"local_time":"l","block_time":"t","block_number":%d,"events":[`, block)
	for i := from; i < to; i++ {
		if i > from {
			b.WriteByte(',')
		}
		b.WriteString(trade(block*100 + i))
	}
	return b.String() + "]}\n"
}

func events(block, from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(trade(block*100+i) + "\n")
	}
	return b.String()
}

// torn is the beginning of a line.
func torn(line string) string { return line[:len(line)*2/3] }

// malformed is the line with event 1 of the block made malformed.
func malformed(line string, block int) string {
	return strings.Replace(line, trade(block*100+1), `{"coin":}`, 1)
}

func TestAReplayAfterANodeRestartIsDeliveredOnce(t *testing.T) {
	const (
		byBlock, byBlock9     = "node_trades_by_block/20260430/8", "node_trades_by_block/20260430/9"
		streaming, streaming9 = "node_trades_streaming/20260430/8", "node_trades_streaming/20260430/9"
	)
	for name, c := range map[string]struct {
		runs          []map[string]string // what is appended before each run of the parser
		want          string
		repeats, late int64 // in the last run
	}{
		"whole blocks": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 3) + envelope(6, 0, 2) + envelope(5, 0, 3) +
				envelope(6, 0, 2) + envelope(7, 0, 1)}},
			want:    events(5, 0, 3) + events(6, 0, 2) + events(7, 0, 1),
			repeats: 2,
		},
		"blocks of before the parser's restart": {
			runs: []map[string]string{
				{byBlock: envelope(5, 0, 3) + envelope(6, 0, 2)},
				{byBlock: envelope(5, 0, 3) + envelope(6, 0, 2) + envelope(7, 0, 1)},
			},
			want:    events(5, 0, 3) + events(6, 0, 2) + events(7, 0, 1),
			repeats: 2,
		},
		"the rest of a block that was cut short": {
			runs: []map[string]string{{streaming: envelope(5, 0, 2) + envelope(6, 0, 1) + envelope(6, 1, 2) +
				envelope(5, 0, 2) + envelope(6, 0, 3) + envelope(7, 0, 1)}},
			want:    events(5, 0, 2) + events(6, 0, 3) + events(7, 0, 1),
			repeats: 2,
		},
		"the current block continues after a restart of the parser": {
			runs: []map[string]string{
				{streaming: envelope(6, 0, 2)},
				{streaming: envelope(6, 2, 3) + envelope(7, 0, 1)},
			},
			want: events(6, 0, 3) + events(7, 0, 1),
		},
		"a missing block fills its gap, and the current block before it is not forgotten": {
			runs: []map[string]string{{streaming: envelope(4, 0, 1) + envelope(6, 0, 1) +
				envelope(4, 0, 1) + envelope(5, 0, 1) + envelope(5, 1, 2) + envelope(6, 0, 1) + envelope(6, 1, 4) +
				envelope(7, 0, 1)}},
			want:    events(4, 0, 1) + events(6, 0, 1) + events(5, 0, 2) + events(6, 1, 4) + events(7, 0, 1),
			repeats: 2, late: 1,
		},
		"blocks in another mode": {
			runs: []map[string]string{
				{streaming: envelope(5, 0, 2) + envelope(6, 0, 1) + envelope(6, 1, 2)},
				{byBlock: envelope(5, 0, 2) + envelope(6, 0, 4) + envelope(7, 0, 1)},
			},
			want:    events(5, 0, 2) + events(6, 0, 4) + events(7, 0, 1),
			repeats: 2,
		},
		"a block that another mode has in part": {
			runs: []map[string]string{
				{streaming: envelope(5, 0, 2) + envelope(6, 0, 1) + envelope(6, 2, 3)},
				{byBlock: envelope(5, 0, 2) + envelope(6, 0, 4) + envelope(7, 0, 1)},
			},
			want:    events(5, 0, 2) + events(6, 0, 1) + events(6, 2, 3) + events(6, 1, 2) + events(6, 3, 4) + events(7, 0, 1),
			repeats: 2,
		},
		"back in streaming mode": {
			runs: []map[string]string{
				{byBlock: envelope(5, 0, 2) + malformed(envelope(6, 0, 2), 6)},
				{streaming: envelope(5, 0, 2) + envelope(7, 0, 1)},
			},
			want:    events(5, 0, 2) + events(6, 0, 1) + events(7, 0, 1),
			repeats: 1,
		},
		"a line torn by the node's exit and joined to the first line after it": {
			runs: []map[string]string{{byBlock: envelope(1, 0, 2) + envelope(2, 0, 2) + envelope(3, 0, 2) +
				torn(envelope(4, 0, 2)) +
				envelope(2, 0, 2) + envelope(3, 0, 2) + envelope(4, 0, 2) + envelope(5, 0, 2)}},
			want:    events(1, 0, 2) + events(2, 0, 2) + events(3, 0, 2) + events(4, 0, 2) + events(5, 0, 2),
			repeats: 1,
		},
		"a torn line and a restart of the parser": {
			runs: []map[string]string{
				{byBlock: envelope(1, 0, 2) + envelope(2, 0, 2) + torn(envelope(3, 0, 2))},
				{byBlock: envelope(1, 0, 2) + envelope(2, 0, 2)}, {byBlock: envelope(3, 0, 2)},
			},
			want: events(1, 0, 2) + events(2, 0, 2) + events(3, 0, 2),
		},
		"a torn line in streaming mode": {
			runs: []map[string]string{{streaming: envelope(4, 0, 1) + envelope(4, 1, 2) + envelope(5, 0, 1) +
				torn(envelope(5, 1, 2)) +
				envelope(4, 0, 1) + envelope(4, 1, 2) + envelope(5, 0, 1) + envelope(5, 1, 2) + envelope(6, 0, 1)}},
			want:    events(4, 0, 2) + events(5, 0, 2) + events(6, 0, 1),
			repeats: 2, late: 1,
		},
		"a torn line of the current block": {
			runs: []map[string]string{{streaming: envelope(5, 0, 1) + envelope(5, 1, 2) + torn(envelope(5, 2, 3)) +
				envelope(5, 0, 1) + envelope(5, 1, 2) + envelope(5, 2, 3) + envelope(6, 0, 1)}},
			want:    events(5, 0, 3) + events(6, 0, 1),
			repeats: 1, late: 1,
		},
		"a malformed event followed by its valid copy": {
			runs: []map[string]string{
				{byBlock: malformed(envelope(5, 0, 3), 5) + envelope(6, 0, 1)},
				{byBlock: envelope(5, 0, 3) + envelope(5, 0, 3) + envelope(6, 0, 1)},
			},
			want:    events(5, 0, 1) + events(5, 2, 3) + events(6, 0, 1) + events(5, 1, 2),
			repeats: 3, late: 1,
		},
		"a malformed event that is malformed again": {
			runs: []map[string]string{{byBlock: malformed(envelope(5, 0, 3), 5) + malformed(envelope(5, 0, 3), 5) +
				envelope(5, 0, 3)}},
			want: events(5, 0, 1) + events(5, 2, 3) + events(5, 1, 2), repeats: 2, late: 1,
		},
		"a malformed event in streaming mode": {
			runs: []map[string]string{
				{streaming: malformed(envelope(5, 0, 3), 5) + envelope(6, 0, 1)},
				{streaming: envelope(5, 0, 1) + envelope(5, 1, 3) + envelope(6, 0, 1)},
			},
			want:    events(5, 0, 1) + events(5, 2, 3) + events(6, 0, 1) + events(5, 1, 2),
			repeats: 3, late: 1,
		},
		"a late line of the previous hour, within a block": {
			runs: []map[string]string{
				{streaming: envelope(1, 0, 1) + envelope(2, 0, 1), streaming9: envelope(4, 0, 1) + envelope(5, 0, 1) +
					envelope(5, 1, 2)},
				{streaming: envelope(3, 0, 1)},
				{streaming9: envelope(5, 2, 3) + envelope(5, 3, 4) + envelope(6, 0, 1)},
			},
			want: events(1, 0, 1) + events(2, 0, 1) + events(4, 0, 1) + events(5, 0, 2) + events(3, 0, 1) + events(5, 2, 4) +
				events(6, 0, 1),
		},
		"a late line of the previous hour, of its current block": {
			runs: []map[string]string{
				{streaming: envelope(5, 0, 1) + envelope(5, 1, 2), streaming9: envelope(5, 3, 4) + envelope(6, 0, 1)},
				{streaming: envelope(5, 2, 3)},
			},
			want: events(5, 0, 2) + events(5, 3, 4) + events(6, 0, 1) + events(5, 2, 3),
			late: 1,
		},
		"a late line of the previous hour, written again in this hour": {
			runs: []map[string]string{
				{streaming: envelope(5, 0, 1), streaming9: envelope(5, 0, 1) + envelope(5, 1, 2)},
				{streaming: envelope(5, 1, 2) + envelope(5, 2, 3)},
			},
			want:    events(5, 0, 3),
			repeats: 1,
		},
		"a late line of an older block, and then a replay": {
			runs: []map[string]string{{streaming: envelope(5, 0, 1) + envelope(5, 1, 2) + envelope(6, 0, 1) + envelope(5, 2, 3) +
				envelope(6, 1, 2) + envelope(7, 0, 1) +
				envelope(5, 0, 1) + envelope(5, 1, 2) + envelope(5, 2, 3) + envelope(6, 0, 2) + envelope(7, 0, 1) +
				envelope(8, 0, 1)}},
			want:    events(5, 0, 2) + events(6, 0, 1) + events(5, 2, 3) + events(6, 1, 2) + events(7, 0, 1) + events(8, 0, 1),
			repeats: 5, late: 1,
		},
		"equal events of a block": {
			runs: []map[string]string{{streaming: envelope(5, 0, 1) + envelope(5, 0, 1) + envelope(6, 0, 1) + envelope(5, 0, 1) +
				envelope(5, 0, 1) + envelope(6, 0, 1)}},
			want: events(5, 0, 1) + events(5, 0, 1) + events(6, 0, 1), repeats: 3,
		},
		"equal events of a block, across a restart of the parser": {
			runs: []map[string]string{{streaming: envelope(5, 0, 1)}, {streaming: envelope(5, 0, 1) + envelope(6, 0, 1)}},
			want: events(5, 0, 1) + events(5, 0, 1) + events(6, 0, 1),
		},
		"a late block of the previous hour, by block": {
			runs: []map[string]string{
				{byBlock: envelope(1, 0, 1), byBlock9: envelope(3, 0, 1)}, {byBlock: envelope(2, 0, 1)},
				{byBlock9: envelope(4, 0, 1)},
			},
			want: events(1, 0, 1) + events(3, 0, 1) + events(2, 0, 1) + events(4, 0, 1),
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Engine.DeduplicateBlocks = true
			out := &memory{}
			for i, run := range c.runs {
				for file, text := range run {
					b.node(file, text)
				}
				b.cfg.Once = true
				e := b.engine(out)
				if err := e.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				if s := e.Streams()[0]; i == len(c.runs)-1 && (s.BlockRepeatsTotal != c.repeats || s.BlockLateTotal != c.late) {
					t.Errorf("%d repeats, %d late; want %d, %d", s.BlockRepeatsTotal, s.BlockLateTotal, c.repeats, c.late)
				}
			}
			b.assertRecords(out.text(), c.want)
		})
	}
}

// A refused record is not known: its copy is delivered, in the same batch or a later one, and a marker reports it.
func TestARefusedRecordIsDeliveredWhenItIsWrittenAgain(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		again bool // in a second run
	}{
		"by block":                  {"node_trades_by_block/20260430/8", false},
		"by block, after a restart": {"node_trades_by_block/20260430/8", true},
		"streaming":                 {"node_trades_streaming/20260430/8", false},
		"streaming, restarted":      {"node_trades_streaming/20260430/8", true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Engine.DeduplicateBlocks, b.cfg.Engine.Markers = true, true
			lines := envelope(5, 0, 3) + envelope(6, 0, 1)
			b.node(c.file, lines)
			out := &ledger{refuse: map[string]bool{events(5, 1, 2): true}}
			if c.again {
				if err := b.once(out); err != nil {
					t.Fatal(err)
				}
			}
			b.node(c.file, lines+envelope(7, 0, 1))
			if err := b.once(out); err != nil {
				t.Fatal(err)
			}
			b.assertRecords(varies.ReplaceAllString(string(out.data), `"$1":""`),
				events(5, 0, 1)+deadEventText(5, 1)+events(5, 2, 3)+events(6, 0, 1)+
					markerText("late", 5, 0, 6)+events(5, 1, 2)+events(7, 0, 1))
		})
	}
}

// A long line is cut into parts. Nothing is known of a part on which the encoder panics; its valid copy fills exactly
// that gap.
func TestALostPartOfALongLineIsDeliveredWhenItIsWrittenAgain(t *testing.T) {
	const n = 44_000 // over 4 MiB
	line := strings.Builder{}
	line.WriteString(`{"local_time":"l","block_time":"t","block_number":5,"events":[`)
	for i := range n {
		if i > 0 {
			line.WriteByte(',')
		}
		line.WriteString(trade(i))
	}
	line.WriteString("]}\n")
	for i, panicAt := range []int{0, 1234, n - 1, 0, 1234, n - 1} {
		t.Run(fmt.Sprintf("%d, in event %d", i, panicAt), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.cfg.Engine.DeduplicateBlocks, b.cfg.Engine.Markers = true, true
			b.node("node_trades_by_block/20260430/8", line.String())
			out := &ledger{}
			b.cfg.Once = true
			e := b.engine(out)
			var first, lost, rest []string
			for _, p := range e.pipelines {
				workers := p.codecs[hyperliquid.Directory(config.Trades, config.ByBlock)].workers
				for i, encode := range workers {
					workers[i] = func(o *hyperliquid.Output, s hyperliquid.Span, name string) hyperliquid.Span {
						rest := encode(o, s, name)
						encoded := s.Data[:len(s.Data)-len(rest.Data)]
						if bytes.Contains(encoded, fmt.Appendf(nil, `"n":%d}`, panicAt)) {
							panic("an encoder's bug")
						}
						return rest
					}
				}
			}
			if i >= 3 {
				limitOutputs(e, 20_000) // a lost part follows others of its span
			}
			if err := e.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			gaps := 0
			for record := range strings.Lines(varies.ReplaceAllString(string(out.data), `"$1":""`)) {
				if strings.Contains(record, "_marker") {
					gaps++
					continue
				}
				first = append(first, record)
			}
			if gaps != 1 || len(first) == 0 || len(first) == n {
				t.Fatalf("%d gaps, %d of %d events", gaps, len(first), n)
			}
			shown := map[string]bool{}
			for _, record := range first {
				shown[record] = true
			}
			for i := range n {
				if record := trade(i) + "\n"; !shown[record] {
					lost = append(lost, record)
				}
			}
			before := len(out.data)
			b.node("node_trades_by_block/20260430/8", line.String()+line.String())
			if err := b.once(out); err != nil {
				t.Fatal(err)
			}
			for record := range strings.Lines(varies.ReplaceAllString(string(out.data[before:]), `"$1":""`)) {
				rest = append(rest, record)
			}
			want := markerText("late", 5, 0, 5) + strings.Join(lost, "") + markerText("replay", 5, 0, 5)
			if got := strings.Join(rest, ""); got != want {
				t.Errorf("%d records replace %d lost ones, the first %q, the last %q", len(rest), len(lost), rest[0],
					rest[len(rest)-1])
			}
		})
	}
}

// Before the engine waits for a sink it commits what was acknowledged, and nothing that the sink does not take.
func TestACommitInAnOutageDoesNotIncludeTheBacklog(t *testing.T) {
	for _, directory := range []string{"node_trades_by_block", "node_trades_streaming"} {
		b := newBench(t)
		b.cfg.Engine.DeduplicateBlocks = true
		b.node(directory+"/20260430/8", envelope(5, 0, 2))
		b.node(directory+"/20260430/9", envelope(6, 0, 2))
		out := &ledger{outage: 2, breakAt: 3}
		if err := b.once(out); err == nil {
			t.Fatal("the sink did not break")
		}
		b.assertRecords(string(out.data), events(5, 0, 2))
		out = &ledger{data: out.data}
		if err := b.once(out); err != nil {
			t.Fatal(err)
		}
		b.assertRecords(string(out.data), events(5, 0, 2)+events(6, 0, 2))
	}
}

// A skipped event counts neither as an event nor as filtered.
func TestASkippedEventCountsAsNoEvent(t *testing.T) {
	for _, directory := range []string{"node_trades_by_block", "node_trades_streaming"} {
		b := newBench(t)
		b.cfg.Engine.DeduplicateBlocks, b.cfg.Filter = true, config.Filter{Coins: []string{"BTC"}}
		filtered := strings.ReplaceAll(envelope(6, 0, 3), "BTC", "ETH")
		b.node(directory+"/20260430/8", strings.Repeat(envelope(5, 0, 2)+filtered+envelope(7, 0, 1), 2))
		b.cfg.Once = true
		out := &memory{}
		e := b.engine(out)
		if err := e.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.assertRecords(out.text(), events(5, 0, 2)+events(7, 0, 1))
		s := e.Streams()[0]
		if s.LinesTotal != 6 || s.BlockRepeatsTotal != 3 || s.EventsTotal != 6 || s.FilteredTotal != 3 ||
			s.DeliveredTotal != 3 {
			t.Errorf("%s: %d lines, %d repeats, %d events, %d filtered out, %d delivered",
				directory, s.LinesTotal, s.BlockRepeatsTotal, s.EventsTotal, s.FilteredTotal, s.DeliveredTotal)
		}
	}
}

func TestWithoutTheSettingEverythingIsDelivered(t *testing.T) {
	b := newBench(t)
	b.node("node_trades_by_block/20260430/8", envelope(5, 0, 3)+envelope(5, 0, 3))
	out := &memory{}
	if err := b.once(out); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(out.text(), events(5, 0, 3)+events(5, 0, 3))
}

func TestDeduplicationIsRefusedWhereLinesDoNotNameTheirBlock(t *testing.T) {
	b := newBench(t, config.StreamConfig{Name: config.Trades, Mode: config.Line})
	b.cfg.Engine.DeduplicateBlocks = true
	if err := b.cfg.WithDefaults(1).Validate(); err == nil || !strings.Contains(err.Error(), "Streaming or ByBlock") {
		t.Errorf("got %v", err)
	}
}
