package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

// State is what one stream has delivered. It holds everything that a restart needs to continue with the first
// undelivered byte, and nothing that the restart can find out itself.
type State struct {
	// Sequence counts the checkpoints of the stream. Save sets it.
	Sequence uint64 `json:"sequence"`
	// Stream is the stream's name, such as "order-statuses". Save sets it.
	Stream string `json:"stream"`
	// Streams are the names of all streams that the state directory has ever known, sorted. Each stream's checkpoint
	// thus lists the other streams. Save sets it.
	Streams []string `json:"streams,omitempty"`
	// Directory is the directory that is followed, such as "node_fills_by_block". Mode is its mode.
	Directory string `json:"directory"`
	Mode      string `json:"mode"`
	// Files has one entry for each file that was read and is still on disk.
	Files []File `json:"files"`
	// LastBlock is the newest block delivered. It is 0 if there was none, and in line mode.
	LastBlock int64 `json:"lastBlock"`
	// StartBlock is the block that the stream started at: no line of an earlier block is delivered. It is 0 if the stream
	// did not start at a block.
	StartBlock int64 `json:"startBlock,omitempty"`
	// Blocks is what is known about blocks and about the order of lines. It is set if duplicate blocks are dropped or
	// markers are configured.
	Blocks *Blocks `json:"blocks,omitempty"`
	// Counts number the next events in streaming mode: how many events of its newest block each of the recently read
	// files has, up to its offset. The newest file is first.
	Counts []Count `json:"counts,omitempty"`
	// DeadLetterBytes is the position in the dead letter that belongs to this state: its length in bytes, as if it had
	// never been rotated or removed.
	DeadLetterBytes int64 `json:"deadLetterBytes"`
	// Sink is the sink's own data, which only the sink can read.
	Sink json.RawMessage `json:"sink,omitempty"`
	// Unopened reports whether no sink was ever opened for the stream. The state was then built from the files while
	// the sink was unreachable. A sink that has records of the stream nevertheless belongs to another state.
	Unopened bool `json:"unopened,omitempty"`
	// CommittedAt is the time at which the caller created this state.
	CommittedAt time.Time `json:"committedAt"`
}

// Blocks holds what a stream knows about the chain's blocks, each part bounded in number, and about the order of its
// files' lines. An event is known if the sink has acknowledged it or the filter excluded it. An event in the dead
// letter is not known.
type Blocks struct {
	// Complete holds the completely known blocks: each had one line, in by-block mode. Ascending, not adjacent.
	Complete []Interval `json:"complete,omitempty"`
	// Partial holds blocks that are known except for some events. Ascending.
	Partial []PartialBlock `json:"partial,omitempty"`
	// Ended holds blocks that were written in streaming mode before the node continued with a higher block. Their
	// events are not known individually. Ascending, not adjacent.
	Ended []Interval `json:"ended,omitempty"`
	// Recent holds blocks that were written in streaming mode and are not in Ended. Ascending.
	Recent []RecentBlock `json:"recent,omitempty"`
	// Last is the block of the newest line of all files.
	Last int64 `json:"last,omitempty"`
	// Orders holds the line orders of the most recently read files, newest first.
	Orders []Order `json:"orders,omitempty"`

	// Current is nonzero only in checkpoints written before Orders existed, where Complete holds the blocks of either
	// mode. It is never written.
	Current int64 `json:"current,omitempty"`
}

// Count is how many events of a file's newest block precede its offset.
type Count struct {
	position.FileID
	Block  int64 `json:"block"`
	Events int64 `json:"events"`
}

// PartialBlock is a block whose events at the indices Missing are not known.
type PartialBlock struct {
	Block   int64      `json:"block"`
	Missing []Interval `json:"missing"`
}

// RecentBlock is a block with individually known events.
type RecentBlock struct {
	Block int64 `json:"block"`
	// Events holds a 4-byte hash, low byte first, for each known event.
	Events []byte `json:"events,omitempty"`
	// Ended reports whether the node continued with a higher block.
	Ended bool `json:"ended,omitempty"`
	// Holes reports whether events of the block may be in the dead letter.
	Holes bool `json:"holes,omitempty"`
}

// Order is what is known about the order of one file's lines.
type Order struct {
	position.FileID
	// Last is the block of the newest line. Highest is the highest block of all lines.
	Last    int64 `json:"last"`
	Highest int64 `json:"highest"`
	// Until is the block at which a node that went back reaches its previous position. 0 means that it did not go back.
	Until int64 `json:"until,omitempty"`
	// Broken reports whether unreadable data follows the newest line.
	Broken bool `json:"broken,omitempty"`
	// Fresh reports whether the newest lines of block Last contained everything that is known of the block. Sound
	// reports whether they contain everything that the node has written of it so far. Leaves reports whether they were
	// left out. Late reports whether what they add is late and no line has added anything yet.
	Fresh  bool `json:"fresh,omitempty"`
	Sound  bool `json:"sound,omitempty"`
	Leaves bool `json:"leaves,omitempty"`
	Late   bool `json:"late,omitempty"`
}

// Interval is the numbers from First to Last, inclusive.
type Interval struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
}

// File is how far one file was delivered, and how to recognize it.
type File struct {
	position.FileID
	Inode uint64 `json:"inode"`
	// Offset is the offset of the first undelivered byte: always directly after a newline, or 0.
	Offset int64 `json:"offset"`
	// Head covers the first min(Offset, 1 KiB) bytes of the file.
	Head Hash `json:"head"`
	// Marker covers up to 1 KiB before Offset.
	Marker Hash `json:"marker"`
	// Markers cover bytes before earlier line starts, ascending, one every 16 MiB. A file that shrank resumes after the
	// highest marker that still matches.
	Markers []Hash `json:"markers,omitempty"`
	// Size is the end of the file's last complete line when the file was last observed. It allows unread data to be
	// counted after the file is gone.
	Size int64 `json:"size"`
	// SeenAt is the time at which the line at Offset was first observed on disk. It is zero if no complete line is
	// pending there.
	SeenAt time.Time `json:"seenAt,omitzero"`
	// AbsentSeconds is for how long running parsers have known that the file is gone: its folder was listed without an
	// error and did not contain it. It is 0 while the file exists, and while its absence is unknown.
	AbsentSeconds int64 `json:"absentSeconds,omitempty"`
}

// Hash is a checksum of Length bytes of a file, starting at offset At. The zero value covers no bytes and therefore
// matches every file.
type Hash struct {
	At     int64  `json:"at"`
	Length int64  `json:"length"`
	Sum    string `json:"sum"`
}

// SetOffset sets the file's position manually. It clears the hashes that cover bytes at or past the new offset. It
// refuses a file that is not in the state, and a negative offset.
func (s *State) SetOffset(file position.FileID, offset int64) error {
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

// maxHash is the maximum number of bytes that a hash covers.
const maxHash = 1 << 10

// validate refuses a state that no parser writes. A checkpoint may be damaged or forged, and its values become names,
// lengths and offsets.
func (s *State) validate() error {
	if err := validateFiles(s.Files); err != nil {
		return err
	}
	for _, stream := range s.Streams {
		if !isStream(stream) {
			return fmt.Errorf("stream %q: want lower-case words joined by -", stream)
		}
	}
	if s.Sequence > math.MaxInt64 {
		return fmt.Errorf("sequence %d: want one that can be incremented", s.Sequence)
	}
	if min(s.LastBlock, s.StartBlock, s.DeadLetterBytes) < 0 {
		return fmt.Errorf("last block %d, start block %d, %d bytes of the dead letter: want no negative number", s.LastBlock,
			s.StartBlock, s.DeadLetterBytes)
	}
	for _, c := range s.Counts {
		if err := c.Validate(); err != nil {
			return err
		}
		if min(c.Block, c.Events) < 0 {
			return fmt.Errorf("%d events of block %d in file %s: want no negative number", c.Events, c.Block, c.FileID)
		}
	}
	if s.Blocks == nil {
		return nil
	}
	return s.Blocks.validate()
}

func validateFiles(files []File) error {
	for i := range files {
		if err := files[i].validate(); err != nil {
			return err
		}
	}
	return nil
}

func (f *File) validate() error {
	if err := f.Validate(); err != nil { // of the FileID
		return err
	}
	if min(f.Offset, f.Size, f.AbsentSeconds) < 0 {
		return fmt.Errorf("file %s: offset %d, size %d, absent for %d s: want no negative number", f.FileID, f.Offset, f.Size,
			f.AbsentSeconds)
	}
	for _, hashes := range [][]Hash{{f.Head, f.Marker}, f.Markers} {
		for _, h := range hashes {
			if h.At < 0 || h.Length < 0 || h.Length > maxHash || h.At > math.MaxInt64-h.Length {
				return fmt.Errorf("file %s: a hash of %d bytes from offset %d: want at most %d bytes of a file", f.FileID, h.Length,
					h.At, maxHash)
			}
		}
	}
	return nil
}

func (b *Blocks) validate() error {
	if min(b.Current, b.Last) < 0 {
		return fmt.Errorf("current block %d, block %d of the newest line: want no negative number", b.Current, b.Last)
	}
	complete, ended := validateIntervals("complete blocks", b.Complete), validateIntervals("ended blocks", b.Ended)
	if err := errors.Join(complete, ended); err != nil {
		return err
	}
	last := int64(-1)
	for _, p := range b.Partial {
		if p.Block <= last {
			return fmt.Errorf("partial block %d after %d: want them ascending, from 0", p.Block, last)
		}
		last = p.Block
		if err := validateIntervals("missing events", p.Missing); err != nil {
			return fmt.Errorf("block %d: %w", p.Block, err)
		}
	}
	last = -1
	for _, r := range b.Recent {
		if r.Block <= last {
			return fmt.Errorf("recent block %d after %d: want them ascending, from 0", r.Block, last)
		}
		last = r.Block
		if len(r.Events)%4 != 0 {
			return fmt.Errorf("block %d: %d bytes of hashes: want 4 for each event", r.Block, len(r.Events))
		}
	}
	for _, o := range b.Orders {
		if err := o.Validate(); err != nil {
			return err
		}
		if min(o.Last, o.Highest, o.Until) < 0 {
			return fmt.Errorf("order of file %s: block %d, highest %d, back until %d: want no negative number", o.FileID, o.Last,
				o.Highest, o.Until)
		}
	}
	return nil
}

func validateIntervals(what string, intervals []Interval) error {
	last := int64(-1)
	for _, i := range intervals {
		if i.First <= last || i.Last < i.First {
			return fmt.Errorf("%s from %d to %d: want them ascending, from 0", what, i.First, i.Last)
		}
		last = i.Last
	}
	return nil
}
