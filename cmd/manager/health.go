package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/fair"
)

const (
	// probeHeader bounds how long the headers of a probe take, and probeIdle how long its connection waits for the next
	// one.
	probeHeader = 5 * time.Second
	probeIdle   = 90 * time.Second
)

// serveHealth serves /healthz, which says that the process answers, and /readyz, which says what the checks say, until
// stop is called. It is there before the manager is made, which takes an API server, and after it has ended. No
// address, or "0", is no server.
func serveHealth(address string, ready map[string]healthz.Checker) (stop func() error, err error) {
	if address == "" || address == "0" {
		return func() error { return nil }, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serving health: %w", err)
	}
	mux := http.NewServeMux()
	for path, checks := range map[string]map[string]healthz.Checker{"/healthz": {"ping": healthz.Ping}, "/readyz": ready} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
		mux.Handle(path, handler)
		mux.Handle(path+"/", handler) // one check by itself
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: probeHeader, IdleTimeout: probeIdle}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return func() error {
		// The process ends next, and a probe that is cut off says nothing any more.
		if err := errors.Join(server.Close(), <-served); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving health: %w", err)
		}
		return nil
	}, nil
}

// beginning is the readiness of a process that waits for the API server.
type beginning struct{ reached chan struct{} }

func newBeginning() *beginning { return &beginning{reached: make(chan struct{})} }

// Check implements healthz.Checker: it fails until the API server was reached.
func (b *beginning) Check(*http.Request) error {
	select {
	case <-b.reached:
		return nil
	default:
		return errors.New("waiting for the API server, which the log says more of")
	}
}

// await asks until there is an answer, or the context ends. The first failure is logged, and each that reads
// differently, and one a minute.
func (b *beginning) await(ctx context.Context, ask func(context.Context) error, failed func(error)) error {
	var said string
	var saidAt time.Time
	for pause := firstAsk; ; pause = min(2*pause, longestAsk) {
		attempt, cancel := context.WithTimeout(ctx, longestAttempt)
		err := ask(attempt)
		cancel()
		if err == nil {
			close(b.reached)
			return nil
		}
		if text := err.Error(); text != said || time.Since(saidAt) >= time.Minute {
			failed(err)
			said, saidAt = text, time.Now()
		}
		timer := time.NewTimer(fair.Jittered(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("waiting for the API server: %w", ctx.Err())
		}
	}
}
