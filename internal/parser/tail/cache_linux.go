package tail

import (
	"os"

	"golang.org/x/sys/unix"
)

// cachedBytes is how much of a range of a file the page cache holds; 0 where the kernel, before 6.5, cannot tell.
func cachedBytes(f *os.File, from, to int64) int64 {
	var found unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{Off: uint64(from), Len: uint64(to - from)}, &found, 0); err != nil {
		return 0
	}
	return int64(found.Cache) * int64(os.Getpagesize())
}

// dropCached gives a range of a file out of the page cache, but for what is not on disk yet. It is advice: no error matters.
func dropCached(f *os.File, from, to int64) {
	_ = unix.Fadvise(int(f.Fd()), from, to-from, unix.FADV_DONTNEED)
}
