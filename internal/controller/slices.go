package controller

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

const (
	// minSlice is how long a reconcile continues with its writes while other objects wait for its worker. maxSlice is how
	// long it continues while none waits; then the object gets a new plan. The next reconcile, with its own turn,
	// continues. A slice ends when the writes in flight have ended. At the client's rate limit that is soon, because
	// requests are shared fairly, too.
	minSlice = time.Second
	maxSlice = 15 * time.Second
)

// slice starts a slice, and returns a function that reports whether it is over and the reconcile must start no more
// writes.
func (r *Reconciler) slice(namespace string) func() bool {
	start := r.Clock.Now()
	return func() bool {
		took := r.Clock.Now().Sub(start)
		return took >= maxSlice || took >= minSlice && r.Wanted(namespace)
	}
}

// Cursors holds where the last slice of an object's pod creates ended, so that pods whose creation fails, and is
// retried each time, do not starve the others. An object that has completed a round has no cursor. It is safe for
// concurrent use.
type Cursors struct{ perObject[cursor] }

// cursor is the end of the last slice.
type cursor struct {
	target string        // the last one that the slice started
	retry  time.Duration // until the first retry of a create that was postponed; 0 if there is none
}

// NewCursors returns an empty Cursors.
func NewCursors() *Cursors { return &Cursors{} }

// order returns the actions of the next slice: those after the end of the last slice, or all if there are none. It also
// returns the time until the first retry of the creates that were postponed before.
func (c *Cursors) order(object types.NamespacedName, actions []plan.Action) ([]plan.Action, time.Duration) {
	c.mu.Lock()
	last, ok := c.objects[object]
	c.mu.Unlock()
	if !ok {
		return actions, 0
	}
	var rest []plan.Action
	for _, a := range actions {
		if a.Target > last.target {
			rest = append(rest, a)
		}
	}
	if len(rest) == 0 {
		return actions, 0
	}
	return rest, last.retry
}

// stop records the end of a slice.
func (c *Cursors) stop(object types.NamespacedName, target string, retry time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(object, cursor{target, retry})
}
