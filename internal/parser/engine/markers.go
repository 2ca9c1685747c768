package engine

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// markerStream is the stream of the records that say what happened to another stream. They stand among its records, because who
// builds an order book reads no metrics.
const markerStream = "_marker"

// The kinds of markers.
const (
	gapMarker     = "gap"     // blocks from..to were never written before block; by-block mode only, where each block has a line
	replayMarker  = "replay"  // the node went back to block, which is not above the highest, to
	lateMarker    = "late"    // block is older than the highest, to, and was missing; with deduplicateBlocks
	skippedMarker = "skipped" // so many bytes before this place were on disk and will never be read
)

// marker is a record that stands before the line at offset. A line that has several has them at the indices -n to -1.
type marker struct {
	kind            string
	block, from, to int64
	skip            buffer.Skip
	offset          int64
	index           int32
	before          int // the span that it precedes
}

// text is the marker as a record.
func (m *marker) text(target string, about config.Stream, file checkpoint.FileID) ([]byte, error) {
	record := struct {
		Target string  `json:"target"`
		Stream string  `json:"stream"`
		Pos    string  `json:"pos"`
		Kind   string  `json:"kind"`
		About  string  `json:"about"`
		Block  *int64  `json:"block"`
		From   *int64  `json:"from"`
		To     *int64  `json:"to"`
		Bytes  *int64  `json:"bytes"`
		File   *string `json:"file"`
		Reason *string `json:"reason"`
	}{
		Target: target, Stream: markerStream, About: string(about), Kind: m.kind,
		Pos: checkpoint.Position{File: file, Offset: m.offset, Index: int(m.index)}.String(),
	}
	switch m.kind {
	case gapMarker:
		record.Block, record.From, record.To = &m.block, &m.from, &m.to
	case skippedMarker:
		record.Bytes, record.File, record.Reason = &m.skip.Bytes, &m.skip.File, &m.skip.Reason
	default:
		record.Block, record.To = &m.block, &m.to
	}
	line, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("encoding a marker: %w", err)
	}
	return append(line, '\n'), nil
}

// number gives markers in a row before one line their indices.
func number(marks []marker) {
	for i := len(marks) - 1; i >= 0; i-- {
		marks[i].index = -1
		if i+1 < len(marks) && marks[i+1].offset == marks[i].offset {
			marks[i].index = marks[i+1].index - 1
		}
	}
}

// sequence is what is known of the order of a stream's blocks up to a line.
type sequence struct {
	last    int64 // of the newest line; 0: none yet
	highest int64
}

// next takes in the block of a line, and returns what its reader must be told first. whole is true when each block has a line.
func (s *sequence) next(block int64, whole, late bool) (m marker, tell bool) {
	before := *s
	s.last, s.highest = block, max(s.highest, block)
	m = marker{block: block, to: before.highest}
	switch {
	case before.highest == 0:
		return m, false
	case late:
		m.kind = lateMarker
	case whole && block > before.highest+1:
		m.kind, m.from, m.to = gapMarker, before.highest+1, block-1
	case block < before.last, whole && block == before.last:
		m.kind = replayMarker
	}
	return m, m.kind != ""
}

// mark delivers the markers that stand before a span.
func (a *attempt) mark(ctx context.Context, t *task) error {
	if len(t.marks) == 0 {
		return nil
	}
	b := sink.Batch{File: t.block.Origin.ID}
	for i := range t.marks {
		m := &t.marks[i]
		text, err := m.text(a.engine.cfg.Target, a.stream.Name, b.File)
		if err != nil {
			return err
		}
		b.Data = append(b.Data, text...)
		b.Records = append(b.Records, sink.Record{End: len(b.Data), Offset: m.offset, Index: m.index})
	}
	if err := a.write(ctx, t.block, b); err != nil {
		return err
	}
	a.midBlock = true // what they stand before is not delivered yet
	return nil
}
