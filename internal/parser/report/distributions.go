package report

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// bucketFactor is the width of a native histogram's buckets: a quantile is off by at most 5 %.
	bucketFactor = 1.1
	// maxBuckets bounds the buckets of one native histogram. Beyond it the histogram starts over, at most once per
	// resetAfter, or else has wider buckets.
	maxBuckets = 100
	resetAfter = time.Hour
)

// Bounds of the classic buckets.
var (
	secondsBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	linesBuckets   = []float64{1, 10, 100, 1000, 10_000, 100_000, 1_000_000}
)

// Distributions are the histograms of a parser. An observation costs some tens of nanoseconds, and there are a few per
// batch, not one per line. It is safe for concurrent use. It is a prometheus.Collector.
type Distributions struct {
	acked, committed, request, lines, fsync *prometheus.HistogramVec
}

// NewDistributions returns histograms without streams.
func NewDistributions() *Distributions {
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hlparser_" + name, Help: help, Buckets: buckets, NativeHistogramBucketFactor: bucketFactor,
			NativeHistogramMaxBucketNumber: maxBuckets, NativeHistogramMinResetDuration: resetAfter,
		}, []string{labelStream})
	}
	return &Distributions{
		acked: histogram("acked_latency_seconds",
			"Time from when the oldest line of a batch was first observed on disk until the sink had acknowledged the whole "+
				"batch, once per batch: no line of it took longer. A batch whose arrival nobody observed is left out.",
			secondsBuckets),
		committed: histogram("committed_latency_seconds",
			"Time from when the oldest line of a commit was first observed on disk until the position after it was on disk, "+
				"once per commit: no line of it took longer. A commit whose first lines nobody observed arrive is left out.",
			secondsBuckets),
		request: histogram("sink_request_duration_seconds",
			"Duration of each write of records to the sink and, at NATS and Kafka, of each confirmation for a commit, "+
				"whether it succeeded or not.", secondsBuckets),
		lines: histogram("batch_lines", "Lines of each batch.", linesBuckets),
		fsync: histogram("fsync_duration_seconds",
			"Duration of each sync of the file sink's files, and of each save of a checkpoint, which ends with a sync.",
			secondsBuckets),
	}
}

// Describe implements prometheus.Collector.
func (d *Distributions) Describe(out chan<- *prometheus.Desc) {
	for _, h := range d.all() {
		h.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (d *Distributions) Collect(out chan<- prometheus.Metric) {
	for _, h := range d.all() {
		h.Collect(out)
	}
}

func (d *Distributions) all() []*prometheus.HistogramVec {
	return []*prometheus.HistogramVec{d.acked, d.committed, d.request, d.lines, d.fsync}
}

// StreamDistributions are the histograms of one stream.
type StreamDistributions struct{ acked, committed, request, lines, fsync prometheus.Observer }

// Of returns the histograms of a stream. They exist from now on, without observations.
func (d *Distributions) Of(stream string) StreamDistributions {
	return StreamDistributions{
		acked: d.acked.WithLabelValues(stream), committed: d.committed.WithLabelValues(stream),
		request: d.request.WithLabelValues(stream), lines: d.lines.WithLabelValues(stream),
		fsync: d.fsync.WithLabelValues(stream),
	}
}

// Batch observes the number of lines of a batch.
func (s StreamDistributions) Batch(lines int64) { s.lines.Observe(float64(lines)) }

// Acked observes a batch's time from its oldest line's arrival to the acknowledgement.
func (s StreamDistributions) Acked(took time.Duration) { observe(s.acked, took) }

// Committed observes a commit's time from its oldest line's arrival to the checkpoint.
func (s StreamDistributions) Committed(took time.Duration) { observe(s.committed, took) }

// Request observes a request to the sink.
func (s StreamDistributions) Request(took time.Duration) { observe(s.request, took) }

// Fsync observes a sync to the disk.
func (s StreamDistributions) Fsync(took time.Duration) { observe(s.fsync, took) }

// observe observes a duration. If the clock was set back, it counts as 0.
func observe(in prometheus.Observer, took time.Duration) { in.Observe(max(took, 0).Seconds()) }
