package controller

import (
	"time"
)

// attempts collects what one reconcile tries to do for an object, over all its steps. It is the only state that the
// steps share and change: everything else is passed from one to the next.
type attempts struct {
	// touched names everything that was tried, or waits to be retried.
	touched map[string]bool
	// unread is what could not be read in the background.
	unread []failure
	// requeueAt is when the first of what failed is to be retried; zero for never.
	requeueAt time.Time
	// confirmed is set once the API server is known to have the object.
	confirmed bool
}

// touch records that a thing is to be done.
func (t *attempts) touch(what string) {
	if t.touched == nil {
		t.touched = map[string]bool{}
	}
	t.touched[what] = true
}

// requeue asks for a reconcile at a time, unless there is one earlier; zero for never.
func (t *attempts) requeue(at time.Time) { t.requeueAt = earlier(t.requeueAt, at) }
