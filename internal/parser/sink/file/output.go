// Package file implements the sink that writes records into files, in one directory per stream, for consumers on the
// same machine.
//
// A file is named <position of its first record>.part while it grows, and .jsonl once it is closed (.zst.part and
// .jsonl.zst if it is compressed). A closed file is never written, renamed or removed again. It holds whole records,
// and each record is in exactly one closed file, after any crash. Consumers may remove closed files, but not .part
// files.
//
// A compressed file is a sequence of zstd frames, which any zstd tool reads as one file. Each commit ends a frame, so a
// length in a checkpoint is the end of a frame, and a file truncated to it is valid. Records that are acknowledged and
// not yet committed are buffered in memory, up to frameBytes.
//
// # How a record is written exactly once
//
// The checkpoint holds the name and length of the open part, and the parts that are complete and not yet renamed. The
// sink syncs the parts, then their names; then the checkpoint is saved. Open restores exactly that state: it truncates
// the open part to its recorded length and removes the parts that the checkpoint does not list. The engine then reads
// their records again.
//
// A complete part is renamed to .jsonl only after the second checkpoint that lists it as complete. There are two
// generations of checkpoints, and the newest may be damaged. Then the one before must not find that a part, which it
// lists as open and will continue, has already been handed to a consumer.
//
// The sink must never overwrite a closed file, and never fill in missing bytes: the stream then fails (ErrFailed).
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// lockFile is the name of the lock that excludes other parsers from the directory.
const lockFile = ".lock"

// Options determine when a part is closed. The end of a run with --once also closes it.
type Options struct {
	// MaxBytes is the maximum length of a part on disk, compressed or not, in bytes. A part with a single longer record
	// exceeds it. 0 means no limit.
	MaxBytes int64
	// MaxAge is the maximum age of a part, from its first record, even if no further record arrives. It is checked at
	// every write and flush. 0 means no limit. Hourly disables it.
	MaxAge time.Duration
	// Hourly closes a part before a record of another file of the node, so that each part holds records of one such
	// file. Time then has no influence: the same records in the same order yield files with the same names and records,
	// regardless of batching and crashes. (With Zstd and MaxBytes together, the names depend on the compression ratio,
	// and so on the commits.)
	Hourly bool
	// Zstd enables compression.
	Zstd bool
	// MaxTotalBytes is the maximum total size on disk of one stream's files, in bytes, including closed files that are
	// still present. At the limit the stream waits until files are removed. Only Flush checks it, so records written
	// between two calls may exceed it. 0 means no limit.
	MaxTotalBytes int64
	// MinFreePercent is the share of the file system that must be free for a stream to continue, in percent. Flush
	// checks it, at most once a second. 0 disables the check.
	MinFreePercent int
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Output is a directory with one subdirectory per stream. It is a sink.Output.
type Output struct {
	fs   vfs.FS
	dir  string
	opts Options
	lock *vfs.Held

	encoder *zstd.Encoder // nil without Zstd

	mu         sync.Mutex
	rolledBack map[string]int64 // by stream: records that its last sink wrote and that are not committed
}

// New creates the directory and takes its lock, which excludes other parsers. If another parser holds the lock, New
// calls waiting once and waits. Errors of the file system are outages, and New may be called again, unless a file is in
// the place of a directory.
func New(ctx context.Context, fsys vfs.FS, dir string, opts Options, waiting func()) (*Output, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	var encoder *zstd.Encoder
	if opts.Zstd {
		var err error
		if encoder, err = newEncoder(); err != nil {
			return nil, fmt.Errorf("%w: %w", sink.ErrFailed, err)
		}
	}
	if err := vfs.MakeDirs(fsys, dir); err != nil {
		return nil, notDirectory(fmt.Errorf("opening the output directory: %w", err))
	}
	lock, err := vfs.Lock(ctx, fsys, dir, filepath.Join(dir, lockFile), waiting)
	if err != nil {
		return nil, notDirectory(fmt.Errorf("opening the output directory: %w", err))
	}
	return &Output{
		fs: lock.Guard(fsys), dir: dir, opts: opts, lock: lock, encoder: encoder, rolledBack: map[string]int64{},
	}, nil
}

// Keep implements sink.Keeper. It touches the files that may still grow or are not renamed yet. Closed files belong to
// their consumers.
func (o *Output) Keep() error {
	if err := o.lock.Check(); err != nil {
		return err
	}
	streams, err := o.fs.List(o.dir)
	errs := []error{err}
	for _, name := range streams {
		path := filepath.Join(o.dir, name)
		if name == lockFile {
			errs = append(errs, o.fs.Touch(path))
			continue
		}
		files, err := o.fs.List(path)
		if !errors.Is(err, syscall.ENOTDIR) {
			errs = append(errs, err)
		}
		for _, file := range files {
			if ours, closed := classify(file); ours && !closed {
				errs = append(errs, o.fs.Touch(filepath.Join(path, file)))
			}
		}
	}
	for i, err := range errs {
		if errors.Is(err, fs.ErrNotExist) {
			errs[i] = nil // renamed or removed since it was listed
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("touching the output in %s: %w", o.dir, err)
	}
	return nil
}

// notDirectory converts ENOTDIR to ErrFailed: a file is in the place of an output directory. It returns all other
// errors, which are outages, unchanged.
func notDirectory(err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%w: a file is where a directory of the output must be; move it away: %w", sink.ErrFailed, err)
	}
	return err
}

// Close releases the directory's lock.
func (o *Output) Close() error {
	if err := o.lock.Close(); err != nil {
		return fmt.Errorf("unlocking the output directory %s: %w", o.dir, err)
	}
	return nil
}
