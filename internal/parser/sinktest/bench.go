package sinktest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

const (
	benchRecords = 1_000_000
	benchBatch   = 256 << 10 // bytes; the engine's batch size
	benchKept    = 64        // number of distinct batches, written round-robin
)

// Benchmark delivers a million records of about 400 bytes per iteration, in batches and with commits like the engine's.
// It reports records and bytes per second, including the last commit.
func Benchmark(b *testing.B, target Target) {
	output, err := target.Open()
	if err != nil {
		b.Fatalf("opening the output: %v", err)
	}
	defer func() { _ = output.Close() }()
	s, err := output.Open(b.Context(), "fills", nil)
	if err != nil {
		b.Fatalf("opening the sink: %v", err)
	}
	defer func() { _ = s.Close() }()
	d := driver{b: b, sink: s, batches: benchBatches()}
	d.commit()
	records := 0
	for b.Loop() {
		for end := records + benchRecords; records < end; {
			records += d.write(end - records)
		}
		d.commit()
	}
	b.SetBytes(d.bytes / int64(b.N))
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
}

// driver takes the engine's part in a benchmark.
type driver struct {
	b       *testing.B
	sink    sink.Sink
	batches []sink.Batch
	turn    int
	line    int64
	bytes   int64
	at      time.Time // time of the last commit
}

// write writes the next batch, of at most n records, and returns its number of records.
func (d *driver) write(n int) int {
	batch := d.batches[d.turn%len(d.batches)]
	d.turn++
	if n < len(batch.Records) {
		batch = batch.Slice(0, n)
	}
	for i := range batch.Records {
		batch.Records[i].Offset, batch.Records[i].Block = d.line*400, d.line
		d.line++
	}
	if err := d.sink.Write(d.b.Context(), batch); err != nil {
		d.b.Fatalf("writing: %v", err)
	}
	d.bytes += int64(len(batch.Data))
	if time.Since(d.at) > time.Second/2 {
		d.commit()
	}
	return len(batch.Records)
}

func (d *driver) commit() {
	if _, err := Flush(d.b.Context(), d.sink, false); err != nil {
		d.b.Fatalf("flushing: %v", err)
	}
	if err := d.sink.Committed(d.b.Context()); err != nil {
		d.b.Fatalf("completing the commit: %v", err)
	}
	d.at = time.Now()
}

// benchBatches returns batches of synthetic fills with realistic variation, so that they compress as real fills do.
func benchBatches() []sink.Batch {
	r := rand.New(rand.NewPCG(1, 2))
	coins := []string{"SOL", "HYPE", "DOGE", "@107", "PURR/USDC"}
	batches := make([]sink.Batch, benchKept)
	for i := range batches {
		b := sink.Batch{File: hour(8)}
		for len(b.Data) < benchBatch {
			coin := coins[r.IntN(len(coins))]
			b.Data = fmt.Appendf(b.Data, `["0x%016x%016x%08x",{"coin":%q,"px":"%d.%d","sz":"%d.%04d","side":"B","time":%d,`+
				`"startPosition":"%d.%d","dir":"Open Long","closedPnl":"0.0","hash":"0x%016x%016x%016x%016x","oid":%d,`+
				`"crossed":true,"fee":"0.%06d","tid":%d,"feeToken":"USDC","cloid":"0x%016x%016x","twapId":null}]`+"\n",
				r.Uint64(), r.Uint64(), r.Uint32(), coin, r.IntN(100_000), r.IntN(10), r.IntN(100), r.IntN(10_000),
				1777582003304+r.Int64N(1e6), r.IntN(1000), r.IntN(10), r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64(),
				r.Int64N(1e12), r.IntN(1e6), r.Int64N(1e15), r.Uint64(), r.Uint64())
			b.Records = append(b.Records, sink.Record{End: len(b.Data), Coin: coin})
		}
		batches[i] = b
	}
	return batches
}
