package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/compare"
	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
)

const (
	// nodePod is the StatefulSet that stands for a chart of Hyperliquid nodes. Its containers do nothing: the suite writes
	// what a node writes to where its claims are.
	nodePod = "hl-node"
	// idle is the one image besides the operator's that every node has.
	idle = "registry.k8s.io/pause:3.10"
	// recordsClaim holds records where host paths are not allowed.
	recordsClaim = "records"
	nodeUser     = 10000 // of the official image
)

// chart is how a chart of Hyperliquid nodes uses its claim.
type chart struct {
	mountSubPath string // of the claim, which the node's container mounts
	data         string // the data directory in the claim
	user         int64  // of the node
	pruner       bool   // whether another container prunes
	accessMode   corev1.PersistentVolumeAccessMode
}

// officialChart mounts a claim as the directory above the data.
var officialChart = chart{data: "hl/data", user: nodeUser, accessMode: corev1.ReadWriteOnce}

// podFleet is a StatefulSet on local volumes, and an object that has a parser beside each of its pods. Pod i has claim
// i, which is on node 1 for even i and on node 2 for odd i.
type podFleet struct {
	*fleet
	chart   chart
	claims  bool // records go to a claim too
	running map[int]*podWriter
	written []written
}

// podWriter writes what the node of one pod writes.
type podWriter struct {
	stop func()
	done chan error
}

// written is what was written by one writer.
type written struct {
	pod    int
	src    gen.Source
	writer *gen.Writer
}

func claimName(pod int) string     { return fmt.Sprintf("data-%s-%d", nodePod, pod) }
func podName(pod int) string       { return fmt.Sprintf("%s-%d", nodePod, pod) }
func hostOf(pod int) int           { return pod%nodes + 1 }
func hostNameOf(pod int) string    { return fmt.Sprintf("node-%d", hostOf(pod)) }
func (f *podFleet) volume() string { return filepath.Join("/mnt", f.namespace) }

// newPodFleet makes a namespace with a Pod Security level, volumes for a number of pods, and the StatefulSet without
// pods. All of it goes after the spec.
func newPodFleet(ctx context.Context, namespace, level string, pods int, c chart) *podFleet {
	GinkgoHelper()
	needProcesses()
	f := &podFleet{
		fleet: &fleet{namespace: namespace, name: "mainnet", rate: rate}, chart: c, running: map[int]*podWriter{},
	}
	Expect(k8s.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{
		"pod-security.kubernetes.io/enforce": level,
	}}})).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { f.remove(ctx, pods) }, NodeTimeout(whole+time.Minute))
	for pod := range pods {
		f.makeVolume(ctx, fmt.Sprint(pod), claimName(pod), hostOf(pod))
		cluster.onNode(ctx, hostOf(pod), "mkdir", "-p", filepath.Join(f.volume(), fmt.Sprint(pod), c.data))
		// No one else may enter.
		owner := fmt.Sprintf("%d:%d", c.user, c.user)
		cluster.onNode(ctx, hostOf(pod), "chown", "-R", owner, filepath.Join(f.volume(), fmt.Sprint(pod)))
		cluster.onNode(ctx, hostOf(pod), "chmod", "0700", filepath.Join(f.volume(), fmt.Sprint(pod), c.data))
	}
	Expect(k8s.Create(ctx, f.statefulSet())).To(Succeed())
	return f
}

// makeVolume makes a directory on a node and a local volume of it for a claim.
func (f *podFleet) makeVolume(ctx context.Context, dir, claim string, node int) {
	GinkgoHelper()
	path := filepath.Join(f.volume(), dir)
	cluster.onNode(ctx, node, "rm", "-rf", path) // an interrupted run leaves it
	cluster.onNode(ctx, node, "mkdir", "-p", path)
	Expect(k8s.Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: f.namespace + "-" + dir},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			AccessModes:                   []corev1.PersistentVolumeAccessMode{f.chart.accessMode},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				Local: &corev1.LocalVolumeSource{Path: path},
			},
			ClaimRef: &corev1.ObjectReference{Namespace: f.namespace, Name: claim},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn,
					Values: []string{fmt.Sprintf("node-%d", node)},
				}}}},
			}},
		},
	})).To(Succeed())
}

func (f *podFleet) claimSpec() corev1.PersistentVolumeClaimSpec {
	return corev1.PersistentVolumeClaimSpec{
		StorageClassName: ptr.To(""),
		AccessModes:      []corev1.PersistentVolumeAccessMode{f.chart.accessMode},
		Resources: corev1.VolumeResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
		},
	}
}

// statefulSet returns the Hyperliquid nodes, at first none. Their pods are allowed in every namespace.
func (f *podFleet) statefulSet() *appsv1.StatefulSet {
	labels := map[string]string{"app": nodePod}
	container := func(name string) corev1.Container {
		return corev1.Container{
			Name: name, Image: idle,
			VolumeMounts: []corev1.VolumeMount{{
				Name: "data", MountPath: "/home/hluser", SubPath: f.chart.mountSubPath,
			}},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false),
				Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}
	}
	containers := []corev1.Container{container("node")}
	if f.chart.pruner {
		containers = append(containers, container("pruner"))
	}
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: nodePod},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](0), ServiceName: nodePod, PodManagementPolicy: appsv1.ParallelPodManagement,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Containers: containers, TerminationGracePeriodSeconds: ptr.To[int64](1),
					AutomountServiceAccountToken: ptr.To(false),
					SecurityContext: &corev1.PodSecurityContext{
						RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(f.chart.user), RunAsGroup: ptr.To(f.chart.user),
						SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
					},
				},
			},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
				ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: f.claimSpec(),
			}},
		},
	}
}

// remove removes everything that the fleet has on the cluster and on the nodes.
func (f *podFleet) remove(ctx context.Context, pods int) {
	GinkgoHelper()
	f.restAll()
	if CurrentSpecReport().Failed() {
		AddReportEntry(f.namespace, kubectl(ctx, "get", "hlp,pods,pvc,events", "-n", f.namespace, "-o", "wide"))
	}
	gone := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.namespace}}
	Expect(client.IgnoreNotFound(k8s.Delete(ctx, gone))).To(Succeed())
	Eventually(func() error {
		return k8s.Get(ctx, client.ObjectKey{Name: f.namespace}, &corev1.Namespace{})
	}).WithContext(ctx).WithTimeout(whole).Should(MatchError(ContainSubstring("not found")))
	removeVolume := func(of string) {
		volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: f.namespace + "-" + of}}
		Expect(client.IgnoreNotFound(k8s.Delete(ctx, volume))).To(Succeed())
	}
	removeVolume(recordsClaim)
	for pod := range pods {
		removeVolume(fmt.Sprint(pod))
	}
	for n := 1; n <= nodes; n++ {
		f.removeFiles(ctx, n)
		cluster.onNode(ctx, n, "rm", "-rf", f.volume())
	}
}

// scale sets the number of pods, and waits until as many run.
func (f *podFleet) scale(ctx context.Context, pods int) {
	GinkgoHelper()
	kubectl(ctx, "scale", "statefulset", nodePod, "-n", f.namespace, fmt.Sprintf("--replicas=%d", pods))
	Eventually(func(g Gomega) {
		var set appsv1.StatefulSet
		g.Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: nodePod}, &set)).To(Succeed())
		g.Expect(set.Status.ObservedGeneration).To(Equal(set.Generation))
		g.Expect(set.Status.Replicas).To(BeEquivalentTo(pods))
		g.Expect(set.Status.ReadyReplicas).To(BeEquivalentTo(pods))
	}).WithContext(ctx).WithTimeout(started).Should(Succeed())
}

// hostData returns where the data directory of a pod is on this machine.
func (f *podFleet) hostData(pod int) string {
	return cluster.hostPath(hostOf(pod), filepath.Join(f.volume(), fmt.Sprint(pod), f.chart.data))
}

// writeAs begins to write as the node of a pod does, until restOf. A later writer of the same pod writes other events.
func (f *podFleet) writeAs(pod int) {
	GinkgoHelper()
	ctx, stop := context.WithCancel(context.Background())
	clock := gen.Clock{Start: time.Now(), HourEvery: time.Minute}
	done := make(chan error, len(sources))
	for i, src := range sources {
		rate, perBlock := f.rate, 0
		if src.Mode == gen.ByBlock {
			rate, perBlock = 14, 20
		}
		seed := uint64(1000*len(f.written) + 100*pod + i)
		g, err := gen.New(gen.Options{Source: src, Seed: seed, EventsPerBlock: perBlock})
		Expect(err).NotTo(HaveOccurred())
		w := gen.NewWriter(f.hostData(pod), src, g, gen.WriterOptions{LateFor: clock.During(700 * time.Millisecond)})
		f.written = append(f.written, written{pod: pod, src: src, writer: w})
		go func() {
			err := gen.Pace(ctx, w, clock, rate, 0)
			if closed := w.Close(); err == nil {
				err = closed
			}
			done <- err
		}()
	}
	f.running[pod] = &podWriter{stop: stop, done: done}
}

// restOf ends the writing of a pod's node, with whole lines.
func (f *podFleet) restOf(pod int) {
	GinkgoHelper()
	w := f.running[pod]
	if w == nil {
		return
	}
	delete(f.running, pod)
	w.stop()
	for range sources {
		Expect(<-w.done).To(Succeed())
	}
}

func (f *podFleet) restAll() {
	GinkgoHelper()
	for pod := range f.running {
		f.restOf(pod)
	}
}

// object returns an object with a parser beside each pod.
func (f *podFleet) object() *v1alpha1.HyperliquidParser {
	obj := f.fleet.object()
	obj.Spec.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{
		Selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": nodePod}},
		Volume:   "data", SubPath: v1alpha1.ClaimPath(f.chart.data),
	}}
	if f.chart.user != nodeUser {
		obj.Spec.RunAsUser, obj.Spec.RunAsGroup = ptr.To(f.chart.user), ptr.To(f.chart.user)
	}
	if f.claims {
		obj.Spec.Sink.File = &v1alpha1.FileSink{ClaimName: recordsClaim, MinFreePercent: ptr.To[int32](0)}
	}
	return obj
}

// recordsOnClaim makes the claim that the records go to, on node 1.
func (f *podFleet) recordsOnClaim(ctx context.Context) {
	GinkgoHelper()
	f.claims = true
	f.makeVolume(ctx, recordsClaim, recordsClaim, 1)
	Expect(k8s.Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: recordsClaim}, Spec: f.claimSpec(),
	})).To(Succeed())
}

// waitTargets waits until count parsers deliver, and there is no other.
func (f *podFleet) waitTargets(ctx context.Context, count int) {
	GinkgoHelper()
	f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
		g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
		g.Expect(obj.Status.Desired).To(BeEquivalentTo(count), "%+v", obj.Status)
		g.Expect(obj.Status.Ready).To(BeEquivalentTo(count), "%+v", obj.Status)
		for _, condition := range []string{
			v1alpha1.ConditionReady, v1alpha1.ConditionDelivering, v1alpha1.ConditionBuffersStable,
		} {
			g.Expect(meta.IsStatusConditionTrue(obj.Status.Conditions, condition)).To(BeTrue(), "%s: %+v", condition, obj.Status)
		}
	})
}

// parser returns the parser beside a pod, or nil.
func (f *podFleet) parser(ctx context.Context, pod int) *corev1.Pod {
	GinkgoHelper()
	var pods corev1.PodList
	ours := client.MatchingLabels{v1alpha1.LabelParser: f.name}
	Expect(k8s.List(ctx, &pods, client.InNamespace(f.namespace), ours)).To(Succeed())
	for i := range pods.Items {
		if pods.Items[i].Annotations[v1alpha1.AnnotationTarget] == podName(pod) {
			return &pods.Items[i]
		}
	}
	return nil
}

// records returns the directory of a stream's records of a pod.
func (f *podFleet) records(pod int, src gen.Source) string {
	root := "/var/lib/hlparser-out"
	node := hostOf(pod)
	if f.claims {
		root, node = filepath.Join(f.volume(), recordsClaim), 1
	}
	return cluster.hostPath(node, filepath.Join(root, f.namespace, f.name, podName(pod), string(src.Stream)))
}

// exact ends the writing, waits until all is delivered, and compares it event by event with what was written.
func (f *podFleet) exact(ctx context.Context) {
	GinkgoHelper()
	wanted, places := f.waitDelivered(ctx)
	var all compare.Result
	for out, w := range places {
		one, err := compare.Stream(f.hostData(w.pod), w.src, out)
		Expect(err).NotTo(HaveOccurred())
		all.Add(one)
	}
	report("%s: %d events, %d lost, %d twice, %d foreign, %d out of order",
		f.namespace, all.Events, all.Lost, all.Duplicated, all.Foreign, all.Disordered)
	reportResult(&all)
	Expect(all.Exact()).To(BeTrue(), strings.Join(all.Examples, "\n"))
	Expect(all.Events).To(Equal(wanted))
}

// waitDelivered ends the writing and waits until as many records as events are there. It returns their number, and who
// has written them, by the directory of the records.
func (f *podFleet) waitDelivered(ctx context.Context) (wanted int64, places map[string]written) {
	GinkgoHelper()
	f.restAll()
	places = map[string]written{} // several writers may have written one
	for _, w := range f.written {
		wanted += w.writer.Stats().Events
		places[f.records(w.pod, w.src)] = w
	}
	begin := time.Now()
	Eventually(func() (sum int64, err error) {
		for out := range places {
			if _, err := os.Stat(out); err != nil {
				continue // nothing is delivered yet
			}
			one, err := compare.Count(out)
			if err != nil {
				return 0, err
			}
			sum += one
		}
		return sum, nil
	}).WithContext(ctx).WithTimeout(whole).WithPolling(time.Second).Should(BeNumerically(">=", wanted))
	report("%s: all delivered %s after the last was written", f.namespace, since(begin))
	return wanted, places
}

// begin starts pods 0 to count-1 with their nodes' writing, creates the object, and waits until all is well.
func (f *podFleet) begin(ctx context.Context, count int) {
	GinkgoHelper()
	for pod := range count {
		f.writeAs(pod)
	}
	f.scale(ctx, count)
	begin := time.Now()
	Expect(k8s.Create(ctx, f.object())).To(Succeed())
	f.waitTargets(ctx, count)
	report("%s: well %s after its object was created", f.namespace, since(begin))
}

var _ = Describe("a parser beside a pod", Label("pods"), func() {
	It("follows its pod as that is deleted, scaled down and up", func(ctx SpecContext) {
		f := newPodFleet(ctx, "statefulset", "privileged", 3, officialChart)
		f.begin(ctx, 2)
		keep(ctx, f.fleet, "statefulset")

		By("deleting a pod, whose node goes on to write when it is back")
		first, other := f.parser(ctx, 0), f.parser(ctx, 1)
		begin := time.Now()
		Expect(k8s.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: f.namespace, Name: podName(0),
		}})).To(Succeed())
		Eventually(func() bool {
			now := f.parser(ctx, 0)
			return now == nil || now.DeletionTimestamp != nil || now.UID != first.UID
		}).WithContext(ctx).WithTimeout(noticed).Should(BeTrue(), "the parser holds the claim of a pod that ends")
		reportNoticed(begin, "the parser ends, since its pod was deleted")
		Eventually(func(g Gomega) {
			now := f.parser(ctx, 0)
			g.Expect(now).NotTo(BeNil())
			g.Expect(now.UID).NotTo(Equal(first.UID))
		}).WithContext(ctx).WithTimeout(whole).Should(Succeed())
		f.waitTargets(ctx, 2)
		reportWhole(begin)
		Expect(f.parser(ctx, 1).UID).To(Equal(other.UID), "the other pod's parser is left alone")

		By("scaling down, with lines that nobody has read yet")
		f.restOf(1)
		begin = time.Now()
		f.scale(ctx, 1)
		f.waitTargets(ctx, 1)
		Eventually(func() any { return f.parser(ctx, 1) }).WithContext(ctx).WithTimeout(noticed).Should(BeNil())
		report("statefulset: one parser %s after the StatefulSet was scaled down to one pod", since(begin))
		f.writeAs(1) // nobody reads
		f.restOf(1)

		By("scaling up beyond what there was")
		f.writeAs(2)
		begin = time.Now()
		f.scale(ctx, 3)
		f.waitTargets(ctx, 3)
		report("statefulset: three parsers deliver %s after the StatefulSet was scaled up to three pods", since(begin))
		Expect(f.get(ctx).Status.Restarts).To(BeZero())
		f.exact(ctx)
	}, SpecTimeout(8*time.Minute))

	It("comes back with its node, after a drain and after the node was lost", Serial, func(ctx SpecContext) {
		f := newPodFleet(ctx, "pod-node-lost", "privileged", 2, officialChart)
		f.begin(ctx, 2)
		other := f.parser(ctx, 0)

		By("draining the node")
		begin := time.Now()
		kubectl(ctx, "drain", hostNameOf(1), "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=2m")
		DeferCleanup(func(ctx SpecContext) { kubectl(ctx, "uncordon", hostNameOf(1)) })
		report("pod-node-lost: drained in %s", since(begin))
		Eventually(func() any { return f.parser(ctx, 1) }).WithContext(ctx).WithTimeout(noticed).Should(BeNil())
		begin = time.Now()
		kubectl(ctx, "uncordon", hostNameOf(1))
		f.waitTargets(ctx, 2)
		report("pod-node-lost: whole %s after the node was uncordoned", since(begin))

		By("losing the node")
		parser := f.parser(ctx, 1)
		begin = time.Now()
		cluster.stop(ctx, "kubelet-2", "KILL")
		Eventually(func(g Gomega) {
			now := f.parser(ctx, 1)
			g.Expect(now == nil || now.DeletionTimestamp != nil).To(BeTrue())
		}).WithContext(ctx).WithTimeout(noticed).Should(Succeed())
		reportNoticed(begin, "the parser on the lost node is deleted, for its claim")
		keep(ctx, f.fleet, "pod-node-lost")
		begin = time.Now()
		cluster.start(ctx, "kubelet-2")
		Eventually(func(g Gomega) {
			now := f.parser(ctx, 1)
			g.Expect(now).NotTo(BeNil())
			g.Expect(now.UID).NotTo(Equal(parser.UID))
		}).WithContext(ctx).WithTimeout(whole).Should(Succeed())
		f.waitTargets(ctx, 2)
		reportWhole(begin)
		Expect(f.parser(ctx, 0).UID).To(Equal(other.UID), "the other node's parser is left alone")
		f.exact(ctx)
		waitOperator(ctx)
	}, SpecTimeout(10*time.Minute))

	It("is not made where the claim is the pod's alone, which is said", func(ctx SpecContext) {
		alone := officialChart
		alone.accessMode = corev1.ReadWriteOncePod
		f := newPodFleet(ctx, "one-pod-claim", "privileged", 1, alone)
		f.scale(ctx, 1)
		begin := time.Now()
		Expect(k8s.Create(ctx, f.object())).To(Succeed())
		var message string
		f.waitStatus(ctx, noticed, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			conditions := slices.DeleteFunc(obj.Status.Conditions, func(c metav1.Condition) bool {
				return c.Reason != v1alpha1.ReasonClaimNotShareable
			})
			g.Expect(conditions).NotTo(BeEmpty(), "%+v", obj.Status)
			message = conditions[0].Message
			g.Expect(message).To(And(ContainSubstring("ReadWriteOncePod"), ContainSubstring(podName(0))))
		})
		reportNoticed(begin, "%s", message)
		keep(ctx, f.fleet, "one-pod-claim")
		Expect(f.parser(ctx, 0)).To(BeNil())
	}, SpecTimeout(6*time.Minute))

	DescribeTable("delivers with the shapes of public charts", func(ctx SpecContext, namespace string, c chart) {
		f := newPodFleet(ctx, namespace, "privileged", 1, c)
		f.begin(ctx, 1)
		if c.pruner {
			f.prune(ctx, 0)
		}
		f.exact(ctx)
	},
		Entry("the claim is the data directory, and a pruner runs beside", "chart-pruner",
			chart{user: nodeUser, pruner: true, accessMode: corev1.ReadWriteOnce}, SpecTimeout(8*time.Minute)),
		Entry("the claim is mounted by a subPath", "chart-subpath",
			chart{mountSubPath: "home", data: "home/hl/data", user: nodeUser, accessMode: corev1.ReadWriteMany},
			SpecTimeout(6*time.Minute)),
		Entry("the node has user 1000, and nobody else may enter its directory", "chart-user",
			chart{data: "data", user: 1000, accessMode: corev1.ReadWriteOnce}, SpecTimeout(6*time.Minute)),
	)
})

// prune takes away what has not been written for a while until an hour was pruned, as the official pruner does by the
// day: all below the data directory but the parser's state. What it takes is put back before the comparison.
func (f *podFleet) prune(ctx context.Context, pod int) {
	GinkgoHelper()
	const rested = 10 * time.Second
	data := f.hostData(pod)
	pruned := cluster.hostPath(hostOf(pod), f.volume()+"-pruned")
	DeferCleanup(func() { Expect(os.RemoveAll(pruned)).To(Succeed()) })
	var taken []string
	Eventually(func(g Gomega) {
		err := filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.Name() == "hlparser" { // as docs/operating.md has it
				return filepath.SkipDir
			}
			info, err := d.Info()
			if err != nil || d.IsDir() || time.Since(info.ModTime()) < rested {
				return err
			}
			name, err := filepath.Rel(data, path)
			if err != nil {
				return err
			}
			to := filepath.Join(pruned, name)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			taken = append(taken, name)
			return os.Rename(path, to)
		})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(len(taken)).To(BeNumerically(">=", len(sources)))
	}).WithContext(ctx).WithTimeout(whole).WithPolling(time.Second).Should(Succeed())
	report("%s: pruned while the parser runs: %s", f.namespace, strings.Join(taken, ", "))
	f.waitTargets(ctx, 1)
	Expect(f.get(ctx).Status.Losses).To(BeEmpty())
	f.waitDelivered(ctx)
	// Not before the parser has gone: it would read a file that comes back with another name of its directory.
	Expect(k8s.Delete(ctx, f.get(ctx))).To(Succeed())
	Eventually(func() any { return f.parser(ctx, pod) }).WithContext(ctx).WithTimeout(whole).Should(BeNil())
	for _, name := range taken {
		Expect(os.Rename(filepath.Join(pruned, name), filepath.Join(data, name))).To(Succeed())
	}
}
