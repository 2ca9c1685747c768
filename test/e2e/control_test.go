package e2e_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

var _ = Describe("the control plane", Label("control"), Serial, func() {
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
		report("the API server answers %s after its start; a change is seen %s later",
			back.Sub(begin).Round(100*time.Millisecond), since(back))
		reportWhole(back)
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
			// A force delete alone would leave the process, which might still act. A killed container would lead again.
			cluster.signal(ctx, nodeOf(pod), pod, syscall.SIGKILL)
			Expect(k8s.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		}
		begin := time.Now()
		Eventually(func() string { return leader(ctx) }).WithContext(ctx).WithTimeout(whole).
			ShouldNot(Or(BeEmpty(), Equal(before)))
		reportNoticed(begin, "another one leads")
		By("acting, as a change of the spec shows")
		f.waitChange(ctx)
		reportWhole(begin)
		waitOperator(ctx)
		Expect(f.pod(ctx, 1).UID).To(Equal(uid))
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("may have a leader that stops and wakes when another one leads, and then acts no more", func(ctx SpecContext) {
		f := newFleet(ctx, "woken", rate)
		f.create(ctx, f.object())
		spreadOperator(ctx)
		before, stopped := leader(ctx), leaderPod(ctx)
		restarts := stopped.Status.ContainerStatuses[0].RestartCount
		seen := f.watchPods(ctx)
		begin := time.Now()
		By("changing the spec while the leader is stopped")
		cluster.signal(ctx, nodeOf(stopped), stopped, syscall.SIGSTOP)
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Engine.Workers = ptr.To[int32](1) })
		Eventually(func() string { return leader(ctx) }).WithContext(ctx).WithTimeout(whole).
			ShouldNot(Or(BeEmpty(), Equal(before)))
		reportNoticed(begin, "another one leads")
		By("waking it")
		now := leader(ctx)
		cluster.signal(ctx, nodeOf(stopped), stopped, syscall.SIGCONT)
		Eventually(func(g Gomega) {
			pod, err := clients.CoreV1().Pods(operatorNamespace).Get(ctx, stopped.Name, metav1.GetOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			status := pod.Status.ContainerStatuses[0]
			g.Expect(status.RestartCount).To(BeNumerically(">", restarts), "it ends, since it has lost the lease")
			ended := status.LastTerminationState.Terminated
			g.Expect(ended).NotTo(BeNil())
			report("the woken manager has ended with status %d: %s", ended.ExitCode, ended.Message)
		}).WithContext(ctx).WithTimeout(whole).Should(Succeed())
		f.waitWell(ctx, whole)
		reportWhole(begin)
		waitOperator(ctx)
		Expect(leader(ctx)).To(Equal(now))
		Expect(seen()).To(HaveLen(2*nodes), "each target got one pod of the new revision")
		Expect(f.get(ctx).Status.Restarts).To(BeZero())
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("may lose the operator in mid-rollout, which goes on when it is installed again", func(ctx SpecContext) {
		f := newFleet(ctx, "mid-rollout", rate)
		obj := f.object()
		withCanary(obj, 20*time.Second)
		f.create(ctx, obj)
		seen := f.watchPods(ctx)
		f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Engine.Workers = ptr.To[int32](1) })
		f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
			g.Expect(obj.Status.Updated).To(BeEquivalentTo(1))
			g.Expect(obj.Status.Ready).To(BeEquivalentTo(nodes))
		})
		DeferCleanup(func(ctx SpecContext) {
			kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-f", env.installer)
			waitOperator(ctx)
		}, NodeTimeout(installed+time.Minute))
		kubectl(ctx, "delete", "deployment", "-n", operatorNamespace, operatorName, "--cascade=foreground")
		Expect(seen()).To(HaveLen(nodes + 1))
		time.Sleep(30 * time.Second) // longer than the canary has to soak
		Expect(seen()).To(HaveLen(nodes+1), "nobody goes on with the rollout")
		begin := time.Now()
		kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-f", env.installer)
		f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			g.Expect(obj.Status.Updated).To(BeEquivalentTo(nodes))
			g.Expect(obj.Status.CurrentRevision).To(Equal(obj.Status.UpdateRevision))
		})
		f.waitWell(ctx, whole)
		reportWhole(begin)
		Expect(seen()).To(HaveLen(2*nodes), "each target got one pod of the new revision")
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

// leaderPod returns the pod of the manager that leads.
func leaderPod(ctx context.Context) *corev1.Pod {
	GinkgoHelper()
	holder := leader(ctx)
	pods, err := clients.CoreV1().Pods(operatorNamespace).List(ctx, metav1.ListOptions{})
	Expect(err).NotTo(HaveOccurred())
	for i := range pods.Items {
		if strings.HasPrefix(holder, pods.Items[i].Name+"_") {
			return &pods.Items[i]
		}
	}
	Fail("no pod is the leader " + holder)
	return nil
}

// spreadOperator waits until the managers are on different nodes. After a drain they may be on one.
func spreadOperator(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		waitOperator(ctx)
		leads := leaderPod(ctx)
		pods, err := clients.CoreV1().Pods(operatorNamespace).List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		for i := range pods.Items {
			pod := &pods.Items[i]
			if pod.Name != leads.Name && pod.Spec.NodeName == leads.Spec.NodeName {
				g.Expect(k8s.Delete(ctx, pod)).To(Succeed())
				g.Expect(pod.Spec.NodeName).NotTo(Equal(leads.Spec.NodeName), "both managers are there")
			}
		}
	}).WithContext(ctx).WithTimeout(installed).WithPolling(2 * time.Second).Should(Succeed())
}

// watchPods returns a function that returns the UIDs of all of the fleet's pods that exist or were made since.
func (f *fleet) watchPods(ctx context.Context) func() []types.UID {
	GinkgoHelper()
	list, err := clients.CoreV1().Pods(f.namespace).List(ctx, metav1.ListOptions{})
	Expect(err).NotTo(HaveOccurred())
	var mu sync.Mutex
	seen := map[types.UID]bool{}
	for i := range list.Items {
		seen[list.Items[i].UID] = true
	}
	events, err := watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return clients.CoreV1().Pods(f.namespace).Watch(ctx, options)
		},
	})
	Expect(err).NotTo(HaveOccurred())
	var done sync.WaitGroup
	done.Go(func() {
		for event := range events.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok {
				mu.Lock()
				seen[pod.UID] = true
				mu.Unlock()
			}
		}
	})
	DeferCleanup(func() { events.Stop(); done.Wait() })
	return func() []types.UID {
		mu.Lock()
		defer mu.Unlock()
		return slices.Collect(maps.Keys(seen))
	}
}
