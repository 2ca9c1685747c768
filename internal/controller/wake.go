package controller

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Waker asks for reconciles of objects on behalf of what goes on beside them. It never waits: the controller's queue has no bound, and
// holds each object once. It is a source of the controller, which starts it before any reconcile, and safe for concurrent use.
type Waker struct {
	mu    sync.Mutex
	queue queue
}

// Start makes wake reach the controller.
func (w *Waker) Start(_ context.Context, queue queue) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = queue
	return nil
}

// wake has an object reconciled after a while, once however often it is woken until then; 0 is at once.
func (w *Waker) wake(object types.NamespacedName, after time.Duration) {
	w.mu.Lock()
	queue := w.queue
	w.mu.Unlock()
	if queue != nil {
		queue.AddAfter(reconcile.Request{NamespacedName: object}, after)
	}
}
