package controller

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// revisions are the revisions of a fleet. resolve produces them, and nothing changes them afterwards.
type revisions struct {
	stored []*observed.Revision // newest first
	// update is the revision that the spec asks for; nil while that is unknown. current is the last one that the whole
	// fleet had; nil before there was one.
	update, current *observed.Revision
	// rollout is how far the fleet is on the way from current to update.
	rollout plan.Rollout
	// problem is why the spec cannot be carried out, by itself or because of its revisions; nil when it can.
	problem *problem
	// held is set while it is unknown what a new pod would be made from, or while its config is missing.
	held bool
	// untrusted are the revisions, by hash, that no pod may be made from, and lacking those whose config is missing or is
	// another one.
	untrusted, lacking map[string]bool
	// configs is the outcome of creating the configs.
	configs outcome
}

// storedData is the data of a ControllerRevision. The API server rejects any change to it, down to a byte, but a patch
// of another field, such as the garbage collector's to orphan the object, decodes the data and encodes it again, with
// sorted keys. So the revision is one string under one key. Its own encoding escapes what JSON encoders write
// differently.
type storedData struct {
	Revision *string `json:"revision"`
}

// wrapped returns the data that stores an encoded revision.
func wrapped(encoded []byte) ([]byte, error) {
	data, err := json.Marshal(storedData{ptr.To(string(encoded))})
	if err != nil {
		return nil, fmt.Errorf("encoding the data of a ControllerRevision: %w", err)
	}
	return data, nil
}

// unwrapped returns the encoded revision of stored data. Earlier operators stored it unwrapped.
func unwrapped(data []byte) []byte {
	var in storedData
	if err := json.Unmarshal(data, &in); err != nil || in.Revision == nil {
		return data
	}
	return []byte(*in.Revision)
}

// readRevision returns the revision that a ControllerRevision holds.
func readRevision(object *appsv1.ControllerRevision) (*observed.Revision, error) {
	revision, err := podspec.Decode(object.Labels[v1alpha1.LabelRevision], unwrapped(object.Data.Raw))
	if err != nil {
		return nil, fmt.Errorf("reading ControllerRevision %s/%s: %w", object.Namespace, object.Name, err)
	}
	return &observed.Revision{Revision: revision, Object: object}, nil
}

// observeRevisions reads the stored revisions, newest first.
func (r *Reconciler) observeRevisions(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, t *attempts,
) error {
	var list appsv1.ControllerRevisionList
	if err := r.list(
		ctx, client.ObjectKeyFromObject(obj), &list, client.InNamespace(obj.Namespace),
		client.MatchingLabels{v1alpha1.LabelParser: obj.Name},
	); err != nil {
		return fmt.Errorf("listing ControllerRevisions of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
	}
	for i := range list.Items {
		object := &list.Items[i]
		owned := metav1.IsControlledBy(object, obj) || r.adoptAbandoned(ctx, obj, t, object, "ControllerRevision")
		if !owned || object.DeletionTimestamp != nil {
			continue
		}
		revision, err := readRevision(object)
		if err != nil {
			logf.FromContext(ctx).Error(err, "ignoring a revision")
			continue
		}
		f.Revisions = append(f.Revisions, revision)
	}
	slices.SortFunc(f.Revisions, func(a, b *observed.Revision) int {
		return cmp.Or(-cmp.Compare(a.Object.Revision, b.Object.Revision), cmp.Compare(a.Hash, b.Hash))
	})
	return nil
}

// find returns the stored revision of that name or hash; nil when there is none.
func (v *revisions) find(name string) *observed.Revision {
	for _, r := range v.stored {
		if r.Object.Name == name || r.Hash == name {
			return r
		}
	}
	return nil
}

// resolve finds out which revision the spec asks for, storing it when it is new, which one the fleet had before, and
// which of those in use pods may be made from. A revision is stored before anything is made from it: if it cannot be
// stored, nothing is made that the fleet did not have. An error means that the spec has no identity.
func (r *Reconciler) resolve(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, t *attempts,
) (*revisions, error) {
	v := &revisions{problem: f.Problem, untrusted: map[string]bool{}, lacking: map[string]bool{}}
	for _, revision := range f.Revisions {
		own := *revision // its object changes when it is marked
		v.stored = append(v.stored, &own)
	}
	if f.Known {
		if err := r.resolveUpdate(ctx, obj, f, v, t); err != nil {
			return nil, err
		}
		r.verify(ctx, obj, f, v, t)
	}
	r.ensureConfigs(ctx, obj, f, v, t)
	return v, nil
}

// resolveUpdate sets update, current and rollout, and marks the stored revisions accordingly.
func (r *Reconciler) resolveUpdate(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, v *revisions, t *attempts,
) error {
	identity, err := podspec.Identity(obj)
	if err != nil {
		return err
	}
	v.update = v.ofSpec(obj, identity)
	if v.update == nil && v.problem == nil {
		v.held = !r.attempt(ctx, obj, t, "the revision", v1alpha1.ReasonPodRejected, func() (err error) {
			v.update, err = r.newRevision(ctx, obj, v, t, identity)
			return err
		})
	}
	v.current = v.lastComplete(obj, f.Pods)
	if v.update != nil && v.problem == nil {
		r.attempt(ctx, obj, t, "the marks of revisions", v1alpha1.ReasonWriteRejected, func() error {
			return r.mark(ctx, obj, v, identity)
		})
	}
	v.rollout = readRollout(v.update, logf.FromContext(ctx))
	return nil
}

// readRollout returns the state of the rollout to a revision, which may be nil. It ignores and logs a state that cannot
// be decoded.
func readRollout(revision *observed.Revision, log logr.Logger) plan.Rollout {
	if revision == nil {
		return plan.Rollout{}
	}
	state, err := plan.DecodeRollout(revision.Object.Annotations[v1alpha1.AnnotationRollout])
	if err != nil {
		log.Error(err, "ignoring the state of a rollout", "revision", revision.Object.Name)
	}
	return state
}

// writeRollout persists the state of the rollout to a revision, with that revision, and returns it as written. It fails
// with a conflict if the revision has been written since.
func (r *Reconciler) writeRollout(
	ctx context.Context, to *observed.Revision, state plan.Rollout,
) (*observed.Revision, error) {
	text, err := state.Encode()
	if err != nil {
		return to, fmt.Errorf("encoding the state of the rollout of %s: %w", to.Object.Name, err)
	}
	next := to.Object.DeepCopy()
	setAnnotation(next, v1alpha1.AnnotationRollout, text)
	if err := r.Client.Update(ctx, next); err != nil {
		return to, fmt.Errorf("recording the rollout in ControllerRevision %s/%s: %w", next.Namespace, next.Name, err)
	}
	return &observed.Revision{Revision: to.Revision, Object: next}, nil
}

// setAnnotation sets an annotation, or removes it if the value is empty.
func setAnnotation(object *appsv1.ControllerRevision, name, value string) {
	if value == "" {
		delete(object.Annotations, name)
		return
	}
	metav1.SetMetaDataAnnotation(&object.ObjectMeta, name, value)
}

// ofSpec returns the stored revision of the spec; nil when there is none. A generation that was observed before keeps
// the revision that it got then, so that an operator or a schema with other fields does not take that for a change.
// Otherwise it is the newest revision of the same identity: a spec that is reverted means the revision that it meant
// before.
func (v *revisions) ofSpec(obj *v1alpha1.HyperliquidParser, identity string) *observed.Revision {
	if obj.Status.ObservedGeneration == obj.Generation {
		if same := v.find(obj.Status.UpdateRevision); same != nil {
			return same
		}
	}
	for _, revision := range v.stored {
		if revision.Object.Annotations[v1alpha1.AnnotationIdentity] == identity {
			return revision
		}
	}
	return nil
}

// commonest returns the revision that most pods have, for an object whose status was lost; nil when there is none.
func (v *revisions) commonest(pods []corev1.Pod) *observed.Revision {
	count := map[string]int{}
	for i := range pods {
		count[pods[i].Labels[v1alpha1.LabelRevision]]++
	}
	var most *observed.Revision
	for _, revision := range v.stored {
		if n := count[revision.Hash]; n > 0 && (most == nil || n > count[most.Hash]) {
			most = revision
		}
	}
	return most
}

// newRevision renders the spec and stores the result, unless the same is stored already: a spec may mean the same in
// other words. It returns nil when it has set a problem.
func (r *Reconciler) newRevision(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, v *revisions, t *attempts, identity string,
) (*observed.Revision, error) {
	rendered, err := podspec.NewRevision(obj, r.ParserImage, r.Cluster)
	if err != nil {
		v.problem = &problem{Reason: v1alpha1.ReasonSpecInvalid, Message: err.Error()}
		return nil, nil
	}
	return r.store(ctx, obj, v, t, rendered, identity)
}

// store persists a revision in a ControllerRevision, under the first name that nothing else has. It returns nil when it
// has set a problem.
func (r *Reconciler) store(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, v *revisions, t *attempts,
	revision podspec.Revision, identity string,
) (*observed.Revision, error) {
	first := revision
	for count := range podspec.MaxNames {
		if count > 0 {
			revision = first.Renamed(obj.Name, count)
		}
		if same := v.find(revision.Name(obj.Name)); same != nil {
			if alike, err := sameContent(same.Revision, revision); err != nil || alike {
				return same, err
			}
			continue
		}
		kept, err := r.createRevision(ctx, obj, v, revision, identity)
		if err != nil || kept != nil {
			return kept, err
		}
	}
	t.requeue(r.retryAt(retryRejected))
	v.problem = &problem{Reason: v1alpha1.ReasonNameTaken, Message: fmt.Sprintf(
		"ControllerRevision %s and others have the names of the parsers' revision and do not belong to this object: "+
			"delete or rename them", first.Name(obj.Name))}
	return nil, nil
}

// createRevision creates a ControllerRevision. It returns nil when something else has the name.
func (r *Reconciler) createRevision(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, v *revisions, revision podspec.Revision, identity string,
) (*observed.Revision, error) {
	encoded, err := revision.Encode()
	if err != nil {
		return nil, err
	}
	data, err := wrapped(encoded)
	if err != nil {
		return nil, err
	}
	object := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name:        revision.Name(obj.Name),
			Namespace:   obj.Namespace,
			Labels:      map[string]string{v1alpha1.LabelParser: obj.Name, v1alpha1.LabelRevision: revision.Hash},
			Annotations: newAnnotations(obj, revision, identity),
		},
		Data:     runtime.RawExtension{Raw: data},
		Revision: v.newest() + 1,
	}
	if err := controllerutil.SetControllerReference(obj, object, r.Client.Scheme()); err != nil {
		return nil, fmt.Errorf("setting the owner of ControllerRevision %s/%s: %w", object.Namespace, object.Name, err)
	}
	err = r.Client.Create(ctx, object)
	switch {
	case err == nil:
		logf.FromContext(ctx).Info("stored a new revision", "revision", object.Name, "image", revision.Image())
		kept := &observed.Revision{Revision: revision, Object: object}
		v.stored = slices.Insert(v.stored, 0, kept)
		return kept, nil
	case apierrors.IsAlreadyExists(err):
		return nil, r.revisionTaken(ctx, obj, object, revision)
	case stalls(err):
		return nil, fmt.Errorf("the API server refuses the parsers' revision: %w", err)
	}
	return nil, fmt.Errorf("storing revision %s/%s: %w", object.Namespace, object.Name, err)
}

// revisionTaken reads the ControllerRevision that has the name of one to be created. If it holds the same and belongs
// to the object, or was left behind for it, revisionTaken restores the labels and owner by which the cache shows it,
// and returns errStale for a retry. It returns nil if it is something else.
func (r *Reconciler) revisionTaken(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, wanted *appsv1.ControllerRevision, revision podspec.Revision,
) error {
	existing := &appsv1.ControllerRevision{}
	if err := r.APIReader.Get(ctx, client.ObjectKeyFromObject(wanted), existing); err != nil {
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("ControllerRevision %s/%s was deleted meanwhile: %w", wanted.Namespace, wanted.Name, errStale)
		}
		return fmt.Errorf("reading ControllerRevision %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	orphaned, err := r.leftBehind(ctx, obj, existing)
	if err != nil {
		return err
	}
	if !orphaned && !metav1.IsControlledBy(existing, obj) {
		return nil
	}
	content, err := podspec.Decode(revision.Hash, unwrapped(existing.Data.Raw))
	if err != nil {
		return nil //nolint:nilerr // data that cannot be decoded is something else
	}
	if alike, err := sameContent(content, revision); err != nil || !alike {
		return err
	}
	if existing.DeletionTimestamp != nil {
		return ending("ControllerRevision", existing)
	}
	if orphaned || existing.Labels[v1alpha1.LabelParser] == "" ||
		existing.Labels[v1alpha1.LabelRevision] == "" {
		existing.Labels, existing.OwnerReferences = wanted.Labels, wanted.OwnerReferences
		if err := r.Client.Update(ctx, existing); err != nil {
			return fmt.Errorf("adopting ControllerRevision %s/%s: %w", existing.Namespace, existing.Name, err)
		}
	}
	return fmt.Errorf("ControllerRevision %s/%s is not in the cache: %w", existing.Namespace, existing.Name, errStale)
}

// sameContent reports whether pods of the two revisions differ only in the name of their revision.
func sameContent(a, b podspec.Revision) (bool, error) {
	one, err := a.Encode()
	other, err2 := b.Encode()
	return bytes.Equal(one, other), errors.Join(err, err2)
}

// newest returns the highest number of a stored revision; 0 when there is none.
func (v *revisions) newest() int64 {
	if len(v.stored) == 0 {
		return 0
	}
	return v.stored[0].Object.Revision
}

// mark marks the stored revisions: that of the spec by its identity, in case the object's schema has changed since, and
// by the highest number, in case the spec was reverted. The state of the rollout to any other revision is dropped,
// except for what the next rollout takes over: a later rollout to that revision starts from the beginning.
func (r *Reconciler) mark(ctx context.Context, obj *v1alpha1.HyperliquidParser, v *revisions, identity string) error {
	newest := v.newest()
	inherited, err := v.inheritedRollout(logf.FromContext(ctx))
	if err != nil {
		return err
	}
	for _, revision := range v.stored {
		was := revision.Object
		next := was.DeepCopy()
		v.markPromotion(obj, revision, next)
		if v.current != nil {
			setAnnotation(next, v1alpha1.AnnotationCurrent, flag(revision == v.current))
		}
		if revision != v.update {
			delete(next.Annotations, v1alpha1.AnnotationRollout)
		} else {
			setAnnotation(next, v1alpha1.AnnotationIdentity, identity)
			if inherited != "" && next.Annotations[v1alpha1.AnnotationRollout] == "" {
				setAnnotation(next, v1alpha1.AnnotationRollout, inherited)
			}
			if next.Revision < newest {
				next.Revision = newest + 1
			}
		}
		if next.Revision == was.Revision && maps.Equal(next.Annotations, was.Annotations) {
			continue
		}
		if err := r.Client.Update(ctx, next); err != nil {
			return fmt.Errorf("marking ControllerRevision %s/%s: %w", next.Namespace, next.Name, err)
		}
		revision.Object = next
	}
	return nil
}

// pruneRevisions deletes the oldest revisions beyond the object's limit, but none that a pod refers to, that the spec
// asks for, or that the fleet had before. The garbage collector deletes their configs.
func (r *Reconciler) pruneRevisions(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, v *revisions,
) error {
	if v.problem != nil || v.held || !f.Known {
		return nil
	}
	used := v.used(f.Pods)
	keep := int(ptr.Deref(obj.Spec.Rollout.RevisionHistoryLimit, v1alpha1.DefaultRevisionHistoryLimit))
	var errs []error
	for _, revision := range v.stored {
		if used[revision.Hash] {
			continue
		}
		if keep > 0 {
			keep--
			continue
		}
		object := revision.Object
		logf.FromContext(ctx).Info("deleting a revision that no pod refers to", "revision", object.Name)
		if err := r.Client.Delete(ctx, object, client.Preconditions{UID: &object.UID}); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("deleting ControllerRevision %s/%s: %w", object.Namespace, object.Name, err))
		}
	}
	return errors.Join(errs...)
}

// used returns the revisions that pods have, or may get, by hash.
func (v *revisions) used(pods []corev1.Pod) map[string]bool {
	out := map[string]bool{}
	for i := range pods {
		out[pods[i].Labels[v1alpha1.LabelRevision]] = true
	}
	for _, revision := range []*observed.Revision{v.update, v.current} {
		if revision != nil {
			out[revision.Hash] = true
		}
	}
	return out
}
