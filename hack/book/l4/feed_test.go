package l4

import (
	"fmt"
	"strings"
	"testing"
)

// feeder passes records to a feed, with the positions that hlparser would give them.
type feeder struct {
	t      *testing.T
	feed   Feed
	block  int64
	index  int // of the block's next record
	offset int // of the next event in the node's file
	// counts are of the block's records that a marker counts.
	statuses, diffs int
}

func (f *feeder) pos(block int64) string {
	if block != f.block {
		f.block, f.index, f.statuses, f.diffs = block, 0, 0, 0
	}
	f.index++
	return fmt.Sprintf("blocks/20260430/20@00000000:%d:%d", block, f.index-1)
}

func (f *feeder) add(line string) *Block {
	f.t.Helper()
	b, err := f.feed.Add([]byte(line))
	if err != nil {
		f.t.Fatalf("%v: %s", err, line)
	}
	return b
}

func (f *feeder) event(block int64, stream, event string) {
	f.t.Helper()
	f.eventOf(block, block, stream, event)
}

// eventOf adds an event of one block at the place of another.
func (f *feeder) eventOf(block, at int64, stream, event string) {
	f.t.Helper()
	f.pos(at) // the place in the block
	if block == at && stream == statuses {
		f.statuses++
	} else if block == at && stream == diffs {
		f.diffs++
	}
	f.offset += 100
	f.add(fmt.Sprintf(`{"target":"n","stream":%q,"pos":"node_%s_by_block/20260430/20@6ee68db5:%d:0","block":%d,`+
		`"index":0,"blockTime":null,"localTime":null,"event":%s}`, stream, stream, f.offset, block, event))
}

func (f *feeder) diff(block, oid int64, change string) {
	f.t.Helper()
	f.event(block, diffs, diffOf(oid, change))
}

func diffOf(oid int64, change string) string {
	return fmt.Sprintf(`{"user":"0x1","oid":%d,"coin":"BTC","side":"B","px":"100.0","raw_book_diff":%s}`, oid, change)
}

// mark adds a marker in block 2.
func (f *feeder) mark(kind, rest string) {
	const block = 2
	f.t.Helper()
	pos := f.pos(block)
	if kind != "silent" && kind != "back" {
		f.offset += 100
		pos = fmt.Sprintf("node_raw_book_diffs_by_block/20260430/20@6ee68db5:%d:-1", f.offset)
	}
	f.add(fmt.Sprintf(`{"target":"n","stream":"_marker","pos":%q,"kind":%q,"block":%d%s}`, pos, kind, block, rest))
}

func (f *feeder) end(block int64) *Block {
	f.t.Helper()
	return f.endWith(block, true, 0)
}

// endWith ends a block with a marker that counts some diffs more than there were.
func (f *feeder) endWith(block int64, complete bool, more int) *Block {
	f.t.Helper()
	pos := f.pos(block)
	counts := fmt.Sprintf(`{"OrderStatuses":%d,"RawBookDiffs":%d,"Fills":0}`, f.statuses, f.diffs+more)
	return f.add(fmt.Sprintf(`{"target":"n","stream":"_marker","pos":%q,"kind":"block","block":%d,"blockTime":null,`+
		`"localTime":null,"events":%s,"delivered":%s,"complete":%t}`, pos, block, counts, counts, complete))
}

func (f *feeder) want(b *Block, valid bool, since int64, book string) {
	f.t.Helper()
	if b == nil || b.Valid != valid || b.Since != since || b.Valid != (b.Reason == "") {
		f.t.Fatalf("got %+v; want valid %t since %d", b, valid, since)
	}
	if got := queue(f.feed.Book("BTC"), Bid); got != book {
		f.t.Fatalf("after block %d: got %q; want %q", b.Number, got, book)
	}
}

const (
	placed = `{"new":{"sz":"1.0"}}`
	gone   = `"remove"`
)

func resized(from, to string) string {
	return fmt.Sprintf(`{"update":{"origSz":%q,"newSz":%q}}`, from, to)
}

func statusOf(oid int64, status string) string {
	return fmt.Sprintf(`{"time":"2026-04-30T20:46:43","user":"0x1","hash":null,"builder":null,"status":%q,`+
		`"order":{"coin":"BTC","side":"B","limitPx":"90.0","sz":"1.0","oid":%d,"timestamp":1,"tif":"Alo","cloid":null}}`,
		status, oid)
}

func TestABlockIsAppliedWhenItsMarkerHasCome(t *testing.T) {
	f := &feeder{t: t}
	f.event(1, statuses, statusOf(7, "open"))
	f.event(1, statuses, statusOf(8, "badAloPxRejected"))
	f.diff(1, 7, placed)
	f.diff(1, 9, placed)
	if got := queue(f.feed.Book("BTC"), Bid); got != "" {
		t.Fatalf("before the marker the book is %q", got)
	}
	b := f.end(1)
	f.want(b, true, 1, "7@100.0:1.0 9@100.0:1.0")
	if want := (Changes{New: 2, NoStatus: 1}); b.Changes != want {
		t.Errorf("got %+v; want %+v", b.Changes, want)
	}
	if o := f.feed.Book("BTC").Order(7); o.Tif != "Alo" || o.User != "0x1" {
		t.Errorf("the order is %+v", o)
	}
	f.diff(2, 7, resized("1.0", "0.4"))
	f.diff(2, 7, resized("0.4", "0.0"))
	f.diff(2, 7, gone)
	f.diff(2, 5, gone)
	f.diff(2, 10, `{"new":{"sz":"2.0","insertBefore":9}}`)
	b = f.end(2)
	f.want(b, true, 1, "10@100.0:2.0 9@100.0:1.0")
	if want := (Changes{New: 1, Resized: 2, Filled: 1, Unknown: 1, NoStatus: 1}); b.Changes != want {
		t.Errorf("got %+v; want %+v", b.Changes, want)
	}
	f.diff(3, 9, gone)
	f.diff(3, 10, resized("2.0", "1.5"))
	b = f.end(3)
	f.want(b, true, 1, "10@100.0:1.5")
	if want := (Changes{Resized: 1, Removed: 1}); b.Changes != want {
		t.Errorf("got %+v; want %+v", b.Changes, want)
	}
}

// Whatever the feed cannot account for makes the books invalid in its block, and they begin again with the next one.
func TestAfterAFaultTheBooksBeginAgain(t *testing.T) {
	for name, c := range map[string]struct {
		reason string
		block  func(*feeder) *Block // block 2
	}{
		"an incomplete block": {"cannot say", func(f *feeder) *Block { return f.endWith(2, false, 0) }},
		"a silent stream": {"Fills is silent", func(f *feeder) *Block {
			f.mark("silent", `,"about":"Fills"`)
			return f.endWith(2, false, 0)
		}},
		"a stream that is back in the middle of the block": {"cannot say", func(f *feeder) *Block {
			f.mark("silent", `,"about":"Fills"`)
			f.mark("back", `,"about":"Fills"`)
			return f.endWith(2, false, 0)
		}},
		"a diff that is missing": {"counts 1", func(f *feeder) *Block { return f.endWith(2, true, 1) }},
		"a record that is missing": {"1 records of the block are missing", func(f *feeder) *Block {
			f.pos(2)
			return f.end(2)
		}},
		"a record in the middle that is missing": {"1 records of the block are missing", func(f *feeder) *Block {
			f.diff(2, 8, placed)
			f.pos(2)
			f.diff(2, 8, gone)
			return f.end(2)
		}},
		"a marker that is missing": {"block 2 came late", func(f *feeder) *Block {
			f.diff(2, 7, gone)
			return f.end(3)
		}},
		"a gap": {"blocks -3 to 0", func(f *feeder) *Block {
			f.mark("gap", `,"about":"RawBookDiffs","index":null,"from":-3,"to":0`)
			return f.end(2)
		}},
		"an event in the dead letter": {"blocks 2 to 2", func(f *feeder) *Block {
			f.mark("gap", `,"about":"RawBookDiffs","index":0,"from":2,"to":2`)
			return f.end(2)
		}},
		"a line in the dead letter": {"dead letter", func(f *feeder) *Block {
			f.mark("deadLetter", `,"about":"RawBookDiffs"`)
			return f.end(2)
		}},
		"bytes that were skipped": {"17 bytes", func(f *feeder) *Block {
			f.mark("skipped", `,"about":"RawBookDiffs","bytes":17`)
			return f.end(2)
		}},
		"a late change": {"block 1 came late", func(f *feeder) *Block {
			f.eventOf(1, 2, diffs, diffOf(8, placed))
			return f.end(2)
		}},
		"an early change": {"block 3 came before", func(f *feeder) *Block {
			f.eventOf(3, 2, diffs, diffOf(8, placed))
			return f.end(2)
		}},
		"an order that is placed twice": {"second time", func(f *feeder) *Block {
			f.diff(2, 7, placed)
			return f.end(2)
		}},
		"another size than the book's": {"has size 1.0", func(f *feeder) *Block {
			f.diff(2, 7, resized("2.0", "1.5"))
			return f.end(2)
		}},
		"a change of an unknown kind": {"unknown", func(f *feeder) *Block {
			f.diff(2, 7, `{"move":{"to":"1.0"}}`)
			return f.end(2)
		}},
		"a diff of another shape": {"reading the book diff", func(f *feeder) *Block {
			f.event(2, diffs, `[1]`)
			return f.end(2)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &feeder{t: t}
			f.diff(1, 7, placed)
			f.want(f.end(1), true, 1, "7@100.0:1.0")
			b := c.block(f)
			f.want(b, false, 0, "")
			if !strings.Contains(b.Reason, c.reason) {
				t.Errorf("the reason is %q; want %q in it", b.Reason, c.reason)
			}
			f.diff(4, 20, placed)
			f.diff(4, 7, gone)
			f.want(f.end(4), true, 4, "20@100.0:1.0")
		})
	}
}

func TestWhatIsNoFaultKeepsTheBooksValid(t *testing.T) {
	for name, block := range map[string]func(*feeder){
		"no event":                           func(*feeder) {},
		"a gap in another stream":            func(f *feeder) { f.mark("gap", `,"about":"Fills","from":1,"to":1`) },
		"a marker of a kind that came later": func(f *feeder) { f.mark("checkpoint", `,"about":"RawBookDiffs"`) },
		"a late status":                      func(f *feeder) { f.eventOf(1, 2, statuses, statusOf(3, "open")) },
		"a block that the node writes again": func(f *feeder) {
			f.mark("replay", `,"about":"RawBookDiffs","from":null,"to":1`)
			f.eventOf(1, 2, diffs, diffOf(7, placed))
		},
		"records that are delivered again": func(f *feeder) {
			f.block, f.index, f.offset = 1, 0, 0
			f.diff(1, 7, placed)
			if b := f.end(1); b != nil {
				t.Errorf("a repeated marker ends the block again: %+v", b)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &feeder{t: t}
			f.diff(1, 7, placed)
			f.want(f.end(1), true, 1, "7@100.0:1.0")
			block(f)
			f.want(f.end(2), true, 1, "7@100.0:1.0")
		})
	}
}

func TestTheBooksBeginWithAWholeBlock(t *testing.T) {
	f := &feeder{t: t}
	f.pos(5) // the beginning of the block was before the feed
	f.diff(5, 7, placed)
	f.want(f.end(5), false, 0, "")
	f.diff(6, 8, placed)
	f.want(f.end(6), true, 6, "8@100.0:1.0")

	f = &feeder{t: t, feed: Feed{From: 6}}
	f.diff(5, 7, placed)
	f.want(f.end(5), false, 0, "")
	f.diff(6, 8, placed)
	f.want(f.end(6), true, 6, "8@100.0:1.0")
}

func TestALineThatIsNoRecordOfAMergedStreamIsAnError(t *testing.T) {
	const fill = `{"stream":"Fills","pos":"node_fills_by_block/20260430/20@6ee68db5:129:0"`
	for line, want := range map[string]string{
		`{`:                             "reading a record",
		`null`:                          `"" is not a position`,
		fill + `,"block":1,"px":"1.0"}`: "--format enveloped",
		fill + `,"event":[]}`:           "no block",
		strings.Replace(fill, ":129:", ":x:", 1) + `,"block":1,"event":[]}`: "invalid syntax",
	} {
		if _, err := new(Feed).Add([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v; want %q in it", line, err, want)
		}
	}
}

func FuzzTheFeedTakesAnyLine(f *testing.F) {
	f.Add([]byte(`{"stream":"RawBookDiffs","pos":"node_raw_book_diffs_by_block/20260430/20@6ee68db5:0:0","block":1,`+
		`"event":`+diffOf(1, placed)+`}`),
		[]byte(`{"stream":"_marker","pos":"blocks/20260430/20@00000000:1:1","kind":"block","block":1,`+
			`"delivered":{"RawBookDiffs":1},"complete":true}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var feed Feed
		for _, line := range [][]byte{first, second} {
			b, err := feed.Add(line)
			if b != nil && (err != nil || b.Valid != (b.Reason == "")) {
				t.Errorf("got %+v, %v", b, err)
			}
		}
		feed.Hash()
	})
}
