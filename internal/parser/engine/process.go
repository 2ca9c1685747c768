package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

const (
	// spanBytes is how much one worker takes at a time: the input and what it becomes fit a core's cache, and the encoded
	// output of a wave stays small whatever the batch.
	spanBytes = 256 << 10
	// parallelBytes makes a batch of few but long lines use all workers too.
	parallelBytes = 1 << 20
	// keptOutput is the most encoded output that a slot keeps for reuse; a longer line's is freed.
	keptOutput = 4 << 20
	// reasonPanic is the dead letter's reason for a line on which the encoder panicked.
	reasonPanic = "panic"
)

// slot is one worker's place in a wave.
type slot struct {
	out  hyperliquid.Output
	span task
}

// task is a span of a block. A block is done when its last task is.
type task struct {
	block *buffer.Block
	span  hyperliquid.Span
	last  bool
	marks []marker // delivered before it
	// With deduplicateBlocks or markers, of the last task of a block: what is known after it, and what was left out of it.
	known   lookout
	repeats repeats
}

// process encodes and delivers a batch, wave by wave, and releases each block as soon as all of it was acknowledged. Between
// two blocks it stops when ctx is done; what is left of the batch is read again after a restart. Its error is the sink's, the
// dead letter's or work's.
func (a *attempt) process(ctx, work context.Context, batch *buffer.Snapshot) error {
	wide := 1
	if batch.Lines >= int64(a.engine.cfg.Engine.ParallelThreshold) || batch.Bytes >= parallelBytes {
		wide = len(a.slots[0])
	}
	w := waves{attempt: a, work: work, tasks: taskQueue{attempt: a, blocks: batch.Blocks(), wide: wide}}
	defer w.wait()
	for slots := w.next(); len(slots) > 0; slots = w.next() {
		for i := range slots {
			s := &slots[i]
			if err := a.deliver(work, s); err != nil {
				return err
			}
			if !s.span.last {
				a.midBlock = true
				continue
			}
			a.midBlock, a.known = false, s.span.known
			a.tail.Ack(s.span.block)
			w.tasks.release(s.span.block)
			if err := a.commitIfDue(work); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return nil
			}
		}
	}
	return nil
}

// waves encodes a batch, one span a worker at a time. With several workers the next wave is encoded while one is delivered.
type waves struct {
	attempt *attempt
	work    context.Context
	tasks   taskQueue
	encoded []slot // the wave after the one that is being delivered; complete after wait
	turn    int    // which half of the attempt's slots it is in
	busy    sync.WaitGroup
}

// next returns the next wave, encoded; none at the end. The one before was delivered.
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

// start has the next wave's spans encoded, each by its own worker.
func (w *waves) start() {
	w.attempt.engine.fault.point(w.work, w.attempt.kebab)
	slots := w.attempt.slots[w.turn]
	w.turn = 1 - w.turn
	n := 0
	for n < w.tasks.wide && w.tasks.next(&slots[n].span) {
		n++
	}
	for i := range n {
		w.busy.Go(func() { w.attempt.encodeSlot(i, &slots[i]) })
	}
	w.encoded = slots[:n]
}

// wait returns when nothing is being encoded.
func (w *waves) wait() { w.busy.Wait() }

// taskQueue cuts a batch's blocks into tasks, as they are needed.
type taskQueue struct {
	attempt *attempt
	blocks  []*buffer.Block // the batch; nil where released
	wide    int
	block   int // the next to cut
	repeats repeats
	marks   []marker
	spans   []hyperliquid.Span
	at      int // the next of spans
	done    int // blocks released
}

func (q *taskQueue) next(t *task) bool {
	for q.at == len(q.spans) {
		if q.block == len(q.blocks) {
			return false
		}
		b := q.blocks[q.block]
		q.block++
		parts := (len(b.Data) + spanBytes - 1) / spanBytes
		if left := len(q.blocks) - q.block + 1; left < q.wide { // too few blocks to keep all workers busy
			parts = max(parts, (q.wide+left-1)/left)
		}
		c := q.attempt.codecs[b.Origin.ID.Directory]
		q.at, q.repeats, q.marks = 0, repeats{}, nil
		if settings := &q.attempt.engine.cfg.Engine; settings.DeduplicateBlocks || settings.Markers {
			cut := q.attempt.ahead.cut(q.spans[:0], &c, b, max(parts, 1), settings)
			q.spans, q.repeats, q.marks = cut.spans, cut.repeats, cut.marks
		} else {
			q.spans = c.cut(q.spans[:0], b.Data, b.Offset, max(parts, 1))
		}
		if len(q.spans) == 0 { // no line in it: it only moves the position
			q.spans = append(q.spans, hyperliquid.Span{Offset: b.Offset})
		}
	}
	*t = task{block: q.blocks[q.block-1], span: q.spans[q.at], last: q.at == len(q.spans)-1}
	for len(q.marks) > 0 && q.marks[0].before == q.at {
		t.marks, q.marks = append(t.marks, q.marks[0]), q.marks[1:]
	}
	if t.last {
		t.known, t.repeats = q.attempt.ahead, q.repeats
	}
	q.at++
	return true
}

// release gives back a block that was delivered. Blocks are delivered in order.
func (q *taskQueue) release(b *buffer.Block) {
	q.attempt.buf.Release(b)
	q.blocks[q.done] = nil
	q.done++
}

// encodeSlot fills a slot's output.
func (a *attempt) encodeSlot(i int, s *slot) {
	if cap(s.out.Data) > keptOutput {
		s.out = hyperliquid.Output{}
	}
	s.out.Reset()
	origin := s.span.block.Origin
	c := a.codecs[origin.ID.Directory]
	if tryEncode(c.workers[i], &s.out, s.span.span, origin.Label) == nil {
		return
	}
	// Something in the span makes the encoder panic. Line by line, all others are delivered.
	s.out.Reset()
	span := s.span.span
	for data, offset := span.Data, span.Offset; len(data) > 0; {
		n := len(data)
		line := span // events of one line, which cannot be told apart without the encoder
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			n = i + 1
			line = hyperliquid.Span{Data: data[:n], Offset: offset}
		}
		mark := s.out
		if cause := tryEncode(c.workers[i], &s.out, line, origin.Label); cause != nil {
			a.log.Error("the encoder panicked; the line goes to the dead letter",
				"file", origin.Label, "offset", line.Offset, "panic", cause)
			s.out = mark
			s.out.Lines++
			s.out.Bad = append(s.out.Bad, hyperliquid.Bad{
				Offset: line.Offset, Index: line.Index, Reason: reasonPanic, Bytes: bytes.TrimSuffix(line.Data, []byte("\n")),
			})
		}
		data, offset = data[n:], offset+int64(n)
	}
}

// tryEncode is encode with a panic returned as an error.
func tryEncode(encode encodeFunc, out *hyperliquid.Output, s hyperliquid.Span, file string) (cause error) {
	defer func() {
		if r := recover(); r != nil {
			cause = fmt.Errorf("%v", r)
		}
	}()
	encode(out, s, file)
	return nil
}

// deliver hands a slot's records to the sink, and what is malformed to the dead letter, and counts both.
func (a *attempt) deliver(ctx context.Context, s *slot) error {
	out, origin := &s.out, s.span.block.Origin
	a.stats.set(func(st *stats) { st.parsed += int64(len(s.span.span.Data)) })
	if err := a.mark(ctx, &s.span); err != nil {
		return err
	}
	for i := range out.Bad {
		if err := a.bury(ctx, s.span.block, &out.Bad[i]); err != nil {
			return err
		}
	}
	if len(out.Records) > 0 {
		if err := a.write(ctx, s.span.block, sink.Batch{File: origin.ID, Data: out.Data, Records: out.Records}); err != nil {
			return err
		}
	}
	a.ackedBytes += int64(len(s.span.span.Data))
	if origin != a.lastFile {
		a.turns, a.lastFile = a.turns+1, origin
	}
	everyBlock := a.codecs[origin.ID.Directory].whole
	deduplicated := a.engine.cfg.Engine.DeduplicateBlocks
	a.stats.set(func(st *stats) {
		st.lines += s.span.repeats.lines
		st.repeats += s.span.repeats.lines
		st.late += s.span.repeats.late
		st.acked += int64(len(s.span.span.Data))
		st.lines += out.Lines
		st.events += out.Events
		st.malformed += int64(len(out.Bad))
		for _, n := range out.Blocks {
			st.block(n, everyBlock, !deduplicated)
		}
	})
	return nil
}

// write gives a batch to the sink until it is acknowledged. Before it waits for a sink that refuses it commits what was
// acknowledged, so that a crash during the outage repeats nothing.
func (a *attempt) write(ctx context.Context, block *buffer.Block, b sink.Batch) error {
	for backoff := firstBackoff; ; backoff = min(2*backoff, lastBackoff) {
		done := a.asking()
		err := a.sink.Write(ctx, b)
		done()
		if err == nil {
			a.stats.set(func(s *stats) {
				s.lastAck = a.engine.now()
				s.delivered += int64(len(b.Records))
				s.sink(report.SinkHealthy, nil, s.lastAck)
			})
			return nil
		}
		if refusal := (*sink.Refusal)(nil); errors.As(err, &refusal) {
			return a.around(ctx, block, b, refusal)
		}
		if !isOutage(err) || ctx.Err() != nil {
			return fmt.Errorf("delivering to the sink: %w", err)
		}
		a.retrying("delivering to the sink", err, backoff)
		if backoff == firstBackoff && !a.midBlock {
			if err := a.commit(ctx, false); err != nil {
				return err
			}
		}
		if !sleep(ctx, backoff) {
			return fmt.Errorf("delivering to the sink: %w", ctx.Err())
		}
	}
}

// around delivers a batch without the record that the sink will never take, which goes to the dead letter.
func (a *attempt) around(ctx context.Context, block *buffer.Block, b sink.Batch, refusal *sink.Refusal) error {
	i := refusal.Index
	if i > 0 {
		if err := a.write(ctx, block, b.Slice(0, i)); err != nil {
			return err
		}
		a.midBlock = true // the rest of the block is not delivered yet
	}
	err := a.buryEntry(ctx, block, deadletter.Entry{Position: b.Position(i), Reason: refusal.Reason, Bytes: b.Record(i)})
	if err != nil {
		return err
	}
	a.stats.set(func(s *stats) { s.malformed++ })
	if i+1 < len(b.Records) {
		return a.write(ctx, block, b.Slice(i+1, len(b.Records)))
	}
	return nil
}

// bury writes a malformed line or event to the dead letter; a full one is waited for.
func (a *attempt) bury(ctx context.Context, block *buffer.Block, bad *hyperliquid.Bad) error {
	if a.logged < loggedMalformed {
		a.logged++
		a.log.Warn("malformed; it goes to the dead letter", "reason", bad.Reason, "file", block.Origin.Label,
			"offset", bad.Offset, "index", bad.Index, "excerpt", clip(string(bad.Bytes[:min(len(bad.Bytes), excerptBytes)]), excerptBytes))
	}
	return a.buryEntry(ctx, block, deadletter.Entry{
		Position: checkpoint.Position{File: block.Origin.ID, Offset: bad.Offset, Index: bad.Index}, Reason: bad.Reason, Bytes: bad.Bytes,
	})
}

func (a *attempt) buryEntry(ctx context.Context, block *buffer.Block, entry deadletter.Entry) error {
	line := block.Data[entry.Position.Offset-block.Offset:]
	entry.LineBytes = int64(bytes.IndexByte(line, '\n') + 1)
	for backoff := firstBackoff; ; backoff = min(2*backoff, lastBackoff) {
		err := a.dead.Append(entry)
		if err == nil {
			a.recovered(backoff)
			return nil
		}
		if errors.Is(err, deadletter.ErrUnsynced) {
			return err
		}
		a.retrying("writing to the dead letter", err, backoff)
		if !sleep(ctx, backoff) {
			return fmt.Errorf("writing to the dead letter: %w", err)
		}
	}
}

// block counts gaps and, unless deduplication has, repeats. Only in by-block mode does every block have a line, so that a jump is a
// gap. The caller holds mu.
func (s *stats) block(number int64, everyBlock, countRepeats bool) {
	switch {
	case s.lastBlock == 0:
	case number > s.lastBlock && everyBlock:
		s.gaps += number - s.lastBlock - 1
	case countRepeats && (number < s.lastBlock || number == s.lastBlock && everyBlock):
		s.repeats++
	}
	s.lastBlock = max(s.lastBlock, number)
}
