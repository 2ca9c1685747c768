package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
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
	w := waves{attempt: a, work: work, tasks: taskQueue{attempt: a, blocks: batch.Blocks(), wide: wide}}
	defer w.wait()
	for slots := w.next(); len(slots) > 0; slots = w.next() {
		for i := range slots {
			s := &slots[i]
			for more := true; more; {
				if err := a.deliver(work, s); err != nil {
					return err
				}
				s.out.Reset() // before the block is released: its record must not stay in memory with the next
				if more = s.rest.Len() > 0; more {
					a.midBlock, s.span.first = true, false
					a.encode(len(a.slots[0]), s)
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
			a.tail.Ack(done.block)
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
	}
	*t = task{block: q.blocks[q.nextBlock-1], span: q.spans[q.nextSpan], first: q.nextSpan == 0,
		last: q.nextSpan == len(q.spans)-1}
	q.spans[q.nextSpan] = hyperliquid.Span{} // it refers to the block's memory
	q.nextSpan++
	return true
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

// deliver delivers a slot's records to the sink and its malformed items to the dead letter, and counts both.
func (a *attempt) deliver(ctx context.Context, s *slot) error {
	out, origin := &s.out, s.span.block.Origin
	a.stats.set(func(st *stats) { st.parsed += s.read })
	counts, err := a.deliverRecords(ctx, s)
	if err != nil {
		return err
	}
	a.ackedBytes += s.read
	if origin != a.lastFile {
		a.fileSwitches, a.lastFile = a.fileSwitches+1, origin
	}
	everyBlock := a.codecs[origin.ID.Directory].whole
	deduplicated := a.engine.cfg.Engine.DeduplicateBlocks
	malformed, now := a.malformedLines(origin, out.Bad), a.engine.now()
	a.stats.set(func(st *stats) {
		st.acked += s.read
		st.count(now, out, counts, malformed)
		for _, n := range out.Blocks {
			st.countBlock(n, everyBlock, !deduplicated)
		}
	})
	return nil
}

// deliveryCounts counts how a slot's output was delivered.
type deliveryCounts struct {
	malformed               int64 // lines, and events of other lines
	skipped, skippedRecords int64 // events that were skipped, and their records
	repeats, late           int64 // lines
}

// deliverRecords delivers a slot's records, and writes malformed items to the dead letter.
func (a *attempt) deliverRecords(ctx context.Context, s *slot) (deliveryCounts, error) {
	if a.live.enabled() {
		return a.deliverDeduplicated(ctx, s)
	}
	out := &s.out
	for i := range out.Bad {
		if err := a.deadLetter(ctx, s.span.block, &out.Bad[i]); err != nil {
			return deliveryCounts{}, err
		}
	}
	if len(out.Records) > 0 {
		if err := a.write(ctx, s.span.block, sink.Batch{File: s.span.block.Origin.ID, Data: out.Data,
			Records: out.Records}); err != nil {
			return deliveryCounts{}, err
		}
	}
	return deliveryCounts{malformed: int64(len(out.Bad))}, nil
}

// malformedLines counts the lines that bad is in. A line that was cut into spans counts once.
func (a *attempt) malformedLines(file *buffer.Origin, bad []hyperliquid.Bad) (lines int64) {
	for i := range bad {
		if line := (badLine{file, bad[i].Offset}); line != a.lastBad {
			a.lastBad = line
			lines++
		}
	}
	return lines
}

// write delivers a batch. Records that the sink permanently refuses go to the dead letter.
func (a *attempt) write(ctx context.Context, block *buffer.Block, b sink.Batch) error {
	for {
		err := a.writeUntilAcked(ctx, b)
		refusal, refused := errors.AsType[*sink.Refusal](err)
		if !refused {
			return err
		}
		if b, err = a.skipRefused(ctx, block, b, refusal); err != nil || len(b.Records) == 0 {
			return err
		}
	}
}

// writeUntilAcked writes a batch until the sink acknowledges it or refuses a record. Before it waits for a sink that is
// down it commits what was acknowledged, so that a crash during the outage repeats nothing.
func (a *attempt) writeUntilAcked(ctx context.Context, b sink.Batch) error {
	for retries := newRetries(); ; {
		done := a.trackSinkCall()
		err := a.sink.Write(ctx, b)
		done()
		a.countDelivered()
		if err == nil {
			a.stats.set(func(s *stats) {
				s.lastAck = a.engine.now()
				s.setSink(report.SinkHealthy, nil, s.lastAck)
			})
			return nil
		}
		if !isOutage(err) || ctx.Err() != nil {
			return fmt.Errorf("delivering to the sink: %w", err)
		}
		pause := retries.pause()
		a.recordRetry("delivering to the sink", err, pause)
		if retries.made == 1 && !a.midBlock {
			if err := a.commit(ctx, false); err != nil {
				return err
			}
		}
		if !a.pause(ctx, pause) {
			return fmt.Errorf("delivering to the sink: %w", ctx.Err())
		}
	}
}

// countDelivered adds the records delivered by the sink since the last call to the figures. Records that the sink
// rolled back are subtracted from later ones, so the figure never decreases.
func (a *attempt) countDelivered() {
	now := a.sink.Delivered()
	a.stats.set(func(s *stats) {
		s.rolledBack -= now - a.deliveredCounted
		if s.rolledBack < 0 {
			s.delivered -= s.rolledBack
			s.rolledBack = 0
		}
	})
	a.deliveredCounted = now
}

// skipRefused delivers a batch up to a refused record, writes that record to the dead letter, and returns the rest of
// the batch.
func (a *attempt) skipRefused(ctx context.Context, block *buffer.Block, b sink.Batch,
	refusal *sink.Refusal,
) (rest sink.Batch, err error) {
	i := refusal.Index
	if i > 0 {
		if err := a.write(ctx, block, b.Slice(0, i)); err != nil {
			return rest, err
		}
		a.midBlock = true // the rest of the block is not delivered yet
	}
	err = a.writeDeadLetter(ctx, block, deadletter.Entry{Position: b.Position(i), Reason: refusal.Reason,
		Bytes: b.Record(i)})
	if err != nil {
		return rest, err
	}
	a.stats.set(func(s *stats) { s.malformed++ })
	if a.onRefused != nil {
		if err := a.onRefused(ctx, b, refusal); err != nil {
			return rest, err
		}
	}
	if i+1 < len(b.Records) {
		rest = b.Slice(i+1, len(b.Records))
	}
	return rest, nil
}

// deadLetter writes a malformed line or event to the dead letter. A blank line holds no information: it is counted, and
// not kept.
func (a *attempt) deadLetter(ctx context.Context, block *buffer.Block, bad *hyperliquid.Bad) error {
	if bad.Reason == hyperliquid.ReasonEmpty {
		if !a.blankLogged {
			a.blankLogged = true
			a.log.Warn("a blank line; blank lines are counted as malformed, and not kept",
				"file", block.Origin.Label, "offset", bad.Offset)
		}
		return nil
	}
	if a.malformedLogged < loggedMalformed {
		a.malformedLogged++
		a.log.Warn("malformed; it goes to the dead letter", "reason", bad.Reason, "file", block.Origin.Label,
			"offset", bad.Offset, "index", bad.Index, "excerpt", excerpt(bad.Bytes))
	}
	return a.writeDeadLetter(ctx, block, deadletter.Entry{
		Position: position.Position{File: block.Origin.ID, Offset: bad.Offset, Index: bad.Index}, Reason: bad.Reason,
		Bytes: bad.Bytes,
	})
}

// deadLetteredLine is a line with an entry in the dead letter. Several of its events may have one; the line is measured
// once.
type deadLetteredLine struct {
	origin *buffer.Origin
	offset int64
	bytes  int64
}

func (a *attempt) writeDeadLetter(ctx context.Context, block *buffer.Block, entry deadletter.Entry) error {
	l := deadLetteredLine{origin: block.Origin, offset: entry.Position.Offset}
	if a.lastDeadLettered.origin != l.origin || a.lastDeadLettered.offset != l.offset {
		l.bytes = int64(bytes.IndexByte(block.Data[l.offset-block.Offset:], '\n') + 1)
		a.lastDeadLettered = l
	}
	entry.LineBytes = a.lastDeadLettered.bytes
	err := a.retry(ctx, "writing to the dead letter", func() error { return a.dead.Append(entry) })
	a.countDropped()
	return err
}

// countDropped counts the entries that the dead letter dropped to make room.
func (a *attempt) countDropped() {
	dropped := a.dead.Dropped()
	if dropped == a.droppedCounted {
		return
	}
	if a.droppedCounted == 0 {
		a.log.Warn("the dead letter is full; new entries replace its oldest from now on",
			"file", a.dead.Name(), "dropped", dropped)
	}
	a.stats.set(func(s *stats) { s.deadDropped += dropped - a.droppedCounted })
	a.droppedCounted = dropped
}

// excerpt returns the beginning of a line for the log: at most excerptLength characters. Characters that are not
// printable are escaped.
func excerpt(line []byte) string {
	var b strings.Builder
	for left := excerptLength; len(line) > 0; {
		r, n := utf8.DecodeRune(line)
		text := string(line[:n])
		if r == utf8.RuneError && n == 1 || !strconv.IsPrint(r) {
			quoted := strconv.Quote(text)
			text = quoted[1 : len(quoted)-1]
		}
		if left -= utf8.RuneCountInString(text); left < 0 {
			break
		}
		b.WriteString(text)
		line = line[n:]
	}
	return b.String()
}

// countBlock counts gaps and, without deduplication, repeats. Only in by-block mode does every block have a line, so
// that a jump is a gap. The caller holds mu.
func (s *stats) countBlock(number int64, everyBlock, countRepeats bool) {
	switch {
	case s.lastBlock == 0:
	case number > s.lastBlock && everyBlock:
		s.gaps += number - s.lastBlock - 1
	case countRepeats && (number < s.lastBlock || number == s.lastBlock && everyBlock):
		s.repeats++
	}
	s.lastBlock = max(s.lastBlock, number)
}
