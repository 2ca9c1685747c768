package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// OS is the machine's file system. The files and directories that it creates are readable by everyone.
var OS FS = osFS{file: 0o644, dir: 0o755}

// PrivateOS is the machine's file system for content that only its owner may read. When it opens or touches a file, it
// removes the permissions of group and others. A file that belongs to another user keeps its mode.
var PrivateOS FS = osFS{file: 0o600, dir: 0o700}

type osFS struct{ file, dir fs.FileMode }

func (o osFS) Mkdir(name string) error { return os.Mkdir(name, o.dir) }

func (o osFS) Create(name string) (File, error) {
	return osFile(o.open(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND))
}

func (o osFS) Append(name string) (File, error) {
	return osFile(o.open(name, os.O_WRONLY|os.O_APPEND))
}

// open opens a file and, for a private file system, removes the permissions of group and others.
func (o osFS) open(name string, flag int) (*os.File, error) {
	f, err := os.OpenFile(name, flag, o.file)
	if err != nil || o.file&0o077 != 0 {
		return f, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() && info.Mode()&0o077 != 0 {
		if err = f.Chmod(o.file); errors.Is(err, fs.ErrPermission) {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// osFile prevents a nil *os.File from becoming a non-nil File.
func osFile(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (o osFS) ReadFile(name string) ([]byte, error) {
	f, err := o.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return data, nil
}

func (o osFS) Reader(name string) (io.ReadCloser, error) {
	f, err := o.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osFS) Size(name string) (int64, error) {
	info, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

func (osFS) Remove(name string) error { return os.Remove(name) }

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	// Some file systems cannot sync a directory and report so. Their names are as durable as they can be.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

func (o osFS) Touch(name string) error {
	now := time.Now()
	if err := os.Chtimes(name, now, now); err != nil || o.file&0o077 != 0 {
		return err
	}
	f, err := o.open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	return f.Close()
}

func (osFS) Space(dir string) (free, total int64, err error) {
	var st syscall.Statfs_t
	for {
		err = syscall.Statfs(dir, &st)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	switch {
	case errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.ENOTSUP):
		return 0, 0, nil
	case err != nil:
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	block := int64(st.Bsize) //nolint:unconvert // its type differs between systems
	return int64(st.Bavail) * block, int64(st.Blocks) * block, nil
}

func (o osFS) TryLock(name string) (FileLock, error) {
	f, err := o.open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	return tryLock(f)
}

func (o osFS) TryLockDir(dir string) (FileLock, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	lock, err := tryLock(f)
	// NFS implements flock as a byte-range lock, which requires a file that is open for writing.
	for _, unsupported := range []error{syscall.EBADF, syscall.EINVAL, syscall.ENOLCK, syscall.ENOTSUP, syscall.ENOSYS} {
		if errors.Is(err, unsupported) {
			return nil, nil
		}
	}
	return lock, err
}

// tryLock locks the open file f. It closes f if it fails.
func tryLock(f *os.File) (FileLock, error) {
	err := syscall.EINTR
	for err == syscall.EINTR {
		err, _ = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB).(syscall.Errno)
	}
	switch err {
	case 0:
	case syscall.EWOULDBLOCK:
		return nil, errors.Join(ErrLocked, f.Close())
	default:
		return nil, errors.Join(&fs.PathError{Op: "flock", Path: f.Name(), Err: err}, f.Close())
	}
	info, statErr := f.Stat()
	if statErr != nil {
		return nil, errors.Join(statErr, f.Close())
	}
	lock := &osLock{File: f, info: info}
	// The file may have been removed, and another one created, between opening and locking it.
	if inPlace, err := lock.InPlace(); err != nil || !inPlace {
		if err == nil {
			err = ErrLocked
		}
		return nil, errors.Join(err, f.Close())
	}
	return lock, nil
}

type osLock struct {
	*os.File
	info fs.FileInfo // the inode is not reused while the file is open
}

func (l *osLock) InPlace() (bool, error) {
	named, err := os.Stat(l.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(l.info, named), nil
}
