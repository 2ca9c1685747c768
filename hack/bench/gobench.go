package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// rounds is how often a Go benchmark is repeated, so that one slow moment of the machine does not decide.
const rounds = 5

// goBenchmark holds one benchmark's figures of each round, by unit: "ns/op", "MB/s".
type goBenchmark struct {
	name    string // without Benchmark and the number of processors
	figures map[string][]float64
}

// goBenchmarks runs the benchmarks of a package whose name matches, and returns them in order of output.
func goBenchmarks(ctx context.Context, pkg, pattern string) ([]goBenchmark, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchmem",
		"-count", strconv.Itoa(rounds), pkg)
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running go test -bench %s %s: %w: %s", pattern, pkg, err, text)
	}
	var all []goBenchmark
	for line := range strings.Lines(string(text)) {
		// BenchmarkSwap/lines=1000-2  62845  1.5 blocks  40 p99.9-ns  0 B/op  0 allocs/op: a value precedes each unit.
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i]
		}
		i := slices.IndexFunc(all, func(b goBenchmark) bool { return b.name == name })
		if i < 0 {
			i, all = len(all), append(all, goBenchmark{name: name, figures: map[string][]float64{}})
		}
		for f := 3; f < len(fields); f += 2 {
			v, err := strconv.ParseFloat(fields[f-1], 64)
			if err != nil {
				return nil, fmt.Errorf("reading a benchmark's figures from %q: %w", line, err)
			}
			all[i].figures[fields[f]] = append(all[i].figures[fields[f]], v)
		}
	}
	return all, nil
}

// median returns the median of the rounds, or 0 if there are none.
func (b goBenchmark) median(unit string) float64 {
	v := slices.Sorted(slices.Values(b.figures[unit]))
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}

// worst returns the maximum of the rounds.
func (b goBenchmark) worst(unit string) float64 {
	return slices.Max(append([]float64{0}, b.figures[unit]...))
}
