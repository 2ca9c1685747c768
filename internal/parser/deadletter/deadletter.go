// Package deadletter keeps the lines and records that can never be delivered: the
// malformed ones, those whose processing panicked, and those that a sink refuses
// for good. A person looks at them.
//
// It must never hold what an outage delays, and never lose or drop an entry: when
// it is full the stream waits. It makes room for nobody; a person does, by taking
// the file away, at any time, also while the parser runs.
package deadletter

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const (
	// DefaultMaxBytes bounds one stream's dead letter.
	DefaultMaxBytes int64 = 64 << 20

	// inlineBytes is the most that an entry holds of the bytes themselves.
	inlineBytes = 1 << 20
	// reasonBytes is the most that an entry holds of its reason.
	reasonBytes = 1 << 10
)

// ErrFull is matched by Append's error when the entry does not fit. Its text
// names the file. Append may be called again with the same entry; it succeeds
// once somebody has taken the file away.
var ErrFull = errors.New("the dead letter is full")

// ErrUnsynced is matched by an error after which it is unknown which entries
// since the last Sync are on disk. The stream starts again from its checkpoint.
var ErrUnsynced = errors.New("entries of the dead letter may be lost")

// Entry is one line or record that was not delivered.
type Entry struct {
	// Position is where it comes from.
	Position checkpoint.Position
	// Reason says why it was not delivered. 1 KiB of it is kept.
	Reason string
	// Bytes is the line or record. Above 1 MiB the entry refers to the line in
	// the node's file instead.
	Bytes []byte
	// LineBytes is the length of the line at Position, its newline included.
	LineBytes int64
}

// Store is one stream's dead letter: a file of JSON lines. One goroutine uses it.
type Store struct {
	fs   vfs.FS
	name string
	max  int64

	file   vfs.File // nil until the first entry
	length int64    // of the file's whole entries
	dirty  bool     // changed since the last sync
	names  bool     // the file's name may not be durable
	ragged bool     // a part of an entry may follow length
	dead   error    // what every call returns after ErrUnsynced
}

// Open returns the dead letter of one stream, <dir>/deadletter/<stream>.jsonl,
// bounded to max bytes. recorded is the length that the stream's checkpoint
// holds: the entries behind it are cut off, since the lines they are about are
// read again. A file that is shorter or gone was taken away, and is continued or
// begun as it is.
func Open(fsys vfs.FS, dir, stream string, recorded, maxBytes int64) (*Store, error) {
	dir = filepath.Join(dir, "deadletter")
	s := &Store{fs: fsys, name: filepath.Join(dir, stream+".jsonl"), max: maxBytes, names: true}
	if err := vfs.MakeDirs(fsys, dir); err != nil {
		return nil, fmt.Errorf("open the dead letter: %w", err)
	}
	size, err := s.size()
	if err != nil {
		return nil, fmt.Errorf("open the dead letter: %w", err)
	}
	if size <= 0 {
		return s, nil
	}
	s.length, s.ragged = min(size, recorded), size > recorded
	// Also if it is not cut: a process before this one may have done that and
	// died before it could sync.
	s.dirty = true
	if err := s.open(size); err != nil {
		return nil, fmt.Errorf("open the dead letter: %w", err)
	}
	if err := s.cut(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Append adds an entry. It is durable after the next Sync. After an error the
// entry is not in the file; it may be appended again unless the error matches
// ErrUnsynced.
func (s *Store) Append(e Entry) error {
	if s.dead != nil {
		return s.dead
	}
	if err := s.follow(); err != nil {
		return err
	}
	line, err := s.encode(e)
	if err != nil {
		return fmt.Errorf("encode the dead letter of %s: %w", e.Position, err)
	}
	if s.length+int64(len(line)) > s.max {
		return fmt.Errorf("%w: %s holds %d of %d bytes and the next entry has %d; take the file away", ErrFull, s.name, s.length, s.max, len(line))
	}
	s.dirty, s.ragged = true, true
	if _, err := s.file.Write(line); err != nil {
		err = fmt.Errorf("write %s: %w", s.name, err)
		return errors.Join(err, s.cut())
	}
	s.length, s.ragged = s.length+int64(len(line)), false
	return nil
}

// Sync makes the entries durable and returns the length that the next checkpoint
// must record. With nothing new it does no I/O. Any error but a leftover that
// cannot be cut off yet matches ErrUnsynced.
func (s *Store) Sync() (length int64, err error) {
	if s.dead != nil {
		return 0, s.dead
	}
	if err := s.cut(); err != nil {
		return 0, err
	}
	return s.length, s.sync()
}

func (s *Store) sync() error {
	if !s.dirty {
		return nil
	}
	if err := s.file.Sync(); err != nil {
		return s.die("sync %s: %w", s.name, err)
	}
	if s.names {
		if err := s.fs.SyncDir(filepath.Dir(s.name)); err != nil {
			return s.die("sync the directory of %s: %w", s.name, err)
		}
	}
	s.dirty, s.names = false, false
	return nil
}

func (s *Store) die(format string, args ...any) error {
	s.dead = fmt.Errorf("%w: "+format, append([]any{ErrUnsynced}, args...)...)
	return s.dead
}

// Close lets the file go and does not sync it.
func (s *Store) Close() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", s.name, err)
	}
	return nil
}

// size returns the file's length, and -1 when there is none.
func (s *Store) size() (int64, error) {
	size, err := s.fs.Size(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", s.name, err)
	}
	return size, nil
}

// follow has s.file be the file that has the name now, and not one that was
// taken away.
func (s *Store) follow() error {
	if err := s.cut(); err != nil {
		return err
	}
	size, err := s.size()
	if err != nil {
		return err
	}
	if s.file != nil && size == s.length {
		return nil
	}
	// Whoever took the file has entries that no checkpoint knows yet.
	if err := s.sync(); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	if err := s.open(size); err != nil {
		return err
	}
	s.length = max(size, 0)
	return nil
}

// open opens the file, of which size says whether it exists.
func (s *Store) open(size int64) (err error) {
	if size >= 0 {
		s.file, err = s.fs.Append(s.name)
	} else {
		s.file, err = s.fs.Create(s.name)
		s.names = true
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", s.name, err)
	}
	return nil
}

// cut takes off what a failed write left behind the last whole entry.
func (s *Store) cut() error {
	if !s.ragged {
		return nil
	}
	if err := s.file.Truncate(s.length); err != nil {
		return fmt.Errorf("cut %s back to %d bytes: %w", s.name, s.length, err)
	}
	s.ragged, s.dirty = false, true
	return nil
}

// entry is a line of the file. Exactly one of Bytes, Base64 and Line is there.
type entry struct {
	Time     time.Time `json:"time"`
	Position string    `json:"position"`
	Reason   string    `json:"reason"`
	Bytes    *string   `json:"bytes,omitempty"`
	Base64   *string   `json:"base64,omitempty"`
	Line     *line     `json:"line,omitempty"`
}

// line refers to a line in the node's file.
type line struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
}

func (s *Store) encode(e Entry) ([]byte, error) {
	out := entry{Time: time.Now().UTC(), Position: e.Position.String(), Reason: e.Reason}
	if len(out.Reason) > reasonBytes {
		out.Reason = strings.ToValidUTF8(out.Reason[:reasonBytes], "") + "…"
	}
	reference := &line{File: e.Position.File.String(), Offset: e.Position.Offset, Length: e.LineBytes}
	switch {
	case len(e.Bytes) > inlineBytes:
		out.Line = reference
	case utf8.Valid(e.Bytes):
		text := string(e.Bytes)
		out.Bytes = &text
	default:
		text := base64.StdEncoding.EncodeToString(e.Bytes)
		out.Base64 = &text
	}
	encoded, err := encode(out)
	if err == nil && int64(len(encoded)) > s.max {
		// It would never fit, and the stream would wait for ever.
		out.Bytes, out.Base64, out.Line = nil, nil, reference
		encoded, err = encode(out)
	}
	return encoded, err
}

func encode(e entry) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(e)
	return buf.Bytes(), err
}
