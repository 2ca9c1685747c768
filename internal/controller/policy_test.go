package controller_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

var _ = Describe("the admission policy", func() {
	type edit = func(*v1alpha1.HyperliquidParser)
	try := func(ctx SpecContext, change edit) error {
		obj := (&farm{namespace: "default", label: "policy"}).object()
		change(obj)
		return k8s.Create(ctx, obj, client.DryRunAll)
	}
	dataPath := func(path v1alpha1.HostPath) edit {
		return func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Nodes.DataPath = path }
	}
	output := func(file v1alpha1.FileSink) edit {
		return func(o *v1alpha1.HyperliquidParser) { o.Spec.Sink = v1alpha1.Sink{File: &file} }
	}
	image := func(name string) edit { return func(o *v1alpha1.HyperliquidParser) { o.Spec.Image = name } }
	anything := func(*v1alpha1.HyperliquidParser) {}

	BeforeEach(func(ctx SpecContext) {
		const dir = "../../config/admission-policy/"
		system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "hyperliquid-parser-operator-system"}}
		Expect(client.IgnoreAlreadyExists(k8s.Create(ctx, system))).To(Succeed())
		bounds, policy, binding := &corev1.ConfigMap{}, &admissionv1.ValidatingAdmissionPolicy{}, &admissionv1.ValidatingAdmissionPolicyBinding{}
		readYAML(dir+"bounds.yaml", bounds)
		readYAML(dir+"policy.yaml", policy)
		readYAML(dir+"binding.yaml", binding)
		bad := dataPath("/etc")
		// The API server notices that policies come and go after a moment. Cleanups run last to first.
		DeferCleanup(func(ctx SpecContext) { Eventually(ctx, func() error { return try(ctx, bad) }).Should(Succeed()) })
		bounds.Data["allowed-images"] = "registry.example:5000/hlparser"
		for _, o := range []client.Object{bounds, policy, binding} {
			Expect(k8s.Create(ctx, o)).To(Succeed())
			DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, o)).To(Succeed()) })
		}
		Eventually(ctx, func() error { return try(ctx, bad) }).ShouldNot(Succeed())
		Eventually(ctx, func() error { return try(ctx, anything) }).Should(Succeed(), "the bounds are known too")
	})

	It("refuses what the manager would hold back, and nothing else", func(ctx SpecContext) {
		for name, good := range map[string]edit{
			"a dataPath that is a root":               dataPath("/data"),
			"a dataPath that is a root, with a slash": dataPath("/data/"),
			"a dataPath below a root":                 dataPath("/mnt/nvme0/hl/data"),
			"output below its root":                   output(v1alpha1.FileSink{Path: "/var/lib/hlparser-out/a"}),
			"output on a claim":                       output(v1alpha1.FileSink{Path: "/anything", ClaimName: "records"}),
			"an image with a tag":                     image("registry.example:5000/hlparser:v1"),
			"an image with a digest":                  image("registry.example:5000/hlparser@sha256:0123"),
			"an image below a repository":             image("registry.example:5000/hlparser/parser:v1@sha256:0123"),
			"pods, which have no paths": func(o *v1alpha1.HyperliquidParser) {
				o.Spec.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{Selector: o.Spec.Target.Nodes.Selector, Volume: "data"}}
			},
		} {
			Expect(try(ctx, good)).To(Succeed(), name)
		}
		for name, bad := range map[string]struct {
			edit    edit
			message string
		}{
			"a dataPath elsewhere":             {dataPath("/etc"), "spec.target.nodes.dataPath /etc is outside what the manager allows: write a path at or below /home/hluser, /var/lib/hyperliquid, /mnt, /data"},
			"a dataPath that begins alike":     {dataPath("/database"), "spec.target.nodes.dataPath /database is outside"},
			"a statePath elsewhere":            {func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Nodes.StatePath = "/var/lib/kubelet" }, "spec.target.nodes.statePath /var/lib/kubelet is outside"},
			"an output elsewhere":              {output(v1alpha1.FileSink{Path: "/var/lib/hlparser"}), "spec.sink.file.path /var/lib/hlparser is outside"},
			"an image elsewhere":               {image("evil.example/miner:1"), "spec.image evil.example/miner:1 is not of an allowed repository: write one of registry.example:5000/hlparser"},
			"an image of a registry's port":    {image("registry.example:5001/hlparser"), "is not of an allowed repository"},
			"an image whose name begins alike": {image("registry.example:5000/hlparser-miner:1"), "is not of an allowed repository"},
		} {
			Expect(try(ctx, bad.edit)).To(MatchError(ContainSubstring(bad.message)), name)
		}
	})

	It("lets objects go that were made under wider bounds", func(ctx SpecContext) {
		f := newFarm(ctx, 0)
		obj := f.object()
		obj.Finalizers = []string{"example.com/wait"}
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		bounds := &corev1.ConfigMap{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: "hyperliquid-parser-operator-system", Name: "hyperliquidparser-bounds"}, bounds)).To(Succeed())
		bounds.Data["allowed-data-paths"] = "/elsewhere"
		Expect(k8s.Update(ctx, bounds)).To(Succeed())
		Eventually(ctx, func() error { return try(ctx, anything) }).Should(MatchError(ContainSubstring("at or below /elsewhere")))
		now := current(ctx, obj)
		now.Spec.Target.Nodes.DataPath = "/home/hluser/other"
		Expect(k8s.Update(ctx, now)).To(MatchError(ContainSubstring("at or below /elsewhere")))
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Finalizers = nil })
	})

	It("fails closed without its bounds", func(ctx SpecContext) {
		bounds := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "hyperliquid-parser-operator-system", Name: "hyperliquidparser-bounds"}}
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(bounds), bounds)).To(Succeed())
		bounds.Data = nil
		Expect(k8s.Update(ctx, bounds)).To(Succeed())
		Eventually(ctx, func() error { return try(ctx, anything) }).ShouldNot(Succeed())
	})
})
