// Package merge delivers the streams of a parser as one, in the order of the chain's blocks.
//
// It stands between the pipelines of the streams and one sink. For each stream it is the destination: Write returns
// once the sink has acknowledged the records, so that a pipeline waits while another one is behind, and no record is
// held twice. Towards the sink it is one stream, named "blocks", whose records have the positions of that stream: the
// block as the offset, and a number within the block as the index.
//
// # Order
//
// A line's key is its block, or a later one if its stream or the merged stream is already past that block, as after a
// restart of the node. Lines are ordered by key, those of one key by the order of the streams, and those of one stream
// as they were written. A line is delivered when no stream can bring one that precedes it: each other stream has shown
// a line, or has shown that it is past the key. In by-block mode a stream is past a block at the end of the block's
// line, in streaming mode at its next line with a higher block. After the last line of a block a marker describes the
// block.
//
// A stream that brings nothing for the patience while others wait is silent: the others continue without it, and a
// marker says so. Another marker says when it is back.
//
// # Exactly once
//
// The checkpoint of "blocks" holds the sink's state, the point up to which each stream is delivered, and the state of
// the order, and is saved before the checkpoint of any stream. A stream that starts before its point is not delivered
// up to there.
//
// The order depends on the content of the streams only, and on who is silent. It must be the same when a part of it is
// delivered again after a crash, because a sink that stores its position recognizes records by their positions. So the
// decision that a stream is silent, or is back, is saved before anything that depends on it is delivered, and none is
// made while the sink still skips records that it has.
//
// The package must never drop or duplicate a record, never wait for ever for a stream, never deliver beyond an unsaved
// decision, and never hold more than one batch of copied records besides what the pipelines hold.
package merge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/resume"
)

// Stream is the name of the merged stream in the state directory and at the sink.
const Stream = "blocks"

// Kind marks the states of the streams in their checkpoints.
const Kind = "blocks"

// Options configure a Merger.
type Options struct {
	// Streams are merged. Of one block, the events of earlier streams come first.
	Streams []Source
	// Target appears in markers.
	Target string
	// Patience is how long the others wait for a stream that brings nothing. It must be positive.
	Patience time.Duration
	// Output opens Stream at the sink. Close does not close it.
	Output sink.Output
	// Store returns the checkpoints of Stream. It is called once for each session with the sink.
	Store func() (*checkpoint.Store, error)
	// Stopping is closed when the streams stop. From then on no stream waits for another.
	Stopping <-chan struct{}
	// CloseTimeout bounds the last commit.
	CloseTimeout time.Duration
}

// Source is a stream to merge.
type Source struct {
	Name  string // in markers, such as "OrderStatuses"
	Kebab string // in the state directory, such as "order-statuses"
}

// Part describes what a stream delivers of one line.
type Part struct {
	Offset int64 // of the line in its file
	Block  int64 // 0 if the line is unreadable
	Index  int   // of the first event in the line
	Events int   // number of events, including those that the filter drops
	Last   int32 // the highest index of a record of the part, also of those that the filter drops

	End    bool // the line ends with this part
	Whole  bool // the line holds all events of its block: by-block mode
	Faulty bool // the line, or one of its events, is in the dead letter

	BlockTime, LocalTime []byte // JSON strings, or nil
}

// Merger is an output whose sinks deliver in the order of blocks. Its methods may be called concurrently.
type Merger struct {
	opts Options

	mu      sync.Mutex
	session *session
	opening bool
	change  broadcast // of session or opening
	// finished reports, by stream, that no record will follow. It outlives a session: a stream may be done before another
	// has opened.
	finished []atomic.Bool
	parts    [][]Part // of each stream's current batch; see Expect
}

// New returns a merger that is idle until a stream is opened.
func New(opts Options) *Merger {
	return &Merger{opts: opts, change: newBroadcast(), parts: make([][]Part, len(opts.Streams)),
		finished: make([]atomic.Bool, len(opts.Streams))}
}

func (m *Merger) indexOf(stream string) int {
	return slices.IndexFunc(m.opts.Streams, func(s Source) bool { return s.Kebab == stream })
}

// broadcast wakes all that wait for a change. The lock of what changes guards it.
type broadcast struct{ changed chan struct{} }

func newBroadcast() broadcast { return broadcast{make(chan struct{})} }

func (b *broadcast) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Expect describes the lines that the records of the stream's next writes come from, in order. A Write without records
// ends them: it returns when all of them have taken their place. parts is used until then.
func (m *Merger) Expect(stream string, parts []Part) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts[m.indexOf(stream)] = parts
}

// Open implements sink.Output. It opens the sink with the first stream. After an error that ends the session with the
// sink, it waits until all streams have closed theirs. A stream that opens again waits for the sink to have its lines.
func (m *Merger) Open(ctx context.Context, stream string, state json.RawMessage) (sink.Sink, error) {
	i := m.indexOf(stream)
	if i < 0 {
		return nil, fmt.Errorf("%w: stream %s is not merged", sink.ErrFailed, stream)
	}
	var saved *resume.State
	if len(state) > 0 {
		if err := json.Unmarshal(state, &saved); err != nil {
			return nil, fmt.Errorf("%w: reading the sink's part of the checkpoint of %s: %w", sink.ErrFailed, stream, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.opening || m.session != nil && m.session.hasEnded() {
		if err := m.await(ctx); err != nil {
			return nil, err
		}
	}
	if m.session == nil {
		m.opening = true
		m.mu.Unlock()
		s, err := openSession(ctx, m)
		m.mu.Lock()
		m.opening = false
		m.session = s
		m.change.wake()
		if err != nil {
			return nil, err
		}
	}
	session := m.session
	session.reserve()
	m.mu.Unlock()
	err := session.settle(ctx, i)
	m.mu.Lock()
	var opened *member
	if err == nil {
		opened, err = session.join(m, i, saved)
	}
	if err != nil {
		if session.cancel() == 0 {
			err = errors.Join(err, m.endSession())
		}
		return nil, err
	}
	return opened, nil
}

// await waits for a change. The lock must be held.
func (m *Merger) await(ctx context.Context) error {
	changed := m.change.changed
	m.mu.Unlock()
	defer m.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// endSession closes the sink after the last stream has left. The lock must be held; it is released meanwhile.
func (m *Merger) endSession() error {
	s := m.session
	m.opening = true // nobody joins
	m.mu.Unlock()
	err := s.close()
	m.mu.Lock()
	m.session, m.opening = nil, false
	m.change.wake()
	return err
}

// Close implements sink.Output. All streams must be closed.
func (m *Merger) Close() error { return nil }

// member is one stream's sink.
type member struct {
	merger  *Merger
	session *session
	stream  int
	tracker *resume.Tracker

	items    []item // of the Write in progress
	next     int    // the first of items that has not taken its place
	consumed []reached
	last     uint64 // the batch that holds the newest consumed item
	refused  bool   // a record of the Write in progress may be in the session's refused ones
	changed  uint64 // the version of the session with this stream's newest progress
	state    resume.State
	encoded  json.RawMessage // state

	delivered int64
}

// reached is how far a stream has taken its place in one file.
type reached struct {
	file  position.FileID
	point resume.Point
}

// endOfLine is the index of the point after all events of a line.
const endOfLine = 1<<31 - 1

// item is a part of a line whose records take their place together.
type item struct {
	block     int64
	lines     bool  // it has several lines, all of them whole, with that many events
	events    int64 // likewise
	offset    int64 // otherwise: of the line
	upTo      int   // the events of the line up to the end of the part; 0 if more of the part follows
	ended     bool  // the line ends
	whole     bool
	faulty    bool
	blockTime []byte
	localTime []byte

	batch    *sink.Batch // nil: no records
	from, to int         // the records of batch
	point    reached
}

var errStopped = fmt.Errorf("stopped while waiting for another stream: %w", context.Canceled)

// Write implements sink.Sink. It returns when all records have been acknowledged, in their places. A batch without
// records stands for the rest of the parts that Expect announced.
func (m *member) Write(ctx context.Context, b sink.Batch) error {
	m.merger.mu.Lock()
	parts := m.merger.parts[m.stream]
	m.merger.mu.Unlock()
	s := m.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if refusal := m.prepare(&b, parts); refusal != nil {
		return refusal
	}
	if len(m.items) > 0 {
		s.since[m.stream] = time.Time{}
		s.change.wake()
	}
	defer func() { m.items, m.next = m.items[:0], 0 }()
	for {
		switch {
		case s.ended != nil:
			return s.ended
		case m.refused:
			m.refused = false
			if refusal := m.refusalIn(&b, len(b.Records)); refusal != nil {
				return refusal
			}
		case m.next == len(m.items) && m.last <= s.acked:
			return nil
		}
		progress, err := s.advance(ctx)
		if err != nil {
			return err
		}
		if progress {
			continue
		}
		if err := s.await(ctx, m.merger.opts.Stopping); err != nil {
			return err
		}
	}
}

// prepare cuts a batch into items, without what has taken its place before. It returns a refusal that was saved, and
// that the stream may not have saved yet.
func (m *member) prepare(b *sink.Batch, parts []Part) *sink.Refusal {
	m.items, m.next = m.items[:0], 0
	rest := len(b.Records) == 0
	if rest && len(parts) == 0 {
		return nil
	}
	var first resume.Point
	if rest {
		first = resume.Point{Offset: parts[0].Offset, Index: int32(parts[0].Index)}
	} else {
		first = resume.PointOf(*b, 0)
	}
	until, known := m.until(b.File, first)
	if !known {
		until = resume.Point{Offset: -1}
	}
	r, _ := slices.BinarySearchFunc(b.Records, until, func(r sink.Record, until resume.Point) int {
		if (resume.Point{Offset: r.Offset, Index: r.Index}).Compare(until) <= 0 {
			return -1
		}
		return 1
	})
	if refusal := m.refusalIn(b, r); refusal != nil {
		return refusal
	}
	for p := range parts {
		part := &parts[p]
		end := part.end()
		if end.Compare(until) <= 0 {
			continue
		}
		if !rest && r == len(b.Records) {
			break
		}
		from := r
		for r < len(b.Records) && b.Records[r].Offset < part.Offset { // a marker before the first line
			r++
		}
		if r > from {
			m.add(item{batch: b, from: from, to: r, point: reached{b.File, resume.PointOf(*b, r-1)}})
			from = r
		}
		for r < len(b.Records) && b.Records[r].Offset == part.Offset {
			r++
		}
		if !rest && r == len(b.Records) { // more of the part may follow
			if r > from {
				end = resume.PointOf(*b, r-1)
				m.addPart(b, part, from, r, end)
			}
			break
		}
		if part.isLine() && until.Offset != part.Offset {
			m.addLine(b, part, from, r)
			continue
		}
		m.addPart(b, part, from, r, end)
	}
	if r < len(b.Records) { // records that no part announces keep their place
		m.add(item{batch: b, from: r, to: len(b.Records), point: reached{b.File, resume.PointOf(*b, len(b.Records)-1)}})
	}
	return nil
}

// refusalIn returns the first refusal of the records before n of a batch, or nil.
func (m *member) refusalIn(b *sink.Batch, n int) *sink.Refusal {
	known := m.session.refused[m.stream]
	for i := range n {
		if len(known) == 0 {
			break
		}
		if reason, refused := known.find(b.File, resume.PointOf(*b, i)); refused {
			return &sink.Refusal{Index: i, Reason: reason}
		}
	}
	return nil
}

// end returns the point after the part.
func (p *Part) end() resume.Point {
	if p.End || p.Block == 0 {
		return resume.Point{Offset: p.Offset, Index: endOfLine}
	}
	return resume.Point{Offset: p.Offset, Index: p.Last}
}

// addPart adds some of the batch's records, which belong to a part, up to the point at.
func (m *member) addPart(b *sink.Batch, p *Part, from, to int, at resume.Point) {
	i := item{
		block: p.Block, offset: p.Offset, whole: p.Whole, faulty: p.Faulty || p.Block == 0,
		blockTime: p.BlockTime, localTime: p.LocalTime, point: reached{b.File, at},
	}
	if at == p.end() {
		i.upTo, i.ended = p.Index+p.Events, p.End
	}
	if to > from {
		i.batch, i.from, i.to = b, from, to
	}
	m.add(i)
}

// isLine reports whether the part is all of one of its block's lines.
func (p *Part) isLine() bool { return p.Index == 0 && p.End && !p.Whole && !p.Faulty && p.Block > 0 }

// addLine adds a line. Consecutive lines of one block are one item: streaming mode has many.
func (m *member) addLine(b *sink.Batch, p *Part, from, to int) {
	n := len(m.items)
	if n == 0 || !m.items[n-1].lines || m.items[n-1].block != p.Block {
		m.add(item{block: p.Block, lines: true, blockTime: p.BlockTime, from: from, to: from})
		n++
	}
	i := &m.items[n-1]
	i.events += int64(p.Events)
	i.point = reached{b.File, p.end()}
	if to > from {
		i.batch, i.to = b, to
	}
	if bytes.Compare(p.LocalTime, i.localTime) > 0 {
		i.localTime = p.LocalTime
	}
}

func (m *member) add(i item) { m.items = append(m.items, i) }

// until returns the point up to which a file of the stream has taken its place.
func (m *member) until(file position.FileID, first resume.Point) (until resume.Point, known bool) {
	until, known = m.tracker.Until(file, first)
	for i := range m.consumed {
		if c := &m.consumed[i]; c.file == file && (!known || c.point.Compare(until) > 0) {
			until, known = c.point, true
		}
	}
	return until, known
}

// consume records that the next item has taken its place in a batch.
func (m *member) consume(batch uint64) {
	p := m.items[m.next].point
	m.next++
	m.last = batch
	for i := range m.consumed {
		if m.consumed[i].file == p.file {
			m.consumed[i].point = p.point
			return
		}
	}
	m.consumed = append(m.consumed, p)
}

// Flush implements sink.Sink.
func (m *member) Flush(_ context.Context, final bool) (sink.Flushed, error) {
	s := m.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return sink.Flushed{}, s.ended
	}
	state := m.tracker.Flush()
	if m.encoded == nil || state.Generation != m.state.Generation {
		encoded, err := json.Marshal(state)
		if err != nil {
			return sink.Flushed{}, fmt.Errorf("encoding the state of a merged stream: %w", err)
		}
		m.state, m.encoded = state, encoded
		s.saved.Streams[m.stream].Generation = state.Generation
		s.version++
		m.changed = s.version
	}
	if final && !m.merger.finished[m.stream].Swap(true) {
		s.version++
		m.changed = s.version
		s.change.wake()
	}
	f := sink.Flushed{State: m.encoded}
	if want := m.changed; s.committed < want {
		f.Sync = func(ctx context.Context) error { return s.commit(ctx, want) }
	}
	return f, nil
}

// Committed implements sink.Sink.
func (m *member) Committed(context.Context) error {
	s := m.session
	s.mu.Lock()
	defer s.mu.Unlock()
	m.tracker.Committed()
	s.refused[m.stream].committed(m.state.Generation)
	m.consumed = slices.DeleteFunc(m.consumed, func(c reached) bool {
		p, acked := m.state.Files[c.file]
		return acked && p == c.point && len(m.consumed) > 1
	})
	return nil
}

// Delivered implements sink.Sink.
func (m *member) Delivered() int64 {
	m.session.mu.Lock()
	defer m.session.mu.Unlock()
	return m.delivered
}

// Close implements sink.Sink. The last stream to close commits what was acknowledged.
func (m *member) Close() error {
	m.merger.mu.Lock()
	defer m.merger.mu.Unlock()
	if m.session.leave(m) > 0 {
		return nil
	}
	return m.merger.endSession()
}

// refusals are the refused records of a stream that may not be in a saved dead letter yet. The stream's point is past
// them.
type refusals []refused

type refused struct {
	File   position.FileID `json:"file"`
	Offset int64           `json:"offset"`
	Index  int32           `json:"index"`
	Reason string          `json:"reason"`
	// Since is the generation of the first state of the stream that includes the record.
	Since int64 `json:"since"`
}

// maxRefusals bounds the refused records that are remembered for a stream. Of more than that between two commits, a
// crash leaves the oldest out of the dead letter.
const maxRefusals = 1024

func (r refusals) find(file position.FileID, p resume.Point) (reason string, found bool) {
	for i := range r {
		if r[i].Offset == p.Offset && r[i].Index == p.Index && r[i].File == file {
			return r[i].Reason, true
		}
	}
	return "", false
}

func (r *refusals) add(at reached, reason string, since int64) {
	if len(*r) == maxRefusals {
		*r = slices.Delete(*r, 0, 1)
	}
	*r = append(*r, refused{at.file, at.point.Offset, at.point.Index, reason, since})
}

// committed drops the records that the stream's checkpoint with the state of a generation covers.
func (r *refusals) committed(generation int64) {
	*r = slices.DeleteFunc(*r, func(r refused) bool { return r.Since <= generation })
}

var errNotCovered = errors.New("the checkpoint is not the one that belongs to the merged stream")
