package observed

import (
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// Ages are since when this process has observed the pods and targets of a fleet as they are.
type Ages struct {
	Pods map[types.UID]PodAge
	// UnreadySince is, by name of a target, since when it has had no ready pod, or since its node could take pods again if
	// that is later.
	UnreadySince map[string]time.Time
}

// PodAge is since when a pod is as it is. A time is zero while it does not apply.
type PodAge struct {
	FirstSeen time.Time
	// EndingSince is since when the pod is Terminating on a node that is Ready.
	EndingSince time.Time
	// BlockedSince is since when a container could not be started. It stays set while the kubelet retries, until the
	// parser runs.
	BlockedSince time.Time
}

// History remembers since when this process has observed pods and targets as they are, by its own clock. The clocks of
// the API server and of kubelets may be minutes off, so a pod is never taken for older than the time in which it was
// observed. Nothing is persisted: a new leader starts from nothing, and so waits longer. The zero value is ready to
// use. It is safe for concurrent use.
type History struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]*fleetHistory
}

// fleetHistory is the history of one object's fleet. An object has one reconcile at a time, so nothing else changes it
// meanwhile.
type fleetHistory struct {
	pods    map[types.UID]PodAge
	unready map[string]time.Time
	// waits are the targets that could take no pod when they were last observed.
	waits map[string]bool
	// missing is, by target or boot, since when what a rollout has taken is not among the targets.
	missing map[string]time.Time
}

// Observe updates the history of an object with its fleet, and returns the ages of its pods and targets.
func (h *History) Observe(object types.NamespacedName, f *Fleet) Ages {
	h.mu.Lock()
	defer h.mu.Unlock()
	known, ok := h.objects[object]
	if !ok {
		if h.objects == nil {
			h.objects = map[types.NamespacedName]*fleetHistory{}
		}
		known = &fleetHistory{
			pods: map[types.UID]PodAge{}, unready: map[string]time.Time{},
			waits: map[string]bool{}, missing: map[string]time.Time{},
		}
		h.objects[object] = known
	}
	ready := make(map[types.UID]bool, len(f.Pods)) // of all that exist
	for i := range f.Pods {
		pod := &f.Pods[i]
		p := PlanPod(pod)
		p.NodeLost = f.NodeLost(pod.Spec.NodeName)
		known.pods[pod.UID] = known.pods[pod.UID].next(p, running(pod), f.Now)
		ready[pod.UID] = p.Ready && !p.Terminating
	}
	maps.DeleteFunc(known.pods, func(uid types.UID, _ PodAge) bool { _, exists := ready[uid]; return !exists })
	for i, t := range f.Targets {
		schedulable := t.Waits == ""
		if pod := f.Pairs[i].Pod; pod != nil && ready[pod.UID] {
			delete(known.unready, t.Name)
		} else if known.unready[t.Name].IsZero() || schedulable && known.waits[t.Name] {
			known.unready[t.Name] = f.Now
		}
		if delete(known.waits, t.Name); !schedulable {
			known.waits[t.Name] = true
		}
	}
	gone := func(name string) bool { _, exists := f.Index(name); return !exists }
	maps.DeleteFunc(known.unready, func(name string, _ time.Time) bool { return gone(name) })
	maps.DeleteFunc(known.waits, func(name string, _ bool) bool { return gone(name) })
	return Ages{Pods: maps.Clone(known.pods), UnreadySince: maps.Clone(known.unready)}
}

// Renew restarts the time without a ready pod of targets that get a pod of another revision.
func (h *History) Renew(object types.NamespacedName, actions []plan.Action, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	known, ok := h.objects[object]
	for _, a := range actions {
		if ok && a.Replaces() {
			known.unready[a.Target] = now
		}
	}
}

// MissingSince returns since when each of keys, which a rollout has taken and which are not among the targets, is
// missing.
func (h *History) MissingSince(object types.NamespacedName, keys []string, now time.Time) map[string]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	known, ok := h.objects[object]
	if !ok {
		return nil
	}
	maps.DeleteFunc(known.missing, func(key string, _ time.Time) bool { return !slices.Contains(keys, key) })
	for _, key := range keys {
		if known.missing[key].IsZero() {
			known.missing[key] = now
		}
	}
	return maps.Clone(known.missing)
}

// Forget drops the history of an object that is gone.
func (h *History) Forget(object types.NamespacedName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.objects, object)
}

// next returns the age of a pod after it is observed as p.
func (a PodAge) next(p plan.Pod, running bool, now time.Time) PodAge {
	return PodAge{
		FirstSeen:    since(a.FirstSeen, true, now),
		EndingSince:  since(a.EndingSince, p.Terminating && !p.NodeLost, now),
		BlockedSince: since(a.BlockedSince, p.Blocked != "" || !a.BlockedSince.IsZero() && !p.Ready && !running, now),
	}
}

// since returns since when something holds that held since before; zero while it does not hold.
func since(before time.Time, holds bool, now time.Time) time.Time {
	switch {
	case !holds:
		return time.Time{}
	case before.IsZero():
		return now
	}
	return before
}
