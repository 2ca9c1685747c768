package engine

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// BenchmarkDeduplication delivers a backlog of 8,192 lines to memory, with and without deduplicateBlocks, and a third
// time as a replay.
func BenchmarkDeduplication(b *testing.B) {
	const lines = 8192
	for _, mode := range []struct {
		name, directory string
		events          int // per line
	}{{"by-block", "node_trades_by_block", 100}, {"streaming", "node_trades_streaming", 1}} {
		var text strings.Builder
		for i := range lines {
			block := 1 + i
			if mode.events == 1 {
				block = 1 + i/8
			}
			fmt.Fprintf(&text, `{"local_time":"l","block_time":"t","block_number":%d,"events":[%s]}`+"\n",
				block, strings.TrimSuffix(strings.Repeat(trade(i)+",", mode.events), ","))
		}
		for _, setting := range []struct {
			name        string
			deduplicate bool
			times       int
		}{{"off", false, 1}, {"on", true, 1}, {"on, all twice", true, 2}} {
			b.Run(mode.name+"/"+setting.name, func(b *testing.B) {
				dir := b.TempDir()
				f, err := open(dir + "/" + mode.directory + "/hourly/20260430/8")
				if err != nil {
					b.Fatal(err)
				}
				for range setting.times {
					if _, err := f.WriteString(text.String()); err != nil {
						b.Fatal(err)
					}
				}
				if err := f.Close(); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(text.Len() * setting.times))
				for b.Loop() {
					cfg := config.Config{
						Target: "node-1", DataDir: dir, StateDir: "state", Format: config.Raw, Once: true,
						Streams: []config.StreamConfig{{Name: config.Trades}}, Sink: config.Sink{Stdout: &config.StdoutSink{}},
						Engine: config.Engine{StartAt: config.Beginning, Workers: 2, DeduplicateBlocks: setting.deduplicate},
					}
					e, err := New(Options{
						Config: cfg.WithDefaults(2), Output: &memory{}, FS: crashfs.New(),
						Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Sampler: &sampling.Sampler{},
					})
					if err != nil {
						b.Fatal(err)
					}
					if err := e.Run(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkLineMode delivers a backlog of 100,000 lines in line mode to memory.
func BenchmarkLineMode(b *testing.B) {
	const lines = 100_000
	var text strings.Builder
	for i := range lines {
		text.WriteString(trade(i) + "\n")
	}
	dir := b.TempDir()
	f, err := open(dir + "/node_trades/hourly/20260430/8")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := f.WriteString(text.String()); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		cfg := config.Config{
			Target: "node-1", DataDir: dir, StateDir: "state", Format: config.Raw, Once: true,
			Streams: []config.StreamConfig{{Name: config.Trades, Mode: config.Line}},
			Sink:    config.Sink{Stdout: &config.StdoutSink{}},
			Engine:  config.Engine{StartAt: config.Beginning, Workers: 2},
		}
		e, err := New(Options{
			Config: cfg.WithDefaults(2), Output: &memory{}, FS: crashfs.New(),
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Sampler: &sampling.Sampler{},
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := e.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
