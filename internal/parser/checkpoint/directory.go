package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// deadLetterDir is where package deadletter stores its files. They are marks of an earlier use, and must not be pruned
// either.
const deadLetterDir = "deadletter"

// Directory is a locked state directory with the stores of its streams. It is safe for concurrent use.
type Directory struct {
	dir  string
	fs   vfs.FS // writes only while the lock is held
	held *vfs.Held

	mu       sync.Mutex
	stores   map[string]*Store
	listed   []string // the streams listed in the lock file
	relocked int      // number of times the lock was taken again, as last reported by Keep
}

// Lock creates the state directory and locks it. A parser holds the lock while it runs, and a command holds it while it
// changes a checkpoint. Lock waits while another process holds the lock, and calls waiting once before it waits. Close
// releases the lock.
func Lock(ctx context.Context, fsys vfs.FS, dir string, waiting func()) (*vfs.Held, error) {
	if err := makeDirs(fsys, dir); err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	return vfs.Lock(ctx, fsys, filepath.Join(dir, markDir), lockFile(dir), waiting)
}

func lockFile(dir string) string { return filepath.Join(dir, "lock") }

// Acquire is Lock for a parser of the given streams. Before any stream is opened, it decides which of them are new: the
// marks of earlier use must be read before this parser adds its own.
func Acquire(ctx context.Context, fsys vfs.FS, dir string, streams []string, waiting func()) (*Directory, error) {
	held, err := Lock(ctx, fsys, dir, waiting)
	if err != nil {
		return nil, err
	}
	d := &Directory{dir: dir, fs: held.Guard(fsys), held: held, stores: map[string]*Store{}}
	if err := markStreams(d.fs, dir, streams); err != nil {
		return nil, errors.Join(err, held.Close())
	}
	return d, nil
}

// FS returns the file system for writing under the lock.
func (d *Directory) FS() vfs.FS { return d.fs }

// Check verifies that the lock is held; see vfs.Held.
func (d *Directory) Check() error { return d.held.Check() }

// CheckWrite is Check for frequent writes to a sink; see vfs.Held.
func (d *Directory) CheckWrite() error { return d.held.CheckWrite() }

// Close releases the lock.
func (d *Directory) Close() error { return d.held.Close() }

// Store returns the store of a stream. It returns the same store each time, so that its knowledge outlives deleted
// files.
func (d *Directory) Store(stream string) (*Store, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.stores[stream]; s != nil {
		_, err := s.Keep()
		return s, err
	}
	s, err := Open(d.fs, d.dir, stream)
	if err != nil {
		return nil, err
	}
	d.stores[stream] = s
	return s, nil
}

// Name returns the directory's path.
func (d *Directory) Name() string { return d.dir }

// New reports whether a stream was loaded and has no checkpoint, unless Forget was called for it.
func (d *Directory) New(stream string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stores[stream]
	return s != nil && s.isNew()
}

// Fold folds the checkpoints of all streams; see Store.
func (d *Directory) Fold() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	errs := make([]error, 0, len(d.stores))
	for _, s := range d.stores {
		errs = append(errs, s.Fold())
	}
	return errors.Join(errs...)
}

// Keep restores what was deleted: the lock, which it takes again, and the checkpoints that were loaded or saved. It
// returns the names of the files that it created. An error that matches vfs.ErrLockLost is final. After any other error
// the caller may retry. If nothing is missing, it costs one stat per file, so it may be called every second.
func (d *Directory) Keep() (restored []string, err error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if again := d.held.Again(); again > d.relocked {
		d.relocked, d.listed = again, nil // the new lock file is empty
		restored = append(restored, lockFile(d.dir))
	}
	var errs []error
	for _, s := range d.stores {
		files, err := s.Keep()
		restored, errs = append(restored, files...), append(errs, err)
	}
	errs = append(errs, d.writeList())
	for _, s := range d.stores {
		s.addStreams(d.listed)
	}
	return restored, errors.Join(errs...)
}

// writeList writes the streams that were started to the lock file.
func (d *Directory) writeList() error {
	started, err := begunStreams(d.fs, d.dir)
	if err != nil {
		return err
	}
	streams := slices.Concat(started, d.listed) // the mark of a stream that does not run may have been deleted
	slices.Sort(streams)
	streams = slices.Compact(streams)
	if slices.Equal(streams, d.listed) {
		return nil
	}
	f, err := d.fs.Create(lockFile(d.dir))
	if err != nil {
		return fmt.Errorf("listing the streams in %s: %w", lockFile(d.dir), err)
	}
	_, err = f.Write([]byte(strings.Join(streams, "\n") + "\n"))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("listing the streams in %s: %w", lockFile(d.dir), err)
	}
	d.listed = streams
	return nil
}

// Touch sets the modification time of all files of the state directory to now, whether their streams run or not.
// Software that prunes the node's files selects by modification time.
func (d *Directory) Touch() error {
	if err := d.Check(); err != nil {
		return err
	}
	errs := []error{d.fs.Touch(lockFile(d.dir))}
	for _, sub := range []string{slotDir, markDir, resetDir, deadLetterDir} {
		names, err := d.fs.List(filepath.Join(d.dir, sub))
		errs = append(errs, err)
		for _, name := range names {
			errs = append(errs, d.fs.Touch(filepath.Join(d.dir, sub, name)))
		}
	}
	for i, err := range errs {
		if errors.Is(err, fs.ErrNotExist) {
			errs[i] = nil // renamed or removed since the listing
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("touching the state: %w", err)
	}
	return nil
}

// Forget makes a stream without a checkpoint start as a new one at its next load, regardless of what the directory or
// the sink knows of it. It refuses a stream with a checkpoint whose sink was opened. It may be called while a parser
// runs.
func Forget(fsys vfs.FS, dir, stream string) error {
	switch loaded, err := Show(fsys, dir, stream); {
	case err != nil && !errors.Is(err, ErrLost):
		return err
	case loaded.Found && !loaded.State.Unopened:
		return fmt.Errorf("stream %s has a checkpoint in %s", stream, dir)
	}
	name := filepath.Join(dir, resetDir, stream)
	if err := vfs.MakeDirs(fsys, filepath.Dir(name)); err != nil {
		return fmt.Errorf("forgetting stream %s: %w", stream, err)
	}
	f, err := fsys.Create(name)
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("forgetting stream %s: %w", stream, err)
	}
	return nil
}

// makeDirs creates the directories of a state directory. The directory of an older parser, which has no begunDir, stays
// recognizable until markStreams has read it.
func makeDirs(fsys vfs.FS, dir string) error {
	subs := []string{
		begunDir,
		slotDir,
		markDir,
	} // in this order: the first one identifies the version that created the rest
	byOlder, err := madeByOlderParser(fsys, dir)
	if err != nil {
		return err
	}
	if byOlder {
		subs = subs[1:]
	}
	for _, sub := range subs {
		if err := vfs.MakeDirs(fsys, filepath.Join(dir, sub)); err != nil {
			return err
		}
	}
	return nil
}

func madeByOlderParser(fsys vfs.FS, dir string) (bool, error) {
	if present, err := exists(fsys, filepath.Join(dir, begunDir)); err != nil || present {
		return false, err
	}
	for _, sub := range []string{slotDir, markDir, deadLetterDir} {
		if present, err := exists(fsys, filepath.Join(dir, sub)); err != nil || present {
			return present, err
		}
	}
	return false, nil
}

// begunStreams returns the streams that have a directory in begunDir, sorted.
func begunStreams(fsys vfs.FS, dir string) ([]string, error) {
	names, err := fsys.List(filepath.Join(dir, begunDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the streams of %s: %w", dir, err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return !isStream(name) }), nil
}

// markStreams decides which streams are new to the state directory, before any is opened, and marks the others. A lost
// stream must not pass for a new one after a restart either. See the package comment.
func markStreams(fsys vfs.FS, dir string, streams []string) error {
	s, err := survey(fsys, dir)
	if err != nil {
		return fmt.Errorf("reading the state directory %s: %w", dir, err)
	}
	started := slices.Sorted(maps.Keys(s.started))
	if s.earlier && !s.hasList && !s.unpruned() {
		started = append(started, streams...)
	}
	if err := vfs.MakeDirs(fsys, filepath.Join(dir, begunDir)); err != nil {
		return err
	}
	for _, stream := range started {
		if err := vfs.MakeDirs(fsys, filepath.Join(dir, begunDir, stream)); err != nil {
			return err
		}
	}
	return nil
}

// traces are the traces of earlier use in a state directory.
type traces struct {
	earlier bool            // the directory was used before
	hasList bool            // a list of the started streams exists
	started map[string]bool // streams that were certainly started
	slots   map[string]bool // streams that have a slot
	files   map[string]bool // streams that have a file in markDir
}

// unpruned reports whether a directory without a list still holds everything that it ever held.
func (s *traces) unpruned() bool {
	for stream := range s.slots {
		if !s.files[stream] {
			return false
		}
	}
	return len(s.slots) > 0
}

func survey(fsys vfs.FS, dir string) (*traces, error) {
	s := &traces{started: map[string]bool{}, slots: map[string]bool{}, files: map[string]bool{}}
	var err error
	if s.earlier, err = madeByOlderParser(fsys, dir); err != nil {
		return nil, err
	}
	addListed := func(names []string) {
		for _, name := range names {
			if isStream(name) {
				s.earlier, s.hasList, s.started[name] = true, true, true
			}
		}
	}
	started, err := begunStreams(fsys, dir)
	if err != nil {
		return nil, err
	}
	addListed(started)
	text, err := fsys.ReadFile(lockFile(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	addListed(strings.Fields(string(text)))

	for _, sub := range []string{slotDir, markDir, deadLetterDir} {
		names, err := fsys.List(filepath.Join(dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, name := range names {
			stream, kind, _ := strings.Cut(name, ".")
			if !isStream(stream) || strings.HasSuffix(name, ".tmp") {
				continue
			}
			s.earlier, s.started[stream] = true, true
			switch {
			case sub == markDir:
				s.files[stream] = true
			case kind == "0.json" || kind == "1.json":
				s.slots[stream] = true
				doc, err := readDocument(fsys, filepath.Join(dir, sub, name))
				if _, isIOError := errors.AsType[*ioError](err); isIOError {
					return nil, err
				}
				addListed(streamsIn(doc))
			}
		}
	}
	return s, nil
}

// streamsIn returns the streams that a slot's document lists. It returns none if the document is not intact.
func streamsIn(doc []byte) []string {
	format, payload, _, err := unseal(doc)
	if err != nil {
		return nil
	}
	type streams struct {
		Streams []string `json:"streams"`
	}
	if format == formatWhole {
		var s streams
		_ = json.Unmarshal(payload, &s) // an unreadable document lists no streams
		return s.Streams
	}
	var c struct {
		State streams `json:"state"`
	}
	_ = json.Unmarshal(payload, &c)
	return c.State.Streams
}
