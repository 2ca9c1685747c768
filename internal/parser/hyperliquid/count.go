package hyperliquid

import "github.com/hlparser/hyperliquid-parser-operator/internal/parser/newline"

// BlockCount is how many events of a block precede a line. In streaming mode the events of a block are in consecutive
// lines, and an event's index in its block is its index in the line plus that number.
type BlockCount struct {
	Block  int64 `json:"block"`
	Events int64 `json:"events"`
}

// Predict returns the count after whole lines in streaming mode, if c is the count before them and each line holds one
// event, which is what nodes write. It reads no more than the block numbers of the last block's lines. The truth is the
// Count of the Output into which the lines are encoded.
func (c BlockCount) Predict(lines []byte) BlockCount {
	last := BlockCount{Block: -1}
	for end := len(lines); end > 0; {
		from := newline.Last(lines[:end-1]) + 1
		block, ok := BlockNumber(lines[from:end])
		end = from
		switch {
		case !ok:
			continue
		case last.Block < 0:
			last.Block = block
		case block != last.Block:
			return last
		}
		last.Events++
	}
	switch last.Block {
	case -1:
		return c
	case c.Block:
		last.Events += c.Events
	}
	return last
}

// Predict is BlockCount.Predict for the lines of a span. Within a line it predicts no event.
func (s *Span) Predict(c BlockCount) BlockCount {
	if s.inLine {
		return c
	}
	return c.Predict(s.Data)
}

// beginCount begins a line of a block.
func (w *Worker) beginCount(block int64) {
	w.lineEvents = 0
	if !w.encoder.streaming {
		return
	}
	if w.count.Block != block {
		w.count = BlockCount{Block: block}
	}
}

// endCount ends a line.
func (w *Worker) endCount() {
	if w.encoder.streaming {
		w.count.Events += w.lineEvents
	}
}

// indexInBlock returns the index in its block of the event with that index in its line.
func (w *Worker) indexInBlock(index int) int64 { return w.count.Events + int64(index) }
