package vfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Between opening and locking a file, another process may delete it, and a third one may lock a new file of that name.
func TestTryLockRefusesAFileDeletedWhileItIsLocked(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	for _, next := range []bool{false, true} {
		f, err := os.Create(name)
		if err == nil {
			err = os.Remove(name)
		}
		if err == nil && next {
			err = os.WriteFile(name, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tryLock(f); !errors.Is(err, ErrLocked) {
			t.Errorf("got %v, want ErrLocked: the caller retries", err)
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the file is still open: %v", err)
		}
	}
}
