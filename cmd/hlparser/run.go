package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/engine"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/kafka"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/nats"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/stdout"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// memoryShare is the part of the cgroup's memory that Go may plan with; the rest is for what it does not count.
const memoryShare = 0.9

func runCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Follow streams and deliver their events",
		Example: `  hlparser run --data-dir ~/hl/data --stream order-statuses --coin BTC --sink stdout --format raw --state-dir state
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

// run wires the parser together and runs it until the context is done or, with Once, to the end.
func run(ctx context.Context, c config.Config, log *slog.Logger) error {
	id := report.Identity{Version: report.BuildVersion(version), Target: c.Target, Pod: c.Pod, StartedAt: time.Now()}
	if _, err := memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithLogger(slog.New(slog.DiscardHandler))); err == nil {
		if limit, err := memlimit.FromCgroup(); err == nil {
			id.MemoryLimitBytes = int64(min(limit, 1<<62))
		}
	}

	var listener net.Listener
	if c.Listen != "" {
		var err error
		if listener, err = net.Listen("tcp", c.Listen); err != nil {
			return &config.FieldError{Field: "listen", Reason: err.Error()}
		}
		defer func() { _ = listener.Close() }()
	}
	output := sink.Routes(destinations(c, log))
	e, err := engine.New(engine.Options{Config: c, Output: output, FS: vfs.OS, Log: log})
	if err != nil {
		return err
	}

	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	if listener != nil {
		go func() { served <- report.Serve(serving, listener, withFaults(e, report.Handler(id, e))) }()
		log.Info("reporting", "address", listener.Addr().String())
	} else {
		served <- nil
	}
	err = e.Run(ctx)
	stopServing()
	return errors.Join(err, <-served)
}

// destinations are where each stream's records go.
func destinations(c config.Config, log *slog.Logger) map[string]sink.Destination {
	made := map[string]sink.Destination{} // by the sink's name
	out := map[string]sink.Destination{}  // by the stream's
	for _, stream := range c.Streams {
		to, ok := made[stream.Sink]
		if !ok {
			to = destination(c.SinkOf(stream), c, log)
			made[stream.Sink] = to
		}
		out[stream.Name.Kebab()] = to
	}
	return out
}

// destination is a sink's output, which is opened when the first stream asks for it.
func destination(s config.Sink, c config.Config, log *slog.Logger) sink.Destination {
	switch {
	case s.Stdout != nil:
		return sink.Destination{Kind: "stdout", Output: stdout.New(os.Stdout)}
	case s.NATS != nil:
		output := nats.New(nats.Options{Config: s.NATS, Writer: c.Writer, Target: c.Target, Log: log})
		return sink.Destination{Kind: "nats", Output: output}
	case s.Kafka != nil:
		return sink.Destination{Kind: "kafka", Output: kafka.New(kafka.Options{Config: s.Kafka, Writer: c.Writer, Target: c.Target, Log: log})}
	}
	return sink.Destination{Kind: "file", Output: sink.Deferred(func(ctx context.Context) (sink.Output, error) {
		return openFiles(ctx, s.File, log)
	})}
}

// openFiles opens the file sink's directory. Another parser that still writes there is waited for.
func openFiles(ctx context.Context, f *config.FileSink, log *slog.Logger) (sink.Output, error) {
	output, err := file.New(ctx, vfs.OS, f.Path, file.Options{
		MaxBytes: int64(f.MaxSize), MaxAge: f.MaxAge.Duration,
		Hourly: f.Rotate == config.RotateByHour, Zstd: f.Compress == config.Zstd,
	}, func() {
		log.Info("another parser writes to the output directory; waiting for it to go", "directory", f.Path)
	})
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: %w", sink.ErrFailed, err)
	}
	return output, err
}
