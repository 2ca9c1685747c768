package l4

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The streams that the books need. Others are counted.
const (
	statuses = "OrderStatuses"
	diffs    = "RawBookDiffs"

	silent = "silent" // the kind of a marker
)

// Feed builds the books of all coins from the records of the merged stream, in format Enveloped. The zero Feed is ready
// for use, and begins at any record.
type Feed struct {
	// From is the first block that the books take part in. Earlier blocks are passed over.
	From int64

	books   map[string]*Book
	pending []record         // events since the last block's marker
	newest  map[string]place // by the file of their positions: of the newest record
	closed  int64            // the newest block with a marker
	index   int64            // of the next record in its block
	// fault is why the books are not valid at the end of the current block; empty: they are.
	fault  string
	silent map[string]bool  // the streams that the parser does not wait for
	again  map[string]int64 // by stream: up to this block, the node writes blocks again

	valid bool
	since int64
}

// Block is the state of a Feed at the end of a block.
type Block struct {
	Number int64
	Time   string // of the block, as the node writes it; may be empty
	// Valid reports whether the books hold all orders that were placed since block Since and are not filled or canceled,
	// and no other. Reason says why not.
	Valid  bool
	Since  int64
	Reason string
	// Changes are those of this block.
	Changes Changes
}

// Changes counts the changes of books in a block.
type Changes struct {
	New     int // orders placed
	Resized int
	Filled  int // orders removed after their size became zero
	Removed int // other orders removed
	// Unknown counts changes of orders that the books do not hold: they were placed before Since.
	Unknown int
	// NoStatus counts placed orders without a status in the block: protocol-owned ones, and those whose statuses the
	// parser's filter drops.
	NoStatus int
}

// record is a record of the merged stream: an event, or a marker.
type record struct {
	Stream    string           `json:"stream"`
	Pos       string           `json:"pos"`
	Block     *int64           `json:"block"`
	BlockTime string           `json:"blockTime"`
	Event     json.RawMessage  `json:"event"`
	Kind      string           `json:"kind"`
	About     string           `json:"about"`
	From      *int64           `json:"from"`
	To        *int64           `json:"to"`
	Bytes     *int64           `json:"bytes"`
	Delivered map[string]int64 `json:"delivered"`
	Complete  bool             `json:"complete"`
}

// place orders the records of one file.
type place struct{ offset, index int64 }

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.offset, q.offset), cmp.Compare(p.index, q.index))
}

// placeOf parses a position, such as blocks/20260430/20@00000000:978995377:3: record 3 of block 978995377. Events have
// positions in the node's files.
func placeOf(pos string) (file string, p place, err error) {
	parts := strings.Split(pos, ":")
	if len(parts) != 3 {
		return "", p, fmt.Errorf("%q is not a position", pos)
	}
	var failed [2]error
	p.offset, failed[0] = strconv.ParseInt(parts[1], 10, 64)
	p.index, failed[1] = strconv.ParseInt(parts[2], 10, 64)
	return parts[0], p, errors.Join(failed[:]...)
}

const marker = "_marker"

// Add takes a record, one line of JSON. It returns the state at the end of a block if the record is the block's marker,
// and else nil. An error means that the line is no record of a merged stream.
func (f *Feed) Add(line []byte) (*Block, error) {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("reading a record: %w", err)
	}
	file, at, err := placeOf(r.Pos)
	switch {
	case err != nil:
		return nil, err
	case r.Stream != marker && len(r.Event) == 0:
		return nil, fmt.Errorf("record %s has no event: run hlparser with --format enveloped", r.Pos)
	case r.Stream != marker && r.Block == nil:
		return nil, fmt.Errorf("record %s has no block", r.Pos)
	}
	if newest, ok := f.newest[file]; ok && at.compare(newest) <= 0 {
		return nil, nil // delivered again: a sink with at-least-once delivery
	}
	if f.newest == nil {
		f.newest = map[string]place{}
	}
	f.newest[file] = at
	switch {
	case r.Stream != marker:
		f.pending = append(f.pending, r)
	case r.Kind == "block":
		return f.endBlock(&r, at), nil
	default:
		f.mark(&r)
		if (r.Kind == silent || r.Kind == "back") && at.offset == f.closed {
			return nil, nil // after the marker of its block
		}
	}
	f.index++
	return nil, nil
}

// fail makes the books invalid at the end of the current block. The first reason counts.
func (f *Feed) fail(format string, args ...any) {
	if f.fault == "" {
		f.fault = fmt.Sprintf(format, args...)
	}
}

// mark takes a marker that does not end a block.
func (f *Feed) mark(r *record) {
	switch r.Kind {
	case silent, "back":
		if f.silent == nil {
			f.silent = map[string]bool{}
		}
		f.silent[r.About] = r.Kind == silent
		return
	}
	if r.About != diffs {
		return
	}
	switch {
	case r.Kind == "replay" && r.To != nil:
		if f.again == nil {
			f.again = map[string]int64{}
		}
		f.again[r.About] = max(f.again[r.About], *r.To)
	case r.Kind == "gap" && r.From != nil && r.To != nil:
		f.fail("a gap in %s, blocks %d to %d", r.About, *r.From, *r.To)
	case r.Kind == "gap", r.Kind == "deadLetter":
		f.fail("a part of %s is in the parser's dead letter", r.About)
	case r.Kind == "skipped" && r.Bytes != nil:
		f.fail("%d bytes of %s were not read", *r.Bytes, r.About)
	case r.Kind == "skipped":
		f.fail("a part of %s was not read", r.About)
	}
}

// endBlock applies a block whose marker has come.
func (f *Feed) endBlock(m *record, at place) *Block {
	number := at.offset
	b := &Block{Number: number, Time: m.BlockTime}
	if f.index < at.index {
		f.fail("%d records of the block are missing", at.index-f.index)
	}
	defer func() { f.pending, f.fault, f.index, f.closed = f.pending[:0], "", 0, number }()
	if number < f.From {
		b.Reason = fmt.Sprintf("the books begin with block %d", f.From)
		return b
	}
	f.check(m, number)
	if f.fault == "" {
		if !f.valid {
			f.books, f.since, f.valid = map[string]*Book{}, number, true
		}
		if err := f.apply(number, &b.Changes); err != nil {
			f.fail("%v", err)
		}
	}
	if f.fault != "" {
		f.books, f.valid = nil, false
		b.Reason, b.Changes = f.fault, Changes{}
		return b
	}
	b.Valid, b.Since = true, f.since
	return b
}

// check compares a block with its marker.
func (f *Feed) check(m *record, number int64) {
	counts := map[string]int64{}
	for i := range f.pending {
		r := &f.pending[i]
		switch block := *r.Block; {
		case block == number:
			counts[r.Stream]++
		case block > number:
			f.fail("an event of block %d came before the end of block %d", block, number)
		case r.Stream == diffs && block > f.again[diffs]:
			f.fail("a change of block %d came late", block)
		}
	}
	for _, stream := range slices.Sorted(maps.Keys(m.Delivered)) {
		if got, want := counts[stream], m.Delivered[stream]; got != want {
			f.fail("%d events of %s came, and the marker counts %d", got, stream, want)
		}
		delete(counts, stream)
	}
	for _, stream := range slices.Sorted(maps.Keys(counts)) {
		f.fail("%d events of %s came, and the marker does not name it", counts[stream], stream)
	}
	if _, ok := m.Delivered[diffs]; !ok {
		f.fail("the parser does not read %s", diffs)
	}
	if !m.Complete {
		reason := "the parser cannot say that it read the whole block"
		for _, stream := range slices.Sorted(maps.Keys(f.silent)) {
			if f.silent[stream] {
				reason = stream + " is silent"
			}
		}
		f.fail("%s", reason)
	}
}

// status is what the books use of an order's status.
type status struct {
	Status string `json:"status"`
	Order  struct {
		ID    int64  `json:"oid"`
		Tif   string `json:"tif"`   // may be null
		Cloid string `json:"cloid"` // may be null
	} `json:"order"`
}

// diff is a change of a book.
type diff struct {
	User   string          `json:"user"`
	ID     int64           `json:"oid"`
	Coin   string          `json:"coin"`
	Side   string          `json:"side"`
	Price  string          `json:"px"`
	Change json.RawMessage `json:"raw_book_diff"` // an object, or "remove"
}

type change struct {
	New *struct {
		Size string `json:"sz"`
		// InsertBefore is the order that the new one precedes in the queue of its price; null or absent: none.
		InsertBefore int64 `json:"insertBefore"`
	} `json:"new"`
	Update *struct {
		From string `json:"origSz"`
		To   string `json:"newSz"`
	} `json:"update"`
}

// apply applies the changes of a block. Statuses precede them in the merged stream.
func (f *Feed) apply(number int64, c *Changes) error {
	placed := map[int64]status{}
	for i := range f.pending {
		r := &f.pending[i]
		if *r.Block != number {
			continue
		}
		switch r.Stream {
		case statuses:
			var s status
			if err := json.Unmarshal(r.Event, &s); err != nil {
				return fmt.Errorf("reading the order status %s: %w", r.Pos, err)
			}
			if s.Status == "open" || s.Status == "triggered" {
				placed[s.Order.ID] = s
			}
		case diffs:
			var d diff
			if err := json.Unmarshal(r.Event, &d); err != nil {
				return fmt.Errorf("reading the book diff %s: %w", r.Pos, err)
			}
			if err := f.change(&d, placed, c); err != nil {
				return fmt.Errorf("book diff %s: %w", r.Pos, err)
			}
		}
	}
	return nil
}

// change applies one change.
func (f *Feed) change(d *diff, placed map[int64]status, c *Changes) error {
	book := f.books[d.Coin]
	if book == nil {
		book = newBook()
		f.books[d.Coin] = book
	}
	if string(d.Change) == `"remove"` {
		switch o := book.remove(d.ID); {
		case o == nil:
			c.Unknown++
		case isZero(o.Size): // resized to zero before: filled
			c.Filled++
		default:
			c.Removed++
		}
		return nil
	}
	var to change
	if err := json.Unmarshal(d.Change, &to); err != nil {
		return fmt.Errorf("reading the change: %w", err)
	}
	switch {
	case to.New != nil:
		side, err := sideOf(d.Side)
		if err != nil {
			return err
		}
		s, ok := placed[d.ID]
		if !ok {
			c.NoStatus++
		}
		c.New++
		o := &Order{ID: d.ID, User: d.User, Size: to.New.Size, Tif: s.Order.Tif, Cloid: s.Order.Cloid}
		known, err := book.add(o, side, d.Price, to.New.InsertBefore)
		if err == nil && !known {
			c.Unknown++
		}
		return err
	case to.Update != nil:
		known, err := book.resize(d.ID, to.Update.From, to.Update.To)
		if known {
			c.Resized++
		} else {
			c.Unknown++
		}
		return err
	}
	return fmt.Errorf("the change %.100s is unknown", d.Change)
}

func isZero(size string) bool {
	value, err := amount(size)
	return err == nil && value.Sign() == 0
}

// Coins returns the coins that have a book, in order.
func (f *Feed) Coins() []string { return slices.Sorted(maps.Keys(f.books)) }

// Book returns the book of a coin, as it was after the newest block. It is empty if the books are not valid.
func (f *Feed) Book(coin string) *Book {
	if b := f.books[coin]; b != nil {
		return b
	}
	return newBook()
}

// Hash returns 16 hexadecimal digits that are equal for equal books of all coins.
func (f *Feed) Hash() string {
	h := sha256.New()
	for _, coin := range f.Coins() {
		if b := f.books[coin]; b.Len() > 0 {
			_, _ = io.WriteString(h, coin+"\n") // a hash returns no error
			b.writeTo(h)
		}
	}
	return shortSum(h)
}
