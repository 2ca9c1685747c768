package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
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
)

// parserName is what the simulated parsers, and their containers, are called.
const parserName = "hlparser"

// maxNodes is how many nodes have an address: two bytes of it, without the ends.
const maxNodes = 200 * 250

// kinds are what a parser may do instead of answering well, by its number: in each hundred one is slow, and in each five hundred one
// hangs and one lies, as may be in a fleet that is well.
type kind int

const (
	good  kind = iota
	slow       // takes a third of a second
	hangs      // never answers
	lies       // answers with what is no report
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

// badNodes is how many of the first n nodes never give a report.
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

// podName is the name that the operator gives to the pod on a node.
func podName(i int) string {
	return podspec.PodName(objectName, target.Target{Name: nodeName(i), Node: nodeName(i)})
}

// nodeNumber is the inverse of nodeName.
func nodeNumber(name string) (int, bool) {
	i, err := strconv.Atoi(strings.TrimPrefix(name, "node-"))
	return i, err == nil && name == nodeName(i)
}

// address of the parser on a node; second is its second byte, by which runs side by side keep out of each other's way.
func address(second, i int) string { return fmt.Sprintf("127.%d.%d.%d", second, i/250+1, i%250+1) }

// serveParsers answers for the parsers of all nodes, each at its own address, until the context ends. At --control it takes orders:
// POST /stuck/NUMBER makes one parser stand still, DELETE lets it go on.
func serveParsers(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet(parsersCommand, flag.ContinueOnError)
	nodes := fs.Int("nodes", 0, "how many")
	second := fs.Int("second", 0, "second byte of their addresses")
	streams := fs.Int("streams", 0, "streams in each report")
	control := fs.String("control", "", "address to take orders at")
	if err := fs.Parse(args); err != nil {
		return err
	}
	parsers := make([]*parser, *nodes)
	var servers []*http.Server
	ended := make(chan error, *nodes+1)
	serve := func(address string, handler http.Handler) error {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("standing in for a parser: %w", err)
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ErrorLog: log.New(discard{}, "", 0)}
		servers = append(servers, server)
		go func() { ended <- server.Serve(listener) }()
		return nil
	}
	defer func() {
		for _, s := range servers {
			_ = s.Close() // it ends with us
		}
	}()
	for i := range parsers {
		parsers[i] = newParser(i, *streams)
		if err := serve(net.JoinHostPort(address(*second, i), strconv.Itoa(podspec.ReportPort)), parsers[i]); err != nil {
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
		return fmt.Errorf("standing in for parsers: %w", err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// parser answers for one parser. Every figure wobbles by a fifth around what a steady stream makes it.
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
		_, _ = w.Write([]byte(`{"parser":"hlparser","streams":"none of your business"}`)) // the operator may be gone
		return
	}
	body, err := p.report(time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the operator may be gone
}

// wobble returns a figure with a fifth more or less.
func wobble[N int64 | float64](n N) N { return n*4/5 + N(rand.Int64N(int64(n)*2/5+1)) }

func (p *parser) report(now time.Time) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	passed := now.Sub(p.asked).Seconds()
	p.asked, p.is.Now = now, now
	p.is.Process.RSSBytes, p.is.Process.HeapBytes = wobble[int64](60*mebibyte), wobble[int64](30*mebibyte)
	p.is.Process.CPUSecondsTotal += wobble(passed*100) / 1000
	for i := range p.is.Streams {
		s := &p.is.Streams[i]
		s.LastLineAt = &now
		if p.stuck {
			s.UncommittedBytes += int64(passed * bytesASecond)
			s.LagSeconds += passed
			continue
		}
		step := wobble(int64(passed*bytesASecond) + 1)
		s.BufferBytes, s.InFlightBytes, s.UncommittedBytes = wobble[int64](200_000), wobble[int64](100_000), wobble[int64](1_000_000)
		s.BufferLines, s.InFlightLines, s.LastBatchLines = s.BufferBytes/lineBytes, s.InFlightBytes/lineBytes, wobble[int64](1000)
		s.LagSeconds = float64(wobble[int64](100_000)) / 1e6
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

// order tells the process that stands in for parsers what to do.
func order(ctx context.Context, method, control string, node int) error {
	request, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://%s/stuck/%d", control, node), http.NoBody)
	if err != nil {
		return fmt.Errorf("ordering a fault: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ordering a fault: %w", err)
	}
	if err := response.Body.Close(); err != nil {
		return fmt.Errorf("ordering a fault: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return errors.New("ordering a fault: " + response.Status)
	}
	return nil
}
