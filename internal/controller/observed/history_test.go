package observed

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// pullFailed are the states that a kubelet reports alternately for a missing image.
var pullFailed = []corev1.ContainerStateWaiting{
	{Reason: "ErrImagePull", Message: `rpc error: code = NotFound desc = failed to pull and unpack image ` +
		`"registry.example/hlparser:none": ` +
		`failed to resolve reference "registry.example/hlparser:none": registry.example/hlparser:none: not found`},
	{Reason: "ImagePullBackOff", Message: `Back-off pulling image "registry.example/hlparser:none"`},
}

func waitingPod(init bool, w corev1.ContainerStateWaiting) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Name: "p"}}
	status := []corev1.ContainerStatus{{Name: "prepare", State: corev1.ContainerState{Waiting: &w}}}
	if pod.Status.InitContainerStatuses = status; !init {
		pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses = nil, status
	}
	return pod
}

func TestWhatKeepsAPodFromStarting(t *testing.T) {
	wait := func(reason, message string) corev1.ContainerStateWaiting {
		return corev1.ContainerStateWaiting{Reason: reason, Message: message}
	}
	for _, w := range append(slices.Clone(pullFailed),
		wait("InvalidImageName", `Failed to apply default image tag "registry.example/HL": couldn't parse image name `+
			`"registry.example/HL": `+
			`invalid reference format: repository name must be lowercase`),
		wait("ErrImageNeverPull", `Container image "hlparser:v1" is not present with pull policy of Never`),
		wait("CreateContainerConfigError", `configmap "mainnet-0123456789" not found`),
		wait("CreateContainerConfigError", `container has runAsNonRoot and image will run as root`),
		wait("CreateContainerError",
			`failed to generate container "abc" spec: failed to generate spec: no command specified`),
		wait("RunContainerError", `failed to create containerd task: failed to create shim task: OCI runtime create failed`),
		wait("CrashLoopBackOff", `back-off 10s restarting failed container=prepare pod=p_farm(u)`),
	) {
		for _, init := range []bool{true, false} {
			got := PlanPod(waitingPod(init, w)).Blocked
			if !strings.HasPrefix(got, w.Reason+": "+w.Message[:20]) || len(got) > maxBlocked {
				t.Errorf("%s: %q", w.Reason, got)
			}
		}
	}
	for _, w := range []corev1.ContainerStateWaiting{{}, {Reason: "ContainerCreating"}, {Reason: "PodInitializing"}} {
		if got := PlanPod(waitingPod(false, w)).Blocked; got != "" {
			t.Errorf("%s is on its way: %q", w.Reason, got)
		}
	}
}

func TestRestartsOfEveryContainerCount(t *testing.T) {
	for _, test := range []struct{ prepare, parser, want int32 }{{0, 0, 0}, {3, 0, 3}, {0, 2, 2}, {1, 1, 1}, {2, 5, 5}} {
		pod := &corev1.Pod{}
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "prepare", RestartCount: test.prepare}}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "hlparser", RestartCount: test.parser}}
		if got := PlanPod(pod).Restarts; got != int(test.want) {
			t.Errorf("%+v: %d", test, got)
		}
	}
}

// TestAgesAreThoseThatThisProcessHasSeen runs a pod through its life with a clock that differs from the API server's.
func TestAgesAreThoseThatThisProcessHasSeen(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, 0, time.Hour} {
		t.Run(fmt.Sprint(skew), func(t *testing.T) {
			var h History
			object := types.NamespacedName{Name: "mainnet"}
			at := func(d time.Duration) time.Time { return noon.Add(d) }
			look := func(now time.Time, pod *corev1.Pod) *Fleet {
				s := &Fleet{Now: now, Known: true, Targets: []target.Target{{Name: "n", Node: "n"}}, Pairs: []Pair{{"p", pod}}}
				if pod != nil {
					pod.CreationTimestamp = metav1.NewTime(noon.Add(skew))
					s.Pods = []corev1.Pod{*pod}
				}
				s.Ages = h.Observe(object, s)
				return s
			}
			want := func(what string, got, want time.Time) {
				t.Helper()
				if !got.Equal(want) {
					t.Errorf("%s: %s, want %s", what, got, want)
				}
			}
			s := look(at(0), nil)
			want("the target, without a pod", s.Ages.UnreadySince["n"], at(0))
			pod := waitingPod(true, corev1.ContainerStateWaiting{Reason: "PodInitializing"})
			s = look(at(time.Second), pod)
			p := s.PlanPod(pod)
			want("the target, with a new pod", s.Ages.UnreadySince["n"], at(0))
			want("the pod", p.FirstObserved, at(time.Second))

			for i, w := range pullFailed {
				pod = waitingPod(true, w)
				p = look(at(time.Duration(10+i)*time.Second), pod).PlanPod(pod)
				want("cannot start", p.BlockedSince, at(10*time.Second))
			}
			pod = waitingPod(true, corev1.ContainerStateWaiting{Reason: "PodInitializing"})
			look(at(20*time.Second), pod) // the kubelet tries again
			pod = waitingPod(true, pullFailed[0])
			p = look(at(21*time.Second), pod).PlanPod(pod)
			want("cannot start still", p.BlockedSince, at(10*time.Second))

			ready := &corev1.Pod{ObjectMeta: pod.ObjectMeta}
			ready.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue,
				LastTransitionTime: metav1.NewTime(noon.Add(skew))}}
			s = look(at(time.Minute), ready)
			p = s.PlanPod(ready)
			if _, ok := s.Ages.UnreadySince["n"]; ok || p.FirstObserved != at(time.Second) {
				t.Errorf("ready: %+v", p)
			}
			pod = waitingPod(true, pullFailed[0]) // after a boot, say
			p = look(at(2*time.Minute), pod).PlanPod(pod)
			want("cannot start again", p.BlockedSince, at(2*time.Minute))

			ending := waitingPod(true, pullFailed[0])
			ending.DeletionTimestamp = &metav1.Time{Time: noon.Add(skew)}
			look(at(3*time.Minute), ending)
			p = look(at(4*time.Minute), ending).PlanPod(ending)
			want("ending", p.TerminatingSince, at(3*time.Minute))

			// A pod of its kind comes: the target is without a ready one still. One that a rollout
			// has made begins from the start.
			other := waitingPod(true, pullFailed[0])
			other.UID = "other"
			s = look(at(5*time.Minute), other)
			want("the next pod", s.PlanPod(other).FirstObserved, at(5*time.Minute))
			want("the target", s.Ages.UnreadySince["n"], at(2*time.Minute))
			h.Renew(object, []plan.Action{{Kind: plan.Delete, Why: plan.WhyFailed, Target: "n"}}, at(6*time.Minute))
			want("replaced for its failure", look(at(6*time.Minute), other).Ages.UnreadySince["n"], at(2*time.Minute))
			h.Renew(object, []plan.Action{{Kind: plan.Delete, Why: plan.WhyOutdated, Target: "n"}}, at(7*time.Minute))
			want("replaced by a rollout", look(at(8*time.Minute), other).Ages.UnreadySince["n"], at(7*time.Minute))
			// Where its node takes none for a while, it begins from the start when it does again.
			waits := func(now time.Time, why string) *Fleet {
				s := &Fleet{Now: now, Known: true, Targets: []target.Target{{Name: "n", Node: "n", Waits: why}},
					Pairs: []Pair{{"p", other}}}
				other.Spec.NodeName, other.DeletionTimestamp = "n", &metav1.Time{Time: now}
				s.Pods, s.ReadyNodes = []corev1.Pod{*other}, map[string]bool{"n": why == ""}
				s.Ages = h.Observe(object, s)
				return s
			}
			s = waits(at(8*time.Minute+10*time.Second), target.NotReady)
			want("on a lost node", s.Ages.UnreadySince["n"], at(7*time.Minute))
			if p := s.PlanPod(other); !p.TerminatingSince.IsZero() {
				t.Errorf("nothing ends on a lost node: %s", p.TerminatingSince)
			}
			s = waits(at(8*time.Minute+20*time.Second), "")
			want("back again", s.Ages.UnreadySince["n"], at(8*time.Minute+20*time.Second))
			want("ending again", s.PlanPod(other).TerminatingSince, at(8*time.Minute+20*time.Second))
			// A pod that a rollout has taken down and that is no target is remembered as long as that is so.
			if got := h.MissingSince(object, []string{"a", "#b"}, at(0)); len(got) != 2 {
				t.Errorf("missing since %v", got)
			}
			got := h.MissingSince(object, []string{"#b", "c"}, at(time.Minute))
			want("missing", got["#b"], at(0))
			want("missing, too", got["c"], at(time.Minute))
			if _, ok := got["a"]; ok {
				t.Error("one that is back is missing still")
			}
			if len(look(at(9*time.Minute), nil).Ages.Pods) != 0 {
				t.Error("pods that are gone are remembered")
			}
			h.Forget(object)
			want("another object of that name", look(at(10*time.Minute), nil).Ages.UnreadySince["n"], at(10*time.Minute))
		})
	}
}
