package health_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

// limited returns a parser's pod with a memory limit of 512 MiB and the given container statuses.
func limited(init, container corev1.ContainerStatus) *corev1.Pod {
	limits := corev1.ResourceRequirements{
		Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")},
	}
	init.Name, container.Name, container.ContainerID = "prepare", v1alpha1.ContainerName, "c"
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: "u"},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "prepare"}},
			Containers:     []corev1.Container{{Name: "sidecar"}, {Name: v1alpha1.ContainerName, Resources: limits}},
		},
		Status: corev1.PodStatus{
			Phase:                 corev1.PodRunning,
			InitContainerStatuses: []corev1.ContainerStatus{init},
			ContainerStatuses:     []corev1.ContainerStatus{container},
		},
	}
}

func endedAs(reason string, code int32, message string) corev1.ContainerState {
	return corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code, Message: message},
	}
}

func waitsFor(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

const (
	crashLoop = `back-off 10s restarting failed container=hlparser ` +
		`pod=mainnet-0a1b2c3d4e_hyperliquid(6d7c0c5e-1f0a-4f0e-8f57-0c2f8a1f6f6a)`
	tail = "level=INFO msg=starting version=v1.4.0\nlevel=INFO msg=\"reading from the start\" stream=Fills\n" +
		"level=ERROR msg=\"the checkpoint cannot be written\" err=\"no space left on device\"\n"
	trace = "level=INFO msg=starting\npanic: runtime error: index out of range [7] with length 7\n\n" +
		"goroutine 41 [running]:\nmain.(*reader).next(...)\n\t/src/internal/parser/tail/read.go:214 +0x1d4\nexit status 2\n"
)

// The reason and the exit code come first, then the last line of output. The texts are those of kubelets 1.30 to 1.37
// with containerd.
func TestWhyAContainerDoesNotRunIsSaidFirst(t *testing.T) {
	done := corev1.ContainerStatus{State: endedAs("Completed", 0, "")}
	crashed := func(last corev1.ContainerState) corev1.ContainerStatus {
		return corev1.ContainerStatus{State: waitsFor("CrashLoopBackOff", crashLoop), LastTerminationState: last}
	}
	is := func(state corev1.ContainerState) corev1.ContainerStatus { return corev1.ContainerStatus{State: state} }
	const tooBig = `failed to create containerd task: failed to create shim task: OCI runtime create failed: ` +
		`runc create failed: unable to start container process: error during container init: ` +
		`exec: "/hlparser": stat /hlparser: no such file or directory`
	for name, test := range map[string]struct {
		pod    *corev1.Pod
		reason string
		want   string
	}{
		"out of memory": {limited(done, crashed(endedAs("OOMKilled", 137, tail))), "OOMKilled",
			`OOMKilled (limit 512Mi): level=ERROR msg="the checkpoint cannot be written" err="no space left on device"`},
		"out of memory, with nothing written": {
			limited(done, is(endedAs("OOMKilled", 137, ""))), "OOMKilled", "OOMKilled (limit 512Mi)",
		},
		"out of memory in a child": {
			limited(done, is(endedAs("OOMKilled", 1, ""))), "OOMKilled", "OOMKilled (limit 512Mi), exit 1",
		},
		"out of memory without a limit": {limited(
			is(endedAs("OOMKilled", 137, "")), is(waitsFor("PodInitializing", "")),
		), "OOMKilled",
			"prepare: OOMKilled"},
		"an error": {limited(done, is(endedAs("Error", 1, tail))), "CrashLoopBackOff",
			`exit 1: level=ERROR msg="the checkpoint cannot be written" err="no space left on device"`},
		"an error that waits to run again": {
			limited(done, crashed(endedAs("Error", 3, "one line"))), "CrashLoopBackOff", "exit 3: one line",
		},
		"an error before it runs once more": {limited(done, corev1.ContainerStatus{
			State: waitsFor("ContainerCreating", ""), LastTerminationState: endedAs("Error", 3, "one line"),
		}), "CrashLoopBackOff", "exit 3: one line"},
		"a panic": {
			limited(done, crashed(endedAs("Error", 2, trace))), "CrashLoopBackOff",
			"exit 2: panic: runtime error: index out of range [7] with length 7",
		},
		"killed": {
			limited(done, is(endedAs("Error", 137, ""))), "CrashLoopBackOff", "killed by signal 9",
		},
		"asked to end, and did not": {
			limited(done, is(endedAs("Error", 143, "bye"))), "CrashLoopBackOff", "killed by signal 15: bye",
		},
		"a status that is no signal": {limited(done, is(endedAs("Error", 255, ""))), "CrashLoopBackOff", "exit 255"},
		"its node booted": {
			limited(done, is(endedAs("Unknown", 255, ""))), "CrashLoopBackOff", "Unknown (exit 255)",
		},
		"ended as if that were right": {
			limited(done, is(endedAs("Completed", 0, "bye\n\n \n"))), "CrashLoopBackOff", "exit 0: bye",
		},
		"a signal that the runtime says": {limited(done,
			is(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason: "Error", ExitCode: 2, Signal: 6,
			}})), "CrashLoopBackOff", "killed by signal 6"},
		"cannot be started": {limited(done, is(endedAs("StartError", 128, tooBig))), "CrashLoopBackOff",
			"StartError (exit 128): failed to create containerd task: failed to create shim task: OCI runtime cr…" +
				`process: error during container init: exec: "/hlparser": stat /hlparser: no such file or directory`},
		"cannot be prepared": {limited(
			is(endedAs("Error", 1, "mkdir /state: read-only file system\n")), is(waitsFor("PodInitializing", "")),
		),
			"CrashLoopBackOff", "prepare: exit 1: mkdir /state: read-only file system"},
		"cannot be mapped": {limited(
			done, is(waitsFor("CreateContainerConfigError", `secret "nats-creds" not found`)),
		), "CreateContainerConfigError",
			`CreateContainerConfigError: secret "nats-creds" not found`},
		"cannot be pulled": {
			limited(done, is(waitsFor("ErrImagePull", `pull access denied`))), "ImagePullBackOff",
			"ImagePullBackOff: pull access denied",
		},
		"is being made": {limited(done, is(waitsFor("ContainerCreating", ""))), "ContainerCreating", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := health.StateOf(test.pod)
			if got.Reason != test.reason || got.Detail != test.want {
				t.Errorf("got %q, %q, want %q, %q", got.Reason, got.Detail, test.reason, test.want)
			}
			if len(got.Detail) > 200 || strings.ContainsAny(got.Detail, "\n\t") {
				t.Errorf("%q is not one line of 200 bytes", got.Detail)
			}
		})
	}
	evicted := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted",
		Message: "The node was low on resource: memory. Threshold quantity: 100Mi, available: 88Mi. "}}
	if got, want := health.StateOf(
		evicted,
	).Detail, "Evicted: The node was low on resource: memory. Threshold quantity: 100Mi, available: 88Mi."; got != want {
		t.Errorf("evicted: got %q, want %q", got, want)
	}
}

func TestWhatHasNeverRunIsUnstarted(t *testing.T) {
	done := corev1.ContainerStatus{State: endedAs("Completed", 0, "")}
	is := func(state corev1.ContainerState) corev1.ContainerStatus { return corev1.ContainerStatus{State: state} }
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"without a status":      {&corev1.Pod{}, true},
		"without a state":       {limited(done, is(corev1.ContainerState{})), true},
		"being made":            {limited(done, is(waitsFor("ContainerCreating", ""))), true},
		"behind one being made": {limited(is(waitsFor("ContainerCreating", "")), is(waitsFor("PodInitializing", ""))), true},
		"being pulled":          {limited(done, is(waitsFor("ImagePullBackOff", ""))), true},
		"behind one that fails": {limited(is(endedAs("Error", 1, "")), is(waitsFor("PodInitializing", ""))), false},
		"running":               {limited(done, is(running)), false},
		"crashed":               {limited(done, is(endedAs("Error", 1, ""))), false},
		"crashed and waiting": {limited(done, corev1.ContainerStatus{
			State: waitsFor("CrashLoopBackOff", crashLoop), LastTerminationState: endedAs("Error", 1, ""),
		}), false},
		"evicted": {&corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := health.StateOf(test.pod).Unstarted; got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// The verdict lasts until polls are clean, and its message is true: the container runs.
func TestAContainerThatRunsAgainDidNotRunUntil(t *testing.T) {
	var tracker health.Tracker
	clock := noon
	see := func(container string, state, last corev1.ContainerState) health.Judgement {
		t.Helper()
		clock = clock.Add(10 * time.Second)
		pod := limited(
			corev1.ContainerStatus{State: endedAs("Completed", 0, "")},
			corev1.ContainerStatus{State: state, LastTerminationState: last},
		)
		pod.Status.ContainerStatuses[0].ContainerID = container
		pod.CreationTimestamp = metav1.NewTime(noon)
		before := tracker.Judgement()
		changed := tracker.ObservePod(health.StateOf(pod), clock, health.Settings{PollInterval: 5 * time.Second})
		if got := tracker.Judgement(); changed != (got != before) {
			t.Errorf("it reports %v, from %+v to %+v", changed, before, got)
		}
		return tracker.Judgement()
	}
	runs := func(at time.Time) corev1.ContainerState {
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(at)}}
	}
	none := corev1.ContainerState{}
	is := func(got health.Judgement, want string) {
		t.Helper()
		if got.Verdict != health.NotRunning || got.Message != want {
			t.Errorf("got %+v, want %q", got, want)
		}
	}
	see("a", runs(noon), none)
	killed := endedAs("OOMKilled", 137, tail)
	const outOfMemory = `OOMKilled (limit 512Mi): level=ERROR msg="the checkpoint cannot be written" ` +
		`err="no space left on device"`
	is(see("a", killed, none), outOfMemory)
	began := time.Date(2026, 5, 1, 21, 11, 41, 0, time.FixedZone("CEST", 2*60*60))
	is(see("b", runs(began), killed), "not running until 19:11:41 UTC: "+outOfMemory)
	is(see("b", runs(began), killed), "not running until 19:11:41 UTC: "+outOfMemory)
	again := endedAs("OOMKilled", 137, "killed while it read\n")
	is(see("b", waitsFor("CrashLoopBackOff", crashLoop), again), "OOMKilled (limit 512Mi): killed while it read")
	is(see("b", waitsFor("CrashLoopBackOff", crashLoop), again), "OOMKilled (limit 512Mi): killed while it read")
	is(
		see("c", runs(began.Add(time.Minute)), again),
		"not running until 19:12:41 UTC: OOMKilled (limit 512Mi): killed while it read",
	)
}
