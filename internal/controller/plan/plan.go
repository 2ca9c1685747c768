// Package plan decides what the operator does next about one fleet: which pods it creates, deletes and restarts, and at which
// revision.
//
// It is one pure function, Next, over plain values. It must never touch the API server, the network or the clock, and never
// remember anything: the caller gathers the inputs and carries out the actions, in their order. What it has to know again is in
// Result.Rollout, Result.Trials and the records of restarts, which are written before anything is done.
//
// # The algorithm
//
// Let a target be able when its node is Ready and may take a new pod now. Only able targets count against budgets, and
// percentages are of them alone: what a lost, cordoned or tainted node does, or a Hyperliquid node's pod that was
// evicted, is not our doing, nobody waits for it, and it cannot be counted down. A target is good when it is judged and
// not bad (Healthy, CatchingUp), and proven when it has been good for Proof, with the pod that it has.
//
// Three sentences hold of every count. No fault that takes away its own witness is innocence. No verdict of "none is
// bad", "all are updated" or "complete" holds of an empty set, or of one that cannot be asked. What nobody could do
// holds no budget for ever. So
//
//	count                      is of                    does not hold of            ends
//	D of percentages           able targets             –                           –
//	affected, of counted       targets that can be      none that is bad            unknown, or lost with its node, for Settle:
//	                           asked, or soon                                       it counts neither way
//	down, ours                 able targets             –                           without a ready pod for Settle
//	inFlight                   able targets             –                           after a day, or when the old pod does not end
//	unjudged                   able, ready, unknown     –                           unknown for Settle; many since they were taken
//	                                                                                hold rollouts
//	holding (a rollout)        able, not ready          –                           after Settle, unless we took it down or the new
//	                                                                                revision may have
//	pods that do not end       able targets             –                           after Settle; many hold rollouts
//	open trial                 one target               –                           void when its target cannot be asked for Settle
//	canaries that are well     taken, can be asked      none, or many of them lost  another is tried for the first that is lost
//	way complete               able targets             none of them ready          –
//
// Ages are by our own clock, and at most the time in which this process saw what they are of: neither the API server's
// clock nor a kubelet's, nor that of the operator before, makes anything older. So a new leader waits a little longer,
// and blames nobody sooner.
//
// Budgets (budget.go), with D the number of able targets, percentages rounded up and at least 1:
//
//	maxUnavailable  of D, bounds all unavailability that we cause
//	maxConcurrent   of D, bounds restarts inside it
//
//	down     = targets whose pod is missing or terminating, for less than Settle
//	ours     = those whose pod is not ready, and that were restarted, or whose pod was created less than Settle ago, unless pods of
//	           its pods have come and gone for longer
//	inFlight = those with a restart of the last day in the ledger and no ready pod since
//	unjudged = those whose pod is ready and whose state is not known
//	holding  = those without a ready pod, for less than Settle, or after a restart, or because of us: we took a ready pod away,
//	           or the pod is of another revision than Current, and the target was ready when it was taken
//
//	rollouts may take   maxUnavailable − holding                                     ready pods
//	restarts may take   min(maxUnavailable − down − ours, maxConcurrent − inFlight)  pods
//
// A rollout waits for pods that are not ready, and replaces those themselves, which come before all others. For what
// was not ready before it, it does not wait for longer than Settle, and neither does a restart: that is not our doing.
// What a restart takes, the rollout of the same step cannot take. A pod that was deleted and does not end is named, and
// after Settle nobody waits for it; but where two of them, and as many as are a fault of the fleet's, do not end, no
// rollout adds to them.
//
// Fleet-wide faults (fleetwide.go). A target is affected when it is bad, or was restarted less than Settle ago and is
// not proven since. It is counted when it is known how it is, or soon will be: not when it has been unknown, or without
// a pod, for Settle, nor when it has been bad for as long on a node that is lost. With t the threshold (30 %), a of D
// counted reach it when a ≥ max(⌈t·D⌉, 2), or when that holds for this fleet and those elsewhere with the same sink
// together, while a > 0. Elsewhere are the objects of the same namespace, with all that is bad or was restarted lately;
// and, while the sink is the trouble of at least one target here (SinkDown, Overloaded by the sink), those of each
// other namespace that were seen delivering to it, with those whose trouble it is, scaled down to D targets where they
// are more. Then
//
//	fleet-wide  when the affected reach it; when it was so, also while the affected with the unjudged and the not yet proven do
//	unsure      when the affected with the unjudged reach it
//
// Nothing is restarted while the fault is fleet-wide, which needs no memory but what the last plan said: a fleet that hovers
// about the threshold is fleet-wide until those that recovered are proven, and targets that are ill for good do not hold it
// there. Nothing is restarted while it is unsure either: a new leader, who knows nothing yet, does not take the first verdict of
// an outage for one parser's. Rollouts go on: they may be the cure.
//
// Trials (trial.go). A cause is a verdict, with the reason when it is Growing. The first restart for a cause is a
// trial: none follows for that cause until its target is proven, which frees the others for LedgerMemory. It has failed
// when the target has the same again, or is ill by a fault of its own after Settle; it is void when that cannot be
// known: the node is lost, no pod came, the sink died, its parser says nothing. After a failure another target is tried
// before the same. Restarts are ineffective for a target that failed twice; and for all, when two different targets
// failed and none was helped lately. That ends when the spec changes.
//
// Revisions (rollout.go). On the way from Current to Update a target is taken when its pod is to be of Update. The targets that
// were taken are written down before the first of their pods is deleted, as one name up to which all are, and a list of those
// that are out of turn. So for a target whose pod is gone
//
//	it comes back at Update   when it was taken, when there is no other revision, or before a first one was complete
//	it comes back at Current  otherwise, and when the canary failed
//
// under every leader, and nothing goes back and forth: targets are taken, never given back, as long as Update stays the same
// and its canary has not failed. A target that has no pod is taken too, if fewer than maxUnavailable of those that were
// taken are holding or unjudged. A ready pod is taken only if rollouts may take more than there are unjudged. The way
// is complete when every able target has a pod of Update that is ready, or older than Settle, or was without a pod of
// its own for as long, and at least one is ready.
//
// A rollout stops, and is not rolled back, while more targets are ill than were when it began, and a larger share of
// those with a pod of Update than of the others: where the old ones are as ill, the new revision is no worse and may be
// the cure. Ill is what is bad by a fault that may be the revision's: not SinkDown or SourceStalled, which are
// external, and not a pod that is starting; one with a stream that has failed is not ready either, and ill. It also
// stops while the nodes of two or more of those that were taken are lost, as many as are a fault of the fleet's, and a
// larger share than of the others. Promotion by hand overrides it.
//
// A canary (canary.go), when one is asked for and there is a Current revision: only that number of targets is taken, 500 at
// the most, those first whose pods are of a revision that was given up, then those that are good, then the others, by
// name; and in place of one that is lost, another. It is lost when its node is, when it is no target any more, when its
// old pod does not end, or when it has been unknown for Settle. One that is no target is waited for as long, for labels
// may be gone for a moment. Are two of them lost, and as many as are a fault of the fleet's, no other is taken, and the
// soak waits until they are back or a person decides. While there are no targets at all nothing is found out, and
// nothing forgotten. The canary
//
//	fails    when one of them is worse than it was itself before it was taken: a container restarts more often than its node
//	         boots and than it did before (a first time too often counts when it is ready again), its node boots three times,
//	         a container of it cannot be started for StartPatience, it is not ready
//	         for Settle, or its verdict is more severe (Overloaded < all others < NotRunning), and neither fading, nor external,
//	         nor as frequent among targets that were not taken; Unreachable and NotRunning only after Settle. Not while the fault
//	         is fleet-wide among those that were not taken. Also when many are lost with their nodes for Settle, and fewer of those
//	         that were not taken than make a fault the fleet's. How a pod of a revision that was given up works is no
//	         measure, of itself nor of the fleet: such a target is taken to have been well
//	counts   the time in which all of them are ready, judged, and not more severe than before. Every tenth of the soak it is
//	         written down. What was not is lost when a canary is not judged: then nobody has seen it
//	passes   when that is as long as the soak, and none is CatchingUp that was well before; or is promoted by hand
//
// A revision that cures a fleet soaks like any other, however ill the rest is. When it fails, canaries go back to
// Current, and nothing is taken until there is another Update, or promotion by hand. Promotion is of one rollout:
// the caller passes none of an earlier rollout. Setting Update back to Current is a plain rollout
// without a canary.
//
// Steps, in this order:
//
//  1. Is the fault fleet-wide? Did restarts help? How far is the way to Update, and at which revision does each target's pod come
//     back?
//  2. A pod that no target asks for is deleted: where targets move, also the one on the node that its target has left.
//  3. A pod that has failed for good (evicted, rejected by its node) is deleted once its target's backoff is over.
//  4. An able target without a pod gets one, also while the spec cannot be carried out, but not of what cannot be trusted; after a move
//     not before its old pod is gone, or lost with its node.
//  5. A restart that is in the ledger and whose pod still lives is completed, as far as the budget goes; it was counted when
//     it was recorded. Others may write the ledger: a record of a pod that is well, or was not there yet, is no reason to
//     delete it.
//  6. Bad targets are restarted: Growing before others, the longest first; each recorded before its pod is deleted. Not while
//     paused, on hold, fleet-wide or unsure, or when only alerts are wanted; not during another's trial, nor when restarts are
//     ineffective; not in the target's cooldown (the first is free, each further restart doubles it, up to an hour); not more
//     than maxPerHour times an hour. A pod that is about to be replaced is left to step 7.
//  7. Unless paused or on hold, pods are replaced that are not of the revision that is their target's, or from before somebody
//     asked for new ones (RestartedAt, which has no canary); then those are taken whose turn it is. First all that are not ready,
//     which costs nothing; then ready ones as far as the budget goes, bad ones first, then by name. A pod whose node takes no new one is
//     left alone: nothing would come after it, and on a node that is only cut off it works.
//
// A step that must wait for a time says so in Result.NextTime; one that waits for pods or nodes is woken by their events.
package plan

import (
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

const (
	// Settle is how long a pod may take to become ready, to be judged and to end, and a recorded restart to be
	// completed. After that an unfinished restart is forgotten: the pod that it was about may be a healthy one by now.
	Settle = 10 * time.Minute
	// StartPatience is how long a container of a canary may be unable to start. A registry or a runtime that fails once
	// is asked again within some seconds.
	StartPatience = time.Minute
	// maxBoots is how often the node of a canary may boot in its soak: once for a person's reasons, and once more.
	maxBoots = 2
	// LedgerMemory is how long a restart counts: for the hourly cap, and, while Healthy, for the doubling of the cooldown.
	LedgerMemory = time.Hour
	// maxCooldown bounds the doubling.
	maxCooldown = time.Hour
	// stuckGrace replaces the pod's own grace period when it is Stuck: it would do nothing with more.
	stuckGrace = 5 * time.Second
	// Proof is how long a parser must be Healthy, or CatchingUp, to say that its restart helped.
	Proof = 2 * time.Minute
	// FailurePause is how long a target that was not helped twice is left alone, and a fleet where too many were not.
	FailurePause = time.Hour
	// longestPause bounds the doubling of FailurePause.
	longestPause = 8 * time.Hour
	// TriedMemory is how long a trial counts for what restarts do for a fleet.
	TriedMemory = 6 * time.Hour
	// FailureMemory is how long it is remembered that a restart did not help a target.
	FailureMemory = 24 * time.Hour
	// soakTicks is into how many parts a soak is cut: a leader that ends loses one of them at most.
	soakTicks = 10
)

// Target is what must have one parser.
type Target struct {
	Name string
	// Pod is the name that the target's pod has, or will have. It says which node that is on: a target that moves has another.
	Pod string
	// Able is true when the node is Ready and may take a new pod now.
	Able bool
	// NodeReady is false for a node that is lost: nobody knows how its pod is, and what is deleted there ends when
	// it is back.
	NodeReady bool
	// Boot tells the node's boots apart, from one another and from other nodes'; "" when that is not known. It is written down for
	// canaries, so it should be short.
	Boot string
	// UnreadySince is since when this process has seen the target without a ready pod, by our clock; zero when it has
	// one, and when that is not known. It goes on over pods that come and go, and begins again with each that a rollout
	// replaces (Action.Replaces).
	UnreadySince time.Time
}

// Pod is a pod of the fleet.
type Pod struct {
	Name string
	UID  string
	// Target is what it was made for; only for pods that no target asks for any more, and those of targets that moved.
	Target string
	// NodeLost is true when the pod's node is not Ready, or is gone: there it may be Terminating for ever.
	NodeLost bool
	Revision string
	// RestartedAt is Input.RestartedAt of when it was made.
	RestartedAt string
	// Created is when it was made, by the API server's clock, which may be another than ours.
	Created time.Time
	// Seen is when this process first saw it, by our clock; zero: not known, and Created stands for it.
	Seen  time.Time
	Ready bool
	// ReadyChanged is when Ready last changed, by its kubelet's clock; zero: never.
	ReadyChanged time.Time
	// Restarts is how often a container of it restarted: of those that prepare it, and the parser's own, the one that
	// did most often. A boot of its node restarts each once.
	Restarts int
	// Blocked is why a container of it cannot be started, or fails before the parser is, as its kubelet says; "" when
	// nothing is in the way. BlockedSince is since when this process has seen that, by our clock; zero: as long as the
	// pod.
	Blocked      string
	BlockedSince time.Time
	Terminating  bool
	// EndingSince is since when this process has seen it Terminating on a node that is Ready, by our clock; zero: not
	// known, or it is not.
	EndingSince time.Time
	// Failed pods will not run again.
	Failed bool
}

// Since is from when on the pod's age counts: an age is at most the time in which this process saw it, so that no
// difference between clocks adds to it.
func (p *Pod) Since() time.Time {
	if p.Seen.IsZero() {
		return p.Created
	}
	return p.Seen
}

// unreadySince is since when a pod that is not ready is not, as far as the pod itself says; see Target.UnreadySince.
func (p *Pod) unreadySince() time.Time { return later(p.Since(), p.ReadyChanged) }

// blockedSince is since when nothing of the pod can be started.
func (p *Pod) blockedSince() time.Time { return later(p.Since(), p.BlockedSince) }

// age is how old the pod is at the most: for what may be forgiven it rather than held against it.
func (p *Pod) age(now time.Time) time.Duration {
	return max(now.Sub(p.Created), now.Sub(p.Since()), 0)
}

// wasThere reports whether the pod was there at that time, by our clock: this process saw it by then, or the API server
// had made it, whose clock may be a little ahead of ours.
func (p *Pod) wasThere(at time.Time) bool {
	return !p.Seen.IsZero() && !p.Seen.After(at) || !p.Created.After(at.Add(clockSkew))
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Limits are an object's bounds on what may be done.
type Limits struct {
	MaxUnavailable intstr.IntOrString
	MaxConcurrent  intstr.IntOrString
	Cooldown       time.Duration
	MaxPerHour     int
	// FleetWide is the share of targets, of those affected, that makes a fault the fleet's; the zero value is DefaultFleetWide.
	FleetWide intstr.IntOrString
	// Canary is how a new revision is tried out; nil: not at all.
	Canary *Canary
	// AlertOnly turns restarts into alerts.
	AlertOnly bool
	// Paused stops restarts and rollouts.
	Paused bool
	// Hold stops rollouts and restarts: the spec cannot be carried out. A pod that is gone still comes back, at the
	// revision that it had.
	Hold bool
	// NoPods stops everything that would need a new pod: what it would be made from is not to be trusted.
	NoPods bool
}

// Elsewhere counts targets of other objects with the same sink.
type Elsewhere struct {
	Desired int
	// Affected is how many of them are: of objects that are trusted the sum of Result.Affected.
	Affected int
}

// Input is all that the plan is made from.
type Input struct {
	Now time.Time
	// Current is the revision that the whole fleet had last; "" before there was one. Update is what it should have.
	// When there is no telling what it should have, Update is "", and all stays at Current.
	Current string
	Update  string
	// RestartedAt is when somebody asked for new pods, in whatever form; "" when nobody did.
	RestartedAt string
	// Spec tells specs apart: what was learnt of restarts under another is forgotten.
	Spec    string
	Targets []Target
	Pods    []Pod
	// Judgements by target, of those that have a pod.
	Judgements map[string]growth.Judgement
	// Lag by target, for messages.
	Lag    map[string]time.Duration
	Ledger Ledger
	Trials Trials
	// Rollout is what was last written for Update.
	Rollout Rollout
	// GoneSince is since when this process has seen canaries to be no targets, by our clock and by the names or signs
	// that Rollout has of them. One that is absent has only just gone, as far as is known.
	GoneSince map[string]time.Time
	// Promote is true while somebody wants Update to be rolled out whatever its canaries say.
	Promote bool
	// Elsewhere is what is trusted: objects of the same namespace. Strangers are those of each other namespace. Only targets count
	// that were seen delivering to the sink, as affected those for which the sink is the trouble.
	Elsewhere Elsewhere
	Strangers []Elsewhere
	// FleetWide is what the last plan said.
	FleetWide bool
	// RetryAt is when a failed pod of a target may be replaced; absent: now.
	RetryAt map[string]time.Time
	Limits  Limits
}

// Kind is what is done.
type Kind string

const (
	// Create makes the target's pod.
	Create Kind = "Create"
	// Delete removes a pod.
	Delete Kind = "Delete"
	// Restart records a restart in the ledger, then deletes the pod.
	Restart Kind = "Restart"
)

// Why an action is done.
const (
	WhyMissing      = "Missing"    // the target has no pod
	WhyUnselected   = "Unselected" // no target asks for the pod
	WhyFailed       = "Failed"     // the pod will not run again
	WhyOutdated     = "Outdated"   // the pod is of an older revision
	WhySentBack     = "SentBack"   // the pod is of a revision whose canary failed
	WhyAsked        = "Asked"      // somebody asked for new pods
	WhyVerdict      = "Verdict"    // a restart may cure what is wrong
	WhyUnfinished   = "Unfinished" // the restart was recorded, and its pod still lives
	waitsForBudget  = "waiting for other parsers to become ready"
	waitsForAlert   = "growth.action is Alert: restart it by hand"
	waitsForPause   = "paused: no restart"
	waitsForChanges = "no restart while Stalled"
	waitsForFleet   = "no restart: the fault is fleet-wide"
	waitsForVerdict = "waiting for the verdicts on other parsers"
)

// Action is one thing to do.
type Action struct {
	Kind   Kind
	Why    string
	Target string
	Pod    string
	// Revision of the pod to create.
	Revision string
	// UID of the pod to delete: another pod of that name is not meant.
	UID string
	// Unchanged asks to delete the pod only if it is as it was seen: it costs nothing as long as it is not ready, and may have
	// become so.
	Unchanged bool
	// Grace replaces the pod's own grace period; 0 keeps it.
	Grace time.Duration
	// Record is what the ledger says of the target from now on; set for Restart.
	Record Record
}

// Replaces reports whether the target gets a pod of another kind after this.
func (a Action) Replaces() bool {
	return a.Kind == Delete && (a.Why == WhyOutdated || a.Why == WhySentBack || a.Why == WhyAsked)
}

// Result is what to do now, and when to look again. What it has to remember is written before anything is done.
type Result struct {
	Actions []Action
	// NextTime is when the plan must be made anew though nothing happens; zero: never.
	NextTime time.Time
	// Forget lists targets whose record has served its time.
	Forget []string
	// Trials is what to write beside the ledger; nil: it has not changed.
	Trials *Trials
	// Rollout is what to write for Update; nil: it has not changed.
	Rollout *Rollout
	// Complete is true when Update has become the current revision.
	Complete bool
	// Waiting says, by target, why a restart that is due is not done.
	Waiting map[string]string
	// Ineffective are the targets, sorted, that would be restarted if restarts helped, and those that are tried once more.
	Ineffective []string
	// Affected counts the targets that are bad or were restarted lately, of the Counted whose state can be known.
	// FleetWide is true when they are so many that what is wrong is not one parser's; Outage says so in a sentence,
	// with the figures.
	Affected  int
	Counted   int
	FleetWide bool
	Outage    string
	// Phase of the rollout. Message says what it waits for, why it was stopped, and which pods do not end. It changes
	// with what it is about, and not with time.
	Phase   Phase
	Message string
}

// Next makes the plan. Equal inputs give equal results, whatever their order.
func Next(in Input) Result {
	s := newStep(in)
	s.judgeOutage()
	s.judgeTrials()
	s.judgeRollout()
	s.budget()
	s.takeMissing()
	s.deleteUnselected()
	s.deleteFailed()
	s.create()
	s.completeRestarts()
	s.restart()
	s.rollOut()
	s.forget()
	return s.finish()
}
