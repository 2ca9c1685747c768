package tail

import (
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// identify decides which files the new ones in the table are. A known file continues at its position, under whatever
// path it returned. All others are read from their first byte. A file that cannot be read may be any file: it stays
// undecided and is retried.
func (t *Tailer) identify(d *directory) {
	if d.undecided == 0 || t.starting {
		return
	}
	var unidentified []*hourFile
	for _, f := range d.files {
		if f.undecided && f.hasStat && !t.backingOff(f.rel) {
			unidentified = append(unidentified, f)
		}
	}
	c := t.candidatesFor(d)
	// A file that was replaced is known in addition to its replacement. The strongest criterion therefore comes first.
	criteria := []func(*Tailer, *candidates, *hourFile) (*hourFile, error){byInode, byPosition, byHead, byContent}
	for _, match := range criteria {
		if c.empty() {
			break
		}
		unidentified = slices.DeleteFunc(unidentified, func(f *hourFile) bool {
			known, err := match(t, c, f)
			if err == nil && known != nil {
				err = t.adopt(d, known, f)
				if err == nil {
					c.taken[known] = true
				}
			}
			switch {
			case errors.Is(err, fs.ErrNotExist): // it disappeared again
				t.mu.Lock()
				d.remove(slices.Index(d.files, f))
				t.mu.Unlock()
				d.rootModified = time.Time{}
			case err != nil:
				t.recordFailure(f.rel, err)
			}
			return err != nil || known != nil
		})
	}
	for _, f := range unidentified {
		if err := t.startNew(d, f); err != nil {
			t.recordFailure(f.rel, err)
		}
	}
}

// candidates are the files that a new one may be: the known files that are not at their path.
type candidates struct {
	inodes map[uint64][]*hourFile
	hours  map[position.FileID][]*hourFile // by date and hour
	heads  map[checkpoint.Hash][]*hourFile // by the hash of a complete first KiB
	taken  map[*hourFile]bool
}

func (t *Tailer) candidatesFor(d *directory) *candidates {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &candidates{
		inodes: map[uint64][]*hourFile{}, hours: map[position.FileID][]*hourFile{},
		heads: map[checkpoint.Hash][]*hourFile{}, taken: map[*hourFile]bool{},
	}
	add := func(f *hourFile, moved bool) {
		if f.inode != 0 {
			c.inodes[f.inode] = append(c.inodes[f.inode], f)
		}
		if moved {
			return
		}
		hour := hourID(f)
		c.hours[hour] = append(c.hours[hour], f)
		if head := f.headUpTo(hashBytes); head.Length == hashBytes && f.next > hashBytes {
			c.heads[head] = append(c.heads[head], f)
		}
	}
	for _, f := range d.missing {
		add(f, false)
	}
	for _, f := range d.files {
		if f.gone {
			add(f, false)
		} else if !f.undecided {
			// It is still at its path, unless it was renamed. Another name with its inode may be its new name.
			add(f, true)
		}
	}
	return c
}

func hourID(f *hourFile) position.FileID {
	return position.FileID{Date: f.id.Date, Hour: f.id.Hour}
}

func (c *candidates) empty() bool { return len(c.inodes) == 0 && len(c.hours) == 0 }

// firstMatch opens a new file once and returns the first of files for which same returns true.
func (t *Tailer) firstMatch(
	f *hourFile, files []*hourFile, c *candidates, same func(h vfs.Source, known *hourFile) (bool, error),
) (*hourFile, error) {
	if !slices.ContainsFunc(files, func(known *hourFile) bool { return !c.taken[known] }) {
		return nil, nil
	}
	h, err := t.tree.Open(f.rel)
	if err != nil {
		return nil, err
	}
	defer func() { _ = h.Close() }()
	for _, known := range files {
		if c.taken[known] {
			continue
		}
		if ok, err := same(h, known); ok || err != nil {
			return known, err
		}
	}
	return nil, nil
}

// byInode finds the file with the inode of the new one. A file that was never read is identified by its hour or its
// size alone.
func byInode(t *Tailer, c *candidates, f *hourFile) (*hourFile, error) {
	sameInode := c.inodes[f.inode]
	peers := slices.DeleteFunc(slices.Clone(sameInode), func(known *hourFile) bool {
		return known.next == 0 || known.rel == f.rel && !known.gone
	})
	found, err := t.firstMatch(f, peers, c, func(h vfs.Source, known *hourFile) (bool, error) {
		if !known.gone { // if it is still at its path, it is not the new file
			if f.size < known.next {
				return false, nil
			}
			return t.matchesRead(h, known)
		}
		head := t.beginningOf(known, f.size)
		if hourID(known) != hourID(f) && head.Length < t.beginningOf(known, known.next).Length {
			return false, nil // too short to compare: a reused inode is likelier than a file both truncated and moved
		}
		return matches(h, head)
	})
	if err == nil && found == nil {
		for _, known := range sameInode {
			if known.next == 0 && known.gone && !c.taken[known] &&
				(hourID(known) == hourID(f) || known.size > 0 && f.size >= known.size) {
				return known, nil
			}
		}
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return found, err
	}
	// The new file cannot be read, but everything in it was read already if it is the file of that path. It is assumed
	// to be that file, and is compared before anything is read from it. Otherwise a file that was read completely would
	// block all later files.
	for _, known := range peers {
		if !c.taken[known] && known.gone && hourID(known) == hourID(f) && known.next == f.size {
			known.unverified = true
			t.recordFailure(f.rel, err)
			return known, nil
		}
	}
	return nil, err
}

func (t *Tailer) beginningOf(f *hourFile, size int64) checkpoint.Hash {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f.headUpTo(size)
}

// byPosition finds the known file of the new one's path, if the new one contains everything that was read from it.
func byPosition(t *Tailer, c *candidates, f *hourFile) (*hourFile, error) {
	return t.firstMatch(f, c.hours[hourID(f)], c, func(h vfs.Source, known *hourFile) (bool, error) {
		if known.next == 0 || f.size < known.next {
			return false, nil
		}
		return t.matchesRead(h, known)
	})
}

// byHead finds the known file of the new one's path, if the two have the same beginning.
func byHead(t *Tailer, c *candidates, f *hourFile) (*hourFile, error) {
	return t.firstMatch(f, c.hours[hourID(f)], c, func(h vfs.Source, known *hourFile) (bool, error) {
		if known.next == 0 {
			return known.fromCheckpoint, nil // from a checkpoint: it had no complete line then
		}
		head := t.beginningOf(known, f.size)
		if head.Length == 0 {
			return false, nil
		}
		return matches(h, head)
	})
}

// byContent finds the known file of any path, if the new one contains everything that was read from it. A KiB at both
// ends contains times, users and order IDs: no two files share them.
func byContent(t *Tailer, c *candidates, f *hourFile) (*hourFile, error) {
	if len(c.heads) == 0 || f.size < hashBytes {
		return nil, nil
	}
	h, err := t.tree.Open(f.rel)
	if err != nil {
		return nil, err
	}
	defer func() { _ = h.Close() }()
	head := make([]byte, hashBytes)
	if _, err := h.ReadAt(head, 0); err != nil {
		return nil, err
	}
	for _, known := range c.heads[hash(0, head)] {
		if c.taken[known] || f.size < known.next {
			continue
		}
		if ok, err := t.matchesRead(h, known); ok || err != nil {
			return known, err
		}
	}
	return nil, nil
}

// inspection is what was read from a new file before a known file is moved to its path.
type inspection struct {
	born   time.Time
	end    int64       // of its last complete line; -1 if it was not searched
	resume *resumption // where it resumes, if it no longer contains what was read from it
}

// inspect reads what adopt must know. It changes nothing.
func (t *Tailer) inspect(known, f *hourFile) (inspection, error) {
	got := inspection{end: -1}
	if (known.next == 0 || known.unverified) && f.size <= known.size {
		return got, nil
	}
	source, err := t.tree.Open(f.rel)
	if err != nil {
		return got, err
	}
	defer func() { _ = source.Close() }()
	got.born = vfs.Born(source)
	if f.size > known.next {
		if got.end, err = afterLastNewline(source, known.next, f.size); err != nil {
			return got, err
		}
	}
	if known.next == 0 {
		return got, nil
	}
	if f.size >= known.next {
		t.mu.Lock()
		marker := known.nextMarker()
		t.mu.Unlock()
		if same, err := matches(source, marker); same || err != nil {
			return got, err
		}
	}
	resume, err := t.resumption(known, source, f.size)
	got.resume = &resume
	return got, err
}

// adopt moves a known file to the path where a new one was found.
func (t *Tailer) adopt(d *directory, known, f *hourFile) error {
	got, err := t.inspect(known, f)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	d.remove(slices.Index(d.files, f))
	if i := slices.Index(d.files, known); i >= 0 {
		d.remove(i)
	} else {
		d.removeMissing(known)
	}
	renamed := known.rel != f.rel
	switch {
	case renamed:
		t.log.Info("a file was found under another name; continuing at its position", "from", known.rel, "to", f.rel,
			"offset", known.next)
	case !known.fromCheckpoint:
		t.log.Info("a file is back; continuing at its position", "file", f.rel, "offset", known.next)
	}
	from, floor := known.size, known.modified
	if known.fromCheckpoint {
		floor = t.checkpointAt
	}
	known.moveTo(f, t.now())
	if renamed && known.origin != nil {
		known.renamed = true
		if t.usedIDs[known.id] {
			t.assignUniqueGeneration(known, got.born)
		}
		t.setOrigin(known, known.id.Generation) // blocks in flight keep their origin
	}
	if got.resume != nil {
		t.resumeAt(known, *got.resume, "a file no longer contains what was read from it")
	} else {
		if known.size > from {
			known.estimateArrival(t.now(), got.born, from, floor)
		}
		if got.end >= 0 && known.scanned == known.next && known.limit() == f.size {
			t.setWholeEnd(known, got.end)
		}
	}
	t.insertIdentified(d, known)
	return nil
}

// moveTo gives a file the hour, the path and the size of another. The caller holds Tailer.mu.
func (f *hourFile) moveTo(at *hourFile, now time.Time) {
	if f.handle != nil && (f.inode != at.inode || f.dev != at.dev || f.rel != at.rel) {
		f.closeHandle()
	}
	if at.size < f.size {
		f.arrivals.truncate(at.size)
	}
	if at.size < f.scanned {
		f.scanned = max(min(f.scanned, at.size), min(f.next, at.size))
	}
	f.rel, f.inode, f.dev, f.modified, f.size, f.onceLimit = at.rel, at.inode, at.dev, at.modified, at.size, at.onceLimit
	f.id.Date, f.id.Hour = at.id.Date, at.id.Hour
	f.gone, f.fromCheckpoint, f.undecided, f.unchanged, f.grownAt = false, false, false, 0, now
	f.absent, f.absentSince, f.measuredEnd, f.measured = 0, time.Time{}, 0, 0
}

// insertIdentified inserts an identified file. The caller holds Tailer.mu.
func (t *Tailer) insertIdentified(d *directory, f *hourFile) {
	started := d.started
	d.started = false // so that insert does not move head
	i := t.insert(d, f)
	d.started = started
	switch {
	case f.next > 0 && i > d.head:
		d.head = i
	case i <= d.head && len(d.files) > 1 && (f.next > 0 || started):
		d.head++
	}
}

// startNew makes a new file readable from its first byte. A file whose generation needs its creation time stays
// undecided if it cannot be opened.
func (t *Tailer) startNew(d *directory, f *hourFile) error {
	var born time.Time
	end := int64(-1)
	unique := t.needsUniqueGeneration(d, f)
	if !d.steady || unique {
		// No process observed its arrival. If it cannot be read here, its modification time is used instead. The reader
		// reports the error.
		h, err := t.tree.Open(f.rel)
		if err != nil && unique {
			return err
		}
		if err == nil {
			born = vfs.Born(h)
			if last, err := afterLastNewline(h, 0, f.size); err == nil {
				end = last
			}
			_ = h.Close()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.undecided = false
	d.undecided--
	d.inodes[f.inode] = f
	t.version++
	if d.steady {
		f.arrivals.record(f.size, t.now())
	} else {
		f.estimateArrival(t.now(), born, 0, time.Time{})
		if end >= 0 && f.limit() == f.size {
			t.setWholeEnd(f, end)
		}
	}
	if unique {
		t.assignUniqueGeneration(f, born)
	}
	return nil
}

// needsUniqueGeneration reports whether another file of f's hour had, or may have had, the generation that comes from
// the first line: one is known, or the checkpoint on disk has that hour or a later one and may have forgotten it. What
// the process knows beyond the checkpoint does not count. After a crash the next process must come to the same answer,
// or the destination does not recognise what it stored.
func (t *Tailer) needsUniqueGeneration(d *directory, f *hourFile) bool {
	sameHour := func(other *hourFile) bool { return other != f && compareHours(other.id, f.id) == 0 }
	i := slices.Index(d.files, f)
	return slices.ContainsFunc(d.missing, sameHour) || i > 0 && sameHour(d.files[i-1]) ||
		compareHours(f.id, d.newest) <= 0
}

// estimateArrival records when the bytes after an offset may have arrived, if no process observed that. It assumes that
// the file grew evenly from its creation to its last write. The bytes did not arrive before floor.
func (f *hourFile) estimateArrival(now, born time.Time, from int64, floor time.Time) {
	at := f.modified
	if at.After(now) {
		at = now
	}
	if span := at.Sub(born); !born.IsZero() && span > 0 && f.size > 0 {
		at = at.Add(-time.Duration(float64(span) * float64(f.size-from) / float64(f.size)))
	}
	if floor.After(at) && !floor.After(now) {
		at = floor
	}
	f.arrivals.recordEstimate(f.size, at)
}

// restore adds the files of a checkpoint. None of them was observed yet: identify finds out where they are.
func (t *Tailer) restore(state *checkpoint.State) {
	t.mu.Lock() // a report may read the figures before Open returns
	defer t.mu.Unlock()
	t.checkpointSequence, t.checkpointAt = state.Sequence, state.CommittedAt
	for _, d := range t.dirs {
		for i := range state.Files {
			e := &state.Files[i]
			if e.Directory != d.Name {
				continue
			}
			f := &hourFile{
				id: e.FileID, mode: d.Mode, rel: relPath(e.Directory, e.Date, e.Hour), inode: e.Inode, onceLimit: -1,
				next: e.Offset, scanned: e.Offset, acked: e.Offset, offered: e.Offset, committed: e.Offset,
				headSum: e.Head, marker: e.Marker, markers: slices.Clone(e.Markers), size: max(e.Size, e.Offset),
				gone: true, fromCheckpoint: true, absent: time.Duration(e.AbsentSeconds) * time.Second,
			}
			if f.size > f.next {
				at, guessed := e.SeenAt, false
				if at.IsZero() || at.After(t.now()) {
					at, guessed = t.checkpointAt, true
				}
				if at.After(t.now()) {
					at = t.now()
				}
				f.arrivals.entries = append(f.arrivals.entries, arrival{f.size, at, guessed})
			}
			if e.Offset > 0 {
				d.started = true
				f.origin = &buffer.Origin{ID: f.id, Label: f.id.String()}
				t.origins[f.origin] = f
			}
			t.usedIDs[e.FileID] = true
			d.newest = laterHour(d.newest, e.FileID)
			d.missing = append(d.missing, f)
			if !f.isFinished() {
				d.unfinished = append(d.unfinished, f)
			}
		}
	}
}
