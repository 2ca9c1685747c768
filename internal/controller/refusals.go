package controller

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/fair"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

// The operator retries each operation that the API server refuses or fails, and quotes its message in the status. This
// file decides when to retry and what to report. A failed operation blocks only the operations that depend on it.
//
// An operation is refused until somebody changes something, such as a quota, a policy or a webhook that denies. The
// object is Stalled then. Other failures, such as an unavailable webhook, a conflict or a timeout, may pass. The object
// is Reconciling then, once the failure has lasted for reportAfter.

const (
	// firstConflict and firstFailure are the first delay before a retry. It is short after a conflict, which is over. The
	// delay doubles up to maxBackoff and has jitter of half of itself, so a recovery is detected within half a minute.
	firstConflict = 100 * time.Millisecond
	firstFailure  = time.Second
	maxBackoff    = 20 * time.Second
	// maxBackoffAway replaces maxBackoff while the API server does not answer at all. A request costs an unreachable API
	// server nothing, and all retries are due within seconds of its return.
	maxBackoffAway = 5 * time.Second
	// reportAfter is how long a failure lasts before it is reported. Shorter ones are not worth a report.
	reportAfter = 2 * time.Second
	// keepMessage is how long the first message of a failure is reported although later messages differ. Figures and ports
	// in them change with every attempt, and the status must not change with every attempt.
	keepMessage = 5 * time.Minute
	// maxRefusalMessage bounds the stored message of the API server, in bytes: half of a condition's message.
	maxRefusalMessage = prose.MaxCondition / 2
	// maxCreateFailures is the number of failed pod creates after which a reconcile attempts no more.
	maxCreateFailures = 3
	// statusTime is the part of a reconcile's time that is reserved for the status.
	statusTime = 10 * time.Second
)

// failure is an operation that did not succeed, and why.
type failure struct {
	operation string
	reason    string // of the condition
	message   string
	since     time.Time
	refused   bool // until somebody changes something
}

// refusals holds the failed operations of each object, by the operation's name. It is safe for concurrent use.
type refusals struct{ perObject[map[string]*refusal] }

// refusal is a failed operation, from its first failure until it succeeds or is no longer wanted.
type refusal struct {
	failure
	status    metav1.StatusReason // of the API server
	messageAt time.Time           // when message was set
	attempts  int
	due       time.Time // of the next attempt
	sent      bool      // as an event
}

// keep drops the operations that the last reconcile did not want.
func (r *refusals) keep(object types.NamespacedName, wanted map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.objects[object], func(operation string, _ *refusal) bool { return !wanted[operation] })
	if len(r.objects[object]) == 0 {
		delete(r.objects, object)
	}
}

// succeeded drops an operation.
func (r *refusals) succeeded(object types.NamespacedName, operation string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.objects[object], operation)
}

// backsOff returns the time of the next attempt of an operation. ok is false if the operation may be attempted now.
func (r *refusals) backsOff(object types.NamespacedName, operation string, now time.Time) (until time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	is := r.objects[object][operation]
	if is == nil || !now.Before(is.due) {
		return time.Time{}, false
	}
	return is.due, true
}

// list returns the failures of some operations, the oldest first.
func (r *refusals) list(object types.NamespacedName, operations map[string]bool) []failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []failure
	for operation, is := range r.objects[object] {
		if operations[operation] {
			out = append(out, is.failure)
		}
	}
	slices.SortFunc(out, func(a, b failure) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.operation, b.operation))
	})
	return out
}

// failed records a failure, and returns the time of the next attempt. reason is the reason of the condition if the API
// server refuses the operation.
func (r *refusals) failed(object types.NamespacedName, operation, reason string, err error, now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.objects[object] == nil {
		r.set(object, map[string]*refusal{})
	}
	is := r.objects[object][operation]
	if is == nil {
		is = &refusal{failure: failure{operation: operation, since: now}}
		r.objects[object][operation] = is
	}
	status := apierrors.ReasonForError(err)
	if is.attempts == 0 || status != is.status || now.Sub(is.messageAt) >= keepMessage {
		is.message, is.status, is.messageAt = prose.Ends(err.Error(), maxRefusalMessage), status, now
	}
	is.refused, is.reason = stalls(err), reason
	if !is.refused {
		is.reason = v1alpha1.ReasonWriteFailing
	}
	wait := firstFailure
	if isConflict(err) {
		wait = firstConflict
	}
	if suggested, ok := apierrors.SuggestsClientDelay(err); ok {
		wait = max(wait, time.Duration(suggested)*time.Second)
	}
	longest := maxBackoff
	if status == metav1.StatusReasonUnknown && !isConflict(err) {
		longest = maxBackoffAway
	}
	for range is.attempts {
		if wait >= longest {
			break
		}
		wait *= 2
	}
	is.attempts++
	is.due = now.Add(fair.Jittered(min(wait, longest)))
	return is.due
}

// eventDue reports whether to send the event of a failure: once, when it has lasted.
func (r *refusals) eventDue(object types.NamespacedName, operation string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	is := r.objects[object][operation]
	if is == nil || is.sent || !is.reportable(now) {
		return false
	}
	is.sent = true
	return true
}

// reportable reports whether a failure has lasted long enough to be reported.
func (f *failure) reportable(now time.Time) bool { return f.refused || now.Sub(f.since) >= reportAfter }

// isConflict reports whether an error means that another client wrote at the same time, or that the cache does not yet
// have such a write.
func isConflict(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsNotFound(err) || errors.Is(err, errStale)
}

// stalls reports whether the API server refuses an operation, because of its content or its client, until somebody
// changes something. Three errors are no such refusal: a quota whose usage is not computed yet, a server that does not
// authenticate us now, and an object that is gone.
func stalls(err error) bool {
	return refused(err) && !apierrors.IsUnauthorized(err) && !apierrors.IsNotFound(err) && !errors.Is(err, errStale) &&
		!strings.Contains(err.Error(), "status unknown for quota")
}

// terminating reports whether an object could not be created because its namespace is being deleted.
func terminating(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// attempt runs an operation unless it backs off after a failure. It reports whether the operation succeeded. reason is
// the reason of the condition if the API server refuses it.
func (r *Reconciler) attempt(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, t *attempts, operation, reason string, do func() error,
) bool {
	return !r.backsOff(obj, t, operation) && r.finish(ctx, obj, t, operation, reason, do())
}

// backsOff reports whether an operation must not be attempted yet.
func (r *Reconciler) backsOff(obj *v1alpha1.HyperliquidParser, t *attempts, operation string) bool {
	t.touch(operation)
	until, ok := r.refusals.backsOff(client.ObjectKeyFromObject(obj), operation, r.Clock.Now())
	t.requeue(until)
	return ok
}

// finish records the result of an operation, and reports whether it succeeded.
func (r *Reconciler) finish(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, t *attempts, operation, reason string, err error,
) bool {
	t.touch(operation)
	key := client.ObjectKeyFromObject(obj)
	switch {
	case err == nil:
		r.refusals.succeeded(key, operation)
		return true
	case errors.Is(ctx.Err(), context.Canceled): // the operator stops
		return false
	}
	until := r.refusals.failed(key, operation, reason, err, r.Clock.Now())
	t.requeue(until)
	log := logf.FromContext(ctx).WithValues("operation", operation, "retryAt", until)
	if isConflict(err) {
		log.Info("write conflict, retrying", "error", err.Error())
	} else {
		log.Error(err, "operation failed, retrying")
	}
	return false
}

// reportFailures returns the refusal that stalls the object and the failure to report, and sends an event about the
// latter. Either is nil for none. Of several it is the oldest, so that the status does not change between them.
func (r *Reconciler) reportFailures(obj *v1alpha1.HyperliquidParser, t *attempts) (stalling, failing *problem) {
	key, now := client.ObjectKeyFromObject(obj), r.Clock.Now()
	for _, f := range append(r.refusals.list(key, t.touched), t.unread...) {
		switch {
		case f.refused:
			if stalling == nil {
				stalling = &problem{Reason: f.reason, Message: f.message}
			}
		case !f.reportable(now):
			t.requeue(f.since.Add(reportAfter))
		case failing == nil:
			failing = &problem{Reason: f.reason, Message: f.message}
			if r.refusals.eventDue(key, f.operation, now) {
				r.Events.failing(obj, f.message)
			}
		}
	}
	return stalling, failing
}

// reportStatusFailure sends an event if the status cannot be written, since the status cannot report that.
func (r *Reconciler) reportStatusFailure(obj *v1alpha1.HyperliquidParser) {
	key := client.ObjectKeyFromObject(obj)
	for _, f := range r.refusals.list(key, map[string]bool{theStatus: true}) {
		if r.refusals.eventDue(key, theStatus, r.Clock.Now()) {
			r.Events.failing(obj, f.message)
		}
	}
}

// failing sends an event about an operation that the API server fails.
func (e *Events) failing(obj *v1alpha1.HyperliquidParser, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emit(obj, "", "", corev1.EventTypeWarning, v1alpha1.ReasonWriteFailing, "Reconcile", message)
}

// reserveStatusTime shortens a reconcile's deadline by statusTime, so that time remains to write the status.
func reserveStatusTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, deadline.Add(-statusTime))
	}
	return context.WithCancel(ctx)
}
