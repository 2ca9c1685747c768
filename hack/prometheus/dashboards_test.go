package prometheus

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

const (
	dashboardsDir = "../../config/grafana"
	metricsPage   = "../../docs/metrics.md"
	// ranks bounds what topk may return.
	ranks = 20
)

// dashboard is what the tests read of a dashboard. hack/grafana tests the rest of it.
type dashboard struct {
	Title  string
	UID    string
	Panels []struct {
		ID                       int
		Type, Title, Description string
		Targets                  []struct {
			Expr, LegendFormat string
			Instant            bool
		}
	}
	Templating struct {
		List []struct {
			Name, Type string
			Query      string
		}
	}
	Annotations struct {
		List []struct{ Name, Expr string }
	}
}

// question is a query of a dashboard.
type question struct {
	where       string // dashboard, panel and legend
	expr        string
	legend      string
	description string // of the panel
	panel       int    // its number, 0 for an annotation
	values      string // the label whose values a variable asks for; expr selects the series
}

// dashboards returns the dashboards of config/grafana, by the name of their file.
func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob(dashboardsDir + "/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no dashboards: %v", dashboardsDir, err)
	}
	out := map[string]dashboard{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(data, &d); err != nil {
			t.Fatalf("reading %s: %v", file, err)
		}
		out[strings.TrimSuffix(filepath.Base(file), ".json")] = d
	}
	return out
}

var labelValues = regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)

// questions returns the queries of a dashboard's panels, variables and annotations.
func questions(t *testing.T, name string, d *dashboard) []question {
	t.Helper()
	var out []question
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			out = append(out, question{where: strings.TrimSuffix(name+" / "+p.Title+" / "+q.LegendFormat, " / "), expr: q.Expr,
				legend: q.LegendFormat, description: p.Description, panel: p.ID})
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" { // Grafana's own has none
			out = append(out, question{where: name + " / annotation " + a.Name, expr: a.Expr})
		}
	}
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(v.Query)
		if m == nil {
			t.Fatalf("the test does not understand the variable %s: %s", v.Name, v.Query)
		}
		out = append(out, question{where: name + " / variable " + v.Name, expr: m[1], values: m[2]})
	}
	if len(out) < 20 {
		t.Fatalf("dashboard %s has %d queries", name, len(out))
	}
	return out
}

// filledIn replaces the variables of an expression.
func filledIn(expr, target string) string {
	return strings.NewReplacer("$namespace", "hyperliquid", "$name", "mainnet", "$target", target,
		"$__rate_interval", "5s").Replace(expr)
}

func parse(t *testing.T, q question) parser.Expr {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(filledIn(q.expr, "node-1"))
	if err != nil {
		t.Fatalf("%s: %v", q.where, err)
	}
	return expr
}

// documented is a metric of docs/metrics.md.
type documented struct {
	labels    []string
	onRequest bool
}

// scraped are the labels that a scrape adds, and those of all series of an object.
var scraped = []string{"namespace", "name", "target", "job", "instance", "pod"}

// foreign are the metrics that docs/metrics.md does not have: those of Prometheus and of the operator's libraries.
var foreign = map[string][]string{
	"up":                                 {},
	"leader_election_master_status":      {},
	"controller_runtime_reconcile_total": {"controller", "result"},
	"controller_runtime_reconcile_time_seconds": {"controller"},
	"rest_client_requests_total":                {"code", "method"},
}

var metricRow = regexp.MustCompile("^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*) \\|")

// knownMetrics returns the metrics that dashboards may ask for.
func knownMetrics(t *testing.T) map[string]documented {
	t.Helper()
	text, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]documented{}
	add := func(name string, d documented, histogram bool) {
		known[name] = d
		if histogram {
			known[name+"_sum"], known[name+"_count"] = d, d
			known[name+"_bucket"] = documented{append(slices.Clone(d.labels), "le"), d.onRequest}
		}
	}
	onRequest := false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			onRequest = strings.TrimSpace(line) == "### On request"
		}
		if m := metricRow.FindStringSubmatch(line); m != nil {
			add(m[1], documented{strings.Split(m[3], ", "), onRequest}, m[2] == "histogram")
		}
	}
	if len(known) < 60 {
		t.Fatalf("%s has %d metrics: the test reads the wrong part of it", metricsPage, len(known))
	}
	for name, own := range foreign {
		add(name, documented{labels: own}, strings.HasSuffix(name, "_time_seconds"))
	}
	return known
}

var placeholder = regexp.MustCompile(`{{(\w+)}}`)

// TestDashboardsAskForDocumentedMetricsAndLabels: a metric that was renamed leaves no panel behind.
func TestDashboardsAskForDocumentedMetricsAndLabels(t *testing.T) {
	known := knownMetrics(t)
	for name, d := range dashboards(t) {
		for _, q := range questions(t, name, &d) {
			have, kept := slices.Clone(scraped), []string{}
			expr := parse(t, q)
			parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
				switch node := node.(type) {
				case *parser.VectorSelector:
					m, ok := known[node.Name]
					if !ok {
						t.Errorf("%s asks for %s, which %s does not have", q.where, node.Name, metricsPage)
					}
					if m.onRequest && !strings.Contains(q.description, "metrics=all") {
						t.Errorf("%s asks for %s, which is exported on request, and its description does not say so", q.where,
							node.Name)
					}
					own := slices.Concat(m.labels, scraped, []string{"__name__"})
					for _, matcher := range node.LabelMatchers {
						if !slices.Contains(own, matcher.Name) {
							t.Errorf("%s: %s has no label %s", q.where, node.Name, matcher.Name)
						}
					}
					have = append(have, own...)
				case *parser.AggregateExpr:
					kept = append(kept, node.Grouping...)
				case *parser.BinaryExpr:
					if node.VectorMatching != nil {
						kept = append(kept, node.VectorMatching.MatchingLabels...)
					}
				}
				return nil
			})
			for _, label := range kept {
				if !slices.Contains(have, label) {
					t.Errorf("%s groups by %s, which its metrics do not have", q.where, label)
				}
			}
			for _, m := range placeholder.FindAllStringSubmatch(q.legend, -1) {
				if !slices.Contains(kept, m[1]) {
					t.Errorf("%s: the legend names %s, by which the query does not group", q.where, m[1])
				}
			}
			if q.values != "" && !slices.Contains(have, q.values) {
				t.Errorf("%s asks for the values of %s", q.where, q.values)
			}
		}
	}
}

// few are the labels with few values, whatever the number of targets.
var few = []string{"alert", "code", "kind", "le", "method", "reason", "result", "state", "stream", "verdict", "version"}

// bounded reports whether the number of series that an expression returns does not grow with the number of targets.
func bounded(known map[string]documented, expr parser.Expr) bool {
	all := func(exprs ...parser.Expr) bool {
		return !slices.ContainsFunc(exprs, func(e parser.Expr) bool { return !bounded(known, e) })
	}
	switch e := expr.(type) {
	case *parser.NumberLiteral, *parser.StringLiteral:
		return true
	case *parser.ParenExpr:
		return bounded(known, e.Expr)
	case *parser.UnaryExpr:
		return bounded(known, e.Expr)
	case *parser.SubqueryExpr:
		return bounded(known, e.Expr)
	case *parser.MatrixSelector:
		return bounded(known, e.VectorSelector)
	case *parser.Call:
		return all(e.Args...)
	case *parser.VectorSelector:
		single := slices.ContainsFunc(e.LabelMatchers, func(m *promlabels.Matcher) bool {
			return m.Name == "target" && m.Type == promlabels.MatchEqual
		})
		ofOperator := strings.HasPrefix(e.Name, "hlparser_fleet_") || strings.HasPrefix(e.Name, "hlparser_operator_")
		return single || ofOperator && !slices.Contains(known[e.Name].labels, "target")
	case *parser.AggregateExpr:
		if e.Op == parser.TOPK || e.Op == parser.BOTTOMK {
			n, ok := e.Param.(*parser.NumberLiteral)
			return ok && n.Val <= ranks
		}
		grouped := !slices.ContainsFunc(e.Grouping, func(label string) bool { return !slices.Contains(few, label) })
		return !e.Without && grouped || bounded(known, e.Expr)
	case *parser.BinaryExpr:
		if e.Op == parser.LAND && e.VectorMatching.On && bounded(known, e.RHS) {
			return true
		}
		return all(e.LHS, e.RHS)
	}
	return false
}

// TestNoQueryReturnsASeriesForEachTarget: dashboards work with 5,000 targets.
func TestNoQueryReturnsASeriesForEachTarget(t *testing.T) {
	known := knownMetrics(t)
	for name, d := range dashboards(t) {
		for _, q := range questions(t, name, &d) {
			if q.values == "" && !bounded(known, parse(t, q)) { // a variable asks for values, and not for series
				t.Errorf("%s: the number of series grows with the number of targets: %s", q.where, q.expr)
			}
		}
	}
	for expr, want := range map[string]bool{
		"hlparser_lag_seconds":                                                               false,
		"max by (target) (hlparser_lag_seconds)":                                             false,
		"topk(50, hlparser_lag_seconds)":                                                     false,
		"max by (target) (hlparser_fleet_target_bad)":                                        false,
		"sum without (stream) (hlparser_lag_seconds)":                                        false,
		"hlparser_lag_seconds / topk(3, hlparser_lag_seconds)":                               false,
		"hlparser_lag_seconds and on (target) topk(3, hlparser_lag_seconds)":                 true,
		"max by (stream) (hlparser_lag_seconds)":                                             true,
		"hlparser_fleet_verdicts":                                                            true,
		`hlparser_lag_seconds{target="a"}`:                                                   true,
		"max by (pod) (up and on (job, instance) hlparser_operator_build_info)":              true,
		"max by (pod) (up)":                                                                  false,
		"quantile(0.5, max by (target) (hlparser_lag_seconds)) or max(hlparser_lag_seconds)": true,
	} {
		if got := bounded(known, parse(t, question{expr: expr})); got != want {
			t.Errorf("bounded(%s) is %t", expr, got)
		}
	}
}

// TestADashboardShowsNothingThatWasNotMeasured: a default value in a query would show 0 where nothing is known.
func TestADashboardShowsNothingThatWasNotMeasured(t *testing.T) {
	for name, d := range dashboards(t) {
		for _, q := range questions(t, name, &d) {
			parser.Inspect(parse(t, q), func(node parser.Node, _ []parser.Node) error {
				call, ok := node.(*parser.Call)
				if ok && (call.Func.Name == "vector" || strings.HasPrefix(call.Func.Name, "absent")) {
					t.Errorf("%s has a default: %s", q.where, q.expr)
				}
				return nil
			})
		}
	}
}

// withEverything changes the scrape configuration so that parsers export all that dashboards ask for.
func withEverything(config map[string]any) {
	config["global"].(map[string]any)["scrape_native_histograms"] = true
	config["scrape_configs"].([]any)[0].(map[string]any)["params"] = map[string]any{"metrics": []string{"all"}}
	delete(config, "rule_files")
}

// recorded is what hack/grafana draws of a dashboard.
type recorded struct {
	From   float64                   `json:"from"`
	To     float64                   `json:"to"`
	Panels map[int][]json.RawMessage `json:"panels"`
}

// matrix is an answer to a query over time.
type matrix []struct {
	Metric map[string]string
	Values [][2]any
}

// ask returns the answer to a query over the time since the server's start, and its series with a number in them.
func (p *server) ask(t *testing.T, q question, target string, from, to time.Time) (raw json.RawMessage, n int) {
	t.Helper()
	seconds := func(at time.Time) string { return strconv.FormatFloat(float64(at.UnixMilli())/1e3, 'f', 3, 64) }
	ask := url.Values{"start": {seconds(from)}, "end": {seconds(to)}}
	expr := filledIn(q.expr, target)
	if q.values != "" {
		ask["match[]"] = []string{expr}
		var values []string
		if !p.get(t.Context(), "label/"+q.values+"/values?"+ask.Encode(), &values) {
			t.Errorf("%s: Prometheus does not answer %s", q.where, expr)
		}
		return nil, len(values)
	}
	ask["query"] = []string{expr}
	ask["step"] = []string{strconv.FormatFloat(math.Max(to.Sub(from).Seconds()/90, 1), 'f', 1, 64)}
	var data struct{ Result json.RawMessage }
	if !p.get(t.Context(), "query_range?"+ask.Encode(), &data) {
		t.Errorf("%s: Prometheus does not answer %s", q.where, expr)
		return nil, 0
	}
	var series matrix
	if err := json.Unmarshal(data.Result, &series); err != nil {
		t.Fatal(err)
	}
	for _, s := range series {
		if slices.ContainsFunc(s.Values, func(v [2]any) bool { return v[1] != "NaN" }) {
			n++
		}
	}
	return data.Result, n
}

// Why an answer may be empty.
const (
	noLimit = "a process of the demo may have no memory limit"
	before  = "the demo restarts a parser before Prometheus starts"
)

// mayBeEmpty says of queries why no answer is right in the demo.
var mayBeEmpty = map[string]string{
	"fleet / annotation Rollout":                                           "the demo's spec does not change",
	"fleet / annotation Restarts":                                          before,
	"target / annotation New version":                                      "there is one version",
	"fleet / Memory, share of the limit: the ten highest now / {{target}}": noLimit,
	"target / Memory":                                                      noLimit,
	"target / Memory against its limit / limit":                            noLimit,
	"target / Memory against its limit / limit of the Go runtime":          noLimit,
}

// byDefault says why no answer is right on parsers that export the default metrics as text.
func byDefault(q question) string {
	switch {
	case strings.Contains(q.description, "metrics=all"):
		return "the metric is exported on request"
	case strings.Contains(q.expr, "histogram_quantile(") && !strings.Contains(q.expr, `{result="report"}`):
		return "text has no buckets of a parser's histograms"
	}
	return ""
}

// checkDashboards runs all queries of the dashboards over the time since the server started. Each answers with values,
// unless excused returns a reason.
func (p *server) checkDashboards(t *testing.T, target string, excused func(question) string) {
	t.Helper()
	seen := map[string]bool{}
	asked, answered := 0, 0
	for name, d := range dashboards(t) {
		for _, q := range questions(t, name, &d) {
			seen[q.where] = true
			asked++
			_, n := p.ask(t, q, target, p.started, time.Now())
			if n > 0 {
				answered++
				continue
			}
			reason := mayBeEmpty[q.where]
			if reason == "" {
				reason = excused(q)
			}
			if reason == "" {
				t.Errorf("%s has no value: %s", q.where, filledIn(q.expr, target))
			} else {
				t.Logf("%s has no value: %s", q.where, reason)
			}
		}
	}
	for where := range maps.Keys(mayBeEmpty) {
		if !seen[where] {
			t.Errorf("no dashboard has %q", where)
		}
	}
	t.Logf("%d of %d queries have values", answered, asked)
}

// record writes what the dashboards show now, for hack/grafana to draw.
func (p *server) record(t *testing.T, dir, target string) {
	t.Helper()
	now := time.Now()
	for name, d := range dashboards(t) {
		r := recorded{float64(p.started.Unix()), float64(now.Unix()), map[int][]json.RawMessage{}}
		instant := map[int]bool{}
		for _, panel := range d.Panels {
			instant[panel.ID] = len(panel.Targets) > 0 && panel.Targets[0].Instant
		}
		for _, q := range questions(t, name, &d) {
			if q.panel == 0 {
				continue
			}
			from := p.started
			if instant[q.panel] {
				from = now
			}
			raw, _ := p.ask(t, q, target, from, now)
			r.Panels[q.panel] = append(r.Panels[q.panel], raw)
		}
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, fmt.Sprintf("%s.json", name)), data)
	}
}
