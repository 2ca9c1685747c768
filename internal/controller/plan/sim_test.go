package plan_test

import (
	"fmt"
	"maps"
	"math/rand"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// sim is a model of a fleet with its nodes, kubelets, sink, API server and operator. It carries out plans, and checks
// them against invariants by records of its own.
type sim struct {
	*rapid.T
	now     time.Time
	targets map[string]*simTarget
	named   int
	nodes   map[string]*simNode
	pods    map[string]*simPod // by name
	uids    int

	// skew is how far the clocks of the API server and the kubelets are ahead of the operator's, which everything else
	// here uses.
	skew    time.Duration
	removed map[string]*simTarget // targets that are absent for a moment

	// What the object specifies.
	update      string
	restartedAt string
	promote     bool
	limits      plan.Limits
	spec        int
	sink        health.Verdict // the verdict on every parser because of the sink; "" while the sink works

	// What outlives an operator.
	current   string
	ledger    plan.Ledger
	trials    plan.Trials
	rollout   plan.Rollout
	fleetWide bool

	// The operator that runs, and its memory.
	up            bool
	stale         map[string]plan.Pod // an older view of the pods; nil: the view is fresh
	written       map[string]bool     // UIDs of the pods that it has deleted since that view
	judged        map[string]health.Judgement
	judgedUID     map[string]string
	judgeFrom     map[string]time.Time // when its windows began
	observed      map[string]plan.Pod  // by UID: the observed ages of pods
	unreadySince  map[string]time.Time // by target
	unschedulable map[string]bool      // by target
	absent        map[string]time.Time // canaries that are not targets

	// Records of what was done, to check plans against.
	epoch      int                    // counts changes of what pods should be
	last       map[string]lastPod     // by target
	restarts   map[string][]time.Time // by target
	recorded   map[string]time.Time   // restarts, by UID
	openTrials map[string]*openTrial  // by cause: the last restart that others wait for
	takenDown  map[string]bool        // targets whose ready pod was deleted, until one is ready or long is not
	disrupted  map[string]bool        // the same, however long ago: a rollout waits for them
	wellSince  time.Time              // since when all canaries have been well
	well       time.Duration          // how long they were well before
	steps      int
}

type simTarget struct {
	node  string
	moves int
	fault string // "", "sick" (Stuck whatever is done), or one of incurable
}

// incurable lists the faults that no plan can cure: a parser that cannot be judged, pods that are refused, never become
// ready or never terminate, and a Hyperliquid node's pod that was evicted.
var incurable = []string{"indeterminate", "refused", "dead", "overdue", "evicted"}

// makeIncurable gives a target an incurable fault.
func (s *sim) makeIncurable(name, fault string) {
	t := s.targets[name]
	t.fault = fault
	p := s.pods[t.pod()]
	switch {
	case p == nil:
	case fault == "refused":
		s.die(t.pod())
	case fault == "dead":
		s.setReady(p, false)
	case fault == "overdue":
		p.Terminating = true
	}
}

func (t *simTarget) incurable() bool { return slices.Contains(incurable, t.fault) }

type simNode struct {
	ready, cordoned bool
	boot            int
}

type simPod struct {
	plan.Pod
	node  string
	fault health.Verdict // of this pod, and gone with it
	epoch int            // the last in which it was observed alive
	// unreadyAt is since when it is unready; zero while it is ready.
	unreadyAt time.Time
}

type lastPod struct {
	revision string
	epoch    int
}

type openTrial struct {
	target, uid string
	at          time.Time
}

// Pods of revision crash never become ready, and those of revision hang are Stuck.
var simRevisions = []string{"good1", "good2", "good3", "crash", "hang"}

const simTick = 30 * time.Second

func newSim(t *rapid.T) *sim {
	s := &sim{
		T: t, now: now, targets: map[string]*simTarget{}, nodes: map[string]*simNode{}, pods: map[string]*simPod{},
		update: "good1", ledger: plan.Ledger{}, up: true,
		last: map[string]lastPod{}, restarts: map[string][]time.Time{}, recorded: map[string]time.Time{},
		openTrials: map[string]*openTrial{}, takenDown: map[string]bool{}, disrupted: map[string]bool{},
	}
	s.limits = plan.Limits{
		MaxUnavailable: intstr.FromInt32(int32(rapid.IntRange(1, 3).Draw(t, "maxUnavailable"))),
		MaxConcurrent:  intstr.FromInt32(int32(rapid.IntRange(1, 3).Draw(t, "maxConcurrent"))),
		Cooldown:       5 * time.Minute, MaxPerHour: 3,
	}
	if rapid.Bool().Draw(t, "canary") {
		s.limits.Canary = &plan.Canary{
			Count: intstr.FromInt32(int32(rapid.IntRange(1, 3).Draw(t, "canaries"))),
			Soak:  time.Duration(rapid.IntRange(0, 20).Draw(t, "soak")) * time.Minute,
		}
	}
	s.skew = time.Duration(rapid.SampledFrom([]int{0, 0, 1, -1, 11, -11, 600, -600}).
		Draw(t, "skew in minutes")) * time.Minute
	for range rapid.IntRange(1, 9).Draw(t, "targets") {
		s.addTarget()
	}
	s.startOperator()
	if rapid.Bool().Draw(t, "installed") {
		s.settle()
	}
	return s
}

func (s *sim) addTarget() {
	// Names are not reused, and new ones sort before, between and after the others.
	s.named++
	name := fmt.Sprintf("t%d-%d", s.named*7%10, s.named)
	s.targets[name] = &simTarget{}
	s.place(name)
}

// place gives a target a new node.
func (s *sim) place(name string) {
	t := s.targets[name]
	t.moves++
	t.node = fmt.Sprintf("%s-%d", name, t.moves)
	s.nodes[t.node] = &simNode{ready: true}
}

// pod returns the name of the target's pod. A target whose pod was evicted is on no node.
func (t *simTarget) pod() string {
	if t.fault == "evicted" {
		return "pod-nowhere-" + t.node
	}
	return "pod-" + t.node
}

func (s *sim) startOperator() {
	s.up, s.stale = true, nil
	s.judged, s.judgedUID, s.judgeFrom = map[string]health.Judgement{}, map[string]string{}, map[string]time.Time{}
	s.observed, s.unreadySince, s.unschedulable = map[string]plan.Pod{}, map[string]time.Time{}, map[string]bool{}
	s.absent = map[string]time.Time{}
	s.poll()
}

// poll does what the poller does: it keeps a judgement on each target. The verdict is Unknown for a minute after the
// pod or the operator is new.
func (s *sim) poll() {
	if !s.up {
		return
	}
	for name, t := range s.targets {
		p := s.pods[t.pod()]
		if p == nil {
			delete(s.judged, name)
			delete(s.judgedUID, name)
			continue
		}
		if s.judgedUID[name] != p.UID {
			s.judgedUID[name], s.judgeFrom[name] = p.UID, s.now
			s.judged[name] = health.Judgement{Verdict: health.Unknown, Since: s.now}
		}
		verdict := s.verdict(t, p)
		if s.now.Before(s.judgeFrom[name].Add(time.Minute)) && verdict != health.NotRunning {
			verdict = health.Unknown
		}
		if s.judged[name].Verdict != verdict {
			s.judged[name] = health.Judgement{Verdict: verdict, Message: "as it is", Since: s.now}
		}
	}
	s.closeTrials()
}

func (s *sim) verdict(t *simTarget, p *simPod) health.Verdict {
	switch {
	case !s.nodes[p.node].ready:
		return health.Unreachable
	case !p.Ready && s.now.Before(s.observed[p.UID].FirstObserved.Add(simTick)):
		return health.Unknown
	case !p.Ready:
		return health.NotRunning
	case t.fault == "indeterminate":
		return health.Unknown
	case s.sink != "":
		return s.sink
	case p.fault != "":
		return p.fault
	case t.fault == "sick", p.Revision == "hang":
		return health.Stuck
	}
	return health.Healthy
}

// pass advances the time: kubelets work, parsers start, the sink and the faults stay.
func (s *sim) pass(d time.Duration) {
	s.now = s.now.Add(d)
	for _, name := range slices.Sorted(maps.Keys(s.pods)) {
		p := s.pods[name]
		node := s.nodes[p.node]
		switch {
		case node == nil || !node.ready:
			continue
		case p.Terminating && s.faultOf(p.Target) == "overdue":
		case p.Terminating:
			s.die(name)
		case p.Failed:
		case s.faultOf(p.Target) == "dead":
			s.setReady(p, false)
		case p.Revision == "crash":
			p.Restarts++
			s.setReady(p, false)
		case s.now.Add(s.skew).Sub(p.Created) >= 10*time.Second:
			s.setReady(p, true)
		}
	}
	s.poll()
}

func (s *sim) faultOf(target string) string {
	if t := s.targets[target]; t != nil {
		return t.fault
	}
	return ""
}

func (s *sim) setReady(p *simPod, ready bool) {
	if p.Ready == ready {
		return
	}
	p.Ready, p.ReadyChangedAt, p.unreadyAt = ready, s.now.Add(s.skew), time.Time{}
	if !ready {
		p.unreadyAt = s.now
		return
	}
	delete(s.disrupted, p.Target)
}

// schedulable reports whether a target accepts a pod now.
func (s *sim) schedulable(t *simTarget) bool {
	node := s.nodes[t.node]
	return node.ready && !node.cordoned && t.fault != "evicted"
}

// observe records the ages of pods by the operator's clock.
func (s *sim) observe(pods []plan.Pod) {
	there := map[string]bool{}
	ready := map[string]bool{}
	for _, p := range pods {
		there[p.UID] = true
		ages, known := s.observed[p.UID]
		if !known {
			ages.FirstObserved = s.now
		}
		switch {
		case !p.Terminating || p.NodeLost:
			ages.TerminatingSince = time.Time{}
		case ages.TerminatingSince.IsZero():
			ages.TerminatingSince = s.now
		}
		s.observed[p.UID] = ages
		if t := s.targets[p.Target]; t != nil && t.pod() == p.Name && p.Ready && !p.Terminating {
			ready[p.Target] = true
		}
	}
	for name, t := range s.targets {
		schedulable := s.schedulable(t)
		if _, known := s.unreadySince[name]; !ready[name] && (!known || schedulable && s.unschedulable[name]) {
			s.unreadySince[name] = s.now
		}
		s.unschedulable[name] = !schedulable
	}
	maps.DeleteFunc(s.unreadySince, func(name string, _ time.Time) bool { return ready[name] || s.targets[name] == nil })
	for _, name := range s.rollout.OutOfOrder {
		if _, known := s.absent[name]; s.targets[name] == nil && !known {
			s.absent[name] = s.now
		}
	}
	maps.DeleteFunc(s.absent, func(name string, _ time.Time) bool { return s.targets[name] != nil })
	maps.DeleteFunc(s.observed, func(uid string, _ plan.Pod) bool { return !there[uid] })
}

func (s *sim) die(name string) {
	p := s.pods[name]
	s.last[p.Target] = lastPod{p.Revision, p.epoch}
	delete(s.pods, name)
}

// view returns the input of a plan as the operator observes it.
func (s *sim) view() plan.Input {
	in := plan.Input{
		Now: s.now, Current: s.current, Update: s.update, RestartedAt: s.restartedAt, Spec: fmt.Sprint(s.spec),
		Promote: s.promote, FleetWide: s.fleetWide,
		Judgements: map[string]health.Judgement{}, Lag: map[string]time.Duration{}, Ledger: maps.Clone(s.ledger),
		Trials: s.trials, Rollout: s.rollout, Limits: s.limits,
	}
	for _, name := range slices.Sorted(maps.Keys(s.targets)) {
		t := s.targets[name]
		node := s.nodes[t.node]
		in.Targets = append(in.Targets, plan.Target{
			Name: name, Pod: t.pod(), Schedulable: s.schedulable(t), NodeReady: node.ready,
			BootID: strconv.Itoa(node.boot), UnreadySince: s.unreadySince[name],
		})
	}
	for _, name := range slices.Sorted(maps.Keys(s.pods)) {
		p := s.pods[name].Pod
		p.NodeLost = !s.nodes[s.pods[name].node].ready
		in.Pods = append(in.Pods, p)
	}
	if s.stale != nil {
		in.Pods = s.stalePods()
	}
	in.AbsentSince = maps.Clone(s.absent)
	for i := range in.Pods {
		p, ages := &in.Pods[i], s.observed[in.Pods[i].UID]
		p.FirstObserved, p.TerminatingSince = ages.FirstObserved, ages.TerminatingSince
	}
	for _, p := range in.Pods {
		t := s.targets[p.Target]
		if t == nil || t.pod() != p.Name {
			continue
		}
		if s.judgedUID[p.Target] == p.UID {
			in.Judgements[p.Target] = s.judged[p.Target]
		} else {
			in.Judgements[p.Target] = health.Judgement{Verdict: health.Unknown, Since: s.now}
		}
	}
	return in
}

// stalePods returns the pods of the stale view, with what this operator has written since.
func (s *sim) stalePods() []plan.Pod {
	pods := maps.Clone(s.stale)
	for name, p := range s.pods {
		if s.written[p.UID] {
			pods[name] = p.Pod // it created the pod, and observes it as it was created or later
		}
	}
	out := make([]plan.Pod, 0, len(pods))
	for _, name := range slices.Sorted(maps.Keys(pods)) {
		p := pods[name]
		p.Terminating = p.Terminating || s.written[p.UID] && s.stale[name].UID == p.UID
		out = append(out, p)
	}
	return out
}

// reconcile makes a plan and carries out that many of its actions. If there are more, the operator ends then.
func (s *sim) reconcile(actions int) {
	if !s.up {
		return
	}
	s.steps++
	s.observe(s.view().Pods)
	in := s.view()
	result := plan.Next(in)
	s.sameInAnyOrder(in, result)
	if !result.RecheckAt.IsZero() && !result.RecheckAt.After(s.now) {
		s.Fatalf("rechecks at %s, and it is %s", result.RecheckAt, s.now)
	}
	s.checkPlan(in, result)
	for _, p := range s.pods {
		if !p.Terminating && s.stale == nil {
			p.epoch = s.epoch
		}
	}
	crash := func() bool {
		actions--
		if actions < 0 {
			s.up = false
		}
		return !s.up
	}
	if result.Rollout != nil {
		if crash() {
			return
		}
		s.persist(*result.Rollout, in)
	}
	if crash() {
		return
	}
	s.record(in, result)
	before := s.unavailable()
	for _, a := range result.Actions {
		if crash() {
			return
		}
		if a.Replaces() {
			s.unreadySince[a.Target] = s.now
		}
		s.do(in, a)
	}
	schedulable := 0
	for _, t := range in.Targets {
		if t.Schedulable {
			schedulable++
		}
	}
	if after, limit := s.unavailable(), plan.Budget(s.limits.MaxUnavailable, schedulable); after > max(before, limit) {
		s.Fatalf("the plan made %d targets unavailable, %d before, %d allowed: %v\n%v\n%+v", after, before, limit,
			describe(result.Actions), s.takenDown, in)
	}
	s.fleetWide = result.FleetWide
	if result.Complete {
		s.checkComplete(in)
		s.current, s.rollout = s.update, s.rollout.CarriedOver()
		s.epoch++
	}
	s.poll()
}

// persist stores the state of the rollout as text, as the operator does.
func (s *sim) persist(r plan.Rollout, in plan.Input) {
	if r.Promoted && !s.rollout.Promoted && !s.promote {
		s.checkSoak(in)
	}
	if r.Failed != "" && s.rollout.Failed == "" {
		s.checkFailed(r)
	}
	if (r.Failed == "") != (s.rollout.Failed == "") {
		s.epoch++ // canaries go back, or are promoted after that
	}
	if slices.ContainsFunc(r.OutOfOrder, func(name string) bool { return !slices.Contains(s.rollout.OutOfOrder, name) }) {
		s.well, s.wellSince = 0, s.now // another canary: the soak starts over
	}
	text, err := r.Encode()
	if err != nil {
		s.Fatal(err)
	}
	if s.rollout, err = plan.DecodeRollout(text); err != nil {
		s.Fatal(err)
	}
}

// record writes the ledger.
func (s *sim) record(in plan.Input, result plan.Result) {
	for _, name := range result.Forget {
		delete(s.ledger, name)
	}
	if result.Trials != nil {
		text, err := result.Trials.Encode()
		if err != nil {
			s.Fatal(err)
		}
		if s.trials, err = plan.DecodeTrials(text); err != nil {
			s.Fatal(err)
		}
	}
	for _, a := range result.Actions {
		if a.Kind != plan.Restart {
			continue
		}
		s.ledger[a.Target] = a.Record
		if at, ok := s.recorded[a.UID]; ok && s.now.Sub(at) < plan.Settle {
			s.Fatalf("the restart of %s is counted twice, at %s and %s", a.UID, at, s.now)
		}
		s.recorded[a.UID] = s.now
		s.checkTimes(a.Target)
		s.checkTrial(in, a)
	}
}

// do carries out one action.
func (s *sim) do(in plan.Input, a plan.Action) {
	there := s.pods[a.Pod]
	if a.Kind == plan.Create {
		if there != nil {
			if s.stale == nil {
				s.Fatalf("a second pod %s", a.Pod)
			}
			return // AlreadyExists
		}
		t := s.targets[a.Target]
		if t.fault == "refused" {
			return // the API server refuses it
		}
		s.checkRevision(a)
		s.uids++
		s.pods[a.Pod] = &simPod{node: t.node, unreadyAt: s.now, Pod: plan.Pod{
			Name: a.Pod, UID: fmt.Sprint("uid", s.uids), Target: a.Target, Revision: a.Revision, RestartedAt: in.RestartedAt,
			Created: s.now.Add(s.skew),
		}}
		s.wrote(s.pods[a.Pod].UID)
		return
	}
	if there == nil || there.UID != a.UID || there.Terminating {
		if s.stale == nil {
			s.Fatalf("deletes a pod that does not exist: %+v", a)
		}
		return // NotFound, Conflict
	}
	if a.Unchanged && there.Ready {
		if s.stale == nil {
			s.Fatalf("%+v of a ready pod", a)
		}
		return // Conflict
	}
	if there.Ready && s.targets[a.Target] != nil && s.targets[a.Target].pod() == a.Pod {
		s.takenDown[a.Target], s.disrupted[a.Target] = true, true
	}
	there.Terminating = true
	s.wrote(a.UID)
}

func (s *sim) wrote(uid string) {
	if s.stale != nil {
		s.written[uid] = true
	}
}

// unavailable counts targets on schedulable nodes whose ready pod the plan deleted, and whose new one is not ready yet.
// For restarts, one that has long not become ready no longer counts, though it still stops a rollout.
func (s *sim) unavailable() int {
	n := 0
	for name, t := range s.targets {
		p := s.pods[t.pod()]
		settled := p != nil && !p.Terminating && s.now.Sub(p.unreadyAt) >= plan.Settle && len(s.ledger[name].Times) == 0
		if settled || t.incurable() || p != nil && p.Ready && !p.Terminating {
			delete(s.takenDown, name)
		}
		if node := s.nodes[t.node]; s.takenDown[name] && node.ready && !node.cordoned {
			n++
		}
	}
	return n
}

func (s *sim) sameInAnyOrder(in plan.Input, result plan.Result) {
	in.Pods, in.Targets = slices.Clone(in.Pods), slices.Clone(in.Targets)
	rand.New(rand.NewSource(1)).Shuffle(len(in.Pods), func(i, j int) { in.Pods[i], in.Pods[j] = in.Pods[j], in.Pods[i] })
	slices.Reverse(in.Targets)
	if again := plan.Next(in); !reflect.DeepEqual(again, result) {
		s.Fatalf("the order of inputs matters:\n%+v\n%+v", result, again)
	}
}

// settle ends all faults but that of one incurable target, and lets the operator work until there is nothing left to
// do.
func (s *sim) settle() {
	s.sink, s.stale = "", nil
	s.limits.Paused, s.limits.Hold, s.limits.AlertOnly = false, false, false
	s.restoreTargets()
	for _, n := range s.nodes {
		n.ready, n.cordoned = true, false
	}
	spared := len(s.targets) > 1
	for _, name := range slices.Sorted(maps.Keys(s.targets)) {
		t := s.targets[name]
		if spared && t.incurable() && !s.mayHoldRollout(name) {
			spared = false
			continue
		}
		t.fault = ""
	}
	// Parsers that hang by themselves stay for the operator to cure, unless they could make the fault fleet-wide.
	left := len(s.targets)*3/10 - 2 // with the one that is incurable
	if s.current == "hang" || s.current == "crash" {
		left = 0 // all are bad but those that the next revision cures
	}
	for _, name := range slices.Sorted(maps.Keys(s.pods)) {
		if p := s.pods[name]; p.fault != "" {
			if left--; left < 0 {
				p.fault = ""
			}
		}
	}
	if s.update == "hang" || s.update == "crash" {
		s.change(simRevisions[rapid.IntRange(0, 2).Draw(s.T, "revision that works")])
	}
	s.spec++
	if !s.up {
		s.startOperator()
	}
	const most = 600 // five hours: cooldowns of an hour, soaks, one target after another
	for range most {
		if s.rollout.Failed != "" || s.needsPerson() {
			s.promote = true
		}
		s.reconcile(1 << 20)
		if s.atRest() {
			return
		}
		s.pass(simTick)
		s.checkWell()
	}
	s.Fatalf("not at rest after %d steps:\n%s", most, s)
}

// String describes the fleet.
func (s *sim) String() string {
	in := s.view()
	next := plan.Next(in)
	var out strings.Builder
	fmt.Fprintf(&out, "%s: %s to %s, %s %q, still to do %v\n%+v\n%+v\n", s.now.Format("15:04:05"), s.current, s.update,
		next.Phase, next.Message, describe(next.Actions), s.rollout, s.limits)
	for _, t := range in.Targets {
		fmt.Fprintf(&out, "%+v %s %v", t, s.judged[t.Name].Verdict, next.Waiting[t.Name])
		for _, p := range in.Pods {
			if p.Target == t.Name {
				fmt.Fprintf(&out, "\n    %+v", p)
			}
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

// atRest reports whether every target has a ready and Healthy pod of Update, and nothing is left to do.
func (s *sim) atRest() bool {
	incurable := 0
	for name, t := range s.targets {
		p := s.pods[t.pod()]
		if t.incurable() {
			incurable++
			continue
		}
		if p == nil || !p.Ready || p.Terminating || p.Revision != s.update || s.judged[name].Verdict != health.Healthy ||
			s.restartedAt != "" && p.RestartedAt != s.restartedAt {
			return false
		}
	}
	if len(s.targets) == 0 {
		return len(s.pods) == 0 // nothing is decided
	}
	return s.current == s.update &&
		(incurable > 0 || len(s.pods) == len(s.targets) && len(plan.Next(s.view()).Actions) == 0)
}

// needsPerson reports whether a person must decide: lost canaries hold a soak, or a target that stays bad stops a
// rollout.
func (s *sim) needsPerson() bool {
	r := plan.Next(s.view())
	return strings.Contains(r.Message, "cannot be observed") || r.Phase == plan.PhaseStopped
}

// mayHoldRollout reports whether a rollout waits for the target until a person repairs it, or for a day: it has had no
// ready pod since the plan took one away, restarted it, or gave it another revision.
func (s *sim) mayHoldRollout(name string) bool {
	t := s.targets[name]
	p := s.pods[t.pod()]
	selected := slices.Contains(s.rollout.OutOfOrder, name) || name <= s.rollout.UpTo || p != nil &&
		p.Revision != s.current
	dead := t.fault == "refused" || t.fault == "dead"
	return dead && (s.disrupted[name] || slices.Contains(s.rollout.TakenDown, name) || len(s.ledger[name].Times) > 0 ||
		s.current != "" && selected && !slices.Contains(s.rollout.UnreadyBefore, name))
}

// removeTargets removes all targets for a moment.
func (s *sim) removeTargets() {
	if len(s.targets) > 0 {
		s.restoreTargets()
		s.removed, s.targets = s.targets, map[string]*simTarget{}
	}
}

func (s *sim) restoreTargets() {
	maps.Copy(s.targets, s.removed)
	s.removed = nil
}

// change changes the spec so that another revision is Update.
func (s *sim) change(revision string) {
	s.spec++
	if s.update == revision {
		return
	}
	s.update, s.rollout, s.promote = revision, s.rollout.CarriedOver(), false
	s.epoch++
	s.well, s.wellSince = 0, s.now
}
