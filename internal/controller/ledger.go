package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// Keys of data other than a target's record. No node name begins with an underscore.
const (
	// totalKey holds the number of restarts since the object was created.
	totalKey = "_total"
	// trialsKey holds whether restarts helped.
	trialsKey = "_trials"
)

func ledgerName(obj *v1alpha1.HyperliquidParser) string { return obj.Name + "-restarts" }

// readLedger decodes the ledger. It ignores and logs records that cannot be decoded.
func readLedger(m *corev1.ConfigMap, log logr.Logger) observed.Ledger {
	l := observed.Ledger{Records: plan.Ledger{}, ResourceVersion: m.ResourceVersion}
	var invalid []string
	var first error
	for _, name := range slices.Sorted(maps.Keys(m.Data)) {
		text := m.Data[name]
		if name == totalKey {
			if n, err := strconv.ParseInt(text, 10, 32); err == nil {
				l.Total = int32(max(n, 0))
			}
			continue
		}
		if name == trialsKey {
			trials, err := plan.DecodeTrials(text)
			if err != nil {
				log.Error(err, "ignoring the trials of restarts", "configMap", m.Name)
			}
			l.Trials = trials
			continue
		}
		record, err := plan.DecodeRecord(text)
		if err != nil {
			if first == nil {
				first = err
			}
			invalid = append(invalid, name)
			continue
		}
		l.Records[name] = record
	}
	if first != nil {
		// In one line, since they may be thousands.
		log.Error(first, "ignoring records of restarts", "configMap", m.Name, "records", len(invalid), "first", invalid[0])
	}
	return l
}

// boundTotal bounds the total by the status and the records. The operator writes the status in the reconcile that
// records restarts, so the ledger is ahead by at most what one leader left undone: one restart of each target.
func boundTotal(l *observed.Ledger, obj *v1alpha1.HyperliquidParser, f *observed.Fleet) {
	ahead := 0
	for name := range l.Records {
		if _, ok := f.Index(name); ok || !f.Known {
			ahead++
		}
	}
	l.Total = int32(min(int64(l.Total), int64(obj.Status.Restarts)+int64(ahead), math.MaxInt32))
}

// maxLedger bounds the records that are written, in bytes: an object may have 1 MiB, and trials may take a quarter of
// it.
const maxLedger = 700 << 10

// encode returns the records as they are written. If they are too many, it drops the oldest: only recent records must
// survive a change of leader.
func encode(records plan.Ledger) (map[string]string, error) {
	out := make(map[string]string, len(records))
	size := 0
	for name, record := range records {
		text, err := record.Encode()
		if err != nil {
			return nil, fmt.Errorf("encoding the restarts of %s: %w", name, err)
		}
		out[name] = text
		size += len(name) + len(text)
	}
	if size <= maxLedger {
		return out, nil
	}
	oldest := slices.SortedFunc(maps.Keys(out), func(a, b string) int {
		return cmp.Or(records[a].Last().Compare(records[b].Last()), cmp.Compare(a, b))
	})
	for _, name := range oldest {
		if size <= maxLedger {
			break
		}
		size -= len(name) + len(out[name])
		delete(out, name)
	}
	return out, nil
}

// writeLedger replaces the ledger. It fails with a conflict if the ledger has been written since it was read.
func (r *Reconciler) writeLedger(ctx context.Context, obj *v1alpha1.HyperliquidParser, l observed.Ledger) error {
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:            ledgerName(obj),
			Namespace:       obj.Namespace,
			ResourceVersion: l.ResourceVersion,
			Labels: map[string]string{
				v1alpha1.LabelParser: obj.Name, v1alpha1.LabelComponent: v1alpha1.ComponentRestarts,
			},
		},
	}
	var err error
	if m.Data, err = encode(l.Records); err != nil {
		return err
	}
	m.Data[totalKey] = strconv.Itoa(int(l.Total))
	if len(l.Trials.Causes) > 0 {
		text, err := l.Trials.Encode()
		if err != nil {
			return fmt.Errorf("encoding the trials of restarts: %w", err)
		}
		if len(text) <= plan.MaxTrials { // trials that are too large are not kept
			m.Data[trialsKey] = text
		}
	}
	if err := controllerutil.SetControllerReference(obj, m, r.Client.Scheme()); err != nil {
		return fmt.Errorf("setting the owner of ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	if l.ResourceVersion == "" {
		err = r.Client.Create(ctx, m)
	} else {
		err = r.Client.Update(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("recording restarts in ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}

// record writes the restarts and trials of a plan into the ledger, and drops records that are no longer needed. It
// returns the ledger as it is afterwards, and whether it was written: otherwise nothing may be restarted.
func (r *Reconciler) record(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, next plan.Result, t *attempts,
) (ledger observed.Ledger, recorded bool, done outcome) {
	l := f.Ledger
	l.Records = maps.Clone(l.Records)
	if l.Records == nil {
		l.Records = plan.Ledger{}
	}
	// The total survives the deletion of the ledger, since the status has it too.
	l.Total = max(l.Total, obj.Status.Restarts)
	changed := len(next.Forget) > 0 || next.Trials != nil
	if next.Trials != nil {
		l.Trials = *next.Trials
	}
	for _, name := range next.Forget {
		delete(l.Records, name)
	}
	for _, a := range next.Actions {
		if a.Kind == plan.Restart {
			l.Records[a.Target] = a.Record
			if l.Total < math.MaxInt32 {
				l.Total++
			}
			changed = true
		}
	}
	if !changed {
		return f.Ledger, true, outcome{}
	}
	var taken *problem
	written := r.attempt(ctx, obj, t, theLedger, v1alpha1.ReasonWriteRejected, func() error {
		err := r.writeLedger(ctx, obj, l)
		if apierrors.IsAlreadyExists(err) {
			taken, err = r.ledgerTaken(ctx, obj)
		}
		return err
	})
	if taken != nil {
		return f.Ledger, false, outcome{problem: taken, requeueAt: r.retryAt(retryRejected)}
	}
	if !written {
		return f.Ledger, false, outcome{}
	}
	for _, a := range next.Actions {
		if a.Kind == plan.Restart {
			view := f.Views[a.Target]
			now := view.Judgement
			now.Message = currentMessage(view)
			loggerFor(ctx, a).Info("restarting", "verdict", now.Verdict, "reason", now.Reason,
				"message", now.Message, "samples", view.Evidence)
			r.Events.restarting(obj, a, now)
		}
	}
	return l, true, outcome{}
}

// ledgerTaken handles the ConfigMap that has the name of the ledger to be created. The cache may not show yet what
// another leader created; or the ledger has lost the labels by which the cache shows it, which ledgerTaken restores; or
// it was left behind, and ledgerTaken adopts it. Any other ConfigMap is the returned problem.
func (r *Reconciler) ledgerTaken(ctx context.Context, obj *v1alpha1.HyperliquidParser) (*problem, error) {
	m := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: obj.Namespace, Name: ledgerName(obj)}
	if err := r.APIReader.Get(ctx, key, m); err != nil {
		return nil, fmt.Errorf("reading ConfigMap %s: %w", key, err)
	}
	orphaned, err := r.leftBehind(ctx, obj, m)
	if err != nil {
		return nil, err
	}
	if orphaned {
		if err := r.adoptLedger(ctx, obj, m); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("ConfigMap %s/%s was adopted: %w", m.Namespace, m.Name, errStale)
	}
	if !metav1.IsControlledBy(m, obj) {
		return nameTaken("ConfigMap", m.Name, "record of restarts"), nil
	}
	if err := r.relabel(ctx, m, v1alpha1.ComponentRestarts, obj); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("ConfigMap %s/%s is not in the cache: %w", m.Namespace, m.Name, errStale)
}

// adoptLedger adopts a ledger that was left behind. It keeps the records, which show the recent restarts of targets
// under any owner, but not the total and the trials of another object.
func (r *Reconciler) adoptLedger(ctx context.Context, obj *v1alpha1.HyperliquidParser, m *corev1.ConfigMap) error {
	if m.DeletionTimestamp != nil {
		return ending("ConfigMap", m)
	}
	delete(m.Data, totalKey)
	delete(m.Data, trialsKey)
	if err := r.own(obj, m); err != nil {
		return err
	}
	m.Labels[v1alpha1.LabelComponent] = v1alpha1.ComponentRestarts
	if err := r.Client.Update(ctx, m); err != nil {
		return fmt.Errorf("adopting ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}
