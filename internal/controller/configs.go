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
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// revisionKind is the kind of what owns a config.
const revisionKind = "ControllerRevision"

// ensureConfigs makes the configs of the revisions in use, and finds those that lack theirs. The pods that exist need
// theirs too, when their containers restart. A revision without its config is not rolled out.
func (r *Reconciler) ensureConfigs(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) (done outcome) {
	used := s.used()
	s.lacking = map[string]bool{}
	for _, revision := range s.revisions {
		if !used[revision.Hash] {
			continue
		}
		var came outcome
		ok := r.attempt(ctx, obj, s, "config of "+revision.Hash, v1alpha1.ReasonPodRejected, func() (err error) {
			came, err = r.ensureConfig(ctx, obj, s, revision)
			return err
		})
		if !ok || came.problem != nil {
			s.lacking[revision.Hash] = true
			s.held = s.held || revision == s.update
		}
		done = done.and(came)
	}
	for i := range s.configs {
		m := &s.configs[i]
		of := slices.IndexFunc(s.revisions, func(r *stored) bool { return used[r.Hash] && r.ConfigName() == m.Name })
		if of >= 0 {
			r.attempt(ctx, obj, s, "sealing "+m.Name, v1alpha1.ReasonWriteRejected, func() error {
				return r.seal(ctx, s.revisions[of], m)
			})
		}
	}
	return done
}

// ensureConfig makes a revision's ConfigMap where it is missing.
func (r *Reconciler) ensureConfig(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, revision *stored) (outcome, error) {
	m := revision.ConfigMap(obj.Namespace, obj.Name)
	if slices.ContainsFunc(s.configs, func(c corev1.ConfigMap) bool { return c.Name == m.Name }) {
		return outcome{}, nil
	}
	// It goes with its revision, and does not hold that up.
	if err := controllerutil.SetControllerReference(revision.object, m, r.Client.Scheme(), controllerutil.WithBlockOwnerDeletion(false)); err != nil {
		return outcome{}, fmt.Errorf("setting the owner of ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	err := r.Client.Create(ctx, m)
	if err == nil || terminating(err) {
		return outcome{}, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return outcome{}, fmt.Errorf("creating ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	return r.configTaken(ctx, obj, s, revision, m)
}

// configTaken looks at the ConfigMap that has the name of a revision's config. What holds another config, nobody's or
// ours, is reported.
func (r *Reconciler) configTaken(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, revision *stored, wanted *corev1.ConfigMap,
) (outcome, error) {
	there := &corev1.ConfigMap{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(wanted), there); err != nil {
		return outcome{}, fmt.Errorf("reading ConfigMap %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	owner := metav1.GetControllerOf(there)
	left, err := r.leftBehind(ctx, obj, there)
	if err != nil {
		return outcome{}, err
	}
	ours := s.owns(there)
	// It was left behind, or its revision was deleted and stored again.
	adopt := left || owner == nil || owner.Kind == revisionKind && owner.Name == revision.object.Name
	again := r.retryAfter(retryRejected)
	switch {
	case there.DeletionTimestamp != nil:
		return outcome{}, ending("ConfigMap", there)
	case (ours || left) && !revision.Holds(there):
		return outcome{problem: s.tampered(revision), again: again}, nil
	case !revision.Holds(there), !ours && !adopt:
		return outcome{problem: &problem{v1alpha1.ReasonNameTaken, fmt.Sprintf(
			"ConfigMap %s has the name of the parsers' config and is not ours: delete or rename it", wanted.Name)}, again: again}, nil
	case ours:
		return outcome{}, errors.Join(r.seal(ctx, revision, there), r.relabel(ctx, there, v1alpha1.ComponentConfig, obj))
	}
	there.Labels, there.OwnerReferences, there.Immutable = wanted.Labels, wanted.OwnerReferences, wanted.Immutable
	if err := r.Client.Update(ctx, there); err != nil {
		return outcome{}, fmt.Errorf("adopting ConfigMap %s/%s: %w", there.Namespace, there.Name, err)
	}
	return outcome{}, nil
}

// seal makes a config that is a revision's immutable, so that nobody changes it under the pods that read it.
func (r *Reconciler) seal(ctx context.Context, revision *stored, m *corev1.ConfigMap) error {
	if ptr.Deref(m.Immutable, false) || m.DeletionTimestamp != nil || !revision.Holds(m) {
		return nil
	}
	m.Immutable = ptr.To(true)
	if err := r.Client.Update(ctx, m); err != nil {
		return fmt.Errorf("making ConfigMap %s/%s immutable: %w", m.Namespace, m.Name, err)
	}
	return nil
}

// relabel gives a ConfigMap of ours back the labels without which the cache does not hold it.
func (r *Reconciler) relabel(ctx context.Context, m *corev1.ConfigMap, component string, obj *v1alpha1.HyperliquidParser) error {
	if m.Labels[v1alpha1.LabelParser] == obj.Name && m.Labels[v1alpha1.LabelComponent] == component {
		return nil // the cache is about to see it
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

// pruneConfigs deletes configs that no pod refers to any more, until the slice is over. Where one is needed again it is made from its
// revision, and what is left is deleted another time.
func (r *Reconciler) pruneConfigs(ctx context.Context, s *seen, over func() bool) error {
	if s.problem != nil || s.held || !s.known {
		return nil
	}
	used := map[string]bool{}
	for _, revision := range s.revisions {
		if revision == s.update || revision == s.current {
			used[revision.ConfigName()] = true
		}
	}
	for i := range s.pods {
		used[podspec.ConfigOf(&s.pods[i])] = true
	}
	var errs []error
	for i := range s.configs {
		m := &s.configs[i]
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
