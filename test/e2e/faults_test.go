package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
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
		for range 3 {
			for n := 1; n <= nodes; n++ {
				pod := f.pod(ctx, n)
				restarts := pod.Status.ContainerStatuses[0].RestartCount
				cluster.signal(ctx, n, pod, syscall.SIGKILL)
				Eventually(func(g Gomega) {
					now := f.pod(ctx, n)
					g.Expect(now.UID).To(Equal(pod.UID), "the kubelet restarts a container; the operator needs not")
					g.Expect(now.Status.ContainerStatuses[0].RestartCount).To(BeNumerically(">", restarts))
					g.Expect(now.Status.ContainerStatuses[0].Ready).To(BeTrue())
				}).WithContext(ctx).WithTimeout(whole).Should(Succeed())
			}
		}
		f.waitWell(ctx, whole)
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
		report("hang: noticed after %s: %s", since(begin), f.get(ctx).Status.Targets[0].Message)
		keep(ctx, f, "hang")
		Eventually(func() bool {
			p := f.pod(ctx, 1)
			return p.UID != pod.UID || p.Status.ContainerStatuses[0].RestartCount > 0
		}).
			WithContext(ctx).WithTimeout(whole).Should(BeTrue())
		f.waitWell(ctx, whole)
		report("hang: whole after %s", since(begin))
		keep(ctx, f, "hang-over")
		Expect(f.pod(ctx, 2).UID).To(Equal(other.UID))
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
		report("force: whole after %s", since(begin))
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
		report("sink-down: noticed after %s", since(begin))
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
		report("crash: noticed after %s: %s", since(begin), f.get(ctx).Status.Targets[0].Message)
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

var _ = Describe("a node", Label("node"), func() {
	It("comes back with its kubelet", func(ctx SpecContext) {
		f := newFleet(ctx, "kubelet", rate)
		f.create(ctx, f.object())
		uid := f.pod(ctx, 2).UID
		begin := time.Now()
		cluster.stop(ctx, "kubelet-2", "KILL")
		Eventually(func(g Gomega) {
			var node corev1.Node
			g.Expect(k8s.Get(ctx, client.ObjectKey{Name: "node-2"}, &node)).To(Succeed())
			for _, c := range node.Status.Conditions {
				if c.Type == corev1.NodeReady {
					g.Expect(c.Status).NotTo(Equal(corev1.ConditionTrue))
				}
			}
		}).WithContext(ctx).WithTimeout(whole).Should(Succeed())
		report("kubelet: its node is lost after %s", since(begin))
		keep(ctx, f, "node-lost")
		time.Sleep(time.Until(begin.Add(75 * time.Second)))
		cluster.start(ctx, "kubelet-2")
		f.waitWell(ctx, whole)
		report("kubelet: whole after %s", since(begin))
		Expect(f.pod(ctx, 2).UID).To(Equal(uid), "a parser on a node that is cut off works, and stays")
		f.exact(ctx)
	}, SpecTimeout(12*time.Minute))

	It("goes through the death of containerd", func(ctx SpecContext) {
		f := newFleet(ctx, "containerd", rate)
		f.create(ctx, f.object())
		cluster.stop(ctx, "containerd-1", "KILL")
		time.Sleep(15 * time.Second)
		cluster.start(ctx, "containerd-1")
		f.waitWell(ctx, whole)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("may have data that cannot be read, which is said", func(ctx SpecContext) {
		f := newFleet(ctx, "unreadable", rate)
		f.create(ctx, f.object())
		data := f.dataPath()
		begin := time.Now()
		cluster.onNode(ctx, 1, "chmod", "0700", data)
		target := f.waitVerdict(ctx, "SourceUnreadable", "the data directory (owner 0, mode 0700)")
		report("unreadable: noticed after %s: %s", since(begin), target.Message)
		keep(ctx, f, "unreadable")
		cluster.onNode(ctx, 1, "chmod", "0755", data)
		f.waitWell(ctx, whole)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))
})

var _ = Describe("the control plane", Label("control"), func() {
	It("may be away for a minute", func(ctx SpecContext) {
		f := newFleet(ctx, "api-away", rate)
		f.create(ctx, f.object())
		uids := map[int]any{1: f.pod(ctx, 1).UID, 2: f.pod(ctx, 2).UID}
		cluster.stop(ctx, "kube-apiserver", "KILL")
		time.Sleep(time.Minute)
		cluster.start(ctx, "kube-apiserver")
		begin := time.Now()
		Eventually(func() error {
			return k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: f.name}, &v1alpha1.HyperliquidParser{})
		}).WithContext(ctx).WithTimeout(whole).Should(Succeed())
		back := time.Now()
		f.waitChange(ctx)
		report("api-away: the API server answers %s after its start; a change is seen %s later",
			back.Sub(begin).Round(100*time.Millisecond), since(back))
		waitOperator(ctx)
		f.waitWell(ctx, whole)
		for n, uid := range uids {
			Expect(f.pod(ctx, n).UID).To(Equal(uid))
		}
		Expect(f.get(ctx).Status.Restarts).To(BeZero())
		f.exact(ctx)
	}, SpecTimeout(12*time.Minute))

	It("elects another leader when the leader is killed, which restarts nothing", func(ctx SpecContext) {
		f := newFleet(ctx, "leader", rate)
		f.create(ctx, f.object())
		uid := f.pod(ctx, 1).UID
		pods, err := clients.CoreV1().Pods(operatorNamespace).List(ctx, metav1.ListOptions{})
		Expect(err).NotTo(HaveOccurred())
		before := leader(ctx)
		for i := range pods.Items {
			pod := &pods.Items[i]
			var node int
			_, err := fmt.Sscanf(pod.Spec.NodeName, "node-%d", &node)
			Expect(err).NotTo(HaveOccurred())
			// A force delete alone would leave the process, which might still act. A killed container would lead again.
			cluster.signal(ctx, node, pod, syscall.SIGKILL)
			Expect(k8s.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		}
		begin := time.Now()
		Eventually(func() string { return leader(ctx) }).WithContext(ctx).WithTimeout(whole).
			ShouldNot(Or(BeEmpty(), Equal(before)))
		report("leader: another one leads %s after both were killed", since(begin))
		By("acting, as a change of the spec shows")
		f.waitChange(ctx)
		report("leader: a change is seen %s after both were killed", since(begin))
		waitOperator(ctx)
		Expect(f.pod(ctx, 1).UID).To(Equal(uid))
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))
})

// leader returns the identity of the manager that holds the lease.
func leader(ctx context.Context) string {
	GinkgoHelper()
	leases, err := clients.CoordinationV1().Leases(operatorNamespace).List(ctx, metav1.ListOptions{})
	Expect(err).NotTo(HaveOccurred())
	Expect(leases.Items).To(HaveLen(1))
	return ptr.Deref(leases.Items[0].Spec.HolderIdentity, "")
}

var _ = Describe("a rollout", Label("rollout"), func() {
	canary := func(obj *v1alpha1.HyperliquidParser, soak time.Duration) {
		obj.Spec.Rollout = v1alpha1.Rollout{
			MaxUnavailable: ptr.To(intstr.FromInt32(1)),
			Canary:         &v1alpha1.Canary{Count: ptr.To(intstr.FromInt32(1)), Soak: &metav1.Duration{Duration: soak}},
		}
	}

	It("goes through a canary that is well", func(ctx SpecContext) {
		f := newFleet(ctx, "canary", rate)
		obj := f.object()
		canary(obj, 20*time.Second)
		f.create(ctx, obj)
		begin := time.Now()
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) {
			obj.Spec.Filter.Coins = nil
			obj.Spec.Engine.Workers = ptr.To[int32](1)
		})
		f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
			g.Expect(obj.Status.Updated).To(BeEquivalentTo(nodes))
			g.Expect(obj.Status.CurrentRevision).To(Equal(obj.Status.UpdateRevision))
		})
		f.waitWell(ctx, whole)
		report("canary: complete after %s", since(begin))
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("stops at a canary that cannot start, and leaves the others alone", func(ctx SpecContext) {
		f := newFleet(ctx, "canary-image", rate)
		obj := f.object()
		canary(obj, 20*time.Second)
		f.create(ctx, obj)
		begin := time.Now()
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) {
			obj.Spec.Image = "hyperliquid-parser-operator:nowhere"
			obj.Spec.ImagePullPolicy = corev1.PullNever
		})
		f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			stalled := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionStalled)
			g.Expect(stalled).NotTo(BeNil())
			g.Expect(stalled.Status).To(Equal(metav1.ConditionTrue), "%+v", obj.Status.Conditions)
			g.Expect(stalled.Reason).To(Equal(v1alpha1.ReasonCanaryFailed))
			g.Expect(stalled.Message).To(ContainSubstring("ErrImageNeverPull"))
		})
		report("canary-image: failed after %s", since(begin))
		keep(ctx, f, "canary-cannot-start")
		f.waitWellBut(ctx)
		By("going on once the spec is set back")
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Image, obj.Spec.ImagePullPolicy = "", "" })
		f.waitWell(ctx, whole)
		f.exact(ctx)
	}, SpecTimeout(12*time.Minute))

	It("says why a pod is refused, and makes it when nothing is in the way any more", func(ctx SpecContext) {
		f := newFleet(ctx, "refused", rate)
		quota := &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "one"},
			Spec: corev1.ResourceQuotaSpec{
				Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")},
			},
		}
		Expect(k8s.Create(ctx, quota)).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(quota), quota)).To(Succeed())
			g.Expect(quota.Status.Hard).NotTo(BeEmpty())
		}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
		Expect(k8s.Create(ctx, f.object())).To(Succeed())
		f.waitStatus(ctx, noticed, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			stalled := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionStalled)
			g.Expect(stalled).NotTo(BeNil())
			g.Expect(stalled.Reason).To(Equal(v1alpha1.ReasonPodRejected))
			g.Expect(stalled.Message).To(ContainSubstring("exceeded quota"))
		})
		keep(ctx, f, "pod-refused")
		Expect(k8s.Delete(ctx, quota)).To(Succeed())
		begin := time.Now()
		f.waitWell(ctx, whole)
		report("refused: whole %s after the quota went", since(begin))
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))
})

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

	It("is reached by an operator outside of the cluster, through the API server", func(ctx SpecContext) {
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
		report("outside: noticed after %s: %s", since(begin), target.Message)
		f.waitWell(ctx, whole)
		report("outside: whole after %s", since(begin))
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
