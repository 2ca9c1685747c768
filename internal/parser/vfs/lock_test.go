package vfs_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// mustLock locks dir/locks and the file dir/lock.
func mustLock(t *testing.T, fsys vfs.FS, dir string) *vfs.Held {
	t.Helper()
	must(t, vfs.MakeDirs(fsys, filepath.Join(dir, "locks")))
	h, err := vfs.Lock(t.Context(), fsys, filepath.Join(dir, "locks"), filepath.Join(dir, "lock"),
		func() { t.Error("Lock waits for a free lock") })
	must(t, err)
	return h
}

// isFree reports whether another process could take a lock.
func isFree(t *testing.T, tryLock func(string) (vfs.FileLock, error), name string) bool {
	t.Helper()
	lock, err := tryLock(name)
	if errors.Is(err, vfs.ErrLocked) {
		return false
	}
	must(t, err)
	must(t, lock.Close())
	return true
}

func TestLockWaitsForTheHolder(t *testing.T) {
	onBothFileSystems(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "lock")
		first := mustLock(t, fsys, dir)
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := vfs.Lock(ctx, fsys, filepath.Join(dir, "locks"), name, cancel); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
		calls := 0
		second, err := vfs.Lock(t.Context(), fsys, filepath.Join(dir, "locks"), name, func() {
			calls++
			must(t, first.Close())
		})
		must(t, err)
		must(t, second.Close())
		if calls != 1 {
			t.Errorf("waiting was called %d times, want once", calls)
		}
	})
}

// Earlier parsers lock only the file, and only the directory outlives a deleted file. Either lock excludes another
// process. A process that waits for one of the two holds nothing after it gives up.
func TestLockCoversTheFileAndTheDirectory(t *testing.T) {
	onBothFileSystems(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name, locks := filepath.Join(dir, "lock"), filepath.Join(dir, "locks")
		h := mustLock(t, fsys, dir)
		if isFree(t, fsys.TryLock, name) || isFree(t, fsys.TryLockDir, locks) {
			t.Error("one of the two locks is free")
		}
		must(t, h.Close())
		for half, tryLock := range map[string]func(string) (vfs.FileLock, error){name: fsys.TryLock, locks: fsys.TryLockDir} {
			other, err := tryLock(half)
			must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			if _, err := vfs.Lock(ctx, fsys, locks, name, cancel); !errors.Is(err, context.Canceled) {
				t.Errorf("%s is locked elsewhere: got %v, want the context's error", half, err)
			}
			must(t, other.Close())
			if !isFree(t, fsys.TryLock, name) || !isFree(t, fsys.TryLockDir, locks) {
				t.Errorf("a canceled wait for %s still holds a lock", half)
			}
		}
	})
}

func TestADeletedLockIsReacquired(t *testing.T) {
	for what, del := range map[string]func(fsys vfs.FS, dir string) error{
		"the file":      func(fsys vfs.FS, dir string) error { return fsys.Remove(filepath.Join(dir, "lock")) },
		"the directory": func(fsys vfs.FS, dir string) error { return fsys.Remove(filepath.Join(dir, "locks")) },
		"both": func(fsys vfs.FS, dir string) error {
			return errors.Join(fsys.Remove(filepath.Join(dir, "lock")), fsys.Remove(filepath.Join(dir, "locks")))
		},
		"the file, replaced by another": func(fsys vfs.FS, dir string) error {
			f, err := fsys.Create(filepath.Join(dir, "other"))
			return errors.Join(err, f.Close(), fsys.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "lock")))
		},
	} {
		t.Run(what, func(t *testing.T) {
			onBothFileSystems(t, func(t *testing.T, fsys vfs.FS, dir string) {
				h := mustLock(t, fsys, dir)
				must(t, h.Check())
				if h.Again() != 0 {
					t.Error("a lock that is in place was taken again")
				}
				must(t, del(fsys, dir))
				for range 2 {
					must(t, h.Check())
				}
				if h.Again() != 1 || isFree(t, fsys.TryLock, filepath.Join(dir, "lock")) ||
					isFree(t, fsys.TryLockDir, filepath.Join(dir, "locks")) {
					t.Errorf("taken again %d times; want once, with both locks held", h.Again())
				}
				must(t, h.Close())
				if !isFree(t, fsys.TryLock, filepath.Join(dir, "lock")) ||
					!isFree(t, fsys.TryLockDir, filepath.Join(dir, "locks")) {
					t.Error("the lock was not released")
				}
			})
		})
	}
}

// The process that took the lock first keeps it. Nothing is written under the lost lock, even after the other process
// releases its own.
func TestALockThatAnotherProcessTookStaysLost(t *testing.T) {
	onBothFileSystems(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "lock")
		h := mustLock(t, fsys, dir)
		guarded := h.Guard(fsys)
		f, err := guarded.Create(filepath.Join(dir, "f"))
		must(t, err)
		must(t, fsys.Remove(name))
		other, err := fsys.TryLock(name) // as an older parser does
		must(t, err)
		for range 2 {
			for call, err := range map[string]error{
				"Check": h.Check(), "Mkdir": guarded.Mkdir(filepath.Join(dir, "d")),
				"Create": second(guarded.Create(filepath.Join(dir, "g"))),
				"Append": second(guarded.Append(filepath.Join(dir, "f"))), "Write": second(f.Write([]byte("x"))),
				"Truncate": f.Truncate(0),
				"Rename":   guarded.Rename(filepath.Join(dir, "f"), filepath.Join(dir, "g")),
				"Remove":   guarded.Remove(filepath.Join(dir, "f")),
			} {
				if !errors.Is(err, vfs.ErrLockLost) {
					t.Errorf("%s: got %v, want ErrLockLost", call, err)
				}
			}
			_ = other.Close() // the lock stays lost
		}
		if err := h.Check(); !strings.Contains(err.Error(), "another process has locked it since") {
			t.Errorf("the error is %q", err)
		}
		if size, err := fsys.Size(filepath.Join(dir, "f")); size != 0 || err != nil {
			t.Errorf("f has %d bytes, %v; want none", size, err)
		}
		must(t, f.Close())
		must(t, h.Close())
	})
}

// An error of the disk does not mean that the lock is lost. The next check tries again.
func TestALockThatCannotBeCheckedIsNotLost(t *testing.T) {
	for _, kind := range []crashfs.Kind{crashfs.InPlace, crashfs.TryLock} {
		fsys := crashfs.New()
		h := mustLock(t, fsys, ".")
		if kind == crashfs.TryLock {
			must(t, fsys.Remove("lock"))
		}
		fsys.Inject(func(op crashfs.Op) error {
			if op.Kind == kind {
				return syscall.EIO
			}
			return nil
		})
		for range 2 {
			if err := h.Check(); !errors.Is(err, syscall.EIO) || errors.Is(err, vfs.ErrLockLost) {
				t.Errorf("%s: got %v, want EIO", kind, err)
			}
		}
		fsys.Inject(nil)
		must(t, h.Check())
		if isFree(t, fsys.TryLock, "lock") {
			t.Errorf("%s: the lock is not held", kind)
		}
	}
}

func mode(t *testing.T, name string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	return info.Mode().Perm()
}

func TestPrivateFilesAreReadableByTheOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	sub, file, lock := filepath.Join(dir, "d"), filepath.Join(dir, "d", "f"), filepath.Join(dir, "d", "lock")
	must(t, vfs.PrivateOS.Mkdir(sub))
	f, err := vfs.PrivateOS.Create(file)
	must(t, err)
	must(t, f.Close())
	held, err := vfs.PrivateOS.TryLock(lock)
	must(t, err)
	must(t, held.Close())
	if mode(t, sub) != 0o700 || mode(t, file) != 0o600 || mode(t, lock) != 0o600 {
		t.Errorf("modes %v %v %v", mode(t, sub), mode(t, file), mode(t, lock))
	}
	for call, open := range map[string]func() error{
		"Create":   func() error { return second(vfs.PrivateOS.Create(file)) },
		"Append":   func() error { return second(vfs.PrivateOS.Append(file)) },
		"ReadFile": func() error { return second(vfs.PrivateOS.ReadFile(file)) },
		"Touch":    func() error { return vfs.PrivateOS.Touch(file) },
		"TryLock":  func() error { return second(vfs.PrivateOS.TryLock(file)) },
	} {
		must(t, os.Chmod(file, 0o644)) // the mode that earlier parsers created
		must(t, open())
		if got := mode(t, file); got != 0o600 {
			t.Errorf("after %s the mode is %v, want 0600", call, got)
		}
	}
	// Consumers read the files that the file sink creates.
	must(t, vfs.OS.Mkdir(filepath.Join(dir, "e")))
	f, err = vfs.OS.Create(filepath.Join(dir, "e", "f"))
	must(t, err)
	must(t, f.Close())
	if got := mode(t, filepath.Join(dir, "e", "f")); got != 0o644 {
		t.Errorf("the mode of an output file is %v, want 0644", got)
	}
}

func TestTouchSetsTheModificationTime(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(name, []byte("text"), 0o600))
	old := mustStat(t, name).ModTime().Add(-time.Hour)
	must(t, os.Chtimes(name, old, old))
	must(t, vfs.PrivateOS.Touch(name))
	if info := mustStat(t, name); !info.ModTime().After(old) || info.Size() != 4 {
		t.Errorf("the file has %d bytes and modification time %v", info.Size(), info.ModTime())
	}
}

func mustStat(t *testing.T, name string) fs.FileInfo {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	return info
}
