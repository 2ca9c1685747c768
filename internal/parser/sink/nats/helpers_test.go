package nats_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/hlparser/hyperliquid-parser-operator/hack/nats/broker"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	hlnats "github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/nats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testMain{m}) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting: %s", what)
		}
	}
}

// largestPayload is the size of the servers' largest message, in bytes.
const largestPayload = 32 << 20

// running is a server with a file store: in this process, or a process of its own.
type running struct {
	embedded *server.Server // nil for a process
	process  *broker.Server // nil for a server in this process
	address  string         // also after its end
	storeDir string
}

// startServer runs a server with a file store on a free port. It is a process if real brokers are wanted.
func startServer(t testing.TB) *running {
	t.Helper()
	return startServerOn(t, 0, t.TempDir(), largestPayload)
}

// startServerOn is startServer on a port, unless it is 0, with a directory of its own and a maximum size of messages.
func startServerOn(t testing.TB, port int, dir string, payload int) *running {
	t.Helper()
	if program := realServer(t); program != "" {
		s, err := broker.Start(t.Context(), broker.Options{Program: program, Dir: dir, Port: port, MaxPayload: payload})
		must(t, err)
		t.Cleanup(s.Close)
		return &running{process: s, address: s.Address(), storeDir: filepath.Join(s.StoreDir(), "jetstream")}
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return startEmbedded(t, &server.Options{
		Port: port, StoreDir: dir, MaxPayload: int32(payload), MaxPending: int64(8 * payload),
	})
}

// startEmbedded runs a server in this process with settings that startServer does not have. The test is skipped if real
// brokers are wanted.
func startEmbedded(t testing.TB, opts *server.Options) *running {
	t.Helper()
	if realBrokers() {
		t.Skip("needs a server in this process")
	}
	if opts.StoreDir == "" {
		opts.StoreDir = t.TempDir()
	}
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	opts.Host, opts.JetStream, opts.NoSigs, opts.NoLog = "127.0.0.1", true, true, true
	// By default the server keeps the last 10,000 ended connections, about 20 KiB each, which a test of memory would
	// count.
	opts.MaxClosedClients = 1
	s, err := server.NewServer(opts)
	must(t, err)
	s.Start()
	r := &running{embedded: s}
	t.Cleanup(r.stop)
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	r.address, r.storeDir = s.Addr().String(), s.StoreDir()
	return r
}

func (r *running) url() string { return "nats://" + r.address }

func (r *running) port(t testing.TB) int {
	t.Helper()
	_, port, err := net.SplitHostPort(r.address)
	must(t, err)
	n, err := strconv.Atoi(port)
	must(t, err)
	return n
}

// awaitDeletions waits until the files of deleted streams are gone. The server removes them in the background, from a
// directory that begins with a dot. Until then the deletion of another stream of that name fails halfway, and the next
// one begins with its messages (nats-server 2.15.2, fileStore.Delete).
func (r *running) awaitDeletions(t testing.TB) {
	t.Helper()
	eventually(t, "the files of a deleted stream are removed", func() bool {
		left, err := filepath.Glob(filepath.Join(r.storeDir, "*", "streams", ".*"))
		must(t, err)
		return len(left) == 0
	})
}

func (r *running) stop() {
	if r.process != nil {
		r.process.Stop(10 * time.Second)
		return
	}
	stopEmbedded(r.embedded)
}

func stopEmbedded(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// proxy is a TCP proxy whose connections can be cut or blocked.
type proxy struct {
	listener net.Listener
	to       func() string

	mu    sync.Mutex
	down  bool
	held  chan struct{} // non-nil while blocked; closed when the block ends
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func startProxy(t testing.TB, to func() string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{listener: l, to: to, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.hold(false)
		p.outage(true)
		_ = l.Close()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		there, err := net.Dial("tcp", p.to())
		p.mu.Lock()
		if err != nil || p.down {
			p.mu.Unlock()
			_ = c.Close()
			if there != nil {
				_ = there.Close()
			}
			continue
		}
		p.conns[c], p.conns[there] = true, true
		p.mu.Unlock()
		p.wg.Go(func() { p.pump(c, there) })
		p.wg.Go(func() { p.pump(there, c) })
	}
}

func (p *proxy) pump(from, to net.Conn) {
	defer func() {
		_, _ = from.Close(), to.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
		delete(p.conns, to)
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		held := p.held
		p.mu.Unlock()
		chunk := buf[:n]
		if held != nil {
			chunk, buf = bytes.Clone(chunk), nil // frees the buffer: hundreds may wait during a test that measures memory
			<-held
			buf = make([]byte, 16<<10)
		}
		if _, werr := to.Write(chunk); err != nil || werr != nil {
			return
		}
	}
}

func (p *proxy) outage(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = on
	if on {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}

// flap ends the open connections.
func (p *proxy) flap() {
	p.outage(true)
	p.outage(false)
}

func (p *proxy) hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case on && p.held == nil:
		p.held = make(chan struct{})
	case !on && p.held != nil:
		close(p.held)
		p.held = nil
	}
}

// settings returns a sink's settings with defaults.
func settings(url string, edit func(*config.NATSSink)) *config.NATSSink {
	c := &config.NATSSink{
		URL: url, Stream: "HL", Subject: config.DefaultNATSSubject, Create: &config.NATSCreate{Replicas: 1},
		Delivery: config.Best, Identity: config.ByPosition, RecordsPerMessage: 1,
	}
	if edit != nil {
		edit(c)
	}
	return c
}

func newOutput(t testing.TB, c *config.NATSSink) *hlnats.Output {
	t.Helper()
	o := hlnats.New(hlnats.Options{
		Config: c, Writer: "test/node-1", Target: "node-1", Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	t.Cleanup(func() { _ = o.Close() })
	return o
}

// client returns a consumer's connection.
func client(t testing.TB, url string, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url, options...)
	must(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	must(t, err)
	return js
}

// messages returns the stream's messages on the subjects, in order.
func messages(ctx context.Context, js jetstream.JetStream, filter string) ([]jetstream.Msg, error) {
	s, err := js.Stream(ctx, "HL")
	if err != nil {
		return nil, err
	}
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{filter}})
	if err != nil {
		return nil, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return nil, err
	}
	left := uint64(0)
	for _, n := range info.State.Subjects {
		left += n
	}
	var out []jetstream.Msg
	for left > 0 {
		batch, err := c.Fetch(int(min(left, 500)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return nil, err
		}
		for m := range batch.Messages() {
			out = append(out, m)
			left--
		}
		if err := batch.Error(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// records returns the records of messages, one per line.
func records(messages []jetstream.Msg) []byte {
	var out []byte
	for _, m := range messages {
		out = append(append(out, m.Data()...), '\n')
	}
	return out
}

var hour = position.FileID{Directory: "node_fills_by_block", Date: "20260430", Hour: 8, Generation: "1a2b3c4d"}

// batch returns lines from a file, at intervals of 100 bytes.
func batch(from int, coin string, lines ...string) sink.Batch {
	b := sink.Batch{File: hour}
	for i, line := range lines {
		b.Data = append(append(b.Data, line...), '\n')
		n := from + i
		b.Records = append(b.Records, sink.Record{
			End: len(b.Data), Offset: int64(n) * 100, Block: int64(1000 + n), Index: int32(n % 3), Coin: coin,
		})
	}
	return b
}

func numbered(from, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(`{"n":%d}`, from+i)
	}
	return out
}

// wantNumbered checks that records are exactly numbered(0, n).
func wantNumbered(t testing.TB, data []byte, n int) {
	t.Helper()
	want := strings.Join(numbered(0, n), "\n") + "\n"
	if n == 0 {
		want = ""
	}
	if string(data) != want {
		got := strings.Split(string(data), "\n")
		for i, line := range strings.Split(want, "\n") {
			if i >= len(got) || got[i] != line {
				t.Fatalf("record %d of %d is %.60q, want %q", i, len(got)-1, got[min(i, len(got)-1)], line)
			}
		}
		t.Fatalf("%d records, want %d", len(got)-1, n)
	}
}

// commit commits as the engine does, and returns the state.
func commit(t testing.TB, s sink.Sink) json.RawMessage {
	t.Helper()
	f, err := s.Flush(t.Context(), false)
	must(t, err)
	must(t, s.Committed(t.Context()))
	return f.State
}

func open(t testing.TB, o *hlnats.Output, state json.RawMessage) sink.Sink {
	t.Helper()
	s, err := o.Open(t.Context(), "fills", state)
	must(t, err)
	return s
}

// retry calls until the call succeeds, as the engine does in an outage.
func retry(t testing.TB, call func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = call(); err == nil || isNoOutage(err) {
			break
		}
	}
	must(t, err)
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	must(t, os.WriteFile(path, data, 0o600))
}
