package engine

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/tail"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// dead is an output that has lost its destination: it cannot be opened, and open sinks cannot write.
type dead struct {
	sink.Sink
	note func()
}

func (d dead) Open(ctx context.Context, _ string, _ json.RawMessage) (sink.Sink, error) {
	return nil, d.Write(ctx, sink.Batch{})
}

func (d dead) Write(context.Context, sink.Batch) error {
	d.note()
	return errors.New("connection refused")
}

func (d dead) Delivered() int64 { return 0 }
func (d dead) Close() error     { return nil }

// When many parsers lose one destination at the same moment, their retries spread out, whatever the parsers were doing.
func TestParsersThatLoseOneDestinationRetryAtDifferentTimes(t *testing.T) {
	const parsers, attempts = 400, 6
	for name, work := range map[string]func(ctx context.Context, a *attempt, note func()){
		"a start": func(ctx context.Context, a *attempt, note func()) {
			a.engine.output = dead{note: note}
			a.engine.cfg.ShutdownTimeout.Duration = time.Second
			a.engine.pipelines = []*pipeline{a.pipeline}
			_ = a.engine.Run(ctx)
		},
		"a write": func(ctx context.Context, a *attempt, note func()) {
			a.sink, a.midBlock = dead{note: note}, true
			_ = a.write(ctx, nil, sink.Batch{})
		},
		"a commit": func(ctx context.Context, a *attempt, note func()) {
			_ = a.retry(ctx, "committing", func() error { return dead{note: note}.Write(ctx, sink.Batch{}) })
		},
		"a dead letter": func(ctx context.Context, a *attempt, note func()) {
			disk := crashfs.New()
			store, err := deadletter.Open(disk, "state", "trades", 0, deadletter.DefaultMaxBytes)
			if err != nil {
				t.Error(err)
				return
			}
			disk.Inject(func(op crashfs.Op) error {
				if op.Kind != crashfs.Write {
					return nil
				}
				note()
				return syscall.ENOSPC
			})
			a.dead = store
			for _, reason := range []string{"one", "another"} { // the second ends the run of the first, and writes it
				_ = a.writeDeadLetter(ctx, &buffer.Block{Data: []byte("x\n")},
					deadletter.Entry{Bytes: []byte("xxx"), Reason: reason})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var mu sync.Mutex
				at := make([][]time.Duration, attempts) // of all parsers, by attempt
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var all sync.WaitGroup
				for range parsers {
					all.Go(func() {
						n := 0
						note := func() {
							mu.Lock()
							defer mu.Unlock()
							if n < attempts {
								at[n] = append(at[n], time.Since(began))
							}
							n++
						}
						e := &Engine{now: time.Now, log: slog.New(slog.DiscardHandler), fs: crashfs.New(),
							budget: buffer.NewBudget(1<<22, 1)}
						e.newSource = func(o tail.Options, buf *buffer.Buffer) source { return tail.New(o, buf) }
						e.cfg.DataDir = t.TempDir()
						e.cfg.StateDir, e.touchEvery, e.maxDead = "state", touchEvery, deadletter.DefaultMaxBytes
						p := &pipeline{engine: e, log: e.log, kebab: "trades", stream: config.StreamConfig{Name: config.Trades},
							buf: e.budget.NewBuffer(), distributions: report.NewDistributions().Of("Trades")}
						unopened := tail.New(tail.Options{DataDir: "data", Log: e.log}, e.budget.NewBuffer())
						work(ctx, &attempt{pipeline: p, tail: unopened}, note)
					})
				}
				all.Wait()
				pause := sink.FirstPause
				for n, times := range at[1:] {
					if len(times) != parsers {
						t.Fatalf("%d of %d parsers made attempt %d", len(times), parsers, n+2)
					}
					slices.Sort(times)
					if width := times[parsers*19/20] - times[parsers/20]; width < pause*4/5 {
						t.Errorf("nine of ten parsers make attempt %d within %v, after pauses of about %v", n+2, width, pause)
					}
					pause *= 2
				}
			})
		})
	}
}
