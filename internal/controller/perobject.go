package controller

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// perObject holds a state for each HyperliquidParser. Its zero value is empty. The types that embed it use objects and
// set while they hold mu.
type perObject[T any] struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]T
}

// set stores the state of an object. The caller holds mu.
func (p *perObject[T]) set(object types.NamespacedName, state T) {
	if p.objects == nil {
		p.objects = map[types.NamespacedName]T{}
	}
	p.objects[object] = state
}

// Forget drops the state of an object that is gone.
func (p *perObject[T]) Forget(object types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.objects, object)
}
