package engine

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
)

// maxIntervals and maxOpen bound the memory of which blocks were processed. Beyond them the oldest are forgotten, and a replay that
// reaches back so far is delivered again: that is the safe side.
const (
	maxIntervals = 1024
	maxOpen      = 16
)

// processed remembers the blocks that were processed, so that what a node writes again after a restart is delivered once. It is
// a value: a copy does not change with its original.
//
// A block is complete when its line held all of it, or when the node went on to a higher one. A node that goes back to a lower one
// may have left the block in hand unfinished: it stays open, with the number of its events that were processed, until the node has
// passed it again.
type processed struct {
	complete []checkpoint.Interval  // ascending, not touching; replaced, never changed
	open     []checkpoint.OpenBlock // ascending; replaced, never changed
	current  int64                  // the newest line's block; 0: none yet
	pass     int64                  // events of current that were shown since the node came to it last
}

// resumeProcessed is what a checkpoint says of the blocks.
func resumeProcessed(b *checkpoint.Blocks) processed {
	if b == nil {
		return processed{}
	}
	return processed{complete: b.Complete, open: b.Open, current: b.Current, pass: b.Shown}
}

func (p *processed) checkpoint() *checkpoint.Blocks {
	if p.current == 0 {
		return nil
	}
	return &checkpoint.Blocks{Complete: p.complete, Open: p.open, Current: p.current, Shown: p.pass}
}

// seen takes in a line of a block with so many events, all of the block's if whole, and returns how many of the line's first events
// were processed before. late is true for the first line of a block that is older than one processed before, and was missing.
func (p *processed) seen(block, events int64, whole bool) (skip int64, late bool) {
	if block != p.current {
		if block > p.current && p.current != 0 {
			p.finish(p.current)
		}
		p.current, p.pass = block, 0
	}
	if whole {
		p.pass = 0 // each line shows the whole block anew
	}
	if p.has(block) {
		return events, false
	}
	at, known := p.findOpen(block)
	done := int64(0)
	if known {
		done = p.open[at].Events
	}
	late = !known && p.highest() > block
	skip = min(max(done-p.pass, 0), events)
	if whole {
		p.finish(block)
		return skip, late
	}
	p.pass += events
	open := slices.Clone(p.open)
	if !known {
		open = slices.Insert(open, at, checkpoint.OpenBlock{Block: block})
	}
	open[at].Events = max(done, p.pass)
	p.open = open[max(len(open)-maxOpen, 0):]
	return skip, late
}

// highest is the highest block that was processed, in part or whole.
func (p *processed) highest() int64 {
	var highest int64
	if n := len(p.complete); n > 0 {
		highest = p.complete[n-1].Last
	}
	if n := len(p.open); n > 0 {
		highest = max(highest, p.open[n-1].Block)
	}
	return highest
}

func (p *processed) findOpen(block int64) (int, bool) {
	return slices.BinarySearchFunc(p.open, block, func(o checkpoint.OpenBlock, block int64) int { return cmp.Compare(o.Block, block) })
}

func (p *processed) has(block int64) bool {
	_, found := p.find(block)
	return found
}

// find returns the interval that holds a block, or where one that does would stand.
func (p *processed) find(block int64) (int, bool) {
	return slices.BinarySearchFunc(p.complete, block, func(i checkpoint.Interval, block int64) int {
		switch {
		case i.Last < block:
			return -1
		case i.First > block:
			return 1
		}
		return 0
	})
}

// finish notes that a block was processed to its end.
func (p *processed) finish(block int64) {
	if at, known := p.findOpen(block); known {
		p.open = slices.Delete(slices.Clone(p.open), at, at+1)
	}
	i, found := p.find(block)
	if found {
		return
	}
	next := slices.Insert(slices.Clone(p.complete), i, checkpoint.Interval{First: block, Last: block})
	if i+1 < len(next) && next[i+1].First == block+1 {
		next[i].Last = next[i+1].Last
		next = slices.Delete(next, i+1, i+2)
	}
	if i > 0 && next[i-1].Last == block-1 {
		next[i-1].Last = next[i].Last
		next = slices.Delete(next, i, i+1)
	}
	p.complete = next[max(len(next)-maxIntervals, 0):]
}

// repeats is what deduplication found in a block of lines.
type repeats struct {
	lines, late int64
}

// lookout is what is known of a stream's blocks up to a line. It is a value: a copy does not change with its original.
type lookout struct {
	processed processed // with deduplicateBlocks
	sequence  sequence  // with markers
}

// cutter cuts whole lines into spans, line by line: around those that were delivered before, and before those that have a marker.
type cutter struct {
	codec  *codec
	data   []byte
	offset int64
	parts  int

	keep    int // data[keep:at] is to be delivered and not yet in spans
	spans   []hyperliquid.Span
	repeats repeats
	marks   []marker
}

// cut returns the spans of a block's lines, in their order. Lines whose block cannot be told are kept: the encoder says what is
// wrong with them.
func (l *lookout) cut(dst []hyperliquid.Span, c *codec, b *buffer.Block, parts int, settings *config.Engine) cutter {
	q := cutter{codec: c, data: b.Data, offset: b.Offset, parts: parts, spans: dst}
	if settings.Markers {
		for _, skip := range b.Skipped {
			q.mark(marker{kind: skippedMarker, skip: skip}, 0)
		}
	}
	for at := 0; at < len(q.data); {
		end := at + bytes.IndexByte(q.data[at:], '\n') + 1
		if block, ok := c.encoder.BlockOf(q.data[at:end]); ok {
			l.line(&q, settings, block, at, end)
		}
		at = end
	}
	q.flush(len(q.data))
	if n := len(q.marks); n > 0 && q.marks[n-1].before == len(q.spans) {
		q.spans = append(q.spans, hyperliquid.Span{Offset: q.marks[n-1].offset})
	}
	number(q.marks)
	return q
}

// line takes in the line q.data[at:end], which is of the given block.
func (l *lookout) line(q *cutter, settings *config.Engine, block int64, at, end int) {
	var skip int64
	var late bool
	events := int64(math.MaxInt64) // of a whole block: all there are
	if settings.DeduplicateBlocks {
		if !q.codec.whole {
			events = int64(q.codec.encoder.EventsOf(q.data[at:end]))
		}
		if skip, late = l.processed.seen(block, events, q.codec.whole); late {
			q.repeats.late++
		}
	}
	if settings.Markers {
		if m, tell := l.sequence.next(block, q.codec.whole, late); tell {
			q.mark(m, at)
		}
	}
	if skip > 0 {
		q.leaveOut(skip, events, at, end)
	}
}

// flush puts what is to be delivered before data[at] into spans.
func (q *cutter) flush(at int) {
	if at > q.keep {
		n := max(1, q.parts*(at-q.keep)/len(q.data))
		q.spans = q.codec.cut(q.spans, q.data[q.keep:at], q.offset+int64(q.keep), n)
	}
	q.keep = at
}

// mark puts a marker before data[at].
func (q *cutter) mark(m marker, at int) {
	q.flush(at)
	m.offset, m.before = q.offset+int64(at), len(q.spans)
	q.marks = append(q.marks, m)
}

// leaveOut drops the first skip of the events of the line data[at:end].
func (q *cutter) leaveOut(skip, events int64, at, end int) {
	q.repeats.lines++
	q.flush(at)
	if skip < events {
		if span, ok := q.codec.encoder.After(q.data[at:end], q.offset+int64(at), int(skip)); ok {
			q.spans = append(q.spans, span)
		}
	}
	q.keep = end
}
