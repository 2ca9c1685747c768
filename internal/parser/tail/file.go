package tail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const (
	// hashBytes is the maximum number of bytes that a hash covers: enough to contain a line's time, user and order ID.
	hashBytes = 1 << 10
	// markerEvery is the distance in bytes between the positions at which a file that shrank can resume.
	markerEvery = 16 << 20
	// noGeneration is the generation of a file whose first line is unknown. Nothing of such a file was emitted.
	noGeneration = "00000000"
)

// hourFile is one incarnation of one hourly file. The reader changes it under Tailer.mu. Other goroutines also use
// acked, committed, offered, beforeAck and arrivals.
type hourFile struct {
	id     position.FileID
	origin *buffer.Origin // nil until the generation is known
	mode   config.Mode
	rel    string // path relative to the data directory
	inode  uint64
	dev    uint64     // 0 if unknown
	handle vfs.Source // open while the file is read
	cache  cacheGuard

	size        int64     // as last observed, in bytes
	modified    time.Time // modification time according to the file system
	grownAt     time.Time // when a change of the size was last observed
	unchanged   int       // number of refreshes since then that found the same size
	onceLimit   int64     // number of bytes to read with Options.Once; -1 means up to size
	measuredEnd int64     // end of the last complete line in measured bytes, unless read further
	measured    int64
	renamed     bool // it was renamed after its generation was known
	blocked     bool // it cannot be read currently

	undecided      bool          // it is not decided yet which file it is, or where reading starts
	hasStat        bool          // its size and inode are known, although it is undecided
	gone           bool          // it is not at its path
	fromCheckpoint bool          // it is gone, and known only from a checkpoint
	unverified     bool          // identified by inode and size only; compared when it can be opened
	absent         time.Duration // for how long it has been known to be gone, across restarts
	absentSince    time.Time     // since when it has been known to be gone; zero if that is unknown

	next       int64  // offset of the first line that was not emitted
	scanned    int64  // the bytes from next to here were read and contain no newline
	skipping   bool   // the line at next is over the limit: everything up to its newline is skipped
	lastBlock  int64  // block number of the last emitted line, in by-block mode only
	head       []byte // the first bytes, at most hashBytes, until headSum covers that many
	headSum    checkpoint.Hash
	markers    []checkpoint.Hash
	beforeNext []byte // at most hashBytes bytes before next; nil if marker covers them

	acked     int64           // everything before this offset was acknowledged
	beforeAck []byte          // at most hashBytes bytes before acked, until they are hashed
	marker    checkpoint.Hash // hash of beforeAck
	offered   int64           // value of acked at the last call of Files
	committed int64           // value of acked in the checkpoint on disk
	arrivals  arrivalLog
}

// limit returns the offset up to which the file may be read now.
func (f *hourFile) limit() int64 {
	if f.onceLimit >= 0 {
		return min(f.onceLimit, f.size)
	}
	return f.size
}

// wholeEnd returns the end of the last line that may be complete. Bytes that were not read count; a torn tail does not.
func (f *hourFile) wholeEnd() int64 {
	switch limit := f.limit(); {
	case limit <= f.scanned:
		return f.next
	case f.measured == limit:
		return max(f.measuredEnd, f.next)
	default:
		return limit
	}
}

// readable reports whether an open file has something to read.
func (f *hourFile) readable() bool {
	return f.handle != nil && f.limit() > f.scanned && !f.blocked
}

func (f *hourFile) closeHandle() {
	if f.handle != nil {
		_ = f.handle.Close()
		f.handle = nil
	}
}

// isIdle reports whether the file has nothing to read, acknowledge or commit, and no open handle. The caller holds
// Tailer.mu or is the reader.
func (f *hourFile) isIdle() bool {
	return f.handle == nil && !f.gone && !f.blocked && !f.undecided && f.scanned == f.size && f.committed == f.next &&
		len(f.arrivals.entries) == 0
}

// releaseMemory frees the memory that an idle file does not need, because there may be ten thousand of them. The caller
// holds Tailer.mu.
func (f *hourFile) releaseMemory() {
	f.headHash()
	f.ackMarker()
	f.beforeAck, f.beforeNext, f.arrivals.entries = nil, nil, nil
}

// entry returns the file's entry in a checkpoint. The caller holds Tailer.mu.
func (f *hourFile) entry() checkpoint.File {
	f.offered = f.acked
	e := checkpoint.File{
		FileID: f.id, Inode: f.inode, Offset: f.acked, Head: f.headHash(), Marker: f.ackMarker(),
		Size:          max(f.wholeEnd(), f.acked),
		AbsentSeconds: int64(f.absent / absenceStep * absenceStep / time.Second),
	}
	if e.Size > e.Offset {
		e.SeenAt, _ = f.arrivals.oldest(f.acked)
		e.SeenAt = e.SeenAt.UTC()
	}
	for _, m := range f.markers {
		if m.At+m.Length <= f.acked {
			e.Markers = append(e.Markers, m)
		}
	}
	return e
}

// headHash returns a hash of the beginning of what was acknowledged. The caller holds Tailer.mu.
func (f *hourFile) headHash() checkpoint.Hash {
	if n := min(int64(len(f.head)), f.acked); n > f.headSum.Length {
		f.headSum = hash(0, f.head[:n])
	}
	if f.headSum.Length == hashBytes {
		f.head = nil
	}
	return f.headSum
}

// headUpTo returns a hash of the first emitted bytes, limited to the given file size. The caller holds Tailer.mu.
func (f *hourFile) headUpTo(size int64) checkpoint.Hash {
	switch {
	case f.head != nil:
		return hash(0, f.head[:min(int64(len(f.head)), size)])
	case f.headSum.Length <= size:
		return f.headSum
	default:
		return checkpoint.Hash{} // the file is too short to be compared
	}
}

// ackMarker returns a hash of the last acknowledged bytes. The caller holds Tailer.mu.
func (f *hourFile) ackMarker() checkpoint.Hash {
	if n := len(f.beforeAck); n > 0 {
		f.marker = hash(f.acked-int64(n), f.beforeAck)
		f.beforeAck = f.beforeAck[:0]
	}
	return f.marker
}

func hash(at int64, b []byte) checkpoint.Hash {
	return checkpoint.Hash{At: at, Length: int64(len(b)), Sum: fmt.Sprintf("%016x", xxhash.Sum64(b))}
}

// nextMarker returns a hash of the last emitted bytes. The caller holds Tailer.mu.
func (f *hourFile) nextMarker() checkpoint.Hash {
	switch n := len(f.beforeNext); {
	case n > 0:
		return hash(f.next-int64(n), f.beforeNext)
	case f.acked == f.next:
		return f.ackMarker()
	default:
		return checkpoint.Hash{}
	}
}

// matches reports whether a file contains what a hash covers. An error means that this is unknown.
func matches(r io.ReaderAt, h checkpoint.Hash) (same bool, err error) {
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

// thin removes markers that are closer together than an eighth of their distance from the newest marker. Without it, a
// checkpoint, which is written every second, would have three thousand markers for an hour of 50 GB. A file that loses
// data loses it near its end.
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

func (f *hourFile) lastMarker() int64 {
	if n := len(f.markers); n > 0 {
		return f.markers[n-1].At + f.markers[n-1].Length
	}
	return 0
}

// assignUniqueGeneration gives a file a generation that does not come from its first line, because another file of its
// hour had or may have had that generation. A node that recreates a pruned hour may start it with the same line, and
// positions in the two files must not be confused. It comes from the inode and the creation time, so that the next
// process gives the file the same one if this process ends before a checkpoint contains it. Where the file system does
// not report the creation time, the sequence of the resumed checkpoint distinguishes files that were forgotten before
// it. The caller holds Tailer.mu.
func (t *Tailer) assignUniqueGeneration(f *hourFile, born time.Time) {
	g := fmt.Sprintf("%s/%d, inode %d, created %d", f.id.Date, f.id.Hour, f.inode, born.UnixNano())
	if born.IsZero() {
		g = fmt.Sprintf("%s/%d, inode %d, after checkpoint %d", f.id.Date, f.id.Hour, f.inode, t.checkpointSequence)
	}
	for id := f.id; ; {
		g = generationOf([]byte(g))
		if id.Generation = g; !t.usedIDs[id] {
			f.id.Generation = g
			t.usedIDs[id] = true
			return
		}
	}
}

// generation returns the generation of a file with the given first lines.
func (f *hourFile) generation(lines []byte) string {
	if f.id.Generation != noGeneration {
		return f.id.Generation
	}
	return generationOf(lines)
}

// generationOf distinguishes files that were at the same path by the start of their first line, which contains times,
// users and IDs.
func generationOf(lines []byte) string {
	first := lines
	if i := bytes.IndexByte(lines, '\n'); i >= 0 {
		first = lines[:i+1]
	}
	return fmt.Sprintf("%08x", uint32(xxhash.Sum64(first[:min(len(first), hashBytes)])))
}

// setOrigin creates the origin of a file's blocks, once its generation is known. The caller holds Tailer.mu.
func (t *Tailer) setOrigin(f *hourFile, generation string) {
	f.id.Generation = generation
	t.usedIDs[f.id] = true
	f.origin = &buffer.Origin{ID: f.id, Label: f.id.String()}
	t.origins[f.origin] = f
	t.version++
}

// forgetOrigins stops the acceptance of acknowledgements for a file's blocks. The caller holds Tailer.mu.
func (t *Tailer) forgetOrigins(f *hourFile) {
	delete(t.origins, f.origin)
	if f.renamed {
		maps.DeleteFunc(t.origins, func(_ *buffer.Origin, other *hourFile) bool { return other == f })
	}
}

// resumption is the point at which a file resumes that no longer contains what was read from it.
type resumption struct {
	offset int64
	marker checkpoint.Hash
	same   bool // it has the same beginning as the file
}

// resumption finds the highest marker that matches in a file of the given size. The caller must not hold Tailer.mu.
func (t *Tailer) resumption(f *hourFile, h vfs.Source, size int64) (r resumption, err error) {
	t.mu.Lock()
	beginning, markers := f.headUpTo(size), slices.Clone(f.markers)
	t.mu.Unlock()
	if r.same, err = matches(h, beginning); err != nil || !r.same {
		return r, err
	}
	for _, m := range slices.Backward(markers) {
		if end := m.At + m.Length; end <= size {
			ok, err := matches(h, m)
			if err != nil {
				return r, err
			}
			if ok {
				r.offset, r.marker = end, m
				break
			}
		}
	}
	return r, nil
}

// resumeAt resumes a file that no longer contains what was read from it: at the highest matching marker, or as a new
// file if its beginning differs. The caller holds Tailer.mu.
func (t *Tailer) resumeAt(f *hourFile, r resumption, what string) {
	if r.same {
		t.counts.RepeatedBytes += max(min(f.size, f.next)-r.offset, 0)
	}
	t.log.Warn(what+"; reading again from the last matching position",
		"file", f.rel, "size", f.size, "read", f.next, "from", r.offset)
	// The new generation keeps positions before and after apart.
	salted := fmt.Appendf(nil, "%s %d %d %s", f.id.Generation, f.next, f.size, f.headUpTo(f.next).Sum)
	t.forgetOrigins(f)
	t.setOrigin(f, generationOf(salted))
	f.next, f.scanned, f.skipping, f.measured = r.offset, r.offset, false, 0
	f.acked, f.committed, f.offered, f.beforeAck, f.marker = r.offset, r.offset, r.offset, nil, r.marker
	f.beforeNext = nil
	for len(f.markers) > 0 && f.lastMarker() > r.offset {
		f.markers = f.markers[:len(f.markers)-1]
	}
	if r.offset == 0 {
		f.head, f.headSum = nil, checkpoint.Hash{}
	}
	f.arrivals = arrivalLog{}
	f.arrivals.record(f.size, f.grownAt)
}
