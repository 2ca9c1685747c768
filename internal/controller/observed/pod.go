package observed

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

// PlanPod returns a pod as the plan sees it, but for its ages.
func PlanPod(pod *corev1.Pod) plan.Pod {
	out := plan.Pod{
		Name:        pod.Name,
		UID:         string(pod.UID),
		Target:      pod.Annotations[v1alpha1.AnnotationTarget],
		Revision:    pod.Labels[v1alpha1.LabelRevision],
		RestartedAt: pod.Annotations[v1alpha1.AnnotationRestartedAt],
		Created:     pod.CreationTimestamp.Time,
		Terminating: pod.DeletionTimestamp != nil,
		Failed:      pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded,
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			out.Ready, out.ReadyChangedAt = c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
		}
	}
	// Init containers come first, as they run first.
	for _, containers := range [...][]corev1.ContainerStatus{
		pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses,
	} {
		for i := range containers {
			out.Restarts = max(out.Restarts, int(containers[i].RestartCount))
			if out.Blocked == "" {
				out.Blocked = blocked(&containers[i])
			}
		}
	}
	return out
}

// cannotStart are the reasons for which a kubelet does not start a container: those about the image
// (pkg/kubelet/images), about the container (pkg/kubelet/kuberuntime), and about one that has started too often. The
// last two are also those that a runtime reports by CRI.
var cannotStart = []string{
	"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
	"CreateContainerConfigError", "CreateContainerError", "PreCreateHookError", "PreStartHookError", "PostStartHookError",
	"RunContainerError", "CrashLoopBackOff", "RegistryUnavailable", "SignatureValidationFailed",
}

// maxBlocked bounds a quotation of a kubelet, in bytes.
const maxBlocked = 200

// blocked returns why a container cannot be started; "" when nothing prevents it.
func blocked(c *corev1.ContainerStatus) string {
	w := c.State.Waiting
	if w == nil || !slices.Contains(cannotStart, w.Reason) {
		return ""
	}
	text := w.Reason
	if w.Message != "" {
		text += ": " + w.Message
	}
	return prose.Line(text, maxBlocked)
}

// running reports whether the parser's container runs.
func running(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.Name == v1alpha1.ContainerName && c.State.Running != nil
	})
}
