package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// swap runs the buffer's own benchmark of the snapshot swap.
func swap(ctx context.Context) (string, error) {
	say("the swap")
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "Swap", "-benchmem", "./internal/parser/buffer")
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go test -bench Swap: %w: %s", err, text)
	}
	t := table{{"lines in the buffer", "blocks", "median ns", "p99.9 ns", "allocations", "p99.9 < 1 µs, none allocated"}}
	for line := range strings.Lines(string(text)) {
		// BenchmarkSwap/lines=1000-2  62845  1.5 blocks  40 p99.9-ns  0 B/op  0 allocs/op: a value before each unit.
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[0], "BenchmarkSwap/lines=") {
			continue
		}
		figures := map[string]string{}
		for i := 3; i < len(fields); i += 2 {
			figures[fields[i]] = fields[i-1]
		}
		lines, _, _ := strings.Cut(strings.TrimPrefix(fields[0], "BenchmarkSwap/lines="), "-")
		slowest, err := strconv.ParseFloat(figures["p99.9-ns"], 64)
		if err != nil {
			return "", fmt.Errorf("reading the benchmark's figures from %q: %w", line, err)
		}
		t.row(lines, figures["blocks"], figures["ns/op"], figures["p99.9-ns"], figures["allocs/op"],
			reached(slowest < 1000 && figures["allocs/op"] == "0"))
	}
	const intro = "### The swap\n\nReal blocks, beside a writer that appends as fast as it can (BenchmarkSwap in internal/parser/buffer).\n\n"
	return intro + t.String(), nil
}
