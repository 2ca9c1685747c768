package e2e_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/compare"
	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
)

func v1alpha1Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
}

// nodes of a cluster of processes.
const nodes = 2

// fleet is an object of a namespace of its own, whose parsers read what the suite writes onto the nodes.
type fleet struct {
	namespace string
	name      string
	rate      float64 // lines a second, stream and node

	// hour is how long an hour of the node's clock takes. Several pass in each spec.
	hour time.Duration
	// disk is the path on a node below which the suite writes. It is the data directory unless a spec mounts that.
	disk string
	// later: the spec calls write itself, and there is no data directory before.
	later bool
	// prunes: hours that are over are removed soon, and kept elsewhere for the comparison.
	prunes bool
	// records returns a directory of a stream's records. It is the file sink's unless a spec has another sink.
	records func(node int, src gen.Source) string
	// repeats: the sink delivers at least once, so that a record may come again.
	repeats bool
	// extra is the number of events that a spec writes by itself.
	extra int64

	writers []*gen.Writer
	stop    context.CancelFunc
	done    sync.WaitGroup
	errs    []error
	mu      sync.Mutex
}

// label of the nodes that a fleet reads from.
func (f *fleet) label() string { return "e2e.hlparser.dev/" + f.namespace }

// dataPath is the fleet's Hyperliquid node's data directory.
func (f *fleet) dataPath() string { return "/home/hluser/" + f.namespace + "/data" }

// sources of each node.
var sources = []gen.Source{
	{Stream: gen.OrderStatuses, Mode: gen.Line},
	{Stream: gen.Fills, Mode: gen.ByBlock},
}

// newFleet makes a namespace, labels the nodes and begins to write onto them. All of it goes after the spec.
func newFleet(ctx context.Context, namespace string, rate float64) *fleet {
	GinkgoHelper()
	f := &fleet{namespace: namespace, rate: rate}
	f.start(ctx)
	return f
}

// start does what newFleet does, for a fleet with settings of its own.
func (f *fleet) start(ctx context.Context) {
	GinkgoHelper()
	needProcesses()
	f.name = "mainnet"
	if f.hour == 0 {
		f.hour = time.Minute
	}
	if f.disk == "" {
		f.disk = f.dataPath()
	}
	namespace := f.namespace
	Expect(k8s.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{
		"pod-security.kubernetes.io/enforce": "privileged",
	}}})).To(Succeed())
	for n := 1; n <= nodes; n++ {
		kubectl(ctx, "label", "node", fmt.Sprintf("node-%d", n), "--overwrite", f.label()+"=")
		f.removeFiles(ctx, n) // an interrupted run leaves them
	}
	f.stop = func() {}
	if !f.later {
		f.write()
	}
	DeferCleanup(func(ctx SpecContext) {
		f.rest()
		if CurrentSpecReport().Failed() {
			keep(ctx, f, "failed-"+namespace)
			AddReportEntry(namespace, kubectl(ctx, "get", "hlp,pods,events", "-n", namespace, "-o", "wide"))
		}
		gone := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
		Expect(client.IgnoreNotFound(k8s.Delete(ctx, gone))).To(Succeed())
		for n := 1; n <= nodes; n++ {
			kubectl(ctx, "label", "node", fmt.Sprintf("node-%d", n), f.label()+"-")
		}
		Eventually(func() error {
			return k8s.Get(ctx, client.ObjectKey{Name: namespace}, &corev1.Namespace{})
		}).WithContext(ctx).WithTimeout(whole).Should(MatchError(ContainSubstring("not found")))
		for n := 1; n <= nodes; n++ {
			f.removeFiles(ctx, n) // no parser writes any more
		}
	}, NodeTimeout(whole+time.Minute))
}

// archive is where hours are kept that a pruner has removed.
func (f *fleet) archive() string { return "/home/hluser/archive/" + f.namespace }

// written returns the directory of all that was written on a node, of which a pruner keeps a second name.
func (f *fleet) written(node int) string {
	if f.prunes {
		return cluster.hostPath(node, f.archive())
	}
	return cluster.hostPath(node, f.disk)
}

// prune gives every file a second name in the archive, and removes those whose hour has been over for a while: all but
// the newest two of each stream.
func (f *fleet) prune(node int) (removed int, err error) {
	for _, src := range sources {
		files, err := filepath.Glob(filepath.Join(cluster.hostPath(node, f.disk), src.Dir(), "*", "*"))
		if err != nil {
			return removed, err
		}
		slices.SortFunc(files, byHour)
		for i, file := range files {
			name, err := filepath.Rel(cluster.hostPath(node, f.disk), file)
			if err != nil {
				return removed, err
			}
			kept := filepath.Join(cluster.hostPath(node, f.archive()), name)
			if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
				return removed, err
			}
			if err := os.Link(file, kept); err != nil && !errors.Is(err, fs.ErrExist) {
				return removed, err
			}
			if i < len(files)-2 {
				if err := os.Remove(file); err != nil {
					return removed, err
				}
				removed++
			}
		}
	}
	return removed, nil
}

// byHour compares paths that end in a date and an hour without padding.
func byHour(a, b string) int {
	return cmp.Or(cmp.Compare(filepath.Dir(a), filepath.Dir(b)), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// removeFiles removes all that the fleet has on a node.
func (f *fleet) removeFiles(ctx context.Context, node int) {
	GinkgoHelper()
	cluster.onNode(ctx, node, "rm", "-rf", "/home/hluser/"+f.namespace, "/srv/"+f.namespace, f.archive(),
		"/var/lib/hlparser/"+f.namespace, "/var/lib/hlparser-out/"+f.namespace)
}

// write writes onto all nodes until rest.
func (f *fleet) write() {
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	for n := 1; n <= nodes; n++ {
		for i, src := range sources {
			rate, perBlock := f.rate, 0
			if src.Mode == gen.ByBlock {
				rate, perBlock = 14, 20 // the blocks of a second
			}
			g, err := gen.New(gen.Options{Source: src, Seed: uint64(100*n + i), EventsPerBlock: perBlock})
			Expect(err).NotTo(HaveOccurred())
			clock := gen.Clock{Start: time.Now(), HourEvery: f.hour}
			late := gen.WriterOptions{LateFor: clock.During(700 * time.Millisecond)}
			w := gen.NewWriter(cluster.hostPath(n, f.disk), src, g, late)
			f.writers = append(f.writers, w)
			f.done.Go(func() {
				err := errors.Join(gen.Pace(ctx, w, clock, rate, 0), w.Close())
				f.mu.Lock()
				defer f.mu.Unlock()
				f.errs = append(f.errs, err)
			})
		}
	}
}

// rest ends the writing, with whole lines.
func (f *fleet) rest() {
	GinkgoHelper()
	f.stop()
	f.done.Wait()
	Expect(errors.Join(f.errs...)).To(Succeed())
}

// object returns the fleet's object with the file sink, and verdicts within seconds.
func (f *fleet) object() *v1alpha1.HyperliquidParser {
	seconds := func(n int) *metav1.Duration { return &metav1.Duration{Duration: time.Duration(n) * time.Second} }
	return &v1alpha1.HyperliquidParser{
		ObjectMeta: metav1.ObjectMeta{Name: f.name, Namespace: f.namespace},
		Spec: v1alpha1.HyperliquidParserSpec{
			Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{
				Selector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: f.label(), Operator: metav1.LabelSelectorOpExists},
				}},
				DataPath: v1alpha1.HostPath(f.dataPath()),
			}},
			Streams: []v1alpha1.Stream{{Name: "OrderStatuses"}, {Name: "Fills"}},
			Engine:  v1alpha1.Engine{StartAt: "Beginning"},
			Sink: v1alpha1.Sink{File: &v1alpha1.FileSink{
				Path: "/var/lib/hlparser-out", MinFreePercent: ptr.To[int32](0),
			}},
			Growth: v1alpha1.Growth{PollInterval: seconds(1), StuckAfter: seconds(6)},
		},
	}
}

// create creates the object, and waits until the fleet is well.
func (f *fleet) create(ctx context.Context, obj *v1alpha1.HyperliquidParser) {
	GinkgoHelper()
	begin := time.Now()
	Expect(k8s.Create(ctx, obj)).To(Succeed())
	f.waitWell(ctx, started)
	report("%s: well %s after its object was created", f.namespace, since(begin))
}

func (f *fleet) get(ctx context.Context) *v1alpha1.HyperliquidParser {
	GinkgoHelper()
	obj := &v1alpha1.HyperliquidParser{}
	Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: f.name}, obj)).To(Succeed())
	return obj
}

// change changes the object until the API server takes it.
func (f *fleet) change(ctx context.Context, change func(*v1alpha1.HyperliquidParser)) {
	GinkgoHelper()
	Eventually(func() error {
		obj := f.get(ctx)
		change(obj)
		return k8s.Update(ctx, obj)
	}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
}

// waitWell waits until all targets deliver, by the status of the current generation.
func (f *fleet) waitWell(ctx context.Context, limit time.Duration) {
	GinkgoHelper()
	f.waitStatus(ctx, limit, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
		g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
		g.Expect(obj.Status.Ready).To(Equal(int32(nodes)))
		for _, condition := range []string{
			v1alpha1.ConditionReady, v1alpha1.ConditionDelivering, v1alpha1.ConditionBuffersStable,
		} {
			g.Expect(meta.IsStatusConditionTrue(obj.Status.Conditions, condition)).To(BeTrue(), "%s: %+v", condition, obj.Status)
		}
	})
}

// waitChange changes the spec in a way that replaces no pod, and waits until the operator has observed it.
func (f *fleet) waitChange(ctx context.Context) {
	GinkgoHelper()
	f.change(ctx, func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Paused = !obj.Spec.Paused })
	f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
		g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
	})
}

// waitWellBut waits until all pods but those of a failed canary's revision run.
func (f *fleet) waitWellBut(ctx context.Context) {
	GinkgoHelper()
	f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
		g.Expect(obj.Status.Ready).To(BeNumerically(">=", nodes-1), "%+v", obj.Status)
	})
}

// waitStory waits until the status' story has the words.
func (f *fleet) waitStory(ctx context.Context, words string) {
	GinkgoHelper()
	f.waitStatus(ctx, noticed, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
		g.Expect(obj.Status.Story).To(ContainSubstring(words))
	})
}

// waitVerdict waits until a target has a verdict, and returns it.
func (f *fleet) waitVerdict(ctx context.Context, verdict string, words ...string) v1alpha1.TargetStatus {
	GinkgoHelper()
	var found v1alpha1.TargetStatus
	f.waitStatus(ctx, noticed, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
		var matching []v1alpha1.TargetStatus
		for _, target := range obj.Status.Targets {
			if target.Verdict == verdict {
				matching = append(matching, target)
			}
		}
		g.Expect(matching).NotTo(BeEmpty(), "%+v", obj.Status)
		for _, word := range words {
			g.Expect(matching[0].Reason + ": " + matching[0].Message).To(ContainSubstring(word))
		}
		found = matching[0]
	})
	return found
}

func (f *fleet) waitStatus(ctx context.Context, limit time.Duration, check func(Gomega, *v1alpha1.HyperliquidParser)) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		obj := &v1alpha1.HyperliquidParser{}
		g.Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: f.name}, obj)).To(Succeed())
		check(g, obj)
	}).WithContext(ctx).WithTimeout(limit).Should(Succeed())
}

// pod returns the parser on a node.
func (f *fleet) pod(ctx context.Context, node int) *corev1.Pod {
	GinkgoHelper()
	var found *corev1.Pod
	Eventually(func(g Gomega) {
		var pods corev1.PodList
		ours := client.MatchingLabels{v1alpha1.LabelParser: f.name}
		g.Expect(k8s.List(ctx, &pods, client.InNamespace(f.namespace), ours)).To(Succeed())
		found = nil
		for i := range pods.Items {
			if pods.Items[i].Spec.NodeName == fmt.Sprintf("node-%d", node) && pods.Items[i].DeletionTimestamp == nil {
				found = &pods.Items[i]
			}
		}
		g.Expect(found).NotTo(BeNil())
		g.Expect(found.Status.ContainerStatuses).NotTo(BeEmpty())
	}).WithContext(ctx).WithTimeout(started).Should(Succeed())
	return found
}

// pods returns all of the fleet's pods on a node.
func (f *fleet) pods(ctx context.Context, node int) []corev1.Pod {
	GinkgoHelper()
	var all corev1.PodList
	Expect(k8s.List(ctx, &all, client.InNamespace(f.namespace))).To(Succeed())
	return slices.DeleteFunc(all.Items, func(p corev1.Pod) bool { return nodeOf(&p) != node })
}

// nodeOf returns the number of a pod's node; 0 if it has none.
func nodeOf(pod *corev1.Pod) int {
	var n int
	if _, err := fmt.Sscanf(pod.Spec.NodeName, "node-%d", &n); err != nil {
		return 0
	}
	return n
}

// delivered returns the directory of a stream's records on a node, or "" before there is one.
func (f *fleet) delivered(node int, src gen.Source) string {
	GinkgoHelper()
	if f.records != nil {
		return f.records(node, src)
	}
	pattern := filepath.Join(cluster.hostPath(node, "/var/lib/hlparser-out"), f.namespace, f.name, "*", string(src.Stream))
	found, err := filepath.Glob(pattern)
	Expect(err).NotTo(HaveOccurred())
	if len(found) == 0 {
		found, err = filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(pattern)), string(src.Stream)))
		Expect(err).NotTo(HaveOccurred())
	}
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// exact ends the writing, waits until everything is delivered, and compares it event by event with what was written.
func (f *fleet) exact(ctx context.Context) {
	GinkgoHelper()
	f.rest()
	wanted := f.extra
	for _, w := range f.writers {
		wanted += w.Stats().Events
	}
	begin := time.Now()
	count := func() (sum int64, err error) {
		for n := 1; n <= nodes; n++ {
			for _, src := range sources {
				dir := f.delivered(n, src)
				if dir == "" {
					continue
				}
				one, err := compare.Count(dir)
				if err != nil {
					return 0, err
				}
				sum += one
			}
		}
		return sum, nil
	}
	Eventually(count).WithContext(ctx).WithTimeout(whole).WithPolling(time.Second).Should(BeNumerically(">=", wanted))
	var all compare.Result
	for n := 1; n <= nodes; n++ {
		for _, src := range sources {
			one, err := compare.Stream(f.written(n), src, f.delivered(n, src))
			Expect(err).NotTo(HaveOccurred())
			all.Add(one)
		}
	}
	report("%s: %d events, %d lost, %d twice, %d foreign, %d out of order; all delivered %s after the last was written",
		f.namespace, all.Events, all.Lost, all.Duplicated, all.Foreign, all.Disordered, since(begin))
	reportResult(&all)
	if f.repeats {
		Expect(all.Lost+all.Foreign).To(BeZero(), strings.Join(all.Examples, "\n"))
	} else {
		Expect(all.Exact()).To(BeTrue(), strings.Join(all.Examples, "\n"))
	}
	Expect(all.Events).To(Equal(wanted))
}
