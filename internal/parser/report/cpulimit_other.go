//go:build !linux

package report

import "runtime"

// cpuLimit returns the number of processors that the runtime uses. This system has no cgroups.
func cpuLimit() float64 { return float64(runtime.GOMAXPROCS(0)) }
