package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// parserName is the name of the simulated parsers and their containers.
const parserName = "hlparser"

// maxNodes is the number of available addresses: two bytes, without the ends of their ranges.
const maxNodes = 200 * 250

// kind is the behaviour of a parser, determined by its number. One in a hundred is slow, and in each five hundred one
// hangs and one sends garbage, as may happen in a healthy fleet.
type kind int

const (
	good  kind = iota
	slow       // takes 0.3 s to answer
	hangs      // never answers
	lies       // answers with an invalid report
)

func kindOf(i int) kind {
	switch {
	case i%100 == 7:
		return slow
	case i%500 == 11:
		return hangs
	case i%500 == 13:
		return lies
	}
	return good
}

// badNodes returns how many of the first n nodes never report.
func badNodes(n int) int {
	bad := 0
	for i := range n {
		if k := kindOf(i); k == hangs || k == lies {
			bad++
		}
	}
	return bad
}

func nodeName(i int) string { return fmt.Sprintf("node-%05d", i) }

// podName returns the name that the operator gives to the pod on a node.
func podName(i int) string {
	return podspec.PodName(objectName, target.Target{Name: nodeName(i), Node: nodeName(i)})
}

// longestReport bounds a parser's answer, in bytes.
const longestReport = 64 << 10

// podKey returns the key pair of the parser on a node. It is the same in all processes of a run, and not a secret.
func podKey(i int) (*seal.Key, error) {
	private := sha256.Sum256([]byte("the parser on " + nodeName(i)))
	return seal.ParsePrivateKey(base64.StdEncoding.EncodeToString(private[:]))
}

// nodeNumber is the inverse of nodeName.
func nodeNumber(name string) (int, bool) {
	i, err := strconv.Atoi(strings.TrimPrefix(name, "node-"))
	return i, err == nil && name == nodeName(i)
}

// address returns the address of the parser on a node. second is its second byte, which separates concurrent runs.
func address(second, i int) string { return fmt.Sprintf("127.%d.%d.%d", second, i/250+1, i%250+1) }

// serveParsers serves the reports of all nodes' parsers, each at its own address, until the context ends. The control
// address accepts orders: POST /stuck/NUMBER makes one parser hang, DELETE lets it continue.
func serveParsers(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet(parsersCommand, flag.ContinueOnError)
	nodes := fs.Int("nodes", 0, "number of nodes")
	smalls := fs.Int("small", 0, "number of further nodes, for small objects")
	second := fs.Int("second", 0, "second byte of the addresses")
	streams := fs.Int("streams", 0, "streams in each report")
	control := fs.String("control", "", "address that accepts orders")
	operators := fs.String("operators", "", "file with the operator's public keys")
	if err := fs.Parse(args); err != nil {
		return err
	}
	parsers := make([]*parser, *nodes+*smalls)
	var servers []*http.Server
	ended := make(chan error, len(parsers)+1)
	serve := func(address string, handler http.Handler) error {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("simulating a parser: %w", err)
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ErrorLog: log.New(discard{}, "", 0)}
		servers = append(servers, server)
		go func() { ended <- server.Serve(listener) }()
		return nil
	}
	defer func() {
		for _, s := range servers {
			_ = s.Close() // the server ends with this process
		}
	}()
	for i := range parsers {
		parsers[i] = newParser(i, *streams)
		if i >= *nodes {
			parsers[i].is.Pod = smallPod(i-*nodes, i)
		}
		key, err := podKey(i)
		if err != nil {
			return err
		}
		sealed := seal.NewGuard(key, *operators, slog.New(slog.DiscardHandler)).Handler(longestReport, parsers[i])
		if err := serve(net.JoinHostPort(address(*second, i), strconv.Itoa(podspec.ReportPort)), sealed); err != nil {
			return err
		}
	}
	orders := http.NewServeMux()
	orders.HandleFunc("/stuck/{number}", func(w http.ResponseWriter, r *http.Request) {
		i, err := strconv.Atoi(r.PathValue("number"))
		if err != nil || i < 0 || i >= len(parsers) {
			http.NotFound(w, r)
			return
		}
		parsers[i].setStuck(r.Method == http.MethodPost)
	})
	if err := serve(*control, orders); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return fmt.Errorf("simulating parsers: %w", err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// parser simulates one parser. Every figure fluctuates by a fifth around the values of a steady stream.
type parser struct {
	kind kind

	mu    sync.Mutex
	asked time.Time
	stuck bool
	is    report.Report
}

const (
	bytesASecond = 2_000_000
	lineBytes    = 478
	mebibyte     = 1 << 20
)

func newParser(i, streams int) *parser {
	now := time.Now()
	p := &parser{kind: kindOf(i), asked: now, is: report.Report{
		Version: "bench", Parser: parserName, Target: nodeName(i), Pod: podName(i), StartedAt: now,
		Process: report.Process{Goroutines: 40, MemoryLimitBytes: 512 * mebibyte, CPULimit: 2},
	}}
	names := []string{"OrderStatuses", "Fills", "RawBookDiffs", "Trades", "MiscEvents", "ReplicaCmds", "SystemActions"}
	for _, name := range names[:streams] {
		file := "node_" + strings.ToLower(name) + "_streaming/hourly/20260430/20"
		p.is.Streams = append(p.is.Streams, report.Stream{
			Name: name, Mode: "Streaming", State: report.Running, BufferLimitBytes: 32 * mebibyte, LargestLineBytes: 2048,
			UncommittedBytes: new(int64), LagSeconds: new(float64),
			File: file, Position: file + ":123456789", CommittedPosition: file + ":123000000",
			Sink: report.Sink{State: report.SinkHealthy, Since: &now, LastAckAt: &now},
		})
	}
	return p
}

func (p *parser) setStuck(stuck bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stuck = stuck
}

func (p *parser) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch p.kind {
	case slow:
		select {
		case <-time.After(300 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
	case hangs:
		<-r.Context().Done()
		return
	case lies:
		// The operator may have disconnected.
		_, _ = w.Write([]byte(`{"parser":"hlparser","streams":"none of your business"}`))
		return
	}
	body, err := p.report(time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the operator may have disconnected
}

// wobble returns a figure that is up to a fifth smaller or larger.
func wobble[N int64 | float64](n N) N { return n*4/5 + N(rand.Int64N(int64(n)*2/5+1)) }

func (p *parser) report(now time.Time) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	passed := now.Sub(p.asked).Seconds()
	p.asked, p.is.Now = now, now
	p.is.Process.RSSBytes, p.is.Process.HeapBytes = new(wobble[int64](60*mebibyte)), wobble[int64](30*mebibyte)
	p.is.Process.CPUSecondsTotal += wobble(passed*100) / 1000
	for i := range p.is.Streams {
		s := &p.is.Streams[i]
		s.LastLineAt = &now
		if p.stuck {
			*s.UncommittedBytes += int64(passed * bytesASecond)
			*s.LagSeconds += passed
			continue
		}
		step := wobble(int64(passed*bytesASecond) + 1)
		s.BufferBytes, s.InFlightBytes = wobble[int64](200_000), wobble[int64](100_000)
		*s.UncommittedBytes = wobble[int64](1_000_000)
		s.BufferLines, s.InFlightLines = s.BufferBytes/lineBytes, s.InFlightBytes/lineBytes
		s.LastBatchLines = wobble[int64](1000)
		*s.LagSeconds = float64(wobble[int64](100_000)) / 1e6
		s.ReadBytesTotal += step
		s.ParsedBytesTotal, s.AckedBytesTotal, s.CommittedBytesTotal = s.ReadBytesTotal, s.ReadBytesTotal, s.ReadBytesTotal
		s.BatchesTotal += 50
		s.LinesTotal += step / lineBytes
		s.EventsTotal, s.DeliveredTotal = s.LinesTotal, s.LinesTotal/4
		s.LastBlock += 70
		s.LastCommitAt, s.Sink.LastAckAt = &now, &now
		s.Sink.BusySecondsTotal += passed * 0.05
	}
	return json.Marshal(p.is)
}

// order sends an order to the process that simulates the parsers.
func order(ctx context.Context, method, control string, node int) error {
	request, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://%s/stuck/%d", control, node), http.NoBody)
	if err != nil {
		return fmt.Errorf("sending an order: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("sending an order: %w", err)
	}
	if err := response.Body.Close(); err != nil {
		return fmt.Errorf("sending an order: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return errors.New("sending an order: " + response.Status)
	}
	return nil
}
