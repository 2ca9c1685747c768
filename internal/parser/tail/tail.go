// Package tail reads what a Hyperliquid node writes: it finds a stream's hourly files, follows them from one hour to the
// next, and turns them into blocks of whole lines that know their place in their file.
//
// A file is its own memory of what was not yet read: a torn last line is not carried in the parser but read again, from the
// start of that line, when its newline has come. So every position is the start of a line, before and after a restart.
//
// The package must never change, lock or delete one of the node's files, never hand out a part of a line, never decide that
// something is a line because it parses, and never skip bytes without counting and saying so.
package tail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

const (
	// pollInterval is how often files are looked at when no notification comes: notifications are only a hint.
	pollInterval = 200 * time.Millisecond
	// gather is how long a notification waits for more of the same write, so that a wake reads more than one line.
	gather = 2 * time.Millisecond
	// grace is how long a file must not have grown before the next hour's is begun. Around a switch a node still writes to
	// the old file after the new one exists.
	grace = 2 * time.Second
	// sweepInterval is how often the files of earlier hours in the newest two folders are looked at for late appends. Those
	// in older folders have their turn once in roundTime.
	sweepInterval = 5 * time.Second
	// liveFiles is how many of the newest files are looked at every time: a node writes to them.
	liveFiles = 2
)

// ErrDirectoryGone says that the data directory was removed under the process. If it was made again at the same path, a
// mount still shows the removed one: only a new process sees the new one.
var ErrDirectoryGone = errors.New("the data directory was removed; the process must start again to see a new one")

// Directory is one of the directories in which a stream's files may be.
type Directory struct {
	Name string // such as "node_fills_by_block", under the data directory
	Mode config.Mode
}

// Options are what a Tailer is told.
type Options struct {
	DataDir string
	// Directories that the stream may be written to: one, or with mode Auto one for each mode. What is written is read; what
	// lies in the others from before the first start is stale and never read.
	Directories []Directory
	StartAt     config.StartAt
	// Once reads to the sizes seen by Open, and ends.
	Once         bool
	MaxLineBytes int64
	// ReadRate is shared by the streams of a process; nil: no limit.
	ReadRate *rate.Limiter
	Log      *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Tailer reads one stream. One goroutine calls Open and then Run; the others' methods may be called by anyone.
type Tailer struct {
	opt     Options
	buf     *buffer.Buffer
	log     *slog.Logger
	now     func() time.Time
	dirs    []*directory
	dataDir *os.File // held to notice its removal; nil while it does not exist
	watch   watcher
	// unlisted are the folders that could not be listed when they were looked at last.
	unlisted map[string]struct{}
	scratch  []byte // for looking for the end of a line longer than a block
	// want is the block size that this stream's lines ask for, at least buffer.BlockSize.
	want    int
	calm    int // blocks since a line was longer than a block
	sweepAt time.Time

	mu       sync.Mutex // guards the files and what follows
	counts   Counts
	lastLine time.Time
	current  *file // being read
	origins  map[*buffer.Origin]*file
	resumed  uint64                     // the number of the checkpoint with which this process began; 0: none
	named    map[checkpoint.FileID]bool // the names that files had, those of pruned ones too
	version  uint64                     // of what Files returns
	skipped  []buffer.Skip              // goes with the next lines
}

// Counts are totals since the start of the process.
type Counts struct {
	ReadBytes     int64 // whole lines handed to the buffer
	Late          int64 // lines read from a file after a newer one was begun
	Oversize      int64 // lines over MaxLineBytes
	PrunedUnread  int64 // files that vanished before they were read to their end
	SkippedBytes  int64 // bytes known to have been there and never read, lines over MaxLineBytes not counted
	RepeatedBytes int64 // bytes read again because a file shrank
	LargestLine   int64 // with its newline
}

// Add returns the sum of two counts, of which LargestLine is the larger.
func (c Counts) Add(other Counts) Counts {
	return Counts{
		ReadBytes: c.ReadBytes + other.ReadBytes, Late: c.Late + other.Late, Oversize: c.Oversize + other.Oversize,
		PrunedUnread: c.PrunedUnread + other.PrunedUnread, SkippedBytes: c.SkippedBytes + other.SkippedBytes,
		RepeatedBytes: c.RepeatedBytes + other.RepeatedBytes, LargestLine: max(c.LargestLine, other.LargestLine),
	}
}

// Stats are a Tailer's figures at one moment.
type Stats struct {
	Counts
	Found            bool   // at least one file of the stream was seen
	Directory        string // being read; empty until Found
	Mode             config.Mode
	File             string // being read, relative to the data directory
	Position         string // next byte to read
	Committed        string // next byte after a restart
	Unread           int64  // bytes on disk after Position, in all files, whole lines or not
	UncommittedBytes int64  // whole lines that are not committed, read or not; a torn tail is not counted
	OldestUnacked    time.Time
	LastLine         time.Time
}

// New returns a tailer that hands its blocks to buf.
func New(opt Options, buf *buffer.Buffer) *Tailer {
	t := &Tailer{
		opt: opt, buf: buf, log: opt.Log, now: opt.Now, want: buffer.BlockSize, unlisted: map[string]struct{}{},
		origins: map[*buffer.Origin]*file{}, named: map[checkpoint.FileID]bool{}, version: 1,
	}
	if t.now == nil {
		t.now = time.Now
	}
	for _, d := range opt.Directories {
		t.dirs = append(t.dirs, &directory{Directory: d, root: filepath.Join(opt.DataDir, d.Name, "hourly"), inodes: map[uint64]*file{}})
	}
	return t
}

// Run reads until the context is done, or with Once until everything that Open saw was handed over. Its error is
// ErrDirectoryGone, or the context's.
func (t *Tailer) Run(ctx context.Context) error {
	defer t.close()
	if !t.opt.Once {
		if err := t.watch.open(); err != nil {
			t.log.Info("no notifications of file changes; polling alone", "error", err)
		}
		t.sweepAt = time.Time{} // the folders that Open found are not watched yet
	}
	timer := time.NewTimer(pollInterval)
	defer timer.Stop()
	for {
		if err := t.look(); err != nil {
			return err
		}
		if err := t.readAll(ctx); err != nil {
			return err
		}
		if t.opt.Once {
			return t.finishOnce()
		}
		timer.Reset(pollInterval)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-t.watch.hint():
			timer.Reset(gather)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
		}
		t.watch.drain()
	}
}

// look brings the table of files up to date with the disk, without reading any.
func (t *Tailer) look() error {
	if err := t.checkDataDir(); err != nil {
		return err
	}
	if t.opt.Once {
		return nil
	}
	now := t.now()
	sweep := now.Sub(t.sweepAt) >= sweepInterval || now.Before(t.sweepAt)
	if sweep {
		t.sweepAt = now
	}
	for _, d := range t.dirs {
		t.scan(d, sweep)
		t.scanOld(d, now)
		fresh := len(d.files)
		if sweep && len(d.order) > 0 {
			fresh = d.before(d.order[max(len(d.order)-freshDates, 0)])
		}
		for i := min(d.rest, fresh); i < len(d.files); i++ {
			// A hint names the directory, not the file.
			if f := d.files[i]; i >= fresh || f.handle != nil || i >= len(d.files)-liveFiles || f.size > f.scanned {
				t.stat(d, f)
				t.wakeUp(d, i)
			}
		}
		t.dropGone(d, now)
		t.settle(d)
	}
	return nil
}

func (t *Tailer) checkDataDir() error {
	if t.dataDir == nil {
		f, err := os.Open(t.opt.DataDir)
		if err != nil {
			return nil // not there yet, or not readable yet: Stats.Found stays false and says so
		}
		t.dataDir = f
	}
	info, err := t.dataDir.Stat()
	if err != nil {
		return nil
	}
	if links(info) == 0 {
		return fmt.Errorf("%s: %w", t.opt.DataDir, ErrDirectoryGone)
	}
	return nil
}

// readAll reads what is on disk, file by file, in the order of time.
func (t *Tailer) readAll(ctx context.Context) error {
	for {
		progress := false
		// After a change of mode the directory written before is read to its end first.
		t.mu.Lock()
		slices.SortStableFunc(t.dirs, func(a, b *directory) int { return a.lastWrite().Compare(b.lastWrite()) })
		t.mu.Unlock()
		for _, d := range t.dirs {
			for f := t.next(d); f != nil; f = t.next(d) {
				progress = true
				if err := t.read(ctx, d, f); err != nil {
					return err
				}
			}
		}
		if !progress {
			return nil
		}
	}
}

// next returns the oldest file of d that has something to read and whose turn it is, or nil. Files up to the head may be
// read at any time; the file after it is begun when the head is drained.
func (t *Tailer) next(d *directory) *file {
	for i := d.rest; i < len(d.files); i++ {
		f := d.files[i]
		if i > d.head {
			if !t.drained(d, d.files[d.head], f) {
				return nil
			}
			t.leave(d.files[d.head])
			d.head = i
		}
		if f.limit() > f.scanned && !f.blocked {
			return f
		}
	}
	return nil
}

// leave closes a file that was drained, of an hour before the one that is begun. What it gets yet is late.
func (t *Tailer) leave(f *file) {
	if !f.gone {
		t.mu.Lock()
		f.closeHandle()
		t.mu.Unlock()
	}
}

// drained tells whether everything was read from f and nothing more is expected, so that the newer file may be begun.
func (t *Tailer) drained(d *directory, f, newer *file) bool {
	if f.limit() > f.scanned {
		return false
	}
	if t.opt.Once || f.gone {
		return true
	}
	if f.looks == 0 {
		if t.stat(d, f); f.limit() > f.scanned {
			return false
		}
	}
	now := t.now()
	if now.Sub(f.modified) >= grace && f.looks >= 1 || f.looks >= 2 && now.Sub(f.grownAt) >= grace {
		return true
	}
	// A block's number tells without waiting that nothing is missing between the two files.
	return d.Mode == config.ByBlock && f.next == f.size && f.lastBlock > 0 && t.firstBlock(newer) == f.lastBlock+1
}

// finishOnce says what a run with Once leaves behind.
func (t *Tailer) finishOnce() error {
	for path := range t.unlisted {
		return fmt.Errorf("%s could not be listed", path)
	}
	for _, d := range t.dirs {
		for _, f := range d.files {
			if f.blocked {
				return fmt.Errorf("%s could not be read to its end", f.rel)
			}
			if torn := f.limit() - f.next; torn > 0 {
				t.log.Warn("a torn last line was left: it has no newline yet", "file", f.rel, "offset", f.next, "bytes", torn)
			}
		}
	}
	return nil
}

func (t *Tailer) close() {
	t.watch.close()
	for _, d := range t.dirs {
		for _, f := range d.files {
			f.closeHandle()
		}
	}
	if t.dataDir != nil {
		_ = t.dataDir.Close()
		t.dataDir = nil
	}
}

// Ack tells that everything up to the end of the block was acknowledged by the sink. The block must not be released yet.
func (t *Tailer) Ack(block *buffer.Block) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.origins[block.Origin]
	if f == nil || block.End() < f.acked {
		return
	}
	f.acked = block.End()
	t.version++
	f.marker = checkpoint.Hash{}
	f.beforeAck = append(f.beforeAck[:0], block.Data[max(len(block.Data)-hashBytes, 0):]...)
	f.seen.acknowledge(f.acked)
}

// Version changes whenever Files would say something new, so that a stream at rest need not ask it: there may be an entry for
// each of ten thousand files.
func (t *Tailer) Version() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.version
}

// Files returns what a checkpoint must hold to go on after what was acknowledged: an entry for every file on disk.
func (t *Tailer) Files() []checkpoint.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []checkpoint.File
	for _, d := range t.dirs {
		for _, f := range d.files {
			out = append(out, f.entry())
		}
	}
	return out
}

// Committed tells that a checkpoint with what Files returned last is on disk.
func (t *Tailer) Committed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.dirs {
		for _, f := range d.files {
			f.committed = f.offered
		}
	}
}

// Stats returns the figures at this moment, consistent with one another.
func (t *Tailer) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Stats{Counts: t.counts, LastLine: t.lastLine}
	for _, d := range t.dirs {
		s.Found = s.Found || len(d.files) > 0
		for _, f := range d.files[d.rest:] {
			s.Unread += max(f.limit()-f.scanned, 0)
			s.UncommittedBytes += f.wholeEnd() - f.committed
			if at := f.seen.oldest(f.acked); !at.IsZero() && (s.OldestUnacked.IsZero() || at.Before(s.OldestUnacked)) {
				s.OldestUnacked = at
			}
		}
	}
	if f := t.current; f != nil {
		s.Directory, s.Mode, s.File = f.id.Directory, f.mode, f.rel
		s.Position = checkpoint.Position{File: f.id, Offset: f.next}.String()
		s.Committed = checkpoint.Position{File: f.id, Offset: f.committed}.String()
	}
	return s
}
