// Package prometheus tests config/prometheus with the programs of the Prometheus project: the rules with promtool, and
// all of it with a Prometheus server. It is a separate module, so that they do not become dependencies of the operator.
package prometheus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	configDir = "../../config/prometheus"
	rulesFile = configDir + "/rules.yaml"
	// sharedCases are cases that are kept outside of the repository, beside it. They run where they are.
	sharedCases = "../../../shared/observability/rules_test.yml"
	// buildTags leave out of the programs what no test needs: cgo, and service discovery but that of Kubernetes.
	buildTags = "-tags=netgo,remove_all_sd,enable_kubernetes_sd"
	// prefix begins the names of all alerts. The cases leave it out.
	prefix = "HyperliquidParser"
)

// rule is one of the alerts of rules.yaml.
type rule struct {
	Alert         string            `yaml:"alert"`
	Expr          string            `yaml:"expr"`
	For           time.Duration     `yaml:"for"`
	KeepFiringFor time.Duration     `yaml:"keep_firing_for"`
	Labels        map[string]string `yaml:"labels"`
	Annotations   map[string]string `yaml:"annotations"`
}

// group is a group of rules, under its name.
type group struct {
	Name  string `yaml:"name"`
	Rules []rule `yaml:"rules"`
}

// readRules returns the groups of rules.yaml, and the same as a file that Prometheus itself reads.
func readRules(t testing.TB) (groups []group, file []byte) {
	t.Helper()
	var resource struct {
		Spec yaml.Node `yaml:"spec"`
	}
	data, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &resource); err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Groups []group `yaml:"groups"`
	}
	if err := resource.Spec.Decode(&spec); err != nil {
		t.Fatal(err)
	}
	if file, err = yaml.Marshal(&resource.Spec); err != nil {
		t.Fatal(err)
	}
	return spec.Groups, file
}

// program returns a command that runs a program of go.mod. The go command keeps what it has built.
func program(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", append([]string{"tool", name}, args...)...)
	cmd.Env = append(os.Environ(), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" "+buildTags))
	return cmd
}

// promtool runs promtool, and fails the test with its output.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := program(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// promtoolTests runs files of cases on rules.yaml.
func promtoolTests(t *testing.T, files map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	_, rules := readRules(t)
	write(t, filepath.Join(dir, "rules.yml"), rules)
	args := append(make([]string, 0, len(files)+2), "test", "rules")
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		write(t, path, files[name])
		args = append(args, path)
	}
	promtool(t, args...)
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	t.Parallel()
	_, rules := readRules(t)
	path := filepath.Join(t.TempDir(), "rules.yml")
	write(t, path, rules)
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", path)
}

func TestSharedCasesHold(t *testing.T) {
	t.Parallel()
	cases, err := os.ReadFile(sharedCases)
	if os.IsNotExist(err) {
		t.Skip("they are not here")
	}
	if err != nil {
		t.Fatal(err)
	}
	promtoolTests(t, map[string][]byte{"shared.yml": cases})
}

// TestRulesFollowTheirOwnConventions checks what the comment of rules.yaml says of all rules.
func TestRulesFollowTheirOwnConventions(t *testing.T) {
	groups, _ := readRules(t)
	const runbook = "https://github.com/hlparser/hyperliquid-parser-operator/blob/main/docs/runbook.md#"
	for _, g := range groups {
		for i := range g.Rules {
			r := &g.Rules[i]
			if !strings.HasPrefix(r.Alert, prefix) {
				t.Errorf("%s does not begin with %s", r.Alert, prefix)
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s has the severity %q", r.Alert, s)
			}
			scopes := []string{"target", "fleet", "data"}
			if g.Name == "hlparser-operator" {
				scopes = []string{"operator"}
			}
			if !slices.Contains(scopes, r.Labels["scope"]) || len(r.Labels) != 2 {
				t.Errorf("%s has the labels %v", r.Alert, r.Labels)
			}
			if r.Labels["scope"] == "target" && r.Labels["severity"] != "warning" {
				t.Errorf("%s is about a single target, and critical: the rules of older versions would silence it", r.Alert)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s has the annotations %v", r.Alert, r.Annotations)
			}
			if want := runbook + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
				t.Errorf("%s has the runbook_url %s, want %s", r.Alert, r.Annotations["runbook_url"], want)
			}
			if regexp.MustCompile(`\babsent`).MatchString(r.Expr) {
				t.Errorf("%s fires where nothing is installed: %s", r.Alert, r.Expr)
			}
		}
	}
}

// TestAlertsForManyTargetsCountTheSameTargets: where an alert stands for those of single targets, the two expressions
// are about the same targets, so that none is left out by both.
func TestAlertsForManyTargetsCountTheSameTargets(t *testing.T) {
	groups, _ := readRules(t)
	space := regexp.MustCompile(`\s+`)
	compact := func(expr string) string { return space.ReplaceAllString(expr, "") }
	byName := map[string][]string{}
	for _, g := range groups {
		for i := range g.Rules {
			byName[g.Rules[i].Alert] = append(byName[g.Rules[i].Alert], compact(g.Rules[i].Expr))
		}
	}
	byName[prefix+"TargetBad"] = append(byName[prefix+"TargetBad"], byName[prefix+"TargetsBad"]...)
	for _, name := range []string{"DataLost", "DataGap", "TargetBad", "NearRetention", "LossUnacknowledged"} {
		exprs := byName[prefix+name]
		if len(exprs) != 2 || !strings.HasSuffix(exprs[0], "unlesson(namespace,name)"+exprs[1]) {
			t.Errorf("the two rules of %s are not about the same targets: %q", name, exprs)
		}
	}
	for _, name := range []string{"Lag", "StreamFailed"} {
		exprs := byName[prefix+name]
		if len(exprs) != 2 || strings.Replace(exprs[0], ">=on", "<on", 1) != exprs[1] &&
			strings.Replace(exprs[0], ")>=0.005", ")<0.005", 1) != exprs[1] {
			t.Errorf("the two rules of %s are not about the same targets: %q", name, exprs)
		}
	}
}

// kind is what a case tries an alert on.
type kind string

const (
	fires         kind = "fires"
	quiet         kind = "quiet"
	restarted     kind = "restart"        // the process of a parser, in its pod: counters begin with 0
	newPod        kind = "new pod"        // of a parser
	newManager    kind = "new manager"    // another pod leads, after a gap
	newPrometheus kind = "new Prometheus" // which has no past
	one           kind = "1 of 150"
	tenth         kind = "15 of 150"
	everyone      kind = "150 of 150"
)

func kinds() []kind {
	return []kind{fires, quiet, restarted, newPod, newManager, newPrometheus, one, tenth, everyone}
}

// inapplicable are the kinds of case that an alert cannot have, by a word for the reason.
var inapplicable = map[string]map[string][]kind{
	"parser": { // no series of the operator
		"": {newManager},
	},
	"fleet": { // no series of a parser
		"": {restarted, newPod},
		// of the object as a whole
		"FleetWide": {one, tenth, everyone}, "Stalled": {one, tenth, everyone}, "RolloutLong": {one, tenth, everyone},
		"Undecodable": {one, tenth, everyone},
		// of many alone
		"TargetsBad": {one, tenth},
	},
	"operator": {
		"": {restarted, newPod, one, tenth, everyone},
	},
}

// testCase is one case for promtool.
type testCase struct {
	alert  string // without prefix
	kind   kind
	name   string
	series []series
	// firing are all alerts that fire at some times: ALERT/SEVERITY, with =N unless it is one. There are no others.
	firing []moment
}

// moment is a time, as in 10m30s, and the alerts that fire then.
type moment struct {
	at     string
	alerts []string
}

func at(passed string, alerts ...string) moment { return moment{passed, alerts} }

// series is a time series in the notation of promtool.
type series struct {
	Series string `json:"series"`
	Values string `json:"values"`
}

// interval is that of scrapes and evaluations.
const interval = 30 * time.Second

// span is the length of a segment.
func span(t testing.TB, text string) int {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil || d%interval != 0 {
		t.Fatalf("%s is no multiple of %s: %v", text, interval, err)
	}
	return int(d / interval)
}

var constant = regexp.MustCompile(`^-?[0-9.e]+$`)

// values are segments of a series: a value and how long it lasts, in turn. A value may have a slope, as 0+15 for each
// interval; it may be _ for no sample, and stale for a series that has ended.
func values(t testing.TB, segments ...string) string {
	t.Helper()
	var out []string
	for segment := range slices.Chunk(segments, 2) {
		value, n := segment[0], span(t, segment[1])
		switch {
		case value == "stale":
			out = append(out, "stale")
			if n > 1 {
				out = append(out, "_x"+strconv.Itoa(n-1))
			}
		case value == "_":
			out = append(out, "_x"+strconv.Itoa(n))
		case constant.MatchString(value):
			out = append(out, fmt.Sprintf("%s+0x%d", value, n-1))
		default:
			out = append(out, fmt.Sprintf("%sx%d", value, n-1))
		}
	}
	return strings.Join(out, " ")
}

// file returns a file of cases as promtool reads it. JSON is YAML.
func file(t testing.TB, cases []testCase) []byte {
	t.Helper()
	type sample struct {
		Labels string `json:"labels"`
		Value  int    `json:"value"`
	}
	type expected struct {
		Expr    string   `json:"expr"`
		At      string   `json:"eval_time"`
		Samples []sample `json:"exp_samples"`
	}
	type test struct {
		Name     string     `json:"name"`
		Interval string     `json:"interval"`
		Series   []series   `json:"input_series"`
		Expected []expected `json:"promql_expr_test"`
	}
	tests := make([]test, 0, len(cases))
	for i := range cases {
		c := &cases[i]
		one := test{Name: fmt.Sprintf("%s, %s: %s", c.alert, c.kind, c.name), Interval: interval.String(), Series: c.series}
		for _, m := range c.firing {
			e := expected{
				Expr: `count by (alertname, severity) (ALERTS{alertstate="firing"})`, At: m.at, Samples: []sample{},
			}
			for _, alert := range m.alerts {
				name, count, several := strings.Cut(alert, "=")
				n := 1
				if several {
					var err error
					if n, err = strconv.Atoi(count); err != nil {
						t.Fatal(err)
					}
				}
				name, severity, ok := strings.Cut(name, "/")
				if !ok {
					t.Fatalf("%s has no severity", alert)
				}
				e.Samples = append(e.Samples,
					sample{fmt.Sprintf("{alertname=%q, severity=%q}", prefix+name, severity), n})
			}
			one.Expected = append(one.Expected, e)
		}
		tests = append(tests, one)
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(map[string]any{
		"rule_files": []string{"rules.yml"}, "evaluation_interval": interval.String(), "tests": tests,
	}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestEachAlertFiresWhenItMustAndOnlyThen runs the cases. It compares the set of all alerts that fire, so that one
// cause has one alert.
func TestEachAlertFiresWhenItMustAndOnlyThen(t *testing.T) {
	t.Parallel()
	byAlert := map[string][]testCase{}
	all := cases(t)
	for i := range all {
		byAlert[all[i].alert] = append(byAlert[all[i].alert], all[i])
	}
	for _, alert := range slices.Sorted(maps.Keys(byAlert)) {
		t.Run(alert, func(t *testing.T) {
			t.Parallel()
			promtoolTests(t, map[string][]byte{alert + ".yml": file(t, byAlert[alert])})
		})
	}
}

// TestEachAlertHasCasesOfEachKind prints how many cases an alert has of each kind, and fails where it has none.
func TestEachAlertHasCasesOfEachKind(t *testing.T) {
	count := map[string]map[kind]int{}
	all := cases(t)
	for i := range all {
		c := &all[i]
		if count[c.alert] == nil {
			count[c.alert] = map[kind]int{}
		}
		count[c.alert][c.kind]++
	}
	var table strings.Builder
	row := func(name string, cells []string) { fmt.Fprintf(&table, "%-20s %s\n", name, strings.Join(cells, " | ")) }
	head := make([]string, 0, len(kinds()))
	for _, k := range kinds() {
		head = append(head, string(k))
	}
	row("alert", head)
	groups, _ := readRules(t)
	known := map[string]bool{}
	total := 0
	for _, g := range groups {
		excused := inapplicable[map[string]string{
			"hlparser-parsers": "parser", "hlparser-fleet": "fleet", "hlparser-operator": "operator",
		}[g.Name]]
		for i := range g.Rules {
			alert := strings.TrimPrefix(g.Rules[i].Alert, prefix)
			if known[alert] {
				continue
			}
			known[alert] = true
			cells := make([]string, 0, len(kinds()))
			for _, k := range kinds() {
				n := count[alert][k]
				total += n
				cell := strconv.Itoa(n)
				if n == 0 {
					cell = "-"
					if !slices.Contains(excused[""], k) && !slices.Contains(excused[alert], k) {
						t.Errorf("%s has no case of the kind %q", alert, k)
					}
				}
				cells = append(cells, fmt.Sprintf("%*s", len(k), cell))
			}
			row(alert, cells)
		}
	}
	for alert := range count {
		if !known[alert] {
			t.Errorf("%s has cases and no rule", alert)
		}
	}
	t.Logf("%d cases\n%s", total, table.String())
}

// labels are a set of labels of an alert, or what an alert needs to be chosen by matchers.
type labels map[string]string

var matcher = regexp.MustCompile(`^([a-z]+)(=~|=)"([^"]*)"$`)

// matches reports whether matchers of the Alertmanager select the alert. The test knows those that inhibit.yaml uses.
func (l labels) matches(t *testing.T, matchers []string) bool {
	t.Helper()
	for _, text := range matchers {
		m := matcher.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("the test does not understand the matcher %s", text)
		}
		if m[2] == "=" && l[m[1]] != m[3] || m[2] == "=~" && !regexp.MustCompile("^(?:"+m[3]+")$").MatchString(l[m[1]]) {
			return false
		}
	}
	return true
}

// TestNoWarningSilencesACriticalAlert tries each pair of alerts on the inhibition rules that are documented, on those
// of kube-prometheus, and on those that earlier versions documented.
func TestNoWarningSilencesACriticalAlert(t *testing.T) {
	type inhibition struct {
		Source []string `yaml:"source_matchers"`
		Target []string `yaml:"target_matchers"`
		Equal  []string `yaml:"equal"`
	}
	var documented struct {
		Rules []inhibition `yaml:"inhibit_rules"`
	}
	data, err := os.ReadFile(configDir + "/inhibit.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &documented); err != nil {
		t.Fatal(err)
	}
	var alerts []labels
	groups, _ := readRules(t)
	for _, g := range groups {
		for i := range g.Rules {
			l := labels{"alertname": g.Rules[i].Alert}
			maps.Copy(l, g.Rules[i].Labels)
			alerts = append(alerts, l)
		}
	}
	rules := append(documented.Rules,
		inhibition{Source: []string{`severity="critical"`}, Target: []string{`severity=~"warning|info"`}},
		inhibition{Source: []string{`severity="warning"`}, Target: []string{`severity="info"`}},
		inhibition{Source: []string{`alertname="HyperliquidParserFleetWide"`}, Target: []string{`scope="target"`}},
	)
	for _, r := range rules {
		sources, targets := 0, 0
		for _, source := range alerts {
			if !source.matches(t, r.Source) {
				continue
			}
			sources++
			for _, target := range alerts {
				if !target.matches(t, r.Target) {
					continue
				}
				targets++
				if target["severity"] == "critical" && source["severity"] != "critical" {
					t.Errorf("%v, a warning, silences %v by %v", source, target, r)
				}
			}
		}
		if slices.ContainsFunc(documented.Rules, func(d inhibition) bool { return slices.Equal(d.Source, r.Source) }) &&
			(sources == 0 || targets == 0) {
			t.Errorf("the rule %v does nothing: %d sources, %d targets", r, sources, targets)
		}
	}
}

// TestTheScrapeConfigurationIsValid checks the file for a Prometheus without the Prometheus operator.
func TestTheScrapeConfigurationIsValid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config, err := os.ReadFile(configDir + "/plain/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// The token is a file of the pod.
	token := filepath.Join(dir, "token")
	write(t, token, nil)
	config = bytes.ReplaceAll(config, []byte("/var/run/secrets/kubernetes.io/serviceaccount/token"), []byte(token))
	_, rules := readRules(t)
	write(t, filepath.Join(dir, "hyperliquid-parser-operator.rules.yml"), rules)
	path := filepath.Join(dir, "prometheus.yml")
	write(t, path, config)
	promtool(t, "check", "config", "--lint=all", "--lint-fatal", path)
}

// relabeling is a relabeling as the Prometheus operator writes it, and as Prometheus does.
type relabeling struct {
	Source []string `yaml:"sourceLabels"`
	Target string   `yaml:"targetLabel"`
	Regex  string   `yaml:"regex"`
	Action string   `yaml:"action"`
}

type plainRelabeling struct {
	Source []string `yaml:"source_labels"`
	Target string   `yaml:"target_label"`
	Regex  string   `yaml:"regex"`
	Action string   `yaml:"action"`
}

// histograms is what a scrape asks for, as the Prometheus operator writes it.
type histograms struct {
	Protocols []string `yaml:"scrapeProtocols"`
	Native    bool     `yaml:"scrapeNativeHistograms"`
	Classic   bool     `yaml:"scrapeClassicHistograms"`
}

// TestMonitorsAndScrapeConfigurationAskForTheSameHistograms: native ones, which the text formats do not have.
func TestMonitorsAndScrapeConfigurationAskForTheSameHistograms(t *testing.T) {
	var plain struct {
		Jobs []struct {
			Protocols []string `yaml:"scrape_protocols"`
			Native    bool     `yaml:"scrape_native_histograms"`
			Classic   bool     `yaml:"always_scrape_classic_histograms"`
		} `yaml:"scrape_configs"`
	}
	data, err := os.ReadFile(configDir + "/plain/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &plain); err != nil {
		t.Fatal(err)
	}
	for i, file := range []string{"parsers.yaml", "monitor.yaml"} {
		var monitor struct{ Spec histograms }
		data, err := os.ReadFile(configDir + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(data, &monitor); err != nil {
			t.Fatal(err)
		}
		want, job := monitor.Spec, plain.Jobs[i]
		if len(want.Protocols) < 2 || want.Protocols[0] != "PrometheusProto" || !want.Native {
			t.Errorf("%s asks for no native histograms: %+v", file, want)
		}
		if !slices.Equal(job.Protocols, want.Protocols) || job.Native != want.Native || job.Classic != want.Classic {
			t.Errorf("%s asks for %+v, and its job for %+v", file, want, job)
		}
	}
}

// TestMonitorsAndScrapeConfigurationRelabelAlike: series of an object have its namespace, name and target, whichever
// way they are scraped.
func TestMonitorsAndScrapeConfigurationRelabelAlike(t *testing.T) {
	read := func(path string, into any) {
		t.Helper()
		data, err := os.ReadFile(configDir + "/" + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(data, into); err != nil {
			t.Fatal(err)
		}
	}
	var monitor struct {
		Spec struct {
			Endpoints []struct {
				Metrics []relabeling `yaml:"metricRelabelings"`
			} `yaml:"endpoints"`
		} `yaml:"spec"`
	}
	var parsers struct {
		Spec struct {
			Endpoints []struct {
				Relabelings []relabeling `yaml:"relabelings"`
			} `yaml:"podMetricsEndpoints"`
		} `yaml:"spec"`
	}
	var plain struct {
		Jobs []struct {
			Relabelings []plainRelabeling `yaml:"relabel_configs"`
			Metrics     []plainRelabeling `yaml:"metric_relabel_configs"`
		} `yaml:"scrape_configs"`
	}
	read("monitor.yaml", &monitor)
	read("parsers.yaml", &parsers)
	read("plain/prometheus.yaml", &plain)
	contains := func(all []plainRelabeling, one relabeling) bool {
		return slices.ContainsFunc(all, func(p plainRelabeling) bool {
			return slices.Equal(p.Source, one.Source) && p.Target == one.Target && p.Regex == one.Regex && p.Action == one.Action
		})
	}
	for _, r := range parsers.Spec.Endpoints[0].Relabelings {
		if !contains(plain.Jobs[0].Relabelings, r) {
			t.Errorf("the job of the parsers lacks %v", r)
		}
	}
	if len(monitor.Spec.Endpoints[0].Metrics) != 2 {
		t.Errorf("the operator's series keep the namespace of its pod: %v", monitor.Spec.Endpoints[0])
	}
	for _, r := range monitor.Spec.Endpoints[0].Metrics {
		if !contains(plain.Jobs[1].Metrics, r) {
			t.Errorf("the job of the operator lacks %v", r)
		}
	}
}
