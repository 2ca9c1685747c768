package engine

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// retries counts and spaces the attempts at one call after its first failure.
type retries struct {
	backoff *backoff.ExponentialBackOff
	made    int // number of pauses returned
}

func newRetries() *retries { return &retries{backoff: sink.NewBackoff()} }

// pause returns how long to wait before the next attempt.
func (r *retries) pause() time.Duration {
	r.made++
	return r.backoff.NextBackOff()
}

// reset makes the next pause the first one.
func (r *retries) reset() {
	r.made = 0
	r.backoff.Reset()
}

// sleep waits, and reports whether the context is still active.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
