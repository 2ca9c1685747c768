package tail

import (
	"os"

	"golang.org/x/sys/unix"
)

// cachedBytes returns how many bytes of a range of a file the page cache holds. It is 0 on kernels before 6.5, which do
// not report it.
func cachedBytes(f *os.File, from, to int64) int64 {
	var found unix.Cachestat_t
	section := unix.CachestatRange{Off: uint64(from), Len: uint64(to - from)}
	if err := unix.Cachestat(uint(f.Fd()), &section, &found, 0); err != nil {
		return 0
	}
	return int64(found.Cache) * int64(os.Getpagesize())
}

// dropCached evicts a range of a file from the page cache, except what is not on disk yet. It is advice, so errors do
// not matter.
func dropCached(f *os.File, from, to int64) {
	_ = unix.Fadvise(int(f.Fd()), from, to-from, unix.FADV_DONTNEED)
}
