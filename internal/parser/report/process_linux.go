package report

import (
	"bytes"
	"os"
	"strconv"
)

// residentBytes returns the process's resident set in bytes, or nil if it is unavailable. It is the second number of
// /proc/self/statm, in pages; see proc(5).
func residentBytes() *int64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return nil
	}
	fields := bytes.Fields(data)
	if len(fields) < 2 {
		return nil
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return nil
	}
	return new(pages * int64(os.Getpagesize()))
}
