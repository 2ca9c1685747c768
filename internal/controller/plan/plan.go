package plan

import (
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

const (
	// Settle is how long a pod may take to become ready, to be judged and to terminate, and a recorded restart to be
	// completed. An older unfinished restart is dropped: its pod may be healthy by now.
	Settle = 10 * time.Minute
	// StartTimeout is how long a container of a canary may be unable to start. After one failure a registry or a
	// runtime is tried again within seconds.
	StartTimeout = time.Minute
	// maxReboots is how often the node of a canary may reboot during its soak: once for maintenance, and once more.
	maxReboots = 2
	// LedgerRetention is how long a restart counts: for the hourly cap and, while the target is Healthy, for the
	// doubling of the cooldown.
	LedgerRetention = time.Hour
	// maxCooldown bounds the doubling.
	maxCooldown = time.Hour
	// stuckGrace replaces the grace period of a Stuck pod, which would do nothing with more.
	stuckGrace = 5 * time.Second
	// ProvenAfter is how long a parser must be Healthy or CatchingUp before its restart counts as helpful.
	ProvenAfter = 2 * time.Minute
	// FailureBackoff is the pause after the second restart that did not help a target, and the pause of a fleet where
	// too many were not helped.
	FailureBackoff = time.Hour
	// maxFailureBackoff bounds the doubling of FailureBackoff.
	maxFailureBackoff = 8 * time.Hour
	// TrialRetention is how long a trial counts when restarts are judged for a whole fleet.
	TrialRetention = 6 * time.Hour
	// FailureRetention is how long a restart that did not help counts against its target.
	FailureRetention = 24 * time.Hour
	// soakParts is the number of parts of a soak that are persisted one by one: a leader that ends loses at most one.
	soakParts = 10
)

// Target is what must have exactly one parser pod.
type Target struct {
	Name string
	// Pod is the name that the target's pod has or will have. It depends on the node: a target that moves gets another.
	Pod string
	// Schedulable reports whether the node is Ready and accepts a new pod now.
	Schedulable bool
	// NodeReady is false for a lost node: the state of its pod is unknown, and a deletion there completes only once
	// the node is back.
	NodeReady bool
	// BootID distinguishes the node's boots from one another and from other nodes'; "" if it is not known. It is
	// persisted for canaries, so it should be short.
	BootID string
	// UnreadySince is when this process first observed the target without a ready pod; zero if it has one, or if the
	// time is not known. Pods that come and go do not restart it; a pod that a rollout replaces does (Action.Replaces).
	UnreadySince time.Time
}

// Pod is a pod of the fleet.
type Pod struct {
	Name string
	UID  string
	// Target is the target that the pod was created for. It is needed only for pods that no longer belong to a target,
	// and for those of targets that moved.
	Target string
	// NodeLost reports whether the pod's node is not Ready or gone. A pod there may be Terminating forever.
	NodeLost bool
	Revision string
	// RestartedAt is Input.RestartedAt at the time of creation.
	RestartedAt string
	// Created is the creation time by the API server's clock, which may differ from the operator's.
	Created time.Time
	// FirstObserved is when this process first observed the pod; zero if that is not known: then Created stands for it.
	FirstObserved time.Time
	Ready         bool
	// ReadyChangedAt is when Ready last changed, by the kubelet's clock; zero if it never did.
	ReadyChangedAt time.Time
	// Restarts is the highest restart count of the pod's init containers and the parser's container. A reboot of the
	// node restarts each once.
	Restarts int
	// Blocked is why a container cannot start, or fails before the parser runs, as the kubelet reports it; "" if
	// nothing is in the way. BlockedSince is when this process first observed that; zero: since the pod exists.
	Blocked      string
	BlockedSince time.Time
	Terminating  bool
	// TerminatingSince is when this process first observed the pod Terminating on a Ready node; zero if it is not, or
	// if the time is not known.
	TerminatingSince time.Time
	// Failed pods never run again.
	Failed bool
}

// AgeStart returns when the pod's age begins. The age never exceeds the time that this process has observed, so no skew
// between clocks adds to it.
func (p *Pod) AgeStart() time.Time {
	if p.FirstObserved.IsZero() {
		return p.Created
	}
	return p.FirstObserved
}

// unreadySince returns since when an unready pod is unready, as far as the pod itself shows; see Target.UnreadySince.
func (p *Pod) unreadySince() time.Time { return later(p.AgeStart(), p.ReadyChangedAt) }

// blockedSince returns since when no container of the pod can start.
func (p *Pod) blockedSince() time.Time { return later(p.AgeStart(), p.BlockedSince) }

// age returns the highest possible age of the pod, for what age excuses rather than proves.
func (p *Pod) age(now time.Time) time.Duration {
	return max(now.Sub(p.Created), now.Sub(p.AgeStart()), 0)
}

// existedAt reports whether the pod existed at that time: this process had observed it, or the API server had created
// it, whose clock may be a little ahead.
func (p *Pod) existedAt(at time.Time) bool {
	return !p.FirstObserved.IsZero() && !p.FirstObserved.After(at) || !p.Created.After(at.Add(clockSkew))
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Limits are the bounds that an object sets on disruption.
type Limits struct {
	MaxUnavailable intstr.IntOrString
	MaxConcurrent  intstr.IntOrString
	Cooldown       time.Duration
	MaxPerHour     int
	// FleetWide is the number or share of affected targets from which a fault is fleet-wide. The zero value is
	// DefaultFleetWide.
	FleetWide intstr.IntOrString
	// Canary is how a new revision is tried out. Nil disables canaries.
	Canary *Canary
	// AlertOnly replaces restarts by alerts.
	AlertOnly bool
	// Paused stops restarts and rollouts.
	Paused bool
	// Hold stops restarts and rollouts because the spec cannot be carried out. A pod that is gone still comes back, at
	// the revision that it had.
	Hold bool
	// NoPods stops everything that needs a new pod, because the template that it would be created from is not trusted.
	NoPods bool
}

// Peers counts targets of other objects with the same sink.
type Peers struct {
	Desired int
	// Affected is how many of Desired are affected. For trusted objects it is the sum of Result.Affected.
	Affected int
}

// Input is everything that a plan depends on.
type Input struct {
	Now time.Time
	// Object is the name of the object. Messages call a revision by its full name, which begins with it.
	Object string
	// Current is the revision that the whole fleet last had; "" before the first. Update is the revision that it should
	// have; "" if that is not known: then everything stays at Current.
	Current string
	Update  string
	// RestartedAt identifies the last request for new pods, in any form; "" if there is none.
	RestartedAt string
	// Spec identifies the spec. What trials showed under another spec is dropped.
	Spec    string
	Targets []Target
	Pods    []Pod
	// Judgements by target, of those that have a pod.
	Judgements map[string]health.Judgement
	// Lag by target, for messages.
	Lag    map[string]time.Duration
	Ledger Ledger
	Trials Trials
	// Rollout is what was last persisted for Update.
	Rollout Rollout
	// AbsentSince is when this process first observed that a selected target is no longer a target, by the name or
	// hash that Rollout has of it. A missing entry counts as absent since now.
	AbsentSince map[string]time.Time
	// Promote reports whether Update is to be rolled out regardless of its canaries.
	Promote bool
	// Peers are trusted: objects of the same namespace. ForeignPeers has an entry for each other namespace, and counts
	// only targets that were observed to deliver to the sink; affected are those whose trouble is the sink.
	Peers        Peers
	ForeignPeers []Peers
	// FleetWide is Result.FleetWide of the previous plan.
	FleetWide bool
	// RetryAt is when a failed pod of a target may be replaced. A missing entry means now.
	RetryAt map[string]time.Time
	Limits  Limits
}

// Kind is the kind of an action.
type Kind string

const (
	// Create creates the target's pod.
	Create Kind = "Create"
	// Delete deletes a pod.
	Delete Kind = "Delete"
	// Restart records a restart in the ledger, then deletes the pod.
	Restart Kind = "Restart"
)

// Reasons for actions.
const (
	WhyMissing          = "Missing"          // the target has no pod
	WhyNoTarget         = "NoTarget"         // the pod belongs to no target
	WhyFailed           = "Failed"           // the pod never runs again
	WhyOutdated         = "Outdated"         // the pod is of an older revision
	WhyRolledBack       = "RolledBack"       // the pod is of a revision whose canary failed, or that is abandoned
	WhyRestartRequested = "RestartRequested" // the pod is older than the last request for new pods
	WhyVerdict          = "Verdict"          // a restart may cure the fault
	WhyUnfinished       = "Unfinished"       // the restart is recorded, and its pod still lives
)

// Hold is why a restart that a target needs is not made now, as a word for metrics. Result.Waiting says it in words.
type Hold string

// The holds.
const (
	HeldBudget      Hold = "Budget"      // growth.maxConcurrent or maxUnavailable is used up
	HeldAlert       Hold = "Alert"       // growth.action is Alert
	HeldPaused      Hold = "Paused"      // the object is paused
	HeldStalled     Hold = "Stalled"     // the spec cannot be carried out
	HeldFleetWide   Hold = "FleetWide"   // the fault is fleet-wide
	HeldUnjudged    Hold = "Unjudged"    // other parsers have no verdict yet: the fault may be fleet-wide
	HeldTrial       Hold = "Trial"       // another target's restart is being tried
	HeldIneffective Hold = "Ineffective" // restarts did not help
	HeldCooldown    Hold = "Cooldown"    // the target was restarted lately
	HeldMaxPerHour  Hold = "MaxPerHour"  // the target was restarted growth.maxPerHour times within the hour
)

// Holds lists every hold.
func Holds() []Hold {
	return []Hold{HeldBudget, HeldAlert, HeldPaused, HeldStalled, HeldFleetWide, HeldUnjudged, HeldTrial,
		HeldIneffective, HeldCooldown, HeldMaxPerHour}
}

// Why a restart that is due waits.
const (
	blockedByBudget   = "waiting for other parsers to become ready"
	blockedByAction   = "growth.action is Alert: restart it by hand"
	blockedByPause    = "paused: no restart"
	blockedByStall    = "no restart while Stalled"
	blockedByOutage   = "no restart: the fault is fleet-wide"
	blockedByVerdicts = "waiting for verdicts on other parsers"
)

// Action is one action of a plan.
type Action struct {
	Kind   Kind
	Why    string
	Target string
	Pod    string
	// Revision of the pod to create.
	Revision string
	// UID of the pod to delete. Another pod with the same name must not be deleted.
	UID string
	// Unchanged makes the deletion conditional on the pod being unchanged since it was observed: an unready pod costs
	// nothing, and may have become ready.
	Unchanged bool
	// Grace replaces the pod's own grace period; 0 keeps it.
	Grace time.Duration
	// Record is the target's new record in the ledger, for Restart.
	Record Record
}

// Replaces reports whether the target gets a pod of another kind after the action.
func (a Action) Replaces() bool {
	return a.Kind == Delete && (a.Why == WhyOutdated || a.Why == WhyRolledBack || a.Why == WhyRestartRequested)
}

// Result is what to do now, and when to plan again. State in it is persisted before any action is carried out.
type Result struct {
	Actions []Action
	// RecheckAt is when the plan must be made again even if nothing happens; zero: never.
	RecheckAt time.Time
	// Forget lists the targets whose record in the ledger is no longer needed.
	Forget []string
	// Trials is what to persist beside the ledger; nil if it has not changed.
	Trials *Trials
	// Rollout is what to persist for Update; nil if it has not changed.
	Rollout *Rollout
	// Complete reports whether Update has become the current revision.
	Complete bool
	// Waiting is, by target, why a restart that is due is not done.
	Waiting map[string]string
	// Held has the same targets, with the reason as a word.
	Held map[string]Hold
	// Ineffective lists, sorted, the targets that need a restart while restarts do not help, and those that are tried
	// once more.
	Ineffective []string
	// Capped lists, sorted, the targets that need a restart and had MaxPerHour of them within the hour.
	Capped []string
	// Affected is the number of affected targets among the Counted ones, whose state can be known. FleetWide reports
	// whether they are too many for a fault of single parsers. Outage then describes it, with figures.
	Affected  int
	Counted   int
	FleetWide bool
	Outage    string
	// Phase of the rollout. Message is what it waits for, why it stopped, and which pods are overdue. It changes with
	// its subject, and not with time.
	Phase   Phase
	Message string
}

// Next makes the plan. Equal inputs give equal results, whatever their order.
func Next(in Input) Result {
	s := newStep(in)
	s.judgeOutage()
	s.judgeTrials()
	s.judgeRollout()
	s.computeBudgets()
	s.selectMissing()
	s.deleteUntargeted()
	s.deleteFailed()
	s.createMissing()
	s.completeRestarts()
	s.restart()
	s.advanceRollout()
	s.forget()
	return s.finish()
}
