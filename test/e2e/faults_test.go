package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
)

// rate is that of most specs, in lines a second, stream and node.
const rate = 500

var _ = Describe("a fleet", Label("fleet"), func() {
	It("delivers everything, and is left alone at rest", func(ctx SpecContext) {
		f := newFleet(ctx, "healthy", rate)
		f.create(ctx, f.object())
		keep(ctx, f, "healthy")
		before := f.get(ctx).ResourceVersion
		Consistently(func() string { return f.get(ctx).ResourceVersion }).
			WithContext(ctx).WithTimeout(20*time.Second).WithPolling(time.Second).Should(Equal(before), "a write at rest")
		f.exact(ctx)
	}, SpecTimeout(8*time.Minute))

	It("keeps the rate of a busy node", func(ctx SpecContext) {
		f := newFleet(ctx, "busy", 5000) // 10,000 statuses a second on both nodes
		f.create(ctx, f.object())
		time.Sleep(20 * time.Second) // what is written meanwhile is what is compared
		f.exact(ctx)
	}, SpecTimeout(8*time.Minute))

	It("loses nothing through kill -9 of parsers", func(ctx SpecContext) {
		f := newFleet(ctx, "killed", rate)
		f.create(ctx, f.object())
		begin := time.Now()
		for range 3 {
			for n := 1; n <= nodes; n++ {
				f.kill(ctx, n)
			}
		}
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("restarts a parser that hangs, and only that", func(ctx SpecContext) {
		f := newFleet(ctx, "hang", rate)
		f.create(ctx, f.object())
		pod, other := f.pod(ctx, 1), f.pod(ctx, 2)
		begin := time.Now()
		cluster.signal(ctx, 1, pod, syscall.SIGSTOP)
		Eventually(func(g Gomega) {
			g.Expect(f.get(ctx).Status.Targets).NotTo(BeEmpty())
		}).WithContext(ctx).WithTimeout(noticed).Should(Succeed())
		reportNoticed(begin, "%s", f.get(ctx).Status.Targets[0].Message)
		keep(ctx, f, "hang")
		Eventually(func() bool {
			p := f.pod(ctx, 1)
			return p.UID != pod.UID || p.Status.ContainerStatuses[0].RestartCount > 0
		}).
			WithContext(ctx).WithTimeout(whole).Should(BeTrue())
		f.waitWell(ctx, whole)
		reportWhole(begin)
		keep(ctx, f, "hang-over")
		Expect(f.pod(ctx, 2).UID).To(Equal(other.UID))
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("restarts a parser that answers and delivers nothing, and only that", func(ctx SpecContext) {
		if env.faults == "" {
			Skip("E2E_FAULTS_IMAGE names no image whose parser can be made to hang")
		}
		f := newFleet(ctx, "stuck", rate)
		obj := f.object()
		obj.Spec.Image, obj.Spec.ImagePullPolicy = env.faults, corev1.PullNever
		f.create(ctx, obj)
		pod, other := f.pod(ctx, 1), f.pod(ctx, 2)
		begin := time.Now()
		url := fmt.Sprintf("http://%s:%d/debug/fault/hang", pod.Status.PodIP, pod.Spec.Containers[0].Ports[0].ContainerPort)
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
		Expect(err).NotTo(HaveOccurred())
		response, err := http.DefaultClient.Do(request)
		Expect(err).NotTo(HaveOccurred())
		Expect(response.Body.Close()).To(Succeed())
		Expect(response.StatusCode).To(Equal(http.StatusNoContent))
		target := f.waitVerdict(ctx, "Stuck")
		reportNoticed(begin, "%s", target.Message)
		keep(ctx, f, "stuck")
		Eventually(func() types.UID { return f.pod(ctx, 1).UID }).WithContext(ctx).WithTimeout(whole).
			ShouldNot(Equal(pod.UID), "the operator replaces its pod")
		f.waitWell(ctx, whole)
		reportWhole(begin)
		keep(ctx, f, "stuck-over")
		Expect(f.pod(ctx, 2).UID).To(Equal(other.UID))
		Expect(f.get(ctx).Status.Restarts).To(BeEquivalentTo(1))
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("says that a parser ran out of memory while it ran, and goes on with more", func(ctx SpecContext) {
		f := newFleet(ctx, "memory", rate)
		obj := f.object()
		limit := func(obj *v1alpha1.HyperliquidParser, memory string) {
			obj.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
			obj.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")}
		}
		limit(obj, "96Mi")
		f.create(ctx, obj)
		uid := f.pod(ctx, 2).UID
		begin := time.Now()
		f.writeLong(1, 60<<20)
		target := f.waitVerdict(ctx, "NotRunning", "OOMKilled (limit 96Mi)")
		reportNoticed(begin, "%s", target.Message)
		keep(ctx, f, "memory")
		Eventually(func(g Gomega) {
			pod := f.pod(ctx, 1)
			g.Expect(pod.Status.ContainerStatuses[0].State.Running).To(BeNil(), "it runs again, until it reads the line")
			record(ctx, f, "oom-killed", pod)
		}).WithContext(ctx).WithTimeout(whole).Should(Succeed())
		Expect(f.pod(ctx, 2).UID).To(Equal(uid))
		By("giving the parsers as much as such a line needs")
		begin = time.Now()
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { limit(obj, "512Mi") })
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("replaces a pod that is deleted by force", func(ctx SpecContext) {
		f := newFleet(ctx, "force", rate)
		f.create(ctx, f.object())
		begin := time.Now()
		pod := f.pod(ctx, 1)
		Expect(k8s.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		Eventually(func() bool { return f.pod(ctx, 1).UID != pod.UID }).WithContext(ctx).WithTimeout(whole).Should(BeTrue())
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(8*time.Minute))

	It("says that a sink is down, and restarts nothing for it", func(ctx SpecContext) {
		f := newFleet(ctx, "sink-down", rate)
		obj := f.object()
		// TEST-NET-1: no one answers.
		obj.Spec.Sink = v1alpha1.Sink{NATS: &v1alpha1.NATSSink{URL: "nats://192.0.2.1:4222", Stream: "HYPERLIQUID"}}
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		begin := time.Now()
		f.waitVerdict(ctx, "SinkDown")
		reportNoticed(begin, "SinkDown")
		Eventually(func() int32 { return f.get(ctx).Status.Bad }).
			WithContext(ctx).WithTimeout(noticed).Should(BeEquivalentTo(nodes))
		keep(ctx, f, "sink-down")
		uid := f.pod(ctx, 1).UID
		Consistently(func() any { return f.pod(ctx, 1).UID }).
			WithContext(ctx).WithTimeout(20 * time.Second).Should(Equal(uid))
		Expect(f.get(ctx).Status.Restarts).To(BeZero())
		By("going on where it stood, once there is another sink")
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Sink = f.object().Spec.Sink })
		f.waitWell(ctx, whole)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("says why a parser crashes", func(ctx SpecContext) {
		f := newFleet(ctx, "crash", rate)
		f.create(ctx, f.object())
		By("running out of memory in the new revision")
		begin := time.Now()
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) {
			obj.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("6Mi")}
			obj.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("6Mi")}
		})
		f.waitVerdict(ctx, "NotRunning")
		reportNoticed(begin, "%s", f.get(ctx).Status.Targets[0].Message)
		Eventually(func() string { return kubectl(ctx, "describe", "hlp", f.name, "-n", f.namespace) }).
			WithContext(ctx).WithTimeout(noticed).Should(Or(
			ContainSubstring("CrashLoopBackOff"), ContainSubstring("OOMKilled"), ContainSubstring("StartError")))
		keep(ctx, f, "crash")
		By("going back")
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Resources = corev1.ResourceRequirements{} })
		f.waitWell(ctx, whole)
		f.exact(ctx)
	}, SpecTimeout(12*time.Minute))
})

// writeLong writes an hour with one order status of about that many bytes, which a parser must hold as a whole.
func (f *fleet) writeLong(node, bytes int) {
	GinkgoHelper()
	g, err := gen.New(gen.Options{Source: sources[0], Seed: 99})
	Expect(err).NotTo(HaveOccurred())
	at := time.Now().UTC().Add(-48 * time.Hour)
	line, _ := g.AppendLine(nil, at)
	// The text of a status has no bound of its own.
	long := strings.Replace(string(line), `"status":"`, `"status":"`+strings.Repeat("x", bytes), 1)
	dir := filepath.Join(cluster.hostPath(node, f.disk), sources[0].Dir(), at.Format("20060102"))
	Expect(os.MkdirAll(dir, 0o755)).To(Succeed())
	Expect(os.WriteFile(filepath.Join(dir, strconv.Itoa(at.Hour())), []byte(long), 0o644)).To(Succeed())
	f.extra++
}

// kill kills a node's parser with SIGKILL, and waits until the kubelet has started it again.
func (f *fleet) kill(ctx context.Context, node int) {
	GinkgoHelper()
	pod := f.pod(ctx, node)
	restarts := pod.Status.ContainerStatuses[0].RestartCount
	cluster.signal(ctx, node, pod, syscall.SIGKILL)
	Eventually(func(g Gomega) {
		now := f.pod(ctx, node)
		g.Expect(now.UID).To(Equal(pod.UID), "the kubelet restarts a container; the operator needs not")
		g.Expect(now.Status.ContainerStatuses[0].RestartCount).To(BeNumerically(">", restarts))
		g.Expect(now.Status.ContainerStatuses[0].Ready).To(BeTrue())
	}).WithContext(ctx).WithTimeout(whole).Should(Succeed())
}

var _ = Describe("a parser's pod", Label("security"), func() {
	It("answers no stranger", func(ctx SpecContext) {
		f := newFleet(ctx, "stranger", rate)
		f.create(ctx, f.object())
		pod := f.pod(ctx, 1)
		port := pod.Spec.Containers[0].Ports[0].ContainerPort
		for _, path := range []string{"status", "debug/stack"} {
			answer, err := clients.CoreV1().RESTClient().Get().Namespace(f.namespace).Resource("pods").
				Name(fmt.Sprintf("%s:%d", pod.Name, port)).SubResource("proxy").Suffix(path).DoRaw(ctx)
			Expect(apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)).To(BeTrue(), "%v: %s", err, answer)
			report("stranger: %s: %v", path, err)
		}
		f.exact(ctx)
	}, SpecTimeout(8*time.Minute))

	It("is reached by an operator outside of the cluster, through the API server", Serial, func(ctx SpecContext) {
		if env.manager == "" {
			Skip("E2E_MANAGER names no program to run outside of the cluster")
		}
		scaleOperator(ctx, 0)
		DeferCleanup(func(ctx SpecContext) { scaleOperator(ctx, 2) }, NodeTimeout(installed))
		log, err := os.Create(filepath.Join(GinkgoT().TempDir(), "manager.log"))
		Expect(err).NotTo(HaveOccurred())
		manager := exec.Command(env.manager, "--kubeconfig="+env.kubeconfig, "--poll-via=port-forward",
			"--parser-image="+env.image, "--key-secret=default/outside-keys")
		manager.Stdout, manager.Stderr = log, log
		Expect(manager.Start()).To(Succeed())
		DeferCleanup(func() {
			_ = manager.Process.Signal(syscall.SIGTERM)
			_ = manager.Wait() // its status is that of the signal
			if CurrentSpecReport().Failed() {
				text, err := os.ReadFile(log.Name())
				Expect(err).NotTo(HaveOccurred())
				AddReportEntry("the manager's log", string(text))
			}
		})
		f := newFleet(ctx, "outside", rate)
		f.create(ctx, f.object())
		By("reporting what the kubelet says when a parser does not answer")
		begin := time.Now()
		cluster.signal(ctx, 1, f.pod(ctx, 1), syscall.SIGSTOP)
		target := f.waitVerdict(ctx, "Unreachable")
		reportNoticed(begin, "%s", target.Message)
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))
})

// scaleOperator sets the number of managers and waits until as many are ready, and the others are gone.
func scaleOperator(ctx context.Context, replicas int) {
	GinkgoHelper()
	kubectl(ctx, "-n", operatorNamespace, "scale", "deployment", operatorName, fmt.Sprintf("--replicas=%d", replicas))
	waitOperator(ctx)
	Eventually(func(g Gomega) {
		pods, err := clients.CoreV1().Pods(operatorNamespace).List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(pods.Items).To(HaveLen(replicas))
	}).WithContext(ctx).WithTimeout(installed).Should(Succeed())
}
