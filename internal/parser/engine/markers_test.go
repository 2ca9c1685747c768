package engine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
)

// told is a marker as a test writes it; pos is left out.
func told(kind string, block, from, to int) string {
	number := func(n int) string {
		if n == 0 {
			return "null"
		}
		return fmt.Sprint(n)
	}
	return fmt.Sprintf(`{"target":"node-1","stream":"_marker","pos":"","kind":%q,"about":"Trades","block":%s,"from":%s,"to":%s,"bytes":null,"file":null,"reason":null}`+"\n",
		kind, number(block), number(from), number(to))
}

var anyPosition = regexp.MustCompile(`"pos":"[^"]*"`)

func TestMarkersTellWhatIsMissingOrComesAgain(t *testing.T) {
	const byBlock, streaming = "node_trades_by_block/20260430/8", "node_trades_streaming/20260430/8"
	for name, c := range map[string]struct {
		deduplicate bool
		runs        []map[string]string // what is appended before each run of the parser
		want        string
	}{
		"nothing to tell": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 3) + envelope(6, 0, 0) + envelope(7, 0, 1)}},
			want: events(5, 0, 3) + events(7, 0, 1),
		},
		"a gap": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 3) + envelope(6, 0, 1) + envelope(9, 0, 2) + envelope(10, 0, 1)}},
			want: events(5, 0, 3) + events(6, 0, 1) + told("gap", 9, 7, 8) + events(9, 0, 2) + events(10, 0, 1),
		},
		"a gap between two runs of the parser": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 3)}, {byBlock: envelope(7, 0, 1)}},
			want: events(5, 0, 3) + told("gap", 7, 6, 6) + events(7, 0, 1),
		},
		"an idle block of streaming mode is no gap": {
			runs: []map[string]string{{streaming: envelope(5, 0, 3) + envelope(9, 0, 2)}},
			want: events(5, 0, 3) + events(9, 0, 2),
		},
		"a node that goes back": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 1) + envelope(6, 0, 1) + envelope(5, 0, 1) + envelope(6, 0, 1) + envelope(7, 0, 1)}},
			want: events(5, 0, 1) + events(6, 0, 1) + told("replay", 5, 0, 6) + events(5, 0, 1) + events(6, 0, 1) + events(7, 0, 1),
		},
		"a node that goes back by one": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 1) + envelope(5, 0, 1)}},
			want: events(5, 0, 1) + told("replay", 5, 0, 5) + events(5, 0, 1),
		},
		"more of a block of streaming mode is no replay": {
			runs: []map[string]string{{streaming: envelope(5, 0, 1) + envelope(5, 1, 2)}, {streaming: envelope(5, 2, 3) + envelope(4, 0, 1)}},
			want: events(5, 0, 3) + told("replay", 4, 0, 5) + events(4, 0, 1),
		},
		"a replay that goes on over a restart of the parser is told once": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 1) + envelope(6, 0, 1) + envelope(7, 0, 1) + envelope(5, 0, 1)}, {byBlock: envelope(6, 0, 1) + envelope(7, 0, 1)}},
			want: events(5, 0, 1) + events(6, 0, 1) + events(7, 0, 1) + told("replay", 5, 0, 7) + events(5, 0, 1) + events(6, 0, 1) + events(7, 0, 1),
		},
		"a late block, and what is left out": {
			deduplicate: true,
			runs:        []map[string]string{{byBlock: envelope(5, 0, 1) + envelope(7, 0, 1) + envelope(5, 0, 1) + envelope(6, 0, 1) + envelope(7, 0, 1) + envelope(8, 0, 1)}},
			want: events(5, 0, 1) + told("gap", 7, 6, 6) + events(7, 0, 1) + told("replay", 5, 0, 7) +
				told("late", 6, 0, 7) + events(6, 0, 1) + events(8, 0, 1),
		},
		"the last line is left out, and its marker is not": {
			deduplicate: true,
			runs:        []map[string]string{{byBlock: envelope(5, 0, 1) + envelope(6, 0, 1) + envelope(5, 0, 1)}},
			want:        events(5, 0, 1) + events(6, 0, 1) + told("replay", 5, 0, 6),
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Engine.Markers, b.cfg.Engine.DeduplicateBlocks = true, c.deduplicate
			for _, run := range c.runs {
				for file, text := range run {
					b.node(file, text)
				}
				if err := b.once(nil); err != nil {
					t.Fatal(err)
				}
			}
			b.same(anyPosition.ReplaceAllString(b.delivered("trades"), `"pos":""`), c.want)
		})
	}
}

func TestAMarkerStandsBeforeItsLineAtAPlaceOfItsOwn(t *testing.T) {
	b := newBench(t)
	b.cfg.Engine.Markers, b.cfg.Format = true, config.Enveloped
	first := envelope(5, 0, 2)
	b.node("node_trades_by_block/20260430/8", first+envelope(9, 0, 2))
	if err := b.once(nil); err != nil {
		t.Fatal(err)
	}
	var positions []string
	for line := range strings.Lines(b.delivered("trades")) {
		var record struct{ Stream, Pos string }
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		_, at, _ := strings.Cut(record.Pos, ":")
		positions = append(positions, record.Stream+" "+at)
	}
	at := len(first)
	want := []string{"Trades 0:0", "Trades 0:1", fmt.Sprintf("_marker %d:-1", at), fmt.Sprintf("Trades %d:0", at), fmt.Sprintf("Trades %d:1", at)}
	if !slices.Equal(positions, want) {
		t.Errorf("the records are at %q; want %q", positions, want)
	}
}

func TestALineThatIsTooLongToBeReadIsToldWhereItWas(t *testing.T) {
	for title, before := range map[string]string{"between two lines": trade(1) + "\n", "first of all": ""} {
		t.Run(title, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Engine.Markers, b.cfg.Engine.MaxLineBytes = true, 1<<10
			huge := strings.Repeat("h", 1<<20) + "\n"
			b.node("node_trades/20260430/8", before+huge+trade(2)+"\n")
			if err := b.once(nil); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf(`{"target":"node-1","stream":"_marker","pos":"","kind":"skipped","about":"Trades","block":null,"from":null,"to":null,`+
				`"bytes":%d,"file":"node_trades/hourly/20260430/8","reason":"a line longer than maxLineBytes"}`+"\n", len(huge))
			b.same(anyPosition.ReplaceAllString(b.delivered("trades"), `"pos":""`), before+want+trade(2)+"\n")
			if err := b.once(nil); err != nil {
				t.Fatal(err)
			}
			b.same(anyPosition.ReplaceAllString(b.delivered("trades"), `"pos":""`), before+want+trade(2)+"\n")
		})
	}
}

func TestMarkersMatchTheirSchema(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "schemas", "markers.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties map[string]struct {
			Enum []string
		}
		Required []string
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{gapMarker, replayMarker, lateMarker, skippedMarker} {
		if !slices.Contains(schema.Properties["kind"].Enum, kind) {
			t.Errorf("the schema does not know kind %q", kind)
		}
		m := marker{kind: kind}
		line, err := m.text("node-1", config.Fills, checkpoint.FileID{})
		if err != nil {
			t.Fatal(err)
		}
		var record map[string]any
		if err := json.Unmarshal(line, &record); err != nil {
			t.Fatal(err)
		}
		if len(record) != len(schema.Required) || len(record) != len(schema.Properties) {
			t.Errorf("a marker has %d fields; the schema has %d and requires %d", len(record), len(schema.Properties), len(schema.Required))
		}
		for _, field := range schema.Required {
			if _, there := record[field]; !there {
				t.Errorf("a marker of kind %s lacks %s", kind, field)
			}
		}
	}
}

// TestWhoReadsMarkersKnowsEveryGap is the consumer's side: with nothing but the records he knows whenever the next block is not the
// one after the highest, and is told nothing else.
func TestWhoReadsMarkersKnowsEveryGap(t *testing.T) {
	encoder, err := hyperliquid.NewEncoder(config.Trades, config.ByBlock, config.Filter{}, config.Raw, "node-1", false)
	if err != nil {
		t.Fatal(err)
	}
	c := codec{whole: true, encoder: encoder, cut: encoder.Cut}
	rapid.Check(t, func(t *rapid.T) {
		settings := config.Engine{Markers: true, DeduplicateBlocks: rapid.Bool().Draw(t, "deduplicate")}
		blocks := rapid.SliceOfN(rapid.IntRange(1, 12), 1, 40).Draw(t, "blocks")
		var ahead lookout
		var got []string
		for rest := blocks; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "lines of the next block of lines")
			var data strings.Builder
			for _, number := range rest[:n] {
				data.WriteString(envelope(number, 0, 1))
			}
			rest = rest[n:]
			if rapid.Bool().Draw(t, "the parser starts again") {
				ahead = lookout{resumeProcessed(ahead.processed.checkpoint()), ahead.sequence}
			}
			q := ahead.cut(nil, &c, &buffer.Block{Data: []byte(data.String())}, rapid.IntRange(1, 4).Draw(t, "parts"), &settings)
			at := 0
			for i, span := range q.spans {
				for ; at < len(q.marks) && q.marks[at].before == i; at++ {
					m := q.marks[at]
					got = append(got, fmt.Sprint(m.kind, " ", m.block, " ", m.from, " ", m.to))
				}
				for line := range strings.Lines(string(span.Data)) {
					number, _ := encoder.BlockOf([]byte(line))
					got = append(got, fmt.Sprint(number))
				}
			}
			if at != len(q.marks) {
				t.Fatalf("%d of %d markers stand before no span", len(q.marks)-at, len(q.marks))
			}
		}
		var want []string
		delivered := map[int]bool{}
		last, highest := 0, 0
		for _, number := range blocks {
			again := delivered[number]
			switch {
			case highest == 0:
			case number > highest+1:
				want = append(want, fmt.Sprint("gap ", number, " ", highest+1, " ", number-1))
			case number > highest:
			case settings.DeduplicateBlocks && !again:
				want = append(want, fmt.Sprint("late ", number, " 0 ", highest))
			case number <= last:
				want = append(want, fmt.Sprint("replay ", number, " 0 ", highest))
			}
			if !settings.DeduplicateBlocks || !again {
				want = append(want, fmt.Sprint(number))
			}
			delivered[number], last, highest = true, number, max(highest, number)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("blocks %v\ngive %q\nwant %q", blocks, got, want)
		}
	})
}
