package controller

import (
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/fair"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

const (
	// lookAfter is how long a pod has not started when its events are read: a little before growth calls it
	// NotRunning, so that the first verdict has the reason.
	lookAfter = 25 * time.Second
	// lookApart is the least time between two reads of the events of one object's pods: many pods that start together
	// are one read. For a pod whose events were read before it doubles with each read, up to lookAgain.
	lookApart = 30 * time.Second
	lookAgain = 5 * time.Minute
	// askedAlone is up to how many pods are asked for one by one. More of them are one list of the namespace, in which
	// eventPages of eventPage events are read: an event is about a kilobyte.
	askedAlone            = 10
	eventPage, eventPages = 500, 4
	// maxWarning bounds what is kept of an event, in bytes. The API takes a kilobyte.
	maxWarning = 512
)

// warnings remembers what events say of pods that do not start. A pod's status seldom says why, and events are too
// many to be watched. The zero value knows of none. It is safe for concurrent use.
type warnings struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]*looks
}

// looks are the reads of the events of one object's pods.
type looks struct {
	at   time.Time // of the last one
	pods map[types.UID]unstarted
}

// unstarted is a pod that has not started.
type unstarted struct {
	since   time.Time // when it was first seen so
	looks   int       // how often its events were read since
	warning warning   // that says most; zero while there is none
}

// warning is an event of type Warning.
type warning = observed.Warning

// forget drops what is remembered of an object that is gone.
func (w *warnings) forget(object types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.objects, object)
}

// see takes in which pods have not started, by UID, and when each was made. It returns what is known of them, which
// of them have been so for long, and when their events must be read; zero: not at all. A pod's age is what its
// creation says or what this process saw, whichever is more: clocks differ, and a read too many costs little.
func (w *warnings) see(object types.NamespacedName, pods map[types.UID]time.Time, now time.Time) (
	known map[types.UID]warning, long []types.UID, at time.Time,
) {
	w.mu.Lock()
	defer w.mu.Unlock()
	is := w.objects[object]
	if len(pods) == 0 {
		delete(w.objects, object)
		return nil, nil, time.Time{}
	}
	if is == nil {
		is = &looks{pods: map[types.UID]unstarted{}}
		if w.objects == nil {
			w.objects = map[types.NamespacedName]*looks{}
		}
		w.objects[object] = is
	}
	maps.DeleteFunc(is.pods, func(uid types.UID, _ unstarted) bool { _, ok := pods[uid]; return !ok })
	known = map[types.UID]warning{}
	for uid, made := range pods {
		pod, ok := is.pods[uid]
		if !ok {
			pod.since = now
			is.pods[uid] = pod
		}
		if pod.warning != (warning{}) {
			known[uid] = pod.warning
		}
		due := earlier(pod.since, made).Add(lookAfter)
		if !now.Before(due) {
			long = append(long, uid)
			due = is.due(pod)
		}
		at = earlier(at, due)
	}
	return known, long, at
}

// due is when the events of a pod that has not started for long must be read.
func (l *looks) due(pod unstarted) time.Time {
	if l.at.IsZero() {
		return pod.since
	}
	wait := lookApart
	for range pod.looks {
		wait = min(2*wait, lookAgain)
	}
	return l.at.Add(wait)
}

// saw keeps what the events of pods said. A pod about which they say nothing keeps what was said before.
func (w *warnings) saw(object types.NamespacedName, now time.Time, asked []types.UID, said map[types.UID]warning) {
	w.mu.Lock()
	defer w.mu.Unlock()
	is := w.objects[object]
	if is == nil {
		return
	}
	is.at = now.Add(fair.Jittered(lookApart) - lookApart)
	for _, uid := range asked {
		pod, ok := is.pods[uid]
		if !ok {
			continue
		}
		pod.looks++
		if text, ok := said[uid]; ok {
			pod.warning = text
		}
		is.pods[uid] = pod
	}
}

// askForWarnings finds out what events say of pods that do not start. It asks the API server only for pods that have
// been so for long, then once for all of them, and in the background.
func (r *Reconciler) askForWarnings(obj *v1alpha1.HyperliquidParser, f *observed.Fleet) {
	pods, bound := map[types.UID]time.Time{}, map[types.UID]bool{}
	for i := range f.Pods {
		pod := &f.Pods[i]
		if state := growth.StateOf(pod); state.Unstarted && !state.Terminating {
			pods[pod.UID], bound[pod.UID] = pod.CreationTimestamp.Time, pod.Spec.NodeName != ""
		}
	}
	key := client.ObjectKeyFromObject(obj)
	known, long, at := r.warnings.see(key, pods, f.Now)
	f.Warnings = known
	if at.IsZero() || f.Now.Before(at) {
		f.RecheckAt = earlier(f.RecheckAt, at)
		return
	}
	r.Background.ask(key, "warnings", func(ctx context.Context) {
		said, err := r.readWarnings(ctx, key.Namespace, long, bound)
		if err != nil {
			// The verdict will do without: it says that the pod does not start.
			logf.FromContext(ctx).Error(err, "reading the events of pods that do not start")
		}
		r.warnings.saw(key, r.Clock.Now(), long, said)
	})
}

// earlier is the first of two times, of which either may be zero and then is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// readWarnings returns what the events of pods say: of each pod the newest of type Warning that says most. bound are
// the pods that a node has.
func (r *Reconciler) readWarnings(ctx context.Context, namespace string, pods []types.UID, bound map[types.UID]bool) (
	map[types.UID]warning, error,
) {
	newest := map[types.UID]*corev1.Event{}
	for _, uid := range pods {
		newest[uid] = nil
	}
	see := func(e *corev1.Event) {
		uid := e.InvolvedObject.UID
		if best, asked := newest[uid]; asked && saysMore(e, best, bound[uid]) {
			newest[uid] = e
		}
	}
	warningsOfPods := fields.Set{"involvedObject.kind": "Pod", "type": corev1.EventTypeWarning}
	var err error
	if len(pods) > askedAlone {
		err = r.eachEvent(ctx, namespace, warningsOfPods, see)
	} else {
		for _, uid := range pods {
			of := maps.Clone(warningsOfPods)
			of["involvedObject.uid"] = string(uid)
			if err = r.eachEvent(ctx, namespace, of, see); err != nil {
				break
			}
		}
	}
	out := map[types.UID]warning{}
	for uid, e := range newest {
		if e != nil {
			out[uid] = warning{Reason: prose.Reason(e.Reason), Message: prose.Ends(e.Message, maxWarning)}
		}
	}
	return out, err
}

// eachEvent calls see for each event of a namespace with the given fields, up to a bound.
func (r *Reconciler) eachEvent(ctx context.Context, namespace string, with fields.Set, see func(*corev1.Event)) error {
	more := ""
	for range eventPages {
		var page corev1.EventList
		err := r.APIReader.List(ctx, &page, client.InNamespace(namespace), client.Limit(eventPage), client.Continue(more),
			client.MatchingFieldsSelector{Selector: with.AsSelector()})
		if err != nil {
			return fmt.Errorf("listing events of namespace %s: %w", namespace, err)
		}
		for i := range page.Items {
			see(&page.Items[i])
		}
		if more = page.Continue; more == "" {
			break
		}
	}
	return nil
}

// saysMore reports whether an event of a pod says more of why the pod does not start than the best so far, which may
// be nil. What names a cause says more than what only says that there is one; the newer says more than the older.
func saysMore(e, best *corev1.Event, bound bool) bool {
	switch {
	case e.Message == "" || bound && e.Reason == "FailedScheduling": // that is over
		return false
	case best == nil:
		return true
	case vague(e) != vague(best):
		return vague(best)
	}
	return !lastSeen(e).Before(lastSeen(best))
}

// lastSeen is when an event happened last. Which field says it depends on the API that its source writes by.
func lastSeen(e *corev1.Event) time.Time {
	at := e.CreationTimestamp.Time
	seen := []time.Time{e.FirstTimestamp.Time, e.LastTimestamp.Time, e.EventTime.Time}
	if e.Series != nil {
		seen = append(seen, e.Series.LastObservedTime.Time)
	}
	for _, t := range seen {
		if t.After(at) {
			at = t
		}
	}
	return at
}

// vagueReasons are of warnings that come again and again beside whatever else is wrong, and keep no pod from
// starting.
var vagueReasons = map[string]bool{"DNSConfigForming": true, "MissingClusterDNS": true, "HostIPsIPFamilyMismatch": true}

// vagueWords are of kubelets that repeat that something is wrong, which another event has said in its words.
var vagueWords = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`Error: (?:ErrImagePull|ImagePullBackOff)`,
	`Back-off pulling image "[^"]*"`,
	`Back-off restarting failed container .*`,
	`Unable to attach or mount volumes: unmounted volumes=.*: (?:timed out waiting for the condition|context deadline exceeded)`,
}, "|") + `)$`)

// vague reports whether an event says that something is wrong, and not what.
func vague(e *corev1.Event) bool { return vagueReasons[e.Reason] || vagueWords.MatchString(e.Message) }

// notDirectory matches what kubelets say of a hostPath of type Directory where there is none: the path, and what is
// known of it besides. Older ones say no more, newer ones what is there instead, or why that is not known, after a
// comma where others have a colon.
var notDirectory = regexp.MustCompile(
	`hostPath type check failed[:,] (/.*) is not a directory(?:, it's an? (.+)|, unable to determine its type: .+)?$`,
)

// dataMissing is what to do about a pod whose data directory is not there, by the kubelet's words; ok is false where
// they say something else.
func dataMissing(obj *v1alpha1.HyperliquidParser, message string) (text string, ok bool) {
	if obj.Spec.Target.Nodes == nil {
		return "", false
	}
	found := notDirectory.FindStringSubmatch(message)
	dataPath := string(obj.Spec.Target.Nodes.DataPath)
	if found == nil || path.Clean(found[1]) != path.Clean(dataPath) {
		return "", false
	}
	is := "is not there: create it"
	if found[2] != "" {
		is = "is a " + found[2] + " there, and must be a directory"
	}
	return fmt.Sprintf("%s %s, or let spec.target.nodes.selector leave the node out", dataPath, is), true
}

// podState is the pod's state, with the reason that only events say.
func podState(obj *v1alpha1.HyperliquidParser, f *observed.Fleet, pod *corev1.Pod) growth.PodState {
	state := growth.StateOf(pod)
	says, warned := f.Warnings[pod.UID]
	if !warned || !state.Unstarted {
		return state
	}
	if text, ok := dataMissing(obj, says.Message); ok {
		state.Reason, state.Detail = v1alpha1.ReasonDataPathMissing, text
		return state
	}
	if state.Starting {
		state.Reason = says.Reason
	} else if !vagueWords.MatchString(strings.TrimPrefix(state.Detail, state.Reason+": ")) {
		return state // the status says more
	}
	state.Detail = growth.Detail(state.Reason, says.Message)
	return state
}
