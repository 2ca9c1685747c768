//go:build race

package hyperliquid

// sample is how many cases there are to each one that an enumeration takes under the race detector, which makes
// everything five times as slow. The enumerations run in one goroutine, where it has nothing to find that some cases do
// not show. make test runs this package a second time, without the race detector, and takes every case then.
const sample = 8
