// Package tail reads the output of a Hyperliquid node. It finds a stream's hourly files, follows them from one hour to
// the next, and turns them into blocks of complete lines that know their position in their file.
//
// Unread data stays in the node's file only. A torn last line is not kept in the parser. It is read again, from the
// start of the line, after its newline has been written. Every position is therefore the start of a line, before and
// after a restart.
//
// The package must never change, lock or delete one of the node's files. It must never emit a partial line, never
// accept something as a line because it parses, and never skip bytes without counting and reporting them.
package tail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const (
	// pollInterval is the interval at which files are checked without a notification. Notifications are only a hint.
	pollInterval = 200 * time.Millisecond
	// coalesceDelay is the time for which a notification waits for more of the same write, so that one wakeup reads
	// several lines.
	coalesceDelay = 2 * time.Millisecond
	// onceRefreshes is the number of refreshes for which a run with Once retries what it cannot read: 3 s.
	onceRefreshes = 15
	// grace is the time without growth after which the file of the next hour is started. Around a switch, a node still
	// writes to the old file after it has created the new one.
	grace = 2 * time.Second
	// sweepInterval is the interval at which the files of earlier hours in the newest two folders are checked for late
	// appends. Those in older folders are checked once per passTime.
	sweepInterval = 5 * time.Second
	// liveFiles is the number of newest files that every refresh checks, because a node writes to them.
	liveFiles = 2
)

// ErrDirectoryGone reports that the data directory was removed while the process ran. If it was recreated at the same
// path, a mount still shows the removed one. Only a new process sees the new directory.
var ErrDirectoryGone = errors.New("the data directory was removed; the process must restart to see a new one")

// ErrNoBlocks reports that the lines of a stream do not name their block, although it starts at a block.
var ErrNoBlocks = errors.New("the stream cannot start at a block")

// Directory is one of the directories that may hold a stream's files.
type Directory struct {
	Name string // such as "node_fills_by_block", in the data directory
	Mode config.Mode
}

// ErrUnread is matched by the error of Run with Once if something that should have been read was not. After its first
// line, the error text has one line for each unread item.
var ErrUnread = errors.New("not everything was read")

// Options configure a Tailer.
type Options struct {
	DataDir string
	// Links are directories outside the data directory that links in it may lead to.
	Links []string
	// Tree is the data directory. Defaults to DataDir on the machine's file system.
	Tree vfs.Tree
	// Directories are the directories that the stream may be written to: one, or one per mode with mode Auto. The
	// active directory is read. Files in the others that predate the first start are stale and never read.
	Directories []Directory
	StartAt     config.StartAt
	// StartBlock is the block that a stream with StartAt AtBlock starts at, from 1. For a stream that was read before, it
	// is the block that it started at; 0 means that it did not start at a block.
	StartBlock int64
	// Once reads up to the file sizes that Open finds, and then ends.
	Once bool
	// BlockNumber returns the block number of a line that names it, from at least the line's first KiB. StartBlock needs
	// it. In mode ByBlock it also makes the switch to the next hour happen sooner: without a number, the switch waits for
	// grace. Defaults to no number.
	BlockNumber func(line []byte) (number int64, ok bool)
	// MaxLineBytes is the maximum length of a line, including its newline. Longer lines are skipped and counted.
	MaxLineBytes int64
	// ReadRate is shared by the streams of a process. Nil means no limit.
	ReadRate *rate.Limiter
	Log      *slog.Logger
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
}

// Tailer reads one stream. One goroutine calls Open, Watch, Run and Close. Any goroutine may call the other methods.
type Tailer struct {
	opt     Options
	buf     *buffer.Buffer
	log     *slog.Logger
	now     func() time.Time
	tree    vfs.Tree
	dirs    []*directory
	visible bool // the last refresh found the data directory
	watch   watcher
	decided chan struct{}
	// starting reports whether it is undecided where the files of a stream that was never read start.
	starting bool
	// awaitsBlock reports whether the stream starts at a block and has emitted no line of it or of a later one.
	awaitsBlock    bool
	checkpointAt   time.Time     // commit time of the checkpoint that this process resumed
	refreshes      uint64        // number of refreshes so far
	forgetAfter    time.Duration // the constant, except in tests
	missingPath    string        // a missing path that held files of the stream; empty if there is none
	logWindowStart time.Time     // start of the interval to which logged and suppressed apply
	logged         int
	suppressed     int
	scratch        []byte // for finding the end of a line longer than a block
	// blockSize is the block size that this stream's lines require, at least buffer.BlockSize.
	blockSize   int
	shortBlocks int // number of blocks since long lines last required a larger block size
	sweptAt     time.Time

	mu                 sync.Mutex // guards the files and the fields below
	opened             bool       // Open has read the directories
	failures           map[string]*failure
	counts             Counts
	lastLine           time.Time
	current            *hourFile // being read
	origins            map[*buffer.Origin]*hourFile
	checkpointSequence uint64                   // sequence of the checkpoint that this process resumed; 0 if none
	usedIDs            map[position.FileID]bool // the IDs that files have had, including pruned files
	version            uint64                   // changes with the result of Files
	skipped            []buffer.Skip            // reported with the next block
}

// Counts are totals since the start of the process.
type Counts struct {
	ReadBytes     int64 // bytes of complete lines emitted to the buffer
	Late          int64 // lines read from a file after a newer file was started
	Oversize      int64 // lines longer than MaxLineBytes
	PrunedUnread  int64 // files that were removed before they were read to their end
	SkippedBytes  int64 // bytes that were on disk and never read, excluding lines over MaxLineBytes
	RepeatedBytes int64 // bytes read again because a file shrank
	LargestLine   int64 // bytes of the longest line, including its newline
	// PassedOver is the number of bytes that the start skipped deliberately: what was on disk before StartAt End, and
	// the stale directories of mode Auto.
	PassedOver int64
}

// Add returns the sum of two counts. LargestLine of the result is the larger of the two.
func (c Counts) Add(other Counts) Counts {
	return Counts{
		ReadBytes: c.ReadBytes + other.ReadBytes, Late: c.Late + other.Late, Oversize: c.Oversize + other.Oversize,
		PrunedUnread: c.PrunedUnread + other.PrunedUnread, SkippedBytes: c.SkippedBytes + other.SkippedBytes,
		RepeatedBytes: c.RepeatedBytes + other.RepeatedBytes, LargestLine: max(c.LargestLine, other.LargestLine),
		PassedOver: c.PassedOver + other.PassedOver,
	}
}

// Stats are a Tailer's figures at one moment.
type Stats struct {
	Counts
	Found            bool   // at least one file of the stream was found
	Directory        string // the directory being read; empty until Found
	Mode             config.Mode
	File             string    // the file being read, relative to the data directory
	Position         string    // position of the next byte to read
	Committed        string    // position of the next byte after a restart
	Unread           int64     // bytes on disk that are not read, in all files, including torn lines
	UncommittedBytes int64     // bytes of complete lines that are not committed, read or not
	OldestUnacked    time.Time // when the oldest unacknowledged line was first observed; zero if there is none
	LastLine         time.Time // when the last line was read
	// Scanned reports whether Open has read the directories. Before that, Unread, UncommittedBytes and OldestUnacked
	// have no meaning.
	Scanned bool
	// LagEstimated reports whether OldestUnacked is derived from a file's own modification time, because no process
	// observed the line's arrival.
	LagEstimated bool
	// Blocked is a path that should be read and cannot be. It is nil if there is none.
	Blocked *Blocked
}

// Blocked is a file or folder that should be read and cannot be. It is retried with backoff.
type Blocked struct {
	Path  string    // relative to the data directory, "." for the data directory
	Err   error     // wraps the errno, if there is one
	Since time.Time // when the error was first observed
	Count int       // number of blocked paths; Path is the most important one
	// Denied is what refuses the parser; nil when permission was not denied, or when the system does not say.
	Denied *Denied
}

// Denied is a file or folder that refuses the parser: the one that should be read, or one above it.
type Denied struct {
	Path  string      // relative to the data directory, "." for the data directory; absolute above it
	Owner int64       // user ID
	Mode  fs.FileMode // permission bits
}

// New returns a tailer that appends its blocks to buf.
func New(opt Options, buf *buffer.Buffer) *Tailer {
	t := &Tailer{
		opt: opt, buf: buf, log: opt.Log, now: opt.Now, tree: opt.Tree, blockSize: buffer.BlockSize,
		failures: map[string]*failure{},
		origins:  map[*buffer.Origin]*hourFile{}, usedIDs: map[position.FileID]bool{}, version: 1,
		decided: make(chan struct{}), forgetAfter: forgetAfter,
	}
	if t.now == nil {
		t.now = time.Now
	}
	if t.tree == nil {
		t.tree = vfs.NewTree(opt.DataDir, opt.Links)
	}
	if t.opt.BlockNumber == nil {
		t.opt.BlockNumber = func([]byte) (int64, bool) { return 0, false }
	}
	for _, d := range opt.Directories {
		t.dirs = append(t.dirs, &directory{
			Directory: d, root: path.Join(d.Name, "hourly"), inodes: map[uint64]*hourFile{}, foreign: map[string]string{},
		})
	}
	return t
}

// Run reads until the context is done or, with Once, until everything that Open found was emitted. Its error is
// ErrDirectoryGone, ErrNoBlocks, the context's error or, with Once, ErrUnread.
func (t *Tailer) Run(ctx context.Context) error {
	defer t.Close()
	if !t.opt.Once {
		if err := t.watch.open(); err != nil {
			t.log.Info("no file notifications; polling only", "error", err)
		}
		t.sweptAt = time.Time{} // watch the folders that Open found
	}
	timer := time.NewTimer(pollInterval)
	defer timer.Stop()
	for {
		if err := t.refresh(); err != nil {
			return err
		}
		if err := t.readAll(ctx); err != nil {
			return err
		}
		if t.opt.Once && !t.mayFindMore() {
			return t.finishOnce()
		}
		timer.Reset(pollInterval)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-t.watch.hint():
			timer.Reset(coalesceDelay)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
		}
		t.watch.drain()
	}
}

// Decided returns a channel that is closed when it is decided where every file starts. Before that, nothing is read and
// there is no position that a checkpoint could record.
func (t *Tailer) Decided() <-chan struct{} { return t.decided }

// Watch keeps the figures current and reads nothing, until the context is done. It is for the time before the sink is
// open, and for a stream that has failed. It may be called between Open and Run, or instead of Run. Its error is
// ErrDirectoryGone, ErrNoBlocks or the context's error.
func (t *Tailer) Watch(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if err := t.refresh(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// refresh updates the table of files from the disk, without reading any of them.
func (t *Tailer) refresh() error {
	t.refreshes++
	if err := t.refreshDataDir(); err != nil {
		return err
	}
	if t.opt.Once {
		return t.refreshOnce()
	}
	now := t.now()
	sweep := now.Sub(t.sweptAt) >= sweepInterval || now.Before(t.sweptAt)
	if sweep {
		t.sweptAt = now
	}
	for _, d := range t.dirs {
		t.scan(d, sweep)
		if d.present {
			t.scanOld(d, now)
		}
		recent := len(d.files)
		if sweep && len(d.sortedDates) > 0 {
			recent = d.indexOfDate(d.sortedDates[max(len(d.sortedDates)-recentDates, 0)])
		}
		for i := min(d.idle, recent); i < len(d.files); i++ {
			// A hint names the directory, not the file.
			f := d.files[i]
			if i < recent && f.handle == nil && i < len(d.files)-liveFiles && f.size <= f.scanned {
				continue
			}
			t.stat(d, f)
			if i < len(d.files) && d.files[i] != f { // it left the table
				i--
				continue
			}
			t.unmarkIdle(d, i)
			t.measureTail(f)
		}
		t.dropGone(d)
		t.trackMissing(d, now, sweep)
		t.markIdle(d)
	}
	if err := t.decideStart(); err != nil {
		return err
	}
	t.checkMissing()
	return nil
}

func (t *Tailer) refreshDataDir() error {
	err := t.tree.Refresh()
	t.visible = err == nil
	switch {
	case errors.Is(err, vfs.ErrRemoved):
		return fmt.Errorf("%s: %w", t.opt.DataDir, ErrDirectoryGone)
	case err == nil:
		t.clearFailure(".")
	case !errors.Is(err, fs.ErrNotExist):
		// A directory that does not exist yet is no failure. checkMissing handles one that disappeared.
		t.recordFailure(".", err)
	}
	return nil
}

// readAll reads what is on disk, file by file, in chronological order.
func (t *Tailer) readAll(ctx context.Context) error {
	for {
		progress := false
		// After a change of mode, the previous directory is read to its end first.
		t.mu.Lock()
		slices.SortStableFunc(t.dirs, func(a, b *directory) int {
			switch {
			case writtenAfter(a, b):
				return 1
			case writtenAfter(b, a):
				return -1
			}
			return 0
		})
		t.mu.Unlock()
		for _, d := range t.dirs {
			for f := t.next(d); f != nil; f = t.next(d) {
				if t.awaitsBlock && d.Mode == config.Line {
					return t.noBlocks(d)
				}
				progress = true
				if err := t.readFile(ctx, d, f); err != nil {
					return err
				}
			}
		}
		if !progress {
			return nil
		}
	}
}

// next returns the oldest file of d that has something to read and may be read now, or nil. Files up to the head may be
// read at any time. The file after the head is started when the head is drained and no older file is missing with
// unread data.
func (t *Tailer) next(d *directory) *hourFile {
	if t.starting {
		return nil
	}
	for i := d.idle; i < len(d.files); i++ {
		f := d.files[i]
		if i > d.head {
			if !t.drained(d, d.files[d.head], f) {
				return nil
			}
			if d.mustWait(f) {
				return nil
			}
			t.leave(d.files[d.head])
			d.head = i
		}
		if f.undecided || f.blocked && t.backingOff(f.rel) || f.limit() <= f.scanned || d.mustWait(f) {
			continue
		}
		return f
	}
	return nil
}

// leave closes a drained file when the next hour's file is started. Later appends to it are late.
func (t *Tailer) leave(f *hourFile) {
	if !f.gone {
		t.mu.Lock()
		f.closeHandle()
		t.mu.Unlock()
	}
}

// drained reports whether f was read completely and no more data is expected, so that the newer file may be started.
func (t *Tailer) drained(d *directory, f, newer *hourFile) bool {
	if f.undecided || f.limit() > f.scanned {
		return false
	}
	if t.opt.Once || f.gone {
		return true
	}
	if f.unchanged == 0 {
		if t.stat(d, f); f.limit() > f.scanned {
			return false
		}
	}
	now := t.now()
	if now.Sub(f.modified) >= grace && f.unchanged >= 1 || f.unchanged >= 2 && now.Sub(f.grownAt) >= grace {
		return true
	}
	// Consecutive block numbers prove without waiting that nothing is missing between the two files.
	return d.Mode == config.ByBlock && f.next == f.size && f.lastBlock > 0 && t.firstBlock(newer) == f.lastBlock+1
}

// Close closes the node's files. Run calls it. After Watch without Run, the caller must call it.
func (t *Tailer) Close() {
	t.watch.close()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.dirs {
		for _, f := range d.files {
			f.closeHandle()
		}
	}
	if err := t.tree.Close(); err != nil {
		t.log.Warn("closing the data directory", "error", err)
	}
}

// directoryNames returns the names of the stream's directories, for messages.
func (t *Tailer) directoryNames() string {
	names := make([]string, 0, len(t.opt.Directories))
	for _, d := range t.opt.Directories {
		names = append(names, path.Join(d.Name, "hourly"))
	}
	return strings.Join(names, " or ")
}

// Ack records that the sink has acknowledged everything up to the end of the block. The block must not be released yet.
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
	f.arrivals.acknowledge(f.acked)
}

// SeenAt returns when the first line of a block was first observed on disk, by this process or an earlier one. observed
// is false if nobody observed its arrival. The block must not be acknowledged yet.
func (t *Tailer) SeenAt(block *buffer.Block) (at time.Time, observed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.origins[block.Origin]
	if f == nil {
		return time.Time{}, false
	}
	at, estimated := f.arrivals.oldest(block.Offset)
	return at, !at.IsZero() && !estimated
}

// Version returns a number that changes whenever the result of Files changes. An idle stream can thus avoid calling
// Files, which may return ten thousand entries.
func (t *Tailer) Version() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.version
}

// Files returns what a checkpoint must record to continue after what was acknowledged: an entry for every file on disk,
// and for every missing file that is not forgotten.
func (t *Tailer) Files() []checkpoint.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []checkpoint.File
	for _, d := range t.dirs {
		offer := func(f *hourFile) {
			out = append(out, f.entry())
			d.offered = laterHour(d.offered, f.id)
		}
		for _, f := range d.files {
			if !f.undecided {
				offer(f)
			}
		}
		for _, f := range d.missing {
			offer(f)
		}
	}
	return out
}

// Saved records that a checkpoint with the files of the last result of Files is on disk, at the positions of that
// result or at earlier ones.
func (t *Tailer) Saved() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.saved()
}

func (t *Tailer) saved() {
	for _, d := range t.dirs {
		d.newest = laterHour(d.newest, d.offered)
	}
}

// Committed records that a checkpoint with the last result of Files is on disk.
func (t *Tailer) Committed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.saved()
	for _, d := range t.dirs {
		for _, f := range d.files {
			f.committed = f.offered
		}
		for _, f := range d.missing {
			f.committed = f.offered
		}
	}
}

// Stats returns the figures at this moment, consistent with one another.
func (t *Tailer) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Stats{Counts: t.counts, LastLine: t.lastLine, Scanned: t.opened && !t.starting, Blocked: t.blocked()}
	for _, d := range t.dirs {
		s.Found = s.Found || len(d.files) > 0
		for _, f := range d.files[d.idle:] {
			s.add(f)
		}
		for _, f := range d.unfinished {
			s.add(f)
		}
	}
	if f := t.current; f != nil {
		s.Directory, s.Mode, s.File = f.id.Directory, f.mode, f.rel
		s.Position = position.Position{File: f.id, Offset: f.next}.String()
		s.Committed = position.Position{File: f.id, Offset: f.committed}.String()
	}
	return s
}

// add adds the figures of a file.
func (s *Stats) add(f *hourFile) {
	if f.undecided {
		return
	}
	s.Unread += max(f.limit()-f.scanned, 0)
	s.UncommittedBytes += f.wholeEnd() - f.committed
	at, estimated := f.arrivals.oldest(f.acked)
	if !at.IsZero() && f.wholeEnd() > f.acked && (s.OldestUnacked.IsZero() || at.Before(s.OldestUnacked)) {
		s.OldestUnacked, s.LagEstimated = at, estimated
	}
}
