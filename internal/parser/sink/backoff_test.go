package sink_test

import (
	"slices"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// pauses are the two functions that return the pause before a retry.
var pauses = map[string]func() func(retry int) time.Duration{
	"NewBackoff": func() func(int) time.Duration {
		b := sink.NewBackoff()
		return func(int) time.Duration { return b.NextBackOff() }
	},
	"Pause": func() func(int) time.Duration { return sink.Pause },
}

func TestPausesGrowToALimit(t *testing.T) {
	for name, begin := range pauses {
		t.Run(name, func(t *testing.T) {
			for range 100 {
				pause, mean := begin(), sink.FirstPause
				for retry := 1; retry <= 40; retry++ {
					d := pause(retry)
					if d < min(mean, sink.LongestPause*2/3)/2 || d > min(mean*3/2+1, sink.LongestPause+1) {
						t.Fatalf("the pause before retry %d is %v", retry, d)
					}
					if mean < time.Hour {
						mean *= 2
					}
				}
			}
		})
	}
}

// Many parsers lose one broker at the same moment. Without jitter they all reconnect at the same instant in each round.
func TestManyThatFailTogetherDoNotComeBackInStep(t *testing.T) {
	const parsers, retries = 5000, 12
	for name, begin := range pauses {
		t.Run(name, func(t *testing.T) {
			at := make([]time.Duration, parsers) // when each parser reconnects, measured from the common failure
			next := make([]func(int) time.Duration, parsers)
			for i := range next {
				next[i] = begin()
			}
			mean := sink.FirstPause
			for retry := 1; retry <= retries; retry++ {
				for i := range at {
					at[i] += next[i](retry)
				}
				sorted := slices.Sorted(slices.Values(at))
				// Nine of ten are spread over four fifths of the pause, and at most a twentieth falls into any
				// hundredth of that time.
				width := sorted[parsers*19/20] - sorted[parsers/20]
				if width < min(mean, sink.LongestPause*2/3)*4/5 {
					t.Errorf("at retry %d nine of ten parsers come within %v", retry, width)
				}
				for i, j := 0, 0; i < parsers; i++ {
					for j < parsers && sorted[j]-sorted[i] <= width/100 {
						j++
					}
					if j-i > parsers/20 {
						t.Fatalf("at retry %d %d of %d parsers come within %v", retry, j-i, parsers, width/100)
					}
				}
				mean *= 2
			}
		})
	}
}
