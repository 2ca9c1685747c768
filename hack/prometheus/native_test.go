package prometheus

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestALivePrometheusHasNativeHistogramsAndClassicOnesOnRequest scrapes two parsers by several jobs. It runs with `make
// test-prometheus`.
func TestALivePrometheusHasNativeHistogramsAndClassicOnesOnRequest(t *testing.T) {
	program := os.Getenv("HLPARSER_DEMO")
	if program == "" {
		t.Skip("HLPARSER_DEMO names no demo: run `make test-prometheus`")
	}
	program = filepath.Join(filepath.Dir(program), "hlparser")
	usual := startParser(t, program)
	classic := startParser(t, program, "--metrics", "classic-buckets")

	job := func(name string, of parserProcess, more map[string]any) map[string]any {
		out := map[string]any{"job_name": name, "static_configs": []any{map[string]any{"targets": []string{of.address}}}}
		maps.Copy(out, more)
		return out
	}
	text := map[string]any{"scrape_protocols": []string{"OpenMetricsText1.0.0"}}
	asked := map[string]any{
		"scrape_protocols": []string{"PrometheusText0.0.4"}, "params": map[string]any{"metrics": []string{"classic-buckets"}},
	}
	shipped := shippedHistograms(t)
	both := map[string]any{"always_scrape_classic_histograms": true}
	maps.Copy(both, shipped)
	p := runPrometheus(t, buildPrometheus(t), t.TempDir(), map[string]any{
		"global": map[string]string{"scrape_interval": "1s", "scrape_timeout": "1s"},
		"scrape_configs": []any{
			job("native", usual, shipped), job("native beside classic", classic, both),
			job("text", usual, text), job("text by flag", classic, text), job("text by parameter", usual, asked),
		},
	})
	// Seventeen classic buckets have all bounds; without them a text format has the one of all observations.
	const metric = "hlparser_acked_latency_seconds"
	for name, want := range map[string]struct{ native, buckets string }{
		"native": {"1", "0"}, "native beside classic": {"1", "17"},
		"text": {"0", "1"}, "text by flag": {"0", "17"}, "text by parameter": {"0", "17"},
	} {
		of := fmt.Sprintf(`{job=%q,stream="OrderStatuses"}`, name)
		for query, want := range map[string]string{
			fmt.Sprintf(`count(histogram_count(%s%s) > 0) or vector(0)`, metric, of): want.native,
			fmt.Sprintf(`count(%s_bucket%s) or vector(0)`, metric, of):               want.buckets,
			// The quantile of what a minute's batches took, by native buckets, and by classic ones in some jobs.
			fmt.Sprintf(`count(histogram_quantile(0.99, rate(%s%s[30s])) < 60) or vector(0)`, metric, of): want.native,
			fmt.Sprintf(`count(histogram_quantile(0.99, rate(%s_bucket%s[30s])) < 60) or vector(0)`, metric,
				of): map[bool]string{true: "1", false: "0"}[want.buckets == "17"],
		} {
			poll(t, name+": "+query, func() bool {
				usual.write(t)
				classic.write(t)
				return p.value(t, query) == want
			})
		}
		quantile := fmt.Sprintf(`histogram_quantile(0.99, rate(%s%s[30s]))`, metric, of)
		t.Logf("%-22s %s: %s s", name, quantile, p.value(t, quantile))
	}
}

// shippedHistograms returns what the job of the parsers in config/prometheus/plain asks for.
func shippedHistograms(t *testing.T) map[string]any {
	t.Helper()
	data, err := os.ReadFile(configDir + "/plain/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Jobs []map[string]any `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	for _, key := range []string{"scrape_protocols", "scrape_native_histograms"} {
		if out[key] = config.Jobs[0][key]; out[key] == nil {
			t.Fatalf("the job of the parsers has no %s", key)
		}
	}
	return out
}

// parserProcess is a parser of one stream in line mode.
type parserProcess struct {
	address string
	file    string // that it reads
}

// startParser runs a parser until the test ends.
func startParser(t *testing.T, program string, args ...string) parserProcess {
	t.Helper()
	dir := t.TempDir()
	p := parserProcess{file: filepath.Join(dir, "data/node_order_statuses/hourly/20260430/8")}
	if err := os.MkdirAll(filepath.Dir(p.file), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, append([]string{"run", "--data-dir", filepath.Join(dir, "data"),
		"--state-dir", filepath.Join(dir, "state"), "--stream", "order-statuses:line", "--sink", "file:" + dir + "/out",
		"--min-free-percent", "0", "--listen", "127.0.0.1:0"}, args...)...)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // its context has ended
	})
	for lines := bufio.NewScanner(log); p.address == "" && lines.Scan(); {
		if _, after, ok := strings.Cut(lines.Text(), "address="); ok {
			p.address = strings.Fields(after)[0]
		}
	}
	if p.address == "" {
		t.Fatal("the parser ended, or logs no address")
	}
	go func() { _, _ = io.Copy(io.Discard, log) }() // so that it does not block
	return p
}

// write appends a line to the file of the stream.
func (p parserProcess) write(t *testing.T) {
	t.Helper()
	const line = `{"time":"2026-04-30T20:46:43.304461819","user":"0xb1edfeccf03f35d2268f5dc4013508a6eb52c702",` +
		`"hash":null,"builder":null,"status":"open","order":{"coin":"BTC","side":"A","limitPx":"76466.0","sz":"0.0686",` +
		`"oid":1,` +
		`"timestamp":1777582003304}}` + "\n"
	f, err := os.OpenFile(p.file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(line); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
