package keys

import (
	"context"
	"errors"
	"net/url"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

var secretName = types.NamespacedName{Namespace: "system", Name: SecretName}

// kept is a keeper with an API server of its own.
type kept struct {
	*Keeper
	client client.Client
	gets   atomic.Int32
	writes atomic.Int32
	// fails, when set, is what requests fail with.
	fails atomic.Pointer[error]
}

func newKept() *kept {
	k := &kept{}
	fail := func() error {
		if err := k.fails.Load(); err != nil {
			return *err
		}
		return nil
	}
	k.client = fake.NewClientBuilder().WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, o ...client.GetOption) error {
			k.gets.Add(1)
			return errors.Join(fail(), c.Get(ctx, key, obj, o...))
		},
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, o ...client.CreateOption) error {
			k.writes.Add(1)
			return c.Create(ctx, obj, o...)
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, o ...client.UpdateOption) error {
			k.writes.Add(1)
			return c.Update(ctx, obj, o...)
		},
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "", errors.New("nobody lists Secrets"))
		},
	}).Build()
	k.Keeper = NewKeeper(k.client, secretName, clock.RealClock{})
	return k
}

// run starts it, within a bubble of time, and returns what ends it.
func (k *kept) run(t *testing.T) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Start(ctx) }()
	<-k.Tried()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func (k *kept) changed() bool {
	select {
	case <-k.Changes():
		return true
	default:
		return false
	}
}

func TestKeysAreMadeOnceAndFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept()
		end := k.run(t)
		first := k.Ring()
		if len(first) != 1 || k.writes.Load() != 1 || !k.changed() {
			t.Fatalf("%d keys, %d writes", len(first), k.writes.Load())
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if gets := k.gets.Load(); k.writes.Load() != 1 || k.changed() || gets < 130 || gets > 165 {
			t.Errorf("in a day it reads %d times and writes %d times", gets, k.writes.Load()-1)
		}

		// Another leader's.
		other := newKept()
		other.Keeper = NewKeeper(k.client, secretName, clock.RealClock{})
		endOther := other.run(t)
		if other.Ring().Encode() != first.Encode() || k.writes.Load() != 1 {
			t.Error("another leader has other keys")
		}
		endOther()

		// A Secret that is deleted is how keys are replaced at once.
		if err := k.client.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: SecretName}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(readEvery + readEvery/10)
		synctest.Wait()
		if second := k.Ring(); len(second) != 1 || second.Encode() == first.Encode() || !k.changed() {
			t.Error("there are no new keys")
		}

		time.Sleep(Period + time.Hour)
		synctest.Wait()
		if len(k.Ring()) != 2 || !k.changed() {
			t.Errorf("%d keys after %s", len(k.Ring()), Period)
		}
		time.Sleep(Overlap)
		synctest.Wait()
		if len(k.Ring()) != 1 || !k.changed() || k.writes.Load() != 4 {
			t.Errorf("%d keys after a week more, with %d writes", len(k.Ring()), k.writes.Load())
		}
		end()
	})
}

func TestKeysThatCannotBeReadAreTriedAgainAndNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept()
		refused := error(apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, SecretName, errors.New("no role")))
		k.fails.Store(&refused)
		end := k.run(t)
		if len(k.Ring()) != 0 || k.writes.Load() != 0 {
			t.Errorf("%d keys, %d writes", len(k.Ring()), k.writes.Load())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if gets := k.gets.Load(); gets < 50 || gets > 80 {
			t.Errorf("in an hour it tries %d times", gets)
		}
		k.fails.Store(nil)
		time.Sleep(2 * longestRetry)
		synctest.Wait()
		ring := k.Ring()
		if len(ring) != 1 || !k.changed() {
			t.Errorf("%d keys when it may", len(ring))
		}

		// What somebody wrote is not replaced, and what was read of it before is used on.
		secret := &corev1.Secret{}
		if err := k.client.Get(t.Context(), secretName, secret); err != nil {
			t.Fatal(err)
		}
		good := secret.Data
		secret.Data = map[string][]byte{secretKey: []byte("nonsense")}
		if err := k.client.Update(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		writes := k.writes.Load()
		time.Sleep(time.Hour)
		synctest.Wait()
		if k.Ring().Encode() != ring.Encode() || k.writes.Load() != writes || k.changed() {
			t.Errorf("%d keys, %d writes", len(k.Ring()), k.writes.Load()-writes)
		}
		secret.Data = good
		if err := k.client.Update(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if k.Ring().Encode() != ring.Encode() {
			t.Error("other keys when it can be read again")
		}
		end()
	})
}

// Without keys no parser can be asked: an outage of the API server is not to last longer for it.
func TestKeysAreReadSoonAfterAnOutage(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, 100 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			k := newKept()
			away := error(&url.Error{Op: "Get", URL: "https://10.96.0.1", Err: syscall.ECONNREFUSED})
			k.fails.Store(&away)
			end := k.run(t)
			time.Sleep(outage)
			k.fails.Store(nil)
			time.Sleep(longestAway * 11 / 10)
			synctest.Wait()
			if len(k.Ring()) != 1 {
				t.Errorf("no keys %s after an outage of %s", longestAway, outage)
			}
			end()
		})
	}
}

// Two that find none make one Secret: the one that is late takes the other's.
func TestTwoLeadersEndUpWithTheSameKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept()
		other := newKept()
		other.Keeper = NewKeeper(racing{k.client, k}, secretName, clock.RealClock{})
		end := other.run(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		if other.Ring().Encode() != k.Ring().Encode() || len(k.Ring()) != 1 {
			t.Errorf("%d and %d keys, not the same", len(k.Ring()), len(other.Ring()))
		}
		end()
	})
}

// racing lets another keeper in just before this one creates.
type racing struct {
	client.Client
	first *kept
}

func (r racing) Create(ctx context.Context, obj client.Object, options ...client.CreateOption) error {
	if err := r.first.look(ctx, 0); err != nil {
		return err
	}
	return r.Client.Create(ctx, obj, options...)
}

func TestASecretHasAName(t *testing.T) {
	if err := Check(secretName); err != nil {
		t.Error(err)
	}
	if Check(types.NamespacedName{Name: "x"}) == nil || Check(types.NamespacedName{Namespace: "x"}) == nil {
		t.Error("half a name is enough")
	}
}
