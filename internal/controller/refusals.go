package controller

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
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

// What the API server refuses, or fails to do, is said with its words and tried again. This file decides when, and
// what is said. A thing that cannot be done holds up nothing that does not need it.
//
// Refused is what somebody must change: a quota, a policy, a webhook that denies. The object is Stalled then. What
// fails may be well the next time: a webhook that is down, a conflict, a time limit. The object is Reconciling then,
// once that lasts.

const (
	// firstConflict and firstFailure are how long after it failed a thing is tried again: one that met another write
	// soon, since that is over. The time doubles up to longestWait, and each has jitter of half of itself: so what
	// was wrong is noticed to be well within half a minute.
	firstConflict = 100 * time.Millisecond
	firstFailure  = time.Second
	longestWait   = 20 * time.Second
	// longestAway takes the place of longestWait while no answer comes at all: to ask costs an API server that is away
	// nothing, and when it is back, all that waits is due within seconds.
	longestAway = 5 * time.Second
	// sayAfter is how long a thing fails before that is said: what is over by then is no news.
	sayAfter = 2 * time.Second
	// keepWords is how long what the API server says is said on though it says it in other words: figures and ports
	// in them change with every try, and a status that is written with every try is no rest.
	keepWords = 5 * time.Minute
	// maxWords bounds what is kept of the API server's words, in bytes: half of what a condition takes.
	maxWords = prose.MaxCondition / 2
	// mostFailures is after how many pods that could not be created no others are tried in the same reconcile.
	mostFailures = 3
	// statusTime is what a reconcile keeps of its time to say what took the rest.
	statusTime = 10 * time.Second
)

// undone is a thing that is not done now, and why.
type undone struct {
	what   string
	reason string // of the condition
	words  string
	since  time.Time
	stalls bool // until somebody changes something
}

// refusals remembers what the API server refuses or fails to do, by object. The zero value knows of nothing. It is
// safe for concurrent use.
type refusals struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]map[string]*refusal
}

// refusal is a thing that could not be done, from the first time until it is done, or is to be done no more.
type refusal struct {
	undone
	status metav1.StatusReason // the API server's
	worded time.Time           // when words were taken
	tries  int
	due    time.Time // when it is tried again
	sent   bool      // as an event
}

// forget drops what is remembered of an object that is gone.
func (r *refusals) forget(object types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.objects, object)
}

// keep drops what is remembered of things that were not touched: they are to be done no more.
func (r *refusals) keep(object types.NamespacedName, touched map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for what := range r.objects[object] {
		if !touched[what] {
			delete(r.objects[object], what)
		}
	}
	if len(r.objects[object]) == 0 {
		delete(r.objects, object)
	}
}

// done takes in that a thing was done.
func (r *refusals) done(object types.NamespacedName, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.objects[object], what)
}

// waits returns until when a thing is not to be tried; ok is false where it may be.
func (r *refusals) waits(object types.NamespacedName, what string, now time.Time) (until time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	is := r.objects[object][what]
	if is == nil || !now.Before(is.due) {
		return time.Time{}, false
	}
	return is.due, true
}

// of returns those of some things that could not be done, the one that has lasted longest first.
func (r *refusals) of(object types.NamespacedName, things map[string]bool) []undone {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []undone
	for what, is := range r.objects[object] {
		if things[what] {
			out = append(out, is.undone)
		}
	}
	slices.SortFunc(out, func(a, b undone) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.what, b.what)) })
	return out
}

// failed takes in that a thing could not be done, and returns when to try again. reason is the condition's where the
// API server refuses it.
func (r *refusals) failed(object types.NamespacedName, what, reason string, err error, now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.objects == nil {
		r.objects = map[types.NamespacedName]map[string]*refusal{}
	}
	if r.objects[object] == nil {
		r.objects[object] = map[string]*refusal{}
	}
	is := r.objects[object][what]
	if is == nil {
		is = &refusal{undone: undone{what: what, since: now}}
		r.objects[object][what] = is
	}
	status := apierrors.ReasonForError(err)
	if is.tries == 0 || status != is.status || now.Sub(is.worded) >= keepWords {
		is.words, is.status, is.worded = prose.Ends(err.Error(), maxWords), status, now
	}
	is.stalls, is.reason = stalls(err), reason
	if !is.stalls {
		is.reason = v1alpha1.ReasonWriteFailing
	}
	wait := firstFailure
	if meets(err) {
		wait = firstConflict
	}
	if asked, ok := apierrors.SuggestsClientDelay(err); ok {
		wait = max(wait, time.Duration(asked)*time.Second)
	}
	longest := longestWait
	if status == metav1.StatusReasonUnknown && !meets(err) {
		longest = longestAway
	}
	for range is.tries {
		if wait >= longest {
			break
		}
		wait *= 2
	}
	is.tries++
	is.due = now.Add(fair.Jittered(min(wait, longest)))
	return is.due
}

// news reports whether an event about a thing that is not done is due: once, when it has lasted.
func (r *refusals) news(object types.NamespacedName, what string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	is := r.objects[object][what]
	if is == nil || is.sent || !is.lasts(now) {
		return false
	}
	is.sent = true
	return true
}

// lasts reports whether a failure has lasted long enough to be said.
func (r *undone) lasts(now time.Time) bool { return r.stalls || now.Sub(r.since) >= sayAfter }

// meets reports whether an error says that somebody else wrote at the same time, or that the cache has not seen it.
func meets(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsNotFound(err) || errors.Is(err, errStale)
}

// stalls reports whether the API server refuses a thing until somebody changes something: for what it holds, or for
// who asks. A quota whose use is not counted yet is no refusal, nor is a server that does not know us now, nor a
// thing that is gone.
func stalls(err error) bool {
	return refused(err) && !apierrors.IsUnauthorized(err) && !apierrors.IsNotFound(err) && !errors.Is(err, errStale) &&
		!strings.Contains(err.Error(), "status unknown for quota")
}

// terminating reports whether an object could not be made because its namespace goes, and the operator's with it.
func terminating(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// attempt does a thing, unless it failed and is not to be tried again yet. It reports whether it is done. what names
// the thing among those of the object; reason is the condition's where the API server refuses it.
func (r *Reconciler) attempt(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, t *attempts, what, reason string, do func() error,
) bool {
	return !r.waits(obj, t, what) && r.came(ctx, obj, t, what, reason, do())
}

// waits reports whether a thing is not to be tried yet, which is said.
func (r *Reconciler) waits(obj *v1alpha1.HyperliquidParser, t *attempts, what string) bool {
	t.touch(what)
	until, ok := r.refusals.waits(client.ObjectKeyFromObject(obj), what, r.Clock.Now())
	t.requeue(until)
	return ok
}

// came takes in what a thing came to, and reports whether it is done.
func (r *Reconciler) came(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, t *attempts, what, reason string, err error,
) bool {
	t.touch(what)
	key := client.ObjectKeyFromObject(obj)
	switch {
	case err == nil:
		r.refusals.done(key, what)
		return true
	case errors.Is(ctx.Err(), context.Canceled): // the operator ends
		return false
	}
	until := r.refusals.failed(key, what, reason, err, r.Clock.Now())
	t.requeue(until)
	log := logf.FromContext(ctx).WithValues("what", what, "retryAt", until)
	if meets(err) {
		log.Info("not done, and tried again: somebody wrote at the same time", "error", err.Error())
	} else {
		log.Error(err, "not done, and tried again")
	}
	return false
}

// sayRefused returns what the API server refuses, which stalls the object, and what it fails to do, and sends an event of the latter. Of
// several it is the one that has lasted longest, so that the status rests. Either is nil for none.
func (r *Reconciler) sayRefused(obj *v1alpha1.HyperliquidParser, t *attempts) (stalling, failing *problem) {
	key, now := client.ObjectKeyFromObject(obj), r.Clock.Now()
	for _, why := range append(r.refusals.of(key, t.touched), t.unread...) {
		switch {
		case why.stalls:
			if stalling == nil {
				stalling = &problem{Reason: why.reason, Message: why.words}
			}
		case !why.lasts(now):
			t.requeue(why.since.Add(sayAfter))
		case failing == nil:
			failing = &problem{Reason: why.reason, Message: why.words}
			if r.refusals.news(key, why.what, now) {
				r.Events.failing(obj, why.words)
			}
		}
	}
	return stalling, failing
}

// sayStatusRefused sends an event when the status cannot be written: it cannot say so itself.
func (r *Reconciler) sayStatusRefused(obj *v1alpha1.HyperliquidParser) {
	key := client.ObjectKeyFromObject(obj)
	for _, why := range r.refusals.of(key, map[string]bool{theStatus: true}) {
		if r.refusals.news(key, theStatus, r.Clock.Now()) {
			r.Events.failing(obj, why.words)
		}
	}
}

// failing sends an event about what the API server fails to do.
func (e *Events) failing(obj *v1alpha1.HyperliquidParser, words string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emit(obj, "", "", corev1.EventTypeWarning, v1alpha1.ReasonWriteFailing, "Reconcile", words)
}

// leaveTime bounds what a reconcile does, so that some of its time is left to say what came of it.
func leaveTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, deadline.Add(-statusTime))
	}
	return context.WithCancel(ctx)
}
