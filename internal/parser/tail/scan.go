package tail

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
)

// directory is one of the stream's directories and the files in it.
type directory struct {
	Directory
	root  string         // <data>/<name>/hourly
	dates map[string]day // what was listed, by name
	order []string       // the names in dates, oldest first; never changed, only replaced
	top   time.Time      // modification time of root when it was listed
	round round
	// files in the order of their hours; a re-created file stands after the one it replaced. Only the reader changes the
	// slice, under Tailer.mu.
	files  []*file
	inodes map[uint64]*file // files, and those that left them lately
	left   []leaver         // the latter, longest ago first
	// head is the index of the newest file that was begun. Files before it grow only late.
	head int
	// rest is how many files from the first on are at rest, so that a look costs nothing for them: at most head.
	rest  int
	begun bool // something was read from it, now or before a restart
}

// day is one date's folder as it was last listed.
type day struct {
	listed   bool
	modified time.Time
	// settled says that two listings a while apart saw the same modification time. One alone may have come between two
	// changes that the file system's clock does not tell apart.
	settled bool
}

// leaver is a file that is no longer at its path nor in the table. It is known again if it comes to another path: an old folder is
// looked at a minute later.
type leaver struct {
	file *file
	at   time.Time
}

// round is one walk over the old folders.
type round struct {
	dates []string // all of them, oldest first
	done  int      // how many had their turn
	began time.Time
}

const (
	// freshDates is how many of the newest folders are looked at every time. Older ones, of which there may be hundreds, get
	// something new only late, or when a node makes pruned hours again.
	freshDates = 2
	// roundTime is how long it takes to look once at all old folders and the files in them, a few at a time.
	roundTime = time.Minute
)

// hourOf reads an hour file's name: unpadded, 0 to 23, no extension.
func hourOf(name string) (int, bool) {
	n, err := strconv.Atoi(name)
	return n, err == nil && n >= 0 && n <= 23 && strconv.Itoa(n) == name
}

func isDate(name string) bool {
	_, err := time.Parse("20060102", name)
	return err == nil
}

// scan lists what is new in d, but for the old folders, which wait for their turn. A folder is listed when its modification
// time moved, and the fresh ones in every sweep.
func (t *Tailer) scan(d *directory, sweep bool) {
	info, err := os.Stat(d.root)
	if err != nil {
		return // not there, or gone: the files notice by themselves
	}
	again := sweep || !info.ModTime().Equal(d.top)
	if again && !t.listRoot(d, info.ModTime()) {
		return
	}
	old := len(d.order) - freshDates
	for i, date := range d.order {
		switch {
		case i >= old:
			if t.scanDate(d, date, sweep) {
				t.watch.add(filepath.Join(d.root, date)) // the newest is watched last, and so kept
			}
		case !again:
		case !d.dates[date].listed:
			t.scanDate(d, date, true)
		}
	}
}

// listRoot finds out which dates there are. It tells whether it could.
func (t *Tailer) listRoot(d *directory, modified time.Time) bool {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		t.cannotList(d.root, err)
		return false
	}
	delete(t.unlisted, d.root)
	t.watch.add(d.root)
	before := d.order
	d.top = modified
	dates := make(map[string]day, len(entries))
	for _, e := range entries {
		if isDate(e.Name()) {
			dates[e.Name()] = d.dates[e.Name()]
		}
	}
	d.dates, d.order = dates, slices.Sorted(maps.Keys(dates))
	for _, date := range before {
		if _, still := dates[date]; !still {
			t.statDate(d, date) // it gets no turn any more
		}
	}
	return true
}

// scanDate puts the files of one date into the table that are not there yet, if the folder changed or is to be listed anyhow.
// It tells whether it was.
func (t *Tailer) scanDate(d *directory, date string, anyhow bool) bool {
	listed := d.dates[date]
	path := filepath.Join(d.root, date)
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	same := listed.listed && info.ModTime().Equal(listed.modified)
	if same && !anyhow {
		return false
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		t.cannotList(path, err)
		return false
	}
	delete(t.unlisted, path)
	d.dates[date] = day{listed: true, modified: info.ModTime(), settled: same}
	for _, e := range entries {
		if hour, ok := hourOf(e.Name()); ok && d.find(date, hour) == nil {
			t.addFile(d, date, hour)
		}
	}
	return true
}

// scanOld looks at as many old folders, and the files in them, as it takes to have looked at all of them once a round.
func (t *Tailer) scanOld(d *directory, now time.Time) {
	r := &d.round
	if r.done == len(r.dates) || now.Before(r.began) {
		*r = round{dates: d.order[:max(len(d.order)-freshDates, 0)], began: now}
	}
	due := len(r.dates)
	if passed := now.Sub(r.began); passed < roundTime {
		due = int(int64(due) * int64(passed) / int64(roundTime))
	}
	for ; r.done < due; r.done++ {
		date := r.dates[r.done]
		t.scanDate(d, date, !d.dates[date].settled)
		t.statDate(d, date)
	}
}

// statDate looks at all files of one date.
func (t *Tailer) statDate(d *directory, date string) {
	for i := d.before(date); i < len(d.files) && d.files[i].id.Date == date; i++ {
		t.stat(d, d.files[i])
		t.wakeUp(d, i)
	}
}

// wakeUp notes that a file that was just looked at may have come out of its rest.
func (t *Tailer) wakeUp(d *directory, i int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i < d.rest && !d.files[i].atRest() {
		d.rest = i
	}
}

// settle notes which files have come to rest.
func (t *Tailer) settle(d *directory) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for d.rest < min(d.head, len(d.files)-liveFiles) && d.files[d.rest].atRest() {
		d.files[d.rest].shed()
		d.rest++
	}
}

// cannotList says once that a folder cannot be listed. It is tried again at every look, an old one in every sweep.
func (t *Tailer) cannotList(path string, err error) {
	if _, said := t.unlisted[path]; !said {
		t.log.Error("a folder cannot be listed; trying again", "directory", path, "error", err)
	}
	t.unlisted[path] = struct{}{}
}

// find returns the newest incarnation of a file that is not gone.
func (d *directory) find(date string, hour int) *file {
	id := checkpoint.FileID{Date: date, Hour: hour}
	for i := d.after(id) - 1; i >= 0 && compareHours(d.files[i].id, id) == 0; i-- {
		if f := d.files[i]; !f.gone {
			return f
		}
	}
	return nil
}

// after returns the index after all incarnations of an hour's file, where its next one belongs.
func (d *directory) after(id checkpoint.FileID) int {
	i, _ := slices.BinarySearchFunc(d.files, id, func(f *file, id checkpoint.FileID) int {
		if c := compareHours(f.id, id); c != 0 {
			return c
		}
		return -1
	})
	return i
}

// before returns the index of the first file of a date, or where it would be.
func (d *directory) before(date string) int {
	return d.after(checkpoint.FileID{Date: date, Hour: -1})
}

// addFile puts a file that is on disk into the table, to be read from its first byte, or where it was if it comes from another
// hour. A second name of a file in the table is left out: its lines are read under the first.
func (t *Tailer) addFile(d *directory, date string, hour int) {
	rel := relOf(d.Name, date, hour)
	f := &file{
		id:   checkpoint.FileID{Directory: d.Name, Date: date, Hour: hour, Generation: noGeneration},
		mode: d.Mode, rel: rel, path: filepath.Join(t.opt.DataDir, rel),
		once: -1,
	}
	info, err := os.Stat(f.path)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	if known := d.inodes[inodeOf(info)]; known != nil && known.path != f.path {
		at, err := os.Stat(known.path)
		if err == nil && !known.gone && inodeOf(at) == known.inode {
			return
		}
		if t.comesFrom(known, f.path, info) {
			t.move(d, known, f)
			return
		}
	}
	f.inode, f.size, f.modified, f.grownAt = inodeOf(info), info.Size(), info.ModTime(), t.now()
	f.seen.grew(f.size, f.grownAt)
	if t.opt.Once {
		f.once = f.size
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.insert(d, f)
	if sameHour := i > 0 && compareHours(d.files[i-1].id, f.id) == 0; sameHour || i <= d.head && d.begun {
		t.nameAgain(f)
	}
	if i <= d.head && d.begun && len(d.files) > 1 {
		d.head++
	}
}

// insert puts a file where its hour belongs. Tailer.mu is held.
func (t *Tailer) insert(d *directory, f *file) int {
	i := d.after(f.id)
	d.files = slices.Insert(d.files, i, f)
	d.rest = min(d.rest, i)
	d.inodes[f.inode] = f
	t.version++
	return i
}

// comesFrom tells whether what stands at a path is a file that was read elsewhere: of its inode, and holding what was read of
// it. Of one that nothing was read from it need not be known.
func (t *Tailer) comesFrom(known *file, path string, info fs.FileInfo) bool {
	if known.next == 0 || info.Size() < known.next {
		return false
	}
	h, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = h.Close() }()
	t.mu.Lock()
	head, before := known.beginning(known.next), known.nextMarker()
	t.mu.Unlock()
	return verifies(h, head) && verifies(h, before)
}

// move gives a file that was renamed the place and the path of to. Its generation stays, so that positions show what it was.
func (t *Tailer) move(d *directory, f, to *file) {
	t.log.Info("a file was renamed; going on where it was", "from", f.rel, "to", to.rel, "offset", f.next)
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(d.files, f); i >= 0 {
		d.remove(i)
	}
	d.left = slices.DeleteFunc(d.left, func(l leaver) bool { return l.file == f })
	f.path, f.rel, f.id.Date, f.id.Hour, f.gone, f.looks = to.path, to.rel, to.id.Date, to.id.Hour, false, 0
	if f.origin != nil {
		f.renamed = true
		if t.named[f.id] {
			t.nameAgain(f)
		}
		t.setOrigin(f, f.id.Generation) // blocks on their way keep the name that they have
	}
	if i := t.insert(d, f); i > d.head {
		d.head = i
	} else if len(d.files) > 1 {
		d.head++
	}
}

// remove takes a file out of the table. Tailer.mu is held.
func (d *directory) remove(i int) {
	d.files = slices.Delete(d.files, i, i+1)
	if d.head >= i && d.head > 0 {
		d.head--
	}
	if d.rest > i {
		d.rest--
	}
}

// compareHours orders files by time: hours are numbers, "10" follows "9".
func compareHours(a, b checkpoint.FileID) int {
	if a.Date != b.Date {
		if a.Date < b.Date {
			return -1
		}
		return 1
	}
	return a.Hour - b.Hour
}

// stat looks at a file's size and identity.
func (t *Tailer) stat(d *directory, f *file) {
	if f.gone {
		if f.handle != nil {
			if info, err := f.handle.Stat(); err == nil {
				t.sized(d, f, info)
			}
		}
		return
	}
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if path := f.path; f.handle == nil && f.limit() > f.next {
			if t.scan(d, true); f.path != path {
				return // it has another name
			}
		}
		t.vanished(d, f)
	case err != nil:
		t.block(f, err)
	case t.replaced(f, info):
		t.vanished(d, f)
		t.addFile(d, f.id.Date, f.id.Hour)
	default:
		f.blocked = false
		t.sized(d, f, info)
	}
}

// replaced tells whether what stands at a file's path is another file now. An inode may be that of a new file when nobody holds
// the old one open, and a file may come to another inode by a copy: what it holds decides.
func (t *Tailer) replaced(f *file, info fs.FileInfo) bool {
	if inodeOf(info) == f.inode {
		// What shrank is looked into by shrank.
		changed := !info.ModTime().Equal(f.modified) && info.Size() >= f.next
		return f.handle == nil && f.next > 0 && changed && !t.holdsWhatWasRead(f)
	}
	size := f.size
	if f.handle != nil {
		if held, err := f.handle.Stat(); err == nil {
			size = held.Size()
		}
	}
	t.mu.Lock()
	known := f.acked == f.next && f.ackMarker().Length > 0
	t.mu.Unlock()
	// A copy that ends sooner, or of which lines were not read that it may lack, is read as another file.
	if size > f.scanned || size > info.Size() || !known || !t.holdsWhatWasRead(f) {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.closeHandle()
	return false
}

// holdsWhatWasRead tells whether the file at f's path begins as f did, and is the same before the position.
func (t *Tailer) holdsWhatWasRead(f *file) bool {
	h, err := os.Open(f.path)
	if err != nil {
		return true // whoever reads it finds out
	}
	defer func() { _ = h.Close() }()
	t.mu.Lock()
	head, before := f.beginning(f.next), f.nextMarker()
	t.mu.Unlock()
	return holds(h, head) && holds(h, before)
}

// holds tells whether a file holds what a hash covers, as far as it can be read: whoever reads on finds out.
func holds(r io.ReaderAt, h checkpoint.Hash) bool {
	same, err := check(r, h)
	return same || err != nil
}

// sized takes note of a file's size. A file that no longer holds what was read starts again where it can be known to be the same.
func (t *Tailer) sized(d *directory, f *file, info fs.FileInfo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	touched := !info.ModTime().Equal(f.modified)
	if inode := inodeOf(info); inode != f.inode {
		if d.inodes[f.inode] == f {
			delete(d.inodes, f.inode)
		}
		d.inodes[inode] = f
	}
	f.inode, f.modified = inodeOf(info), info.ModTime()
	switch size := info.Size(); {
	case size == f.size:
		f.looks++
		if now := t.now(); now.Before(f.grownAt) { // the clock was set back
			f.grownAt = now
		}
	case size > f.size:
		touched = true
		f.looks, f.grownAt = 0, t.now()
		f.size = size
		f.seen.grew(size, f.grownAt)
	default:
		f.looks, f.grownAt = 0, t.now()
		f.size = size
		t.shrank(f)
	}
	// It may have been cut and have grown past the position since the last look.
	if touched && f.handle != nil && f.size >= f.next && !holds(f.handle, f.nextMarker()) {
		t.takeUp(f, "a file was written anew while it was read")
	}
}

// vanished takes note that a file is no longer at its path. What a handle still reaches is read to its end.
func (t *Tailer) vanished(d *directory, f *file) {
	t.mu.Lock()
	f.gone = true
	if unread := f.limit() - f.next; unread > 0 && f.handle == nil {
		t.lost(f, unread)
	}
	t.mu.Unlock()
	t.stat(d, f)
	f.looks = 0
}

// lost counts bytes that were on disk and can no longer be read. Tailer.mu is held.
func (t *Tailer) lost(f *file, bytes int64) {
	t.pruned(f.rel, bytes)
	f.size, f.scanned = f.next, f.next
	f.seen.truncate(f.next)
	t.log.Error("a file was removed before it was read: prune later, or find out why the parser is behind",
		"file", f.rel, "offset", f.next, "unreadBytes", bytes)
}

// pruned counts bytes that went with their file, and has it told with the next lines. Tailer.mu is held.
func (t *Tailer) pruned(file string, bytes int64) {
	t.counts.PrunedUnread++
	t.counts.SkippedBytes += bytes
	t.skipped = append(t.skipped, buffer.Skip{Bytes: bytes, File: file, Reason: "the file was removed before it was read"})
}

// relOf is where an hour's file is, relative to the data directory.
func relOf(directory, date string, hour int) string {
	return filepath.Join(directory, "hourly", date, strconv.Itoa(hour))
}

// dropGone forgets files that are off the disk, read and acknowledged.
func (t *Tailer) dropGone(d *directory, now time.Time) {
	for i := d.rest; i < len(d.files); i++ {
		f := d.files[i]
		// Who has it open may write to it still: it is looked at once more.
		if !f.gone || f.handle != nil && (f.limit() > f.scanned || f.looks == 0) {
			continue
		}
		t.mu.Lock()
		if done := f.acked >= f.next; done {
			f.closeHandle()
			d.remove(i)
			d.left = append(d.left, leaver{f, now})
			t.version++
			t.forgetOrigins(f)
			if t.current == f {
				t.current = nil
			}
			i--
		}
		t.mu.Unlock()
	}
	for len(d.left) > 0 && (now.Sub(d.left[0].at) > 2*roundTime || now.Before(d.left[0].at)) {
		if f := d.left[0].file; d.inodes[f.inode] == f {
			delete(d.inodes, f.inode)
		}
		d.left = d.left[1:]
	}
}

// forgetOrigins ends that acknowledgements of a file's blocks are understood. Tailer.mu is held.
func (t *Tailer) forgetOrigins(f *file) {
	delete(t.origins, f.origin)
	if f.renamed {
		maps.DeleteFunc(t.origins, func(_ *buffer.Origin, of *file) bool { return of == f })
	}
}

// block takes note that a file cannot be read for now; it is tried again at every look.
func (t *Tailer) block(f *file, err error) {
	if !f.said {
		t.log.Error("a file cannot be read; trying again", "file", f.rel, "error", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.blocked, f.said = true, true
	f.closeHandle()
	if unread := f.limit() - f.next; f.gone && unread > 0 {
		t.lost(f, unread)
	}
}

// setOrigin makes the name under which a file's blocks travel, once its generation is known. Tailer.mu is held.
func (t *Tailer) setOrigin(f *file, generation string) {
	f.id.Generation = generation
	t.named[f.id] = true
	f.origin = &buffer.Origin{ID: f.id, Label: f.id.String()}
	t.origins[f.origin] = f
	t.version++
}

func inodeOf(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}

func links(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink) //nolint:unconvert // its type differs between systems
	}
	return 1
}
