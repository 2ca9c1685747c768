// Package vfs is the part of a file system that the parser writes through: its
// checkpoints, its dead letter and the file sink. It is an interface so that
// crashfs can stand in and forget, at a crash between any two steps, all that
// was not synced.
//
// It must never hide a sync: what is durable, and when, is decided by the
// caller, who calls File.Sync for bytes and FS.SyncDir for names. Reading the
// node's files does not go through it.
package vfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"
)

// FS is a file system. Errors match fs.ErrNotExist, fs.ErrExist and the errno
// behind them with errors.Is, and name the file.
type FS interface {
	// Mkdir makes one directory, whose parent exists.
	Mkdir(name string) error
	// Create opens a file for writing, new or emptied.
	Create(name string) (File, error)
	// Append opens an existing file for writing at its end.
	Append(name string) (File, error)
	// ReadFile returns a file's bytes.
	ReadFile(name string) ([]byte, error)
	// Size returns a file's length in bytes. It is how to ask whether a file or a
	// directory exists; of a directory the number means nothing.
	Size(name string) (int64, error)
	// List returns the sorted names in a directory.
	List(dir string) ([]string, error)
	// Rename gives a file another name in the same directory, in one step, and
	// replaces what had that name.
	Rename(from, to string) error
	// Remove takes a file's name away.
	Remove(name string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// TryLock takes the exclusive lock that the named file stands for, creating
	// it if need be, until the result is closed or the process ends. It does not
	// wait: ErrLocked when another holds it.
	TryLock(name string) (io.Closer, error)
}

// File is a file open for writing at its end. One goroutine uses it.
type File interface {
	// Write appends p. After an error some of p may be in the file.
	io.Writer
	// Close does not sync.
	io.Closer
	// Truncate cuts the file to size bytes.
	Truncate(size int64) error
	// Sync makes the file's bytes durable. After an error it is unknown which of
	// the bytes written since the last success are, and a second Sync that
	// succeeds does not tell: the kernel reports a lost page once.
	Sync() error
}

// ErrLocked is TryLock's error when another process, or another part of this
// one, holds the lock.
var ErrLocked = errors.New("locked by another")

// lockPoll is how often Lock looks again. flock(2) has no wait that a context
// could end.
const lockPoll = 100 * time.Millisecond

// Lock takes the lock that the named file stands for and waits as long as
// another holds it. waiting is called once if it must wait, so that it can be
// said. It ends with the context's error, or the first that is not ErrLocked.
func Lock(ctx context.Context, fsys FS, name string, waiting func()) (io.Closer, error) {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for said := false; ; said = true {
		lock, err := fsys.TryLock(name)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, ErrLocked) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		if !said {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the lock %s: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}

// MakeDirs makes dir and its missing parents, and makes their names durable.
//
// A level is synced into its parent before the next one is made, so whatever
// exists below a level proves that the level itself is durable. The deepest
// level that exists has no such proof: a process may have died between making
// and syncing it. It is synced too.
func MakeDirs(fsys FS, dir string) error {
	dir = filepath.Clean(dir)
	parent := filepath.Dir(dir)
	_, err := fsys.Size(dir)
	existed := err == nil
	if errors.Is(err, fs.ErrNotExist) {
		if parent != dir {
			if err := MakeDirs(fsys, parent); err != nil {
				return err
			}
		}
		err = fsys.Mkdir(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	if err := fsys.SyncDir(parent); err != nil {
		// We could not have made a name in a directory we may not even open.
		if existed && errors.Is(err, fs.ErrPermission) {
			return nil
		}
		return fmt.Errorf("sync directory %s: %w", parent, err)
	}
	return nil
}
