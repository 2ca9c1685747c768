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

// Reasons why a pod has no parser until a user changes something.
const (
	// NoClaim means that the pod has no volume of that name, or that the volume is not a claim.
	NoClaim = v1alpha1.ReasonNoClaim
	// NotShareable means that the claim is ReadWriteOncePod. The caller determines it, since it takes the API server.
	NotShareable = v1alpha1.ReasonClaimNotShareable
)

// Reasons that are temporary.
const (
	// ClaimUnseen means that it is not known yet whether the claim can be shared.
	ClaimUnseen = "ClaimNotSeenYet"
	// ClaimInUse means that another pod on the same claim has the parser. Its data is the same.
	ClaimInUse = "ClaimInUse"
)

// Unusable reports whether the target waits for a user's action.
func (t Target) Unusable() bool { return t.Waits == NoClaim || t.Waits == NotShareable }

// Pods selects the pods of Hyperliquid nodes.
type Pods struct {
	selector labels.Selector
	volume   string
	nodes    Nodes
}

// NewPods returns a selection of the pods that match the selector and are not parsers, with their data in the named
// volume. affinity and tolerations are those of the parsers, as for NewNodes.
func NewPods(
	selector metav1.LabelSelector, volume string, affinity *corev1.Affinity, tolerations []corev1.Toleration,
) (Pods, error) {
	s, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil {
		return Pods{}, fmt.Errorf("reading target.pods.selector: %w", err)
	}
	// Parsers as targets would get parsers of their own, without end.
	notParser, err := labels.NewRequirement(v1alpha1.LabelParser, selection.DoesNotExist, nil)
	if err != nil {
		return Pods{}, fmt.Errorf("selecting by label %s: %w", v1alpha1.LabelParser, err)
	}
	nodes, err := newNodes(labels.Everything(), affinity, tolerations)
	if err != nil {
		return Pods{}, err
	}
	return Pods{selector: s.Add(*notParser), volume: volume, nodes: nodes}, nil
}

// Selector returns the selector to list pods with.
func (p Pods) Selector() labels.Selector { return p.selector }

// Targets returns the targets among pods that Selector matches, sorted by name.
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

// LeftOut returns how many of the pods that Selector matches are on nodes that the required node affinity does not
// match.
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

// target returns the pod as a target. Its parser holds its claim. So while the pod terminates, or its node is lost, the
// target has no node: the claim must be free to follow the pod's successor. It has no node before the pod runs either:
// the kubelet creates a missing subPath, and would create it before the Hyperliquid node does.
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
		t.Node, t.Claim, t.Boot, t.Waits = node.Name, claim, node.Status.NodeInfo.BootID, p.nodes.waitReason(node)
		t.Level = levelOf(pod, p.volume)
	}
	return t
}

// levelOf returns the SELinux level with which a pod accesses a volume: that of a container that mounts it and has
// options of its own, which replace the pod's, or else the pod's; "" when the container runtime chooses one.
func levelOf(pod *corev1.Pod, volume string) string {
	for _, c := range pod.Spec.Containers {
		mounts := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume })
		if mounts && c.SecurityContext != nil && c.SecurityContext.SELinuxOptions != nil {
			return c.SecurityContext.SELinuxOptions.Level
		}
	}
	if options := pod.Spec.SecurityContext; options != nil && options.SELinuxOptions != nil {
		return options.SELinuxOptions.Level
	}
	return ""
}

// lost reports whether a node is gone or no longer reports. A node that itself reports that it is not ready can still
// end pods.
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

// maxKept bounds, in bytes, each of the labels, the claims and the SELinux levels that are kept of a pod: room for a
// hundred. The pods of a namespace must not fill the operator's memory with a megabyte of labels each.
const maxKept = 8 << 10

// excludedLabels replace the labels of a pod that has too many. They mark a parser, which is never selected.
var excludedLabels = map[string]string{v1alpha1.LabelParser: ""}

// Slim returns the parts of a pod that select and make a target. A pod whose labels exceed maxKept is no target. Claims
// and SELinux levels that exceed it are dropped as a whole rather than truncated.
func Slim(pod *corev1.Pod) *corev1.Pod {
	slim := &corev1.Pod{
		Spec: corev1.PodSpec{NodeName: pod.Spec.NodeName}, Status: corev1.PodStatus{Phase: pod.Status.Phase},
	}
	slim.Namespace, slim.Name, slim.UID = pod.Namespace, pod.Name, pod.UID
	slim.ResourceVersion, slim.DeletionTimestamp = pod.ResourceVersion, pod.DeletionTimestamp
	size := 0
	for key, value := range pod.Labels {
		size += len(key) + len(value)
	}
	if slim.Labels = pod.Labels; size > maxKept {
		slim.Labels = excludedLabels
	}
	size = 0
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		if size += len(v.Name) + len(v.PersistentVolumeClaim.ClaimName); size > maxKept {
			slim.Spec.Volumes = nil
			break
		}
		slim.Spec.Volumes = append(slim.Spec.Volumes, v)
	}
	slim.Spec.SecurityContext, slim.Spec.Containers = slimLevels(&pod.Spec)
	return slim
}

// slimLevels returns the SELinux level of a pod, and the levels and mounts of its containers that have SELinux options
// of their own.
func slimLevels(spec *corev1.PodSpec) (*corev1.PodSecurityContext, []corev1.Container) {
	var sc *corev1.PodSecurityContext
	var containers []corev1.Container
	size := 0
	if c := spec.SecurityContext; c != nil && c.SELinuxOptions != nil && c.SELinuxOptions.Level != "" {
		sc = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: c.SELinuxOptions.Level}}
		size = len(c.SELinuxOptions.Level)
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		if c.SecurityContext == nil || c.SecurityContext.SELinuxOptions == nil {
			continue
		}
		level := c.SecurityContext.SELinuxOptions.Level
		kept := corev1.Container{SecurityContext: &corev1.SecurityContext{
			SELinuxOptions: &corev1.SELinuxOptions{Level: level},
		}}
		size += len(level)
		for _, m := range c.VolumeMounts {
			kept.VolumeMounts = append(kept.VolumeMounts, corev1.VolumeMount{Name: m.Name})
			size += len(m.Name)
		}
		containers = append(containers, kept)
	}
	if size > maxKept {
		return nil, nil
	}
	return sc, containers
}
