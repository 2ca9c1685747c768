package sinktest

import (
	"bytes"
	"fmt"
	"hash/maphash"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// layout defines a stream's records by their number.
type layout struct {
	text  func(n int) []byte // without the newline; unique in the stream
	coin  func(n int) string
	place func(n int) (position.FileID, place)
}

// place is a record's position in its file.
type place struct {
	offset int64
	index  int32 // negative for a marker
	block  int64
}

// ordinary is a layout with four records per line, in one file. The first record of every third line is a marker.
func ordinary(s *stream) layout {
	file := hour(8)
	return layout{
		text:  s.numbered,
		coin:  func(n int) string { return []string{"BTC", "ETH", "@142", "xyz:TSLA", ""}[n%5] },
		place: func(n int) (position.FileID, place) { return file, inLine(n) },
	}
}

func hour(h int) position.FileID {
	return position.FileID{Directory: "node_fills_by_block", Date: "20260430", Hour: h,
		Generation: fmt.Sprintf("1a2b3c%02x", h)}
}

func inLine(n int) place {
	line, i := n/4, n%4
	p := place{offset: int64(line) * 400, index: int32(i), block: 1000 + int64(line)}
	if line%3 == 0 {
		p.index--
	}
	if p.index < 0 {
		p.block = 0
	}
	return p
}

const recordHead = `{"stream":"`

// numbered returns the text of record n, which contains the stream's name and n.
func (s *stream) numbered(n int) []byte {
	size := s.size(n)
	if len(s.padding) < size {
		s.padding = bytes.Repeat([]byte("x"), size)
	}
	text := make([]byte, 0, len(recordHead)+len(s.name)+40+size)
	text = fmt.Appendf(text, `%s%s","n":%d,"pad":"`, recordHead, s.name, n)
	return append(append(text, s.padding[:size]...), '"', '}')
}

// oneFile returns how many of the next n records come from the same file.
func (s *stream) oneFile(n int) int {
	file, _ := s.layout.place(s.next)
	for i := 1; i < n; i++ {
		if f, _ := s.layout.place(s.next + i); f != file {
			return i
		}
	}
	return n
}

// batch returns n records, starting at record from. All must come from one file.
func (s *stream) batch(from, n int) sink.Batch {
	texts, size := make([][]byte, n), n
	for i := range texts {
		texts[i] = s.layout.text(from + i)
		size += len(texts[i])
	}
	b := sink.Batch{Data: make([]byte, 0, size), Records: make([]sink.Record, 0, n)}
	for i, text := range texts {
		b.Data = append(append(b.Data, text...), '\n')
		var r sink.Record
		b.File, r = s.record(from + i)
		r.End = len(b.Data)
		b.Records = append(b.Records, r)
	}
	return b
}

// record returns the file and the attributes of record n.
func (s *stream) record(n int) (position.FileID, sink.Record) {
	file, at := s.layout.place(n)
	r := sink.Record{Offset: at.offset, Index: at.index, Block: at.block}
	if at.index >= 0 {
		r.Coin = s.layout.coin(n)
	}
	return file, r
}

// key returns the order key of record n: order is guaranteed among records with the same key.
func (s *stream) key(n int) string {
	if s.p.target.OrderKey == nil {
		return ""
	}
	_, r := s.record(n)
	return s.p.target.OrderKey(r)
}

// received returns what consumers received.
func (s *stream) received() []byte {
	s.p.t.Helper()
	data, err := s.p.target.Received(s.name)
	if err != nil {
		s.p.t.Fatalf("reading what %s delivered: %v", s.name, err)
	}
	return data
}

// reached counts the stream's records at the destination.
func (s *stream) reached() (n int64) {
	s.p.t.Helper()
	for line := range bytes.Lines(s.received()) {
		if !s.foreign(bytes.TrimSuffix(line, []byte("\n"))) {
			n++
		}
	}
	return n
}

// compare checks that consumers received the records 0 to next-1 in order, except those lost with an earlier
// destination. Each must appear once, or, if the sink is not exactly once, at least once.
func (s *stream) compare() {
	s.p.t.Helper()
	data := s.received()
	seed := maphash.MakeSeed()
	number := make(map[uint64]int, s.next) // by a hash of the text, because a text may be long
	expected := map[string][]int{}         // by order key
	for n := range s.next {
		number[maphash.Bytes(seed, s.layout.text(n))] = n
		if n >= s.floor && !s.refused[n] {
			expected[s.key(n)] = append(expected[s.key(n)], n)
		}
	}
	received := make([]bool, s.next)
	for line := range bytes.Lines(data) {
		text, whole := bytes.CutSuffix(line, []byte("\n"))
		if s.foreign(text) {
			continue
		}
		n, known := number[maphash.Bytes(seed, text)]
		key := ""
		if known {
			key = s.key(n)
		}
		switch {
		case !whole || !known:
			s.p.t.Fatalf("a consumer of %s received %.80q, which is not a whole acknowledged record", s.name, line)
		case n < s.floor:
			s.p.t.Fatalf("a consumer of %s received record %d again, which was committed before the destination was recreated",
				s.name, n)
		case s.refused[n]:
			s.p.t.Fatalf("a consumer of %s received record %d, which was refused", s.name, n)
		case received[n] && s.p.target.ExactlyOnce:
			s.p.t.Fatalf("a consumer of %s received record %d twice", s.name, n)
		case received[n]:
		case expected[key][0] != n:
			s.p.t.Fatalf("a consumer of %s received record %d, want %d", s.name, n, expected[key][0])
		default:
			received[n], expected[key] = true, expected[key][1:]
		}
	}
	for _, missing := range expected {
		if len(missing) > 0 {
			s.p.t.Fatalf("a consumer of %s did not receive record %d of %d, nor %d others",
				s.name, missing[0], s.next, len(missing)-1)
		}
	}
}

// foreign reports whether a line belongs to another stream, as its head indicates.
func (s *stream) foreign(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte(recordHead))
	name, _, closed := bytes.Cut(rest[:min(len(rest), 100)], []byte(`"`))
	return ok && closed && string(name) != s.name && s.p.names[string(name)]
}
