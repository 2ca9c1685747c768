package e2e_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

var _ = Describe("a node", Label("node"), Serial, func() {
	It("comes back with its kubelet", func(ctx SpecContext) {
		f := newFleet(ctx, "kubelet", rate)
		f.create(ctx, f.object())
		uid := f.pod(ctx, 2).UID
		begin := time.Now()
		cluster.stop(ctx, "kubelet-2", "KILL")
		f.waitStory(ctx, "none for node-2")
		reportNoticed(begin, "%s", f.get(ctx).Status.Story)
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
		pod := f.pod(ctx, 1)
		cluster.stop(ctx, "containerd-1", "KILL")
		time.Sleep(15 * time.Second) // how long it is away
		begin := time.Now()
		cluster.start(ctx, "containerd-1")
		cluster.waitContainerd(ctx, 1)
		f.waitWell(ctx, whole)
		reportWhole(begin)
		now := f.pod(ctx, 1)
		Expect(now.UID).To(Equal(pod.UID))
		Expect(now.Status.ContainerStatuses[0].RestartCount).To(BeZero(), "containers outlive containerd")
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("may be drained, and gets its parser back when it is uncordoned", func(ctx SpecContext) {
		f := newFleet(ctx, "drain", rate)
		f.create(ctx, f.object())
		uid := f.pod(ctx, 1).UID
		DeferCleanup(func(ctx SpecContext) { kubectl(ctx, "uncordon", "node-2"); waitOperator(ctx) },
			NodeTimeout(installed))
		begin := time.Now()
		kubectl(ctx, "drain", "node-2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
		report("drained after %s", since(begin))
		f.waitStory(ctx, "none for node-2")
		reportNoticed(begin, "%s", f.get(ctx).Status.Story)
		keep(ctx, f, "drained")
		Consistently(func(g Gomega) { g.Expect(f.pods(ctx, 2)).To(BeEmpty()) }).
			WithContext(ctx).WithTimeout(10 * time.Second).Should(Succeed())
		begin = time.Now()
		kubectl(ctx, "uncordon", "node-2")
		f.waitWell(ctx, whole)
		reportWhole(begin)
		Expect(f.pod(ctx, 1).UID).To(Equal(uid))
		Expect(f.get(ctx).Status.Restarts).To(BeZero())
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("may lose its power with the leader on it", func(ctx SpecContext) {
		f := newFleet(ctx, "power", rate)
		f.create(ctx, f.object())
		spreadOperator(ctx)
		before := leader(ctx)
		lost := nodeOf(leaderPod(ctx))
		other := nodes + 1 - lost
		uid := f.pod(ctx, other).UID
		DeferCleanup(waitOperator, NodeTimeout(installed))
		begin := time.Now()
		cluster.powerOff(ctx, lost)
		Eventually(func() string { return leader(ctx) }).WithContext(ctx).WithTimeout(whole).
			ShouldNot(Or(BeEmpty(), Equal(before)))
		report("another one leads after %s", since(begin))
		target := f.waitVerdict(ctx, "Unreachable")
		reportNoticed(begin, "%s", target.Message)
		keep(ctx, f, "power-lost")
		begin = time.Now()
		cluster.powerOn(ctx, lost)
		f.waitWell(ctx, whole)
		reportWhole(begin)
		Expect(f.pod(ctx, other).UID).To(Equal(uid))
		Expect(f.get(ctx).Status.Restarts).To(BeZero())
		f.exact(ctx)
	}, SpecTimeout(12*time.Minute))

	It("may be deleted, and registers again", func(ctx SpecContext) {
		f := newFleet(ctx, "deleted", rate)
		f.create(ctx, f.object())
		uid := f.pod(ctx, 1).UID
		DeferCleanup(waitOperator, NodeTimeout(installed))
		DeferCleanup(func(ctx SpecContext) {
			if k8s.Get(ctx, client.ObjectKey{Name: "node-2"}, &corev1.Node{}) != nil { // the spec did not get that far
				cluster.run(ctx, "stop", "kubelet-2")
				cluster.run(ctx, "start", "kubelet-2")
			}
		}, NodeTimeout(time.Minute))
		begin := time.Now()
		Expect(k8s.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-2"}})).To(Succeed())
		f.waitStatus(ctx, noticed, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			g.Expect(obj.Status.Desired).To(BeEquivalentTo(nodes - 1))
		})
		reportNoticed(begin, "%s", f.get(ctx).Status.Story)
		By("starting its kubelet again, which registers it")
		cluster.stop(ctx, "kubelet-2", "TERM")
		begin = time.Now()
		cluster.start(ctx, "kubelet-2")
		Eventually(func() error {
			return k8s.Get(ctx, client.ObjectKey{Name: "node-2"}, &corev1.Node{})
		}).WithContext(ctx).WithTimeout(whole).Should(Succeed())
		kubectl(ctx, "label", "node", "node-2", "--overwrite", f.label()+"=")
		f.waitWell(ctx, whole)
		reportWhole(begin)
		Expect(f.pod(ctx, 1).UID).To(Equal(uid))
		f.exact(ctx)
	}, SpecTimeout(12*time.Minute))
})

var _ = Describe("a node's data", Label("node"), func() {
	It("may be unreadable", func(ctx SpecContext) {
		f := newFleet(ctx, "unreadable", rate)
		f.create(ctx, f.object())
		data := f.dataPath()
		begin := time.Now()
		cluster.onNode(ctx, 1, "chmod", "0700", data)
		target := f.waitVerdict(ctx, "SourceUnreadable", "the data directory (owner 0, mode 0700)")
		reportNoticed(begin, "%s", target.Message)
		keep(ctx, f, "unreadable")
		begin = time.Now()
		cluster.onNode(ctx, 1, "chmod", "0755", data)
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("may be missing until the Hyperliquid node first writes", func(ctx SpecContext) {
		f := &fleet{namespace: "missing", rate: rate, later: true}
		f.start(ctx)
		begin := time.Now()
		Expect(k8s.Create(ctx, f.object())).To(Succeed())
		target := f.waitVerdict(ctx, "NotRunning", v1alpha1.ReasonDataPathMissing)
		reportNoticed(begin, "%s", target.Message)
		keep(ctx, f, "missing")
		record(ctx, f, "data-missing", f.pod(ctx, 1))
		begin = time.Now()
		f.write()
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))

	It("may be on a disk that is mounted after the parser, taken away and brought back", func(ctx SpecContext) {
		const disk = "/srv/disk/data"
		f := &fleet{namespace: "disk", rate: rate, disk: disk}
		f.start(ctx)
		mount := func(node int) { cluster.onNode(ctx, node, "mount", "--bind", disk, f.dataPath()) }
		for n := 1; n <= nodes; n++ {
			cluster.onNode(ctx, n, "mkdir", "-p", f.dataPath())
			DeferCleanup(func(ctx SpecContext) {
				cluster.onNode(ctx, n, "sh", "-c", "while mountpoint -q "+f.dataPath()+"; do umount -l "+f.dataPath()+"; done")
			})
		}
		Expect(k8s.Create(ctx, f.object())).To(Succeed())
		var pods []types.UID
		for n := 1; n <= nodes; n++ {
			Eventually(func() bool { return f.pod(ctx, n).Status.ContainerStatuses[0].State.Running != nil }).
				WithContext(ctx).WithTimeout(started).Should(BeTrue())
			pods = append(pods, f.pod(ctx, n).UID)
		}
		begin := time.Now()
		mount(1)
		mount(2)
		f.waitWell(ctx, whole)
		report("the disk is mounted: well after %s", since(begin))
		begin = time.Now()
		cluster.onNode(ctx, 1, "umount", "-l", f.dataPath())
		target := f.waitVerdict(ctx, "SourceUnreadable")
		reportNoticed(begin, "%s", target.Message)
		keep(ctx, f, "disk-away")
		Consistently(func(g Gomega) {
			intact := meta.FindStatusCondition(f.get(ctx).Status.Conditions, v1alpha1.ConditionDataIntact)
			g.Expect(intact).NotTo(BeNil())
			g.Expect(intact.Status).To(Equal(metav1.ConditionTrue), intact.Message)
		}).WithContext(ctx).WithTimeout(15*time.Second).Should(Succeed(), "what is out of sight is not lost")
		begin = time.Now()
		mount(1)
		f.waitWell(ctx, whole)
		reportWhole(begin)
		for n := 1; n <= nodes; n++ {
			Expect(f.pod(ctx, n).UID).To(Equal(pods[n-1]))
		}
		f.exact(ctx)
		Expect(meta.IsStatusConditionTrue(f.get(ctx).Status.Conditions, v1alpha1.ConditionDataIntact)).To(BeTrue())
	}, SpecTimeout(10*time.Minute))

	It("may have a pruner that removes hours when they are over", func(ctx SpecContext) {
		f := &fleet{namespace: "pruner", rate: rate, hour: 5 * time.Second, prunes: true}
		f.start(ctx)
		f.create(ctx, f.object())
		removed, begin := 0, time.Now()
		for removed < 40 {
			for n := 1; n <= nodes; n++ {
				count, err := f.prune(n)
				Expect(err).NotTo(HaveOccurred())
				removed += count
			}
			Expect(time.Since(begin)).To(BeNumerically("<", whole))
			time.Sleep(time.Second) // how often the pruner runs
		}
		report("the pruner has removed %d files", removed)
		f.waitWell(ctx, whole)
		f.rest()
		for n := 1; n <= nodes; n++ { // the others get their second names
			_, err := f.prune(n)
			Expect(err).NotTo(HaveOccurred())
		}
		f.exact(ctx)
		Expect(meta.IsStatusConditionTrue(f.get(ctx).Status.Conditions, v1alpha1.ConditionDataIntact)).To(BeTrue())
	}, SpecTimeout(8*time.Minute))
})
