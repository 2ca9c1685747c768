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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// defaultHistory is the schema's default of rollout.revisionHistoryLimit.
const defaultHistory = 5

// stored is a revision as it is kept in a ControllerRevision.
type stored struct {
	podspec.Revision
	object *appsv1.ControllerRevision
}

// storedData is the data of a ControllerRevision. The API server lets nobody change that by a byte, and a patch of
// anything else of the object, such as the garbage collector's to orphan it, has it decoded and written again, with
// its keys sorted. So the revision is one string under one key. Its own encoding has escaped what encoders of JSON do
// not write alike.
type storedData struct {
	Revision *string `json:"revision"`
}

// wrapped returns the data in which a revision is stored, by its encoding.
func wrapped(encoded []byte) ([]byte, error) {
	data, err := json.Marshal(storedData{ptr.To(string(encoded))})
	if err != nil {
		return nil, fmt.Errorf("encoding the data of a ControllerRevision: %w", err)
	}
	return data, nil
}

// unwrapped returns the encoding of a revision that is stored. Earlier operators stored that itself.
func unwrapped(data []byte) []byte {
	var in storedData
	if err := json.Unmarshal(data, &in); err != nil || in.Revision == nil {
		return data
	}
	return []byte(*in.Revision)
}

// readRevision returns the revision that a ControllerRevision holds.
func readRevision(object *appsv1.ControllerRevision) (*stored, error) {
	revision, err := podspec.Decode(object.Labels[v1alpha1.LabelRevision], unwrapped(object.Data.Raw))
	if err != nil {
		return nil, fmt.Errorf("reading ControllerRevision %s/%s: %w", object.Namespace, object.Name, err)
	}
	return &stored{revision, object}, nil
}

// name is the revision's in a plan; "" for none.
func (r *stored) name() string {
	if r == nil {
		return ""
	}
	return r.Hash
}

// observeRevisions reads the stored revisions, newest first.
func (r *Reconciler) observeRevisions(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) error {
	var list appsv1.ControllerRevisionList
	if err := r.list(ctx, client.ObjectKeyFromObject(obj), &list, client.InNamespace(obj.Namespace), client.MatchingLabels{v1alpha1.LabelParser: obj.Name}); err != nil {
		return fmt.Errorf("listing ControllerRevisions of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
	}
	for i := range list.Items {
		object := &list.Items[i]
		ours := metav1.IsControlledBy(object, obj) || r.takeUp(ctx, obj, s, object, "ControllerRevision")
		if !ours || object.DeletionTimestamp != nil {
			continue
		}
		revision, err := readRevision(object)
		if err != nil {
			logf.FromContext(ctx).Error(err, "ignoring a revision")
			continue
		}
		s.revisions = append(s.revisions, revision)
	}
	slices.SortFunc(s.revisions, func(a, b *stored) int {
		return cmp.Or(-cmp.Compare(a.object.Revision, b.object.Revision), cmp.Compare(a.Hash, b.Hash))
	})
	return nil
}

// revision is the stored one of that name; nil when there is none.
func (s *seen) revision(name string) *stored {
	for _, r := range s.revisions {
		if r.object.Name == name || r.Hash == name {
			return r
		}
	}
	return nil
}

// resolve sets which revision the spec asks for, storing it when it is new, and which the fleet had before. A revision is stored
// before anything is made of it: where that cannot be done, nothing is made that the fleet did not have.
func (r *Reconciler) resolve(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) error {
	if !s.known {
		return nil
	}
	identity, err := podspec.Identity(obj)
	if err != nil {
		return err
	}
	s.update = s.resolved(obj, identity)
	if s.update == nil && s.problem == nil {
		s.held = !r.attempt(ctx, obj, s, "the revision", v1alpha1.ReasonPodRejected, func() (err error) {
			s.update, err = r.newRevision(ctx, obj, s, identity)
			return err
		})
	}
	s.current = s.lastComplete(obj)
	if s.update != nil && s.problem == nil {
		r.attempt(ctx, obj, s, "the marks of revisions", v1alpha1.ReasonWriteRejected, func() error { return r.mark(ctx, obj, s, identity) })
	}
	s.rollout = s.update.readRollout(logf.FromContext(ctx))
	return nil
}

// readRollout never fails: a state that somebody has spoilt is left out, and said.
func (r *stored) readRollout(log logr.Logger) plan.Rollout {
	if r == nil {
		return plan.Rollout{}
	}
	state, err := plan.DecodeRollout(r.object.Annotations[v1alpha1.AnnotationRollout])
	if err != nil {
		log.Error(err, "ignoring the state of a rollout", "revision", r.object.Name)
	}
	return state
}

// writeRollout keeps the state of the rollout with the revision that it is to. It fails with a conflict when somebody else has written
// there since.
func (r *Reconciler) writeRollout(ctx context.Context, s *seen, state plan.Rollout) error {
	text, err := state.Encode()
	if err != nil {
		return fmt.Errorf("encoding the state of the rollout of %s: %w", s.update.object.Name, err)
	}
	next := s.update.object.DeepCopy()
	setAnnotation(next, v1alpha1.AnnotationRollout, text)
	if err := r.Client.Update(ctx, next); err != nil {
		return fmt.Errorf("recording the rollout in ControllerRevision %s/%s: %w", next.Namespace, next.Name, err)
	}
	s.update.object, s.rollout = next, state
	return nil
}

// setAnnotation sets an annotation, or takes it away where its value is empty.
func setAnnotation(object *appsv1.ControllerRevision, name, value string) {
	if value == "" {
		delete(object.Annotations, name)
		return
	}
	metav1.SetMetaDataAnnotation(&object.ObjectMeta, name, value)
}

// resolved returns the stored revision of the spec; nil when there is none. For a generation that was looked at before it is the one
// that was found then: an operator or a schema that has other fields must not take that for a change. Otherwise it is the newest of
// the same identity: a spec that is set back means the revision that it meant before.
func (s *seen) resolved(obj *v1alpha1.HyperliquidParser, identity string) *stored {
	if obj.Status.ObservedGeneration == obj.Generation {
		if same := s.revision(obj.Status.UpdateRevision); same != nil {
			return same
		}
	}
	for _, revision := range s.revisions {
		if revision.object.Annotations[v1alpha1.AnnotationIdentity] == identity {
			return revision
		}
	}
	return nil
}

// commonest is the revision that most pods have, for an object whose status was lost; nil when there are none.
func (s *seen) commonest() *stored {
	count := map[string]int{}
	for i := range s.pods {
		count[s.pods[i].Labels[v1alpha1.LabelRevision]]++
	}
	var most *stored
	for _, revision := range s.revisions {
		if n := count[revision.Hash]; n > 0 && (most == nil || n > count[most.Hash]) {
			most = revision
		}
	}
	return most
}

// newRevision renders the spec and stores what it rendered, unless that is stored already: a spec may say the same in other words.
func (r *Reconciler) newRevision(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, identity string) (*stored, error) {
	rendered, err := podspec.NewRevision(obj, r.ParserImage, r.Cluster)
	if err != nil {
		s.problem = &problem{v1alpha1.ReasonSpecInvalid, err.Error()}
		return nil, nil
	}
	return r.store(ctx, obj, s, rendered, identity)
}

// store keeps a revision in a ControllerRevision, under the first name that nothing else has.
func (r *Reconciler) store(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, revision podspec.Revision, identity string) (*stored, error) {
	first := revision
	for count := range podspec.MaxNames {
		if count > 0 {
			revision = first.Renamed(obj.Name, count)
		}
		if same := s.revision(revision.Name(obj.Name)); same != nil {
			if alike, err := sameContent(same.Revision, revision); err != nil || alike {
				return same, err
			}
			continue
		}
		kept, err := r.createRevision(ctx, obj, s, revision, identity)
		if err != nil || kept != nil || s.problem != nil {
			return kept, err
		}
	}
	s.again = r.retryAfter(retryRejected)
	s.problem = &problem{v1alpha1.ReasonNameTaken, fmt.Sprintf(
		"ControllerRevision %s and others have the names of the parsers' revision and are not ours: delete or rename them", first.Name(obj.Name))}
	return nil, nil
}

// createRevision returns nil when the name is taken by something else, or when there is now a problem.
func (r *Reconciler) createRevision(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, revision podspec.Revision, identity string,
) (*stored, error) {
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
		Revision: s.newest() + 1,
	}
	if err := controllerutil.SetControllerReference(obj, object, r.Client.Scheme()); err != nil {
		return nil, fmt.Errorf("setting the owner of ControllerRevision %s/%s: %w", object.Namespace, object.Name, err)
	}
	err = r.Client.Create(ctx, object)
	switch {
	case err == nil:
		logf.FromContext(ctx).Info("stored a new revision", "revision", object.Name, "image", revision.Image())
		kept := &stored{revision, object}
		s.revisions = slices.Insert(s.revisions, 0, kept)
		return kept, nil
	case apierrors.IsAlreadyExists(err):
		return nil, r.revisionTaken(ctx, obj, object, revision)
	case stalls(err):
		return nil, fmt.Errorf("the API server refuses the parsers' revision: %w", err)
	}
	return nil, fmt.Errorf("storing revision %s/%s: %w", object.Namespace, object.Name, err)
}

// revisionTaken looks at the ControllerRevision that has the name of one to be created. If it holds the same and is ours, or nobody's
// and was made for this object, it is given what it lacks for the cache to show it, and errStale says to look again. It returns nil
// when it is something else.
func (r *Reconciler) revisionTaken(ctx context.Context, obj *v1alpha1.HyperliquidParser, wanted *appsv1.ControllerRevision, revision podspec.Revision) error {
	there := &appsv1.ControllerRevision{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(wanted), there); err != nil {
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("ControllerRevision %s/%s was there and is not: %w", wanted.Namespace, wanted.Name, errStale)
		}
		return fmt.Errorf("reading ControllerRevision %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	left, err := r.leftBehind(ctx, obj, there)
	if err != nil {
		return err
	}
	if !left && !metav1.IsControlledBy(there, obj) {
		return nil
	}
	held, err := podspec.Decode(revision.Hash, unwrapped(there.Data.Raw))
	if err != nil {
		return nil //nolint:nilerr // what cannot be read is something else
	}
	if alike, err := sameContent(held, revision); err != nil || !alike {
		return err
	}
	if there.DeletionTimestamp != nil {
		return ending("ControllerRevision", there)
	}
	if left || there.Labels[v1alpha1.LabelParser] == "" ||
		there.Labels[v1alpha1.LabelRevision] == "" {
		there.Labels, there.OwnerReferences = wanted.Labels, wanted.OwnerReferences
		if err := r.Client.Update(ctx, there); err != nil {
			return fmt.Errorf("adopting ControllerRevision %s/%s: %w", there.Namespace, there.Name, err)
		}
	}
	return fmt.Errorf("ControllerRevision %s/%s is not in the cache: %w", there.Namespace, there.Name, errStale)
}

// sameContent reports whether pods of the two are alike but for the name of their revision.
func sameContent(a, b podspec.Revision) (bool, error) {
	one, err := a.Encode()
	other, err2 := b.Encode()
	return bytes.Equal(one, other), errors.Join(err, err2)
}

// newest is the highest number of a stored revision; 0 when there is none.
func (s *seen) newest() int64 {
	if len(s.revisions) == 0 {
		return 0
	}
	return s.revisions[0].object.Revision
}

// mark makes the stored revision of the spec known as such: by its identity, should the object's schema have changed
// since, and by its number, should the spec have been set back. What was remembered of the rollout of another is
// forgotten, but for what the next takes over: should that come again, it begins from the start.
func (r *Reconciler) mark(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, identity string) error {
	newest := s.newest()
	over, err := s.takenOver(logf.FromContext(ctx))
	if err != nil {
		return err
	}
	for _, revision := range s.revisions {
		was := revision.object
		next := was.DeepCopy()
		s.markPromotion(obj, revision, next)
		if s.current != nil {
			setAnnotation(next, v1alpha1.AnnotationCurrent, flag(revision == s.current))
		}
		if revision != s.update {
			delete(next.Annotations, v1alpha1.AnnotationRollout)
		} else {
			setAnnotation(next, v1alpha1.AnnotationIdentity, identity)
			if over != "" && next.Annotations[v1alpha1.AnnotationRollout] == "" {
				setAnnotation(next, v1alpha1.AnnotationRollout, over)
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
		revision.object = next
	}
	return nil
}

// pruneRevisions deletes the oldest revisions that are over the object's limit, never one that a pod refers to, that the spec asks for
// or that the fleet had before. Their configs go with them.
func (r *Reconciler) pruneRevisions(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) error {
	if s.problem != nil || s.held || !s.known {
		return nil
	}
	used := s.used()
	keep := int(ptr.Deref(obj.Spec.Rollout.RevisionHistoryLimit, defaultHistory))
	var errs []error
	for _, revision := range s.revisions {
		if used[revision.Hash] {
			continue
		}
		if keep > 0 {
			keep--
			continue
		}
		object := revision.object
		logf.FromContext(ctx).Info("deleting a revision that no pod refers to", "revision", object.Name)
		if err := r.Client.Delete(ctx, object, client.Preconditions{UID: &object.UID}); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("deleting ControllerRevision %s/%s: %w", object.Namespace, object.Name, err))
		}
	}
	return errors.Join(errs...)
}

// used are the revisions that pods have, or may get, by hash.
func (s *seen) used() map[string]bool {
	out := map[string]bool{}
	for i := range s.pods {
		out[s.pods[i].Labels[v1alpha1.LabelRevision]] = true
	}
	for _, revision := range []*stored{s.update, s.current} {
		if revision != nil {
			out[revision.Hash] = true
		}
	}
	return out
}
