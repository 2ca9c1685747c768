package kubectl

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// action changes an object as one of the actions of config/argocd does.
type action struct {
	name, short, done string
	// patch returns the merge patch of the action, or why the object does not offer it.
	patch func(obj *v1alpha1.HyperliquidParser, now time.Time) (map[string]any, error)
	// field is what must not be in git, or a sync of Argo CD or Flux reverts the action.
	field string
}

// pausedField is the JSON name of spec.paused.
const pausedField = "paused"

func annotate(name, value string) map[string]any {
	return map[string]any{"metadata": map[string]any{"annotations": map[string]any{name: value}}}
}

// actions returns the actions on an object.
func actions() []action {
	return []action{
		{
			name: "restart", short: "Replace all parsers, within rollout.maxUnavailable and without a canary",
			done: "will be restarted", field: "the annotation " + v1alpha1.AnnotationRestartedAt,
			patch: func(_ *v1alpha1.HyperliquidParser, now time.Time) (map[string]any, error) {
				return annotate(v1alpha1.AnnotationRestartedAt, now.UTC().Format(time.RFC3339)), nil
			},
		},
		{
			name: "pause", short: "Stop rollouts and restarts; missing parsers are still created", done: "paused",
			field: "spec.paused",
			patch: func(obj *v1alpha1.HyperliquidParser, _ time.Time) (map[string]any, error) {
				if obj.Spec.Paused {
					return nil, fmt.Errorf("%s is paused already", obj.Name)
				}
				return map[string]any{"spec": map[string]any{pausedField: true}}, nil
			},
		},
		{
			name: "resume", short: "End a pause", done: "resumed", field: "spec.paused",
			patch: func(obj *v1alpha1.HyperliquidParser, _ time.Time) (map[string]any, error) {
				if !obj.Spec.Paused {
					return nil, fmt.Errorf("%s is not paused", obj.Name)
				}
				return map[string]any{"spec": map[string]any{pausedField: nil}}, nil
			},
		},
		{
			name: "promote", short: "End the soak of the canaries, or roll their revision out although they failed",
			done: "promoted", field: "the annotation " + v1alpha1.AnnotationPromote, patch: promotion,
		},
		{
			name: "acknowledge", short: "Acknowledge the losses that the status shows", done: "losses acknowledged",
			field: "the annotation " + v1alpha1.AnnotationAcknowledgeLoss,
			patch: func(obj *v1alpha1.HyperliquidParser, _ time.Time) (map[string]any, error) {
				newest := unacknowledged(&obj.Status)
				if newest == "" {
					return nil, fmt.Errorf("%s has no loss to acknowledge", obj.Name)
				}
				return annotate(v1alpha1.AnnotationAcknowledgeLoss, newest), nil
			},
		},
	}
}

// promotion returns the patch that promotes the update revision.
func promotion(obj *v1alpha1.HyperliquidParser, _ time.Time) (map[string]any, error) {
	revision := obj.Status.UpdateRevision
	reconciling := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionReconciling)
	stalled := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionStalled)
	soaks := reconciling != nil && reconciling.Status == metav1.ConditionTrue &&
		reconciling.Reason == v1alpha1.ReasonCanarySoaking
	failed := stalled != nil && stalled.Status == metav1.ConditionTrue && stalled.Reason == v1alpha1.ReasonCanaryFailed
	switch {
	case revision == "" || !soaks && !failed:
		return nil, fmt.Errorf("%s has no canaries that soak or have failed", obj.Name)
	case obj.Annotations[v1alpha1.AnnotationPromote] == revision:
		return nil, fmt.Errorf("%s was promoted before, which counts for that rollout alone: remove it with\n"+
			"  kubectl annotate hlp %s -n %s %s-\nand promote again", revision, obj.Name, obj.Namespace,
			v1alpha1.AnnotationPromote)
	}
	return annotate(v1alpha1.AnnotationPromote, revision), nil
}

// unacknowledged returns the time of the newest loss that is not acknowledged; "" for none.
func unacknowledged(st *v1alpha1.HyperliquidParserStatus) string {
	var newest time.Time
	for i := range st.Losses {
		if l := &st.Losses[i]; !l.Acknowledged && l.Since.After(newest) {
			newest = l.Since.Time
		}
	}
	if newest.IsZero() {
		return ""
	}
	return newest.UTC().Format(time.RFC3339)
}

// owners are the field managers, labels and annotations by which tools that apply objects from git are known.
var owners = []struct{ tool, label, annotation, manager string }{
	{"Argo CD", "argocd.argoproj.io/instance", "argocd.argoproj.io/tracking-id", "argocd-controller"},
	{"Flux", "kustomize.toolkit.fluxcd.io/name", "", "kustomize-controller"},
	{"Flux", "helm.toolkit.fluxcd.io/name", "", "helm-controller"},
}

// managedBy returns the tool that applies an object from git; "" for none.
func managedBy(obj *v1alpha1.HyperliquidParser) string {
	for _, o := range owners {
		if obj.Labels[o.label] != "" || o.annotation != "" && obj.Annotations[o.annotation] != "" {
			return o.tool
		}
		for _, f := range obj.ManagedFields {
			if f.Manager == o.manager {
				return o.tool
			}
		}
	}
	return ""
}

// fieldManager owns the fields that the actions write.
const fieldManager = "kubectl-hlp"

// act carries an action out.
func (r *runner) act(ctx context.Context, a action, name string, dryRun bool) error {
	api, namespace, err := r.client()
	if err != nil {
		return err
	}
	obj := &v1alpha1.HyperliquidParser{}
	if err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, obj); err != nil {
		return fmt.Errorf("getting HyperliquidParser %s/%s: %w", namespace, name, err)
	}
	patch, err := a.patch(obj, r.now())
	if err != nil {
		return err
	}
	r.warnOfGit(obj, fmt.Sprintf("leave %s out of git, or the next sync reverts this", a.field))
	return r.patch(ctx, api, obj, patch, dryRun, a.done)
}

func (r *runner) warnOfGit(obj *v1alpha1.HyperliquidParser, text string) {
	if tool := managedBy(obj); tool != "" {
		say(r.streams.ErrOut, "Warning: %s applies %s from git: %s\n", tool, obj.Name, text)
	}
}

// patch applies a merge patch to an object, and says so.
func (r *runner) patch(
	ctx context.Context, api client.Client, obj *v1alpha1.HyperliquidParser, patch map[string]any, dryRun bool,
	done string,
) error {
	text, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encoding a patch: %w", err)
	}
	options := []client.PatchOption{client.FieldOwner(fieldManager)}
	suffix := ""
	if dryRun {
		options, suffix = append(options, client.DryRunAll), " (server dry run)"
	}
	if err := api.Patch(ctx, obj, client.RawPatch(types.MergePatchType, text), options...); err != nil {
		return fmt.Errorf("patching HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
	}
	say(r.streams.Out, "hyperliquidparser.%s/%s %s%s\n", v1alpha1.GroupVersion.Group, obj.Name, done, suffix)
	return nil
}

// dryRunOf reads the value of --dry-run.
func dryRunOf(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "none", "":
		return false, nil
	case "server":
		return true, nil
	}
	return false, usagef("--dry-run is %q: write server or none", value)
}
