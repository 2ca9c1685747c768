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

// checkContent verifies the content of the file a.
func checkContent(t *testing.T, fsys *crashfs.FS, want string) {
	t.Helper()
	if got, err := fsys.ReadFile("a"); err != nil || string(got) != want {
		t.Errorf("a holds %q (%v), want %q", got, err, want)
	}
}

func checkMissing(t *testing.T, fsys *crashfs.FS, name string) {
	t.Helper()
	if _, err := fsys.Size(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: got %v, want ErrNotExist", name, err)
	}
}

func TestPowerLossKeepsOnlyWhatWasSynced(t *testing.T) {
	fsys := crashfs.New()
	f := create(t, fsys, "a", "synced")
	must(t, f.Sync())
	checkMissing(t, fsys.PowerLoss(), "a") // the name was not synced
	must(t, f.Close())                     // has no effect after the crash

	fsys = crashfs.New()
	f = create(t, fsys, "a", "synced")
	must(t, f.Sync())
	must(t, fsys.SyncDir("."))
	write(t, f, " not")
	create(t, fsys, "b", "")
	must(t, fsys.Rename("a", "c"))
	after := fsys.PowerLoss()
	checkContent(t, after, "synced")
	checkMissing(t, after, "b")
	checkMissing(t, after, "c")
	if _, err := fsys.Create("d"); !errors.Is(err, crashfs.ErrCrashed) {
		t.Errorf("got %v from a machine that has crashed", err)
	}
}

func TestKillKeepsEverythingUntilAPowerLoss(t *testing.T) {
	fsys := crashfs.New()
	f := create(t, fsys, "a", "one")
	fsys.CrashAt(2)
	if _, err := f.Write([]byte("abcd")); !errors.Is(err, crashfs.ErrCrashed) {
		t.Fatalf("got %v, want ErrCrashed", err)
	}
	after := fsys.Kill(true)
	checkContent(t, after, "oneab")
	checkMissing(t, after.PowerLoss(), "a")
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
	checkContent(t, fsys, "onetwo")
	checkContent(t, fsys.PowerLoss(), "one")
}

func TestAFailedWriteLeavesHalfOfItsBytes(t *testing.T) {
	fsys := crashfs.New()
	f := create(t, fsys, "a", "one")
	fsys.Inject(func(crashfs.Op) error { return syscall.ENOSPC })
	if n, err := f.Write([]byte("abcd")); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %d, %v", n, err)
	}
	fsys.Inject(nil)
	checkContent(t, fsys, "oneab")
}

// Any part of what was not synced may be left. The same seed always leaves the same part.
func TestPartialLossLeavesAnyMixOfUnsyncedChanges(t *testing.T) {
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
	for _, want := range []string{
		"a ab", "b ab", "a abcdef", "b abcdef", "a abc", "b abcd", "a ab\x00\x00ef", "a abc\x00\x00f",
	} {
		if !seen[want] {
			t.Errorf("never left: %q", want)
		}
	}
}

// A crash leaves the same state in a copy as in the original, and a change to one is not visible in the other.
func TestACopyIsEqualAndIndependent(t *testing.T) {
	crashes := []func(*crashfs.FS) *crashfs.FS{
		func(f *crashfs.FS) *crashfs.FS { return f.Kill(true) },
		(*crashfs.FS).PowerLoss,
		func(f *crashfs.FS) *crashfs.FS { return f.PartialLoss(rand.New(rand.NewPCG(1, 2))) },
		func(f *crashfs.FS) *crashfs.FS { return f.PartialLoss(rand.New(rand.NewPCG(3, 4))) },
	}
	build := func() *crashfs.FS {
		fsys := crashfs.New()
		must(t, fsys.Mkdir("d"))
		f := create(t, fsys, "d/a", "synced")
		must(t, f.Sync())
		must(t, fsys.SyncDir("d"))
		must(t, fsys.SyncDir("."))
		write(t, f, " and not")
		create(t, fsys, "d/b", "new")
		must(t, fsys.Rename("d/a", "d/c"))
		fsys.CrashAt(len(fsys.Steps()))
		if _, err := f.Write([]byte("torn")); !errors.Is(err, crashfs.ErrCrashed) {
			t.Fatal(err)
		}
		return fsys
	}
	fsys := build()
	image := fsys.Image()
	images := map[string]bool{image: true}
	for i, crash := range crashes {
		got, want := crash(fsys.Copy()).Image(), crash(build()).Image()
		if got != want {
			t.Errorf("crash %d of a copy left %q, want %q", i, got, want)
		}
		images[got] = true
	}
	if len(images) < 4 {
		t.Errorf("got %d distinct images, want at least 4", len(images))
	}
	if got := fsys.Image(); got != image {
		t.Errorf("the image changed from %q to %q", image, got)
	}
}

// Images differ even if only their durable parts do.
func TestAnImageShowsWhatIsDurable(t *testing.T) {
	images := map[string]string{}
	for title, do := range map[string]func(fsys *crashfs.FS, f vfs.File){
		"nothing is durable": func(*crashfs.FS, vfs.File) {},
		"the bytes are":      func(_ *crashfs.FS, f vfs.File) { must(t, f.Sync()) },
		"the name is":        func(fsys *crashfs.FS, _ vfs.File) { must(t, fsys.SyncDir(".")) },
		"both are":           func(fsys *crashfs.FS, f vfs.File) { must(t, f.Sync()); must(t, fsys.SyncDir(".")) },
	} {
		fsys := crashfs.New()
		do(fsys, create(t, fsys, "a", "bytes"))
		image := fsys.Image()
		if other, ok := images[image]; ok {
			t.Errorf("%s has the image of %s", title, other)
		}
		images[image] = title
	}
}
