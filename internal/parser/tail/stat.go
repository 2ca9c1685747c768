package tail

import (
	"errors"
	"io/fs"
	"slices"
	"syscall"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// initialStat checks a file for the first time. It reports whether there may be a file to read. A file whose stat fails
// may be any file.
func (t *Tailer) initialStat(f *hourFile) bool {
	info, err := t.tree.Stat(f.rel)
	if err == nil {
		err = vfs.NotRegular(f.rel, info)
	}
	switch {
	case err == nil:
		t.clearFailure(f.rel)
		f.inode, f.dev, f.size, f.modified, f.grownAt = inodeOf(info), devOf(info), info.Size(), info.ModTime(), t.now()
		f.hasStat = true
		if t.opt.Once {
			f.onceLimit = f.size
		}
		return true
	case errors.Is(err, fs.ErrNotExist), isNotNodeFile(err):
		t.recordFailure(f.rel, err) // not a file of the node: nothing waits for it
		return false
	default:
		t.recordFailure(f.rel, err)
		return true
	}
}

// retryInitialStats checks the files again whose first stat failed.
func (t *Tailer) retryInitialStats(d *directory) {
	for i := 0; i < len(d.files); i++ {
		f := d.files[i]
		if !f.undecided || f.hasStat || t.backingOff(f.rel) {
			continue
		}
		if in, known := t.nameListed(d, f.id); known && !in || !t.initialStat(f) {
			if i := slices.Index(d.files, f); i >= 0 {
				t.mu.Lock()
				d.remove(i)
				t.mu.Unlock()
			}
			i--
		}
	}
}

// statDate checks all files of one date.
func (t *Tailer) statDate(d *directory, date string) {
	for i := d.indexOfDate(date); i < len(d.files) && d.files[i].id.Date == date; i++ {
		f := d.files[i]
		t.stat(d, f)
		if i < len(d.files) && d.files[i] != f { // it left the table
			i--
			continue
		}
		t.unmarkIdle(d, i)
	}
}

// stat checks a file's size and identity.
func (t *Tailer) stat(d *directory, f *hourFile) {
	if f.undecided {
		return
	}
	if f.gone || !d.present || t.backingOff(f.rel) && !f.blocked {
		t.statHandle(d, f)
		return
	}
	info, err := t.tree.Stat(f.rel)
	if err == nil {
		err = vfs.NotRegular(f.rel, info)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.notFound(d, f, err)
		return
	case errors.Is(err, vfs.ErrNotRegular):
		t.markGone(d, f)
		t.recordFailure(f.rel, err)
		return
	case err != nil:
		t.recordFailure(f.rel, err)
		t.statHandle(d, f)
		return
	}
	replaced, err := t.replaced(f, info)
	switch {
	case err != nil:
		t.recordFailure(f.rel, err)
		t.statHandle(d, f)
	case replaced:
		t.markGone(d, f)
		t.addFile(d, f.id.Date, f.id.Hour)
		t.identify(d)
	default:
		if !f.blocked {
			t.clearFailure(f.rel)
		}
		t.updateSize(d, f, info)
	}
}

// statHandle updates a file from its open handle, if it is not at its path or cannot be read there.
func (t *Tailer) statHandle(d *directory, f *hourFile) {
	if f.handle == nil {
		return
	}
	if info, err := f.handle.Stat(); err == nil {
		t.updateSize(d, f, info)
	}
}

// notFound handles a file that was not found at its path. A single error proves nothing: the listing of its folder
// decides.
func (t *Tailer) notFound(d *directory, f *hourFile, err error) {
	rel := f.rel
	in, known := t.nameListed(d, f.id)
	t.identify(d)
	switch {
	case f.gone || f.rel != rel: // it was identified under another name
	case in, !known:
		t.recordFailure(rel, err)
		t.statHandle(d, f)
	default:
		t.clearFailure(rel)
		t.markGone(d, f)
	}
}

// replaced reports whether another file is at the file's path now. The inode may belong to a new file if no process
// holds the old one open, and a copy may have moved a file to another inode. The content decides. An error means that
// this is unknown.
func (t *Tailer) replaced(f *hourFile, info fs.FileInfo) (bool, error) {
	if inodeOf(info) == f.inode && devOf(info) == f.dev {
		// findTruncation handles a file that shrank.
		changed := !info.ModTime().Equal(f.modified) && info.Size() >= f.next
		if f.handle != nil || f.next == 0 || !changed {
			return false, nil
		}
		same, err := t.pathMatchesRead(f)
		return !same && err == nil, err
	}
	size := f.size
	if f.handle != nil {
		if heldInfo, err := f.handle.Stat(); err == nil {
			size = heldInfo.Size()
		}
	}
	t.mu.Lock()
	known := f.acked == f.next && f.ackMarker().Length > 0
	t.mu.Unlock()
	// A shorter copy, or a copy that may lack lines that were not read yet, is read as another file.
	if size > f.scanned || size > info.Size() || !known {
		return true, nil
	}
	same, err := t.pathMatchesRead(f)
	if err != nil {
		return false, err
	}
	if !same {
		return true, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.closeHandle()
	return false, nil
}

// pathMatchesRead reports whether the file at f's path has f's beginning and f's bytes before the position.
func (t *Tailer) pathMatchesRead(f *hourFile) (bool, error) {
	h, err := t.tree.Open(f.rel)
	if err != nil {
		return false, err
	}
	defer func() { _ = h.Close() }()
	return t.matchesRead(h, f)
}

// matchesRead is pathMatchesRead for an open file.
func (t *Tailer) matchesRead(h vfs.Source, f *hourFile) (bool, error) {
	t.mu.Lock()
	head, before := f.headUpTo(f.next), f.nextMarker()
	t.mu.Unlock()
	for _, hash := range []checkpoint.Hash{head, before} {
		if same, err := matches(h, hash); !same {
			return false, err
		}
	}
	return true, nil
}

// updateSize records a file's size. A file that no longer contains what was read resumes at the last matching position.
func (t *Tailer) updateSize(d *directory, f *hourFile, info fs.FileInfo) {
	// The reads that this requires come first. If they fail, the next refresh detects the change again.
	resume, what, err := t.findTruncation(f, info)
	if err != nil {
		t.recordFailure(f.rel, err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if inode := inodeOf(info); inode != f.inode {
		if d.inodes[f.inode] == f {
			delete(d.inodes, f.inode)
		}
		d.inodes[inode] = f
	}
	f.inode, f.dev, f.modified = inodeOf(info), devOf(info), info.ModTime()
	before := f.size
	if f.size = info.Size(); f.size == before {
		f.unchanged++
		if now := t.now(); now.Before(f.grownAt) { // the clock was set back
			f.grownAt = now
		}
	} else {
		f.unchanged, f.grownAt = 0, t.now()
		t.version++ // the next process must know what was reported as pending
	}
	switch {
	case resume != nil:
		t.resumeAt(f, *resume, what)
	case f.size > before:
		f.arrivals.record(f.size, f.grownAt)
	case f.size < before: // only a part of a torn line, or of unread data, was removed
		f.arrivals.truncate(f.size)
		f.scanned = min(f.scanned, f.size)
	}
}

// findTruncation returns where a file resumes that shrank below what was read, or that was truncated and grew past that
// position since the last refresh. It returns nil for a file that still contains what was read.
func (t *Tailer) findTruncation(f *hourFile, info fs.FileInfo) (resume *resumption, what string, err error) {
	size := info.Size()
	var h vfs.Source
	switch touched := size != f.size || !info.ModTime().Equal(f.modified); {
	case size < f.next:
		what = "a file shrank below what was read"
		if h, err = t.reopen(f); err != nil {
			return nil, "", err
		}
		defer func() { _ = h.Close() }()
	case touched && f.handle != nil:
		what, h = "a file was rewritten while it was read", f.handle
		t.mu.Lock()
		marker := f.nextMarker()
		t.mu.Unlock()
		if same, err := matches(h, marker); same || err != nil {
			return nil, "", err
		}
	default:
		return nil, "", nil
	}
	r, err := t.resumption(f, h, size)
	return &r, what, err
}

// reopen opens the file at a file's path, or returns its handle if it is gone.
func (t *Tailer) reopen(f *hourFile) (vfs.Source, error) {
	if f.gone && f.handle != nil {
		return keepOpen{f.handle}, nil
	}
	return t.tree.Open(f.rel)
}

// keepOpen is a source with a no-op Close, because another owner closes it.
type keepOpen struct{ vfs.Source }

func (keepOpen) Close() error { return nil }

// markGone records that a file is no longer at its path. What an open handle still reaches is read to its end.
func (t *Tailer) markGone(d *directory, f *hourFile) {
	t.mu.Lock()
	f.gone, f.unchanged = true, 0
	t.mu.Unlock()
	if f.handle == nil {
		t.moveToMissing(d, f)
		return
	}
	t.statHandle(d, f)
	f.unchanged = 0
}

// countLost counts the lines that were on disk and can no longer be read. The caller holds Tailer.mu.
func (t *Tailer) countLost(f *hourFile) {
	bytes := f.wholeEnd() - f.next
	f.size, f.scanned, f.measuredEnd = f.next, f.next, 0
	f.arrivals.truncate(f.next)
	if bytes <= 0 {
		return
	}
	t.counts.PrunedUnread++
	t.counts.SkippedBytes += bytes
	t.skipped = append(t.skipped,
		buffer.Skip{Bytes: bytes, File: f.rel, Reason: "the file was removed before it was read"})
	t.version++
	t.log.Error("a file was removed before it was read: prune later, or find out why the parser lags",
		"file", f.rel, "offset", f.next, "unreadBytes", bytes)
}

// dropGone moves the files that are not at their path, and that were read to the last reachable byte, to missing.
func (t *Tailer) dropGone(d *directory) {
	for i := d.idle; i < len(d.files); i++ {
		f := d.files[i]
		// A process that has the file open may still write to it, so it is checked once more.
		if !f.gone || f.handle != nil && (f.limit() > f.scanned && !f.blocked || f.unchanged == 0) {
			continue
		}
		t.moveToMissing(d, f)
		i--
	}
}

// markBlocked records that a file cannot be read currently. It is retried with backoff.
func (t *Tailer) markBlocked(f *hourFile, err error) {
	t.recordFailure(f.rel, err)
	t.mu.Lock()
	defer t.mu.Unlock()
	f.blocked = true
	f.closeHandle()
}

func inodeOf(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}

// devOf returns the device of an inode. Its number may change with a restart of the machine.
func devOf(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Dev) //nolint:unconvert // its type differs between systems
	}
	return 0
}
