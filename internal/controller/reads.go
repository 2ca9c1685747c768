package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// glance is how long a read waits for the cache to show what was written before; it does within milliseconds.
	glance = 250 * time.Millisecond
	// patience is how long an object's reconciles are put off because the cache does not show that. After it they read from the API server.
	//
	// The cache may never show it: a pod that is marked for deletion and gone while the watch is down is not seen as marked when the watch
	// is back, but is just not there any more, and the cache waits for the version of the mark until some other pod changes. Who waits
	// with it makes no pod in its place.
	patience = 10 * time.Second
)

// errBehind means that the cache does not show what was written before. The object is looked at again soon; its worker does not wait.
var errBehind = errors.New("the cache does not show yet what was written")

// Behind remembers since when the cache has been behind the writes for an object, by the kind of what is read. It is safe for concurrent
// use.
type Behind struct {
	clock clock.PassiveClock

	mu      sync.Mutex
	objects map[types.NamespacedName]map[string]time.Time
}

// NewBehind returns a Behind for a cache that is up to date.
func NewBehind(now clock.PassiveClock) *Behind {
	return &Behind{clock: now, objects: map[types.NamespacedName]map[string]time.Time{}}
}

// Forget drops what is remembered of an object that is gone.
func (b *Behind) Forget(object types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, object)
}

// caughtUp takes in that the cache shows everything of a kind.
func (b *Behind) caughtUp(object types.NamespacedName, kind string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects[object], kind)
}

// lasts takes in that the cache is behind, and returns for how long it has been.
func (b *Behind) lasts(object types.NamespacedName, kind string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	kinds := b.objects[object]
	if kinds == nil {
		kinds = map[string]time.Time{}
		b.objects[object] = kinds
	}
	now := b.clock.Now()
	if _, ok := kinds[kind]; !ok {
		kinds[kind] = now
	}
	return now.Sub(kinds[kind])
}

// get reads an object for the reconcile of one: from the cache if that shows what was written before, or else errBehind, or in the end
// from the API server.
func (r *Reconciler) get(ctx context.Context, object types.NamespacedName, into client.Object) error {
	return r.read(ctx, object, fmt.Sprintf("%T", into), func(ctx context.Context, from client.Reader) error { return from.Get(ctx, object, into) })
}

// list reads what belongs to an object, as get does.
func (r *Reconciler) list(ctx context.Context, object types.NamespacedName, list client.ObjectList, options ...client.ListOption) error {
	return r.read(ctx, object, fmt.Sprintf("%T", list), func(ctx context.Context, from client.Reader) error { return from.List(ctx, list, options...) })
}

func (r *Reconciler) read(
	ctx context.Context, object types.NamespacedName, kind string, read func(context.Context, client.Reader) error,
) error {
	bounded, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	err := read(bounded, r.Client)
	if err == nil || bounded.Err() == nil {
		r.Behind.caughtUp(object, kind)
		return err
	}
	if ctx.Err() != nil {
		return err
	}
	since := r.Behind.lasts(object, kind)
	if since < patience {
		return errBehind
	}
	logf.FromContext(ctx).Info("asking the API server, for the cache does not show what was written", "since", since, "kind", kind)
	return read(ctx, r.APIReader)
}
