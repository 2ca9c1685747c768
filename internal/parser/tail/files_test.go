package tail

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// refresh advances the clock and refreshes, without reading.
func (r *reader) refresh(d time.Duration) {
	r.t.Helper()
	*r.clock = r.clock.Add(d)
	if err := r.tail.refresh(); err != nil {
		r.t.Fatalf("refreshing: %v", err)
	}
}

func (d disk) remove(name string) {
	d.t.Helper()
	d.noError(os.Remove(d.path(name)))
}

// rewrite replaces the content of a file and keeps its inode. To a refresh, that looks like a file that was removed and
// recreated with a reused inode since the previous refresh.
func (d disk) rewrite(name, text string) {
	d.t.Helper()
	d.noError(errors.Join(os.WriteFile(d.path(name), []byte(text), 0o644), os.Chtimes(d.path(name), *d.clock, *d.clock)))
}

// label returns the file of the last line, as positions name it.
func (r *reader) label() string {
	file, _, _ := strings.Cut(r.positions[len(r.positions)-1], ":")
	return file
}

func TestAReusedInodeAtTheSameHourIsAnotherFile(t *testing.T) {
	for name, text := range map[string]string{
		"longer":                      "other 1\nother 2\nother 3\n",
		"of the same length":          "x\ny\n",
		"shorter":                     "x\n",
		"longer, with the same start": "a\nB\nother\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			d.append("node_fills/20260430/7", "a\nb\n")
			d.append("node_fills/20260430/8", "c\n")
			d.append("node_fills/20260430/9", "d\n")
			r := open(t, newSetup(d), nil)
			wantLines(t, r.step(6*time.Second), "a", "b", "c", "d")
			if r.tail.dirs[0].files[0].handle != nil {
				t.Fatal("the earlier hour is still open, so its inode cannot be reused")
			}
			before, _, _ := strings.Cut(r.positions[0], ":")
			r.refresh(time.Second)
			*d.clock = d.clock.Add(time.Second)
			d.rewrite("node_fills/20260430/7", text)
			wantLines(t, r.step(6*time.Second), strings.Split(strings.TrimSuffix(text, "\n"), "\n")...)
			if r.label() == before {
				t.Errorf("two files share the name %s", before)
			}
			d.append("node_fills/20260430/7", "late\n")
			wantLines(t, r.step(6*time.Second), "late")
			wantLines(t, open(t, newSetup(d), r.checkpoint()).step(6*time.Second))
		})
	}
}

func TestAReusedInodeAtANewerHourIsANewFile(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\nb\n")
	d.append("node_fills/20260430/8", "c\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a", "b", "c")
	saved := r.checkpoint()
	// The same inode appears at another path with other content, both to the running reader and to one that starts.
	d.noError(os.Rename(d.path("node_fills/20260430/7"), d.path("node_fills/20260430/9")))
	d.rewrite("node_fills/20260430/9", "x\ny\nz\n")
	wantLines(t, r.step(6*time.Second), "x", "y", "z")
	wantLines(t, open(t, newSetup(d), saved).step(6*time.Second), "x", "y", "z")
}

// A new hour's file has the inode of a pruned file, and is observed while it is too short to be compared with that
// file.
func TestAReusedInodeAtANewerHourIsANewFileHoweverShort(t *testing.T) {
	long := strings.Repeat("a", 2*hashBytes)
	for name, first := range map[string]string{"empty": "", "torn": "aa", "a line": "b\n"} {
		for when, restarts := range map[string]bool{"while running": false, "across a restart": true} {
			t.Run(name+" "+when, func(t *testing.T) {
				d := newDisk(t)
				d.append("node_fills/20260430/7", long+"\n")
				d.append("node_fills/20260430/8", "8\n")
				r := open(t, newSetup(d), nil)
				wantLines(t, r.step(6*time.Second), long, "8")
				wantLines(t, r.step(6*time.Second)) // no process holds it open
				d.noError(os.Rename(d.path("node_fills/20260430/7"), d.path("node_fills/20260430/9")))
				d.rewrite("node_fills/20260430/9", first)
				if restarts {
					r = open(t, newSetup(d), r.checkpoint())
				}
				got := r.step(6 * time.Second)
				d.append("node_fills/20260430/9", "c\n")
				wantLines(t, append(got, r.step(6*time.Second)...), strings.Fields(first+"c\n")...)
				if s := r.tail.Stats(); s.RepeatedBytes != 0 || s.PrunedUnread != 0 || s.Late != 0 {
					t.Errorf("%d bytes repeated, %d files pruned unread, %d lines late; want none", s.RepeatedBytes, s.PrunedUnread,
						s.Late)
				}
				if strings.Contains(r.log.String(), "found under another name") {
					t.Errorf("it was taken for the pruned file: %s", r.log)
				}
			})
		}
	}
}

func TestAReplacementWithTheSameBeginningIsAnotherFile(t *testing.T) {
	head := strings.Repeat("first line ", 200)
	d := newDisk(t)
	d.append("node_fills/20260430/8", head+"\nsecond\nthird\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), head, "second", "third")
	before := r.label()
	recreate(d, head+"\nSECOND\nthird\nfourth\n")
	wantLines(t, r.step(time.Second), head, "SECOND", "third", "fourth")
	if r.label() == before {
		t.Errorf("two files share the name %s", before)
	}
	recreate(d, head+"\nagain\nthird\nfourth\n")
	wantLines(t, r.step(time.Second), head, "again", "third", "fourth")
	if r.label() == before {
		t.Errorf("two files share the name %s", before)
	}
	saved := r.checkpoint()
	wantLines(t, open(t, newSetup(d), saved).step(time.Second))
	recreate(d, head+"\nAGAIN\nthird\nfourth\nfifth\n") // while the parser is stopped
	wantLines(t, open(t, newSetup(d), saved).step(time.Second), head, "AGAIN", "third", "fourth", "fifth")
}

func TestARenamedFileContinuesAtItsPosition(t *testing.T) {
	first := strings.Repeat("first line ", 20)
	for name, c := range map[string]struct {
		to     string
		before func(d disk, to string) // at the same moment as the rename
	}{
		"to an earlier hour":      {to: "node_fills/20260430/7"},
		"to a later hour":         {to: "node_fills/20260430/9"},
		"to another day's folder": {to: "node_fills/20260501/0"},
		"to an old folder":        {to: "node_fills/20260401/7"},
		"with unread lines": {
			"node_fills/20260430/7", func(d disk, _ string) { d.append("node_fills/20260430/8", "unread\n") },
		},
		"over another hour's file": {to: "node_fills/20260430/6"},
		"while its name is reused": {"node_fills/20260430/9", func(d disk, to string) {
			d.noError(os.Link(d.path("node_fills/20260430/8"), d.path(to)))
			recreate(d, "another\n")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			for _, hour := range []string{"20260401/6", "20260402/6", "20260403/6", "20260430/6"} {
				d.append("node_fills/"+hour, hour+"\n")
			}
			d.append("node_fills/20260430/8", first+"\nsecond\n")
			r := open(t, newSetup(d), nil)
			wantLines(t, r.step(6*time.Second), "20260401/6", "20260402/6", "20260403/6", "20260430/6", first, "second")
			d.noError(os.MkdirAll(filepath.Dir(d.path(c.to)), 0o755))
			if c.before != nil {
				c.before(d, c.to)
			}
			if name != "while its name is reused" {
				d.noError(os.Rename(d.path("node_fills/20260430/8"), d.path(c.to)))
			}
			var got []string
			for range 70 {
				got = append(got, r.step(time.Second)...)
			}
			switch name {
			case "with unread lines":
				wantLines(t, got, "unread")
			case "while its name is reused":
				wantLines(t, got, "another")
			default:
				wantLines(t, got)
			}
			d.append(c.to, "more\n")
			got = got[:0]
			for range 70 {
				got = append(got, r.step(time.Second)...)
			}
			wantLines(t, got, "more")
			if wants := strings.ReplaceAll(c.to, "/hourly", "") + "@"; !strings.HasPrefix(r.label(), wants) {
				t.Errorf("the line is at %s; want prefix %s", r.label(), wants)
			}
			if s := r.tail.Stats(); s.PrunedUnread != 0 || s.RepeatedBytes != 0 {
				t.Errorf("%d files pruned unread, %d bytes repeated; want none", s.PrunedUnread, s.RepeatedBytes)
			}
			wantLines(t, open(t, newSetup(d), r.checkpoint()).step(6*time.Second))
		})
	}
}

func TestARenamedDayIsRecognizedByItsFiles(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260429/7", "a\n")
	d.append("node_fills/20260429/8", "b\n")
	d.append("node_fills/20260430/8", "c\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a", "b", "c")
	d.noError(os.Rename(d.path("node_fills/20260429"), d.path("node_fills/20260428")))
	wantLines(t, r.step(6*time.Second))
	d.append("node_fills/20260428/8", "late\n")
	wantLines(t, r.step(6*time.Second), "late")
	if n := len(r.tail.Files()); n != 3 {
		t.Errorf("the checkpoint has %d files; 3 are on disk", n)
	}
	wantLines(t, open(t, newSetup(d), r.checkpoint()).step(6*time.Second))
}

func TestAcknowledgementsAfterARenameCount(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\nb\n")
	r := open(t, newSetup(d), nil)
	r.refresh(time.Second)
	d.noError(r.tail.readAll(t.Context()))
	d.noError(os.Rename(d.path("node_fills/20260430/8"), d.path("node_fills/20260430/7")))
	r.refresh(time.Second)
	r.take(true)
	if s := r.tail.Stats(); s.Unread != 0 || !s.OldestUnacked.IsZero() {
		t.Errorf("%d bytes unread, a line is pending since %v; want none", s.Unread, s.OldestUnacked)
	}
	wantLines(t, open(t, newSetup(d), r.checkpoint()).step(6*time.Second))
}

func TestAFileRenamedBetweenTheRefreshAndTheReadIsNotLost(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\n")
	d.append("node_fills/20260430/8", "b\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a", "b")
	d.append("node_fills/20260430/7", "late\n")
	r.refresh(6 * time.Second)
	d.noError(os.Rename(d.path("node_fills/20260430/7"), d.path("node_fills/20260430/6")))
	d.noError(r.tail.readAll(t.Context()))
	r.take(true)
	r.step(time.Second)
	wantLines(t, r.got, "a", "b", "late")
	if s := r.tail.Stats(); s.PrunedUnread != 0 || s.SkippedBytes != 0 {
		t.Errorf("counted %d files, %d bytes as lost; want none", s.PrunedUnread, s.SkippedBytes)
	}
}

func TestASecondNameOfAFileIsNotReadAgain(t *testing.T) {
	for name, link := range map[string]func(from, to string) error{
		"hard link":     os.Link,
		"symbolic link": func(from, to string) error { return os.Symlink(filepath.Base(from), to) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			d.append("node_fills/20260430/8", "a\n")
			r := open(t, newSetup(d), nil)
			wantLines(t, r.step(6*time.Second), "a")
			d.noError(link(d.path("node_fills/20260430/8"), d.path("node_fills/20260430/9")))
			wantLines(t, r.step(6*time.Second))
			d.append("node_fills/20260430/9", "b\n")
			wantLines(t, r.step(6*time.Second), "b")
			wantLines(t, open(t, newSetup(d), r.checkpoint()).step(6*time.Second))
			wantLines(t, open(t, newSetup(d), nil).step(6*time.Second), "a", "b")
			if name == "hard link" { // the other name remains when the first is removed
				d.remove("node_fills/20260430/8")
				d.append("node_fills/20260430/9", "c\n")
				got := append(r.step(6*time.Second), r.step(6*time.Second)...)
				wantLines(t, got, "c")
			}
		})
	}
}

// A copy has its own inode and may diverge: it is another file, unless it takes the place of the original.
func TestACopyUnderAnotherNameIsAnotherFile(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a")
	d.append("node_fills/20260430/7", "a\n")
	wantLines(t, r.step(6*time.Second), "a")
	d.append("node_fills/20260430/8", "b\n")
	d.append("node_fills/20260430/7", "c\n")
	wantLines(t, r.step(6*time.Second), "c", "b")
}

// onDisk returns the number of files that the tailer has at their paths.
func (r *reader) onDisk() int { return len(r.tail.dirs[0].files) }

func TestAPrunedHourRecreatedWithOtherLinesIsAnotherFile(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\n")
	d.append("node_fills/20260430/8", "b\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a", "b")
	names := append(make([]string, 0, 4), strings.Split(r.positions[0], ":")[0])
	for i := range 3 {
		d.remove("node_fills/20260430/7")
		wantLines(t, r.step(6*time.Second))
		if n := r.onDisk(); n != 1 {
			t.Fatalf("the tailer has %d files; one is on disk", n)
		}
		if n := len(r.tail.Files()); n != 2+i {
			t.Fatalf("the checkpoint has %d files; want %d, since recently removed files may return", n, 2+i)
		}
		first, late := fmt.Sprint("A", i), fmt.Sprint("late ", i)
		d.append("node_fills/20260430/7", first+"\n")
		wantLines(t, r.step(6*time.Second), first)
		if slices.Contains(names, r.label()) {
			t.Errorf("two files share the name %s", r.label())
		}
		names = append(names, r.label())
		d.append("node_fills/20260430/7", late+"\n")
		wantLines(t, r.step(6*time.Second), late)
		d.append("node_fills/20260430/8", "b\n")
		wantLines(t, r.step(time.Second), "b")
	}
	if s := r.tail.Stats(); s.PrunedUnread != 0 || s.Late != 6 || s.RepeatedBytes != 0 {
		t.Errorf("%d files pruned unread, %d lines late, %d bytes repeated; want 0, 6 and 0", s.PrunedUnread, s.Late,
			s.RepeatedBytes)
	}
	wantLines(t, open(t, newSetup(d), r.checkpoint()).step(6*time.Second))
}

// A recreated hour that contains everything that was read from the previous one is indistinguishable from a file that
// was moved away and back.
func TestAPrunedHourRecreatedWithTheSameLinesContinues(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\n")
	d.append("node_fills/20260430/8", "b\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a", "b")
	text := "a\n"
	for i := range 3 {
		d.remove("node_fills/20260430/7")
		wantLines(t, r.step(6*time.Second))
		next := fmt.Sprint("next ", i)
		text += next + "\n"
		d.append("node_fills/20260430/7", text)
		wantLines(t, r.step(6*time.Second), next)
		wantLines(t, open(t, newSetup(d), r.checkpoint()).step(6*time.Second))
	}
	if s := r.tail.Stats(); s.PrunedUnread != 0 || s.RepeatedBytes != 0 {
		t.Errorf("%d files pruned unread, %d bytes repeated; want none", s.PrunedUnread, s.RepeatedBytes)
	}
}

func TestTheNextHourIsReadWhenAllOthersWerePruned(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a")
	d.remove("node_fills/20260430/8")
	wantLines(t, r.step(6*time.Second))
	wantLines(t, r.step(6*time.Second))
	d.append("node_fills/20260430/9", "b\n")
	wantLines(t, r.step(6*time.Second), "b")
	d.append("node_fills/20260430/10", "c\n")
	wantLines(t, r.step(6*time.Second), "c")
	d.append("node_fills/20260430/7", "late\n")
	wantLines(t, r.step(6*time.Second), "late")
	if n := r.tail.Stats().Late; n != 1 {
		t.Errorf("%d lines late; want 1", n)
	}
	// The same holds if no file was left at the last checkpoint, regardless of the clocks.
	for _, hour := range []int{7, 9, 10} {
		d.remove(fmt.Sprintf("node_fills/20260430/%d", hour))
	}
	r.step(6 * time.Second)
	wantLines(t, r.step(6*time.Second))
	saved := r.checkpoint()
	saved.CommittedAt = saved.CommittedAt.Add(time.Hour)
	d.append("node_fills/20260430/11", "d\n")
	wantLines(t, open(t, newSetup(d), saved).step(6*time.Second), "d")
}

func TestAFilePrunedWhileItIsReadIsReadToItsEnd(t *testing.T) {
	d := newDisk(t)
	line := strings.Repeat("x", 1023)
	d.append("node_fills/20260430/8", strings.Repeat(line+"\n", 3000))
	r := open(t, newSetup(d), nil)
	f := r.tail.dirs[0].files[0]
	d.noError(r.tail.openFile(f))
	d.noError(r.tail.readBlock(t.Context(), r.tail.dirs[0], f))
	r.take(true)
	writer, err := os.OpenFile(d.path("node_fills/20260430/8"), os.O_APPEND|os.O_WRONLY, 0)
	d.noError(err)
	d.remove("node_fills/20260430/8")
	r.step(time.Second)
	if len(r.got) != 3000 {
		t.Fatalf("%d lines; want 3000", len(r.got))
	}
	_, err = writer.WriteString("after\nto") // a process that has it open continues to write
	d.noError(errors.Join(err, writer.Close()))
	wantLines(t, r.step(time.Second), "after")
	r.step(time.Second)
	if n := r.onDisk(); n != 0 {
		t.Errorf("the tailer has %d files; none is on disk", n)
	}
	if s := r.tail.Stats(); s.PrunedUnread != 0 || s.SkippedBytes != 0 {
		t.Errorf("counted %d files, %d bytes as lost; want none", s.PrunedUnread, s.SkippedBytes)
	}
}

func TestTruncatingALongTornLineDuringTheReadDoesNotHangTheReader(t *testing.T) {
	for name, size := range map[string]int{"longer than a block": 2 * buffer.BlockSize, "over the limit": 2 << 20} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			d.append("node_fills/20260430/8", "a\n"+strings.Repeat("l", size))
			r := open(t, newSetup(d), nil)
			wantLines(t, r.step(time.Second), "a")
			d.append("node_fills/20260430/8", strings.Repeat("l", buffer.BlockSize))
			r.refresh(time.Second)
			d.noError(os.Truncate(d.path("node_fills/20260430/8"), int64(2+size)))
			done := make(chan error, 1)
			go func() { done <- r.tail.readAll(t.Context()) }()
			select {
			case err := <-done:
				d.noError(err)
			case <-time.After(20 * time.Second):
				t.Fatal("the reader does not return")
			}
			d.append("node_fills/20260430/8", "\nb\n")
			got := r.step(time.Second)
			if size > 1<<20 {
				wantLines(t, got, "b")
			} else {
				wantLines(t, got, strings.Repeat("l", size), "b")
			}
		})
	}
}

func TestAFileTruncatedAndGrownPastThePositionBetweenTwoRefreshesIsDetected(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\nb\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a", "b")
	for i := range 3 { // longer each time, including lines of the same length
		before := r.label()
		lines := []string{fmt.Sprint("x", i), "y"}[:1+i%2]
		lines = append(lines, "z", fmt.Sprint("end ", strings.Repeat("e", 10*i)))
		d.rewrite("node_fills/20260430/8", strings.Join(lines, "\n")+"\n")
		wantLines(t, r.step(200*time.Millisecond), lines...)
		if r.label() == before {
			t.Errorf("positions before and after share the name %s", before)
		}
		d.append("node_fills/20260430/8", "more\n")
		wantLines(t, r.step(200*time.Millisecond), "more")
	}
	wantLines(t, open(t, newSetup(d), r.checkpoint()).step(time.Second))
	if s := r.tail.Stats(); s.RepeatedBytes != 0 || s.UncommittedBytes != 0 {
		t.Errorf("%d bytes repeated, %d uncommitted; want none", s.RepeatedBytes, s.UncommittedBytes)
	}
}

func TestAFileThatShrankResumesOnce(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a")
	d.rewrite("node_fills/20260430/8", "t")
	wantLines(t, r.step(time.Second))
	d.append("node_fills/20260430/8", "orn\n")
	wantLines(t, r.step(time.Second), "torn")
	if strings.Contains(r.log.String(), "rewritten") {
		t.Errorf("it was reported as rewritten as well: %s", r.log)
	}
}

func TestAFileTruncatedAndGrownBetweenTwoRefreshesResumesAtAMarker(t *testing.T) {
	d := newDisk(t)
	line := strings.Repeat("x", 99) + "\n"
	d.append("node_fills/20260430/8", strings.Repeat(line, 200_000))
	r := open(t, newSetup(d), nil)
	for len(r.got) < 200_000 {
		r.step(time.Second)
	}
	f := r.tail.dirs[0].files[0]
	marker, read := f.lastMarker(), f.next
	d.noError(os.Truncate(d.path("node_fills/20260430/8"), marker+100))
	d.append("node_fills/20260430/8", strings.Repeat(strings.Repeat("y", 99)+"\n", int(read-marker)/100+1))
	before := r.label()
	got := r.step(200 * time.Millisecond)
	if len(got) != int(read-marker)/100+2 || got[0][0] != 'x' || got[1][0] != 'y' {
		t.Fatalf("%d lines starting with %q; want all lines after the marker", len(got), got[0])
	}
	if s := r.tail.Stats(); s.RepeatedBytes != read-marker {
		t.Errorf("%d bytes counted as repeated; want %d", s.RepeatedBytes, read-marker)
	}
	if r.label() == before {
		t.Errorf("positions before and after share the name %s", before)
	}
}

func TestTheDataDirectoryMayBeASymbolicLink(t *testing.T) {
	d := newDisk(t)
	for _, disk := range []string{"one", "two", "copy"} {
		d.noError(os.Mkdir(d.path(disk), 0o755))
	}
	point := func(to string) {
		d.noError(errors.Join(os.Symlink(to, d.path("new")), os.Rename(d.path("new"), d.path("data"))))
	}
	point("one")
	node := disk{t, d.path("data"), d.clock}
	node.append("node_fills/20260430/7", "old\n")
	node.append("node_fills/20260430/8", "a\nb\n")
	opt := newSetup(d, func(o *Options) { o.DataDir = node.data })
	r := open(t, opt, nil)
	wantLines(t, r.step(6*time.Second), "old", "a", "b")

	// The link changes to another volume that holds a copy. The files are recognized by their content.
	d.noError(os.CopyFS(d.path("copy"), os.DirFS(d.path("one"))))
	point("copy")
	node.append("node_fills/20260430/8", "c\n")
	wantLines(t, r.step(6*time.Second), "c")
	node.append("node_fills/20260430/7", "late\n")
	wantLines(t, r.step(6*time.Second), "late")
	wantLines(t, open(t, opt, r.checkpoint()).step(6*time.Second))

	// The link changes to a volume with other content.
	point("two")
	node.append("node_fills/20260430/8", "x\ny\nz\n")
	node.append("node_fills/20260430/9", "n\n")
	wantLines(t, r.step(6*time.Second), "x", "y", "z", "n")
	wantLines(t, open(t, opt, r.checkpoint()).step(6*time.Second))
}

func TestClockJumpsNeitherBlockNorLoseLines(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			d := newDisk(t)
			*d.clock = d.clock.Round(0) // wall-clock time, which can jump
			d.append("node_fills/20260430/7", "old\n")
			d.append("node_fills/20260430/8", "a\n")
			r := open(t, newSetup(d), nil)
			wantLines(t, r.step(6*time.Second), "old", "a")

			*d.clock = d.clock.Add(jump)
			d.append("node_fills/20260430/8", "b\n")
			wantLines(t, r.step(200*time.Millisecond), "b")
			d.append("node_fills/20260430/9", "c\n")
			got := make([]string, 0, 8)
			for range 30 { // longer than grace
				got = append(got, r.step(200*time.Millisecond)...)
			}
			wantLines(t, got, "c")

			d.append("node_fills/20260430/9", "c2\n")
			wantLines(t, r.step(200*time.Millisecond), "c2")
			d.append("node_fills/20260430/10", "d\n")
			wantLines(t, r.step(200*time.Millisecond))
			*d.clock = d.clock.Add(jump) // within grace
			got = got[:0]
			for range 30 {
				got = append(got, r.step(200*time.Millisecond)...)
			}
			wantLines(t, got, "d")
			d.append("node_fills/20260430/7", "late\n")
			wantLines(t, r.step(6*time.Second), "late")
			if age := r.tail.Stats().OldestUnacked; !age.IsZero() {
				t.Errorf("everything is acknowledged, but a line is pending since %v", age)
			}
			wantLines(t, open(t, newSetup(d), r.checkpoint()).step(6*time.Second))
		})
	}
}

// The clock of the node's file system may differ from the parser's.
func TestModificationTimesFromAnotherClockDoNotStopTheNextHour(t *testing.T) {
	for _, skew := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			d := newDisk(t)
			d.append("node_fills/20260430/8", "a\n")
			r := open(t, newSetup(d), nil)
			*r.clock = r.clock.Add(time.Second)
			node := *d.clock
			node = node.Add(skew)
			other := disk{t, d.data, &node}
			other.append("node_fills/20260430/8", "b\n")
			other.append("node_fills/20260430/9", "c\n")
			got := make([]string, 0, 8)
			for range 30 {
				got = append(got, r.step(200*time.Millisecond)...)
			}
			wantLines(t, got, "a", "b", "c")
		})
	}
}

func TestWithoutNotificationsPollingFindsEverything(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	// This is what happens when the system's limit is reached: at the opening, when a folder is added, or later.
	if err := r.tail.watch.open(); err != nil {
		t.Skipf("this system has no notifications: %v", err)
	}
	r.tail.watch.close()
	wantLines(t, r.step(time.Second), "a")
	d.append("node_fills/20260430/8", "b\n")
	d.append("node_fills/20260501/0", "c\n")
	wantLines(t, r.step(3*time.Second), "b", "c")
	if n := len(r.tail.watch.paths); n != 0 {
		t.Errorf("a closed watcher reports %d watched folders", n)
	}
	r.tail.watch.drain() // a closed watcher's channels must not block the reader
}

func TestEveryFolderAndFileMayBeASymbolicLink(t *testing.T) {
	d := newDisk(t)
	volume := disk{t, t.TempDir(), d.clock}
	volume.append("node_fills/20260430/7", "a\n")
	d.noError(os.Symlink(volume.path("node_fills"), d.path("node_fills")))
	linked := newSetup(d, func(o *Options) { o.Links = []string{volume.data} })
	r := open(t, linked, nil)
	wantLines(t, r.step(6*time.Second), "a")

	volume.append("elsewhere/20260501/0", "b\n")
	d.noError(os.Symlink(filepath.Dir(volume.path("elsewhere/20260501/0")), d.path("node_fills/20260501")))
	wantLines(t, r.step(6*time.Second), "b")
	volume.append("elsewhere/20260501/1", "c\n")
	wantLines(t, r.step(6*time.Second), "c")

	volume.append("elsewhere/20260502/0", "d\n")
	d.noError(os.Symlink(volume.path("elsewhere/20260502/0"), d.path("node_fills/20260501/2")))
	wantLines(t, r.step(6*time.Second), "d")
	volume.append("elsewhere/20260502/0", "e\n")
	wantLines(t, r.step(6*time.Second), "e")
	wantLines(t, open(t, linked, r.checkpoint()).step(6*time.Second))
}

func TestANotificationQueueOverflowIsAHint(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a")
	w := &fsnotify.Watcher{Events: make(chan fsnotify.Event, 1), Errors: make(chan error, 1)}
	r.tail.watch.w = w
	d.append("node_fills/20260430/8", "b\n")
	d.append("node_fills/20260501/0", "c\n")
	w.Errors <- fsnotify.ErrEventOverflow // what was lost is unknown
	r.tail.watch.drain()
	if len(w.Errors) > 0 {
		t.Error("the overflow was left in its channel, which blocks the watcher")
	}
	r.tail.watch.w = nil
	wantLines(t, r.step(200*time.Millisecond), "b")
	wantLines(t, r.step(3*time.Second), "c")
}

func TestADanglingLinkIsReadWhenItsTargetAppears(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "a\n")
	d.noError(os.Symlink("elsewhere", d.path("node_fills/20260430/8"))) // dangling
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(6*time.Second), "a")
	d.append("node_fills/20260430/9", "c\n")
	wantLines(t, r.step(6*time.Second), "c")
	d.append("node_fills/20260430/elsewhere", "b\n")
	wantLines(t, r.step(6*time.Second), "b")
	d.append("node_fills/20260430/elsewhere", "b2\n")
	wantLines(t, r.step(6*time.Second), "b2")
	wantLines(t, open(t, newSetup(d), r.checkpoint()).step(6*time.Second))
}

// This is what an ordinary user sees of files and folders of another user.
func TestFilesWithoutPermissionAreRetriedAndNothingIsLost(t *testing.T) {
	const nobody = 65534
	d := newDisk(t)
	if os.Geteuid() == 0 {
		for dir := d.data; dir != filepath.Dir(dir) && dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
			d.noError(os.Chmod(dir, 0o755))
		}
		if err := syscall.Seteuid(nobody); err != nil {
			t.Skipf("this user may read everything and cannot change its identity: %v", err)
		}
		_, err := os.ReadDir(d.data)
		d.noError(syscall.Seteuid(0))
		if err != nil {
			t.Skipf("other users may not enter the temporary directory: %v", err)
		}
	}
	as := func(step func()) {
		if os.Geteuid() == 0 {
			d.noError(syscall.Seteuid(nobody))
			defer func() { d.noError(syscall.Seteuid(0)) }()
		}
		step()
	}
	d.append("node_fills/20260429/23", "a\n")
	d.append("node_fills/20260430/7", "b\n")
	d.append("node_fills/20260430/8", "c\n")
	d.append("node_fills/20260501/0", "d\n")
	file, dir := d.path("node_fills/20260430/8"), d.path("node_fills/20260501")
	d.noError(errors.Join(os.Chmod(file, 0), os.Chmod(dir, 0)))
	defer func() { _ = os.Chmod(dir, 0o755) }() // for the cleanup
	var r *reader
	as(func() {
		r = open(t, newSetup(d), nil)
		wantLines(t, r.step(3*time.Second), "a", "b")
	})
	for range 3 {
		as(func() { wantLines(t, r.step(6*time.Second)) })
		as(func() { wantLines(t, r.step(200*time.Millisecond)) })
	}
	reported := func(path string) {
		t.Helper()
		line := "cannot be read; trying again\" path=node_fills/hourly/" + path + " error="
		if n := strings.Count(r.log.String(), line); n != 1 {
			t.Errorf("%s was reported %d times; want once: %s", path, n, r.log)
		}
	}
	reported("20260501")
	if b := r.tail.Stats().Blocked; b == nil || b.Count != 2 || !errors.Is(b.Err, syscall.EACCES) ||
		b.Path != "node_fills/hourly/20260501" {
		t.Errorf("blocked on %+v; want the folder, and two blocked paths", b)
	}
	d.noError(os.Chmod(file, 0o644))
	as(func() {
		once := open(t, newSetup(d, func(o *Options) { o.Once = true }), nil)
		if err := once.tail.Run(t.Context()); !errors.Is(err, ErrUnread) ||
			!strings.Contains(err.Error(), "node_fills/hourly/20260501: permission denied") {
			t.Errorf("a run with Once and an unreadable folder ended with %v", err)
		}
		once.take(true)
		wantLines(t, once.got, "a", "b", "c")
	})
	d.noError(os.Chmod(file, 0))
	reported("20260430/8")
	d.noError(os.Chmod(dir, 0o755))
	as(func() { wantLines(t, r.step(6*time.Second)) }) // it is read only after the unreadable hour
	d.noError(os.Chmod(file, 0o644))
	as(func() { wantLines(t, r.step(6*time.Second), "c", "d") })
	if s := r.tail.Stats(); s.PrunedUnread != 0 || s.SkippedBytes != 0 {
		t.Errorf("counted %d files, %d bytes as lost; want none", s.PrunedUnread, s.SkippedBytes)
	}
}

func TestTenThousandOldFilesCostNothingBetweenSweeps(t *testing.T) {
	days := 10_000 / 24
	if testing.Short() {
		days = 40
	}
	d := newDisk(t)
	day := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	name := func(i int) string {
		return fmt.Sprintf("node_fills/%s/%d", day.AddDate(0, 0, i/24).Format("20060102"), i%24)
	}
	for i := range 24 * days {
		path := d.path(name(i))
		if i%24 == 0 {
			d.noError(os.MkdirAll(filepath.Dir(path), 0o755))
		}
		d.noError(os.WriteFile(path, []byte("x\n"), 0o644))
	}
	r := open(t, newSetup(d, func(o *Options) { o.StartAt = config.End }), nil)
	newest := name(24*days - 1)
	wantLines(t, r.step(6*time.Second))
	handles := func() (n int) {
		for _, f := range r.tail.dirs[0].files {
			if f.handle != nil {
				n++
			}
		}
		return n
	}
	middle, yesterday := 24*(days/2), 24*(days-2)
	d.append(name(middle), "late\n")
	for range 4 { // the pass has not reached the old file yet
		d.append(newest, "new\n")
		wantLines(t, r.step(time.Second), "new")
	}
	d.append(name(yesterday), "of yesterday\n")
	wantLines(t, r.step(5*time.Second), "of yesterday")
	wantLines(t, r.step(30*time.Second), "late")

	// Late appends are found within one pass and one refresh, wherever they are.
	all := make([]string, 0, days)
	for i := 0; i < days-2; i += 7 {
		all = append(all, fmt.Sprintf("late %d", i))
		d.append(name(24*i+i%24), all[len(all)-1]+"\n")
	}
	got := make([]string, 0, len(all))
	for range 61 {
		got = append(got, r.step(time.Second)...)
	}
	slices.Sort(all)
	slices.Sort(got)
	wantLines(t, got, all...)
	if n := handles(); n > 2 {
		t.Errorf("%d files are open; want at most 2", n)
	}
	// System calls with a file name allocate, so the number of allocations counts them.
	calls := testing.AllocsPerRun(20, func() {
		d.noError(r.tail.refresh())
		d.noError(r.tail.readAll(t.Context()))
	})
	if calls > 100 {
		t.Errorf("a refresh without elapsed time allocates %.0f times with %d files", calls, 24*days)
	}
	calls = testing.AllocsPerRun(20, func() {
		*d.clock = d.clock.Add(pollInterval)
		d.noError(r.tail.refresh())
		d.noError(r.tail.readAll(t.Context()))
	})
	if calls > 1000 {
		t.Errorf("a refresh allocates %.0f times with %d files", calls, 24*days)
	}
}

func TestFilesRecreatedInOldFoldersAreFound(t *testing.T) {
	d := newDisk(t)
	name := func(day, hour int) string { return fmt.Sprintf("node_fills/202604%02d/%d", day, hour) }
	for day := 1; day <= 30; day++ {
		d.append(name(day, 7), "x\n")
	}
	r := open(t, newSetup(d, func(o *Options) { o.StartAt = config.End }), nil)
	wantLines(t, r.step(time.Second))
	minute := func() (got []string) {
		for range 62 {
			got = append(got, r.step(time.Second)...)
		}
		return got
	}
	wantLines(t, minute())

	// A new hour appears in an old folder.
	d.append(name(3, 8), "made\n")
	wantLines(t, minute(), "made")
	// It is found even if the folder's modification time does not change between two additions.
	d.append(name(4, 7), "late\n")
	d.append(name(4, 8), "made\n")
	got := make([]string, 0, 2)
	for len(got) < 2 {
		got = append(got, r.step(time.Second)...)
	}
	wantLines(t, got, "late", "made")
	folder := filepath.Dir(d.path(name(4, 8)))
	shown, err := os.Stat(folder)
	d.noError(err)
	d.append(name(4, 9), "at the same moment\n")
	d.noError(os.Chtimes(folder, shown.ModTime(), shown.ModTime()))
	wantLines(t, minute(), "at the same moment")

	// An old folder appears, and another is removed with everything in it.
	d.append("node_fills/20260309/7", "a whole day\n")
	wantLines(t, r.step(200*time.Millisecond), "a whole day")
	d.noError(os.RemoveAll(filepath.Dir(d.path(name(3, 8)))))
	wantLines(t, r.step(200*time.Millisecond))
	wantLines(t, r.step(5*time.Second))
	for _, f := range r.tail.dirs[0].files {
		if f.id.Date == "20260403" {
			t.Errorf("%s was removed, but is still in the table", f.rel)
		}
	}
	if s := r.tail.Stats(); s.PrunedUnread != 0 {
		t.Errorf("%d files are counted as pruned unread; want none", s.PrunedUnread)
	}
}

func TestABacklogOfManyHoursKeepsOnlyTheNewestOpen(t *testing.T) {
	d := newDisk(t)
	for i := range 48 {
		d.append(fmt.Sprintf("node_fills/202604%02d/%d", 1+i/24, i%24), fmt.Sprintf("%d\n", i))
	}
	r := open(t, newSetup(d), nil)
	r.step(6 * time.Second)
	if len(r.got) != 48 {
		t.Fatalf("%d lines; want 48", len(r.got))
	}
	for _, f := range r.tail.dirs[0].files {
		if newest := f.id.Date == "20260402" && f.id.Hour == 23; (f.handle != nil) != newest {
			t.Errorf("%s: open is %v; want only the newest file open", f.rel, f.handle != nil)
		}
	}
}

func TestAFileOfMoreThan4GiBAndAHoleInIt(t *testing.T) {
	const size = 5 << 30
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a")

	// A host that crashed may leave zeros at the end of a file that was not written yet. They form a line that is too
	// long.
	d.noError(os.Truncate(d.path("node_fills/20260430/8"), 20<<20))
	wantLines(t, r.step(time.Second))
	d.append("node_fills/20260430/8", "rest of a line\nb\n")
	wantLines(t, r.step(time.Second), "b")
	if s := r.tail.Stats(); s.Oversize != 1 || r.buf.Stats().Bytes > 1<<20 {
		t.Errorf("%d lines over the limit, %d bytes in the buffer; want 1 line and an almost empty buffer", s.Oversize,
			r.buf.Stats().Bytes)
	}

	if err := os.Truncate(d.path("node_fills/20260430/9"), 0); err == nil {
		t.Fatal("the file exists already")
	}
	d.append("node_fills/20260430/9", "")
	if err := os.Truncate(d.path("node_fills/20260430/9"), size); err != nil {
		t.Skipf("no file of %d bytes here: %v", int64(size), err)
	}
	d.append("node_fills/20260430/9", "\nc\n")
	r = open(t, newSetup(d, func(o *Options) { o.StartAt = config.End }), nil)
	wantLines(t, r.step(6*time.Second))
	d.append("node_fills/20260430/9", "d\nto")
	wantLines(t, r.step(6*time.Second), "d")
	if want := fmt.Sprintf("%s:%d", r.label(), int64(size)+3); r.positions[0] != want {
		t.Errorf("the line is at %s; want %s", r.positions[0], want)
	}
	saved := r.checkpoint()
	d.append("node_fills/20260430/9", "rn\n")
	r = open(t, newSetup(d), saved)
	wantLines(t, r.step(6*time.Second), "torn")
	if s := r.tail.Stats(); s.RepeatedBytes != 0 || s.ReadBytes != 5 {
		t.Errorf("%d bytes repeated, %d read; want 0 and 5", s.RepeatedBytes, s.ReadBytes)
	}
}

func TestAnHourOf50GBHasFewMarkersThatAreDenseNearItsEnd(t *testing.T) {
	var markers []checkpoint.Hash
	for at := int64(markerEvery); at < 50e9; at += markerEvery {
		markers = thin(append(markers, checkpoint.Hash{At: at, Length: hashBytes}))
		if len(markers) > 80 {
			t.Fatalf("%d markers in the first %d bytes", len(markers), at)
		}
		if markers[0].At != markerEvery || markers[len(markers)-1].At != at {
			t.Fatalf("the markers range from %d to %d; want from %d to %d", markers[0].At, markers[len(markers)-1].At,
				markerEvery, at)
		}
		for i := 1; i < len(markers); i++ {
			if gap := markers[i].At - markers[i-1].At; gap > markerEvery && gap > (at-markers[i-1].At)/8 {
				t.Fatalf("no marker in %d bytes, %d before the end", gap, at-markers[i].At)
			}
		}
	}
}

func TestAFileResumesAtAMarkerBeyond4GiB(t *testing.T) {
	const hole = 40 << 30
	d := newDisk(t)
	name := "node_fills/20260430/9"
	d.append(name, "")
	if err := os.Truncate(d.path(name), hole-1); err != nil {
		t.Skipf("no file of %d bytes here: %v", int64(hole), err)
	}
	d.append(name, "\n")
	r := open(t, newSetup(d, func(o *Options) { o.StartAt = config.End }), nil)
	d.append(name, strings.Repeat(strings.Repeat("x", 1023)+"\n", 40<<10))
	r.step(time.Second)
	f := r.tail.dirs[0].files[0]
	marker, read := f.lastMarker(), f.next
	if len(r.got) != 40<<10 || read != hole+40<<20 || len(f.markers) < 3 || f.markers[0].At < hole {
		t.Fatalf("read %d lines up to %d; markers %v", len(r.got), read, f.markers)
	}
	saved := r.checkpoint()
	d.noError(os.Truncate(d.path(name), marker+1500))
	for what, r := range map[string]*reader{"running": r, "started": open(t, newSetup(d), saved)} {
		if got := r.step(time.Second); len(got) != 1 ||
			!strings.HasSuffix(r.positions[len(r.positions)-1], fmt.Sprint(":", marker)) {
			t.Errorf("%s: %d lines, the last at %s; want one at %d", what, len(got), r.positions[len(r.positions)-1], marker)
		}
		if n := r.tail.Stats().RepeatedBytes; n != 1500 {
			t.Errorf("%s: %d bytes repeated; want 1500", what, n)
		}
	}
}

func TestAutoFollowsTheNodeBackAndForthBetweenModes(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills_by_block/20260430/7", "stale\n")
	old := d.clock.Add(-24 * time.Hour)
	d.noError(os.Chtimes(d.path("node_fills_by_block/20260430/7"), old, old))
	d.append("node_fills/20260430/8", "start\n")
	r := open(t, newSetup(d, auto), nil)
	wantLines(t, r.step(time.Second), "start")
	dirs := []string{"node_fills_by_block", "node_fills_streaming", "node_fills"}
	for i := range 12 {
		dir := dirs[i%len(dirs)]
		*d.clock = d.clock.Add(time.Minute)
		// The same hour as before, and a next one.
		d.append(fmt.Sprintf("%s/20260430/%d", dir, 8+i/6), fmt.Sprintf("%d\n", i))
		wantLines(t, r.step(6*time.Second), fmt.Sprint(i))
		if s := r.tail.Stats(); s.Directory != dir {
			t.Errorf("reading %s while the node writes %s", s.Directory, dir)
		}
		if i%4 == 3 { // also while the parser is stopped
			saved := r.checkpoint()
			*d.clock = d.clock.Add(time.Minute)
			d.append(fmt.Sprintf("%s/20260430/%d", dir, 8+i/6), "more\n")
			r = open(t, newSetup(d, auto), saved)
			wantLines(t, r.step(6*time.Second), "more")
		}
	}
}

// The crash of a host, or a restarted node, may remove a part of a torn line just before it is read.
func TestATornLineTruncatedBetweenTheRefreshAndTheReadIsRetried(t *testing.T) {
	for left := range int64(10) {
		d := newDisk(t)
		d.append("node_fills/20260430/8", "whole\n0123")
		r := open(t, newSetup(d), nil)
		wantLines(t, r.step(time.Second), "whole")
		d.append("node_fills/20260430/8", "456789")
		if err := r.tail.refresh(); err != nil {
			t.Fatal(err)
		}
		d.noError(os.Truncate(d.path("node_fills/20260430/8"), 6+left))
		read := make(chan error, 1)
		go func() { read <- r.tail.readAll(t.Context()) }()
		select {
		case err := <-read:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("with %d bytes of the torn line left, the read does not end", left)
		}
		d.append("node_fills/20260430/8", " and the rest\n")
		wantLines(t, r.step(time.Second), "0123456789"[:left]+" and the rest")
	}
}
