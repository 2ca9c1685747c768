package controller

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// patience is how long a read waits for the cache to show what was written before; it does within milliseconds.
//
// It may never: a pod that is marked for deletion and gone while the watch is down is not seen as marked when the watch is back, but is
// just not there any more, and the cache waits for the version of the mark until some other pod changes. Who waits with it makes no pod
// in its place.
const patience = 10 * time.Second

// get reads from the cache what was written before, or else from the API server.
func (r *Reconciler) get(ctx context.Context, key client.ObjectKey, obj client.Object) error {
	return r.read(ctx, func(ctx context.Context, from client.Reader) error { return from.Get(ctx, key, obj) })
}

// list reads from the cache what was written before, or else from the API server.
func (r *Reconciler) list(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	return r.read(ctx, func(ctx context.Context, from client.Reader) error { return from.List(ctx, list, options...) })
}

func (r *Reconciler) read(ctx context.Context, read func(context.Context, client.Reader) error) error {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := read(bounded, r.Client)
	if err == nil || bounded.Err() == nil || ctx.Err() != nil {
		return err
	}
	logf.FromContext(ctx).Info("asking the API server, for the cache does not show what was written", "waited", patience)
	return read(ctx, r.Live)
}
