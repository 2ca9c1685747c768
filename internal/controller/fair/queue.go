package fair

import (
	"sync"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/workqueue"
)

// Queue is a workqueue that serves tenants in turn and lets no tenant occupy all workers. As in client-go's queue, an
// item that is added twice before it is taken is processed once, and an item that is added while it is processed is
// processed again afterwards, never by two workers at once. client-go's delaying and rate limiting queues can wrap it.
// It is safe for concurrent use and runs no goroutine.
type Queue[T comparable] struct {
	tenant func(T) string
	limit  int // items of one tenant that are processed at once

	mu         sync.Mutex
	changed    *sync.Cond
	waiting    turns[T]
	dirty      sets.Set[T] // to be processed: waiting, or waiting again once Done was called
	processing sets.Set[T]
	busy       map[string]int // number of processing, by tenant
	idle       int            // goroutines in Get
	ended      bool
	draining   bool // ended, but waiting items are still processed
}

var _ workqueue.TypedInterface[string] = (*Queue[string])(nil)

// NewQueue returns a queue for a number of workers, at least 1. If there are more than one, a tenant occupies all but
// one at most.
func NewQueue[T comparable](workers int, tenant func(T) string) *Queue[T] {
	q := &Queue[T]{
		tenant: tenant, limit: max(workers-1, 1), dirty: sets.Set[T]{}, processing: sets.Set[T]{}, busy: map[string]int{},
	}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// Add adds an item. It does nothing after ShutDown.
func (q *Queue[T]) Add(item T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended || q.dirty.Has(item) {
		return
	}
	q.dirty.Insert(item)
	if !q.processing.Has(item) {
		q.waiting.push(q.tenant(item), item)
		q.changed.Signal()
	}
}

// Get waits for an item to process and returns it. The caller must call Done with it. shutdown reports whether the
// queue has shut down and has no more items.
func (q *Queue[T]) Get() (item T, shutdown bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.idle++
	defer func() { q.idle-- }()
	for {
		if q.ended && (!q.draining || len(q.waiting.order) == 0) {
			return item, true
		}
		if next, ok := q.waiting.pop(q.mayRun); ok {
			q.processing.Insert(next)
			q.dirty.Delete(next)
			q.busy[q.tenant(next)]++
			return next, false
		}
		q.changed.Wait()
	}
}

// mayRun reports whether one more item of a tenant may be processed.
func (q *Queue[T]) mayRun(tenant string) bool { return q.busy[tenant] < q.limit }

// Done marks an item as processed. If it was added meanwhile, it waits again.
func (q *Queue[T]) Done(item T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.processing.Has(item) {
		return
	}
	q.processing.Delete(item)
	tenant := q.tenant(item)
	if q.busy[tenant]--; q.busy[tenant] == 0 {
		delete(q.busy, tenant)
	}
	if q.dirty.Has(item) {
		q.waiting.push(tenant, item)
	}
	if q.ended {
		q.changed.Broadcast()
		return
	}
	// One more item may be taken: this one, or another of its tenant.
	q.changed.Signal()
}

// Len returns the number of waiting items.
func (q *Queue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting.len()
}

// Wanted reports whether a worker that is busy for a tenant delays an item: one that may be processed but finds no free
// worker, or one of the same tenant if that occupies its limit of workers.
func (q *Queue[T]) Wanted(tenant string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, waits := range q.waiting.order {
		if q.mayRun(waits) && q.idle == 0 || waits == tenant && !q.mayRun(tenant) {
			return true
		}
	}
	return false
}

// ShutDown shuts the queue down at once: waiting items are dropped, and each Get returns.
func (q *Queue[T]) ShutDown() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended, q.draining = true, false
	q.changed.Broadcast()
}

// ShutDownWithDrain shuts the queue down, and returns when all items have been processed or ShutDown is called.
func (q *Queue[T]) ShutDownWithDrain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended, q.draining = true, true
	q.changed.Broadcast()
	for q.draining && (len(q.waiting.order) > 0 || q.processing.Len() > 0) {
		q.changed.Wait()
	}
}

// ShuttingDown reports whether the queue is shut down.
func (q *Queue[T]) ShuttingDown() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ended
}
