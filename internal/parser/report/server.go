package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// Port is where a parser listens in a pod.
	Port = 9464
	// StackPath is where a parser says what its goroutines do, for whoever wants to know why it does not go on.
	StackPath = "/debug/stack"
	// maxStacks bounds that: some two thousand goroutines. A parser has some tens.
	maxStacks = 1 << 20
	// requestTime bounds a request from its first byte to the end of its answer. Answers are a few KiB.
	requestTime = 5 * time.Second
	// shutdownTime is how long requests under way may take when the server stops.
	shutdownTime = 500 * time.Millisecond
)

// Source is what is reported.
type Source interface {
	// Streams returns every stream's figures, without waiting for a pipeline.
	Streams() []Stream
	// Ready tells whether tailing has begun.
	Ready() bool
}

// Identity is what does not change while the process lives.
type Identity struct {
	Version, Target, Pod string
	StartedAt            time.Time
	MemoryLimitBytes     int64 // of the cgroup; 0: none
}

// Gather makes a report.
func Gather(id Identity, source Source, now time.Time) Report {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return Report{
		Version: id.Version, Parser: "hlparser", Target: id.Target, Pod: id.Pod,
		StartedAt: id.StartedAt.UTC(), Now: now.UTC(),
		Process: Process{
			RSSBytes: residentBytes(), HeapBytes: int64(memory.HeapAlloc), Goroutines: runtime.NumGoroutine(),
			MemoryLimitBytes: id.MemoryLimitBytes, CPUSecondsTotal: cpuSeconds(), CPULimit: cpuLimit(),
		},
		Streams: source.Streams(),
	}
}

// Handler serves GET /status, /metrics, /healthz, /readyz and /debug/stack.
//
// /healthz answers as long as the process can: a pipeline that is stuck or waits for its sink is judged by the operator,
// which has budgets, and must not be killed by the kubelet in the middle of an outage.
func Handler(id Identity, source Source) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(id, source),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(Gather(id, source, time.Now())) // the client has gone
	})
	mux.HandleFunc("GET "+StackPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(stacks()) // the client has gone
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !source.Ready() {
			http.Error(w, "tailing has not begun", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	return mux
}

// stacks says where every goroutine is and for how long it has waited there, at most maxStacks of it: code and addresses, and nothing
// of what a stream holds.
func stacks() []byte {
	for size := 64 << 10; ; size *= 2 {
		text := make([]byte, size)
		if n := runtime.Stack(text, true); n < size || size == maxStacks {
			return text[:n]
		}
	}
}

// Serve answers on a listener until the context is done.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           http.MaxBytesHandler(handler, 1<<10),
		ReadHeaderTimeout: requestTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(listener)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving the report on %s: %w", listener.Addr(), err)
}

// BuildVersion is the version that the build was told, or else what the module system knows of it.
func BuildVersion(told string) string {
	if told != "" {
		return told
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
