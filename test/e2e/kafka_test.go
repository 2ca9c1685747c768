package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/twmb/franz-go/pkg/kgo"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/hack/kafka/broker"
)

var _ = Describe("a sink", Label("fleet", "sink"), func() {
	It("may be Kafka, with exactly once through kill -9", func(ctx SpecContext) {
		kafka, err := broker.Start(ctx, broker.Options{
			Host: serverIP(ctx), Dir: GinkgoT().TempDir(),
			Say: func(format string, args ...any) { GinkgoWriter.Printf(format+"\n", args...) },
		})
		if errors.Is(err, broker.ErrMissing) {
			Skip(fmt.Sprintf("KAFKA IS NOT TESTED: %v", err))
		}
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(kafka.Close)
		f := newFleet(ctx, "kafka", rate)
		got := newConsumed()
		f.records = got.of
		brokers := make([]v1alpha1.Broker, 0, len(kafka.Addresses()))
		for _, address := range kafka.Addresses() {
			brokers = append(brokers, v1alpha1.Broker(address))
		}
		obj := f.object()
		obj.Spec.Sink = v1alpha1.Sink{Kafka: &v1alpha1.KafkaSink{
			// One partition for each stream keeps the order of all its events, and not only that of each coin's.
			Brokers: brokers, Topic: "hl.{stream}.{target}", Create: &v1alpha1.KafkaCreate{
				Partitions: ptr.To[int32](1), ReplicationFactor: ptr.To[int32](1),
			},
		}}
		f.create(ctx, obj)
		consumer, err := kgo.NewClient(kgo.SeedBrokers(kafka.Addresses()...), kgo.ConsumeRegex(),
			kgo.ConsumeTopics(`hl\..*`), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.MetadataMinAge(time.Second), kgo.MetadataMaxAge(2*time.Second))
		Expect(err).NotTo(HaveOccurred())
		var done sync.WaitGroup
		done.Go(func() {
			for {
				fetches := consumer.PollFetches(context.WithoutCancel(ctx))
				if fetches.IsClientClosed() {
					return
				}
				fetches.EachRecord(func(r *kgo.Record) {
					headers := map[string]string{}
					for _, h := range r.Headers {
						headers[h.Key] = string(h.Value)
					}
					got.add(headers["hl-target"], headers["hl-stream"], r.Value)
				})
			}
		})
		DeferCleanup(func() { consumer.Close(); done.Wait() })
		f.kill(ctx, 1)
		f.waitWell(ctx, whole)
		f.exact(ctx)
		got.check()
	}, SpecTimeout(10*time.Minute))
})
