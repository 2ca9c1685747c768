// Package plan decides what the operator does next about one fleet: which pods it creates, deletes and restarts, and at which
// revision.
//
// It is one pure function, Next, over plain values. It must never touch the API server, the network or the clock, and never
// remember anything: whoever calls it gathers the inputs and carries out the actions, in their order. What it has to know again is in
// Result.Rollout, Result.Trials and the records of restarts, which are written before anything is done.
//
// # The algorithm
//
// Let a target be able when its node is Ready and may take a new pod now. Only able targets count against budgets: what a lost,
// cordoned or tainted node does is not our doing, and nobody waits for it. A target is good when it is judged and not bad (Healthy,
// CatchingUp), and proven when it has been good for Proof, with the pod that it has.
//
// Budgets (budget.go), with D the number of targets, percentages rounded up and at least 1:
//
//	maxUnavailable  of D, bounds all unavailability that we cause
//	maxConcurrent   of D, bounds restarts inside it
//
//	down     = able targets whose pod is missing, terminating, or recorded to be deleted
//	unready  = able targets whose pod is there and not ready
//	ours     = those of them that were restarted, or whose pod was created less than Settle ago
//	inFlight = able targets with a restart in the ledger and no ready pod since
//	unjudged = able targets whose pod is ready and of which it is not known how it is
//
//	rollouts may take   maxUnavailable − down − unready                              ready pods
//	restarts may take   min(maxUnavailable − down − ours, maxConcurrent − inFlight)  pods
//
// A rollout stops for as long as pods are not ready, but for replacing those themselves. A restart does not stop for a pod that
// has been failing for long elsewhere: that is not our doing. What a restart takes, the rollout of the same step cannot take.
//
// Fleet-wide faults (fleetwide.go). A target is affected when it is bad, or was restarted less than Settle ago and is not proven
// since. With t the threshold (30 %), a of D targets reach it when a ≥ max(⌈t·D⌉, 2), or when that holds for this fleet and those
// elsewhere with the same sink together. Then
//
//	fleet-wide  when the affected reach it; when it was so, also while the affected with the unjudged and the not yet proven do
//	unsure      when the affected with the unjudged reach it
//
// Nothing is restarted while the fault is fleet-wide, which needs no memory but what the last plan said: a fleet that hovers
// about the threshold is fleet-wide until those that recovered are proven, and targets that are ill for good do not hold it
// there. Nothing is restarted while it is unsure either: a new leader, who knows nothing yet, does not take the first verdict of
// an outage for one parser's. Rollouts go on: they may be the cure.
//
// Trials (trial.go). A cause is a verdict, with the reason when it is Growing. The first restart for a cause is a trial: none
// follows for that cause until its target is proven, which frees the others for LedgerMemory. It has failed when the target has
// the same again, or is ill by a fault of its own after Settle; it is void when that cannot be told: the node is lost, no pod
// came, the sink died. After a failure another target is tried before the same. Restarts are ineffective for a target that failed
// twice; and for all, when two different targets failed and none was helped lately. That ends when the spec changes.
//
// Revisions (rollout.go). On the way from Current to Update a target is taken when its pod is to be of Update. The targets that
// were taken are written down before the first of their pods is deleted, as one name up to which all are, and a list of those
// that are out of turn. So for a target whose pod is gone
//
//	it comes back at Update   when it was taken, when there is no other revision, or before a first one was complete
//	it comes back at Current  otherwise, and when the canary failed
//
// whoever leads, and nothing goes back and forth: targets are taken, never given back, as long as Update stays the same and its
// canary has not failed. A target that has no pod is taken too, if fewer than maxUnavailable of those that were taken are unready
// or unjudged. A ready pod is taken only if rollouts may take more than there are unjudged. The way is complete when every able
// target has a pod of Update that is ready, or older than Settle.
//
// A rollout stops, and is not rolled back, while more targets are ill than were when it began, and a larger share of those with
// a pod of Update than of the others: where the old ones are as ill, the new revision is no worse and may be the cure.
// Ill is what is bad by a fault that may be the revision's: not SinkDown or SourceStalled, which are external, and not a pod that
// is starting. Promotion by hand overrides it.
//
// A canary (canary.go), when one is asked for and there is a Current revision: only so many targets are taken, 500 at
// the most, those first whose pods are of a revision that was given up, then those that are good, then the others, by name; and in
// place of one whose node is lost, another. The canary
//
//	fails    when one of them is worse than it was itself before it was taken: its container restarts more often than its node
//	         boots and than it did before (a first time too often counts when it is ready again), it is not ready
//	         for Settle, or its verdict is more severe (Overloaded < all others < NotRunning), and neither fading, nor external,
//	         nor as frequent among targets that were not taken; Unreachable and NotRunning only after Settle. Not while the fault
//	         is fleet-wide among those that were not taken. How a pod of a revision that was given up works is no measure: such a
//	         target is taken to have been well
//	counts   the time in which all of them are ready, judged, and not more severe than before. Every tenth of the soak it is
//	         written down. What was not is lost when a canary is not judged: then nobody has seen it
//	passes   when that is as long as the soak, and none is CatchingUp that was well before; or is promoted by hand
//
// A revision that cures a fleet soaks like any other, however ill the rest is. When it fails, canaries go back to Current, and
// nothing is taken until there is another Update, or promotion by hand. Setting Update back to Current is a plain rollout without
// a canary.
//
// Steps, in this order:
//
//  1. Is the fault fleet-wide? Did restarts help? How far is the way to Update, and at which revision does each target's pod come
//     back?
//  2. A pod that no target asks for is deleted: where targets move, also the one on the node that its target has left.
//  3. A pod that has failed for good (evicted, rejected by its node) is deleted once its target's backoff is over.
//  4. An able target without a pod gets one; after a move not before its old pod is gone, or lost with its node.
//  5. A restart that is in the ledger and whose pod still lives is completed; it was counted when it was recorded.
//  6. Bad targets are restarted: Growing before others, the longest first; each recorded before its pod is deleted. Not while
//     paused, on hold, fleet-wide or unsure, or when only alerts are wanted; not during another's trial, nor when restarts are
//     ineffective; not in the target's cooldown (the first is free, each further restart doubles it, up to an hour); not more
//     than maxPerHour times an hour. A pod that is about to be replaced is left to step 7.
//  7. Unless paused or on hold, pods are replaced that are not of the revision that is their target's, or from before somebody
//     asked for new ones (RestartedAt, which has no canary); then those are taken whose turn it is. First all that are not ready,
//     which costs nothing, and those on nodes that are not Ready; then ready ones as far as the budget goes, bad ones first, then
//     by name. A pod whose node takes no new one is left alone: nothing would come after it.
//
// A step that must wait for a time says so in Result.NextTime; one that waits for pods or nodes is woken by their events.
package plan

import (
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

const (
	// Settle is how long after its creation a pod that is not ready is put down to us though we did not restart it, and how long
	// a recorded restart may take to be completed. After that an unfinished restart is forgotten: the pod that it was about may
	// be a healthy one by now.
	Settle = 10 * time.Minute
	// LedgerMemory is how long a restart counts: for the hourly cap, and, while Healthy, for the doubling of the cooldown.
	LedgerMemory = time.Hour
	// maxCooldown bounds the doubling.
	maxCooldown = time.Hour
	// stuckGrace replaces the pod's own grace period when it is Stuck: it would do nothing with more.
	stuckGrace = 5 * time.Second
	// Proof is how long a parser must be Healthy, or CatchingUp, to say that its restart helped.
	Proof = 2 * time.Minute
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
	// NodeReady is false for a node that is lost: replacing its pod costs nothing.
	NodeReady bool
	// Boot tells the node's boots apart, from one another and from other nodes'; "" when that is not known. It is written down for
	// canaries, so it should be short.
	Boot string
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
	Created     time.Time
	Ready       bool
	// ReadyChanged is when Ready last changed; zero: never.
	ReadyChanged time.Time
	// Restarts of its container.
	Restarts    int
	Terminating bool
	// Failed pods will not run again.
	Failed bool
}

// unreadySince is since when a pod that is not ready is not.
func (p *Pod) unreadySince() time.Time {
	if p.ReadyChanged.After(p.Created) {
		return p.ReadyChanged
	}
	return p.Created
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
	// Hold stops everything that would need a new pod: the spec cannot be carried out.
	Hold bool
}

// Elsewhere counts the targets of other objects with the same sink.
type Elsewhere struct {
	Desired int
	// Affected is the sum of their Result.Affected.
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
	// Promote is true while somebody wants Update to be rolled out whatever its canaries say.
	Promote   bool
	Elsewhere Elsewhere
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
	waitsForSpec    = "restarts do not help: none until the spec changes"
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
	// Ineffective are the targets, sorted, that would be restarted if restarts helped.
	Ineffective []string
	// Affected counts the targets that are bad or were restarted lately. FleetWide is true when they are so many that what is
	// wrong is not one parser's; Outage says so in a sentence, with the figures.
	Affected  int
	FleetWide bool
	Outage    string
	// Phase of the rollout, and a sentence about it.
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
