//go:build faultinject

package engine

import (
	"context"
	"net/http"
	"sync/atomic"
)

// fault makes the processors hang, for the demo and for tests of the operator. It exists only in builds with the tag
// faultinject.
type fault struct{ hang atomic.Bool }

// failpoint blocks forever once a hang was requested. It ignores shutdown, as a deadlock would.
func (f *fault) failpoint(context.Context, string) {
	if f.hang.Load() {
		select {}
	}
}

// FaultHandler serves POST /debug/fault/hang: every pipeline hangs at its next batch, while the process continues to
// answer requests.
func (e *Engine) FaultHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /debug/fault/hang", func(w http.ResponseWriter, _ *http.Request) {
		e.fault.hang.Store(true)
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}
