package deadletter

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// header is the first line of every file but the stream's first.
type header struct {
	// Start is the position of the file's first byte. It comes first, to distinguish a header from an entry.
	Start int64 `json:"start"`
	// Dropped is the number of lines and records whose entries were dropped to make room for this file, and which no
	// other file's header counts.
	Dropped int64     `json:"dropped"`
	Time    time.Time `json:"time"`
	Reason  string    `json:"reason"` // for operators
}

const (
	headerPrefix = `{"start":`
	countPrefix  = `{"count":`
	headerBytes  = 512 // maximum length of a header
)

// nextFile is a file that holds only its header.
type nextFile struct {
	file   vfs.File // nil if there is none
	length int64
	// moved reports whether the previous file has become the old one. Then only this file may take the name, because
	// only its header records what was dropped.
	moved bool
}

func (s *Store) oldName() string  { return s.dir + ".old.jsonl" }
func (s *Store) nextName() string { return s.dir + ".jsonl.next" }

// ensureCurrent makes s.file the file that has the name, instead of one that was removed.
func (s *Store) ensureCurrent() error {
	if err := s.discardTorn(); err != nil {
		return err
	}
	size, err := s.size(s.Name())
	if err != nil {
		return err
	}
	if s.file != nil && size == s.length {
		return nil
	}
	// The entries in a removed file are not in any checkpoint yet.
	if err := s.sync(); err != nil {
		return err
	}
	if size > 0 {
		return s.rotate() // another program wrote to it: its positions are unknown
	}
	if err := s.closeFile(&s.file); err != nil {
		return err
	}
	return s.startFile()
}

// startFile starts a file in place of one that was removed or rotated.
func (s *Store) startFile() error {
	if s.end == 0 && !s.next.moved {
		f, err := s.fs.Create(s.Name())
		if err != nil {
			return fmt.Errorf("creating %s: %w", s.Name(), err)
		}
		s.file, s.length, s.nameUnsynced, s.dirty = f, 0, true, true
		return nil
	}
	if !s.next.moved {
		if err := s.createNext(header{Reason: "the previous file was removed"}); err != nil {
			return err
		}
	}
	if err := s.fs.Rename(s.nextName(), s.Name()); err != nil {
		return fmt.Errorf("renaming %s to %s: %w", s.nextName(), s.Name(), err)
	}
	s.file, s.length, s.nameUnsynced, s.dirty = s.next.file, 0, true, true
	s.advance(s.next.length)
	s.next = nextFile{}
	return nil
}

// rotate makes the current file the old one and starts another. The new header is durable before the entries that it
// counts are dropped, and each rename is durable before the next. A crash leaves either the file, or a successor that
// is ready to take its name.
func (s *Store) rotate() error {
	if err := s.sync(); err != nil {
		return err
	}
	size, err := s.size(s.Name())
	if err != nil {
		return err
	}
	dropped, before, err := s.countEntries(s.oldName())
	if err != nil {
		return err
	}
	h := header{Dropped: before + dropped}
	h.Reason = fmt.Sprintf(
		"the previous file was full; to make room, the entries of %d older lines and records were dropped",
		h.Dropped,
	)
	if err := s.createNext(h); err != nil {
		return err
	}
	if err := s.fs.Rename(s.Name(), s.oldName()); err != nil {
		return fmt.Errorf("renaming %s to %s: %w", s.Name(), s.oldName(), err)
	}
	s.next.moved = true
	s.dropped += dropped
	s.oldLength = max(size, 0)
	if err := s.syncDir(); err != nil {
		return err
	}
	if err := s.closeFile(&s.file); err != nil {
		return err
	}
	return s.startFile()
}

// createNext creates a file with a header under a temporary name and makes it durable.
func (s *Store) createNext(h header) error {
	if err := s.closeFile(&s.next.file); err != nil {
		return err
	}
	h.Start, h.Time = s.end, time.Now().UTC()
	text, err := encode(h)
	if err != nil {
		return fmt.Errorf("encoding the header of %s: %w", s.Name(), err)
	}
	f, err := s.fs.Create(s.nextName())
	if err != nil {
		return fmt.Errorf("creating %s: %w", s.nextName(), err)
	}
	s.next = nextFile{file: f, length: int64(len(text))}
	if _, err := f.Write(text); err != nil {
		return fmt.Errorf("writing %s: %w", s.nextName(), err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", s.nextName(), err)
	}
	return s.syncDir()
}

// size returns a file's length in bytes, or -1 if the file does not exist.
func (s *Store) size(name string) (int64, error) {
	size, err := s.fs.Size(name)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the size of %s: %w", name, err)
	}
	return size, nil
}

// countEntries returns the number of lines and records that a file's entries count, and the number dropped before them
// according to its header.
func (s *Store) countEntries(name string) (n, dropped int64, err error) {
	f, err := s.fs.Reader(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("opening %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := bufio.NewReaderSize(f, 64<<10)
	for lineStart := true; ; {
		text, err := r.ReadSlice('\n')
		switch h, length := parseHeader(text); {
		case lineStart && length > 0:
			dropped += h.Dropped
		case lineStart && len(text) > 0:
			n += countOf(text)
		}
		lineStart = err == nil
		switch {
		case errors.Is(err, io.EOF):
			return n, dropped, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return 0, 0, fmt.Errorf("reading %s: %w", name, err)
		}
	}
}

// countOf returns the number of lines and records that an entry counts. It reads only the first bytes of the entry.
func countOf(text []byte) int64 {
	rest, ok := bytes.CutPrefix(text, []byte(countPrefix))
	if !ok {
		return 1
	}
	digits, _, _ := bytes.Cut(rest, []byte(","))
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return 1
	}
	return n
}

// parseHeader returns the header at the start of text, and its length in bytes. The length is 0 if there is no header.
func parseHeader(text []byte) (h header, length int64) {
	if !bytes.HasPrefix(text, []byte(headerPrefix)) {
		return header{}, 0
	}
	end := bytes.IndexByte(text, '\n') + 1
	if end == 0 || json.Unmarshal(text[:end], &h) != nil || h.Start < 0 || h.Dropped < 0 {
		return header{}, 0
	}
	return h, int64(end)
}

// fileState describes a file of the dead letter on disk.
type fileState struct {
	size   int64 // in bytes; -1 if there is no file
	start  int64 // the position of its first byte
	header int64 // the length of its header, in bytes
}

// keepLength returns the length of the file's part before a position. It always includes the header.
func (f fileState) keepLength(position int64) int64 {
	return min(max(position-f.start, f.header), f.size)
}

func (s *Store) inspect(name string) (f fileState, err error) {
	if f.size, err = s.size(name); err != nil || f.size <= 0 {
		return f, err
	}
	r, err := s.fs.Reader(name)
	if err != nil {
		return f, fmt.Errorf("opening %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	text, err := io.ReadAll(io.LimitReader(r, headerBytes))
	if err != nil {
		return f, fmt.Errorf("reading %s: %w", name, err)
	}
	h, length := parseHeader(text)
	f.start, f.header = h.Start, length
	return f, nil
}

// recover restores the files to the position that the checkpoint recorded.
func (s *Store) recover(recorded int64) error {
	if recorded < 0 {
		return fmt.Errorf("the checkpoint records the negative position %d for %s", recorded, s.Name())
	}
	if err := vfs.MakeDirs(s.fs, filepath.Dir(s.dir)); err != nil {
		return err
	}
	old, err := s.inspect(s.oldName())
	if err != nil {
		return err
	}
	if err := s.finishRotation(old); err != nil {
		return err
	}
	current, err := s.inspect(s.Name())
	if err != nil {
		return err
	}
	if old.size > 0 && (current.size < 0 || current.start > recorded) {
		if err := s.truncateOld(&old, recorded); err != nil {
			return err
		}
	}
	s.oldLength = max(old.size, 0)
	if current.size <= 0 || current.start+current.size < recorded {
		// The file was removed, or another program wrote to it. The next entry starts another file.
		s.end = max(recorded, old.start+s.oldLength)
		return nil
	}
	s.length = current.keepLength(recorded)
	s.end = current.start + s.length
	if s.file, err = s.fs.Append(s.Name()); err != nil {
		return fmt.Errorf("opening %s: %w", s.Name(), err)
	}
	// The file is dirty even if nothing is truncated: an earlier process may have truncated it and died before it
	// synced.
	s.dirty, s.torn = true, current.size > s.length
	return s.discardTorn()
}

// finishRotation gives the next file its name if a crash came between the two renames of a rotation. Otherwise it
// removes the unused next file.
func (s *Store) finishRotation(old fileState) error {
	next, err := s.inspect(s.nextName())
	if err != nil || next.size < 0 {
		return err
	}
	size, err := s.size(s.Name())
	if err != nil {
		return err
	}
	if size < 0 && next.header > 0 && old.size >= 0 && old.start+old.size == next.start {
		if err := s.fs.Rename(s.nextName(), s.Name()); err != nil {
			return fmt.Errorf("renaming %s to %s: %w", s.nextName(), s.Name(), err)
		}
		return nil
	}
	if err := s.fs.Remove(s.nextName()); err != nil {
		return fmt.Errorf("removing %s: %w", s.nextName(), err)
	}
	return nil
}

// truncateOld truncates what was written after the checkpoint to the old file, before its rotation.
func (s *Store) truncateOld(old *fileState, recorded int64) error {
	keep := old.keepLength(recorded)
	if keep == old.size {
		return nil
	}
	f, err := s.fs.Append(s.oldName())
	if err != nil {
		return fmt.Errorf("opening %s: %w", s.oldName(), err)
	}
	err = f.Truncate(keep)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("truncating %s to %d bytes: %w", s.oldName(), keep, err)
	}
	old.size = keep
	return nil
}
