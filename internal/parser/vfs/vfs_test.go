package vfs_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// onBoth runs a test on the machine's file system and on the one of the crash
// tests, which are worth only as much as the two agree.
func onBoth(t *testing.T, test func(t *testing.T, fsys vfs.FS, dir string)) {
	t.Run("the machine's", func(t *testing.T) { test(t, vfs.OS, t.TempDir()) })
	t.Run("crashfs", func(t *testing.T) { test(t, crashfs.New(), ".") })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreWrittenAtTheirEndAndCut(t *testing.T) {
	onBoth(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "f")
		f, err := fsys.Create(name)
		must(t, err)
		_, err = f.Write([]byte("hello world"))
		must(t, err)
		must(t, f.Truncate(5))
		_, err = f.Write([]byte("!"))
		must(t, err)
		must(t, f.Sync())
		must(t, f.Close())
		f, err = fsys.Append(name)
		must(t, err)
		_, err = f.Write([]byte("?"))
		must(t, err)
		must(t, f.Close())
		if got, err := fsys.ReadFile(name); err != nil || string(got) != "hello!?" {
			t.Errorf("it holds %q, %v", got, err)
		}
		if got, err := fsys.Size(name); err != nil || got != 7 {
			t.Errorf("its size is %d, %v", got, err)
		}
		f, err = fsys.Create(name)
		must(t, err)
		must(t, f.Close())
		if got, err := fsys.Size(name); err != nil || got != 0 {
			t.Errorf("created again its size is %d, %v", got, err)
		}
		if f.Close() == nil {
			t.Error("it can be closed twice")
		}
	})
}

func TestNamesChange(t *testing.T) {
	onBoth(t, func(t *testing.T, fsys vfs.FS, dir string) {
		for _, name := range []string{"b", "a", "c"} {
			f, err := fsys.Create(filepath.Join(dir, name))
			must(t, err)
			_, err = f.Write([]byte(name))
			must(t, err)
			must(t, f.Close())
		}
		must(t, fsys.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
		must(t, fsys.Remove(filepath.Join(dir, "c")))
		must(t, fsys.Mkdir(filepath.Join(dir, "d")))
		must(t, fsys.SyncDir(dir))
		got, err := fsys.List(dir)
		if err != nil || !slices.Equal(got, []string{"b", "d"}) {
			t.Errorf("the directory holds %q, %v", got, err)
		}
		if got, err := fsys.ReadFile(filepath.Join(dir, "b")); err != nil || string(got) != "a" {
			t.Errorf("b holds %q, %v", got, err)
		}
	})
}

func TestWhatIsNotThereIsAnError(t *testing.T) {
	onBoth(t, func(t *testing.T, fsys vfs.FS, dir string) {
		none, below := filepath.Join(dir, "none"), filepath.Join(dir, "none", "below")
		for call, err := range map[string]error{
			"Append":   second(fsys.Append(none)),
			"Create":   second(fsys.Create(below)),
			"ReadFile": second(fsys.ReadFile(none)),
			"Size":     second(fsys.Size(none)),
			"List":     second(fsys.List(none)),
			"Rename":   fsys.Rename(none, filepath.Join(dir, "other")),
			"Remove":   fsys.Remove(none),
			"SyncDir":  fsys.SyncDir(none),
			"Mkdir":    fsys.Mkdir(below),
			"TryLock":  second(fsys.TryLock(below)),
		} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: got %v, want ErrNotExist", call, err)
			}
		}
		must(t, fsys.Mkdir(none))
		if err := fsys.Mkdir(none); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Mkdir: got %v, want ErrExist", err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestALockIsWaitedFor(t *testing.T) {
	onBoth(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "lock")
		first, err := vfs.Lock(t.Context(), fsys, name, func() { t.Error("the first waits") })
		must(t, err)

		ctx, cancel := context.WithCancel(t.Context())
		if _, err := vfs.Lock(ctx, fsys, name, cancel); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
		said := 0
		second, err := vfs.Lock(t.Context(), fsys, name, func() {
			said++
			must(t, first.Close())
		})
		must(t, err)
		must(t, second.Close())
		if said != 1 {
			t.Errorf("waiting was said %d times, want once", said)
		}
	})
}

func TestMakeDirs(t *testing.T) {
	onBoth(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "a", "b", "c")
		for range 2 {
			must(t, vfs.MakeDirs(fsys, name))
		}
		if _, err := fsys.List(name); err != nil {
			t.Error(err)
		}
	})
}

// A process is killed while it makes directories, the next one makes them, and
// then the power is lost: what the second was told is there must be.
func TestMakeDirsTrustsNoLevelThatAKilledProcessLeft(t *testing.T) {
	clean := crashfs.New()
	must(t, vfs.MakeDirs(clean, "a/b/c"))
	for k := range clean.Steps() {
		fsys := crashfs.New()
		fsys.CrashAt(k)
		if err := vfs.MakeDirs(fsys, "a/b/c"); !errors.Is(err, crashfs.ErrCrashed) {
			t.Fatalf("step %d: %v", k, err)
		}
		fsys = fsys.Kill(false)
		must(t, vfs.MakeDirs(fsys, "a/b/c"))
		if _, err := fsys.PowerLoss().List("a/b/c"); err != nil {
			t.Errorf("killed at step %d: %v", k, err)
		}
	}
}

// forbidden is a file system where one directory may not be opened.
type forbidden struct {
	vfs.FS
	dir string
}

func (f forbidden) SyncDir(dir string) error {
	if dir == f.dir {
		return fs.ErrPermission
	}
	return f.FS.SyncDir(dir)
}

func TestADirectoryMayLieInOneThatCannotBeOpened(t *testing.T) {
	fsys := crashfs.New()
	must(t, vfs.MakeDirs(fsys, "closed/ours"))
	must(t, vfs.MakeDirs(forbidden{FS: fsys, dir: "closed"}, "closed/ours/sub"))
	if err := vfs.MakeDirs(forbidden{FS: fsys, dir: "closed"}, "closed/new"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v: a name that cannot be synced was taken for durable", err)
	}
}
