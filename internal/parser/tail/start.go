package tail

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// Open decides where reading begins. With a checkpoint it is after what was acknowledged; resume is nil for a stream that was
// never read before. The caller saves a checkpoint of Files before Run, so that a crash does not decide a second time.
func (t *Tailer) Open(resume *checkpoint.State) error {
	if err := t.checkDataDir(); err != nil {
		return err
	}
	for _, d := range t.dirs {
		t.scan(d, true)
	}
	t.sweepAt = t.now()
	if resume != nil {
		t.resume(resume)
	} else if err := t.begin(); err != nil {
		return err
	}
	for _, d := range t.dirs {
		for _, f := range d.files {
			if f.acked > 0 {
				d.begun = true
			}
		}
	}
	return nil
}

// begin sets the positions of a stream that was never read. The directory that is being written begins as StartAt says; the
// others are stale, and count as read.
func (t *Tailer) begin() error {
	var active *directory
	for _, d := range t.dirs {
		if len(d.files) > 0 && (active == nil || d.lastWrite().After(active.lastWrite())) {
			active = d
		}
	}
	for _, d := range t.dirs {
		if d == active && t.opt.StartAt == config.Beginning {
			continue
		}
		for i, f := range d.files {
			if err := t.passOver(f); err != nil {
				return fmt.Errorf("finding the end of %s: %w", f.rel, err)
			}
			d.head = i
		}
	}
	return nil
}

// lastWrite is when the newest file was last written.
func (d *directory) lastWrite() time.Time {
	var last time.Time
	for _, f := range d.files[max(len(d.files)-2, 0):] {
		if f.modified.After(last) {
			last = f.modified
		}
	}
	return last
}

// passOver counts everything up to the file's last newline as read.
func (t *Tailer) passOver(f *file) error {
	h, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	end, err := afterLastNewline(h, f.size)
	if err != nil {
		return err
	}
	return t.take(f, h, end)
}

// take sets the position of a file that was not read by this process, and what it is recognised by.
func (t *Tailer) take(f *file, h io.ReaderAt, offset int64) error {
	head := make([]byte, min(offset, hashBytes))
	if _, err := h.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	before := make([]byte, min(offset, hashBytes))
	if _, err := h.ReadAt(before, offset-int64(len(before))); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.next, f.scanned, f.acked, f.committed = offset, offset, offset, offset
	if f.head = head; offset > 0 {
		f.marker = hash(offset-int64(len(before)), before)
	}
	f.headHash() // which gives up head, of which there may be ten thousand
	if offset > 0 && f.origin == nil {
		t.setOrigin(f, generationOf(head))
	}
	f.seen.acknowledge(offset)
	return nil
}

// afterLastNewline returns the offset of the first byte that belongs to no whole line.
func afterLastNewline(r io.ReaderAt, size int64) (int64, error) {
	b := make([]byte, min(size, 64<<10))
	for end := size; end > 0; {
		begin := max(end-int64(len(b)), 0)
		n, err := r.ReadAt(b[:end-begin], begin)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := lastNewline(b[:n]); i >= 0 {
			return begin + int64(i) + 1, nil
		}
		end = begin
	}
	return 0, nil
}

// resume sets the positions of a checkpoint. Files that it does not know are new and read from their first byte, but for a
// directory that it does not know at all beside others, where what was written before the checkpoint is stale. One directory alone
// is never stale, whatever the clocks say: all its files may have been pruned.
func (t *Tailer) resume(state *checkpoint.State) {
	t.resumed = state.Sequence
	for _, d := range t.dirs {
		var entries []*checkpoint.File
		for i := range state.Files {
			if e := &state.Files[i]; e.Directory == d.Name {
				entries = append(entries, e)
			}
		}
		known := len(entries) > 0
		// A file that was replaced has an entry for each of the two until the first is forgotten: the surest sign goes first.
		for _, sure := range []recognition{t.byInode, t.byPosition, t.byHead} {
			entries = slices.DeleteFunc(entries, func(e *checkpoint.File) bool {
				f := recognise(d, e, sure)
				if f != nil {
					t.resumeFile(f, e)
				}
				return f != nil
			})
		}
		for _, e := range entries {
			t.named[e.FileID] = true
			t.missing(e)
		}
		t.strangers(d, state)
		for i, f := range d.files {
			// The grace is for clocks that do not tick alike: what is not surely old is read.
			if !known && len(t.dirs) > 1 && f.modified.Before(state.CommittedAt.Add(-grace)) {
				if err := t.passOver(f); err != nil {
					t.log.Warn("finding the end of a stale file", "file", f.rel, "error", err)
				}
			}
			if f.acked > 0 {
				d.head = i
			}
		}
	}
}

// strangers names the files that the checkpoint does not know although it knows their hour or a later one.
func (t *Tailer) strangers(d *directory, state *checkpoint.State) {
	newest := checkpoint.FileID{}
	for i := range state.Files {
		if id := state.Files[i].FileID; id.Directory == d.Name && compareHours(id, newest) > 0 {
			newest = id
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range d.files {
		if !f.resumed && compareHours(f.id, newest) <= 0 {
			t.nameAgain(f)
		}
	}
}

// recognition is a way to tell that a file is the one of an entry.
type recognition func(f *file, e *checkpoint.File) bool

func recognise(d *directory, e *checkpoint.File, same recognition) *file {
	for _, f := range d.files {
		if same(f, e) {
			return f
		}
	}
	return nil
}

func (t *Tailer) byInode(f *file, e *checkpoint.File) bool {
	return f.inode == e.Inode && e.Inode != 0 && t.same(f, e)
}

func (t *Tailer) byHead(f *file, e *checkpoint.File) bool {
	return f.id.Date == e.Date && f.id.Hour == e.Hour && t.same(f, e)
}

// byPosition is byHead for a file that also holds what was before the position.
func (t *Tailer) byPosition(f *file, e *checkpoint.File) bool {
	if f.size < e.Offset || e.Offset == 0 || !t.byHead(f, e) {
		return false
	}
	h, err := os.Open(f.path)
	if err != nil {
		return false
	}
	defer func() { _ = h.Close() }()
	return verifies(h, e.Marker)
}

// same tells whether a file still begins as the entry says. A file without a whole line has nothing to be known by, and
// nothing of it was read: its place is enough.
func (t *Tailer) same(f *file, e *checkpoint.File) bool {
	if f.resumed { // another entry's already
		return false
	}
	if e.Offset == 0 {
		return f.id.Date == e.Date && f.id.Hour == e.Hour
	}
	h, err := os.Open(f.path)
	if err != nil {
		return false
	}
	defer func() { _ = h.Close() }()
	return verifies(h, e.Head)
}

// resumeFile goes on where the entry says, or at the highest marker below it that still verifies when the file lost its end.
func (t *Tailer) resumeFile(f *file, e *checkpoint.File) {
	f.resumed = true
	if e.Offset == 0 {
		if f.inode == e.Inode {
			f.id.Generation = e.Generation
		}
		return
	}
	h, err := os.Open(f.path)
	if err != nil {
		t.block(f, err)
		return
	}
	defer func() { _ = h.Close() }()
	offset := e.Offset
	if f.size < offset || !verifies(h, e.Marker) {
		offset = 0
		for _, m := range e.Markers {
			if end := m.At + m.Length; end <= f.size && verifies(h, m) {
				offset = max(offset, end)
			}
		}
		t.counts.RepeatedBytes += max(min(e.Offset, f.size)-offset, 0)
		t.log.Warn("a file no longer holds what was read from it; reading it again from where it is known to be the same",
			"file", f.rel, "size", f.size, "read", e.Offset, "from", offset)
	}
	if err := t.take(f, h, offset); err != nil {
		t.block(f, err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.origin != nil {
		delete(t.origins, f.origin)
	}
	generation := e.Generation
	if offset < e.Offset { // positions before and after must not be taken for each other
		generation = generationOf(fmt.Appendf(nil, "%s %d %d", e.Generation, e.Offset, f.size))
	}
	t.setOrigin(f, generation)
	for _, m := range e.Markers {
		if m.At+m.Length <= offset {
			f.markers = append(f.markers, m)
		}
	}
}

// missing says that a file of the checkpoint is no longer on disk, and counts what it held that was never read.
func (t *Tailer) missing(e *checkpoint.File) {
	unread := e.Size - e.Offset
	if unread <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pruned(relOf(e.Directory, e.Date, e.Hour), unread)
	t.log.Error("a file was removed before it was read: prune later, or find out why the parser is behind",
		"file", e.String(), "offset", e.Offset, "unreadBytes", unread)
}
