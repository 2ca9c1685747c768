// Package fair shares workers and requests to the API server fairly between tenants, however much one of them demands.
//
// A tenant is a namespace. The type turns, a pure value, defines the order. Queue applies it to workers and Limiter to
// requests. Neither depends on the content of items or requests.
package fair

import "slices"

// turns orders items round-robin by tenant, and those of one tenant first in, first out. An item waits for the earlier
// items of its tenant and, for each of them and itself, for at most one item of each other tenant. The zero value is
// empty. It is not safe for concurrent use.
type turns[T any] struct {
	queues map[string][]T
	order  []string // tenants with items, the next one first
}

// push appends an item to its tenant's queue.
func (t *turns[T]) push(tenant string, item T) {
	if t.queues == nil {
		t.queues = map[string][]T{}
	}
	queue, ok := t.queues[tenant]
	if !ok {
		t.order = append(t.order, tenant)
	}
	t.queues[tenant] = append(queue, item)
}

// pop removes the next item of the first tenant for which may returns true, and moves that tenant to the end of the
// order. The tenants before it keep their places. ok is false if there is no such tenant.
func (t *turns[T]) pop(may func(tenant string) bool) (item T, ok bool) {
	i := slices.IndexFunc(t.order, may)
	if i < 0 {
		return item, false
	}
	tenant := t.order[i]
	t.order = slices.Delete(t.order, i, i+1)
	queue := t.queues[tenant]
	item = queue[0]
	queue[0] = *new(T) // the array is retained
	if queue = queue[1:]; len(queue) == 0 {
		delete(t.queues, tenant)
		return item, true
	}
	t.queues[tenant] = queue
	t.order = append(t.order, tenant)
	return item, true
}

// len returns the number of items.
func (t *turns[T]) len() int {
	n := 0
	for _, queue := range t.queues {
		n += len(queue)
	}
	return n
}
