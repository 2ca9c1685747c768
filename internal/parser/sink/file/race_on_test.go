//go:build race

package file_test

// sample is how many steps there are to each one that a test takes under the race detector, which makes everything
// five times as slow. The enumerations run in one goroutine, where it has nothing to find that some steps do not show.
// make test runs this package a second time, without the race detector, and takes every step then.
const sample = 8
