package tail

import (
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

// directory is one of the stream's directories and the files in it.
type directory struct {
	Directory
	root         string         // <name>/hourly, in the data directory
	present      bool           // the last refresh found root
	steady       bool           // the last two refreshes listed root: new files appeared in between
	dates        map[string]day // the listed date folders, by name
	sortedDates  []string       // the names in dates, oldest first; replaced, never modified
	rootModified time.Time      // modification time of root when it was listed
	listedIn     uint64         // number of the refresh that last listed root
	relist       bool           // root was listed since the last scan
	pass         oldPass
	// files is sorted by hour. A recreated file follows the one that it replaced. Only the reader changes the slice,
	// under Tailer.mu.
	files  []*hourFile
	inodes map[uint64]*hourFile // the files of files and missing
	// missing holds the known files that are not at their path. Any file that appears may be one of them.
	missing    []*hourFile
	unfinished []*hourFile // the files of missing with unread, in-flight or uncommitted data
	// countedAt is when the absence of the files in missing was last added up.
	countedAt time.Time
	foreign   map[string]string // names that mean an hour but are not an hour file's name, and the reason
	// head is the index of the newest file that was started. Files before it only grow late.
	head int
	// idle is the number of files at the start of files that are idle, so that a refresh costs nothing for them. It is
	// at most head.
	idle      int
	undecided int             // number of files that are not identified yet
	failures  int             // number of unreadable paths that may hide known files
	doubtful  int             // number of names that were listed but not found
	started   bool            // something was read from it, by this process or before a restart
	newest    position.FileID // the newest hour in the checkpoint on disk
	offered   position.FileID // the newest hour in the last result of Files
}

// day is one date's folder as it was last listed.
type day struct {
	listed   bool
	modified time.Time
	hours    uint32 // one bit for each hour whose name is in the folder
	listedIn uint64 // number of the refresh that last listed it
	// stable reports whether two listings some time apart found the same modification time. A single listing may have
	// come between two changes that the file system's clock does not distinguish.
	stable bool
}

// oldPass is one pass over the old folders.
type oldPass struct {
	dates     []string // all old folders, oldest first
	done      int      // number of folders checked
	startedAt time.Time
}

const (
	// recentDates is the number of newest folders that every refresh checks. Older folders, which may number hundreds,
	// get new entries only late, or when a node recreates pruned hours.
	recentDates = 2
	// passTime is the time for one pass over all old folders and the files in them, a few at a time.
	passTime = time.Minute
)

// hourOf parses an hour file's name: unpadded, 0 to 23, no extension.
func hourOf(name string) (int, bool) {
	n, err := strconv.Atoi(name)
	return n, err == nil && n >= 0 && n <= 23 && strconv.Itoa(n) == name
}

func isDate(name string) bool {
	_, err := time.Parse("20060102", name)
	return err == nil
}

// compressedHour matches the names that compressors give to an hour's file.
var compressedHour = regexp.MustCompile(`^([0-9]{1,2})\.(gz|zst|lz4|xz|bz2|zip|sz|br)$`)

// foreignHour parses a name that means an hour but is not the node's name for its file. why is the reason.
func foreignHour(name string) (hour int, why string, ok bool) {
	digits, why := name, "a padded hour is not read: the node names its files 0 to 23"
	if m := compressedHour.FindStringSubmatch(name); m != nil {
		digits, why = m[1], "a compressed file is not read: compress only what was delivered, or decompress it"
	} else if len(name) != 2 || name[0] != '0' {
		return 0, "", false
	}
	n, err := strconv.Atoi(digits)
	return n, why, err == nil && n >= 0 && n <= 23
}

// relPath returns the path of an hour's file, relative to the data directory.
func relPath(directory, date string, hour int) string {
	return path.Join(directory, "hourly", date, strconv.Itoa(hour))
}

// scan lists what is new in d, except in the old folders, which scanOld covers. It lists a folder if its modification
// time changed; sweep lists the recent folders regardless. It then identifies the files that it found.
func (t *Tailer) scan(d *directory, sweep bool) {
	wasPresent, steady := d.present, d.steady
	d.present, d.steady = false, false
	missing := d.root == t.missingPath // checked every time, and cleared by checkMissing
	if !t.visible || t.backingOff(d.root) && !missing {
		return
	}
	info, err := t.tree.Stat(d.root)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "list", Path: d.root, Err: syscall.ENOTDIR}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !missing {
			t.clearFailure(d.root) // not there yet, or missing: known files are kept
		}
		return
	case err != nil:
		t.recordFailure(d.root, err)
		return
	}
	d.present = true
	relist := sweep || !wasPresent || d.relist || !info.ModTime().Equal(d.rootModified)
	if relist && !t.listRoot(d, info.ModTime()) {
		return
	}
	d.relist = false
	d.steady = steady && wasPresent
	old := len(d.sortedDates) - recentDates
	for i, date := range d.sortedDates {
		switch {
		case i >= old:
			if t.scanDate(d, date, sweep) {
				t.watch.add(path.Join(t.opt.DataDir, d.root, date)) // the newest is watched last, and so kept
			}
		case !relist:
		case !d.dates[date].listed:
			t.scanDate(d, date, true)
		}
	}
	t.retryInitialStats(d)
	t.identify(d)
	d.steady = true
}

// listRoot lists the dates. It reports whether it succeeded.
func (t *Tailer) listRoot(d *directory, modified time.Time) bool {
	entries, err := t.tree.List(d.root)
	if err != nil {
		t.recordFailure(d.root, err)
		return false
	}
	t.clearFailure(d.root)
	t.watch.add(path.Join(t.opt.DataDir, d.root))
	before := d.sortedDates
	d.rootModified, d.listedIn = modified, t.refreshes
	dates := make(map[string]day, len(entries))
	for _, e := range entries {
		if isDate(e.Name()) {
			dates[e.Name()] = d.dates[e.Name()]
		}
	}
	d.dates, d.sortedDates = dates, slices.Sorted(maps.Keys(dates))
	t.dropFailures(d.root, func(name string) bool { _, present := dates[name]; return present })
	for _, date := range before {
		if _, present := dates[date]; !present {
			t.statDate(d, date) // the pass does not cover it any more
		}
	}
	return true
}

// scanDate adds the new files of one date to the table, if the folder changed or force is set. It reports whether it
// listed the folder.
func (t *Tailer) scanDate(d *directory, date string, force bool) bool {
	listed := d.dates[date]
	folder := path.Join(d.root, date)
	if t.backingOff(folder) {
		return false
	}
	info, err := t.tree.Stat(folder)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "list", Path: folder, Err: syscall.ENOTDIR}
	}
	if err != nil {
		d.rootModified = time.Time{} // it may have been removed: make the next refresh list root again
		t.recordFailure(folder, err)
		return false
	}
	same := listed.listed && info.ModTime().Equal(listed.modified)
	if same && !force {
		return false
	}
	entries, err := t.tree.List(folder)
	if err != nil {
		t.recordFailure(folder, err)
		return false
	}
	t.clearFailure(folder)
	now := day{listed: true, modified: info.ModTime(), stable: same, listedIn: t.refreshes}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
		if hour, ok := hourOf(e.Name()); ok {
			now.hours |= 1 << hour
			if d.find(date, hour) == nil {
				t.addFile(d, date, hour)
			}
		}
	}
	for _, e := range entries { // after the hours in the folder are known
		if hour, why, ok := foreignHour(e.Name()); ok {
			t.reportForeign(d, position.FileID{Date: date, Hour: hour}, path.Join(folder, e.Name()), why)
		}
	}
	for name := range names {
		if tr := t.failures[path.Join(folder, name)]; tr != nil && tr.maybeRemoved {
			now.listed, now.stable = false, false // the next refresh finds out whether it still exists
		}
	}
	d.dates[date] = now
	t.dropFailures(folder, func(name string) bool { return names[name] })
	for name := range d.foreign {
		if path.Dir(name) == folder && !names[path.Base(name)] {
			delete(d.foreign, name)
		}
	}
	return true
}

// maxForeign bounds the number of foreign names that are remembered.
const maxForeign = 1024

// reportForeign records a name that means an hour and that is not read. If that hour is newer than all hours that are
// read, the node's current output is not read.
func (t *Tailer) reportForeign(d *directory, id position.FileID, rel, why string) {
	newest := d.newest
	if n := len(d.files); n > 0 && compareHours(d.files[n-1].id, newest) > 0 {
		newest = d.files[n-1].id
	}
	matters := compareHours(id, newest) > 0
	if matters {
		t.recordFailure(rel, errForeign(why))
	} else {
		t.clearFailure(rel)
	}
	if _, known := d.foreign[rel]; known || len(d.foreign) == maxForeign {
		return
	}
	d.foreign[rel] = why
	sameHour := func(f *hourFile) bool { return compareHours(f.id, id) == 0 }
	if !matters && !slices.ContainsFunc(d.files, sameHour) && !slices.ContainsFunc(d.missing, sameHour) {
		t.logLimited(slog.LevelWarn, "an hour's file is not read", "file", rel, "reason", why)
	}
}

// errForeign is the reason why a name that means an hour is not read.
type errForeign string

func (e errForeign) Error() string { return string(e) }

// nameListed reports whether a listing of this refresh contains the name of an hour's file, and whether that is known.
func (t *Tailer) nameListed(d *directory, id position.FileID) (in, known bool) {
	if !d.present {
		return false, false
	}
	if d.listedIn != t.refreshes {
		info, err := t.tree.Stat(d.root)
		if err != nil || !t.listRoot(d, info.ModTime()) {
			return false, false
		}
		d.relist = true // the next scan lists what is new
	}
	listed, present := d.dates[id.Date]
	if !present {
		return false, true
	}
	if listed.listedIn != t.refreshes && !t.scanDate(d, id.Date, true) {
		return false, false
	}
	return d.dates[id.Date].hours&(1<<id.Hour) != 0, true
}

// scanOld checks the number of old folders, and the files in them, that is due for one pass per passTime.
func (t *Tailer) scanOld(d *directory, now time.Time) {
	r := &d.pass
	if r.done == len(r.dates) || now.Before(r.startedAt) {
		*r = oldPass{dates: d.sortedDates[:max(len(d.sortedDates)-recentDates, 0)], startedAt: now}
	}
	due := len(r.dates)
	if passed := now.Sub(r.startedAt); passed < passTime {
		due = int(int64(due) * int64(passed) / int64(passTime))
	}
	for ; r.done < due; r.done++ {
		date := r.dates[r.done]
		t.scanDate(d, date, !d.dates[date].stable)
		t.statDate(d, date)
	}
}

// unmarkIdle records that a file that was just checked may not be idle any more.
func (t *Tailer) unmarkIdle(d *directory, i int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i < d.idle && i < len(d.files) && !d.files[i].isIdle() {
		d.idle = i
	}
}

// markIdle records which files have become idle.
func (t *Tailer) markIdle(d *directory) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for d.idle < min(d.head, len(d.files)-liveFiles) && d.files[d.idle].isIdle() {
		d.files[d.idle].releaseMemory()
		d.idle++
	}
}

// find returns the newest incarnation of a file that is at its path.
func (d *directory) find(date string, hour int) *hourFile {
	id := position.FileID{Date: date, Hour: hour}
	for i := d.indexAfter(id) - 1; i >= 0 && compareHours(d.files[i].id, id) == 0; i-- {
		if f := d.files[i]; !f.gone {
			return f
		}
	}
	return nil
}

// indexAfter returns the index after all incarnations of an hour's file, where its next one belongs.
func (d *directory) indexAfter(id position.FileID) int {
	i, _ := slices.BinarySearchFunc(d.files, id, func(f *hourFile, id position.FileID) int {
		if c := compareHours(f.id, id); c != 0 {
			return c
		}
		return -1
	})
	return i
}

// indexOfDate returns the index of the first file of a date, or the index where it would be.
func (d *directory) indexOfDate(date string) int {
	return d.indexAfter(position.FileID{Date: date, Hour: -1})
}

// compareHours orders files by time. Hours are numbers: "10" follows "9".
func compareHours(a, b position.FileID) int {
	if a.Date != b.Date {
		if a.Date < b.Date {
			return -1
		}
		return 1
	}
	return a.Hour - b.Hour
}

func laterHour(a, b position.FileID) position.FileID {
	if compareHours(a, b) >= 0 {
		return a
	}
	return b
}

// addFile adds a file whose name is in its folder to the table. identify decides later which file it is, and where it
// is read from.
func (t *Tailer) addFile(d *directory, date string, hour int) {
	rel := relPath(d.Name, date, hour)
	f := &hourFile{
		id:   position.FileID{Directory: d.Name, Date: date, Hour: hour, Generation: noGeneration},
		mode: d.Mode, rel: rel, undecided: true, onceLimit: -1,
	}
	if t.backingOff(rel) || !t.initialStat(f) {
		return
	}
	if other := d.inodes[f.inode]; f.inode != 0 && other != nil && !other.gone && other.rel != rel {
		// A second name of a file in the table is ignored: its lines are read under the first name.
		if at, err := t.tree.Stat(other.rel); err == nil && inodeOf(at) == other.inode {
			return
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.insert(d, f)
}

// insert adds a file in the order of hours, and returns its index. The caller holds Tailer.mu.
func (t *Tailer) insert(d *directory, f *hourFile) int {
	i := d.indexAfter(f.id)
	d.files = slices.Insert(d.files, i, f)
	d.idle = min(d.idle, i)
	if i <= d.head && d.started && len(d.files) > 1 {
		d.head++
	}
	if f.inode != 0 {
		d.inodes[f.inode] = f
	}
	if f.undecided {
		d.undecided++
	} else {
		t.version++
	}
	return i
}

// remove removes a file from the table. The caller holds Tailer.mu.
func (d *directory) remove(i int) {
	if d.files[i].undecided {
		d.undecided--
	}
	if f := d.files[i]; f.undecided && d.inodes[f.inode] == f {
		delete(d.inodes, f.inode)
	}
	d.files = slices.Delete(d.files, i, i+1)
	if d.head >= i && d.head > 0 {
		d.head--
	}
	if d.idle > i {
		d.idle--
	}
}
