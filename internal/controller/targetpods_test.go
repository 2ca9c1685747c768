package controller_test

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// besidePods is a good object that selects the farm's Hyperliquid nodes' pods.
func (f *farm) besidePods() *v1alpha1.HyperliquidParser {
	obj := f.object()
	obj.Spec.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{
		Selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "hl-node"}}, Volume: "data", SubPath: "hl/data",
	}}
	return obj
}

// claim makes the claim of a Hyperliquid node's pod.
func (f *farm) claim(ctx context.Context, pod string, mode corev1.PersistentVolumeAccessMode) {
	GinkgoHelper()
	Expect(k8s.Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "data-" + pod},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{mode},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Ti")}},
		},
	})).To(Succeed())
}

// hlNode makes a pod as the StatefulSet of a Hyperliquid node does, with its claim in the named volume. It is not
// scheduled.
func (f *farm) hlNode(ctx context.Context, name, volume string) *corev1.Pod {
	GinkgoHelper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: name, Labels: map[string]string{"app": "hl-node"}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "hl-node", Image: "hl-node"}},
			Volumes: []corev1.Volume{{Name: volume, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-" + name},
			}}},
		},
	}
	Expect(k8s.Create(ctx, pod)).To(Succeed())
	return pod
}

// runOn schedules a pod and starts it.
func runOn(ctx context.Context, pod *corev1.Pod, node string) {
	GinkgoHelper()
	Expect(k8s.SubResource("binding").Create(ctx, pod,
		&corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}})).To(Succeed())
	Expect(k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
	pod.Status.Phase = corev1.PodRunning
	Expect(k8s.Status().Update(ctx, pod)).To(Succeed())
}

// gone is the end of a pod that terminates: its kubelet is done.
func gone(ctx context.Context, pod *corev1.Pod) {
	GinkgoHelper()
	Expect(k8s.Delete(ctx, pod, client.GracePeriodSeconds(0), client.Preconditions{UID: &pod.UID})).To(Succeed())
}

// beside are the parsers of a target, those that terminate too, by node.
func (f *farm) beside(ctx context.Context, name string) map[string]*corev1.Pod {
	GinkgoHelper()
	var pods corev1.PodList
	Expect(k8s.List(ctx, &pods, client.InNamespace(f.namespace), client.HasLabels{v1alpha1.LabelParser})).To(Succeed())
	out := map[string]*corev1.Pod{}
	for i := range pods.Items {
		if pods.Items[i].Annotations[v1alpha1.AnnotationTarget] == name {
			out[nodeOf(&pods.Items[i])] = &pods.Items[i]
		}
	}
	return out
}

var _ = Describe("a fleet beside pods", func() {
	It("gets one parser beside each pod that runs, with its claim, on its node", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.besidePods()
		obj.Spec.PodLabels = map[string]v1alpha1.LabelValue{"app": "hl-node"} // parsers are not targets for all that
		pod := f.hlNode(ctx, "hl-0", "data")
		Expect(k8s.Create(ctx, obj)).To(Succeed())

		By("waiting for a pod that is not scheduled")
		Eventually(ctx, func() string { return conditionMessage(current(ctx, obj), v1alpha1.ConditionReady) }).
			Should(ContainSubstring("1 target cannot take a new one now: hl-0 (PodNotRunning)"))
		Expect(f.beside(ctx, "hl-0")).To(BeEmpty())

		By("following it to its node")
		runOn(ctx, pod, f.node(1))
		Eventually(ctx, func() map[string]*corev1.Pod { return f.beside(ctx, "hl-0") }).Should(HaveKey(f.node(1)))
		parser := f.beside(ctx, "hl-0")[f.node(1)]
		Expect(parser.Name).To(Equal(podspec.PodName(obj.Name, target.Target{Name: "hl-0", Node: f.node(1)})))
		Expect(parser.Spec.Volumes).To(ContainElement(HaveField("VolumeSource.PersistentVolumeClaim", HaveValue(Equal(
			corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-hl-0"})))))
		Expect(parser.Spec.Containers[0].VolumeMounts).To(ContainElements(
			corev1.VolumeMount{Name: "data", MountPath: "/data", SubPath: "hl/data", ReadOnly: true},
			corev1.VolumeMount{Name: "data", MountPath: "/state", SubPath: "hlparser/mainnet"},
		))
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(1)))
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReady, "True/AllReady", soon)
		Expect(current(ctx, obj).Status).To(And(HaveField("Desired", int32(1)), HaveField("StatePath", "hlparser")))

		By("moving the state without saying so")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Pods.StateSubPath = "state" })
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonStatePathChanged, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(
			HavePrefix("spec.target.pods.stateSubPath was hlparser: below state"))
		Expect(f.beside(ctx, "hl-0")[f.node(1)].UID).To(Equal(parser.UID))

		By("moving it to another claim, in silence and then saying so")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Target.Pods.StateSubPath, o.Spec.Target.Pods.StateClaimName = "hlparser", "state"
		})
		Eventually(ctx, func() string { return conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled) }).Should(
			HavePrefix("spec.target.pods.stateClaimName with stateSubPath was hlparser: below /state/hlparser"))
		Expect(f.beside(ctx, "hl-0")[f.node(1)].UID).To(Equal(parser.UID))
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			metav1.SetMetaDataAnnotation(&o.ObjectMeta, v1alpha1.AnnotationAcceptStatePath, "/state/hlparser")
		})
		Eventually(ctx, func() string { return current(ctx, obj).Status.StatePath }).Should(Equal("/state/hlparser"))
		Eventually(ctx, func() []corev1.Volume {
			if moved := f.beside(ctx, "hl-0")[f.node(1)]; moved != nil {
				return moved.Spec.Volumes
			}
			return nil
		}).Should(ContainElement(HaveField("VolumeSource.PersistentVolumeClaim", HaveValue(Equal(
			corev1.PersistentVolumeClaimVolumeSource{ClaimName: "state"})))))
	})

	It("lets go of the claims at once when pods end, all of them and paused, and comes back where they "+
		"come back", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.besidePods()
		pods := []*corev1.Pod{f.hlNode(ctx, "hl-0", "data"), f.hlNode(ctx, "hl-1", "data")}
		for i, pod := range pods {
			runOn(ctx, pod, f.node(i))
		}
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(2)))
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Paused = true })

		By("deleting the pods, which take their time")
		for _, pod := range pods {
			Expect(k8s.Delete(ctx, pod)).To(Succeed())
		}
		for _, pod := range pods {
			Eventually(ctx, func() map[string]*corev1.Pod { return f.beside(ctx, pod.Name) }).Should(BeEmpty())
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed(), "its parser is gone before it is")
			Expect(pod.DeletionTimestamp).NotTo(BeNil())
		}
		Expect(current(ctx, obj).Status.Desired).To(Equal(int32(2)))

		By("recreating them, one on another node")
		for _, pod := range pods {
			gone(ctx, pod)
		}
		runOn(ctx, f.hlNode(ctx, "hl-0", "data"), f.node(2))
		runOn(ctx, f.hlNode(ctx, "hl-1", "data"), f.node(1))
		Eventually(ctx, func() map[string]*corev1.Pod { return f.beside(ctx, "hl-0") }).Should(
			And(HaveLen(1), HaveKey(f.node(2))))
		Eventually(ctx, func() map[string]*corev1.Pod { return f.beside(ctx, "hl-1") }).Should(
			And(HaveLen(1), HaveKey(f.node(1))))
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(2)))
	})

	It("comes back elsewhere though its old parser never ends on a lost node", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.besidePods()
		pod := f.hlNode(ctx, "hl-0", "data")
		runOn(ctx, pod, f.node(0))
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(1)))

		f.setIdle(0, true)
		f.setNodeReady(ctx, f.node(0), corev1.ConditionUnknown)
		Eventually(ctx, func() bool { return f.beside(ctx, "hl-0")[f.node(0)].DeletionTimestamp != nil }).Should(BeTrue(),
			"the claim cannot go elsewhere while a pod that wants it is there")
		gone(ctx, pod)
		runOn(ctx, f.hlNode(ctx, "hl-0", "data"), f.node(1))
		Eventually(ctx, func() map[string]*corev1.Pod { return f.beside(ctx, "hl-0") }).Should(
			And(HaveKey(f.node(0)), HaveKey(f.node(1))))
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(1)))
		f.setIdle(0, false)
		Eventually(ctx, func() map[string]*corev1.Pod { return f.beside(ctx, "hl-0") }).Should(
			And(HaveLen(1), HaveKey(f.node(1))))
	})

	It("says which pods it can do nothing for, and serves the others", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		run(runOptions{})
		obj := f.besidePods()
		for i, name := range []string{"hl-0", "hl-1"} {
			f.claim(ctx, name, corev1.ReadWriteOnce)
			runOn(ctx, f.hlNode(ctx, name, []string{"data", "disk"}[i]), f.node(i))
		}
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(1)))
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReady, "False/"+v1alpha1.ReasonNoClaim, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionReady)).To(
			HavePrefix("pod hl-1 has no persistentVolumeClaim volume of the name"))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionStalled)).To(HavePrefix("False/"))
		Eventually(ctx, func() []string { return eventNotes(ctx, obj, v1alpha1.ReasonNoClaim) }).Should(HaveLen(1))
		Expect(f.beside(ctx, "hl-1")).To(BeEmpty())

		By("selecting one whose claim is for a single pod")
		f.claim(ctx, "hl-2", corev1.ReadWriteOncePod)
		runOn(ctx, f.hlNode(ctx, "hl-2", "data"), f.node(2))
		var bad corev1.PodList
		Expect(k8s.List(ctx, &bad, client.InNamespace(f.namespace),
			client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("metadata.name", "hl-1")})).To(Succeed())
		gone(ctx, &bad.Items[0])
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReady, "False/"+v1alpha1.ReasonClaimNotShareable, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionReady)).To(
			HavePrefix("the claim data-hl-2 of pod hl-2 is ReadWriteOncePod"))
		Expect(f.beside(ctx, "hl-2")).To(BeEmpty())
		Expect(f.beside(ctx, "hl-0")).To(HaveLen(1))
	})
})

var _ = Describe("pods that share a claim", func() {
	// sharing makes a pod of a Hyperliquid node on the claim data-hl, which runs on a node.
	sharing := func(ctx context.Context, f *farm, name, node string) *corev1.Pod {
		GinkgoHelper()
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: name, Labels: map[string]string{"app": "hl-node"}},
			Spec: corev1.PodSpec{
				Containers:      []corev1.Container{{Name: "hl-node", Image: "hl-node"}},
				SecurityContext: &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: "s0:c1,c2"}},
				Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
					PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-hl"},
				}}},
			},
		}
		Expect(k8s.Create(ctx, pod)).To(Succeed())
		runOn(ctx, pod, node)
		return pod
	}
	// parsers are those of the farm's namespace that do not end, by target.
	parsers := func(ctx context.Context, f *farm) map[string]corev1.Pod {
		GinkgoHelper()
		var pods corev1.PodList
		Expect(k8s.List(ctx, &pods, client.InNamespace(f.namespace), client.HasLabels{v1alpha1.LabelParser})).To(Succeed())
		out := map[string]corev1.Pod{}
		for _, pod := range pods.Items {
			if pod.DeletionTimestamp == nil {
				out[pod.Annotations[v1alpha1.AnnotationTarget]] = pod
			}
		}
		return out
	}

	It("have one parser between them, with their SELinux level, and the others say so", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.besidePods()
		f.claim(ctx, "hl", corev1.ReadWriteMany)
		old := sharing(ctx, f, "hl-b", f.node(0))
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(1)))
		Expect(parsers(ctx, f)["hl-b"].Spec.SecurityContext.SELinuxOptions).To(
			HaveValue(Equal(corev1.SELinuxOptions{Level: "s0:c1,c2"})))

		By("beginning to replace the pod, as a Deployment does: with a second one, whose name comes first")
		sharing(ctx, f, "hl-a", f.node(1))
		Eventually(ctx, func() string { return conditionMessage(current(ctx, obj), v1alpha1.ConditionReady) }).Should(
			ContainSubstring(
				"1 target cannot take a new one now: hl-a (ClaimInUse: the parser of claim data-hl is beside pod hl-b)"))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionReady)).To(Equal("True/AllReady"), "all data has a parser")
		Expect(current(ctx, obj).Status.Desired).To(Equal(int32(1)))
		Consistently(ctx, func() map[string]corev1.Pod { return parsers(ctx, f) }).Should(And(HaveLen(1), HaveKey("hl-b")))

		By("ending the first one")
		Expect(k8s.Delete(ctx, old)).To(Succeed())
		Eventually(ctx, func() map[string]corev1.Pod { return parsers(ctx, f) }).Should(And(HaveLen(1), HaveKey("hl-a")))
		gone(ctx, old)
		Eventually(ctx, func() string { return conditionMessage(current(ctx, obj), v1alpha1.ConditionReady) }).Should(
			HavePrefix("1 of 1 target has a ready parser"))
	})
})

var _ = Describe("an affinity", func() {
	affinity := func(terms ...corev1.NodeSelectorTerm) *corev1.Affinity {
		return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
		}}
	}
	requires := func(r corev1.NodeSelectorRequirement) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{r}}
	}

	It("that leaves out every node, or that no API server takes, is said", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		none := f.object()
		none.Spec.Affinity = affinity(requires(corev1.NodeSelectorRequirement{Key: "zone", Operator: corev1.NodeSelectorOpIn,
			Values: []string{"mars"}}))
		Expect(k8s.Create(ctx, none)).To(Succeed())
		eventuallyCondition(ctx, none, v1alpha1.ConditionReady, "True/"+v1alpha1.ReasonNoTargets, soon)
		Expect(conditionMessage(current(ctx, none), v1alpha1.ConditionReady)).To(
			ContainSubstring("spec.affinity excludes all 2 nodes or pods that the selector of spec.target matches"))

		bad := f.object()
		bad.Name = "bad"
		bad.Spec.Affinity = affinity(
			requires(corev1.NodeSelectorRequirement{Key: roleLabel, Operator: corev1.NodeSelectorOpExists}),
			requires(corev1.NodeSelectorRequirement{Key: "cpus", Operator: corev1.NodeSelectorOpGt, Values: []string{"many"}}))
		Expect(k8s.Create(ctx, bad)).To(Succeed())
		eventuallyCondition(ctx, bad, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonSpecInvalid, soon)
		Expect(conditionMessage(current(ctx, bad), v1alpha1.ConditionStalled)).To(ContainSubstring("affinity.nodeAffinity"))
	})

	It("or a toleration that the API server refuses is said in its words", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Tolerations = []corev1.Toleration{{Operator: "Is", Key: "a", Value: "b"}}
		if err := k8s.Create(ctx, obj); err != nil {
			Expect(err.Error()).To(ContainSubstring("tolerations"))
			return
		}
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonPodRejected, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(ContainSubstring("tolerations"))
	})
})
