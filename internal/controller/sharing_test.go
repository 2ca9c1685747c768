package controller

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// Pods that share a claim share one parser. It stays where it is as long as it can.
func TestAClaimHasOneParser(t *testing.T) {
	on := func(name, node, claim, waits string) target.Target {
		return target.Target{Name: name, Node: node, Claim: claim, UID: name, Waits: waits}
	}
	ends := target.Target{Name: "hl-a", UID: "hl-a", Waits: target.NotRunning} // its claim does not matter
	for name, test := range map[string]struct {
		targets []target.Target
		parsers []string // targets that have one
		ending  []string // those of them whose parser ends
		has     map[string]string
	}{
		"each has its own claim": {
			[]target.Target{on("hl-a", "n1", "a", ""), on("hl-b", "n2", "b", "")}, nil, nil,
			map[string]string{"hl-a": "a", "hl-b": "b"}},
		"two share one": {
			[]target.Target{on("hl-a", "n1", "a", ""), on("hl-b", "n2", "a", "")}, nil, nil, map[string]string{"hl-a": "a"}},
		"the second has the parser": {
			[]target.Target{on("hl-a", "n1", "a", ""), on("hl-b", "n2", "a", "")}, []string{"hl-b"}, nil,
			map[string]string{"hl-b": "a"}},
		"the second has the parser, and cannot take a new one": {
			[]target.Target{on("hl-a", "n1", "a", ""), on("hl-b", "n2", "a", target.Cordoned)}, []string{"hl-b"}, nil,
			map[string]string{"hl-b": "a"}},
		"the parser of the second is being replaced": {
			[]target.Target{on("hl-a", "n1", "a", ""), on("hl-b", "n2", "a", "")}, []string{"hl-b"}, []string{"hl-b"},
			map[string]string{"hl-b": "a"}},
		"an operator of before made two": {
			[]target.Target{on("hl-a", "n1", "a", ""), on("hl-b", "n2", "a", "")}, []string{"hl-a", "hl-b"}, nil,
			map[string]string{"hl-a": "a"}},
		"the first cannot take one": {
			[]target.Target{on("hl-a", "n1", "a", target.Tainted), on("hl-b", "n2", "a", "")}, nil, nil,
			map[string]string{"hl-b": "a"}},
		"none can take one": {
			[]target.Target{on("hl-a", "n1", "a", target.Tainted), on("hl-b", "n2", "a", target.Cordoned)}, nil, nil,
			map[string]string{"hl-a": "a"}},
		"a Deployment's old pod ends": {
			[]target.Target{ends, on("hl-b", "n2", "a", "")}, nil, nil, map[string]string{"hl-b": "a"}},
		"both on one node": {
			[]target.Target{on("hl-a", "n1", "a", ""), on("hl-b", "n1", "a", "")}, []string{"hl-b"}, nil,
			map[string]string{"hl-b": "a"}},
		"three on one, two on another": {
			[]target.Target{on("hl-a", "n1", "a", ""), on("hl-b", "n2", "b", ""), on("hl-c", "n3", "a", ""),
				on("hl-d", "n3", "b", ""), on("hl-e", "n4", "a", "")},
			[]string{"hl-d", "hl-e"}, nil, map[string]string{"hl-e": "a", "hl-d": "b"}},
		"nodes": {
			[]target.Target{{Name: "n1", Node: "n1"}, {Name: "n2", Node: "n2"}}, nil, nil,
			map[string]string{"n1": "", "n2": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &observed.Fleet{Targets: slices.Clone(test.targets)}
			for _, of := range test.targets {
				if !slices.Contains(test.parsers, of.Name) {
					continue
				}
				pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: podspec.PodName("mainnet", of)}}
				if slices.Contains(test.ending, of.Name) {
					pod.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
				}
				s.Pods = append(s.Pods, pod)
			}
			s.Pairs = observed.PairPods("mainnet", s.Targets, s.Pods)
			shareClaims("mainnet", s)
			for i, got := range s.Targets {
				before := test.targets[i]
				if _, has := test.has[got.Name]; has || before.Claim == "" {
					if got != before {
						t.Errorf("%s becomes %+v", before.Name, got)
					}
					if s.Pairs[i].Name != podspec.PodName("mainnet", before) {
						t.Errorf("the pod of %s is called otherwise", before.Name)
					}
					continue
				}
				if got.Node != "" || got.Waits != target.ClaimInUse || test.has[got.Beside] != before.Claim {
					t.Errorf("%s becomes %+v", before.Name, got)
				}
				if want := "ClaimInUse: the parser of claim " + before.Claim + " is beside pod " + got.Beside; got.Why() != want {
					t.Errorf("it says %q, want %q", got.Why(), want)
				}
				// Its parser, if it has one, belongs to no target any more.
				if s.Pairs[i].Pod != nil {
					t.Errorf("%s keeps its parser", before.Name)
				}
			}
		})
	}
}

// A target whose data already has a parser needs none, and the condition has the reason. The same holds if an affinity
// excludes all that it selects.
func TestWhatIsSaidOfTargetsThatHaveNoParser(t *testing.T) {
	obj := &v1alpha1.HyperliquidParser{
		ObjectMeta: metav1.ObjectMeta{Name: "mainnet"},
		Spec:       v1alpha1.HyperliquidParserSpec{Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{}}},
	}
	ready := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:   podspec.PodName("mainnet", target.Target{Name: "hl-b", Node: "n2"}),
			Labels: map[string]string{v1alpha1.LabelRevision: "r"},
		},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	shared := &observed.Fleet{Known: true, Pods: []corev1.Pod{ready}, Targets: []target.Target{
		{Name: "hl-a", Node: "n1", Claim: "data-hl", UID: "a"}, {Name: "hl-b", Node: "n2", Claim: "data-hl", UID: "b"},
	}}
	shared.Pairs = observed.PairPods("mainnet", shared.Targets, shared.Pods)
	shareClaims("mainnet", shared)
	for name, test := range map[string]struct {
		fleet  *observed.Fleet
		status metav1.ConditionStatus
		reason string
		text   string
	}{
		"two on one claim": {shared, metav1.ConditionTrue, v1alpha1.ReasonAllReady,
			"1 of 1 target has a ready parser of revision mainnet-r; 1 target cannot take a new one now: hl-a " +
				"(ClaimInUse: the parser of claim data-hl is beside pod hl-b)"},
		"nothing is selected": {&observed.Fleet{Known: true}, metav1.ConditionTrue, v1alpha1.ReasonNoTargets,
			"nothing matches the selector of spec.target: label the nodes, or the pods, that hold data"},
		"the affinity leaves all out": {&observed.Fleet{Known: true, Excluded: 3}, metav1.ConditionTrue,
			v1alpha1.ReasonNoTargets,
			"the required node affinity of spec.affinity excludes all 3 nodes or pods that the selector of spec.target " +
				"matches: " +
				"correct one of the two"},
	} {
		s := &observation{Fleet: test.fleet}
		s.update = &observed.Revision{Revision: podspec.Revision{Hash: "r"}}
		c := meta.FindStatusCondition(s.status(obj, plan.Result{}).Conditions, v1alpha1.ConditionReady)
		if c.Status != test.status || c.Reason != test.reason || c.Message != test.text {
			t.Errorf("%s: %s, %s, %q", name, c.Status, c.Reason, c.Message)
		}
	}
}
