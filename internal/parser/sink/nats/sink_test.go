package nats_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/sinktest"
)

func isNoOutage(err error) bool {
	var refusal *sink.Refusal
	return errors.Is(err, sink.ErrReopen) || errors.Is(err, sink.ErrFailed) || errors.Is(err, sink.ErrGone) || errors.As(err, &refusal)
}

func TestConformance(t *testing.T) {
	for title, edit := range map[string]func(*config.NATSSink){
		"exactly once":         func(c *config.NATSSink) { c.Delivery = config.ExactlyOnce },
		"exactly once, packed": func(c *config.NATSSink) { c.RecordsPerMessage = 20 },
		"at least once":        func(c *config.NATSSink) { c.Delivery = config.AtLeastOnce },
	} {
		t.Run(title, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Target {
				t.Helper()
				s := startServer(t, &server.Options{})
				p := startProxy(t, func() string { return s.Addr().String() })
				js := client(t, s.ClientURL())
				c := settings(p.url(), edit)
				return sinktest.Target{
					Open: func() (sink.Output, error) { return newOutput(t, c), nil },
					Received: func(stream string) ([]byte, error) {
						out, err := messages(t.Context(), js, fmt.Sprintf("hl.%s.>", stream))
						return records(out), err
					},
					Outage:      p.outage,
					Block:       p.hold,
					ExactlyOnce: c.Delivery != config.AtLeastOnce,
					Fenced:      c.Delivery != config.AtLeastOnce,
				}
			})
		})
	}
}
