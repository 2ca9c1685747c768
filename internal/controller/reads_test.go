package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// behind is a cache that never shows what was written, or fails at once.
type behind struct {
	client.Client
	fails error
}

func (b behind) List(ctx context.Context, _ client.ObjectList, _ ...client.ListOption) error {
	if b.fails != nil {
		return b.fails
	}
	<-ctx.Done()
	return fmt.Errorf("waiting for the cache: %w", ctx.Err())
}

// live is an API server with one pod.
type live struct{ client.Reader }

func (live) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	list.(*corev1.PodList).Items = make([]corev1.Pod, 1)
	return nil
}

func TestACacheThatNeverCatchesUpIsNotWaitedForForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Reconciler{Client: behind{}, Live: live{}}
		var pods corev1.PodList
		start := time.Now()
		if err := r.list(t.Context(), &pods); err != nil || len(pods.Items) != 1 {
			t.Errorf("got %d pods, %v", len(pods.Items), err)
		}
		if waited := time.Since(start); waited != patience {
			t.Errorf("waited %s", waited)
		}
	})
}

func TestAReconcileThatIsOverAsksNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Reconciler{Client: behind{}, Live: live{}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var pods corev1.PodList
		if err := r.list(ctx, &pods); !errors.Is(err, context.DeadlineExceeded) || len(pods.Items) != 0 {
			t.Errorf("got %d pods, %v", len(pods.Items), err)
		}
	})
	broken := errors.New("broken")
	r := &Reconciler{Client: behind{fails: broken}, Live: live{}}
	var pods corev1.PodList
	if err := r.list(t.Context(), &pods); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
