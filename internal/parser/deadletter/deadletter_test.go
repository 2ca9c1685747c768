package deadletter_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

const file = "state/deadletter/fills.jsonl"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, fsys vfs.FS, recorded, maxBytes int64) *deadletter.Store {
	t.Helper()
	s, err := deadletter.Open(fsys, "state", "fills", recorded, maxBytes)
	must(t, err)
	return s
}

func sync(t *testing.T, s *deadletter.Store) int64 {
	t.Helper()
	length, err := s.Sync()
	must(t, err)
	return length
}

func entry(text string) deadletter.Entry {
	return deadletter.Entry{
		Position: position.Position{
			File:   position.FileID{Directory: "node_fills", Date: "20260430", Hour: 8, Generation: "1a2b3c4d"},
			Offset: 123, Index: 4,
		},
		Reason: "no JSON", Bytes: []byte(text), LineBytes: 567,
	}
}

// decoded is an entry or a header as an operator's tools read it.
type decoded struct {
	Time             time.Time
	Position, Reason string
	Count            int64
	Last             string
	TotalBytes       int64
	Start, Dropped   *int64
	Bytes            *string
	Base64           *[]byte
	Line             *struct {
		File           string
		Offset, Length int64
	}
}

func read(t *testing.T, fsys vfs.FS, name string) []decoded {
	t.Helper()
	data, err := fsys.ReadFile(name)
	must(t, err)
	return decode(t, data)
}

func decode(t tb, data []byte) []decoded {
	t.Helper()
	var all []decoded
	for line := range bytes.Lines(data) {
		var l decoded
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, l)
	}
	return all
}

// entryTexts returns the bytes of a file's entries, separated by spaces.
func entryTexts(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	entries := read(t, fsys, name)
	all := make([]string, len(entries))
	for i, l := range entries {
		all[i] = *l.Bytes
	}
	return strings.Join(all, " ")
}

func TestAnEntryHoldsTheBytesOrAReference(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, deadletter.DefaultMaxBytes)
	huge := strings.Repeat("x", 1<<20+1)
	for _, text := range []string{`{"<&>": "ü`, "\xff\x00", huge} {
		must(t, s.Append(entry(text)))
	}
	long := entry("")
	long.Reason = strings.Repeat("ü", 5000)
	must(t, s.Append(long))
	sync(t, s)

	got := read(t, fsys, file)
	if len(got) != 4 {
		t.Fatalf("got %d entries", len(got))
	}
	for _, l := range got {
		if l.Position != "node_fills/20260430/8@1a2b3c4d:123:4" || l.Time.IsZero() {
			t.Errorf("got %+v", l)
		}
	}
	if l := got[0]; l.Reason != "no JSON" || *l.Bytes != `{"<&>": "ü` || l.Base64 != nil || l.Line != nil {
		t.Errorf("text: got %+v", l)
	}
	if l := got[1]; l.Bytes != nil || string(*l.Base64) != "\xff\x00" || l.Line != nil {
		t.Errorf("invalid UTF-8: got %+v", l)
	}
	if l := got[2]; l.Bytes != nil || l.Base64 != nil || l.Line.File != "node_fills/20260430/8@1a2b3c4d" ||
		l.Line.Offset != 123 ||
		l.Line.Length != 567 {
		t.Errorf("huge: got %+v", l)
	}
	if l := got[3]; len(l.Reason) > 1100 || !strings.HasPrefix(long.Reason, strings.TrimSuffix(l.Reason, "…")) {
		t.Errorf("the reason is %q, want a prefix of the original", l.Reason)
	}
}

func TestOnTheMachinesFileSystem(t *testing.T) {
	dir := t.TempDir()
	var length int64
	for i := range 3 {
		s, err := deadletter.Open(vfs.OS, dir, "fills", length, 1<<20)
		must(t, err)
		must(t, s.Append(entry(fmt.Sprint(i))))
		length = sync(t, s)
		must(t, s.Append(entry("not committed")))
		must(t, s.Close())
	}
	s, err := deadletter.Open(vfs.OS, dir, "fills", length, 1<<20)
	must(t, err)
	must(t, s.Close())
	if got := entryTexts(t, vfs.OS, filepath.Join(dir, "deadletter/fills.jsonl")); got != "0 1 2" {
		t.Errorf("got %q", got)
	}
}

// A process truncates entries and is killed. The next process finds the right length, which is not durable yet.
func TestATruncationByAKilledProcessIsMadeDurable(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 1<<20)
	must(t, s.Append(entry("a")))
	recorded := sync(t, s)
	must(t, s.Append(entry("b")))
	sync(t, s)
	fsys = fsys.Kill(false)
	open(t, fsys, recorded, 1<<20)
	fsys = fsys.Kill(false)
	sync(t, open(t, fsys, recorded, 1<<20))
	if got := entryTexts(t, fsys.PowerLoss(), file); got != "a" {
		t.Errorf("got %q", got)
	}
}

func TestRemovingTheOpenFileLosesNoEntry(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 1<<20)
	for _, text := range []string{"a", "b", "c"} { // c is not written yet
		must(t, s.Append(entry(text)))
	}
	must(t, fsys.Rename(file, file+".read"))
	must(t, s.Append(entry("d")))
	recorded := sync(t, s)
	must(t, s.Append(entry("e")))
	must(t, s.Append(entry("f")))
	after := fsys.PowerLoss() // nothing else syncs the removed file
	if got := entryTexts(t, after, file+".read"); got != "a b" {
		t.Errorf("the removed file holds %q", got)
	}
	open(t, after, recorded, 1<<20)
	entries := read(t, after, file)
	if len(entries) != 3 || entries[0].Start == nil || *entries[1].Bytes != "c" || *entries[2].Bytes != "d" {
		t.Errorf("the new file holds %+v", entries)
	}
}

// A file that another program wrote to is moved aside unchanged.
func TestAFileChangedByAnotherProgramIsKept(t *testing.T) {
	const text = "{\"by\":\"hand\"}\n"
	for title, restart := range map[string]bool{"while the parser runs": false, "while it is stopped": true} {
		t.Run(title, func(t *testing.T) {
			fsys := crashfs.New()
			s := open(t, fsys, 0, 1<<20)
			must(t, s.Append(entry("a")))
			must(t, s.Append(entry("b")))
			recorded := sync(t, s)
			f, err := fsys.Create(file)
			must(t, err)
			_, err = f.Write([]byte(text))
			must(t, errors.Join(err, f.Sync(), f.Close()))
			if restart {
				must(t, s.Close())
				s = open(t, fsys, recorded, 1<<20)
			}
			must(t, s.Append(entry("c")))
			recorded = sync(t, s)
			must(t, s.Append(entry("d")))
			must(t, s.Append(entry("e")))
			fsys = fsys.Kill(false)
			open(t, fsys, recorded, 1<<20)
			if data, err := fsys.ReadFile(oldFile); err != nil || string(data) != text {
				t.Errorf("the foreign content is %q, %v", data, err)
			}
			if l := read(t, fsys, file); len(l) != 2 || *l[1].Bytes != "c" {
				t.Errorf("the new file holds %+v", l)
			}
		})
	}
}

func TestATruncatedFileIsReplaced(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 1<<20)
	must(t, s.Append(entry("a")))
	recorded := sync(t, s)
	f, err := fsys.Create(file)
	must(t, errors.Join(err, f.Sync(), f.Close()))
	must(t, s.Append(entry("b")))
	if next := sync(t, s); next <= recorded {
		t.Errorf("the recorded position is %d after %d, want more", next, recorded)
	}
	if l := read(t, fsys.PowerLoss(), file); len(l) != 2 || *l[0].Start != recorded || *l[1].Bytes != "b" {
		t.Errorf("got %+v", l)
	}
}

func TestANegativePositionIsRefused(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 1<<20)
	must(t, s.Append(entry("a")))
	sync(t, s)
	if _, err := deadletter.Open(fsys, "state", "fills", -1, 1<<20); err == nil {
		t.Error("a negative position was accepted")
	}
	if got := entryTexts(t, fsys, file); got != "a" {
		t.Errorf("the file holds %q", got)
	}
}

// Before rotation existed, a file could grow beyond half of the bound.
func TestAFileLongerThanHalfTheBoundStaysWithinIt(t *testing.T) {
	for _, length := range []int64{bound/2 + 1, bound * 3 / 4, bound - 10, bound} {
		fsys := crashfs.New()
		must(t, vfs.MakeDirs(fsys, "state/deadletter"))
		f, err := fsys.Create(file)
		must(t, err)
		_, err = f.Write(bytes.Repeat([]byte("{}\n"), int(length/3)))
		must(t, errors.Join(err, f.Sync(), fsys.SyncDir("state/deadletter")))
		s := &producer{fs: fsys, size: 3000, history: []committed{{0, length / 3 * 3}}}
		for n := 2; n <= 100; n += 2 {
			must(t, s.run(n, 2))
			s.checkBound(t)
		}
		if got := counted(t, fsys, file) + counted(t, fsys, oldFile); got != 100+length/3 {
			t.Errorf("%d bytes initially: %d are counted, want %d", length, got, 100+length/3)
		}
	}
}

func TestAnEntryThatCannotFitIsAReference(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 128<<10)
	must(t, s.Append(entry(strings.Repeat("x", 10_000))))
	sync(t, s)
	if l := read(t, fsys, file)[0]; l.Bytes != nil || l.Line == nil {
		t.Errorf("got %+v", l)
	}
}

func TestARemovedFileIsNoError(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 1<<20)
	must(t, s.Append(entry("a")))
	length := sync(t, s)
	must(t, s.Close())
	must(t, fsys.Remove(file))
	s = open(t, fsys, length, 1<<20)
	must(t, s.Append(entry("b")))
	sync(t, s)
	entries := read(t, fsys, file)
	if len(entries) != 2 || entries[0].Start == nil || *entries[0].Start != length || *entries[1].Bytes != "b" {
		t.Errorf("got %+v, want a header that starts at %d, and b", entries, length)
	}
}

func TestAFailedWriteLeavesNoPartOfAnEntry(t *testing.T) {
	for title, also := range map[string]crashfs.Kind{"truncated immediately": "", "truncated later": crashfs.Truncate} {
		t.Run(title, func(t *testing.T) {
			fsys := crashfs.New()
			s := open(t, fsys, 0, 1<<20)
			must(t, s.Append(entry("a")))
			must(t, s.Append(entry("b"))) // a run, which ends with the next entry or commit
			fsys.Inject(func(op crashfs.Op) error {
				if op.Kind == crashfs.Write || op.Kind == also {
					return syscall.ENOSPC
				}
				return nil
			})
			for range 3 {
				if err := s.Append(entry("c")); !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("got %v, want ENOSPC", err)
				}
				if _, err := s.Sync(); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, deadletter.ErrUnsynced) {
					t.Fatalf("got %v, want ENOSPC", err)
				}
			}
			fsys.Inject(nil)
			length := sync(t, s)
			if size, err := fsys.Size(file); err != nil || size != length {
				t.Errorf("%d bytes are recorded, the file has %d, %v", length, size, err)
			}
			must(t, s.Append(entry("c")))
			sync(t, s)
			if got := entryTexts(t, fsys.PowerLoss(), file); got != "a b c" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestAFailedSyncIsFinal(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 1<<20)
	must(t, s.Append(entry("a")))
	fsys.Inject(func(op crashfs.Op) error {
		if op.Kind == crashfs.Sync {
			return syscall.EIO
		}
		return nil
	})
	if _, err := s.Sync(); !errors.Is(err, deadletter.ErrUnsynced) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v, want ErrUnsynced for EIO", err)
	}
	fsys.Inject(nil)
	if _, err := s.Sync(); !errors.Is(err, deadletter.ErrUnsynced) {
		t.Errorf("a second Sync returned %v, want ErrUnsynced", err)
	}
	if err := s.Append(entry("b")); !errors.Is(err, deadletter.ErrUnsynced) {
		t.Errorf("Append returned %v, want ErrUnsynced", err)
	}
}

func TestSyncWithoutNewEntriesDoesNoIO(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 1<<20)
	must(t, s.Append(entry("a")))
	sync(t, s)
	before := len(fsys.Steps())
	sync(t, s)
	if after := len(fsys.Steps()); after != before {
		t.Errorf("got %d steps, want none", after-before)
	}
}
