package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Destination is an output and what its states are marked with.
type Destination struct {
	// Kind says which sink can read a state: "file", "nats".
	Kind   string
	Output Output
}

// Routes returns the output that hands each stream to its destination; streams may share one. A state that another kind of sink
// left is not shown to this one: after a change of sink the stream goes on from its position, at a destination that knows nothing
// of it.
func Routes(of map[string]Destination) Output { return routes(of) }

type routes map[string]Destination

// marked is a state as the checkpoint holds it.
type marked struct {
	Kind  string          `json:"kind"`
	State json.RawMessage `json:"state,omitempty"`
}

// Open implements Output.
func (r routes) Open(ctx context.Context, stream string, state json.RawMessage) (Sink, error) {
	to, ok := r[stream]
	if !ok {
		return nil, fmt.Errorf("%w: stream %s has no sink", ErrFailed, stream)
	}
	var m marked
	if len(state) > 0 {
		if err := json.Unmarshal(state, &m); err != nil {
			return nil, fmt.Errorf("%w: reading the sink's part of the checkpoint of %s: %w", ErrFailed, stream, err)
		}
	}
	if m.Kind != to.Kind {
		m.State = nil
	}
	s, err := to.Output.Open(ctx, stream, m.State)
	if err != nil {
		return nil, err
	}
	return &routed{Sink: s, kind: to.Kind}, nil
}

// Close implements Output.
func (r routes) Close() error {
	var errs []error
	closed := map[Output]bool{}
	for _, to := range r {
		if !closed[to.Output] {
			closed[to.Output] = true
			errs = append(errs, to.Output.Close())
		}
	}
	return errors.Join(errs...)
}

// routed marks the states of a sink.
type routed struct {
	Sink
	kind  string
	plain json.RawMessage // the last state, and how it was marked
	state json.RawMessage
}

// Flush implements Sink.
func (r *routed) Flush(ctx context.Context, final bool) (Flushed, error) {
	f, err := r.Sink.Flush(ctx, final)
	if err != nil || f.State == nil {
		return f, err
	}
	if r.state == nil || string(r.plain) != string(f.State) {
		if r.state, err = json.Marshal(marked{r.kind, f.State}); err != nil {
			return Flushed{}, fmt.Errorf("marking a state of the %s sink: %w", r.kind, err)
		}
		r.plain = f.State
	}
	f.State = r.state
	return f, nil
}
