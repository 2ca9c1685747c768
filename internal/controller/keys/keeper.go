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
	// SecretName is the default name of the Secret.
	SecretName = "hyperliquid-parser-operator-keys"
	// secretKey is the entry of the Secret that holds the ring.
	secretKey = "keys"
	// readInterval is the interval between reads of the Secret, which another client may have replaced.
	readInterval = 10 * time.Minute
	// jitter is the share by which an interval may be longer.
	jitter = 0.1
	// syncTimeout bounds one read of the Secret and the write that may follow.
	syncTimeout = 10 * time.Second
	// minBackoff and maxBackoff bound the time between failed attempts. maxBackoffAway replaces maxBackoff while the API
	// server is unreachable: no parser can be polled without keys, so the Secret is read soon after the API server's
	// return.
	minBackoff, maxBackoff, maxBackoffAway = time.Second, time.Minute, 4 * time.Second
)

// Keeper keeps the ring in a Secret. It is a manager.Runnable that runs only on the leader, and it is safe for
// concurrent use.
type Keeper struct {
	// client does not cache: the operator may neither list nor watch Secrets.
	client client.Client
	secret types.NamespacedName
	clock  clock.Clock

	changes chan event.TypedGenericEvent[struct{}]
	tried   chan struct{} // closed after the first attempt

	mu   sync.Mutex
	ring Ring
}

// NewKeeper returns a Keeper. It does nothing until it is started. The client must not read from a cache.
func NewKeeper(uncached client.Client, secret types.NamespacedName, timer clock.Clock) *Keeper {
	return &Keeper{
		client: uncached, secret: secret, clock: timer,
		changes: make(chan event.TypedGenericEvent[struct{}], 1), tried: make(chan struct{}),
	}
}

// NeedLeaderElection is true because only one operator creates keys.
func (k *Keeper) NeedLeaderElection() bool { return true }

// Changes returns a channel with an event for each change of the ring, which concerns every object. Changes may be
// coalesced.
func (k *Keeper) Changes() <-chan event.TypedGenericEvent[struct{}] { return k.changes }

// Tried returns a channel that is closed after the first attempt to read the Secret, whether or not it succeeded.
func (k *Keeper) Tried() <-chan struct{} { return k.tried }

// Ring returns the key pairs. It is empty until the Secret was read.
func (k *Keeper) Ring() Ring {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ring
}

// Start reads the Secret, creates it if it does not exist, and replaces keys as they age, until the context ends.
func (k *Keeper) Start(ctx context.Context) error {
	log := logf.FromContext(ctx).WithName("keys").WithValues("secret", k.secret)
	start := k.clock.Now()
	backoff := minBackoff
	for first := true; ctx.Err() == nil; first = false {
		pause := wait.Jitter(readInterval, jitter)
		err := k.sync(ctx, k.clock.Since(start))
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			log.Error(err, "the operator's keys are not available, so no parser can be polled")
			longest := maxBackoff
			if informers.IsUnreachable(err) {
				longest = maxBackoffAway
			}
			pause, backoff = wait.Jitter(min(backoff, longest), jitter), min(2*backoff, longest)
		default:
			backoff = minBackoff
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

// sync brings the Secret and the ring up to date. led is how long this process has been the leader.
func (k *Keeper) sync(ctx context.Context, led time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
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
			return fmt.Errorf("decoding Secret %s, whose deletion creates new keys: %w", k.secret, err)
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
	k.use(next)
	return nil
}

// write stores a ring. A conflict means that another leader has written first; the next attempt reads its ring.
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

// Secret returns a Secret that holds the ring.
func (r Ring) Secret(name types.NamespacedName) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: name.Name, Namespace: name.Namespace,
			Labels: map[string]string{"app.kubernetes.io/name": "hyperliquid-parser-operator"},
		},
		Data: map[string][]byte{secretKey: []byte(r.Encode())},
	}
}

// OfSecret decodes the ring that a Secret holds.
func OfSecret(secret *corev1.Secret) (Ring, error) { return Decode(string(secret.Data[secretKey])) }

// use sets the ring, and sends an event if it has changed.
func (k *Keeper) use(ring Ring) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ring.Encode() == k.ring.Encode() {
		return
	}
	k.ring = ring
	select {
	case k.changes <- event.TypedGenericEvent[struct{}]{}:
	default: // an event is pending
	}
}

// Check returns an error if the name of a Secret is incomplete.
func Check(secret types.NamespacedName) error {
	if secret.Namespace == "" || secret.Name == "" {
		return errors.New("the Secret of the operator's keys has no namespace or no name")
	}
	return nil
}
