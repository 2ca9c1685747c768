package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// Keys that hold no target's record: no node's name begins with an underscore.
const (
	// totalKey holds the number of restarts since the object was created.
	totalKey = "_total"
	// trialsKey holds what restarts were good for.
	trialsKey = "_trials"
)

// ledger is the ConfigMap <name>-restarts: what must be known of restarts whoever leads. The zero value is that of an object without
// one.
type ledger struct {
	records plan.Ledger
	trials  plan.Trials
	total   int32
	// resourceVersion of what was read: a leader that has not seen another's write must not write over it. "" when there is none.
	resourceVersion string
}

func ledgerName(obj *v1alpha1.HyperliquidParser) string { return obj.Name + "-restarts" }

// readLedger never fails: a record that somebody has spoilt is left out, and said.
func readLedger(m *corev1.ConfigMap, log logr.Logger) ledger {
	l := ledger{records: plan.Ledger{}, resourceVersion: m.ResourceVersion}
	for _, name := range slices.Sorted(maps.Keys(m.Data)) {
		text := m.Data[name]
		if name == totalKey {
			if n, err := strconv.ParseInt(text, 10, 32); err == nil {
				l.total = int32(n)
			}
			continue
		}
		if name == trialsKey {
			trials, err := plan.DecodeTrials(text)
			if err != nil {
				log.Error(err, "ignoring the trials of restarts", "configMap", m.Name)
			}
			l.trials = trials
			continue
		}
		record, err := plan.DecodeRecord(text)
		if err != nil {
			log.Error(err, "ignoring a record of restarts", "configMap", m.Name, "target", name)
			continue
		}
		l.records[name] = record
	}
	return l
}

// writeLedger replaces the ledger. It fails with a conflict when somebody else has written it since it was read.
func (r *Reconciler) writeLedger(ctx context.Context, obj *v1alpha1.HyperliquidParser, l ledger) error {
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:            ledgerName(obj),
			Namespace:       obj.Namespace,
			ResourceVersion: l.resourceVersion,
			Labels:          map[string]string{v1alpha1.LabelParser: obj.Name, v1alpha1.LabelComponent: v1alpha1.ComponentRestarts},
		},
		Data: map[string]string{totalKey: strconv.Itoa(int(l.total))},
	}
	if len(l.trials.Causes) > 0 {
		text, err := l.trials.Encode()
		if err != nil {
			return fmt.Errorf("encoding the trials of restarts: %w", err)
		}
		m.Data[trialsKey] = text
	}
	for name, record := range l.records {
		text, err := record.Encode()
		if err != nil {
			return fmt.Errorf("encoding the restarts of %s: %w", name, err)
		}
		m.Data[name] = text
	}
	if err := controllerutil.SetControllerReference(obj, m, r.Client.Scheme()); err != nil {
		return fmt.Errorf("setting the owner of ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	var err error
	if l.resourceVersion == "" {
		err = r.Client.Create(ctx, m)
	} else {
		err = r.Client.Update(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("recording restarts in ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}
