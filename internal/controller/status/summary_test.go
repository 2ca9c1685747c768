package status

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/jsonpath"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// printed is what kubectl get shows of an object, or with wide kubectl get -o wide: the CRD's columns, as the API
// server fills them. The age is left out.
func printed(t *testing.T, obj *v1alpha1.HyperliquidParser, wide bool) string {
	t.Helper()
	data, err := os.ReadFile("../../../config/crd/bases/fleet.hlparser.dev_hyperliquidparsers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(data, &crd); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	var values any
	if err := json.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	heads, cells := []string{"NAME"}, []string{obj.Name}
	for _, c := range crd.Spec.Versions[0].AdditionalPrinterColumns {
		if c.Priority > 0 && !wide || c.Name == "Age" {
			continue
		}
		path := jsonpath.New(c.Name).AllowMissingKeys(true)
		if err := path.Parse("{" + c.JSONPath + "}"); err != nil {
			t.Fatal(err)
		}
		var cell bytes.Buffer
		if err := path.Execute(&cell, values); err != nil {
			t.Fatal(err)
		}
		heads, cells = append(heads, strings.ToUpper(c.Name)), append(cells, cell.String())
	}
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, row := range [][]string{heads, cells} {
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return "\n" + out.String()
}

// fleetStories are fleets as people meet them, and what they should read of them.
var fleetStories = map[string]struct {
	edit func(*v1alpha1.HyperliquidParser, *scenery, *plan.Result)
	want string
	wide string // the columns after RESTARTS
}{
	"a healthy fleet": {
		func(*v1alpha1.HyperliquidParser, *scenery, *plan.Result) {},
		"Delivering  3        3      3        0    0", "mainnet-new  all 3 targets deliver",
	},
	"a dead sink": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, next *plan.Result) {
			for i := range s.Targets {
				s.judge(i, health.SinkDown)
			}
			next.FleetWide, next.Outage = true, "3 of 3 targets are bad"
		},
		"SinkDown  3        3      3        3    0", "mainnet-new  the sink does not answer on node-0000 and 2 more",
	},
	"a hang": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) {
			s.judge(1, health.Stuck)
			s.Outcome.Ledger.Total = 2
		},
		"Stuck   3        3      3        1    2", "mainnet-new  the parser hangs on node-0001",
	},
	"a crash loop": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) {
			s.fails(2, "CrashLoopBackOff")
			s.unready(2)
		},
		"NotRunning  3        2      3        1    0", "mainnet-new  CrashLoopBackOff on node-0002",
	},
	"a canary that cannot start": {
		func(obj *v1alpha1.HyperliquidParser, s *scenery, next *plan.Result) {
			obj.Status.CurrentRevision = "mainnet-old"
			s.older(1, 2)
			s.fails(0, "ImagePullBackOff")
			s.unready(0)
			next.Phase = plan.PhaseCanary
		},
		"NotRunning  3        2      1        1    0", "mainnet-new  ImagePullBackOff on node-0000",
	},
	"a canary that has failed": {
		func(obj *v1alpha1.HyperliquidParser, s *scenery, next *plan.Result) {
			obj.Status.CurrentRevision = "mainnet-old"
			s.older(0, 1, 2)
			next.Phase, next.Message = plan.PhaseFailed, "node-0000 did not run within 2m0s (ImagePullBackOff)"
		},
		"Stalled  3        3      0        0    0", "mainnet-new  CanaryFailed: node-0000 did not run within 2m0s (ImagePul…",
	},
	"canaries that soak": {
		func(obj *v1alpha1.HyperliquidParser, s *scenery, next *plan.Result) {
			obj.Status.CurrentRevision = "mainnet-old"
			s.older(1, 2)
			next.Phase = plan.PhaseCanary
		},
		"RollingOut  3        3      1        0    0", "mainnet-new  canaries soak: 1 of 3 targets",
	},
	"a rollout": {
		func(obj *v1alpha1.HyperliquidParser, s *scenery, next *plan.Result) {
			obj.Status.CurrentRevision = "mainnet-old"
			s.older(2)
			next.Phase = plan.PhaseRolling
		},
		"RollingOut  3        3      2        0    0", "mainnet-new  2 of 3 targets have the new revision",
	},
	"a rollout that stopped": {
		func(obj *v1alpha1.HyperliquidParser, s *scenery, next *plan.Result) {
			obj.Status.CurrentRevision = "mainnet-old"
			s.older(2)
			next.Phase, next.Message = plan.PhaseStopped, "node-0000 is slower than before"
		},
		"RolloutStopped  3        3      2        0    0", "mainnet-new  2 of 3 targets have the new revision",
	},
	"pods that start for the first time": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) {
			for i := range s.Targets {
				s.judge(i, health.Unknown)
				s.unready(i)
				s.Pods[i].CreationTimestamp = metav1.NewTime(s.Now)
			}
		},
		"Starting  3        0      3        0    0", "mainnet-new  0 of 3 targets have a ready parser",
	},
	"pods that were not asked yet": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) { s.judge(1, health.Unknown) },
		"Unknown  3        3      3        0    0", "mainnet-new  waiting for reports",
	},
	"a refused pod": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) {
			s.without(1)
			s.Outcome.Problem = &observed.Problem{Reason: v1alpha1.ReasonPodRejected,
				Message: `the API server refuses the pod of node-0001: pods "mainnet-x" is forbidden: quota`}
		},
		"Stalled  3        2      2        0    0", "mainnet-new  PodRejected: the API server refuses the pod of node-0001:…",
	},
	"paused": {
		func(obj *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) {
			obj.Spec.Paused = true
			obj.Status.CurrentRevision = "mainnet-old"
			s.older(0, 1)
		},
		"Paused  3        3      1        0    0", "mainnet-new  2 targets of an older revision: no rollout, no restart",
	},
	"paused, and nothing is held back": {
		func(obj *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) { obj.Spec.Paused = true },
		"Paused  3        3      3        0    0", "mainnet-new  no rollout and no restart",
	},
	"no targets": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) {
			s.Targets, s.Pairs, s.Pods, s.Views = nil, nil, nil, nil
		},
		"NoTargets  0        0      0        0    0", "mainnet-new  nothing matches the selector of spec.target",
	},
	"an affinity that excludes everything": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) {
			s.Targets, s.Pairs, s.Pods, s.Views, s.Excluded = nil, nil, nil, nil, 5000
		},
		"NoTargets  0        0      0        0    0", "mainnet-new  spec.affinity excludes all 5000 matches of the selector",
	},
	"a requested restart": {
		func(obj *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) {
			obj.Annotations = map[string]string{v1alpha1.AnnotationRestartedAt: "now"}
			obj.Status.CurrentRevision = "mainnet-new"
			s.Current = s.Update
			s.Pods[0].Annotations = map[string]string{v1alpha1.AnnotationRestartedAt: "now"}
		},
		"RollingOut  3        3      1        0    0", "mainnet-new  1 of 3 targets has restarted as requested",
	},
	"a node that was cordoned": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) {
			s.without(1)
			s.Targets[1].Waits = target.Cordoned
		},
		"Delivering  3        2      2        0    0", "mainnet-new  2 of 3 targets; none for node-0001",
	},
	"every node is cordoned before it has a parser": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) {
			for i := range s.Targets {
				s.without(i)
				s.Targets[i].Waits = target.Cordoned
			}
		},
		"Unknown  3        0      0        0    0", "mainnet-new  no parser: NodeCordoned of node-0000 and 2 more",
	},
	"pods that are not ready for long, for no verdict's reason": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) { s.unready(1) },
		"NotReady  3        2      3        0    0", "mainnet-new  PodsNotReady: 2 of 3 targets have a ready parser",
	},
	"a loss": {
		func(_ *v1alpha1.HyperliquidParser, s *scenery, _ *plan.Result) {
			for i := range s.Targets {
				s.raise(i, health.Alerts{DataLost: health.Alert{Since: noon, Message: "a file vanished"}})
			}
		},
		"DataLost  3        3      3        0    0", "mainnet-new  unread lines are lost on node-0000 and 2 more",
	},
}

func TestWhatKubectlGetShows(t *testing.T) {
	for name, test := range fleetStories {
		t.Run(name, func(t *testing.T) {
			obj, s := scene(3)
			var next plan.Result
			test.edit(obj, s, &next)
			obj.Status = s.status(obj, next)
			get := strings.Split(printed(t, obj, false), "\n")
			if head := strings.Fields(get[1]); !slices.Equal(head,
				strings.Fields("NAME STATUS DESIRED READY UPDATED BAD RESTARTS")) {
				t.Errorf("the columns are %v", head)
			}
			if got := strings.Fields(get[2])[1:]; !slices.Equal(got, strings.Fields(test.want)) {
				t.Errorf("it shows %v, want %s", got, test.want)
			}
			wide := strings.Split(printed(t, obj, true), "\n")
			if !strings.HasSuffix(strings.TrimSpace(wide[1]), "REVISION     STORY") {
				t.Errorf("the wide columns are %s", wide[1])
			}
			if !strings.HasSuffix(strings.TrimSpace(wide[2]), "  "+test.wide) {
				t.Errorf("it shows %s\nwant %s", wide[2], test.wide)
			}
			t.Log(printed(t, obj, true))
			// At rest it stays as it is, with any figures.
			rest := fmt.Sprint(obj.Status)
			for name, view := range s.Views {
				view.Lag += time.Minute
				view.Latest.Message = "other figures"
				s.Views[name] = view
			}
			s.Now = s.Now.Add(time.Second)
			if again := s.status(obj, next); fmt.Sprint(again) != rest {
				t.Errorf("at rest\n got %+v\nwant %s", again, rest)
			}
			for i, c := range obj.Status.Conditions {
				if c.Type != v1alpha1.Conditions()[i] || c.Message == "" {
					t.Errorf("condition %d is %s: %q", i, c.Type, c.Message)
				}
			}
		})
	}
}

func TestAStoryIsShortAndSaysHowManyMore(t *testing.T) {
	for _, verdict := range health.Verdicts() {
		if !verdict.Bad() {
			continue
		}
		for _, reason := range []string{
			"", "Fills", health.ReasonUnbounded, health.ReasonParserSlow, health.ReasonSink, health.ReasonCPU, health.ReasonDisk,
			health.ReasonMemory, health.ReasonStreamFailed, health.ReasonSecretMissing, strings.Repeat("Long", 32),
		} {
			for _, length := range []int{4, 63, 253} {
				bad := slices.Repeat([]v1alpha1.TargetStatus{{Verdict: string(verdict)}}, 5000)
				bad[0].Target, bad[0].Reason = strings.Repeat("n", length), reason
				story := badStory(bad)
				if len(story) > MaxStory || !strings.Contains(story, " on n") || !strings.HasSuffix(story, " and 4999 more") {
					t.Errorf("%s/%s: %q", verdict, reason, story)
				}
				if verdict != health.NotRunning && strings.HasPrefix(story, string(verdict)) {
					t.Errorf("%s/%s has no words of its own: %q", verdict, reason, story)
				}
			}
		}
	}
}

// A person who watches a rollout or a restart sees one line for each target, and one reason from its beginning to its
// end: a pod that is gone for a moment, and then starts, is no news.
func TestARolloutIsOneChangeForEachTarget(t *testing.T) {
	for name, test := range map[string]struct {
		begin   func(*v1alpha1.HyperliquidParser, *scenery)
		replace func(*scenery, int)
		message string // of the condition Ready, with the number of targets
		story   string
	}{
		"a new revision": {
			func(obj *v1alpha1.HyperliquidParser, s *scenery) {
				obj.Status.CurrentRevision = "mainnet-old"
				s.older(0, 1, 2, 3)
			},
			func(s *scenery, i int) { s.Pods[i].Labels[v1alpha1.LabelRevision] = "new" },
			"%s a ready parser of revision mainnet-new", "%s the new revision",
		},
		"a requested restart": {
			func(obj *v1alpha1.HyperliquidParser, s *scenery) {
				obj.Status.CurrentRevision, s.Current = "mainnet-new", s.Update
				obj.Annotations = map[string]string{v1alpha1.AnnotationRestartedAt: "now"}
			},
			func(s *scenery, i int) {
				s.Pods[i].Annotations = map[string]string{v1alpha1.AnnotationRestartedAt: "now"}
			},
			"%s a ready parser that is newer than the requested restart", "%s restarted as requested",
		},
	} {
		t.Run(name, func(t *testing.T) {
			const n = 4
			obj, s := scene(n)
			test.begin(obj, s)
			next := plan.Result{Phase: plan.PhaseRolling}
			var reasons, messages, stories []string
			observe := func() {
				obj.Status = s.status(obj, next)
				c := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionReconciling)
				reasons = append(reasons, c.Reason)
				c = meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionReady)
				messages, stories = append(messages, c.Message), append(stories, obj.Status.Story)
			}
			observe()
			for i := range n {
				view := s.Views[s.Targets[i].Name]
				s.without(i)
				observe()
				test.replace(s, i)
				s.Pods[i].CreationTimestamp = metav1.NewTime(s.Now)
				s.Pairs[i].Pod = &s.Pods[i]
				s.unready(i)
				s.judge(i, health.Unknown)
				observe()
				s.Pods[i].Status.Conditions[0].Status = corev1.ConditionTrue
				s.Views[s.Targets[i].Name] = view
				observe()
			}
			next = plan.Result{Complete: true}
			observe()
			if got, want := slices.Compact(reasons), []string{"ReplacingPods", "UpToDate"}; !slices.Equal(got, want) {
				t.Errorf("the reasons are %v, want %v", got, want)
			}
			want, wantStories := make([]string, 0, n+1), make([]string, 0, n+2)
			for i := range n + 1 {
				want = append(want, fmt.Sprintf(test.message, share(i, n)))
				wantStories = append(wantStories, fmt.Sprintf(test.story, share(i, n)))
			}
			want[n] = "4 of 4 targets have a ready parser of revision mainnet-new"
			if got := slices.Compact(messages); !slices.Equal(got, want) {
				t.Errorf("the messages are\n%s", strings.Join(got, "\n"))
			}
			if got := slices.Compact(stories); !slices.Equal(got, append(wantStories, "all 4 targets deliver")) {
				t.Errorf("the stories are\n%s", strings.Join(got, "\n"))
			}
		})
	}
}
