package tail

import (
	"os"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const (
	// farBehind is the distance from the end of a file, in bytes, beyond which pages are of no use to other processes:
	// a process that follows the node reads near the end.
	farBehind = 64 << 20
	// cacheWindow is the number of bytes that are read between two checks of the page cache.
	cacheWindow = 8 << 20
	// probeAhead is the distance ahead, in bytes, at which a check probes. Nearer pages are in the cache because of
	// readahead.
	probeAhead = farBehind / 2
)

// cacheGuard prevents a reader that catches up from filling the page cache, which a Hyperliquid node beside it needs.
// It evicts the pages that the reader brought in far behind the end of a file. Pages that were cached before stay for
// their users.
type cacheGuard struct {
	begin, end int64 // the window being read; nothing is known about the rest
	evict      bool  // hardly any of the following bytes were cached
}

// beforeRead is called before a read at an offset of a file of the given size. Everything from the start of the window
// to that offset was read.
func (p *cacheGuard) beforeRead(source vfs.Source, at, size int64) {
	f, ok := source.(*os.File)
	if !ok {
		return
	}
	if p.begin <= at && at < p.end {
		return
	}
	if p.evict && at >= p.end {
		dropCached(f, p.begin, at)
	}
	*p = cacheGuard{}
	if size-at >= farBehind+cacheWindow {
		cached := cachedBytes(f, at+probeAhead, at+probeAhead+cacheWindow)
		*p = cacheGuard{begin: at, end: at + cacheWindow, evict: cached < cacheWindow/2}
	}
}
