package main

func targetDashboard() (document, error) {
	b := newDashboard("Hyperliquid parsers / Target", targetUID, "now-1h",
		"The parser of one target: at which stage lines wait, and for what.").
		WithVariable(variable("target", "Target", "label_values(hlparser_build_info{"+ofFleet+"}, target)")).
		Link(toDashboard("The fleet", fleetUID)).
		Annotation(annotation("New process", orange,
			"changes((max("+sel("process_start_time_seconds", ofTarget)+"))[2m:15s]) > 0", "A new process of the parser")).
		Annotation(annotation("New version", blue,
			"count(count by (version) (count_over_time("+sel("hlparser_build_info", ofTarget)+"[10m]))) > 1",
			"Another version of the parser"))
	targetNow(b)
	targetStages(b)
	targetWaits(b)
	targetMemory(b)
	targetRecords(b)
	targetTimes(b)
	return b.Build()
}

func targetNow(b *builder) {
	b.WithRow(row("Now"))
	b.WithPanel(figure("Scraped", unitCount, colored(red, threshold{1, green}), maxOf(sel("up", ofTarget)),
		"1: the parser answers Prometheus. No data: there is no pod. 0: "+
			runbook("NoMetrics", "hyperliquidparsernometrics")+"."))
	b.WithPanel(figure("Behind", unitSeconds, colored(green, threshold{30, yellow}, threshold{60, red}),
		maxOf(sel(lagMetric, ofTarget)),
		"Age of the oldest line that the sink has not acknowledged. No data: not known yet."))
	b.WithPanel(figure("Bytes behind", unitBytes, colored(blue), sumOf(sel(uncommittedMetric, ofTarget)),
		"Whole lines that are not committed. No data: the disk is not scanned, or the position is not known."))
	b.WithPanel(figure("Age of the process", unitSeconds, colored(yellow, threshold{300, green}),
		"time() - max("+sel("process_start_time_seconds", ofTarget)+")",
		"Totals count from its start. If it stays young: "+runbook("NotRunning", "notrunning")+"."))
	b.WithPanel(figure("Memory", unitPercent, colored(green, threshold{0.8, yellow}, threshold{0.95, red}),
		"max("+sel(residentMetric, ofTarget)+") / max("+sel(memoryLimitMetric, ofTarget)+")",
		"Share of the memory limit. No data: there is none. If it rises steadily: "+runbook("Leaking", "leaking")+"."))
	b.WithPanel(figure("CPU", unitPercent, colored(green, threshold{0.8, yellow}, threshold{0.95, red}),
		"sum("+rate(cpuSecondsMetric, ofTarget)+") / max("+sel(cpuLimitMetric, ofTarget)+")",
		"Share of the cores that the process may use. At 100 %: "+runbook("Overloaded", "overloaded")+"."))
	b.WithPanel(figure("Lost in 24 h", unitBytes, colored(green, threshold{1, red}),
		inADay(skippedMetric, ofTarget, fineStep),
		"Lines that were deleted before they were read: "+runbook("DataLost", "hyperliquidparserdatalost")+"."))
	b.WithPanel(figure("Blocks missing in 24 h", unitCount, colored(green, threshold{1, orange}),
		inADay(blockGapsMetric, ofTarget, fineStep),
		"Blocks that the node left out; some may have come later. No data: no stream is read by block. "+
			runbook("DataGap", "hyperliquidparserdatagap")+"."))
	b.WithPanel(flags("Bad verdicts", "bad", red,
		"What the operator judges; "+runbook("verdicts", "verdicts")+" says what to do. Empty: it is not bad, or no "+
			"operator reports.",
		query{"max by (verdict, reason) (" + sel(targetBadMetric, ofTarget) + ")", "{{verdict}} {{reason}}"}))
	b.WithPanel(flags("Streams that need attention", "yes", orange,
		"A stream that has failed needs a person: "+runbook("StreamFailed", "hyperliquidparserstreamfailed")+
			". The others go on by themselves when the cause is gone.",
		query{maxBy(labelStream, sel("hlparser_failed", ofTarget)), "{{stream}} failed"},
		query{maxBy(labelStream, sel("hlparser_blocked", ofTarget)), "{{stream}} cannot read"},
		query{maxBy(labelStream, sel("hlparser_sink_retrying", ofTarget)), "{{stream}} sink retries"},
		query{maxBy(labelStream, sel("hlparser_waiting_for_data", ofTarget)), "{{stream}} waits for data"}))
}

func targetStages(b *builder) {
	b.WithRow(row("The five stages"))
	b.WithPanel(lines("Written → read → processed → acknowledged → committed", unitRate,
		"Bytes of lines at each stage. The first line that stays below the one before it is the stage that holds up: read "+
			"is the node's disk or a full buffer, processed the CPU, acknowledged the sink, committed the disk of the state.",
		stages(ofTarget)...).Height(10).Span(14))
	total := func(stage string) string { return sumOf(sel("hlparser_"+stage+"_bytes_total", ofTarget)) }
	buffered := sumOf(sel(bufferedMetric, ofTarget))
	b.WithPanel(stacked(lines("Where bytes wait", unitBytes,
		"Together they are what is not committed. On disk: reading holds up, or the buffer is full. In a batch: the CPU or "+
			"the sink. For a commit: the disk of the state.",
		query{"clamp_min(sum(" + sel(uncommittedMetric, ofTarget) + ") - (" + total("read") + " - " +
			total("committed") + "), 0)", "on disk"},
		query{buffered, "in the buffer"},
		query{"clamp_min(" + total("read") + " - " + total("acked") + " - " + buffered + ", 0)", "in a batch"},
		query{"clamp_min(" + total("acked") + " - " + total("committed") + ", 0)", "for a commit"})).
		Height(10).Span(10))
	late := colored("transparent", threshold{60, red})
	b.WithPanel(limited(lines("Behind, by stream", unitSeconds,
		"Age of the oldest line that is not acknowledged. Above a minute: "+runbook("Lag", "hyperliquidparserlag")+".",
		query{maxBy(labelStream, sel(lagMetric, ofTarget)), legendStream}), late))
	b.WithPanel(lines("Bytes behind, by stream", unitBytes,
		"Whole lines that are not committed. A slope that stays is a parser that does not keep up.",
		query{sumBy(labelStream, sel(uncommittedMetric, ofTarget)), legendStream}))
}

func targetWaits(b *builder) {
	b.WithRow(row("What it waits for"))
	b.WithPanel(lines("Sink, disk and CPU, share of time", unitPercent,
		"The one near 100 % is what holds up. Requests to the sink may overlap: then they add up to more. CPU is a share of "+
			"the limit. "+runbook("Overloaded", "overloaded")+" has what to change.",
		query{observedSeconds(requestsMetric, ofTarget), "sink {{stream}}"},
		query{observedSeconds("hlparser_fsync_duration_seconds", ofTarget), "syncs {{stream}}"},
		query{"sum(" + rate(cpuSecondsMetric, ofTarget) + ") / max(" +
			sel(cpuLimitMetric, ofTarget) + ")", "CPU"}))
	b.WithPanel(limited(lines("Outstanding request to the sink", unitSeconds,
		"Age of the request that the sink has not answered, by stream. Above 30 s: "+runbook("SinkDown", "sinkdown")+".",
		query{maxBy(labelStream, sel("hlparser_sink_outstanding_seconds", ofTarget)), legendStream}),
		colored("transparent", threshold{30, red})))
	b.WithPanel(lines("Processor and sink, share of time", unitPercent,
		"Time that the processor waits for the reader while lines are on disk, and time with a request to the sink "+
			"outstanding. Reading near 100 %: engine.readRate, or the node's disk."+onRequest,
		query{sumBy(labelStream, rate("hlparser_read_wait_seconds_total", ofTarget)), "reading {{stream}}"},
		query{sumBy(labelStream, rate("hlparser_sink_busy_seconds_total", ofTarget)), "sink {{stream}}"}))
	b.WithPanel(lines("Retried requests to the sink", unitPerSec,
		"The parser's log has the sink's error."+onRequest,
		query{sumBy(labelStream, rate("hlparser_sink_retries_total", ofTarget)), legendStream}))
}

func targetMemory(b *builder) {
	b.WithRow(row("Buffers, batches and memory"))
	b.WithPanel(lines("Buffers against their limit", unitBytes,
		"A full buffer is normal while the sink is slow: reading waits. Above the limit it is a fault: "+
			runbook("Growing", "growing")+".",
		query{sumBy(labelStream, sel(bufferedMetric, ofTarget)), legendStream},
		query{maxOf(sel("hlparser_buffer_limit_bytes", ofTarget)), "limit of all"}))
	b.WithPanel(lines("Memory against its limit", unitBytes,
		"At the runtime's limit the garbage collector works harder; at the limit the kernel kills the process. "+
			runbook("Leaking", "leaking")+".",
		query{maxOf(sel(residentMetric, ofTarget)), "resident"},
		query{maxOf(sel("hlparser_go_memory_limit_bytes", ofTarget)), "limit of the Go runtime"},
		query{maxOf(sel(memoryLimitMetric, ofTarget)), "limit"}))
	b.WithPanel(lines("Batches", unitPerSec, "Batches a second, by stream. None while lines wait: the sink holds one.",
		query{"histogram_count(sum by (stream) (" + rate(batchLinesMetric, ofTarget) + ")) or sum by (stream) (" +
			rate("hlparser_batch_lines_count", ofTarget) + ")", legendStream}))
	b.WithPanel(lines("Lines of a batch", unitCount,
		"Batches that grow and stay large are those of a sink that does not keep up.",
		quantiles(batchLinesMetric, ofTarget)...))
}

func targetRecords(b *builder) {
	b.WithRow(row("Records and blocks"))
	b.WithPanel(lines("Records acknowledged, by stream", unitPerSec,
		"Zero while bytes are written: the filter drops all, or the sink takes nothing.",
		query{sumBy(labelStream, rate("hlparser_delivered_total", ofTarget)), legendStream}))
	b.WithPanel(lines("Lines and dead letters, by stream", unitPerSec,
		"Dead letters are blank and malformed lines, and records that the sink refuses: "+
			runbook("DeadLetters", "hyperliquidparserdeadletters")+".",
		query{sumBy(labelStream, rate("hlparser_lines_total", ofTarget)), "lines {{stream}}"},
		query{sumBy(labelStream, rate("hlparser_malformed_total", ofTarget)), "dead letters {{stream}}"}))
	b.WithPanel(bars("Blocks missing, blocks late, files deleted unread", unitCount,
		"From one point to the next. Missing ones may come late. Blocks: mode ByBlock only. "+
			runbook("DataGap", "hyperliquidparserdatagap")+", "+runbook("DataLost", "hyperliquidparserdatalost")+".",
		query{sumBy(labelStream, increase(blockGapsMetric, ofTarget)), "missing {{stream}}"},
		query{sumBy(labelStream, increase("hlparser_block_late_total", ofTarget)), "late {{stream}}"},
		query{sumBy(labelStream, increase("hlparser_pruned_unread_total", ofTarget)), "files {{stream}}"}))
	b.WithPanel(lines("Blocks and repeated lines", unitPerSec,
		"How fast the node's chain moves, and lines whose block was seen before, as after a restart of the node."+onRequest,
		query{"max by (stream) (deriv(" + sel("hlparser_last_block", ofTarget) + "[$__rate_interval]))", "blocks {{stream}}"},
		query{sumBy(labelStream, rate("hlparser_block_repeats_total", ofTarget)), "repeated {{stream}}"}))
}

func targetTimes(b *builder) {
	b.WithRow(row("How long it takes"))
	for _, h := range []struct{ title, metric, description string }{
		{"From the line on disk to its acknowledgement", "hlparser_acked_latency_seconds",
			"Once per batch, of its oldest line. What a consumer waits for."},
		{"From the line on disk to its commit", "hlparser_committed_latency_seconds",
			"Once per commit, of its oldest line. What a crash would repeat where the sink is not exactly once."},
		{"Request to the sink", requestsMetric,
			"Each write and confirmation. It rises: the sink, or the way to it."},
		{"Sync of files", "hlparser_fsync_duration_seconds",
			"Syncs of the file sink's files and of checkpoints. It rises: the disk, or what else writes to it."},
	} {
		b.WithPanel(lines(h.title, unitSeconds, h.description+" Without native histograms or classic buckets only the mean "+
			"is known.", quantiles(h.metric, ofTarget)...))
	}
}
