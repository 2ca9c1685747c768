package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/merge"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const (
	// stateCheckEvery is how often the state is checked for deleted files.
	stateCheckEvery = time.Second
	// touchEvery is how often all state files are touched. Programs that prune the node's files delete what was not
	// written for at least two hours.
	touchEvery = 5 * time.Minute
)

// state is the state directory. It is maintained while the process holds its lock.
type state struct {
	*checkpoint.Directory
	output     sink.Output
	stop       func()
	maintained chan struct{}
}

// acquire waits for the state directory and maintains it until it is closed. lost is called when another process owns
// the directory: nothing may be written any more. From then on, and while the owner is unknown, streams and sinks
// refuse to write.
func (e *Engine) acquire(ctx context.Context, waiting func(), lost func(error)) (*state, error) {
	names := make([]string, len(e.pipelines))
	for i, p := range e.pipelines {
		names[i] = p.kebab
	}
	if e.cfg.Order.By != "" {
		names = append(names, merge.Stream)
	}
	dir, err := checkpoint.Acquire(ctx, e.fs, e.cfg.StateDir, names, waiting)
	if err != nil {
		return nil, err
	}
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &state{Directory: dir, output: e.output, stop: stop, maintained: make(chan struct{})}
	go func() {
		defer close(s.maintained)
		if err := e.maintainState(keeping, dir); err != nil {
			lost(err)
		}
	}()
	return s, nil
}

// close closes the output and releases the directory. With fold, set after an orderly end, older parsers can read the
// state.
func (s *state) close(fold bool) error {
	s.stop()
	<-s.maintained
	err := s.output.Close()
	if fold {
		err = errors.Join(err, s.Fold())
	}
	return errors.Join(err, s.Close())
}

// maintainState restores and touches the state, and what the output stores in it, so that it survives programs that
// delete files. It returns nil when the context is done, and otherwise why the directory is lost.
func (e *Engine) maintainState(ctx context.Context, dir *checkpoint.Directory) error {
	tick := time.NewTicker(min(stateCheckEvery, e.touchEvery))
	defer tick.Stop()
	touch := time.NewTimer(0)
	defer touch.Stop()
	var last string
	for {
		restored, err := dir.Keep()
		if len(restored) > 0 {
			e.log.Error("parts of the state were deleted while the parser ran and are restored: "+
				"exclude the state directory from every program that prunes files", "files", restored)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-touch.C:
			err = errors.Join(err, dir.Touch(), sink.Keep(e.output))
			// Parsers that started together should not write together.
			touch.Reset(e.touchEvery - rand.N(e.touchEvery/10+1))
		case <-tick.C:
		}
		if errors.Is(err, vfs.ErrLockLost) {
			return err
		}
		if text := errorText(err); text != last {
			if last = text; err != nil {
				e.log.Warn("maintaining the state; retrying", "error", err)
			}
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// guard returns an output that refuses writes while the state directory is not known to be locked, because another
// parser may continue from the same checkpoint. unopened is the checkpoint's field of that name.
func (s *state) guard(o sink.Output, unopened bool) sink.Output {
	return guarded{o, s.Directory, unopened}
}

type guarded struct {
	sink.Output
	dir      *checkpoint.Directory
	unopened bool
}

func (g guarded) Open(ctx context.Context, stream string, saved json.RawMessage) (sink.Sink, error) {
	if err := g.dir.Check(); err != nil {
		return nil, err
	}
	s, err := g.Output.Open(ctx, stream, saved)
	if err != nil {
		return nil, err
	}
	// A state directory that was deleted as a whole leaves no trace, but the destination may remember the stream. The
	// backlog is in the checkpoint before any sink is open: such a checkpoint knows nothing of records either.
	if (g.dir.New(stream) || g.unopened) && sink.Remembers(s) {
		return nil, errors.Join(fmt.Errorf("%w: the destination holds records of the stream, but %s has no record of it: "+
			"restore the state directory that belongs to the destination, or run "+
			"\"hlparser checkpoint forget --state-dir %[2]s --stream %s\" to start the stream as a new one",
			sink.ErrFailed, g.dir.Name(), stream), s.Close())
	}
	return guardedSink{s, g.dir}, nil
}

type guardedSink struct {
	sink.Sink
	dir *checkpoint.Directory
}

func (g guardedSink) Write(ctx context.Context, b sink.Batch) error {
	if err := g.dir.CheckWrite(); err != nil {
		return err
	}
	return g.Sink.Write(ctx, b)
}

func (g guardedSink) Flush(ctx context.Context, final bool) (sink.Flushed, error) {
	if err := g.dir.Check(); err != nil {
		return sink.Flushed{}, err
	}
	return g.Sink.Flush(ctx, final)
}

func (g guardedSink) Committed(ctx context.Context) error {
	if err := g.dir.Check(); err != nil {
		return err
	}
	return g.Sink.Committed(ctx)
}
