package fair

import (
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"
)

const (
	// firstRetry and longestRetry bound how soon an item that failed is tried again; it doubles from one to the
	// other. With its jitter the longest wait is half a minute: what was wrong is over without our hearing of it.
	firstRetry, longestRetry = 5 * time.Millisecond, 20 * time.Second
	// jitter is by how much of itself a wait may be longer, so that items that failed together are not tried together.
	jitter = 0.5
)

// Retries returns a rate limiter for items that failed: each by itself, exponentially, with jitter.
func Retries[T comparable]() workqueue.TypedRateLimiter[T] {
	return jittered[T]{workqueue.NewTypedItemExponentialFailureRateLimiter[T](firstRetry, longestRetry)}
}

// Jittered is a wait that is up to half as long again.
func Jittered(d time.Duration) time.Duration { return wait.Jitter(d, jitter) }

type jittered[T comparable] struct {
	workqueue.TypedRateLimiter[T]
}

func (j jittered[T]) When(item T) time.Duration { return Jittered(j.TypedRateLimiter.When(item)) }
