package e2e_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("a node", Label("node"), Serial, func() {
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
		reportNoticed(begin, "its node is not ready")
		keep(ctx, f, "node-lost")
		time.Sleep(time.Until(begin.Add(75 * time.Second)))
		cluster.start(ctx, "kubelet-2")
		f.waitWell(ctx, whole)
		reportWhole(begin)
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
		reportNoticed(begin, "%s", target.Message)
		keep(ctx, f, "unreadable")
		cluster.onNode(ctx, 1, "chmod", "0755", data)
		f.waitWell(ctx, whole)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))
})
