package engine

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// indices returns the block and the index of each record.
func indices(t interface{ Fatal(...any) }, records string) (out []string) {
	for line := range strings.Lines(records) {
		var record struct {
			Block int64
			Index *int
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.Index == nil {
			t.Fatal(line, err)
		}
		out = append(out, fmt.Sprintf("%d/%d", record.Block, *record.Index))
	}
	return out
}

func TestTheIndexInStreamingModeCountsWithinTheBlock(t *testing.T) {
	const hour8, hour9 = "node_trades_streaming/20260430/8", "node_trades_streaming/20260430/9"
	for name, c := range map[string]struct {
		runs []map[string]string
		want string
	}{
		"one event a line": {
			runs: []map[string]string{{hour8: envelope(5, 0, 1) + envelope(5, 1, 2) + envelope(6, 0, 1) + envelope(6, 1, 2)}},
			want: "5/0 5/1 6/0 6/1",
		},
		"several events in a line, and none": {
			runs: []map[string]string{{hour8: envelope(5, 0, 2) + envelope(5, 0, 0) + envelope(5, 2, 5) + envelope(5, 5, 6)}},
			want: "5/0 5/1 5/2 5/3 5/4 5/5",
		},
		"an event in the dead letter has its index": {
			runs: []map[string]string{{hour8: envelope(5, 0, 1) + malformed(envelope(5, 1, 2), 5) + envelope(5, 2, 3)}},
			want: "5/0 5/2",
		},
		"a line in the dead letter has none": {
			runs: []map[string]string{{hour8: envelope(5, 0, 1) + "x\n" + envelope(5, 1, 2)}},
			want: "5/0 5/1",
		},
		"over a restart": {
			runs: []map[string]string{{hour8: envelope(5, 0, 1) + envelope(5, 1, 2)}, {hour8: envelope(5, 2, 3)},
				{hour8: envelope(5, 3, 4) + envelope(6, 0, 1)}},
			want: "5/0 5/1 5/2 5/3 6/0",
		},
		"over an hour": {
			runs: []map[string]string{{hour8: envelope(5, 0, 1) + envelope(5, 1, 2),
				hour9: envelope(5, 2, 3) + envelope(6, 0, 1)}},
			want: "5/0 5/1 5/2 6/0",
		},
		"late lines of an older file": {
			runs: []map[string]string{{hour8: envelope(4, 0, 1) + envelope(5, 0, 1), hour9: envelope(6, 0, 1)},
				{hour8: envelope(5, 1, 2)}, {hour9: envelope(6, 1, 2)}},
			want: "4/0 5/0 6/0 5/1 6/1",
		},
		"a node that goes back": {
			runs: []map[string]string{{hour8: envelope(5, 0, 1) + envelope(6, 0, 1) + envelope(5, 0, 1) + envelope(5, 1, 2)}},
			want: "5/0 6/0 5/0 5/1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Format = config.Enveloped
			for _, files := range c.runs {
				for _, file := range []string{hour8, hour9} {
					if files[file] != "" {
						b.node(file, files[file])
					}
				}
				if err := b.once(nil); err != nil {
					t.Fatal(err)
				}
			}
			if got := strings.Join(indices(t, b.delivered("trades")), " "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// The spans of a batch are encoded side by side, before it is known how many events precede each of them.
func TestTheIndexDoesNotDependOnHowABatchIsCut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var text strings.Builder
		want := make([]string, 0, 1000)
		block := 5
		for range rapid.IntRange(1, 30).Draw(rt, "blocks") {
			at := 0
			for range rapid.IntRange(1, 40).Draw(rt, "lines") {
				n := 1
				if rapid.IntRange(0, 15).Draw(rt, "unusual") == 0 {
					n = rapid.IntRange(0, 5).Draw(rt, "events")
				}
				text.WriteString(envelope(block, at, at+n))
				for range n {
					want = append(want, fmt.Sprintf("%d/%d", block, at))
					at++
				}
			}
			block++
		}
		b := newBench(t)
		b.cfg.Format, b.cfg.Engine.ParallelThreshold, b.cfg.Engine.Workers = config.Enveloped, 1, 4
		b.node("node_trades_streaming/20260430/8", text.String())
		b.cfg.Once = true
		e := b.engine(nil)
		limitOutputs(e, rapid.SampledFrom([]int{1, 3000, maxOutput}).Draw(rt, "limit"))
		if err := e.Run(t.Context()); err != nil {
			rt.Fatal(err)
		}
		if got := indices(rt, b.delivered("trades")); strings.Join(got, " ") != strings.Join(want, " ") {
			rt.Errorf("got %v\nwant %v", got, want)
		}
	})
}
