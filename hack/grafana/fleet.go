package main

import "fmt"

// notBad matches the verdicts that are not bad.
const notBad = "CatchingUp|Healthy|Unknown"

func fleetDashboard() (document, error) {
	b := newDashboard("Hyperliquid parsers / Fleet", fleetUID, "now-3h",
		"One HyperliquidParser: is it well, which targets are not, and what they wait for.").
		Link(toDashboard("One target", targetUID)).
		Annotation(annotation("Restarts", orange,
			"increase((max("+sel("hlparser_fleet_restarts_total", ofFleet)+"))[2m:15s]) > 0",
			"The operator restarted a parser")).
		Annotation(annotation("Rollout", blue, desiredLess("updated")+" > 0",
			"Some targets have no pod of the spec's revision"))
	fleetNow(b)
	fleetJudged(b)
	fleetBehind(b)
	fleetTraffic(b)
	fleetMemory(b)
	fleetSinks(b)
	operator(b)
	return b.Build()
}

// desiredLess is the number of targets that are not in a state.
func desiredLess(state string) string {
	return fmt.Sprintf("max(%s) - max(%s)", sel(targetsMetric, ofFleet+`, state="desired"`),
		sel(targetsMetric, ofFleet+`, state="`+state+`"`))
}

func fleetNow(b *builder) {
	b.WithRow(row("Is it well?"))
	b.WithPanel(figure("Targets", unitCount, colored(blue),
		maxOf(sel(targetsMetric, ofFleet+`, state="desired"`)),
		"Targets that the object selects. No data: no operator reports on the object; see "+
			runbook("OperatorDown", "hyperliquidparseroperatordown")+"."))
	b.WithPanel(figure("Not ready", unitCount, colored(green, threshold{1, yellow}, threshold{3, red}),
		desiredLess("ready"),
		"Targets without a ready pod, whether their node takes one now or not. The condition Ready of the object says "+
			"which: "+runbook("NotReady", "hyperliquidparsernotready")+"."))
	b.WithPanel(figure("Bad", unitCount, colored(green, threshold{1, orange}, threshold{3, red}),
		"sum(max by (verdict) ("+sel("hlparser_fleet_verdicts", ofFleet+`, verdict!~"`+notBad+`"`)+"))",
		"Targets with a bad verdict. The table below has the first of them; "+runbook("verdicts", "verdicts")+
			" says what to do."))
	b.WithPanel(figure("Worst behind", unitSeconds, colored(green, threshold{30, yellow}, threshold{60, red}),
		maxOf(sel("hlparser_fleet_worst_lag_seconds", ofFleet)),
		"Age of the oldest line that no sink has acknowledged, at all parsers that answer the operator. "+
			runbook("Lag", "hyperliquidparserlag")+" says what to check."))
	b.WithPanel(figure("Bytes behind", unitBytes, colored(blue), maxOf(sel("hlparser_fleet_uncommitted_bytes", ofFleet)),
		"Whole lines that are not committed, at all parsers that answer. Nothing is lost while the nodes keep their files."))
	b.WithPanel(figure("Lost in 24 h", unitBytes, colored(green, threshold{1, red}),
		inADay(skippedMetric, ofFleet, coarseStep),
		"Bytes of lines that were deleted before they were read. Stop what deletes them: "+
			runbook("DataLost", "hyperliquidparserdatalost")+"."))
	b.WithPanel(figure("Unacknowledged", unitCount, colored(green, threshold{1, orange}),
		`count(max by (target) (`+sel("hlparser_fleet_target_alert", ofFleet+`, alert=~"DataLost|DataGap"`)+`)) or 0 * max(`+
			sel(targetsMetric, ofFleet+`, state="desired"`)+`)`,
		"Targets with a loss or a gap that nobody has acknowledged: "+
			runbook("LossUnacknowledged", "hyperliquidparserlossunacknowledged")+"."))
	b.WithPanel(figure("Restarts in 24 h", unitCount, colored(green, threshold{1, yellow}, threshold{10, red}),
		"increase((max("+sel("hlparser_fleet_restarts_total", ofFleet)+"))[24h:"+fineStep+"])",
		"Restarts by the operator. More than three an hour alert: "+runbook("Restarts", "hyperliquidparserrestarts")+"."))

	b.WithPanel(rows("Bad targets: the 20 that have been bad longest",
		"Empty: no target is bad, or no operator reports. A target leads to its own dashboard, a verdict to the runbook.",
		fmt.Sprintf("topk(%d, (time() - max by (target) (%s)) * on (target) group_right () "+
			"max by (target, verdict, reason) (%s))", tableSize,
			sel("hlparser_fleet_target_bad_since_timestamp_seconds", ofFleet),
			sel(targetBadMetric, ofFleet)),
		column{field: fieldTarget, title: "Target", links: toTarget("${__value.text}")},
		column{field: "verdict", title: "Verdict", links: toRunbook("verdicts")},
		column{field: "reason", title: "Reason"},
		column{field: fieldValue, title: "Bad for", unit: unitSeconds}).Span(14))
	b.WithPanel(rows("Raised alerts of targets: 20 at most",
		"DataLost and DataGap stay until they are acknowledged. Empty: none is raised, or no operator reports.",
		fmt.Sprintf("topk(%d, max by (target, alert) (%s))", tableSize, sel("hlparser_fleet_target_alert", ofFleet)),
		column{field: fieldTarget, title: "Target", links: toTarget("${__value.text}")},
		column{field: "alert", title: "Alert", links: toRunbook("alerts")},
		column{field: fieldValue}).Span(10))
}

func fleetJudged(b *builder) {
	b.WithRow(row("What the operator judges"))
	b.WithPanel(stacked(lines("Verdicts over time, without Healthy", unitCount,
		"Targets by verdict. Many that turn bad at once have a common cause: first of all the sink. "+
			runbook("Verdicts", "verdicts")+".",
		query{maxBy(labelVerdict, sel("hlparser_fleet_verdicts", ofFleet+`, verdict!="Healthy"`)), legendVerdict})))
	b.WithPanel(lines("Targets by state", unitCount,
		"desired: all. current: with a pod. ready: with a ready pod. updated: with a pod of the spec's revision. waiting: "+
			"the node takes no pod now.",
		query{maxBy(labelState, sel(targetsMetric, ofFleet)), legendState}))
	b.WithPanel(flags("State of the object", "yes", orange,
		"FleetWide and RestartIneffective stop restarts; Stalled and CanaryFailed wait for a person: "+
			runbook("Stalled", "hyperliquidparserstalled")+".",
		query{maxBy(labelState, sel("hlparser_fleet_state", ofFleet)), legendState}))
	b.WithPanel(stacked(lines("Restarts that are held, by reason", unitCount,
		"Targets that need a restart and do not get one. Budget, Cooldown and MaxPerHour are bounds of growth.restart.",
		query{maxBy(labelReason, sel("hlparser_fleet_restarts_held", ofFleet)), legendReason})).Height(7))
}

func fleetBehind(b *builder) {
	lag, bytes := worst(lagMetric), worst(uncommittedMetric)
	late := colored("transparent", threshold{60, red})
	b.WithRow(row("How far behind"))
	b.WithPanel(limited(targetLines("Behind: the ten worst now", unitSeconds,
		"Age of the oldest line that is not acknowledged, of the ten targets that are furthest behind at the end of the "+
			"range. Above a minute: "+runbook("Lag", "hyperliquidparserlag")+".", top(lag)), late))
	b.WithPanel(limited(lines("Behind: quantiles of the fleet", unitSeconds,
		"One target or all of them? A median that rises is the sink, the network or the last rollout.",
		query{maxOf(sel(lagMetric, ofFleet)), legendHighest},
		query{"quantile(0.99, " + lag("") + ")", "99 % of targets"},
		query{"quantile(0.95, " + lag("") + ")", "95 % of targets"},
		query{"quantile(0.5, " + lag("") + ")", legendMedian}), late))
	b.WithPanel(targetLines("Bytes behind: the ten worst now", unitBytes,
		"Whole lines that are not committed. A slope that stays is a parser that does not keep up; open the target.",
		top(bytes)))
	b.WithPanel(stacked(lines("Bytes behind by stream", unitBytes,
		"Whole lines that are not committed, at all parsers that are scraped.",
		query{sumBy(labelStream, sel(uncommittedMetric, ofFleet)), legendStream})))
}

func fleetTraffic(b *builder) {
	b.WithRow(row("Traffic, losses and gaps"))
	b.WithPanel(lines("Written, read, processed, acknowledged, committed", unitRate,
		"The five stages of all parsers. The first line that stays below the one before it is the stage that holds up.",
		stages(ofFleet)...))
	b.WithPanel(lines("Records acknowledged, by stream", unitPerSec,
		"Zero while bytes are written: the filter drops all, or the sink takes nothing.",
		query{sumBy(labelStream, rate("hlparser_delivered_total", ofFleet)), legendStream}))
	b.WithPanel(bars("Lost bytes", unitBytes,
		"Lines that were on disk and are never read, from one point to the next. "+
			runbook("DataLost", "hyperliquidparserdatalost")+".",
		query{sumBy(labelStream, increase(skippedMetric, ofFleet)), legendStream}))
	b.WithPanel(bars("Blocks missing, blocks late, files deleted unread", unitCount,
		"From one point to the next. Blocks that the node left out, and those that came later: "+
			runbook("DataGap", "hyperliquidparserdatagap")+".",
		query{sumBy(labelStream, increase(blockGapsMetric, ofFleet)), "missing {{stream}}"},
		query{sumBy(labelStream, increase("hlparser_block_late_total", ofFleet)), "late {{stream}}"},
		query{sumBy(labelStream, increase("hlparser_pruned_unread_total", ofFleet)), "files {{stream}}"}))
	b.WithPanel(lines("Malformed lines, share by stream", unitPercent,
		"Above a tenth the nodes may write another format: "+runbook("FormatDrift", "hyperliquidparserformatdrift")+".",
		query{sumBy(labelStream, rate("hlparser_malformed_lines_total", ofFleet)) + " / " +
			sumBy(labelStream, rate("hlparser_lines_total", ofFleet)), legendStream}))
	b.WithPanel(lines("Dead letters, by stream", unitPerSec,
		"Blank and malformed lines, and records that the sink refuses: "+
			runbook("DeadLetters", "hyperliquidparserdeadletters")+".",
		query{sumBy(labelStream, rate("hlparser_malformed_total", ofFleet)), legendStream}))
}

func fleetMemory(b *builder) {
	full := colored("transparent", threshold{1, red})
	share := func(metric, limit string) func(string) string {
		return func(modifier string) string {
			return "sum by (target) (" + sel(metric, ofFleet) + modifier + ") / max by (target) (" + sel(limit, ofFleet) +
				modifier + ")"
		}
	}
	cpu := func(modifier string) string {
		return "sum by (target) (rate(" + sel(cpuSecondsMetric, ofFleet) + "[$__rate_interval]" + modifier +
			")) / max by (target) (" + sel(cpuLimitMetric, ofFleet) + modifier + ")"
	}
	b.WithRow(row("Buffers, batches, memory and CPU"))
	b.WithPanel(limited(targetLines("Buffers, share of their limit: the ten fullest now", unitPercent,
		"A full buffer is normal while the sink is slow: reading waits. Above 100 % it is a fault: "+
			runbook("Growing", "growing")+".", top(share(bufferedMetric, "hlparser_buffer_limit_bytes"))), full))
	b.WithPanel(lines("Lines of a batch", unitCount,
		"Batches that grow and stay large are those of a sink that does not keep up.",
		quantiles(batchLinesMetric, ofFleet)...))
	b.WithPanel(limited(targetLines("Memory, share of the limit: the ten highest now", unitPercent,
		"No data: the parsers have no limit. One that rises steadily is "+runbook("Leaking", "leaking")+".",
		top(share(residentMetric, memoryLimitMetric))), full))
	b.WithPanel(limited(targetLines("CPU, share of the limit: the ten highest now", unitPercent,
		"At 100 % the limit holds the parser up: "+runbook("Overloaded", "overloaded")+".", top(cpu)), full))
}

func fleetSinks(b *builder) {
	b.WithRow(row("Sinks"))
	b.WithPanel(limited(targetLines("Outstanding request: the ten longest now", unitSeconds,
		"Age of the request that the sink has not answered. Above 30 s: "+runbook("SinkDown", "sinkdown")+".",
		top(worst("hlparser_sink_outstanding_seconds"))), colored("transparent", threshold{30, red})))
	b.WithPanel(lines("Streams that need attention", unitCount,
		"Streams that repeat a request, have failed, cannot read a file, or wait for a first line. Failed ones need a "+
			"person: "+runbook("StreamFailed", "hyperliquidparserstreamfailed")+".",
		query{sumOf(sel("hlparser_sink_retrying", ofFleet)), "sink retries"},
		query{sumOf(sel("hlparser_failed", ofFleet)), "failed"},
		query{sumOf(sel("hlparser_blocked", ofFleet)), "cannot read"},
		query{sumOf(sel("hlparser_waiting_for_data", ofFleet)), "wait for data"}))
	b.WithPanel(lines("Duration of a request to the sink", unitSeconds,
		"Of all parsers. One parser that differs has another network, DNS or disk.",
		quantiles(requestsMetric, ofFleet)...))
	b.WithPanel(lines("From the line on disk to its acknowledgement", unitSeconds,
		"Once per batch, of its oldest line.", quantiles("hlparser_acked_latency_seconds", ofFleet)...))
}

func operator(b *builder) {
	const ours = `controller="hyperliquidparser"`
	b.WithRow(row("The operator"))
	b.WithPanel(flags("Leader", "leads", green,
		"No pod leads, or no data: "+runbook("OperatorDown", "hyperliquidparseroperatordown")+".",
		query{"max by (pod) (leader_election_master_status" + isOperator + ")", legendPod}))
	b.WithPanel(flags("Watches that fail", "fails", red,
		"The operator does not see changes of the kind: "+runbook("OperatorBlind", "hyperliquidparseroperatorblind")+".",
		query{"max by (kind) (hlparser_fleet_watch_failing)", "{{kind}}"}))
	b.WithPanel(lines("Reconciles by result", unitPerSec,
		"Of all objects. Errors: "+runbook("ReconcileErrors", "hyperliquidparserreconcileerrors")+".",
		query{sumBy(labelResult, rate("controller_runtime_reconcile_total", ours)), "{{result}}"}))
	b.WithPanel(lines("Duration of a reconcile", unitSeconds, "Of all objects. What takes long is the API server.",
		quantiles("controller_runtime_reconcile_time_seconds", ours)...))
	b.WithPanel(lines("Polls that fail, by reason", unitPerSec,
		"Timeout and Connection are the network or a parser that hangs; NoKey, Unauthorized and Seal are keys: "+
			runbook("PollsFailing", "hyperliquidparserpollsfailing")+".",
		query{sumBy(labelReason, rate("hlparser_fleet_poll_failures_total", ofFleet)), legendReason}))
	b.WithPanel(lines("Duration of a poll that brings a report", unitSeconds,
		"Of all objects. It rises with the operator's load or the network's.",
		quantiles("hlparser_fleet_poll_duration_seconds", `result="report"`)...))
	b.WithPanel(lines("Writes to the API server", unitPerSec,
		"By method and answer. A quiet fleet has few; 409 is a conflict that is retried, 403 a role that is too old.",
		query{`sum by (method, code) (rate(rest_client_requests_total{method!="GET"}[$__rate_interval])` + isOperator + ")",
			"{{method}} {{code}}"}))
	b.WithPanel(lines("Objects that wait for a reconcile", unitCount,
		"A queue that does not empty: the operator lacks CPU.",
		query{"max by (pod) (hlparser_fleet_queue_depth)", legendPod}))
	b.WithPanel(lines("Memory of the operator", unitBytes, "5,000 parsers need about 250 MiB.",
		query{"max by (pod) (process_resident_memory_bytes" + isOperator + ")", legendPod}))
	b.WithPanel(lines("CPU of the operator", unitCount, "Cores.",
		query{"max by (pod) (rate(process_cpu_seconds_total[$__rate_interval])" + isOperator + ")", legendPod}))
}
