package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// Open implements sink.Output. It checks the output against the checkpoint's state before it changes anything. If the
// output is not what the state continues, Open fails with sink.ErrFailed.
func (o *Output) Open(ctx context.Context, name string, saved json.RawMessage) (sink.Sink, error) {
	s := &stream{
		fs: o.fs, dir: filepath.Join(o.dir, name), opts: o.opts, room: room{fresh: true},
		ledger: ledger{output: o, name: name}, frames: frames{encoder: o.encoder},
	}
	if err := s.recover(ctx, saved); err != nil {
		return nil, notDirectory(fmt.Errorf("opening the output of stream %s: %w", name, err))
	}
	s.begin()
	return s, nil
}

func (s *stream) recover(ctx context.Context, saved json.RawMessage) error {
	var st state
	if saved != nil {
		err := json.Unmarshal(saved, &st)
		if err == nil {
			err = st.validate()
		}
		if err != nil {
			return fmt.Errorf("%w: reading the checkpoint's state of the file sink: %w; "+
				"put the state directory back that belongs to this output", sink.ErrFailed, err)
		}
	}
	if st.Open != nil || len(st.Complete) > 0 {
		// A missing directory says nothing about its content: its volume may be mounted late.
		if err := s.checkDir(); err != nil {
			return err
		}
	}
	if err := vfs.MakeDirs(s.fs, s.dir); err != nil {
		return err
	}
	files, err := s.list()
	if err != nil {
		return err
	}
	if err := s.countClosed(); err != nil {
		return err
	}
	if saved == nil {
		return s.mustBeEmpty(files)
	}
	if err := s.adopt(st, files); err != nil {
		return err
	}
	if err := s.removeUnknown(files); err != nil {
		return err
	}
	// A process that was killed may have renamed parts without syncing the names. The next checkpoint forgets those
	// parts. They must not become .part files again, because those would be unknown.
	s.names++
	return s.name(ctx)
}

// list returns the names in the stream's directory.
func (s *stream) list() ([]string, error) {
	files, err := s.fs.List(s.dir)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", s.dir, err)
	}
	return files, nil
}

// checkDir returns an error, which is an outage, if the stream's directory is missing or unreadable.
func (s *stream) checkDir() error {
	if _, err := s.fs.Size(s.dir); err != nil {
		return fmt.Errorf("checking for %s, which holds the files of the checkpoint: %w", s.dir, err)
	}
	return nil
}

// mustBeEmpty checks the directory of a stream without a checkpoint. The engine saves a checkpoint before it writes the
// first record, so existing output means that the checkpoint was lost.
func (s *stream) mustBeEmpty(files []string) error {
	for _, file := range files {
		if ours, _ := classify(file); ours {
			return fmt.Errorf("%w: %s holds %s, which is not in the checkpoint; put the state directory back that belongs "+
				"to it, or move the .part, .jsonl and .jsonl.zst files away to start over", sink.ErrFailed, s.dir, file)
		}
	}
	return nil
}

// adopt takes over the checkpoint's parts and checks their files against it. It changes nothing on disk.
func (s *stream) adopt(st state, files []string) error {
	if st.Open != nil {
		// It is dirty even if its length is right: an earlier process may have truncated it and died before the sync.
		s.open = &part{name: st.Open.Name, zstd: st.Open.Zstd, length: st.Open.Bytes, since: st.Open.Since, changes: 1}
		found, err := s.inspect(s.open, files)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("%w: %s is missing, and the checkpoint says that it holds %d bytes; put it back, "+
				"or put the state directory back that belongs to this output", sink.ErrFailed, s.openPath(s.open), s.open.length)
		}
	}
	for _, c := range st.Complete {
		p := &part{name: c.Name, zstd: c.Zstd, length: c.Bytes, saves: c.Saves}
		found, err := s.inspect(p, files)
		if err != nil {
			return err
		}
		if found && p.overlong {
			return fmt.Errorf("%w: %s was complete with %d bytes and is longer now: another program writes to it; "+
				"stop that program and truncate the file to that length", sink.ErrFailed, s.openPath(p), p.length)
		}
		// If it is missing, a process that got further than this checkpoint has renamed it, and perhaps a consumer has
		// removed it since.
		if found {
			s.complete = append(s.complete, p)
		}
	}
	return nil
}

// inspect reports whether the part's file exists, and marks it if it is too long. Only the directory's listing proves
// that a file is missing: a part that is considered missing is forgotten, and removed if it reappears.
func (s *stream) inspect(p *part, files []string) (found bool, err error) {
	name := s.openPath(p)
	size, err := s.fs.Size(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !slices.Contains(files, p.openName()):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("checking %s: %w", name, err)
	case size < p.length:
		return false, fmt.Errorf("%w: %s has %d bytes, and the checkpoint says that it holds %d; put the whole file back, "+
			"or put the state directory back that belongs to this output", sink.ErrFailed, name, size, p.length)
	}
	p.overlong = size > p.length
	return true, nil
}

// removeUnknown removes the parts that were started after the checkpoint.
func (s *stream) removeUnknown(files []string) error {
	known := map[string]bool{}
	for _, p := range s.complete {
		known[p.openName()] = true
	}
	if s.open != nil {
		known[s.open.openName()] = true
	}
	for _, file := range files {
		if ours, closed := classify(file); !ours || closed || known[file] {
			continue
		}
		if err := s.fs.Remove(filepath.Join(s.dir, file)); err != nil {
			return fmt.Errorf("removing %s, which is not in the checkpoint: %w", filepath.Join(s.dir, file), err)
		}
	}
	return nil
}
