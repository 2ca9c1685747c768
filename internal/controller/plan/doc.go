// Package plan decides what the operator does next with one fleet: which pods it creates, deletes and restarts, and at
// which revision.
//
// Next is a pure function over plain values. The package must never use the API server, the network or the clock, and
// must never keep state: the caller gathers the inputs and carries out the actions in order. State that must survive is
// in Result.Rollout, Result.Trials and the records of restarts, which are persisted before any action.
//
// # Glossary
//
//	target         what must have exactly one parser pod
//	schedulable    its node is Ready and accepts a new pod now; percentages and budgets are of schedulable targets only
//	live           its pod exists and is not terminating
//	down           its pod is missing or terminating
//	lost           it cannot be observed: its node is not Ready, or it is unschedulable and has no live pod
//	unjudged       it has no live pod, or its verdict is Unknown
//	good           judged and not bad: Healthy or CatchingUp
//	proven         good for ProvenAfter with the pod that it has
//	external       of a verdict: SinkDown or SourceStalled, which no revision causes
//	degraded       bad by a fault that the revision may cause: neither external nor a pod that is starting
//	indeterminate  its pod is ready and its verdict has been Unknown for Settle
//	overdue        of a pod: terminating on a Ready node for Settle
//	affected       bad, or restarted less than Settle ago and not proven since
//	counted        its state is known or soon will be; affected targets are a share of the counted ones
//	peers          targets of other objects with the same sink
//	selected       chosen by the rollout: its pod is of Update, or comes back at Update
//	absent         selected, and no longer a target
//	abandoned      of a revision: neither Current nor Update; it was Update and never became Current
//	control group  the targets that are not selected, but for those whose pod is of an abandoned revision
//	baseline       how a canary was before it was selected
//	cause          what a restart may cure: a verdict, with its reason if it is Growing
//	trial          a restart whose outcome decides about further restarts for its cause
//
// # States
//
//	target   current --select--> selected --its pod of Update is ready--> updated
//	            ^                    |
//	            +---canary failed----+
//
//	canary   soaking --well for the soak, or promoted--> passed
//	            |
//	            +------worse than its baseline---------> failed
//
//	phase    Steady --> Canary --> Rolling <--> Stopped     without a canary: Steady --> Rolling
//	                      |           |
//	                      |           +--> Steady           once the rollout is complete
//	                      +--> CanaryFailed                 until another Update, or promotion by hand
//
// # Counts
//
// Three rules hold for every count:
//
//  1. A fault that removes its own evidence is still a fault.
//  2. "None is bad", "all are updated" and "complete" are false for an empty set, and for one that cannot be observed.
//  3. What is beyond the operator's control does not hold a budget forever.
//
// So each count is over a group of targets, is false for an empty one where that matters, and ends:
//
//	count              over                         false when             ends
//	D, of percentages  schedulable                  -                      -
//	affected           counted                      none is affected       unknown or lost for Settle: it is not counted
//	down, disrupted    schedulable                  -                      after Settle without a ready pod
//	inFlight           schedulable                  -                      after a day, or when the old pod is overdue
//	pendingVerdicts    schedulable, ready, Unknown  -                      after Settle; many made so hold rollouts
//	holding            schedulable, not ready       -                      after Settle, unless the operator took it down
//	                                                                       or its new revision may be the reason
//	terminating        schedulable                  -                      after Settle; many overdue pods hold rollouts
//	open trial         one target                   -                      void when its target is lost or indeterminate
//	canaries pass      selected, observable         none, or many lost     the first that is lost is replaced by another
//	rollout complete   schedulable                  none of them is ready  -
//
// An age is measured by the operator's clock, and never exceeds the time that this process has observed. No skew of
// the API server's or a kubelet's clock adds to it. A new leader waits a little longer, and never blames sooner.
//
// # Budgets (budget.go)
//
// D is the number of schedulable targets. Percentages are rounded up, and are at least 1.
//
//	ready pods a rollout may replace = maxUnavailable(D) - holding
//	pods that may be restarted       = min(maxUnavailable(D) - down - disrupted, maxConcurrent(D) - inFlight)
//
// A restart also reduces the budget of the rollout in the same step.
//
// # Fleet-wide faults (fleetwide.go)
//
// Let t be the threshold (30 % by default), n the counted and a the affected targets. They reach the threshold when
// a >= max(ceil(t*n), 2), or when that holds for them and their peers together and a > 0.
//
//	fleet-wide  affected reach it; once fleet-wide: affected + pending verdicts + not yet proven reach it
//	uncertain   affected + pending verdicts reach it
//
// While either holds, nothing is restarted. Rollouts continue, since they may be the cure.
//
// # Trials (trial.go)
//
// The first restart for a cause is a trial. No other follows for that cause until its target is proven, which frees
// the others for LedgerRetention. After a failed trial another target is tried before the same. A target that two
// restarts did not help backs off. So does the whole fleet when too many of those tried were not helped.
//
// # Rollouts (rollout.go, canary.go)
//
// The selected targets are persisted before the first of their pods is deleted. A pod that is gone comes back at
// Update if its target is selected or there is no Current, and at Current otherwise. Every leader decides the same, and
// no target moves back while Update stays and its canary has not failed. A rollout stops, and is not rolled back, while
// the new revision is worse than the old one; promotion by hand overrides that. A canary selects a few targets, and
// compares each with its baseline and with the control group. If it fails, they go back to Current.
//
// # Steps
//
//  1. Judge: is the fault fleet-wide, did restarts help, in which phase is the rollout?
//  2. Delete pods that belong to no target. Where a target moves, that is its pod on the old node.
//  3. Delete pods that failed for good (evicted, rejected by their node) once their target's backoff is over.
//  4. Create the pods that schedulable targets lack.
//  5. Complete recorded restarts whose pod still lives.
//  6. Restart bad targets: Growing first, then the longest first. Each restart is recorded before its pod is deleted.
//  7. Replace pods of a wrong revision or from before RestartedAt, then select the next targets.
//
// A step that waits for a time sets Result.RecheckAt. One that waits for pods or nodes is woken by their events.
//
// # Where the complexity comes from
//
//	what happens                                             what answers it
//	a slow broker makes every parser look stuck              fleet-wide, peers
//	a new leader sees the first verdict of an outage         uncertain
//	an outage hovers about the threshold                     once fleet-wide, recovery must be proven
//	a restart cures nothing, for good                        trials, backoff
//	a leader ends between a record and its deletion          step 5
//	someone forges the ledger                                sanitized, unfinishedRestart: a record proves nothing
//	another tenant claims that a shared sink is down         peers of other namespaces are scaled down
//	a revision kills its nodes, one canary after another     lost canaries
//	two bad revisions in a row take two parsers down         the sets that CarriedOver keeps
//	a pod never ends: a finalizer, a dead kubelet            overdue
//	a node is cut off, and its parser works                  pods of unschedulable targets are left alone
//	a node reboots under a canary                            reboots allow restarts, up to maxReboots
//	a registry or the API server refuses pods for hours      Settle ends what is held
//	labels are gone for a moment                             absent targets, and fleets without targets, decide nothing
//	clocks differ by minutes or hours                        ages are observed
//	5,000 targets must fit into one annotation               UpTo, OutOfOrder, name hashes, MaxCanaries
package plan
