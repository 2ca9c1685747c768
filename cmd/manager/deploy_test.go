package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/utils/ptr"
)

// deployed holds the manager's objects that make deploy applies.
type deployed struct {
	deployment appsv1.Deployment
	class      schedulingv1.PriorityClass
	budget     policyv1.PodDisruptionBudget
}

// deploy runs make deploy with a kubectl that reports this number of replicas, "" for no Deployment, and returns what
// it applies.
func deploy(t *testing.T, replicas string, args ...string) deployed {
	t.Helper()
	dir := t.TempDir()
	kubectl, applied := filepath.Join(dir, "kubectl"), filepath.Join(dir, "applied.yaml")
	script := fmt.Sprintf("#!/bin/sh\ncase $1 in\nget) printf '%%s' '%s' ;;\napply) cat > %s ;;\n*) exit 1 ;;\nesac\n",
		replicas, applied)
	if err := os.WriteFile(kubectl, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"deploy", "KUBECTL=" + kubectl}, args...)...)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(applied)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, text)
}

// read picks the manager's objects out of manifests.
func read(t *testing.T, manifests []byte) deployed {
	t.Helper()
	var out deployed
	into := map[string]any{"Deployment": &out.deployment, "PriorityClass": &out.class, "PodDisruptionBudget": &out.budget}
	for documents := yaml.NewYAMLToJSONDecoder(bytes.NewReader(manifests)); ; {
		var document json.RawMessage
		if err := documents.Decode(&document); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		var kind metav1.TypeMeta
		if err := json.Unmarshal(document, &kind); err != nil {
			t.Fatal(err)
		}
		if obj, ok := into[kind.Kind]; ok {
			if err := json.Unmarshal(document, obj); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// changed returns git's status of the working tree.
func changed(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "status", "--porcelain")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("this is no working tree of git: %v", err)
	}
	return string(out)
}

func TestMakeDeployChangesNoFileAndKeepsTheReplicas(t *testing.T) {
	for _, tool := range []string{"make", "git", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	before := changed(t)
	const image = "registry.example:5000/team/operator:v7"
	for name, test := range map[string]struct {
		there string
		args  []string
		want  int32
		image string
	}{
		"at first":           {"", nil, 2, image},
		"again":              {"2", nil, 2, image},
		"scaled up":          {"5", nil, 5, image},
		"scaled down":        {"1", nil, 1, image},
		"switched off":       {"0", nil, 0, image},
		"with a number":      {"5", []string{"REPLICAS=3"}, 3, image},
		"in some namespaces": {"3", []string{"CONFIG=config/namespaced"}, 3, image},
		"an image by digest": {"", []string{"IMG=registry.example/operator@sha256:" + sum}, 2,
			"registry.example/operator@sha256:" + sum},
		"an image without a registry": {"", []string{"IMG=operator:dev"}, 2, "operator:dev"},
		"an image without anything at all": {"", []string{"IMG=hyperliquid-parser-operator:dev"}, 2,
			"hyperliquid-parser-operator:dev"},
	} {
		t.Run(name, func(t *testing.T) {
			got := deploy(t, test.there, append([]string{"IMG=" + image}, test.args...)...).deployment
			if n := ptr.Deref(got.Spec.Replicas, -1); n != test.want {
				t.Errorf("%d replicas, want %d", n, test.want)
			}
			c := got.Spec.Template.Spec.Containers[0]
			parser := ""
			for _, v := range c.Env {
				if v.Name == "PARSER_IMAGE" {
					parser = v.Value
				}
			}
			if c.Image != test.image || parser != test.image {
				t.Errorf("the manager's image is %s, the parser's %s, want %s", c.Image, parser, test.image)
			}
		})
	}
	if after := changed(t); after != before {
		t.Errorf("it changes tracked files:\n%s", after)
	}
}

func TestAFailedQuestionForTheReplicasInstallsNothing(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip(err)
	}
	kubectl := filepath.Join(t.TempDir(), "kubectl")
	if err := os.WriteFile(kubectl, []byte("#!/bin/sh\necho \"$1\" >&2\n[ \"$1\" != get ]\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "make", "deploy", "KUBECTL="+kubectl)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err == nil || strings.Contains(string(out), "\napply\n") {
		t.Errorf("%v: %s", err, out)
	}
}

// The manager outlives a drain, a node and a zone.
func TestTheManagersDeployment(t *testing.T) {
	var text []byte
	for _, file := range []string{"manager.yaml", "priority_class.yaml", "disruption_budget.yaml"} {
		part, err := os.ReadFile("../../config/manager/" + file)
		if err != nil {
			t.Fatal(err)
		}
		text = append(append(text, part...), "\n---\n"...)
	}
	got := read(t, text)
	spec := got.deployment.Spec
	pod := spec.Template.Spec
	own := labels.Set(spec.Template.Labels)
	selects := func(s *metav1.LabelSelector) bool {
		selector, err := metav1.LabelSelectorAsSelector(s)
		return err == nil && selector.Matches(own) && !selector.Matches(labels.Set{})
	}
	if *spec.Replicas < 2 || pod.PriorityClassName != got.class.Name || got.class.Value <= 0 ||
		got.class.Value > 1_000_000_000 || got.class.GlobalDefault {
		t.Errorf("%d replicas of class %s, %+v", *spec.Replicas, pod.PriorityClassName, got.class)
	}
	// A number, because neither a single pod nor a pod that does not work may block every drain.
	if b := got.budget.Spec; b.MinAvailable != nil || b.MaxUnavailable.IntValue() != 1 || !selects(b.Selector) ||
		ptr.Deref(b.UnhealthyPodEvictionPolicy, "") != policyv1.AlwaysAllow {
		t.Errorf("the budget is %+v", b)
	}
	// Preferred, because a cluster of one node needs an operator, too.
	apart := pod.Affinity.PodAntiAffinity
	if len(apart.RequiredDuringSchedulingIgnoredDuringExecution) > 0 ||
		len(apart.PreferredDuringSchedulingIgnoredDuringExecution) != 1 ||
		apart.PreferredDuringSchedulingIgnoredDuringExecution[0].PodAffinityTerm.TopologyKey != corev1.LabelHostname ||
		!selects(apart.PreferredDuringSchedulingIgnoredDuringExecution[0].PodAffinityTerm.LabelSelector) {
		t.Errorf("the anti-affinity is %+v", apart)
	}
	spread := pod.TopologySpreadConstraints
	if len(spread) != 1 || spread[0].TopologyKey != corev1.LabelTopologyZone ||
		spread[0].WhenUnsatisfiable != corev1.ScheduleAnyway || !selects(spread[0].LabelSelector) {
		t.Errorf("the spread is %+v", spread)
	}
	variables := map[string]string{}
	for _, v := range pod.Containers[0].Env {
		if v.ValueFrom != nil {
			variables[v.Name] = v.ValueFrom.FieldRef.FieldPath
		}
	}
	if variables[podVariable] != "metadata.name" || variables[podUIDVariable] != "metadata.uid" {
		t.Errorf("the lease's holder is of %v", variables)
	}
}
