package controller

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// heavyPod is a pod of ours with all that a real one has.
func heavyPod(t *testing.T) *corev1.Pod {
	t.Helper()
	obj := &v1alpha1.HyperliquidParser{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "mainnet", UID: "owner"}}
	obj.Spec.Target.Nodes = &v1alpha1.NodeTarget{DataPath: "/data"}
	obj.Spec.Streams = []v1alpha1.Stream{{Name: "Fills"}}
	obj.Spec.Sink.Stdout = &v1alpha1.StdoutSink{}
	revision, err := podspec.NewRevision(obj, "image:v1", "cluster")
	if err != nil {
		t.Fatal(err)
	}
	pod := revision.Pod(client.ObjectKeyFromObject(obj), target.Target{Name: "node", Node: "node"}, "")
	pod.UID, pod.ResourceVersion, pod.CreationTimestamp = "uid", "7", metav1.NewTime(noon)
	pod.OwnerReferences = []metav1.OwnerReference{{Name: "mainnet", UID: "owner", Controller: ptr.To(true)}}
	pod.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "manager"}}
	pod.Spec.NodeName = "node"
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: "10.0.0.7", PodIPs: []corev1.PodIP{{IP: "10.0.0.7"}}, HostIP: "10.0.0.1",
		StartTime: ptr.To(metav1.NewTime(noon)), QOSClass: corev1.PodQOSBurstable,
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon.Add(time.Minute))},
		},
		InitContainerStatuses: []corev1.ContainerStatus{{
			Name: "prepare", Image: "image:v1", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Message: seal.Message(seal.PublicKey{7}),
			}},
		}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: v1alpha1.ContainerName, ContainerID: "x://1", Image: "image:v1", ImageID: "sha256:1", Ready: true,
			RestartCount: 2,
			State:        corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(noon)}},
		}},
	}
	return pod
}

func TestWhatIsCachedOfAPodIsEnoughForPlanAndVerdict(t *testing.T) {
	running := func(pod *corev1.Pod) *corev1.ContainerStatus { return &pod.Status.ContainerStatuses[0] }
	for name, change := range map[string]func(*corev1.Pod){
		"runs":        func(*corev1.Pod) {},
		"terminating": func(pod *corev1.Pod) { pod.DeletionTimestamp = ptr.To(metav1.NewTime(noon)) },
		"evicted": func(pod *corev1.Pod) {
			pod.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "disk pressure"}
		},
		"unschedulable": func(pod *corev1.Pod) {
			pod.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
				Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "no room",
			}}}
		},
		"crashes": func(pod *corev1.Pod) {
			running(pod).State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
			running(pod).LastTerminationState = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason: "OOMKilled"}}
		},
		"cannot prepare": func(pod *corev1.Pod) {
			pod.Status.InitContainerStatuses[0].State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error",
				Message: "read-only"}
		},
		"of another config": func(pod *corev1.Pod) { pod.Spec.Volumes = nil },
		"beside a pod": func(pod *corev1.Pod) {
			pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			whole := heavyPod(t)
			change(whole)
			got, err := slimPod(whole.DeepCopy())
			if err != nil {
				t.Fatal(err)
			}
			slim := got.(*corev1.Pod)
			type looked struct {
				Plan   plan.Pod
				State  health.PodState
				Config string
				Claim  string
				IP     string
				Owned  bool
				Sealed bool
				Key    seal.PublicKey
			}
			look := func(pod *corev1.Pod) looked {
				owner := &v1alpha1.HyperliquidParser{ObjectMeta: metav1.ObjectMeta{UID: "owner"}}
				return looked{
					observed.PlanPod(pod), health.StateOf(pod), podspec.ConfigOf(pod), podspec.DataClaim(pod), pod.Status.PodIP,
					metav1.IsControlledBy(pod, owner),
					podspec.Sealed(pod), podspec.PublicKey(pod),
				}
			}
			if got, want := look(slim), look(whole); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if slim.ResourceVersion != "7" {
				t.Error("the version is gone, by which the operator sees its own writes")
			}
			before, after := whole.Size(), slim.Size()
			if after > before/2 {
				t.Errorf("%d bytes are left of %d", after, before)
			}
		})
	}
}

func TestWhatIsCachedOfANodeIsEnoughForTargets(t *testing.T) {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node", UID: "uid", ResourceVersion: "7",
			Labels: map[string]string{"role": "node"}},
		Spec: corev1.NodeSpec{Unschedulable: true,
			Taints: []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoExecute}}},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeDiskPressure},
				{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Message: "x"}},
			Images:   make([]corev1.ContainerImage, 50),
			NodeInfo: corev1.NodeSystemInfo{BootID: "boot", KernelVersion: "x"},
		},
	}
	got, err := slimNode(node.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	slim := got.(*corev1.Node)
	selection, err := target.NewNodes(metav1.LabelSelector{MatchLabels: node.Labels}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	targets, want := selection.Targets([]corev1.Node{*slim}), selection.Targets([]corev1.Node{*node})
	if !slices.Equal(targets, want) {
		t.Errorf("got %v, want %v", targets, want)
	}
	if target.Changed(node, slim) || slim.ResourceVersion != "7" || len(slim.Status.Images) > 0 {
		t.Errorf("got %+v", slim)
	}
}
