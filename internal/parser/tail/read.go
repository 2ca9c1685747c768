package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/newline"
)

const (
	// shortBlocksBeforeShrink is the number of blocks without long lines after which the block size is reset.
	shortBlocksBeforeShrink = 64
	// maxBlockSize bounds the block size that long lines require, in bytes. Longer lines get memory of their own.
	maxBlockSize = 4 << 20
)

// errOtherFile reports that the file at a path is not the expected one.
var errOtherFile = fmt.Errorf("another file is at this path: %w", fs.ErrNotExist)

// openFile opens a file for reading, and verifies that it is the file that was observed.
func (t *Tailer) openFile(f *hourFile) error {
	if f.handle != nil {
		return nil
	}
	h, err := t.tree.Open(f.rel)
	if err != nil {
		return err
	}
	info, err := h.Stat()
	if err == nil && inodeOf(info) != f.inode {
		err = errOtherFile
	}
	if err == nil && f.unverified {
		var same bool
		if same, err = t.matchesRead(h, f); err == nil && !same {
			err = errOtherFile
		}
	}
	if err != nil {
		_ = h.Close()
		return err
	}
	t.mu.Lock()
	f.handle, f.unverified, f.dev = h, false, devOf(info)
	t.mu.Unlock()
	return nil
}

// readFile emits the content of f up to its limit.
func (t *Tailer) readFile(ctx context.Context, d *directory, f *hourFile) error {
	if err := t.openFile(f); err != nil {
		switch {
		case f.unverified && errors.Is(err, errOtherFile):
			t.markGone(d, f)
			t.addFile(d, f.id.Date, f.id.Hour)
			t.identify(d)
		case errors.Is(err, fs.ErrNotExist):
			rel := f.rel
			if t.stat(d, f); !f.gone && f.rel == rel { // its folder still lists it
				t.markBlocked(f, err)
			}
		default:
			t.markBlocked(f, err)
		}
		return nil
	}
	if f.blocked {
		t.mu.Lock()
		f.blocked = false
		t.mu.Unlock()
	}
	t.mu.Lock()
	t.current, d.started = f, true
	t.mu.Unlock()
	for f.readable() {
		if err := ctx.Err(); err != nil {
			return err // a restart reads the rest, however much it is
		}
		if err := t.pace(ctx); err != nil {
			return err
		}
		if !f.readable() { // a refresh during the wait may have changed the file
			break
		}
		if err := t.readBlock(ctx, d, f); err != nil {
			return err
		}
	}
	if len(d.files) > d.head && d.files[d.head] != f {
		t.mu.Lock()
		f.closeHandle() // the file of an earlier hour may stay on disk for days
		t.mu.Unlock()
	}
	return nil
}

// readBlock emits one block of complete lines, or finds that the rest of the file is not a complete line yet.
func (t *Tailer) readBlock(ctx context.Context, d *directory, f *hourFile) error {
	f.cache.beforeRead(f.handle, f.next, f.size)
	want, charged := int64(t.blockSize), f.scanned
	if f.skipping || f.scanned-f.next >= buffer.BlockSize {
		skipped := f.skipping
		end, found, err := t.findNewline(f)
		if err != nil {
			t.markBlocked(f, err)
			return nil
		}
		t.charge(end - charged)
		charged = end
		if length := end - f.next; !f.skipping && length > t.opt.MaxLineBytes {
			t.mu.Lock()
			f.skipping = true
			t.mu.Unlock()
			t.countOversize(f, length)
		}
		if !found {
			t.markTorn(f, end)
			if end < f.limit() && skipped == f.skipping { // the file shrank between the refresh and the read
				t.stat(d, f)
			}
			return nil
		}
		if f.skipping {
			return t.skipLine(f, end)
		}
		want = max(end-f.next, want)
	}
	block, err := t.getBlock(ctx, int(min(want, max(f.limit()-f.next, 1))))
	if err != nil {
		return err
	}
	memory := block.Memory()
	chunk := memory[:min(int64(len(memory)), f.limit()-f.next)]
	n, err := f.handle.ReadAt(chunk, f.next)
	if err != nil && !errors.Is(err, io.EOF) {
		t.buf.Discard(block)
		t.markBlocked(f, err)
		return nil
	}
	t.charge(f.next + int64(n) - charged)
	last := newline.Last(memory[:n])
	if last < 0 {
		t.buf.Discard(block)
		if n == 0 { // the file shrank between the refresh and the read
			t.stat(d, f)
			if f.limit() > f.scanned && f.gone { // the handle reaches no more data
				t.mu.Lock()
				f.closeHandle()
				t.mu.Unlock()
			}
			return nil
		}
		t.markTorn(f, f.next+int64(n))
		if n < len(chunk) { // the file shrank; with a stale size the read would repeat forever
			t.stat(d, f)
		}
		return nil
	}
	if t.failures[f.rel] != nil {
		t.clearFailure(f.rel)
	}
	lines, over := t.splitOversize(memory[:last+1])
	if len(lines) == 0 {
		t.buf.Discard(block)
		t.countOversize(f, int64(over))
		return t.skipLine(f, f.next+int64(over))
	}
	read := f.next + int64(n)
	if over > 0 {
		read = f.next + int64(len(lines)) // the long line is read next
	}
	t.emit(d, f, block, lines, read)
	return nil
}

// getBlock waits for a block. While it waits, it continues to refresh the table of files.
func (t *Tailer) getBlock(ctx context.Context, size int) (*buffer.Block, error) {
	if block := t.buf.TryGet(size); block != nil {
		return block, nil
	}
	for {
		timer := time.NewTimer(pollInterval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("waiting for room in the buffer: %w", ctx.Err())
		case <-t.buf.Room():
			timer.Stop()
		case <-timer.C:
			// Data that arrives meanwhile must be observed, because its age is the lag.
			if err := t.refresh(); err != nil {
				return nil, err
			}
		}
		if block := t.buf.TryGet(size); block != nil {
			return block, nil
		}
	}
}

// emit appends lines to the buffer. read is the offset up to which the file was read.
func (t *Tailer) emit(d *directory, f *hourFile, block *buffer.Block, lines []byte, read int64) {
	block.Data, block.Offset = lines, f.next
	longest, lastLine := 0, lines
	for rest := lines; len(rest) > 0; block.Lines++ {
		n := bytes.IndexByte(rest, '\n') + 1
		longest, lastLine = max(longest, n), rest
		rest = rest[n:]
	}
	now := t.now()

	t.mu.Lock()
	if len(f.head) < hashBytes && int64(len(f.head)) == f.next {
		f.head = append(f.head, lines[:min(len(lines), hashBytes-len(f.head))]...)
	}
	if f.origin == nil {
		t.setOrigin(f, f.generation(lines))
	}
	block.Origin, block.Skipped, t.skipped = f.origin, t.skipped, nil
	f.next += int64(len(lines))
	f.scanned = f.next
	f.beforeNext = append(f.beforeNext[:0], lines[max(len(lines)-hashBytes, 0):]...)
	t.lastLine = now
	if f.mode == config.ByBlock || t.awaitsBlock {
		if n, ok := t.opt.BlockNumber(lastLine); ok {
			f.lastBlock = n
			t.awaitsBlock = t.awaitsBlock && n < t.opt.StartBlock
		}
	}
	if from := f.lastMarker() + markerEvery; f.next >= from {
		tail := lines[max(len(lines)-hashBytes, 0):]
		f.markers = thin(append(f.markers, hash(f.next-int64(len(tail)), tail)))
	}
	t.counts.ReadBytes += int64(len(lines))
	if d.files[d.head] != f {
		t.counts.Late += int64(block.Lines)
	}
	t.counts.LargestLine = max(t.counts.LargestLine, int64(longest))
	t.mu.Unlock()

	t.adaptBlockSize(len(lines), block.Lines)
	t.buf.Append(block)
	if read == f.limit() && read > f.next {
		t.markTorn(f, read)
	}
}

// adaptBlockSize makes blocks large enough for several of a stream's lines, and small again after long lines have
// become rare.
func (t *Tailer) adaptBlockSize(size, lines int) {
	if average := size / lines; 2*average > buffer.BlockSize {
		t.blockSize, t.shortBlocks = min(max(t.blockSize, 2*average), maxBlockSize), 0
	} else if t.shortBlocks++; t.shortBlocks >= shortBlocksBeforeShrink {
		t.blockSize = buffer.BlockSize
	}
}

// markTorn records that there is no newline between next and scanned. Such bytes are not a pending line.
func (t *Tailer) markTorn(f *hourFile, scanned int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.scanned = scanned
	if scanned == f.size {
		f.arrivals.truncate(f.next)
	}
}

// splitOversize returns the lines before the first line over the limit, and that line's length. over is 0 if there is
// none.
func (t *Tailer) splitOversize(lines []byte) (short []byte, over int) {
	if int64(len(lines)) <= t.opt.MaxLineBytes {
		return lines, 0
	}
	for at := 0; at < len(lines); {
		// A line within the limit has its newline within it. The search starts from the far end, so that one search
		// covers many lines.
		end := newline.Last(lines[at:min(int64(len(lines)), int64(at)+t.opt.MaxLineBytes)])
		if end < 0 {
			return lines[:at], bytes.IndexByte(lines[at:], '\n') + 1
		}
		at += end + 1
	}
	return lines, 0
}

// countOversize counts and logs a line over the limit.
func (t *Tailer) countOversize(f *hourFile, length int64) {
	t.mu.Lock()
	t.counts.Oversize++
	t.counts.LargestLine = max(t.counts.LargestLine, length)
	t.mu.Unlock()
	t.logLimited(slog.LevelError, "a line is longer than maxLineBytes and is skipped",
		"file", f.rel, "offset", f.next, "maxLineBytes", t.opt.MaxLineBytes)
}

// findNewline searches for the end of the line at f.next, starting at f.scanned. It returns the offset after the
// newline, or the offset up to which it searched. It stops when the line exceeds the limit.
func (t *Tailer) findNewline(f *hourFile) (end int64, found bool, err error) {
	if t.scratch == nil {
		t.scratch = make([]byte, buffer.BlockSize)
	}
	for at := f.scanned; ; {
		n, err := f.handle.ReadAt(t.scratch[:min(int64(len(t.scratch)), f.limit()-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return at, false, err
		}
		if i := bytes.IndexByte(t.scratch[:n], '\n'); i >= 0 {
			return at + int64(i) + 1, true, nil
		}
		at += int64(n)
		if n == 0 || at >= f.limit() || (!f.skipping && at-f.next > t.opt.MaxLineBytes) {
			return at, false, nil
		}
	}
}

// skipLine continues after a line over the limit. An empty block carries the position past the line, so that it is
// skipped only once.
func (t *Tailer) skipLine(f *hourFile, end int64) error {
	t.mu.Lock()
	f.skipping = false
	if f.origin == nil {
		first := make([]byte, hashBytes)
		if n, _ := f.handle.ReadAt(first, 0); n == hashBytes {
			f.head = first
			t.setOrigin(f, f.generation(first))
		}
	}
	t.skipped = append(t.skipped, buffer.Skip{Bytes: end - f.next, File: f.rel, Reason: "a line longer than maxLineBytes"})
	f.next, f.scanned, f.beforeNext = end, end, f.beforeNext[:0]
	block := &buffer.Block{Origin: f.origin, Offset: end}
	if block.Origin != nil {
		block.Skipped, t.skipped = t.skipped, nil
	}
	t.mu.Unlock()
	if block.Origin != nil {
		t.buf.Append(block)
	}
	return nil
}

// measureTail finds the end of the last complete line in data that is on disk but cannot be read yet. The torn line
// that a dead node left behind must never count as pending. A file that is still growing is not measured.
func (t *Tailer) measureTail(f *hourFile) {
	limit := f.limit()
	if f.undecided || f.blocked || f.unchanged == 0 || limit <= f.scanned || f.measured == limit {
		return
	}
	h := f.handle
	if h == nil {
		var err error
		if h, err = t.tree.Open(f.rel); err != nil {
			return // the reader reports the error
		}
		defer func() { _ = h.Close() }()
	}
	end, err := afterLastNewline(h, f.scanned, limit)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setWholeEnd(f, end)
}

// setWholeEnd records the end of the last complete line on disk. The caller holds Tailer.mu.
func (t *Tailer) setWholeEnd(f *hourFile, end int64) {
	before := f.wholeEnd()
	f.measuredEnd, f.measured = max(end, f.next), f.limit()
	if end == f.scanned { // the unread data contains no newline
		f.measuredEnd = f.next
		f.arrivals.truncate(f.next)
	}
	if f.wholeEnd() != before {
		t.version++
	}
}

// afterLastNewline returns the offset after the last newline between from and size, or from if there is none.
func afterLastNewline(r io.ReaderAt, from, size int64) (int64, error) {
	const first, most = 4 << 10, 256 << 10
	b := make([]byte, min(size-from, first))
	for end := size; end > from; {
		begin := max(end-int64(len(b)), from)
		n, err := r.ReadAt(b[:end-begin], begin)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := newline.Last(b[:n]); i >= 0 {
			return begin + int64(i) + 1, nil
		}
		if end = begin; len(b) < most && end > from {
			b = make([]byte, min(end-from, most))
		}
	}
	return from, nil
}

// firstBlock returns the block number of a file's first line, or 0 if it is unknown.
func (t *Tailer) firstBlock(f *hourFile) int64 {
	h, err := t.tree.Open(f.rel)
	if err != nil {
		return 0 // the caller falls back to grace
	}
	defer func() { _ = h.Close() }()
	b := make([]byte, hashBytes)
	n, err := h.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0
	}
	number, _ := t.opt.BlockNumber(b[:n])
	return number
}
