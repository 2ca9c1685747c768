package tail

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// guarded is a tree in which some paths, and everything below them, cannot be accessed at all.
type guarded struct {
	vfs.Tree
	files fstest.MapFS
	hides map[string]error
}

func (g guarded) Stat(name string) (fs.FileInfo, error) {
	for at := name; ; at = path.Dir(at) {
		if err := g.hides[at]; err != nil {
			return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
		}
		if at == "." {
			return g.files.Stat(name)
		}
	}
}

func TestWhatDeniesPermissionIsTheInnermostThatCanBeSeen(t *testing.T) {
	const file = "node_fills/hourly/20260430/9"
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o750); err != nil {
		t.Fatal(err)
	}
	owned := func(mode fs.FileMode, uid uint32) *fstest.MapFile {
		return &fstest.MapFile{Mode: mode, Sys: &syscall.Stat_t{Uid: uid}}
	}
	files := fstest.MapFS{
		".": owned(fs.ModeDir|0o755, 1000), "node_fills": owned(fs.ModeDir|0o700, 1000),
		"node_fills/hourly": owned(fs.ModeDir|0o755, 1000), "node_fills/hourly/20260430": owned(fs.ModeDir|0o755, 1000),
		file: owned(0o600, 1001),
	}
	denied := &fs.PathError{Op: "open", Path: file, Err: syscall.EACCES}
	for name, test := range map[string]struct {
		path  string
		err   error
		hides map[string]error
		want  *Denied
	}{
		"a file":           {file, denied, nil, &Denied{file, 1001, 0o600}},
		"by another errno": {file, &fs.PathError{Err: syscall.EPERM}, nil, &Denied{file, 1001, 0o600}},
		"a folder":         {"node_fills", denied, nil, &Denied{"node_fills", 1000, 0o700}},
		"a folder above it": {file, denied, map[string]error{"node_fills/hourly": syscall.EACCES},
			&Denied{"node_fills", 1000, 0o700}},
		"the data directory":  {file, denied, map[string]error{".": syscall.EACCES}, &Denied{".", int64(os.Getuid()), 0o750}},
		"no permission":       {file, &fs.PathError{Err: syscall.EIO}, nil, nil},
		"an error of no kind": {file, errors.New("no"), nil, nil},
		"it vanishes":         {file, denied, map[string]error{file: syscall.ENOENT}, nil},
		"the disk fails then": {file, denied, map[string]error{file: syscall.EACCES, "node_fills": syscall.EIO}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tailer := New(Options{DataDir: data, Tree: guarded{files: files, hides: test.hides},
				Log: slog.New(slog.DiscardHandler)}, nil)
			got := tailer.deniedBy(test.path, test.err)
			if (got == nil) != (test.want == nil) || got != nil && *got != *test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestAPermissionErrorNamesTheOwner(t *testing.T) {
	const file = "node_fills"
	tree := guarded{files: fstest.MapFS{file: {Mode: fs.ModeDir | 0o700, Sys: &syscall.Stat_t{Uid: 1000}}}}
	tailer := New(Options{DataDir: "data", Tree: tree, Log: slog.New(slog.DiscardHandler)}, nil)
	tailer.recordFailure(file, &fs.PathError{Op: "open", Path: file, Err: syscall.EACCES})
	tailer.mu.Lock()
	got := tailer.blocked()
	tailer.mu.Unlock()
	if got == nil || got.Denied == nil || *got.Denied != (Denied{file, 1000, 0o700}) {
		t.Errorf("got %+v", got)
	}
}
