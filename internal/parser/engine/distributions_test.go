package engine

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// histograms returns the histograms of an engine's first stream, by name.
func histograms(t *testing.T, e *Engine) map[string]*dto.Histogram {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(e.Distributions())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*dto.Histogram{}
	for _, f := range families {
		out[f.GetName()] = f.GetMetric()[0].GetHistogram()
	}
	return out
}

// Each batch is one observation, by its oldest line; each commit likewise.
func TestTimesAreObservedOncePerBatchFromTheArrivalOfItsOldestLine(t *testing.T) {
	b := newBench(t)
	b.node(hour8, "")
	slow := &memory{gate: make(chan struct{})}
	r := b.start(slow)
	r.until("the start", func(s report.Stream) bool { return s.LastCommitAt != nil })
	b.node(hour8, trades(0, 10))
	r.until("the first batch in flight", func(s report.Stream) bool { return s.InFlightLines == 10 })
	b.node(hour8, trades(10, 15))
	const held = 0.2 // seconds
	r.until("a wait for the sink", func(s report.Stream) bool {
		return s.BufferLines == 5 && s.Sink.OutstandingSeconds >= held
	})
	close(slow.gate)
	r.until("the commit", func(s report.Stream) bool { return s.DeliveredTotal == 15 && waiting(&s) == 0 })
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}

	got := histograms(t, r.Engine)
	if h := got["hlparser_batch_lines"]; h.GetSampleCount() != 2 || h.GetSampleSum() != 15 {
		t.Errorf("batches: %v", h)
	}
	if h := got["hlparser_acked_latency_seconds"]; h.GetSampleCount() != 2 || h.GetSampleSum() < held {
		t.Errorf("acknowledged: %v", h)
	}
	if h := got["hlparser_committed_latency_seconds"]; h.GetSampleCount() == 0 || h.GetSampleCount() > 2 ||
		h.GetSampleSum() < held {
		t.Errorf("committed: %v", h)
	}
	if h := got["hlparser_sink_request_duration_seconds"]; h.GetSampleCount() != 2 || h.GetSampleSum() < held {
		t.Errorf("requests: %v", h)
	}
	if h := got["hlparser_fsync_duration_seconds"]; h.GetSampleCount() < 2 {
		t.Errorf("syncs: %v", h)
	}
}

// unseen is a tailer that observed no arrival.
type unseen struct{ source }

func (unseen) SeenAt(*buffer.Block) (time.Time, bool) { return time.Time{}, false }

// How long lines took whose arrival nobody observed was not measured.
func TestLinesWhoseArrivalNobodyObservedHaveNoTime(t *testing.T) {
	b := newBench(t)
	b.source = func(s source) source { return unseen{s} }
	b.node(hour8, trades(0, 10))
	b.cfg.Once = true
	e := b.engine(nil)
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := histograms(t, e)
	if n := got["hlparser_batch_lines"].GetSampleCount(); n != 1 {
		t.Errorf("%d batches", n)
	}
	for _, name := range []string{"hlparser_acked_latency_seconds", "hlparser_committed_latency_seconds"} {
		if h := got[name]; h.GetSampleCount() != 0 {
			t.Errorf("%s: %v", name, h)
		}
	}
}
