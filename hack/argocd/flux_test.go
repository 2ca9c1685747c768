package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

const (
	current    = "Current"
	inProgress = "InProgress"
	failed     = "Failed"
)

// documents returns the objects of a file of examples.
func documents(t *testing.T, path string) (out []*unstructured.Unstructured) {
	t.Helper()
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(read(t, "../..", path)), 4096)
	for {
		u := &unstructured.Unstructured{}
		err := decoder.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out = append(out, u)
	}
}

// expression returns a CEL expression, which sees the fields of an object as Flux shows them to it.
func expression(t *testing.T, text string) cel.Program {
	t.Helper()
	field := func(name string) cel.EnvOption { return cel.Variable(name, cel.DynType) }
	env, err := cel.NewEnv(field("apiVersion"), field("kind"), field("metadata"), field("spec"), field("status"))
	if err != nil {
		t.Fatal(err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		t.Fatal(issues.Err())
	}
	program, err := env.Program(ast)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// fluxHealth judges as Flux's kustomize-controller does: by the generation, and then by failed and current.
func fluxHealth(u *unstructured.Unstructured, fails, passes cel.Program) (string, error) {
	seen, found, err := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
	if err != nil {
		return "", err
	}
	if found && seen != u.GetGeneration() {
		return inProgress, nil
	}
	for _, e := range []struct {
		program cel.Program
		health  string
	}{{fails, failed}, {passes, current}} {
		got, _, err := e.program.Eval(u.Object)
		if err != nil {
			return "", err
		}
		is, ok := got.Value().(bool)
		if !ok {
			return "", fmt.Errorf("%v is no boolean", got)
		}
		if is {
			return e.health, nil
		}
	}
	return inProgress, nil
}

// The example for Flux judges every object as the script for Argo CD does. Flux knows no state of being suspended: an
// object that is paused is current, or on its way while pods of an older revision stay.
func TestFluxAgreesWithArgoCD(t *testing.T) {
	fails, passes := fluxExample(t)
	want := map[string][]string{
		healthy: {current}, degraded: {failed}, progressing: {inProgress}, suspended: {current, inProgress},
	}
	for _, c := range readHealthCases(t) {
		got, err := fluxHealth(object(t, scripts, c.Input), fails, passes)
		if err != nil || !slices.Contains(want[c.Health.Status], got) {
			t.Errorf("%s is %s to Argo CD and %q to Flux: %v", c.Input, c.Health.Status, got, err)
		}
	}
}

// fluxExample returns the expressions of the example for Flux.
func fluxExample(t *testing.T) (fails, passes cel.Program) {
	t.Helper()
	var exprs map[string]string
	for _, u := range documents(t, "config/flux/fleet.yaml") {
		list, _, err := unstructured.NestedSlice(u.Object, "spec", "healthCheckExprs")
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range list {
			exprs = map[string]string{}
			for name, value := range item.(map[string]any) {
				exprs[name] = value.(string)
			}
		}
	}
	if exprs["kind"] != "HyperliquidParser" || exprs["apiVersion"] != v1alpha1.GroupVersion.String() {
		t.Fatalf("the example has %v", exprs)
	}
	return expression(t, exprs["failed"]), expression(t, exprs["current"])
}

// No example applies fleets on the server side, and all name what this repository has.
func TestExamples(t *testing.T) {
	for _, file := range []string{
		"config/argocd/application.yaml", "config/argocd/applicationset.yaml",
		"config/flux/operator.yaml", "config/flux/fleet.yaml",
	} {
		text := read(t, "../..", file)
		if strings.Contains(text, "ServerSideApply=true") {
			t.Errorf("%s applies on the server side", file)
		}
		for _, u := range documents(t, file) {
			if u.GetKind() == "" || u.GetName() == "" || u.GetNamespace() == "" {
				t.Errorf("%s has an object without kind, name or namespace: %v", file, u.Object)
			}
		}
		if strings.Contains(text, "hlparser/hyperliquid-parser-operator\n") && !strings.Contains(text, "config/default") {
			t.Errorf("%s does not install config/default", file)
		}
	}
}
