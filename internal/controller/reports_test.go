package controller_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
)

// bindRole binds a shipped ClusterRole to a service account, in one namespace or, for "", in all.
func bindRole(ctx SpecContext, file, namespace string, subject rbacv1.Subject) {
	GinkgoHelper()
	var role rbacv1.ClusterRole
	readYAML("../../config/rbac/"+file, &role)
	Expect(k8s.Create(ctx, &role)).To(Succeed())
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name}
	name := metav1.ObjectMeta{Name: role.Name, Namespace: namespace}
	var binding client.Object = &rbacv1.RoleBinding{ObjectMeta: name, Subjects: []rbacv1.Subject{subject}, RoleRef: ref}
	if namespace == "" {
		binding = &rbacv1.ClusterRoleBinding{ObjectMeta: name, Subjects: []rbacv1.Subject{subject}, RoleRef: ref}
	}
	Expect(k8s.Create(ctx, binding)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		Expect(k8s.Delete(ctx, binding)).To(Succeed())
		Expect(k8s.Delete(ctx, &role)).To(Succeed())
	})
}

var _ = Describe("reports for people", func() {
	It("are those of the poller, for readers whom the API server allows", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		obj := f.object()
		bindRole(ctx, "metrics_auth_role.yaml", "",
			rbacv1.Subject{Kind: "ServiceAccount", Namespace: operatorNamespace, Name: "controller-manager"})
		bindRole(ctx, "reports_reader_role.yaml", obj.Namespace,
			rbacv1.Subject{Kind: "ServiceAccount", Namespace: obj.Namespace, Name: "reader"})
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: "reader"}}
		Expect(k8s.Create(ctx, account)).To(Succeed())
		token := &authenticationv1.TokenRequest{}
		Expect(k8s.SubResource("token").Create(ctx, account, token)).To(Succeed())

		listener, err := net.Listen("tcp", "127.0.0.1:0")
		Expect(err).NotTo(HaveOccurred())
		address := listener.Addr().String()
		Expect(listener.Close()).To(Succeed())
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		run(runOptions{reports: address})
		allReady(ctx, obj)
		f.parser(1).setDeaf()

		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		DeferCleanup(transport.CloseIdleConnections)
		get := func(namespace string) (int, string, error) {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet,
				fmt.Sprintf("https://%s/reports/%s/%s", address, namespace, obj.Name), nil)
			if err != nil {
				return 0, "", err
			}
			request.Header.Set("Authorization", "Bearer "+token.Status.Token)
			response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
			if err != nil {
				return 0, "", err
			}
			defer func() { _ = response.Body.Close() }()
			text, err := io.ReadAll(response.Body)
			return response.StatusCode, string(text), err
		}
		Eventually(func(g Gomega) {
			code, text, err := get(obj.Namespace)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(code).To(Equal(http.StatusOK), text)
			_, targets, err := reports.Read(strings.NewReader(text))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(targets).To(HaveLen(2))
			answers, silent := targets[0], targets[1]
			g.Expect(answers.Target).To(Equal(f.node(0)))
			g.Expect(answers.Verdict).To(Equal(string(health.Healthy)))
			g.Expect(answers.Report).NotTo(BeNil())
			g.Expect(answers.Report.Streams).NotTo(BeEmpty())
			g.Expect(silent.Verdict).To(Equal(string(health.Unreachable)))
			g.Expect(silent.Failure).NotTo(BeEmpty())
		}).WithTimeout(judged).Should(Succeed())

		code, text, err := get(operatorNamespace)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(http.StatusForbidden), text)
	})
})
