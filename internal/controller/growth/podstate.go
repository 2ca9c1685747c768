package growth

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ContainerName is the name of the parser's container in its pod.
const ContainerName = "hlparser"

// PodState is what a verdict needs to know of a pod.
type PodState struct {
	UID string
	// Container is the identity of the running container: it changes when the container restarts.
	Container string
	// Terminating pods are not judged.
	Terminating bool
	// Running is true while the container runs. Otherwise Reason and Detail say why it does not, as the kubelet puts it.
	Running bool
	Reason  string
	Detail  string
	// Starting is true while not running is a step on the way and no fault in itself, and Since is when that began.
	Starting bool
	Since    time.Time
}

// StateOf reads a pod.
func StateOf(pod *corev1.Pod) PodState {
	state := PodState{
		UID:         string(pod.UID),
		Terminating: pod.DeletionTimestamp != nil,
		Since:       pod.CreationTimestamp.Time,
	}
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		state.Reason, state.Detail = pod.Status.Reason, pod.Status.Message
		if state.Reason == "" {
			state.Reason = string(pod.Status.Phase)
		}
		return state
	}
	for _, c := range pod.Status.InitContainerStatuses {
		if before := state.ofInit(c); !before.Running && !before.Starting {
			return before
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == ContainerName {
			state.ofContainer(c)
			return state
		}
	}
	state.Starting, state.Reason = true, string(corev1.PodPending)
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			state.Reason, state.Detail = c.Reason, c.Message
		}
	}
	return state
}

// ofInit is the state of a pod of which only that init container is known: one that is done well, or runs, is on the way.
func (s PodState) ofInit(c corev1.ContainerStatus) PodState {
	if ended := c.State.Terminated; ended != nil && ended.ExitCode == 0 {
		s.Starting = true
		return s
	}
	s.ofContainer(c)
	s.Container = "" // that of the parser
	return s
}

func (s *PodState) ofContainer(c corev1.ContainerStatus) {
	s.Container = c.ContainerID
	switch {
	case c.State.Running != nil:
		s.Running = true
	case c.State.Terminated != nil:
		s.Reason, s.Detail = crashReason(c.State.Terminated), c.State.Terminated.Message
	case c.State.Waiting != nil:
		s.ofWaiting(c)
	default:
		s.Starting, s.Reason = true, string(corev1.PodPending)
	}
}

// ofWaiting gives one name to reasons that the kubelet alternates between, so that they are one verdict.
func (s *PodState) ofWaiting(c corev1.ContainerStatus) {
	waiting, last := c.State.Waiting, c.LastTerminationState.Terminated
	s.Reason, s.Detail = waiting.Reason, waiting.Message
	switch waiting.Reason {
	case "", "ContainerCreating", "PodInitializing":
		s.Starting = last == nil
		if last != nil {
			s.Reason = crashReason(last)
		} else if waiting.Reason == "" {
			s.Reason = string(corev1.PodPending)
		}
	case "ErrImagePull":
		s.Reason = "ImagePullBackOff"
	case "CrashLoopBackOff":
		if last != nil {
			s.Reason = crashReason(last)
		}
	}
}

// crashReason keeps apart the two that need different cures: more memory, or a look at the log.
func crashReason(t *corev1.ContainerStateTerminated) string {
	if t.Reason == "OOMKilled" {
		return t.Reason
	}
	return "CrashLoopBackOff"
}
