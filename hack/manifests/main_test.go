package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// maxCRD bounds the CRD, in bytes: kubectl apply stores all of it in an annotation, and an object's annotations may
// have at most 256 KiB.
const maxCRD = 200_000

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile("../../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func document(t *testing.T, path string) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := yaml.UnmarshalStrict(read(t, path), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTheManifestsAreUpToDate(t *testing.T) {
	for _, f := range manifests() {
		got, err := remake(read(t, f.from), f.make)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(read(t, f.to)) {
			t.Errorf("%s differs from what is generated from %s: run make manifests", f.to, f.from)
		}
	}
}

func TestTheCRDCanBeApplied(t *testing.T) {
	if n := len(read(t, crdFile)); n > maxCRD {
		t.Errorf("the CRD has %d bytes, at most %d can be applied", n, maxCRD)
	}
}

// leaves calls do for each schema that has no schema below it, and for lists and maps.
func leaves(schema map[string]any, path string, do func(path string, schema map[string]any)) {
	if schema["type"] != "object" || schema["additionalProperties"] != nil {
		do(path, schema)
	}
	fields, _ := schema["properties"].(map[string]any)
	for name, field := range fields {
		leaves(field.(map[string]any), path+"."+name, do)
	}
	for _, below := range []string{"items", "additionalProperties"} {
		if s, ok := schema[below].(map[string]any); ok {
			leaves(s, path+"[]", do)
		}
	}
}

func TestEveryLeafOfTheCRDIsBounded(t *testing.T) {
	crd := document(t, crdFile)
	version := crd["spec"].(map[string]any)["versions"].([]any)[0].(map[string]any)
	root := version["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)["properties"].(map[string]any)
	seen := 0
	check := func(path string, schema map[string]any) {
		seen++
		var want []string
		switch {
		case schema["x-kubernetes-int-or-string"] == true:
			want = []string{"minimum", "maximum", "maxLength"}
		case schema["type"] == "integer":
			want = []string{"minimum", "maximum"}
		case schema["type"] == "string" && schema["enum"] == nil:
			want = []string{"maxLength"}
		case schema["type"] == "array":
			want = []string{"maxItems"}
		case schema["type"] == "object":
			want = []string{"maxProperties"}
		}
		for _, name := range want {
			if schema[name] == nil {
				t.Errorf("%s has no %s: run make manifests", path, name)
			}
		}
		if schema["format"] == "int32" &&
			(schema["maximum"].(float64) > maxInt32 || schema["minimum"].(float64) < -maxInt32-1) {
			t.Errorf("%s takes numbers that no int32 holds", path)
		}
	}
	leaves(root["spec"].(map[string]any), "spec", check)
	leaves(root["status"].(map[string]any), "status", check)
	if seen < 200 {
		t.Errorf("%d leaves: the test reads the wrong part of the CRD", seen)
	}
}

func TestAFieldThatNothingBoundsIsRefused(t *testing.T) {
	for name, schema := range map[string]map[string]any{
		"anything":       {"x-kubernetes-preserve-unknown-fields": true, "type": "object"},
		"a number":       {"type": "number"},
		"no type":        {},
		"items of those": {"type": "array", "items": map[string]any{"type": "number"}},
		"no items":       {"type": "array"},
	} {
		if err := bound(schema, []string{"spec", "field"}); err == nil || !strings.Contains(err.Error(), "spec.field") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestARoleIsSplitWithNothingLostOrAdded(t *testing.T) {
	verbs := func(path string) []string {
		var out []string
		for _, r := range document(t, path)["rules"].([]any) {
			rule := r.(map[string]any)
			for _, resource := range rule["resources"].([]any) {
				for _, verb := range rule["verbs"].([]any) {
					out = append(out, fmt.Sprint(rule["apiGroups"], resource, rule["resourceNames"], verb))
				}
			}
		}
		slices.Sort(out)
		return out
	}
	split := append(verbs(clusterRoleFile), verbs(watchedRoleFile)...)
	slices.Sort(split)
	if whole := verbs(roleFile); !slices.Equal(split, whole) {
		t.Errorf("split:\n%s\nwhole:\n%s", strings.Join(split, "\n"), strings.Join(whole, "\n"))
	}
	for _, rule := range verbs(clusterRoleFile) {
		if !strings.Contains(rule, "nodes") && !strings.Contains(rule, "kube-system") || !strings.HasSuffix(rule, "get") &&
			!strings.HasSuffix(rule, "list") && !strings.HasSuffix(rule, "watch") {
			t.Errorf("over the whole cluster the operator may %s", rule)
		}
	}
}
