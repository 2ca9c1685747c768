package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
)

const (
	// Port is the port on which a parser listens in a pod.
	Port = 9464
	// StartPath is the path for a startup probe. The response waits until the parser is ready, for at most StartWait,
	// and reports only that the process answers. Therefore a successful start fails no probe. A parser that does not
	// know the query serves it as /healthz.
	StartPath = "/healthz?" + startQuery
	// StartWait bounds how long the response at StartPath waits. It must be shorter than requestTime, after which there
	// would be no response. A start takes a second or two.
	StartWait = 4 * time.Second
	// StatusPath is the path of the report.
	StatusPath = "/status"
	// StackPath is the path of the goroutines' stacks, to find out why a parser does not make progress.
	StackPath = "/debug/stack"
	// SealedMetricsPath is the path of all metrics, as text, for the operator only. A parser without keys does not have
	// it.
	SealedMetricsPath = "/debug/metrics"
	// startQuery makes /healthz wait for readiness.
	startQuery = "start"
	// readyPollInterval is how often readiness is checked meanwhile.
	readyPollInterval = 50 * time.Millisecond
	// maxStacks bounds the stacks in a response, in bytes. It fits about two thousand goroutines; a parser has some
	// tens.
	maxStacks = 1 << 20
	// maxSealed bounds a sealed response, in bytes, because both ends hold it in memory. A report has a few KiB. Stacks
	// are cut to fit.
	maxSealed = 192 << 10
	// maxHeader bounds the headers of a request, in bytes; net/http adds 4 KiB.
	maxHeader = 4 << 10
	// requestTime bounds a request, from its first byte to the end of the response. Responses are a few KiB.
	requestTime = 5 * time.Second
	// shutdownTime is how long outstanding requests may take when the server stops.
	shutdownTime = 500 * time.Millisecond
)

// Source provides the figures of a report.
type Source interface {
	// Streams returns the figures of every stream, without waiting for a pipeline.
	Streams() []Stream
	// Ready reports whether every stream has started and none has failed.
	Ready() bool
	// Distributions returns the histograms; nil for none.
	Distributions() *Distributions
}

// Identity holds the values that do not change while the process runs.
type Identity struct {
	Version, Target, Pod string
	Namespace, PodUID    string // of the pod; empty outside Kubernetes
	StartedAt            time.Time
	MemoryLimitBytes     int64 // limit of the cgroup, in bytes; 0: none
	// Metrics is what every scrape gets beyond the default metrics. A scrape may ask for more.
	Metrics []config.MetricsDetail
}

// Gather builds a report.
func Gather(id Identity, source Source, now time.Time) Report {
	return Report{
		Version: id.Version, Parser: "hlparser", Target: id.Target, Pod: id.Pod, Namespace: id.Namespace, PodUID: id.PodUID,
		StartedAt: id.StartedAt.UTC(), Now: now.UTC(),
		Process: Process{
			RSSBytes: residentBytes(), HeapBytes: heapBytes(), Goroutines: runtime.NumGoroutine(),
			MemoryLimitBytes: id.MemoryLimitBytes, CPUSecondsTotal: cpuSeconds(), CPULimit: cpuLimit(),
		},
		Streams: source.Streams(),
	}
}

// SealedHandler serves the same as Handler, but GET /status and /debug/stack only to the operator. To the operator only
// it also serves all metrics, and samples of the records that are delivered.
func SealedHandler(id Identity, source Source, sampler *sampling.Sampler, guard *seal.Guard) http.Handler {
	sealed := func(next http.Handler) http.Handler { return guard.Handler(maxSealed, next) }
	mux := http.NewServeMux()
	scrapes := handle(mux, id, source, maxSealed, sealed)
	mux.Handle("GET "+SealedMetricsPath, sealed(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", string(textFormat))
		_, _ = w.Write(scrapes.text(maxSealed)) // an error means that the client has gone
	})))
	samples := sealed(sampling.Handler(sampler, time.Now))
	mux.Handle("GET "+sampling.Path, samples)
	mux.Handle("GET "+sampling.Path+"/", samples)
	return mux
}

// Handler serves GET /status, /metrics, /healthz, /readyz and /debug/stack to every client, and no data of a stream.
//
// /healthz responds as long as the process can. The operator judges a pipeline that is stuck or waits for its sink,
// because the operator has budgets; the kubelet must not kill the parser in the middle of an outage. StartPath has the
// same response, with a delay.
func Handler(id Identity, source Source) http.Handler {
	mux := http.NewServeMux()
	handle(mux, id, source, maxStacks, func(next http.Handler) http.Handler { return next })
	return mux
}

// handle adds the endpoints to mux. guarded wraps those that are for the operator only.
func handle(
	mux *http.ServeMux, id Identity, source Source, longestStacks int, guarded func(http.Handler) http.Handler,
) *scrapes {
	scrapes := newScrapes(id, source)
	mux.Handle("GET /metrics", scrapes)
	mux.Handle("GET "+StatusPath, guarded(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(Gather(id, source, time.Now())) // an error means that the client has gone
	})))
	mux.Handle("GET "+StackPath, guarded(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(stacks(longestStacks)) // an error means that the client has gone
	})))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has(startQuery) {
			awaitReady(r.Context(), source)
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !source.Ready() {
			http.Error(w, "a stream has not started, or has failed", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	return scrapes
}

// awaitReady returns when the source is ready, when StartWait has passed, or when the client has gone.
func awaitReady(ctx context.Context, source Source) {
	ctx, cancel := context.WithTimeout(ctx, StartWait)
	defer cancel()
	poll := time.NewTicker(readyPollInterval)
	defer poll.Stop()
	for !source.Ready() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// stacks returns the stack of every goroutine and how long it has waited, at most limit bytes. It contains code and
// addresses, and no data of a stream.
func stacks(limit int) []byte {
	for size := min(64<<10, limit); ; size = min(2*size, limit) {
		text := make([]byte, size)
		if n := runtime.Stack(text, true); n < size || size == limit {
			return text[:n]
		}
	}
}

// Serve serves on a listener until the context is done, with a bounded number of connections.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	bounded := newConnections(listener, maxConnections, maxConnectionsEach)
	server := &http.Server{
		Handler:           http.MaxBytesHandler(handler, 1<<10),
		ReadHeaderTimeout: requestTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: time.Minute,
		MaxHeaderBytes: maxHeader, ConnState: bounded.stateChanged,
		ErrorLog: log.New(io.Discard, "", 0), // malformed requests of strangers are not logged
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if server.Shutdown(ending) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(bounded)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving the report on %s: %w", listener.Addr(), err)
}
