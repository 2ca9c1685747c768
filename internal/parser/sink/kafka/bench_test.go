package kafka_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hlparser/hyperliquid-parser-operator/hack/kafka/broker"
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

// benchModes are what the benchmarks measure.
func benchModes(b *testing.B, run func(b *testing.B, delivery config.Delivery, compression config.KafkaCompression)) {
	b.Helper()
	for _, compression := range []config.KafkaCompression{config.KafkaNone, config.KafkaZstd} {
		for _, delivery := range []config.Delivery{config.ExactlyOnce, config.AtLeastOnce} {
			b.Run(fmt.Sprintf("%s/%s", delivery, compression), func(b *testing.B) { run(b, delivery, compression) })
		}
	}
}

// benchSettings returns the settings of the sink and of the bare client.
func benchSettings(brokers []string, delivery config.Delivery, compression config.KafkaCompression) *config.KafkaSink {
	return &config.KafkaSink{
		Brokers: brokers, Topic: "hl.{stream}", Key: "{coin}", Delivery: delivery, PositionsTopic: "positions",
		Compression: compression, MaxMessageBytes: config.DefaultMaxMessageBytes,
	}
}

const (
	benchTopic = "hl.order-statuses" // the sink's
	bareTopic  = "bare"
	benchParts = 4
	benchTurn  = 10 // batches of one before the other's turn
)

// BenchmarkSink compares this sink with a bare client that produces the same values, keys and headers, in transactions
// of 10,000 records and without. The result is records/s. The cluster is kfake in this process, which discards the
// records.
func BenchmarkSink(b *testing.B) {
	benchModes(b, func(b *testing.B, delivery config.Delivery, compression config.KafkaCompression) {
		b.Run("sink", func(b *testing.B) { benchmark(b, delivery, compression, sinkWriter) })
		b.Run("bare", func(b *testing.B) { benchmark(b, delivery, compression, bareWriter(true)) })
		b.Run("bare without headers", func(b *testing.B) { benchmark(b, delivery, compression, bareWriter(false)) })
	})
}

// BenchmarkBrokers alternates between this sink and a bare client with the same settings, ten batches each, on one real
// broker. It reports the records/s of both, and their ratio.
func BenchmarkBrokers(b *testing.B) {
	if !realBrokers() {
		b.Skipf("needs Apache Kafka: set %s=1", brokersVariable)
	}
	c, err := broker.Start(b.Context(), broker.Options{Dir: b.TempDir(), HeapMiB: 1024})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addresses()...))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopics(b.Context(), benchParts, 1, nil, benchTopic, bareTopic); err != nil {
		b.Fatal(err)
	}
	benchModes(b, func(b *testing.B, delivery config.Delivery, compression config.KafkaCompression) {
		settings := benchSettings(c.Addresses(), delivery, compression)
		settings.Create = &config.KafkaCreate{Partitions: 1} // the topic of positions
		ours, theirs := sinkWriter(b, settings), bareWriter(true)(b, settings)
		for range 3 { // the broker compiles what it runs often
			turn(b, ours)
			turn(b, theirs)
		}
		var own, bare benchTurns
		for b.Loop() {
			own.add(turn(b, ours))
			bare.add(turn(b, theirs))
		}
		const records = benchTurn * benchRecords
		b.ReportMetric(records/median(own.elapsed).Seconds(), "records/s")
		b.ReportMetric(records/median(bare.elapsed).Seconds(), "bare-records/s")
		b.ReportMetric(median(bare.elapsed).Seconds()/median(own.elapsed).Seconds(), "ratio")
		// The processor time of the client, without the broker's.
		b.ReportMetric(float64(median(own.processor).Nanoseconds())/records, "cpu-ns/record")
		b.ReportMetric(float64(median(bare.processor).Nanoseconds())/records, "bare-cpu-ns/record")
	})
}

// benchTurns holds what each turn took. Medians are reported: one slow moment of the machine does not decide.
type benchTurns struct {
	elapsed, processor []time.Duration
}

func (t *benchTurns) add(elapsed, processor time.Duration) {
	t.elapsed, t.processor = append(t.elapsed, elapsed), append(t.processor, processor)
}

// turn writes batches, and returns the time and the processor time that they took.
func turn(b *testing.B, write func()) (elapsed, processor time.Duration) {
	b.Helper()
	began, before := time.Now(), processorTime(b)
	for range benchTurn {
		write()
	}
	return time.Since(began), processorTime(b) - before
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// benchWriter returns a function that delivers a batch, and with delivery ExactlyOnce commits it.
type benchWriter func(b *testing.B, settings *config.KafkaSink) func()

func benchmark(b *testing.B, delivery config.Delivery, compression config.KafkaCompression, writer benchWriter) {
	b.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BlackholeProduce(),
		kfake.SeedTopics(benchParts, benchTopic, bareTopic), kfake.SeedTopics(1, "positions"))
	if err != nil {
		b.Fatal(err)
	}
	defer fake.Close()
	b.ReportAllocs()
	before := processorTime(b)
	write := writer(b, benchSettings(fake.ListenAddrs(), delivery, compression))
	for b.Loop() {
		write()
	}
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

func sinkWriter(b *testing.B, settings *config.KafkaSink) func() {
	b.Helper()
	// A sink of the same writer would skip what an earlier one has delivered.
	out := kafka.New(kafka.Options{Config: settings, Writer: rand.Text(), Target: "node-1"})
	s, err := out.Open(b.Context(), "order-statuses", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	batch := benchBatch()
	return func() {
		later(batch)
		if err := s.Write(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
}

// bareWriter is the minimum for any program: prepared records and a flush.
func bareWriter(headers bool) benchWriter {
	return func(b *testing.B, settings *config.KafkaSink) func() {
		b.Helper()
		codec := kgo.NoCompression()
		if settings.Compression == config.KafkaZstd {
			codec = kgo.ZstdCompression()
		}
		opts := []kgo.Opt{
			kgo.SeedBrokers(settings.Brokers...), kgo.ProducerBatchCompression(codec),
			kgo.ProducerBatchMaxBytes(int32(settings.MaxMessageBytes)), kgo.ProducerLinger(time.Second),
			kgo.MaxBufferedRecords(2 * benchRecords), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		}
		transactions := settings.Delivery == config.ExactlyOnce
		if transactions {
			opts = append(opts, kgo.TransactionalID("bare"))
		}
		client, err := kgo.NewClient(opts...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(client.Close)
		records := bareRecords(headers)
		ctx := context.Background()
		return func() {
			if transactions {
				if err := client.BeginTransaction(); err != nil {
					b.Fatal(err)
				}
			}
			for i := range records {
				client.Produce(ctx, &records[i], func(_ *kgo.Record, err error) {
					if err != nil {
						b.Error(err)
					}
				})
			}
			if err := client.Flush(ctx); err != nil {
				b.Fatal(err)
			}
			if transactions {
				if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}

func bareRecords(headers bool) []kgo.Record {
	batch := benchBatch()
	records := make([]kgo.Record, 0, len(batch.Records))
	for i, r := range batch.Records {
		value := batch.Record(i)
		record := kgo.Record{Topic: bareTopic, Key: []byte(r.Coin), Value: value[:len(value)-1]}
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
	return records
}
