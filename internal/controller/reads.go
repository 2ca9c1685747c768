package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// cacheReadTimeout is how long a read waits for the cache to show earlier writes. It normally does within
	// milliseconds.
	cacheReadTimeout = 250 * time.Millisecond
	// writesVisibleTimeout is how long an object's reconciles are postponed because the cache does not show earlier
	// writes. After it they read from the API server.
	//
	// The cache may never show a write. If the watch is down while a pod is marked for deletion and removed, the cache
	// drops the pod when the watch is back, and waits for the version of the mark until another pod changes. A reconcile
	// that waited as long would create no replacement.
	writesVisibleTimeout = 10 * time.Second
)

// errBehind means that the cache does not show earlier writes. The object is requeued, so its worker does not wait.
var errBehind = errors.New("the cache does not show earlier writes yet")

// Behind holds since when the cache has been behind the writes for an object, by the kind that is read. It is safe for
// concurrent use.
type Behind struct {
	clock clock.PassiveClock
	perObject[map[string]time.Time]
}

// NewBehind returns a Behind for a cache that is up to date.
func NewBehind(now clock.PassiveClock) *Behind { return &Behind{clock: now} }

// caughtUp records that the cache shows all writes of a kind.
func (b *Behind) caughtUp(object types.NamespacedName, kind string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects[object], kind)
}

// behindFor records that the cache is behind, and returns for how long it has been.
func (b *Behind) behindFor(object types.NamespacedName, kind string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	kinds := b.objects[object]
	if kinds == nil {
		kinds = map[string]time.Time{}
		b.set(object, kinds)
	}
	now := b.clock.Now()
	if _, ok := kinds[kind]; !ok {
		kinds[kind] = now
	}
	return now.Sub(kinds[kind])
}

// get reads an object from the cache if the cache shows earlier writes. Otherwise it returns errBehind, or, after
// writesVisibleTimeout, reads from the API server.
func (r *Reconciler) get(ctx context.Context, object types.NamespacedName, into client.Object) error {
	return r.read(ctx, object, fmt.Sprintf("%T", into), func(ctx context.Context, from client.Reader) error {
		return from.Get(ctx, object, into)
	})
}

// list lists the objects that belong to an object, as get does.
func (r *Reconciler) list(
	ctx context.Context, object types.NamespacedName, list client.ObjectList, options ...client.ListOption,
) error {
	return r.read(ctx, object, fmt.Sprintf("%T", list), func(ctx context.Context, from client.Reader) error {
		return from.List(ctx, list, options...)
	})
}

func (r *Reconciler) read(
	ctx context.Context, object types.NamespacedName, kind string, read func(context.Context, client.Reader) error,
) error {
	bounded, cancel := context.WithTimeout(ctx, cacheReadTimeout)
	defer cancel()
	err := read(bounded, r.Client)
	if err == nil || bounded.Err() == nil {
		r.Behind.caughtUp(object, kind)
		return err
	}
	if ctx.Err() != nil {
		return err
	}
	behindFor := r.Behind.behindFor(object, kind)
	if behindFor < writesVisibleTimeout {
		return errBehind
	}
	logf.FromContext(ctx).Info("the cache does not show earlier writes, reading from the API server",
		"behindFor", behindFor, "kind", kind)
	return read(ctx, r.APIReader)
}
