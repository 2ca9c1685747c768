package engine

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

func TestASampleHasRecordsAsTheSinkAcknowledgedThem(t *testing.T) {
	b, out := newBench(t), &memory{}
	r := b.start(out)
	defer func() {
		if _, err := r.stop(); err != nil {
			t.Error(err)
		}
	}()
	deadline := time.Now().Add(waitTimeout)
	for n := 0; ; n += 10 {
		var got sampling.Sample
		var err error
		collected := make(chan struct{})
		go func() {
			defer close(collected)
			got, err = r.sampler.Collect(t.Context(), sampling.Filter{Stream: "Trades", Coin: "BTC"})
		}()
		b.node("node_trades/20260430/8", trades(n, n+10))
		<-collected
		if err != nil {
			t.Fatal(err)
		}
		for i := range got.Records {
			if text := string(got.Records[i].Text); !strings.Contains(out.text(), text+"\n") {
				t.Errorf("%s was not delivered", text)
			}
		}
		if len(got.Records) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no record was sampled")
		}
	}
}

func TestARecordThatTheSinkDoesNotAcknowledgeIsInNoSample(t *testing.T) {
	down := errors.New("down")
	b, out := newBench(t), &memory{fail: func(int, sink.Batch) error { return down }}
	b.node("node_trades/20260430/8", trades(0, 10))
	r := b.start(out)
	defer func() {
		if _, err := r.stop(); err != nil {
			t.Error(err)
		}
	}()
	r.until("an outage", func(s report.Stream) bool { return s.Sink.State == report.SinkRetrying })
	got, err := r.sampler.Collect(t.Context(), sampling.Filter{})
	if err != nil || got.Delivered != 0 || len(got.Records) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
