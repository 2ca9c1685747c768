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

type rule struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

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
		names := named.FindAllString(r.Expr, -1)
		if len(names) == 0 {
			t.Errorf("%s asks for no metric of ours: %s", r.Alert, r.Expr)
		}
		for _, name := range names {
			if !served[name] {
				t.Errorf("%s asks for %s, which is not served; there are %v", r.Alert, name, slices.Sorted(maps.Keys(served)))
			}
		}
	}
}

func TestRulesAreExpressionsWithASeverityAScopeAndASummary(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules(t) {
		if _, err := metricsql.Parse(r.Expr); err != nil {
			t.Errorf("%s: %v", r.Alert, err)
		}
		if r.For != "" {
			if _, err := time.ParseDuration(r.For); err != nil {
				t.Errorf("%s: for: %v", r.Alert, err)
			}
		}
		if seen[r.Alert] {
			t.Errorf("%s is there twice", r.Alert)
		}
		seen[r.Alert] = true
		if !slices.Contains([]string{"page", "ticket"}, r.Labels["severity"]) ||
			!slices.Contains([]string{"fleet", "target"}, r.Labels["scope"]) ||
			r.Annotations["summary"] == "" {
			t.Errorf("%s has labels %v and annotations %v", r.Alert, r.Labels, r.Annotations)
		}
	}
}

func TestWhatPagesAndWhenIsWhatTheDesignSays(t *testing.T) {
	pages := map[string]string{}
	for _, r := range rules(t) {
		switch {
		case r.Labels["severity"] == "page":
			pages[r.Alert] = r.For
		case r.For != "10m" && r.Alert != "HyperliquidParserFleetWide": // which must come before those that it stands for
			t.Errorf("%s is a ticket after %q, want 10m", r.Alert, r.For)
		}
	}
	want := map[string]string{
		"HyperliquidParserLag": "5m", "HyperliquidParserSinkDown": "2m", "HyperliquidParserDataLost": "",
		"HyperliquidParserRestartIneffective": "",
	}
	if !maps.Equal(pages, want) {
		t.Errorf("pages are %v, want %v", pages, want)
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
