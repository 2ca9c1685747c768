// Package buffer is the snapshot-swap buffer. One goroutine appends blocks of complete lines. Another takes all blocks
// in one operation, leaves an empty buffer behind, and processes what it took while new lines go to the next snapshot.
//
// The package also bounds memory. A Budget limits what the buffers of one process hold; a Buffer is one stream's share
// of it. Nothing is ever dropped to stay within the budget. The reader waits instead, since the data is already on
// disk.
//
// A block has one owner at a time: the reader that fills it, the live buffer, or the snapshot that took it. Only
// Release returns it to the free list. Reader and processor share one pointer and no lock. An append pushes a block
// onto a chain, a swap takes the whole chain, and each is one atomic instruction, so that neither ever waits for the
// other.
//
// The package must never inspect a line, and never hold a lock while memory is copied.
package buffer

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

// Origin is the file that a block was read from. There is one Origin per file incarnation, so that pointers can be
// compared.
type Origin struct {
	ID    position.FileID
	Label string // ID as text, formatted once because it is part of every record
}

// Block holds complete lines of one file, consecutive on disk.
type Block struct {
	Data   []byte  // complete lines; the last byte is a newline
	Lines  int     // number of newlines in Data
	Origin *Origin // the file that the lines are from
	Offset int64   // offset of Data[0] in the file, in bytes
	// Skipped is the data on disk before these lines that is never read.
	Skipped []Skip

	memory  []byte // the backing array of Data, at full capacity
	charged int64  // bytes of the budget that this block holds
	token   bool   // holds the budget's long-line token

	older *Block // the previous block that is appended and not taken yet
	upTo  totals // totals of all blocks appended so far, including this one
}

// totals are sums over all blocks of a buffer since it was created.
type totals struct{ blocks, lines, bytes, charged int64 }

func (t *totals) add(block *Block) {
	t.blocks++
	t.lines += int64(block.Lines)
	t.bytes += int64(len(block.Data))
	t.charged += block.charged
}

// Skip is data of the node that no record is ever made from.
type Skip struct {
	Bytes  int64
	File   string // relative to the data directory
	Reason string // for operators
}

// Memory returns the memory that the reader reads into. Data becomes a part of it.
func (b *Block) Memory() []byte { return b.memory }

// End returns the offset in the file of the first byte after Data.
func (b *Block) End() int64 { return b.Offset + int64(len(b.Data)) }

// Snapshot is the result of one swap. It belongs to the caller of Swap.
type Snapshot struct {
	Lines int64
	Bytes int64

	newest *Block // head of the taken chain; nil after Blocks has reversed it
	count  int64  // number of blocks in the chain
	blocks []*Block
}

// Blocks returns the snapshot's blocks in the order in which they were appended. The first call reverses their chain,
// which takes a few nanoseconds per block and blocks no other goroutine. Later calls return the same slice.
func (s *Snapshot) Blocks() []*Block {
	if s.newest == nil {
		return s.blocks
	}
	s.blocks = slices.Grow(s.blocks, int(s.count))[:s.count]
	for i := len(s.blocks) - 1; i >= 0; i-- {
		block := s.newest
		s.blocks[i], s.newest, block.older = block, block.older, nil
	}
	return s.blocks
}

// Stats are a buffer's figures at one moment.
type Stats struct {
	Lines, Bytes                 int64 // live: appended, not yet taken
	InFlightLines, InFlightBytes int64 // taken, not yet released
	Swaps                        int64 // snapshots that held at least one line
	LastBatchLines               int64 // lines of the newest such snapshot
}

// Buffer is one stream's live buffer and its account in the process's budget. One goroutine calls Get, TryGet, Append
// and Discard. Another calls Swap, Release and Recycle. Any goroutine may call Stats.
type Buffer struct {
	budget   *Budget
	notEmpty chan struct{} // receives a token when Append makes the live buffer non-empty
	room     chan struct{} // receives a token when a waiting Get should retry

	// newest is the live buffer: the last block appended, chained to the earlier ones.
	newest       atomic.Pointer[Block]
	takenCharged atomic.Int64 // taken.charged, for the reader

	// Owned by the reader.
	appended totals
	filling  int64 // charge of the blocks that the reader is filling

	// Owned by the processor. The lock serves Stats.
	mu             sync.Mutex
	taken          totals    // totals of what was appended before the last swap
	spare          *Snapshot // the snapshot for the next swap; nil if one must be allocated
	inFlight       Snapshot  // counters only
	swaps          int64
	lastBatchLines int64
}

// NotEmpty receives after lines were appended. It is a hint: the next Swap may find nothing.
func (b *Buffer) NotEmpty() <-chan struct{} { return b.notEmpty }

// Append adds a block to the live buffer. The block comes from Get and was filled by the reader.
func (b *Buffer) Append(block *Block) {
	b.filling -= block.charged
	b.appended.add(block)
	block.upTo = b.appended
	// No other goroutine pushes blocks, so the exchange fails only if a swap intervenes. The old head is never
	// dereferenced: it may already be taken, released and on the free list.
	for {
		block.older = b.newest.Load()
		if b.newest.CompareAndSwap(block.older, block) {
			break
		}
	}
	notify(b.notEmpty)
}

// Swap takes the live buffer and leaves an empty one. Its cost does not depend on the content: it exchanges one pointer
// and a few counters, and neither reads nor copies a block or a line. The result may hold no block. Return it with
// Recycle.
func (b *Buffer) Swap() *Snapshot {
	b.mu.Lock()
	s := b.spare
	if b.spare = nil; s == nil {
		s = &Snapshot{}
	}
	if s.newest = b.newest.Swap(nil); s.newest != nil {
		upTo := s.newest.upTo
		s.count, s.Lines, s.Bytes = upTo.blocks-b.taken.blocks, upTo.lines-b.taken.lines, upTo.bytes-b.taken.bytes
		b.taken = upTo
		b.takenCharged.Store(upTo.charged)
		b.inFlight.Lines += s.Lines
		b.inFlight.Bytes += s.Bytes
	}
	if s.Lines > 0 {
		b.swaps++
		b.lastBatchLines = s.Lines
	}
	b.mu.Unlock()
	notify(b.room)
	return s
}

// Recycle returns a processed snapshot for reuse by the next swap. Its blocks must have been released.
func (b *Buffer) Recycle(s *Snapshot) {
	clear(s.blocks)
	*s = Snapshot{blocks: s.blocks[:0]}
	b.mu.Lock()
	b.spare = s
	b.mu.Unlock()
}

// Release returns a block of a snapshot to the free list. The caller must not use the block, or any slice of its data,
// afterwards.
func (b *Buffer) Release(block *Block) {
	b.mu.Lock()
	b.inFlight.Lines -= int64(block.Lines)
	b.inFlight.Bytes -= int64(len(block.Data))
	b.mu.Unlock()
	if block.charged > largestPooled {
		// Otherwise consecutive long lines would be in memory together: the garbage collector may accumulate as much
		// garbage as there is live memory. The budget is credited afterwards, so that the next long line waits.
		block.memory, block.Data = nil, nil
		debug.FreeOSMemory()
	}
	b.budget.release(b, block)
}

// Stats returns the buffer's figures at this moment, consistent with one another.
func (b *Buffer) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	var live totals
	if newest := b.newest.Load(); newest != nil { // no swap can take it while mu is held
		live.lines, live.bytes = newest.upTo.lines-b.taken.lines, newest.upTo.bytes-b.taken.bytes
	}
	return Stats{
		Lines: live.lines, Bytes: live.bytes,
		InFlightLines: b.inFlight.Lines, InFlightBytes: b.inFlight.Bytes,
		Swaps: b.swaps, LastBatchLines: b.lastBatchLines,
	}
}

// Get returns an empty block of at least size bytes, charged to this buffer. It waits until there is room. A block
// stays charged until Release or Discard. A line longer than this stream's share takes the process's single long-line
// token, so that such lines pass one at a time instead of never. The only error is the context's.
func (b *Buffer) Get(ctx context.Context, size int) (*Block, error) {
	for {
		if block := b.TryGet(size); block != nil {
			return block, nil
		}
		select {
		case <-b.room:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for room in the buffer: %w", ctx.Err())
		}
	}
}

// TryGet is Get without waiting. It returns nil if there is no room. Room receives when a retry is worthwhile.
func (b *Buffer) TryGet(size int) *Block {
	capacity := sizeClass(size)
	live := b.appended.charged - b.takenCharged.Load() + b.filling
	if live > 0 && live+capacity > b.budget.readAhead {
		return nil
	}
	block := b.budget.charge(b, capacity)
	if block == nil {
		return nil
	}
	b.filling += block.charged
	return block
}

// Room receives when a TryGet that found no room is worth repeating. It is a hint, like NotEmpty.
func (b *Buffer) Room() <-chan struct{} { return b.room }

// Discard returns a block that was not appended.
func (b *Buffer) Discard(block *Block) {
	b.filling -= block.charged
	b.budget.release(b, block)
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
