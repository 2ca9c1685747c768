package tail

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const (
	// The retry interval starts at firstRetry and doubles up to lastRetry while something cannot be read.
	firstRetry = pollInterval
	lastRetry  = 4 * time.Second
	// logLimited logs at most logBurst lines in each logInterval. It counts the rest.
	logBurst    = 20
	logInterval = time.Minute
)

// failure is a file or folder that should be read and cannot be.
type failure struct {
	err   error
	since time.Time
	wait  time.Duration
	due   time.Time
	// mayHide reports whether the path may hide known files, so that no file in its directory can be known to be gone.
	mayHide bool
	// maybeRemoved reports whether the name was listed but not found: it may just have been removed.
	maybeRemoved bool
	logged       bool
	denied       *Denied
}

// recordFailure records that a path could not be checked. Each error is logged once, and the path is retried with
// backoff.
func (t *Tailer) recordFailure(rel string, err error) {
	now := t.now()
	denied := t.deniedBy(rel, err)
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := t.failures[rel]
	if tr == nil {
		tr = &failure{since: now, maybeRemoved: errors.Is(err, fs.ErrNotExist) && rel != t.missingPath}
		t.failures[rel] = tr
	} else {
		t.countFailure(rel, tr, -1)
		tr.maybeRemoved = false
		if errnoOf(tr.err) != errnoOf(err) {
			tr.logged = false
		}
	}
	tr.err, tr.denied = err, denied
	tr.mayHide = !errors.As(err, new(errForeign)) && !errors.Is(err, fs.ErrNotExist) && !isNotNodeFile(err)
	tr.wait = min(max(2*tr.wait, firstRetry), lastRetry)
	// Jitter: paths that failed together are not retried together.
	tr.due = now.Add(time.Duration((0.5 + rand.Float64()/2) * float64(tr.wait)))
	t.countFailure(rel, tr, 1)
	if !tr.logged && !tr.maybeRemoved {
		tr.logged = true
		t.logLimited(slog.LevelError, "a file or folder cannot be read; trying again", "path", rel, "error", err)
	}
}

// deniedBy returns what refuses the parser: the innermost of a path and the folders above it that can be read. It is
// nil for any other error.
func (t *Tailer) deniedBy(rel string, err error) *Denied {
	for at := rel; errors.Is(err, fs.ErrPermission); at = path.Dir(at) {
		info, failed := t.tree.Stat(at)
		if failed == nil {
			return ownerOf(at, info)
		}
		if err = failed; at == "." {
			break
		}
	}
	// The data directory cannot be opened. Its owner can still be read from outside.
	for at := path.Clean(t.opt.DataDir); errors.Is(err, fs.ErrPermission) && path.IsAbs(at); at = path.Dir(at) {
		info, failed := os.Stat(at)
		switch {
		case failed == nil && at == path.Clean(t.opt.DataDir):
			return ownerOf(".", info)
		case failed == nil:
			return ownerOf(at, info)
		}
		if err = failed; at == "/" {
			break
		}
	}
	return nil
}

// ownerOf returns the owner and the mode of a file; nil when the system does not say.
func ownerOf(at string, info fs.FileInfo) *Denied {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return &Denied{Path: at, Owner: int64(stat.Uid), Mode: info.Mode().Perm()}
}

// clearFailure records that a path could be checked.
func (t *Tailer) clearFailure(rel string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := t.failures[rel]
	if tr == nil {
		return
	}
	t.countFailure(rel, tr, -1)
	delete(t.failures, rel)
	if tr.logged {
		t.logLimited(slog.LevelInfo, "the path can be read again", "path", rel, "after",
			t.now().Sub(tr.since).Round(time.Millisecond))
	}
}

// backingOff reports whether a path was unreadable and its next retry is not due.
func (t *Tailer) backingOff(rel string) bool {
	if len(t.failures) == 0 {
		return false
	}
	tr := t.failures[rel]
	if tr == nil {
		return false
	}
	left := tr.due.Sub(t.now())
	return left > 0 && left <= lastRetry
}

// dropFailures drops the failures of names that a folder no longer contains, and of paths below them.
func (t *Tailer) dropFailures(folder string, contains func(name string) bool) {
	if len(t.failures) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for rel, tr := range t.failures {
		if below, ok := strings.CutPrefix(rel, folder+"/"); ok {
			if name, _, _ := strings.Cut(below, "/"); !contains(name) {
				t.countFailure(rel, tr, -1)
				delete(t.failures, rel)
			}
		}
	}
}

// countFailure adds by, 1 or -1, to the failure counters of the path's directories. The counters avoid a scan: there
// may be a failure for each file of a node that runs as another user. The caller holds Tailer.mu.
func (t *Tailer) countFailure(rel string, tr *failure, by int) {
	for _, d := range t.dirs {
		switch {
		case rel != "." && !strings.HasPrefix(rel, d.Name+"/"):
		case tr.mayHide:
			d.failures += by
		case tr.maybeRemoved:
			d.doubtful += by
		}
	}
}

// isNotNodeFile reports whether an error proves that the path is not a file of the node.
func isNotNodeFile(err error) bool {
	return errors.Is(err, vfs.ErrNotRegular) || errors.Is(err, vfs.ErrOutside) || errors.Is(err, syscall.ELOOP)
}

// checkMissing detects that everything the stream knows is unreachable. A missing folder causes no error that would
// report it.
func (t *Tailer) checkMissing() {
	missing := ""
	for _, d := range t.dirs {
		if d.present || t.failures[d.root] != nil && d.root != t.missingPath {
			missing = "" // something exists, or the failure is known
			break
		}
		if missing == "" && (len(d.missing) > 0 || len(d.files) > 0) {
			missing = "."
			if t.visible {
				missing = d.Name
				if info, err := t.tree.Stat(d.Name); err == nil && info.IsDir() {
					missing = d.root
				}
			}
		}
	}
	if t.missingPath != "" && t.missingPath != missing {
		t.clearFailure(t.missingPath)
	}
	t.missingPath = missing
	if missing != "" && !t.backingOff(missing) &&
		(missing != "." || t.failures["."] == nil || errors.Is(t.failures["."].err, fs.ErrNotExist)) {
		t.recordFailure(missing, &fs.PathError{Op: "stat", Path: path.Join(t.opt.DataDir, missing), Err: syscall.ENOENT})
	}
}

// blocked summarizes the failures for reports. The caller holds Tailer.mu.
func (t *Tailer) blocked() *Blocked {
	var worst string
	n := 0
	for rel, tr := range t.failures {
		if tr.maybeRemoved {
			continue
		}
		n++
		current := t.failures[worst]
		if current == nil || cmp.Or(-cmp.Compare(severity(tr), severity(current)),
			strings.Count(rel, "/")-strings.Count(worst, "/"), cmp.Compare(rel, worst)) < 0 {
			worst = rel
		}
	}
	if n == 0 {
		return nil
	}
	f := t.failures[worst]
	return &Blocked{Path: worst, Err: f.err, Since: f.since, Count: n, Denied: f.denied}
}

func severity(tr *failure) int {
	if tr.mayHide {
		return 1
	}
	return 0
}

// errnoOf returns the text that distinguishes the errors of one path.
func errnoOf(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return err.Error()
}

// logLimited logs a message that may occur thousands of times. It logs the first ones of each interval and counts the
// others.
func (t *Tailer) logLimited(level slog.Level, text string, args ...any) {
	now := t.now()
	if passed := now.Sub(t.logWindowStart); passed >= logInterval || passed < 0 {
		if t.suppressed > 0 {
			t.log.Log(context.Background(), slog.LevelWarn, "similar messages were not logged", "lines", t.suppressed)
		}
		t.logWindowStart, t.logged, t.suppressed = now, 0, 0
	}
	if t.logged++; t.logged > logBurst {
		t.suppressed++
		return
	}
	t.log.Log(context.Background(), level, text, args...)
}

// failurePaths returns the paths of all failures, sorted.
func (t *Tailer) failurePaths() []string {
	var paths []string
	for rel, tr := range t.failures {
		if !tr.maybeRemoved {
			paths = append(paths, rel)
		}
	}
	slices.Sort(paths)
	return paths
}
