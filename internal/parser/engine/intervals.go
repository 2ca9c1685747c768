package engine

import (
	"math"
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
)

// intervals is a set of numbers, in ascending intervals that do not touch. It is immutable: operations return a new
// set.
type intervals []checkpoint.Interval

// unbounded is the last number of an interval without a known end.
const unbounded = math.MaxInt64

// find returns the interval that contains n, or the index at which to insert it.
func (s intervals) find(n int64) (int, bool) {
	return slices.BinarySearchFunc(s, n, func(i checkpoint.Interval, n int64) int {
		switch {
		case i.Last < n:
			return -1
		case i.First > n:
			return 1
		}
		return 0
	})
}

func (s intervals) has(n int64) bool {
	_, found := s.find(n)
	return found
}

// next returns the lowest number of the set that is n or above.
func (s intervals) next(n int64) (next int64, ok bool) {
	i, found := s.find(n)
	switch {
	case found:
		return n, true
	case i < len(s):
		return s[i].First, true
	}
	return 0, false
}

func (s intervals) with(n int64) intervals {
	i, found := s.find(n)
	if found {
		return s
	}
	next := slices.Insert(slices.Clone(s), i, checkpoint.Interval{First: n, Last: n})
	if i+1 < len(next) && next[i+1].First == n+1 {
		next[i].Last = next[i+1].Last
		next = slices.Delete(next, i+1, i+2)
	}
	if i > 0 && next[i-1].Last == n-1 {
		next[i-1].Last = next[i].Last
		next = slices.Delete(next, i, i+1)
	}
	return next
}

// without returns the set without the numbers from first to last.
func (s intervals) without(first, last int64) intervals {
	var out intervals
	for _, i := range s {
		if i.First < first {
			out = append(out, checkpoint.Interval{First: i.First, Last: min(i.Last, first-1)})
		}
		if i.Last > last {
			out = append(out, checkpoint.Interval{First: max(i.First, last+1), Last: i.Last})
		}
	}
	return out
}

// newest returns the highest intervals, at most maxIntervals of them.
func (s intervals) newest() intervals { return s[max(len(s)-maxIntervals, 0):] }
