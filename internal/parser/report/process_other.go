//go:build !linux

package report

// residentBytes returns nil: the resident set is unavailable on this system.
func residentBytes() *int64 { return nil }
