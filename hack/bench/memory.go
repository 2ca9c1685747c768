package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

// memoryGoal bounds the resident memory of the process, for lines up to 1 MiB, in bytes.
const memoryGoal = 128 << 20

// deadSink fills every buffer and measures the memory.
func (b *bench) deadSink(ctx context.Context) (string, error) {
	const outage = 15 * time.Second
	dir := filepath.Join(b.dir, "data")
	defer func() { _ = os.RemoveAll(dir) }() // the whole directory is removed at the end anyway
	say("generating eight streams")
	source := gen.Source{Stream: gen.OrderStatuses, Mode: gen.ByBlock}
	orders, err := generate(ctx, dir, source, b.events, busy(gen.ByBlock))
	if err != nil {
		return "", err
	}
	flags, err := allStreams(ctx, orders, b.events/4)
	if err != nil {
		return "", err
	}
	settle()
	out, err := b.output()
	if err != nil {
		return "", err
	}
	unread, pipe, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("creating the unread pipe: %w", err)
	}
	defer func() { _ = unread.Close() }()
	defer func() { _ = pipe.Close() }()
	say("a sink that is dead for %s", outage)
	flags = append(flags, "--start-at", "beginning", "--sink", "stdout", "--shutdown-timeout", "5s")
	cmd := exec.CommandContext(ctx, b.hlparser, b.arguments(out, flags...)...)
	cmd.Stdout = pipe
	began := time.Now()
	p, err := start(cmd)
	if err != nil {
		return "", err
	}
	if err := p.pause(ctx, outage); err != nil {
		return "", err
	}
	asked := time.Now()
	u, err := p.stop(began, asked)
	if err != nil {
		return "", err
	}
	t := results.Table{{"eight streams, standard output is never read", peakColumn, wantedColumn, reachedColumn}}
	t.Row("32 MiB of buffers, blocks and lines, Enveloped", u.peakText(), "< 128", results.Reached(u.peak < memoryGoal))
	return fmt.Sprintf("### Memory with a dead sink\n\n"+
		"For %s, with a backlog of %d order statuses by block (%.0f MB, lines of up to 0.7 MB) and %d\n"+
		"events of each other stream. The process ended %s after SIGTERM.\n\n%s",
		outage, orders.Events, float64(orders.Bytes)/1e6, b.events/4, time.Since(asked).Round(10*time.Millisecond),
		t.String()), nil
}

// backlog drains the backlog that a parser finds after it was down for hours.
func (b *bench) backlog(ctx context.Context, lines int64) (string, error) {
	const lineBytes, others, hours = 478, 250_000, 4
	dir := filepath.Join(b.dir, "data")
	var disk unix.Statfs_t
	if err := unix.Statfs(b.dir, &disk); err != nil {
		return "", fmt.Errorf("reading the free space: %w", err)
	}
	// The records of one coin are a quarter of the lines. The other streams take less than 1 GB with their records.
	if need, room := lines*lineBytes*5/4+1<<30, int64(disk.Bavail)*disk.Bsize; room < need {
		return "", fmt.Errorf("%s has %d MB of free space, but %d MB are needed: set another directory with --dir",
			b.dir, room>>20, need>>20)
	}
	say("generating %d lines", lines)
	source := gen.Source{Stream: gen.OrderStatuses, Mode: gen.Line}
	orders, err := generate(ctx, dir, source, lines, hours*time.Hour/time.Duration(lines))
	if err != nil {
		return "", err
	}
	flags, err := allStreams(ctx, orders, others)
	if err != nil {
		return "", err
	}
	settle()
	out, err := b.output()
	if err != nil {
		return "", err
	}
	say("draining %.1f GB", float64(orders.Bytes)/1e9)
	flags = append(flags, "--once", "--coin", "BTC", "--sink", "file:"+filepath.Join(out, "records"),
		"--min-free-percent", "0")
	u, err := timed(exec.CommandContext(ctx, b.hlparser, b.arguments(out, flags...)...))
	if err != nil {
		return "", err
	}
	t := results.Table{{"backlog of order statuses", "GB", "seconds", speedColumn, "lines/s", cpuColumn, peakColumn,
		"< 128 MiB"}}
	t.Row(fmt.Sprintf("%.1f M lines in %d files", float64(orders.Lines)/1e6, orders.Files),
		fmt.Sprintf("%.1f", float64(orders.Bytes)/1e9), fmt.Sprintf("%.0f", u.wall.Seconds()),
		fmt.Sprintf("%.0f", float64(orders.Bytes)/1e6/u.wall.Seconds()),
		fmt.Sprintf("%.2f M", float64(orders.Lines)/1e6/u.wall.Seconds()), seconds(u.cpu), u.peakText(),
		results.Reached(u.peak < memoryGoal))
	return fmt.Sprintf("One coin, Enveloped, to a file, with all eight streams running (%d events in each of the "+
		"others). Bytes that\nare not in the page cache are read from the disk.\n\n%s", others, t.String()), nil
}
