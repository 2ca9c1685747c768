package tail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// searchWindow is the number of bytes that a search reads at once, and the distance below which it reads line by line.
const searchWindow = 64 << 10

// extent is a file that a search covers: its first size bytes.
type extent struct {
	size int64
	open func() (vfs.Source, error)
}

// blockStart is the result of a search for a block.
type blockStart struct {
	file   int   // index of the first file to read; the number of files if all were passed
	offset int64 // of the first line to read in it
	// block is the number of the first line that names the block or a later one. It is 0 if there is none.
	block int64
	// earlier reports whether an earlier line names an earlier block.
	earlier bool
}

// searchError is an error in one of the files.
type searchError struct {
	file int
	err  error
}

func (e *searchError) Error() string { return e.err.Error() }
func (e *searchError) Unwrap() error { return e.err }

// blockSearch searches files for a block, as if they were one file. It reads a line's number where a bisection by bytes
// requires it. Its memory does not depend on the length of the lines.
type blockSearch struct {
	files  []extent
	bases  []int64 // offset of each file in all of them, and the sum of their sizes
	number func(line []byte) (number int64, ok bool)

	ends   []int64 // of the last complete line in each file; -1 until the file is opened
	source vfs.Source
	opened int   // index of source's file
	at     int64 // offset of window in that file
	window []byte
	memory []byte
}

// findBlock returns where reading begins so that a stream starts with block n: after the last line that names an
// earlier block. Lines that name no block do not end the search, and belong to what follows them.
//
// Block numbers in files usually rise. Where a node wrote blocks again, several places have an earlier block before
// them and block n or a later one after them. The result is one of these places. All of block n and of the later blocks
// follows each of them, because the node went on from there.
func findBlock(files []extent, n int64, number func(line []byte) (int64, bool)) (blockStart, error) {
	s := &blockSearch{files: files, number: number, opened: -1, memory: make([]byte, searchWindow)}
	total := int64(0)
	for _, f := range files {
		s.bases, s.ends = append(s.bases, total), append(s.ends, -1)
		total += f.size
	}
	s.bases = append(s.bases, total)
	defer s.close()
	start, err := s.find(n)
	if err != nil {
		return blockStart{}, &searchError{s.opened, err}
	}
	return start, nil
}

func (s *blockSearch) close() {
	if s.source != nil {
		_ = s.source.Close()
		s.source = nil
	}
}

func (s *blockSearch) find(n int64) (found blockStart, err error) {
	// The lines that start before from are earlier ones. The first line from to on that names a block, if there is one,
	// names block n or a later one.
	from, to := int64(0), s.bases[len(s.files)]
	for to-from > searchWindow {
		middle := from + (to-from)/2
		at, number, err := s.numbered(middle, to)
		switch {
		case err != nil:
			return found, err
		case at < to && number < n:
			from, found.earlier = at+1, true
		default:
			to = middle
			if number > 0 { // otherwise no line before the old to names a block
				found.block = number
			}
		}
	}
	start, err := s.lineStart(from)
	for at := start; err == nil && at < to; {
		var number int64
		if at, number, err = s.numbered(at, to); err != nil || at >= to {
			break
		}
		if number >= n {
			found.block = number
			break
		}
		at, err = s.lineStart(at + 1)
		start, found.earlier = at, true
	}
	if err != nil {
		return found, err
	}
	if found.file = len(s.files); start < s.bases[len(s.files)] {
		found.file = s.fileOf(start)
		found.offset = start - s.bases[found.file]
	}
	return found, nil
}

// fileOf returns the index of the file that holds an offset in all of them.
func (s *blockSearch) fileOf(at int64) int {
	file, _ := slices.BinarySearch(s.bases[1:], at+1) // the first that ends after the offset
	return file
}

// numbered returns the first line that starts at an offset or after it and names its block. at is at least to if there
// is none before to.
func (s *blockSearch) numbered(from, to int64) (at, number int64, err error) {
	for at, err = s.lineStart(from); err == nil && at < to; at, err = s.lineStart(at + 1) {
		file := s.fileOf(at)
		line, err := s.peek(file, at-s.bases[file], hashBytes)
		if err != nil {
			return at, 0, err
		}
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i]
		}
		if number, ok := s.number(line[:min(len(line), hashBytes)]); ok {
			return at, number, nil
		}
	}
	return at, 0, err
}

// lineStart returns where the first complete line starts, at an offset or after it. Without one it returns the end of
// the last file.
func (s *blockSearch) lineStart(from int64) (int64, error) {
	for file := s.fileOf(from); file < len(s.files); file++ {
		if err := s.openFile(file); err != nil {
			return 0, err
		}
		at, end := max(from-s.bases[file], 0), s.ends[file]
		if at == 0 && end > 0 {
			return s.bases[file], nil
		}
		for at--; at >= 0 && at < end-1; { // a line starts after the first newline that is at least one byte before from
			text, err := s.peek(file, at, 1)
			if err != nil {
				return 0, err
			}
			i := bytes.IndexByte(text, '\n')
			if i < 0 {
				at += int64(len(text))
			} else if at += int64(i) + 1; at < end {
				return s.bases[file] + at, nil
			}
		}
	}
	return s.bases[len(s.files)], nil
}

// peek returns what a file has at an offset: at least least bytes, unless its last complete line ends before that.
func (s *blockSearch) peek(file int, at, least int64) ([]byte, error) {
	if err := s.openFile(file); err != nil {
		return nil, err
	}
	end := s.ends[file]
	if have := s.at + int64(len(s.window)); at < s.at || have < min(at+least, end) || at >= have {
		n, err := s.source.ReadAt(s.memory[:min(int64(len(s.memory)), end-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if int64(n) < min(least, end-at) || n == 0 {
			return nil, errors.New("the file shrank while it was searched")
		}
		s.at, s.window = at, s.memory[:n]
	}
	return s.window[at-s.at:], nil
}

func (s *blockSearch) openFile(file int) error {
	if s.opened == file && s.source != nil || s.ends[file] == 0 {
		return nil
	}
	s.close()
	s.opened, s.at, s.window = file, 0, nil
	if s.files[file].size == 0 {
		s.ends[file] = 0
		return nil
	}
	source, err := s.files[file].open()
	if err != nil {
		return err
	}
	s.source = source
	if s.ends[file] < 0 {
		s.ends[file], err = afterLastNewline(source, 0, s.files[file].size)
	}
	return err
}

// passOverEarlier skips what precedes block StartBlock in the active directory. It reports whether it could read what
// that requires.
func (t *Tailer) passOverEarlier(d *directory) bool {
	files, extents := slices.Clone(d.files), []extent(nil)
	for _, f := range files {
		if f.undecided && !f.hasStat || t.backingOff(f.rel) {
			return false
		}
		extents = append(extents, extent{f.limit(), func() (vfs.Source, error) { return t.tree.Open(f.rel) }})
	}
	start, err := findBlock(extents, t.opt.StartBlock, t.opt.BlockNumber)
	if err != nil {
		at := 0
		if e, ok := errors.AsType[*searchError](err); ok {
			at = max(e.file, 0)
		}
		t.passOverFailed(d, files[at], fmt.Errorf("searching %s for block %d: %w", files[at].rel, t.opt.StartBlock, err))
		return false
	}
	passed := int64(0)
	for i, f := range files {
		upTo := int64(-1)
		if i == start.file {
			upTo = start.offset
		}
		if !f.undecided || i > start.file || upTo == 0 { // decided by an earlier attempt, or read from its first byte
			continue
		}
		end, err := t.passOver(d, f, upTo)
		if err != nil {
			t.passOverFailed(d, f, fmt.Errorf("starting %s at block %d: %w", f.rel, t.opt.StartBlock, err))
			return false
		}
		t.clearFailure(f.rel)
		passed += end
	}
	t.logBlockStart(d, files, start, passed)
	return true
}

// passOverFailed records an error of passOverEarlier, which is retried. A file that is gone needs no retry of its own.
func (t *Tailer) passOverFailed(d *directory, f *hourFile, err error) {
	if i := slices.Index(d.files, f); i >= 0 && errors.Is(err, fs.ErrNotExist) {
		t.mu.Lock()
		d.remove(i)
		t.mu.Unlock()
		d.rootModified = time.Time{}
		return
	}
	t.recordFailure(f.rel, err)
}

// logBlockStart logs where a stream begins, and what is missing there.
func (t *Tailer) logBlockStart(d *directory, files []*hourFile, start blockStart, passed int64) {
	log := t.log.With("startAtBlock", t.opt.StartBlock, "directory", d.Name, "skippedBytes", passed)
	if start.file < len(files) {
		log = log.With("file", files[start.file].rel, "offset", start.offset)
	}
	switch {
	case start.block == 0 && len(files) > 0:
		log.Info("the block to start at is not on disk yet; nothing is delivered before it")
	case start.block > t.opt.StartBlock && !start.earlier:
		log.Warn("the block to start at is older than everything on disk; the blocks before the first one are missing",
			"firstBlock", start.block)
	case start.block > t.opt.StartBlock:
		log.Info("no line names the block to start at; starting with the next one", "firstBlock", start.block)
	case start.block > 0:
		log.Info("starting at a block", "firstBlock", start.block)
	}
}
