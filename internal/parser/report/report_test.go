package report

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixed struct {
	streams       []Stream
	ready         bool
	distributions *Distributions
}

func (f fixed) Streams() []Stream { return f.streams }
func (f fixed) Ready() bool       { return f.ready }

func (f fixed) Distributions() *Distributions { return f.distributions }

var at = time.Date(2026, 4, 30, 20, 46, 43, 0, time.UTC)

func sample() fixed {
	return fixed{ready: true, streams: []Stream{{
		Name: "OrderStatuses", Mode: "Line", State: Running, BufferLines: 1174, LagSeconds: new(1.5), DeliveredTotal: 7,
		LastCommitAt: &at,
		Sink:         Sink{State: SinkRetrying, LastError: "refused", OutstandingSeconds: 2},
	}}}
}

// The operator of another version reads these names: a change here changes the contract.
func TestTheReportKeepsItsNames(t *testing.T) {
	recorder := httptest.NewRecorder()
	Handler(Identity{Version: "v1", Target: "node-1", Pod: "p", StartedAt: at, MemoryLimitBytes: 5}, sample()).
		ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/status", nil))
	var got map[string]any
	if err := json.Unmarshal(recorder.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	keys := func(v any, want string) map[string]any {
		t.Helper()
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("%v is not an object", v)
		}
		for key := range strings.FieldsSeq(want) {
			if _, ok := m[key]; !ok {
				t.Errorf("%s is missing in %v", key, m)
			}
		}
		return m
	}
	keys(got, "version parser target pod namespace podUID startedAt now process streams")
	keys(got["process"], "rssBytes heapBytes goroutines memoryLimitBytes cpuSecondsTotal cpuLimit")
	stream := keys(got["streams"].([]any)[0], `name mode state bufferLines bufferBytes bufferLimitBytes
		inFlightLines lastBatchLines batchesTotal linesTotal eventsTotal filteredTotal deliveredTotal malformedTotal
		malformedLinesTotal malformedShare filteredShare passedOverBytesTotal oversizeTotal lateTotal prunedUnreadTotal
		uncommittedBytes lagSeconds largestLineBytes readBytesTotal parsedBytesTotal ackedBytesTotal committedBytesTotal
		readWaitSecondsTotal skippedBytesTotal file position committedPosition
		lastBlock blockGapsTotal blockRepeatsTotal lastLineAt lastCommitAt sink`)
	keys(stream["sink"], "state since lastError retriesTotal lastAckAt outstandingSeconds busySecondsTotal")
	if got["target"] != "node-1" || stream["bufferLines"] != 1174.0 || stream["lastLineAt"] != nil {
		t.Errorf("the report says %v", got)
	}
	process := got["process"].(map[string]any)
	if process["rssBytes"].(float64) <= 0 || process["memoryLimitBytes"] != 5.0 ||
		process["cpuSecondsTotal"].(float64) <= 0 {
		t.Errorf("the report describes the process as %v", process)
	}
}

func TestMetricsMatchTheReportAndKeepPrometheusConventions(t *testing.T) {
	c := newCollector(Identity{Version: "v1", Target: "node-1"}, sample())
	want := `
# HELP hlparser_buffer_lines Lines in the live buffer.
# TYPE hlparser_buffer_lines gauge
hlparser_buffer_lines{stream="OrderStatuses"} 1174
# HELP hlparser_delivered_total Records acknowledged by the sink.
# TYPE hlparser_delivered_total counter
hlparser_delivered_total{stream="OrderStatuses"} 7
# HELP hlparser_lag_seconds Age of the oldest unacknowledged line since any process of the parser first ` +
		`observed it on disk, or by its file's times if none did; 0 if there is none. It survives restarts. ` +
		`Absent when hlparser_uncommitted_bytes is.
# TYPE hlparser_lag_seconds gauge
hlparser_lag_seconds{stream="OrderStatuses"} 1.5
# HELP hlparser_sink_retrying 1: the last request to the sink failed and is repeated.
# TYPE hlparser_sink_retrying gauge
hlparser_sink_retrying{stream="OrderStatuses"} 1
# HELP hlparser_last_commit_timestamp_seconds When the position was last committed. Absent before the first commit.
# TYPE hlparser_last_commit_timestamp_seconds gauge
hlparser_last_commit_timestamp_seconds{stream="OrderStatuses"} 1.777582003e+09
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "hlparser_buffer_lines", "hlparser_delivered_total",
		"hlparser_lag_seconds", "hlparser_sink_retrying", "hlparser_last_commit_timestamp_seconds"); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// figures lists the optional figures: the name in the report, and the name of the metric.
var figures = map[string]string{
	"uncommittedBytes": "hlparser_uncommitted_bytes", "lagSeconds": "hlparser_lag_seconds",
	"malformedShare": "hlparser_malformed_share", "filteredShare": "hlparser_filtered_share",
	"lastLineAt": "hlparser_last_line_timestamp_seconds", "lastCommitAt": "hlparser_last_commit_timestamp_seconds",
}

func TestUnknownFiguresAreNullWithoutASampleAndZeroIsAFigure(t *testing.T) {
	zero := Stream{
		Name: "Fills", UncommittedBytes: new(int64), LagSeconds: new(float64), MalformedShare: new(float64),
		FilteredShare: new(float64),
		LastLineAt:    &at, LastCommitAt: &at, LastBlock: 1,
	}
	for _, known := range []bool{false, true} {
		s := Stream{Name: "Fills"}
		if known {
			s = zero
		}
		handler := Handler(Identity{}, fixed{streams: []Stream{s}})
		get := func(path string) string {
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
			return recorder.Body.String()
		}
		var r struct{ Streams []map[string]any }
		if err := json.Unmarshal([]byte(get("/status")), &r); err != nil {
			t.Fatal(err)
		}
		metrics := get("/metrics?metrics=all")
		for name, metric := range figures {
			value, there := r.Streams[0][name]
			if !there || (value != nil) != known {
				t.Errorf("known %v: %s is %v", known, name, value)
			}
			if got := strings.Contains(metrics, metric+`{stream="Fills"}`); got != known {
				t.Errorf("known %v: %s has a sample: %v", known, metric, got)
			}
		}
		if got := strings.Contains(metrics, "hlparser_last_block{"); got != known {
			t.Errorf("known %v: hlparser_last_block has a sample: %v", known, got)
		}
		if !strings.Contains(metrics, `hlparser_blocked{stream="Fills"} 0`) {
			t.Error("hlparser_blocked is missing")
		}
	}
}

// The operator of the previous version has plain numbers where a report may have null.
func TestAnEarlierOperatorReadsAReportWithNulls(t *testing.T) {
	body, err := json.Marshal(Report{Streams: []Stream{{Name: "Fills", State: Blocked, Blocked: &BlockedPath{Path: "x"}}}})
	if err != nil {
		t.Fatal(err)
	}
	var earlier struct {
		Process struct{ RSSBytes int64 }
		Streams []struct {
			Name, State      string
			UncommittedBytes int64
			LagSeconds       float64
		}
	}
	if err := json.Unmarshal(body, &earlier); err != nil || earlier.Streams[0].Name != "Fills" ||
		earlier.Streams[0].State != "Blocked" {
		t.Errorf("%+v, %v", earlier, err)
	}
}

func TestAPathThatCannotBeReadIsReported(t *testing.T) {
	s := Stream{Name: "Fills", State: Draining, Blocked: &BlockedPath{Path: "node_fills", Error: "permission denied",
		Errno: "EACCES", Since: at, Count: 2}}
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	const want = `"blocked":{"path":"node_fills","error":"permission denied","errno":"EACCES",` +
		`"since":"2026-04-30T20:46:43Z","count":2}`
	if !strings.Contains(string(body), want) {
		t.Errorf("%s is not in %s", want, body)
	}
	recorder := httptest.NewRecorder()
	Handler(Identity{}, fixed{streams: []Stream{s}}).ServeHTTP(recorder,
		httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if !strings.Contains(recorder.Body.String(), `hlparser_blocked{stream="Fills"} 1`) {
		t.Error("hlparser_blocked is not 1")
	}
}

func TestReadyOnlyOnceTailingHasStartedAndHealthyAlways(t *testing.T) {
	for ready, want := range map[bool]int{true: http.StatusOK, false: http.StatusServiceUnavailable} {
		handler := Handler(Identity{}, fixed{ready: ready})
		for path, want := range map[string]int{"/readyz": want, "/healthz": http.StatusOK, "/metrics": http.StatusOK,
			"/nothing": http.StatusNotFound} {
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
			if recorder.Code != want {
				t.Errorf("ready %v: %s answers %d; want %d", ready, path, recorder.Code, want)
			}
		}
	}
}

func TestTheServerEndsWithItsContextEvenIfARequestHangs(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-release
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, listener, handler) }()
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		if resp, err := client.Get("http://" + listener.Addr().String()); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-entered
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server did not end")
	}
	close(release)
	<-asked
}

// waitsHere blocks a goroutine until end is closed.
func waitsHere(started chan<- struct{}, end <-chan struct{}) {
	close(started)
	<-end
}

func TestStacksShowWhereGoroutinesWaitAndAreBounded(t *testing.T) {
	started, end := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() { waitsHere(started, end) })
	for range 5000 {
		group.Go(func() { <-end })
	}
	<-started
	recorder := httptest.NewRecorder()
	Handler(Identity{}, sample()).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/debug/stack", nil))
	if n := recorder.Body.Len(); recorder.Code != http.StatusOK || n != 1<<20 {
		t.Errorf("with 5,000 goroutines the response is %d with %d bytes", recorder.Code, n)
	}
	close(end)
	group.Wait()

	started, end = make(chan struct{}), make(chan struct{})
	group.Go(func() { waitsHere(started, end) })
	<-started
	recorder = httptest.NewRecorder()
	Handler(Identity{}, sample()).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/debug/stack", nil))
	if text := recorder.Body.String(); !strings.Contains(text, "report.waitsHere(") ||
		!strings.HasPrefix(text, "goroutine ") {
		t.Errorf("the stacks read %.300s", text)
	}
	close(end)
	group.Wait()
}
