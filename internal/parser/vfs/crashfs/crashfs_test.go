package crashfs_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, fsys *crashfs.FS, name, content string) vfs.File {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	write(t, f, content)
	return f
}

func write(t *testing.T, f vfs.File, content string) {
	t.Helper()
	_, err := f.Write([]byte(content))
	must(t, err)
}

// holds checks what the file a holds.
func holds(t *testing.T, fsys *crashfs.FS, want string) {
	t.Helper()
	if got, err := fsys.ReadFile("a"); err != nil || string(got) != want {
		t.Errorf("a holds %q (%v), want %q", got, err, want)
	}
}

func gone(t *testing.T, fsys *crashfs.FS, name string) {
	t.Helper()
	if _, err := fsys.Size(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: got %v, want ErrNotExist", name, err)
	}
}

func TestAPowerLossKeepsWhatWasSyncedAndNothingElse(t *testing.T) {
	fsys := crashfs.New()
	f := create(t, fsys, "a", "synced")
	must(t, f.Sync())
	gone(t, fsys.PowerLoss(), "a") // its name was not
	must(t, f.Close())             // the old machine answers, to no effect

	fsys = crashfs.New()
	f = create(t, fsys, "a", "synced")
	must(t, f.Sync())
	must(t, fsys.SyncDir("."))
	write(t, f, " not")
	create(t, fsys, "b", "")
	must(t, fsys.Rename("a", "c"))
	after := fsys.PowerLoss()
	holds(t, after, "synced")
	gone(t, after, "b")
	gone(t, after, "c")
	if _, err := fsys.Create("d"); !errors.Is(err, crashfs.ErrCrashed) {
		t.Errorf("got %v from a machine that has crashed", err)
	}
}

func TestAKillKeepsEverythingUntilThePowerIsLost(t *testing.T) {
	fsys := crashfs.New()
	f := create(t, fsys, "a", "one")
	fsys.CrashAt(2)
	if _, err := f.Write([]byte("abcd")); !errors.Is(err, crashfs.ErrCrashed) {
		t.Fatalf("got %v, want ErrCrashed", err)
	}
	after := fsys.Kill(true)
	holds(t, after, "oneab")
	gone(t, after.PowerLoss(), "a")
}

func TestBytesWhoseSyncFailedAreNeverDurable(t *testing.T) {
	fsys := crashfs.New()
	f := create(t, fsys, "a", "one")
	must(t, fsys.SyncDir("."))
	must(t, f.Sync())
	write(t, f, "two")
	fsys.Inject(func(op crashfs.Op) error {
		if op.Kind == crashfs.Sync {
			return syscall.EIO
		}
		return nil
	})
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v, want EIO", err)
	}
	fsys.Inject(nil)
	must(t, f.Sync())
	holds(t, fsys, "onetwo")
	holds(t, fsys.PowerLoss(), "one")
}

func TestAWriteThatFailsLeavesHalfOfItself(t *testing.T) {
	fsys := crashfs.New()
	f := create(t, fsys, "a", "one")
	fsys.Inject(func(crashfs.Op) error { return syscall.ENOSPC })
	if n, err := f.Write([]byte("abcd")); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %d, %v", n, err)
	}
	fsys.Inject(nil)
	holds(t, fsys, "oneab")
}

// Of what was not synced anything may be left, and with one seed always the same.
func TestAPartialLossLeavesAnything(t *testing.T) {
	left := func(seed uint64) string {
		fsys := crashfs.New()
		f := create(t, fsys, "a", "ab")
		must(t, f.Sync())
		must(t, fsys.SyncDir("."))
		write(t, f, "cd")
		write(t, f, "ef")
		must(t, fsys.Rename("a", "b"))
		after := fsys.PartialLoss(rand.New(rand.NewPCG(seed, 0)))
		for _, name := range []string{"a", "b"} {
			if got, err := after.ReadFile(name); err == nil {
				return name + " " + string(got)
			}
		}
		t.Fatal("a rename lost the file")
		return ""
	}
	seen := map[string]bool{}
	for seed := range uint64(20_000) {
		got := left(seed)
		if again := left(seed); again != got {
			t.Fatalf("seed %d left %q, and then %q", seed, got, again)
		}
		seen[got] = true
	}
	for _, want := range []string{"a ab", "b ab", "a abcdef", "b abcdef", "a abc", "b abcd", "a ab\x00\x00ef", "a abc\x00\x00f"} {
		if !seen[want] {
			t.Errorf("never left: %q", want)
		}
	}
}
