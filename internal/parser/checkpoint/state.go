package checkpoint

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// State is what one stream has delivered: everything a restart needs to go on
// with the first byte that was not, and nothing it could find out by itself.
type State struct {
	// Sequence counts the checkpoints of the stream. Save sets it.
	Sequence uint64 `json:"sequence"`
	// Stream is the stream's name, such as "order-statuses". Save sets it.
	Stream string `json:"stream"`
	// Directory is the one being followed, such as "node_fills_by_block", and
	// Mode its mode.
	Directory string `json:"directory"`
	Mode      string `json:"mode"`
	// Files has one entry for each file that was read and is still on disk.
	Files []File `json:"files"`
	// LastBlock is the newest block delivered, 0 when none was or in line mode.
	LastBlock int64 `json:"lastBlock"`
	// CurrentBlock is the block of the newest line, where markers are asked for.
	CurrentBlock int64 `json:"currentBlock,omitempty"`
	// Blocks are those that were processed, where repeated ones are left out.
	Blocks *Blocks `json:"blocks,omitempty"`
	// DeadLetterBytes is the length of the dead letter that belongs to this state.
	DeadLetterBytes int64 `json:"deadLetterBytes"`
	// Sink is what the sink asked to keep; it alone can read it.
	Sink json.RawMessage `json:"sink,omitempty"`
	// CommittedAt is when the caller made this state.
	CommittedAt time.Time `json:"committedAt"`
}

// Blocks are the blocks of a stream whose events were processed.
type Blocks struct {
	// Complete blocks were processed to their end. Ascending, not touching.
	Complete []Interval `json:"complete,omitempty"`
	// Open blocks may have more events. Ascending.
	Open []OpenBlock `json:"open,omitempty"`
	// Current is the block of the newest line, and Shown is how many of its
	// events the node has written since it came to that block last.
	Current int64 `json:"current"`
	Shown   int64 `json:"shown"`
}

// OpenBlock is a block of which Events events were processed.
type OpenBlock struct {
	Block  int64 `json:"block"`
	Events int64 `json:"events"`
}

// Interval is the blocks from First to Last, both included.
type Interval struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
}

// File is how far one file was delivered, and how to know it again.
type File struct {
	FileID
	Inode uint64 `json:"inode"`
	// Offset is the first byte that is not delivered: always just past a
	// newline, or 0.
	Offset int64 `json:"offset"`
	// Head covers the first min(Offset, 1 KiB) bytes.
	Head Hash `json:"head"`
	// Marker covers at most 1 KiB before Offset.
	Marker Hash `json:"marker"`
	// Markers cover bytes before earlier line starts, ascending, one every 16 MiB:
	// a file that shrank resumes after the highest that still verifies.
	Markers []Hash `json:"markers,omitempty"`
	// Size is the file's length when it was last seen, so that what was never read
	// can be counted when the file is gone.
	Size int64 `json:"size"`
}

// Hash is a checksum of Length bytes of a file, from offset At. Its zero value
// covers nothing, and so matches every file.
type Hash struct {
	At     int64  `json:"at"`
	Length int64  `json:"length"`
	Sum    string `json:"sum"`
}

// SetOffset moves the file's position by hand. The hashes that covered bytes at
// or past the new offset no longer do, and become empty. It refuses a file that
// the state does not know, and an offset below 0.
func (s *State) SetOffset(file FileID, offset int64) error {
	if offset < 0 {
		return fmt.Errorf("offset %d: want a number of bytes from 0", offset)
	}
	for i := range s.Files {
		f := &s.Files[i]
		if f.FileID != file {
			continue
		}
		if f.Head.At+f.Head.Length > offset {
			f.Head = Hash{}
		}
		if f.Offset != offset {
			f.Marker = Hash{}
		}
		f.Markers = slices.DeleteFunc(f.Markers, func(h Hash) bool { return h.At+h.Length > offset })
		f.Offset = offset
		return nil
	}
	return fmt.Errorf("stream %s has no file %s in its checkpoint", s.Stream, file)
}

// validate refuses what could not be read back as it was meant.
func (s *State) validate() error {
	for i := range s.Files {
		f := &s.Files[i]
		if err := f.validate(); err != nil {
			return err
		}
		if f.Offset < 0 {
			return fmt.Errorf("file %s: offset %d is below 0", f.FileID, f.Offset)
		}
	}
	return nil
}
