// Package target determines what must have a parser (nodes, or pods with a claim), and which of them can take a new pod
// now.
//
// It is pure: callers pass in nodes and pods. It must never list objects, and never decide what happens to a parser:
// package plan does that. Eligibility comes from component-helpers, not from a copy of the scheduler's rules.
package target

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	schedulinghelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Reasons why a target takes no new pod now.
const (
	// NotReady means that the node is not ready, is lost, or has never been ready.
	NotReady = "NodeNotReady"
	// Cordoned means that the node is marked unschedulable.
	Cordoned = "NodeCordoned"
	// Tainted means that the node has a taint that parsers do not tolerate.
	Tainted = "NodeTainted"
	// NotRunning means that the target pod does not run, or is terminating.
	NotRunning = "PodNotRunning"
)

// Target is a node or a pod that must have one parser.
type Target struct {
	// Name is the name of the node or of the pod.
	Name string
	// Node is the node on which its parser runs. While it is "", an existing parser must be deleted.
	Node string
	// Claim is the claim with the data of a pod; "" for a node.
	Claim string
	// Level is the SELinux level with which the target pod accesses its claim; "" when it has none, and for a node.
	Level string
	// Beside is the target that has the parser of the claim while this one waits with ClaimInUse; otherwise "".
	Beside string
	// UID is the UID of the target pod; "" for a node.
	UID string
	// Boot is the boot ID of the node; "" when the node reports none, or the target has no node.
	Boot string
	// Waits is the reason why a new pod must wait; "" when the target can take one now. An existing pod on Node is kept.
	Waits string
}

// Why returns Waits with its details, for messages.
func (t Target) Why() string {
	if t.Waits == ClaimInUse {
		return fmt.Sprintf("%s: the parser of claim %s is beside pod %s", t.Waits, t.Claim, t.Beside)
	}
	return t.Waits
}

// Nodes selects nodes.
type Nodes struct {
	selector    labels.Selector
	affinity    nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration
}

// NewNodes returns a selection of the nodes that match the selector and the required node affinity of the parsers'
// pods. tolerations are those of the pods. It fails for a selector or an affinity with an unknown operator, or with a
// value that the operator does not accept.
func NewNodes(
	selector metav1.LabelSelector, affinity *corev1.Affinity, tolerations []corev1.Toleration,
) (Nodes, error) {
	s, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil {
		return Nodes{}, fmt.Errorf("reading target.nodes.selector: %w", err)
	}
	return newNodes(s, affinity, tolerations)
}

func newNodes(selector labels.Selector, affinity *corev1.Affinity, tolerations []corev1.Toleration) (Nodes, error) {
	// RequiredNodeAffinity reports no parse error: a node then does not match.
	if err := checkAffinity(affinity); err != nil {
		return Nodes{}, err
	}
	return Nodes{
		selector: selector, affinity: nodeaffinity.NewRequiredNodeAffinity(nil, affinity), tolerations: tolerations,
	}, nil
}

// checkAffinity fails for a node affinity with an invalid term: the API server would refuse the pods.
func checkAffinity(affinity *corev1.Affinity) error {
	if affinity == nil || affinity.NodeAffinity == nil {
		return nil
	}
	at := field.NewPath("affinity", "nodeAffinity")
	if required := affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
		path := field.WithPath(at.Child("requiredDuringSchedulingIgnoredDuringExecution"))
		if _, err := nodeaffinity.NewNodeSelector(required, path); err != nil {
			return fmt.Errorf("reading affinity.nodeAffinity: %w", err)
		}
	}
	path := field.WithPath(at.Child("preferredDuringSchedulingIgnoredDuringExecution"))
	preferred := affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	if _, err := nodeaffinity.NewPreferredSchedulingTerms(preferred, path); err != nil {
		return fmt.Errorf("reading affinity.nodeAffinity: %w", err)
	}
	return nil
}

// Selects reports whether the node must have a parser.
func (n Nodes) Selects(node *corev1.Node) bool {
	if !n.selector.Matches(labels.Set(node.Labels)) {
		return false
	}
	match, err := n.affinity.Match(node)
	return err == nil && match
}

// Targets returns the targets among the nodes, sorted by name.
func (n Nodes) Targets(nodes []corev1.Node) []Target {
	var out []Target
	for i := range nodes {
		if n.Selects(&nodes[i]) {
			out = append(out, Target{
				Name: nodes[i].Name, Node: nodes[i].Name,
				Boot: nodes[i].Status.NodeInfo.BootID, Waits: n.waitReason(&nodes[i]),
			})
		}
	}
	return sorted(out)
}

// LeftOut returns the number of nodes that the selector matches and the required node affinity does not.
func (n Nodes) LeftOut(nodes []corev1.Node) int {
	count := 0
	for i := range nodes {
		if n.selector.Matches(labels.Set(nodes[i].Labels)) && !n.Selects(&nodes[i]) {
			count++
		}
	}
	return count
}

func sorted(targets []Target) []Target {
	slices.SortFunc(targets, func(a, b Target) int { return cmp.Compare(a.Name, b.Name) })
	return targets
}

func (n Nodes) waitReason(node *corev1.Node) string {
	if !Ready(node) {
		return NotReady
	}
	if node.Spec.Unschedulable {
		return Cordoned
	}
	_, untolerated := schedulinghelpers.FindMatchingUntoleratedTaint(
		logr.Discard(), node.Spec.Taints, n.tolerations, repels, true)
	if untolerated {
		return Tainted
	}
	return ""
}

// repels reports whether a taint keeps pods off a node. PreferNoSchedule does not.
func repels(t *corev1.Taint) bool {
	return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
}

// Ready reports whether the node's Ready condition is true. A node without the condition is not ready.
func Ready(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Changed reports whether an update of a node can change any target. Heartbeats, images and capacity cannot.
func Changed(before, after *corev1.Node) bool {
	return !labels.Equals(before.Labels, after.Labels) ||
		before.Spec.Unschedulable != after.Spec.Unschedulable ||
		Ready(before) != Ready(after) ||
		before.Status.NodeInfo.BootID != after.Status.NodeInfo.BootID ||
		!slices.EqualFunc(before.Spec.Taints, after.Spec.Taints, func(a, b corev1.Taint) bool {
			return a.MatchTaint(&b) && a.Value == b.Value
		})
}

// Tolerations returns the tolerations of a parser's pod: those of a DaemonSet's pod, since a parser likewise belongs to
// its node and eviction gains nothing, and those that the object adds.
func Tolerations(added []corev1.Toleration) []corev1.Toleration {
	daemon := func(key string, effect corev1.TaintEffect) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
	}
	return append([]corev1.Toleration{
		daemon(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute),
		daemon(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute),
		daemon(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule),
		daemon(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule),
		daemon(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule),
		daemon(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule),
	}, added...)
}
