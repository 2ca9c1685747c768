package merge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/resume"
)

const (
	// batchBytes and batchRecords are the sizes at which a batch is written.
	batchBytes   = 256 << 10
	batchRecords = 4096
	// replayPatience is how many times the patience a stream has while the sink skips what it has: a decision then
	// changes positions that are already used.
	replayPatience = 12
)

// session is the time from the opening of the sink to its closing, or to an error that ends it.
type session struct {
	opts  *Options
	inner sink.Sink
	store *checkpoint.Store
	// committing is held, as an element of the channel, during a commit.
	committing chan struct{}

	mu      sync.Mutex
	change  broadcast
	ended   error // why the session ended
	members int
	member  []*member // by stream; nil: not open
	// finished is the merger's.
	finished []atomic.Bool
	busy     bool // a call to inner, except Sync, is in progress

	order     order // after the records of batch
	delivered order // after the records that the sink has acknowledged
	heads     []int64
	batch     batch  // being filled, or not acknowledged yet
	number    uint64 // of batch
	acked     uint64 // the newest acknowledged batch
	sealed    bool   // batch was passed to the sink
	decided   bool   // a decision must be saved before the next record
	replaying bool   // the sink may still skip records that it has; until replayEnd at most
	replayEnd time.Time
	deadline  time.Time   // when the next stream becomes silent; zero: none
	since     []time.Time // by stream: since when the others wait for it; zero: they do not

	refused   []refusals // by stream
	saved     document   // the stream's parts; the rest is set by a commit
	version   uint64     // counts what a commit saves
	committed uint64     // the newest saved version
	unsaved   uint64     // the version that must be saved before the batch is delivered
}

// batch collects what is delivered to the sink next.
type batch struct {
	sink.Batch
	runs   []run
	points []progress
}

// run is consecutive records of a batch that come from one stream's batch, or a marker (stream -1).
type run struct {
	first  int // of the records of the batch
	stream int
	from   int // the index in the stream's batch
	source *sink.Batch
}

// progress is how far the batch takes a stream.
type progress struct {
	stream int
	reached
}

// full reports whether the batch is to be delivered before more is added.
func (b *batch) full() bool {
	return len(b.Data) >= batchBytes || len(b.Records) >= batchRecords || len(b.points) >= batchRecords
}

// reach records how far the batch takes a stream in a file.
func (b *batch) reach(stream int, to reached) {
	for i := range b.points {
		if p := &b.points[i]; p.stream == stream && p.file == to.file {
			p.point = to.point
			return
		}
	}
	b.points = append(b.points, progress{stream, to})
}

// document is what the checkpoint of Stream holds, as its sink's data.
type document struct {
	Order   order           `json:"order"`
	Streams []savedStream   `json:"streams"`
	Sink    json.RawMessage `json:"sink,omitempty"`
}

// savedStream is a stream of a document. Streams that are not merged any more are kept.
type savedStream struct {
	Stream string      `json:"stream"`
	Order  streamOrder `json:"order"`
	// Generation is that of the stream's newest state. Position is up to where it is delivered.
	Generation int64           `json:"generation"`
	Position   resume.Position `json:"position"`
	Refused    refusals        `json:"refused,omitempty"`
}

// openSession loads the checkpoint, opens the sink and makes the first commit.
func openSession(ctx context.Context, m *Merger) (*session, error) {
	s := &session{
		opts: &m.opts, committing: make(chan struct{}, 1), change: newBroadcast(), number: 1,
		member: make([]*member, len(m.opts.Streams)), heads: make([]int64, len(m.opts.Streams)),
		refused: make([]refusals, len(m.opts.Streams)), since: make([]time.Time, len(m.opts.Streams)),
		finished: m.finished, replaying: true, version: 1,
	}
	for i := range s.heads {
		s.heads[i] = -1
	}
	var err error
	if s.store, err = m.opts.Store(); err != nil {
		return nil, err
	}
	loaded, err := s.store.Load()
	if err != nil {
		return nil, err
	}
	s.order.File = firstFile
	if loaded.Found && len(loaded.State.Sink) > 0 {
		if err := json.Unmarshal(loaded.State.Sink, &s.saved); err != nil {
			return nil, fmt.Errorf("%w: reading the checkpoint of %s: %w", sink.ErrFailed, Stream, err)
		}
		s.order = s.saved.Order
	}
	s.arrangeStreams()
	s.replayEnd = time.Now().Add(replayPatience * m.opts.Patience)
	s.delivered = s.order
	if s.inner, err = m.opts.Output.Open(ctx, Stream, s.saved.Sink); err != nil {
		return nil, err
	}
	if err := s.commit(ctx, s.version); err != nil {
		return nil, errors.Join(err, s.inner.Close())
	}
	return s, nil
}

// arrangeStreams puts the saved streams into the order of the configuration.
func (s *session) arrangeStreams() {
	was := s.saved.Streams
	s.saved.Streams = make([]savedStream, 0, max(len(was), len(s.opts.Streams)))
	for i, source := range s.opts.Streams {
		saved := savedStream{Stream: source.Kebab}
		if at := slices.IndexFunc(was, func(w savedStream) bool { return w.Stream == source.Kebab }); at >= 0 {
			saved = was[at]
			was = slices.Delete(was, at, at+1)
		}
		s.order.streams[i], s.refused[i] = saved.Order, saved.Refused
		s.saved.Streams = append(s.saved.Streams, saved)
	}
	s.saved.Streams = append(s.saved.Streams, was...)
}

// hasEnded reports whether an error has ended the session. The lock must not be held; for all methods below it must be,
// unless they say otherwise.
func (s *session) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended != nil
}

// reserve keeps the session open for a stream that is about to join. The lock must not be held.
func (s *session) reserve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members++
}

// cancel takes a reservation back, and returns how many streams are left. The lock must not be held.
func (s *session) cancel() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members--
	return s.members
}

// settle waits until the batch has none of a stream's lines that took their place before the stream left. Until the
// sink has them the stream cannot go on: it would read them again. The lock must not be held.
func (s *session) settle(ctx context.Context, stream int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ended == nil && slices.ContainsFunc(s.batch.points, func(p progress) bool { return p.stream == stream }) {
		progress, err := s.advance(ctx)
		if err != nil {
			return err
		}
		if progress {
			continue
		}
		if err := s.await(ctx, s.opts.Stopping); err != nil {
			return err
		}
	}
	return s.ended
}

// join adds a stream that has a reservation and is settled. The lock must not be held.
func (s *session) join(merger *Merger, stream int, state *resume.State) (*member, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	saved := &s.saved.Streams[stream]
	if state != nil && (!saved.Position.Covers(state) || state.Generation > saved.Generation) {
		return nil, fmt.Errorf("%w: %s: %w: it has state %d, and %s has %d; restore the state directory as a whole, or "+
			"run \"hlparser checkpoint forget\" for both", sink.ErrFailed, saved.Stream, errNotCovered, state.Generation,
			Stream, saved.Generation)
	}
	m := &member{
		merger: merger, session: s, stream: stream, tracker: resume.Open(state, &saved.Position), changed: s.version,
	}
	if state != nil {
		m.state = *state
	}
	s.member[stream] = m
	s.finished[stream].Store(false)
	return m, nil
}

func with(files resume.Files, file position.FileID, p resume.Point) resume.Files {
	out := make(resume.Files, len(files)+1)
	maps.Copy(out, files)
	out[file] = p
	return out
}

// leave removes a stream, and returns how many are left. The lock must not be held.
func (s *session) leave(m *member) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.member[m.stream] == m {
		s.savePosition(m.stream)
		s.member[m.stream] = nil
		s.members--
		s.change.wake()
	}
	return s.members
}

// savePosition updates what a commit saves of a stream's progress.
func (s *session) savePosition(stream int) {
	if m := s.member[stream]; m != nil {
		s.saved.Streams[stream].Position = m.tracker.Now()
	}
}

// close commits what was acknowledged, and closes the sink. The lock must not be held.
func (s *session) close() error {
	var err error
	if !s.hasEnded() {
		ctx, cancel := context.WithTimeout(context.Background(), s.opts.CloseTimeout)
		err = s.commit(ctx, math.MaxUint64)
		cancel()
	}
	return errors.Join(err, s.inner.Close())
}

// end ends the session. Every stream returns to its last checkpoint.
func (s *session) end(err error) error {
	if s.ended == nil {
		s.ended = err
		s.change.wake()
	}
	return s.ended
}

// await waits for a change, or for the end of ctx. Unless a call to the sink is in progress, it also waits for the time
// at which a stream becomes silent, and returns an error when the streams stop.
func (s *session) await(ctx context.Context, stopping <-chan struct{}) error {
	changed := s.change.changed
	deadline := s.deadline
	if s.busy { // nothing is decided before the call has ended
		stopping, deadline = nil, time.Time{}
	}
	var expired <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		expired = timer.C
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-expired:
		return nil
	case <-stopping:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// advance moves the merged stream on: it fills a batch and delivers it, or saves a decision. It reports whether it did
// anything; if not, another stream has to. The lock is released during calls to the sink.
func (s *session) advance(ctx context.Context) (progress bool, err error) {
	if s.busy {
		return false, nil
	}
	if !s.sealed {
		s.fill(time.Now())
	}
	switch {
	case s.committed < s.unsaved:
		return true, s.save(ctx)
	case len(s.batch.Records) > 0:
		return true, s.deliver(ctx)
	case len(s.batch.points) > 0:
		s.acknowledge() // lines without records
		return true, nil
	case s.decided:
		version := s.version
		if err := s.save(ctx); err != nil {
			return false, err
		}
		if s.committed >= version && s.decided {
			s.decided = false
			s.change.wake()
		}
		return true, nil
	}
	return false, nil
}

// save commits the present version.
func (s *session) save(ctx context.Context) error {
	version := s.version
	s.mu.Unlock()
	defer s.mu.Lock()
	return s.commit(ctx, version)
}

// deliver passes the batch to the sink.
func (s *session) deliver(ctx context.Context) error {
	s.sealed, s.busy = true, true
	before := s.inner.Delivered()
	s.mu.Unlock()
	err := s.inner.Write(ctx, s.batch.Batch)
	after := s.inner.Delivered()
	s.mu.Lock()
	s.busy = false
	if after > before {
		s.replaying = false
	}
	defer s.change.wake()
	refusal, refused := errors.AsType[*sink.Refusal](err)
	switch {
	case err == nil:
		s.acknowledge()
		return nil
	case refused:
		s.refuse(refusal)
		return nil
	case isFinal(err):
		return s.end(err)
	}
	return err // an outage: the batch is delivered by the next Write of any stream
}

// isFinal reports whether an error ends the session: calling the sink again does not help.
func isFinal(err error) bool {
	return errors.Is(err, sink.ErrReopen) || errors.Is(err, sink.ErrFailed) || errors.Is(err, sink.ErrGone)
}

// refuse takes a record that the sink refused out of the batch, and remembers it for the record's stream. The other
// records keep their positions, and are delivered once it is saved that the record is refused: afterwards a sink that
// stores its position may skip the record together with those around it.
func (s *session) refuse(refusal *sink.Refusal) {
	b, at := &s.batch, refusal.Index
	var runs []run
	for i, r := range b.runs {
		end := b.endOf(i)
		switch {
		case end <= at:
			runs = append(runs, r)
		case r.first > at:
			r.first--
			runs = append(runs, r)
		default:
			s.rememberRefused(r, at, refusal.Reason)
			if r.first < at {
				runs = append(runs, r)
			}
			if end > at+1 {
				r.from += at + 1 - r.first
				r.first = at
				runs = append(runs, r)
			}
		}
	}
	from := 0
	if at > 0 {
		from = b.Records[at-1].End
	}
	to := b.Records[at].End
	b.Data = slices.Delete(b.Data, from, to)
	b.Records = slices.Delete(b.Records, at, at+1)
	for i := at; i < len(b.Records); i++ {
		b.Records[i].End -= to - from
	}
	b.runs = runs
	s.version++
	s.unsaved = s.version
}

// rememberRefused remembers record at of the batch, which is in run r. A marker of the merged stream belongs to no
// stream.
func (s *session) rememberRefused(r run, at int, reason string) {
	if r.stream < 0 {
		return
	}
	p := reached{r.source.File, resume.PointOf(*r.source, r.from+at-r.first)}
	generation := s.saved.Streams[r.stream].Generation
	if m := s.member[r.stream]; m != nil {
		m.refused = true
		generation = m.state.Generation
	}
	s.refused[r.stream].add(p, reason, generation+1)
}

// endOf returns the index after the records of run i.
func (b *batch) endOf(i int) int {
	if i+1 < len(b.runs) {
		return b.runs[i+1].first
	}
	return len(b.Records)
}

// acknowledge records that the sink has acknowledged the batch.
func (s *session) acknowledge() {
	for _, p := range s.batch.points {
		s.since[p.stream] = time.Time{} // until now it could bring nothing
		if m := s.member[p.stream]; m != nil {
			m.tracker.Acked(sink.Batch{File: p.file, Records: []sink.Record{{Offset: p.point.Offset, Index: p.point.Index}}})
		} else { // it left after its lines took their place
			saved := &s.saved.Streams[p.stream].Position
			saved.Files = with(saved.Files, p.file, p.point)
		}
	}
	for i, r := range s.batch.runs {
		if r.stream >= 0 && s.member[r.stream] != nil {
			s.member[r.stream].delivered += int64(s.batch.endOf(i) - r.first)
		}
	}
	s.delivered = s.order
	s.version++
	for _, p := range s.batch.points {
		if m := s.member[p.stream]; m != nil {
			m.changed = s.version
		}
	}
	s.acked = s.number
	s.number++
	s.batch = batch{Batch: sink.Batch{Data: s.batch.Data[:0], Records: s.batch.Records[:0]}, runs: s.batch.runs[:0],
		points: s.batch.points[:0]}
	if cap(s.batch.Data) > 4*batchBytes {
		s.batch.Data = nil
	}
	s.sealed = false
	s.change.wake()
}

// fill moves what comes next into the batch, until it is full or nothing can.
func (s *session) fill(now time.Time) {
	s.deadline = time.Time{}
	for !s.decided && !s.batch.full() {
		if s.announce() {
			continue
		}
		for i, m := range s.member {
			s.heads[i] = -1
			if m != nil && m.next < len(m.items) {
				s.heads[i] = m.items[m.next].block
			}
		}
		if s.rejoin(now) {
			return
		}
		c := s.order.choose(s.heads)
		switch {
		case c.done:
			s.closeBlock()
		case c.stream >= 0:
			if !s.take(c.stream, c.key) {
				return // in another file
			}
		default:
			s.wait(c.blocked, now)
			return
		}
	}
}

// announce adds the marker of a saved decision.
func (s *session) announce() bool {
	for i := range s.opts.Streams {
		o := &s.order.streams[i]
		if !o.Announce {
			continue
		}
		o.Announce = false
		kind := backMarker
		if o.Silent {
			kind = silentMarker
		}
		s.mark(s.order.appendStreamMarker(nil, s.opts.Target, kind, s.opts.Streams[i].Name))
		return true
	}
	return false
}

// rejoin decides that silent streams that have lines are back.
func (s *session) rejoin(now time.Time) bool {
	for i, block := range s.heads {
		o := &s.order.streams[i]
		if block < 0 || !o.Silent {
			continue
		}
		if s.replays(now) {
			s.wakeAt(s.replayEnd)
			continue
		}
		s.order.rejoin(i)
		s.decide()
	}
	return s.decided
}

// replays reports whether the sink may skip records, so that their positions must not change.
func (s *session) replays(now time.Time) bool {
	return s.replaying && s.order.Block > 0 && now.Before(s.replayEnd)
}

// wakeAt makes await end at the latest then.
func (s *session) wakeAt(at time.Time) {
	if s.deadline.IsZero() || at.Before(s.deadline) {
		s.deadline = at
	}
}

// decide requires that the order is saved before it goes on.
func (s *session) decide() {
	s.decided = true
	if len(s.batch.Records) == 0 && len(s.batch.points) == 0 {
		s.delivered = s.order
		s.version++
	}
}

// wait decides that streams for which the others have waited too long are silent, and finds when the next is.
func (s *session) wait(blocked uint16, now time.Time) {
	for i := range s.member {
		since := &s.since[i]
		if blocked&(1<<i) == 0 {
			*since = time.Time{}
			continue
		}
		if since.IsZero() {
			*since = now
		}
		expires := since.Add(s.opts.Patience)
		if s.replays(now) && expires.Before(s.replayEnd) {
			expires = s.replayEnd
		}
		switch finished := s.finished[i].Load(); {
		case finished || !now.Before(expires):
			s.order.silence(i, !finished)
			*since = time.Time{}
			s.decide()
		default:
			s.wakeAt(expires)
		}
	}
}

// closeBlock adds the marker of the order's block, if a stream had a line of it.
func (s *session) closeBlock() {
	if s.order.seen() {
		s.mark(s.order.appendBlockMarker(nil, s.opts.Target, s.opts.Streams))
	}
	s.order.Closed = true
}

// mark adds a marker to the batch.
func (s *session) mark(text []byte) {
	b := &s.batch
	b.File = s.order.File
	b.runs = append(b.runs, run{first: len(b.Records), stream: -1})
	b.Data = append(b.Data, text...)
	b.Records = append(b.Records, sink.Record{End: len(b.Data), Offset: s.order.Block, Index: s.order.Next})
	s.order.Next++
}

// take moves a stream's next item into the batch. It returns false if the records of the batch have positions in
// another file.
func (s *session) take(stream int, key int64) bool {
	m := s.member[stream]
	i := &m.items[m.next]
	if key != s.order.Block || s.order.Closed {
		if len(s.batch.Records) > 0 && fileAt(i.blockTime, s.order.File) != s.order.File {
			return false
		}
		s.order.open(key, i.blockTime)
	}
	var events int64
	if i.to > i.from {
		events = s.copy(stream, i)
	}
	delivered := events
	if i.block != s.order.Block {
		delivered = 0
	}
	s.order.take(stream, i, delivered)
	s.batch.reach(stream, i.point)
	s.since[stream] = time.Time{}
	m.consume(s.number)
	return true
}

// copy adds the records of an item to the batch, and returns how many of them are not markers. A record that was
// refused before keeps its index free, and is returned to its stream.
func (s *session) copy(stream int, i *item) (events int64) {
	from := i.from
	for n := i.from; n < i.to; n++ {
		if r := &i.batch.Records[n]; r.Index >= 0 && r.Block > 0 {
			events++
		}
		if len(s.refused[stream]) == 0 {
			continue
		}
		if _, refused := s.refused[stream].find(i.batch.File, resume.PointOf(*i.batch, n)); refused {
			s.copyRange(stream, i.batch, from, n)
			s.order.Next++
			s.member[stream].refused = true
			from = n + 1
		}
	}
	s.copyRange(stream, i.batch, from, i.to)
	return events
}

func (s *session) copyRange(stream int, source *sink.Batch, from, to int) {
	if from == to {
		return
	}
	b := &s.batch
	b.File = s.order.File
	start := 0
	if from > 0 {
		start = source.Records[from-1].End
	}
	shift := len(b.Data) - start
	b.runs = append(b.runs, run{first: len(b.Records), stream: stream, from: from, source: source})
	b.Data = append(b.Data, source.Data[start:source.Records[to-1].End]...)
	for _, r := range source.Records[from:to] {
		b.Records = append(b.Records, sink.Record{
			End: r.End + shift, Offset: s.order.Block, Block: r.Block, Coin: r.Coin, Index: s.order.Next,
		})
		s.order.Next++
	}
}

// acquire waits until no call to the sink is in progress, and begins one.
func (s *session) acquire(ctx context.Context) error {
	for s.busy {
		if err := s.await(ctx, nil); err != nil {
			return err
		}
	}
	s.busy = true
	return nil
}

func (s *session) release() {
	s.busy = false
	s.change.wake()
}

// commit saves what the sink had acknowledged at some time after the call, unless that version is saved already. Calls
// share commits. After an error it can be called again. The lock must not be held.
func (s *session) commit(ctx context.Context, want uint64) error {
	select {
	case s.committing <- struct{}{}:
		defer func() { <-s.committing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.ended != nil {
			return s.ended
		}
		if want != math.MaxUint64 && s.committed >= want || want == math.MaxUint64 && s.committed == s.version {
			return nil
		}
		before := string(s.saved.Sink)
		final, err := s.commitNow(ctx)
		if err != nil {
			if isFinal(err) {
				return s.end(err)
			}
			return err
		}
		if final && string(s.saved.Sink) != before {
			s.version++ // once more, until the sink's state is stable
			if want != math.MaxUint64 {
				want = s.version
			}
		}
	}
}

// commitNow makes one commit, and reports whether the sink knows by it that no record will follow.
func (s *session) commitNow(ctx context.Context) (final bool, err error) {
	if err := s.acquire(ctx); err != nil {
		return false, err
	}
	// The version is that of now. What changes during the Flush may be in the commit, but a stream that is done
	// meanwhile, the last one, needs another.
	version := s.version
	final = s.allFinished()
	s.mu.Unlock()
	flushed, err := s.inner.Flush(ctx, final)
	s.mu.Lock()
	if err != nil {
		s.release()
		return false, fmt.Errorf("flushing the merged stream: %w", err)
	}
	s.saved.Order, s.saved.Sink = s.delivered, flushed.State
	for i := range s.opts.Streams {
		s.savePosition(i)
		s.saved.Streams[i].Order, s.saved.Streams[i].Refused = s.delivered.streams[i], s.refused[i]
	}
	text, err := json.Marshal(s.saved)
	s.release()
	if err != nil {
		return false, fmt.Errorf("encoding the checkpoint of %s: %w", Stream, err)
	}
	s.mu.Unlock()
	err = s.persist(ctx, flushed, text)
	s.mu.Lock()
	if err != nil {
		return false, err
	}
	if err := s.acquire(ctx); err != nil {
		return false, err
	}
	s.mu.Unlock()
	err = s.inner.Committed(ctx)
	s.mu.Lock()
	s.release()
	if err != nil {
		return false, fmt.Errorf("completing the commit of the merged stream: %w", err)
	}
	s.committed = version
	s.change.wake()
	return final, nil
}

// persist is the part of a commit that waits for the disk. The lock must not be held.
func (s *session) persist(ctx context.Context, flushed sink.Flushed, text []byte) error {
	if flushed.Sync != nil {
		if err := flushed.Sync(ctx); err != nil {
			return fmt.Errorf("syncing the merged stream: %w", err)
		}
	}
	state := checkpoint.State{Sink: text, CommittedAt: time.Now().UTC()}
	if err := s.store.Save(state); err != nil {
		return fmt.Errorf("saving the checkpoint of %s: %w", Stream, err)
	}
	return nil
}

// allFinished reports whether no stream will bring another record.
func (s *session) allFinished() bool {
	for i := range s.finished {
		if !s.finished[i].Load() {
			return false
		}
	}
	return true
}
