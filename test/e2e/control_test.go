package e2e_test

import (
	"context"
	"fmt"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
