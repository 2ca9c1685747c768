// Package poller collects the reports of parsers in the background and keeps a judgement on each, so that a reconcile
// never waits for the network.
//
// It polls each target once per interval, with stagger, by a bounded number of workers. Each poll is bounded in time
// and in bytes. Parsers that did not answer the last poll have workers of their own: however many hang, the others are
// polled on time. A parser that has missed health.MissedPolls polls is Unreachable and is polled every other interval;
// its return is noticed that much later. An object is reconciled only when a judgement on one of its targets changes.
// Figures that fluctuate cause no reconcile.
//
// A report counts only if the pod's own parser has sealed it for the poll (package seal). A pod is polled over plain
// HTTP only if its template has no keys.
//
// The package must never read or write objects of the Kubernetes API, never act on a verdict, and never hold a lock
// while it waits for a parser.
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

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

const (
	// backoffIntervals is the number of intervals between two polls of an Unreachable parser. A longer backoff would save
	// little, since such polls delay no others, and would delay the notice that a parser is back.
	backoffIntervals = 2
	// coalesceFraction is the part of an interval by which polls are coalesced: a dispatcher sleeps for at least an
	// interval divided by it. In a large fleet all polls due within 100 ms then share one wakeup; with one wakeup each,
	// wakeups would cost more than the polls.
	coalesceFraction = 50
	// maxFailure bounds, in bytes, what is kept of why a poll failed: it may quote the response.
	maxFailure = 256
	// pendingChanges is how many changes may wait for the controller before workers block.
	pendingChanges = 1024
)

// Options configure a Poller.
type Options struct {
	// Client fetches reports.
	Client *Client
	// Clock is the source of arrival times and timers.
	Clock clock.Clock
	// Workers is the number of concurrent polls, at least 1. As many again serve the parsers that did not answer the last
	// poll. A parser that hangs occupies a worker for two seconds: a hundred workers poll 500 of them every ten seconds.
	Workers int
	// Polled, if set, receives the object and the duration of each poll, and why it failed; "" if it brought a report. It
	// must not block.
	Polled func(object types.NamespacedName, took time.Duration, why Failure)
}

// Endpoint is the current pod of a target.
type Endpoint struct {
	Target  string
	PodName string
	// IP is the address of the parser; empty until the pod has one.
	IP  string
	Pod health.PodState
	// Started is when the parser's container started, from its kubelet, in whole seconds; zero while unknown.
	Started time.Time
	// Plain is true for a parser that has no key and answers any client. It follows from the pod's template, and from
	// nothing observed on the network.
	Plain bool
	// Key is the parser's public key, from the kubelet of its node; zero while unknown.
	Key seal.PublicKey
	// Operator is the key to request reports with, which the parser knows; nil when there is none.
	Operator *seal.Key
	// AcknowledgedLost and AcknowledgedGap are the losses of the target's parser that a user has acknowledged.
	AcknowledgedLost, AcknowledgedGap health.Loss
	// NearRetention is the alert of an earlier pod of the target, whose lines wait on the disk still; the zero Alert for
	// none. It matters when the target is new to the poller.
	NearRetention health.Alert
}

// View is the state of a target.
type View struct {
	Judgement health.Judgement
	// Latest is what the newest report shows, with current figures, confirmed or not.
	Latest health.Judgement
	Alerts health.Alerts
	// Process is when the reporting process started; zero before its first report. KnowsFormat is true once its reports
	// reach back far enough to compute the share of malformed lines.
	Process     time.Time
	KnowsFormat bool
	// Reports is the number of reports of the running process. Lag is that of the worst stream in the newest one. LagKnown
	// is false when no stream reports a lag.
	Reports  int
	Lag      time.Duration
	LagKnown bool
	// MissingSecret is the path, in the pod, of a secret that its sink needs; "" when none is missing.
	MissingSecret string
	// Delivered is true once the sink was observed to acknowledge a record of the running pod.
	Delivered bool
	// Evidence is the figures behind a restartable verdict, oldest first; nil for all other verdicts.
	Evidence []health.Sample
}

func view(t *health.Tracker) View {
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

	mu           sync.Mutex // guards the fields below, and the lanes' queues
	objects      map[types.NamespacedName]map[string]*entry
	responsive   lane // targets that answered the last poll, or have not been polled yet
	unresponsive lane // targets that did not answer
}

// lane is a queue of targets with workers of its own.
type lane struct {
	queue  queue
	wakeup chan struct{} // the queue's head changed
}

func (l *lane) wake() {
	select {
	case l.wakeup <- struct{}{}:
	default: // one is pending already
	}
}

// entry is one target.
type entry struct {
	object   types.NamespacedName
	endpoint Endpoint
	settings health.Settings
	tracker  health.Tracker
	answer   lastAnswer
	due      time.Time
	lane     *lane // in which it is queued, or from which it was taken
	index    int   // in the lane's queue; -1 while it is being polled, or was removed
	removed  bool
	// session is for the endpoint's keys as of the last poll. Only the polling worker accesses it.
	session *seal.Session
}

// New returns a poller that does nothing until it is started.
func New(options Options) *Poller {
	return &Poller{
		options: options,
		changes: make(chan event.TypedGenericEvent[types.NamespacedName], pendingChanges),
		objects: map[types.NamespacedName]map[string]*entry{},

		responsive:   lane{wakeup: make(chan struct{}, 1)},
		unresponsive: lane{wakeup: make(chan struct{}, 1)},
	}
}

// Changes delivers the name of an object when a judgement on one of its targets has changed.
func (p *Poller) Changes() <-chan event.TypedGenericEvent[types.NamespacedName] { return p.changes }

// NeedLeaderElection returns true: only one operator polls a parser.
func (p *Poller) NeedLeaderElection() bool { return true }

// Track replaces the endpoints of an object, takes in the state of its pods, and returns the view of each target. It
// does not notify Changes: the caller has the result.
func (p *Poller) Track(object types.NamespacedName, settings health.Settings, endpoints []Endpoint) map[string]View {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.options.Clock.Now()
	before := p.objects[object]
	after := make(map[string]*entry, len(endpoints))
	views := make(map[string]View, len(endpoints))
	for _, endpoint := range endpoints {
		e := before[endpoint.Target]
		if e == nil {
			e = &entry{object: object, index: -1, due: now.Add(stagger(object, endpoint.Target, settings.PollInterval))}
			e.endpoint, e.settings = endpoint, settings
			e.tracker.Inherit(endpoint.NearRetention)
			p.push(e, &p.responsive)
		}
		p.update(e, endpoint, settings, now)
		after[endpoint.Target] = e
		views[endpoint.Target] = view(&e.tracker)
	}
	for name, e := range before {
		if after[name] == nil {
			p.remove(e)
		}
	}
	p.objects[object] = after
	return views
}

// Backlog is what waits in an object's fleet, by the newest reports of the parsers that answer.
type Backlog struct {
	// Lag is that of the worst target.
	Lag time.Duration
	// Uncommitted is the sum over all targets, and Worst the part of the worst one, in bytes.
	Uncommitted, Worst int64
}

// Backlogs returns the backlog of each object, by the parsers that answer. It has no entry for an object without any.
func (p *Poller) Backlogs() map[types.NamespacedName]Backlog {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[types.NamespacedName]Backlog, len(p.objects))
	for object, entries := range p.objects {
		var sum Backlog
		any := false
		for _, e := range entries {
			bytes, known := e.tracker.Uncommitted()
			if !known || e.tracker.Missed() >= health.MissedPolls {
				continue
			}
			any = true
			lag, _ := e.tracker.Lag()
			sum.Lag, sum.Worst = max(sum.Lag, lag), max(sum.Worst, bytes)
			sum.Uncommitted += bytes
		}
		if any {
			out[object] = sum
		}
	}
	return out
}

// update takes in the state of a pod. A new pod or container is polled within one interval, whatever the previous one
// answered.
func (p *Poller) update(e *entry, endpoint Endpoint, settings health.Settings, now time.Time) {
	replaced := e.endpoint.IP != endpoint.IP || e.endpoint.Pod.UID != endpoint.Pod.UID ||
		e.endpoint.Pod.Container != endpoint.Pod.Container || e.settings.PollInterval != settings.PollInterval
	if e.endpoint.Pod.UID != endpoint.Pod.UID || e.endpoint.Pod.Container != endpoint.Pod.Container {
		e.answer = lastAnswer{} // the report of a process that is gone
	}
	e.endpoint, e.settings = endpoint, settings
	e.tracker.ObservePod(endpoint.Pod, now, settings)
	e.tracker.Acknowledge(endpoint.AcknowledgedLost, endpoint.AcknowledgedGap)
	soon := now.Add(stagger(e.object, endpoint.Target, settings.PollInterval))
	if replaced && e.index >= 0 {
		heap.Remove(&e.lane.queue, e.index)
		if soon.Before(e.due) {
			e.due = soon
		}
		p.push(e, &p.responsive)
	}
}

// push puts an entry into a lane's queue.
func (p *Poller) push(e *entry, l *lane) {
	e.lane = l
	heap.Push(&l.queue, e)
	if e.index == 0 {
		l.wake()
	}
}

// Forget stops polling for an object.
func (p *Poller) Forget(object types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.objects[object] {
		p.remove(e)
	}
	delete(p.objects, object)
}

func (p *Poller) remove(e *entry) {
	e.removed = true
	if e.index >= 0 {
		heap.Remove(&e.lane.queue, e.index)
	}
}

// Start polls until the context ends. It returns when all its goroutines have ended.
func (p *Poller) Start(ctx context.Context) error {
	var lanes sync.WaitGroup
	for _, l := range []*lane{&p.responsive, &p.unresponsive} {
		lanes.Go(func() { p.serve(ctx, l) })
	}
	lanes.Wait()
	p.options.Client.Close()
	return nil
}

// serve polls the targets of a lane as they fall due.
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

// dispatch passes entries to the workers as they fall due.
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
		case <-l.wakeup:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// next takes the entry that is due, or returns how long to wait for one.
func (p *Poller) next(l *lane) (*entry, time.Duration) {
	const idle = time.Hour // a push ends the wait
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(l.queue) == 0 {
		return nil, idle
	}
	head := l.queue[0]
	if wait := head.due.Sub(p.options.Clock.Now()); wait > 0 {
		return nil, max(wait, head.settings.PollInterval/coalesceFraction)
	}
	return heap.Pop(&l.queue).(*entry), 0
}

// poll polls one parser, judges, and puts the entry back into a queue. It reads the report into r.
func (p *Poller) poll(ctx context.Context, e *entry, r *report.Report) {
	p.mu.Lock()
	polled, interval := e.endpoint, e.settings.PollInterval
	p.mu.Unlock()

	var outcome *health.Poll
	if polled.Pod.Running && polled.IP != "" && !polled.Pod.Terminating {
		start := p.options.Clock.Now()
		session, err := polled.session(e.session)
		if err == nil {
			e.session = session
			err = p.options.Client.fetch(ctx, e.object.Namespace, polled, session, interval, r)
		}
		if ctx.Err() != nil {
			return // a poll cut short by our own end means nothing
		}
		outcome = &health.Poll{Report: r}
		if err != nil {
			outcome = &health.Poll{Failure: prose.Line(err.Error(), maxFailure)}
			*r = report.Report{} // do not retain what a forged report has filled it with
		}
		if p.options.Polled != nil {
			p.options.Polled(e.object, p.options.Clock.Since(start), FailureOf(err))
		}
	}
	if p.finish(e, polled, outcome) {
		select {
		case p.changes <- event.TypedGenericEvent[types.NamespacedName]{Object: e.object}:
		case <-ctx.Done():
		}
	}
}

// finish takes in the outcome of a poll, nil when there was nothing to poll, and reports whether the judgement changed.
func (p *Poller) finish(e *entry, polled Endpoint, outcome *health.Poll) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.removed {
		return false
	}
	now := p.options.Clock.Now()
	changed, next := false, &p.responsive
	switch {
	case polled.Pod.UID != e.endpoint.Pod.UID || polled.Pod.Container != e.endpoint.Pod.Container:
		// The pod or container was replaced during the poll.
	case outcome == nil:
		changed = e.tracker.ObservePod(e.endpoint.Pod, now, e.settings) // time alone may change the judgement
	default:
		changed = e.tracker.ObservePoll(*outcome, now, e.settings)
		e.answer.keep(outcome, now)
		if outcome.Report == nil {
			next = &p.unresponsive
		}
	}
	wait := e.settings.PollInterval
	if e.tracker.Missed() >= health.MissedPolls {
		wait *= backoffIntervals
	}
	// When polls are late, missed ones are skipped, and the stagger is kept.
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
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i]; q[i].index, q[j].index = i, j }

func (q *queue) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	e.index = -1
	return e
}
