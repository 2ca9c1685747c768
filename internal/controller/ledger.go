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
	var spoilt []string
	var first error
	for _, name := range slices.Sorted(maps.Keys(m.Data)) {
		text := m.Data[name]
		if name == totalKey {
			if n, err := strconv.ParseInt(text, 10, 32); err == nil {
				l.total = int32(max(n, 0))
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
			if first == nil {
				first = err
			}
			spoilt = append(spoilt, name)
			continue
		}
		l.records[name] = record
	}
	if first != nil {
		// Together, for they may be thousands.
		log.Error(first, "ignoring records of restarts", "configMap", m.Name, "records", len(spoilt), "first", spoilt[0])
	}
	return l
}

// boundTotal holds the total to what the status says and the records show: the operator writes the status in the look
// in which it records restarts, so the ledger is ahead by what one leader left undone, a restart of each target at the
// most.
func (l *ledger) boundTotal(obj *v1alpha1.HyperliquidParser, s *seen) {
	ahead := 0
	for name := range l.records {
		if _, ok := s.index(name); ok || !s.known {
			ahead++
		}
	}
	l.total = int32(min(int64(l.total), int64(obj.Status.Restarts)+int64(ahead), math.MaxInt32))
}

// maxLedger bounds the records that are written, in bytes: an object may have 1 MiB, and trials may take a
// quarter.
const maxLedger = 700 << 10

// encode returns the records as they are written. Where they are too many, the oldest are left out: what must outlive a
// leader is new.
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

// writeLedger replaces the ledger. It fails with a conflict when somebody else has written it since it was read.
func (r *Reconciler) writeLedger(ctx context.Context, obj *v1alpha1.HyperliquidParser, l ledger) error {
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:            ledgerName(obj),
			Namespace:       obj.Namespace,
			ResourceVersion: l.resourceVersion,
			Labels:          map[string]string{v1alpha1.LabelParser: obj.Name, v1alpha1.LabelComponent: v1alpha1.ComponentRestarts},
		},
	}
	var err error
	if m.Data, err = encode(l.records); err != nil {
		return err
	}
	m.Data[totalKey] = strconv.Itoa(int(l.total))
	if len(l.trials.Causes) > 0 {
		text, err := l.trials.Encode()
		if err != nil {
			return fmt.Errorf("encoding the trials of restarts: %w", err)
		}
		if len(text) <= plan.MaxTrials { // otherwise nothing was learnt
			m.Data[trialsKey] = text
		}
	}
	if err := controllerutil.SetControllerReference(obj, m, r.Client.Scheme()); err != nil {
		return fmt.Errorf("setting the owner of ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
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

// record writes the restarts and trials of this plan into the ledger, and drops records that have served their time.
// It reports whether that is done: nothing may be restarted unless it is.
func (r *Reconciler) record(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, next plan.Result,
) (outcome, bool) {
	l := s.ledger
	l.records = maps.Clone(l.records)
	if l.records == nil {
		l.records = plan.Ledger{}
	}
	// A ledger that somebody deleted takes the counts with it, but not the total.
	l.total = max(l.total, obj.Status.Restarts)
	changed := len(next.Forget) > 0 || next.Trials != nil
	if next.Trials != nil {
		l.trials = *next.Trials
	}
	for _, name := range next.Forget {
		delete(l.records, name)
	}
	for _, a := range next.Actions {
		if a.Kind == plan.Restart {
			l.records[a.Target] = a.Record
			if l.total < math.MaxInt32 {
				l.total++
			}
			changed = true
		}
	}
	if !changed {
		return outcome{}, true
	}
	var taken *problem
	written := r.attempt(ctx, obj, s, theLedger, v1alpha1.ReasonWriteRejected, func() error {
		err := r.writeLedger(ctx, obj, l)
		if apierrors.IsAlreadyExists(err) {
			taken, err = r.ledgerTaken(ctx, obj)
		}
		return err
	})
	if taken != nil {
		return outcome{problem: taken, again: r.retryAfter(retryRejected)}, false
	}
	if !written {
		return outcome{}, false
	}
	s.ledger = l
	for _, a := range next.Actions {
		if a.Kind == plan.Restart {
			view := s.views[a.Target]
			now := view.Judgement
			now.Message = ofNow(view)
			loggerFor(ctx, a).Info("restarting", "verdict", now.Verdict, "reason", now.Reason,
				"message", now.Message, "samples", view.Evidence)
			r.Events.restarting(obj, a, now)
		}
	}
	return outcome{}, true
}

// ledgerTaken says why the ledger could not be created: the cache has not yet seen the one that another leader made, or
// ours has lost its labels and is not cached, or it was left behind and is taken up, or the name belongs to somebody
// else.
func (r *Reconciler) ledgerTaken(ctx context.Context, obj *v1alpha1.HyperliquidParser) (*problem, error) {
	m := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: obj.Namespace, Name: ledgerName(obj)}
	if err := r.Live.Get(ctx, key, m); err != nil {
		return nil, fmt.Errorf("reading ConfigMap %s: %w", key, err)
	}
	left, err := r.leftBehind(ctx, obj, m)
	if err != nil {
		return nil, err
	}
	if left {
		if err := r.adoptLedger(ctx, obj, m); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("ConfigMap %s/%s was taken up: %w", m.Namespace, m.Name, errStale)
	}
	if !metav1.IsControlledBy(m, obj) {
		return &problem{v1alpha1.ReasonNameTaken, fmt.Sprintf(
			"ConfigMap %s has the name of the record of restarts and is not ours: delete or rename it", m.Name)}, nil
	}
	if err := r.relabel(ctx, m, v1alpha1.ComponentRestarts, obj); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("ConfigMap %s/%s is not in the cache: %w", m.Namespace, m.Name, errStale)
}

// adoptLedger takes up a ledger that was left behind. Its records say which targets were restarted lately, under any
// owner; its total and its trials are those of another object.
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
		return fmt.Errorf("taking up ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}
