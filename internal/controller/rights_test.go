package controller_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// auditPolicy logs the operator's requests, and nothing else.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["` + operatorUser + `"]
- level: None
`

// auditLog is where the API server of the suite logs it.
var auditLog string

// auditedRights are what the operator has used since the log had that many bytes, as "verb group/resource".
func auditedRights(from int64) map[string]bool {
	GinkgoHelper()
	f, err := os.Open(auditLog)
	Expect(err).NotTo(HaveOccurred())
	defer func() { Expect(f.Close()).To(Succeed()) }()
	_, err = f.Seek(from, 0)
	Expect(err).NotTo(HaveOccurred())
	out := map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Verb      string
			ObjectRef struct{ APIGroup, Resource, Subresource string }
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.ObjectRef.Resource == "" {
			continue // the last line may be half written; discovery has no resource
		}
		resource := e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			resource += "/" + e.ObjectRef.Subresource
		}
		out[right(e.Verb, e.ObjectRef.APIGroup, resource)] = true
	}
	Expect(lines.Err()).NotTo(HaveOccurred())
	return out
}

func right(verb, group, resource string) string { return verb + " " + group + "/" + resource }

// granted returns the rights of rules.
func granted(rules []rbacv1.PolicyRule) map[string]bool {
	out := map[string]bool{}
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					out[right(verb, group, resource)] = true
				}
			}
		}
	}
	return out
}

// unseen are rights that this suite does not use, and why the operator needs them.
var unseen = map[string]string{
	"update fleet.hlparser.dev/hyperliquidparsers/finalizers": "OpenShift asks for it when an owner reference blocks " +
		"the owner's deletion",
	"get /namespaces":            "of kube-system, whose UID names the cluster: cmd/manager reads it before it starts",
	"patch events.k8s.io/events": "the recorder writes to an event that comes again while its object has not changed",
	// With an API server that streams lists, which one before 1.34 does not, a watch replaces a list.
	"list /configmaps":              "before the watch",
	"list /nodes":                   "before the watch",
	"list /pods":                    "before the watch",
	"list apps/controllerrevisions": "before the watch",
	"list fleet.hlparser.dev/hyperliquidparsers": "before the watch",
	"list networking.k8s.io/networkpolicies":     "before the watch",
}

// elsewhere are rights that the operator uses and has by another role than the generated one.
var elsewhere = []string{"coordination.k8s.io/leases", " /secrets"}

var _ = Describe("the operator's rights", func() {
	It("are what a fleet's life needs, each of them and no other", func(ctx SpecContext) {
		info, err := os.Stat(auditLog)
		Expect(err).NotTo(HaveOccurred())
		start := info.Size()
		clock := &movedClock{}
		f, g := newFarm(ctx, 3), newFarm(ctx, 1)
		obj := f.object()
		obj.Spec.Rollout = v1alpha1.Rollout{MaxUnavailable: ptr.To(intstr.FromString("100%")),
			RevisionHistoryLimit: ptr.To[int32](0)}
		f.defaulted(ctx, obj)

		By("leaving a pod, a revision and a config behind")
		revision, err := podspec.NewRevision(obj, parserImage, "")
		Expect(err).NotTo(HaveOccurred())
		data, err := revision.Encode()
		Expect(err).NotTo(HaveOccurred())
		Expect(k8s.Create(ctx, &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: f.namespace, Name: revision.Name(obj.Name), Labels: map[string]string{v1alpha1.LabelParser: obj.Name},
			},
			Data: runtime.RawExtension{Raw: data}, Revision: 1,
		})).To(Succeed())
		config := revision.ConfigMap(f.namespace, obj.Name)
		config.Labels = nil
		Expect(k8s.Create(ctx, config)).To(Succeed())
		orphan := revision.Pod(client.ObjectKeyFromObject(obj), f.target(0), "")
		orphan.Labels = map[string]string{"a": "b"}
		Expect(k8s.Create(ctx, orphan)).To(Succeed())

		first := run(runOptions{clock: clock})
		f.setIdle(1, true)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(2)))

		By("keeping a pod from its data")
		pod := f.pod(ctx, obj.Name, 1)
		Expect(k8s.SubResource("binding").Create(ctx, pod,
			&corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: f.node(1)}})).To(Succeed())
		clock.move(time.Minute)
		Eventually(ctx, func() string { return condition(current(ctx, obj), v1alpha1.ConditionDelivering) }).WithTimeout(
			judged).Should(HavePrefix("False"))
		f.setIdle(1, false)
		allReady(ctx, obj)

		By("rolling out, which leaves nothing of the revision before")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).WithTimeout(judged).Should(Equal(int32(3)))
		allReady(ctx, obj)
		Eventually(ctx, func() []string { return storedRevisions(ctx, obj) }).WithTimeout(judged).Should(HaveLen(1))

		By("giving a network policy its labels back")
		policy := &networkingv1.NetworkPolicy{}
		name := client.ObjectKey{Namespace: f.namespace, Name: podspec.NetworkPolicyName(obj.Name)}
		Expect(k8s.Get(ctx, name, policy)).To(Succeed())
		policy.Labels = nil
		Expect(k8s.Update(ctx, policy)).To(Succeed())
		Eventually(ctx, func() map[string]string {
			Expect(k8s.Get(ctx, name, policy)).To(Succeed())
			return policy.Labels
		}).ShouldNot(BeEmpty())

		By("standing beside a pod on a claim")
		beside := g.besidePods()
		g.claim(ctx, "hl-0", corev1.ReadWriteOnce)
		runOn(ctx, g.hlNode(ctx, "hl-0", "data"), g.node(0))
		Expect(k8s.Create(ctx, beside)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, beside).Status.Ready }).Should(Equal(int32(1)))

		By("deleting it")
		Expect(k8s.Delete(ctx, beside)).To(Succeed())

		By("taking the network policies away")
		first.stop()
		run(runOptions{clock: clock, noPolicies: true})
		Eventually(ctx, func() bool { return apierrors.IsNotFound(k8s.Get(ctx, name, policy)) }).WithTimeout(judged).Should(
			BeTrue())

		var role rbacv1.ClusterRole
		readYAML("../../config/rbac/role.yaml", &role)
		want := granted(role.Rules)
		for r := range unseen {
			Expect(want).To(HaveKey(r), "an exception for a right that there is not")
			delete(want, r)
		}
		has := func() []string {
			used := auditedRights(start)
			maps.DeleteFunc(used, func(r string, _ bool) bool { return unseen[r] != "" })
			maps.DeleteFunc(used, func(r string, _ bool) bool {
				return slices.ContainsFunc(elsewhere, func(e string) bool { return strings.HasSuffix(r, e) })
			})
			return slices.Sorted(maps.Keys(used))
		}
		Eventually(has).WithTimeout(judged).Should(Equal(slices.Sorted(maps.Keys(want))))
		By("resting, when it asks for nothing but what its watches bring")
		judgedReady(ctx, obj)
		Eventually(ctx, func() map[string]bool {
			info, err := os.Stat(auditLog)
			Expect(err).NotTo(HaveOccurred())
			time.Sleep(while)
			used := auditedRights(info.Size())
			maps.DeleteFunc(used, func(r string, _ bool) bool { return strings.HasPrefix(r, "watch ") })
			return used
		}).WithTimeout(judged).Should(BeEmpty())
	})
})

// manifests are the objects of a folder of config, as kustomize renders them.
func manifests(ctx context.Context, folder string) []*unstructured.Unstructured {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile=hack/tools/go.mod", "kustomize", "build", folder)
	cmd.Dir = "../.."
	cmd.Stderr = GinkgoWriter
	out, err := cmd.Output()
	Expect(err).NotTo(HaveOccurred())
	all := make([]*unstructured.Unstructured, 0, 32)
	for text := range strings.SplitSeq(string(out), "\n---\n") {
		object := &unstructured.Unstructured{}
		Expect(yaml.Unmarshal([]byte(text), &object.Object)).To(Succeed())
		all = append(all, object)
	}
	return all
}

const (
	installedNamespace = "hyperliquid-parser-operator-system"
	installedUser      = "system:serviceaccount:" + installedNamespace + ":hyperliquid-parser-operator-controller-manager"
)

// installed is a client's configuration of the service account that an installer makes.
func installed() *rest.Config {
	config := rest.CopyConfig(adminREST)
	config.QPS, config.Burst = 200, 400
	config.Impersonate = rest.ImpersonationConfig{UserName: installedUser, Groups: []string{
		"system:serviceaccounts", "system:serviceaccounts:" + installedNamespace, "system:authenticated",
	}}
	return config
}

// installedKeys names the Secret of the operator's keys, in a namespace that there is.
func installedKeys(ctx context.Context) types.NamespacedName {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: installedNamespace}}
	Expect(client.IgnoreAlreadyExists(k8s.Create(ctx, namespace))).To(Succeed())
	return types.NamespacedName{Namespace: installedNamespace, Name: keys.SecretName}
}

var _ = Describe("an operator of some namespaces", func() {
	It("works with the Roles of its installer, and sees nothing of others", func(ctx SpecContext) {
		const watched = "hyperliquid" // the installer's
		f, g, other := newFarm(ctx, 2), newFarm(ctx, 1), newFarm(ctx, 1)
		secret, arguments := installedKeys(ctx), ""
		for _, object := range manifests(ctx, "config/namespaced") {
			if object.GetKind() == "Deployment" {
				containers, _, err := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
				Expect(err).NotTo(HaveOccurred())
				arguments = fmt.Sprint(containers[0].(map[string]any)["args"])
			}
			if object.GetAPIVersion() != rbacv1.SchemeGroupVersion.String() ||
				strings.Contains(object.GetName(), "hyperliquidparser-") {
				continue
			}
			each := []string{object.GetNamespace()}
			if each[0] == watched {
				each = []string{f.namespace, g.namespace} // as an installation for two would copy the folder
			}
			for _, namespace := range each {
				object := object.DeepCopy()
				object.SetNamespace(namespace)
				Expect(k8s.Create(ctx, object)).To(Succeed())
				DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, object)).To(Succeed()) })
			}
		}
		Expect(arguments).To(ContainSubstring("--namespaces=" + watched))
		Expect(arguments).To(ContainSubstring("--leader-elect"))

		manager := run(runOptions{user: installed(), keySecret: secret, namespaces: []string{f.namespace, g.namespace}})
		mine, second, stranger := f.object(), g.object(), other.object()
		for _, o := range []*v1alpha1.HyperliquidParser{stranger, mine, second} {
			Expect(k8s.Create(ctx, o)).To(Succeed())
		}
		allReady(ctx, mine)
		allReady(ctx, second)
		change(ctx, mine, func(o *v1alpha1.HyperliquidParser) { o.Spec.Format = "Raw" })
		Eventually(ctx, func() int32 { return current(ctx, mine).Status.Updated }).WithTimeout(judged).Should(Equal(int32(2)))
		allReady(ctx, mine)
		By("following a node")
		f.addNode(ctx, f.node(2), true)
		Eventually(ctx, func() int32 { return current(ctx, mine).Status.Ready }).Should(Equal(int32(3)))
		Consistently(ctx, func() map[string]string { return other.uids(ctx) }).Should(BeEmpty())
		Expect(current(ctx, stranger).Status.ObservedGeneration).To(BeNumerically("==", -1))
		Expect(manager.health.Check(nil)).To(Succeed())
	})
})

var _ = Describe("the policy on the operator", func() {
	It("lets it have its own pods, and nobody else's", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		policy, binding := &admissionv1.ValidatingAdmissionPolicy{}, &admissionv1.ValidatingAdmissionPolicyBinding{}
		readYAML("../../config/operator-policy/policy.yaml", policy)
		readYAML("../../config/operator-policy/binding.yaml", binding)
		var role rbacv1.ClusterRole
		readYAML("../../config/rbac/role.yaml", &role)
		all := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "installed"},
			Rules: append(role.Rules, rbacv1.PolicyRule{
				APIGroups: []string{"*"}, Resources: []string{"pods", "pods/ephemeralcontainers", "configmaps", "secrets"},
				Verbs: []string{"*"},
			})}
		allowed := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "installed"},
			Subjects:   []rbacv1.Subject{{Kind: "User", Name: installedUser}},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "installed"},
		}
		for _, o := range []client.Object{all, allowed, policy, binding} {
			Expect(k8s.Create(ctx, o)).To(Succeed())
			DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, o)).To(Succeed()) })
		}
		it, err := client.New(installed(), client.Options{Scheme: scheme})
		Expect(err).NotTo(HaveOccurred())

		obj := f.object()
		f.setIdle(0, true)
		f.defaulted(ctx, obj)
		revision, err := podspec.NewRevision(obj, parserImage, "")
		Expect(err).NotTo(HaveOccurred())
		owner := metav1.OwnerReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "HyperliquidParser", Name: obj.Name,
			UID: "uid", Controller: ptr.To(true)}
		pod := func(edit func(*corev1.Pod)) *corev1.Pod {
			p := revision.Pod(client.ObjectKeyFromObject(obj), f.target(0), "")
			p.OwnerReferences = []metav1.OwnerReference{owner}
			edit(p)
			return p
		}
		create := func(edit func(*corev1.Pod)) error { return it.Create(ctx, pod(edit), client.DryRunAll) }
		bare := func(p *corev1.Pod) { p.Labels = nil }
		Eventually(ctx, func() error { return create(bare) }).Should(MatchError(ContainSubstring("carries the label")))
		Expect(create(func(*corev1.Pod) {})).To(Succeed())
		for name, test := range map[string]struct {
			edit    func(*corev1.Pod)
			message string
		}{
			"no owner": {func(p *corev1.Pod) { p.OwnerReferences = nil }, "a HyperliquidParser controls"},
			"an owner of another": {func(p *corev1.Pod) {
				p.OwnerReferences[0].Kind, p.OwnerReferences[0].APIVersion = "Job",
					"batch/v1"
			}, "a HyperliquidParser controls"},
			"of the kind's name": {func(p *corev1.Pod) { p.OwnerReferences[0].APIVersion = "evil.example/v1" },
				"a HyperliquidParser controls"},
			"an owner that is not": {func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil },
				"a HyperliquidParser controls"},
			"the node's network":   {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "do not share their node's network"},
			"the node's processes": {func(p *corev1.Pod) { p.Spec.HostPID = true }, "do not share their node's network"},
			"the node's IPC":       {func(p *corev1.Pod) { p.Spec.HostIPC = true }, "do not share their node's network"},
			"a token": {func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = nil },
				"no service account token"},
			"privilege": {func(p *corev1.Pod) {
				p.Spec.Containers[0].SecurityContext.Privileged = ptr.To(true)
				p.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = nil
			}, "not privileged"},
			"a container of others": {func(p *corev1.Pod) {
				p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: "x", Image: "x"})
			}, "not privileged"},
		} {
			Expect(create(test.edit)).To(MatchError(ContainSubstring(test.message)), name)
		}

		By("leaving other pods alone")
		strange := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "stranger"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}
		theirs := strange.DeepCopy()
		theirs.Name, theirs.OwnerReferences = "theirs",
			[]metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "j", UID: "u", Controller: ptr.To(true)}}
		Expect(k8s.Create(ctx, strange)).To(Succeed())
		Expect(k8s.Create(ctx, theirs)).To(Succeed())
		Expect(it.Delete(ctx, strange)).To(MatchError(ContainSubstring("carries the label")))
		took := theirs.DeepCopy()
		took.Labels, took.OwnerReferences = map[string]string{v1alpha1.LabelParser: obj.Name}, []metav1.OwnerReference{owner}
		Expect(it.Update(ctx, took)).To(MatchError(ContainSubstring("what somebody else controls")))
		Expect(it.Delete(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace,
			Name: "kube-root-ca.crt"}})).NotTo(Succeed())
		Expect(it.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "x"}},
			client.DryRunAll)).
			To(MatchError(ContainSubstring("carries the label")))
		Expect(it.Create(ctx, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "x"}},
			client.DryRunAll)).
			To(MatchError(ContainSubstring("carries the label")))
		debugged := pod(func(p *corev1.Pod) { p.Name = "debugged" })
		Expect(k8s.Create(ctx, debugged)).To(Succeed())
		debugged.Spec.EphemeralContainers = []corev1.EphemeralContainer{
			{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "x", Image: "x"}}}
		Expect(it.SubResource("ephemeralcontainers").Update(ctx, debugged)).To(
			MatchError(ContainSubstring("no subresources")))

		By("being a fleet's")
		run(runOptions{user: installed(), keySecret: installedKeys(ctx)})
		Expect(k8s.Delete(ctx, debugged, client.GracePeriodSeconds(0))).To(Succeed())
		f.setIdle(0, false)
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Format = "Raw"
			o.Spec.Rollout.RevisionHistoryLimit = ptr.To[int32](0)
		})
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).WithTimeout(judged).Should(Equal(int32(1)))
		Eventually(ctx, func() []string { return storedRevisions(ctx, obj) }).WithTimeout(judged).Should(HaveLen(1))
	})
})

// audit makes the API server of the suite log the operator's requests.
func audit(server *envtest.APIServer) {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	policy := dir + "/policy.yaml"
	auditLog = dir + "/audit.log"
	Expect(os.WriteFile(policy, []byte(auditPolicy), 0o600)).To(Succeed())
	server.Configure().Set("audit-policy-file", policy).Set("audit-log-path", auditLog)
}
