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
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// savesBeforeNaming is how many checkpoints list a part as complete before it is renamed: the number of generations on
// disk.
const savesBeforeNaming = 2

// stream is the sink.Sink of one stream.
type stream struct {
	fs   vfs.FS
	dir  string
	opts Options

	ledger
	room   room
	frames // with opts.Zstd: acknowledged records that are not in a file yet

	open     *part   // nil if the next record starts a part
	complete []*part // in order, not yet renamed; their files are synced and closed
	names    int     // counts changes of the names in dir
	synced   int     // the value of names up to which they are durable
	last     *flush  // the newest whose result was not collected yet

	handles sync.Mutex            // guards the syncing, opening and closing of a part's file
	fatal   atomic.Pointer[error] // the permanent error that every call returns
}

// flush describes what one Flush must make durable: changes of a part, if any, and of the names.
type flush struct {
	part    *part // nil if no part changed
	changes int
	dir     bool // whether the names changed
	names   int
	done    atomic.Bool
}

func (s *stream) openPath(p *part) string   { return filepath.Join(s.dir, p.openName()) }
func (s *stream) closedPath(p *part) string { return filepath.Join(s.dir, p.closedName()) }

// fail records the first permanent error and returns it.
func (s *stream) fail(kind error, format string, args ...any) error {
	err := fmt.Errorf("%w: "+format, append([]any{kind}, args...)...)
	s.fatal.CompareAndSwap(nil, &err)
	return *s.fatal.Load()
}

// Write implements sink.Sink. After an error the output is as it was before.
func (s *stream) Write(ctx context.Context, b sink.Batch) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	if err := s.admit(); err != nil {
		return err
	}
	deliver := s.deliver
	if s.opts.Zstd {
		deliver = s.buffer
	}
	if err := deliver(b); err != nil {
		return err
	}
	s.acked += int64(len(b.Records))
	s.room.fresh = true
	return nil
}

// deliver writes b into files. After an error the output is as it was before.
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
				p.length, p.overlong = length, true
				p.changes++
				continue
			}
			// A file that cannot be removed is not in the state, so the next Open removes it.
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

// append writes b into the open part and, as parts fill up, into new ones. It returns all of them in order, also after
// an error. It changes nothing else.
func (s *stream) append(b sink.Batch) (written []*part, err error) {
	p := s.open
	if p != nil {
		written = append(written, p)
		if s.due(p) || s.opts.Hourly && !p.startsIn(b.File) {
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
			return written, fmt.Errorf("writing %s: %w", s.openPath(p), err)
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

// next returns the bytes to append to a part of the given length, and the end of their last record. Record i starts at
// from. If record i does not fit, next returns from. An empty part accepts a record of any length.
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

// fit returns the end of the last record that is at most room bytes past from, where record i starts. It returns from
// if there is none.
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

// due reports whether a part with records must be closed now.
func (s *stream) due(p *part) bool {
	full := s.opts.MaxBytes > 0 && p.length >= s.opts.MaxBytes
	old := s.opts.MaxAge > 0 && !s.opts.Hourly && s.age(p) >= s.opts.MaxAge
	needed := s.room.waiting && !s.opts.Hourly            // closing the part lets a consumer make room
	return full || old || needed || p.zstd != s.opts.Zstd // the setting has changed
}

// age returns the age of the part. A start in the future, which a clock that is set back leaves, counts as now.
func (s *stream) age(p *part) time.Duration {
	now := s.opts.Now()
	if now.Before(p.since) {
		p.since = now
	}
	return now.Sub(p.since)
}

// create starts a part. Its name is free unless the same position was delivered before, which happens if the checkpoint
// was reset or restored.
func (s *stream) create(name string, written []*part) (*part, error) {
	if !partPattern.MatchString(name) {
		return nil, s.fail(sink.ErrFailed, "%q cannot name a file of the output", name)
	}
	p := &part{name: name, zstd: s.opts.Zstd, since: s.opts.Now(), changes: 1}
	unnamed := func(p *part) bool { return p.name == name }
	taken := slices.ContainsFunc(s.complete, unnamed) || slices.ContainsFunc(written, unnamed)
	for _, closed := range []part{{name: name}, {name: name, zstd: true}} {
		_, err := s.fs.Size(s.closedPath(&closed))
		switch {
		case err == nil || taken && closed.zstd == p.zstd:
			return nil, s.fail(sink.ErrFailed, "the records from this position on were delivered before; "+
				"to deliver them again, move %s away", s.closedPath(&closed))
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("checking for %s: %w", s.closedPath(&closed), err)
		}
	}
	f, err := s.fs.Create(s.openPath(p))
	if err != nil {
		return nil, fmt.Errorf("creating %s: %w", s.openPath(p), err)
	}
	p.file = f
	s.names++
	return p, nil
}

func (s *stream) check(ctx context.Context) error {
	if err := s.fatal.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

// ready opens the part's file if necessary. It truncates bytes that an earlier error or process left after the records.
func (s *stream) ready(p *part) error {
	name := s.openPath(p)
	if p.file == nil {
		f, err := s.fs.Append(name)
		if err != nil {
			return fmt.Errorf("opening %s: %w", name, err)
		}
		s.handles.Lock()
		p.file = f
		s.handles.Unlock()
	}
	if p.overlong {
		if err := p.file.Truncate(p.length); err != nil {
			return fmt.Errorf("truncating %s to %d bytes: %w", name, p.length, err)
		}
		p.overlong = false
		p.changes++
	}
	return nil
}

// finish syncs and closes a part that receives no further record.
func (s *stream) finish(p *part) error {
	s.collectFlush()
	if p.dirty() {
		if err := s.verifyPart(p); err != nil {
			return err
		}
		if err := s.sync(p); err != nil {
			return err
		}
		p.synced = p.changes
	}
	if err := s.close(p); err != nil {
		return s.fail(sink.ErrReopen, "closing %s: %w", s.openPath(p), err)
	}
	return nil
}

// sync makes earlier changes of a part durable. A closed part was synced before it was closed.
func (s *stream) sync(p *part) error {
	s.handles.Lock()
	defer s.handles.Unlock()
	if p.file == nil {
		return nil
	}
	if err := p.file.Sync(); err != nil {
		return s.fail(sink.ErrReopen, "syncing %s: %w", s.openPath(p), err)
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
	if err := s.check(ctx); err != nil {
		return sink.Flushed{}, err
	}
	s.collectFlush()
	if err := s.prepareFlush(final); err != nil {
		return sink.Flushed{}, err
	}
	doc, err := s.state()
	if err != nil {
		return sink.Flushed{}, err
	}
	s.flushed = s.acked
	f := &flush{names: s.names, dir: s.names > s.synced}
	if s.open != nil && s.open.dirty() {
		f.part, f.changes = s.open, s.open.changes
	}
	if f.part == nil && !f.dir {
		return sink.Flushed{State: doc}, nil
	}
	s.last = f
	return sink.Flushed{State: doc, Sync: func(ctx context.Context) error { return s.syncFlush(ctx, f) }}, nil
}

// syncFlush makes a flush durable, concurrently with Write.
func (s *stream) syncFlush(ctx context.Context, f *flush) error {
	if err := s.check(ctx); err != nil {
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

// collectFlush records what the newest flush has made durable.
func (s *stream) collectFlush() {
	f := s.last
	if f == nil || !f.done.Load() {
		return
	}
	if f.part != nil {
		f.part.synced = max(f.part.synced, f.changes)
	}
	s.synced, s.last = max(s.synced, f.names), nil
}

// state returns what the next checkpoint must hold.
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
		return nil, fmt.Errorf("encoding the state of %s: %w", s.dir, err)
	}
	return doc, nil
}

// prepareFlush ends the frame, repairs and checks the open part, and completes the part if it is due.
func (s *stream) prepareFlush(final bool) error {
	if err := s.endFrame(); err != nil {
		return err
	}
	if s.room.fresh {
		s.room.fresh = false
		s.room.waiting = s.checkRoom() != nil // the next Write reports what is lacking
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
			return s.verifyPart(p)
		}
		return nil
	}
	if err := s.finish(p); err != nil {
		return err
	}
	s.complete, s.open = append(s.complete, p), nil
	return nil
}

// verifyPart detects that the part was removed or changed from outside. Bytes written to a file without a name are
// lost, and no sync reports it.
func (s *stream) verifyPart(p *part) error {
	name := s.openPath(p)
	size, err := s.fs.Size(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if files, err := s.list(); err != nil || slices.Contains(files, p.openName()) {
			return errors.Join(fmt.Errorf("checking %s: it is missing, but its directory does not confirm it", name), err)
		}
		return s.fail(sink.ErrFailed,
			"%s was removed while records were written to it; put it back (only .jsonl files may be taken)", name)
	case err != nil:
		return fmt.Errorf("checking %s: %w", name, err)
	case size != p.length:
		return s.fail(sink.ErrFailed, "%s has %d bytes, but %d were written: another program writes to it; "+
			"stop that program and repair the file", name, size, p.length)
	}
	return nil
}

func (s *stream) syncDir() error {
	if err := s.fs.SyncDir(s.dir); err != nil {
		return s.fail(sink.ErrReopen, "syncing directory %s: %w", s.dir, err)
	}
	return nil
}

// Committed implements sink.Sink. It renames the parts that enough checkpoints list as complete.
func (s *stream) Committed(ctx context.Context) error {
	if err := s.fatal.Load(); err != nil {
		return *err
	}
	s.committed = s.flushed
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
			return s.fail(sink.ErrFailed, "%s is complete, but %s exists; move the latter away", from, to)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("checking for %s: %w", to, err)
		}
		if err := s.fs.Rename(from, to); err != nil {
			return fmt.Errorf("renaming %s to %s: %w", from, to, err)
		}
		s.names++
		s.room.closed += s.complete[0].length
		s.complete = s.complete[1:]
	}
	// Sync immediately, not with the next Flush: a consumer that has seen the name and removed the file must not see it
	// reappear after a power loss.
	s.collectFlush()
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
	s.end()
	closed := fmt.Errorf("the sink of %s is closed", s.dir)
	s.fatal.CompareAndSwap(nil, &closed)
	if s.open == nil {
		return nil
	}
	if err := s.close(s.open); err != nil {
		return fmt.Errorf("closing %s: %w", s.openPath(s.open), err)
	}
	return nil
}
