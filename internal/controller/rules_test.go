package controller

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// ruleFile is the part of config/prometheus/rules.yaml that the tests read.
type ruleFile struct {
	Spec struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
}

type rule struct{ Alert, Expr string }

func rules(t *testing.T) []rule {
	t.Helper()
	data, err := os.ReadFile("../../config/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var f ruleFile
	if err := yaml.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	var out []rule
	for _, g := range f.Spec.Groups {
		out = append(out, g.Rules...)
	}
	return out
}

// described is a registry that only records the names of the metrics.
type described struct {
	prometheus.Registerer
	names map[string]bool
}

var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

func (d described) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	close(descs)
	for desc := range descs {
		d.names[fqName.FindStringSubmatch(desc.String())[1]] = true
	}
	return nil
}

type oneStream struct{}

// Streams returns a stream with all figures: an unknown figure has no sample.
func (oneStream) Streams() []report.Stream {
	return []report.Stream{{
		Name: "Fills", Mode: "ByBlock", UncommittedBytes: new(int64), LagSeconds: new(float64), MalformedShare: new(float64),
		FilteredShare: new(float64),
		LastBlock:     1, LastLineAt: new(time.Time), LastCommitAt: new(time.Time),
	}}
}
func (oneStream) Ready() bool { return true }

func (oneStream) Distributions() *report.Distributions { return nil }

// metricNames are all that the operator, and its parsers by default, serve.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	d := described{names: map[string]bool{}}
	if _, err := NewMetrics(d); err != nil {
		t.Fatal(err)
	}
	for _, c := range []prometheus.Collector{NewSetAside(), informers.NewHealth(clock.RealClock{})} {
		if err := d.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	w := httptest.NewRecorder()
	report.Handler(report.Identity{}, oneStream{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			d.names[strings.Fields(name)[0]] = true
		}
	}
	return d.names
}

func TestEveryMetricInTheRulesIsServed(t *testing.T) {
	served := metricNames(t)
	named := regexp.MustCompile(`hlparser_[a-z_]+`)
	for _, r := range rules(t) {
		for _, name := range named.FindAllString(r.Expr, -1) {
			if !served[name] && !served[strings.TrimSuffix(name, "_count")] { // which a histogram has
				t.Errorf("%s asks for %s, which is not served; there are %v", r.Alert, name, slices.Sorted(maps.Keys(served)))
			}
		}
	}
}

// VictoriaMetrics reads the rules too. hack/prometheus tests them with Prometheus.
func TestVictoriaMetricsParsesTheRules(t *testing.T) {
	for _, r := range rules(t) {
		if _, err := metricsql.Parse(r.Expr); err != nil {
			t.Errorf("%s: %v", r.Alert, err)
		}
	}
}

// The label matchers of rules must be values that the metrics can have.
func TestStatesAndAlertsThatRulesAskForAreTold(t *testing.T) {
	source, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	text := string(source)
	values := regexp.MustCompile(`(?:state|alert)=~?"([^"]+)"`)
	for _, r := range rules(t) {
		for _, match := range values.FindAllStringSubmatch(r.Expr, -1) {
			for value := range strings.SplitSeq(match[1], "|") {
				if !strings.Contains(text, value) {
					t.Errorf("%s asks for %s, which metrics.go does not mention", r.Alert, value)
				}
			}
		}
	}
}

// The dashboard of a fleet names the verdicts that are not bad.
func TestTheDashboardCallsTheSameVerdictsBadAsHealthDoes(t *testing.T) {
	var want []string
	for _, v := range health.Verdicts() {
		if !v.Bad() {
			want = append(want, string(v))
		}
	}
	slices.Sort(want)
	text, err := os.ReadFile("../../config/grafana/fleet.json")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`verdict!~\\"([^"\\]+)`).FindAllSubmatch(text, -1)
	if len(found) == 0 {
		t.Error("the dashboard names no verdicts")
	}
	for _, m := range found {
		got := strings.Split(string(m[1]), "|")
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the dashboard takes %v for the verdicts that are not bad, and they are %v", got, want)
		}
	}
}
