package vfs

import (
	"time"

	"golang.org/x/sys/unix"
)

// Born returns the time at which a file was created. It is the zero time if the file system does not report it.
func Born(src Source) time.Time {
	f, ok := src.(interface{ Fd() uintptr })
	if !ok {
		return time.Time{}
	}
	var stat unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &stat)
	if err != nil || stat.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}
	}
	return time.Unix(stat.Btime.Sec, int64(stat.Btime.Nsec))
}
