//go:build !race

package file_test

// sample is 1: without the race detector a test takes every step.
const sample = 1
