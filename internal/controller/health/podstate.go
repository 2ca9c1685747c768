package health

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

// PodState is the part of a pod's state that a verdict depends on.
type PodState struct {
	UID string
	// Container is the ID of the running container. It changes when the container restarts.
	Container string
	// Terminating pods are not judged.
	Terminating bool
	// Running is true while the container runs. RunningSince is zero when the kubelet does not report it. When the
	// container does not run, Reason and Detail are why. Detail is one line of at most maxDetail bytes: the reason and
	// the exit code, then the container's last line or the kubelet's message.
	Running      bool
	RunningSince time.Time
	Reason       string
	Detail       string
	// Starting is true while not running is a step of a start and no fault. Since is when the start began.
	Starting bool
	Since    time.Time
	// Unstarted is true while the next container has never run: the cause is in the pod's events, not in its status.
	Unstarted bool
}

// StateOf returns the state of a pod.
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
		initState := state.ofInit(c, memoryLimit(pod.Spec.InitContainers, c.Name))
		if !initState.Running && !initState.Starting {
			return initState
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

// memoryLimit returns a container's memory limit as its pod spec has it; "" for none.
func memoryLimit(containers []corev1.Container, name string) string {
	for i := range containers {
		if limit, ok := containers[i].Resources.Limits[corev1.ResourceMemory]; ok && containers[i].Name == name {
			return limit.String()
		}
	}
	return ""
}

// ofInit returns the state of a pod as far as one init container determines it: after success, and while it runs, the
// pod is starting.
func (s PodState) ofInit(c corev1.ContainerStatus, limit string) PodState {
	if ended := c.State.Terminated; ended != nil && ended.ExitCode == 0 {
		s.Starting = true
		return s
	}
	s.ofContainer(c, limit)
	s.Container = "" // it names the parser's container
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

// ofWaiting merges reasons that the kubelet alternates between, so that they are one verdict. A crashed container that
// waits to restart does not show why; its last termination does.
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

// crashed sets the reason and detail of a container that has ended.
func (s *PodState) crashed(t *corev1.ContainerStateTerminated, limit string) {
	s.Reason = crashReason(t)
	s.Detail = Detail(termination(t, limit), lastLine(t.Message))
}

// crashReason separates the two that need different fixes: more memory, or a search of the log.
func crashReason(t *corev1.ContainerStateTerminated) string {
	if t.Reason == reasonOOMKilled {
		return t.Reason
	}
	return "CrashLoopBackOff"
}

// Reasons that kubelets and runtimes give for the end of a container.
const (
	reasonOOMKilled = "OOMKilled"
	reasonError     = "Error"     // exit status other than 0
	reasonCompleted = "Completed" // exit status 0
)

// termination describes how a container ended. limit is its memory limit; "" when unknown.
func termination(t *corev1.ContainerStateTerminated, limit string) string {
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
	// signalled is what runtimes add to the number of a fatal signal.
	signalled = 128
	// lastSignal is the highest signal number on Linux.
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

// lastLine returns the last line of a termination message. For a panic of Go it returns the first line of the panic:
// the last ones are a stack trace.
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

// Detail joins the reason why a container does not run with a quoted message, which may be empty. The result is one
// line of at most 200 bytes; a longer one loses its middle.
func Detail(cause, message string) string {
	if message = strings.TrimSpace(message); message != "" {
		cause += ": " + message
	}
	return prose.Ends(cause, maxDetail)
}
