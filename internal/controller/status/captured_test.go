package status

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

var update = flag.Bool("update", false, "rewrite the objects that the scripts for Argo CD are tested with")

const argoCDObjects = "../../../config/argocd/resource_customizations/fleet.hlparser.dev/HyperliquidParser/testdata"

// The scripts for Argo CD are tested with objects that specs led to, and with these, which take hours to come about on
// a control plane. They are what this package makes of such a fleet.
func TestObjectsThatArgoCDJudges(t *testing.T) {
	judged := func(verdict health.Verdict, reason string) func(*v1alpha1.HyperliquidParser, *scenery) {
		return func(_ *v1alpha1.HyperliquidParser, s *scenery) {
			s.judge(1, verdict)
			view := s.Views[s.Targets[1].Name]
			view.Judgement.Reason = reason
			s.Views[s.Targets[1].Name] = view
		}
	}
	for name, edit := range map[string]func(*v1alpha1.HyperliquidParser, *scenery){
		"leaking":        judged(health.Leaking, health.ReasonMemory),
		"overloaded":     judged(health.Overloaded, health.ReasonCPU),
		"source-stalled": judged(health.SourceStalled, "Fills"),
		"pods-not-ready": func(_ *v1alpha1.HyperliquidParser, s *scenery) { s.unready(1) },
		"format-drift": func(_ *v1alpha1.HyperliquidParser, s *scenery) {
			s.raise(1, health.Alerts{FormatDrift: health.Alert{Since: noon, Message: "Fills: 30% of the lines are malformed"}})
		},
		"paused-with-a-gap": func(obj *v1alpha1.HyperliquidParser, s *scenery) {
			obj.Spec.Paused, s.Limits.Paused = true, true
			s.raise(1, health.Alerts{DataGap: health.Alert{Since: noon.Add(-time.Minute), Message: "7 blocks are missing"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			obj, s := scene(3)
			obj.Generation = 4
			obj.Spec.Target.Nodes.DataPath = "/home/hluser/hl/data"
			obj.Spec.Streams = []v1alpha1.Stream{{Name: "Fills"}}
			obj.Spec.Sink.Stdout = &v1alpha1.StdoutSink{}
			v1alpha1.SetDefaults(obj)
			edit(obj, s)
			obj.Status = s.status(obj, plan.Result{})
			obj.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("HyperliquidParser"))
			want := encoded(t, obj)
			path := filepath.Join(argoCDObjects, name+".yaml")
			if *update {
				if err := os.WriteFile(path, want, 0o644); err != nil { //nolint:gosec // it holds no secret
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("%s differs: run go test ./internal/controller/status -update, and then ./hack/argocd\n%s", path, want)
			}
		})
	}
}

// encoded returns an object as YAML, as the API server stores it.
func encoded(t *testing.T, obj runtime.Object) []byte {
	t.Helper()
	text, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	out, err := yaml.JSONToYAML(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
