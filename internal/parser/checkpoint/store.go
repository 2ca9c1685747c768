// Package checkpoint stores what a stream has delivered, so that a restart continues with the next byte.
//
// The package must never guess. An unreadable checkpoint is reported and set aside. A missing checkpoint is an error,
// not a new stream. Nothing in this package chooses a position.
//
// # Two generations
//
// A stream has two slots on disk, checkpoint/<stream>.0.json and .1.json, each with a sequence number and a checksum.
// Save writes a temporary file, syncs it, renames it over the older slot and syncs the directory. The newer slot is not
// changed until the next Save, so at least one slot is intact at any moment. After a crash, the newest intact slot is
// the last one saved, or the one that was being saved.
//
// A slot holds either a complete State or its changes from a base. A base is a complete State in two immutable copies,
// <stream>.base-<number>.0.json and .1.json. A slot holds all changes from its base: no slot depends on another slot.
// This has three consequences:
//
//   - A commit writes little, however many files a State has.
//   - There is no journal that could be torn in the middle.
//   - The two generations stay independent. If a slot or one copy of a base is damaged, the other slot or the other
//     copy is still valid.
//
// A base has a unique name. It is written and synced before the first slot that refers to it, and removed when no slot
// refers to it any more.
//
// The sink's data is stored completely in each slot. "Recorded by two checkpoints" therefore still means that both
// checkpoints that can be found contain it.
//
// # Older parsers
//
// A parser that does not know bases must not misread a slot. Slots that refer to a base therefore have format 2, which
// such a parser refuses with an error. A parser that ends in an orderly way folds its checkpoints: both slots are then
// complete and in format 1, and an older parser can continue from them. A fleet can thus be rolled back if its parsers
// are stopped, not killed. After a kill -9, the newer parser must run once more.
//
// # Lost or new
//
// A stream without a slot is lost if it was ever started in this state directory, and new otherwise. Software that
// prunes the node's files may also delete these, so several places record which streams were started:
//
//   - Each stream has a directory begun/<stream>, which survives the deletion of every file.
//   - Each stream has a file streams/<stream>, which older parsers use.
//   - All checkpoints and the file "lock" list all streams.
//
// Acquire reads all of them before any stream is opened, and reconciles them:
//
//	slots of the stream    | a mark of the stream | a list of streams, | the stream is
//	                       |                      | or an empty        |
//	                       |                      | directory          |
//	at least one intact    | any                  | any                | found
//	present, none intact   | any                  | any                | lost
//	none                   | yes                  | any                | lost
//	none                   | no                   | yes                | new
//	none                   | no                   | no                 | lost
//
// A mark is a begun/ directory, a streams/ file, a list entry, a dead letter of the stream, or any file named after the
// stream in checkpoint/. In the last row, the directory shows an earlier use but not by which streams. There is one
// exception, because older parsers kept no list. If each stream that has a slot still has its file in streams/, nothing
// was pruned: that file is older than the slot and would have been pruned before it. A stream without a mark is then
// new.
//
// A lost stream stays lost over restarts, until a checkpoint is restored or an operator calls Forget, which starts the
// stream as a new one.
package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const (
	slotDir  = "checkpoint" // in the state directory
	markDir  = "streams"    // a file per started stream; outside slotDir, so that losing one does not lose the other
	begunDir = "begun"      // a directory per started stream
	resetDir = "forget"     // a file per stream that starts as a new one if it is lost
)

// ErrLost is matched by the error for a stream whose checkpoint existed and cannot be read any more. Its text describes
// what an operator must do. The stream must not start as a new one automatically.
var ErrLost = errors.New("the stream's checkpoint is lost")

// Store is one stream's checkpoint in a state directory. Keep may be called concurrently with the other methods, which
// are called by one goroutine. The caller must hold the lock of the directory, so that no other process uses it.
type Store struct {
	fs     vfs.FS
	dir    string
	stream string

	mu               sync.Mutex
	sequence         uint64    // the newest intact sequence; 0 if there is none
	current          uint64    // the slot that holds sequence
	doc              []byte    // the content of that slot
	base             *base     // the base that doc refers to; nil if there is none
	writtenSinceBase int       // bytes of slots written since base was created
	slotBases        [2]uint64 // number of the base that each slot refers to; 0 if there is none
	lastBase         uint64    // the highest number of any base so far
	unused           []string  // files of bases that no slot refers to
	streams          []string  // streams that the state directory knows
	marked           bool      // the marks record that the stream was started
	bothWritten      bool      // both slots have been written
	forget           bool      // Forget was called, and nothing has been saved since
	loaded           bool
}

// Loaded is the result of Load.
type Loaded struct {
	// State is the newest intact checkpoint. It is set only if Found.
	State State
	// Found reports whether a checkpoint was found. It is false for a stream that is new to this state directory.
	Found bool
	// SetAside has one line for each damaged file that was renamed, with its new name and the damage. The caller logs
	// them.
	SetAside []string
}

// Open returns the store of one stream in a state directory, and creates the directories that it needs. stream is used
// in file names. It consists of lower-case letters, digits and "-".
func Open(fsys vfs.FS, dir, stream string) (*Store, error) {
	if !isStream(stream) {
		return nil, fmt.Errorf("opening the checkpoint of stream %q: want lower-case words joined by -", stream)
	}
	if err := makeDirs(fsys, dir); err != nil {
		return nil, fmt.Errorf("opening the checkpoint of stream %s: %w", stream, err)
	}
	return &Store{fs: fsys, dir: dir, stream: stream}, nil
}

func isStream(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func (s *Store) slotPath(i uint64) string {
	return filepath.Join(s.dir, slotDir, fmt.Sprintf("%s.%d.json", s.stream, i))
}

func (s *Store) basePath(number uint64, i int) string {
	return filepath.Join(s.dir, slotDir, fmt.Sprintf("%s.base-%d.%d.json", s.stream, number, i))
}

// baseNumber returns the number in the file name of one of the stream's bases.
func (s *Store) baseNumber(name string) (uint64, bool) {
	rest, ok := strings.CutPrefix(name, s.stream+".base-")
	digits, _, dot := strings.Cut(rest, ".")
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, ok && dot && err == nil
}

func (s *Store) markPath() string { return filepath.Join(s.dir, markDir, s.stream) }

func (s *Store) begunPath() string { return filepath.Join(s.dir, begunDir, s.stream) }

func (s *Store) resetPath() string { return filepath.Join(s.dir, resetDir, s.stream) }

// Load returns the newest intact checkpoint. If at least one checkpoint is intact, it renames each damaged file to
// <name>.corrupt-<time>. If none is intact, it changes nothing and returns an error that matches ErrLost. It also
// returns such an error if the state directory knows the stream but has no checkpoint of it. After Forget, Load returns
// neither of the two errors. Any other error may be temporary: a disk error, or a checkpoint written by a newer parser.
func (s *Store) Load() (Loaded, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	forget, err := exists(s.fs, s.resetPath())
	if err != nil {
		return Loaded{}, err
	}
	found, err := s.readFiles()
	if err != nil && (!forget || !errors.Is(err, ErrLost)) {
		return Loaded{}, err
	}
	loaded := Loaded{State: found.newest, Found: found.intactSlots > 0}
	if loaded.Found || forget {
		for _, d := range found.damaged {
			to, err := s.setAside(d.name)
			if err != nil {
				return Loaded{}, err
			}
			loaded.SetAside = append(loaded.SetAside, fmt.Sprintf("%s: %v; set aside as %s", d.name, d.err, to))
		}
	}
	// A Save may have died before it synced the directory. A power loss after that Save must not undo what Load
	// returns.
	for _, sub := range []string{slotDir, markDir} {
		if err := s.fs.SyncDir(filepath.Join(s.dir, sub)); err != nil {
			return Loaded{}, fmt.Errorf("loading the checkpoint of stream %s: %w", s.stream, err)
		}
	}
	s.sequence, s.current, s.doc = found.newest.Sequence, found.slot, found.doc
	s.base, s.slotBases = found.base, found.slotBases
	s.marked, s.bothWritten, s.forget = found.marked && !forget, found.intactSlots == 2, forget
	if err := s.sweep(); err != nil {
		return Loaded{}, err
	}
	if s.streams, err = begunStreams(s.fs, s.dir); err != nil {
		return Loaded{}, err
	}
	s.loaded = true
	if loaded.Found {
		if forget {
			loaded.State.Unopened = false // the sink's records of the stream are forgotten too
		}
		// Without Forget this does nothing. After Forget, a checkpoint was restored instead.
		s.marked, s.forget = found.marked, false
		if err := remove(s.fs, s.resetPath()); err != nil {
			return Loaded{}, err
		}
		if _, err := s.restore(); err != nil {
			return Loaded{}, err
		}
	}
	return loaded, nil
}

// contents is the content of the stream's files.
type contents struct {
	newest      State
	doc         []byte
	base        *base
	slot        uint64 // the slot that holds newest
	intactSlots int
	slotBases   [2]uint64 // base numbers of the intact slots
	damaged     []damage
	marked      bool
}

type damage struct {
	name string
	err  error
}

// readFiles reads the stream's files and changes nothing.
func (s *Store) readFiles() (contents, error) {
	var c contents
	bases := map[baseRef]*base{}
	findBase := func(ref baseRef) (*base, error) {
		if b := bases[ref]; b != nil {
			return b, nil
		}
		b, damaged, err := s.readBase(ref)
		if err != nil {
			return nil, err
		}
		c.damaged = append(c.damaged, damaged...)
		bases[ref] = b
		return b, nil
	}
	for i := range uint64(2) {
		name := s.slotPath(i)
		doc, err := readDocument(s.fs, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var state State
		var b *base
		if err == nil {
			state, b, err = decode(doc, s.stream, findBase)
		}
		var newerErr *newerFormatError
		var ioErr *ioError
		switch {
		case errors.As(err, &newerErr), errors.As(err, &ioErr):
			return c, fmt.Errorf("reading the checkpoint %s: %w", name, err)
		case err != nil:
			c.damaged = append(c.damaged, damage{name: name, err: err})
		default:
			c.intactSlots++
			if b != nil {
				c.slotBases[i] = b.Number
			}
			if c.intactSlots == 1 || state.Sequence > c.newest.Sequence {
				c.newest, c.doc, c.base, c.slot = state, doc, b, i
			}
		}
	}
	for _, mark := range []string{s.markPath(), s.begunPath()} {
		present, err := exists(s.fs, mark)
		if err != nil {
			return c, err
		}
		c.marked = c.marked || present
	}
	if c.intactSlots > 0 {
		return c, nil
	}
	if len(c.damaged) > 0 {
		var all []string
		for _, d := range c.damaged {
			all = append(all, fmt.Sprintf("%s: %v", d.name, d.err))
		}
		return c, fmt.Errorf("%w: no copy is intact; %s (%s)", ErrLost, s.remedy(), strings.Join(all, "; "))
	}
	if c.marked {
		return c, fmt.Errorf("%w: no copy exists; %s", ErrLost, s.remedy())
	}
	return c, nil
}

// readBase returns a base from its first intact copy, and the damage of the copy before it.
func (s *Store) readBase(ref baseRef) (*base, []damage, error) {
	var damaged []damage
	var missing []error
	for i := range 2 {
		name := s.basePath(ref.Number, i)
		doc, err := readDocument(s.fs, name)
		if err == nil {
			var b *base
			if b, err = decodeBase(doc, s.stream, ref); err == nil {
				return b, damaged, nil
			}
			damaged = append(damaged, damage{name: name, err: err})
		}
		if _, isIOError := errors.AsType[*ioError](err); isIOError {
			return nil, nil, err
		}
		missing = append(missing, fmt.Errorf("%s: %w", name, err))
	}
	return nil, nil, fmt.Errorf("the base that it refers to is not intact: %w", errors.Join(missing...))
}

// ioError is the error for a file that could not be read, and may be intact.
type ioError struct{ error }

func (e *ioError) Unwrap() error { return e.error }

// readDocument reads a file unless it is larger than any checkpoint. Its error is an *ioError, fs.ErrNotExist, or an
// error of the file's content.
func readDocument(fsys vfs.FS, name string) ([]byte, error) {
	size, err := fsys.Size(name)
	if err == nil && size > maxDocument {
		return nil, fmt.Errorf("not a checkpoint: it has %d bytes, more than %d", size, maxDocument)
	}
	var doc []byte
	if err == nil {
		doc, err = fsys.ReadFile(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &ioError{fmt.Errorf("reading %s: %w", name, err)}
	}
	return doc, err
}

func exists(fsys vfs.FS, name string) (bool, error) {
	_, err := fsys.Size(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("checking for %s: %w", name, err)
	}
	return err == nil, nil
}

// remove removes a file that may be missing.
func remove(fsys vfs.FS, name string) error {
	if present, err := exists(fsys, name); err != nil || !present {
		return err
	}
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	return nil
}

func (s *Store) remedy() string {
	return fmt.Sprintf("put %s or %s back, or run \"hlparser checkpoint forget --state-dir %s --stream %s\" "+
		"to have the stream start as a new one", s.slotPath(0), filepath.Base(s.slotPath(1)), s.dir, s.stream)
}

// setAside renames a damaged file to an unused name.
func (s *Store) setAside(name string) (string, error) {
	base := name + ".corrupt-" + time.Now().UTC().Format("20060102T150405Z")
	to := base
	for n := 2; ; n++ {
		present, err := exists(s.fs, to)
		if err != nil {
			return "", fmt.Errorf("setting the damaged checkpoint %s aside: %w", name, err)
		}
		if !present {
			break
		}
		to = fmt.Sprintf("%s-%d", base, n)
	}
	if err := s.fs.Rename(name, to); err != nil {
		return "", fmt.Errorf("setting the damaged checkpoint %s aside: %w", name, err)
	}
	return to, nil
}

// sweep removes the bases that no slot refers to. It records the highest number, so that no name is ever used twice.
func (s *Store) sweep() error {
	names, err := s.fs.List(filepath.Join(s.dir, slotDir))
	if err != nil {
		return fmt.Errorf("listing the checkpoints of stream %s: %w", s.stream, err)
	}
	s.unused = nil
	for _, name := range names {
		number, ok := s.baseNumber(name)
		if !ok {
			continue
		}
		s.lastBase = max(s.lastBase, number)
		if !slices.Contains(s.slotBases[:], number) && !strings.Contains(name, ".corrupt-") {
			s.unused = append(s.unused, filepath.Join(s.dir, slotDir, name))
		}
	}
	return s.removeUnused()
}

// removeUnused removes the unused files.
func (s *Store) removeUnused() error {
	for len(s.unused) > 0 {
		if err := remove(s.fs, s.unused[0]); err != nil {
			return err
		}
		s.unused = s.unused[1:]
	}
	return nil
}

// Save makes state the stream's checkpoint. After it returns nil, a crash of any kind leaves this checkpoint or a later
// one. After an error, the stream's checkpoint is this one or the previous one. Save may then be called again, with
// this state or a later one. It requires a successful Load. It does not retain state.
func (s *Store) Save(state State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.save(state, false); err != nil {
		return fmt.Errorf("saving the checkpoint of stream %s: %w", s.stream, err)
	}
	return nil
}

func (s *Store) save(state State, fold bool) error {
	if !s.loaded {
		return errors.New("the checkpoint was not loaded")
	}
	if !slices.Contains(s.streams, s.stream) {
		s.streams = append(slices.Clone(s.streams), s.stream)
		slices.Sort(s.streams)
	}
	state.Sequence, state.Stream, state.Streams = s.sequence+1, s.stream, s.streams
	doc, b, err := s.encode(state, fold)
	if err != nil {
		return err
	}
	// Never write the slot that holds s.sequence, even if an earlier attempt failed. That slot stays intact whatever
	// happens here.
	to := 1 - s.current
	if err := s.replace(s.slotPath(to), doc); err != nil {
		return err
	}
	s.setSlotBase(to, b)
	s.writtenSinceBase += len(doc)
	if !s.marked {
		// The marks follow the slot. If they came first, a crash between the two would make a checkpoint look lost that
		// never existed.
		if err := s.writeMarks(); err != nil {
			return err
		}
	}
	s.bothWritten = s.bothWritten || s.sequence > 0
	s.sequence, s.current, s.doc, s.base, s.marked, s.forget = state.Sequence, to, doc, b, true, false
	return nil
}

// setSlotBase records the base that a slot refers to. A base that no slot refers to any more becomes unused.
func (s *Store) setSlotBase(slot uint64, b *base) {
	previous := s.slotBases[slot]
	s.slotBases[slot] = 0
	if b != nil {
		s.slotBases[slot] = b.Number
	}
	if previous != 0 && !slices.Contains(s.slotBases[:], previous) {
		s.unused = append(s.unused, s.basePath(previous, 0), s.basePath(previous, 1))
	}
}

// encode returns the document of a state and the base that it refers to, which is then on disk. The base is nil if the
// document is complete.
func (s *Store) encode(state State, fold bool) ([]byte, *base, error) {
	if s.base != nil && !fold {
		doc, changedBytes, err := s.base.changes(state)
		// A new base must not cost more than it saves, even if each commit changes a lot.
		if err != nil || changedBytes <= changesBytes || s.writtenSinceBase < 2*len(s.base.doc) {
			return doc, s.base, err
		}
	}
	doc, err := encodeWhole(state)
	if err != nil || fold || len(doc) <= slotBytes {
		return doc, nil, err
	}
	b, err := s.newBase(doc)
	if err != nil {
		return nil, nil, err
	}
	doc, _, err = b.changes(state)
	return doc, b, err
}

// newBase creates a base from a document and writes its copies to disk.
func (s *Store) newBase(doc []byte) (*base, error) {
	s.lastBase++
	_, _, sum, err := unseal(doc)
	if err != nil {
		return nil, err
	}
	// Decoding the document ensures that the base shares no memory with the caller's state.
	b, err := decodeBase(doc, s.stream, baseRef{s.lastBase, sum})
	if err != nil {
		return nil, err
	}
	for i := range 2 {
		name := s.basePath(b.Number, i)
		if err := s.write(name, doc); err != nil {
			s.unused = append(s.unused, s.basePath(b.Number, 0), s.basePath(b.Number, 1))
			return nil, errors.Join(err, s.removeUnused())
		}
	}
	s.writtenSinceBase = 0
	// The names are durable before a slot refers to them.
	return b, s.syncDir(filepath.Join(s.dir, slotDir))
}

func (s *Store) replace(name string, doc []byte) error {
	temporary := name + ".tmp"
	if err := s.write(temporary, doc); err != nil {
		return err
	}
	if err := s.fs.Rename(temporary, name); err != nil {
		return fmt.Errorf("renaming %s to %s: %w", temporary, name, err)
	}
	return s.syncDir(filepath.Dir(name))
}

func (s *Store) write(name string, doc []byte) error {
	f, err := s.fs.Create(name)
	if err != nil {
		return fmt.Errorf("creating %s: %w", name, err)
	}
	_, err = f.Write(doc)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

func (s *Store) syncDir(dir string) error {
	if err := s.fs.SyncDir(dir); err != nil {
		return fmt.Errorf("syncing directory %s: %w", dir, err)
	}
	return nil
}

// writeMarks writes the marks that distinguish a lost checkpoint from a new stream.
func (s *Store) writeMarks() error {
	f, err := s.fs.Create(s.markPath())
	if err != nil {
		return fmt.Errorf("creating %s: %w", s.markPath(), err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("closing %s: %w", s.markPath(), err)
	}
	if err := s.syncDir(filepath.Dir(s.markPath())); err != nil {
		return err
	}
	if err := vfs.MakeDirs(s.fs, s.begunPath()); err != nil {
		return err
	}
	return remove(s.fs, s.resetPath())
}

// Fold writes the complete checkpoint to both slots, so that an older parser can read it. Save works as before
// afterwards.
func (s *Store) Fold() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.slotBases != [2]uint64{} {
		state, _, err := decode(s.doc, s.stream, func(baseRef) (*base, error) { return s.base, nil })
		if err == nil {
			err = s.save(state, true)
		}
		if err != nil {
			return fmt.Errorf("folding the checkpoint of stream %s: %w", s.stream, err)
		}
	}
	if err := s.removeUnused(); err != nil {
		return fmt.Errorf("folding the checkpoint of stream %s: %w", s.stream, err)
	}
	return nil
}

func (s *Store) isNew() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loaded && s.sequence == 0 && !s.forget
}

// addStreams makes the next checkpoint list more streams. The caller must not change the slice afterwards.
func (s *Store) addStreams(streams []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(streams) > len(s.streams) { // neither list ever shrinks
		s.streams = streams
	}
}

// Keep restores from memory the files of the checkpoint that were deleted since it was loaded or saved. It returns the
// names of the files that it wrote. If nothing is missing, it costs one stat per file. It may be called concurrently
// with the other methods.
func (s *Store) Keep() (restored []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded || s.sequence == 0 {
		return nil, nil
	}
	if err := s.removeUnused(); err != nil {
		return nil, err
	}
	restored, err = s.restore()
	if err != nil {
		return restored, fmt.Errorf("restoring the checkpoint of stream %s: %w", s.stream, err)
	}
	return restored, nil
}

func (s *Store) restore() (restored []string, err error) {
	type wantedFile struct {
		name string
		doc  []byte
	}
	var want []wantedFile
	if s.base != nil { // before the slots that refer to it
		want = append(want, wantedFile{s.basePath(s.base.Number, 0), s.base.doc},
			wantedFile{s.basePath(s.base.Number, 1), s.base.doc})
	}
	want = append(want, wantedFile{s.slotPath(s.current), s.doc})
	if s.bothWritten {
		want = append(want, wantedFile{s.slotPath(1 - s.current), s.doc})
	}
	for _, w := range want {
		present, err := exists(s.fs, w.name)
		if err != nil {
			return restored, err
		}
		if present {
			continue
		}
		if err := makeDirs(s.fs, s.dir); err != nil {
			return restored, err
		}
		if err := s.replace(w.name, w.doc); err != nil {
			return restored, err
		}
		restored = append(restored, w.name)
		if w.name == s.slotPath(1-s.current) {
			s.setSlotBase(1-s.current, s.base)
		}
	}
	if !s.marked {
		return restored, nil
	}
	for _, mark := range []string{s.markPath(), s.begunPath()} {
		present, err := exists(s.fs, mark)
		if err != nil {
			return restored, err
		}
		if !present {
			if err := makeDirs(s.fs, s.dir); err != nil {
				return restored, err
			}
			if err := s.writeMarks(); err != nil {
				return restored, err
			}
			restored = append(restored, mark)
		}
	}
	return restored, nil
}

// Streams returns the sorted names of the streams that a state directory knows. It returns none if the directory does
// not exist.
func Streams(fsys vfs.FS, dir string) ([]string, error) {
	var streams []string
	for _, sub := range []string{slotDir, markDir, begunDir} {
		names, err := fsys.List(filepath.Join(dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("listing the streams of %s: %w", dir, err)
		}
		for _, name := range names {
			if stream, _, _ := strings.Cut(name, "."); isStream(stream) {
				streams = append(streams, stream)
			}
		}
	}
	slices.Sort(streams)
	return slices.Compact(streams), nil
}

// Show returns a stream's newest intact checkpoint and changes nothing, so it may be called while a parser runs.
// SetAside lists the files that Load would set aside. The errors are those of Load.
func Show(fsys vfs.FS, dir, stream string) (Loaded, error) {
	s := &Store{fs: fsys, dir: dir, stream: stream}
	found, err := s.readFiles()
	for range 2 {
		if len(found.damaged) > 0 || errors.Is(err, ErrLost) {
			found, err = s.readFiles() // a parser may have replaced the files in between
		}
	}
	if err != nil {
		return Loaded{}, err
	}
	loaded := Loaded{State: found.newest, Found: found.intactSlots > 0}
	for _, d := range found.damaged {
		loaded.SetAside = append(loaded.SetAside, fmt.Sprintf("%s: %v", d.name, d.err))
	}
	return loaded, nil
}
