package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/fair"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

const (
	// claimsPerRead bounds the claims of one background read, so the first results are available before all are read.
	claimsPerRead = 100
	// claimsBackoff is the first delay before a failed read of claims is retried. It doubles with each failure up to
	// maxBackoff.
	claimsBackoff = 5 * time.Second
)

// Claims caches which claims parsers can share. The cache stays valid because a claim's access modes never change and
// the claim outlives the pod that mounts it. It is safe for concurrent use.
type Claims struct{ perObject[*claims] }

// claims are the claims of one object's targets.
type claims struct {
	exclusive map[string]bool // whether only one pod can mount the claim, by UID of the target pod
	retryAt   time.Time       // of the next read; zero: now
	failure   *failure        // of the last read; nil if it succeeded
	failures  int             // consecutive failed reads
}

// NewClaims returns an empty Claims.
func NewClaims() *Claims { return &Claims{} }

// known returns the known claims of target pods, when the others may be read, and the failure of the last read, if any.
// It drops the claims of other pods.
func (c *Claims) known(
	object types.NamespacedName, uids map[string]bool,
) (exclusive map[string]bool, retryAt time.Time, failed *failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	is := c.objects[object]
	if is == nil {
		return nil, time.Time{}, nil
	}
	maps.DeleteFunc(is.exclusive, func(uid string, _ bool) bool { return !uids[uid] })
	return maps.Clone(is.exclusive), is.retryAt, is.failure
}

// record stores the result of a read, which may have ended with an error.
func (c *Claims) record(object types.NamespacedName, exclusive map[string]bool, err error, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	is := c.objects[object]
	if is == nil {
		is = &claims{exclusive: map[string]bool{}}
		c.set(object, is)
	}
	maps.Copy(is.exclusive, exclusive)
	if err == nil {
		is.retryAt, is.failure, is.failures = time.Time{}, nil, 0
		return
	}
	if is.failure == nil {
		is.failure = &failure{
			operation: "claims", reason: v1alpha1.ReasonWriteFailing,
			message: prose.Ends(err.Error(), maxRefusalMessage), since: now,
		}
	}
	wait := claimsBackoff
	for range is.failures {
		wait = min(2*wait, maxBackoff)
	}
	is.failures++
	is.retryAt = now.Add(fair.Jittered(wait))
}

// checkClaims finds the targets whose claim is ReadWriteOncePod. A parser that mounted it would wait forever, or would
// get it while the Hyperliquid node's pod is replaced and lock that pod out. The claims are read in the background,
// once for each parser that is created and never for one that runs. The target waits until the claim is known.
func (r *Reconciler) checkClaims(obj *v1alpha1.HyperliquidParser, f *observed.Fleet, t *attempts) {
	key := client.ObjectKeyFromObject(obj)
	uids := map[string]bool{}
	for i, one := range f.Targets {
		if one.Claim != "" && f.Pairs[i].Pod == nil {
			uids[one.UID] = true
		}
	}
	exclusive, retryAt, failed := r.Claims.known(key, uids)
	unknown := map[string]string{} // claims by UID of their pods
	refused := false
	for i := range f.Targets {
		one := &f.Targets[i]
		if !uids[one.UID] {
			continue
		}
		switch e, known := exclusive[one.UID]; {
		case !known:
			if len(unknown) < claimsPerRead {
				unknown[one.UID] = one.Claim
			}
			one.Waits = target.ClaimUnseen
		case e:
			refused = true
			one.Node, one.Waits = "", target.NotShareable
		}
	}
	if refused {
		f.Pairs = observed.PairPods(obj.Name, f.Targets, f.Pods)
	}
	if len(unknown) > 0 && failed != nil {
		t.unread = append(t.unread, *failed)
	}
	switch {
	case len(unknown) == 0:
	case f.Now.Before(retryAt):
		f.RecheckAt = earlier(f.RecheckAt, retryAt)
	default:
		r.Background.run(key, "claims", func(ctx context.Context) { r.readClaims(ctx, key, unknown) })
	}
}

// readClaims reads claims of an object's targets and stores the result.
func (r *Reconciler) readClaims(ctx context.Context, object types.NamespacedName, claims map[string]string) {
	exclusive := make(map[string]bool, len(claims))
	var failed error
	for uid, name := range claims {
		is, err := r.readWriteOncePod(ctx, object.Namespace, name)
		if err != nil {
			logf.FromContext(ctx).Error(err, "reading the claims of target pods")
			failed = err
			break
		}
		exclusive[uid] = is
	}
	r.Claims.record(object, exclusive, failed, r.Clock.Now())
}

func (r *Reconciler) readWriteOncePod(ctx context.Context, namespace, name string) (bool, error) {
	var claim corev1.PersistentVolumeClaim
	if err := r.APIReader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &claim); err != nil {
		if apierrors.IsNotFound(err) {
			return false, nil // the scheduler waits for it and reports that
		}
		return false, fmt.Errorf("reading PersistentVolumeClaim %s/%s: %w", namespace, name, err)
	}
	return slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod), nil
}
