package podspec

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// annotationLevel marks templates whose pods get their target's SELinux level. Stored templates without it make their
// pods without one.
const (
	annotationLevel = v1alpha1.Group + "/selinux-level"
	levelOfTarget   = "of-target"
)

// applyLevel gives a pod that shares its target's claim the target's SELinux level, unless the object sets one. A
// container runtime relabels a claim with the level of each pod that mounts it, and chooses a level for a pod without
// one: the Hyperliquid node could no longer write its own files.
func applyLevel(pod *corev1.Pod, level string) {
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
