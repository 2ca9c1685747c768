package status

import (
	"fmt"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// conditionsOf lists the conditions of a status as "Type Status/Reason", in their order.
func conditionsOf(status v1alpha1.HyperliquidParserStatus) []string {
	out := make([]string, 0, len(status.Conditions))
	for _, c := range status.Conditions {
		out = append(out, fmt.Sprintf("%s %s/%s", c.Type, c.Status, c.Reason))
	}
	return out
}

func TestConditions(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*v1alpha1.HyperliquidParser, *scenery)
		want string // state, and the conditions in the order of v1alpha1.Conditions
	}{
		"healthy": {
			func(*v1alpha1.HyperliquidParser, *scenery) {},
			"Delivering: Ready True/AllReady, Delivering True/AllDelivering, BuffersStable True/AllStable, " +
				"DataIntact True/NothingLost, Reconciling False/UpToDate, Stalled False/NotStalled",
		},
		"a dead sink": {
			func(_ *v1alpha1.HyperliquidParser, s *scenery) {
				for i := range s.Targets {
					s.judge(i, health.SinkDown)
				}
			},
			"SinkDown: Ready True/AllReady, Delivering False/SinkDown, BuffersStable True/AllStable, " +
				"DataIntact True/NothingLost, Reconciling False/UpToDate, Stalled False/NotStalled",
		},
		"paused during a rollout": {
			func(obj *v1alpha1.HyperliquidParser, s *scenery) {
				obj.Spec.Paused, s.Limits.Paused = true, true
				s.older(0, 1)
			},
			"Paused: Ready False/Paused, Delivering True/AllDelivering, BuffersStable True/AllStable, " +
				"DataIntact True/NothingLost, Reconciling False/Paused, Stalled False/NotStalled",
		},
		"no parser has ever run": {
			func(_ *v1alpha1.HyperliquidParser, s *scenery) {
				for i := range s.Targets {
					s.fails(i, "ImagePullBackOff")
					s.unready(i)
				}
			},
			"NotRunning: Ready False/PodsNotReady, Delivering False/NotRunning, BuffersStable Unknown/NotYetJudged, " +
				"DataIntact Unknown/NotYetJudged, Reconciling False/UpToDate, Stalled False/NotStalled",
		},
		"one parser has never run": {
			func(_ *v1alpha1.HyperliquidParser, s *scenery) {
				s.fails(0, "ImagePullBackOff")
				s.unready(0)
			},
			"NotRunning: Ready False/PodsNotReady, Delivering False/NotRunning, BuffersStable True/AllStable, " +
				"DataIntact Unknown/NotYetJudged, Reconciling False/UpToDate, Stalled False/NotStalled",
		},
		"a target that may not be restarted again within the hour": {
			func(_ *v1alpha1.HyperliquidParser, s *scenery) {
				s.judge(0, health.Stuck)
				s.judge(1, health.Stuck)
				s.Plan = plan.Result{Capped: []string{"node-0001"},
					Waiting: map[string]string{"node-0001": "restarted 3 times within the hour, no more before 12:40:00 UTC"}}
			},
			"Stuck: Ready True/AllReady, Delivering False/RestartLimit, BuffersStable False/RestartLimit, " +
				"DataIntact True/NothingLost, Reconciling False/UpToDate, Stalled False/NotStalled",
		},
		"a canary has failed": {
			func(_ *v1alpha1.HyperliquidParser, s *scenery) {
				s.older(1, 2)
				s.Plan = plan.Result{Phase: plan.PhaseFailed, Message: "node-0000 is slower than before"}
			},
			"Stalled: Ready False/CanaryFailed, Delivering True/AllDelivering, BuffersStable True/AllStable, " +
				"DataIntact True/NothingLost, Reconciling False/CanaryFailed, Stalled True/CanaryFailed",
		},
		"a write is refused": {
			func(_ *v1alpha1.HyperliquidParser, s *scenery) {
				s.without(1)
				s.Outcome.Problem = &observed.Problem{Reason: v1alpha1.ReasonPodRejected, Message: "quota"}
			},
			"Stalled: Ready False/PodRejected, Delivering True/AllDelivering, BuffersStable True/AllStable, " +
				"DataIntact True/NothingLost, Reconciling False/PodRejected, Stalled True/PodRejected",
		},
		"a write fails for now": {
			func(_ *v1alpha1.HyperliquidParser, s *scenery) {
				s.without(1)
				s.Outcome.Failing = &observed.Problem{Reason: v1alpha1.ReasonWriteFailing, Message: "timeout"}
			},
			"Starting: Ready False/WriteFailing, Delivering True/AllDelivering, BuffersStable True/AllStable, " +
				"DataIntact True/NothingLost, Reconciling True/WriteFailing, Stalled False/NotStalled",
		},
		"targets that are unknown, because the selector is invalid": {
			func(_ *v1alpha1.HyperliquidParser, s *scenery) {
				*s.Fleet = observed.Fleet{Now: noon}
				s.Update = nil
				s.Outcome.Problem = &observed.Problem{Reason: v1alpha1.ReasonSpecInvalid, Message: "selector"}
			},
			"Stalled: Ready False/SpecInvalid, Delivering Unknown/NotYetJudged, BuffersStable Unknown/NotYetJudged, " +
				"DataIntact Unknown/NotYetJudged, Reconciling False/SpecInvalid, Stalled True/SpecInvalid",
		},
	} {
		t.Run(name, func(t *testing.T) {
			obj, s := scene(3)
			test.edit(obj, s)
			got := s.status(obj, s.Plan)
			if text := got.State + ": " + strings.Join(conditionsOf(got), ", "); text != test.want {
				t.Errorf("\n got %s\nwant %s", text, test.want)
			}
			obj.Status = got
			if again := s.status(obj, s.Plan); fmt.Sprint(again) != fmt.Sprint(got) {
				t.Errorf("at rest\n got %+v\nwant %+v", again, got)
			}
		})
	}
}

func TestConditionsWhileTargetsAreUnsynced(t *testing.T) {
	for name, test := range map[string]struct {
		unsynced observed.Unsynced
		before   func(*v1alpha1.HyperliquidParser)
		want     string
	}{
		"the first list is on its way": {
			observed.Unsynced{Message: "not listed yet", Since: noon}, func(*v1alpha1.HyperliquidParser) {},
			"Unknown: Ready Unknown/TargetsUnknown, Delivering Unknown/NotYetJudged, BuffersStable Unknown/NotYetJudged, " +
				"DataIntact Unknown/NotYetJudged, Reconciling True/TargetsUnknown, Stalled False/NotStalled",
		},
		"the API server refuses it": {
			observed.Unsynced{Message: "forbidden", Refused: true, Since: noon}, func(*v1alpha1.HyperliquidParser) {},
			"Stalled: Ready Unknown/TargetsUnknown, Delivering Unknown/NotYetJudged, BuffersStable Unknown/NotYetJudged, " +
				"DataIntact Unknown/NotYetJudged, Reconciling False/TargetsUnknown, Stalled True/TargetsUnknown",
		},
		"a fleet that was healthy before": {
			observed.Unsynced{Message: "forbidden", Since: noon},
			func(obj *v1alpha1.HyperliquidParser) {
				_, s := scene(3)
				obj.Status = s.status(obj, plan.Result{})
			},
			"Delivering: Ready Unknown/TargetsUnknown, Delivering True/AllDelivering, BuffersStable True/AllStable, " +
				"DataIntact True/NothingLost, Reconciling True/TargetsUnknown, Stalled False/NotStalled",
		},
	} {
		t.Run(name, func(t *testing.T) {
			obj, _ := scene(0)
			test.before(obj)
			desired := obj.Status.Desired
			got := OfUnsynced(obj, &observed.Fleet{Now: noon, Unsynced: &test.unsynced})
			if text := got.State + ": " + strings.Join(conditionsOf(got), ", "); text != test.want {
				t.Errorf("\n got %s\nwant %s", text, test.want)
			}
			if got.Desired != desired {
				t.Errorf("desired becomes %d", got.Desired)
			}
			c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionReady)
			if c.Status != metav1.ConditionUnknown ||
				!strings.HasPrefix(c.Message, test.unsynced.Message+"; no pod is touched") {
				t.Errorf("Ready is %s: %s", c.Status, c.Message)
			}
		})
	}
}

// The package derives values and reaches no API server, so that every status can be had from a table.
func TestThePackageImportsNoClient(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			if strings.HasPrefix(path, "k8s.io/client-go/") && !strings.HasSuffix(file, "_test.go") ||
				strings.HasPrefix(path, "sigs.k8s.io/controller-runtime") || slices.Contains([]string{"net/http", "context"},
				path) {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
}
