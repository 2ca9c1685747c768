// Package poller collects the reports of parsers in the background and keeps a verdict on each, so that a reconcile never waits
// for the network.
//
// Each target is asked once a poll interval, staggered over it, by a bounded number of workers, each poll bounded in time and in
// bytes; a parser that does not answer is asked less and less often. An object is woken only when a judgement on one of its
// targets changes: figures that wobble wake nobody.
//
// It must never read or write the Kubernetes API, never act on a verdict, and never hold a lock while it waits for a parser.
package poller

import (
	"container/heap"
	"context"
	"hash/fnv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

const (
	// patience is how many polls without an answer come before backoff: as many as it takes to say Unreachable.
	patience = 3
	// longestBackoff is how many intervals lie between two polls of a parser that does not answer. Six, half a minute at the
	// default, so that one that is back is soon seen.
	longestBackoff = 6
	// wakes is how many changes may wait for the controller before workers wait too.
	wakes = 1024
)

// Options say how to poll.
type Options struct {
	// Client fetches reports.
	Client *Client
	// Clock tells when reports arrive. Waiting goes by it too.
	Clock clock.Clock
	// Workers is how many polls run at once; at least 1.
	Workers int
	// Polled, when set, is told how long each poll took and whether it brought a report. It must not block.
	Polled func(took time.Duration, ok bool)
}

// Endpoint is a target's pod, as it is now.
type Endpoint struct {
	Target  string
	PodName string
	// IP is where the parser answers; empty until the pod has one.
	IP  string
	Pod growth.PodState
}

// View is what is known of a target.
type View struct {
	Judgement growth.Judgement
	Window    growth.Window
}

// Poller is safe for concurrent use. It is a manager.Runnable that runs on the leader only.
type Poller struct {
	options Options
	changes chan event.TypedGenericEvent[types.NamespacedName]
	kick    chan struct{} // the queue's head changed

	mu      sync.Mutex
	objects map[types.NamespacedName]map[string]*entry
	queue   queue
}

// entry is one target.
type entry struct {
	object   types.NamespacedName
	endpoint Endpoint
	settings growth.Settings
	tracker  growth.Tracker
	due      time.Time
	place    int  // in the queue; -1 while it is being polled, or forgotten
	gone     bool // forgotten
}

// New returns a poller that does nothing until it is started.
func New(options Options) *Poller {
	return &Poller{
		options: options,
		changes: make(chan event.TypedGenericEvent[types.NamespacedName], wakes),
		kick:    make(chan struct{}, 1),
		objects: map[types.NamespacedName]map[string]*entry{},
	}
}

// Changes delivers the name of an object when a judgement on one of its targets has changed.
func (p *Poller) Changes() <-chan event.TypedGenericEvent[types.NamespacedName] { return p.changes }

// NeedLeaderElection is true: a parser is asked by one operator.
func (p *Poller) NeedLeaderElection() bool { return true }

// Track replaces what is polled for an object, takes in the state of its pods, and returns what is known of each target. It does
// not wake the object: the caller has the answer in hand.
func (p *Poller) Track(object types.NamespacedName, settings growth.Settings, endpoints []Endpoint) map[string]View {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.options.Clock.Now()
	before := p.objects[object]
	after := make(map[string]*entry, len(endpoints))
	views := make(map[string]View, len(endpoints))
	for _, endpoint := range endpoints {
		e := before[endpoint.Target]
		if e == nil {
			e = &entry{object: object, place: -1, due: now.Add(stagger(object, endpoint.Target, settings.PollInterval))}
			e.endpoint, e.settings = endpoint, settings
			heap.Push(&p.queue, e)
		}
		p.update(e, endpoint, settings, now)
		after[endpoint.Target] = e
		views[endpoint.Target] = View{Judgement: e.tracker.Judgement(), Window: e.tracker.Window()}
	}
	for name, e := range before {
		if after[name] == nil {
			p.drop(e)
		}
	}
	p.objects[object] = after
	p.wakeDispatcher()
	return views
}

// update takes in the state of a pod. A pod or container that is new is asked after a full interval's stagger at the latest,
// whatever the backoff of the old one.
func (p *Poller) update(e *entry, endpoint Endpoint, settings growth.Settings, now time.Time) {
	fresh := e.endpoint.IP != endpoint.IP || e.endpoint.Pod.UID != endpoint.Pod.UID ||
		e.endpoint.Pod.Container != endpoint.Pod.Container || e.settings.PollInterval != settings.PollInterval
	e.endpoint, e.settings = endpoint, settings
	e.tracker.SeePod(endpoint.Pod, now, settings)
	soon := now.Add(stagger(e.object, endpoint.Target, settings.PollInterval))
	if fresh && e.place >= 0 && soon.Before(e.due) {
		e.due = soon
		heap.Fix(&p.queue, e.place)
	}
}

// Forget stops polling for an object.
func (p *Poller) Forget(object types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.objects[object] {
		p.drop(e)
	}
	delete(p.objects, object)
	p.wakeDispatcher()
}

func (p *Poller) drop(e *entry) {
	e.gone = true
	if e.place >= 0 {
		heap.Remove(&p.queue, e.place)
	}
}

// Start polls until the context ends, and returns when all that it started has ended.
func (p *Poller) Start(ctx context.Context) error {
	work := make(chan *entry)
	var workers sync.WaitGroup
	for range max(p.options.Workers, 1) {
		workers.Go(func() {
			for e := range work {
				p.poll(ctx, e)
			}
		})
	}
	p.dispatch(ctx, work)
	close(work)
	workers.Wait()
	p.options.Client.Close()
	return nil
}

// dispatch hands out entries as they fall due.
func (p *Poller) dispatch(ctx context.Context, work chan<- *entry) {
	for {
		e, wait := p.next()
		if e != nil {
			select {
			case work <- e:
				continue
			case <-ctx.Done():
				return
			}
		}
		timer := p.options.Clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-p.kick:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// next takes the entry that is due, or says how long to wait for one.
func (p *Poller) next() (*entry, time.Duration) {
	const idle = time.Hour // Track ends the wait
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return nil, idle
	}
	if wait := p.queue[0].due.Sub(p.options.Clock.Now()); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&p.queue).(*entry), 0
}

func (p *Poller) wakeDispatcher() {
	select {
	case p.kick <- struct{}{}:
	default: // already kicked
	}
}

// poll asks one parser, judges, and puts the entry back into the queue.
func (p *Poller) poll(ctx context.Context, e *entry) {
	p.mu.Lock()
	asked, interval := e.endpoint, e.settings.PollInterval
	p.mu.Unlock()

	var answer *growth.Poll
	if asked.Pod.Running && asked.IP != "" && !asked.Pod.Terminating {
		start := p.options.Clock.Now()
		r, err := p.options.Client.Fetch(ctx, asked.IP, asked.PodName, interval)
		if ctx.Err() != nil {
			return // an answer cut short by our own end says nothing
		}
		answer = &growth.Poll{Report: r}
		if err != nil {
			answer.Failure = err.Error()
		}
		if p.options.Polled != nil {
			p.options.Polled(p.options.Clock.Since(start), err == nil)
		}
	}
	if p.finish(e, asked, answer) {
		select {
		case p.changes <- event.TypedGenericEvent[types.NamespacedName]{Object: e.object}:
		case <-ctx.Done():
		}
	}
}

// finish takes in the answer, nil when there was nobody to ask, and reports whether the judgement changed.
func (p *Poller) finish(e *entry, asked Endpoint, answer *growth.Poll) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.gone {
		return false
	}
	now := p.options.Clock.Now()
	var changed bool
	switch {
	case asked.Pod.UID != e.endpoint.Pod.UID || asked.Pod.Container != e.endpoint.Pod.Container:
		// The answer is of a pod or container that has been replaced meanwhile.
	case answer == nil:
		changed = e.tracker.SeePod(e.endpoint.Pod, now, e.settings) // time alone may change the judgement
	default:
		changed = e.tracker.SeePoll(*answer, now, e.settings)
	}
	e.due = e.due.Add(e.settings.PollInterval << min(max(e.tracker.Window().Missed-patience, 0), 3))
	if longest := e.settings.PollInterval * longestBackoff; e.due.After(now.Add(longest)) {
		e.due = now.Add(longest)
	}
	if e.due.Before(now) {
		e.due = now.Add(e.settings.PollInterval) // the sweep is late: go on from here, do not catch up
	}
	heap.Push(&p.queue, e)
	p.wakeDispatcher()
	return changed
}

// stagger spreads the polls of a fleet over the interval, the same way in every process.
func stagger(object types.NamespacedName, target string, interval time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(object.String()))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(target))
	if interval <= 0 {
		return 0
	}
	return time.Duration(h.Sum64() % uint64(interval))
}

// queue is a heap of entries by due time.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i]; q[i].place, q[j].place = i, j }

func (q *queue) Push(x any) {
	e := x.(*entry)
	e.place = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	e.place = -1
	return e
}
