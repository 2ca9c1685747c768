package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

const (
	// loggedMalformed bounds how many malformed lines and events, and how many panics of the encoder, are logged
	// individually. The dead letter holds all of them.
	loggedMalformed = 20
	// excerptLength is the length of an excerpt in the log, in characters.
	excerptLength = 200
)

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
	malformed              int64 // lines, and events of other lines
	skipped, skippedPassed int64 // events that were skipped, and those of them that pass the filter
	repeats, late          int64 // lines
}

// deliverRecords delivers a slot's records, and writes malformed items to the dead letter.
func (a *attempt) deliverRecords(ctx context.Context, s *slot) (deliveryCounts, error) {
	if a.engine.merged != nil {
		return a.deliverMerged(ctx, s)
	}
	return a.deliverUnmerged(ctx, s)
}

func (a *attempt) deliverUnmerged(ctx context.Context, s *slot) (deliveryCounts, error) {
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

// badLine identifies the line of the most recent malformed item.
type badLine struct {
	file   *buffer.Origin
	offset int64
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
		began, done := a.engine.now(), a.trackSinkCall()
		err := a.sink.Write(ctx, b)
		done()
		a.distributions.Request(a.engine.now().Sub(began))
		a.countDelivered()
		if err == nil {
			a.stats.set(func(s *stats) {
				s.lastAck = a.engine.now()
				s.setSink(report.SinkHealthy, nil, s.lastAck)
			})
			a.engine.sampler.Offer(string(a.stream.Name), b)
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
