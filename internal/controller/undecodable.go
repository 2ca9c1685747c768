package controller

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/status"
)

// SetAside holds the objects that cannot be decoded, with the reason. It is a prometheus.Collector, and it is safe for
// concurrent use.
type SetAside struct {
	desc *prometheus.Desc
	perObject[string]
}

// NewSetAside returns an empty SetAside.
func NewSetAside() *SetAside {
	return &SetAside{desc: prometheus.NewDesc("hlparser_fleet_undecodable_objects",
		"1 for each HyperliquidParser that the operator ignores because it cannot be decoded.",
		[]string{labelNamespace, labelName}, nil)}
}

// add stores the reason, and reports whether it is new.
func (s *SetAside) add(object types.NamespacedName, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[object] == reason {
		return false
	}
	s.set(object, reason)
	return true
}

// Describe implements prometheus.Collector.
func (s *SetAside) Describe(out chan<- *prometheus.Desc) { out <- s.desc }

// Collect implements prometheus.Collector.
func (s *SetAside) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for object := range s.objects {
		out <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, 1, object.Namespace, object.Name)
	}
}

// setAside handles an object whose metadata alone can be decoded. It leaves the object's pods alone, drops the
// state of the fleet, and reports the problem in ways that need no more than the metadata: the log, an event, a metric,
// and conditions, which it reads and writes without the Go types.
func (r *Reconciler) setAside(ctx context.Context, obj *v1alpha1.HyperliquidParser, reason string) error {
	key := client.ObjectKeyFromObject(obj)
	text := fmt.Sprintf("the object cannot be decoded, and its parsers stay as they are: %s; "+
		"correct the field or delete the object", reason)
	if r.SetAside.add(key, reason) {
		r.forgetFleet(key)
		logf.FromContext(ctx).Info("ignoring an object that cannot be decoded", "reason", reason)
		r.Events.undecodable(obj, text)
	}
	raw := &unstructured.Unstructured{}
	raw.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(parserKind))
	if err := r.APIReader.Get(ctx, key, raw); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("reading HyperliquidParser %s, which cannot be decoded: %w", key, err)
	}
	changed, err := r.stall(raw, text)
	if err != nil || !changed {
		return err
	}
	err = r.Client.Status().Update(ctx, raw, client.DisableReadYourWritesConsistency)
	if apierrors.IsInvalid(err) {
		// Its status is invalid, or it violates a rule of the current schema.
		logf.FromContext(ctx).Info("the API server refuses the conditions of an object that cannot be decoded",
			"error", err.Error())
		return nil
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("writing the conditions of HyperliquidParser %s: %w", key, err)
	}
	return nil
}

// stall sets the conditions of an object that cannot be decoded, unless they are what cannot be decoded, and reports
// whether it changed any.
func (r *Reconciler) stall(raw *unstructured.Unstructured, text string) (changed bool, err error) {
	written, _ := raw.Object["status"].(map[string]any)
	var conditions []metav1.Condition
	data, err := json.Marshal(written["conditions"])
	if err == nil {
		err = json.Unmarshal(data, &conditions)
	}
	if err != nil {
		return false, nil //nolint:nilerr // the conditions are what cannot be decoded
	}
	for kind, value := range map[string]metav1.ConditionStatus{
		v1alpha1.ConditionStalled:     metav1.ConditionTrue,
		v1alpha1.ConditionReady:       metav1.ConditionFalse,
		v1alpha1.ConditionReconciling: metav1.ConditionFalse,
	} {
		condition := metav1.Condition{
			Type: kind, Status: value, Reason: v1alpha1.ReasonUndecodable, Message: text,
			ObservedGeneration: raw.GetGeneration(), LastTransitionTime: metav1.NewTime(r.Clock.Now()),
		}
		changed = meta.SetStatusCondition(&conditions, condition) || changed
	}
	seen, _, err := unstructured.NestedInt64(raw.Object, "status", "observedGeneration")
	stale := err != nil || seen != raw.GetGeneration()
	if !changed && !stale {
		return false, nil
	}
	status.SortConditions(conditions)
	if data, err = json.Marshal(conditions); err != nil {
		return false, fmt.Errorf("encoding conditions: %w", err)
	}
	var plain []any // integers stay integers
	if err := json.Unmarshal(data, &plain); err != nil {
		return false, fmt.Errorf("encoding conditions: %w", err)
	}
	if written == nil {
		written = map[string]any{}
		raw.Object["status"] = written
	}
	if stale {
		written["observedGeneration"] = raw.GetGeneration()
		delete(written, "updateRevision") // which is that of an earlier generation
	}
	written["conditions"] = plain
	written["state"] = v1alpha1.StateStalled
	written["story"] = prose.Line(v1alpha1.ReasonUndecodable+": "+text, status.MaxStory)
	return true, nil
}

// undecodable sends the event of an object that cannot be decoded.
func (e *Events) undecodable(obj *v1alpha1.HyperliquidParser, text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emit(obj, "", "", corev1.EventTypeWarning, v1alpha1.ReasonUndecodable, "Reconcile", text)
}
