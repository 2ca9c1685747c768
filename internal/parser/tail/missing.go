package tail

import (
	"slices"
	"time"
)

const (
	// lostAfter is the time for which a file must have been known to be gone before its unread data counts as lost and
	// the next file is read. It is longer than it takes to move a folder away and back.
	lostAfter = 3 * time.Second
	// forgetAfter is the time for which a file must have been known to be gone, while a parser ran, before its
	// checkpoint entry is dropped. It is longer than a remount, a reboot or a repair takes. The node's own pruner keeps
	// files for as long.
	forgetAfter = 48 * time.Hour
	// absenceStep is the granularity at which a file's absence is saved in checkpoints.
	absenceStep = 15 * time.Minute
	// maxAbsent bounds the number of remembered files that are known to be gone. It does not apply to files that may
	// only be unreachable.
	maxAbsent = 1024
)

// moveToMissing moves a file that is not at its path from the table to missing. Acknowledgements of its blocks still
// count.
func (t *Tailer) moveToMissing(d *directory, f *hourFile) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(d.files, f); i >= 0 {
		d.remove(i)
	}
	f.closeHandle()
	f.gone, f.blocked = true, false
	d.missing = append(d.missing, f)
	if !f.isFinished() {
		d.unfinished = append(d.unfinished, f)
	} else {
		f.releaseMemory()
	}
	if t.current == f {
		t.current = nil
	}
	t.version++
}

// removeMissing removes a file from missing. The caller holds Tailer.mu.
func (d *directory) removeMissing(f *hourFile) {
	isFile := func(other *hourFile) bool { return other == f }
	d.missing = slices.DeleteFunc(d.missing, isFile)
	d.unfinished = slices.DeleteFunc(d.unfinished, isFile)
}

// isFinished reports whether the file has no unread, in-flight or uncommitted data. The caller holds Tailer.mu.
func (f *hourFile) isFinished() bool {
	return f.wholeEnd() == f.next && f.acked == f.next && f.committed == f.next
}

// trackMissing adds up for how long the missing files have been known to be gone, counts the data lost with them, and
// forgets those that have been gone for long.
func (t *Tailer) trackMissing(d *directory, now time.Time, sweep bool) {
	for _, f := range slices.Clone(d.unfinished) {
		t.mu.Lock()
		unread := f.wholeEnd() > f.next
		t.mu.Unlock()
		if unread && f.gone && t.knownGone(d, f, true) {
			t.mu.Lock()
			if f.absentSince.IsZero() || now.Before(f.absentSince) {
				f.absentSince = now
			}
			if now.Sub(f.absentSince) >= lostAfter || t.opt.Once {
				t.countLost(f)
			}
			t.mu.Unlock()
		} else {
			f.absentSince = time.Time{}
		}
	}
	t.mu.Lock()
	d.unfinished = slices.DeleteFunc(d.unfinished, (*hourFile).isFinished)
	t.mu.Unlock()
	if len(d.missing) == 0 {
		d.countedAt = now // nothing was missing until now
	}
	if !sweep {
		return
	}
	passed := min(max(now.Sub(d.countedAt), 0), 2*sweepInterval) // bounded, in case the clock jumps
	d.countedAt = now
	t.mu.Lock()
	defer t.mu.Unlock()
	absent := 0
	d.missing = slices.DeleteFunc(d.missing, func(f *hourFile) bool {
		if !t.knownGone(d, f, false) {
			return false
		}
		absent++
		before := f.absent
		f.absent += passed
		if before/absenceStep != f.absent/absenceStep {
			t.version++
		}
		return f.absent >= t.forgetAfter && t.forget(d, f)
	})
	for ; absent > maxAbsent; absent-- {
		longest := -1
		for i, f := range d.missing {
			if f.isFinished() && f.absent > 0 && (longest < 0 || f.absent > d.missing[longest].absent) {
				longest = i
			}
		}
		if longest < 0 {
			return
		}
		t.forget(d, d.missing[longest])
		d.missing = slices.Delete(d.missing, longest, longest+1)
	}
}

// forget drops what is known of a file that is in no list any more. It reports whether it did: a file with blocks in
// flight is kept. The caller holds Tailer.mu.
func (t *Tailer) forget(d *directory, f *hourFile) bool {
	if !f.isFinished() {
		return false
	}
	if d.inodes[f.inode] == f {
		delete(d.inodes, f.inode)
	}
	t.forgetOrigins(f)
	t.version++
	return true
}

// knownGone reports whether a missing file is known to be gone: all folders that may hold it were listed, and every
// file in them is known to be another. With now set, this refresh must have listed the file's own folder.
func (t *Tailer) knownGone(d *directory, f *hourFile, now bool) bool {
	if !d.present || d.undecided > 0 || d.failures > 0 {
		return false
	}
	if now {
		if _, known := t.nameListed(d, f.id); !known || d.undecided > 0 || d.failures > 0 {
			return false
		}
	}
	listed, present := d.dates[f.id.Date]
	return !present || listed.listed // any file at its path is in the table, and is another file
}

// mustWait reports whether a file that was never started must wait, because an earlier file is missing with unread
// data.
func (d *directory) mustWait(f *hourFile) bool {
	if f.next > 0 {
		return false
	}
	for _, other := range d.unfinished {
		if other.wholeEnd() > other.next && compareHours(other.id, f.id) < 0 {
			return true
		}
	}
	return false
}
