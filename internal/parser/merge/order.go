package merge

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

// order is the state of the order: a value, so that a copy is a snapshot.
type order struct {
	Block  int64           `json:"block"`  // that the merged stream is at; 0: none yet
	Closed bool            `json:"closed"` // the block's marker is delivered, or needs none
	Next   int32           `json:"next"`   // the index of the block's next record
	File   position.FileID `json:"file"`   // of the positions of the block's records
	// BlockTime and LocalTime are those of the block's lines: the latest local time.
	BlockTime stamp `json:"blockTime"`
	LocalTime stamp `json:"localTime"`

	streams [maxStreams]streamOrder
}

// maxStreams is more than the streams that a node writes.
const maxStreams = 12

// streamOrder is what the order knows of one stream.
type streamOrder struct {
	Started bool  `json:"started,omitempty"` // a line of it has taken its place
	Floor   int64 `json:"floor,omitempty"`   // the block of its newest line in order
	Past    bool  `json:"past,omitempty"`    // it is past Floor
	Whole   bool  `json:"whole,omitempty"`   // its newest line held all of its block
	// Silent reports whether the others do not wait for it. Announce reports whether a marker must say that it is
	// silent, or is back; Announced, whether the newest one says that it is silent.
	Silent    bool `json:"silent,omitempty"`
	Announce  bool `json:"announce,omitempty"`
	Announced bool `json:"announced,omitempty"` // that it is silent

	// These concern the order's block.
	Seen      bool  `json:"seen,omitempty"`    // it had a line of the block
	Partial   bool  `json:"partial,omitempty"` // it may have more of the block than was delivered
	Events    int64 `json:"events,omitempty"`
	Line      line  `json:"line,omitzero"` // the newest, and how many events of it are in Events
	Delivered int64 `json:"delivered,omitempty"`
}

// line is a line of a file, and a number of its events.
type line struct {
	File   position.FileID `json:"file"`
	Offset int64           `json:"offset"`
	Events int64           `json:"events"`
}

// stamp is a JSON string from an envelope, with its quotes, or nothing.
type stamp struct {
	text [66]byte
	len  uint8
}

func (s *stamp) set(quoted []byte) {
	if len(quoted) > len(s.text) {
		quoted = nil // the encoder refuses such lines
	}
	s.len = uint8(copy(s.text[:], quoted))
}

func (s *stamp) bytes() []byte { return s.text[:s.len] }

// MarshalJSON writes the string, or null.
func (s stamp) MarshalJSON() ([]byte, error) {
	if s.len == 0 {
		return []byte("null"), nil
	}
	return bytes.Clone(s.bytes()), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *stamp) UnmarshalJSON(data []byte) error {
	if len(data) > len(s.text) {
		return fmt.Errorf("a time of %d bytes: want at most %d", len(data), len(s.text))
	}
	if data[0] != '"' {
		data = nil
	}
	s.set(data)
	return nil
}

// floor returns the lowest key that a further line can have.
func (o *order) floor() int64 {
	if o.Closed {
		return o.Block + 1
	}
	return o.Block
}

// floorOf returns the lowest key that a further line of a stream can have.
func (o *order) floorOf(stream int) int64 {
	s := &o.streams[stream]
	floor := s.Floor
	if s.Past {
		floor++
	}
	return max(floor, o.floor())
}

// keyOf returns the key of a stream's next line, of that block.
func (o *order) keyOf(stream int, block int64) int64 { return max(block, o.floorOf(stream)) }

// choice is what the order allows next.
type choice struct {
	stream int   // whose head comes next; -1: none
	key    int64 // of that head
	done   bool  // all lines of the order's block were delivered, and its marker comes first
	// blocked lists the streams without a head that must bring one, or be past their floor, before anything can come.
	blocked uint16
}

// choose decides what comes next. heads has the block of the next line of each stream, or -1 if there is none yet.
// Silent streams have no part in it.
func (o *order) choose(heads []int64) choice {
	c := choice{stream: -1, key: math.MaxInt64}
	for i, block := range heads {
		if block >= 0 && !o.streams[i].Silent {
			if key := o.keyOf(i, block); key < c.key {
				c.stream, c.key = i, key
			}
		}
	}
	c.done = !o.Closed && o.Block > 0
	for i, block := range heads {
		if o.streams[i].Silent {
			continue
		}
		floor := o.floorOf(i)
		if block >= 0 {
			floor = o.keyOf(i, block)
		} else if floor < c.key || floor == c.key && i < c.stream {
			c.blocked |= 1 << i
		}
		c.done = c.done && floor > o.Block
	}
	switch {
	case c.stream < 0:
		c.blocked = 0 // nobody waits
	case c.blocked != 0:
		c.stream = -1
	}
	return c
}

// open makes key the order's block. The block before must be closed.
func (o *order) open(key int64, blockTime []byte) {
	if key == o.Block && !o.Closed {
		return
	}
	o.Block, o.Closed, o.Next = key, false, 0
	o.BlockTime, o.LocalTime = stamp{}, stamp{}
	for i := range o.streams {
		s := &o.streams[i]
		s.Seen, s.Partial, s.Events, s.Delivered = false, false, 0, 0
	}
	o.File = fileAt(blockTime, o.File)
}

// take records that an item of a stream takes its place in the order's block, with that many records of events.
func (o *order) take(stream int, i *item, delivered int64) {
	s := &o.streams[stream]
	s.Partial = s.Partial || i.faulty
	if i.block != o.Block { // late, or unreadable: it says nothing about this block
		return
	}
	if o.BlockTime.len == 0 {
		o.BlockTime.set(i.blockTime)
	}
	if bytes.Compare(i.localTime, o.LocalTime.bytes()) > 0 {
		o.LocalTime.set(i.localTime)
	}
	if !s.Started && !i.whole {
		s.Partial = true // the beginning of the block may lie before the start
	}
	s.Started, s.Seen, s.Whole = true, true, i.whole
	s.Floor, s.Past = i.block, i.whole && i.ended
	s.Delivered += delivered
	if i.lines {
		s.Events += i.events
		return
	}
	if s.Line.File != i.point.file || s.Line.Offset != i.offset {
		s.Line = line{File: i.point.file, Offset: i.offset}
	}
	if more := int64(i.upTo) - s.Line.Events; more > 0 { // its parts may be cut in another way after a restart
		s.Events += more
		s.Line.Events += more
	}
}

// complete reports whether everything that the node wrote of the block was delivered or dropped by the filter.
func (o *order) complete(streams int) bool {
	for i := range o.streams[:streams] {
		s := &o.streams[i]
		if s.Silent || !s.Started || s.Partial || s.Whole && !s.Seen {
			return false
		}
	}
	return true
}

// seen reports whether any stream had a line of the block.
func (o *order) seen() bool {
	for i := range o.streams {
		if o.streams[i].Seen {
			return true
		}
	}
	return false
}

// silence makes a stream silent.
func (o *order) silence(stream int, announce bool) {
	s := &o.streams[stream]
	s.Silent, s.Announce, s.Announced, s.Partial = true, announce, announce, true
}

// rejoin makes the others wait for a stream again.
func (o *order) rejoin(stream int) {
	s := &o.streams[stream]
	s.Silent, s.Announce, s.Announced, s.Partial = false, s.Announced, false, true
	s.Floor, s.Past = max(s.Floor, o.Block), s.Past && s.Floor >= o.Block
}

// fileAt returns the file of the positions in a block: that of the block's hour. It is the one before if the time is
// unknown, or earlier, as that of a late line that opens a block: the files of the merged stream sort as their blocks
// do.
func fileAt(blockTime []byte, before position.FileID) position.FileID {
	at, err := time.Parse(`"2006-01-02T15:04:05"`, string(blockTime)) // fractions are accepted
	if err != nil {
		return before
	}
	file := position.FileID{Directory: Stream, Date: at.Format("20060102"), Hour: at.Hour(), Generation: generation}
	if cmp.Or(cmp.Compare(file.Date, before.Date), cmp.Compare(file.Hour, before.Hour)) < 0 {
		return before
	}
	return file
}

// generation is that of all files of the merged stream, whose positions are of the chain and not of a file on disk.
const generation = "00000000"

// firstFile is the file before the first block with a time.
var firstFile = position.FileID{Directory: Stream, Date: "19700101", Generation: generation}

// Kinds of markers.
const (
	blockMarker  = "block"
	silentMarker = "silent"
	backMarker   = "back"
)

// position returns the position of the block's next record.
func (o *order) position() position.Position {
	return position.Position{File: o.File, Offset: o.Block, Index: int(o.Next)}
}

// appendMarker appends the beginning of a marker, up to its block.
func (o *order) appendMarker(dst []byte, target, kind, about string) []byte {
	dst = append(dst, `{"target":`...)
	dst = appendJSON(dst, target)
	dst = append(dst, `,"stream":"_marker","pos":`...)
	dst = appendJSON(dst, o.position().String())
	dst = append(append(append(dst, `,"kind":"`...), kind...), '"')
	if about != "" {
		dst = appendJSON(append(dst, `,"about":`...), about)
	}
	return strconv.AppendInt(append(dst, `,"block":`...), o.Block, 10)
}

// appendStreamMarker appends the record that says that a stream is silent, or is back. It has the shape of the markers
// within a stream.
func (o *order) appendStreamMarker(dst []byte, target, kind, about string) []byte {
	dst = o.appendMarker(dst, target, kind, about)
	return append(dst, `,"index":null,"from":null,"to":null,"bytes":null,"file":null,"reason":null}`+"\n"...)
}

// appendBlockMarker appends the record that ends the order's block.
func (o *order) appendBlockMarker(dst []byte, target string, streams []Source) []byte {
	dst = o.appendMarker(dst, target, blockMarker, "")
	dst = o.BlockTime.append(append(dst, `,"blockTime":`...))
	dst = o.LocalTime.append(append(dst, `,"localTime":`...))
	counts := func(key string, count func(*streamOrder) int64) {
		dst = append(append(append(dst, `,"`...), key...), `":{`...)
		for i, s := range streams {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendJSON(dst, s.Name), ':')
			dst = strconv.AppendInt(dst, count(&o.streams[i]), 10)
		}
		dst = append(dst, '}')
	}
	counts("events", func(s *streamOrder) int64 { return s.Events })
	counts("delivered", func(s *streamOrder) int64 { return s.Delivered })
	dst = strconv.AppendBool(append(dst, `,"complete":`...), o.complete(len(streams)))
	return append(dst, "}\n"...)
}

// append appends the string, or null.
func (s *stamp) append(dst []byte) []byte {
	if s.len == 0 {
		return append(dst, "null"...)
	}
	return append(dst, s.bytes()...)
}

func appendJSON(dst []byte, s string) []byte {
	quoted, _ := json.Marshal(s) // marshaling a string cannot fail
	return append(dst, quoted...)
}
