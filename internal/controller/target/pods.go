package target

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// Reasons for which a pod cannot have a parser until somebody changes something.
const (
	// NoClaim: the pod has no volume of that name, or it is not on a claim.
	NoClaim = v1alpha1.ReasonNoClaim
	// NotShareable: the claim is ReadWriteOncePod. Whoever can ask the API server finds out.
	NotShareable = v1alpha1.ReasonClaimNotShareable
)

// Reasons that pass by themselves.
const (
	// ClaimUnseen is why a target waits while it is being asked whether its claim can be shared.
	ClaimUnseen = "ClaimNotSeenYet"
	// ClaimInUse is why a target has no parser: another pod on the same claim has it. Its data is the same.
	ClaimInUse = "ClaimInUse"
)

// Unusable reports whether the target waits for a person.
func (t Target) Unusable() bool { return t.Waits == NoClaim || t.Waits == NotShareable }

// Pods selects the pods of Hyperliquid nodes.
type Pods struct {
	selector labels.Selector
	volume   string
	nodes    Nodes
}

// NewPods returns a selection of the pods that match the selector and are no parsers, with their data in the named volume. Affinity and
// tolerations are those of the parsers: see NewNodes.
func NewPods(selector metav1.LabelSelector, volume string, affinity *corev1.Affinity, tolerations []corev1.Toleration) (Pods, error) {
	s, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil {
		return Pods{}, fmt.Errorf("reading target.pods.selector: %w", err)
	}
	// A parser beside a parser would be one for each parser there is, and so on.
	foreign, err := labels.NewRequirement(v1alpha1.LabelParser, selection.DoesNotExist, nil)
	if err != nil {
		return Pods{}, fmt.Errorf("selecting by label %s: %w", v1alpha1.LabelParser, err)
	}
	nodes, err := newNodes(labels.Everything(), affinity, tolerations)
	if err != nil {
		return Pods{}, err
	}
	return Pods{selector: s.Add(*foreign), volume: volume, nodes: nodes}, nil
}

// Selector is what the API server is asked for.
func (p Pods) Selector() labels.Selector { return p.selector }

// Targets returns the targets among pods that Selector matches, by name.
func (p Pods) Targets(pods []corev1.Pod, nodes []corev1.Node) []Target {
	byName := make(map[string]*corev1.Node, len(nodes))
	for i := range nodes {
		byName[nodes[i].Name] = &nodes[i]
	}
	var out []Target
	for i := range pods {
		pod := &pods[i]
		node := byName[pod.Spec.NodeName]
		if node != nil && !p.nodes.Selects(node) {
			continue
		}
		out = append(out, p.target(pod, node))
	}
	return sorted(out)
}

// LeftOut counts the pods, of those that Selector matches, on nodes that the required node affinity does not match.
func (p Pods) LeftOut(pods []corev1.Pod, nodes []corev1.Node) int {
	on := map[string]int{}
	for i := range pods {
		on[pods[i].Spec.NodeName]++
	}
	count := 0
	for i := range nodes {
		if n := on[nodes[i].Name]; n > 0 && !p.nodes.Selects(&nodes[i]) {
			count += n
		}
	}
	return count
}

// target is the pod as a target. Its parser holds its claim: while the pod ends, or its node is lost, the parser belongs nowhere, so that
// the claim can go where the pod's successor goes. Nor does it come before the pod runs: the kubelet makes a subPath that is not there,
// and would make it before the Hyperliquid node does.
func (p Pods) target(pod *corev1.Pod, node *corev1.Node) Target {
	t := Target{Name: pod.Name, UID: string(pod.UID)}
	claim := claimOf(pod, p.volume)
	switch {
	case claim == "":
		t.Waits = NoClaim
	case pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodRunning:
		t.Waits = NotRunning
	case lost(node):
		t.Waits = NotReady
	default:
		t.Node, t.Claim, t.Boot, t.Waits = node.Name, claim, node.Status.NodeInfo.BootID, p.nodes.waits(node)
		t.Level = levelOf(pod, p.volume)
	}
	return t
}

// levelOf is the SELinux level by which a pod uses a volume: that of a container that mounts it and has options of its
// own, which stand for all of the pod's, or else the pod's; "" when the container runtime chooses one.
func levelOf(pod *corev1.Pod, volume string) string {
	for _, c := range pod.Spec.Containers {
		mounts := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume })
		if mounts && c.SecurityContext != nil && c.SecurityContext.SELinuxOptions != nil {
			return c.SecurityContext.SELinuxOptions.Level
		}
	}
	if of := pod.Spec.SecurityContext; of != nil && of.SELinuxOptions != nil {
		return of.SELinuxOptions.Level
	}
	return ""
}

// lost is true for a node that is gone or not heard of. One that says itself that it is not ready can still end pods.
func lost(node *corev1.Node) bool {
	if node == nil {
		return true
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionUnknown
		}
	}
	return true
}

func claimOf(pod *corev1.Pod, volume string) string {
	for _, v := range pod.Spec.Volumes {
		if v.Name == volume && v.PersistentVolumeClaim != nil {
			return v.PersistentVolumeClaim.ClaimName
		}
	}
	return ""
}

// maxSelected bounds the labels, the claims, and what has an SELinux level, that are kept of a pod, in bytes: a hundred
// of each. The pods of a namespace must not fill the operator's memory with a megabyte of labels each.
const maxSelected = 8 << 10

// overfull are the labels of a pod that has too many: as a parser's, which no selection has.
var overfull = map[string]string{v1alpha1.LabelParser: ""}

// Slim keeps of a pod what a target is made from, and chosen by. A pod with more labels than a Hyperliquid node's ever has is no target,
// and one with more claims, or SELinux levels, has none: lists are left out rather than cut.
func Slim(pod *corev1.Pod) *corev1.Pod {
	slim := &corev1.Pod{Spec: corev1.PodSpec{NodeName: pod.Spec.NodeName}, Status: corev1.PodStatus{Phase: pod.Status.Phase}}
	slim.Namespace, slim.Name, slim.UID = pod.Namespace, pod.Name, pod.UID
	slim.ResourceVersion, slim.DeletionTimestamp = pod.ResourceVersion, pod.DeletionTimestamp
	size := 0
	for key, value := range pod.Labels {
		size += len(key) + len(value)
	}
	if slim.Labels = pod.Labels; size > maxSelected {
		slim.Labels = overfull
	}
	size = 0
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		if size += len(v.Name) + len(v.PersistentVolumeClaim.ClaimName); size > maxSelected {
			slim.Spec.Volumes = nil
			break
		}
		slim.Spec.Volumes = append(slim.Spec.Volumes, v)
	}
	slim.Spec.SecurityContext, slim.Spec.Containers = slimLevels(&pod.Spec)
	return slim
}

// slimLevels keeps the SELinux level of a pod, and of its containers that have options of their own, with what they
// mount.
func slimLevels(spec *corev1.PodSpec) (*corev1.PodSecurityContext, []corev1.Container) {
	var of *corev1.PodSecurityContext
	var containers []corev1.Container
	size := 0
	if c := spec.SecurityContext; c != nil && c.SELinuxOptions != nil && c.SELinuxOptions.Level != "" {
		of = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: c.SELinuxOptions.Level}}
		size = len(c.SELinuxOptions.Level)
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		if c.SecurityContext == nil || c.SecurityContext.SELinuxOptions == nil {
			continue
		}
		level := c.SecurityContext.SELinuxOptions.Level
		kept := corev1.Container{SecurityContext: &corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: level}}}
		size += len(level)
		for _, m := range c.VolumeMounts {
			kept.VolumeMounts = append(kept.VolumeMounts, corev1.VolumeMount{Name: m.Name})
			size += len(m.Name)
		}
		containers = append(containers, kept)
	}
	if size > maxSelected {
		return nil, nil
	}
	return of, containers
}
