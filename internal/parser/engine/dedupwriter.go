package engine

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"unsafe"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// maxCopied bounds the records and markers that are copied into one batch, in bytes.
const maxCopied = minOutput

// dedupWriter delivers a slot's output with deduplicateBlocks or markers. It decides what is known in delivery order,
// and not when the output is encoded: only then is the outcome of everything before it known.
type dedupWriter struct {
	*attempt
	slot   *slot
	whole  bool
	order  *fileOrder
	counts deliveryCounts

	batch    sink.Batch // copied records and markers, delivered before
	from, to int        // these records of the slot's output
}

func (a *attempt) deliverDeduplicated(ctx context.Context, s *slot) (deliveryCounts, error) {
	block, out := s.span.block, &s.out
	w := dedupWriter{
		attempt: a, slot: s, whole: a.codecs[block.Origin.ID.Directory].whole,
		order: a.live.orderFor(block.Origin.ID), batch: sink.Batch{File: block.Origin.ID},
	}
	var marks []marker
	if s.span.first {
		for _, skip := range block.Skipped {
			if skip.File == nameOf(block.Origin.ID) {
				a.live.markBroken(w.order)
			}
			marks = append(marks, marker{kind: skippedMarker, skip: skip})
		}
		if len(out.Parts) == 0 || out.Parts[0].Offset > block.Offset {
			if err := w.writeMarkers(ctx, block.Offset, marks); err != nil {
				return w.counts, err
			}
			marks = nil
		}
	}
	for i := range out.Parts {
		next := hyperliquid.Part{Records: len(out.Records), Bad: len(out.Bad)}
		if i+1 < len(out.Parts) {
			next = out.Parts[i+1]
		}
		w.keepUpTo(out.Parts[i].Records)
		if err := w.writePart(ctx, &out.Parts[i], next, marks); err != nil {
			return w.counts, err
		}
		marks = nil
	}
	w.keepUpTo(len(out.Records))
	return w.counts, w.flush(ctx)
}

// writePart delivers a part and its output up to the next part, after the markers that precede its line.
func (w *dedupWriter) writePart(ctx context.Context, p *hyperliquid.Part, next hyperliquid.Part, marks []marker) error {
	out, d := &w.slot.out, &w.live
	bad := out.Bad[p.Bad:next.Bad]
	if p.Unreadable {
		if bad[0].Reason != hyperliquid.ReasonEmpty { // a blank line loses nothing
			d.markBroken(w.order)
			marks = append(marks, marker{kind: deadLetterMarker, bytes: int64(len(bad[0].Bytes)), reason: bad[0].Reason})
		}
		if err := w.writeMarkers(ctx, p.Offset, marks); err != nil {
			return err
		}
		w.counts.malformed++
		return w.deadLetter(ctx, w.slot.span.block, &bad[0])
	}
	var hashes []uint32
	if len(out.Hashes) > 0 {
		hashes = out.Hashes[p.Hashes : p.Hashes+p.Events]
	}
	// A record that the sink refuses is not known, so that its copy in the same batch is delivered.
	if d.deduplicate && w.pending() && !d.allNew(w.order, p, w.whole, hashes) {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	t := d.observe(w.order, p, w.whole, bad, hashes, func(unseen map[uint32]int) bool { return w.restHasNew(p, unseen) })
	if t.repeat {
		w.counts.repeats++
	}
	if t.late {
		w.counts.late++
	}
	if err := w.writeMarkers(ctx, p.Offset, append(marks, t.markers...)); err != nil {
		return err
	}
	if p.Failed {
		d.markBroken(w.order)
	}
	w.counts.skipped += t.skippedCount(p, bad)
	rest, err := w.writeRestOfEvent(ctx, p, next.Records)
	if err != nil {
		return err
	}
	if p.Events > 0 {
		w.splitEvent = splitEvent{skipped: t.skips(p.Events - 1)}
		if len(hashes) > 0 {
			w.splitEvent.hash = hashes[p.Events-1]
		}
	}
	last := -1
	for i := rest; i < next.Records && (t.all || t.skip != nil || len(bad) > 0); i++ {
		index := int(out.Records[i].Event)
		for ; len(bad) > 0 && bad[0].Event < index; bad = bad[1:] {
			if err := w.writeMalformed(ctx, p, &bad[0], &t); err != nil {
				return err
			}
		}
		if !t.skips(index - p.Index) {
			w.keepUpTo(i + 1)
			continue
		}
		if index != last {
			w.counts.skippedPassed++
			last = index
		}
		if err := w.skipRecord(ctx, i); err != nil {
			return err
		}
	}
	for i := range bad {
		if err := w.writeMalformed(ctx, p, &bad[i], &t); err != nil {
			return err
		}
	}
	w.keepUpTo(next.Records)
	return nil
}

// splitEvent is the last event of the parts so far. If it has many records, the rest of them may follow in other
// outputs: before the events of their parts, which it does not belong to.
type splitEvent struct {
	skipped bool
	hash    uint32
}

// writeRestOfEvent keeps or skips the records of an event that began before the part, and returns the first record
// after them.
func (w *dedupWriter) writeRestOfEvent(ctx context.Context, p *hyperliquid.Part, next int) (i int, err error) {
	records, skipped := w.slot.out.Records, w.splitEvent.skipped
	for i = p.Records; i < next && int(records[i].Event) < p.Index; i++ {
		if !skipped {
			w.keepUpTo(i + 1)
		} else if err := w.skipRecord(ctx, i); err != nil {
			return i, err
		}
	}
	return i, nil
}

// writeMalformed writes a malformed event to the dead letter, unless the event is known.
func (w *dedupWriter) writeMalformed(ctx context.Context, p *hyperliquid.Part, bad *hyperliquid.Bad,
	t *partResult,
) error {
	if t.skips(bad.Event - p.Index) {
		return nil
	}
	if w.live.markers && !t.gapReported {
		if err := w.writeMarker(ctx, w.deadEventMarker(p, bad.Offset, bad.Index, bad.Event, bad.Reason)); err != nil {
			return err
		}
	}
	w.counts.malformed++
	return w.deadLetter(ctx, w.slot.span.block, bad)
}

// deadEventMarker is the marker of an event in the dead letter, or of one of its records. It takes that one's place.
func (w *dedupWriter) deadEventMarker(p *hyperliquid.Part, offset int64, index, event int, reason string) marker {
	return marker{kind: gapMarker, block: p.Block, from: p.Block, to: p.Block, isEvent: true,
		event: p.Before + int64(event), reason: reason, offset: offset, index: int32(index)}
}

// restHasNew reports whether the rest of a line after a part has an event that is not in unseen.
func (w *dedupWriter) restHasNew(p *hyperliquid.Part, unseen map[uint32]int) (adds bool) {
	defer func() {
		if recover() != nil {
			adds = true // nothing is known of a line on which the encoder panics
		}
	}()
	block := w.slot.span.block
	line := block.Data[p.Offset-block.Offset:]
	unseen = maps.Clone(unseen)
	w.codecs[block.Origin.ID.Directory].encoder.Rest(line[:bytes.IndexByte(line, '\n')+1], p.Index+p.Events,
		func(hash uint32) bool {
			adds = !consume(unseen, hash)
			return !adds
		})
	return adds
}

// pending reports whether flush has something to write.
func (w *dedupWriter) pending() bool { return w.to > w.from || len(w.batch.Records) > 0 }

// keepUpTo keeps the records before n that were neither kept nor skipped.
func (w *dedupWriter) keepUpTo(n int) { w.to = max(w.to, n) }

// skipRecord skips record i. All records before i must be kept or skipped.
func (w *dedupWriter) skipRecord(ctx context.Context, i int) error {
	err := w.copyKept(ctx)
	w.from, w.to = i+1, i+1
	return err
}

// copyKept copies the kept records into the batch. If they are too large it delivers them instead, because a copy would
// double their memory.
func (w *dedupWriter) copyKept(ctx context.Context) error {
	if w.from == w.to {
		return nil
	}
	kept := w.allRecords().Slice(w.from, w.to)
	if !w.fits(kept) {
		return w.flush(ctx)
	}
	w.append(kept)
	w.from = w.to
	return nil
}

// fits reports whether records may be copied into the batch.
func (w *dedupWriter) fits(b sink.Batch) bool {
	const each = int(unsafe.Sizeof(sink.Record{}))
	return len(w.batch.Data)+len(b.Data)+each*(len(w.batch.Records)+len(b.Records)) <= maxCopied
}

func (w *dedupWriter) append(b sink.Batch) {
	n := len(w.batch.Data)
	w.batch.Data = append(w.batch.Data, b.Data...)
	for _, r := range b.Records {
		r.End += n
		w.batch.Records = append(w.batch.Records, r)
	}
}

// allRecords returns the records of the slot's output.
func (w *dedupWriter) allRecords() sink.Batch {
	return sink.Batch{File: w.batch.File, Data: w.slot.out.Data, Records: w.slot.out.Records}
}

// writeMarkers delivers the markers that precede the line at offset, if markers are enabled.
func (w *dedupWriter) writeMarkers(ctx context.Context, offset int64, marks []marker) error {
	if !w.live.markers {
		return nil
	}
	skips := 0
	for _, m := range marks {
		if m.kind == skippedMarker {
			skips++
		}
	}
	for i, m := range marks { // skipped markers come first
		m.offset, m.index = offset, int32(i-len(marks))
		if m.kind == skippedMarker {
			m.index = int32(i - skips - maxLineMarkers)
		}
		if err := w.writeMarker(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// writeMarker delivers a marker in its place.
func (w *dedupWriter) writeMarker(ctx context.Context, m marker) error {
	text, err := m.text(w.engine.cfg.Target, w.stream.Name, w.batch.File)
	if err != nil {
		return err
	}
	if err := w.copyKept(ctx); err != nil {
		return err
	}
	b := sink.Batch{Data: text, Records: []sink.Record{{End: len(text), Offset: m.offset, Index: m.index}}}
	if !w.fits(b) {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	w.append(b)
	return nil
}

// flush writes what is pending.
func (w *dedupWriter) flush(ctx context.Context) error {
	kept := w.allRecords().Slice(w.from, w.to)
	w.from = w.to
	if len(w.batch.Records) > 0 && w.fits(kept) {
		w.append(kept)
		kept = sink.Batch{}
	}
	copied := w.batch
	w.batch = sink.Batch{File: copied.File}
	for _, b := range []sink.Batch{copied, kept} {
		if len(b.Records) == 0 {
			continue
		}
		w.onRefused = w.handleRefusal
		err := w.write(ctx, w.slot.span.block, b)
		w.onRefused = nil
		if err != nil {
			return err
		}
		w.midBlock = true // the rest of the block is not delivered yet
	}
	return nil
}

// handleRefusal forgets the event of a refused record, and delivers a marker in its place.
func (w *dedupWriter) handleRefusal(ctx context.Context, b sink.Batch, refusal *sink.Refusal) error {
	out, record := &w.slot.out, b.Records[refusal.Index]
	i, found := slices.BinarySearchFunc(out.Records, record, func(a, b sink.Record) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Index, b.Index))
	})
	if !found {
		return nil // a marker
	}
	m := marker{kind: deadLetterMarker, bytes: int64(len(b.Record(refusal.Index))), reason: refusal.Reason,
		offset: record.Offset}
	at, _ := slices.BinarySearchFunc(out.Parts, i+1, func(p hyperliquid.Part, i int) int {
		return cmp.Compare(p.Records, i)
	})
	if at > 0 && !out.Parts[at-1].Unreadable { // in line mode only unreadable lines have parts
		p := &out.Parts[at-1]
		m = w.deadEventMarker(p, record.Offset, int(record.Index), int(record.Event), refusal.Reason)
		if w.live.deduplicate {
			hash := w.splitEvent.hash
			if i := int(record.Event) - p.Index; i >= 0 && len(out.Hashes) > 0 {
				hash = out.Hashes[p.Hashes+i]
			}
			w.live.forgetEvent(p, int(record.Event), w.whole, hash)
		}
	}
	if !w.live.markers {
		return nil
	}
	text, err := m.text(w.engine.cfg.Target, w.stream.Name, b.File)
	if err != nil {
		return err
	}
	w.onRefused = nil
	err = w.write(ctx, w.slot.span.block, sink.Batch{File: b.File, Data: text, Records: []sink.Record{
		{End: len(text), Offset: m.offset, Index: m.index},
	}})
	w.onRefused = w.handleRefusal
	w.midBlock = true
	return err
}

// skippedCount counts the events of a part that are skipped and not malformed.
func (t *partResult) skippedCount(p *hyperliquid.Part, bad []hyperliquid.Bad) int64 {
	if t.all {
		return int64(max(p.Events-len(bad), 0))
	}
	n := int64(0)
	for _, skip := range t.skip {
		if skip {
			n++
		}
	}
	for _, b := range bad {
		if t.skips(b.Event - p.Index) {
			n--
		}
	}
	return n
}
