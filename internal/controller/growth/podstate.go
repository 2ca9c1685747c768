package growth

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

// PodState is what a verdict needs to know of a pod.
type PodState struct {
	UID string
	// Container is the identity of the running container: it changes when the container restarts.
	Container string
	// Terminating pods are not judged.
	Terminating bool
	// Running is true while the container runs, since RunningSince; zero when the kubelet does not say. Otherwise
	// Reason and Detail say why it does not run. Detail is one line of at most maxDetail bytes: it begins with the
	// reason and the exit code, and goes on with the last line that the container wrote, or with the kubelet's words.
	Running      bool
	RunningSince time.Time
	Reason       string
	Detail       string
	// Starting is true while not running is a step on the way and no fault in itself, and Since is when that began.
	Starting bool
	Since    time.Time
	// Unstarted is true while the container that comes next has never run: why is in the pod's events rather than in its
	// status.
	Unstarted bool
}

// StateOf reads a pod.
func StateOf(pod *corev1.Pod) PodState {
	state := PodState{
		UID:         string(pod.UID),
		Terminating: pod.DeletionTimestamp != nil,
		Since:       pod.CreationTimestamp.Time,
	}
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		state.Reason = pod.Status.Reason
		if state.Reason == "" {
			state.Reason = string(pod.Status.Phase)
		}
		state.Detail = Detail(state.Reason, pod.Status.Message)
		return state
	}
	for _, c := range pod.Status.InitContainerStatuses {
		if before := state.ofInit(
			c, memoryLimit(pod.Spec.InitContainers, c.Name),
		); !before.Running &&
			!before.Starting {
			return before
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == v1alpha1.ContainerName {
			state.ofContainer(c, memoryLimit(pod.Spec.Containers, c.Name))
			return state
		}
	}
	state.Starting, state.Unstarted, state.Reason = true, true, string(corev1.PodPending)
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			state.Reason, state.Detail = c.Reason, Detail(c.Reason, c.Message)
		}
	}
	return state
}

// memoryLimit is what a container may use, as its pod says it; "" for one without a limit.
func memoryLimit(containers []corev1.Container, name string) string {
	for i := range containers {
		if limit, ok := containers[i].Resources.Limits[corev1.ResourceMemory]; ok && containers[i].Name == name {
			return limit.String()
		}
	}
	return ""
}

// ofInit is the state of a pod of which only that init container is known: one that is done well, or runs, is on the way.
func (s PodState) ofInit(c corev1.ContainerStatus, limit string) PodState {
	if ended := c.State.Terminated; ended != nil && ended.ExitCode == 0 {
		s.Starting = true
		return s
	}
	s.ofContainer(c, limit)
	s.Container = "" // that of the parser
	if s.Detail != "" {
		s.Detail = prose.Ends(c.Name+": "+s.Detail, maxDetail)
	}
	return s
}

func (s *PodState) ofContainer(c corev1.ContainerStatus, limit string) {
	s.Container = c.ContainerID
	switch {
	case c.State.Running != nil:
		s.Running, s.RunningSince = true, c.State.Running.StartedAt.Time
	case c.State.Terminated != nil:
		s.crashed(c.State.Terminated, limit)
	case c.State.Waiting != nil:
		s.ofWaiting(c, limit)
	default:
		s.Starting, s.Unstarted, s.Reason = true, true, string(corev1.PodPending)
	}
}

// ofWaiting gives one name to reasons that the kubelet alternates between, so that they are one verdict. That a
// container which has crashed waits to run again says nothing of why: its last end does.
func (s *PodState) ofWaiting(c corev1.ContainerStatus, limit string) {
	waiting, last := c.State.Waiting, c.LastTerminationState.Terminated
	s.Reason, s.Unstarted = waiting.Reason, last == nil
	switch waiting.Reason {
	case "", "ContainerCreating", "PodInitializing":
		s.Starting = last == nil
		if s.Reason == "" {
			s.Reason = string(corev1.PodPending)
		}
		if last != nil {
			s.crashed(last, limit)
			return
		}
	case "ErrImagePull":
		s.Reason = "ImagePullBackOff"
	case "CrashLoopBackOff":
		if last != nil {
			s.crashed(last, limit)
			return
		}
	}
	if waiting.Message != "" {
		s.Detail = Detail(s.Reason, waiting.Message)
	}
}

// crashed takes in how a container ended.
func (s *PodState) crashed(t *corev1.ContainerStateTerminated, limit string) {
	s.Reason = crashReason(t)
	s.Detail = Detail(howItEnded(t, limit), lastLine(t.Message))
}

// crashReason keeps apart the two that need different cures: more memory, or a look at the log.
func crashReason(t *corev1.ContainerStateTerminated) string {
	if t.Reason == reasonOOMKilled {
		return t.Reason
	}
	return "CrashLoopBackOff"
}

// What kubelets and runtimes call the end of a container.
const (
	reasonOOMKilled = "OOMKilled"
	reasonError     = "Error"     // it ended with a status other than 0
	reasonCompleted = "Completed" // it ended with 0
)

// howItEnded says in a few words how a container ended. limit is what memory it might use; "" when that is not known.
func howItEnded(t *corev1.ContainerStateTerminated, limit string) string {
	code := exit(t)
	switch t.Reason {
	case reasonOOMKilled:
		text := t.Reason
		if limit != "" {
			text += " (limit " + limit + ")"
		}
		if t.ExitCode != 0 && t.ExitCode != killed {
			text += ", " + code // the kernel chose a child of the process
		}
		return text
	case "", reasonError, reasonCompleted:
		return code
	}
	return fmt.Sprintf("%s (%s)", t.Reason, code)
}

const (
	// signalled is what runtimes add to the number of the signal that ended a process.
	signalled = 128
	// lastSignal is the highest number of a signal on Linux.
	lastSignal = 64
	killed     = signalled + 9
)

func exit(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Signal != 0:
		return fmt.Sprintf("killed by signal %d", t.Signal)
	case t.ExitCode > signalled && t.ExitCode <= signalled+lastSignal:
		return fmt.Sprintf("killed by signal %d", t.ExitCode-signalled)
	}
	return fmt.Sprintf("exit %d", t.ExitCode)
}

// lastLine is the last line of what a process wrote at the end. What Go writes of a panic ends with where that was,
// and begins with what it was.
func lastLine(text string) string {
	last := ""
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line
		}
		last = line
	}
	return last
}

// Detail joins the reason for which a container does not run with the words of others, which may be none: one line of
// at most 200 bytes, without its middle where it is too long.
func Detail(cause, words string) string {
	if words = strings.TrimSpace(words); words != "" {
		cause += ": " + words
	}
	return prose.Ends(cause, maxDetail)
}
