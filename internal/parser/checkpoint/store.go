// Package checkpoint keeps what a stream has delivered, so that a restart goes
// on with the next byte.
//
// It must never guess. A checkpoint that cannot be read is said and set aside,
// one that is gone is an error and not a new stream, and nothing here ever
// chooses a position by itself.
//
// On disk a stream has two slots, <stream>.0.json and <stream>.1.json, each a
// whole checkpoint with a sequence number and a checksum. Save writes a
// temporary file, syncs it, renames it over the older slot and syncs the
// directory: the newer slot is not touched until the next Save, so at every
// moment at least one of them is intact, and after a crash the one that is
// intact and newest is the last one saved, or the one that was being saved.
package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const (
	// format is the version of the document. A reader refuses a higher one, so
	// it rises only when an older parser would go wrong by reading on.
	format = 1

	slotDir  = "checkpoint" // below the state directory
	knownDir = "streams"    // apart from slotDir, so that losing one tells of the other
)

// ErrLost is matched by the error for a stream whose checkpoint was there once
// and cannot be read any more. Its text says what a person must do. The stream
// must not start anew by itself.
var ErrLost = errors.New("the stream's checkpoint is lost")

// Store is one stream's checkpoint in a state directory. One goroutine uses it.
// That no other process does is up to the caller, who holds the lock of Lock.
type Store struct {
	fs     vfs.FS
	dir    string
	stream string
	last   uint64 // the newest intact sequence
	at     uint64 // the slot that holds it
	known  bool   // the marker is there
	loaded bool
}

// Loaded is what Load found.
type Loaded struct {
	// State is the newest intact checkpoint; only if Found.
	State State
	// Found is false for a stream that this state directory never knew.
	Found bool
	// SetAside has one line for each damaged slot that was renamed, with its new
	// name and what is wrong with it. The caller logs them.
	SetAside []string
}

// Open returns the store of one stream below a state directory, and makes the
// directories it needs. stream is used in file names: lower-case words joined
// by "-".
func Open(fsys vfs.FS, dir, stream string) (*Store, error) {
	if stream == "" || strings.ContainsAny(stream, "./") {
		return nil, fmt.Errorf("open the checkpoint of stream %q: want a name without . and /", stream)
	}
	for _, sub := range []string{slotDir, knownDir} {
		if err := vfs.MakeDirs(fsys, filepath.Join(dir, sub)); err != nil {
			return nil, fmt.Errorf("open the checkpoint of stream %s: %w", stream, err)
		}
	}
	return &Store{fs: fsys, dir: dir, stream: stream}, nil
}

// Lock makes the state directory and takes its lock, which a parser holds while
// it runs and a command while it changes a checkpoint. It waits for another that
// holds it, and calls waiting once if so. Close gives the lock back.
func Lock(ctx context.Context, fsys vfs.FS, dir string, waiting func()) (io.Closer, error) {
	if err := vfs.MakeDirs(fsys, dir); err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	return vfs.Lock(ctx, fsys, filepath.Join(dir, "lock"), waiting)
}

func (s *Store) slot(i uint64) string {
	return filepath.Join(s.dir, slotDir, fmt.Sprintf("%s.%d.json", s.stream, i))
}

func (s *Store) marker() string { return filepath.Join(s.dir, knownDir, s.stream) }

// Load returns the newest intact checkpoint. A damaged slot is renamed to
// <slot>.corrupt-<time> as long as the other one is intact; if none is, nothing
// is touched and the error matches ErrLost. So it does when the state directory
// knew the stream and has no checkpoint of it. Any other error (the disk's, or
// a checkpoint that a newer parser wrote) may go away by itself.
func (s *Store) Load() (Loaded, error) {
	found, err := s.read()
	if err != nil {
		return Loaded{}, err
	}
	loaded := Loaded{State: found.newest, Found: found.intact > 0}
	if loaded.Found {
		for _, d := range found.damaged {
			to, err := s.setAside(d.name)
			if err != nil {
				return Loaded{}, err
			}
			loaded.SetAside = append(loaded.SetAside, fmt.Sprintf("%s: %v; set aside as %s", d.name, d.err, to))
		}
	}
	// What is returned must not be undone by a power loss that follows a Save
	// which died before it had synced the directory.
	for _, sub := range []string{slotDir, knownDir} {
		if err := s.fs.SyncDir(filepath.Join(s.dir, sub)); err != nil {
			return Loaded{}, fmt.Errorf("load the checkpoint of stream %s: %w", s.stream, err)
		}
	}
	s.last, s.at, s.known, s.loaded = found.newest.Sequence, found.at, found.known, true
	return loaded, nil
}

// contents is what the two slots hold, and whether the marker is there.
type contents struct {
	newest  State
	at      uint64 // the slot of newest
	intact  int
	damaged []damage
	known   bool
}

type damage struct {
	name string
	err  error
}

// read looks at both slots and changes nothing.
func (s *Store) read() (contents, error) {
	var c contents
	for i := range uint64(2) {
		name := s.slot(i)
		doc, err := s.fs.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return c, fmt.Errorf("read the checkpoint %s: %w", name, err)
		}
		state, err := decode(doc, s.stream)
		var newer *newerError
		switch {
		case errors.As(err, &newer):
			return c, fmt.Errorf("read the checkpoint %s: %w", name, err)
		case err != nil:
			c.damaged = append(c.damaged, damage{name: name, err: err})
		default:
			c.intact++
			if c.intact == 1 || state.Sequence > c.newest.Sequence {
				c.newest, c.at = state, i
			}
		}
	}
	_, err := s.fs.Size(s.marker())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("look for %s: %w", s.marker(), err)
	}
	c.known = err == nil
	if c.intact > 0 {
		return c, nil
	}
	if len(c.damaged) > 0 {
		var all []string
		for _, d := range c.damaged {
			all = append(all, fmt.Sprintf("%s: %v", d.name, d.err))
		}
		return c, fmt.Errorf("%w: no copy is intact; %s (%s)", ErrLost, s.remedy(), strings.Join(all, "; "))
	}
	if c.known {
		return c, fmt.Errorf("%w: no copy is there; %s", ErrLost, s.remedy())
	}
	return c, nil
}

func (s *Store) remedy() string {
	return fmt.Sprintf("put %s or %s back, or remove %s and what is left of them to have stream %s start as a new one",
		s.slot(0), filepath.Base(s.slot(1)), s.marker(), s.stream)
}

// setAside renames a damaged slot to a name that is free.
func (s *Store) setAside(name string) (string, error) {
	base := name + ".corrupt-" + time.Now().UTC().Format("20060102T150405Z")
	to := base
	for n := 2; ; n++ {
		_, err := s.fs.Size(to)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("set the damaged checkpoint %s aside: %w", name, err)
		}
		to = fmt.Sprintf("%s-%d", base, n)
	}
	if err := s.fs.Rename(name, to); err != nil {
		return "", fmt.Errorf("set the damaged checkpoint %s aside: %w", name, err)
	}
	return to, nil
}

// Save makes state the stream's checkpoint; when it returns nil, a crash of any
// kind leaves this one or a later one. After an error the stream's checkpoint
// is this one or the one before, and Save may be called again, with this state
// or a later one. It needs a Load that succeeded.
func (s *Store) Save(state State) error {
	if err := s.save(state); err != nil {
		return fmt.Errorf("save the checkpoint of stream %s: %w", s.stream, err)
	}
	return nil
}

func (s *Store) save(state State) error {
	if !s.loaded {
		return errors.New("it was not loaded")
	}
	state.Sequence, state.Stream = s.last+1, s.stream
	if err := state.validate(); err != nil {
		return err
	}
	doc, err := encode(state)
	if err != nil {
		return err
	}
	// Never the slot that holds s.last, also when an earlier try failed: it stays
	// intact whatever happens here.
	to := 1 - s.at
	if err := s.replace(s.slot(to), doc); err != nil {
		return err
	}
	if !s.known {
		// Only now, so that a crash between the two does not make a checkpoint
		// look lost that was never there.
		if err := s.remember(); err != nil {
			return err
		}
	}
	s.last, s.at, s.known = state.Sequence, to, true
	return nil
}

func (s *Store) replace(name string, doc []byte) error {
	temporary := name + ".tmp"
	f, err := s.fs.Create(temporary)
	if err != nil {
		return fmt.Errorf("create %s: %w", temporary, err)
	}
	_, err = f.Write(doc)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", temporary, err)
	}
	if err := s.fs.Rename(temporary, name); err != nil {
		return fmt.Errorf("rename %s to %s: %w", temporary, name, err)
	}
	if err := s.fs.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("sync the directory of %s: %w", name, err)
	}
	return nil
}

// remember leaves the mark by which a lost checkpoint is told from a new stream.
func (s *Store) remember() error {
	f, err := s.fs.Create(s.marker())
	if err != nil {
		return fmt.Errorf("create %s: %w", s.marker(), err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", s.marker(), err)
	}
	if err := s.fs.SyncDir(filepath.Dir(s.marker())); err != nil {
		return fmt.Errorf("sync the directory of %s: %w", s.marker(), err)
	}
	return nil
}

// Streams returns the names of the streams that a state directory knows, sorted;
// none when the directory does not exist.
func Streams(fsys vfs.FS, dir string) ([]string, error) {
	var streams []string
	for _, sub := range []string{slotDir, knownDir} {
		names, err := fsys.List(filepath.Join(dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list the streams of %s: %w", dir, err)
		}
		for _, name := range names {
			stream, _, _ := strings.Cut(name, ".")
			streams = append(streams, stream)
		}
	}
	slices.Sort(streams)
	return slices.Compact(streams), nil
}

// Show returns a stream's newest intact checkpoint and changes nothing, so it
// may be called while a parser runs. SetAside has the slots that Load would set
// aside. Errors are those of Load.
func Show(fsys vfs.FS, dir, stream string) (Loaded, error) {
	s := &Store{fs: fsys, dir: dir, stream: stream}
	found, err := s.read()
	if err != nil {
		return Loaded{}, err
	}
	loaded := Loaded{State: found.newest, Found: found.intact > 0}
	for _, d := range found.damaged {
		loaded.SetAside = append(loaded.SetAside, fmt.Sprintf("%s: %v", d.name, d.err))
	}
	return loaded, nil
}

// document is what a slot holds. The checksum is of the checkpoint's JSON
// without the space between its tokens, so that reformatting does no harm and a
// changed value does.
type document struct {
	Format     int             `json:"format"`
	CRC32C     string          `json:"crc32c"`
	Checkpoint json.RawMessage `json:"checkpoint"`
}

func encode(state State) ([]byte, error) {
	payload, err := json.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	doc, err := json.MarshalIndent(document{Format: format, CRC32C: checksum(payload), Checkpoint: payload}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return append(doc, '\n'), nil
}

// newerError is for a checkpoint that is intact and not ours to read.
type newerError struct{ format int }

func (e *newerError) Error() string {
	return fmt.Sprintf("format %d was written by a newer hlparser, this one reads up to %d: run that version, or put an older checkpoint back", e.format, format)
}

func decode(doc []byte, stream string) (State, error) {
	var d document
	if err := json.Unmarshal(doc, &d); err != nil {
		return State{}, fmt.Errorf("not a checkpoint: %w", err)
	}
	if d.Format > format {
		return State{}, &newerError{format: d.Format}
	}
	var payload bytes.Buffer
	if err := json.Compact(&payload, d.Checkpoint); err != nil {
		return State{}, fmt.Errorf("not a checkpoint: %w", err)
	}
	if sum := checksum(payload.Bytes()); sum != d.CRC32C {
		return State{}, fmt.Errorf("checksum is %s, the file says %q", sum, d.CRC32C)
	}
	var state State
	if err := json.Unmarshal(payload.Bytes(), &state); err != nil {
		return State{}, fmt.Errorf("not a checkpoint: %w", err)
	}
	if state.Stream != stream {
		return State{}, fmt.Errorf("it is the checkpoint of stream %q", state.Stream)
	}
	if err := state.validate(); err != nil {
		return State{}, err
	}
	return state, nil
}

func checksum(p []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
}
