package file_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// passing lists the errors of passing faults: the file system is read-only, full, forbidden, broken or unmounted, or
// this process has too many open files.
var passing = []syscall.Errno{
	syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, syscall.EACCES, syscall.EPERM, syscall.EIO, syscall.ESTALE,
	syscall.EMFILE, syscall.ENFILE, syscall.ENOENT,
}

// calls lists the kinds of call that the file sink makes. It makes the last two only with limits and Keep.
var calls = []crashfs.Kind{
	crashfs.Mkdir, crashfs.Create, crashfs.Append, crashfs.Write, crashfs.Truncate, crashfs.Sync, crashfs.SyncDir,
	crashfs.Rename, crashfs.Remove, crashfs.Size, crashfs.List, crashfs.TryLock, crashfs.TryLockDir, crashfs.InPlace,
	crashfs.Space, crashfs.Touch,
}

// outputCalls counts the sink's calls of one kind, and makes some of them fail.
type outputCalls struct {
	kind  crashfs.Kind
	errno syscall.Errno
	from  int // the first call that fails, counted from 0
	last  int // the first call after those
	made  int
}

// in returns the fault function for a world's file system.
func (c *outputCalls) in(w *world) func(crashfs.Op) error {
	return func(op crashfs.Op) error {
		if w.consuming || op.Kind != c.kind || op.Name != "out" && !strings.HasPrefix(op.Name, "out/") {
			return nil
		}
		c.made++
		if n := c.made - 1; n < c.from || n >= c.last {
			return nil
		}
		return c.errno
	}
}

func shortWorld() *world { w := newWorld(); w.total = 24; return w }

// A passing fault begins at any call, also during a start after a crash. It lasts for one call, or until the process
// has given up and restarted. It never fails the stream, and consumers receive each record once.
func TestAPassingFaultOfTheFileSystemIsAnOutageWhereverItBegins(t *testing.T) {
	for title, world := range map[string]func() *world{
		"plain":      func() *world { w := shortWorld(); w.beside = true; return w },
		"compressed": func() *world { w := shortWorld(); w.zstd, w.takes = true, true; return w },
		"limited":    func() *world { w := shortWorld(); w.limited, w.takes = true, true; return w },
	} {
		crashes := []int{0, crashThatLeads(t, world, crashfs.Truncate), crashThatLeads(t, world, crashfs.Remove)}
		for _, kind := range calls {
			if !world().limited && (kind == crashfs.Space || kind == crashfs.Touch) {
				continue
			}
			t.Run(fmt.Sprintf("%s, %s", title, kind), func(t *testing.T) {
				t.Parallel()
				reached := 0
				for _, crash := range crashes {
					reached += eachFault(t, world, kind, crash)
				}
				if reached == 0 {
					t.Error("the sink makes no such call")
				}
			})
		}
	}
}

// crashThatLeads returns the first step such that a start after a crash before it makes the given call, which no other
// start makes: it truncates or removes a part.
func crashThatLeads(t *testing.T, world func() *world, to crashfs.Kind) int {
	t.Helper()
	for crash := 1; ; crash++ {
		calls := &outputCalls{kind: to}
		if err := run(world(), calls, crash); err != nil {
			t.Fatalf("no crash leads to a %s: %v", to, err)
		}
		if calls.made > 0 {
			return crash
		}
	}
}

// eachFault makes one kind of call fail after a crash before the given step, where 0 means no crash. It returns the
// number of such calls in a run without a fault.
func eachFault(t *testing.T, world func() *world, kind crashfs.Kind, crash int) int {
	t.Helper()
	clean := &outputCalls{kind: kind}
	if err := run(world(), clean, crash); err != nil {
		t.Fatal(err)
	}
	const once, long = 1, maxAttempts + 5
	try := func(errno syscall.Errno, from, calls int) {
		c := &outputCalls{kind: kind, errno: errno, from: from, last: from + calls}
		if err := run(world(), c, crash); err != nil {
			t.Fatalf("after a crash before step %d %v from call %d on, for %d calls: %v", crash, errno, from, calls, err)
		}
	}
	if clean.made == 0 {
		return 0
	}
	calls, other := long, once
	for i, errno := range passing {
		if i%sample == 0 {
			try(errno, clean.made*i/len(passing), calls)
		}
		calls, other = other, calls
	}
	// ENOENT could be mistaken for a missing file, so it is tried at every call of a start, and at some calls after it.
	for from := 0; from < clean.made; from += sample {
		switch {
		case from < 8:
			try(syscall.ENOENT, from, once)
			try(syscall.ENOENT, from, long)
		case from%(1+clean.made/16) == 0:
			try(syscall.ENOENT, from, calls)
			calls, other = other, calls
		}
	}
	return clean.made
}

// run delivers everything with consecutive processes, and compares what consumers received.
func run(w *world, c *outputCalls, crash int) error {
	fsys := crashfs.New()
	if crash > 0 {
		fsys.CrashAt(crash)
		if err := w.live(fsys); !errors.Is(err, crashfs.ErrCrashed) {
			return fmt.Errorf("there is no step %d: %w", crash, err)
		}
		fsys = fsys.Kill(true)
	}
	fsys.Inject(c.in(w))
	err := errRestart
	for range 1000 {
		if err = w.live(fsys); !errors.Is(err, errRestart) {
			break
		}
	}
	if err != nil {
		return err
	}
	fsys.Inject(nil)
	// One more start removes a part that an outage left and that could not be removed during it.
	if err := w.live(fsys); err != nil {
		return err
	}
	return w.check(fsys)
}

func TestAFileInThePlaceOfADirectoryFailsTheStart(t *testing.T) {
	for _, path := range []string{"out", "out/fills", "a/out"} {
		t.Run(path, func(t *testing.T) {
			dir := t.TempDir()
			at := filepath.Join(dir, path)
			if path == "a/out" {
				at = filepath.Join(dir, "a")
			}
			if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(dir, strings.TrimSuffix(path, "/fills"))
			o, err := file.New(t.Context(), vfs.OS, out, file.Options{}, func() { t.Error("locked") })
			if err == nil {
				defer func() { _ = o.Close() }()
				_, err = o.Open(t.Context(), "fills", nil)
			}
			if !errors.Is(err, sink.ErrFailed) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("got %v, want ErrFailed with instructions", err)
			}
		})
	}
}
