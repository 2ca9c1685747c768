package nats_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sinktest"
)

func isNoOutage(err error) bool {
	var refusal *sink.Refusal
	return errors.Is(err, sink.ErrReopen) || errors.Is(err, sink.ErrFailed) || errors.Is(err, sink.ErrGone) ||
		errors.As(err, &refusal)
}

// deliveries are the modes that implement the contract differently.
var deliveries = map[string]func(*config.NATSSink){
	"exactly once":         func(c *config.NATSSink) { c.Delivery = config.ExactlyOnce },
	"exactly once, packed": func(c *config.NATSSink) { c.RecordsPerMessage = 20 },
	"at least once":        func(c *config.NATSSink) { c.Delivery = config.AtLeastOnce },
}

// target returns a target with its own server behind a proxy.
func target(edit func(*config.NATSSink)) func(t *testing.T) sinktest.Target {
	return func(t *testing.T) sinktest.Target {
		t.Helper()
		s := startServer(t)
		p := startProxy(t, func() string { return s.address })
		js := client(t, s.url())
		c := settings(p.url(), edit)
		return sinktest.Target{
			Open: func() (sink.Output, error) { return newOutput(t, c), nil },
			Received: func(stream string) ([]byte, error) {
				out, err := messages(t.Context(), js, fmt.Sprintf("hl.%s.>", stream))
				return records(out), err
			},
			Outage: p.outage,
			Block:  p.hold,
			Recreate: func() error { // the sink creates it again
				s.awaitDeletions(t)
				return ignoreMissing(js.DeleteStream(t.Context(), "HL"))
			},
			ExactlyOnce: c.Delivery != config.AtLeastOnce,
			Fenced:      c.Delivery != config.AtLeastOnce,
		}
	}
}

func TestConformance(t *testing.T) {
	for title, edit := range deliveries {
		t.Run(title, func(t *testing.T) { sinktest.Run(t, target(edit)) })
	}
}

func TestConformanceWithEngine(t *testing.T) {
	for title, edit := range deliveries {
		t.Run(title, func(t *testing.T) { sinktest.RunWithEngine(t, target(edit)) })
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return err
}
