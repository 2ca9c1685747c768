package checkpoint_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, fsys vfs.FS, dir string) *checkpoint.Store {
	t.Helper()
	s, err := checkpoint.Open(fsys, dir, "fills")
	must(t, err)
	return s
}

func load(t *testing.T, s *checkpoint.Store) checkpoint.Loaded {
	t.Helper()
	loaded, err := s.Load()
	must(t, err)
	return loaded
}

var fileID = position.FileID{Directory: "node_fills_by_block", Date: "20260430", Hour: 20, Generation: "1a2b3c4d"}

// state returns a checkpoint that is distinguished by its block.
func state(block int64) checkpoint.State {
	return checkpoint.State{
		Directory: "node_fills_by_block",
		Mode:      "ByBlock",
		Files: []checkpoint.File{{
			FileID: fileID, Inode: 1<<63 + 1, Offset: 4096,
			Head:    checkpoint.Hash{Length: 1024, Sum: "h"},
			Marker:  checkpoint.Hash{At: 3072, Length: 1024, Sum: "m"},
			Markers: []checkpoint.Hash{{At: 1000, Length: 1000, Sum: "1"}, {At: 2000, Length: 1000, Sum: "2"}},
			Size:    5000,
		}},
		LastBlock: block, DeadLetterBytes: 12,
		Sink:        json.RawMessage(`{"a":["<&>",1]}`),
		CommittedAt: time.Date(2026, 4, 30, 20, 1, 2, 3, time.UTC),
	}
}

// saveBlocks saves checkpoints for blocks 1 to n in a new store.
func saveBlocks(t *testing.T, fsys vfs.FS, dir string, n int64) {
	t.Helper()
	s := open(t, fsys, dir)
	load(t, s)
	for block := range n {
		must(t, s.Save(state(block+1)))
	}
}

// afterCrash returns what a crash at a step leaves of a file system. loss selects what crashes: the process, the
// machine, or the machine with a part of the unsynced changes, which differs for each step and loss.
func afterCrash(fsys *crashfs.FS, step, loss int) *crashfs.FS {
	switch loss {
	case 0, 1:
		return fsys.Kill(loss == 1)
	case 2:
		return fsys.PowerLoss()
	}
	return fsys.PartialLoss(rand.New(rand.NewPCG(uint64(step), uint64(loss))))
}

func TestOnTheMachinesFileSystem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	lock, err := checkpoint.Lock(t.Context(), vfs.OS, dir, func() { t.Error("Lock waits for a free lock") })
	must(t, err)
	saveBlocks(t, vfs.OS, dir, 3)
	got := load(t, open(t, vfs.OS, dir))
	want := state(3)
	want.Sequence, want.Stream, want.Streams = 3, "fills", []string{"fills"}
	var sink bytes.Buffer
	json.HTMLEscape(&sink, want.Sink)
	want.Sink = sink.Bytes()
	if !got.Found || !reflect.DeepEqual(got.State, want) || len(got.SetAside) > 0 {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	must(t, lock.Close())
}

func TestANewStreamIsNotFound(t *testing.T) {
	fsys := crashfs.New()
	if got := load(t, open(t, fsys, "state")); got.Found {
		t.Errorf("found %+v", got)
	}
}

func TestSaveNeedsALoad(t *testing.T) {
	if err := open(t, crashfs.New(), "state").Save(state(1)); err == nil {
		t.Error("Save succeeded without a Load")
	}
}

func TestAnUnreadableStateIsNotSaved(t *testing.T) {
	s := open(t, crashfs.New(), "state")
	load(t, s)
	for _, change := range []func(*checkpoint.State){
		func(s *checkpoint.State) { s.Files[0].Offset = -1 },
		func(s *checkpoint.State) { s.Files[0].Date = "today" },
		func(s *checkpoint.State) { s.Sink = json.RawMessage("{") },
	} {
		st := state(1)
		change(&st)
		if err := s.Save(st); err == nil {
			t.Errorf("Save accepted %+v", st)
		}
	}
}

// rewrite changes a file's bytes.
func rewrite(t *testing.T, fsys vfs.FS, name string, change func([]byte) []byte) {
	t.Helper()
	data, err := fsys.ReadFile(name)
	must(t, err)
	f, err := fsys.Create(name)
	must(t, err)
	_, err = f.Write(change(data))
	must(t, errors.Join(err, f.Close()))
}

// The slots to which saveBlocks writes the checkpoints with odd and even sequences.
const (
	odd  = "state/checkpoint/fills.1.json"
	even = "state/checkpoint/fills.0.json"
)

func TestADamagedCheckpointIsSetAsideAndReported(t *testing.T) {
	damages := map[string]func([]byte) []byte{
		"empty":          func([]byte) []byte { return nil },
		"zeros":          func(p []byte) []byte { return make([]byte, len(p)) },
		"torn":           func(p []byte) []byte { return p[:len(p)-10] },
		"a value":        func(p []byte) []byte { return bytes.Replace(p, []byte("4096"), []byte("4097"), 1) },
		"another stream": func(p []byte) []byte { return bytes.Replace(p, []byte(`"fills"`), []byte(`"bills"`), 1) },
		"not a document": func([]byte) []byte { return []byte(`[]`) },
	}
	for title, damage := range damages {
		for slot, block := range map[string]int64{even: 1, odd: 2} { // 2 is the newest of two
			t.Run(fmt.Sprintf("%s, block %d is left", title, block), func(t *testing.T) {
				fsys := crashfs.New()
				saveBlocks(t, fsys, "state", 2)
				rewrite(t, fsys, slot, damage)
				damaged, err := fsys.ReadFile(slot)
				must(t, err)

				shown, err := checkpoint.Show(fsys, "state", "fills")
				must(t, err)
				if shown.State.LastBlock != block || len(shown.SetAside) != 1 {
					t.Errorf("Show returned %+v", shown)
				}
				if again, _ := fsys.ReadFile(slot); !bytes.Equal(again, damaged) {
					t.Error("Show changed the slot")
				}

				s := open(t, fsys, "state")
				got := load(t, s)
				if !got.Found || got.State.LastBlock != block {
					t.Fatalf("got block %d, want %d", got.State.LastBlock, block)
				}
				if len(got.SetAside) != 1 || !strings.Contains(got.SetAside[0], slot+": ") {
					t.Fatalf("reported %q", got.SetAside)
				}
				_, aside, _ := strings.Cut(got.SetAside[0], "set aside as ")
				if kept, err := fsys.ReadFile(aside); err != nil || !bytes.Equal(kept, damaged) {
					t.Errorf("the file set aside holds %q, %v", kept, err)
				}
				must(t, s.Save(state(3)))
				if got := load(t, open(t, fsys, "state")); got.State.LastBlock != 3 || len(got.SetAside) > 0 {
					t.Errorf("after the next save got %+v", got)
				}
			})
		}
	}
}

func TestFilesSetAsideAreNeverOverwritten(t *testing.T) {
	fsys := crashfs.New()
	saveBlocks(t, fsys, "state", 2)
	for i := range 5 {
		rewrite(t, fsys, even, func([]byte) []byte { return fmt.Appendf(nil, "damage %d", i) })
		s := open(t, fsys, "state")
		load(t, s)
		must(t, s.Save(state(2)))
	}
	names, err := fsys.List("state/checkpoint")
	must(t, err)
	var kept []string
	for _, name := range names {
		if strings.Contains(name, ".corrupt-") {
			data, err := fsys.ReadFile(filepath.Join("state/checkpoint", name))
			must(t, err)
			kept = append(kept, string(data))
		}
	}
	slices.Sort(kept)
	if !slices.Equal(kept, []string{"damage 0", "damage 1", "damage 2", "damage 3", "damage 4"}) {
		t.Errorf("kept %q", kept)
	}
}

func TestWithoutAnIntactCheckpointLoadFailsAndChangesNothing(t *testing.T) {
	fsys := crashfs.New()
	saveBlocks(t, fsys, "state", 2)
	for _, slot := range []string{odd, even} {
		rewrite(t, fsys, slot, func([]byte) []byte { return []byte("{") })
	}
	for range 2 { // a restart changes nothing
		s := open(t, fsys, "state")
		_, err := s.Load()
		if !errors.Is(err, checkpoint.ErrLost) {
			t.Fatalf("got %v, want ErrLost", err)
		}
		for _, want := range []string{
			odd, even, "put state/checkpoint/fills.0.json or fills.1.json back, or run " +
				"\"hlparser checkpoint forget --state-dir state --stream fills\"",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v\ndoes not contain %q", err, want)
			}
		}
		if err := s.Save(state(9)); err == nil {
			t.Error("Save overwrites a lost checkpoint")
		}
	}
}

func TestAMissingCheckpointIsNotANewStream(t *testing.T) {
	fsys := crashfs.New()
	saveBlocks(t, fsys, "state", 2)
	must(t, fsys.Remove(odd))
	must(t, fsys.Remove(even))
	_, err := open(t, fsys, "state").Load()
	if !errors.Is(err, checkpoint.ErrLost) {
		t.Fatalf("got %v, want ErrLost", err)
	}
	must(t, checkpoint.Forget(fsys, "state", "fills")) // as the error recommends
	if got := load(t, open(t, fsys, "state")); got.Found {
		t.Errorf("found %+v", got)
	}
}

func TestACheckpointOfANewerVersionIsKept(t *testing.T) {
	fsys := crashfs.New()
	saveBlocks(t, fsys, "state", 2)
	rewrite(t, fsys, even, func(p []byte) []byte {
		return bytes.Replace(p, []byte(`"format": 1`), []byte(`"format": 3`), 1)
	})
	_, err := open(t, fsys, "state").Load()
	if err == nil || errors.Is(err, checkpoint.ErrLost) || !strings.Contains(err.Error(), "newer hlparser") {
		t.Fatalf("got %v", err)
	}
	if _, err := fsys.Size(even); err != nil {
		t.Error(err)
	}
}

func TestAReformattedCheckpointIsValid(t *testing.T) {
	fsys := crashfs.New()
	saveBlocks(t, fsys, "state", 1)
	rewrite(t, fsys, odd, func(p []byte) []byte {
		var flat bytes.Buffer
		must(t, json.Compact(&flat, p))
		return flat.Bytes()
	})
	if got := load(t, open(t, fsys, "state")); got.State.LastBlock != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestAReadErrorIsNotDamage(t *testing.T) {
	fsys := crashfs.New()
	saveBlocks(t, fsys, "state", 2)
	fsys.Inject(func(op crashfs.Op) error {
		if op == (crashfs.Op{Kind: crashfs.ReadFile, Name: even}) {
			return syscall.EIO
		}
		return nil
	})
	s := open(t, fsys, "state")
	if _, err := s.Load(); !errors.Is(err, syscall.EIO) || errors.Is(err, checkpoint.ErrLost) {
		t.Fatalf("got %v, want EIO", err)
	}
	fsys.Inject(nil)
	if got := load(t, s); got.State.LastBlock != 2 || len(got.SetAside) > 0 {
		t.Errorf("got %+v", got)
	}
}

func TestAFailedSaveCanBeRetried(t *testing.T) {
	for _, kind := range []crashfs.Kind{crashfs.Create, crashfs.Write, crashfs.Sync, crashfs.Rename, crashfs.SyncDir} {
		t.Run(string(kind), func(t *testing.T) {
			fsys := crashfs.New()
			s := open(t, fsys, "state")
			load(t, s)
			for block := range int64(4) {
				fsys.Inject(func(op crashfs.Op) error {
					if op.Kind == kind {
						return syscall.ENOSPC
					}
					return nil
				})
				for range 3 {
					if err := s.Save(state(100 + block)); !errors.Is(err, syscall.ENOSPC) {
						t.Fatalf("got %v, want ENOSPC", err)
					}
				}
				fsys.Inject(nil)
				must(t, s.Save(state(block)))
				if got := load(t, open(t, fsys.PowerLoss().Kill(false), "state")); got.State.LastBlock != block ||
					len(got.SetAside) > 0 {
					t.Fatalf("got %+v, want block %d", got, block)
				}
				// PowerLoss has stopped the machine that was saving.
				fsys = fsys.Kill(false)
				s = open(t, fsys, "state")
				load(t, s)
			}
		})
	}
}

// After a crash at any step, the checkpoint is the last saved one or the one being saved. An earlier one, or none, is
// never found.
func TestACrashAtEveryStep(t *testing.T) {
	const saves = 4
	run := func(fsys *crashfs.FS) (done int64) {
		s, err := checkpoint.Open(fsys, "state", "fills")
		if err != nil {
			return 0
		}
		if _, err := s.Load(); err != nil {
			return 0
		}
		for done < saves && s.Save(state(done+1)) == nil {
			done++
		}
		return done
	}
	clean := crashfs.New()
	if run(clean) != saves {
		t.Fatal("the run failed without a crash")
	}
	runs := 0
	for k, op := range clean.Steps() {
		for loss := range 12 {
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
			// A power loss does not lose what was loaded.
			after, err := open(t, fsys.PowerLoss(), "state").Load()
			if err != nil || after.State.LastBlock != got {
				t.Fatalf("step %d %v, loss %d: loaded %d, and after a power loss %d (%v)", k, op, loss, got, after.State.LastBlock,
					err)
			}
			runs++
		}
	}
	t.Logf("%d crash points, %d runs", len(clean.Steps()), runs)
}

// A crash between the first checkpoint and its mark must not leave the stream unmarked. Otherwise a later loss of the
// checkpoint would make the stream look new.
func TestAStreamIsMarkedAfterACrashInItsFirstSave(t *testing.T) {
	clean := crashfs.New()
	saveBlocks(t, clean, "state", 1)
	for k := range clean.Steps() {
		fsys := crashfs.New()
		fsys.CrashAt(k)
		if s, err := checkpoint.Open(fsys, "state", "fills"); err == nil {
			if _, err := s.Load(); err == nil {
				_ = s.Save(state(1))
			}
		}
		fsys = fsys.Kill(false)
		saveBlocks(t, fsys, "state", 2)
		fsys = fsys.PowerLoss()
		if _, err := fsys.Size("state/streams/fills"); err != nil {
			t.Errorf("killed at step %d: %v", k, err)
		}
	}
}

func TestStreamsListsEveryKnownStream(t *testing.T) {
	fsys := crashfs.New()
	if got, err := checkpoint.Streams(fsys, "state"); err != nil || len(got) > 0 {
		t.Fatalf("got %q, %v", got, err)
	}
	for _, stream := range []string{"order-statuses", "fills"} {
		s, err := checkpoint.Open(fsys, "state", stream)
		must(t, err)
		load(t, s)
		must(t, s.Save(state(1)))
	}
	must(t, fsys.Remove(odd)) // its only slot; the stream is still known
	if got, err := checkpoint.Streams(fsys, "state"); err != nil ||
		!slices.Equal(got, []string{"fills", "order-statuses"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestOpenRefusesInvalidStreamNames(t *testing.T) {
	for _, stream := range []string{"", "..", "a/b", "a.b"} {
		if _, err := checkpoint.Open(crashfs.New(), "state", stream); err == nil {
			t.Errorf("%q was accepted", stream)
		}
	}
}

func TestSetOffsetClearsTheHashesPastIt(t *testing.T) {
	for offset, change := range map[int64]func(*checkpoint.File){
		4096: func(*checkpoint.File) {},
		2048: func(f *checkpoint.File) { f.Marker, f.Markers = checkpoint.Hash{}, f.Markers[:1] },
		100: func(f *checkpoint.File) {
			f.Marker, f.Markers, f.Head = checkpoint.Hash{}, f.Markers[:0], checkpoint.Hash{}
		},
	} {
		want := state(1).Files[0]
		want.Offset = offset
		change(&want)
		s := state(1)
		must(t, s.SetOffset(fileID, offset))
		if !reflect.DeepEqual(s.Files[0], want) {
			t.Errorf("offset %d: got %+v, want %+v", offset, s.Files[0], want)
		}
	}
	s := state(1)
	other := fileID
	other.Hour = 3
	if s.SetOffset(other, 0) == nil || s.SetOffset(fileID, -1) == nil {
		t.Error("an unknown file or a negative offset was accepted")
	}
}

func TestASecondParserWaitsForTheStateDirectory(t *testing.T) {
	fsys := crashfs.New()
	first, err := checkpoint.Lock(t.Context(), fsys, "a/state", func() { t.Error("Lock waits for a free lock") })
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := checkpoint.Lock(ctx, fsys, "a/state", cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	must(t, first.Close())
}
