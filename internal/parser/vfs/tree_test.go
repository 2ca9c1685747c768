package vfs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// noErrors fails the test if any of errs is not nil.
func noErrors(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	noErrors(t, os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644))
}

// read returns the content of a file of the tree.
func read(tree vfs.Tree, name string) (string, error) {
	src, err := tree.Open(name)
	if err != nil {
		return "", err
	}
	info, err := src.Stat()
	if err != nil {
		return "", errors.Join(err, src.Close())
	}
	b := make([]byte, info.Size())
	_, err = src.ReadAt(b, 0)
	return string(b), errors.Join(err, src.Close())
}

func TestATreeReadsNothingOutsideItself(t *testing.T) {
	base := t.TempDir()
	data, allowed, secret := filepath.Join(
		base,
		"data",
	), filepath.Join(
		base,
		"tmpfs",
	), filepath.Join(base, "secret", "key")
	write(t, filepath.Join(data, "a", "file"), "inside")
	write(t, filepath.Join(allowed, "b", "file"), "allowed")
	write(t, filepath.Join(base, "tmpfs2", "file"), "not allowed; its name has an allowed prefix")
	write(t, secret, "secret")
	link := func(name, to string) {
		t.Helper()
		noErrors(t, os.MkdirAll(filepath.Dir(filepath.Join(data, name)), 0o755), os.Symlink(to, filepath.Join(data, name)))
	}
	link("relative", "a/file")
	link("sub/up", "../a/file")
	link("absolute", filepath.Join(data, "a", "file"))
	link("folder", filepath.Join(data, "a"))
	link("chain", "sub/up")
	link("chain2", filepath.Join(data, "absolute"))
	link("ok", filepath.Join(allowed, "b", "file"))
	link("okFolder", filepath.Join(allowed, "b"))
	noErrors(t, os.Symlink(filepath.Join(data, "a"), filepath.Join(allowed, "back")))
	link("thereAndBack", filepath.Join(allowed, "back"))
	link("escape", secret)
	link("relativeEscape", "../secret/key")
	link("folderEscape", filepath.Dir(secret))
	link("beside", filepath.Join(base, "tmpfs2", "file"))
	link("dotdot", filepath.Join(data, "..", "secret", "key"))
	link("allowedUp", filepath.Join(allowed, "..", "secret", "key"))
	noErrors(t, os.Symlink(secret, filepath.Join(allowed, "out")))
	link("outOfAllowed", filepath.Join(allowed, "out"))
	link("loop", "loop")
	link("loopA", "loopB")
	link("loopB", filepath.Join(data, "loopA"))
	link("dangling", "nowhere")
	link("danglingAbsolute", filepath.Join(data, "nowhere"))
	noErrors(t, syscall.Mkfifo(filepath.Join(data, "pipe"), 0o644))
	link("null", "/dev/null")

	tree := vfs.NewTree(data, []string{allowed})
	defer func() { noErrors(t, tree.Close()) }()
	noErrors(t, tree.Refresh())
	for name, text := range map[string]string{
		"a/file": "inside", "relative": "inside", "sub/up": "inside", "absolute": "inside", "folder/file": "inside",
		"chain":  "inside",
		"chain2": "inside", "ok": "allowed", "okFolder/file": "allowed", "thereAndBack/file": "inside",
	} {
		if got, err := read(tree, name); got != text || err != nil {
			t.Errorf("%s: read %q, %v; want %q", name, got, err, text)
		}
		if info, err := tree.Stat(name); err != nil || info.Size() != int64(len(text)) {
			t.Errorf("%s: Stat returned %v, %v", name, info, err)
		}
	}
	for name, wants := range map[string]error{
		"escape": vfs.ErrOutside, "relativeEscape": vfs.ErrOutside, "folderEscape/key": vfs.ErrOutside,
		"beside": vfs.ErrOutside,
		"dotdot": vfs.ErrOutside, "allowedUp": vfs.ErrOutside, "outOfAllowed": vfs.ErrOutside, "null": vfs.ErrOutside,
		"loop": syscall.ELOOP, "loopA": syscall.ELOOP, "dangling": fs.ErrNotExist, "danglingAbsolute": fs.ErrNotExist,
		"pipe": vfs.ErrNotRegular, "a": vfs.ErrNotRegular, "folder": vfs.ErrNotRegular, "missing": fs.ErrNotExist,
		"a/file/x": syscall.ENOTDIR,
	} {
		done := make(chan error, 1)
		go func() {
			_, err := read(tree, name)
			done <- err
		}()
		select {
		case err := <-done:
			if !errors.Is(err, wants) {
				t.Errorf("%s: %v; want %v", name, err, wants)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("Open(%q) does not return", name)
		}
	}
	if entries, err := tree.List("okFolder"); err != nil || len(entries) != 1 {
		t.Errorf("listing an allowed directory: %v, %v", entries, err)
	}
	if _, err := tree.List("folderEscape"); !errors.Is(err, vfs.ErrOutside) {
		t.Errorf("listing a directory outside: %v", err)
	}
	if _, err := tree.List("a/file"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("listing a file: %v", err)
	}
}

func TestRefreshFollowsThePath(t *testing.T) {
	base := t.TempDir()
	data, allowed := filepath.Join(base, "data"), filepath.Join(base, "tmpfs")
	tree := vfs.NewTree(data, []string{allowed})
	defer func() { noErrors(t, tree.Close()) }()
	reads := func(name, text string) {
		t.Helper()
		noErrors(t, tree.Refresh())
		if got, err := read(tree, name); got != text || err != nil {
			t.Fatalf("read %q, %v; want %q", got, err, text)
		}
	}
	if err := tree.Refresh(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Refresh of a missing directory: %v", err)
	}
	if _, err := tree.Stat("file"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Stat in a missing directory: %v", err)
	}
	write(t, filepath.Join(data, "file"), "one")
	reads("file", "one")

	// Another directory takes the path, then none, then the first one again.
	noErrors(t, os.Rename(data, data+".1"))
	write(t, filepath.Join(data, "file"), "two")
	reads("file", "two")
	noErrors(t, os.Rename(data, data+".2"))
	if err := tree.Refresh(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Refresh of a directory that was moved away: %v", err)
	}
	noErrors(t, os.Rename(data+".1", data))
	reads("file", "one")

	// The same holds for a directory that links lead to.
	write(t, filepath.Join(allowed, "file"), "three")
	noErrors(t, os.Symlink(filepath.Join(allowed, "file"), filepath.Join(data, "link")))
	reads("link", "three")
	noErrors(t, os.Rename(allowed, allowed+".1"))
	noErrors(t, tree.Refresh())
	if _, err := tree.Stat("link"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a link into a directory that was moved away: %v", err)
	}
	write(t, filepath.Join(allowed, "file"), "four")
	reads("link", "four")

	noErrors(t, os.RemoveAll(data), os.Mkdir(data, 0o755))
	if err := tree.Refresh(); !errors.Is(err, vfs.ErrRemoved) {
		t.Fatalf("Refresh of a removed directory: %v; want ErrRemoved", err)
	}
}
