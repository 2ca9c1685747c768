package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// A file is loaded, then completed with defaults, then validated.
func ExampleLoad() {
	dir, err := os.MkdirTemp("", "config")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "parser.yaml")
	if err := os.WriteFile(path, []byte(`
dataDir: /home/hluser/hl/data
stateDir: /var/lib/hlparser
streams:
  - name: OrderStatuses
  - name: Fills
    mode: ByBlock
filter:
  coins: [BTC, "xyz:*"]
sink:
  file:
    path: /var/spool/hlparser
    rotate: Hour
engine:
  readRate: 100Mi
`), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	c, err := config.Load(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	c = c.WithDefaults(4)
	if err := c.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range c.Streams {
		fmt.Println(s.Name, s.Mode)
	}
	fmt.Println(c.Format, c.Engine.StartAt, c.Engine.Workers, "workers")
	fmt.Println("buffers of", c.Engine.BufferLimit, "and at most", c.Engine.ReadRate, "per second")
	fmt.Println("files of at most", c.Sink.File.MaxSize)
	// Output:
	// OrderStatuses Auto
	// Fills ByBlock
	// Enveloped End 4 workers
	// buffers of 32 MiB and at most 100 MiB per second
	// files of at most 1.0 GiB
}

// The error names the field as the file does, and what to write instead.
func ExampleConfig_Validate() {
	c := config.Config{
		DataDir: "/data", StateDir: "/state",
		Streams: []config.StreamConfig{{Name: config.Trades}, {Name: config.Trades}},
		Sink:    config.Sink{Stdout: &config.StdoutSink{}},
	}
	err := c.WithDefaults(1).Validate()
	var field *config.FieldError
	fmt.Println(errors.As(err, &field), field.Field)
	fmt.Println(err)
	// Output:
	// true streams[1].name
	// streams[1].name: Trades is listed twice: list each stream once
}

func ExampleParseStreamFlag() {
	s, err := config.ParseStreamFlag("raw-book-diffs:by-block")
	fmt.Println(s.Name, s.Mode, err)
	// Output:
	// RawBookDiffs ByBlock <nil>
}

func ExampleParseSinkFlag() {
	s, err := config.ParseSinkFlag("kafka://broker-1:9092,broker-2:9092/hl.{stream}?compression=lz4&create=true")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Kafka.Brokers, s.Kafka.Topic, s.Kafka.Compression, s.Kafka.Create != nil)
	// Output:
	// [broker-1:9092 broker-2:9092] hl.{stream} lz4 true
}
