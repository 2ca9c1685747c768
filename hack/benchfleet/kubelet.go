package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// kubelets simulates the scheduler and all kubelets. It binds each pod to the node that its affinity names. The pod
// runs immediately, at the address of the node's parser. A deleted pod ends immediately. It reads and writes only the
// minimum that a controller must see, so most of the machine is left for the measured programs.
type kubelets struct {
	client kubernetes.Interface
	second int // second byte of the pods' addresses
	ended  func(node int)

	work chan *corev1.Pod

	mu      sync.Mutex
	created sets.Set[types.UID]
	running map[types.UID]time.Time // when the status became Running
	failed  error
}

// kubeletWorkers is enough to keep the API server busy, and few enough not to overload it.
const kubeletWorkers = 12

func newKubelets(client kubernetes.Interface, second int, ended func(node int)) *kubelets {
	return &kubelets{
		client: client, second: second, ended: ended, work: make(chan *corev1.Pod, 4*maxNodes),
		created: sets.New[types.UID](), running: map[types.UID]time.Time{},
	}
}

// run does the work of the kubelets until the context ends.
func (k *kubelets) run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(k.client, 0,
		informers.WithTransform(func(obj any) (any, error) {
			if pod, ok := obj.(*corev1.Pod); ok {
				pod.ManagedFields = nil
				pod.Spec = corev1.PodSpec{NodeName: nodeOf(pod)}
				pod.Status = corev1.PodStatus{Phase: pod.Status.Phase}
			}
			return obj, nil
		}))
	_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { k.observe(obj) },
		UpdateFunc: func(_, obj any) { k.observe(obj) },
		DeleteFunc: func(obj any) { k.gone(obj) },
	})
	if err != nil {
		return fmt.Errorf("watching pods: %w", err)
	}
	factory.StartWithContext(ctx)
	var workers sync.WaitGroup
	for range kubeletWorkers {
		workers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case pod := <-k.work:
					k.fail(ctx, k.serve(ctx, pod))
				}
			}
		})
	}
	workers.Wait()
	factory.Shutdown()
	return nil
}

func (k *kubelets) fail(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil || apierrors.IsNotFound(err) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failed = errors.Join(k.failed, err)
}

// observe queues a new pod and a pod under deletion, each once.
func (k *kubelets) observe(obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" {
		return
	}
	k.mu.Lock()
	known := k.created.Has(pod.UID)
	if !known {
		k.created.Insert(pod.UID)
	}
	_, runs := k.running[pod.UID]
	k.mu.Unlock()
	if !known || runs && pod.DeletionTimestamp != nil {
		k.work <- pod
	}
}

func (k *kubelets) gone(obj any) {
	if tombstone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = tombstone.Obj
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.created.Delete(pod.UID)
		delete(k.running, pod.UID)
	}
}

// pods returns the number of pods, the number of running ones, and when the last of them started to run.
func (k *kubelets) pods() (created, running int, lastRunning time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.running {
		if t.After(lastRunning) {
			lastRunning = t
		}
	}
	return len(k.created), len(k.running), lastRunning, k.failed
}

func (k *kubelets) serve(ctx context.Context, pod *corev1.Pod) error {
	number, ok := nodeNumber(pod.Spec.NodeName)
	if !ok {
		return nil
	}
	pods := k.client.CoreV1().Pods(pod.Namespace)
	if pod.DeletionTimestamp != nil {
		k.ended(number)
		err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To[int64](0), Preconditions: &metav1.Preconditions{UID: &pod.UID},
		})
		if err != nil {
			return fmt.Errorf("ending pod %s: %w", pod.Name, err)
		}
		return nil
	}
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: pod.Spec.NodeName},
	}
	if err := pods.Bind(ctx, binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("binding pod %s: %w", pod.Name, err)
	}
	running, err := k.status(pod, number)
	if err != nil {
		return err
	}
	status, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": running})
	if err != nil {
		return fmt.Errorf("encoding the status of pod %s: %w", pod.Name, err)
	}
	if _, err := pods.Patch(ctx, pod.Name, types.MergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("writing the status of pod %s: %w", pod.Name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.created.Has(pod.UID) {
		k.running[pod.UID] = time.Now()
	}
	return nil
}

func (k *kubelets) status(pod *corev1.Pod, number int) (corev1.PodStatus, error) {
	key, err := podKey(number)
	if err != nil {
		return corev1.PodStatus{}, err
	}
	now, ip := metav1.Now(), address(k.second, number)
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, HostIP: ip, HostIPs: []corev1.HostIP{{IP: ip}}, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
		StartTime: &now,
		InitContainerStatuses: []corev1.ContainerStatus{{
			Name: "prepare", Ready: true, Started: ptr.To(false), ContainerID: "bench://prepare-" + string(pod.UID),
			Image: image, ImageID: image + "@sha256:2b1c",
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason: "Completed", Message: seal.Message(key.Public()), StartedAt: now, FinishedAt: now,
				ContainerID: "bench://prepare-" + string(pod.UID),
			}},
		}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: parserName, Ready: true, Started: ptr.To(true), ContainerID: "bench://" + string(pod.UID),
			Image: image, ImageID: image + "@sha256:2b1c",
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	for _, t := range []corev1.PodConditionType{
		corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady,
	} {
		status.Conditions = append(status.Conditions,
			corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	return status, nil
}

// nodeOf returns the node that a pod is bound to, or the one that its required affinity names.
func nodeOf(pod *corev1.Pod) string {
	if pod.Spec.NodeName != "" || pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil ||
		pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return pod.Spec.NodeName
	}
	for _, term := range pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, field := range term.MatchFields {
			if field.Key == metav1.ObjectNameField && len(field.Values) == 1 {
				return field.Values[0]
			}
		}
	}
	return ""
}

// heartbeats reports each node's status as often as an idle kubelet does, spread over the interval, until the context
// ends.
func heartbeats(ctx context.Context, client kubernetes.Interface, nodes int) error {
	const often = 5 * time.Minute
	ticker := time.NewTicker(often / time.Duration(nodes))
	defer ticker.Stop()
	for i := 0; ; i = (i + 1) % nodes {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()},
		}}})
		if err != nil {
			return fmt.Errorf("encoding a heartbeat: %w", err)
		}
		_, err = client.CoreV1().Nodes().Patch(ctx, nodeName(i), types.StrategicMergePatchType, patch,
			metav1.PatchOptions{}, "status")
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("reporting the status of node %s: %w", nodeName(i), err)
		}
	}
}
