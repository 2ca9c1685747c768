package sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

type counted struct{ opened, closed int }

func (c *counted) Open(context.Context, string, json.RawMessage) (sink.Sink, error) {
	c.opened++
	return nil, nil
}

func (c *counted) Close() error {
	c.closed++
	return nil
}

func TestADeferredOutputIsOpenedOnceByWhoAsksFirstAndAgainAfterAFailure(t *testing.T) {
	var output counted
	calls := 0
	d := sink.Deferred(func(context.Context) (sink.Output, error) {
		if calls++; calls == 1 {
			return nil, errors.New("not yet")
		}
		return &output, nil
	})
	if _, err := d.Open(t.Context(), "fills", nil); err == nil {
		t.Fatal("the failure to open is hidden")
	}
	for range 3 {
		if _, err := d.Open(t.Context(), "fills", nil); err != nil {
			t.Fatal(err)
		}
	}
	if calls != 2 || output.opened != 3 {
		t.Errorf("opened %d times for %d sinks", calls, output.opened)
	}
	if err := d.Close(); err != nil || output.closed != 1 {
		t.Errorf("closed %d times, %v", output.closed, err)
	}
}

func TestAStreamThatWaitsForADeferredOutputHearsItsContext(t *testing.T) {
	opening, release := make(chan struct{}), make(chan struct{})
	d := sink.Deferred(func(context.Context) (sink.Output, error) {
		close(opening)
		<-release
		return &counted{}, nil
	})
	var first sync.WaitGroup
	first.Go(func() { _, _ = d.Open(t.Context(), "fills", nil) })
	<-opening
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Open(ctx, "trades", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(release)
	first.Wait()
}

func TestADeferredOutputThatNobodyAskedForClosesNothing(t *testing.T) {
	d := sink.Deferred(func(context.Context) (sink.Output, error) { return nil, errors.New("opened") })
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
