package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/status"
)

// report updates the log, the metrics and the events, and then writes the status if it differs: alerts do not wait for
// a write that may be refused. It returns when a suppressed event is due; zero for never.
func (r *Reconciler) report(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, next plan.Result, t *attempts,
	after v1alpha1.HyperliquidParserStatus,
) (requeueAt time.Time) {
	before := obj.Status
	for _, c := range r.Events.changes(obj, f) {
		logf.FromContext(ctx).WithValues("target", c.target).Info(c.text, c.values...)
	}
	r.Metrics.set(obj, f, next, after)
	r.Events.conditions(obj, before, withCurrentFigures(after, f, next))
	r.Events.rollout(obj, next, after)
	r.Events.judgements(obj, f)
	r.Events.outage(obj, next)
	requeueAt = r.Events.due(client.ObjectKeyFromObject(obj))
	if !equality.Semantic.DeepEqual(before, after) {
		r.attempt(ctx, obj, t, theStatus, v1alpha1.ReasonWriteRejected, func() error {
			return r.writeStatus(ctx, obj, after)
		})
		r.reportStatusFailure(obj)
	}
	return requeueAt
}

// reportUnsynced reports that it is unknown which targets an object has. Nothing is decided or done meanwhile: pods
// stay, figures and verdicts in the status stay, and the watch requeues the object. requeueAfter is when to report it
// if the API server is only slow.
func (r *Reconciler) reportUnsynced(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet,
) (requeueAfter time.Duration, err error) {
	at := f.Unsynced.Since.Add(quietSync)
	if !f.Unsynced.Refused && f.Now.Before(at) {
		return r.until(at), nil
	}
	after := status.OfUnsynced(obj, f)
	r.Metrics.unseen(obj, f.Now, after)
	r.Events.conditions(obj, obj.Status, after)
	if !equality.Semantic.DeepEqual(obj.Status, after) {
		if err := r.writeStatus(ctx, obj, after); err != nil {
			return 0, fmt.Errorf("writing the status of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
		}
	}
	return r.until(r.Events.due(client.ObjectKeyFromObject(obj))), nil
}

// writeStatus writes the status. If the API server refuses it, it is written again without the texts of others:
// everything else depends on its counts, its reasons and its revision.
func (r *Reconciler) writeStatus(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, after v1alpha1.HyperliquidParserStatus,
) error {
	write := func(after v1alpha1.HyperliquidParserStatus) error {
		changed := obj.DeepCopy()
		changed.Status = after
		return client.IgnoreNotFound(r.Client.Status().Update(ctx, changed)) // it was deleted meanwhile
	}
	err := write(after)
	if !statusRefused(err) {
		return err
	}
	bare := status.WithoutTexts(after)
	if equality.Semantic.DeepEqual(obj.Status, bare) {
		return nil // the object has it already
	}
	logf.FromContext(ctx).Error(err, "the API server refuses the status, which is written without its texts")
	if bareErr := write(bare); bareErr != nil {
		return errors.Join(err, fmt.Errorf("without its texts: %w", bareErr))
	}
	return nil
}

// statusRefused reports whether the API server refuses a status because of its content.
func statusRefused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsBadRequest(err) ||
		err != nil && strings.Contains(err.Error(), "etcdserver: request is too large")
}

func loggerFor(ctx context.Context, a plan.Action) logr.Logger {
	return logf.FromContext(ctx).WithValues("target", a.Target, "pod", a.Pod, "why", a.Why)
}
