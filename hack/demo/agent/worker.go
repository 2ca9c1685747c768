package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
)

// worker runs one pod from its binding to its final deletion. Its own goroutine owns all fields but latest and gone.
type worker struct {
	agent     *Agent
	node      string
	nodeIndex int
	dir       string // the pod's directory on this machine
	latest    chan *corev1.Pod
	gone      chan struct{} // closed when the pod is gone from the API

	pod    *corev1.Pod
	ip     string
	inits  []containerStatus // of the init containers
	init   int               // index of the init container that runs or is next; len(inits) once all have succeeded
	status containerStatus   // of the container
	posted *corev1.PodStatus
	repost <-chan time.Time // fires after a failed write

	process     *child.Child
	stopProbes  context.CancelFunc
	probes      chan probed
	start       *time.Timer // fires when the container is to be started
	backoff     time.Duration
	terminating bool
	finished    bool // the container is not started again
}

// Restart backoff. It is shorter than a kubelet's 10 s to 5 min, because a demo is short.
const (
	firstBackoff = time.Second
	maxBackoff   = 30 * time.Second
	// calmAfter is the run time after which the backoff is reset.
	calmAfter = 2 * time.Minute
	// retryAfter is the pause before a retry that may succeed later, such as for a missing directory or ConfigMap.
	retryAfter = time.Second
)

func newWorker(a *Agent, pod *corev1.Pod, node string, index int) *worker {
	w := &worker{
		agent: a, node: node, nodeIndex: index, pod: pod,
		dir:    filepath.Join(a.opts.Dir, node, "pods", string(pod.UID)),
		latest: make(chan *corev1.Pod, 1),
		gone:   make(chan struct{}),
		probes: make(chan probed),
		start:  time.NewTimer(0),
		inits:  make([]containerStatus, len(pod.Spec.InitContainers)),
	}
	for i := range w.inits {
		w.inits[i].waiting = &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	w.status.waiting = &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	if len(w.inits) == 0 {
		w.status.waiting.Reason = creating
	}
	return w
}

// creating is the kubelet's reason for a container that is about to start.
const creating = "ContainerCreating"

// next returns the container that runs or is next, with its status.
func (w *worker) next() (*corev1.Container, *containerStatus) {
	if w.init < len(w.inits) {
		return &w.pod.Spec.InitContainers[w.init], &w.inits[w.init]
	}
	return &w.pod.Spec.Containers[0], &w.status
}

// update keeps only the latest state. The agent's lock ensures a single sender.
func (w *worker) update(pod *corev1.Pod) {
	select {
	case <-w.latest:
	default:
	}
	w.latest <- pod
}

func (w *worker) run(ctx context.Context) {
	defer w.clean()
	if w.pod.Spec.NodeName == "" && !w.bind(ctx) {
		return
	}
	for {
		var exited <-chan struct{}
		if w.process != nil {
			exited = w.process.Done()
		}
		select {
		case <-ctx.Done():
			return
		case <-w.gone:
			return
		case pod := <-w.latest:
			w.pod = pod
			if pod.DeletionTimestamp != nil && !w.terminating {
				w.terminate()
			}
		case <-w.start.C:
			if !w.terminating {
				w.startContainer(ctx)
			}
		case p := <-w.probes:
			w.probed(ctx, p)
		case <-exited:
			w.exited()
		case <-w.repost:
		}
		if w.terminating && w.process == nil {
			w.post(ctx)
			w.finalizeDeletion(ctx)
			return
		}
		w.post(ctx)
	}
}

// clean stops everything that runs, however the worker ended.
func (w *worker) clean() {
	w.start.Stop()
	if w.stopProbes != nil {
		w.stopProbes()
	}
	if w.process != nil {
		w.process.Stop(0)
		<-w.process.Done()
	}
	// The volumes on the node's disk are kept, as on a real node.
	if err := os.RemoveAll(w.dir); err != nil {
		w.agent.opts.Log.Warn("removing a pod's directory", "pod", w.pod.Name, "error", err)
	}
}

// bind does the scheduler's part. It returns false if the pod is gone or bound to another node.
func (w *worker) bind(ctx context.Context) bool {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.pod.Namespace, Name: w.pod.Name, UID: w.pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: w.node},
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, apiLimit)
		err := w.agent.opts.Client.CoreV1().Pods(w.pod.Namespace).Bind(attempt, binding, metav1.CreateOptions{})
		cancel()
		switch {
		case err == nil:
			w.pod = w.pod.DeepCopy()
			w.pod.Spec.NodeName = w.node
			return true
		case apierrors.IsNotFound(err), apierrors.IsConflict(err):
			return false
		}
		w.agent.opts.Log.Warn("binding a pod", "pod", w.pod.Name, "node", w.node, "error", err)
		select {
		case <-w.gone:
			return false
		case <-ctx.Done():
			return false
		case <-time.After(retryAfter):
		}
	}
}

func (w *worker) startContainer(ctx context.Context) {
	if err := w.tryStart(ctx); err != nil {
		_, status := w.next()
		if status.waiting.Message != err.Error() {
			w.agent.opts.Log.Warn("starting a container", "pod", w.pod.Name, "node", w.node, "error", err)
		}
		status.waiting = &corev1.ContainerStateWaiting{Reason: creating, Message: err.Error()}
		w.start.Reset(retryAfter)
	}
}

func (w *worker) tryStart(ctx context.Context) error {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return fmt.Errorf("creating the pod's directory: %w", err)
	}
	if w.ip == "" {
		var ports []int32
		for _, c := range w.pod.Spec.Containers {
			for _, p := range c.Ports {
				ports = append(ports, p.ContainerPort)
			}
		}
		ip, err := w.agent.addresses.pod(w.nodeIndex, ports)
		if err != nil {
			return err
		}
		w.ip = ip
	}
	c, status := w.next()
	cmd, err := w.command(ctx, w.pod, c)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.terminationLog(c.Name), nil, 0o600); err != nil {
		return fmt.Errorf("creating the termination log: %w", err)
	}
	file := fmt.Sprintf("%s_%s_%s_%d.log", w.pod.Name, w.pod.UID[:8], c.Name, status.restarts)
	log := filepath.Join(w.agent.LogDir(w.node), file)
	process, err := w.agent.opts.Children.Start(w.pod.Name, cmd, log)
	if err != nil {
		return err
	}
	w.process = process
	status.running(process.PID())
	if w.init == len(w.inits) {
		w.startProbes(ctx)
	}
	return nil
}

func (w *worker) startProbes(ctx context.Context) {
	c := &w.pod.Spec.Containers[0]
	ctx, w.stopProbes = context.WithCancel(ctx)
	if c.StartupProbe != nil {
		go probe(ctx, startup, c.StartupProbe, c, w.ip, w.probes)
		return // the others begin when it has passed
	}
	w.startLaterProbes(ctx, c)
}

func (w *worker) startLaterProbes(ctx context.Context, c *corev1.Container) {
	w.status.started = true
	if c.LivenessProbe != nil {
		go probe(ctx, liveness, c.LivenessProbe, c, w.ip, w.probes)
	}
	if c.ReadinessProbe == nil {
		w.status.ready = true
		return
	}
	go probe(ctx, readiness, c.ReadinessProbe, c, w.ip, w.probes)
}

func (w *worker) probed(ctx context.Context, p probed) {
	if w.process == nil {
		return
	}
	switch {
	case p.kind == readiness:
		w.status.ready = p.passing
	case p.kind == startup && p.passing:
		w.stopProbes()
		ctx, w.stopProbes = context.WithCancel(ctx)
		w.startLaterProbes(ctx, &w.pod.Spec.Containers[0])
	case !p.passing && !w.terminating:
		w.agent.opts.Log.Warn("a probe failed: restarting the container", "pod", w.pod.Name, "message", p.message)
		w.process.Stop(w.grace())
	}
}

func (w *worker) grace() time.Duration {
	if s := w.pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// terminate begins the termination of the pod, with the deletion's grace period.
func (w *worker) terminate() {
	w.terminating, w.finished = true, true
	w.status.ready = false
	if w.process == nil {
		return
	}
	grace := w.grace()
	if s := w.pod.DeletionGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	w.process.Stop(grace)
}

// exited records the container's end, and decides what starts next and when.
func (w *worker) exited() {
	if w.stopProbes != nil {
		w.stopProbes()
	}
	code, signal := w.process.Exit()
	w.process = nil
	c, status := w.next()
	ran := status.terminated(code, signal)
	status.last.Message = w.terminationMessage(c.Name)
	initial := w.init < len(w.inits)
	if initial && code == 0 && !w.finished {
		status.ready = true
		w.init++
		w.backoff = 0
		w.start.Reset(0)
		return
	}
	policy := w.pod.Spec.RestartPolicy
	if policy == corev1.RestartPolicyNever || policy == corev1.RestartPolicyOnFailure && code == 0 {
		w.finished = true
	}
	if w.finished {
		return
	}
	w.backoff = min(max(2*w.backoff, firstBackoff), maxBackoff)
	if ran > calmAfter {
		w.backoff = firstBackoff
	}
	status.restarts++
	status.waiting = &corev1.ContainerStateWaiting{
		Reason:  "CrashLoopBackOff",
		Message: fmt.Sprintf("back-off %s restarting the container", w.backoff),
	}
	w.start.Reset(w.backoff)
}

// finalizeDeletion deletes the pod from the API once none of its processes runs.
func (w *worker) finalizeDeletion(ctx context.Context) {
	now := int64(0)
	for {
		attempt, cancel := context.WithTimeout(ctx, apiLimit)
		err := w.agent.opts.Client.CoreV1().Pods(w.pod.Namespace).Delete(attempt, w.pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &now,
			Preconditions:      &metav1.Preconditions{UID: &w.pod.UID},
		})
		cancel()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		w.agent.opts.Log.Warn("finishing a pod's deletion", "pod", w.pod.Name, "error", err)
		if !sleep(ctx, retryAfter) {
			return
		}
	}
}

// containerStatus is the state of a container.
type containerStatus struct {
	restarts  int32
	pid       int
	startedAt time.Time // zero if it does not run
	waiting   *corev1.ContainerStateWaiting
	last      *corev1.ContainerStateTerminated
	started   bool // the startup probe has passed
	ready     bool
}

func (s *containerStatus) running(pid int) {
	s.pid, s.startedAt, s.waiting = pid, time.Now(), nil
	s.started, s.ready = false, false
}

// terminated records the end of the container and returns how long it ran.
func (s *containerStatus) terminated(code int, signal syscall.Signal) time.Duration {
	reason := "Completed"
	if code != 0 {
		reason = "Error"
	}
	s.last = &corev1.ContainerStateTerminated{
		ExitCode: int32(code), Signal: int32(signal), Reason: reason,
		StartedAt: metav1.NewTime(s.startedAt), FinishedAt: metav1.Now(),
		ContainerID: s.containerID(),
	}
	ran := time.Since(s.startedAt)
	s.startedAt, s.started, s.ready = time.Time{}, false, false
	return ran
}

// failed reports whether the container's last run failed.
func (s *containerStatus) failed() bool { return s.last != nil && s.last.ExitCode != 0 }

func (s *containerStatus) containerID() string {
	if s.pid == 0 {
		return ""
	}
	return fmt.Sprintf("process://%d", s.pid)
}
