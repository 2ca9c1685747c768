package report

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// defaultMetrics are what a scrape gets unless it asks for all: at most 60 series for a parser of two streams. They
// suffice for the rules and the dashboards.
var defaultMetrics = map[string]bool{
	"hlparser_lag_seconds": true, "hlparser_uncommitted_bytes": true, "hlparser_buffer_bytes": true,
	"hlparser_read_bytes_total": true, "hlparser_parsed_bytes_total": true, "hlparser_acked_bytes_total": true,
	"hlparser_committed_bytes_total": true, "hlparser_lines_total": true, "hlparser_delivered_total": true,
	"hlparser_malformed_total": true, "hlparser_malformed_lines_total": true, "hlparser_pruned_unread_total": true,
	"hlparser_skipped_bytes_total": true, "hlparser_block_gaps_total": true, "hlparser_block_late_total": true,
	"hlparser_failed": true, "hlparser_blocked": true, "hlparser_waiting_for_data": true, "hlparser_sink_retrying": true,
	"hlparser_sink_outstanding_seconds": true, "hlparser_stream_info": true,

	"hlparser_acked_latency_seconds": true, "hlparser_committed_latency_seconds": true,
	"hlparser_sink_request_duration_seconds": true, "hlparser_batch_lines": true, "hlparser_fsync_duration_seconds": true,

	"hlparser_build_info": true, "hlparser_buffer_limit_bytes": true, "hlparser_memory_limit_bytes": true,
	"hlparser_go_memory_limit_bytes": true, "hlparser_cpu_limit_cores": true, "process_cpu_seconds_total": true,
	"process_resident_memory_bytes": true, "process_start_time_seconds": true,
}

// collector converts the report into metrics at each scrape, so that both have the same figures and there is no cost
// between scrapes.
type collector struct {
	id      Identity
	source  Source
	info    *prometheus.Desc
	stream  *prometheus.Desc
	buffers *prometheus.Desc
	limits  []limit
	metrics []metric
}

// limit is one limit of the process.
type limit struct {
	desc  *prometheus.Desc
	value func() (value float64, known bool)
}

// metric is one figure of a stream. An unknown figure has no sample.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Stream) (value float64, known bool)
}

func newCollector(id Identity, source Source) *collector {
	c := &collector{
		id: id, source: source,
		info: prometheus.NewDesc("hlparser_info",
			"Version of the parser, and the name of what it reads. Always 1.", []string{"version", "id"}, nil),
		stream: prometheus.NewDesc("hlparser_stream_info",
			"Mode of the stream (Line, Streaming or ByBlock; Auto until it is decided), and the name and kind of its sink. "+
				"The name is empty if all streams have one sink. Always 1.", []string{labelStream, "mode", "sink", "kind"}, nil),
		buffers: prometheus.NewDesc("hlparser_buffer_limit_bytes",
			"Limit of the buffers of all streams together.", nil, nil),
	}
	process := func(name, help string, value func() (float64, bool)) {
		c.limits = append(c.limits, limit{prometheus.NewDesc("hlparser_"+name, help, nil, nil), value})
	}
	known := func(kind prometheus.ValueType, name, help string, value func(*Stream) (float64, bool)) {
		c.metrics = append(c.metrics, metric{describe(name, help), kind, value})
	}
	gauge := func(name, help string, value func(*Stream) float64) {
		known(prometheus.GaugeValue, name, help, func(s *Stream) (float64, bool) { return value(s), true })
	}
	counter := func(name, help string, value func(*Stream) int64) {
		known(prometheus.CounterValue, name, help, func(s *Stream) (float64, bool) { return float64(value(s)), true })
	}
	// inModes is a counter of what is observed in some modes only.
	inModes := func(name, help string, value func(*Stream) int64, modes ...string) {
		known(prometheus.CounterValue, name, help, func(s *Stream) (float64, bool) {
			return float64(value(s)), slices.Contains(modes, s.Mode)
		})
	}
	seconds := func(name, help string, value func(*Stream) float64) {
		known(prometheus.CounterValue, name, help, func(s *Stream) (float64, bool) { return value(s), true })
	}
	optional := func(name, help string, value func(*Stream) *float64) {
		known(prometheus.GaugeValue, name, help, func(s *Stream) (float64, bool) { return deref(value(s)) })
	}
	moment := func(name, help string, value func(*Stream) *time.Time) {
		known(prometheus.GaugeValue, name, help, func(s *Stream) (float64, bool) { return unixSeconds(value(s)) })
	}
	truth := func(name, help string, value func(*Stream) bool) {
		gauge(name, help, func(s *Stream) float64 {
			if value(s) {
				return 1
			}
			return 0
		})
	}

	process("memory_limit_bytes", "Memory limit of the process's cgroup. Absent if it has none.", func() (float64, bool) {
		return float64(id.MemoryLimitBytes), id.MemoryLimitBytes > 0
	})
	process("go_memory_limit_bytes",
		"Memory that the Go runtime tries not to exceed (GOMEMLIMIT), nine tenths of the cgroup's limit unless it is set. "+
			"Absent if there is none.", goMemoryLimit)
	process("cpu_limit_cores", "Cores that the process may use: GOMAXPROCS or, if it is lower, the cgroup's quota.",
		func() (float64, bool) { return cpuLimit(), true })

	gauge("buffer_lines", "Lines in the live buffer.", func(s *Stream) float64 { return float64(s.BufferLines) })
	gauge("buffer_bytes", "Bytes of lines in the live buffer.", func(s *Stream) float64 { return float64(s.BufferBytes) })
	gauge("in_flight_lines", "Lines taken by the current batch and not yet acknowledged.",
		func(s *Stream) float64 { return float64(s.InFlightLines) })
	gauge("in_flight_bytes", "Bytes of lines taken by the current batch and not yet acknowledged.",
		func(s *Stream) float64 { return float64(s.InFlightBytes) })
	gauge("last_batch_lines", "Lines in the newest snapshot.",
		func(s *Stream) float64 { return float64(s.LastBatchLines) })
	known(prometheus.GaugeValue, "uncommitted_bytes",
		"Bytes of whole lines, on disk or in memory, that are not committed. Absent before the disk is first scanned, and "+
			"while the position is unknown.",
		func(s *Stream) (float64, bool) { return deref(s.UncommittedBytes) })
	optional("lag_seconds",
		"Age of the oldest unacknowledged line since any process of the parser first observed it on disk, or by its file's "+
			"times if none did; 0 if there is none. It survives restarts. Absent when hlparser_uncommitted_bytes is.",
		func(s *Stream) *float64 { return s.LagSeconds })
	truth("lag_estimated",
		"1: the arrival of the oldest unacknowledged line was not observed; its age is that of the file's last write.",
		func(s *Stream) bool { return s.LagEstimated })
	optional("malformed_share", "Share of the last minute's lines that are malformed or contain a malformed event. "+
		"Absent if there were no lines.",
		func(s *Stream) *float64 { return s.MalformedShare })
	optional("filtered_share", "Share of the last minute's events that the filter dropped. Absent if there were none.",
		func(s *Stream) *float64 { return s.FilteredShare })
	gauge("largest_line_bytes", "Length of the longest line.",
		func(s *Stream) float64 { return float64(s.LargestLineBytes) })
	known(prometheus.GaugeValue, "last_block", "Highest block number delivered or filtered. Absent before the first.",
		func(s *Stream) (float64, bool) { return float64(s.LastBlock), s.LastBlock != 0 })
	moment("last_line_timestamp_seconds", "When the last whole line was observed on disk. Absent before the first.",
		func(s *Stream) *time.Time { return s.LastLineAt })
	moment("last_commit_timestamp_seconds", "When the position was last committed. Absent before the first commit.",
		func(s *Stream) *time.Time { return s.LastCommitAt })
	gauge("sink_outstanding_seconds", "Age of the outstanding request to the sink, including an open.",
		func(s *Stream) float64 { return s.Sink.OutstandingSeconds })
	truth("waiting_for_data", "1: nothing to read has appeared yet.",
		func(s *Stream) bool { return s.State == WaitingForData })
	truth("blocked", "1: a file or folder that should be read cannot be read.",
		func(s *Stream) bool { return s.Blocked != nil })
	truth("failed", "1: the stream has failed and does not recover without intervention.",
		func(s *Stream) bool { return s.State == Failed })
	truth("sink_retrying", "1: the last request to the sink failed and is repeated.",
		func(s *Stream) bool { return s.Sink.State == SinkRetrying })

	counter("batches_total", "Snapshots taken.", func(s *Stream) int64 { return s.BatchesTotal })
	counter("lines_total", "Lines processed, including malformed lines and skipped repeats.",
		func(s *Stream) int64 { return s.LinesTotal })
	counter("events_total", "Events found, delivered or filtered; excludes malformed events.",
		func(s *Stream) int64 { return s.EventsTotal })
	counter("filtered_total", "Events that the filter dropped.", func(s *Stream) int64 { return s.FilteredTotal })
	counter("delivered_total", "Records acknowledged by the sink.", func(s *Stream) int64 { return s.DeliveredTotal })
	counter("malformed_total", "Blank lines, and lines, events and refused records that went to the dead letter.",
		func(s *Stream) int64 { return s.MalformedTotal })
	counter("malformed_lines_total", "Lines that are malformed or contain a malformed event.",
		func(s *Stream) int64 { return s.MalformedLinesTotal })
	counter("dead_letter_dropped_total", "Lines and records whose entries in the dead letter were dropped to make room.",
		func(s *Stream) int64 { return s.DeadLetterDroppedTotal })
	counter("oversize_total", "Lines longer than maxLineBytes, which are skipped; not in lines_total.",
		func(s *Stream) int64 { return s.OversizeTotal })
	counter("late_total", "Lines read from a file after a newer file had begun.",
		func(s *Stream) int64 { return s.LateTotal })
	counter("pruned_unread_total", "Files that disappeared before they were read to the end.",
		func(s *Stream) int64 { return s.PrunedUnreadTotal })
	counter("skipped_bytes_total", "Bytes of whole lines that were on disk and are never read.",
		func(s *Stream) int64 { return s.SkippedBytesTotal })
	counter("passed_over_bytes_total", "Bytes that the start skipped on purpose.",
		func(s *Stream) int64 { return s.PassedOverBytesTotal })
	counter("repeated_bytes_total", "Bytes read again because a file shrank.",
		func(s *Stream) int64 { return s.RepeatedBytesTotal })
	inModes("block_gaps_total",
		"Block numbers missing between two lines. Absent unless the mode is ByBlock, in which every block has a line.",
		func(s *Stream) int64 { return s.BlockGapsTotal }, modeByBlock)
	inModes("block_repeats_total",
		"Lines whose block was seen before. Absent in mode Line, whose lines do not name their block.",
		func(s *Stream) int64 { return s.BlockRepeatsTotal }, modeStreaming, modeByBlock)
	inModes("block_late_total",
		"Blocks older than the highest that filled a gap; counted with deduplicateBlocks or markers. Absent in mode Line.",
		func(s *Stream) int64 { return s.BlockLateTotal }, modeStreaming, modeByBlock)
	counter("read_bytes_total", "Bytes of whole lines read.", func(s *Stream) int64 { return s.ReadBytesTotal })
	counter("parsed_bytes_total", "Bytes of lines parsed and filtered.",
		func(s *Stream) int64 { return s.ParsedBytesTotal })
	counter("acked_bytes_total", "Bytes of lines whose records were acknowledged.",
		func(s *Stream) int64 { return s.AckedBytesTotal })
	counter("committed_bytes_total", "Bytes of lines before the committed position.",
		func(s *Stream) int64 { return s.CommittedBytesTotal })
	counter("sink_retries_total", "Retried requests to the sink.", func(s *Stream) int64 { return s.Sink.RetriesTotal })
	seconds("read_wait_seconds_total", "Time the processor waited for the reader while lines were on disk.",
		func(s *Stream) float64 { return s.ReadWaitSecondsTotal })
	seconds("sink_busy_seconds_total", "Time with a request to the sink outstanding.",
		func(s *Stream) float64 { return s.Sink.BusySecondsTotal })
	return c
}

// labelStream is the label with the name of a stream.
const labelStream = "stream"

// Modes of a stream, as in a report.
const (
	modeStreaming = "Streaming"
	modeByBlock   = "ByBlock"
)

func describe(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("hlparser_"+name, help, []string{labelStream}, nil)
}

// deref returns an optional figure.
func deref[N int64 | float64](p *N) (value float64, known bool) {
	if p == nil {
		return 0, false
	}
	return float64(*p), true
}

func unixSeconds(t *time.Time) (value float64, known bool) {
	if t == nil {
		return 0, false
	}
	return float64(t.UnixNano()) / 1e9, true
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.info
	out <- c.stream
	out <- c.buffers
	for _, l := range c.limits {
		out <- l.desc
	}
	for _, m := range c.metrics {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(c.info, 1, c.id.Version, c.id.Target)
	for _, l := range c.limits {
		if value, known := l.value(); known {
			gauge(l.desc, value)
		}
	}
	streams := c.source.Streams()
	for i := range streams {
		s := &streams[i]
		if i == 0 {
			gauge(c.buffers, float64(s.BufferLimitBytes))
		}
		gauge(c.stream, 1, s.Name, s.Mode, s.Sink.Destination, s.Sink.Kind)
		for _, m := range c.metrics {
			value, known := m.value(s)
			switch {
			case !known:
			case m.kind == prometheus.CounterValue && !c.id.StartedAt.IsZero():
				out <- prometheus.MustNewConstMetricWithCreatedTimestamp(m.desc, m.kind, value, c.id.StartedAt, s.Name)
			default:
				out <- prometheus.MustNewConstMetric(m.desc, m.kind, value, s.Name)
			}
		}
	}
}
