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
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
	"github.com/hlparser/hyperliquid-parser-operator/hack/localcluster"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// Platform of the simulated nodes.
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
	roleWarm        = "warm" // of one more node for warming up
)

// fleet is a running control plane with nodes and a manager.
type fleet struct {
	options
	nodes    int
	dir      string
	children child.Group
	plane    *localcluster.ControlPlane
	client   client.WithWatch
	kubelets *kubelets
	second   int    // second byte of the parsers' addresses
	control  string // address of the process that simulates the parsers
	manager  *child.Child
	pprof    string // address of the manager's profiles
}

// measure runs one fleet from start to end.
func (o options) measure(ctx context.Context, nodes int) (_ figures, err error) {
	f := &fleet{options: o, nodes: nodes, dir: filepath.Join(o.dir, strconv.Itoa(nodes)), second: 64 + rand.IntN(128)}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		return figures{}, fmt.Errorf("creating a directory: %w", err)
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
		// A new process does not hang like the old one. If the order fails, the parser visibly keeps hanging.
		_ = order(ctx, "DELETE", f.control, node)
	})
	work.Go(func() error { return f.kubelets.run(ctx) })
	work.Go(func() error { return heartbeats(ctx, clients, f.allNodes()) })
	var result figures
	work.Go(func() error {
		defer stop()
		var err error
		result, err = f.run(ctx)
		return err
	})
	return result, work.Wait()
}

// run takes all measurements in order.
func (f *fleet) run(ctx context.Context) (figures, error) {
	result := figures{nodes: f.nodes}
	var err error
	if result.byOperator, result.daemons, err = f.create(ctx); err != nil {
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
	result.beside, err = f.beside(ctx)
	return result, err
}

func (f *fleet) path(name string) string { return filepath.Join(f.dir, name) }

// start starts the control plane, creates the nodes, and starts the process that simulates the parsers.
func (f *fleet) start(ctx context.Context) error {
	policy := `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
		"rules": [{"level": "Metadata", "users": ["` + managerUser + `", "` + daemonUser + `"]}, {"level": "None"}]}`
	if err := os.WriteFile(f.path("policy.yaml"), []byte(policy), 0o600); err != nil {
		return fmt.Errorf("writing the audit policy: %w", err)
	}
	var err error
	f.plane, err = localcluster.Start(ctx, localcluster.Options{
		Assets: f.assets, Dir: f.dir, Children: &f.children,
		APIServerFlags: []string{
			"--audit-policy-file=" + f.path("policy.yaml"), "--audit-log-path=" + f.path("audit.log"),
			"--delete-collection-workers=8",
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
		return fmt.Errorf("creating a scheme: %w", err)
	}
	if f.client, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("creating a client: %w", err)
	}
	if err := f.install(ctx); err != nil {
		return err
	}
	if err := f.makeNodes(ctx); err != nil {
		return err
	}
	return f.startParsers(ctx)
}

// config returns the administrator's configuration without a request limit.
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
		return nil, fmt.Errorf("creating a client: %w", err)
	}
	return clients, nil
}

// install creates the objects of config/default, except the Deployment, which is a process here.
func (f *fleet) install(ctx context.Context) error {
	crd, role := &apiextensionsv1.CustomResourceDefinition{}, &rbacv1.ClusterRole{}
	lease, own := &rbacv1.Role{}, &rbacv1.Role{}
	for path, into := range map[string]any{
		"config/crd/bases/fleet.hlparser.dev_hyperliquidparsers.yaml": crd,
		"config/rbac/role.yaml":                 role,
		"config/rbac/leader_election_role.yaml": lease,
		"config/rbac/keys_role.yaml":            own,
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("reading the manifests: %w", err)
		}
		if err := yaml.Unmarshal(text, into); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
	}
	lease.Namespace, own.Namespace = systemNamespace, systemNamespace
	secret, err := f.makeKeys()
	if err != nil {
		return err
	}
	subject := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: systemNamespace, Name: account}}
	in := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	objects := []client.Object{
		crd, role, &corev1.Namespace{ObjectMeta: in("", systemNamespace)}, &corev1.Namespace{ObjectMeta: in("", namespace)},
		lease, own, secret,
		&corev1.ServiceAccount{ObjectMeta: in(systemNamespace, account)},
		// Pods need this account, and no controller creates it here.
		&corev1.ServiceAccount{ObjectMeta: in(namespace, "default")},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: in("", role.Name), Subjects: subject,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: in(systemNamespace, lease.Name), Subjects: subject,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: lease.Name},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: in(systemNamespace, own.Name), Subjects: subject,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: own.Name},
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

// makeKeys creates the operator's keys, which the operator would create itself. The process that simulates parsers
// needs the public key, and the sweep process the private one.
func (f *fleet) makeKeys() (*corev1.Secret, error) {
	key, err := seal.NewKey()
	if err != nil {
		return nil, err
	}
	for file, text := range map[string]string{
		f.operators():   seal.FormatOperators([]seal.PublicKey{key.Public()}, []string{""}),
		f.operatorKey(): key.Private(),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("writing the operator's keys: %w", err)
		}
	}
	ring := keys.Ring{{Key: key, Created: time.Now()}}
	return ring.Secret(types.NamespacedName{Namespace: systemNamespace, Name: keys.SecretName}), nil
}

func (f *fleet) operators() string   { return f.path("operators") }
func (f *fleet) operatorKey() string { return f.path("operator-key") }

// until polls until the condition holds.
func (f *fleet) until(
	ctx context.Context, limit time.Duration, complaint string, condition func() (bool, error),
) error {
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

// makeNodes creates the nodes of the fleet, of the warm-up and of the small objects. They are as large as a kubelet's.
func (f *fleet) makeNodes(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(kubeletWorkers)
	for i := range f.allNodes() {
		work.Go(func() error {
			if err := f.client.Create(ctx, newNode(i, f.roleOf(i))); err != nil {
				return fmt.Errorf("creating node %d: %w", i, err)
			}
			return nil
		})
	}
	return work.Wait()
}

func newNode(i int, role string) *corev1.Node {
	name, now := nodeName(i), metav1.Now()
	labels := map[string]string{
		roleLabel: role, corev1.LabelHostname: name, corev1.LabelOSStable: system,
		corev1.LabelArchStable: architecture, corev1.LabelTopologyRegion: "ap-northeast-1",
		corev1.LabelTopologyZone: "ap-northeast-1a", corev1.LabelInstanceTypeStable: "m7i.8xlarge",
	}
	maps.Copy(labels, map[string]string{
		"beta.kubernetes.io/os": system, "beta.kubernetes.io/arch": architecture, "pool": "hyperliquid",
	})
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
		status := corev1.ConditionFalse
		if kind == corev1.NodeReady {
			status = corev1.ConditionTrue
		}
		node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{
			Type: kind, Status: status, LastHeartbeatTime: now, LastTransitionTime: now,
			Reason: "KubeletHas", Message: "kubelet has what it needs",
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

// startParsers starts this program once more, to simulate all parsers.
func (f *fleet) startParsers(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	f.control = net.JoinHostPort("127.0.0.1", port)
	cmd, err := ownCommand(parsersCommand, "--nodes", strconv.Itoa(f.nodes+1), "--small", strconv.Itoa(f.small),
		"--second", strconv.Itoa(f.second), "--streams", strconv.Itoa(f.streams), "--control", f.control,
		"--operators", f.operators())
	if err != nil {
		return err
	}
	parsers, err := f.children.Start("parsers", cmd, f.path("parsers.log"))
	if err != nil {
		return err
	}
	return parsers.WaitUntil(ctx, func(ctx context.Context) error { return order(ctx, "DELETE", f.control, 0) },
		time.Minute)
}

// kubeconfig writes a kubeconfig for a service account and returns its path.
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

// startManager starts the manager, lets it create the pod of one node, and returns the spec of that pod.
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
		return nil, fmt.Errorf("creating the warm-up object: %w", err)
	}
	var pods corev1.PodList
	err = f.until(ctx, 2*time.Minute, "the manager created no pod, see manager.log", func() (bool, error) {
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
		return nil, fmt.Errorf("deleting the warm-up object: %w", err)
	}
	if err := f.clear(ctx, namespace); err != nil {
		return nil, err
	}
	return &pods.Items[0].Spec, nil
}

// clear deletes the dependents of a deleted object, as the garbage collector would.
func (f *fleet) clear(ctx context.Context, namespace string) error {
	for _, kind := range []client.Object{&corev1.ConfigMap{}, &appsv1.ControllerRevision{}} {
		if err := f.client.DeleteAllOf(ctx, kind, client.InNamespace(namespace)); err != nil {
			return fmt.Errorf("deleting the dependents of a fleet: %w", err)
		}
	}
	return f.until(ctx, 10*time.Minute, "pods still exist", func() (bool, error) {
		err := f.client.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(namespace), client.GracePeriodSeconds(0))
		// One request deletes for at most one minute.
		if err != nil && !apierrors.IsTimeout(err) {
			return false, fmt.Errorf("deleting pods: %w", err)
		}
		created, _, _, err := f.kubelets.pods()
		return created == 0, err
	})
}

// ownCommand returns a command that runs this program with other arguments.
func ownCommand(args ...string) (*exec.Cmd, error) {
	own, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	return exec.Command(own, slices.Clone(args)...), nil
}

// freePort returns a free port, which the kernel chooses.
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
