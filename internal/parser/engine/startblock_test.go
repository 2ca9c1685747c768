package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

func (b *bench) startAtBlock(n int64) {
	b.cfg.Engine.StartAt, b.cfg.Engine.StartAtBlock = config.AtBlock, n
}

// Lines of earlier blocks that come after the start are not delivered, whatever cuts them into spans: a node that goes
// back, and a file of an earlier hour that grows.
func TestLinesOfBlocksBeforeTheStartAreNotDelivered(t *testing.T) {
	for _, directory := range []string{"node_trades_by_block", "node_trades_streaming"} {
		for _, deduplicate := range []bool{false, true} {
			t.Run(fmt.Sprint(directory, " ", deduplicate), func(t *testing.T) {
				b := newBench(t)
				b.startAtBlock(10)
				b.cfg.Engine.DeduplicateBlocks, b.cfg.Engine.ParallelThreshold = deduplicate, 1
				b.node(directory+"/20260430/8", envelope(8, 0, 2)+envelope(9, 0, 1))
				b.node(directory+"/20260430/9", envelope(9, 1, 2)+envelope(10, 0, 2)+envelope(11, 0, 2))
				r := b.start(nil)
				r.until("delivery", delivered(4))
				b.node(directory+"/20260430/9", envelope(9, 0, 20_000)+envelope(12, 0, 1))
				r.until("delivery", delivered(5))
				b.node(directory+"/20260430/8", envelope(7, 0, 2))
				r.until("a committed end", func(s report.Stream) bool { return s.LinesTotal == 5 && waiting(&s) == 0 })
				if _, err := r.stop(); err != nil {
					t.Fatal(err)
				}
				// After a restart, too.
				b.node(directory+"/20260430/9", envelope(6, 0, 2)+envelope(13, 0, 1))
				if err := b.once(nil); err != nil {
					t.Fatal(err)
				}
				want := events(10, 0, 2) + events(11, 0, 2) + events(12, 0, 1) + events(13, 0, 1)
				b.assertRecords(b.delivered("trades"), want)
			})
		}
	}
}

// A block that is not on disk yet is waited for, over restarts, and nothing is delivered before it.
func TestABlockThatIsNotWrittenYetIsWaitedFor(t *testing.T) {
	const name = "node_trades_by_block/20260430/8"
	b := newBench(t)
	b.startAtBlock(20)
	b.node(name, envelope(9, 0, 2))
	random := rand.New(rand.NewPCG(1, 2))
	for block := 10; block < 20; block++ {
		b.node(name, envelope(block, 0, 2))
		if random.IntN(2) == 0 {
			if err := b.once(nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.assertRecords(b.delivered("trades"), "")
	b.node(name, envelope(20, 0, 1)+envelope(21, 0, 1))
	for range 2 {
		if err := b.once(nil); err != nil {
			t.Fatal(err)
		}
	}
	b.assertRecords(b.delivered("trades"), events(20, 0, 1)+events(21, 0, 1))
	loaded, err := checkpoint.Show(vfs.OS, b.cfg.StateDir, "trades")
	if err != nil || loaded.State.StartBlock != 20 || loaded.State.LastBlock != 21 {
		t.Errorf("the checkpoint is %+v, %v", loaded.State, err)
	}
}

// A start that was never reached is decided again when the configuration names another; one that was reached is not.
func TestAStartThatWasNotReachedCanBeChanged(t *testing.T) {
	const name = "node_trades_by_block/20260430/8"
	b := newBench(t)
	b.node(name, envelope(9, 0, 1)+envelope(10, 0, 1)+envelope(11, 0, 1))
	for _, n := range []int64{1000, 10, 11, 9} {
		b.startAtBlock(n)
		if err := b.once(nil); err != nil {
			t.Fatal(err)
		}
	}
	b.assertRecords(b.delivered("trades"), events(10, 0, 1)+events(11, 0, 1))
}

func TestAStartAtABlockInLineModeFailsTheStreamAndSaysWhatToDo(t *testing.T) {
	b := newBench(t)
	b.startAtBlock(10)
	b.node("node_trades/20260430/8", trades(0, 10))
	r := b.start(nil)
	s := r.until("a failure", func(s report.Stream) bool { return s.State == report.Failed })
	if !strings.Contains(s.Message, "set startAt to End or Beginning") {
		t.Errorf("the message is %q", s.Message)
	}
	if _, err := r.stop(); err == nil {
		t.Error("the run ended without an error")
	}
	// The node is restarted with block numbers, and so is the parser.
	b.node("node_trades_by_block/20260430/9", envelope(9, 0, 1)+envelope(10, 0, 1))
	if err := b.once(nil); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(b.delivered("trades"), events(10, 0, 1))
}
