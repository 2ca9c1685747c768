// Package deadletter keeps the lines and records that can never be delivered: malformed ones, those whose processing
// panicked, and those that a sink permanently refuses. Operators read the files, and may remove them at any time, also
// while the parser runs.
//
// A dead letter must never hold what an outage only delays, and must never stop a healthy stream. When it is full, it
// drops its oldest entries and records in the file how many it dropped. It must never lose count: every appended line
// or record is in the count of an entry or of a header.
//
// # Files
//
// <stream>.jsonl receives the entries. Before it grows beyond half of the bound, it is renamed to <stream>.old.jsonl.
// That replaces the previous old file, whose entries are dropped.
//
// Every file but the stream's first begins with a header. The header holds the number of bytes before this file,
// counted since the first file, and the number of entries that were dropped to make room for it. A checkpoint records a
// position in the dead letter. The headers identify the file that holds a position, whatever was rotated or removed
// since.
//
// The number of bytes written between two commits is bounded, so that no file is dropped while a checkpoint may still
// return to a position before its end. An entry that was dropped and counted is therefore never appended again.
package deadletter

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const (
	// DefaultMaxBytes bounds one stream's dead letter: both files together, in bytes.
	DefaultMaxBytes int64 = 64 << 20

	// commitShare is the fraction of the bound, as a divisor, that may be written between two commits. A crash goes
	// back by up to three commits if the newest checkpoint is damaged too. A file is rotated only when it holds at
	// least eight.
	commitShare = 16
)

// ErrUnsynced is matched by an error after which it is unknown which entries since the last Sync are on disk. The
// stream must restart from its checkpoint.
var ErrUnsynced = errors.New("entries of the dead letter may be lost")

// Entry is one line or record that was not delivered.
type Entry struct {
	// Position is the position of the line or record in the node's files.
	Position position.Position
	// Reason is why it was not delivered. At most 1 KiB of it is kept.
	Reason string
	// Bytes is the line or record. Above 1 MiB, the entry refers to the line in the node's file instead.
	Bytes []byte
	// LineBytes is the length in bytes of the line at Position, including its newline.
	LineBytes int64
}

// Store is one stream's dead letter. It is used by one goroutine.
type Store struct {
	fs  vfs.FS
	dir string
	max int64

	file         vfs.File // nil when not open
	length       int64    // of the file's complete entries; -1 if the file of that name is not the store's
	end          int64    // the position after the last complete entry
	oldLength    int64    // upper bound of the old file's length
	sinceSync    int64    // bytes written since the last Sync
	dirty        bool     // changed since the last sync
	nameUnsynced bool     // the file's name may not be durable
	torn         bool     // a partial entry may follow length
	fatal        error    // the error that every call returns after ErrUnsynced

	run     run      // appended, not yet written
	next    nextFile // the file that will replace the current one
	dropped int64    // lines and records whose entries were dropped to make room
}

// Open returns the dead letter of one stream, <dir>/deadletter/<stream>.jsonl. It is bounded to maxBytes, which must be
// at least 128 KiB. recorded is the position in the stream's checkpoint. Open truncates the entries after it, because
// their lines are read again. A missing file is not an error: it was removed.
func Open(fsys vfs.FS, dir, stream string, recorded, maxBytes int64) (*Store, error) {
	dir = filepath.Join(dir, "deadletter")
	s := &Store{fs: fsys, dir: filepath.Join(dir, stream), max: maxBytes, length: -1, nameUnsynced: true}
	if err := s.recover(recorded); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the dead letter: %w", err), s.Close())
	}
	return s, nil
}

// Append adds an entry, which the next Sync makes durable. Adjacent entries with the same reason are merged into one
// entry with a count, which keeps the bytes of the first. After an error the entry was not added. It may be appended
// again, unless the error matches ErrUnsynced.
func (s *Store) Append(e Entry) error {
	if s.fatal != nil {
		return s.fatal
	}
	if s.run.accepts(e) {
		s.run.add(e)
		return nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	if s.run.flood {
		s.run.add(e)
		return nil
	}
	s.run = newRun(e)
	return nil
}

// Sync makes the entries durable and returns the position that the next checkpoint must record. Without new entries it
// does no I/O. After an error it may be called again, unless the error matches ErrUnsynced.
func (s *Store) Sync() (end int64, err error) {
	if s.fatal != nil {
		return 0, s.fatal
	}
	for s.run.count > 0 { // twice if the run becomes a flood
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	if err := s.discardTorn(); err != nil {
		return 0, err
	}
	if err := s.sync(); err != nil {
		return 0, err
	}
	s.sinceSync = 0
	return s.end, nil
}

// Dropped returns the number of lines and records whose entries were dropped since Open because the dead letter was
// full.
func (s *Store) Dropped() int64 { return s.dropped }

// Name returns the path of the file that receives the entries.
func (s *Store) Name() string { return s.dir + ".jsonl" }

// Close closes the files. What was not synced may be lost.
func (s *Store) Close() error {
	return errors.Join(s.closeFile(&s.file), s.closeFile(&s.next.file))
}

func (s *Store) closeFile(f *vfs.File) error {
	if *f == nil {
		return nil
	}
	err := (*f).Close()
	*f = nil
	if err != nil {
		return fmt.Errorf("closing a file of %s: %w", s.dir, err)
	}
	return nil
}

// flush writes the run, or turns it into a flood.
func (s *Store) flush() error {
	if s.run.count == 0 {
		return nil
	}
	share := s.max / commitShare
	line, err := s.run.encode(share)
	if err != nil {
		return fmt.Errorf("encoding the dead letter of %s: %w", s.run.first, err)
	}
	if !s.run.flood && s.sinceSync+int64(len(line)) > share {
		s.run.overflow()
		return nil
	}
	if err := s.write(line); err != nil {
		return err
	}
	s.run = run{}
	return nil
}

// write appends an entry to the current file. It rotates first if the file is full.
func (s *Store) write(line []byte) error {
	if err := s.ensureCurrent(); err != nil {
		return err
	}
	for s.length+int64(len(line)) > s.maxLength() {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	s.dirty, s.torn = true, true
	if _, err := s.file.Write(line); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", s.Name(), err), s.discardTorn())
	}
	s.advance(int64(len(line)))
	s.torn = false
	return nil
}

func (s *Store) advance(n int64) {
	s.length += n
	s.end += n
	s.sinceSync += n
}

// maxLength returns the maximum length of the current file, in bytes.
func (s *Store) maxLength() int64 { return s.max - max(s.max/2, s.oldLength) }

func (s *Store) sync() error {
	if !s.dirty {
		return nil
	}
	if err := s.file.Sync(); err != nil {
		return s.fail("syncing %s: %w", s.Name(), err)
	}
	if s.nameUnsynced {
		if err := s.syncDir(); err != nil {
			return err
		}
	}
	s.dirty, s.nameUnsynced = false, false
	return nil
}

func (s *Store) syncDir() error {
	if err := s.fs.SyncDir(filepath.Dir(s.dir)); err != nil {
		return s.fail("syncing the directory of %s: %w", s.Name(), err)
	}
	return nil
}

func (s *Store) fail(format string, args ...any) error {
	s.fatal = fmt.Errorf("%w: "+format, append([]any{ErrUnsynced}, args...)...)
	return s.fatal
}

// discardTorn truncates the partial entry that a failed write left after the last complete one.
func (s *Store) discardTorn() error {
	if !s.torn {
		return nil
	}
	if err := s.file.Truncate(s.length); err != nil {
		return fmt.Errorf("truncating %s to %d bytes: %w", s.Name(), s.length, err)
	}
	s.torn, s.dirty = false, true
	return nil
}
