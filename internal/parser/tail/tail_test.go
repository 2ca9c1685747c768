package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
)

// failer is the common part of *testing.T and *rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

const (
	lineDir  = "node_fills"
	blockDir = "node_fills_by_block"
)

// disk plays the Hyperliquid node. It shares its clock with the tailer.
type disk struct {
	t     failer
	data  string
	clock *time.Time
}

func diskAt(t failer, data string) disk {
	now := time.Now()
	return disk{t, data, &now}
}

func (d disk) path(name string) string {
	parts := strings.SplitN(name, "/", 2)
	if len(parts) == 2 {
		return filepath.Join(d.data, parts[0], "hourly", parts[1])
	}
	return filepath.Join(d.data, name)
}

// append appends text to a file with a name such as "node_fills/20260430/8".
func (d disk) append(name, text string) {
	d.t.Helper()
	path := d.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatalf("%v", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		d.t.Fatalf("%v", err)
	}
	_, err = f.WriteString(text)
	d.noError(errors.Join(err, f.Close(), os.Chtimes(path, *d.clock, *d.clock)))
}

func (d disk) noError(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("%v", err)
	}
}

// reader drives a Tailer step by step with its own clock, and acknowledges what the Tailer emits.
type reader struct {
	t         failer
	tail      *Tailer
	buf       *buffer.Buffer
	clock     *time.Time
	log       *bytes.Buffer
	got       []string // all lines so far, without their newlines
	positions []string // "<file>:<offset>" of each line
	skips     []string // "<file> <bytes> before <offset>" of each skip that a block reports
}

// setup is the options of a tailer, and the disk that it reads.
type setup struct {
	Options
	disk disk
}

func newSetup(d disk, change ...func(*Options)) setup {
	opt := Options{
		Now:     func() time.Time { return *d.clock },
		DataDir: d.data, Directories: []Directory{{lineDir, config.Line}}, StartAt: config.Beginning, MaxLineBytes: 1 << 20,
		BlockNumber: hyperliquid.BlockNumber,
	}
	for _, c := range change {
		c(&opt)
	}
	return setup{opt, d}
}

func open(t failer, s setup, resume *checkpoint.State) *reader {
	t.Helper()
	r := &reader{t: t, buf: buffer.NewBudget(8<<20, 1).NewBuffer(), clock: s.disk.clock, log: &bytes.Buffer{}}
	s.Log = slog.New(slog.NewTextHandler(r.log, nil))
	r.tail = New(s.Options, r.buf)
	defer r.observe()()
	if err := r.tail.Open(resume); err != nil {
		t.Fatalf("opening: %v", err)
	}
	return r
}

// observe calls the methods that other goroutines may call, as reports and commits do, until it is stopped. The race
// detector then finds writes without the lock.
func (r *reader) observe() (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			r.tail.Stats()
			r.tail.Version()
			select {
			case <-done:
				return
			case <-time.After(100 * time.Microsecond):
			}
		}
	}()
	return func() { close(done); <-stopped }
}

// step advances the clock, refreshes and reads. It returns the emitted lines.
func (r *reader) step(d time.Duration) []string {
	r.t.Helper()
	before := len(r.got)
	*r.clock = r.clock.Add(d)
	defer r.observe()()
	if err := r.tail.refresh(); err != nil {
		r.t.Fatalf("refreshing: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- r.tail.readAll(context.Background()) }()
	for {
		select {
		case <-r.buf.NotEmpty():
			r.take(true)
		case err := <-done:
			if err != nil {
				r.t.Fatalf("reading: %v", err)
			}
			r.take(true)
			return r.got[before:]
		}
	}
}

func (r *reader) take(acknowledge bool) {
	r.t.Helper()
	batch := r.buf.Swap()
	for _, block := range batch.Blocks() {
		offset := block.Offset
		for _, s := range block.Skipped {
			r.skips = append(r.skips, fmt.Sprintf("%s %d before %d", s.File, s.Bytes, offset))
		}
		lines := 0
		for line := range bytes.Lines(block.Data) {
			if line[len(line)-1] != '\n' {
				r.t.Fatalf("a partial line was emitted: %q", line)
			}
			r.got = append(r.got, string(line[:len(line)-1]))
			r.positions = append(r.positions, fmt.Sprintf("%s:%d", block.Origin.Label, offset))
			offset += int64(len(line))
			lines++
		}
		if lines != block.Lines {
			r.t.Fatalf("a block of %d lines reports %d", lines, block.Lines)
		}
		if acknowledge {
			r.tail.Ack(block)
		}
		r.buf.Release(block)
	}
	r.buf.Recycle(batch)
}

// checkpoint returns the state that a restart would load.
func (r *reader) checkpoint() *checkpoint.State {
	files := r.tail.Files()
	r.tail.Committed()
	return &checkpoint.State{Files: files, CommittedAt: *r.clock}
}

func wantLines(t failer, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q; want %q", got, want)
	}
}

func newDisk(t testing.TB) disk { return diskAt(t, t.TempDir()) }

func TestBeginningReadsEveryFileOldestHourFirst(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/10", "c\n")
	d.append("node_fills/20260430/9", "b\n")
	d.append("node_fills/20260429/23", "a\n")
	d.append("node_fills/20260430/9.bak", "no\n")
	d.append("node_fills/20260430/09", "no\n")
	d.append("node_fills/latest/1", "no\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(3*time.Second), "a", "b", "c")
	if got := r.tail.Stats(); got.Late != 0 {
		t.Errorf("%d lines of a backlog count as late", got.Late)
	}
}

func TestEndBeginsAfterTheLastNewlineOfTheNewestFile(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "old\n")
	d.append("node_fills/20260430/8", "old\nto")
	r := open(t, newSetup(d, func(o *Options) { o.StartAt = config.End }), nil)
	wantLines(t, r.step(time.Second))
	d.append("node_fills/20260430/8", "rn\nnew\n")
	wantLines(t, r.step(time.Second), "torn", "new")
	d.append("node_fills/20260430/7", "late\n")
	wantLines(t, r.step(6*time.Second), "late")
}

func TestEndWithNoFileYetBeginsAtTheFirstByteThatAppears(t *testing.T) {
	d := newDisk(t)
	r := open(t, newSetup(d, func(o *Options) { o.StartAt = config.End }), nil)
	wantLines(t, r.step(time.Second))
	if r.tail.Stats().Found {
		t.Error("Found is set although there is no file")
	}
	d.append("node_fills/20260430/8", "first\n")
	wantLines(t, r.step(time.Second), "first")
}

func TestATornLineWaitsForItsNewlineAcrossARestart(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "whole\nto")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "whole")
	for range 3 {
		wantLines(t, r.step(time.Hour))
	}
	s := r.tail.Stats()
	if s.UncommittedBytes != int64(len("whole\n")) || !s.OldestUnacked.IsZero() {
		t.Errorf("a torn tail counts as pending: %d bytes uncommitted, oldest %v", s.UncommittedBytes, s.OldestUnacked)
	}
	r = open(t, newSetup(d), r.checkpoint())
	wantLines(t, r.step(time.Second))
	d.append("node_fills/20260430/8", "rn\n")
	wantLines(t, r.step(time.Second), "torn")
}

func TestTheAgeOfALineStartsAtItsNewline(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "to")
	r := open(t, newSetup(d), nil)
	r.step(time.Second)
	*r.clock = r.clock.Add(time.Hour)
	d.append("node_fills/20260430/8", "rn\n")
	if err := r.tail.refresh(); err != nil {
		t.Fatal(err)
	}
	if age := r.clock.Sub(r.tail.Stats().OldestUnacked); age != 0 {
		t.Errorf("the line is %v old although its newline has just arrived", age)
	}
	*r.clock = r.clock.Add(40 * time.Second)
	if age := r.clock.Sub(r.tail.Stats().OldestUnacked); age != 40*time.Second {
		t.Errorf("after 40 s without reading the line is %v old", age)
	}
	wantLines(t, r.step(0), "torn")
	if at := r.tail.Stats().OldestUnacked; !at.IsZero() {
		t.Errorf("everything is acknowledged, but a line is pending since %v", at)
	}
}

func TestTheOldHourIsDrainedBeforeTheNewOneIsStarted(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a")

	d.append("node_fills/20260430/9", "x\n")
	d.append("node_fills/20260430/8", "b\n")
	wantLines(t, r.step(100*time.Millisecond), "b")
	d.append("node_fills/20260430/8", "c\n")
	wantLines(t, r.step(1500*time.Millisecond), "c")
	wantLines(t, r.step(200*time.Millisecond)) // grace has not passed yet
	wantLines(t, r.step(200*time.Millisecond))
	d.append("node_fills/20260430/8", "d\n")
	wantLines(t, r.step(100*time.Millisecond), "d")
	wantLines(t, r.step(3*time.Second), "x")

	d.append("node_fills/20260430/8", "late\n")
	d.append("node_fills/20260430/9", "y\n")
	wantLines(t, r.step(100*time.Millisecond), "late", "y")
	if got := r.tail.Stats().Late; got != 1 {
		t.Errorf("%d late lines; want 1", got)
	}
}

func TestByBlockTheNewHourStartsImmediatelyWhenItsFirstBlockFollows(t *testing.T) {
	block := func(n int) string {
		return fmt.Sprintf(`{"local_time":"t","block_time":"t","block_number":%d,"events":[]}`, n)
	}
	d := newDisk(t)
	opt := newSetup(d, func(o *Options) { o.Directories = []Directory{{blockDir, config.ByBlock}} })
	d.append("node_fills_by_block/20260430/8", block(7)+"\n"+block(8)+"\n")
	r := open(t, opt, nil)
	wantLines(t, r.step(time.Second), block(7), block(8))
	d.append("node_fills_by_block/20260430/9", block(9)+"\n")
	wantLines(t, r.step(0), block(9))
	d.append("node_fills_by_block/20260430/10", block(11)+"\n")
	wantLines(t, r.step(0)) // block 10 may still be written to the old file
	d.append("node_fills_by_block/20260430/9", block(10)+"\n")
	wantLines(t, r.step(0), block(10), block(11))
}

func TestARestartContinuesAfterTheAcknowledgedLines(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\nb\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a", "b")
	saved := r.checkpoint()
	d.append("node_fills/20260430/8", "c\n")
	wantLines(t, r.step(time.Second), "c") // delivered, but not in a checkpoint

	d.append("node_fills/20260430/9", "d\n")
	r = open(t, newSetup(d), saved)
	wantLines(t, r.step(3*time.Second), "c", "d")
	wantLines(t, r.positions, saved.Files[0].String()+":4", r.tail.dirs[0].files[1].id.String()+":0")
}

func TestUnacknowledgedLinesAreReadAgain(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a")
	d.append("node_fills/20260430/8", "b\n")
	if err := r.tail.refresh(); err != nil {
		t.Fatal(err)
	}
	if err := r.tail.readAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.take(false)
	if s := r.tail.Stats(); s.UncommittedBytes != 4 {
		t.Errorf("%d bytes uncommitted; want 4", s.UncommittedBytes)
	}
	saved := r.checkpoint()
	wantLines(t, open(t, newSetup(d), saved).step(time.Second), "b")
}

func TestAFileIsRecognizedByItsContent(t *testing.T) {
	first := strings.Repeat("first line ", 20) + "\n"
	for name, c := range map[string]struct {
		change func(d disk)
		want   []string
	}{
		"renamed to another hour": {
			func(d disk) { d.noError(os.Rename(d.path("node_fills/20260430/8"), d.path("node_fills/20260430/7"))) },
			[]string{"new"},
		},
		"copied to a new inode at the same path": {func(d disk) { recreate(d, first+"second\nnew\n") }, []string{"new"}},
		"recreated with other content":           {func(d disk) { recreate(d, "other\nnew\n") }, []string{"other", "new"}},
		"truncated and rewritten": {
			func(d disk) { d.noError(os.WriteFile(d.path("node_fills/20260430/8"), []byte("other\n"), 0o644)) },
			[]string{"other"},
		},
		"the same head, another rest": {
			func(d disk) { recreate(d, first+"SECOND\nnew\n") }, []string{first[:len(first)-1], "SECOND", "new"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			d.append("node_fills/20260430/8", first+"second\n")
			r := open(t, newSetup(d), nil)
			wantLines(t, r.step(time.Second), first[:len(first)-1], "second")
			d.append("node_fills/20260430/8", "new\n")
			saved := r.checkpoint()
			c.change(d)
			r = open(t, newSetup(d), saved)
			wantLines(t, r.step(3*time.Second), c.want...)
		})
	}
}

// recreate replaces a file by a new inode at the same path.
func recreate(d disk, text string) {
	d.t.Helper()
	path := d.path("node_fills/20260430/8")
	d.noError(os.WriteFile(path+".new", []byte(text), 0o644))
	d.noError(os.Rename(path+".new", path))
}

func TestARecreatedHourIsReadFromItsFirstByteUnderAnotherName(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a")
	d.append("node_fills/20260430/8", "b\n")
	recreate(d, "x\ny\n")
	wantLines(t, r.step(time.Second), "b", "x", "y") // the handle still reaches the rest of the old file
	if a, x := r.positions[0], r.positions[2]; strings.Split(a, ":")[0] == strings.Split(x, ":")[0] {
		t.Errorf("two incarnations share the name %s", a)
	}
	wantLines(t, r.step(time.Second))
	if n := r.onDisk(); n != 1 {
		t.Errorf("%d files; only one is on disk", n)
	}
}

func TestAFileThatShrankResumesAtTheHighestMatchingMarker(t *testing.T) {
	d := newDisk(t)
	line := strings.Repeat("x", 99) + "\n"
	const lines = 200_000 // 20 MB: one marker
	d.append("node_fills/20260430/8", strings.Repeat(line, lines))
	r := open(t, newSetup(d), nil)
	for len(r.got) < lines {
		r.step(time.Second)
	}
	marker := r.tail.dirs[0].files[0].lastMarker()
	if marker < markerEvery {
		t.Fatalf("there is no marker after %d bytes", len(line)*lines)
	}
	d.noError(os.Truncate(d.path("node_fills/20260430/8"), marker+250))
	got := r.step(time.Second)
	if len(got) != 2 {
		t.Errorf("%d lines were read again; want the 2 complete ones after the marker", len(got))
	}
	if at := r.positions[len(r.positions)-1]; strings.HasPrefix(at, strings.Split(r.positions[0], ":")[0]) {
		t.Errorf("positions before and after share the name %s", at)
	}
	if n := r.tail.Stats().RepeatedBytes; n != 250 {
		t.Errorf("%d bytes counted as repeated; want 250", n)
	}
	d.append("node_fills/20260430/8", "end\n")
	wantLines(t, r.step(time.Second), strings.Repeat("x", 50)+"end")
}

func TestARemovedFileIsReadToItsEndThroughItsHandle(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a")
	d.append("node_fills/20260430/8", "b\n")
	d.noError(os.Remove(d.path("node_fills/20260430/8")))
	d.append("node_fills/20260430/9", "c\n")
	wantLines(t, r.step(time.Second), "b", "c")
	if s := r.tail.Stats(); s.PrunedUnread != 0 || s.SkippedBytes != 0 {
		t.Errorf("counted %d files, %d bytes as lost; want none", s.PrunedUnread, s.SkippedBytes)
	}
}

func TestPrunedUnreadDataIsCountedAndReported(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/7", "read\n")
	r := open(t, newSetup(d), nil)
	r.step(time.Second)
	d.append("node_fills/20260430/7", "unread\n")
	d.append("node_fills/20260430/8", "next\n")
	*r.clock = r.clock.Add(time.Second)
	if err := r.tail.refresh(); err != nil {
		t.Fatal(err)
	}
	saved := r.checkpoint()
	d.noError(os.Remove(d.path("node_fills/20260430/7")))

	r = open(t, newSetup(d), saved)
	wantLines(t, r.step(time.Second)) // it may have been moved away, and may return
	wantLines(t, r.step(lostAfter), "next")
	if s := r.tail.Stats(); s.PrunedUnread != 1 || s.SkippedBytes != 7 {
		t.Errorf("counted %d files, %d bytes; want 1 file, 7 bytes", s.PrunedUnread, s.SkippedBytes)
	}
	wantLines(t, r.skips, "node_fills/hourly/20260430/7 7 before 0")
	if !strings.Contains(r.log.String(), "removed before it was read") {
		t.Errorf("the log does not report it: %s", r.log)
	}
}

func TestALineLongerThanABlockIsEmittedWhole(t *testing.T) {
	d := newDisk(t)
	long := strings.Repeat("l", 3*buffer.BlockSize)
	d.append("node_fills/20260430/8", "a\n"+long[:2*buffer.BlockSize])
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a")
	d.append("node_fills/20260430/8", long[2*buffer.BlockSize:]+"\nb\n")
	wantLines(t, r.step(time.Second), long, "b")
	if got := r.tail.Stats().LargestLine; got != int64(len(long)+1) {
		t.Errorf("LargestLine is %d bytes; want %d", got, len(long)+1)
	}
}

func TestALineOverTheLimitIsSkippedOnceCountedAndReported(t *testing.T) {
	d := newDisk(t)
	huge := strings.Repeat("h", 3<<20)
	d.append("node_fills/20260430/8", "a\n"+huge[:2<<20])
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a")
	d.append("node_fills/20260430/8", huge[2<<20:]+"\nb\n")
	wantLines(t, r.step(time.Second), "b")
	if got := r.tail.Stats().Oversize; got != 1 {
		t.Errorf("%d lines counted as over the limit; want 1", got)
	}
	wantLines(t, r.skips, fmt.Sprintf("node_fills/hourly/20260430/8 %d before %d", len(huge)+1, len(huge)+3))
	if n := strings.Count(r.log.String(), "longer than maxLineBytes"); n != 1 ||
		!strings.Contains(r.log.String(), "offset=2") {
		t.Errorf("reported %d times; want once with its offset: %s", n, r.log)
	}
	d.append("node_fills/20260430/8", huge+"\n")
	wantLines(t, r.step(time.Second))
	d.append("node_fills/20260430/8", "c\n")
	r = open(t, newSetup(d), r.checkpoint())
	wantLines(t, r.step(time.Second), "c")
	if got := r.tail.Stats().Oversize; got != 0 {
		t.Errorf("a line skipped before the restart is counted again")
	}
}

func auto(o *Options) {
	o.Directories = []Directory{
		{lineDir, config.Line},
		{"node_fills_streaming", config.Streaming},
		{blockDir, config.ByBlock},
	}
}

func TestAutoReadsTheActiveDirectoryAndNeverAStaleOne(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills_by_block/20260429/8", "stale\nto")
	old := d.clock.Add(-24 * time.Hour)
	d.noError(os.Chtimes(d.path("node_fills_by_block/20260429/8"), old, old))
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d, auto), nil)
	wantLines(t, r.step(time.Second), "a")
	if s := r.tail.Stats(); s.Directory != lineDir || s.Mode != config.Line {
		t.Errorf("reading %s in mode %s", s.Directory, s.Mode)
	}
	d.noError(os.RemoveAll(d.path(lineDir))) // even if nothing else is left
	wantLines(t, r.step(10*time.Second))
	r = open(t, newSetup(d, auto), r.checkpoint())
	wantLines(t, r.step(10*time.Second))
}

func TestAutoFollowsAChangeOfModeWhileRunningAndWhileStopped(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d, auto), nil)
	wantLines(t, r.step(time.Second), "a")
	d.append("node_fills/20260430/8", "b\n")
	*d.clock = d.clock.Add(time.Millisecond)
	d.append("node_fills_by_block/20260430/8", "c\n")
	wantLines(t, r.step(6*time.Second), "b", "c")
	if s := r.tail.Stats(); s.Mode != config.ByBlock {
		t.Errorf("the mode is %s; want ByBlock", s.Mode)
	}
	saved := r.checkpoint()
	saved.CommittedAt = d.clock.Add(-time.Minute)
	d.append("node_fills_by_block/20260430/8", "d\n")
	*d.clock = d.clock.Add(time.Millisecond)
	d.append("node_fills_streaming/20260430/8", "e\n")
	r = open(t, newSetup(d, auto), saved)
	wantLines(t, r.step(6*time.Second), "d", "e")
}

func TestAnUnreadableFileIsReportedAndReadLater(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything; run this test as an ordinary user")
	}
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\n")
	d.noError(os.Chmod(d.path("node_fills/20260430/8"), 0))
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second))
	if !strings.Contains(r.log.String(), "cannot be read") {
		t.Errorf("the log does not report it: %s", r.log)
	}
	d.noError(os.Chmod(d.path("node_fills/20260430/8"), 0o644))
	wantLines(t, r.step(time.Second), "a")
}

func TestTheReaderObservesNewDataWhileItWaitsForRoom(t *testing.T) {
	d := newDisk(t)
	line := strings.Repeat("x", 1023) + "\n"
	d.append("node_fills/20260430/8", strings.Repeat(line, 10_000)) // more than the buffer holds
	r := open(t, newSetup(d), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 3*pollInterval)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.tail.readAll(ctx) }()
	d.append("node_fills/20260430/8", line)
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("readAll returned %v; want it to wait for room until its context ends", err)
	}
	if s := r.buf.Stats(); s.Bytes > 8<<20 {
		t.Errorf("%d bytes in a buffer of 8 MiB", s.Bytes)
	}
	if s := r.tail.Stats(); s.UncommittedBytes != 10_001*1024 {
		t.Errorf("%d bytes uncommitted; want all that is on disk, %d", s.UncommittedBytes, 10_001*1024)
	}
	for len(r.got) < 10_001 {
		r.step(time.Second)
	}
}

func TestOnceReadsToTheSizesAtTheStartAndReportsATornTail(t *testing.T) {
	defer goleak.VerifyNone(t)
	d := newDisk(t)
	d.append("node_fills/20260430/8", "a\nto")
	d.append("node_fills/20260430/9", "b\n")
	r := open(t, newSetup(d, func(o *Options) { o.Once = true }), nil)
	d.append("node_fills/20260430/9", "after the start\n")
	d.append("node_fills/20260430/10", "after the start\n")
	if err := r.tail.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.take(true)
	wantLines(t, r.got, "a", "b")
	if !strings.Contains(r.log.String(), "torn last line") {
		t.Errorf("the torn tail is not reported: %s", r.log)
	}
}

func TestRunFollowsTheNodeUntilItIsCanceled(t *testing.T) {
	defer goleak.VerifyNone(t)
	d := newDisk(t)
	opt := newSetup(d)
	opt.Now = nil
	buf := buffer.NewBudget(8<<20, 1).NewBuffer()
	opt.Log = slog.New(slog.DiscardHandler)
	tailer := New(opt.Options, buf)
	if err := tailer.Open(nil); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tailer.Run(ctx) }()
	lines := 0
	for i := range 20 {
		d.append("node_fills/20260430/8", fmt.Sprintf("%d\n", i))
		select {
		case <-buf.NotEmpty():
			for _, block := range buf.Swap().Blocks() {
				lines += block.Lines
				buf.Release(block)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("line %d was not emitted within 10 s", i)
		}
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("Run returned %v", err)
	}
	if lines != 20 {
		t.Fatalf("%d lines; want 20", lines)
	}
}

func TestARemovedDataDirectoryEndsTheRun(t *testing.T) {
	d := diskAt(t, filepath.Join(t.TempDir(), "data"))
	d.append("node_fills/20260430/8", "a\n")
	r := open(t, newSetup(d), nil)
	wantLines(t, r.step(time.Second), "a")
	d.noError(os.RemoveAll(d.data))
	d.noError(os.Mkdir(d.data, 0o755))
	if err := r.tail.refresh(); !errors.Is(err, ErrDirectoryGone) {
		t.Fatalf("refresh returned %v; want ErrDirectoryGone", err)
	}
}

// Whatever a node does to its files, except taking lines back, each line after the acknowledged ones is emitted once,
// and the lines of one file in order. A line that is emitted again after a restart has the position that it had, by
// which a destination recognises it.
func TestModelOfANodeAndRestarts(t *testing.T) {
	base := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		d := diskAt(rt, filepath.Join(base, fmt.Sprint(runs)))
		hour, next := 0, 0
		torn := map[int]bool{}
		written := map[int][]string{} // complete lines by hour
		pending := map[int]string{}
		name := func(h int) string { return fmt.Sprintf("node_fills/202604%02d/%d", 1+h/24, h%24) }
		write := func(h int, whole bool, size int) {
			text := fmt.Sprintf("%d %d %s", h, next, strings.Repeat("x", size))
			next++
			if torn[h] { // complete the torn line first
				d.append(name(h), "\n")
				written[h] = append(written[h], pending[h])
				torn[h] = false
			}
			if whole {
				d.append(name(h), text+"\n")
				written[h] = append(written[h], text)
				return
			}
			d.append(name(h), text)
			torn[h], pending[h] = true, text
		}
		write(0, true, 3)
		r := open(rt, newSetup(d), nil)
		saved := r.checkpoint()
		delivered := map[int][]string{}  // up to the saved checkpoint
		fresh := map[int][]string{}      // since
		positions := map[string]string{} // of each line that was ever emitted
		collect := func() {
			for i, line := range r.got {
				var h int
				if _, err := fmt.Sscanf(line, "%d ", &h); err != nil {
					rt.Fatalf("line %q: %v", line, err)
				}
				if before, ok := positions[line]; ok && before != r.positions[i] {
					rt.Fatalf("line %.20q was at %s, and is at %s after a restart", line, before, r.positions[i])
				}
				positions[line] = r.positions[i]
				fresh[h] = append(fresh[h], line)
			}
			r.got, r.positions = nil, nil
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			steps := []string{
				"write", "write", "torn", "huge", "hour", "gap", "late", "step", "step", "save", "restart",
			}
			switch rapid.SampledFrom(steps).Draw(rt, "step") {
			case "write":
				write(hour, true, rapid.IntRange(0, 2000).Draw(rt, "size"))
			case "torn":
				write(hour, false, rapid.IntRange(0, 2000).Draw(rt, "size"))
			case "huge":
				write(hour, rapid.Bool().Draw(rt, "whole"), buffer.BlockSize+rapid.IntRange(0, buffer.BlockSize).Draw(rt, "size"))
			case "hour":
				hour++
				write(hour, rapid.Bool().Draw(rt, "whole"), 10)
			case "gap": // the hour between may come late
				hour += 2
				write(hour, true, 10)
			case "late":
				write(rapid.IntRange(0, hour).Draw(rt, "hour"), true, 20)
			case "step":
				pauses := []time.Duration{0, 100 * time.Millisecond, 3 * time.Second, 6 * time.Second}
				r.step(rapid.SampledFrom(pauses).Draw(rt, "pause"))
				collect()
			case "save":
				sequence := saved.Sequence + 1
				saved = r.checkpoint()
				saved.Sequence = sequence
				for h, lines := range fresh {
					delivered[h] = append(delivered[h], lines...)
				}
				fresh = map[int][]string{}
			case "restart":
				r.tail.Close()
				fresh = map[int][]string{}
				r = open(rt, newSetup(d), saved)
			}
		}
		for range 3 + 2*hour {
			r.step(6 * time.Second)
			collect()
		}
		r.tail.Close()
		for h := range hour + 1 {
			got := append(slices.Clone(delivered[h]), fresh[h]...)
			if !slices.Equal(got, written[h]) {
				rt.Fatalf("hour %d: %d lines were emitted; %d were written", h, len(got), len(written[h]))
			}
		}
		if s := r.tail.Stats(); s.PrunedUnread != 0 || s.RepeatedBytes != 0 || s.Oversize != 0 {
			rt.Fatalf("counted %+v; want nothing lost, repeated or skipped", s.Counts)
		}
	})
}
