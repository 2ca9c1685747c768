package tail

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// Open reads the stream's directories. With a checkpoint, reading continues after what was acknowledged. Files in the
// checkpoint that are not on disk are waited for. Files that are not in the checkpoint are new and read from their
// first byte.
//
// resume is nil for a stream that was never read. StartAt then determines where its files start, as soon as all of them
// can be read; see Decided. The caller saves a checkpoint of Files after that and before the first read, so that a
// crash does not cause a second decision.
//
// Open does not fail because of unreadable paths. Its error is ErrDirectoryGone or ErrNoBlocks.
func (t *Tailer) Open(resume *checkpoint.State) error {
	now := t.now()
	t.mu.Lock()
	t.starting = resume == nil
	t.awaitsBlock = t.opt.StartBlock > 0 && (resume == nil || resume.LastBlock < t.opt.StartBlock)
	t.mu.Unlock()
	t.refreshes++
	if err := t.refreshDataDir(); err != nil {
		return err
	}
	if resume != nil {
		t.restore(resume)
	}
	for _, d := range t.dirs {
		t.scan(d, true)
		d.countedAt = now
	}
	t.sweptAt = now
	if err := t.decideStart(); err != nil {
		return err
	}
	if resume != nil {
		for _, d := range t.dirs {
			t.setHead(d)
			t.trackMissing(d, now, false)
		}
	}
	t.checkMissing()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opened = true
	return nil
}

// setHead makes the newest file with acknowledged data the one that is read.
func (t *Tailer) setHead(d *directory) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d.head = 0
	for i, f := range d.files {
		if f.acked > 0 {
			d.head, d.started = i, true
		}
	}
}

// decideStart sets the positions of a stream that was never read, once all of its files can be read. Its error is
// ErrNoBlocks.
func (t *Tailer) decideStart() error {
	select {
	case <-t.decided:
		return nil
	default:
	}
	if t.starting {
		// With Beginning and a single directory, all files start at their first byte, whether or not they can be read.
		ready := t.opt.StartAt == config.Beginning && len(t.dirs) == 1 || !t.obscured()
		if keepTrying := !t.opt.Once || !t.retriesExhausted(); !ready && keepTrying {
			return nil
		}
		active := t.activeDirectory()
		if active != nil && t.opt.StartAt == config.AtBlock && active.Mode == config.Line {
			return t.noBlocks(active)
		}
		if !t.passOverExisting(active) {
			return nil
		}
		t.mu.Lock()
		t.starting = false
		t.mu.Unlock()
		for _, d := range t.dirs {
			steady := d.steady
			d.steady = false // no process observed the files before the start arrive
			t.identify(d)
			d.steady = steady
			t.setHead(d)
		}
	}
	close(t.decided)
	return nil
}

// noBlocks returns the error for a directory whose lines do not name their block, while the stream waits for one.
func (t *Tailer) noBlocks(d *directory) error {
	return fmt.Errorf("%w: the node writes %s in line mode, whose lines do not name their block, and startAt is "+
		"block %d: start the node with --batch-by-block or --stream-with-block-info, or set startAt to End or Beginning",
		ErrNoBlocks, d.Name, t.opt.StartBlock)
}

// activeDirectory returns the directory that the node writes to, or nil if there is no file.
func (t *Tailer) activeDirectory() (active *directory) {
	for _, d := range t.dirs {
		if len(d.files) > 0 && (active == nil || writtenAfter(d, active)) {
			active = d
		}
	}
	return active
}

// obscured reports whether an unreadable path may be a file of the stream, or hold one.
func (t *Tailer) obscured() bool {
	retried := 0 // files that were found but not readable: passOverExisting retries them
	failures := 0
	for _, d := range t.dirs {
		failures += d.failures
		if d.failures == 0 || d.undecided == 0 {
			continue
		}
		for _, f := range d.files {
			if tr := t.failures[f.rel]; f.undecided && f.hasStat && tr != nil && tr.mayHide {
				retried++
			}
		}
	}
	return failures > retried
}

// passOverExisting skips what existed before the start. With StartAt End that is everything; with Beginning it is the
// inactive directories of mode Auto; with AtBlock it is these and what precedes the block. What is left is new. It
// reports whether it could read all of it.
func (t *Tailer) passOverExisting(active *directory) bool {
	for _, d := range t.dirs {
		if t.opt.StartAt == config.AtBlock && d == active {
			if !t.passOverEarlier(d) {
				return false
			}
			continue
		}
		if t.opt.StartAt == config.Beginning && (d == active || active == nil) {
			continue
		}
		passed, files := int64(0), 0
		for i := 0; i < len(d.files); i++ {
			f := d.files[i]
			if !f.undecided {
				continue // decided by an earlier attempt
			}
			if t.backingOff(f.rel) {
				return false
			}
			switch end, err := t.passOver(d, f, -1); {
			case err == nil:
				t.clearFailure(f.rel)
				passed, files = passed+end, files+1
			case errors.Is(err, fs.ErrNotExist):
				t.mu.Lock()
				d.remove(i)
				t.mu.Unlock()
				i--
			default:
				t.recordFailure(f.rel, fmt.Errorf("finding the end of %s: %w", f.rel, err))
				return false
			}
		}
		if files > 0 {
			reason := "startAt is End"
			if d != active {
				reason = "the node writes to another directory"
			}
			t.log.Info("skipping what was on disk before the first start", "directory", d.Name, "files", files, "bytes", passed,
				"reason", reason)
		}
	}
	return true
}

// writtenAfter reports whether a was written after b: its newest hour is later, or it is the same hour and was written
// later. Modification times alone prove nothing, because copied files keep theirs.
func writtenAfter(a, b *directory) bool {
	if len(b.files) == 0 || len(a.files) == 0 {
		return len(a.files) > 0
	}
	if c := compareHours(a.files[len(a.files)-1].id, b.files[len(b.files)-1].id); c != 0 {
		return c > 0
	}
	return a.lastWrite().After(b.lastWrite())
}

// lastWrite returns the time of the last write to the newest file.
func (d *directory) lastWrite() time.Time {
	var last time.Time
	for _, f := range d.files[max(len(d.files)-2, 0):] {
		if f.modified.After(last) {
			last = f.modified
		}
	}
	return last
}

// passOver marks everything up to an offset as read, or up to the file's last newline if it is negative. It returns the
// offset.
func (t *Tailer) passOver(d *directory, f *hourFile, upTo int64) (int64, error) {
	h, err := t.tree.Open(f.rel)
	if err != nil {
		return 0, err
	}
	defer func() { _ = h.Close() }()
	info, err := h.Stat()
	if err != nil {
		return 0, err
	}
	whole, err := afterLastNewline(h, 0, info.Size())
	if err != nil {
		return 0, err
	}
	end := whole
	if upTo >= 0 {
		if whole < upTo || inodeOf(info) != f.inode {
			return 0, errOtherFile
		}
		end = upTo
	}
	head, before, err := endsOf(h, end)
	if err != nil {
		return 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.undecided, f.inode, f.dev, f.size, f.modified = false, inodeOf(info), devOf(info), info.Size(), info.ModTime()
	d.undecided--
	d.inodes[f.inode] = f
	f.next, f.scanned, f.acked, f.committed = end, end, end, end
	if f.head = head; end > 0 {
		f.marker = hash(end-int64(len(before)), before)
		t.setOrigin(f, generationOf(head))
	}
	f.headHash()     // frees head: there may be ten thousand files
	if whole > end { // what is left was on disk before this process
		f.estimateArrival(t.now(), vfs.Born(h), end, time.Time{})
		if f.limit() == f.size {
			t.setWholeEnd(f, whole)
		}
	}
	t.counts.PassedOver += end
	t.version++
	return end, nil
}

// endsOf reads the first and the last KiB before an offset.
func endsOf(h io.ReaderAt, offset int64) (head, before []byte, err error) {
	head, before = make([]byte, min(offset, hashBytes)), make([]byte, min(offset, hashBytes))
	if _, err := h.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	if _, err := h.ReadAt(before, offset-int64(len(before))); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	return head, before, nil
}

// retriesExhausted reports whether a run with Once has waited long enough for what cannot be read.
func (t *Tailer) retriesExhausted() bool { return t.refreshes >= onceRefreshes }

// refreshOnce retries what a run with Once could not check, and nothing else: data that arrived after Open is not read.
func (t *Tailer) refreshOnce() error {
	for _, d := range t.dirs {
		if d.failures+d.doubtful == 0 {
			continue
		}
		if !d.present || d.listedIn == 0 {
			t.scan(d, true)
			continue
		}
		for _, date := range d.sortedDates {
			if !d.dates[date].listed {
				t.scanDate(d, date, true)
			}
		}
		t.retryInitialStats(d)
		t.identify(d)
	}
	return t.decideStart()
}

// mayFindMore reports whether a run with Once may find more to read by retrying.
func (t *Tailer) mayFindMore() bool {
	doubtful := slices.ContainsFunc(t.dirs, func(d *directory) bool { return d.doubtful > 0 })
	return (doubtful || t.obscured()) && !t.retriesExhausted()
}

// finishOnce returns an error with a line for everything that should have been read and was not.
func (t *Tailer) finishOnce() error {
	var lines []string
	for _, rel := range t.failurePaths() {
		lines = append(lines, fmt.Sprintf("%s: %v", rel, bareError(t.failures[rel].err)))
	}
	lines = append(lines, t.missingDirectories()...)
	nothing := true
	for _, d := range t.dirs {
		for _, rel := range slices.Sorted(maps.Keys(d.foreign)) {
			if t.failures[rel] == nil {
				lines = append(lines, rel+": "+d.foreign[rel])
			}
		}
		for _, f := range d.files {
			nothing = false
			whole := f.wholeEnd()
			switch {
			case f.undecided, f.blocked: // covered by the failures
			case whole > f.next:
				lines = append(lines, fmt.Sprintf("%s: not read from byte %d: an earlier file cannot be read", f.rel, f.next))
			case f.limit() > f.next:
				t.log.Warn("a torn last line was not read: it has no newline yet", "file", f.rel, "offset", f.next, "bytes",
					f.limit()-f.next)
			}
		}
		for _, f := range d.unfinished {
			if f.wholeEnd() > f.next {
				lines = append(lines, fmt.Sprintf("%s: not read from byte %d: the file is missing", f.rel, f.next))
			}
		}
	}
	if len(lines) > 0 {
		return fmt.Errorf("%w\n%s", ErrUnread, strings.Join(lines, "\n"))
	}
	if nothing {
		t.log.Info("no file to read", "dataDir", t.opt.DataDir, "directories", t.directoryNames())
	}
	return nil
}

// missingDirectories returns the lines about directories that do not exist. If a stream may be in several, one is
// enough.
func (t *Tailer) missingDirectories() []string {
	if !t.visible {
		if t.failures["."] != nil {
			return nil
		}
		return []string{fmt.Sprintf("the data directory %s does not exist", t.opt.DataDir)}
	}
	for _, d := range t.dirs {
		if d.present || t.failures[d.root] != nil {
			return nil
		}
	}
	return []string{fmt.Sprintf("%s has no %s", t.opt.DataDir, t.directoryNames())}
}

// bareError returns an error without the path that it names, because the path precedes it in the message.
func bareError(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
