package tail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// faults is a tree with failing names, as on a faulty disk or mount.
type faults struct {
	vfs.Tree
	*fault
}

// fault decides what fails. The trees of a disk share it.
type fault struct {
	fail func(op, name string) error // nil if nothing fails
}

func (t *fault) check(op, name string) error {
	if t.fail == nil {
		return nil
	}
	if err := t.fail(op, name); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (t *faults) Refresh() error {
	if err := t.check("refresh", "."); err != nil {
		return err
	}
	return t.Tree.Refresh()
}

func (t *faults) Stat(name string) (fs.FileInfo, error) {
	if err := t.check("stat", name); err != nil {
		return nil, err
	}
	return t.Tree.Stat(name)
}

func (t *faults) List(name string) ([]fs.DirEntry, error) {
	if err := t.check("list", name); err != nil {
		return nil, err
	}
	return t.Tree.List(name)
}

func (t *faults) Open(name string) (vfs.Source, error) {
	if err := t.check("open", name); err != nil {
		return nil, err
	}
	src, err := t.Tree.Open(name)
	if err != nil {
		return nil, err
	}
	return &faultySource{src, t.fault, name}, nil
}

type faultySource struct {
	vfs.Source
	tree *fault
	name string
}

func (s *faultySource) ReadAt(p []byte, at int64) (int, error) {
	if err := s.tree.check("read", s.name); err != nil {
		return 0, err
	}
	return s.Source.ReadAt(p, at)
}

func (s *faultySource) Stat() (fs.FileInfo, error) {
	if err := s.tree.check("fstat", s.name); err != nil {
		return nil, err
	}
	return s.Source.Stat()
}

// injectFaults makes a reader's tree fail as f decides.
func injectFaults(o *Options, f *fault) {
	o.Tree = &faults{vfs.NewTree(o.DataDir, o.Links), f}
}

// below reports whether a name is the target, or is in it.
func below(name, target string) bool {
	return target == "." || name == target || strings.HasPrefix(name, target+"/")
}

// outage is one way in which something is unreachable for a while.
type outage struct {
	target string // relative to the data directory; "mount" means that the data directory is empty
	errno  syscall.Errno
	op     string // the failing call: "open", "stat", "list" or "read"; empty means all of them
	once   bool   // only a single call fails
	rename bool   // the target is renamed away instead of failing
}

func (o outage) String() string {
	how := "renamed away"
	if !o.rename {
		how = map[syscall.Errno]string{
			syscall.ENOENT: "ENOENT", syscall.EACCES: "EACCES", syscall.EIO: "EIO", syscall.ESTALE: "ESTALE",
			syscall.EMFILE:  "EMFILE",
			syscall.ENOTDIR: "ENOTDIR",
		}[o.errno]
	}
	return strings.TrimSuffix(strings.ReplaceAll(o.target, "/", "_")+" "+how+" "+o.op, " ")
}

// hide starts the outage, and returns a function that ends it.
func (o outage) hide(d disk, tree *fault) (end func()) {
	switch {
	case o.rename && o.target == "mount":
		mount := func(volume string) {
			d.noError(errors.Join(os.MkdirAll(d.data+"."+volume, 0o755),
				os.Symlink(d.data+"."+volume, d.data+".new"), os.Rename(d.data+".new", d.data)))
		}
		mount("empty")
		return func() { mount("volume") }
	case o.rename:
		from, away := filepath.Join(d.data, o.target), d.data+".away"
		d.noError(os.Rename(from, away))
		return func() { d.noError(os.Rename(away, from)) }
	}
	failed := 0
	tree.fail = func(op, name string) error {
		opened := op == "read" || op == "fstat" // through a handle that was opened before
		if !below(name, o.target) || o.op != "" && op != o.op ||
			opened && o.op == "" && o.errno != syscall.EIO && o.errno != syscall.ESTALE ||
			o.once && failed > 0 {
			return nil
		}
		failed++
		return o.errno
	}
	return func() { tree.fail = nil }
}

// volumeAt returns a disk whose volume can be taken away from its data directory, which is then empty.
func volumeAt(t failer, data string) disk {
	d := diskAt(t, data)
	d.noError(errors.Join(os.MkdirAll(data+".volume", 0o755), os.Symlink(data+".volume", data)))
	return d
}

func allOutages() (all []outage) {
	targets := []string{
		"node_fills/hourly/20260430/8", "node_fills/hourly/20260430/7", "node_fills/hourly/20260430",
		"node_fills/hourly/20260429",
		"node_fills/hourly", "node_fills", ".",
	}
	for _, target := range targets {
		for _, errno := range []syscall.Errno{
			syscall.ENOENT, syscall.EACCES, syscall.EIO, syscall.ESTALE, syscall.EMFILE, syscall.ENOTDIR,
		} {
			all = append(all, outage{target: target, errno: errno})
		}
		for _, op := range []string{"open", "stat", "list", "read"} {
			all = append(all, outage{target: target, errno: syscall.EIO, op: op})
		}
		all = append(all, outage{target: target, rename: true})
	}
	return append(all, outage{target: "mount", rename: true})
}

// What is unreachable for a while, at a start, while running or across a restart, is neither forgotten nor read again.
func TestAnOutageNeitherLosesNorRepeatsLines(t *testing.T) {
	for _, when := range []string{"at the start", "while running", "across a restart", "since before a restart"} {
		for _, o := range allOutages() {
			for _, long := range []time.Duration{0, time.Second, 3 * time.Minute} {
				o.once = long == 0
				if o.rename && o.once || o.op != "" && long > time.Second {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%v", when, o, long), func(t *testing.T) {
					d := volumeAt(t, filepath.Join(t.TempDir(), "data"))
					var wants []string
					line := func(name, text string) {
						d.append(name, text+"\n")
						wants = append(wants, text)
					}
					line("node_fills/20260429/23", "a1")
					line("node_fills/20260430/7", "b1")
					line("node_fills/20260430/8", "c1")
					line("node_fills/20260430/8", "c2")
					opt, tree := newSetup(d), &fault{}
					injectFaults(&opt.Options, tree)
					r := open(t, opt, nil)
					wantLines(t, r.step(6*time.Second), wants...)
					got := slices.Clone(r.got)
					restart := func() {
						got = append(got, r.got[len(got):]...)
						saved := r.checkpoint()
						r.tail.Close()
						injectFaults(&opt.Options, tree)
						r = open(t, opt, saved)
						r.got = slices.Clone(got)
					}
					pass := func(d time.Duration) {
						for ; d > 0; d -= 200 * time.Millisecond {
							r.step(200 * time.Millisecond)
						}
					}
					line("node_fills/20260430/8", "c3") // not read, but reported as pending
					var end func()
					switch when {
					case "at the start":
						saved := r.checkpoint()
						r.tail.Close()
						injectFaults(&opt.Options, tree)
						end = o.hide(d, tree)
						r = open(t, opt, saved)
						r.got = slices.Clone(got)
					case "while running":
						end = o.hide(d, tree)
					case "across a restart":
						end = o.hide(d, tree)
						pass(long + 400*time.Millisecond)
						restart()
					default:
						r.refresh(200 * time.Millisecond)
						end = o.hide(d, tree)
						restart()
					}
					pass(long + 400*time.Millisecond)
					if b := r.tail.Stats().Blocked; !o.once && !o.rename && o.op == "" && b == nil {
						t.Errorf("nothing is reported as blocked; the log: %s", r.log)
					} else if b != nil && !o.rename && !errors.Is(b.Err, o.errno) {
						t.Errorf("blocked on %v; want %v", b.Err, o.errno)
					}
					end()
					pass(8 * time.Second)
					line("node_fills/20260430/8", "c4")
					line("node_fills/20260430/9", "d1")
					pass(8 * time.Second)
					line("node_fills/20260429/23", "a2")
					line("node_fills/20260430/7", "b2")
					pass(65 * time.Second)
					restart()
					line("node_fills/20260430/9", "d2")
					pass(6 * time.Second)

					sorted := slices.Sorted(slices.Values(r.got))
					slices.Sort(wants)
					wantLines(t, sorted, wants...)
					s := r.tail.Stats()
					if s.RepeatedBytes != 0 || s.Blocked != nil || s.UncommittedBytes != 3 {
						t.Errorf("%d bytes repeated, %d uncommitted, blocked on %+v; want 0, 3 and nothing", s.RepeatedBytes,
							s.UncommittedBytes, s.Blocked)
					}
				})
			}
		}
	}
}

// What is unreadable at the first start must not decide where the stream starts.
func TestTheFirstStartWaitsForUnreadablePaths(t *testing.T) {
	for _, startAt := range []config.StartAt{config.Beginning, config.End} {
		for _, o := range allOutages() {
			if o.errno == syscall.ENOENT || o.rename {
				continue // the path does not exist yet
			}
			for _, once := range []bool{true, false} {
				o.once = once
				t.Run(fmt.Sprintf("%s/%s/%v", startAt, o, once), func(t *testing.T) {
					d := newDisk(t)
					d.append("node_fills/20260429/23", "a1\n")
					d.append("node_fills/20260430/7", "b1\n")
					d.append("node_fills/20260430/8", "c1\nto")
					opt := newSetup(d, func(o *Options) { o.StartAt = startAt })
					tree := &fault{}
					injectFaults(&opt.Options, tree)
					end := o.hide(d, tree)
					r := open(t, opt, nil)
					for range 10 {
						r.step(200 * time.Millisecond)
					}
					if s := r.tail.Stats(); !once && o.op == "" && (s.Blocked == nil || !errors.Is(s.Blocked.Err, o.errno)) {
						t.Errorf("blocked on %+v; want %v", s.Blocked, o.errno)
					}
					if startAt == config.End {
						select {
						case <-r.tail.Decided():
							if !once && o.op == "" {
								t.Error("the start was decided although a path was unreadable")
							}
						default:
							if r.tail.Stats().Scanned {
								t.Error("Scanned is set although a path was unreadable")
							}
						}
					}
					end()
					for range 40 {
						r.step(200 * time.Millisecond)
					}
					select {
					case <-r.tail.Decided():
					default:
						t.Fatal("the start was not decided")
					}
					d.append("node_fills/20260430/8", "rn\nc2\n")
					d.append("node_fills/20260430/7", "b2\n")
					for range 40 {
						r.step(200 * time.Millisecond)
					}
					wants := []string{"b2", "c2", "torn"}
					if startAt == config.Beginning {
						wants = append([]string{"a1", "b1", "c1"}, wants...)
					}
					slices.Sort(r.got)
					slices.Sort(wants)
					wantLines(t, r.got, wants...)
					wantLines(t, open(t, newSetup(d), r.checkpoint()).step(6*time.Second))
				})
			}
		}
	}
}

// A file that is known to be gone is remembered for long, and then forgotten. An unreachable file is never forgotten.
func TestAFileIsForgottenOnlyWhenItIsKnownToBeGone(t *testing.T) {
	for name, c := range map[string]struct {
		hide   func(d disk) (back func())
		forget bool
	}{
		"the file is removed": {func(d disk) func() { d.remove("node_fills/20260430/7"); return func() {} }, true},
		"its day is removed": {func(d disk) func() {
			d.noError(os.RemoveAll(filepath.Dir(d.path("node_fills/20260429/7"))))
			return func() {}
		}, true},
		"the data directory is missing": {func(d disk) func() {
			d.noError(os.Rename(d.data, d.data+".away"))
			return func() { d.noError(os.Rename(d.data+".away", d.data)) }
		}, false},
		"hourly is missing": {func(d disk) func() {
			from := filepath.Join(d.data, "node_fills", "hourly")
			d.noError(os.Rename(from, from+".away"))
			return func() { d.noError(os.Rename(from+".away", from)) }
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := diskAt(t, filepath.Join(t.TempDir(), "data"))
			day := "node_fills/20260430"
			if name == "its day is removed" {
				day = "node_fills/20260429"
			}
			d.append(day+"/7", "a\n")
			d.append("node_fills/20260430/8", "b\n")
			opt := newSetup(d)
			r := open(t, opt, nil)
			r.tail.forgetAfter = time.Hour
			wantLines(t, r.step(6*time.Second), "a", "b")
			back := c.hide(d)
			for range 10 * 60 / 9 {
				r.step(9 * time.Second)
			}
			if n := len(r.tail.Files()); n != 2 {
				t.Fatalf("after 10 minutes the checkpoint has %d files; want 2", n)
			}
			// Absence that was counted before a restart counts after it, in steps of a quarter of an hour.
			for range 20 * 60 / 9 {
				r.step(9 * time.Second)
			}
			r = open(t, opt, r.checkpoint())
			r.tail.forgetAfter = time.Hour
			*r.clock = r.clock.Add(1000 * time.Hour) // a clock jump proves nothing
			r.step(9 * time.Second)
			if n := len(r.tail.Files()); n != 2 {
				t.Fatalf("after half an hour the checkpoint has %d files; want 2", n)
			}
			for range 50 * 60 / 9 {
				r.step(9 * time.Second)
			}
			if n := len(r.tail.Files()); n != 2 && !c.forget || n != 1 && c.forget {
				t.Fatalf("after more than an hour the checkpoint has %d files; want it forgotten: %v", n, c.forget)
			}
			back()
			d.append("node_fills/20260430/8", "c\n")
			got := append(r.step(9*time.Second), r.step(9*time.Second)...)
			wantLines(t, got, "c")
		})
	}
}

// A file that may be in an unreadable folder is not known to be gone.
func TestAFileThatMayBeInAnUnreadableFolderIsNotForgotten(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260401/7", "other\n")
	d.append("node_fills/20260430/7", "a\n")
	d.append("node_fills/20260430/8", "b\n")
	opt, tree := newSetup(d), &fault{}
	injectFaults(&opt.Options, tree)
	r := open(t, opt, nil)
	r.tail.forgetAfter = time.Minute
	wantLines(t, r.step(6*time.Second), "other", "a", "b")
	tree.fail = func(op, name string) error {
		if strings.Contains(name, "20260401") {
			return syscall.EACCES
		}
		return nil
	}
	d.noError(os.Rename(d.path("node_fills/20260430/7"), d.path("node_fills/20260401/6")))
	for range 300 {
		wantLines(t, r.step(9*time.Second))
	}
	if n := len(r.tail.Files()); n != 3 {
		t.Errorf("the checkpoint has %d files; want 3", n)
	}
	tree.fail = nil
	for range 20 {
		wantLines(t, r.step(9*time.Second))
	}
	d.append("node_fills/20260401/6", "more\n")
	got := make([]string, 0, 1)
	for range 20 {
		got = append(got, r.step(9*time.Second)...)
	}
	wantLines(t, got, "more")
}

// The time for which a file is known to be gone adds up over all refreshes. Most refreshes are no sweeps.
func TestAbsenceAddsUpOverOrdinaryRefreshes(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\n")
	d.append("node_fills/20260430/8", "b\n")
	r := open(t, newSetup(d), nil)
	r.tail.forgetAfter = time.Minute
	wantLines(t, r.step(6*time.Second), "a", "b")
	d.remove("node_fills/20260430/7")
	pass := func(d time.Duration) int {
		for ; d > 0; d -= 200 * time.Millisecond {
			r.step(200 * time.Millisecond)
		}
		return len(r.checkpoint().Files)
	}
	r.checkpoint()
	if n := pass(50 * time.Second); n != 2 {
		t.Errorf("after 50 s the checkpoint has %d files; want 2", n)
	}
	if n := pass(20 * time.Second); n != 1 {
		t.Errorf("after 70 s the checkpoint has %d files; want 1", n)
	}
}

func TestFilesThatAreKnownToBeGoneAreBounded(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a")
	saved := r.checkpoint()
	day := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range maxAbsent + 100 {
		f := saved.Files[0]
		f.Date, f.Hour, f.Inode = day.AddDate(0, 0, i/24).Format("20060102"), i%24, 1<<40+uint64(i)
		saved.Files = append(saved.Files, f)
	}
	opt, tree := newSetup(d), &fault{}
	injectFaults(&opt.Options, tree)
	tree.fail = func(string, string) error { return syscall.EIO }
	r = open(t, opt, saved)
	for range 5 {
		r.step(6 * time.Second)
	}
	if n := len(r.tail.Files()); n != len(saved.Files) {
		t.Errorf("while nothing is readable the checkpoint has %d files; want all %d", n, len(saved.Files))
	}
	tree.fail = nil
	for range 5 {
		r.step(6 * time.Second)
	}
	if n := len(r.tail.Files()); n != 1+maxAbsent {
		t.Errorf("the checkpoint has %d files; want the existing one and %d", n, maxAbsent)
	}
}

func TestAMissingDirectoryIsReportedOnceAndBlockedUntilItReturns(t *testing.T) {
	for target, path := range map[string]string{
		".": ".", "node_fills": "node_fills", "node_fills/hourly": "node_fills/hourly",
	} {
		t.Run(path, func(t *testing.T) {
			d := diskAt(t, filepath.Join(t.TempDir(), "data"))
			d.append("node_fills/20260430/8", "a\n")
			r := open(t, newSetup(d), nil)
			wantLines(t, r.step(6*time.Second), "a")
			end := outage{target: target, rename: true}.hide(d, &fault{})
			since := *r.clock
			for i := range 100 {
				r.step(200 * time.Millisecond)
				if b := r.tail.Stats().Blocked; i > 0 && (b == nil || b.Path != path || b.Since.Sub(since) > time.Second) {
					t.Fatalf("at refresh %d it is blocked on %+v; want %s since %v", i, b, path, since)
				}
			}
			end()
			for range 3 {
				r.step(200 * time.Millisecond)
			}
			if b := r.tail.Stats().Blocked; b != nil {
				t.Errorf("after the return it is blocked on %+v", b)
			}
			if n := strings.Count(r.log.String(), "cannot be read"); n != 1 {
				t.Errorf("reported %d times; want once: %s", n, r.log)
			}
			if n := strings.Count(r.log.String(), "can be read again"); n != 1 {
				t.Errorf("the return was reported %d times; want once: %s", n, r.log)
			}
		})
	}
}

// A file that appeared while its folder could not be listed has been pending since then.
func TestTheAgeOfAFileThatAppearedWhileListingFailedIsEstimated(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	opt, tree := newSetup(d), &fault{}
	injectFaults(&opt.Options, tree)
	r := open(t, opt, nil)
	wantLines(t, r.step(6*time.Second), "a")
	tree.fail = func(op, _ string) error {
		if op == "list" {
			return syscall.EIO
		}
		return nil
	}
	r.step(6 * time.Second)
	d.append("node_fills/20260501/0", "b\n")
	came := *d.clock
	for range 10 {
		r.refresh(6 * time.Second)
	}
	tree.fail = nil
	r.refresh(6 * time.Second)
	if s := r.tail.Stats(); s.OldestUnacked.After(came) || !s.LagEstimated {
		t.Errorf("the line is pending since %v, estimated %v; it arrived at %v", s.OldestUnacked, s.LagEstimated, came)
	}
}

// Unread data of a file that is gone is counted once, also across restarts. If the file returns after all, it is read.
func TestLostDataIsCountedOnceAndReadWhenTheFileReturns(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\n")
	d.append("node_fills/20260430/8", "b\n")
	opt := newSetup(d)
	r := open(t, opt, nil)
	wantLines(t, r.step(6*time.Second), "a", "b")
	d.append("node_fills/20260430/7", "unread\n")
	r.refresh(6 * time.Second)
	d.noError(os.Rename(d.path("node_fills/20260430/7"), d.path("7.away")))
	r.tail.dirs[0].files[0].closeHandle()
	wantLines(t, r.step(time.Second))
	saved := r.checkpoint()
	if s := r.tail.Stats(); s.PrunedUnread != 0 || s.UncommittedBytes != 7 {
		t.Errorf("%d files pruned, %d bytes pending; want none yet, and 7", s.PrunedUnread, s.UncommittedBytes)
	}
	counted := func(r *reader) {
		t.Helper()
		r.step(time.Second)
		r.step(lostAfter)
		r.step(time.Second)
		if s := r.tail.Stats(); s.PrunedUnread != 1 || s.SkippedBytes != 7 || s.UncommittedBytes != 0 {
			t.Errorf("%d files, %d bytes lost, %d pending; want 1, 7 and none", s.PrunedUnread, s.SkippedBytes,
				s.UncommittedBytes)
		}
	}
	counted(r)
	counted(open(t, opt, saved)) // as after a crash before the commit
	r = open(t, opt, r.checkpoint())
	wantLines(t, r.step(6*time.Second))
	if s := r.tail.Stats(); s.PrunedUnread != 0 {
		t.Error("the loss is counted again after a restart")
	}
	d.noError(os.Rename(d.path("7.away"), d.path("node_fills/20260430/7")))
	wantLines(t, r.step(6*time.Second), "unread")
}

// The torn end of a dead node's file is not a line and never counts, whether it was read or not, before or after a
// restart.
func TestATornEndIsNeverCountedAsLost(t *testing.T) {
	for _, read := range []bool{true, false} {
		for _, restart := range []bool{true, false} {
			t.Run(fmt.Sprintf("read %v, restart %v", read, restart), func(t *testing.T) {
				d := newDisk(t)
				d.append("node_fills/20260430/7", "a\n")
				d.append("node_fills/20260430/8", "b\n")
				opt := newSetup(d)
				r := open(t, opt, nil)
				wantLines(t, r.step(6*time.Second), "a", "b")
				d.append("node_fills/20260430/7", "unread\ntorn")
				lost := int64(7)
				if read {
					wantLines(t, r.step(6*time.Second), "unread")
					lost = 0
				} else {
					r.refresh(6 * time.Second)
					r.refresh(6 * time.Second)
				}
				if s := r.tail.Stats(); s.UncommittedBytes != 4+7 {
					t.Errorf("%d bytes pending; want 11, without the torn end", s.UncommittedBytes)
				}
				saved := r.checkpoint()
				if restart {
					r = open(t, opt, saved)
				}
				d.remove("node_fills/20260430/7")
				r.refresh(time.Second)
				r.refresh(lostAfter)
				r.refresh(lostAfter)
				if s := r.tail.Stats(); s.SkippedBytes != lost || s.UncommittedBytes != 0 {
					t.Errorf("%d bytes lost, %d pending; want %d and none", s.SkippedBytes, s.UncommittedBytes, lost)
				}
			})
		}
	}
}

// Lines after an unreadable file are not read before it.
func TestNothingIsReadPastAnUnreadableFile(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\n")
	opt, tree := newSetup(d), &fault{}
	injectFaults(&opt.Options, tree)
	r := open(t, opt, nil)
	wantLines(t, r.step(6*time.Second), "a")
	tree.fail = func(op, name string) error {
		if strings.HasSuffix(name, "/8") && op != "list" {
			return syscall.EIO
		}
		return nil
	}
	d.append("node_fills/20260430/8", "b\n")
	d.append("node_fills/20260430/9", "c\n")
	d.append("node_fills/20260501/0", "d\n")
	for range 20 {
		wantLines(t, r.step(time.Second))
	}
	d.append("node_fills/20260430/7", "late\n")
	wantLines(t, r.step(6*time.Second), "late")
	tree.fail = nil
	wantLines(t, append(r.step(6*time.Second), r.step(6*time.Second)...), "b", "c", "d")
}

// The age of pending lines survives restarts. An arrival that no process observed is estimated from the file's own
// times.
func TestTheLagSurvivesRestarts(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\n")
	opt := newSetup(d)
	r := open(t, opt, nil)
	wantLines(t, r.step(6*time.Second), "a")
	d.append("node_fills/20260430/7", "waits\n")
	r.refresh(time.Second)
	pendingSince := *d.clock
	for range 5 {
		*d.clock = d.clock.Add(time.Minute)
		r.refresh(0)
		r = open(t, opt, r.checkpoint())
		if s := r.tail.Stats(); !s.OldestUnacked.Equal(pendingSince) || s.LagEstimated || s.UncommittedBytes != 6 {
			t.Fatalf("a line is pending since %v, estimated %v, %d bytes; want %v, false, 6", s.OldestUnacked, s.LagEstimated,
				s.UncommittedBytes, pendingSince)
		}
	}
	wantLines(t, r.step(time.Second), "waits")

	// What arrived while no process ran arrived after the last commit, and before the last write to the file.
	saved := r.checkpoint()
	stopped := *d.clock
	*d.clock = d.clock.Add(10 * time.Minute)
	d.append("node_fills/20260430/7", strings.Repeat("b\n", 1000))
	*d.clock = d.clock.Add(time.Minute)
	r = open(t, opt, saved)
	s := r.tail.Stats()
	if s.OldestUnacked.Before(stopped) || s.OldestUnacked.After(stopped.Add(10*time.Minute)) || !s.LagEstimated {
		t.Errorf("the oldest line is from %v, estimated %v; it arrived between %v and ten minutes later", s.OldestUnacked,
			s.LagEstimated, stopped)
	}
}

// A first start, and one whose process was killed before it saved a checkpoint, date lines by their file. They are not
// young because nobody has read them before.
func TestWithoutACheckpointLinesAreAsOldAsTheirFile(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\n")
	written := *d.clock
	for range 3 {
		*d.clock = d.clock.Add(10 * time.Minute)
		s := open(t, newSetup(d), nil).tail.Stats()
		if s.OldestUnacked.IsZero() || s.OldestUnacked.After(written) || !s.LagEstimated {
			t.Errorf("a line of %v is pending since %v, estimated %v", written, s.OldestUnacked, s.LagEstimated)
		}
	}
}

// The growth of a file changes the checkpoint, so that the next process knows what was reported as pending.
func TestPendingDataPrunedWhileStoppedIsCounted(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a")
	r.checkpoint()
	version := r.tail.Version()
	d.append("node_fills/20260430/7", "waits\n")
	r.refresh(time.Second)
	if r.tail.Version() == version {
		t.Fatal("the growth did not change the version")
	}
	saved := r.checkpoint()
	d.remove("node_fills/20260430/7")
	d.append("node_fills/20260430/8", "b\n")
	r = open(t, newSetup(d), saved)
	wantLines(t, append(r.step(time.Second), r.step(lostAfter)...), "b")
	if s := r.tail.Stats(); s.PrunedUnread != 1 || s.SkippedBytes != 6 {
		t.Errorf("%d files, %d bytes; want 1 and 6", s.PrunedUnread, s.SkippedBytes)
	}
}

// A path that is not a file of the node is logged and reported, and nothing waits for it.
func TestPathsThatAreNotFilesAreReported(t *testing.T) {
	for name, c := range map[string]struct {
		make     func(d disk, path string) error
		contains string
	}{
		"a named pipe": {func(_ disk, path string) error { return syscall.Mkfifo(path, 0o644) }, "it is a named pipe"},
		"a directory":  {func(_ disk, path string) error { return os.Mkdir(path, 0o755) }, "it is a directory"},
		"a loop of links": {
			func(_ disk, path string) error { return os.Symlink(filepath.Base(path), path) },
			"too many levels of symbolic links",
		},
		"a dangling link": {
			func(_ disk, path string) error { return os.Symlink("nowhere", path) }, "no such file or directory",
		},
		"a link outside": {func(_ disk, path string) error { return os.Symlink("/etc/hostname", path) }, ErrOutsideText},
		"a relative escape": {
			func(_ disk, path string) error { return os.Symlink("../../../../../../../../etc/hostname", path) }, ErrOutsideText,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			d.append("node_fills/20260430/7", "a\n")
			d.noError(c.make(d, d.path("node_fills/20260430/8")))
			r := open(t, newSetup(d), nil)
			wantLines(t, r.step(6*time.Second), "a")
			d.append("node_fills/20260430/9", "c\n")
			wantLines(t, append(r.step(6*time.Second), r.step(6*time.Second)...), "c")
			b := r.tail.Stats().Blocked
			if b == nil || b.Path != "node_fills/hourly/20260430/8" || !strings.Contains(b.Err.Error(), c.contains) {
				t.Errorf("blocked on %+v; want the path, and %q", b, c.contains)
			}
			if n := strings.Count(r.log.String(), c.contains); n != 1 {
				t.Errorf("logged %d times; want once: %s", n, r.log)
			}
			once := open(t, newSetup(d, func(o *Options) { o.Once, o.Now = true, nil }), nil)
			err := once.tail.Run(t.Context())
			if !errors.Is(err, ErrUnread) || !strings.Contains(err.Error(), "20260430/8: ") ||
				!strings.Contains(err.Error(), c.contains) {
				t.Errorf("a run with Once ended with %v", err)
			}
			once.take(true)
			wantLines(t, once.got, "a", "c")
			d.noError(os.Remove(d.path("node_fills/20260430/8")))
			r.step(6 * time.Second)
			if b := r.tail.Stats().Blocked; b != nil {
				t.Errorf("a removed path is reported as blocked: %+v", b)
			}
		})
	}
}

// ErrOutsideText is the text of the error for links that lead out of the data directory.
var ErrOutsideText = vfs.ErrOutside.Error()

func TestOnceReportsWhatItDidNotRead(t *testing.T) {
	for name, c := range map[string]struct {
		make     func(d disk)
		contains []string // substrings of the lines; empty if the run succeeds
		auto     bool
	}{
		"no data directory": {
			func(d disk) { d.noError(os.RemoveAll(d.data)) }, []string{"the data directory"}, false,
		},
		"no directory of the stream": {
			func(d disk) { d.noError(os.MkdirAll(d.data, 0o755)) }, []string{"has no node_fills/hourly"}, false,
		},
		"none of several": {
			func(d disk) { d.noError(os.MkdirAll(d.data, 0o755)) },
			[]string{"node_fills/hourly or node_fills_streaming/hourly or node_fills_by_block/hourly"}, true,
		},
		"no hourly": {
			func(d disk) { d.noError(os.MkdirAll(filepath.Join(d.data, "node_fills"), 0o755)) },
			[]string{"has no node_fills/hourly"}, false,
		},
		"no file": {
			func(d disk) { d.noError(os.MkdirAll(filepath.Join(d.data, "node_fills/hourly/20260430"), 0o755)) }, nil, false,
		},
		"one of several": {func(d disk) { d.append("node_fills_by_block/20260430/7", "a\n") }, nil, true},
		"a file as data directory": {
			func(d disk) { d.noError(errors.Join(os.RemoveAll(d.data), os.WriteFile(d.data, nil, 0o644))) },
			[]string{".: not a directory"}, false,
		},
		"a file in place of hourly": {func(d disk) {
			d.noError(errors.Join(os.MkdirAll(filepath.Join(d.data, "node_fills"), 0o755),
				os.WriteFile(filepath.Join(d.data, "node_fills/hourly"), nil, 0o644)))
		}, []string{"node_fills/hourly: not a directory"}, false},
		"a file in place of a stream": {
			func(d disk) { d.noError(os.WriteFile(filepath.Join(d.data, "node_fills"), nil, 0o644)) },
			[]string{"node_fills/hourly: not a directory"}, false,
		},
		"a file in place of a day": {func(d disk) {
			d.append("node_fills/20260430/7", "a\n")
			d.noError(os.WriteFile(filepath.Join(d.data, "node_fills/hourly/20260501"), nil, 0o644))
		}, []string{"20260501: not a directory"}, false},
		"compressed hours": {func(d disk) {
			for _, name := range []string{"1.gz", "2.zst", "3.lz4", "4.txt", "x.gz"} {
				d.append("node_fills/20260430/"+name, "a\n")
			}
		}, []string{"20260430/1.gz: a compressed", "20260430/2.zst: a compressed", "20260430/3.lz4: a compressed"}, false},
		"padded hours": {
			func(d disk) { d.append("node_fills/20260430/08", "a\n") }, []string{"20260430/08: a padded hour"}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := diskAt(t, filepath.Join(t.TempDir(), "data"))
			d.noError(os.Mkdir(d.data, 0o755))
			c.make(d)
			opt := newSetup(d, func(o *Options) { o.Once, o.Now = true, nil })
			if c.auto {
				auto(&opt.Options)
			}
			r := open(t, opt, nil)
			err := r.tail.Run(t.Context())
			if len(c.contains) == 0 {
				if err != nil {
					t.Fatalf("the run ended with %v", err)
				}
				return
			}
			if !errors.Is(err, ErrUnread) {
				t.Fatalf("the run ended with %v; want ErrUnread", err)
			}
			lines := strings.Split(err.Error(), "\n")[1:]
			if len(lines) != len(c.contains) {
				t.Fatalf("%d lines: %q; want %d", len(lines), lines, len(c.contains))
			}
			for i, text := range c.contains {
				if !strings.Contains(lines[i], text) {
					t.Errorf("line %d is %q; want %q in it", i, lines[i], text)
				}
			}
		})
	}
}

// If the node's newest output has names that are not read, the report must show it. A finished hour that was compressed
// does not matter.
func TestANewestHourThatIsNotReadIsBlocked(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\n")
	d.append("node_fills/20260430/5.gz", "packed\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a")
	if b := r.tail.Stats().Blocked; b != nil {
		t.Errorf("blocked on %+v; want nothing", b)
	}
	d.append("node_fills/20260430/08", "b\n")
	r.step(6 * time.Second)
	if b := r.tail.Stats().Blocked; b == nil || b.Path != "node_fills/hourly/20260430/08" {
		t.Errorf("blocked on %+v; want the padded hour", b)
	}
	for range 3 {
		r.step(6 * time.Second)
	}
	if n := strings.Count(r.log.String(), "20260430/08"); n != 1 {
		t.Errorf("it was reported %d times; want once: %s", n, r.log)
	}
	d.append("node_fills/20260430/9", "c\n")
	wantLines(t, r.step(6*time.Second), "c")
	r.step(6 * time.Second)
	if b := r.tail.Stats().Blocked; b != nil {
		t.Errorf("blocked on %+v; want nothing", b)
	}
}

// Links may lead anywhere inside the data directory, with absolute and relative targets, and into the allowed
// directories.
func TestLinksWorkInsideTheDataDirectoryAndInAllowedOnes(t *testing.T) {
	d := newDisk(t)
	beside := diskAt(t, t.TempDir())
	d.append("node_fills/20260430/7", "a\n")
	d.append("store/20260430/8", "b\n")
	d.append("store/20260430/9", "c\n")
	beside.append("tmpfs/20260430/10", "d\n")
	d.noError(os.Symlink(d.path("store/20260430/8"), d.path("node_fills/20260430/8")))
	d.noError(os.Symlink("../../../store/hourly/20260430/9", d.path("node_fills/20260430/9")))
	d.noError(os.Symlink(beside.path("tmpfs/20260430/10"), d.path("node_fills/20260430/10")))
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a", "b", "c")
	if b := r.tail.Stats().Blocked; b == nil || !errors.Is(b.Err, vfs.ErrOutside) {
		t.Errorf("blocked on %+v; want the link that leads outside", b)
	}
	wantLines(t,
		open(t, newSetup(d, func(o *Options) { o.Links = []string{beside.data} }), r.checkpoint()).step(6*time.Second), "d")
}

// Whatever becomes unreachable and returns, in any order, each line is emitted once.
func TestModelOfADiskThatIsOutOfSight(t *testing.T) {
	base := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		d := volumeAt(rt, filepath.Join(base, fmt.Sprint(runs), "data"))
		opt := newSetup(d)
		written := map[string]bool{}
		next, moved := 0, false
		write := func(hour int) {
			name := fmt.Sprintf("node_fills/202604%02d/%d", 1+hour/24, hour%24)
			if moved {
				return // a node would write where nothing reads, or recreate what returns
			}
			text := fmt.Sprint(hour, " ", next)
			next++
			d.append(name, text+"\n")
			written[text] = true
		}
		for h := range 50 {
			if h%12 == 0 {
				write(h)
			}
		}
		hour := 36
		tree := &fault{}
		injectFaults(&opt.Options, tree)
		r := open(rt, opt, nil)
		delivered := map[string]int{}
		collect := func() {
			for _, line := range r.got {
				delivered[line]++
			}
			r.got, r.positions = nil, nil
		}
		ends := map[string]func(){}
		all := allOutages()
		for i := range all {
			all[i].target = strings.NewReplacer("20260430/8", "20260402/12", "20260430/7", "20260402/0",
				"20260430", "20260402", "20260429", "20260401").
				Replace(all[i].target)
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			steps := []string{"write", "write", "hour", "late", "step", "step", "hide", "show", "restart"}
			switch rapid.SampledFrom(steps).Draw(rt, "step") {
			case "write":
				write(hour)
			case "hour":
				if len(ends) == 0 {
					hour++
					write(hour)
				}
			case "late":
				write(rapid.SampledFrom([]int{0, 12, 24, 36}).Draw(rt, "hour"))
			case "step":
				r.step(rapid.SampledFrom([]time.Duration{200 * time.Millisecond, time.Second, 6 * time.Second}).Draw(rt, "pause"))
				collect()
			case "hide":
				o := rapid.SampledFrom(all).Draw(rt, "what")
				if len(ends) > 0 {
					continue
				}
				ends[o.String()], moved = o.hide(d, tree), o.rename
			case "show":
				for _, end := range ends {
					end()
				}
				clear(ends)
				moved = false
			case "restart":
				saved := r.checkpoint()
				r.tail.Close()
				injectFaults(&opt.Options, tree)
				r = open(rt, opt, saved)
			}
		}
		for _, end := range ends {
			end()
		}
		for range 80 {
			r.step(time.Second)
			collect()
		}
		r.tail.Close()
		for text := range written {
			if delivered[text] != 1 {
				rt.Fatalf("line %q was emitted %d times; the log: %s", text, delivered[text], r.log)
			}
		}
	})
}
