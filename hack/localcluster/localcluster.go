// Package localcluster runs etcd, kube-apiserver and, if requested, kube-controller-manager on free loopback ports,
// with RBAC and without anonymous access. envtest runs the first two. This package also runs the third, which needs the
// same keys, and leaves no process behind when it is killed.
package localcluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/keyutil"

	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
)

// Options are the options of Start.
type Options struct {
	// Assets is the directory with the programs, as in KUBEBUILDER_ASSETS.
	Assets string
	// Dir holds keys, data and logs. It must exist and be private to this user.
	Dir string
	// ControllerManager reports whether kube-controller-manager runs, too. It provides garbage collection, namespaces
	// and service accounts.
	ControllerManager bool
	// APIServerFlags holds additional flags of kube-apiserver.
	APIServerFlags []string
	Children       *child.Group
}

// ControlPlane is a running control plane. Its processes end with the group of children.
type ControlPlane struct {
	opts  Options
	url   string
	token string // of the administrator
	pids  []int  // of etcd and kube-apiserver
}

// startLimit is generous, because the machine may be compiling at the same time.
const startLimit = 90 * time.Second

// Start starts the control plane, and returns when the API server is ready.
func Start(ctx context.Context, o Options) (*ControlPlane, error) {
	apiPort, err := freePort()
	if err != nil {
		return nil, err
	}
	etcdPort, err := freePort()
	if err != nil {
		return nil, err
	}
	cp := &ControlPlane{opts: o, url: "https://127.0.0.1:" + apiPort}
	if err := cp.writeKeys(); err != nil {
		return nil, err
	}

	etcdURL := "http://127.0.0.1:" + etcdPort
	etcd, err := cp.run("etcd",
		"--data-dir="+cp.path("etcd"),
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls=http://127.0.0.1:0",
		"--unsafe-no-fsync", "--log-level=warn")
	if err != nil {
		return nil, err
	}
	apiserver, err := cp.run("kube-apiserver", append([]string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=127.0.0.1", "--secure-port=" + apiPort,
		// No traffic is routed to a loopback address, so none is published.
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--cert-dir=" + cp.path("serving"),
		"--authorization-mode=RBAC", "--anonymous-auth=false",
		"--token-auth-file=" + cp.path("tokens.csv"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + cp.path("service-account.key"),
		"--service-account-signing-key-file=" + cp.path("service-account.key"),
		"--service-cluster-ip-range=10.96.0.0/24",
		"--allow-privileged",
		// The plugin taints new nodes until the node lifecycle controller finds them ready, but that controller does
		// not run here.
		"--disable-admission-plugins=TaintNodesByCondition",
	}, o.APIServerFlags...)...)
	if err != nil {
		return nil, err
	}
	cp.pids = []int{etcd.PID(), apiserver.PID()}
	client, err := cp.waitReady(ctx, apiserver)
	if err != nil {
		return nil, err
	}
	if !o.ControllerManager {
		return cp, nil
	}
	return cp, cp.startControllerManager(ctx, client)
}

func (cp *ControlPlane) waitReady(ctx context.Context, apiserver *child.Child) (kubernetes.Interface, error) {
	var client kubernetes.Interface
	err := apiserver.WaitUntil(ctx, func(ctx context.Context) error {
		// kube-apiserver creates its serving certificate at start.
		config, err := cp.AdminConfig()
		if err != nil {
			return err
		}
		client, err = kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		return client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(attempt).Error()
	}, startLimit)
	return client, err
}

func (cp *ControlPlane) startControllerManager(ctx context.Context, client kubernetes.Interface) error {
	token, err := cp.tokenOf("system:kube-controller-manager")
	if err != nil {
		return err
	}
	kubeconfig := cp.path("controller-manager.kubeconfig")
	if err := cp.WriteKubeconfig(kubeconfig, token, ""); err != nil {
		return err
	}
	manager, err := cp.run("kube-controller-manager",
		"--kubeconfig="+kubeconfig,
		"--leader-elect=false", "--secure-port=0",
		"--use-service-account-credentials",
		"--service-account-private-key-file="+cp.path("service-account.key"),
		"--root-ca-file="+cp.path("serving", "apiserver.crt"),
		// No controller that monitors nodes runs, because the demo's nodes send no heartbeats.
		"--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller,"+
			"root-ca-certificate-publisher-controller,clusterrole-aggregation-controller")
	if err != nil {
		return err
	}
	return manager.WaitUntil(ctx, func(ctx context.Context) error {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	}, startLimit)
}

// Processes returns the process ids of etcd and kube-apiserver.
func (cp *ControlPlane) Processes() []int { return cp.pids }

// run starts one of the programs with its own log.
func (cp *ControlPlane) run(program string, args ...string) (*child.Child, error) {
	return cp.opts.Children.Start(program, exec.Command(filepath.Join(cp.opts.Assets, program), args...),
		cp.path(program+".log"))
}

func (cp *ControlPlane) path(parts ...string) string {
	return filepath.Join(append([]string{cp.opts.Dir}, parts...)...)
}

// users returns the users that the control plane itself must know. All others are service accounts.
func users() []struct{ name, groups string } {
	return []struct{ name, groups string }{
		{"demo-admin", "system:masters"},
		{"system:kube-controller-manager", ""},
	}
}

func (cp *ControlPlane) writeKeys() error {
	key, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return fmt.Errorf("creating the service accounts' key: %w", err)
	}
	if err := os.WriteFile(cp.path("service-account.key"), key, 0o600); err != nil {
		return fmt.Errorf("writing the service accounts' key: %w", err)
	}
	var csv strings.Builder
	for _, u := range users() {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // rand.Read never fails
		fmt.Fprintf(&csv, "%s,%s,%s,\"%s\"\n", hex.EncodeToString(secret), u.name, u.name, u.groups)
	}
	if err := os.WriteFile(cp.path("tokens.csv"), []byte(csv.String()), 0o600); err != nil {
		return fmt.Errorf("writing the users' tokens: %w", err)
	}
	cp.token, err = cp.tokenOf("demo-admin")
	return err
}

func (cp *ControlPlane) tokenOf(user string) (string, error) {
	csv, err := os.ReadFile(cp.path("tokens.csv"))
	if err != nil {
		return "", fmt.Errorf("reading the users' tokens: %w", err)
	}
	for line := range strings.Lines(string(csv)) {
		if fields := strings.Split(line, ","); len(fields) > 1 && fields[1] == user {
			return fields[0], nil
		}
	}
	return "", fmt.Errorf("reading the users' tokens: user %s has none", user)
}

// AdminConfig returns a configuration with all rights. The operator must never get it.
func (cp *ControlPlane) AdminConfig() (*rest.Config, error) {
	ca, err := os.ReadFile(cp.path("serving", "apiserver.crt"))
	if err != nil {
		return nil, fmt.Errorf("reading the API server's certificate: %w", err)
	}
	return &rest.Config{
		Host:            cp.url,
		BearerToken:     cp.token,
		TLSClientConfig: rest.TLSClientConfig{CAData: ca},
		// The client's own rate limit must not delay requests for a whole fleet.
		QPS: 200, Burst: 400,
	}, nil
}

// WriteAdminKubeconfig writes a kubeconfig for interactive use.
func (cp *ControlPlane) WriteAdminKubeconfig(path, namespace string) error {
	return cp.WriteKubeconfig(path, cp.token, namespace)
}

// WriteKubeconfig writes a kubeconfig with a bearer token.
func (cp *ControlPlane) WriteKubeconfig(path, token, namespace string) error {
	ca, err := os.ReadFile(cp.path("serving", "apiserver.crt"))
	if err != nil {
		return fmt.Errorf("reading the API server's certificate: %w", err)
	}
	const name = "hlparser-demo"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: cp.url, CertificateAuthorityData: ca}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: namespace}
	config.CurrentContext = name
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("writing a kubeconfig: %w", err)
	}
	return nil
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
