// Package vfs is the file system interface that the parser writes through: its checkpoints, its dead letter and the
// file sink. crashfs implements it for tests. At a simulated crash between any two steps, crashfs drops everything that
// was not synced.
//
// The interface must never hide a sync. The caller decides what is durable and when: it calls File.Sync for bytes and
// FS.SyncDir for names. The node's files are read through Tree instead.
package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
)

// FS is a file system. Its errors name the file, and errors.Is matches them against fs.ErrNotExist, fs.ErrExist and the
// underlying errno.
type FS interface {
	// Mkdir creates one directory. Its parent must exist.
	Mkdir(name string) error
	// Create opens a file for writing. It creates the file, or truncates an existing one.
	Create(name string) (File, error)
	// Append opens an existing file for writing at its end.
	Append(name string) (File, error)
	// ReadFile returns the content of a file.
	ReadFile(name string) ([]byte, error)
	// Reader opens a file for reading from its start. Use it for files that are too long to hold in memory.
	Reader(name string) (io.ReadCloser, error)
	// Size returns the length of a file in bytes. It also reports, by its error, whether a file or directory exists.
	// The size of a directory has no meaning.
	Size(name string) (int64, error)
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	// Rename atomically renames a file within its directory and replaces any file of the new name.
	Rename(from, to string) error
	// Remove removes a file.
	Remove(name string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Touch sets the modification time of a file to the current time.
	Touch(name string) error
	// Space returns the size in bytes of the file system that holds a directory, and the bytes of it that are still
	// available to this process. total is 0 if the file system does not report its size.
	Space(dir string) (free, total int64, err error)
	// TryLock takes an exclusive lock on the named file and creates the file if it is missing. The lock is held until
	// the result is closed or the process ends. TryLock does not wait: it returns ErrLocked if the lock is held
	// elsewhere.
	TryLock(name string) (FileLock, error)
	// TryLockDir is TryLock for an existing directory. It returns nil, nil if the file system cannot lock directories.
	TryLockDir(dir string) (FileLock, error)
}

// FileLock is a lock that is held.
type FileLock interface {
	io.Closer
	// InPlace reports whether the name still refers to the locked file or directory. After the name is removed or
	// replaced, others can lock it.
	InPlace() (bool, error)
}

// File is a file open for writing at its end. It is used by one goroutine.
type File interface {
	// Write appends p. After an error, part of p may be in the file.
	io.Writer
	// Close does not sync.
	io.Closer
	// Truncate cuts the file to size bytes.
	Truncate(size int64) error
	// Sync makes the file's bytes durable. After an error it is unknown which of the bytes written since the last
	// successful sync are durable. A second Sync that succeeds proves nothing: the kernel reports a lost page only
	// once.
	Sync() error
}

// MakeDirs creates dir and its missing parents, and makes their names durable.
//
// It syncs each level into its parent before it creates the next level. The existence of anything below a level
// therefore proves that the level is durable. The deepest existing level has no such proof: a process may have died
// between creating and syncing it. MakeDirs syncs that level too.
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
		return fmt.Errorf("making directory %s: %w", dir, err)
	}
	if err := fsys.SyncDir(parent); err != nil {
		// This process cannot have created a name in a directory that it may not open.
		if existed && errors.Is(err, fs.ErrPermission) {
			return nil
		}
		return fmt.Errorf("syncing directory %s: %w", parent, err)
	}
	return nil
}
