package controller

import (
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/fair"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

const (
	// firstRead is how long a pod has not started when its events are read. That is a little before health judges it
	// NotRunning, so that the first verdict has the reason.
	firstRead = 25 * time.Second
	// minReadInterval is the least time between two reads of the events of one object's pods: many pods that start
	// together need one read. For each pod it doubles with each read of its events, up to maxReadInterval.
	minReadInterval = 30 * time.Second
	maxReadInterval = 5 * time.Minute
	// maxSingleReads is the largest number of pods whose events are read by a request for each pod. For more pods, the
	// events of the namespace are listed, at most eventPages pages of eventPage events. An event is about a kilobyte.
	maxSingleReads        = 10
	eventPage, eventPages = 500, 4
	// maxWarning bounds the stored message of an event, in bytes. The API allows a kilobyte.
	maxWarning = 512
)

// warnings holds the warning events of pods that do not start. A pod's status seldom has the reason, and there are too
// many events to watch. It is safe for concurrent use.
type warnings struct{ perObject[*podEvents] }

// podEvents holds the events of one object's pods.
type podEvents struct {
	readAt time.Time // when events were last read
	pods   map[types.UID]unstarted
}

// unstarted is a pod that has not started.
type unstarted struct {
	since   time.Time // when it was first observed
	reads   int       // number of reads of its events since then
	warning warning   // the most specific one; zero if there is none
}

// warning is an event of type Warning.
type warning = observed.Warning

// observe records which pods have not started, by UID, with their creation times. It returns their known warnings, the
// pods that are overdue, and when their events must be read, or zero for never. A pod's age is the larger of the age by
// its creation time and the time since this process first observed it: clocks differ, and an unneeded read costs
// little.
func (w *warnings) observe(object types.NamespacedName, pods map[types.UID]time.Time, now time.Time) (
	known map[types.UID]warning, overdue []types.UID, readAt time.Time,
) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(pods) == 0 {
		delete(w.objects, object)
		return nil, nil, time.Time{}
	}
	state := w.objects[object]
	if state == nil {
		state = &podEvents{pods: map[types.UID]unstarted{}}
		w.set(object, state)
	}
	maps.DeleteFunc(state.pods, func(uid types.UID, _ unstarted) bool { _, ok := pods[uid]; return !ok })
	known = map[types.UID]warning{}
	for uid, created := range pods {
		pod, ok := state.pods[uid]
		if !ok {
			pod.since = now
			state.pods[uid] = pod
		}
		if pod.warning != (warning{}) {
			known[uid] = pod.warning
		}
		due := earlier(pod.since, created).Add(firstRead)
		if !now.Before(due) {
			overdue = append(overdue, uid)
			due = state.due(pod)
		}
		readAt = earlier(readAt, due)
	}
	return known, overdue, readAt
}

// due returns when the events of an overdue pod must be read.
func (p *podEvents) due(pod unstarted) time.Time {
	if p.readAt.IsZero() {
		return pod.since
	}
	wait := minReadInterval
	for range pod.reads {
		wait = min(2*wait, maxReadInterval)
	}
	return p.readAt.Add(wait)
}

// record stores the warnings that a read of the pods' events found. A pod without one keeps its last.
func (w *warnings) record(object types.NamespacedName, now time.Time, pods []types.UID, found map[types.UID]warning) {
	w.mu.Lock()
	defer w.mu.Unlock()
	state := w.objects[object]
	if state == nil {
		return
	}
	state.readAt = now.Add(fair.Jittered(minReadInterval) - minReadInterval)
	for _, uid := range pods {
		pod, ok := state.pods[uid]
		if !ok {
			continue
		}
		pod.reads++
		if text, ok := found[uid]; ok {
			pod.warning = text
		}
		state.pods[uid] = pod
	}
}

// askForWarnings looks up the warning events of pods that do not start. It sends requests only for overdue pods, for
// all of them together, and in the background.
func (r *Reconciler) askForWarnings(obj *v1alpha1.HyperliquidParser, f *observed.Fleet) {
	pods, bound := map[types.UID]time.Time{}, map[types.UID]bool{}
	for i := range f.Pods {
		pod := &f.Pods[i]
		if state := health.StateOf(pod); state.Unstarted && !state.Terminating {
			pods[pod.UID], bound[pod.UID] = pod.CreationTimestamp.Time, pod.Spec.NodeName != ""
		}
	}
	key := client.ObjectKeyFromObject(obj)
	known, overdue, readAt := r.warnings.observe(key, pods, f.Now)
	f.Warnings = known
	if readAt.IsZero() || f.Now.Before(readAt) {
		f.RecheckAt = earlier(f.RecheckAt, readAt)
		return
	}
	r.Background.run(key, "warnings", func(ctx context.Context) {
		found, err := r.readWarnings(ctx, key.Namespace, overdue, bound)
		if err != nil {
			// The verdict, without the reason, still reports that the pod does not start.
			logf.FromContext(ctx).Error(err, "reading the events of pods that do not start")
		}
		r.warnings.record(key, r.Clock.Now(), overdue, found)
	})
}

// earlier returns the earlier of two times. A zero time is no time.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// readWarnings returns the most specific Warning event of each pod, or the newest of several. bound are the pods that
// are bound to a node.
func (r *Reconciler) readWarnings(ctx context.Context, namespace string, pods []types.UID, bound map[types.UID]bool) (
	map[types.UID]warning, error,
) {
	best := map[types.UID]*corev1.Event{}
	for _, uid := range pods {
		best[uid] = nil
	}
	visit := func(e *corev1.Event) {
		uid := e.InvolvedObject.UID
		if current, wanted := best[uid]; wanted && moreSpecific(e, current, bound[uid]) {
			best[uid] = e
		}
	}
	warningsOfPods := fields.Set{"involvedObject.kind": "Pod", "type": corev1.EventTypeWarning}
	var err error
	if len(pods) > maxSingleReads {
		err = r.eachEvent(ctx, namespace, warningsOfPods, visit)
	} else {
		for _, uid := range pods {
			warningsOfPod := maps.Clone(warningsOfPods)
			warningsOfPod["involvedObject.uid"] = string(uid)
			if err = r.eachEvent(ctx, namespace, warningsOfPod, visit); err != nil {
				break
			}
		}
	}
	out := map[types.UID]warning{}
	for uid, e := range best {
		if e != nil {
			out[uid] = warning{Reason: prose.Reason(e.Reason), Message: prose.Ends(e.Message, maxWarning)}
		}
	}
	return out, err
}

// eachEvent calls visit for each event of a namespace with the given fields, in at most eventPages pages. client-go's
// pager does not fit: it reads a page ahead of the bound.
func (r *Reconciler) eachEvent(
	ctx context.Context, namespace string, with fields.Set, visit func(*corev1.Event),
) error {
	next := ""
	for range eventPages {
		var page corev1.EventList
		err := r.APIReader.List(ctx, &page, client.InNamespace(namespace), client.Limit(eventPage), client.Continue(next),
			client.MatchingFieldsSelector{Selector: with.AsSelector()})
		if err != nil {
			return fmt.Errorf("listing events of namespace %s: %w", namespace, err)
		}
		for i := range page.Items {
			visit(&page.Items[i])
		}
		if next = page.Continue; next == "" {
			break
		}
	}
	return nil
}

// moreSpecific reports whether an event explains better why a pod does not start than the best event so far, which may
// be nil. An event that names a cause is better than one that does not. Otherwise the newer event is better.
func moreSpecific(e, best *corev1.Event, bound bool) bool {
	switch {
	case e.Message == "" || bound && e.Reason == "FailedScheduling": // it has been scheduled since
		return false
	case best == nil:
		return true
	case vague(e) != vague(best):
		return vague(best)
	}
	return !lastObserved(e).Before(lastObserved(best))
}

// lastObserved returns when an event last occurred. The field with that time depends on the API that its source uses.
func lastObserved(e *corev1.Event) time.Time {
	last := e.CreationTimestamp.Time
	times := []time.Time{e.FirstTimestamp.Time, e.LastTimestamp.Time, e.EventTime.Time}
	if e.Series != nil {
		times = append(times, e.Series.LastObservedTime.Time)
	}
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// vagueReasons are reasons of warnings that recur whatever else is wrong, and that prevent no pod from starting.
var vagueReasons = map[string]bool{"DNSConfigForming": true, "MissingClusterDNS": true, "HostIPsIPFamilyMismatch": true}

// vagueMessages matches messages with which kubelets repeat a failure whose cause another event has.
var vagueMessages = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`Error: (?:ErrImagePull|ImagePullBackOff)`,
	`Back-off pulling image "[^"]*"`,
	`Back-off restarting failed container .*`,
	`Unable to attach or mount volumes: unmounted volumes=.*: ` +
		`(?:timed out waiting for the condition|context deadline exceeded)`,
}, "|") + `)$`)

// vague reports whether an event names no cause.
func vague(e *corev1.Event) bool {
	return vagueReasons[e.Reason] || vagueMessages.MatchString(e.Message)
}

// notDirectory matches kubelets' messages about a hostPath of type Directory that is no directory. The groups are the
// path and, from newer kubelets only, what it is instead. Some versions have a comma where others have a colon.
var notDirectory = regexp.MustCompile(
	`hostPath type check failed[:,] (/.*) is not a directory(?:, it's an? (.+)|, unable to determine its type: .+)?$`,
)

// dataMissing returns how to correct a missing data directory. ok is false if the kubelet's message reports something
// else.
func dataMissing(obj *v1alpha1.HyperliquidParser, message string) (text string, ok bool) {
	if obj.Spec.Target.Nodes == nil {
		return "", false
	}
	found := notDirectory.FindStringSubmatch(message)
	dataPath := string(obj.Spec.Target.Nodes.DataPath)
	if found == nil || path.Clean(found[1]) != path.Clean(dataPath) {
		return "", false
	}
	is := "does not exist on the node: create it"
	if found[2] != "" {
		is = "is a " + found[2] + " on the node, and must be a directory"
	}
	return fmt.Sprintf("%s %s, or exclude the node in spec.target.nodes.selector", dataPath, is), true
}

// podState returns the pod's state, with the reason that only its events have.
func podState(obj *v1alpha1.HyperliquidParser, f *observed.Fleet, pod *corev1.Pod) health.PodState {
	state := health.StateOf(pod)
	event, warned := f.Warnings[pod.UID]
	if !warned || !state.Unstarted {
		return state
	}
	if text, ok := dataMissing(obj, event.Message); ok {
		state.Reason, state.Detail = v1alpha1.ReasonDataPathMissing, text
		return state
	}
	if state.Starting {
		state.Reason = event.Reason
	} else if !vagueMessages.MatchString(strings.TrimPrefix(state.Detail, state.Reason+": ")) {
		return state // the status is more specific
	}
	state.Detail = health.Detail(state.Reason, event.Message)
	return state
}
