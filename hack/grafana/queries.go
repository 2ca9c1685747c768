package main

import "fmt"

// Selectors of the series of an object, and of one of its targets.
const (
	ofFleet  = `namespace="$namespace", name="$name"`
	ofTarget = ofFleet + `, target="$target"`
)

// Metrics that several panels ask for.
const (
	batchLinesMetric  = "hlparser_batch_lines"
	blockGapsMetric   = "hlparser_block_gaps_total"
	bufferedMetric    = "hlparser_buffer_bytes"
	cpuLimitMetric    = "hlparser_cpu_limit_cores"
	cpuSecondsMetric  = "process_cpu_seconds_total"
	lagMetric         = "hlparser_lag_seconds"
	memoryLimitMetric = "hlparser_memory_limit_bytes"
	requestsMetric    = "hlparser_sink_request_duration_seconds"
	residentMetric    = "process_resident_memory_bytes"
	skippedMetric     = "hlparser_skipped_bytes_total"
	targetBadMetric   = "hlparser_fleet_target_bad"
	targetsMetric     = "hlparser_fleet_targets"
	uncommittedMetric = "hlparser_uncommitted_bytes"
)

// Labels.
const (
	labelReason  = "reason"
	labelResult  = "result"
	labelState   = "state"
	labelStream  = "stream"
	labelVerdict = "verdict"
)

// Legends.
const (
	legendTarget  = "{{target}}"
	legendStream  = "{{stream}}"
	legendState   = "{{state}}"
	legendReason  = "{{reason}}"
	legendVerdict = "{{verdict}}"
	legendPod     = "{{pod}}"
	legendMedian  = "median"
	legendHighest = "highest"
)

// topSize bounds the series of a panel over time, tableSize the rows of a table.
const (
	topSize   = 10
	tableSize = 20
)

// isOperator keeps the series of the operator. Other programs export metrics of the same names.
const isOperator = ` and on (job, instance) hlparser_operator_build_info`

// sel selects a metric's series.
func sel(metric, of string) string { return metric + "{" + of + "}" }

// Aggregations over all series of a query, and for each value of a label.
func sumOf(series string) string        { return "sum(" + series + ")" }
func maxOf(series string) string        { return "max(" + series + ")" }
func sumBy(label, series string) string { return "sum by (" + label + ") (" + series + ")" }
func maxBy(label, series string) string { return "max by (" + label + ") (" + series + ")" }

// rate is the rate of a counter between two points of a graph, or longer if scrapes are further apart.
func rate(metric, of string) string { return "rate(" + sel(metric, of) + "[$__rate_interval])" }

// increase is how much a counter rises between two points.
func increase(metric, of string) string { return "increase(" + sel(metric, of) + "[$__rate_interval])" }

// top is the history of the ten targets that have the highest values at the end. A plain topk would choose others at
// each point, which adds up to any number of series. value returns the value of each target, for a modifier of its
// selectors.
func top(value func(modifier string) string) string {
	return fmt.Sprintf("%s and on (target) topk(%d, %s)", value(""), topSize, value(" @ end()"))
}

// worst returns the highest value of each target, of a gauge.
func worst(metric string) func(string) string {
	return func(modifier string) string { return "max by (target) (" + sel(metric, ofFleet) + modifier + ")" }
}

// quantiles returns queries for the distribution of a histogram's observations, and their mean. They read a native
// histogram or, if there is none, classic buckets. A parser's histogram that is scraped as text without classic buckets
// has its sum and count only: then the mean is all that is known.
func quantiles(metric, of string) []query {
	classic, native := rate(metric+"_bucket", of), rate(metric, of)
	at := func(q string) string {
		return fmt.Sprintf("histogram_quantile(%s, sum(%s)) or histogram_quantile(%s, sum by (le) (%s)) >= 0",
			q, native, q, classic)
	}
	return []query{
		{at("0.99"), "99 %"}, {at("0.5"), legendMedian},
		{fmt.Sprintf("histogram_avg(sum(%s)) or sum(%s) / sum(%s)", native, rate(metric+"_sum", of),
			rate(metric+"_count", of)), "mean"},
	}
}

// observedSeconds is how many seconds of observations there are in a second, by stream.
func observedSeconds(metric, of string) string {
	return fmt.Sprintf("histogram_sum(sum by (stream) (%s)) or sum by (stream) (%s)", rate(metric, of),
		rate(metric+"_sum", of))
}

// Steps of a subquery over 24 hours: the second where there is a series for each target and stream of a fleet. The
// value needs two steps in which there is one, so it can be absent in the first minutes.
const (
	fineStep   = "1m"
	coarseStep = "2m"
)

// inADay is by how much a counter of the targets rises within 24 hours. It goes on with a target's next pod.
func inADay(metric, of, step string) string {
	return fmt.Sprintf("sum(increase((max by (target, stream) (%s))[24h:%s]))", sel(metric, of), step)
}

// stages returns the bytes a second at each of the five stages that a line passes, from the node's file to a position
// that is on disk. What is written is what is committed, what is added to the backlog, and what is lost.
func stages(of string) []query {
	return []query{
		{fmt.Sprintf("clamp_min(sum(%s) + sum(deriv(%s[$__rate_interval])) + sum(%s), 0)",
			rate("hlparser_committed_bytes_total", of), sel(uncommittedMetric, of),
			rate(skippedMetric, of)), "1 written"},
		{sumOf(rate("hlparser_read_bytes_total", of)), "2 read"},
		{sumOf(rate("hlparser_parsed_bytes_total", of)), "3 processed"},
		{sumOf(rate("hlparser_acked_bytes_total", of)), "4 acknowledged"},
		{sumOf(rate("hlparser_committed_bytes_total", of)), "5 committed"},
	}
}
