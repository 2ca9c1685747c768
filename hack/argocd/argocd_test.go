package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kstatus "sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

var update = flag.Bool("update", false, "rewrite what the tests expect, and the table in docs/gitops.md")

const (
	scripts   = "../../" + customization
	gitopsDoc = "../../docs/gitops.md"
)

func read(t *testing.T, elem ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// object reads an object as clients of the API server do: its integers are integers.
func object(t *testing.T, elem ...string) *unstructured.Unstructured {
	t.Helper()
	text, err := yaml.YAMLToJSON([]byte(read(t, elem...)))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	return u
}

// healthCase and healthCases are the format of health_test.yaml in Argo CD's repository.
type healthCase struct {
	Health health `json:"healthStatus"`
	Input  string `json:"inputPath"`
}

type healthCases struct {
	Tests []healthCase `json:"tests"`
}

func readHealthCases(t *testing.T) []healthCase {
	t.Helper()
	var cases healthCases
	if err := yaml.UnmarshalStrict([]byte(read(t, scripts, "health_test.yaml")), &cases); err != nil {
		t.Fatal(err)
	}
	return cases.Tests
}

func TestTheConfigMapIsUpToDate(t *testing.T) {
	want, err := configMap(scripts)
	if err != nil {
		t.Fatal(err)
	}
	if read(t, "../..", configMapFile) != string(want) {
		t.Errorf("%s is not what the scripts are: run go run ./hack/argocd", configMapFile)
	}
	var read struct {
		Data map[string]string `json:"data"`
	}
	if err := yaml.Unmarshal(want, &read); err != nil {
		t.Fatal(err)
	}
	var inner actions
	if err := yaml.UnmarshalStrict([]byte(read.Data["resource.customizations.actions."+groupKind]), &inner); err != nil {
		t.Fatal(err)
	}
	if len(inner.Definitions) != 5 || inner.Discovery == "" {
		t.Errorf("the actions are %+v", inner)
	}
}

func TestHealth(t *testing.T) {
	script := read(t, scripts, healthScript)
	cases := readHealthCases(t)
	for i, c := range cases {
		got, err := healthOf(script, object(t, scripts, c.Input))
		if err != nil {
			t.Errorf("%s: %v", c.Input, err)
		}
		if *update {
			cases[i].Health = got
		} else if got != c.Health {
			t.Errorf("%s:\n got %+v\nwant %+v", c.Input, got, c.Health)
		}
	}
	if *update {
		text, err := yaml.Marshal(healthCases{cases})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(scripts, "health_test.yaml"), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(scripts, "testdata", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(cases) || len(cases) < 20 {
		t.Errorf("there are %d files of test data and %d tests", len(files), len(cases))
	}
}

// An object may lack any part that the API server does not require, and a message is one of the object's own.
func TestHealthOfObjectsThatLackParts(t *testing.T) {
	script := read(t, scripts, healthScript)
	for _, c := range readHealthCases(t) {
		u := object(t, scripts, c.Input)
		for path := range paths(u.Object, nil) {
			without := u.DeepCopy()
			remove(without.Object, strings.Split(path, "/"))
			got, err := healthOf(script, without)
			if err != nil {
				t.Errorf("%s without %s: %v", c.Input, path, err)
			}
			if got.Status == healthy && path == "status/observedGeneration" {
				t.Errorf("%s without %s is %+v", c.Input, path, got)
			}
		}
	}
	for u, want := range bare(t) {
		if got, err := healthOf(script, u); err != nil || got != want {
			t.Errorf("%v is %+v, want %+v: %v", u.Object, got, want, err)
		}
	}
}

// judgedParts are the fields that a health script may read.
var judgedParts = regexp.MustCompile(
	`^(metadata(/generation)?|spec(/(paused|growth(/action)?))?|status(/(observedGeneration|state|story|conditions.*))?)$`)

// paths returns the paths of those fields and items of a value that a health script may read.
func paths(value any, at []string) map[string]bool {
	out := map[string]bool{}
	visit := func(name string, below any) {
		path := append(slices.Clone(at), name)
		out[strings.Join(path, "/")] = true
		maps.Copy(out, paths(below, path))
	}
	switch value := value.(type) {
	case map[string]any:
		for name, field := range value {
			if path := strings.Join(append(slices.Clone(at), name), "/"); judgedParts.MatchString(path) {
				visit(name, field)
			}
		}
	case []any:
		for i, item := range value {
			visit(fmt.Sprint(i), item)
		}
	}
	return out
}

// remove removes the field at a path. An item of a list becomes an empty map.
func remove(value any, path []string) {
	switch value := value.(type) {
	case map[string]any:
		if len(path) == 1 {
			delete(value, path[0])
			return
		}
		remove(value[path[0]], path[1:])
	case []any:
		for i := range value {
			if fmt.Sprint(i) != path[0] {
				continue
			}
			if len(path) == 1 {
				value[i] = map[string]any{}
				return
			}
			remove(value[i], path[1:])
		}
	}
}

func TestMessagesAreTheObjectsOwn(t *testing.T) {
	for _, c := range readHealthCases(t) {
		u := object(t, scripts, c.Input)
		seen, _, err := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
		if err != nil {
			t.Fatal(err)
		}
		if stale := seen != u.GetGeneration(); !stale && !slices.Contains(ownMessages(t, u), c.Health.Message) {
			t.Errorf("%s: %q is in no condition and not the story", c.Input, c.Health.Message)
		}
	}
}

func ownMessages(t *testing.T, u *unstructured.Unstructured) []string {
	t.Helper()
	story, _, err := unstructured.NestedString(u.Object, "status", "story")
	if err != nil {
		t.Fatal(err)
	}
	conditions := conditionsOf(t, u)
	out := make([]string, 0, len(conditions)+1)
	out = append(out, story)
	for _, c := range conditions {
		out = append(out, c.Message)
	}
	return out
}

type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func conditionsOf(t *testing.T, u *unstructured.Unstructured) []condition {
	t.Helper()
	text, err := json.Marshal(u.Object["status"])
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		Conditions []condition `json:"conditions"`
	}
	if err := json.Unmarshal(text, &status); err != nil {
		t.Fatal(err)
	}
	return status.Conditions
}

// The scripts know reasons by their names.
func TestTheScriptsNameReasonsThatThereAre(t *testing.T) {
	reasons := []string{
		v1alpha1.ReasonRolloutStopped, v1alpha1.ReasonCanarySoaking, v1alpha1.ReasonCanaryFailed, v1alpha1.StatePaused,
		"Stuck", "Growing", "Leaking", "NotRunning", string(v1alpha1.GrowthActionAlert),
	}
	known := slices.Concat(reasons, v1alpha1.Conditions(),
		[]string{healthy, progressing, degraded, suspended, "True", "False"})
	text := read(t, scripts, healthScript) + read(t, scripts, actionsDir, discoveryScript)
	for _, match := range regexp.MustCompile(`"([A-Z]\w+)"|(?m)^  ([A-Z]\w+) =`).FindAllStringSubmatch(text, -1) {
		if name := match[1] + match[2]; !slices.Contains(known, name) {
			t.Errorf("the scripts name %s", name)
		}
	}
	for _, name := range reasons {
		if !strings.Contains(text, name) {
			t.Errorf("no script names %s", name)
		}
	}
	annotations := []string{
		v1alpha1.AnnotationRestartedAt, v1alpha1.AnnotationPromote, v1alpha1.AnnotationAcknowledgeLoss,
	}
	for i, name := range []string{"restart", "promote", "acknowledge-loss"} {
		if !strings.Contains(read(t, scripts, actionsDir, name, actionScript), `"`+annotations[i]+`"`) {
			t.Errorf("the action %s does not set %s", name, annotations[i])
		}
	}
}

// bare are objects without parts that the operator always writes, and their health.
func bare(t *testing.T) map[*unstructured.Unstructured]health {
	t.Helper()
	without := object(t, scripts, "testdata", "healthy.yaml")
	unstructured.RemoveNestedField(without.Object, "status", "conditions")
	unknown := object(t, scripts, "testdata", "targets-unknown.yaml")
	var ready map[string]any
	list, _, err := unstructured.NestedSlice(unknown.Object, "status", "conditions")
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range list {
		if c := item.(map[string]any); c["type"] == v1alpha1.ConditionReady {
			ready = c
		}
	}
	if err := unstructured.SetNestedSlice(unknown.Object, []any{ready}, "status", "conditions"); err != nil {
		t.Fatal(err)
	}
	return map[*unstructured.Unstructured]health{
		{Object: map[string]any{}}: {progressing, "the operator has not seen this generation yet"},
		without:                    {progressing, ""},
		unknown:                    {progressing, ready["message"].(string)},
	}
}

// actionCases are the format of action_test.yaml in Argo CD's repository.
type actionCases struct {
	Discovery []struct {
		Input  string `json:"inputPath"`
		Result []struct {
			Name string `json:"name"`
		} `json:"result"`
	} `json:"discoveryTests"`
	Actions []struct {
		Action   string `json:"action"`
		Input    string `json:"inputPath"`
		Expected string `json:"expectedOutputPath,omitempty"`
		Error    string `json:"expectedErrorMessage,omitempty"`
	} `json:"actionTests"`
}

func readActionCases(t *testing.T) (out actionCases) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(read(t, scripts, actionsDir, "action_test.yaml")), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// discover returns the actions that a script offers for an object, sorted.
func discover(script string, u *unstructured.Unstructured) ([]string, error) {
	got, err := runLua(script, u.Object)
	if err != nil {
		return nil, err
	}
	table, ok := got.(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("the script returns a %s", got.Type())
	}
	var out []string
	table.ForEach(func(name, _ lua.LValue) { out = append(out, name.String()) })
	slices.Sort(out)
	return out, nil
}

// act returns what an action makes of an object. The time of a restart is replaced by that of the test data.
func act(script string, u *unstructured.Unstructured) (map[string]any, error) {
	got, err := runLua(script, u.Object)
	if err != nil {
		return nil, err
	}
	value, err := fromLua(got, u.Object)
	if err != nil {
		return nil, err
	}
	out, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the script returns a %T", value)
	}
	at, set, err := unstructured.NestedString(out, "metadata", "annotations", v1alpha1.AnnotationRestartedAt)
	if err != nil || !set || at == u.GetAnnotations()[v1alpha1.AnnotationRestartedAt] {
		return out, err
	}
	when, err := time.Parse("2006-01-02T15:04:05Z", at)
	if err != nil || time.Since(when).Abs() > time.Minute {
		return nil, fmt.Errorf("restartedAt is %s: %w", at, err)
	}
	return out, unstructured.SetNestedField(
		out, "2026-05-01T12:00:00Z", "metadata", "annotations", v1alpha1.AnnotationRestartedAt)
}

// discoveryFailures and actionFailures return what of action_test.yaml fails with a script.
func discoveryFailures(t *testing.T, cases actionCases, script string) (out []string) {
	for _, c := range cases.Discovery {
		want := make([]string, 0, len(c.Result))
		for _, a := range c.Result {
			want = append(want, a.Name)
		}
		slices.Sort(want)
		got, err := discover(script, object(t, scripts, actionsDir, c.Input))
		if err != nil || !slices.Equal(got, want) {
			out = append(out, fmt.Sprintf("%s offers %v, want %v: %v", c.Input, got, want, err))
		}
	}
	return out
}

func actionFailures(t *testing.T, cases actionCases, name, script string, rewrite bool) (out []string) {
	for _, c := range cases.Actions {
		if c.Action != name {
			continue
		}
		got, err := act(script, object(t, scripts, actionsDir, c.Input))
		if c.Error != "" {
			if err == nil || !strings.Contains(err.Error(), c.Error+"\n") {
				out = append(out, fmt.Sprintf("%s of %s: %v, want %q", name, c.Input, err, c.Error))
			}
			continue
		}
		if err == nil && rewrite {
			text, err := yaml.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(scripts, actionsDir, c.Expected), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want := object(t, scripts, actionsDir, c.Expected).Object; err != nil || !reflect.DeepEqual(got, want) {
			text, _ := yaml.Marshal(got)
			out = append(out, fmt.Sprintf("%s of %s: %v\n%s", name, c.Input, err, text))
		}
	}
	return out
}

func TestActions(t *testing.T) {
	cases := readActionCases(t)
	for _, failure := range discoveryFailures(t, cases, read(t, scripts, actionsDir, discoveryScript)) {
		t.Error(failure)
	}
	names, err := actionNames(scripts)
	if err != nil {
		t.Fatal(err)
	}
	offered := map[string]bool{}
	for _, c := range cases.Discovery {
		for _, a := range c.Result {
			offered[a.Name] = true
		}
	}
	if want := slices.Sorted(maps.Keys(offered)); !slices.Equal(names, want) {
		t.Errorf("the actions are %v, and %v are offered", names, want)
	}
	for _, name := range names {
		for _, failure := range actionFailures(t, cases, name, read(t, scripts, actionsDir, name, actionScript), *update) {
			t.Error(failure)
		}
	}
}

// agrees reports whether kstatus may say so of an object of that health. kstatus reads Ready, Reconciling and Stalled
// alone, so it cannot see what Delivering and BuffersStable say, nor a pause. It knows no fault that ends by itself: to
// it an object that is not ready is on its way.
func agrees(h health, k kstatus.Status) bool {
	switch k {
	case kstatus.CurrentStatus:
		return h.Status != "" // whatever Delivering says
	case kstatus.InProgressStatus:
		return h.Status != healthy
	case kstatus.FailedStatus:
		return h.Status == degraded
	}
	return false
}

func TestKstatusAgreesWhereItCan(t *testing.T) {
	cases := readHealthCases(t)
	rows := make([]string, 0, len(cases)+2)
	rows = append(rows, "| object | Argo CD | kstatus | Flux with the example's expressions |", "|---|---|---|---|")
	fails, passes := fluxExample(t)
	for _, c := range cases {
		u := object(t, scripts, c.Input)
		k, err := kstatus.Compute(u)
		if err != nil {
			t.Fatal(err)
		}
		if !agrees(c.Health, k.Status) {
			t.Errorf("%s is %s to Argo CD, and %s to kstatus (%s)", c.Input, c.Health.Status, k.Status, k.Message)
		}
		ready := ""
		bad := false
		for _, condition := range conditionsOf(t, u) {
			switch condition.Type {
			case v1alpha1.ConditionReady:
				ready = condition.Status
			case v1alpha1.ConditionDelivering, v1alpha1.ConditionBuffersStable:
				bad = bad || condition.Status == "False"
			}
		}
		seen, _, err := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
		if err != nil {
			t.Fatal(err)
		}
		current := ready == "True" && seen == u.GetGeneration()
		if current != (k.Status == kstatus.CurrentStatus) {
			t.Errorf("%s is %s to kstatus, though Ready is %s of generation %d", c.Input, k.Status, ready, seen)
		}
		if paused, _, _ := unstructured.NestedBool(u.Object, "spec", "paused"); current && !bad && !paused &&
			c.Health.Status != healthy {
			t.Errorf("%s is %s to kstatus and %s to Argo CD", c.Input, k.Status, c.Health.Status)
		}
		flux, err := fluxHealth(u, fails, passes)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s |", title(c.Input), c.Health.Status, k.Status, flux))
	}
	const from, to = "<!-- health: begin -->\n", "<!-- health: end -->\n"
	doc := read(t, gitopsDoc)
	before, rest, ok := strings.Cut(doc, from)
	_, after, ended := strings.Cut(rest, to)
	if !ok || !ended {
		t.Fatalf("%s has no table between %s and %s", gitopsDoc, from, to)
	}
	want := before + from + "\n" + strings.Join(rows, "\n") + "\n\n" + to + after
	if *update {
		if err := os.WriteFile(gitopsDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if doc != want {
		t.Errorf("the table in %s differs: run go test ./hack/argocd -update\n%s", gitopsDoc, strings.Join(rows, "\n"))
	}
}

// title is what a file of test data holds, as a sentence.
func title(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".yaml"), "-", " ")
}
