package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/engine"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/merge"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/kafka"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/nats"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/stdout"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/version"
)

// gcPercent is the garbage that may accumulate, in percent of the memory in use. Go's default of 100 would let the
// process take twice what its buffers hold. Little is allocated besides the buffers, so earlier collections cost next
// to nothing.
const gcPercent = 50

// memoryShare is the share of the cgroup's memory limit that the Go runtime may use. The rest is for memory that it
// does not count.
const memoryShare = 0.9

// touchEvery overrides the engine's default in tests, which prune files more often.
var touchEvery time.Duration

func runCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Follow streams and deliver their events",
		Example: `  hlparser run --data-dir ~/hl/data --stream order-statuses --coin BTC --sink stdout --format raw \
    --state-dir state
  hlparser run --once --data-dir ~/hl/data --stream fills:by-block --sink file:out --state-dir state
  hlparser run --config parser.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.config(cmd)
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		},
	}
	s.register(cmd)
	return cmd
}

func checkCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate the settings and print what would run",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.config(cmd)
			if err != nil {
				return err
			}
			out, err := yaml.Marshal(c)
			if err != nil {
				return fmt.Errorf("printing the configuration: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "# target: %s\n%s", c.Target, out)
			return err
		},
	}
	s.register(cmd)
	return cmd
}

// run assembles the parser and runs it until the context is done or, with Once, to the end.
func run(ctx context.Context, c config.Config, log *slog.Logger) error {
	// Earlier versions of the operator accepted such a filter, and its objects must keep running. Elsewhere it is refused.
	if err := c.ValidateFilters(); err != nil {
		log.Warn("a stream cannot apply a setting of its filter, so all of its events pass", "error", err)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	id := report.Identity{
		Version: version.Get().Version, Target: c.Target, Pod: c.Pod, Namespace: c.Namespace, PodUID: c.PodUID,
		StartedAt: time.Now(), Metrics: c.Metrics,
	}
	if _, err := memlimit.Set(memlimit.WithRatio(memoryShare),
		memlimit.WithLogger(slog.New(slog.DiscardHandler))); err == nil {
		if limit, err := memlimit.FromCgroup(); err == nil {
			id.MemoryLimitBytes = int64(min(limit, 1<<62))
		}
	}

	var guard *seal.Guard
	if c.SealKey != "" {
		key, err := seal.ReadKey(c.SealKey)
		if err != nil {
			return &config.FieldError{Field: "seal-key", Reason: err.Error()}
		}
		guard = seal.NewGuard(key, c.OperatorKeys, log)
	}
	var listener net.Listener
	if c.Listen != "" {
		var err error
		if listener, err = report.Listen(c.Listen, c.NodeAddress, log); err != nil {
			return &config.FieldError{Field: "listen", Reason: err.Error()}
		}
		defer func() { _ = listener.Close() }()
	}
	output := sink.Routes(destinations(c, log))
	var sampler *sampling.Sampler // records are data: only an operator with keys can read them
	if guard != nil {
		sampler = &sampling.Sampler{}
	}
	e, err := engine.New(engine.Options{
		Config: c, Output: output, FS: vfs.PrivateOS, Log: log, Version: id.Version, Sampler: sampler,
		TouchEvery: touchEvery,
	})
	if err != nil {
		return err
	}

	log.Info("starting", version.Get().LogValues()...)
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	if listener != nil {
		go func() { served <- report.Serve(serving, listener, withFaults(e, reportHandler(id, e, sampler, guard))) }()
		about := []any{"address", listener.Addr().String()}
		if guard != nil {
			about = append(about, "sealed", true)
		}
		log.Info("reporting", about...)
	} else {
		served <- nil
	}
	err = e.Run(ctx)
	stopServing()
	return errors.Join(err, <-served)
}

// reportHandler returns the handler of the report. With a guard it serves the operator only.
func reportHandler(
	id report.Identity, e *engine.Engine, sampler *sampling.Sampler, guard *seal.Guard,
) http.Handler {
	if guard == nil {
		return report.Handler(id, e)
	}
	return report.SealedHandler(id, e, sampler, guard)
}

// destinations returns the destination of each stream's records, by the stream's name.
func destinations(c config.Config, log *slog.Logger) map[string]sink.Destination {
	made := map[string]sink.Destination{} // by the sink's name
	out := map[string]sink.Destination{}  // by the stream's name
	for _, stream := range c.Streams {
		to, ok := made[stream.Sink]
		if !ok {
			to = destination(c.SinkOf(stream), c, log)
			made[stream.Sink] = to
		}
		out[stream.Name.Kebab()] = to
		if c.Order.By != "" {
			out[merge.Stream] = to
		}
	}
	return out
}

// destination returns a sink's output. It is opened when the first stream needs it.
func destination(s config.Sink, c config.Config, log *slog.Logger) sink.Destination {
	switch {
	case s.Stdout != nil:
		return sink.Destination{Kind: "stdout", Output: stdout.New(os.Stdout)}
	case s.NATS != nil:
		output := nats.New(nats.Options{Config: s.NATS, Writer: c.Writer, Target: c.Target, Log: log})
		return sink.Destination{Kind: "nats", Output: output}
	case s.Kafka != nil:
		return sink.Destination{Kind: "kafka", Output: kafka.New(kafka.Options{Config: s.Kafka, Writer: c.Writer,
			Target: c.Target, Log: log})}
	}
	return sink.Destination{Kind: "file", Output: sink.Deferred(func(ctx context.Context) (sink.Output, error) {
		return openFiles(ctx, s.File)
	})}
}

// openFiles opens the file sink's directory. It does not wait for another parser that writes there: the error then
// matches vfs.ErrLocked, and the engine shows it in each stream's report and retries.
func openFiles(ctx context.Context, f *config.FileSink) (sink.Output, error) {
	trying, cancel := context.WithCancel(ctx)
	defer cancel()
	locked := false
	output, err := file.New(trying, vfs.OS, f.Path, file.Options{
		MaxBytes: int64(f.MaxSize), MaxAge: f.MaxAge.Duration,
		MaxTotalBytes: int64(f.MaxTotalSize), MinFreePercent: *f.MinFreePercent,
		Hourly: f.Rotate == config.RotateByHour, Zstd: f.Compress == config.Zstd,
	}, func() {
		locked = true
		cancel()
	})
	if err != nil && locked && ctx.Err() == nil {
		return nil, fmt.Errorf("the output directory %s: %w", f.Path, vfs.ErrLocked)
	}
	return output, err
}
