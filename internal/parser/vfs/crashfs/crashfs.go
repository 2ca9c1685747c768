// Package crashfs is a file system in memory, for tests, that forgets at a
// crash whatever was not made durable.
//
// It is as hostile as POSIX lets a disk be: a new file's name is lost unless its
// directory was synced, bytes are lost unless the file was; what was not synced
// may survive in part, in any order, torn at any byte; a write that fails leaves
// half of itself behind; and bytes whose sync failed are never made durable by a
// later one. It must never be more forgiving than that.
//
// A crash point is before each step, a step being a call that may change
// something. A test runs once to count the steps, then once for every step k
// with CrashAt(k), each time looks at what is left with Kill, PowerLoss or
// PartialLoss, and goes on from there.
package crashfs

import (
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

// ErrCrashed is the error of every call from the crash on.
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

// The other calls. They can be made to fail, and are no crash points: a crash
// before one is the same as a crash before the next step.
const (
	Append   Kind = "append"
	ReadFile Kind = "readfile"
	Size     Kind = "size"
	List     Kind = "list"
	TryLock  Kind = "trylock"
)

// Op is one call: its kind, and the file or directory it is about (for a rename
// the old name).
type Op struct {
	Kind Kind
	Name string
}

// FS is a file system in memory. It starts with the directories / and . and is
// safe for concurrent use.
type FS struct {
	mu      sync.Mutex
	root    *node
	locked  map[*node]bool
	steps   []Op
	crashAt int // the step that does not happen; -1: none
	crashed bool
	torn    *tornWrite
	fault   func(Op) error
}

// tornWrite is the write in the middle of which the crash came.
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

// CrashAt makes step number k, counted from 0 since New or the last crash, not
// happen, and everything after it neither.
func (f *FS) CrashAt(k int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashAt = k
}

// Inject makes a call fail with what fault returns for it, when that is not nil.
func (f *FS) Inject(fault func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// Steps returns the steps done so far.
func (f *FS) Steps() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.steps)
}

// Crashed tells whether the step of CrashAt was reached.
func (f *FS) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed
}

// begin counts a call and decides whether it happens.
func (f *FS) begin(kind Kind, name string) error {
	op := Op{Kind: kind, Name: filepath.Clean(name)}
	step := !slices.Contains([]Kind{Append, ReadFile, Size, List, TryLock}, kind)
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

// lookup returns the node of a name, and nil when there is none.
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

// parent returns the directory that holds a name, and the name in it.
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

// TryLock implements vfs.FS. A crash frees the lock.
func (f *FS) TryLock(name string) (io.Closer, error) {
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
	if f.locked[n] {
		return nil, vfs.ErrLocked
	}
	f.locked[n] = true
	return &lock{fs: f, node: n}, nil
}

type lock struct {
	fs   *FS
	node *node
}

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
	// After a failed sync the bytes are still what a read sees, and no later sync
	// writes them. (A file's length is not forgotten that way: it is in the
	// journal, or the file system stops.)
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
