package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
)

// consumed are the records that a spec has taken from a server, in a file for each parser and stream. The order in a
// file is that in which the server delivers.
type consumed struct {
	dir string

	mu    sync.Mutex
	files map[string]*os.File
	err   error
}

func newConsumed() *consumed {
	GinkgoHelper()
	c := &consumed{dir: GinkgoT().TempDir(), files: map[string]*os.File{}}
	DeferCleanup(func() {
		for _, f := range c.files {
			Expect(f.Close()).To(Succeed())
		}
	})
	return c
}

// add writes a record of a parser's stream. It is one write, so that a concurrent count sees whole lines.
func (c *consumed) add(target, stream string, record []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dir := c.records(target, stream)
	f := c.files[dir]
	if f == nil {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			f, err = os.Create(filepath.Join(dir, "consumed.jsonl"))
		}
		if err != nil {
			c.err = errors.Join(c.err, err)
			return
		}
		c.files[dir] = f
	}
	if _, err := f.Write(append(slices.Clone(record), '\n')); err != nil {
		c.err = errors.Join(c.err, err)
	}
}

func (c *consumed) records(target, stream string) string { return filepath.Join(c.dir, target, stream) }

// of is a fleet's records.
func (c *consumed) of(node int, src gen.Source) string {
	return c.records(fmt.Sprintf("node-%d", node), string(src.Stream))
}

// check fails the spec if a record could not be kept.
func (c *consumed) check() {
	GinkgoHelper()
	c.mu.Lock()
	defer c.mu.Unlock()
	Expect(c.err).NotTo(HaveOccurred())
}

// serverIP is an address of this machine that pods of all nodes reach: that of the first node.
func serverIP(ctx context.Context) string {
	GinkgoHelper()
	var node corev1.Node
	Expect(k8s.Get(ctx, client.ObjectKey{Name: "node-1"}, &node)).To(Succeed())
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return address.Address
		}
	}
	Fail("node-1 has no address")
	return ""
}

var _ = Describe("a sink", Label("fleet", "sink"), func() {
	It("may be NATS JetStream, with exactly once through kill -9", func(ctx SpecContext) {
		srv, err := server.NewServer(&server.Options{
			ServerName: "e2e", Host: serverIP(ctx), Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: GinkgoT().TempDir(),
		})
		Expect(err).NotTo(HaveOccurred())
		srv.Start()
		DeferCleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		Expect(srv.ReadyForConnections(time.Minute)).To(BeTrue())
		f := newFleet(ctx, "nats", rate)
		got := newConsumed()
		f.records = got.of
		obj := f.object()
		obj.Spec.Sink = v1alpha1.Sink{NATS: &v1alpha1.NATSSink{
			URL: srv.ClientURL(), Stream: "HL", Subject: "hl.{stream}.{target}", Create: &v1alpha1.NATSCreate{},
			Delivery: v1alpha1.DeliveryExactlyOnce,
		}}
		f.create(ctx, obj)
		conn, err := nats.Connect(srv.ClientURL())
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(conn.Close)
		js, err := jetstream.New(conn)
		Expect(err).NotTo(HaveOccurred())
		consumer, err := js.OrderedConsumer(ctx, "HL", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"hl.>"}})
		Expect(err).NotTo(HaveOccurred())
		consuming, err := consumer.Consume(func(m jetstream.Msg) {
			got.add(m.Headers().Get("Hl-Target"), m.Headers().Get("Hl-Stream"), m.Data())
		})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { consuming.Stop(); <-consuming.Closed() })
		f.kill(ctx, 1)
		f.waitWell(ctx, whole)
		f.exact(ctx)
		got.check()
	}, SpecTimeout(8*time.Minute))

	It("may be standard output, which the kubelet keeps", func(ctx SpecContext) {
		// A kubelet keeps 50 MiB of a container's output by default, and deletes it with the pod: the rate is low.
		f := newFleet(ctx, "stdout", 50)
		f.repeats = true
		got := newConsumed()
		f.records = got.of
		streams := map[string]gen.Stream{"OrderStatuses": gen.OrderStatuses, "Fills": gen.Fills}
		obj := f.object()
		obj.Spec.Sink = v1alpha1.Sink{Stdout: &v1alpha1.StdoutSink{}}
		f.create(ctx, obj)
		for n := 1; n <= nodes; n++ {
			follow, err := clients.CoreV1().Pods(f.namespace).GetLogs(f.pod(ctx, n).Name, &corev1.PodLogOptions{
				Container: v1alpha1.ContainerName, Follow: true,
			}).Stream(context.WithoutCancel(ctx))
			Expect(err).NotTo(HaveOccurred())
			var done sync.WaitGroup
			done.Go(func() {
				lines := bufio.NewReader(follow)
				for {
					line, err := lines.ReadBytes('\n')
					if err != nil {
						return // the pod or this spec ends
					}
					var record struct{ Target, Stream string }
					// Log lines are on standard error, which the kubelet puts beside the records.
					if line[0] == '{' && json.Unmarshal(line, &record) == nil {
						got.add(record.Target, string(streams[record.Stream]), line[:len(line)-1])
					}
				}
			})
			DeferCleanup(func() { _ = follow.Close(); done.Wait() })
		}
		f.exact(ctx)
		got.check()
	}, SpecTimeout(8*time.Minute))
})
