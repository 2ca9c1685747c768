package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// markerText is a marker as a record, without pos.
func markerText(kind string, block, from, to int) string {
	number := func(n int) string {
		if n == 0 {
			return "null"
		}
		return fmt.Sprint(n)
	}
	return fmt.Sprintf(`{"target":"node-1","stream":"_marker","pos":"","kind":%q,"about":"Trades",`+
		`"block":%s,"index":null,"from":%s,"to":%s,"bytes":null,"file":null,"reason":null}`+"\n",
		kind, number(block), number(from), number(to))
}

// unreadable is the marker of a line in the dead letter.
func unreadable(line string) string {
	return strings.NewReplacer("REASON", "", "BYTES", fmt.Sprint(len(line)-1)).Replace(deadLetterText)
}

var anyPosition = regexp.MustCompile(`"pos":"[^"]*"`)

func TestMarkersReportGapsAndReplays(t *testing.T) {
	const (
		byBlock, byBlock9     = "node_trades_by_block/20260430/8", "node_trades_by_block/20260430/9"
		streaming, streaming9 = "node_trades_streaming/20260430/8", "node_trades_streaming/20260430/9"
		line                  = "node_trades/20260430/8"
	)
	glued := torn(envelope(6, 0, 1)) + envelope(7, 0, 1)
	for name, c := range map[string]struct {
		deduplicate bool
		runs        []map[string]string // what is appended before each run of the parser
		want        string
	}{
		"no markers": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 3) + envelope(6, 0, 0) + envelope(7, 0, 1)}},
			want: events(5, 0, 3) + events(7, 0, 1),
		},
		"a gap": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 3) + envelope(6, 0, 1) + envelope(9, 0, 2) + envelope(10, 0, 1)}},
			want: events(5, 0, 3) + events(6, 0, 1) + markerText("gap", 9, 7, 8) + events(9, 0, 2) + events(10, 0, 1),
		},
		"a gap between two runs of the parser": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 3)}, {byBlock: envelope(7, 0, 1)}},
			want: events(5, 0, 3) + markerText("gap", 7, 6, 6) + events(7, 0, 1),
		},
		"an idle block in streaming mode is no gap": {
			runs: []map[string]string{{streaming: envelope(5, 0, 3) + envelope(9, 0, 2)}},
			want: events(5, 0, 3) + events(9, 0, 2),
		},
		"a node that goes back": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 1) + envelope(6, 0, 1) + envelope(5, 0, 1) + envelope(6, 0, 1) +
				envelope(7, 0, 1)}},
			want: events(5, 0, 1) + events(6, 0, 1) + markerText("replay", 5, 0, 6) + events(5, 0, 1) + events(6, 0, 1) +
				events(7, 0, 1),
		},
		"a node that goes back by one": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 1) + envelope(5, 0, 1)}},
			want: events(5, 0, 1) + markerText("replay", 5, 0, 5) + events(5, 0, 1),
		},
		"more of a block in streaming mode is no replay": {
			runs: []map[string]string{{streaming: envelope(5, 0, 1) + envelope(5, 1, 2)},
				{streaming: envelope(5, 2, 3) + envelope(4, 0, 1)}},
			want: events(5, 0, 3) + markerText("replay", 4, 0, 5) + events(4, 0, 1),
		},
		"a replay across a restart of the parser is marked once": {
			runs: []map[string]string{{byBlock: envelope(5, 0, 1) + envelope(6, 0, 1) + envelope(7, 0, 1) + envelope(5, 0, 1)},
				{byBlock: envelope(6, 0, 1) + envelope(7, 0, 1)}},
			want: events(5, 0, 1) + events(6, 0, 1) + events(7, 0, 1) + markerText("replay", 5, 0, 7) + events(5, 0, 1) +
				events(6, 0, 1) + events(7, 0, 1),
		},
		"a late block, and skipped blocks": {
			deduplicate: true,
			runs: []map[string]string{{byBlock: envelope(5, 0, 1) + envelope(7, 0, 1) + envelope(5, 0, 1) +
				envelope(6, 0, 1) + envelope(7, 0, 1) + envelope(8, 0, 1)}},
			want: events(5, 0, 1) + markerText("gap", 7, 6, 6) + events(7, 0, 1) + markerText("replay", 5, 0, 7) +
				markerText("late", 6, 0, 7) + events(6, 0, 1) + events(8, 0, 1),
		},
		"the last line is skipped, and its marker is not": {
			deduplicate: true,
			runs:        []map[string]string{{byBlock: envelope(5, 0, 1) + envelope(6, 0, 1) + envelope(5, 0, 1)}},
			want:        events(5, 0, 1) + events(6, 0, 1) + markerText("replay", 5, 0, 6),
		},
		"two blocks in one bad line, followed by the valid lines": {
			deduplicate: true,
			runs: []map[string]string{
				{byBlock: envelope(5, 0, 1) + glued + envelope(8, 0, 1)},
				{byBlock: envelope(6, 0, 1) + envelope(7, 0, 1) + envelope(8, 0, 1) + envelope(9, 0, 1)},
			},
			want: events(5, 0, 1) + unreadable(glued) + markerText("gap", 8, 6, 7) + events(8, 0, 1) +
				markerText("late", 6, 0, 8) + events(6, 0, 1) +
				markerText("late", 7, 0, 8) + events(7, 0, 1) + events(9, 0, 1),
		},
		"a torn line joined to the first line that is written again": {
			deduplicate: true,
			runs:        []map[string]string{{byBlock: envelope(5, 0, 1) + glued + envelope(6, 0, 1) + envelope(7, 0, 1)}},
			want:        events(5, 0, 1) + unreadable(glued) + events(6, 0, 1) + events(7, 0, 1),
		},
		"a malformed event followed by its valid copy": {
			deduplicate: true,
			runs: []map[string]string{
				{byBlock: malformed(envelope(5, 0, 3), 5)}, {byBlock: malformed(envelope(5, 0, 3), 5) + envelope(6, 0, 1) +
					envelope(5, 0, 3)},
			},
			want: events(5, 0, 1) + deadEventText(5, 1) + events(5, 2, 3) + markerText("replay", 5, 0, 5) + events(6, 0, 1) +
				markerText("late", 5, 0, 6) + events(5, 1, 2),
		},
		"a malformed event, without deduplication": {
			runs: []map[string]string{{byBlock: malformed(envelope(5, 0, 3), 5) + envelope(6, 0, 1)}},
			want: events(5, 0, 1) + deadEventText(5, 1) + events(5, 2, 3) + events(6, 0, 1),
		},
		"malformed lines in streaming mode that are written again": {
			deduplicate: true,
			runs: []map[string]string{{streaming: envelope(5, 0, 1) + malformed(envelope(5, 1, 2), 5) + glued +
				envelope(7, 1, 2) +
				envelope(5, 0, 1) + envelope(5, 1, 2) + envelope(6, 0, 1) + envelope(7, 0, 1) + envelope(7, 1, 2) +
				envelope(8, 0, 1)}},
			want: events(5, 0, 1) + deadEventText(5, 1) + unreadable(glued) + events(7, 1, 2) + markerText("replay", 5, 0, 7) +
				markerText("late", 5, 0, 7) + events(5, 1, 2) + markerText("late", 6, 0, 7) + events(6, 0, 1) +
				markerText("late", 7, 0, 7) + events(7, 0, 1) + events(8, 0, 1),
		},
		"a late line of an older block": {
			deduplicate: true,
			runs: []map[string]string{{streaming: envelope(5, 0, 1) + envelope(6, 0, 1) + envelope(5, 1, 2) +
				envelope(6, 1, 2) + envelope(7, 0, 1)}},
			want: events(5, 0, 1) + events(6, 0, 1) + markerText("late", 5, 0, 6) + events(5, 1, 2) + events(6, 1, 2) +
				events(7, 0, 1),
		},
		"late lines of the previous hour": {
			runs: []map[string]string{
				{byBlock: envelope(5, 0, 1), byBlock9: envelope(7, 0, 1) + envelope(8, 0, 1)}, {byBlock: envelope(6, 0, 1)},
				{byBlock9: envelope(9, 0, 1)},
			},
			want: events(5, 0, 1) + markerText("gap", 7, 6, 6) + events(7, 0, 1) + events(8, 0, 1) +
				markerText("late", 6, 0, 8) + events(6, 0, 1) + events(9, 0, 1),
		},
		"late lines of the previous hour, in streaming mode": {
			runs: []map[string]string{
				{streaming: envelope(5, 0, 1), streaming9: envelope(7, 0, 1) + envelope(8, 0, 1)},
				{streaming: envelope(5, 1, 2) + envelope(6, 0, 1)}, {streaming9: envelope(8, 1, 2)},
			},
			want: events(5, 0, 1) + events(7, 0, 1) + events(8, 0, 1) + markerText("late", 5, 0, 8) + events(5, 1, 2) +
				markerText("late", 6, 0, 8) + events(6, 0, 1) + events(8, 1, 2),
		},
		"a blank line in line mode loses nothing": {
			runs: []map[string]string{{line: trades(0, 2) + "\n \n" + trades(2, 3)}},
			want: trades(0, 3),
		},
		"a blank line by block loses nothing, and markers keep their place": {
			deduplicate: true,
			runs:        []map[string]string{{byBlock: envelope(5, 0, 1) + "\n" + envelope(7, 0, 1) + "\n" + envelope(7, 0, 1)}},
			want:        events(5, 0, 1) + markerText("gap", 7, 6, 6) + events(7, 0, 1) + markerText("replay", 7, 0, 7),
		},
		"a blank line in streaming mode does not end a visit": {
			deduplicate: true,
			runs: []map[string]string{{streaming: envelope(5, 0, 1) + "\n" + envelope(5, 0, 1) + envelope(6, 0, 1)},
				{streaming: "\n" + envelope(6, 1, 2)}},
			want: events(5, 0, 1) + events(5, 0, 1) + events(6, 0, 2),
		},
		"a malformed line in line mode": {
			runs: []map[string]string{{line: trades(0, 2) + "{\n" + trades(2, 3)}},
			want: trades(0, 2) + unreadable("{\n") + trades(2, 3),
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Engine.Markers, b.cfg.Engine.DeduplicateBlocks = true, c.deduplicate
			out := &ledger{}
			for _, run := range c.runs {
				for file, text := range run {
					b.node(file, text)
				}
				if err := b.once(out); err != nil {
					t.Fatal(err)
				}
			}
			b.assertRecords(varies.ReplaceAllString(string(out.data), `"$1":""`), c.want)
		})
	}
}

func TestAMarkerPrecedesItsLineAtItsOwnPosition(t *testing.T) {
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
	want := []string{"Trades 0:0", "Trades 0:1", fmt.Sprintf("_marker %d:-1", at), fmt.Sprintf("Trades %d:0", at),
		fmt.Sprintf("Trades %d:1", at)}
	if !slices.Equal(positions, want) {
		t.Errorf("the positions of the records are %q; want %q", positions, want)
	}
}

func TestALineThatIsTooLongIsMarkedInItsPlace(t *testing.T) {
	for title, c := range map[string]struct {
		before        string
		longest, huge int
	}{
		"between two lines": {trade(1) + "\n", 1 << 10, 1 << 20}, "first of all": {"", 1 << 10, 1 << 20},
		"first of a file without a name yet": {"", 200, 300}, // the marker is written with the lines that follow
	} {
		before := c.before
		t.Run(title, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Engine.Markers = true
			huge := strings.Repeat("h", c.huge) + "\n"
			b.node("node_trades/20260430/8", before+huge+trades(2, 7))
			b.cfg.Once = true
			e := b.engine(nil)
			e.cfg.Engine.MaxLineBytes = config.Bytes(c.longest)
			limitOutputs(e, 1) // what follows in the block is in outputs of its own
			if err := e.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf(`{"target":"node-1","stream":"_marker","pos":"","kind":"skipped","about":"Trades","block":null,`+
				`"index":null,"from":null,"to":null,`+
				`"bytes":%d,"file":"node_trades/hourly/20260430/8","reason":"a line longer than maxLineBytes"}`+"\n", len(huge))
			b.assertRecords(anyPosition.ReplaceAllString(b.delivered("trades"), `"pos":""`), before+want+trades(2, 7))
			if err := b.once(nil); err != nil {
				t.Fatal(err)
			}
			b.assertRecords(anyPosition.ReplaceAllString(b.delivered("trades"), `"pos":""`), before+want+trades(2, 7))
		})
	}
}

// A destination drops what has the position of a record that it holds.
func TestNoTwoMarkersShareAPosition(t *testing.T) {
	huge := strings.Repeat("h", 1<<11) + "\n"
	for name, text := range map[string]string{
		"skipped, replay":                         envelope(5, 0, 1) + huge + envelope(5, 0, 1),
		"skipped, gap":                            envelope(5, 0, 1) + huge + envelope(9, 0, 1),
		"skipped, line in the dead letter":        envelope(5, 0, 1) + huge + "[not a block]\n",
		"two skipped lines, replay":               envelope(5, 0, 1) + huge + huge + envelope(5, 0, 1),
		"skipped, gap, skipped at another offset": envelope(5, 0, 1) + huge + envelope(9, 0, 1) + huge + envelope(20, 0, 1),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Engine.Markers, b.cfg.Once, b.cfg.Format = true, true, config.Enveloped
			b.node("node_trades_by_block/20260430/8", text)
			e := b.engine(nil)
			e.cfg.Engine.MaxLineBytes = 1 << 10
			if err := e.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			kinds := map[string]string{}
			for line := range strings.Lines(b.delivered("trades")) {
				var record struct{ Pos, Kind string }
				if err := json.Unmarshal([]byte(line), &record); err != nil {
					t.Fatal(err)
				}
				if other, ok := kinds[record.Pos]; ok {
					t.Errorf("%q and %q both have the position %s", other, record.Kind, record.Pos)
				}
				kinds[record.Pos] = record.Kind
			}
			if skips := slices.Collect(maps.Values(kinds)); !slices.Contains(skips, skippedMarker) {
				t.Errorf("no line was skipped: %q", skips)
			}
		})
	}
}

// A record is copied to follow its marker. Copying long or many records would double their memory.
func TestLargeBatchesAreNotCopiedForAMarker(t *testing.T) {
	var lines strings.Builder
	for block, length := range []int{maxCopied / 2, maxCopied / 2, 3, 2 * maxCopied} {
		lines.WriteString(strings.Replace(envelope(9+2*block, 0, 1), "BTC", strings.Repeat("B", length), 1))
	}
	for block := 100; block < 4100; block += 2 {
		lines.WriteString(envelope(block, 0, 1))
	}
	for block := 5000; block < 9000; block += 2 {
		lines.WriteString(envelope(block, 0, 0)) // markers alone
	}
	b := newBench(t)
	b.cfg.Engine.Markers, b.cfg.Once = true, true
	b.node("node_trades_by_block/20260430/8", envelope(5, 0, 1)+lines.String())
	markers, records := 0, 0
	out := &memory{fail: func(_ int, batch sink.Batch) error {
		n := bytes.Count(batch.Data, []byte(markerStream))
		markers, records = markers+n, records+len(batch.Records)-n
		if n > 0 && len(batch.Data) > maxCopied {
			t.Errorf("%d markers are copied in a batch of %d bytes", n, len(batch.Data))
		}
		return nil
	}}
	e := b.engine(out)
	limitOutputs(e, maxOutput)
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if markers != 4004 || records != 2005 {
		t.Errorf("%d markers and %d records", markers, records)
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
	for _, kind := range []string{gapMarker, replayMarker, lateMarker, skippedMarker, deadLetterMarker} {
		if !slices.Contains(schema.Properties["kind"].Enum, kind) {
			t.Errorf("the schema does not list kind %q", kind)
		}
		m := marker{kind: kind}
		line, err := m.text("node-1", config.Fills, position.FileID{})
		if err != nil {
			t.Fatal(err)
		}
		var record map[string]any
		if err := json.Unmarshal(line, &record); err != nil {
			t.Fatal(err)
		}
		if len(record) != len(schema.Required) || len(record) != len(schema.Properties) {
			t.Errorf("a marker has %d fields; the schema has %d and requires %d", len(record), len(schema.Properties),
				len(schema.Required))
		}
		for _, field := range schema.Required {
			if _, there := record[field]; !there {
				t.Errorf("a marker of kind %s lacks %s", kind, field)
			}
		}
	}
}
