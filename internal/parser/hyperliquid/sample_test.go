package hyperliquid

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// TestRealNodeOutput compares the encoder with encoding/json on the output of a real node, if there is any. The
// environment variable HLPARSER_SAMPLE_DATA names its data directory.
func TestRealNodeOutput(t *testing.T) {
	root := os.Getenv("HLPARSER_SAMPLE_DATA")
	if root == "" {
		t.Skip("HLPARSER_SAMPLE_DATA is not set: no real node output to compare with")
	}
	found := 0
	for _, stream := range config.Streams() {
		for _, mode := range modes {
			files, err := filepath.Glob(filepath.Join(root, Directory(stream, mode), "hourly", "*", "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				found++
				t.Run(fmt.Sprint(stream, mode), func(t *testing.T) {
					data, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					compareReal(t, stream, mode, data)
				})
			}
		}
	}
	if found == 0 {
		t.Errorf("no files of any stream below %s", root)
	}
}

func compareReal(t *testing.T, stream config.Stream, mode config.Mode, data []byte) {
	type envelope struct {
		Block     int64             `json:"block_number"`
		BlockTime string            `json:"block_time"`
		LocalTime string            `json:"local_time"`
		Events    []json.RawMessage `json:"events"`
	}
	var raw []byte
	var enveloped []string
	block, index := int64(0), 0 // in streaming mode a block has several lines
	for offset, rest := 0, data; len(rest) > 0; {
		line, next, _ := bytes.Cut(rest, []byte("\n"))
		if mode == config.Line {
			raw = append(append(raw, line...), '\n')
			enveloped = append(enveloped, fmt.Sprintf(`%d:0 <nil> <nil> <nil> <nil> %s`, offset, line))
		} else {
			var e envelope
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatal(err)
			}
			if mode == config.ByBlock || e.Block != block {
				block, index = e.Block, 0
			}
			for i, event := range e.Events {
				raw = append(append(raw, event...), '\n')
				enveloped = append(enveloped, fmt.Sprintf(`%d:%d %d %d %s %s %s`, offset, i, e.Block, index, e.BlockTime,
					e.LocalTime, event))
				index++
			}
		}
		offset += len(rest) - len(next)
		rest = next
	}

	out := encode(t, setting{stream, mode, config.Filter{}, config.Raw}, data)
	if !bytes.Equal(out.Data, raw) || len(out.Bad) > 0 {
		t.Errorf("raw records differ from the file's events; %d malformed", len(out.Bad))
	}
	if got, want := out.Lines, int64(bytes.Count(data, []byte("\n"))); got != want {
		t.Errorf("%d lines, want %d", got, want)
	}

	out = encode(t, setting{stream, mode, config.Filter{}, config.Enveloped}, data)
	if int(out.Delivered) != len(enveloped) {
		t.Fatalf("%d records, want %d", out.Delivered, len(enveloped))
	}
	from := 0
	for i, r := range out.Records {
		var record struct {
			Target, Stream, Pos  string
			Block, Index         any
			BlockTime, LocalTime any
			Event                json.RawMessage
		}
		dec := json.NewDecoder(bytes.NewReader(out.Data[from:r.End]))
		dec.UseNumber()
		if err := dec.Decode(&record); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%s %s %v %v %v %v %s", record.Target+record.Stream, record.Pos, record.Block, record.Index,
			record.BlockTime, record.LocalTime, record.Event)
		if want := fmt.Sprintf("%s %s:%s", testTarget+string(stream), testFile, enveloped[i]); got != want {
			t.Fatalf("record %d:\n%s\nwant\n%s", i, got, want)
		}
		from = r.End
	}
	for format, schema := range map[config.Format]*schema{
		config.Raw: nil, config.Enveloped: readSchema(t, "enveloped"),
		config.EnvelopedRows: readSchema(t, "enveloped-rows"), config.Normalized: schemaOf(t, stream),
	} {
		s := setting{stream, mode, config.Filter{}, format}
		out = encode(t, s, data)
		if int(out.Events) != len(enveloped) || len(out.Bad) > 0 {
			t.Errorf("%s: %d of %d events; %d malformed", format, out.Events, len(enveloped), len(out.Bad))
		}
		for line := range bytes.Lines(out.Data) {
			if schema == nil {
				break
			}
			if err := schema.validate(line); err != nil {
				t.Fatalf("%s: %v: %s", format, err, line)
			}
		}
		s.check(t, data, 3)
	}
	some := config.Filter{Coins: []string{"BTC", "@107", "xyz:*"}, ExcludeStatuses: []string{"badAloPxRejected"},
		Sides: []string{"B"}, MinNotional: "1000"}
	if i := bytes.LastIndexByte(data[:min(len(data), 1<<19)], '\n'); i >= 0 { // the reference is slow
		setting{stream, mode, some, config.Raw}.check(t, data[:i+1], 2, 5)
	}
}

// BenchmarkRealBlocks encodes a real node's blocks of order statuses.
func BenchmarkRealBlocks(b *testing.B) {
	root := os.Getenv("HLPARSER_SAMPLE_DATA")
	files, _ := filepath.Glob(filepath.Join(root, Directory(config.OrderStatuses, config.ByBlock), "hourly", "*", "*"))
	if root == "" || len(files) == 0 {
		b.Skip("HLPARSER_SAMPLE_DATA is not set to a directory with real node output")
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		b.Fatal(err)
	}
	for _, coin := range []string{"BTC", "ETH"} {
		b.Run(coin, func(b *testing.B) {
			benchmarkSpan(b, setting{config.OrderStatuses, config.ByBlock, config.Filter{Coins: []string{coin}},
				config.Raw}.encoder(b), data)
		})
	}
}
