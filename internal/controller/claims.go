package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
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
	// claimsAtOnce bounds the claims of one question: what is known of them is of use before all are.
	claimsAtOnce = 100
	// retryClaims is how soon claims that could not be read are asked for again; it doubles with each failure up to
	// longestWait.
	retryClaims = 5 * time.Second
)

// Claims remembers which claims parsers can share. A claim's access modes never change, and it outlives the pod that mounts it. It is
// safe for concurrent use.
type Claims struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]*claims
}

// claims are what is known of an object's.
type claims struct {
	alone map[string]bool // by UID of target pods: whether their claim is for one pod alone
	retry time.Time       // not to be asked before; zero: at once
	why   *undone         // they could not be read lately; nil when they could
	tries int             // in a row that failed
}

// NewClaims returns a Claims that knows of none.
func NewClaims() *Claims { return &Claims{objects: map[types.NamespacedName]*claims{}} }

// Forget drops what is remembered of an object that is gone.
func (c *Claims) Forget(object types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.objects, object)
}

// known returns what is known of the claims of target pods, drops what is known of others, and returns when the rest
// may be asked for, and why it could not be read lately.
func (c *Claims) known(
	object types.NamespacedName, uids map[string]bool,
) (alone map[string]bool, retry time.Time, why *undone) {
	c.mu.Lock()
	defer c.mu.Unlock()
	is := c.objects[object]
	if is == nil {
		return nil, time.Time{}, nil
	}
	maps.DeleteFunc(is.alone, func(uid string, _ bool) bool { return !uids[uid] })
	return maps.Clone(is.alone), is.retry, is.why
}

// saw keeps an answer, which may have ended with an error.
func (c *Claims) saw(object types.NamespacedName, alone map[string]bool, err error, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	is := c.objects[object]
	if is == nil {
		is = &claims{alone: map[string]bool{}}
		c.objects[object] = is
	}
	maps.Copy(is.alone, alone)
	if err == nil {
		is.retry, is.why, is.tries = time.Time{}, nil, 0
		return
	}
	if is.why == nil {
		is.why = &undone{
			what: "claims", reason: v1alpha1.ReasonWriteFailing, words: prose.Ends(err.Error(), maxWords), since: now,
		}
	}
	wait := retryClaims
	for range is.tries {
		wait = min(2*wait, longestWait)
	}
	is.tries++
	is.retry = now.Add(fair.Jittered(wait))
}

// checkClaims finds the targets whose claim is ReadWriteOncePod. A parser that asked for it would wait for ever, or get it while the
// Hyperliquid node's pod is replaced and lock that out. The API server is asked once for each parser that is made, not for those that run,
// and in the background: until it has answered, the target waits.
func (r *Reconciler) checkClaims(obj *v1alpha1.HyperliquidParser, f *observed.Fleet, t *attempts) {
	key := client.ObjectKeyFromObject(obj)
	uids := map[string]bool{}
	for i, of := range f.Targets {
		if of.Claim != "" && f.Pairs[i].Pod == nil {
			uids[of.UID] = true
		}
	}
	alone, retry, why := r.Claims.known(key, uids)
	ask := map[string]string{} // claims by UID of their pods
	refused := false
	for i := range f.Targets {
		of := &f.Targets[i]
		if !uids[of.UID] {
			continue
		}
		switch a, known := alone[of.UID]; {
		case !known:
			if len(ask) < claimsAtOnce {
				ask[of.UID] = of.Claim
			}
			of.Waits = target.ClaimUnseen
		case a:
			refused = true
			of.Node, of.Waits = "", target.NotShareable
		}
	}
	if refused {
		f.Pairs = observed.PairPods(obj.Name, f.Targets, f.Pods)
	}
	if len(ask) > 0 && why != nil {
		t.unread = append(t.unread, *why)
	}
	switch {
	case len(ask) == 0:
	case f.Now.Before(retry):
		f.RecheckAt = earlier(f.RecheckAt, retry)
	default:
		r.Background.ask(key, "claims", func(ctx context.Context) { r.askForClaims(ctx, key, ask) })
	}
}

// askForClaims reads claims of an object's targets, and keeps what they are.
func (r *Reconciler) askForClaims(ctx context.Context, object types.NamespacedName, claims map[string]string) {
	alone := make(map[string]bool, len(claims))
	var failed error
	for uid, name := range claims {
		is, err := r.readWriteOncePod(ctx, object.Namespace, name)
		if err != nil {
			logf.FromContext(ctx).Error(err, "reading the claims of target pods")
			failed = err
			break
		}
		alone[uid] = is
	}
	r.Claims.saw(object, alone, failed, r.Clock.Now())
}

func (r *Reconciler) readWriteOncePod(ctx context.Context, namespace, name string) (bool, error) {
	var claim corev1.PersistentVolumeClaim
	if err := r.APIReader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &claim); err != nil {
		if apierrors.IsNotFound(err) {
			return false, nil // the scheduler waits for it, and says so
		}
		return false, fmt.Errorf("reading PersistentVolumeClaim %s/%s: %w", namespace, name, err)
	}
	return slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod), nil
}
