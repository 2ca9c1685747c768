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

// kept is a Keeper with its own API server.
type kept struct {
	*Keeper
	client client.Client
	gets   atomic.Int32
	writes atomic.Int32
	// fails is the error of requests, if set.
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
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object,
			o ...client.GetOption) error {
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
			return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "", errors.New("Secrets cannot be listed"))
		},
	}).Build()
	k.Keeper = NewKeeper(k.client, secretName, clock.RealClock{})
	return k
}

// run starts the Keeper in a synctest bubble and returns a function that stops it.
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

func TestKeysAreCreatedOnceAndFollowed(t *testing.T) {
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

		// Another leader reads the same keys.
		other := newKept()
		other.Keeper = NewKeeper(k.client, secretName, clock.RealClock{})
		endOther := other.run(t)
		if other.Ring().Encode() != first.Encode() || k.writes.Load() != 1 {
			t.Error("another leader has other keys")
		}
		endOther()

		// A deleted Secret is replaced by one with new keys.
		if err := k.client.Delete(t.Context(),
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: SecretName}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(readInterval + readInterval/10)
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

func TestUnreadableKeysAreRetriedAndNotReplaced(t *testing.T) {
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
		time.Sleep(2 * maxBackoff)
		synctest.Wait()
		ring := k.Ring()
		if len(ring) != 1 || !k.changed() {
			t.Errorf("%d keys when it may", len(ring))
		}

		// An invalid Secret is not replaced, and the last valid ring stays in use.
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

// Without keys no parser can be polled, so an outage of the API server must not last longer for the keys.
func TestKeysAreReadSoonAfterAnOutage(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, 100 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			k := newKept()
			away := error(&url.Error{Op: "Get", URL: "https://10.96.0.1", Err: syscall.ECONNREFUSED})
			k.fails.Store(&away)
			end := k.run(t)
			time.Sleep(outage)
			k.fails.Store(nil)
			time.Sleep(maxBackoffAway * 11 / 10)
			synctest.Wait()
			if len(k.Ring()) != 1 {
				t.Errorf("no keys %s after an outage of %s", maxBackoffAway, outage)
			}
			end()
		})
	}
}

// Two leaders without a Secret create one: the slower one uses the keys of the other.
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

// racing lets another Keeper create the Secret just before this one does.
type racing struct {
	client.Client
	first *kept
}

func (r racing) Create(ctx context.Context, obj client.Object, options ...client.CreateOption) error {
	if err := r.first.sync(ctx, 0); err != nil {
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
