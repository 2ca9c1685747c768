package engine

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

// dedupHarness is a dedupState without an engine around it.
type dedupHarness struct {
	t *testing.T
	dedupState
}

func newDedupHarness(t *testing.T) *dedupHarness {
	return &dedupHarness{t, newDedupState(&checkpoint.State{}, &config.Engine{DeduplicateBlocks: true})}
}

// row observes a streaming line of a block with the events from..to-1, and returns how many are delivered.
func (m *dedupHarness) row(hour int, block int64, from, to int) int {
	p := hyperliquid.Part{Block: block, Events: to - from, End: true}
	var hashes []uint32
	for i := from; i < to; i++ {
		hashes = append(hashes, uint32(block)*1000+uint32(i))
	}
	o := m.orderFor(position.FileID{Directory: "node_fills_streaming", Date: "20260430", Hour: hour})
	t := m.observe(o, &p, false, nil, hashes, nil)
	return p.Events - int(t.skippedCount(&p, nil))
}

// line observes a by-block line with some malformed events, and returns how many events are delivered.
func (m *dedupHarness) line(block int64, events int, bad ...int) int {
	p := hyperliquid.Part{Block: block, Events: events, End: true}
	malformed := make([]hyperliquid.Bad, 0, len(bad))
	for _, i := range bad {
		malformed = append(malformed, hyperliquid.Bad{Index: i, Event: i})
	}
	o := m.orderFor(position.FileID{Directory: "node_fills_by_block", Date: "20260430", Hour: 8})
	t := m.observe(o, &p, true, malformed, nil, nil)
	return events - len(bad) - int(t.skippedCount(&p, malformed))
}

// restart saves and restores the state through a checkpoint, and returns the checkpoint's size in bytes.
func (m *dedupHarness) restart() int {
	m.t.Helper()
	text, err := json.Marshal(checkpoint.State{LastBlock: m.highest, Blocks: m.checkpoint()})
	if err != nil {
		m.t.Fatal(err)
	}
	var state checkpoint.State
	if err := json.Unmarshal(text, &state); err != nil {
		m.t.Fatal(err)
	}
	m.dedupState = newDedupState(&state, &config.Engine{DeduplicateBlocks: true})
	return len(text)
}

func (m *dedupHarness) want(what string, got, want int) {
	m.t.Helper()
	if got != want {
		m.t.Errorf("%s: %d events were delivered, want %d", what, got, want)
	}
}

// A replay may begin further back than events are remembered individually. It is then recognized by the order of lines.
// Its first block could also be a late line, so that block is delivered again in full, and nothing of the others.
func TestAReplayFromFarBackIsDeliveredOnceExceptItsFirstBlock(t *testing.T) {
	for _, restart := range []bool{false, true} {
		m := newDedupHarness(t)
		const first, last, events = 10_000, 10_000 + 2*recentBlocks, 3
		for b := int64(first); b <= last; b++ {
			m.want("a new block", m.row(8, b, 0, 1)+m.row(8, b, 1, events), events)
		}
		if restart {
			m.restart()
			m.restart() // a parser commits before it reads
		}
		m.want("the first block again", m.row(8, first+5, 0, events), events)
		for b := int64(first + 6); b <= last; b++ {
			again := m.row(8, b, 0, 2)
			if b == first+100 && restart {
				m.restart()
				m.restart()
			}
			m.want(fmt.Sprint("block ", b, " again"), again+m.row(8, b, 2, events), 0)
		}
		m.want("the block after it", m.row(8, last+1, 0, events), events)
	}
}

// A block that was cut short is complete once the node has written all of it again.
func TestABlockThatWasCutShortIsCompletedByItsReplay(t *testing.T) {
	m := newDedupHarness(t)
	m.row(8, 6, 0, 2)
	m.row(8, 7, 0, 1)
	m.markBroken(&m.orders[0])
	m.want("the replay", m.row(8, 6, 0, 2)+m.row(8, 7, 0, 3), 2)
	for b := int64(8); b < 10+recentBlocks; b++ {
		m.row(8, b, 0, 1)
	}
	if !m.ended.has(6) || !m.ended.has(7) {
		t.Errorf("the ended blocks are %v; want 6 and 7 among them", m.ended)
	}
}

func TestACloneOfTheDedupStateDoesNotChange(t *testing.T) {
	m := newDedupHarness(t)
	m.row(8, 7, 0, 3)
	m.line(3, 5, 1)
	before := m.clone()
	text := func() string {
		b, err := json.Marshal(before.checkpoint())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	want := text()
	m.forgetEvent(&hyperliquid.Part{Block: 7}, 0, false, 7001)
	m.row(8, 7, 3, 9)
	m.row(9, 7, 0, 12)
	m.row(8, 5, 0, 2)
	m.line(3, 5)
	m.line(4, 5, 2)
	if got := text(); got != want {
		t.Errorf("the copy changed to\n%s\nfrom\n%s", got, want)
	}
}

func TestALateLineOfAnEvictedBlockIsDelivered(t *testing.T) {
	m := newDedupHarness(t)
	for b := int64(1); b <= 2*recentBlocks; b++ {
		m.row(9, b, 0, 2)
	}
	m.row(8, 7, 5, 6) // the file's first line: it may be a replay
	m.want("in the order of an older file", m.row(8, 9, 2, 3), 1)
	m.want("in the newest file", m.row(9, 9, 3, 4), 1)
	m.want("the current block", m.row(9, 2*recentBlocks, 2, 3), 1)
	m.want("the next block", m.row(9, 2*recentBlocks+1, 0, 1), 1)
}

// A directory that was out of sight is read hundreds of blocks later, perhaps by another process. Blocks with few
// events are remembered as long as by the process that read them.
func TestALateCopyOfABlockIsKnownAfterARestart(t *testing.T) {
	m := newDedupHarness(t)
	const blocks = recentBlocks - 1
	m.row(8, 1, 0, 1) // the order of the late file continues after it
	for b := int64(2); b < 2+blocks; b++ {
		m.row(9, b, 0, 4)
	}
	m.restart()
	m.want("a copy, and an event of its own", m.row(8, 2, 3, 5), 1)
	m.want("a copy of the next block", m.row(8, 3, 3, 4), 0)
}

func TestTheDedupStateIsBounded(t *testing.T) {
	m := newDedupHarness(t)
	const lines = 3 * recentBlocks
	for i := int64(1); i <= lines; i++ {
		m.row(int(i%24), 1_000_000+3*i, 0, 200)
		m.line(3*i, 400, int(i)%400) // every second block is missing, and one event of each
		m.line(3*i+1, 1)
	}
	if len(m.recent) > recentBlocks || m.recentEventCount > recentEvents || len(m.partial) > maxPartial ||
		len(m.orders) > maxOrders ||
		len(m.complete) > maxIntervals || len(m.ended) > maxIntervals {
		t.Errorf("%d recent blocks, %d events, %d partial blocks, %d orders, %d and %d intervals",
			len(m.recent), m.recentEventCount, len(m.partial), len(m.orders), len(m.complete), len(m.ended))
	}
	all := make([]int, 0, 2*maxMissing+2)
	for i := range cap(all) / 2 {
		all = append(all, 2*i)
	}
	m.line(5_000_000, 2*len(all), all...)
	if _, found := m.findPartial(5_000_000); found {
		t.Error("a block with too many gaps is kept")
	}
	m.want("a block with too many gaps comes again", m.line(5_000_000, 2*len(all)), 2*len(all))
	if n := m.restart(); n > 128<<10 {
		t.Errorf("the checkpoint has %d bytes", n)
	}
	m.want("a recent block", m.row(23, 1_000_000+3*lines, 0, 200), 0)
	m.want("a recent block by its index", m.line(3*lines, 400), 1)
	// A single block may exceed the bound.
	m = newDedupHarness(t)
	m.row(8, 7, 0, recentEvents+10)
	m.want("a block that is too large", m.row(9, 7, 0, recentEvents+10), 10)
	for hour := range maxOrders {
		m.want("a block that is too large, in many files", m.row(hour, 7, 0, 1), 0)
	}
	left := 0
	for i := range m.orders {
		left += len(m.orders[i].unseen)
	}
	if len(m.orders) != maxOrders || left > 2*recentEvents {
		t.Errorf("the visits to %d files have %d unseen events", len(m.orders), left)
	}
	for hour := range maxOrders {
		m.want("more of it", m.row(hour, 7, 1, 3), 0)
	}
	m.restart()
	m.want("a block that is too large for a checkpoint", m.row(10, 7, 0, recentEvents+10), recentEvents+10-savedEvents)
}

// Checkpoints written by versions without orders are understood.
func TestOldCheckpointsOfBlocksAreRead(t *testing.T) {
	for mode, again := range map[config.Mode]int{config.ByBlock: 0, config.Streaming: 2} {
		var state checkpoint.State
		text := fmt.Sprintf(`{"mode":%q,"lastBlock":9,"currentBlock":9,"blocks":{"complete":[{"first":3,"last":8}],`+
			`"open":[{"block":9,"events":1}],"current":9,"shown":1}}`, mode)
		if err := json.Unmarshal([]byte(text), &state); err != nil {
			t.Fatal(err)
		}
		m := &dedupHarness{t, newDedupState(&state, &config.Engine{DeduplicateBlocks: true})}
		m.restart() // before the first line
		m.want("the rest of the current block", m.row(8, 9, 1, 2), 1)
		m.want("the first old block", m.row(8, 5, 0, 2), again)
		m.want("the next", m.row(8, 6, 0, 2), 0)
		m.want("by block", m.line(7, 3), 0)
		if state.Blocks = m.checkpoint(); state.Blocks.Current != 0 {
			t.Error("a new checkpoint has the form of an old one")
		}
	}
}
