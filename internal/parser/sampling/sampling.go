// Package sampling shows people a sample of the records that a parser delivers at the moment.
//
// Without a sampler a delivered batch costs one atomic load. A sampler collects for one Window, in memory that is
// bounded, and is gone before anything is sent: the speed at which a sample is read changes nothing.
//
// A request names a token, which the parser issues beforehand, and which is valid once and for a short time. So a
// recorded request that somebody sends again starts no sampler.
//
// The package must never make a pipeline wait, never keep a record once its sample is answered, and never serve a
// client that nobody has authenticated: its Handler belongs behind a seal.Guard.
package sampling

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

const (
	// Window is how long a sampler collects.
	Window = time.Second
	// MaxRecords bounds the records of a sample, and MaxBytes the bytes of all of them. DefaultRecords is their number
	// if a filter names none.
	MaxRecords     = 100
	MaxBytes       = 64 << 10
	DefaultRecords = 10
	// MaxRecordBytes bounds what is shown of a record. A longer record is cut.
	MaxRecordBytes = 8 << 10
	// maxSamplers bounds the samplers that collect at once.
	maxSamplers = 2
	// maxExamined bounds the bytes that a sampler compares with its filter. The records after them are left out.
	// Comparing takes about ten milliseconds of a processor.
	maxExamined = 16 << 20
)

// Filter selects the records of a sample.
type Filter struct {
	// Stream is the name of a stream, such as "Fills". Empty selects all streams.
	Stream string `json:"stream,omitempty"`
	// Coin is the value that a record's member "coin" must have, at any depth. With ":*" at its end it is the prefix of
	// the value, as in the parser's own filter. Empty selects all records.
	Coin string `json:"coin,omitempty"`
	// Records is the greatest number of records, from 1 to MaxRecords. 0 means DefaultRecords.
	Records int `json:"records,omitempty"`
}

// Check returns an error that says what to write instead.
func (f Filter) Check() error {
	switch {
	case f.Stream != "" && !slices.Contains(config.Streams(), config.Stream(f.Stream)):
		return fmt.Errorf("stream %.40q is unknown: write one of %s", f.Stream, names(config.Streams()))
	case len(f.Coin) > config.MaxFilterValueLength:
		return fmt.Errorf("the coin has %d bytes: write at most %d", len(f.Coin), config.MaxFilterValueLength)
	case strings.ContainsFunc(f.Coin, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }):
		return fmt.Errorf("coin %.40q is not a coin's name: write printable ASCII without blanks, quotes and backslashes",
			f.Coin)
	case f.Records < 0 || f.Records > MaxRecords:
		return fmt.Errorf("%d records are asked for: write 1 to %d", f.Records, MaxRecords)
	}
	return nil
}

func names[S ~string](streams []S) string {
	out := make([]string, 0, len(streams))
	for _, s := range streams {
		out = append(out, string(s))
	}
	return strings.Join(out, ", ")
}

// Sample is what a sampler has collected in one Window.
type Sample struct {
	Records []Record `json:"records"`
	// Delivered counts the records of the filter's streams that were delivered. Filtered counts those of other coins, and
	// LeftOut those that the bounds of a sample left out; it may include records of other coins.
	Delivered int64 `json:"delivered"`
	Filtered  int64 `json:"filtered"`
	LeftOut   int64 `json:"leftOut"`
}

// Record is a delivered record.
type Record struct {
	Stream string `json:"stream"`
	// Text is the record without its newline, or its first MaxRecordBytes bytes. Bytes is the length of the whole record.
	Text  []byte `json:"text"`
	Bytes int    `json:"bytes"`
}

// Cut reports whether the record is longer than its Text.
func (r *Record) Cut() bool { return r.Bytes > len(r.Text) }

// ErrBusy reports that others collect samples.
var ErrBusy = errors.New("others read samples of this parser: try again in a second")

// Sampler collects samples of the records that a parser delivers. It is safe for concurrent use. The zero value is
// ready; nil is a sampler that nobody uses.
type Sampler struct {
	// open are the samplers that collect; nil for none.
	open atomic.Pointer[[]*collector]
	mu   sync.Mutex // held while open is replaced
}

// Offer shows a delivered batch of a stream to those who collect. It never waits, and keeps nothing of the batch.
func (s *Sampler) Offer(stream string, b sink.Batch) {
	if s == nil {
		return
	}
	open := s.open.Load()
	if open == nil {
		return
	}
	for _, c := range *open {
		c.offer(stream, b)
	}
}

// Collect collects a sample for one Window, or until the context is done. It fails with ErrBusy while others collect.
func (s *Sampler) Collect(ctx context.Context, f Filter) (Sample, error) {
	if err := f.Check(); err != nil {
		return Sample{}, err
	}
	c := newCollector(f)
	if !s.add(c) {
		return Sample{}, ErrBusy
	}
	end := time.NewTimer(Window)
	defer end.Stop()
	select {
	case <-end.C:
	case <-ctx.Done():
	}
	s.remove(c)
	return c.close(), nil
}

// add makes a collector see batches. It reports false if there are as many as there may be.
func (s *Sampler) add(c *collector) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var now []*collector
	if open := s.open.Load(); open != nil {
		now = *open
	}
	if len(now) == maxSamplers {
		return false
	}
	now = append(slices.Clone(now), c)
	s.open.Store(&now)
	return true
}

func (s *Sampler) remove(c *collector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := slices.DeleteFunc(slices.Clone(*s.open.Load()), func(o *collector) bool { return o == c })
	if len(now) == 0 {
		s.open.Store(nil)
		return
	}
	s.open.Store(&now)
}

// collector collects one sample.
type collector struct {
	filter Filter
	value  []byte // what follows `"coin":` in a record that passes; nil: any record passes
	most   int    // records

	missed atomic.Int64 // records of batches that arrived while the collector examined another pipeline's

	mu       sync.Mutex // guards the fields below
	closed   bool
	sample   Sample
	bytes    int
	examined int
}

func newCollector(f Filter) *collector {
	c := &collector{filter: f, most: f.Records}
	if c.most == 0 {
		c.most = DefaultRecords
	}
	if builder, all := strings.CutSuffix(f.Coin, "*"); all && strings.HasSuffix(builder, ":") {
		c.value = []byte(`"` + builder)
	} else if f.Coin != "" {
		c.value = []byte(`"` + f.Coin + `"`)
	}
	return c
}

// offer examines a batch, unless it examines another pipeline's at the moment.
func (c *collector) offer(stream string, b sink.Batch) {
	if c.filter.Stream != "" && c.filter.Stream != stream {
		return
	}
	if !c.mu.TryLock() {
		c.missed.Add(int64(len(b.Records)))
		return
	}
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	for i := range b.Records {
		if len(c.sample.Records) >= c.most || c.bytes >= MaxBytes || c.examined >= maxExamined {
			c.sample.LeftOut += int64(len(b.Records) - i)
			return
		}
		c.examine(stream, bytes.TrimSuffix(b.Record(i), []byte("\n")))
	}
}

// examine takes a record into the sample if it passes the filter.
func (c *collector) examine(stream string, record []byte) {
	c.examined += len(record)
	if c.value != nil && !hasCoin(record, c.value) {
		c.sample.Filtered++
		return
	}
	size := min(len(record), MaxRecordBytes, MaxBytes-c.bytes)
	c.bytes += size
	c.sample.Records = append(c.sample.Records,
		Record{Stream: stream, Text: bytes.Clone(record[:size]), Bytes: len(record)})
}

// close ends the collection and returns the sample.
func (c *collector) close() Sample {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.sample.LeftOut += c.missed.Swap(0)
	c.sample.Delivered = int64(len(c.sample.Records)) + c.sample.Filtered + c.sample.LeftOut
	return c.sample
}

var coinKey = []byte(`"coin"`)

// hasCoin reports whether a member "coin" of the record has a value that begins with value. In JSON the key's quotes
// are never part of a string: there they are escaped.
func hasCoin(record, value []byte) bool {
	for {
		i := bytes.Index(record, coinKey)
		if i < 0 {
			return false
		}
		record = bytes.TrimLeft(record[i+len(coinKey):], " \t")
		after, colon := bytes.CutPrefix(record, []byte(":"))
		if colon && bytes.HasPrefix(bytes.TrimLeft(after, " \t"), value) {
			return true
		}
	}
}
