package podspec

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// annotationLevel is on templates whose pods have their target's SELinux level. Those that an operator of before stored
// lack it, and make pods as they did.
const (
	annotationLevel = v1alpha1.Group + "/selinux-level"
	levelOfTarget   = "of-target"
)

// takeLevel gives a pod that shares its target's claim the target's SELinux level, unless the object sets one. A
// container runtime relabels a claim with the level of each pod that mounts it, one that it chooses where the pod has
// none: the Hyperliquid node could not write its own files any more.
func takeLevel(pod *corev1.Pod, level string) {
	if level == "" || pod.Annotations[annotationLevel] != levelOfTarget {
		return
	}
	if pod.Spec.SecurityContext == nil {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	context := pod.Spec.SecurityContext
	if context.SELinuxOptions == nil {
		context.SELinuxOptions = &corev1.SELinuxOptions{}
	}
	if context.SELinuxOptions.Level == "" {
		context.SELinuxOptions.Level = level
	}
}
