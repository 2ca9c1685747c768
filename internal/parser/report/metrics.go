package report

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector turns the report into metrics at each scrape, so that both say the same and neither costs anything in between.
type collector struct {
	id      Identity
	source  Source
	info    *prometheus.Desc
	metrics []metric
}

// metric is one figure of a stream.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Stream) float64
}

func newCollector(id Identity, source Source) *collector {
	c := &collector{id: id, source: source, info: prometheus.NewDesc(
		"hlparser_info", "What runs: always 1.", []string{"version", "target"}, nil)}
	gauge := func(name, help string, value func(*Stream) float64) {
		c.metrics = append(c.metrics, metric{describe(name, help), prometheus.GaugeValue, value})
	}
	counter := func(name, help string, value func(*Stream) int64) {
		c.metrics = append(c.metrics, metric{describe(name, help), prometheus.CounterValue,
			func(s *Stream) float64 { return float64(value(s)) }})
	}
	seconds := func(name, help string, value func(*Stream) float64) {
		c.metrics = append(c.metrics, metric{describe(name, help), prometheus.CounterValue, value})
	}
	truth := func(name, help string, value func(*Stream) bool) {
		gauge(name, help, func(s *Stream) float64 {
			if value(s) {
				return 1
			}
			return 0
		})
	}

	gauge("buffer_lines", "Lines in the live buffer.", func(s *Stream) float64 { return float64(s.BufferLines) })
	gauge("buffer_bytes", "Bytes of lines in the live buffer.", func(s *Stream) float64 { return float64(s.BufferBytes) })
	gauge("buffer_limit_bytes", "What the process's buffers may hold together.", func(s *Stream) float64 { return float64(s.BufferLimitBytes) })
	gauge("in_flight_lines", "Lines taken by the current batch and not yet acknowledged.", func(s *Stream) float64 { return float64(s.InFlightLines) })
	gauge("in_flight_bytes", "Bytes of lines taken by the current batch and not yet acknowledged.", func(s *Stream) float64 { return float64(s.InFlightBytes) })
	gauge("last_batch_lines", "Lines in the newest snapshot.", func(s *Stream) float64 { return float64(s.LastBatchLines) })
	gauge("uncommitted_bytes", "Bytes of whole lines, on disk or in hand, that are not committed.", func(s *Stream) float64 { return float64(s.UncommittedBytes) })
	gauge("lag_seconds", "Age of the oldest unacknowledged line since it was first seen on disk.", func(s *Stream) float64 { return s.LagSeconds })
	gauge("largest_line_bytes", "Longest line seen.", func(s *Stream) float64 { return float64(s.LargestLineBytes) })
	gauge("last_block", "Highest block number seen.", func(s *Stream) float64 { return float64(s.LastBlock) })
	gauge("last_line_timestamp_seconds", "When the last whole line was seen on disk.", func(s *Stream) float64 { return unixSeconds(s.LastLineAt) })
	gauge("last_commit_timestamp_seconds", "When the position was last committed.", func(s *Stream) float64 { return unixSeconds(s.LastCommitAt) })
	gauge("sink_outstanding_seconds", "Age of the request to the sink that is being waited for.", func(s *Stream) float64 { return s.Sink.OutstandingSeconds })
	truth("waiting_for_data", "1: nothing to read has appeared yet.", func(s *Stream) bool { return s.State == WaitingForData })
	truth("failed", "1: the stream cannot go on by itself.", func(s *Stream) bool { return s.State == Failed })
	truth("sink_retrying", "1: the last request to the sink failed and is repeated.", func(s *Stream) bool { return s.Sink.State == SinkRetrying })

	counter("batches_total", "Snapshots taken.", func(s *Stream) int64 { return s.BatchesTotal })
	counter("lines_total", "Lines processed.", func(s *Stream) int64 { return s.LinesTotal })
	counter("events_total", "Events found, delivered or filtered out.", func(s *Stream) int64 { return s.EventsTotal })
	counter("delivered_total", "Records acknowledged by the sink.", func(s *Stream) int64 { return s.DeliveredTotal })
	counter("malformed_total", "Lines and events that went to the dead letter.", func(s *Stream) int64 { return s.MalformedTotal })
	counter("oversize_total", "Lines over maxLineBytes, skipped.", func(s *Stream) int64 { return s.OversizeTotal })
	counter("late_total", "Lines read from a file after a newer one had begun.", func(s *Stream) int64 { return s.LateTotal })
	counter("pruned_unread_total", "Files that vanished before they were read to their end.", func(s *Stream) int64 { return s.PrunedUnreadTotal })
	counter("skipped_bytes_total", "Bytes known to have been there and never read.", func(s *Stream) int64 { return s.SkippedBytesTotal })
	counter("repeated_bytes_total", "Bytes read again because a file shrank.", func(s *Stream) int64 { return s.RepeatedBytesTotal })
	counter("block_gaps_total", "Block numbers missing between two lines.", func(s *Stream) int64 { return s.BlockGapsTotal })
	counter("block_repeats_total", "Lines whose block was seen before.", func(s *Stream) int64 { return s.BlockRepeatsTotal })
	counter("block_late_total", "Blocks older than the highest that filled a gap.", func(s *Stream) int64 { return s.BlockLateTotal })
	counter("read_bytes_total", "Bytes of whole lines read.", func(s *Stream) int64 { return s.ReadBytesTotal })
	counter("parsed_bytes_total", "Bytes of lines parsed and filtered.", func(s *Stream) int64 { return s.ParsedBytesTotal })
	counter("acked_bytes_total", "Bytes of lines whose records were acknowledged.", func(s *Stream) int64 { return s.AckedBytesTotal })
	counter("committed_bytes_total", "Bytes of lines behind the committed position.", func(s *Stream) int64 { return s.CommittedBytesTotal })
	counter("sink_retries_total", "Repeated requests to the sink.", func(s *Stream) int64 { return s.Sink.RetriesTotal })
	seconds("read_wait_seconds_total", "Time the processor waited for the reader while lines were on disk.", func(s *Stream) float64 { return s.ReadWaitSecondsTotal })
	seconds("sink_busy_seconds_total", "Time with a request to the sink outstanding.", func(s *Stream) float64 { return s.Sink.BusySecondsTotal })
	return c
}

func describe(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("hlparser_"+name, help, []string{"stream"}, nil)
}

func unixSeconds(t *time.Time) float64 {
	if t == nil {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.info
	for _, m := range c.metrics {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(c.info, prometheus.GaugeValue, 1, c.id.Version, c.id.Target)
	streams := c.source.Streams()
	for i := range streams {
		for _, m := range c.metrics {
			out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&streams[i]), streams[i].Name)
		}
	}
}
