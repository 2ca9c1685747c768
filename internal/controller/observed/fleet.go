// Package observed describes one object's fleet as a reconcile reads it.
//
// The controller fills a Fleet while it observes. After that nothing changes it: what a reconcile concludes from it
// (the resolved revisions, the plan, the outcome of its writes, the status) has types of its own. The package holds
// values and reaches no client.
package observed

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// Fleet is the observed state of one object's fleet. It is read-only once observed.
type Fleet struct {
	// Now is the time of the observation.
	Now time.Time

	// Targets are the object's targets, ordered by name. They are valid only if Known is set. While they are unknown no
	// pod is touched.
	Targets []target.Target
	Known   bool
	// Unsynced is why the API server has not shown yet which pods the selector matches; nil otherwise. Nothing below is
	// set then.
	Unsynced *Unsynced
	// Excluded counts the nodes or pods that the selector matches and spec.affinity excludes. It is set only if there are
	// no targets.
	Excluded int
	// Problem is why the spec cannot be carried out; nil when it can.
	Problem *Problem
	// SharesDirectory is set when Problem is that parsers of this spec would write into another object's directory.
	SharesDirectory bool
	// RecheckAt is when to observe again though no event arrives; zero for never.
	RecheckAt time.Time

	// ReadyNodes are the nodes that are Ready, by name.
	ReadyNodes map[string]bool
	// Pods are those that the object controls.
	Pods []corev1.Pod
	// Pairs are the pods of the targets, in the order of Targets.
	Pairs []Pair
	// Revisions are the stored revisions, newest first.
	Revisions []*Revision
	// Configs are the ConfigMaps that hold the configs of revisions.
	Configs []corev1.ConfigMap
	// Ledger is the record of restarts.
	Ledger Ledger
	// Access is how the object's parsers are polled, and who may connect to them.
	Access Access
	// Warnings are the events about pods that do not start, by UID of the pod.
	Warnings map[types.UID]Warning
	// Ages are since when this process has observed pods and targets as they are.
	Ages Ages
	// Views are what is known of the parsers, by target.
	Views map[string]poller.View
	// Waiting are the raised alerts NearRetention, by target, also of targets that have no pod now.
	Waiting map[string]health.Alert
}

// Problem is why a spec cannot be carried out until somebody changes something, or why a write fails.
type Problem struct {
	// Reason is the reason of the condition that reports it.
	Reason string
	// Message says what to do about it.
	Message string
}

// Unsynced is why the pods that an object selects are not known.
type Unsynced struct {
	Message string
	// Refused reports whether the API server refused the request, with the words in Message. The request is retried
	// meanwhile.
	Refused bool
	Since   time.Time
}

// Pair is a target's pod.
type Pair struct {
	// Name is the name of the pod, whether it exists or not.
	Name string
	// Pod is nil when there is none.
	Pod *corev1.Pod
}

// Revision is a revision as it is stored in a ControllerRevision.
type Revision struct {
	podspec.Revision
	Object *appsv1.ControllerRevision
}

// PlanName returns the name of the revision in a plan; "" for nil.
func (r *Revision) PlanName() string {
	if r == nil {
		return ""
	}
	return r.Hash
}

// Ledger is the content of the ConfigMap <name>-restarts: the state of restarts that must survive a change of leader.
// The zero value is that of an object without one.
type Ledger struct {
	Records plan.Ledger
	Trials  plan.Trials
	// Total counts the restarts since the object was created.
	Total int32
	// ResourceVersion is that of the ConfigMap, so that a leader does not overwrite what another has written since; ""
	// when there is none.
	ResourceVersion string
}

// Access is the observed state of what parsers authenticate the operator by, and of who may connect to them.
type Access struct {
	// Keys is the ConfigMap with the operator's public keys; nil when there is none. Published are since when each of them
	// is in it.
	Keys      *corev1.ConfigMap
	Published keys.Published
	// Operator is the key that polls are made with, until KeyDue.
	Operator *seal.Key
	KeyDue   time.Time
	// Policy is the parsers' NetworkPolicy, or another object of its name; nil when there is none.
	Policy *networkingv1.NetworkPolicy
}

// Warning is an event of type Warning. The zero value is none.
type Warning struct{ Reason, Message string }

// PairPods returns the pods of an object's targets, in the order of targets. A pod's name takes a hash, and a fleet has
// thousands, so the pairs are computed once per observation.
func PairPods(object string, targets []target.Target, pods []corev1.Pod) []Pair {
	byName := PodsByName(pods)
	pairs := make([]Pair, len(targets))
	for i, t := range targets {
		name := podspec.PodName(object, t)
		pairs[i] = Pair{Name: name, Pod: byName[name]}
	}
	return pairs
}

// PodsByName indexes pods by name.
func PodsByName(pods []corev1.Pod) map[string]*corev1.Pod {
	out := make(map[string]*corev1.Pod, len(pods))
	for i := range pods {
		out[pods[i].Name] = &pods[i]
	}
	return out
}

// Index returns the position of a target in Targets and Pairs, and whether there is one of that name.
func (f *Fleet) Index(name string) (int, bool) {
	return slices.BinarySearchFunc(f.Targets, name, func(t target.Target, name string) int {
		return cmp.Compare(t.Name, name)
	})
}

// NodeLost reports whether a pod on the node may be Terminating for ever, because the node is gone or not Ready. A pod
// without a node has lost none.
func (f *Fleet) NodeLost(node string) bool { return node != "" && !f.ReadyNodes[node] }

// PlanPod returns a pod of the fleet as the plan sees it, with its ages as this process has observed them.
func (f *Fleet) PlanPod(pod *corev1.Pod) plan.Pod {
	out := PlanPod(pod)
	age := f.Ages.Pods[pod.UID]
	out.FirstObserved, out.TerminatingSince = age.FirstSeen, age.EndingSince
	if out.Blocked != "" {
		out.BlockedSince = age.BlockedSince
	}
	return out
}
