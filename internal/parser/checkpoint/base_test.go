package checkpoint_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// finishedFile returns the entry of an hour's file that was read long ago.
func finishedFile(i int) checkpoint.File {
	at := int64(1<<20 + i)
	hash := func(from, length int64) checkpoint.Hash {
		return checkpoint.Hash{At: from, Length: length, Sum: fmt.Sprintf("%016x", uint64(i)*0x9e3779b97f4a7c15)}
	}
	return checkpoint.File{
		FileID: position.FileID{
			Directory:  "node_fills_by_block",
			Date:       fmt.Sprintf("%08d", 20000101+i/24),
			Hour:       i % 24,
			Generation: fmt.Sprintf("%08x", i),
		},
		Inode: 1<<40 + uint64(i), Offset: at, Size: at,
		Head: hash(0, 1024), Marker: hash(at-1024, 1024), Markers: []checkpoint.Hash{hash(at/2, 1024)},
	}
}

// large returns a state that needs a base.
func large(files int, block int64) checkpoint.State {
	s := checkpoint.State{
		Directory: "node_fills_by_block", Mode: "ByBlock", LastBlock: block, CommittedAt: time.Unix(block, 0).UTC(),
		Sink: json.RawMessage(`{"kind":"file","state":{}}`), Blocks: &checkpoint.Blocks{Last: block},
	}
	for i := range files {
		s.Files = append(s.Files, finishedFile(i))
	}
	return s
}

// counting counts the bytes written and the syncs.
type counting struct {
	vfs.FS
	bytes, syncs int
}

func (c *counting) Create(name string) (vfs.File, error) {
	f, err := c.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return &countingFile{f, c}, nil
}

func (c *counting) SyncDir(dir string) error {
	c.syncs++
	return c.FS.SyncDir(dir)
}

type countingFile struct {
	vfs.File
	of *counting
}

func (f *countingFile) Write(p []byte) (int, error) {
	f.of.bytes += len(p)
	return f.File.Write(p)
}

func (f *countingFile) Sync() error {
	f.of.syncs++
	return f.File.Sync()
}

// A stream runs for hours beside old files. Each commit writes little, and so does the average commit.
func TestACommitWritesOnlyChanges(t *testing.T) {
	t.Run("10,000 files", func(t *testing.T) { runningStream(t, 10_000, 2, 60) })
	t.Run("bases are replaced", func(t *testing.T) {
		if runningStream(t, 150, 5, 300) == 0 {
			t.Error("no new base was created: the test proves nothing")
		}
	})
}

func runningStream(t *testing.T, old, hours, commitsAnHour int) (bases int) {
	t.Helper()
	const intervals, limit = 1024, 16 << 10
	fsys := &counting{FS: crashfs.New()}
	s, err := checkpoint.Open(fsys, "state", "fills")
	must(t, err)
	load(t, s)
	state := large(old, 1)
	block := int64(0)
	for range intervals {
		state.Blocks.Complete = append(state.Blocks.Complete, checkpoint.Interval{First: block, Last: block + 7})
		block += 9
	}
	must(t, s.Save(state))
	base := fsys.bytes
	fsys.bytes = 0
	commits := 0
	for hour := range hours {
		state.Files = append(state.Files, finishedFile(old+hour))
		f := &state.Files[len(state.Files)-1]
		f.Offset, f.Markers = 0, nil
		for range commitsAnHour {
			f.Offset += 1 << 20
			f.Size = f.Offset
			if commits%8 == 0 { // bounded as the tailer does
				f.Markers = append(f.Markers, checkpoint.Hash{At: f.Offset - 1024, Length: 1024, Sum: "0123456789abcdef"})
				f.Markers = f.Markers[max(len(f.Markers)-30, 0):]
			}
			last := &state.Blocks.Complete[len(state.Blocks.Complete)-1]
			if last.Last++; commits%100 == 0 {
				state.Blocks.Complete = append(state.Blocks.Complete[1:],
					checkpoint.Interval{First: last.Last + 5, Last: last.Last + 5})
			}
			state.LastBlock++
			bytes, syncs := fsys.bytes, fsys.syncs
			must(t, s.Save(state))
			_, err := s.Keep() // as the engine does concurrently
			must(t, err)
			commits++
			if wrote := fsys.bytes - bytes; wrote > base/2 {
				bases++
			} else if wrote > limit || fsys.syncs-syncs > 2 {
				t.Fatalf("commit %d wrote %d bytes with %d syncs", commits, wrote, fsys.syncs-syncs)
			}
		}
	}
	if got := fsys.bytes / commits; got > limit {
		t.Errorf("%d bytes per commit on average, with %d new bases", got, bases)
	}
	t.Logf("%d commits, %d new bases, %d bytes per commit; the complete state has %d bytes", commits, bases,
		fsys.bytes/commits, base/2)
	checkLoaded(t, fsys, state)
	return bases
}

func BenchmarkACommitWithManyOldFiles(b *testing.B) {
	for _, old := range []int{1, 10_000} {
		b.Run(fmt.Sprint(old), func(b *testing.B) {
			s, err := checkpoint.Open(vfs.PrivateOS, b.TempDir(), "fills")
			if err == nil {
				_, err = s.Load()
			}
			if err != nil {
				b.Fatal(err)
			}
			state := large(old, 1)
			for b.Loop() {
				state.Files[old-1].Offset++
				if err := s.Save(state); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// checkLoaded verifies the state that a new process loads.
func checkLoaded(t require, fsys vfs.FS, want checkpoint.State) checkpoint.Loaded {
	t.Helper()
	s, err := checkpoint.Open(fsys, "state", "fills")
	var got checkpoint.Loaded
	if err == nil {
		got, err = s.Load()
	}
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	want.Sequence, want.Stream, want.Streams = got.State.Sequence, got.State.Stream, got.State.Streams
	a, _ := json.Marshal(got.State)
	b, _ := json.Marshal(want)
	if string(a) != string(b) {
		t.Fatalf("got\n%s\nwant\n%s", a, b)
	}
	return got
}

type require interface {
	Helper()
	Fatalf(format string, args ...any)
}

// For any sequence of states, restarts, power losses and folds, the last saved state is found unchanged.
func TestTheLastSavedStateIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fsys := crashfs.New()
		var store *checkpoint.Store
		restart := func() {
			var err error
			if store, err = checkpoint.Open(fsys, "state", "fills"); err == nil {
				_, err = store.Load()
			}
			if err != nil {
				t.Fatalf("Load: %v", err)
			}
		}
		restart()
		state := large(rapid.IntRange(0, 60).Draw(t, "files"), 1)
		saved := false
		next := len(state.Files)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				restart()
			case 1:
				fsys = fsys.PowerLoss()
				restart()
			case 2:
				if err := store.Fold(); err != nil {
					t.Fatalf("Fold: %v", err)
				}
			case 3:
				if _, err := store.Keep(); err != nil {
					t.Fatalf("Keep: %v", err)
				}
			default:
				change(t, &state, &next)
				if err := store.Save(state); err != nil {
					t.Fatalf("Save: %v", err)
				}
				saved = true
			}
			if saved {
				if got := checkLoaded(t, fsys, state); len(got.SetAside) > 0 {
					t.Fatalf("set aside: %q", got.SetAside)
				}
				restart() // continue from what was found
			}
		}
	})
}

// change turns s into a later state. Files grow, appear, disappear and change places, and blocks are completed.
func change(t *rapid.T, s *checkpoint.State, next *int) {
	s.LastBlock++
	for range rapid.IntRange(0, 3).Draw(t, "new") {
		s.Files = append(s.Files, finishedFile(*next))
		*next++
	}
	for i := range s.Files {
		switch rapid.IntRange(0, 40).Draw(t, "file") {
		case 0:
			s.Files[i].Offset++
			s.Files[i].SeenAt = time.Unix(s.LastBlock, 5).UTC()
		case 1:
			s.Files[i].Markers = append([]checkpoint.Hash{}, s.Files[i].Markers...)
			s.Files[i].Markers = append(s.Files[i].Markers, checkpoint.Hash{At: s.LastBlock, Length: 3, Sum: "s"})
		}
	}
	if n := len(s.Files); n > 2 {
		i := rapid.IntRange(0, n-1).Draw(t, "i")
		switch rapid.IntRange(0, 3).Draw(t, "order") {
		case 0:
			s.Files = append(append([]checkpoint.File{}, s.Files[:i]...), s.Files[i+1:]...)
		case 1:
			s.Files = append(append([]checkpoint.File{}, s.Files[i:]...), s.Files[:i]...)
		}
	}
	if rapid.IntRange(0, 5).Draw(t, "blocks") == 0 {
		s.Blocks = nil
		return
	}
	if s.Blocks == nil {
		s.Blocks = &checkpoint.Blocks{}
	}
	complete := append([]checkpoint.Interval{}, s.Blocks.Complete...)
	first := int64(1)
	if n := len(complete); n > 0 {
		complete[n-1].Last += int64(rapid.IntRange(0, 1).Draw(t, "longer"))
		first = complete[n-1].Last + 2
	}
	s.Blocks = &checkpoint.Blocks{Complete: append(complete, checkpoint.Interval{First: first, Last: first})}
}

// changing returns a state that differs from the previous one in every file, so that a base is soon replaced.
func changing(block int64) checkpoint.State {
	s := large(40, block)
	for i := range s.Files {
		s.Files[i].Offset += block
	}
	return s
}

// TestACrashAtEveryStep with bases: it covers their creation, their removal, and a fold.
func TestACrashAtEveryStepWithBases(t *testing.T) {
	const saves = 14
	run := func(fsys *crashfs.FS) (done int64) {
		s, err := checkpoint.Open(fsys, "state", "fills")
		if err != nil {
			return 0
		}
		if _, err := s.Load(); err != nil {
			return 0
		}
		for done < saves && s.Save(changing(done+1)) == nil {
			done++
			if done%3 == 0 {
				_, _ = s.Keep()
			}
			if done == 5 {
				_ = s.Fold()
			}
		}
		return done
	}
	clean := crashfs.New()
	if run(clean) != saves {
		t.Fatal("the run failed without a crash")
	}
	bases, removed := 0, 0
	for _, op := range clean.Steps() {
		if strings.Contains(op.Name, ".base-") && op.Kind == crashfs.Create {
			bases++
		} else if strings.Contains(op.Name, ".base-") && op.Kind == crashfs.Remove {
			removed++
		}
	}
	if bases < 6 || removed < 4 {
		t.Fatalf("%d base copies were created and %d removed: the test proves nothing", bases, removed)
	}
	runs := 0
	for k, op := range clean.Steps() {
		for loss := range 5 {
			fsys := crashfs.New()
			fsys.CrashAt(k)
			done := run(fsys)
			fsys = afterCrash(fsys, k, loss)
			loaded, err := open(t, fsys, "state").Load()
			if err != nil || len(loaded.SetAside) > 0 {
				t.Fatalf("step %d %v, loss %d: %v %v", k, op, loss, loaded.SetAside, err)
			}
			got := loaded.State.LastBlock
			if got != done && got != done+1 {
				t.Fatalf("step %d %v, loss %d: got %d after %d saves", k, op, loss, got, done)
			}
			fsys = fsys.PowerLoss() // a power loss does not lose what was loaded
			if got > 0 {
				checkLoaded(t, fsys, changing(got))
			}
			// The stream continues from there.
			s := open(t, fsys, "state")
			load(t, s)
			must(t, s.Save(changing(got+1)))
			checkLoaded(t, fsys.PowerLoss(), changing(got+1))
			runs++
		}
	}
	t.Logf("%d crash points, %d runs", len(clean.Steps()), runs)
}

// Any single file may be damaged or missing. At most one generation is lost, and the damage is reported.
func TestAnySingleFileMayBeDamaged(t *testing.T) {
	make := func() (*crashfs.FS, []string) {
		fsys := crashfs.New()
		s := open(t, fsys, "state")
		load(t, s)
		for block := range int64(6) {
			must(t, s.Save(changing(block+1)))
		}
		names, err := fsys.List("state/checkpoint")
		must(t, err)
		return fsys, names
	}
	_, names := make()
	if len(names) < 4 {
		t.Fatalf("got the files %q, want at least 4", names)
	}
	for _, name := range names {
		for how, damage := range map[string]func(fsys *crashfs.FS, name string){
			"cut": func(fsys *crashfs.FS, name string) {
				rewrite(t, fsys, name, func(p []byte) []byte { return p[:len(p)/2] })
			},
			"empty": func(fsys *crashfs.FS, name string) { rewrite(t, fsys, name, func([]byte) []byte { return nil }) },
			"a bit": func(fsys *crashfs.FS, name string) {
				rewrite(t, fsys, name, func(p []byte) []byte { p[len(p)/2] ^= 1; return p })
			},
			"gone": func(fsys *crashfs.FS, name string) { must(t, fsys.Remove(name)) },
		} {
			fsys, _ := make()
			path := filepath.Join("state/checkpoint", name)
			damage(fsys, path)
			got := load(t, open(t, fsys, "state"))
			if got.State.LastBlock != 6 && got.State.LastBlock != 5 {
				t.Errorf("%s %s: got %d", name, how, got.State.LastBlock)
			}
			if got.State.LastBlock == 5 && how != "gone" && len(got.SetAside) == 0 {
				t.Errorf("%s %s: no damage was reported", name, how)
			}
			if again := load(t, open(t, fsys, "state")); again.State.LastBlock != got.State.LastBlock ||
				len(again.SetAside) > 0 {
				t.Errorf("%s %s: the next load got %d and set %q aside", name, how, again.State.LastBlock, again.SetAside)
			}
		}
	}
	// Both copies of the base that both slots refer to are missing.
	fsys, _ := make()
	for _, name := range names {
		if strings.Contains(name, ".base-") {
			must(t, fsys.Remove(filepath.Join("state/checkpoint", name)))
		}
	}
	if _, err := open(t, fsys, "state").Load(); !errors.Is(err, checkpoint.ErrLost) ||
		!strings.Contains(err.Error(), "the base that it refers to is not intact") {
		t.Errorf("got %v, want ErrLost", err)
	}
}

// readAsOlder reads a slot as a parser without bases did.
func readAsOlder(t *testing.T, fsys vfs.FS, name string) (checkpoint.State, error) {
	t.Helper()
	doc, err := fsys.ReadFile(name)
	must(t, err)
	var d struct {
		Format     int             `json:"format"`
		CRC32C     string          `json:"crc32c"`
		Checkpoint json.RawMessage `json:"checkpoint"`
	}
	must(t, json.Unmarshal(doc, &d))
	if d.Format > 1 {
		return checkpoint.State{}, fmt.Errorf("format %d was written by a newer hlparser", d.Format)
	}
	payload, err := json.Marshal(d.Checkpoint) // compacts
	must(t, err)
	if sum := fmt.Sprintf("%08x", crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))); sum != d.CRC32C {
		return checkpoint.State{}, fmt.Errorf("checksum is %s, the file has %s", sum, d.CRC32C)
	}
	var state checkpoint.State
	return state, json.Unmarshal(payload, &state)
}

// An older parser must never silently continue from an earlier position. It refuses slots that refer to a base. It
// finds the complete state after a parser that ended in an orderly way.
func TestAnOlderParserRefusesOrReadsTheWholeState(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, "state")
	load(t, s)
	for block := range int64(4) {
		must(t, s.Save(changing(block+1)))
		refused := 0
		for _, slot := range []string{odd, even} {
			if size, _ := fsys.Size(slot); size > 0 {
				if _, err := readAsOlder(t, fsys, slot); err != nil {
					refused++
				}
			}
		}
		if refused == 0 {
			t.Fatalf("after %d saves an older parser refuses no slot", block+1)
		}
	}
	must(t, s.Fold())
	for _, slot := range []string{odd, even} {
		got, err := readAsOlder(t, fsys, slot)
		want := changing(4)
		want.Sequence, want.Stream, want.Streams = got.Sequence, "fills", []string{"fills"}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", slot, got, err)
		}
	}
	names, err := fsys.List("state/checkpoint")
	if err != nil || len(names) != 2 {
		t.Errorf("got the files %q, %v; want two slots", names, err)
	}
	// The next parser loads the older checkpoint as it is, and continues.
	s = open(t, fsys, "state")
	load(t, s)
	must(t, s.Save(changing(5)))
	checkLoaded(t, fsys, changing(5))
}

func TestTheStoreDoesNotShareMemoryWithItsCaller(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, "state")
	load(t, s)
	state := large(100, 1)
	must(t, s.Save(state))
	state.Files[7].Markers[0].Length = 5
	state.Blocks.Last = 3
	must(t, s.Save(state))
	checkLoaded(t, fsys, state)
	loaded := load(t, s).State
	for i := range loaded.Files {
		must(t, loaded.SetOffset(loaded.Files[i].FileID, 10))
	}
	must(t, s.Save(loaded))
	checkLoaded(t, fsys, loaded)
}
