// Package agent simulates the scheduler and the kubelets in the demo and in tests of a whole fleet. It is not part of
// the operator.
//
// It registers Node objects. For each pod that is pinned to one of them, it binds the pod, runs its container's command
// as an ordinary process, probes it, writes the pod's status, restarts it with backoff, and honours deletion with its
// grace period. A real node uses namespaces and cgroups, which need root. The agent substitutes them as follows:
//
//   - mounts: a volume is a directory below the node's own directory. The container's paths to it are rewritten in the
//     command, the environment and the files of mounted ConfigMaps (paths.go). Nothing enforces read-only mounts and
//     subPaths.
//   - network: each pod has its own address in 127.0.0.0/8.
//   - resources: limits are not enforced, users not changed, and images not pulled. The base name of the command
//     selects a local program; an image may have programs of its own.
//
// It supports pods of one container with optional init containers, as the operator creates them. A pod that needs more
// stays in ContainerCreating, and its status says why.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
)

// Options configures an Agent.
type Options struct {
	// Client must be allowed to create nodes, bind pods and write their status.
	Client kubernetes.Interface
	// Nodes lists the names of the simulated nodes.
	Nodes []string
	// Labels are the labels of each Node object.
	Labels map[string]string
	// Dir holds all files of the nodes: their disks, and the pods' files and logs.
	Dir string
	// Programs maps the base name of a container's command to a local program.
	Programs map[string]string
	// Images maps images to programs that take the place of Programs in their containers.
	Images   map[string]map[string]string
	Children *child.Group
	Log      *slog.Logger
}

// Agent simulates the nodes.
type Agent struct {
	opts      Options
	addresses *addresses

	mu      sync.Mutex
	workers map[types.UID]*worker
	running sync.WaitGroup
}

// New returns an Agent. Call Register, then Run.
func New(o Options) *Agent {
	return &Agent{opts: o, addresses: newAddresses(), workers: map[types.UID]*worker{}}
}

// HostPath returns the path on this machine of a path on a node's disk.
func (a *Agent) HostPath(node, path string) string {
	return filepath.Join(a.opts.Dir, node, "disk", filepath.FromSlash(path))
}

// LogDir returns the directory of the logs of a node's containers.
func (a *Agent) LogDir(node string) string {
	return filepath.Join(a.opts.Dir, node, "logs")
}

// Register creates the Node objects. They are ready immediately.
func (a *Agent) Register(ctx context.Context) error {
	for i, node := range a.opts.Nodes {
		if err := a.register(ctx, node, i); err != nil {
			return err
		}
	}
	return nil
}

// Run serves the nodes' pods until ctx ends. Then it kills the running processes without updating the API objects.
func (a *Agent) Run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(a.opts.Client, 0)
	_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { a.observe(ctx, obj.(*corev1.Pod)) },
		UpdateFunc: func(_, obj any) { a.observe(ctx, obj.(*corev1.Pod)) },
		DeleteFunc: func(obj any) {
			if tombstone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = tombstone.Obj
			}
			a.gone(obj.(*corev1.Pod))
		},
	})
	if err != nil {
		return fmt.Errorf("watching pods: %w", err)
	}
	factory.StartWithContext(ctx)
	<-ctx.Done()
	factory.Shutdown()
	a.running.Wait()
	return nil
}

func (a *Agent) register(ctx context.Context, name string, index int) error {
	for _, dir := range []string{a.HostPath(name, "/"), a.LogDir(name)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("creating the directories of node %s: %w", name, err)
		}
	}
	labels := map[string]string{corev1.LabelHostname: name, corev1.LabelOSStable: "linux"}
	maps.Copy(labels, a.opts.Labels)
	nodes := a.opts.Client.CoreV1().Nodes()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	node, err := nodes.Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("registering node %s: %w", name, err)
	}
	now := metav1.Now()
	node.Status = corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "AgentReady",
			Message: "the demo's agent runs", LastHeartbeatTime: now, LastTransitionTime: now,
		}},
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: a.addresses.node(index)},
			{Type: corev1.NodeHostName, Address: name},
		},
		Capacity:    capacity(),
		Allocatable: capacity(),
		NodeInfo:    corev1.NodeSystemInfo{OperatingSystem: "linux", KubeletVersion: "v0.0.0-demo-agent"},
	}
	if _, err := nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("reporting node %s as ready: %w", name, err)
	}
	return nil
}

func capacity() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("16"),
		corev1.ResourceMemory: resource.MustParse("64Gi"),
		corev1.ResourcePods:   resource.MustParse("110"),
	}
}

// observe passes a pod's latest state to its worker, and starts a worker for a new pod.
func (a *Agent) observe(ctx context.Context, pod *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w, ok := a.workers[pod.UID]; ok {
		w.update(pod)
		return
	}
	node := nodeOf(pod)
	index := slices.Index(a.opts.Nodes, node)
	if index < 0 {
		return
	}
	w := newWorker(a, pod, node, index)
	a.workers[pod.UID] = w
	a.running.Go(func() { w.run(ctx) })
}

func (a *Agent) gone(pod *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w, ok := a.workers[pod.UID]; ok {
		close(w.gone)
		delete(a.workers, pod.UID)
	}
}

// nodeOf returns the node that the pod is bound to, or else the one that its required node affinity names, which is how
// DaemonSets and this operator pin pods.
func nodeOf(pod *corev1.Pod) string {
	if pod.Spec.NodeName != "" {
		return pod.Spec.NodeName
	}
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil ||
		pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	required := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	for _, term := range required.NodeSelectorTerms {
		for _, field := range term.MatchFields {
			if field.Key == metav1.ObjectNameField && field.Operator == corev1.NodeSelectorOpIn && len(field.Values) == 1 {
				return field.Values[0]
			}
		}
	}
	return ""
}

// apiLimit bounds one request, so that it cannot block a worker.
const apiLimit = 10 * time.Second
