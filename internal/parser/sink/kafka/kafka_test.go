package kafka_test

import (
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/sinktest"
)

var deliveries = []config.Delivery{config.AtLeastOnce, config.ExactlyOnce}

// target returns the suite's hands on a cluster of its own behind a proxy.
func target(delivery config.Delivery) func(t *testing.T) sinktest.Target {
	return func(t *testing.T) sinktest.Target {
		t.Helper()
		c := newCluster(t)
		for _, stream := range []string{"fills", "trades", "stream-0", "stream-1", "stream-2", "stream-3"} {
			c.makeTopic(c.topic(stream), 3)
		}
		processes := &processes{t: t}
		t.Cleanup(processes.crash)
		return sinktest.Target{
			Open: func() (sink.Output, error) {
				return processes.start(c.output(c.config(delivery))), nil
			},
			Crash:       processes.crash,
			Outage:      c.proxy.setDown,
			Block:       c.proxy.setBlocked,
			Received:    func(stream string) ([]byte, error) { return c.received(c.topic(stream)) },
			ExactlyOnce: delivery == config.ExactlyOnce,
			Fenced:      delivery == config.ExactlyOnce,
			OrderKey:    func(r sink.Record) string { return r.Coin },
		}
	}
}

func TestConformance(t *testing.T) {
	for _, delivery := range deliveries {
		t.Run(string(delivery), func(t *testing.T) { sinktest.Run(t, target(delivery)) })
	}
}

func TestConformanceWithEngine(t *testing.T) {
	for _, delivery := range deliveries {
		t.Run(string(delivery), func(t *testing.T) { sinktest.RunWithEngine(t, target(delivery)) })
	}
}
