package controller

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

const (
	// lookAfter is how long a pod has been starting when its events are looked at: a little before growth calls it NotRunning, so that
	// the first verdict has the reason.
	lookAfter = 25 * time.Second
	// lookApart is the least time between two looks at the events of one object's pods: many pods that start together are one look.
	lookApart = 30 * time.Second
	// lookAgain is how soon pods that no event has explained are looked at again.
	lookAgain = 5 * time.Minute
	// eventPages of eventPage events bound a look: an event is about a kilobyte.
	eventPage, eventPages = 500, 4
)

// Mounts finds out which pods wait for a data directory that their node does not have. A pod's status says nothing of it, only events
// do, and events are too many to be watched. It is safe for concurrent use.
type Mounts struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]mountsLook
}

// mountsLook is the last look at the events of one object's pods.
type mountsLook struct {
	at      time.Time
	looked  map[types.UID]bool // pods that were starting then
	missing map[types.UID]bool // those of them whose data directory was not there
}

// NewMounts returns a Mounts that has not looked yet.
func NewMounts() *Mounts { return &Mounts{objects: map[types.NamespacedName]mountsLook{}} }

// Forget drops what is remembered of an object that is gone.
func (m *Mounts) Forget(object types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, object)
}

// next is when the events must be looked at for pods that have been starting for long; zero: not at all.
func (l mountsLook) next(long []types.UID) time.Time {
	var at time.Time
	for _, uid := range long {
		due := l.at.Add(lookAgain)
		switch {
		case l.missing[uid]:
			continue // until it runs
		case !l.looked[uid]:
			due = l.at.Add(lookApart)
		}
		if at.IsZero() || due.Before(at) {
			at = due
		}
	}
	return at
}

// explainMounts notes the pods whose data directory is not there, and when to look for more of them. It asks the API server only for
// pods that have been starting for long, and then once for all of them.
func (r *Reconciler) explainMounts(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) {
	if obj.Spec.Target.Nodes == nil {
		return // claims are there when the Hyperliquid node runs
	}
	var long []types.UID
	for i := range s.pods {
		pod := &s.pods[i]
		if state := growth.StateOf(pod); !state.Starting || state.Terminating || pod.Spec.NodeName == "" {
			continue
		}
		if at := pod.CreationTimestamp.Add(lookAfter); s.now.Before(at) {
			s.look = earlier(s.look, at)
		} else {
			long = append(long, pod.UID)
		}
	}
	key := client.ObjectKeyFromObject(obj)
	r.Mounts.mu.Lock()
	look := r.Mounts.objects[key]
	r.Mounts.mu.Unlock()
	at := look.next(long)
	if at.IsZero() || s.now.Before(at) {
		s.missing, s.look = look.missing, earlier(s.look, at)
		return
	}
	held, err := r.withoutData(ctx, obj)
	if err != nil {
		// The verdict will do without: it says that the pod does not start.
		logf.FromContext(ctx).Error(err, "looking for pods without their data directory")
	}
	next := mountsLook{at: s.now, looked: map[types.UID]bool{}, missing: map[types.UID]bool{}}
	for _, uid := range long {
		next.looked[uid] = true
		if held[uid] || look.missing[uid] {
			next.missing[uid] = true
		}
	}
	r.Mounts.mu.Lock()
	r.Mounts.objects[key] = next
	r.Mounts.mu.Unlock()
	s.missing, s.look = next.missing, earlier(s.look, next.next(long))
}

// earlier is the first of two times, of which either may be zero and then is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// withoutData returns the pods of which an event says that dataPath is not a directory.
func (r *Reconciler) withoutData(ctx context.Context, obj *v1alpha1.HyperliquidParser) (map[types.UID]bool, error) {
	// As the kubelet puts it.
	words := "hostPath type check failed: " + path.Clean(string(obj.Spec.Target.Nodes.DataPath)) + " is not a directory"
	out := map[types.UID]bool{}
	var events corev1.EventList
	for range eventPages {
		err := r.Live.List(ctx, &events, client.InNamespace(obj.Namespace), client.Limit(eventPage), client.Continue(events.Continue),
			client.MatchingFields{"involvedObject.kind": "Pod", "reason": "FailedMount"})
		if err != nil {
			return out, fmt.Errorf("listing events of namespace %s: %w", obj.Namespace, err)
		}
		for i := range events.Items {
			if strings.Contains(events.Items[i].Message, words) {
				out[events.Items[i].InvolvedObject.UID] = true
			}
		}
		if events.Continue == "" {
			break
		}
	}
	return out, nil
}

// podState is the pod's state, with the reason that only events tell.
func (s *seen) podState(obj *v1alpha1.HyperliquidParser, pod *corev1.Pod) growth.PodState {
	state := growth.StateOf(pod)
	if state.Starting && s.missing[pod.UID] {
		state.Reason = v1alpha1.ReasonDataPathMissing
		state.Detail = fmt.Sprintf("%s is not there: create it, or let spec.target.nodes.selector leave the node out", obj.Spec.Target.Nodes.DataPath)
	}
	return state
}
