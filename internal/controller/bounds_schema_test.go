package controller_test

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// largest narrows nodes by the given number of terms, of requirements in each and of values in each; no node matches.
func largest(terms, requirements, values int) *corev1.Affinity {
	required := &corev1.NodeSelector{}
	for range terms {
		var term corev1.NodeSelectorTerm
		for i := range requirements {
			r := corev1.NodeSelectorRequirement{Key: fmt.Sprintf("example.com/k%d", i), Operator: corev1.NodeSelectorOpNotIn}
			for j := range values {
				r.Values = append(r.Values, fmt.Sprintf("v%d", j))
			}
			term.MatchExpressions = append(term.MatchExpressions, r)
		}
		required.NodeSelectorTerms = append(required.NodeSelectorTerms, term)
	}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}}
}

var _ = Describe("what an object may cost", func() {
	type edit = func(*v1alpha1.HyperliquidParser)
	try := func(ctx SpecContext, change edit) error {
		obj := (&farm{namespace: "default", label: "cost"}).object()
		change(obj)
		return k8s.Create(ctx, obj, client.DryRunAll)
	}
	affinity := func(terms, requirements, values int) edit {
		return func(o *v1alpha1.HyperliquidParser) { o.Spec.Affinity = largest(terms, requirements, values) }
	}
	labels := func(n int, key, value string) edit {
		return func(o *v1alpha1.HyperliquidParser) {
			for i := range n {
				o.Spec.Target.Nodes.Selector.MatchLabels[fmt.Sprintf("%s%d", key, i)] = value
			}
		}
	}
	expression := func(key string, values int, value string) edit {
		return func(o *v1alpha1.HyperliquidParser) {
			r := metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn}
			for i := range values {
				r.Values = append(r.Values, fmt.Sprintf("%s%d", value, i))
			}
			o.Spec.Target.Nodes.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{r}
		}
	}
	pods := func(change edit) edit {
		return func(o *v1alpha1.HyperliquidParser) {
			change(o)
			o.Spec.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{Selector: o.Spec.Target.Nodes.Selector, Volume: "data"}}
		}
	}

	DescribeTable("is bounded",
		func(ctx SpecContext, good, bad edit, field string) {
			Expect(try(ctx, good)).To(Succeed())
			Expect(try(ctx, bad)).To(MatchError(ContainSubstring(field)))
		},
		Entry("terms of an affinity", affinity(8, 1, 1), affinity(9, 1, 1), "nodeSelectorTerms"),
		Entry("requirements of a term", affinity(1, 16, 1), affinity(1, 17, 1), "matchExpressions"),
		Entry("values of a requirement", affinity(1, 1, 128), affinity(1, 1, 129), "values"),
		Entry("all of it", affinity(8, 16, 128), affinity(8000, 1, 1), "nodeSelectorTerms"),
		Entry("labels of a selector", labels(31, "k", "v"), labels(32, "k", "v"), "matchLabels"),
		Entry("a label's value", labels(1, "k", strings.Repeat("v", 63)), labels(1, "k", strings.Repeat("v", 64)),
			"matchLabels"),
		Entry("a label's key", labels(1, strings.Repeat("k", 316), "v"), labels(1, strings.Repeat("k", 317), "v"),
			"write names of at most 317 characters"),
		Entry("an expression's values", expression("k", 128, "v"), expression("k", 129, "v"), "values"),
		Entry("an expression's value", expression("k", 1, strings.Repeat("v", 62)),
			expression("k", 1, strings.Repeat("v", 63)), "values"),
		Entry("an expression's key", expression(strings.Repeat("k", 317), 1, "v"),
			expression(strings.Repeat("k", 318), 1, "v"), "key"),
		Entry("the same of pods", pods(expression("k", 128, "v")), pods(expression("k", 1, strings.Repeat("v", 1_200_000))),
			"spec.target.pods.selector"),
		Entry("tolerations", func(o *v1alpha1.HyperliquidParser) { o.Spec.Tolerations = make([]corev1.Toleration, 32) },
			func(o *v1alpha1.HyperliquidParser) { o.Spec.Tolerations = make([]corev1.Toleration, 33) }, "tolerations"),
		Entry("a toleration's value",
			func(o *v1alpha1.HyperliquidParser) { o.Spec.Tolerations = []corev1.Toleration{{Key: "k", Value: "v"}} },
			func(o *v1alpha1.HyperliquidParser) {
				o.Spec.Tolerations = []corev1.Toleration{{Key: "k", Value: strings.Repeat("v", 64)}}
			}, "tolerations"),
	)

	It("does not keep an object of before from being changed elsewhere", func(ctx SpecContext) {
		f := newFarm(ctx, 0)
		tighten := loosenSchema(ctx, "spec.affinity", "spec.runAsUser")
		obj := f.object()
		obj.Spec.Affinity = largest(100, 1, 1)
		obj.Spec.RunAsUser = new(int64(3_000_000_000))
		Eventually(ctx, func() error { obj.ResourceVersion = ""; return k8s.Create(ctx, obj) }).Should(Succeed())
		tighten(ctx)
		Eventually(ctx, func() error { return try(ctx, affinity(9, 1, 1)) }).ShouldNot(Succeed())
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Paused = true })
		now := current(ctx, obj)
		now.Status.Desired = 3
		Expect(k8s.Status().Update(ctx, now)).To(Succeed())
		now = current(ctx, obj)
		now.Spec.Affinity = largest(101, 1, 1)
		Expect(k8s.Update(ctx, now)).To(MatchError(ContainSubstring("nodeSelectorTerms")))
	})
})
