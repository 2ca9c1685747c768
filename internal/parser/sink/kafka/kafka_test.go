package kafka_test

import (
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sinktest"
)

var deliveries = []config.Delivery{config.AtLeastOnce, config.ExactlyOnce}

// target returns a target with its own cluster behind a proxy.
func target(delivery config.Delivery) func(t *testing.T) sinktest.Target {
	return func(t *testing.T) sinktest.Target {
		t.Helper()
		c := newCluster(t)
		topics := []string{"fills", "trades", "stream-0", "stream-1", "stream-2", "stream-3"}
		for i, stream := range topics {
			topics[i] = c.topic(stream)
			c.createTopic(topics[i], 3)
		}
		processes := &processes{t: t}
		t.Cleanup(processes.crash)
		return sinktest.Target{
			Open: func() (sink.Output, error) {
				return processes.start(c.output(c.config(delivery))), nil
			},
			Crash:  processes.crash,
			Outage: c.proxy.setDown,
			Block:  c.proxy.setBlocked,
			Recreate: func() error {
				c.deleteTopics(append([]string{c.positions()}, topics...)...)
				for _, topic := range topics {
					c.createTopic(topic, 2)
				}
				return nil
			},
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
