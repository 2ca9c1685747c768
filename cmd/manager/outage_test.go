package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// The tests run this same binary as the real manager.
const asManager = "HLPARSER_TEST_AS_MANAGER"

func TestMain(m *testing.M) {
	if os.Getenv(asManager) != "" {
		main()
		os.Exit(0)
	}
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// outageVariable sets how long the API server is unreachable. The default is long enough for the leader to lose its
// lease, and for an unbounded backoff to exceed the time of a recovery.
const outageVariable = "HLPARSER_TEST_OUTAGE"

const defaultOutage = 40 * time.Second

// recovery bounds the operator's recovery after the API server's return.
const recovery = 15 * time.Second

// way is a manager's connection to the API server: a proxy that can be cut.
type way struct {
	to      string
	address string

	mu       sync.Mutex
	listener net.Listener
	open     map[net.Conn]bool
}

// cut closes the proxy and all its connections.
func (w *way) cut(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener == nil {
		return
	}
	if err := w.listener.Close(); err != nil {
		t.Error(err)
	}
	w.listener = nil
	for conn := range w.open {
		_ = conn.Close()
	}
	w.open = map[net.Conn]bool{}
}

// mend reopens the proxy at the same address.
func (w *way) mend(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listener = l
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go w.carry(conn)
		}
	}()
}

func (w *way) carry(from net.Conn) {
	to, err := net.Dial("tcp", w.to)
	if err != nil {
		_ = from.Close()
		return
	}
	w.mu.Lock()
	if w.listener == nil {
		w.mu.Unlock()
		_, _ = from.Close(), to.Close()
		return
	}
	w.open[from], w.open[to] = true, true
	w.mu.Unlock()
	go func() { _, _ = io.Copy(to, from); _ = to.Close() }()
	_, _ = io.Copy(from, to)
	_ = from.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, from)
	delete(w.open, to)
}

// container runs the manager as a kubelet does: it restarts an exited process, at once the first time, then after 10 s,
// 20 s, and so on.
type container struct {
	mu     sync.Mutex
	starts int
	logs   strings.Builder
}

func (c *container) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range bytes.Lines(p) {
		if !bytes.Contains(line, []byte("healthz check failed")) { // which a poll makes many of
			c.logs.Write(line)
		}
	}
	return len(p), nil
}

func (c *container) text() (starts int, logs string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.starts, c.logs.String()
}

// runContainer runs a container until the test ends, and logs its output if the test has failed.
func runContainer(t *testing.T, env []string, args ...string) *container {
	t.Helper()
	running, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	c, ended := &container{}, make(chan struct{})
	go func() {
		defer close(ended)
		c.run(running, env, args...)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		if _, logs := c.text(); t.Failed() {
			t.Log(logs)
		}
	})
	return c
}

func (c *container) run(ctx context.Context, env []string, args ...string) {
	for pause := time.Duration(0); ctx.Err() == nil; pause = max(2*pause, 10*time.Second) {
		cmd := exec.CommandContext(ctx, os.Args[0], args...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 10 * time.Second
		cmd.Env = append(append(os.Environ(), asManager+"=1"), env...)
		cmd.Stdout, cmd.Stderr = c, c
		c.mu.Lock()
		c.starts++
		c.mu.Unlock()
		err := cmd.Run()
		_, _ = fmt.Fprintf(c, "the process ended: %v\n", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// outageFor returns how long the API server is unreachable.
func outageFor(t *testing.T, usual time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(outageVariable)
	if text == "" {
		return usual
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// eventually polls until there is no error, and fails with the last one after the limit.
func eventually(t *testing.T, limit time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := check()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			t.Errorf("%s: not within %s: %v", what, limit, err)
			return time.Since(began)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// The real manager starts without an API server, loses it, and has it back. The test checks who leads then, and when
// the watches work again.
func TestAnOutageOfAnAPIServerOfAnEmptyFleet(t *testing.T) {
	for name, test := range map[string]struct {
		args, env []string
		outage    time.Duration
		within    time.Duration
		starts    int // that the outage costs
		holder    string
	}{
		"a pod with a lease": {[]string{"--leader-elect"}, []string{"POD_NAME=manager-0", "POD_UID=u"},
			20 * time.Second, 8 * time.Second, 1, "manager-0_u"},
		"a process with a lease": {[]string{"--leader-elect"}, nil, 20 * time.Second, recovery, 1, ""},
		"without a lease":        {nil, nil, 25 * time.Second, 8 * time.Second, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.outage = outageFor(t, test.outage)
			a := newAPIServer()
			server := httptest.NewServer(a)
			t.Cleanup(server.Close)
			w := &way{to: server.Listener.Addr().String(), address: freeAddress(t), open: map[net.Conn]bool{}}
			t.Cleanup(func() { w.cut(t) })
			config := clientcmdapi.NewConfig()
			config.Clusters["c"] = &clientcmdapi.Cluster{Server: "http://" + w.address}
			config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c"}
			config.CurrentContext = "c"
			file := filepath.Join(t.TempDir(), "kubeconfig")
			if err := clientcmd.WriteToFile(*config, file); err != nil {
				t.Fatal(err)
			}
			health := freeAddress(t)
			c := runContainer(t, test.env, append([]string{
				"--kubeconfig=" + file, "--parser-image=hlparser", "--namespaces=ns", "--leader-election-namespace=ns",
				"--health-probe-bind-address=" + health,
			}, test.args...)...)
			status := func(path string, want int) func() error {
				return func() error {
					if got, text := probe(t, health, path); got != want {
						return fmt.Errorf("%s is %d: %s", path, got, text)
					}
					return nil
				}
			}
			const objects = "watch /apis/fleet.hlparser.dev/v1alpha1/namespaces/ns/hyperliquidparsers"
			watchesSince := func(when time.Time) func() error {
				return func() error {
					if at := a.last(objects); !at.After(when) {
						return fmt.Errorf("objects were watched last at %s", at)
					}
					return nil
				}
			}

			eventually(t, time.Minute, "alive without an API server", status("/healthz", http.StatusOK))
			eventually(t, time.Second, "not ready without one", status("/readyz", http.StatusInternalServerError))
			w.mend(t)
			began := time.Now()
			t.Logf("it watches %s after the first start", eventually(t, recovery, "after the start", watchesSince(began)))
			eventually(t, recovery, "ready", status("/readyz", http.StatusOK))

			w.cut(t)
			time.Sleep(test.outage) // there is nothing to wait for: this is how long it is away
			eventually(t, recovery, "alive in the outage", status("/healthz", http.StatusOK))
			back := time.Now()
			w.mend(t)
			took := eventually(t, test.within, "after the outage", watchesSince(back))
			t.Logf("it watches %s after an outage of %s", took, test.outage)
			if n, _ := c.text(); n != 1+test.starts {
				t.Errorf("it was started %d times", n)
			}
			if lease := a.lease("ns"); len(test.args) > 0 &&
				(lease == nil || lease.Spec.RenewTime.Before(&metav1.MicroTime{Time: back})) {
				t.Errorf("the lease has no holder: %+v", lease)
			} else if test.holder != "" && *lease.Spec.HolderIdentity != test.holder {
				t.Errorf("the lease is %s's", *lease.Spec.HolderIdentity)
			}
		})
	}
}

// The real manager, before and after an outage of the API server, with a lease and without one.
func TestAnOutageOfTheAPIServer(t *testing.T) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set: make test finds or builds kube-apiserver and etcd")
	}
	outage := outageFor(t, defaultOutage)
	env := &envtest.Environment{
		CRDDirectoryPaths: []string{"../../config/crd/bases"}, ErrorIfCRDPathMissing: true,
		ControlPlaneStartTimeout: 5 * time.Minute, ControlPlaneStopTimeout: 2 * time.Minute,
	}
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin, err := env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, config)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := admin.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	k8s, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		namespace string
		args      []string
		env       []string
		starts    int // that an outage costs
	}{
		"a pod with a lease":     {"leading", []string{"--leader-elect"}, []string{"POD_NAME=manager-0", "POD_UID=u"}, 1},
		"a process with a lease": {"electing", []string{"--leader-elect"}, nil, 1},
		"without a lease":        {"alone", nil, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outageOf(t, k8s, config.Host, kubeconfig, outage, test.namespace, test.env, test.args, test.starts)
		})
	}
}

func outageOf(
	t *testing.T, k8s client.Client, apiServer string, kubeconfig []byte, outage time.Duration, namespace string,
	env, args []string, starts int,
) {
	t.Helper()
	ctx := t.Context()
	if err := k8s.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Fatal(err)
	}
	address := strings.Trim(strings.TrimPrefix(apiServer, "https:"), "/")
	w := &way{to: address, address: freeAddress(t), open: map[net.Conn]bool{}}
	defer w.cut(t)
	loaded, err := clientcmd.Load(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, cluster := range loaded.Clusters {
		cluster.Server = "https://" + w.address
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*loaded, file); err != nil {
		t.Fatal(err)
	}
	health := freeAddress(t)
	c := runContainer(t, env, append([]string{
		"--kubeconfig=" + file, "--parser-image=hlparser", "--namespaces=" + namespace,
		"--leader-election-namespace=" + namespace,
		"--health-probe-bind-address=" + health,
	}, args...)...)
	status := func(path string, want int) func() error {
		return func() error {
			if got, text := probe(t, health, path); got != want {
				return fmt.Errorf("%s is %d: %s", path, got, text)
			}
			return nil
		}
	}
	obj := &v1alpha1.HyperliquidParser{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "mainnet"},
		Spec: v1alpha1.HyperliquidParserSpec{
			Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{
				Selector: metav1.LabelSelector{MatchLabels: map[string]string{"no": "node"}}, DataPath: "/data",
			}},
			Streams: []v1alpha1.Stream{{Name: "Fills"}},
			Sink:    v1alpha1.Sink{Stdout: &v1alpha1.StdoutSink{}},
		},
	}
	carriedOut := func() error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
			return err
		}
		if obj.Status.ObservedGeneration != obj.Generation {
			return fmt.Errorf("generation %d was observed, of %d", obj.Status.ObservedGeneration, obj.Generation)
		}
		return nil
	}

	// It starts without an API server: it is alive, not ready, and does not exit.
	eventually(t, time.Minute, "alive without an API server", status("/healthz", http.StatusOK))
	for began := time.Now(); time.Since(began) < 12*time.Second; time.Sleep(time.Second) {
		if err := errors.Join(status("/healthz", http.StatusOK)(),
			status("/readyz", http.StatusInternalServerError)()); err != nil {
			t.Error(err)
		}
	}
	if n, _ := c.text(); n != 1 {
		t.Fatalf("it was started %d times", n)
	}
	if err := k8s.Create(ctx, obj); err != nil {
		t.Fatal(err)
	}
	w.mend(t)
	t.Logf("at first: %s", eventually(t, recovery, "after the start", carriedOut))
	eventually(t, recovery, "ready", status("/readyz", http.StatusOK))

	// There is an outage, during which the object changes.
	w.cut(t)
	time.Sleep(outage) // there is nothing to wait for: this is how long it is away
	if err := k8s.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
		t.Fatal(err)
	}
	obj.Spec.Rollout.MaxUnavailable = nil
	obj.Spec.TerminationGracePeriodSeconds = ptr.To[int64](31)
	if err := k8s.Update(ctx, obj); err != nil {
		t.Fatal(err)
	}
	if carriedOut() == nil {
		t.Fatal("the way is not cut")
	}
	eventually(t, recovery, "alive in the outage", status("/healthz", http.StatusOK))
	w.mend(t)
	t.Logf("after an outage of %s: %s", outage, eventually(t, recovery, "after the outage", carriedOut))
	eventually(t, 2*recovery, "ready after the outage", status("/readyz", http.StatusOK))
	if n, _ := c.text(); n != 1+starts {
		t.Errorf("it was started %d times", n)
	}
	var lease coordinationv1.Lease
	err = k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: leaseID}, &lease)
	switch {
	case len(args) == 0:
	case err != nil:
		t.Error(err)
	case len(env) > 0 && ptr.Deref(lease.Spec.HolderIdentity, "") != "manager-0_u":
		t.Errorf("the lease is %s's", ptr.Deref(lease.Spec.HolderIdentity, "nobody"))
	}
}
