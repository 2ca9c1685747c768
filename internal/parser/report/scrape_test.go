package report

import (
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// maxSeries is the budget of a parser with two streams. Each native histogram is one series.
const maxSeries = 60

// steady are two streams in the mode with the most metrics, all of whose figures are known, and histograms with
// observations.
func steady() fixed {
	f := fixed{ready: true, distributions: NewDistributions()}
	for _, name := range []string{"OrderStatuses", "Fills"} {
		f.streams = append(f.streams, Stream{
			Name: name, Mode: modeByBlock, State: Running, UncommittedBytes: new(int64), LagSeconds: new(float64),
			MalformedShare: new(float64), FilteredShare: new(float64), LastBlock: 1, LastLineAt: &at, LastCommitAt: &at,
			BufferLimitBytes: 32 << 20, Sink: Sink{State: SinkHealthy, Kind: "kafka", Destination: "main"},
		})
		of := f.distributions.Of(name)
		for i := range 1000 {
			took := time.Duration(i) * time.Millisecond
			of.Batch(int64(i))
			of.Acked(took)
			of.Committed(took)
			of.Request(took)
			of.Fsync(took)
		}
	}
	return f
}

// limited is a parser with all limits.
var limited = Identity{Version: "v1", Target: "node-1", StartedAt: at, MemoryLimitBytes: 512 << 20}

func gather(t *testing.T, details ...config.MetricsDetail) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := newScrapes(limited, steady()).gatherer(details).Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*dto.MetricFamily{}
	for _, f := range families {
		out[f.GetName()] = f
	}
	return out
}

func setMemoryLimit(t *testing.T) {
	before := debug.SetMemoryLimit(400 << 20)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
}

func TestTheDefaultMetricsOfTwoStreamsStayWithinTheirBudget(t *testing.T) {
	setMemoryLimit(t)
	families := gather(t)
	series := 0
	for _, f := range families {
		series += len(f.GetMetric())
	}
	if series > maxSeries {
		t.Errorf("%d series, want at most %d", series, maxSeries)
	}
	for name := range defaultMetrics {
		if families[name] == nil {
			t.Errorf("%s is not served", name)
		}
	}
	t.Logf("%d series", series)
}

// What a scrape says of a target comes from the scraper's configuration. A label of the same name would arrive as
// exported_target.
func TestNoLabelClashesWithThoseOfAScrape(t *testing.T) {
	ofScrape := map[string]bool{"namespace": true, "name": true, "target": true, "pod": true, "container": true,
		"instance": true, "job": true, "endpoint": true}
	for name, f := range gather(t, config.AllMetrics) {
		for _, l := range f.GetMetric()[0].GetLabel() {
			if ofScrape[l.GetName()] {
				t.Errorf("%s has the label %s", name, l.GetName())
			}
		}
	}
}

func TestHistogramsAreNativeAndClassicOnRequest(t *testing.T) {
	for _, classic := range []bool{false, true} {
		var details []config.MetricsDetail
		if classic {
			details = append(details, config.ClassicBuckets)
		}
		for name, f := range gather(t, details...) {
			if f.GetType() != dto.MetricType_HISTOGRAM {
				continue
			}
			h := f.GetMetric()[0].GetHistogram()
			if h.GetSampleCount() != 1000 || len(h.GetPositiveSpan()) == 0 || len(h.GetPositiveDelta()) > maxBuckets {
				t.Errorf("%s has no native buckets, or too many: %v", name, h)
			}
			if got := len(h.GetBucket()) > 0; got != classic {
				t.Errorf("%s has classic buckets: %v, want %v", name, got, classic)
			}
		}
	}
}

func TestWhatKindOfStreamItIs(t *testing.T) {
	f := gather(t)["hlparser_stream_info"]
	labels := map[string]string{}
	for _, l := range f.GetMetric()[0].GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	want := map[string]string{labelStream: "Fills", "mode": modeByBlock, "sink": "main", "kind": "kafka"}
	if !maps.Equal(labels, want) {
		t.Errorf("%v", labels)
	}
}

func TestLimitsThatDoNotExistAreAbsent(t *testing.T) {
	before := debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	families, err := newScrapes(Identity{}, steady()).gatherer(nil).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.Contains(f.GetName(), "memory_limit") {
			t.Errorf("%v", f)
		}
	}
}

// In line mode no line names its block: that no block is missing was not observed.
func TestWhatAModeCannotShowIsAbsent(t *testing.T) {
	for mode, want := range map[string]map[string]bool{
		"Auto":        {},
		"Line":        {},
		modeStreaming: {"hlparser_block_repeats_total": true, "hlparser_block_late_total": true},
		modeByBlock: {"hlparser_block_gaps_total": true, "hlparser_block_repeats_total": true,
			"hlparser_block_late_total": true},
	} {
		text := scrape(t, fixed{streams: []Stream{{Name: "Fills", Mode: mode}}}, "?metrics=all", "").Body.String()
		for _, name := range []string{"hlparser_block_gaps_total", "hlparser_block_repeats_total",
			"hlparser_block_late_total"} {
			if got := strings.Contains(text, name+"{"); got != want[name] {
				t.Errorf("%s: %s is there: %v", mode, name, got)
			}
		}
	}
}

func scrape(t *testing.T, source Source, query, accept string) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodGet, "/metrics"+query, nil)
	request.Header.Set("Accept", accept)
	Handler(limited, source).ServeHTTP(recorder, request)
	return recorder
}

func TestCountersSayWhenTheyBegan(t *testing.T) {
	const openMetrics = "application/openmetrics-text;version=1.0.0"
	const created = `hlparser_lines_created{stream="Fills"} 1.777582003e+09`
	if got := scrape(t, steady(), "?metrics=created-samples", openMetrics); !strings.Contains(got.Body.String(), created) {
		t.Errorf("%s is not in %s", created, got.Body)
	}
	if got := scrape(t, steady(), "", openMetrics); strings.Contains(got.Body.String(), "_created") ||
		!strings.HasSuffix(got.Body.String(), "# EOF\n") {
		t.Errorf("by default: %s", got.Body)
	}

	got := scrape(t, steady(), "", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	decoder := expfmt.NewDecoder(got.Body, expfmt.ResponseFormat(got.Result().Header))
	counters := 0
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); err != nil {
			break
		}
		if f.GetType() != dto.MetricType_COUNTER || !strings.HasPrefix(f.GetName(), "hlparser_") {
			continue
		}
		counters++
		if began := f.GetMetric()[0].GetCounter().GetCreatedTimestamp().AsTime(); !began.Equal(at) {
			t.Errorf("%s began at %s", f.GetName(), began)
		}
	}
	if counters == 0 {
		t.Error("there are no counters")
	}
}

func TestAScrapeAsksForMoreByName(t *testing.T) {
	const more = "hlparser_sink_retries_total"
	for query, want := range map[string]struct {
		code int
		more bool
	}{
		"": {http.StatusOK, false}, "?metrics=all": {http.StatusOK, true},
		"?metrics=everything": {http.StatusBadRequest, false},
	} {
		got := scrape(t, steady(), query, "")
		if got.Code != want.code || strings.Contains(got.Body.String(), more) != want.more {
			t.Errorf("%q: %d, %.300s", query, got.Code, got.Body)
		}
	}
	recorder := httptest.NewRecorder()
	id := limited
	id.Metrics = []config.MetricsDetail{config.AllMetrics}
	Handler(id, steady()).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if !strings.Contains(recorder.Body.String(), more) {
		t.Error("a parser that serves all to everybody does not")
	}
}
