package target_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// pod returns the pod of a Hyperliquid node, on node n with its data on a claim, with a change.
func pod(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "hl-0", UID: "u"},
		Spec: corev1.PodSpec{NodeName: "n", Volumes: []corev1.Volume{
			{Name: "config", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{
				Name: "data",
				VolumeSource: corev1.VolumeSource{
					PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-hl-0"},
				},
			},
		}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if change != nil {
		change(p)
	}
	return p
}

func TestTargetsThatArePods(t *testing.T) {
	runs := target.Target{Name: "hl-0", UID: "u", Node: "n", Claim: "data-hl-0", Boot: "boot"}
	waits := func(why string) *target.Target { w := runs; w.Waits = why; return &w }
	nowhere := func(why string) *target.Target { return &target.Target{Name: "hl-0", UID: "u", Waits: why} }
	ready := func(status corev1.ConditionStatus) *corev1.Node {
		return node(func(n *corev1.Node) { n.Status.Conditions[0].Status = status })
	}
	phase := func(p corev1.PodPhase) func(*corev1.Pod) { return func(pod *corev1.Pod) { pod.Status.Phase = p } }
	tests := map[string]struct {
		pod      func(*corev1.Pod)
		node     *corev1.Node
		affinity *corev1.Affinity
		want     *target.Target // nil: not a target
	}{
		"a pod that runs has its parser on its node": {node: node(nil), want: &runs},
		"one that is not scheduled has none yet": {
			pod: func(p *corev1.Pod) { p.Spec.NodeName, p.Status.Phase = "", corev1.PodPending }, node: node(nil),
			want: nowhere(target.NotRunning),
		},
		"one that starts has none yet": {
			pod: phase(corev1.PodPending), node: node(nil), want: nowhere(target.NotRunning),
		},
		"one that terminates has none any more": {
			pod: func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }, node: node(nil), want: nowhere(target.NotRunning),
		},
		"one that was evicted has none any more": {
			pod: phase(corev1.PodFailed), node: node(nil), want: nowhere(target.NotRunning),
		},
		"one without that volume is reported": {
			pod: func(p *corev1.Pod) { p.Spec.Volumes = p.Spec.Volumes[:1] }, node: node(nil), want: nowhere(target.NoClaim),
		},
		"one with that volume elsewhere than on a claim is reported": {
			pod: func(p *corev1.Pod) { p.Spec.Volumes[1].VolumeSource = p.Spec.Volumes[0].VolumeSource }, node: node(nil),
			want: nowhere(target.NoClaim),
		},
		"one on a node that is lost has none any more": {
			node: ready(corev1.ConditionUnknown), want: nowhere(target.NotReady),
		},
		"one on a node that is gone has none any more": {
			node: node(func(n *corev1.Node) { n.Name = "other" }), want: nowhere(target.NotReady),
		},
		"one on a node that says it is not ready keeps it": {
			node: ready(corev1.ConditionFalse), want: waits(target.NotReady),
		},
		"one on a cordoned node keeps it": {
			node: node(func(n *corev1.Node) { n.Spec.Unschedulable = true }), want: waits(target.Cordoned),
		},
		"one on a tainted node keeps it": {
			node: node(taint("maintenance", corev1.TaintEffectNoExecute)), want: waits(target.Tainted),
		},
		"one on a node outside the required node affinity is no target": {node: node(nil), affinity: inZone("b")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pods, err := target.NewPods(selector, "data", test.affinity, target.Tolerations(nil))
			if err != nil {
				t.Fatal(err)
			}
			var want []target.Target
			if test.want != nil {
				want = append(want, *test.want)
			}
			// The cached part of a pod is enough.
			got := pods.Targets([]corev1.Pod{*target.Slim(pod(test.pod))}, []corev1.Node{*test.node})
			if !slices.Equal(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestAParserIsNoTarget(t *testing.T) {
	pods, err := target.NewPods(selector, "data", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !pods.Selector().Matches(labels.Set{"role": "node"}) {
		t.Error("a pod with the label is not selected")
	}
	if pods.Selector().Matches(labels.Set{"role": "node", "fleet.hlparser.dev/parser": "mainnet"}) {
		t.Error("a parser with the label is selected")
	}
}

func TestASelectionOfPodsThatCannotBeReadIsAnError(t *testing.T) {
	bad := metav1.LabelSelector{
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Is", Values: []string{"b"}}},
	}
	if _, err := target.NewPods(bad, "data", nil, nil); err == nil {
		t.Error("a selector with an unknown operator was read")
	}
}

// The level with which a pod accesses its data is that of the container that mounts it, or else the pod's. The cached
// part of the pod is enough.
func TestTheLevelOfATarget(t *testing.T) {
	options := func(level string) *corev1.SELinuxOptions { return &corev1.SELinuxOptions{Level: level, Type: "t"} }
	with := func(level string, volumes ...string) corev1.Container {
		c := corev1.Container{Name: "c"}
		if level != "none" {
			c.SecurityContext = &corev1.SecurityContext{SELinuxOptions: options(level)}
		}
		for _, volume := range volumes {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: volume, MountPath: "/" + volume})
		}
		return c
	}
	for name, test := range map[string]struct {
		pod        string // "none": no options
		containers []corev1.Container
		want       string
	}{
		"the pod has one":       {"s0:c1,c2", []corev1.Container{with("none", "data")}, "s0:c1,c2"},
		"the container has one": {"none", []corev1.Container{with("s0:c3", "config", "data")}, "s0:c3"},
		"both have one":         {"s0:c1,c2", []corev1.Container{with("s0:c3", "data")}, "s0:c3"},
		"another container has one": {
			"s0:c1,c2", []corev1.Container{with("s0:c3", "config"), with("none", "data")}, "s0:c1,c2",
		},
		"the container has options without one": {"s0:c1,c2", []corev1.Container{with("", "data")}, ""},
		"neither has one":                       {"none", []corev1.Container{with("none", "data")}, ""},
		"one of a megabyte":                     {strings.Repeat("c", 1<<20), []corev1.Container{with("none", "data")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			pods, err := target.NewPods(selector, "data", nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			p := pod(func(p *corev1.Pod) {
				p.Spec.Containers = test.containers
				if test.pod != "none" {
					p.Spec.SecurityContext = &corev1.PodSecurityContext{SELinuxOptions: options(test.pod)}
				}
			})
			cached := target.Slim(target.Slim(p))
			got := pods.Targets([]corev1.Pod{*cached}, []corev1.Node{*node(nil)})
			if len(got) != 1 || got[0].Level != test.want {
				t.Errorf("got %+v, want %s", got, test.want)
			}
		})
	}
}

// A node that the selector matches and the affinity excludes is no target, and is counted.
func TestWhatAnAffinityLeavesOut(t *testing.T) {
	elsewhere := *node(func(n *corev1.Node) { n.Name, n.Labels["zone"] = "m", "b" })
	unlabelled := *node(func(n *corev1.Node) { n.Name, n.Labels = "l", nil })
	nowhere := &corev1.Affinity{
		NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}},
	}
	empty := nowhere.DeepCopy()
	empty.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms = []corev1.NodeSelectorTerm{{}}
	unknown := nowhere.DeepCopy()
	unknown.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms = []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{
			{Key: "spec.foo", Operator: corev1.NodeSelectorOpIn, Values: []string{"x"}},
		}}}
	nodes := []corev1.Node{*node(nil), elsewhere, unlabelled}
	onNode := func(name, node string) corev1.Pod {
		return *pod(func(p *corev1.Pod) { p.Name, p.Spec.NodeName = name, node })
	}
	pods := []corev1.Pod{onNode("a", "n"), onNode("b", "m"), onNode("c", "m"), onNode("d", ""), onNode("e", "gone")}
	for name, test := range map[string]struct {
		affinity              *corev1.Affinity
		nodes, nodesOut       int
		besidePods, besideOut int
	}{
		"none":                        {nil, 2, 0, 5, 0},
		"of one zone":                 {inZone("a"), 1, 1, 3, 2},
		"of no zone that there is":    {inZone("c"), 0, 2, 2, 3},
		"without terms":               {nowhere, 0, 2, 2, 3},
		"of an empty term":            {empty, 0, 2, 2, 3},
		"of a field that no node has": {unknown, 0, 2, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := target.NewNodes(selector, test.affinity, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, out := len(n.Targets(nodes)), n.LeftOut(nodes); got != test.nodes || out != test.nodesOut {
				t.Errorf("of nodes: %d targets, %d left out", got, out)
			}
			p, err := target.NewPods(selector, "data", test.affinity, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, out := len(p.Targets(pods, nodes)), p.LeftOut(pods, nodes); got != test.besidePods || out != test.besideOut {
				t.Errorf("of pods: %d targets, %d left out", got, out)
			}
		})
	}
}
