package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

const (
	// hashBytes is how much of a file a hash covers: enough to hold a line's time, user and order id.
	hashBytes = 1 << 10
	// markerEvery is how far apart the places are at which a file that shrank can be taken up again.
	markerEvery = 16 << 20
	// noGeneration stands for a file whose first line is not known yet; nothing of it was handed out.
	noGeneration = "00000000"
	// calmBlocks is how many blocks without a long line bring the block size back down.
	calmBlocks = 64
	// maxWant bounds the block size that long lines ask for; longer ones get memory of their own.
	maxWant = 4 << 20
)

// file is one incarnation of one hourly file. The reader changes it under Tailer.mu; acked, committed, offered, beforeAck and
// seen are also used by others.
type file struct {
	id     checkpoint.FileID
	origin *buffer.Origin // nil until the generation is known
	mode   config.Mode
	path   string
	rel    string // path relative to the data directory, for people
	inode  uint64
	handle *os.File // open while the file is read
	cache  passage

	size     int64     // as last seen
	modified time.Time // the file system's word for the last write
	grownAt  time.Time // when the size was last seen to change
	looks    int       // looks since then that found the same size
	once     int64     // bytes to read with Options.Once; -1: to the size
	gone     bool      // no longer at its path
	resumed  bool      // a checkpoint knew it
	renamed  bool      // since it was known by its generation
	blocked  bool      // cannot be read for now
	said     bool      // so it was logged, and nothing was read since

	next      int64  // first byte of the first line that was not handed out
	scanned   int64  // bytes from next to here were looked at and hold no newline
	skipping  bool   // the line at next is over the limit: everything up to its newline is dropped
	lastBlock int64  // number of the block in the last line handed out, by-block mode only
	head      []byte // at most hashBytes, until headSum covers as many
	headSum   checkpoint.Hash
	markers   []checkpoint.Hash
	tip       []byte // at most hashBytes bytes before next; nil: marker covers them

	acked     int64           // everything before it was acknowledged
	beforeAck []byte          // at most hashBytes bytes before acked, until they are asked for
	marker    checkpoint.Hash // of them
	offered   int64           // acked at the last call of Files
	committed int64           // a checkpoint on disk says that everything before it was acknowledged
	seen      seenLog
}

// limit is where reading ends for now.
func (f *file) limit() int64 {
	if f.once >= 0 {
		return min(f.once, f.size)
	}
	return f.size
}

// wholeEnd is the end of the last line that can be taken as whole: bytes not looked at yet count, a torn tail does not.
func (f *file) wholeEnd() int64 {
	if f.limit() > f.scanned {
		return f.limit()
	}
	return f.next
}

// readable tells whether there is something to read in an open file.
func (f *file) readable() bool {
	return f.handle != nil && f.limit() > f.scanned && !f.blocked
}

func (f *file) closeHandle() {
	if f.handle != nil {
		_ = f.handle.Close()
		f.handle = nil
	}
}

// atRest tells that there is nothing to read, acknowledge or commit in a file, and nothing to close. Tailer.mu is held, or
// the caller is the reader.
func (f *file) atRest() bool {
	return f.handle == nil && !f.gone && !f.blocked && f.scanned == f.size && f.committed == f.next && len(f.seen.entries) == 0
}

// shed gives up the memory that a file at rest does not need: there may be ten thousand. Tailer.mu is held.
func (f *file) shed() {
	f.headHash()
	f.ackMarker()
	f.beforeAck, f.tip, f.seen.entries = nil, nil, nil
}

// entry is the file's place in a checkpoint. Tailer.mu is held.
func (f *file) entry() checkpoint.File {
	f.offered = f.acked
	e := checkpoint.File{FileID: f.id, Inode: f.inode, Offset: f.acked, Head: f.headHash(), Marker: f.ackMarker(), Size: f.size}
	for _, m := range f.markers {
		if m.At+m.Length <= f.acked {
			e.Markers = append(e.Markers, m)
		}
	}
	return e
}

// headHash covers the beginning of what was acknowledged. Tailer.mu is held.
func (f *file) headHash() checkpoint.Hash {
	if n := min(int64(len(f.head)), f.acked); n > f.headSum.Length {
		f.headSum = hash(0, f.head[:n])
	}
	if f.headSum.Length == hashBytes {
		f.head = nil
	}
	return f.headSum
}

// beginning covers the first bytes that were handed out, as far as a file of that size can hold them. Tailer.mu is held.
func (f *file) beginning(size int64) checkpoint.Hash {
	switch {
	case f.head != nil:
		return hash(0, f.head[:min(int64(len(f.head)), size)])
	case f.headSum.Length <= size:
		return f.headSum
	default:
		return checkpoint.Hash{} // it is too short to be told
	}
}

// ackMarker covers what was acknowledged last. Tailer.mu is held.
func (f *file) ackMarker() checkpoint.Hash {
	if n := len(f.beforeAck); n > 0 {
		f.marker = hash(f.acked-int64(n), f.beforeAck)
		f.beforeAck = f.beforeAck[:0]
	}
	return f.marker
}

func hash(at int64, b []byte) checkpoint.Hash {
	return checkpoint.Hash{At: at, Length: int64(len(b)), Sum: fmt.Sprintf("%016x", xxhash.Sum64(b))}
}

// nextMarker covers what was handed out last. Tailer.mu is held.
func (f *file) nextMarker() checkpoint.Hash {
	switch n := len(f.tip); {
	case n > 0:
		return hash(f.next-int64(n), f.tip)
	case f.acked == f.next:
		return f.ackMarker()
	default:
		return checkpoint.Hash{}
	}
}

// verifies tells whether the file still holds what the hash covers.
func verifies(r io.ReaderAt, h checkpoint.Hash) bool {
	same, err := check(r, h)
	return same && err == nil
}

// check is verifies that tells a file that is another one from a disk that does not answer.
func check(r io.ReaderAt, h checkpoint.Hash) (same bool, err error) {
	if h.Length == 0 {
		return true, nil
	}
	if h.Length < 0 || h.Length > hashBytes || h.At < 0 {
		return false, nil
	}
	b := make([]byte, h.Length)
	switch _, err := r.ReadAt(b, h.At); {
	case errors.Is(err, io.EOF):
		return false, nil
	case err != nil:
		return false, err
	}
	return hash(h.At, b) == h, nil
}

// open opens a file for reading, and makes sure that it is the one that was looked at.
func (t *Tailer) openFile(f *file) error {
	if f.handle != nil {
		return nil
	}
	h, err := os.Open(f.path)
	if err != nil {
		return err
	}
	info, err := h.Stat()
	if err == nil && inodeOf(info) != f.inode {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = h.Close()
		return err
	}
	t.mu.Lock()
	f.handle = h
	t.mu.Unlock()
	return nil
}

// read hands out what f holds up to its limit.
func (t *Tailer) read(ctx context.Context, d *directory, f *file) error {
	if err := t.openFile(f); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			t.stat(d, f)
		} else {
			t.block(f, err)
		}
		return nil
	}
	t.mu.Lock()
	t.current, d.begun = f, true
	t.mu.Unlock()
	for f.readable() {
		if err := ctx.Err(); err != nil {
			return err // what is left is read again after a restart, however much it is
		}
		if err := t.pace(ctx); err != nil {
			return err
		}
		if !f.readable() { // what was looked at while it waited
			break
		}
		if err := t.readBlock(ctx, d, f); err != nil {
			return err
		}
	}
	if d.files[d.head] != f {
		t.mu.Lock()
		f.closeHandle() // an earlier hour: it may stay on disk for days
		t.mu.Unlock()
	}
	return nil
}

// readBlock hands out one block of whole lines, or finds that the rest of the file is not a whole line yet.
func (t *Tailer) readBlock(ctx context.Context, d *directory, f *file) error {
	f.cache.reading(f.handle, f.next, f.size)
	want, charged := int64(t.want), f.scanned
	if f.skipping || f.scanned-f.next >= buffer.BlockSize {
		skipped := f.skipping
		end, found, err := t.findNewline(f)
		if err != nil {
			t.block(f, err)
			return nil
		}
		t.charge(end - charged)
		charged = end
		if length := end - f.next; !f.skipping && length > t.opt.MaxLineBytes {
			t.mu.Lock()
			f.skipping = true
			t.counts.Oversize++
			t.counts.LargestLine = max(t.counts.LargestLine, length)
			t.mu.Unlock()
			t.log.Error("a line is longer than maxLineBytes and is skipped", "file", f.rel, "offset", f.next, "maxLineBytes", t.opt.MaxLineBytes)
		}
		if !found {
			t.torn(f, end)
			if end < f.limit() && skipped == f.skipping { // the file shrank between the look and the read
				t.stat(d, f)
			}
			return nil
		}
		if f.skipping {
			return t.skipTo(f, end)
		}
		want = max(end-f.next, want)
	}
	block, err := t.get(ctx, int(min(want, max(f.limit()-f.next, 1))))
	if err != nil {
		return err
	}
	memory := block.Memory()
	asked := memory[:min(int64(len(memory)), f.limit()-f.next)]
	n, err := f.handle.ReadAt(asked, f.next)
	if err != nil && !errors.Is(err, io.EOF) {
		t.buf.Discard(block)
		t.block(f, err)
		return nil
	}
	t.charge(f.next + int64(n) - charged)
	last := lastNewline(memory[:n])
	if last < 0 {
		t.buf.Discard(block)
		if n == 0 { // the file shrank between the look and the read
			t.stat(d, f)
			if f.limit() > f.scanned && f.gone {
				t.mu.Lock()
				t.lost(f, f.limit()-f.next)
				t.mu.Unlock()
			}
			return nil
		}
		t.torn(f, f.next+int64(n))
		if n < len(asked) { // it shrank too, and would be asked for the rest for ever
			t.stat(d, f)
		}
		return nil
	}
	t.handOut(d, f, block, memory[:last+1], f.next+int64(n))
	return nil
}

// lastNewline is bytes.LastIndexByte for newlines, which looks at one byte at a time: too slow for lines of a megabyte.
func lastNewline(b []byte) int {
	const piece = 4 << 10
	for end := len(b); end > 0; end -= piece {
		begin := max(end-piece, 0)
		if bytes.IndexByte(b[begin:end], '\n') >= 0 {
			return begin + bytes.LastIndexByte(b[begin:end], '\n')
		}
	}
	return -1
}

// get waits for a block. While it waits it goes on looking at the disk.
func (t *Tailer) get(ctx context.Context, size int) (*buffer.Block, error) {
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
			// What arrives meanwhile must be seen: its age is the lag.
			if err := t.look(); err != nil {
				return nil, err
			}
		}
		if block := t.buf.TryGet(size); block != nil {
			return block, nil
		}
	}
}

// handOut appends lines to the buffer. read is how far the file was read.
func (t *Tailer) handOut(d *directory, f *file, block *buffer.Block, lines []byte, read int64) {
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
	f.said = false
	block.Origin, block.Skipped, t.skipped = f.origin, t.skipped, nil
	f.next += int64(len(lines))
	f.scanned = f.next
	f.tip = append(f.tip[:0], lines[max(len(lines)-hashBytes, 0):]...)
	t.lastLine = now
	if f.mode == config.ByBlock {
		if n, ok := blockNumber(lastLine); ok {
			f.lastBlock = n
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

	t.adapt(len(lines), block.Lines)
	t.buf.Append(block)
	if read == f.limit() && read > f.next {
		t.torn(f, read)
	}
}

// thin leaves out markers that are closer together than an eighth of their distance from the newest. A checkpoint, which is written
// every second, would have three thousand for an hour of 50 GB; what a file loses, it loses near its end.
func thin(markers []checkpoint.Hash) []checkpoint.Hash {
	newest := markers[len(markers)-1]
	kept := markers[:1]
	for i := 1; i < len(markers); i++ {
		if m := markers[i]; m == newest || markers[i+1].At-kept[len(kept)-1].At > (newest.At-m.At)/8 {
			kept = append(kept, m)
		}
	}
	return kept
}

// adapt makes blocks large enough for several of a stream's lines, and small again when long lines have become rare.
func (t *Tailer) adapt(size, lines int) {
	if average := size / lines; 2*average > buffer.BlockSize {
		t.want, t.calm = min(max(t.want, 2*average), maxWant), 0
	} else if t.calm++; t.calm >= calmBlocks {
		t.want = buffer.BlockSize
	}
}

func (f *file) lastMarker() int64 {
	if n := len(f.markers); n > 0 {
		return f.markers[n-1].At + f.markers[n-1].Length
	}
	return 0
}

// torn takes note that there is no newline between next and scanned. Such bytes are not a waiting line.
func (t *Tailer) torn(f *file, scanned int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.scanned = scanned
	if scanned == f.size {
		f.seen.truncate(f.next)
	}
}

// findNewline looks for the end of the line at f.next, from f.scanned on. It returns the offset after the newline, or how far
// it looked. It stops when the line turns out to be over the limit.
func (t *Tailer) findNewline(f *file) (end int64, found bool, err error) {
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

// skipTo goes on after a line that is over the limit. An empty block carries the position past it, so that it is skipped once.
func (t *Tailer) skipTo(f *file, end int64) error {
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
	f.next, f.scanned, f.tip = end, end, f.tip[:0]
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

// nameAgain gives a file a generation that does not come from its first line, because another file of its hour had or may have had
// that: a node that makes a pruned hour again may begin it with the same line, and positions in the two must not be taken for each
// other. The number of the checkpoint of the start tells apart what was forgotten before it. Tailer.mu is held.
func (t *Tailer) nameAgain(f *file) {
	g := fmt.Sprintf("%s/%d, inode %d, after checkpoint %d", f.id.Date, f.id.Hour, f.inode, t.resumed)
	for id := f.id; ; {
		g = generationOf([]byte(g))
		if id.Generation = g; !t.named[id] {
			f.id.Generation = g
			t.named[id] = true
			return
		}
	}
}

// generation is what a file whose first lines are given is named by.
func (f *file) generation(lines []byte) string {
	if f.id.Generation != noGeneration {
		return f.id.Generation
	}
	return generationOf(lines)
}

// generationOf tells one file from another that stood at the same path: by the start of its first line, which holds times,
// users and ids.
func generationOf(lines []byte) string {
	first := lines
	if i := bytes.IndexByte(lines, '\n'); i >= 0 {
		first = lines[:i+1]
	}
	return fmt.Sprintf("%08x", uint32(xxhash.Sum64(first[:min(len(first), hashBytes)])))
}

// shrank takes note that a file lost its end. Tailer.mu is held.
func (t *Tailer) shrank(f *file) {
	f.seen.truncate(f.size)
	if f.size >= f.next { // only a part of a torn line went
		f.scanned = min(f.scanned, f.size)
		return
	}
	t.takeUp(f, "a file shrank below what was read")
}

// takeUp finds where a file is taken up again that no longer holds what was read from it: at the highest marker that still
// verifies, or as a new file when its beginning is another. Tailer.mu is held.
func (t *Tailer) takeUp(f *file, what string) {
	h, err := os.Open(f.path)
	if err != nil {
		return // the next look finds out what happened
	}
	defer func() { _ = h.Close() }()
	resume, marker := int64(0), checkpoint.Hash{}
	if verifies(h, f.beginning(f.size)) {
		for _, m := range f.markers {
			if end := m.At + m.Length; end <= f.size && verifies(h, m) {
				resume, marker = end, m
			}
		}
		t.counts.RepeatedBytes += min(f.size, f.next) - resume
	}
	t.log.Warn(what+"; reading it again from where it is known to be the same",
		"file", f.rel, "size", f.size, "read", f.next, "from", resume)
	// A new name: positions before and after must not be taken for each other.
	salted := fmt.Appendf(nil, "%s %d %d %s", f.id.Generation, f.next, f.size, f.beginning(f.next).Sum)
	t.forgetOrigins(f)
	t.setOrigin(f, generationOf(salted))
	f.next, f.scanned, f.skipping = resume, resume, false
	f.acked, f.committed, f.offered, f.beforeAck, f.marker = resume, resume, resume, nil, marker
	f.tip = nil
	for len(f.markers) > 0 && f.lastMarker() > resume {
		f.markers = f.markers[:len(f.markers)-1]
	}
	if resume == 0 {
		f.head, f.headSum = nil, checkpoint.Hash{}
	}
	f.seen = seenLog{}
	f.seen.grew(f.size, f.grownAt)
}

// firstBlock is the number of the block in a file's first line, or 0 when it cannot be told yet.
func (t *Tailer) firstBlock(f *file) int64 {
	h, err := os.Open(f.path)
	if err != nil {
		return 0
	}
	defer func() { _ = h.Close() }()
	b := make([]byte, hashBytes)
	n, err := h.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0
	}
	number, _ := blockNumber(b[:n])
	return number
}

// blockNumber reads the number from the envelope at the start of a line; its key order is fixed. It only lets an hour switch
// happen sooner: where it finds nothing the grace decides.
func blockNumber(line []byte) (int64, bool) {
	key := []byte(`"block_number":`)
	i := bytes.Index(line[:min(len(line), 256)], key)
	if i < 0 {
		return 0, false
	}
	var n int64
	digits := 0
	for _, c := range line[i+len(key):] {
		if c < '0' || c > '9' || digits == 18 {
			return n, digits > 0 && c == ','
		}
		n = n*10 + int64(c-'0')
		digits++
	}
	return 0, false
}
