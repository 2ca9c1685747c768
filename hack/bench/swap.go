package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

// swap measures how long a swap blocks the processor and the reader.
func swap(ctx context.Context) (string, error) {
	say("the swap")
	all, err := goBenchmarks(ctx, "./internal/parser/buffer", "^BenchmarkSwap$")
	if err != nil {
		return "", err
	}
	t := results.Table{{
		"lines in the buffer", "blocks", "median ns", "p99.9 ns", "worst round's", "allocations",
		"p99.9 < 1 µs, none allocated",
	}}
	for _, b := range all {
		slow, allocated := b.median("p99.9-ns"), b.worst("allocs/op")
		t.Row(strings.TrimPrefix(b.name, "Swap/lines="), fmt.Sprint(b.median("blocks")), fmt.Sprint(b.median("ns/op")),
			fmt.Sprint(slow), fmt.Sprint(b.worst("p99.9-ns")), fmt.Sprint(allocated),
			results.Reached(slow < 1000 && allocated == 0))
	}
	return fmt.Sprintf("### The swap\n\nReal blocks, with a concurrent writer that appends as fast as possible "+
		"(BenchmarkSwap in\ninternal/parser/buffer). The median of %d rounds.\n\n%s", rounds, t.String()), nil
}

// normalized measures the Normalized output of all events of a stream, next to a bare parse of the same lines.
func normalized(ctx context.Context) (string, error) {
	const peer = "/fastjson-parse"
	say("Normalized output")
	all, err := goBenchmarks(ctx, "./internal/parser/hyperliquid", "^BenchmarkNormalized$")
	if err != nil {
		return "", err
	}
	speeds := map[string]float64{}
	for _, b := range all {
		speeds[b.name] = b.median(speedColumn)
	}
	t := results.Table{{"one core, every event", speedColumn, "fastjson's bare parse", "ratio", "≥ 0.55 and ≥ 500 MB/s"}}
	for _, b := range all {
		if parse := speeds[b.name+peer]; parse > 0 {
			own := speeds[b.name]
			t.Row(strings.TrimPrefix(b.name, "Normalized/"), fmt.Sprintf("%.0f", own), fmt.Sprintf("%.0f", parse),
				fmt.Sprintf("%.2f", own/parse), results.Reached(own >= 0.55*parse && own >= 500))
		}
	}
	return fmt.Sprintf("### Normalized output\n\nFrom lines in memory to records in memory, without a filter "+
		"(BenchmarkNormalized in\n"+
		"internal/parser/hyperliquid), compared with a parse of the same lines into a tree that is discarded. The median\n"+
		"of %d rounds.\n\n%s", rounds, t.String()), nil
}
