package controller

import (
	"maps"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
)

// waits remembers on which targets lines are near their retention. The lines are on the target's disk, so the alert
// outlives the pod that raised it: it ends when a parser reports a younger backlog, or when the target is not wanted.
// Its zero value remembers nothing. It is safe for concurrent use.
type waits struct {
	perObject[map[string]health.Alert]
}

// of returns the alerts of an object, by target. They are never changed, only replaced.
func (w *waits) of(object types.NamespacedName) map[string]health.Alert {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.objects[object]
}

// observe takes in the views of a fleet, and sets its Waiting.
func (w *waits) observe(object types.NamespacedName, f *observed.Fleet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := maps.Clone(w.objects[object])
	maps.DeleteFunc(next, func(name string, _ health.Alert) bool {
		_, wanted := f.Index(name)
		_, viewed := f.Views[name]
		return viewed || f.Known && !wanted
	})
	for name := range f.Views {
		if alert := f.Views[name].Alerts.NearRetention; alert.Raised() {
			if next == nil {
				next = map[string]health.Alert{}
			}
			next[name] = alert
		}
	}
	w.set(object, next)
	f.Waiting = next
}
