package kafka_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/kafka"
)

const (
	benchRecords = 10_000 // in a batch and in a transaction
	benchBytes   = 300    // approximate size of a record
)

// benchBatch returns a full transaction of records as large as order statuses, over 50 coins.
func benchBatch() sink.Batch {
	b := sink.Batch{File: position.FileID{
		Directory: "node_order_statuses_by_block", Date: "20260430", Hour: 8, Generation: "1a2b3c4d",
	}}
	for i := range benchRecords {
		start := len(b.Data)
		b.Data = fmt.Appendf(b.Data, `{"time":"2026-04-30T20:46:43.%09d","user":"0x%040x","status":"open",`+
			`"order":{"coin":"C%d","side":"A","limitPx":"%d.0","sz":"0.0686","oid":%d`, i*7919, i*104729, i%50, 76000+i%997,
			1777582003304+i)
		for len(b.Data)-start < benchBytes-3 {
			b.Data = fmt.Appendf(b.Data, `,"f%d":null`, len(b.Data)%10)
		}
		b.Data = append(b.Data, "}}\n"...)
		b.Records = append(b.Records, sink.Record{
			End: len(b.Data), Offset: int64(i/20) * 6000, Index: int32(i % 20), Block: int64(i / 20),
			Coin: fmt.Sprintf("C%d", i%50),
		})
	}
	return b
}

// later moves a batch forward, to the next lines of the file.
func later(b sink.Batch) {
	for i := range b.Records {
		b.Records[i].Offset += benchRecords * benchBytes
		b.Records[i].Block += benchRecords / 20
	}
}

// BenchmarkSink compares this sink with a bare client that produces the same values, keys and headers, in transactions
// of 10,000 records and without. The result is records/s. The cluster is kfake in this process, which discards the
// records.
func BenchmarkSink(b *testing.B) {
	for _, compression := range []config.KafkaCompression{config.KafkaNone, config.KafkaZstd} {
		for _, delivery := range []config.Delivery{config.ExactlyOnce, config.AtLeastOnce} {
			name := fmt.Sprintf("%s/%s/", delivery, compression)
			b.Run(name+"sink", func(b *testing.B) { benchmark(b, delivery, compression, (*benchCluster).sink) })
			b.Run(name+"bare", func(b *testing.B) { benchmark(b, delivery, compression, (*benchCluster).bare) })
			b.Run(name+"bare without headers", func(b *testing.B) {
				benchmark(b, delivery, compression, (*benchCluster).bareValues)
			})
		}
	}
}

type benchCluster struct {
	b        *testing.B
	settings *config.KafkaSink
}

func benchmark(b *testing.B, delivery config.Delivery, compression config.KafkaCompression, run func(*benchCluster)) {
	b.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BlackholeProduce(),
		kfake.SeedTopics(4, "hl.order-statuses"), kfake.SeedTopics(1, "positions"))
	if err != nil {
		b.Fatal(err)
	}
	defer fake.Close()
	b.ReportAllocs()
	before := processorTime(b)
	run(&benchCluster{b, &config.KafkaSink{
		Brokers: fake.ListenAddrs(), Topic: "hl.{stream}", Key: "{coin}", Delivery: delivery, PositionsTopic: "positions",
		Compression: compression, MaxMessageBytes: config.DefaultMaxMessageBytes,
	}})
	records := float64(b.N) * benchRecords
	b.ReportMetric(records/b.Elapsed().Seconds(), "records/s")
	// The processor time of client and cluster together is comparable on a busy machine, too.
	b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/records, "cpu-ns/record")
}

// processorTime returns the processor time that the process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (c *benchCluster) sink() {
	out := kafka.New(kafka.Options{Config: c.settings, Writer: "bench", Target: "node-1"})
	s, err := out.Open(c.b.Context(), "order-statuses", nil)
	if err != nil {
		c.b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	batch := benchBatch()
	for c.b.Loop() {
		later(batch)
		if err := s.Write(c.b.Context(), batch); err != nil {
			c.b.Fatal(err)
		}
	}
}

func (c *benchCluster) bare() { c.produce(true) }

func (c *benchCluster) bareValues() { c.produce(false) }

// produce is the minimum for any program: prepared records and a flush.
func (c *benchCluster) produce(headers bool) {
	codec := kgo.NoCompression()
	if c.settings.Compression == config.KafkaZstd {
		codec = kgo.ZstdCompression()
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.settings.Brokers...), kgo.ProducerBatchCompression(codec),
		kgo.ProducerBatchMaxBytes(int32(c.settings.MaxMessageBytes)), kgo.ProducerLinger(time.Second),
		kgo.MaxBufferedRecords(2 * benchRecords), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
	}
	transactions := c.settings.Delivery == config.ExactlyOnce
	if transactions {
		opts = append(opts, kgo.TransactionalID("bare"))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		c.b.Fatal(err)
	}
	defer client.Close()
	batch := benchBatch()
	records := make([]kgo.Record, 0, len(batch.Records))
	for i, r := range batch.Records {
		value := batch.Record(i)
		record := kgo.Record{Topic: "hl.order-statuses", Key: []byte(r.Coin), Value: value[:len(value)-1]}
		if headers {
			record.Headers = []kgo.RecordHeader{
				{Key: kafka.HeaderTarget, Value: []byte("node-1")}, {Key: kafka.HeaderStream, Value: []byte("order-statuses")},
				{Key: kafka.HeaderBlock, Value: fmt.Append(nil, r.Block)},
				{Key: kafka.HeaderIndex, Value: fmt.Append(nil, r.Index)},
				{Key: kafka.HeaderPosition, Value: []byte(batch.Position(i).String())},
			}
		}
		records = append(records, record)
	}
	ctx := context.Background()
	for c.b.Loop() {
		if transactions {
			if err := client.BeginTransaction(); err != nil {
				c.b.Fatal(err)
			}
		}
		for i := range records {
			client.Produce(ctx, &records[i], func(_ *kgo.Record, err error) {
				if err != nil {
					c.b.Error(err)
				}
			})
		}
		if err := client.Flush(ctx); err != nil {
			c.b.Fatal(err)
		}
		if transactions {
			if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
				c.b.Fatal(err)
			}
		}
	}
}
