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

// observeAccess reads with which key the object's parsers are asked, and who may connect to them.
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

// endpoint is where the parser of a target answers, and how it is asked: whether it seals its reports follows from what its pod was made from.
func (r *Reconciler) endpoint(obj *v1alpha1.HyperliquidParser, f *observed.Fleet, target string, pod *corev1.Pod) poller.Endpoint {
	lost, gap := status.AcknowledgedLosses(obj, target, f.Now)
	return poller.Endpoint{
		Target: target, PodName: pod.Name, IP: pod.Status.PodIP, Pod: podState(obj, f, pod),
		Started: podspec.Started(pod), Plain: !podspec.Sealed(pod), Key: podspec.PublicKey(pod), Operator: f.Access.Operator,
		AcknowledgedLost: lost, AcknowledgedGap: gap,
	}
}

// ensureAccess publishes the operator's keys to the object's parsers, and lets nobody else connect to them but whom the flags name. What it
// cannot do holds up no pod: a parser delivers whether anybody asks it or not.
func (r *Reconciler) ensureAccess(ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, t *attempts) outcome {
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

// publishKeys keeps the ConfigMap that parsers know the operator by.
func (r *Reconciler) publishKeys(ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet) (outcome, error) {
	ring := r.Keys.Ring()
	if len(ring) == 0 {
		return outcome{}, nil // the keeper says why, and wakes us
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
		if maps.Equal(f.Access.Keys.Data, wanted.Data) && len(f.Access.Keys.BinaryData) == 0 && covers(f.Access.Keys.Labels, wanted.Labels) {
			return outcome{requeueAt: f.Access.KeyDue}, nil
		}
		changed := f.Access.Keys.DeepCopy()
		changed.Data, changed.BinaryData = wanted.Data, nil
		changed.Labels = merged(changed.Labels, wanted.Labels)
		if err := r.Client.Update(ctx, changed); err != nil {
			return outcome{}, fmt.Errorf("publishing the operator's keys in ConfigMap %s/%s: %w", wanted.Namespace, wanted.Name, err)
		}
		return outcome{}, nil
	}
	err := r.Client.Create(ctx, wanted)
	switch {
	case err == nil, terminating(err):
		return outcome{}, nil
	case !apierrors.IsAlreadyExists(err):
		return outcome{}, fmt.Errorf("publishing the operator's keys in ConfigMap %s/%s: %w", wanted.Namespace, wanted.Name, err)
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
		return r.taken("ConfigMap", wanted.Name, "operator's public keys"), nil
	}
	// It has lost its labels, by which the cache would show it.
	return outcome{}, r.relabel(ctx, there, v1alpha1.ComponentKeys, obj)
}

// taken is what to do about an object of another's that has the name of one of ours.
func (r *Reconciler) taken(kind, name, what string) outcome {
	return outcome{
		problem:   nameTaken(kind, name, what),
		requeueAt: r.retryAt(retryRejected),
	}
}

// ensurePolicy keeps the NetworkPolicy of the object's parsers, or takes it away where there is to be none.
func (r *Reconciler) ensurePolicy(ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet) (outcome, error) {
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
		// It is somebody else's, or has lost the label by which the cache would show it.
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
		return r.taken("NetworkPolicy", wanted.Name, "parsers' policy"), nil
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

// deletePolicy takes the object's NetworkPolicy away, if it is there and ours.
func (r *Reconciler) deletePolicy(ctx context.Context, obj *v1alpha1.HyperliquidParser, there *networkingv1.NetworkPolicy) error {
	if there == nil || there.DeletionTimestamp != nil || !metav1.IsControlledBy(there, obj) {
		return nil
	}
	logf.FromContext(ctx).Info("deleting the network policy, which the flags ask not to have", "networkPolicy", there.Name)
	if err := r.Client.Delete(ctx, there, client.Preconditions{UID: &there.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting NetworkPolicy %s/%s: %w", there.Namespace, there.Name, err)
	}
	return nil
}

// covers reports whether all of the wanted labels are there. Others may be: backup tools and Argo CD add theirs.
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

// firstKeys bounds how long the controller waits for the operator's keys, so that pods that are made at once find them published.
const firstKeys = 15 * time.Second

// awaitKeys is a source of the controller that brings nothing: reconciles begin when the keys were read, or cannot be.
func (r *Reconciler) awaitKeys(ctx context.Context, _ workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	select {
	case <-r.Keys.Tried():
	case <-time.After(firstKeys):
	case <-ctx.Done():
	}
	return nil
}

// wakeAll wakes every object when the operator's keys change.
func (r *Reconciler) wakeAll() handler.TypedEventHandler[struct{}, reconcile.Request] {
	return handler.TypedFuncs[struct{}, reconcile.Request]{
		GenericFunc: func(ctx context.Context, _ event.TypedGenericEvent[struct{}], q queue) {
			var list v1alpha1.HyperliquidParserList
			if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
				logf.FromContext(ctx).Error(err, "listing HyperliquidParsers for the operator's keys")
				return
			}
			for i := range list.Items {
				q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
			}
		},
	}
}
