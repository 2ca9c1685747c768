// Package gen writes what a Hyperliquid node writes: the same directories, the
// same fields in the same order, the same mix of events, and the same bad
// habits (torn lines, late appends around an hour switch). The demo, the
// benchmarks and the fleet tests read its output instead of a real node's.
//
// Content depends only on the seed and the times that the caller passes in, so
// two runs with the same arguments make the same bytes. Within one Generator no
// event occurs twice, which lets a test compare what was written with what was
// delivered byte for byte.
package gen

import (
	"fmt"
	"slices"
	"strings"
)

// Stream is one kind of node output, spelled as the hlparser command line does.
type Stream string

// Streams that the generator knows.
const (
	OrderStatuses Stream = "order-statuses"
	Fills         Stream = "fills"
	RawBookDiffs  Stream = "raw-book-diffs"
	Trades        Stream = "trades"
	MiscEvents    Stream = "misc-events"
)

// Mode is how events are framed into lines.
type Mode string

// Modes of a Hyperliquid node.
const (
	Line      Mode = "line"      // one bare event per line
	Streaming Mode = "streaming" // an envelope per event
	ByBlock   Mode = "by-block"  // an envelope per block, empty ones too
)

// streamInfo holds what differs between streams besides their events.
type streamInfo struct {
	dir string
	// eventsPerBlock is the mean over non-empty blocks of a busy node.
	eventsPerBlock int
	// emptyPerMille of the blocks have no event.
	emptyPerMille uint64
}

func (s Stream) info() (streamInfo, bool) {
	switch s {
	case OrderStatuses:
		return streamInfo{"node_order_statuses", 700, 10}, true
	case Fills:
		return streamInfo{"node_fills", 40, 400}, true
	case RawBookDiffs:
		return streamInfo{"node_raw_book_diffs", 300, 20}, true
	case Trades:
		return streamInfo{"node_trades", 20, 400}, true
	case MiscEvents:
		return streamInfo{"misc_events", 3, 600}, true
	}
	return streamInfo{}, false
}

// Source is one directory of node output: a stream in a mode.
type Source struct {
	Stream Stream
	Mode   Mode
}

// ParseSource reads "stream" or "stream:mode"; the mode defaults to line.
func ParseSource(s string) (Source, error) {
	stream, mode, found := strings.Cut(s, ":")
	if !found {
		mode = string(Line)
	}
	src := Source{Stream: Stream(stream), Mode: Mode(mode)}
	if err := src.validate(); err != nil {
		return Source{}, err
	}
	return src, nil
}

func (s Source) validate() error {
	if _, ok := s.Stream.info(); !ok {
		return fmt.Errorf("stream %q: want one of %s, %s, %s, %s, %s",
			s.Stream, OrderStatuses, Fills, RawBookDiffs, Trades, MiscEvents)
	}
	if !slices.Contains([]Mode{Line, Streaming, ByBlock}, s.Mode) {
		return fmt.Errorf("mode %q of stream %s: want %s, %s or %s", s.Mode, s.Stream, Line, Streaming, ByBlock)
	}
	return nil
}

// String is the form that ParseSource reads.
func (s Source) String() string { return string(s.Stream) + ":" + string(s.Mode) }

// Dir is the directory's path below a node's data directory, with slashes,
// for example "node_fills_by_block/hourly".
func (s Source) Dir() string {
	info, _ := s.Stream.info()
	switch s.Mode {
	case Streaming:
		return info.dir + "_streaming/hourly"
	case ByBlock:
		return info.dir + "_by_block/hourly"
	default:
		return info.dir + "/hourly"
	}
}
