package keys

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

const (
	// SecretName is the name of the Secret, unless a flag says another.
	SecretName = "hyperliquid-parser-operator-keys"
	// secretKey is the entry of the Secret that holds the ring.
	secretKey = "keys"
	// readEvery is how often the Secret is read again: somebody may have replaced it.
	readEvery = 10 * time.Minute
	// jitter is the share of itself by which a wait may be longer.
	jitter = 0.1
	// requestTime bounds one look at the Secret.
	requestTime = 10 * time.Second
	// firstRetry and longestRetry bound the time between two looks that failed, longestAway where the API server is away:
	// without keys no parser can be asked, so they are looked for soon after its return.
	firstRetry, longestRetry, longestAway = time.Second, time.Minute, 4 * time.Second
)

// Keeper keeps the ring in a Secret. It is a manager.Runnable that runs on the leader only, and safe for concurrent use.
type Keeper struct {
	// client has no cache: the operator may neither list nor watch Secrets.
	client client.Client
	secret types.NamespacedName
	clock  clock.Clock

	changes chan event.TypedGenericEvent[struct{}]
	tried   chan struct{} // closed after the first look

	mu   sync.Mutex
	ring Ring
}

// NewKeeper returns a keeper that does nothing until it is started. The client must not read from a cache.
func NewKeeper(uncached client.Client, secret types.NamespacedName, timer clock.Clock) *Keeper {
	return &Keeper{
		client: uncached, secret: secret, clock: timer,
		changes: make(chan event.TypedGenericEvent[struct{}], 1), tried: make(chan struct{}),
	}
}

// NeedLeaderElection is true: one operator makes keys.
func (k *Keeper) NeedLeaderElection() bool { return true }

// Changes says that the ring is another, which concerns every object.
func (k *Keeper) Changes() <-chan event.TypedGenericEvent[struct{}] { return k.changes }

// Tried is closed once the Secret was read for the first time, or could not be.
func (k *Keeper) Tried() <-chan struct{} { return k.tried }

// Ring returns the key pairs; empty while the Secret could not be read.
func (k *Keeper) Ring() Ring {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ring
}

// Start reads the Secret, makes it where it is missing, and replaces keys as they age, until the context ends.
func (k *Keeper) Start(ctx context.Context) error {
	log := logf.FromContext(ctx).WithName("keys").WithValues("secret", k.secret)
	began := k.clock.Now()
	retry := firstRetry
	for first := true; ctx.Err() == nil; first = false {
		pause := wait.Jitter(readEvery, jitter)
		err := k.look(ctx, k.clock.Since(began))
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			log.Error(err, "the operator's keys cannot be read: without them parsers cannot be asked for their reports")
			longest := longestRetry
			if informers.Away(err) {
				longest = longestAway
			}
			pause, retry = wait.Jitter(min(retry, longest), jitter), min(2*retry, longest)
		default:
			retry = firstRetry
		}
		if first {
			close(k.tried)
		}
		timer := k.clock.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C():
		}
		timer.Stop()
	}
	return nil
}

// look brings the Secret and the ring to where they should be now.
func (k *Keeper) look(ctx context.Context, led time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	secret := &corev1.Secret{}
	var ring Ring
	err := k.client.Get(ctx, k.secret, secret)
	switch {
	case apierrors.IsNotFound(err):
		secret = nil
	case err != nil:
		return fmt.Errorf("getting Secret %s: %w", k.secret, err)
	default:
		if ring, err = OfSecret(secret); err != nil {
			return fmt.Errorf("reading Secret %s, which to delete makes new keys: %w", k.secret, err)
		}
	}
	next, changed, err := ring.Next(k.clock.Now().Truncate(time.Second), led, seal.NewKey)
	if err != nil {
		return err
	}
	if changed {
		if err := k.write(ctx, secret, next); err != nil {
			return err
		}
	}
	k.take(next)
	return nil
}

// write stores a ring. A conflict means that another leader was faster, and is looked at again.
func (k *Keeper) write(ctx context.Context, secret *corev1.Secret, ring Ring) error {
	wanted := ring.Secret(k.secret)
	if secret != nil {
		secret.Data = wanted.Data
		if err := k.client.Update(ctx, secret); err != nil {
			return fmt.Errorf("updating Secret %s: %w", k.secret, err)
		}
		return nil
	}
	if err := k.client.Create(ctx, wanted); err != nil {
		return fmt.Errorf("creating Secret %s: %w", k.secret, err)
	}
	return nil
}

// Secret returns the object that holds the ring.
func (r Ring) Secret(name types.NamespacedName) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: name.Name, Namespace: name.Namespace, Labels: map[string]string{"app.kubernetes.io/name": "hyperliquid-parser-operator"},
		},
		Data: map[string][]byte{secretKey: []byte(r.Encode())},
	}
}

// OfSecret reads the ring that a Secret holds.
func OfSecret(secret *corev1.Secret) (Ring, error) { return Decode(string(secret.Data[secretKey])) }

// take makes a ring the one to use, and says so if it is another.
func (k *Keeper) take(ring Ring) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ring.Encode() == k.ring.Encode() {
		return
	}
	k.ring = ring
	select {
	case k.changes <- event.TypedGenericEvent[struct{}]{}:
	default: // it is still to be heard of
	}
}

// Check reports whether a Secret's name can be one.
func Check(secret types.NamespacedName) error {
	if secret.Namespace == "" || secret.Name == "" {
		return errors.New("the Secret of the operator's keys has no namespace or no name")
	}
	return nil
}
