package engine

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

// The record of what was delivered is bounded, in the process and in the checkpoint. What is evicted is delivered again
// when the node writes it again, which errs towards repetition rather than loss.
const (
	maxIntervals = 1024
	maxPartial   = 16
	maxMissing   = 256      // intervals of one partial block
	recentBlocks = 1024     // blocks whose events are known individually
	recentEvents = 64 << 10 // in all recent blocks; also bounds fileOrder.unseen of the files not in use
	savedEvents  = 4 << 10  // of recentEvents, kept in a checkpoint, for as many of the newest blocks as fit
	maxOrders    = 16
)

// dedupState is what a stream remembers of the chain's blocks and of the order of lines in its files.
//
// Identity is the chain's: an event is known when the sink has acknowledged it or the filter has dropped it, in
// whichever file and however often it was written. In by-block mode an event's index in the block's line identifies it.
// A streaming line identifies only its block, so its events are identified by their content; of equal events in
// consecutive lines of one block each counts. A block whose events were evicted is recognized by the order of lines
// alone.
//
// Order is a file's: a node writes blocks in ascending order until it goes back, and a late line in one file says
// nothing about the lines of another.
type dedupState struct {
	deduplicate, markers bool

	complete         intervals                 // as checkpoint.Blocks.Complete
	ended            intervals                 // as checkpoint.Blocks.Ended
	partial          []checkpoint.PartialBlock // ascending; replaced, never modified
	recent           []recentBlock             // ascending
	recentEventCount int                       // in recent
	orders           []fileOrder               // most recently used file first
	highest          int64                     // highest block of all lines; 0: none yet
	last             int64                     // block of the newest line of all

	currentLine  blockLine // the newest line
	lineRepeated bool      // something of the newest line was skipped
}

// recentBlock is a block whose events are known individually. Its events are replaced or appended to, never modified.
type recentBlock struct {
	block          int64
	events         []uint32
	ended, hasGaps bool
}

// fileOrder is what is known of the order of a file's lines. In streaming mode a visit is a series of consecutive lines
// of one block.
type fileOrder struct {
	checkpoint.Order
	begun bool // Last is the block of a line that was read

	mode           matchMode      // of the visit
	unseen         map[uint32]int // known events that the visit has not shown, in mode matchHashes; nil if it is Fresh
	stale          bool           // unseen was dropped: it belonged to the previous process, or was evicted
	startsMidBlock bool           // the file begins within the highest block, whose beginning another file holds
}

// matchMode is how the known events of a line or a visit are identified.
type matchMode uint8

const (
	deliverAll   matchMode = iota // none is known
	skipAll                       // all are known
	matchHashes                   // by their hashes
	matchMissing                  // by the indices of the missing ones
)

// blockLine is the state of a by-block line that is processed in parts.
type blockLine struct {
	mode    matchMode
	missing intervals      // events that were missing before the line, in mode matchMissing
	unseen  map[uint32]int // events known before the line that it has not shown, in mode matchHashes
	late    bool           // likewise: events that were not known are late
}

// partResult is the decision on a part of a line.
type partResult struct {
	all         bool   // all events are skipped, malformed ones included
	skip        []bool // otherwise, per event, whether it is skipped; nil: none
	gapReported bool   // that its malformed events are missing was reported before
	repeat      bool   // something of the line is skipped; set at most once per line
	late        bool   // it adds to an older block; set at most once per line or visit
	markers     []marker
}

// skips reports whether event i of the part is skipped.
func (t *partResult) skips(i int) bool { return t.all || i < len(t.skip) && t.skip[i] }

// newDedupState restores the state from a checkpoint.
func newDedupState(state *checkpoint.State, settings *config.Engine) dedupState {
	d := dedupState{deduplicate: settings.DeduplicateBlocks, markers: settings.Markers, highest: state.LastBlock}
	b := state.Blocks
	switch {
	case b == nil:
		return d
	case b.Current != 0 && state.Mode == string(config.Streaming):
		d.ended = b.Complete
		return d
	}
	d.complete, d.ended, d.partial, d.last = b.Complete, b.Ended, b.Partial, b.Last
	for _, r := range b.Recent {
		block := recentBlock{block: r.Block, ended: r.Ended, hasGaps: r.Holes}
		for e := r.Events; len(e) >= 4; e = e[4:] {
			block.events = append(block.events, binary.LittleEndian.Uint32(e))
		}
		d.recent, d.recentEventCount = append(d.recent, block), d.recentEventCount+len(block.events)
	}
	for _, o := range b.Orders {
		d.orders = append(d.orders, fileOrder{Order: o, begun: o.Highest > 0, mode: matchHashes, stale: !o.Fresh})
		d.highest = max(d.highest, o.Highest)
	}
	return d
}

// enabled reports whether the state is used at all.
func (d *dedupState) enabled() bool { return d.deduplicate || d.markers }

// clone returns a copy that is independent of d.
func (d *dedupState) clone() dedupState {
	c := *d
	c.recent, c.orders = slices.Clone(d.recent), slices.Clone(d.orders)
	return c
}

// checkpoint returns what a checkpoint records of d, or nil for nothing. It contains only the newest of the recent
// blocks.
func (d *dedupState) checkpoint() *checkpoint.Blocks {
	if len(d.orders) == 0 && len(d.complete) == 0 && len(d.ended) == 0 {
		return nil
	}
	b := &checkpoint.Blocks{Complete: d.complete, Partial: d.partial, Last: d.last}
	first := len(d.recent)
	for events := 0; first > 0; first-- {
		events += len(d.recent[first-1].events)
		if events > savedEvents && first < len(d.recent) {
			break
		}
	}
	ended := d.ended
	for _, r := range d.recent[:first] {
		if r.ended {
			ended = ended.with(r.block)
		}
	}
	b.Ended = ended.newest()
	for _, r := range d.recent[first:] {
		saved := checkpoint.RecentBlock{Block: r.block, Ended: r.ended, Holes: r.hasGaps}
		for _, h := range r.events[:min(len(r.events), savedEvents)] {
			saved.Events = binary.LittleEndian.AppendUint32(saved.Events, h)
		}
		b.Recent = append(b.Recent, saved)
	}
	for i := range d.orders {
		o := d.orders[i].Order
		if !d.orders[i].stale {
			o.Leaves = d.orders[i].mode == skipAll
		}
		b.Orders = append(b.Orders, o)
	}
	return b
}

// orderFor returns the order of a file's lines. The pointer is valid until the next call.
func (d *dedupState) orderFor(file position.FileID) *fileOrder {
	i := slices.IndexFunc(d.orders, func(o fileOrder) bool { return o.FileID == file })
	if i < 0 {
		d.orders = append(d.orders, fileOrder{Order: checkpoint.Order{FileID: file}})
		i = len(d.orders) - 1
	}
	o := d.orders[i]
	copy(d.orders[1:i+1], d.orders[:i])
	d.orders[0] = o
	d.orders = d.orders[:min(len(d.orders), maxOrders)]
	return &d.orders[0]
}

// observe records a part of a line with a valid envelope and decides on its events. hashes are those of its events, bad
// its malformed events. restHasNew reports whether the rest of the line after the part has an event that is not in
// unseen.
func (d *dedupState) observe(o *fileOrder, p *hyperliquid.Part, byBlock bool, bad []hyperliquid.Bad, hashes []uint32,
	restHasNew func(unseen map[uint32]int) bool,
) (t partResult) {
	if p.Index == 0 {
		d.lineRepeated = false
	}
	back := o.goesBack(p.Block, d.highest, byBlock)
	switch {
	case !d.deduplicate:
		t.late = p.Index == 0 && o.begun && !back && d.isLate(o, p.Block, byBlock)
	case byBlock:
		d.observeBlockLine(&t, p, bad, hashes, restHasNew)
	default:
		d.observeStreamingLine(&t, o, p, bad, hashes, restHasNew)
	}
	if !d.lineRepeated && (t.all && (byBlock || p.Events > 0) || slices.Contains(t.skip, true)) {
		t.repeat, d.lineRepeated = true, true
	}
	if p.Index > 0 {
		return t
	}
	if d.markers && d.highest > 0 {
		m := marker{block: p.Block, to: d.highest}
		switch {
		case t.late:
			m.kind = lateMarker
		case byBlock && p.Block > d.highest+1:
			m.kind, m.from, m.to = gapMarker, d.highest+1, p.Block-1
		case back && (t.repeat || byBlock || !d.deduplicate), o.Broken && p.Block == o.Last && t.repeat:
			m.kind = replayMarker
		}
		if m.kind != "" {
			t.markers = append(t.markers, m)
		}
	}
	switch {
	case back && !o.begun:
		o.Until = d.highest
	case back:
		o.Until = max(o.Until, o.Highest)
	}
	if p.Block >= o.Until {
		o.Until = 0
	}
	o.Last, o.Highest, o.Broken, o.begun = p.Block, max(o.Highest, p.Block), false, true
	d.highest, d.last = max(d.highest, p.Block), p.Block
	return t
}

// isLate reports whether a line that continues the order of its file follows a higher block in another file.
func (d *dedupState) isLate(o *fileOrder, block int64, byBlock bool) bool {
	if byBlock {
		return block <= d.last || o.Until == 0 && block <= d.highest
	}
	return block < d.last || o.Until == 0 && block < d.highest && block != d.last
}

// goesBack reports whether a line of the block shows that the node went back. highest is the highest block of all
// earlier lines.
func (o *fileOrder) goesBack(block, highest int64, byBlock bool) bool {
	before := o.Last
	if !o.begun {
		before = highest
	}
	return block < before || byBlock && block == before
}

// allNew reports whether nothing of a part is known, so that all of it is delivered.
func (d *dedupState) allNew(o *fileOrder, p *hyperliquid.Part, byBlock bool, hashes []uint32) bool {
	if !byBlock && !o.beginsVisit(p.Block) {
		switch o.mode {
		case matchHashes:
			return !slices.ContainsFunc(hashes, func(h uint32) bool { return o.unseen[h] > 0 })
		case deliverAll:
			return true
		}
		return false
	}
	_, partial := d.findPartial(p.Block)
	_, recent := d.findRecent(p.Block)
	return !partial && !recent && !d.complete.has(p.Block) && !d.ended.has(p.Block)
}

// observeBlockLine records a part of a line that holds a whole block.
func (d *dedupState) observeBlockLine(t *partResult, p *hyperliquid.Part, bad []hyperliquid.Bad, hashes []uint32,
	restHasNew func(map[uint32]int) bool,
) {
	if p.Index == 0 {
		d.currentLine = d.lookUpBlock(p.Block)
	}
	switch d.currentLine.mode {
	case skipAll:
		t.all = true
		return
	case deliverAll:
		t.late = p.Index == 0 && p.Block < d.highest
		if p.Index == 0 && p.End && len(bad) == 0 {
			d.complete = d.complete.with(p.Block).newest()
			return
		}
	case matchHashes:
		t.skip = make([]bool, len(hashes))
		for i, h := range hashes {
			t.skip[i] = consume(d.currentLine.unseen, h)
		}
	case matchMissing:
		t.gapReported = true
		for i := range p.Events {
			t.skip = append(t.skip, !d.currentLine.missing.has(int64(p.Index+i)))
		}
	}
	if p.Index == 0 && (d.currentLine.mode == matchMissing || d.currentLine.mode == matchHashes && d.currentLine.late) {
		t.late = int64(p.Events) > t.skippedCount(p, bad)+int64(len(bad)) || !p.End && d.currentLine.restHasNew(p, restHasNew)
	}
	if p.End {
		d.dropRecent(p.Block)
	}
	d.setPartial(p.Block, d.missingAfter(t, p, bad))
}

// restHasNew reports whether the rest of the line after its first part may add events. It cannot know yet which missing
// events are malformed again.
func (l *blockLine) restHasNew(p *hyperliquid.Part, restHasNew func(map[uint32]int) bool) bool {
	if l.mode == matchHashes {
		return restHasNew(l.unseen)
	}
	_, adds := l.missing.next(int64(p.Index + p.Events))
	return adds
}

// lookUpBlock returns what is known of a block before its line is processed.
func (d *dedupState) lookUpBlock(block int64) blockLine {
	if d.complete.has(block) || d.ended.has(block) {
		return blockLine{mode: skipAll}
	}
	if at, recent := d.findRecent(block); recent {
		r := &d.recent[at]
		return blockLine{mode: matchHashes, unseen: r.eventCounts(), late: r.ended || r.hasGaps}
	}
	if at, partial := d.findPartial(block); partial {
		return blockLine{mode: matchMissing, missing: d.partial[at].Missing}
	}
	return blockLine{}
}

// missingAfter returns the events of a block that are missing once a part of its line was delivered.
func (d *dedupState) missingAfter(t *partResult, p *hyperliquid.Part, bad []hyperliquid.Bad) intervals {
	missing := intervals{{First: 0, Last: unbounded}}
	at, partial := d.findPartial(p.Block)
	switch {
	case p.Index == 0 && d.currentLine.mode != matchMissing:
	case partial:
		missing = d.partial[at].Missing
	case d.complete.has(p.Block):
		missing = nil
	}
	next := int64(p.Index + p.Events)
	if p.Events > 0 {
		missing = missing.without(int64(p.Index), next-1)
	}
	if p.End {
		missing = missing.without(next, unbounded)
	}
	for _, b := range bad {
		if len(missing) > maxMissing {
			break // it is evicted anyway
		}
		if !p.Failed && !t.skips(b.Event-p.Index) {
			missing = missing.with(int64(b.Event))
		}
	}
	return missing
}

// consume reports whether an event is in unseen, and removes it.
func consume(unseen map[uint32]int, hash uint32) bool {
	n := unseen[hash]
	switch n {
	case 0:
		return false
	case 1:
		delete(unseen, hash)
	default:
		unseen[hash] = n - 1
	}
	return true
}

func (r *recentBlock) eventCounts() map[uint32]int {
	counts := make(map[uint32]int, len(r.events))
	for _, h := range r.events {
		counts[h]++
	}
	return counts
}

// beginsVisit reports whether a streaming line of the block begins a visit.
func (o *fileOrder) beginsVisit(block int64) bool {
	return !o.begun || o.stale || o.Broken || block != o.Last
}

// observeStreamingLine records a part of a streaming line.
func (d *dedupState) observeStreamingLine(t *partResult, o *fileOrder, p *hyperliquid.Part, bad []hyperliquid.Bad,
	hashes []uint32, restHasNew func(map[uint32]int) bool,
) {
	if o.beginsVisit(p.Block) {
		d.beginVisit(o, p.Block)
	}
	if o.mode == skipAll {
		t.all = true
		return
	}
	at, recent := d.findRecent(p.Block)
	adds, malformed := false, bad
	for i, h := range hashes {
		switch {
		case len(malformed) > 0 && malformed[0].Event == p.Index+i:
			malformed = malformed[1:]
		case consume(o.unseen, h):
			if t.skip == nil {
				t.skip = make([]bool, p.Events)
			}
			t.skip[i] = true
		default:
			adds = true
			if recent && len(d.recent[at].events) < recentEvents {
				d.recent[at].events = append(d.recent[at].events, h)
				d.recentEventCount++
				d.addToOtherVisits(o, p.Block, h)
			}
		}
	}
	if len(bad) > 0 {
		o.Sound = false
		if recent {
			d.recent[at].hasGaps = true
		}
	}
	late := p.Index == 0 && (o.Late || o.begun && p.Block >= o.Last && d.isLate(o, p.Block, false))
	if late && (adds || !p.End && restHasNew(o.unseen)) {
		t.late, o.Late = true, false
	}
	d.evict(p.Block)
}

// addToOtherVisits adds an event that became known through o to the unseen events of other files' visits to the block.
func (d *dedupState) addToOtherVisits(o *fileOrder, block int64, hash uint32) {
	for i := range d.orders {
		q := &d.orders[i]
		if q == o || q.Last != block || q.mode != matchHashes || !q.begun || q.stale {
			continue
		}
		if q.unseen == nil {
			q.unseen = map[uint32]int{}
		}
		q.unseen[hash]++
		q.Fresh = false
	}
}

// beginVisit begins a visit to a block.
func (d *dedupState) beginVisit(o *fileOrder, block int64) {
	if o.begun && !o.Broken && block > o.Last && o.Sound && (o.Fresh || o.startsMidBlock || o.mode == matchHashes &&
		len(o.unseen) == 0) {
		d.markEnded(o)
	}
	at, recent := d.findRecent(block)
	onward := o.begun && !o.Broken && block > o.Last
	mayLeave := onward && o.Until != 0 && block <= o.Until
	if mayLeave {
		next, _ := d.ended.next(o.Last + 1)
		mayLeave = next == block // a replay skips no block
	}
	goesOn, late := o.stale && !o.Broken && block == o.Last, o.Late
	o.startsMidBlock = !o.begun && block == d.highest
	o.unseen, o.stale, o.Fresh, o.Sound, o.Late = nil, false, false, !o.Broken, false
	switch {
	case d.complete.has(block):
		o.mode = skipAll
	case recent:
		r := &d.recent[at]
		o.mode, o.unseen, o.Late = matchHashes, r.eventCounts(), r.ended || r.hasGaps || block < d.highest
	case d.ended.has(block) && (mayLeave || goesOn && o.Leaves):
		o.mode = skipAll
	case d.ended.has(block):
		o.mode, o.Late = deliverAll, true
	default:
		o.mode, o.Fresh, o.Late = matchHashes, true, block < d.highest
		d.recent = slices.Insert(d.recent, at, recentBlock{block: block, hasGaps: o.Broken})
	}
	if goesOn {
		o.Late = late
	}
	d.trimVisits(o)
}

// trimVisits bounds the unseen events of visits. The visit of the current file keeps its own.
func (d *dedupState) trimVisits(but *fileOrder) {
	total := 0
	for i := range d.orders {
		o := &d.orders[i]
		if o == but {
			continue
		}
		if total += len(o.unseen); total > recentEvents {
			o.unseen, o.stale = nil, true
		}
	}
}

// markEnded records that the node continued after a block, and that everything it wrote of the block is known.
func (d *dedupState) markEnded(o *fileOrder) {
	if at, found := d.findRecent(o.Last); found && (!d.recent[at].hasGaps || !o.startsMidBlock) {
		d.recent[at].ended, d.recent[at].hasGaps = true, false
	}
}

// evict drops the events of the oldest blocks, except block but, until the state is within its bounds.
func (d *dedupState) evict(but int64) {
	for len(d.recent) > 1 && (d.recentEventCount > recentEvents || len(d.recent) > recentBlocks) {
		oldest := d.recent[0]
		if oldest.block == but {
			oldest = d.recent[1]
		}
		if oldest.ended {
			d.ended = d.ended.with(oldest.block).newest()
		}
		d.dropRecent(oldest.block)
	}
}

// markBroken records that something after a file's newest line cannot be read.
func (d *dedupState) markBroken(o *fileOrder) {
	o.Broken = true
	if at, found := d.findRecent(o.Last); found {
		d.recent[at].hasGaps = true
	}
}

// forgetEvent removes an event that the sink refused from the known ones.
func (d *dedupState) forgetEvent(p *hyperliquid.Part, index int, byBlock bool, hash uint32) {
	if byBlock {
		at, partial := d.findPartial(p.Block)
		var missing intervals
		if partial {
			missing = d.partial[at].Missing
		}
		d.complete = d.complete.without(p.Block, p.Block)
		d.setPartial(p.Block, missing.with(int64(index)))
		return
	}
	for i := range d.orders {
		if d.orders[i].Last == p.Block {
			d.orders[i].Sound = false
		}
	}
	at, found := d.findRecent(p.Block)
	if !found {
		d.ended = d.ended.without(p.Block, p.Block)
		return
	}
	r := &d.recent[at]
	r.hasGaps, r.ended = true, false
	if i := slices.Index(r.events, hash); i >= 0 {
		r.events = slices.Delete(slices.Clone(r.events), i, i+1)
		d.recentEventCount--
	}
}

func (d *dedupState) findRecent(block int64) (int, bool) {
	return slices.BinarySearchFunc(d.recent, block, func(r recentBlock, block int64) int {
		return cmp.Compare(r.block, block)
	})
}

func (d *dedupState) dropRecent(block int64) {
	if at, found := d.findRecent(block); found {
		d.recentEventCount -= len(d.recent[at].events)
		d.recent = slices.Delete(d.recent, at, at+1)
	}
}

func (d *dedupState) findPartial(block int64) (int, bool) {
	return slices.BinarySearchFunc(d.partial, block, func(p checkpoint.PartialBlock, block int64) int {
		return cmp.Compare(p.Block, block)
	})
}

// setPartial records which events of a block are missing. A block that misses none is complete; one with too many gaps
// is dropped.
func (d *dedupState) setPartial(block int64, missing intervals) {
	at, found := d.findPartial(block)
	partial := slices.Clone(d.partial)
	if found {
		partial = slices.Delete(partial, at, at+1)
	}
	switch {
	case len(missing) == 0:
		d.complete = d.complete.with(block).newest()
	case len(missing) <= maxMissing:
		partial = slices.Insert(partial, at, checkpoint.PartialBlock{Block: block, Missing: missing})
		if len(partial) > maxPartial {
			oldest := 0
			if partial[0].Block == block {
				oldest = 1
			}
			partial = slices.Delete(partial, oldest, oldest+1)
		}
	}
	d.partial = partial
}
