//go:build !linux

package vfs

import "time"

// Born returns the zero time: the creation time is read on Linux only.
func Born(Source) time.Time { return time.Time{} }
