package hyperliquid

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

func TestCutIntoAnyNumberOfSpansChangesNothing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		stream := rapid.SampledFrom(config.Streams()).Draw(r, "stream")
		s := setting{
			stream: stream,
			mode:   rapid.SampledFrom(modes).Draw(r, "mode"),
			filter: rapid.SampledFrom(filters()).Draw(r, "filter"),
			format: rapid.SampledFrom(formatsOf(stream)).Draw(r, "format"),
		}
		event := rapid.OneOf(rapid.SampledFrom(eventsOf(s.stream)), rapid.SampledFrom(eventsOf(s.stream)), rapid.SampledFrom(malformedOf(s.stream)))
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
		w := e.NewWorker()
		var once Output
		w.Encode(&once, Span{Data: data, Offset: 7}, testFile)
		n := rapid.IntRange(1, 12).Draw(r, "spans")
		spans := e.Cut(nil, data, 7, n)
		if len(spans) > n {
			r.Fatalf("%d spans, at most %d were asked for", len(spans), n)
		}
		var each Output
		for _, span := range spans {
			w.Encode(&each, span, testFile)
		}
		if got, want := describe(each), describe(once); got != want {
			r.Fatalf("in %d spans\n%s\nat once\n%s", len(spans), got, want)
		}
	})
}

func TestCutSharesTheWorkOut(t *testing.T) {
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
		t.Errorf("%d spans of nothing", len(spans))
	}
	before := Span{Data: []byte("kept")}
	spans := e.Cut([]Span{before}, data, 50, 2)
	if string(spans[0].Data) != "kept" {
		t.Error("what was in dst is gone")
	}
	var all []byte
	for _, s := range spans[1:] {
		all = append(all, s.Data...)
		if want := int64(50 + bytes.Index(data, s.Data)); s.Offset != want {
			t.Errorf("offset %d, want %d", s.Offset, want)
		}
	}
	if !bytes.Equal(all, data) {
		t.Errorf("spans of whole lines do not cover the data")
	}
}

func TestCutInsideALineSaysWhereInItEachSpanIs(t *testing.T) {
	events := sampleEvents(100)
	data := frame(config.ByBlock, events, 100)
	e := setting{config.OrderStatuses, config.ByBlock, config.Filter{}, config.Raw}.encoder(t)
	next := 0
	for _, s := range e.Cut(nil, data, 33, 4) {
		if s.Index != next || s.Offset != 33 {
			t.Errorf("span begins at event %d of the line at %d, want %d of 33", s.Index, s.Offset, next)
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
