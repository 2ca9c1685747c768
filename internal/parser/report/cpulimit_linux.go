package report

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// cpuLimit returns the number of cores that this process may use: the cgroup's quota, if it is lower than the number of
// the runtime's processors. That number is whole, and at least two in a container.
func cpuLimit() float64 {
	processors := float64(runtime.GOMAXPROCS(0))
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return processors
	}
	return min(processors, cpuQuota(os.DirFS("/sys/fs/cgroup"), string(own)))
}

// cpuQuota returns the lowest quota, in cores, of the cgroup named in own, which has the form of /proc/self/cgroup, and
// of the cgroups above it; +Inf: no limit. It supports cgroups version 2.
func cpuQuota(cgroups fs.FS, own string) float64 {
	least := math.Inf(1)
	for line := range strings.Lines(own) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		if !ok {
			continue
		}
		for dir := path.Clean(name); ; dir = path.Dir(dir) {
			if text, err := fs.ReadFile(cgroups, path.Join(dir, "cpu.max")); err == nil {
				least = min(least, cores(string(text)))
			}
			if dir == "." || dir == ".." || dir == "/" {
				break
			}
		}
	}
	return least
}

// cores parses the content of cpu.max: microseconds, or "max", per period of microseconds.
func cores(text string) float64 {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return math.Inf(1)
	}
	quota, err := strconv.ParseFloat(fields[0], 64)
	period, periodErr := strconv.ParseFloat(fields[1], 64)
	if err != nil || periodErr != nil || quota <= 0 || period <= 0 {
		return math.Inf(1)
	}
	return quota / period
}
