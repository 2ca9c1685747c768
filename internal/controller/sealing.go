package controller

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/status"
)

// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;update;delete

// observeAccess reads the published keys, chooses the key for polls of the object's parsers, and reads their
// NetworkPolicy.
func (r *Reconciler) observeAccess(ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet) error {
	if f.Access.Keys != nil {
		f.Access.Published = keys.ParsePublished(f.Access.Keys.Data[podspec.OperatorsFile])
	}
	f.Access.Operator, f.Access.KeyDue = r.Keys.Ring().Use(f.Now, f.Access.Published)
	policy := &networkingv1.NetworkPolicy{}
	err := r.get(ctx, client.ObjectKey{Namespace: obj.Namespace, Name: podspec.NetworkPolicyName(obj.Name)}, policy)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("getting NetworkPolicy %s/%s: %w", obj.Namespace, podspec.NetworkPolicyName(obj.Name), err)
	}
	f.Access.Policy = policy
	return nil
}

// endpoint returns the address of a target's parser and how to poll it. The pod's template determines whether the
// parser seals its reports.
func (r *Reconciler) endpoint(
	obj *v1alpha1.HyperliquidParser, f *observed.Fleet, target string, pod *corev1.Pod,
) poller.Endpoint {
	lost, gap := status.AcknowledgedLosses(obj, target, f.Now)
	return poller.Endpoint{
		Target: target, PodName: pod.Name, IP: pod.Status.PodIP, Pod: podState(obj, f, pod),
		Started: podspec.Started(pod), Plain: !podspec.Sealed(pod), Key: podspec.PublicKey(pod), Operator: f.Access.Operator,
		AcknowledgedLost: lost, AcknowledgedGap: gap,
	}
}

// ensureAccess publishes the operator's keys to the object's parsers and keeps their NetworkPolicy. A failure blocks no
// pod, because a parser delivers whether or not it is polled.
func (r *Reconciler) ensureAccess(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, t *attempts,
) outcome {
	var published, policy outcome
	r.attempt(ctx, obj, t, theKeys, v1alpha1.ReasonWriteRejected, func() (err error) {
		published, err = r.publishKeys(ctx, obj, f)
		return err
	})
	r.attempt(ctx, obj, t, thePolicy, v1alpha1.ReasonWriteRejected, func() (err error) {
		policy, err = r.ensurePolicy(ctx, obj, f)
		return err
	})
	return published.and(policy)
}

// publishKeys keeps the ConfigMap with the keys by which parsers authenticate the operator.
func (r *Reconciler) publishKeys(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet,
) (outcome, error) {
	ring := r.Keys.Ring()
	if len(ring) == 0 {
		return outcome{}, nil // the keeper logs why, and triggers a reconcile later
	}
	text, _ := ring.Publish(f.Now, f.Access.Published)
	wanted := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name: podspec.OperatorKeysName(obj.Name), Namespace: obj.Namespace,
			Labels: map[string]string{v1alpha1.LabelParser: obj.Name, v1alpha1.LabelComponent: v1alpha1.ComponentKeys},
		},
		Data: map[string]string{podspec.OperatorsFile: text},
	}
	if err := controllerutil.SetControllerReference(obj, wanted, r.Client.Scheme()); err != nil {
		return outcome{}, fmt.Errorf("setting the owner of ConfigMap %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	if f.Access.Keys != nil {
		published := f.Access.Keys
		if maps.Equal(published.Data, wanted.Data) && len(published.BinaryData) == 0 &&
			covers(published.Labels, wanted.Labels) {
			return outcome{requeueAt: f.Access.KeyDue}, nil
		}
		changed := published.DeepCopy()
		changed.Data, changed.BinaryData = wanted.Data, nil
		changed.Labels = merged(changed.Labels, wanted.Labels)
		if err := r.Client.Update(ctx, changed); err != nil {
			return outcome{}, publishError(wanted, err)
		}
		return outcome{}, nil
	}
	err := r.Client.Create(ctx, wanted)
	switch {
	case err == nil, terminating(err):
		return outcome{}, nil
	case !apierrors.IsAlreadyExists(err):
		return outcome{}, publishError(wanted, err)
	}
	there := &corev1.ConfigMap{}
	if err := r.APIReader.Get(ctx, client.ObjectKeyFromObject(wanted), there); err != nil {
		return outcome{}, fmt.Errorf("reading ConfigMap %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	left, err := r.leftBehind(ctx, obj, there)
	switch {
	case err != nil:
		return outcome{}, err
	case left:
		there.Data, there.BinaryData, there.OwnerReferences = wanted.Data, nil, wanted.OwnerReferences
		there.Labels = merged(there.Labels, wanted.Labels)
		if err := r.Client.Update(ctx, there); err != nil {
			return outcome{}, fmt.Errorf("adopting ConfigMap %s/%s: %w", there.Namespace, there.Name, err)
		}
		return outcome{}, nil
	case !metav1.IsControlledBy(there, obj):
		return r.nameTaken("ConfigMap", wanted.Name, "operator's public keys"), nil
	}
	// Without its labels it is not in the cache.
	return outcome{}, r.relabel(ctx, there, v1alpha1.ComponentKeys, obj)
}

func publishError(m *corev1.ConfigMap, err error) error {
	return fmt.Errorf("publishing the operator's keys in ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
}

// nameTaken returns the outcome for an object of another owner that has the name of one of ours.
func (r *Reconciler) nameTaken(kind, name, what string) outcome {
	return outcome{
		problem:   nameTaken(kind, name, what),
		requeueAt: r.retryAt(retryRejected),
	}
}

// ensurePolicy keeps the NetworkPolicy of the object's parsers, or deletes it if there must be none.
func (r *Reconciler) ensurePolicy(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet,
) (outcome, error) {
	there := f.Access.Policy
	if r.Access == nil {
		return outcome{}, r.deletePolicy(ctx, obj, there)
	}
	wanted := podspec.NetworkPolicy(obj, *r.Access)
	if err := controllerutil.SetControllerReference(obj, wanted, r.Client.Scheme()); err != nil {
		return outcome{}, fmt.Errorf("setting the owner of NetworkPolicy %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	if there == nil {
		err := r.Client.Create(ctx, wanted)
		switch {
		case err == nil, terminating(err):
			return outcome{}, nil
		case !apierrors.IsAlreadyExists(err):
			return outcome{}, fmt.Errorf("creating NetworkPolicy %s/%s: %w", wanted.Namespace, wanted.Name, err)
		}
		// It has another owner, or has lost the label without which it is not in the cache.
		there = &networkingv1.NetworkPolicy{}
		if err := r.APIReader.Get(ctx, client.ObjectKeyFromObject(wanted), there); err != nil {
			return outcome{}, fmt.Errorf("reading NetworkPolicy %s/%s: %w", wanted.Namespace, wanted.Name, err)
		}
	}
	left, err := r.leftBehind(ctx, obj, there)
	switch {
	case err != nil:
		return outcome{}, err
	case there.DeletionTimestamp != nil:
		return outcome{requeueAt: r.retryAt(retryTaken)}, nil
	case !left && !metav1.IsControlledBy(there, obj):
		return r.nameTaken("NetworkPolicy", wanted.Name, "parsers' policy"), nil
	case !left && equality.Semantic.DeepEqual(there.Spec, wanted.Spec) && covers(there.Labels, wanted.Labels):
		return outcome{}, nil
	}
	changed := there.DeepCopy()
	changed.Spec, changed.Labels = wanted.Spec, merged(changed.Labels, wanted.Labels)
	if left {
		changed.OwnerReferences = wanted.OwnerReferences
	}
	if err := r.Client.Update(ctx, changed); err != nil {
		return outcome{}, fmt.Errorf("correcting NetworkPolicy %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	return outcome{}, nil
}

// deletePolicy deletes the object's NetworkPolicy, if it exists and the object owns it.
func (r *Reconciler) deletePolicy(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, there *networkingv1.NetworkPolicy,
) error {
	if there == nil || there.DeletionTimestamp != nil || !metav1.IsControlledBy(there, obj) {
		return nil
	}
	logf.FromContext(ctx).Info("deleting the NetworkPolicy because of --network-policies=false",
		"networkPolicy", there.Name)
	if err := r.Client.Delete(ctx, there, client.Preconditions{UID: &there.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting NetworkPolicy %s/%s: %w", there.Namespace, there.Name, err)
	}
	return nil
}

// covers reports whether all of the wanted labels are set. There may be others: backup tools and Argo CD add their own.
func covers(there, wanted map[string]string) bool {
	for k, v := range wanted {
		if there[k] != v {
			return false
		}
	}
	return true
}

func merged(there, wanted map[string]string) map[string]string {
	out := maps.Clone(there)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, wanted)
	return out
}

// keysTimeout bounds how long the controller waits for the operator's keys at its start, so that the keys are published
// before the first pods are created.
const keysTimeout = 15 * time.Second

// awaitKeys is a source of the controller without events. It delays the first reconcile until the keys were read once,
// or the read failed.
func (r *Reconciler) awaitKeys(ctx context.Context, _ workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	select {
	case <-r.Keys.Tried():
	case <-time.After(keysTimeout):
	case <-ctx.Done():
	}
	return nil
}

// wakeAll returns a handler that enqueues every object when the operator's keys change.
func (r *Reconciler) wakeAll() handler.TypedEventHandler[struct{}, reconcile.Request] {
	return handler.TypedFuncs[struct{}, reconcile.Request]{
		GenericFunc: func(ctx context.Context, _ event.TypedGenericEvent[struct{}], q queue) {
			var list v1alpha1.HyperliquidParserList
			err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)
			if err != nil {
				logf.FromContext(ctx).Error(err, "listing HyperliquidParsers for the operator's keys")
				return
			}
			for i := range list.Items {
				q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
			}
		},
	}
}
