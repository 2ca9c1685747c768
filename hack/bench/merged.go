package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

// mergedShare is the goal: the speed of streams that are delivered as one, as a fraction of that of the same streams,
// each by itself.
const mergedShare = 0.6

// merged compares the delivery in the order of blocks with that of each stream by itself, from the same files.
func (b *bench) merged(ctx context.Context) (string, error) {
	t := results.Table{{"three streams, Enveloped, file sink", speedColumn, "events/s", cpuColumn, peakColumn,
		"of each by itself", wantedColumn, reachedColumn}}
	for _, mode := range []gen.Mode{gen.ByBlock, gen.Streaming} {
		set, flags, err := b.threeStreams(ctx, mode)
		if err != nil {
			return "", err
		}
		settle()
		apart := &entrant{name: fmt.Sprintf("%s, each by itself", mode), data: set, runs: b.runs, run: b.runFlags(flags)}
		one := &entrant{name: fmt.Sprintf("%s, order: Block", mode), data: set, runs: b.runs,
			run: b.runFlags(append(slices.Clip(flags), "--order", "block"))}
		if err := contest(ctx, []*entrant{apart, one}, b.runs); err != nil {
			return "", err
		}
		for _, e := range []*entrant{apart, one} {
			share, wanted, reached := e.mbs()/apart.mbs(), "", ""
			if e == one {
				wanted, reached = fmt.Sprintf("≥ %.1f", mergedShare), results.Reached(share >= mergedShare)
			}
			t.Row(e.name, fmt.Sprintf("%.0f", e.mbs()), fmt.Sprintf("%.2f M", float64(e.data.Events)/1e6/e.best.wall.Seconds()),
				seconds(e.best.cpu), e.best.peakText(), fmt.Sprintf("%.2f", share), wanted, reached)
		}
		if err := os.RemoveAll(set.dir); err != nil {
			return "", fmt.Errorf("removing the data: %w", err)
		}
	}
	return fmt.Sprintf("### Streams delivered as one\n\nFrom %d order statuses, and the book diffs and fills of as many "+
		"blocks, on disk with a warm page cache, to files,\nincluding the start of the process and the final sync. "+
		"The best of %d alternating runs.\n\n%s", b.events, b.runs, t.String()), nil
}

// threeStreams generates the streams of an order book in a mode, about the same blocks of each. It returns their sum,
// and hlparser's flags to read them.
func (b *bench) threeStreams(ctx context.Context, mode gen.Mode) (sum dataset, flags []string, err error) {
	sum.dir = filepath.Join(b.dir, "merged")
	flags = []string{"--data-dir", sum.dir}
	for _, s := range []struct {
		stream gen.Stream
		events int64
	}{
		{gen.OrderStatuses, b.events}, {gen.RawBookDiffs, b.events * 3 / 7}, {gen.Fills, b.events * 24 / 700},
	} {
		source := gen.Source{Stream: s.stream, Mode: mode}
		say("generating %d events of %s", s.events, source)
		set, err := generate(ctx, sum.dir, source, s.events, busy(mode))
		if err != nil {
			return sum, nil, err
		}
		sum.Lines += set.Lines
		sum.Events += set.Events
		sum.Bytes += set.Bytes
		flags = append(flags, "--stream", source.String())
	}
	return sum, flags, nil
}
