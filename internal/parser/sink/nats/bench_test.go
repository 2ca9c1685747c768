package nats_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// bareAsync publishes one message with an id per record, as a plain user of the client library does.
func bareAsync(b *testing.B, js jetstream.JetStream) func(sink.Batch) {
	return func(batch sink.Batch) {
		for i := range batch.Records {
			r := batch.Record(i)
			m := &nats.Msg{Subject: "bare.fills." + batch.Records[i].Coin, Data: r[:len(r)-1]}
			if _, err := js.PublishMsgAsync(m, jetstream.WithMsgID(batch.Position(i).String())); err != nil {
				b.Fatal(err)
			}
		}
		<-js.PublishAsyncComplete()
	}
}

// bareBatches publishes packed records per message in atomic batches, with no headers but the batch's.
func bareBatches(b *testing.B, js jetstream.JetStream, packed int) func(sink.Batch) {
	return func(batch sink.Batch) {
		for from := 0; from < len(batch.Records); {
			id, number := nuid.Next(), 0
			for from < len(batch.Records) && number < 1000 {
				to := from + 1
				for to < len(batch.Records) && to-from < packed && batch.Records[to].Coin == batch.Records[from].Coin {
					to++
				}
				part := batch.Slice(from, to)
				m := &nats.Msg{Subject: "bare.fills." + batch.Records[from].Coin, Data: part.Data[:len(part.Data)-1]}
				number++
				m.Header = nats.Header{"Nats-Batch-Id": {id}, "Nats-Batch-Sequence": {strconv.Itoa(number)}}
				if from = to; from < len(batch.Records) && number < 1000 {
					if err := js.Conn().PublishMsg(m); err != nil {
						b.Fatal(err)
					}
					continue
				}
				m.Header["Nats-Batch-Commit"] = []string{"1"}
				if _, err := js.Conn().RequestMsg(m, 5*time.Second); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}

// BenchmarkSink writes order statuses of 470 bytes alternately through the sink and through the bare client library in
// the same mode, to two streams of one server in this process.
func BenchmarkSink(b *testing.B) {
	for _, c := range []struct {
		name     string
		delivery config.Delivery
		packed   int
	}{
		{"ids", config.AtLeastOnce, 1}, {"atomic", config.ExactlyOnce, 1}, {"atomic packed 100", config.ExactlyOnce, 100},
	} {
		for _, size := range []int{550, 5500} { // records per batch; the engine's batches have 256 KiB
			b.Run(fmt.Sprintf("%s/batches of %d", c.name, size), func(b *testing.B) {
				s := startServer(b)
				w := open(b, newOutput(b, settings(s.url(), func(n *config.NATSSink) {
					n.Delivery, n.RecordsPerMessage = c.delivery, c.packed
				})), nil)
				js := client(b, s.url())
				js, err := jetstream.New(js.Conn(), jetstream.WithPublishAsyncMaxPending(4096))
				must(b, err)
				_, err = js.CreateStream(b.Context(), jetstream.StreamConfig{
					Name: "BARE", Subjects: []string{"bare.>"}, AllowAtomicPublish: true,
				})
				must(b, err)
				bare := bareAsync(b, js)
				if c.delivery == config.ExactlyOnce {
					bare = bareBatches(b, js, c.packed)
				}
				lines := make([]string, size)
				for i := range lines {
					lines[i] = fmt.Sprintf("%0470d", i)
				}
				data := batch(0, "BTC", lines...)
				for i := range data.Records {
					data.Records[i].Coin = []string{"BTC", "ETH", "SOL", "xyz:TSLA"}[i/200%4]
				}
				var ours, theirs time.Duration
				rounds := 0
				for ; b.Loop(); rounds++ {
					for i := range data.Records {
						data.Records[i].Offset = int64(rounds*size + i)
					}
					began := time.Now()
					must(b, w.Write(b.Context(), data))
					ours += time.Since(began)
					began = time.Now()
					bare(data)
					theirs += time.Since(began)
				}
				total := float64(rounds * size)
				b.ReportMetric(total/ours.Seconds(), "records/s")
				b.ReportMetric(total/theirs.Seconds(), "bare-records/s")
				b.ReportMetric(theirs.Seconds()/ours.Seconds(), "ratio")
			})
		}
	}
}
