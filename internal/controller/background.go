package controller

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/fair"
)

const (
	// backgroundWorkers bounds the concurrent tasks of all objects. One namespace gets all but one of them at most.
	backgroundWorkers = 8
	// taskTimeout bounds a task, which may send several requests.
	taskTimeout = 10 * time.Second
)

// Background runs tasks that a reconcile must not wait for: reads from the API server or from parsers that are many for
// one object, or that others can delay. A reconcile starts a task, continues without the result, and the object is
// reconciled again when the task is done. Workers are shared fairly by namespaces. It is a manager.Runnable that runs
// only on the leader, and it is safe for concurrent use.
type Background struct {
	wake  func(object types.NamespacedName, after time.Duration)
	queue *fair.Queue[taskKey]

	mu    sync.Mutex
	tasks map[taskKey]func(context.Context)
}

// taskKey identifies a task of an object.
type taskKey struct {
	object types.NamespacedName
	name   string
}

// NewBackground returns a Background that runs nothing until it is started.
func NewBackground(wake func(types.NamespacedName, time.Duration)) *Background {
	return &Background{
		wake: wake, tasks: map[taskKey]func(context.Context){},
		queue: fair.NewQueue(backgroundWorkers, func(k taskKey) string { return k.object.Namespace }),
	}
}

// NeedLeaderElection is true because only the leader reconciles.
func (b *Background) NeedLeaderElection() bool { return true }

// Start runs tasks until the context ends.
func (b *Background) Start(ctx context.Context) error {
	var workers sync.WaitGroup
	for range backgroundWorkers {
		workers.Go(func() {
			for b.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	b.queue.ShutDown()
	workers.Wait()
	return nil
}

// run queues a task unless one of that name is queued or running. The task must store its result for the object's next
// reconcile, and return soon after its context ends.
func (b *Background) run(object types.NamespacedName, name string, task func(context.Context)) {
	k := taskKey{object, name}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tasks[k] == nil {
		b.tasks[k] = task
		b.queue.Add(k)
	}
}

// next runs one task. It returns false when the queue has shut down.
func (b *Background) next(ctx context.Context) bool {
	k, shutdown := b.queue.Get()
	if shutdown {
		return false
	}
	defer b.queue.Done(k)
	b.mu.Lock()
	task := b.tasks[k]
	b.mu.Unlock()
	log := logf.Log.WithName("background").WithValues("namespace", k.object.Namespace, "name", k.object.Name)
	bounded, cancel := context.WithTimeout(fair.WithTenant(logf.IntoContext(ctx, log), k.object.Namespace), taskTimeout)
	defer cancel()
	task(bounded)
	// The result is stored, so a task of that name may be queued again from now on.
	b.mu.Lock()
	delete(b.tasks, k)
	b.mu.Unlock()
	b.wake(k.object, 0)
	return true
}
