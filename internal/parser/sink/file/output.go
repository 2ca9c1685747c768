// Package file is the sink that writes records into files of one directory a
// stream, for consumers on the same machine.
//
// A file is <position of its first record>.part while it may grow and .jsonl
// once it is closed. A closed file is never written, renamed or removed again,
// and holds whole records, each one once over all closed files, after any
// crash. Consumers may take closed files away; .part files are not theirs.
//
// # How a record is written once
//
// The checkpoint holds which part is open and how long it was, and which parts
// are complete and not yet named. Parts are synced, then their names, then the
// checkpoint is saved. Open goes back to exactly that: it cuts the open part to
// its recorded length and removes the parts that the checkpoint does not know,
// and the engine reads what they held again.
//
// A complete part is named .jsonl only after the second checkpoint that records
// it as complete. There are two generations of checkpoints, and the newest may
// turn out to be damaged: then the one before must not find that a part, which
// it has as open and will continue, has meanwhile been given to a consumer.
//
// It must never overwrite a closed file, and never make up for bytes that are
// missing: then the stream is Failed.
package file

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// Options say when a part is closed, besides at the end of a run with --once.
type Options struct {
	// MaxBytes is the length that no part exceeds, unless one record does. 0: no limit.
	MaxBytes int64
	// MaxAge is how long after its first record a part is closed, also when no
	// further record comes. It is looked at with every write and flush. 0: no limit.
	MaxAge time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Output is a directory with one directory a stream. It is a sink.Output.
type Output struct {
	fs   vfs.FS
	dir  string
	opts Options
	lock io.Closer
}

// New makes the directory and takes its lock, so that no other parser writes
// there. It waits for one that does, and calls waiting once if so.
func New(ctx context.Context, fsys vfs.FS, dir string, opts Options, waiting func()) (*Output, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if err := vfs.MakeDirs(fsys, dir); err != nil {
		return nil, fmt.Errorf("open the output directory: %w", err)
	}
	lock, err := vfs.Lock(ctx, fsys, filepath.Join(dir, ".lock"), waiting)
	if err != nil {
		return nil, fmt.Errorf("open the output directory: %w", err)
	}
	return &Output{fs: fsys, dir: dir, opts: opts, lock: lock}, nil
}

// Close gives the directory's lock back.
func (o *Output) Close() error {
	if err := o.lock.Close(); err != nil {
		return fmt.Errorf("unlock the output directory %s: %w", o.dir, err)
	}
	return nil
}
