// Package buffer is the snapshot-swap buffer: one goroutine appends blocks of whole lines, another takes everything that is
// there in one move, leaves an empty buffer behind, and processes what it took while new lines go to the next snapshot.
//
// It is also where memory is bounded. A Budget holds what the buffers of one process may keep; a Buffer is one stream's
// share of it. Nothing is ever dropped to stay within the budget: the reader waits, since the data is on disk already.
//
// A block has one owner at a time: the reader that fills it, the live buffer, the snapshot that took it; it returns to the
// free list by Release only. Reader and processor share one pointer and no lock: an append puts a block on top of a chain, a
// swap takes the chain, each in one atomic instruction, so that neither ever waits for the other.
//
// The package must never look inside a line, and never hold a lock while memory is copied.
package buffer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
)

// Origin is the file that a block was read from. There is one Origin a file incarnation, so that pointers can be compared.
type Origin struct {
	ID    checkpoint.FileID
	Label string // ID as text, made once: it stands in every record
}

// Block holds whole lines of one file, consecutive on disk.
type Block struct {
	Data   []byte  // whole lines, the last one ended by its newline
	Lines  int     // newlines in Data
	Origin *Origin // the file
	Offset int64   // of Data[0] in the file
	// Skipped is what was on disk before these lines and will never be read.
	Skipped []Skip

	memory  []byte // Data's backing array, its full capacity
	charged int64  // bytes of the budget that this block holds
	token   bool   // holds the budget's long-line token

	older *Block // appended before this one and not taken yet
	upTo  totals // of all blocks appended so far, this one included
}

// totals are sums over a buffer's blocks since it was made.
type totals struct{ blocks, lines, bytes, charged int64 }

func (t *totals) add(block *Block) {
	t.blocks++
	t.lines += int64(block.Lines)
	t.bytes += int64(len(block.Data))
	t.charged += block.charged
}

// Skip is data of the node that no record will ever be made of.
type Skip struct {
	Bytes  int64
	File   string // relative to the data directory
	Reason string // for a person
}

// Memory is where the reader puts the bytes that it reads; Data becomes a part of it.
func (b *Block) Memory() []byte { return b.memory }

// End is the offset in the file of the first byte after Data.
func (b *Block) End() int64 { return b.Offset + int64(len(b.Data)) }

// Snapshot is what one swap took. It belongs to the one who swapped.
type Snapshot struct {
	Lines int64
	Bytes int64

	newest *Block // of the chain that was taken; nil once Blocks has turned it around
	count  int64  // blocks in it
	blocks []*Block
}

// Blocks are the snapshot's blocks in the order in which they were appended. The first call turns their chain around, which
// costs a few nanoseconds a block and holds nobody up; the next ones return the same slice.
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
	LastBatchLines               int64 // of the newest of them
}

// Buffer is one stream's live buffer and its account of the process's budget. One goroutine calls Get, TryGet, Append and
// Discard; another calls Swap, Release and Recycle; Stats may be called by anyone.
type Buffer struct {
	budget   *Budget
	notEmpty chan struct{} // holds one token when Append made the live buffer non-empty
	space    chan struct{} // holds one token when a waiting Get should look again

	// newest is the live buffer: the last block appended, and through it the ones before.
	newest       atomic.Pointer[Block]
	takenCharged atomic.Int64 // taken.charged, for the reader

	// The reader's own.
	appended totals
	reading  int64 // charge of blocks in the reader's hands

	// The processor's own; the lock is for Stats.
	mu       sync.Mutex
	taken    totals    // appended until the last swap
	spare    *Snapshot // the snapshot to use at the next swap; nil: make one
	inFlight Snapshot  // counters only
	swaps    int64
	last     int64
}

// NotEmpty receives after lines were appended. It is a hint: look with Swap, which may find nothing.
func (b *Buffer) NotEmpty() <-chan struct{} { return b.notEmpty }

// Append adds a block that Get returned, filled by the reader, to the live buffer.
func (b *Buffer) Append(block *Block) {
	b.reading -= block.charged
	b.appended.add(block)
	block.upTo = b.appended
	// No other goroutine puts a block on the chain, so the exchange fails only for a swap in between. The old top is never
	// looked at: it may be taken, released and on its way to the free list by now.
	for {
		block.older = b.newest.Load()
		if b.newest.CompareAndSwap(block.older, block) {
			break
		}
	}
	wake(b.notEmpty)
}

// Swap takes the live buffer and leaves an empty one. It costs the same whatever the buffer holds: one pointer and a few
// counters change hands, no block or line is looked at and none is copied. The result may hold no block. Give it back with
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
		b.last = s.Lines
	}
	b.mu.Unlock()
	wake(b.space)
	return s
}

// Recycle gives an exhausted snapshot back, so that the next swap need not make one. Its blocks must have been released.
func (b *Buffer) Recycle(s *Snapshot) {
	clear(s.blocks)
	*s = Snapshot{blocks: s.blocks[:0]}
	b.mu.Lock()
	b.spare = s
	b.mu.Unlock()
}

// Release returns a block of a snapshot to the free list. The caller must not touch the block, or any slice of its data, again.
func (b *Buffer) Release(block *Block) {
	b.mu.Lock()
	b.inFlight.Lines -= int64(block.Lines)
	b.inFlight.Bytes -= int64(len(block.Data))
	b.mu.Unlock()
	b.budget.put(b, block)
}

// Stats returns the buffer's figures at this moment, consistent with one another.
func (b *Buffer) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	var live totals
	if newest := b.newest.Load(); newest != nil { // it stays the buffer's while no swap can run
		live.lines, live.bytes = newest.upTo.lines-b.taken.lines, newest.upTo.bytes-b.taken.bytes
	}
	return Stats{
		Lines: live.lines, Bytes: live.bytes,
		InFlightLines: b.inFlight.Lines, InFlightBytes: b.inFlight.Bytes,
		Swaps: b.swaps, LastBatchLines: b.last,
	}
}

// Get returns an empty block of at least size bytes, charged to this buffer, or waits until there is room. A block stays
// charged until Release or Discard. Lines longer than this stream's share take the process's single long-line token, so that
// they pass one after another instead of never. The only error is the context's.
func (b *Buffer) Get(ctx context.Context, size int) (*Block, error) {
	for {
		if block := b.TryGet(size); block != nil {
			return block, nil
		}
		select {
		case <-b.space:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for room in the buffer: %w", ctx.Err())
		}
	}
}

// TryGet is Get that does not wait: nil means that there is no room now. Room receives when it is worth trying again.
func (b *Buffer) TryGet(size int) *Block {
	capacity := classOf(size)
	live := b.appended.charged - b.takenCharged.Load() + b.reading
	if live > 0 && live+capacity > b.budget.ahead {
		return nil
	}
	block := b.budget.take(b, capacity)
	if block == nil {
		return nil
	}
	b.reading += block.charged
	return block
}

// Room receives when a TryGet that found no room is worth repeating. It is a hint, like NotEmpty.
func (b *Buffer) Room() <-chan struct{} { return b.space }

// Discard returns a block that was not appended.
func (b *Buffer) Discard(block *Block) {
	b.reading -= block.charged
	b.budget.put(b, block)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
