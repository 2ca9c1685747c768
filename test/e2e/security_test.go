package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// configDir holds what is installed.
var configDir = filepath.Join("..", "..", "config")

// setLevel sets the Pod Security level of the fleet's namespace.
func (f *fleet) setLevel(ctx context.Context, level string) {
	GinkgoHelper()
	kubectl(ctx, "label", "namespace", f.namespace, "--overwrite", "pod-security.kubernetes.io/enforce="+level)
}

var _ = Describe("the Pod Security level of a namespace", Label("security"), func() {
	It("must be privileged for host paths, which is said", func(ctx SpecContext) {
		f := newFleet(ctx, "level-nodes", rate)
		f.setLevel(ctx, "baseline")
		begin := time.Now()
		Expect(k8s.Create(ctx, f.object())).To(Succeed())
		message := f.waitStalled(ctx, v1alpha1.ReasonPodRejected).Message
		reportNoticed(begin, "%s", message)
		Expect(message).To(And(
			ContainSubstring(`violates PodSecurity "baseline:latest"`), ContainSubstring("hostPath volumes")))
		keep(ctx, f, "level-baseline")
		f.setLevel(ctx, "privileged")
		begin = time.Now()
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(8*time.Minute))

	It("is baseline at least where everything is on claims; restricted refuses the init container", func(ctx SpecContext) {
		f := newPodFleet(ctx, "level-claims", "restricted", 1, officialChart)
		f.recordsOnClaim(ctx)
		f.writeAs(0)
		f.scale(ctx, 1) // the Hyperliquid node itself is allowed
		begin := time.Now()
		Expect(k8s.Create(ctx, f.object())).To(Succeed())
		message := f.waitStalled(ctx, v1alpha1.ReasonPodRejected).Message
		reportNoticed(begin, "%s", message)
		Expect(message).To(And(
			ContainSubstring(`violates PodSecurity "restricted:latest"`), ContainSubstring(`container "prepare"`)))
		keep(ctx, f.fleet, "level-restricted")
		f.setLevel(ctx, "baseline")
		begin = time.Now()
		f.waitTargets(ctx, 1)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(8*time.Minute))
})

var _ = Describe("a link", Label("security"), func() {
	It("out of the data directory is not followed", func(ctx SpecContext) {
		f := newFleet(ctx, "links", rate)
		// An hour and a day that the node does not write while the spec runs.
		now := time.Now().UTC()
		hours := filepath.Join(f.dataPath(), sources[1].Dir())
		hour := filepath.Join(hours, now.Format("20060102"), fmt.Sprint((now.Hour()+12)%24))
		day := filepath.Join(hours, "20240102")
		links := map[string]string{hour: "/var/lib/" + f.namespace + "/3", day: "/var/lib/" + f.namespace}
		secret := cluster.hostPath(1, "/var/lib/"+f.namespace)
		Expect(os.MkdirAll(secret, 0o755)).To(Succeed())
		DeferCleanup(func() { Expect(os.RemoveAll(secret)).To(Succeed()) })
		line := `{"local_time":"2026-01-01T00:00:00.0","block_time":"2026-01-01T00:00:00.0","block_number":1,` +
			`"events":[["0x0000000000000000000000000000000000000001",{"coin":"SECRET","px":"1","sz":"1"}]]}` + "\n"
		Expect(os.WriteFile(filepath.Join(secret, "3"), []byte(line), 0o644)).To(Succeed())
		for link, to := range links {
			cluster.onNode(ctx, 1, "mkdir", "-p", filepath.Dir(link))
			cluster.onNode(ctx, 1, "ln", "-s", to, link)
		}
		begin := time.Now()
		Expect(k8s.Create(ctx, f.object())).To(Succeed())
		target := f.waitVerdict(ctx, "SourceUnreadable", "leads outside")
		reportNoticed(begin, "%s", target.Message)
		keep(ctx, f, "link-outside")
		for link := range links {
			cluster.onNode(ctx, 1, "rm", link)
		}
		begin = time.Now()
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx) // what was behind the links would be foreign
	}, SpecTimeout(8*time.Minute))

	It("in the place of a directory that parsers write to is not followed, which is said", func(ctx SpecContext) {
		f := newFleet(ctx, "link-state", rate)
		state, elsewhere := "/var/lib/hlparser/"+f.namespace, "/srv/"+f.namespace
		cluster.onNode(ctx, 1, "mkdir", "-p", filepath.Dir(state), elsewhere)
		DeferCleanup(func(ctx SpecContext) { cluster.onNode(ctx, 1, "rm", "-rf", elsewhere) })
		cluster.onNode(ctx, 1, "ln", "-s", elsewhere, state)
		begin := time.Now()
		Expect(k8s.Create(ctx, f.object())).To(Succeed())
		target := f.waitVerdict(ctx, "NotRunning")
		reportNoticed(begin, "%s: %s", target.Reason, target.Message)
		Expect(target.Message).To(ContainSubstring("subPath"))
		keep(ctx, f, "link-state")
		Expect(os.ReadDir(cluster.hostPath(1, elsewhere))).To(BeEmpty())
		cluster.onNode(ctx, 1, "rm", state)
		begin = time.Now()
		f.waitWell(ctx, whole)
		reportWhole(begin)
		f.exact(ctx)
	}, SpecTimeout(8*time.Minute))
})

var _ = Describe("metrics", Label("security"), func() {
	It("of the operator are for authorized readers, those of parsers for everyone who may connect", func(ctx SpecContext) {
		f := newFleet(ctx, "metrics", rate)
		f.create(ctx, f.object())
		operators, err := clients.CoreV1().Pods(operatorNamespace).List(ctx, metav1.ListOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(operators.Items).NotTo(BeEmpty())
		for i := range operators.Items {
			url := "https://" + net.JoinHostPort(operators.Items[i].Status.PodIP, "8443") + "/metrics"
			status, _ := get(ctx, url, "")
			Expect(status).To(Equal(http.StatusUnauthorized))
			status, _ = get(ctx, url, f.token(ctx, "stranger", ""))
			Expect(status).To(Equal(http.StatusForbidden))
			status, text := get(ctx, url, f.token(ctx, "reader", "hyperliquid-parser-operator-metrics-reader"))
			Expect(status).To(Equal(http.StatusOK))
			Expect(text).To(ContainSubstring("hlparser_fleet_"))
		}
		pod := f.pod(ctx, 1)
		port := fmt.Sprint(pod.Spec.Containers[0].Ports[0].ContainerPort)
		status, text := get(ctx, "http://"+net.JoinHostPort(pod.Status.PodIP, port)+"/metrics", "")
		Expect(status).To(Equal(http.StatusOK))
		Expect(text).To(ContainSubstring("hlparser_delivered_total"))
		Expect(text).NotTo(ContainSubstring(f.dataPath()), "metrics have no paths")
		report("metrics: the operator answers 401 without a token, 403 without the right and 200 with it; a parser 200")
		f.exact(ctx)
	}, SpecTimeout(6*time.Minute))
})

// token returns a token of a new service account in the fleet's namespace, with a ClusterRole unless that is empty.
func (f *fleet) token(ctx context.Context, name, role string) string {
	GinkgoHelper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: name}}
	Expect(client.IgnoreAlreadyExists(k8s.Create(ctx, account))).To(Succeed())
	if role != "" {
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: f.namespace + "-" + name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: f.namespace, Name: name}},
		}
		Expect(client.IgnoreAlreadyExists(k8s.Create(ctx, binding))).To(Succeed())
		DeferCleanup(func(ctx SpecContext) {
			Expect(client.IgnoreNotFound(k8s.Delete(ctx, binding))).To(Succeed())
		})
	}
	request := &authenticationv1.TokenRequest{}
	got, err := clients.CoreV1().ServiceAccounts(f.namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	return got.Status.Token
}

// get returns the status and the body of a page. The operator signs its own certificate.
func get(ctx context.Context, url, token string) (int, string) {
	GinkgoHelper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // see above
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	Expect(err).NotTo(HaveOccurred())
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	Expect(err).NotTo(HaveOccurred())
	return answer.StatusCode, string(text)
}

var _ = Describe("network policies", Label("security"), func() {
	It("are kept for each object, and those of config apply", func(ctx SpecContext) {
		f := newFleet(ctx, "network-policy", rate)
		f.create(ctx, f.object())
		var policies networkingv1.NetworkPolicyList
		Expect(k8s.List(ctx, &policies, client.InNamespace(f.namespace))).To(Succeed())
		Expect(policies.Items).To(HaveLen(1))
		Expect(policies.Items[0].OwnerReferences).To(HaveLen(1))
		Expect(policies.Items[0].OwnerReferences[0].Name).To(Equal(f.name))
		alone := filepath.Join(configDir, "network-policy")
		DeferCleanup(func(ctx SpecContext) { kubectl(ctx, "delete", "--ignore-not-found", "-k", alone) })
		kubectl(ctx, "apply", "-k", alone)
		kubectl(ctx, "apply", "-n", f.namespace, "-f", filepath.Join(alone, "allow-reports.yaml"))
		f.waitWell(ctx, whole)
		report("network-policy: three policies apply; whether one is enforced is up to the network, " +
			"and the bridges of hack/cluster enforce none")
		f.exact(ctx)
	}, SpecTimeout(6*time.Minute))
})

var _ = Describe("admission policies", Label("security"), Serial, func() {
	It("refuse what the flags hold back, and hold the operator to its own pods", func(ctx SpecContext) {
		DeferCleanup(func(ctx SpecContext) { // the API server goes on to ask a policy for a moment
			good := (&fleet{namespace: "default", name: "after-the-policy"}).object()
			Eventually(func() error { return k8s.Create(ctx, good.DeepCopy(), client.DryRunAll) }).
				WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
		})
		for _, policy := range []string{"admission-policy", "operator-policy"} {
			dir := filepath.Join(configDir, policy)
			DeferCleanup(func(ctx SpecContext) { kubectl(ctx, "delete", "--ignore-not-found", "-k", dir) })
			kubectl(ctx, "apply", "-k", dir)
		}
		f := newFleet(ctx, "policies", rate)
		By("refusing an object that the operator would hold back")
		bad := f.object()
		bad.Spec.Target.Nodes.DataPath = "/etc"
		var refusal error
		begin := time.Now()
		Eventually(func() error { // the API server takes a moment to compile a policy
			refusal = k8s.Create(ctx, bad.DeepCopy(), client.DryRunAll)
			return refusal
		}).WithContext(ctx).WithTimeout(time.Minute).ShouldNot(Succeed())
		Expect(apierrors.IsForbidden(refusal) || apierrors.IsInvalid(refusal)).To(BeTrue(), "%v", refusal)
		Expect(refusal).To(MatchError(ContainSubstring("is outside what the manager allows")))
		reportNoticed(begin, "%s", refusal)

		By("letting the operator have parsers")
		f.create(ctx, f.object())
		pod := f.pod(ctx, 1)
		Expect(k8s.Delete(ctx, pod)).To(Succeed())
		Eventually(func() bool { return f.pod(ctx, 1).UID != pod.UID }).WithContext(ctx).WithTimeout(whole).Should(BeTrue())
		f.waitWell(ctx, whole)

		By("refusing a pod of somebody who has the operator's token")
		thief := rest.CopyConfig(restConf)
		thief.Impersonate = rest.ImpersonationConfig{
			UserName: "system:serviceaccount:" + operatorNamespace + ":" + operatorName,
			Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + operatorNamespace, "system:authenticated"},
		}
		stolen, err := client.New(thief, client.Options{Scheme: k8s.Scheme()})
		Expect(err).NotTo(HaveOccurred())
		err = stolen.Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "stranger"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "idle", Image: idle}}},
		}, client.DryRunAll)
		Expect(err).To(MatchError(ContainSubstring("the operator may only write and delete what")))
		report("policies: %s", strings.TrimSpace(err.Error()))
		f.exact(ctx)
	}, SpecTimeout(8*time.Minute))
})
