package prometheus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// faster is by what all times of the rules are divided, so that ten minutes take 30 s.
const faster = 20

// liveLimit bounds each wait for an alert: several times what its rule takes, and the operator before it.
const liveLimit = 4 * time.Minute

// killedTarget is the target whose process is killed. All that the dashboards can show happens to it.
const killedTarget = "node-3"

// Below a node's directory in the demo.
const (
	outputDir = "/disk/var/lib/hlparser-out/hyperliquid/mainnet"
	stateDir  = "/disk/var/lib/hlparser"
)

// demo is a fleet of hack/demo that keeps running.
type demo struct {
	dir     string // its files
	metrics string // host and port of the operator's
}

// TestALivePrometheusAlertsAndResolves scrapes the demo with a Prometheus server and injects faults: a frozen parser, a
// deleted unread file, a killed operator and a stopped sink. Then it runs the queries of the dashboards over that time.
// It runs with `make test-prometheus`.
func TestALivePrometheusAlertsAndResolves(t *testing.T) {
	program := os.Getenv("HLPARSER_DEMO")
	if program == "" {
		t.Skip("HLPARSER_DEMO names no demo: run `make test-prometheus`")
	}
	d := startDemo(t, program)
	binary := buildPrometheus(t)
	p := startPrometheus(t, d, binary, func(map[string]any) {})
	full := startPrometheus(t, d, binary, withEverything)
	p.waitScraped(t)
	if firing := p.firing(t); len(firing) > 0 {
		t.Errorf("alerts fire though all is well: %v", firing)
	}

	p.step(t, "a frozen parser", "TargetBad")
	pid := process(t, d.dir+"/nodes/node-2/pods/")
	signal(t, pid, syscall.SIGSTOP)
	p.await(t, "TargetBad", true)
	signal(t, pid, syscall.SIGCONT)
	p.await(t, "TargetBad", false)

	// A parser knows of lines whose records its sink does not take, and its checkpoint too.
	p.step(t, "a deleted unread file", "DataLost")
	node := d.dir + "/nodes/" + killedTarget
	restore := blockSink(t, node+outputDir)
	waiting := `sum(hlparser_uncommitted_bytes{target="node-3"}) > bool 1e5`
	poll(t, waiting, func() bool { return p.value(t, waiting) == "1" })
	data := node + "/disk/home/hluser/hl/data"
	saved := newest(t, node+stateDir)
	poll(t, "saving a checkpoint", func() bool { return newest(t, node+stateDir).After(saved) })
	deleteFiles(t, data)
	signal(t, process(t, node+"/pods/"), syscall.SIGKILL) // it has the files open, and could still read them
	restore()
	p.await(t, "DataLost", true)
	p.await(t, "DataLost", false)

	p.step(t, "a killed operator", "OperatorDown")
	again := restartable(t, process(t, d.dir+"/operator.kubeconfig"))
	p.await(t, "OperatorDown", true)
	again()
	p.await(t, "OperatorDown", false)

	p.step(t, "a stopped sink", "SinkDown")
	var restores []func()
	for n := 1; n <= 4; n++ {
		restores = append(restores, blockSink(t, fmt.Sprintf("%s/nodes/node-%d%s", d.dir, n, outputDir)))
	}
	p.await(t, "SinkDown", true)
	if dir := os.Getenv("GRAFANA_DATA"); dir != "" {
		full.record(t, dir, killedTarget)
	}
	for _, restore := range restores {
		restore()
	}
	p.await(t, "SinkDown", false)
	p.checkRules(t)
	t.Run("each query of the dashboards is answered, of parsers that export all", func(t *testing.T) {
		full.checkDashboards(t, killedTarget, func(question) string { return "" })
	})
	t.Run("each query of the dashboards is answered, of parsers as they are scraped by default", func(t *testing.T) {
		p.checkDashboards(t, killedTarget, byDefault)
	})
}

// blockSink puts a file in the place of a directory of output, below which no parser can write, until restore is
// called.
func blockSink(t *testing.T, dir string) (restore func()) {
	t.Helper()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	write(t, dir, nil)
	return func() {
		if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
			t.Fatal(err)
		}
	}
}

// newest returns when a file in a directory was last written.
func newest(t *testing.T, dir string) (at time.Time) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was temporary
		case err != nil:
			return err
		case info.ModTime().After(at):
			at = info.ModTime()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return at
}

// startDemo runs the demo until its fleet keeps running. It ends with the test.
func startDemo(t *testing.T, program string) demo {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "--keep")
	cmd.Dir = "../.."
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // interrupted
	})
	var d demo
	kubeconfig := regexp.MustCompile(`export KUBECONFIG=(\S+)/admin\.kubeconfig`)
	metrics := regexp.MustCompile(`curl -s http://(\S+)/metrics +# the operator`)
	lines := bufio.NewScanner(out)
	for lines.Scan() && d.metrics == "" {
		t.Log(lines.Text())
		if m := kubeconfig.FindStringSubmatch(lines.Text()); m != nil {
			d.dir = m[1]
		}
		if m := metrics.FindStringSubmatch(lines.Text()); m != nil {
			d.metrics = m[1]
		}
	}
	if d.dir == "" || d.metrics == "" {
		t.Fatalf("the demo ended, or printed no addresses: %+v", d)
	}
	go func() {
		for lines.Scan() { // so that it does not block
		}
	}()
	return d
}

// server is a running Prometheus.
type server struct {
	address string
	started time.Time
	begin   time.Time // of the present fault
}

// buildPrometheus returns the path of the server's binary.
func buildPrometheus(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "prometheus")
	build := exec.CommandContext(t.Context(), "go", "build", buildTags, "-o", binary,
		"github.com/prometheus/prometheus/cmd/prometheus")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building Prometheus: %v\n%s", err, out)
	}
	return binary
}

// startPrometheus runs a server on the rules, with times divided, and on the scrape configuration of plain, as changed
// by change.
func startPrometheus(t *testing.T, d demo, binary string, change func(config map[string]any)) *server {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "hyperliquid-parser-operator.rules.yml"), fasterRules(t))
	data, err := os.ReadFile(configDir + "/plain/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := yaml.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	config["global"] = map[string]any{
		"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s",
	}
	jobs := config["scrape_configs"].([]any)
	pods := jobs[0].(map[string]any)["kubernetes_sd_configs"].([]any)[0].(map[string]any)
	pods["kubeconfig_file"] = d.dir + "/admin.kubeconfig"
	// The demo's operator is a process, and no pod.
	operator := jobs[1].(map[string]any)
	for _, key := range []string{"authorization", "tls_config", "kubernetes_sd_configs", "relabel_configs"} {
		delete(operator, key)
	}
	operator["scheme"] = "http"
	operator["static_configs"] = []any{map[string]any{
		"targets": []string{d.metrics},
		"labels":  map[string]string{"namespace": "hyperliquid-parser-operator-system", "pod": "manager"},
	}}
	change(config)
	return runPrometheus(t, binary, dir, config)
}

// runPrometheus runs the server's binary with a configuration until the test ends. dir is for its files.
func runPrometheus(t *testing.T, binary, dir string, config map[string]any) *server {
	t.Helper()
	data, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "prometheus.yml"), data)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &server{address: listener.Addr().String(), started: time.Now()}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "prometheus.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+p.address)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // its context has ended
		_ = log.Close()
	})
	return p
}

var rangeOf = regexp.MustCompile(`\[(\w+?)(?::(\w+))?\]`)

// fasterRules returns the rules with all times divided by faster.
func fasterRules(t *testing.T) []byte {
	t.Helper()
	groups, _ := readRules(t)
	short := func(text string) string {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%dms", (d / faster).Milliseconds())
	}
	all := make([]any, 0, len(groups))
	for _, g := range groups {
		rules := make([]any, 0, len(g.Rules))
		for i := range g.Rules {
			r := &g.Rules[i]
			expr := rangeOf.ReplaceAllStringFunc(r.Expr, func(text string) string {
				m := rangeOf.FindStringSubmatch(text)
				if m[2] == "" {
					return "[" + short(m[1]) + "]"
				}
				return "[" + short(m[1]) + ":" + short(m[2]) + "]"
			})
			for _, age := range []int{900, 3600} { // of a process
				expr = strings.ReplaceAll(expr, fmt.Sprintf("process_start_time_seconds < %d", age),
					fmt.Sprintf("process_start_time_seconds < %d", age/faster))
			}
			one := map[string]any{"alert": r.Alert, "expr": expr, "labels": r.Labels, "annotations": r.Annotations}
			if r.For > 0 {
				one["for"] = short(r.For.String())
			}
			if r.KeepFiringFor > 0 {
				one["keep_firing_for"] = short(r.KeepFiringFor.String())
			}
			rules = append(rules, one)
		}
		all = append(all, map[string]any{"name": g.Name, "rules": rules})
	}
	out, err := yaml.Marshal(map[string]any{"groups": all})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// get reads from the API. It reports whether the server answered.
func (p *server) get(ctx context.Context, path string, into any) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/api/v1/"+path, http.NoBody)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	answer := struct{ Data any }{into}
	return response.StatusCode == http.StatusOK && json.NewDecoder(response.Body).Decode(&answer) == nil
}

// firing returns the names of the alerts that fire, without prefix.
func (p *server) firing(t *testing.T) []string {
	t.Helper()
	var data struct {
		Alerts []struct {
			Labels map[string]string
			State  string
		}
	}
	if !p.get(t.Context(), "alerts", &data) {
		return nil
	}
	var names []string
	for _, a := range data.Alerts {
		if a.State == "firing" {
			names = append(names, strings.TrimPrefix(a.Labels["alertname"], prefix))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// poll calls done until it returns true, for liveLimit at most.
func poll(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(liveLimit)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("%s took more than %s", what, liveLimit)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// waitScraped waits until the operator's series and those of four parsers are there, under the object's names.
func (p *server) waitScraped(t *testing.T) {
	t.Helper()
	for query, want := range map[string]string{
		`count(up{container="hlparser", namespace="hyperliquid", name="mainnet", target=~"node-.", pod!=""} == 1)`: "4",
		`sum(hlparser_fleet_targets{state="ready", namespace="hyperliquid", name="mainnet"})`:                      "4",
		`count({exported_namespace!=""}) or vector(0)`:                                                             "0",
		// Native histograms, and classic ones of the operator too.
		`sum(histogram_count(hlparser_acked_latency_seconds{name="mainnet"})) > bool 0`: "1",
		`sum(histogram_count(controller_runtime_reconcile_time_seconds)) > bool 0`:      "1",
		`count(controller_runtime_reconcile_time_seconds_bucket) > bool 1`:              "1",
		`count(hlparser_fleet_poll_duration_seconds_bucket) > bool 1`:                   "1",
		`count(hlparser_acked_latency_seconds_bucket{name="mainnet"}) or vector(0)`:     "0",
	} {
		poll(t, query, func() bool { return p.value(t, query) == want })
	}
}

// value returns the value of a query for one series; empty if there is no answer, or another number of series.
func (p *server) value(t *testing.T, query string) string {
	t.Helper()
	var data struct {
		Result []struct{ Value [2]any }
	}
	if !p.get(t.Context(), "query?query="+url.QueryEscape(query), &data) || len(data.Result) != 1 {
		return ""
	}
	value, _ := data.Result[0].Value[1].(string)
	return value
}

func (p *server) step(t *testing.T, fault, alert string) {
	t.Helper()
	if slices.Contains(p.firing(t), alert) {
		t.Fatalf("%s fires before the fault", alert)
	}
	p.begin = time.Now()
	t.Logf("%s: %s", time.Now().Format(time.TimeOnly), fault)
}

// await waits until an alert fires, or no longer does.
func (p *server) await(t *testing.T, alert string, fires bool) {
	t.Helper()
	what := alert + " fires"
	if !fires {
		what = alert + " has ended"
	}
	poll(t, what, func() bool { return slices.Contains(p.firing(t), alert) == fires })
	t.Logf("%5.1fs  %s; there are %v", time.Since(p.begin).Seconds(), what, p.firing(t))
}

// checkRules fails for each rule that Prometheus could not evaluate.
func (p *server) checkRules(t *testing.T) {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if !p.get(t.Context(), "rules", &data) {
		t.Fatal("Prometheus does not list its rules")
	}
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if r.Health != "ok" {
				t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
}

// process returns the one process with the text in its command line.
func process(t *testing.T, text string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), text) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	if len(pids) != 1 {
		t.Fatalf("%d processes have %s in their command line, want one", len(pids), text)
	}
	return pids[0]
}

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatalf("sending %s to %d: %v", s, pid, err)
	}
}

// restartable kills a process, and returns what starts it again. That ends with the test.
func restartable(t *testing.T, pid int) (again func()) {
	t.Helper()
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	signal(t, pid, syscall.SIGKILL)
	return func() {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Wait() }) // its context has ended
	}
}

// deleteFiles deletes the files below a directory.
func deleteFiles(t *testing.T, dir string) {
	t.Helper()
	deleted := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		deleted++
		return os.Remove(path)
	})
	if err != nil || deleted == 0 {
		t.Fatalf("deleted %d files below %s: %v", deleted, dir, err)
	}
}
