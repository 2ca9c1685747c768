package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

const (
	// Goals: NATS as a fraction of the bare client library, Kafka in records per second.
	natsShare  = 0.8
	kafkaSpeed = 1_000_000
	// Units in the output of the benchmarks.
	perSecond     = "records/s"
	barePerSecond = "bare-records/s"
)

// sinks measures the throughput of each sink, next to the bare client library doing the same.
func sinks(ctx context.Context) (string, error) {
	t := results.Table{{"sink", "records/s", "bare client's", "ratio", "wanted", "reached"}}
	row := func(name string, own, bare float64, wanted string, reached bool) {
		columns := []string{name, fmt.Sprintf("%.0f", own), "", "", wanted, ""}
		if bare > 0 {
			columns[2], columns[3] = fmt.Sprintf("%.0f", bare), fmt.Sprintf("%.2f", own/bare)
		}
		if wanted != "" {
			columns[5] = results.Reached(reached)
		}
		t.Row(columns...)
	}
	for _, kind := range []string{"stdout", "file"} {
		say("the sink %s", kind)
		all, err := goBenchmarks(ctx, "./internal/parser/sink/"+kind, "^BenchmarkConformance$")
		if err != nil {
			return "", err
		}
		for _, b := range all {
			name := kind + strings.ReplaceAll(strings.TrimPrefix(b.name, "Conformance"), "/", ", ")
			row(strings.ReplaceAll(name, "_", " "), b.median(perSecond), 0, "", false)
		}
	}
	say("the sink nats")
	all, err := goBenchmarks(ctx, "./internal/parser/sink/nats", "^BenchmarkSink$")
	if err != nil {
		return "", err
	}
	for _, b := range all {
		name := strings.NewReplacer("/", ", ", "_", " ").Replace(strings.TrimPrefix(b.name, "Sink/"))
		own, bare := b.median(perSecond), b.median(barePerSecond)
		row("nats, "+name, own, bare, fmt.Sprintf("ratio ≥ %.1f", natsShare), own >= natsShare*bare)
	}
	say("the sink kafka")
	if all, err = goBenchmarks(ctx, "./internal/parser/sink/kafka", "^BenchmarkSink$"); err != nil {
		return "", err
	}
	speeds := map[string]float64{}
	for _, b := range all {
		speeds[b.name] = b.median(perSecond)
	}
	for _, b := range all {
		mode, ok := strings.CutSuffix(b.name, "/sink")
		if !ok {
			continue
		}
		wanted := ""
		if strings.Contains(mode, "ExactlyOnce") {
			wanted = "≥ 1 M/s"
		}
		name := "kafka, " + strings.ReplaceAll(strings.TrimPrefix(mode, "Sink/"), "/", ", ")
		row(name, speeds[b.name], speeds[mode+"/bare"], wanted, speeds[b.name] >= kafkaSpeed)
	}
	return fmt.Sprintf("### Sinks\n\nfile and stdout (discarded): a million fills of about 400 bytes, including commits "+
		"(BenchmarkConformance).\n"+
		"nats: order statuses of 470 bytes into a server in the same process with file storage, alternating with the bare\n"+
		"client library in the same mode. kafka: records of 300 bytes, in transactions of 10,000 (ExactlyOnce) or without,\n"+
		"into a fake cluster in the same process that discards them (BenchmarkSink in each sink's folder). The median of\n"+
		"%d rounds.\n\n%s",
		rounds, t.String()), nil
}
