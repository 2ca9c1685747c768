package deadletter_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

const (
	oldFile  = "state/deadletter/fills.old.jsonl"
	nextFile = "state/deadletter/fills.jsonl.next"
	bound    = 128 << 10
	// headers is the number of bytes by which a new file's header may exceed the bound.
	headers = 512
)

// entryAt returns an entry for the line from offset to end.
func entryAt(offset, end int64, reason, text string) deadletter.Entry {
	e := entry(text)
	e.Position.Offset, e.Position.Index, e.LineBytes, e.Reason = offset, 0, end-offset, reason
	return e
}

func TestAdjacentEntriesWithOneReasonAreMerged(t *testing.T) {
	event := func(index int) deadletter.Entry {
		e := entryAt(30, 40, "json", "event")
		e.Position.Index = index
		return e
	}
	otherFile := entryAt(10, 20, "json", "b")
	otherFile.Position.File.Hour++
	for title, test := range map[string]struct {
		entries []deadletter.Entry
		want    string // count and bytes of each
	}{
		"one": {[]deadletter.Entry{entryAt(0, 10, "json", "a")}, "0 a"},
		"the next lines": {
			[]deadletter.Entry{entryAt(0, 10, "json", "a"), entryAt(10, 20, "json", "b"), entryAt(20, 25, "json", "c")}, "3 a",
		},
		"the next events":           {[]deadletter.Entry{event(3), event(4)}, "2 event"},
		"events, and the next line": {[]deadletter.Entry{event(3), event(4), entryAt(40, 50, "json", "d")}, "3 event"},
		"another reason": {
			[]deadletter.Entry{entryAt(0, 10, "json", "a"), entryAt(10, 20, "nul", "b"), entryAt(20, 30, "json", "c")},
			"0 a, 0 b, 0 c",
		},
		"a good line between": {
			[]deadletter.Entry{entryAt(0, 10, "json", "a"), entryAt(20, 30, "json", "b")}, "0 a, 0 b",
		},
		"a good event between":        {[]deadletter.Entry{event(3), event(5)}, "0 event, 0 event"},
		"a good event before in line": {[]deadletter.Entry{entryAt(20, 30, "json", "a"), event(1)}, "0 a, 0 event"},
		"another file":                {[]deadletter.Entry{entryAt(0, 10, "json", "a"), otherFile}, "0 a, 0 b"},
	} {
		t.Run(title, func(t *testing.T) {
			fsys := crashfs.New()
			s := open(t, fsys, 0, bound)
			total := int64(0)
			for _, e := range test.entries {
				must(t, s.Append(e))
				total += int64(len(e.Bytes))
			}
			sync(t, s)
			entries := read(t, fsys, file)
			got := make([]string, 0, len(entries))
			for _, l := range entries {
				got = append(got, fmt.Sprintf("%d %s", l.Count, *l.Bytes))
				last := test.entries[len(test.entries)-1].Position.String()
				if l.Count == int64(len(test.entries)) &&
					(l.Last != last || l.TotalBytes != total || l.Position != test.entries[0].Position.String()) {
					t.Errorf("got %+v, want last %s and %d bytes in total", l, last, total)
				}
			}
			if strings.Join(got, ", ") != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A commit makes the current run durable. The next entry starts another run.
func TestARunEndsAtTheCommit(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, bound)
	must(t, s.Append(entryAt(0, 10, "json", "a")))
	must(t, s.Append(entryAt(10, 20, "json", "b")))
	recorded := sync(t, s)
	must(t, s.Append(entryAt(20, 30, "json", "c")))
	sync(t, s)
	must(t, s.Append(entryAt(30, 40, "json", "d")))
	fsys = fsys.PowerLoss()
	open(t, fsys, recorded, bound)
	if l := read(t, fsys, file); len(l) != 1 || l[0].Count != 2 {
		t.Errorf("got %+v, want the first two", l)
	}
}

// What is written between two commits is bounded. The rest is counted.
func TestAFloodIsCountedButNotKept(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, bound)
	const n = 10_000
	for round := range int64(2) {
		for i := range int64(n) {
			offset := (round*n + i) * 20
			must(t, s.Append(entryAt(offset, offset+10, "json", "not adjacent")))
		}
		sync(t, s)
	}
	entries := read(t, fsys, file)
	flood := entries[len(entries)-1]
	if want := entryAt((2*n-1)*20, 0, "", "").Position.String(); flood.Count < n/2 || flood.Last != want ||
		flood.Bytes != nil ||
		flood.Line == nil ||
		flood.Reason == "json" {
		t.Errorf("the last entry is %+v, want a flood that ends at %s", flood, want)
	}
	if got := counted(t, fsys, file); got != 2*n {
		t.Errorf("%d are counted, want %d", got, 2*n)
	}
	if size, err := fsys.Size(file); err != nil || size > 2*(bound/16+1024) {
		t.Errorf("two commits wrote %d bytes, %v", size, err)
	}
}

// counted returns the number of lines and records that a file counts. It is 0 if there is no file.
func counted(t tb, fsys vfs.FS, name string) (n int64) {
	data, err := fsys.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range decode(t, data) {
		switch {
		case l.Start != nil:
			n += *l.Dropped
		default:
			n += max(l.Count, 1)
		}
	}
	return n
}

// droppedOf returns the number of dropped entries in a file's header.
func droppedOf(t tb, fsys vfs.FS, name string) int64 {
	data, err := fsys.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if l := decode(t, data)[0]; l.Dropped != nil {
		return *l.Dropped
	}
	return 0
}

// producer appends entries as the engine does: after a restart it continues from the last commit. Entry i belongs to
// line i. Every eighth line is good and the reasons change, so that there are runs and single entries, and some empty
// ones.
type producer struct {
	fs         *crashfs.FS
	size       int
	history    []committed // the checkpoints, oldest first
	next       int         // the number of the entry to append
	removals   []removal
	slack      int64 // how many entries of removed files may have been appended twice
	reported   int64 // dropped entries, as the stores reported them
	inspecting bool  // the test itself calls the file system: inject no faults
}

// removal is a file that an operator removed: what it counted, and the number of the entry that was next.
type removal struct {
	counted int64
	next    int
}

func (s *producer) removed() (n int64) {
	for _, t := range s.removals {
		n += t.counted
	}
	return n
}

type committed struct {
	next     int
	recorded int64
}

func (s *producer) last() committed {
	if len(s.history) == 0 {
		return committed{}
	}
	return s.history[len(s.history)-1]
}

func (s *producer) entry(i int) deadletter.Entry {
	line := int64(i + i/8)
	return entryAt(line*10, line*10+10, []string{"json", "nul"}[i/3%2], strings.Repeat("x", s.size-i*7%(s.size/10+1)))
}

// run appends entries up to n, starting at the last commit, and commits after every perCommit entries. Its error is one
// of the file system.
func (s *producer) run(n, perCommit int) error {
	from := s.last()
	store, err := deadletter.Open(s.fs, "state", "fills", from.recorded, bound)
	if err != nil {
		return err
	}
	s.restart(from)
	before := s.reported
	for s.next < n {
		for range min(perCommit, n-s.next) {
			if err := retry(func() error { return store.Append(s.entry(s.next)) }); err != nil {
				return err
			}
			s.next++
		}
		if err := s.commit(store); err != nil {
			return err
		}
		s.reported = before + store.Dropped()
	}
	return errors.Join(s.commit(store), store.Close())
}

// restart returns to a checkpoint, as a process does that follows one that crashed or ended.
func (s *producer) restart(from committed) {
	s.next = from.next
	for i := range s.removals {
		t := &s.removals[i]
		s.slack += min(t.counted, int64(max(t.next-from.next, 0)))
		t.next = min(t.next, from.next)
	}
}

func (s *producer) commit(store *deadletter.Store) error {
	var recorded int64
	if err := retry(func() (err error) { recorded, err = store.Sync(); return err }); err != nil {
		return err
	}
	s.history = append(s.history, committed{s.next, recorded})
	return nil
}

// retry repeats a call until it succeeds.
func retry(call func() error) error {
	for range 100 {
		err := call()
		if err == nil || errors.Is(err, crashfs.ErrCrashed) || errors.Is(err, deadletter.ErrUnsynced) {
			return err
		}
	}
	return errors.New("the outage does not end")
}

// crash returns to a checkpoint: the last one or, if damaged is set, the one before it.
func (s *producer) crash(loss func(*crashfs.FS) *crashfs.FS, damaged bool) {
	s.fs = loss(s.fs)
	if damaged && len(s.history) > 0 {
		s.history = s.history[:len(s.history)-1]
	}
}

// check compares the files with what was appended and committed.
func (s *producer) check(t tb) {
	t.Helper()
	s.checkBound(t)
	inFiles := counted(t, s.fs, oldFile) + counted(t, s.fs, file)
	appended := int64(s.last().next)
	if got := inFiles + s.removed(); got < appended || got > appended+s.slack {
		t.Fatalf("the files count %d and the removed files %d; want %d in total, or up to %d more that were appended twice",
			inFiles, s.removed(), appended, s.slack)
	}
	// The entries are in order, up to the newest.
	var all []decoded
	for _, name := range []string{oldFile, file} {
		if data, err := s.fs.ReadFile(name); err == nil {
			all = append(all, decode(t, data)...)
		}
	}
	all = slices.DeleteFunc(all, func(l decoded) bool { return l.Start != nil })
	end := int64(-1)
	for _, l := range all {
		from, to := offset(t, l.Position), offset(t, l.Position)
		if l.Last != "" {
			to = offset(t, l.Last)
		}
		if from <= end || to < from {
			t.Fatalf("%+v follows %d", l, end)
		}
		end = to
	}
	if len(s.removals) > 0 || appended == 0 {
		return
	}
	if want := s.entry(int(appended) - 1).Position.Offset; end != want {
		t.Fatalf("the newest entry ends with line %d, want %d", end, want)
	}
	if total := size(t, s.fs, file) + size(t, s.fs, oldFile); inFiles > int64(len(all)) && s.reported > 0 &&
		total < bound*7/16 {
		t.Fatalf("only %d of %d bytes are kept", total, bound)
	}
}

func (s *producer) checkBound(t tb) {
	t.Helper()
	s.inspecting = true
	defer func() { s.inspecting = false }()
	total := int64(0)
	for _, name := range []string{file, oldFile, nextFile} {
		total += size(t, s.fs, name)
	}
	if total > bound+headers {
		t.Fatalf("the files have %d bytes, the bound is %d", total, bound)
	}
}

func size(t tb, fsys vfs.FS, name string) int64 {
	n, err := fsys.Size(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return n
}

func offset(t tb, at string) int64 {
	p, err := position.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	return p.Offset
}

// crashes returns the ways in which a process can end. parts of them lose a part of what was not synced.
func crashes(seed uint64, parts int) map[string]func(*crashfs.FS) *crashfs.FS {
	all := map[string]func(*crashfs.FS) *crashfs.FS{
		"killed":            func(f *crashfs.FS) *crashfs.FS { return f.Kill(false) },
		"killed in a write": func(f *crashfs.FS) *crashfs.FS { return f.Kill(true) },
		"power lost":        (*crashfs.FS).PowerLoss,
	}
	for i := range parts {
		all[fmt.Sprint("power lost during writes ", i)] = func(f *crashfs.FS) *crashfs.FS {
			return f.PartialLoss(rand.New(rand.NewPCG(seed, uint64(i))))
		}
	}
	return all
}

// TestACrashAtEveryStepOfARotation crashes before each step of a run that rotates several times and drops entries. It
// skips three in four of the steps between rotations, which are all alike.
func TestACrashAtEveryStepOfARotation(t *testing.T) {
	const entries, perCommit, size = 130, 3, 3000
	clean := &producer{fs: crashfs.New(), size: size}
	must(t, clean.run(entries, perCommit))
	clean.check(t)
	if dropped := droppedOf(t, clean.fs, file) + droppedOf(t, clean.fs, oldFile); clean.reported < 10 ||
		clean.reported != dropped {
		t.Fatalf("%d entries were dropped, the headers count %d: the run is too short, or the counts differ", clean.reported,
			dropped)
	}
	kinds := map[crashfs.Kind]int{}
	steps := clean.fs.Steps()
	for k, op := range steps {
		kinds[op.Kind]++
		neighbours := steps[max(k-6, 0):min(k+7, len(steps))]
		if k%4 != 0 && !slices.ContainsFunc(neighbours, func(op crashfs.Op) bool { return op.Kind == crashfs.Rename }) {
			continue
		}
		parts := 2
		if k > 0 && steps[k-1].Kind == crashfs.Rename {
			parts = 30 // combinations of surviving names
		}
		for title, crash := range crashes(uint64(k), parts) {
			for _, damaged := range []bool{false, true} {
				s := &producer{fs: crashfs.New(), size: size}
				s.fs.CrashAt(k)
				if err := s.run(entries, perCommit); !errors.Is(err, crashfs.ErrCrashed) {
					t.Fatalf("step %d: %v", k, err)
				}
				s.crash(crash, damaged)
				if err := s.run(entries, perCommit); err != nil {
					t.Fatalf("step %d, %s: %v", k, op, err)
				}
				t.Run(fmt.Sprintf("%d %s %s %v", k, op.Kind, title, damaged), func(t *testing.T) {
					s.check(t)
					s.fs = s.fs.PowerLoss()
					s.check(t)
				})
				if t.Failed() {
					return
				}
			}
		}
	}
	if kinds[crashfs.Rename] < 4 {
		t.Errorf("the steps were %v: too few rotations", kinds)
	}
}

// TestAnyDeadLetterIsBoundedAndCountsEveryEntry draws sizes, commits, errors, crashes and removals of files.
func TestAnyDeadLetterIsBoundedAndCountsEveryEntry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &producer{fs: crashfs.New(), size: rapid.SampledFrom([]int{0, 50, 3000, 9000}).Draw(t, "size")}
		for range rapid.IntRange(1, 6).Draw(t, "processes") {
			if every := rapid.IntRange(0, 40).Draw(t, "fault every"); every > 2 {
				calls := 0
				s.fs.Inject(func(op crashfs.Op) error {
					if calls++; calls%every != 0 || s.inspecting {
						return nil
					}
					if op.Kind == crashfs.Write || op.Kind == crashfs.Create {
						return syscall.ENOSPC
					}
					return syscall.EIO
				})
			}
			s.fs.CrashAt(rapid.OneOf(rapid.Just(-1), rapid.IntRange(0, 300)).Draw(t, "crash before step"))
			s.runProcess(t)
			s.fs.Inject(nil)
			if s.fs.Crashed() {
				all := crashes(rapid.Uint64().Draw(t, "loss"), 1)
				s.crash(all[rapid.SampledFrom(slices.Sorted(maps.Keys(all))).Draw(t, "crash")],
					rapid.IntRange(0, 4).Draw(t, "damaged") == 0)
			}
		}
		s.fs.CrashAt(-1)
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		must(s.run(s.last().next+3, 1))
		s.check(t)
	})
}

// runProcess appends and commits, while an operator removes files.
func (s *producer) runProcess(t *rapid.T) {
	from := s.last()
	store, err := deadletter.Open(s.fs, "state", "fills", from.recorded, bound)
	if err != nil {
		return // the process is restarted
	}
	defer func() { _ = store.Close() }() // its error is an injected fault
	s.restart(from)
	for range rapid.IntRange(1, 30).Draw(t, "commits") {
		for range rapid.IntRange(0, 60).Draw(t, "entries") {
			if err := retry(func() error { return store.Append(s.entry(s.next)) }); err != nil {
				return
			}
			s.next++
			if !s.fs.Crashed() {
				s.checkBound(t)
			}
			if rapid.IntRange(0, 200).Draw(t, "remove") == 0 && !s.removeFiles(t) {
				return
			}
		}
		if err := s.commit(store); err != nil {
			return
		}
	}
}

// removeFiles removes files, as an operator does. It reports whether the machine still runs.
func (s *producer) removeFiles(t *rapid.T) bool {
	for _, name := range rapid.SampledFrom([][]string{{file}, {oldFile}, {file, oldFile}}).Draw(t, "files") {
		if s.fs.Crashed() {
			return false
		}
		s.inspecting = true
		n := counted(t, s.fs, name)
		err := s.fs.Remove(name)
		if err == nil {
			err = s.fs.SyncDir(filepath.Dir(name))
		}
		s.inspecting = false
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, crashfs.ErrCrashed):
			// Whether the file is gone depends on the disk: both outcomes are valid.
			s.removals = append(s.removals, removal{n, s.next})
			s.slack += n
			return false
		case err != nil:
			t.Fatal(err)
		}
		s.removals = append(s.removals, removal{n, s.next})
	}
	return true
}

// tb is the common part of testing.T and rapid.T.
type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}
