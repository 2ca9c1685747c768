package sink_test

import (
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

func TestSlicesOfABatchAreBatches(t *testing.T) {
	b := sink.Batch{
		File: position.FileID{Directory: "node_fills", Date: "20260430", Hour: 8, Generation: "1a2b3c4d"},
		Data: []byte("a\nbb\nccc\ndddd\n"),
		Records: []sink.Record{
			{End: 2, Offset: 10}, {End: 5, Offset: 10, Index: 1}, {End: 9, Offset: 20}, {End: 14, Offset: 30},
		},
	}
	want := []string{"a\n", "bb\n", "ccc\n", "dddd\n"}
	for i := range b.Records {
		for j := i + 1; j <= len(b.Records); j++ {
			part := b.Slice(i, j)
			if len(part.Records) != j-i {
				t.Fatalf("Slice(%d, %d) has %d records", i, j, len(part.Records))
			}
			all := ""
			for k := range part.Records {
				all += want[i+k]
				if got := string(part.Record(k)); got != want[i+k] {
					t.Errorf("record %d of Slice(%d, %d) is %q, want %q", k, i, j, got, want[i+k])
				}
				if got := part.Position(k); got != b.Position(i+k) {
					t.Errorf("record %d of Slice(%d, %d) is at %s, want %s", k, i, j, got, b.Position(i+k))
				}
			}
			if string(part.Data) != all {
				t.Errorf("Slice(%d, %d) has the data %q, want %q", i, j, part.Data, all)
			}
		}
	}
	if b.Records[3].End != 14 {
		t.Error("Slice changed the batch")
	}
}
