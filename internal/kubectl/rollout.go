package kubectl

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// progress returns how far a rollout is, and whether it is over. It fails for one that needs somebody's change.
func progress(obj *v1alpha1.HyperliquidParser) (text string, over bool, err error) {
	st := &obj.Status
	stalled := meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionStalled)
	reconciling := meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReconciling)
	ready := meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReady)
	switch {
	case st.ObservedGeneration != obj.Generation || reconciling == nil || ready == nil:
		return "Waiting for the operator to see this generation…", false, nil
	case stalled != nil && stalled.Status == metav1.ConditionTrue:
		return "", false, fmt.Errorf("%s is stalled: %s: %s", obj.Name, stalled.Reason, stalled.Message)
	case reconciling.Status == metav1.ConditionTrue:
		return fmt.Sprintf("%d of %d updated, %d ready: %s: %s", st.Updated, st.Desired, st.Ready, reconciling.Reason,
			reconciling.Message), false, nil
	case reconciling.Reason == v1alpha1.ReasonPaused:
		return "", false, fmt.Errorf("%s is paused: %s", obj.Name, reconciling.Message)
	case ready.Status != metav1.ConditionTrue:
		return fmt.Sprintf("%d of %d updated, %d ready: %s: %s", st.Updated, st.Desired, st.Ready, ready.Reason,
			ready.Message), false, nil
	}
	return fmt.Sprintf("%s is rolled out: %d of %d ready", st.UpdateRevision, st.Ready, st.Desired), true, nil
}

// errTimeout means that a rollout was not over in time.
var errTimeout = errors.New("the rollout is not over")

// beforeRestart counts the pods that were made before the restart that the object's annotation requests. The status
// does not say whether the operator has seen an annotation, which changes no generation.
func beforeRestart(ctx context.Context, api client.Client, obj *v1alpha1.HyperliquidParser) (int, error) {
	at := obj.Annotations[v1alpha1.AnnotationRestartedAt]
	if at == "" {
		return 0, nil
	}
	var pods corev1.PodList
	err := api.List(ctx, &pods, client.InNamespace(obj.Namespace), client.MatchingLabels{v1alpha1.LabelParser: obj.Name})
	if err != nil {
		return 0, fmt.Errorf("listing the pods of %s: %w", obj.Name, err)
	}
	old := 0
	for i := range pods.Items {
		if metav1.IsControlledBy(&pods.Items[i], obj) && pods.Items[i].Annotations[v1alpha1.AnnotationRestartedAt] != at {
			old++
		}
	}
	return old, nil
}

// rolloutStatus writes how a rollout proceeds until it is over.
func (r *runner) rolloutStatus(ctx context.Context, name string, timeout time.Duration) error {
	api, namespace, err := r.client()
	if err != nil {
		return err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w after %s", errTimeout, timeout))
		defer cancel()
	}
	last := ""
	for {
		obj := &v1alpha1.HyperliquidParser{}
		err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, obj)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("getting HyperliquidParser %s/%s: %w", namespace, name, err)
		}
		text, over, err := progress(obj)
		if err != nil {
			return err
		}
		if over {
			old, err := beforeRestart(ctx, api, obj)
			if err != nil {
				return err
			}
			if old > 0 {
				text, over = fmt.Sprintf("Waiting for the operator to replace %d pods from before the restart…", old), false
			}
		}
		if text != last {
			say(r.streams.Out, "%s\n", printable(text))
			last = text
		}
		if over {
			return nil
		}
		if !r.wait(ctx, interval) {
			return context.Cause(ctx)
		}
	}
}

// revision is what is shown of a stored revision.
type revision struct {
	object *appsv1.ControllerRevision
	// spec has the fields that shape its pods; nil if they are not stored.
	spec *v1alpha1.HyperliquidParserSpec
	pods int
}

// revisionsOf returns the stored revisions of an object, newest first.
func revisionsOf(obj *v1alpha1.HyperliquidParser, list []appsv1.ControllerRevision, pods []corev1.Pod) []revision {
	out := make([]revision, 0, len(list))
	for i := range list {
		object := &list[i]
		if !metav1.IsControlledBy(object, obj) {
			continue
		}
		rev := revision{object: object}
		if text := object.Annotations[v1alpha1.AnnotationSpec]; text != "" {
			var spec v1alpha1.HyperliquidParserSpec
			if json.Unmarshal([]byte(text), &spec) == nil {
				rev.spec = &spec
			}
		}
		for j := range pods {
			if pods[j].Labels[v1alpha1.LabelRevision] == object.Labels[v1alpha1.LabelRevision] {
				rev.pods++
			}
		}
		out = append(out, rev)
	}
	slices.SortFunc(out, func(a, b revision) int { return -cmp.Compare(a.object.Revision, b.object.Revision) })
	return out
}

// renderHistory returns the history of revisions, newest first.
func renderHistory(s screen, obj *v1alpha1.HyperliquidParser, revisions []revision, now time.Time) string {
	rows := make([][]cell, 0, 1+len(revisions))
	rows = append(rows, []cell{{text: "REVISION"}, {text: "NAME"}, {text: "AGE"}, {text: "PARSERS"}, {text: "STATE"},
		{text: "CHANGED"}})
	for i, r := range revisions {
		var state []string
		if r.object.Name == obj.Status.UpdateRevision {
			state = append(state, "update")
		}
		if r.object.Name == obj.Status.CurrentRevision {
			state = append(state, "current")
		}
		changed := ""
		switch {
		case r.spec == nil:
			changed = "fields are not stored"
		case i+1 == len(revisions):
		case revisions[i+1].spec == nil:
			changed = "not known"
		default:
			if changed = strings.Join(changes(revisions[i+1].spec, r.spec), ", "); changed == "" {
				changed = "nothing but the operator's template or default image"
			}
		}
		rows = append(rows, []cell{{text: fmt.Sprint(r.object.Revision)}, {text: r.object.Name},
			{text: since(r.object.CreationTimestamp.Time, now)}, {text: fmt.Sprint(r.pods)},
			{text: strings.Join(state, ", ")}, {text: printable(changed)}})
	}
	return s.table(rows, map[int]bool{0: true, 3: true})
}

// changes returns the fields that differ between two specs, with both values where they are short.
func changes(before, after *v1alpha1.HyperliquidParserSpec) []string {
	old, next := fields(before), fields(after)
	names := map[string]bool{}
	for name := range old {
		names[name] = true
	}
	for name := range next {
		names[name] = true
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if reflect.DeepEqual(old[name], next[name]) {
			continue
		}
		const short = 40
		from, to := text(old[name]), text(next[name])
		if len(from)+len(to) > short {
			out = append(out, name)
			continue
		}
		out = append(out, fmt.Sprintf("%s: %s → %s", name, from, to))
	}
	return out
}

func text(value any) string {
	if value == nil {
		return "unset"
	}
	out, err := json.Marshal(value)
	if err != nil {
		return "?"
	}
	return strings.Trim(string(out), `"`)
}

// fields returns the leaves of a spec by path. A list is a leaf.
func fields(spec *v1alpha1.HyperliquidParserSpec) map[string]any {
	encoded, err := json.Marshal(spec)
	if err != nil {
		return nil
	}
	var object map[string]any
	if json.Unmarshal(encoded, &object) != nil {
		return nil
	}
	out := map[string]any{}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		members, ok := value.(map[string]any)
		if !ok {
			out[path] = value
			return
		}
		for name, member := range members {
			walk(strings.TrimPrefix(path+"."+name, "."), member)
		}
	}
	walk("", object)
	return out
}

// undone returns the object with the fields of a revision that shape pods. All others stay: the selection of targets,
// growth, rollout and paused.
func undone(obj *v1alpha1.HyperliquidParser, to *revision) (*v1alpha1.HyperliquidParser, error) {
	if to.spec == nil {
		return nil, fmt.Errorf("revision %d was stored without its fields, by an older operator or because they are too "+
			"long: set the spec back by hand", to.object.Revision)
	}
	next := obj.DeepCopy()
	next.Spec = *to.spec.DeepCopy()
	next.Spec.Growth, next.Spec.Rollout, next.Spec.Paused = obj.Spec.Growth, obj.Spec.Rollout, obj.Spec.Paused
	is, was := &next.Spec.Target, &obj.Spec.Target
	switch {
	case is.Nodes != nil && was.Nodes != nil:
		is.Nodes.Selector = was.Nodes.Selector
	case is.Pods != nil && was.Pods != nil:
		is.Pods.Selector = was.Pods.Selector
	default:
		return nil, errors.New("the revision has targets of another kind, whose selection is not stored: " +
			"set the spec back by hand")
	}
	return next, nil
}

// chosen returns the revision to go back to: that of a number, or for 0 the newest before the one of the spec.
func chosen(obj *v1alpha1.HyperliquidParser, revisions []revision, number int64) (*revision, error) {
	for i := range revisions {
		r := &revisions[i]
		switch {
		case number == 0 && r.object.Name != obj.Status.UpdateRevision, number != 0 && r.object.Revision == number:
			return r, nil
		}
	}
	if number == 0 {
		return nil, fmt.Errorf("%s has no revision before this one", obj.Name)
	}
	return nil, fmt.Errorf("%s has no revision %d", obj.Name, number)
}

// history reads an object with its revisions.
func (r *runner) history(ctx context.Context, api client.Client, namespace, name string) (
	*v1alpha1.HyperliquidParser, []revision, error,
) {
	obj := &v1alpha1.HyperliquidParser{}
	if err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, obj); err != nil {
		return nil, nil, fmt.Errorf("getting HyperliquidParser %s/%s: %w", namespace, name, err)
	}
	var list appsv1.ControllerRevisionList
	var pods corev1.PodList
	for _, l := range []client.ObjectList{&list, &pods} {
		err := api.List(ctx, l, client.InNamespace(namespace), client.MatchingLabels{v1alpha1.LabelParser: name})
		if err != nil {
			return nil, nil, fmt.Errorf("listing the revisions and pods of %s/%s: %w", namespace, name, err)
		}
	}
	return obj, revisionsOf(obj, list.Items, pods.Items), nil
}

func (r *runner) rolloutHistory(ctx context.Context, name string) error {
	api, namespace, err := r.client()
	if err != nil {
		return err
	}
	obj, revisions, err := r.history(ctx, api, namespace, name)
	if err != nil {
		return err
	}
	say(r.streams.Out, "%s", renderHistory(r.screen(), obj, revisions, r.now()))
	return nil
}

func (r *runner) rolloutUndo(ctx context.Context, name string, number int64, dryRun bool) error {
	api, namespace, err := r.client()
	if err != nil {
		return err
	}
	obj, revisions, err := r.history(ctx, api, namespace, name)
	if err != nil {
		return err
	}
	to, err := chosen(obj, revisions, number)
	if err != nil {
		return err
	}
	next, err := undone(obj, to)
	if err != nil {
		return err
	}
	changed := changes(&obj.Spec, &next.Spec)
	if len(changed) == 0 {
		return fmt.Errorf("the spec of %s is that of revision %d already", name, to.object.Revision)
	}
	for _, change := range changed {
		say(r.streams.ErrOut, "%s\n", printable(change))
	}
	r.warnOfGit(obj, "change the spec there too, or the next sync reverts this")
	// Only the differences are sent, so that fields that this program does not know stay, and only if the object is still
	// the one that was read.
	options := []client.PatchOption{client.FieldOwner(fieldManager)}
	suffix := ""
	if dryRun {
		options, suffix = append(options, client.DryRunAll), " (server dry run)"
	}
	patch := client.MergeFromWithOptions(obj, client.MergeFromWithOptimisticLock{})
	if err := api.Patch(ctx, next, patch, options...); err != nil {
		return fmt.Errorf("patching HyperliquidParser %s/%s: %w", namespace, name, err)
	}
	say(r.streams.Out, "hyperliquidparser.%s/%s rolled back to revision %d%s\n", v1alpha1.GroupVersion.Group, name,
		to.object.Revision, suffix)
	return nil
}
