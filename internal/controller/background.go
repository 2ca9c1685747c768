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
	// backgroundWorkers bounds how many questions are asked at once, for all objects. One namespace has all but one of them at most.
	backgroundWorkers = 8
	// longestQuestion bounds one question, however many requests it takes.
	longestQuestion = 10 * time.Second
)

// Background asks what a reconcile must not wait for: questions to the API server or to parsers that one object alone may need many of,
// or that somebody else may hold up. A reconcile asks, goes on without the answer, and is woken when it is there. Namespaces have their
// turns. It is a manager.Runnable that runs on the leader only, and safe for concurrent use.
type Background struct {
	wake  func(object types.NamespacedName, after time.Duration)
	queue *fair.Queue[question]

	mu    sync.Mutex
	asked map[question]func(context.Context)
}

// question is one of an object's; what distinguishes its questions.
type question struct {
	object types.NamespacedName
	what   string
}

// NewBackground returns a Background that asks nothing until it is started.
func NewBackground(wake func(types.NamespacedName, time.Duration)) *Background {
	return &Background{
		wake: wake, asked: map[question]func(context.Context){},
		queue: fair.NewQueue(backgroundWorkers, func(q question) string { return q.object.Namespace }),
	}
}

// NeedLeaderElection is true: nobody else reconciles.
func (b *Background) NeedLeaderElection() bool { return true }

// Start asks until the context ends.
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

// ask has a question asked, unless it waits or is being asked already. ask must keep the answer where the object's next reconcile
// finds it, and return soon after its context ends.
func (b *Background) ask(object types.NamespacedName, what string, ask func(context.Context)) {
	q := question{object, what}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked[q] == nil {
		b.asked[q] = ask
		b.queue.Add(q)
	}
}

// next asks one question; false when there will be none any more.
func (b *Background) next(ctx context.Context) bool {
	q, end := b.queue.Get()
	if end {
		return false
	}
	defer b.queue.Done(q)
	b.mu.Lock()
	ask := b.asked[q]
	b.mu.Unlock()
	log := logf.Log.WithName("background").WithValues("namespace", q.object.Namespace, "name", q.object.Name)
	bounded, cancel := context.WithTimeout(fair.WithTenant(logf.IntoContext(ctx, log), q.object.Namespace), longestQuestion)
	defer cancel()
	ask(bounded)
	// The answer is there: from now on the question is a new one.
	b.mu.Lock()
	delete(b.asked, q)
	b.mu.Unlock()
	b.wake(q.object, 0)
	return true
}
