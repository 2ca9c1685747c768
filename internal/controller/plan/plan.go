// Package plan decides what the operator does next about one fleet: which pods it creates, deletes and restarts.
//
// It is one pure function, Next, over plain values. It must never touch the API server, the network or the clock, and never
// remember anything: whoever calls it gathers the inputs and carries out the actions, in their order.
//
// # The algorithm
//
// Let a target be able when its node is Ready and may take a new pod now. Only able targets count against budgets: what a lost,
// cordoned or tainted node does is not our doing, and nobody waits for it.
//
// Budgets, with D the number of targets, percentages rounded up and at least 1:
//
//	maxUnavailable  of D, bounds all unavailability that we cause
//	maxConcurrent   of D, bounds restarts inside it
//
//	down     = able targets whose pod is missing, terminating, or recorded to be deleted
//	unready  = able targets whose pod is there and not ready
//	ours     = those of them that were restarted, or whose pod was created less than Settle ago
//	inFlight = able targets with a restart in the ledger and no ready pod since
//
//	rollouts may take   maxUnavailable − down − unready                              ready pods
//	restarts may take   min(maxUnavailable − down − ours, maxConcurrent − inFlight)  pods
//
// A rollout stops for as long as pods are not ready, but for replacing those themselves. A restart does not stop for a pod that has been failing for
// long elsewhere: that is not our doing. What a restart takes, the rollout of the same step cannot take.
//
// Steps, in this order:
//
//  1. Is the fault the fleet's? (fleetwide.go) Then no parser is restarted.
//  2. Did restarts help? (trial.go)
//  3. How far is the way from the Current revision to Update? (rollout.go, canary.go) That says at which revision each target's pod comes back.
//  4. A pod that no target asks for is deleted: where targets move, also the one on the node that its target has left.
//  5. A pod that has failed for good (evicted, rejected by its node) is deleted once its target's backoff is over.
//  6. An able target without a pod gets one, at the revision that is its own now; after a move not before its old pod is gone, or lost with its node.
//  7. A restart that is in the ledger and whose pod still lives is completed; it was counted when it was recorded.
//  8. Bad targets are restarted: Growing before Stuck, the longest first; each recorded before its pod is deleted. Not while
//     paused, on hold, fleet-wide, or when only alerts are wanted; not in the target's cooldown (the first is free, each further restart
//     doubles it, up to an hour); not more than maxPerHour times an hour. A pod that is about to be replaced is left to step 9.
//  9. Pods of an older revision are deleted, unless paused or on hold: all those that are not ready, which costs nothing, and those
//     on nodes that are not Ready; then ready ones as far as the budget goes, bad ones first, then by name. A pod whose node takes
//     no new one is left alone: nothing would come after it.
//
// A step that must wait for a time says so in Result.NextTime; one that waits for pods or nodes is woken by their events.
package plan

import (
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

const (
	// Settle is how long after its creation a pod that is not ready is put down to us though we did not restart it, and how long a recorded restart may take to
	// be completed. After that an unfinished restart is forgotten: the pod that it was about may be a healthy one by now.
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
	// Unchanged asks to delete the pod only if it is as it was seen: it costs nothing as long as it is not ready, and may have become so.
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
	// Affected counts the targets that are bad or were restarted lately. FleetWide is true when they are so many that what is wrong is not one
	// parser's; Outage says so in a sentence, with the figures.
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
