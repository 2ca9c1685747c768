package vfs_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// onBothFileSystems runs a test on the machine's file system and on crashfs. The crash tests are valid only if the
// two file systems agree.
func onBothFileSystems(t *testing.T, test func(t *testing.T, fsys vfs.FS, dir string)) {
	t.Run("OS", func(t *testing.T) { test(t, vfs.OS, t.TempDir()) })
	t.Run("crashfs", func(t *testing.T) { test(t, crashfs.New(), ".") })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreAppendedToAndTruncated(t *testing.T) {
	onBothFileSystems(t, func(t *testing.T, fsys vfs.FS, dir string) {
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
			t.Errorf("the file holds %q, %v", got, err)
		}
		if got, err := fsys.Size(name); err != nil || got != 7 {
			t.Errorf("the size is %d, %v; want 7", got, err)
		}
		f, err = fsys.Create(name)
		must(t, err)
		must(t, f.Close())
		if got, err := fsys.Size(name); err != nil || got != 0 {
			t.Errorf("after a second Create the size is %d, %v; want 0", got, err)
		}
		if f.Close() == nil {
			t.Error("a second Close succeeds")
		}
	})
}

func TestRenameRemoveAndList(t *testing.T) {
	onBothFileSystems(t, func(t *testing.T, fsys vfs.FS, dir string) {
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

func TestMissingFilesAreErrors(t *testing.T) {
	onBothFileSystems(t, func(t *testing.T, fsys vfs.FS, dir string) {
		none, below := filepath.Join(dir, "none"), filepath.Join(dir, "none", "below")
		for call, err := range map[string]error{
			"Append":     second(fsys.Append(none)),
			"Create":     second(fsys.Create(below)),
			"ReadFile":   second(fsys.ReadFile(none)),
			"Size":       second(fsys.Size(none)),
			"List":       second(fsys.List(none)),
			"Rename":     fsys.Rename(none, filepath.Join(dir, "other")),
			"Remove":     fsys.Remove(none),
			"SyncDir":    fsys.SyncDir(none),
			"Mkdir":      fsys.Mkdir(below),
			"Touch":      fsys.Touch(none),
			"TryLock":    second(fsys.TryLock(below)),
			"TryLockDir": second(fsys.TryLockDir(none)),
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

func TestMakeDirs(t *testing.T) {
	onBothFileSystems(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "a", "b", "c")
		for range 2 {
			must(t, vfs.MakeDirs(fsys, name))
		}
		if _, err := fsys.List(name); err != nil {
			t.Error(err)
		}
	})
}

// A process is killed while it creates directories, the next process creates them, and then the machine loses power.
// The directories that the second MakeDirs reported must exist.
func TestMakeDirsSyncsTheLevelsThatAKilledProcessLeft(t *testing.T) {
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

// forbidden is a file system with one directory that may not be opened.
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

func TestMakeDirsBelowADirectoryThatCannotBeOpened(t *testing.T) {
	fsys := crashfs.New()
	must(t, vfs.MakeDirs(fsys, "closed/ours"))
	must(t, vfs.MakeDirs(forbidden{FS: fsys, dir: "closed"}, "closed/ours/sub"))
	if err := vfs.MakeDirs(forbidden{FS: fsys, dir: "closed"}, "closed/new"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v: want ErrPermission, because the new name cannot be synced", err)
	}
}
