//go:build faultinject

package engine

import (
	"context"
	"net/http"
	"sync/atomic"
)

// fault makes the processors hang, for the demo and for tests of the operator. It exists only with the tag faultinject.
type fault struct{ hang atomic.Bool }

// point blocks for ever once a hang was asked for, deaf to shutdown, as a deadlock would be.
func (f *fault) point(context.Context, string) {
	if f.hang.Load() {
		select {}
	}
}

// FaultHandler serves POST /debug/fault/hang: every pipeline hangs at its next batch, while the process goes on answering.
func (e *Engine) FaultHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /debug/fault/hang", func(w http.ResponseWriter, _ *http.Request) {
		e.fault.hang.Store(true)
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}
