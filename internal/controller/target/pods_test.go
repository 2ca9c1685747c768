package target_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// pod is a Hyperliquid node's that runs on the node n with its data on a claim, as changed.
func pod(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "hl-0", UID: "u"},
		Spec: corev1.PodSpec{NodeName: "n", Volumes: []corev1.Volume{
			{Name: "config", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-hl-0"}}},
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
		"a pod that runs has its parser on its node":                    {node: node(nil), want: &runs},
		"one that is not scheduled has none yet":                        {pod: func(p *corev1.Pod) { p.Spec.NodeName, p.Status.Phase = "", corev1.PodPending }, node: node(nil), want: nowhere(target.NotRunning)},
		"one that starts has none yet":                                  {pod: phase(corev1.PodPending), node: node(nil), want: nowhere(target.NotRunning)},
		"one that terminates has none any more":                         {pod: func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }, node: node(nil), want: nowhere(target.NotRunning)},
		"one that was evicted has none any more":                        {pod: phase(corev1.PodFailed), node: node(nil), want: nowhere(target.NotRunning)},
		"one without that volume is told of":                            {pod: func(p *corev1.Pod) { p.Spec.Volumes = p.Spec.Volumes[:1] }, node: node(nil), want: nowhere(target.NoClaim)},
		"one with that volume elsewhere than on a claim is told of":     {pod: func(p *corev1.Pod) { p.Spec.Volumes[1].VolumeSource = p.Spec.Volumes[0].VolumeSource }, node: node(nil), want: nowhere(target.NoClaim)},
		"one on a node that is lost has none any more":                  {node: ready(corev1.ConditionUnknown), want: nowhere(target.NotReady)},
		"one on a node that is gone has none any more":                  {node: node(func(n *corev1.Node) { n.Name = "other" }), want: nowhere(target.NotReady)},
		"one on a node that says it is not ready keeps it":              {node: ready(corev1.ConditionFalse), want: waits(target.NotReady)},
		"one on a cordoned node keeps it":                               {node: node(func(n *corev1.Node) { n.Spec.Unschedulable = true }), want: waits(target.Cordoned)},
		"one on a tainted node keeps it":                                {node: node(taint("maintenance", corev1.TaintEffectNoExecute)), want: waits(target.Tainted)},
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
			// What is cached of a pod is enough.
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
	bad := metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Is", Values: []string{"b"}}}}
	if _, err := target.NewPods(bad, "data", nil, nil); err == nil {
		t.Error("a selector with an unknown operator was read")
	}
}
