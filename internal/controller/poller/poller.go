// Package poller collects the reports of parsers in the background and keeps a verdict on each, so that a reconcile never waits
// for the network.
//
// Each target is asked once a poll interval, staggered over it, by a bounded number of workers, each poll bounded in time and in
// bytes. Parsers whose last answer did not come have workers of their own: however many hang, the others are asked on time. Three
// missed polls are as many as it takes to say Unreachable; from then on such a parser is asked every other time only, which is how
// long it may take to see that it is back. An object is woken only when a judgement on one of its targets changes: figures that wobble
// wake nobody.
//
// A report is what the pod's own parser has sealed for the poll (package seal); a pod without keys is asked in plain HTTP only where its
// template is of before there were any.
//
// It must never read or write objects of the Kubernetes API, never act on a verdict, and never hold a lock while it waits for a parser.
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
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

const (
	// patience is how many polls without an answer come before backoff: as many as it takes to say Unreachable.
	patience = 3
	// backoff is how many intervals lie between two polls of a parser that does not answer. More would save little, since such polls
	// keep nobody waiting, and it would take longer to see that a parser is back.
	backoff = 2
	// together is which part of an interval is looked ahead for one wake-up: of a big fleet, polls that fall due within a hundred
	// milliseconds go together. A process that wakes for each of thousands by itself pays for the wake-ups, not for the polls.
	together = 50
	// maxFailure bounds, in bytes, what is kept of why a poll failed: it may quote the answer.
	maxFailure = 256
	// wakes is how many changes may wait for the controller before workers wait too.
	wakes = 1024
)

// Options say how to poll.
type Options struct {
	// Client fetches reports.
	Client *Client
	// Clock tells when reports arrive. Waiting goes by it too.
	Clock clock.Clock
	// Workers is how many parsers are asked at once, and as many again of those that did not answer the last time; at least 1. A parser
	// that hangs takes a worker for two seconds: a hundred workers ask 500 of them every ten seconds.
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
	// Started is when the parser's container started, as its kubelet says, in whole seconds; zero while that is not
	// known.
	Started time.Time
	// Plain is true for a parser that has no key and answers anybody: that of a revision which an older operator stored. It follows from
	// the pod's template and from nothing that is seen on the network.
	Plain bool
	// Key is the parser's public key, as the kubelet of its node says it; zero: not known.
	Key seal.PublicKey
	// Operator is the key to ask with, which the parser knows; nil when there is none.
	Operator *seal.Key
	// AcknowledgedLost and AcknowledgedGap are what a person has acknowledged of the losses of the target's parser.
	AcknowledgedLost, AcknowledgedGap growth.Loss
}

// View is what is known of a target.
type View struct {
	Judgement growth.Judgement
	// Latest is what the newest report shows, with the figures of now, whether or not it is believed yet.
	Latest growth.Judgement
	Alerts growth.Alerts
	// Process is when the process that reports started; zero: it has not reported. KnowsFormat is set once its reports
	// reach back far enough to say whether lines are malformed.
	Process     time.Time
	KnowsFormat bool
	// Reports is how many reports the process that runs has given, and Lag the worst stream's in the newest; LagKnown is false when it
	// says none.
	Reports  int
	Lag      time.Duration
	LagKnown bool
	// MissingSecret is the path in the pod of a secret that its sink needs; "" when none is missing.
	MissingSecret string
	// Delivered is set once the sink was seen to acknowledge a record of the pod that runs.
	Delivered bool
	// Evidence is what a verdict that a restart may cure rests on, oldest first; nil with all others.
	Evidence []growth.Sample
}

func view(t *growth.Tracker) View {
	v := View{
		Judgement: t.Judgement(), Latest: t.Latest(), Alerts: t.Alerts(), Process: t.Process(), KnowsFormat: t.KnowsFormat(),
		Reports: t.Reports(), MissingSecret: t.MissingSecret(), Delivered: t.Delivered(),
	}
	v.Lag, v.LagKnown = t.Lag()
	if v.Judgement.Verdict.Restartable() {
		v.Evidence = t.Evidence()
	}
	return v
}

// Poller is safe for concurrent use. It is a manager.Runnable that runs on the leader only.
type Poller struct {
	options Options
	changes chan event.TypedGenericEvent[types.NamespacedName]

	mu      sync.Mutex // guards what follows, and the lanes' queues
	objects map[types.NamespacedName]map[string]*entry
	prompt  lane // targets that answered the last time, or were not asked yet
	silent  lane // targets that did not answer
}

// lane is a queue of targets with workers of its own.
type lane struct {
	queue queue
	kick  chan struct{} // the queue's head changed
}

func (l *lane) wake() {
	select {
	case l.kick <- struct{}{}:
	default: // already kicked
	}
}

// entry is one target.
type entry struct {
	object   types.NamespacedName
	endpoint Endpoint
	settings growth.Settings
	tracker  growth.Tracker
	due      time.Time
	lane     *lane // that it is queued in, or was taken from
	place    int   // in the lane's queue; -1 while it is being polled, or forgotten
	gone     bool  // forgotten
	// session is that of the endpoint's keys when it was last polled. It is the worker's that polls it.
	session *seal.Session
}

// New returns a poller that does nothing until it is started.
func New(options Options) *Poller {
	return &Poller{
		options: options,
		changes: make(chan event.TypedGenericEvent[types.NamespacedName], wakes),
		objects: map[types.NamespacedName]map[string]*entry{},
		prompt:  lane{kick: make(chan struct{}, 1)},
		silent:  lane{kick: make(chan struct{}, 1)},
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
			p.push(e, &p.prompt)
		}
		p.update(e, endpoint, settings, now)
		after[endpoint.Target] = e
		views[endpoint.Target] = view(&e.tracker)
	}
	for name, e := range before {
		if after[name] == nil {
			p.drop(e)
		}
	}
	p.objects[object] = after
	return views
}

// update takes in the state of a pod. A pod or container that is new is asked after a full interval's stagger at the latest, whatever
// the old one answered.
func (p *Poller) update(e *entry, endpoint Endpoint, settings growth.Settings, now time.Time) {
	fresh := e.endpoint.IP != endpoint.IP || e.endpoint.Pod.UID != endpoint.Pod.UID ||
		e.endpoint.Pod.Container != endpoint.Pod.Container || e.settings.PollInterval != settings.PollInterval
	e.endpoint, e.settings = endpoint, settings
	e.tracker.ObservePod(endpoint.Pod, now, settings)
	e.tracker.Acknowledge(endpoint.AcknowledgedLost, endpoint.AcknowledgedGap)
	soon := now.Add(stagger(e.object, endpoint.Target, settings.PollInterval))
	if fresh && e.place >= 0 {
		heap.Remove(&e.lane.queue, e.place)
		if soon.Before(e.due) {
			e.due = soon
		}
		p.push(e, &p.prompt)
	}
}

// push puts an entry into a lane's queue.
func (p *Poller) push(e *entry, l *lane) {
	e.lane = l
	heap.Push(&l.queue, e)
	if e.place == 0 {
		l.wake()
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
}

func (p *Poller) drop(e *entry) {
	e.gone = true
	if e.place >= 0 {
		heap.Remove(&e.lane.queue, e.place)
	}
}

// Start polls until the context ends, and returns when all that it started has ended.
func (p *Poller) Start(ctx context.Context) error {
	var lanes sync.WaitGroup
	for _, l := range []*lane{&p.prompt, &p.silent} {
		lanes.Go(func() { p.serve(ctx, l) })
	}
	lanes.Wait()
	p.options.Client.Close()
	return nil
}

// serve asks the targets of a lane as they fall due.
func (p *Poller) serve(ctx context.Context, l *lane) {
	work := make(chan *entry)
	var workers sync.WaitGroup
	for range max(p.options.Workers, 1) {
		workers.Go(func() {
			var r report.Report
			for e := range work {
				p.poll(ctx, e, &r)
			}
		})
	}
	p.dispatch(ctx, l, work)
	close(work)
	workers.Wait()
}

// dispatch hands out entries as they fall due.
func (p *Poller) dispatch(ctx context.Context, l *lane, work chan<- *entry) {
	for {
		e, wait := p.next(l)
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
		case <-l.kick:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// next takes the entry that is due, or says how long to wait for one.
func (p *Poller) next(l *lane) (*entry, time.Duration) {
	const idle = time.Hour // a push ends the wait
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(l.queue) == 0 {
		return nil, idle
	}
	head := l.queue[0]
	if wait := head.due.Sub(p.options.Clock.Now()); wait > 0 {
		return nil, max(wait, head.settings.PollInterval/together)
	}
	return heap.Pop(&l.queue).(*entry), 0
}

// poll asks one parser, judges, and puts the entry back into the queue. r is to read the report into.
func (p *Poller) poll(ctx context.Context, e *entry, r *report.Report) {
	p.mu.Lock()
	asked, interval := e.endpoint, e.settings.PollInterval
	p.mu.Unlock()

	var answer *growth.Poll
	if asked.Pod.Running && asked.IP != "" && !asked.Pod.Terminating {
		start := p.options.Clock.Now()
		session, err := asked.session(e.session)
		if err == nil {
			e.session = session
			err = p.options.Client.fetch(ctx, e.object.Namespace, asked, session, interval, r)
		}
		if ctx.Err() != nil {
			return // an answer cut short by our own end says nothing
		}
		answer = &growth.Poll{Report: r}
		if err != nil {
			answer = &growth.Poll{Failure: prose.Line(err.Error(), maxFailure)}
			*r = report.Report{} // what a liar has filled it with is not kept
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
	changed, next := false, &p.prompt
	switch {
	case asked.Pod.UID != e.endpoint.Pod.UID || asked.Pod.Container != e.endpoint.Pod.Container:
		// The answer is of a pod or container that has been replaced meanwhile.
	case answer == nil:
		changed = e.tracker.ObservePod(e.endpoint.Pod, now, e.settings) // time alone may change the judgement
	default:
		changed = e.tracker.ObservePoll(*answer, now, e.settings)
		if answer.Report == nil {
			next = &p.silent
		}
	}
	wait := e.settings.PollInterval
	if e.tracker.Missed() >= patience {
		wait *= backoff
	}
	// When the sweep is late, polls that were missed are not caught up with, and the stagger stays as it was.
	e.due = e.due.Add(wait * max(now.Sub(e.due)/wait, 1))
	p.push(e, next)
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
