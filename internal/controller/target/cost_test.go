package target_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// BenchmarkTargetsOfTheLargestAffinity selects among 1,000 nodes by the largest selector and affinity that the schema
// allows. Each node meets all requirements of each term but the last.
func BenchmarkTargetsOfTheLargestAffinity(b *testing.B) {
	const terms, requirements, values = 8, 16, 128
	required := &corev1.NodeSelector{}
	nodes := make([]corev1.Node, 1000)
	for i := range nodes {
		nodes[i].Name, nodes[i].Labels = fmt.Sprint(i), map[string]string{"role": "node"}
	}
	for range terms {
		var term corev1.NodeSelectorTerm
		for k := range requirements {
			key := fmt.Sprintf("key%d", k)
			r := corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpNotIn}
			for j := range values {
				r.Values = append(r.Values, fmt.Sprintf("value-%03d", j))
			}
			if k == requirements-1 {
				r.Operator = corev1.NodeSelectorOpIn
			}
			term.MatchExpressions = append(term.MatchExpressions, r)
			for i := range nodes {
				nodes[i].Labels[key] = "value-xyz"
			}
		}
		required.NodeSelectorTerms = append(required.NodeSelectorTerms, term)
	}
	affinity := &corev1.Affinity{
		NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required},
	}
	for b.Loop() {
		selection, err := target.NewNodes(metav1.LabelSelector{MatchLabels: map[string]string{"role": "node"}}, affinity, nil)
		if err != nil {
			b.Fatal(err)
		}
		selection.Targets(nodes)
	}
}
