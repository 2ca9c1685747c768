//go:build unix

package report

import "golang.org/x/sys/unix"

// cpuSeconds returns the processor time of the process, user and system, in seconds.
func cpuSeconds() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
