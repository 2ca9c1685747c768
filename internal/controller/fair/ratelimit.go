package fair

import (
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"
)

const (
	// minBackoff and maxBackoff bound the delay before a failed item is retried, which doubles each time. With jitter the
	// longest delay is half a minute, because the cause may end without an event.
	minBackoff, maxBackoff = 5 * time.Millisecond, 20 * time.Second
	// jitter is the share by which a delay may be longer, so that items that failed together are not retried together.
	jitter = 0.5
)

// Retries returns a rate limiter that backs off exponentially for each failed item, with jitter.
func Retries[T comparable]() workqueue.TypedRateLimiter[T] {
	return jittered[T]{workqueue.NewTypedItemExponentialFailureRateLimiter[T](minBackoff, maxBackoff)}
}

// Jittered returns d plus up to half of it.
func Jittered(d time.Duration) time.Duration { return wait.Jitter(d, jitter) }

type jittered[T comparable] struct {
	workqueue.TypedRateLimiter[T]
}

func (j jittered[T]) When(item T) time.Duration { return Jittered(j.TypedRateLimiter.When(item)) }
