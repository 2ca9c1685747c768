package target_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

var selector = metav1.LabelSelector{MatchLabels: map[string]string{"role": "node"}}

// node returns a selected node that is Ready, with a change.
func node(change func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"role": "node", "zone": "a"}},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			NodeInfo:   corev1.NodeSystemInfo{BootID: "boot"},
		},
	}
	if change != nil {
		change(n)
	}
	return n
}

func taint(key string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: key, Effect: effect}} }
}

func inZone(zone string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{zone}},
			},
		}}},
	}}
}

func TestTargets(t *testing.T) {
	const no = "not a target"
	tests := map[string]struct {
		node     *corev1.Node
		affinity *corev1.Affinity
		tolerate []corev1.Toleration
		want     string // why a new pod waits, or no
	}{
		"a Ready node can take a parser":                    {node: node(nil)},
		"a node without the label is no target":             {node: node(func(n *corev1.Node) { n.Labels = nil }), want: no},
		"a node outside the required affinity is no target": {node: node(nil), affinity: inZone("b"), want: no},
		"a node inside the required affinity is one":        {node: node(nil), affinity: inZone("a")},
		"a node that is not ready waits": {
			node: node(func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionFalse }), want: target.NotReady,
		},
		"a node that is not heard of waits": {
			node: node(func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }), want: target.NotReady,
		},
		"a node that has said nothing yet waits": {
			node: node(func(n *corev1.Node) { n.Status.Conditions = nil }), want: target.NotReady,
		},
		"a cordoned node waits, though its taint is tolerated": {node: node(func(n *corev1.Node) {
			n.Spec.Unschedulable = true
			taint(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)(n)
		}), want: target.Cordoned},
		"a taint NoExecute waits": {
			node: node(taint("maintenance", corev1.TaintEffectNoExecute)), want: target.Tainted,
		},
		"a taint NoSchedule waits": {
			node: node(taint("dedicated", corev1.TaintEffectNoSchedule)), want: target.Tainted,
		},
		"a taint that is tolerated does not wait": {
			node:     node(taint("dedicated", corev1.TaintEffectNoSchedule)),
			tolerate: []corev1.Toleration{{Key: "dedicated", Operator: corev1.TolerationOpExists}},
		},
		"a taint PreferNoSchedule does not wait": {node: node(taint("dedicated", corev1.TaintEffectPreferNoSchedule))},
		"a node under memory pressure does not wait": {
			node: node(taint(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)),
		},
		"a node under disk pressure does not wait": {
			node: node(taint(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)),
		},
		"a node without a network waits": {
			node: node(taint(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)), want: target.Tainted,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			nodes, err := target.NewNodes(selector, test.affinity, target.Tolerations(test.tolerate))
			if err != nil {
				t.Fatal(err)
			}
			got := no
			if targets := nodes.Targets([]corev1.Node{*test.node}); len(targets) == 1 {
				got = targets[0].Waits
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestTargetsAreInOrderOfTheirNames(t *testing.T) {
	nodes, err := target.NewNodes(selector, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	named := func(name string) corev1.Node { return *node(func(n *corev1.Node) { n.Name = name }) }
	targets := nodes.Targets([]corev1.Node{named("c"), named("a"), named("b")})
	got := make([]string, 0, len(targets))
	for _, one := range targets {
		got = append(got, one.Name)
	}
	if !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("got %v", got)
	}
}

func TestASelectionThatCannotBeReadIsAnErrorAndNotAnEmptyOne(t *testing.T) {
	bad := metav1.LabelSelector{
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Is", Values: []string{"b"}}},
	}
	if _, err := target.NewNodes(bad, nil, nil); err == nil {
		t.Error("a selector with an unknown operator was read")
	}
}

// The API server refuses pods with these. A valid term that a node matches must not hide an invalid one.
func TestAnAffinityThatNoAPIServerTakesIsAnError(t *testing.T) {
	requires := func(r ...corev1.NodeSelectorRequirement) *corev1.Affinity {
		a := inZone("a")
		of := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		of.NodeSelectorTerms = append(of.NodeSelectorTerms, corev1.NodeSelectorTerm{MatchExpressions: r})
		return a
	}
	prefers := func(r ...corev1.NodeSelectorRequirement) *corev1.Affinity {
		a := inZone("a")
		a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.PreferredSchedulingTerm{{
			Weight: 1, Preference: corev1.NodeSelectorTerm{MatchExpressions: r}}}
		return a
	}
	tests := map[string]struct {
		requirement corev1.NodeSelectorRequirement
		want        string // "": it is taken
	}{
		"an unknown operator": {corev1.NodeSelectorRequirement{Key: "a", Operator: "Is", Values: []string{"b"}}, "Is"},
		"no values to be in":  {corev1.NodeSelectorRequirement{Key: "a", Operator: corev1.NodeSelectorOpIn}, "values"},
		"values of a key to exist": {
			corev1.NodeSelectorRequirement{Key: "a", Operator: corev1.NodeSelectorOpExists, Values: []string{"b"}}, "values",
		},
		"more than a word": {
			corev1.NodeSelectorRequirement{Key: "a", Operator: corev1.NodeSelectorOpGt, Values: []string{"x"}}, "x",
		},
		"more than two numbers": {
			corev1.NodeSelectorRequirement{Key: "a", Operator: corev1.NodeSelectorOpLt, Values: []string{"1", "2"}}, "values",
		},
		"a key that is none": {
			corev1.NodeSelectorRequirement{Key: "a b", Operator: corev1.NodeSelectorOpExists}, "a b",
		},
		"a value that is none": {
			corev1.NodeSelectorRequirement{Key: "a", Operator: corev1.NodeSelectorOpIn, Values: []string{"b c"}}, "b c",
		},
		"a key that may not exist": {
			corev1.NodeSelectorRequirement{Key: "a", Operator: corev1.NodeSelectorOpDoesNotExist}, "",
		},
		"more than a number": {
			corev1.NodeSelectorRequirement{Key: "a", Operator: corev1.NodeSelectorOpGt, Values: []string{"7"}}, "",
		},
	}
	for name, test := range tests {
		for kind, affinity := range map[string]*corev1.Affinity{
			"required": requires(test.requirement), "preferred": prefers(test.requirement),
		} {
			_, nodesErr := target.NewNodes(selector, affinity, nil)
			_, podsErr := target.NewPods(selector, "data", affinity, nil)
			for _, err := range []error{nodesErr, podsErr} {
				if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) ||
					!strings.Contains(err.Error(), "affinity.nodeAffinity."+kind)) {
					t.Errorf("%s, %s: %v", name, kind, err)
				}
			}
		}
	}
}

func TestChanged(t *testing.T) {
	tests := map[string]struct {
		change func(*corev1.Node)
		want   bool
	}{
		"a heartbeat": {
			func(n *corev1.Node) { n.Status.Conditions[0].LastHeartbeatTime = metav1.NewTime(time.Unix(1, 0)) }, false,
		},
		"images": {func(n *corev1.Node) { n.Status.Images = []corev1.ContainerImage{{}} }, false},
		"capacity": {
			func(n *corev1.Node) { n.Status.Capacity = corev1.ResourceList{"cpu": resource.MustParse("1")} }, false,
		},
		"an annotation": {func(n *corev1.Node) { n.Annotations = map[string]string{"a": "b"} }, false},
		"when a taint was added": {
			func(n *corev1.Node) { n.Spec.Taints[0].TimeAdded = &metav1.Time{Time: time.Unix(1, 0)} }, false,
		},
		"a label":         {func(n *corev1.Node) { n.Labels["a"] = "b" }, true},
		"readiness":       {func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }, true},
		"a boot":          {func(n *corev1.Node) { n.Status.NodeInfo.BootID = "other" }, true},
		"a cordon":        {func(n *corev1.Node) { n.Spec.Unschedulable = true }, true},
		"a taint":         {taint("a", corev1.TaintEffectNoExecute), true},
		"a taint's value": {func(n *corev1.Node) { n.Spec.Taints[0].Value = "other" }, true},
		"no more taints":  {func(n *corev1.Node) { n.Spec.Taints = nil }, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := node(taint("old", corev1.TaintEffectNoSchedule))
			after := before.DeepCopy()
			test.change(after)
			if got := target.Changed(before, after); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
