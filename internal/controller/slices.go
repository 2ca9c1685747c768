package controller

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

const (
	// leastSlice is how long a reconcile goes on with its writes though others wait for its worker, and longestSlice how long it does when
	// nobody waits: then the object's own plan is made again. What is left is done by the next reconcile, which has its own turn. A slice
	// ends when what it began is done, which at the client's rate limit is soon: requests have their turns, too.
	leastSlice   = time.Second
	longestSlice = 15 * time.Second
)

// slice returns a function that reports whether a reconcile must begin no more writes, counted from now.
func (r *Reconciler) slice(namespace string) func() bool {
	began := r.Clock.Now()
	return func() bool {
		took := r.Clock.Now().Sub(began)
		return took >= longestSlice || took >= leastSlice && r.Wanted(namespace)
	}
}

// Cursors remember how far a slice got with the pods that are to be created, so that those which cannot be, and are tried again each
// time, do not keep the others from their turn. It is safe for concurrent use.
type Cursors struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]cursor
}

// cursor is where the last slice ended.
type cursor struct {
	target string        // that was begun last
	retry  time.Duration // after which those that were held back are tried again, the first of them; 0 when none was
}

// NewCursors returns a Cursors for objects that have begun nothing.
func NewCursors() *Cursors { return &Cursors{objects: map[types.NamespacedName]cursor{}} }

// Forget drops what is remembered of an object that is gone, or has been through all its targets.
func (c *Cursors) Forget(object types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.objects, object)
}

// order returns the actions whose turn it is, which are those beyond where the last slice ended, or all; and after how long those that
// were held back until there are tried again.
func (c *Cursors) order(object types.NamespacedName, actions []plan.Action) ([]plan.Action, time.Duration) {
	c.mu.Lock()
	last, ok := c.objects[object]
	c.mu.Unlock()
	if !ok {
		return actions, 0
	}
	var turn []plan.Action
	for _, a := range actions {
		if a.Target > last.target {
			turn = append(turn, a)
		}
	}
	if len(turn) == 0 {
		return actions, 0
	}
	return turn, last.retry
}

// stop takes in where a slice ended.
func (c *Cursors) stop(object types.NamespacedName, target string, retry time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.objects[object] = cursor{target, retry}
}
