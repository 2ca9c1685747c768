package controller

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// cacheOptions limit the cache to what the operator reads: pods, ConfigMaps, NetworkPolicies and ControllerRevisions
// with its label, and only those fields of nodes and pods that matter.
func cacheOptions() (cache.Options, error) {
	labeled, err := labels.NewRequirement(v1alpha1.LabelParser, selection.Exists, nil)
	if err != nil {
		return cache.Options{}, fmt.Errorf("selecting by label %s: %w", v1alpha1.LabelParser, err)
	}
	selector := labels.NewSelector().Add(*labeled)
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                 {Label: selector, Transform: slimPod},
			&corev1.ConfigMap{}:           {Label: selector},
			&networkingv1.NetworkPolicy{}: {Label: selector},
			&appsv1.ControllerRevision{}:  {Label: selector},
			&corev1.Node{}:                {Transform: slimNode},
		},
	}, nil
}

// slimNode keeps the fields of a node that the choice of targets depends on.
func slimNode(obj any) (any, error) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	slim := &corev1.Node{Spec: corev1.NodeSpec{Taints: node.Spec.Taints, Unschedulable: node.Spec.Unschedulable}}
	slim.Name, slim.UID, slim.ResourceVersion, slim.Labels = node.Name, node.UID, node.ResourceVersion, node.Labels
	slim.Status.NodeInfo.BootID = node.Status.NodeInfo.BootID
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			slim.Status.Conditions = []corev1.NodeCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	return slim, nil
}

// slimPod keeps the fields of a pod that plans and verdicts depend on. The remaining volumes show which config and
// which claims are in use, and whether the parser seals its reports.
func slimPod(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	pod.ManagedFields = nil
	spec := corev1.PodSpec{
		NodeName:       pod.Spec.NodeName,
		InitContainers: slimLimits(pod.Spec.InitContainers),
		Containers:     slimLimits(pod.Spec.Containers),
	}
	for _, v := range pod.Spec.Volumes {
		if v.ConfigMap != nil || v.PersistentVolumeClaim != nil {
			spec.Volumes = append(spec.Volumes, v)
		}
	}
	status := corev1.PodStatus{
		Phase: pod.Status.Phase, Reason: pod.Status.Reason, Message: pod.Status.Message, PodIP: pod.Status.PodIP,
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady || c.Type == corev1.PodScheduled {
			status.Conditions = append(status.Conditions, c)
		}
	}
	status.InitContainerStatuses = slimContainers(pod.Status.InitContainerStatuses)
	status.ContainerStatuses = slimContainers(pod.Status.ContainerStatuses)
	pod.Spec, pod.Status = spec, status
	return pod, nil
}

// slimLimits keeps the memory limits of containers, which explain why the kernel killed one.
func slimLimits(containers []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for i := range containers {
		if limit, ok := containers[i].Resources.Limits[corev1.ResourceMemory]; ok {
			out = append(out, corev1.Container{Name: containers[i].Name, Resources: corev1.ResourceRequirements{
				Limits: corev1.ResourceList{corev1.ResourceMemory: limit},
			}})
		}
	}
	return out
}

func slimContainers(containers []corev1.ContainerStatus) []corev1.ContainerStatus {
	out := make([]corev1.ContainerStatus, 0, len(containers))
	for _, c := range containers {
		out = append(out, corev1.ContainerStatus{
			Name: c.Name, ContainerID: c.ContainerID, State: c.State, LastTerminationState: c.LastTerminationState,
			Ready: c.Ready, RestartCount: c.RestartCount,
		})
	}
	return out
}
