package buffer

import "sync"

const (
	// BlockSize is the size of the smallest block, in bytes. At 256 KiB the cost of a read's system call is negligible,
	// and the block stays within a core's cache.
	BlockSize = 256 << 10
	// classFactor is the ratio between the block sizes that are kept for reuse: 256 KiB, 1 MiB, 4 MiB. A longer line
	// gets its own memory, which is freed after use: one 20 MB line per hour must not pin 20 MB for the rest of the
	// hour.
	classFactor   = 4
	largestPooled = BlockSize * classFactor * classFactor
	// longRound is the granularity, in bytes, of the memory for a line beyond the largest class.
	longRound = 64 << 10
)

// Budget limits the memory that the buffers of one process hold together, including free blocks kept for reuse. It is
// safe for concurrent use.
//
// Half of the limit is divided equally among the streams, so that no stream can starve another. The other half is lent
// to the streams that need it.
type Budget struct {
	limit     int64
	reserved  int64 // bytes reserved for each stream
	shared    int64 // bytes that can be lent
	readAhead int64 // maximum bytes of one live buffer, unless a single block is longer

	mu      sync.Mutex
	charged map[*Buffer]int64 // charged bytes, by stream
	lent    int64
	token   bool // a block holds the long-line token
	free    map[int64][]*Block
	freeSum int64
	inUse   int64
	peak    int64
}

// NewBudget returns a budget of limit bytes for the given number of streams, each with one buffer. The limit must be at
// least 2 × streams × BlockSize. Otherwise a stream's reserved share cannot hold a block.
func NewBudget(limit int64, streams int) *Budget {
	own := max(limit/int64(2*streams), BlockSize)
	shared := max(limit-own*int64(streams), 0)
	return &Budget{
		limit:    limit,
		reserved: own,
		shared:   shared,
		// The live half leaves the other half to the batch in flight, so that reading and processing overlap.
		readAhead: (own + shared) / 2,
		charged:   make(map[*Buffer]int64, streams),
		free:      make(map[int64][]*Block),
	}
}

// LimitReadAhead limits how far each reader may be ahead of its processor, in bytes, if that is less than the budget
// allows. Reading further ahead does not speed up processing, since the data is already on disk, while recently
// released memory is still in the processor's cache. It must be called before the first NewBuffer.
func (g *Budget) LimitReadAhead(bytes int64) { g.readAhead = min(g.readAhead, bytes) }

// NewBuffer returns an empty buffer that draws on this budget. Close it when its stream has ended.
func (g *Budget) NewBuffer() *Buffer {
	b := &Buffer{
		budget:   g,
		notEmpty: make(chan struct{}, 1), room: make(chan struct{}, 1),
		spare: &Snapshot{},
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.charged[b] = 0
	return b
}

// Limit returns the maximum number of bytes that the buffers may hold together.
func (g *Budget) Limit() int64 { return g.limit }

// Peak returns the highest number of bytes ever charged. It exceeds the limit by one long line at most.
func (g *Budget) Peak() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peak
}

// Close releases what a buffer holds. Call it after the buffer's reader and processor have ended. The buffer must not
// be used again.
func (g *Budget) Close(b *Buffer) {
	for block := b.newest.Swap(nil); block != nil; {
		older := block.older
		g.release(b, block)
		block = older
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.charged, b)
}

// sizeClass rounds a size up to the capacity that is allocated and charged for it, in bytes.
func sizeClass(size int) int64 {
	for class := int64(BlockSize); class <= largestPooled; class *= classFactor {
		if int64(size) <= class {
			return class
		}
	}
	return (int64(size) + longRound - 1) / longRound * longRound
}

// charge charges capacity bytes to b and returns a block of that capacity, or nil if there is no room.
func (g *Budget) charge(b *Buffer, capacity int64) *Block {
	g.mu.Lock()
	defer g.mu.Unlock()
	used := g.charged[b]
	borrow := max(used+capacity-g.reserved, 0) - max(used-g.reserved, 0)
	token := false
	if g.lent+borrow > g.shared {
		// A stream that holds nothing could wait forever. The token lets it exceed the limit, one line at a time.
		if used > 0 || g.token {
			return nil
		}
		token, borrow = true, 0
	}
	block := g.freeOrNewBlock(capacity)
	block.charged, block.token = capacity, token
	if token {
		g.token = true
	} else {
		g.charged[b] = used + capacity
		g.lent += borrow
	}
	g.inUse += capacity
	g.peak = max(g.peak, g.inUse)
	return block
}

// freeOrNewBlock returns a free block of the given capacity, or allocates one. If the allocation would exceed the
// limit, it first drops free blocks of other sizes.
func (g *Budget) freeOrNewBlock(capacity int64) *Block {
	if list := g.free[capacity]; len(list) > 0 {
		block := list[len(list)-1]
		list[len(list)-1] = nil
		g.free[capacity] = list[:len(list)-1]
		g.freeSum -= capacity
		return block
	}
	for class := int64(largestPooled); class >= BlockSize && g.inUse+g.freeSum+capacity > g.limit; class /= classFactor {
		g.freeSum -= class * int64(len(g.free[class]))
		delete(g.free, class)
	}
	return &Block{memory: make([]byte, capacity)}
}

// release removes the charge from b. It keeps the block for reuse if the block has a pooled size.
func (g *Budget) release(b *Buffer, block *Block) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if block.token {
		g.token = false
	} else {
		used := g.charged[b]
		g.lent -= max(used-g.reserved, 0) - max(used-block.charged-g.reserved, 0)
		g.charged[b] = used - block.charged
	}
	g.inUse -= block.charged
	if block.charged <= largestPooled && g.inUse+g.freeSum+block.charged <= g.limit {
		*block = Block{memory: block.memory}
		g.free[int64(len(block.memory))] = append(g.free[int64(len(block.memory))], block)
		g.freeSum += int64(len(block.memory))
	} else {
		*block = Block{}
	}
	for other := range g.charged {
		notify(other.room)
	}
}
