package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// Open implements sink.Output. It looks at everything first, and fails, matching
// sink.ErrFailed, before it changes anything, if the output is not what the
// checkpoint's state continues.
func (o *Output) Open(ctx context.Context, name string, saved json.RawMessage) (sink.Sink, error) {
	s := &stream{fs: o.fs, dir: filepath.Join(o.dir, name), opts: o.opts, frames: frames{encoder: o.encoder}}
	if err := s.recover(ctx, saved); err != nil {
		return nil, fmt.Errorf("open the output of stream %s: %w", name, err)
	}
	return s, nil
}

func (s *stream) recover(ctx context.Context, saved json.RawMessage) error {
	if err := vfs.MakeDirs(s.fs, s.dir); err != nil {
		return err
	}
	files, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", s.dir, err)
	}
	if saved == nil {
		return s.mustBeEmpty(files)
	}
	var st state
	if err := json.Unmarshal(saved, &st); err != nil {
		return fmt.Errorf("%w: the checkpoint's state of the file sink: %w", sink.ErrFailed, err)
	}
	if err := s.adopt(st); err != nil {
		return err
	}
	if err := s.removeUnknown(files); err != nil {
		return err
	}
	// A process that was killed may have named parts and not synced the names.
	// The next checkpoint forgets those parts; they must not turn into .part
	// files again, which would then be unknown ones.
	s.names++
	return s.name(ctx)
}

// mustBeEmpty is for a stream without a checkpoint. The engine saves one before
// the first record is written, so output means that the checkpoint is gone.
func (s *stream) mustBeEmpty(files []string) error {
	for _, file := range files {
		if ours, _ := isOurs(file); ours {
			return fmt.Errorf("%w: %s holds %s, of which the checkpoint knows nothing; put the state directory back that belongs to it, or move the .part, .jsonl and .jsonl.zst files away to start anew",
				sink.ErrFailed, s.dir, file)
		}
	}
	return nil
}

// adopt takes over the parts of the checkpoint and looks whether their files
// can be what it says. It changes nothing on disk.
func (s *stream) adopt(st state) error {
	if st.Open != nil {
		// It is dirty even if it has the right length: a process before this one
		// may have cut it back to that and died before it could sync.
		s.open = &part{name: st.Open.Name, zstd: st.Open.Zstd, length: st.Open.Bytes, since: st.Open.Since, changes: 1}
		found, err := s.inspect(s.open)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("%w: %s is missing, and the checkpoint says that it holds %d bytes; put it back, or put the state directory back that belongs to this output",
				sink.ErrFailed, s.openPath(s.open), s.open.length)
		}
	}
	for _, c := range st.Complete {
		p := &part{name: c.Name, zstd: c.Zstd, length: c.Bytes, saves: c.Saves}
		found, err := s.inspect(p)
		if err != nil {
			return err
		}
		if found && p.ragged {
			return fmt.Errorf("%w: %s was complete with %d bytes and is longer now: something else writes to it; stop that and cut it back",
				sink.ErrFailed, s.openPath(p), p.length)
		}
		// Else it was named by a process that got further than this checkpoint,
		// and perhaps taken away since.
		if found {
			s.complete = append(s.complete, p)
		}
	}
	return nil
}

// inspect tells whether the part's file is there, and marks it if it is too long.
func (s *stream) inspect(p *part) (found bool, err error) {
	name := s.openPath(p)
	size, err := s.fs.Size(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look at %s: %w", name, err)
	case size < p.length:
		return false, fmt.Errorf("%w: %s has %d bytes, and the checkpoint says that it holds %d; put the whole file back, or put the state directory back that belongs to this output",
			sink.ErrFailed, name, size, p.length)
	}
	p.ragged = size > p.length
	return true, nil
}

// removeUnknown removes the parts that were begun after the checkpoint.
func (s *stream) removeUnknown(files []string) error {
	known := map[string]bool{}
	for _, p := range s.complete {
		known[p.openName()] = true
	}
	if s.open != nil {
		known[s.open.openName()] = true
	}
	for _, file := range files {
		if ours, closed := isOurs(file); !ours || closed || known[file] {
			continue
		}
		if err := s.fs.Remove(filepath.Join(s.dir, file)); err != nil {
			return fmt.Errorf("remove %s, which is not in the checkpoint: %w", filepath.Join(s.dir, file), err)
		}
	}
	return nil
}
