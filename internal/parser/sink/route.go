package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Destination is an output and the kind that marks its states in the checkpoint.
type Destination struct {
	// Kind names the sink that can read a state, such as "file" or "nats".
	Kind   string
	Output Output
}

// Routes returns an output that opens each stream at its destination. Streams may share a destination. A state written
// by another kind of sink is not passed on: after a change of sink, the stream continues from its checkpoint position
// at a destination that has no state for it.
func Routes(byStream map[string]Destination) Output { return routes(byStream) }

type routes map[string]Destination

// marked is the JSON form of a state in the checkpoint.
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

// Keep implements Keeper.
func (r routes) Keep() error { return r.each(Keep) }

// Close implements Output.
func (r routes) Close() error { return r.each(Output.Close) }

// each calls f once for each distinct output.
func (r routes) each(f func(Output) error) error {
	var errs []error
	done := map[Output]bool{}
	for _, to := range r {
		if !done[to.Output] {
			done[to.Output] = true
			errs = append(errs, f(to.Output))
		}
	}
	return errors.Join(errs...)
}

// routed is a sink that marks its states with their kind.
type routed struct {
	Sink
	kind  string
	plain json.RawMessage // the last unmarked state; state is its marked form
	state json.RawMessage
}

// Remembers implements Rememberer.
func (r *routed) Remembers() bool { return Remembers(r.Sink) }

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
