package agent

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// post writes the pod's status if it has changed since the last write.
func (w *worker) post(ctx context.Context) {
	w.repost = nil
	status := w.podStatus()
	if w.posted != nil && equality.Semantic.DeepEqual(*w.posted, status) {
		return
	}
	// The UID prevents the patch of a later pod with the same name.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": w.pod.UID},
		"status":   status,
	})
	if err != nil {
		w.agent.opts.Log.Error("encoding a pod's status", "pod", w.pod.Name, "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	_, err = w.agent.opts.Client.CoreV1().Pods(w.pod.Namespace).
		Patch(ctx, w.pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err == nil {
		w.posted = &status
		return
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return // the pod is gone; the watch reports that
	}
	w.agent.opts.Log.Warn("writing a pod's status", "pod", w.pod.Name, "error", err)
	w.repost = time.After(retryAfter)
}

func (w *worker) podStatus() corev1.PodStatus {
	s := &w.status
	status := corev1.PodStatus{Phase: w.phase(), HostIP: w.agent.addresses.node(w.nodeIndex)}
	status.HostIPs = []corev1.HostIP{{IP: status.HostIP}}
	if w.ip != "" {
		status.PodIP, status.PodIPs = w.ip, []corev1.PodIP{{IP: w.ip}}
	}
	created := w.pod.CreationTimestamp
	status.StartTime = &created

	for i := range w.inits {
		init := w.inits[i].report(&w.pod.Spec.InitContainers[i], i < w.init || w.finished)
		status.InitContainerStatuses = append(status.InitContainerStatuses, init)
	}
	if len(w.pod.Spec.Containers) > 0 {
		status.ContainerStatuses = []corev1.ContainerStatus{s.report(&w.pod.Spec.Containers[0], w.finished)}
	}
	status.Conditions = w.conditions(status.Phase)
	return status
}

// report returns the API status of a container. done reports whether the container is not started again.
func (s *containerStatus) report(c *corev1.Container, done bool) corev1.ContainerStatus {
	started := s.started // a copy, because a posted status must not change later
	out := corev1.ContainerStatus{
		Name: c.Name, Image: c.Image, ImageID: "process",
		RestartCount: s.restarts, ContainerID: s.containerID(), Ready: s.ready, Started: &started,
	}
	if s.last != nil {
		out.LastTerminationState.Terminated = s.last
	}
	switch {
	case !s.startedAt.IsZero():
		out.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(s.startedAt).Rfc3339Copy()}
	case done && s.last != nil:
		out.State.Terminated = s.last
		out.LastTerminationState = corev1.ContainerState{}
	default:
		out.State.Waiting = s.waiting
	}
	return out
}

func (w *worker) phase() corev1.PodPhase {
	if w.finished && w.init < len(w.inits) && w.inits[w.init].failed() {
		return corev1.PodFailed
	}
	switch s := &w.status; {
	case w.finished && s.last != nil && s.last.ExitCode == 0:
		return corev1.PodSucceeded
	case w.finished && s.last != nil:
		return corev1.PodFailed
	case s.startedAt.IsZero() && s.last == nil:
		return corev1.PodPending
	default:
		return corev1.PodRunning
	}
}

// conditions keeps the transition times of the last posted status.
func (w *worker) conditions(phase corev1.PodPhase) []corev1.PodCondition {
	ready := corev1.ConditionFalse
	reason := "ContainersNotReady"
	if w.status.ready {
		ready, reason = corev1.ConditionTrue, ""
	}
	if phase == corev1.PodSucceeded {
		reason = "PodCompleted"
	}
	initialized := corev1.ConditionTrue
	if w.init < len(w.inits) {
		initialized = corev1.ConditionFalse
	}
	list := []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
		{Type: corev1.PodInitialized, Status: initialized},
		{Type: corev1.ContainersReady, Status: ready, Reason: reason},
		{Type: corev1.PodReady, Status: ready, Reason: reason},
	}
	for i := range list {
		list[i].LastTransitionTime = metav1.Now().Rfc3339Copy()
		if w.posted == nil {
			continue
		}
		for _, old := range w.posted.Conditions {
			if old.Type == list[i].Type && old.Status == list[i].Status {
				list[i].LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	return list
}
