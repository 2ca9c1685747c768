package sinktest

import (
	"bytes"
	"fmt"
	"hash/maphash"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// layout says what records a stream has, by their number.
type layout struct {
	text  func(n int) []byte // without the newline; each once in the stream
	coin  func(n int) string
	place func(n int) (checkpoint.FileID, place)
}

// place is where a record stands in its file.
type place struct {
	offset int64
	index  int32 // negative: a marker
	block  int64
}

// ordinary is a stream of lines of four records each, in one file. The first
// record of every third line is a marker.
func ordinary(s *stream) layout {
	file := hour(8)
	return layout{
		text:  s.numbered,
		coin:  func(n int) string { return []string{"BTC", "ETH", "@142", "xyz:TSLA", ""}[n%5] },
		place: func(n int) (checkpoint.FileID, place) { return file, inLine(n) },
	}
}

func hour(h int) checkpoint.FileID {
	return checkpoint.FileID{Directory: "node_fills_by_block", Date: "20260430", Hour: h, Generation: fmt.Sprintf("1a2b3c%02x", h)}
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

// numbered is the text of record n: it says what it is.
func (s *stream) numbered(n int) []byte {
	size := s.size(n)
	if len(s.padding) < size {
		s.padding = bytes.Repeat([]byte("x"), size)
	}
	text := make([]byte, 0, len(recordHead)+len(s.name)+40+size)
	text = fmt.Appendf(text, `%s%s","n":%d,"pad":"`, recordHead, s.name, n)
	return append(append(text, s.padding[:size]...), '"', '}')
}

// oneFile returns how many of the next n records come from one file.
func (s *stream) oneFile(n int) int {
	file, _ := s.layout.place(s.next)
	for i := 1; i < n; i++ {
		if f, _ := s.layout.place(s.next + i); f != file {
			return i
		}
	}
	return n
}

// batch returns the n records from record from on, all of which are of one file.
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

// record returns what is to be said of record n besides its bytes.
func (s *stream) record(n int) (checkpoint.FileID, sink.Record) {
	file, at := s.layout.place(n)
	r := sink.Record{Offset: at.offset, Index: at.index, Block: at.block}
	if at.index >= 0 {
		r.Coin = s.layout.coin(n)
	}
	return file, r
}

// key is what the order of record n is kept among.
func (s *stream) key(n int) string {
	if s.p.target.OrderKey == nil {
		return ""
	}
	_, r := s.record(n)
	return s.p.target.OrderKey(r)
}

// compare checks that consumers were given the records 0 to next-1 in order;
// each once, or, if the sink is not exactly once, with repeats.
func (s *stream) compare() {
	s.p.t.Helper()
	data, err := s.p.target.Received(s.name)
	if err != nil {
		s.p.t.Fatalf("read what %s delivered: %v", s.name, err)
	}
	seed := maphash.MakeSeed()
	number := make(map[uint64]int, s.next) // by a hash of the text, which may be long
	due := map[string][]int{}              // by key
	for n := range s.next {
		number[maphash.Bytes(seed, s.layout.text(n))] = n
		if !s.refused[n] {
			due[s.key(n)] = append(due[s.key(n)], n)
		}
	}
	had := make([]bool, s.next)
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
			s.p.t.Fatalf("a consumer of %s was given %.80q, which is no whole record that was acknowledged", s.name, line)
		case s.refused[n]:
			s.p.t.Fatalf("a consumer of %s was given record %d, which was refused", s.name, n)
		case had[n] && s.p.target.ExactlyOnce:
			s.p.t.Fatalf("a consumer of %s was given record %d twice", s.name, n)
		case had[n]:
		case due[key][0] != n:
			s.p.t.Fatalf("a consumer of %s was given record %d, want %d", s.name, n, due[key][0])
		default:
			had[n], due[key] = true, due[key][1:]
		}
	}
	for _, missing := range due {
		if len(missing) > 0 {
			s.p.t.Fatalf("a consumer of %s was not given record %d of %d, nor %d others", s.name, missing[0], s.next, len(missing)-1)
		}
	}
}

// foreign tells whether a line is another stream's, as far as its head says.
func (s *stream) foreign(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte(recordHead))
	name, _, closed := bytes.Cut(rest[:min(len(rest), 100)], []byte(`"`))
	return ok && closed && string(name) != s.name && s.p.names[string(name)]
}
