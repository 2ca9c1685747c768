package engine

import (
	"encoding/json"
	"fmt"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

// markerStream is the stream of the records that describe events in another stream. They are placed between its
// records, because a consumer that builds an order book reads no metrics.
const markerStream = "_marker"

// Kinds of markers.
const (
	gapMarker        = "gap"        // see marker.event
	replayMarker     = "replay"     // the node went back to block, which is not above the highest block, to
	lateMarker       = "late"       // block, or a part of it, arrives after the highest, to, and the node did not go back
	skippedMarker    = "skipped"    // bytes before this place were on disk and will never be read
	deadLetterMarker = "deadLetter" // a line of that many bytes is in the dead letter; its block is unknown
)

// maxLineMarkers is more than the markers that one line can have of its own.
const maxLineMarkers = 16

// marker is a record that precedes the line at offset. The n markers of a line have the indices -n to -1. The n skipped
// markers before it have the indices -maxLineMarkers-n to -maxLineMarkers-1: they can be written before the line is
// read, and a position names one record. A marker for a missing event takes the event's place.
type marker struct {
	kind            string
	block, from, to int64
	// isEvent reports, for a gap, that the event with index event of block is in the dead letter, or a record of it.
	// Otherwise the blocks from..to were not written before block. That exists in by-block mode only, where each block
	// has a line.
	isEvent bool
	event   int64
	skip    buffer.Skip // for kind skipped
	bytes   int64       // for kind deadLetter
	reason  string      // why the item is in the dead letter
	offset  int64
	index   int32
}

// text encodes the marker as a record.
func (m *marker) text(target string, about config.Stream, file position.FileID) ([]byte, error) {
	record := struct {
		Target string  `json:"target"`
		Stream string  `json:"stream"`
		Pos    string  `json:"pos"`
		Kind   string  `json:"kind"`
		About  string  `json:"about"`
		Block  *int64  `json:"block"`
		Index  *int64  `json:"index"`
		From   *int64  `json:"from"`
		To     *int64  `json:"to"`
		Bytes  *int64  `json:"bytes"`
		File   *string `json:"file"`
		Reason *string `json:"reason"`
	}{
		Target: target, Stream: markerStream, About: string(about), Kind: m.kind,
		Pos: position.Position{File: file, Offset: m.offset, Index: int(m.index)}.String(),
	}
	switch m.kind {
	case gapMarker:
		record.Block, record.From, record.To = &m.block, &m.from, &m.to
		if m.isEvent {
			record.Index, record.Reason = &m.event, &m.reason
		}
	case skippedMarker:
		record.Bytes, record.File, record.Reason = &m.skip.Bytes, &m.skip.File, &m.skip.Reason
	case deadLetterMarker:
		name := nameOf(file)
		record.Bytes, record.File, record.Reason = &m.bytes, &name, &m.reason
	default:
		record.Block, record.To = &m.block, &m.to
	}
	line, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("encoding a marker: %w", err)
	}
	return append(line, '\n'), nil
}

// nameOf returns a file's path relative to the data directory.
func nameOf(file position.FileID) string {
	return fmt.Sprintf("%s/hourly/%s/%d", file.Directory, file.Date, file.Hour)
}
