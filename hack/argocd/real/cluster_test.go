// Package real tests what config/argocd holds in a real Argo CD, against a real control plane with the operator and a
// fleet of real parsers: processes on loopback, as in the demo. `make test-argocd` builds what it needs and runs it.
// It must never touch a cluster that it has not started itself.
package real

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/agent"
	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
	"github.com/hlparser/hyperliquid-parser-operator/hack/localcluster"
	"github.com/hlparser/hyperliquid-parser-operator/hack/nats/broker"
)

// Names in the git repository, in config/default and in the simulated nodes.
const (
	root            = "../../.."
	fleetNamespace  = "hyperliquid"
	fleetName       = "mainnet"
	systemNamespace = "hyperliquid-parser-operator-system"
	operatorAccount = "hyperliquid-parser-operator-controller-manager"
	dataPath        = "/home/hluser/hl/data"
	nodes           = 4
	reportPort      = 9464
)

// Limits of waiting. The machine may be compiling meanwhile.
const (
	soon  = 30 * time.Second
	whole = 3 * time.Minute
)

// cluster is a control plane with simulated nodes, whose pods are processes, and a NATS server for them.
type cluster struct {
	dir      string
	cp       *localcluster.ControlPlane
	client   client.WithWatch
	kube     kubernetes.Interface
	agent    *agent.Agent
	nodes    []string
	broker   *broker.Server
	children *child.Group
	out      io.Writer // for what the test prints as it goes
}

// newCluster starts all but the operator, whose rights come from git.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		t.Fatal("KUBEBUILDER_ASSETS names no directory with etcd, kube-apiserver and kube-controller-manager")
	}
	dir, err := os.MkdirTemp("", "hlparser-argocd-")
	noError(t, err)
	c := &cluster{dir: dir, children: &child.Group{}, out: io.Discard}
	t.Cleanup(func() {
		c.children.Close(5 * time.Second)
		if t.Failed() {
			t.Logf("data and logs are in %s", dir)
			return
		}
		noError(t, os.RemoveAll(dir))
	})
	noError(t, agent.CheckAddresses())

	c.cp, err = localcluster.Start(t.Context(), localcluster.Options{
		Assets: assets, Dir: c.mkdir(t, "control-plane"), ControllerManager: true, Children: c.children,
	})
	noError(t, err)
	config, err := c.cp.AdminConfig()
	noError(t, err)
	scheme := runtime.NewScheme()
	builder := runtime.NewSchemeBuilder(clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme)
	noError(t, builder.AddToScheme(scheme))
	c.client, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	noError(t, err)
	c.kube, err = kubernetes.NewForConfig(config)
	noError(t, err)

	natsServer, _, err := broker.Build(t.Context(), broker.Newest, dir)
	noError(t, err)
	c.broker, err = broker.Start(t.Context(), broker.Options{Program: natsServer, Dir: c.mkdir(t, "nats")})
	noError(t, err)
	t.Cleanup(c.broker.Close)
	c.startNodes(t, build(t, dir, "./cmd/hlparser", "-tags=faultinject"))
	c.startTraffic(t)
	return c
}

func (c *cluster) startNodes(t *testing.T, parser string) {
	t.Helper()
	log, err := os.Create(filepath.Join(c.dir, "agent.log"))
	noError(t, err)
	for i := range nodes {
		c.nodes = append(c.nodes, fmt.Sprintf("node-%d", i+1))
	}
	c.agent = agent.New(agent.Options{
		Client: c.kube, Nodes: c.nodes, Labels: map[string]string{"hyperliquid.xyz/network": "mainnet"},
		Dir: c.mkdir(t, "nodes"), Programs: map[string]string{"hlparser": parser}, Children: c.children,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	for _, node := range c.nodes {
		noError(t, os.MkdirAll(c.agent.HostPath(node, dataPath), 0o755))
	}
	noError(t, c.agent.Register(t.Context()))
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- c.agent.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		noError(t, errors.Join(<-ended, log.Close()))
	})
}

// startTraffic lets each node write a little of two streams until the test ends. An hour of theirs takes 15 seconds.
func (c *cluster) startTraffic(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var group errgroup.Group
	clock := gen.Clock{Start: time.Now().UTC().Truncate(24 * time.Hour), HourEvery: 15 * time.Second}
	for i, node := range c.nodes {
		for j, source := range []gen.Source{
			{Stream: gen.OrderStatuses, Mode: gen.Line}, {Stream: gen.Fills, Mode: gen.ByBlock},
		} {
			const rate = 20 // lines per second
			g, err := gen.New(gen.Options{Source: source, Seed: uint64(10*i + j), EventsPerBlock: 2})
			noError(t, err)
			w := gen.NewWriter(c.agent.HostPath(node, dataPath), source, g, gen.WriterOptions{BufferSize: 512})
			group.Go(func() error { return errors.Join(gen.Pace(ctx, w, clock, rate, 0), w.Close()) })
		}
	}
	t.Cleanup(func() {
		stop()
		noError(t, group.Wait())
	})
}

// startOperator runs the manager as the service account that Argo CD has created, with no other rights.
func (c *cluster) startOperator(t *testing.T) {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: operatorAccount}}
	request := &authenticationv1.TokenRequest{}
	noError(t, c.client.SubResource("token").Create(t.Context(), account, request))
	kubeconfig := filepath.Join(c.dir, "operator.kubeconfig")
	noError(t, c.cp.WriteKubeconfig(kubeconfig, request.Status.Token, systemNamespace))
	cmd := exec.Command(build(t, c.dir, "./cmd/manager"),
		"--kubeconfig="+kubeconfig, "--leader-elect", "--leader-election-namespace="+systemNamespace,
		"--parser-image=hyperliquid-parser-operator:demo",
		"--metrics-bind-address=0", "--health-probe-bind-address=0")
	cmd.Env = []string{}
	_, err := c.children.Start("the operator", cmd, filepath.Join(c.dir, "operator.log"))
	noError(t, err)
}

func (c *cluster) mkdir(t *testing.T, name ...string) string {
	t.Helper()
	dir := filepath.Join(append([]string{c.dir}, name...)...)
	noError(t, os.MkdirAll(dir, 0o700))
	return dir
}

// fleet returns the HyperliquidParser as it is stored.
func (c *cluster) fleet(t *testing.T) *v1alpha1.HyperliquidParser {
	t.Helper()
	return c.hlp(t, fleetName)
}

func (c *cluster) hlp(t *testing.T, name string) *v1alpha1.HyperliquidParser {
	t.Helper()
	obj := &v1alpha1.HyperliquidParser{}
	noError(t, c.client.Get(t.Context(), client.ObjectKey{Namespace: fleetNamespace, Name: name}, obj))
	return obj
}

// pods returns the fleet's pods that are not about to go.
func (c *cluster) pods(t *testing.T) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	noError(t, c.client.List(t.Context(), &list, client.InNamespace(fleetNamespace)))
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// podOf returns the pod of a node, or nil.
func (c *cluster) podOf(t *testing.T, node string) *corev1.Pod {
	t.Helper()
	for _, p := range c.pods(t) {
		if p.Spec.NodeName == node {
			return &p
		}
	}
	return nil
}

// signal sends a signal to a pod's parser if it runs.
func signal(t *testing.T, pod *corev1.Pod, s syscall.Signal) {
	t.Helper()
	for _, status := range pod.Status.ContainerStatuses {
		id, ok := strings.CutPrefix(status.ContainerID, "process://")
		if !ok || status.State.Running == nil {
			continue
		}
		pid, err := strconv.Atoi(id)
		noError(t, err)
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
}

// crash lets a parser that is ready end once, as a panic of Go does.
func crash(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	for _, status := range pod.Status.ContainerStatuses {
		if status.Ready && status.RestartCount == 0 {
			signal(t, pod, syscall.SIGABRT)
		}
	}
}

// apply applies the objects of a YAML stream as an administrator does.
func (c *cluster) apply(t *testing.T, manifests []byte) {
	t.Helper()
	for _, obj := range objects(t, manifests) {
		c.applyObject(t, obj)
	}
}

func (c *cluster) applyObject(t *testing.T, obj *unstructured.Unstructured) {
	t.Helper()
	noError(t, c.client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(obj),
		client.FieldOwner("administrator"), client.ForceOwnership))
}

// objects decodes a YAML stream.
func objects(t *testing.T, manifests []byte) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	for {
		obj := &unstructured.Unstructured{}
		err := decoder.Decode(&obj.Object)
		if errors.Is(err, io.EOF) {
			return out
		}
		noError(t, err)
		if len(obj.Object) > 0 {
			out = append(out, obj)
		}
	}
}

// build compiles a program of this module.
func build(t *testing.T, dir, pkg string, flags ...string) string {
	t.Helper()
	program := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"build", "-o", program}, flags...), pkg)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, out)
	}
	return program
}

func read(t *testing.T, elem ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(elem...))
	noError(t, err)
	return text
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within polls until there is no error, and returns how long that took. It fails with the last error after the limit.
func within(t *testing.T, limit time.Duration, check func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		err := check()
		if err == nil {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			t.Fatalf("after %s: %v", limit, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
