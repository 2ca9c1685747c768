package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/merge"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// merged delivers all streams as one.
type merged struct {
	merger *merge.Merger
	output sink.Output // of the streams
}

func (e *Engine) newMerged(stopping <-chan struct{}) *merged {
	sources := make([]merge.Source, 0, len(e.pipelines))
	for _, p := range e.pipelines {
		sources = append(sources, merge.Source{Name: string(p.stream.Name), Kebab: p.kebab})
	}
	slices.SortStableFunc(sources, func(a, b merge.Source) int { return cmp.Compare(rank(a.Name), rank(b.Name)) })
	m := merge.New(merge.Options{
		Streams: sources, Target: e.cfg.Target, Patience: e.cfg.Order.Patience.Duration,
		Output: e.state.guard(e.output, false), Stopping: stopping, CloseTimeout: e.cfg.ShutdownTimeout.Duration / 4,
		Store: func() (*checkpoint.Store, error) { return e.state.Store(merge.Stream) },
	})
	byStream := map[string]sink.Destination{}
	for _, s := range sources {
		byStream[s.Kebab] = sink.Destination{Kind: merge.Kind, Output: m}
	}
	return &merged{merger: m, output: sink.Routes(byStream)}
}

// rank orders the streams within a block: a consumer that builds a book needs an order's status before the change of
// the book that it explains, and both before the fill.
func rank(stream string) int {
	switch config.Stream(stream) {
	case config.OrderStatuses:
		return 0
	case config.RawBookDiffs:
		return 1
	case config.Fills:
		return 2
	}
	return 3
}

// outputOf returns where a stream's records are delivered.
func (e *Engine) outputOf(a *attempt) sink.Output {
	if e.merged != nil {
		return e.merged.output
	}
	return e.state.guard(e.output, a.saved.Unopened)
}

// deliverMerged is deliverRecords if the streams are delivered as one. It returns when all lines of the slot have taken
// their place, also those without records.
func (a *attempt) deliverMerged(ctx context.Context, s *slot) (deliveryCounts, error) {
	origin := s.span.block.Origin.ID
	c := a.codecs[origin.Directory]
	if c.line && s.span.span.Len() > 0 {
		return deliveryCounts{}, fmt.Errorf("%w: the node writes %s in line mode, whose lines do not name their block, and "+
			"order.by is Block: start the node with --batch-by-block or --stream-with-block-info, or omit order",
			sink.ErrFailed, origin.Directory)
	}
	a.mergedParts = mergedParts(a.mergedParts[:0], &s.out, c.whole)
	a.engine.merged.merger.Expect(a.kebab, a.mergedParts)
	counts, err := a.deliverUnmerged(ctx, s)
	if err != nil {
		return counts, err
	}
	a.midBlock = true // the rest of the block is not delivered yet
	return counts, a.writeUntilAcked(ctx, sink.Batch{File: origin})
}

// mergedParts appends the parts of an output.
func mergedParts(dst []merge.Part, out *hyperliquid.Output, whole bool) []merge.Part {
	for i := range out.Parts {
		p := &out.Parts[i]
		bad := len(out.Bad)
		if i+1 < len(out.Parts) {
			bad = out.Parts[i+1].Bad
		}
		dst = append(dst, merge.Part{
			Offset: p.Offset, Block: p.Block, Index: p.Index, Events: p.Events, End: p.End, Whole: whole,
			Last:   int32(p.Next - 1),
			Faulty: bad > p.Bad || p.Failed, BlockTime: p.BlockTime, LocalTime: p.LocalTime,
		})
	}
	return dst
}
