package server_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports/server"
)

// Who gets the reports of ns/mainnet, as an API server decides by the roles that are shipped.
func TestWhoMayReadReports(t *testing.T) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: run make test, which finds or builds kube-apiserver and etcd")
	}
	ctrl.SetLogger(logr.Discard())
	env := &envtest.Environment{ControlPlaneStartTimeout: 5 * time.Minute, ControlPlaneStopTimeout: 2 * time.Minute}
	admin, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	api, err := kubernetes.NewForConfig(admin)
	if err != nil {
		t.Fatal(err)
	}
	k := &cluster{t, api}
	for _, namespace := range []string{"ns", "other"} {
		_, err := api.CoreV1().Namespaces().Create(t.Context(),
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		k.must(err)
	}
	role := k.role("../../../../config/rbac/reports_reader_role.yaml")
	samples := k.role("../../../../config/rbac/samples_reader_role.yaml")
	viewer := k.role("../../../../config/rbac/hyperliquidparser_viewer_role.yaml")
	scraper := k.role("../../../../config/rbac/metrics_reader_role.yaml")
	reviews := k.role("../../../../config/rbac/metrics_auth_role.yaml")
	tokens := map[string]string{"nobody": "", "a liar": "not-a-token"}
	for name, roles := range map[string][]string{
		"reader-of-ns": {role + " ns"}, "reader-of-other": {role + " other"}, "reader-of-all": {role + " *"},
		"sampler-of-ns": {samples + " ns"}, "viewer": {viewer + " *"}, "scraper": {scraper + " *"},
	} {
		tokens[name] = k.serviceAccount(name, roles...)
	}

	// The manager has the right to ask and nothing else.
	manager := rest.AnonymousClientConfig(admin)
	manager.BearerToken = k.serviceAccount("manager", reviews+" *")
	url := serveReports(t, manager)
	for _, test := range []struct {
		who, path string
		code      int
	}{
		{"nobody", "/reports/ns/mainnet", 401},
		{"a liar", "/reports/ns/mainnet", 401},
		{"reader-of-ns", "/reports/ns/mainnet", 200},
		{"reader-of-ns", "/reports/other/mainnet", 403},
		{"reader-of-ns", "/reports/ns/../other/mainnet", 403},
		{"reader-of-ns", "/reports/", 404},
		{"reader-of-ns", "/metrics", 403},
		{"reader-of-other", "/reports/ns/mainnet", 403},
		{"reader-of-all", "/reports/ns/mainnet", 200},
		{"viewer", "/reports/ns/mainnet", 403},
		{"scraper", "/reports/ns/mainnet", 403},
		{"scraper", "/metrics", 200},
		{"nobody", "/samples/ns/mainnet?target=node-00001", 401},
		{"a liar", "/samples/ns/mainnet?target=node-00001", 401},
		{"sampler-of-ns", "/samples/ns/mainnet?target=node-00001", 200},
		{"sampler-of-ns", "/samples/other/mainnet?target=node-00001", 403},
		{"sampler-of-ns", "/samples/ns/../other/mainnet?target=node-00001", 403},
		{"sampler-of-ns", "/samples/", 404},
		{"sampler-of-ns", "/reports/ns/mainnet", 403},
		{"sampler-of-ns", "/diagnosis/ns/mainnet", 403},
		{"reader-of-all", "/samples/ns/mainnet?target=node-00001", 403},
		{"viewer", "/samples/ns/mainnet?target=node-00001", 403},
		{"scraper", "/samples/ns/mainnet?target=node-00001", 403},
		{"nobody", "/diagnosis/ns/mainnet", 401},
		{"reader-of-ns", "/diagnosis/ns/mainnet", 200},
		{"reader-of-ns", "/diagnosis/ns/mainnet?target=node-00001", 200},
		{"reader-of-other", "/diagnosis/ns/mainnet", 403},
		{"viewer", "/diagnosis/ns/mainnet", 403},
		{"nobody", "/metrics", 401},
	} {
		if code := read(t, url+test.path, tokens[test.who]); code != test.code {
			t.Errorf("%s, %s: %d, want %d", test.who, test.path, code, test.code)
		}
	}
}

// cluster is an API server.
type cluster struct {
	t   *testing.T
	api kubernetes.Interface
}

func (k *cluster) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// role creates the ClusterRole of a manifest and returns its name.
func (k *cluster) role(file string) string {
	k.t.Helper()
	data, err := os.ReadFile(file)
	k.must(err)
	var role rbacv1.ClusterRole
	k.must(yaml.UnmarshalStrict(data, &role))
	_, err = k.api.RbacV1().ClusterRoles().Create(k.t.Context(), &role, metav1.CreateOptions{})
	k.must(err)
	return role.Name
}

// serviceAccount creates a service account with roles, each in a namespace or in all, and returns a token of it.
func (k *cluster) serviceAccount(name string, roles ...string) string {
	k.t.Helper()
	ctx := k.t.Context()
	_, err := k.api.CoreV1().ServiceAccounts("ns").Create(ctx,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	k.must(err)
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "ns", Name: name}}
	for _, text := range roles {
		var role, namespace string
		_, err := fmt.Sscan(text, &role, &namespace)
		k.must(err)
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
		if namespace == "*" {
			_, err = k.api.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subjects, RoleRef: ref}, metav1.CreateOptions{})
		} else {
			_, err = k.api.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subjects, RoleRef: ref}, metav1.CreateOptions{})
		}
		k.must(err)
	}
	token, err := k.api.CoreV1().ServiceAccounts("ns").CreateToken(ctx, name, &authenticationv1.TokenRequest{},
		metav1.CreateOptions{})
	k.must(err)
	return token.Status.Token
}

// serveReports runs a manager's metrics server until the test ends, and returns its address.
func serveReports(t *testing.T, manager *rest.Config) string {
	t.Helper()
	client, err := rest.HTTPClientFor(manager)
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := metricsserver.NewServer(metricsserver.Options{
		BindAddress: "127.0.0.1:0", SecureServing: true, FilterProvider: server.Filter,
		ExtraHandlers: map[string]http.Handler{
			"/reports/":   server.Handler(fleet{mainnet, 3}, closed(), clock.RealClock{}),
			"/samples/":   server.Samples(parser{}, closed()),
			"/diagnosis/": server.Diagnosis(parser{}, closed()),
		},
	}, manager, client)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- endpoint.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	address := endpoint.(interface{ GetBindAddr() string })
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if address.GetBindAddr() != "" {
			return "https://" + address.GetBindAddr()
		}
	}
	t.Fatal("the server does not start")
	return ""
}

func read(t *testing.T, url, token string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	// The certificate is the server's own.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response.StatusCode
}
