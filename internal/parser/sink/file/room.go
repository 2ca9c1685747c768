package file

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
)

const (
	// checkInterval is the minimum time between two checks of the disk.
	checkInterval = time.Second
	// roomShare is the fraction 1/roomShare of MaxBytes that must be free before a waiting stream continues, so that
	// the next file has more than a few records.
	roomShare = 16
)

// room tracks the disk space that a stream's files use and the space that is left.
type room struct {
	closed  int64     // total size of closed files, in bytes; may include files removed since counted
	counted time.Time // when closed was measured
	free    int64     // free space of the file system, in bytes
	total   int64     // size of the file system, in bytes; 0 if unknown
	checked time.Time // when free and total were measured
	waiting bool      // room was lacking at the last Flush, and at every Write since
	fresh   bool      // records were accepted since the last Flush, or there was no Flush yet
}

// admit returns an error that says how to make room while a stream waits for it.
//
// Only Flush detects a lack of room. The records that the next Write refuses are the first of the engine's next commit,
// so the engine can still commit. That commit renames the parts that were complete at that Flush, so consumers have
// closed files to remove.
func (s *stream) admit() error {
	if !s.room.waiting {
		return nil
	}
	err := s.checkRoom()
	s.room.waiting = err != nil
	return err
}

// checkRoom returns an error that says what is lacking, or nil if there is room.
func (s *stream) checkRoom() error {
	err := s.overTotal()
	if err != nil && s.since(s.room.counted, checkInterval) {
		// Consumers remove files without notice, so count again.
		if err := s.countClosed(); err != nil {
			return err
		}
		err = s.overTotal()
	}
	if err != nil {
		return err
	}
	return s.belowFloor()
}

func (s *stream) overTotal() error {
	limit := s.opts.MaxTotalBytes
	if limit == 0 {
		return nil
	}
	if s.room.waiting {
		limit -= s.opts.MaxBytes / roomShare
	}
	held := s.room.closed
	if s.open != nil {
		held += s.open.length
	}
	for _, p := range s.complete {
		held += p.length
	}
	if held < limit {
		return nil
	}
	return fmt.Errorf("the files in %s hold %s, and maxTotalSize is %s: remove closed files (%s, %s) or raise the limit; "+
		"delivery then resumes", s.dir, size(held), size(s.opts.MaxTotalBytes), closedSuffix, zstdClosedSuffix)
}

func (s *stream) belowFloor() error {
	percent := int64(s.opts.MinFreePercent)
	if percent == 0 {
		return nil
	}
	if s.since(s.room.checked, checkInterval) {
		free, total, err := s.fs.Space(s.dir)
		if err != nil {
			return fmt.Errorf("reading the free space of the disk of %s: %w", s.dir, err)
		}
		s.room.free, s.room.total, s.room.checked = free, total, s.opts.Now()
	}
	if s.room.waiting {
		percent++
	}
	if s.room.free >= s.room.total/100*percent {
		return nil
	}
	return fmt.Errorf("the disk of %s has %s of %s free, and minFreePercent keeps %d %%: free space on it or lower the "+
		"setting; delivery then resumes", s.dir, size(s.room.free), size(s.room.total), s.opts.MinFreePercent)
}

// countClosed measures the total size of the closed files.
func (s *stream) countClosed() error {
	if s.opts.MaxTotalBytes == 0 {
		return nil
	}
	files, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("listing %s: %w", s.dir, err)
	}
	total := int64(0)
	for _, file := range files {
		if _, closed := classify(file); !closed {
			continue
		}
		length, err := s.fs.Size(filepath.Join(s.dir, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("checking %s: %w", filepath.Join(s.dir, file), err)
		}
		total += length
	}
	s.room.closed, s.room.counted = total, s.opts.Now()
	return nil
}

// since reports whether at least d has passed since moment. A moment in the future, which a clock that is set back
// leaves, counts as passed.
func (s *stream) since(moment time.Time, d time.Duration) bool {
	passed := s.opts.Now().Sub(moment)
	return passed < 0 || passed >= d
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
