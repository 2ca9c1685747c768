package nats_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	hlnats "github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/nats"
)

var bothDeliveries = []config.Delivery{config.ExactlyOnce, config.AtLeastOnce}

func TestHeadersDescribeTheirMessage(t *testing.T) {
	s := startServer(t)
	js := client(t, s.url())
	for _, c := range []struct {
		delivery config.Delivery
		identity config.RecordIdentity
		packed   int
		coin     string
		want     map[string]string // headers of the second message
		id       string
	}{
		{config.ExactlyOnce, config.ByPosition, 1, "PURR/USDC", map[string]string{
			"Hl-Target": "node-1", "Hl-Stream": "fills", "Hl-Block": "1001", "Hl-Index": "1",
			"Hl-Position": "node_fills_by_block/20260430/8@1a2b3c4d:100:1", "Hl-Count": "", "Nats-Msg-Id": "",
		}, ""},
		{config.AtLeastOnce, config.ByPosition, 1, "a", map[string]string{
			"Nats-Msg-Id": "test/node-1/fills/node_fills_by_block/20260430/8@1a2b3c4d:100:1",
		}, ""},
		{config.AtLeastOnce, config.ByChain, 1, "b", map[string]string{"Nats-Msg-Id": "fills/1001/1"}, ""},
		{config.AtLeastOnce, config.ByPosition, 3, "c", map[string]string{
			"Hl-Count": "2", "Hl-Block": "1003", "Hl-Position": "node_fills_by_block/20260430/8@1a2b3c4d:300:0",
			"Nats-Msg-Id": "test/node-1/fills/node_fills_by_block/20260430/8@1a2b3c4d:300:0/" +
				"node_fills_by_block/20260430/8@1a2b3c4d:400:1/2",
		}, ""},
	} {
		t.Run(fmt.Sprint(c.delivery, c.identity, c.packed), func(t *testing.T) {
			o := newOutput(t, settings(s.url(), func(n *config.NATSSink) {
				n.Delivery, n.Identity, n.RecordsPerMessage = c.delivery, c.identity, c.packed
			}))
			must(t, open(t, o, nil).Write(t.Context(), batch(0, c.coin, numbered(0, 5)...)))
			got, err := messages(t.Context(), js, "hl.fills."+c.coin)
			must(t, err)
			wantNumbered(t, records(got), 5)
			for name, want := range c.want {
				if v := got[1].Headers().Get(name); v != want {
					t.Errorf("%s is %q, want %q", name, v, want)
				}
			}
		})
	}
	lines := open(t, newOutput(t, settings(s.url(), nil)), json.RawMessage(`{"generation":9}`))
	b := batch(0, "", `{"n":0}`)
	b.Records[0].Block = 0
	b.File.Directory = "node_order_statuses"
	must(t, lines.Write(t.Context(), b))
	got, err := messages(t.Context(), js, "hl.fills._")
	must(t, err)
	if _, ok := got[0].Headers()["Hl-Block"]; ok {
		t.Errorf("a record in line mode has the headers %v", got[0].Headers())
	}
}

func TestPackedRecordsShareASubject(t *testing.T) {
	s := startServer(t)
	js := client(t, s.url())
	o := newOutput(t, settings(s.url(), func(c *config.NATSSink) { c.RecordsPerMessage = 100 }))
	b := batch(0, "BTC", numbered(0, 250)...)
	for i := 120; i < 130; i++ {
		b.Records[i].Coin = "ETH"
	}
	must(t, open(t, o, nil).Write(t.Context(), b))
	got, err := messages(t.Context(), js, "hl.>")
	must(t, err)
	counts := make([]string, 0, len(got))
	for _, m := range got {
		counts = append(counts, m.Subject()+" "+m.Headers().Get("Hl-Count"))
	}
	want := "[hl.fills.BTC 100 hl.fills.BTC 20 hl.fills.ETH 10 hl.fills.BTC 100 hl.fills.BTC 20]"
	if fmt.Sprint(counts) != want {
		t.Errorf("the messages are %v, want %v", counts, want)
	}
	wantNumbered(t, records(got), 250)
}

func TestARecordThatFitsInNoMessageIsRefusedAndTheOthersAreStored(t *testing.T) {
	for _, packed := range []int{1, 7} {
		for _, delivery := range bothDeliveries {
			for _, where := range []string{"max_payload", "max_msg_size"} {
				t.Run(fmt.Sprint(where, delivery, packed), func(t *testing.T) {
					payload := largestPayload
					if where == "max_payload" {
						payload = 1 << 20
					}
					s := startServerOn(t, 0, t.TempDir(), payload)
					js := client(t, s.url())
					o := newOutput(t, settings(s.url(), func(c *config.NATSSink) {
						c.Delivery, c.RecordsPerMessage = delivery, packed
					}))
					w := open(t, o, nil)
					if where == "max_msg_size" {
						st, err := js.Stream(t.Context(), "HL")
						must(t, err)
						edited := st.CachedInfo().Config
						edited.MaxMsgSize = 1 << 20
						_, err = js.UpdateStream(t.Context(), edited)
						must(t, err)
						w = open(t, o, nil)
					}
					lines := numbered(0, 20)
					lines[9] = `{"pad":"` + strings.Repeat("x", 20_000_000) + `"}`
					b := batch(0, "BTC", lines...)
					var refusal *sink.Refusal
					if err := w.Write(t.Context(), b); !errors.As(err, &refusal) || refusal.Index != 9 {
						t.Fatalf("got %v, want a refusal of record 9", err)
					}
					must(t, w.Write(t.Context(), b.Slice(0, 9)))
					must(t, w.Write(t.Context(), b.Slice(10, 20)))
					commit(t, w)
					got, err := messages(t.Context(), js, "hl.>")
					must(t, err)
					if n := strings.Count(string(records(got)), "\n"); n != 19 {
						t.Errorf("%d records, want 19", n)
					}
					// The largest record that fits is accepted, whatever its headers.
					fits, not := 1<<20-1000, 1<<20
					for fits+1 < not {
						n := (fits + not) / 2
						switch err := w.Write(t.Context(), batch(100+n, "BTC", strings.Repeat("y", n))); {
						case err == nil:
							fits = n
						case errors.As(err, &refusal):
							not = n
						default:
							t.Fatalf("%d bytes: %v", n, err)
						}
					}
					if fits < 1<<20-400 {
						t.Errorf("only %d bytes of 1 MiB are available for the record", fits)
					}
				})
			}
		}
	}
}

// writeAll writes records in small batches with commits, through outages, until all are written.
func writeAll(t testing.TB, w sink.Sink, from, to int) {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(from), uint64(to)))
	for from < to {
		n := min(1+r.IntN(300), to-from)
		b := batch(from, "BTC", numbered(from, n)...)
		retry(t, func() error { return w.Write(t.Context(), b) })
		from += n
		commit(t, w)
	}
}

func TestAServerRestartDuringAWriteStoresEachRecordOnce(t *testing.T) {
	dir := t.TempDir()
	s := startServerOn(t, 0, dir, largestPayload)
	at := s.port(t)
	w := open(t, newOutput(t, settings(s.url(), nil)), nil)
	const total = 30_000
	var writing sync.WaitGroup
	writing.Go(func() { writeAll(t, w, 0, total) })
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		s.stop()
		s = startServerOn(t, at, dir, largestPayload)
	}
	writing.Wait()
	got, err := messages(t.Context(), client(t, s.url()), "hl.>")
	must(t, err)
	wantNumbered(t, records(got), total)
}

func TestALeaderThatStepsDownStoresEachRecordOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	servers := startCluster(t)
	urls := make([]string, len(servers))
	for i, s := range servers {
		urls[i] = s.ClientURL()
	}
	c := settings(strings.Join(urls, ","), func(c *config.NATSSink) {
		c.Create.Replicas, c.Delivery = 3, config.ExactlyOnce
	})
	var w sink.Sink
	o := newOutput(t, c)
	retry(t, func() (err error) { w, err = o.Open(t.Context(), "fills", nil); return err })
	const total = 40_000
	done := make(chan struct{})
	go func() {
		defer close(done)
		writeAll(t, w, 0, total)
	}()
	js := client(t, c.URL)
	// On a slow machine an election takes longer than the pause, so the number of elections is limited.
	const maxSteps = 60
	steps := 0
	for stepping := true; stepping && steps < maxSteps; {
		select {
		case <-done:
			stepping = false
		case <-time.After(150 * time.Millisecond):
			if _, err := js.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN.HL", nil, time.Second); err == nil {
				steps++
			}
		}
	}
	<-done
	t.Logf("the leader stepped down %d times", steps)
	if steps < 3 {
		t.Errorf("the leader stepped down %d times, want at least 3", steps)
	}
	var got []jetstream.Msg
	retry(t, func() (err error) { got, err = messages(t.Context(), js, "hl.>"); return err })
	wantNumbered(t, records(got), total)
}

func startCluster(t testing.TB) []*server.Server {
	t.Helper()
	if realBrokers() {
		t.Skip("needs servers in this process")
	}
	servers, ports := make([]*server.Server, 3), make([]int, 3)
	routes := make([]string, 0, len(ports))
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		ports[i] = l.Addr().(*net.TCPAddr).Port
		must(t, l.Close())
		routes = append(routes, "nats://"+l.Addr().String())
	}
	for i := range servers {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: -1, JetStream: true, NoSigs: true, NoLog: true,
			StoreDir: t.TempDir(), Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i]},
			Routes: server.RoutesFromStr(strings.Join(routes, ",")),
		})
		must(t, err)
		go s.Start()
		t.Cleanup(func() { stopEmbedded(s) })
		servers[i] = s
	}
	for _, s := range servers {
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("a server did not start")
		}
	}
	eventually(t, "the cluster has a leader that knows all servers", func() bool {
		for _, s := range servers {
			if s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == len(servers) {
				return true
			}
		}
		return false
	})
	return servers
}

func TestAFullStreamIsAnOutage(t *testing.T) {
	for _, delivery := range bothDeliveries {
		t.Run(string(delivery), func(t *testing.T) {
			s := startServer(t)
			js := client(t, s.url())
			st, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
				Name: "HL", Subjects: []string{"hl.>", "hlparser.HL.>"}, MaxBytes: 200_000, Discard: jetstream.DiscardNew,
				AllowAtomicPublish: true,
			})
			must(t, err)
			w := open(t, newOutput(t, settings(s.url(), func(c *config.NATSSink) { c.Delivery = delivery })), nil)
			var full error
			n := 0
			for ; full == nil; n++ {
				full = w.Write(t.Context(), batch(n, "BTC", numbered(n, 1)...))
			}
			if isNoOutage(full) || !strings.Contains(full.Error(), "maximum bytes exceeded") {
				t.Fatalf("got %v, want an outage with its cause", full)
			}
			must(t, st.Purge(t.Context(), jetstream.WithPurgeSubject("hl.>")))
			retry(t, func() error { return w.Write(t.Context(), batch(n-1, "BTC", numbered(n-1, 1)...)) })
			got, err := messages(t.Context(), js, "hl.>")
			must(t, err)
			if string(records(got)) != fmt.Sprintf("{\"n\":%d}\n", n-1) {
				t.Errorf("after the purge the stream holds %q", records(got))
			}
		})
	}
}

func TestAnOldParserCannotWriteAfterANewOneHasOpened(t *testing.T) {
	s := startServer(t)
	js := client(t, s.url())
	old := open(t, newOutput(t, settings(s.url(), nil)), nil)
	state := commit(t, old)
	must(t, old.Write(t.Context(), batch(0, "BTC", numbered(0, 10)...)))
	young := open(t, newOutput(t, settings(s.url(), nil)), state)
	for range 2 {
		err := old.Write(t.Context(), batch(10, "BTC", numbered(10, 5)...))
		if !errors.Is(err, sink.ErrFailed) || !strings.Contains(err.Error(), "another parser writes as test/node-1") {
			t.Fatalf("the old parser got %v", err)
		}
	}
	must(t, young.Write(t.Context(), batch(0, "BTC", numbered(0, 20)...)))
	got, err := messages(t.Context(), js, "hl.>")
	must(t, err)
	wantNumbered(t, records(got), 20)
}

func TestABatchInFlightAtATakeoverIsStoredOnceOrNotAtAll(t *testing.T) {
	s := startServer(t)
	p := startProxy(t, func() string { return s.address })
	js := client(t, s.url())
	old := open(t, newOutput(t, settings(p.url(), nil)), nil)
	state := commit(t, old)
	p.hold(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := old.Write(ctx, batch(0, "BTC", numbered(0, 10)...)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	young := open(t, newOutput(t, settings(s.url(), nil)), state)
	p.hold(false) // now the batch arrives
	must(t, young.Write(t.Context(), batch(0, "BTC", numbered(0, 20)...)))
	got, err := messages(t.Context(), js, "hl.>")
	must(t, err)
	wantNumbered(t, records(got), 20)
}

func TestTheContextEndsABlockedWriteAndTheOtherStreamsWrites(t *testing.T) {
	for _, delivery := range bothDeliveries {
		t.Run(string(delivery), func(t *testing.T) {
			s := startServer(t)
			p := startProxy(t, func() string { return s.address })
			o := newOutput(t, settings(p.url(), func(c *config.NATSSink) { c.Delivery = delivery }))
			big := open(t, o, nil)
			small, err := o.Open(t.Context(), "trades", nil)
			must(t, err)
			lines := make([]string, 64)
			for i := range lines {
				lines[i] = strings.Repeat("x", 1<<20)
			}
			b := batch(0, "BTC", lines...)
			p.hold(true)
			var writing sync.WaitGroup
			for _, w := range []sink.Sink{big, small} {
				writing.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
					defer cancel()
					own := b
					if w == small {
						own = batch(0, "BTC", "x")
					}
					began := time.Now()
					if err := w.Write(ctx, own); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("got %v, want the context's error", err)
					}
					if err := w.Close(); err != nil {
						t.Error(err)
					}
					if took := time.Since(began); took > 3*time.Second {
						t.Errorf("the write took %v", took)
					}
				})
			}
			writing.Wait()
			p.hold(false)
			w := open(t, o, json.RawMessage(`{"generation":0}`))
			must(t, w.Write(t.Context(), b))
		})
	}
}

func TestRedundantParsersWithIdentityByChainStoreEachEventOnce(t *testing.T) {
	s := startServer(t)
	js := client(t, s.url())
	sinks := make([]sink.Sink, 2)
	for i := range sinks {
		o := hlnats.New(hlnats.Options{
			Config: settings(s.url(), func(c *config.NATSSink) { c.Identity = config.ByChain }),
			Writer: fmt.Sprint("test/node-", i), Target: fmt.Sprint("node-", i),
		})
		t.Cleanup(func() { _ = o.Close() })
		sinks[i] = open(t, o, nil)
	}
	const total = 1000
	for i := 0; i < total; i += 10 {
		for k, w := range sinks {
			b := batch(i, "BTC", numbered(i, 10)...)
			b.File.Generation = fmt.Sprintf("%08d", k)
			for j := range b.Records {
				b.Records[j].Offset += int64(k)
			}
			must(t, w.Write(t.Context(), b))
		}
	}
	got, err := messages(t.Context(), js, "hl.>")
	must(t, err)
	wantNumbered(t, records(got), total)
	// Markers of two parsers are distinct.
	for k, w := range sinks {
		b := batch(0, "", `{"marker":true}`)
		b.File.Generation, b.Records[0].Block, b.Records[0].Index = fmt.Sprintf("%08d", k), 0, -1
		must(t, w.Write(t.Context(), b))
	}
	if got, err = messages(t.Context(), js, "hl.fills._"); err != nil || len(got) != 2 {
		t.Errorf("%d markers, %v", len(got), err)
	}
}

func TestWithoutAtomicBatchesDeliveryIsAtLeastOnceOrFails(t *testing.T) {
	for title, stream := range map[string]jetstream.StreamConfig{
		"no allow_atomic":    {},
		"interest retention": {AllowAtomicPublish: true, Retention: jetstream.InterestPolicy},
	} {
		t.Run(title, func(t *testing.T) {
			s := startServer(t)
			stream.Name, stream.Subjects = "HL", []string{"hl.>", "hlparser.HL.>"}
			_, err := client(t, s.url()).CreateStream(t.Context(), stream)
			must(t, err)
			must(t, open(t, newOutput(t, settings(s.url(), nil)), nil).Write(t.Context(), batch(0, "BTC", "x")))
			o := newOutput(t, settings(s.url(), func(c *config.NATSSink) { c.Delivery = config.ExactlyOnce }))
			if _, err := o.Open(t.Context(), "fills", nil); !errors.Is(err, sink.ErrFailed) {
				t.Errorf("exactly once: got %v, want ErrFailed", err)
			}
		})
	}
}

func TestMissingStreamsAndSubjectsAreOutagesWithInstructions(t *testing.T) {
	s := startServer(t)
	js := client(t, s.url())
	for _, delivery := range bothDeliveries {
		o := newOutput(t, settings(s.url(), func(c *config.NATSSink) { c.Create, c.Delivery = nil, delivery }))
		openAnd := func(do func(sink.Sink) error) error {
			w, err := o.Open(t.Context(), "fills", nil)
			if err != nil {
				return err
			}
			return errors.Join(do(w), w.Close())
		}
		write := func(w sink.Sink) error { return w.Write(t.Context(), batch(0, "BTC", "x")) }
		err := openAnd(write)
		if err == nil || isNoOutage(err) || !strings.Contains(err.Error(), "create it with the subjects") {
			t.Errorf("without the stream: got %v", err)
		}
		created := jetstream.StreamConfig{Name: "HL", Subjects: []string{"other.>"}, AllowAtomicPublish: true}
		_, err = js.CreateStream(t.Context(), created)
		must(t, err)
		err = openAnd(write)
		if err == nil || isNoOutage(err) || !strings.Contains(err.Error(), `add the subjects ["hl.*.*" "hlparser.HL.*"]`) {
			t.Errorf("without the subjects: got %v", err)
		}
		created.Subjects = []string{"hl.>", "hlparser.HL.>"}
		_, err = js.UpdateStream(t.Context(), created)
		must(t, err)
		must(t, openAnd(write))
		must(t, js.DeleteStream(t.Context(), "HL"))
	}
}

func TestARecreatedStreamRestartsFromTheCheckpoint(t *testing.T) {
	s := startServer(t)
	js := client(t, s.url())
	o := newOutput(t, settings(s.url(), nil))
	w := open(t, o, nil)
	must(t, w.Write(t.Context(), batch(0, "BTC", numbered(0, 10)...)))
	state := commit(t, w)
	must(t, js.DeleteStream(t.Context(), "HL"))
	var err error
	for range 10 {
		if err = w.Write(t.Context(), batch(10, "BTC", numbered(10, 10)...)); isNoOutage(err) {
			break
		}
	}
	if !errors.Is(err, sink.ErrReopen) {
		t.Fatalf("got %v, want ErrReopen", err)
	}
	must(t, open(t, o, state).Write(t.Context(), batch(10, "BTC", numbered(10, 10)...)))
	got, err := messages(t.Context(), js, "hl.>")
	must(t, err)
	if len(got) != 10 {
		t.Errorf("%d messages, want the 10 after the checkpoint", len(got))
	}
}

func TestALostCheckpointIsReported(t *testing.T) {
	s := startServer(t)
	strict := newOutput(t, settings(s.url(), func(c *config.NATSSink) { c.Delivery = config.ExactlyOnce }))
	w := open(t, strict, nil)
	if sink.Remembers(w) {
		t.Error("Remembers is true for a new stream")
	}
	must(t, w.Write(t.Context(), batch(0, "BTC", numbered(0, 10)...)))
	must(t, w.Close())
	_, err := strict.Open(t.Context(), "fills", nil)
	const advice = "nats stream purge HL --subject hlparser.HL.test/node-1/fills"
	if !errors.Is(err, sink.ErrFailed) || !strings.Contains(err.Error(), advice) {
		t.Errorf("got %v", err)
	}
	// Best continues, and skips what the position covers. The engine receives Remembers, because it knows whether the
	// stream is new.
	best := open(t, newOutput(t, settings(s.url(), nil)), nil)
	if !sink.Remembers(best) {
		t.Error("Remembers is false after the loss of the checkpoint")
	}
	must(t, best.Write(t.Context(), batch(0, "BTC", numbered(0, 20)...)))
	got, err := messages(t.Context(), client(t, s.url()), "hl.>")
	must(t, err)
	wantNumbered(t, records(got), 20)
}
