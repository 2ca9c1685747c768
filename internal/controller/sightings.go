package controller

import (
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// sightings remembers since when this process has seen pods and targets as they are, by its own clock. The API server
// and each kubelet have clocks of their own, minutes away at worst: a pod is never older than the time in which it was
// seen. Nothing is written down: a new leader begins from nothing, and so waits longer. The zero value has seen nothing; it is
// safe for concurrent use.
type sightings struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]sighted
}

// sighted is what was seen of one object's fleet.
type sighted struct {
	pods map[types.UID]sight
	// unready is, by name of a target, since when it has had no ready pod, and since its node was heard of again. waits
	// are the targets that could take no pod when they were last seen.
	unready map[string]time.Time
	waits   map[string]bool
	// gone is, by name or sign, since when what a rollout has taken is no target.
	gone map[string]time.Time
}

// sight is what was seen of a pod. A time is zero while what it is about is not so.
type sight struct {
	first  time.Time
	ending time.Time
	// blocked is since when a container could not be started. It goes on while the kubelet tries again, until the
	// parser runs.
	blocked time.Time
}

// see takes in what a reconcile sees of an object, and notes in s what is known of ages. An object is reconciled once
// at a time, so that nobody else changes what s has of it.
func (g *sightings) see(object types.NamespacedName, s *seen) {
	g.mu.Lock()
	defer g.mu.Unlock()
	known, ok := g.objects[object]
	if !ok {
		if g.objects == nil {
			g.objects = map[types.NamespacedName]sighted{}
		}
		known = sighted{pods: map[types.UID]sight{}, unready: map[string]time.Time{}, waits: map[string]bool{}, gone: map[string]time.Time{}}
		g.objects[object] = known
	}
	ready := make(map[types.UID]bool, len(s.pods)) // of all that are there
	for i := range s.pods {
		pod := &s.pods[i]
		p := planPod(pod)
		p.NodeLost = s.lost(pod.Spec.NodeName)
		known.pods[pod.UID] = known.pods[pod.UID].next(p, running(pod), s.now)
		ready[pod.UID] = p.Ready && !p.Terminating
	}
	maps.DeleteFunc(known.pods, func(uid types.UID, _ sight) bool { _, there := ready[uid]; return !there })
	for i, t := range s.targets {
		able := t.Waits == ""
		if pod := s.pairs[i].pod; pod != nil && ready[pod.UID] {
			delete(known.unready, t.Name)
		} else if known.unready[t.Name].IsZero() || able && known.waits[t.Name] {
			known.unready[t.Name] = s.now
		}
		if delete(known.waits, t.Name); !able {
			known.waits[t.Name] = true
		}
	}
	gone := func(name string) bool { _, there := s.index(name); return !there }
	maps.DeleteFunc(known.unready, func(name string, _ time.Time) bool { return gone(name) })
	maps.DeleteFunc(known.waits, func(name string, _ bool) bool { return gone(name) })
	s.sighted = known
}

// renew lets a target's time without a ready pod begin again: it gets a pod of another kind.
func (g *sightings) renew(object types.NamespacedName, actions []plan.Action, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	known, ok := g.objects[object]
	for _, a := range actions {
		if ok && a.Replaces() {
			known.unready[a.Target] = now
		}
	}
}

// missing returns since when each of those that a rollout has taken and that are no targets is none.
func (g *sightings) missing(object types.NamespacedName, keys []string, now time.Time) map[string]time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	known, ok := g.objects[object]
	if !ok {
		return nil
	}
	maps.DeleteFunc(known.gone, func(key string, _ time.Time) bool { return !slices.Contains(keys, key) })
	for _, key := range keys {
		if known.gone[key].IsZero() {
			known.gone[key] = now
		}
	}
	return maps.Clone(known.gone)
}

// forget drops what is remembered of an object that is gone.
func (g *sightings) forget(object types.NamespacedName) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.objects, object)
}

// next is what is known of a pod once it is seen so.
func (before sight) next(p plan.Pod, running bool, now time.Time) sight {
	return sight{
		first:   since(before.first, true, now),
		ending:  since(before.ending, p.Terminating && !p.NodeLost, now),
		blocked: since(before.blocked, p.Blocked != "" || !before.blocked.IsZero() && !p.Ready && !running, now),
	}
}

// since is from when on something has been so that was so since before; zero while it is not.
func since(before time.Time, is bool, now time.Time) time.Time {
	switch {
	case !is:
		return time.Time{}
	case before.IsZero():
		return now
	}
	return before
}

// planPod is a pod of the fleet as the plan sees it, with what this process knows of its age.
func (s *seen) planPod(pod *corev1.Pod) plan.Pod {
	out := planPod(pod)
	saw := s.sighted.pods[pod.UID]
	out.Seen, out.EndingSince = saw.first, saw.ending
	if out.Blocked != "" {
		out.BlockedSince = saw.blocked
	}
	return out
}
