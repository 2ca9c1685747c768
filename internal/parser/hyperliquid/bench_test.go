package hyperliquid

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/valyala/fastjson"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// sampleEvents returns n order statuses with the fields and the proportions of a mainnet node's: 95 % rejected, one in
// eight for BTC.
func sampleEvents(n int) []string {
	r := rand.New(rand.NewPCG(1, 2))
	coins := []string{"BTC", "ETH", "HYPE", "SOL", "kPEPE", "@107", "xyz:SP500", "PENGU"}
	events := make([]string, n)
	for i := range events {
		status, hash, builder, tif := "badAloPxRejected", "null", "null", `"Alo"`
		switch r.IntN(40) {
		case 0:
			status, hash = "open", fmt.Sprintf(`"0x%064x"`, r.Uint64())
			builder = `{"b":"0xb84168cf3be63c6b8dad05ff5d755e97432ff80b","f":50}`
		case 1:
			status, tif = "canceled", "null"
		}
		size := fmt.Sprintf("%d.%d", r.IntN(100), r.IntN(10000))
		events[i] = fmt.Sprintf(`{"time":"2026-04-30T20:46:43.%09d","user":"0x%040x","hash":%s,"builder":%s,"status":"%s",`+
			`"order":{"coin":"%s","side":"%c",`+
			`"limitPx":"%d.0","sz":"%s","oid":%d,"timestamp":1777582003304,"triggerCondition":"N/A","isTrigger":false,`+
			`"triggerPx":"0.0",`+
			`"children":[],"isPositionTpsl":false,"reduceOnly":false,"orderType":"Limit","origSz":"%s","tif":%s,`+
			`"cloid":"0x%032x"}}`,
			r.IntN(1e9), r.Uint64(), hash, builder, status, coins[r.IntN(len(coins))], "AB"[r.IntN(2)],
			60000+r.IntN(30000), size, 405401002864+i, size, tif, r.Uint64())
	}
	return events
}

// frame writes events as lines of a mode, with perBlock events per block.
func frame(mode config.Mode, events []string, perBlock int) []byte {
	var b bytes.Buffer
	for i := 0; len(events) > 0; i++ {
		n := min(perBlock, len(events))
		if mode == config.Line {
			n = 1
			b.WriteString(events[0])
		} else {
			fmt.Fprintf(&b, `{"local_time":"2026-04-30T20:46:46.266580134","block_time":"2026-04-30T20:46:43.304461819",`+
				`"block_number":%d,"events":[%s]}`,
				978995377+i, strings.Join(events[:n], ","))
		}
		b.WriteByte('\n')
		events = events[n:]
	}
	return b.Bytes()
}

func BenchmarkEncode(b *testing.B) {
	events := sampleEvents(20000)
	oneCoin := config.Filter{Coins: []string{"BTC"}}
	for _, framing := range []struct {
		name     string
		mode     config.Mode
		perBlock int
	}{
		{"line", config.Line, 1}, {"streaming", config.Streaming, 1}, {"by-block", config.ByBlock, 1000},
	} {
		data := frame(framing.mode, events, framing.perBlock)
		for _, c := range []struct {
			name   string
			filter config.Filter
			format config.Format
		}{
			{"one-coin/raw", oneCoin, config.Raw},
			{"one-coin/enveloped", oneCoin, config.Enveloped},
			{"user-and-status/raw", config.Filter{Users: []string{"0x" + strings.Repeat("a", 40)},
				Statuses: []string{"open", "filled"}}, config.Raw},
			{"notional/raw", config.Filter{MinNotional: "1000000"}, config.Raw},
			{"all/raw", config.Filter{}, config.Raw},
			{"all/enveloped", config.Filter{}, config.Enveloped},
			{"all/normalized", config.Filter{}, config.Normalized},
		} {
			b.Run(framing.name+"/"+c.name, func(b *testing.B) {
				e, err := NewEncoder(config.OrderStatuses, framing.mode, c.filter, c.format, "node-1", false)
				if err != nil {
					b.Fatal(err)
				}
				benchmarkSpan(b, e, data)
			})
		}
	}
	// An order of keys that no node writes: the cost if the node's layout changes.
	swapped := make([]string, len(events))
	for i, e := range events {
		swapped[i] = strings.Replace(e, `{"time":`, `{"version":1,"time":`, 1)
	}
	for _, c := range []struct {
		name   string
		filter config.Filter
		format config.Format
	}{{"one-coin/raw", oneCoin, config.Raw}, {"all/raw", config.Filter{}, config.Raw},
		{"all/normalized", config.Filter{}, config.Normalized}} {
		b.Run("line-of-unknown-layout/"+c.name, func(b *testing.B) {
			e, err := NewEncoder(config.OrderStatuses, config.Line, c.filter, c.format, "node-1", false)
			if err != nil {
				b.Fatal(err)
			}
			benchmarkSpan(b, e, frame(config.Line, swapped, 1))
		})
	}
}

func benchmarkSpan(b *testing.B, e *Encoder, data []byte) {
	w := e.NewWorker()
	var out Output
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		w.Encode(&out, Span{Data: data}, "node_order_statuses/20260430/20@1a2b3c4d")
	}
	if len(out.Bad) > 0 {
		b.Fatalf("malformed: %s", out.Bad[0].Bytes)
	}
}

// BenchmarkPeers measures simpler tasks of other parsers: a bare parse, or validating that a line is JSON.
func BenchmarkPeers(b *testing.B) {
	data := frame(config.Line, sampleEvents(20000), 1)
	for _, peer := range []struct {
		name string
		line func([]byte) bool
	}{
		{"fastjson-parse", func() func([]byte) bool {
			var p fastjson.Parser
			return func(line []byte) bool { _, err := p.ParseBytes(line); return err == nil }
		}()},
		{"encoding/json-valid", json.Valid},
		{"fastjson-validate", func(line []byte) bool { return fastjson.ValidateBytes(line) == nil }},
		{"own-value", func(line []byte) bool { return scanValue(line, 0, 0) == len(line) }},
		{"byte-search", func(line []byte) bool { bytes.Index(line, []byte(`"BTC"`)); return true }},
		{"split", func([]byte) bool { return true }},
	} {
		b.Run(peer.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				for rest := data; len(rest) > 0; {
					n := bytes.IndexByte(rest, '\n')
					if !peer.line(rest[:n]) {
						b.Fatalf("refused: %s", rest[:n])
					}
					rest = rest[n+1:]
				}
			}
		})
	}
}

// BenchmarkNormalized measures the Normalized output of all events of a stream, next to a bare parse of the same lines.
func BenchmarkNormalized(b *testing.B) {
	for _, c := range []struct {
		stream config.Stream
		events []string
	}{
		{config.OrderStatuses, sampleEvents(20000)},
		{config.Fills, []string{fill, liquidation}},
		{config.Trades, []string{trade}},
		{config.RawBookDiffs, []string{newDiff, updateDiff, removeDiff}},
		{config.TwapStatuses, []string{twapFinished}},
		{config.MiscEvents, []string{misc, ledger, delegation, withdrawal}},
		{config.OracleUpdates, []string{oracle}},
		{config.SystemActions, []string{action}},
	} {
		stream := c.stream
		var many []string
		for len(many) < 20000 {
			many = append(many, c.events...)
		}
		data := frame(config.Line, many, 1)
		b.Run(stream.Kebab(), func(b *testing.B) {
			e, err := NewEncoder(stream, config.Line, config.Filter{}, config.Normalized, "node-1", false)
			if err != nil {
				b.Fatal(err)
			}
			benchmarkSpan(b, e, data)
		})
		b.Run(stream.Kebab()+"/fastjson-parse", func(b *testing.B) {
			var p fastjson.Parser
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				for line := range bytes.Lines(data) {
					if _, err := p.ParseBytes(line); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkFunding measures the rows of one event of 20 MB, in outputs of 4 MiB.
func BenchmarkFunding(b *testing.B) {
	data := lines(block(bigFunding(150_000)))
	for _, format := range []config.Format{config.Normalized, config.EnvelopedRows, config.Enveloped} {
		b.Run(string(format), func(b *testing.B) {
			e, err := NewEncoder(config.MiscEvents, config.ByBlock, config.Filter{}, format, "node-1", false)
			if err != nil {
				b.Fatal(err)
			}
			w, out := e.NewWorker(), Output{Limit: 4 << 20}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				for rest := (Span{Data: data}); rest.Len() > 0; {
					out.Reset()
					rest = w.Encode(&out, rest, "misc_events_by_block/20260430/20@1a2b3c4d")
				}
			}
		})
	}
}

func BenchmarkCut(b *testing.B) {
	events := sampleEvents(20000)
	for _, c := range []struct {
		name     string
		perBlock int
	}{{"lines", 1000}, {"one-long-line", len(events)}} {
		b.Run(c.name, func(b *testing.B) {
			data := frame(config.ByBlock, events, c.perBlock)
			e, err := NewEncoder(config.OrderStatuses, config.ByBlock, config.Filter{}, config.Raw, "node-1", false)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			var spans []Span
			for b.Loop() {
				spans = e.Cut(spans[:0], data, 0, 4)
			}
			if len(spans) != 4 {
				b.Fatalf("%d spans", len(spans))
			}
		})
	}
}
