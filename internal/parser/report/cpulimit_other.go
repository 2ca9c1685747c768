//go:build !linux

package report

import "runtime"

// cpuLimit is the processors that the runtime uses: this system has no cgroups.
func cpuLimit() float64 { return float64(runtime.GOMAXPROCS(0)) }
