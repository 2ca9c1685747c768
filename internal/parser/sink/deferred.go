package sink

import (
	"context"
	"encoding/json"
)

// Deferred returns an output that open opens when the first stream asks for its sink. Opening may wait for another parser to go;
// deferred, a process can answer for itself meanwhile. When open fails, the next stream that asks has it called again.
func Deferred(open func(context.Context) (Output, error)) Output {
	d := &deferred{open: open, turn: make(chan struct{}, 1)}
	d.turn <- struct{}{}
	return d
}

type deferred struct {
	open   func(context.Context) (Output, error)
	turn   chan struct{} // held by the one who opens
	output Output        // the holder's; nil until it is open
}

// Open implements Output.
func (d *deferred) Open(ctx context.Context, stream string, state json.RawMessage) (Sink, error) {
	output, err := d.opened(ctx)
	if err != nil {
		return nil, err
	}
	return output.Open(ctx, stream, state)
}

func (d *deferred) opened(ctx context.Context) (Output, error) {
	select {
	case <-d.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { d.turn <- struct{}{} }()
	if d.output == nil {
		var err error
		if d.output, err = d.open(ctx); err != nil {
			d.output = nil
			return nil, err
		}
	}
	return d.output, nil
}

// Close implements Output.
func (d *deferred) Close() error {
	<-d.turn
	defer func() { d.turn <- struct{}{} }()
	if d.output == nil {
		return nil
	}
	return d.output.Close()
}
