package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// settings are the flags of run and check. They are the fields of the configuration file; a flag that is given wins.
type settings struct {
	file    string
	streams []string
	sink    string
	format  string
	startAt string
	maxSize config.Bytes
	maxAge  time.Duration
	rotate  string
	pack    string
	flags   config.Config
}

func (s *settings) register(cmd *cobra.Command) {
	f := cmd.Flags()
	c := &s.flags
	f.StringVar(&s.file, "config", "", "configuration file (YAML or JSON); flags win over it")
	f.StringVar(&c.DataDir, "data-dir", "", "the node's data directory, such as ~/hl/data")
	f.StringVar(&c.StateDir, "state-dir", "", "directory for positions and dead letters; it must outlive the process")
	f.StringArrayVar(&s.streams, "stream", nil, "stream to follow, as order-statuses or fills:by-block; repeatable")
	f.StringArrayVar(&c.Filter.Coins, "coin", nil, `keep this coin, or a builder's as "xyz:*"; repeatable`)
	f.StringArrayVar(&c.Filter.Users, "user", nil, "keep this address; repeatable")
	f.StringArrayVar(&c.Filter.Statuses, "status", nil, "keep this order status; repeatable")
	f.StringArrayVar(&c.Filter.ExcludeStatuses, "exclude-status", nil, "drop this order status; repeatable")
	f.StringArrayVar(&c.Filter.Sides, "side", nil, "keep this side, A or B; repeatable")
	f.StringVar(&c.Filter.MinNotional, "min-notional", "", "keep events of at least this price × size")
	f.StringVar(&s.sink, "sink", "", "where records go: stdout, file:DIR, nats://HOST:PORT/STREAM or kafka://HOST:PORT/TOPIC")
	f.Var(&s.maxSize, "max-size", "close a file of the file sink before it passes this size")
	f.DurationVar(&s.maxAge, "max-age", 0, "close a file of the file sink when it is this old")
	f.StringVar(&s.rotate, "rotate", "", "what closes a file of the file sink: size (and age), or hour (and size)")
	f.StringVar(&s.pack, "compress", "", "compress the files of the file sink: zstd")
	f.StringVar(&s.format, "format", "", "shape of records: raw, enveloped or normalized")
	f.StringVar(&s.startAt, "start-at", "", "where a stream begins that was never read: end or beginning")
	f.BoolVar(&c.Once, "once", false, "read what is there now, deliver it and exit")
	f.StringVar(&c.Listen, "listen", "", "address for /status, /metrics, /healthz and /readyz, such as 127.0.0.1:9464")
	f.Var(&c.Engine.BufferLimit, "buffer-limit", "memory for buffers, such as 32Mi")
	f.Var(&c.Engine.MaxLineBytes, "max-line-bytes", "skip lines longer than this")
	f.Var(&c.Engine.ReadRate, "read-rate", "read at most so many bytes a second from disk, such as 100Mi; 0: no limit")
	f.IntVar(&c.Engine.ParallelThreshold, "parallel-threshold", 0, "lines in a batch from which all workers are used")
	f.IntVar(&c.Engine.Workers, "workers", 0, "parallel workers; 0: the number of CPUs")
	f.BoolVar(&c.Engine.Markers, "markers", false, "tell gaps, replays, late blocks and skipped data by records of stream _marker")
	f.BoolVar(&c.Engine.DeduplicateBlocks, "deduplicate-blocks", false, "leave out blocks that a node writes again after a restart")
	f.BoolVar(&c.LogBatches, "log-batches", false, "log a line for every batch")
	f.DurationVar(&c.ShutdownTimeout.Duration, "shutdown-timeout", 0, "time to finish in after SIGTERM")
	f.StringVar(&c.Target, "id", "", "name of what is read, in records and in the report (default $HLPARSER_TARGET, else the host's name)")
}

// config puts the file and the flags together, fills in defaults, and validates.
func (s *settings) config(cmd *cobra.Command) (config.Config, error) {
	var c config.Config
	if s.file != "" {
		var err error
		if c, err = config.Load(s.file); err != nil {
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
				return c, usageError{fmt.Errorf("config: %w", err)}
			}
			return c, usageError{err}
		}
	}
	if err := s.apply(cmd, &c); err != nil {
		return c, err
	}
	c.Target = firstOf(s.flags.Target, os.Getenv("HLPARSER_TARGET"), hostName())
	c.Writer = path.Join(os.Getenv("HLPARSER_FLEET"), c.Target)
	c.Pod = os.Getenv("HLPARSER_POD")
	c = c.WithDefaults(runtime.GOMAXPROCS(0))
	return c, c.Validate()
}

func (s *settings) apply(cmd *cobra.Command, c *config.Config) error {
	f, set := &s.flags, cmd.Flags().Changed
	for _, o := range []struct {
		flag  string
		apply func()
	}{
		{"data-dir", func() { c.DataDir = f.DataDir }},
		{"state-dir", func() { c.StateDir = f.StateDir }},
		{"coin", func() { c.Filter.Coins = f.Filter.Coins }},
		{"user", func() { c.Filter.Users = f.Filter.Users }},
		{"status", func() { c.Filter.Statuses = f.Filter.Statuses }},
		{"exclude-status", func() { c.Filter.ExcludeStatuses = f.Filter.ExcludeStatuses }},
		{"side", func() { c.Filter.Sides = f.Filter.Sides }},
		{"min-notional", func() { c.Filter.MinNotional = f.Filter.MinNotional }},
		{"once", func() { c.Once = f.Once }},
		{"listen", func() { c.Listen = f.Listen }},
		{"buffer-limit", func() { c.Engine.BufferLimit = f.Engine.BufferLimit }},
		{"max-line-bytes", func() { c.Engine.MaxLineBytes = f.Engine.MaxLineBytes }},
		{"read-rate", func() { c.Engine.ReadRate = f.Engine.ReadRate }},
		{"parallel-threshold", func() { c.Engine.ParallelThreshold = f.Engine.ParallelThreshold }},
		{"workers", func() { c.Engine.Workers = f.Engine.Workers }},
		{"markers", func() { c.Engine.Markers = f.Engine.Markers }},
		{"deduplicate-blocks", func() { c.Engine.DeduplicateBlocks = f.Engine.DeduplicateBlocks }},
		{"log-batches", func() { c.LogBatches = f.LogBatches }},
		{"shutdown-timeout", func() { c.ShutdownTimeout = f.ShutdownTimeout }},
		{"format", func() { c.Format = config.Format(title(s.format)) }},
		{"start-at", func() { c.Engine.StartAt = config.StartAt(title(s.startAt)) }},
	} {
		if set(o.flag) {
			o.apply()
		}
	}
	if set("stream") {
		c.Streams = nil
		for _, v := range s.streams {
			stream, err := config.ParseStreamFlag(v)
			if err != nil {
				return usageError{fmt.Errorf("stream: %w", err)}
			}
			c.Streams = append(c.Streams, stream)
		}
	}
	if set("sink") {
		sink, err := config.ParseSinkFlag(s.sink)
		if err != nil {
			return usageError{fmt.Errorf("sink: %w", err)}
		}
		c.Sink = sink
	}
	if file := c.Sink.File; file != nil {
		if set("max-size") {
			file.MaxSize = s.maxSize
		}
		if set("max-age") {
			file.MaxAge.Duration = s.maxAge
		}
		if set("rotate") {
			file.Rotate = config.Rotation(title(s.rotate))
		}
		if set("compress") {
			file.Compress = config.Compression(s.pack)
		}
	} else if set("max-size") || set("max-age") || set("rotate") || set("compress") {
		return usageError{errors.New("max-size, max-age, rotate, compress: only the file sink has files to close; add --sink file:DIR")}
	}
	return nil
}

// title turns a flag's "beginning" into the file's "Beginning".
func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
