package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// settings are the flags of run and check. They correspond to the fields of the configuration file and take precedence
// over them.
type settings struct {
	file    string
	streams []string
	markets []string
	sink    string
	format  string
	startAt string
	maxSize config.Bytes
	maxAll  config.Bytes
	minFree int
	maxAge  time.Duration
	rotate  string
	pack    string
	metrics []string
	order   string
	flags   config.Config
}

func (s *settings) register(cmd *cobra.Command) {
	f := cmd.Flags()
	c := &s.flags
	f.StringVar(&s.file, "config", "", "configuration file (YAML or JSON); flags take precedence")
	f.StringVar(&c.DataDir, "data-dir", "", "data directory of the node, such as ~/hl/data")
	f.StringArrayVar(&c.LinkDirs, "link-dir", nil,
		"directory outside of the data directory that links in it may lead to; repeatable")
	f.StringVar(&c.StateDir, "state-dir", "", "directory for positions and dead letters; it must outlive the process")
	f.StringArrayVar(&s.streams, "stream", nil, "stream to follow, such as order-statuses or fills:by-block; repeatable")
	f.StringArrayVar(&c.Filter.Coins, "coin", nil,
		`keep this coin, all coins of a builder ("xyz:*"), all spot pairs ("@*") or outcomes ("#*"); repeatable`)
	f.StringArrayVar(&s.markets, "market", nil, "keep the coins of this market: perp, spot, hip3 or outcome; repeatable")
	f.StringArrayVar(&c.Filter.ExcludeCoins, "exclude-coin", nil, "drop this coin, written as for --coin; repeatable")
	f.StringArrayVar(&c.Filter.Users, "user", nil, "keep this address; repeatable")
	f.StringArrayVar(&c.Filter.Statuses, "status", nil, "keep this status of orders and TWAP orders; repeatable")
	f.StringArrayVar(&c.Filter.ExcludeStatuses, "exclude-status", nil,
		"drop this status of orders and TWAP orders; repeatable")
	f.StringArrayVar(&c.Filter.Sides, "side", nil, "keep this side, A (ask) or B (bid); repeatable")
	f.StringArrayVar(&c.Filter.Types, "type", nil,
		"keep this kind of misc events, system actions or oracle updates, such as Funding; repeatable")
	f.StringVar(&c.Filter.MinNotional, "min-notional", "", "keep events whose price × size is at least this")
	f.StringVar(&s.sink, "sink", "",
		"where records are delivered: stdout, file:DIR, nats://HOST:PORT/STREAM or kafka://HOST:PORT/TOPIC")
	f.Var(&s.maxSize, "max-size", "close a file of the file sink before it exceeds this size; 0: 1Gi")
	f.DurationVar(&s.maxAge, "max-age", 0, "close a file of the file sink when it reaches this age (default 1h)")
	f.Var(&s.maxAll, "max-total-size", "wait while the files of one stream of the file sink hold this much; 0: no limit")
	f.IntVar(&s.minFree, "min-free-percent", 0,
		"wait while less than this percentage of the file sink's disk is free (default 10); 0: never")
	f.StringVar(&s.rotate, "rotate", "",
		"what closes a file of the file sink: size (and age), or hour (and size) (default size)")
	f.StringVar(&s.pack, "compress", "", "compress the files of the file sink: zstd")
	f.StringVar(&s.format, "format", "",
		"format of records: raw, enveloped, enveloped-rows or normalized (default enveloped)")
	f.StringVar(&s.startAt, "start-at", "",
		"where a stream without a position begins: end, beginning or block:NUMBER (default end; with --once, beginning)")
	f.BoolVar(&c.Once, "once", false, "read what is on disk at the start, deliver it and exit")
	f.StringVar(&c.Listen, "listen", "", "address for /status, /metrics, /healthz and /readyz, such as 127.0.0.1:9464")
	f.StringArrayVar(&s.metrics, "metrics", nil, "serve more metrics to every scrape: all, classic-buckets "+
		"(for scrapers without native histograms) or created-samples; repeatable")
	f.StringVar(&c.SealKey, "seal-key", "",
		"file of this parser's key pair, created by prepare: only holders of "+
			"--operator-keys can read /status and /debug/stack, and sample records at /samples "+
			"(default $"+sealKeyVariable+")")
	f.StringVar(&c.OperatorKeys, "operator-keys", "",
		"file of the holders' public keys, one per line; it is reloaded when it changes (default $"+operatorKeysVariable+")")
	f.Var(&c.Engine.BufferLimit, "buffer-limit", "memory for the buffers of all streams; 0: 32Mi")
	f.Var(&c.Engine.MaxLineBytes, "max-line-bytes", "skip lines that are longer than this; 0: 64Mi")
	f.Var(&c.Engine.ReadRate, "read-rate", "bytes per second read from disk at most, such as 100Mi; 0: no limit")
	f.IntVar(&c.Engine.ParallelThreshold, "parallel-threshold", 0,
		"lines in a batch from which all workers are used; 0: 1000")
	f.IntVar(&c.Engine.Workers, "workers", 0, "parallel workers; 0: the number of CPUs")
	f.BoolVar(&c.Engine.Markers, "markers", false,
		"report gaps, replays, late blocks and skipped data by records of stream _marker")
	f.BoolVar(&c.Engine.DeduplicateBlocks, "deduplicate-blocks", false,
		"skip blocks that a node writes again after a restart")
	f.StringVar(&s.order, "order", "", "deliver all streams to the sink as one, in this order: block")
	f.DurationVar(&c.Order.Patience.Duration, "patience", 0,
		"how long --order waits for a stream that brings nothing; 0: 5s")
	f.BoolVar(&c.LogBatches, "log-batches", false, "log one line per batch")
	f.DurationVar(&c.ShutdownTimeout.Duration, "shutdown-timeout", 0, "time to finish after SIGTERM; 0: 20s")
	f.StringVar(&c.Target, "id", "",
		"name of what is read, in records and in the report (default $HLPARSER_TARGET, else the host name)")
}

// Variables that replace flags. Pods get variables rather than flags, because older images would refuse unknown flags.
const (
	sealKeyVariable      = "HLPARSER_SEAL_KEY"
	operatorKeysVariable = "HLPARSER_OPERATOR_KEYS"
	publicKeyVariable    = "HLPARSER_PUBLIC_KEY"
)

// config merges the file and the flags, applies defaults, and validates the result.
func (s *settings) config(cmd *cobra.Command) (config.Config, error) {
	if s.file != "" {
		if err := s.load(cmd.Flags()); err != nil {
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
				err = fmt.Errorf("config: %w", err)
			}
			return s.flags, usageError{err}
		}
	}
	c := s.flags
	if err := s.apply(cmd, &c); err != nil {
		return c, err
	}
	c.Target = cmp.Or(c.Target, os.Getenv("HLPARSER_TARGET"), hostName())
	c.Writer = path.Join(os.Getenv("HLPARSER_FLEET"), c.Target)
	c.Pod = os.Getenv("HLPARSER_POD")
	c.Namespace, c.PodUID = os.Getenv("HLPARSER_NAMESPACE"), os.Getenv("HLPARSER_POD_UID")
	c.NodeAddress = os.Getenv("HLPARSER_NODE_ADDRESS")
	c.SealKey = cmp.Or(c.SealKey, os.Getenv(sealKeyVariable))
	c.OperatorKeys = cmp.Or(c.OperatorKeys, os.Getenv(operatorKeysVariable))
	c = c.WithDefaults(runtime.GOMAXPROCS(0))
	if err := c.Validate(); err != nil {
		return c, err
	}
	if c.Pod != "" {
		return c, nil // the operator's: see run
	}
	return c, c.ValidateFilters()
}

// load reads the configuration file into the fields that flags set, except those of the given flags.
func (s *settings) load(flags *pflag.FlagSet) (err error) {
	var restore []func() error
	flags.Visit(func(f *pflag.Flag) {
		switch v := f.Value.(type) {
		case pflag.SliceValue:
			values := v.GetSlice()
			restore = append(restore, func() error { return v.Replace(values) })
		case *config.Bytes: // its text is rounded
			size := *v
			restore = append(restore, func() error { *v = size; return nil })
		default:
			text := v.String()
			restore = append(restore, func() error { return v.Set(text) })
		}
	})
	s.flags, err = config.Load(s.file)
	for _, flag := range restore {
		err = errors.Join(err, flag())
	}
	return err
}

// apply applies the flags that are no field of the configuration by themselves.
func (s *settings) apply(cmd *cobra.Command, c *config.Config) error {
	set := cmd.Flags().Changed
	if set("format") {
		c.Format = config.Format(title(s.format))
	}
	if set("metrics") {
		c.Metrics = nil
		for _, v := range s.metrics {
			detail, err := config.ParseMetricsDetail(v)
			if err != nil {
				return usageError{fmt.Errorf("metrics: %w", err)}
			}
			c.Metrics = append(c.Metrics, detail)
		}
	}
	if set("order") {
		c.Order.By = config.OrderBy(title(s.order))
	}
	if set("market") {
		c.Filter.Markets = nil
		for _, v := range s.markets {
			c.Filter.Markets = append(c.Filter.Markets, config.Market(title(v)))
		}
	}
	if set("start-at") {
		var err error
		if c.Engine.StartAt, c.Engine.StartAtBlock, err = config.ParseStartAtFlag(s.startAt); err != nil {
			return usageError{fmt.Errorf("start-at: %w", err)}
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
		if set("max-total-size") {
			file.MaxTotalSize = s.maxAll
		}
		if set("min-free-percent") {
			file.MinFreePercent = &s.minFree
		}
		if set("rotate") {
			file.Rotate = config.Rotation(title(s.rotate))
		}
		if set("compress") {
			file.Compress = config.Compression(s.pack)
		}
	} else if slices.ContainsFunc(fileFlags, set) {
		return usageError{errors.New(strings.Join(fileFlags, ", ") +
			": only the file sink has these settings; add --sink file:DIR")}
	}
	return nil
}

// fileFlags are the flags of the file sink.
var fileFlags = []string{"max-size", "max-age", "max-total-size", "min-free-percent", "rotate", "compress"}

// title converts a flag's "enveloped-rows" to the file's "EnvelopedRows".
func title(s string) string {
	words := strings.Split(s, "-")
	for i, w := range words {
		if w != "" {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "")
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
