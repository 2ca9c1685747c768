// Package gen generates the output of a Hyperliquid node: the same directories, the same fields in the same order, the
// same mix of events, and the same misbehaviour (torn lines, late appends around an hour switch). The demo, the
// benchmarks and the fleet tests use its output instead of a real node's.
//
// The content depends only on the seed and on the times that the caller passes, so two runs with equal arguments yield
// equal bytes. Within one Generator no event occurs twice, so a test can compare written and delivered events byte for
// byte.
package gen

import (
	"fmt"
	"slices"
	"strings"
)

// Stream is one kind of node output, spelled as on the hlparser command line.
type Stream string

// Streams that the generator supports.
const (
	OrderStatuses Stream = "order-statuses"
	Fills         Stream = "fills"
	RawBookDiffs  Stream = "raw-book-diffs"
	Trades        Stream = "trades"
	MiscEvents    Stream = "misc-events"
	TwapStatuses  Stream = "twap-statuses"
)

// Mode is how events are framed in lines.
type Mode string

// Modes of a Hyperliquid node.
const (
	Line      Mode = "line"      // one bare event per line
	Streaming Mode = "streaming" // an envelope per event
	ByBlock   Mode = "by-block"  // an envelope per block, including empty blocks
)

// streamInfo holds the properties of a stream besides its events.
type streamInfo struct {
	dir string
	// eventsPerBlock is the mean number of events in the non-empty blocks of a busy node.
	eventsPerBlock int
	// emptyPerMille is the number of empty blocks per 1,000.
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
	case TwapStatuses:
		return streamInfo{"node_twap_statuses", 2, 600}, true
	}
	return streamInfo{}, false
}

// Source is one directory of node output: a stream in a mode.
type Source struct {
	Stream Stream
	Mode   Mode
}

// ParseSource parses "stream" or "stream:mode". The mode defaults to line.
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
		return fmt.Errorf("stream %q: want one of %s, %s, %s, %s, %s, %s",
			s.Stream, OrderStatuses, Fills, RawBookDiffs, Trades, MiscEvents, TwapStatuses)
	}
	if !slices.Contains([]Mode{Line, Streaming, ByBlock}, s.Mode) {
		return fmt.Errorf("mode %q of stream %s: want %s, %s or %s", s.Mode, s.Stream, Line, Streaming, ByBlock)
	}
	return nil
}

// String returns the form that ParseSource parses.
func (s Source) String() string { return string(s.Stream) + ":" + string(s.Mode) }

// Dir returns the directory's path below a node's data directory, with slashes, for example
// "node_fills_by_block/hourly".
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
