package controller

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Waker enqueues objects for goroutines outside the controller. It never blocks: the controller's queue is unbounded
// and holds each object once. It is a source of the controller, which starts it before the first reconcile. It is safe
// for concurrent use.
type Waker struct {
	mu    sync.Mutex
	queue queue
}

// Start sets the controller's queue.
func (w *Waker) Start(_ context.Context, queue queue) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = queue
	return nil
}

// wake enqueues an object after a delay. Several calls until then lead to one reconcile.
func (w *Waker) wake(object types.NamespacedName, after time.Duration) {
	w.mu.Lock()
	queue := w.queue
	w.mu.Unlock()
	if queue != nil {
		queue.AddAfter(reconcile.Request{NamespacedName: object}, after)
	}
}
