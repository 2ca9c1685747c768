package results

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// PeakOf returns the peak resident memory of a running process, in bytes.
func PeakOf(pid int) (int64, error) {
	return memoryOf(pid, func(s procfs.ProcStatus) uint64 { return s.VmHWM })
}

// ResidentOf returns the resident memory of a running process, in bytes.
func ResidentOf(pid int) (int64, error) {
	return memoryOf(pid, func(s procfs.ProcStatus) uint64 { return s.VmRSS })
}

func memoryOf(pid int, field func(procfs.ProcStatus) uint64) (int64, error) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return 0, fmt.Errorf("reading the memory of process %d: %w", pid, err)
	}
	status, err := process.NewStatus()
	if err == nil && field(status) == 0 {
		err = errors.New("the system does not report it")
	}
	if err != nil {
		return 0, fmt.Errorf("reading the memory of process %d: %w", pid, err)
	}
	return int64(field(status)), nil
}

// CPUOf returns the processor time of a running process, with a resolution of 10 ms.
func CPUOf(pid int) (time.Duration, error) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return 0, fmt.Errorf("reading the time of process %d: %w", pid, err)
	}
	stat, err := process.Stat()
	if err != nil {
		return 0, fmt.Errorf("reading the time of process %d: %w", pid, err)
	}
	return time.Duration(stat.UTime+stat.STime) * 10 * time.Millisecond, nil
}
