package sink

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// FirstPause is the mean of the first pause after a failure. LongestPause is the upper bound of every pause.
	FirstPause   = 100 * time.Millisecond
	LongestPause = 10 * time.Second
	// spread is the jitter: a pause is shorter or longer than its mean by at most this fraction, so parsers that lose
	// the same broker do not reconnect in step.
	spread = 0.5
	// longestMean is the cap of the mean. The longest jittered pause is 1.5 times as long, which is LongestPause.
	longestMean = LongestPause * 2 / 3
)

// NewBackoff returns an exponential backoff for the attempts to reach a destination that is out. The mean doubles from
// FirstPause. Each pause is up to half shorter or longer than its mean, and at most LongestPause. It is not safe for
// concurrent use.
func NewBackoff() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval: FirstPause, RandomizationFactor: spread, Multiplier: 2, MaxInterval: longestMean,
	}
}

// Pause returns the jittered pause before the given retry, counted from 1, for a caller that keeps its own count. It is
// safe for concurrent use.
func Pause(retry int) time.Duration {
	b := NewBackoff()
	for range min(retry-1, 16) { // the mean has reached its cap by then
		b.NextBackOff()
	}
	return b.NextBackOff()
}
