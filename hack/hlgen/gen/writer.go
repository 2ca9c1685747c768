package gen

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// WriterOptions control the simulated buffering of the node.
type WriterOptions struct {
	// BufferSize is the size of the write buffer in bytes. Writes are split there, possibly within a line, as a node's
	// are. Defaults to 8 KiB.
	BufferSize int
	// LateFor is how long, in the node's time, an hour's file grows after the next one exists: the buffered rest
	// arrives late, and in line mode a few whole lines, too. 0 means that the old file ends before the new one begins.
	LateFor time.Duration
}

// Writer appends the lines of one Generator to hourly files. It is not safe for concurrent use.
type Writer struct {
	gen     *Generator
	dir     string
	opts    WriterOptions
	current hourFile
	old     hourFile // still open after an hour switch, until oldEnd
	oldEnd  time.Time
	stats   Stats
}

// Stats counts what a Writer has generated. It is all on disk after Close.
type Stats struct {
	Lines, Events, Bytes int64
	Files, LateLines     int64
}

// hourFile is one file with its unwritten bytes.
type hourFile struct {
	hour time.Time
	file *os.File
	buf  []byte
}

// NewWriter returns a Writer below dataDir, in the directory of the generator's source.
func NewWriter(dataDir string, src Source, g *Generator, o WriterOptions) *Writer {
	if o.BufferSize <= 0 {
		o.BufferSize = 8 << 10
	}
	return &Writer{gen: g, dir: filepath.Join(dataDir, filepath.FromSlash(src.Dir())), opts: o}
}

// WriteLine generates one line at the node's time now, in UTC.
func (w *Writer) WriteLine(now time.Time) error {
	hour := now.UTC().Truncate(time.Hour)
	if !hour.Equal(w.current.hour) {
		if err := w.switchTo(hour, now); err != nil {
			return err
		}
	}
	target := &w.current
	if w.old.file != nil {
		switch {
		case !now.Before(w.oldEnd):
			if err := w.old.close(); err != nil {
				return err
			}
		case w.gen.mode == Line && w.stats.Lines%8 == 0:
			target = &w.old
			w.stats.LateLines++
		}
	}
	before := len(target.buf)
	var events int
	target.buf, events = w.gen.AppendLine(target.buf, now)
	w.stats.Lines++
	w.stats.Events += int64(events)
	w.stats.Bytes += int64(len(target.buf) - before)
	return target.flush(w.opts.BufferSize)
}

func (w *Writer) switchTo(hour, now time.Time) error {
	if err := w.old.close(); err != nil {
		return err
	}
	if w.opts.LateFor > 0 {
		w.old, w.oldEnd = w.current, now.Add(w.opts.LateFor)
	} else if err := w.current.close(); err != nil {
		return err
	}
	// The hour has no leading zero: 8, not 08.
	path := filepath.Join(w.dir, hour.Format("20060102"), strconv.Itoa(hour.Hour()))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("creating the day's directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("opening the hour's file: %w", err)
	}
	w.stats.Files++
	w.current = hourFile{hour: hour, file: f}
	return nil
}

// Close writes all buffered bytes, so that every file ends with a whole line.
func (w *Writer) Close() error {
	if err := w.old.close(); err != nil {
		return err
	}
	return w.current.close()
}

// Stats returns the statistics so far.
func (w *Writer) Stats() Stats { return w.stats }

// flush writes the full pieces of size bytes and keeps the rest.
func (f *hourFile) flush(size int) error {
	whole := len(f.buf) - len(f.buf)%size
	if whole == 0 {
		return nil
	}
	if _, err := f.file.Write(f.buf[:whole]); err != nil {
		return fmt.Errorf("appending to the hour's file: %w", err)
	}
	f.buf = f.buf[:copy(f.buf, f.buf[whole:])]
	return nil
}

func (f *hourFile) close() error {
	if f.file == nil {
		return nil
	}
	if err := f.flush(1); err != nil {
		return err
	}
	if err := f.file.Close(); err != nil {
		return fmt.Errorf("closing the hour's file: %w", err)
	}
	*f = hourFile{}
	return nil
}
