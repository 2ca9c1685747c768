package sink

import (
	"context"
	"encoding/json"
)

// Deferred returns an output that calls open when the first stream opens its sink. Opening may wait until another
// parser releases the destination. With Deferred the process can serve its probes and metrics meanwhile. If open fails,
// the next call of Open calls it again.
func Deferred(open func(context.Context) (Output, error)) Output {
	d := &deferred{open: open, sem: make(chan struct{}, 1)}
	d.sem <- struct{}{}
	return d
}

type deferred struct {
	open   func(context.Context) (Output, error)
	sem    chan struct{} // a semaphore; its holder may open or close output
	output Output        // guarded by sem; nil until open has succeeded
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
	case <-d.sem:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { d.sem <- struct{}{} }()
	if d.output == nil {
		var err error
		if d.output, err = d.open(ctx); err != nil {
			d.output = nil
			return nil, err
		}
	}
	return d.output, nil
}

// Keep implements Keeper. An output that is not open has nothing to keep. While another goroutine opens it, Keep does
// nothing.
func (d *deferred) Keep() error {
	select {
	case <-d.sem:
	default:
		return nil
	}
	defer func() { d.sem <- struct{}{} }()
	if d.output == nil {
		return nil
	}
	return Keep(d.output)
}

// Close implements Output.
func (d *deferred) Close() error {
	<-d.sem
	defer func() { d.sem <- struct{}{} }()
	if d.output == nil {
		return nil
	}
	return d.output.Close()
}
