package buffer

import "sync"

const (
	// BlockSize is the smallest block. 256 KiB amortises a read's system call to nothing and stays within a core's cache.
	BlockSize = 256 << 10
	// classFactor spaces the sizes that are kept for reuse: 256 KiB, 1 MiB, 4 MiB. A line that needs more gets its own
	// memory, freed after use, because a single 20 MB line an hour must not pin 20 MB for the rest of it.
	classFactor   = 4
	largestPooled = BlockSize * classFactor * classFactor
	// longRound rounds the memory of a line beyond the largest class.
	longRound = 64 << 10
)

// Budget is what the buffers of one process may hold together, free blocks kept for reuse included. It is safe for
// concurrent use.
//
// Half of the limit is divided equally among the streams, so that none can starve another; the other half is lent to whoever
// needs it.
type Budget struct {
	limit  int64
	own    int64 // each stream's
	shared int64 // to be lent
	ahead  int64 // what one live buffer may hold, unless a single block is longer

	mu      sync.Mutex
	used    map[*Buffer]int64 // charged, by stream
	lent    int64
	token   bool // somebody holds the long-line token
	free    map[int64][]*Block
	freeSum int64
	inUse   int64
	peak    int64
}

// NewBudget returns a budget of limit bytes for as many buffers as streams says. The limit must be at least
// 2 × streams × BlockSize, or a stream's own share does not hold a block.
func NewBudget(limit int64, streams int) *Budget {
	own := max(limit/int64(2*streams), BlockSize)
	shared := max(limit-own*int64(streams), 0)
	return &Budget{
		limit:  limit,
		own:    own,
		shared: shared,
		// The live half leaves the other half to the batch in flight, so that reading and processing overlap.
		ahead: (own + shared) / 2,
		used:  make(map[*Buffer]int64, streams),
		free:  make(map[int64][]*Block),
	}
}

// LimitReadAhead keeps each reader at most so many bytes ahead of its processor, below what the budget allows. More would be
// processed no sooner, since it is on disk already; and memory that was just given back is still in the processor's cache. It is
// called before the first NewBuffer.
func (g *Budget) LimitReadAhead(bytes int64) { g.ahead = min(g.ahead, bytes) }

// NewBuffer returns an empty buffer that draws on this budget. Close it when its stream has ended.
func (g *Budget) NewBuffer() *Buffer {
	b := &Buffer{
		budget:   g,
		notEmpty: make(chan struct{}, 1), space: make(chan struct{}, 1),
		spare: &Snapshot{},
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used[b] = 0
	return b
}

// Limit is the number of bytes that the buffers may hold together.
func (g *Budget) Limit() int64 { return g.limit }

// Peak is the most that was ever charged, in bytes; it passes the limit only by one long line.
func (g *Budget) Peak() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peak
}

// Close gives back what a buffer holds, when its reader and its processor have ended. The buffer must not be used again.
func (g *Budget) Close(b *Buffer) {
	for block := b.newest.Swap(nil); block != nil; {
		older := block.older
		g.put(b, block)
		block = older
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.used, b)
}

// classOf rounds a size up to the capacity that is allocated and charged for it.
func classOf(size int) int64 {
	for class := int64(BlockSize); class <= largestPooled; class *= classFactor {
		if int64(size) <= class {
			return class
		}
	}
	return (int64(size) + longRound - 1) / longRound * longRound
}

// take charges capacity bytes to b and returns a block of that capacity, or nil when there is no room now.
func (g *Budget) take(b *Buffer, capacity int64) *Block {
	g.mu.Lock()
	defer g.mu.Unlock()
	used := g.used[b]
	borrow := max(used+capacity-g.own, 0) - max(used-g.own, 0)
	token := false
	if g.lent+borrow > g.shared {
		// With nothing of its own in hand the stream could wait for ever: the token lets it pass the limit, one line at a time.
		if used > 0 || g.token {
			return nil
		}
		token, borrow = true, 0
	}
	block := g.reuse(capacity)
	block.charged, block.token = capacity, token
	if token {
		g.token = true
	} else {
		g.used[b] = used + capacity
		g.lent += borrow
	}
	g.inUse += capacity
	g.peak = max(g.peak, g.inUse)
	return block
}

// reuse returns a free block of that capacity, or allocates one, dropping free blocks of other sizes that would exceed the limit.
func (g *Budget) reuse(capacity int64) *Block {
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

// put takes the charge off b and keeps the block for reuse when it has a pooled size.
func (g *Budget) put(b *Buffer, block *Block) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if block.token {
		g.token = false
	} else {
		used := g.used[b]
		g.lent -= max(used-g.own, 0) - max(used-block.charged-g.own, 0)
		g.used[b] = used - block.charged
	}
	g.inUse -= block.charged
	if block.charged <= largestPooled && g.inUse+g.freeSum+block.charged <= g.limit {
		*block = Block{memory: block.memory}
		g.free[int64(len(block.memory))] = append(g.free[int64(len(block.memory))], block)
		g.freeSum += int64(len(block.memory))
	} else {
		*block = Block{}
	}
	for other := range g.used {
		wake(other.space)
	}
}
