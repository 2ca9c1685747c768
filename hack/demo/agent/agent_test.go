//go:build unix

package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/agent"
	"github.com/hlparser/hyperliquid-parser-operator/hack/localcluster"
)

// program is the name of the program that the test's pods run.
const program = "standin"

// TestMain also implements the program that the test's pods run.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == program {
		if err := standin(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// standin serves its health until SIGTERM, and writes its inputs into a file. With "once" it only checks for a file and
// writes a termination message. POST /exit makes it exit with code 3, POST /sicken makes /healthz fail, and POST
// /deafen makes it ignore SIGTERM.
func standin(args []string) error {
	if args[0] == "once" {
		if err := os.WriteFile(args[2], []byte("checked below"), 0o600); err != nil {
			return err
		}
		_, err := os.Stat(filepath.Join(args[1], "go"))
		return err
	}
	config, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	inputs := strings.Join(append(args, "node="+os.Getenv("NODE_NAME"), "cpu="+os.Getenv("CPU"), string(config)), "\n")
	if err := os.WriteFile(filepath.Join(args[1], "inputs"), []byte(inputs), 0o644); err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	var sick, deaf atomic.Bool
	http.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	http.HandleFunc("POST /exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	http.HandleFunc("POST /sicken", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	http.HandleFunc("POST /deafen", func(http.ResponseWriter, *http.Request) { deaf.Store(true) })
	go func() {
		for range term {
			if !deaf.Load() {
				os.Exit(0)
			}
		}
	}()
	return http.ListenAndServe(args[2], nil)
}

// needAssets skips the test if there is no kube-apiserver; `make test` provides one.
func needAssets(t *testing.T) string {
	t.Helper()
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		t.Skip("KUBEBUILDER_ASSETS names no directory with etcd and kube-apiserver: run `make test`")
	}
	return assets
}

type cluster struct {
	*testing.T
	client kubernetes.Interface
	agent  *agent.Agent
}

func start(t *testing.T) *cluster {
	t.Helper()
	assets := needAssets(t)
	children := &child.Group{}
	t.Cleanup(func() { children.Close(10 * time.Second) })
	cp, err := localcluster.Start(t.Context(), localcluster.Options{
		Assets: assets, Dir: t.TempDir(), Children: children,
	})
	if err != nil {
		t.Fatal(err)
	}
	config, err := cp.AdminConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// No controller-manager creates it here.
	if _, err := client.CoreV1().ServiceAccounts("default").Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c := &cluster{T: t, client: client, agent: agent.New(agent.Options{
		Client: client, Nodes: []string{"node-a", "node-b"}, Labels: map[string]string{"role": "test"},
		Dir: t.TempDir(), Programs: map[string]string{program: self}, Children: children,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})}
	if err := c.agent.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c
}

// create creates a pod that is pinned to a node as the operator's pods are.
func (c *cluster) create(name, node string, change func(*corev1.Pod)) *corev1.Pod {
	c.Helper()
	directory := corev1.HostPathDirectory
	probe := &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")}},
		PeriodSeconds: 1, FailureThreshold: 1,
	}
	startup := probe.DeepCopy()
	startup.FailureThreshold = 30
	const configMap = "config"
	fieldRef := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	grace, noToken := int64(30), false
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			AutomountServiceAccountToken:  &noToken,
			Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
					NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{
						Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
					}}}},
				},
			}},
			Volumes: []corev1.Volume{
				{Name: configMap, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: configMap},
				}}},
				{Name: "data", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
					Path: "/home/hluser/hl/data", Type: &directory,
				}}},
			},
			Containers: []corev1.Container{{
				Name: program, Image: "none",
				Command: []string{"/standin"},
				Args:    []string{program, "/etc/standin/config.yaml", "/data", "$(POD_IP):9464"},
				Ports:   []corev1.ContainerPort{{Name: "http", ContainerPort: 9464}},
				Env: []corev1.EnvVar{
					{Name: "POD_IP", ValueFrom: fieldRef("status.podIP")},
					{Name: "NODE_NAME", ValueFrom: fieldRef("spec.nodeName")},
					{Name: "CPU", ValueFrom: &corev1.EnvVarSource{
						ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"},
					}},
				},
				Resources: corev1.ResourceRequirements{
					Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")},
				},
				VolumeMounts: []corev1.VolumeMount{
					{Name: configMap, MountPath: "/etc/standin"}, {Name: "data", MountPath: "/data", ReadOnly: true},
				},
				StartupProbe: startup, ReadinessProbe: probe, LivenessProbe: probe,
			}},
		},
	}
	if change != nil {
		change(pod)
	}
	pod, err := c.client.CoreV1().Pods("default").Create(c.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		c.Fatal(err)
	}
	return pod
}

// eventually waits until the pod satisfies a condition.
func (c *cluster) eventually(name, what string, wanted func(*corev1.Pod) bool) *corev1.Pod {
	c.Helper()
	var last *corev1.Pod
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
		pod, err := c.client.CoreV1().Pods("default").Get(c.Context(), name, metav1.GetOptions{})
		if err != nil {
			c.Fatal(err)
		}
		if last = pod; wanted(pod) {
			return pod
		}
	}
	c.Fatalf("pod %s is not %s: %+v", name, what, last.Status)
	return nil
}

func (c *cluster) eventuallyGone(name string) time.Duration {
	c.Helper()
	begin := time.Now()
	for time.Since(begin) < 30*time.Second {
		_, err := c.client.CoreV1().Pods("default").Get(c.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return time.Since(begin)
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.Fatalf("pod %s is still there", name)
	return 0
}

func (c *cluster) post(pod *corev1.Pod, path string) {
	c.Helper()
	response, err := http.Post("http://"+pod.Status.PodIP+":9464"+path, "", nil)
	if err == nil {
		_ = response.Body.Close()
	} else if path != "/exit" { // /exit ends the process before it answers
		c.Fatal(err)
	}
}

func (c *cluster) makeData(node string) string {
	c.Helper()
	dir := c.agent.HostPath(node, "/home/hluser/hl/data")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.Fatal(err)
	}
	return dir
}

func ready(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func TestPodsLifeOnASimulatedNode(t *testing.T) {
	c := start(t)
	if _, err := c.client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "config"},
		Data:       map[string]string{"config.yaml": "dataDir: /data\n"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	// A pod waits while its directory is missing, and starts once it exists.
	c.create("first", "node-a", nil)
	held := c.eventually("first", "held", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting.Message != ""
	})
	waiting := held.Status.ContainerStatuses[0].State.Waiting
	if held.Spec.NodeName != "node-a" || held.Status.Phase != corev1.PodPending ||
		!strings.Contains(waiting.Message, "/home/hluser/hl/data is not a directory") {
		t.Errorf("held pod: node %q, phase %s, waiting %+v", held.Spec.NodeName, held.Status.Phase, waiting)
	}
	data := c.makeData("node-a")
	first := c.eventually("first", "ready", ready)

	// The process has the inputs of its own node.
	inputs, err := os.ReadFile(filepath.Join(data, "inputs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"node=node-a", "cpu=2", first.Status.PodIP + ":9464", "dataDir: " + data} {
		if !strings.Contains(string(inputs), want) {
			t.Errorf("the inputs of the process are %q, want %q in them", inputs, want)
		}
	}

	// Another pod, on another node, has its own address.
	c.makeData("node-b")
	c.create("second", "node-b", nil)
	second := c.eventually("second", "ready", ready)
	if second.Status.PodIP == first.Status.PodIP {
		t.Errorf("both pods have %s", first.Status.PodIP)
	}

	// The process is restarted when it ends, and when its liveness probe fails.
	c.post(first, "/exit")
	c.eventually("first", "restarted after its end", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses[0]
		return ready(p) && s.RestartCount == 1 && s.LastTerminationState.Terminated.ExitCode == 3
	})
	c.post(first, "/sicken")
	c.eventually("first", "restarted by its probe", func(p *corev1.Pod) bool {
		return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 2
	})

	// Deletion sends SIGTERM, waits for the grace period, and kills.
	pods := c.client.CoreV1().Pods("default")
	if err := pods.Delete(t.Context(), "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if took := c.eventuallyGone("first"); took > 10*time.Second {
		t.Errorf("a pod that obeys SIGTERM was deleted after %v", took)
	}
	c.post(second, "/deafen")
	grace := int64(2)
	if err := pods.Delete(t.Context(), "second", metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
		t.Fatal(err)
	}
	if took := c.eventuallyGone("second"); took < time.Second || took > 10*time.Second {
		t.Errorf("a pod that ignores SIGTERM was deleted after %v, want its grace of 2 s", took)
	}
	if _, err := http.Get("http://" + second.Status.PodIP + ":9464/healthz"); err == nil {
		t.Error("the killed pod's process still answers")
	}

	// A pod that never started is deleted immediately, as is a pod deleted by force while it starts.
	c.create("impossible", "node-a", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"/bin/other"} })
	c.eventually("impossible", "held", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 &&
			strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Message, `no program "other"`)
	})
	if err := pods.Delete(t.Context(), "impossible", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventuallyGone("impossible")
	hurried := c.create("hurried", "node-b", nil)
	now := int64(0)
	if err := pods.Delete(t.Context(), "hurried", metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &hurried.UID},
	}); err != nil {
		t.Fatal(err)
	}
	c.eventuallyGone("hurried")
	c.create("hurried", "node-b", nil)
	c.eventually("hurried", "ready under the same name", ready)
}

// Init containers run before the container, and again until they succeed, in the subPath of a volume.
func TestAnInitContainerOnASimulatedNode(t *testing.T) {
	c := start(t)
	if _, err := c.client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "config"},
		Data:       map[string]string{"config.yaml": "dataDir: /data\n"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.makeData("node-b")
	c.create("prepared", "node-b", func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{
			Name: "init", Image: "none", Command: []string{"/standin", program, "once", "/below", "/dev/termination-log"},
			VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/below", SubPath: "a/b"}},
		}}
	})
	below := filepath.Join(c.agent.HostPath("node-b", "/home/hluser/hl/data"), "a", "b")
	c.eventually("prepared", "held by its init container", func(p *corev1.Pod) bool {
		if ready(p) {
			t.Fatal("the container runs before its init container has succeeded")
		}
		s := p.Status.InitContainerStatuses
		return len(s) == 1 && s[0].RestartCount > 0 && s[0].LastTerminationState.Terminated.ExitCode == 1 &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == "PodInitializing"
	})
	if err := os.WriteFile(filepath.Join(below, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	prepared := c.eventually("prepared", "ready", ready)
	if s := prepared.Status.InitContainerStatuses[0]; !s.Ready || s.State.Terminated == nil ||
		s.State.Terminated.ExitCode != 0 ||
		s.State.Terminated.Message != "checked below" {
		t.Errorf("the status of the init container is %+v", s)
	}
}
