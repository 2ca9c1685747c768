package fair

import (
	"sync"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/workqueue"
)

// Queue is a workqueue whose tenants have their turns; no tenant holds all workers. As in client-go's, an item that
// is added again before it is taken is there once, and one that is added while it is processed is taken again afterwards, never by two
// workers at once. client-go's delaying and rate limiting queues go around it. It is safe for concurrent use and runs no goroutine.
type Queue[T comparable] struct {
	tenant func(T) string
	most   int // items of one tenant that are processed at once

	mu         sync.Mutex
	changed    *sync.Cond
	waiting    turns[T]
	dirty      sets.Set[T] // to be processed: waiting, or to wait when they are done
	processing sets.Set[T]
	busy       map[string]int // of processing, by tenant
	idle       int            // goroutines in Get
	ended      bool
	draining   bool // ended, but what waits is still processed
}

var _ workqueue.TypedInterface[string] = (*Queue[string])(nil)

// NewQueue returns a queue for a number of workers, at least 1. One tenant holds all but one of them at most, if there are two or more.
func NewQueue[T comparable](workers int, tenant func(T) string) *Queue[T] {
	q := &Queue[T]{tenant: tenant, most: max(workers-1, 1), dirty: sets.Set[T]{}, processing: sets.Set[T]{}, busy: map[string]int{}}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// Add marks an item as to be processed. After ShutDown it does nothing.
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

// Get returns an item to process, and waits for one. Done must be called with it. shutdown is true when there will be none any more.
func (q *Queue[T]) Get() (item T, shutdown bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.idle++
	defer func() { q.idle-- }()
	for {
		if q.ended && (!q.draining || len(q.waiting.order) == 0) {
			return item, true
		}
		if next, ok := q.waiting.pop(q.may); ok {
			q.processing.Insert(next)
			q.dirty.Delete(next)
			q.busy[q.tenant(next)]++
			return next, false
		}
		q.changed.Wait()
	}
}

// may reports whether one more item of a tenant may be processed.
func (q *Queue[T]) may(tenant string) bool { return q.busy[tenant] < q.most }

// Done marks an item as processed. If it was added meanwhile it waits again.
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
	// One item may be taken that might not before: this one, or one of its tenant's.
	q.changed.Signal()
}

// Len is how many items wait.
func (q *Queue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting.len()
}

// Wanted reports whether a worker that is busy for a tenant holds somebody up: an item that may be processed and finds no free worker, or
// one of the same tenant, which holds as many as it may.
func (q *Queue[T]) Wanted(tenant string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, waits := range q.waiting.order {
		if q.may(waits) && q.idle == 0 || waits == tenant && !q.may(tenant) {
			return true
		}
	}
	return false
}

// ShutDown ends the queue at once: what waits stays undone, and each Get returns.
func (q *Queue[T]) ShutDown() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended, q.draining = true, false
	q.changed.Broadcast()
}

// ShutDownWithDrain ends the queue, and returns when what waits has been processed, or when ShutDown is called.
func (q *Queue[T]) ShutDownWithDrain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended, q.draining = true, true
	q.changed.Broadcast()
	for q.draining && (len(q.waiting.order) > 0 || q.processing.Len() > 0) {
		q.changed.Wait()
	}
}

// ShuttingDown reports whether the queue has ended.
func (q *Queue[T]) ShuttingDown() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ended
}
