package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/child"
	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/controlplane"
)

// What the simulated nodes say they are.
const (
	system       = "linux"
	architecture = "amd64"
)

const (
	namespace       = "hyperliquid"
	objectName      = "mainnet"
	systemNamespace = "hlparser-system"
	account         = "controller-manager"
	managerUser     = "system:serviceaccount:" + systemNamespace + ":" + account
	image           = "bench.example/hlparser:v1"
	roleLabel       = "hyperliquid.xyz/role"
	roleFleet       = "node"
	roleWarm        = "warm" // of one more node, on which what is measured warms up
)

// fleet is a running control plane with nodes, and a manager.
type fleet struct {
	options
	nodes    int
	dir      string
	children child.Group
	plane    *controlplane.ControlPlane
	client   client.WithWatch
	kubelets *kubelets
	second   int    // byte of the parsers' addresses
	control  string // address of the process that stands in for the parsers
	manager  *child.Child
	pprof    string // address of the manager's profiles
}

// measure runs one fleet from its start to its end.
func (o options) measure(ctx context.Context, nodes int) (_ figures, err error) {
	f := &fleet{options: o, nodes: nodes, dir: filepath.Join(o.dir, strconv.Itoa(nodes)), second: 64 + rand.IntN(128)}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		return figures{}, fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(f.dir)) }()
	defer f.children.Close(10 * time.Second)

	say("%d nodes: starting", nodes)
	if err := f.start(ctx); err != nil {
		return figures{}, err
	}
	ctx, stop := context.WithCancel(ctx)
	work, ctx := errgroup.WithContext(ctx)
	clients, err := f.clientset()
	if err != nil {
		stop()
		return figures{}, err
	}
	f.kubelets = newKubelets(clients, f.second, func(node int) {
		// A new process does not hang like the old one. An order that fails shows as a parser that goes on hanging.
		_ = order(ctx, "DELETE", f.control, node)
	})
	work.Go(func() error { return f.kubelets.run(ctx) })
	work.Go(func() error { return heartbeats(ctx, clients, nodes) })
	var result figures
	work.Go(func() error {
		defer stop()
		var err error
		result, err = f.run(ctx)
		return err
	})
	return result, work.Wait()
}

// run takes all figures, one after another.
func (f *fleet) run(ctx context.Context) (figures, error) {
	result := figures{nodes: f.nodes}
	var err error
	if result.ours, result.daemons, err = f.create(ctx); err != nil {
		return result, err
	}
	if err := f.settle(ctx); err != nil {
		return result, err
	}
	if result.rest, err = f.watchRest(ctx); err != nil {
		return result, err
	}
	if err := f.keep(ctx); err != nil {
		return result, err
	}
	if result.sweeps, err = f.sweep(ctx); err != nil {
		return result, err
	}
	if result.fault, err = f.fault(ctx); err != nil {
		return result, err
	}
	return result, nil
}

func (f *fleet) path(name string) string { return filepath.Join(f.dir, name) }

// start starts the control plane, makes the nodes, and starts what stands in for the parsers.
func (f *fleet) start(ctx context.Context) error {
	policy := `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
		"rules": [{"level": "Metadata", "users": ["` + managerUser + `", "` + daemonUser + `"]}, {"level": "None"}]}`
	if err := os.WriteFile(f.path("policy.yaml"), []byte(policy), 0o600); err != nil {
		return fmt.Errorf("writing the audit policy: %w", err)
	}
	var err error
	f.plane, err = controlplane.Start(ctx, controlplane.Options{
		Assets: f.assets, Dir: f.dir, Children: &f.children,
		APIServerFlags: []string{
			"--audit-policy-file=" + f.path("policy.yaml"), "--audit-log-path=" + f.path("audit.log"), "--delete-collection-workers=8",
		},
	})
	if err != nil {
		return fmt.Errorf("starting the control plane: %w", err)
	}
	config, err := f.config()
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	builder := runtime.NewSchemeBuilder(clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme)
	if err := builder.AddToScheme(scheme); err != nil {
		return fmt.Errorf("making a scheme: %w", err)
	}
	if f.client, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	if err := f.install(ctx); err != nil {
		return err
	}
	if err := f.makeNodes(ctx); err != nil {
		return err
	}
	return f.startParsers(ctx)
}

// config is the administrator's, without a limit of requests.
func (f *fleet) config() (*rest.Config, error) {
	config, err := f.plane.AdminConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	return config, nil
}

func (f *fleet) clientset() (kubernetes.Interface, error) {
	config, err := f.config()
	if err != nil {
		return nil, err
	}
	config.ContentType = runtime.ContentTypeProtobuf
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return clients, nil
}

// install makes what config/default does, but for the Deployment, which is a process here.
func (f *fleet) install(ctx context.Context) error {
	crd, role, lease := &apiextensionsv1.CustomResourceDefinition{}, &rbacv1.ClusterRole{}, &rbacv1.Role{}
	for path, into := range map[string]any{
		"config/crd/bases/fleet.hlparser.dev_hyperliquidparsers.yaml": crd,
		"config/rbac/role.yaml":                 role,
		"config/rbac/leader_election_role.yaml": lease,
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("reading what to install: %w", err)
		}
		if err := yaml.Unmarshal(text, into); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
	}
	lease.Namespace = systemNamespace
	subject := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: systemNamespace, Name: account}}
	in := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	objects := []client.Object{
		crd, role, &corev1.Namespace{ObjectMeta: in("", systemNamespace)}, &corev1.Namespace{ObjectMeta: in("", namespace)}, lease,
		&corev1.ServiceAccount{ObjectMeta: in(systemNamespace, account)},
		// What no controller makes here, and pods need.
		&corev1.ServiceAccount{ObjectMeta: in(namespace, "default")},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: in("", role.Name), Subjects: subject,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: in(systemNamespace, lease.Name), Subjects: subject,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: lease.Name},
		},
	}
	for _, obj := range objects {
		if err := f.client.Create(ctx, obj); err != nil {
			return fmt.Errorf("installing %T %s: %w", obj, obj.GetName(), err)
		}
	}
	return f.until(ctx, time.Minute, "the CRD is not served", func() (bool, error) {
		var list v1alpha1.HyperliquidParserList
		return f.client.List(ctx, &list) == nil, nil
	})
}

// until asks again until the condition holds.
func (f *fleet) until(ctx context.Context, limit time.Duration, complaint string, condition func() (bool, error)) error {
	for end := time.Now().Add(limit); ; {
		if ok, err := condition(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %s: %s", limit, complaint)
		}
	}
}

// makeNodes makes the fleet's nodes and the one to warm up with, as heavy as a kubelet makes them.
func (f *fleet) makeNodes(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(kubeletWorkers)
	for i := range f.nodes + 1 {
		work.Go(func() error {
			role := roleFleet
			if i == f.nodes {
				role = roleWarm
			}
			if err := f.client.Create(ctx, newNode(i, role)); err != nil {
				return fmt.Errorf("making node %d: %w", i, err)
			}
			return nil
		})
	}
	return work.Wait()
}

func newNode(i int, role string) *corev1.Node {
	name, now := nodeName(i), metav1.Now()
	labels := map[string]string{
		roleLabel: role, corev1.LabelHostname: name, corev1.LabelOSStable: system, corev1.LabelArchStable: architecture,
		corev1.LabelTopologyRegion: "ap-northeast-1", corev1.LabelTopologyZone: "ap-northeast-1a", corev1.LabelInstanceTypeStable: "m7i.8xlarge",
	}
	maps.Copy(labels, map[string]string{"beta.kubernetes.io/os": system, "beta.kubernetes.io/arch": architecture, "pool": "hyperliquid"})
	resources := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("128Gi"),
		corev1.ResourcePods:             resource.MustParse("110"),
		corev1.ResourceEphemeralStorage: resource.MustParse("2Ti"),
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: map[string]string{
			"node.alpha.kubernetes.io/ttl":                           "0",
			"volumes.kubernetes.io/controller-managed-attach-detach": "true",
		}},
		Spec: corev1.NodeSpec{ProviderID: "bench:///" + name},
		Status: corev1.NodeStatus{
			Capacity: resources, Allocatable: resources,
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}},
			NodeInfo: corev1.NodeSystemInfo{
				OperatingSystem: system, Architecture: architecture, KubeletVersion: "v1.37.2", KernelVersion: "6.12.0",
				OSImage: "Debian GNU/Linux 12", ContainerRuntimeVersion: "containerd://2.1.0",
			},
		},
	}
	for _, kind := range []corev1.NodeConditionType{
		corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure, corev1.NodeReady,
	} {
		is := corev1.ConditionFalse
		if kind == corev1.NodeReady {
			is = corev1.ConditionTrue
		}
		node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{
			Type: kind, Status: is, LastHeartbeatTime: now, LastTransitionTime: now, Reason: "KubeletHas", Message: "kubelet has what it needs",
		})
	}
	for n := range 30 {
		repository := fmt.Sprintf("registry.example/team-%d/service-%d", n%7, n)
		node.Status.Images = append(node.Status.Images, corev1.ContainerImage{SizeBytes: int64(n) << 20, Names: []string{
			repository + "@sha256:4b2f3c8a1d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8", repository + ":v1.2.3",
		}})
	}
	return node
}

// startParsers starts this program once more, to answer for all parsers.
func (f *fleet) startParsers(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	f.control = net.JoinHostPort("127.0.0.1", port)
	cmd, err := ownCommand(parsersCommand, "--nodes", strconv.Itoa(f.nodes+1), "--second", strconv.Itoa(f.second),
		"--streams", strconv.Itoa(f.streams), "--control", f.control)
	if err != nil {
		return err
	}
	parsers, err := f.children.Start("parsers", cmd, f.path("parsers.log"))
	if err != nil {
		return err
	}
	return parsers.WaitUntil(ctx, func(ctx context.Context) error { return order(ctx, "DELETE", f.control, 0) }, time.Minute)
}

// kubeconfig writes one for a service account, and returns its path.
func (f *fleet) kubeconfig(ctx context.Context, namespace, name string) (string, error) {
	day := int64(24 * time.Hour / time.Second)
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &day}}
	holder := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := f.client.SubResource("token").Create(ctx, holder, token); err != nil {
		return "", fmt.Errorf("requesting a token for %s: %w", name, err)
	}
	path := f.path(name + ".kubeconfig")
	return path, f.plane.WriteKubeconfig(path, token.Status.Token, namespace)
}

// startManager starts the manager, lets it make the pod of one node, and returns what that pod looks like.
func (f *fleet) startManager(ctx context.Context) (*corev1.PodSpec, error) {
	kubeconfig, err := f.kubeconfig(ctx, systemNamespace, account)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	f.pprof = net.JoinHostPort("127.0.0.1", port)
	f.manager, err = f.children.Start("manager", exec.Command(f.program,
		"--kubeconfig="+kubeconfig, "--parser-image="+image,
		"--leader-elect", "--leader-election-namespace="+systemNamespace, "--pprof-bind-address="+f.pprof,
		"--kube-api-qps="+strconv.Itoa(f.qps), "--kube-api-burst="+strconv.Itoa(f.burst)), f.path("manager.log"))
	if err != nil {
		return nil, err
	}

	warm := f.newObject("warm", roleWarm)
	if err := f.client.Create(ctx, warm); err != nil {
		return nil, fmt.Errorf("making an object to warm up with: %w", err)
	}
	var pods corev1.PodList
	err = f.until(ctx, 2*time.Minute, "the manager made no pod, see manager.log", func() (bool, error) {
		select {
		case <-f.manager.Done():
			log, _ := os.ReadFile(f.path("manager.log"))
			return false, fmt.Errorf("the manager ended: %s", log[max(len(log)-2000, 0):])
		default:
		}
		err := f.client.List(ctx, &pods, client.InNamespace(namespace))
		return len(pods.Items) == 1 && pods.Items[0].Status.Phase == corev1.PodRunning, err
	})
	if err != nil {
		return nil, err
	}
	if err := f.client.Delete(ctx, warm); err != nil {
		return nil, fmt.Errorf("deleting the object to warm up with: %w", err)
	}
	if err := f.clear(ctx, namespace); err != nil {
		return nil, err
	}
	return &pods.Items[0].Spec, nil
}

// clear deletes what belonged to an object that has been deleted, as the garbage collector would.
func (f *fleet) clear(ctx context.Context, namespace string) error {
	for _, kind := range []client.Object{&corev1.ConfigMap{}, &appsv1.ControllerRevision{}} {
		if err := f.client.DeleteAllOf(ctx, kind, client.InNamespace(namespace)); err != nil {
			return fmt.Errorf("deleting what belonged to a fleet: %w", err)
		}
	}
	return f.until(ctx, 10*time.Minute, "pods are still there", func() (bool, error) {
		err := f.client.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(namespace), client.GracePeriodSeconds(0))
		// One request deletes for a minute at most.
		if err != nil && !apierrors.IsTimeout(err) {
			return false, fmt.Errorf("deleting pods: %w", err)
		}
		created, _, _, err := f.kubelets.pods()
		return created == 0, err
	})
}

// ownCommand is this program with other arguments.
func ownCommand(args ...string) (*exec.Cmd, error) {
	own, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	return exec.Command(own, slices.Clone(args)...), nil
}

// freePort asks the kernel for one that nobody listens on.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	return strconv.Itoa(port), nil
}
