package main

import (
	"fmt"
	"time"
)

// Headings of columns that several tables share.
const (
	peakColumn    = "peak MiB"
	wantedColumn  = "wanted"
	reachedColumn = "reached"
	speedColumn   = "MB/s"
	cpuColumn     = "CPU s"
)

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }

func mebibytes(n int64) string { return fmt.Sprintf("%.0f", float64(n)/(1<<20)) }

func millis(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
