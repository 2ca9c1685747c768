package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
)

// sources returns what each node writes, with the rates in lines per second.
func sources(statusRate float64) []paced {
	return []paced{
		{Source: gen.Source{Stream: gen.OrderStatuses, Mode: gen.Line}, rate: statusRate},
		// There are 14 blocks per second, full or empty.
		{Source: gen.Source{Stream: gen.Fills, Mode: gen.ByBlock}, rate: 14, eventsPerBlock: 20},
	}
}

type paced struct {
	gen.Source
	rate           float64
	eventsPerBlock int
}

// traffic is the output of all nodes.
type traffic struct {
	writers []*writer
}

// writer writes one source of one node.
type writer struct {
	paced
	node  string
	clock gen.Clock
	out   *gen.Writer
}

// late is how long an old hour's file grows after the new one exists.
const late = 700 * time.Millisecond

// newTraffic prepares a writer for every source of every node. Each node's clock starts in another hour, chosen so that
// the fleet passes midnight, where the day's directory changes, and 9 to 10, where hours do not sort as text.
func newTraffic(
	nodes []string, hostPath func(node, path string) string, statusRate float64, hourEvery time.Duration,
) (*traffic, error) {
	today := time.Now().UTC().Truncate(24 * time.Hour)
	hours := []time.Duration{22, 8, 14, 18}
	t := &traffic{}
	for i, node := range nodes {
		clock := gen.Clock{Start: today.Add(hours[i%len(hours)]*time.Hour + 20*time.Minute), HourEvery: hourEvery}
		for j, src := range sources(statusRate) {
			seed := uint64(i*100 + j)
			g, err := gen.New(gen.Options{Source: src.Source, Seed: seed, EventsPerBlock: src.eventsPerBlock})
			if err != nil {
				return nil, fmt.Errorf("creating the generator of %s: %w", node, err)
			}
			t.writers = append(t.writers, &writer{
				paced: src, node: node, clock: clock,
				out: gen.NewWriter(hostPath(node, dataPath), src.Source, g, gen.WriterOptions{LateFor: clock.During(late)}),
			})
		}
	}
	return t, nil
}

// linesPerSecond returns the total rate of all nodes. factor scales the rates of a node.
func (t *traffic) linesPerSecond(factor func(node string) float64) float64 {
	var sum float64
	for _, w := range t.writers {
		sum += w.rate * factor(w.node)
	}
	return sum
}

// run writes until ctx ends, and ends with whole lines. factor scales the rates of a node.
func (t *traffic) run(ctx context.Context, factor func(node string) float64) error {
	var group errgroup.Group
	for _, w := range t.writers {
		group.Go(func() error {
			begin := time.Now()
			err := errors.Join(gen.Pace(ctx, w.out, w.clock, w.rate*factor(w.node), 0), w.out.Close())
			w.clock.Start = w.clock.At(time.Since(begin)) // for the next run
			if err != nil {
				return fmt.Errorf("writing %s of %s: %w", w.Source, w.node, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// events returns the number of events written so far. It may only be called after run has returned.
func (t *traffic) events() int64 {
	var sum int64
	for _, w := range t.writers {
		sum += w.out.Stats().Events
	}
	return sum
}

// constant scales the rates of all nodes alike.
func constant(factor float64) func(string) float64 { return func(string) float64 { return factor } }
