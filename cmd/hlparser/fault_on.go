//go:build faultinject

package main

import (
	"net/http"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/engine"
)

// withFaults adds the endpoints by which the demo makes a pipeline hang.
func withFaults(e *engine.Engine, h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.Handle("/debug/fault/", e.FaultHandler())
	return mux
}
