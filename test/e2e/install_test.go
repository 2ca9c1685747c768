package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// repository is where the Makefile is.
var repository = filepath.Join("..", "..")

// namespacedInstaller returns the installer with rights in the namespace hyperliquid alone.
func namespacedInstaller() string {
	return filepath.Join(filepath.Dir(env.installer), "install-namespaced.yaml")
}

// runMake runs a target of a repository's Makefile, as an administrator does.
func runMake(ctx context.Context, dir string, args ...string) {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, "make", append([]string{"-C", dir}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+env.kubeconfig)
	out, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "make %s: %s", strings.Join(args, " "), out)
}

// passing are resources that come and go by themselves.
var passing = []string{"events", "events.events.k8s.io", "leases.coordination.k8s.io", "componentstatuses"}

// everything returns all objects of the cluster but those that come and go by themselves.
func everything(ctx context.Context) []string {
	GinkgoHelper()
	kinds := strings.Fields(kubectl(ctx, "api-resources", "--verbs=list,delete", "--output=name"))
	kinds = slices.DeleteFunc(kinds, func(kind string) bool { return slices.Contains(passing, kind) })
	out := kubectl(ctx, "get", strings.Join(kinds, ","), "--all-namespaces", "--no-headers",
		"--output=custom-columns=API:.apiVersion,KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name")
	objects := strings.Split(strings.TrimSpace(out), "\n")
	for i, line := range objects {
		objects[i] = strings.Join(strings.Fields(line), " ")
	}
	slices.Sort(objects)
	return objects
}

// ours matches objects of the operator and of its fleets.
var ours = regexp.MustCompile(`hyperliquid-parser-operator|hlparser`)

// waitNothing waits until the cluster has what it had before, and nothing of ours.
func waitNothing(ctx context.Context, before []string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		now := everything(ctx)
		left := slices.DeleteFunc(slices.Clone(now), func(object string) bool { return !ours.MatchString(object) })
		g.Expect(left).To(BeEmpty())
		if before != nil {
			g.Expect(now).To(Equal(before))
		}
	}).WithContext(ctx).WithTimeout(whole).WithPolling(2 * time.Second).Should(Succeed())
}

// older is an installer to upgrade from.
type older struct {
	path string
	from string // what it is
	// lacksField: its CRD does not know engine.readRate.
	lacksField bool
}

// olderInstaller returns the installer of the last release, with that release's programs. Before the first release it
// returns today's, with the image under another name and a CRD that lacks a field.
func olderInstaller(ctx context.Context) older {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	image := env.image + "-older"
	git := func(ctx context.Context, args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", repository}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	if release, err := git(ctx, "describe", "--tags", "--abbrev=0", "--match=v[0-9]*"); err == nil {
		tree := filepath.Join(dir, "release")
		_, err := git(ctx, "worktree", "add", "--detach", tree, release)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) {
			_, err := git(ctx, "worktree", "remove", "--force", tree)
			Expect(err).NotTo(HaveOccurred())
		})
		runMake(ctx, tree, "image", "build-installer", "IMG="+image)
		cluster.run(ctx, "load", filepath.Join(tree, "dist", "image", "image-"+runtime.GOARCH+".tar"))
		return older{path: filepath.Join(tree, "dist", "install.yaml"), from: "release " + release}
	}
	for n := 1; n <= nodes; n++ {
		out, err := cluster.ctr(ctx, n, "images", "tag", "--force", env.image, image)
		Expect(err).NotTo(HaveOccurred(), "%s", out)
	}
	text, err := os.ReadFile(env.installer)
	Expect(err).NotTo(HaveOccurred())
	documents := strings.Split(string(text), "\n---\n")
	for i, document := range documents {
		if strings.Contains(document, "kind: CustomResourceDefinition") {
			documents[i] = withoutReadRate(document)
		}
	}
	changed := strings.ReplaceAll(strings.Join(documents, "\n---\n"), env.image, image)
	Expect(changed).To(ContainSubstring(image))
	path := filepath.Join(dir, "install.yaml")
	Expect(os.WriteFile(path, []byte(changed), 0o644)).To(Succeed())
	return older{
		path: path, lacksField: true,
		from: "today's, since there is no release: another name of the image, no field engine.readRate",
	}
}

// withoutReadRate returns the CRD without the field engine.readRate.
func withoutReadRate(document string) string {
	GinkgoHelper()
	var crd map[string]any
	Expect(yaml.Unmarshal([]byte(document), &crd)).To(Succeed())
	versions, _, err := unstructured.NestedSlice(crd, "spec", "versions")
	Expect(err).NotTo(HaveOccurred())
	field := []string{
		"schema", "openAPIV3Schema", "properties", "spec", "properties", "engine", "properties", "readRate",
	}
	for i := range versions {
		version := versions[i].(map[string]any)
		_, found, err := unstructured.NestedMap(version, field...)
		Expect(err).NotTo(HaveOccurred())
		Expect(found).To(BeTrue())
		unstructured.RemoveNestedField(version, field...)
	}
	Expect(unstructured.SetNestedSlice(crd, versions, "spec", "versions")).To(Succeed())
	out, err := yaml.Marshal(crd)
	Expect(err).NotTo(HaveOccurred())
	return string(out)
}

// restoreOperator restores what the suite has installed, whatever a spec has left.
func restoreOperator(ctx context.Context) {
	GinkgoHelper()
	kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-f", env.installer)
	waitOperator(ctx)
}

// deployment returns the operator's.
func deployment(ctx context.Context) *appsv1.Deployment {
	GinkgoHelper()
	d := &appsv1.Deployment{}
	Expect(k8s.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: operatorName}, d)).To(Succeed())
	return d
}

var _ = Describe("the installation", Label("install"), Serial, func() {
	It("is upgraded, removed and made again for one namespace, and a fleet loses nothing", func(ctx SpecContext) {
		f := newFleet(ctx, "hyperliquid", rate) // as config/namespaced has it
		from := olderInstaller(ctx)
		report("installation: upgrade from %s", from.from)
		By("removing what the suite has installed")
		DeferCleanup(func(ctx SpecContext) { restoreOperator(ctx) }, NodeTimeout(installed))
		runMake(ctx, repository, "undeploy")
		waitNothing(ctx, nil)
		before := everything(ctx)

		By("installing the older one, by client-side apply")
		begin := time.Now()
		kubectl(ctx, "apply", "-f", from.path)
		waitOperator(ctx)
		report("installation: installed in %s", since(begin))
		f.create(ctx, f.object())
		uids := map[int]any{1: f.pod(ctx, 1).UID, 2: f.pod(ctx, 2).UID}
		readRate := func(obj *v1alpha1.HyperliquidParser) { obj.Spec.Engine.ReadRate = ptr.To(resource.MustParse("1Gi")) }
		if from.lacksField {
			obj := f.get(ctx)
			readRate(obj)
			Expect(k8s.Update(ctx, obj, client.DryRunAll)).To(Succeed())
			Expect(obj.Spec.Engine.ReadRate).To(BeNil(), "the older CRD knows the field")
		}

		By("upgrading by make deploy, which keeps the number of managers")
		kubectl(ctx, "-n", operatorNamespace, "scale", "deployment", operatorName, "--replicas=1")
		waitOperator(ctx)
		begin = time.Now()
		runMake(ctx, repository, "deploy", "IMG="+env.image)
		waitOperator(ctx)
		report("installation: upgraded in %s", since(begin))
		Expect(deployment(ctx).Spec.Replicas).To(Equal(ptr.To[int32](1)))
		Expect(deployment(ctx).Spec.Template.Spec.Containers[0].Image).To(Equal(env.image))
		f.waitWell(ctx, whole)
		for n, uid := range uids {
			Expect(f.pod(ctx, n).UID).To(Equal(uid), "an upgrade of the operator replaces no parser")
		}

		By("applying the same server-side, as GitOps controllers do")
		kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-f", env.installer)
		waitOperator(ctx)
		generation := deployment(ctx).Generation
		kubectl(ctx, "apply", "--server-side", "-f", env.installer)
		Expect(deployment(ctx).Generation).To(Equal(generation), "the installer applied again changes something")

		By("rolling out a field that the older CRD did not have")
		f.change(ctx, readRate)
		f.waitStatus(ctx, whole, func(g Gomega, obj *v1alpha1.HyperliquidParser) {
			g.Expect(obj.Spec.Engine.ReadRate).NotTo(BeNil())
			g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
			g.Expect(obj.Status.Updated).To(BeEquivalentTo(nodes))
			g.Expect(obj.Status.CurrentRevision).To(Equal(obj.Status.UpdateRevision))
		})
		f.waitWell(ctx, whole)

		By("removing it, which leaves nothing but what is on the nodes")
		begin = time.Now()
		runMake(ctx, repository, "undeploy")
		waitNothing(ctx, before)
		report("installation: removed in %s; %d objects are left, those of before", since(begin), len(before))
		for n := 1; n <= nodes; n++ {
			Expect(cluster.hostPath(n, filepath.Join("/var/lib/hlparser", f.namespace, f.name))).To(BeADirectory())
		}

		By("installing it again, for one namespace, after the nodes wrote for a while without it")
		begin = time.Now()
		kubectl(ctx, "apply", "-f", namespacedInstaller())
		waitOperator(ctx)
		f.create(ctx, f.object())
		reportWhole(begin)
		kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-f", namespacedInstaller())
		waitOperator(ctx)
		f.onlyHere(ctx)
		pod := f.pod(ctx, 1)
		begin = time.Now()
		Expect(k8s.Delete(ctx, pod)).To(Succeed())
		Eventually(func() bool { return f.pod(ctx, 1).UID != pod.UID }).WithContext(ctx).WithTimeout(whole).Should(BeTrue())
		f.waitWell(ctx, whole)
		report("installation: with rights in one namespace, whole %s after a pod was deleted", since(begin))
		f.exact(ctx)
	}, SpecTimeout(12*time.Minute))
})

// onlyHere checks that the operator has rights in the fleet's namespace alone, and does nothing elsewhere.
func (f *fleet) onlyHere(ctx context.Context) {
	GinkgoHelper()
	operator := "--as=system:serviceaccount:" + operatorNamespace + ":" + operatorName
	Expect(canI(ctx, operator, "create", "pods", "--namespace="+f.namespace)).To(BeTrue())
	for _, denied := range [][]string{
		{"create", "pods", "--namespace=default"}, {"list", "pods", "--all-namespaces"},
		{"get", "secrets", "--namespace=" + f.namespace}, {"get", "hyperliquidparsers", "--namespace=default"},
	} {
		Expect(canI(ctx, append([]string{operator}, denied...)...)).To(BeFalse(), "%v", denied)
	}
	elsewhere := f.object()
	elsewhere.Namespace = "default"
	Expect(k8s.Create(ctx, elsewhere)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(k8s.Delete(ctx, elsewhere))).To(Succeed()) })
	for range 2 { // to and fro
		f.waitChange(ctx)
	}
	Expect(k8s.Get(ctx, client.ObjectKeyFromObject(elsewhere), elsewhere)).To(Succeed())
	Expect(elsewhere.Status.Conditions).To(BeEmpty(), "the operator acts in a namespace that it does not watch")
}

// canI reports what the API server says of a user's rights.
func canI(ctx context.Context, args ...string) bool {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"auth", "can-i"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+env.kubeconfig)
	out, err := cmd.Output() // its status is 1 for no
	answer := strings.TrimSpace(string(out))
	Expect(answer).To(Or(Equal("yes"), Equal("no")), "%v", err)
	return answer == "yes"
}

// monitoringKinds are those of the Prometheus operator that config/prometheus has.
var monitoringKinds = map[string]string{
	"ServiceMonitor": "servicemonitors", "PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules",
}

// monitoringKind is a CRD without a schema.
const monitoringKind = `---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]s.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {plural: %[1]s, kind: %[2]s, singular: %[3]s}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

var _ = Describe("config/prometheus", Label("install"), func() {
	It("applies alone", func(ctx SpecContext) {
		// The kinds alone: the Prometheus operator is not part of the cluster.
		kinds := filepath.Join(GinkgoT().TempDir(), "kinds.yaml")
		var text strings.Builder
		for kind, plural := range monitoringKinds {
			fmt.Fprintf(&text, monitoringKind, plural, kind, strings.ToLower(kind))
		}
		Expect(os.WriteFile(kinds, []byte(text.String()), 0o644)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { kubectl(ctx, "delete", "-f", kinds) })
		kubectl(ctx, "apply", "-f", kinds)
		kubectl(ctx, "wait", "--for=condition=Established", "--timeout=1m", "-f", kinds)
		monitoring := filepath.Join(configDir, "prometheus")
		DeferCleanup(func(ctx SpecContext) { kubectl(ctx, "delete", "--ignore-not-found", "-k", monitoring) })
		kubectl(ctx, "apply", "-k", monitoring)
		for _, plural := range monitoringKinds {
			Expect(kubectl(ctx, "get", plural, "--namespace="+operatorNamespace, "--output=name")).NotTo(BeEmpty())
		}
		By("selecting the metrics Service that the operator has")
		services, err := clients.CoreV1().Services(operatorNamespace).List(ctx, metav1.ListOptions{
			LabelSelector: "control-plane=controller-manager,app.kubernetes.io/name=hyperliquid-parser-operator",
		})
		Expect(err).NotTo(HaveOccurred())
		Expect(services.Items).To(HaveLen(1))
		Expect(services.Items[0].Spec.Ports).To(ContainElement(HaveField("Name", "https")))
		var pods corev1.PodList
		Expect(k8s.List(ctx, &pods, client.InNamespace(operatorNamespace),
			client.MatchingLabels(services.Items[0].Spec.Selector))).To(Succeed())
		Expect(pods.Items).NotTo(BeEmpty())
	}, SpecTimeout(3*time.Minute))
})
