package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

//go:embed fleet.yaml
var fleetYAML []byte

// Names from fleet.yaml and config/default.
const (
	fleetNamespace  = "hyperliquid"
	fleetName       = "mainnet"
	systemNamespace = "hyperliquid-parser-operator-system"
	operatorAccount = "hyperliquid-parser-operator-controller-manager"
	nodeLabel       = "hyperliquid.xyz/role"
	dataPath        = "/home/hluser/hl/data"
	outputPath      = "/var/lib/hlparser-out/" + fleetNamespace + "/" + fleetName
)

func newClient(config *rest.Config) (client.Client, error) {
	scheme := runtime.NewScheme()
	builder := runtime.NewSchemeBuilder(clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme)
	if err := builder.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("creating a scheme: %w", err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("creating a client: %w", err)
	}
	return c, nil
}

// install applies what `make deploy` applies, except the Deployment, which the demo runs as a process, and its Service.
func install(ctx context.Context, c client.Client, sourceTree string) error {
	// Run where the tools are pinned. Later runs use Go's cache.
	kustomize := exec.CommandContext(ctx, "go", "tool", "-modfile=hack/tools/go.mod",
		"kustomize", "build", "config/default")
	kustomize.Dir = sourceTree
	var stderr strings.Builder
	kustomize.Stderr = &stderr
	manifests, err := kustomize.Output()
	if err != nil {
		return fmt.Errorf("rendering config/default: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return apply(ctx, c, manifests, "Deployment", "Service")
}

// apply applies the objects of a YAML stream, except those of the kinds in skip.
func apply(ctx context.Context, c client.Client, manifests []byte, skip ...string) error {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	for {
		obj := &unstructured.Unstructured{}
		if err := decoder.Decode(&obj.Object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading manifests: %w", err)
		}
		if len(obj.Object) == 0 || slices.Contains(skip, obj.GetKind()) {
			continue
		}
		err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(obj),
			client.FieldOwner("hlparser-demo"), client.ForceOwnership)
		if err != nil {
			return fmt.Errorf("applying %s %s: %w", obj.GetKind(), obj.GetName(), err)
		}
		if obj.GetKind() == "CustomResourceDefinition" {
			if err := waitServed(ctx, c, obj.GetName()); err != nil {
				return err
			}
		}
	}
}

// withSpec returns the manifests with the spec of each HyperliquidParser changed.
func withSpec(manifests []byte, change func(spec map[string]any) error) ([]byte, error) {
	var out bytes.Buffer
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	for {
		obj := &unstructured.Unstructured{}
		if err := decoder.Decode(&obj.Object); errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		} else if err != nil {
			return nil, fmt.Errorf("reading manifests: %w", err)
		}
		if obj.GetKind() == "HyperliquidParser" {
			spec, ok := obj.Object["spec"].(map[string]any)
			if !ok {
				return nil, fmt.Errorf("changing the spec of %s: it has none", obj.GetName())
			}
			if err := change(spec); err != nil {
				return nil, fmt.Errorf("changing the spec of %s: %w", obj.GetName(), err)
			}
		}
		text, err := obj.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("writing manifests: %w", err)
		}
		out.Write(append(text, '\n'))
	}
}

// waitServed waits until the API serves objects of a new kind.
func waitServed(ctx context.Context, c client.Client, crd string) error {
	const interval, limit = 50 * time.Millisecond, 30 * time.Second
	err := wait.PollUntilContextTimeout(ctx, interval, limit, true, func(ctx context.Context) (bool, error) {
		var obj apiextensionsv1.CustomResourceDefinition
		if err := c.Get(ctx, client.ObjectKey{Name: crd}, &obj); err != nil {
			return false, err
		}
		return slices.ContainsFunc(obj.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
		}), nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s to be served: %w", crd, err)
	}
	return nil
}

// operatorToken returns a real token of the operator's service account, so that the operator has exactly the rights of
// its generated role.
func operatorToken(ctx context.Context, c client.Client) (string, error) {
	day := int64(24 * time.Hour / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &day}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: operatorAccount}}
	if err := c.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("requesting a token for the operator: %w", err)
	}
	return request.Status.Token, nil
}

// defaultAccount creates the default service account if no controller-manager does.
func defaultAccount(ctx context.Context, c client.Client) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: fleetNamespace, Name: "default"}}
	if err := c.Create(ctx, account); client.IgnoreAlreadyExists(err) != nil {
		return fmt.Errorf("creating the default service account: %w", err)
	}
	return nil
}

// sourceTree returns the directory of this program's module.
func sourceTree(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("finding the source tree: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
