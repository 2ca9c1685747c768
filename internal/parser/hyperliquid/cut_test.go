package hyperliquid

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

func TestCutIntoAnyNumberOfSpansChangesNothing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		e, data := anyLines(r)
		w := e.NewWorker()
		w.Parts, w.Hashes = true, true
		var once Output
		w.Encode(&once, Span{Data: data, Offset: 7}, testFile)
		n := rapid.IntRange(1, 12).Draw(r, "spans")
		spans := e.Cut(nil, data, 7, n)
		if len(spans) > n {
			r.Fatalf("%d spans; want at most %d", len(spans), n)
		}
		var each Output
		for _, span := range spans {
			span.Count = each.Count
			w.Encode(&each, span, testFile)
		}
		if got, want := describe(each), describe(once); got != want {
			r.Fatalf("in %d spans\n%s\nin one span\n%s", len(spans), got, want)
		}
		if got, want := lineParts(each), lineParts(once); got != want {
			r.Fatalf("in %d spans the lines are\n%s\nin one span\n%s", len(spans), got, want)
		}
		for _, p := range once.Parts {
			if p.Unreadable {
				continue
			}
			line := data[p.Offset-7:]
			var hashes []uint32
			from := rapid.IntRange(0, p.Events).Draw(r, "from event")
			e.Rest(line[:bytes.IndexByte(line, '\n')+1], from, func(hash uint32) bool {
				hashes = append(hashes, hash)
				return true
			})
			if !slices.Equal(hashes, once.Hashes[p.Hashes+from:p.Hashes+p.Events]) {
				r.Fatalf("the hashes of the line at %d differ", p.Offset)
			}
		}
	})
}

// lineParts describes the parts of an output by line, independent of the spans and outputs that the line was cut into.
func lineParts(o Output) string {
	var lines []Part
	for _, p := range o.Parts {
		n := len(lines)
		if n == 0 || lines[n-1].Offset != p.Offset {
			lines = append(lines, p)
			continue
		}
		if last := &lines[n-1]; last.End || p.Index != last.Events {
			return fmt.Sprintf("%+v does not continue %+v", p, *last)
		}
		lines[n-1].Events, lines[n-1].End, lines[n-1].Next = lines[n-1].Events+p.Events, p.End, p.Next
	}
	return fmt.Sprintf("%+v %v", lines, o.Hashes)
}

func TestEncodingWithAnyLimitChangesNothing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		e, data := anyLines(r)
		w := e.NewWorker()
		w.Parts = rapid.Bool().Draw(r, "parts")
		w.Hashes = w.Parts && rapid.Bool().Draw(r, "hashes")
		var once Output
		w.Encode(&once, Span{Data: data, Offset: 7}, testFile)
		spans := e.Cut(nil, data, 7, rapid.IntRange(1, 4).Draw(r, "spans"))
		limit := rapid.IntRange(1, 1+size(once)).Draw(r, "limit")
		limited := encodeLimited(r, w, spans, limit)
		if got, want := describe(limited), describe(once); got != want {
			r.Fatalf("%d bytes at a time\n%s\nwithout a limit\n%s", limit, got, want)
		}
		if got, want := lineParts(limited), lineParts(once); got != want {
			r.Fatalf("%d bytes at a time the lines are\n%s\nwithout a limit\n%s", limit, got, want)
		}
	})
}

// anyLines draws valid and malformed lines, and an encoder for them.
func anyLines(r *rapid.T) (*Encoder, []byte) {
	stream := rapid.SampledFrom(config.Streams()).Draw(r, "stream")
	s := setting{
		stream: stream,
		mode:   rapid.SampledFrom(modes).Draw(r, "mode"),
		filter: rapid.SampledFrom(filters()).Draw(r, "filter"),
		format: rapid.SampledFrom(config.Formats()).Draw(r, "format"),
	}
	event := rapid.OneOf(rapid.SampledFrom(eventsOf(s.stream)), rapid.SampledFrom(eventsOf(s.stream)),
		rapid.SampledFrom(append(malformedOf(s.stream), nonStrictOf(s.stream)...)))
	line := event
	if s.mode != config.Line {
		line = rapid.Custom(func(r *rapid.T) string {
			good := rapid.SampledFrom(eventsOf(s.stream))
			if rapid.Bool().Draw(r, "with malformed events") {
				good = event
			}
			events := strings.Join(rapid.SliceOfN(good, 0, 30).Draw(r, "events"), ",")
			layouts := envelopesOf(events)
			return layouts[rapid.IntRange(0, 2*len(layouts)).Draw(r, "layout")%len(layouts)]
		})
	}
	data := lines(rapid.SliceOfN(line, 1, 8).Draw(r, "lines")...)
	e, err := NewEncoder(s.stream, s.mode, s.filter, s.format, testTarget, s.keyed())
	if err != nil {
		r.Fatal(err)
	}
	e.longLine = 0
	return e, data
}

func TestCutSharesTheWork(t *testing.T) {
	events := sampleEvents(4000)
	for _, c := range []struct {
		name     string
		mode     config.Mode
		perBlock int
	}{
		{"lines", config.Line, 1},
		{"many blocks", config.ByBlock, 100},
		{"few blocks", config.ByBlock, 700},
		{"one block", config.ByBlock, 4000},
	} {
		data := frame(c.mode, events, c.perBlock)
		for _, n := range []int{1, 2, 3, 4, 8} {
			e := setting{config.OrderStatuses, c.mode, config.Filter{}, config.Raw}.encoder(t)
			spans := e.Cut(nil, data, 0, n)
			largest := 0
			for _, s := range spans {
				largest = max(largest, len(s.Data))
			}
			if limit := (len(data)/n)*8/5 + 1000; largest > limit {
				t.Errorf("%s in %d: the largest of %d spans has %d bytes, more than %d", c.name, n, len(spans), largest, limit)
			}
		}
	}
}

func TestCutLeavesOrdinaryLinesWhole(t *testing.T) {
	data := frame(config.ByBlock, sampleEvents(4000), 2000)
	e := setting{config.OrderStatuses, config.ByBlock, config.Filter{}, config.Raw}.encoder(t)
	e.longLine = longLine
	if spans := e.Cut(nil, data, 0, 16); len(spans) != 2 || !bytes.HasSuffix(spans[0].Data, []byte("\n")) {
		t.Errorf("%d spans for 2 lines", len(spans))
	}
	long := frame(config.ByBlock, sampleEvents(10000), 10000)
	if spans := e.Cut(nil, long, 0, 16); len(spans) < 15 {
		t.Errorf("%d spans for a line of %d bytes", len(spans), len(long))
	}
}

func TestCutAppendsAndCovers(t *testing.T) {
	data := lines(block(order, order), block(order), block(triggered, order, oldOrder))
	e := setting{config.OrderStatuses, config.ByBlock, config.Filter{}, config.Raw}.encoder(t)
	if spans := e.Cut(nil, nil, 0, 4); len(spans) != 0 {
		t.Errorf("%d spans for no data", len(spans))
	}
	before := Span{Data: []byte("kept")}
	spans := e.Cut([]Span{before}, data, 50, 2)
	if string(spans[0].Data) != "kept" {
		t.Error("the previous content of dst is gone")
	}
	var all []byte
	for _, s := range spans[1:] {
		all = append(all, s.Data...)
		if want := int64(50 + bytes.Index(data, s.Data)); s.Offset != want {
			t.Errorf("offset %d, want %d", s.Offset, want)
		}
	}
	if !bytes.Equal(all, data) {
		t.Errorf("the spans of whole lines do not cover the data")
	}
}

func TestCutWithinALineRecordsThePositionOfEachSpan(t *testing.T) {
	events := sampleEvents(100)
	data := frame(config.ByBlock, events, 100)
	e := setting{config.OrderStatuses, config.ByBlock, config.Filter{}, config.Raw}.encoder(t)
	next := 0
	for _, s := range e.Cut(nil, data, 33, 4) {
		if s.Index != next || s.Offset != 33 {
			t.Errorf("the span begins at event %d of the line at %d; want event %d of the line at 33", s.Index, s.Offset, next)
		}
		var out Output
		e.NewWorker().Encode(&out, s, testFile)
		if want := strings.Join(events[next:next+int(out.Events)], "\n") + "\n"; string(out.Data) != want {
			t.Error("wrong events")
		}
		if (out.Lines == 1) != (next == 0) || slices.Equal(out.Blocks, []int64{978995377}) != (next == 0) {
			t.Errorf("%d lines, blocks %v for the span from event %d", out.Lines, out.Blocks, next)
		}
		next += int(out.Events)
	}
	if next != 100 {
		t.Errorf("%d events, want 100", next)
	}
}
