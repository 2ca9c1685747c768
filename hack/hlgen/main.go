// Command hlgen writes synthetic Hyperliquid node output into a directory, for tests and benchmarks:
//
//	go run ./hack/hlgen --dir D --stream order-statuses:line --lines 1000000
//	go run ./hack/hlgen --dir D --stream fills:by-block --rate 14 --hour-every 15s
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "hlgen:", err)
		stop()
		os.Exit(1)
	}
}

type options struct {
	dir       string
	sources   []gen.Source
	lines     int64
	rate      float64
	perBlock  int
	funding   int
	hourEvery time.Duration
	start     time.Time
	seed      uint64
}

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("hlgen", flag.ContinueOnError)
	fs.StringVar(&o.dir, "dir", "", "data directory of the node, such as ~/hl/data")
	fs.Func("stream", "stream[:line|streaming|by-block]; repeatable", func(s string) error {
		src, err := gen.ParseSource(s)
		o.sources = append(o.sources, src)
		return err
	})
	fs.Int64Var(&o.lines, "lines", 0, "lines per stream; 0 with --rate means no limit")
	fs.Float64Var(&o.rate, "rate", 0, "lines per second and stream; 0 means as fast as possible, with a simulated clock")
	fs.IntVar(&o.perBlock, "events-per-block", 0, "mean events per block; 0 means those of a busy node")
	fs.IntVar(&o.funding, "funding-users", 0, "accounts in a Funding event of misc-events; 100000 yield a line of 16 MB")
	fs.DurationVar(&o.hourEvery, "hour-every", time.Hour, "real time of one hour of the node, with --rate")
	fs.Func("start", "the node's time at the start, in RFC 3339 format", func(s string) (err error) {
		o.start, err = time.Parse(time.RFC3339, s)
		return err
	})
	fs.Uint64Var(&o.seed, "seed", 1, "seed of the generator; equal seeds and flags yield equal content")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.dir == "":
		return o, errors.New("--dir: must be set")
	case len(o.sources) == 0:
		return o, errors.New("--stream: at least one is required")
	case o.lines < 0 || o.rate < 0:
		return o, errors.New("--lines and --rate: must not be negative")
	case o.lines == 0 && o.rate == 0:
		return o, errors.New("--lines: required without --rate")
	}
	return o, nil
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	begin := time.Now()
	stats := make([]gen.Stats, len(o.sources))
	group, ctx := errgroup.WithContext(ctx)
	for i, src := range o.sources {
		group.Go(func() (err error) {
			stats[i], err = write(ctx, o, src, o.seed+uint64(i))
			if err != nil {
				return fmt.Errorf("%s: %w", src, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	took := time.Since(begin)
	for i, src := range o.sources {
		s := stats[i]
		fmt.Printf("%s: %d lines, %d events, %.1f MB in %d files, %.0f MB/s\n",
			src, s.Lines, s.Events, float64(s.Bytes)/1e6, s.Files, float64(s.Bytes)/1e6/took.Seconds())
	}
	return nil
}

func write(ctx context.Context, o options, src gen.Source, seed uint64) (gen.Stats, error) {
	g, err := gen.New(gen.Options{Source: src, Seed: seed, EventsPerBlock: o.perBlock, FundingUsers: o.funding})
	if err != nil {
		return gen.Stats{}, err
	}
	var w *gen.Writer
	if o.rate > 0 {
		clock := gen.Clock{Start: o.start, HourEvery: o.hourEvery}
		if clock.Start.IsZero() {
			clock.Start = time.Now()
		}
		w = gen.NewWriter(o.dir, src, g, gen.WriterOptions{LateFor: clock.During(late)})
		err = gen.Pace(ctx, w, clock, o.rate, o.lines)
	} else {
		if o.start.IsZero() {
			o.start = time.Date(2026, 4, 30, 20, 0, 0, 0, time.UTC)
		}
		w = gen.NewWriter(o.dir, src, g, gen.WriterOptions{BufferSize: 1 << 20})
		err = gen.Fill(ctx, w, o.start, o.lines, step(src.Mode))
	}
	// Close also after an error: the files must end with whole lines.
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	return w.Stats(), err
}

// late is how long the old hour's file grows after the new one exists.
const late = 700 * time.Millisecond

// step returns the time between two lines of a busy node.
func step(mode gen.Mode) time.Duration {
	if mode == gen.ByBlock {
		return time.Second / 14
	}
	return time.Second / 23_500
}
