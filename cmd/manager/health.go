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
	// headerTimeout bounds how long a probe takes to send its headers.
	headerTimeout = 5 * time.Second
	// idleTimeout bounds how long a connection waits for the next probe.
	idleTimeout = 90 * time.Second
)

// serveHealth serves /healthz, which succeeds while the process answers, and /readyz, which runs the checks, until stop
// is called. It serves before the manager exists, which requires an API server, and after the manager has stopped. It
// serves nothing if the address is "" or "0".
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
		mux.Handle(path+"/", handler) // a single check
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return func() error {
		// The process exits next, so the result of an interrupted probe does not matter.
		if err := errors.Join(server.Close(), <-served); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving health: %w", err)
		}
		return nil
	}, nil
}

// startup is the readiness of a process that waits for the API server.
type startup struct{ reached chan struct{} }

func newStartup() *startup { return &startup{reached: make(chan struct{})} }

// Check implements healthz.Checker. It fails until the API server was reached.
func (s *startup) Check(*http.Request) error {
	select {
	case <-s.reached:
		return nil
	default:
		return errors.New("waiting for the API server: see the log for the reason")
	}
}

// await calls try until it succeeds or the context ends. It reports to failed the first error, each error with another
// text than the last one reported, and one a minute.
func (s *startup) await(ctx context.Context, try func(context.Context) error, failed func(error)) error {
	var reported string
	var reportedAt time.Time
	for pause := minBackoff; ; pause = min(2*pause, maxBackoff) {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := try(attempt)
		cancel()
		if err == nil {
			close(s.reached)
			return nil
		}
		if text := err.Error(); text != reported || time.Since(reportedAt) >= time.Minute {
			failed(err)
			reported, reportedAt = text, time.Now()
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
