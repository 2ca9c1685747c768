package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var anObject = types.NamespacedName{Namespace: "ns", Name: "a"}

// behind is a cache that never shows earlier writes, unless it has caught up, or fails at once.
type behind struct {
	client.Client
	fails    error
	caughtUp bool
}

func (b *behind) List(ctx context.Context, _ client.ObjectList, _ ...client.ListOption) error {
	if b.fails != nil || b.caughtUp {
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

func TestACacheThatIsBehindHoldsNoWorkerUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := &behind{}
		r := &Reconciler{Client: cache, APIReader: live{}, Behind: NewBehind(clock.RealClock{})}
		var pods corev1.PodList
		// Each reconcile waits for cacheReadTimeout, however long the cache is behind, and is requeued.
		for start := time.Now(); time.Since(start) < writesVisibleTimeout-retryConflict; time.Sleep(retryConflict) {
			began := time.Now()
			if err := r.list(t.Context(), anObject, &pods); !errors.Is(err, errBehind) {
				t.Fatalf("after %s: got %v", time.Since(start), err)
			}
			if waited := time.Since(began); waited != cacheReadTimeout {
				t.Errorf("waited %s", waited)
			}
		}
		// It may never show earlier writes: then reads go to the API server, and immediately from now on.
		time.Sleep(retryConflict)
		for range 2 {
			if err := r.list(t.Context(), anObject, &pods); err != nil || len(pods.Items) != 1 {
				t.Errorf("got %d pods, %v", len(pods.Items), err)
			}
		}
		// Each object, and each kind, has its own timeout.
		if err := r.list(t.Context(), types.NamespacedName{Name: "b"}, &pods); !errors.Is(err, errBehind) {
			t.Errorf("of another object: %v", err)
		}
		if err := r.list(t.Context(), anObject, &corev1.ConfigMapList{}); !errors.Is(err, errBehind) {
			t.Errorf("of another kind: %v", err)
		}
		// Once it has caught up, reads wait for it again.
		cache.caughtUp = true
		if err := r.list(t.Context(), anObject, &pods); err != nil {
			t.Error(err)
		}
		cache.caughtUp = false
		if err := r.list(t.Context(), anObject, &pods); !errors.Is(err, errBehind) {
			t.Errorf("after it had caught up: %v", err)
		}
	})
}

func TestAReconcileThatIsOverReadsNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Reconciler{Client: &behind{}, APIReader: live{}, Behind: NewBehind(clock.RealClock{})}
		ctx, cancel := context.WithTimeout(t.Context(), cacheReadTimeout/2)
		defer cancel()
		var pods corev1.PodList
		if err := r.list(ctx, anObject, &pods); !errors.Is(err, context.DeadlineExceeded) || len(pods.Items) != 0 {
			t.Errorf("got %d pods, %v", len(pods.Items), err)
		}
	})
	broken := errors.New("broken")
	r := &Reconciler{Client: &behind{fails: broken}, APIReader: live{}, Behind: NewBehind(clock.RealClock{})}
	var pods corev1.PodList
	if err := r.list(t.Context(), anObject, &pods); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
