package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Settings of the parsers for the broker.
const (
	brokerStream   = "HYPERLIQUID"
	brokerSubjects = "hl.{target}.{stream}.{coin}"
	brokerRecords  = "hl.>"
)

// broker is a real NATS server next to the fleet, with an independent consumer. The consumer reads what the server
// delivers, in that order, and writes it into one directory per node and stream for the comparison.
type broker struct {
	server    *server.Server
	port      int    // of the server; chosen at its first start
	store     string // directory of its files
	conn      *nats.Conn
	consuming jetstream.ConsumeContext
	dir       string

	mu    sync.Mutex
	files map[string]*os.File
	err   error
}

// startBroker starts a server with its files below dir.
func startBroker(dir string) (*broker, error) {
	b := &broker{
		port: server.RANDOM_PORT, store: filepath.Join(dir, "nats"), dir: filepath.Join(dir, "consumed"),
		files: map[string]*os.File{},
	}
	if err := b.start(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	var err error
	// The consumer outlives an outage of any length.
	if b.conn, err = nats.Connect(b.url(), nats.Name("demo"), nats.MaxReconnects(-1)); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to the demo's NATS server: %w", err), b.close())
	}
	return b, nil
}

// start starts the server, at the address that it had before.
func (b *broker) start() error {
	const startLimit = 10 * time.Second
	srv, err := server.NewServer(&server.Options{
		ServerName: "demo", Host: "127.0.0.1", Port: b.port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: b.store,
	})
	if err != nil {
		return fmt.Errorf("creating a NATS server: %w", err)
	}
	b.server = srv
	srv.Start()
	if !srv.ReadyForConnections(startLimit) {
		return fmt.Errorf("the NATS server is not ready after %s", startLimit)
	}
	if address, ok := srv.Addr().(*net.TCPAddr); ok {
		b.port = address.Port
	}
	return nil
}

// stop stops the server until start. What it has stored stays.
func (b *broker) stop() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

func (b *broker) url() string { return b.server.ClientURL() }

// brokerSink returns the fleet object's sink for a broker with the URL.
func brokerSink(url string) map[string]any {
	return map[string]any{"nats": map[string]any{
		"url": url, "stream": brokerStream, "subject": brokerSubjects,
		"delivery": "ExactlyOnce", "create": map[string]any{},
	}}
}

// consume waits until a parser has created the stream, and consumes it from its beginning until close.
func (b *broker) consume(ctx context.Context) error {
	js, err := jetstream.New(b.conn)
	if err != nil {
		return fmt.Errorf("consuming from NATS: %w", err)
	}
	var consumer jetstream.Consumer
	for {
		consumer, err = js.OrderedConsumer(ctx, brokerStream,
			jetstream.OrderedConsumerConfig{FilterSubjects: []string{brokerRecords}})
		if err == nil {
			break
		}
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("consuming from NATS: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no parser has created the JetStream stream %s: %w", brokerStream, context.Cause(ctx))
		case <-time.After(pollInterval):
		}
	}
	b.consuming, err = consumer.Consume(b.record)
	if err != nil {
		return fmt.Errorf("consuming from NATS: %w", err)
	}
	return nil
}

// record writes one message into its file.
func (b *broker) record(m jetstream.Msg) {
	b.mu.Lock()
	defer b.mu.Unlock()
	dir := b.records(m.Headers().Get("Hl-Target"), m.Headers().Get("Hl-Stream"))
	f, ok := b.files[dir]
	if !ok {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			f, err = os.Create(filepath.Join(dir, "consumed.jsonl"))
		}
		if err != nil {
			b.err = errors.Join(b.err, fmt.Errorf("writing a record that NATS delivered: %w", err))
			return
		}
		b.files[dir] = f
	}
	// One write per record, so a concurrent count sees whole lines.
	if _, err := f.Write(append(m.Data(), '\n')); err != nil {
		b.err = errors.Join(b.err, fmt.Errorf("writing a record that NATS delivered: %w", err))
	}
}

// records returns the directory of the consumed records of a node's stream.
func (b *broker) records(node, stream string) string { return filepath.Join(b.dir, node, stream) }

// close stops the consumer and the server, and returns the consumer's write errors.
func (b *broker) close() error {
	if b.consuming != nil {
		b.consuming.Stop()
		<-b.consuming.Closed()
	}
	if b.conn != nil {
		b.conn.Close()
	}
	if b.server != nil {
		b.stop()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.files {
		b.err = errors.Join(b.err, f.Close())
	}
	return b.err
}
