package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
)

// TestMain lets the benchmark start this program, as it starts itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == parsersCommand || os.Args[1] == sweepCommand) {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestASmallFleet keeps the benchmark working. Its figures are meaningless, but a fleet at rest writes nothing on any
// machine.
func TestASmallFleet(t *testing.T) {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: run make test, which finds or builds kube-apiserver and etcd")
	}
	t.Chdir(filepath.Join("..", ".."))
	o := options{
		assets: assets, dir: t.TempDir(), quiet: 10 * time.Second, steady: 20 * time.Second,
		pollInterval: time.Second, stuckAfter: 5 * time.Second, qps: 500, burst: 1000, streams: 2, small: 15,
	}
	if err := o.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := children(t)
	const nodes = 50
	f, err := o.measure(t.Context(), nodes)
	if err != nil {
		t.Fatal(err)
	}
	if c := f.byOperator.median(); len(f.byOperator) != 3 || c.created <= 0 || c.created > c.reported {
		t.Errorf("creation: %+v", f.byOperator)
	}
	if len(f.rest.written) != 0 || f.rest.leases == 0 {
		t.Errorf("at rest the manager wrote %v, and its Lease %d times", f.rest.written, f.rest.leases)
	}
	if f.fault.cured < o.stuckAfter/2 {
		t.Errorf("the hanging parser was replaced after %s", f.fault.cured)
	}
	if b := f.beside; b == nil || len(b.first) != o.small || b.first[0] <= 0 || len(b.rest.written) != 0 {
		t.Errorf("small objects beside the fleet: %+v", b)
	}
	text := o.describe([]figures{f})
	for _, want := range []string{
		"operator, 50 nodes", "50 reports, first", "50 nodes: API writes but the Lease's |      0 |        0 |     yes",
		"of 50 ", "15, a fleet of 50",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if left := children(t).Difference(before); left.Len() > 0 {
		t.Errorf("processes are left: %v", left)
	}
	if entries, err := os.ReadDir(o.dir); err != nil || len(entries) != 1 {
		t.Errorf("files are left: %v, %v", entries, err)
	}
}

// children returns the running child processes of this process.
func children(t *testing.T) sets.Set[string] {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	out := sets.Set[string]{}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		out.Insert(strings.Fields(string(text))...)
	}
	return out
}

func TestRequestsInTheAuditLogAreCounted(t *testing.T) {
	line := func(stage, verb, resource, sub, user string) string {
		return fmt.Sprintf(`{"stage":%q,"verb":%q,"objectRef":{"resource":%q,"subresource":%q,"name":"a"},`+
			`"user":{"username":%q}}`+"\n",
			stage, verb, resource, sub, user)
	}
	r := atRest{requests: map[string]int{}}
	err := r.count(strings.NewReader(
		line("ResponseComplete", "update", "leases", "", managerUser) +
			line("ResponseComplete", "update", "hyperliquidparsers", "status", managerUser) +
			line("ResponseStarted", "watch", "pods", "", managerUser) +
			line("ResponseComplete", "watch", "pods", "", managerUser) +
			line("ResponseComplete", "delete", "pods", "", managerUser) +
			line("ResponseComplete", "delete", "pods", "", "somebody")))
	if err != nil {
		t.Fatal(err)
	}
	if r.leases != 1 || fmt.Sprint(r.written) != "[update hyperliquidparsers/status a delete pods a]" ||
		fmt.Sprint(r.requests) != "map[delete pods:1 update hyperliquidparsers/status:1 watch pods:1]" {
		t.Errorf("got %+v", r)
	}
}

func TestTheLastPodCreatedIsFound(t *testing.T) {
	line := func(verb, resource, sub string, code, second int) string {
		return fmt.Sprintf(`{"stage":"ResponseComplete","stageTimestamp":"2026-11-29T01:00:%02d.250000Z","verb":%q,`+
			`"objectRef":{"resource":%q,"subresource":%q},"responseStatus":{"code":%d}}`+"\n", second, verb, resource, sub, code)
	}
	audit := line("create", "pods", "", 201, 2) + line("create", "pods", "", 201, 1) + line("create", "pods", "", 409, 3) +
		line("create", "pods", "binding", 201, 4) + line("patch", "pods", "", 201, 5) + line("create", "events", "", 201, 6)
	last, err := lastPodCreated(strings.NewReader(audit), 2)
	if want := time.Date(2026, 11, 29, 1, 0, 2, 250_000_000, time.UTC); err != nil || !last.Equal(want) {
		t.Errorf("%s, %v, want %s", last, err, want)
	}
	if _, err := lastPodCreated(strings.NewReader(audit), 3); err == nil {
		t.Error("a missing creation is not reported")
	}
}

func TestParsersFluctuateAndProgress(t *testing.T) {
	p := newParser(1, 7)
	var first, last int64
	for i := range 100 {
		if _, err := p.report(p.asked.Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		s := p.is.Streams[0]
		if s.BufferBytes < 160_000 || s.BufferBytes > 240_000 {
			t.Fatalf("the buffer holds %d bytes", s.BufferBytes)
		}
		if i == 0 {
			first = s.AckedBytesTotal
		}
		last = s.AckedBytesTotal
	}
	if rate := float64(last-first) / 99 / 5; rate < 0.9*bytesASecond || rate > 1.1*bytesASecond {
		t.Errorf("%.0f bytes per second", rate)
	}
	p.setStuck(true)
	if _, err := p.report(p.asked.Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if p.is.Streams[0].AckedBytesTotal != last {
		t.Error("a hanging parser makes progress")
	}
}

func TestAWrongFlagIsReported(t *testing.T) {
	for _, args := range [][]string{
		{"--sizes", "0"}, {"--sizes", "100,many"}, {"--sizes", fmt.Sprint(maxNodes + 1)}, {"--streams", "8"},
		{"--beside", fmt.Sprint(maxNodes)}, {"--beside", "-1"}, {"more"},
	} {
		if err := bench(context.Background(), args); err == nil || !strings.Contains(err.Error(), "--") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
