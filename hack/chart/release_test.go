package main

import (
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/kube"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// TestARelease installs, upgrades, rolls back and uninstalls the chart on a real API server. Nothing runs there, so
// releases are not waited for.
func TestARelease(t *testing.T) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS names no control plane; run make test")
	}
	logf.SetLogger(logr.Discard())
	env := &envtest.Environment{}
	restConfig, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	restConfig.QPS, restConfig.Burst = 200, 400
	clients, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := dynamic.NewForConfig(restConfig)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	fleets := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "hyperliquid"}}
	if _, err := clients.CoreV1().Namespaces().Create(ctx, fleets, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	config := action.NewConfiguration()
	if err := config.Init(getter(restConfig), namespace, "secret"); err != nil {
		t.Fatal(err)
	}
	args := func() []string {
		t.Helper()
		d, err := clients.AppsV1().Deployments(namespace).Get(ctx, name+"-controller-manager", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return d.Spec.Template.Spec.Containers[0].Args
	}
	parsers := objects.Resource(schema.GroupVersionResource{
		Group: "fleet.hlparser.dev", Version: "v1alpha1", Resource: "hyperliquidparsers",
	}).Namespace("hyperliquid")
	fleet := func(image string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "fleet.hlparser.dev/v1alpha1", "kind": "HyperliquidParser",
			"metadata": map[string]any{"name": "mainnet"},
			"spec": map[string]any{
				"target": map[string]any{"nodes": map[string]any{
					"selector": map[string]any{"matchLabels": map[string]any{"a": "b"}}, "dataPath": "/home/hluser/hl/data",
				}},
				"streams": []any{map[string]any{"name": "Fills"}},
				"sink":    map[string]any{"stdout": map[string]any{}},
				"image":   image,
			},
		}}
	}

	install := action.NewInstall(config)
	install.ReleaseName, install.Namespace, install.CreateNamespace = name, namespace, true
	install.WaitStrategy, install.Timeout, install.ServerSideApply = kube.HookOnlyStrategy, time.Minute, true
	policed := values(t, "admissionPolicy: {bounds: true, operator: true}")
	if _, err := install.RunWithContext(ctx, load(t), policed); err != nil {
		t.Fatalf("installing: %v", err)
	}
	installed := args()
	t.Log("the bounds hold: another image than the operator's is refused")
	deadline := time.Now().Add(time.Minute)
	for {
		_, err := parsers.Create(ctx, fleet("example.com/other:1"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("another image is not refused: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if _, err := parsers.Create(ctx, fleet(name+":v2"), metav1.CreateOptions{}); err != nil {
		t.Fatalf("the operator's image is refused: %v", err)
	}

	upgrade := action.NewUpgrade(config)
	upgrade.Namespace, upgrade.WaitStrategy, upgrade.ServerSideApply = namespace, kube.HookOnlyStrategy, "auto"
	_, err = upgrade.RunWithContext(ctx, name, load(t), values(t, "namespaces: [hyperliquid]\nmanager: {replicas: 3}"))
	if err != nil {
		t.Fatalf("upgrading: %v", err)
	}
	if len(args()) != len(installed)+1 {
		t.Errorf("the upgraded manager's flags are %v", args())
	}
	role := name + "-manager-role"
	if _, err := clients.RbacV1().Roles("hyperliquid").Get(ctx, role, metav1.GetOptions{}); err != nil {
		t.Errorf("the namespaced role: %v", err)
	}
	policies := clients.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	left, err := policies.List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + name})
	if err != nil || len(left.Items) > 0 {
		t.Errorf("an upgrade without admission policies leaves %d: %v", len(left.Items), err)
	}

	rollback := action.NewRollback(config)
	rollback.WaitStrategy, rollback.ServerSideApply = kube.HookOnlyStrategy, "auto"
	if err := rollback.Run(name); err != nil {
		t.Fatalf("rolling back: %v", err)
	}
	if len(args()) != len(installed) {
		t.Errorf("the manager's flags after the rollback are %v", args())
	}

	uninstall := action.NewUninstall(config)
	uninstall.WaitStrategy, uninstall.Timeout = kube.HookOnlyStrategy, time.Minute
	if _, err := uninstall.Run(name); err != nil {
		t.Fatalf("uninstalling: %v", err)
	}
	if _, err := parsers.Get(ctx, "mainnet", metav1.GetOptions{}); err != nil {
		t.Errorf("the object is gone with the release: %v", err)
	}
	ofCharts := metav1.ListOptions{LabelSelector: "helm.sh/chart"}
	accounts, err := clients.CoreV1().ServiceAccounts(namespace).List(ctx, ofCharts)
	if err != nil || len(accounts.Items) > 0 {
		t.Errorf("the release leaves %d accounts: %v", len(accounts.Items), err)
	}

	t.Log("a later install of the same release takes the CRD that it left")
	again := action.NewInstall(config)
	again.ReleaseName, again.Namespace = name, namespace
	again.WaitStrategy, again.Timeout, again.ServerSideApply = kube.HookOnlyStrategy, time.Minute, true
	if _, err := again.RunWithContext(ctx, load(t), nil); err != nil {
		t.Fatalf("installing once more: %v", err)
	}
}

// getter returns the clients' settings as Helm wants them.
func getter(config *rest.Config) *genericclioptions.ConfigFlags {
	flags := genericclioptions.NewConfigFlags(true)
	where := namespace
	flags.Namespace = &where
	flags.WrapConfigFn = func(*rest.Config) *rest.Config { return rest.CopyConfig(config) }
	return flags
}
