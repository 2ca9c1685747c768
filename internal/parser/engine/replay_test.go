package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// envelope is a line of a block with the events from to to-1 of it.
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

func TestWhatANodeWritesAgainAfterARestartIsDeliveredOnce(t *testing.T) {
	const byBlock, streaming = "node_trades_by_block/20260430/8", "node_trades_streaming/20260430/8"
	for name, c := range map[string]struct {
		runs          []map[string]string // what is appended before each run of the parser
		want          string
		repeats, late int64 // in the last run
	}{
		"whole blocks": {
			runs:    []map[string]string{{byBlock: envelope(5, 0, 3) + envelope(6, 0, 2) + envelope(5, 0, 3) + envelope(6, 0, 2) + envelope(7, 0, 1)}},
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
		"a block in hand when the parser was restarted goes on": {
			runs: []map[string]string{
				{streaming: envelope(6, 0, 2)},
				{streaming: envelope(6, 2, 3) + envelope(7, 0, 1)},
			},
			want: events(6, 0, 3) + events(7, 0, 1),
		},
		"a block that was missing fills its gap, and the block in hand before it is not forgotten": {
			runs: []map[string]string{{streaming: envelope(4, 0, 1) + envelope(6, 0, 1) +
				envelope(4, 0, 1) + envelope(5, 0, 1) + envelope(5, 1, 2) + envelope(6, 0, 1) + envelope(6, 1, 4) + envelope(7, 0, 1)}},
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
			b.same(out.text(), c.want)
		})
	}
}

func TestWithoutTheSettingEverythingIsDelivered(t *testing.T) {
	b := newBench(t)
	b.node("node_trades_by_block/20260430/8", envelope(5, 0, 3)+envelope(5, 0, 3))
	out := &memory{}
	if err := b.once(out); err != nil {
		t.Fatal(err)
	}
	b.same(out.text(), events(5, 0, 3)+events(5, 0, 3))
}

// A node that restarts at random, skips blocks and fills them later, in both block modes: every event that it ever wrote is
// processed, and none twice, also when the memory goes through a checkpoint at random.
func TestEveryEventOfEveryScheduleOfReplaysIsProcessedOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const first, last = 1000, 1030
		var sizes [13]int64
		for i := range sizes {
			sizes[i] = int64(rapid.IntRange(1, 4).Draw(t, "events of a block"))
		}
		size := func(block int64) int64 { return sizes[block%int64(len(sizes))] }
		var p processed
		delivered, written := map[[2]int64]int{}, map[[2]int64]bool{}
		newest := int64(first) // the block of the newest line
		show := func(block, from, n int64, whole bool) {
			newest = block
			count := n
			if whole {
				count = 1 << 62
			}
			skip, _ := p.seen(block, count, whole)
			for i := range n {
				written[[2]int64{block, from + i}] = true
				if i >= skip {
					delivered[[2]int64{block, from + i}]++
				}
			}
			if rapid.IntRange(0, 9).Draw(t, "restart of the parser") == 0 {
				saved := p.checkpoint()
				p = resumeProcessed(&checkpoint.Blocks{
					Complete: slices.Clone(saved.Complete), Open: slices.Clone(saved.Open), Current: saved.Current, Shown: saved.Shown,
				})
			}
		}
		at := int64(first)
		for range rapid.IntRange(1, 10).Draw(t, "lives of the node") {
			whole := rapid.Bool().Draw(t, "by block")
			for begin := at; at <= last; at++ {
				if at > begin && rapid.IntRange(0, 5).Draw(t, "skip") == 0 {
					continue
				}
				if whole {
					show(at, 0, size(at), true)
				} else {
					cut := rapid.Int64Range(0, size(at)).Draw(t, "written before the node stops")
					for from := int64(0); from < cut; {
						n := rapid.Int64Range(1, cut-from).Draw(t, "events of a line")
						show(at, from, n, false)
						from += n
					}
					if cut < size(at) {
						break
					}
				}
				if rapid.IntRange(0, 5).Draw(t, "stop") == 0 {
					break
				}
			}
			// A node goes on from a saved state, which is older than what it wrote last.
			at = min(at, newest) - int64(rapid.IntRange(1, 8).Draw(t, "blocks that are written again"))
		}
		for event := range written {
			if delivered[event] != 1 {
				t.Fatalf("event %v was processed %d times", event, delivered[event])
			}
		}
	})
}

func TestTheMemoryOfBlocksIsBounded(t *testing.T) {
	var p processed
	for i := int64(1); i < 10_000; i++ {
		p.seen(2*i, 1, true) // every second block is missing
	}
	if n := len(p.complete); n != maxIntervals {
		t.Errorf("%d intervals", n)
	}
	for i := range int64(100) {
		p.seen(30_000-i, 1, false) // ever lower
	}
	if n := len(p.open); n > maxOpen {
		t.Errorf("%d open blocks", n)
	}
	if skip, _ := p.seen(19_998, 1, true); skip != 1 {
		t.Error("a recent block was forgotten")
	}
}

func TestDeduplicationIsRefusedWhereLinesDoNotNameTheirBlock(t *testing.T) {
	b := newBench(t, config.StreamConfig{Name: config.Trades, Mode: config.Line})
	b.cfg.Engine.DeduplicateBlocks = true
	if err := b.cfg.WithDefaults(1).Validate(); err == nil || !strings.Contains(err.Error(), "Streaming or ByBlock") {
		t.Errorf("got %v", err)
	}
}
