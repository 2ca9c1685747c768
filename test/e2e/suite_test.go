// Package e2e tests the operator and the parser on a real cluster: kubelets, containers, the scheduler and the
// controllers of Kubernetes, and the image that is shipped. `make e2e` runs it. Every spec counts the records that are
// lost and delivered twice.
//
// What stands on a node's disk, and what happens to a node, needs hack/cluster: those specs are skipped on another
// cluster. The suite must never be pointed at a cluster that serves anything else: it stops nodes.
package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// Where the operator runs.
const (
	operatorNamespace = "hyperliquid-parser-operator-system"
	operatorName      = "hyperliquid-parser-operator-controller-manager"
)

// Time limits. They are generous, because nothing is measured by them: each spec prints how long things took.
const (
	installed = 3 * time.Minute
	started   = 3 * time.Minute
	noticed   = 3 * time.Minute
	whole     = 4 * time.Minute
)

var (
	k8s      client.Client
	clients  kubernetes.Interface
	cluster  *processes
	restConf *rest.Config
)

// settings of the suite, from the environment that `make e2e` sets.
type settings struct {
	kubeconfig string // KUBECONFIG
	installer  string // E2E_INSTALLER: what `make build-installer` writes
	image      string // E2E_IMAGE: loaded into the nodes already
	cluster    string // E2E_CLUSTER: the program hack/cluster; empty on another cluster
	dir        string // E2E_CLUSTER_DIR: its --dir
	manager    string // E2E_MANAGER: the manager's program, to run it outside of the cluster
	plugin     string // E2E_PLUGIN: the program kubectl-hlp
	artifacts  string // E2E_ARTIFACTS: a directory for what kubectl shows; empty: nothing is kept
	report     string // E2E_REPORT: the file for the table of what was measured; empty: it is printed only
	faults     string // E2E_FAULTS_IMAGE: an image whose parser can be made to hang; loaded into the nodes already
	record     bool   // E2E_RECORD=1: what Kubernetes reports goes to internal/controller/recorded, and results to docs
}

var env settings

func TestE2E(t *testing.T) {
	if os.Getenv("E2E_INSTALLER") == "" {
		t.Skip("a real cluster is needed: run make e2e")
	}
	logf.SetLogger(logr.Discard())
	RegisterFailHandler(Fail)
	RunSpecs(t, "the operator on a real cluster")
}

// The operator is installed once. Specs run in several processes; those that touch what others use are Serial.
var _ = SynchronizedBeforeSuite(func(ctx SpecContext) {
	connect()
	By("installing the operator")
	kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-f", env.installer)
	waitOperator(ctx)
}, func() { connect() }, NodeTimeout(installed+time.Minute))

// connect reads the settings and makes the clients of one process.
func connect() {
	GinkgoHelper()
	SetDefaultEventuallyPollingInterval(250 * time.Millisecond)
	env = settings{
		kubeconfig: os.Getenv("KUBECONFIG"), installer: os.Getenv("E2E_INSTALLER"), image: os.Getenv("E2E_IMAGE"),
		cluster: os.Getenv("E2E_CLUSTER"), dir: os.Getenv("E2E_CLUSTER_DIR"), manager: os.Getenv("E2E_MANAGER"),
		plugin:    os.Getenv("E2E_PLUGIN"),
		artifacts: os.Getenv("E2E_ARTIFACTS"), report: os.Getenv("E2E_REPORT"), faults: os.Getenv("E2E_FAULTS_IMAGE"),
		record: os.Getenv("E2E_RECORD") == "1",
	}
	var err error
	restConf, err = clientcmd.BuildConfigFromFlags("", env.kubeconfig)
	Expect(err).NotTo(HaveOccurred())
	restConf.QPS, restConf.Burst = 100, 200
	scheme, err := v1alpha1Scheme()
	Expect(err).NotTo(HaveOccurred())
	k8s, err = client.New(restConf, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	clients, err = kubernetes.NewForConfig(restConf)
	Expect(err).NotTo(HaveOccurred())
	if env.cluster != "" {
		cluster = &processes{program: env.cluster, dir: env.dir}
	}
}

// waitOperator waits until all managers are ready.
func waitOperator(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		var d appsv1.Deployment
		g.Expect(k8s.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: operatorName}, &d)).To(Succeed())
		g.Expect(d.Status.ObservedGeneration).To(Equal(d.Generation))
		g.Expect(d.Status.ReadyReplicas).To(Equal(*d.Spec.Replicas))
		g.Expect(d.Status.UpdatedReplicas).To(Equal(*d.Spec.Replicas))
	}).WithContext(ctx).WithTimeout(installed).Should(Succeed())
}

// kubectl runs kubectl as a user does, and returns what it prints.
func kubectl(ctx context.Context, args ...string) string {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+env.kubeconfig)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	Expect(err).NotTo(HaveOccurred(), "kubectl %s: %s", strings.Join(args, " "), stderr.String())
	return string(out)
}

// processes are a cluster of hack/cluster.
type processes struct{ program, dir string }

// needProcesses skips a spec on another cluster.
func needProcesses() {
	GinkgoHelper()
	if cluster == nil {
		Skip("needs a cluster of hack/cluster: it touches what a node is made of")
	}
}

func (p *processes) run(ctx context.Context, args ...string) {
	GinkgoHelper()
	out, err := exec.CommandContext(ctx, p.program, append([]string{"--dir=" + p.dir}, args...)...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "cluster %s: %s", strings.Join(args, " "), out)
}

// stop ends one of the cluster's processes by a signal, and starts it again after the spec at the latest.
func (p *processes) stop(ctx context.Context, name, signal string) {
	GinkgoHelper()
	p.run(ctx, "stop", name, signal)
	DeferCleanup(func(ctx SpecContext) { p.run(ctx, "start", name) })
}

func (p *processes) start(ctx context.Context, name string) {
	GinkgoHelper()
	p.run(ctx, "start", name)
}

// hostPath returns where a path on a node is on this machine.
func (p *processes) hostPath(node int, path string) string {
	return filepath.Join(p.dir, fmt.Sprintf("n%d", node), "host", path)
}

// onNode runs a command in a node's file system.
func (p *processes) onNode(ctx context.Context, node int, args ...string) {
	GinkgoHelper()
	args = append([]string{"--dir=" + p.dir, "node", fmt.Sprint(node)}, args...)
	out, err := exec.CommandContext(ctx, p.program, args...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "cluster %s: %s", strings.Join(args, " "), out)
}

// ctr runs containerd's client on a node.
func (p *processes) ctr(ctx context.Context, node int, args ...string) (string, error) {
	socket := filepath.Join(p.dir, fmt.Sprintf("n%d", node), "run", "containerd.sock")
	args = append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)
	out, err := exec.CommandContext(ctx, "ctr", args...).CombinedOutput()
	return string(out), err
}

// waitContainerd waits until a node's containerd answers.
func (p *processes) waitContainerd(ctx context.Context, node int) {
	GinkgoHelper()
	Eventually(func() error { _, err := p.ctr(ctx, node, "version"); return err }).
		WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
}

// tasks returns the first processes of a node's containers by the containers' IDs.
func (p *processes) tasks(ctx context.Context, node int) map[string]int {
	GinkgoHelper()
	out, err := p.ctr(ctx, node, "task", "ls")
	Expect(err).NotTo(HaveOccurred(), "%s", out)
	tasks := map[string]int{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0] == "TASK" || fields[2] == "STOPPED" {
			continue
		}
		pid, err := strconv.Atoi(fields[1])
		Expect(err).NotTo(HaveOccurred(), "%s", out)
		tasks[fields[0]] = pid
	}
	return tasks
}

// signal sends a signal to the first process of a pod's container.
func (p *processes) signal(ctx context.Context, node int, pod *corev1.Pod, signal syscall.Signal) {
	GinkgoHelper()
	Expect(pod.Status.ContainerStatuses).NotTo(BeEmpty())
	id := strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "containerd://")
	tasks := p.tasks(ctx, node)
	Expect(tasks).To(HaveKey(id), "containerd has no task of pod %s", pod.Name)
	Expect(syscall.Kill(tasks[id], signal)).To(Succeed())
}

// signalIfRunning sends a signal like signal, unless the container has ended meanwhile.
func (p *processes) signalIfRunning(ctx context.Context, node int, pod *corev1.Pod, signal syscall.Signal) {
	GinkgoHelper()
	id := strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "containerd://")
	if pid := p.tasks(ctx, node)[id]; pid != 0 {
		if err := syscall.Kill(pid, signal); err != nil {
			Expect(err).To(MatchError(syscall.ESRCH))
		}
	}
}

// powerOff ends everything that runs on a node at once: its kubelet, its containerd and all containers.
func (p *processes) powerOff(ctx context.Context, node int) {
	GinkgoHelper()
	ends := slices.Collect(maps.Values(p.tasks(ctx, node)))
	ends = append(ends, p.shims(node)...)
	p.stop(ctx, fmt.Sprintf("kubelet-%d", node), "KILL")
	p.stop(ctx, fmt.Sprintf("containerd-%d", node), "KILL")
	DeferCleanup(p.powerOn, node)
	for _, pid := range ends {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			Expect(err).To(MatchError(syscall.ESRCH))
		}
	}
}

// shims returns the processes that hold a node's containers for its containerd.
func (p *processes) shims(node int) []int {
	GinkgoHelper()
	socket := filepath.Join(p.dir, fmt.Sprintf("n%d", node), "run", "containerd.sock")
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	Expect(err).NotTo(HaveOccurred())
	var pids []int
	for _, file := range files {
		args, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		words := strings.Split(string(args), "\x00")
		if !strings.Contains(filepath.Base(words[0]), "containerd-shim") || !slices.Contains(words, socket) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		Expect(err).NotTo(HaveOccurred())
		pids = append(pids, pid)
	}
	return pids
}

// powerOn starts what powerOff has ended and does not run yet, as the boot of a node does.
func (p *processes) powerOn(ctx context.Context, node int) {
	GinkgoHelper()
	p.start(ctx, fmt.Sprintf("containerd-%d", node))
	p.waitContainerd(ctx, node)
	p.start(ctx, fmt.Sprintf("kubelet-%d", node))
}
