package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

func TestOnlyGivenFlagsTakePrecedenceOverTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "parser.yaml")
	if err := os.WriteFile(file, []byte(`
dataDir: /data
stateDir: /state
streams: [{name: Fills, mode: ByBlock}]
filter: {coins: [BTC, SOL], users: ["0x0000000000000000000000000000000000000001"]}
format: Raw
sink: {file: {path: /out, maxSize: 1Mi, maxAge: 90s}}
metrics: [CreatedSamples]
engine: {readRate: 64Mi, maxLineBytes: 2Mi, workers: 3, startAt: Beginning, markers: true}
once: true
shutdownTimeout: 9s
`), 0o600); err != nil {
		t.Fatal(err)
	}
	var s settings
	cmd := &cobra.Command{}
	s.register(cmd)
	if err := cmd.ParseFlags([]string{
		"--coin", "ETH", "--config", file, "--coin", "HYPE", "--read-rate", "0", "--max-line-bytes", "1234567",
		"--once=false", "--max-age", "2m", "--format", "normalized", "--shutdown-timeout", "1500ms", "--id", "node-1",
		"--metrics", "all", "--metrics", "classic-buckets", "--market", "hip3", "--market", "perp", "--exclude-coin", "@*",
	}); err != nil {
		t.Fatal(err)
	}
	c, err := s.config(cmd)
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{
		"given":       c.Target == "node-1" && c.Format == config.Normalized,
		"given times": c.ShutdownTimeout.Duration == 1500*time.Millisecond,
		"given lists": slices.Equal(c.Filter.Coins, []string{"ETH", "HYPE"}),
		"given words": slices.Equal(c.Filter.Markets, []config.Market{config.Hip3, config.Perp}) &&
			slices.Equal(c.Filter.ExcludeCoins, []string{"@*"}),
		"given parts": slices.Equal(c.Metrics, []config.MetricsDetail{config.AllMetrics, config.ClassicBuckets}),
		"given zeros": c.Engine.ReadRate == 0 && !c.Once,
		"given sizes": c.Engine.MaxLineBytes == 1234567,
		"of the sink": c.Sink.File.MaxAge.Duration == 2*time.Minute && c.Sink.File.MaxSize == 1<<20,
		"of the file": c.DataDir == "/data" && c.Engine.Workers == 3 && c.Engine.Markers,
		"words of it": c.Engine.StartAt == config.Beginning,
		"lists of it": len(c.Filter.Users) == 1 && len(c.Streams) == 1,
	} {
		if !ok {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// TestAPodRunsWithAFilterThatAnEarlierVersionAccepted: its configuration is stored, and cannot be corrected.
func TestAPodRunsWithAFilterThatAnEarlierVersionAccepted(t *testing.T) {
	arguments := []string{"--data-dir", "/data", "--state-dir", "/state", "--sink", "stdout", "--stream", "order-statuses",
		"--stream", "fills", "--status", "open"}
	for pod, refused := range map[string]bool{"": true, "mainnet-0": false} {
		t.Setenv("HLPARSER_POD", pod)
		var s settings
		cmd := &cobra.Command{}
		s.register(cmd)
		if err := cmd.ParseFlags(arguments); err != nil {
			t.Fatal(err)
		}
		if _, err := s.config(cmd); (err != nil) != refused {
			t.Errorf("pod %q: %v; refused: %v", pod, err, refused)
		}
	}
}
