//go:build !faultinject

package main

import (
	"net/http"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/engine"
)

func withFaults(_ *engine.Engine, h http.Handler) http.Handler { return h }
