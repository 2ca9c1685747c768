package controller_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// samples returns the objects in config/samples, by their files and names.
func samples() (map[string]*unstructured.Unstructured, error) {
	files, err := filepath.Glob("../../config/samples/*.yaml")
	if err != nil {
		return nil, err
	}
	out := map[string]*unstructured.Unstructured{}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for doc := range strings.SplitSeq(string(text), "\n---\n") {
			obj := &unstructured.Unstructured{}
			if err := yaml.UnmarshalStrict([]byte(doc), &obj.Object); err != nil {
				return nil, err
			}
			out[filepath.Base(file)+" "+obj.GetKind()+" "+obj.GetName()] = obj
		}
	}
	return out, nil
}

// TestTheSamplesRun renders the objects as the operator does, and loads the configuration of the one without it.
func TestTheSamplesRun(t *testing.T) {
	all, err := samples()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for name, obj := range all {
		kinds[obj.GetKind()]++
		convert := func(into any) {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(obj.Object, into, true); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		var parsers config.Config
		switch obj.GetKind() {
		case "HyperliquidParser":
			parser := &v1alpha1.HyperliquidParser{}
			convert(parser)
			_, text, err := rendered(parser)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			parsers = load(t, text)
		case "ConfigMap":
			m := &corev1.ConfigMap{}
			convert(m)
			parsers = load(t, m.Data["config.yaml"])
		case "StatefulSet":
			set := &appsv1.StatefulSet{}
			convert(set)
			spec := set.Spec.Template.Spec
			if spec.HostPID || spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace {
				t.Errorf("%s: the node sees hlparser's command line", name)
			}
			for _, c := range spec.Containers {
				if words := strings.Join(append(slices.Clone(c.Command), c.Args...), " "); strings.Contains(words, "hl-node") {
					t.Errorf("%s: container %s runs %s", name, c.Name, words)
				}
			}
			continue
		default:
			continue
		}
		parsers = parsers.WithDefaults(1)
		if err := parsers.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := parsers.ValidateFilters(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if kinds["HyperliquidParser"] < 6 || kinds["ConfigMap"] == 0 || kinds["StatefulSet"] == 0 ||
		kinds["NetworkPolicy"] < 2 {
		t.Errorf("samples are missing: %v", kinds)
	}
}

func load(t *testing.T, text string) config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var _ = Describe("the samples", func() {
	It("are accepted by the API server", func(ctx SpecContext) {
		all, err := samples()
		Expect(err).NotTo(HaveOccurred())
		for name, obj := range all {
			obj.SetNamespace("default")
			Expect(k8s.Create(ctx, obj, client.DryRunAll, client.FieldValidation("Strict"))).To(Succeed(), name)
		}
	})
})
