package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// revisionKind is the kind of the owner of a config.
const revisionKind = "ControllerRevision"

// ensureConfigs creates the configs of the revisions in use, and finds the revisions that lack theirs. Existing pods
// need their config too, when their containers restart. A revision without its config is not rolled out.
func (r *Reconciler) ensureConfigs(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, v *revisions, t *attempts,
) {
	used := v.used(f.Pods)
	for _, revision := range v.stored {
		if !used[revision.Hash] {
			continue
		}
		var done outcome
		ok := r.attempt(ctx, obj, t, "config of "+revision.Hash, v1alpha1.ReasonPodRejected, func() (err error) {
			done, err = r.ensureConfig(ctx, obj, f, v, revision)
			return err
		})
		if !ok || done.problem != nil {
			v.lacking[revision.Hash] = true
			v.held = v.held || revision == v.update
		}
		v.configs = v.configs.and(done)
	}
	for i := range f.Configs {
		m := &f.Configs[i]
		if ptr.Deref(m.Immutable, false) {
			continue
		}
		of := slices.IndexFunc(v.stored, func(r *observed.Revision) bool { return used[r.Hash] && r.ConfigName() == m.Name })
		if of >= 0 {
			r.attempt(ctx, obj, t, "sealing "+m.Name, v1alpha1.ReasonWriteRejected, func() error {
				return r.seal(ctx, v.stored[of], m.DeepCopy())
			})
		}
	}
}

// ensureConfig creates a revision's ConfigMap if it is missing.
func (r *Reconciler) ensureConfig(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, v *revisions, revision *observed.Revision,
) (outcome, error) {
	m := revision.ConfigMap(obj.Namespace, obj.Name)
	if slices.ContainsFunc(f.Configs, func(c corev1.ConfigMap) bool { return c.Name == m.Name }) {
		return outcome{}, nil
	}
	// The config is deleted with its revision, and does not block the revision's deletion.
	if err := controllerutil.SetControllerReference(
		revision.Object, m, r.Client.Scheme(), controllerutil.WithBlockOwnerDeletion(false),
	); err != nil {
		return outcome{}, fmt.Errorf("setting the owner of ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	err := r.Client.Create(ctx, m)
	if err == nil || terminating(err) {
		return outcome{}, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return outcome{}, fmt.Errorf("creating ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	return r.configTaken(ctx, obj, f, v, revision, m)
}

// configTaken handles the ConfigMap that has the name of a revision's config. One that holds another config is
// reported, whatever its owner.
func (r *Reconciler) configTaken(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, v *revisions, revision *observed.Revision,
	wanted *corev1.ConfigMap,
) (outcome, error) {
	existing := &corev1.ConfigMap{}
	if err := r.APIReader.Get(ctx, client.ObjectKeyFromObject(wanted), existing); err != nil {
		return outcome{}, fmt.Errorf("reading ConfigMap %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	owner := metav1.GetControllerOf(existing)
	orphaned, err := r.leftBehind(ctx, obj, existing)
	if err != nil {
		return outcome{}, err
	}
	owned := ownsConfig(v.stored, existing)
	// It was left behind, or its revision was deleted and stored again.
	adopt := orphaned || owner == nil || owner.Kind == revisionKind && owner.Name == revision.Object.Name
	requeueAt := r.retryAt(retryRejected)
	switch {
	case existing.DeletionTimestamp != nil:
		return outcome{}, ending("ConfigMap", existing)
	case (owned || orphaned) && !revision.Holds(existing):
		return outcome{problem: tampered(f, revision), requeueAt: requeueAt}, nil
	case !revision.Holds(existing), !owned && !adopt:
		return outcome{problem: nameTaken("ConfigMap", wanted.Name, "parsers' config"), requeueAt: requeueAt}, nil
	case owned:
		return outcome{}, errors.Join(
			r.seal(ctx, revision, existing), r.relabel(ctx, existing, v1alpha1.ComponentConfig, obj))
	}
	existing.Labels, existing.OwnerReferences, existing.Immutable = wanted.Labels, wanted.OwnerReferences, wanted.Immutable
	if err := r.Client.Update(ctx, existing); err != nil {
		return outcome{}, fmt.Errorf("adopting ConfigMap %s/%s: %w", existing.Namespace, existing.Name, err)
	}
	return outcome{}, nil
}

// seal makes a revision's config immutable, so that it cannot change under the pods that read it.
func (r *Reconciler) seal(ctx context.Context, revision *observed.Revision, m *corev1.ConfigMap) error {
	if ptr.Deref(m.Immutable, false) || m.DeletionTimestamp != nil || !revision.Holds(m) {
		return nil
	}
	m.Immutable = ptr.To(true)
	if err := r.Client.Update(ctx, m); err != nil {
		return fmt.Errorf("making ConfigMap %s/%s immutable: %w", m.Namespace, m.Name, err)
	}
	return nil
}

// relabel restores the labels of a ConfigMap without which the cache does not hold it.
func (r *Reconciler) relabel(
	ctx context.Context, m *corev1.ConfigMap, component string, obj *v1alpha1.HyperliquidParser,
) error {
	if m.Labels[v1alpha1.LabelParser] == obj.Name && m.Labels[v1alpha1.LabelComponent] == component {
		return nil // the cache is about to show it
	}
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	m.Labels[v1alpha1.LabelParser], m.Labels[v1alpha1.LabelComponent] = obj.Name, component
	if err := r.Client.Update(ctx, m); err != nil {
		return fmt.Errorf("restoring the labels of ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}

// pruneConfigs deletes configs that no pod refers to, until the slice is over; a later reconcile deletes the rest. A
// config that is needed again is created from its revision.
func (r *Reconciler) pruneConfigs(ctx context.Context, f *observed.Fleet, v *revisions, over func() bool) error {
	if v.problem != nil || v.held || !f.Known {
		return nil
	}
	used := map[string]bool{}
	for _, revision := range v.stored {
		if revision == v.update || revision == v.current {
			used[revision.ConfigName()] = true
		}
	}
	for i := range f.Pods {
		used[podspec.ConfigOf(&f.Pods[i])] = true
	}
	var errs []error
	for i := range f.Configs {
		m := &f.Configs[i]
		if used[m.Name] || m.DeletionTimestamp != nil {
			continue
		}
		if over() {
			break
		}
		logf.FromContext(ctx).Info("deleting a config that no pod refers to", "configMap", m.Name)
		if err := r.Client.Delete(ctx, m, client.Preconditions{UID: &m.UID}); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("deleting ConfigMap %s/%s: %w", m.Namespace, m.Name, err))
		}
	}
	return errors.Join(errs...)
}
