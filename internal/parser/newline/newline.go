// Package newline finds line ends in long lines.
package newline

import "bytes"

// Last returns the index of the last newline in b, or -1 if there is none. It is a faster bytes.LastIndexByte for lines
// of hundreds of KiB: LastIndexByte compares byte by byte. Last searches windows from the end with IndexByte, which is
// vectorized.
func Last(b []byte) int {
	const window = 4 << 10
	for end := len(b); end > 0; end -= window {
		begin := max(end-window, 0)
		if bytes.IndexByte(b[begin:end], '\n') >= 0 {
			return begin + bytes.LastIndexByte(b[begin:end], '\n')
		}
	}
	return -1
}
