package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// savesBeforeNaming is how many checkpoints record a part as complete before it
// is named: as many as there are generations on disk.
const savesBeforeNaming = 2

// stream is the output of one stream. It is a sink.Sink.
type stream struct {
	fs   vfs.FS
	dir  string
	opts Options

	frames // with opts.Zstd: what is acknowledged and not yet in a file

	open     *part   // nil: the next record starts a new part
	complete []*part // in order, not yet named; their files are synced and closed
	names    int     // counts what was done to the names in dir
	synced   int     // the changes of names that are known to be durable
	last     *flush  // the newest whose outcome was not yet looked at

	handles sync.Mutex            // held while a part's file is synced, opened or closed
	dead    atomic.Pointer[error] // what every call returns once the sink cannot go on
}

// flush is what one Flush has to make durable: all that was done to a part, if any, and to the names.
type flush struct {
	part    *part // nil: none
	changes int
	dir     bool // the names too
	names   int
	done    atomic.Bool
}

func (s *stream) openPath(p *part) string   { return filepath.Join(s.dir, p.openName()) }
func (s *stream) closedPath(p *part) string { return filepath.Join(s.dir, p.closedName()) }

// die keeps the first error after which the sink cannot go on.
func (s *stream) die(kind error, format string, args ...any) error {
	err := fmt.Errorf("%w: "+format, append([]any{kind}, args...)...)
	s.dead.CompareAndSwap(nil, &err)
	return *s.dead.Load()
}

// Write implements sink.Sink. An error leaves the output as it was before.
func (s *stream) Write(ctx context.Context, b sink.Batch) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if s.opts.Zstd {
		return s.gather(b)
	}
	return s.deliver(b)
}

// deliver writes b into files. An error leaves the output as it was before.
func (s *stream) deliver(b sink.Batch) error {
	before, length := s.open, int64(0)
	if before != nil {
		if err := s.ready(before); err != nil {
			return err
		}
		length = before.length
	}
	written, err := s.append(b)
	if err != nil {
		for _, p := range written {
			if p == before {
				p.length, p.ragged = length, true
				p.changes++
				continue
			}
			// What cannot be removed is not in the state, so the next Open does.
			_ = s.close(p)
			_ = s.fs.Remove(s.openPath(p))
		}
		return err
	}
	last := len(written) - 1
	s.complete = append(s.complete, written[:last]...)
	s.open = written[last]
	return nil
}

// append writes b into the open part and, as parts fill up, into new ones. It
// returns all of them in order, also after an error, and changes nothing else.
func (s *stream) append(b sink.Batch) (written []*part, err error) {
	p := s.open
	if p != nil {
		written = append(written, p)
		if s.due(p) || s.opts.Hourly && !p.begunIn(b.File) {
			if err := s.finish(p); err != nil {
				return written, err
			}
			p = nil
		}
	}
	for from := 0; from < len(b.Data); {
		i := recordAfter(b, from)
		if p == nil {
			if p, err = s.create(partName(b.Position(i)), written); err != nil {
				return written, err
			}
			written = append(written, p)
		}
		data, to := s.next(b, i, from, p.length)
		if to == from {
			if err := s.finish(p); err != nil {
				return written, err
			}
			p = nil
			continue
		}
		p.changes++
		if _, err := p.file.Write(data); err != nil {
			return written, fmt.Errorf("write %s: %w", s.openPath(p), err)
		}
		p.length += int64(len(data))
		from = to
	}
	return written, nil
}

// recordAfter returns the first record that ends after index from of the data.
func recordAfter(b sink.Batch, from int) int {
	i, _ := slices.BinarySearchFunc(b.Records, from+1, func(r sink.Record, end int) int { return r.End - end })
	return i
}

// next returns the bytes that go into a part of the given length next, and
// where the last of their records ends, when record i starts at from. It returns
// from if not even that record fits. An empty part takes a record of any length.
func (s *stream) next(b sink.Batch, i, from int, length int64) (data []byte, to int) {
	if s.opts.Zstd {
		to = max(fit(b, i, from, s.opts.frameBytes()), b.Records[i].End)
		data = s.encode(b.Data[from:to])
		if s.opts.MaxBytes > 0 && length > 0 && length+int64(len(data)) > s.opts.MaxBytes {
			return nil, from
		}
		return data, to
	}
	to = len(b.Data)
	if s.opts.MaxBytes > 0 {
		to = fit(b, i, from, s.opts.MaxBytes-length)
		if length == 0 {
			to = max(to, b.Records[i].End)
		}
	}
	return b.Data[from:to], to
}

// fit returns where the last record ends that has at most room bytes before its
// end, when record i starts at from; from if there is none.
func fit(b sink.Batch, i, from int, room int64) int {
	if int64(len(b.Data)-from) <= room {
		return len(b.Data)
	}
	j := i
	if room > 0 {
		j = recordAfter(b, from+int(room))
	}
	if j > i {
		return b.Records[j-1].End
	}
	return from
}

// due tells whether a part with records must be closed now.
func (s *stream) due(p *part) bool {
	full := s.opts.MaxBytes > 0 && p.length >= s.opts.MaxBytes
	old := s.opts.MaxAge > 0 && !s.opts.Hourly && s.opts.Now().Sub(p.since) >= s.opts.MaxAge
	return full || old || p.zstd != s.opts.Zstd // the setting was changed
}

// create starts a part. Its name is free unless the same position was delivered
// before, by a checkpoint that was set back or restored.
func (s *stream) create(name string, written []*part) (*part, error) {
	if !partPattern.MatchString(name) {
		return nil, s.die(sink.ErrFailed, "%q cannot name a file of the output", name)
	}
	p := &part{name: name, zstd: s.opts.Zstd, since: s.opts.Now(), changes: 1}
	unnamed := func(p *part) bool { return p.name == name }
	taken := slices.ContainsFunc(s.complete, unnamed) || slices.ContainsFunc(written, unnamed)
	for _, closed := range []part{{name: name}, {name: name, zstd: true}} {
		_, err := s.fs.Size(s.closedPath(&closed))
		switch {
		case err == nil || taken && closed.zstd == p.zstd:
			return nil, s.die(sink.ErrFailed, "the records from this position on were delivered before; to deliver them again, move %s away",
				s.closedPath(&closed))
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("look for %s: %w", s.closedPath(&closed), err)
		}
	}
	f, err := s.fs.Create(s.openPath(p))
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", s.openPath(p), err)
	}
	p.file = f
	s.names++
	return p, nil
}

func (s *stream) alive(ctx context.Context) error {
	if err := s.dead.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

// ready opens the open part's file if need be, and cuts off what an earlier
// error or an earlier process left behind its records.
func (s *stream) ready(p *part) error {
	name := s.openPath(p)
	if p.file == nil {
		f, err := s.fs.Append(name)
		if err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		s.handles.Lock()
		p.file = f
		s.handles.Unlock()
	}
	if p.ragged {
		if err := p.file.Truncate(p.length); err != nil {
			return fmt.Errorf("cut %s back to %d bytes: %w", name, p.length, err)
		}
		p.ragged = false
		p.changes++
	}
	return nil
}

// finish syncs and closes a part that takes no further record.
func (s *stream) finish(p *part) error {
	s.lookBack()
	if p.dirty() {
		if err := s.inPlace(p); err != nil {
			return err
		}
		if err := s.sync(p); err != nil {
			return err
		}
		p.synced = p.changes
	}
	if err := s.close(p); err != nil {
		return s.die(sink.ErrReopen, "close %s: %w", s.openPath(p), err)
	}
	return nil
}

// sync makes durable what was done to a part before. A part that was closed was synced before that.
func (s *stream) sync(p *part) error {
	s.handles.Lock()
	defer s.handles.Unlock()
	if p.file == nil {
		return nil
	}
	if err := p.file.Sync(); err != nil {
		return s.die(sink.ErrReopen, "sync %s: %w", s.openPath(p), err)
	}
	return nil
}

func (s *stream) close(p *part) error {
	s.handles.Lock()
	defer s.handles.Unlock()
	if p.file == nil {
		return nil
	}
	f := p.file
	p.file = nil
	return f.Close()
}

// Flush implements sink.Sink.
func (s *stream) Flush(ctx context.Context, final bool) (sink.Flushed, error) {
	if err := s.alive(ctx); err != nil {
		return sink.Flushed{}, err
	}
	s.lookBack()
	if err := s.settle(final); err != nil {
		return sink.Flushed{}, err
	}
	doc, err := s.state()
	if err != nil {
		return sink.Flushed{}, err
	}
	f := &flush{names: s.names, dir: s.names > s.synced}
	if s.open != nil && s.open.dirty() {
		f.part, f.changes = s.open, s.open.changes
	}
	if f.part == nil && !f.dir {
		return sink.Flushed{State: doc}, nil
	}
	s.last = f
	return sink.Flushed{State: doc, Sync: func(ctx context.Context) error { return s.carryOut(ctx, f) }}, nil
}

// carryOut does what a flush asks for, beside Write.
func (s *stream) carryOut(ctx context.Context, f *flush) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if f.part != nil {
		if err := s.sync(f.part); err != nil {
			return err
		}
	}
	if f.dir {
		if err := s.syncDir(); err != nil {
			return err
		}
	}
	f.done.Store(true)
	return nil
}

// lookBack takes note of what the newest flush has made durable.
func (s *stream) lookBack() {
	f := s.last
	if f == nil || !f.done.Load() {
		return
	}
	if f.part != nil {
		f.part.synced = max(f.part.synced, f.changes)
	}
	s.synced, s.last = max(s.synced, f.names), nil
}

// state is what the next checkpoint must hold.
func (s *stream) state() (json.RawMessage, error) {
	var st state
	if p := s.open; p != nil {
		st.Open = &openPart{Name: p.name, Zstd: p.zstd, Bytes: p.length, Since: p.since}
	}
	for _, p := range s.complete {
		p.offered = true
		st.Complete = append(st.Complete, completePart{Name: p.name, Zstd: p.zstd, Bytes: p.length, Saves: p.saves + 1})
	}
	doc, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode the state of %s: %w", s.dir, err)
	}
	return doc, nil
}

// settle ends the frame, looks after the open part, and completes it if it is time.
func (s *stream) settle(final bool) error {
	if err := s.endFrame(); err != nil {
		return err
	}
	p := s.open
	if p == nil {
		return nil
	}
	if p.dirty() {
		if err := s.ready(p); err != nil {
			return err
		}
	}
	if !final && !s.due(p) {
		if p.dirty() {
			return s.inPlace(p)
		}
		return nil
	}
	if err := s.finish(p); err != nil {
		return err
	}
	s.complete, s.open = append(s.complete, p), nil
	return nil
}

// inPlace finds out that somebody took the part away: what is written to a file
// without a name is lost, and no sync says so.
func (s *stream) inPlace(p *part) error {
	name := s.openPath(p)
	size, err := s.fs.Size(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.die(sink.ErrFailed, "%s was removed while records were written to it; put it back (only .jsonl files may be taken)", name)
	case err != nil:
		return fmt.Errorf("look at %s: %w", name, err)
	case size != p.length:
		return s.die(sink.ErrFailed, "%s has %d bytes, and %d were written: something else writes to it; stop that and put the file right", name, size, p.length)
	}
	return nil
}

func (s *stream) syncDir() error {
	if err := s.fs.SyncDir(s.dir); err != nil {
		return s.die(sink.ErrReopen, "sync directory %s: %w", s.dir, err)
	}
	return nil
}

// Committed implements sink.Sink. It names the parts whose time has come.
func (s *stream) Committed(ctx context.Context) error {
	if err := s.dead.Load(); err != nil {
		return *err
	}
	for _, p := range s.complete {
		if p.offered {
			p.offered = false
			p.saves++
		}
	}
	return s.name(ctx)
}

func (s *stream) name(ctx context.Context) error {
	for len(s.complete) > 0 && s.complete[0].saves >= savesBeforeNaming {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, to := s.openPath(s.complete[0]), s.closedPath(s.complete[0])
		if _, err := s.fs.Size(to); err == nil {
			return s.die(sink.ErrFailed, "%s is complete, and %s exists; move that away", from, to)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for %s: %w", to, err)
		}
		if err := s.fs.Rename(from, to); err != nil {
			return fmt.Errorf("rename %s to %s: %w", from, to, err)
		}
		s.names++
		s.complete = s.complete[1:]
	}
	// At once, and not with the next Flush: a consumer who has seen the name and
	// taken the file must not see it come back after a power loss.
	s.lookBack()
	if s.names == s.synced {
		return nil
	}
	if err := s.syncDir(); err != nil {
		return err
	}
	s.synced = s.names
	return nil
}

// Close implements sink.Sink.
func (s *stream) Close() error {
	closed := fmt.Errorf("the sink of %s is closed", s.dir)
	s.dead.CompareAndSwap(nil, &closed)
	if s.open == nil {
		return nil
	}
	if err := s.close(s.open); err != nil {
		return fmt.Errorf("close %s: %w", s.openPath(s.open), err)
	}
	return nil
}
