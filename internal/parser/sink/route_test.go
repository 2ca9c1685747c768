package sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// remembering is an output whose sinks share one state. It records the states that it was opened with.
type remembering struct {
	sink.Sink
	state  string
	opened []string
	closed int
	fails  error
}

func (r *remembering) Open(_ context.Context, stream string, state json.RawMessage) (sink.Sink, error) {
	r.opened = append(r.opened, stream+" "+string(state))
	return r, r.fails
}

func (r *remembering) Flush(context.Context, bool) (sink.Flushed, error) {
	return sink.Flushed{State: json.RawMessage(r.state)}, nil
}

func (r *remembering) Close() error {
	r.closed++
	return nil
}

func TestEachStreamGoesToItsDestinationAndSeesOnlyTheStatesOfItsKind(t *testing.T) {
	files, kafka := &remembering{state: `{"parts":1}`}, &remembering{state: `{"offset":7}`}
	to := map[string]sink.Destination{
		"fills": {Kind: "file", Output: files}, "trades": {Kind: "kafka", Output: kafka},
		"misc-events": {Kind: "kafka", Output: kafka},
	}
	states := map[string]json.RawMessage{}
	for stream := range to {
		s, err := sink.Routes(to).Open(t.Context(), stream, nil)
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.Flush(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		states[stream] = f.State
	}
	to["fills"] = sink.Destination{Kind: "kafka", Output: kafka}
	files.opened, kafka.opened = nil, nil
	for _, stream := range []string{"fills", "trades"} {
		if _, err := sink.Routes(to).Open(t.Context(), stream, states[stream]); err != nil {
			t.Fatal(err)
		}
	}
	if len(files.opened) > 0 || len(kafka.opened) != 2 || kafka.opened[0] != "fills " ||
		kafka.opened[1] != `trades {"offset":7}` {
		t.Errorf("opened %q and %q", files.opened, kafka.opened)
	}
	if err := sink.Routes(to).Close(); err != nil || files.closed != 0 || kafka.closed != 1 {
		t.Errorf("closed the files %d times and kafka %d times: %v", files.closed, kafka.closed, err)
	}
}

func TestAStreamWithoutDestinationAndAStateThatCannotBeReadAreFailures(t *testing.T) {
	r := sink.Routes(map[string]sink.Destination{"fills": {Kind: "file", Output: &remembering{}}})
	if _, err := r.Open(t.Context(), "trades", nil); !errors.Is(err, sink.ErrFailed) {
		t.Errorf("got %v", err)
	}
	if _, err := r.Open(t.Context(), "fills", json.RawMessage(`{`)); !errors.Is(err, sink.ErrFailed) {
		t.Errorf("got %v", err)
	}
}

func TestAnUnchangedStateStaysTheSameAndAMissingOneMissing(t *testing.T) {
	out := &remembering{state: `{"a":1}`}
	routes := sink.Routes(map[string]sink.Destination{"fills": {Kind: "file", Output: out}})
	s, err := routes.Open(t.Context(), "fills", nil)
	if err != nil {
		t.Fatal(err)
	}
	flush := func() string {
		f, err := s.Flush(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		return string(f.State)
	}
	first := flush()
	if again := flush(); first != `{"kind":"file","state":{"a":1}}` || again != first {
		t.Errorf("%s and %s", first, again)
	}
	out.state = `{"a":2}`
	if changed := flush(); changed == first {
		t.Errorf("still %s", changed)
	}
}
