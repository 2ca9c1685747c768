//go:build !unix

package report

// cpuSeconds returns 0, for unknown: no parser runs on such a system, whose programs only read reports.
func cpuSeconds() float64 { return 0 }
