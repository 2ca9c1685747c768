// Package file is the sink that writes records into files of one directory a
// stream, for consumers on the same machine.
//
// A file is <position of its first record>.part while it may grow and .jsonl
// once it is closed (.zst.part and .jsonl.zst when it is compressed). A closed
// file is never written, renamed or removed again, and holds whole records, each
// one once over all closed files, after any crash. Consumers may take closed
// files away; .part files are not theirs.
//
// A compressed file is a run of zstd frames, which any zstd tool reads as one.
// Each commit ends a frame, so that a length in a checkpoint is a frame's end,
// and what is cut back to it is a whole zstd file. What is acknowledged and not
// yet committed waits in memory, at most frameBytes of it.
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

	"github.com/klauspost/compress/zstd"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// Options say when a part is closed, besides at the end of a run with --once.
type Options struct {
	// MaxBytes is the length that no part exceeds, unless one record does: as it
	// is on disk, compressed or not. 0: no limit.
	MaxBytes int64
	// MaxAge is how long after its first record a part is closed, also when no
	// further record comes. It is looked at with every write and flush. 0, or
	// Hourly: no limit.
	MaxAge time.Duration
	// Hourly closes a part before a record of another file of the node, so that
	// each holds records of one only. Then time says nothing: the same records in
	// the same order make files of the same names that hold the same records,
	// however they were batched and whatever crashed in between (with Zstd and
	// MaxBytes together the names depend on how far records compress, and so on
	// the commits).
	Hourly bool
	// Zstd compresses.
	Zstd bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Output is a directory with one directory a stream. It is a sink.Output.
type Output struct {
	fs   vfs.FS
	dir  string
	opts Options
	lock io.Closer

	encoder *zstd.Encoder // nil without Zstd
}

// New makes the directory and takes its lock, so that no other parser writes
// there. It waits for one that does, and calls waiting once if so.
func New(ctx context.Context, fsys vfs.FS, dir string, opts Options, waiting func()) (*Output, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	var encoder *zstd.Encoder
	if opts.Zstd {
		var err error
		if encoder, err = newEncoder(); err != nil {
			return nil, err
		}
	}
	if err := vfs.MakeDirs(fsys, dir); err != nil {
		return nil, fmt.Errorf("open the output directory: %w", err)
	}
	lock, err := vfs.Lock(ctx, fsys, filepath.Join(dir, ".lock"), waiting)
	if err != nil {
		return nil, fmt.Errorf("open the output directory: %w", err)
	}
	return &Output{fs: fsys, dir: dir, opts: opts, lock: lock, encoder: encoder}, nil
}

// Close gives the directory's lock back.
func (o *Output) Close() error {
	if err := o.lock.Close(); err != nil {
		return fmt.Errorf("unlock the output directory %s: %w", o.dir, err)
	}
	return nil
}
