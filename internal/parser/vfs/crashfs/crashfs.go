// Package crashfs is an in-memory file system for tests. At a crash it drops everything that was not made durable.
//
// It is as hostile as POSIX allows a disk to be:
//
//   - A new file's name is lost unless its directory was synced. Bytes are lost unless the file was synced.
//   - Any part of what was not synced may survive, in any order and torn at any byte.
//   - A write that fails leaves half of its bytes.
//   - Bytes whose sync failed are never made durable by a later sync.
//
// It must never be more forgiving than that.
//
// A step is a call that may change something. There is a crash point before each step. A test runs once to count the
// steps, and then once with CrashAt(k) for every step k. After each crash it checks what Kill, PowerLoss or PartialLoss
// leaves, and continues from there.
package crashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// ErrCrashed is the error of every call after the crash.
var ErrCrashed = errors.New("the machine has crashed")

// Kind is the kind of a call.
type Kind string

// The steps: calls that may change something.
const (
	Mkdir    Kind = "mkdir"
	Create   Kind = "create"
	Write    Kind = "write"
	Truncate Kind = "truncate"
	Sync     Kind = "sync"
	SyncDir  Kind = "syncdir"
	Rename   Kind = "rename"
	Remove   Kind = "remove"
)

// The other calls. They can fail, but they are not crash points: a crash before one of them is equivalent to a crash
// before the next step.
const (
	Append     Kind = "append"
	ReadFile   Kind = "readfile"
	Reader     Kind = "reader"
	Size       Kind = "size"
	List       Kind = "list"
	Touch      Kind = "touch"
	TryLock    Kind = "trylock"
	TryLockDir Kind = "trylockdir"
	InPlace    Kind = "inplace"
	Space      Kind = "space"
)

// Op is one call: its kind, and the file or directory that it applies to. For a rename, that is the old name.
type Op struct {
	Kind Kind
	Name string
}

// FS is an in-memory file system. It starts with the directories / and . and is safe for concurrent use.
type FS struct {
	mu      sync.Mutex
	root    *node
	locked  map[*node]bool
	steps   []Op
	crashAt int // the number of the step that fails; -1 for none
	crashed bool
	torn    *tornWrite
	fault   func(Op) error

	free, total int64
}

// tornWrite is the write that the crash interrupted.
type tornWrite struct {
	file *node
	p    []byte
}

// New returns an empty file system.
func New() *FS {
	return boot(&node{names: map[string]*node{}, durableNames: map[string]*node{}})
}

func boot(root *node) *FS {
	return &FS{root: root, locked: map[*node]bool{}, crashAt: -1}
}

// CrashAt makes step k and everything after it fail with ErrCrashed. Steps are counted from 0, starting at New or at
// the last crash.
func (f *FS) CrashAt(k int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashAt = k
}

// Inject makes each call fail with the error that fault returns for it, unless that is nil.
func (f *FS) Inject(fault func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// Steps returns the steps executed so far.
func (f *FS) Steps() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.steps)
}

// Crashed reports whether the step of CrashAt was reached.
func (f *FS) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed
}

// begin records a call. Its error is the crash or the injected fault; nil lets the call proceed.
func (f *FS) begin(kind Kind, name string) error {
	op := Op{Kind: kind, Name: filepath.Clean(name)}
	step := !slices.Contains([]Kind{Append, ReadFile, Reader, Size, List, Touch, TryLock, TryLockDir, InPlace, Space},
		kind)
	if step && len(f.steps) == f.crashAt {
		f.crashed = true
	}
	if f.crashed {
		return ErrCrashed
	}
	if step {
		f.steps = append(f.steps, op)
	}
	if f.fault == nil {
		return nil
	}
	return f.fault(op)
}

// lookup returns the node of a name, or nil if there is none.
func (f *FS) lookup(name string) *node {
	n := f.root
	for part := range strings.SplitSeq(filepath.Clean(name), "/") {
		switch {
		case part == "" || part == ".":
		case n == nil || n.names == nil:
			return nil
		default:
			n = n.names[part]
		}
	}
	return n
}

// parent returns the directory that holds a name, and the name within it.
func (f *FS) parent(name string) (*node, string, error) {
	dir := f.lookup(filepath.Dir(name))
	if dir == nil || dir.names == nil {
		return nil, "", fs.ErrNotExist
	}
	return dir, filepath.Base(name), nil
}

func wrap(kind Kind, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: string(kind), Path: name, Err: err}
}

// Mkdir implements vfs.FS.
func (f *FS) Mkdir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(Mkdir, name); err != nil {
		return wrap(Mkdir, name, err)
	}
	if f.lookup(name) != nil {
		return wrap(Mkdir, name, fs.ErrExist)
	}
	dir, base, err := f.parent(name)
	if err != nil {
		return wrap(Mkdir, name, err)
	}
	dir.change(change{set: base, node: &node{names: map[string]*node{}, durableNames: map[string]*node{}}})
	return nil
}

// Create implements vfs.FS.
func (f *FS) Create(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(Create, name); err != nil {
		return nil, wrap(Create, name, err)
	}
	dir, base, err := f.parent(name)
	if err != nil {
		return nil, wrap(Create, name, err)
	}
	n := dir.names[base]
	switch {
	case n == nil:
		n = &node{}
		dir.change(change{set: base, node: n})
	case n.names != nil:
		return nil, wrap(Create, name, syscall.EISDIR)
	default:
		n.edit(edit{truncate: true})
	}
	return &file{fs: f, name: name, node: n}, nil
}

// Append implements vfs.FS.
func (f *FS) Append(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.existing(Append, name)
	if err != nil {
		return nil, err
	}
	return &file{fs: f, name: name, node: n}, nil
}

func (f *FS) existing(kind Kind, name string) (*node, error) {
	if err := f.begin(kind, name); err != nil {
		return nil, wrap(kind, name, err)
	}
	n := f.lookup(name)
	if n == nil {
		return nil, wrap(kind, name, fs.ErrNotExist)
	}
	if n.names != nil {
		return nil, wrap(kind, name, syscall.EISDIR)
	}
	return n, nil
}

// ReadFile implements vfs.FS.
func (f *FS) ReadFile(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.existing(ReadFile, name)
	if err != nil {
		return nil, err
	}
	return slices.Clone(n.data), nil
}

// Reader implements vfs.FS. It reads the content that the file has at the time of the call.
func (f *FS) Reader(name string) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.existing(Reader, name)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(slices.Clone(n.data))), nil
}

// Size implements vfs.FS.
func (f *FS) Size(name string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(Size, name); err != nil {
		return 0, wrap(Size, name, err)
	}
	n := f.lookup(name)
	if n == nil {
		return 0, wrap(Size, name, fs.ErrNotExist)
	}
	return int64(len(n.data)), nil
}

// List implements vfs.FS.
func (f *FS) List(dir string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(List, dir); err != nil {
		return nil, wrap(List, dir, err)
	}
	n := f.lookup(dir)
	if n == nil || n.names == nil {
		return nil, wrap(List, dir, fs.ErrNotExist)
	}
	return slices.Sorted(maps.Keys(n.names)), nil
}

// Rename implements vfs.FS. It refuses to move a file to another directory.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if filepath.Dir(from) != filepath.Dir(to) {
		return wrap(Rename, from, fmt.Errorf("to another directory: %s", to))
	}
	if err := f.begin(Rename, from); err != nil {
		return wrap(Rename, from, err)
	}
	n := f.lookup(from)
	if n == nil {
		return wrap(Rename, from, fs.ErrNotExist)
	}
	dir, base, err := f.parent(to)
	if err != nil {
		return wrap(Rename, from, err)
	}
	dir.change(change{unset: filepath.Base(from), set: base, node: n})
	return nil
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(Remove, name); err != nil {
		return wrap(Remove, name, err)
	}
	if f.lookup(name) == nil {
		return wrap(Remove, name, fs.ErrNotExist)
	}
	dir, base, err := f.parent(name)
	if err != nil {
		return wrap(Remove, name, err)
	}
	dir.change(change{unset: base})
	return nil
}

// SyncDir implements vfs.FS.
func (f *FS) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(SyncDir, dir); err != nil {
		return wrap(SyncDir, dir, err)
	}
	n := f.lookup(dir)
	if n == nil || n.names == nil {
		return wrap(SyncDir, dir, fs.ErrNotExist)
	}
	n.durableNames = maps.Clone(n.names)
	n.changes = nil
	return nil
}

// Touch implements vfs.FS. Files have no times here.
func (f *FS) Touch(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(Touch, name); err != nil {
		return wrap(Touch, name, err)
	}
	if f.lookup(name) == nil {
		return wrap(Touch, name, fs.ErrNotExist)
	}
	return nil
}

// Space implements vfs.FS. It returns the values of SetSpace, or zeros, which mean that the size is unknown.
func (f *FS) Space(dir string) (free, total int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(Space, dir); err != nil {
		return 0, 0, wrap(Space, dir, err)
	}
	if n := f.lookup(dir); n == nil {
		return 0, 0, wrap(Space, dir, fs.ErrNotExist)
	}
	return f.free, f.total, nil
}

// SetSpace sets the result of Space until the next crash.
func (f *FS) SetSpace(free, total int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free, f.total = free, total
}

// TryLock implements vfs.FS. A crash releases the lock.
func (f *FS) TryLock(name string) (vfs.FileLock, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(TryLock, name); err != nil {
		return nil, wrap(TryLock, name, err)
	}
	dir, base, err := f.parent(name)
	if err != nil {
		return nil, wrap(TryLock, name, err)
	}
	n := dir.names[base]
	if n == nil {
		n = &node{}
		dir.change(change{set: base, node: n})
	}
	return f.lock(name, n)
}

// TryLockDir implements vfs.FS. A crash releases the lock.
func (f *FS) TryLockDir(dir string) (vfs.FileLock, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(TryLockDir, dir); err != nil {
		return nil, wrap(TryLockDir, dir, err)
	}
	n := f.lookup(dir)
	if n == nil || n.names == nil {
		return nil, wrap(TryLockDir, dir, fs.ErrNotExist)
	}
	return f.lock(dir, n)
}

func (f *FS) lock(name string, n *node) (vfs.FileLock, error) {
	if f.locked[n] {
		return nil, vfs.ErrLocked
	}
	f.locked[n] = true
	return &lock{fs: f, name: name, node: n}, nil
}

type lock struct {
	fs   *FS
	name string
	node *node
}

// InPlace implements vfs.FileLock.
func (l *lock) InPlace() (bool, error) {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if err := l.fs.begin(InPlace, l.name); err != nil {
		return false, wrap(InPlace, l.name, err)
	}
	return l.fs.lookup(l.name) == l.node, nil
}

// Close implements vfs.FileLock.
func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.locked, l.node)
	return nil
}

// file is an open file.
type file struct {
	fs     *FS
	name   string
	node   *node
	closed bool
}

func (f *file) begin(kind Kind) error {
	if f.closed {
		return wrap(kind, f.name, fs.ErrClosed)
	}
	return wrap(kind, f.name, f.fs.begin(kind, f.name))
}

func (f *file) Write(p []byte) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	was := f.fs.crashed
	err := f.begin(Write)
	switch {
	case err == nil:
		f.node.edit(edit{at: int64(len(f.node.data)), p: slices.Clone(p)})
		return len(p), nil
	case f.fs.crashed && !was:
		f.fs.torn = &tornWrite{file: f.node, p: slices.Clone(p)}
		return 0, err
	case f.fs.crashed || f.closed:
		return 0, err
	}
	half := len(p) / 2
	f.node.edit(edit{at: int64(len(f.node.data)), p: slices.Clone(p[:half])})
	return half, err
}

func (f *file) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.begin(Truncate); err != nil {
		return err
	}
	f.node.edit(edit{truncate: true, at: size})
	return nil
}

func (f *file) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	err := f.begin(Sync)
	if err != nil && f.fs.crashed {
		return err
	}
	if err == nil {
		for _, e := range f.node.edits {
			f.node.durable = e.apply(f.node.durable)
		}
	}
	// After a failed sync a read still returns the bytes, but no later sync writes them. Length changes are kept: they
	// are in the journal, or the file system stops.
	f.node.edits = slices.DeleteFunc(f.node.edits, func(e edit) bool { return err == nil || !e.truncate })
	return err
}

func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return wrap("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}
