package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// Claims remembers which claims no parser can share. A claim's access modes never change, and it outlives the pod that mounts it. It is
// safe for concurrent use.
type Claims struct {
	mu      sync.Mutex
	refused map[types.NamespacedName]map[string]bool // by object, UIDs of target pods
}

// NewClaims returns a Claims that knows of none.
func NewClaims() *Claims { return &Claims{refused: map[types.NamespacedName]map[string]bool{}} }

// Forget drops what is remembered of an object that is gone.
func (c *Claims) Forget(object types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.refused, object)
}

// checkClaims finds the targets whose claim is ReadWriteOncePod. A parser that asked for it would wait for ever, or get it while the
// Hyperliquid node's pod is replaced and lock that out. The API server is asked once for each parser that is made, not for those that run.
func (r *Reconciler) checkClaims(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) error {
	key := client.ObjectKeyFromObject(obj)
	r.Claims.mu.Lock()
	before := r.Claims.refused[key]
	r.Claims.mu.Unlock()
	refused := map[string]bool{}
	for i := range s.targets {
		t := &s.targets[i]
		if t.Claim == "" || s.pairs[i].pod != nil {
			continue
		}
		if !before[t.UID] {
			alone, err := r.readWriteOncePod(ctx, obj.Namespace, t.Claim)
			if err != nil {
				return err
			}
			if !alone {
				continue
			}
		}
		refused[t.UID] = true
		t.Node, t.Waits = "", target.NotShareable
	}
	if len(refused) > 0 {
		s.pair(obj.Name)
	}
	if !maps.Equal(before, refused) {
		r.Claims.mu.Lock()
		r.Claims.refused[key] = refused
		r.Claims.mu.Unlock()
	}
	return nil
}

func (r *Reconciler) readWriteOncePod(ctx context.Context, namespace, name string) (bool, error) {
	var claim corev1.PersistentVolumeClaim
	if err := r.Live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &claim); err != nil {
		if apierrors.IsNotFound(err) {
			return false, nil // the scheduler waits for it, and says so
		}
		return false, fmt.Errorf("looking at PersistentVolumeClaim %s/%s: %w", namespace, name, err)
	}
	return slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod), nil
}
