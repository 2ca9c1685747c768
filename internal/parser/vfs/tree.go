package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Tree is a directory that belongs to another program, such as a Hyperliquid node's data directory. It is read and
// never changed. Names are relative to it and use slashes; "." is the directory itself. Errors name the file, and
// errors.Is matches them against fs.ErrNotExist and the underlying errno.
type Tree interface {
	// Refresh resolves the directory's path again: the directory may have been mounted, unmounted or replaced. The
	// other methods then read what it found. Its error explains why the directory is not readable. The error matches
	// ErrRemoved if the directory was removed while it was open.
	Refresh() error
	// Stat describes a file or directory. It follows links.
	Stat(name string) (fs.FileInfo, error)
	// List returns the entries of a directory, sorted by name.
	List(name string) ([]fs.DirEntry, error)
	// Open opens a regular file. For anything else it returns ErrNotRegular.
	Open(name string) (Source, error)
	// Close closes the directory.
	Close() error
}

// Source is a regular file that is open for reading.
type Source interface {
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

// Errors of Tree.
var (
	ErrRemoved    = errors.New("the directory was removed while it was read")
	ErrNotRegular = errors.New("not a regular file")
	ErrOutside    = errors.New("the link leads outside the data directory and the directories that links may lead to")
)

// maxLinks is the maximum number of links that a name may lead through. The kernel has the same limit.
const maxLinks = 40

// NewTree returns the tree of a directory of the machine. Links in it may lead to places inside the directory and
// inside the directories listed in links. Any other link is refused, so that a process that may write to the directory
// cannot make the parser read other files. The directory need not exist: Refresh opens it. Refresh and Close are called
// by one goroutine. The other methods are safe for concurrent use.
func NewTree(dir string, links []string) Tree {
	return &osTree{dir: dir, links: links}
}

type osTree struct {
	dir   string
	links []string

	mu    sync.RWMutex
	roots []*osRoot // dir, then each directory of links that a link led to; empty before Refresh
}

// osRoot is a directory in which names are resolved.
type osRoot struct {
	*os.Root
	paths []string // absolute paths by which links may refer to it
	info  fs.FileInfo
}

func openRoot(dir string) (*osRoot, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	info, err := root.Stat(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	r := &osRoot{Root: root, info: info, paths: []string{abs}}
	if resolved, err := filepath.EvalSymlinks(abs); err == nil && resolved != abs {
		r.paths = append(r.paths, resolved)
	}
	return r, nil
}

// nameOf returns the name of a path within the directory, and reports whether the path is within it.
func (r *osRoot) nameOf(abs string) (string, bool) {
	for _, name := range r.paths {
		if rel, err := filepath.Rel(name, abs); err == nil && filepath.IsLocal(rel) {
			return filepath.ToSlash(rel), true
		}
	}
	return "", false
}

// Refresh implements Tree.
func (t *osTree) Refresh() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var current *osRoot
	if len(t.roots) > 0 {
		current = t.roots[0]
		if info, err := current.Stat("."); err == nil && links(info) == 0 {
			return fmt.Errorf("%s: %w", t.dir, ErrRemoved)
		}
	}
	info, err := os.Stat(t.dir)
	if err == nil && current != nil && os.SameFile(info, current.info) {
		return t.refreshLinks()
	}
	closed := t.closeRoots()
	if err != nil {
		return errors.Join(err, closed)
	}
	root, err := openRoot(t.dir)
	if err != nil {
		return errors.Join(err, closed)
	}
	t.roots = append(t.roots, root)
	return closed
}

// refreshLinks closes the directories of links that are no longer at their paths. The caller holds t.mu.
func (t *osTree) refreshLinks() error {
	var errs []error
	kept := t.roots[:1]
	for _, r := range t.roots[1:] {
		if info, err := os.Stat(r.paths[0]); err == nil && os.SameFile(info, r.info) {
			kept = append(kept, r)
		} else {
			errs = append(errs, r.Close())
		}
	}
	clear(t.roots[len(kept):])
	t.roots = kept
	return errors.Join(errs...)
}

func links(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink) //nolint:unconvert // its type differs between systems
	}
	return 1
}

func (t *osTree) closeRoots() error {
	errs := make([]error, 0, len(t.roots))
	for _, r := range t.roots {
		errs = append(errs, r.Close())
	}
	t.roots = nil
	return errors.Join(errs...)
}

// Close implements Tree.
func (t *osTree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closeRoots()
}

// withRoot calls fn with the root and the name within it that a name resolves to.
func (t *osTree) withRoot(op, name string, fn func(root *os.Root, name string) error) error {
	t.mu.RLock()
	if len(t.roots) == 0 {
		t.mu.RUnlock()
		return &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
	}
	root := t.roots[0]
	err := fn(root.Root, name)
	t.mu.RUnlock()
	if err == nil || errors.As(err, new(syscall.Errno)) || errors.Is(err, ErrNotRegular) {
		return err
	}
	// os.Root itself refuses only a link that leads out of it. That may be an absolute link that leads back in.
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.roots) == 0 {
		return err
	}
	target, rel, resolveErr := t.resolve(op, name)
	if resolveErr != nil {
		return resolveErr
	}
	return fn(target.Root, rel)
}

// resolve follows the links in a name. The caller holds t.mu.
func (t *osTree) resolve(op, name string) (*osRoot, string, error) {
	root, resolved := t.roots[0], "."
	rest := strings.Split(path.Clean(name), "/")
	for hops := 0; len(rest) > 0; {
		next := path.Join(resolved, rest[0])
		rest = rest[1:]
		info, err := root.Lstat(next)
		if err != nil {
			return nil, "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			resolved = next
			continue
		}
		if hops++; hops > maxLinks {
			return nil, "", &fs.PathError{Op: op, Path: name, Err: syscall.ELOOP}
		}
		target, err := root.Readlink(next)
		if err != nil {
			return nil, "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(root.paths[0], filepath.FromSlash(path.Dir(next)), target)
		}
		var rel string
		if root, rel, err = t.rootFor(filepath.Clean(target)); err != nil {
			return nil, "", &fs.PathError{Op: op, Path: name, Err: err}
		}
		resolved, rest = ".", append(strings.Split(rel, "/"), rest...)
	}
	return root, resolved, nil
}

// rootFor returns the root that holds a link's target, and the target's name within it. The caller holds t.mu.
func (t *osTree) rootFor(target string) (*osRoot, string, error) {
	for _, r := range t.roots {
		if rel, ok := r.nameOf(target); ok {
			return r, rel, nil
		}
	}
	for _, dir := range t.links {
		if open := slices.ContainsFunc(t.roots, func(r *osRoot) bool { return slices.Contains(r.paths, dir) }); open {
			continue
		}
		if _, ok := (&osRoot{paths: []string{dir}}).nameOf(target); !ok {
			continue
		}
		r, err := openRoot(dir)
		if err != nil {
			return nil, "", err
		}
		t.roots = append(t.roots, r)
		rel, _ := r.nameOf(target)
		return r, rel, nil
	}
	return nil, "", fmt.Errorf("to %s: %w", target, ErrOutside)
}

// Stat implements Tree.
func (t *osTree) Stat(name string) (info fs.FileInfo, err error) {
	err = t.withRoot("stat", name, func(root *os.Root, name string) error {
		info, err = root.Stat(name)
		return err
	})
	return info, err
}

// List implements Tree.
func (t *osTree) List(name string) (entries []fs.DirEntry, err error) {
	err = t.withRoot("list", name, func(root *os.Root, name string) error {
		dir, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		entries, err = dir.ReadDir(-1)
		if err != nil {
			entries = nil
		}
		return errors.Join(err, dir.Close())
	})
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// Open implements Tree. It does not block on a named pipe without a writer. It checks the file that it opened, not only
// the name.
func (t *osTree) Open(name string) (src Source, err error) {
	err = t.withRoot("open", name, func(root *os.Root, name string) error {
		info, err := root.Stat(name)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() { // opening a device may have side effects
			return notRegular(name, info)
		}
		f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
			err = notRegular(name, info)
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
		src = f
		return nil
	})
	if err != nil {
		return nil, err
	}
	return src, nil
}

// NotRegular returns an error if info does not describe a regular file, and nil if it does.
func NotRegular(name string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return notRegular(name, info)
}

func notRegular(name string, info fs.FileInfo) error {
	kind := "of an unknown type"
	switch mode := info.Mode(); {
	case mode.IsDir():
		kind = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a named pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	case mode&fs.ModeDevice != 0:
		kind = "a device"
	}
	return &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("%w: it is %s", ErrNotRegular, kind)}
}
