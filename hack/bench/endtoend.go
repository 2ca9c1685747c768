package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

// entrant is one row of the comparison.
type entrant struct {
	name   string
	data   dataset
	runs   int // slow entrants run less often
	run    func(ctx context.Context) (usage, error)
	best   usage // of the fastest run, but peak is the maximum of all runs
	absent string
}

func (e *entrant) mbs() float64 { return float64(e.data.Bytes) / 1e6 / e.best.wall.Seconds() }

// endToEnd lets all entrants read the same files in turns, so that a slow minute of the machine affects all of them.
func (b *bench) endToEnd(ctx context.Context) (string, error) {
	var sets []dataset
	for _, mode := range []gen.Mode{gen.Line, gen.ByBlock, gen.Streaming} {
		say("generating %d order statuses, %s", b.events, mode)
		source := gen.Source{Stream: gen.OrderStatuses, Mode: mode}
		set, err := generate(ctx, filepath.Join(b.dir, "data"), source, b.events, busy(mode))
		if err != nil {
			return "", err
		}
		sets = append(sets, set)
	}
	defer func() { _ = os.RemoveAll(filepath.Join(b.dir, "data")) }() // the whole directory is removed at the end anyway
	settle()

	line := sets[0]
	one := []string{"--coin", "BTC", "--format", "raw"}
	bare := &entrant{name: "bare loop", data: line, runs: b.runs, run: b.runBare(line)}
	lines := &entrant{name: "hlparser, one coin, Raw, line", data: line, runs: b.runs, run: b.runOnce(line, one...)}
	blocks := &entrant{name: "hlparser, one coin, Raw, by-block", data: sets[1], runs: b.runs,
		run: b.runOnce(sets[1], one...)}
	streaming := &entrant{name: "hlparser, one coin, Raw, streaming", data: sets[2], runs: b.runs,
		run: b.runOnce(sets[2], one...)}
	rsyslog := &entrant{
		name: "rsyslog, imfile, substring, omfile", data: line, runs: min(b.runs, 2), run: b.runRsyslog(line),
	}
	collector := &entrant{name: "OpenTelemetry Collector, filelog, json_parser, filter, file", data: line, runs: 1}
	collector.run, collector.absent = b.runCollector(ctx, line)
	if _, err := exec.LookPath("rsyslogd"); err != nil {
		rsyslog.absent = "rsyslogd is not installed"
	}
	entrants := []*entrant{
		{name: "wc -l", data: line, runs: b.runs, run: func(ctx context.Context) (usage, error) {
			return timed(exec.CommandContext(ctx, "wc", "-l", line.file()))
		}},
		bare, lines, streaming, blocks,
		{name: "hlparser, everything, Raw, line", data: line, runs: b.runs, run: b.runOnce(line, "--format", "raw")},
		{name: "hlparser, everything, Enveloped, line", data: line, runs: b.runs,
			run: b.runOnce(line, "--format", "enveloped")},
		{name: "hlparser, everything, Normalized, line", data: line, runs: b.runs,
			run: b.runOnce(line, "--format", "normalized")},
		rsyslog, collector,
	}
	if err := contest(ctx, entrants, b.runs); err != nil {
		return "", err
	}

	t := results.Table{{"end to end", speedColumn, "events/s", cpuColumn, peakColumn, "of the bare loop"}}
	var missing strings.Builder
	for _, e := range entrants {
		if e.absent != "" {
			fmt.Fprintf(&missing, "\nNot measured: %s: %s.\n", e.name, e.absent)
			continue
		}
		t.Row(e.name, fmt.Sprintf("%.0f", e.mbs()), fmt.Sprintf("%.2f M", float64(e.data.Events)/1e6/e.best.wall.Seconds()),
			seconds(e.best.cpu), e.best.peakText(), fmt.Sprintf("%.3f", e.mbs()/bare.mbs()))
	}
	goals := results.Table{{"goal", wantedColumn, "measured", reachedColumn}}
	goal := func(name string, wanted float64, e, than *entrant) {
		if e.absent == "" && than.absent == "" {
			ratio := e.mbs() / than.mbs()
			goals.Row(name, "≥ "+strconv.FormatFloat(wanted, 'f', -1, 64), fmt.Sprintf("%.2f", ratio),
				results.Reached(ratio >= wanted))
		}
	}
	goal("line mode / bare loop", 0.65, lines, bare)
	goal("line mode / rsyslog", 15, lines, rsyslog)
	goal("line mode / collector", 40, lines, collector)
	goal("by-block / line mode", 0.7, blocks, lines)
	goal("streaming / line mode", 0.7, streaming, lines)
	return fmt.Sprintf("### End to end\n\n"+
		"From %d order statuses on disk (%.0f MB in line mode), with a warm page cache, to a file, including the start of\n"+
		"the process and the final sync. The one coin is BTC, 23 %% of the events. The best of %d alternating runs; of %d\n"+
		"for rsyslog, and one run of the collector, both until the last record is in the file, without a sync.\n\n%s\n%s%s",
		b.events, float64(line.Bytes)/1e6, b.runs, rsyslog.runs, t.String(), goals.String(), missing.String()), nil
}

func contest(ctx context.Context, entrants []*entrant, rounds int) error {
	for round := range rounds {
		say("round %d of %d", round+1, rounds)
		for _, e := range entrants {
			if e.absent != "" || round >= e.runs {
				continue
			}
			u, err := e.run(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			before := e.best
			if before.wall == 0 || u.wall < before.wall {
				e.best = u
			}
			if before.peak > u.peak {
				e.best.peak, e.best.unsure = before.peak, before.unsure
			} else {
				e.best.peak, e.best.unsure = u.peak, u.unsure
			}
		}
	}
	return nil
}

// output returns an empty directory for a run's records.
func (b *bench) output() (string, error) {
	out := filepath.Join(b.dir, "out")
	if err := os.RemoveAll(out); err != nil {
		return "", fmt.Errorf("removing the last run's output: %w", err)
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		return "", fmt.Errorf("creating the output directory: %w", err)
	}
	return out, nil
}

// runOnce returns a function that runs hlparser from start to end.
func (b *bench) runOnce(data dataset, flags ...string) func(context.Context) (usage, error) {
	return b.runFlags(append(flags, data.flags()...))
}

// runFlags is runOnce with all flags that name the data.
func (b *bench) runFlags(flags []string) func(context.Context) (usage, error) {
	return func(ctx context.Context) (usage, error) {
		out, err := b.output()
		if err != nil {
			return usage{}, err
		}
		args := b.arguments(out, flags...)
		args = append(args, "--once", "--sink", "file:"+filepath.Join(out, "records"), "--min-free-percent", "0")
		return timed(exec.CommandContext(ctx, b.hlparser, args...))
	}
}

// arguments returns the arguments of hlparser that every run has, followed by more.
func (b *bench) arguments(out string, more ...string) []string {
	return append([]string{"run", "--id", "bench", "--state-dir", filepath.Join(out, "state")}, more...)
}

func (b *bench) runBare(data dataset) func(context.Context) (usage, error) {
	return func(ctx context.Context) (usage, error) {
		out, err := b.output()
		if err != nil {
			return usage{}, err
		}
		self, err := os.Executable()
		if err != nil {
			return usage{}, fmt.Errorf("finding this program: %w", err)
		}
		return timed(exec.CommandContext(ctx, self, bareCommand, data.file(), filepath.Join(out, "records")))
	}
}
