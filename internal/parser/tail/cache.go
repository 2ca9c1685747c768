package tail

import "os"

const (
	// farBehind is how far before the end of a file reading must be for its pages to be of no use to anybody else: who follows the
	// node reads near the end.
	farBehind = 64 << 20
	// stretch is how much is read between two looks at the page cache.
	stretch = 8 << 20
	// beyond is how far ahead a look goes: what is nearer is in the cache because the system reads ahead.
	beyond = farBehind / 2
)

// passage keeps a reader that catches up from filling the page cache, which a Hyperliquid node beside it needs: pages that it
// brought in far behind the end of a file leave again. Those that were there before it came stay for whoever uses them.
type passage struct {
	begin, end int64 // of the stretch being read; nothing is known of what is not in it
	ours       bool  // hardly anything of what follows was in the cache
}

// reading is called before a read at an offset in a file of some size; everything from the stretch's beginning to there was read.
func (p *passage) reading(f *os.File, at, size int64) {
	if p.begin <= at && at < p.end {
		return
	}
	if p.ours && at >= p.end {
		dropCached(f, p.begin, at)
	}
	*p = passage{}
	if size-at >= farBehind+stretch {
		*p = passage{begin: at, end: at + stretch, ours: cachedBytes(f, at+beyond, at+beyond+stretch) < stretch/2}
	}
}
