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

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
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
		Position: checkpoint.Position{
			File:   checkpoint.FileID{Directory: "node_fills", Date: "20260430", Hour: 8, Generation: "1a2b3c4d"},
			Offset: 123, Index: 4,
		},
		Reason: "no JSON", Bytes: []byte(text), LineBytes: 567,
	}
}

// letter is an entry as a person's tools read it.
type letter struct {
	Time             time.Time
	Position, Reason string
	Bytes            *string
	Base64           *[]byte
	Line             *struct {
		File           string
		Offset, Length int64
	}
}

func read(t *testing.T, fsys vfs.FS, name string) []letter {
	t.Helper()
	data, err := fsys.ReadFile(name)
	must(t, err)
	var all []letter
	for line := range bytes.Lines(data) {
		var l letter
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, l)
	}
	return all
}

// texts is what the entries of a file are about.
func texts(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	letters := read(t, fsys, name)
	all := make([]string, len(letters))
	for i, l := range letters {
		all[i] = *l.Bytes
	}
	return strings.Join(all, " ")
}

func TestAnEntryHoldsTheBytesOrWhereTheyAre(t *testing.T) {
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
		t.Errorf("no text: got %+v", l)
	}
	if l := got[2]; l.Bytes != nil || l.Base64 != nil || l.Line.File != "node_fills/20260430/8@1a2b3c4d" || l.Line.Offset != 123 || l.Line.Length != 567 {
		t.Errorf("huge: got %+v", l)
	}
	if l := got[3]; len(l.Reason) > 1100 || !strings.HasPrefix(long.Reason, strings.TrimSuffix(l.Reason, "…")) {
		t.Errorf("the reason is %q", l.Reason)
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
	if got := texts(t, vfs.OS, filepath.Join(dir, "deadletter/fills.jsonl")); got != "0 1 2" {
		t.Errorf("got %q", got)
	}
}

// A process cuts entries off and is killed; the next finds the right length, and
// that is not enough.
func TestWhatAKilledProcessCutOffDoesNotComeBack(t *testing.T) {
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
	if got := texts(t, fsys.PowerLoss(), file); got != "a" {
		t.Errorf("got %q", got)
	}
}

func TestAFullDeadLetterWaitsUntilItIsTakenAway(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 350) // an entry has about 140
	must(t, s.Append(entry("a")))
	must(t, s.Append(entry("b")))
	for range 3 {
		err := s.Append(entry("c"))
		if !errors.Is(err, deadletter.ErrFull) || !strings.Contains(err.Error(), file) {
			t.Fatalf("got %v, want ErrFull that names the file", err)
		}
	}
	must(t, fsys.Rename(file, file+".read"))
	must(t, s.Append(entry("c")))
	length := sync(t, s)
	if size, err := fsys.Size(file); err != nil || size != length {
		t.Errorf("recorded are %d bytes, the file has %d, %v", length, size, err)
	}
	// Nothing of either file is lost, though no one synced between the two.
	after := fsys.PowerLoss()
	if got := texts(t, after, file); got != "c" {
		t.Errorf("the new file holds %q", got)
	}
}

func TestAnEntryThatNeverFitsIsAReference(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 400)
	must(t, s.Append(entry(strings.Repeat("x", 1000))))
	if l := read(t, fsys, file)[0]; l.Bytes != nil || l.Line == nil {
		t.Errorf("got %+v", l)
	}
}

func TestAFileThatWasTakenAwayIsNoError(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 1<<20)
	must(t, s.Append(entry("a")))
	length := sync(t, s)
	must(t, s.Close())
	must(t, fsys.Remove(file))
	s = open(t, fsys, length, 1<<20)
	must(t, s.Append(entry("b")))
	sync(t, s)
	if got := texts(t, fsys, file); got != "b" {
		t.Errorf("got %q", got)
	}
}

func TestAFailedWriteLeavesNoPartOfAnEntry(t *testing.T) {
	for title, also := range map[string]crashfs.Kind{"and it is cut off at once": "", "and it is cut off later": crashfs.Truncate} {
		t.Run(title, func(t *testing.T) {
			fsys := crashfs.New()
			s := open(t, fsys, 0, 1<<20)
			must(t, s.Append(entry("a")))
			fsys.Inject(func(op crashfs.Op) error {
				if op.Kind == crashfs.Write || op.Kind == also {
					return syscall.ENOSPC
				}
				return nil
			})
			for range 3 {
				if err := s.Append(entry("b")); !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("got %v, want ENOSPC", err)
				}
			}
			fsys.Inject(nil)
			length := sync(t, s)
			if size, err := fsys.Size(file); err != nil || size != length {
				t.Errorf("recorded are %d bytes, the file has %d, %v", length, size, err)
			}
			must(t, s.Append(entry("b")))
			sync(t, s)
			if got := texts(t, fsys.PowerLoss(), file); got != "a b" {
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
		t.Errorf("a second sync returns %v: that it succeeds says nothing", err)
	}
	if err := s.Append(entry("b")); !errors.Is(err, deadletter.ErrUnsynced) {
		t.Errorf("Append returns %v", err)
	}
}

func TestWithNothingNewThereIsNoIO(t *testing.T) {
	fsys := crashfs.New()
	s := open(t, fsys, 0, 1<<20)
	must(t, s.Append(entry("a")))
	sync(t, s)
	before := len(fsys.Steps())
	sync(t, s)
	if after := len(fsys.Steps()); after != before {
		t.Errorf("%d steps", after-before)
	}
}
