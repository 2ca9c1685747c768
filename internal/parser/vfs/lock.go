package vfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"
)

// ErrLocked is returned by TryLock if another process, or another part of this process, holds the lock.
var ErrLocked = errors.New("locked by another")

// ErrLockLost is matched by the error for a lock that this process held and another one holds now. Nothing may be
// written under a lost lock.
var ErrLockLost = errors.New("the lock is lost")

// lockPoll is the interval at which Lock retries, because flock(2) has no wait that a context can end. It needs no
// jitter: the retry is a local system call, and only a few processes compete for a lock.
const lockPoll = 100 * time.Millisecond

// Held is an exclusive lock on the content of a directory. It consists of a lock on a file and a lock on a directory.
//
// Anyone who may delete entries in the file's directory can remove the file's name, but a process that deletes files
// leaves the directory in place. A process that locks only the file, as earlier parsers did, is excluded by the file's
// lock. If the file is deleted, the directory's lock excludes every process that takes both.
type Held struct {
	fs        FS
	dir, name string

	mu       sync.Mutex
	dirLock  FileLock // nil if the file system cannot lock directories
	fileLock FileLock
	relock   bool // a deleted file or directory is not locked again yet
	relocked int
	lost     error
}

// Lock locks dir, which must exist, and then the named file. It waits while another process holds either lock. It calls
// waiting once before it waits, so that the caller can log it. It returns the context's error, or the first error that
// is not ErrLocked.
func Lock(ctx context.Context, fsys FS, dir, name string, waiting func()) (*Held, error) {
	h := &Held{fs: fsys, dir: dir, name: name}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for notified := false; ; notified = true {
		err := h.acquire()
		if err == nil {
			return h, nil
		}
		if !errors.Is(err, ErrLocked) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", name, err), h.Close())
		}
		if !notified {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for the lock %s: %w", name, ctx.Err()), h.Close())
		case <-tick.C:
		}
	}
}

// acquire takes the locks that are not held yet.
func (h *Held) acquire() (err error) {
	if h.dirLock == nil {
		if h.dirLock, err = h.fs.TryLockDir(h.dir); err != nil {
			return err
		}
	}
	if h.fileLock == nil {
		h.fileLock, err = h.fs.TryLock(h.name)
	}
	return err
}

// Check verifies that the lock is held. It recreates and locks again a file or directory that was deleted or replaced.
// If another process took the lock first, this and every later call return an error that matches ErrLockLost. After any
// other error the state of the lock is unknown, and the caller may retry.
func (h *Held) Check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.check()
}

// CheckWrite is Check for frequent writes, hundreds per second. It does not check the directory while the file is in
// place, because the file's path leads through its directory.
func (h *Held) CheckWrite() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost == nil && !h.relock && h.fileLock != nil {
		if inPlace, err := h.fileLock.InPlace(); err == nil && inPlace {
			return nil
		}
	}
	return h.check()
}

func (h *Held) check() error {
	if h.lost != nil {
		return h.lost
	}
	for _, lock := range []*FileLock{&h.dirLock, &h.fileLock} {
		if *lock == nil {
			continue
		}
		inPlace, err := (*lock).InPlace()
		if err != nil {
			return fmt.Errorf("checking the lock %s: %w", h.name, err)
		}
		if !inPlace {
			deleted := *lock
			*lock, h.relock = nil, true
			if err := deleted.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
				return fmt.Errorf("closing the deleted lock %s: %w", h.name, err)
			}
		}
	}
	if !h.relock {
		return nil
	}
	for _, dir := range []string{h.dir, filepath.Dir(h.name)} {
		if err := MakeDirs(h.fs, dir); err != nil {
			return fmt.Errorf("locking %s again: %w", h.name, err)
		}
	}
	switch err := h.acquire(); {
	case errors.Is(err, ErrLocked):
		h.lost = fmt.Errorf("%w: %s was deleted while it was held, and another process has locked it since: "+
			"stop one of the two, and let nothing delete files there", ErrLockLost, h.name)
		return h.lost
	case err != nil:
		return fmt.Errorf("locking %s again: %w", h.name, err)
	}
	h.relock = false
	h.relocked++
	return nil
}

// Again returns the number of times the lock was taken again after it had been deleted.
func (h *Held) Again() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.relocked
}

// Close releases the lock.
func (h *Held) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost == nil {
		h.lost = fmt.Errorf("%w: %s was released", ErrLockLost, h.name)
	}
	var errs []error
	for _, lock := range []FileLock{h.fileLock, h.dirLock} {
		if lock != nil {
			errs = append(errs, lock.Close())
		}
	}
	h.fileLock, h.dirLock = nil, nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("unlocking %s: %w", h.name, err)
	}
	return nil
}

// Guard returns a file system for writing under the lock. While the lock is not held, each call that would change
// something fails with the error of Check.
func (h *Held) Guard(fsys FS) FS { return guarded{fsys, h} }

type guarded struct {
	FS
	held *Held
}

func (g guarded) Mkdir(name string) error {
	if err := g.held.Check(); err != nil {
		return err
	}
	return g.FS.Mkdir(name)
}

func (g guarded) Create(name string) (File, error) { return g.open(g.FS.Create, name) }

func (g guarded) Append(name string) (File, error) { return g.open(g.FS.Append, name) }

func (g guarded) open(open func(string) (File, error), name string) (File, error) {
	if err := g.held.Check(); err != nil {
		return nil, err
	}
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	return guardedFile{f, g.held}, nil
}

func (g guarded) Rename(from, to string) error {
	if err := g.held.Check(); err != nil {
		return err
	}
	return g.FS.Rename(from, to)
}

func (g guarded) Remove(name string) error {
	if err := g.held.Check(); err != nil {
		return err
	}
	return g.FS.Remove(name)
}

type guardedFile struct {
	File
	held *Held
}

func (g guardedFile) Write(p []byte) (int, error) {
	if err := g.held.CheckWrite(); err != nil {
		return 0, err
	}
	return g.File.Write(p)
}

func (g guardedFile) Sync() error {
	if err := g.held.Check(); err != nil {
		return err
	}
	return g.File.Sync()
}

func (g guardedFile) Truncate(size int64) error {
	if err := g.held.Check(); err != nil {
		return err
	}
	return g.File.Truncate(size)
}
