package checkpoint_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// The streams of a process in these tests. fills has a base, trades has none. oracle-updates is configured later.
var startedStreams = []string{"fills", "trades"}

func acquire(t *testing.T, fsys vfs.FS, streams ...string) *checkpoint.Directory {
	t.Helper()
	d, err := checkpoint.Acquire(t.Context(), fsys, "state", streams, func() { t.Error("Acquire waits for a free lock") })
	must(t, err)
	return d
}

// usedDirectory returns the state directory of a parser that ran for a while and was killed.
func usedDirectory(t *testing.T) *crashfs.FS {
	t.Helper()
	fsys := crashfs.New()
	d := acquire(t, fsys, startedStreams...)
	for block := range int64(3) {
		for _, stream := range startedStreams {
			s, err := d.Store(stream)
			must(t, err)
			st := state(block + 1)
			if stream == "fills" {
				st = changing(block + 1)
			}
			if block == 0 {
				load(t, s)
			}
			must(t, s.Save(st))
		}
		_, err := d.Keep()
		must(t, err)
	}
	must(t, vfs.MakeDirs(fsys, "state/deadletter"))
	f, err := fsys.Create("state/deadletter/trades.jsonl")
	must(t, err)
	must(t, f.Close())
	return fsys.Kill(false)
}

// outcome returns the result of loading a stream: found with its block, lost, or new.
func outcome(t *testing.T, d *checkpoint.Directory, stream string) string {
	t.Helper()
	s, err := d.Store(stream)
	must(t, err)
	switch loaded, err := s.Load(); {
	case errors.Is(err, checkpoint.ErrLost):
		return "lost"
	case err != nil:
		t.Fatal(err)
		return ""
	case loaded.Found:
		return fmt.Sprintf("found %d", loaded.State.LastBlock)
	}
	return "new"
}

// tree lists all files, and all empty directories, in a directory.
func tree(t *testing.T, fsys *crashfs.FS, dir string) (files, empty []string) {
	t.Helper()
	names, err := fsys.List(dir)
	must(t, err)
	if len(names) == 0 {
		return nil, []string{dir}
	}
	for _, name := range names {
		name = filepath.Join(dir, name)
		if _, err := fsys.List(name); err != nil {
			files = append(files, name)
			continue
		}
		f, e := tree(t, fsys, name)
		files, empty = append(files, f...), append(empty, e...)
	}
	return files, empty
}

// Any subset of the files is deleted, with or without the directories that become empty. What is intact is found, and
// what is gone is lost, also after a restart. A stream that never existed is new, unless nothing records which streams
// existed.
func TestEverySubsetOfDeletedFiles(t *testing.T) {
	template := usedDirectory(t)
	files, _ := tree(t, template, "state")
	contents := make([][]byte, 0, len(files))
	for _, name := range files {
		data, err := template.ReadFile(name)
		must(t, err)
		contents = append(contents, data)
	}
	if len(files) != 2+2+2+2+1+1 { // slots of both, two copies of one base, marks, a dead letter, the lock
		t.Fatalf("got the files %q", files)
	}
	counts := map[string]int{}
	for subset := range 1 << len(files) {
		for _, dirs := range []bool{false, true} {
			fsys := crashfs.New()
			for _, dir := range []string{"begun/fills", "begun/trades", "checkpoint", "streams", "deadletter"} {
				must(t, vfs.MakeDirs(fsys, filepath.Join("state", dir)))
			}
			gone := map[string]bool{}
			for i, name := range files {
				if subset&(1<<i) != 0 {
					gone[name] = true
					continue
				}
				f, err := fsys.Create(name)
				must(t, err)
				_, err = f.Write(contents[i])
				must(t, errors.Join(err, f.Close()))
			}
			if dirs {
				prune(t, fsys)
			}
			checkOutcomes := func(way string) {
				d := acquire(t, fsys, "fills", "trades", "oracle-updates")
				for stream, want := range expected(files, gone, dirs) {
					got := outcome(t, d, stream)
					if got != want {
						t.Fatalf("%s without %q, empty directories removed %v: %s is %s, want %s",
							way, keys(gone), dirs, stream, got, want)
					}
					counts[got]++
				}
				must(t, d.Close())
			}
			checkOutcomes("first start")
			checkOutcomes("second start")
		}
	}
	t.Log(counts)
	for _, want := range []string{"found 3", "found 2", "lost", "new"} {
		if counts[want] == 0 {
			t.Errorf("no stream is ever %s: the test proves nothing", want)
		}
	}
}

func keys(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }

// prune removes empty directories, including those that become empty by the removal.
func prune(t *testing.T, fsys *crashfs.FS) {
	t.Helper()
	for {
		_, empty := tree(t, fsys, "state")
		if len(empty) == 0 {
			return
		}
		for _, dir := range empty {
			must(t, fsys.Remove(dir))
		}
		if len(empty) == 1 && empty[0] == "state" {
			return
		}
	}
}

// expected returns the outcomes according to the table in the package comment.
func expected(files []string, gone map[string]bool, dirs bool) map[string]string {
	left := func(part string) (n int) {
		for _, name := range files {
			if strings.Contains(name, part) && !gone[name] {
				n++
			}
		}
		return n
	}
	out := map[string]string{}
	list := !dirs || left("state/lock") > 0
	for _, stream := range startedStreams {
		newest, before := left("checkpoint/"+stream+".1.json") > 0, left("checkpoint/"+stream+".0.json") > 0
		bases := map[string]bool{} // by number
		for _, name := range files {
			if _, rest, ok := strings.Cut(name, "checkpoint/"+stream+".base-"); ok && !gone[name] {
				number, _, _ := strings.Cut(rest, ".")
				bases[number] = true
			}
		}
		intact := func(present bool) bool { return present && (stream == "trades" || len(bases) > 0) }
		list = list || newest || before // a slot lists the streams even without its base
		switch {
		case intact(newest):
			out[stream] = "found 3"
		case intact(before):
			out[stream] = "found 2"
		default:
			out[stream] = "lost"
		}
	}
	anything := !dirs || len(gone) < len(files)
	for _, stream := range startedStreams {
		if out[stream] == "lost" && !anything {
			out[stream] = "new"
		}
	}
	out["oracle-updates"] = "new"
	if anything && !list {
		out["oracle-updates"] = "lost"
	}
	return out
}

// Older parsers kept no list, and created no directory that marks a stream as started.
func TestADirectoryOfAnOlderParser(t *testing.T) {
	slots := []string{"state/checkpoint/fills.0.json", "state/checkpoint/fills.1.json"}
	for name, c := range map[string]struct {
		files                []string // the directories all exist
		fills, oracleUpdates string
	}{
		"complete":           {append(slots, "state/streams/fills", "state/lock"), "found 3", "new"},
		"without the lock":   {append(slots, "state/streams/fills"), "found 3", "new"},
		"marks pruned":       {append(slots, "state/lock"), "found 3", "lost"},
		"checkpoints pruned": {[]string{"state/streams/fills"}, "lost", "lost"},
		"with a dead letter": {[]string{"state/deadletter/fills.jsonl"}, "lost", "lost"},
		"with only the lock": {[]string{"state/lock"}, "lost", "lost"},
		"every file pruned":  {nil, "lost", "lost"},
		"with a file set aside": {
			[]string{"state/checkpoint/fills.0.json.corrupt-20260430T201502Z"}, "lost", "lost",
		},
		// Indistinguishable from a directory whose files were all pruned.
		"killed in the first save":        {[]string{"state/checkpoint/fills.1.json.tmp"}, "lost", "lost"},
		"with a mark of a removed stream": {append(slots, "state/streams/fills", "state/streams/trades"), "found 3", "new"},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := crashfs.New()
			for _, dir := range []string{"checkpoint", "streams", "deadletter"} {
				must(t, vfs.MakeDirs(fsys, filepath.Join("state", dir)))
			}
			for i, name := range c.files {
				f, err := fsys.Create(name)
				must(t, err)
				if slices.Contains(slots, name) {
					_, err = f.Write(olderDocument(t, int64(2+i)))
					must(t, err)
				}
				must(t, f.Close())
			}
			for range 2 {
				d := acquire(t, fsys, "fills", "oracle-updates")
				if got := outcome(t, d, "fills"); got != c.fills {
					t.Errorf("fills is %s, want %s", got, c.fills)
				}
				if got := outcome(t, d, "oracle-updates"); got != c.oracleUpdates {
					t.Errorf("oracle-updates is %s, want %s", got, c.oracleUpdates)
				}
				must(t, d.Close())
			}
		})
	}
}

// olderDocument returns a checkpoint as parsers wrote it before checkpoints listed streams. The newest one has block 3.
func olderDocument(t *testing.T, block int64) []byte {
	t.Helper()
	s := state(block)
	s.Sequence, s.Stream = uint64(block), "fills"
	payload, err := json.Marshal(s)
	must(t, err)
	return sealed(t, 1, payload)
}

// A parser that is killed at any step of its first start does not make its streams look lost.
func TestTheFirstStartMayBeKilledAtAnyStep(t *testing.T) {
	start := func(fsys *crashfs.FS) error {
		d, err := checkpoint.Acquire(t.Context(), fsys, "state", startedStreams, func() {})
		if err != nil {
			return err
		}
		for _, stream := range startedStreams {
			s, err := d.Store(stream)
			if err != nil {
				return err
			}
			if _, err := s.Load(); err != nil {
				return err
			}
			if err := s.Save(state(1)); err != nil {
				return err
			}
			if _, err := d.Keep(); err != nil {
				return err
			}
		}
		return nil
	}
	clean := crashfs.New()
	must(t, start(clean))
	for k, op := range clean.Steps() {
		for _, power := range []bool{false, true} {
			fsys := crashfs.New()
			fsys.CrashAt(k)
			if err := start(fsys); !errors.Is(err, crashfs.ErrCrashed) {
				t.Fatalf("step %d %v: %v", k, op, err)
			}
			if fsys = fsys.Kill(false); power {
				fsys = fsys.PowerLoss()
			}
			if err := start(fsys); err != nil {
				t.Errorf("killed at step %d %v, power loss %v: %v", k, op, power, err)
			}
		}
	}
}

func TestAnAddedStreamIsNew(t *testing.T) {
	fsys := usedDirectory(t)
	d := acquire(t, fsys, "fills", "trades", "oracle-updates")
	if got := outcome(t, d, "oracle-updates"); got != "new" {
		t.Fatalf("oracle-updates is %s, want new", got)
	}
	s, err := d.Store("oracle-updates")
	must(t, err)
	must(t, s.Save(state(1)))
	must(t, d.Close())
	// The stream is known from then on, even if only the checkpoint of another stream is left.
	d = acquire(t, fsys, "fills", "trades", "oracle-updates")
	for _, stream := range startedStreams {
		outcome(t, d, stream)
		s, err := d.Store(stream)
		must(t, err)
		must(t, s.Save(state(9)))
	}
	must(t, d.Close())
	files, _ := tree(t, fsys, "state")
	for _, name := range files {
		if !strings.Contains(name, "checkpoint/trades.") {
			must(t, fsys.Remove(name))
		}
	}
	prune(t, fsys)
	if got := outcome(t, acquire(t, fsys, "oracle-updates"), "oracle-updates"); got != "lost" {
		t.Errorf("with only the checkpoint of trades, oracle-updates is %s, want lost", got)
	}
}

func TestForgetStartsALostStreamAsANewOne(t *testing.T) {
	fsys := usedDirectory(t)
	if err := checkpoint.Forget(fsys, "state", "fills"); err == nil {
		t.Error("Forget accepted a stream that is not lost")
	}
	rewrite(t, fsys, odd, func([]byte) []byte { return []byte("{") })
	rewrite(t, fsys, even, func([]byte) []byte { return []byte("{") })
	d := acquire(t, fsys, startedStreams...)
	if got := outcome(t, d, "fills"); got != "lost" {
		t.Fatalf("fills is %s, want lost", got)
	}
	must(t, checkpoint.Forget(fsys, "state", "fills"))
	for range 2 { // a restart before the first checkpoint changes nothing
		must(t, d.Close())
		d = acquire(t, fsys, startedStreams...)
		if got := outcome(t, d, "fills"); got != "new" {
			t.Fatalf("fills is %s, want new", got)
		}
	}
	s, err := d.Store("fills")
	must(t, err)
	must(t, s.Save(state(1)))
	must(t, fsys.Remove(odd))
	must(t, d.Close())
	if got := outcome(t, acquire(t, fsys, startedStreams...), "fills"); got != "lost" {
		t.Errorf("after a second loss, fills is %s: Forget applies only once", got)
	}
}

// A lost checkpoint is restored after Forget. Forget does not apply to a later loss.
func TestARestoredCheckpointCancelsForget(t *testing.T) {
	fsys := usedDirectory(t)
	doc, err := fsys.ReadFile("state/checkpoint/trades.1.json")
	must(t, err)
	for i := range 2 {
		must(t, fsys.Remove(fmt.Sprintf("state/checkpoint/trades.%d.json", i)))
	}
	must(t, checkpoint.Forget(fsys, "state", "trades"))
	f, err := fsys.Create("state/checkpoint/trades.1.json")
	must(t, err)
	_, err = f.Write(doc)
	must(t, errors.Join(err, f.Close()))
	d := acquire(t, fsys, startedStreams...)
	if got := outcome(t, d, "trades"); got != "found 3" {
		t.Fatalf("trades is %s, want found 3", got)
	}
	must(t, d.Close())
	must(t, fsys.Remove("state/checkpoint/trades.1.json"))
	if got := outcome(t, acquire(t, fsys, startedStreams...), "trades"); got != "lost" {
		t.Errorf("after a second loss, trades is %s, want lost", got)
	}
}

// The next Keep durably restores whatever is deleted under a running parser. A crash after that loses nothing.
func TestKeepRestoresWhatIsDeletedUnderARunningParser(t *testing.T) {
	run := func() (*crashfs.FS, *checkpoint.Directory) {
		fsys := usedDirectory(t)
		d := acquire(t, fsys, startedStreams...)
		for _, stream := range startedStreams {
			if got := outcome(t, d, stream); got != "found 3" {
				t.Fatalf("%s is %s", stream, got)
			}
		}
		_, err := d.Keep()
		must(t, err)
		return fsys, d
	}
	fsys, d := run()
	all, _ := tree(t, fsys, "state")
	steps := len(fsys.Steps())
	restored, err := d.Keep()
	if err != nil || len(restored) > 0 || len(fsys.Steps()) != steps {
		t.Errorf("with nothing missing, Keep wrote %q, %v", restored, fsys.Steps()[steps:])
	}
	sets := append(slices.Collect(slices.Chunk(all, 1)), all) // each file, and all files
	for _, set := range sets {
		for _, dirs := range []bool{false, true} {
			fsys, d := run()
			for _, name := range set {
				must(t, fsys.Remove(name))
			}
			if dirs {
				prune(t, fsys)
			}
			restored, err := d.Keep()
			must(t, err)
			after, _ := tree(t, fsys, "state")
			for _, name := range set {
				if !strings.Contains(name, "deadletter") && (!slices.Contains(after, name) || !slices.Contains(restored, name)) {
					t.Errorf("without %q: %s was not restored (%q)", set, name, restored)
				}
			}
			fsys = fsys.PowerLoss()
			d = acquire(t, fsys, append(startedStreams, "oracle-updates")...)
			for stream, want := range map[string]string{"fills": "found 3", "trades": "found 3", "oracle-updates": "new"} {
				if got := outcome(t, d, stream); got != want {
					t.Errorf("without %q: after a power loss %s is %s, want %s", set, stream, got, want)
				}
			}
		}
	}
}

// A stream that restarts within the process finds its checkpoint, although it was deleted in between.
func TestACheckpointDeletedBetweenTwoAttemptsIsRestored(t *testing.T) {
	fsys := usedDirectory(t)
	d := acquire(t, fsys, startedStreams...)
	outcome(t, d, "fills")
	must(t, fsys.Remove(odd))
	must(t, fsys.Remove(even))
	if got := outcome(t, d, "fills"); got != "found 3" {
		t.Errorf("fills is %s, want found 3", got)
	}
}

func TestTouchCoversEveryFile(t *testing.T) {
	dir := t.TempDir()
	d, err := checkpoint.Acquire(t.Context(), vfs.PrivateOS, dir, startedStreams, func() {})
	must(t, err)
	for _, stream := range startedStreams {
		s, err := d.Store(stream)
		must(t, err)
		load(t, s)
		must(t, s.Save(changing(1)))
	}
	// orders is a stream that does not run.
	for _, name := range []string{
		"deadletter/orders.jsonl", "checkpoint/orders.1.json", "streams/orders", "forget/orders",
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	old := time.Now().Add(-40 * time.Hour)
	var files []string
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
			err = os.Chtimes(path, old, old)
		}
		return err
	}))
	must(t, d.Touch())
	for _, name := range files {
		info, err := os.Stat(name)
		must(t, err)
		if time.Since(info.ModTime()) > time.Minute || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has modification time %v and mode %v", name, info.ModTime(), info.Mode())
		}
	}
	if len(files) < 12 {
		t.Errorf("got only the files %q", files)
	}
	must(t, d.Close())
}

// Without the lock, nothing is saved, restored or touched.
func TestNothingIsWrittenUnderALostLock(t *testing.T) {
	fsys := usedDirectory(t)
	d := acquire(t, fsys, startedStreams...)
	outcome(t, d, "fills")
	s, err := d.Store("fills")
	must(t, err)
	must(t, fsys.Remove("state/lock"))
	other, err := fsys.TryLock("state/lock")
	must(t, err)
	before, _ := tree(t, fsys, "state")
	_, keep := d.Keep()
	for call, err := range map[string]error{
		"Save": s.Save(changing(9)), "Fold": d.Fold(), "Keep": keep, "Touch": d.Touch(), "Check": d.Check(),
	} {
		if !errors.Is(err, vfs.ErrLockLost) {
			t.Errorf("%s: got %v, want ErrLockLost", call, err)
		}
	}
	if after, _ := tree(t, fsys, "state"); !slices.Equal(before, after) {
		t.Errorf("the files changed from %q to %q", before, after)
	}
	must(t, other.Close())
}

func TestAcquireWaitsForTheLock(t *testing.T) {
	fsys := crashfs.New()
	d := acquire(t, fsys, "fills")
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := checkpoint.Acquire(ctx, fsys, "state", startedStreams, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	must(t, d.Close())
}
