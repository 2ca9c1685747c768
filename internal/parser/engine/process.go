package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

const (
	// spanBytes is how much input one worker takes at a time. The input and its output fit a core's cache.
	spanBytes = 256 << 10
	// parallelBytes makes a batch of few but long lines use all workers too.
	parallelBytes = 1 << 20
	// minOutput and maxOutput bound the encoded output that a slot holds, in bytes, before it is delivered and the rest
	// is encoded. A span's output is usually below minOutput. A line with more output is scanned once more to check
	// that it is valid.
	minOutput = 128 << 10
	maxOutput = 4 << 20
	// reasonPanic is the dead letter's reason for a line on which the encoder panicked.
	reasonPanic = "panic"
)

// outputLimit returns the size, in bytes, at which the output of one slot is delivered. All slots together, which may
// hold twice as much, get half of the buffer's limit, unless that is less than minOutput for each.
func outputLimit(e *config.Engine, streams int) int {
	slots := 2 * e.Workers * streams
	return min(max(int(e.BufferLimit)/4/slots, minOutput), maxOutput)
}

// slot is one worker's place in a wave.
type slot struct {
	out  hyperliquid.Output
	span task
	rest hyperliquid.Span // the remainder of the span when out is full
	read int64            // bytes of the span that are encoded in out
}

// task is a span of a block. A block is done when its last task is done.
type task struct {
	block       *buffer.Block
	span        hyperliquid.Span
	first, last bool // first: nothing of the block was delivered
}

// process encodes and delivers a batch, wave by wave, and releases each block as soon as all of it is acknowledged. It
// stops between two blocks when ctx is done; the rest of the batch is read again after a restart. Its error comes from
// the sink, the dead letter or work.
func (a *attempt) process(ctx, work context.Context, batch *buffer.Snapshot) error {
	wide := 1
	if batch.Lines >= int64(a.engine.cfg.Engine.ParallelThreshold) || batch.Bytes >= parallelBytes {
		wide = len(a.slots[0])
	}
	w := waves{attempt: a, work: work, tasks: taskQueue{attempt: a, blocks: batch.Blocks(), wide: wide,
		counts: slices.Clone(a.counts)}}
	defer w.wait()
	for slots := w.next(); len(slots) > 0; slots = w.next() {
		for i := range slots {
			s := &slots[i]
			a.recount(s)
			for more := true; more; {
				if err := a.deliver(work, s); err != nil {
					return err
				}
				count := s.out.Count
				s.out.Reset() // before the block is released: its record must not stay in memory with the next
				if more = s.rest.Len() > 0; more {
					a.midBlock, s.span.first = true, false
					a.encode(len(a.slots[0]), s)
				} else if file := s.span.block.Origin.ID; a.codecs[file.Directory].counts {
					a.counts.set(file, count)
				}
			}
			done := s.span
			s.span, s.rest = task{}, hyperliquid.Span{} // likewise: they refer to the block's memory
			if !done.last {
				a.midBlock = true
				continue
			}
			a.midBlock = false
			if a.live.enabled() {
				a.committable = a.live.clone()
			}
			a.committedCounts = append(a.committedCounts[:0], a.counts...)
			a.tail.Ack(done.block)
			if a.ackedSeen.IsZero() {
				a.ackedSeen = a.batchSeen
			}
			done.span = hyperliquid.Span{}
			w.tasks.release(done.block)
			if err := a.commitIfDue(work); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return nil
			}
		}
	}
	if !a.batchSeen.IsZero() {
		a.distributions.Acked(a.engine.now().Sub(a.batchSeen))
	}
	return nil
}

// waves encodes a batch, one span per worker at a time. With several workers the next wave is encoded while one is
// delivered.
type waves struct {
	attempt *attempt
	work    context.Context
	tasks   taskQueue
	encoded []slot // the wave after the one that is being delivered; complete after wait
	half    int    // the half of the attempt's slots that the next wave uses
	busy    sync.WaitGroup
}

// next returns the next encoded wave, or none at the end. The previous wave must be delivered.
func (w *waves) next() []slot {
	if w.encoded == nil {
		w.start()
	}
	w.wait()
	slots := w.encoded
	w.encoded = nil
	if w.tasks.wide > 1 && len(slots) > 0 {
		w.start()
	}
	return slots
}

// start encodes the next wave's spans in the background, one worker per span.
func (w *waves) start() {
	w.attempt.engine.fault.failpoint(w.work, w.attempt.kebab)
	slots := w.attempt.slots[w.half]
	w.half = 1 - w.half
	n := 0
	for n < w.tasks.wide && w.tasks.next(&slots[n].span) {
		n++
	}
	for i := range n {
		slots[i].rest = slots[i].span.span
		w.busy.Go(func() { w.attempt.encode(i, &slots[i]) })
	}
	w.encoded = slots[:n]
}

// wait returns when no span is being encoded.
func (w *waves) wait() { w.busy.Wait() }

// taskQueue cuts a batch's blocks into tasks on demand.
type taskQueue struct {
	attempt   *attempt
	blocks    []*buffer.Block // the batch; nil where released
	wide      int
	nextBlock int // the next block to cut
	spans     []hyperliquid.Span
	nextSpan  int // the next of spans
	released  int // blocks released
	counts    counts
}

func (q *taskQueue) next(t *task) bool {
	for q.nextSpan == len(q.spans) {
		if q.nextBlock == len(q.blocks) {
			return false
		}
		b := q.blocks[q.nextBlock]
		q.nextBlock++
		parts := (len(b.Data) + spanBytes - 1) / spanBytes
		if left := len(q.blocks) - q.nextBlock + 1; left < q.wide { // too few blocks to keep all workers busy
			parts = max(parts, (q.wide+left-1)/left)
		}
		c := q.attempt.codecs[b.Origin.ID.Directory]
		q.nextSpan, q.spans = 0, c.cut(q.spans[:0], b.Data, b.Offset, max(parts, 1))
		if len(q.spans) == 0 { // no line in it: it only advances the position
			q.spans = append(q.spans, hyperliquid.Span{Offset: b.Offset})
		}
		if c.counts {
			q.predict(b.Origin.ID)
		}
	}
	*t = task{block: q.blocks[q.nextBlock-1], span: q.spans[q.nextSpan], first: q.nextSpan == 0,
		last: q.nextSpan == len(q.spans)-1}
	q.spans[q.nextSpan] = hyperliquid.Span{} // it refers to the block's memory
	q.nextSpan++
	return true
}

// predict sets the counts of the spans of a file as they are if each line holds one event.
func (q *taskQueue) predict(file position.FileID) {
	count := q.counts.of(file)
	for i := range q.spans {
		q.spans[i].Count = count
		count = q.spans[i].Predict(count)
	}
	q.counts.set(file, count)
}

// recount encodes a slot's span again if its count was predicted wrong: a line before it has no event or several.
func (a *attempt) recount(s *slot) {
	file := s.span.block.Origin.ID
	if !a.codecs[file.Directory].counts || s.span.span.Count == a.counts.of(file) {
		return
	}
	s.span.span.Count = a.counts.of(file)
	s.rest = s.span.span
	a.encode(len(a.slots[0]), s)
}

// release returns a delivered block to the buffer. Blocks are delivered in order.
func (q *taskQueue) release(b *buffer.Block) {
	q.attempt.buf.Release(b)
	q.blocks[q.released] = nil
	q.released++
}

// encode fills a slot's output from the remainder of its span, until the output is full.
func (a *attempt) encode(worker int, s *slot) {
	todo, origin := s.rest, s.span.block.Origin
	encode := a.codecs[origin.ID.Directory].workers[worker]
	s.out.Reset()
	var cause error
	if s.rest, cause = tryEncode(encode, &s.out, todo, origin.Label); cause != nil {
		// Something in the span makes the encoder panic. Encoding line by line delivers all other lines.
		s.out.Reset()
		s.rest = todo
		for more := true; more; {
			// Only the encoder can separate the events of one line.
			line, after := s.rest.First()
			mark := s.out
			left, cause := tryEncode(encode, &s.out, line, origin.Label)
			if cause != nil {
				if a.panics.Add(1) <= loggedMalformed { // a new kind of line may make it panic each time
					a.log.Error("the encoder panicked; the line goes to the dead letter",
						"file", origin.Label, "offset", line.Offset, "panic", excerpt([]byte(cause.Error())))
				}
				s.out = mark
				s.out.Fail(line, reasonPanic)
			}
			after.Count = s.out.Count
			s.rest = left.Then(after)
			more = s.rest.Len() > 0 && left.Len() == 0 && !s.out.Full()
		}
	}
	s.read = int64(todo.Len() - s.rest.Len())
}

// tryEncode calls encode and returns a panic as an error.
func tryEncode(encode encodeFunc, out *hyperliquid.Output, s hyperliquid.Span, file string) (
	rest hyperliquid.Span, cause error,
) {
	defer func() {
		if r := recover(); r != nil {
			cause = fmt.Errorf("%v", r)
		}
	}()
	return encode(out, s, file), nil
}
