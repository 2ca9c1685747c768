package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
)

// noon is the start time of the generated data: no hour ends while a busy node writes a million events.
var noon = time.Date(2026, 4, 30, 12, 0, 0, 0, time.UTC)

// dataset is the output of a generator.
type dataset struct {
	dir    string // the node's data directory
	source gen.Source
	gen.Stats
}

// file returns the path of the first hourly file.
func (d dataset) file() string {
	return filepath.Join(d.dir, filepath.FromSlash(d.source.Dir()), noon.Format("20060102"), "12")
}

// flags returns hlparser's flags to read the dataset.
func (d dataset) flags() []string {
	return []string{"--data-dir", d.dir, "--stream", d.source.String()}
}

// generate writes events of a source below dir. step is the time between two lines.
func generate(
	ctx context.Context, dir string, source gen.Source, events int64, step time.Duration,
) (d dataset, err error) {
	g, err := gen.New(gen.Options{Source: source, Seed: 1})
	if err != nil {
		return d, err
	}
	w := gen.NewWriter(dir, source, g, gen.WriterOptions{BufferSize: 1 << 20})
	defer func() {
		if closeErr := w.Close(); err == nil {
			err = closeErr
		}
		d = dataset{dir: dir, source: source, Stats: w.Stats()}
	}()
	for w.Stats().Events < events {
		if ctx.Err() != nil {
			return d, ctx.Err()
		}
		if err := w.WriteLine(noon.Add(time.Duration(w.Stats().Lines) * step)); err != nil {
			return d, err
		}
	}
	return d, nil
}

// busy returns the time between two lines of a busy node.
func busy(mode gen.Mode) time.Duration {
	if mode == gen.ByBlock {
		return time.Second / 14
	}
	return time.Second / 23_500
}

// settle flushes the page cache, so that the measured program has the disk to itself.
func settle() {
	say("waiting for the disk")
	unix.Sync()
}

// beside lists the streams that complete order statuses to all eight.
var beside = []gen.Source{
	{Stream: gen.Fills, Mode: gen.ByBlock}, {Stream: gen.RawBookDiffs, Mode: gen.ByBlock},
	{Stream: gen.Trades, Mode: gen.Streaming}, {Stream: gen.MiscEvents, Mode: gen.Line},
	{Stream: gen.TwapStatuses, Mode: gen.Line},
}

// allStreams adds events of every other stream to dir, and returns hlparser's flags to read all eight. Flags that
// filter do not apply to the streams of many kinds of events.
func allStreams(ctx context.Context, orders dataset, events int64) ([]string, error) {
	sources := append([]gen.Source{orders.source}, beside...)
	for _, source := range beside {
		if _, err := generate(ctx, orders.dir, source, events, busy(source.Mode)); err != nil {
			return nil, err
		}
	}
	c := config.Config{DataDir: orders.dir}
	for _, source := range sources {
		stream, err := config.ParseStreamFlag(source.String())
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", source, err)
		}
		if source.Stream == gen.MiscEvents {
			stream.Filter = &config.Filter{}
		}
		c.Streams = append(c.Streams, stream)
	}
	// The generator does not support these two streams, and without a filter the parser does not decode their events, so
	// other events stand in.
	misc := dataset{dir: orders.dir, source: gen.Source{Stream: gen.MiscEvents, Mode: gen.Line}}
	for _, stream := range []config.Stream{config.OracleUpdates, config.SystemActions} {
		day := filepath.Join(orders.dir, hyperliquid.Directory(stream, config.Line), "hourly", noon.Format("20060102"))
		if err := errors.Join(os.MkdirAll(day, 0o755), os.Link(misc.file(), filepath.Join(day, "12"))); err != nil {
			return nil, fmt.Errorf("writing %s: %w", stream, err)
		}
		c.Streams = append(c.Streams, config.StreamConfig{Name: stream, Mode: config.Line, Filter: &config.Filter{}})
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encoding the configuration: %w", err)
	}
	file := filepath.Join(orders.dir, "streams.yaml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	return []string{"--config", file}, nil
}
