package position_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

func TestPositionsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := position.Position{
			File: position.FileID{
				Directory:  rapid.StringMatching(`[a-z0-9_]{1,30}`).Draw(t, "directory"),
				Date:       rapid.StringMatching(`[0-9]{8}`).Draw(t, "date"),
				Hour:       rapid.IntRange(0, 23).Draw(t, "hour"),
				Generation: rapid.StringMatching(`([0-9a-f]{8})?`).Draw(t, "generation"),
			},
			Offset: rapid.Int64Min(0).Draw(t, "offset"),
			Index:  rapid.IntMin(0).Draw(t, "index"),
		}
		got, err := position.Parse(p.String())
		if err != nil || got != p {
			t.Fatalf("%s parses as %s, %v", p, got, err)
		}
	})
}

func TestPositionsHaveTheDocumentedFormat(t *testing.T) {
	p := position.Position{
		File:   position.FileID{Directory: "node_fills_by_block", Date: "20260430", Hour: 8, Generation: "1a2b3c4d"},
		Offset: 123, Index: 4,
	}
	if got, want := p.String(), "node_fills_by_block/20260430/8@1a2b3c4d:123:4"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseRefusesInvalidText(t *testing.T) {
	for _, s := range []string{
		"", "x", "node_fills/20260430/8@1a2b3c4d", "node_fills/20260430/8@1a2b3c4d:1", "node_fills/20260430/8@1a2b3c4d:x:0",
		"node_fills/20260430/8@1a2b3c4d:1:x", "node_fills/20260430/8@1a2b3c4d:-1:0", "node_fills/20260430/8@1a2b3c4d:1:-1",
		"node_fills/20260430/24@1a2b3c4d:1:0", "node_fills/20260430/x@1a2b3c4d:1:0", "node_fills/2026043/8@1a2b3c4d:1:0",
		"node_fills/20260430/8@1A2B3C4D:1:0", "node_fills/20260430/8:1:0", "/20260430/8@1a2b3c4d:1:0",
		"node-fills/20260430/8@1a2b3c4d:1:0",
	} {
		if p, err := position.Parse(s); err == nil {
			t.Errorf("%q parses as %s, want an error", s, p)
		}
	}
}
