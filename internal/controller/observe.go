package controller

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// observe reads the object's fleet. Only this step fills the fleet; the functions that it calls each fill a part.
func (r *Reconciler) observe(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, t *attempts,
) (*observed.Fleet, error) {
	f := &observed.Fleet{Now: r.Clock.Now()}
	if err := r.observeSpec(ctx, obj, f); err != nil || f.Unsynced != nil {
		return f, err
	}
	if err := r.observeOwned(ctx, obj, f, t); err != nil {
		return nil, err
	}
	key := client.ObjectKeyFromObject(obj)
	if f.Known { // otherwise the history stays as it is
		f.Ages = r.history.Observe(key, f)
	}
	if err := r.observeAccess(ctx, obj, f); err != nil {
		return nil, err
	}
	shareClaims(obj.Name, f)
	r.checkClaims(obj, f, t)
	if f.Problem == nil {
		if err := r.checkSharing(ctx, obj, f); err != nil {
			return nil, err
		}
	}
	r.askForWarnings(obj, f)
	f.Views = r.Poller.Track(key, growthSettings(obj, len(f.Targets)), r.endpoints(obj, f))
	r.waits.observe(key, f)
	return f, nil
}

// observeSpec reads which targets the spec asks for, and checks whether it can be carried out.
func (r *Reconciler) observeSpec(ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet) error {
	if err := r.observeTargets(ctx, obj, f); err != nil || f.Problem != nil || f.Unsynced != nil {
		return err
	}
	f.Problem = r.Bounds.check(obj)
	if f.Problem == nil {
		f.Problem = statePathProblem(obj)
	}
	return nil
}

// observeTargets reads what the spec selects. Problem is why that cannot be known.
func (r *Reconciler) observeTargets(ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet) error {
	selectNodes, selectPods, err := selections(obj)
	if err != nil {
		f.Problem = &problem{Reason: v1alpha1.ReasonSpecInvalid, Message: err.Error()}
		return nil
	}
	var nodes corev1.NodeList
	// Not copied: nodes are many, and are only read.
	err = r.Client.List(ctx, &nodes, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	f.ReadyNodes = make(map[string]bool, len(nodes.Items))
	for i := range nodes.Items {
		if target.Ready(&nodes.Items[i]) {
			f.ReadyNodes[nodes.Items[i].Name] = true
		}
	}
	if selectNodes != nil {
		r.Pods.Forget(client.ObjectKeyFromObject(obj)) // an earlier object of this name may have selected pods
		f.Targets, f.Known = selectNodes.Targets(nodes.Items), true
		if len(f.Targets) == 0 {
			f.Excluded = selectNodes.LeftOut(nodes.Items)
		}
		return nil
	}
	pods, unsynced := r.Pods.List(client.ObjectKeyFromObject(obj), selectPods.Selector())
	if unsynced != nil {
		f.Unsynced = unsynced
		return nil
	}
	f.Targets, f.Known = selectPods.Targets(pods, nodes.Items), true
	if len(f.Targets) == 0 {
		f.Excluded = selectPods.LeftOut(pods, nodes.Items)
	}
	return nil
}

// selections returns the one of the two that the object asks for.
func selections(obj *v1alpha1.HyperliquidParser) (*target.Nodes, *target.Pods, error) {
	affinity, tolerations := obj.Spec.Affinity, target.Tolerations(obj.Spec.Tolerations)
	switch spec := obj.Spec.Target; {
	case spec.Nodes != nil:
		nodes, err := target.NewNodes(spec.Nodes.Selector, affinity, tolerations)
		return &nodes, nil, err
	case spec.Pods != nil:
		pods, err := target.NewPods(spec.Pods.Selector, spec.Pods.Volume, affinity, tolerations)
		return nil, &pods, err
	}
	return nil, nil, errors.New("spec.target is empty: set nodes or pods")
}

// statePathProblem returns the problem of a change of statePath that is not acknowledged; nil for none. Admission
// cannot check it: the CEL rules of a CRD cannot read annotations.
func statePathProblem(obj *v1alpha1.HyperliquidParser) *problem {
	wanted, used := podspec.StateLocation(obj), obj.Status.StatePath
	if used == "" || used == wanted || path.Clean(obj.Annotations[v1alpha1.AnnotationAcceptStatePath]) == wanted {
		return nil
	}
	field := "nodes.statePath"
	if obj.Spec.Target.Pods != nil {
		field = "pods.stateSubPath"
		if path.IsAbs(wanted) || path.IsAbs(used) {
			field = "pods.stateClaimName with stateSubPath"
		}
	}
	return &problem{Reason: v1alpha1.ReasonStatePathChanged, Message: fmt.Sprintf(
		"spec.target.%s was %s: below %s parsers would find no checkpoint and start over; revert it, "+
			"or annotate the object with %s=%s",
		field, used, wanted, v1alpha1.AnnotationAcceptStatePath, wanted)}
}

// observeOwned reads the pods, revisions and ConfigMaps that the object controls, and adopts those that an earlier
// object left behind.
func (r *Reconciler) observeOwned(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, t *attempts,
) error {
	labeled := client.MatchingLabels{v1alpha1.LabelParser: obj.Name}
	var pods corev1.PodList
	// Not copied: pods are many, and are only read.
	if err := r.list(
		ctx, client.ObjectKeyFromObject(obj), &pods, client.InNamespace(obj.Namespace), labeled, client.UnsafeDisableDeepCopy,
	); err != nil {
		return fmt.Errorf("listing pods of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
	}
	f.Pods = pods.Items[:0] // a pod is a kilobyte
	var orphans []corev1.Pod
	for i := range pods.Items {
		switch pod := &pods.Items[i]; {
		case metav1.IsControlledBy(pod, obj):
			f.Pods = append(f.Pods, *pod)
		case abandonedPod(obj, pod):
			orphans = append(orphans, *pod)
		}
	}
	f.Pods = append(f.Pods, r.adoptPods(ctx, obj, t, orphans)...)
	f.Pairs = observed.PairPods(obj.Name, f.Targets, f.Pods)
	if err := r.observeRevisions(ctx, obj, f, t); err != nil {
		return err
	}
	var maps corev1.ConfigMapList
	if err := r.list(ctx, client.ObjectKeyFromObject(obj), &maps, client.InNamespace(obj.Namespace), labeled); err != nil {
		return fmt.Errorf("listing ConfigMaps of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
	}
	for i := range maps.Items {
		m := &maps.Items[i]
		switch {
		case m.Name == ledgerName(obj) && (metav1.IsControlledBy(m, obj) || r.adoptAbandoned(ctx, obj, t, m, "ConfigMap")):
			f.Ledger = readLedger(m, logf.FromContext(ctx))
			boundTotal(&f.Ledger, obj, f)
		case m.Name == podspec.OperatorKeysName(obj.Name) && metav1.IsControlledBy(m, obj):
			f.Access.Keys = m
		case m.Labels[v1alpha1.LabelComponent] == v1alpha1.ComponentConfig &&
			(ownsConfig(f.Revisions, m) || r.adoptConfig(ctx, obj, f.Revisions, t, m)):
			f.Configs = append(f.Configs, *m)
		}
	}
	return nil
}

// ownsConfig reports whether a config belongs to one of the revisions.
func ownsConfig(revisions []*observed.Revision, config *corev1.ConfigMap) bool {
	return slices.ContainsFunc(revisions, func(r *observed.Revision) bool {
		return metav1.IsControlledBy(config, r.Object)
	})
}

// endpoints returns where the pods of the targets serve their reports.
func (r *Reconciler) endpoints(obj *v1alpha1.HyperliquidParser, f *observed.Fleet) []poller.Endpoint {
	out := make([]poller.Endpoint, 0, len(f.Targets))
	waiting := r.waits.of(client.ObjectKeyFromObject(obj))
	for i, t := range f.Targets {
		pod := f.Pairs[i].Pod
		if pod == nil {
			continue
		}
		e := r.endpoint(obj, f, t.Name, pod)
		if first := f.Ages.Pods[pod.UID].FirstSeen; !first.IsZero() {
			e.Pod.Since = first // by this process's clock, like everything that it is compared with
		}
		e.NearRetention = waiting[t.Name]
		out = append(out, e)
	}
	return out
}
