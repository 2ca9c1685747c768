package report

import (
	"math"
	"runtime/metrics"

	"github.com/prometheus/procfs"
)

// residentBytes returns the process's resident set in bytes, or nil if it is unavailable.
func residentBytes() *int64 {
	self, err := procfs.Self()
	if err != nil {
		return nil
	}
	stat, err := self.Stat()
	if err != nil {
		return nil
	}
	return new(int64(stat.ResidentMemory()))
}

// heapBytes returns the size of the heap's live objects and of dead objects not yet swept, in bytes. Unlike
// runtime.ReadMemStats, it does not stop the process.
func heapBytes() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// goMemoryLimit returns the Go runtime's memory limit in bytes. known is false if there is none.
func goMemoryLimit() (limit float64, known bool) {
	sample := []metrics.Sample{{Name: "/gc/gomemlimit:bytes"}}
	metrics.Read(sample)
	bytes := sample[0].Value.Uint64()
	return float64(bytes), bytes < math.MaxInt64
}
