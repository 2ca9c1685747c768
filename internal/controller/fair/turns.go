// Package fair shares what is scarce, workers and requests to the API server, among tenants. Each tenant has its turn, however much
// another one asks for.
//
// A tenant is a namespace. The order is that of turns, a pure value. Queue gives it to workers and Limiter to requests. Neither knows
// what an item or a request is about.
package fair

import "slices"

// turns orders items: tenants in turn, and those of one tenant first in, first out. An item waits for those of its tenant that came before
// it, and for each of them and itself for at most one item of each other tenant. The zero value holds nothing. It is not safe for
// concurrent use.
type turns[T any] struct {
	lines map[string][]T
	order []string // tenants with a line, the one whose turn is next first
}

// push adds an item at the end of its tenant's line.
func (t *turns[T]) push(tenant string, item T) {
	if t.lines == nil {
		t.lines = map[string][]T{}
	}
	line, waits := t.lines[tenant]
	if !waits {
		t.order = append(t.order, tenant)
	}
	t.lines[tenant] = append(line, item)
}

// pop takes the next item of the first tenant that may have one, which then goes to the end of the order. Those before it that may not
// keep their places. It returns false when there is no such item.
func (t *turns[T]) pop(may func(tenant string) bool) (item T, ok bool) {
	i := slices.IndexFunc(t.order, may)
	if i < 0 {
		return item, false
	}
	tenant := t.order[i]
	t.order = slices.Delete(t.order, i, i+1)
	line := t.lines[tenant]
	item = line[0]
	line[0] = *new(T) // the array lives on
	if line = line[1:]; len(line) == 0 {
		delete(t.lines, tenant)
		return item, true
	}
	t.lines[tenant] = line
	t.order = append(t.order, tenant)
	return item, true
}

// len counts the items.
func (t *turns[T]) len() int {
	n := 0
	for _, line := range t.lines {
		n += len(line)
	}
	return n
}
