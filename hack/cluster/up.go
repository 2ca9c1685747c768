package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Addresses and ports of the cluster. Everything listens on this machine only, but the API server, which pods reach at
// the first node's bridge.
const (
	apiPort     = "6443"
	etcdClient  = "http://127.0.0.1:12379" // not etcd's own port, which another cluster may use
	etcdPeer    = "http://127.0.0.1:12380"
	serviceIP   = "10.96.0.1"
	serviceCIDR = "10.96.0.0/16"
	podCIDR     = "10.244.0.0/16"
	kubeletPort = 10250 // of the first node; the next has ten more
	healthPort  = 10248
	proxyHealth = "127.0.0.1:10256"
)

// kubernetesPrograms are those that KUBEBUILDER_ASSETS must hold.
var kubernetesPrograms = []string{
	etcd, apiserver, controllerManager, scheduler, "kubelet", proxy,
}

// Names of the control plane's processes, which are those of their programs.
const (
	etcd              = "etcd"
	apiserver         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
	proxy             = "kube-proxy"
)

const (
	// readyLimit is generous: the machine may be compiling at the same time.
	readyLimit = 3 * time.Minute
	// nodeStatus is how often a kubelet reports; a node that does not for 40 s is not Ready, which is
	// kube-controller-manager's default.
	nodeStatus = "5s"
)

func bridgeIP(n int) string { return fmt.Sprintf("10.244.%d.1", n) }
func nodeName(n int) string { return "node-" + strconv.Itoa(n) }

func (c *cluster) bridge(n int) string { return c.Name + strconv.Itoa(n) }

// up starts what does not run and returns when all nodes are Ready.
func (c *cluster) up(ctx context.Context) error {
	if err := c.checkPrograms(); err != nil {
		return err
	}
	for _, dir := range []string{"cmd", "pid", "log", "pki", "bin"} {
		if err := os.MkdirAll(c.path(dir), 0o755); err != nil {
			return fmt.Errorf("making the cluster's directory: %w", err)
		}
	}
	if err := writeJSON(c.path(identityFile), c.identity); err != nil {
		return err
	}
	if err := c.writeKeys(); err != nil {
		return err
	}
	for i := range c.Nodes {
		if err := c.makeBridge(ctx, i+1); err != nil {
			return err
		}
	}
	if err := c.startControlPlane(ctx); err != nil {
		return err
	}
	pause, err := pauseImage(ctx, c.path("pause.tar"))
	if err != nil {
		return err
	}
	for i := range c.Nodes {
		if err := c.startNode(ctx, i+1, pause); err != nil {
			return err
		}
	}
	if err := c.define(proxy, c.program(proxy), "--kubeconfig="+c.path("admin.conf"),
		"--proxy-mode=nftables", "--cluster-cidr="+podCIDR, "--hostname-override="+nodeName(1),
		"--healthz-bind-address="+proxyHealth,
		"--conntrack-max-per-core=0", "--conntrack-min=0"); err != nil {
		return err
	}
	if err := c.start(proxy); err != nil {
		return err
	}
	if err := c.waitNodes(ctx); err != nil {
		return err
	}
	if err := c.checkRunning(); err != nil {
		return err
	}
	fmt.Println(c.path("admin.conf"))
	return nil
}

// checkRunning returns an error for each process that has ended.
func (c *cluster) checkRunning() error {
	names, err := c.defined()
	errs := make([]error, 0, len(names)+1)
	errs = append(errs, err)
	for _, name := range names {
		_, running, err := c.running(name)
		if err == nil && !running {
			err = fmt.Errorf("%s has ended: see %s", name, c.path("log", name))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *cluster) program(name string) string { return filepath.Join(c.assets, name) }

// makeBridge makes a node's network unless it is there.
func (c *cluster) makeBridge(ctx context.Context, n int) error {
	bridge := c.bridge(n)
	if _, err := net.InterfaceByName(bridge); err == nil {
		return nil
	}
	for _, args := range [][]string{
		{"ip", "link", "add", bridge, "type", "bridge"},
		{"ip", "addr", "add", bridgeIP(n) + "/24", "dev", bridge},
		{"ip", "link", "set", bridge, "up"},
	} {
		if _, err := runTool(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) startControlPlane(ctx context.Context) error {
	admin := "--kubeconfig=" + c.path("admin.conf")
	for _, p := range []struct {
		name string
		args []string
	}{
		{etcd, []string{
			c.program(etcd), "--data-dir", c.path("etcd"), "--listen-client-urls", etcdClient,
			"--advertise-client-urls", etcdClient, "--listen-peer-urls", etcdPeer,
			"--initial-advertise-peer-urls", etcdPeer, "--initial-cluster", "default=" + etcdPeer,
			"--unsafe-no-fsync", // the cluster is thrown away
		}},
		{apiserver, []string{
			c.program(apiserver), "--etcd-servers=" + etcdClient, "--secure-port=" + apiPort,
			"--bind-address=0.0.0.0", "--advertise-address=" + bridgeIP(1),
			"--tls-cert-file=" + c.path("pki", "apiserver.crt"), "--tls-private-key-file=" + c.path("pki", "apiserver.key"),
			"--client-ca-file=" + c.path("pki", "ca.crt"), "--kubelet-certificate-authority=" + c.path("pki", "ca.crt"),
			"--kubelet-client-certificate=" + c.path("pki", "admin.crt"), "--kubelet-client-key=" + c.path("pki", "admin.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-key-file=" + c.path("pki", "sa.key"),
			"--service-account-signing-key-file=" + c.path("pki", "sa.key"),
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--service-cluster-ip-range=" + serviceCIDR, "--allow-privileged=true",
		}},
		{controllerManager, []string{
			c.program(controllerManager), admin, "--service-account-private-key-file=" + c.path("pki", "sa.key"),
			"--root-ca-file=" + c.path("pki", "ca.crt"), "--use-service-account-credentials", "--leader-elect=false",
			"--bind-address=127.0.0.1",
		}},
		{scheduler, []string{
			c.program(scheduler), admin, "--leader-elect=false", "--bind-address=127.0.0.1",
		}},
	} {
		if err := c.define(p.name, p.args...); err != nil {
			return err
		}
		if err := c.start(p.name); err != nil {
			return err
		}
		if p.name == apiserver {
			if err := c.waitAPIServer(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cluster) client() (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.path("admin.conf"))
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return client, nil
}

func (c *cluster) waitAPIServer(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	last := errors.New("it was not asked")
	ready := eventually(ctx, readyLimit, func() bool {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		last = client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(attempt).Error()
		return last == nil
	})
	if !ready {
		return fmt.Errorf("waiting for kube-apiserver: %w; see %s", last, c.path("log", apiserver))
	}
	return nil
}

// waitNodes waits until every node is Ready.
func (c *cluster) waitNodes(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	var ready int
	all := eventually(ctx, readyLimit, func() bool {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false
		}
		ready = 0
		for i := range nodes.Items {
			for _, condition := range nodes.Items[i].Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		return ready == c.Nodes
	})
	if !all {
		return fmt.Errorf("waiting for nodes: %d of %d are Ready; see %s", ready, c.Nodes, c.path("log"))
	}
	return nil
}
