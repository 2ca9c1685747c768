//go:build !race

package hyperliquid

// sample is 1: without the race detector an enumeration takes every case.
const sample = 1
